//! `log-agent collect`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::collect::{Collector, Options};

/// Arguments of `log-agent collect`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Runs the reference collector: receives batches over HTTP and WebSockets and appends every event to a file, once, \
                  however often it is sent.\n\n\
                  POST on any path takes a batch (gzip and zstd bodies too). It is answered with 200 after the lines \
                  are on disk. A WebSocket on any path takes a batch a frame, which is answered with an ack then. GET /stats says what is stored. Which events are stored is remembered in FILE.seen, \
                  beside the file: keep both or neither.",
    after_long_help = "Examples:\n  \
                  log-agent collect --listen 127.0.0.1:8080 --out received.jsonl\n      \
                  an agent on the same machine sends to it with end_point = \"http://127.0.0.1:8080/\",\n      \
                  or with end_point = \"ws://127.0.0.1:8080/\" and send_type = \"WEBSOCKET\"\n  \
                  log-agent collect --listen 0.0.0.0:8080 --out /var/log/received.jsonl\n  \
                  log-agent collect --listen 127.0.0.1:0 --out received.jsonl\n      \
                  takes a free port; the first line of output says which\n  \
                  curl http://127.0.0.1:8080/stats"
)]
pub struct Args {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// File that events are appended to, one JSON object a line; created if it is not there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Most bytes in a request's body, or in a frame; decoded it may have four times as many.
    #[arg(long, value_name = "BYTES", default_value_t = Options::BODY_BYTES_MAX)]
    max_body_bytes: u64,
    /// Also print what GET /stats says, as one line, when the collector stops.
    #[arg(long)]
    stats: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options =
        Options { listen: args.listen.clone(), out: args.out.clone(), body_bytes_max: args.max_body_bytes };
    let collector = Collector::bind(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let stats = runtime.context("cannot start the runtime")?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot catch signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch signals")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // Whoever started it reads the port from here; that nobody reads is no reason to stop.
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "listening on http://{}/", collector.address());
        let _ = stdout.flush();
        anyhow::Ok(collector.run(stop).await?)
    })?;
    if args.stats {
        let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(&stats)?);
    }
    Ok(ExitCode::SUCCESS)
}
