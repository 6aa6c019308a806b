//! What the model saw in training: how each of its features, and its score, were spread over the examples.
//!
//! Owns the bins and the distance of other counts from them (the population stability index). Counting on the
//! stream is done in [`crate::pipeline::drift`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bins of finite values: tenths of the examples, fewer where one value holds more than a tenth.
const TENTHS: usize = 10;
/// The bin of +inf, "it never happened".
const NEVER: usize = TENTHS;
/// Bins altogether.
pub const BINS: usize = TENTHS + 1;
/// A share below this counts as this: the logarithm of nothing says nothing.
const SHARE_LEAST: f64 = 1e-4;
/// Shares must add up to 1 but for rounding.
const SUM_TOLERANCE: f64 = 1e-6;

/// How values were spread in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// By feature of the model.
    pub features: BTreeMap<String, Bins>,
    pub score: Bins,
}

/// Shares of the examples between edges that ascend; a value on an edge belongs below it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bins {
    pub edges: Vec<f64>,
    /// One more than there are edges.
    pub shares: Vec<f64>,
    /// The share of what never happened.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub never: f64,
}

fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

impl Bins {
    /// Bins at the tenths of these values, which are not NaN; `None` where there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Bins> {
        let n = values.len();
        values.sort_unstable_by(f64::total_cmp);
        let finite = values.partition_point(|x| x.is_finite());
        let most = values[..finite].last().copied();
        let tenth = |k: usize| values[(n * k).div_ceil(TENTHS).saturating_sub(1)];
        let mut edges: Vec<f64> = if n == 0 { return None } else { (1..TENTHS).map(tenth).collect() };
        edges.retain(|edge| most.is_some_and(|most| *edge < most));
        edges.dedup();
        let mut bins = Bins { shares: vec![0.0; edges.len() + 1], edges, never: 0.0 };
        let mut counts = [0u64; BINS];
        values.iter().for_each(|x| counts[bins.bin(*x)] += 1);
        let share = |bin: usize| counts[bin] as f64 / n as f64;
        (0..bins.shares.len()).for_each(|bin| bins.shares[bin] = share(bin));
        bins.never = share(NEVER);
        Some(bins)
    }

    /// The bin of a value, below [`BINS`].
    #[inline]
    pub fn bin(&self, x: f64) -> usize {
        if x == f64::INFINITY { NEVER } else { self.edges.partition_point(|edge| *edge < x).min(TENTHS - 1) }
    }

    /// The population stability index of these counts against the shares of training: Σ (a − e) ln (a / e).
    /// `None` where nothing was counted.
    pub fn psi(&self, counts: &[u64; BINS]) -> Option<f64> {
        let n: u64 = counts.iter().sum();
        let actual = |bin: usize| (counts[bin] as f64 / n as f64).max(SHARE_LEAST);
        let expected = self.shares.iter().copied().enumerate().chain([(NEVER, self.never)]);
        let part = |(bin, share): (usize, f64)| {
            let (a, e) = (actual(bin), share.max(SHARE_LEAST));
            (a - e) * libm::log(a / e)
        };
        (n > 0).then(|| expected.map(part).sum())
    }

    fn check(&self) -> Result<(), String> {
        let ascend = self.edges.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascend || !self.edges.iter().all(|edge| edge.is_finite()) || self.edges.len() >= TENTHS {
            return Err(format!("`edges` must be at most {} numbers that ascend", TENTHS - 1));
        }
        let shares = || self.shares.iter().chain([&self.never]);
        let sum: f64 = shares().sum();
        let is_whole = (sum - 1.0).abs() < SUM_TOLERANCE && shares().all(|share| *share >= 0.0);
        if self.shares.len() != self.edges.len() + 1 || !is_whole {
            return Err("`shares` must be one more than `edges`, and add up to 1 with `never`".into());
        }
        Ok(())
    }
}

impl Reference {
    /// Every check that needs nothing but the file; `features` are the model's.
    pub(super) fn check<'f>(&self, features: impl Iterator<Item = &'f str>) -> Result<(), String> {
        if !self.features.keys().map(String::as_str).eq(features) {
            return Err("`reference` must have bins for exactly the features of the terms".into());
        }
        let of_score = std::iter::once(("the score", &self.score));
        let of_features = self.features.iter().map(|(name, bins)| (name.as_str(), bins));
        for (name, bins) in of_features.chain(of_score) {
            bins.check().map_err(|what| format!("reference of {name}: {what}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(bins: &Bins, values: &[f64]) -> [u64; BINS] {
        let mut counts = [0; BINS];
        values.iter().for_each(|x| counts[bins.bin(*x)] += 1);
        counts
    }

    #[test]
    fn bins_are_tenths_where_values_are_spread_and_never_has_one_of_its_own() {
        let spread: Vec<f64> = (0..1_000).map(f64::from).collect();
        let bins = Bins::of(spread.clone()).unwrap();
        assert_eq!((bins.edges.len(), bins.never), (9, 0.0));
        assert!(bins.shares.iter().all(|share| (share - 0.1).abs() < 1e-9), "{bins:?}");
        assert!(bins.psi(&counts(&bins, &spread)).unwrap().abs() < 1e-9);

        let half_never: Vec<f64> = (0..1_000).map(|i| if i % 2 == 0 { f64::INFINITY } else { 0.0 }).collect();
        let bins = Bins::of(half_never.clone()).unwrap();
        assert_eq!((bins.edges.len(), bins.shares.as_slice(), bins.never), (0, &[0.5][..], 0.5));
        assert!(bins.psi(&counts(&bins, &half_never)).unwrap().abs() < 1e-9);
        // Nobody is left to whom it never happened.
        assert!(bins.psi(&counts(&bins, &[0.0; 100])).unwrap() > 1.0);
        assert_eq!(Bins::of(Vec::new()), None);
        assert_eq!(bins.psi(&[0; BINS]), None);
    }

    #[test]
    fn a_small_shift_is_none_a_fifth_is_moderate_and_four_fifths_are_large() {
        let spread: Vec<f64> = (0..10_000).map(|i| f64::from(i) / 10_000.0).collect();
        let bins = Bins::of(spread.clone()).unwrap();
        let moved = |by: f64| {
            let values: Vec<f64> = spread.iter().map(|x| x * (1.0 + by)).collect();
            bins.psi(&counts(&bins, &values)).unwrap()
        };
        assert!(moved(0.02) < 0.01, "{}", moved(0.02));
        assert!((0.1..0.2).contains(&moved(0.2)), "{}", moved(0.2));
        assert!(moved(0.8) > 0.25, "{}", moved(0.8));
        // By hand: ten equal bins, of which one takes what another loses.
        let mut counts = [100u64; BINS];
        (counts[0], counts[1], counts[NEVER]) = (50, 150, 0);
        let by_hand = (0.05 - 0.1) * f64::ln(0.5) + (0.15 - 0.1) * f64::ln(1.5);
        assert!((bins.psi(&counts).unwrap() - by_hand).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn whatever_the_values_the_bins_hold_them_all_and_pass_their_own_check(
            values in prop::collection::vec(
                prop_oneof![Just(0.0), Just(f64::INFINITY), Just(1.0), -5.0..1e6f64], 1..200),
        ) {
            let bins = Bins::of(values.clone()).unwrap();
            prop_assert_eq!(bins.check(), Ok(()));
            prop_assert!(bins.psi(&counts(&bins, &values)).unwrap().abs() < 1e-9);
            let json = serde_json::to_string(&bins).unwrap();
            prop_assert_eq!(serde_json::from_str::<Bins>(&json).unwrap(), bins);
        }
    }
}
