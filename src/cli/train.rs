//! `stagecast train`: from events to a calibrated model.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::history::History;
use crate::model::{Model, artifact};
use crate::replay::{Inputs, Merged};
use crate::setup;
use crate::time::{Ts, format_rfc3339};
use crate::training::{self, Task, Trained};

use super::values::{instant, positive_span, span};

#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(group(clap::ArgGroup::new("events").required(true).args(["input", "from_kafka"])))]
pub struct Args {
    /// Folder with clickstream.ndjson, purchase.ndjson, support.ndjson and profile.ndjson, each optional
    #[arg(long, value_name = "DIR")]
    pub input: Option<PathBuf>,

    /// Reads the configured input topics, up to where they end at the start; joins and commits nothing
    #[arg(long)]
    pub from_kafka: bool,

    /// Where the model is written, with a card that tells about it beside it (.md)
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,

    /// What counts as churn within the horizon
    #[arg(long, value_enum, default_value_t = Label::NoOrder)]
    pub label: Label,

    /// How far ahead the model looks
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = positive_span)]
    pub horizon: i64,

    /// Gap between the instant of scoring and the horizon
    #[arg(long, value_name = "SPAN", default_value = "0d", value_parser = span)]
    pub lead: i64,

    /// A customer is an example at a cut when it did something in this span before it
    #[arg(long, value_name = "SPAN", default_value = "90d", value_parser = positive_span)]
    pub active_within: i64,

    /// The instants to take examples at [default: chosen over the whole input]
    #[arg(long, value_name = "TS", value_parser = instant, value_delimiter = ',')]
    pub cuts: Vec<Ts>,

    /// Learns from nothing at or after this instant, which leaves the time from there on for `evaluate`
    #[arg(long, value_name = "TS", value_parser = instant)]
    pub until: Option<Ts>,

    /// Lets no weight point against what its feature says alone, even where accuracy suffers (more than a hundredth of
    /// what the features tell): more visits mean no more churn; a curve may turn for a twentieth of its way
    #[arg(long)]
    pub monotone: bool,

    /// Overwrites even a file that is no model
    #[arg(long)]
    pub force: bool,
}

/// What a customer does not do, or does, when it churns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Label {
    /// No order
    NoOrder,
    /// No event of any kind
    NoEvent,
    /// A cancelled subscription
    Cancelled,
}

impl From<Label> for artifact::Label {
    fn from(label: Label) -> artifact::Label {
        match label {
            Label::NoOrder => artifact::Label::NoOrder,
            Label::NoEvent => artifact::Label::NoEvent,
            Label::Cancelled => artifact::Label::Cancelled,
        }
    }
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let card_path = args.output.with_extension("md");
    refuse_foreign(&args.output, &card_path, args.force)?;
    let task = Task {
        name: name_of(&args.output)?,
        label: args.label.into(),
        horizon: args.horizon,
        lead: args.lead,
        active_within: args.active_within,
        cuts: args.cuts.clone(),
        until: args.until,
        monotone: args.monotone,
    };
    let bar = super::progress::spinner("training");
    let seen = |events| bar.set_position(events);
    let trained = match &args.input {
        Some(folder) => {
            let open = || Ok(Merged::new(Inputs::open(folder, config)?, config));
            training::train(&open, config, &task, &seen)?
        }
        None => {
            let history = History::find(setup::clients(config), config)?;
            let open = || Ok(Merged::new(history.open()?, config));
            training::train(&open, config, &task, &seen)?
        }
    };
    bar.finish_and_clear();
    if let Some(first) = &trained.skipped.first {
        tracing::warn!(records = trained.skipped.records, first, "records could not be used");
    }
    // The model goes last: whoever finds it finds its card.
    write_whole(&card_path, &training::card::card(&trained))?;
    trained.model.write(&args.output)?;
    super::print(&summary(&trained, &args.output))
}

/// The model is named after its file.
fn name_of(output: &Path) -> Result<String> {
    match output.file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) if !stem.is_empty() => Ok(stem.to_owned()),
        _ => Err(Error::user(format!("--output {} does not name a file", output.display()))
            .hint("name the model's file, such as models/churn.json")),
    }
}

/// An earlier model makes room for a new one; any other file does so only when told to.
fn refuse_foreign(model: &Path, card: &Path, force: bool) -> Result<()> {
    if model == card {
        let what = format!("--output {} is where the model's card goes", model.display());
        return Err(Error::user(what).hint("name the model's file with another ending, such as .json"));
    }
    // Before minutes of reading, not after them.
    let folder = model.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(Error::user(format!("there is no folder {} for the model", folder.display()))
            .hint("make it first"));
    }
    let is_model = |path: &Path| Model::read(path).is_ok();
    let is_card = |path: &Path| {
        std::fs::read_to_string(path).is_ok_and(|text| text.starts_with(training::card::HEADING))
    };
    let foreign = |path: &Path, known: &dyn Fn(&Path) -> bool| path.exists() && !known(path);
    for (path, found, what) in
        [(model, foreign(model, &is_model), "churn model"), (card, foreign(card, &is_card), "model's card")]
    {
        if path.is_dir() {
            return Err(Error::user(format!("{} is a folder", path.display())).hint("name a file"));
        }
        if found && !force {
            return Err(Error::user(format!("{} is there already and is no {what}", path.display()))
                .hint("choose another --output, or overwrite it with --force"));
        }
    }
    Ok(())
}

fn write_whole(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension("md.partial");
    std::fs::write(&partial, text).map_err(|e| Error::io("write", &partial, &e))?;
    std::fs::rename(&partial, path).map_err(|e| Error::io("write", path, &e))
}

fn summary(trained: &Trained, output: &Path) -> String {
    let model = &trained.model;
    let (t, r) = (&model.training, &model.training.held_back);
    let recency = trained.recency_auc.map_or(String::new(), |auc| format!(", recency alone {auc:.3}"));
    let skipped = match trained.skipped.records {
        0 => String::new(),
        n => format!("\n  {n} records could not be used"),
    };
    format!(
        "{} {}: {} features, trained on {} examples of {} customers, of whom {:.1} % churned\n\
         \x20 held back from {}: {} examples, {:.1} % churned\n\
         \x20 ROC-AUC {:.3} ({:.3} to {:.3}){recency}\n\
         \x20 Brier {:.4}, log loss {:.4}, ECE {:.4}, mean p_churn {:.3}{skipped}\n\
         \x20 written to {} and {}\n",
        model.name,
        model.version,
        model.features().len(),
        t.examples,
        t.customers,
        100.0 * t.base_rate,
        format_rfc3339(t.held_back_from),
        r.examples,
        100.0 * r.base_rate,
        r.roc_auc.value,
        r.roc_auc.low,
        r.roc_auc.high,
        r.brier,
        r.log_loss,
        r.ece,
        r.mean_p,
        output.display(),
        output.with_extension("md").display(),
    )
}
