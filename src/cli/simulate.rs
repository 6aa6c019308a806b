//! `stagecast simulate`: realistic customers with a known truth.

use std::path::PathBuf;

use crate::config::Config;
use crate::error::Error;
use crate::setup;
use crate::simulate::{self, Campaign, FaultCounts, Faults, Settings, Simulation};
use crate::time::Ts;

use super::values::instant;

#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(group(clap::ArgGroup::new("destination").required(true).args(["out", "to_kafka"])))]
pub struct Args {
    /// How many customers
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub customers: u64,

    /// How many days of their lives
    #[arg(long, value_name = "D", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,

    /// Same seed, same customers
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// The first instant
    #[arg(long, value_name = "TS", default_value = "2025-01-01", value_parser = instant)]
    pub start: Ts,

    /// Folder for clickstream.ndjson, purchase.ndjson, support.ndjson and profile.ndjson
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Sends the events to the configured input topics
    #[arg(long)]
    pub to_kafka: bool,

    /// Events per second, sent when they are due whatever happens to those before [default: as fast as possible]
    #[arg(long, value_name = "N", conflicts_with = "out", value_parser = rate)]
    pub rate: Option<f64>,

    /// What goes wrong on the way, as shares: duplicates, late, disorder, malformed, future
    ///
    /// For example `--faults duplicates=0.01,late=0.01,disorder=0.05`. Events arrive out of order with it; without
    /// it in time order.
    #[arg(long, value_name = "NAME=SHARE,…", default_value = "")]
    pub faults: Faults,

    /// The churn-alerts.ndjson of a replay of this very simulation: the treatment answers them
    ///
    /// A share of the customers who were alerted about, but for the control group, order once more. All else stays
    /// as it was, so that `campaign-report` can be held against the truth.
    #[arg(long, value_name = "FILE", requires = "out")]
    pub campaign: Option<PathBuf>,

    /// The share of the campaign's customers who order once more
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, requires = "campaign", value_parser = share)]
    pub uplift: f64,

    /// Overwrites the files of an earlier simulation
    #[arg(long, requires = "out")]
    pub force: bool,
}

impl Args {
    /// What is simulated, wherever it goes.
    pub fn settings(&self) -> Settings {
        Settings {
            customers: self.customers,
            days: self.days,
            seed: self.seed,
            start: self.start,
            faults: self.faults,
            ..Settings::default()
        }
    }
}

pub fn run(args: &Args, config: &Config) -> Result<(), Error> {
    let settings = args.settings();
    let read = |path: &PathBuf| Campaign::read(path, args.uplift, &settings);
    let campaign = args.campaign.as_ref().map(read).transpose()?;
    let bar = super::progress::bar("simulating");
    let mut show = |progress: simulate::Progress| bar.set_position((progress.share * 1_000.0) as u64);
    let summary = match &args.out {
        Some(dir) => {
            let answers = campaign.as_ref().map(|campaign| campaign.records.clone()).unwrap_or_default();
            let simulation = Simulation::new(&settings)?.answered(answers);
            simulate::write_simulation(simulation, &settings, dir, args.force, &mut show)?
        }
        None => {
            crate::kafka::feed::simulate(&setup::clients(config), config, &settings, args.rate, &mut show)?
        }
    };
    bar.finish_and_clear();
    let [clicks, purchases, support, profile] = summary.events;
    super::print(&format!(
        "{} customers: {clicks} clickstream, {purchases} purchase, {support} support and {profile} profile events\n{}{}",
        args.customers,
        campaign.map_or(String::new(), |campaign| format!(
            "the campaign reached {} customers, of whom {} order once more\n",
            campaign.reached, campaign.answered
        )),
        told(&summary.faults)
    ))
}

fn told(faults: &FaultCounts) -> String {
    if *faults == FaultCounts::default() {
        return String::new();
    }
    let FaultCounts { duplicates, late, disorder, malformed, future } = faults;
    format!(
        "with faults: {duplicates} duplicates, {late} late, {disorder} out of order, {malformed} malformed, {future} from the future\n"
    )
}

/// A number of events per second.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && rate.is_finite());
    rate.ok_or_else(|| "write a number above 0".into())
}

/// A part of a whole.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a number from 0 to 1".into())
}
