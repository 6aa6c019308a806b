//! Maximum likelihood for a handful of positive parameters inside bounds: argmin's Nelder–Mead over their
//! logarithms, begun anew from where it ended until that gains nothing.

use argmin::core::{CostFunction, Executor, State};
use argmin::solver::neldermead::NelderMead;
use ndarray::Array1;

/// Beginnings, each from the best point so far with a fresh simplex.
const ROUNDS_MOST: usize = 8;
const ITERATIONS_MOST: u64 = 600;
/// A round that gains less per example was the last.
const GAIN_LEAST: f64 = 1e-8;
/// The first simplex's edge: a factor of e^0.5 in every parameter.
const EDGE: f64 = 0.5;
/// How hard a point beyond a bound is pushed back, per unit of logarithm squared.
const PUSH: f64 = 1e3;

/// A parameter's range and where to begin.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub least: f64,
    pub most: f64,
    pub start: f64,
}

impl Range {
    pub const fn new(least: f64, most: f64, start: f64) -> Range {
        Range { least, most, start }
    }

    /// Whether a value lies at an end of the range, within a hundredth of its logarithm.
    pub fn is_at_edge(&self, value: f64) -> bool {
        value < self.least * 1.01 || value > self.most / 1.01
    }
}

/// The parameters with the least cost, and the cost.
pub fn minimise<const N: usize>(
    ranges: &[Range; N],
    cost: &dyn Fn(&[f64; N]) -> f64,
) -> Option<([f64; N], f64)> {
    let problem = Problem { ranges, cost };
    let mut best = Array1::from_iter(ranges.iter().map(|range| libm::log(range.start)));
    let mut least = problem.cost_at(&best);
    for round in 0..ROUNDS_MOST {
        // Alternate sides, so that a fresh simplex is not the one that has just collapsed.
        let edge = if round % 2 == 0 { EDGE } else { -EDGE / 3.0 };
        let corner = |n: usize| {
            let mut corner = best.clone();
            corner[n] += edge;
            corner
        };
        let simplex: Vec<_> = std::iter::once(best.clone()).chain((0..N).map(corner)).collect();
        let solver = NelderMead::new(simplex).with_sd_tolerance(1e-10).ok()?;
        let problem = Problem { ranges, cost };
        let done = Executor::new(problem, solver).configure(|s| s.max_iters(ITERATIONS_MOST)).run().ok()?;
        let found = done.state().get_best_cost();
        best = done.state().get_best_param()?.clone();
        let gain = least - found;
        least = found.min(least);
        if gain.is_nan() || gain < GAIN_LEAST {
            break;
        }
    }
    let values = problem.inside(&best);
    least.is_finite().then_some((values, least))
}

struct Problem<'p, const N: usize> {
    ranges: &'p [Range; N],
    cost: &'p dyn Fn(&[f64; N]) -> f64,
}

impl<const N: usize> Problem<'_, N> {
    /// The nearest point inside the bounds.
    fn inside(&self, logs: &Array1<f64>) -> [f64; N] {
        std::array::from_fn(|n| libm::exp(logs[n]).clamp(self.ranges[n].least, self.ranges[n].most))
    }

    fn cost_at(&self, logs: &Array1<f64>) -> f64 {
        let inside = self.inside(logs);
        let beyond: f64 = inside.iter().zip(logs).map(|(value, log)| (libm::log(*value) - log).powi(2)).sum();
        let cost = (self.cost)(&inside) + PUSH * beyond;
        if cost.is_nan() { f64::INFINITY } else { cost }
    }
}

impl<const N: usize> CostFunction for Problem<'_, N> {
    type Param = Array1<f64>;
    type Output = f64;

    fn cost(&self, logs: &Array1<f64>) -> Result<f64, argmin::core::Error> {
        Ok(self.cost_at(logs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_minimum_inside_and_stops_at_a_bound() {
        let ranges = [Range::new(0.01, 100.0, 1.0), Range::new(0.01, 100.0, 1.0), Range::new(0.5, 2.0, 1.0)];
        let cost = |p: &[f64; 3]| {
            let [x, y, z] = p.map(f64::ln);
            100.0 * (y - x * x).powi(2) + (1.3 - x).powi(2) + (z - 5.0).powi(2)
        };
        let ([x, y, z], least) = minimise(&ranges, &cost).unwrap();
        assert!((x.ln() - 1.3).abs() < 1e-4 && (y.ln() - 1.69).abs() < 1e-3, "{x} {y} {least}");
        assert!((z - 2.0).abs() < 1e-6 && ranges[2].is_at_edge(z) && !ranges[0].is_at_edge(x));
    }

    #[test]
    fn a_cost_that_is_nowhere_a_number_gives_nothing() {
        assert!(minimise(&[Range::new(0.1, 10.0, 1.0)], &|_| f64::NAN).is_none());
    }
}
