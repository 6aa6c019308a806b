//! `stagecast replay`: the same engine over files, with no broker.

use std::path::PathBuf;

use crate::time::Ts;

use super::values::instant;

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Folder with clickstream.ndjson, purchase.ndjson, support.ndjson and profile.ndjson, each optional
    #[arg(long, value_name = "DIR")]
    pub input: PathBuf,

    /// Folder for the outputs; made if there is none
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    pub output: Option<PathBuf>,

    /// The model to score with [default: the configured one]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// Writes features.ndjson: every known customer at each of these instants
    #[arg(long, value_name = "TS", value_parser = instant, value_delimiter = ',')]
    pub features_at: Vec<Ts>,

    /// Runs the clock on to this instant after the last event
    #[arg(long, value_name = "TS", value_parser = instant)]
    pub until: Option<Ts>,

    /// Compares the outputs with those of this folder and names the first difference
    #[arg(long, value_name = "DIR")]
    pub check: Option<PathBuf>,

    /// Overwrites the outputs of an earlier replay
    #[arg(long)]
    pub force: bool,
}
