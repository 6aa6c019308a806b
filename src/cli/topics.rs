//! `stagecast topics`: makes and checks the topics.

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
}
