//! Experiments made by hand, of which everything is known.

use super::study::{Policy, Warning};
use super::*;
use crate::event::{Field, Merge, Numbers, ProfileChange};
use crate::time::DAY_MS;

fn question() -> Question {
    Question {
        within: 30 * DAY_MS,
        returned_by: None,
        since: None,
        until: None,
        lapse: vec!["win-back".into(), "value:defected".into()],
        outcomes_every: DAY_MS,
        control: [("churn".to_owned(), 0.5)].into(),
        margin: 0.3,
    }
}

fn alert(customer: &str, day: i64, group: &str) -> String {
    let ts = crate::time::format_rfc3339(day * DAY_MS);
    format!(
        r#"{{"alert_id":"{customer}@{day}","customer_id":"{customer}","ts":"{ts}","kind":"churn_risk","policy":"churn","group":"{group}","value_at_risk":2.5}}"#
    )
}

fn study(question: Question, alerts: &[(&str, i64, &str)]) -> Study {
    let mut study = Study::new(question);
    for (customer, day, group) in alerts {
        Kind::Alert.take(alert(customer, *day, group).as_bytes(), &mut study).unwrap();
    }
    study
}

fn purchase(study: &mut Study, customer: &str, name: &str, day: f64, amount: f64) {
    let mut numbers = Numbers::default();
    numbers.set(Field::Amount, amount);
    study.event(&crate::event::Event {
        source: Source::Purchase,
        customer_id: customer.into(),
        name: name.into(),
        ts: (day * DAY_MS as f64) as Ts,
        event_id: Some(format!("{customer}{name}{day}").into()),
        numbers,
        profile: None,
        channel: None,
    });
}

fn only(study: Study) -> Policy {
    let mut policies = study.report().unwrap().policies;
    assert_eq!(policies.len(), 1);
    policies.remove(0)
}

#[test]
fn one_wrong_clock_decides_nothing() {
    let report = |strays: &[f64]| {
        let mut study = study(question(), &[("decided", 10, "treatment"), ("open", 75, "treatment")]);
        for n in 0..2_000 {
            purchase(&mut study, &format!("other {n}"), "order_completed", f64::from(n) / 20.0, 1.0);
        }
        strays.iter().for_each(|day| purchase(&mut study, "stray", "order_completed", *day, 1.0));
        let report = study.report().unwrap();
        (report.as_of, report.policies[0].undecided)
    };
    assert_eq!(report(&[400.0]), report(&[]));
    assert_eq!(report(&[]).1, 1);
    assert_eq!(report(&[120.0, 121.0, 122.0]).1, 0, "three are more than may be strays: their time is known");
}

#[test]
fn who_comes_back_under_another_id_has_returned() {
    let mut study = study(question(), &[("visitor", 10, "treatment"), ("gone", 10, "control")]);
    let merge = |study: &mut Study, from: &str, into: &str, day: i64| {
        let merge = Merge { from_id: from.into(), origin: None };
        study.event(&crate::event::Event {
            source: Source::Profile,
            customer_id: into.into(),
            name: "customers_merged".into(),
            ts: day * DAY_MS,
            event_id: None,
            numbers: Numbers::default(),
            profile: Some(Box::new(ProfileChange::Merged(merge))),
            channel: None,
        });
    };
    merge(&mut study, "visitor", "u-17", 12);
    merge(&mut study, "u-17", "u-18", 13);
    merge(&mut study, "u-18", "visitor", 14);
    purchase(&mut study, "u-17", "order_completed", 15.0, 30.0);
    purchase(&mut study, "somebody", "order_completed", 100.0, 99.0);
    let policy = only(study);
    assert_eq!((policy.treatment.customers, policy.treatment.returned), (1, 1));
    assert_eq!((policy.control.customers, policy.control.returned), (1, 0));
}

#[test]
fn who_ordered_in_the_time_after_the_first_alert_returned() {
    let mut study = study(
        question(),
        &[
            ("in time", 10, "treatment"),
            ("in time", 20, "treatment"),
            ("too late", 10, "treatment"),
            ("before", 10, "treatment"),
            ("in time too", 10, "control"),
            ("never", 10, "control"),
            ("still open", 75, "control"),
        ],
    );
    purchase(&mut study, "in time", "order_completed", 40.0, 10.0);
    purchase(&mut study, "in time", "order_completed", 40.0, 10.0);
    purchase(&mut study, "too late", "order_completed", 40.001, 10.0);
    purchase(&mut study, "before", "order_completed", 10.0, 10.0);
    purchase(&mut study, "in time too", "order_completed", 10.5, 20.0);
    purchase(&mut study, "in time too", "order_refunded", 12.0, 15.0);
    purchase(&mut study, "somebody", "order_completed", 100.0, 99.0);
    let policy = only(study);
    assert_eq!((policy.treatment.customers, policy.treatment.returned), (3, 1));
    assert_eq!((policy.control.customers, policy.control.returned), (2, 1));
    assert_eq!((policy.alerts, policy.undecided), (7, 1));
    assert_eq!([&policy.treatment, &policy.control].map(|half| half.revenue.unwrap().round()), [10.0, 5.0]);
    assert_eq!(policy.treatment.value_at_risk, 7.5);
    let difference = policy.difference.unwrap();
    assert!((difference.value - (1.0 / 3.0 - 0.5)).abs() < 1e-12);
    assert!(difference.low < -0.5 && difference.high > 0.3, "five customers say next to nothing");
    assert!((policy.incremental_customers.unwrap().value - 3.0 * difference.value).abs() < 1e-12);
    let (revenue, margin) = (policy.incremental_revenue.unwrap(), policy.incremental_margin.unwrap());
    assert!((revenue.value - 3.0 * (10.0 / 3.0 - 2.5)).abs() < 1e-9);
    assert!((margin.value - 0.3 * revenue.value).abs() < 1e-9);
}

#[test]
fn without_orders_the_outcome_of_the_score_behind_the_alert_decides() {
    let alerts = [("a", 10, "treatment"), ("b", 10, "control"), ("c", 10, "control"), ("d", 13, "control")];
    let mut study = study(question(), &alerts);
    // Nobody's scores of the 13th are judged yet: the day before says nothing of that one.
    for (customer, day, churned) in [
        ("a", 9, true),
        ("a", 10, false),
        ("a", 11, true),
        ("b", 10, true),
        ("c", 12, false),
        ("d", 12, true),
    ] {
        let ts = crate::time::format_rfc3339(day * DAY_MS);
        let json = format!(r#"{{"customer_id":"{customer}","scored_at":"{ts}","churned":{churned}}}"#);
        Kind::Outcome.take(json.as_bytes(), &mut study).unwrap();
    }
    let policy = only(study);
    assert_eq!((policy.treatment.customers, policy.treatment.returned), (1, 1));
    assert_eq!((policy.control.customers, policy.control.returned, policy.undecided), (1, 0, 2));
    assert!(policy.incremental_revenue.is_none(), "nothing is known of what was spent");
    assert!(policy.treatment.revenue.is_none() && policy.treatment.revenue_per_customer.is_none());
}

#[test]
fn a_warning_lies_between_the_last_order_and_the_lapse() {
    let mut study = study(
        question(),
        &[("a", 10, "treatment"), ("a", 60, "treatment"), ("b", 20, "control"), ("c", 5, "treatment")],
    );
    purchase(&mut study, "a", "order_completed", 30.0, 1.0);
    purchase(&mut study, "c", "order_completed", 6.0, 1.0);
    let mut lapse = |customer: &str, lifecycle: &str, to: &str, day: i64| {
        let ts = crate::time::format_rfc3339(day * DAY_MS);
        let json =
            format!(r#"{{"customer_id":"{customer}","lifecycle":"{lifecycle}","to":"{to}","ts":"{ts}"}}"#);
        Kind::StageChange.take(json.as_bytes(), &mut study).unwrap();
    };
    lapse("a", "retention", "win-back", 120);
    lapse("b", "value", "defected", 50);
    lapse("b", "mine", "defected", 51);
    lapse("c", "retention", "win-back", 96);
    lapse("nobody", "retention", "win-back", 99);
    lapse("nobody", "retention", "win-back", 4);
    let Warning { lapses, warned, days } = only(study).warning;
    // `a` by the alert of day 60, `b` by that of day 20; the order of `c` came after its alert.
    assert_eq!((lapses, warned, days.unwrap().value), (4, 2, 45.0));
}

#[test]
fn a_split_that_chance_does_not_explain_is_told() {
    let many = |control: usize| {
        let names: Vec<String> = (0..400).map(|i| format!("c{i}")).collect();
        let group = |i: usize| if i < control { "control" } else { "treatment" };
        let alerts: Vec<(&str, i64, &str)> =
            names.iter().enumerate().map(|(i, name)| (name.as_str(), 1, group(i))).collect();
        let mut study = study(question(), &alerts);
        purchase(&mut study, "c1", "order_completed", 50.0, 1.0);
        only(study).split.unwrap()
    };
    assert!(many(210).plausible);
    assert!(!many(150).plausible);
}

#[test]
fn alerts_are_counted_once_and_only_in_the_time_that_is_asked_for() {
    let asked = Question { since: Some(5 * DAY_MS), until: Some(15 * DAY_MS), ..question() };
    let mut study = study(
        asked,
        &[("a", 4, "treatment"), ("a", 5, "treatment"), ("a", 5, "treatment"), ("b", 15, "control")],
    );
    purchase(&mut study, "x", "order_completed", 90.0, 1.0);
    let policy = only(study);
    assert_eq!((policy.alerts, policy.treatment.customers, policy.control.customers), (1, 1, 0));
    assert!(policy.difference.is_none() && policy.control.return_rate.is_none());
}

#[test]
fn what_is_no_alert_is_refused_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let lines = format!("{}\n\n{}\n", alert("a", 1, "treatment"), alert("b", 1, "holdout"));
    std::fs::write(dir.path().join("churn-alerts.ndjson"), lines).unwrap();
    let read = || from_files(&[dir.path().to_owned()], &Config::default(), question(), &|_| {});
    let error = read().unwrap_err();
    assert!(error.what.contains("churn-alerts.ndjson:3: `group` is `holdout`"), "{error}");
    std::fs::write(dir.path().join("churn-alerts.ndjson"), alert("a", 1, "treatment")).unwrap();
    assert!(read().unwrap_err().what.contains("neither an order nor an outcome"));
    std::fs::remove_file(dir.path().join("churn-alerts.ndjson")).unwrap();
    assert!(read().unwrap_err().what.contains("no churn-alerts.ndjson"));
}
