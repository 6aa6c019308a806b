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
use crate::model::Model;
use crate::pipeline::plan::Plan;
use crate::setup::{Parts, champion};
use crate::time::sleep;

/// How often the file is looked at, and how often whether somebody has asked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LISTEN_EVERY: Duration = Duration::from_millis(100);

/// Tells a file that was written anew, or another that an alias now names, from what it was.
/// Of an alias it has both files, as far as they are there.
type Stamp = Vec<(PathBuf, SystemTime, u64)>;

/// The model in use, and the way to another.
#[derive(Debug)]
pub struct Models {
    parts: Parts,
    /// `None`: the model that ships, which does not change.
    path: Option<PathBuf>,
    current: Mutex<Arc<Plan>>,
    /// Counts the models that were taken into use.
    generation: AtomicU64,
    asked: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Models {
    /// `plan` is what the configuration compiles to now.
    pub fn new(config: &Config, plan: Arc<Plan>, metrics: Arc<Metrics>) -> Result<Models> {
        Ok(Models {
            parts: Parts::read(config)?,
            path: config.model.path.clone(),
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

    /// What the file is now.
    fn stamp(&self) -> Stamp {
        let champion = self.path.as_deref().and_then(|path| champion(path).ok());
        let files = self.path.iter().cloned().chain(champion);
        let stamp = |file: PathBuf| {
            let metadata = std::fs::metadata(&file).ok()?;
            Some((file, metadata.modified().ok()?, metadata.len()))
        };
        files.filter_map(stamp).collect()
    }

    /// Takes the model of the file into use, or says why not.
    fn reload(&self) {
        match self.compile() {
            Ok(plan) => {
                tracing::info!(
                    name = plan.model_name,
                    version = plan.model_version,
                    "the model was reloaded"
                );
                self.metrics.set_model(&plan);
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
                self.generation.fetch_add(1, Ordering::AcqRel);
                self.metrics.model_reload(Reload::Ok);
            }
            Err(error) => {
                let plan = self.plan();
                let (name, version) = (&plan.model_name, &plan.model_version);
                tracing::error!(name, version, "the new model is refused, the old one goes on: {error}");
                self.metrics.model_reload(Reload::Refused);
            }
        }
    }

    fn compile(&self) -> Result<Plan> {
        let Some(path) = &self.path else {
            let what = "the model that ships with the program is in use: there is no file to read again";
            return Err(Error::user(what).hint("name a model file with model.path, and start again"));
        };
        let plan = self.parts.plan(&Model::read(&champion(path)?)?)?;
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
    use crate::setup;

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
        models.reload();
        assert_eq!((models.generation(), models.plan().model_version.as_str()), (1, "another"));
        assert!(metrics.render().contains("version=\"another\"} 1"));
        assert_eq!(metrics.total(&table::MODEL_INFO), 1, "one model is in use");

        other.version = "worse".into();
        other.golden[0].p_churn = 1.0 - other.golden[0].p_churn;
        other.write(&path).unwrap();
        models.reload();
        std::fs::write(&path, "{").unwrap();
        models.reload();
        assert_eq!((models.generation(), models.plan().model_version.as_str()), (1, "another"));
        let refused = metrics.render();
        assert!(refused.contains("stagecast_model_reloads_total{result=\"refused\"} 2"), "{refused}");
        assert!(refused.contains("stagecast_model_reloads_total{result=\"ok\"} 1"), "{refused}");
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
