//! How good a model is on time it has not seen: examples at cuts after everything it learned from, its scores,
//! and what simpler scores would have done.
//!
//! Owns the protocol and the figures ([`Evaluation`]); [`curves`] are the lines, [`page`] shows both. Examples
//! come from the same code as in training, and nothing is fitted here.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::artifact::Label;
use crate::model::metrics::{Bootstrap, Interval, Report};
use crate::model::value::Valuer;
use crate::model::{Dataset, Model, Scorer, metrics};
use crate::replay::Merged;
use crate::setup;
use crate::time::{Rfc3339, Ts, format_rfc3339, format_span};
use crate::training::examples::{self, Examples, Group};
use crate::training::{Task, cuts};

pub mod curves;
pub mod page;

use curves::Curves;

/// Groups with fewer examples say nothing.
const GROUP_LEAST: usize = 50;
/// Values of a trait that are shown, the most frequent first.
const SEGMENTS_MOST: usize = 20;

/// What to evaluate on.
#[derive(Clone, Debug)]
pub struct Request {
    /// Empty: chosen over what the model has not seen.
    pub cuts: Vec<Ts>,
    /// The model has not seen any of this input, wherever it lies in time.
    pub unseen: bool,
    /// The trait whose values make segments.
    pub segment: String,
}

/// Everything an evaluation says.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    pub model: About,
    /// Whether all cuts lie outside what the model learned from.
    pub held_back: bool,
    pub cuts: Vec<Cut>,
    pub customers: usize,
    pub scores: Report,
    pub baselines: Baselines,
    pub stages: Vec<Part>,
    pub segments: Vec<Part>,
    pub curves: Curves,
    pub skipped_records: u64,
}

/// Which model, and what it foretells.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    pub name: String,
    pub version: String,
    pub label: Label,
    pub horizon: String,
    pub lead: String,
    pub active_within: String,
    /// Where what it learned from ends.
    pub learned_until: Rfc3339,
}

/// One instant.
#[derive(Clone, Debug, Serialize)]
pub struct Cut {
    pub at: Rfc3339,
    #[serde(flatten)]
    pub part: Figures,
}

/// What is worth knowing of fewer examples.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    pub examples: usize,
    pub base_rate: f64,
    pub mean_p: f64,
    /// Where both classes occur.
    pub roc_auc: Option<f64>,
    pub brier: f64,
    pub ece: f64,
}

/// The customers of one stage, or one segment.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// The lifecycle, or the trait.
    pub of: String,
    pub name: String,
    #[serde(flatten)]
    pub figures: Figures,
}

/// What simpler scores do on the same examples.
#[derive(Clone, Debug, Serialize)]
pub struct Baselines {
    /// Everybody is given the rate of the examples, which nobody knows beforehand.
    pub base_rate: Constant,
    /// Nothing but the days since the event that the label is about.
    pub recency: Option<Ranking>,
    /// The probability of no order from the rhythm of orders; who never ordered is given the base rate.
    pub p_no_order: Option<Report>,
}

/// A score that is the same for all.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Constant {
    pub p: f64,
    pub log_loss: f64,
    pub brier: f64,
}

/// A score that is no probability.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ranking {
    pub roc_auc: Interval,
    pub pr_auc: f64,
    pub lift_10: f64,
    pub capture_10: f64,
}

/// Reads `open` twice: for the span it covers, and for the examples. `progress` is told the events read.
pub fn evaluate<'a>(
    open: &dyn Fn() -> Result<Merged<'a>>,
    config: &Config,
    model: &Model,
    request: &Request,
    progress: &dyn Fn(u64),
) -> Result<Evaluation> {
    let task = task_of(model, request);
    let span = cuts::span(&mut open()?, None, progress)?;
    let cuts = cuts::unseen(&task, &span, (!request.unseen).then_some(model))?;
    let plan = setup::plan_of(&silent(config), model)?;
    let stages: Vec<(String, Vec<String>)> = plan
        .lifecycles
        .iter()
        .map(|(l, _)| (l.name.to_string(), l.stages().iter().map(|stage| stage.name.to_string()).collect()))
        .collect();
    let read = |n| progress(span.events + n);
    let examples =
        examples::take_grouped(plan, &task, &cuts, span.ahead(), &mut open()?, &request.segment, &read)?;
    judge(model, request, &stages, &examples).map_err(|error| examples.skipped.beside(error))
}

/// Stages are looked at, messages are not.
fn silent(config: &Config) -> Config {
    let mut config = config.clone();
    config.alert.clear();
    config.scores.min_change = f64::INFINITY;
    config.outcomes.sample = 0.0;
    config
}

fn task_of(model: &Model, request: &Request) -> Task {
    Task {
        name: model.name.clone(),
        label: model.label,
        horizon: model.horizon,
        lead: model.lead,
        active_within: model.active_within,
        cuts: request.cuts.clone(),
        until: None,
        monotone: false,
    }
}

fn judge(
    model: &Model,
    request: &Request,
    stages: &[(String, Vec<String>)],
    examples: &Examples,
) -> Result<Evaluation> {
    let Examples { dataset, layout, groups, .. } = examples;
    let scorer = Scorer::new(model, layout)?;
    let p: Vec<f64> = rows(dataset).map(|row| scorer.p(scorer.logit(row))).collect();
    let scores = report(&p, dataset).ok_or_else(|| one_class(dataset))?;
    let valuer = Valuer::of(model, layout)?;
    let no_order = valuer.filter(|_| model.label == Label::NoOrder).and_then(|valuer| {
        let p: Vec<f64> =
            rows(dataset).map(|row| valuer.p_no_order(row).unwrap_or(scores.base_rate)).collect();
        report(&p, dataset)
    });
    let after = dataset.at.iter().all(|at| *at >= model.created);
    let before = dataset.at.iter().all(|at| at + model.lead + model.horizon <= model.training.first_cut);
    Ok(Evaluation {
        model: About {
            name: model.name.clone(),
            version: model.version.clone(),
            label: model.label,
            horizon: format_span(model.horizon),
            lead: format_span(model.lead),
            active_within: format_span(model.active_within),
            learned_until: format_rfc3339(model.created),
        },
        held_back: request.unseen || after || before,
        cuts: by_cut(dataset, &p),
        customers: dataset.customer.iter().collect::<std::collections::BTreeSet<_>>().len(),
        baselines: Baselines {
            base_rate: constant(scores.base_rate),
            recency: recency(model.label, dataset),
            p_no_order: no_order,
        },
        scores,
        stages: by_stage(dataset, &p, groups, stages),
        segments: by_segment(dataset, &p, groups, &request.segment),
        curves: Curves::new(&p, &dataset.label),
        skipped_records: examples.skipped.records,
    })
}

fn rows(dataset: &Dataset) -> impl Iterator<Item = &[f64]> {
    // The examples are laid out row by row.
    dataset.rows.rows().into_iter().map(|row| row.to_slice().unwrap_or(&[]))
}

fn report(p: &[f64], dataset: &Dataset) -> Option<Report> {
    metrics::report(p, &dataset.label, &dataset.customer, Bootstrap::default())
}

fn one_class(dataset: &Dataset) -> Error {
    let n = dataset.label.len();
    let what = match dataset.label.first() {
        None => "no customer was active at any of the cuts, so there is nothing to judge".into(),
        Some(true) => format!("all {n} examples churned, so there is nothing to tell apart"),
        Some(false) => format!("none of the {n} examples churned, so there is nothing to tell apart"),
    };
    Error::user(what).hint("give a longer history, or --cuts with both outcomes after them")
}

fn constant(p: f64) -> Constant {
    Constant { p, log_loss: metrics::entropy(p), brier: p * (1.0 - p) }
}

fn recency(label: Label, dataset: &Dataset) -> Option<Ranking> {
    let mut score = examples::recency(dataset, label)?.to_vec();
    let churned = &dataset.label;
    // Where those who were silent longest stay, as who never learned may never cancel, silence speaks for staying.
    if metrics::roc_auc(&score, churned)? < 0.5 {
        score.iter_mut().for_each(|days| *days = -*days);
    }
    Some(Ranking {
        roc_auc: metrics::roc_auc_interval(&score, churned, &dataset.customer, Bootstrap::default())?,
        pr_auc: metrics::pr_auc(&score, churned)?,
        lift_10: metrics::lift(&score, churned, 0.1)?,
        capture_10: metrics::capture(&score, churned, 0.1)?,
    })
}

fn by_cut(dataset: &Dataset, p: &[f64]) -> Vec<Cut> {
    let parts = grouped((0..p.len()).map(|i| (dataset.at[i], i)));
    let cut = |(at, rows): (Ts, Vec<usize>)| Cut { at: format_rfc3339(at), part: figures(dataset, p, &rows) };
    parts.into_iter().map(cut).collect()
}

fn by_stage(
    dataset: &Dataset,
    p: &[f64],
    groups: &[Group],
    lifecycles: &[(String, Vec<String>)],
) -> Vec<Part> {
    let mut parts = Vec::new();
    for (n, (lifecycle, stages)) in lifecycles.iter().enumerate() {
        let stage = |i: usize| groups.get(i).and_then(|group| group.stages.get(n).copied());
        let rows = grouped((0..p.len()).filter_map(|i| Some((stage(i)?, i))));
        let named = rows.into_iter().filter(|(_, rows)| rows.len() >= GROUP_LEAST);
        parts.extend(named.map(|(stage, rows)| Part {
            of: lifecycle.clone(),
            name: stages.get(usize::from(stage)).cloned().unwrap_or_default(),
            figures: figures(dataset, p, &rows),
        }));
    }
    parts
}

fn by_segment(dataset: &Dataset, p: &[f64], groups: &[Group], of: &str) -> Vec<Part> {
    let segment = |i: usize| groups.get(i).and_then(|group| group.segment.clone());
    let mut rows: Vec<_> = grouped((0..p.len()).filter_map(|i| Some((segment(i)?, i))))
        .into_iter()
        .filter(|(_, rows)| rows.len() >= GROUP_LEAST)
        .collect();
    rows.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.len()));
    rows.truncate(SEGMENTS_MOST);
    let part = |(name, rows): (Box<str>, Vec<usize>)| Part {
        of: of.to_owned(),
        name: name.into_string(),
        figures: figures(dataset, p, &rows),
    };
    rows.into_iter().map(part).collect()
}

fn grouped<K: Ord>(pairs: impl Iterator<Item = (K, usize)>) -> BTreeMap<K, Vec<usize>> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    pairs.for_each(|(key, row)| groups.entry(key).or_default().push(row));
    groups
}

fn figures(dataset: &Dataset, p: &[f64], rows: &[usize]) -> Figures {
    let p: Vec<f64> = rows.iter().map(|i| p[*i]).collect();
    let churned: Vec<bool> = rows.iter().map(|i| dataset.label[*i]).collect();
    let n = rows.len() as f64;
    Figures {
        examples: rows.len(),
        base_rate: churned.iter().filter(|c| **c).count() as f64 / n,
        mean_p: p.iter().sum::<f64>() / n,
        roc_auc: metrics::roc_auc(&p, &churned),
        brier: metrics::brier(&p, &churned),
        ece: metrics::ece(&p, &churned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn recency_alone_points_the_way_that_tells_more() {
        let churned = |turned: bool| (0..200).map(move |i| (i < 100) == turned).collect::<Vec<bool>>();
        let dataset = |label: Vec<bool>| Dataset {
            names: vec!["days_since_event".into()],
            rows: Array2::from_shape_fn((200, 1), |(i, _)| i as f64),
            label,
            at: vec![0; 200],
            customer: (0..200).collect(),
            foretold: None,
        };
        for turned in [false, true] {
            let ranking = recency(Label::Cancelled, &dataset(churned(turned))).unwrap();
            assert_eq!((ranking.roc_auc.value, ranking.capture_10), (1.0, 0.2), "{turned}");
        }
    }
}
