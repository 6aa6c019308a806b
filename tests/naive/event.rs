//! What happened to one customer, and what its money is worth. Section 1 of the contract; decides nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stagecast::time::{Ts, format_rfc3339};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Clickstream,
    Purchase,
    Support,
    Profile,
}

impl Kind {
    /// The source's name, which is also its default topic.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Clickstream => "clickstream",
            Kind::Purchase => "purchase",
            Kind::Support => "support",
            Kind::Profile => "profile",
        }
    }
}

/// One event of one customer. Fields that its kind does not have stay empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Ev {
    pub kind: Kind,
    pub type_: String,
    pub ts: Ts,
    pub id: Option<String>,
    pub amount: Option<f64>,
    pub currency: Option<String>,
    pub sentiment: Option<f64>,
    pub csat: Option<f64>,
    /// `Value::Null` removes a trait.
    pub traits: BTreeMap<String, Value>,
}

impl Ev {
    pub fn new(kind: Kind, type_: &str, ts: Ts) -> Self {
        Ev {
            kind,
            type_: type_.to_owned(),
            ts,
            id: None,
            amount: None,
            currency: None,
            sentiment: None,
            csat: None,
            traits: BTreeMap::new(),
        }
    }

    pub fn click(ts: Ts) -> Self {
        Ev::new(Kind::Clickstream, "page_viewed", ts)
    }

    pub fn order(ts: Ts, amount: f64) -> Self {
        Ev { amount: Some(amount), ..Ev::new(Kind::Purchase, "order_completed", ts) }
    }

    pub fn support(type_: &str, ts: Ts) -> Self {
        Ev::new(Kind::Support, type_, ts)
    }

    pub fn with_id(self, id: &str) -> Self {
        Ev { id: Some(id.to_owned()), ..self }
    }

    /// Profile events tell about a customer; only the other three kinds are something the customer did.
    pub fn is_activity(&self) -> bool {
        self.kind != Kind::Profile
    }

    pub fn is(&self, kind: Kind, type_: &str) -> bool {
        self.kind == kind && self.type_ == type_
    }

    /// The record's value in the native format, for driving the real pipeline with the same history.
    pub fn to_json(&self, customer: &str) -> Value {
        let mut o = Map::new();
        o.insert("customer_id".into(), json!(customer));
        o.insert("type".into(), json!(self.type_));
        o.insert("ts".into(), json!(format_rfc3339(self.ts).as_str()));
        let optional = [
            ("event_id", self.id.as_ref().map(|v| json!(v))),
            ("amount", self.amount.map(|v| json!(v))),
            ("currency", self.currency.as_ref().map(|v| json!(v))),
            ("sentiment", self.sentiment.map(|v| json!(v))),
            ("csat", self.csat.map(|v| json!(v))),
            ("traits", (self.kind == Kind::Profile).then(|| json!(self.traits))),
        ];
        o.extend(optional.into_iter().filter_map(|(name, v)| v.map(|v| (name.to_owned(), v))));
        Value::Object(o)
    }
}

/// `[money]` of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Money {
    pub base: String,
    pub margin: f64,
    pub rates: BTreeMap<String, f64>,
}

impl Default for Money {
    fn default() -> Self {
        Money { base: "EUR".into(), margin: 0.3, rates: BTreeMap::new() }
    }
}

impl Money {
    /// The amount of an event in millionths of the base currency, rounded once, so that sums are exact and
    /// do not depend on the order of arrival.
    pub fn micros(&self, e: &Ev) -> i64 {
        let rate = match e.currency.as_deref() {
            Some(currency) if currency != self.base => self.rates[currency],
            _ => 1.0,
        };
        micros(e.amount.unwrap_or_default() * rate)
    }
}

/// A number in millionths.
pub fn micros(value: f64) -> i64 {
    (value * 1e6).round() as i64
}
