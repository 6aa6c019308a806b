//! A customer at rest as bytes: its name, its row and its lists, without loss, in less room.
//!
//! Name, timer and traits stand in front, so that each can be read alone; the row follows ([`super::habits`]), and the
//! lists in shorthand ([`super::shorthand`]). These bytes never leave the process: what goes to the state topic is
//! [`super::codec`]'s, which drops what can be counted anew; here waking up must be quick, as every customer does so
//! whenever it is rescored.

use compact_str::CompactString;
use thin_vec::ThinVec;

use super::facts::{TraitValue, Traits};
use super::habits::Habits;
use super::shorthand::{self, Shorthand};
use super::store::{Customer, OrderDays, Seen};
use super::varint::{get_i64, get_u64, put_i64, put_u64};
use crate::time::Ts;

/// What those at rest of one partition have in common, without which none of them can be read.
#[derive(Debug, Default)]
pub struct Packer {
    habits: Habits,
    shorthand: Shorthand,
}

impl Packer {
    /// Appends a customer and its row. The timer stands in front instead of in the row: it is asked for alone.
    pub fn pack(&mut self, timer: Ts, row: &[u32], new_row: &[u32], customer: &Customer, out: &mut Vec<u8>) {
        put_bytes(out, customer.id.as_bytes());
        put_u64(out, timer_code(timer));
        put_traits(out, customer.traits.as_deref());
        self.habits.put(row, new_row, out);
        self.shorthand.put_log(&customer.log, out);
        shorthand::put_sessions(&customer.sessions, out);
        put_bytes(out, &customer.channels);
        self.shorthand.put_kept(&customer.kept, out);
        put_order_days(out, &customer.order_days);
        put_seen(out, &customer.seen, first_instant(row));
    }

    /// The inverse of [`Packer::pack`]: fills the row and the customer, and returns the timer.
    pub fn unpack(&self, bytes: &[u8], new_row: &[u32], row: &mut [u32], customer: &mut Customer) -> Ts {
        let (head, mut at) = Head::read(bytes);
        customer.id = CompactString::new(head.id);
        customer.traits = head.traits.map(|traits| Box::new(get_traits(traits)));
        self.habits.get(bytes, &mut at, new_row, row);
        customer.log = self.shorthand.get_log(bytes, &mut at);
        customer.sessions = shorthand::get_sessions(bytes, &mut at);
        customer.channels = ThinVec::from(get_bytes(bytes, &mut at));
        customer.kept = self.shorthand.get_kept(bytes, &mut at);
        customer.order_days = get_order_days(bytes, &mut at);
        customer.seen = get_seen(bytes, &mut at, first_instant(row));
        head.timer
    }

    /// The row alone. Returns the timer.
    pub fn unpack_row(&self, bytes: &[u8], new_row: &[u32], row: &mut [u32]) -> Ts {
        let (head, mut at) = Head::read(bytes);
        self.habits.get(bytes, &mut at, new_row, row);
        head.timer
    }

    /// Bytes of what those at rest have in common, with what the allocator adds.
    pub fn bytes(&self) -> usize {
        self.habits.bytes() + self.shorthand.bytes()
    }
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

/// What a row begins with: the last evaluated instant, to which others are close.
fn first_instant(row: &[u32]) -> Ts {
    row.first_chunk::<2>().map_or(0, |[low, high]| (u64::from(*low) | u64::from(*high) << 32).cast_signed())
}

fn put_order_days(out: &mut Vec<u8>, days: &OrderDays) {
    put_u64(out, days.0.len() as u64);
    let mut previous = 0;
    for day in &days.0 {
        put_i64(out, i64::from(*day) - previous);
        previous = i64::from(*day);
    }
}

fn get_order_days(bytes: &[u8], at: &mut usize) -> OrderDays {
    let (mut days, mut previous) = (ThinVec::new(), 0i64);
    let count = get_u64(bytes, at) as usize;
    days.reserve_exact(count);
    for _ in 0..count {
        previous += get_i64(bytes, at);
        days.push(previous as u32);
    }
    OrderDays(days)
}

fn put_seen(out: &mut Vec<u8>, all: &[Seen], mut previous: Ts) {
    put_u64(out, all.len() as u64);
    for seen in all {
        out.extend_from_slice(&seen.id.to_le_bytes());
        put_i64(out, seen.ts.wrapping_sub(previous));
        previous = seen.ts;
    }
}

fn get_seen(bytes: &[u8], at: &mut usize, mut previous: Ts) -> ThinVec<Seen> {
    let mut all = ThinVec::new();
    let count = get_u64(bytes, at) as usize;
    all.reserve_exact(count);
    for _ in 0..count {
        let id = bytes[*at..].first_chunk().map_or(0, |id| u64::from_le_bytes(*id));
        *at += size_of::<u64>();
        previous = previous.wrapping_add(get_i64(bytes, at));
        all.push(Seen { id, ts: previous });
    }
    all
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
            };
            let (mut bytes, mut packer) = (Vec::new(), Packer::default());
            packer.pack(timer, &row, &new_row, &customer, &mut bytes);
            let (mut again, mut woken) = (vec![7; row.len()], Customer::default());
            prop_assert_eq!(packer.unpack(&bytes, &new_row, &mut again, &mut woken), timer);
            prop_assert_eq!((super::timer(&bytes), super::id(&bytes)), (timer, &*customer.id));
            let alone = super::traits(&bytes).map(Box::new);
            prop_assert_eq!(&alone, &customer.traits);
            let mut row_alone = vec![7; row.len()];
            prop_assert_eq!(packer.unpack_row(&bytes, &new_row, &mut row_alone), timer);
            prop_assert_eq!(&row_alone, &row);
            prop_assert_eq!(again, row);
            prop_assert_eq!(format!("{woken:?}"), format!("{customer:?}"));
        }
    }
}
