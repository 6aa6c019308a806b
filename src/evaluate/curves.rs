//! The lines behind the plots. Pure; none depends on the order of the rows.

use serde::Serialize;

use crate::model::metrics::{self, Bin};

/// Points of a line, at most about so many.
const POINTS_MOST: usize = 200;
/// Bars of the distribution of scores.
pub const BARS: usize = 20;

/// What is drawn of one set of probabilities.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curves {
    /// Share of the stayers, share of the churners, above every threshold from the highest down.
    pub roc: Vec<[f64; 2]>,
    /// Share of the churners found, share of churners among those picked.
    pub precision_recall: Vec<[f64; 2]>,
    /// Share of the customers picked, highest scores first, and how many times a random pick's churners they hold.
    pub lift: Vec<[f64; 2]>,
    pub reliability: Vec<Bin>,
    /// Share of the stayers, and of the churners, whose probability falls into each twentieth.
    pub distribution: Vec<[f64; 2]>,
}

impl Curves {
    /// Both classes must occur.
    pub fn new(p: &[f64], churned: &[bool]) -> Curves {
        let churners = churned.iter().filter(|c| **c).count() as f64;
        let (n, stayers) = (p.len() as f64, p.len() as f64 - churners);
        let (mut hits, mut seen) = (0.0, 0.0);
        let (mut roc, mut precision_recall, mut lift) = (vec![[0.0, 0.0]], Vec::new(), Vec::new());
        for tie in metrics::descending_ties(p) {
            hits += tie.iter().filter(|i| churned[**i]).count() as f64;
            seen += tie.len() as f64;
            roc.push([(seen - hits) / stayers, hits / churners]);
            precision_recall.push([hits / churners, hits / seen]);
            lift.push([seen / n, hits / seen * n / churners]);
        }
        Curves {
            roc: thinned(roc, 0.0),
            precision_recall: thinned(precision_recall, 0.0),
            // The first few customers say little of a share.
            lift: thinned(lift, 0.01),
            reliability: metrics::reliability(p, churned),
            distribution: distribution(p, churned, churners, stayers),
        }
    }
}

/// Every so-manieth step along the first coordinate from `from` on, always with the last.
fn thinned(points: Vec<[f64; 2]>, from: f64) -> Vec<[f64; 2]> {
    let step = 1.0 / POINTS_MOST as f64;
    let mut kept: Vec<[f64; 2]> = Vec::new();
    let last = points.last().copied();
    for point in points.into_iter().filter(|point| point[0] >= from) {
        let moved = |before: &[f64; 2]| point[0] - before[0] >= step || (point[1] - before[1]).abs() >= step;
        if kept.last().is_none_or(moved) {
            kept.push(point);
        }
    }
    if kept.last() != last.as_ref() {
        kept.extend(last);
    }
    kept
}

fn distribution(p: &[f64], churned: &[bool], churners: f64, stayers: f64) -> Vec<[f64; 2]> {
    let mut bars = vec![[0.0; 2]; BARS];
    for (p, churned) in p.iter().zip(churned) {
        let bar = ((p * BARS as f64) as usize).min(BARS - 1);
        bars[bar][usize::from(*churned)] += 1.0 / if *churned { churners } else { stayers };
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_through_the_points_that_can_be_counted_by_hand() {
        let curves = Curves::new(&[0.9, 0.8, 0.8, 0.1], &[true, false, true, false]);
        assert_eq!(curves.roc, [[0.0, 0.0], [0.0, 0.5], [0.5, 1.0], [1.0, 1.0]]);
        assert_eq!(curves.precision_recall, [[0.5, 1.0], [1.0, 2.0 / 3.0], [1.0, 0.5]]);
        assert_eq!(curves.lift, [[0.25, 2.0], [0.75, 4.0 / 3.0], [1.0, 1.0]]);
        assert_eq!(curves.distribution[18], [0.0, 0.5]);
        assert_eq!(curves.distribution[2], [0.5, 0.0]);
    }

    #[test]
    fn long_lines_are_thinned_and_keep_their_ends() {
        let p: Vec<f64> = (0..5_000).map(|i| f64::from(i) / 5_000.0).collect();
        let churned: Vec<bool> = (0..5_000).map(|i| (i * 7_919) % 5_000 < i).collect();
        let curves = Curves::new(&p, &churned);
        for line in [&curves.roc, &curves.precision_recall, &curves.lift] {
            assert!((100..=500).contains(&line.len()), "{}", line.len());
        }
        assert_eq!(curves.roc.last(), Some(&[1.0, 1.0]));
        let sums = curves.distribution.iter().fold([0.0; 2], |s, b| [s[0] + b[0], s[1] + b[1]]);
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-9));
    }
}
