//! The packed log of a customer's panes: what happened in which hour or day, and nothing where nothing did.
//!
//! A pane is `varint((hours since the pane before << 1) | whole_day)`, `varint(mask of measures present)`,
//! then one zigzag varint per measure. Panes stand in the order of their start. Recent panes span an hour;
//! once no hourly window can see them they are folded into their day ([`super::windows`]). A typical pane of
//! a click is 6 bytes. The same bytes go to the changelog.

use thin_vec::ThinVec;

use super::layout::Combine;
use super::varint::{Packed, get_i64, get_u64, get_u128, len_u64, put_i64, put_u64, put_u128};
use crate::time::{HOUR_MS, MIN_TS, Ts};

/// Hours since 0000-01-01T00:00Z; multiples of 24 are UTC midnights.
pub type Hour = u32;

pub fn hour_of(ts: Ts) -> Hour {
    (ts.max(MIN_TS) - MIN_TS).div_euclid(HOUR_MS) as Hour
}

pub fn hour_start(hour: Hour) -> Ts {
    MIN_TS + i64::from(hour) * HOUR_MS
}

/// Where a pane stands and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub hour: Hour,
    pub whole_day: bool,
    pub mask: u128,
}

/// The measures of one pane while it is being changed. Values without their bit in `mask` mean nothing.
#[derive(Clone, Debug)]
pub struct Measures {
    pub mask: u128,
    values: Box<[i64]>,
}

impl Measures {
    pub fn new(slots: usize) -> Self {
        Measures { mask: 0, values: vec![0; slots].into() }
    }

    pub fn clear(&mut self) {
        self.mask = 0;
    }

    pub fn get(&self, slot: u8) -> Option<i64> {
        (self.mask >> slot & 1 == 1).then(|| self.values[usize::from(slot)])
    }

    pub fn put(&mut self, slot: u8, value: i64) {
        self.mask |= 1 << slot;
        self.values[usize::from(slot)] = value;
    }

    /// Folds a value in. A sum that comes to nothing leaves the pane.
    pub fn combine(&mut self, slot: u8, combine: Combine, value: i64) {
        let Some(old) = self.get(slot) else { return self.put(slot, value) };
        let new = match combine {
            Combine::Add => old.saturating_add(value),
            Combine::Min => old.min(value),
            Combine::Max => old.max(value),
        };
        self.values[usize::from(slot)] = new;
        if new == 0 && combine == Combine::Add && value < 0 {
            self.mask &= !(1 << slot);
        }
    }

    /// The measures present, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u8, i64)> + '_ {
        bits(self.mask).map(|slot| (slot, self.values[usize::from(slot)]))
    }
}

/// The set bits of a mask, lowest first.
#[inline]
pub fn bits(mask: u128) -> impl Iterator<Item = u8> {
    // In halves: few catalogues reach the upper one, and one word is stepped through faster than two.
    let (mut low, mut high) = (mask as u64, (mask >> 64) as u64);
    std::iter::from_fn(move || {
        let (half, first) = if low != 0 { (&mut low, 0) } else { (&mut high, 64) };
        (*half != 0).then(|| {
            let slot = half.trailing_zeros() as u8;
            *half &= *half - 1;
            first + slot
        })
    })
}

/// Reads the pane at `at`, whose predecessor starts at `previous` (0 for the first). Calls `visit` for each
/// measure; returns the head and where the next pane stands.
#[inline]
pub fn read(bytes: &[u8], at: usize, previous: Hour, mut visit: impl FnMut(u8, i64)) -> (Head, usize) {
    let (head, mut at) = read_head(bytes, at, previous);
    for slot in bits(head.mask) {
        visit(slot, get_i64(bytes, &mut at));
    }
    (head, at)
}

/// Reads only the head of the pane at `at`; returns it and where its values stand.
#[inline]
pub fn read_head(bytes: &[u8], mut at: usize, previous: Hour) -> (Head, usize) {
    let first = get_u64(bytes, &mut at);
    let mask = get_u128(bytes, &mut at);
    let hour = previous.wrapping_add((first >> 1) as Hour);
    (Head { hour, whole_day: first & 1 == 1, mask }, at)
}

/// Where the pane ends whose values stand at `at`.
#[inline]
pub fn skip(bytes: &[u8], mut at: usize, mask: u128) -> usize {
    let mut left = mask.count_ones();
    while left > 0 {
        left -= u32::from(bytes.get(at).is_none_or(|byte| *byte < 0x80));
        at += 1;
    }
    at
}

/// Appends a pane behind one that starts at `previous`.
pub fn write(bytes: &mut impl Packed, previous: Hour, hour: Hour, whole_day: bool, measures: &Measures) {
    write_head(bytes, previous, Head { hour, whole_day, mask: measures.mask });
    for (_, value) in measures.iter() {
        put_i64(bytes, value);
    }
}

/// How many bytes [`write`] appends.
pub fn len(previous: Hour, hour: Hour, measures: &Measures) -> usize {
    let zigzag = |value: i64| ((value << 1) ^ (value >> 63)) as u64;
    let values: usize = measures.iter().map(|(_, value)| len_u64(zigzag(value))).sum();
    let mask = (128 - (measures.mask | 1).leading_zeros()).div_ceil(7) as usize;
    len_u64(u64::from(hour.wrapping_sub(previous)) << 1) + mask + values
}

/// Appends the head of a pane behind one that starts at `previous`; its values follow.
pub fn write_head(bytes: &mut impl Packed, previous: Hour, head: Head) {
    put_u64(bytes, u64::from(head.hour - previous) << 1 | u64::from(head.whole_day));
    put_u128(bytes, head.mask);
}

/// A pane on its own, for the rare paths that rearrange the log.
#[derive(Clone, Debug)]
pub struct OwnedPane {
    pub hour: Hour,
    pub whole_day: bool,
    pub measures: Measures,
}

impl OwnedPane {
    /// Panes stand by start; a day before its own first hour.
    pub fn order(&self) -> (Hour, bool) {
        (self.hour, !self.whole_day)
    }
}

/// All panes of a log.
pub fn unpack(bytes: &[u8], slots: usize) -> Vec<OwnedPane> {
    let (mut panes, mut at, mut hour) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let mut measures = Measures::new(slots);
        let (head, next) = read(bytes, at, hour, |slot, value| measures.put(slot, value));
        (hour, at) = (head.hour, next);
        panes.push(OwnedPane { hour, whole_day: head.whole_day, measures });
    }
    panes
}

/// Writes panes as a log; returns where the last one starts.
pub fn pack(panes: &[OwnedPane], bytes: &mut ThinVec<u8>) -> usize {
    bytes.clear();
    let (mut previous, mut tail) = (0, 0);
    for pane in panes {
        tail = bytes.len();
        write(bytes, previous, pane.hour, pane.whole_day, &pane.measures);
        previous = pane.hour;
    }
    tail
}

/// Whether bytes from outside are a well-formed log over `slots` measures.
pub fn is_valid(bytes: &[u8], slots: usize) -> bool {
    let (mut at, mut previous, mut order) = (0, 0u32, None);
    while at < bytes.len() {
        let first = get_u64(bytes, &mut { at });
        let Some(hour) = u32::try_from(first >> 1).ok().and_then(|d| previous.checked_add(d)) else {
            return false;
        };
        let mut known = true;
        let (head, next) = read(bytes, at, previous, |slot, _| known &= usize::from(slot) < slots);
        let this = Some((hour, !head.whole_day));
        let aligned = !head.whole_day || hour % 24 == 0;
        if !known || !aligned || next > bytes.len() || head.mask == 0 || this <= order {
            return false;
        }
        (at, previous, order) = (next, hour, this);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packing_is_the_inverse_of_unpacking() {
        let mut panes = Vec::new();
        for (hour, whole_day, slot, value) in
            [(17_500_008, true, 3, 7), (17_500_008, false, 0, -1), (17_500_100, false, 5, 1 << 40)]
        {
            let mut measures = Measures::new(8);
            measures.put(slot, value);
            measures.put(7, 2);
            let mut alone = ThinVec::new();
            write(&mut alone, 17_000_000, hour, whole_day, &measures);
            assert_eq!(alone.len(), len(17_000_000, hour, &measures));
            panes.push(OwnedPane { hour, whole_day, measures });
        }
        let mut bytes = ThinVec::new();
        let tail = pack(&panes, &mut bytes);
        assert!(is_valid(&bytes, 8) && !is_valid(&bytes, 7) && !is_valid(&bytes[..bytes.len() - 1], 8));
        let again = unpack(&bytes, 8);
        for (a, b) in panes.iter().zip(&again) {
            assert_eq!((a.hour, a.whole_day, a.measures.mask), (b.hour, b.whole_day, b.measures.mask));
            assert!(a.measures.iter().eq(b.measures.iter()));
        }
        assert_eq!(read_head(&bytes, tail, 17_500_008).0.hour, 17_500_100);
    }

    proptest! {
        #[test]
        fn validation_of_anything_ends_without_panic(bytes: Vec<u8>, slots in 0usize..129) {
            is_valid(&bytes, slots);
        }
    }
}
