//! The `[kafka]` section: any librdkafka property, except those on which exactly-once stands.
//!
//! Names are evened out per layer ([`normalise`]), so that a property is overridden whichever way it is spelt;
//! values are checked once all layers are in place ([`read`]).

use std::collections::BTreeMap;
use std::io::Read;

use crate::error::did_you_mean;

use super::layers::{Node, Table, Value};
use super::librdkafka::{self, Scope};
use super::mask;
use super::place::{Place, Problems};
use super::read::{Context, Section};
use super::types::{Commit, Kafka};

/// Ends a property's name where its value stands in a file.
const FILE_SUFFIX: &str = ".file";

/// A secret file larger than this is a mistake.
const MAX_SECRET_BYTES: u64 = 1024 * 1024;

impl Kafka {
    /// The properties of a consumer, its own over the common ones.
    pub fn for_consumer(&self) -> BTreeMap<String, String> {
        effective(&self.common, Some(&self.consumer), Scope::Consumer)
    }

    /// The properties of a producer, its own over the common ones.
    pub fn for_producer(&self) -> BTreeMap<String, String> {
        effective(&self.common, Some(&self.producer), Scope::Producer)
    }

    /// The properties of a client that neither consumes nor produces.
    pub fn for_admin(&self) -> BTreeMap<String, String> {
        effective(&self.common, None, Scope::Every)
    }

    /// The properties by which a client would take anyone for the broker, for a warning at start.
    pub fn unverified_tls(&self) -> Vec<&'static str> {
        let off = |name: &str, values: &[&str]| {
            let tables = [&self.common, &self.consumer, &self.producer];
            tables.into_iter().filter_map(|table| table.get(name)).any(|value| is_one_of(values, value))
        };
        const OFF: [(&str, &[&str]); 2] = [
            ("enable.ssl.certificate.verification", FALSE),
            ("ssl.endpoint.identification.algorithm", &["none"]),
        ];
        OFF.into_iter().filter(|(name, values)| off(name, values)).map(|(name, _)| name).collect()
    }
}

fn is_one_of(values: &[&str], value: &str) -> bool {
    values.iter().any(|known| known.eq_ignore_ascii_case(value))
}

/// `own` over those of `common` that concern this kind of client.
fn effective(
    common: &BTreeMap<String, String>,
    own: Option<&BTreeMap<String, String>>,
    client: Scope,
) -> BTreeMap<String, String> {
    let concerns = |name: &str| matches!(librdkafka::scope(name), Some(scope) if scope == Scope::Every || scope == client);
    let mut properties: BTreeMap<_, _> =
        common.iter().filter(|(name, _)| concerns(name)).map(|(k, v)| (k.clone(), v.clone())).collect();
    properties.extend(own.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
    properties
}

/// Brings the properties of one layer to flat tables under their usual names.
pub fn normalise(layer: &mut Table, problems: &Problems) {
    let Some(Node { value: Value::Table(kafka), .. }) = layer.get_mut("kafka") else { return };
    let mut even = Table::new();
    for (key, node) in std::mem::take(kafka) {
        match (key.as_str(), node.value) {
            ("consumer" | "producer", Value::Table(inner)) => {
                let mut own = Table::new();
                inner.into_iter().for_each(|(key, node)| flatten(key, node, &mut own, problems));
                even.insert(key, Node { value: Value::Table(own), ..node });
            }
            (_, value) => flatten(key, Node { value, ..node }, &mut even, problems),
        }
    }
    *kafka = even;
}

/// `bootstrap.servers = …` without quotes is a table of tables in TOML; the dots are brought back here.
fn flatten(name: String, node: Node, into: &mut Table, problems: &Problems) {
    if let Value::Table(inner) = node.value {
        for (key, node) in inner {
            flatten(format!("{name}.{key}"), node, into, problems);
        }
        return;
    }
    let (name, node) = secret_file(with_dots(name, &node.place), node);
    let name = librdkafka::usual_name(&name).to_string();
    if into.contains_key(&name) {
        problems.add(Some(&node.place), format!("`{name}` is given twice, under two of its spellings"));
    }
    into.insert(name, node);
}

/// Environment variables cannot hold dots: `SASL_PASSWORD` stands for `sasl.password`.
fn with_dots(name: String, place: &Place) -> String {
    let is_env = matches!(place, Place::Env(_));
    let spelling =
        |name: &str| librdkafka::spellings().find(|known| known.replace('.', "_") == name.replace('.', "_"));
    match name.strip_suffix("_file").map(|stem| (spelling(&name), spelling(stem))) {
        _ if !is_env => name,
        Some((None, Some(known))) => format!("{known}{FILE_SUFFIX}"),
        _ => spelling(&name).map(str::to_string).unwrap_or(name),
    }
}

/// `X.file` gives `X` from a file, unless librdkafka has a property `X.file` of its own.
fn secret_file(name: String, node: Node) -> (String, Node) {
    let stem = name.strip_suffix(FILE_SUFFIX).map(librdkafka::usual_name);
    match stem.filter(|stem| librdkafka::scope(stem).is_some() && librdkafka::scope(&name).is_none()) {
        None => (name, node),
        Some(stem) => {
            let value = match (node.value, &node.raw) {
                (Value::Text(path), _) => Value::FromFile(path),
                (_, Some(raw)) => Value::FromFile(raw.to_string()),
                _ => Value::Unusable("something else than the path of a file"),
            };
            (stem.to_string(), Node { value, ..node })
        }
    }
}

/// Reads the section and refuses what would break exactly-once.
pub fn read(root: &mut Section<'_>, commit: &Commit) -> Kafka {
    let mut section = root.section("kafka");
    let consumer = section.section("consumer");
    let producer = section.section("producer");
    let mut kafka = Kafka {
        common: properties(&section, Scope::Every),
        consumer: properties(&consumer, Scope::Consumer),
        producer: properties(&producer, Scope::Producer),
    };
    for (name, value) in Kafka::default().common {
        kafka.common.entry(name).or_insert(value);
    }
    for (section, own) in
        [(&section, &kafka.common), (&consumer, &kafka.consumer), (&producer, &kafka.producer)]
    {
        check_timeouts(section, own, &kafka.for_producer(), commit);
    }
    check_group_protocol([&section, &consumer], &kafka.for_consumer());
    kafka
}

fn properties(section: &Section<'_>, table: Scope) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for (name, node) in section.nodes() {
        if table == Scope::Every && matches!(name.as_str(), "consumer" | "producer") {
            continue;
        }
        match property(name, node, table, section.context) {
            Ok(value) => {
                properties.insert(name.clone(), value);
            }
            Err(message) => section.wrong(&node.place, name, &message),
        }
    }
    properties
}

fn property(name: &str, node: &Node, table: Scope, context: &Context) -> Result<String, String> {
    let scope = librdkafka::scope(name).ok_or_else(|| {
        format!("librdkafka has no such property{}", did_you_mean(name, librdkafka::spellings()))
    })?;
    match (table, scope) {
        (Scope::Producer, Scope::Consumer) => return Err("is a property of consumers".into()),
        (Scope::Consumer, Scope::Producer) => return Err("is a property of producers".into()),
        _ => {}
    }
    let value = property_text(node, context)?;
    refuse(name, &value)?;
    Ok(value)
}

/// librdkafka takes text; numbers and booleans become theirs. Never tells the value, which may be secret.
fn property_text(node: &Node, context: &Context) -> Result<String, String> {
    match (&node.value, &node.raw) {
        (Value::Text(text), _) => Ok(text.clone()),
        (Value::FromFile(path), _) => secret(path, &node.place, context),
        (Value::Integer(n), None) => Ok(n.to_string()),
        (Value::Float(x), None) => Ok(x.to_string()),
        (Value::Flag(flag), None) => Ok(flag.to_string()),
        (Value::Table(_), _) | (_, None) => {
            Err(format!("expected text, a number or true or false, found {}", node.kind()))
        }
        (_, Some(raw)) => Ok(raw.to_string()),
    }
}

pub(super) fn secret(path: &str, place: &Place, context: &Context) -> Result<String, String> {
    let path = context.resolve(place, path);
    let told = |error: std::io::Error| format!("cannot read the secret file {}: {error}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(&path).map_err(told)?;
    file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text).map_err(told)?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return Err(format!("the secret file {} is larger than {MAX_SECRET_BYTES} bytes", path.display()));
    }
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("the secret file {} is empty", path.display())),
        text => Ok(text.to_string()),
    }
}

/// What a property may be.
enum Rule {
    /// stagecast sets it; the operator does not.
    Never,
    /// One of these values; the first is the one to name.
    Only(&'static [&'static str]),
    AtMost(u64),
    NotEmpty,
}

/// Yes and no, as librdkafka reads them.
const TRUE: &[&str] = &["true", "t", "1"];
const FALSE: &[&str] = &["false", "f", "0"];

/// Properties that are not free, and why.
const RULES: [(&str, Rule, &str); 18] = {
    use Rule::{AtMost, Never, NotEmpty, Only};
    [
        ("bootstrap.servers", NotEmpty, "name at least one broker as host:port"),
        ("group.id", Never, "it is app.id"),
        ("group.instance.id", Never, "it comes from app.instance"),
        ("transactional.id", Never, "it comes from app.id and app.instance"),
        (
            "enable.auto.commit",
            Only(FALSE),
            "offsets are committed in the transaction that carries the outputs",
        ),
        (
            "enable.auto.offset.store",
            Only(FALSE),
            "offsets are committed in the transaction that carries the outputs",
        ),
        (
            "offset.store.method",
            Only(&["broker"]),
            "offsets are committed in the transaction that carries the outputs",
        ),
        ("isolation.level", Only(&["read_committed"]), "inputs of aborted transactions would be scored"),
        (
            "auto.offset.reset",
            Only(&["earliest", "smallest", "beginning"]),
            "events before the first start would be skipped",
        ),
        ("enable.partition.eof", Never, "stagecast sets it where it needs to see the end of a partition"),
        (
            "partition.assignment.strategy",
            Only(&["range"]),
            "one customer's topics must be read by the same instance",
        ),
        (
            "group.remote.assignor",
            Only(&["range"]),
            "one customer's topics must be read by the same instance",
        ),
        ("enable.idempotence", Only(TRUE), "transactions need it"),
        ("acks", Only(&["all", "-1"]), "transactions need every replica's acknowledgement"),
        ("max.in.flight.requests.per.connection", AtMost(5), "transactions keep their order only up to 5"),
        ("queuing.strategy", Only(&["fifo"]), "transactions keep the order of records"),
        ("delivery.report.only.error", Only(FALSE), "every record of a transaction is accounted for"),
        (
            "allow.auto.create.topics",
            Only(FALSE),
            "a misspelt topic would be made instead of reported; use `stagecast topics create`",
        ),
    ]
};

fn refuse(name: &str, value: &str) -> Result<(), String> {
    let Some((_, rule, reason)) = RULES.iter().find(|(ruled, ..)| *ruled == name) else { return Ok(()) };
    match rule {
        Rule::Never => Err(format!("cannot be configured: {reason}; remove it")),
        Rule::Only(values) if !is_one_of(values, value) => {
            let shown = mask::masked(name, value);
            Err(format!("must be `{}`, found `{shown}`: {reason}", values.first().unwrap_or(&"")))
        }
        Rule::AtMost(limit) if !value.parse::<u64>().is_ok_and(|n| (1..=*limit).contains(&n)) => {
            Err(format!("must be from 1 to {limit}, found `{value}`: {reason}"))
        }
        Rule::NotEmpty if value.trim().is_empty() => Err(format!("must not be empty: {reason}")),
        _ => Ok(()),
    }
}

/// A transaction must outlive the longest wait between commits, and the records in it their delivery.
fn check_timeouts(
    section: &Section<'_>,
    own: &BTreeMap<String, String>,
    producer: &BTreeMap<String, String>,
    commit: &Commit,
) {
    let ms = |properties: &BTreeMap<String, String>, name| {
        properties.get(name).and_then(|value: &String| value.parse::<u128>().ok())
    };
    const TRANSACTION: &str = "transaction.timeout.ms";
    let least = 2 * commit.catch_up.as_millis();
    if let Some(given) = ms(own, TRANSACTION).filter(|given| *given < least) {
        let message = format!("must be at least twice commit.catch_up, {least}, found {given}");
        section.problem(TRANSACTION, &message);
    }
    const DELIVERY: &str = "message.timeout.ms";
    if let (Some(given), Some(limit)) = (ms(own, DELIVERY), ms(producer, TRANSACTION))
        && (given == 0 || given >= limit)
    {
        section.problem(DELIVERY, &format!("must be less than {TRANSACTION}, {limit}, found {given}"));
    }
}

/// The new rebalance protocol leaves these to the broker, and librdkafka refuses them beside it.
fn check_group_protocol(sections: [&Section<'_>; 2], consumer: &BTreeMap<String, String>) {
    if !consumer.get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer")) {
        return;
    }
    for name in [
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "partition.assignment.strategy",
        "group.protocol.type",
    ] {
        for section in sections.iter().filter(|section| section.has(name)) {
            section.problem(name, "belongs to the broker with group.protocol = \"consumer\"; remove it");
        }
    }
}
