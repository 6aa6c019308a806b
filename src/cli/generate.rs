//! `stagecast completions` and `stagecast man`: what shells and readers want of the definition of the command line.
//!
//! They need no configuration, so that a broken one does not break a login shell.

use std::path::PathBuf;

use clap_complete::Shell;

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Completions {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Man {
    /// Folder for the pages, stagecast.1 and one for each command
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Writes the script to standard output.
pub fn completions(args: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "stagecast", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}

/// Writes the pages.
pub fn man(args: &Man) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("write the manual into", &args.out, &e);
    std::fs::create_dir_all(&args.out).map_err(failed)?;
    clap_mangen::generate_to(super::command(), &args.out).map_err(failed)?;
    super::print(&format!("the manual is in {}\n", args.out.display()))
}
