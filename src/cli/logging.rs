//! Where log lines go (standard error), how they look, and which are written.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

use super::{Global, LogFormat};

/// Sets up logging for the rest of the process. `RUST_LOG` wins over `-v` and `-q`.
pub fn init(global: &Global) -> Result<()> {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref(), global.verbose, global.quiet)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match global.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            lines.with_ansi(std::io::stderr().is_terminal() && !plain).try_init()
        }
    };
    set.map_err(|error| Error::world(format!("cannot set up logging: {error}")))
}

fn filter(rust_log: Option<&str>, verbose: u8, quiet: u8) -> Result<EnvFilter> {
    if let Some(directives) = rust_log.filter(|directives| !directives.trim().is_empty()) {
        return EnvFilter::try_new(directives).map_err(|error| {
            Error::user(format!("cannot read RUST_LOG `{directives}`: {error}"))
                .hint("write for example RUST_LOG=info or RUST_LOG=warn,stagecast=debug")
        });
    }
    Ok(EnvFilter::new(directives(verbose, quiet)))
}

/// -v is about this program; what its libraries say comes with -vv.
fn directives(verbose: u8, quiet: u8) -> &'static str {
    match (verbose, quiet) {
        (0, 0) => "info",
        (1, 0) => "info,stagecast=debug",
        (_, 0) => "debug,stagecast=trace",
        (_, 1) => "warn",
        (_, 2) => "error",
        _ => "off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_wins_over_flags_and_a_broken_one_is_wrong_usage() {
        assert_eq!(filter(Some("warn"), 2, 0).map(|f| f.to_string()), Ok("warn".into()));
        assert_eq!(filter(Some(" "), 0, 0).map(|f| f.to_string()), Ok("info".into()));
        assert_eq!(filter(None, 0, 3).map(|f| f.to_string()), Ok("off".into()));
        let error = filter(Some("stagecast=loud"), 0, 0).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.what.contains("RUST_LOG"), "{error}");
    }
}
