//! From the configuration to the compiled plan: reads the files that the configuration names, or takes what
//! ships, and checks all of it against each other.

use std::path::{Path, PathBuf};

use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::event::Source;
use crate::event::decoder::Decoder;
use crate::event::money::Money;
use crate::kafka::clients::{BrokerKind, ClientSettings, gathering};
use crate::kafka::topics::Layout;
use crate::model::Model;
use crate::pipeline::catalogue::Catalogue;
use crate::pipeline::lifecycle;
use crate::pipeline::outcomes::Keeping;
use crate::pipeline::plan::{Identity, Plan, Policy, PolicyOn, Privacy, Settings};
use crate::pipeline::store::AWAKE_LEAST;
use crate::registry;

/// The model that ships with the program.
pub const SHIPPED_MODEL: &str = include_str!("../models/churn.json");

/// Compiles the plan of a configuration; `model` overrides the configured one, and nobody challenges it.
pub fn plan(config: &Config, model: Option<&Path>) -> Result<Plan> {
    let models = match model {
        Some(_) => self::model(config, model).map(Models::of),
        None => models(config),
    };
    compile(config, models)
}

/// The same with a model that is at hand.
pub fn plan_of(config: &Config, model: &Model) -> Result<Plan> {
    compile(config, Ok(Models::of(model.clone())))
}

fn compile(config: &Config, models: Result<Models>) -> Result<Plan> {
    match (catalogue(config), lifecycles(config), models) {
        (Ok(catalogue), Ok(lifecycles), Ok(models)) => {
            let parts = Parts { catalogue, lifecycles, settings: settings(config) };
            parts.plan(&models.champion, models.challenger.as_ref())
        }
        (catalogue, lifecycles, models) => {
            let problems = [catalogue.err(), lifecycles.err(), models.err()];
            Err(Error::all_of(problems.into_iter().flatten().collect()))
        }
    }
}

/// Compiles the plan of one lifecycle, `(file, text)`, over the configured catalogue and model. Nothing alerts.
pub fn plan_of_lifecycle(config: &Config, lifecycle: (String, String)) -> Result<Plan> {
    let settings = Settings { policies: Vec::new(), ..settings(config) };
    Plan::new(&catalogue(config)?, &[lifecycle], &model(config, None)?, settings)
}

/// Everything but the model that a plan is compiled from, read once.
#[derive(Clone, Debug)]
pub struct Parts {
    catalogue: Catalogue,
    lifecycles: Vec<(String, String)>,
    settings: Settings,
}

impl Parts {
    pub fn read(config: &Config) -> Result<Parts> {
        let (catalogue, lifecycles) = (catalogue(config)?, lifecycles(config)?);
        Ok(Parts { catalogue, lifecycles, settings: settings(config) })
    }

    pub fn plan(&self, model: &Model, challenger: Option<&Model>) -> Result<Plan> {
        let plan = Plan::new(&self.catalogue, &self.lifecycles, model, self.settings.clone())?;
        match challenger {
            Some(challenger) => plan.with_challenger(model, challenger),
            None => Ok(plan),
        }
    }
}

/// Compiles what training needs: the catalogue, and nothing that decides.
pub fn plan_for_features(config: &Config) -> Result<Plan> {
    Plan::for_features(&catalogue(config)?, settings(config))
}

/// The configured catalogue, or the shipped one.
pub fn catalogue(config: &Config) -> Result<Catalogue> {
    match &config.features.file {
        None => Ok(Catalogue::shipped()),
        Some(path) => Catalogue::load(&path.display().to_string(), &read("features.file", path)?),
    }
}

/// The texts of the configured lifecycles with the names to report problems under.
fn lifecycles(config: &Config) -> Result<Vec<(String, String)>> {
    let mut problems = Vec::new();
    let named = config.lifecycles.use_.iter().map(|name| lifecycle_text("lifecycles.use", name));
    let found = named.filter_map(|read| read.map_err(|e| problems.push(e)).ok()).collect();
    if problems.is_empty() { Ok(found) } else { Err(Error::all_of(problems)) }
}

/// The text of a preset or of a file, with the name to report its problems under; `key` is what named it.
pub fn lifecycle_text(key: &str, name: &str) -> Result<(String, String)> {
    if config::is_path(name) {
        return Ok((name.to_owned(), read(key, Path::new(name))?));
    }
    let text = lifecycle::preset(name).ok_or_else(|| {
        let near = crate::error::did_you_mean(name, lifecycle::preset_names());
        let presets: Vec<_> = lifecycle::preset_names().collect();
        Error::user(format!("`{key}` names `{name}`, which is no preset{near}")).hint(format!(
            "presets are {}; a file is named by its path, such as ./{name}.toml",
            presets.join(", ")
        ))
    })?;
    Ok((format!("{name}.toml"), text.to_owned()))
}

/// The model that is named, or the configured one, or the one that ships.
pub fn model(config: &Config, named: Option<&Path>) -> Result<Model> {
    match named.or(config.model.path.as_deref()) {
        Some(path) => {
            let key = if named.is_some() { "--model" } else { "model.path" };
            model_in(key, &registry::resolve(path)?.champion)
        }
        None => Model::from_json(SHIPPED_MODEL, "the model that ships"),
    }
}

/// The models of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Models {
    pub champion: Model,
    /// Scores in the champion's shadow.
    pub challenger: Option<Model>,
}

impl Models {
    fn of(champion: Model) -> Models {
        Models { champion, challenger: None }
    }
}

/// The configured model, or the one that ships, and the challenger where there is one.
pub fn models(config: &Config) -> Result<Models> {
    let challenger = challenger(config)?.map(|path| model_in("model.challenger", &path));
    Ok(Models { champion: model(config, None)?, challenger: challenger.transpose()? })
}

/// The files that the configured models are in, and the file of aliases that names them.
pub fn model_files(config: &Config) -> Result<Vec<PathBuf>> {
    let serving = config.model.path.as_deref().map(registry::resolve).transpose()?;
    let files = serving.into_iter().flat_map(|serving| [serving.aliases, Some(serving.champion)]);
    Ok(files.flatten().chain(challenger(config)?).collect())
}

/// An alias goes before the configuration: it is what promotions change.
fn challenger(config: &Config) -> Result<Option<PathBuf>> {
    let serving = config.model.path.as_deref().map(registry::resolve).transpose()?;
    Ok(match serving {
        Some(serving) if serving.aliases.is_some() => serving.challenger,
        _ => config.model.challenger.clone(),
    })
}

/// A name that leads nowhere is a mistake in the configuration, not of the disk.
fn model_in(key: &str, path: &Path) -> Result<Model> {
    Model::from_json(&read(key, path)?, &path.display().to_string())
}

fn read(key: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::user(format!("`{key}` names {}, which cannot be read: {error}", path.display()))
            .hint("correct the path; one in a file is relative to that file, one on the command line to this folder")
    })
}

/// What the core needs to know of the configuration.
pub fn settings(config: &Config) -> Settings {
    Settings {
        dedupe_ms: config.features.dedupe_ms,
        min_change: config.scores.min_change,
        rescore_every_ms: config.scores.rescore_every_ms,
        bands: config.scores.bands,
        margin: config.money.margin,
        money: Money { base: config.money.base.clone(), rates: config.money.rates.clone() },
        policies: config.alert.iter().map(policy).collect(),
        privacy: Privacy {
            opt_out_ms: config.privacy.opt_out_ms,
            salt: config.privacy.salt.clone().unwrap_or_else(|| config.app.id.clone()),
            consent: config.privacy.consent.clone(),
        },
        identity: Identity { follow_ms: config.identity.follow_ms, traits: config.identity.traits.clone() },
        outcomes: Keeping { sample: config.outcomes.sample, every_ms: config.outcomes.every_ms },
        awake_least: AWAKE_LEAST,
    }
}

fn policy(alert: &config::AlertPolicy) -> Policy {
    let on = match &alert.stage {
        Some(stage) => PolicyOn::Stage { lifecycle: alert.lifecycle.clone(), stage: stage.clone() },
        None => PolicyOn::Score { raise: alert.raise, clear: alert.clear },
    };
    Policy {
        name: alert.policy.clone(),
        on,
        cooldown_ms: alert.cooldown_ms,
        control: alert.control,
        segment: alert.segment.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        min_clv: alert.min_clv,
        action: alert.action.clone(),
    }
}

/// How to reach the brokers.
pub fn clients(config: &Config) -> ClientSettings {
    ClientSettings {
        common: config.kafka.common.clone(),
        consumer: config.kafka.consumer.clone(),
        producer: config.kafka.producer.clone(),
        app_id: config.app.id.clone(),
        instance: config.app.instance.clone(),
        subscription: Some(topics(config).inputs)
            .filter(|inputs| *inputs != topics(&Config::default()).inputs),
        broker: BrokerKind::Real,
        gather: Some(gathering(config.commit.interval)),
    }
}

/// The topics as configured.
pub fn topics(config: &Config) -> Layout {
    let topics = &config.topics;
    Layout {
        inputs: enabled_sources(config).map(|(_, source)| source.topic.clone()).collect(),
        stage_changes: topics.stage_changes.clone(),
        churn_scores: topics.churn_scores.clone(),
        churn_alerts: topics.churn_alerts.clone(),
        churn_outcomes: topics.churn_outcomes.clone(),
        erasures: topics.erasures.clone(),
        dlq: topics.dlq.clone(),
        state: topics.state.clone(),
        identity: topics.identity.clone(),
        partitions: topics.partitions as i32,
        replication: i32::from(topics.replication),
    }
}

/// The section of one source.
pub fn source(config: &Config, source: Source) -> &config::SourceConfig {
    match source {
        Source::Clickstream => &config.source.clickstream,
        Source::Purchase => &config.source.purchase,
        Source::Support => &config.source.support,
        Source::Profile => &config.source.profile,
    }
}

/// What reads the records of a source.
pub fn decoder(section: &config::SourceConfig) -> Decoder {
    Decoder::new(section.format, section.data, &section.fields, section.types.clone())
}

/// The sources whose topics are consumed, in the order of their lanes.
pub fn enabled_sources(config: &Config) -> impl Iterator<Item = (Source, &config::SourceConfig)> {
    Source::ALL.into_iter().map(|s| (s, source(config, s))).filter(|(_, section)| section.enabled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_configuration_compiles() {
        let plan = plan(&Config::default(), None).unwrap();
        assert_eq!(plan.lifecycles.len(), 1);
    }

    #[test]
    fn an_alias_says_which_model_it_stands_for() {
        let dir = tempfile::tempdir().unwrap();
        let alias = dir.path().join("model.toml");
        std::fs::write(&alias, "champion = \"churn-7.json\"\n").unwrap();
        let missing = model(&Config::default(), Some(&alias)).unwrap_err();
        assert!(missing.what.contains("churn-7.json"), "{missing}");
        std::fs::write(dir.path().join("churn-7.json"), SHIPPED_MODEL).unwrap();
        assert_eq!(model(&Config::default(), Some(&alias)), model(&Config::default(), None));
        let mut config = Config::default();
        config.model.path = Some(dir.path().join("churn-7.json"));
        config.model.challenger = Some(dir.path().join("churn-7.json"));
        let itself = plan(&config, None).unwrap_err();
        assert!(itself.what.contains("it is the champion itself"), "{itself}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let mut config = Config::default();
        config.lifecycles.use_ = vec!["retentoin".into()];
        let error = plan(&config, None).unwrap_err();
        assert!(error.what.contains("did you mean `retention`?"), "{error}");
        config.lifecycles.use_ = vec!["./none.toml".into(), "retention".into(), "valeu".into()];
        config.features.file = Some("no-features.toml".into());
        config.model.path = Some("no-model.json".into());
        let error = plan(&config, None).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        for what in ["./none.toml", "`valeu`", "no-features.toml", "no-model.json"] {
            assert!(error.what.contains(what), "{what}: {error}");
        }
    }
}
