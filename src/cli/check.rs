//! `stagecast check`: validates the configuration and what it names against each other; with `--diff`, says who
//! would move if a lifecycle's definition were another.
//!
//! The configuration itself has been validated by the time it arrives here: loading reports all that is wrong
//! with it. What is left is the files that it names: features, lifecycles and model are compiled into the very
//! plan that a service would run, and the properties of librdkafka, which knows best what its build can do.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::json;

use super::values::instant;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::plan::Plan;
use crate::replay::diff::{Diff, diff};
use crate::setup;
use crate::time::{Ts, format_rfc3339};

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Prints the effective configuration, with every key and with secrets masked
    #[arg(long)]
    pub print: bool,

    /// Replays the input under two definitions of a lifecycle (files or presets) and says who would move
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], requires = "input", conflicts_with = "print")]
    pub diff: Vec<String>,

    /// Folder with the events to replay, as for `replay`
    #[arg(long, value_name = "DIR", requires = "diff")]
    pub input: Option<PathBuf>,

    /// Compares as of this instant [default: the last event]
    #[arg(long, value_name = "TS", value_parser = instant, requires = "diff")]
    pub until: Option<Ts>,

    /// Lists the customers that would move
    #[arg(long, requires = "diff")]
    pub list: bool,

    /// Prints JSON
    #[arg(long, requires = "diff")]
    pub json: bool,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    if let [old, new] = &args.diff[..] {
        return compare(args, config, old, new);
    }
    let plan = setup::plan(config, None)?;
    if args.print {
        return super::print(&config.to_toml());
    }
    setup::clients(config).check()?;
    super::print(&summary(config, &plan))
}

fn summary(config: &Config, plan: &Plan) -> String {
    let source = &config.source;
    let inputs = [&source.clickstream, &source.purchase, &source.support, &source.profile];
    let inputs: Vec<&str> = inputs.iter().filter(|s| s.enabled).map(|s| s.topic.as_str()).collect();
    let lifecycles: Vec<&str> = plan.lifecycles.iter().map(|(lifecycle, _)| &*lifecycle.name).collect();
    let challenger = plan
        .challenger
        .as_ref()
        .map_or(String::new(), |model| format!(", challenged by {} {}", model.name, model.version));
    let alerts: Vec<&str> = config.alert.iter().map(|alert| alert.policy.as_str()).collect();
    format!(
        "configuration is valid: {} as {}\n  inputs      {}\n  features    {}\n  \
         lifecycles  {}\n  model       {} {}{challenger}\n  alerts      {}\n",
        config.app.id,
        config.app.instance,
        inputs.join(", "),
        plan.layout.features.len(),
        lifecycles.join(", "),
        plan.model_name,
        plan.model_version,
        if alerts.is_empty() { "none".into() } else { alerts.join(", ") },
    )
}

/// A lifecycle as its file calls it.
struct Named {
    name: String,
    version: String,
}

fn compare(args: &Args, config: &Config, old: &str, new: &str) -> Result<()> {
    let plan = |name: &str| {
        setup::lifecycle_text("--diff", name).and_then(|text| setup::plan_of_lifecycle(config, text))
    };
    let (old, new) = match (plan(old), plan(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => return Err(Error::all_of([old.err(), new.err()].into_iter().flatten().collect())),
    };
    let [was, becomes] = [&old, &new].map(named);
    let input = args.input.clone().unwrap_or_default();
    let bar = super::progress::spinner("replaying");
    let diff = diff((old, new), config, &input, args.until, &|events| bar.set_position(events))?;
    bar.finish_and_clear();
    super::print(&if args.json {
        as_json(args, &was, &becomes, &diff)
    } else {
        as_table(args, &was, &becomes, &diff)
    })
}

fn named(plan: &Plan) -> Named {
    let lifecycle = plan.lifecycles.first().map(|(lifecycle, _)| lifecycle);
    Named {
        name: lifecycle.map_or(String::new(), |l| l.name.to_string()),
        version: lifecycle.map_or(String::new(), |l| l.version.to_string()),
    }
}

/// `on applying`: where customers go when `run` is started with the new definition; `always`: where they would
/// stand had it always been in force.
fn as_table(args: &Args, was: &Named, becomes: &Named, diff: &Diff) -> String {
    let counts = diff.counts();
    let names = counts.keys().flat_map(|(from, to)| [from.len(), to.len()]);
    let width = names.max().unwrap_or(0).max("unmoved".len());
    let mut text = format!(
        "{} {} -> {} {}: {} customers as of {}\n",
        was.name,
        was.version,
        becomes.name,
        becomes.version,
        diff.customers,
        format_rfc3339(diff.as_of).as_str()
    );
    let mut line = |from: &str, to: &str, on_applying: &str, always: &str| {
        let _ = writeln!(text, "  {from:width$}  {to:width$}  {on_applying:>11}  {always:>11}");
    };
    line("from", "to", "on applying", "always");
    for ((from, to), counts) in &counts {
        line(from, to, &counts.on_applying.to_string(), &counts.always.to_string());
    }
    let unmoved = diff.unmoved();
    line("unmoved", "", &unmoved.on_applying.to_string(), &unmoved.always.to_string());
    if was.name != becomes.name {
        text += "the names differ: to a service these are two lifecycles, and customers begin anew in the second\n";
    }
    if args.list {
        text += "customer\tfrom\ton applying\talways\n";
        for m in &diff.moved {
            let _ = writeln!(text, "{}\t{}\t{}\t{}", m.customer_id, m.from, m.on_applying, m.always);
        }
    }
    text
}

fn as_json(args: &Args, was: &Named, becomes: &Named, diff: &Diff) -> String {
    let counts = diff.counts();
    let moves = counts.iter().map(|((from, to), counts)| {
        json!({ "from": from, "to": to, "on_applying": counts.on_applying, "always": counts.always })
    });
    let side = |named: &Named| json!({ "lifecycle": named.name, "version": named.version });
    let mut value = json!({
        "old": side(was),
        "new": side(becomes),
        "as_of": format_rfc3339(diff.as_of).as_str(),
        "customers": diff.customers,
        "moves": moves.collect::<Vec<_>>(),
        "unmoved": diff.unmoved(),
    });
    if args.list {
        value["moved"] = json!(diff.moved);
    }
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::diff::Moved;

    fn diff() -> Diff {
        let moved = |id: &str, on_applying: &str| Moved {
            customer_id: id.into(),
            from: "loyalty".into(),
            on_applying: on_applying.into(),
            always: "retention".into(),
        };
        Diff { as_of: 0, customers: 10, moved: vec![moved("a", "retention"), moved("b", "loyalty")] }
    }

    fn args(list: bool) -> Args {
        let (diff, input) = (vec!["old".into(), "new".into()], Some("data".into()));
        Args { print: false, diff, input, until: None, list, json: false }
    }

    fn called(name: &str) -> Named {
        Named { name: name.into(), version: "1".into() }
    }

    #[test]
    fn a_table_counts_and_a_list_names_who_would_move() {
        let (was, becomes) = (called("l"), called("l"));
        let table = "l 1 -> l 1: 10 customers as of 1970-01-01T00:00:00.000Z\n  \
            from       to         on applying       always\n  \
            loyalty    retention            1            2\n  \
            unmoved                         9            8\n";
        assert_eq!(as_table(&args(false), &was, &becomes, &diff()), table);
        let list = "customer\tfrom\ton applying\talways\na\tloyalty\tretention\tretention\nb\tloyalty\tloyalty\tretention\n";
        assert_eq!(as_table(&args(true), &was, &becomes, &diff()), format!("{table}{list}"));
        assert!(as_table(&args(false), &was, &called("m"), &diff()).contains("begin anew"));
    }

    #[test]
    fn json_says_the_same() {
        let json: serde_json::Value =
            serde_json::from_str(&as_json(&args(true), &called("l"), &called("l"), &diff())).unwrap();
        let expected = json!({ "from": "loyalty", "to": "retention", "on_applying": 1, "always": 2 });
        assert_eq!(json["moves"], json!([expected]));
        assert_eq!(json["unmoved"], json!({ "on_applying": 9, "always": 8 }));
        assert_eq!(json["moved"][1]["customer_id"], "b");
    }
}
