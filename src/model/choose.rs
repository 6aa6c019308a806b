//! Which design, which features, which terms and how strong a penalty: decided on the later slice.
//!
//! Small models are preferred: what loses next to nothing by leaving is left out.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::artifact::DEVIATION_LEAST;
use super::dataset::Dataset;
use super::design::{Design, Designs, Spec};
use super::fit::{FitValidParams, Split};
use super::logistic::{self, Weights};
use super::transform::Transform;
use crate::error::{Error, Result};
use crate::time::Ts;

/// Choosing looks at no more rows than this; the fits that are kept look at all.
const CHOOSING_ROWS_MOST: usize = 30_000;
/// A smaller or simpler model may lose so many standard errors of the difference: next to nothing where there are
/// many examples, and something where there are few and a larger model may owe its gain to chance.
const ERRORS_GIVEN_FOR_SIMPLICITY: f64 = 0.1;
const LOSS_GIVEN_FOR_A_TERM: f64 = 1e-5;
/// So many of the rarer class are needed for each feature.
const RARE_PER_FEATURE: usize = 10;
/// A part of the history wins over all of it by this many nats per example.
const GAIN_FOR_FORGETTING: f64 = 1e-4;
/// A correlation with churn below so many standard errors has no direction.
const DIRECTION_ERRORS: f64 = 3.0;

/// What was chosen: terms without weights, and the penalty.
pub(super) struct Choice {
    pub(super) design: &'static str,
    pub(super) specs: Vec<Spec>,
    pub(super) alpha: f64,
    /// Whether the later half of the period foretells what follows better than all of it.
    pub(super) recent: bool,
}

/// The two slices, with every candidate term's values standardised by the early one.
pub(super) struct Choosing<'d> {
    designs: &'d Designs,
    early: Slice,
    later: Slice,
    /// Candidates that vary in the early slice.
    varies: Vec<bool>,
    /// Correlation of each candidate, alone, with churn in the early slice; 0 where it is next to nothing.
    directions: Vec<f64>,
}

struct Slice {
    x: Array2<f64>,
    churned: Vec<bool>,
    at: Vec<Ts>,
}

impl Slice {
    /// Rows of the rarer class.
    fn rarer(&self) -> usize {
        let churned = self.churned.iter().filter(|c| **c).count();
        churned.min(self.churned.len() - churned)
    }

    fn directions(&self) -> Vec<f64> {
        let n = self.churned.len() as f64;
        let rate = self.churned.iter().filter(|c| **c).count() as f64 / n;
        let churned = Array1::from_iter(
            self.churned.iter().map(|c| (f64::from(*c) - rate) / (rate * (1.0 - rate)).sqrt()),
        );
        let clear = |r: f64| if r.abs() * n.sqrt() < DIRECTION_ERRORS { 0.0 } else { r };
        self.x.columns().into_iter().map(|column| clear(column.dot(&churned) / n)).collect()
    }
}

/// A step of the search: terms (numbers of specs), and how they do on each row of the later slice.
#[derive(Clone)]
struct Step {
    specs: Vec<usize>,
    fitted: Weights,
    losses: Array1<f64>,
}

impl Step {
    fn loss(&self) -> f64 {
        self.losses.sum() / self.losses.len() as f64
    }

    /// Whether the later slice shows no difference to a larger model that did better there.
    fn is_as_good_as(&self, larger: &Step) -> bool {
        let worse = &self.losses - &larger.losses;
        let error = worse.std(0.0) / (worse.len() as f64).sqrt();
        self.loss() - larger.loss() <= ERRORS_GIVEN_FOR_SIMPLICITY * error
    }

    /// The weights without the terms of some columns, where the next fit begins.
    fn guess(&self, specs: &[usize]) -> Weights {
        let kept = self.specs.iter().zip(&self.fitted.weights).filter(|(i, _)| specs.contains(i));
        Weights { intercept: self.fitted.intercept, weights: kept.map(|(_, weight)| *weight).collect() }
    }
}

impl<'d> Choosing<'d> {
    pub(super) fn new(dataset: &Dataset, split: &Split, designs: &'d Designs) -> Result<Self> {
        let early = thinned(&split.early, CHOOSING_ROWS_MOST);
        let later = thinned(&split.later, CHOOSING_ROWS_MOST);
        let mut early_x = designs.values(dataset.rows.select(Axis(0), &early).view());
        let mut later_x = designs.values(dataset.rows.select(Axis(0), &later).view());
        let scale = Scale::of(early_x.view());
        scale.apply(&mut early_x);
        scale.apply(&mut later_x);
        let label = |rows: &[usize]| rows.iter().map(|i| dataset.label[*i]).collect();
        let at = |rows: &[usize]| rows.iter().map(|i| dataset.at[*i]).collect();
        let varies = scale.deviations.iter().map(|d| *d >= DEVIATION_LEAST).collect();
        let mut choosing = Choosing {
            designs,
            early: Slice { x: early_x, churned: label(&early), at: at(&early) },
            later: Slice { x: later_x, churned: label(&later), at: at(&later) },
            varies,
            directions: Vec::new(),
        };
        // Thinning keeps every so-manieth row; a rare class could be thinned away altogether.
        for slice in [&choosing.early, &choosing.later] {
            if slice.churned.iter().all(|c| *c) || !slice.churned.iter().any(|c| *c) {
                return Err(Error::user("churners, or stayers, are too rare to learn from")
                    .hint("use a longer --horizon, or another --label"));
            }
        }
        choosing.directions = choosing.early.directions();
        Ok(choosing)
    }

    /// Designs first, then single terms, then the penalty, then how much of the history.
    pub(super) fn choose(&self, params: &FitValidParams) -> Result<Choice> {
        let alpha = params.alphas[params.alphas.len() / 2];
        let mut best: Option<(&Design, Step)> = None;
        for (design, step) in self.designs.designs.iter().zip(self.shrink_all(params, alpha)) {
            let step = step?;
            if best.as_ref().is_none_or(|(_, simpler)| !simpler.is_as_good_as(&step)) {
                best = Some((design, step));
            }
        }
        let (design, step) = best.ok_or_else(|| Error::world("there is no candidate design"))?;
        let mut step = self.prune(step, alpha)?;
        let (terms, mut chosen) = (step.clone(), alpha);
        for alpha in params.alphas.iter().filter(|other| **other != alpha) {
            let other = self.step(terms.specs.clone(), *alpha, Some(&terms))?;
            if !step.is_as_good_as(&other) {
                (step, chosen) = (other, *alpha);
            }
        }
        let recent = self.recent_half(&step, chosen);
        let recent = recent.is_some_and(|half| half.loss() < step.loss() - GAIN_FOR_FORGETTING);
        let specs = step.specs.iter().map(|i| self.designs.specs[*i]).collect();
        Ok(Choice { design: design.name, specs, alpha: chosen, recent })
    }

    /// The best step of every design, in their order. They do not depend on each other, so every core takes
    /// one after the other.
    fn shrink_all(&self, params: &FitValidParams, alpha: f64) -> Vec<Result<Step>> {
        let designs = &self.designs.designs;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(designs.len());
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((n, design)) = designs.iter().enumerate().nth(next.fetch_add(1, Relaxed)) {
                done.push((n, self.shrink(design, params, alpha)));
            }
            done
        };
        let mut done = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for other in others {
                // A panic over there is one here.
                done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        });
        done.sort_by_key(|(n, _)| *n);
        done.into_iter().map(|(_, step)| step).collect()
    }

    /// The same terms fitted to the later half of the early slice; `None` where that holds too little.
    fn recent_half(&self, step: &Step, alpha: f64) -> Option<Step> {
        let from = recent_from(&self.early.at)?;
        let rows: Vec<usize> = (0..self.early.at.len()).filter(|i| self.early.at[*i] >= from).collect();
        let churned: Vec<bool> = rows.iter().map(|i| self.early.churned[*i]).collect();
        let x = self.early.x.select(Axis(0), &rows).select(Axis(1), &step.specs);
        let fitted = logistic::fit_from(&x, &churned, alpha, Some(&step.fitted)).ok()?;
        Some(self.judged(step.specs.clone(), fitted))
    }

    /// Leaves out the weakest feature, again and again; the smallest set that loses next to nothing wins. One
    /// at a time, because two features that say the same look weak only until one of them has gone.
    fn shrink(&self, design: &Design, params: &FitValidParams, alpha: f64) -> Result<Step> {
        let specs: Vec<usize> = design.specs.iter().copied().filter(|i| self.varies[*i]).collect();
        let most = params.features_most.min((self.early.rarer() / RARE_PER_FEATURE).max(2));
        let least = params.features_least.min(most);
        let mut step = self.step(specs, alpha, None)?;
        let mut allowed: Vec<Step> = Vec::new();
        loop {
            let columns = self.columns_by_strength(&step);
            let turned = self.turned(&step).filter(|_| columns.len() > least);
            if columns.len() <= most && turned.is_none() {
                allowed.push(step.clone());
            }
            if columns.len() <= least {
                break;
            }
            let leaves = turned.unwrap_or(columns[0]);
            let keeps = |i: &usize| !self.designs.specs[*i].uses(leaves);
            let specs = step.specs.iter().copied().filter(keeps).collect();
            step = self.step(specs, alpha, Some(&step))?;
        }
        let best = allowed.iter().min_by(|a, b| a.loss().total_cmp(&b.loss())).cloned();
        let smallest = best.and_then(|best| allowed.into_iter().rev().find(|step| step.is_as_good_as(&best)));
        smallest.ok_or_else(|| Error::world("the held-back examples give no finite loss"))
    }

    /// The column whose weight points most strongly against what it says on its own. Such a column only corrects
    /// another one: shown as a contribution it would tell people nonsense (more visits, more churn), and a score
    /// would fall in the middle of a silence as it leaves its window. Splines and interactions are left alone,
    /// since their terms mean something together only.
    fn turned(&self, step: &Step) -> Option<usize> {
        let specs = &self.designs.specs;
        let is_main = |i: usize| specs[i].with.is_none() && specs[i].transform != Transform::Never;
        let mains =
            |column: usize| step.specs.iter().filter(|i| is_main(**i) && specs[**i].uses(column)).count();
        let turned = step.specs.iter().zip(&step.fitted.weights).filter(|(i, weight)| {
            is_main(**i) && *weight * self.directions[**i] < 0.0 && mains(specs[**i].column) == 1
        });
        let strongest = turned.max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()));
        strongest.map(|(i, _)| specs[*i].column)
    }

    /// Leaves out single terms that do not help, weakest first, as long as their feature keeps another.
    fn prune(&self, mut step: Step, alpha: f64) -> Result<Step> {
        let mut order: Vec<(f64, usize)> =
            step.specs.iter().zip(&step.fitted.weights).map(|(i, w)| (w.abs(), *i)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, candidate) in order {
            let spec = &self.designs.specs[candidate];
            let others = step.specs.iter().filter(|i| **i != candidate);
            let kept = others.filter(|i| self.designs.specs[**i].uses(spec.column)).count();
            if kept == 0 {
                continue;
            }
            let rest = step.specs.iter().copied().filter(|i| *i != candidate).collect();
            let without = self.step(rest, alpha, Some(&step))?;
            if without.loss() <= step.loss() + LOSS_GIVEN_FOR_A_TERM {
                step = without;
            }
        }
        Ok(step)
    }

    fn step(&self, specs: Vec<usize>, alpha: f64, before: Option<&Step>) -> Result<Step> {
        let x = self.early.x.select(Axis(1), &specs);
        let guess = before.map(|step| step.guess(&specs));
        let fitted =
            logistic::fit_from(&x, &self.early.churned, alpha, guess.as_ref()).map_err(no_convergence)?;
        Ok(self.judged(specs, fitted))
    }

    fn judged(&self, specs: Vec<usize>, fitted: Weights) -> Step {
        let losses = fitted.losses(&self.later.x.select(Axis(1), &specs), &self.later.churned);
        Step { specs, fitted, losses }
    }

    /// Columns by the spread of their contribution to the logit over the early slice, the weakest first.
    fn columns_by_strength(&self, step: &Step) -> Vec<usize> {
        let columns: BTreeSet<usize> = step.specs.iter().map(|i| self.designs.specs[*i].column).collect();
        let mut strengths: Vec<(f64, usize)> = columns
            .into_iter()
            .map(|column| {
                let mut sum = Array1::<f64>::zeros(self.early.x.nrows());
                for (i, weight) in step.specs.iter().zip(&step.fitted.weights) {
                    if self.designs.specs[*i].uses(column) {
                        sum.scaled_add(*weight, &self.early.x.column(*i));
                    }
                }
                // The terms are standardised, so the sum's mean is 0. (ndarray's `std` is many times slower.)
                (sum.dot(&sum), column)
            })
            .collect();
        strengths.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        strengths.into_iter().map(|(_, column)| column).collect()
    }
}

/// The first cut of the later half of the period; `None` where there are too few cuts to halve.
pub(super) fn recent_from(at: &[Ts]) -> Option<Ts> {
    let cuts: BTreeSet<Ts> = at.iter().copied().collect();
    let half = cuts.len() / 2;
    if half < 2 { None } else { cuts.into_iter().nth(half) }
}

/// Every so-manieth row, so that no more than `most` are left and all cuts stay represented.
fn thinned(rows: &[usize], most: usize) -> Vec<usize> {
    rows.iter().copied().step_by(rows.len().div_ceil(most).max(1)).collect()
}

pub(super) fn no_convergence(why: String) -> Error {
    Error::world(why).hint("a feature may hold absurd values; `stagecast replay --features-at` shows them")
}

/// Means and deviations of columns.
pub(super) struct Scale {
    pub(super) means: Vec<f64>,
    pub(super) deviations: Vec<f64>,
}

impl Scale {
    pub(super) fn of(x: ArrayView2<f64>) -> Scale {
        let mean = |column: ndarray::ArrayView1<f64>| column.sum() / column.len() as f64;
        Scale {
            means: x.columns().into_iter().map(mean).collect(),
            deviations: x.columns().into_iter().map(|column| column.std(0.0)).collect(),
        }
    }

    pub(super) fn apply(&self, x: &mut Array2<f64>) {
        for (mut column, (mean, deviation)) in
            x.columns_mut().into_iter().zip(self.means.iter().zip(&self.deviations))
        {
            column.mapv_inplace(|value| (value - mean) / deviation.max(DEVIATION_LEAST));
        }
    }
}
