//! The `log-agent` command. Everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    log_agent::cli::main()
}
