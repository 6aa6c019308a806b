//! What the program tells about itself in numbers: one registry, filled by the workers, read by scrapes.
//!
//! Everything per event is counted by a worker's own [`Local`] and handed over once per commit, so that an
//! aborted transaction leaves no trace. What exists is said in [`table`].

pub mod table;
pub mod histogram;
pub mod kpis;
mod shown;
mod local;
mod live;
mod drift;
#[cfg(target_os = "linux")]
mod process;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::error::{Error, Result};
use crate::event::{Reason, Source};
use crate::pipeline::drift::Census;
use crate::pipeline::emit::Trigger;
use crate::pipeline::engine::FromGone;
use crate::pipeline::moves::Moves;
use crate::pipeline::plan::Plan;
use crate::pipeline::quality::Ledger;
use crate::pipeline::worth::Worth;
use crate::time::Ts;
use histogram::{Histogram, Registered};
use kpis::Kpis;
use table::{Family, Kind};

pub use local::Local;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The most pairs of stages that are exported before anybody moved between them. Presets stay far below;
/// beyond it a pair appears with its first move.
const STAGE_PAIRS_MOST: usize = 2_000;

/// What became of an input record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventResult {
    Ok,
    Late,
    Duplicate,
    DeadLetter,
    /// Dropped: its customer was erased.
    Erased,
    /// Its customer goes by another id now, under which it counts once more when it is applied.
    Moved,
}

impl EventResult {
    pub const ALL: [EventResult; 6] = [
        EventResult::Ok,
        EventResult::Late,
        EventResult::Duplicate,
        EventResult::DeadLetter,
        EventResult::Erased,
        EventResult::Moved,
    ];

    pub fn name(self) -> &'static str {
        match self {
            EventResult::Ok => "ok",
            EventResult::Late => "late",
            EventResult::Duplicate => "duplicate",
            EventResult::DeadLetter => "dead_letter",
            EventResult::Erased => "erased",
            EventResult::Moved => "moved",
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Aborted,
    /// A newer instance of the same name has taken over.
    Fenced,
    /// Neither commit nor abort could be carried out.
    Failed,
}

impl Outcome {
    pub const ALL: [Outcome; 4] = [Outcome::Committed, Outcome::Aborted, Outcome::Fenced, Outcome::Failed];

    pub fn name(self) -> &'static str {
        match self {
            Outcome::Committed => "committed",
            Outcome::Aborted => "aborted",
            Outcome::Fenced => "fenced",
            Outcome::Failed => "failed",
        }
    }
}

/// What became of a model that was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    Ok,
    /// It was the one in use.
    Unchanged,
    Refused,
}

impl Reload {
    pub const ALL: [Reload; 3] = [Reload::Ok, Reload::Unchanged, Reload::Refused];

    pub fn name(self) -> &'static str {
        match self {
            Reload::Ok => "ok",
            Reload::Unchanged => "unchanged",
            Reload::Refused => "refused",
        }
    }
}

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    Written,
    /// It could not be written.
    Failed,
    /// A partition was restored from it.
    Used,
    /// It did not fit: the state topic was read from its beginning.
    Refused,
}

impl Checkpoint {
    pub const ALL: [Checkpoint; 4] =
        [Checkpoint::Written, Checkpoint::Failed, Checkpoint::Used, Checkpoint::Refused];

    pub fn name(self) -> &'static str {
        match self {
            Checkpoint::Written => "written",
            Checkpoint::Failed => "failed",
            Checkpoint::Used => "used",
            Checkpoint::Refused => "refused",
        }
    }
}

/// What one partition adds to the gauges of state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionFigures {
    pub customers: u64,
    pub bytes: u64,
    /// Customers per lifecycle and stage, as [`crate::pipeline::engine::Engine::population`] gives them.
    pub population: Vec<Vec<i64>>,
    /// Outcomes of scores, as [`crate::pipeline::quality`] counts them.
    pub outcomes: Ledger,
    /// What its customers have brought in, as of the last count.
    pub worth: Worth,
    /// Customers by the bins of training, as [`crate::pipeline::drift`] counts them.
    pub census: Census,
    /// Who moved from stage to stage, as [`crate::pipeline::moves`] counts it.
    pub moves: Moves,
    /// The newest event time seen.
    pub seen_to: Option<Ts>,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    scoring: Arc<Histogram>,
    end_to_end: Arc<Histogram>,
    churn_score: Arc<Histogram>,
    challenger_difference: Arc<Histogram>,
    transaction_duration: Arc<Histogram>,
    restore_duration: Arc<Histogram>,
    events: IntCounterVec,
    dead_letters: IntCounterVec,
    stage_changes: IntCounterVec,
    alerts: IntCounterVec,
    transactions: IntCounterVec,
    restore_records: IntCounterVec,
    /// By lifecycle and stage, in the plan's order.
    customers: Vec<Vec<IntGauge>>,
    state_customers: IntGauge,
    state_bytes: IntGauge,
    lag: IntGaugeVec,
    event_time_lag: GaugeVec,
    partitions: Mutex<BTreeMap<i32, PartitionFigures>>,
    kpis: Kpis,
    /// Locked while all is gathered, so that nobody sees half of it.
    shown: Mutex<shown::Shown>,
    live: live::Live,
    drift: drift::Drifts,
    model_info: IntGaugeVec,
    model_reloads: IntCounterVec,
    checkpoints: IntCounterVec,
    standby_partitions: IntGauge,
    standby_bytes: IntGauge,
}

impl Metrics {
    /// Registers every family of the table; label sets that are known from the start begin at 0.
    pub fn new(plan: &Plan) -> Result<Arc<Metrics>> {
        Metrics::register(plan)
            .map(Arc::new)
            .map_err(|error| Error::world(format!("cannot set up metrics: {error}")))
    }

    fn register(plan: &Plan) -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let to = &registry;
        let customers = gauges(to, &table::CUSTOMERS)?;
        let model_info = gauges(to, &table::MODEL_INFO)?;
        model_info.with_label_values(&[&plan.model_name, &plan.model_version]).set(1);
        gauges(to, &table::BUILD_INFO)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register_process(to)?;
        let metrics = Metrics {
            scoring: histogram(to, &table::SCORING, histogram::latency_bounds())?,
            end_to_end: histogram(to, &table::END_TO_END, histogram::latency_bounds())?,
            churn_score: histogram(to, &table::CHURN_SCORE, histogram::score_bounds())?,
            challenger_difference: histogram(
                to,
                &table::CHALLENGER_DIFFERENCE,
                histogram::difference_bounds(),
            )?,
            transaction_duration: histogram(to, &table::TRANSACTION_DURATION, histogram::latency_bounds())?,
            restore_duration: histogram(to, &table::RESTORE_DURATION, histogram::restore_bounds())?,
            events: counters(to, &table::EVENTS)?,
            dead_letters: counters(to, &table::DEAD_LETTERS)?,
            stage_changes: counters(to, &table::STAGE_CHANGES)?,
            alerts: counters(to, &table::ALERTS)?,
            transactions: counters(to, &table::TRANSACTIONS)?,
            restore_records: counters(to, &table::RESTORE_RECORDS)?,
            customers: stages(plan, |lifecycle, stage| customers.with_label_values(&[lifecycle, stage])),
            state_customers: gauges(to, &table::STATE_CUSTOMERS)?.with_label_values::<&str>(&[]),
            state_bytes: gauges(to, &table::STATE_BYTES)?.with_label_values::<&str>(&[]),
            lag: gauges(to, &table::LAG)?,
            event_time_lag: float_gauges(to, &table::EVENT_TIME_LAG)?,
            partitions: Mutex::default(),
            kpis: Kpis::new(plan),
            shown: Mutex::new(shown::Shown::new(to)?),
            live: live::Live::new(to, plan)?,
            drift: drift::Drifts::new(to, plan)?,
            model_info,
            model_reloads: counters(to, &table::MODEL_RELOADS)?,
            checkpoints: counters(to, &table::CHECKPOINTS)?,
            standby_partitions: gauges(to, &table::STANDBY_PARTITIONS)?.with_label_values::<&str>(&[]),
            standby_bytes: gauges(to, &table::STANDBY_BYTES)?.with_label_values::<&str>(&[]),
            registry,
        };
        metrics.begin_at_zero(plan);
        Ok(metrics)
    }

    /// A rate over a counter sees its first step only if it was there before.
    fn begin_at_zero(&self, plan: &Plan) {
        for source in Source::ALL {
            EventResult::ALL.iter().for_each(|r| self.events(source, *r).inc_by(0));
            Reason::ALL.iter().for_each(|r| self.dead_letters(source, *r).inc_by(0));
        }
        Outcome::ALL.iter().for_each(|o| self.transactions.with_label_values(&[o.name()]).inc_by(0));
        self.restore_records.with_label_values::<&str>(&[]).inc_by(0);
        Reload::ALL.iter().for_each(|r| self.model_reloads.with_label_values(&[r.name()]).inc_by(0));
        Checkpoint::ALL.iter().for_each(|c| self.checkpoints.with_label_values(&[c.name()]).inc_by(0));
        for policy in &plan.settings.policies {
            for control in [false, true] {
                self.alerts(&policy.name, control).inc_by(0);
            }
        }
        let pairs: usize = plan.lifecycles.iter().map(|(l, _)| l.stages().len().pow(2)).sum();
        if pairs > STAGE_PAIRS_MOST {
            return;
        }
        for (k, (lifecycle, _)) in plan.lifecycles.iter().enumerate() {
            let stages = 0..lifecycle.stages().len() as u8;
            for (from, to) in stages.clone().flat_map(|from| stages.clone().map(move |to| (from, to))) {
                if from != to {
                    Trigger::ALL
                        .iter()
                        .for_each(|t| self.stage_changes(plan, (k as u8, from, to, *t)).inc_by(0));
                }
            }
        }
    }

    fn events(&self, source: Source, result: EventResult) -> prometheus::IntCounter {
        self.events.with_label_values(&[source.name(), result.name()])
    }

    fn dead_letters(&self, source: Source, reason: Reason) -> prometheus::IntCounter {
        self.dead_letters.with_label_values(&[source.name(), reason.code()])
    }

    fn alerts(&self, policy: &str, control: bool) -> prometheus::IntCounter {
        self.alerts.with_label_values(&[policy, if control { "control" } else { "treatment" }])
    }

    /// The counter of a key of [`crate::pipeline::engine::Tally::stage_changes`].
    fn stage_changes(&self, plan: &Plan, key: (u8, u8, u8, Trigger)) -> prometheus::IntCounter {
        let (lifecycle, from, to, trigger) = key;
        let (lifecycle, _) = &plan.lifecycles[usize::from(lifecycle)];
        let name = |stage: u8| -> &str { lifecycle.stages().get(usize::from(stage)).map_or("", |s| &s.name) };
        self.stage_changes.with_label_values(&[&*lifecycle.name, name(from), name(to), trigger.name()])
    }

    /// The counter of a key of [`crate::pipeline::engine::Tally::gone_stages`].
    fn gone_stages(&self, plan: &Plan, (lifecycle, from, to): &FromGone) -> prometheus::IntCounter {
        let (lifecycle, _) = &plan.lifecycles[usize::from(*lifecycle)];
        let to = lifecycle.stages().get(usize::from(*to)).map_or("", |s| &s.name);
        let trigger = Trigger::Definition.name();
        self.stage_changes.with_label_values(&[&*lifecycle.name, from, to, trigger])
    }

    /// The text of a scrape. See [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written out in full");
        }
        text
    }

    /// Everything that a scrape would show, for those who read it without one.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.sum_partitions();
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.set(&self.kpis());
        self.registry.gather()
    }

    /// The sum over all series of a family; of a histogram, how often something was observed.
    pub fn total(&self, family: &Family) -> u64 {
        let families = self.gather();
        let metrics = families.iter().filter(|f| f.name() == family.name).flat_map(|f| f.get_metric());
        let of = |m: &prometheus::proto::Metric| match family.kind {
            Kind::Counter => m.get_counter().get_value() as u64,
            Kind::Gauge => m.get_gauge().get_value() as u64,
            Kind::Histogram => m.get_histogram().get_sample_count(),
        };
        metrics.map(of).sum()
    }

    /// Input records whose transaction is committed, whatever became of them.
    pub fn events_done(&self) -> u64 {
        // What follows its customer is done when it is applied.
        let done = || EventResult::ALL.into_iter().filter(|result| *result != EventResult::Moved);
        let of = |source| done().map(|result| self.events(source, result).get()).sum::<u64>();
        Source::ALL.into_iter().map(of).sum()
    }

    /// What [`kpis`] defines, over the partitions of this instance.
    pub fn kpis(&self) -> kpis::Report {
        let partitions = self.lock_partitions();
        let mut customers: Vec<Vec<i64>> = self.customers.iter().map(|s| vec![0; s.len()]).collect();
        let mut worth = Worth::default();
        // Cheap to copy, so that nobody waits for the report to set a partition's figures.
        let moves: Vec<Moves> = partitions.values().map(|figures| figures.moves.clone()).collect();
        let now = partitions.values().filter_map(|figures| figures.seen_to).max();
        for figures in partitions.values() {
            worth.add(&figures.worth);
            for (totals, stages) in customers.iter_mut().zip(&figures.population) {
                totals.iter_mut().zip(stages).for_each(|(total, n)| *total += n);
            }
        }
        drop(partitions);
        self.kpis.report(&moves, now, &customers, &worth)
    }

    /// Takes one partition's figures; the gauges are the sums over partitions.
    pub fn set_partition(&self, partition: i32, figures: PartitionFigures) {
        self.lock_partitions().insert(partition, figures);
    }

    /// The partition is somebody else's now.
    pub fn drop_partition(&self, partition: i32) {
        self.lock_partitions().remove(&partition);
    }

    fn sum_partitions(&self) {
        let partitions = self.lock_partitions();
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.state_customers.set(gauge(partitions.values().map(|p| p.customers).sum()));
        self.state_bytes.set(gauge(partitions.values().map(|p| p.bytes).sum()));
        self.live.show(partitions.values().map(|p| &p.outcomes));
        self.drift.show(partitions.values().map(|p| &p.census));
        for (k, stages) in self.customers.iter().enumerate() {
            for (stage, customers) in stages.iter().enumerate() {
                let of =
                    |p: &PartitionFigures| p.population.get(k).and_then(|stages| stages.get(stage)).copied();
                customers.set(partitions.values().filter_map(of).sum());
            }
        }
    }

    fn lock_partitions(&self) -> MutexGuard<'_, BTreeMap<i32, PartitionFigures>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far an input partition is behind.
    pub fn set_lag(&self, topic: &str, partition: i32, records: i64, event_time_lag_seconds: f64) {
        let partition = partition.to_string();
        self.lag.with_label_values(&[topic, &partition]).set(records);
        self.event_time_lag.with_label_values(&[topic, &partition]).set(event_time_lag_seconds);
    }

    /// The partition is somebody else's now.
    pub fn drop_lag(&self, topic: &str, partition: i32) {
        let partition = partition.to_string();
        // An error says that it was not there, which is as good.
        let _ = self.lag.remove_label_values(&[topic, &partition]);
        let _ = self.event_time_lag.remove_label_values(&[topic, &partition]);
    }

    /// Another model is in use from now on.
    pub fn set_model(&self, plan: &Plan) {
        self.model_info.reset();
        self.model_info.with_label_values(&[&plan.model_name, &plan.model_version]).set(1);
        self.live.set_model(plan);
        self.drift.set_model(plan);
    }

    /// A model was read again.
    pub fn model_reload(&self, result: Reload) {
        self.model_reloads.with_label_values(&[result.name()]).inc();
    }

    /// Something became of a checkpoint.
    pub fn checkpoint(&self, outcome: Checkpoint) {
        self.checkpoints.with_label_values(&[outcome.name()]).inc();
    }

    /// How many partitions of others are here.
    pub fn set_standby_partitions(&self, partitions: u64) {
        self.standby_partitions.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    /// What partitions of others take.
    pub fn set_standby_bytes(&self, bytes: u64) {
        self.standby_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A transaction has ended.
    pub fn transaction(&self, outcome: Outcome, took: Duration) {
        self.transactions.with_label_values(&[outcome.name()]).inc();
        self.transaction_duration.observe(took.as_secs_f64());
    }

    /// A partition's state is back.
    pub fn restored(&self, records: u64, took: Duration) {
        self.restore_records.with_label_values::<&str>(&[]).inc_by(records);
        self.restore_duration.observe(took.as_secs_f64());
    }
}

/// Something for every stage of every lifecycle.
fn stages<T>(plan: &Plan, mut make: impl FnMut(&str, &str) -> T) -> Vec<Vec<T>> {
    let of = plan.lifecycles.iter().map(|(l, _)| l.stages().iter().map(|s| make(&l.name, &s.name)).collect());
    of.collect()
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn counters(registry: &Registry, family: &Family) -> prometheus::Result<IntCounterVec> {
    debug_assert_eq!(family.kind, Kind::Counter);
    let vec = IntCounterVec::new(opts(family), family.labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn gauges(registry: &Registry, family: &Family) -> prometheus::Result<IntGaugeVec> {
    debug_assert_eq!(family.kind, Kind::Gauge);
    let vec = IntGaugeVec::new(opts(family), family.labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn float_gauges(registry: &Registry, family: &Family) -> prometheus::Result<GaugeVec> {
    debug_assert_eq!(family.kind, Kind::Gauge);
    let vec = GaugeVec::new(opts(family), family.labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn histogram(registry: &Registry, family: &Family, bounds: Vec<f64>) -> prometheus::Result<Arc<Histogram>> {
    debug_assert!(family.kind == Kind::Histogram && family.labels.is_empty());
    let histogram = Arc::new(Histogram::new(family, bounds)?);
    registry.register(Box::new(Registered(Arc::clone(&histogram))))?;
    Ok(histogram)
}

/// `process_*`: CPU, memory, file descriptors, threads, start.
#[cfg(target_os = "linux")]
fn register_process(registry: &Registry) -> prometheus::Result<()> {
    registry.register(Box::new(process::Process::new()?))
}

#[cfg(not(target_os = "linux"))]
fn register_process(_: &Registry) -> prometheus::Result<()> {
    Ok(())
}
