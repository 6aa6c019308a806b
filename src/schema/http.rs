//! What the HTTP routes answer, and the OpenAPI document about them.

use serde_json::{Map, Value, json};

use super::outputs::{contributions, features, model};
use super::shape::{
    Field, at_least, count, field, flag, instant, list, map, number, object, one_of, optional, or_null, text,
    within,
};
use super::{Event, inline, outputs};
use crate::config::Config;
use crate::metrics;
use crate::pipeline::emit::band_name;
use crate::pipeline::outbox::Channel;

/// The bodies that are JSON.
pub fn bodies() -> Vec<Event> {
    vec![customer(), kpis(), figures(), health(), readiness(), error()]
}

fn customer() -> Event {
    let in_stage = object([
        field("stage", "The current stage.", text()),
        field("since", "When it was entered.", or_null(instant())),
        field("days", "Days in it.", or_null(number())),
        field("action", "What the lifecycle says is to be done.", or_null(text())),
        field("visits", "How often each stage was entered, of those that were.", map(count(1))),
    ]);
    let value = json!({ "type": ["string", "number", "boolean", "null"] });
    let moment = |name, help| field(name, help, or_null(instant()));
    Event {
        name: "customer",
        title: "A customer",
        help: "What the instance holds of one customer as of `ts`.",
        schema: object([
            field("customer_id", "Who.", text()),
            field("ts", "As of when, in event time.", instant()),
            field("p_churn", "The score; `null` of who refuses to be scored.", or_null(within(0.0, 1.0))),
            field("band", "Where it lies between [scores] bands.", or_null(one_of([0, 1, 2].map(band_name)))),
            field("stages", "By lifecycle.", map(in_stage)),
            contributions(),
            features("By name, every feature of the catalogue; `null` is infinite."),
            field("traits", "What profile events said.", map(value)),
            model(),
            field("sequence", "Stage changes so far.", count(0)),
            moment("last_event_at", "The newest event."),
            moment("evaluated_at", "Up to when it has been looked at."),
            moment("next_evaluation_at", "When silence is looked at next."),
            field(
                "recent",
                "Stage changes since this process took the customer over, the newest first.",
                list(outputs::event(Channel::StageChanges).schema),
            ),
        ]),
        examples: vec![json!({
            "customer_id": "c-42", "ts": "2026-04-15T09:41:17.000Z", "p_churn": 0.8127, "band": "high",
            "stages": { "retention": { "stage": "win-back", "since": "2026-04-15T09:41:17.000Z", "days": 0,
                        "action": "offer a reason to come back", "visits": { "win-back": 1 } } },
            "contributions": [{ "feature": "days_since_event", "value": 38.2, "contribution": 1.21 }],
            "features": { "orders_90d": 1, "days_since_ticket": null }, "traits": { "segment": "enterprise" },
            "model": { "name": "churn", "version": "79ff4ee69db6" }, "sequence": 5,
            "last_event_at": "2026-03-08T04:53:00.000Z", "evaluated_at": "2026-04-15T09:41:17.000Z",
            "next_evaluation_at": "2026-04-16T00:00:00.000Z", "recent": []
        })],
    }
}

/// A share that does not exist while nobody is there to be counted.
fn share(name: &'static str, help: &str) -> Field {
    field(name, help, or_null(within(0.0, 1.0)))
}

fn lifecycle_kpis() -> Value {
    let conversion = object([
        field("from", "The stage left.", text()),
        field("to", "The stage entered.", text()),
        field("moves", "How many moved so.", count(0)),
        share("rate", "Of everyone who was in `from`."),
    ]);
    let stage = object([
        field("stage", "Which stage.", text()),
        field("customers", "Who is in it now.", json!({ "type": "integer" })),
        field("entered", "Moves into it.", count(0)),
        field("left", "Moves out of it.", count(0)),
        field("median_days", "Of the stays that ended in the window.", or_null(at_least(0.0))),
        field(
            "clv_to_date",
            "What its customers have brought in, in the base currency, as of the last count.",
            number(),
        ),
        field("mean_clv_to_date", "The same per customer; `null` of nobody.", or_null(number())),
    ]);
    let figures = || {
        [
            share("churn_rate", "Moves from a customer's stage to a lapsed one."),
            share("retention_rate", "1 less the churn rate."),
            share("win_back_rate", "Moves from a lapsed stage to a customer's."),
            field(
                "conversions",
                "Every pair of stages that is known to have been passed.",
                list(conversion.clone()),
            ),
            field("stages", "In the order of the lifecycle.", list(stage.clone())),
        ]
    };
    let segment = [field("segment", "The value of the trait `segment`.", text())];
    let segment = object(segment.into_iter().chain(figures()));
    let lifecycle = [
        field("lifecycle", "Which lifecycle.", text()),
        field("customer_stages", "The stages that count as being a customer.", list(text())),
        field(
            "lapsed_stages",
            "The stages that count as having gone; those that prospects are in too, for former customers only.",
            list(text()),
        ),
    ];
    let segments = field("segments", "The same of the customers whose traits name a segment.", list(segment));
    object(lifecycle.into_iter().chain(figures()).chain([segments]))
}

fn kpis() -> Event {
    Event {
        name: "kpis",
        title: "Key figures",
        help: "Conversion, retention, churn and win-back by lifecycle, over the customers of this instance.",
        schema: object([
            field("window_days", "Days of event time that the rates are over.", count(1)),
            field("as_of", "The newest event time seen.", or_null(instant())),
            field(
                "observed_since",
                "The first stage change that was observed; `null`: none was, and no rate is known.",
                or_null(instant()),
            ),
            field("lifecycles", "One for each.", list(lifecycle_kpis())),
        ]),
        examples: vec![json!({
            "window_days": 30, "as_of": "2026-04-15T09:41:17.000Z", "observed_since": "2026-03-01T09:30:00.125Z",
            "lifecycles": [{
                "lifecycle": "retention", "customer_stages": ["loyalty", "retention", "conversion"],
                "lapsed_stages": ["win-back"], "churn_rate": 0.2, "retention_rate": 0.8, "win_back_rate": null,
                "conversions": [{ "from": "retention", "to": "win-back", "moves": 2, "rate": 0.33 }],
                "stages": [{
                    "stage": "retention", "customers": 4, "entered": 2, "left": 2, "median_days": 2.01,
                    "clv_to_date": 312.5, "mean_clv_to_date": 78.125
                }],
                "segments": [{
                    "segment": "enterprise", "churn_rate": 0.0, "retention_rate": 1.0, "win_back_rate": null,
                    "conversions": [],
                    "stages": [{
                        "stage": "retention", "customers": 1, "entered": 1, "left": 0, "median_days": null,
                        "clv_to_date": 200.0, "mean_clv_to_date": 200.0
                    }]
                }]
            }]
        })],
    }
}

fn figures() -> Event {
    let totals = |name, help| field(name, help, map(at_least(0.0)));
    let total = |name, help| field(name, help, at_least(0.0));
    let percentiles = |name, help| {
        let seconds =
            |name| field(name, "Seconds; `null` when nothing was measured.", or_null(at_least(0.0)));
        field(name, help, object([seconds("p50"), seconds("p95"), seconds("p99")]))
    };
    let flow = object([
        field("from", "The stage left.", text()),
        field("to", "The stage entered.", text()),
        field("moves", "Since the process started.", at_least(0.0)),
    ]);
    let stage =
        object([field("name", "Which stage.", text()), field("customers", "Who is in it.", number())]);
    let lifecycle = object([
        field("name", "Which lifecycle.", text()),
        field("initial", "Where customers begin.", text()),
        field("stages", "In the order of the lifecycle.", list(stage)),
        field("flows", "Stage changes.", list(flow)),
        field("window_days", "Days of event time that the key figures are over.", count(1)),
        field("kpis", "As in /kpis.", or_null(lifecycle_kpis())),
    ]);
    let drift =
        object([field("feature", "Which.", text()), field("psi", "How far it has drifted.", number())]);
    let quality = object([
        field("auc", "ROC-AUC.", or_null(number())),
        field("brier", "Brier score.", or_null(number())),
        field("labels", "Outcomes counted.", or_null(number())),
        field("drift", "The most drifted first.", list(drift)),
    ]);
    Event {
        name: "figures",
        title: "The figures of the live page",
        help: "What an event `figures` of /live has as data, once a second.",
        schema: object([
            field("ready", "Whether this instance serves.", flag()),
            field("version", "Of the program.", text()),
            field("model", "The model in use.", text()),
            field("event_time", "The newest.", or_null(instant())),
            totals("events", "Input records by result."),
            totals("dead_letters", "By reason."),
            total("customers", "Customers held."),
            total("state_bytes", "Memory of their state."),
            total("scores", "Scores computed."),
            total("alerts", "Alerts raised."),
            total("stage_changes", "Stage changes."),
            totals("transactions", "By outcome."),
            field(
                "per_second",
                "Over the last seconds.",
                object([
                    total("events", "Events."),
                    total("scores", "Scores."),
                    total("transactions", "Transactions."),
                ]),
            ),
            percentiles("scoring", "From an event decoded to its score."),
            percentiles("end_to_end", "From a record's broker timestamp to its commit."),
            totals("lag", "By topic, records not yet consumed."),
            field("score_distribution", "Scores computed, by twentieths.", list(at_least(0.0))),
            field("lifecycles", "One for each.", list(lifecycle)),
            field("quality", "The model on the stream itself.", quality),
        ]),
        examples: Vec::new(),
    }
}

fn health() -> Event {
    Event {
        name: "health",
        title: "Alive",
        help: "Whether this process should be restarted. Kafka being away is no reason.",
        schema: object([
            field("status", "ok or failing.", one_of(["ok", "failing"])),
            optional("reasons", "What fails, one sentence each.", list(text())),
        ]),
        examples: vec![
            json!({ "status": "ok" }),
            json!({ "status": "failing", "reasons": ["worker 1 has been stuck for 61 s"] }),
        ],
    }
}

fn readiness() -> Event {
    Event {
        name: "readiness",
        title: "Ready",
        help: "Whether this instance has joined, has its partitions and has restored them.",
        schema: object([
            field("status", "ready or not ready.", one_of(["ready", "not ready"])),
            optional("missing", "What is missing, one sentence each.", list(text())),
        ]),
        examples: vec![
            json!({ "status": "ready" }),
            json!({ "status": "not ready", "missing": ["worker 1 is restoring its partitions"] }),
        ],
    }
}

fn error() -> Event {
    Event {
        name: "error",
        title: "An error",
        help: "What is wrong, and what to do where there is something to do.",
        schema: object([field("error", "One sentence.", text())]),
        examples: vec![json!({ "error": "no such customer in the partitions of this instance" })],
    }
}

/// The OpenAPI 3.1 document.
pub fn openapi(config: &Config) -> Value {
    let schemas: Map<String, Value> =
        bodies().into_iter().map(|body| (body.name.to_owned(), inline(&body))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "stagecast",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "What a running instance says of itself and of its customers.",
            "description": "Read-only. Every instance answers for the partitions it owns.",
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": format!("http://{}", config.http.listen), "description": "[http] listen" }],
        // Who may ask is decided in front of it: it listens on the loopback address unless told otherwise.
        "security": [],
        "paths": paths(),
        "components": { "schemas": schemas },
    })
}

fn paths() -> Value {
    let html = json!({ "text/html": { "schema": text() } });
    let stream = json!({ "text/event-stream": { "schema": text() } });
    let exposition = json!({ metrics::CONTENT_TYPE: { "schema": text() } });
    let unready = |body: &str, help: &str| ("503", help.to_owned(), of(body));
    json!({
        "/": get("page", "The live page", &[], vec![("200", "One page without external assets.".into(), html)]),
        "/live": get("live", "What the live page is told, as Server-Sent Events", &[], vec![
            ("200", "Events `figures` (the schema `figures`), `change` (a stage change) and `alert` (an alert), \
                     each with JSON as data; a new reader is told the latest first.".into(), stream),
            unready("error", "As many watch already as may."),
        ]),
        "/kpis": get("kpis", "Key figures by lifecycle", &[], vec![("200", "The figures.".into(), of("kpis"))]),
        "/metrics": get("metrics", "Metrics for Prometheus", &[], vec![("200", "Text format.".into(), exposition)]),
        "/healthz": get("health", "Whether the process lives", &[], vec![
            ("200", "It does.".into(), of("health")),
            unready("health", "It should be restarted."),
        ]),
        "/readyz": get("readiness", "Whether the instance serves", &[], vec![
            ("200", "It does.".into(), of("readiness")),
            unready("readiness", "Not yet: it joins, or restores."),
        ]),
        "/customers/{id}": get("customer", "One customer", &[json!({
            "name": "id", "in": "path", "required": true, "description": "The customer id, percent-encoded.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 256 }, "example": "c-42",
        })], vec![
            ("200", "What this instance holds of the customer.".into(), of("customer")),
            ("400", "That is no customer id.".into(), of("error")),
            ("404", "No partition of this instance knows the customer.".into(), of("error")),
            unready("error", "Not all partitions are restored, or a worker takes no questions."),
            ("504", "The workers did not answer in time.".into(), of("error")),
        ]),
    })
}

fn of(body: &str) -> Value {
    json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{body}") } } })
}

fn get(id: &str, summary: &str, parameters: &[Value], answers: Vec<(&str, String, Value)>) -> Value {
    let responses: Map<String, Value> = answers
        .into_iter()
        .map(|(status, help, content)| {
            (status.to_owned(), json!({ "description": help, "content": content }))
        })
        .collect();
    let mut operation = json!({ "operationId": id, "summary": summary, "responses": responses });
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    json!({ "get": operation })
}
