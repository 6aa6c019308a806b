//! `stagecast evaluate` through the program itself: time that the model has not seen, figures that can be
//! checked against `replay`, and a page that needs nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

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

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Simulated events, and a model of the time before July 2025.
fn world() -> &'static (tempfile::TempDir, PathBuf, PathBuf) {
    static WORLD: OnceLock<(tempfile::TempDir, PathBuf, PathBuf)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (events, model) = (dir.path().join("events"), dir.path().join("mine.json"));
        done(&["simulate", "--customers", "200", "--days", "270", "--seed", "5", "--out", text(&events)]);
        let (input, output) = (text(&events), text(&model));
        done(&["train", "--input", input, "--output", output, "--until", "2025-07-01"]);
        (dir, events, model)
    })
}

fn evaluated(more: &[&str]) -> Value {
    let (_, events, model) = world();
    let args = ["evaluate", "--input", text(events), "--model", text(model), "--json"];
    serde_json::from_str(&done(&[&args[..], more].concat())).unwrap()
}

#[test]
fn a_model_is_judged_on_what_came_after_all_it_learned_from() {
    let evaluation = evaluated(&[]);
    let learned = evaluation["model"]["learned_until"].as_str().unwrap();
    assert!(learned <= "2025-07-01T00:00:00.000Z", "{learned}");
    assert_eq!(evaluation["held_back"], true);
    for cut in evaluation["cuts"].as_array().unwrap() {
        assert!(cut["at"].as_str().unwrap() >= learned, "{cut}");
    }
    let auc = &evaluation["scores"]["roc_auc"];
    assert!(auc["value"].as_f64().unwrap() > 0.7, "{auc}");
    assert!(auc["low"].as_f64() < auc["value"].as_f64() && auc["value"].as_f64() < auc["high"].as_f64());
    let baselines = &evaluation["baselines"];
    assert!(baselines["p_no_order"]["roc_auc"]["value"].as_f64().unwrap() > 0.6, "{baselines}");
    assert!(baselines["recency"]["roc_auc"]["value"].is_number());
    let stages = evaluation["stages"].as_array().unwrap();
    let counted: u64 = stages.iter().map(|stage| stage["examples"].as_u64().unwrap()).sum();
    assert!(stages.len() >= 2 && counted <= evaluation["scores"]["examples"].as_u64().unwrap());
}

#[test]
fn a_cut_counts_what_a_replay_of_that_instant_scores() {
    let (dir, events, model) = world();
    let at = "2025-08-01T00:00:00Z";
    let evaluation = evaluated(&["--cuts", at]);
    let out = dir.path().join("replayed");
    // A millisecond before: the cut itself belongs to the future.
    let before = "2025-07-31T23:59:59.999Z";
    let (input, output) = (text(events), text(&out));
    done(&["replay", "--input", input, "--output", output, "--model", text(model), "--features-at", before]);
    let lines = std::fs::read_to_string(out.join("features.ndjson")).unwrap();
    let active = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["features"]["days_since_event"].as_f64().is_some_and(|days| days < 90.0));
    let p: Vec<f64> = active.map(|line| line["p_churn"].as_f64().unwrap()).collect();
    assert_eq!(evaluation["scores"]["examples"].as_u64(), Some(p.len() as u64));
    let mean = p.iter().sum::<f64>() / p.len() as f64;
    assert!((evaluation["scores"]["mean_p"].as_f64().unwrap() - mean).abs() < 1e-9);
}

#[test]
fn time_that_the_model_has_seen_is_refused_or_marked() {
    let (dir, events, model) = world();
    let (input, path) = (text(events), text(model));
    let inside = evaluated(&["--cuts", "2025-05-01"]);
    assert_eq!(inside["held_back"], false);
    let all = dir.path().join("all.json");
    done(&["train", "--input", input, "--output", text(&all)]);
    let (code, _, err) = stagecast(&["evaluate", "--input", input, "--model", text(&all)]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("no time left to judge") && err.contains("--until"), "{err}");
    let shown = done(&["evaluate", "--input", input, "--model", path]);
    assert!(shown.contains("ROC-AUC") && shown.contains("p_no_order"), "{shown}");
}

#[test]
fn the_page_needs_nothing_else_and_the_same_evaluation_gives_the_same_bytes() {
    let (dir, events, model) = world();
    let pages = ["one", "two"].map(|name| {
        let out = dir.path().join(name);
        let args = ["evaluate", "--input", text(events), "--model", text(model), "--output", text(&out)];
        done(&args);
        let json = std::fs::read_to_string(out.join("evaluation.json")).unwrap();
        assert!(serde_json::from_str::<Value>(&json).is_ok());
        std::fs::read_to_string(out.join("evaluation.html")).unwrap()
    });
    assert_eq!(pages[0], pages[1]);
    let page = &pages[0];
    for outside in ["http://", "https://", "<script", "<link", "url(", "@import"] {
        assert!(!page.contains(outside), "the page asks for {outside}");
    }
    for what in ["ROC", "Precision and recall", "Reliability", "Lift", "Scores", "prefers-color-scheme:dark"]
    {
        assert!(page.contains(what), "{what}");
    }
    assert_eq!(page.matches("<figure>").count(), page.matches("</figure>").count());
    assert!(!page.contains("NaN") && !page.contains("inf,"));
}

#[test]
fn a_model_that_learned_before_the_input_begins_is_judged_where_there_is_a_past() {
    let (_, _, model) = world();
    let dir = tempfile::tempdir().unwrap();
    let events = text(dir.path());
    let shop = ["--customers", "150", "--days", "200", "--seed", "8", "--start", "2026-01-01", "--force"];
    done(&[&["simulate", "--out", events], &shop[..]].concat());
    let told = done(&["evaluate", "--input", events, "--model", text(model), "--json"]);
    let evaluation: Value = serde_json::from_str(&told).unwrap();
    let cuts = evaluation["cuts"].as_array().unwrap();
    assert!(cuts.len() > 2, "{cuts:?}");
    assert!(cuts[0]["at"].as_str().unwrap() >= "2026-03-01", "{}", cuts[0]);
}
