//! `stagecast check`: validates the configuration and what it names against each other.
//!
//! The configuration itself has been validated by the time it arrives here: loading reports all that is wrong
//! with it. What is left is the files that it names.

use std::path::Path;

use crate::config::Config;
use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Prints the effective configuration, with every key and with secrets masked
    #[arg(long)]
    pub print: bool,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    check_parts(config)?;
    if args.print {
        return super::print(&config.to_toml());
    }
    super::print(&summary(config))
}

/// The files that the configuration names, against each other.
fn check_parts(config: &Config) -> Result<()> {
    let lifecycles = config.lifecycles.use_.iter().filter(|name| crate::config::is_path(name));
    let named = lifecycles.map(|path| ("lifecycles.use", Path::new(path)));
    let features = config.features.file.iter().map(|path| ("features.file", path.as_path()));
    let model = config.model.path.iter().map(|path| ("model.path", path.as_path()));
    for (key, path) in features.chain(named).chain(model) {
        std::fs::File::open(path).map_err(|error| {
            Error::user(format!("`{key}` names {}, which cannot be read: {error}", path.display()))
                .hint("correct the path; paths in the file are relative to the file")
        })?;
    }
    Ok(())
}

fn summary(config: &Config) -> String {
    let source = &config.source;
    let inputs = [&source.clickstream, &source.purchase, &source.support, &source.profile];
    let inputs: Vec<&str> = inputs.iter().filter(|s| s.enabled).map(|s| s.topic.as_str()).collect();
    let alerts: Vec<&str> = config.alert.iter().map(|alert| alert.policy.as_str()).collect();
    format!(
        "configuration is valid: {} as {}\n  inputs      {}\n  lifecycles  {}\n  alerts      {}\n",
        config.app.id,
        config.app.instance,
        inputs.join(", "),
        config.lifecycles.use_.join(", "),
        if alerts.is_empty() { "none".into() } else { alerts.join(", ") },
    )
}
