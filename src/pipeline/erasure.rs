//! Forgetting a customer: its state goes, its compacted records are tombstoned, a receipt says so, and for a
//! while nothing brings it back.
//!
//! Owns what is remembered of the erased: a salted hash of the id, when it was erased and until when its events
//! are dropped, never the id. The first event after that begins a new customer. Merges outlast it: what somebody
//! had who was folded into a customer before that was erased may still be under way between partitions, so the
//! instant of the erasure is kept for [`MERGES_AWAITED_MS`] of the wall clock, however far event time is by then,
//! and what comes by such a merge is erased too. PURE.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use super::codec::CodecError;
use super::emit;
use super::engine::{Applied, Engine};
use super::outbox::Channel;
use crate::event::{Event, ProfileChange};
use crate::time::{DAY_MS, MAX_TS, MIN_TS, Ts};

/// Wall-clock time for which the instant of an erasure is kept for merges that are under way. What passes between
/// partitions is kept for 7 days in its topic, and a chain of merges passes through it several times.
pub const MERGES_AWAITED_MS: i64 = 30 * DAY_MS;

/// A customer's id that cannot be read back: the first half of SHA-256 over the salt, a zero byte and the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerHash(pub [u8; 16]);

impl CustomerHash {
    pub fn new(salt: &str, customer_id: &str) -> CustomerHash {
        let digest = Sha256::new().chain_update(salt).chain_update([0]).chain_update(customer_id).finalize();
        let mut half = [0; 16];
        half.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        CustomerHash(half)
    }

    /// Lower-case hexadecimal.
    pub fn to_hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What is remembered of an erased customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptOut {
    pub erased_at: Ts,
    /// Events before this instant are dropped; [`MIN_TS`]: none is, or none is any more.
    pub until: Ts,
    /// The wall clock at the erasure; [`MIN_TS`] where no time passes by it.
    pub noted_at: Ts,
}

/// Raised whenever the meaning of the bytes changes. Version 1 had no `noted_at` and ended with `until`.
const VERSION: u8 = 2;

impl OptOut {
    /// What a record's key begins with. It is no UTF-8, so that no customer can have it.
    const KEY: &'static [u8] = b"\xffopt-out ";

    /// The key of its record in the state topic.
    pub fn key(hash: CustomerHash) -> Vec<u8> {
        [Self::KEY, &hash.0].concat()
    }

    /// Whose opt-out a key of the state topic is of; `None` when it is none.
    pub fn of_key(key: &[u8]) -> Option<CustomerHash> {
        key.strip_prefix(Self::KEY)?.try_into().ok().map(CustomerHash)
    }

    /// The value of its record in the state topic.
    pub fn encode(self) -> Vec<u8> {
        let instants = [self.erased_at, self.until, self.noted_at].map(i64::to_le_bytes);
        [&[VERSION][..], &instants.concat()].concat()
    }

    /// Whether it drops events, if they are old enough.
    fn shuts_out(self) -> bool {
        self.until > MIN_TS
    }

    fn decode(bytes: &[u8]) -> Result<OptOut, CodecError> {
        let (version, instants) = bytes.split_first().ok_or(CodecError::Corrupt)?;
        let (instants, rest) = instants.as_chunks::<8>();
        let instants: Vec<Ts> = instants.iter().map(|instant| i64::from_le_bytes(*instant)).collect();
        let (erased_at, until, noted_at) = match (*version, &instants[..], rest) {
            // Where it was not told, the clock stood near the event or beyond it.
            (1, &[erased_at, until], []) => (erased_at, until, erased_at),
            (VERSION, &[erased_at, until, noted_at], []) => (erased_at, until, noted_at),
            (1 | VERSION, ..) => return Err(CodecError::Corrupt),
            (other, ..) => return Err(CodecError::OtherVersion(other)),
        };
        let is_instant = |ts: Ts| (MIN_TS..=MAX_TS).contains(&ts);
        let all_are = is_instant(erased_at) && is_instant(until) && is_instant(noted_at);
        if all_are && (erased_at <= until || until == MIN_TS) {
            Ok(OptOut { erased_at, until, noted_at })
        } else {
            Err(CodecError::Impossible("opt-out"))
        }
    }
}

/// The erased of one partition, and how to take a transaction back.
#[derive(Debug)]
pub struct OptOuts {
    by_hash: HashMap<CustomerHash, OptOut>,
    /// Those that drop events, by the end of that; the others by the wall clock at their erasure.
    by_end: BTreeSet<(Ts, CustomerHash)>,
    by_note: BTreeSet<(Ts, CustomerHash)>,
    /// The latest reading of the wall clock, [`MIN_TS`] where nobody tells it.
    wall: Ts,
    /// What each was before the transaction, in order of change.
    before: Vec<(CustomerHash, Option<OptOut>)>,
}

impl Default for OptOuts {
    fn default() -> Self {
        OptOuts {
            by_hash: HashMap::new(),
            by_end: BTreeSet::new(),
            by_note: BTreeSet::new(),
            wall: MIN_TS,
            before: Vec::new(),
        }
    }
}

impl OptOuts {
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// Everybody who is remembered, in no order that means anything.
    pub fn all(&self) -> impl Iterator<Item = (CustomerHash, OptOut)> + '_ {
        self.by_hash.iter().map(|(hash, opt_out)| (*hash, *opt_out))
    }

    pub fn get(&self, hash: CustomerHash) -> Option<OptOut> {
        self.by_hash.get(&hash).copied()
    }

    /// The latest reading of the wall clock.
    pub(super) fn wall(&self) -> Ts {
        self.wall
    }

    /// What the transaction at hand must write: `None` for a tombstone.
    pub fn changes(&self) -> Vec<(CustomerHash, Option<OptOut>)> {
        let changed: BTreeSet<CustomerHash> = self.before.iter().map(|(hash, _)| *hash).collect();
        changed.into_iter().map(|hash| (hash, self.get(hash))).collect()
    }

    pub fn has_changed(&self) -> bool {
        !self.before.is_empty()
    }

    fn change(&mut self, hash: CustomerHash, to: Option<OptOut>) {
        self.before.push((hash, self.get(hash)));
        self.put(hash, to);
    }

    fn put(&mut self, hash: CustomerHash, to: Option<OptOut>) {
        match self.by_hash.remove(&hash) {
            Some(old) if old.shuts_out() => drop(self.by_end.remove(&(old.until, hash))),
            Some(old) => drop(self.by_note.remove(&(old.noted_at, hash))),
            None => {}
        }
        match to {
            Some(new) if new.shuts_out() => drop(self.by_end.insert((new.until, hash))),
            Some(new) => drop(self.by_note.insert((new.noted_at, hash))),
            None => return,
        }
        to.map(|new| self.by_hash.insert(hash, new));
    }

    /// No more events are dropped of those whose time is over by event time.
    pub(super) fn expire(&mut self, limit: Ts) {
        while let Some((_, hash)) = self.by_end.first().copied().filter(|(until, _)| *until <= limit) {
            self.lift(hash);
        }
    }

    /// No more events are dropped of this one; what comes by a merge before its erasure still is.
    fn lift(&mut self, hash: CustomerHash) {
        let lifted = self.get(hash).map(|out| OptOut { until: MIN_TS, ..out });
        self.change(hash, lifted);
    }

    /// Forgets those of whom no event is dropped, and for whom no merge can be under way any more.
    fn forget(&mut self, wall: Ts) {
        let limit = wall.saturating_sub(MERGES_AWAITED_MS);
        while let Some((_, hash)) = self.by_note.first().copied().filter(|(noted_at, _)| *noted_at <= limit) {
            self.change(hash, None);
        }
    }

    pub(super) fn commit(&mut self) {
        self.before.clear();
    }

    pub(super) fn rollback(&mut self) {
        for (hash, old) in std::mem::take(&mut self.before).into_iter().rev() {
            self.put(hash, old);
        }
    }

    fn bytes(&self) -> usize {
        self.by_hash.capacity() * (size_of::<(CustomerHash, OptOut)>() + 1) + self.by_hash.len() * 32
    }
}

impl Engine {
    /// Whether an event of a customer without a state is one that must not bring it back. An event after the
    /// opt-out ends it.
    pub(super) fn is_opted_out(&mut self, event: &Event<'_>) -> bool {
        // A later request is a new one, with a receipt of its own.
        let asks_anew = |out: OptOut| is_erasure(event) && event.ts > out.erased_at;
        self.shut_out(&event.customer_id, event.ts).is_some_and(|out| !asks_anew(out))
    }

    /// What is remembered of a customer's erasure, where it drops events of `ts`; it drops no more where that is over.
    pub(super) fn shut_out(&mut self, customer_id: &str, ts: Ts) -> Option<OptOut> {
        if self.opt_outs.is_empty() {
            return None;
        }
        let hash = self.hash_of(customer_id);
        let out = self.opt_outs.get(hash)?;
        if out.shuts_out() && ts >= out.until {
            self.opt_outs.lift(hash);
        }
        Some(out).filter(|out| ts < out.until)
    }

    /// When a customer was erased, if that was at `ts` or later: what comes by a merge of then is erased with it.
    pub(super) fn erased_since(&self, customer_id: &str, ts: Ts) -> Option<Ts> {
        if self.opt_outs.is_empty() {
            return None;
        }
        let out = self.opt_outs.get(self.hash_of(customer_id))?;
        Some(out.erased_at).filter(|erased_at| *erased_at >= ts)
    }

    /// Tells what the wall clock shows, by which erasures are noted.
    pub fn tell_wall(&mut self, wall: Ts) {
        self.opt_outs.wall = self.opt_outs.wall.max(wall.clamp(MIN_TS, MAX_TS));
    }

    /// Forgets the erasures that are over by event time and [`MERGES_AWAITED_MS`] old by the wall clock. To be asked
    /// while nothing waits to be read: what is unread may hold a merge.
    pub fn forget_erasures(&mut self) {
        self.opt_outs.forget(self.opt_outs.wall);
    }

    /// Erases the event's customer, known or not, and whoever it was before: whoever asks gets a receipt.
    pub(super) fn erase(&mut self, known: Option<u32>, event: &Event<'_>) -> Applied {
        let mut at = event.ts;
        if let Some(index) = known {
            let plan = Arc::clone(&self.plan);
            self.live_through(&plan, index, event.ts - 1);
            at = at.max(self.plan().head.now.get(self.store.row(index)));
            self.store.touch(index, false);
            self.count_out(index);
            self.store.erase(index);
        }
        self.note_erased(&event.customer_id, at, known.is_some());
        self.forget_aliases(&event.customer_id, at);
        if event.ts < at { Applied::Late } else { Applied::InOrder }
    }

    /// Remembers and writes down that a customer was erased.
    pub(super) fn note_erased(&mut self, customer_id: &str, at: Ts, known: bool) {
        let hash = self.hash_of(customer_id);
        let until = at.saturating_add(self.plan().settings.privacy.opt_out_ms).min(MAX_TS);
        let noted_at = self.opt_outs.wall;
        let opt_out = (until > at).then_some(OptOut { erased_at: at, until, noted_at });
        // One that comes late is not to shorten what the one before it covers.
        let erased_at = self.opt_outs.get(hash).map_or(at, |before| before.erased_at.max(at));
        let until = if until > at { until.max(erased_at) } else { MIN_TS };
        self.opt_outs.change(hash, Some(OptOut { erased_at, until, noted_at }));
        self.outbox.push_tombstone(Channel::ChurnScores, customer_id, at);
        let receipt = emit::Receipt { customer_hash: hash, ts: at, known, opt_out };
        self.outbox.push(Channel::Erasures, &hash.to_hex(), at, 0, |out| emit::receipt(out, &receipt));
    }

    fn hash_of(&self, customer_id: &str) -> CustomerHash {
        CustomerHash::new(&self.plan().settings.privacy.salt, customer_id)
    }

    /// The erased that are remembered.
    pub fn opt_outs(&self) -> &OptOuts {
        &self.opt_outs
    }

    /// Takes in what the state topic says of an erased customer: `None` for a tombstone.
    pub fn restore_opt_out(&mut self, hash: CustomerHash, value: Option<&[u8]>) -> Result<(), CodecError> {
        let opt_out = value.map(OptOut::decode).transpose()?;
        self.opt_outs.put(hash, opt_out);
        Ok(())
    }

    pub(super) fn opt_out_bytes(&self) -> usize {
        self.opt_outs.bytes()
    }
}

/// Whether the event asks for its customer to be erased.
pub fn is_erasure(event: &Event<'_>) -> bool {
    matches!(event.profile.as_deref(), Some(ProfileChange::Deleted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> CustomerHash {
        CustomerHash([n; 16])
    }

    fn out(erased_at: Ts, until: Ts) -> Option<OptOut> {
        Some(OptOut { erased_at, until, noted_at: 0 })
    }

    #[test]
    fn the_hash_is_what_a_shell_computes() {
        // printf '%s\0%s' stagecast c1 | sha256sum | cut -c1-32
        assert_eq!(CustomerHash::new("stagecast", "c1").to_hex(), "3d7dc543db81d46e8bae534781effbdc");
        assert_ne!(CustomerHash::new("stagecast", "c1"), CustomerHash::new("other", "c1"));
        assert_ne!(CustomerHash::new("a", "bc"), CustomerHash::new("ab", "c"));
    }

    #[test]
    fn keys_and_values_are_read_back_and_damage_is_told() {
        let opt_out = OptOut { erased_at: 5, until: 9, noted_at: 7 };
        let lifted = OptOut { until: MIN_TS, ..opt_out };
        assert_eq!(OptOut::decode(&lifted.encode()), Ok(lifted));
        let before = [&[1][..], &5i64.to_le_bytes(), &9i64.to_le_bytes()].concat();
        assert_eq!(OptOut::decode(&before), Ok(OptOut { noted_at: 5, ..opt_out }));
        assert_eq!(OptOut::of_key(&OptOut::key(hash(7))), Some(hash(7)));
        assert_eq!(OptOut::of_key(b"\xffcommit"), None);
        assert_eq!(OptOut::of_key(b"customer"), None);
        assert_eq!(OptOut::decode(&opt_out.encode()), Ok(opt_out));
        assert_eq!(OptOut::decode(&opt_out.encode()[..16]), Err(CodecError::Corrupt));
        assert_eq!(OptOut::decode(&[&opt_out.encode()[..], &[0]].concat()), Err(CodecError::Corrupt));
        assert_eq!(OptOut::decode(&[9]), Err(CodecError::OtherVersion(9)));
        let backwards = OptOut { erased_at: 9, until: 5, noted_at: 7 };
        assert_eq!(OptOut::decode(&backwards.encode()), Err(CodecError::Impossible("opt-out")));
        assert!(std::str::from_utf8(&OptOut::key(hash(b'a'))).is_err(), "a customer could have it");
    }

    #[test]
    fn each_expires_at_its_own_end_and_a_rollback_brings_all_back() {
        let mut outs = OptOuts::default();
        outs.change(hash(1), out(0, 10));
        outs.change(hash(2), out(0, 20));
        outs.commit();
        outs.change(hash(2), out(5, 30));
        outs.change(hash(3), out(5, 15));
        outs.expire(15);
        let (first, third) = (out(0, MIN_TS), out(5, MIN_TS));
        assert_eq!(outs.changes(), [(hash(1), first), (hash(2), out(5, 30)), (hash(3), third)]);
        outs.rollback();
        assert_eq!((outs.len(), outs.get(hash(1)), outs.get(hash(2))), (2, out(0, 10), out(0, 20)));
        outs.forget(MAX_TS);
        assert_eq!(outs.len(), 2, "they still drop events");
        outs.expire(20);
        assert!(outs.by_end.is_empty());
    }

    #[test]
    fn the_instant_of_an_erasure_outlasts_event_time_until_no_merge_is_under_way() {
        let mut outs = OptOuts::default();
        outs.change(hash(1), out(0, 10));
        outs.change(hash(2), Some(OptOut { erased_at: 0, until: MIN_TS, noted_at: DAY_MS }));
        outs.expire(MAX_TS);
        outs.commit();
        outs.forget(MERGES_AWAITED_MS - 1);
        assert!(!outs.has_changed());
        outs.forget(MERGES_AWAITED_MS);
        assert_eq!(outs.changes(), [(hash(1), None)]);
        outs.rollback();
        assert_eq!((outs.len(), outs.get(hash(1))), (2, out(0, MIN_TS)));
        outs.forget(MERGES_AWAITED_MS + DAY_MS);
        assert!(outs.is_empty() && outs.by_note.is_empty());
    }
}
