//! What is shipped for operating stagecast agrees with the program: every metric and label that a rule or a
//! dashboard names is exported, the dashboards are those that the definitions make, and files that are named exist.

mod dashboards;
mod manifests;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use stagecast::metrics::table::{FAMILIES, Family, Kind};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn yaml(path: &str) -> serde_json::Value {
    serde_norway::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A metric as a query names it, with the labels it is asked for by.
#[derive(Debug)]
struct Use {
    name: String,
    labels: Vec<String>,
}

/// Every metric in a text, with the names in the braces that follow it.
fn uses(text: &str) -> Vec<Use> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("stagecast_") {
        if text[..at].ends_with(|c: char| word(c) || c == '/' || c == '-') {
            continue;
        }
        let rest = &text[at..];
        let name: String = rest.chars().take_while(|c| word(*c)).collect();
        let braces = rest[name.len()..].strip_prefix('{').and_then(|r| r.split_once('}')).map_or("", |b| b.0);
        let labels =
            braces.split(',').filter_map(|l| l.split(['=', '!']).next()).map(|l| l.trim().to_owned());
        found.push(Use { name, labels: labels.filter(|l| !l.is_empty()).collect() });
    }
    found
}

/// The labels of a metric by the name of one of its series; `None` when there is no such series.
fn labels_of(name: &str) -> Option<Vec<&'static str>> {
    let series = |family: &Family| match family.kind {
        Kind::Histogram => {
            ["_bucket", "_sum", "_count"].iter().any(|s| name == format!("{}{s}", family.name))
        }
        _ => name == family.name,
    };
    FAMILIES.iter().find(|f| series(f)).map(|f| f.labels.to_vec())
}

fn check_metrics(file: &str, text: &str) {
    let of_scrape = ["job", "instance", "le"];
    for Use { name, labels } in uses(text) {
        let known = labels_of(&name).unwrap_or_else(|| panic!("{file}: {name} is not exported"));
        for label in labels {
            assert!(
                known.contains(&label.as_str()) || of_scrape.contains(&label.as_str()),
                "{file}: {name} has no label {label}"
            );
        }
    }
}

#[test]
fn rules_name_only_what_is_exported() {
    for file in ["prometheus/rules.yml", "prometheus/tests.yml", "kubernetes/scaledobject.yaml"] {
        check_metrics(file, &read(file));
    }
    assert!(uses(&read("prometheus/rules.yml")).len() > 15, "the check looks at something");
    assert!(
        labels_of("stagecast_end_to_end_latency_seconds").is_none(),
        "a histogram is asked for its series"
    );
    assert!(labels_of("stagecast_events_total_bucket").is_none());
}

/// `UPDATE=1 cargo test --test deploy` writes them anew.
#[test]
fn the_dashboards_are_those_that_the_definitions_make() {
    for (name, made) in dashboards::all() {
        let path = deploy().join("grafana/dashboards").join(name);
        let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
        check_metrics(name, &dashboards::queries(&made).join("\n"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let shipped = fs::read_to_string(&path).unwrap_or_default();
        assert!(shipped == text, "{name} is stale: run `UPDATE=1 cargo test --test deploy`");
    }
}

/// Every metric that the program exports is to be seen somewhere.
#[test]
fn no_metric_is_left_out_of_the_dashboards() {
    let shown: String = dashboards::all().iter().flat_map(|(_, d)| dashboards::queries(d)).collect();
    let missing: Vec<_> = FAMILIES.iter().map(|f| f.name).filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_compose_mounts_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compose = fs::read_to_string(root.join("docker-compose.yml")).unwrap();
    let mounts =
        compose.lines().filter_map(|l| l.trim().strip_prefix("- ./")).filter_map(|l| l.split(':').next());
    let mounts: Vec<_> = mounts.collect();
    assert!(mounts.len() >= 4, "{mounts:?}");
    for path in mounts {
        assert!(root.join(path).exists(), "docker-compose.yml names {path}");
    }
}

/// The configurations that ship are ones that the program accepts.
#[test]
fn the_shipped_configurations_are_valid() {
    for file in ["compose/stagecast.toml", "kubernetes/stagecast.toml"] {
        let config = stagecast::config::Config::load(Some(&deploy().join(file)), &[]);
        stagecast::setup::plan(&config.unwrap_or_else(|e| panic!("{file}: {e}")), None).unwrap();
    }
}
