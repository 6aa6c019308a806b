//! The Prometheus rules and their tests, as far as they can be judged without Prometheus: every series that they ask
//! for, every label and every value of a label is one that a scrape of the program shows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stagecast::config::Config;
use stagecast::metrics::Metrics;

use crate::{labels_of, yaml};

/// What scraping adds to every series.
const OF_SCRAPE: [&str; 2] = ["job", "instance"];
/// Labels whose values belong to the user, or come with the model.
const OPEN: [&str; 5] = ["job", "instance", "topic", "partition", "feature"];

fn rules() -> Vec<Value> {
    let groups = yaml("prometheus/rules.yml")["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{value} has no {key}"))
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule.get("alert").is_some()).collect()
}

fn cases() -> Vec<Value> {
    yaml("prometheus/tests.yml")["tests"].as_array().unwrap().clone()
}

/// The values of each label of each series in a scrape of a service that has only just begun.
fn scraped() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let plan = stagecast::setup::plan(&Config::default(), None).unwrap();
    let mut found: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
    for line in Metrics::new(&plan).unwrap().render().lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let of_name = found.entry(name.to_owned()).or_default();
        for (label, value) in matchers(labels.trim_end_matches('}')) {
            of_name.entry(label).or_default().insert(value);
        }
    }
    found
}

/// `a="1",b!="2"` as names and values.
fn matchers(braces: &str) -> Vec<(String, String)> {
    let parts = braces.split(',').filter_map(|part| part.split_once('='));
    parts
        .map(|(label, value)| {
            let label = label.trim().trim_end_matches('!');
            (label.to_owned(), value.trim_start_matches('~').trim_matches('"').to_owned())
        })
        .collect()
}

/// The series in an expression, ours and those that rules record, with what stands in the braces behind each.
fn selectors(expr: &str) -> Vec<(String, Vec<(String, String)>)> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let starts = expr.match_indices("stagecast").filter(|(at, _)| !expr[..*at].ends_with(['"', '_', '/']));
    starts
        .map(|(at, _)| {
            let end = expr[at..].find(|c| !in_name(c)).map_or(expr.len(), |length| at + length);
            let braces = expr[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
            (expr[at..end].to_owned(), matchers(braces.map_or("", |(braces, _)| braces)))
        })
        .collect()
}

/// The labels that the aggregations of an expression keep, each with what it aggregates.
fn aggregations(expr: &str) -> Vec<(Vec<&str>, &str)> {
    let mut found = Vec::new();
    for (at, by) in expr.match_indices(" by (") {
        let (labels, rest) = expr[at + by.len()..].split_once(')').unwrap();
        let inner = rest.trim_start().strip_prefix('(').unwrap_or_else(|| panic!("{expr}: by what?"));
        let mut depth = 1;
        let end = inner.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        found.push((labels.split(',').map(str::trim).collect(), &inner[..end.unwrap()]));
    }
    found
}

/// The labels of what an expression gives.
fn labels_given(expr: &str, recorded: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let kept: BTreeSet<String> =
        aggregations(expr).into_iter().flat_map(|(labels, _)| labels).map(str::to_owned).collect();
    if !kept.is_empty() {
        return kept;
    }
    let mut labels: BTreeSet<String> = OF_SCRAPE.map(str::to_owned).into();
    for (name, _) in selectors(expr) {
        match recorded.get(&name) {
            Some(given) => return given.clone(),
            None => labels.extend(labels_of(&name).unwrap().iter().map(|label| (*label).to_owned())),
        }
    }
    labels
}

fn recorded() -> BTreeMap<String, BTreeSet<String>> {
    let none = BTreeMap::new();
    let records = rules().into_iter().filter(|rule| rule.get("record").is_some());
    records.map(|rule| (text(&rule, "record").to_owned(), labels_given(text(&rule, "expr"), &none))).collect()
}

#[test]
fn expressions_ask_for_series_labels_and_values_that_a_scrape_shows() {
    let (scraped, recorded) = (scraped(), recorded());
    let mut checked = 0;
    for rule in rules() {
        let expr = text(&rule, "expr");
        for (name, matchers) in selectors(expr) {
            assert!(recorded.contains_key(&name) || labels_of(&name).is_some(), "{expr}: {name}");
            for (label, value) in matchers {
                let values = scraped.get(&name).and_then(|of_name| of_name.get(&label));
                let values = values.unwrap_or_else(|| panic!("{expr}: {name} is not scraped with {label}"));
                assert!(values.contains(&value), "{expr}: {label} is one of {values:?}");
                checked += 1;
            }
        }
        for (labels, inner) in aggregations(expr) {
            let mut given = labels_given(inner, &recorded);
            given.extend(inner.contains("_bucket").then(|| "le".to_owned()));
            for label in labels {
                assert!(given.contains(label), "{expr}: what is aggregated has no {label}");
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn alerts_say_how_urgent_they_are_and_what_to_do_and_name_labels_that_they_have() {
    let recorded = recorded();
    for alert in alerts() {
        let (name, given) = (text(&alert, "alert"), labels_given(text(&alert, "expr"), &recorded));
        assert!(["page", "ticket"].contains(&text(&alert["labels"], "severity")), "{name}");
        for annotation in ["summary", "description"] {
            let said = text(&alert["annotations"], annotation);
            for (at, before) in said.match_indices("$labels.") {
                let label = said[at + before.len()..].split(|c: char| !c.is_alphanumeric()).next().unwrap();
                assert!(given.contains(label), "{name}: its {annotation} names {label}");
            }
        }
    }
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_with_what_the_rule_says() {
    for alert in alerts() {
        let name = text(&alert, "alert");
        let cases: Vec<Value> = cases();
        let asked = cases.iter().flat_map(|case| case["alert_rule_test"].as_array().unwrap());
        let fired = asked
            .filter(|test| test["alertname"] == name)
            .find_map(|test| test["exp_alerts"].as_array()?.first().cloned());
        let fired = fired.unwrap_or_else(|| panic!("{name} fires in no case"));
        assert_eq!(fired["exp_labels"]["severity"], alert["labels"]["severity"], "{name}");
        let description = text(&alert["annotations"], "description");
        let fixed = description.rsplit("}}").next().unwrap();
        assert!(text(&fired["exp_annotations"], "description").ends_with(fixed), "{name}");
    }
}

#[test]
fn the_series_of_the_cases_are_ones_that_are_exported() {
    let scraped = scraped();
    let mut checked = 0;
    for case in cases() {
        for input in case["input_series"].as_array().unwrap() {
            for (name, matchers) in selectors(text(input, "series")) {
                let known = labels_of(&name).unwrap_or_else(|| panic!("{name} is not exported"));
                for (label, value) in matchers.iter().filter(|(label, _)| !OPEN.contains(&label.as_str())) {
                    assert!(known.contains(&label.as_str()) || label == "le", "{name} has no {label}");
                    let values = &scraped[&name][label];
                    assert!(values.contains(value), "{name}: {label} is one of {values:?}, not {value}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 15, "{checked}");
}
