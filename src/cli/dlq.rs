//! `stagecast dlq`: dead letters that can be used after all.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;

use crate::config::Config;
use crate::error::Result;
use crate::event::Reason;
use crate::kafka::letters::{self, Request, Summary};
use crate::setup;
use crate::time::Ts;

use super::values::instant;

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, clap::Subcommand)]
pub enum Action {
    /// Sends dead letters back to where they came from, as far as today's configuration can read them
    ///
    /// Key, value and headers are those of the record as it came. What still cannot be used stays where it is.
    /// Called again, it sends again: an event without an `event_id` would then count twice, so narrow a later
    /// call with --since.
    Replay(Replay),
}

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Replay {
    /// A dlq.ndjson that `stagecast replay` wrote, repaired or not [default: the topic of dead letters]
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,

    /// Only those that are here for one of these reasons
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = reason)]
    pub reason: Vec<String>,

    /// Only those that became dead letters at or after this instant
    #[arg(long, value_name = "TS", value_parser = instant, conflicts_with = "input")]
    pub since: Option<Ts>,

    /// Says what would be sent, and sends nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn reason(text: &str) -> Result<String, String> {
    let known = || Reason::ALL.into_iter().map(Reason::code);
    match known().find(|code| *code == text) {
        Some(code) => Ok(code.to_owned()),
        None => {
            let near = crate::error::did_you_mean(text, known());
            Err(format!(
                "there is no such reason{near}; reasons are {}",
                known().collect::<Vec<_>>().join(", ")
            ))
        }
    }
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let Action::Replay(args) = &args.action;
    let clients = setup::clients(config);
    let request = Request { reasons: args.reason.clone(), since: args.since, dry_run: args.dry_run };
    let bar = super::progress::spinner("sending back");
    let read = |letters| bar.set_position(letters);
    let summary = match &args.input {
        Some(path) => letters::replay_file(&clients, config, path, &request, &read)?,
        None => letters::replay_topic(&clients, config, &request, &read)?,
    };
    bar.finish_and_clear();
    super::print(&told(&summary, args.dry_run))
}

fn told(summary: &Summary, dry_run: bool) -> String {
    let Summary { read, sent, passed_over, still_unusable, foreign } = summary;
    let verb = if dry_run { "would be sent" } else { "sent" };
    let mut text = format!("{} of {read} dead letters {verb}{}\n", total(sent), listed(sent));
    if !still_unusable.is_empty() {
        text += &format!("{} still cannot be used{}\n", total(still_unusable), listed(still_unusable));
    }
    if !foreign.is_empty() {
        text += &format!("{} are from topics that are no input here{}\n", total(foreign), listed(foreign));
    }
    if *passed_over > 0 {
        text += &format!("{passed_over} were not asked for\n");
    }
    text
}

fn total<K>(counts: &BTreeMap<K, u64>) -> u64 {
    counts.values().sum()
}

fn listed<K: Display>(counts: &BTreeMap<K, u64>) -> String {
    let each: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_what_became_of_all() {
        let summary = Summary {
            read: 10,
            sent: [("clickstream".to_owned(), 4), ("purchase".to_owned(), 2)].into(),
            passed_over: 1,
            still_unusable: [("missing_amount", 3)].into(),
            foreign: BTreeMap::new(),
        };
        let text = told(&summary, false);
        assert_eq!(
            text,
            "6 of 10 dead letters sent: clickstream 4, purchase 2\n\
             3 still cannot be used: missing_amount 3\n1 were not asked for\n"
        );
        assert!(told(&Summary::default(), true).starts_with("0 of 0 dead letters would be sent\n"));
    }

    #[test]
    fn reasons_are_checked() {
        assert_eq!(reason("invalid_ts"), Ok("invalid_ts".into()));
        assert!(reason("invalid_tz").unwrap_err().contains("did you mean `invalid_ts`?"));
    }
}
