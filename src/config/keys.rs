//! What every key is for, in one line, for the README. The defaults come from the configuration itself, and the
//! tests hold this list against the keys that `check --print` shows.

/// A key and what it decides.
pub type Key = (&'static str, &'static str);

/// In the order of `check --print`.
pub const KEYS: [Key; 62] = [
    ("app.id", "group.id, prefix of transactional.id and of the private topics"),
    (
        "app.instance",
        "stable name of the process: group.instance.id and transactional.id; default: the host's name",
    ),
    ("app.workers", "threads that own partitions; 0: one per core"),
    (
        "kafka",
        "any librdkafka property, for every client; what would break exactly-once is refused, a property with `.file` behind its name takes its value from a file",
    ),
    ("kafka.consumer", "properties of consumers only"),
    ("kafka.producer", "properties of producers only"),
    (
        "source.NAME.enabled",
        "whether the topic is read; NAME is clickstream, purchase, support or profile (off by default)",
    ),
    ("source.NAME.topic", "which topic"),
    ("source.NAME.format", "native, segment, cloudevents or zendesk"),
    ("source.NAME.data", "what CloudEvents carry: native or segment"),
    ("source.NAME.fields", "JSON pointers by native field, where the format has them elsewhere"),
    ("source.NAME.types", "foreign names of events and the native type each stands for; \"*\": every other"),
    ("topics.stage_changes", "topic of stage changes"),
    ("topics.churn_scores", "topic of scores"),
    ("topics.churn_alerts", "topic of alerts"),
    ("topics.churn_outcomes", "topic of outcomes"),
    ("topics.erasures", "topic of receipts of erasures; default: `app.id` and `-erasures`"),
    ("topics.dlq", "topic of dead letters; default: `app.id` and `-dlq`"),
    (
        "topics.state",
        "private topic of state, default: `app.id` and `-state`; inputs must have as many partitions",
    ),
    (
        "topics.identity",
        "private topic between the ids of a customer, default: `app.id` and `-identity`; inputs must have as many partitions",
    ),
    ("topics.partitions", "for topics that are created while no input exists"),
    ("topics.replication", "for topics that are created; -1: the brokers' default"),
    ("commit.interval", "from the beginning of one commit to that of the next, when caught up"),
    (
        "commit.catch_up",
        "from the first event of a transaction to its commit, while a backlog is worked off: fewer, larger ones",
    ),
    ("commit.max_records", "records after which a transaction is committed early"),
    ("commit.max_bytes", "bytes after which a transaction is committed early"),
    ("time.clock", "wall, or events: time is what the events say, however far ahead of the wall clock"),
    ("time.grace", "how long silence waits for events that are late"),
    ("time.max_future", "how far past the wall clock an event may lie before it is a dead letter"),
    ("features.file", "catalogue on top of the one that ships; empty: none"),
    ("features.dedupe", "event time within which a repeated event_id is dropped; 0: never"),
    ("lifecycles.use", "presets by name, files by path"),
    (
        "model.path",
        "a model, a folder of models, or a .toml file that names the champion; empty: the model that ships",
    ),
    (
        "model.challenger",
        "a model that scores in the shadow of a single model; a folder's aliases name their own; empty: none",
    ),
    ("scores.min_change", "a score is emitted when it moved so far since the last one emitted"),
    ("scores.rescore_every", "event time after which a silent customer is scored again"),
    ("scores.bands", "where medium and high begin"),
    ("outcomes.sample", "share of customers whose scores are judged; 0: none"),
    ("outcomes.every", "a score is kept for judgement when the last one kept is so old"),
    ("alert.policy", "name of a policy; one `[[alert]]` each, `alert = []`: none"),
    ("alert.raise", "fires when p_churn rises above"),
    ("alert.clear", "armed again below"),
    ("alert.cooldown", "event time before it fires again for a customer"),
    ("alert.control", "share of customers in the control group"),
    ("alert.segment", "only customers with these traits"),
    ("alert.min_clv", "only customers whose clv_to_date is at least this"),
    ("alert.stage", "fires on entry into this stage instead of on a score"),
    ("alert.lifecycle", "of this lifecycle; absent: of any"),
    ("alert.action", "what is to be done; absent: what the stage says"),
    ("money.base", "ISO 4217 code of the base currency"),
    ("money.margin", "share of revenue that counts as value"),
    ("money.rates", "base currency for one unit of each currency"),
    ("privacy.opt_out", "event time after an erasure in which the customer's events are dropped; 0s: none"),
    ("privacy.salt", "secret in the hash of receipts; empty: app.id"),
    ("privacy.consent", "trait that refuses scoring when false or \"denied\"; empty: none"),
    (
        "identity.follow",
        "event time after its last event for which a folded id still stands for the customer it was folded into",
    ),
    (
        "identity.traits",
        "traits whose values are other ids of their customer, such as the number it has in the help desk; these are \
         folded into it; empty: none",
    ),
    (
        "state.checkpoint_dir",
        "folder for copies of the state, so that a restart reads only the tail of the state topic; empty: none",
    ),
    ("state.checkpoint_every", "from one copy of a partition to its next; one is also made on a clean stop"),
    (
        "state.standby",
        "whether the state of partitions that other instances own is read along, in as much memory, so that it is here \
         when they come",
    ),
    ("http.listen", "address of metrics, health, customers and the live page"),
    (
        "http.token",
        "bearer token of `POST /-/reload`, which is off while this is empty; `token_file` names a file that holds it",
    ),
];

/// Keys of a policy that have no default.
pub const WITHOUT_DEFAULT: [&str; 4] = ["alert.min_clv", "alert.stage", "alert.lifecycle", "alert.action"];
