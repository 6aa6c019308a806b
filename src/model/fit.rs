//! From labelled examples to a model: split by time, choose, refit, calibrate, write down.
//!
//! Owns the protocol. Every choice (design, features, strength of the penalty, calibration) is made on a later
//! part of the period, never on shuffled rows, and with the label's horizon between the two parts. Building
//! examples from events is not done here.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Sum;

use linfa::ParamGuard;
use ndarray::{Array2, Axis, ShapeBuilder};

use super::artifact::{
    Calibration, DEVIATION_LEAST, Definitions, Direction, Factor, Golden, Label, Model, SCHEMA, Term,
    Training,
};
use super::choose::{
    CHOOSING_ROWS_MOST, Choice, Choosing, Found, Scale, given_for_sense, no_convergence, recent_from, thinned,
};
use super::dataset::{CLASS_LEAST, Dataset};
use super::design::{Designs, Spec, candidates};
use super::grow::Grower;
use super::levels::levels;
use super::logistic::{self, Way, Weights, calibration_that_helps, intercept_for_rate, sigmoid};
use super::metrics::{Bootstrap, Report, log_loss, report};
use super::reference::{Bins, Reference};
use super::scorer::Scorer;
use crate::error::{Error, Result};
use crate::pipeline::facts::NamesOnly;
use crate::time::{Ts, format_rfc3339, format_span};

/// The level of the probabilities follows the later slice alone where that gains so many nats per example there: a
/// third in the log odds at usual rates. Less than that is what seasons do, and the whole period foretells it better
/// than its end.
const LEVEL_GAIN_LEAST: f64 = 0.01;

/// What the model is for; copied into its file.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    pub name: String,
    pub version: String,
    pub label: Label,
    pub horizon: i64,
    pub lead: i64,
    pub active_within: i64,
}

/// Unchecked settings of a fit; [`ParamGuard::check`] makes them [`FitValidParams`], which alone can fit.
#[derive(Clone, Debug, PartialEq)]
pub struct FitParams(FitValidParams);

#[derive(Clone, Debug, PartialEq)]
pub struct FitValidParams {
    about: About,
    pub(super) alphas: Vec<f64>,
    pub(super) features_least: usize,
    pub(super) features_most: usize,
    held_back: f64,
    monotone: bool,
    bootstrap: Bootstrap,
}

impl FitParams {
    pub fn new(about: About) -> FitParams {
        FitParams(FitValidParams {
            about,
            alphas: vec![0.1, 1.0, 10.0, 100.0, 1_000.0],
            features_least: 10,
            features_most: 16,
            held_back: 0.3,
            monotone: false,
            bootstrap: Bootstrap::default(),
        })
    }

    /// The penalties to choose from.
    pub fn alphas(mut self, alphas: Vec<f64>) -> Self {
        self.0.alphas = alphas;
        self
    }

    /// How many features the model keeps, where there are that many.
    pub fn features(mut self, least: usize, most: usize) -> Self {
        (self.0.features_least, self.0.features_most) = (least, most);
        self
    }

    /// The share of examples, the latest, on which choices are made.
    pub fn held_back(mut self, share: f64) -> Self {
        self.0.held_back = share;
        self
    }

    /// Whether weights must point where their features do alone, whatever that costs.
    pub fn monotone(mut self, monotone: bool) -> Self {
        self.0.monotone = monotone;
        self
    }

    pub fn bootstrap(mut self, bootstrap: Bootstrap) -> Self {
        self.0.bootstrap = bootstrap;
        self
    }
}

impl ParamGuard for FitParams {
    type Checked = FitValidParams;
    type Error = Error;

    fn check_ref(&self) -> Result<&FitValidParams> {
        let p = &self.0;
        let usable = |alpha: &f64| *alpha > 0.0 && alpha.is_finite();
        if p.alphas.is_empty() || !p.alphas.iter().all(usable) {
            return Err(Error::user("the penalties to choose from must be finite numbers above 0"));
        }
        if p.features_least == 0 || p.features_least > p.features_most || p.features_most > 40 {
            let (least, most) = (p.features_least, p.features_most);
            return Err(Error::user(format!("{least} to {most} features are not 1 to 40 features")));
        }
        if !(0.05..=0.8).contains(&p.held_back) {
            return Err(Error::user(format!("the share held back is {}, not 0.05 to 0.8", p.held_back)));
        }
        if p.about.horizon <= 0 || p.about.lead < 0 {
            return Err(Error::user("the horizon must be longer than nothing and the lead not negative"));
        }
        Ok(p)
    }

    fn check(self) -> Result<FitValidParams> {
        self.check_ref()?;
        Ok(self.0)
    }
}

impl FitValidParams {
    /// Fits a model. The same dataset gives the same model.
    pub fn fit(&self, dataset: &mut Dataset, definitions: &dyn Definitions) -> Result<Model> {
        dataset.check()?;
        let split = self.split(dataset)?;
        dataset.swap_foretold();
        let mut choice = self.choose(dataset, &split)?;
        dataset.swap_foretold();
        let refitted = self.refit(dataset, &split.samples, &mut choice)?;
        dataset.swap_foretold();
        let held_back =
            Fitted::on(dataset, remembered(dataset, &split.early_samples(dataset), &choice), &choice)?;
        let judged = self.judge(dataset, &split.later, &held_back)?;
        dataset.swap_foretold();
        self.write_down(dataset, &split, choice, refitted, judged, definitions)
    }

    /// The first cut of the later slice, on which everything is chosen.
    pub fn later_from(&self, dataset: &Dataset) -> Result<Ts> {
        dataset.check()?;
        Ok(self.split(dataset)?.from)
    }

    /// The penalty in the middle, at which terms are chosen.
    pub(super) fn middling_alpha(&self) -> f64 {
        self.alphas[self.alphas.len() / 2]
    }

    fn choose(&self, dataset: &Dataset, split: &Split) -> Result<Choice> {
        let sample = thinned(&split.early, CHOOSING_ROWS_MOST);
        let designs = candidates(&dataset.names, dataset.rows.select(Axis(0), &sample).view());
        if designs.specs.is_empty() {
            return Err(Error::user(
                "no feature varies over the training examples, so nothing can be learned",
            )
            .hint("check that --input holds the events of these customers"));
        }
        let designs = if self.monotone { designs.straight() } else { designs };
        let later = thinned(&split.later, CHOOSING_ROWS_MOST);
        let settled = |found: Found| {
            let grower = Grower::new(dataset, [&sample, &later], self.middling_alpha(), found.order);
            let specs = grower.grow(found.specs.clone(), self.features_most)?;
            let grown = if specs == found.specs { "" } else { ", curves and products" };
            let designs = Designs::only(found.design + grown, specs);
            Choosing::new(dataset, split, &designs)?.settle(self, found.order)
        };
        let found = Choosing::new(dataset, split, &designs)?.find(self)?;
        // What sense costs shows at the end only: what can still be gained is not the same for both.
        let [sense, strength] = found;
        let sense = settled(sense)?;
        if self.monotone {
            return Ok(sense.choice);
        }
        let strength = settled(strength)?;
        Ok(if sense.costs_little_beside(&strength) { sense.choice } else { strength.choice })
    }

    /// The cut with enough of both classes on each side and the label's horizon between them: no early example's
    /// outcome reaches into the later slice. Of those the one with the most on both sides, weighed by the share
    /// held back: what falls into the horizon between is lost to both, so that a long horizon moves the cut on.
    fn split(&self, dataset: &Dataset) -> Result<Split> {
        let reach = self.about.lead + self.about.horizon;
        let mut cuts: BTreeMap<Ts, Classes> = BTreeMap::new();
        let samples = dataset.evened();
        let rows = &samples[0];
        for i in rows {
            cuts.entry(dataset.at[*i]).or_default().add(dataset.label[*i]);
        }
        let sides = |from: Ts| {
            let early = cuts.range(..=from.saturating_sub(reach)).map(|(_, classes)| *classes).sum();
            let later = cuts.range(from..).map(|(_, classes)| *classes).sum();
            (early, later)
        };
        let worth = |from: &Ts| -> Option<f64> {
            let (early, later): (Classes, Classes) = sides(*from);
            let size = |classes: Classes| libm::log(classes.rows() as f64);
            let worth = (1.0 - self.held_back) * size(early) + self.held_back * size(later);
            (early.are_enough() && later.are_enough()).then_some(worth)
        };
        let worthy = cuts.keys().filter_map(|from| Some((*from, worth(from)?)));
        let best = worthy.max_by(|(_, a), (_, b)| a.total_cmp(b));
        let (from, _) = best.ok_or_else(|| self.no_split(dataset, &cuts.into_keys().collect()))?;
        let early_until = from.saturating_sub(reach);
        let early = rows.iter().copied().filter(|i| dataset.at[*i] <= early_until).collect();
        let later = rows.iter().copied().filter(|i| dataset.at[*i] >= from).collect();
        Ok(Split { early, later, from, early_until, samples })
    }

    fn no_split(&self, dataset: &Dataset, cuts: &BTreeSet<Ts>) -> Error {
        let churned = dataset.label.iter().filter(|label| **label).count();
        let (first, last) = (cuts.first().copied().unwrap_or(0), cuts.last().copied().unwrap_or(0));
        Error::user(format!(
            "the examples cannot be split by time: {CLASS_LEAST} churners and {CLASS_LEAST} stayers are needed both \
             before and after a cut, with {} between; there are {churned} churners and {} stayers at {} cuts from {} to {}",
            format_span(self.about.lead + self.about.horizon),
            dataset.label.len() - churned,
            cuts.len(),
            format_rfc3339(first),
            format_rfc3339(last),
        ))
        .hint("give a longer history or more customers, or shorten --horizon")
    }

    /// The fit to everything. More rows can turn a weight that was next to nothing on the rows that were chosen on: the
    /// features of such weights leave, unless the fit is clearly worse without them.
    fn refit(&self, dataset: &Dataset, samples: &[Vec<usize>], choice: &mut Choice) -> Result<Fitted> {
        let samples = remembered(dataset, samples, choice);
        let whole = Fitted::on(dataset, samples.clone(), choice)?;
        let (mut fewer, mut without) = (choice.clone(), None);
        while fewer.drop_turned(&without.as_ref().unwrap_or(&whole).weights.weights) {
            without = Some(Fitted::on(dataset, samples.clone(), &fewer)?);
        }
        let loss = whole.loss(dataset);
        let given = given_for_sense(loss, dataset.base_rate(&whole.rows));
        let Some(without) = without.filter(|fit| self.monotone || fit.loss(dataset) - loss <= given) else {
            return Ok(whole);
        };
        *choice = fewer;
        Ok(without)
    }

    /// Calibration and quality on the later slice, of a model that has seen only the early one.
    fn judge(&self, dataset: &Dataset, later: &[usize], fitted: &Fitted) -> Result<Judged> {
        let logits = fitted.logits(dataset, later);
        let churned: Vec<bool> = later.iter().map(|i| dataset.label[*i]).collect();
        let customer: Vec<u64> = later.iter().map(|i| dataset.customer[*i]).collect();
        let half: Vec<bool> = customer.iter().map(|c| c.count_ones() % 2 == 0).collect();
        let p: Vec<f64> = logits.iter().map(|z| sigmoid(*z)).collect();
        let rate = dataset.base_rate(later);
        let shift = intercept_for_rate(&logits, 1.0, rate);
        let levelled: Vec<f64> = logits.iter().map(|z| z + shift).collect();
        // Whether scores are too bold or too timid is one question, whether all are too high or too low another.
        // What helps other customers at the same time may be the ways of a season.
        let newer = newer_half(dataset, later);
        let halves: Vec<Vec<bool>> = [Some(half), newer].into_iter().flatten().collect();
        let way = calibration_that_helps(&levelled, &churned, &halves);
        let level: Vec<f64> = levelled.iter().map(|z| sigmoid(*z)).collect();
        let drift = log_loss(&p, &churned) - log_loss(&level, &churned);
        let held_back = report(&p, &churned, &customer, self.bootstrap)
            .ok_or_else(|| Error::world("the held-back examples cannot be scored"))?;
        Ok(Judged { way, has_drifted: drift > LEVEL_GAIN_LEAST, held_back })
    }

    fn write_down(
        &self,
        dataset: &Dataset,
        split: &Split,
        choice: Choice,
        fitted: Fitted,
        judged: Judged,
        definitions: &dyn Definitions,
    ) -> Result<Model> {
        let about = self.about.clone();
        let rows = &fitted.rows;
        let (first_cut, last_cut) = dataset.span(rows);
        // Slope or curve were found on the early model; the level is set anew, since the refit has seen the later
        // slice.
        let level_of = if judged.has_drifted { &split.later } else { rows };
        let level = |slope: f64| {
            intercept_for_rate(&fitted.logits(dataset, level_of), slope, dataset.base_rate(level_of))
        };
        let line = |slope: f64| Some(Calibration { slope, intercept: level(slope) });
        let (isotonic, calibration) = match judged.way {
            Some(Way::Isotonic(curve)) => (Some(curve.moved(-level(1.0))), None),
            Some(Way::Platt(found)) => (None, line(found.slope)),
            None if judged.has_drifted => (None, line(1.0)),
            None => (None, None),
        };
        let terms = fitted.terms(dataset);
        let mut model = Model {
            schema: SCHEMA,
            name: about.name,
            version: about.version,
            created: last_cut + about.lead + about.horizon,
            label: about.label,
            horizon: about.horizon,
            lead: about.lead,
            active_within: about.active_within,
            direction: Direction::Churn,
            intercept: fitted.weights.intercept,
            terms,
            isotonic,
            calibration,
            value: dataset.foretold.as_ref().map(|foretold| foretold.value.clone()),
            recalibrated: None,
            training: Training {
                examples: rows.len(),
                customers: rows.iter().map(|i| dataset.customer[*i]).collect::<BTreeSet<_>>().len(),
                base_rate: dataset.base_rate(rows),
                first_cut,
                last_cut,
                held_back_from: split.from,
                design: choice.design,
                alpha: choice.alpha,
                held_back: judged.held_back,
            },
            reference: None,
            catalogue: BTreeMap::new(),
            golden: Vec::new(),
        };
        model.catalogue = model.hashes(definitions)?;
        model.golden = golden(&model, dataset)?;
        model.reference = reference(&model, dataset, rows)?;
        model.check()?;
        Ok(model)
    }
}

/// How many examples of each class.
#[derive(Clone, Copy, Default)]
struct Classes {
    churners: usize,
    stayers: usize,
}

impl Classes {
    fn add(&mut self, churned: bool) {
        *(if churned { &mut self.churners } else { &mut self.stayers }) += 1;
    }

    fn rows(self) -> usize {
        self.churners + self.stayers
    }

    fn are_enough(self) -> bool {
        self.churners.min(self.stayers) >= CLASS_LEAST
    }
}

impl Sum for Classes {
    fn sum<I: Iterator<Item = Classes>>(all: I) -> Classes {
        all.fold(Classes::default(), |sum, more| Classes {
            churners: sum.churners + more.churners,
            stayers: sum.stayers + more.stayers,
        })
    }
}

/// Row numbers before and after a cut, with the label's horizon between.
pub(super) struct Split {
    pub(super) early: Vec<usize>,
    pub(super) later: Vec<usize>,
    from: Ts,
    /// The last instant of an early cut.
    early_until: Ts,
    /// Both, and those between: all that are learned from. What is chosen on is of the first sample.
    samples: Vec<Vec<usize>>,
}

impl Split {
    fn early_samples(&self, dataset: &Dataset) -> Vec<Vec<usize>> {
        let early =
            |rows: &Vec<usize>| rows.iter().copied().filter(|i| dataset.at[*i] <= self.early_until).collect();
        self.samples.iter().map(early).collect()
    }
}

/// Which of these rows are of the newer half of their cuts; `None` where there is but one.
fn newer_half(dataset: &Dataset, rows: &[usize]) -> Option<Vec<bool>> {
    let cuts: BTreeSet<Ts> = rows.iter().map(|i| dataset.at[*i]).collect();
    let newer = *cuts.iter().nth(cuts.len() / 2)?;
    (cuts.len() > 1).then(|| rows.iter().map(|i| dataset.at[*i] >= newer).collect())
}

/// The rows a fit looks at: all, or those of the later half of their period.
fn remembered(dataset: &Dataset, samples: &[Vec<usize>], choice: &Choice) -> Vec<Vec<usize>> {
    let of = |rows: &Vec<usize>| {
        let at: Vec<Ts> = rows.iter().map(|i| dataset.at[*i]).collect();
        let from = recent_from(&at).filter(|_| choice.recent).unwrap_or(Ts::MIN);
        rows.iter().copied().filter(|i| dataset.at[*i] >= from).collect()
    };
    samples.iter().map(of).collect()
}

struct Judged {
    /// How logits of one level are set right, where that helps.
    way: Option<Way>,
    /// Whether churn on the later slice is more, or less, than seasons make.
    has_drifted: bool,
    held_back: Report,
}

/// Weights over the chosen terms, with the scale they are for.
struct Fitted {
    /// The rows of the first sample it was fitted to.
    rows: Vec<usize>,
    specs: Vec<Spec>,
    scale: Scale,
    weights: Weights,
}

impl Fitted {
    /// The mean of what a fit to each sample finds, in the scale of the first.
    fn on(dataset: &Dataset, mut samples: Vec<Vec<usize>>, choice: &Choice) -> Result<Fitted> {
        let scale = Scale::of(values(&choice.specs, dataset, &samples[0]).view());
        let fit = |rows: &Vec<usize>| -> Result<Weights> {
            let mut x = values(&choice.specs, dataset, rows);
            scale.apply(&mut x);
            let churned: Vec<bool> = rows.iter().map(|i| dataset.label[*i]).collect();
            let at: Vec<Ts> = rows.iter().map(|i| dataset.at[*i]).collect();
            x.append(Axis(1), levels(&at, choice.alpha).view()).map_err(|e| Error::world(e.to_string()))?;
            let weights = logistic::fit(&x, &churned, choice.alpha).map_err(no_convergence)?;
            Ok(weights.first(choice.specs.len()))
        };
        let weights = Weights::mean(&samples.iter().map(fit).collect::<Result<Vec<Weights>>>()?);
        Ok(Fitted { rows: samples.swap_remove(0), specs: choice.specs.clone(), scale, weights })
    }

    /// The mean loss on the rows it was fitted to.
    fn loss(&self, dataset: &Dataset) -> f64 {
        let mut x = values(&self.specs, dataset, &self.rows);
        self.scale.apply(&mut x);
        let churned: Vec<bool> = self.rows.iter().map(|i| dataset.label[*i]).collect();
        self.weights.losses(&x, &churned).sum() / churned.len() as f64
    }

    fn logits(&self, dataset: &Dataset, rows: &[usize]) -> Vec<f64> {
        let mut x = values(&self.specs, dataset, rows);
        self.scale.apply(&mut x);
        self.weights.logits(&x).to_vec()
    }

    fn terms(&self, dataset: &Dataset) -> Vec<Term> {
        let name = |column: usize| dataset.names[column].clone();
        let term = |(i, spec): (usize, &Spec)| Term {
            feature: name(spec.column),
            transform: spec.transform,
            with: spec.with.map(|(column, transform)| Factor { feature: name(column), transform }),
            mean: self.scale.means[i],
            deviation: self.scale.deviations[i].max(DEVIATION_LEAST),
            weight: self.weights.weights[i],
        };
        self.specs.iter().enumerate().map(term).collect()
    }
}

/// By column, as [`logistic::fit`] wants them; filled row by row, as the rows lie.
pub(super) fn values(specs: &[Spec], dataset: &Dataset, rows: &[usize]) -> Array2<f64> {
    let mut out = Array2::zeros((rows.len(), specs.len()).f());
    for (mut to, i) in out.rows_mut().into_iter().zip(rows) {
        let from = dataset.rows.row(*i);
        to.iter_mut().zip(specs).for_each(|(to, spec)| *to = spec.value(from));
    }
    out
}

/// Vectors made of quantiles of each feature, and the customer to whom nothing ever happened: nobody's own row
/// is copied into the file.
fn golden(model: &Model, dataset: &Dataset) -> Result<Vec<Golden>> {
    const QUANTILES: [f64; 3] = [0.1, 0.5, 0.9];
    let names = NamesOnly(&dataset.names);
    let features = model.features();
    let mut vectors = vec![vec![0.0; dataset.names.len()]; QUANTILES.len() + 1];
    for (i, _) in dataset.names.iter().enumerate().filter(|(_, name)| features.contains(name.as_str())) {
        let mut sorted = dataset.rows.column(i).to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        for (vector, q) in vectors.iter_mut().zip(QUANTILES) {
            vector[i] = sorted[((sorted.len() - 1) as f64 * q).round() as usize];
        }
        let never = if sorted.last().is_some_and(|x| x.is_infinite()) { f64::INFINITY } else { 0.0 };
        vectors[QUANTILES.len()][i] = never;
    }
    let golden = |vector: Vec<f64>| {
        let p_churn = Scorer::p_of(model, &names, &vector)?;
        let named = dataset.names.iter().cloned().zip(vector);
        Ok(Golden { features: named.filter(|(name, _)| features.contains(name.as_str())).collect(), p_churn })
    };
    vectors.into_iter().map(golden).collect()
}

/// How the model's features, and its score, are spread over the rows it was fitted to.
fn reference(model: &Model, dataset: &Dataset, rows: &[usize]) -> Result<Option<Reference>> {
    const ROWS_MOST: usize = 100_000;
    let rows = thinned(rows, ROWS_MOST);
    let used = model.features();
    let columns = dataset.names.iter().enumerate().filter(|(_, name)| used.contains(name.as_str()));
    let bins = |column: usize| Bins::of(rows.iter().map(|i| dataset.rows[[*i, column]]).collect());
    let features = columns.map(|(column, name)| Some((name.clone(), bins(column)?))).collect::<Option<_>>();
    let scorer = Scorer::new(model, &NamesOnly(&dataset.names))?;
    let score = |i: &usize| scorer.p(scorer.logit(&dataset.rows.row(*i).to_vec()));
    let score = Bins::of(rows.iter().map(score).collect());
    Ok(features.zip(score).map(|(features, score)| Reference { features, score }))
}

#[cfg(test)]
mod tests {
    use super::super::dataset::Foretold;
    use super::super::value::{self, Kind, Orders, ValueModel};
    use super::*;
    use crate::time::DAY_MS;
    use rand_pcg::Pcg64;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    struct Defined;

    impl Definitions for Defined {
        fn definition(&self, name: &str) -> Option<String> {
            Some(format!("definition of {name}"))
        }
    }

    fn about() -> About {
        About {
            name: "churn".into(),
            version: "1".into(),
            label: Label::NoOrder,
            horizon: 30 * DAY_MS,
            lead: 0,
            active_within: 90 * DAY_MS,
        }
    }

    const NAMES: [&str; 6] =
        ["orders_90d", "days_since_order", "clicks_trend_14d", "noise_1", "noise_2", "constant"];

    /// Eight cuts two weeks apart; churn grows with the days since the last order and falls with orders.
    fn dataset(n: usize, level: f64, seed: u64) -> Dataset {
        let mut rng = Pcg64::seed_from_u64(seed);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut rows = Array2::zeros((n, NAMES.len()));
        let mut label = Vec::new();
        for mut row in rows.rows_mut() {
            let orders = (uniform() * uniform() * 12.0).floor();
            let days = if orders == 0.0 && uniform() < 0.5 { f64::INFINITY } else { uniform() * 90.0 };
            let z = level + 0.04 * days.min(90.0) - 0.9 * libm::log(1.0 + orders);
            label.push(uniform() < sigmoid(z));
            for (j, x) in
                [orders, days, uniform() - 0.5, uniform(), uniform() * 9.0, 7.0].into_iter().enumerate()
            {
                row[j] = x;
            }
        }
        Dataset {
            names: NAMES.map(str::to_owned).to_vec(),
            rows,
            label,
            at: (0..n).map(|i| (i * 8 / n) as i64 * 14 * DAY_MS).collect(),
            customer: (0..n as u64).map(|i| (i % 300).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect(),
            foretold: None,
        }
    }

    fn fit(dataset: &Dataset) -> Result<Model> {
        let few = Bootstrap { rounds: 20, seed: 0 };
        let params = FitParams::new(about()).features(1, 4).alphas(vec![0.5, 5.0]).bootstrap(few);
        params.check()?.fit(&mut dataset.clone(), &Defined)
    }

    #[test]
    fn a_fit_finds_what_drives_churn_and_leaves_the_rest_out() {
        let dataset = dataset(1_600, -1.0, 1);
        let model = fit(&dataset).unwrap();
        assert!(model.features().contains("days_since_order"), "{:?}", model.terms);
        assert!(!model.features().contains("constant"));
        assert!(model.training.held_back.roc_auc.value > 0.72, "{:?}", model.training);
        assert!(model.training.held_back.ece < 0.08);
        let scorer = Scorer::new(&model, &NamesOnly(&dataset.names)).unwrap();
        let p = |orders: f64, days: f64| scorer.p(scorer.logit(&[orders, days, 0.0, 0.5, 4.0, 7.0]));
        assert!(p(0.0, 85.0) > 0.6 && p(8.0, 1.0) < 0.3, "{} {}", p(0.0, 85.0), p(8.0, 1.0));
        assert_eq!(model.created, dataset.at[1_599] + 30 * DAY_MS);
    }

    #[test]
    fn weights_mean_churn_whether_churn_is_rare_or_common_and_in_whichever_order_rows_come() {
        for level in [-2.5, -1.0, 1.5] {
            let mut dataset = dataset(600, level, 4);
            for _ in 0..2 {
                let model = fit(&dataset).unwrap();
                let scorer = Scorer::new(&model, &NamesOnly(&dataset.names)).unwrap();
                let logit = |orders: f64, days: f64| scorer.logit(&[orders, days, 0.0, 0.5, 4.0, 7.0]);
                assert!(logit(0.0, 80.0) > logit(6.0, 2.0), "level {level}");
                dataset.rows.invert_axis(Axis(0));
                dataset.label.reverse();
                dataset.at.reverse();
                dataset.customer.reverse();
            }
        }
    }

    #[test]
    fn no_weight_points_against_what_its_feature_says_alone() {
        let mut dataset = dataset(2_000, -1.0, 6);
        // Orders seen through noise: the cleaner copy would turn the noisier one's weight around.
        for mut row in dataset.rows.rows_mut() {
            row[3] = row[0] + 3.0 * row[3];
            row[4] = row[3] - 0.9 * row[0];
        }
        let params = || FitParams::new(about()).bootstrap(Bootstrap { rounds: 20, seed: 0 });
        let model = params().features(2, 5).check().unwrap().fit(&mut dataset, &Defined).unwrap();
        assert!(model.features().contains("orders_90d"));
        for term in model.terms.iter().filter(|term| term.feature != "days_since_order") {
            assert!(
                term.weight < 0.0 || term.feature == "clicks_trend_14d",
                "{} {}",
                term.feature,
                term.weight
            );
        }
    }

    #[test]
    fn a_weight_that_only_corrects_another_stays_where_the_model_is_much_worse_without_it() {
        let mut dataset = dataset(2_000, -1.0, 6);
        let mut rng = Pcg64::seed_from_u64(7);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        // The sum of two kinds of visits keeps customers, less so what comes of the second kind.
        for (mut row, churned) in dataset.rows.rows_mut().into_iter().zip(&mut dataset.label) {
            let (first, second) = (6.0 * uniform(), 6.0 * uniform());
            (row[3], row[4]) = (first + second, second);
            *churned = uniform() < sigmoid(3.0 - 1.5 * first - 0.3 * second + 2.0);
        }
        let params = FitParams::new(about()).features(2, 5).bootstrap(Bootstrap { rounds: 20, seed: 0 });
        let mut weighs = |monotone: bool| {
            let params = params.clone().monotone(monotone).check().unwrap();
            let model = params.fit(&mut dataset, &Defined).unwrap();
            let scorer = Scorer::new(&model, &NamesOnly(&dataset.names)).unwrap();
            let logit = |both: f64, second: f64| scorer.logit(&[2.0, 20.0, 0.0, both, second, 7.0]);
            assert!(logit(4.0, 2.0) > logit(8.0, 2.0), "{:?}", model.terms);
            logit(6.0, 5.0) - logit(6.0, 1.0)
        };
        assert!(weighs(false) > 0.0);
        assert!(weighs(true) <= 0.0, "unless that is not wanted whatever it costs");
    }

    #[test]
    fn what_is_foretold_with_knowledge_of_the_later_slice_does_not_judge() {
        let mut dataset = dataset(1_600, -1.0, 1);
        dataset.names[3] = value::P_NO_ORDER.into();
        let then = dataset.rows.column(3).to_vec();
        // A fit to everything that knows the outcomes; the fit before the later slice knows nothing.
        for (row, churned) in dataset.label.iter().enumerate() {
            dataset.rows[[row, 3]] = if *churned { 0.9 } else { 0.1 };
        }
        let orders = Orders {
            kind: Kind::BgNbd,
            r: 0.5,
            alpha: 30.0,
            a: 0.8,
            b: 2.5,
            log_likelihood: -5.0,
            dropout_identified: true,
        };
        let value = ValueModel { orders, spend: None, annual_discount: 0.1, buyers: 300 };
        dataset.foretold = Some(Foretold { column: 3, then, value: value.clone() });
        let model = fit(&dataset).unwrap();
        assert!(model.training.held_back.roc_auc.value < 0.9, "{:?}", model.training.held_back);
        assert_eq!(model.value, Some(value));
        let knowing = fit(&Dataset { foretold: None, ..dataset }).unwrap_err();
        assert!(knowing.what.contains("nothing foretells"), "{knowing}");
    }

    #[test]
    fn the_same_dataset_gives_the_same_bytes() {
        let dataset = dataset(600, -1.0, 2);
        let json = |_| fit(&dataset).unwrap().to_json().unwrap();
        assert_eq!(json(0), json(1));
    }

    #[test]
    fn a_fitted_model_survives_its_own_file() {
        let dataset = dataset(600, -1.0, 2);
        let model = fit(&dataset).unwrap();
        let read = Model::from_json(&model.to_json().unwrap(), "churn.json").unwrap();
        assert_eq!(read, model);
        Scorer::new(&read, &NamesOnly(&dataset.names)).unwrap();
        read.check_definitions(&Defined).unwrap();
        assert!(model.golden.iter().any(|g| g.features.get("days_since_order") == Some(&f64::INFINITY)));
    }

    #[test]
    fn no_early_outcome_reaches_into_the_later_slice() {
        let dataset = dataset(1_000, -1.0, 3);
        let params = FitParams::new(about()).check().unwrap();
        let split = params.split(&dataset).unwrap();
        let last_early = split.early.iter().map(|i| dataset.at[*i]).max().unwrap();
        let first_later = split.later.iter().map(|i| dataset.at[*i]).min().unwrap();
        assert!(last_early + 30 * DAY_MS <= first_later);
        assert_eq!(first_later, split.from);
    }

    #[test]
    fn data_that_cannot_be_learned_from_is_refused_with_the_reason() {
        let refused = |change: &dyn Fn(&mut Dataset), says: &str| {
            let mut dataset = dataset(600, -1.0, 1);
            change(&mut dataset);
            let error = fit(&dataset).unwrap_err();
            assert!(error.what.contains(says), "{error}");
        };
        refused(&|d| d.label.fill(true), "every one is a churner");
        refused(&|d| d.label.fill(false), "none is a churner");
        refused(&|d| d.rows[[3, 1]] = f64::NAN, "feature `days_since_order` is NaN at");
        refused(&|d| d.rows[[3, 1]] = f64::NEG_INFINITY, "is -inf at");
        refused(&|d| d.rows.fill(1.0), "no feature varies");
        refused(&|d| d.at.fill(0), "at 1 cuts from 1970-01-01");
        refused(&|d| d.names[1] = "orders_90d".into(), "`orders_90d` occurs twice");
        refused(&|d| d.at.truncate(7), "differ in length");
        let error = fit(&dataset(60, -1.0, 1)).unwrap_err();
        assert!(error.what.contains("60 examples are too few to train on: 100 are needed"), "{error}");
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        let params = || FitParams::new(about());
        assert!(params().check().is_ok());
        assert!(params().alphas(vec![]).check().is_err());
        assert!(params().alphas(vec![0.0]).check().is_err());
        assert!(params().features(5, 4).check().is_err());
        assert!(params().held_back(1.0).check().is_err());
        let backwards = About { lead: -1, ..about() };
        assert!(FitParams::new(backwards).check().is_err());
    }
}
