//! `stagecast topics`: makes and checks the topics.

use crate::config::Config;
use crate::error::Result;
use crate::kafka::{acls, topics};
use crate::setup;

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, clap::Subcommand)]
pub enum Action {
    /// Makes the topics that are missing, with the right cleanup policies and equal partition counts
    Create {
        /// Makes the input topics as well
        #[arg(long)]
        inputs: bool,
    },
    /// Compares the topics of the cluster with what stagecast needs
    Check,
    /// Prints the kafka-acls commands that grant what is needed, and grants nothing itself
    Acls {
        /// For whom, such as User:alice [default: the configured "sasl.username"]
        #[arg(long, value_name = "TYPE:NAME")]
        principal: Option<String>,
    },
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let (settings, layout) = (setup::clients(config), setup::topics(config));
    match &args.action {
        Action::Create { inputs } => {
            topics::create(&settings, &layout, *inputs, &mut std::io::stdout().lock())
        }
        Action::Check => {
            let bar = super::progress::spinner("looking at keys");
            let findings = topics::inspect(&settings, &layout, &|records| bar.set_position(records))?;
            bar.finish_and_clear();
            topics::report(&findings, &layout, &mut std::io::stdout().lock())
        }
        Action::Acls { principal } => {
            acls::print(&settings, &layout, principal.as_deref(), &mut std::io::stdout().lock())
        }
    }
}
