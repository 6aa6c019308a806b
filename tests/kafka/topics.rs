//! `topics create` and `topics check` against what a broker really has.

use stagecast::kafka::clients::ClientSettings;
use stagecast::kafka::topics::{self, COMPACTION_LAG_MAX_MS, Layout, TOMBSTONE_KEPT_MS};

use crate::broker::RealKafka;
use crate::records::{Record, fresh};

fn layout() -> Layout {
    Layout {
        inputs: vec![fresh("clickstream"), fresh("purchase")],
        stage_changes: fresh("stage-changes"),
        churn_scores: fresh("churn-scores"),
        churn_alerts: fresh("churn-alerts"),
        churn_outcomes: fresh("churn-outcomes"),
        erasures: fresh("erasures"),
        dlq: fresh("dlq"),
        state: fresh("state"),
        identity: fresh("identity"),
        partitions: 3,
        replication: 1,
    }
}

fn settings() -> ClientSettings {
    ClientSettings::new(&RealKafka::shared().bootstrap(), "topics", "box-0")
}

/// What a command printed, and its error.
fn create(layout: &Layout, inputs: bool) -> (String, Option<stagecast::error::Error>) {
    let mut out = Vec::new();
    let error = topics::create(&settings(), layout, inputs, &mut out).err();
    (String::from_utf8(out).unwrap(), error)
}

fn check(layout: &Layout) -> (String, Option<stagecast::error::Error>) {
    let mut out = Vec::new();
    let findings = topics::inspect(&settings(), layout, &|_| {});
    let error = findings.and_then(|findings| topics::report(&findings, layout, &mut out)).err();
    (String::from_utf8(out).unwrap(), error)
}

#[test]
fn create_makes_every_topic_as_it_must_be_and_check_agrees() {
    let (kafka, layout) = (RealKafka::shared(), layout());
    let (printed, error) = create(&layout, true);
    assert_eq!(error, None, "{printed}");
    for (topic, policy) in [
        (&layout.inputs[0], "delete"),
        (&layout.stage_changes, "delete"),
        (&layout.churn_alerts, "delete"),
        (&layout.churn_outcomes, "delete"),
        (&layout.dlq, "delete"),
        (&layout.churn_scores, "compact"),
        (&layout.state, "compact"),
    ] {
        assert_eq!(kafka.topic_config(topic)["cleanup.policy"], policy, "{topic}");
        assert_eq!(kafka.partitions(topic), 3, "{topic}");
    }
    let state = kafka.topic_config(&layout.state);
    assert_eq!(state["max.compaction.lag.ms"], COMPACTION_LAG_MAX_MS.to_string());
    assert_eq!(state["delete.retention.ms"], TOMBSTONE_KEPT_MS.to_string());
    let (printed, error) = check(&layout);
    assert_eq!(error, None, "{printed}");
    assert_eq!(topics::require(&settings(), &layout), Ok(3));
}

#[test]
fn a_second_create_changes_nothing_and_says_so() {
    let layout = layout();
    assert_eq!(create(&layout, true).1, None);
    let (printed, error) = create(&layout, true);
    assert_eq!(error, None);
    assert!(printed.ends_with("nothing to do\n"), "{printed}");
    assert!(!printed.contains("created"), "{printed}");
}

#[test]
fn create_takes_the_partition_count_of_inputs_that_exist_and_leaves_missing_ones_to_their_writers() {
    let (kafka, layout) = (RealKafka::shared(), layout());
    kafka.create_topic(&layout.inputs[0], 5, 1, &[]);
    let (printed, error) = create(&layout, false);
    assert_eq!(error, None, "{printed}");
    assert_eq!(kafka.partitions(&layout.state), 5);
    assert!(printed.contains(&format!("missing    {}", layout.inputs[1])), "{printed}");
    let error = check(&layout).1.unwrap();
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn check_finds_each_wrong_layout_and_create_refuses_to_build_on_it() {
    let kafka = RealKafka::shared();
    for (wrong, config, partitions, says) in [
        ("state", ("cleanup.policy", "delete"), 3, "state of silent customers"),
        ("state", ("cleanup.policy", "compact,delete"), 3, "state of silent customers"),
        ("state", ("cleanup.policy", "compact"), 4, "it has 4 partitions"),
        ("changes", ("cleanup.policy", "compact"), 3, "last record would be lost"),
        ("dlq", ("min.insync.replicas", "2"), 3, "nothing can be written"),
    ] {
        let layout = layout();
        for input in &layout.inputs {
            kafka.create_topic(input, 3, 1, &[]);
        }
        let topic = match wrong {
            "state" => &layout.state,
            "changes" => &layout.stage_changes,
            _ => &layout.dlq,
        };
        kafka.create_topic(topic, partitions, 1, &[config]);
        let (printed, error) = check(&layout);
        assert_eq!(error.unwrap().exit_code(), 1);
        assert!(printed.contains(says), "{says} not in {printed}");
        let (_, error) = create(&layout, true);
        let error = error.unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(error.what.contains(topic.as_str()) && error.what.contains(says), "{error}");
        assert!(topics::require(&settings(), &layout).is_err());
        assert!(check(&layout).0.contains("does not exist"), "create made topics after refusing");
    }
}

#[test]
fn warnings_do_not_fail_a_check() {
    let (kafka, layout) = (RealKafka::shared(), layout());
    kafka.create_topic(&layout.churn_scores, 3, 1, &[("cleanup.policy", "delete")]);
    assert_eq!(create(&layout, true).1, None);
    let (printed, error) = check(&layout);
    assert_eq!(error, None, "{printed}");
    assert!(printed.contains("warning") && printed.contains("scores of silent customers"), "{printed}");
}

#[test]
fn keys_that_do_not_stand_where_murmur2_puts_them_are_warned_about() {
    let (kafka, layout) = (RealKafka::shared(), layout());
    assert_eq!(create(&layout, true).1, None);
    let keyed = || (0..50).map(|n| Record::new(format!("c{n}"), "{}"));
    kafka.produce(&layout.inputs[0], keyed());
    let (printed, error) = check(&layout);
    assert_eq!((printed.contains("murmur2"), error), (false, None), "{printed}");
    // As a producer with another partitioner would.
    let astray = keyed().enumerate().map(|(n, r)| Record { partition: Some(n as i32 % 3), ..r });
    kafka.produce(&layout.inputs[1], astray);
    let (printed, error) = check(&layout);
    assert_eq!(error, None, "a warning");
    let line = printed.lines().find(|line| line.contains("murmur2 puts them")).expect("a finding");
    assert!(line.contains(&layout.inputs[1]) && line.contains("of 50 sampled keys"), "{line}");
    assert!(!printed.contains(&format!("{}: ", layout.inputs[0])), "{printed}");
}

#[test]
fn more_replicas_than_brokers_are_refused() {
    let layout = Layout { replication: 3, ..layout() };
    let error = create(&layout, true).1.unwrap();
    assert!(error.what.contains("3 replicas"), "{error}");
}
