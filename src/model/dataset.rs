//! Labelled examples in memory, and every check of them that needs no settings.
//!
//! Building them from events is not done here.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::value::ValueModel;
use crate::error::{Error, Result};
use crate::time::{Ts, format_rfc3339};

/// Fewer examples than this say nothing even about two features.
pub const EXAMPLES_LEAST: usize = 100;
/// Churners, and stayers, on each side of the split.
pub const CLASS_LEAST: usize = 10;

/// The latest of so many parts of the cuts; and a cut with no more examples than this is whole.
const LATEST_OF: usize = 3;
const EVENED_LEAST: usize = 2_000;
/// So many samples of evened cuts are learned from: each costs a fit. One will do where so many examples tell enough.
const SAMPLES_MOST: usize = 3;
const PLENTY: usize = 300_000;

/// Labelled examples: one row per customer and cut.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub names: Vec<String>,
    /// Features by column; may hold +inf ("it never happened").
    pub rows: Array2<f64>,
    pub label: Vec<bool>,
    /// The cut: everything in the row happened before it, everything in the label after.
    pub at: Vec<Ts>,
    /// A hash of the customer, so that one customer's rows are known to belong together.
    pub customer: Vec<u64>,
    /// What is foretold of orders, where the examples tell enough of them.
    pub foretold: Option<Foretold>,
}

/// A column that follows from a fit of its own. Served, it comes from the fit to everything; what is chosen or
/// judged on the later slice must come from one that knows nothing of that slice.
#[derive(Clone, Debug)]
pub struct Foretold {
    pub column: usize,
    /// By row, from the fit to what came before the later slice.
    pub then: Vec<f64>,
    /// The fit to everything, from which the dataset's column comes.
    pub value: ValueModel,
}

impl Dataset {
    /// Every check that does not depend on the settings.
    pub fn check(&self) -> Result<()> {
        let n = self.label.len();
        let (rows, columns) = self.rows.dim();
        if rows != n || self.at.len() != n || self.customer.len() != n || columns != self.names.len() {
            return Err(Error::world("a dataset's rows, labels, cuts, customers and names differ in length"));
        }
        if let Some(name) =
            self.names.iter().enumerate().find_map(|(i, n)| self.names[..i].contains(n).then_some(n))
        {
            return Err(Error::world(format!("feature `{name}` occurs twice in the dataset")));
        }
        for ((i, j), x) in self.rows.indexed_iter() {
            if x.is_nan() || *x == f64::NEG_INFINITY {
                let at = format_rfc3339(self.at[i]);
                return Err(Error::user(format!("feature `{}` is {x} at {at} (row {i})", self.names[j]))
                    .hint("features are numbers, or +inf for what never happened; check its definition"));
            }
        }
        let churned = self.label.iter().filter(|label| **label).count();
        if n < EXAMPLES_LEAST {
            return Err(Error::user(format!(
                "{n} examples are too few to train on: {EXAMPLES_LEAST} are needed"
            ))
            .hint("give more customers, a longer history, or a longer --active-within"));
        }
        if churned == 0 || churned == n {
            let all = if churned == 0 { "none" } else { "every one" };
            return Err(Error::user(format!(
                "of {n} examples {all} is a churner, so there is nothing to tell apart"
            ))
            .hint("check --label, --horizon and --active-within against the data"));
        }
        Ok(())
    }

    /// Puts what was foretold before the later slice in the place of what is foretold from everything, and back.
    pub(super) fn swap_foretold(&mut self) {
        if let Some(Foretold { column, then, .. }) = &mut self.foretold {
            self.rows
                .column_mut(*column)
                .iter_mut()
                .zip(then)
                .for_each(|(now, then)| std::mem::swap(now, then));
        }
    }

    /// The rows that are learned from: of a cut with more examples than the latest cuts have, only as many. Whoever is
    /// scored later will be like those of the latest cuts, and the many of another time would outvote them. As many such
    /// samples, unless there is plenty, as it takes until nearly every row is in one: what a fit to each finds is
    /// averaged, so that hardly a row is lost (subbagging: Bühlmann and Yu 2002).
    pub(super) fn evened(&self) -> Vec<Vec<usize>> {
        let mut cuts: BTreeMap<Ts, Vec<usize>> = BTreeMap::new();
        self.at.iter().enumerate().for_each(|(i, at)| cuts.entry(*at).or_default().push(i));
        let latest = cuts.len().div_ceil(LATEST_OF);
        let most = cuts.values().rev().take(latest).map(Vec::len).sum::<usize>().div_ceil(latest.max(1));
        let most = most.max(EVENED_LEAST);
        let largest = cuts.values().map(Vec::len).max().unwrap_or(0);
        let evenly = |rows: &Vec<usize>, sample: usize| {
            let (n, most) = (rows.len(), most.min(rows.len()));
            let is_in = |i: &usize| (i + sample) * most / n != (i + sample + 1) * most / n;
            (0..n).filter(is_in).map(|i| rows[i]).collect::<Vec<_>>()
        };
        let sample = |sample: usize| {
            let mut rows: Vec<usize> = cuts.values().flat_map(|rows| evenly(rows, sample)).collect();
            rows.sort_unstable();
            rows
        };
        let samples = if self.at.len() > PLENTY { 1 } else { largest.div_ceil(most).clamp(1, SAMPLES_MOST) };
        (0..samples).map(sample).collect()
    }

    pub(super) fn base_rate(&self, rows: &[usize]) -> f64 {
        rows.iter().filter(|i| self.label[**i]).count() as f64 / rows.len() as f64
    }

    pub(super) fn span(&self, rows: &[usize]) -> (Ts, Ts) {
        let at = || rows.iter().map(|i| self.at[*i]);
        (at().min().unwrap_or(0), at().max().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn many_of_another_time_do_not_outvote_those_of_the_latest_cuts() {
        let sizes = [9_000, 3_000, 1_000, 2_600, 2_400, 2_500];
        let at: Vec<Ts> = sizes.iter().zip(0..).flat_map(|(n, at)| std::iter::repeat_n(at, *n)).collect();
        let n = at.len();
        let dataset = Dataset {
            names: vec!["x".into()],
            rows: Array2::zeros((n, 1)),
            label: vec![false; n],
            at,
            customer: vec![0; n],
            foretold: None,
        };
        let samples = dataset.evened();
        assert_eq!(samples.len(), SAMPLES_MOST);
        for rows in &samples {
            assert!(rows.is_sorted());
            let left = |at: Ts| rows.iter().filter(|i| dataset.at[**i] == at).count();
            assert_eq!([0, 1, 2, 3, 4, 5].map(left), [2_450, 2_450, 1_000, 2_450, 2_400, 2_450]);
            // Of all parts of a cut alike.
            assert_eq!(rows.iter().filter(|i| **i < 4_500).count(), 1_225);
        }
        // Of a cut of 9,000 three samples have 7,350 together, and of smaller ones everybody.
        let all: BTreeSet<usize> = samples.concat().into_iter().collect();
        assert_eq!(all.iter().filter(|i| **i < 9_000).count(), 7_350);
        assert_eq!(all.iter().filter(|i| **i >= 9_000).count(), n - 9_000);
    }
}
