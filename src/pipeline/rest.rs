//! A customer at rest as bytes: its name, its row and its lists, without loss, in less room.
//!
//! Name, timer and traits stand in front, so that each can be read alone. Most words of a row are what they were in a
//! new customer, small, or close to another one (the instants of one event stand in many slots). So of a row there are
//! a bit for each word, whether it changed at all; for each that did half a byte, how it is written; and behind these
//! what cannot be said in half a byte. The lists follow in shorthand ([`super::shorthand`]). These bytes never leave
//! the process: what goes to the state topic is [`super::codec`]'s, which drops what can be counted anew; here waking
//! up must be quick, as every customer does so whenever it is rescored.

use compact_str::CompactString;
use thin_vec::ThinVec;

use super::facts::{TraitValue, Traits};
use super::shorthand::{self, Shorthand};
use super::store::{Customer, OrderDays, Seen};
use super::varint::{get_i64, get_u64, put_i64, put_u64};
use crate::time::Ts;

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

/// Appends a customer and its row, whose timer stands in front, as in no row: it is asked for alone.
pub fn pack(
    shorthand: &mut Shorthand,
    timer: Ts,
    (row, new_row): (&[u32], &[u32]),
    customer: &Customer,
    out: &mut Vec<u8>,
) {
    put_bytes(out, customer.id.as_bytes());
    put_u64(out, timer_code(timer));
    put_traits(out, customer.traits.as_deref());
    pack_row(row, new_row, out);
    shorthand.put_log(&customer.log, out);
    shorthand::put_sessions(&customer.sessions, out);
    put_bytes(out, &customer.channels);
    shorthand.put_kept(&customer.kept, out);
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

/// The inverse of [`pack`]: fills the row and the customer, and returns the timer.
pub fn unpack(
    shorthand: &Shorthand,
    bytes: &[u8],
    new_row: &[u32],
    row: &mut [u32],
    customer: &mut Customer,
) -> Ts {
    let (head, mut at) = Head::read(bytes);
    customer.id = CompactString::new(head.id);
    customer.traits = head.traits.map(|traits| Box::new(get_traits(traits)));
    get_row(bytes, &mut at, new_row, row);
    customer.log = shorthand.get_log(bytes, &mut at);
    customer.sessions = shorthand::get_sessions(bytes, &mut at);
    customer.channels = ThinVec::from(get_bytes(bytes, &mut at));
    customer.kept = shorthand.get_kept(bytes, &mut at);
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
    head.timer
}

/// The row alone. Returns the timer.
pub fn unpack_row(bytes: &[u8], new_row: &[u32], row: &mut [u32]) -> Ts {
    let (head, mut at) = Head::read(bytes);
    get_row(bytes, &mut at, new_row, row);
    head.timer
}

/// The name alone.
pub fn id(bytes: &[u8]) -> &str {
    Head::read(bytes).0.id
}

/// The timer alone.
pub fn timer(bytes: &[u8]) -> Ts {
    Head::read(bytes).0.timer
}

/// The traits alone.
pub fn traits(bytes: &[u8]) -> Option<Traits> {
    Head::read(bytes).0.traits.map(get_traits)
}

/// What stands in front of the row.
struct Head<'a> {
    id: &'a str,
    timer: Ts,
    traits: Option<&'a [u8]>,
}

impl<'a> Head<'a> {
    /// Returns where the row stands as well.
    #[inline]
    fn read(bytes: &'a [u8]) -> (Self, usize) {
        let mut at = 0;
        let id = text(get_bytes(bytes, &mut at));
        let timer = timer_of(get_u64(bytes, &mut at));
        let has_traits = bytes[at] == SOME_TRAITS;
        at += 1;
        let traits = has_traits.then(|| get_bytes(bytes, &mut at));
        (Head { id, timer, traits }, at)
    }
}

/// Who waits for nothing, with the last instant there is, has the least code.
fn timer_code(timer: Ts) -> u64 {
    ((timer << 1) ^ (timer >> 63)).cast_unsigned().wrapping_add(2)
}

/// The inverse of [`timer_code`].
fn timer_of(code: u64) -> Ts {
    let zigzag = code.wrapping_sub(2);
    (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed()
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn get_bytes<'a>(bytes: &'a [u8], at: &mut usize) -> &'a [u8] {
    let len = get_u64(bytes, at) as usize;
    *at += len;
    &bytes[*at - len..*at]
}

/// Of what was a text when it was put there.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// In front of traits, as somebody may have some of which none is left.
const NO_TRAITS: u8 = 0;
const SOME_TRAITS: u8 = 1;

const FLAG: u8 = 0;
const NUMBER: u8 = 2;
const TEXT: u8 = 3;

fn put_traits(out: &mut Vec<u8>, traits: Option<&Traits>) {
    let Some(traits) = traits else { return out.push(NO_TRAITS) };
    let mut packed = Vec::new();
    for (name, value) in traits {
        put_bytes(&mut packed, name.as_bytes());
        match value {
            TraitValue::Flag(flag) => packed.push(FLAG + u8::from(*flag)),
            TraitValue::Number(number) => {
                packed.push(NUMBER);
                packed.extend_from_slice(&number.to_le_bytes());
            }
            TraitValue::Text(text) => {
                packed.push(TEXT);
                put_bytes(&mut packed, text.as_bytes());
            }
        }
    }
    out.push(SOME_TRAITS);
    put_bytes(out, &packed);
}

fn get_traits(bytes: &[u8]) -> Traits {
    let (mut traits, mut at) = (Traits::new(), 0);
    while at < bytes.len() {
        let name = text(get_bytes(bytes, &mut at));
        let kind = bytes[at];
        at += 1;
        let value = match kind {
            TEXT => TraitValue::Text(text(get_bytes(bytes, &mut at)).into()),
            NUMBER => {
                at += size_of::<f64>();
                TraitValue::Number(bytes[..at].last_chunk().map_or(0.0, |number| f64::from_le_bytes(*number)))
            }
            flag => TraitValue::Flag(flag != FLAG),
        };
        traits.insert(name.into(), value);
    }
    traits
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

/// The inverse of [`pack_row`]; `at` stands behind the row afterwards.
fn get_row(bytes: &[u8], at: &mut usize, new_row: &[u32], row: &mut [u32]) {
    row.copy_from_slice(new_row);
    let kinds_at = *at + row.len().div_ceil(8);
    let bits = &bytes[*at..kinds_at];
    let changed: usize = bits.iter().map(|bits| bits.count_ones() as usize).sum();
    *at = kinds_at + changed.div_ceil(2);
    let mut nth = 0;
    for (eight, bits) in bits.iter().enumerate() {
        let mut bits = *bits;
        while bits != 0 {
            let place = eight * 8 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let kind = bytes[kinds_at + nth / 2] >> (4 * (nth % 2)) & 0xf;
            nth += 1;
            row[place] = get_word(bytes, at, kind, row, place);
        }
    }
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

    fn traits() -> impl Strategy<Value = Option<Traits>> {
        let value = prop_oneof![
            any::<bool>().prop_map(TraitValue::Flag),
            (-1e9..1e9).prop_map(TraitValue::Number),
            ".{0,9}".prop_map(|text| TraitValue::Text(text.into())),
        ];
        let name = ".{0,9}".prop_map(Box::from);
        prop::option::of(prop::collection::btree_map(name, value, 0..4))
    }

    proptest! {
        #[test]
        fn waking_up_is_the_inverse_of_going_to_rest(
            words in prop::collection::vec((word(), word(), any::<bool>()), 0..300),
            lists in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 4),
            days in prop::collection::vec(any::<u32>(), 0..5),
            (id, timer, traits) in (".{0,40}", any::<i64>(), traits()),
            seen in prop::collection::vec((any::<u64>(), any::<i64>()), 0..5),
        ) {
            let new_row: Vec<u32> = words.iter().map(|(new, ..)| *new).collect();
            let row: Vec<u32> = words.iter().map(|(new, word, same)| if *same { *new } else { *word }).collect();
            let customer = Customer {
                log: ThinVec::from(&lists[0][..]),
                sessions: ThinVec::from(&lists[1][..]),
                id: CompactString::new(id),
                traits: traits.map(Box::new),
                channels: ThinVec::from(&lists[2][..]),
                kept: ThinVec::from(&lists[3][..]),
                order_days: OrderDays(days.into_iter().collect()),
                seen: seen.into_iter().map(|(id, ts)| Seen { id, ts }).collect(),
                ..Customer::default()
            };
            let (mut bytes, mut shorthand) = (Vec::new(), Shorthand::default());
            pack(&mut shorthand, timer, (&row, &new_row), &customer, &mut bytes);
            let (mut again, mut woken) = (vec![7; row.len()], Customer::default());
            prop_assert_eq!(unpack(&shorthand, &bytes, &new_row, &mut again, &mut woken), timer);
            prop_assert_eq!((super::timer(&bytes), super::id(&bytes)), (timer, &*customer.id));
            let alone = super::traits(&bytes).map(Box::new);
            prop_assert_eq!(&alone, &customer.traits);
            let mut row_alone = vec![7; row.len()];
            prop_assert_eq!(unpack_row(&bytes, &new_row, &mut row_alone), timer);
            prop_assert_eq!(&row_alone, &row);
            prop_assert_eq!(again, row);
            prop_assert_eq!(format!("{woken:?}"), format!("{customer:?}"));
        }
    }
}
