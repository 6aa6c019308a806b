//! How long a customer's event, and a customer's silence, takes to be seen, against a real Apache Kafka.
//!
//! `cargo bench --bench latency`. A million customers are in memory; events come at a fixed rate whatever happens to
//! those before them (open loop), each due at an instant of its own, which is its `ts`. Every event is scored and every
//! score is emitted (`min_change = 0`). The latency of an event is from the instant when it was due to the instant when
//! a consumer with `isolation.level=read_committed` has its score, so that a stall anywhere counts, the benchmark's own
//! included. The latency of a silence is from its deadline, which `grace` is a part of by definition, to the same.
//!
//! `RATE=20000 SECONDS=30 CUSTOMERS=1000000 PARTITIONS=4 INTERVALS=20,100 BS=host:port` (default: a broker that
//! `tests/kafka/start.sh` starts), `SET="key=value ..."` for settings of the service. Ends with 1 where an event was not seen.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use stagecast::time::{DAY_MS, HOUR_MS, Tick, Ts, parse_rfc3339, sleep, wall_now};

use support::{Broker, Scrape, Stagecast, percentile, quantile, setting};

/// What Kafka's own script starts a broker with. The tests' broker collects garbage for 20 ms of each 750, since its
/// memory is small.
const KAFKA_JVM: &str = "-Xmx1g -Xms1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent";
/// The service reaches its pace, and a broker that has just been started compiles what it does most: for half a minute it
/// takes half as much CPU again.
const WARM_UP_MS: i64 = 30_000;
const SEEN_MOST: Duration = Duration::from_secs(20);
const RESTORED_MOST: Duration = Duration::from_secs(600);
/// Silence waits this long for events that are late; a part of what silence means, and not of its latency.
const GRACE_MS: i64 = 1_000;
/// Customers who fall silent in the window, per second.
const SILENT_PER_SECOND: u64 = 500;
const ANSWER_MOST: Duration = Duration::from_secs(30);

const LIFECYCLE: &str = r#"
name = "activity"
initial = "active"
[[stage]]
name = "quiet"
enter = "days_since_click >= 1"
[[stage]]
name = "active"
enter = "days_since_click < 1"
"#;

fn config(broker: &str, partitions: u64, port: u16) -> String {
    format!(
        r#"
[app]
id = "latency"
instance = "bench"
[kafka]
"bootstrap.servers" = "{broker}"
[topics]
partitions = {partitions}
[time]
grace = "{GRACE_MS}ms"
[lifecycles]
use = ["retention", "activity.toml"]
[scores]
min_change = 0.0
[http]
listen = "127.0.0.1:{port}"
"#
    )
}

type Feeder = ThreadedProducer<DefaultProducerContext>;

fn feeder(broker: &Broker) -> Feeder {
    let mut config = broker.client();
    config.set("compression.type", "lz4").set("partitioner", "murmur2_random");
    config.set("queue.buffering.max.messages", "1000000").set("enable.idempotence", "true");
    config.create().expect("a producer")
}

fn feed(feeder: &Feeder, topic: &str, key: &str, json: &str, timestamp: Ts) {
    loop {
        let record = BaseRecord::to(topic).key(key).payload(json).timestamp(timestamp);
        match feeder.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                sleep(Duration::from_millis(5))
            }
            Err((error, _)) => panic!("cannot feed: {error}"),
        }
    }
}

fn resident(number: u64) -> String {
    format!("c-{number:07}")
}

/// A million customers with a click each, between one and twenty hours ago: their silences are hours away.
fn settle(feeder: &Feeder, customers: u64) {
    let (now, span) = (wall_now(), 19 * HOUR_MS);
    for number in 0..customers {
        let ts = now - 20 * HOUR_MS + span * number as i64 / customers as i64;
        let customer = resident(number);
        let (topic, json) = support::shop_event(number, &customer, ts, 0);
        feed(feeder, topic, &customer, &json, ts);
    }
    feeder.flush(Duration::from_secs(60)).expect("the broker takes all");
}

/// Customers whose only click was so long ago that their silence begins in the window.
fn fall_silent(feeder: &Feeder, first: u64, window: (Ts, Ts), count: u64) {
    for number in 0..count {
        let deadline = window.0 + (window.1 - window.0) * number as i64 / count as i64;
        let customer = format!("q-{first}-{number:06}");
        // Ids of events that no other event of the run has.
        let id = first + (1 << 31) + number;
        let (topic, json) = support::shop_event(id, &customer, deadline - DAY_MS, 0);
        feed(feeder, topic, &customer, &json, wall_now());
    }
    feeder.flush(Duration::from_secs(60)).expect("the broker takes all");
}

/// Sends events at `rate` from `start` to `end`, each with the instant it was due as its own.
fn keep_up(feeder: &Feeder, rate: u64, (start, end): (Ts, Ts), customers: u64, first: u64) {
    let mut rng = rand_pcg::Pcg64::seed_from_u64(first);
    let total = (end - start) as u64 * rate / 1_000;
    for number in 0..total {
        let due = start + (number * 1_000 / rate) as i64;
        while wall_now() < due {
            sleep(Duration::from_micros(500));
        }
        let customer = resident(rng.random_range(0..customers));
        let (topic, json) = support::shop_event(first + number, &customer, due, rng.random_range(0..100));
        feed(feeder, topic, &customer, &json, due);
    }
    feeder.flush(Duration::from_secs(60)).expect("the broker takes all");
}

/// What a consumer of committed records saw of a window, in milliseconds.
#[derive(Default)]
struct Seen {
    scores: Vec<i64>,
    silences: Vec<i64>,
}

/// Reads what is committed from its making on.
struct Watcher {
    consumer: BaseConsumer,
}

impl Watcher {
    fn new(broker: &Broker) -> Watcher {
        let mut config = broker.client();
        config.set("group.id", "latency-watcher").set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut assignment = TopicPartitionList::new();
        for topic in ["churn-scores", "stage-changes"] {
            let metadata = consumer.fetch_metadata(Some(topic), ANSWER_MOST).expect("metadata");
            for partition in metadata.topics()[0].partitions() {
                let (_, end) =
                    consumer.fetch_watermarks(topic, partition.id(), ANSWER_MOST).expect("watermarks");
                assignment.add_partition_offset(topic, partition.id(), Offset::Offset(end)).expect("a place");
            }
        }
        consumer.assign(&assignment).expect("an assignment");
        Watcher { consumer }
    }

    /// Until told to stop. `window`: event times that count.
    fn watch(&self, window: (Ts, Ts), stop: &AtomicBool) -> Seen {
        let mut seen = Seen::default();
        while !stop.load(Ordering::Relaxed) {
            let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(20)) else { continue };
            let now = wall_now();
            let (key, json) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
            let Some(ts) = ts_of(json).filter(|ts| (window.0..window.1).contains(ts)) else { continue };
            match (message.topic(), key.starts_with(b"q-")) {
                ("churn-scores", false) => seen.scores.push(now - ts),
                ("stage-changes", true) if contains(json, br#""to":"quiet""#) => {
                    seen.silences.push(now - ts - GRACE_MS);
                }
                _ => {}
            }
        }
        seen.scores.sort_unstable();
        seen.silences.sort_unstable();
        seen
    }
}

fn contains(json: &[u8], text: &[u8]) -> bool {
    json.windows(text.len()).any(|window| window == text)
}

/// The event time of an output.
fn ts_of(json: &[u8]) -> Option<Ts> {
    const NAME: &[u8] = br#""ts":""#;
    let at = json.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    parse_rfc3339(std::str::from_utf8(json.get(at..at + 24)?).ok()?)
}

struct Bench {
    broker: Broker,
    stagecast: Stagecast,
    home: tempfile::TempDir,
    feeder: Feeder,
    port: u16,
    rate: u64,
    seconds: u64,
    customers: u64,
}

impl Bench {
    /// Measures one commit interval; returns whether every event of the window was seen.
    fn measure(&self, interval: u64, first: u64, settled: u64) -> bool {
        let log = self.home.path().join(format!("service-{interval}.log"));
        let own = std::env::var("SET").unwrap_or_default();
        let mut settings = vec![format!("commit.interval={interval}ms")];
        settings.extend(own.split_whitespace().map(str::to_owned));
        let mut service = self.stagecast.run(&[], &settings, &log);
        support::wait_until_ready(self.port, &mut service, &log);
        support::wait_for("all customers are in memory", RESTORED_MOST, || {
            Scrape::of(self.port).sum("stagecast_state_customers") >= settled as f64 && self.lag() == 0.0
        });
        // What else waits to be seen is out by then.
        sleep(Duration::from_secs(2));
        let watcher = Watcher::new(&self.broker);
        let span = self.seconds as i64 * 1_000;
        let start = wall_now() + 3_000;
        let window = (start + WARM_UP_MS, start + WARM_UP_MS + span);
        let silent = SILENT_PER_SECOND * self.seconds;
        fall_silent(&self.feeder, first, window, silent);
        let load = support::load();
        let stop = AtomicBool::new(false);
        let used = || [support::cpu_seconds(service.pid()), self.broker.cpu_seconds()];
        let (mut before, mut after) = (None, None);
        let seen = std::thread::scope(|scope| {
            let watching = scope.spawn(|| watcher.watch(window, &stop));
            let feeding = scope
                .spawn(|| keep_up(&self.feeder, self.rate, (start, window.1 + 1_000), self.customers, first));
            wait_until(window.0);
            before = Some((Scrape::of(self.port), used()));
            wait_until(window.1);
            after = Some((Scrape::of(self.port), used()));
            feeding.join().expect("no panic");
            // Silence is seen a grace later, and a stall is waited for.
            let waited = Tick::now();
            sleep(Duration::from_millis(GRACE_MS as u64 + 2_000));
            while self.lag() > 0.0 && waited.elapsed() < SEEN_MOST {
                sleep(Duration::from_millis(100));
            }
            sleep(Duration::from_secs(2));
            stop.store(true, Ordering::Relaxed);
            watching.join().expect("no panic")
        });
        let (Some((before, cpu_before)), Some((after, cpu_after))) = (before, after) else { return false };
        let cores = |k: usize| (cpu_after[k] - cpu_before[k]) / self.seconds as f64;
        println!(
            "commit interval {interval} ms, {} events/s for {} s, {} customers, load {load:.1} before",
            self.rate, self.seconds, self.customers
        );
        show_scoring(&after.buckets_since(&before, "stagecast_scoring_duration_seconds"));
        show("end to end, due to seen", &seen.scores);
        let own = after.buckets_since(&before, "stagecast_end_to_end_latency_seconds");
        println!(
            "  the service's own end to end: p50 {:.0} ms, p99 {:.0} ms",
            quantile(&own, 0.5) * 1e3,
            quantile(&own, 0.99) * 1e3
        );
        show("silence, deadline and grace to seen", &seen.silences);
        let transactions = after.buckets_since(&before, "stagecast_transaction_duration_seconds");
        println!(
            "  transactions: {:.0} per second, p50 {:.1} ms, p99 {:.1} ms each",
            transactions.last().map_or(0.0, |(_, n)| *n) / self.seconds as f64,
            quantile(&transactions, 0.5) * 1e3,
            quantile(&transactions, 0.99) * 1e3
        );
        println!("  cores in use: service {:.2}, broker {:.2}", cores(0), cores(1));
        let (told, resident) =
            (after.sum("stagecast_state_bytes"), support::status_bytes(service.pid(), "VmRSS"));
        println!("  memory: {:.0} MB resident, of which {:.0} MB state", resident as f64 / 1e6, told / 1e6);
        drop(service);
        seen.scores.len() as u64 == self.rate * self.seconds && seen.silences.len() as u64 == silent
    }

    fn lag(&self) -> f64 {
        Scrape::of(self.port).sum("stagecast_consumer_lag_records")
    }
}

fn wait_until(ts: Ts) {
    while wall_now() < ts {
        sleep(Duration::from_millis(1));
    }
}

fn show(what: &str, sorted: &[i64]) {
    let at = |q| percentile(sorted, q).map_or("-".to_owned(), |ms| ms.to_string());
    println!(
        "  {what}: p50 {} ms, p99 {} ms, p99.9 {} ms, most {} ms ({} seen)",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        sorted.len()
    );
}

fn show_scoring(buckets: &[(f64, f64)]) {
    let micros = |q| quantile(buckets, q) * 1e6;
    let all = buckets.last().map_or(0.0, |(_, n)| *n);
    let under = buckets.iter().find(|(bound, _)| *bound >= 20e-6).map_or(0.0, |(_, n)| *n);
    println!(
        "  scoring: p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs; {:.2} % within 20 µs of {all:.0}",
        micros(0.5),
        micros(0.99),
        micros(0.999),
        100.0 * under / all
    );
}

fn main() {
    let broker = Broker::start(KAFKA_JVM);
    let home = tempfile::tempdir().expect("a folder");
    std::fs::write(home.path().join("activity.toml"), LIFECYCLE).expect("a lifecycle");
    let port = support::free_port();
    let stagecast = Stagecast::new(home.path(), &config(&broker.address, setting("PARTITIONS", 4), port));
    stagecast.must(&["topics", "create", "--inputs"], &[]);
    let (customers, rate) = (setting("CUSTOMERS", 1_000_000), setting("RATE", 20_000));
    let feeder = feeder(&broker);
    settle(&feeder, customers);
    let bench =
        Bench { broker, stagecast, home, feeder, port, rate, seconds: setting("SECONDS", 30), customers };
    let intervals = std::env::var("INTERVALS").unwrap_or("20,100".into());
    let (mut all_seen, mut first, mut settled) = (true, customers, customers);
    for interval in intervals.split(',') {
        let interval = interval.trim().parse().expect("INTERVALS are whole milliseconds");
        all_seen &= bench.measure(interval, first, settled);
        first += 1 << 32;
        settled += SILENT_PER_SECOND * bench.seconds;
    }
    if !all_seen {
        eprintln!("not every event and silence of a window was seen");
        std::process::exit(1);
    }
}
