//! How every Kafka client of this program is configured.
//!
//! A client's properties come in three layers: our defaults, what the user wrote, and what exactly-once rests
//! on, which is set last and which [`ClientSettings::check`] refuses to see overridden. Creating a client here
//! never talks to a broker.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::ThreadedProducer;

use crate::error::{Error, Result};
use crate::kafka::transactions::{BURST_RECORDS, Deliveries};

pub use super::broker::BrokerKind;

/// Kafka's own ceiling for a transaction, unless the broker's `transaction.max.timeout.ms` is lower.
const TRANSACTION_TIMEOUT_MAX_MS: u64 = 15 * 60 * 1_000;
const TRANSACTION_TIMEOUT_MS: u64 = 10_000;
/// librdkafka wants a delivery to be given up before the transaction it belongs to.
const TRANSACTION_TIMEOUT_MIN_MS: u64 = 1_100;

/// What every client of one instance has in common.
#[derive(Clone, Default)]
pub struct ClientSettings {
    /// librdkafka properties for every client.
    pub common: BTreeMap<String, String>,
    /// librdkafka properties for consumers; they win over `common`.
    pub consumer: BTreeMap<String, String>,
    /// librdkafka properties for producers; they win over `common`.
    pub producer: BTreeMap<String, String>,
    /// `group.id`, and the prefix of every `transactional.id`.
    pub app_id: String,
    /// The stable name of this process: `group.instance.id` and `transactional.id` come from it.
    pub instance: String,
    /// The topics that are subscribed to, where they are others than by default. A static member that comes back gets what it
    /// had before, so that one with another subscription must be another member.
    pub subscription: Option<Vec<String>>,
    pub broker: BrokerKind,
    /// How long a fetch of the inputs may wait for more records than one; `None`: not at all.
    pub gather: Option<Duration>,
}

/// A fetch with so much in it goes at once: what a busy partition writes in some milliseconds.
const GATHERED_BYTES: &str = "65536";

/// At the most so much of a partition of the inputs comes in one answer, compressed: unpacked it still fits the cache, and
/// what is not at work at the moment takes little memory. Beside brokers that are far away more is worth its memory.
const FETCHED_BYTES: &str = "131072";

/// How long a fetch gathers where commits follow each other at `interval`: what comes meanwhile waits for the commit
/// anyway, and a fetch for every few records is work for nothing, here and at the brokers.
pub fn gathering(interval: Duration) -> Duration {
    (interval / 8).clamp(Duration::from_millis(5), Duration::from_millis(50))
}

type Properties = BTreeMap<String, String>;

impl ClientSettings {
    /// Settings that reach `bootstrap` and set nothing else.
    pub fn new(bootstrap: &str, app_id: &str, instance: &str) -> Self {
        ClientSettings {
            common: [("bootstrap.servers".to_owned(), bootstrap.to_owned())].into(),
            app_id: app_id.to_owned(),
            instance: instance.to_owned(),
            ..ClientSettings::default()
        }
    }

    /// Refuses properties that would break exactly-once, unknown ones, and values that cannot be.
    pub fn check(&self) -> Result<()> {
        for (table, properties) in
            [("kafka", &self.common), ("kafka.consumer", &self.consumer), ("kafka.producer", &self.producer)]
        {
            for key in properties.keys() {
                if let Some(why) = reserved(key) {
                    return Err(Error::user(format!("`{key}` in [{table}] cannot be set: {why}"))
                        .hint(format!("remove `{key}` from [{table}]")));
                }
            }
        }
        self.transaction_timeout_ms()?;
        if !cfg!(feature = "tls") {
            self.check_goes_without_tls()?;
        }
        for config in [self.input_consumer_config(0), self.producer_config(0)] {
            config.create_native_config().map_err(|e| refused_property(&e))?;
        }
        Ok(())
    }

    /// librdkafka would say so too, some of it only on connecting, and not what to do about it.
    fn check_goes_without_tls(&self) -> Result<()> {
        let all = [&self.common, &self.consumer, &self.producer].into_iter().flatten();
        let Some((key, value)) = all.into_iter().find(|(key, value)| asks_for_tls(key, value)) else {
            return Ok(());
        };
        let what = if key.starts_with("ssl.") { format!("`{key}`") } else { format!("`{key} = {value}`") };
        Err(Error::user(format!("{what} needs TLS, which this program was built without"))
            .hint("build it without `--no-default-features`, or with `--features tls`"))
    }

    /// `transaction.timeout.ms`: the user's, or ten seconds: as long as others wait for a worker that died in mid-transaction.
    pub fn transaction_timeout_ms(&self) -> Result<u64> {
        let key = "transaction.timeout.ms";
        let Some(text) = self.producer.get(key).or_else(|| self.common.get(key)) else {
            return Ok(TRANSACTION_TIMEOUT_MS);
        };
        match text.parse() {
            Ok(ms) if (TRANSACTION_TIMEOUT_MIN_MS..=TRANSACTION_TIMEOUT_MAX_MS).contains(&ms) => Ok(ms),
            _ => Err(Error::user(format!(
                "`{key} = {text}` is not between {TRANSACTION_TIMEOUT_MIN_MS} and {TRANSACTION_TIMEOUT_MAX_MS} \
                 milliseconds"
            ))),
        }
    }

    /// The consumer of the input topics: a static member of the group, which never commits by itself.
    ///
    /// The range assignor is what brings the same customer's partition of every input to the same worker.
    pub fn input_consumer_config(&self, worker: usize) -> ClientConfig {
        let mut owned = self.consumer_must("read_committed");
        owned.extend(properties(&[("auto.offset.reset", self.broker.offset_reset())]));
        match self.broker {
            BrokerKind::Real => {
                owned.extend([("group.instance.id".to_owned(), self.static_member(worker))]);
            }
            BrokerKind::Embedded => owned.extend(properties(&[("group.protocol", "consumer")])),
        }
        let user = self.user(&self.consumer);
        let mut defaults = self.consumer_defaults(INPUT_QUEUE_KB);
        defaults.insert("max.partition.fetch.bytes".to_owned(), FETCHED_BYTES.to_owned());
        // Whoever says how long a fetch waits for one record did not mean for many.
        let gather = self
            .gather
            .filter(|_| self.broker == BrokerKind::Real && !user.contains_key("fetch.wait.max.ms"));
        if let Some(gather) = gather {
            defaults.insert("fetch.min.bytes".to_owned(), GATHERED_BYTES.to_owned());
            defaults.insert("fetch.wait.max.ms".to_owned(), gather.as_millis().to_string());
        }
        if self.new_group_protocol(&user) {
            owned.extend(properties(&[("group.remote.assignor", "range")]));
        } else {
            owned.extend(properties(&[("partition.assignment.strategy", "range")]));
            defaults.extend(properties(CLASSIC_GROUP_DEFAULTS));
        }
        let mut config = self.layered(&defaults, user, owned);
        config.set("client.id", format!("{}-{}", self.app_id, self.member(worker)));
        if self.broker == BrokerKind::Embedded {
            for key in ["session.timeout.ms", "heartbeat.interval.ms"] {
                config.remove(key);
            }
        }
        config
    }

    /// The reader of the state topic: assigned by hand, every batch's checksum verified.
    ///
    /// It bears the group's name, so that no second group needs an ACL, but never joins or commits.
    pub fn restore_consumer_config(&self, worker: usize) -> ClientConfig {
        let mut owned = self.consumer_must("read_committed");
        // An offset that is gone means a hole in the state: that must be an error, never a fresh start.
        owned.extend(properties(&[("auto.offset.reset", "error"), ("check.crcs", "true")]));
        // Partitions are read one after another, each to its end, where a fetch waits for more: that holds up the
        // first fetch of the next partition, which goes over the same connection.
        owned.extend(properties(&[("fetch.wait.max.ms", "10")]));
        self.unjoined(RESTORE_QUEUE_KB, owned, &format!("{}-restore", self.member(worker)))
    }

    /// Reads along what others write to the state topic, assigned by hand.
    pub fn standby_consumer_config(&self) -> ClientConfig {
        let mut owned = self.consumer_must("read_committed");
        owned.extend(properties(&[("auto.offset.reset", "error"), ("check.crcs", "true")]));
        self.unjoined(INPUT_QUEUE_KB, owned, &format!("{}-standby", self.instance))
    }

    /// Asks for end offsets as they are, open transactions included. What it would read is not committed, so
    /// it is for offsets only.
    pub fn end_offsets_config(&self, worker: usize) -> ClientConfig {
        let mut owned = self.consumer_must("read_uncommitted");
        owned.extend(properties(&[("auto.offset.reset", "error")]));
        self.unjoined(INPUT_QUEUE_KB, owned, &format!("{}-ends", self.member(worker)))
    }

    /// Reads the inputs from one end to the other, assigned by hand, beside whoever is at work: `lanes` queues
    /// that share the memory of one worker's.
    pub fn history_consumer_config(&self, lanes: usize) -> ClientConfig {
        let mut owned = self.consumer_must("read_committed");
        owned.extend(properties(&[("auto.offset.reset", "earliest")]));
        let lanes = u32::try_from(lanes.max(1)).unwrap_or(u32::MAX);
        let queue_kb = (RESTORE_QUEUE_KB / lanes).max(HISTORY_QUEUE_LEAST_KB);
        self.unjoined(queue_kb, owned, &format!("{}-history", self.instance))
    }

    /// The transactional producer of one worker.
    pub fn producer_config(&self, worker: usize) -> ClientConfig {
        let transaction_ms = self.transaction_timeout_ms().unwrap_or(TRANSACTION_TIMEOUT_MS);
        let user = self.user(&self.producer);
        let mut defaults = properties(CONNECTION_DEFAULTS);
        defaults.extend(properties(PRODUCER_DEFAULTS));
        defaults.insert("batch.num.messages".to_owned(), BURST_RECORDS.to_string());
        // A record is given up early enough to abort the transaction before the broker does.
        defaults.insert("message.timeout.ms".to_owned(), (transaction_ms * 3 / 4).to_string());
        defaults.insert("transaction.timeout.ms".to_owned(), transaction_ms.to_string());
        let mut owned = properties(&[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
            ("allow.auto.create.topics", "false"),
        ]);
        owned.insert("transactional.id".to_owned(), self.transactional_id(worker));
        let mut config = self.layered(&defaults, user, owned);
        config.set("client.id", format!("{}-{}", self.app_id, self.member(worker)));
        config
    }

    /// For topics and their settings.
    pub fn admin_config(&self) -> ClientConfig {
        let owned = properties(&[("allow.auto.create.topics", "false")]);
        let mut config = self.layered(&properties(CONNECTION_DEFAULTS), self.user(&Properties::new()), owned);
        config.set("client.id", format!("{}-{}-admin", self.app_id, self.instance));
        config
    }

    /// `<app>-<instance>-<worker>`: unique on the cluster, and the same after a restart.
    pub fn transactional_id(&self, worker: usize) -> String {
        format!("{}-{}", self.app_id, self.member(worker))
    }

    pub fn producer(&self, worker: usize) -> KafkaResult<ThreadedProducer<Deliveries>> {
        self.producer_config(worker).create_with_context(Deliveries::default())
    }

    /// A plain idempotent producer, for feeding the input topics.
    pub fn feed_producer(&self) -> KafkaResult<ThreadedProducer<Deliveries>> {
        let mut config = self.producer_config(0);
        config.remove("transactional.id").remove("transaction.timeout.ms");
        config.set("client.id", format!("{}-{}-feed", self.app_id, self.instance));
        if self.broker == BrokerKind::Embedded {
            // The mock gives one batch a fetch: small ones would take long to read.
            config.set("linger.ms", "5");
        }
        config.create_with_context(Deliveries::default())
    }

    pub fn restore_consumer(&self, worker: usize) -> KafkaResult<BaseConsumer<LogContext>> {
        self.restore_consumer_config(worker).create_with_context(LogContext)
    }

    pub fn standby_consumer(&self) -> KafkaResult<BaseConsumer<LogContext>> {
        self.standby_consumer_config().create_with_context(LogContext)
    }

    pub fn end_offsets(&self, worker: usize) -> KafkaResult<BaseConsumer<LogContext>> {
        self.end_offsets_config(worker).create_with_context(LogContext)
    }

    pub fn history_consumer(&self, lanes: usize) -> KafkaResult<BaseConsumer<LogContext>> {
        self.history_consumer_config(lanes).create_with_context(LogContext)
    }

    pub fn admin(&self) -> KafkaResult<AdminClient<LogContext>> {
        self.admin_config().create_with_context(LogContext)
    }

    /// The name under which a worker is a member of the group.
    fn static_member(&self, worker: usize) -> String {
        let member = self.member(worker);
        match &self.subscription {
            None => member,
            Some(topics) => {
                // No topic's name has a comma.
                let hash = xxhash_rust::xxh3::xxh3_64(topics.join(",").as_bytes());
                format!("{member}-{:08x}", hash as u32)
            }
        }
    }

    fn member(&self, worker: usize) -> String {
        format!("{}-{worker}", self.instance)
    }

    fn user(&self, refined: &Properties) -> Properties {
        let mut user = self.common.clone();
        user.extend(refined.clone());
        user.retain(|key, _| reserved(key).is_none());
        user
    }

    fn new_group_protocol(&self, user: &Properties) -> bool {
        self.broker == BrokerKind::Embedded || user.get("group.protocol").is_some_and(|p| p == "consumer")
    }

    fn consumer_defaults(&self, queue_kb: u32) -> Properties {
        let mut defaults = properties(CONNECTION_DEFAULTS);
        defaults.extend(properties(CONSUMER_DEFAULTS));
        defaults.insert("queued.max.messages.kbytes".to_owned(), queue_kb.to_string());
        if self.broker == BrokerKind::Embedded {
            // The mock does not wake a waiting fetch.
            defaults.insert("fetch.wait.max.ms".to_owned(), "10".to_owned());
        }
        defaults
    }

    fn consumer_must(&self, isolation: &str) -> Properties {
        let mut must = properties(CONSUMER_MUST);
        must.insert("group.id".to_owned(), self.app_id.clone());
        must.insert("isolation.level".to_owned(), isolation.to_owned());
        must
    }

    /// A consumer that is assigned by hand has no use for what the user says about membership.
    fn unjoined(&self, queue_kb: u32, owned: Properties, client_id: &str) -> ClientConfig {
        let mut config = self.layered(&self.consumer_defaults(queue_kb), self.user(&self.consumer), owned);
        for key in MEMBERSHIP {
            config.remove(key);
        }
        config.set("client.id", format!("{}-{client_id}", self.app_id));
        config
    }

    fn layered(&self, defaults: &Properties, user: Properties, owned: Properties) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in defaults.iter().chain(&user).chain(&owned) {
            config.set(key, value);
        }
        #[cfg(feature = "tls")]
        if let Some(path) = trusts_the_system(&config).then(super::certificate::of_the_system).flatten() {
            config.set("ssl.ca.location", path);
        }
        // Who asks librdkafka for details must be able to see them.
        let is_debugged = config.get("debug").is_some();
        config.set_log_level(if is_debugged { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        config
    }
}

impl fmt::Debug for ClientSettings {
    /// Names without values: any of them may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("app_id", &self.app_id)
            .field("instance", &self.instance)
            .field("broker", &self.broker)
            .field("common", &self.common.keys())
            .field("consumer", &self.consumer.keys())
            .field("producer", &self.producer.keys())
            .finish()
    }
}

/// Whether a property's value must not be shown.
pub fn is_secret(property: &str) -> bool {
    const MARKS: [&str; 8] = [
        "password",
        "secret",
        "passphrase",
        "oauthbearer.config",
        ".pem",
        "token",
        "credentials",
        "assertion",
    ];
    MARKS.iter().any(|mark| property.contains(mark)) && !property.ends_with(".location")
}

/// A client context that hands librdkafka's lines to the log and adds nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is no error, although it is reported as one.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(target: "librdkafka", "{error}: {reason}");
        }
    }
}

impl ConsumerContext for LogContext {}

/// Writes one of librdkafka's lines to the log. They name brokers, topics and groups, never records.
pub fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    match level {
        Emerg | Alert | Critical | Error => tracing::error!(target: "librdkafka", "{facility}: {message}"),
        Warning => tracing::warn!(target: "librdkafka", "{facility}: {message}"),
        Notice | Info => tracing::info!(target: "librdkafka", "{facility}: {message}"),
        Debug => tracing::debug!(target: "librdkafka", "{facility}: {message}"),
    }
}

/// SCRAM and OAUTHBEARER are OpenSSL's as well; PLAIN is librdkafka's own.
fn asks_for_tls(key: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match key {
        "security.protocol" => value.ends_with("ssl"),
        "sasl.mechanism" | "sasl.mechanisms" => value.starts_with("scram-") || value == "oauthbearer",
        _ => key.starts_with("ssl."),
    }
}

/// Whether brokers are to be verified by whom this machine trusts, as nothing else was said.
#[cfg(feature = "tls")]
fn trusts_the_system(config: &ClientConfig) -> bool {
    let speaks_tls =
        config.get("security.protocol").is_some_and(|name| name.to_ascii_lowercase().ends_with("ssl"));
    speaks_tls && ["ssl.ca.location", "ssl.ca.pem"].iter().all(|key| config.get(key).is_none())
}

/// Why a property is not the user's to set, where it is not.
fn reserved(property: &str) -> Option<&'static str> {
    OWNED.iter().find(|(owned, _)| *owned == property).map(|(_, why)| *why)
}

fn properties(list: &[(&str, &str)]) -> Properties {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// librdkafka's refusal of a property, without a value that may be a secret.
fn refused_property(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, why, key, value) if !is_secret(key) => {
            Error::user(format!("`{key} = {value}` is refused by librdkafka: {why}"))
        }
        KafkaError::ClientConfig(_, _, key, _) => {
            Error::user(format!("the value of `{key}` is refused by librdkafka"))
        }
        other => Error::user(format!("the Kafka settings are refused: {other}")),
    }
    .hint("librdkafka's CONFIGURATION.md lists every property of [kafka], [kafka.consumer], [kafka.producer]")
}

/// Memory for records fetched ahead, per worker. A record costs librdkafka some 400 bytes besides its own, and a
/// short queue stays in the cache.
const INPUT_QUEUE_KB: u32 = 8 * 1024;
/// Restoring is one long read with nothing beside it.
const RESTORE_QUEUE_KB: u32 = 64 * 1024;
/// A lane of a history fetches at least so much ahead.
const HISTORY_QUEUE_LEAST_KB: u32 = 512;

const CONNECTION_DEFAULTS: &[(&str, &str)] = &[
    // A broker that restarts should be found again within a second, not ten.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    ("statistics.interval.ms", "0"),
];

const CONSUMER_DEFAULTS: &[(&str, &str)] = &[
    ("group.protocol", "classic"),
    // A full local queue would otherwise stop fetching for a whole second.
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
    // A fetch that waits for records holds up what else goes over its connection: the first fetch of a partition that
    // has just been assigned, the way back after an abort, where a topic ends.
    ("fetch.wait.max.ms", "100"),
    ("queued.min.messages", "10000"),
    ("fetch.max.bytes", "16777216"),
    // The broker checked each batch when it was written, and TCP since; restoring state checks again.
    ("check.crcs", "false"),
];

/// A member that died is missed after ten seconds; one that restarts in time gets its partitions back.
const CLASSIC_GROUP_DEFAULTS: &[(&str, &str)] =
    &[("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "2000")];

const CONSUMER_MUST: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
];

const PRODUCER_DEFAULTS: &[(&str, &str)] = &[
    // When the group's coordinator leaves the cluster, librdkafka adds offsets to a transaction only once some
    // connection comes or goes, and looks at no timeout until then (confluentinc/librdkafka#5511 and #5456): ten
    // minutes, by the brokers' default for idle connections. In a call that waits, all are idle.
    ("connections.max.idle.ms", "8000"),
    // Each batch costs a request, and the brokers more than that. Nobody waits for it: a commit flushes.
    ("linger.ms", "20"),
    // A commit counts what is in flight; a report on every record that went well would double its cost.
    ("delivery.report.only.error", "true"),
    ("compression.type", "lz4"),
    // Many bursts: dead letters and moves between ids do not wait for the one before them.
    ("queue.buffering.max.messages", "250000"),
    ("queue.buffering.max.kbytes", "262144"),
    // A dead letter is a record of any size a broker takes, and some headers more.
    ("message.max.bytes", super::topics::RECORD_BYTES_MOST),
];

const MEMBERSHIP: [&str; 6] = [
    "group.protocol",
    "group.instance.id",
    "group.remote.assignor",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "heartbeat.interval.ms",
];

/// Properties, aliases included, that are ours alone, and why.
const OWNED: &[(&str, &str)] = &[
    ("group.id", "it is app.id"),
    ("group.instance.id", "it comes from app.instance, so that a restart is not a rebalance"),
    ("group.remote.assignor", "only `range` brings a customer's events together"),
    ("partition.assignment.strategy", "only `range` brings a customer's events together"),
    ("enable.auto.commit", "offsets are committed in the transaction of their effects"),
    ("auto.commit.enable", "offsets are committed in the transaction of their effects"),
    ("enable.auto.offset.store", "offsets are committed in the transaction of their effects"),
    ("enable.partition.eof", "merging the topics of a partition needs to know their ends"),
    ("isolation.level", "only committed records may be read"),
    ("auto.offset.reset", "a start anywhere but at the earliest record would lose events"),
    ("transactional.id", "it comes from app.id and app.instance; it fences the process this one replaces"),
    ("enable.idempotence", "without it retries could write twice"),
    ("acks", "a record counts only when all in-sync replicas have it"),
    ("request.required.acks", "a record counts only when all in-sync replicas have it"),
    ("partitioner", "every topic must be partitioned as the Java client does it (murmur2)"),
    (
        "allow.auto.create.topics",
        "a mistyped topic would come to life; `stagecast topics create` makes topics",
    ),
    ("test.mock.num.brokers", "every client would talk to a cluster of its own"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ClientSettings {
        ClientSettings::new("broker:9092", "app", "box-0")
    }

    fn with(table: &str, key: &str, value: &str) -> ClientSettings {
        let mut settings = settings();
        match table {
            "consumer" => settings.consumer.insert(key.to_owned(), value.to_owned()),
            "producer" => settings.producer.insert(key.to_owned(), value.to_owned()),
            _ => settings.common.insert(key.to_owned(), value.to_owned()),
        };
        settings
    }

    #[test]
    fn names_come_from_the_instance_and_survive_a_restart() {
        let consumer = settings().input_consumer_config(2);
        assert_eq!(consumer.get("group.id"), Some("app"));
        assert_eq!(consumer.get("group.instance.id"), Some("box-0-2"));
        assert_eq!(settings().producer_config(2).get("transactional.id"), Some("app-box-0-2"));
    }

    #[test]
    fn what_only_a_build_with_tls_can_do_is_refused_with_what_to_do() {
        for (key, value) in [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.mechanisms", "OAUTHBEARER"),
            ("ssl.key.password", "canary"),
        ] {
            let error = with("common", key, value).check_goes_without_tls().unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("built without"), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
        for (key, value) in [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN")] {
            with("common", key, value).check_goes_without_tls().unwrap();
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn whom_the_machine_trusts_is_trusted_unless_somebody_else_is_named() {
        let trusted =
            |settings: ClientSettings| settings.producer_config(0).get("ssl.ca.location").map(str::to_owned);
        assert_eq!(trusted(settings()), None);
        let system = super::super::certificate::of_the_system().map(str::to_owned);
        assert_eq!(trusted(with("common", "security.protocol", "SASL_SSL")), system);
        for (key, expected) in [("ssl.ca.location", Some("mine".to_owned())), ("ssl.ca.pem", None)] {
            let mut settings = with("common", "security.protocol", "ssl");
            settings.common.insert(key.to_owned(), "mine".to_owned());
            assert_eq!(trusted(settings), expected, "{key}");
        }
    }

    #[test]
    fn another_subscription_is_another_member_of_the_group_and_the_same_producer() {
        let of = |topics: &[&str]| ClientSettings {
            subscription: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
            ..settings()
        };
        let member = |settings: &ClientSettings| {
            settings.input_consumer_config(2).get("group.instance.id").unwrap().to_owned()
        };
        let (one, other) = (of(&["a", "b"]), of(&["a", "b", "c"]));
        assert_eq!(member(&one), member(&of(&["a", "b"])));
        assert_ne!(member(&one), member(&other));
        assert!(member(&one).starts_with("box-0-2-"), "{}", member(&one));
        let producer = |settings: &ClientSettings| {
            settings.producer_config(2).get("transactional.id").map(str::to_owned)
        };
        assert_eq!(producer(&one), producer(&settings()));
    }

    #[test]
    fn every_client_can_be_created_without_a_broker() {
        let settings = settings();
        settings.check().unwrap();
        settings.input_consumer_config(0).create::<BaseConsumer>().unwrap();
        settings.restore_consumer(0).unwrap();
        settings.end_offsets(0).unwrap();
        drop(settings.producer(0).unwrap());
        settings.admin().unwrap();
    }

    #[test]
    fn clients_of_the_embedded_broker_and_of_the_new_protocol_can_be_created() {
        let embedded = ClientSettings { broker: BrokerKind::Embedded, ..settings() };
        let user = with("consumer", "group.protocol", "consumer");
        for settings in [embedded, user] {
            let consumer = settings.input_consumer_config(0);
            assert_eq!(consumer.get("group.remote.assignor"), Some("range"));
            assert_eq!(consumer.get("partition.assignment.strategy"), None);
            consumer.create::<BaseConsumer>().unwrap();
            settings.restore_consumer(0).unwrap();
            settings.end_offsets(0).unwrap();
        }
    }

    #[test]
    fn harmless_properties_are_the_users_and_the_narrower_table_wins() {
        let mut settings = with("common", "fetch.wait.max.ms", "100");
        settings.consumer.insert("fetch.wait.max.ms".to_owned(), "50".to_owned());
        settings.producer.insert("linger.ms".to_owned(), "40".to_owned());
        settings.check().unwrap();
        assert_eq!(settings.input_consumer_config(0).get("fetch.wait.max.ms"), Some("50"));
        assert_eq!(settings.producer_config(0).get("linger.ms"), Some("40"));
    }

    #[test]
    fn a_fetch_gathers_for_an_eighth_of_the_interval_unless_the_user_says_how_long_it_waits() {
        let fetch = |settings: &ClientSettings| {
            let config = settings.input_consumer_config(0);
            ["fetch.min.bytes", "fetch.wait.max.ms"].map(|key| config.get(key).map(str::to_owned))
        };
        let some = |bytes: &str, wait: &str| [Some(bytes.to_owned()), Some(wait.to_owned())];
        let mut settings =
            ClientSettings { gather: Some(gathering(Duration::from_millis(100))), ..settings() };
        assert_eq!(fetch(&settings), some("65536", "12"));
        settings.consumer.insert("fetch.min.bytes".to_owned(), "1".to_owned());
        assert_eq!(fetch(&settings), some("1", "12"));
        settings = ClientSettings { gather: settings.gather, ..with("common", "fetch.wait.max.ms", "500") };
        assert_eq!(fetch(&settings), [None, Some("500".to_owned())]);
        assert_eq!(gathering(Duration::from_millis(1)), Duration::from_millis(5));
        assert_eq!(gathering(Duration::from_secs(60)), Duration::from_millis(50));
    }

    #[test]
    fn what_would_break_exactly_once_is_refused_by_name_and_not_applied() {
        for (table, key, value) in [
            ("common", "isolation.level", "read_uncommitted"),
            ("consumer", "enable.auto.commit", "true"),
            ("producer", "transactional.id", "mine"),
            ("producer", "request.required.acks", "1"),
            ("producer", "partitioner", "random"),
        ] {
            let settings = with(table, key, value);
            let error = settings.check().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.what.contains(key), "{}", error.what);
            assert_ne!(settings.input_consumer_config(0).get(key), Some(value));
            assert_ne!(settings.producer_config(0).get(key), Some(value));
        }
    }

    #[test]
    fn unknown_properties_and_wrong_values_are_errors_that_keep_secrets() {
        let error = with("common", "bootstrap.serverz", "x").check().unwrap_err();
        assert!(error.what.contains("bootstrap.serverz"), "{}", error.what);
        let error = with("consumer", "sasl.passwordz", "hunter2").check().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(with("producer", "transaction.timeout.ms", "soon").check().is_err());
        assert!(with("producer", "transaction.timeout.ms", "90000000").check().is_err());
    }

    #[test]
    fn a_record_is_given_up_before_its_transaction() {
        let config = with("producer", "transaction.timeout.ms", "3000").producer_config(0);
        assert_eq!(config.get("transaction.timeout.ms"), Some("3000"));
        assert_eq!(config.get("message.timeout.ms"), Some("2250"));
    }

    #[test]
    fn the_restore_reader_checks_every_batch_and_never_starts_afresh() {
        let mut settings = with("consumer", "check.crcs", "false");
        settings.consumer.insert("fetch.wait.max.ms".to_owned(), "500".to_owned());
        let config = settings.restore_consumer_config(0);
        assert_eq!(config.get("check.crcs"), Some("true"));
        assert_eq!(config.get("fetch.wait.max.ms"), Some("10"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("group.instance.id"), None);
    }

    #[test]
    fn secrets_are_known_by_name_and_never_debug_printed() {
        for key in ["sasl.password", "ssl.key.pem", "sasl.oauthbearer.client.secret", "ssl.key.password"] {
            assert!(is_secret(key), "{key}");
        }
        assert!(!is_secret("ssl.ca.location") && !is_secret("bootstrap.servers"));
        let text = format!("{:?}", with("common", "sasl.password", "hunter2"));
        assert!(!text.contains("hunter2"), "{text}");
    }
}
