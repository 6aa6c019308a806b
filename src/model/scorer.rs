//! From a feature vector to a logit, a probability, what each feature contributed, and what would change it.
//!
//! Owns the compiled form of a [`Model`]: flat arrays, no allocation, one logarithm per feature at most. The
//! meaning of every transform stays in [`super::artifact`]; this file only computes it faster.
//!
//! Contributions lie on a grid of 2^-42 and within ±32, so that sums of them are exact in any order: they add
//! up to the logit to the last bit, also for whoever adds up the numbers in a message.

use std::collections::BTreeMap;

use super::artifact::{Calibration, FEATURES_MOST, LOGIT_MOST, Model, PRODUCTS_MOST};
use super::isotonic::Isotonic;
use super::transform::{Transform, VALUE_MOST, signed_log};
use crate::error::{Error, Result, did_you_mean};
use crate::pipeline::facts::{FeatureId, FeatureNames};

/// Golden vectors must come out this close.
const GOLDEN_TOLERANCE: f64 = 1e-12;
/// Two factors for every product.
const SLOTS_MOST: usize = 2 * PRODUCTS_MOST;
/// ln(1 + n) of small counts is looked up.
const LOGS: usize = 256;

/// A model compiled against a catalogue.
#[derive(Clone, Debug)]
pub struct Scorer {
    /// One per feature, in the order of feature ids.
    pub(super) groups: Vec<Group>,
    pub(super) factors: Vec<Factor>,
    pub(super) products: Vec<Product>,
    /// What counterfactuals are measured by.
    pub(super) yardsticks: Vec<Yardstick>,
    intercept: f64,
    curve: Option<Curve>,
    logs: Box<[f64; LOGS]>,
}

/// What comes after the sum, where a line is not enough: log odds to log odds, rising.
#[derive(Clone, Debug)]
struct Curve {
    isotonic: Isotonic,
    then: Calibration,
}

/// One feature: its factors are `factors[first..end]`, its means are folded into `offset`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) feature: FeatureId,
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) offset: f64,
    pub(super) needs_log: bool,
}

/// What a term says of how far its feature moved: by the factor, times the partner's value in an interaction, in
/// deviations of the term.
#[derive(Clone, Copy, Debug)]
pub(super) struct Yardstick {
    pub(super) factor: usize,
    pub(super) partner: Option<usize>,
    pub(super) deviation: f64,
}

/// One transformed feature and its weight over deviation, where it is a term of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factor {
    pub(super) op: Op,
    pub(super) linear: f64,
    /// Where its value is kept for a product; [`SLOTS_MOST`] for a factor of none.
    pub(super) slot: usize,
    /// Where the transform bends.
    pub(super) bend: Option<f64>,
}

/// An interaction: half of it goes to each of its features.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) factors: [usize; 2],
    slots: [usize; 2],
    pub(super) groups: [usize; 2],
    pub(super) half: f64,
}

/// A transform with what can be computed ahead.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Identity,
    Log,
    Cap(f64),
    LogCap(f64),
    Recency { cap: f64, per: f64 },
    Never,
    Hinge(f64),
    Logit,
}

/// What one feature (or the intercept: `None`) adds to the logit. `value` is the feature's, 1 for the intercept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution {
    pub feature: Option<FeatureId>,
    pub value: f64,
    pub contribution: f64,
}

impl Scorer {
    /// Compiles a model; refuses one that this catalogue cannot feed or that does not score as it was trained.
    pub fn new(model: &Model, names: &dyn FeatureNames) -> Result<Scorer> {
        model.check()?;
        let ids = resolve(model, names)?;
        let scorer = Compiler::new(&ids).compile(model)?;
        scorer.check_golden(model, &ids, names.names().len())?;
        Ok(scorer)
    }

    /// A scorer that looks at nothing and gives ½: for reading features before there is a model.
    pub fn blank() -> Scorer {
        Scorer {
            groups: Vec::new(),
            factors: Vec::new(),
            products: Vec::new(),
            yardsticks: Vec::new(),
            intercept: 0.0,
            curve: None,
            logs: small_logs(),
        }
    }

    /// The probability a model gives, before there are golden vectors to hold it to: for making them.
    pub(super) fn p_of(model: &Model, names: &dyn FeatureNames, features: &[f64]) -> Result<f64> {
        let scorer = Compiler::new(&resolve(model, names)?).compile(model)?;
        Ok(scorer.p(scorer.logit(features)))
    }

    /// The calibrated logit of churn: the sum of the contributions. `features` is indexed by feature id.
    pub fn logit(&self, features: &[f64]) -> f64 {
        let sum = self.sum(features);
        sum + self.bend(sum)
    }

    /// The logit before the curve.
    pub(super) fn sum(&self, features: &[f64]) -> f64 {
        let mut sums = [0.0; FEATURES_MOST];
        self.sums(features, &mut sums);
        self.intercept + sums[..self.groups.len()].iter().map(|sum| on_grid(*sum)).sum::<f64>()
    }

    /// By how much the curve moves a sum. Its own share of the logit, so that it stands with the intercept.
    fn bend(&self, sum: f64) -> f64 {
        self.curve.as_ref().map_or(0.0, |curve| {
            on_grid(curve.then.slope * curve.isotonic.apply(sum) + curve.then.intercept - sum)
        })
    }

    /// The sum before the curve that gives this logit.
    pub(super) fn unbent(&self, logit: f64) -> f64 {
        self.curve
            .as_ref()
            .map_or(logit, |curve| curve.isotonic.invert((logit - curve.then.intercept) / curve.then.slope))
    }

    /// The probability that belongs to a logit.
    pub fn p(&self, logit: f64) -> f64 {
        1.0 / (1.0 + libm::exp(-logit))
    }

    /// What each feature added, the largest first (ties by feature id, the intercept before them). A feature that
    /// adds nothing explains nothing, and is left out.
    pub fn contributions(&self, features: &[f64], out: &mut Vec<Contribution>) {
        let mut sums = [0.0; FEATURES_MOST];
        self.sums(features, &mut sums);
        out.clear();
        let own = sums[..self.groups.len()].iter().map(|sum| on_grid(*sum)).sum::<f64>();
        let intercept = self.intercept + self.bend(self.intercept + own);
        out.push(Contribution { feature: None, value: 1.0, contribution: intercept });
        out.extend(self.groups.iter().zip(sums).filter_map(|(group, sum)| {
            let value = features[group.feature.index()];
            let contribution = on_grid(sum);
            (contribution != 0.0).then_some(Contribution {
                feature: Some(group.feature),
                value,
                contribution,
            })
        }));
        out.sort_unstable_by(|a, b| {
            let largest_first = b.contribution.abs().total_cmp(&a.contribution.abs());
            largest_first.then(a.feature.cmp(&b.feature))
        });
    }

    /// The features the model looks at, by id.
    pub fn features(&self) -> impl Iterator<Item = FeatureId> {
        self.groups.iter().map(|group| group.feature)
    }

    /// Σ weight × value per feature, before the grid.
    fn sums(&self, features: &[f64], sums: &mut [f64; FEATURES_MOST]) {
        let mut values = [0.0; SLOTS_MOST + 1];
        for (group, sum) in self.groups.iter().zip(sums.iter_mut()) {
            let x = features[group.feature.index()];
            let log = if group.needs_log { self.log(x) } else { 0.0 };
            let factors = &self.factors[group.first..group.end];
            let mut total = group.offset;
            for factor in factors {
                let value = factor.op.value(x, log);
                values[factor.slot] = value;
                total += factor.linear * value;
            }
            *sum = total;
        }
        for product in &self.products {
            let [a, b] = product.slots;
            let half = product.half * values[a] * values[b];
            sums[product.groups[0]] += half;
            sums[product.groups[1]] += half;
        }
    }

    /// ln(1 + |x|) with the sign of x; small counts are looked up, +inf stays.
    fn log(&self, x: f64) -> f64 {
        let n = x as usize;
        if n < LOGS && n as f64 == x { self.logs[n] } else { slow_log(x) }
    }

    fn check_golden(&self, model: &Model, ids: &BTreeMap<&str, FeatureId>, width: usize) -> Result<()> {
        for (i, golden) in model.golden.iter().enumerate() {
            let mut features = vec![0.0; width];
            for (name, value) in &golden.features {
                if let Some(id) = ids.get(name.as_str()) {
                    features[id.index()] = *value;
                }
            }
            let p = self.p(self.logit(&features));
            if (p - golden.p_churn).abs() > GOLDEN_TOLERANCE {
                return Err(Error::user(format!(
                    "model {} {}: golden[{i}] gives p_churn {p}, not the {} it gave in training",
                    model.name, model.version, golden.p_churn
                ))
                .hint("the file was changed after training; train the model again"));
            }
        }
        Ok(())
    }
}

impl Op {
    pub(super) fn value(self, x: f64, log: f64) -> f64 {
        match self {
            Op::Identity => Transform::Identity.apply(x),
            Op::Log => {
                if log.is_finite() {
                    log
                } else {
                    0.0
                }
            }
            Op::Cap(at) => Transform::Cap { at }.apply(x),
            Op::LogCap(most) => log.min(most),
            Op::Recency { cap, per } => (x.min(cap) * per).max(0.0),
            Op::Never => Transform::Never.apply(x),
            Op::Hinge(knot) => Transform::Hinge { knot }.apply(x),
            Op::Logit => Transform::Logit.apply(x),
        }
    }

    fn uses_log(self) -> bool {
        matches!(self, Op::Log | Op::LogCap(_))
    }
}

impl From<Transform> for Op {
    fn from(transform: Transform) -> Op {
        match transform {
            Transform::Identity => Op::Identity,
            Transform::Log1p => Op::Log,
            Transform::Cap { at } => Op::Cap(at),
            Transform::Log1pCap { at } => Op::LogCap(signed_log(at)),
            Transform::Recency { cap } => Op::Recency { cap, per: 1.0 / cap },
            Transform::Never => Op::Never,
            Transform::Hinge { knot } => Op::Hinge(knot),
            Transform::Logit => Op::Logit,
        }
    }
}

pub(super) fn slow_log(x: f64) -> f64 {
    if x == f64::INFINITY { x } else { signed_log(x.clamp(-VALUE_MOST, VALUE_MOST)) }
}

fn small_logs() -> Box<[f64; LOGS]> {
    Box::new(std::array::from_fn(|n| slow_log(n as f64)))
}

/// The nearest multiple of 2^-42 within ±32: adding 1.5 × 2^10 leaves exactly that many bits for the fraction.
fn on_grid(x: f64) -> f64 {
    const SHIFT: f64 = 1536.0;
    (x.clamp(-LOGIT_MOST, LOGIT_MOST) + SHIFT) - SHIFT
}

fn resolve<'m>(model: &'m Model, names: &dyn FeatureNames) -> Result<BTreeMap<&'m str, FeatureId>> {
    let known = names.names();
    let unknown = |name: &str| {
        let near = did_you_mean(name, known.iter().copied());
        Error::user(format!(
            "model {} {}: the feature catalogue has no `{name}`{near}",
            model.name, model.version
        ))
        .hint("declare the feature as it was in training, or train the model again on this catalogue")
    };
    model
        .features()
        .into_iter()
        .map(|name| Ok((name, names.id(name).ok_or_else(|| unknown(name))?)))
        .collect()
}

/// Collects factors per feature, then lays them out flat.
struct Compiler<'m> {
    ids: &'m BTreeMap<&'m str, FeatureId>,
    factors: Vec<(FeatureId, Transform)>,
}

impl<'m> Compiler<'m> {
    fn new(ids: &'m BTreeMap<&'m str, FeatureId>) -> Self {
        Compiler { ids, factors: Vec::new() }
    }

    fn compile(mut self, model: &Model) -> Result<Scorer> {
        for term in &model.terms {
            self.need(&term.feature, term.transform)?;
            if let Some(with) = &term.with {
                self.need(&with.feature, with.transform)?;
            }
        }
        // Stable: factors of one feature keep the order of the terms.
        self.factors.sort_by_key(|(id, _)| *id);
        let mut scorer = self.layout();
        let then = model.calibration.unwrap_or(Calibration::NONE);
        scorer.curve = model.isotonic.clone().map(|isotonic| Curve { isotonic, then });
        // A line goes into the weights; after a curve it cannot.
        let Calibration { slope, intercept: shift } =
            if scorer.curve.is_some() { Calibration::NONE } else { then };
        scorer.intercept = on_grid(slope * model.intercept + shift);
        // Backwards, as ever: offsets are sums of fractions, and another order could change the last bit of a score.
        for term in model.terms.iter().rev() {
            let scale = slope * term.weight / term.deviation;
            let factor = self.find(&term.feature, term.transform)?;
            let partner = match &term.with {
                Some(with) => Some(self.find(&with.feature, with.transform)?),
                None => None,
            };
            scorer.add(factor, partner, scale, term.mean, term.deviation);
        }
        scorer.products.reverse();
        Ok(scorer)
    }

    fn id(&self, name: &str) -> Result<FeatureId> {
        self.ids.get(name).copied().ok_or_else(|| Error::user(format!("`{name}` is not a known feature")))
    }

    fn need(&mut self, name: &str, transform: Transform) -> Result<()> {
        let factor = (self.id(name)?, transform);
        if !self.factors.contains(&factor) {
            self.factors.push(factor);
        }
        Ok(())
    }

    fn find(&self, name: &str, transform: Transform) -> Result<usize> {
        let factor = (self.id(name)?, transform);
        let at = self.factors.iter().position(|f| *f == factor);
        at.ok_or_else(|| Error::user(format!("`{name}` was not laid out")))
    }

    fn layout(&self) -> Scorer {
        let mut groups: Vec<Group> = Vec::new();
        for (i, (feature, transform)) in self.factors.iter().enumerate() {
            if groups.last().is_none_or(|group| group.feature != *feature) {
                groups.push(Group { feature: *feature, first: i, end: i, offset: 0.0, needs_log: false });
            }
            if let Some(group) = groups.last_mut() {
                group.end = i + 1;
                group.needs_log |= Op::from(*transform).uses_log();
            }
        }
        let factor = |(_, transform): &(FeatureId, Transform)| Factor {
            op: Op::from(*transform),
            linear: 0.0,
            slot: SLOTS_MOST,
            bend: transform.bend(),
        };
        Scorer {
            groups,
            factors: self.factors.iter().map(factor).collect(),
            products: Vec::new(),
            yardsticks: Vec::new(),
            intercept: 0.0,
            curve: None,
            logs: small_logs(),
        }
    }
}

impl Scorer {
    fn add(&mut self, factor: usize, partner: Option<usize>, scale: f64, mean: f64, deviation: f64) {
        let group = self.group_of(factor);
        self.yardsticks.push(Yardstick { factor, partner, deviation });
        let Some(partner) = partner else {
            self.factors[factor].linear += scale;
            self.groups[group].offset -= scale * mean;
            return;
        };
        let other = self.group_of(partner);
        self.yardsticks.push(Yardstick { factor: partner, partner: Some(factor), deviation });
        for g in [group, other] {
            self.groups[g].offset -= scale * mean / 2.0;
        }
        let slots = [self.slot(factor), self.slot(partner)];
        self.products.push(Product {
            slots,
            factors: [factor, partner],
            groups: [group, other],
            half: scale / 2.0,
        });
    }

    /// The place of a factor among those that products need, given out at the first asking.
    fn slot(&mut self, factor: usize) -> usize {
        if self.factors[factor].slot == SLOTS_MOST {
            self.factors[factor].slot = self.factors.iter().filter(|f| f.slot < SLOTS_MOST).count();
        }
        self.factors[factor].slot
    }

    pub(super) fn group_of(&self, factor: usize) -> usize {
        self.groups.partition_point(|group| group.end <= factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::artifact::tests::{Names, model, term, with};
    use proptest::prelude::*;

    /// The definition, straight from the file: intercept + Σ weight × (value − mean) / deviation, calibrated.
    fn by_definition(model: &Model, names: &Names, features: &[f64]) -> f64 {
        let of = |name: &str| features[names.id(name).unwrap().index()];
        let raw = model.terms.iter().fold(model.intercept, |sum, term| {
            let partner = term.with.as_ref().map_or(1.0, |with| with.transform.apply(of(&with.feature)));
            let value = term.transform.apply(of(&term.feature)) * partner;
            sum + term.weight * (value - term.mean) / term.deviation
        });
        model.calibration.map_or(raw, |c| c.slope * raw + c.intercept)
    }

    fn scorer(model: &Model) -> Scorer {
        Scorer::new(model, &Names).unwrap()
    }

    /// Names: orders_90d, days_since_order, revenue_90d, sentiment_90d, tenure_days, clicks_trend_14d.
    const FEATURES: [f64; 6] = [3.0, 12.5, 210.0, -0.25, 400.0, 0.1];

    #[test]
    fn the_scorer_computes_what_the_file_defines() {
        let model = model();
        let scorer = scorer(&model);
        for change in [0.0, 0.5, 1.0, 7.0, 300.0, 5e13, f64::INFINITY] {
            for i in 0..FEATURES.len() {
                let mut features = FEATURES;
                features[i] = change;
                let (fast, slow) = (scorer.logit(&features), by_definition(&model, &Names, &features));
                assert!((fast - slow.clamp(-32.0, 32.0)).abs() < 1e-9 || slow.abs() > 20.0, "{fast} {slow}");
                assert!(fast.is_finite());
            }
        }
    }

    #[test]
    fn contributions_add_up_to_the_logit_to_the_last_bit_and_the_largest_is_first() {
        let scorer = scorer(&model());
        let mut out = Vec::new();
        scorer.contributions(&FEATURES, &mut out);
        assert_eq!(out.len(), 1 + scorer.features().count(), "one per feature and the intercept");
        assert!(out.windows(2).all(|w| w[0].contribution.abs() >= w[1].contribution.abs()));
        assert_eq!(out.iter().filter(|c| c.feature.is_none()).count(), 1);
        let logit = scorer.logit(&FEATURES);
        assert_eq!(out.iter().map(|c| c.contribution).sum::<f64>(), logit);
        assert_eq!(out.iter().rev().map(|c| c.contribution).sum::<f64>(), logit);
    }

    #[test]
    fn a_feature_that_adds_nothing_is_left_out() {
        let mut model = model();
        model.terms = vec![
            term("orders_90d", Transform::Identity, 0.8),
            term("sentiment_90d", Transform::Identity, -0.5),
        ];
        model.terms.iter_mut().for_each(|term| term.mean = 0.0);
        model.keep_only_what_terms_use();
        let (scorer, mut out) = (scorer(&model), Vec::new());
        scorer.contributions(&[3.0, 0.0, 0.0, 0.0, 0.0, 0.0], &mut out);
        let features: Vec<_> = out.iter().filter_map(|c| c.feature).collect();
        assert_eq!(features, [FeatureId(0)]);
        assert_eq!(
            out.iter().map(|c| c.contribution).sum::<f64>(),
            scorer.logit(&[3.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        );
        scorer.contributions(&[0.0; 6], &mut out);
        assert_eq!(out.len(), 1, "the intercept is always there");
    }

    #[test]
    fn an_interaction_is_split_evenly_between_its_features() {
        let mut model = model();
        model.terms =
            vec![with(term("orders_90d", Transform::Identity, 0.8), "revenue_90d", Transform::Identity)];
        model.terms[0].mean = 0.0;
        model.keep_only_what_terms_use();
        let mut out = Vec::new();
        let scorer = scorer(&model);
        scorer.contributions(&[3.0, 0.0, 2.0, 0.0, 0.0, 0.0], &mut out);
        let of = |id: u16| out.iter().find(|c| c.feature == Some(FeatureId(id))).unwrap().contribution;
        assert_eq!(of(0), of(2));
        assert!((of(0) - 0.8 * 6.0 / model.terms[0].deviation / 2.0).abs() < 1e-9);
    }

    #[test]
    fn calibration_scales_contributions_with_the_logit() {
        let mut model = model();
        let plain = scorer(&model).logit(&FEATURES);
        model.calibration = Some(crate::model::artifact::Calibration { slope: 0.5, intercept: 0.25 });
        model.renew_golden();
        let scorer = scorer(&model);
        assert!((scorer.logit(&FEATURES) - (0.5 * plain + 0.25)).abs() < 1e-9);
        let mut out = Vec::new();
        scorer.contributions(&FEATURES, &mut out);
        assert_eq!(out.iter().map(|c| c.contribution).sum::<f64>(), scorer.logit(&FEATURES));
    }

    #[test]
    fn a_curve_bends_the_logit_and_its_share_stands_with_the_intercept() {
        let mut model = model();
        let plain = scorer(&model);
        model.isotonic = Some(Isotonic { from: vec![-2.0, 0.0, 2.0], to: vec![-1.5, -0.5, 4.0] });
        model.calibration = Some(Calibration { slope: 0.5, intercept: 0.25 });
        model.renew_golden();
        let bent = scorer(&model);
        let curve = |z: f64| 0.5 * model.isotonic.as_ref().unwrap().apply(z) + 0.25;
        let (mut out, mut before) = (Vec::new(), Vec::new());
        for days in [0.0, 12.5, 40.0, f64::INFINITY] {
            let mut features = FEATURES;
            features[1] = days;
            let logit = bent.logit(&features);
            assert!((logit - curve(plain.logit(&features))).abs() < 1e-9);
            assert!((bent.unbent(logit) - plain.logit(&features)).abs() < 1e-9);
            bent.contributions(&features, &mut out);
            assert_eq!(out.iter().map(|c| c.contribution).sum::<f64>(), logit);
            plain.contributions(&features, &mut before);
            let own =
                |all: &[Contribution], id| all.iter().find(|c| c.feature == Some(id)).unwrap().contribution;
            assert!(
                plain.features().all(|id| own(&out, id) == own(&before, id)),
                "features keep their share"
            );
        }
    }

    #[test]
    fn an_unknown_feature_is_refused_with_the_nearest_name() {
        let mut model = model();
        model.terms[0].feature = "orders_9d".into();
        model.keep_only_what_terms_use();
        let error = Scorer::new(&model, &Names).unwrap_err();
        assert!(error.what.contains("no `orders_9d` (did you mean `orders_90d`?)"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_model_that_no_longer_scores_as_trained_is_refused() {
        let mut model = model();
        model.terms[0].weight += 1e-6;
        let error = Scorer::new(&model, &Names).unwrap_err();
        assert!(error.what.contains("golden[0]"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn sums_are_exact_in_any_order(values in prop::collection::vec(-40.0f64..40.0, 63)) {
            let forward: f64 = values.iter().map(|x| on_grid(*x)).sum();
            let backward: f64 = values.iter().rev().map(|x| on_grid(*x)).sum();
            prop_assert_eq!(forward, backward);
            for x in values {
                prop_assert!((on_grid(x) - x.clamp(-32.0, 32.0)).abs() <= 0.5f64.powi(43));
            }
        }
    }

    /// Prints the time of one score: `cargo test --release -- --ignored --nocapture time_of_one_score`.
    #[test]
    #[ignore = "a measurement, not a promise"]
    fn time_of_one_score() {
        let model = crate::model::artifact::tests::wide_model();
        let scorer = scorer(&model);
        let rows: Vec<[f64; 6]> = (0..1024)
            .map(|i| {
                let x = f64::from(i);
                [f64::from(i % 40), x * 0.37, x * 1.7, (x * 0.01).sin(), x * 0.9, (x * 0.02).cos()]
            })
            .collect();
        let start = crate::time::Tick::now();
        let sum: f64 = (0..2000).flat_map(|_| rows.iter()).map(|row| scorer.logit(row)).sum();
        let each = start.elapsed().as_nanos() as f64 / (2000.0 * 1024.0);
        println!("{} terms: {each:.1} ns ({sum})", model.terms.len());
    }
}
