//! An event as a foreign format brings it, and the rules it must pass to become one of ours.
//!
//! A format says where it found each field; what a field must be is decided here, once for all of them, and a
//! [`Reject`] names the JSON pointer at which something was wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::json::Leaf;
use super::money::{MAX_AMOUNT, Money};
use super::names::{Meaning, Snake, known};
use super::native::{ERASURE, Envelope, MAX_CUSTOMER_ID_BYTES, MAX_EVENT_ID_BYTES, MERGE, merge};
use super::sentiment::sentiment;
use super::{Event, Field, Numbers, ProfileChange, Reason, Reject, Source, TraitChanges};
use crate::time::{MAX_TS, MIN_TS, Ts, format_rfc3339, parse_rfc3339};

/// The foreign name that stands for every other in a table of types.
const ANY_TYPE: &str = "*";

/// The native types of foreign names, as configured.
pub(super) type Types = BTreeMap<String, String>;

/// A value and the pointer at which it was looked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found<'a> {
    pub value: Leaf<'a>,
    pub at: &'a str,
}

impl<'a> Found<'a> {
    pub(super) fn new(value: Leaf<'a>, at: &'a str) -> Found<'a> {
        Found { value, at }
    }

    /// This, or the other where this is absent.
    pub(super) fn or(self, other: Found<'a>) -> Found<'a> {
        if self.value.is_absent() && !other.value.is_absent() { other } else { self }
    }

    /// What to call all the places where nothing was found.
    pub(super) fn or_looked_for(self, places: &'a str) -> Found<'a> {
        if self.value.is_absent() { Found { at: places, ..self } } else { self }
    }
}

/// What a record says, before it is checked.
#[derive(Debug, Default)]
pub(super) struct Mapped<'a> {
    pub customer_id: Found<'a>,
    /// The foreign name of the event …
    pub name: Found<'a>,
    /// whether it is a path of which the last part is what counts, as in `com.example.order_completed.v2`,
    pub dotted: bool,
    /// … and what the format knows it to mean.
    pub meaning: Option<Meaning>,
    pub ts: Found<'a>,
    /// The event time where the format had to calculate it.
    pub known_ts: Option<Ts>,
    pub event_id: Found<'a>,
    pub channel: Found<'a>,
    pub amount: Found<'a>,
    /// Whether a refund need not say how much, as where it names its order only.
    pub refund_without_amount: bool,
    pub currency: Found<'a>,
    pub sentiment: Found<'a>,
    pub csat: Found<'a>,
    pub nps: Found<'a>,
    pub text: Found<'a>,
    pub traits: Option<TraitChanges>,
    /// Of `customers_merged`: who is folded into `customer_id`.
    pub from_id: Found<'a>,
}

impl<'a> Mapped<'a> {
    /// Checks everything.
    pub(super) fn into_event(
        self,
        envelope: &Envelope<'a>,
        types: &Types,
        money: &Money,
    ) -> Result<Event<'a>, Reject> {
        let (source, name) = self.meaning_of_name(types, envelope.source)?;
        if name == ERASURE && envelope.source != Source::Profile {
            self.check_erasure(types)?;
        }
        let customer_id = customer_id(self.customer_id, envelope.key)?;
        let ts = event_time(&self.ts, self.known_ts, envelope)?;
        let event_id = event_id(self.event_id)?;
        let channel = match self.channel.value {
            Leaf::Text(channel) => Some(channel),
            _ => None,
        };
        let mut numbers = Numbers::default();
        let mut profile = None;
        match source {
            Source::Clickstream => {}
            Source::Purchase => {
                let is_needed =
                    name == "order_completed" || name == "order_refunded" && !self.refund_without_amount;
                if self.amount.value.is_absent() && is_needed {
                    let message = format!("{} is absent, which {name} needs", self.amount.at);
                    return Err(Reject::new(Reason::MissingAmount, message));
                }
                if let Some(amount) = amount(&self.amount, &self.currency, money)? {
                    numbers.set(Field::Amount, amount);
                }
            }
            Source::Support => {
                support_numbers(&mut numbers, [&self.sentiment, &self.csat, &self.nps], &self.text)?;
            }
            Source::Profile if name == MERGE => {
                let at = self.from_id.at;
                if self.from_id.value.is_absent() {
                    return Err(Reject::new(Reason::MissingCustomerId, format!("{at} is absent")));
                }
                let from_id = self::customer_id(self.from_id, None)?;
                profile = Some(Box::new(merge(&customer_id, &from_id, at)?));
            }
            Source::Profile if name == ERASURE => profile = Some(Box::new(ProfileChange::Deleted)),
            Source::Profile => profile = self.traits.map(ProfileChange::Traits).map(Box::new),
        }
        Ok(Event { source, customer_id, name, ts, event_id, numbers, profile, channel })
    }

    /// Refuses an erasure on a topic of activity that the operator's table does not name: what a browser may send
    /// under any name it likes must not forget a customer.
    fn check_erasure(&self, types: &Types) -> Result<(), Reject> {
        let named = self.name.value.as_text().and_then(|text| types.get(text.trim()));
        if named.is_some_and(|name| name == ERASURE) {
            return Ok(());
        }
        let message = format!(
            "{}: customers are erased on the profile topic, or by a name in this source's table of types",
            self.name.at
        );
        Err(Reject::new(Reason::UnsupportedType, message))
    }

    /// The native type and the kind of the event: by the operator's table, else by what the format knows, else
    /// by the name itself. Any other name is activity of the topic's kind.
    fn meaning_of_name(&self, types: &Types, topic: Source) -> Result<(Source, Cow<'static, str>), Reject> {
        let of_kind = |name: &str| match known(name) {
            Some((source, name)) => (source, Cow::Borrowed(name)),
            None => (activity(topic), Cow::Owned(name.to_owned())),
        };
        let text = self.name.value.as_text().map(str::trim).filter(|text| !text.is_empty());
        if let Some(name) = text.filter(|_| !types.is_empty()).and_then(|text| types.get(text)) {
            return Ok(of_kind(name));
        }
        if let Some((source, name)) = self.meaning {
            return Ok((source, Cow::Borrowed(name)));
        }
        let snake = text.map(|text| Snake::new(if self.dotted { tail(text) } else { text }));
        if let Some((source, name)) = snake.as_ref().and_then(|snake| known(snake.as_str())) {
            return Ok((source, Cow::Borrowed(name)));
        }
        match (types.get(ANY_TYPE), snake, &self.name.value) {
            (Some(name), _, _) => Ok(of_kind(name)),
            (None, Some(snake), _) => Ok((activity(topic), snake.into_name("unnamed"))),
            (None, None, Leaf::Absent | Leaf::Text(_)) => {
                Err(Reject::new(Reason::MissingType, format!("{} is absent", self.name.at)))
            }
            _ => Err(Reject::new(Reason::InvalidType, format!("{}: expected text", self.name.at))),
        }
    }
}

/// The part of a path-like name that says what happened: the last that is no version.
pub(super) fn tail(name: &str) -> &str {
    let is_version = |part: &str| {
        let digits = part.strip_prefix(['v', 'V']).unwrap_or(part);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    name.split(['.', ':', '/'])
        .rev()
        .find(|part| !part.trim().is_empty() && !is_version(part))
        .unwrap_or(name)
}

/// The kind under which an event without a meaning of its own counts.
fn activity(topic: Source) -> Source {
    if topic == Source::Profile { Source::Clickstream } else { topic }
}

fn customer_id<'a>(found: Found<'a>, key: Option<&'a [u8]>) -> Result<Cow<'a, str>, Reject> {
    let invalid = |at: &str| {
        let message =
            format!("{at}: expected 1 to {MAX_CUSTOMER_ID_BYTES} bytes of UTF-8 text or an integer");
        Reject::new(Reason::InvalidCustomerId, message)
    };
    let (id, at) = match (found.value, key) {
        (Leaf::Text(text), _) => (text, found.at),
        (Leaf::Integer(n), _) => (Cow::Owned(n.to_string()), found.at),
        (Leaf::Absent, Some(key)) => {
            (Cow::Borrowed(std::str::from_utf8(key).map_err(|_| invalid("record key"))?), "record key")
        }
        (Leaf::Absent, None) => {
            let message = format!("{} is absent and so is the record key", found.at);
            return Err(Reject::new(Reason::MissingCustomerId, message));
        }
        _ => return Err(invalid(found.at)),
    };
    if (1..=MAX_CUSTOMER_ID_BYTES).contains(&id.len()) { Ok(id) } else { Err(invalid(at)) }
}

/// An instant as any format writes it.
pub(super) fn instant(found: &Found<'_>) -> Result<Option<Ts>, Reject> {
    let ts = match &found.value {
        Leaf::Absent => return Ok(None),
        Leaf::Text(text) => parse_rfc3339(text),
        Leaf::Integer(ms) => Some(*ms).filter(|ms| (MIN_TS..=MAX_TS).contains(ms)),
        _ => None,
    };
    let message = || {
        format!("{}: expected an RFC 3339 instant with an offset, or integer epoch milliseconds", found.at)
    };
    ts.map(Some).ok_or_else(|| Reject::new(Reason::InvalidTs, message()))
}

fn event_time(found: &Found<'_>, known: Option<Ts>, envelope: &Envelope<'_>) -> Result<Ts, Reject> {
    let told = match known {
        Some(ts) => Some(ts),
        None => instant(found)?,
    };
    let ts = told.or(envelope.timestamp).ok_or_else(|| {
        let message = format!("{} is absent and so is the record timestamp", found.at);
        Reject::new(Reason::MissingTs, message)
    })?;
    match envelope.latest {
        Some(latest) if ts > latest => {
            // By how much would depend on when this is read, and a replay is to say the same again.
            let at = format_rfc3339(ts);
            let message = format!("{}: {at} lies beyond time.max_future past the wall clock", found.at);
            Err(Reject::new(Reason::FutureTs, message))
        }
        _ => Ok(ts),
    }
}

fn event_id(found: Found<'_>) -> Result<Option<Cow<'_, str>>, Reject> {
    match found.value.or_absent_when_empty() {
        Leaf::Absent => Ok(None),
        Leaf::Text(text) if text.len() <= MAX_EVENT_ID_BYTES => Ok(Some(text)),
        Leaf::Integer(n) => Ok(Some(Cow::Owned(n.to_string()))),
        _ => {
            let message = format!("{}: expected text of at most {MAX_EVENT_ID_BYTES} bytes", found.at);
            Err(Reject::new(Reason::InvalidEventId, message))
        }
    }
}

/// The amount in the base currency, where there is one.
fn amount(found: &Found<'_>, currency: &Found<'_>, money: &Money) -> Result<Option<f64>, Reject> {
    let at = found.at;
    if found.value.is_absent() {
        return Ok(None);
    }
    let invalid = |what: &str| Reject::new(Reason::InvalidAmount, format!("{at}: {what}"));
    let value = match found.value.as_number() {
        Some(value) if value >= 0.0 => value,
        _ => return Err(invalid("expected a finite number of at least 0")),
    };
    let rate = match &currency.value {
        Leaf::Absent => 1.0,
        Leaf::Text(code) => money.rate(code).ok_or_else(|| {
            let message =
                format!("{} is neither the base currency nor one with a rate in [money.rates]", currency.at);
            Reject::new(Reason::UnknownCurrency, message)
        })?,
        _ => return Err(Reject::new(Reason::InvalidField, format!("{}: expected text", currency.at))),
    };
    let value = value * rate;
    if value <= MAX_AMOUNT { Ok(Some(value)) } else { Err(invalid("larger than 1e12 in the base currency")) }
}

/// Moods and ratings; the sentiment from the text where the event has none. The text itself goes no further.
fn support_numbers(
    numbers: &mut Numbers,
    [mood, csat, nps]: [&Found<'_>; 3],
    text: &Found<'_>,
) -> Result<(), Reject> {
    let bounds =
        [(Field::Sentiment, mood, -1.0..=1.0), (Field::Csat, csat, 1.0..=5.0), (Field::Nps, nps, 0.0..=10.0)];
    for (field, found, range) in bounds {
        if found.value.is_absent() {
            continue;
        }
        match found.value.as_number() {
            Some(number) if range.contains(&number) => numbers.set(field, number),
            _ => {
                let (low, high) = (range.start(), range.end());
                let message = format!("{}: expected a number from {low} to {high}", found.at);
                return Err(Reject::new(Reason::InvalidField, message));
            }
        }
    }
    if let (None, Some(text)) = (numbers.get(Field::Sentiment), text.value.as_text())
        && let Some(mood) = sentiment(text)
    {
        numbers.set(Field::Sentiment, mood);
    }
    Ok(())
}
