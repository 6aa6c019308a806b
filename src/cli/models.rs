//! `stagecast models`: versions of a model side by side; which one serves, and which one is tried in its shadow.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::registry::{Aliases, Listed, Registry};
use crate::setup::Parts;
use crate::time::format_rfc3339;

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// The folder of the models, or a file of aliases in it [default: model.path]
    #[arg(long, value_name = "DIR", global = true)]
    pub folder: Option<PathBuf>,

    #[command(subcommand)]
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, clap::Subcommand)]
pub enum Action {
    /// Lists the models, how good each was on the time it was held back from, and what each is for
    List,
    /// Makes a model the champion: running services take it within seconds, and the old one is remembered
    ///
    /// It is compiled against the configured features and lifecycles first, and refused where a service would.
    Promote {
        /// File name or version [default: the challenger]
        model: Option<String>,
    },
    /// Lets a model score in the champion's shadow: nothing it says goes out, how good it is goes to the metrics
    Challenge {
        /// File name or version
        #[arg(required_unless_present = "none")]
        model: Option<String>,

        /// No model challenges any longer
        #[arg(long, conflicts_with = "model")]
        none: bool,
    },
    /// Makes the champion of before the champion again
    Rollback,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let path = args.folder.as_deref().or(config.model.path.as_deref()).ok_or_else(|| {
        Error::user("the model that ships is in use: there is no folder of models")
            .hint("let model.path name the folder that the versions are in, or name it with --folder")
    })?;
    let registry = Registry::at(path)?;
    let can_serve = |model: &Model| Parts::read(config)?.plan(model, None).map(drop);
    super::print(&match &args.action {
        Action::List => list(&registry)?,
        Action::Promote { model } => {
            let promoted = registry.promote(model.as_deref(), can_serve)?;
            format!("{} is the champion now\n", called(&promoted))
        }
        Action::Challenge { model, .. } => {
            let can_challenge = |champion: &Model, challenger: &Model| {
                Parts::read(config)?.plan(champion, Some(challenger)).map(drop)
            };
            match registry.challenge(model.as_deref(), can_challenge)? {
                Some(challenger) => format!("{} scores in the champion's shadow now\n", called(&challenger)),
                None => "no model challenges the champion any longer\n".to_owned(),
            }
        }
        Action::Rollback => {
            let (back, was) = registry.rollback(can_serve)?;
            format!("{} is the champion again, in place of {}\n", called(&back), was.display())
        }
    })
}

fn called(listed: &Listed) -> String {
    format!("{} ({} {})", listed.file.display(), listed.model.name, listed.model.version)
}

fn list(registry: &Registry) -> Result<String> {
    let aliases = registry.aliases()?;
    let (models, others) = registry.models()?;
    let mut lines =
        vec![["", "file", "version", "learned until", "held-back AUC", "Brier"].map(str::to_owned)];
    for Listed { file, model } in &models {
        let report = &model.training.held_back;
        lines.push([
            role(aliases.as_ref(), file).to_owned(),
            file.display().to_string(),
            model.version.clone(),
            format_rfc3339(model.created).as_str()[..10].to_owned(),
            format!("{:.3}", report.roc_auc.value),
            format!("{:.4}", report.brier),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        out += cells.collect::<Vec<_>>().join("  ").trim_end();
        out.push('\n');
    }
    for file in others {
        out += &format!("{} is no churn model\n", file.display());
    }
    Ok(out)
}

/// What a model is for.
fn role(aliases: Option<&Aliases>, file: &Path) -> &'static str {
    match aliases {
        Some(aliases) if aliases.champion == file => "champion",
        Some(aliases) if aliases.challenger.as_deref() == Some(file) => "challenger",
        Some(aliases) if aliases.previous.iter().any(|before| before == file) => "before",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::SHIPPED_MODEL;

    #[test]
    fn a_list_says_what_each_model_is_for() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            let mut model = Model::from_json(SHIPPED_MODEL, "shipped").unwrap();
            model.version = format!("{name}{name}{name}{name}");
            model.write(&dir.path().join(format!("{name}.json"))).unwrap();
        }
        std::fs::write(dir.path().join("note.json"), "[]").unwrap();
        let mut config = Config::default();
        config.model.path = Some(dir.path().to_owned());
        let act = |action| run(&Args { folder: None, action }, &config);
        act(Action::Promote { model: Some("a.json".into()) }).unwrap();
        act(Action::Promote { model: Some("bbbb".into()) }).unwrap();
        act(Action::Challenge { model: Some("c".into()), none: false }).unwrap();
        let text = list(&Registry::at(dir.path()).unwrap()).unwrap();
        let starts: Vec<&str> = text.lines().map(|line| line.split("  ").next().unwrap()).collect();
        assert_eq!(starts, ["", "before", "champion", "challenger", "note.json is no churn model"], "{text}");
        assert!(text.lines().nth(2).unwrap().contains("b.json  bbbb     2026-"), "{text}");
        let nowhere = run(&Args { folder: None, action: Action::List }, &Config::default()).unwrap_err();
        assert!(nowhere.what.contains("no folder of models"), "{nowhere}");
    }
}
