//! `stagecast simulate`: realistic customers with a known truth.

use std::path::PathBuf;

use crate::config::Config;
use crate::error::Result;
use crate::setup;
use crate::simulate::{self, Settings};
use crate::time::Ts;

use super::values::instant;

#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(group(clap::ArgGroup::new("destination").required(true).args(["out", "to_kafka"])))]
pub struct Args {
    /// How many customers
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub customers: u64,

    /// How many days of their lives
    #[arg(long, value_name = "D", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,

    /// Same seed, same customers
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// The first instant
    #[arg(long, value_name = "TS", default_value = "2025-01-01", value_parser = instant)]
    pub start: Ts,

    /// Folder for clickstream.ndjson, purchase.ndjson, support.ndjson and profile.ndjson
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Sends the events to the configured input topics
    #[arg(long)]
    pub to_kafka: bool,

    /// Overwrites the files of an earlier simulation
    #[arg(long, requires = "out")]
    pub force: bool,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let settings = Settings {
        customers: args.customers,
        days: args.days,
        seed: args.seed,
        start: args.start,
        ..Settings::default()
    };
    let bar = super::progress::bar("simulating");
    let mut show = |progress: simulate::Progress| bar.set_position((progress.share * 1_000.0) as u64);
    let summary = match &args.out {
        Some(dir) => simulate::write_files(&settings, dir, args.force, &mut show)?,
        None => crate::kafka::feed::simulate(&setup::clients(config), config, &settings, None, &mut show)?,
    };
    bar.finish_and_clear();
    let [clicks, purchases, support, profile] = summary.events;
    super::print(&format!(
        "{} customers: {clicks} clickstream, {purchases} purchase, {support} support and {profile} profile events\n",
        args.customers
    ))
}
