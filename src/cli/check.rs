//! `log-agent check`: what a configuration means on this machine, without starting anything or touching the spool.

mod source;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::process::ExitCode;

use crate::agent;
use crate::config::{
    self, Auth, Config, EndPoint, Format, Global, Labels, OnFull, Proxy, SyncMode, show_bytes,
};
use crate::send::{self, Probe};

const AFTER_HELP: &str = "\
What is legal but cannot be meant (a file that cannot be read, is compressed or is followed twice, credentials sent in
the clear, certificates that are not used) is a warning on standard error.

Examples:
  log-agent check
  log-agent check --config /etc/log-agent/log-agent.config && systemctl restart log-agent
  log-agent check --files 1000               list up to 1000 files of each source
  log-agent check --connect                  ask every end point whether it can be reached as configured
  log-agent check --keys                     every key of the configuration, as Markdown

Exit codes:
  0   accepted
  2   accepted with warnings, or an end point cannot be reached
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
    /// Asks every end point, without sending an event: HTTP by an OPTIONS request with the headers and credentials of the
    /// configuration, a WebSocket by its handshake, message brokers by connecting to them and asking for the stream,
    /// exchange, queue or topic. Each takes timeout_secs at most.
    #[arg(long)]
    connect: bool,
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
    if args.connect {
        report.connect(&config)?;
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
        for other in &global.fail_over {
            self.line("or to", other);
        }
        self.line("", format_args!("{}, {}", global.send_type.name, (global.send_type.sends)(global)));
        self.format(config);
        if let Some(proxy) = proxy(&global.proxy) {
            self.line("proxy", proxy);
        }
        self.line("auth", auth_name(global.auth.as_ref()));
        if !global.headers.is_empty() {
            let names: Vec<_> = global.headers.iter().map(|(name, _)| name.as_str()).collect();
            self.line("headers", names.join(", "));
        }
        self.tls(global);
        self.secrets_in_the_clear(global);
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

    /// What a batch looks like, and what is added to it.
    fn format(&mut self, config: &Config) {
        let global = &config.global;
        let index = match global.format {
            Format::Elasticsearch => format!(", index {}", global.elasticsearch_index),
            _ => String::new(),
        };
        self.line("format", format_args!("{}{index}", global.format.name()));
        if !global.labels.is_empty() {
            self.line("labels", shown(&global.labels));
        }
        for source in config.sources.iter().filter(|source| !source.labels.is_empty()) {
            self.line("", format_args!("{} of {}", shown(&source.labels), source.name));
        }
    }

    /// What the end points answer.
    fn connect(&mut self, config: &Config) -> anyhow::Result<()> {
        let strategy = send::strategy(&config.global)?;
        let sources: Vec<_> = config.sources.iter().map(|source| source.name.clone()).collect();
        let probes = agent::runtime()?.block_on(strategy.probe(&sources));
        if probes.is_empty() {
            let name = config.global.send_type.name;
            self.line("connect", format_args!("{name} cannot be asked without sending"));
        }
        for Probe { end_point, found } in probes {
            match found {
                Ok(found) => self.line("reached", format_args!("{end_point}: {found}")),
                Err(wrong) => self.warnings.push(format!("{end_point} cannot be used: {wrong}")),
            }
        }
        Ok(())
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
    }

    fn secrets_in_the_clear(&mut self, global: &Global) {
        let open =
            |end_point: &&EndPoint| !end_point.is_secure(global.send_type) && !is_loopback(&end_point.0);
        if global.auth.is_some()
            && let Some(open) = global.end_points().find(open)
        {
            self.warnings.push(format!(
                "the secret of [global.auth] crosses the network in the clear, as end_point begins with {}://",
                open.0.scheme()
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

fn shown(labels: &Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

fn proxy(proxy: &Proxy) -> Option<String> {
    match proxy {
        // What the environment of the agent will have is not known here.
        Proxy::Environment => None,
        Proxy::None => Some("none, whatever the environment has".to_owned()),
        Proxy::Through { url, credentials, except } => {
            let user = credentials.as_ref().map_or_else(String::new, |(user, _)| format!(", as {user}"));
            let except =
                if except.is_empty() { String::new() } else { format!(", but for {}", except.join(", ")) };
            Some(format!("{url}{user}{except}"))
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
