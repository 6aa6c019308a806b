//! The AsyncAPI 3.0 document: the topics of a configuration, what is in them, and what stagecast does with them.

use serde_json::{Map, Value, json};

use super::{Event, inline, inputs, outputs, reasons};
use crate::config::Config;
use crate::event::Source;
use crate::kafka::topics::{Layout, Role};
use crate::pipeline::outbox::Channel;
use crate::setup;

/// One topic with what it carries.
struct Topic<'a> {
    key: &'static str,
    address: &'a str,
    role: Role,
    help: &'static str,
    event: Event,
    headers: Option<Value>,
}

/// The document for the topics that this configuration names.
pub fn asyncapi(config: &Config) -> Value {
    let layout = setup::topics(config);
    let topics: Vec<Topic<'_>> = inputs_of(config).chain(outputs_of(&layout)).collect();
    let each = |of: &dyn Fn(&Topic<'_>) -> (String, Value)| -> Map<String, Value> {
        topics.iter().map(of).collect()
    };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "stagecast",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Customer events in; stage changes, churn scores and alerts out, exactly once. Every record \
                is keyed by customer id. Consumers of the outputs must set isolation.level=read_committed.",
            "license": { "name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": { "kafka": { "host": broker(config), "protocol": "kafka" } },
        "channels": each(&|topic| (topic.key.to_owned(), channel(topic, &layout))),
        "operations": each(&|topic| operation(topic, config)),
        "components": { "messages": each(&|topic| (topic.event.name.to_owned(), message(topic))) },
    })
}

fn inputs_of(config: &Config) -> impl Iterator<Item = Topic<'_>> {
    setup::enabled_sources(config).map(|(source, section)| Topic {
        key: source.name(),
        address: &section.topic,
        role: Role::Input,
        help: match source {
            Source::Clickstream => "What customers do on sites and in apps.",
            Source::Purchase => "Orders, refunds, subscriptions.",
            Source::Support => "Tickets and ratings.",
            Source::Profile => "What is known of customers, and erasures.",
        },
        event: inputs::event(source),
        headers: None,
    })
}

fn outputs_of(layout: &Layout) -> impl Iterator<Item = Topic<'_>> {
    let of = |channel: Channel| {
        let (key, address, role, help) = match channel {
            Channel::StageChanges => (
                "stageChanges",
                &layout.stage_changes,
                Role::Log,
                "Who moved from which stage to which, and why.",
            ),
            Channel::ChurnScores => {
                ("churnScores", &layout.churn_scores, Role::Scores, "The newest score of every customer.")
            }
            Channel::ChurnAlerts => {
                ("churnAlerts", &layout.churn_alerts, Role::Log, "Whom to do something about, and what.")
            }
            Channel::ChurnOutcomes => {
                ("churnOutcomes", &layout.churn_outcomes, Role::Log, "What became of earlier scores.")
            }
            Channel::Erasures => (
                "erasures",
                &layout.erasures,
                Role::Receipts,
                "Receipts of erasures, keyed by hash, kept for good.",
            ),
        };
        let headers = Some(outputs::headers(channel));
        Topic { key, address, role, help, event: outputs::event(channel), headers }
    };
    let letters = outputs::dead_letter_headers(&reasons());
    let dlq = Topic {
        key: "deadLetters",
        address: &layout.dlq,
        role: Role::Log,
        help: "Records that cannot be used, as they came, with the reason in their headers.",
        headers: Some(letters.schema.clone()),
        event: Event { name: "dead-letter", title: "Dead letter", ..letters },
    };
    Channel::ALL.into_iter().map(of).chain([dlq])
}

/// The first of the brokers, without what may be secret.
fn broker(config: &Config) -> &str {
    let servers = config.kafka.common.get("bootstrap.servers").map_or("", |servers| servers.as_str());
    servers.split(',').next().and_then(|one| one.rsplit(['@', '/']).next()).unwrap_or_default().trim()
}

fn channel(topic: &Topic<'_>, layout: &Layout) -> Value {
    let name = topic.event.name;
    let config = topic.role.config(layout.replication);
    let mut settings = Map::new();
    for (key, value) in config.iter().filter(|(key, _)| BOUND.contains(key)) {
        let value = match *key {
            "cleanup.policy" => json!([value]),
            _ => value.parse::<i64>().map_or_else(|_| json!(value), Value::from),
        };
        settings.insert((*key).to_owned(), value);
    }
    json!({
        "address": topic.address,
        "title": topic.event.title,
        "description": topic.help,
        "servers": [{ "$ref": "#/servers/kafka" }],
        "messages": { name: { "$ref": format!("#/components/messages/{name}") } },
        "bindings": { "kafka": { "topicConfiguration": settings, "bindingVersion": "0.5.0" } },
    })
}

/// The topic settings that the Kafka binding knows.
const BOUND: [&str; 4] = ["cleanup.policy", "retention.ms", "delete.retention.ms", "max.message.bytes"];

fn operation(topic: &Topic<'_>, config: &Config) -> (String, Value) {
    let (action, verb) = match topic.role {
        Role::Input => ("receive", "consume"),
        _ => ("send", "write"),
    };
    let (first, rest) = topic.key.split_at(1);
    let mut operation = json!({
        "action": action,
        "title": format!("{verb} {}", topic.address),
        "channel": { "$ref": format!("#/channels/{}", topic.key) },
        "messages": [{ "$ref": format!("#/channels/{}/messages/{}", topic.key, topic.event.name) }],
    });
    if topic.role == Role::Input {
        let group = json!({ "type": "string", "enum": [config.app.id] });
        operation["bindings"] = json!({ "kafka": { "groupId": group, "bindingVersion": "0.5.0" } });
    }
    (format!("{verb}{}{rest}", first.to_uppercase()), operation)
}

fn message(topic: &Topic<'_>) -> Value {
    let event = &topic.event;
    let (key, what) = match event.name {
        "erasure-receipt" => ("customer_hash", "the customer's salted hash"),
        _ => ("customer_id", "the customer id"),
    };
    let mut message = json!({
        "name": event.name,
        "title": event.title,
        "summary": event.help,
        "contentType": "application/json",
        "bindings": { "kafka": {
            "key": { "type": "string", "title": key, "description": format!("UTF-8: {what}.") },
            "bindingVersion": "0.5.0",
        } },
    });
    if let Some(headers) = &topic.headers {
        message["headers"] = headers.clone();
    }
    if event.name == "dead-letter" {
        message["contentType"] = "application/octet-stream".into();
        message["payload"] = json!({ "description": "The record's value as it came." });
        message["examples"] =
            event.examples.iter().map(|e| json!({ "headers": e, "payload": "not json" })).collect();
    } else {
        message["payload"] = inline(event);
        message["examples"] = event.examples.iter().map(|e| json!({ "payload": e })).collect();
    }
    message
}
