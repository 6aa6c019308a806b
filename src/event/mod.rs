//! The nouns of the input: what an event is once it has been read, and why a record can be unusable.
//!
//! A [`decoder`] turns the bytes of a record into an [`Event`] that borrows from them, or into a [`Reject`]: bad
//! input is a value here, never an error, and keeps its offset. Native records are read directly ([`native`]);
//! any other format only says where it has each field, and `mapped` checks them.

pub mod decoder;
pub mod native;
mod segment;
mod zendesk;
mod cloudevents;
mod pointers;
mod mapped;
pub mod names;
pub mod trace;
mod json;
mod place;
mod sentiment;
pub mod money;

use std::borrow::Cow;
use std::fmt;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::pipeline::channels;
use crate::pipeline::facts::TraitValue;
use crate::time::Ts;

/// The longest record that is looked into, in bytes.
pub const MAX_RECORD_BYTES: usize = 1 << 20;
/// The longest merge of two customers that is taken, headers included: whoever is concerned keeps the record, in one of
/// its own, until nothing can contradict it.
pub const MAX_MERGE_BYTES: usize = 64 << 10;

/// The four kinds of events. The order decides which of two events of one customer at the same instant is
/// applied first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Source {
    Clickstream,
    Purchase,
    Support,
    Profile,
}

impl Source {
    pub const ALL: [Source; 4] = [Source::Clickstream, Source::Purchase, Source::Support, Source::Profile];
    /// The sources whose events are activity of the customer.
    pub const ACTIVITY: [Source; 3] = [Source::Clickstream, Source::Purchase, Source::Support];

    pub fn name(self) -> &'static str {
        match self {
            Source::Clickstream => "clickstream",
            Source::Purchase => "purchase",
            Source::Support => "support",
            Source::Profile => "profile",
        }
    }

    pub fn from_name(name: &str) -> Option<Source> {
        Source::ALL.into_iter().find(|s| s.name() == name)
    }

    pub fn index(self) -> usize {
        self as usize
    }
}

/// A number that an event may carry and a feature may aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Field {
    /// Money in the base currency.
    Amount,
    Sentiment,
    Csat,
    Nps,
}

impl Field {
    pub const ALL: [Field; 4] = [Field::Amount, Field::Sentiment, Field::Csat, Field::Nps];

    pub fn name(self) -> &'static str {
        match self {
            Field::Amount => "amount",
            Field::Sentiment => "sentiment",
            Field::Csat => "csat",
            Field::Nps => "nps",
        }
    }
}

/// The numbers of one event, in millionths. Fixed point makes sums exact, so that a window's value does not
/// depend on the order in which its events arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers([Option<i64>; 4]);

/// Millionths in one.
pub const MICROS: f64 = 1e6;

impl Numbers {
    pub fn get(&self, field: Field) -> Option<i64> {
        self.0[field as usize]
    }

    /// Keeps what [`Numbers::get`] gave.
    pub fn set_micros(&mut self, field: Field, micros: Option<i64>) {
        self.0[field as usize] = micros;
    }

    /// Keeps `value`, rounded to the nearest millionth.
    pub fn set(&mut self, field: Field, value: f64) {
        self.0[field as usize] = Some((value * MICROS).round() as i64);
    }
}

/// Traits to set; `None` removes one.
pub type TraitChanges = Vec<(Box<str>, Option<TraitValue>)>;

/// What a profile event asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum ProfileChange {
    Traits(TraitChanges),
    /// To be forgotten.
    Deleted,
    /// Somebody else is the same customer.
    Merged(Merge),
}

/// Who is folded into an event's customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    pub from_id: Box<str>,
    /// The record that says so, where it may become a dead letter later: only the two customers know whether
    /// they can be one.
    pub origin: Option<Box<Origin>>,
}

/// A record as it came, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: Option<Ts>,
}

/// One usable event. Borrows from the record's bytes wherever the JSON has no escapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    pub source: Source,
    pub customer_id: Cow<'a, str>,
    /// The `type`, snake_case.
    pub name: Cow<'a, str>,
    pub ts: Ts,
    pub event_id: Option<Cow<'a, str>>,
    pub numbers: Numbers,
    pub profile: Option<Box<ProfileChange>>,
    /// What it came through.
    pub channel: Option<Cow<'a, str>>,
}

impl Event<'_> {
    /// The event on its own, free of the record's bytes.
    pub fn into_owned(self) -> Event<'static> {
        Event {
            source: self.source,
            customer_id: Cow::Owned(self.customer_id.into_owned()),
            name: Cow::Owned(self.name.into_owned()),
            ts: self.ts,
            event_id: self.event_id.map(|id| Cow::Owned(id.into_owned())),
            numbers: self.numbers,
            profile: self.profile,
            channel: self.channel.map(|channel| Cow::Owned(channel.into_owned())),
        }
    }
}

/// An event that outlives its record. Ids and types are mostly short enough to need no memory of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptEvent {
    source: Source,
    customer_id: CompactString,
    name: CompactString,
    pub ts: Ts,
    event_id: Option<CompactString>,
    numbers: Numbers,
    profile: Option<Box<ProfileChange>>,
    channel: Option<CompactString>,
}

impl From<Event<'_>> for KeptEvent {
    fn from(event: Event<'_>) -> Self {
        KeptEvent {
            source: event.source,
            customer_id: CompactString::new(&event.customer_id),
            name: CompactString::new(&event.name),
            ts: event.ts,
            event_id: event.event_id.map(CompactString::new),
            numbers: event.numbers,
            profile: event.profile,
            channel: event.channel.map(|channel| CompactString::new(channels::counted(&channel))),
        }
    }
}

impl KeptEvent {
    pub fn customer_id(&self) -> &str {
        &self.customer_id
    }

    /// The event again. A profile change is handed over, so this is for the one time it is applied.
    pub fn take(&mut self) -> Event<'_> {
        Event {
            source: self.source,
            customer_id: Cow::Borrowed(&self.customer_id),
            name: Cow::Borrowed(&self.name),
            ts: self.ts,
            event_id: self.event_id.as_deref().map(Cow::Borrowed),
            numbers: self.numbers,
            profile: self.profile.take(),
            channel: self.channel.as_deref().map(Cow::Borrowed),
        }
    }
}

/// Why a record cannot be used: one value of one enum, and a message a person can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub reason: Reason,
    /// Where in the record and what was expected there; never the value itself.
    pub message: String,
}

impl Reject {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Reject { reason, message: message.into() }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.code(), self.message)
    }
}

/// The closed list of reasons, as they appear in metrics and dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Empty,
    TooLarge,
    MalformedJson,
    NotAnObject,
    MissingCustomerId,
    InvalidCustomerId,
    MissingType,
    InvalidType,
    MissingTs,
    InvalidTs,
    FutureTs,
    InvalidEventId,
    MissingAmount,
    InvalidAmount,
    UnknownCurrency,
    InvalidField,
    UnsupportedType,
    UnsupportedEncoding,
    InvalidMerge,
}

impl Reason {
    pub const ALL: [Reason; 19] = [
        Reason::Empty,
        Reason::TooLarge,
        Reason::MalformedJson,
        Reason::NotAnObject,
        Reason::MissingCustomerId,
        Reason::InvalidCustomerId,
        Reason::MissingType,
        Reason::InvalidType,
        Reason::MissingTs,
        Reason::InvalidTs,
        Reason::FutureTs,
        Reason::InvalidEventId,
        Reason::MissingAmount,
        Reason::InvalidAmount,
        Reason::UnknownCurrency,
        Reason::InvalidField,
        Reason::UnsupportedType,
        Reason::UnsupportedEncoding,
        Reason::InvalidMerge,
    ];

    pub fn code(self) -> &'static str {
        match self {
            Reason::Empty => "empty",
            Reason::TooLarge => "too_large",
            Reason::MalformedJson => "malformed_json",
            Reason::NotAnObject => "not_an_object",
            Reason::MissingCustomerId => "missing_customer_id",
            Reason::InvalidCustomerId => "invalid_customer_id",
            Reason::MissingType => "missing_type",
            Reason::InvalidType => "invalid_type",
            Reason::MissingTs => "missing_ts",
            Reason::InvalidTs => "invalid_ts",
            Reason::FutureTs => "future_ts",
            Reason::InvalidEventId => "invalid_event_id",
            Reason::MissingAmount => "missing_amount",
            Reason::InvalidAmount => "invalid_amount",
            Reason::UnknownCurrency => "unknown_currency",
            Reason::InvalidField => "invalid_field",
            Reason::UnsupportedType => "unsupported_type",
            Reason::UnsupportedEncoding => "unsupported_encoding",
            Reason::InvalidMerge => "invalid_merge",
        }
    }
}
