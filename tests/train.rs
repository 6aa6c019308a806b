//! `stagecast train` from files to a model, through the program itself, and the one feature code: what it
//! learns from, what `replay` writes and what the model is fed are the same numbers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use stagecast::config::Config;
use stagecast::model::transform::Transform;
use stagecast::model::{Model, artifact::Label};
use stagecast::pipeline::outbox::hash_customer;
use stagecast::replay::{Inputs, Merged};
use stagecast::simulate::START;
use stagecast::time::{DAY_MS, Ts, parse_rfc3339};
use stagecast::training::{self, Task};

const CUSTOMERS: &str = "200";
const DAYS: &str = "240";

fn stagecast(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stagecast")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn done(args: &[&str]) -> String {
    let (code, out, err) = stagecast(args);
    assert_eq!(code, 0, "{args:?}: {err}");
    out
}

/// One simulation and one model for all tests.
fn trained() -> &'static (tempfile::TempDir, PathBuf, PathBuf, String) {
    static TRAINED: OnceLock<(tempfile::TempDir, PathBuf, PathBuf, String)> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (events, model) = (dir.path().join("events"), dir.path().join("mine.json"));
        done(&["simulate", "--customers", CUSTOMERS, "--days", DAYS, "--seed", "5", "--out", text(&events)]);
        let out = done(&["train", "--input", text(&events), "--output", text(&model)]);
        (dir, events, model, out)
    })
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn features_at(events: &Path, model: &Path, at: &[Ts]) -> Vec<Value> {
    let out = tempfile::tempdir().unwrap();
    let at: Vec<String> = at.iter().map(Ts::to_string).collect();
    let (dir, at) = (out.path().join("replayed"), at.join(","));
    let (dir_text, model) = (text(&dir), text(model));
    done(&["replay", "--input", text(events), "--output", dir_text, "--model", model, "--features-at", &at]);
    lines(&dir.join("features.ndjson"))
}

/// `null` is infinity.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::INFINITY)
}

#[test]
fn training_tells_how_good_the_model_is_and_leaves_a_card() {
    let (_, _, model, out) = trained();
    for what in ["mine ", "ROC-AUC", "recency alone", "Brier", "log loss", "ECE", "churned", "held back from"]
    {
        assert!(out.contains(what), "{what}: {out}");
    }
    let read = Model::read(model).unwrap();
    assert_eq!(read.name, "mine");
    assert_eq!(read.version.len(), 12);
    assert!(read.training.held_back.roc_auc.value > 0.7);
    let card = std::fs::read_to_string(model.with_extension("md")).unwrap();
    assert!(card.starts_with(&format!("# Churn model mine {}", read.version)), "{card}");
    assert!(card.contains(&format!("{:.3} (", read.training.held_back.roc_auc.value)));
}

#[test]
fn the_same_events_give_the_same_file_again() {
    let (dir, events, model, _) = trained();
    let again = dir.path().join("again").join("mine.json");
    std::fs::create_dir(again.parent().unwrap()).unwrap();
    // An earlier model makes room without being asked.
    std::fs::copy("models/churn.json", &again).unwrap();
    done(&["train", "--input", text(events), "--output", text(&again)]);
    assert_eq!(std::fs::read(model).unwrap(), std::fs::read(&again).unwrap());
}

/// Σ weight × (value − mean) / deviation, calibrated: by hand, from the two files alone.
fn p_by_hand(model: &Model, features: &Value) -> f64 {
    let value = |name: &str, transform: Transform| transform.apply(number(&features[name]));
    let mut logit = model.intercept;
    for term in &model.terms {
        let partner = term.with.as_ref().map_or(1.0, |with| value(&with.feature, with.transform));
        let x = value(&term.feature, term.transform) * partner;
        logit += term.weight * (x - term.mean) / term.deviation;
    }
    if let Some(c) = model.calibration {
        logit = c.slope * logit + c.intercept;
    }
    1.0 / (1.0 + (-logit).exp())
}

#[test]
fn a_replay_scores_what_the_artefact_says_for_the_features_it_writes() {
    let (_, events, path, _) = trained();
    let model = Model::read(path).unwrap();
    let snapshot = features_at(events, path, &[START + 100 * DAY_MS, START + 239 * DAY_MS]);
    assert!(snapshot.len() > 200, "{}", snapshot.len());
    for line in &snapshot {
        let by_hand = p_by_hand(&model, &line["features"]);
        let written = number(&line["p_churn"]);
        assert!((by_hand - written).abs() < 1e-9, "{by_hand} {line}");
    }
    let p: Vec<f64> = snapshot.iter().map(|line| number(&line["p_churn"])).collect();
    assert!(p.iter().any(|p| *p < 0.3) && p.iter().any(|p| *p > 0.7), "both bands are reached");
}

#[test]
fn what_the_model_foretells_is_a_feature_like_any_other() {
    let (_, events, path, _) = trained();
    let snapshot = features_at(events, path, &[START + 239 * DAY_MS]);
    let (buyers, others): (Vec<&Value>, Vec<&Value>) =
        snapshot.iter().map(|line| &line["features"]).partition(|f| number(&f["orders_lifetime"]) > 0.0);
    assert!(buyers.len() > 50 && !others.is_empty());
    for features in others {
        assert!(features["p_no_order"].is_null() && features["clv_365d"] == 0.0, "{features}");
    }
    let p = |f: &Value| number(&f["p_no_order"]);
    assert!(buyers.iter().all(|f| (0.0..=1.0).contains(&p(f)) && number(&f["clv_365d"]) >= 0.0));
    let mean = |long_silent: bool| {
        let of = buyers.iter().filter(|f| (number(&f["days_since_order"]) > 60.0) == long_silent);
        let p: Vec<f64> = of.map(|f| p(f)).collect();
        p.iter().sum::<f64>() / p.len() as f64
    };
    assert!(mean(true) > mean(false) + 0.1, "{} {}", mean(true), mean(false));
}

#[test]
fn training_learns_from_what_a_replay_serves_a_millisecond_before_the_cut_to_the_bit() {
    let (_, events, model, _) = trained();
    let cuts: Vec<Ts> = [100, 131, 170].map(|day| START + day * DAY_MS + day * 777_777).to_vec();
    let config = Config::default();
    let task = Task {
        name: "t".into(),
        label: Label::NoOrder,
        horizon: 30 * DAY_MS,
        lead: 0,
        active_within: 90 * DAY_MS,
        cuts: cuts.clone(),
        until: None,
        monotone: false,
    };
    let plan = stagecast::setup::plan_for_features(&config).unwrap();
    let mut merged = Merged::new(Inputs::open(events, &config).unwrap(), &config);
    let examples = training::examples::take(plan, &task, &cuts, 0, &mut merged, &|_| {}).unwrap().dataset;
    let before: Vec<Ts> = cuts.iter().map(|cut| cut - 1).collect();
    let served = features_at(events, model, &before);
    let mut compared = 0;
    for line in &served {
        let at = parse_rfc3339(line["ts"].as_str().unwrap()).unwrap() + 1;
        let hash = hash_customer(line["customer_id"].as_str().unwrap());
        let mut rows =
            (0..examples.label.len()).filter(|i| examples.customer[*i] == hash && examples.at[*i] == at);
        let active = number(&line["features"]["days_since_event"]) < 90.0;
        let Some(row) = rows.next() else {
            assert!(!active, "an active customer is an example: {line}");
            continue;
        };
        // What the model foretells is not known before there is a model.
        let foretold = |name: &str| ["p_no_order", "clv_365d"].contains(&name);
        for (column, name) in examples.names.iter().enumerate().filter(|(_, name)| !foretold(name)) {
            let (learned, served) = (examples.rows[[row, column]], number(&line["features"][name]));
            assert_eq!(learned.to_bits(), served.to_bits(), "{name}: {learned} {line}");
        }
        compared += 1;
    }
    assert_eq!(compared, examples.label.len());
    assert!(compared > 200, "{compared}");
}

#[test]
fn what_cannot_be_learned_or_overwritten_is_refused_with_the_reason() {
    let (dir, events, _, _) = trained();
    let refused = |args: &[&str], says: &str| {
        let (code, _, err) = stagecast(&[&["train", "--input", text(events)], args].concat());
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(says), "{says}: {err}");
    };
    let fresh = dir.path().join("fresh.json");
    refused(&["--output", text(&fresh), "--cuts", "2031-01-01"], "none of the 1 cuts is usable");
    refused(&["--output", text(&fresh), "--horizon", "150d"], "too short");
    refused(&["--output", text(&dir.path().join("nowhere").join("m.json"))], "there is no folder");
    let notes = dir.path().join("notes.json");
    std::fs::write(&notes, "{\"mine\": true}").unwrap();
    refused(&["--output", text(&notes)], "is no churn model");
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "{\"mine\": true}");
    assert!(!fresh.exists() && !fresh.with_extension("md").exists());
}

#[test]
fn check_compiles_the_model_against_the_features() {
    let (dir, _, model, _) = trained();
    let config = dir.path().join("stagecast.toml");
    let write = |features: &str| {
        std::fs::write(dir.path().join("features.toml"), features).unwrap();
        std::fs::write(
            &config,
            format!("[model]\npath = \"{}\"\n[features]\nfile = \"features.toml\"\n", text(model)),
        )
        .unwrap();
    };
    write("");
    assert!(done(&["--config", text(&config), "check"]).contains("mine "));
    let used = Model::read(model).unwrap().features().into_iter().map(str::to_owned).collect::<Vec<String>>();
    write("default = false\n[[feature]]\nname = \"x\"\nagg = \"days_since\"\n");
    let (code, _, err) = stagecast(&["--config", text(&config), "check"]);
    assert_eq!(code, 2);
    assert!(used.iter().any(|feature| err.contains(&format!("has no `{feature}`"))), "{err}");
    assert!(err.contains("retention.toml:"), "the lifecycle's problems are told as well: {err}");
}
