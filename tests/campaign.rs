//! `stagecast campaign-report` finds the effect that a simulated campaign really had.
//!
//! The same customers are simulated twice, with and without the campaign, so that for everyone in the treatment it
//! is known whether they would have come back anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stagecast::time::{DAY_MS, Ts, parse_rfc3339};

const WITHIN: i64 = 30 * DAY_MS;

fn done(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_stagecast")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ts(value: &Value) -> Ts {
    parse_rfc3339(value.as_str().unwrap()).unwrap()
}

/// Order instants by customer.
fn orders(folder: &Path) -> BTreeMap<String, BTreeSet<Ts>> {
    let mut orders: BTreeMap<String, BTreeSet<Ts>> = BTreeMap::new();
    for event in lines(&folder.join("purchase.ndjson")).iter().filter(|e| e["type"] == "order_completed") {
        orders.entry(event["customer_id"].as_str().unwrap().into()).or_default().insert(ts(&event["ts"]));
    }
    orders
}

/// By customer of the treatment, whose time is over by `end`: the first alert.
fn treated(alerts: &Path, end: Ts) -> BTreeMap<String, Ts> {
    let mut first = BTreeMap::new();
    for alert in lines(alerts).iter().filter(|alert| alert["group"] == "treatment") {
        let at = first.entry(alert["customer_id"].as_str().unwrap().to_owned()).or_insert(Ts::MAX);
        *at = ts(&alert["ts"]).min(*at);
    }
    first.retain(|_, at| *at + WITHIN <= end);
    first
}

#[test]
fn a_simulated_campaigns_effect_is_recovered_within_its_interval() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (plain, out, with) = (path("plain"), path("out"), path("with"));
    let alerts = format!("{out}/churn-alerts.ndjson");
    let people = ["--customers", "500", "--days", "200", "--seed", "11"];
    done(&[&["simulate", "--out", &plain], &people[..]].concat());
    done(&["replay", "--input", &plain, "--output", &out, "--set", "alert.0.control=0.5"]);
    let effects = ["0.6", "0"].map(|uplift| {
        let campaign = ["--out", &with, "--force", "--campaign", &alerts, "--uplift", uplift];
        let said = done(&[&["simulate"], &campaign[..], &people[..]].concat());
        assert!(said.contains("the campaign reached "), "{said}");
        let report = done(&["campaign-report", "--input", &out, "--input", &with, "--json"]);
        let report: Value = serde_json::from_str(&report).unwrap();
        let policy = &report["policies"][0];

        let end = ts(&report["as_of"]);
        let (would_have, have) = (orders(Path::new(&plain)), orders(Path::new(&with)));
        let reached = treated(Path::new(&alerts), end);
        let returned = |orders: &BTreeMap<String, BTreeSet<Ts>>| {
            let is_back = |(customer, at): &(&String, &Ts)| {
                orders.get(*customer).is_some_and(|o| o.range(**at + 1..=**at + WITHIN).next().is_some())
            };
            reached.iter().filter(is_back).count()
        };
        assert_eq!(policy["treatment"]["customers"], reached.len());
        assert_eq!(policy["treatment"]["returned"], returned(&have));
        let truth = (returned(&have) - returned(&would_have)) as f64 / reached.len() as f64;
        let at = |name: &str| policy["difference"][name].as_f64().unwrap();
        assert!(at("low") <= truth && truth <= at("high"), "{truth} {policy:#}");
        assert!(policy["control"]["customers"].as_u64().unwrap() > 80, "{policy:#}");
        (truth, at("low"))
    });
    let [(truth, low), (nothing, low_of_nothing)] = effects;
    assert!(truth > 0.15 && low > 0.0, "an effect of {truth:.3} is told from none");
    assert!(nothing == 0.0 && low_of_nothing <= 0.0, "no campaign, no effect");

    let text = done(&["campaign-report", "--input", &out, "--input", &with]);
    for part in ["policy churn: ", "treatment", "control", "points (", "who would not have", "lapses"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
