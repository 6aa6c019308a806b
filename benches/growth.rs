//! How the cost grows: CPU seconds and memory against everything there can be more of, and the exponent of each.
//!
//! `cargo bench --bench growth` for all; `-- core` for what one thread does in this process, `-- service` for whole
//! processes against a real broker. An exponent is the slope of a straight line through the logarithms: 1 is
//! proportional, 0 does not depend on it. CPU time is the thread's or the processes' own, the least of `ROUNDS=3`
//! runs, so that a busy machine troubles it little.
//!
//! `EVENTS=1000000 BS=host:port` for the service (default: a broker that `tests/kafka/start.sh` starts).

#[path = "../tests/support/mod.rs"]
mod driver;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use stagecast::event::Source;
use stagecast::event::native::{Envelope, decode};
use stagecast::model::artifact::Transform;
use stagecast::pipeline::catalogue::Catalogue;
use stagecast::pipeline::engine::Engine;
use stagecast::pipeline::lifecycle::{preset, preset_names};
use stagecast::pipeline::plan::{Plan, Settings};
use stagecast::time::{DAY_MS, HOUR_MS, Ts, sleep};

use support::{Broker, Running, Stagecast, setting};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const START: Ts = 1_767_225_600_000;
const DAYS: i64 = 30;
const THROUGH_MOST: Duration = Duration::from_secs(600);

/// What was spent at one size.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu_seconds: f64,
    bytes: f64,
}

/// One thing there can be more of.
struct Curve {
    name: &'static str,
    points: Vec<(f64, Cost)>,
}

impl Curve {
    /// The least of several runs at each size.
    fn of(name: &'static str, sizes: &[u64], mut run: impl FnMut(u64) -> Cost) -> Curve {
        let rounds = setting("ROUNDS", 3);
        let mut least = |size: u64| {
            let costs = (0..rounds).map(|_| run(size));
            let cost = costs.min_by(|a, b| a.cpu_seconds.total_cmp(&b.cpu_seconds)).expect("a round");
            eprintln!("{name} {size}: {:.2} CPU s, {:.1} MB", cost.cpu_seconds, cost.bytes / 1e6);
            (size as f64, cost)
        };
        Curve { name, points: sizes.iter().map(|size| least(*size)).collect() }
    }

    fn exponent(&self, of: fn(&Cost) -> f64) -> f64 {
        slope(self.points.iter().map(|(size, cost)| (size.ln(), of(cost).ln())))
    }

    fn print(&self) {
        let row = |what: &str, values: Vec<String>, exponent: String| {
            println!("| {} | {what} | {} | {exponent} |", self.name, values.join(" · "));
        };
        row("sizes", self.points.iter().map(|(size, _)| format!("{size}")).collect(), String::new());
        let costs = |of: fn(&Cost) -> String| self.points.iter().map(|(_, cost)| of(cost)).collect();
        let cpu = self.exponent(|cost| cost.cpu_seconds);
        row("CPU s", costs(|cost| format!("{:.2}", cost.cpu_seconds)), format!("{cpu:.2}"));
        let memory = self.exponent(|cost| cost.bytes);
        row("MB", costs(|cost| format!("{:.1}", cost.bytes / 1e6)), format!("{memory:.2}"));
    }
}

/// Of the line of least squares.
fn slope(points: impl Iterator<Item = (f64, f64)>) -> f64 {
    let points: Vec<(f64, f64)> = points.collect();
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let covariance: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    covariance / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}

/// A load on one engine.
#[derive(Clone, Copy)]
struct Load {
    events: u64,
    customers: u64,
    days: i64,
    /// Days at the end without an event.
    silent_days: i64,
}

const LOAD: Load = Load { events: 400_000, customers: 40_000, days: DAYS, silent_days: 0 };

/// CPU seconds of this thread.
fn thread_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Decodes and applies a load in time order, with silence lived through hour by hour and a commit every hour.
/// Making the events is not counted. Memory is what the engine tells, which `benches/memory.rs` holds against what
/// is resident.
fn live(plan: &Arc<Plan>, load: Load) -> Cost {
    let mut engine = Engine::new(Arc::clone(plan), true);
    let mut rng = rand_pcg::Pcg64::seed_from_u64(7);
    let (hours, mut number, mut cpu_seconds) = (load.days * 24, 0u64, 0.0);
    let due = |hour: i64| load.events * hour as u64 / hours as u64;
    for hour in 0..hours + load.silent_days * 24 {
        let from = START + hour * HOUR_MS;
        let here = if hour < hours { due(hour + 1) - due(hour) } else { 0 };
        let events: Vec<_> = (0..here)
            .map(|k| {
                number += 1;
                let customer = format!("c-{:07}", rng.random_range(0..load.customers));
                let ts = from + (k * HOUR_MS as u64 / here) as i64;
                let (topic, json) = support::shop_event(number, &customer, ts, rng.random_range(0..100));
                (Source::ALL.into_iter().find(|source| source.name() == topic).expect("a source"), json)
            })
            .collect();
        let began = thread_seconds();
        for (source, json) in &events {
            let envelope = Envelope { source: *source, key: None, timestamp: None, latest: None };
            let event = decode(json.as_bytes(), &envelope, &plan.settings.money).expect("an event");
            engine.step(&event);
        }
        while engine.tick(from) {
            engine.commit();
        }
        engine.commit();
        cpu_seconds += thread_seconds() - began;
    }
    Cost { cpu_seconds, bytes: engine.bytes() as f64 }
}

fn plan<'a>(lifecycles: impl IntoIterator<Item = &'a str>) -> Arc<Plan> {
    let text = |name| (format!("{name}.toml"), preset(name).expect("a preset").to_owned());
    let lifecycles: Vec<_> = lifecycles.into_iter().map(text).collect();
    let plan = Plan::new(&Catalogue::shipped(), &lifecycles, &driver::small_model(), Settings::default());
    Arc::new(plan.expect("a plan"))
}

/// A catalogue of so many windowed features over as many types of event, and a model that reads them all.
fn plan_of_features(features: u64) -> Arc<Plan> {
    let types = ["page_viewed", "product_viewed", "products_searched", "product_added"];
    let declared: String = (0..features)
        .map(|k| {
            let (name, days) = (types[k as usize % types.len()], 2 + k / types.len() as u64);
            format!(
                "[[feature]]\nname = \"f{k}\"\nsource = \"clickstream\"\ntypes = [\"{name}\"]\nagg = \"count\"\n\
                 windows = [\"{days}d\"]\n"
            )
        })
        .collect();
    let file = format!("default = false\n{declared}");
    let catalogue = Catalogue::load("features.toml", &file).expect("a catalogue");
    let names: Vec<String> = (0..features).map(|k| format!("f{k}_{}d", 2 + k / types.len() as u64)).collect();
    let terms: Vec<_> =
        names.iter().map(|name| (name.as_str(), Transform::Log1p, (0.5, 1.0, -0.1))).collect();
    let model = driver::model_over(&catalogue, 0.3, &terms);
    let lifecycle = "name = \"one\"\ninitial = \"low\"\n[[stage]]\nname = \"high\"\nenter = \"f0_2d >= 3\"\n\
                     [[stage]]\nname = \"low\"\nenter = \"f0_2d < 3\"\n";
    let lifecycles = [("one.toml".to_owned(), lifecycle.to_owned())];
    Arc::new(Plan::new(&catalogue, &lifecycles, &model, Settings::default()).expect("a plan"))
}

fn core() -> Vec<Curve> {
    let retention = plan(["retention"]);
    let all: Vec<&str> = preset_names().collect();
    vec![
        Curve::of("events (40,000 customers, 30 days)", &[200_000, 400_000, 800_000, 1_600_000], |events| {
            live(&retention, Load { events, ..LOAD })
        }),
        Curve::of("customers (10 events each)", &[10_000, 20_000, 40_000, 80_000, 160_000], |customers| {
            live(&retention, Load { customers, events: 10 * customers, ..LOAD })
        }),
        Curve::of(
            "customers (400,000 events in all)",
            &[10_000, 20_000, 40_000, 80_000, 160_000],
            |customers| live(&retention, Load { customers, ..LOAD }),
        ),
        Curve::of("days of silence after 2 of events", &[15, 30, 60, 120], |days| {
            live(&retention, Load { events: 40_000, days: 2, silent_days: days as i64, ..LOAD })
        }),
        Curve::of("features, all in the model", &[8, 15, 30, 60], |features| {
            live(&plan_of_features(features), LOAD)
        }),
        Curve::of("lifecycles (presets)", &[1, 2, 4, 8], |count| {
            live(&plan(all.iter().copied().take(count as usize)), LOAD)
        }),
    ]
}

/// Topics of so many partitions with `EVENTS` events of 50,000 customers over 90 days.
struct Service<'a> {
    broker: &'a Broker,
    home: tempfile::TempDir,
    partitions: u64,
    /// Groups start from the beginning.
    runs: u64,
}

impl Service<'_> {
    fn filled(broker: &Broker, partitions: u64) -> Service<'_> {
        let home = tempfile::tempdir().expect("a folder");
        let service = Service { broker, home, partitions, runs: 0 };
        service.stagecast("fill").must(&["topics", "create", "--inputs"], &[]);
        let mut config = broker.client();
        config.set("linger.ms", "20").set("compression.type", "lz4").set("partitioner", "murmur2_random");
        config.set("queue.buffering.max.messages", "1000000");
        let feeder: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
        let (events, mut rng) = (setting("EVENTS", 1_000_000), rand_pcg::Pcg64::seed_from_u64(7));
        for number in 0..events {
            let customer = format!("c-{:07}", rng.random_range(0..50_000));
            let ts = START + (number as i64 * 90 * DAY_MS) / events as i64;
            let (topic, json) = support::shop_event(number, &customer, ts, rng.random_range(0..100));
            let topic = format!("g{partitions}-{topic}");
            let record = || BaseRecord::to(&topic).key(&customer).payload(&json).timestamp(ts);
            while feeder.send(record()).is_err() {
                sleep(Duration::from_millis(5));
            }
        }
        feeder.flush(Duration::from_secs(60)).expect("the broker takes all");
        service
    }

    /// The program with outputs and a group of their own.
    fn stagecast(&self, run: &str) -> Stagecast {
        let (partitions, address) = (self.partitions, &self.broker.address);
        let sources: String = support::TOPICS
            .iter()
            .map(|topic| format!("[source.{topic}]\ntopic = \"g{partitions}-{topic}\"\n"))
            .collect();
        let topics: String =
            ["stage_changes", "churn_scores", "churn_alerts", "churn_outcomes", "dlq", "state"]
                .iter()
                .map(|topic| format!("{topic} = \"g{partitions}-{run}-{topic}\"\n"))
                .collect();
        let text = format!(
            "[app]\nid = \"g{partitions}-{run}\"\nworkers = 1\n[kafka]\n\"bootstrap.servers\" = \"{address}\"\n\
             [topics]\npartitions = {partitions}\n{topics}[time]\nclock = \"events\"\n\
             [http]\nlisten = \"127.0.0.1:0\"\n{sources}"
        );
        Stagecast::new(self.home.path(), &text)
    }

    fn logs(&self, run: &str, instances: u64) -> String {
        let log = |k| std::fs::read_to_string(self.home.path().join(format!("{run}-{k}.log")));
        (0..instances).map(|k| log(k).unwrap_or_default()).collect()
    }

    /// Works the topics off with so many processes of one thread each.
    fn drain(&mut self, instances: u64) -> Cost {
        self.runs += 1;
        let run = format!("r{}", self.runs);
        let stagecast = self.stagecast(&run);
        stagecast.must(&["topics", "create", "--inputs"], &[]);
        let before = support::cpu_seconds_of_the_ended();
        let mut processes: Vec<Running> = (0..instances)
            .map(|k| {
                let log = self.home.path().join(format!("{run}-{k}.log"));
                stagecast.run(&["--until-end"], &[format!("app.instance=i{k}")], &log)
            })
            .collect();
        let mut most = vec![0u64; processes.len()];
        support::wait_for("the topics are worked off", THROUGH_MOST, || {
            for (most, process) in most.iter_mut().zip(&processes) {
                *most = (*most).max(support::status_bytes(process.pid(), "VmHWM"));
            }
            processes.iter_mut().all(|process| process.0.try_wait().ok().flatten().is_some())
        });
        for process in &mut processes {
            let status = process.0.wait().expect("a status");
            assert!(status.success(), "a service failed: {}", self.logs(&run, instances));
        }
        let cpu_seconds = support::cpu_seconds_of_the_ended() - before;
        Cost { cpu_seconds, bytes: most.iter().sum::<u64>() as f64 }
    }
}

fn service() -> Vec<Curve> {
    let broker = Broker::start("");
    let sizes = [2, 4, 8, 16, 32];
    let mut filled: BTreeMap<u64, Service<'_>> =
        sizes.into_iter().map(|partitions| (partitions, Service::filled(&broker, partitions))).collect();
    let mut drain = |partitions: u64, instances: u64| {
        filled.get_mut(&partitions).expect("one of the sizes").drain(instances)
    };
    vec![
        Curve::of("partitions (1 process of 1 thread)", &sizes, |partitions| drain(partitions, 1)),
        Curve::of("processes (8 partitions, 1 thread each)", &[1, 2, 4], |instances| drain(8, instances)),
    ]
}

fn main() {
    stagecast::memory::use_small_pages();
    let asked = |part: &str| {
        let mut parts = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
        parts.peek().is_none() || parts.any(|argument| argument == part)
    };
    println!("load {:.1} before", support::load());
    println!("| of | what | at each size | exponent |\n|---|---|---|---|");
    if asked("core") {
        core().iter().for_each(Curve::print);
    }
    if asked("service") {
        service().iter().for_each(Curve::print);
    }
    println!("load {:.1} after", support::load());
}
