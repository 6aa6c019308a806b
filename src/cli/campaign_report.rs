//! `stagecast campaign-report`: what the alerts of each policy brought, measured against its control group.

use std::fmt::Write;
use std::path::PathBuf;

use crate::campaign::study::{Half, Policy, Warning};
use crate::campaign::{self, Question, Report, Returned};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::metrics::Interval;
use crate::time::Ts;

use super::values::{instant, positive_span};

#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(group(clap::ArgGroup::new("records").required(true).args(["input", "from_kafka"])))]
pub struct Args {
    /// Folder with churn-alerts.ndjson, and stage-changes, churn-outcomes and the events; may be repeated
    ///
    /// The outputs of `replay` and the events it read may lie in two folders: `--input out --input data`.
    #[arg(long, value_name = "DIR")]
    pub input: Vec<PathBuf>,

    /// Reads the configured topics, up to where they end at the start; joins and commits nothing
    #[arg(long)]
    pub from_kafka: bool,

    /// How long after its first alert a customer has to return
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = positive_span)]
    pub within: i64,

    /// What counts as a return [default: order, where the input holds orders; else outcome]
    #[arg(long, value_enum)]
    pub returned: Option<Returned>,

    /// Counts alerts from this instant on
    #[arg(long, value_name = "TS", value_parser = instant)]
    pub since: Option<Ts>,

    /// Counts alerts before this instant
    #[arg(long, value_name = "TS", value_parser = instant)]
    pub until: Option<Ts>,

    /// Stages of customers who have lapsed, of any lifecycle or as LIFECYCLE:STAGE
    #[arg(
        long,
        value_name = "STAGE",
        value_delimiter = ',',
        default_values_t = ["win-back", "lapsed", "defected", "lost"].map(String::from)
    )]
    pub lapse: Vec<String>,

    /// Prints JSON instead of the table
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let bar = super::progress::spinner("reading");
    let seen = |events| bar.set_position(events);
    let report = match args.from_kafka {
        true => campaign::from_topics(config, question(args, config), &seen)?,
        false => campaign::from_files(&args.input, config, question(args, config), &seen)?,
    };
    bar.finish_and_clear();
    let text = match args.json {
        true => {
            serde_json::to_string_pretty(&report)
                .map_err(|e| Error::world(format!("the report cannot be written as JSON: {e}")))?
                + "\n"
        }
        false => told(&report, &config.money.base),
    };
    super::print(&text)
}

fn question(args: &Args, config: &Config) -> Question {
    Question {
        within: args.within,
        returned_by: args.returned,
        since: args.since,
        until: args.until,
        lapse: args.lapse.clone(),
        outcomes_every: config.outcomes.every_ms,
        control: config.alert.iter().map(|alert| (alert.policy.clone(), alert.control)).collect(),
        margin: config.money.margin,
    }
}

fn told(report: &Report, currency: &str) -> String {
    let within = &report.within;
    let returned = match report.returned_by {
        Returned::Order => format!("an order within {within} of a customer's first alert"),
        Returned::Outcome => "the outcome of the score behind a customer's first alert".into(),
    };
    let mut out = format!(
        "returned: {returned}; what is known ends at {}\nin brackets 95 % intervals\n",
        report.as_of.as_str()
    );
    for policy in &report.policies {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n{}", of_policy(policy, currency));
    }
    out
}

fn of_policy(policy: &Policy, currency: &str) -> String {
    let Policy { policy: name, alerts, first_alert, last_alert, .. } = policy;
    let mut out = format!(
        "policy {name}: {alerts} alerts from {} to {}\n  {:<11}{:>10}{:>10}  {:<24}{:>14}\n",
        first_alert.as_str(),
        last_alert.as_str(),
        "",
        "customers",
        "returned",
        "return rate",
        format!("{currency} each"),
    );
    out += &half("treatment", &policy.treatment);
    out += &half("control", &policy.control);
    out += &effect(policy, currency);
    out += &warning(&policy.warning);
    if policy.treatment.revenue.is_none() && policy.warning.warned > 0 {
        out += "  (no orders are known: any alert since a customer's lapse before is taken for a warning)\n";
    }
    if policy.undecided > 0 {
        out += &format!("  not counted: {} customers of whom it is too early to tell\n", policy.undecided);
    }
    if let Some(split) = policy.split.filter(|split| !split.plausible) {
        out += &format!(
            "  mind: {} of the customers are in the control group, configured are {}; chance does not explain\n\
             \x20 that, so somebody is missing and the two groups may not be alike\n",
            percent(split.observed),
            percent(split.configured),
        );
    }
    out
}

fn half(name: &str, half: &Half) -> String {
    let rate = half.return_rate.map_or("–".into(), |rate| {
        format!("{} ({} to {})", percent(rate.value), percent(rate.low), percent(rate.high))
    });
    let each = half.revenue_per_customer.map_or("–".into(), |each| format!("{each:.2}"));
    format!("  {name:<11}{:>10}{:>10}  {rate:<24}{each:>14}\n", half.customers, half.returned)
}

fn effect(policy: &Policy, currency: &str) -> String {
    let (Some(rate), Some(customers)) = (policy.difference, policy.incremental_customers) else {
        return "  one of the groups is empty: without a control group nobody knows who would have come back anyway\n"
            .into();
    };
    let points = |x: f64| format!("{:+.1}", 100.0 * x);
    let mut out = format!("  difference {} points {}", points(rate.value), brackets(rate, &points));
    out += match (rate.low > 0.0, rate.high < 0.0) {
        (true, _) => ": more came back\n",
        (_, true) => ": fewer came back\n",
        _ => ": not told apart from chance\n",
    };
    let whole = |x: f64| format!("{x:.0}");
    out += &format!(
        "  {} customers {} came back who would not have\n",
        whole(customers.value),
        brackets(customers, &whole)
    );
    if let (Some(revenue), Some(margin)) = (policy.incremental_revenue, policy.incremental_margin) {
        out += &format!(
            "  {currency} {} {} more were ordered, a margin of {} {}\n",
            whole(revenue.value),
            brackets(revenue, &whole),
            whole(margin.value),
            brackets(margin, &whole)
        );
    }
    out
}

fn brackets(interval: Interval, shown: &dyn Fn(f64) -> String) -> String {
    format!("({} to {})", shown(interval.low), shown(interval.high))
}

fn warning(warning: &Warning) -> String {
    let Warning { lapses, warned, days } = warning;
    match days {
        Some(days) => format!(
            "  {warned} of {lapses} lapses were warned of, {:.1} days ahead (median; half of them {:.1} to {:.1})\n",
            days.value, days.low, days.high
        ),
        None if *lapses > 0 => format!("  none of {lapses} lapses was warned of\n"),
        None => "  no customer lapsed\n".into(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
