//! What would have to be different: the smallest change of one feature that brings the score under a target.
//!
//! Exact: along one feature the logit is a + b·x + c·ln(1 + x) between known bends, hence monotone between
//! bends and at most one turning point each, and every monotone piece is searched. The scorer has the last word.

use super::scorer::{Factor, Op, Scorer, Yardstick, slow_log};
use super::transform::VALUE_MOST;
use crate::pipeline::facts::FeatureId;

/// The smallest single change that brings the probability under a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counterfactual {
    pub feature: FeatureId,
    pub from: f64,
    pub to: f64,
}

/// Which values a feature can take, for proposing one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    pub integer: bool,
    pub least: f64,
    pub most: f64,
}

impl Unit {
    pub const COUNT: Unit = Unit { integer: true, least: 0.0, most: VALUE_MOST };
    /// Spans, money and ratios that cannot fall below nothing.
    pub const AMOUNT: Unit = Unit { integer: false, least: 0.0, most: VALUE_MOST };

    pub const fn between(least: f64, most: f64) -> Unit {
        Unit { integer: false, least, most }
    }
}

/// Metadata that only counterfactuals need.
pub trait Units {
    /// `None` where no action can move the feature (the age of a customer).
    fn unit(&self, id: FeatureId) -> Option<Unit>;
}

/// A feature that a counterfactual may change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Actionable {
    pub feature: FeatureId,
    pub unit: Unit,
}

impl Scorer {
    /// Those of the model's features that an action can move.
    pub fn actionable(&self, units: &dyn Units) -> Vec<Actionable> {
        let movable = |feature| Some(Actionable { feature, unit: units.unit(feature)? });
        self.features().filter_map(movable).collect()
    }

    /// The smallest single change of an actionable feature that brings p strictly under `target_p`, measured in
    /// deviations of the feature's term that moves most: others may have reached their ends. `None` when p is there
    /// already or no single change suffices.
    ///
    /// Exact: along one feature the logit is a + b·x + c·ln(1 + x) between known bends, hence monotone between
    /// bends and at most one turning point each, and every monotone piece is searched.
    pub fn counterfactual(
        &self,
        features: &[f64],
        target_p: f64,
        actionable: &[Actionable],
    ) -> Option<Counterfactual> {
        if !(0.0..=1.0).contains(&target_p) || self.p(self.logit(features)) < target_p {
            return None;
        }
        let goal = self.unbent(libm::log(target_p / (1.0 - target_p)));
        let mut changed = features.to_vec();
        let mut best: Option<(f64, Counterfactual)> = None;
        for Actionable { feature, unit } in actionable {
            let Ok(group) = self.groups.binary_search_by_key(feature, |group| group.feature) else {
                continue;
            };
            let from = features[feature.index()];
            let curve = self.curve(group, features);
            for to in curve.ways_under(goal, from, *unit).into_iter().flatten() {
                let Some(to) = self.settle(&mut changed, *feature, from, to, *unit, target_p) else {
                    continue;
                };
                let distance = curve.distance(from, to);
                let smaller = |(best_distance, best_change): &(f64, Counterfactual)| {
                    let order = distance.total_cmp(best_distance);
                    order.then(feature.cmp(&best_change.feature)).is_lt()
                };
                if best.as_ref().is_none_or(smaller) {
                    best = Some((distance, Counterfactual { feature: *feature, from, to }));
                }
            }
        }
        best.map(|(_, change)| change)
    }

    /// Tries a value on the scorer itself; the grid may ask for a hair more than the curve says.
    fn settle(
        &self,
        changed: &mut [f64],
        feature: FeatureId,
        from: f64,
        to: f64,
        unit: Unit,
        target_p: f64,
    ) -> Option<f64> {
        let away = if to > from { 1.0 } else { -1.0 };
        let mut hair = if unit.integer { 1.0 } else { 1e-12 * to.abs().max(1.0) };
        let mut to = to;
        let mut found = None;
        for _ in 0..16 {
            changed[feature.index()] = to;
            if self.p(self.logit(changed)) < target_p {
                found = Some(to);
                break;
            }
            to = (to + away * hair).clamp(unit.least, unit.most);
            if !unit.integer {
                hair *= 4.0;
            }
        }
        changed[feature.index()] = from;
        found
    }

    /// The logit as a function of one feature, the others staying as they are.
    fn curve(&self, group: usize, features: &[f64]) -> Curve<'_> {
        let g = self.groups[group];
        let value = |factor: usize| {
            let x = features[self.groups[self.group_of(factor)].feature.index()];
            self.factors[factor].op.value(x, slow_log(x))
        };
        let mut weights: Vec<f64> = self.factors[g.first..g.end].iter().map(|f| f.linear).collect();
        for product in &self.products {
            for (own, other) in [(0, 1), (1, 0)] {
                if product.groups[own] == group {
                    weights[product.factors[own] - g.first] +=
                        2.0 * product.half * value(product.factors[other]);
                }
            }
        }
        let own = self.yardsticks.iter().filter(|yardstick| (g.first..g.end).contains(&yardstick.factor));
        let yardsticks = own
            .map(|Yardstick { factor, partner, deviation }| {
                (factor - g.first, partner.map_or(1.0, value).abs() / deviation)
            })
            .collect();
        let mut curve = Curve { factors: &self.factors[g.first..g.end], weights, rest: 0.0, yardsticks };
        curve.rest = self.sum(features) - curve.logit(features[g.feature.index()]);
        curve
    }
}

/// The logit along one feature.
struct Curve<'s> {
    factors: &'s [Factor],
    weights: Vec<f64>,
    rest: f64,
    /// By term: the factor, and deviations per unit of its value.
    yardsticks: Vec<(usize, f64)>,
}

impl Curve<'_> {
    fn logit(&self, x: f64) -> f64 {
        let log = slow_log(x);
        let own = self.factors.iter().zip(&self.weights).map(|(factor, w)| w * factor.op.value(x, log));
        self.rest + own.sum::<f64>()
    }

    /// How far the term that moves most does, in its deviations. Above 0 wherever the logit changes.
    fn distance(&self, from: f64, to: f64) -> f64 {
        let (from_log, to_log) = (slow_log(from), slow_log(to));
        let moved = |(factor, per): &(usize, f64)| {
            let op = self.factors[*factor].op;
            (op.value(to, to_log) - op.value(from, from_log)).abs() * per
        };
        self.yardsticks.iter().map(moved).fold(0.0, f64::max)
    }

    /// The nearest value below and the nearest above `from` that bring the logit under the goal.
    fn ways_under(&self, goal: f64, from: f64, unit: Unit) -> [Option<f64>; 2] {
        let under = |x: f64| self.logit(x) < goal;
        let mut marks = self.marks(unit);
        // From "never", the way down starts at the last bend: beyond it nothing more happens.
        let start =
            if from.is_finite() { from.clamp(unit.least, unit.most) } else { last_bend(&marks, unit) };
        marks.push(start);
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        let at = marks.partition_point(|mark| *mark < start);
        if !from.is_finite() && under(start) && (!unit.integer || start.fract() == 0.0) {
            return [Some(start), None];
        }
        let down = marks[..=at].windows(2).rev().find_map(|w| nearest(w[1], w[0], unit.integer, &under));
        let up = marks[at..].windows(2).find_map(|w| nearest(w[0], w[1], unit.integer, &under));
        [down, up]
    }

    /// The ends, the bends and the turning points: between two of them the curve is monotone.
    fn marks(&self, unit: Unit) -> Vec<f64> {
        let mut marks = vec![unit.least, unit.most, 0.0, -VALUE_MOST, VALUE_MOST];
        marks.extend(self.factors.iter().filter_map(|factor| factor.bend));
        marks.sort_by(f64::total_cmp);
        let turns: Vec<f64> = marks.windows(2).filter_map(|w| self.turn(w[0], w[1])).collect();
        marks.extend(turns);
        marks.retain(|mark| (unit.least..=unit.most).contains(mark));
        marks
    }

    /// Where a + b·x + c·ln(1 + |x|) turns inside a piece without bends.
    fn turn(&self, low: f64, high: f64) -> Option<f64> {
        let (mut b, mut c) = (0.0, 0.0);
        let side = if high <= 0.0 { -1.0 } else { 1.0 };
        for (factor, w) in self.factors.iter().zip(&self.weights) {
            match factor.op {
                Op::Identity => b += w,
                Op::Cap(at) if high <= at => b += w,
                Op::Recency { cap, per } if low >= 0.0 && high <= cap => b += w * per,
                Op::Hinge(knot) if low >= knot => b += w,
                Op::Log => c += w,
                Op::LogCap(_) if factor.bend.is_some_and(|at| high <= at) => c += w,
                _ => {}
            }
        }
        // d/dx: b + c / (1 + |x|) = 0.
        let turn = (-c / b - 1.0) * side;
        (turn > low && turn < high).then_some(turn)
    }
}

fn last_bend(marks: &[f64], unit: Unit) -> f64 {
    marks.iter().copied().filter(|mark| *mark < VALUE_MOST.min(unit.most)).fold(unit.least, f64::max)
}

/// The value nearest to `near` in a monotone piece for which `under` holds; `near` itself may be it.
fn nearest(near: f64, far: f64, integer: bool, under: &impl Fn(f64) -> bool) -> Option<f64> {
    if !integer {
        if under(near) {
            return Some(near);
        }
        return under(far).then(|| bisect(near, far, |x| x, under));
    }
    let (near, far) = if far < near { (near.floor(), far.ceil()) } else { (near.ceil(), far.floor()) };
    let direction = if far < near { -1.0 } else { 1.0 };
    let whole = |x: f64| if direction < 0.0 { x.ceil() } else { x.floor() };
    match ((far - near) * direction >= 0.0, under(near), under(far)) {
        (true, true, _) => Some(near),
        (true, false, true) => Some(bisect(near, far, whole, under)),
        _ => None,
    }
}

/// Closes in on the edge of `under`, false at `out` and true at `inside`; ends on the inner side.
///
/// `land` puts a middle on the values that are allowed, towards `out`; when it gives `out`, the two are
/// neighbours.
fn bisect(mut out: f64, mut inside: f64, land: impl Fn(f64) -> f64, under: &impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = land(out + (inside - out) / 2.0);
        if middle == out || middle == inside {
            return inside;
        }
        if under(middle) {
            inside = middle;
        } else {
            out = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::artifact::Model;
    use crate::model::artifact::tests::{Names, model, term};
    use crate::model::isotonic::Isotonic;
    use crate::model::transform::Transform;
    use proptest::prelude::*;

    fn scorer(model: &Model) -> Scorer {
        Scorer::new(model, &Names).unwrap()
    }

    const FEATURES: [f64; 6] = [3.0, 12.5, 210.0, -0.25, 400.0, 0.1];

    fn units() -> Vec<Actionable> {
        let unit = |i: u16| match i {
            0 => Unit::COUNT,
            3 => Unit::between(-1.0, 1.0),
            _ => Unit::AMOUNT,
        };
        (0..4).map(|i| Actionable { feature: FeatureId(i), unit: unit(i) }).collect()
    }

    #[test]
    fn a_counterfactual_on_a_count_is_the_next_whole_number_that_suffices() {
        let mut model = model();
        model.terms = vec![term("orders_90d", Transform::Log1p, -1.5)];
        model.keep_only_what_terms_use();
        let scorer = scorer(&model);
        let mut features = [0.0; 6];
        let before = scorer.p(scorer.logit(&features));
        let found = scorer.counterfactual(&features, before * 0.5, &units()).unwrap();
        assert_eq!((found.feature, found.from), (FeatureId(0), 0.0));
        assert_eq!(found.to.fract(), 0.0);
        features[0] = found.to;
        assert!(scorer.p(scorer.logit(&features)) < before * 0.5);
        features[0] = found.to - 1.0;
        assert!(scorer.p(scorer.logit(&features)) >= before * 0.5);
    }

    #[test]
    fn a_customer_who_never_ordered_is_asked_for_a_first_order() {
        let mut model = model();
        model.terms = vec![
            term("days_since_order", Transform::Recency { cap: 90.0 }, 1.0),
            term("days_since_order", Transform::Never, 2.0),
        ];
        model.keep_only_what_terms_use();
        let scorer = scorer(&model);
        let features = [0.0, f64::INFINITY, 0.0, 0.0, 0.0, 0.0];
        let found = scorer.counterfactual(&features, 0.5, &units()).unwrap();
        assert_eq!(found.feature, FeatureId(1));
        assert!(found.to <= 90.0 && found.from == f64::INFINITY);
    }

    #[test]
    fn a_term_that_has_reached_its_end_makes_no_change_small() {
        let mut model = model();
        model.terms = vec![
            term("revenue_90d", Transform::Cap { at: 20.0 }, -0.5),
            term("revenue_90d", Transform::Log1p, -0.2),
            term("orders_90d", Transform::Log1p, -1.0),
        ];
        model.keep_only_what_terms_use();
        let scorer = scorer(&model);
        let features = [6.0, 0.0, 123.0, 0.0, 0.0, 0.0];
        let p = scorer.p(scorer.logit(&features));
        let found = scorer.counterfactual(&features, p * 0.95, &units()).unwrap();
        assert_eq!(
            (found.feature, found.to),
            (FeatureId(0), 7.0),
            "a few more where many would be needed else"
        );
        let group = scorer.groups.iter().position(|group| group.feature == FeatureId(2)).unwrap();
        assert!(scorer.curve(group, &features).distance(123.0, 255.0) > 0.0);
    }

    #[test]
    fn there_is_no_counterfactual_when_nothing_suffices_or_nothing_is_needed() {
        let scorer = scorer(&model());
        let p = scorer.p(scorer.logit(&FEATURES));
        assert_eq!(scorer.counterfactual(&FEATURES, p + 0.1, &units()), None, "already under");
        assert_eq!(scorer.counterfactual(&FEATURES, p / 2.0, &[]), None, "nothing may be changed");
        assert_eq!(scorer.counterfactual(&FEATURES, 0.0, &units()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Against a search over a grid of values: what is proposed suffices, and nothing nearer on the grid does.
        #[test]
        fn a_counterfactual_suffices_and_is_the_smallest(
            weights in prop::collection::vec(-2.0f64..2.0, 10),
            orders in 0u32..20, days in 0.0f64..200.0, revenue in 0.0f64..500.0, sentiment in -1.0f64..1.0,
            share in 0.3f64..0.99, bent in any::<bool>(),
        ) {
            let mut model = model();
            for (term, weight) in model.terms.iter_mut().zip(weights) {
                term.weight = weight;
            }
            let curve = Isotonic { from: vec![-1.0, 0.0, 2.0], to: vec![-3.0, 0.5, 0.7] };
            model.isotonic = Some(curve).filter(|_| bent);
            model.renew_golden();
            let scorer = scorer(&model);
            let features = [f64::from(orders), days, revenue, sentiment, 400.0, 0.1];
            let target = scorer.p(scorer.logit(&features)) * share;
            for lever in units() {
                let found = scorer.counterfactual(&features, target, &[lever]);
                let try_value = |x: f64| {
                    let mut changed = features;
                    changed[lever.feature.index()] = x;
                    scorer.p(scorer.logit(&changed))
                };
                let from = features[lever.feature.index()];
                if let Some(found) = found {
                    prop_assert!(try_value(found.to) < target);
                    prop_assert!(!lever.unit.integer || found.to.fract() == 0.0);
                }
                let group = scorer.groups.iter().position(|g| g.feature == lever.feature).unwrap();
                let curve = scorer.curve(group, &features);
                let (low, high) = (lever.unit.least, lever.unit.most.min(600.0));
                for step in 0..=600 {
                    let x = if lever.unit.integer { f64::from(step) } else { low + (high - low) * f64::from(step) / 600.0 };
                    if x <= high && try_value(x) < target - 1e-9 {
                        let found = found.map(|found| curve.distance(from, found.to));
                        prop_assert!(found.is_some_and(|d| d <= curve.distance(from, x) + 1e-9), "{x} is nearer");
                    }
                }
            }
        }
    }
}
