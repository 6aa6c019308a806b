//! The native format: one JSON object per record, read in one pass without copying.
//!
//! Owns every rule about the fields of a native event. Checks the fields that the event's kind knows and skips
//! all others.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{Fields, Key, digits, object, read, read_into};
use super::money::{MAX_AMOUNT, Money};
use super::place::pointer_token;
use super::sentiment::sentiment;
use super::{Event, Field, Merge, Numbers, ProfileChange, Reason, Reject, Source};
use crate::pipeline::facts::TraitValue;
use crate::time::{MAX_TS, MIN_TS, Ts, format_rfc3339, parse_rfc3339};

pub const MAX_CUSTOMER_ID_BYTES: usize = 256;
pub const MAX_TYPE_BYTES: usize = 64;
pub const MAX_EVENT_ID_BYTES: usize = 128;
/// The profile event by which two customers become one.
pub(super) const MERGE: &str = "customers_merged";
/// The profile event by which a customer is forgotten.
pub(super) const ERASURE: &str = "customer_deleted";
/// Traits of one profile event.
pub const MAX_TRAITS: usize = 256;
/// Of a trait's name, and of its value where that is text: a customer's traits are in its state, which is written
/// whole whenever it changes.
pub const MAX_TRAIT_NAME_BYTES: usize = 256;
pub const MAX_TRAIT_TEXT_BYTES: usize = 4_096;

/// What a record brings along besides its value.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    pub source: Source,
    /// The record key: the customer id where the value has none.
    pub key: Option<&'a [u8]>,
    /// The record timestamp: the event time where the value has none.
    pub timestamp: Option<Ts>,
    /// Event times after this instant are refused (`clock = "wall"`: now + `max_future`).
    pub latest: Option<Ts>,
}

/// Reads one record.
pub fn decode<'a>(value: &'a [u8], envelope: &Envelope<'a>, money: &Money) -> Result<Event<'a>, Reject> {
    let mut raw = Raw::default();
    let json = object(value)?;
    read_into(json, &mut raw)?;
    if let (Scalar::Float(_), _) | (_, Scalar::Float(_)) = (&raw.customer_id, &raw.from_id) {
        long_ids(json, &mut raw)?;
    }
    let source = envelope.source;
    let customer_id = customer_id(raw.customer_id, envelope.key)?;
    let name = event_type(raw.kind)?;
    if source != Source::Profile && (name == ERASURE || name == MERGE) {
        // As a click of a kind of its own it would be lost for what it asks.
        let message = format!("/type: {name} is for the profile topic");
        return Err(Reject::new(Reason::UnsupportedType, message));
    }
    let ts = event_time(raw.ts, envelope)?;
    let event_id = optional_text(raw.event_id, "/event_id", Reason::InvalidEventId, MAX_EVENT_ID_BYTES)?;
    // Who writes an empty one has none. It must not make a repetition of all such events.
    let event_id = event_id.filter(|id| !id.is_empty());
    check_text(&raw.channel, "/channel")?;
    let channel = match raw.channel {
        Scalar::Text(channel) => Some(channel),
        _ => None,
    };
    let mut numbers = Numbers::default();
    let mut profile = None;
    match source {
        Source::Clickstream => {
            check_texts(
                raw.no_text,
                &[
                    (Known::SessionId, "/session_id"),
                    (Known::Url, "/url"),
                    (Known::ProductId, "/product_id"),
                    (Known::Campaign, "/campaign"),
                ],
            )?;
        }
        Source::Purchase => {
            check_texts(raw.no_text, &[(Known::OrderId, "/order_id")])?;
            if let Some(amount) = amount(&name, raw.amount, raw.currency, money)? {
                numbers.set(Field::Amount, amount);
            }
        }
        Source::Support => {
            check_texts(raw.no_text, &[(Known::TicketId, "/ticket_id"), (Known::Priority, "/priority")])?;
            check_text(&raw.text, "/text")?;
            for (field, value, range) in [
                (Field::Sentiment, raw.sentiment, (-1.0, 1.0)),
                (Field::Csat, raw.csat, (1.0, 5.0)),
                (Field::Nps, raw.nps, (0.0, 10.0)),
            ] {
                if let Some(number) = bounded(value, field, range)? {
                    numbers.set(field, number);
                }
            }
            if let (None, Scalar::Text(text)) = (numbers.get(Field::Sentiment), &raw.text)
                && let Some(mood) = sentiment(text)
            {
                numbers.set(Field::Sentiment, mood);
            }
        }
        Source::Profile if name == MERGE => {
            let from_id = from_id(raw.from_id)?;
            profile = Some(Box::new(merge(&customer_id, &from_id, "/from_id")?));
        }
        Source::Profile => profile = profile_change(&name, raw.traits)?.map(Box::new),
    }
    Ok(Event { source, customer_id, name, ts, event_id, numbers, profile, channel })
}

/// The object's known fields, as they came.
#[derive(Default)]
struct Raw<'a> {
    customer_id: Scalar<'a>,
    from_id: Scalar<'a>,
    kind: Scalar<'a>,
    ts: Scalar<'a>,
    event_id: Scalar<'a>,
    channel: Scalar<'a>,
    amount: Scalar<'a>,
    currency: Scalar<'a>,
    sentiment: Scalar<'a>,
    csat: Scalar<'a>,
    nps: Scalar<'a>,
    text: Scalar<'a>,
    traits: TraitMap<'a>,
    /// Bits of [`Known`]: the fields that came and are neither text nor `null`.
    no_text: u32,
}

/// The fields by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Known {
    CustomerId,
    FromId,
    Kind,
    Ts,
    EventId,
    Channel,
    SessionId,
    Url,
    ProductId,
    Campaign,
    OrderId,
    Amount,
    Currency,
    TicketId,
    Priority,
    Sentiment,
    Csat,
    Nps,
    Text,
    Traits,
    /// Any other.
    Skipped,
}

impl Known {
    fn from_name(name: &str) -> Known {
        match name {
            "customer_id" => Known::CustomerId,
            "from_id" => Known::FromId,
            "type" => Known::Kind,
            "ts" => Known::Ts,
            "event_id" => Known::EventId,
            "channel" => Known::Channel,
            "session_id" => Known::SessionId,
            "url" => Known::Url,
            "product_id" => Known::ProductId,
            "campaign" => Known::Campaign,
            "order_id" => Known::OrderId,
            "amount" => Known::Amount,
            "currency" => Known::Currency,
            "ticket_id" => Known::TicketId,
            "priority" => Known::Priority,
            "sentiment" => Known::Sentiment,
            "csat" => Known::Csat,
            "nps" => Known::Nps,
            "text" => Known::Text,
            "traits" => Known::Traits,
            _ => Known::Skipped,
        }
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Known;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Known, E> {
                Ok(Known::from_name(name))
            }
        }
        deserializer.deserialize_identifier(Name)
    }
}

/// Filled in where it is: there are many fields, and most of an event's are absent.
impl<'de> Fields<'de> for Raw<'de> {
    type Name = Known;

    fn bit(name: Known) -> u32 {
        if name == Known::Skipped { 0 } else { name.bit() }
    }

    fn fill<A: MapAccess<'de>>(&mut self, name: Known, map: &mut A) -> Result<(), A::Error> {
        let scalar = match name {
            Known::CustomerId => &mut self.customer_id,
            Known::FromId => &mut self.from_id,
            Known::Kind => &mut self.kind,
            Known::Ts => &mut self.ts,
            Known::EventId => &mut self.event_id,
            Known::Channel => &mut self.channel,
            Known::Amount => &mut self.amount,
            Known::Currency => &mut self.currency,
            Known::Sentiment => &mut self.sentiment,
            Known::Csat => &mut self.csat,
            Known::Nps => &mut self.nps,
            Known::Text => &mut self.text,
            Known::SessionId
            | Known::Url
            | Known::ProductId
            | Known::Campaign
            | Known::OrderId
            | Known::TicketId
            | Known::Priority => {
                if !map.next_value::<IsText>()?.0 {
                    self.no_text |= name.bit();
                }
                return Ok(());
            }
            Known::Traits => {
                self.traits = map.next_value()?;
                return Ok(());
            }
            Known::Skipped => return map.next_value::<IgnoredAny>().map(drop),
        };
        *scalar = map.next_value()?;
        Ok(())
    }
}

/// Ids may be integers of any length. Beyond 64 bits they have been read as floats: their digits are read anew.
fn long_ids<'a>(json: &'a [u8], raw: &mut Raw<'a>) -> Result<(), Reject> {
    #[derive(Deserialize)]
    struct Ids<'a> {
        #[serde(borrow)]
        customer_id: Option<&'a RawValue>,
        #[serde(borrow)]
        from_id: Option<&'a RawValue>,
    }
    let ids: Ids<'a> = read(json)?;
    for (scalar, id) in [(&mut raw.customer_id, ids.customer_id), (&mut raw.from_id, ids.from_id)] {
        if let (Scalar::Float(_), Some(digits)) = (&*scalar, id.and_then(digits)) {
            *scalar = Scalar::Text(Cow::Borrowed(digits));
        }
    }
    Ok(())
}

/// Whether a value is text or `null`, for fields of which nothing else is asked.
struct IsText(bool);

impl<'de> Deserialize<'de> for IsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IsTextVisitor)
    }
}

struct IsTextVisitor;

impl<'de> Visitor<'de> for IsTextVisitor {
    type Value = IsText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_str<E>(self, _: &str) -> Result<IsText, E> {
        Ok(IsText(true))
    }
    fn visit_unit<E>(self) -> Result<IsText, E> {
        Ok(IsText(true))
    }
    fn visit_i64<E>(self, _: i64) -> Result<IsText, E> {
        Ok(IsText(false))
    }
    fn visit_u64<E>(self, _: u64) -> Result<IsText, E> {
        Ok(IsText(false))
    }
    fn visit_f64<E>(self, _: f64) -> Result<IsText, E> {
        Ok(IsText(false))
    }
    fn visit_bool<E>(self, _: bool) -> Result<IsText, E> {
        Ok(IsText(false))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<IsText, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(IsText(false))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IsText, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(IsText(false))
    }
}

/// A JSON value as far as a flat field needs it. `null` counts as absent.
#[derive(Debug, Default)]
enum Scalar<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Flag(bool),
    Nested,
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(v)))
    }
    fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(v.to_owned())))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(v).map_or(Scalar::Unsigned(v), Scalar::Integer))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Float(v))
    }
    fn visit_bool<E>(self, v: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Flag(v))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Absent)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }
}

/// The `traits` of a profile event: entries of a flat object, in the order they came.
#[derive(Debug, Default)]
enum TraitMap<'a> {
    #[default]
    Absent,
    Entries(Vec<(Cow<'a, str>, Scalar<'a>)>),
    NotAnObject,
}

impl<'de: 'a, 'a> Deserialize<'de> for TraitMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TraitMapVisitor)
    }
}

struct TraitMapVisitor;

impl<'de> Visitor<'de> for TraitMapVisitor {
    type Value = TraitMap<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a flat object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((Key(key), value)) = map.next_entry::<Key<'de>, Scalar<'de>>()? {
            // One more than may be, so that it shows.
            if entries.len() <= MAX_TRAITS {
                entries.push((key, value));
            }
        }
        Ok(TraitMap::Entries(entries))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(TraitMap::Absent)
    }
    fn visit_borrowed_str<E>(self, _: &'de str) -> Result<Self::Value, E> {
        Ok(TraitMap::NotAnObject)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(TraitMap::NotAnObject)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(TraitMap::NotAnObject)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(TraitMap::NotAnObject)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(TraitMap::NotAnObject)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(TraitMap::NotAnObject)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(TraitMap::NotAnObject)
    }
}

fn customer_id<'a>(field: Scalar<'a>, key: Option<&'a [u8]>) -> Result<Cow<'a, str>, Reject> {
    let invalid = |at: &str| {
        let message =
            format!("{at}: expected 1 to {MAX_CUSTOMER_ID_BYTES} bytes of UTF-8 text or an integer");
        Reject::new(Reason::InvalidCustomerId, message)
    };
    let (id, at) = match field {
        Scalar::Text(text) => (text, "/customer_id"),
        Scalar::Integer(n) => (Cow::Owned(n.to_string()), "/customer_id"),
        Scalar::Unsigned(n) => (Cow::Owned(n.to_string()), "/customer_id"),
        Scalar::Absent => match key {
            Some(key) => {
                (Cow::Borrowed(std::str::from_utf8(key).map_err(|_| invalid("record key"))?), "record key")
            }
            None => {
                return Err(Reject::new(
                    Reason::MissingCustomerId,
                    "/customer_id is absent and so is the record key",
                ));
            }
        },
        Scalar::Float(_) | Scalar::Flag(_) | Scalar::Nested => return Err(invalid("/customer_id")),
    };
    if (1..=MAX_CUSTOMER_ID_BYTES).contains(&id.len()) { Ok(id) } else { Err(invalid(at)) }
}

fn event_type(field: Scalar<'_>) -> Result<Cow<'_, str>, Reject> {
    let snake = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    match field {
        Scalar::Absent => Err(Reject::new(Reason::MissingType, "/type is absent")),
        Scalar::Text(t) if (1..=MAX_TYPE_BYTES).contains(&t.len()) && t.bytes().all(snake) => Ok(t),
        _ => {
            let message = format!("/type: expected snake_case text of at most {MAX_TYPE_BYTES} bytes");
            Err(Reject::new(Reason::InvalidType, message))
        }
    }
}

fn event_time(field: Scalar<'_>, envelope: &Envelope<'_>) -> Result<Ts, Reject> {
    let invalid = || {
        Reject::new(
            Reason::InvalidTs,
            "/ts: expected an RFC 3339 instant with an offset, or integer epoch milliseconds",
        )
    };
    let ts = match field {
        Scalar::Text(text) => parse_rfc3339(&text).ok_or_else(invalid)?,
        Scalar::Integer(ms) if (MIN_TS..=MAX_TS).contains(&ms) => ms,
        Scalar::Absent => envelope
            .timestamp
            .ok_or_else(|| Reject::new(Reason::MissingTs, "/ts is absent and so is the record timestamp"))?,
        _ => return Err(invalid()),
    };
    match envelope.latest {
        Some(latest) if ts > latest => {
            // By how much would depend on when this is read, and a replay is to say the same again.
            let at = format_rfc3339(ts);
            let message = format!("/ts: {at} lies beyond time.max_future past the wall clock");
            Err(Reject::new(Reason::FutureTs, message))
        }
        _ => Ok(ts),
    }
}

fn optional_text<'a>(
    field: Scalar<'a>,
    at: &str,
    reason: Reason,
    max_bytes: usize,
) -> Result<Option<Cow<'a, str>>, Reject> {
    match field {
        Scalar::Absent => Ok(None),
        Scalar::Text(text) if text.len() <= max_bytes => Ok(Some(text)),
        _ => Err(Reject::new(reason, format!("{at}: expected text of at most {max_bytes} bytes"))),
    }
}

/// Fields of which only text is asked, and where they stand. `no_text`: see [`Raw`].
fn check_texts(no_text: u32, fields: &[(Known, &str)]) -> Result<(), Reject> {
    match fields.iter().find(|(field, _)| no_text & field.bit() != 0) {
        None => Ok(()),
        Some((_, at)) => Err(expected_text(at)),
    }
}

fn expected_text(at: &str) -> Reject {
    Reject::new(Reason::InvalidField, format!("{at}: expected text"))
}

fn check_text(field: &Scalar<'_>, at: &str) -> Result<(), Reject> {
    match field {
        Scalar::Absent | Scalar::Text(_) => Ok(()),
        _ => Err(expected_text(at)),
    }
}

fn number(field: &Scalar<'_>) -> Option<f64> {
    match field {
        Scalar::Integer(n) => Some(*n as f64),
        Scalar::Unsigned(n) => Some(*n as f64),
        Scalar::Float(x) if x.is_finite() => Some(*x),
        _ => None,
    }
}

fn bounded(value: Scalar<'_>, field: Field, (low, high): (f64, f64)) -> Result<Option<f64>, Reject> {
    if let Scalar::Absent = value {
        return Ok(None);
    }
    match number(&value) {
        Some(x) if (low..=high).contains(&x) => Ok(Some(x)),
        _ => {
            let message = format!("/{}: expected a number from {low} to {high}", field.name());
            Err(Reject::new(Reason::InvalidField, message))
        }
    }
}

/// The amount in the base currency.
fn amount(name: &str, field: Scalar<'_>, currency: Scalar<'_>, money: &Money) -> Result<Option<f64>, Reject> {
    if let Scalar::Absent = field {
        return if matches!(name, "order_completed" | "order_refunded") {
            Err(Reject::new(Reason::MissingAmount, format!("/amount is absent, which {name} needs")))
        } else {
            Ok(None)
        };
    }
    let invalid = |what: &str| Reject::new(Reason::InvalidAmount, format!("/amount: {what}"));
    let value = match number(&field) {
        Some(value) if value >= 0.0 => value,
        _ => return Err(invalid("expected a finite number of at least 0")),
    };
    let rate = match currency {
        Scalar::Absent => 1.0,
        Scalar::Text(code) => money.rate(&code).ok_or_else(|| {
            let message = "/currency is neither the base currency nor one with a rate in [money.rates]";
            Reject::new(Reason::UnknownCurrency, message)
        })?,
        _ => return Err(Reject::new(Reason::InvalidField, "/currency: expected text")),
    };
    let value = value * rate;
    if value <= MAX_AMOUNT { Ok(Some(value)) } else { Err(invalid("larger than 1e12 in the base currency")) }
}

fn from_id(field: Scalar<'_>) -> Result<Cow<'_, str>, Reject> {
    let id = match field {
        Scalar::Text(text) => text,
        Scalar::Integer(n) => Cow::Owned(n.to_string()),
        Scalar::Unsigned(n) => Cow::Owned(n.to_string()),
        Scalar::Absent => return Err(Reject::new(Reason::MissingCustomerId, "/from_id is absent")),
        Scalar::Float(_) | Scalar::Flag(_) | Scalar::Nested => Cow::Borrowed(""),
    };
    if (1..=MAX_CUSTOMER_ID_BYTES).contains(&id.len()) {
        return Ok(id);
    }
    let what = format!("/from_id: expected 1 to {MAX_CUSTOMER_ID_BYTES} bytes of UTF-8 text or an integer");
    Err(Reject::new(Reason::InvalidCustomerId, what))
}

/// What `customers_merged` asks for.
pub(super) fn merge(customer_id: &str, from_id: &str, at: &str) -> Result<ProfileChange, Reject> {
    if from_id == customer_id {
        let message = format!("{at}: a customer cannot be merged into itself");
        return Err(Reject::new(Reason::InvalidMerge, message));
    }
    Ok(ProfileChange::Merged(Merge { from_id: from_id.into(), origin: None }))
}

fn profile_change(name: &str, traits: TraitMap<'_>) -> Result<Option<ProfileChange>, Reject> {
    match name {
        ERASURE => Ok(Some(ProfileChange::Deleted)),
        _ => match traits {
            TraitMap::Absent => Ok(None),
            TraitMap::NotAnObject => {
                Err(Reject::new(Reason::InvalidField, "/traits: expected a flat object"))
            }
            TraitMap::Entries(entries) => traits_change(entries).map(Some),
        },
    }
}

/// What a trait may be called, and how long it may be. `at` is the pointer of the traits.
pub(super) fn check_trait(name: &str, text: &str, at: &str) -> Result<(), Reject> {
    if name.len() > MAX_TRAIT_NAME_BYTES {
        return Err(long_trait_name(at));
    }
    if text.len() > MAX_TRAIT_TEXT_BYTES {
        let name = pointer_token(name);
        let message = format!("{at}/{name}: the text of a trait has at most {MAX_TRAIT_TEXT_BYTES} bytes");
        return Err(Reject::new(Reason::InvalidField, message));
    }
    Ok(())
}

pub(super) fn long_trait_name(at: &str) -> Reject {
    let message = format!("{at}: the name of a trait has at most {MAX_TRAIT_NAME_BYTES} bytes");
    Reject::new(Reason::InvalidField, message)
}

fn traits_change(entries: Vec<(Cow<'_, str>, Scalar<'_>)>) -> Result<ProfileChange, Reject> {
    if entries.len() > MAX_TRAITS {
        return Err(Reject::new(Reason::InvalidField, format!("/traits: more than {MAX_TRAITS} entries")));
    }
    let mut changes = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let text = if let Scalar::Text(text) = &value { text } else { "" };
        check_trait(&name, text, "/traits")?;
        let value = match value {
            Scalar::Absent => None,
            Scalar::Text(text) => Some(TraitValue::Text(text.into())),
            Scalar::Flag(flag) => Some(TraitValue::Flag(flag)),
            other => match number(&other) {
                Some(x) => Some(TraitValue::Number(x)),
                None => {
                    let name = pointer_token(&name);
                    let message = format!("/traits/{name}: expected a string, number, boolean or null");
                    return Err(Reject::new(Reason::InvalidField, message));
                }
            },
        };
        changes.push((name.into(), value));
    }
    Ok(ProfileChange::Traits(changes))
}

#[cfg(test)]
mod tests {
    use super::super::MAX_RECORD_BYTES;
    use super::*;

    fn read(source: Source, json: &str) -> Result<Event<'_>, Reject> {
        let envelope = Envelope { source, key: None, timestamp: None, latest: Some(2_000_000_000_000) };
        let money = Money { base: "EUR".into(), rates: [("USD".to_owned(), 0.5)].into() };
        decode(json.as_bytes(), &envelope, &money)
    }

    #[test]
    fn a_trait_is_named_as_a_json_pointer_names_it() {
        let json = r#"{"customer_id":"c","type":"traits_updated","ts":1,"traits":{"a/b~c":[1]}}"#;
        let reject = read(Source::Profile, json).unwrap_err();
        assert_eq!(reject.message, "/traits/a~1b~0c: expected a string, number, boolean or null");
    }

    #[test]
    fn what_is_said_of_the_future_does_not_depend_on_when_it_is_said() {
        let json = r#"{"customer_id":"c","type":"page_viewed","ts":"2099-01-01T00:00:00Z"}"#;
        let reject = read(Source::Clickstream, json).unwrap_err();
        assert_eq!(
            reject.message,
            "/ts: 2099-01-01T00:00:00.000Z lies beyond time.max_future past the wall clock"
        );
    }

    #[test]
    fn every_unusable_record_has_its_reason() {
        use Reason::*;
        use Source::*;
        for (source, json, reason) in [
            (Clickstream, "", Empty),
            (Clickstream, "{", MalformedJson),
            (Clickstream, "not json", MalformedJson),
            (Clickstream, "[1]", NotAnObject),
            (Clickstream, "7", NotAnObject),
            (Clickstream, r#"{"type":"a","ts":1}"#, MissingCustomerId),
            (Clickstream, r#"{"customer_id":null,"type":"a","ts":1}"#, MissingCustomerId),
            (Clickstream, r#"{"customer_id":"","type":"a","ts":1}"#, InvalidCustomerId),
            (Clickstream, r#"{"customer_id":1.5,"type":"a","ts":1}"#, InvalidCustomerId),
            (Clickstream, r#"{"customer_id":1e30,"type":"a","ts":1}"#, InvalidCustomerId),
            (Clickstream, r#"{"customer_id":{},"type":"a","ts":1}"#, InvalidCustomerId),
            (Clickstream, r#"{"customer_id":"c","ts":1}"#, MissingType),
            (Clickstream, r#"{"customer_id":"c","type":"Page Viewed","ts":1}"#, InvalidType),
            (Clickstream, r#"{"customer_id":"c","type":7,"ts":1}"#, InvalidType),
            (Clickstream, r#"{"customer_id":"c","type":"a"}"#, MissingTs),
            (Clickstream, r#"{"customer_id":"c","type":"a","ts":"2026-01-01"}"#, InvalidTs),
            (Clickstream, r#"{"customer_id":"c","type":"a","ts":1.5}"#, InvalidTs),
            (Clickstream, r#"{"customer_id":"c","type":"a","ts":2000000000001}"#, FutureTs),
            (Clickstream, r#"{"customer_id":"c","type":"a","ts":1,"event_id":5}"#, InvalidEventId),
            (Clickstream, r#"{"customer_id":"c","type":"a","ts":1,"url":{}}"#, InvalidField),
            (Clickstream, r#"{"customer_id":"c","type":"a","ts":1,"ts":2}"#, MalformedJson),
            (Purchase, r#"{"customer_id":"c","type":"order_completed","ts":1}"#, MissingAmount),
            (Purchase, r#"{"customer_id":"c","type":"order_refunded","ts":1,"amount":-1}"#, InvalidAmount),
            (Purchase, r#"{"customer_id":"c","type":"order_completed","ts":1,"amount":"9"}"#, InvalidAmount),
            (
                Purchase,
                r#"{"customer_id":"c","type":"order_completed","ts":1,"amount":1e300}"#,
                InvalidAmount,
            ),
            (
                Purchase,
                r#"{"customer_id":"c","type":"order_completed","ts":1,"amount":1e400}"#,
                MalformedJson,
            ),
            (
                Purchase,
                r#"{"customer_id":"c","type":"order_completed","ts":1,"amount":1,"currency":"XXX"}"#,
                UnknownCurrency,
            ),
            (Support, r#"{"customer_id":"c","type":"csat_rated","ts":1,"csat":6}"#, InvalidField),
            (Support, r#"{"customer_id":"c","type":"ticket_opened","ts":1,"sentiment":-1.01}"#, InvalidField),
            (Profile, r#"{"customer_id":"c","type":"traits_updated","ts":1,"traits":[]}"#, InvalidField),
            (
                Profile,
                r#"{"customer_id":"c","type":"traits_updated","ts":1,"traits":{"a":{}}}"#,
                InvalidField,
            ),
            (Profile, r#"{"customer_id":"c","type":"customers_merged","ts":1,"from_id":"c"}"#, InvalidMerge),
            (
                Profile,
                r#"{"customer_id":"c","type":"customers_merged","ts":1,"from_id":[]}"#,
                InvalidCustomerId,
            ),
            (Profile, r#"{"customer_id":"c","type":"customers_merged","ts":1}"#, MissingCustomerId),
            (Clickstream, r#"{"customer_id":"c","type":"customer_deleted","ts":1}"#, UnsupportedType),
            (
                Purchase,
                r#"{"customer_id":"c","type":"customers_merged","ts":1,"from_id":"d"}"#,
                UnsupportedType,
            ),
        ] {
            match read(source, json) {
                Err(reject) => assert_eq!(reject.reason, reason, "{json}: {reject}"),
                Ok(event) => panic!("{json} was read as {event:?}"),
            }
        }
        let long = format!(r#"{{"customer_id":"{}","type":"a","ts":1}}"#, "x".repeat(257));
        assert_eq!(read(Clickstream, &long).unwrap_err().reason, InvalidCustomerId);
        let huge =
            format!(r#"{{"customer_id":"c","type":"a","ts":1,"x":"{}"}}"#, "x".repeat(MAX_RECORD_BYTES));
        assert_eq!(read(Clickstream, &huge).unwrap_err().reason, TooLarge);
    }

    #[test]
    fn usable_records_borrow_and_convert() {
        let event = read(
            Source::Purchase,
            r#"{"event_id":"e1","customer_id":42,"type":"order_completed","ts":"2026-01-02T03:04:05.678+01:00",
               "amount":19.99,"currency":"USD","items":[{"product_id":"p"}],"unknown":{"deep":[1,[2]]}}"#,
        )
        .unwrap();
        assert_eq!(event.customer_id, "42");
        assert_eq!(event.ts, 1_767_319_445_678);
        assert_eq!(event.numbers.get(Field::Amount), Some(9_995_000));
        assert!(matches!(event.event_id, Some(Cow::Borrowed("e1"))));

        // Integers of any length are ids, by their decimal text.
        for id in ["-0", "18446744073709551616", "-123456789012345678901234567890"] {
            let json = format!(r#"{{"customer_id":{id},"type":"a","ts":1}}"#);
            assert_eq!(read(Source::Clickstream, &json).unwrap().customer_id, id);
            let json = format!(r#"{{"customer_id":"c","type":"customers_merged","ts":1,"from_id":{id}}}"#);
            let event = read(Source::Profile, &json).unwrap();
            let merge = Merge { from_id: id.into(), origin: None };
            assert_eq!(event.profile.as_deref(), Some(&ProfileChange::Merged(merge)));
        }

        let event = read(
            Source::Clickstream,
            r#"{"customer_id":"a\"b","type":"something_new","ts":5,"url":null,"channel":"app"}"#,
        )
        .unwrap();
        assert_eq!((event.customer_id.as_ref(), event.ts), ("a\"b", 5));
        assert!(matches!(event.channel, Some(Cow::Borrowed("app"))));

        let event = read(Source::Profile, r#"{"customer_id":"c","type":"customer_deleted","ts":5}"#).unwrap();
        assert_eq!(event.profile.as_deref(), Some(&ProfileChange::Deleted));

        let json = r#"{"customer_id":"c","type":"customers_merged","ts":5,"from_id":7}"#;
        let event = read(Source::Profile, json).unwrap();
        let merge = Merge { from_id: "7".into(), origin: None };
        assert_eq!(event.profile.as_deref(), Some(&ProfileChange::Merged(merge)));

        let event =
            read(Source::Purchase, r#"{"customer_id":"c","type":"subscription_started","ts":5}"#).unwrap();
        assert_eq!(event.numbers.get(Field::Amount), None);

        let event =
            read(Source::Profile, r#"{"customer_id":"c","type":"traits_updated","ts":5,"traits":{"plan":"pro","seats":3,"vip":true,"old":null}}"#)
                .unwrap();
        let Some(ProfileChange::Traits(traits)) = event.profile.as_deref() else { panic!("{event:?}") };
        assert_eq!(traits.len(), 4);
        assert_eq!(traits[3], ("old".into(), None));
    }

    #[test]
    fn key_and_record_timestamp_stand_in() {
        let money = Money::default();
        let envelope = Envelope {
            source: Source::Clickstream,
            key: Some(b"from-key"),
            timestamp: Some(77),
            latest: None,
        };
        let event = decode(br#"{"type":"page_viewed"}"#, &envelope, &money).unwrap();
        assert_eq!((event.customer_id.as_ref(), event.ts), ("from-key", 77));
        let bad = Envelope { key: Some(&[0xff]), ..envelope };
        assert_eq!(decode(br#"{"type":"a"}"#, &bad, &money).unwrap_err().reason, Reason::InvalidCustomerId);
    }

    #[test]
    fn confluent_framing_is_skipped() {
        let mut framed = vec![0, 0, 0, 0, 7];
        framed.extend_from_slice(br#"{"customer_id":"c","type":"a","ts":1}"#);
        let envelope = Envelope { source: Source::Clickstream, key: None, timestamp: None, latest: None };
        assert_eq!(decode(&framed, &envelope, &Money::default()).unwrap().customer_id, "c");
    }

    #[test]
    fn deep_nesting_is_answered_without_recursion() {
        let deep = format!(
            r#"{{"customer_id":"c","type":"a","ts":1,"x":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let _ = read(Source::Clickstream, &deep);
        let deep = format!(
            r#"{{"customer_id":"c","type":"a","ts":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(read(Source::Clickstream, &deep).is_err());
    }
}
