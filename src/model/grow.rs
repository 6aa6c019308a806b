//! What the chosen terms still lack: curves of single features and products of two, found one after the other.
//!
//! Forward, where [`super::choose`] goes backward: there are hundreds of these, and next to none of them pays. Rao's
//! score test on the early slice says which are worth a fit; the later slice says whether one is taken.

use std::collections::BTreeSet;

use ndarray::{Array1, Array2, Axis, concatenate};

use super::choose::{Gain, Order, Scale, direction, in_parallel, losses_at_level, no_convergence};
use super::curvature::{Minimum, Score};
use super::dataset::Dataset;
use super::design::{Spec, ascending, curve, product, quantile};
use super::fit::values;
use super::logistic::Weights;
use super::metrics::entropy;
use super::transform::Transform;
use crate::error::Result;

/// So many curves and products at most.
const ROUNDS_MOST: usize = 4;
/// So many of those that promise most are fitted.
const TRIED_MOST: usize = 10;
/// A curve or a product must gain so large a share of the nats that the base rate leaves, level aside, and so many standard
/// errors. Half the share was tried on a dozen tasks: as many of the smaller gains turned into losses later as not. Two
/// errors were tried on 45: where churn is rare nothing was ever taken.
const SHARE_GAINED_LEAST: f64 = 4.3e-4;
const ERRORS_LEAST: f64 = 1.0;
/// A factor of a product is flat beyond what so large a share of the examples has: where two grow with the years, the
/// product would run away with the level.
const FACTOR_QUANTILE: f64 = 0.95;

/// The effect of a feature is looked at between these of its values, for so many customers, and so large a share of it
/// may point the wrong way.
const GRID_QUANTILES: [f64; 7] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98];
const SENSE_ROWS_MOST: usize = 300;
const SENSE_AGAINST_MOST: f64 = 0.05;

/// The rows that are looked at.
pub(super) struct Grower<'d> {
    dataset: &'d Dataset,
    early: &'d [usize],
    later: &'d [usize],
    early_churned: Vec<bool>,
    later_churned: Vec<bool>,
    /// Nats per example.
    gain_least: f64,
    /// By feature.
    shapes: Vec<Shape>,
    alpha: f64,
    order: Order,
}

/// What is known of a feature alone.
struct Shape {
    /// Empty where there is nothing to bend.
    curve: Vec<Spec>,
    /// Where it becomes flat as a factor of a product.
    cap: f64,
    /// Values from low to high between which its effect is looked at.
    grid: Vec<f64>,
    /// Above 0 where more of it means more churn, below where less; 0 where that is not clear.
    direction: f64,
}

/// Terms and their columns on both slices, standardised by the early one.
struct Table {
    specs: Vec<Spec>,
    deviations: Vec<f64>,
    early: Array2<f64>,
    later: Array2<f64>,
}

/// How terms do on the later slice.
struct Judged {
    minimum: Minimum,
    losses_at_level: Array1<f64>,
    loss: f64,
}

impl<'d> Grower<'d> {
    pub(super) fn new(
        dataset: &'d Dataset,
        [early, later]: [&'d [usize]; 2],
        alpha: f64,
        order: Order,
    ) -> Grower<'d> {
        let churned = |rows: &[usize]| rows.iter().map(|i| dataset.label[*i]).collect();
        let (early_churned, later_churned): (Vec<bool>, _) = (churned(early), churned(later));
        let shapes = in_parallel(dataset.names.len(), |column| {
            let values = || early.iter().map(|row| dataset.rows[[*row, column]]);
            let finite = ascending(values());
            let cap = quantile(&finite, FACTOR_QUANTILE);
            let capped: Array1<f64> = values().map(|x| Transform::Cap { at: cap }.apply(x)).collect();
            let mut grid = GRID_QUANTILES.map(|q| quantile(&finite, q)).to_vec();
            grid.extend(values().find(|x| x.is_infinite()));
            grid.dedup();
            let curve = curve(column, &dataset.names[column], &finite);
            Shape { curve, cap, grid, direction: direction(capped.view(), &early_churned) }
        });
        let gain_least = SHARE_GAINED_LEAST * entropy(dataset.base_rate(later));
        Grower { dataset, early, later, early_churned, later_churned, gain_least, shapes, alpha, order }
    }

    /// The terms, and those that were found to be missing. No more than `features_most` features have terms then,
    /// unless more had before.
    pub(super) fn grow(&self, specs: Vec<Spec>, features_most: usize) -> Result<Vec<Spec>> {
        let mut table = self.table(specs);
        let mut judged = self.judge(&table, None).map_err(no_convergence)?;
        for _ in 0..ROUNDS_MOST {
            let used: BTreeSet<usize> = table.specs.iter().map(|spec| spec.column).collect();
            let may = |column: usize| used.len() < features_most || used.contains(&column);
            let mut more: Vec<Vec<Spec>> =
                (0..self.shapes.len()).filter(|i| may(*i)).map(|i| self.shapes[i].curve.clone()).collect();
            more.extend(self.products(&table.specs));
            more.iter_mut().for_each(|added| added.retain(|spec| !table.specs.contains(spec)));
            more.retain(|added| !added.is_empty());
            let promising = self.promising(&table, &judged.minimum, more);
            let tried = in_parallel(promising.len(), |n| {
                let (larger, guess) = self.with(&table, &judged.minimum.weights(), &promising[n]);
                let tried = self.judge(&larger, Some(&guess)).ok()?;
                let makes_sense = || self.makes_sense(&larger, &tried.minimum, &promising[n]);
                (self.order == Order::Strength || makes_sense()).then_some(tried)
            });
            let tried = tried.into_iter().enumerate().filter_map(|(n, tried)| Some((n, tried?)));
            let loss = |of: &Judged| of.losses_at_level.sum();
            let best = tried.min_by(|(_, a), (_, b)| loss(a).total_cmp(&loss(b)));
            let Some((n, better)) = best.filter(|(_, best)| best.clearly_beats(&judged, self.gain_least))
            else {
                break;
            };
            (table, _) = self.with(&table, &judged.minimum.weights(), &promising[n]);
            judged = better;
        }
        Ok(table.specs)
    }

    /// Those that promise most on the early slice, a nat for each of their terms aside (Akaike 1974).
    fn promising(&self, table: &Table, minimum: &Minimum, more: Vec<Vec<Spec>>) -> Vec<Vec<Spec>> {
        let score = Score::at(minimum, &table.early, &self.early_churned, self.alpha);
        let gains = in_parallel(more.len(), |n| {
            let gain = score.gain(&self.early_columns(&more[n]).0);
            gain.map_or(f64::NEG_INFINITY, |gain| gain - more[n].len() as f64)
        });
        let mut ranked: Vec<(f64, Vec<Spec>)> =
            gains.into_iter().zip(more).filter(|(gain, _)| *gain > 0.0).collect();
        ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        ranked.into_iter().take(TRIED_MOST).map(|(_, more)| more).collect()
    }

    fn judge(&self, table: &Table, guess: Option<&Weights>) -> Result<Judged, String> {
        let minimum = Minimum::find(&table.early, &self.early_churned, self.alpha, guess)?;
        let weights = minimum.weights();
        let losses_at_level = losses_at_level(&weights, &table.later, &self.later_churned);
        let loss = weights.losses(&table.later, &self.later_churned).sum();
        Ok(Judged { minimum, losses_at_level, loss })
    }

    fn table(&self, specs: Vec<Spec>) -> Table {
        let (early, scale) = self.early_columns(&specs);
        let mut later = values(&specs, self.dataset, self.later);
        scale.apply(&mut later);
        Table { specs, deviations: scale.deviations, early, later }
    }

    fn early_columns(&self, specs: &[Spec]) -> (Array2<f64>, Scale) {
        let mut early = values(specs, self.dataset, self.early);
        let scale = Scale::of(early.view());
        scale.apply(&mut early);
        (early, scale)
    }

    /// The terms with some more, and a guess at the weights. What is flat beyond its last knot cannot hold a main term
    /// that goes on there, so a curve's feature is capped where the curve ends.
    fn with(&self, table: &Table, weights: &Weights, more: &[Spec]) -> (Table, Weights) {
        let mut more = more.to_vec();
        let mut kept: Vec<usize> = (0..table.specs.len()).collect();
        if let Some(Spec { column, transform: Transform::Cap { at }, with: None }) = more.last().copied() {
            let open = Spec { column, transform: Transform::Log1p, with: None };
            kept.retain(|i| table.specs[*i] != open);
            if kept.len() < table.specs.len() {
                more.push(Spec { transform: Transform::Log1pCap { at }, ..open });
            }
        }
        let more = self.table(more);
        let beside = |old: &Array2<f64>, new: &Array2<f64>| {
            let mut both = old.select(Axis(1), &kept);
            both.append(Axis(1), new.view()).expect("as many rows");
            both
        };
        let zeros = Array1::zeros(more.specs.len());
        let guess = concatenate![Axis(0), weights.weights.select(Axis(0), &kept), zeros];
        let specs = kept.iter().map(|i| table.specs[*i]).chain(more.specs.iter().copied()).collect();
        let deviations =
            kept.iter().map(|i| table.deviations[*i]).chain(more.deviations.iter().copied()).collect();
        let (early, later) = (beside(&table.early, &more.early), beside(&table.later, &more.later));
        (Table { specs, deviations, early, later }, Weights { intercept: weights.intercept, weights: guess })
    }

    /// Whether the features of these terms, with all else as it is, move churn the way they do alone: in nearly all steps
    /// from their low values to their high ones, of customers as they come.
    fn makes_sense(&self, table: &Table, minimum: &Minimum, terms: &[Spec]) -> bool {
        let weights = minimum.weights().weights;
        let step = self.early.len().div_ceil(SENSE_ROWS_MOST);
        let of = |term: &Spec| std::iter::once(term.column).chain(term.with.map(|(column, _)| column));
        let columns: BTreeSet<usize> = terms.iter().flat_map(of).collect();
        columns.into_iter().filter(|column| self.shapes[*column].direction != 0.0).all(|column| {
            let Shape { grid, direction, .. } = &self.shapes[column];
            let own: Vec<usize> = (0..table.specs.len()).filter(|i| table.specs[*i].uses(column)).collect();
            let (mut along, mut against) = (0.0, 0.0);
            for row in self.early.iter().step_by(step) {
                let mut row = self.dataset.rows.row(*row).to_owned();
                let mut logit = |value: f64| -> f64 {
                    row[column] = value;
                    own.iter()
                        .map(|i| weights[*i] / table.deviations[*i] * table.specs[*i].value(row.view()))
                        .sum()
                };
                let logits: Vec<f64> = grid.iter().map(|value| logit(*value)).collect();
                for pair in logits.windows(2) {
                    let rise = (pair[1] - pair[0]) * direction;
                    *(if rise < 0.0 { &mut against } else { &mut along }) += rise.abs();
                }
            }
            against <= SENSE_AGAINST_MOST * along
        })
    }

    /// Of any two main terms of different features.
    fn products(&self, specs: &[Spec]) -> Vec<Vec<Spec>> {
        let factors: Vec<Spec> = specs.iter().map(|spec| self.bounded(*spec)).collect();
        let pairs = factors
            .iter()
            .enumerate()
            .flat_map(|(i, one)| factors[i + 1..].iter().map(move |other| (one, other)));
        pairs.filter_map(|(one, other)| product(one, other)).map(|product| vec![product]).collect()
    }

    fn bounded(&self, factor: Spec) -> Spec {
        let at = self.shapes[factor.column].cap;
        let bounds = factor.transform == Transform::Log1p && at > 0.0;
        if bounds { Spec { transform: Transform::Log1pCap { at }, ..factor } } else { factor }
    }
}

impl Judged {
    /// By who churns, and without a loss in how many do.
    fn clearly_beats(&self, other: &Judged, gain_least: f64) -> bool {
        let gain = Gain::of(&self.losses_at_level, &other.losses_at_level);
        self.loss <= other.loss && gain.is_clear(gain_least, ERRORS_LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::super::logistic::sigmoid;
    use super::*;
    use rand_pcg::Pcg64;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    const ROWS: usize = 6_000;

    /// Visits, days a customer is known, and noise; churn by what a function makes of the first two.
    fn dataset(logit: impl Fn(f64, f64) -> f64) -> Dataset {
        let mut rng = Pcg64::seed_from_u64(11);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut drawn = || [(uniform() * 20.0).floor(), uniform() * 300.0, uniform()];
        let rows = Array2::from_shape_vec((ROWS, 3), (0..ROWS).flat_map(|_| drawn()).collect()).unwrap();
        let label = rows.rows().into_iter().map(|row| uniform() < sigmoid(logit(row[0], row[1]))).collect();
        let names = ["clicks_30d", "tenure_days", "revenue_trend_14d"];
        Dataset {
            names: names.map(str::to_owned).to_vec(),
            rows,
            label,
            at: vec![0; ROWS],
            customer: (0..ROWS as u64).collect(),
            foretold: None,
        }
    }

    fn grown(dataset: &Dataset, features_most: usize, order: Order) -> Vec<Spec> {
        let (early, later): (Vec<usize>, Vec<usize>) = (0..ROWS).partition(|i| *i < ROWS / 2);
        let specs = (0..2).map(|column| Spec { column, transform: Transform::Log1p, with: None }).collect();
        Grower::new(dataset, [&early, &later], 1.0, order).grow(specs, features_most).unwrap()
    }

    #[test]
    fn where_the_terms_say_it_all_none_is_added() {
        let plain = grown(&dataset(|visits, _| 1.0 - (1.0 + visits).ln()), 16, Order::Strength);
        assert_eq!(plain.len(), 2, "{plain:?}");
    }

    #[test]
    fn a_feature_that_turns_gets_a_curve_that_ends_where_examples_do() {
        let bent = grown(
            &dataset(|_, days| if (100.0..200.0).contains(&days) { 1.5 } else { -1.5 }),
            2,
            Order::Strength,
        );
        let own: Vec<Transform> =
            bent.iter().filter(|spec| spec.column == 1).map(|spec| spec.transform).collect();
        let knots = own.iter().filter(|transform| matches!(transform, Transform::Cap { .. })).count();
        assert!(knots >= 4, "{bent:?}");
        assert!(!own.contains(&Transform::Log1p), "beyond the last knot nothing is known: {bent:?}");
    }

    #[test]
    fn two_that_matter_together_get_a_product_and_no_more_features_join_than_may() {
        let crossed = dataset(|visits, days| if (visits > 9.0) == (days > 150.0) { 1.2 } else { -1.2 });
        let found = grown(&crossed, 2, Order::Strength);
        assert!(found.iter().any(|spec| spec.with.is_some() && spec.uses(0) && spec.uses(1)), "{found:?}");
        assert!(found.iter().all(|spec| !spec.uses(2)), "{found:?}");
    }

    #[test]
    fn what_turns_a_feature_against_itself_is_left_where_sense_goes_first() {
        let steps = |days: f64| 2.0 * f64::from(days > 90.0) + 2.0 * f64::from(days > 180.0) - 2.0;
        let falls = |days: f64| if days > 240.0 { -1.0 } else { steps(days) };
        for (logit, may) in [
            (Box::new(move |_, days| steps(days)) as Box<dyn Fn(f64, f64) -> f64>, true),
            (Box::new(move |_, days| falls(days)), false),
        ] {
            let dataset = dataset(logit);
            let bends = |order| grown(&dataset, 2, order).len() > 2;
            assert!(bends(Order::Strength));
            assert_eq!(bends(Order::Sense), may);
        }
    }
}
