//! From events to a model: which instants to look from ([`cuts`]), what every customer looked like at each and
//! what became of it ([`examples`]), the fit ([`crate::model::fit`]), and the page that tells about it ([`card`]).
//!
//! The input is read twice: once for the span it covers, once for the examples. Features come from the same
//! engine that serves.

use linfa::ParamGuard;
use ndarray::ArrayView1;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::error::Result;
use crate::model::artifact::Label;
use crate::model::dataset::Foretold;
use crate::model::value::{P_NO_ORDER, ValueModel, Valuer};
use crate::model::{About, FitParams, Model};
use crate::replay::Merged;
use crate::setup;
use crate::time::Ts;

pub mod card;
pub mod cuts;
pub mod examples;

pub use examples::{Examples, Skipped};

/// What to learn.
#[derive(Clone, Debug)]
pub struct Task {
    pub name: String,
    pub label: Label,
    pub horizon: i64,
    /// The gap between the cut and the horizon.
    pub lead: i64,
    /// Who is an example at a cut.
    pub active_within: i64,
    /// Empty: chosen over the whole input.
    pub cuts: Vec<Ts>,
    /// Nothing from this instant on is learned from.
    pub until: Option<Ts>,
    /// No weight points against what its feature says alone, whatever that costs.
    pub monotone: bool,
}

impl Task {
    /// From the cut to the end of its horizon.
    pub fn reach(&self) -> i64 {
        self.lead + self.horizon
    }
}

/// A model, and what it is compared with.
#[derive(Clone, Debug)]
pub struct Trained {
    pub model: Model,
    /// ROC-AUC on the held-back time of nothing but the days since the event that the label is about.
    pub recency_auc: Option<f64>,
    pub skipped: Skipped,
}

/// Reads `open` twice, fits, and names the version after what was fitted. `progress` is told the number of
/// events read, over both passes.
pub fn train<'a>(
    open: &dyn Fn() -> Result<Merged<'a>>,
    config: &Config,
    task: &Task,
    progress: &dyn Fn(u64),
) -> Result<Trained> {
    let plan = setup::plan_for_features(config)?;
    let span = cuts::span(&mut open()?, task.until, progress)?;
    let cuts = cuts::choose(task, &span)?;
    let passed = span.events;
    let examples = examples::take(plan, task, &cuts, span.ahead(), &mut open()?, &|n| progress(passed + n))?;
    let skipped = examples.skipped.clone();
    fit(examples, task).map_err(|error| skipped.beside(error))
}

fn fit(mut examples: Examples, task: &Task) -> Result<Trained> {
    let about = About {
        name: task.name.clone(),
        version: UNNAMED.into(),
        label: task.label,
        horizon: task.horizon,
        lead: task.lead,
        active_within: task.active_within,
    };
    let params = FitParams::new(about).monotone(task.monotone).check()?;
    let later_from = params.later_from(&examples.dataset)?;
    let value = examples.buyers.values().next_back().and_then(|buyers| ValueModel::fit(buyers));
    if let Some(value) = &value {
        foretell(&mut examples, value, later_from, task.horizon)?;
    }
    let mut model = params.fit(&mut examples.dataset, &examples.layout)?;
    if let (Some(value), None) = (value, &model.value) {
        model.add_value(value, &examples.layout)?;
    }
    name_version(&mut model)?;
    let recency_auc = examples.recency_auc(task.label, model.training.held_back_from);
    Ok(Trained { model, recency_auc, skipped: examples.skipped })
}

/// Fills the column of `p_no_order`, which no engine could compute before there was a fit, if the catalogue has one
/// and the buyers before the later slice say enough.
fn foretell(examples: &mut Examples, value: &ValueModel, later_from: Ts, horizon: i64) -> Result<()> {
    let column = examples.dataset.names.iter().position(|name| name == P_NO_ORDER);
    let then = examples.buyers.get(&later_from).and_then(|buyers| ValueModel::fit(buyers));
    let (Some(column), Some(then)) = (column, then) else { return Ok(()) };
    let [now, then] = [value, &then].map(|value| Valuer::new(value, horizon, &examples.layout));
    let (now, then) = (now?, then?);
    let dataset = &mut examples.dataset;
    let of = |valuer: &Valuer, row: ArrayView1<f64>| {
        row.as_slice().and_then(|row| valuer.p_no_order(row)).unwrap_or(f64::INFINITY)
    };
    let then = dataset.rows.rows().into_iter().map(|row| of(&then, row)).collect();
    for mut row in dataset.rows.rows_mut() {
        row[column] = of(&now, row.view());
    }
    dataset.foretold = Some(Foretold { column, then, value: value.clone() });
    Ok(())
}

/// The version of a model that has none yet.
const UNNAMED: &str = "unnamed";

/// Names the version: twelve hexadecimal digits of everything in the file but the version itself. The same events
/// and settings give the same version, whenever and wherever they are trained on.
pub fn name_version(model: &mut Model) -> Result<()> {
    model.version = UNNAMED.into();
    let digest = Sha256::digest(model.to_json()?.as_bytes());
    model.version = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(())
}
