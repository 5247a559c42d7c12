//! `log-agent check`: what a configuration means on this machine, without starting anything or touching the spool.

mod source;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::process::ExitCode;

use crate::config::{self, Auth, Config, Global, OnFull, SyncMode, show_bytes};
use crate::send;

const AFTER_HELP: &str = "\
What is legal but cannot be meant (a file that cannot be read, is compressed or is followed twice, credentials sent in
the clear, certificates that are not used) is a warning on standard error.

Examples:
  log-agent check
  log-agent check --config /etc/log-agent/log-agent.config && systemctl restart log-agent
  log-agent check --files 1000               list up to 1000 files of each source
  log-agent check --keys                     every key of the configuration, as Markdown

Exit codes:
  0   accepted
  2   accepted with warnings
  64  not accepted; one line says file, line, key and what is accepted";

/// Arguments of `log-agent check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Most files listed for each source.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    files: usize,
    /// Prints every key with its default, what it accepts and what it is for, and looks at no configuration.
    #[arg(long)]
    keys: bool,
}

/// Runs the subcommand.
pub fn run(cli: &super::Cli, args: &Args) -> anyhow::Result<ExitCode> {
    if args.keys {
        print(io::stdout(), &config::reference(&send::transports()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(&cli.config, cli.spool_dir.as_deref(), &send::transports())?;
    let mut report = Report::default();
    report.destination(&config);
    for source in &config.sources {
        report.source(source, args.files);
    }
    print(io::stdout(), &report.text)?;
    let mut warnings = String::new();
    for warning in &report.warnings {
        // Writing to a String cannot fail.
        let _ = writeln!(warnings, "log-agent: warning: {warning}");
    }
    print(io::stderr(), &warnings)?;
    Ok(if report.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(super::EXIT_FOUND) })
}

/// Writes `text`; a reader that has seen enough is no failure.
fn print(mut to: impl io::Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// What the configuration means, as text, and what about it cannot be meant.
#[derive(Default)]
struct Report {
    text: String,
    warnings: Vec<String>,
    /// By device and inode, the source that was the first to follow a file.
    followed: HashMap<(u64, u64), String>,
}

impl Report {
    fn line(&mut self, label: &str, text: impl fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{label:<12}{text}");
    }

    /// Where batches go and how.
    fn destination(&mut self, config: &Config) {
        let global = &config.global;
        self.line("accepted", config.path.display());
        self.line("agent", &global.agent_name);
        self.line("sends to", &global.end_point);
        self.line("", format_args!("{}, {}", global.send_type.name, (global.send_type.sends)(global)));
        self.line("auth", auth_name(global.auth.as_ref()));
        if !global.headers.is_empty() {
            let names: Vec<_> = global.headers.iter().map(|(name, _)| name.as_str()).collect();
            self.line("headers", names.join(", "));
        }
        self.tls(global);
        self.line(
            "batches",
            format_args!(
                "up to {} events or {}, sent after {:?} at the latest",
                global.max_batch_size,
                show_bytes(global.max_batch_bytes),
                global.interval
            ),
        );
        self.line(
            "retries",
            format_args!(
                "{} quick ones from {:?} on, then slow ones for ever",
                global.retry_count, global.retry_delay
            ),
        );
        self.spool(global);
    }

    fn tls(&mut self, global: &Global) {
        let (secure, tls) = (global.end_point.is_secure(global.send_type), &global.tls);
        let scheme = global.end_point.0.scheme();
        let given = tls.ca_pem.is_some() || tls.client_identity_pem.is_some();
        if secure {
            let roots = if tls.ca_pem.is_some() { "ca_file" } else { "the system's roots" };
            let identity =
                if tls.client_identity_pem.is_some() { "; client_cert_file is shown to it" } else { "" };
            self.line("tls", format_args!("the server is verified against {roots}{identity}"));
            return;
        }
        self.line("tls", "none");
        if given {
            self.warnings.push(format!("[global.tls] is not used, as end_point begins with {scheme}://"));
        }
        if global.auth.is_some() && !is_loopback(&global.end_point.0) {
            self.warnings.push(format!(
                "the secret of [global.auth] crosses the network in the clear, as end_point begins with {scheme}://"
            ));
        }
    }

    fn spool(&mut self, global: &Global) {
        let on_full = match global.on_full {
            OnFull::Block => "reading pauses",
            OnFull::DropOldest => "the oldest events are dropped and counted",
        };
        let sync = match global.sync {
            SyncMode::Group => "survives a power cut",
            SyncMode::Os => "survives a killed process, not a power cut",
        };
        self.line("spool", global.spool_dir.display());
        self.line(
            "",
            format_args!(
                "up to {}, {} of the disk left free; when full, {on_full}",
                show_bytes(global.max_spool_bytes),
                show_bytes(global.min_free_bytes)
            ),
        );
        self.line("", sync);
        if let Some(most) = global.max_open_files {
            self.line("files", format_args!("up to {most} are kept open"));
        }
    }
}

fn auth_name(auth: Option<&Auth>) -> String {
    match auth {
        None => "none".to_owned(),
        Some(Auth::Bearer(_)) => "bearer token".to_owned(),
        Some(Auth::Basic { user, .. }) => format!("basic, as {user}"),
    }
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        // Of a scheme that is not of the web, an address is a name like any other.
        Some(url::Host::Domain(name)) => {
            name == "localhost"
                || name.ends_with(".localhost")
                || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        }
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
