//! The churn model: its file, its scorer, how it is fitted and how it is judged.
//!
//! Owns everything between a feature vector and a probability. It knows no events, no windows and no Kafka:
//! the engine hands it features by number, the trainer hands it a [`fit::Dataset`].

use std::path::Path;

use crate::error::Result;
use crate::pipeline::facts::FeatureNames;

pub mod artifact;
pub mod transform;
pub mod scorer;
pub mod counterfactual;
pub mod dataset;
pub mod fit;
pub mod design;
mod choose;
mod curvature;
mod grow;
pub mod logistic;
pub mod isotonic;
mod levels;
pub mod metrics;
pub mod recalibrate;
pub mod reference;
pub mod value;

pub use artifact::{Definitions, Model};
pub use counterfactual::{Actionable, Counterfactual, Unit, Units};
pub use dataset::Dataset;
pub use fit::{About, FitParams};
pub use scorer::{Contribution, Scorer};

/// Reads a model file and makes every check that can be made before the first customer is scored: the file
/// itself, its feature names and definitions against this catalogue, and its golden vectors.
pub fn load<C: FeatureNames + Definitions>(path: &Path, catalogue: &C) -> Result<(Model, Scorer)> {
    let model = Model::read(path)?;
    model.check_definitions(catalogue)?;
    let scorer = Scorer::new(&model, catalogue)?;
    Ok((model, scorer))
}
