//! What campaigns brought: the alerts that were written, what customers did after them, and the difference
//! between those the campaign could reach and those it could not.
//!
//! Owns where the records are read from, files or topics. What is made of them is [`study`]'s, and
//! [`statistics`]'.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::Source;
use crate::kafka::bounded;
use crate::kafka::history::History;
use crate::replay::{Inputs, Merged, find, reader};
use crate::setup;
use crate::time::{Ts, parse_rfc3339};
use crate::training::Skipped;

pub mod statistics;
pub mod study;

pub use study::{Question, Report, Returned, Study};

use study::Alert;

/// The outputs that are read. Alerts come first: only their customers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Alert,
    StageChange,
    Outcome,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Alert, Kind::StageChange, Kind::Outcome];

    /// Without its ending.
    fn file(self) -> &'static str {
        match self {
            Kind::Alert => "churn-alerts",
            Kind::StageChange => "stage-changes",
            Kind::Outcome => "churn-outcomes",
        }
    }

    fn topic(self, config: &Config) -> &str {
        match self {
            Kind::Alert => &config.topics.churn_alerts,
            Kind::StageChange => &config.topics.stage_changes,
            Kind::Outcome => &config.topics.churn_outcomes,
        }
    }

    /// Tells the study of one record; says what is wrong with one that is none.
    fn take(self, json: &[u8], study: &mut Study) -> Result<(), String> {
        match self {
            Kind::Alert => study.alert(read_alert(json)?),
            Kind::StageChange => {
                let change: StageChange = parse(json)?;
                study.stage_change(&change.customer_id, &change.lifecycle, &change.to, instant(&change.ts)?);
            }
            Kind::Outcome => {
                let outcome: Outcome = parse(json)?;
                study.outcome(&outcome.customer_id, instant(&outcome.scored_at)?, outcome.churned);
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct AlertRecord {
    alert_id: String,
    customer_id: String,
    ts: String,
    policy: String,
    group: String,
    value_at_risk: Option<f64>,
}

#[derive(Deserialize)]
struct StageChange {
    customer_id: String,
    lifecycle: String,
    to: String,
    ts: String,
}

#[derive(Deserialize)]
struct Outcome {
    customer_id: String,
    scored_at: String,
    churned: bool,
}

fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

fn instant(text: &str) -> Result<Ts, String> {
    parse_rfc3339(text).ok_or_else(|| format!("`{text}` is not an RFC 3339 instant"))
}

/// An alert as `churn-alerts` has it.
pub fn read_alert(json: &[u8]) -> Result<Alert, String> {
    let record: AlertRecord = parse(json)?;
    let control = match record.group.as_str() {
        "treatment" => false,
        "control" => true,
        other => return Err(format!("`group` is `{other}`, neither treatment nor control")),
    };
    Ok(Alert {
        id: record.alert_id,
        customer: record.customer_id,
        policy: record.policy,
        ts: instant(&record.ts)?,
        control,
        value_at_risk: record.value_at_risk,
    })
}

/// Reads folders with what `replay` wrote and with the events themselves, together or apart.
pub fn from_files(
    folders: &[PathBuf],
    config: &Config,
    question: Question,
    progress: &dyn Fn(u64),
) -> Result<Report> {
    let mut study = Study::new(question);
    for kind in Kind::ALL {
        for folder in folders {
            read_file(folder, kind.file(), &mut |json| kind.take(json, &mut study))?;
        }
        if kind == Kind::Alert && study.policies() == 0 {
            let names: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
            return Err(no_alerts(&format!(
                "no churn-alerts.ndjson with such alerts in {}",
                names.join(", ")
            )));
        }
    }
    let mut before = 0;
    for folder in folders.iter().filter(|folder| holds_events(folder)) {
        let mut events = Merged::new(Inputs::open(folder, config)?, config);
        before += take_events(&mut events, &mut study, &|n| progress(before + n))?;
    }
    study.report().ok_or_else(nothing_returns)
}

/// Reads the configured topics from their first record up to where they end now.
pub fn from_topics(config: &Config, question: Question, progress: &dyn Fn(u64)) -> Result<Report> {
    let clients = setup::clients(config);
    let mut study = Study::new(question);
    for kind in Kind::ALL {
        let topic = kind.topic(config);
        bounded::read_topic(&clients, topic, &mut |message| {
            let Some(json) = message.value else { return Ok(()) };
            let unreadable = |why| {
                Error::user(format!("{topic} [{}] offset {}: {why}", message.partition, message.offset))
            };
            kind.take(json, &mut study).map_err(unreadable)
        })?;
        if kind == Kind::Alert && study.policies() == 0 {
            return Err(no_alerts(&format!("`{topic}` holds no such alerts")));
        }
    }
    let mut events = Merged::new(History::find(clients, config)?.open()?, config);
    take_events(&mut events, &mut study, progress)?;
    study.report().ok_or_else(nothing_returns)
}

fn no_alerts(what: &str) -> Error {
    Error::user(what)
        .hint("`stagecast replay` writes churn-alerts.ndjson, `run` the topic; --since and --until narrow")
}

fn nothing_returns() -> Error {
    Error::user("there is neither an order nor an outcome, so nothing says who returned")
        .hint("add the folder with purchase.ndjson, or with churn-outcomes.ndjson, as another --input")
}

fn take_events(events: &mut Merged<'_>, study: &mut Study, progress: &dyn Fn(u64)) -> Result<u64> {
    let (mut count, mut skipped) = (0u64, Skipped::default());
    while let Some(line) = events.next(&mut skipped)? {
        study.event(line.event());
        count += 1;
        if count.is_multiple_of(1_024) {
            progress(count);
        }
    }
    if let Some(first) = &skipped.first {
        tracing::warn!(records = skipped.records, first, "events could not be used");
    }
    Ok(count)
}

fn holds_events(folder: &Path) -> bool {
    Source::ALL.iter().any(|source| !matches!(find(folder, source.name()), Ok(None)))
}

/// Hands out the lines of a file, if it is there.
pub fn read_file(folder: &Path, name: &str, take: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<()> {
    match find(folder, name)? {
        Some(path) => read_lines(&path, take),
        None => Ok(()),
    }
}

/// Hands out the lines of a file, plain or gzip; a line that is refused ends the reading with its number.
pub fn read_lines(path: &Path, take: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<()> {
    for (number, line) in reader(path)?.split(b'\n').enumerate() {
        let line = line.map_err(|e| Error::io("read", path, &e))?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        take(&line).map_err(|why| Error::user(format!("{}:{}: {why}", path.display(), number + 1)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
