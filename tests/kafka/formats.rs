//! Other formats over a real broker, and dead letters on their way back.

use serde_json::Value;
use stagecast::time::DAY_MS;

use crate::records::{Isolation, Record};
use crate::world::{World, event};

const START: i64 = 1_735_689_600_000;

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

fn moves(world: &World) -> Vec<String> {
    let changes = world.kafka.read(&[&world.topic("stage-changes")], Isolation::Committed);
    let told = |value: Value| {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} ({})", text("customer_id"), text("to"), text("event_id"))
    };
    changes.iter().map(|change| told(serde_json::from_str(change.text()).unwrap())).collect()
}

#[test]
fn one_segment_topic_carries_every_kind_of_event() {
    let world = World::new("segment", 1, "");
    let call = |n: i64, rest: &str| {
        let ts = stagecast::time::format_rfc3339(START + n * DAY_MS);
        let json = format!(r#"{{"userId":"c1","messageId":"m{n}","timestamp":"{}",{rest}}}"#, ts.as_str());
        Record::new("c1", json)
    };
    let records = [
        call(0, r#""type":"page""#),
        call(1, r#""type":"track","event":"Product Added","properties":{"price":3}"#),
        call(2, r#""type":"track","event":"Order Completed","properties":{"revenue":40}"#),
        call(3, r#""type":"identify","traits":{"plan":"pro"}"#),
        call(4, r#""type":"track","event":"Order Completed","properties":{"total":"41.50"}"#),
    ];
    world.kafka.produce(&world.topic("clickstream"), records);
    world.finish(&["run", "--until-end", "--set", "source.clickstream.format=segment"], &[]);
    assert_eq!(moves(&world), ["c1 acquisition (m1)", "c1 conversion (m2)", "c1 retention (m4)"]);
}

#[test]
fn binary_cloudevents_are_read_with_their_headers() {
    let world = World::new("cloudevents", 1, "");
    let ce = |id: &str, kind: &str| {
        texts(&[
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", "/shop"),
            ("ce_type", kind),
            ("ce_time", "2025-01-02T00:00:00Z"),
            ("content-type", "application/json"),
        ])
    };
    let records = [
        Record {
            headers: ce("1", "com.example.product_added.v1"),
            ..Record::new("c1", r#"{"product_id":"p"}"#)
        },
        Record { headers: ce("2", "com.example.order_completed.v1"), ..Record::new("c1", r#"{"amount":9}"#) },
        Record { headers: ce("2", "com.example.order_completed.v1"), ..Record::new("c1", r#"{"amount":9}"#) },
    ];
    world.kafka.produce(&world.topic("clickstream"), records);
    world.finish(&["run", "--until-end", "--set", "source.clickstream.format=cloudevents"], &[]);
    assert_eq!(moves(&world), ["c1 acquisition (/shop#1)", "c1 conversion (/shop#2)"]);
}

#[test]
fn dead_letters_go_back_once_the_configuration_can_read_them() {
    let world = World::new("letters", 2, "");
    let headers = texts(&[("trace", "t-1")]);
    let odd = event("c1", "Item Put In Basket", START, "");
    let records = [
        Record { headers: headers.clone(), ..Record::new("c1", odd.as_str()) },
        Record::new("c1", "not json"),
    ];
    let topic = world.topic("clickstream");
    world.kafka.produce(&topic, records);
    world.finish(&["run", "--until-end"], &[]);
    assert_eq!(moves(&world), [""; 0]);

    let types = r#"source.clickstream.types={"Item Put In Basket"="product_added"}"#;
    let said = world.finish(&["dlq", "replay", "--dry-run"], &[]);
    assert!(said.contains("0 of 2 dead letters would be sent") && said.contains("invalid_type 1"), "{said}");
    let said = world.finish(&["dlq", "replay", "--reason", "invalid_type", "--set", types], &[]);
    assert!(said.contains("1 of 2 dead letters sent"), "{said}");
    assert!(said.contains("1 were not asked for"), "{said}");
    let sent = world.kafka.read(&[&topic], Isolation::Committed);
    let back: Vec<_> = sent.iter().filter(|record| record.text() == odd).collect();
    assert_eq!(back.len(), 2);
    assert_eq!((&back[1].key, &back[1].headers), (&back[0].key, &headers));
    assert_eq!(back[1].partition, back[0].partition);
    world.finish(&["run", "--until-end", "--set", types], &[]);
    assert_eq!(moves(&world), ["c1 acquisition ()"]);
}

#[test]
fn an_erasure_is_asked_for_on_the_profile_topic() {
    let world = World::new("erase", 2, "");
    world.finish(&["erase", "c 1"], &[]);
    let asked = world.kafka.read(&[&world.topic("profile")], Isolation::Committed);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].key, b"c 1");
    let value: Value = serde_json::from_str(asked[0].text()).unwrap();
    assert_eq!((&value["customer_id"], &value["type"]), (&"c 1".into(), &"customer_deleted".into()));
}
