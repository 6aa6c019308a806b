//! The native events that stagecast reads, one schema for each kind.
//!
//! A schema says what the reader ([`crate::event::native`]) takes; the tests hold the two against each other. What
//! only the reader knows (the time of day, the rates of currencies, bytes instead of characters) is in words.

use serde_json::{Value, json};

use super::Event;
use super::shape::{
    Field, at_least, count, field, list, map, number, object, one_of, optional, or_null, text, text_like,
    within,
};
use crate::event::Source;
use crate::event::names::KNOWN;
use crate::event::native::{MAX_CUSTOMER_ID_BYTES, MAX_EVENT_ID_BYTES, MAX_TRAITS, MAX_TYPE_BYTES};
use crate::time::{MAX_TS, MIN_TS};

/// The schema of one kind of event.
pub fn event(source: Source) -> Event {
    match source {
        Source::Clickstream => clickstream(),
        Source::Purchase => purchase(),
        Source::Support => support(),
        Source::Profile => profile(),
    }
}

fn clickstream() -> Event {
    let own = [
        optional(
            "session_id",
            "The sender's own session. Sessions are counted from the times of clicks.",
            text(),
        ),
        optional("url", "What was looked at.", text()),
        optional("product_id", "The product it is about.", text()),
        optional("campaign", "The campaign that led here.", text()),
    ];
    Event {
        name: "clickstream-event",
        title: "Clickstream event",
        help: "What a customer does on a site or in an app.",
        schema: native(Source::Clickstream, own),
        examples: vec![
            json!({ "event_id": "e-1", "customer_id": "c-42", "type": "product_viewed", "ts": "2026-03-01T09:30:00.125Z",
                    "channel": "web", "session_id": "s-7", "product_id": "tent-01", "url": "/tents/tent-01" }),
            json!({ "customer_id": 42, "type": "quiz_finished", "ts": 1_772_357_400_125_i64 }),
        ],
    }
}

fn purchase() -> Event {
    let item = object([
        optional("product_id", "What was bought.", text()),
        optional("quantity", "How many.", number()),
        optional("price", "For one, in the currency of the order.", number()),
    ]);
    let own = [
        optional("order_id", "The sender's own number of the order.", text()),
        optional(
            "amount",
            "Money, at least 0 and at most 1e12 in the base currency. Orders that were completed or refunded need it.",
            at_least(0.0),
        ),
        optional(
            "currency",
            "ISO 4217, the base currency or one with a rate in [money.rates]; absent: the base currency.",
            text(),
        ),
        optional("items", "What the order consists of. Not read by this version.", list(item)),
    ];
    let mut schema = native(Source::Purchase, own);
    schema["if"] = json!({ "properties": { "type": { "enum": ["order_completed", "order_refunded"] } } });
    schema["then"] = json!({ "properties": { "amount": { "type": "number" } }, "required": ["amount"] });
    Event {
        name: "purchase-event",
        title: "Purchase event",
        help: "Orders, refunds and subscriptions.",
        schema,
        examples: vec![
            json!({ "event_id": "e-2", "customer_id": "c-42", "type": "order_completed", "ts": "2026-03-01T09:41:17Z",
                    "order_id": "o-1", "amount": 149.9, "currency": "EUR",
                    "items": [{ "product_id": "tent-01", "quantity": 1, "price": 149.9 }] }),
            json!({ "customer_id": "c-42", "type": "subscription_cancelled", "ts": "2026-03-02T10:00:00+01:00" }),
        ],
    }
}

fn support() -> Event {
    let own = [
        optional("ticket_id", "The ticket it is about.", text()),
        optional("priority", "As the help desk has it.", text()),
        optional("sentiment", "The customer's mood, -1 bad to 1 good.", within(-1.0, 1.0)),
        optional("csat", "Satisfaction, 1 to 5.", within(1.0, 5.0)),
        optional("nps", "How likely to recommend, 0 to 10.", within(0.0, 10.0)),
        optional(
            "text",
            "English; where `sentiment` is absent the mood is read from it. Kept nowhere.",
            text(),
        ),
    ];
    Event {
        name: "support-event",
        title: "Support event",
        help: "Tickets and ratings.",
        schema: native(Source::Support, own),
        examples: vec![
            json!({ "event_id": "e-3", "customer_id": "c-42", "type": "ticket_opened", "ts": "2026-03-04T15:02:11Z",
                    "ticket_id": "t-9", "priority": "high", "text": "The zip is broken. I am disappointed." }),
            json!({ "customer_id": "c-42", "type": "csat_rated", "ts": "2026-03-06T08:00:00Z", "csat": 4 }),
        ],
    }
}

fn profile() -> Event {
    let value = json!({ "type": ["string", "number", "boolean", "null"] });
    let mut traits = map(value);
    traits["maxProperties"] = MAX_TRAITS.into();
    let own = [
        optional("traits", "Merged into what is known of the customer; `null` removes a trait.", traits),
        optional("from_id", "`customers_merged`: who is folded into `customer_id`.", text()),
    ];
    Event {
        name: "profile-event",
        title: "Profile event",
        help: "What is known of a customer, and the wish to be forgotten.",
        schema: native(Source::Profile, own),
        examples: vec![
            json!({ "customer_id": "c-42", "type": "traits_updated", "ts": "2026-03-01T09:29:58Z",
                    "traits": { "segment": "enterprise", "seats": 12, "vip": true, "trial": null } }),
            json!({ "customer_id": "c-42", "type": "customer_deleted", "ts": "2026-09-01T00:00:00Z", "event_id": "erase-1" }),
        ],
    }
}

/// What every native event has, and then its own.
fn native(source: Source, own: impl IntoIterator<Item = Field>) -> Value {
    object(common(source).into_iter().chain(own))
}

fn common(source: Source) -> Vec<Field> {
    let id = json!({ "type": ["string", "integer"], "minLength": 1, "maxLength": MAX_CUSTOMER_ID_BYTES });
    let mut event_id = text();
    event_id["maxLength"] = MAX_EVENT_ID_BYTES.into();
    vec![
        optional(
            "customer_id",
            "1 to 256 bytes of UTF-8, or an integer, which is read as its decimal text. Absent: the record's key.",
            id,
        ),
        field("type", &types_help(source), text_like(&format!("^[a-z0-9_]{{1,{MAX_TYPE_BYTES}}}$"))),
        optional(
            "ts",
            "Event time: RFC 3339 with any offset, or epoch milliseconds. Absent: the record's timestamp.",
            json!({ "type": ["string", "integer"], "format": "date-time", "minimum": MIN_TS, "maximum": MAX_TS }),
        ),
        optional(
            "event_id",
            "At most 128 bytes. A repeated id of one customer within features.dedupe is dropped.",
            event_id,
        ),
        optional("channel", "What it came through, such as web, app or store.", text()),
    ]
}

fn types_help(source: Source) -> String {
    let known = KNOWN.iter().find(|(of, _)| *of == source).map_or(&[][..], |(_, names)| names);
    let others = match source {
        Source::Profile => "any other type sets traits",
        _ => "any other type counts as activity of this kind",
    };
    format!("snake_case. With a meaning of their own: {}; {others}.", known.join(", "))
}

/// The record in a file of dead letters, which `dlq replay --input` reads again.
pub fn dead_letter_line(reasons: &[&str], headers: Value) -> Event {
    let or_hex = |what: &str| {
        format!("The record's {what} as it came; where it is not UTF-8, the field with _hex has it.")
    };
    Event {
        name: "dead-letter-line",
        title: "Dead letter in a file",
        help: "One line of the dlq.ndjson that `replay` writes.",
        schema: object([
            field("topic", "Where the record came from.", text()),
            field("partition", "Its partition there; 0 of a file.", count(0)),
            field("offset", "Its offset there; of a file, the line, counted from 0.", count(0)),
            field("reason", "Why it cannot be used.", one_of(reasons.iter().copied())),
            field("message", "What was expected where; never the value itself.", text()),
            optional("key", &or_hex("key"), text()),
            optional("value", &or_hex("value"), text()),
            optional("key_hex", "The key's bytes in hexadecimal.", text()),
            optional("value_hex", "The value's bytes in hexadecimal.", text()),
            field("headers", "What the record in the topic of dead letters has as headers.", headers),
        ]),
        examples: vec![json!({
            "topic": "purchase", "partition": 0, "offset": 17, "reason": "missing_amount",
            "message": "/amount is absent, which order_completed needs", "key": null,
            "value": "{\"customer_id\":\"c-42\",\"type\":\"order_completed\",\"ts\":\"2026-03-01T09:41:17Z\"}",
            "headers": {
                "__connect.errors.topic": "purchase", "__connect.errors.partition": "0", "__connect.errors.offset": "17",
                "__connect.errors.exception.class.name": "missing_amount",
                "__connect.errors.exception.message": "/amount is absent, which order_completed needs"
            }
        })],
    }
}

/// A customer's features at an instant, as `replay --features-at` writes them.
pub fn features_line() -> Event {
    let value = or_null(number());
    Event {
        name: "features-line",
        title: "Features at an instant",
        help: "One line of the features.ndjson that `replay --features-at` writes: a customer after everything at or before an instant.",
        schema: object([
            field("customer_id", "Whose they are.", text()),
            field("ts", "The instant.", super::shape::instant()),
            field(
                "features",
                "By name, every feature of the catalogue; `null` is infinite.",
                map(value.clone()),
            ),
            field("stages", "By lifecycle, the current stage.", map(text())),
            field("p_churn", "The score, `null` of who refuses to be scored.", or_null(within(0.0, 1.0))),
        ]),
        examples: vec![json!({
            "customer_id": "c-42", "ts": "2026-03-10T00:00:00.000Z",
            "features": { "orders_30d": 1, "days_since_order": 8.596, "days_since_ticket": null },
            "stages": { "retention": "conversion" }, "p_churn": 0.2731
        })],
    }
}
