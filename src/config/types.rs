//! The configuration once it has been read: one struct a section, every value checked, every default here.
//!
//! Only values; where they come from and what is wrong with them is the business of the other files here.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::event::decoder::Format;
pub use crate::pipeline::facts::TraitValue as TraitScalar;
use crate::time::{DAY_MS, MINUTE_MS};

use super::mask;

/// Everything that can be configured, in the order of the sections of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub app: App,
    pub kafka: Kafka,
    pub source: Sources,
    pub topics: Topics,
    pub commit: Commit,
    pub time: Time,
    pub features: Features,
    pub lifecycles: Lifecycles,
    pub model: ModelConfig,
    pub scores: Scores,
    pub outcomes: Outcomes,
    pub alert: Vec<AlertPolicy>,
    pub money: Money,
    pub privacy: Privacy,
    pub identity: Identity,
    pub state: State,
    pub http: Http,
}

#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// `group.id`, prefix of `transactional.id`, prefix of the state and dead-letter topics' default names.
    pub id: String,
    /// The stable name of this process: `group.instance.id` and `transactional.id` come from it.
    pub instance: String,
    /// Threads that own partitions; 0: one per core.
    pub workers: usize,
}

/// librdkafka properties, by their usual name (aliases are already replaced).
#[derive(Clone, PartialEq)]
pub struct Kafka {
    pub common: BTreeMap<String, String>,
    pub consumer: BTreeMap<String, String>,
    pub producer: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sources {
    pub clickstream: SourceConfig,
    pub purchase: SourceConfig,
    pub support: SourceConfig,
    pub profile: SourceConfig,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    pub enabled: bool,
    pub topic: String,
    pub format: Format,
    /// The format of the data that CloudEvents carry: native or Segment.
    pub data: Format,
    /// Native field name to JSON pointer.
    pub fields: BTreeMap<String, String>,
    /// Foreign event name to native type; `*` stands for every other name, and for none.
    pub types: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Topics {
    pub stage_changes: String,
    pub churn_scores: String,
    pub churn_alerts: String,
    pub churn_outcomes: String,
    pub erasures: String,
    pub dlq: String,
    pub state: String,
    /// What passes between the partitions of two ids of one customer.
    pub identity: String,
    /// Partitions of the topics that `topics create` makes.
    pub partitions: u32,
    /// Replicas of the topics that `topics create` makes; -1: as many as the broker's default says.
    pub replication: i16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Time between transactions when caught up.
    pub interval: Duration,
    /// Time between transactions while a backlog is worked off.
    pub catch_up: Duration,
    /// Input records after which a transaction ends whatever the time.
    pub max_records: usize,
    /// Bytes of output after which a transaction ends whatever the time.
    pub max_bytes: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Time {
    pub clock: Clock,
    /// How far a silent customer's instants wait behind the partition's clock.
    pub grace_ms: i64,
    /// How far past the wall clock an event may be.
    pub max_future_ms: i64,
}

/// What moves time forward when no event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// An idle partition follows the wall clock.
    Wall,
    /// Time is what the events say; an idle partition waits.
    Events,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// `None`: the catalogue that ships.
    pub file: Option<PathBuf>,
    /// Event time within which a repeated `event_id` of a customer is dropped.
    pub dedupe_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Lifecycles {
    /// Presets by name; files by path, which holds a `/` or ends in `.toml`.
    pub use_: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct ModelConfig {
    /// A model, a file of aliases, or a folder with one; `None`: the model that ships.
    pub path: Option<PathBuf>,
    /// Scores in the shadow of the model, unless that is named by aliases, which then name the challenger too.
    pub challenger: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    pub min_change: f64,
    pub rescore_every_ms: i64,
    /// low | medium | high
    pub bands: [f64; 2],
}

/// Which scores are kept until it is known what became of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcomes {
    /// Share of customers, by a hash of their id; 0: none are kept.
    pub sample: f64,
    /// A customer's next emitted score is kept when the last one kept is so old; 0: every one.
    pub every_ms: i64,
}

/// When to raise an alert: about a score, or, where `stage` is named, about entering that stage.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertPolicy {
    pub policy: String,
    /// An alert fires when the score rises above this …
    pub raise: f64,
    /// … and is armed again once it falls below this.
    pub clear: f64,
    pub cooldown_ms: i64,
    /// Share of the customers in the control group.
    pub control: f64,
    /// Where the stage belongs; `None`: any lifecycle that has it.
    pub lifecycle: Option<String>,
    pub stage: Option<String>,
    /// Traits a customer must have for this policy to concern it.
    pub segment: BTreeMap<String, TraitScalar>,
    /// What `clv_to_date` must be at least for this policy to concern a customer.
    pub min_clv: Option<f64>,
    /// Overrides the action that the customer's stage suggests.
    pub action: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Money {
    /// ISO 4217 code of the currency all amounts are brought into.
    pub base: String,
    pub margin: f64,
    /// Currency code to the worth of one unit in the base currency.
    pub rates: BTreeMap<String, f64>,
}

/// What customers may ask for.
#[derive(Clone, PartialEq)]
pub struct Privacy {
    /// How long, in event time, an erased customer's events are dropped.
    pub opt_out_ms: i64,
    /// Hashed with the id of an erased customer; `None`: the application's id, which keeps the receipts of two
    /// applications apart, and no secret.
    pub salt: Option<String>,
    /// The trait by which a customer refuses to be scored; empty: none.
    pub consent: String,
}

/// How customers of several ids are followed.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// How long, in event time, events under a merged id follow its customer, since the last that did.
    pub follow_ms: i64,
    /// Traits whose values are other ids of their customer.
    pub traits: Vec<String>,
}

/// How partitions get their state back.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Where copies of the state are kept that shorten a restart; `None`: nowhere.
    pub checkpoint_dir: Option<PathBuf>,
    /// From one copy of a partition to its next.
    pub checkpoint_every: Duration,
    /// Whether the state of partitions that others own is read along.
    pub standby: bool,
}

impl fmt::Debug for Privacy {
    /// The salt stays out of logs and panics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let salt = mask::masked("salt", self.salt.as_deref().unwrap_or_default());
        f.debug_struct("Privacy")
            .field("opt_out_ms", &self.opt_out_ms)
            .field("salt", &salt)
            .field("consent", &self.consent)
            .finish()
    }
}

#[derive(Clone, PartialEq)]
pub struct Http {
    pub listen: SocketAddr,
    /// Who has it may ask for a reload; `None`: nobody may.
    pub token: Option<String>,
}

impl fmt::Debug for Http {
    /// The token stays out of logs and panics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = mask::masked("token", self.token.as_deref().unwrap_or_default());
        f.debug_struct("Http").field("listen", &self.listen).field("token", &token).finish()
    }
}

impl Default for Config {
    /// What an empty file means, on a host without a name.
    fn default() -> Self {
        Config {
            app: App::default(),
            kafka: Kafka::default(),
            source: Sources::default(),
            topics: Topics::default(),
            commit: Commit::default(),
            time: Time::default(),
            features: Features::default(),
            lifecycles: Lifecycles::default(),
            model: ModelConfig::default(),
            scores: Scores::default(),
            outcomes: Outcomes::default(),
            alert: vec![AlertPolicy::default()],
            money: Money::default(),
            privacy: Privacy::default(),
            identity: Identity::default(),
            state: State::default(),
            http: Http::default(),
        }
    }
}

impl Default for App {
    fn default() -> Self {
        App { id: "stagecast".into(), instance: "stagecast-0".into(), workers: 0 }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        let common = BTreeMap::from([("bootstrap.servers".into(), "localhost:9092".into())]);
        Kafka { common, consumer: BTreeMap::new(), producer: BTreeMap::new() }
    }
}

impl fmt::Debug for Kafka {
    /// Secrets stay out of logs and panics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("common", &mask::masked_all(&self.common))
            .field("consumer", &mask::masked_all(&self.consumer))
            .field("producer", &mask::masked_all(&self.producer))
            .finish()
    }
}

impl Default for Sources {
    fn default() -> Self {
        let source = |topic: &str, enabled| SourceConfig {
            enabled,
            topic: topic.into(),
            format: Format::Native,
            data: Format::Native,
            fields: BTreeMap::new(),
            types: BTreeMap::new(),
        };
        Sources {
            clickstream: source("clickstream", true),
            purchase: source("purchase", true),
            support: source("support", true),
            profile: source("profile", false),
        }
    }
}

impl Topics {
    /// The default names, of which four follow the application's id.
    pub fn of_app(app_id: &str) -> Self {
        Topics {
            stage_changes: "stage-changes".into(),
            churn_scores: "churn-scores".into(),
            churn_alerts: "churn-alerts".into(),
            churn_outcomes: "churn-outcomes".into(),
            erasures: format!("{app_id}-erasures"),
            dlq: format!("{app_id}-dlq"),
            state: format!("{app_id}-state"),
            identity: format!("{app_id}-identity"),
            partitions: 12,
            replication: -1,
        }
    }
}

impl Default for Topics {
    fn default() -> Self {
        Topics::of_app(&App::default().id)
    }
}

impl Default for Commit {
    fn default() -> Self {
        Commit {
            interval: Duration::from_millis(100),
            catch_up: Duration::from_secs(1),
            max_records: 500_000,
            max_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Default for Time {
    fn default() -> Self {
        Time { clock: Clock::Wall, grace_ms: MINUTE_MS, max_future_ms: 10 * MINUTE_MS }
    }
}

impl Default for Features {
    fn default() -> Self {
        Features { file: None, dedupe_ms: DAY_MS }
    }
}

impl Default for Lifecycles {
    fn default() -> Self {
        Lifecycles { use_: vec!["retention".into()] }
    }
}

impl Default for Scores {
    fn default() -> Self {
        Scores { min_change: 0.01, rescore_every_ms: DAY_MS, bands: [0.3, 0.7] }
    }
}

impl Default for Outcomes {
    fn default() -> Self {
        Outcomes { sample: 1.0, every_ms: DAY_MS }
    }
}

impl Default for AlertPolicy {
    fn default() -> Self {
        AlertPolicy {
            policy: "churn".into(),
            raise: 0.7,
            clear: 0.5,
            cooldown_ms: 7 * DAY_MS,
            control: 0.1,
            lifecycle: None,
            stage: None,
            segment: BTreeMap::new(),
            min_clv: None,
            action: None,
        }
    }
}

impl Money {
    /// The default rates are stated in the default base currency and mean nothing in another.
    pub fn default_rates(base: &str) -> BTreeMap<String, f64> {
        match base {
            "EUR" => BTreeMap::from([("USD".into(), 0.92)]),
            _ => BTreeMap::new(),
        }
    }
}

impl Default for Money {
    fn default() -> Self {
        Money { base: "EUR".into(), margin: 0.3, rates: Money::default_rates("EUR") }
    }
}

impl Default for Privacy {
    fn default() -> Self {
        Privacy { opt_out_ms: 30 * DAY_MS, salt: None, consent: "consent".into() }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Identity { follow_ms: 365 * DAY_MS, traits: Vec::new() }
    }
}

impl Default for State {
    fn default() -> Self {
        State { checkpoint_dir: None, checkpoint_every: Duration::from_secs(5 * 60), standby: false }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)), token: None }
    }
}
