//! Customers of several ids: who goes by another id now, and how two of them become one.
//!
//! ```text
//!   merge of S into T ─► T's partition ── Ask ─► S's partition ── State ─► T's partition
//!                        (a merge of whom         S lives until then, goes,   T lives until then, the two
//!                        T goes by, if T went)    a redirect to T stays       are joined and evaluated
//!   events of S, later ──────────────────────► follow the redirect ──────► as T's own
//! ```
//!
//! The two need not have a partition in common: all that passes between them is a [`Message`], keyed by whom it
//! is for. An engine of its own hands its messages back to itself ([`Engine::step_alone`]); the service sends
//! them through a topic, in the transaction of what they come of. A customer that was merged has no state, a
//! redirect instead, so nothing of it exists twice; a state that is under way is in one message, so nothing is
//! lost. This module owns the redirects and who is known by which other ids; what two states make together is
//! [`super::join`]'s. PURE.
//!
//! Each merge tells the ids that came before it whom they are now, so that an event follows one redirect, two
//! while that is under way. Merges that contradict each other while their states are under way make a circle of
//! redirects, which whatever is under way to them goes round. Its way names the merges of the circle; where it comes
//! to the latest of them, that one is taken back: its record is refused, and who was merged by it is a customer
//! again and gets everything. For that a redirect keeps the record of its merge for [`RECORDS_KEPT_MS`].

mod message;
mod moves;

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::codec::CodecError;
use super::engine::Engine;
use super::facts::TraitValue;
use super::plan::Identity as Settings;
use crate::event::native::MAX_CUSTOMER_ID_BYTES;
use crate::event::{Event, Origin, ProfileChange, Reject, Source};
use crate::time::{DAY_MS, MAX_TS, MIN_TS, Ts};

pub(in crate::pipeline) use message::Hop;
pub use message::Message;

/// Redirects that one event or state follows; a merge that makes a chain longer before any of it has arrived is
/// refused.
pub const MAX_HOPS: usize = 256;
/// Wall-clock time for which the record of a merge is kept: as long as the topic keeps what passes between ids.
const RECORDS_KEPT_MS: i64 = 7 * DAY_MS;
const RECORDS_AT_ONCE: usize = 1_000;
/// Below it every whole number is exact as a float.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Other ids of one customer that are followed; beyond it the oldest begins a life of its own again.
pub const MAX_ALIASES: usize = 256;
/// Raised whenever the meaning of the records changes.
const VERSION: u8 = 1;

/// A customer's id.
type Id = Box<str>;

/// Who a merged customer is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Redirect {
    v: u8,
    target: Id,
    /// The latest of the merges by which it is the target; records of an earlier version do not tell.
    #[serde(default = "unknown")]
    via: Ts,
    /// When it was itself merged.
    #[serde(default = "unknown")]
    merged_at: Ts,
    /// Events before this instant follow; it moves on while some do.
    until: Ts,
    /// The record that asked for the merge, as long as that may turn out to contradict others, and the wall clock
    /// when it was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Box<Origin>>,
    #[serde(default = "unknown")]
    noted_at: Ts,
}

const fn unknown() -> Ts {
    MIN_TS
}

/// The ids that were merged into a customer, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Aliases {
    v: u8,
    ids: Vec<Id>,
}

/// A merge that cannot be, as the record that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub source: Source,
    pub origin: Option<Box<Origin>>,
    pub reject: Reject,
}

#[derive(Debug)]
enum Before {
    Redirect(Id, Option<Redirect>),
    Aliases(Id, Vec<Id>),
}

/// The merged customers of one partition, what must be told to others, and how to take a transaction back.
#[derive(Debug, Default)]
pub struct Identities {
    redirects: HashMap<Id, Redirect>,
    by_end: BTreeSet<(Ts, Id)>,
    /// Redirects with the record of their merge, by when that was noted.
    by_note: BTreeSet<(Ts, Id)>,
    aliases: HashMap<Id, Vec<Id>>,
    /// What each was before the transaction, in order of change.
    before: Vec<Before>,
    outgoing: VecDeque<Message>,
    refused: Vec<Refused>,
}

impl Identities {
    const REDIRECT: &'static [u8] = b"\xffredirect ";
    const ALIASES: &'static [u8] = b"\xffaliases ";

    /// Merged customers whose events follow.
    pub fn len(&self) -> usize {
        self.redirects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.redirects.is_empty() && self.aliases.is_empty()
    }

    /// Who a merged customer is now, as far as this partition knows.
    pub fn target(&self, id: &str) -> Option<&str> {
        self.redirects.get(id).map(|redirect| &*redirect.target)
    }

    /// Who an id is in the end, where all customers are in one partition.
    pub fn who<'a>(&'a self, id: &'a str) -> &'a str {
        let mut who = id;
        for _ in 0..MAX_HOPS {
            let Some(target) = self.target(who) else { break };
            who = target;
        }
        who
    }

    /// The other ids of a customer.
    pub fn aliases(&self, id: &str) -> &[Box<str>] {
        self.aliases.get(id).map_or(&[], |ids| ids)
    }

    pub fn has_changed(&self) -> bool {
        !self.before.is_empty() || !self.outgoing.is_empty() || !self.refused.is_empty()
    }

    /// The records of the state topic that the transaction at hand must write: `None` for a tombstone. No key is
    /// UTF-8, so that no customer can have it.
    pub fn changes(&self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let key = |before: &Before| match before {
            Before::Redirect(id, _) => (true, id.clone()),
            Before::Aliases(id, _) => (false, id.clone()),
        };
        let changed: BTreeSet<(bool, Id)> = self.before.iter().map(key).collect();
        changed.into_iter().map(|(is_redirect, id)| self.record(is_redirect, &id)).collect()
    }

    /// The records of the state topic that say all of it.
    pub fn records(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
        let all = self.redirects.keys().map(|id| (true, id)).chain(self.aliases.keys().map(|id| (false, id)));
        all.filter_map(|(is_redirect, id)| {
            let (key, value) = self.record(is_redirect, id);
            Some((key, value?))
        })
    }

    fn record(&self, is_redirect: bool, id: &Id) -> (Vec<u8>, Option<Vec<u8>>) {
        let prefix = if is_redirect { Self::REDIRECT } else { Self::ALIASES };
        let value = if is_redirect {
            self.redirects.get(id).map(|redirect| serde_json::to_vec(redirect).unwrap_or_default())
        } else {
            let ids = self.aliases.get(id).cloned();
            ids.map(|ids| serde_json::to_vec(&Aliases { v: VERSION, ids }).unwrap_or_default())
        };
        ([prefix, id.as_bytes()].concat(), value)
    }

    /// Takes in a record of the state topic; false when it is about something else.
    pub(super) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool, CodecError> {
        let id = |id: &[u8]| std::str::from_utf8(id).map(Id::from).map_err(|_| CodecError::Impossible("key"));
        if let Some(merged) = key.strip_prefix(Self::REDIRECT) {
            let redirect = value.map(read::<Redirect>).transpose()?;
            if redirect.as_ref().is_some_and(|r| !(MIN_TS..=MAX_TS).contains(&r.until)) {
                return Err(CodecError::Impossible("redirect"));
            }
            self.put_redirect(id(merged)?, redirect);
            return Ok(true);
        }
        let Some(known_as) = key.strip_prefix(Self::ALIASES) else { return Ok(false) };
        let aliases = value.map(read::<Aliases>).transpose()?;
        self.put_aliases(id(known_as)?, aliases.map_or(Vec::new(), |aliases| aliases.ids));
        Ok(true)
    }

    fn change_redirect(&mut self, id: &str, to: Option<Redirect>) {
        self.before.push(Before::Redirect(id.into(), self.redirects.get(id).cloned()));
        self.put_redirect(id.into(), to);
    }

    fn put_redirect(&mut self, id: Id, to: Option<Redirect>) {
        if let Some(old) = self.redirects.remove(&id) {
            self.by_end.remove(&(old.until, id.clone()));
            if old.origin.is_some() {
                self.by_note.remove(&(old.noted_at, id.clone()));
            }
        }
        if let Some(new) = to {
            self.by_end.insert((new.until, id.clone()));
            if new.origin.is_some() {
                self.by_note.insert((new.noted_at, id.clone()));
            }
            self.redirects.insert(id, new);
        }
    }

    fn change_aliases(&mut self, id: &str, to: Vec<Id>) {
        self.before.push(Before::Aliases(id.into(), self.aliases(id).to_vec()));
        self.put_aliases(id.into(), to);
    }

    fn put_aliases(&mut self, id: Id, to: Vec<Id>) {
        if to.is_empty() {
            self.aliases.remove(&id);
        } else {
            self.aliases.insert(id, to);
        }
    }

    /// The ids that went by this one, which from now on has none.
    fn take_aliases(&mut self, id: &str) -> Vec<Id> {
        let ids = self.aliases(id).to_vec();
        if !ids.is_empty() {
            self.change_aliases(id, Vec::new());
        }
        ids
    }

    /// Lets those go whom nothing has followed for long.
    pub(super) fn expire(&mut self, limit: Ts) {
        while let Some((_, id)) = self.by_end.first().filter(|(until, _)| *until <= limit).cloned() {
            self.change_redirect(&id, None);
        }
    }

    /// Lets the records go of merges that were noted up to then, some at a time.
    fn forget_records(&mut self, noted_to: Ts) {
        for _ in 0..RECORDS_AT_ONCE {
            let oldest = self.by_note.first().filter(|(noted_at, _)| *noted_at <= noted_to).cloned();
            let Some((_, id)) = oldest else { return };
            let without = self.redirects.get(&id).map(|with| Redirect { origin: None, ..with.clone() });
            self.change_redirect(&id, without);
        }
    }

    fn send(&mut self, message: Message) {
        self.outgoing.push_back(message);
    }

    /// What others must be told, in order.
    pub fn take_outgoing(&mut self) -> VecDeque<Message> {
        std::mem::take(&mut self.outgoing)
    }

    /// Merges that cannot be.
    pub fn take_refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused)
    }

    pub(super) fn commit(&mut self) {
        self.before.clear();
    }

    pub(super) fn rollback(&mut self) {
        self.outgoing.clear();
        self.refused.clear();
        for before in std::mem::take(&mut self.before).into_iter().rev() {
            match before {
                Before::Redirect(id, old) => self.put_redirect(id, old),
                Before::Aliases(id, old) => self.put_aliases(id, old),
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        // Ids stand in both tables and in the order of their ends.
        const REDIRECT_BYTES: usize = 200;
        let aliases: usize = self.aliases.values().map(|ids| 64 + ids.len() * 56).sum();
        const RECORD_BYTES: usize = 400;
        self.redirects.len() * REDIRECT_BYTES + self.by_note.len() * RECORD_BYTES + aliases
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    #[derive(Deserialize)]
    struct Version {
        v: u8,
    }
    match serde_json::from_slice::<Version>(bytes).map_err(|_| CodecError::Corrupt)?.v {
        VERSION => serde_json::from_slice(bytes).map_err(|_| CodecError::Corrupt),
        other => Err(CodecError::OtherVersion(other)),
    }
}

/// The ids that the event's traits say are its customer's as well: text or whole numbers that can be ids.
pub fn other_ids<'a>(identity: &'a Settings, event: &'a Event<'_>) -> impl Iterator<Item = Cow<'a, str>> {
    let changes = match event.profile.as_deref() {
        Some(ProfileChange::Traits(changes)) => changes.as_slice(),
        _ => &[],
    };
    let told = changes.iter().filter(|(name, _)| identity.traits.iter().any(|known| **known == **name));
    let ids = told.filter_map(|(_, value)| match value.as_ref()? {
        TraitValue::Text(text) => Some(Cow::Borrowed(&**text)),
        TraitValue::Number(x) if x.fract() == 0.0 && x.abs() < EXACT => Some(Cow::Owned(format!("{x:.0}"))),
        TraitValue::Number(_) | TraitValue::Flag(_) => None,
    });
    ids.filter(|id| (1..=MAX_CUSTOMER_ID_BYTES).contains(&id.len()) && *id != event.customer_id)
}

/// Whether the event says that two customers are one.
pub fn is_merge(event: &Event<'_>) -> bool {
    matches!(event.profile.as_deref(), Some(ProfileChange::Merged(_)))
}

impl Engine {
    /// The merged customers that are remembered, and what is due to be told.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    pub fn identities_mut(&mut self) -> &mut Identities {
        &mut self.identities
    }

    /// Lets the records of merges go that are older than [`RECORDS_KEPT_MS`] by the wall clock. To be asked while
    /// nothing waits to be read.
    pub fn forget_merge_records(&mut self) {
        self.identities.forget_records(self.opt_outs.wall().saturating_sub(RECORDS_KEPT_MS));
    }

    /// Takes in a record of the state topic about a merged customer; false when it is about something else.
    pub fn restore_identity(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool, CodecError> {
        self.identities.restore(key, value)
    }
}

#[cfg(test)]
mod tests;
