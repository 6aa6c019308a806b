//! `stagecast replay`: the same engine over files, with no broker.

use std::path::PathBuf;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::replay;
use crate::replay::check::Equal;
use crate::setup;
use crate::signals::Stop;
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

    /// Writes into a folder that holds other files than the outputs of an earlier replay
    #[arg(long)]
    pub force: bool,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let plan = setup::plan(config, args.model.as_deref())?;
    // Without a place for the outputs they are only compared.
    let scratch = match &args.output {
        Some(_) => None,
        None => Some(Scratch::new()?),
    };
    let output =
        args.output.clone().or_else(|| scratch.as_ref().map(|s| s.0.join("replay"))).unwrap_or_default();
    let request = replay::Request {
        input: args.input.clone(),
        output: output.clone(),
        features_at: args.features_at.clone(),
        until: args.until,
        force: args.force,
    };
    let bar = super::progress::spinner("replaying");
    let stop = Stop::listen()?;
    let progress = |events| {
        bar.set_position(events);
        stop.check()
    };
    let summary = replay::replay(plan, config, &request, &progress)?;
    bar.finish_and_clear();
    tell(&summary)?;
    match &args.check {
        Some(earlier) => {
            let Equal { records, missing } = replay::check::compare(&output, earlier)?;
            let left_out = match missing.as_slice() {
                [] => String::new(),
                missing => format!("; not compared, {} has none: {}", earlier.display(), missing.join(", ")),
            };
            super::print(&format!("equal: {records} records{left_out}\n"))
        }
        None => Ok(()),
    }
}

fn tell(summary: &replay::Summary) -> Result<()> {
    let replay::Summary { events, late, duplicates, erased, dead_letters, outputs, customers } = summary;
    super::print(&format!(
        "{events} events of {customers} customers ({late} late, {duplicates} duplicates, {erased} of erased customers), {dead_letters} dead letters, \
         {outputs} outputs\n"
    ))
}

/// A folder that goes away with the command.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("stagecast-replay-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| Error::io("make the folder", &path, &e))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
