//! The one checker: everything in the topics, committed and not, against the sequential replay of the input.
//!
//! It lists what is wrong instead of ending at the first, so that a test can also expect it to find something.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use stagecast::config::{Config, Layers};
use stagecast::event::{Reject, Source};
use stagecast::kafka::restore::Reading;
use stagecast::pipeline::engine::Engine;
use stagecast::pipeline::plan::Plan;
use stagecast::replay::{Inputs, Merged, RawRecord, Rejected};
use stagecast::setup;
use stagecast::time::parse_rfc3339;

use crate::records::Isolation;
use crate::world::{OUTPUTS, UNTIL, World};

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Replay writes it, the service did not.
    LostWrite,
    /// It is there more often than replay writes it. An aborted record that became visible is found as this,
    /// since its successor wrote it again.
    Duplicate,
    /// It is there, committed, and replay does not write it.
    Foreign,
    /// An uncommitted record, taken back or not, that replay does not write.
    StrayWrite,
    /// The right records in another order.
    Order,
    /// `sequence` has a gap or steps back.
    Sequence,
    /// The same alert twice.
    AlertTwice,
    /// A customer's last state in the log is not what sequential work over the input gives.
    State,
    /// A transaction that nobody ends.
    OpenTransaction,
    /// The service refused to go on.
    Refused,
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

/// The kinds among them.
pub fn kinds(violations: &[Violation]) -> BTreeSet<Kind> {
    violations.iter().map(|v| v.kind).collect()
}

/// Fails with the first of them.
pub fn expect_none(violations: &[Violation]) {
    let first: Vec<String> = violations.iter().take(5).map(Violation::to_string).collect();
    assert!(violations.is_empty(), "{} violations, the first:\n{}", violations.len(), first.join("\n"));
}

/// Fails where `sequence` has a gap or steps back.
pub fn expect_sequences(changes: &BTreeMap<String, Vec<Value>>) {
    let mut violations = Vec::new();
    check_sequences(changes, &mut violations);
    expect_none(&violations);
}

/// Everything that is wrong in a world whose clocks were run on to [`UNTIL`].
pub fn violations(world: &World) -> Vec<Violation> {
    let mut found = of_outputs(world);
    found.extend(of_states(world));
    found
}

/// What is wrong with the outputs.
pub fn of_outputs(world: &World) -> Vec<Violation> {
    let replayed = world.replay();
    let mut found = Vec::new();
    let mut expected_records = 0;
    for name in OUTPUTS {
        let expected = by_customer(&replayed.join(format!("{name}.ndjson")));
        let committed = world.read(name, Isolation::Committed);
        expected_records += expected.values().map(Vec::len).sum::<usize>();
        let nothing = Vec::new();
        for customer in expected.keys().chain(committed.keys()).collect::<BTreeSet<_>>() {
            let expected = expected.get(customer).unwrap_or(&nothing);
            let committed = committed.get(customer).unwrap_or(&nothing);
            compare(&format!("{name} of {customer}"), expected, committed, &mut found);
        }
        look_for_strays(name, &expected, &world.read(name, Isolation::Uncommitted), &mut found);
        match name {
            "stage-changes" => check_sequences(&committed, &mut found),
            "churn-alerts" => check_alerts(&committed, &mut found),
            _ => {}
        }
    }
    assert!(expected_records > 0, "the check compares nothing");
    look_for_open_transactions(world, &mut found);
    found
}

fn compare(place: &str, expected: &[Value], found: &[Value], violations: &mut Vec<Violation>) {
    if expected == found {
        return;
    }
    let before = violations.len();
    let mut balance: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    expected.iter().for_each(|value| balance.entry(value.to_string()).or_default().0 += 1);
    found.iter().for_each(|value| balance.entry(value.to_string()).or_default().1 += 1);
    for (value, (expected, found)) in balance {
        let kind = match (expected, found) {
            (e, f) if f < e => Kind::LostWrite,
            (0, f) if f > 0 => Kind::Foreign,
            (e, f) if f > e => Kind::Duplicate,
            _ => continue,
        };
        violations.push(Violation { kind, what: format!("{place}: {value}") });
    }
    if violations.len() == before {
        violations.push(Violation { kind: Kind::Order, what: place.to_owned() });
    }
}

/// What was ever written, committed or not, is what replay writes: whoever wrote it knew all that it should.
fn look_for_strays(
    name: &str,
    expected: &BTreeMap<String, Vec<Value>>,
    written: &BTreeMap<String, Vec<Value>>,
    violations: &mut Vec<Violation>,
) {
    for (customer, values) in written {
        let expected: BTreeSet<String> =
            expected.get(customer).into_iter().flatten().map(Value::to_string).collect();
        for value in values.iter().map(Value::to_string).filter(|value| !expected.contains(value)) {
            let what = format!("{name} of {customer}: {value}");
            violations.push(Violation { kind: Kind::StrayWrite, what });
        }
    }
}

/// The changes of every customer must be numbered from 1 without a gap.
pub fn check_sequences(changes: &BTreeMap<String, Vec<Value>>, violations: &mut Vec<Violation>) {
    for (customer, changes) in changes {
        for (n, change) in changes.iter().enumerate() {
            if change["sequence"].as_u64() != Some(n as u64 + 1) {
                let what = format!("{customer}: change {} has sequence {}", n + 1, change["sequence"]);
                violations.push(Violation { kind: Kind::Sequence, what });
                break;
            }
        }
    }
}

fn check_alerts(alerts: &BTreeMap<String, Vec<Value>>, violations: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    for alert in alerts.values().flatten() {
        let id = alert["alert_id"].to_string();
        if !seen.insert(id.clone()) {
            violations.push(Violation { kind: Kind::AlertTwice, what: id });
        }
    }
}

fn look_for_open_transactions(world: &World, violations: &mut Vec<Violation>) {
    for name in OUTPUTS.iter().chain(&["state"]) {
        let topic = world.topic(name);
        let stable = world.kafka.ends(&topic, Isolation::Committed);
        let ends = world.kafka.ends(&topic, Isolation::Uncommitted);
        if stable != ends {
            let what = format!("{name}: stable up to {stable:?} of {ends:?}");
            violations.push(Violation { kind: Kind::OpenTransaction, what });
        }
    }
}

/// Compares each customer's state, restored and run on to [`UNTIL`], with what one engine makes of all input, byte
/// for byte.
pub fn of_states(world: &World) -> Vec<Violation> {
    let config = config_of(world);
    let plan = Arc::new(setup::plan(&config, None).unwrap());
    let expected = by_oracle(world, &config, &plan);
    let topic = world.topic("state");
    let read = world.kafka.read(&[&topic], Isolation::Committed);
    let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for partition in 0..world.partitions {
        let mut reading = Reading::new(&plan, &topic, partition);
        for record in read.iter().filter(|record| record.partition == partition) {
            reading.take(record.offset, &record.key, record.value.as_deref()).expect("a state");
        }
        // States are written as of the last instant at which something came of them.
        let (mut engine, _) = reading.finish().expect("states");
        engine.run_until(parse_rfc3339(UNTIL).unwrap());
        found.extend(states_of(&engine));
    }
    let ids: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differs = ids.into_iter().filter(|id| expected.get(*id) != found.get(*id));
    differs.map(|id| Violation { kind: Kind::State, what: id.clone() }).collect()
}

struct Ignored;

impl Rejected for Ignored {
    fn rejected(&mut self, _: Source, _: &RawRecord, _: &Reject) -> stagecast::error::Result<()> {
        Ok(())
    }
}

fn config_of(world: &World) -> Config {
    let text = world.config("oracle");
    let layers = Layers { file: Some(("stagecast.toml".into(), text)), ..Layers::default() };
    Config::from_layers(&layers).unwrap()
}

fn by_oracle(world: &World, config: &Config, plan: &Arc<Plan>) -> BTreeMap<String, Vec<u8>> {
    let mut engine = Engine::new(Arc::clone(plan), false);
    let mut events = Merged::new(Inputs::open(&world.input(), config).unwrap(), config);
    while let Some(line) = events.next(&mut Ignored).unwrap() {
        engine.step(line.event());
        engine.outbox.clear();
    }
    engine.run_until(parse_rfc3339(UNTIL).unwrap());
    states_of(&engine).collect()
}

fn states_of(engine: &Engine) -> impl Iterator<Item = (String, Vec<u8>)> {
    let state = |index: u32| {
        let mut bytes = Vec::new();
        engine.encode(index, &mut bytes);
        (engine.store().id(index).to_string(), bytes)
    };
    engine.store().indices().map(state)
}

pub fn by_customer(path: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        all.entry(value["customer_id"].as_str().unwrap().to_owned()).or_default().push(value);
    }
    all
}

#[test]
fn what_is_wrong_is_called_by_its_name() {
    let values = |list: &[i64]| list.iter().map(|n| Value::from(*n)).collect::<Vec<_>>();
    let kinds_of = |expected: &[i64], found: &[i64]| {
        let mut violations = Vec::new();
        compare("x", &values(expected), &values(found), &mut violations);
        kinds(&violations)
    };
    assert_eq!(kinds_of(&[1, 2], &[1, 2]), [].into());
    assert_eq!(kinds_of(&[1, 2], &[1]), [Kind::LostWrite].into());
    assert_eq!(kinds_of(&[1, 2], &[1, 2, 2]), [Kind::Duplicate].into());
    assert_eq!(kinds_of(&[1, 2], &[1, 3]), [Kind::LostWrite, Kind::Foreign].into());
    assert_eq!(kinds_of(&[1, 2], &[2, 1]), [Kind::Order].into());
    let changes = |numbers: &[u64]| {
        let mut violations = Vec::new();
        let list = numbers.iter().map(|n| serde_json::json!({ "sequence": n })).collect();
        check_sequences(&[("c".to_owned(), list)].into(), &mut violations);
        violations.len()
    };
    assert_eq!((changes(&[1, 2, 3]), changes(&[1, 3]), changes(&[1, 1])), (0, 1, 1));
    let mut twice = Vec::new();
    let alert = serde_json::json!({ "alert_id": "a" });
    check_alerts(&[("c".to_owned(), vec![alert.clone(), alert])].into(), &mut twice);
    assert_eq!(kinds(&twice), [Kind::AlertTwice].into());
}
