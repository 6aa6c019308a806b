//! Golden cases: `tests/cases/*.case`, text in, text out, through the real decoder and engine.
//!
//! A case is a header, then events in order of arrival, then `---` and what must be written. Its lines:
//!
//! ```text
//! # a comment
//! format segment                          of the events (default: native)
//! lifecycle retention                     a preset, or <<, the text of a file, and >>
//! model -2 tickets_7d 1.5                 the logit: intercept, then features and weights (default: 0)
//! rescore_every 400d | min_change 0.1 | bands 0.3 0.7 | margin 0.5 | dedupe 24h
//! horizon 30d | lead 2d | label no_event
//! outcomes 24h                            keep scores so often (default: never)
//! policy churn raise 0.7 clear 0.5 cooldown 7d control 0.1 segment tier=gold
//! policy hello stage conversion cooldown 1d
//! opt_out 30d                             how long an erased customer's events are dropped
//! follow 400d                             how long events under a merged id follow its customer
//! hide scores                             what the case is not about
//! clickstream {"customer_id":"c1",…}      an event of this source
//! population                              customers per stage
//! tick 2026-03-01T00:00:00Z               the clock of the partition
//! until 2026-06-01T00:00:00Z              every instant of silence up to and including this one
//! features 2026-03-01T00:00:00Z c1 orders_90d clicks_7d
//! ```
//!
//! `UPDATE_CASES=1 cargo test --test cases` writes down what comes out; read the difference before keeping it.

mod support;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use stagecast::event::Source;
use stagecast::event::decoder::{Decoder, Format};
use stagecast::model::artifact::{Model, Transform};
use stagecast::pipeline::catalogue::Catalogue;
use stagecast::pipeline::engine::Applied;
use stagecast::pipeline::facts::{FeatureNames, TraitValue};
use stagecast::pipeline::lifecycle::preset;
use stagecast::pipeline::outbox::Channel;
use stagecast::pipeline::outcomes::Keeping;
use stagecast::pipeline::plan::{Plan, Policy, PolicyOn, Settings};
use stagecast::time::{Ts, format_rfc3339, parse_rfc3339, parse_span};
use support::{Driver, Out};

#[test]
fn every_case_writes_what_it_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> =
        std::fs::read_dir(&directory).expect("tests/cases").map(|f| f.expect("a file").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "there are cases");
    let update = std::env::var_os("UPDATE_CASES").is_some();
    let failed: Vec<String> = files.iter().filter_map(|file| check(file, update).err()).collect();
    assert!(failed.is_empty(), "\n{}\nUPDATE_CASES=1 writes down what comes out", failed.join("\n"));
}

/// Runs one case; the error names the first line that differs.
fn check(file: &Path, update: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let (input, expected) = text.split_once("\n---\n").unwrap_or((text.trim_end(), ""));
    let got = Case::read(input).run();
    if update {
        let text = format!("{}\n---\n{got}", input.trim_end());
        return std::fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()));
    }
    if got == expected {
        return Ok(());
    }
    let line = got.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
    let at = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").to_owned();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Err(format!("{name}: line {} after ---\n  got      {}\n  expected {}", line + 1, at(&got), at(expected)))
}

struct Case<'a> {
    lifecycles: Vec<(String, String)>,
    model: Model,
    settings: Settings,
    hidden: Vec<Channel>,
    decoder: Decoder,
    /// The lines after the header.
    steps: Vec<&'a str>,
}

impl<'a> Case<'a> {
    fn read(input: &'a str) -> Self {
        let mut case = Case {
            lifecycles: Vec::new(),
            model: support::model(0.0, &[("clicks_7d", Transform::Identity, (0.0, 1.0, 0.0))]),
            settings: Settings { policies: Vec::new(), outcomes: Keeping::NONE, ..Settings::default() },
            hidden: Vec::new(),
            decoder: Decoder::default(),
            steps: Vec::new(),
        };
        let mut lines = input.lines();
        while let Some(line) = lines.next() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "" => {}
                _ if word.starts_with('#') => {}
                "lifecycle" if rest == "<<" => {
                    let text: Vec<&str> = lines.by_ref().take_while(|line| *line != ">>").collect();
                    case.lifecycles.push((format!("{}.toml", case.lifecycles.len()), text.join("\n")));
                }
                "lifecycle" => {
                    let text = preset(rest).unwrap_or_else(|| panic!("no preset `{rest}`"));
                    case.lifecycles.push((format!("{rest}.toml"), text.to_owned()));
                }
                "model" => case.model = model(rest),
                "policy" => case.settings.policies.push(policy(rest)),
                "format" => case.decoder = decoder(rest),
                "hide" => case.hidden.push(channel(rest)),
                "horizon" => case.model.horizon = span(rest),
                "lead" => case.model.lead = span(rest),
                "label" => case.model.label = serde_json::from_value(rest.into()).expect("a label"),
                "outcomes" => case.settings.outcomes = Keeping { sample: 1.0, every_ms: span(rest) },
                "rescore_every" => case.settings.rescore_every_ms = span(rest),
                "dedupe" => case.settings.dedupe_ms = span(rest),
                "min_change" => case.settings.min_change = number(rest),
                "opt_out" => case.settings.privacy.opt_out_ms = span(rest),
                "follow" => case.settings.identity.follow_ms = span(rest),
                "margin" => case.settings.margin = number(rest),
                "bands" => {
                    let (low, high) = rest.split_once(' ').expect("two bounds");
                    case.settings.bands = [number(low), number(high)];
                }
                _ => case.steps.push(line),
            }
        }
        case
    }

    fn run(self) -> String {
        let plan = Plan::new(&Catalogue::shipped(), &self.lifecycles, &self.model, self.settings);
        let plan = Arc::new(plan.unwrap_or_else(|error| panic!("{error}")));
        let mut driver = Driver::new(&plan);
        let mut text = String::new();
        for step in &self.steps {
            let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
            let said = match (word, Source::from_name(word)) {
                (_, Some(source)) => applied(driver.apply_as(&self.decoder, source, rest.as_bytes()), rest),
                ("tick", _) => {
                    driver.engine.tick(instant(rest));
                    None
                }
                ("until", _) => {
                    driver.engine.run_until(instant(rest));
                    None
                }
                ("features", _) => Some(features(&driver, rest)),
                ("population", _) => Some(population(&driver)),
                _ => panic!("`{word}` is no step"),
            };
            for out in driver.commit().iter().filter(|out| !self.hidden.contains(&out.channel)) {
                text += &told(out);
            }
            said.into_iter().for_each(|line| text += &line);
            for refused in driver.engine.identities_mut().take_refused() {
                text += &format!("dead letter {}\n", refused.reject);
            }
        }
        text
    }
}

fn instant(text: &str) -> Ts {
    parse_rfc3339(text).unwrap_or_else(|| panic!("`{text}` is no instant"))
}

fn span(text: &str) -> i64 {
    parse_span(text).unwrap_or_else(|error| panic!("{error}"))
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

fn decoder(name: &str) -> Decoder {
    let format = Format::from_name(name).unwrap_or_else(|| panic!("no format `{name}`"));
    Decoder::new(format, Format::Native, &Default::default(), Default::default())
}

fn channel(name: &str) -> Channel {
    match name {
        "stages" => Channel::StageChanges,
        "scores" => Channel::ChurnScores,
        "alerts" => Channel::ChurnAlerts,
        "erasures" => Channel::Erasures,
        "outcomes" => Channel::ChurnOutcomes,
        _ => panic!("hide stages, scores, alerts, outcomes or erasures, not `{name}`"),
    }
}

/// `intercept feature weight feature weight …`
fn model(text: &str) -> Model {
    let words: Vec<&str> = text.split_whitespace().collect();
    let terms: Vec<_> =
        words[1..].chunks(2).map(|t| (t[0], Transform::Identity, (0.0, 1.0, number(t[1])))).collect();
    support::model(number(words[0]), &terms)
}

/// `name key value key value …`
fn policy(text: &str) -> Policy {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut policy = Policy { name: words[0].to_owned(), control: 0.0, ..Policy::default() };
    for pair in words[1..].chunks(2) {
        let (key, value) = (pair[0], pair[1]);
        match (key, &mut policy.on) {
            ("raise", PolicyOn::Score { raise, .. }) => *raise = number(value),
            ("clear", PolicyOn::Score { clear, .. }) => *clear = number(value),
            ("stage", on) => *on = PolicyOn::Stage { lifecycle: None, stage: value.to_owned() },
            ("cooldown", _) => policy.cooldown_ms = span(value),
            ("control", _) => policy.control = number(value),
            ("segment", _) => {
                let (name, value) = value.split_once('=').expect("segment trait=value");
                policy.segment.push((name.to_owned(), TraitValue::Text(value.into())));
            }
            ("min_clv", _) => policy.min_clv = Some(number(value)),
            ("action", _) => policy.action = Some(value.to_owned()),
            _ => panic!("`{key}` is no key of a policy"),
        }
    }
    policy
}

/// A line for an event that was not simply taken in.
fn applied(applied: Applied, json: &str) -> Option<String> {
    let event: Value = serde_json::from_str(json).expect("JSON");
    let word = match applied {
        Applied::InOrder => return None,
        Applied::Late => "late",
        Applied::Duplicate => "duplicate, dropped",
        Applied::OptedOut => "of an erased customer, dropped",
        Applied::Moved => "follows",
        Applied::Refused => "refused",
    };
    let at = instant(event["ts"].as_str().expect("ts as text"));
    Some(format!(
        "{} {} {} {word}\n",
        format_rfc3339(at).as_str(),
        text(&event["customer_id"]),
        text(&event["event_id"])
    ))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// A number as short as it can be told apart by eye.
fn short(value: &Value) -> String {
    value.as_f64().map_or_else(|| "inf".to_owned(), |n| format!("{}", (n * 1e6).round() / 1e6))
}

fn stages(out: &Value) -> String {
    let stages = out["stages"].as_object().expect("stages");
    stages
        .iter()
        .map(|(lifecycle, stage)| format!("{lifecycle}: {}", text(stage)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// One output as one line.
fn told(out: &Out) -> String {
    if out.bytes.is_empty() {
        return format!("{} {} score tombstone\n", format_rfc3339(out.ts).as_str(), out.key);
    }
    let json = out.json();
    let who = if out.channel == Channel::Erasures { "customer_hash" } else { "customer_id" };
    let mut line = format!("{} {} ", format_rfc3339(out.ts).as_str(), text(&json[who]));
    let wrote = match out.channel {
        Channel::StageChanges => {
            let cause = match text(&json["trigger"]) {
                "event" => format!("event {}", text(&json["event_id"])),
                other => other.to_owned(),
            };
            let (lifecycle, from, to) = (text(&json["lifecycle"]), text(&json["from"]), text(&json["to"]));
            let (visit, days) = (short(&json["visit"]), short(&json["stage_days"]));
            let because = match text(&json["rule"]).rsplit_once(" // ") {
                Some((_, reasons)) => format!(" because {reasons}"),
                None => String::new(),
            };
            write!(line, "stage {lifecycle}: {from} -> {to} ({cause}) visit {visit} after {days}d{because}")
        }
        Channel::ChurnScores => {
            let (p, band) = (short(&json["p_churn"]), text(&json["band"]));
            write!(line, "score {p} {band} {{{}}}", stages(&json))
        }
        Channel::Erasures => {
            let known = if json["known"] == true { "erased" } else { "erased, though unknown" };
            write!(line, "{known}, dropped until {}", text(&json["opt_out_until"]))
        }
        Channel::ChurnAlerts => {
            let previous =
                json["previous"].as_f64().map_or("nothing".to_owned(), |_| short(&json["previous"]));
            let (policy, kind, group) = (text(&json["policy"]), text(&json["kind"]), text(&json["group"]));
            let (p, action) = (short(&json["p_churn"]), text(&json["action"]));
            let change = &json["counterfactual"];
            let way_out = match change.as_object() {
                Some(c) => format!(
                    ", under it with {} {} -> {}",
                    text(&c["feature"]),
                    short(&c["from"]),
                    short(&c["to"])
                ),
                None => String::new(),
            };
            write!(line, "alert {policy} ({kind}, {group}) {p} after {previous}: {action}{way_out}")
        }
        Channel::ChurnOutcomes => {
            let (at, p) = (text(&json["scored_at"]), short(&json["p_churn"]));
            let what = if json["churned"] == true { "churned" } else { "stayed" };
            let (stage, group, horizon) =
                (text(&json["stage"]), text(&json["group"]), text(&json["horizon"]));
            let model = format!("{} {}", text(&json["model"]["name"]), text(&json["model"]["version"]));
            write!(line, "outcome {what}: {p} of {at} in {stage} ({group}) within {horizon} by {model}")
        }
    };
    wrote.expect("text grows");
    line + "\n"
}

/// `TS customer feature feature …`
fn features(driver: &Driver, rest: &str) -> String {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let store = driver.engine.store();
    let index = store.find(words[1]).unwrap_or_else(|| panic!("nobody knows `{}`", words[1]));
    let view = driver.engine.view(index, instant(words[0]));
    let mut line = format!("{} {} features", format_rfc3339(view.at).as_str(), words[1]);
    for name in &words[2..] {
        let id = driver.engine.plan().layout.id(name).unwrap_or_else(|| panic!("no feature `{name}`"));
        let value = serde_json::json!(view.features[id.index()]);
        line += &format!(" {name}={}", short(&value));
    }
    line + "\n"
}

/// Every customer, by the stages they are in.
fn population(driver: &Driver) -> String {
    let plan = driver.engine.plan();
    let mut line = format!("{} customers", driver.engine.store().len());
    for ((lifecycle, _), counts) in plan.lifecycles.iter().zip(driver.engine.population()) {
        for (stage, n) in lifecycle.stages().iter().zip(counts).filter(|(_, n)| **n != 0) {
            line += &format!(" {}/{}={n}", lifecycle.name, stage.name);
        }
    }
    line + "\n"
}
