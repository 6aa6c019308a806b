use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::table::{FAMILIES, Kind};
use super::*;
use crate::config::Config;
use crate::event::{Event, Numbers};
use crate::pipeline::engine::{Applied, Engine, Tally};
use crate::time::Tick;

fn plan() -> Arc<Plan> {
    Arc::new(crate::setup::plan(&Config::default(), None).unwrap())
}

fn event<'a>(source: Source, name: &'a str, customer: &'a str, ts: i64) -> Event<'a> {
    Event {
        source,
        customer_id: customer.into(),
        name: name.into(),
        ts,
        event_id: None,
        numbers: Numbers::default(),
        profile: None,
        channel: None,
    }
}

/// A scrape as a scraper reads it. Fails on any line that the format does not allow.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    pub kinds: BTreeMap<String, String>,
    pub helps: BTreeMap<String, String>,
    /// By everything before the value.
    pub samples: BTreeMap<String, f64>,
}

impl Scrape {
    pub(crate) fn parse(text: &str) -> Scrape {
        assert!(text.ends_with('\n'));
        let mut scrape = Scrape::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(scrape.helps.insert(name.into(), help.into()).is_none(), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(scrape.kinds.insert(name.into(), kind.into()).is_none(), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
                let (family, _) = scrape.family(series);
                assert!(scrape.kinds.contains_key(family), "{line} comes before its type");
                assert!(scrape.samples.insert(series.into(), value).is_none(), "{line} comes twice");
            }
        }
        scrape.check_histograms();
        scrape
    }

    /// The family and the label names of a series, `le` left out.
    fn family<'a>(&self, series: &'a str) -> (&'a str, BTreeSet<&'a str>) {
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let valid = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        assert!(valid(name), "{series}");
        let labels = labels.strip_suffix('}').unwrap();
        let mut names = BTreeSet::new();
        for label in labels.split(',').filter(|l| !l.is_empty()) {
            let (name, value) = label.split_once('=').unwrap();
            assert!(
                valid(name) && value.len() >= 2 && value.starts_with('"') && value.ends_with('"'),
                "{series}"
            );
            if name != "le" {
                assert!(names.insert(name), "{series}");
            }
        }
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
        let stem = stem.filter(|stem| self.kinds.get(*stem).is_some_and(|kind| kind == "histogram"));
        (stem.unwrap_or(name), names)
    }

    fn check_histograms(&self) {
        for (name, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut buckets: Vec<(f64, f64)> = Vec::new();
            for (series, count) in &self.samples {
                if let Some(bound) = series.strip_prefix(&format!("{name}_bucket{{le=\"")) {
                    let bound = bound.strip_suffix("\"}").unwrap().replace("+Inf", "inf");
                    buckets.push((bound.parse().unwrap(), *count));
                }
            }
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name} is not cumulative");
            assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, self.samples[&format!("{name}_count")]));
            assert!(self.samples.contains_key(&format!("{name}_sum")));
        }
    }

    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series}"))
    }

    /// The sum over all series of a family.
    fn total(&self, family: &str) -> f64 {
        self.samples
            .iter()
            .filter(|(series, _)| self.family(series).0 == family)
            .map(|(_, value)| value)
            .sum()
    }
}

#[test]
fn the_registry_exposes_the_table_and_nothing_else() {
    let metrics = Metrics::new(&plan()).unwrap();
    metrics.set_lag("clickstream", 0, 0, 0.0);
    let moves = super::kpis::tests::moves(&[("reach", "acquisition", "smb", 20_454)]);
    metrics.set_partition(0, PartitionFigures { moves, ..Default::default() });
    let scrape = Scrape::parse(&metrics.render());
    let ours: Vec<_> = scrape.kinds.keys().filter(|name| !name.starts_with("process_")).collect();
    let table: BTreeMap<_, _> = FAMILIES.iter().map(|family| (family.name, family)).collect();
    assert_eq!(table.len(), FAMILIES.len(), "a name stands twice in the table");
    assert_eq!(ours, table.keys().collect::<Vec<_>>());
    for (name, family) in &table {
        assert_eq!(
            (scrape.kinds[*name].as_str(), scrape.helps[*name].as_str()),
            (family.kind.name(), family.help)
        );
    }
    for series in scrape.samples.keys() {
        let (name, labels) = scrape.family(series);
        if let Some(family) = table.get(name) {
            assert_eq!(labels, family.labels.iter().copied().collect(), "{series}");
        }
    }
}

#[test]
fn the_table_holds_the_names_that_others_rely_on() {
    let promised: [(&str, Kind, &[&str]); 17] = [
        ("stagecast_scoring_duration_seconds", Kind::Histogram, &[]),
        ("stagecast_end_to_end_latency_seconds", Kind::Histogram, &[]),
        ("stagecast_events_total", Kind::Counter, &["source", "result"]),
        ("stagecast_dead_letters_total", Kind::Counter, &["source", "reason"]),
        ("stagecast_stage_changes_total", Kind::Counter, &["lifecycle", "from", "to", "trigger"]),
        ("stagecast_customers", Kind::Gauge, &["lifecycle", "stage"]),
        ("stagecast_churn_score", Kind::Histogram, &[]),
        ("stagecast_alerts_total", Kind::Counter, &["policy", "group"]),
        ("stagecast_consumer_lag_records", Kind::Gauge, &["topic", "partition"]),
        ("stagecast_event_time_lag_seconds", Kind::Gauge, &["topic", "partition"]),
        ("stagecast_transaction_duration_seconds", Kind::Histogram, &[]),
        ("stagecast_transactions_total", Kind::Counter, &["outcome"]),
        ("stagecast_state_customers", Kind::Gauge, &[]),
        ("stagecast_state_bytes", Kind::Gauge, &[]),
        ("stagecast_restore_records_total", Kind::Counter, &[]),
        ("stagecast_restore_duration_seconds", Kind::Histogram, &[]),
        ("stagecast_model_info", Kind::Gauge, &["name", "version"]),
    ];
    for (name, kind, labels) in promised {
        let family = FAMILIES.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!((family.kind, family.labels), (kind, labels), "{name}");
    }
}

#[test]
fn names_follow_the_conventions() {
    for family in FAMILIES {
        assert!(family.name.starts_with("stagecast_"), "{}", family.name);
        assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
        assert!(family.help.ends_with('.'), "{}", family.name);
        assert!(!family.labels.iter().any(|label| label.contains("customer")), "{}", family.name);
    }
}

#[test]
fn everything_known_from_the_start_begins_at_zero() {
    let scrape = Scrape::parse(&Metrics::new(&plan()).unwrap().render());
    for series in [
        r#"stagecast_events_total{result="duplicate",source="profile"}"#,
        r#"stagecast_dead_letters_total{reason="future_ts",source="support"}"#,
        r#"stagecast_stage_changes_total{from="loyalty",lifecycle="retention",to="retention",trigger="silence"}"#,
        r#"stagecast_customers{lifecycle="retention",stage="loyalty"}"#,
        r#"stagecast_alerts_total{group="control",policy="churn"}"#,
        r#"stagecast_transactions_total{outcome="fenced"}"#,
        "stagecast_restore_records_total",
        "stagecast_scoring_duration_seconds_count",
        "stagecast_state_customers",
    ] {
        assert_eq!(scrape.value(series), 0.0, "{series}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(scrape.value(&format!("stagecast_build_info{{version=\"{version}\"}}")), 1.0);
}

#[test]
fn a_move_by_definition_is_counted_and_a_stage_that_is_gone_keeps_its_name() {
    let (plan, metrics) = (plan(), Metrics::new(&plan()).unwrap());
    let to = plan.lifecycles[0].0.stage_index("loyalty").unwrap();
    let from = plan.lifecycles[0].0.stage_index("retention").unwrap();
    let tally = Tally {
        stage_changes: vec![((0, from, to, Trigger::Definition), 2)],
        gone_stages: vec![((0, "champion".into(), to), 3)],
        ..Tally::default()
    };
    let mut local = metrics.local();
    local.tally(&plan, &tally);
    local.flush();
    let scrape = Scrape::parse(&metrics.render());
    for (from, n) in [("retention", 2.0), ("champion", 3.0)] {
        let series = format!(
            "stagecast_stage_changes_total{{from=\"{from}\",lifecycle=\"retention\",to=\"loyalty\",trigger=\"definition\"}}"
        );
        assert_eq!(scrape.value(&series), n, "{series}");
    }
}

#[test]
fn counts_show_when_flushed_and_only_then() {
    let metrics = Metrics::new(&plan()).unwrap();
    let mut local = metrics.local();
    let count = |local: &mut Local| {
        local.event(Source::Purchase, EventResult::Ok);
        local.event(Source::Purchase, EventResult::DeadLetter);
        local.dead_letter(Source::Purchase, Reason::MissingAmount);
        local.scoring(Duration::from_micros(3));
        local.end_to_end(1_500);
        local.end_to_end(-7);
    };
    count(&mut local);
    assert_eq!(Scrape::parse(&metrics.render()).total("stagecast_events_total"), 0.0);
    local.discard();
    local.flush();
    assert_eq!(Scrape::parse(&metrics.render()).total("stagecast_events_total"), 0.0, "aborted");
    count(&mut local);
    local.flush();
    local.flush();
    let scrape = Scrape::parse(&metrics.render());
    assert_eq!(scrape.value(r#"stagecast_events_total{result="ok",source="purchase"}"#), 1.0);
    assert_eq!(scrape.total("stagecast_events_total"), 2.0);
    assert_eq!(
        scrape.value(r#"stagecast_dead_letters_total{reason="missing_amount",source="purchase"}"#),
        1.0
    );
    assert_eq!(scrape.total("stagecast_dead_letters_total"), 1.0);
    assert_eq!(scrape.value(r#"stagecast_scoring_duration_seconds_bucket{le="0.000002"}"#), 0.0);
    assert_eq!(scrape.value(r#"stagecast_scoring_duration_seconds_bucket{le="0.000005"}"#), 1.0);
    assert_eq!(scrape.value("stagecast_scoring_duration_seconds_sum"), 0.000_003);
    assert_eq!(scrape.value(r#"stagecast_end_to_end_latency_seconds_bucket{le="1"}"#), 1.0);
    assert_eq!(scrape.value("stagecast_end_to_end_latency_seconds_count"), 2.0);
    assert_eq!(scrape.value("stagecast_end_to_end_latency_seconds_sum"), 1.5);
}

#[test]
fn every_reason_and_result_is_counted_under_its_own_name() {
    let metrics = Metrics::new(&plan()).unwrap();
    let mut local = metrics.local();
    for (n, reason) in Reason::ALL.iter().enumerate() {
        (0..=n).for_each(|_| local.dead_letter(Source::Support, *reason));
    }
    for (n, result) in EventResult::ALL.iter().enumerate() {
        (0..=n).for_each(|_| local.event(Source::Clickstream, *result));
    }
    local.flush();
    let scrape = Scrape::parse(&metrics.render());
    for (n, reason) in Reason::ALL.iter().enumerate() {
        let series =
            format!("stagecast_dead_letters_total{{reason=\"{}\",source=\"support\"}}", reason.code());
        assert_eq!(scrape.value(&series), (n + 1) as f64);
    }
    for (n, result) in EventResult::ALL.iter().enumerate() {
        let series = format!("stagecast_events_total{{result=\"{}\",source=\"clickstream\"}}", result.name());
        assert_eq!(scrape.value(&series), (n + 1) as f64);
    }
}

#[test]
fn what_engines_count_arrives_in_full() {
    let plan = plan();
    let metrics = Metrics::new(&plan).unwrap();
    let mut engine = Engine::new(Arc::clone(&plan), true);
    let mut local = metrics.local();
    let (mut scored, mut sum, mut moved) = (0u64, 0.0, 0u64);
    for day in 0..40 {
        for (customer, name, source) in
            [("a", "page_viewed", Source::Clickstream), ("b", "order_completed", Source::Purchase)]
        {
            engine.step(&event(source, name, customer, day * 86_400_000));
        }
        scored += engine.tally.scores.iter().map(|n| u64::from(*n)).sum::<u64>();
        sum += engine.tally.score_sum;
        moved += engine.tally.stage_changes.iter().map(|(_, n)| n).sum::<u64>();
        local.tally(&plan, &engine.tally);
        engine.tally.clear();
        engine.commit();
        local.flush();
    }
    assert!(scored >= 80 && moved >= 2, "{scored} scores, {moved} moves: not much of a test");
    let scrape = Scrape::parse(&metrics.render());
    assert_eq!(scrape.value("stagecast_churn_score_count"), scored as f64);
    assert!((scrape.value("stagecast_churn_score_sum") - sum).abs() < 1e-9);
    assert_eq!(scrape.total("stagecast_stage_changes_total"), moved as f64);
}

#[test]
fn the_clock_is_read_when_an_event_is_scored_and_only_then() {
    let (plan, hour) = (plan(), 3_600_000);
    let mut engine = Engine::new(plan, false);
    let click =
        |ts: Ts| Event { event_id: Some("e".into()), ..event(Source::Clickstream, "page_viewed", "a", ts) };
    engine.step(&click(0));
    assert!(engine.take_scored().is_none(), "no clock was lent");
    engine.time_scores(Tick::now);
    let before = Tick::now();
    engine.step(&click(48 * hour));
    let after = Tick::now();
    let scored = engine.take_scored().expect("an event was scored");
    assert!(before <= scored && scored <= after);
    assert!(engine.take_scored().is_none(), "it was asked for before");
    assert_eq!(engine.step(&click(48 * hour)), Applied::Duplicate);
    assert!(engine.take_scored().is_none(), "a repetition is not scored");
    let scores = engine.tally.scores;
    engine.tick(30 * 24 * hour);
    assert_ne!(engine.tally.scores, scores, "nobody was rescored: not much of a test");
    assert!(engine.take_scored().is_none(), "silence is no event");
}

#[test]
fn gauges_are_sums_over_the_partitions_that_are_here() {
    let plan = plan();
    let metrics = Metrics::new(&plan).unwrap();
    let stages = plan.lifecycles[0].0.stages();
    let figures = |customers: u64, place: usize| {
        let mut population = vec![vec![0; stages.len()]];
        population[0][place] = customers as i64;
        PartitionFigures { customers, bytes: customers * 500, population, ..Default::default() }
    };
    let in_stage = |place: usize| {
        let series =
            format!("stagecast_customers{{lifecycle=\"retention\",stage=\"{}\"}}", stages[place].name);
        Scrape::parse(&metrics.render()).value(&series)
    };
    metrics.set_partition(0, figures(10, 0));
    metrics.set_partition(1, figures(5, 1));
    metrics.set_partition(1, figures(7, 0));
    assert_eq!((in_stage(0), in_stage(1)), (17.0, 0.0));
    let scrape = Scrape::parse(&metrics.render());
    assert_eq!(
        (scrape.value("stagecast_state_customers"), scrape.value("stagecast_state_bytes")),
        (17.0, 8_500.0)
    );
    metrics.drop_partition(0);
    assert_eq!(in_stage(0), 7.0);
}

#[test]
fn lag_is_shown_while_the_partition_is_here() {
    let metrics = Metrics::new(&plan()).unwrap();
    metrics.set_lag("clickstream", 3, 42, 1.5);
    let scrape = Scrape::parse(&metrics.render());
    assert_eq!(scrape.value(r#"stagecast_consumer_lag_records{partition="3",topic="clickstream"}"#), 42.0);
    assert_eq!(scrape.value(r#"stagecast_event_time_lag_seconds{partition="3",topic="clickstream"}"#), 1.5);
    metrics.drop_lag("clickstream", 3);
    metrics.drop_lag("clickstream", 3);
    assert!(!metrics.render().contains("lag"));
}

#[test]
fn transactions_and_restores_are_timed() {
    let metrics = Metrics::new(&plan()).unwrap();
    metrics.transaction(Outcome::Committed, Duration::from_millis(30));
    metrics.transaction(Outcome::Aborted, Duration::from_millis(70));
    metrics.restored(1_000, Duration::from_secs(3));
    let scrape = Scrape::parse(&metrics.render());
    assert_eq!(scrape.value(r#"stagecast_transactions_total{outcome="aborted"}"#), 1.0);
    assert_eq!(scrape.value(r#"stagecast_transaction_duration_seconds_bucket{le="0.05"}"#), 1.0);
    assert_eq!(scrape.value("stagecast_transaction_duration_seconds_count"), 2.0);
    assert_eq!(scrape.value("stagecast_restore_records_total"), 1_000.0);
    assert_eq!(scrape.value("stagecast_restore_duration_seconds_sum"), 3.0);
}

#[test]
fn a_segment_that_nobody_is_in_any_more_is_no_longer_shown() {
    use crate::pipeline::worth::{StageWorth, Worth};
    let metrics = Metrics::new(&plan()).unwrap();
    let show = |worth: Worth| {
        metrics.set_partition(0, PartitionFigures { worth, ..Default::default() });
        metrics.render().contains("stagecast_segment_customers{lifecycle=\"retention\",segment=\"smb\"")
    };
    let stages = vec![vec![StageWorth { customers: 3, ..StageWorth::default() }]];
    assert!(show(Worth { all: Vec::new(), segments: [("smb".into(), stages)].into() }));
    assert!(!show(Worth::default()));
}
