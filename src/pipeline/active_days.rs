//! On which of the last days a customer was active: one bit for each, counted back from the last active day.
//!
//! Owns the bits. They are a function of the events alone, whatever the order of arrival: the newest day is always
//! bit 0, and what lies more than [`DAYS`] before it has none.

use super::layout::NEVER;
use super::words::Slot;
use crate::time::{DAY_MS, Ts};

/// So many days have a bit.
pub const DAYS: u32 = u64::BITS;

/// The bits, and the instant of the last event, which decides what day bit 0 is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActiveDays {
    pub bits: Slot<i64>,
    pub last: Slot<i64>,
}

impl ActiveDays {
    /// Notes an event. The last instant must still be what it was before it.
    pub fn note(&self, row: &mut [u32], ts: Ts) {
        self.add(row, 1, ts);
    }

    /// Adds another customer's days. The last instant must still be this customer's own.
    pub fn join(&self, row: &mut [u32], other: &[u32]) {
        self.add(row, self.bits.get(other) as u64 | 1, self.last.get(other));
    }

    /// The mean time between the active days among so many up to the last one, in days; `None` below two.
    pub fn gap(&self, row: &[u32], days: u32) -> Option<f64> {
        let bits = self.bits.get(row) as u64 & u64::MAX >> DAYS.saturating_sub(days);
        let gaps = bits.count_ones().checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(f64::from(bits.ilog2()) / f64::from(gaps))
    }

    /// Adds bits whose first is the day of `ts`. The day of the last instant counts even in a state from before days were
    /// kept.
    fn add(&self, row: &mut [u32], bits: u64, ts: Ts) {
        let (last, own) = (self.last.get(row), self.bits.get(row) as u64 | 1);
        let all = match (last, ts) {
            (_, NEVER) => return,
            (NEVER, _) => bits,
            _ => {
                let later = ts.div_euclid(DAY_MS) - last.div_euclid(DAY_MS);
                if later > 0 { back(own, later) | bits } else { own | back(bits, -later) }
            }
        };
        self.bits.set(row, all as i64);
    }
}

/// Bits counted from a day so many days later.
fn back(bits: u64, days: i64) -> u64 {
    u32::try_from(days).ok().and_then(|days| bits.checked_shl(days)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::words::RowBuilder;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn laid_out() -> (ActiveDays, Vec<u32>) {
        let mut row = RowBuilder::default();
        let active = ActiveDays { bits: row.slot(0i64), last: row.slot(NEVER) };
        (active, row.finish().to_vec())
    }

    fn after(events: &[Ts]) -> (ActiveDays, Vec<u32>) {
        let (active, mut row) = laid_out();
        for ts in events {
            active.note(&mut row, *ts);
            let last = active.last.get(&row).max(*ts);
            active.last.set(&mut row, last);
        }
        (active, row)
    }

    /// The same, by a set of days.
    fn counted(events: &[Ts], days: i64) -> Option<f64> {
        let active: BTreeSet<i64> = events.iter().map(|ts| ts.div_euclid(DAY_MS)).collect();
        let last = active.last().copied()?;
        let recent: Vec<i64> = active.into_iter().filter(|day| last - day < days).collect();
        (recent.len() > 1).then(|| (last - recent[0]) as f64 / (recent.len() - 1) as f64)
    }

    #[test]
    fn a_state_from_before_days_were_kept_begins_with_its_last() {
        let (active, mut row) = after(&[5 * DAY_MS]);
        active.bits.set(&mut row, 0);
        active.note(&mut row, 9 * DAY_MS);
        assert_eq!(active.gap(&row, DAYS), Some(4.0));
    }

    proptest! {
        #[test]
        fn in_any_order_and_joined_from_any_parts_the_days_are_the_same(
            hours in prop::collection::vec(-3_000i64..3_000, 0..60),
            split in 0usize..60,
            days in 1u32..=DAYS,
        ) {
            let events: Vec<Ts> = hours.iter().map(|h| h * 3_600_000).collect();
            let (active, row) = after(&events);
            prop_assert_eq!(active.gap(&row, days), counted(&events, i64::from(days)));
            let mut sorted = events.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&after(&sorted).1, &row);
            let (some, others) = events.split_at(split.min(events.len()));
            let (mut joined, theirs) = (after(some).1, after(others).1);
            active.join(&mut joined, &theirs);
            active.last.set(&mut joined, active.last.get(&row));
            prop_assert_eq!(&joined, &row);
        }
    }
}
