//! `stagecast recalibrate`: a new version of a model, set right by what became of its scores.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::bounded;
use crate::model::Model;
use crate::model::recalibrate::{Known, Recalibrated, recalibrate};
use crate::setup;
use crate::time::{format_rfc3339, parse_rfc3339};
use crate::training;

#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(group(clap::ArgGroup::new("known").required(true).args(["outcomes", "from_kafka"])))]
pub struct Args {
    /// The model [default: the configured one]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// Outcomes as lines of JSON, as they stand in the topic `churn-outcomes`
    #[arg(long, value_name = "FILE")]
    pub outcomes: Option<PathBuf>,

    /// Reads the configured topic of outcomes, up to where it ends at the start; joins and commits nothing
    #[arg(long)]
    pub from_kafka: bool,

    /// Where the new version is written
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,

    /// Overwrites a file that is there
    #[arg(long)]
    pub force: bool,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    if args.output.exists() && !args.force {
        return Err(Error::user(format!("{} is there already", args.output.display()))
            .hint("name a new file, so that the version of before stays; or overwrite it with --force"));
    }
    let model = setup::model(config, args.model.as_deref())?;
    let mut outcomes = Outcomes { model: &model, known: Vec::new(), of_others: 0 };
    match &args.outcomes {
        Some(file) => outcomes.read_file(file)?,
        None => outcomes.read_topic(config)?,
    }
    let Outcomes { known, of_others, .. } = outcomes;
    let mut done = recalibrate(&model, known)?;
    training::name_version(&mut done.model)?;
    done.model.write(&args.output)?;
    super::print(&summary(&model, &done, of_others, &args.output))
}

/// An outcome as it goes out.
#[derive(Deserialize)]
struct Message {
    scored_at: String,
    p_churn: f64,
    churned: bool,
    model: Of,
}

#[derive(Deserialize)]
struct Of {
    name: String,
    version: String,
}

/// The outcomes of a model's scores.
struct Outcomes<'m> {
    model: &'m Model,
    known: Vec<Known>,
    /// Of other models, or other versions.
    of_others: u64,
}

impl Outcomes<'_> {
    fn read_file(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|e| {
            Error::user(format!("cannot read {}: {e}", path.display())).hint("name a file of lines of JSON")
        })?;
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|e| Error::io("read", path, &e))?;
            if !line.trim().is_empty() {
                self.take(line.as_bytes(), &format!("{}:{}", path.display(), number + 1))?;
            }
        }
        Ok(())
    }

    fn read_topic(&mut self, config: &Config) -> Result<()> {
        let topic = &config.topics.churn_outcomes;
        let bar = super::progress::spinner("reading");
        bounded::read_values(&setup::clients(config), topic, &mut |value, at| {
            bar.inc(1);
            self.take(value, at)
        })?;
        bar.finish_and_clear();
        Ok(())
    }

    fn take(&mut self, json: &[u8], at: &str) -> Result<()> {
        let no_outcome = |what: String| {
            Error::user(format!("{at}: this is no outcome: {what}"))
                .hint("an outcome has `scored_at`, `p_churn`, `churned` and `model` at least")
        };
        let message: Message = serde_json::from_slice(json).map_err(|e| no_outcome(e.to_string()))?;
        if (&message.model.name, &message.model.version) != (&self.model.name, &self.model.version) {
            self.of_others += 1;
            return Ok(());
        }
        let scored_at = parse_rfc3339(&message.scored_at)
            .ok_or_else(|| no_outcome(format!("`{}` is not an RFC 3339 instant", message.scored_at)))?;
        if !(0.0..=1.0).contains(&message.p_churn) {
            return Err(no_outcome(format!("`p_churn` is {}, not a probability", message.p_churn)));
        }
        self.known.push(Known { scored_at, p: message.p_churn, churned: message.churned });
        Ok(())
    }
}

fn summary(old: &Model, done: &Recalibrated, of_others: u64, output: &Path) -> String {
    let others = match of_others {
        0 => String::new(),
        n => format!("\n  {n} outcomes of other models were passed over"),
    };
    let outcomes = done.model.recalibrated.as_ref().map_or(0, |recalibrated| recalibrated.outcomes);
    format!(
        "{} {}: {} {} set right by {outcomes} outcomes: logit × {:.3} {:+.3}\n\
         \x20 on {} outcomes from {} on, {:.1} % churned; fitted to what was known by then:\n\
         \x20 Brier {:.4} -> {:.4}, ECE {:.4} -> {:.4}, log loss {:.4} -> {:.4}{others}\n\
         \x20 written to {}\n",
        done.model.name,
        done.model.version,
        old.name,
        old.version,
        done.slope,
        done.intercept,
        done.judged_on,
        format_rfc3339(done.judged_from),
        100.0 * done.base_rate,
        done.before.brier,
        done.after.brier,
        done.before.ece,
        done.after.ece,
        done.before.log_loss,
        done.after.log_loss,
        output.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::time::{DAY_MS, format_rfc3339};
    use std::fmt::Write;

    /// Outcomes of this version over 120 days, of which a third of the foretold churn.
    fn lines(version: &str) -> String {
        let mut text = String::new();
        for i in 0..6_000i64 {
            let p = (i * 7_919 % 1_000) as f64 / 1_000.0;
            let churned = ((i * 104_729 % 3_000) as f64) < p * 1_000.0;
            let at = format_rfc3339(1_767_225_600_000 + i * 120 * DAY_MS / 6_000);
            let model = format!("{{\"name\":\"churn\",\"version\":\"{version}\"}}");
            let _ = writeln!(
                text,
                "{{\"customer_id\":\"c{i}\",\"scored_at\":\"{}\",\"p_churn\":{p},\"churned\":{churned},\"model\":{model}}}",
                at.as_str()
            );
        }
        text
    }

    #[test]
    fn outcomes_make_a_new_version_that_serves_and_says_what_it_is_from() {
        let dir = tempfile::tempdir().unwrap();
        let model = Model::from_json(setup::SHIPPED_MODEL, "shipped").unwrap();
        let (file, output) = (dir.path().join("outcomes.ndjson"), dir.path().join("new.json"));
        std::fs::write(&file, lines(&model.version) + &lines("another")).unwrap();
        let args =
            Args { model: None, outcomes: Some(file.clone()), from_kafka: false, output, force: false };
        run(&args, &Config::default()).unwrap();
        let new = Model::read(&args.output).unwrap();
        assert!(new.version != model.version && new.version.len() == 12, "{}", new.version);
        assert_eq!(new.recalibrated.as_ref().unwrap().outcomes, 6_000, "others' outcomes say nothing of it");
        setup::plan(&Config::default(), Some(&args.output)).unwrap();
        let again = run(&args, &Config::default()).unwrap_err();
        assert!(again.what.contains("is there already"), "{again}");
        std::fs::write(&file, "{\"customer_id\":\"c\"}\n").unwrap();
        let broken = run(&Args { force: true, ..args }, &Config::default()).unwrap_err();
        assert!(broken.what.contains("outcomes.ndjson:1: this is no outcome"), "{broken}");
    }
}
