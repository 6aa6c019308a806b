//! Which design, which features, which terms and how strong a penalty: decided on the later slice.
//!
//! Small models are preferred: what loses next to nothing by leaving is left out.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, ShapeBuilder};

use super::artifact::DEVIATION_LEAST;
use super::curvature::Minimum;
use super::dataset::Dataset;
use super::design::{Design, Designs, Spec};
use super::fit::{FitValidParams, Split};
use super::logistic::{Weights, intercept_for_rate};
use super::metrics::entropy;
use super::transform::Transform;
use crate::error::{Error, Result};
use crate::time::Ts;

/// Choosing looks at no more rows than this; the fits that are kept look at all.
pub(super) const CHOOSING_ROWS_MOST: usize = 30_000;
/// While more features are there than may stay, terms leave by the curvature alone until so large a share of those
/// last fitted has gone.
const SHARE_WITHOUT_FIT: f64 = 0.2;
/// A smaller or simpler model may lose so many standard errors of the difference: next to nothing where there are
/// many examples, and something where there are few and a larger model may owe its gain to chance.
const ERRORS_GIVEN_FOR_SIMPLICITY: f64 = 0.1;
/// What another penalty than the middling one must gain, in standard errors: where churners are few, the later slice hardly
/// tells penalties apart, and a strong one leaves nothing of the model.
const ERRORS_FOR_A_PENALTY: f64 = 1.0;
const LOSS_GIVEN_FOR_A_TERM: f64 = 1e-5;
/// So many of the rarer class are needed for each feature. The penalty holds the weights back as well, so that it need
/// not be the ten that are asked for where there is none (Peduzzi and others 1996).
const RARE_PER_FEATURE: usize = 5;
/// A part of the history wins over all of it by this many nats per example, level aside, and by so many standard
/// errors: half of the examples is much to give up for what may be chance.
const GAIN_FOR_FORGETTING: f64 = 1e-4;
const ERRORS_FOR_FORGETTING: f64 = 2.0;
/// Weights that all point where their features do alone may cost so large a share of what is told of churn at all, in nats
/// per example, and it must be shown that they cost no more: by so many standard errors of the difference.
const SHARE_GIVEN_FOR_SENSE: f64 = 0.01;
const ERRORS_FOR_SENSE: f64 = 1.0;
/// A correlation with churn below so many standard errors has no direction.
const DIRECTION_ERRORS: f64 = 3.0;

/// What was chosen: terms without weights, and the penalty.
#[derive(Clone)]
pub(super) struct Choice {
    pub(super) design: String,
    pub(super) specs: Vec<Spec>,
    /// By spec: the sign of its correlation, alone, with churn; 0 where it is next to nothing.
    pub(super) directions: Vec<f64>,
    order: Order,
    pub(super) alpha: f64,
    /// Whether the later half of the period foretells what follows better than all of it.
    pub(super) recent: bool,
}

/// Who leaves first when features leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Whose weight points against what the feature says alone, then the weakest.
    Sense,
    /// The weakest.
    Strength,
}

/// The design that won, and its terms.
pub(super) struct Found {
    pub(super) design: String,
    pub(super) specs: Vec<Spec>,
    pub(super) order: Order,
}

impl Choice {
    /// Leaves out the feature whose weight points most strongly against what it says on its own, if sense costs
    /// little, there is one and another feature stays. Says whether it did.
    pub(super) fn drop_turned(&mut self, weights: &Array1<f64>) -> bool {
        if self.order != Order::Sense {
            return false;
        }
        let Some(leaves) = turned(&self.specs, weights, &self.directions) else { return false };
        let keeps: Vec<bool> = self.specs.iter().map(|spec| !spec.uses(leaves)).collect();
        if !keeps.contains(&true) {
            return false;
        }
        let mut kept = keeps.iter();
        self.specs.retain(|_| kept.next().is_some_and(|keeps| *keeps));
        let mut kept = keeps.iter();
        self.directions.retain(|_| kept.next().is_some_and(|keeps| *keeps));
        true
    }
}

/// The column whose weight points most strongly against what it says on its own. Such a column only corrects
/// another one: shown as a contribution it would tell people nonsense (more visits, more churn), and a score
/// would fall in the middle of a silence as it leaves its window. Curves and products are left alone, since their
/// terms mean something together only.
fn turned(specs: &[Spec], weights: &Array1<f64>, directions: &[f64]) -> Option<usize> {
    let is_main = |spec: &Spec| spec.with.is_none() && spec.transform != Transform::Never;
    let mains = |column: usize| specs.iter().filter(|spec| is_main(spec) && spec.uses(column)).count();
    let turned = specs.iter().zip(weights).zip(directions).filter(|((spec, weight), direction)| {
        is_main(spec) && **weight * **direction < 0.0 && mains(spec.column) == 1
    });
    let strongest = turned.max_by(|((_, a), _), ((_, b), _)| a.abs().total_cmp(&b.abs()));
    strongest.map(|((spec, _), _)| spec.column)
}

/// The two slices, with every candidate term's values standardised by the early one.
pub(super) struct Choosing<'d> {
    designs: &'d Designs,
    early: Slice,
    later: Slice,
    /// Candidates that vary in the early slice.
    varies: Vec<bool>,
    /// The sign of each candidate's correlation, alone, with churn in the early slice; 0 where it is next to nothing.
    directions: Vec<f64>,
    /// Of the candidates with each other, in the early slice.
    correlations: Array2<f64>,
}

struct Slice {
    x: Array2<f64>,
    churned: Vec<bool>,
    at: Vec<Ts>,
}

impl Slice {
    fn churners(&self) -> usize {
        self.churned.iter().filter(|churned| **churned).count()
    }

    /// Rows of the rarer class.
    fn rarer(&self) -> usize {
        self.churners().min(self.churned.len() - self.churners())
    }

    fn directions(&self) -> Vec<f64> {
        self.x.columns().into_iter().map(|column| direction(column, &self.churned)).collect()
    }
}

/// The sign of a column's correlation with churn; 0 where that is next to nothing.
pub(super) fn direction(x: ArrayView1<f64>, churned: &[bool]) -> f64 {
    let c: Array1<f64> = churned.iter().map(|churned| f64::from(*churned)).collect();
    let (n, x, c) = (c.len() as f64, &x - x.sum() / x.len() as f64, &c - c.sum() / c.len() as f64);
    let r = x.dot(&c) / (x.dot(&x) * c.dot(&c)).sqrt();
    if r.abs() * n.sqrt() >= DIRECTION_ERRORS { r.signum() } else { 0.0 }
}

/// What one set of terms gains over another, by their losses on the same rows: nats per example.
pub(super) struct Gain {
    pub(super) mean: f64,
    pub(super) error: f64,
}

impl Gain {
    pub(super) fn of(better: &Array1<f64>, worse: &Array1<f64>) -> Gain {
        let gains = worse - better;
        let n = gains.len() as f64;
        Gain { mean: gains.sum() / n, error: gains.std(0.0) / n.sqrt() }
    }

    /// Whether it is so much, and more than chance: so many standard errors.
    pub(super) fn is_clear(&self, least: f64, errors: f64) -> bool {
        self.mean > least.max(errors * self.error)
    }
}

/// Terms (numbers of specs), fitted to the early slice or nearly so.
#[derive(Clone)]
struct Terms {
    specs: Vec<usize>,
    minimum: Minimum,
    /// How many there were when they were last fitted.
    fitted: usize,
}

impl Terms {
    /// Without those that a test picks, as the curvature foretells them.
    fn without(self, leaves: impl Fn(usize) -> bool) -> Terms {
        let places: Vec<usize> = (0..self.specs.len()).filter(|at| leaves(self.specs[*at])).collect();
        let specs = self.specs.into_iter().filter(|i| !leaves(*i)).collect();
        Terms { specs, minimum: self.minimum.without(&places), fitted: self.fitted }
    }
}

/// A step of the search: terms, and how they do on each row of the later slice.
#[derive(Clone)]
struct Step {
    terms: Terms,
    losses: Array1<f64>,
}

impl Step {
    fn loss(&self) -> f64 {
        self.losses.sum() / self.losses.len() as f64
    }

    /// Whether the later slice shows no difference to a larger model that did better there.
    fn is_as_good_as(&self, larger: &Step) -> bool {
        let gain = Gain::of(&larger.losses, &self.losses);
        gain.mean <= ERRORS_GIVEN_FOR_SIMPLICITY * gain.error
    }
}

/// A choice, and how it does on each row of the later slice, where so large a share churned.
pub(super) struct Settled {
    pub(super) choice: Choice,
    step: Step,
    rate: f64,
}

impl Settled {
    /// Whether the later slice shows that this one costs next to nothing beside another.
    pub(super) fn costs_little_beside(&self, other: &Settled) -> bool {
        let gain = Gain::of(&other.step.losses, &self.step.losses);
        gain.mean + ERRORS_FOR_SENSE * gain.error <= given_for_sense(other.step.loss(), self.rate)
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
            correlations: Array2::zeros((0, 0)),
        };
        // Thinning keeps every so-manieth row; a rare class could be thinned away altogether.
        for slice in [&choosing.early, &choosing.later] {
            if slice.churned.iter().all(|c| *c) || !slice.churned.iter().any(|c| *c) {
                return Err(Error::user("churners, or stayers, are too rare to learn from")
                    .hint("use a longer --horizon, or another --label"));
            }
        }
        choosing.directions = choosing.early.directions();
        let x = &choosing.early.x;
        choosing.correlations = x.t().dot(x) / x.nrows() as f64;
        Ok(choosing)
    }

    /// By the order in which features leave, sense first: the best design, and which of its terms stay, at a middling
    /// penalty.
    pub(super) fn find(&self, params: &FitValidParams) -> Result<[Found; 2]> {
        let best = self.shrink_all(params, params.middling_alpha())?;
        let found = |((design, step), order): ((&Design, Step), Order)| {
            let (specs, _) = self.described(&step.terms);
            Found { design: design.name.clone(), specs, order }
        };
        let [sense, strength] = best;
        Ok([found((sense, Order::Sense)), found((strength, Order::Strength))])
    }

    /// What becomes of the first design: single terms leave; then the penalty, then how much of the history.
    pub(super) fn settle(&self, params: &FitValidParams, order: Order) -> Result<Settled> {
        let alpha = params.middling_alpha();
        let design = &self.designs.designs[0];
        let specs = design.specs.iter().copied().filter(|i| self.varies[*i]).collect();
        let mut step = self.prune(self.judged(self.first(specs, alpha)?), alpha)?;
        let (terms, mut chosen) = (step.terms.clone(), alpha);
        for alpha in params.alphas.iter().filter(|other| **other != alpha) {
            let other = self.judged(self.fitted(terms.clone(), *alpha)?);
            if Gain::of(&other.losses, &step.losses).is_clear(0.0, ERRORS_FOR_A_PENALTY) {
                (step, chosen) = (other, *alpha);
            }
        }
        let recent = self.recent_half(&step.terms, chosen);
        let recent = recent.is_some_and(|half| self.foretells_better(&half.terms, &step.terms));
        let (specs, directions) = self.described(&step.terms);
        let choice = Choice { design: design.name.clone(), specs, directions, order, alpha: chosen, recent };
        let rate = self.later.churners() as f64 / self.later.churned.len() as f64;
        Ok(Settled { choice, step, rate })
    }

    /// The best step over all designs, by the order in which features leave.
    fn shrink_all(&self, params: &FitValidParams, alpha: f64) -> Result<[(&'d Design, Step); 2]> {
        let designs = &self.designs.designs;
        let both = in_parallel(designs.len(), |n| {
            let sense = self.shrink(&designs[n], params, alpha, Order::Sense)?;
            Ok([sense, self.shrink(&designs[n], params, alpha, Order::Strength)?])
        });
        let both: Vec<[Step; 2]> = both.into_iter().collect::<Result<_>>()?;
        let best = |order: usize| {
            let mut best: Option<(&'d Design, &Step)> = None;
            for (design, steps) in designs.iter().zip(&both) {
                if best.is_none_or(|(_, simpler)| !simpler.is_as_good_as(&steps[order])) {
                    best = Some((design, &steps[order]));
                }
            }
            let (design, step) = best.ok_or_else(|| Error::world("there is no candidate design"))?;
            Ok((design, step.clone()))
        };
        Ok([best(0)?, best(1)?])
    }

    /// The same terms fitted to the later half of the early slice; `None` where that holds too little.
    fn recent_half(&self, terms: &Terms, alpha: f64) -> Option<Step> {
        let from = recent_from(&self.early.at)?;
        let rows: Vec<usize> = (0..self.early.at.len()).filter(|i| self.early.at[*i] >= from).collect();
        let churned: Vec<bool> = rows.iter().map(|i| self.early.churned[*i]).collect();
        let x = columns(self.early.x.select(Axis(0), &rows).view(), &terms.specs);
        let guess = terms.minimum.weights();
        let minimum = Minimum::find(&x, &churned, alpha, Some(&guess)).ok()?;
        Some(self.judged(Terms { minimum, ..terms.clone() }))
    }

    /// Leaves out the weakest feature, again and again; the smallest set that loses next to nothing wins. One
    /// at a time, because two features that say the same look weak only until one of them has gone.
    fn shrink(&self, design: &Design, params: &FitValidParams, alpha: f64, order: Order) -> Result<Step> {
        let specs: Vec<usize> = design.specs.iter().copied().filter(|i| self.varies[*i]).collect();
        let most = params.features_most.min((self.early.rarer() / RARE_PER_FEATURE).max(2));
        let least = params.features_least.min(most);
        let mut terms = self.first(specs, alpha)?;
        let mut allowed: Vec<Step> = Vec::new();
        loop {
            let columns = self.columns_by_strength(&terms);
            let turned = self.turned(&terms).filter(|_| order == Order::Sense && columns.len() > least);
            if columns.len() <= most && turned.is_none() {
                allowed.push(self.judged(terms.clone()));
            }
            if columns.len() <= least {
                break;
            }
            let leaves = turned.unwrap_or(columns[0]);
            terms = terms.without(|i| self.designs.specs[i].uses(leaves));
            let gone = 1.0 - terms.specs.len() as f64 / terms.fitted as f64;
            if columns.len() <= most + 1 || gone > SHARE_WITHOUT_FIT {
                terms = self.fitted(terms, alpha)?;
            }
        }
        let best = allowed.iter().min_by(|a, b| a.loss().total_cmp(&b.loss())).cloned();
        let smallest = best.and_then(|best| allowed.into_iter().rev().find(|step| step.is_as_good_as(&best)));
        smallest.ok_or_else(|| Error::world("the held-back examples give no finite loss"))
    }

    fn turned(&self, terms: &Terms) -> Option<usize> {
        let (specs, directions) = self.described(terms);
        turned(&specs, &terms.minimum.weights().weights, &directions)
    }

    /// The terms, and what each says of churn alone.
    fn described(&self, terms: &Terms) -> (Vec<Spec>, Vec<f64>) {
        terms.specs.iter().map(|i| (self.designs.specs[*i], self.directions[*i])).unzip()
    }

    /// Leaves out single terms that do not help, weakest first, as long as their feature keeps another.
    fn prune(&self, mut step: Step, alpha: f64) -> Result<Step> {
        let weights = step.terms.minimum.weights().weights;
        let mut order: Vec<(f64, usize)> =
            step.terms.specs.iter().zip(&weights).map(|(i, w)| (w.abs(), *i)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, candidate) in order {
            let spec = &self.designs.specs[candidate];
            let others = step.terms.specs.iter().filter(|i| **i != candidate);
            let kept = others.filter(|i| self.designs.specs[**i].uses(spec.column)).count();
            if kept == 0 {
                continue;
            }
            let rest = step.terms.clone().without(|i| i == candidate);
            let without = self.judged(self.fitted(rest, alpha)?);
            if without.loss() <= step.loss() + LOSS_GIVEN_FOR_A_TERM {
                step = without;
            }
        }
        Ok(step)
    }

    fn first(&self, specs: Vec<usize>, alpha: f64) -> Result<Terms> {
        let x = columns(self.early.x.view(), &specs);
        let minimum = Minimum::find(&x, &self.early.churned, alpha, None).map_err(no_convergence)?;
        Ok(Terms { fitted: specs.len(), specs, minimum })
    }

    /// Fitted anew, from where they are.
    fn fitted(&self, terms: Terms, alpha: f64) -> Result<Terms> {
        let x = columns(self.early.x.view(), &terms.specs);
        let guess = terms.minimum.weights();
        let minimum = Minimum::find(&x, &self.early.churned, alpha, Some(&guess)).map_err(no_convergence)?;
        Ok(Terms { fitted: terms.specs.len(), minimum, ..terms })
    }

    /// Whether the later slice shows more than chance in favour of the first.
    fn foretells_better(&self, half: &Terms, all: &Terms) -> bool {
        let gain = Gain::of(&self.losses_at_level(half), &self.losses_at_level(all));
        gain.is_clear(GAIN_FOR_FORGETTING, ERRORS_FOR_FORGETTING)
    }

    fn losses_at_level(&self, terms: &Terms) -> Array1<f64> {
        let x = columns(self.later.x.view(), &terms.specs);
        losses_at_level(&terms.minimum.weights(), &x, &self.later.churned)
    }

    fn judged(&self, terms: Terms) -> Step {
        let losses = self.losses_at_level(&terms);
        Step { terms, losses }
    }

    /// Columns by the spread of their contribution to the logit over the early slice, the weakest first.
    fn columns_by_strength(&self, terms: &Terms) -> Vec<usize> {
        let weights = terms.minimum.weights().weights;
        let columns: BTreeSet<usize> = terms.specs.iter().map(|i| self.designs.specs[*i].column).collect();
        let variance = |column: usize| {
            let mut own = Array1::<f64>::zeros(self.designs.specs.len());
            for (i, weight) in terms.specs.iter().zip(&weights) {
                if self.designs.specs[*i].uses(column) {
                    own[*i] = *weight;
                }
            }
            own.dot(&self.correlations.dot(&own))
        };
        let mut strengths: Vec<(f64, usize)> =
            columns.into_iter().map(|column| (variance(column), column)).collect();
        strengths.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        strengths.into_iter().map(|(_, column)| column).collect()
    }
}

/// What sense may cost a model of such a loss, in nats per example, where so large a share churns.
pub(super) fn given_for_sense(loss: f64, rate: f64) -> f64 {
    SHARE_GIVEN_FOR_SENSE * (entropy(rate) - loss)
}

/// The losses on the later slice if its share of churners were known. Who churns is what terms are chosen for; how many
/// do is the season's doing, and would favour whatever happens to err in its direction.
pub(super) fn losses_at_level(weights: &Weights, later: &Array2<f64>, churned: &[bool]) -> Array1<f64> {
    let rate = churned.iter().filter(|churned| **churned).count() as f64 / churned.len() as f64;
    let mut weights = weights.clone();
    weights.intercept += intercept_for_rate(&weights.logits(later).to_vec(), 1.0, rate);
    weights.losses(later, churned)
}

/// What `work` gives for each of 0 to `n`, in their order. They do not depend on each other, so every core takes one
/// after the other.
pub(super) fn in_parallel<T: Send>(n: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(n);
    let next = AtomicUsize::new(0);
    let take = || {
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Relaxed)).take_while(|number| *number < n);
        numbers.map(|number| (number, work(number))).collect::<Vec<_>>()
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut done = take();
        for other in others {
            // A panic over there is one here.
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Some columns of a table, by column, as fits want them. Row by row: a column at a time would fetch the whole table for
/// each.
fn columns(x: ArrayView2<f64>, wanted: &[usize]) -> Array2<f64> {
    let mut out = Array2::zeros((x.nrows(), wanted.len()).f());
    for (mut to, from) in out.rows_mut().into_iter().zip(x.rows()) {
        to.iter_mut().zip(wanted).for_each(|(to, i)| *to = from[*i]);
    }
    out
}

/// The first cut of the later half of the period; `None` where there are too few cuts to halve.
pub(super) fn recent_from(at: &[Ts]) -> Option<Ts> {
    let cuts: BTreeSet<Ts> = at.iter().copied().collect();
    let half = cuts.len() / 2;
    if half < 2 { None } else { cuts.into_iter().nth(half) }
}

/// Every so-manieth row, so that no more than `most` are left and all cuts stay represented.
pub(super) fn thinned(rows: &[usize], most: usize) -> Vec<usize> {
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
    /// Row by row: a column at a time would fetch the whole table for each.
    pub(super) fn of(x: ArrayView2<f64>) -> Scale {
        let n = x.nrows() as f64;
        let means = x.sum_axis(Axis(0)) / n;
        let mut squares = Array1::<f64>::zeros(x.ncols());
        for row in x.rows() {
            for ((square, value), mean) in squares.iter_mut().zip(row).zip(&means) {
                *square += (value - mean) * (value - mean);
            }
        }
        Scale { means: means.to_vec(), deviations: squares.mapv(|square| (square / n).sqrt()).to_vec() }
    }

    pub(super) fn apply(&self, x: &mut Array2<f64>) {
        for mut row in x.rows_mut() {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.means).zip(&self.deviations) {
                *value = (*value - mean) / deviation.max(DEVIATION_LEAST);
            }
        }
    }
}
