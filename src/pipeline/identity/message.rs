//! What passes between two ids of one customer, and its bytes.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{Id, VERSION, unknown};
use crate::event::{Event, Field, Merge, Numbers, Origin, ProfileChange, Reason, Reject, Source};
use crate::pipeline::described::Description;
use crate::pipeline::facts::TraitValue;
use crate::time::{MAX_TS, MIN_TS, Ts};

/// Something for a customer, wherever it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    v: u8,
    pub to: Id,
    /// The event time at which it has its turn.
    pub at: Ts,
    /// The ids that it came through, first to last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) path: Vec<Hop>,
    pub(super) body: Body,
}

/// An id that something came through, by its redirect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "HopForm")]
pub struct Hop {
    pub id: Id,
    /// Where it led.
    pub target: Id,
    /// The latest of the merges that brought it through here, those before on its way included.
    pub via: Ts,
    /// When the id itself was merged, and whether the record that asked for it can still be told.
    pub merged_at: Ts,
    pub is_told: bool,
}

impl Hop {
    /// Of a circle of redirects the merge that ranks highest cannot be: the latest, as replay has it.
    pub(super) fn rank(&self) -> (bool, Ts, &str) {
        (self.is_told, self.merged_at, &self.id)
    }
}

/// Messages of an earlier version, which may be under way, name the id alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum HopForm {
    Id(Id),
    Hop { id: Id, target: Id, via: Ts, merged_at: Ts, is_told: bool },
}

impl From<HopForm> for Hop {
    fn from(form: HopForm) -> Hop {
        match form {
            HopForm::Id(id) => Hop { id, target: "".into(), via: MIN_TS, merged_at: MIN_TS, is_told: false },
            HopForm::Hop { id, target, via, merged_at, is_told } => {
                Hop { id, target, via, merged_at, is_told }
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    /// An event of somebody who is this customer now.
    Event(Box<Carried>),
    /// Be one with `target`: give it what you have.
    Ask(Box<Ask>),
    /// What somebody had who is this customer now.
    State(Box<Moved>),
    /// Whom your events follow from now on: nobody, and you are a customer of your own again.
    Follow {
        target: Option<Id>,
        /// The latest of the merges by which you are that one.
        #[serde(default = "unknown")]
        via: Ts,
    },
    /// The customer that you are now was erased.
    Forget,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub target: Id,
    /// Whether nobody knew the target then: it goes on where the other is, whatever it does meanwhile.
    pub is_new: bool,
    pub merged_at: Ts,
    pub event_id: Option<Id>,
    pub origin: Option<Box<Origin>>,
    /// A trait of the target says so, again whenever it is told.
    #[serde(default)]
    pub by_trait: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Moved {
    pub merged_at: Ts,
    pub is_new: bool,
    pub event_id: Option<Id>,
    /// `None`: nothing was known of it.
    #[serde(with = "hex")]
    pub state: Option<Vec<u8>>,
    pub layout: Option<(u32, Description)>,
    /// Whoever is this customer now, the sender included.
    pub ids: Vec<Id>,
    #[serde(default)]
    pub by_trait: bool,
}

/// An event, free of its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Carried {
    source: Box<str>,
    name: Box<str>,
    event_id: Option<Id>,
    /// In the order of [`Field::ALL`].
    numbers: [Option<i64>; Field::ALL.len()],
    channel: Option<Box<str>>,
    profile: Option<Change>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Traits(Vec<(Box<str>, Option<Value>)>),
    Deleted,
    Merged { from_id: Id, origin: Option<Box<Origin>> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Flag(bool),
    Number(f64),
    Text(Box<str>),
}

impl Message {
    pub(super) fn new(to: &str, at: Ts, path: Vec<Hop>, body: Body) -> Message {
        Message { v: VERSION, to: to.into(), at, path, body }
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The version of a message, where it is another than this program reads. It may hold what nobody else does, so that it
    /// must not be passed over.
    pub fn foreign_version(bytes: &[u8]) -> Option<u64> {
        #[derive(Deserialize)]
        struct Version {
            v: u64,
            #[serde(rename = "to")]
            _to: IgnoredAny,
            #[serde(rename = "body")]
            _body: IgnoredAny,
        }
        let Version { v, .. } = serde_json::from_slice(bytes).ok()?;
        (v != u64::from(VERSION)).then_some(v)
    }

    /// Reads what [`Message::encode`] wrote; anything else is no message.
    pub fn decode(bytes: &[u8]) -> Result<Message, Reject> {
        let message: Message = serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let what = format!("the value is no message between customers (line {line}, column {column})");
            Reject::new(Reason::MalformedJson, what)
        })?;
        let invalid = |what: &str| Err(Reject::new(Reason::InvalidField, what));
        match &message {
            Message { v, .. } if *v != VERSION => invalid("/v: expected the version of this program"),
            Message { at, .. } if !(MIN_TS..=MAX_TS).contains(at) => invalid("/at: expected an instant"),
            Message { body: Body::Event(carried), .. } if Source::from_name(&carried.source).is_none() => {
                invalid("/body/event/source: expected a kind of event")
            }
            _ => Ok(message),
        }
    }

    /// The layout of the state that it brings, if it does.
    pub fn layout(&self) -> Option<&(u32, Description)> {
        match &self.body {
            Body::State(moved) => moved.layout.as_ref(),
            _ => None,
        }
    }

    pub fn state(&self) -> Option<&[u8]> {
        match &self.body {
            Body::State(moved) => moved.state.as_deref(),
            _ => None,
        }
    }
}

impl Carried {
    pub(super) fn of(event: &Event<'_>) -> Carried {
        let profile = event.profile.as_deref().map(|change| match change {
            ProfileChange::Traits(changes) => Change::Traits(
                changes.iter().map(|(name, value)| (name.clone(), value.as_ref().map(Value::of))).collect(),
            ),
            ProfileChange::Deleted => Change::Deleted,
            ProfileChange::Merged(Merge { from_id, origin }) => {
                Change::Merged { from_id: from_id.clone(), origin: origin.clone() }
            }
        });
        Carried {
            source: event.source.name().into(),
            name: event.name.as_ref().into(),
            event_id: event.event_id.as_deref().map(Id::from),
            numbers: Field::ALL.map(|field| event.numbers.get(field)),
            channel: event.channel.as_deref().map(Into::into),
            profile,
        }
    }

    /// The event again, as one of this customer's.
    pub(super) fn event(self, customer_id: &str, ts: Ts) -> Event<'static> {
        let profile = self.profile.map(|change| match change {
            Change::Traits(changes) => ProfileChange::Traits(
                changes.into_iter().map(|(name, value)| (name, value.map(TraitValue::from))).collect(),
            ),
            Change::Deleted => ProfileChange::Deleted,
            Change::Merged { from_id, origin } => ProfileChange::Merged(Merge { from_id, origin }),
        });
        let mut numbers = Numbers::default();
        for (field, micros) in Field::ALL.into_iter().zip(self.numbers) {
            numbers.set_micros(field, micros);
        }
        Event {
            source: Source::from_name(&self.source).unwrap_or(Source::Profile),
            customer_id: customer_id.to_owned().into(),
            name: self.name.into_string().into(),
            ts,
            event_id: self.event_id.map(|id| id.into_string().into()),
            numbers,
            profile: profile.map(Box::new),
            channel: self.channel.map(|channel| channel.into_string().into()),
        }
    }
}

impl Value {
    fn of(value: &TraitValue) -> Value {
        match value {
            TraitValue::Flag(flag) => Value::Flag(*flag),
            TraitValue::Number(number) => Value::Number(*number),
            TraitValue::Text(text) => Value::Text(text.clone()),
        }
    }
}

impl From<Value> for TraitValue {
    fn from(value: Value) -> TraitValue {
        match value {
            Value::Flag(flag) => TraitValue::Flag(flag),
            Value::Number(number) => TraitValue::Number(number),
            Value::Text(text) => TraitValue::Text(text),
        }
    }
}

/// Bytes as text.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = bytes.as_ref().map(|bytes| {
            let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
            bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect::<String>()
        });
        text.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
        let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
        let digits = digits.ok_or_else(|| D::Error::custom("expected hexadecimal digits"))?;
        Ok(Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
    }
}
