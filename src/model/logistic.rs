//! The one place that calls linfa: standardised columns in, weights that mean churn out. Every model that is kept
//! is fitted here.
//!
//! linfa-logistic 0.8.1 models the *larger* class (or, at a tie, the one whose row comes first) and reports no
//! convergence. Both are settled here: the weights are turned by `labels().pos`, and the gradient is checked.

use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2, Axis, array, concatenate, s};

use super::artifact::Calibration;
use super::isotonic::Isotonic;
use super::metrics::log_loss;

/// The gradient of the mean loss must be this flat, or the fit has not converged.
pub(super) const GRADIENT_MOST: f64 = 1e-4;
const GRADIENT_AIM: f64 = 1e-6;
const ITERATIONS_MOST: u64 = 1_000;
/// Calibration has to earn its place: nats per example, on customers it was not fitted on.
pub(super) const CALIBRATION_GAIN_LEAST: f64 = 1e-4;

/// A fitted model over standardised columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    pub intercept: f64,
    pub weights: Array1<f64>,
}

impl Weights {
    /// Of the first so many columns alone.
    pub(super) fn first(mut self, columns: usize) -> Weights {
        self.weights = self.weights.slice(s![..columns]).to_owned();
        self
    }

    /// Of one or more fits to the same columns: its logits are the means of theirs.
    pub(super) fn mean(fits: &[Weights]) -> Weights {
        let n = fits.len() as f64;
        let intercept = fits.iter().map(|fit| fit.intercept).sum::<f64>() / n;
        let mut weights = Array1::zeros(fits[0].weights.len());
        fits.iter().for_each(|fit| weights += &fit.weights);
        Weights { intercept, weights: weights / n }
    }

    pub fn logits(&self, x: &Array2<f64>) -> Array1<f64> {
        x.dot(&self.weights) + self.intercept
    }

    /// The loss of every row, in nats.
    pub fn losses(&self, x: &Array2<f64>, churned: &[bool]) -> Array1<f64> {
        self.logits(x).iter().zip(churned).map(|(z, c)| softplus(if *c { -*z } else { *z })).collect()
    }
}

pub fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-z))
}

/// ln(1 + eᶻ): the loss of a stayer with the logit z, or of a churner with −z.
pub fn softplus(z: f64) -> f64 {
    z.max(0.0) + libm::log1p(libm::exp(-z.abs()))
}

/// Fits with an L2 penalty of `alpha` / 2 × |weights|² on the summed loss. Says why not in a sentence. Columns that lie
/// together are read once for each gradient; where rows do, it fetches the whole table for every column.
pub fn fit(x: &Array2<f64>, churned: &[bool], alpha: f64) -> Result<Weights, String> {
    fit_from(x, churned, alpha, None)
}

/// The same, begun at a guess: weights of nearly the same columns save most of the iterations.
pub fn fit_from(
    x: &Array2<f64>,
    churned: &[bool],
    alpha: f64,
    guess: Option<&Weights>,
) -> Result<Weights, String> {
    let rate = churned.iter().filter(|c| **c).count() as f64 / churned.len() as f64;
    if rate <= 0.0 || rate >= 1.0 {
        return Err("the examples are all of one class".into());
    }
    // Tight first; a line search that stalls at the limits of arithmetic is retried with a wider aim.
    let mut last = String::new();
    for aim in [GRADIENT_AIM, GRADIENT_AIM * 10.0, GRADIENT_MOST] {
        match solve(x, churned, alpha, aim, rate, guess) {
            Ok(weights) => {
                let slope = steepness(x, churned, alpha, &weights);
                if slope <= GRADIENT_MOST {
                    return Ok(weights);
                }
                last = format!("the gradient is still {slope:.1e} after {ITERATIONS_MOST} iterations");
            }
            Err(error) => last = error,
        }
    }
    Err(format!("the logistic regression did not converge: {last}"))
}

fn solve(
    x: &Array2<f64>,
    churned: &[bool],
    alpha: f64,
    aim: f64,
    rate: f64,
    guess: Option<&Weights>,
) -> Result<Weights, String> {
    // linfa's side is known only afterwards; at the start it is the larger class, or the first row's at a tie.
    let positive_is_churn = if rate == 0.5 { churned[0] } else { rate > 0.5 };
    let side = if positive_is_churn { 1.0 } else { -1.0 };
    let start = match guess {
        Some(guess) => concatenate![Axis(0), &guess.weights * side, array![guess.intercept * side]],
        None => {
            concatenate![Axis(0), Array1::zeros(x.ncols()), array![side * libm::log(rate / (1.0 - rate))]]
        }
    };
    let targets = Array1::from(churned.to_vec());
    let dataset = linfa::DatasetBase::new(x.view(), targets);
    let fitted = LogisticRegression::default()
        .alpha(alpha)
        .max_iterations(ITERATIONS_MOST)
        .gradient_tolerance(aim * churned.len() as f64)
        .initial_params(start)
        .fit(&dataset)
        .map_err(|e| e.to_string())?;
    let turn = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    Ok(Weights { intercept: turn * fitted.intercept(), weights: fitted.params() * turn })
}

/// The largest component of the gradient of the mean loss.
fn steepness(x: &Array2<f64>, churned: &[bool], alpha: f64, fitted: &Weights) -> f64 {
    let n = churned.len() as f64;
    let misses: Array1<f64> =
        fitted.logits(x).iter().zip(churned).map(|(z, c)| sigmoid(*z) - f64::from(*c)).collect();
    let gradient = x.t().dot(&misses) + &fitted.weights * alpha;
    gradient.iter().fold(misses.sum().abs(), |most, g| most.max(g.abs())) / n
}

/// How logits are set right.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    Platt(Calibration),
    Isotonic(Isotonic),
}

impl Way {
    fn apply(&self, z: f64) -> f64 {
        match self {
            Way::Platt(c) => c.slope * z + c.intercept,
            Way::Isotonic(curve) => curve.apply(z),
        }
    }
}

/// Platt scaling, or isotonic where that is better still, if it helps on rows other than those it is fitted on. `halves`
/// split the rows in several ways, of which all count.
pub fn calibration_that_helps(logits: &[f64], churned: &[bool], halves: &[Vec<bool>]) -> Option<Way> {
    type Fit = fn(&[f64], &[bool]) -> Option<Way>;
    let ways: [Fit; 2] = [
        |logits, churned| platt(logits, churned).map(Way::Platt),
        |logits, churned| Isotonic::fit(logits, churned).map(Way::Isotonic),
    ];
    let across = |fit: Fit| -> Option<Vec<f64>> {
        let losses = halves.iter().map(|half| losses_across(logits, churned, half, fit));
        losses.collect::<Option<Vec<_>>>().map(|losses| losses.concat())
    };
    let mut best: Option<Fit> = None;
    let mut to_beat = across(|_, _| Some(Way::Platt(Calibration::NONE)))?;
    for fit in ways {
        let Some(losses) = across(fit) else { continue };
        if losses.iter().zip(&to_beat).all(|(loss, to_beat)| to_beat - loss >= CALIBRATION_GAIN_LEAST) {
            best = Some(fit);
            to_beat = losses;
        }
    }
    best.and_then(|fit| fit(logits, churned))
}

/// The loss on each half of the customers of what was fitted to the other.
fn losses_across(
    logits: &[f64],
    churned: &[bool],
    half: &[bool],
    fit: impl Fn(&[f64], &[bool]) -> Option<Way>,
) -> Option<[f64; 2]> {
    let pick = |wanted: bool| -> (Vec<f64>, Vec<bool>) {
        let rows = (0..logits.len()).filter(|i| half[*i] == wanted);
        rows.map(|i| (logits[i], churned[i])).unzip()
    };
    let loss = |side: bool| {
        let ((fit_z, fit_c), (test_z, test_c)) = (pick(side), pick(!side));
        let way = fit(&fit_z, &fit_c)?;
        let p: Vec<f64> = test_z.iter().map(|z| sigmoid(way.apply(*z))).collect();
        Some(log_loss(&p, &test_c))
    };
    Some([loss(false)?, loss(true)?])
}

/// Newton's method for slope and intercept; `None` where it leads nowhere usable. It starts from the flat
/// model, where the curvature is largest: from a steep one it can overshoot.
pub(super) fn platt(logits: &[f64], churned: &[bool]) -> Option<Calibration> {
    let rate = churned.iter().filter(|c| **c).count() as f64 / churned.len() as f64;
    let (mut slope, mut shift) = (0.0, libm::log(rate / (1.0 - rate)));
    for _ in 0..50 {
        let (mut g, mut h) = ([0.0; 2], [[1e-9, 0.0], [0.0, 1e-9]]);
        for (z, c) in logits.iter().zip(churned) {
            let p = sigmoid(slope * z + shift);
            let (miss, w) = (p - f64::from(*c), p * (1.0 - p));
            g[0] += miss * z;
            g[1] += miss;
            h[0][0] += w * z * z;
            h[0][1] += w * z;
            h[1][1] += w;
        }
        let det = h[0][0] * h[1][1] - h[0][1] * h[0][1];
        let step = [(h[1][1] * g[0] - h[0][1] * g[1]) / det, (h[0][0] * g[1] - h[0][1] * g[0]) / det];
        slope -= step[0];
        shift -= step[1];
        if !(slope.is_finite() && shift.is_finite()) {
            return None;
        }
        if step[0].abs() + step[1].abs() < 1e-10 {
            break;
        }
    }
    (slope > 0.05 && slope < 20.0 && shift.abs() < 10.0).then_some(Calibration { slope, intercept: shift })
}

/// The intercept at which, with this slope, the mean probability is the share that churned: Newton's steps, halves of
/// what is left where those lead out of it.
pub fn intercept_for_rate(logits: &[f64], slope: f64, rate: f64) -> f64 {
    const CLOSE_ENOUGH: f64 = 1e-12;
    let n = logits.len() as f64;
    let (mut low, mut high, mut shift) = (-20.0, 20.0, 0.0);
    for _ in 0..80 {
        let (mut p_sum, mut rise) = (0.0, 0.0);
        for z in logits {
            let p = sigmoid(slope * z + shift);
            p_sum += p;
            rise += p * (1.0 - p);
        }
        *(if p_sum / n < rate { &mut low } else { &mut high }) = shift;
        let step = (rate * n - p_sum) / rise;
        if step.abs() < CLOSE_ENOUGH {
            break;
        }
        let inside = (low..high).contains(&(shift + step));
        shift = if inside { shift + step } else { (low + high) / 2.0 };
    }
    shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_pcg::Pcg64;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    /// Rows of two columns where the first raises churn, with this share of churners, in a seeded order.
    fn rows(n: usize, share: f64, seed: u64) -> (Array2<f64>, Vec<bool>) {
        let mut rng = Pcg64::seed_from_u64(seed);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut order: Vec<(f64, usize)> = (0..n).map(|i| (uniform(), i)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let churned: Vec<bool> = order.iter().map(|(_, i)| (*i as f64) < share * n as f64).collect();
        let x = Array2::from_shape_fn((n, 2), |(i, j)| {
            let signal = if j == 0 && churned[i] { 1.0 } else { 0.0 };
            signal + 2.0 * uniform() - 1.0
        });
        (x, churned)
    }

    #[test]
    fn a_churner_scores_above_a_stayer_whatever_the_balance_and_the_order_of_rows() {
        for share in [0.05, 0.2, 0.5, 0.8, 0.95] {
            for seed in 0..6 {
                let (x, churned) = rows(200, share, seed);
                let fitted = fit(&x, &churned, 1.0).unwrap();
                assert!(fitted.weights[0] > 0.3, "share {share}, seed {seed}: {fitted:?}");
                let p: Vec<f64> = fitted.logits(&x).iter().map(|z| sigmoid(*z)).collect();
                let mean = p.iter().sum::<f64>() / 200.0;
                assert!((mean - share).abs() < 0.01, "share {share}: mean p {mean}");
            }
        }
    }

    #[test]
    fn our_dot_product_is_linfas_probability() {
        for share in [0.3, 0.5, 0.7] {
            let (x, churned) = rows(120, share, 3);
            let fitted = fit(&x, &churned, 0.5).unwrap();
            let dataset = linfa::DatasetBase::new(x.view(), Array1::from(churned.clone()));
            let odds = libm::log(share / (1.0 - share));
            let positive = if share == 0.5 { churned[0] } else { share > 0.5 };
            let start = array![0.0, 0.0, if positive { odds } else { -odds }];
            let linfa = LogisticRegression::default()
                .alpha(0.5)
                .max_iterations(1_000)
                .gradient_tolerance(1e-6 * 120.0)
                .initial_params(start)
                .fit(&dataset)
                .unwrap();
            let theirs = linfa.predict_probabilities(&x);
            for (z, p) in fitted.logits(&x).iter().zip(theirs) {
                let p = if linfa.labels().pos.class { p } else { 1.0 - p };
                assert!((sigmoid(*z) - p).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn one_class_is_refused() {
        let (x, _) = rows(50, 0.5, 1);
        assert!(fit(&x, &[true; 50], 1.0).unwrap_err().contains("one class"));
    }

    #[test]
    fn calibration_is_taken_only_where_it_helps() {
        let mut rng = Pcg64::seed_from_u64(5);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let truth: Vec<f64> = (0..4_000).map(|_| 4.0 * uniform() - 2.0).collect();
        let churned: Vec<bool> = truth.iter().map(|z| uniform() < sigmoid(*z)).collect();
        let halves = [(0..4_000).map(|i| i % 2 == 0).collect()];
        assert_eq!(calibration_that_helps(&truth, &churned, &halves), None, "calibrated already");
        let overconfident: Vec<f64> = truth.iter().map(|z| 3.0 * z + 1.0).collect();
        let Some(Way::Platt(found)) = calibration_that_helps(&overconfident, &churned, &halves) else {
            panic!("a line is enough")
        };
        assert!((found.slope - 1.0 / 3.0).abs() < 0.05, "{found:?}");
        assert!((found.intercept + 1.0 / 3.0).abs() < 0.15, "{found:?}");
    }

    #[test]
    fn a_curve_is_taken_where_a_line_is_not_enough() {
        let mut rng = Pcg64::seed_from_u64(6);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let logits: Vec<f64> = (0..20_000).map(|_| 6.0 * uniform() - 3.0).collect();
        let bent = |z: f64| if z < 0.0 { 0.2 * z } else { 2.0 * z };
        let churned: Vec<bool> = logits.iter().map(|z| uniform() < sigmoid(bent(*z))).collect();
        let halves = [(0..20_000).map(|i| i % 2 == 0).collect()];
        let way = calibration_that_helps(&logits, &churned, &halves).unwrap();
        assert!(matches!(way, Way::Isotonic(_)), "{way:?}");
        assert!((way.apply(-2.0) - bent(-2.0)).abs() < 0.3 && (way.apply(2.0) - bent(2.0)).abs() < 0.6);
    }

    #[test]
    fn what_helped_for_a_while_only_is_not_taken() {
        let mut rng = Pcg64::seed_from_u64(7);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let logits: Vec<f64> = (0..8_000).map(|_| 8.0 * uniform() - 4.0).collect();
        // Too bold by far in the first half, and right in the second.
        let truth = |i: usize, z: f64| if i < 4_000 { z / 3.0 } else { z };
        let churned: Vec<bool> =
            logits.iter().enumerate().map(|(i, z)| uniform() < sigmoid(truth(i, *z))).collect();
        let customers: Vec<bool> = (0..8_000).map(|i| i % 2 == 0).collect();
        let newer: Vec<bool> = (0..8_000).map(|i| i >= 4_000).collect();
        assert!(calibration_that_helps(&logits, &churned, std::slice::from_ref(&customers)).is_some());
        assert_eq!(calibration_that_helps(&logits, &churned, &[customers, newer]), None);
    }

    #[test]
    fn the_intercept_brings_the_mean_to_the_rate() {
        let logits = [-2.0, 0.0, 1.0, 4.0];
        let shift = intercept_for_rate(&logits, 0.7, 0.25);
        let mean = logits.iter().map(|z| sigmoid(0.7 * z + shift)).sum::<f64>() / 4.0;
        assert!((mean - 0.25).abs() < 1e-9);
    }
}
