//! The row of a customer at rest: how each word is written, as those of a partition mostly are, and what that leaves.
//!
//! Most words are what they were in a new customer, small, or close to another one (the instants of one event stand in
//! many slots). Of these kinds each place of a row has its habit: the same word of other customers is mostly of the
//! same. So the kind that is the most frequent at a place takes one bit, the next two, the third three, and any other
//! eight; behind these stands what the kinds do not say. Habits are learned from the rows that are packed, and learned
//! anew as more are known. None is forgotten, so that whoever was packed by older ones can be read.

use super::varint::{get_u64, put_u64};

/// How a word that changed is written; below `ONE_BYTE` it is the number itself.
const ONE_BYTE: u8 = 7;
const TWO_BYTES: u8 = 8;
const THREE_BYTES: u8 = 9;
const FOUR_BYTES: u8 = 10;
/// The second word before it, or close to that: what pairs of words have in common, one half has with its like.
const AS_SECOND_BEFORE: u8 = 11;
const NEAR_SECOND_BEFORE: u8 = 12;
const ABOUT_SECOND_BEFORE: u8 = 13;
/// The first word of the row.
const AS_FIRST: u8 = 14;
/// A word that stands so many places (a byte) before it.
const AGAIN: u8 = 15;

/// As in a new customer.
const UNCHANGED: u8 = 16;
const KINDS: usize = 17;

/// Kinds of a place that have a short code.
const RANKS: usize = 3;
/// In front of a kind that has none, and the bits of both.
const OTHER: u16 = (1 << RANKS) - 1;
const OTHER_BITS: usize = 8;
/// Of a place of which nothing is known yet.
const AT_FIRST: [u8; RANKS] = [UNCHANGED, FOUR_BYTES, ONE_BYTE];
/// Rows from which the first habits are learned; the next ones from four times as many each.
const LEARNED_FROM: u32 = if cfg!(debug_assertions) { 8 } else { 256 };
const VERSIONS_MOST: usize = 8;
/// Once there are habits, one row of so many is learned from.
const SAMPLE: u64 = 16;

/// What is known of the rows of one partition.
#[derive(Debug, Default)]
pub struct Habits {
    /// The most frequent kinds by place, as they were learned. The first was not.
    versions: Vec<Box<[[u8; RANKS]]>>,
    /// How often a place was of a kind, in rows since the last version.
    counts: Vec<[u32; KINDS]>,
    counted: u32,
    packed: u64,
    kinds: Vec<u8>,
    others: Vec<u8>,
}

impl Habits {
    /// Appends a row.
    pub fn put(&mut self, row: &[u32], new_row: &[u32], out: &mut Vec<u8>) {
        let is_counted = self.is_counted(row.len());
        let Some(habits) = self.versions.last() else { return };
        self.kinds.clear();
        self.others.clear();
        let (mut places, mut codes) = (Places::default(), BitWriter::default());
        for (place, ((word, new), ranks)) in row.iter().zip(new_row).zip(habits).enumerate() {
            let kind =
                if word == new { UNCHANGED } else { put_word(row, place, &mut places, &mut self.others) };
            let (code, bits) = match ranks.iter().position(|of_rank| *of_rank == kind) {
                Some(rank) => ((1 << rank) - 1, rank + 1),
                None => (u16::from(kind) << RANKS | OTHER, OTHER_BITS),
            };
            codes.put(code, bits, &mut self.kinds);
            if is_counted {
                self.counts[place][usize::from(kind)] += 1;
            }
        }
        codes.finish(&mut self.kinds);
        out.push(self.versions.len() as u8 - 1);
        put_u64(out, self.kinds.len() as u64);
        out.extend_from_slice(&self.kinds);
        out.extend_from_slice(&self.others);
        if is_counted {
            self.learn();
        }
    }

    fn is_counted(&mut self, words: usize) -> bool {
        if self.versions.is_empty() {
            self.versions.push(vec![AT_FIRST; words].into());
            self.counts.resize(words, [0; KINDS]);
        }
        self.packed += 1;
        let versions = self.versions.len();
        versions == 1 || versions < VERSIONS_MOST && self.packed.is_multiple_of(SAMPLE)
    }

    /// Takes notice of a row that was counted.
    fn learn(&mut self) {
        self.counted += 1;
        if self.counted < LEARNED_FROM << (2 * (self.versions.len() - 1)) {
            return;
        }
        let most_frequent = |counts: &[u32; KINDS]| {
            let mut kinds: [u8; KINDS] = std::array::from_fn(|kind| kind as u8);
            kinds.sort_by_key(|kind| std::cmp::Reverse(counts[usize::from(*kind)]));
            std::array::from_fn(|rank| kinds[rank])
        };
        self.versions.push(self.counts.iter().map(most_frequent).collect());
        self.counts.fill([0; KINDS]);
        self.counted = 0;
    }

    /// The inverse of [`Habits::put`]; `at` stands behind the row afterwards.
    pub fn get(&self, bytes: &[u8], at: &mut usize, new_row: &[u32], row: &mut [u32]) {
        row.copy_from_slice(new_row);
        let habits = &self.versions[usize::from(bytes[*at])];
        *at += 1;
        let len = get_u64(bytes, at) as usize;
        let kinds = &bytes[*at..*at + len];
        *at += len;
        let mut codes = BitReader::default();
        for (place, ranks) in habits.iter().enumerate() {
            let code = codes.see(kinds);
            let rank = code.trailing_ones() as usize;
            let kind = if rank < RANKS {
                codes.pass(rank + 1);
                ranks[rank]
            } else {
                codes.pass(OTHER_BITS);
                (code >> RANKS) as u8 & 0x1f
            };
            if kind != UNCHANGED {
                row[place] = get_word(bytes, at, kind, row, place);
            }
        }
    }

    /// Bytes of what is known.
    pub fn bytes(&self) -> usize {
        let learned: usize = self.versions.iter().map(|ranks| ranks.len() * RANKS).sum();
        let counts = self.counts.capacity() * size_of::<[u32; KINDS]>();
        learned + counts + self.kinds.capacity() + self.others.capacity()
    }
}

/// Bits on their way into bytes, the lowest first.
#[derive(Default)]
struct BitWriter {
    bits: u64,
    count: usize,
}

impl BitWriter {
    /// At most 32 at once.
    #[inline]
    fn put(&mut self, code: u16, bits: usize, out: &mut Vec<u8>) {
        self.bits |= u64::from(code) << self.count;
        self.count += bits;
        if self.count >= 32 {
            out.extend_from_slice(&(self.bits as u32).to_le_bytes());
            self.bits >>= 32;
            self.count -= 32;
        }
    }

    fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bits.to_le_bytes()[..self.count.div_ceil(8)]);
    }
}

/// The inverse.
#[derive(Default)]
struct BitReader {
    bits: u64,
    count: usize,
    at: usize,
}

impl BitReader {
    /// What comes next: at least eight bits.
    #[inline]
    fn see(&mut self, bytes: &[u8]) -> u64 {
        if self.count < OTHER_BITS {
            self.bits |= u64::from(four_bytes(bytes, self.at)) << self.count;
            self.count += 32;
            self.at += 4;
        }
        self.bits
    }

    #[inline]
    fn pass(&mut self, bits: usize) {
        self.bits >>= bits;
        self.count -= bits;
    }
}

/// Writes what does not fit into the kind, which it returns.
fn put_word(row: &[u32], place: usize, places: &mut Places, out: &mut Vec<u8>) -> u8 {
    let word = row[place];
    let mut put = |kind: u8, word: u32| {
        let end = out.len() + width_of(kind);
        // As many as a word has, and back: so many are copied at once, any number of them one by one.
        out.extend_from_slice(&word.to_le_bytes());
        out.truncate(end);
        kind
    };
    let before = second_before(row, place);
    let away = word.wrapping_sub(before).cast_signed();
    match word {
        _ if word < u32::from(ONE_BYTE) => word as u8,
        _ if away == 0 => AS_SECOND_BEFORE,
        _ if word == row[0] && place > 0 => AS_FIRST,
        0..0x100 => put(ONE_BYTE, word),
        _ if i8::try_from(away).is_ok() => put(NEAR_SECOND_BEFORE, away.cast_unsigned()),
        _ => match places.find(row, place) {
            Some(back) => put(AGAIN, u32::from(back)),
            None if word < 0x1_0000 => put(TWO_BYTES, word),
            None if i16::try_from(away).is_ok() => put(ABOUT_SECOND_BEFORE, away.cast_unsigned()),
            None if word < 0x100_0000 => put(THREE_BYTES, word),
            None => put(FOUR_BYTES, word),
        },
    }
}

/// The bytes behind the kind.
#[inline]
fn width_of(kind: u8) -> usize {
    match kind {
        ONE_BYTE | NEAR_SECOND_BEFORE | AGAIN => 1,
        TWO_BYTES | ABOUT_SECOND_BEFORE => 2,
        THREE_BYTES => 3,
        FOUR_BYTES => 4,
        _ => 0,
    }
}

/// The four bytes from one on; behind the end there are zeros.
#[inline]
fn four_bytes(bytes: &[u8], at: usize) -> u32 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(four) = rest.first_chunk() {
        return u32::from_le_bytes(*four);
    }
    rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn second_before(row: &[u32], place: usize) -> u32 {
    place.checked_sub(2).map_or(0, |before| row[before])
}

/// Where words stood last, by a few of their bits; of two with the same bits, the later one.
#[derive(Debug)]
struct Places([u16; 64]);

impl Default for Places {
    fn default() -> Self {
        Places([u16::MAX; 64])
    }
}

impl Places {
    /// How far back the word at this place stands as well, if that is known and can be said in a byte.
    fn find(&mut self, row: &[u32], place: usize) -> Option<u8> {
        let spread = row[place].wrapping_mul(0x9e37_79b1) >> 26;
        let before = usize::from(std::mem::replace(&mut self.0[spread as usize], place as u16));
        if before >= place || row[before] != row[place] {
            return None;
        }
        u8::try_from(place - before).ok()
    }
}

/// The inverse of [`put_word`].
fn get_word(bytes: &[u8], at: &mut usize, kind: u8, row: &[u32], place: usize) -> u32 {
    let before = second_before(row, place);
    let width = width_of(kind);
    let word = four_bytes(bytes, *at) & (((1u64 << (8 * width)) - 1) as u32);
    *at += width;
    match kind {
        ONE_BYTE | TWO_BYTES | THREE_BYTES | FOUR_BYTES => word,
        NEAR_SECOND_BEFORE => before.wrapping_add_signed(i32::from(word as i8)),
        ABOUT_SECOND_BEFORE => before.wrapping_add_signed(i32::from(word as i16)),
        AS_SECOND_BEFORE => before,
        AS_FIRST => row[0],
        AGAIN => row[place - word as usize],
        number => u32::from(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_what_they_were_whatever_was_learned_meanwhile(
            new_row in prop::collection::vec(any::<u32>(), 0..90),
            changes in prop::collection::vec(prop::collection::vec(
                (0usize..90, prop_oneof![0u32..9, 0u32..300, any::<u32>(), Just(1_700_000)]), 0..60), 0..120),
        ) {
            let mut habits = Habits::default();
            let mut packed = Vec::new();
            for changes in changes {
                let mut row = new_row.clone();
                for (place, word) in changes {
                    row.iter_mut().skip(place).step_by(20).for_each(|old| *old = word);
                }
                let mut bytes = vec![1];
                habits.put(&row, &new_row, &mut bytes);
                packed.push((row, bytes));
            }
            for (row, bytes) in packed {
                let (mut again, mut at) = (vec![7; row.len()], 1);
                habits.get(&bytes, &mut at, &new_row, &mut again);
                prop_assert_eq!((again, at), (row, bytes.len()));
            }
        }
    }

    #[test]
    fn what_most_rows_have_in_common_takes_a_bit_a_word() {
        let (mut habits, new_row) = (Habits::default(), vec![0; 80]);
        let row: Vec<u32> = (0..80).map(|place| if place % 2 == 0 { 5 } else { 0 }).collect();
        let mut lens = (0..100).map(|_| {
            let mut bytes = Vec::new();
            habits.put(&row, &new_row, &mut bytes);
            bytes.len()
        });
        assert!(lens.next().unwrap() > 40);
        assert_eq!(lens.last().unwrap(), 2 + 10);
    }
}
