//! A world for the whole service: its own topics, a configuration, events to load, and the one check: what a
//! read_committed consumer saw equals what `replay` says, event for event.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use stagecast::event::Source;
use stagecast::simulate::{Settings, Simulation};
use stagecast::time::{Tick, format_rfc3339, parse_rfc3339, sleep};

use crate::broker::RealKafka;
use crate::checker::{self, by_customer};
use crate::process::Process;
use crate::records::{Isolation, Record, fresh};

/// Long after the last event of any world.
pub const UNTIL: &str = "2025-12-01T00:00:00Z";
pub const OUTPUTS: [&str; 4] = ["stage-changes", "churn-scores", "churn-alerts", "churn-outcomes"];
const PATIENCE: Duration = Duration::from_secs(120);
const MARKERS_MAX: Duration = Duration::from_secs(5);

pub struct World {
    pub kafka: &'static RealKafka,
    /// What the program is told of where the brokers are.
    bootstrap: String,
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
        World::on(RealKafka::shared(), name, partitions, extra)
    }

    /// The same on brokers of its own.
    pub fn on(kafka: &'static RealKafka, name: &str, partitions: i32, extra: &str) -> World {
        let world = World {
            kafka,
            bootstrap: kafka.bootstrap_of_programs(),
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
        let Self { app, partitions, extra, bootstrap, .. } = self;
        let replication = self.kafka.size();
        let sources: String = Source::ALL
            .map(|s| format!("[source.{0}]\ntopic = \"{app}-{0}\"\nenabled = true\n", s.name()))
            .concat();
        format!(
            "[app]\nid = \"{app}\"\ninstance = \"{instance}\"\nworkers = 2\n\
             [kafka]\n\"bootstrap.servers\" = \"{bootstrap}\"\n\
             [kafka.consumer]\n\"session.timeout.ms\" = 3000\n\"heartbeat.interval.ms\" = 500\n\
             [topics]\npartitions = {partitions}\nreplication = {replication}\nstage_changes = \"{app}-stage-changes\"\n\
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
        self.await_markers();
        process.stdout() + &process.stderr()
    }

    /// A commit is answered before its markers stand in every partition: who reads at once may miss the last
    /// transaction. One that stays open is no affair of this place.
    fn await_markers(&self) {
        let ends = |isolation| OUTPUTS.map(|name| self.kafka.ends(&self.topic(name), isolation));
        let started = Tick::now();
        while ends(Isolation::Committed) != ends(Isolation::Uncommitted) && started.elapsed() < MARKERS_MAX {
            sleep(Duration::from_millis(20));
        }
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

    /// How many events lie before this place in time (0 to 1).
    pub fn count(&self, to: f64) -> i64 {
        let (first, last) = (self.instant(0.0), self.instant(1.0));
        let end = first + ((last - first) as f64 * to) as i64;
        let before = |(_, json): &&(String, String)| to >= 1.0 || time_of(json) < end;
        self.events.iter().flatten().filter(before).count() as i64
    }

    /// Puts events that were added by hand in the order of time.
    pub fn sort(&mut self) {
        self.events.iter_mut().for_each(|events| events.sort_by_key(|(_, json)| time_of(json)));
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
        let (input, output) = (self.input(), self.dir.path().join("replay"));
        fs::create_dir_all(&input).unwrap();
        for source in Source::ALL {
            let lines: String =
                self.events[source.index()].iter().map(|(_, json)| format!("{json}\n")).collect();
            fs::write(input.join(format!("{}.ndjson", source.name())), lines).unwrap();
        }
        let (input, out) = (input.to_string_lossy().into_owned(), output.to_string_lossy().into_owned());
        let args =
            [&["replay", "--force", "--input", &input, "--output", &out, "--until", UNTIL], more].concat();
        self.finish(&args, &[]);
        output
    }

    /// Where [`World::replay`] leaves what it read.
    pub fn input(&self) -> PathBuf {
        self.dir.path().join("input")
    }

    /// Consumes what is left, runs the clocks on, and checks everything.
    pub fn finish_and_check(&self) {
        self.finish(&["run", "--until-end", "--until", UNTIL], &[]);
        self.check();
    }

    /// What was written, per output and customer, in order.
    pub fn written(&self, isolation: Isolation) -> BTreeMap<String, BTreeMap<String, Vec<Value>>> {
        OUTPUTS.into_iter().map(|name| (name.to_owned(), self.read(name, isolation))).collect()
    }

    /// The records of one output, per customer, in order.
    pub fn read(&self, name: &str, isolation: Isolation) -> BTreeMap<String, Vec<Value>> {
        let mut by_customer: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let records = self.kafka.read(&[&self.topic(name)], isolation);
        for read in records.iter().filter(|read| read.value.is_some()) {
            let value: Value = serde_json::from_str(read.text()).unwrap();
            by_customer.entry(value["customer_id"].as_str().unwrap().to_owned()).or_default().push(value);
        }
        by_customer
    }

    /// The outputs, against replay.
    pub fn check(&self) {
        checker::expect_none(&checker::of_outputs(self));
    }
}

pub fn time_of(json: &str) -> i64 {
    let event: Value = serde_json::from_str(json).unwrap();
    parse_rfc3339(event["ts"].as_str().unwrap()).unwrap()
}

/// An event for a hand-made history.
pub fn event(customer: &str, kind: &str, ts: i64, more: &str) -> String {
    format!(r#"{{"customer_id":"{customer}","type":"{kind}","ts":"{}"{more}}}"#, format_rfc3339(ts))
}
