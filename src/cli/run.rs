//! `stagecast run`: the service.

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
