//! Isotonic calibration: the rising curve from a model's log odds to those of what happened.
//!
//! Owns the curve, its fit and its reading. Whether it is better than a line, or than nothing, is decided in
//! [`super::logistic`], on customers it was not fitted to.

use serde::{Deserialize, Serialize};

use super::artifact::LOGIT_MOST;

/// The rows are cut into so many parts of one size, of which neighbours are pooled until the curve rises.
const PARTS_MOST: usize = 40;
/// A part of fewer rows says too little.
const ROWS_LEAST: usize = 200;
/// A curve of fewer knots is a line.
const KNOTS_LEAST: usize = 3;

/// Straight between its knots; beyond them it goes on with the slope 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isotonic {
    /// Log odds as the weights give them, ascending.
    pub from: Vec<f64>,
    /// Log odds as they were, ascending.
    pub to: Vec<f64>,
}

impl Isotonic {
    pub fn apply(&self, z: f64) -> f64 {
        line(&self.from, &self.to, z)
    }

    /// The log odds that become `z`.
    pub fn invert(&self, z: f64) -> f64 {
        line(&self.to, &self.from, z)
    }

    /// The curve for log odds that lie `by` higher than those it was fitted to.
    pub(super) fn moved(mut self, by: f64) -> Isotonic {
        self.from.iter_mut().for_each(|z| *z += by);
        self
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let (from, to) = (&self.from, &self.to);
        if from.len() != to.len() || !(2..=PARTS_MOST).contains(&from.len()) {
            return Err(format!("`isotonic` has 2 to {PARTS_MOST} knots, each with `from` and `to`"));
        }
        let rises = |values: &[f64]| values.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = |values: &[f64]| values.iter().all(|z| z.abs() <= LOGIT_MOST);
        if !(rises(from) && rises(to) && inside(from) && inside(to)) {
            return Err(format!("the knots of `isotonic` must rise, within ±{LOGIT_MOST}"));
        }
        Ok(())
    }

    /// The rising curve that is closest to what happened; `None` where there is too little to tell it from a line.
    pub(super) fn fit(logits: &[f64], churned: &[bool]) -> Option<Isotonic> {
        let mut knots: Vec<Part> = Vec::new();
        for part in parts(logits, churned) {
            let mut part = part;
            while let Some(before) = knots.pop_if(|before| before.odds() >= part.odds()) {
                part = part.with(before);
            }
            knots.push(part);
        }
        let (from, to): (Vec<f64>, Vec<f64>) = knots.iter().map(|part| (part.mean(), part.odds())).unzip();
        let found = Isotonic { from, to };
        (found.from.len() >= KNOTS_LEAST && found.check().is_ok()).then_some(found)
    }
}

/// Through the knots, with the slope 1 beyond them.
fn line(from: &[f64], to: &[f64], z: f64) -> f64 {
    let at = from.partition_point(|knot| *knot < z);
    match (at.checked_sub(1), from.get(at)) {
        (None, Some(first)) => to[0] + (z - first),
        (Some(last), None) => to[last] + (z - from[last]),
        (Some(low), Some(high)) => to[low] + (z - from[low]) / (high - from[low]) * (to[at] - to[low]),
        (None, None) => z,
    }
}

/// Neighbouring rows.
#[derive(Clone, Copy)]
struct Part {
    rows: f64,
    churned: f64,
    logits: f64,
}

impl Part {
    fn with(self, other: Part) -> Part {
        Part {
            rows: self.rows + other.rows,
            churned: self.churned + other.churned,
            logits: self.logits + other.logits,
        }
    }

    fn mean(self) -> f64 {
        self.logits / self.rows
    }

    /// Half a row of each outcome more, so that no part is certain.
    fn odds(self) -> f64 {
        libm::log((self.churned + 0.5) / (self.rows - self.churned + 0.5))
    }
}

/// Rows in ascending order of their logits, in parts of at least one size; equal logits stay together.
fn parts(logits: &[f64], churned: &[bool]) -> Vec<Part> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    let size = logits.len().div_ceil(PARTS_MOST).max(ROWS_LEAST) as f64;
    let mut parts: Vec<Part> = Vec::new();
    let mut last = f64::NAN;
    for row in order {
        let own = Part { rows: 1.0, churned: f64::from(churned[row]), logits: logits[row] };
        match parts.last_mut() {
            Some(part) if part.rows < size || logits[row] == last => *part = part.with(own),
            _ => parts.push(own),
        }
        last = logits[row];
    }
    // What is left over at the end is no part of its own.
    if let Some(rest) = parts.pop_if(|part| part.rows < size) {
        match parts.last_mut() {
            Some(part) => *part = part.with(rest),
            None => parts.push(rest),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::logistic::sigmoid;
    use super::*;
    use rand_pcg::Pcg64;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    /// Logits over −3 to 3, and outcomes whose log odds are a curve of them.
    fn rows(n: usize, curve: impl Fn(f64) -> f64) -> (Vec<f64>, Vec<bool>) {
        let mut rng = Pcg64::seed_from_u64(3);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (0..n)
            .map(|_| {
                let z = 6.0 * uniform() - 3.0;
                (z, uniform() < sigmoid(curve(z)))
            })
            .unzip()
    }

    #[test]
    fn it_finds_a_curve_that_no_line_follows() {
        let bent = |z: f64| if z < 0.0 { 0.2 * z } else { 1.5 * z };
        let (logits, churned) = rows(40_000, bent);
        let found = Isotonic::fit(&logits, &churned).unwrap();
        found.check().unwrap();
        for z in [-2.5, -1.0, 0.0, 1.0, 2.0] {
            assert!((found.apply(z) - bent(z)).abs() < 0.25, "{z}: {} {}", found.apply(z), bent(z));
        }
    }

    #[test]
    fn the_curve_rises_everywhere_and_can_be_gone_back() {
        let (logits, churned) = rows(6_000, |z| z + (3.0 * z).sin());
        let found = Isotonic::fit(&logits, &churned).unwrap().moved(0.3);
        let at: Vec<f64> = (-80..80).map(|i| f64::from(i) / 10.0).collect();
        assert!(at.windows(2).all(|pair| found.apply(pair[0]) < found.apply(pair[1])));
        assert!(at.iter().all(|z| (found.invert(found.apply(*z)) - z).abs() < 1e-9));
    }

    #[test]
    fn what_is_too_little_or_says_nothing_makes_no_curve() {
        let (logits, churned) = rows(500, |z| z);
        assert_eq!(Isotonic::fit(&logits, &churned), None, "too little");
        let (logits, churned) = rows(5_000, |z| -z);
        assert_eq!(Isotonic::fit(&logits, &churned), None, "falling");
        assert_eq!(Isotonic::fit(&[0.5; 5_000], &churned), None, "one score for all");
    }
}
