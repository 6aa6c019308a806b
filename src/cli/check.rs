//! `stagecast check`: validates the configuration and what it names against each other.
//!
//! The configuration itself has been validated by the time it arrives here: loading reports all that is wrong
//! with it. What is left is the files that it names: features, lifecycles and model are compiled into the very
//! plan that a service would run.

use crate::config::Config;
use crate::error::Result;
use crate::pipeline::plan::Plan;
use crate::setup;

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Prints the effective configuration, with every key and with secrets masked
    #[arg(long)]
    pub print: bool,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let plan = setup::plan(config, None)?;
    if args.print {
        return super::print(&config.to_toml());
    }
    super::print(&summary(config, &plan))
}

fn summary(config: &Config, plan: &Plan) -> String {
    let source = &config.source;
    let inputs = [&source.clickstream, &source.purchase, &source.support, &source.profile];
    let inputs: Vec<&str> = inputs.iter().filter(|s| s.enabled).map(|s| s.topic.as_str()).collect();
    let lifecycles: Vec<&str> = plan.lifecycles.iter().map(|(lifecycle, _)| &*lifecycle.name).collect();
    let alerts: Vec<&str> = config.alert.iter().map(|alert| alert.policy.as_str()).collect();
    format!(
        "configuration is valid: {} as {}\n  inputs      {}\n  features    {}\n  \
         lifecycles  {}\n  model       {} {}\n  alerts      {}\n",
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
