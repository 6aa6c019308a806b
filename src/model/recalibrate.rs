//! A model's probabilities set right by what became of its scores, without training it anew.
//!
//! Fits slope and intercept of the logit (Platt) to outcomes, which leaves the order of customers as it was. Whether
//! that helps is judged on the latest outcomes, by a fit to those that were known before the first of them was
//! scored; what is written down is then fitted to all. Reading outcomes is not done here.

use super::artifact::{Calibration, Model, Recalibration};
use super::logistic::{CALIBRATION_GAIN_LEAST, platt, sigmoid};
use super::metrics::{brier, ece, log_loss};
use super::reference::{Bins, Reference};
use super::scorer::Scorer;
use crate::error::{Error, Result};
use crate::pipeline::facts::NamesOnly;
use crate::time::{Ts, format_rfc3339, format_span};

/// Two numbers can be found from so many; fewer would follow chance.
pub const OUTCOMES_LEAST: usize = 500;
/// Churners, and stayers, on each side of the split.
pub const CLASS_LEAST: usize = 50;
/// The share of outcomes, the latest, on which the gain is judged.
const JUDGED_ON: f64 = 0.3;
/// A probability that was kept as 0 or 1 is this far from it.
const MARGIN: f64 = 0.5 / 65_535.0;

/// A score whose outcome is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    pub scored_at: Ts,
    pub p: f64,
    pub churned: bool,
}

/// How probabilities compare with what happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    pub brier: f64,
    pub ece: f64,
    pub log_loss: f64,
}

/// A recalibrated model, and what it gains on outcomes that its judged fit had not seen.
#[derive(Clone, Debug)]
pub struct Recalibrated {
    pub model: Model,
    pub slope: f64,
    pub intercept: f64,
    pub judged_from: Ts,
    pub judged_on: usize,
    pub base_rate: f64,
    pub before: Fit,
    pub after: Fit,
}

/// Sets a model right by the outcomes of its own scores. Refuses when there are too few, or when it gains nothing.
/// The version is left to the caller.
pub fn recalibrate(model: &Model, mut outcomes: Vec<Known>) -> Result<Recalibrated> {
    outcomes.sort_by(|a, b| {
        (a.scored_at, a.p, a.churned)
            .partial_cmp(&(b.scored_at, b.p, b.churned))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let reach = model.lead.saturating_add(model.horizon);
    let from = split(&outcomes).ok_or_else(|| too_few(model, &outcomes, "outcomes"))?;
    let (early, later): (Vec<Known>, Vec<Known>) = outcomes.iter().partition(|known| known.scored_at < from);
    // What was known when the first of the later ones was scored.
    let early: Vec<Known> =
        early.into_iter().filter(|known| known.scored_at.saturating_add(reach) <= from).collect();
    if !is_enough(&early) || !is_enough(&later) {
        let side = if is_enough(&later) { "before" } else { "from" };
        let part = if is_enough(&later) { &early } else { &later };
        return Err(too_few(model, part, &format!("outcomes known {side} {}", format_rfc3339(from))));
    }
    let judged = fit(&early)?;
    let (before, after) = (compare(&later, |z| z), compare(&later, |z| judged.slope * z + judged.intercept));
    if before.log_loss - after.log_loss < CALIBRATION_GAIN_LEAST {
        return Err(Error::user(format!(
            "recalibration gains nothing: on {} outcomes from {} on, the Brier score is {:.4} as it is and {:.4} with it, \
             the log loss {:.4} and {:.4}",
            later.len(),
            format_rfc3339(from),
            before.brier,
            after.brier,
            before.log_loss,
            after.log_loss
        ))
        .hint("the model is as well calibrated as these outcomes can make it; train it anew if it ranks badly"));
    }
    let all = fit(&outcomes)?;
    let churned = later.iter().filter(|known| known.churned).count();
    Ok(Recalibrated {
        model: set_right(model, all, &outcomes, reach)?,
        slope: all.slope,
        intercept: all.intercept,
        judged_from: from,
        judged_on: later.len(),
        base_rate: churned as f64 / later.len() as f64,
        before,
        after,
    })
}

/// The instant from which outcomes judge; `None` where there are too few altogether.
fn split(outcomes: &[Known]) -> Option<Ts> {
    let first = (outcomes.len() as f64 * (1.0 - JUDGED_ON)) as usize;
    outcomes.get(first).filter(|_| is_enough(outcomes)).map(|known| known.scored_at)
}

fn is_enough(outcomes: &[Known]) -> bool {
    let churned = outcomes.iter().filter(|known| known.churned).count();
    outcomes.len() >= OUTCOMES_LEAST && churned >= CLASS_LEAST && outcomes.len() - churned >= CLASS_LEAST
}

fn too_few(model: &Model, outcomes: &[Known], which: &str) -> Error {
    let churned = outcomes.iter().filter(|known| known.churned).count();
    Error::user(format!(
        "{} {which} of {} {} ({churned} churned) are too few: {OUTCOMES_LEAST} are needed, of which {CLASS_LEAST} churned \
         and {CLASS_LEAST} stayed",
        outcomes.len(),
        model.name,
        model.version
    ))
    .hint(format!(
        "outcomes are judged on time later than those they are fitted to, with {} between: let more of them mature",
        format_span(model.lead.saturating_add(model.horizon))
    ))
}

fn logit(p: f64) -> f64 {
    let p = p.clamp(MARGIN, 1.0 - MARGIN);
    libm::log(p / (1.0 - p))
}

fn fit(outcomes: &[Known]) -> Result<Calibration> {
    let logits: Vec<f64> = outcomes.iter().map(|known| logit(known.p)).collect();
    let churned: Vec<bool> = outcomes.iter().map(|known| known.churned).collect();
    platt(&logits, &churned).ok_or_else(|| {
        Error::user("the scores do not rise with churn, so that no slope and intercept set them right")
            .hint("look at the live AUC; train the model anew on recent events")
    })
}

fn compare(outcomes: &[Known], change: impl Fn(f64) -> f64) -> Fit {
    let p: Vec<f64> = outcomes.iter().map(|known| sigmoid(change(logit(known.p)))).collect();
    let churned: Vec<bool> = outcomes.iter().map(|known| known.churned).collect();
    Fit { brier: brier(&p, &churned), ece: ece(&p, &churned), log_loss: log_loss(&p, &churned) }
}

/// The same model with another calibration: of the logit as it was, and all that follows from it in the file.
fn set_right(model: &Model, by: Calibration, outcomes: &[Known], reach: i64) -> Result<Model> {
    let last = outcomes.last().map_or(model.created, |known| known.scored_at.saturating_add(reach));
    let old = model.calibration.unwrap_or(Calibration::NONE);
    let mut new = Model {
        calibration: Some(Calibration {
            slope: by.slope * old.slope,
            intercept: by.slope * old.intercept + by.intercept,
        }),
        recalibrated: Some(Recalibration {
            from: model.version.clone(),
            outcomes: outcomes.len(),
            slope: by.slope,
            intercept: by.intercept,
        }),
        // It learned from all of this time, which `evaluate` must not judge it by.
        created: model.created.max(last),
        ..model.clone()
    };
    let edge = |edge: &f64| sigmoid(by.slope * logit(*edge) + by.intercept);
    new.reference = new.reference.map(|reference| {
        let mut edges: Vec<f64> = reference.score.edges.iter().map(edge).collect();
        // Probabilities next to 0 or 1 can fall together.
        edges.dedup();
        let whole = edges.len() == reference.score.edges.len();
        let score = if whole { Bins { edges, ..reference.score } } else { reference.score };
        Reference { score, ..reference }
    });
    let names: Vec<String> = new.features().into_iter().map(str::to_owned).collect();
    for i in 0..new.golden.len() {
        let value = |name: &String| new.golden[i].features.get(name).copied().unwrap_or(0.0);
        let vector: Vec<f64> = names.iter().map(value).collect();
        let p = Scorer::p_of(&new, &NamesOnly(&names), &vector)?;
        new.golden[i].p_churn = p;
    }
    new.check()?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::SHIPPED_MODEL;
    use crate::time::DAY_MS;
    use rand_pcg::Pcg64;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    /// Outcomes over `days` of scores whose truth is at this slope and shift of their logit.
    fn outcomes(n: usize, days: i64, slope: f64, shift: f64) -> Vec<Known> {
        let mut rng = Pcg64::seed_from_u64(3);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (0..n)
            .map(|i| {
                let p = 0.02 + 0.96 * uniform();
                let churned = uniform() < sigmoid(slope * logit(p) + shift);
                Known { scored_at: i as i64 * days * DAY_MS / n as i64, p, churned }
            })
            .collect()
    }

    fn model() -> Model {
        Model::from_json(SHIPPED_MODEL, "shipped").unwrap()
    }

    #[test]
    fn scores_that_are_too_high_and_too_sure_are_set_right_and_keep_their_order() {
        let model = model();
        let outcomes = outcomes(20_000, 120, 0.6, -0.8);
        let done = recalibrate(&model, outcomes).unwrap();
        assert!((done.slope - 0.6).abs() < 0.05 && (done.intercept + 0.8).abs() < 0.05, "{done:?}");
        assert!(done.before.brier - done.after.brier > 0.02, "{:?} {:?}", done.before, done.after);
        assert!(done.after.ece < 0.02 && done.before.ece > 0.1, "{:?} {:?}", done.before, done.after);
        assert!(done.judged_from >= 80 * DAY_MS && done.judged_on >= 5_900);
        // The file proves itself, and says what it was made from.
        let names: Vec<String> = model.features().into_iter().map(str::to_owned).collect();
        let scorers = [&model, &done.model].map(|model| Scorer::new(model, &NamesOnly(&names)).unwrap());
        assert_eq!(Model::from_json(&done.model.to_json().unwrap(), "new").unwrap(), done.model);
        assert_eq!(done.model.recalibrated.as_ref().unwrap().from, model.version);
        assert!(done.model.created >= 119 * DAY_MS);
        for x in [0.0, 0.5, 1.0, 3.0] {
            let features = vec![x; names.len()];
            let [old, new] = [0, 1].map(|i| scorers[i].logit(&features));
            assert!((new - (done.slope * old + done.intercept)).abs() < 1e-9, "{old} {new}");
        }
    }

    #[test]
    fn recalibrating_twice_starts_from_where_the_first_ended() {
        let first = recalibrate(&model(), outcomes(20_000, 120, 0.6, -0.8)).unwrap();
        let again = recalibrate(&first.model, outcomes(20_000, 120, 1.5, 0.5)).unwrap();
        let [a, b] = [&first.model, &again.model].map(|m| m.calibration.unwrap());
        assert!((b.slope - again.slope * a.slope).abs() < 1e-12);
        assert!((b.intercept - (again.slope * a.intercept + again.intercept)).abs() < 1e-12);
    }

    #[test]
    fn what_gains_nothing_or_cannot_be_told_is_refused_with_the_reason() {
        let refused = |outcomes: Vec<Known>, says: &str| {
            let error = recalibrate(&model(), outcomes).unwrap_err();
            assert!(error.what.contains(says) && error.exit_code() == 2, "{error}");
        };
        refused(Vec::new(), "0 outcomes of churn");
        refused(outcomes(499, 120, 0.5, 0.0), "499 outcomes of churn");
        refused(outcomes(5_000, 20, 0.5, 0.0), "outcomes known before");
        refused(outcomes(20_000, 120, 1.0, 0.0), "gains nothing");
        refused(outcomes(20_000, 120, -0.8, 0.0), "do not rise with churn");
        let mut all_stay = outcomes(5_000, 120, 0.5, 0.0);
        all_stay.iter_mut().for_each(|known| known.churned = false);
        refused(all_stay, "(0 churned) are too few");
    }
}
