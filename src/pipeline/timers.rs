//! When each customer must be looked at next: a hierarchical timer wheel (Varghese and Lauck, 1987).
//!
//! Seven levels of 64 slots, from an eighth of a second, which is how late silence may be noticed, to all of the
//! years that RFC 3339 can write. A timer is four bytes in a slot. Moving one later, as every event does, costs
//! nothing: the entry stays where it is and is put back when it comes up too early, so the caller keeps the due
//! instant and the wheel only promises to name every customer at or before it.

use crate::time::{MIN_TS, Ts};

const LEVELS: usize = 7;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// What the wheel tells apart. The seven levels reach 2^42 of them, which is year 17,420.
const GRAIN_MS: i64 = 125;

/// The timers of one partition.
#[derive(Debug)]
pub struct Timers {
    /// In grains since year 0; everything before has been handed out.
    now: u64,
    slots: Vec<Vec<u32>>,
    occupied: [u64; LEVELS],
}

impl Default for Timers {
    fn default() -> Self {
        Timers { now: 0, slots: vec![Vec::new(); LEVELS * SLOTS], occupied: [0; LEVELS] }
    }
}

fn grain_of(ts: Ts) -> u64 {
    (ts.max(MIN_TS) - MIN_TS) as u64 / GRAIN_MS as u64
}

impl Timers {
    /// Asks for `customer` to be named by the first [`Timers::take_due`] whose limit reaches the end of the
    /// grain of `due`.
    pub fn insert(&mut self, due: Ts, customer: u32) {
        let grain = grain_of(due).max(self.now);
        // The level is that of the highest digit in which due and now differ.
        let distance = grain ^ self.now;
        let level = (63u32.saturating_sub(distance.leading_zeros()) / SLOT_BITS) as usize;
        let slot = (grain >> (level as u32 * SLOT_BITS)) as usize & (SLOTS - 1);
        self.occupied[level] |= 1 << slot;
        self.slots[level * SLOTS + slot].push(customer);
    }

    /// Whether a call of [`Timers::take_due`] with this limit could name anyone.
    #[inline]
    pub fn is_due(&self, limit: Ts) -> bool {
        grain_of(limit) > self.now
    }

    /// Names every customer whose grain has ended by `limit`. `due_of` gives the due instant anew when an
    /// entry moves down a level; entries may be early or stale, never late.
    pub fn take_due(&mut self, limit: Ts, due_of: impl Fn(u32) -> Ts, out: &mut Vec<u32>) {
        let end = grain_of(limit);
        while self.now < end {
            match self.next_grain() {
                Some(next) if next < end => {
                    if next > self.now {
                        self.now = next;
                        self.cascade(&due_of);
                    }
                    self.take_slot(out);
                    self.now += 1;
                }
                _ => self.now = end,
            }
            self.cascade(&due_of);
        }
    }

    fn take_slot(&mut self, out: &mut Vec<u32>) {
        let slot = self.now as usize & (SLOTS - 1);
        if self.occupied[0] >> slot & 1 == 1 {
            self.occupied[0] &= !(1 << slot);
            out.append(&mut self.slots[slot]);
        }
    }

    /// The next grain at which something happens: an occupied slot of the lowest level in this turn of the
    /// wheel, or the start of a slot of a higher level that holds something. `None` when all is empty.
    fn next_grain(&self) -> Option<u64> {
        let in_turn = self.occupied[0] >> (self.now as usize & (SLOTS - 1));
        if in_turn != 0 {
            return Some(self.now + u64::from(in_turn.trailing_zeros()));
        }
        (1..LEVELS).find_map(|level| {
            let shift = level as u32 * SLOT_BITS;
            let digit = (self.now >> shift) as u32 & (SLOTS as u32 - 1);
            // The slot of the current digit was cascaded when its turn began.
            let later = self.occupied[level] & (!0u64).checked_shl(digit + 1).unwrap_or(0);
            let base = self.now >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
            (later != 0).then(|| base + (u64::from(later.trailing_zeros()) << shift))
        })
    }

    /// Moves the entries of the slots that the current grain lies in down to where they belong.
    fn cascade(&mut self, due_of: &impl Fn(u32) -> Ts) {
        for level in (1..LEVELS).rev() {
            let slot = (self.now >> (level as u32 * SLOT_BITS)) as usize & (SLOTS - 1);
            if self.occupied[level] >> slot & 1 == 1 {
                self.occupied[level] &= !(1 << slot);
                for customer in std::mem::take(&mut self.slots[level * SLOTS + slot]) {
                    let due = due_of(customer);
                    // The place of a customer that is gone waits for nothing.
                    if due != Ts::MAX {
                        self.insert(due, customer);
                    }
                }
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.capacity() * 4 + size_of::<Vec<u32>>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn nobody_is_named_late_and_everybody_is_named(
            start in prop_oneof![Just(1_700_000_000_000i64), Just(-500_000_000_000), Just(0)],
            steps in prop::collection::vec((0u32..6, 1i64..1_000, 0usize..5), 1..120)
        ) {
            let scales = [1i64, 977, 60_000, 3_600_000, 86_400_000];
            let mut timers = Timers::default();
            let mut due: BTreeMap<u32, Ts> = BTreeMap::new();
            let mut now = start;
            let mut customers = 0u32;
            for (kind, n, scale) in steps {
                let span = n * scales[scale];
                match kind {
                    0..4 => {
                        let customer = customers;
                        customers += 1;
                        due.insert(customer, now + span);
                        timers.insert(now + span, customer);
                    }
                    _ => {
                        now += span;
                        let mut named = Vec::new();
                        timers.take_due(now, |c| due.get(&c).copied().unwrap_or(now), &mut named);
                        for customer in &named {
                            let at = due.remove(customer);
                            prop_assert!(at.is_some_and(|at| at.div_euclid(GRAIN_MS) < now.div_euclid(GRAIN_MS)));
                        }
                        for at in due.values() {
                            prop_assert!(at.div_euclid(GRAIN_MS) >= now.div_euclid(GRAIN_MS), "{} is late at {}", at, now);
                        }
                    }
                }
            }
            let mut named = Vec::new();
            timers.take_due(now + 200_000 * 86_400_000, |c| due.get(&c).copied().unwrap_or(now), &mut named);
            named.sort_unstable();
            prop_assert!(named.iter().copied().eq(due.keys().copied()));
        }
    }
}
