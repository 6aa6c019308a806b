//! How far customers are from those that the model in use learned from: the census of all partitions of this
//! instance, as gauges.

use std::sync::{Mutex, PoisonError};

use prometheus::{Gauge, GaugeVec, Registry};

use super::kpis::or_nan;
use super::{float_gauges, table};
use crate::pipeline::drift::{Census, Counts, Watch};
use crate::pipeline::facts::FeatureId;
use crate::pipeline::plan::Plan;
use std::sync::Arc;

/// The families of drift.
#[derive(Debug)]
pub(super) struct Drifts {
    watched: Mutex<Watched>,
    features: GaugeVec,
    score: Gauge,
}

/// What the model in use looks at, and what training saw of it.
#[derive(Debug)]
struct Watched {
    names: Vec<String>,
    watch: Option<Arc<Watch>>,
}

impl Watched {
    fn of(plan: &Plan) -> Watched {
        let name = |id: FeatureId| plan.layout.feature(id).name.to_string();
        let names = match &plan.watch {
            Some(watch) => watch.names().to_vec(),
            None => plan.scorer.features().map(name).collect(),
        };
        Watched { names, watch: plan.watch.clone() }
    }
}

impl Drifts {
    pub fn new(registry: &Registry, plan: &Plan) -> prometheus::Result<Drifts> {
        let drifts = Drifts {
            watched: Mutex::new(Watched::of(plan)),
            features: float_gauges(registry, &table::FEATURE_DRIFT)?,
            score: float_gauges(registry, &table::SCORE_DRIFT)?.with_label_values::<&str>(&[]),
        };
        drifts.show(std::iter::empty());
        Ok(drifts)
    }

    /// Shows what these partitions have counted; unknown is not 0.
    pub fn show<'c>(&self, censuses: impl Iterator<Item = &'c Census>) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = Counts::default();
        let (features, score) = watched.watch.as_ref().map_or_else(Default::default, |watch| {
            censuses.for_each(|census| census.add_to(watch, &mut sum));
            watch.psi(&sum)
        });
        self.features.reset();
        for (k, name) in watched.names.iter().enumerate() {
            let psi = features.get(k).copied().flatten();
            self.features.with_label_values(&[name]).set(or_nan(psi));
        }
        self.score.set(or_nan(score));
    }

    /// Another model is in use from now on.
    pub fn set_model(&self, plan: &Plan) {
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = Watched::of(plan);
    }
}
