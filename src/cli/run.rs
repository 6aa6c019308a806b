//! `stagecast run`: the service.

use crate::config::Config;
use crate::error::Result;
use crate::kafka::service;
use crate::setup;
use crate::time::Ts;

use super::values::instant;

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Stops at the end offsets found at start
    #[arg(long)]
    pub until_end: bool,

    /// Then runs every partition's clock on to this instant, as `replay --until` does
    #[arg(long, value_name = "TS", value_parser = instant, requires = "until_end")]
    pub until: Option<Ts>,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let plan = setup::plan(config, None)?;
    #[cfg(feature = "otel")]
    let _exporting = crate::otel::start()?;
    service::run(config, plan, service::Request { until_end: args.until_end, until: args.until })
}
