//! What the operator may choose: defaults < file < environment < `--set`, checked as a whole.

mod mask;
mod types;

pub use types::{
    AlertPolicy, App, Clock, Commit, Config, Features, Format, Http, Kafka, Lifecycles, ModelConfig, Money,
    Scores, SourceConfig, Sources, Time, Topics, TraitScalar,
};
