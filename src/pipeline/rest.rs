//! A customer at rest as bytes: its row and its lists, without loss, in less room.
//!
//! Most words of a row are what they were in a new customer, small, or close to another one (the instants of one event
//! stand in many slots). So of a row there are a bit for each word, whether it changed at all; for each that did half
//! a byte, how it is written; and behind these what cannot be said in half a byte. The lists follow as they are. These
//! bytes never leave the process: what goes to the state topic is [`super::codec`]'s, which drops what can be counted
//! anew; here waking up must be quick, as every customer does so whenever it is rescored.

use thin_vec::ThinVec;

use super::store::{Customer, OrderDays, Seen};
use super::varint::{get_i64, get_u64, put_i64, put_u64};

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

/// Appends a row and what varies in size of its customer; id and traits are kept elsewhere.
pub fn pack(row: &[u32], new_row: &[u32], customer: &Customer, out: &mut Vec<u8>) {
    pack_row(row, new_row, out);
    for list in [&customer.log, &customer.sessions, &customer.channels, &customer.kept] {
        put_u64(out, list.len() as u64);
        out.extend_from_slice(list);
    }
    put_u64(out, customer.order_days.0.len() as u64);
    let mut previous = 0;
    for day in &customer.order_days.0 {
        put_i64(out, i64::from(*day) - previous);
        previous = i64::from(*day);
    }
    put_u64(out, customer.seen.len() as u64);
    let mut previous = 0i64;
    for seen in &customer.seen {
        out.extend_from_slice(&seen.id.to_le_bytes());
        put_i64(out, seen.ts.wrapping_sub(previous));
        previous = seen.ts;
    }
}

/// The inverse of [`pack`]: fills the row, and what it appended of the customer.
pub fn unpack(bytes: &[u8], new_row: &[u32], row: &mut [u32], customer: &mut Customer) {
    let mut at = unpack_row(bytes, new_row, row);
    let lists = [&mut customer.log, &mut customer.sessions, &mut customer.channels, &mut customer.kept];
    for list in lists {
        let len = get_u64(bytes, &mut at) as usize;
        *list = ThinVec::from(&bytes[at..at + len]);
        at += len;
    }
    let (mut days, mut previous) = (ThinVec::new(), 0i64);
    let count = get_u64(bytes, &mut at) as usize;
    days.reserve_exact(count);
    for _ in 0..count {
        previous += get_i64(bytes, &mut at);
        days.push(previous as u32);
    }
    customer.order_days = OrderDays(days);
    let (mut seen, mut previous) = (ThinVec::new(), 0i64);
    let count = get_u64(bytes, &mut at) as usize;
    seen.reserve_exact(count);
    for _ in 0..count {
        let id = bytes[at..].first_chunk().map_or(0, |id| u64::from_le_bytes(*id));
        at += size_of::<u64>();
        previous = previous.wrapping_add(get_i64(bytes, &mut at));
        seen.push(Seen { id, ts: previous });
    }
    customer.seen = seen;
}

fn pack_row(row: &[u32], new_row: &[u32], out: &mut Vec<u8>) {
    let bits_at = out.len();
    out.resize(bits_at + row.len().div_ceil(8), 0);
    let mut changed = 0;
    for (place, (word, new)) in row.iter().zip(new_row).enumerate() {
        out[bits_at + place / 8] |= u8::from(word != new) << (place % 8);
        changed += usize::from(word != new);
    }
    let kinds_at = out.len();
    out.resize(kinds_at + changed.div_ceil(2), 0);
    let (mut places, mut nth) = (Places::default(), 0);
    for (place, _) in row.iter().zip(new_row).enumerate().filter(|(_, (word, new))| word != new) {
        let kind = put_word(row, place, &mut places, out);
        out[kinds_at + nth / 2] |= kind << (4 * (nth % 2));
        nth += 1;
    }
}

/// Writes what does not fit into the kind, which it returns.
fn put_word(row: &[u32], place: usize, places: &mut Places, out: &mut Vec<u8>) -> u8 {
    let word = row[place];
    let mut put = |kind: u8, bytes: &[u8]| {
        out.extend_from_slice(bytes);
        kind
    };
    let before = second_before(row, place);
    let away = word.wrapping_sub(before).cast_signed();
    match word {
        _ if word < u32::from(ONE_BYTE) => word as u8,
        _ if away == 0 => AS_SECOND_BEFORE,
        _ if word == row[0] && place > 0 => AS_FIRST,
        0..0x100 => put(ONE_BYTE, &[word as u8]),
        _ if i8::try_from(away).is_ok() => put(NEAR_SECOND_BEFORE, &[away as u8]),
        _ => match places.find(row, place) {
            Some(back) => put(AGAIN, &[back]),
            None if word < 0x1_0000 => put(TWO_BYTES, &word.to_le_bytes()[..2]),
            None if i16::try_from(away).is_ok() => put(ABOUT_SECOND_BEFORE, &away.to_le_bytes()[..2]),
            None if word < 0x100_0000 => put(THREE_BYTES, &word.to_le_bytes()[..3]),
            None => put(FOUR_BYTES, &word.to_le_bytes()),
        },
    }
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

/// The row alone. Returns where the bytes behind it stand.
pub fn unpack_row(bytes: &[u8], new_row: &[u32], row: &mut [u32]) -> usize {
    row.copy_from_slice(new_row);
    let kinds_at = row.len().div_ceil(8);
    let changed: usize = bytes[..kinds_at].iter().map(|bits| bits.count_ones() as usize).sum();
    let (mut at, mut nth) = (kinds_at + changed.div_ceil(2), 0);
    for (eight, bits) in bytes[..kinds_at].iter().enumerate() {
        let mut bits = *bits;
        while bits != 0 {
            let place = eight * 8 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let kind = bytes[kinds_at + nth / 2] >> (4 * (nth % 2)) & 0xf;
            nth += 1;
            row[place] = get_word(bytes, &mut at, kind, row, place);
        }
    }
    at
}

/// The inverse of [`put_word`].
fn get_word(bytes: &[u8], at: &mut usize, kind: u8, row: &[u32], place: usize) -> u32 {
    let before = second_before(row, place);
    let width = match kind {
        ONE_BYTE | NEAR_SECOND_BEFORE | AGAIN => 1,
        TWO_BYTES | ABOUT_SECOND_BEFORE => 2,
        THREE_BYTES => 3,
        FOUR_BYTES => 4,
        _ => 0,
    };
    let mut word = [0; 4];
    word[..width].copy_from_slice(&bytes[*at..*at + width]);
    *at += width;
    let word = u32::from_le_bytes(word);
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

    fn word() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), Just(u32::MAX), 0u32..80, 0u32..70_000, any::<u32>(), 1_700_000u32..1_700_008]
    }

    proptest! {
        #[test]
        fn waking_up_is_the_inverse_of_going_to_rest(
            words in prop::collection::vec((word(), word(), any::<bool>()), 0..300),
            lists in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 4),
            days in prop::collection::vec(any::<u32>(), 0..5),
            seen in prop::collection::vec((any::<u64>(), any::<i64>()), 0..5),
        ) {
            let new_row: Vec<u32> = words.iter().map(|(new, ..)| *new).collect();
            let row: Vec<u32> = words.iter().map(|(new, word, same)| if *same { *new } else { *word }).collect();
            let customer = Customer {
                log: ThinVec::from(&lists[0][..]),
                sessions: ThinVec::from(&lists[1][..]),
                channels: ThinVec::from(&lists[2][..]),
                kept: ThinVec::from(&lists[3][..]),
                order_days: OrderDays(days.into_iter().collect()),
                seen: seen.into_iter().map(|(id, ts)| Seen { id, ts }).collect(),
                ..Customer::default()
            };
            let mut bytes = Vec::new();
            pack(&row, &new_row, &customer, &mut bytes);
            let (mut again, mut woken) = (vec![7; row.len()], Customer::default());
            unpack(&bytes, &new_row, &mut again, &mut woken);
            prop_assert_eq!(again, row);
            prop_assert_eq!(format!("{woken:?}"), format!("{customer:?}"));
        }
    }
}
