//! All metrics that stagecast exports, as data: registration, documentation and dashboards come from here.
//!
//! No label ever carries a customer id.

/// How a family behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As in the exposition format.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The metrics of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, labels, help }
}

pub const SCORING: Family = family(
    "stagecast_scoring_duration_seconds",
    Kind::Histogram,
    &[],
    "From the turn of a decoded event to its score computed: finding its customer is in it, what follows from the score is not.",
);
pub const END_TO_END: Family = family(
    "stagecast_end_to_end_latency_seconds",
    Kind::Histogram,
    &[],
    "From the broker timestamp of an input record to the commit of its transaction.",
);
pub const EVENTS: Family = family(
    "stagecast_events_total",
    Kind::Counter,
    &["source", "result"],
    "Input records by what became of them: ok, late, duplicate, dead_letter, erased (of a customer who was), or moved (passed on to who its customer is now, where it counts as well).",
);
pub const DEAD_LETTERS: Family = family(
    "stagecast_dead_letters_total",
    Kind::Counter,
    &["source", "reason"],
    "Input records passed on to the dead-letter topic, by reason.",
);
pub const STAGE_CHANGES: Family = family(
    "stagecast_stage_changes_total",
    Kind::Counter,
    &["lifecycle", "from", "to", "trigger"],
    "Customers moved from one stage to another, by an event or by silence.",
);
pub const CUSTOMERS: Family = family(
    "stagecast_customers",
    Kind::Gauge,
    &["lifecycle", "stage"],
    "Customers in each stage, over the partitions of this instance.",
);
pub const CHURN_SCORE: Family =
    family("stagecast_churn_score", Kind::Histogram, &[], "Churn probabilities computed, emitted or not.");
pub const ALERTS: Family = family(
    "stagecast_alerts_total",
    Kind::Counter,
    &["policy", "group"],
    "Alerts raised, by policy and by treatment or control group.",
);
pub const LAG: Family = family(
    "stagecast_consumer_lag_records",
    Kind::Gauge,
    &["topic", "partition"],
    "Input records not yet consumed.",
);
pub const EVENT_TIME_LAG: Family = family(
    "stagecast_event_time_lag_seconds",
    Kind::Gauge,
    &["topic", "partition"],
    "How far the event time of a partition, one for all its topics, is behind the wall clock.",
);
pub const TRANSACTION_DURATION: Family = family(
    "stagecast_transaction_duration_seconds",
    Kind::Histogram,
    &[],
    "From the call to commit or abort to its end, whatever the outcome: states, markers and positions included, outputs sent before it not.",
);
pub const TRANSACTIONS: Family = family(
    "stagecast_transactions_total",
    Kind::Counter,
    &["outcome"],
    "Transactions ended: committed, aborted, fenced or failed.",
);
pub const STATE_CUSTOMERS: Family =
    family("stagecast_state_customers", Kind::Gauge, &[], "Customers whose state this instance holds.");
pub const STATE_BYTES: Family = family(
    "stagecast_state_bytes",
    Kind::Gauge,
    &[],
    "Bytes of memory that customers take: their state, timers, and the room for taking a transaction back, which a backlog makes large.",
);
pub const RESTORE_RECORDS: Family = family(
    "stagecast_restore_records_total",
    Kind::Counter,
    &[],
    "Records read from the state topic to restore partitions.",
);
pub const RESTORE_DURATION: Family = family(
    "stagecast_restore_duration_seconds",
    Kind::Histogram,
    &[],
    "From the assignment of a partition to its state restored.",
);
pub const CHECKPOINTS: Family = family(
    "stagecast_checkpoints_total",
    Kind::Counter,
    &["outcome"],
    "Local checkpoints of partitions: written, failed, used by a restore, or refused by one because they did not fit.",
);
pub const STANDBY_PARTITIONS: Family = family(
    "stagecast_standby_partitions",
    Kind::Gauge,
    &[],
    "Partitions of other instances whose state is read along and has been here up to its end.",
);
pub const STANDBY_BYTES: Family = family(
    "stagecast_standby_bytes",
    Kind::Gauge,
    &[],
    "Bytes of the state in memory that is read along, or was given up a moment ago; not part of stagecast_state_bytes.",
);
pub const MODEL_INFO: Family =
    family("stagecast_model_info", Kind::Gauge, &["name", "version"], "The model in use; always 1.");
pub const LIVE_AUC: Family = family(
    "stagecast_live_auc",
    Kind::Gauge,
    &[],
    "ROC-AUC of the model in use over the outcomes of the last 30 to 60 days; within the hundredth of a score, ties.",
);
pub const LIVE_BRIER: Family = family(
    "stagecast_live_brier",
    Kind::Gauge,
    &[],
    "Brier score of the model in use over the same outcomes.",
);
pub const LIVE_LOG_LOSS: Family = family(
    "stagecast_live_log_loss",
    Kind::Gauge,
    &[],
    "Log loss of the model in use over the same outcomes.",
);
pub const LIVE_CALIBRATION_ERROR: Family = family(
    "stagecast_live_calibration_error",
    Kind::Gauge,
    &[],
    "Mean distance between score and share churned over ten bins, over the same outcomes.",
);
pub const LIVE_LIFT: Family = family(
    "stagecast_live_lift_10",
    Kind::Gauge,
    &[],
    "How many times more churners the highest tenth of scores holds than a random tenth, over the same outcomes.",
);
pub const LIVE_LABELS: Family = family(
    "stagecast_live_labels_total",
    Kind::Counter,
    &[],
    "Outcomes ever counted in the partitions of this instance, whichever instance counted them.",
);
pub const LIVE_VERSION_AUC: Family = family(
    "stagecast_live_version_auc",
    Kind::Gauge,
    &["name", "version"],
    "ROC-AUC by model, of every model that has outcomes in the last 30 to 60 days.",
);
pub const LIVE_VERSION_BRIER: Family = family(
    "stagecast_live_version_brier",
    Kind::Gauge,
    &["name", "version"],
    "Brier score by model, of every model that has outcomes in the last 30 to 60 days.",
);
pub const CHALLENGER_INFO: Family = family(
    "stagecast_challenger_info",
    Kind::Gauge,
    &["name", "version"],
    "The model that scores in the shadow of the one in use: 1; nameless and 0 where there is none.",
);
pub const CHALLENGER_DIFFERENCE: Family = family(
    "stagecast_challenger_difference",
    Kind::Histogram,
    &[],
    "The challenger's churn probability less that of the model in use, at every score computed.",
);
pub const LIVE_STAGE_AUC: Family = family(
    "stagecast_live_stage_auc",
    Kind::Gauge,
    &["stage"],
    "ROC-AUC of the model in use by the customer's stage at scoring, in the first lifecycle.",
);
pub const FEATURE_DRIFT: Family = family(
    "stagecast_feature_drift_psi",
    Kind::Gauge,
    &["feature"],
    "Population stability index of a feature of the model, customers of the last 30 to 40 days against those of training.",
);
pub const SCORE_DRIFT: Family = family(
    "stagecast_score_drift_psi",
    Kind::Gauge,
    &[],
    "Population stability index of the score, customers of the last 30 to 40 days against those of training.",
);
pub const MODEL_RELOADS: Family = family(
    "stagecast_model_reloads_total",
    Kind::Counter,
    &["result"],
    "Models read again while the service runs: ok, unchanged, or refused, in which case the old one goes on.",
);
pub const CONVERSION_RATIO: Family = family(
    "stagecast_conversion_ratio",
    Kind::Gauge,
    &["lifecycle", "from", "to"],
    "Of everyone who was in a stage in the last 30 days of event time, the share that moved on to another; see /kpis.",
);
pub const CHURN_RATIO: Family = family(
    "stagecast_churn_ratio",
    Kind::Gauge,
    &["lifecycle"],
    "Of everyone who was in a customer's stage in the last 30 days of event time, the share that lapsed.",
);
pub const RETENTION_RATIO: Family = family(
    "stagecast_retention_ratio",
    Kind::Gauge,
    &["lifecycle"],
    "Of everyone who was in a customer's stage in the last 30 days of event time, the share that did not lapse.",
);
pub const WIN_BACK_RATIO: Family = family(
    "stagecast_win_back_ratio",
    Kind::Gauge,
    &["lifecycle"],
    "Of everyone who was in a lapsed stage in the last 30 days of event time, the share that was won back.",
);
pub const STAGE_DURATION_MEDIAN: Family = family(
    "stagecast_stage_duration_median_seconds",
    Kind::Gauge,
    &["lifecycle", "stage"],
    "Median event time spent in a stage, of the stays that ended in the last 30 days of event time, within 2 %.",
);
pub const CLV_TO_DATE: Family = family(
    "stagecast_clv_to_date",
    Kind::Gauge,
    &["lifecycle", "stage"],
    "Sum of clv_to_date of the customers in a stage, in the base currency, counted every 15 s or, of millions, more seldom.",
);
pub const SEGMENT_CUSTOMERS: Family = family(
    "stagecast_segment_customers",
    Kind::Gauge,
    &["lifecycle", "segment", "stage"],
    "Customers of a segment (the trait of that name) in a stage; of more than 32 segments, the others together.",
);
pub const SEGMENT_CLV_TO_DATE: Family = family(
    "stagecast_segment_clv_to_date",
    Kind::Gauge,
    &["lifecycle", "segment", "stage"],
    "stagecast_clv_to_date of the customers of a segment.",
);
pub const SEGMENT_CONVERSION_RATIO: Family = family(
    "stagecast_segment_conversion_ratio",
    Kind::Gauge,
    &["lifecycle", "segment", "from", "to"],
    "stagecast_conversion_ratio of the customers of a segment.",
);
pub const SEGMENT_CHURN_RATIO: Family = family(
    "stagecast_segment_churn_ratio",
    Kind::Gauge,
    &["lifecycle", "segment"],
    "stagecast_churn_ratio of the customers of a segment.",
);
pub const SEGMENT_RETENTION_RATIO: Family = family(
    "stagecast_segment_retention_ratio",
    Kind::Gauge,
    &["lifecycle", "segment"],
    "stagecast_retention_ratio of the customers of a segment.",
);
pub const SEGMENT_WIN_BACK_RATIO: Family = family(
    "stagecast_segment_win_back_ratio",
    Kind::Gauge,
    &["lifecycle", "segment"],
    "stagecast_win_back_ratio of the customers of a segment.",
);
pub const SEGMENT_STAGE_DURATION_MEDIAN: Family = family(
    "stagecast_segment_stage_duration_median_seconds",
    Kind::Gauge,
    &["lifecycle", "segment", "stage"],
    "stagecast_stage_duration_median_seconds of the customers of a segment.",
);
pub const BUILD_INFO: Family =
    family("stagecast_build_info", Kind::Gauge, &["version"], "The program that runs; always 1.");

/// Every family, in the order in which a person wants to read about them.
pub const FAMILIES: [Family; 48] = [
    SCORING,
    END_TO_END,
    EVENTS,
    DEAD_LETTERS,
    STAGE_CHANGES,
    CUSTOMERS,
    CHURN_SCORE,
    ALERTS,
    LAG,
    EVENT_TIME_LAG,
    TRANSACTION_DURATION,
    TRANSACTIONS,
    STATE_CUSTOMERS,
    STATE_BYTES,
    RESTORE_RECORDS,
    RESTORE_DURATION,
    CHECKPOINTS,
    STANDBY_PARTITIONS,
    STANDBY_BYTES,
    CONVERSION_RATIO,
    CHURN_RATIO,
    RETENTION_RATIO,
    WIN_BACK_RATIO,
    STAGE_DURATION_MEDIAN,
    CLV_TO_DATE,
    SEGMENT_CUSTOMERS,
    SEGMENT_CLV_TO_DATE,
    SEGMENT_CONVERSION_RATIO,
    SEGMENT_CHURN_RATIO,
    SEGMENT_RETENTION_RATIO,
    SEGMENT_WIN_BACK_RATIO,
    SEGMENT_STAGE_DURATION_MEDIAN,
    LIVE_AUC,
    LIVE_BRIER,
    LIVE_LOG_LOSS,
    LIVE_CALIBRATION_ERROR,
    LIVE_LIFT,
    LIVE_LABELS,
    LIVE_VERSION_AUC,
    LIVE_VERSION_BRIER,
    LIVE_STAGE_AUC,
    FEATURE_DRIFT,
    SCORE_DRIFT,
    MODEL_INFO,
    CHALLENGER_INFO,
    CHALLENGER_DIFFERENCE,
    MODEL_RELOADS,
    BUILD_INFO,
];
