//! The program: parse the command line, do it, turn an error into an exit code.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use stagecast::cli;
use stagecast::error::Error;
use stagecast::memory;

/// Also what librdkafka allocates with: it takes and frees some blocks for every record.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::use_small_pages();
    match cli::dispatch(cli::parse(std::env::args_os())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Standard error may be closed; the exit code tells as well.
fn tell(error: &Error) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "error: {}", error.what);
    if let Some(hint) = &error.hint {
        let _ = writeln!(err, "hint: {hint}");
    }
}
