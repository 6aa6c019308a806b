//! What is due to go out: records in one buffer, in the order in which they were decided.

use std::ops::Range;
use std::sync::Arc;

use crate::event::trace::Trace;
use crate::time::Ts;

/// The topics that customers' outputs go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    StageChanges,
    ChurnScores,
    ChurnAlerts,
    ChurnOutcomes,
    /// Receipts of erasures, keyed by the customer's hash.
    Erasures,
}

impl Channel {
    pub const ALL: [Channel; 5] = [
        Channel::StageChanges,
        Channel::ChurnScores,
        Channel::ChurnAlerts,
        Channel::ChurnOutcomes,
        Channel::Erasures,
    ];

    /// The CloudEvents type.
    pub fn event_type(self) -> &'static str {
        match self {
            Channel::StageChanges => "io.stagecast.stage.changed.v1",
            Channel::ChurnScores => "io.stagecast.score.updated.v1",
            Channel::ChurnAlerts => "io.stagecast.alert.raised.v1",
            Channel::ChurnOutcomes => "io.stagecast.outcome.known.v1",
            Channel::Erasures => "io.stagecast.customer.erased.v1",
        }
    }
}

/// One record of the outbox.
#[derive(Clone, Debug)]
pub struct Record {
    pub channel: Channel,
    key: Range<usize>,
    value: Range<usize>,
    /// Event time.
    pub ts: Ts,
    /// CloudEvents id: the same whenever the same output is computed again.
    pub id: u128,
}

impl Record {
    /// Whether it takes back all that a compacted topic holds under its key. Its value is empty.
    pub fn is_tombstone(&self) -> bool {
        self.value.is_empty()
    }
}

/// Room that is kept for good: every partition has an outbox, and few need much of one.
const KEPT_BYTES: usize = 64 * 1024;
/// Half of the room is given back once so many times in a row three quarters of it were of no use. Sooner, what a burst
/// of one partition needs would be given back and taken anew again and again.
const SPARE_TIMES: u8 = 64;

/// Records waiting for their transaction.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// The traces of the few records that belong to one, by the record's place.
    traces: Vec<(usize, Arc<Trace>)>,
    /// How often in a row there was far more room than needed.
    spare: u8,
}

impl Outbox {
    /// Appends a record whose JSON `write` produces.
    pub fn push(
        &mut self,
        channel: Channel,
        key: &str,
        ts: Ts,
        number: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key.as_bytes());
        let value_start = self.bytes.len();
        write(&mut self.bytes);
        let id = record_id(channel, key, ts, number);
        let value = value_start..self.bytes.len();
        self.records.push(Record { channel, key: key_start..value_start, value, ts, id });
    }

    /// Appends a record without a value.
    pub fn push_tombstone(&mut self, channel: Channel, key: &str, ts: Ts) {
        self.push(channel, key, ts, 0, |_| {});
    }

    pub fn records(&self) -> impl Iterator<Item = (&Record, &[u8], &[u8])> {
        self.records.iter().map(|r| (r, &self.bytes[r.key.clone()], &self.bytes[r.value.clone()]))
    }

    /// Says that the records from the one numbered `from` on which are due at `since` or later came of an event
    /// with this trace. Those before it came of silence.
    pub fn belong_to(&mut self, trace: &Arc<Trace>, from: usize, since: Ts) {
        let numbered = self.records.iter().enumerate().skip(from);
        let caused = numbered.filter(|(_, record)| record.ts >= since);
        self.traces.extend(caused.map(|(place, _)| (place, Arc::clone(trace))));
    }

    /// The trace of the record at this place of [`Outbox::records`].
    pub fn trace_of(&self, place: usize) -> Option<&Trace> {
        let found = self.traces.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        Some(&*self.traces[found].1)
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn clear(&mut self) {
        let is_spare = self.bytes.len() < self.bytes.capacity() / 4 && self.capacity_bytes() > KEPT_BYTES;
        self.spare = if is_spare { self.spare + 1 } else { 0 };
        self.bytes.clear();
        self.records.clear();
        self.traces.clear();
        if self.spare == SPARE_TIMES {
            self.spare = 0;
            self.bytes.shrink_to(self.bytes.capacity() / 2);
            self.records.shrink_to(self.records.capacity() / 2);
        }
    }

    /// Bytes held, used or not.
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.capacity() + self.records.capacity() * size_of::<Record>()
    }
}

/// Any hash of a customer id, the same in every process.
pub fn hash_customer(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

/// 128 bits of the customer, the topic, the customer's running number and, since an erased customer who comes
/// back counts anew, the instant.
fn record_id(channel: Channel, key: &str, ts: Ts, number: u32) -> u128 {
    let seed = (u64::from(number) << 8 | channel as u64) ^ (ts as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    xxhash_rust::xxh3::xxh3_128_with_seed(key.as_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_event_caused_belongs_to_its_trace() {
        let trace = Arc::new(Trace::new(crate::event::trace::tests::PARENT, None).unwrap());
        let mut outbox = Outbox::default();
        for ts in [5, 1, 2, 3] {
            outbox.push(Channel::StageChanges, "c", ts, 0, |out| out.push(b'1'));
        }
        outbox.belong_to(&trace, 1, 2);
        let traced: Vec<bool> = (0..4).map(|place| outbox.trace_of(place).is_some()).collect();
        assert_eq!(traced, [false, false, true, true]);
        outbox.clear();
        assert!(outbox.trace_of(2).is_none());
    }

    #[test]
    fn room_is_given_back_once_nobody_has_needed_it_for_long() {
        let mut outbox = Outbox::default();
        let mut fill = |bytes: usize, times: usize| {
            for _ in 0..times {
                outbox.push(Channel::StageChanges, "c", 0, 0, |out| out.resize(out.len() + bytes, b'1'));
                outbox.clear();
            }
            outbox.capacity_bytes()
        };
        let most = fill(1 << 20, 1);
        assert_eq!(fill(10, usize::from(SPARE_TIMES) - 1), most);
        assert_eq!(fill(1 << 19, 1), most, "it is needed again");
        assert!(fill(10, 10 * usize::from(SPARE_TIMES)) <= KEPT_BYTES);
    }
}
