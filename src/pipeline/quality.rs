//! How good the scores were that the stream itself has judged since: counts, from which the figures follow.
//!
//! Of every outcome of a customer whom training would have taken for an example, one count is kept: by 30 days
//! of event time, model, stage, hundredth of the score, and whether the customer churned. Two such periods are
//! held, so that the figures are about the last 30 to 60 days. A partition's counts are one record of the state
//! topic, written with the outcomes that they count: no restart and no rebalance loses any.
//!
//! A challenger's score of the same instant is counted by the same outcome, under its own name.
//!
//! Brier score and log loss are sums over the scores as they were kept, and exact to that. Within a hundredth,
//! ROC-AUC counts all pairs as ties: it is off by at most [`Figures::auc_error`], in practice by less than 0.005.
//! Calibration takes the middle of a hundredth for every score in it, which is off by at most 0.005.

use std::collections::BTreeMap;

use super::outcomes::Outcome;
use super::revertible::Revertible;
use super::varint::{get_i64, get_u64, put_i64, put_u64};
use crate::model::metrics::surprise;
use crate::time::{DAY_MS, Ts};

/// The key of the record in the state topic. It is no UTF-8, so that no customer can have it.
pub const KEY: &[u8] = b"\xffquality";

const VERSION: u8 = 1;
const PERIOD_MS: i64 = 30 * DAY_MS;
const PERIODS: i64 = 2;
const BINS: usize = 100;
/// Models and stages that are counted apart in a period; of any more, the stage is not told.
const KEYS_MOST: usize = 64;
/// Micronats of a log loss, and the highest packed probability.
const MICRO: f64 = 1e6;
const P_MOST: u64 = u16::MAX as u64;

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub period: i64,
    pub model: String,
    pub version: String,
    /// Empty where there is none.
    pub stage: String,
}

/// Outcomes by the height of their score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    churned: [u64; BINS],
    stayed: [u64; BINS],
    /// Squared errors, in squares of 65 535ths.
    squared: u64,
    micronats: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Counts { churned: [0; BINS], stayed: [0; BINS], squared: 0, micronats: 0 }
    }
}

/// What the counts say. `None` where they are of one class only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    pub labels: u64,
    pub auc: Option<f64>,
    /// How far the AUC can be off because scores of one hundredth count as ties.
    pub auc_error: f64,
    pub brier: f64,
    pub log_loss: f64,
    /// Mean distance between score and share churned over ten bins, weighted by labels.
    pub calibration_error: f64,
    pub lift_10: Option<f64>,
}

impl Counts {
    fn add(&mut self, packed_p: u16, churned: bool) {
        let p = u64::from(packed_p);
        let bin = (p as usize * BINS / (P_MOST as usize + 1)).min(BINS - 1);
        let error = if churned { P_MOST - p } else { p };
        let bins = if churned { &mut self.churned } else { &mut self.stayed };
        bins[bin] += 1;
        self.squared = self.squared.saturating_add(error * error);
        let nats = (surprise(p as f64 / P_MOST as f64, churned) * MICRO).round() as u64;
        self.micronats = self.micronats.saturating_add(nats);
    }

    pub fn merge(&mut self, other: &Counts) {
        self.churned.iter_mut().zip(other.churned).for_each(|(n, more)| *n = n.saturating_add(more));
        self.stayed.iter_mut().zip(other.stayed).for_each(|(n, more)| *n = n.saturating_add(more));
        self.squared = self.squared.saturating_add(other.squared);
        self.micronats = self.micronats.saturating_add(other.micronats);
    }

    /// `None` as long as nothing is counted.
    pub fn figures(&self) -> Option<Figures> {
        let churned: u64 = self.churned.iter().sum();
        let stayed: u64 = self.stayed.iter().sum();
        let labels = churned + stayed;
        let n = (labels > 0).then_some(labels as f64)?;
        let (mut below, mut above, mut tied) = (0.0, 0.0, 0.0);
        for (churned, stayed) in self.churned.iter().zip(self.stayed) {
            above += *churned as f64 * below;
            tied += *churned as f64 * stayed as f64;
            below += stayed as f64;
        }
        let pairs = churned as f64 * stayed as f64;
        let square = (P_MOST * P_MOST) as f64;
        Some(Figures {
            labels,
            auc: (pairs > 0.0).then(|| (above + tied / 2.0) / pairs),
            auc_error: if pairs > 0.0 { tied / 2.0 / pairs } else { 0.0 },
            brier: self.squared as f64 / square / n,
            log_loss: self.micronats as f64 / MICRO / n,
            calibration_error: self.calibration_error(n),
            lift_10: (churned > 0).then(|| self.caught(n / 10.0) / churned as f64 * 10.0),
        })
    }

    fn calibration_error(&self, n: f64) -> f64 {
        let bins = self.churned.chunks(BINS / 10).zip(self.stayed.chunks(BINS / 10)).enumerate();
        let gap = |(k, (churned, stayed)): (usize, (&[u64], &[u64]))| {
            let sum: f64 = churned.iter().zip(stayed).enumerate().fold(0.0, |sum, (i, (churned, stayed))| {
                let middle = ((k * (BINS / 10) + i) as f64 + 0.5) / BINS as f64;
                sum + (churned + stayed) as f64 * middle - *churned as f64
            });
            sum.abs()
        };
        bins.map(gap).sum::<f64>() / n
    }

    /// Churners among the `most` highest scores; the bin at the edge gives its average.
    fn caught(&self, most: f64) -> f64 {
        let (mut left, mut caught) = (most, 0.0);
        for (churned, stayed) in self.churned.iter().zip(&self.stayed).rev() {
            let here = (churned + stayed) as f64;
            if here > 0.0 && left > 0.0 {
                caught += *churned as f64 * (left / here).min(1.0);
                left -= here;
            }
        }
        caught
    }
}

/// The counts of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Outcomes ever counted.
    pub labels: u64,
    pub counts: BTreeMap<Key, Counts>,
}

impl Ledger {
    fn add(&mut self, now: Ts, outcome: &Outcome<'_>) {
        let (kept, claim) = (&outcome.kept, &outcome.kept.claim);
        self.labels += 1;
        self.count(now, outcome, (claim.model, claim.version), kept.packed_p);
        if let (Some(challenger), Some(p)) = (claim.challenger, kept.challenger_p) {
            self.count(now, outcome, challenger, p);
        }
    }

    fn count(&mut self, now: Ts, outcome: &Outcome<'_>, (model, version): (&str, &str), packed_p: u16) {
        let period = now.div_euclid(PERIOD_MS);
        let newest = self.counts.keys().map(|key| key.period).max().unwrap_or(period).max(period);
        self.counts.retain(|key, _| key.period > newest - PERIODS);
        let mut key = Key {
            period,
            model: model.to_owned(),
            version: version.to_owned(),
            stage: outcome.kept.stage.unwrap_or_default().to_owned(),
        };
        if self.counts.len() >= KEYS_MOST && !self.counts.contains_key(&key) {
            key.stage.clear();
        }
        let is_bounded = self.counts.len() < 2 * KEYS_MOST || self.counts.contains_key(&key);
        if period > newest - PERIODS && is_bounded {
            self.counts.entry(key).or_default().add(packed_p, outcome.churned);
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_u64(&mut out, self.labels);
        for (key, counts) in &self.counts {
            put_i64(&mut out, key.period);
            for text in [&key.model, &key.version, &key.stage] {
                put_u64(&mut out, text.len() as u64);
                out.extend_from_slice(text.as_bytes());
            }
            put_u64(&mut out, counts.squared);
            put_u64(&mut out, counts.micronats);
            counts.churned.iter().chain(&counts.stayed).for_each(|n| put_u64(&mut out, *n));
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Ledger, String> {
        match bytes.first() {
            Some(&VERSION) => {
                Self::read(bytes).ok_or_else(|| "the counts of outcomes are damaged".to_owned())
            }
            Some(other) => Err(format!(
                "the counts of outcomes have version {other}; this program reads version {VERSION}"
            )),
            None => Ok(Ledger::default()),
        }
    }

    fn read(bytes: &[u8]) -> Option<Ledger> {
        let mut at = 1;
        let mut ledger = Ledger { labels: get_u64(bytes, &mut at), counts: BTreeMap::new() };
        while at < bytes.len() {
            let period = get_i64(bytes, &mut at);
            let mut text = || {
                let len = usize::try_from(get_u64(bytes, &mut at)).ok()?;
                let text = std::str::from_utf8(bytes.get(at..at.checked_add(len)?)?).ok()?;
                at += len;
                Some(text.to_owned())
            };
            let key = Key { period, model: text()?, version: text()?, stage: text()? };
            let mut counts = Counts {
                squared: get_u64(bytes, &mut at),
                micronats: get_u64(bytes, &mut at),
                ..Counts::default()
            };
            let bins = counts.churned.iter_mut().chain(&mut counts.stayed);
            // Far more than there are customers, and far less than what sums could not hold.
            bins.for_each(|n| *n = get_u64(bytes, &mut at).min(1 << 40));
            ledger.counts.insert(key, counts);
        }
        (at == bytes.len()).then_some(ledger)
    }
}

/// The counts of a partition while transactions come and go.
#[derive(Debug, Default)]
pub struct Quality {
    ledger: Revertible<Ledger>,
}

impl Quality {
    pub fn restored(ledger: Ledger) -> Quality {
        Quality { ledger: Revertible::new(ledger) }
    }

    /// Counts an outcome that became known at `now`.
    pub fn add(&mut self, now: Ts, outcome: &Outcome<'_>) {
        if outcome.kept.example {
            self.ledger.change().add(now, outcome);
        }
    }

    pub fn ledger(&self) -> &Ledger {
        self.ledger.get()
    }

    /// Whether the transaction at hand has counted anything.
    pub fn has_changed(&self) -> bool {
        self.ledger.has_changed()
    }

    pub fn commit(&mut self) {
        self.ledger.commit();
    }

    pub fn rollback(&mut self) {
        self.ledger.rollback();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::metrics;
    use proptest::prelude::*;

    fn counts(labels: &[(u16, bool)]) -> Counts {
        let mut counts = Counts::default();
        labels.iter().for_each(|(p, churned)| counts.add(*p, *churned));
        counts
    }

    proptest! {
        #[test]
        fn figures_are_those_of_the_scores_themselves_within_the_stated_error(
            labels in prop::collection::vec((any::<u16>(), any::<bool>()), 2..300),
        ) {
            let p: Vec<f64> = labels.iter().map(|(p, _)| f64::from(*p) / 65_535.0).collect();
            let churned: Vec<bool> = labels.iter().map(|(_, churned)| *churned).collect();
            let figures = counts(&labels).figures().unwrap();
            prop_assert_eq!(figures.labels, labels.len() as u64);
            prop_assert!((figures.brier - metrics::brier(&p, &churned)).abs() < 1e-9);
            prop_assert!((figures.log_loss - metrics::log_loss(&p, &churned)).abs() < 1e-6);
            let exact = metrics::roc_auc(&p, &churned);
            prop_assert_eq!(exact.is_some(), figures.auc.is_some());
            if let (Some(exact), Some(auc)) = (exact, figures.auc) {
                prop_assert!((auc - exact).abs() <= figures.auc_error + 1e-9, "{auc} {exact}");
            }
        }

        #[test]
        fn what_is_written_is_read_and_merging_is_counting_together(
            some in prop::collection::vec((any::<u16>(), any::<bool>()), 0..50),
            more in prop::collection::vec((any::<u16>(), any::<bool>()), 0..50),
            damaged in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut merged = counts(&some);
            merged.merge(&counts(&more));
            prop_assert_eq!(&merged, &counts(&[some, more].concat()));
            let key = Key { period: -3, model: "m".into(), version: "1".into(), stage: "loyalty".into() };
            let ledger = Ledger { labels: 7, counts: [(key, merged)].into() };
            prop_assert_eq!(Ledger::decode(&ledger.encode()), Ok(ledger));
            let _ = Ledger::decode(&[&[VERSION][..], &damaged].concat()).map(|l| l.counts.len());
        }
    }

    #[test]
    fn a_hundredth_is_fine_enough_for_a_thousand_spread_scores() {
        let labels: Vec<(u16, bool)> =
            (0..1_000u32).map(|i| ((i * 65) as u16, i * 7_919 % 1_000 < i)).collect();
        let figures = counts(&labels).figures().unwrap();
        assert!(figures.auc_error < 0.005, "{figures:?}");
        assert!(figures.auc.unwrap() > 0.7 && figures.lift_10.unwrap() > 1.5, "{figures:?}");
    }
}
