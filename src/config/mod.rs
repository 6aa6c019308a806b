//! What the operator may choose: defaults < file < environment < `--set`, checked as a whole.
//!
//! The layers become one tree of values that know their place ([`layers`]), which is read key by key
//! ([`sections`], [`kafka`]) into plain values ([`types`]). Nothing here reads the surroundings except
//! [`Config::load`], and files with secrets that the configuration itself names.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

mod place;
mod layers;
mod read;
mod sections;
mod kafka;
mod librdkafka;
mod types;
mod mask;
mod print;
pub mod keys;

pub use read::looks_like_path as is_path;
pub use types::{
    AlertPolicy, App, Clock, Commit, Config, Features, Format, Http, Kafka, Lifecycles, ModelConfig, Money,
    Outcomes, Privacy, Scores, SourceConfig, Sources, State, Time, Topics, TraitScalar,
};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "stagecast.toml";

/// A configuration file larger than this is a mistake.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Everything a configuration is made from.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The file's path, as it was named, and its text.
    pub file: Option<(PathBuf, String)>,
    pub env: Vec<(String, String)>,
    /// The `--set` arguments, in order.
    pub set: Vec<String>,
    /// The name of this host, from which `app.instance` comes.
    pub host: String,
    /// The folder to which paths from the environment and `--set` are relative, as is the file's own.
    pub cwd: PathBuf,
}

impl Config {
    /// Reads the configuration from `file` (default: [`DEFAULT_FILE`], if there is one), the environment and
    /// the `--set` arguments.
    pub fn load(file: Option<&Path>, set: &[String]) -> Result<Config> {
        let env = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        Config::from_layers(&Layers {
            file: read_file(file)?,
            env,
            set: set.to_vec(),
            host: host_name(),
            cwd: std::env::current_dir().unwrap_or_default(),
        })
    }

    /// The configuration that the layers make, or everything that is wrong with them in one error.
    pub fn from_layers(layers: &Layers) -> Result<Config> {
        let file_dir = match &layers.file {
            Some((path, _)) => layers.cwd.join(path.parent().unwrap_or(Path::new(""))),
            None => layers.cwd.clone(),
        };
        let context = read::Context { problems: Default::default(), file_dir, cwd: layers.cwd.clone() };
        let named = layers.file.as_ref().map(|(path, text)| (path.display().to_string(), text));
        let file = named.as_ref().map(|(path, text)| (path.as_str(), text.as_str()));
        let tree = layers::merged(file, &layers.env, &layers.set, &context.problems);
        let config = sections::read(&tree, &layers.host, &context);
        context.problems.into_result().map(|()| config)
    }
}

fn read_file(named: Option<&Path>) -> Result<Option<(PathBuf, String)>> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let failed = |error: std::io::Error| {
        Error::user(format!("cannot read the configuration file {}: {error}", path.display()))
            .hint("name an existing TOML file with --config, or leave it out to run with the defaults")
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            let what = format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display());
            return Err(Error::user(what).hint("name the configuration file, not a data file"));
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(Some((path.to_path_buf(), text)))
}

/// The name of this host as the kernel has it, or as the shell does; empty when neither tells.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .filter(|name| !name.trim().is_empty())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
