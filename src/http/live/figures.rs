//! The figures of the live page, out of the very families that `/metrics` shows: totals as they stand, rates
//! and percentiles over the last seconds. Pure: metrics and an instant in, JSON out.

use std::collections::{BTreeMap, VecDeque};

use prometheus::proto::{Histogram, Metric, MetricFamily};
use serde::Serialize;

use crate::metrics::kpis::{LifecycleKpis, Report};
use crate::metrics::table::{self, Family};
use crate::pipeline::plan::Plan;
use crate::time::{Rfc3339, Tick};

/// Looks that rates and percentiles are taken over, one a second.
const LOOKS: usize = 10;

/// Remembers the last few looks.
#[derive(Debug, Default)]
pub struct Figures {
    looks: VecDeque<Look>,
}

/// What rates are made of.
#[derive(Clone, Debug)]
struct Look {
    at: Tick,
    events: f64,
    scores: f64,
    transactions: f64,
    scoring: Buckets,
    end_to_end: Buckets,
}

/// What the page shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seen {
    pub ready: bool,
    pub version: &'static str,
    pub model: String,
    /// The newest event time.
    pub event_time: Option<Rfc3339>,
    pub events: BTreeMap<String, f64>,
    pub dead_letters: BTreeMap<String, f64>,
    pub customers: f64,
    pub state_bytes: f64,
    pub scores: f64,
    pub alerts: f64,
    pub stage_changes: f64,
    pub transactions: BTreeMap<String, f64>,
    pub per_second: PerSecond,
    pub scoring: Percentiles,
    pub end_to_end: Percentiles,
    /// By topic.
    pub lag: BTreeMap<String, f64>,
    /// Scores computed, by twentieths.
    pub score_distribution: Vec<f64>,
    pub lifecycles: Vec<LifecycleSeen>,
    pub quality: Quality,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PerSecond {
    pub events: f64,
    pub scores: f64,
    pub transactions: f64,
}

/// In seconds, of the last seconds; `null` when nothing was measured in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LifecycleSeen {
    pub name: String,
    pub initial: String,
    pub stages: Vec<StageSeen>,
    pub flows: Vec<Flow>,
    pub window_days: i64,
    pub kpis: Option<LifecycleKpis>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageSeen {
    pub name: String,
    pub customers: f64,
}

/// Stage changes since the process started.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flow {
    pub from: String,
    pub to: String,
    pub moves: f64,
}

/// How well the model does on the stream itself, where that is measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    pub auc: Option<f64>,
    pub brier: Option<f64>,
    pub labels: Option<f64>,
    /// By feature, the most drifted first.
    pub drift: Vec<Drift>,
    pub score_drift: Option<f64>,
    pub challenger: Option<ChallengerSeen>,
}

/// The model in the shadow, beside the one in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChallengerSeen {
    pub model: String,
    pub auc: Option<f64>,
    pub brier: Option<f64>,
    /// Of its score and the champion's, per score computed since the process started.
    pub mean_difference: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    pub feature: String,
    pub psi: f64,
}

impl Figures {
    /// Takes a look, and says what is to be shown.
    pub fn look(
        &mut self,
        families: &[MetricFamily],
        kpis: &Report,
        plan: &Plan,
        ready: bool,
        now: Tick,
    ) -> Seen {
        let found = Found(families);
        let look = Look::at(now, &found);
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        let before = self.looks.front().unwrap_or(&look);
        let per_second = look.rates_since(before);
        let (scoring, end_to_end) =
            (look.scoring.since(&before.scoring), look.end_to_end.since(&before.end_to_end));
        let seen = Seen {
            ready,
            version: env!("CARGO_PKG_VERSION"),
            model: model(&found),
            event_time: kpis.as_of,
            events: found.by(&table::EVENTS, "result"),
            dead_letters: found.by(&table::DEAD_LETTERS, "reason"),
            customers: found.sum(table::STATE_CUSTOMERS.name),
            state_bytes: found.sum(table::STATE_BYTES.name),
            scores: look.scores,
            alerts: found.sum(table::ALERTS.name),
            stage_changes: found.sum(table::STAGE_CHANGES.name),
            transactions: found.by(&table::TRANSACTIONS, "outcome"),
            per_second,
            scoring: scoring.percentiles(),
            end_to_end: end_to_end.percentiles(),
            lag: found.by(&table::LAG, "topic"),
            score_distribution: found.buckets(&table::CHURN_SCORE).counts,
            lifecycles: lifecycles(&found, kpis, plan),
            quality: quality(&found),
        };
        self.looks.push_back(look);
        seen
    }
}

impl Look {
    fn at(at: Tick, found: &Found<'_>) -> Look {
        Look {
            at,
            events: found.sum(table::EVENTS.name),
            scores: found.buckets(&table::CHURN_SCORE).total(),
            transactions: found.sum(table::TRANSACTIONS.name),
            scoring: found.buckets(&table::SCORING),
            end_to_end: found.buckets(&table::END_TO_END),
        }
    }

    fn rates_since(&self, before: &Look) -> PerSecond {
        let seconds = self.at.since(before.at).as_secs_f64();
        let rate = |now: f64, then: f64| if seconds > 0.0 { (now - then) / seconds } else { 0.0 };
        PerSecond {
            events: rate(self.events, before.events),
            scores: rate(self.scores, before.scores),
            transactions: rate(self.transactions, before.transactions),
        }
    }
}

/// A histogram as counts per bucket, the one without an upper bound last.
#[derive(Clone, Debug, Default, PartialEq)]
struct Buckets {
    bounds: Vec<f64>,
    counts: Vec<f64>,
}

impl Buckets {
    fn of(histogram: &Histogram) -> Buckets {
        let mut below = 0;
        let mut buckets = Buckets::default();
        for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
            buckets.bounds.push(bucket.upper_bound());
            buckets.counts.push((bucket.cumulative_count() - below) as f64);
            below = bucket.cumulative_count();
        }
        buckets.counts.push((histogram.get_sample_count() - below) as f64);
        buckets
    }

    fn total(&self) -> f64 {
        self.counts.iter().sum()
    }

    fn since(&self, before: &Buckets) -> Buckets {
        let counts = self.counts.iter().enumerate().map(|(k, n)| n - before.counts.get(k).unwrap_or(&0.0));
        Buckets { bounds: self.bounds.clone(), counts: counts.collect() }
    }

    /// As Prometheus' `histogram_quantile`: even within a bucket; the last bound for what lies beyond it.
    fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total <= 0.0 {
            return None;
        }
        let (mut below, mut lower) = (0.0, 0.0);
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            if *count > 0.0 && below + count >= q * total {
                return Some(lower + (bound - lower) * ((q * total - below) / count).max(0.0));
            }
            (below, lower) = (below + count, *bound);
        }
        self.bounds.last().copied()
    }

    fn percentiles(&self) -> Percentiles {
        Percentiles { p50: self.quantile(0.5), p95: self.quantile(0.95), p99: self.quantile(0.99) }
    }
}

/// The families, to be asked.
struct Found<'f>(&'f [MetricFamily]);

impl Found<'_> {
    fn metrics(&self, name: &str) -> &[Metric] {
        self.0.iter().find(|family| family.name() == name).map_or(&[], |family| family.get_metric())
    }

    fn sum(&self, name: &str) -> f64 {
        self.metrics(name).iter().map(value).sum()
    }

    /// Sums by the value of one label.
    fn by(&self, family: &Family, wanted: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for metric in self.metrics(family.name) {
            *sums.entry(label(metric, wanted).to_owned()).or_default() += value(metric);
        }
        sums
    }

    fn buckets(&self, family: &Family) -> Buckets {
        self.metrics(family.name).first().map(|m| Buckets::of(m.get_histogram())).unwrap_or_default()
    }

    fn only(&self, name: &str) -> Option<f64> {
        self.metrics(name).first().map(value).filter(|value| value.is_finite())
    }
}

fn label<'m>(metric: &'m Metric, wanted: &str) -> &'m str {
    metric.get_label().iter().find(|pair| pair.name() == wanted).map_or("", |pair| pair.value())
}

/// Of a counter or a gauge; whichever it is not is 0.
fn value(metric: &Metric) -> f64 {
    metric.get_counter().get_value() + metric.get_gauge().get_value()
}

fn lifecycles(found: &Found<'_>, kpis: &Report, plan: &Plan) -> Vec<LifecycleSeen> {
    let seen = |(lifecycle, _): &(crate::pipeline::lifecycle::Lifecycle, _)| {
        let name = &*lifecycle.name;
        let of_it = |m: &&Metric| label(m, "lifecycle") == name;
        let customers = |stage: &str| {
            let of_stage = |m: &&Metric| label(m, "stage") == stage;
            found.metrics(table::CUSTOMERS.name).iter().filter(of_it).filter(of_stage).map(value).sum()
        };
        let stages = lifecycle.stages().iter();
        LifecycleSeen {
            name: name.to_owned(),
            initial: lifecycle
                .stages()
                .get(usize::from(lifecycle.initial))
                .map_or("", |s| &s.name)
                .to_owned(),
            stages: stages
                .map(|s| StageSeen { name: s.name.to_string(), customers: customers(&s.name) })
                .collect(),
            flows: flows(found, name),
            window_days: kpis.window_days,
            kpis: kpis.lifecycles.iter().find(|k| k.lifecycle == name).cloned(),
        }
    };
    plan.lifecycles.iter().map(seen).collect()
}

fn flows(found: &Found<'_>, lifecycle: &str) -> Vec<Flow> {
    let mut moves: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for metric in found.metrics(table::STAGE_CHANGES.name) {
        if label(metric, "lifecycle") == lifecycle && value(metric) > 0.0 {
            *moves.entry((label(metric, "from"), label(metric, "to"))).or_default() += value(metric);
        }
    }
    let flow = |((from, to), moves): ((&str, &str), f64)| Flow { from: from.into(), to: to.into(), moves };
    moves.into_iter().map(flow).collect()
}

/// The model in use; it may be another than at start.
fn model(found: &Found<'_>) -> String {
    let info = found.metrics(table::MODEL_INFO.name).first();
    info.map_or_else(String::new, |info| format!("{} {}", label(info, "name"), label(info, "version")))
}

fn quality(found: &Found<'_>) -> Quality {
    let drift = found.metrics(table::FEATURE_DRIFT.name).iter();
    let mut drift: Vec<Drift> = drift
        .map(|m| Drift { feature: label(m, "feature").to_owned(), psi: value(m) })
        .filter(|drift| drift.psi.is_finite())
        .collect();
    drift.sort_by(|a, b| b.psi.total_cmp(&a.psi));
    Quality {
        auc: found.only("stagecast_live_auc"),
        brier: found.only("stagecast_live_brier"),
        labels: found.only("stagecast_live_labels_total"),
        drift,
        score_drift: found.only(table::SCORE_DRIFT.name),
        challenger: challenger(found),
    }
}

fn challenger(found: &Found<'_>) -> Option<ChallengerSeen> {
    let info = found.metrics(table::CHALLENGER_INFO.name).iter().find(|info| value(info) == 1.0)?;
    let (name, version) = (label(info, "name"), label(info, "version"));
    let of = |family: &table::Family| {
        let is_its = |m: &&Metric| label(m, "name") == name && label(m, "version") == version;
        found.metrics(family.name).iter().find(is_its).map(value).filter(|value| value.is_finite())
    };
    let differences = found.metrics(table::CHALLENGER_DIFFERENCE.name).first();
    let differences = differences.map(|m| m.get_histogram()).filter(|h| h.get_sample_count() > 0);
    Some(ChallengerSeen {
        model: format!("{name} {version}"),
        auc: of(&table::LIVE_VERSION_AUC),
        brier: of(&table::LIVE_VERSION_BRIER),
        mean_difference: differences.map(|h| h.get_sample_sum() / h.get_sample_count() as f64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::event::Source;
    use crate::metrics::{EventResult, Metrics, Outcome, PartitionFigures};
    use std::sync::Arc;
    use std::time::Duration;

    fn plan() -> Arc<Plan> {
        Arc::new(crate::setup::plan(&Config::default(), None).unwrap())
    }

    fn look(figures: &mut Figures, metrics: &Arc<Metrics>, plan: &Plan, at: Tick) -> Seen {
        figures.look(&metrics.gather(), &metrics.kpis(), plan, true, at)
    }

    #[test]
    fn rates_and_percentiles_are_of_the_last_seconds_and_totals_of_all_time() {
        let plan = plan();
        let metrics = Metrics::new(&plan).unwrap();
        let (mut figures, start) = (Figures::default(), Tick::now());
        let mut local = metrics.local();
        for second in 0..30 {
            // Slow at first, then fast.
            let took = Duration::from_millis(if second < 10 { 900 } else { 3 });
            (0..100).for_each(|_| {
                local.event(Source::Purchase, EventResult::Ok);
                local.scoring(took);
            });
            local.flush();
            metrics.transaction(Outcome::Committed, took);
            look(&mut figures, &metrics, &plan, start.plus(Duration::from_secs(second)));
        }
        let seen = look(&mut figures, &metrics, &plan, start.plus(Duration::from_secs(30)));
        assert_eq!(seen.events["ok"], 3_000.0);
        assert_eq!(seen.transactions["committed"], 30.0);
        assert!((80.0..=100.0).contains(&seen.per_second.events), "{:?}", seen.per_second);
        let p99 = seen.scoring.p99.unwrap();
        assert!((0.002..=0.005).contains(&p99), "{p99}");
        assert_eq!(seen.end_to_end, Percentiles::default(), "nothing was measured");
    }

    #[test]
    fn stages_and_flows_are_those_of_their_lifecycle() {
        let plan = plan();
        let metrics = Metrics::new(&plan).unwrap();
        let figures = PartitionFigures {
            customers: 3,
            bytes: 9,
            population: vec![vec![0, 1, 0, 0, 2, 0]],
            ..Default::default()
        };
        metrics.set_partition(0, figures.clone());
        metrics.set_partition(1, figures);
        let seen = look(&mut Figures::default(), &metrics, &plan, Tick::now());
        let retention = &seen.lifecycles[0];
        assert_eq!((retention.name.as_str(), retention.initial.as_str()), ("retention", "reach"));
        let of: Vec<_> = retention.stages.iter().map(|s| s.customers).collect();
        assert_eq!(of, [0.0, 2.0, 0.0, 0.0, 4.0, 0.0]);
        assert!(retention.flows.is_empty());
        assert_eq!((seen.customers, seen.score_distribution.len()), (6.0, 21));
        let unmeasured = Quality { labels: Some(0.0), ..Quality::default() };
        assert_eq!(seen.quality, unmeasured, "not measured is not shown");
    }

    #[test]
    fn a_challenger_is_shown_beside_the_model_in_use() {
        let config = Config::default();
        let champion = crate::setup::model(&config, None).unwrap();
        let mut other = champion.clone();
        other.version = "next".into();
        let plan =
            crate::setup::plan_of(&config, &champion).unwrap().with_challenger(&champion, &other).unwrap();
        let metrics = Metrics::new(&plan).unwrap();
        let mut tally = crate::pipeline::engine::Tally::default();
        (tally.differences[5], tally.difference_sum) = (4, -0.06);
        let mut local = metrics.local();
        local.tally(&plan, &tally);
        local.flush();
        let seen = look(&mut Figures::default(), &metrics, &plan, Tick::now()).quality.challenger.unwrap();
        assert_eq!(seen.model, format!("{} next", champion.name));
        assert_eq!((seen.auc, seen.brier, seen.mean_difference), (None, None, Some(-0.015)));
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = Buckets { bounds: vec![1.0, 2.0, 4.0], counts: vec![0.0, 2.0, 2.0, 0.0] };
        assert_eq!(buckets.quantile(0.5), Some(2.0));
        assert_eq!(buckets.quantile(0.75), Some(3.0));
        let beyond = Buckets { bounds: vec![1.0], counts: vec![0.0, 5.0] };
        assert_eq!(beyond.quantile(0.5), Some(1.0));
        assert_eq!(Buckets::default().quantile(0.5), None);
    }
}
