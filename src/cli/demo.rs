//! `stagecast demo`: the whole system in one process, with no server to install.

use std::time::Duration;

use crate::config::Config;
use crate::demo::{self, Settings};
use crate::error::Result;

use super::values::{positive_span, span};

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Ends by itself after this long, such as 60s
    #[arg(long = "for", value_name = "SPAN", value_parser = positive_span)]
    pub length: Option<i64>,

    /// Real brokers to run it on, instead of the one inside the process
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,

    /// How much event time passes in a second
    #[arg(long, value_name = "SPAN", default_value = "1d", value_parser = positive_span)]
    pub speed: i64,

    /// How much has happened already when the show begins
    #[arg(long, value_name = "SPAN", default_value = "120d", value_parser = span)]
    pub history: i64,

    /// How many customers arrive within ten years
    #[arg(long, value_name = "N", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub customers: u64,

    /// Same seed, same customers
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let settings = Settings {
        brokers: args.brokers.clone(),
        customers: args.customers,
        seed: args.seed,
        speed_ms: args.speed,
        history_ms: args.history,
        length: args.length.map(|ms| Duration::from_millis(ms.unsigned_abs())),
    };
    demo::run(&settings, config)
}
