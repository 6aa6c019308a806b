//! The keys: what each section holds, what each value must be, and what must hold between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::names;
use crate::time::{DAY_MS, SECOND_MS};

use super::kafka;
use super::layers::{Node, Table, Value};
use super::read::{self, Context, Section};
use super::types::{
    AlertPolicy, App, Clock, Commit, Config, Features, Format, Http, Identity, Lifecycles, ModelConfig,
    Money, Outcomes, Privacy, Scores, SourceConfig, Sources, State, Time, Topics, TraitScalar,
};

/// Kafka's limit on a topic's name, less the longest suffix that makes a topic's name from an application's.
const MAX_APP_ID_BYTES: usize = MAX_NAME_BYTES - "-erasures".len();
const MAX_NAME_BYTES: usize = 249;
/// Leaves room for the suffixes of `transactional.id`.
const MAX_INSTANCE_BYTES: usize = 200;
const MAX_WORKERS: i64 = 1_024;
const MAX_PARTITIONS: i64 = 10_000;
const MAX_POLICY_BYTES: usize = 128;
const TOKEN_BYTES_LEAST: usize = 8;
/// Brokers allow a transaction 15 minutes, and it must last two of these.
const MAX_COMMIT_MS: i64 = 5 * 60 * SECOND_MS;
const MAX_CHECKPOINT_MS: i64 = DAY_MS;
/// The longest span that can be written.
const MAX_SPAN_MS: i64 = 365_250 * DAY_MS;

/// The names that `[source.NAME.fields]` can point at: the fields of the native format.
const FIELDS: [&str; 21] = [
    "customer_id",
    "type",
    "ts",
    "event_id",
    "session_id",
    "channel",
    "url",
    "product_id",
    "campaign",
    "order_id",
    "amount",
    "currency",
    "items",
    "ticket_id",
    "priority",
    "sentiment",
    "csat",
    "nps",
    "text",
    "traits",
    "from_id",
];

/// Reads every section; what is wrong stays behind in the context.
pub fn read(tree: &Table, host: &str, context: &Context) -> Config {
    let mut root = Section::root(tree, context);
    let app = app(&mut root, host);
    let commit = commit(&mut root);
    let kafka = kafka::read(&mut root, &commit);
    let (source, topics) = sources_and_topics(&mut root, &app.id);
    let config = Config {
        app,
        kafka,
        source,
        topics,
        commit,
        time: time(&mut root),
        features: features(&mut root),
        lifecycles: lifecycles(&mut root),
        model: model(&mut root),
        scores: scores(&mut root),
        outcomes: outcomes(&mut root),
        alert: alerts(&mut root),
        money: money(&mut root),
        privacy: privacy(&mut root),
        identity: identity(&mut root),
        state: state(&mut root),
        http: http(&mut root),
    };
    root.finish();
    config
}

fn app(root: &mut Section<'_>, host: &str) -> App {
    let mut section = root.section("app");
    let id = section.get("id", App::default().id, read::kafka_name(MAX_APP_ID_BYTES));
    let app = App {
        instance: section.get("instance", instance_of_host(host, &id), read::kafka_name(MAX_INSTANCE_BYTES)),
        workers: section.get("workers", 0, |node| read::whole(0..=MAX_WORKERS)(node).map(|n| n as usize)),
        id,
    };
    section.finish();
    app
}

/// A host's name with what Kafka does not take replaced; a host without a name is the application's first.
fn instance_of_host(host: &str, app_id: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = host.trim().chars().map(legal).take(MAX_INSTANCE_BYTES).collect();
    match name.trim_matches(['.', '-']) {
        "" => format!("{app_id}-0").chars().take(MAX_INSTANCE_BYTES).collect(),
        _ => name,
    }
}

fn sources_and_topics(root: &mut Section<'_>, app_id: &str) -> (Sources, Topics) {
    let mut section = root.section("source");
    let defaults = Sources::default();
    let mut topics_in_use = TopicsInUse::default();
    let source = Sources {
        clickstream: source(&mut section, "clickstream", defaults.clickstream, &mut topics_in_use),
        purchase: source(&mut section, "purchase", defaults.purchase, &mut topics_in_use),
        support: source(&mut section, "support", defaults.support, &mut topics_in_use),
        profile: source(&mut section, "profile", defaults.profile, &mut topics_in_use),
    };
    section.finish();
    let on = [&source.clickstream, &source.purchase, &source.support];
    if !on.iter().any(|source| source.enabled) {
        root.problem("source", "one of clickstream, purchase and support must be enabled");
    }
    (source, topics(root, app_id, &mut topics_in_use))
}

fn source(
    sources: &mut Section<'_>,
    name: &'static str,
    default: SourceConfig,
    topics_in_use: &mut TopicsInUse,
) -> SourceConfig {
    let mut section = sources.section(name);
    let source = SourceConfig {
        enabled: section.get("enabled", default.enabled, read::flag),
        topic: section.get("topic", default.topic, read::kafka_name(MAX_NAME_BYTES)),
        format: section.get("format", default.format, format),
        data: section.get("data", default.data, data_format),
        fields: section.entries("fields", pointer).unwrap_or_default().into_iter().collect(),
        types: section.entries("types", native_type).unwrap_or_default().into_iter().collect(),
    };
    if source.data != Format::Native && source.format != Format::CloudEvents {
        section.problem("data", "only CloudEvents carry data; remove this or set format = \"cloudevents\"");
    }
    if source.enabled {
        topics_in_use.claim(&section, "topic", &source.topic);
    }
    section.finish();
    source
}

fn format(node: &Node) -> Result<Format, String> {
    let name = read::text(node)?;
    Format::from_name(&name).ok_or_else(|| {
        let known: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
        format!("there is no format `{name}`; there are {}", known.join(", "))
    })
}

fn data_format(node: &Node) -> Result<Format, String> {
    match format(node)? {
        data @ (Format::Native | Format::Segment) => Ok(data),
        other => Err(format!("CloudEvents carry native or segment data here, not {}", other.name())),
    }
}

fn native_type(_foreign: &str, node: &Node) -> Result<String, String> {
    let name = read::text(node)?;
    match names::is_type(&name) {
        true => Ok(name),
        false => Err(format!("`{name}` is no native type, which is snake_case and of at most 64 bytes")),
    }
}

/// RFC 6901: empty for the whole value, otherwise segments that each follow a `/`; `~` only as `~0` and `~1`.
fn pointer(field: &str, node: &Node) -> Result<String, String> {
    if !FIELDS.contains(&field) {
        let nearest = crate::error::did_you_mean(field, FIELDS);
        return Err(format!("events have no such field{nearest}"));
    }
    let pointer = read::text(node)?;
    let escapes_right = pointer.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if (pointer.is_empty() || pointer.starts_with('/')) && escapes_right {
        Ok(pointer)
    } else {
        Err(format!("`{pointer}` is not a JSON pointer; write for example \"/user/id\""))
    }
}

fn topics(root: &mut Section<'_>, app_id: &str, topics_in_use: &mut TopicsInUse) -> Topics {
    let mut section = root.section("topics");
    let default = Topics::of_app(app_id);
    let mut name = |key, default| {
        let name = section.get(key, default, read::kafka_name(MAX_NAME_BYTES));
        topics_in_use.claim(&section, key, &name);
        name
    };
    let mut topics = Topics {
        stage_changes: name("stage_changes", default.stage_changes),
        churn_scores: name("churn_scores", default.churn_scores),
        churn_alerts: name("churn_alerts", default.churn_alerts),
        churn_outcomes: name("churn_outcomes", default.churn_outcomes),
        erasures: name("erasures", default.erasures),
        dlq: name("dlq", default.dlq),
        state: name("state", default.state),
        identity: name("identity", default.identity),
        ..default
    };
    let partitions = |node: &Node| read::whole(1..=MAX_PARTITIONS)(node).map(|n| n as u32);
    topics.partitions = section.get("partitions", topics.partitions, partitions);
    topics.replication = section.get("replication", topics.replication, replication);
    section.finish();
    topics
}

fn replication(node: &Node) -> Result<i16, String> {
    match read::whole(-1..=i64::from(i16::MAX))(node)? {
        0 => Err("expected -1 (the broker's default) or at least 1, found 0".into()),
        replicas => Ok(replicas as i16),
    }
}

/// Every topic has one purpose: a shared one would feed outputs back in, or mix what must stay apart.
#[derive(Default)]
struct TopicsInUse(BTreeMap<String, String>);

impl TopicsInUse {
    fn claim(&mut self, section: &Section<'_>, key: &str, topic: &str) {
        let path = section.path_of(key);
        if let Some(other) = self.0.insert(topic.to_string(), path) {
            section.problem(key, &format!("topic `{topic}` is already `{other}`; every topic needs its own"));
        }
    }
}

fn commit(root: &mut Section<'_>) -> Commit {
    let mut section = root.section("commit");
    let default = Commit::default();
    let span = |node: &Node| {
        let ms = read::span(1..=MAX_COMMIT_MS, "1ms to 5m")(node)?;
        Ok(Duration::from_millis(ms.unsigned_abs()))
    };
    let count = |least, most| move |node: &Node| read::whole(least..=most)(node).map(|n| n as usize);
    let commit = Commit {
        interval: section.get("interval", default.interval, span),
        catch_up: section.get("catch_up", default.catch_up, span),
        max_records: section.get("max_records", default.max_records, count(1, 10_000_000)),
        max_bytes: section.get("max_bytes", default.max_bytes, count(1_024, 1 << 40)),
    };
    section.finish();
    commit
}

fn time(root: &mut Section<'_>) -> Time {
    let mut section = root.section("time");
    let default = Time::default();
    let clock = |node: &Node| match read::text(node)?.as_str() {
        "wall" => Ok(Clock::Wall),
        "events" => Ok(Clock::Events),
        other => Err(format!("expected \"wall\" or \"events\", found `{other}`")),
    };
    let time = Time {
        clock: section.get("clock", default.clock, clock),
        grace_ms: section.get("grace", default.grace_ms, any_span()),
        max_future_ms: section.get("max_future", default.max_future_ms, any_span()),
    };
    section.finish();
    time
}

fn any_span() -> impl Fn(&Node) -> Result<i64, String> {
    read::span(0..=MAX_SPAN_MS, "0 or more")
}

fn features(root: &mut Section<'_>) -> Features {
    let mut section = root.section("features");
    let default = Features::default();
    let context = section.context;
    let features = Features {
        file: section.get("file", default.file, read::path_or_shipped(context)),
        dedupe_ms: section.get("dedupe", default.dedupe_ms, any_span()),
    };
    section.finish();
    features
}

fn lifecycles(root: &mut Section<'_>) -> Lifecycles {
    let mut section = root.section("lifecycles");
    let context = section.context;
    let names = |node: &Node| {
        let names = read::texts(node)?;
        if names.is_empty() {
            return Err("name at least one preset or file".into());
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            return Err(format!("`{twice}` is listed twice"));
        }
        let place = &node.place;
        let resolved = |name: String| match read::looks_like_path(&name) {
            true => context.resolve(place, &name).to_string_lossy().into_owned(),
            false => name,
        };
        Ok(names.into_iter().map(resolved).collect())
    };
    let lifecycles = Lifecycles { use_: section.get("use", Lifecycles::default().use_, names) };
    section.finish();
    lifecycles
}

fn model(root: &mut Section<'_>) -> ModelConfig {
    let mut section = root.section("model");
    let context = section.context;
    let model = ModelConfig {
        path: section.get("path", None, read::path_or_shipped(context)),
        challenger: section.get("challenger", None, read::path_or_shipped(context)),
    };
    section.finish();
    model
}

fn scores(root: &mut Section<'_>) -> Scores {
    let mut section = root.section("scores");
    let default = Scores::default();
    let bands = |node: &Node| match read::numbers(node)?.as_slice() {
        &[low, high] if 0.0 <= low && low < high && high <= 1.0 => Ok([low, high]),
        _ => Err("expected two numbers from 0 to 1, the smaller one first".into()),
    };
    let every = read::span(SECOND_MS..=MAX_SPAN_MS, "1s or more");
    let scores = Scores {
        min_change: section.get("min_change", default.min_change, read::share),
        rescore_every_ms: section.get("rescore_every", default.rescore_every_ms, every),
        bands: section.get("bands", default.bands, bands),
    };
    section.finish();
    scores
}

fn outcomes(root: &mut Section<'_>) -> Outcomes {
    let mut section = root.section("outcomes");
    let default = Outcomes::default();
    let outcomes = Outcomes {
        sample: section.get("sample", default.sample, read::share),
        every_ms: section.get("every", default.every_ms, any_span()),
    };
    section.finish();
    outcomes
}

fn alerts(root: &mut Section<'_>) -> Vec<AlertPolicy> {
    let Some(sections) = root.sections("alert") else { return Config::default().alert };
    let mut names = BTreeSet::new();
    sections
        .into_iter()
        .map(|mut section| {
            let alert = alert(&mut section);
            if !names.insert(alert.policy.clone()) {
                let message = format!("`{}` is the name of another alert; name each its own", alert.policy);
                section.problem("policy", &message);
            }
            section.finish();
            alert
        })
        .collect()
}

fn alert(section: &mut Section<'_>) -> AlertPolicy {
    let default = AlertPolicy::default();
    let some = |node: &Node| read::nonempty(node).map(Some);
    let alert = AlertPolicy {
        policy: section.get("policy", default.policy, policy_name),
        raise: section.get("raise", default.raise, read::share),
        clear: section.get("clear", default.clear, read::share),
        cooldown_ms: section.get("cooldown", default.cooldown_ms, any_span()),
        control: section.get("control", default.control, read::share),
        lifecycle: section.get("lifecycle", None, some),
        stage: section.get("stage", None, some),
        segment: section.entries("segment", trait_value).unwrap_or_default().into_iter().collect(),
        min_clv: section.get("min_clv", None, |node| read::number(node).map(Some)),
        action: section.get("action", None, some),
    };
    check_alert(section, &alert);
    alert
}

fn check_alert(section: &Section<'_>, alert: &AlertPolicy) {
    let thresholds = ["raise", "clear"];
    if alert.stage.is_some() {
        for key in thresholds.into_iter().filter(|key| section.has(key)) {
            section.problem(key, "an alert is about a score or about a stage; remove this or `stage`");
        }
        return;
    }
    if alert.lifecycle.is_some() {
        section.problem("lifecycle", "name the stage as well");
    }
    if alert.clear > alert.raise {
        let key = if section.has("clear") { "clear" } else { "raise" };
        let message = format!("clear ({}) must not be above raise ({})", alert.clear, alert.raise);
        section.problem(key, &message);
    }
}

fn policy_name(node: &Node) -> Result<String, String> {
    let name = read::nonempty(node)?;
    if name.len() > MAX_POLICY_BYTES || name.chars().any(char::is_control) {
        return Err(format!("a policy's name has at most {MAX_POLICY_BYTES} bytes, all printable"));
    }
    Ok(name)
}

fn trait_value(_name: &str, node: &Node) -> Result<TraitScalar, String> {
    match &node.value {
        Value::Text(text) => Ok(TraitScalar::Text(text.as_str().into())),
        Value::Flag(flag) => Ok(TraitScalar::Flag(*flag)),
        Value::Integer(_) | Value::Float(_) => read::number(node).map(TraitScalar::Number),
        _ => Err(format!("expected text, a number or true or false, found {}", node.kind())),
    }
}

fn money(root: &mut Section<'_>) -> Money {
    let mut section = root.section("money");
    let default = Money::default();
    let currency = |node: &Node| {
        let code = read::text(node)?;
        check_currency(&code).map(|()| code)
    };
    let base = section.get("base", default.base, currency);
    let rate = |code: &str, node: &Node| {
        check_currency(code)?;
        match read::number(node)? {
            rate if rate <= 0.0 => Err(format!("expected a number above 0, found {rate}")),
            rate if code == base && rate != 1.0 => Err(format!("{base} is the base currency, worth 1")),
            rate => Ok(rate),
        }
    };
    let rates = section.entries("rates", rate).map(|rates| rates.into_iter().collect());
    let money = Money {
        margin: section.get("margin", default.margin, read::share),
        rates: rates.unwrap_or_else(|| Money::default_rates(&base)),
        base,
    };
    section.finish();
    money
}

fn check_currency(code: &str) -> Result<(), String> {
    if code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(format!("`{code}` is not a currency code: three capital letters such as EUR"))
}

fn identity(root: &mut Section<'_>) -> Identity {
    let mut section = root.section("identity");
    let default = Identity::default();
    let identity = Identity {
        follow_ms: section.get("follow", default.follow_ms, any_span()),
        traits: section.get("traits", default.traits, read::texts),
    };
    section.finish();
    identity
}

fn state(root: &mut Section<'_>) -> State {
    let mut section = root.section("state");
    let default = State::default();
    let context = section.context;
    let every = |node: &Node| {
        let ms = read::span(1..=MAX_CHECKPOINT_MS, "1ms to 1d")(node)?;
        Ok(Duration::from_millis(ms.unsigned_abs()))
    };
    let state = State {
        checkpoint_dir: section.get("checkpoint_dir", default.checkpoint_dir, read::path_or_shipped(context)),
        checkpoint_every: section.get("checkpoint_every", default.checkpoint_every, every),
        standby: section.get("standby", default.standby, read::flag),
    };
    section.finish();
    state
}

fn privacy(root: &mut Section<'_>) -> Privacy {
    let mut section = root.section("privacy");
    let default = Privacy::default();
    let privacy = Privacy {
        opt_out_ms: section.get("opt_out", default.opt_out_ms, any_span()),
        salt: section.get("salt", default.salt, salt),
        consent: section.get("consent", default.consent, read::text),
    };
    section.finish();
    privacy
}

/// Ends at the zero byte that stands between it and the id; empty text stands for the default.
fn salt(node: &Node) -> Result<Option<String>, String> {
    let salt = read::text(node)?;
    match salt.contains('\0') {
        true => Err("a salt holds no zero byte".into()),
        false => Ok(Some(salt).filter(|salt| !salt.is_empty())),
    }
}

/// What a header can carry, and not so short that it can be tried; empty text stands for none.
fn token(text: String) -> Result<Option<String>, String> {
    match text.len() >= TOKEN_BYTES_LEAST && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Some(text)),
        false if text.is_empty() => Ok(None),
        false => {
            Err(format!("a token has at least {TOKEN_BYTES_LEAST} letters, digits or signs, and no spaces"))
        }
    }
}

fn http(root: &mut Section<'_>) -> Http {
    let mut section = root.section("http");
    let default = Http::default();
    let context = section.context;
    let listen = section.get("listen", default.listen, read::address);
    let given = section.get("token", None, |node| read::text(node).and_then(token));
    let in_file = |node: &Node| kafka::secret(&read::text(node)?, &node.place, context).and_then(token);
    let of_file = section.get("token_file", None, in_file);
    if given.is_some() && of_file.is_some() {
        section.problem("token_file", "the token is given by `token` already; remove one of the two");
    }
    let http = Http { listen, token: given.or(of_file) };
    section.finish();
    http
}
