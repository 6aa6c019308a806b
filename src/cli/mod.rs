//! The command line: one definition that makes parsing, help and usage errors, and the way to each command.
//!
//! A command is one file with its `Args` and its `run`; nothing here knows what a command does.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::Config;
use crate::error::{Error, Result};

pub mod demo;
pub mod run;
pub mod replay;
pub mod topics;
pub mod simulate;
pub mod train;
pub mod evaluate;
pub mod campaign_report;
pub mod recalibrate;
pub mod models;
pub mod explain;
pub mod check;
pub mod dlq;
pub mod erase;
pub mod schema;
pub mod generate;
pub mod examples;
pub mod logging;
mod progress;
mod values;

/// Streaming churn and lifecycle-stage scorer: Kafka events in; stage changes, churn scores and alerts out,
/// exactly once.
#[derive(Debug, Parser)]
#[command(name = "stagecast", version, about, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The configuration file [default: stagecast.toml, if there is one]
    #[arg(long, short, global = true, value_name = "FILE", env = "STAGECAST_CONFIG")]
    pub config: Option<PathBuf>,

    /// Sets a key of the configuration, over the file and the environment; may be repeated
    ///
    /// For example `--set commit.interval=20ms` or `--set kafka.bootstrap.servers=broker:9092`.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// How log lines are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// Logs more: -v debug, -vv trace (RUST_LOG overrides)
    #[arg(long, short, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,

    /// Logs less: -q warnings, -qq errors, -qqq nothing
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub quiet: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole system in one process: broker, customers, scoring, live page
    Demo(demo::Args),
    /// The service: consumes, scores and emits until told to stop
    Run(run::Args),
    /// The same engine over files, with no broker
    Replay(replay::Args),
    /// Makes and checks the topics
    Topics(topics::Args),
    /// Realistic customers with a known truth, to files or to the input topics
    Simulate(simulate::Args),
    /// Makes a model from events: point-in-time examples, fit, calibration, quality on held-back time
    Train(train::Args),
    /// How good a model is on time it has not seen: figures, JSON and a page with plots
    Evaluate(evaluate::Args),
    /// Whether the customers who were alerted about came back, against those who were left alone
    CampaignReport(campaign_report::Args),
    /// Makes a new version of a model whose probabilities are set right by what became of its scores
    Recalibrate(recalibrate::Args),
    /// Versions of a model: which one serves, which one is tried in its shadow, promotion and rollback
    Models(models::Args),
    /// Asks a running instance why a customer has its stage and score
    Explain(explain::Args),
    /// Validates the configuration and everything it names
    Check(check::Args),
    /// Dead letters that can be used after all
    Dlq(dlq::Args),
    /// Asks for a customer to be forgotten
    Erase(erase::Args),
    /// The interfaces as documents: JSON Schema of every event, AsyncAPI, OpenAPI
    Schema(schema::Args),
    /// Prints completions for a shell
    Completions(generate::Completions),
    /// Writes the manual as man pages
    Man(generate::Man),
}

/// The definition with examples: what parses, helps, completes and fills the manual.
pub fn command() -> clap::Command {
    examples::with_examples(Cli::command())
}

/// Parses the arguments; clap tells wrong usage and leaves with 2, help and version with 0.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Cli {
    try_parse(args).unwrap_or_else(|error| error.exit())
}

fn try_parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Does what the command line says.
pub fn dispatch(cli: Cli) -> Result<()> {
    // What the demo tells the terminal should not drown in log lines.
    let tells_itself = matches!(cli.command, Command::Demo(_)) && cli.global.verbose == 0;
    logging::init(&Global { quiet: cli.global.quiet.max(tells_itself.into()), ..cli.global.clone() })?;
    match &cli.command {
        Command::Completions(args) => return generate::completions(args),
        Command::Man(args) => return generate::man(args),
        _ => {}
    }
    let config = Config::load(cli.global.config.as_deref(), &cli.global.set)?;
    for property in config.kafka.unverified_tls() {
        tracing::warn!(property, "TLS does not verify who the broker is");
    }
    match cli.command {
        Command::Demo(args) => demo::run(&args, &config),
        Command::Run(args) => run::run(&args, &config),
        Command::Replay(args) => replay::run(&args, &config),
        Command::Topics(args) => topics::run(&args, &config),
        Command::Simulate(args) => simulate::run(&args, &config),
        Command::Train(args) => train::run(&args, &config),
        Command::Evaluate(args) => evaluate::run(&args, &config),
        Command::CampaignReport(args) => campaign_report::run(&args, &config),
        Command::Recalibrate(args) => recalibrate::run(&args, &config),
        Command::Models(args) => models::run(&args, &config),
        Command::Explain(args) => explain::run(&args, &config),
        Command::Check(args) => check::run(&args, &config),
        Command::Dlq(args) => dlq::run(&args, &config),
        Command::Erase(args) => erase::run(&args, &config),
        Command::Schema(args) => schema::run(&args, &config),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
    }
}

/// Writes a command's result to standard output; a reader that has gone away (`| head`) is no failure.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::world(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
