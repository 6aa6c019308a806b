//! Newton's method for the penalised logistic loss, and what it leaves behind: the curvature at the minimum.
//!
//! Choosing tries hundreds of sets of terms. Around its minimum the loss is nearly a quadratic form, whose
//! inverse says in closed form what the other weights become when a term leaves; a fit is needed only now and
//! then. The model that is kept is fitted by [`super::logistic`].

use ndarray::{Array1, Array2, ArrayView1, Axis, s};

use super::logistic::{GRADIENT_MOST, Weights, sigmoid, softplus};

const ITERATIONS_MOST: usize = 60;
const HALVINGS_MOST: usize = 30;
/// The last step is made from a gradient of the mean loss below this: Newton's steps square the error.
const GRADIENT_AT_THE_LAST: f64 = 1e-3;
/// A pivot below this share of its column's curvature is a column that others already say.
const PIVOT_LEAST: f64 = 1e-13;

/// Weights at the minimum, and the inverse of the curvature there: both with the intercept in the last place.
#[derive(Clone, Debug)]
pub(super) struct Minimum {
    weights: Array1<f64>,
    inverse: Array2<f64>,
}

impl Minimum {
    /// Minimises the summed loss + `alpha` / 2 × |weights|² over these columns, beginning at a guess.
    pub(super) fn find(
        x: &Array2<f64>,
        churned: &[bool],
        alpha: f64,
        guess: Option<&Weights>,
    ) -> Result<Minimum, String> {
        let problem = Problem::new(x, churned, alpha)?;
        let mut weights = problem.start(guess);
        let mut loss = problem.loss(&weights);
        for _ in 0..ITERATIONS_MOST {
            let (gradient, curvature) = problem.slope_and_curvature(&weights);
            let inverse = inverse(curvature)?;
            let steepest = gradient.iter().fold(0.0f64, |most, g| most.max(g.abs())) / problem.rows();
            let step = inverse.dot(&gradient);
            match problem.descend(&weights, &step, loss) {
                Some((further, less)) => (weights, loss) = (further, less),
                None if steepest <= GRADIENT_MOST => return Ok(Minimum { weights, inverse }),
                None => return Err(format!("no step goes down from a gradient of {steepest:.1e}")),
            }
            if steepest <= GRADIENT_AT_THE_LAST {
                return Ok(Minimum { weights, inverse });
            }
        }
        Err(format!("{ITERATIONS_MOST} steps of Newton's method did not suffice"))
    }

    pub(super) fn weights(&self) -> Weights {
        let last = self.weights.len() - 1;
        Weights { intercept: self.weights[last], weights: self.weights.slice(s![..last]).to_owned() }
    }

    /// What the minimum becomes when the terms at these places leave, as far as the loss is a quadratic form.
    pub(super) fn without(mut self, places: &[usize]) -> Minimum {
        for place in places {
            let column = self.inverse.column(*place).to_owned();
            let pivot = column[*place];
            self.weights.scaled_add(-self.weights[*place] / pivot, &column);
            subtract_outer(&mut self.inverse, column.view(), 1.0 / pivot);
        }
        let kept: Vec<usize> = (0..self.weights.len()).filter(|i| !places.contains(i)).collect();
        Minimum {
            weights: self.weights.select(Axis(0), &kept),
            inverse: self.inverse.select(Axis(0), &kept).select(Axis(1), &kept),
        }
    }
}

/// What further columns would gain, from the slope and the curvature at a minimum without them (Rao 1948).
pub(super) struct Score<'a> {
    minimum: &'a Minimum,
    x: &'a Array2<f64>,
    /// Of every row: how far the outcome is above what was foretold, and how much that could have been otherwise.
    misses: Array1<f64>,
    spread: Array1<f64>,
    alpha: f64,
}

impl<'a> Score<'a> {
    /// The minimum must be one over these rows.
    pub(super) fn at(minimum: &'a Minimum, x: &'a Array2<f64>, churned: &[bool], alpha: f64) -> Score<'a> {
        let p = minimum.weights().logits(x).mapv_into(sigmoid);
        let misses = p.iter().zip(churned).map(|(p, c)| f64::from(*c) - p).collect();
        Score { minimum, x, misses, spread: p.mapv_into(|p| p * (1.0 - p)), alpha }
    }

    /// By how many nats, over all rows, the loss would fall if these columns joined; `None` where they say nothing new.
    pub(super) fn gain(&self, columns: &Array2<f64>) -> Option<f64> {
        let k = self.x.ncols();
        let slope = columns.t().dot(&self.misses);
        let weighted = columns * &self.spread.view().insert_axis(Axis(1));
        let mut with_others = Array2::zeros((k + 1, columns.ncols()));
        with_others.slice_mut(s![..k, ..]).assign(&self.x.t().dot(&weighted));
        with_others.row_mut(k).assign(&weighted.sum_axis(Axis(0)));
        let told = with_others.t().dot(&self.minimum.inverse.dot(&with_others));
        let own = columns.t().dot(&weighted) + Array2::<f64>::eye(columns.ncols()) * self.alpha;
        let inverse = inverse(own - told).ok()?;
        Some(slope.dot(&inverse.dot(&slope)) / 2.0)
    }
}

/// a −= column columnᵀ × factor
fn subtract_outer(a: &mut Array2<f64>, column: ArrayView1<f64>, factor: f64) {
    for (mut row, c) in a.rows_mut().into_iter().zip(column) {
        row.scaled_add(-c * factor, &column);
    }
}

struct Problem<'a> {
    x: &'a Array2<f64>,
    churned: &'a [bool],
    alpha: f64,
    rate: f64,
}

impl<'a> Problem<'a> {
    fn new(x: &'a Array2<f64>, churned: &'a [bool], alpha: f64) -> Result<Self, String> {
        let rate = churned.iter().filter(|c| **c).count() as f64 / churned.len() as f64;
        if !(rate > 0.0 && rate < 1.0) {
            return Err("the examples are all of one class".into());
        }
        Ok(Problem { x, churned, alpha, rate })
    }

    fn rows(&self) -> f64 {
        self.churned.len() as f64
    }

    fn start(&self, guess: Option<&Weights>) -> Array1<f64> {
        let mut start = Array1::zeros(self.x.ncols() + 1);
        match guess {
            Some(guess) => {
                start.slice_mut(s![..self.x.ncols()]).assign(&guess.weights);
                start[self.x.ncols()] = guess.intercept;
            }
            None => start[self.x.ncols()] = libm::log(self.rate / (1.0 - self.rate)),
        }
        start
    }

    fn logits(&self, weights: &Array1<f64>) -> Array1<f64> {
        self.x.dot(&weights.slice(s![..self.x.ncols()])) + weights[self.x.ncols()]
    }

    fn loss(&self, weights: &Array1<f64>) -> f64 {
        let slopes = weights.slice(s![..self.x.ncols()]);
        let of = |(z, churned): (&f64, &bool)| softplus(if *churned { -*z } else { *z });
        let loss: f64 = self.logits(weights).iter().zip(self.churned).map(of).sum();
        loss + self.alpha / 2.0 * slopes.dot(&slopes)
    }

    fn slope_and_curvature(&self, weights: &Array1<f64>) -> (Array1<f64>, Array2<f64>) {
        let k = self.x.ncols();
        let p = self.logits(weights).mapv_into(sigmoid);
        let misses: Array1<f64> = p.iter().zip(self.churned).map(|(p, c)| p - f64::from(*c)).collect();
        let spread = p.mapv_into(|p| p * (1.0 - p));
        let slopes = weights.slice(s![..k]);
        let mut gradient = Array1::zeros(k + 1);
        gradient.slice_mut(s![..k]).assign(&(self.x.t().dot(&misses) + &slopes * self.alpha));
        gradient[k] = misses.sum();
        let mut curvature = Array2::zeros((k + 1, k + 1));
        let weighted = self.x * &spread.view().insert_axis(Axis(1));
        curvature.slice_mut(s![..k, ..k]).assign(&self.x.t().dot(&weighted));
        curvature.slice_mut(s![..k, k]).assign(&self.x.t().dot(&spread));
        for i in 0..k {
            curvature[[i, i]] += self.alpha;
            curvature[[k, i]] = curvature[[i, k]];
        }
        curvature[[k, k]] = spread.sum();
        (gradient, curvature)
    }

    /// The full step, or the first half of a half of it, that does not go up. `None`: nothing more to gain.
    fn descend(&self, from: &Array1<f64>, step: &Array1<f64>, loss: f64) -> Option<(Array1<f64>, f64)> {
        let mut share = 1.0;
        for _ in 0..HALVINGS_MOST {
            let there = from - &(step * share);
            let less = self.loss(&there);
            if less <= loss {
                return Some((there, less));
            }
            share /= 2.0;
        }
        None
    }
}

/// Of a symmetric matrix with a positive curvature in every direction, by sweeping one column after another.
fn inverse(mut a: Array2<f64>) -> Result<Array2<f64>, String> {
    for k in 0..a.nrows() {
        let pivot = a[[k, k]];
        if !(pivot.is_finite() && pivot > PIVOT_LEAST) {
            return Err("the terms say the same thing".into());
        }
        let column = a.column(k).to_owned();
        subtract_outer(&mut a, column.view(), 1.0 / pivot);
        a.column_mut(k).assign(&(&column / pivot));
        a.row_mut(k).assign(&(&column / pivot));
        a[[k, k]] = -1.0 / pivot;
    }
    Ok(-a)
}

#[cfg(test)]
mod tests {
    use super::super::logistic;
    use super::*;
    use rand_pcg::Pcg64;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    /// Five columns, the last two nearly alike; the first and the third raise churn.
    fn rows(n: usize, level: f64) -> (Array2<f64>, Vec<bool>) {
        let mut rng = Pcg64::seed_from_u64(7);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut x = Array2::from_shape_fn((n, 5), |_| 3.4 * uniform() - 1.7);
        let churned = x.rows().into_iter().map(|row| uniform() < sigmoid(level + row[0] + 0.6 * row[2]));
        let churned = churned.collect();
        for mut row in x.rows_mut() {
            row[4] = 0.95 * row[3] + 0.05 * row[4] + 0.3 * row[2];
        }
        (x, churned)
    }

    #[test]
    fn it_finds_the_minimum_that_linfa_finds() {
        for level in [-3.0, 0.0, 2.0] {
            for alpha in [0.1, 10.0] {
                let (x, churned) = rows(800, level);
                let ours = Minimum::find(&x, &churned, alpha, None).unwrap().weights();
                let theirs = logistic::fit(&x, &churned, alpha).unwrap();
                assert!((ours.intercept - theirs.intercept).abs() < 1e-3, "{ours:?} {theirs:?}");
                assert!(ours.weights.abs_diff_eq(&theirs.weights, 1e-3), "{ours:?} {theirs:?}");
            }
        }
    }

    #[test]
    fn what_is_foretold_of_a_set_without_a_term_is_nearly_its_fit() {
        let (x, churned) = rows(4_000, -0.5);
        let all = Minimum::find(&x, &churned, 1.0, None).unwrap();
        let foretold = all.without(&[1, 3]).weights();
        let kept = x.select(Axis(1), &[0, 2, 4]);
        let fitted = Minimum::find(&kept, &churned, 1.0, None).unwrap().weights();
        assert!((foretold.intercept - fitted.intercept).abs() < 1e-3, "{foretold:?} {fitted:?}");
        assert!(foretold.weights.abs_diff_eq(&fitted.weights, 5e-3), "{foretold:?} {fitted:?}");
    }

    #[test]
    fn what_a_column_would_gain_is_nearly_what_it_gains() {
        let (x, churned) = rows(4_000, -0.5);
        let part = x.select(Axis(1), &[0, 1, 3]);
        let minimum = Minimum::find(&part, &churned, 1.0, None).unwrap();
        let score = Score::at(&minimum, &part, &churned, 1.0);
        let lost = |weights: Weights, x: &Array2<f64>| {
            weights.losses(x, &churned).sum() + weights.weights.dot(&weights.weights) / 2.0
        };
        let before = lost(minimum.weights(), &part);
        for (more, least) in [(vec![2], 100.0), (vec![2, 4], 100.0), (vec![4], 1.0)] {
            let foretold = score.gain(&x.select(Axis(1), &more)).unwrap();
            let all = x.select(Axis(1), &[vec![0, 1, 3], more].concat());
            let gained = before - lost(Minimum::find(&all, &churned, 1.0, None).unwrap().weights(), &all);
            assert!(gained > least && (foretold / gained - 1.0).abs() < 0.1, "{foretold} {gained}");
        }
    }

    #[test]
    fn churners_who_are_easily_told_apart_do_not_send_the_weights_away() {
        let x = Array2::from_shape_fn((60, 1), |(i, _)| if i < 30 { -40.0 } else { 40.0 });
        let churned: Vec<bool> = (0..60).map(|i| i >= 30).collect();
        let found = Minimum::find(&x, &churned, 0.01, None).unwrap().weights();
        assert!(found.weights[0] > 0.05 && found.weights[0] < 5.0, "{found:?}");
        assert!(Minimum::find(&x, &[true; 60], 1.0, None).is_err(), "one class");
    }

    #[test]
    fn an_inverse_undoes_its_matrix() {
        let (x, _) = rows(50, 0.0);
        let a = x.t().dot(&x) + Array2::<f64>::eye(5);
        let identity = inverse(a.clone()).unwrap().dot(&a);
        assert!(identity.abs_diff_eq(&Array2::eye(5), 1e-9), "{identity}");
        assert!(inverse(Array2::zeros((2, 2))).is_err());
    }
}
