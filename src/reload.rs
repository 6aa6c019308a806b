//! Another model while the service runs: read, checked as at start, and put in the place of the old one.
//!
//! A model is looked at again when its file changes and when somebody asks. It is compiled against the catalogue
//! and the lifecycles that were read at start, with every check of a start: the file itself, names, definitions,
//! golden vectors. One that passes is handed to the workers, which take it between two events; one that does not
//! is refused, and the old one goes on. Customers keep their state and are scored by the new model from their
//! next evaluation on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::{Metrics, Reload};
use crate::pipeline::plan::Plan;
use crate::setup::{self, Parts};
use crate::time::sleep;

/// How often the file is looked at, and how often whether somebody has asked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LISTEN_EVERY: Duration = Duration::from_millis(100);

/// Tells a file that was written anew, or another that an alias now names, from what it was.
/// Of an alias it has all its files, as far as they are there.
type Stamp = Vec<(PathBuf, SystemTime, u64)>;

/// The model in use, its challenger, and the way to others.
#[derive(Debug)]
pub struct Models {
    parts: Parts,
    config: Config,
    current: Mutex<Arc<Plan>>,
    /// What the plan in use was compiled from, where that is known. Held while another is read, so that two who
    /// ask do not cross.
    loaded: Mutex<Option<setup::Models>>,
    /// Counts the models that were taken into use.
    generation: AtomicU64,
    asked: AtomicBool,
    metrics: Arc<Metrics>,
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reloaded {
    /// What the files hold is in use now.
    Ok,
    /// It was already.
    Unchanged,
    /// It cannot be used, and what was in use goes on.
    Refused(Error),
}

impl Models {
    /// `plan` is what the configuration compiles to now.
    pub fn new(config: &Config, plan: Arc<Plan>, metrics: Arc<Metrics>) -> Result<Models> {
        // The files may have changed since the plan was made, which the first look will find.
        let is_the_plans = |models: &setup::Models| {
            let challenger = |name: &str, version: &str| {
                plan.challenger.as_ref().is_some_and(|c| (&*c.name, &*c.version) == (name, version))
            };
            (&models.champion.name, &models.champion.version) == (&plan.model_name, &plan.model_version)
                && models.challenger.is_some() == plan.challenger.is_some()
                && models.challenger.as_ref().is_none_or(|model| challenger(&model.name, &model.version))
        };
        Ok(Models {
            parts: Parts::read(config)?,
            config: config.clone(),
            loaded: Mutex::new(setup::models(config).ok().filter(is_the_plans)),
            current: Mutex::new(plan),
            generation: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            metrics,
        })
    }

    /// The plan with the model in use.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes whenever [`Models::plan`] does.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks for a look at the file, changed or not.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Looks at the file until `is_over`.
    pub fn watch(&self, is_over: impl Fn() -> bool) {
        let (mut known, mut waited) = (self.stamp(), Duration::ZERO);
        while !is_over() {
            sleep(LISTEN_EVERY);
            waited += LISTEN_EVERY;
            let asked = self.asked.swap(false, Ordering::AcqRel);
            if !asked && waited < LOOK_EVERY {
                continue;
            }
            waited = Duration::ZERO;
            let stamp = self.stamp();
            // A file that is being replaced may be gone for a moment; it counts once it is there.
            if asked || (stamp != known && !stamp.is_empty()) {
                known = stamp;
                self.reload();
            }
        }
    }

    /// What the files are now.
    fn stamp(&self) -> Stamp {
        let named = self.config.model.path.iter().filter(|path| !path.is_dir()).cloned().collect();
        let files = setup::model_files(&self.config).unwrap_or(named);
        let stamp = |file: PathBuf| {
            let metadata = std::fs::metadata(&file).ok()?;
            Some((file, metadata.modified().ok()?, metadata.len()))
        };
        files.into_iter().filter_map(stamp).collect()
    }

    /// Takes what the files hold into use, unless it is already, or says why not.
    pub fn reload(&self) -> Reloaded {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let reloaded = match self.read() {
            Ok(models) if loaded.as_ref() == Some(&models) => Reloaded::Unchanged,
            Ok(models) => match self.compile(&models) {
                Ok(plan) => {
                    self.take(plan);
                    *loaded = Some(models);
                    Reloaded::Ok
                }
                Err(error) => Reloaded::Refused(error),
            },
            Err(error) => Reloaded::Refused(error),
        };
        self.tell(&reloaded);
        reloaded
    }

    fn take(&self, plan: Plan) {
        self.metrics.set_model(&plan);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Tells the log and the metrics.
    fn tell(&self, reloaded: &Reloaded) {
        let plan = self.plan();
        let (name, version) = (&plan.model_name, &plan.model_version);
        let challenger = plan.challenger.as_ref().map_or("none", |challenger| &challenger.version);
        self.metrics.model_reload(match reloaded {
            Reloaded::Ok => {
                tracing::info!(name, version, challenger, "the model was reloaded");
                Reload::Ok
            }
            Reloaded::Unchanged => {
                tracing::info!(name, version, challenger, "the model was read again: it is the one in use");
                Reload::Unchanged
            }
            Reloaded::Refused(error) => {
                tracing::error!(name, version, "the new model is refused, the old one goes on: {error}");
                Reload::Refused
            }
        });
    }

    fn read(&self) -> Result<setup::Models> {
        if self.config.model.path.is_none() && self.config.model.challenger.is_none() {
            let what = "the model that ships with the program is in use: there is no file to read again";
            return Err(Error::user(what).hint("name a model file with model.path, and start again"));
        }
        setup::models(&self.config)
    }

    fn compile(&self, models: &setup::Models) -> Result<Plan> {
        let plan = self.parts.plan(&models.champion, models.challenger.as_ref())?;
        // The files of catalogue and lifecycles are not read again, so that this holds; customers' rows rely on it.
        match plan.layout_id == self.plan().layout_id {
            true => Ok(plan),
            false => Err(Error::world("features or lifecycles have changed since the start: start again")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::table;
    use crate::model::Model;
    use crate::registry::Registry;

    #[test]
    fn a_good_model_replaces_the_old_one_and_a_bad_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("churn.json");
        std::fs::write(&path, setup::SHIPPED_MODEL).unwrap();
        let mut config = Config::default();
        config.model.path = Some(path.clone());
        let plan = Arc::new(setup::plan(&config, None).unwrap());
        let metrics = Metrics::new(&plan).unwrap();
        let models = Models::new(&config, Arc::clone(&plan), Arc::clone(&metrics)).unwrap();

        let mut other = Model::from_json(setup::SHIPPED_MODEL, "shipped").unwrap();
        other.version = "another".into();
        other.write(&path).unwrap();
        assert_eq!(models.reload(), Reloaded::Ok);
        assert_eq!((models.generation(), models.plan().model_version.as_str()), (1, "another"));
        assert_eq!(models.reload(), Reloaded::Unchanged);
        assert!(metrics.render().contains("version=\"another\"} 1"));
        assert_eq!(metrics.total(&table::MODEL_INFO), 1, "one model is in use");

        other.version = "worse".into();
        other.golden[0].p_churn = 1.0 - other.golden[0].p_churn;
        other.write(&path).unwrap();
        assert!(matches!(models.reload(), Reloaded::Refused(why) if why.what.contains("golden[0]")));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(models.reload(), Reloaded::Refused(why) if why.what.contains("not a churn model")));
        assert_eq!((models.generation(), models.plan().model_version.as_str()), (1, "another"));
        let refused = metrics.render();
        assert!(refused.contains("stagecast_model_reloads_total{result=\"refused\"} 2"), "{refused}");
        assert!(refused.contains("stagecast_model_reloads_total{result=\"ok\"} 1"), "{refused}");
    }

    #[test]
    fn promotion_challenge_and_rollback_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["aaaa", "bbbb"] {
            let mut model = Model::from_json(setup::SHIPPED_MODEL, "shipped").unwrap();
            model.version = version.into();
            model.write(&dir.path().join(format!("{version}.json"))).unwrap();
        }
        let registry = Registry::at(dir.path()).unwrap();
        registry.promote(Some("aaaa"), |_| Ok(())).unwrap();
        let mut config = Config::default();
        config.model.path = Some(dir.path().to_owned());
        let plan = Arc::new(setup::plan(&config, None).unwrap());
        let metrics = Metrics::new(&plan).unwrap();
        let models = Models::new(&config, plan, Arc::clone(&metrics)).unwrap();
        assert_eq!(models.reload(), Reloaded::Unchanged);
        let challenger = || models.plan().challenger.as_ref().map(|c| c.version.clone());

        let before = models.stamp();
        registry.challenge(Some("bbbb"), |_, _| Ok(())).unwrap();
        assert_ne!(models.stamp(), before);
        assert_eq!((models.reload(), challenger()), (Reloaded::Ok, Some("bbbb".into())));
        assert!(metrics.render().contains("stagecast_challenger_info{name=\"churn\",version=\"bbbb\"} 1"));
        registry.promote(None, |_| Ok(())).unwrap();
        assert_eq!((models.reload(), challenger()), (Reloaded::Ok, None));
        assert_eq!(models.plan().model_version, "bbbb");
        registry.rollback(|_| Ok(())).unwrap();
        assert_eq!((models.reload(), models.plan().model_version.as_str()), (Reloaded::Ok, "aaaa"));
    }

    #[test]
    fn a_file_that_changes_is_noticed_without_being_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("churn.json");
        std::fs::write(&path, setup::SHIPPED_MODEL).unwrap();
        let mut config = Config::default();
        config.model.path = Some(path.clone());
        let plan = Arc::new(setup::plan(&config, None).unwrap());
        let models = Models::new(&config, Arc::clone(&plan), Metrics::new(&plan).unwrap()).unwrap();
        let began = crate::time::Tick::now();
        let over = || models.generation() > 0 || began.elapsed() > Duration::from_secs(20);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| models.watch(over));
            sleep(Duration::from_millis(300));
            let mut other = Model::from_json(setup::SHIPPED_MODEL, "shipped").unwrap();
            other.version = "another version".into();
            other.write(&path).unwrap();
            watch.join().unwrap();
        });
        assert_eq!(models.plan().model_version, "another version");
    }
}
