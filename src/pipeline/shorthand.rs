//! The lists of a customer at rest in shorthand: what those of many customers have in common is said in a byte.
//!
//! Most panes hold one of few things (a click that began a session, say), and most kept scores claim what all others
//! of their time do. A partition numbers these phrases in the order in which it meets them, as far as a byte counts,
//! and forgets none: so whoever rests can be read as long as the partition is there. Everything here is without loss,
//! for any bytes: a list that is not made as expected stands as it is.

use thin_vec::ThinVec;

use super::outcomes;
use super::panes;
use super::varint::{Packed, get_u64, get_u128, len_u64, put_u64};

/// A phrase of panes takes no more than this; one byte more says how long it is.
const PHRASE_BYTES: usize = 7;
/// In the byte of the length: the values follow.
const MASK_ALONE: u8 = 0x80;
/// Says that what follows is no phrase.
const AS_IT_IS: u8 = 0;
/// Phrases are numbered from 1 on.
const PHRASES_MOST: usize = 255;
/// Places to look a phrase up, of which half are used at most.
const LOOK_UP: usize = 512;
/// Longer texts are not worth the room if nobody repeats them.
const TEXT_BYTES_MOST: usize = 512;

const HOURS_A_DAY: u64 = 24;

/// Bytes of the greatest `u64`.
const LONGEST_NUMBER: usize = 10;

/// The phrases of one partition.
#[derive(Debug, Default)]
pub struct Shorthand {
    panes: Phrases,
    texts: Vec<Box<[u8]>>,
}

impl Shorthand {
    /// Appends a log of [`panes`].
    pub fn put_log(&mut self, log: &[u8], out: &mut Vec<u8>) {
        put_list(log, out, |out| self.shorten_log(log, out));
    }

    /// The inverse of [`Shorthand::put_log`].
    pub fn get_log(&self, bytes: &[u8], at: &mut usize) -> ThinVec<u8> {
        get_list(bytes, at, |at, list, len| self.lengthen_log(bytes, at, list, len))
    }

    /// Of each pane the distance from the one before, in days where it is one, and what it holds.
    fn shorten_log(&mut self, log: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (mut at, mut hour) = (0, 0u64);
        while at < log.len() {
            let first = get_canonical(log, &mut at)?;
            let is_day = first & 1 == 1;
            let next = hour.checked_add(first >> 1).filter(|hour| *hour <= u64::from(u32::MAX))?;
            if !is_day {
                put_u64(out, first);
            } else if next.is_multiple_of(HOURS_A_DAY) {
                put_u64(out, (next / HOURS_A_DAY - hour / HOURS_A_DAY) << 1 | 1);
            } else {
                return None;
            }
            hour = next;
            let mut values_at = at;
            let mask = get_u128(log, &mut values_at);
            let end = panes::skip(log, values_at, mask);
            if end > log.len() {
                return None;
            }
            if let Some(number) = self.panes.number(&log[at..end], 0) {
                out.push(number);
            } else if let Some(number) = self.panes.number(&log[at..values_at], MASK_ALONE) {
                out.push(number);
                out.extend_from_slice(&log[values_at..end]);
            } else {
                out.push(AS_IT_IS);
                out.extend_from_slice(&log[at..end]);
            }
            at = end;
        }
        Some(())
    }

    fn lengthen_log(&self, bytes: &[u8], at: &mut usize, log: &mut ThinVec<u8>, len: usize) {
        let mut hour = 0;
        while log.len() < len {
            let first = get_u64(bytes, at);
            let next = match first & 1 {
                0 => hour + (first >> 1),
                _ => (hour / HOURS_A_DAY + (first >> 1)) * HOURS_A_DAY,
            };
            put_u64(log, (next - hour) << 1 | first & 1);
            hour = next;
            let number = bytes[*at];
            *at += 1;
            let start = *at;
            let mask = match self.panes.phrase(number) {
                None => get_u128(bytes, at),
                Some((phrase, holds)) => {
                    log.put(&phrase[..usize::from(holds & !MASK_ALONE)]);
                    if holds & MASK_ALONE == 0 {
                        continue;
                    }
                    get_u128(&phrase, &mut 0)
                }
            };
            *at = panes::skip(bytes, *at, mask);
            log.put(&bytes[start..*at]);
        }
    }

    /// Appends a list of kept scores ([`outcomes`]).
    pub fn put_kept(&mut self, kept: &[u8], out: &mut Vec<u8>) {
        put_list(kept, out, |out| self.shorten_kept(kept, out));
    }

    /// The inverse of [`Shorthand::put_kept`].
    pub fn get_kept(&self, bytes: &[u8], at: &mut usize) -> ThinVec<u8> {
        get_list(bytes, at, |at, list, len| self.lengthen_kept(bytes, at, list, len))
    }

    /// Claims and stages as texts that others have as well, scores as they are.
    fn shorten_kept(&mut self, kept: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut at = 0;
        get_u64(kept, &mut at);
        out.extend_from_slice(kept.get(..at)?);
        while at < kept.len() {
            let start = at;
            if !outcomes::is_text(kept[at]) {
                at = outcomes::end_of_score(kept, at)?;
                out.extend_from_slice(kept.get(start..at)?);
                continue;
            }
            at += 1;
            let len = usize::try_from(get_canonical(kept, &mut at)?).ok()?;
            let text = kept.get(at..at.checked_add(len)?)?;
            at += len;
            out.push(kept[start]);
            match self.number_of_text(text) {
                Some(number) => out.push(number),
                None => {
                    out.push(AS_IT_IS);
                    put_u64(out, len as u64);
                    out.extend_from_slice(text);
                }
            }
        }
        Some(())
    }

    fn lengthen_kept(&self, bytes: &[u8], at: &mut usize, kept: &mut ThinVec<u8>, len: usize) {
        let start = *at;
        get_u64(bytes, at);
        kept.put(&bytes[start..*at]);
        while kept.len() < len {
            let start = *at;
            if !outcomes::is_text(bytes[start]) {
                *at = outcomes::end_of_score(bytes, start).unwrap_or(bytes.len());
                kept.put(&bytes[start..*at]);
                continue;
            }
            let number = bytes[start + 1];
            *at += 2;
            let text = match self.texts.get(usize::from(number).wrapping_sub(1)) {
                Some(text) => text,
                None => {
                    let len = get_u64(bytes, at) as usize;
                    *at += len;
                    &bytes[*at - len..*at]
                }
            };
            kept.put(&[bytes[start]]);
            put_u64(kept, text.len() as u64);
            kept.put(text);
        }
    }

    /// There are few, and the first is nearly everybody's.
    fn number_of_text(&mut self, text: &[u8]) -> Option<u8> {
        let found = self.texts.iter().position(|known| **known == *text);
        if found.is_none() && self.texts.len() < PHRASES_MOST && text.len() <= TEXT_BYTES_MOST {
            self.texts.push(text.into());
            return Some(self.texts.len() as u8);
        }
        found.map(|at| at as u8 + 1)
    }

    /// Bytes of all phrases, with what the allocator adds.
    pub fn bytes(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| super::store::allocated(text.len()) + 16).sum();
        texts + self.panes.words.capacity() * 8 + self.panes.look_up.len()
    }
}

/// Appends a list of sessions: how many bytes a gap and a length take, in half a byte for each session, and these.
pub fn put_sessions(sessions: &[u8], out: &mut Vec<u8>) {
    put_list(sessions, out, |out| {
        let (mut at, mut control_at, mut is_first) = (0, 0, true);
        while at < sessions.len() {
            let (gap, length) = (get_canonical(sessions, &mut at)?, get_canonical(sessions, &mut at)?);
            if is_first {
                control_at = out.len();
                out.push(0);
            }
            let control = put_narrow(gap, GAP_WIDTHS, out) << 2 | put_narrow(length, LENGTH_WIDTHS, out);
            out[control_at] |= control << if is_first { 0 } else { 4 };
            is_first = !is_first;
        }
        Some(())
    });
}

/// The inverse of [`put_sessions`].
pub fn get_sessions(bytes: &[u8], at: &mut usize) -> ThinVec<u8> {
    get_list(bytes, at, |at, list, len| {
        let mut control = 0;
        let mut is_first = true;
        while list.len() < len {
            if is_first {
                control = bytes[*at];
                *at += 1;
            }
            put_u64(list, get_narrow(bytes, at, GAP_WIDTHS[usize::from(control >> 2 & 3)]));
            put_u64(list, get_narrow(bytes, at, LENGTH_WIDTHS[usize::from(control & 3)]));
            control >>= 4;
            is_first = !is_first;
        }
    })
}

/// In bytes. Three are four hours and a half, four 49 days.
const GAP_WIDTHS: [usize; 4] = [3, 4, 6, 8];
const LENGTH_WIDTHS: [usize; 4] = [0, 2, 3, 8];

/// Appends a number; returns which of the widths it has.
fn put_narrow(number: u64, widths: [usize; 4], out: &mut Vec<u8>) -> u8 {
    let width = widths.iter().position(|width| *width == 8 || number < 1 << (8 * width)).unwrap_or(3);
    let end = out.len() + widths[width];
    // All of it and back: so many are copied at once, any number of them one by one.
    out.extend_from_slice(&number.to_le_bytes());
    out.truncate(end);
    width as u8
}

fn get_narrow(bytes: &[u8], at: &mut usize, width: usize) -> u64 {
    let mut number = [0; 8];
    number[..width].copy_from_slice(&bytes[*at..*at + width]);
    *at += width;
    u64::from_le_bytes(number)
}

/// A list's length, whether it is in shorthand, and the list.
fn put_list(list: &[u8], out: &mut Vec<u8>, shorten: impl FnOnce(&mut Vec<u8>) -> Option<()>) {
    let start = out.len();
    put_u64(out, (list.len() as u64) << 1 | 1);
    if !list.is_empty() && shorten(out).is_none() {
        out.truncate(start);
        put_u64(out, (list.len() as u64) << 1);
        out.extend_from_slice(list);
    }
}

fn get_list(
    bytes: &[u8],
    at: &mut usize,
    lengthen: impl FnOnce(&mut usize, &mut ThinVec<u8>, usize),
) -> ThinVec<u8> {
    let (code, mut list) = (get_u64(bytes, at), ThinVec::new());
    let len = (code >> 1) as usize;
    if len > 0 {
        list.reserve_exact(len);
    }
    if code & 1 == 0 {
        list.put(&bytes[*at..*at + len]);
        *at += len;
    } else if len > 0 {
        lengthen(at, &mut list, len);
    }
    list
}

/// A number, if it is written in as few bytes as can be: else the same number would be written back differently.
fn get_canonical(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let start = *at;
    let number = get_u64(bytes, at);
    let written = bytes.get(start..*at)?;
    // Of a tenth byte only the lowest bit has room in the number.
    let all_kept = written.len() < LONGEST_NUMBER || written[LONGEST_NUMBER - 1] <= 1;
    (all_kept && written.len() == len_u64(number)).then_some(number)
}

/// Short strings and their numbers. A string stands in the lower bytes of a word, its length and what it holds in the
/// highest; no word is 0.
#[derive(Debug, Default)]
struct Phrases {
    words: Vec<u64>,
    /// The numbers, found by what hashes to their place or one of those before it.
    look_up: Vec<u8>,
}

impl Phrases {
    /// The number of a string; a new one's, if there are any left. No string is empty.
    #[inline]
    fn number(&mut self, string: &[u8], holds: u8) -> Option<u8> {
        if string.len() > PHRASE_BYTES {
            return None;
        }
        let mut word = [0; 8];
        word[..string.len()].copy_from_slice(string);
        word[PHRASE_BYTES] = string.len() as u8 | holds;
        let word = u64::from_le_bytes(word);
        if self.look_up.is_empty() {
            self.look_up = vec![0; LOOK_UP];
        }
        let mut place =
            (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - LOOK_UP.trailing_zeros())) as usize;
        loop {
            match self.look_up[place] {
                0 => break,
                number if self.words[usize::from(number) - 1] == word => return Some(number),
                _ => place = (place + 1) % LOOK_UP,
            }
        }
        if self.words.len() == PHRASES_MOST {
            return None;
        }
        self.words.push(word);
        self.look_up[place] = self.words.len() as u8;
        Some(self.words.len() as u8)
    }

    /// The string of a number, behind which anything may stand, its length and what it holds.
    #[inline]
    fn phrase(&self, number: u8) -> Option<([u8; 8], u8)> {
        let word = self.words.get(usize::from(number).wrapping_sub(1))?.to_le_bytes();
        Some((word, word[PHRASE_BYTES]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::panes::{Measures, OwnedPane};
    use proptest::prelude::*;

    /// All three kinds of list, through shorthand and back.
    fn check(shorthand: &mut Shorthand, list: &[u8]) {
        let mut bytes = vec![7];
        shorthand.put_log(list, &mut bytes);
        shorthand.put_kept(list, &mut bytes);
        put_sessions(list, &mut bytes);
        let mut at = 1;
        assert_eq!(shorthand.get_log(&bytes, &mut at), *list);
        assert_eq!(shorthand.get_kept(&bytes, &mut at), *list);
        assert_eq!(get_sessions(&bytes, &mut at), *list);
        assert_eq!(at, bytes.len());
    }

    proptest! {
        #[test]
        fn lists_are_what_they_were_whatever_their_bytes(
            lists in prop::collection::vec(
                prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0x80), 0u8..9, any::<u8>()], 0..60), 1..40),
        ) {
            let mut shorthand = Shorthand::default();
            lists.iter().for_each(|list| check(&mut shorthand, list));
        }

        #[test]
        fn logs_are_what_they_were(
            logs in prop::collection::vec(prop::collection::vec(
                (1u32..400, any::<bool>(), 0u8..70, prop_oneof![Just(1i64), any::<i64>()], 0u8..3), 0..30), 1..20),
        ) {
            let mut shorthand = Shorthand::default();
            for log in logs {
                let mut hour = 17_000_000 / 24 * 24;
                let panes: Vec<OwnedPane> = log.into_iter().map(|(apart, whole_day, slot, value, others)| {
                    hour = if whole_day { (hour + apart).next_multiple_of(24) } else { hour + apart };
                    let mut measures = Measures::new(128);
                    measures.put(slot, value);
                    (0..others).for_each(|other| measures.put(other, 1));
                    OwnedPane { hour, whole_day, measures }
                }).collect();
                let mut packed = ThinVec::new();
                panes::pack(&panes, &mut packed);
                check(&mut shorthand, &packed);
            }
        }
    }

    #[test]
    fn a_number_with_more_bits_than_there_is_room_for_stands_as_it_is() {
        for last in 0..=u8::MAX {
            let mut list = vec![0, 0];
            list.extend([0x80; LONGEST_NUMBER - 1]);
            list.extend([last, 0]);
            check(&mut Shorthand::default(), &list);
        }
    }

    #[test]
    fn what_everybody_has_takes_a_byte_as_long_as_there_are_numbers() {
        let (mut shorthand, mut out) = (Shorthand::default(), Vec::new());
        let pane = |value: u8| [0x90, 1, 0x81, 1, 2, 2 * value];
        for value in 1..3 {
            out.clear();
            shorthand.put_log(&pane(value), &mut out);
            assert_eq!(out.len(), 1 + 3, "{out:?}");
        }
        for text in 0..300u16 {
            assert_eq!(shorthand.number_of_text(&text.to_le_bytes()).is_some(), text < 255);
        }
        assert_eq!(shorthand.number_of_text(&0u16.to_le_bytes()), Some(1));
    }
}
