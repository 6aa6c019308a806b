//! A world for the whole service: its own topics, a configuration, events to load, and the one check: what a
//! read_committed consumer saw equals what `replay` says, event for event.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use stagecast::event::Source;
use stagecast::simulate::{Settings, Simulation};
use stagecast::time::{format_rfc3339, parse_rfc3339};

use crate::broker::RealKafka;
use crate::process::Process;
use crate::records::{Isolation, Record, fresh};

/// Long after the last event of any world.
pub const UNTIL: &str = "2025-12-01T00:00:00Z";
const OUTPUTS: [&str; 4] = ["stage-changes", "churn-scores", "churn-alerts", "churn-outcomes"];
const PATIENCE: Duration = Duration::from_secs(120);

pub struct World {
    pub kafka: &'static RealKafka,
    pub app: String,
    pub partitions: i32,
    /// What was loaded, by source.
    pub events: [Vec<(String, String)>; 4],
    extra: String,
    dir: tempfile::TempDir,
}

impl World {
    /// Topics of a fresh application on the shared broker. `extra` is more configuration.
    pub fn new(name: &str, partitions: i32, extra: &str) -> World {
        let world = World {
            kafka: RealKafka::shared(),
            app: fresh(name),
            partitions,
            events: Default::default(),
            extra: extra.to_owned(),
            dir: tempfile::tempdir().unwrap(),
        };
        let created = world.finish(&["topics", "create", "--inputs"], &[]);
        assert!(created.contains("created"), "{created}");
        world
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.app)
    }

    /// The configuration of one instance.
    pub fn config(&self, instance: &str) -> String {
        let Self { app, partitions, extra, .. } = self;
        let bootstrap = self.kafka.bootstrap();
        let sources: String = Source::ALL
            .map(|s| format!("[source.{0}]\ntopic = \"{app}-{0}\"\nenabled = true\n", s.name()))
            .concat();
        format!(
            "[app]\nid = \"{app}\"\ninstance = \"{instance}\"\nworkers = 2\n\
             [kafka]\n\"bootstrap.servers\" = \"{bootstrap}\"\n\
             [kafka.consumer]\n\"session.timeout.ms\" = 3000\n\"heartbeat.interval.ms\" = 500\n\
             [topics]\npartitions = {partitions}\nreplication = 1\nstage_changes = \"{app}-stage-changes\"\n\
             churn_scores = \"{app}-churn-scores\"\nchurn_alerts = \"{app}-churn-alerts\"\n\
             churn_outcomes = \"{app}-churn-outcomes\"\n\
             {sources}\n[time]\nclock = \"events\"\n[http]\nlisten = \"127.0.0.1:0\"\n{extra}\n"
        )
    }

    /// Starts the program as this instance.
    pub fn start(&self, instance: &str, args: &[&str], env: &[(&str, &str)]) -> Process {
        Process::stagecast(&self.config(instance), args, env)
    }

    /// Runs a command to its end and returns what it printed; it must succeed.
    pub fn finish(&self, args: &[&str], env: &[(&str, &str)]) -> String {
        let mut process = self.start("box-0", args, env);
        let code = process.exit_code(PATIENCE);
        assert_eq!(code, Some(0), "{args:?}: {}{}", process.stdout(), process.stderr());
        process.stdout() + &process.stderr()
    }

    /// Simulated customers, in the world and in a folder for replay.
    pub fn simulate(&mut self, customers: u64, days: u32, seed: u64) {
        let settings = Settings { customers, days, seed, ..Settings::default() };
        let records: Vec<_> = Simulation::new(&settings).unwrap().collect();
        for record in records {
            self.add(record.source, &record.customer_id(), &record.json);
        }
    }

    /// Real events of a folder with `.ndjson` or `.ndjson.gz` files.
    pub fn add(&mut self, source: Source, customer: &str, json: &str) {
        self.events[source.index()].push((customer.to_owned(), json.to_owned()));
    }

    /// Sends the events of a share of the time, from one place in it to another (0 to 1), topic by topic.
    pub fn load(&self, from: f64, to: f64) {
        let (first, last) = (self.instant(0.0), self.instant(1.0));
        let at = |share: f64| first + ((last - first) as f64 * share) as i64;
        let inside = |ts: i64| ts >= at(from) && (ts < at(to) || to >= 1.0);
        for source in Source::ALL {
            let events = self.events[source.index()].iter().filter(|(_, json)| inside(time_of(json)));
            let records = events.map(|(key, value)| Record::new(key.as_str(), value.as_str()));
            self.kafka.produce(&self.topic(source.name()), records);
        }
    }

    /// The first (0) or last (1) event time.
    pub fn instant(&self, which: f64) -> i64 {
        let times = self.events.iter().flatten().map(|(_, json)| time_of(json));
        if which == 0.0 { times.min() } else { times.max() }.unwrap_or_default()
    }

    /// What `replay` makes of all events.
    pub fn replay(&self) -> PathBuf {
        self.replay_with(&[])
    }

    /// The features and stages of every customer at an instant, as `replay` has them.
    pub fn features(&self, at: i64) -> BTreeMap<String, Value> {
        let at = format_rfc3339(at);
        let path = self.replay_with(&["--features-at", at.as_str()]).join("features.ndjson");
        let of_customer = |(id, mut all): (String, Vec<Value>)| Some((id, all.pop()?));
        by_customer(&path).into_iter().filter_map(of_customer).collect()
    }

    fn replay_with(&self, more: &[&str]) -> PathBuf {
        let (input, output) = (self.dir.path().join("input"), self.dir.path().join("replay"));
        fs::create_dir_all(&input).unwrap();
        for source in Source::ALL {
            let lines: String =
                self.events[source.index()].iter().map(|(_, json)| format!("{json}\n")).collect();
            fs::write(input.join(format!("{}.ndjson", source.name())), lines).unwrap();
        }
        let (input, out) = (input.to_string_lossy().into_owned(), output.to_string_lossy().into_owned());
        let args = [&["replay", "--input", &input, "--output", &out, "--until", UNTIL], more].concat();
        self.finish(&args, &[]);
        output
    }

    /// Consumes what is left, runs the clocks on, and checks everything.
    pub fn finish_and_check(&self) {
        self.finish(&["run", "--until-end", "--until", UNTIL], &[]);
        self.check();
    }

    /// What was written, per output and customer, in order.
    pub fn written(&self, isolation: Isolation) -> BTreeMap<String, BTreeMap<String, Vec<Value>>> {
        OUTPUTS
            .into_iter()
            .map(|name| {
                let mut by_customer: BTreeMap<String, Vec<Value>> = BTreeMap::new();
                let records = self.kafka.read(&[&self.topic(name)], isolation);
                for read in records.iter().filter(|read| read.value.is_some()) {
                    let value: Value = serde_json::from_str(read.text()).unwrap();
                    by_customer
                        .entry(value["customer_id"].as_str().unwrap().to_owned())
                        .or_default()
                        .push(value);
                }
                (name.to_owned(), by_customer)
            })
            .collect()
    }

    /// The one check.
    pub fn check(&self) {
        let replayed = self.replay();
        let written = self.written(Isolation::Committed);
        let mut records = 0;
        for name in OUTPUTS {
            let expected = by_customer(&replayed.join(format!("{name}.ndjson")));
            let found = &written[name];
            for customer in expected.keys().chain(found.keys()) {
                let (expected, found) = (expected.get(customer), found.get(customer));
                assert_same(name, customer, expected.map_or(&[], |v| v), found.map_or(&[], |v| v));
            }
            records += expected.values().map(Vec::len).sum::<usize>();
        }
        assert!(records > 0, "the check compared nothing");
        check_sequences(&written["stage-changes"]);
    }
}

fn assert_same(name: &str, customer: &str, expected: &[Value], found: &[Value]) {
    for n in 0..expected.len().max(found.len()) {
        if expected.get(n) != found.get(n) {
            let show = |v: Option<&Value>| v.map_or("nothing".into(), Value::to_string);
            panic!(
                "{name} of {customer}, record {n} of {} expected and {} found:\nexpected {}\nfound    {}",
                expected.len(),
                found.len(),
                show(expected.get(n)),
                show(found.get(n))
            );
        }
    }
}

pub fn time_of(json: &str) -> i64 {
    let event: Value = serde_json::from_str(json).unwrap();
    parse_rfc3339(event["ts"].as_str().unwrap()).unwrap()
}

/// Without a gap and without a step back.
pub fn check_sequences(changes: &BTreeMap<String, Vec<Value>>) {
    for (customer, changes) in changes {
        for (n, change) in changes.iter().enumerate() {
            assert_eq!(change["sequence"].as_u64(), Some(n as u64 + 1), "{customer}");
        }
    }
}

fn by_customer(path: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        all.entry(value["customer_id"].as_str().unwrap().to_owned()).or_default().push(value);
    }
    all
}

/// An event for a hand-made history.
pub fn event(customer: &str, kind: &str, ts: i64, more: &str) -> String {
    format!(r#"{{"customer_id":"{customer}","type":"{kind}","ts":"{}"{more}}}"#, format_rfc3339(ts))
}
