//! The model judged on the stream itself: the counts of all partitions of this instance, as gauges.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus::{Gauge, GaugeVec, IntCounter, IntGaugeVec, Registry};

use super::kpis::or_nan;
use super::{counters, float_gauges, gauges, table};
use crate::pipeline::plan::Plan;
use crate::pipeline::quality::{Counts, Ledger};

/// Names and versions of the model in use, and of its challenger.
#[derive(Debug)]
struct Models {
    champion: (String, String),
    challenger: Option<(String, String)>,
}

impl Models {
    fn of(plan: &Plan) -> Models {
        let challenger = plan.challenger.as_ref();
        Models {
            champion: (plan.model_name.clone(), plan.model_version.clone()),
            challenger: challenger.map(|model| (model.name.clone(), model.version.clone())),
        }
    }
}

/// The families that are called live.
#[derive(Debug)]
pub(super) struct Live {
    models: Mutex<Models>,
    /// Of the first lifecycle.
    stages: Vec<Box<str>>,
    auc: Gauge,
    brier: Gauge,
    log_loss: Gauge,
    calibration_error: Gauge,
    lift: Gauge,
    labels: IntCounter,
    by_version: GaugeVec,
    brier_by_version: GaugeVec,
    challenger_info: IntGaugeVec,
    by_stage: GaugeVec,
}

impl Live {
    pub fn new(registry: &Registry, plan: &Plan) -> prometheus::Result<Live> {
        let gauge = |family| -> prometheus::Result<Gauge> {
            let gauge = float_gauges(registry, family)?.with_label_values::<&str>(&[]);
            // Unknown is not 0.
            gauge.set(f64::NAN);
            Ok(gauge)
        };
        Ok(Live {
            models: Mutex::new(Models::of(plan)),
            stages: plan.lifecycles.first().map_or_else(Vec::new, |(lifecycle, _)| {
                lifecycle.stages().iter().map(|stage| (&*stage.name).into()).collect()
            }),
            auc: gauge(&table::LIVE_AUC)?,
            brier: gauge(&table::LIVE_BRIER)?,
            log_loss: gauge(&table::LIVE_LOG_LOSS)?,
            calibration_error: gauge(&table::LIVE_CALIBRATION_ERROR)?,
            lift: gauge(&table::LIVE_LIFT)?,
            labels: counters(registry, &table::LIVE_LABELS)?.with_label_values::<&str>(&[]),
            by_version: float_gauges(registry, &table::LIVE_VERSION_AUC)?,
            brier_by_version: float_gauges(registry, &table::LIVE_VERSION_BRIER)?,
            challenger_info: gauges(registry, &table::CHALLENGER_INFO)?,
            by_stage: float_gauges(registry, &table::LIVE_STAGE_AUC)?,
        })
    }

    /// Shows what these partitions have counted.
    pub fn show<'l>(&self, ledgers: impl Iterator<Item = &'l Ledger>) {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let model = &models.champion;
        let mut labels = 0u64;
        let mut by_model: BTreeMap<(&str, &str), Counts> = BTreeMap::new();
        let mut by_stage: BTreeMap<&str, Counts> = BTreeMap::new();
        // What is known of from the start is shown from the start, as unknown.
        for (name, version) in [model].into_iter().chain(&models.challenger) {
            by_model.entry((name, version)).or_default();
        }
        self.stages.iter().for_each(|stage| {
            by_stage.entry(stage).or_default();
        });
        for ledger in ledgers {
            labels = labels.saturating_add(ledger.labels);
            for (key, counts) in &ledger.counts {
                by_model.entry((&key.model, &key.version)).or_default().merge(counts);
                if (&key.model, &key.version) == (&model.0, &model.1) && !key.stage.is_empty() {
                    by_stage.entry(&key.stage).or_default().merge(counts);
                }
            }
        }
        self.labels.reset();
        self.labels.inc_by(labels);
        let current = by_model.get(&(model.0.as_str(), model.1.as_str())).and_then(Counts::figures);
        self.auc.set(or_nan(current.and_then(|f| f.auc)));
        self.brier.set(or_nan(current.map(|f| f.brier)));
        self.log_loss.set(or_nan(current.map(|f| f.log_loss)));
        self.calibration_error.set(or_nan(current.map(|f| f.calibration_error)));
        self.lift.set(or_nan(current.and_then(|f| f.lift_10)));
        self.by_version.reset();
        self.brier_by_version.reset();
        for ((name, version), counts) in &by_model {
            let (figures, labels) = (counts.figures(), [*name, *version]);
            self.by_version.with_label_values(&labels).set(or_nan(figures.and_then(|f| f.auc)));
            self.brier_by_version.with_label_values(&labels).set(or_nan(figures.map(|f| f.brier)));
        }
        self.challenger_info.reset();
        let challenger = models.challenger.as_ref();
        let labels = challenger.map_or([""; 2], |(name, version)| [name, version]);
        self.challenger_info.with_label_values(&labels).set(i64::from(challenger.is_some()));
        self.by_stage.reset();
        for (stage, counts) in &by_stage {
            let auc = counts.figures().and_then(|f| f.auc);
            self.by_stage.with_label_values(&[*stage]).set(or_nan(auc));
        }
    }

    /// Another model is in use from now on.
    pub fn set_model(&self, plan: &Plan) {
        *self.models.lock().unwrap_or_else(PoisonError::into_inner) = Models::of(plan);
    }
}
