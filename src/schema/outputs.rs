//! What stagecast writes: the values of the five output topics, the headers around them, and those of dead letters.

use serde_json::{Value, json};

use super::Event;
use super::shape::{
    Field, always, at_least, count, field, flag, instant, list, map, number, object, one_of, optional,
    or_null, text, text_like, within,
};
use crate::kafka::dead_letter;
use crate::pipeline::emit::{Trigger, band_name};
use crate::pipeline::outbox::Channel;
use crate::pipeline::outcomes::Group;

/// The value that a topic carries.
pub fn event(channel: Channel) -> Event {
    match channel {
        Channel::StageChanges => stage_change(),
        Channel::ChurnScores => churn_score(),
        Channel::ChurnAlerts => churn_alert(),
        Channel::ChurnOutcomes => churn_outcome(),
        Channel::Erasures => erasure_receipt(),
    }
}

fn stage_change() -> Event {
    Event {
        name: "stage-change",
        title: "Stage change",
        help: "A customer has moved from one stage of a lifecycle to another.",
        schema: object([
            customer_id(),
            field("lifecycle", "Which lifecycle.", text()),
            field("lifecycle_version", "The definition's version, or the hash of its text.", text()),
            field("from", "The stage it was in.", text()),
            field("to", "The stage it is in now.", text()),
            field("action", "What the lifecycle says is to be done for customers in `to`.", or_null(text())),
            field("ts", "When a rule's truth flipped, in event time.", instant()),
            field(
                "trigger",
                "What caused it: an event, the passing of time, or another definition of the lifecycle.",
                one_of(Trigger::ALL.map(Trigger::name)),
            ),
            field("event_id", "The id of the event, where one caused it and has an id.", or_null(text())),
            field(
                "rule",
                "The condition that was true, with the stage's reasons that were true as a comment.",
                text(),
            ),
            features("The features that the rule names; `null` is infinite."),
            p_churn(),
            field("stage_days", "Days spent in `from`.", at_least(0.0)),
            field("visit", "The how many-th stay in `to` this is.", count(1)),
            field("sequence", "Stage changes of this customer so far, without gaps.", count(1)),
        ]),
        examples: vec![json!({
            "customer_id": "c-42", "lifecycle": "retention", "lifecycle_version": "cf67c26a48c8",
            "from": "retention", "to": "win-back", "action": "offer a reason to come back",
            "ts": "2026-04-15T09:41:17.000Z", "trigger": "silence", "event_id": null,
            "rule": "days_since_order >= 45", "features": { "days_since_order": 45 },
            "p_churn": 0.8127, "stage_days": 44.6, "visit": 1, "sequence": 5
        })],
    }
}

fn churn_score() -> Event {
    Event {
        name: "churn-score",
        title: "Churn score",
        help: "The newest score of a customer, with what it is made of.",
        schema: object([
            customer_id(),
            field("ts", "As of when, in event time.", instant()),
            field("p_churn", "Probability of churn as the model defines it.", within(0.0, 1.0)),
            field("band", "Where the score lies between [scores] bands.", one_of([0, 1, 2].map(band_name))),
            stages(),
            contributions(),
            model(),
            clv_to_date(),
            field(
                "clv_365d",
                "Discounted margin expected of the next year; `null` where the model does not foretell it, and of who never ordered.",
                or_null(at_least(0.0)),
            ),
            field(
                "p_no_order",
                "Probability of no order within the horizon, from the rhythm of orders alone; `null` where the model does not foretell it, and of who never ordered.",
                or_null(within(0.0, 1.0)),
            ),
        ]),
        examples: vec![json!({
            "customer_id": "c-42", "ts": "2026-04-15T09:41:17.000Z", "p_churn": 0.8127, "band": "high",
            "stages": { "retention": "win-back" },
            "contributions": [
                { "feature": "days_since_event", "value": 38.2, "contribution": 1.21 },
                { "feature": "intercept", "value": 1, "contribution": 0.44 },
                { "feature": "orders_lifetime", "value": 4, "contribution": -0.18 }
            ],
            "model": { "name": "churn", "version": "79ff4ee69db6" },
            "clv_to_date": 84.3, "clv_365d": 31.9, "p_no_order": 0.74
        })],
    }
}

fn churn_alert() -> Event {
    let change = object([
        field("feature", "Which feature.", text()),
        field("from", "Its value; `null` is infinite.", or_null(number())),
        field("to", "The value at which the score would be under the threshold.", or_null(number())),
    ]);
    Event {
        name: "churn-alert",
        title: "Alert",
        help: "An alert policy asks for something to be done about a customer.",
        schema: object([
            field(
                "alert_id",
                "The same whenever the same alert is computed again.",
                text_like("^[0-9a-f]{32}$"),
            ),
            customer_id(),
            field("ts", "When it fired, in event time.", instant()),
            field(
                "kind",
                "Whether the policy is about the score or about a stage.",
                one_of(["churn_risk", "stage"]),
            ),
            field("p_churn", "Probability of churn.", within(0.0, 1.0)),
            field("previous", "The score before; `null` at the first scoring.", or_null(within(0.0, 1.0))),
            stages(),
            contributions(),
            field(
                "counterfactual",
                "The smallest single change that would bring the score under the threshold, measured in standard deviations of what the model makes of the feature; `null` where there is none.",
                or_null(change),
            ),
            clv_to_date(),
            field("value_at_risk", "`clv_to_date`, not below 0, times `p_churn`.", or_null(at_least(0.0))),
            field("action", "What is to be done, where policy or stage say so.", or_null(text())),
            field(
                "group",
                "Leave the control group alone: comparing both groups is what measures a campaign.",
                one_of([Group::Treatment, Group::Control].map(Group::name)),
            ),
            field("policy", "Which policy.", text()),
        ]),
        examples: vec![json!({
            "alert_id": "818ab2a4c479864119bace28d8b5eeea", "customer_id": "c-42", "ts": "2026-04-15T09:41:17.000Z",
            "kind": "churn_risk", "p_churn": 0.8127, "previous": 0.6904, "stages": { "retention": "win-back" },
            "contributions": [{ "feature": "days_since_event", "value": 38.2, "contribution": 1.21 }],
            "counterfactual": { "feature": "days_since_event", "from": 38.2, "to": 20.4 },
            "clv_to_date": 84.3, "value_at_risk": 68.51, "action": "offer a reason to come back",
            "group": "treatment", "policy": "churn"
        })],
    }
}

fn churn_outcome() -> Event {
    Event {
        name: "churn-outcome",
        title: "Outcome of a score",
        help: "The horizon of an earlier score has passed: what became of the customer.",
        schema: object([
            customer_id(),
            field("scored_at", "When the score was made, in event time.", instant()),
            field("p_churn", "What it said, to 5 decimals.", within(0.0, 1.0)),
            field("churned", "Whether the customer churned within the horizon.", flag()),
            field("horizon", "How far the score looked ahead, such as 30d.", text()),
            field("stage", "The stage in the first lifecycle at scoring.", or_null(text())),
            field(
                "group",
                "The group of the first alert policy about a score.",
                or_null(one_of([Group::Treatment, Group::Control].map(Group::name))),
            ),
            model(),
        ]),
        examples: vec![json!({
            "customer_id": "c-42", "scored_at": "2026-04-15T09:41:17.000Z", "p_churn": 0.8127, "churned": true,
            "horizon": "30d", "stage": "win-back", "group": "treatment",
            "model": { "name": "churn", "version": "79ff4ee69db6" }
        })],
    }
}

fn erasure_receipt() -> Event {
    Event {
        name: "erasure-receipt",
        title: "Receipt of an erasure",
        help: "A customer was forgotten. Says so without saying who.",
        schema: object([
            field(
                "customer_hash",
                "SHA-256 of salt, a zero byte and id, the first 128 bits.",
                text_like("^[0-9a-f]{32}$"),
            ),
            field("ts", "When, in event time.", instant()),
            field("known", "Whether there was anything to forget.", flag()),
            field(
                "opt_out_until",
                "Events with a time before this are dropped; `null`: none are.",
                or_null(instant()),
            ),
        ]),
        examples: vec![json!({
            "customer_hash": "3d7dc543db81d46e8bae534781effbdc", "ts": "2026-03-03T00:00:00.000Z", "known": true,
            "opt_out_until": "2026-04-02T00:00:00.000Z"
        })],
    }
}

fn customer_id() -> Field {
    field("customer_id", "Who; also the record's key.", text())
}

fn p_churn() -> Field {
    field("p_churn", "The score, `null` of who refuses to be scored.", or_null(within(0.0, 1.0)))
}

fn clv_to_date() -> Field {
    field("clv_to_date", "Revenue less refunds, times the margin.", or_null(number()))
}

fn stages() -> Field {
    field("stages", "By lifecycle, the current stage.", map(text()))
}

pub(super) fn features(help: &str) -> Field {
    field("features", help, map(or_null(number())))
}

pub(super) fn contributions() -> Field {
    let one = object([
        field("feature", "Which feature, or `intercept`.", text()),
        field("value", "Its value; `null` is infinite.", or_null(number())),
        field("contribution", "What it adds to the logit of the score.", number()),
    ]);
    let help = "The largest first; features that add nothing are left out. They add up exactly to the logit.";
    field("contributions", help, list(one))
}

pub(super) fn model() -> Field {
    let model = object([field("name", "Its name.", text()), field("version", "Its version.", text())]);
    field("model", "Which model scored.", model)
}

/// The CloudEvents headers of a record on this channel. A record that only takes back an earlier one has none.
pub fn headers(channel: Channel) -> Value {
    object([
        field("ce_id", "The same whenever the same output is computed again.", text_like("^[0-9a-f]{32}$")),
        field("ce_type", "What kind of event.", always(channel.event_type())),
        field("ce_source", "Which application wrote it.", text()),
        field("ce_time", "The event time of the output.", instant()),
        field("ce_specversion", "CloudEvents, binary mode.", always("1.0")),
        field("content-type", "Of the value.", always("application/json")),
    ])
}

/// The headers of a dead letter, as Kafka Connect names them, after those that the record came with.
pub fn dead_letter_headers(reasons: &[&str]) -> Event {
    Event {
        name: "dead-letter-headers",
        title: "Headers of a dead letter",
        help: "Key, value and other headers of a dead letter are those of the record as it came.",
        schema: object([
            field(dead_letter::TOPIC, "Where the record came from.", text()),
            field(dead_letter::PARTITION, "Its partition there.", text_like("^[0-9]+$")),
            field(dead_letter::OFFSET, "Its offset there.", text_like("^[0-9]+$")),
            field(dead_letter::CLASS, "Why it cannot be used.", one_of(reasons.iter().copied())),
            field(dead_letter::MESSAGE, "What was expected where; never the value itself.", text()),
            optional(
                dead_letter::TIMESTAMP,
                "The record's own timestamp, in milliseconds: the event time where its value tells none.",
                text_like("^-?[0-9]+$"),
            ),
        ]),
        examples: vec![json!({
            dead_letter::TOPIC: "purchase", dead_letter::PARTITION: "3", dead_letter::OFFSET: "17",
            dead_letter::CLASS: "missing_amount",
            dead_letter::MESSAGE: "/amount is absent, which order_completed needs",
            dead_letter::TIMESTAMP: "1772702157000"
        })],
    }
}
