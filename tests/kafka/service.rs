//! The whole service on a real broker: exactly once through crashes, rebalances, zombies and poison.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stagecast::event::Source;
use stagecast::model::Model;
use stagecast::pipeline::quality::{self, Ledger};
use stagecast::simulate::START;
use stagecast::time::{DAY_MS, HOUR_MS, sleep};

use crate::process::Process;
use crate::records::{Isolation, Record, until};
use crate::world::{UNTIL, World, event};

const SOON: Duration = Duration::from_secs(60);

pub fn input_of(world: &World) -> usize {
    world.events.iter().map(Vec::len).sum()
}

/// How many inputs the group has committed.
pub fn committed(world: &World) -> i64 {
    let topics: Vec<String> = Source::ALL.iter().map(|s| world.topic(s.name())).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    world.kafka.committed(&world.app, &names).values().sum()
}

#[test]
fn a_backlog_gives_what_replay_gives() {
    let mut world = World::new("backlog", 4, "");
    world.simulate(150, 120, 1);
    world.load(0.0, 1.0);
    world.finish_and_check();
    let outcomes = world.written(Isolation::Committed).remove("churn-outcomes").unwrap_or_default();
    assert!(outcomes.len() > 100, "only {} customers have outcomes", outcomes.len());
    let mut counted: BTreeMap<i32, u64> = BTreeMap::new();
    for read in world.kafka.read(&[&world.topic("state")], Isolation::Committed) {
        if read.key == quality::KEY {
            let ledger = Ledger::decode(read.value.as_deref().unwrap_or_default()).unwrap();
            counted.insert(read.partition, ledger.labels);
        }
    }
    let (counted, known) =
        (counted.values().sum::<u64>(), outcomes.values().map(Vec::len).sum::<usize>() as u64);
    assert!(counted > known / 4 && counted <= known, "{counted} of {known} outcomes are counted");
}

/// The loop is open: each event bears the instant at which it was due, however long the one before it took.
#[test]
fn simulated_events_are_due_at_the_rate_that_was_asked_for() {
    const APART_MS: i64 = 4;
    let world = World::new("rate", 2, "");
    let simulate = ["simulate", "--customers", "3", "--days", "20", "--to-kafka", "--rate", "250"];
    world.finish(&simulate, &[]);
    let topics: Vec<String> = Source::ALL.iter().map(|source| world.topic(source.name())).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let read = world.kafka.read(&topics, Isolation::Committed);
    let mut due: Vec<i64> = read.iter().filter_map(|read| read.timestamp).collect();
    due.sort_unstable();
    assert!(due.len() > 20, "only {} events", due.len());
    assert!(due.windows(2).all(|two| two[1] - two[0] == APART_MS), "{due:?}");
}

#[test]
fn stops_and_restarts_change_nothing() {
    let mut world = World::new("restarts", 3, "");
    world.simulate(60, 100, 2);
    for step in 0..5 {
        let share = f64::from(step) / 5.0;
        world.load(share, share + 0.2);
        world.finish(&["run", "--until-end"], &[]);
    }
    world.finish_and_check();
}

/// One partition may still tell another something, so none may end alone; and one process has none at all.
#[test]
fn processes_that_share_a_backlog_end_together() {
    let mut world = World::new("together", 2, "");
    world.simulate(300, 100, 17);
    world.load(0.0, 1.0);
    // Small transactions take the time that the others need to come, however fast the machine is.
    let slowly = ["--set", "app.workers=1", "--set", "commit.max_records=30"];
    let to_the_end = [&["run", "--until-end", "--until", UNTIL], &slowly[..]].concat();
    let mut processes = ["box-0", "box-1", "box-2"].map(|name| world.start(name, &to_the_end, &[]));
    for process in &mut processes {
        assert_eq!(process.exit_code(SOON), Some(0), "{}", process.stderr());
    }
    let alone = |process: &Process| (0..2).any(|p| process.stderr().contains(&format!("partitions=[{p}]")));
    let shared = processes.iter().filter(|process| alone(process)).count();
    assert!(shared > 0, "one process did it all before another came: give it more to do");
    world.finish_and_check();
}

#[test]
fn kill_9_at_chosen_points_of_a_transaction_loses_and_repeats_nothing() {
    let mut world = World::new("kills", 3, "[commit]\ninterval = \"20ms\"\ncatch_up = \"20ms\"\n");
    world.simulate(80, 100, 3);
    world.load(0.0, 1.0);
    for point in ["before_states:2", "before_commit:1", "after_commit:1", "before_commit:3", "after_commit:2"]
    {
        let mut process = world.start("box-0", &["run", "--until-end"], &[("STAGECAST_FAULT", point)]);
        let code = process.exit_code(SOON);
        assert_ne!(code, Some(2), "{point}: {}", process.stderr());
    }
    world.finish_and_check();
}

/// Small transactions, so that a backlog takes many of them.
const MANY: &str = "[commit]\ninterval = \"10ms\"\ncatch_up = \"10ms\"\nmax_records = 25\n";

#[test]
fn twenty_kills_at_random_lose_and_repeat_nothing() {
    let mut world = World::new("random-kills", 4, MANY);
    world.simulate(300, 200, 4);
    world.load(0.0, 1.0);
    let all = input_of(&world) as i64;
    // The moment of a kill comes from the seed; what the service is doing then does not, which is the point.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut in_the_middle = 0;
    for _ in 0..20 {
        let before = committed(&world);
        let process = world.start("box-0", &["run"], &[]);
        until("the service to be at work", || committed(&world) > before || before == all);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        sleep(Duration::from_millis((seed >> 33) % 60));
        process.kill();
        in_the_middle += usize::from(committed(&world) < all);
    }
    assert!(in_the_middle >= 15, "only {in_the_middle} kills met a service at work");
    world.finish_and_check();
}

#[test]
fn two_instances_that_come_and_go_share_the_work_without_a_mistake() {
    let mut world = World::new("rebalance", 6, MANY);
    world.simulate(400, 200, 5);
    world.load(0.0, 1.0);
    let all = input_of(&world) as i64;
    let mut first = world.start("box-0", &["run"], &[]);
    until("the first instance to be at work", || committed(&world) > 0);
    let mut second = world.start("box-1", &["run"], &[]);
    second.line_with("restored", SOON);
    assert!(committed(&world) < all, "the backlog was too short to share");
    first.terminate();
    assert_eq!(first.exit_code(SOON), Some(0), "{}", first.stderr());
    let before = committed(&world);
    until("the second instance to go on alone", || committed(&world) > before || committed(&world) == all);
    second.kill();
    world.finish_and_check();
}

#[test]
fn a_frozen_instance_that_wakes_up_writes_nothing_more() {
    let mut world = World::new("zombie", 2, MANY);
    world.simulate(150, 120, 6);
    world.load(0.0, 1.0);
    let zombie = world.start("box-0", &["run"], &[]);
    until("the zombie to be at work", || committed(&world) > 0);
    zombie.freeze();
    let before = committed(&world);
    assert!(before < input_of(&world) as i64, "the backlog was too short");
    let heir = world.start("box-1", &["run"], &[]);
    until("the heir to take over", || committed(&world) > before);
    zombie.thaw();
    sleep(Duration::from_secs(3));
    zombie.kill();
    heir.kill();
    world.finish_and_check();
}

#[test]
fn the_same_name_started_twice_fences_the_first() {
    let mut world = World::new("twice", 2, MANY);
    world.simulate(150, 120, 7);
    world.load(0.0, 1.0);
    let first = world.start("box-0", &["run"], &[]);
    until("the first to be at work", || committed(&world) > 0);
    first.freeze();
    let before = committed(&world);
    let second = world.start("box-0", &["run"], &[]);
    until("the second to be at work", || committed(&world) > before);
    first.thaw();
    sleep(Duration::from_secs(2));
    first.kill();
    second.kill();
    world.finish_and_check();
}

#[test]
fn silence_alone_fills_transactions_that_carry_their_positions() {
    let mut world = World::new("silence", 2, "");
    // One customer buys and falls silent; only the clicks of another move the partition's clock.
    let start = START;
    world.add(Source::Purchase, "quiet", &event("quiet", "order_completed", start, r#","amount":20.0"#));
    for hour in 0..(60 * 24) {
        let json = event("busy", "product_viewed", start + hour * HOUR_MS, "");
        world.add(Source::Clickstream, "busy", &json);
    }
    world.load(0.0, 1.0);
    world.finish(&["run", "--until-end"], &[]);
    let first = world.written(Isolation::Committed);
    assert!(first["stage-changes"].contains_key("busy"));
    // Nothing new to consume: the clock alone moves, and the offsets stay as they were.
    let offsets = committed(&world);
    world.finish(&["run", "--until-end", "--until", crate::world::UNTIL], &[]);
    assert_eq!(committed(&world), offsets);
    let changes = world.written(Isolation::Committed)["stage-changes"]["quiet"].clone();
    assert!(changes.iter().any(|change| change["trigger"] == "silence"), "{changes:?}");
    world.check();
}

#[test]
fn poison_goes_to_the_dead_letters_byte_for_byte_and_stops_nothing() {
    let mut world = World::new("poison", 2, "");
    world.simulate(30, 60, 8);
    let topic = world.topic("clickstream");
    let poison: Vec<Record> = [
        &b"not json"[..],
        b"{\"customer_id\":\"c\"}",
        b"\xff\xfe\x00broken",
        b"{\"customer_id\":\"c\",\"type\":\"Page Viewed\",\"ts\":1}",
        b"[]",
    ]
    .iter()
    .map(|value| Record { headers: vec![("trace".into(), b"t-1".to_vec())], ..Record::new("k", *value) })
    .collect();
    world.load(0.0, 0.5);
    world.kafka.produce(&topic, poison.clone());
    world.kafka.produce(&topic, [Record { value: None, ..Record::new("k", "") }]);
    world.load(0.5, 1.0);
    world.finish_and_check();
    let letters = world.kafka.read(&[&format!("{}-dlq", world.app)], Isolation::Committed);
    assert_eq!(letters.len(), poison.len() + 1);
    for record in &poison {
        let letter = letters.iter().find(|l| l.value == record.value).expect("the same bytes");
        assert_eq!(letter.key, record.key);
        let header = |name: &str| {
            let found = letter.headers.iter().find(|(key, _)| key == name);
            String::from_utf8(found.unwrap_or_else(|| panic!("no header {name}")).1.clone()).unwrap()
        };
        assert_eq!(header("trace"), "t-1");
        assert_eq!(header("__connect.errors.topic"), topic);
        assert!(!header("__connect.errors.exception.message").is_empty());
    }
}

#[test]
fn outputs_carry_cloudevents_headers_and_processing_time() {
    let mut world = World::new("headers", 1, "");
    world.simulate(5, 60, 9);
    world.load(0.0, 1.0);
    world.finish(&["run", "--until-end"], &[]);
    let changes = world.kafka.read(&[&world.topic("stage-changes")], Isolation::Committed);
    assert!(!changes.is_empty());
    let mut ids = std::collections::BTreeSet::new();
    for change in &changes {
        let value: serde_json::Value = serde_json::from_str(change.text()).unwrap();
        let header = |name: &str| {
            let found = change.headers.iter().find(|(key, _)| key == name);
            String::from_utf8(found.unwrap_or_else(|| panic!("no header {name}")).1.clone()).unwrap()
        };
        assert_eq!(header("ce_specversion"), "1.0");
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("ce_time"), value["ts"].as_str().unwrap());
        assert_eq!(change.key, value["customer_id"].as_str().unwrap().as_bytes());
        assert!(ids.insert(header("ce_id")), "an id stands there twice");
        assert!(change.timestamp.is_some_and(|ts| ts > START + 300 * DAY_MS), "processing time");
    }
}

/// Only what the traced event caused: not what silence did before it, and not what other events cause.
#[test]
fn a_trace_goes_from_a_record_to_what_it_causes() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let world = World::new("trace", 1, "");
    let write = |value: &str, headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        world.kafka.produce(&world.topic("purchase"), [Record { headers, ..Record::new("c", value) }]);
    };
    let order = |day| {
        format!(r#"{{"customer_id":"c","type":"order_completed","ts":"2025-{day}T00:00:00Z","amount":9}}"#)
    };
    write(&order("01-01"), &[("traceparent", "no trace")]);
    write(&order("06-01"), &[("TraceParent", PARENT), ("tracestate", "vendor=1")]);
    world.finish(&["run", "--until-end"], &[]);
    let outputs = world
        .kafka
        .read(&[&world.topic("stage-changes"), &world.topic("churn-scores")], Isolation::Committed);
    let (mut with, mut without) = (0, 0);
    for output in &outputs {
        let value: serde_json::Value = serde_json::from_str(output.text()).unwrap();
        let header = |name: &str| {
            let found = output.headers.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| String::from_utf8(value.clone()).unwrap())
        };
        if value["ts"] == "2025-06-01T00:00:00.000Z" {
            assert_eq!(header("traceparent").unwrap()[..36], PARENT[..36], "{value}");
            assert_eq!(header("tracestate").as_deref(), Some("vendor=1"));
            with += 1;
        } else {
            assert_eq!(header("traceparent"), None, "{value}");
            without += 1;
        }
    }
    assert!(with >= 2 && without >= 3, "{with} with a trace, {without} without");
}

#[test]
fn a_layout_that_would_split_or_lose_data_is_refused() {
    let mut world = World::new("refused", 2, "");
    world.simulate(10, 40, 10);
    world.load(0.0, 1.0);
    world.finish(&["run", "--until-end"], &[]);

    // The group's offsets were moved by hand.
    let topic = world.topic("clickstream");
    world.kafka.commit(&world.app, &topic, 0, 1);
    refused(&world, "somebody has moved the group's offsets");
}

/// Starts the service, which must refuse to run and say why.
pub fn refused(world: &World, word: &str) {
    let mut process = world.start("box-0", &["run", "--until-end"], &[]);
    assert_eq!(process.exit_code(SOON), Some(2), "{}", process.stderr());
    assert!(process.stderr().contains(word), "{}", process.stderr());
}

#[test]
fn an_input_topic_that_was_created_anew_is_refused() {
    let mut world = World::new("recreated", 2, "");
    world.simulate(20, 40, 14);
    world.load(0.0, 1.0);
    world.finish(&["run", "--until-end"], &[]);
    let topic = world.topic("clickstream");
    world.kafka.delete_topic(&topic);
    world.kafka.create_topic(&topic, 2, 1, &[]);
    refused(&world, "the topic was deleted and created anew");
    // As long as it was, or longer.
    world.load(0.0, 1.0);
    refused(&world, "the topic was deleted and created anew");
}

/// Restarted at once, with another subscription each time: nobody waits for the group to forget the one before.
#[test]
fn a_source_may_be_switched_off_and_on_again() {
    let mut world = World::new("switched", 2, "");
    world.simulate(20, 40, 17);
    world.load(0.0, 0.5);
    let without = ["run", "--until-end", "--set", "source.support.enabled=false"];
    world.finish(&["run", "--until-end"], &[]);
    world.finish(&without, &[]);
    world.load(0.5, 1.0);
    world.finish(&without, &[]);
    world.finish(&["run", "--until-end"], &[]);
    let events: usize = world.events.iter().map(Vec::len).sum();
    assert_eq!(committed(&world), events as i64, "what came meanwhile is read from where it was left");
}

#[test]
fn topics_of_its_own_are_made_when_they_are_missing() {
    let mut world = World::new("own-topics", 2, "");
    world.simulate(10, 40, 16);
    world.load(0.0, 1.0);
    let own = ["identity", "erasures"].map(|name| world.topic(name));
    own.iter().for_each(|topic| world.kafka.delete_topic(topic));
    world.finish_and_check();
    own.iter().for_each(|topic| assert_eq!(world.kafka.partitions(topic), 2, "{topic}"));
}

#[test]
fn added_partitions_are_refused_in_one_topic_and_in_all() {
    let mut world = World::new("more-partitions", 2, "");
    world.simulate(20, 40, 15);
    world.load(0.0, 1.0);
    world.finish(&["run", "--until-end"], &[]);
    world.kafka.add_partitions(&world.topic("clickstream"), 3);
    refused(&world, "a customer's events would meet different workers");
    for topic in ["purchase", "support", "profile", "state", "identity"] {
        world.kafka.add_partitions(&world.topic(topic), 3);
    }
    refused(&world, "keys have moved to other partitions");
}

#[test]
fn it_answers_over_http_and_ends_on_a_signal() {
    let mut world = World::new("http", 2, "");
    world.simulate(20, 60, 11);
    world.load(0.0, 1.0);
    let address = free_address();
    let listen = format!("http.listen={address}");
    let mut process: Process = world.start("box-0", &["run", "--set", &listen], &[]);
    let total: usize = input_of(&world);
    until("everything to be consumed", || committed(&world) >= total as i64);
    process.answer(&address, "/readyz", SOON);
    let metrics = process.answer(&address, "/metrics", SOON);
    for name in [
        "stagecast_scoring_duration_seconds_bucket",
        "stagecast_end_to_end_latency_seconds_count",
        "stagecast_events_total",
        "stagecast_customers",
        "stagecast_transactions_total",
        "stagecast_model_info",
    ] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
    // Nothing comes any more: the last commit is to be seen in the gauges all the same.
    let everybody: BTreeSet<&str> = world.events.iter().flatten().map(|(customer, _)| &**customer).collect();
    let held = format!("\nstagecast_state_customers {}\n", everybody.len());
    until("the gauges to follow the last commit", || {
        process.answer(&address, "/metrics", SOON).contains(&held)
    });
    let customer = &world.events[0][0].0;
    let view = process.answer(&address, &format!("/customers/{customer}"), SOON);
    let view: serde_json::Value = serde_json::from_str(&view).unwrap();
    assert_eq!(view["customer_id"].as_str(), Some(customer.as_str()));
    assert!(view["features"]["events_lifetime"].as_f64().is_some_and(|n| n > 0.0), "{view}");
    process.terminate();
    assert_eq!(process.exit_code(Duration::from_secs(10)), Some(0), "{}", process.stderr());
}

pub fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_model_that_is_replaced_while_the_service_runs_scores_what_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("churn.json");
    std::fs::write(&path, stagecast::setup::SHIPPED_MODEL).unwrap();
    let extra = format!("[model]\npath = {:?}\n", path.display().to_string());
    let mut world = World::new("reload", 2, &extra);
    world.simulate(40, 60, 8);
    world.load(0.0, 0.5);
    let mut process = world.start("box-0", &["run"], &[]);
    until("the service to be at work", || committed(&world) > 0);
    std::fs::write(&path, "not a model").unwrap();
    process.line_with("the new model is refused", SOON);
    let mut model = Model::from_json(stagecast::setup::SHIPPED_MODEL, "shipped").unwrap();
    model.version = "another".into();
    model.write(&path).unwrap();
    process.line_with("the model was reloaded", SOON);
    world.load(0.5, 1.0);
    let versions = || -> BTreeSet<String> {
        let scores = world.written(Isolation::Committed).remove("churn-scores").unwrap_or_default();
        let version = |score: serde_json::Value| score["model"]["version"].as_str().unwrap().to_owned();
        scores.into_values().flatten().map(version).collect()
    };
    until("scores by the new model", || versions().contains("another"));
    assert_eq!(versions().len(), 2, "what came before was scored by the old one");
    process.terminate();
    assert_eq!(process.exit_code(SOON), Some(0), "{}", process.stderr());
}
