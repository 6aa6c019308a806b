//! Whether customers are still those that the model learned from: a census of them, counted by the bins of training.
//!
//! Training looks at customers at instants that have nothing to do with what they do. So does the census: once a
//! week, at a whole hour that a hash of the customer's id chooses, whoever training would take for an example is
//! counted with the features and the score as of that instant. Counting scored events instead would show active
//! customers more often than training saw them, and drift where there is none.
//!
//! An instant is counted at the customer's next evaluation, which moves its last evaluated instant past it and is
//! written with the counts in one transaction: no restart and no rebalance counts anybody twice, or not at all.
//! Counts are kept by ten days of event time, four of them, so that the figures are about the last 30 to 40 days.

use std::collections::BTreeMap;

use super::facts::{FeatureId, FeatureNames};
use super::outbox::hash_customer;
use super::revertible::Revertible;
use super::varint::{get_i64, get_u64, put_i64, put_u64};
use crate::model::Model;
use crate::model::reference::{BINS, Bins};
use crate::time::{DAY_MS, HOUR_MS, Ts};

/// The key of the record in the state topic. It is no UTF-8, so that no customer can have it.
pub const KEY: &[u8] = b"\xffdrift";

const VERSION: u8 = 1;
const WEEK_MS: i64 = 7 * DAY_MS;
const WEEK_HOURS: u64 = (WEEK_MS / HOUR_MS) as u64;
const PERIOD_MS: i64 = 10 * DAY_MS;
const PERIODS: i64 = 4;
/// Fewer counted than this say nothing: by chance alone ten bins of 200 are 0.05 off.
const COUNTED_LEAST: u64 = 200;
/// Variables that a record may be about: far more than a model has features.
const VARIABLES_MOST: u64 = 1_024;

/// What a plan's model compares the stream with.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Tells counts by these bins from counts by others.
    id: u64,
    names: Vec<String>,
    pub(super) ids: Vec<FeatureId>,
    bins: Vec<Bins>,
    score: Bins,
}

impl Watch {
    /// `None` where the model's file does not say what training saw.
    pub fn of(model: &Model, layout: &impl FeatureNames) -> Option<Watch> {
        let reference = model.reference.as_ref()?;
        let ids = reference.features.keys().map(|name| layout.id(name)).collect::<Option<Vec<_>>>()?;
        let text = serde_json::to_vec(&(&model.name, &model.version, reference)).ok()?;
        Some(Watch {
            id: xxhash_rust::xxh3::xxh3_64(&text),
            names: reference.features.keys().cloned().collect(),
            ids,
            bins: reference.features.values().cloned().collect(),
            score: reference.score.clone(),
        })
    }

    /// The features it looks at.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// By feature, and of the score; `None` where too few were counted.
    pub fn psi(&self, counts: &Counts) -> (Vec<Option<f64>>, Option<f64>) {
        let bins = self.bins.iter().chain([&self.score]).enumerate();
        let of = |(k, bins): (usize, &Bins)| {
            let counts = counts.0.get(k).filter(|counts| counts.iter().sum::<u64>() >= COUNTED_LEAST)?;
            bins.psi(counts)
        };
        let mut psi: Vec<Option<f64>> = bins.map(of).collect();
        let score = psi.pop().flatten();
        (psi, score)
    }
}

/// Whether a whole hour lies in `(after, until]`: without one there is nothing to count.
#[inline]
pub(super) fn spans_an_hour(after: Ts, until: Ts) -> bool {
    after.div_euclid(HOUR_MS) != until.div_euclid(HOUR_MS)
}

/// The customer's instants in `(after, until]` that are not too old to count.
pub(super) fn instants(customer_id: &str, after: Ts, until: Ts) -> impl Iterator<Item = Ts> + use<> {
    let phase = (hash_customer(customer_id) % WEEK_HOURS) as i64 * HOUR_MS;
    let after = after.max(until.saturating_sub(PERIODS * PERIOD_MS));
    let first = (after - phase).div_euclid(WEEK_MS) + 1;
    let last = (until - phase).div_euclid(WEEK_MS);
    (first..=last).map(move |week| week * WEEK_MS + phase)
}

/// By variable (the features of a watch, then the score) and bin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(Vec<[u64; BINS]>);

impl Counts {
    fn merge(&mut self, other: &Counts) {
        self.0.resize(self.0.len().max(other.0.len()), [0; BINS]);
        for (bins, more) in self.0.iter_mut().zip(&other.0) {
            bins.iter_mut().zip(more).for_each(|(n, more)| *n = n.saturating_add(*more));
        }
    }
}

/// The counts of a partition, all by the bins of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    watch: u64,
    /// By ten days of event time.
    periods: BTreeMap<i64, Counts>,
}

impl Census {
    fn count(&mut self, watch: &Watch, at: Ts, features: &[f64], p: f64) {
        if self.watch != watch.id {
            *self = Census { watch: watch.id, periods: BTreeMap::new() };
        }
        let period = at.div_euclid(PERIOD_MS);
        let newest = self.periods.keys().last().map_or(period, |newest| period.max(*newest));
        self.periods.retain(|period, _| *period > newest - PERIODS);
        if period <= newest - PERIODS {
            return;
        }
        let counts = self.periods.entry(period).or_default();
        counts.0.resize(watch.bins.len() + 1, [0; BINS]);
        for ((counts, bins), id) in counts.0.iter_mut().zip(&watch.bins).zip(&watch.ids) {
            counts[bins.bin(features[id.index()])] += 1;
        }
        if let Some(counts) = counts.0.last_mut() {
            counts[watch.score.bin(p)] += 1;
        }
    }

    /// Adds what was counted by these bins to `sum`.
    pub fn add_to(&self, watch: &Watch, sum: &mut Counts) {
        if self.watch == watch.id {
            self.periods.values().for_each(|counts| sum.merge(counts));
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_u64(&mut out, self.watch);
        put_u64(&mut out, self.periods.values().map(|counts| counts.0.len()).max().unwrap_or(0) as u64);
        for (period, counts) in &self.periods {
            put_i64(&mut out, *period);
            counts.0.iter().flatten().for_each(|n| put_u64(&mut out, *n));
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Census, String> {
        match bytes.first() {
            Some(&VERSION) => {
                Self::read(bytes).ok_or_else(|| "the census of customers is damaged".to_owned())
            }
            Some(other) => Err(format!(
                "the census of customers has version {other}; this program reads version {VERSION}"
            )),
            None => Ok(Census::default()),
        }
    }

    fn read(bytes: &[u8]) -> Option<Census> {
        let mut at = 1;
        let mut census = Census { watch: get_u64(bytes, &mut at), periods: BTreeMap::new() };
        let variables = Some(get_u64(bytes, &mut at)).filter(|n| *n <= VARIABLES_MOST)?;
        while at < bytes.len() {
            let period = get_i64(bytes, &mut at);
            let mut counts = Counts(vec![[0; BINS]; variables as usize]);
            // Far more than there are customers, and far less than what sums could not hold.
            counts.0.iter_mut().flatten().for_each(|n| *n = get_u64(bytes, &mut at).min(1 << 40));
            census.periods.insert(period, counts);
        }
        (at == bytes.len()).then_some(census)
    }
}

/// The census of a partition while transactions come and go.
#[derive(Debug, Default)]
pub struct Drift {
    census: Revertible<Census>,
}

impl Drift {
    pub fn restored(census: Census) -> Drift {
        Drift { census: Revertible::new(census) }
    }

    /// Counts a customer as of `at`.
    pub(super) fn count(&mut self, watch: &Watch, at: Ts, features: &[f64], p: f64) {
        self.census.change().count(watch, at, features, p);
    }

    pub fn census(&self) -> &Census {
        self.census.get()
    }

    /// Whether the transaction at hand has counted anybody.
    pub fn has_changed(&self) -> bool {
        self.census.has_changed()
    }

    pub fn commit(&mut self) {
        self.census.commit();
    }

    pub fn rollback(&mut self) {
        self.census.rollback();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn watch(id: u64) -> Watch {
        let bins = Bins::of((0..100).map(f64::from).collect()).unwrap();
        let score = Bins::of((0..100).map(|i| f64::from(i) / 100.0).collect()).unwrap();
        Watch { id, names: vec!["orders".into()], ids: vec![FeatureId(0)], bins: vec![bins], score }
    }

    fn sum(census: &Census, watch: &Watch) -> Counts {
        let mut sum = Counts::default();
        census.add_to(watch, &mut sum);
        sum
    }

    #[test]
    fn who_is_as_in_training_does_not_drift_and_who_is_not_does() {
        let (watch, mut drift) = (watch(1), Drift::default());
        for i in 0..199 {
            drift.count(&watch, i, &[(i % 100) as f64], (i % 100) as f64 / 100.0);
        }
        assert_eq!(watch.psi(&sum(drift.census(), &watch)), (vec![None], None), "too few to tell");
        drift.count(&watch, 0, &[99.0], 0.99);
        let (features, score) = watch.psi(&sum(drift.census(), &watch));
        assert!(features[0].unwrap() < 0.01 && score.unwrap() < 0.01, "{features:?} {score:?}");
        (0..400).for_each(|_| drift.count(&watch, 0, &[500.0], 0.2));
        let (features, score) = watch.psi(&sum(drift.census(), &watch));
        assert!(features[0].unwrap() > 0.25 && score.unwrap() > 0.25, "{features:?} {score:?}");
    }

    #[test]
    fn counts_are_of_the_last_periods_and_of_one_model() {
        let (old, new, mut census) = (watch(1), watch(2), Census::default());
        let counted = |census: &Census, watch: &Watch| sum(census, watch).0.iter().flatten().sum::<u64>() / 2;
        for day in 0..60 {
            census.count(&old, day * DAY_MS, &[1.0], 0.5);
        }
        assert_eq!(counted(&census, &old), 40);
        census.count(&old, 0, &[1.0], 0.5);
        assert_eq!(counted(&census, &old), 40, "too old to count");
        census.count(&new, 60 * DAY_MS, &[1.0], 0.5);
        assert_eq!((counted(&census, &old), counted(&census, &new)), (0, 1));
    }

    #[test]
    fn a_rollback_takes_back_what_the_transaction_counted() {
        let (watch, mut drift) = (watch(1), Drift::default());
        drift.count(&watch, 0, &[1.0], 0.5);
        assert!(drift.has_changed());
        drift.commit();
        let committed = drift.census().clone();
        (0..3).for_each(|_| drift.count(&watch, 0, &[1.0], 0.5));
        drift.rollback();
        assert_eq!((drift.census(), drift.has_changed()), (&committed, false));
    }

    proptest! {
        #[test]
        fn however_time_is_cut_into_pieces_everybody_is_counted_once_a_week_at_a_whole_hour(
            id in "[a-z]{1,8}",
            steps in prop::collection::vec(1..9 * DAY_MS, 1..30),
        ) {
            let (mut at, mut found) = (1_767_225_600_000, Vec::new());
            let start = at;
            for step in steps {
                found.extend(instants(&id, at, at + step).inspect(|_| assert!(spans_an_hour(at, at + step))));
                at += step;
            }
            prop_assert!(found.windows(2).all(|pair| pair[1] - pair[0] == WEEK_MS));
            prop_assert!(found.iter().all(|ts| ts % HOUR_MS == 0 && *ts > start && *ts <= at));
            let weeks = (at - start) / WEEK_MS;
            prop_assert!(found.len() as i64 == weeks || found.len() as i64 == weeks + 1);
        }

        #[test]
        fn what_is_written_is_read_and_damage_is_no_panic(
            days in prop::collection::vec((0..60i64, -9.0..200.0f64), 0..40),
            damaged in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let (watch, mut census) = (watch(7), Census::default());
            days.iter().for_each(|(day, x)| census.count(&watch, day * DAY_MS, &[*x], 0.3));
            prop_assert_eq!(Census::decode(&census.encode()), Ok(census));
            let _ = Census::decode(&[&[VERSION][..], &damaged].concat());
        }
    }
}
