//! `stagecast evaluate`: how good a model is on time it has not seen.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::evaluate::{self, Evaluation, Request, page};
use crate::kafka::history::History;
use crate::replay::{Inputs, Merged};
use crate::setup;
use crate::time::Ts;

use super::values::instant;

#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(group(clap::ArgGroup::new("events").required(true).args(["input", "from_kafka"])))]
pub struct Args {
    /// Folder with clickstream.ndjson, purchase.ndjson, support.ndjson and profile.ndjson, each optional
    #[arg(long, value_name = "DIR")]
    pub input: Option<PathBuf>,

    /// Reads the configured input topics, up to where they end at the start; joins and commits nothing
    #[arg(long)]
    pub from_kafka: bool,

    /// The model [default: the configured one]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// Folder for evaluation.json and evaluation.html [default: only the summary is printed]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Prints the JSON instead of the summary
    #[arg(long)]
    pub json: bool,

    /// The instants to score at [default: chosen after everything the model learned from]
    #[arg(long, value_name = "TS", value_parser = instant, value_delimiter = ',')]
    pub cuts: Vec<Ts>,

    /// The model never saw this input: all of its time may be used
    #[arg(long)]
    pub unseen: bool,

    /// The trait whose values are told apart
    #[arg(long, value_name = "TRAIT", default_value = "segment")]
    pub segment: String,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let model = setup::model(config, args.model.as_deref())?;
    let request = Request { cuts: args.cuts.clone(), unseen: args.unseen, segment: args.segment.clone() };
    let bar = super::progress::spinner("evaluating");
    let seen = |events| bar.set_position(events);
    let evaluation = match &args.input {
        Some(folder) => {
            let open = || Ok(Merged::new(Inputs::open(folder, config)?, config));
            evaluate::evaluate(&open, config, &model, &request, &seen)?
        }
        None => {
            let history = History::find(setup::clients(config), config)?;
            let open = || Ok(Merged::new(history.open()?, config));
            evaluate::evaluate(&open, config, &model, &request, &seen)?
        }
    };
    bar.finish_and_clear();
    if !evaluation.held_back {
        tracing::warn!("some cuts lie inside what the model learned from: the figures flatter it");
    }
    let json = serde_json::to_string_pretty(&evaluation)
        .map_err(|e| Error::world(format!("the evaluation cannot be written as JSON: {e}")))?;
    if let Some(folder) = &args.output {
        write(folder, "evaluation.json", &(json.clone() + "\n"))?;
        write(folder, "evaluation.html", &page::page(&evaluation, &model))?;
    }
    super::print(&if args.json { json + "\n" } else { summary(&evaluation, args.output.as_deref()) })
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, &e))?;
    let (path, partial) = (folder.join(name), folder.join(format!("{name}.partial")));
    std::fs::write(&partial, text).map_err(|e| Error::io("write", &partial, &e))?;
    std::fs::rename(&partial, &path).map_err(|e| Error::io("write", &path, &e))
}

fn summary(evaluation: &Evaluation, output: Option<&Path>) -> String {
    let (r, b) = (&evaluation.scores, &evaluation.baselines);
    let others = [
        ("recency alone", b.recency.map(|r| r.roc_auc.value)),
        ("p_no_order", b.p_no_order.as_ref().map(|r| r.roc_auc.value)),
    ];
    let others: String =
        others.iter().filter_map(|(name, auc)| Some(format!(", {name} {:.3}", (*auc)?))).collect();
    let flattered = if evaluation.held_back { "" } else { " (inside what the model learned from)" };
    let written = output.map_or(String::new(), |folder| {
        format!("  written to {} and .html\n", folder.join("evaluation.json").display())
    });
    format!(
        "{} {}: {} examples of {} customers at {} instants{flattered}, of whom {:.1} % churned\n\
         \x20 ROC-AUC {:.3} ({:.3} to {:.3}){others}\n\
         \x20 PR-AUC {:.3}, Brier {:.4} (base rate {:.4}), log loss {:.4}, ECE {:.4}, mean p_churn {:.3}\n\
         \x20 lift at 10 % {:.2}, capture at 10 % {:.3}\n{written}",
        evaluation.model.name,
        evaluation.model.version,
        r.examples,
        evaluation.customers,
        evaluation.cuts.len(),
        100.0 * r.base_rate,
        r.roc_auc.value,
        r.roc_auc.low,
        r.roc_auc.high,
        r.pr_auc,
        r.brier,
        b.base_rate.brier,
        r.log_loss,
        r.ece,
        r.mean_p,
        r.lift_10,
        r.capture_10,
    )
}
