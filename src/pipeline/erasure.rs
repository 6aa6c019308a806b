//! Forgetting a customer: its state goes, its compacted records are tombstoned, a receipt says so, and for a
//! while nothing brings it back.
//!
//! Owns what is remembered of the erased: a salted hash of the id and until when, never the id. Events of the
//! erased older than that are dropped; the first one after it begins a new customer. PURE.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use super::codec::CodecError;
use super::emit;
use super::engine::{Applied, Engine};
use super::outbox::Channel;
use crate::event::{Event, ProfileChange};
use crate::time::{MAX_TS, MIN_TS, Ts};

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
    /// Events before this instant are dropped.
    pub until: Ts,
}

/// Raised whenever the meaning of the bytes changes.
const VERSION: u8 = 1;

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
        [&[VERSION][..], &self.erased_at.to_le_bytes(), &self.until.to_le_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Result<OptOut, CodecError> {
        let (version, instants) = bytes.split_first().ok_or(CodecError::Corrupt)?;
        if *version != VERSION {
            return Err(CodecError::OtherVersion(*version));
        }
        let (erased_at, until) = instants.split_first_chunk::<8>().ok_or(CodecError::Corrupt)?;
        let until: [u8; 8] = until.try_into().map_err(|_| CodecError::Corrupt)?;
        let (erased_at, until) = (i64::from_le_bytes(*erased_at), i64::from_le_bytes(until));
        let is_instant = |ts: Ts| (MIN_TS..=MAX_TS).contains(&ts);
        if is_instant(erased_at) && is_instant(until) && erased_at <= until {
            Ok(OptOut { erased_at, until })
        } else {
            Err(CodecError::Impossible("opt-out"))
        }
    }
}

/// The erased of one partition, and how to take a transaction back.
#[derive(Debug, Default)]
pub struct OptOuts {
    by_hash: HashMap<CustomerHash, OptOut>,
    by_end: BTreeSet<(Ts, CustomerHash)>,
    /// What each was before the transaction, in order of change.
    before: Vec<(CustomerHash, Option<OptOut>)>,
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
        if let Some(old) = self.by_hash.remove(&hash) {
            self.by_end.remove(&(old.until, hash));
        }
        if let Some(new) = to {
            self.by_hash.insert(hash, new);
            self.by_end.insert((new.until, hash));
        }
    }

    /// Forgets those whose time is over.
    pub(super) fn expire(&mut self, limit: Ts) {
        while let Some((_, hash)) = self.by_end.first().copied().filter(|(until, _)| *until <= limit) {
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
        self.by_hash.capacity() * (size_of::<(CustomerHash, OptOut)>() + 1) + self.by_end.len() * 32
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

    /// What is remembered of a customer's erasure, where it holds at `ts`; it is forgotten where it is over.
    pub(super) fn shut_out(&mut self, customer_id: &str, ts: Ts) -> Option<OptOut> {
        if self.opt_outs.is_empty() {
            return None;
        }
        let hash = self.hash_of(customer_id);
        let out = self.opt_outs.get(hash)?;
        if ts >= out.until {
            self.opt_outs.change(hash, None);
        }
        Some(out).filter(|out| ts < out.until)
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
        let opt_out = (until > at).then_some(OptOut { erased_at: at, until });
        if opt_out.is_some() {
            self.opt_outs.change(hash, opt_out);
        }
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
        Some(OptOut { erased_at, until })
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
        let opt_out = OptOut { erased_at: 5, until: 9 };
        assert_eq!(OptOut::of_key(&OptOut::key(hash(7))), Some(hash(7)));
        assert_eq!(OptOut::of_key(b"\xffcommit"), None);
        assert_eq!(OptOut::of_key(b"customer"), None);
        assert_eq!(OptOut::decode(&opt_out.encode()), Ok(opt_out));
        assert_eq!(OptOut::decode(&opt_out.encode()[..16]), Err(CodecError::Corrupt));
        assert_eq!(OptOut::decode(&[&opt_out.encode()[..], &[0]].concat()), Err(CodecError::Corrupt));
        assert_eq!(OptOut::decode(&[9]), Err(CodecError::OtherVersion(9)));
        let backwards = OptOut { erased_at: 9, until: 5 };
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
        assert_eq!(outs.changes(), [(hash(1), None), (hash(2), out(5, 30)), (hash(3), None)]);
        outs.rollback();
        assert_eq!((outs.len(), outs.get(hash(1)), outs.get(hash(2))), (2, out(0, 10), out(0, 20)));
        outs.expire(20);
        assert!(outs.is_empty() && outs.by_end.is_empty());
    }
}
