//! Sessions of the clickstream: a new one starts after 30 minutes of silence and counts where it starts.
//!
//! Sessions are kept as intervals, so that a late click joins, splits or moves them exactly as if it had come
//! in time. The newest stands in the row; older ones are packed as varints of gap and length.

use thin_vec::ThinVec;

use super::layout::{NEVER, Sessions};
use super::panes::hour_of;
use super::varint::{Packed, get_u64, put_u64};
use super::windows::Edit;
use crate::time::{DAY_MS, MIN_TS, MINUTE_MS, Ts};

/// Silence that ends a session.
pub const SESSION_GAP_MS: i64 = 30 * MINUTE_MS;

/// First and last click of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub start: Ts,
    pub end: Ts,
}

/// Takes a click in; appends to `edits` how the number of sessions started per hour changes.
pub fn click(
    slots: &Sessions,
    row: &mut [u32],
    packed: &mut ThinVec<u8>,
    ts: Ts,
    now: Ts,
    edits: &mut Vec<Edit>,
) {
    let (start, end) = (slots.start.get(row), slots.end.get(row));
    let mut started = |ts: Ts, value: i64, row: &mut [u32]| {
        if let Some(slot) = slots.pane {
            edits.push(Edit { hour: hour_of(ts), slot, value });
        }
        if let Some(lifetime) = slots.lifetime {
            lifetime.add(row, value as u32);
        }
    };
    if end == NEVER {
        slots.start.set(row, ts);
        slots.end.set(row, ts);
        started(ts, 1, row);
    } else if ts >= start && ts - end < SESSION_GAP_MS {
        slots.end.set(row, end.max(ts));
    } else if ts > end {
        push_packed(slots, row, packed, Session { start, end }, now);
        slots.start.set(row, ts);
        slots.end.set(row, ts);
        started(ts, 1, row);
    } else {
        // Whether older ones are still there depends on when room was made; so none of them counts.
        let mut all: Vec<Session> =
            unpack(packed).into_iter().filter(|s| s.end >= oldest(slots, now)).collect();
        all.push(Session { start, end });
        insert_late(&mut all, ts, |ts, value| started(ts, value, row));
        if let Some(newest) = all.pop() {
            slots.start.set(row, newest.start);
            slots.end.set(row, newest.end);
        }
        repack(slots, row, packed, &all);
    }
}

/// Puts a click before the end of the newest session into its place.
fn insert_late(all: &mut Vec<Session>, ts: Ts, mut started: impl FnMut(Ts, i64)) {
    let next = all.partition_point(|s| s.start <= ts);
    let joins_previous = next > 0 && ts - all[next - 1].end < SESSION_GAP_MS;
    let joins_next = next < all.len() && all[next].start - ts < SESSION_GAP_MS;
    match (joins_previous, joins_next) {
        (true, true) => {
            let joined = all.remove(next);
            started(joined.start, -1);
            all[next - 1].end = joined.end;
        }
        (true, false) => all[next - 1].end = all[next - 1].end.max(ts),
        (false, true) => {
            started(all[next].start, -1);
            started(ts, 1);
            all[next].start = ts;
        }
        (false, false) => {
            started(ts, 1);
            all.insert(next, Session { start: ts, end: ts });
        }
    }
}

/// Takes in the sessions of somebody who is the same customer: the newest one and the packed ones. Sessions that
/// overlap, or with less than the silence between them that ends one, are one; `edits` says of which.
pub fn join(
    slots: &Sessions,
    row: &mut [u32],
    packed: &mut ThinVec<u8>,
    other: (&[u32], &[u8]),
    now: Ts,
    edits: &mut Vec<Edit>,
) {
    let newest = |row: &[u32]| {
        let (start, end) = (slots.start.get(row), slots.end.get(row));
        (end != NEVER).then_some(Session { start, end })
    };
    let mut all = unpack(packed);
    all.extend(newest(row));
    all.extend(unpack(other.1));
    all.extend(newest(other.0));
    all.retain(|session| session.end >= oldest(slots, now));
    all.sort_unstable_by_key(|session| (session.start, session.end));
    let mut joined: Vec<Session> = Vec::with_capacity(all.len());
    let mut fewer = 0u32;
    for session in all {
        match joined.last_mut() {
            Some(last) if session.start - last.end < SESSION_GAP_MS => {
                last.end = last.end.max(session.end);
                fewer += 1;
                if let Some(slot) = slots.pane {
                    edits.push(Edit { hour: hour_of(session.start), slot, value: -1 });
                }
            }
            _ => joined.push(session),
        }
    }
    if let Some(lifetime) = slots.lifetime {
        lifetime.set(row, lifetime.get(row).saturating_sub(fewer));
    }
    // Both may have ended long ago; then the later one is still the newest.
    let Some(last) =
        joined.pop().or_else(|| newest(row).into_iter().chain(newest(other.0)).max_by_key(|s| s.end))
    else {
        return;
    };
    slots.start.set(row, last.start);
    slots.end.set(row, last.end);
    repack(slots, row, packed, &joined);
}

/// A session that ended before this instant is out of every window and too old for a late click to matter.
fn oldest(slots: &Sessions, now: Ts) -> Ts {
    now - slots.longest_ms - DAY_MS - SESSION_GAP_MS
}

/// Packs the session that was the newest; drops those that no window and no late click can need any more.
fn push_packed(slots: &Sessions, row: &mut [u32], packed: &mut ThinVec<u8>, session: Session, now: Ts) {
    const LONGEST_PACKED_BYTES: usize = 20;
    if packed.len() + LONGEST_PACKED_BYTES > packed.capacity() {
        let oldest = oldest(slots, now);
        let kept: Vec<Session> = unpack(packed).into_iter().filter(|s| s.end >= oldest).collect();
        repack(slots, row, packed, &kept);
        packed.reserve_exact((packed.len() / 8 + 16).max(LONGEST_PACKED_BYTES));
    }
    let previous_end = if packed.is_empty() { MIN_TS } else { slots.packed_end.get(row) };
    append(packed, previous_end, session);
    slots.packed_end.set(row, session.end);
}

fn append(packed: &mut impl Packed, previous_end: Ts, session: Session) {
    put_u64(packed, (session.start - previous_end) as u64);
    put_u64(packed, (session.end - session.start) as u64);
}

/// Appends the packed sessions that can still matter as of `now`: the same bytes whether or not room was made
/// in between.
pub fn put_current(slots: &Sessions, packed: &[u8], now: Ts, out: &mut impl Packed) {
    let (mut at, mut end) = (0, MIN_TS);
    while at < packed.len() {
        let start = end.saturating_add_unsigned(get_u64(packed, &mut at));
        end = start.saturating_add_unsigned(get_u64(packed, &mut at));
        if end >= oldest(slots, now) {
            append(out, MIN_TS, Session { start, end });
            return out.put(packed.get(at..).unwrap_or(&[]));
        }
    }
}

fn repack(slots: &Sessions, row: &mut [u32], packed: &mut ThinVec<u8>, all: &[Session]) {
    packed.clear();
    let mut end = NEVER;
    for session in all {
        append(packed, if packed.is_empty() { MIN_TS } else { end }, *session);
        end = session.end;
    }
    slots.packed_end.set(row, end);
}

/// The end of the newest session of a list from outside; `None` when it is no list of sessions before `start`.
pub fn packed_end(packed: &[u8], start: Ts) -> Option<Ts> {
    let (mut at, mut end) = (0, MIN_TS);
    while at < packed.len() {
        let gap = i64::try_from(get_u64(packed, &mut at)).ok()?;
        let length = i64::try_from(get_u64(packed, &mut at)).ok()?;
        end = end.checked_add(gap)?.checked_add(length)?;
        if end >= start {
            return None;
        }
    }
    (at == packed.len()).then_some(if packed.is_empty() { NEVER } else { end })
}

/// The packed sessions, oldest first.
pub fn unpack(packed: &[u8]) -> Vec<Session> {
    let (mut all, mut at, mut end) = (Vec::new(), 0, MIN_TS);
    while at < packed.len() {
        let start = end.saturating_add_unsigned(get_u64(packed, &mut at));
        end = start.saturating_add_unsigned(get_u64(packed, &mut at));
        all.push(Session { start, end });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::catalogue::Catalogue;
    use crate::pipeline::layout::Layout;
    use crate::pipeline::words::RowBuilder;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn naive_starts(clicks: &[Ts]) -> BTreeMap<u32, i64> {
        let mut sorted = clicks.to_vec();
        sorted.sort_unstable();
        let mut starts = BTreeMap::new();
        for (i, ts) in sorted.iter().enumerate() {
            if i == 0 || ts - sorted[i - 1] >= SESSION_GAP_MS {
                *starts.entry(hour_of(*ts)).or_insert(0) += 1;
            }
        }
        starts
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn sessions_do_not_depend_on_the_order_of_clicks(
            clicks in prop::collection::vec((0i64..2_000, 0i64..60_000), 1..60)
        ) {
            let mut builder = RowBuilder::default();
            let layout = Layout::new(&Catalogue::shipped(), &mut builder).unwrap();
            let mut row = builder.finish();
            let slots = layout.sessions.unwrap();
            let mut packed = ThinVec::new();
            let clicks: Vec<Ts> = clicks.iter().map(|(m, ms)| 1_700_000_000_000 + m * 10 * 60_000 + ms).collect();
            let mut counted: BTreeMap<u32, i64> = BTreeMap::new();
            let mut now = 0;
            for (i, ts) in clicks.iter().enumerate() {
                now = now.max(*ts);
                let mut edits = Vec::new();
                click(&slots, &mut row, &mut packed, *ts, now, &mut edits);
                for edit in edits {
                    *counted.entry(edit.hour).or_insert(0) += edit.value;
                }
                counted.retain(|_, n| *n != 0);
                prop_assert_eq!(&counted, &naive_starts(&clicks[..=i]));
            }
        }
    }
}
