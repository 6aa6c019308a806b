//! `stagecast train`: from events to a calibrated model.

use std::path::PathBuf;

use crate::time::Ts;

use super::values::{instant, positive_span, span};

#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(group(clap::ArgGroup::new("events").required(true).args(["input", "from_kafka"])))]
pub struct Args {
    /// Folder with clickstream.ndjson, purchase.ndjson, support.ndjson and profile.ndjson, each optional
    #[arg(long, value_name = "DIR")]
    pub input: Option<PathBuf>,

    /// Reads the configured input topics from their beginning
    #[arg(long)]
    pub from_kafka: bool,

    /// Where the model is written
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

    /// Overwrites the model of an earlier training
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
