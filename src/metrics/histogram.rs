//! Histograms that take whole batches: a worker counts by itself and hands its counts over once per commit.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::table::Family;

/// Upper bounds of latencies, in nanoseconds: 1, 2 and 5 of every power of ten from 1 µs to 10 s.
pub const LATENCY_NANOS: [u64; 22] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

const NANOS_PER_SECOND: f64 = 1e9;

/// The same in seconds.
pub fn latency_bounds() -> Vec<f64> {
    LATENCY_NANOS.iter().map(|nanos| *nanos as f64 / NANOS_PER_SECOND).collect()
}

/// Restoring takes from moments to most of an hour.
pub fn restore_bounds() -> Vec<f64> {
    vec![0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0]
}

/// The twentieths by which [`crate::pipeline::engine::Tally`] counts scores.
pub fn score_bounds() -> Vec<f64> {
    (1..=20).map(|twentieths| f64::from(twentieths) / 20.0).collect()
}

/// Those by which [`crate::pipeline::engine::Tally`] counts how far a challenger is from the champion.
pub fn difference_bounds() -> Vec<f64> {
    crate::pipeline::engine::DIFFERENCES.to_vec()
}

/// Latencies counted by one thread. The sum is of whole nanoseconds, and so exact.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: [u64; LATENCY_NANOS.len() + 1],
    nanos: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies { counts: [0; LATENCY_NANOS.len() + 1], nanos: 0 }
    }
}

impl Latencies {
    pub fn count(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = LATENCY_NANOS.partition_point(|bound| *bound < nanos);
        self.counts[bucket] += 1;
        self.nanos = self.nanos.saturating_add(nanos);
    }

    /// Adds everything to a histogram over [`latency_bounds`] and starts anew.
    pub fn flush(&mut self, into: &Histogram) {
        into.add(&self.counts, self.nanos as f64 / NANOS_PER_SECOND);
        *self = Latencies::default();
    }
}

#[derive(Debug)]
struct Totals {
    /// One more than there are bounds.
    counts: Vec<u64>,
    sum: f64,
}

/// A registered histogram. The lock is taken once per batch, and gives a scrape counts and sum that agree.
#[derive(Debug)]
pub struct Histogram {
    desc: Desc,
    bounds: Vec<f64>,
    totals: Mutex<Totals>,
}

impl Histogram {
    /// `bounds` ascend.
    pub fn new(family: &Family, bounds: Vec<f64>) -> prometheus::Result<Self> {
        let desc = Desc::new(family.name.into(), family.help.into(), Vec::new(), HashMap::new())?;
        let totals = Mutex::new(Totals { counts: vec![0; bounds.len() + 1], sum: 0.0 });
        Ok(Histogram { desc, bounds, totals })
    }

    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.with(|totals| {
            totals.counts[bucket] += 1;
            totals.sum += value;
        });
    }

    /// Adds many at once: how many fell under each bound but not under the one before, and their sum.
    pub fn add(&self, counts: &[u64], sum: f64) {
        self.with(|totals| {
            totals.counts.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
            totals.sum += sum;
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Totals) -> T) -> T {
        act(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn snapshot(&self) -> proto::Histogram {
        let mut histogram = proto::Histogram::default();
        self.with(|totals| {
            let mut cumulative = 0;
            let buckets = self.bounds.iter().zip(&totals.counts).map(|(bound, count)| {
                cumulative += count;
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(cumulative);
                bucket
            });
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(totals.counts.iter().sum());
            histogram.set_sample_sum(totals.sum);
        });
        histogram
    }
}

/// A histogram that the registry and its owner share.
#[derive(Clone, Debug)]
pub struct Registered(pub std::sync::Arc<Histogram>);

impl Collector for Registered {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut metric = proto::Metric::default();
        metric.set_histogram(self.0.snapshot());
        let mut family = proto::MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::table;

    fn cumulative(histogram: &Histogram) -> Vec<u64> {
        histogram.snapshot().get_bucket().iter().map(proto::Bucket::cumulative_count).collect()
    }

    #[test]
    fn a_value_on_a_bound_counts_under_it() {
        let histogram = Histogram::new(&table::SCORING, latency_bounds()).unwrap();
        let mut latencies = Latencies::default();
        for nanos in [0, 1_000, 1_001, 10_000_000_000, 10_000_000_001] {
            latencies.count(Duration::from_nanos(nanos));
        }
        latencies.flush(&histogram);
        let counts = cumulative(&histogram);
        assert_eq!((counts[0], counts[1], counts[20], counts[21]), (2, 3, 3, 4));
        assert_eq!(histogram.snapshot().get_sample_count(), 5);
        assert_eq!(histogram.snapshot().get_sample_sum(), 20.000_002_002);
        latencies.flush(&histogram);
        assert_eq!(histogram.snapshot().get_sample_count(), 5, "a flush starts anew");
    }

    #[test]
    fn one_observation_falls_where_a_batch_puts_it() {
        let (one, batch) = (
            Histogram::new(&table::SCORING, latency_bounds()).unwrap(),
            Histogram::new(&table::SCORING, latency_bounds()).unwrap(),
        );
        let mut latencies = Latencies::default();
        for nanos in LATENCY_NANOS.iter().flat_map(|n| [n - 1, *n, n + 1]) {
            one.observe(nanos as f64 / NANOS_PER_SECOND);
            latencies.count(Duration::from_nanos(nanos));
        }
        latencies.flush(&batch);
        assert_eq!(cumulative(&one), cumulative(&batch));
    }

    #[test]
    fn neighbouring_bounds_are_at_most_two_and_a_half_apart() {
        for pair in latency_bounds().windows(2) {
            assert!(pair[0] < pair[1] && pair[1] / pair[0] < 2.51, "{pair:?}");
        }
    }
}
