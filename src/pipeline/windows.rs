//! Windows by the sawtooth rule (Chronon): the head is exact, the tail advances in hops.
//!
//! A window of `W` as of `T` covers the panes with `floor(pane / hop) > floor(T / hop) − W / hop`. Each
//! customer keeps, per window, the totals of the panes inside and a cursor to the oldest of them; advancing
//! subtracts what has left, so the cost of an event does not depend on how much its customer did before.
//! All numbers are integers (counts, millionths), so totals do not depend on the order of arrival.

use thin_vec::ThinVec;

use super::layout::{Combine, Layout, NEVER, PaneSlot, Total, Window};
use super::panes::{self, Head, Hour, Measures, OwnedPane, bits, hour_of, hour_start};
use super::varint::Packed;
use crate::time::{DAY_MS, HOUR_MS, Ts};

impl Window {
    /// Whether a pane that starts at `pane` is inside as of an instant in the hour `now`.
    #[inline]
    pub fn holds(&self, pane: Hour, now: Hour) -> bool {
        // Divided by a constant, which costs nothing beside a division by what is only known now.
        match self.hop_hours {
            1 => pane + self.hops > now,
            _ => pane / 24 + self.hops > now / 24,
        }
    }

    /// The hour at whose start a pane that starts at `pane` leaves.
    #[inline]
    fn leaves_in(&self, pane: Hour) -> Hour {
        match self.hop_hours {
            1 => pane + self.hops,
            _ => (pane / 24 + self.hops) * 24,
        }
    }

    /// The instant at which a pane that starts at `pane` leaves.
    pub fn leaves_at(&self, pane: Hour) -> Ts {
        hour_start(self.leaves_in(pane))
    }

    /// The earliest instant it covers as of `now`.
    pub fn start(&self, now: Ts) -> Ts {
        let hop = if self.hop_hours == 24 { DAY_MS } else { HOUR_MS };
        (now.div_euclid(hop) - i64::from(self.hops) + 1) * hop
    }
}

/// One customer's windows: the totals in `row`, the panes in `log`.
pub struct Windows<'a> {
    pub layout: &'a Layout,
    pub row: &'a mut [u32],
    pub log: &'a mut ThinVec<u8>,
}

/// A change of one measure in the pane of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    pub hour: Hour,
    pub slot: u8,
    pub value: i64,
}

impl Windows<'_> {
    /// Lets panes leave that are outside as of `now`. `now` never goes back between two calls; see
    /// [`Windows::recount`] for when it must.
    #[inline]
    pub fn advance(&mut self, now: Ts) {
        let hour = hour_of(now);
        if hour >= self.layout.leaving_hour.get(self.row) {
            self.expire(hour);
        }
    }

    fn expire(&mut self, hour: Hour) {
        for index in 0..self.layout.windows.len() {
            let window = &self.layout.windows[index];
            while (window.cursor.get(self.row) as usize) < self.log.len()
                && !window.holds(window.cursor_hour.get(self.row), hour)
            {
                self.expire_oldest(index);
            }
        }
        self.note_leaving();
    }

    /// Notes the first hour in which [`Windows::advance`] has something to do.
    fn note_leaving(&mut self) {
        let leaves = |window: &Window| {
            let inside = (window.cursor.get(self.row) as usize) < self.log.len();
            inside.then(|| window.leaves_in(window.cursor_hour.get(self.row)))
        };
        let first = self.layout.windows.iter().filter_map(leaves).min();
        self.layout.leaving_hour.set(self.row, first.unwrap_or(Hour::MAX));
    }

    fn expire_oldest(&mut self, index: usize) {
        let window = &self.layout.windows[index];
        let at = window.cursor.get(self.row) as usize;
        let hour = window.cursor_hour.get(self.row);
        let mut lost_extremes = 0u128;
        let (row, layout) = (&mut *self.row, self.layout);
        let (head, next) = panes::read(self.log, at, 0, |slot, value| {
            for total in totals_of(&layout.panes[usize::from(slot)], index) {
                if !subtract(total, value, row) {
                    lost_extremes |= 1 << slot;
                }
            }
        });
        self.set_cursor(index, next, hour);
        for slot in bits(head.mask) {
            let pane = &self.layout.panes[usize::from(slot)];
            if let Some((_, days)) = pane.days.iter().find(|(w, _)| usize::from(*w) == index)
                && !self.day_goes_on(next, hour, slot)
            {
                days.add(self.row, u32::MAX);
            }
        }
        if lost_extremes != 0 {
            self.recount_extremes(index, lost_extremes);
        }
    }

    /// Points the window at the pane at `at`, whose predecessor starts at `previous`.
    fn set_cursor(&mut self, index: usize, at: usize, previous: Hour) {
        let window = &self.layout.windows[index];
        window.cursor.set(self.row, at as u32);
        if at < self.log.len() {
            let (head, _) = panes::read_head(self.log, at, previous);
            window.cursor_hour.set(self.row, head.hour);
        }
    }

    /// Whether a pane from `at` on lies on the same day as `hour` and holds the measure.
    fn day_goes_on(&self, mut at: usize, hour: Hour, slot: u8) -> bool {
        let mut previous = hour;
        while at < self.log.len() {
            let (head, values_at) = panes::read_head(self.log, at, previous);
            if head.hour / 24 != hour / 24 {
                return false;
            }
            if head.mask >> slot & 1 == 1 {
                return true;
            }
            (at, previous) = (panes::skip(self.log, values_at, head.mask), head.hour);
        }
        false
    }

    fn recount_extremes(&mut self, index: usize, slots: u128) {
        for slot in bits(slots) {
            for total in totals_of(&self.layout.panes[usize::from(slot)], index) {
                reset(total, self.row);
            }
        }
        let window = &self.layout.windows[index];
        let (mut at, hour) = (window.cursor.get(self.row) as usize, window.cursor_hour.get(self.row));
        let (row, layout) = (&mut *self.row, self.layout);
        let mut previous = hour;
        while at < self.log.len() {
            let (head, next) = panes::read(self.log, at, previous, |slot, value| {
                if slots >> slot & 1 == 1 {
                    totals_of(&layout.panes[usize::from(slot)], index)
                        .for_each(|total| add(total, value, row));
                }
            });
            (at, previous) = (next, head.hour);
        }
    }

    /// Folds the measures of an event at `ts` in; the windows are already advanced to `now >= ts`.
    ///
    /// `measures` comes with the event's values and is used as working memory. `edits` are changes that the
    /// event causes in panes of its past (a late click that joins two sessions).
    pub fn apply(&mut self, ts: Ts, now: Ts, measures: &mut Measures, edits: &[Edit]) {
        let hour = hour_of(ts);
        let in_order =
            hour == hour_of(now) && (self.log.is_empty() || self.layout.tail_hour.get(self.row) <= hour);
        if in_order && edits.iter().all(|edit| edit.hour == hour) {
            for edit in edits {
                measures.combine(edit.slot, Combine::Add, edit.value);
            }
            if measures.mask != 0 {
                self.apply_at_head(hour, now, measures);
            }
        } else {
            let own = measures.iter().map(|(slot, value)| Edit { hour, slot, value });
            let all: Vec<Edit> = own.chain(edits.iter().copied()).collect();
            self.apply_in_past(&all, now);
        }
    }

    /// The common case: the newest pane grows, or a new one follows it.
    fn apply_at_head(&mut self, hour: Hour, now: Ts, measures: &mut Measures) {
        let grows = self.tail_spans(hour);
        if !grows {
            // Before the totals change: making room may count them anew.
            self.make_room(now, hour, measures);
        }
        for (slot, value) in measures.iter() {
            let pane = &self.layout.panes[usize::from(slot)];
            for (_, total) in &pane.totals {
                add(*total, value, self.row);
            }
            self.count_day(pane, hour / 24);
        }
        if grows { self.grow_tail(measures) } else { self.append(hour, measures) }
    }

    /// Whether the newest pane is that of this hour.
    fn tail_spans(&self, hour: Hour) -> bool {
        let tail = self.layout.tail.get(self.row) as usize;
        !self.log.is_empty()
            && self.layout.tail_hour.get(self.row) == hour
            && !panes::read_head(self.log, tail, 0).0.whole_day
    }

    fn count_day(&mut self, pane: &PaneSlot, day: u32) {
        let Some(last_day) = pane.last_day else { return };
        let is_new = last_day.get(self.row) != day;
        last_day.set(self.row, day);
        for (_, days) in &pane.days {
            // What the day had before may have left a window that is shorter than a day.
            if is_new || days.get(self.row) == 0 {
                days.add(self.row, 1);
            }
        }
    }

    fn grow_tail(&mut self, measures: &mut Measures) {
        let (tail, layout) = (self.layout.tail.get(self.row) as usize, self.layout);
        // Read relative to nothing, the head's hour is the distance to the pane before, and is written back so.
        let (head, _) = panes::read(self.log, tail, 0, |slot, value| {
            measures.combine(slot, layout.panes[usize::from(slot)].combine, value);
        });
        self.log.truncate(tail);
        panes::write(self.log, 0, head.hour, false, measures);
    }

    /// Room for one more pane. Grows by little, to keep memory close to what is used, but by enough that not
    /// every pane counts everything anew.
    fn make_room(&mut self, now: Ts, hour: Hour, measures: &Measures) {
        let tail_hour = self.layout.tail_hour.get(self.row);
        if self.log.len() + panes::len(tail_hour, hour, measures) > self.log.capacity() {
            self.compact(now);
            let tail_hour = if self.log.is_empty() { 0 } else { self.layout.tail_hour.get(self.row) };
            let (needed, used) = (panes::len(tail_hour, hour, measures), self.log.len());
            // Else a log that loses a pane for each that it gains would come here every time.
            if used + needed + 16 + used / 8 > self.log.capacity() {
                self.log.reserve_exact(needed + 24 + used / 4);
            }
        }
    }

    fn append(&mut self, hour: Hour, measures: &Measures) {
        let previous = if self.log.is_empty() { 0 } else { self.layout.tail_hour.get(self.row) };
        let at = self.log.len();
        panes::write(self.log, previous, hour, false, measures);
        self.layout.tail.set(self.row, at as u32);
        self.layout.tail_hour.set(self.row, hour);
        let mut leaving = self.layout.leaving_hour.get(self.row);
        for window in &self.layout.windows {
            if window.cursor.get(self.row) as usize == at {
                window.cursor_hour.set(self.row, hour);
                leaving = leaving.min(window.leaves_in(hour));
            }
        }
        self.layout.leaving_hour.set(self.row, leaving);
    }

    /// A late event, or one that changes older panes: rearrange the log and count anew.
    fn apply_in_past(&mut self, edits: &[Edit], now: Ts) {
        // First, so that an edit of a day finds what its hours held.
        self.fold_log(now);
        let mut all = panes::unpack(self.log, self.layout.panes.len());
        let now_hour = hour_of(now);
        for edit in edits {
            let Some((hour, whole_day)) = self.place(edit.hour, now_hour) else { continue };
            let combine = self.layout.panes[usize::from(edit.slot)].combine;
            match all.binary_search_by_key(&(hour, !whole_day), OwnedPane::order) {
                Ok(found) => all[found].measures.combine(edit.slot, combine, edit.value),
                Err(_) if edit.value < 0 && combine == Combine::Add && self.is_count(edit.slot) => {}
                Err(missing) => {
                    let mut measures = Measures::new(self.layout.panes.len());
                    measures.put(edit.slot, edit.value);
                    all.insert(missing, OwnedPane { hour, whole_day, measures });
                }
            }
        }
        all.retain(|pane| pane.measures.mask != 0);
        self.rewrite(&all, now);
    }

    fn is_count(&self, slot: u8) -> bool {
        matches!(self.layout.panes[usize::from(slot)].totals.first(), Some((_, Total::Count(_))))
    }

    /// Which pane an hour belongs to as of `now`: its own, its day's, or none once no window sees it.
    fn place(&self, hour: Hour, now: Hour) -> Option<(Hour, bool)> {
        let seen = |hop_hours: u32| {
            self.layout.windows.iter().any(|w| w.hop_hours == hop_hours && w.holds(hour, now))
        };
        if seen(1) {
            Some((hour, false))
        } else if seen(24) {
            Some((hour / 24 * 24, true))
        } else {
            None
        }
    }

    /// Folds hours that no hourly window sees into their days and drops what no window sees.
    pub fn compact(&mut self, now: Ts) {
        self.fold_log(now);
        self.recount(now);
    }

    fn fold_log(&mut self, now: Ts) {
        let mut folded = ThinVec::new();
        put_folded(self.layout, self.log, now, &mut folded);
        self.log.clear();
        self.log.extend_from_slice(&folded);
    }

    fn rewrite(&mut self, all: &[OwnedPane], now: Ts) {
        panes::pack(all, self.log);
        self.recount(now);
    }

    /// Computes totals, cursors and tail from the log alone, as of `now`.
    pub fn recount(&mut self, now: Ts) {
        self.reset();
        let now_hour = hour_of(now);
        let (mut at, mut hour) = (0, 0);
        let mut entered = 0u32;
        while at < self.log.len() {
            let (head, _) = panes::read_head(self.log, at, hour);
            for (index, window) in self.layout.windows.iter().enumerate() {
                if entered >> index & 1 == 0 && window.holds(head.hour, now_hour) {
                    entered |= 1 << index;
                    window.cursor.set(self.row, at as u32);
                    window.cursor_hour.set(self.row, head.hour);
                }
            }
            let (row, layout) = (&mut *self.row, self.layout);
            let (_, next) = panes::read(self.log, at, hour, |slot, value| {
                count_in(&layout.panes[usize::from(slot)], head.hour / 24, value, entered, row);
            });
            layout.tail.set(row, at as u32);
            layout.tail_hour.set(row, head.hour);
            (at, hour) = (next, head.hour);
        }
        for (index, window) in self.layout.windows.iter().enumerate() {
            if entered >> index & 1 == 0 {
                window.cursor.set(self.row, self.log.len() as u32);
            }
        }
        self.note_leaving();
    }

    fn reset(&mut self) {
        for pane in &self.layout.panes {
            pane.totals.iter().for_each(|(_, total)| reset(*total, self.row));
            pane.days.iter().for_each(|(_, days)| days.set(self.row, 0));
            if let Some(last_day) = pane.last_day {
                last_day.set(self.row, 0);
            }
        }
        self.layout.tail.set(self.row, 0);
        self.layout.tail_hour.set(self.row, 0);
    }

    /// Takes in the log of somebody who is the same customer, and what else that changes in panes of the past.
    /// Counts everything anew, as of `now`.
    pub fn join(&mut self, other: &[u8], edits: &[Edit], now: Ts) {
        let (mut folded, slots) = (ThinVec::new(), self.layout.panes.len());
        put_folded(self.layout, other, now, &mut folded);
        self.fold_log(now);
        let mut all = panes::unpack(self.log, slots);
        for pane in panes::unpack(&folded, slots) {
            match all.binary_search_by_key(&pane.order(), OwnedPane::order) {
                Err(missing) => all.insert(missing, pane),
                Ok(found) => {
                    for (slot, value) in pane.measures.iter() {
                        let combine = self.layout.panes[usize::from(slot)].combine;
                        all[found].measures.combine(slot, combine, value);
                    }
                }
            }
        }
        self.rewrite(&all, now);
        if !edits.is_empty() {
            self.apply_in_past(edits, now);
        }
    }

    /// The earliest instant after the last advance at which the totals of these measures over this window may
    /// change. Looks at a few panes only, so it may name an instant at which nothing changes after all.
    pub fn next_change(&self, window: u8, measures: u128) -> Option<Ts> {
        next_change(self.layout, self.row, self.log, window, measures)
    }
}

/// Appends a log as it is as of `now`: hours that no hourly window sees folded into their days, and what no
/// window sees left out. The same bytes whether or not the log was folded in between.
pub fn put_folded(layout: &Layout, log: &[u8], now: Ts, out: &mut impl Packed) {
    let (hourly_from, daily_from) = (first_seen(layout, 1, now), first_seen(layout, 24, now));
    let stays_hourly = |head: &Head| !head.whole_day && head.hour >= hourly_from;
    let mut open: Option<(Hour, Measures)> = None;
    let (mut at, mut hour, mut written) = (0, 0, 0);
    // Days that stand one behind the other stay as they are, and go out at once.
    let mut run = 0..0;
    let mut ahead = (!log.is_empty()).then(|| panes::read_head(log, 0, 0));
    while let Some((head, values_at)) = ahead {
        let (start, next) = (head.hour / 24 * 24, panes::skip(log, values_at, head.mask));
        ahead = (next < log.len()).then(|| panes::read_head(log, next, head.hour));
        if open.as_ref().is_some_and(|(day, _)| *day != start || stays_hourly(&head)) {
            close_day(&mut open, &mut written, out);
        }
        // Most old panes are days already and have nothing to be folded into them.
        let goes_on = |next: &Head| next.hour / 24 * 24 == start && !stays_hourly(next);
        let is_folded = head.whole_day && open.is_none() && !ahead.is_some_and(|(next, _)| goes_on(&next));
        let is_copied = stays_hourly(&head) || is_folded && start >= daily_from;
        if !(is_copied && at == run.end && written == hour) {
            out.put(log.get(std::mem::take(&mut run)).unwrap_or(&[]));
        }
        if is_copied {
            if run.is_empty() {
                panes::write_head(out, written, head);
                run.start = values_at;
            }
            if stays_hourly(&head) {
                return out.put(log.get(run.start..).unwrap_or(&[]));
            }
            (run.end, written) = (next, start);
        } else if start >= daily_from {
            let (_, day) = open.get_or_insert_with(|| (start, Measures::new(layout.panes.len())));
            panes::read(log, at, hour, |slot, value| {
                day.combine(slot, layout.panes[usize::from(slot)].combine, value);
            });
        }
        (at, hour) = (next, head.hour);
    }
    out.put(log.get(run).unwrap_or(&[]));
    close_day(&mut open, &mut written, out);
}

fn close_day(open: &mut Option<(Hour, Measures)>, written: &mut Hour, out: &mut impl Packed) {
    if let Some((start, day)) = open.take().filter(|(_, day)| day.mask != 0) {
        panes::write(out, *written, start, true, &day);
        *written = start;
    }
}

/// The first hour (or the first hour of the first day) that a window of this hop sees as of `now`.
fn first_seen(layout: &Layout, hop_hours: u32, now: Ts) -> Hour {
    let hops = layout.windows.iter().filter(|w| w.hop_hours == hop_hours).map(|w| w.hops).max();
    hops.map_or(Hour::MAX, |hops| (hour_of(now) / hop_hours + 1).saturating_sub(hops) * hop_hours)
}

/// See [`Windows::next_change`].
pub fn next_change(layout: &Layout, row: &[u32], log: &[u8], window: u8, measures: u128) -> Option<Ts> {
    const LOOK_AHEAD_PANES: usize = 8;
    let window = &layout.windows[usize::from(window)];
    let (mut at, mut hour) = (window.cursor.get(row) as usize, window.cursor_hour.get(row));
    let mut first = true;
    for _ in 0..LOOK_AHEAD_PANES {
        if at >= log.len() {
            return None;
        }
        // The cursor knows the hour of its own pane; later panes are relative to the one before.
        let (head, values_at) = panes::read_head(log, at, hour);
        hour = if first { hour } else { head.hour };
        first = false;
        if head.mask & measures != 0 {
            return Some(window.leaves_at(hour));
        }
        at = panes::skip(log, values_at, head.mask);
    }
    Some(window.leaves_at(hour))
}

/// The instant at which an event at `ts` leaves the window; `None` when it never was inside.
pub fn leaves_at(window: &Window, ts: Ts) -> Option<Ts> {
    (ts != NEVER).then(|| window.leaves_at(hour_of(ts)))
}

fn totals_of(pane: &PaneSlot, window: usize) -> impl Iterator<Item = Total> + '_ {
    pane.totals.iter().filter(move |(w, _)| usize::from(*w) == window).map(|(_, total)| *total)
}

fn count_in(pane: &PaneSlot, day: u32, value: i64, windows: u32, row: &mut [u32]) {
    for (window, total) in &pane.totals {
        if windows >> window & 1 == 1 {
            add(*total, value, row);
        }
    }
    let Some(last_day) = pane.last_day else { return };
    for (window, days) in &pane.days {
        // A window that the day's first pane was outside of may still hold a later pane of that day.
        let counted = last_day.get(row) == day && days.get(row) > 0;
        if windows >> window & 1 == 1 && !counted {
            days.add(row, 1);
        }
    }
    last_day.set(row, day);
}

#[inline]
fn add(total: Total, value: i64, row: &mut [u32]) {
    match total {
        Total::Count(slot) => slot.add(row, value as u32),
        Total::Sum(slot) => slot.add(row, value),
        Total::Min(slot) => slot.set(row, slot.get(row).min(value)),
        Total::Max(slot) => slot.set(row, slot.get(row).max(value)),
    }
}

/// Takes a value out; `false` when an extreme may have been lost with it.
#[inline]
fn subtract(total: Total, value: i64, row: &mut [u32]) -> bool {
    match total {
        Total::Count(slot) => slot.add(row, (value as u32).wrapping_neg()),
        Total::Sum(slot) => slot.add(row, value.saturating_neg()),
        Total::Min(slot) => return slot.get(row) < value,
        Total::Max(slot) => return slot.get(row) > value,
    }
    true
}

fn reset(total: Total, row: &mut [u32]) {
    match total {
        Total::Count(slot) => slot.set(row, 0),
        Total::Sum(slot) => slot.set(row, 0),
        Total::Min(slot) => slot.set(row, i64::MAX),
        Total::Max(slot) => slot.set(row, i64::MIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::catalogue::Catalogue;
    use crate::pipeline::words::RowBuilder;
    use proptest::prelude::*;

    const FEATURES: &str = r#"
default = false
[[feature]]
name = "n"
source = "purchase"
agg = "count"
windows = ["3h", "2d", "13d", "30d"]
[[feature]]
name = "s"
source = "purchase"
agg = "sum"
field = "amount"
windows = ["2d", "30d"]
[[feature]]
name = "lo"
source = "purchase"
agg = "min"
field = "amount"
windows = ["2d", "13d"]
[[feature]]
name = "hi"
source = "purchase"
agg = "max"
field = "amount"
windows = ["3h", "30d"]
[[feature]]
name = "d"
source = "purchase"
agg = "distinct_days"
windows = ["2h", "23h", "2d", "13d"]
"#;

    /// The sawtooth rule, word for word.
    fn inside(ts: Ts, now: Ts, ms: i64) -> bool {
        let hop = if ms < 12 * DAY_MS { HOUR_MS } else { DAY_MS };
        ts.div_euclid(hop) > now.div_euclid(hop) - ms / hop && ts <= now
    }

    fn check(layout: &Layout, row: &[u32], events: &[(Ts, i64)], now: Ts) {
        for pane in &layout.panes {
            for (window, total) in &pane.totals {
                let ms = layout.windows[usize::from(*window)].ms;
                let values = events.iter().filter(|(ts, _)| inside(*ts, now, ms)).map(|(_, v)| *v);
                let (got, want) = match total {
                    Total::Count(slot) => (i64::from(slot.get(row)), values.count() as i64),
                    Total::Sum(slot) => (slot.get(row), values.sum()),
                    Total::Min(slot) => (slot.get(row), values.min().unwrap_or(i64::MAX)),
                    Total::Max(slot) => (slot.get(row), values.max().unwrap_or(i64::MIN)),
                };
                assert_eq!(got, want, "{} over {ms} ms as of {now}", pane.name);
            }
            for (window, days) in &pane.days {
                let ms = layout.windows[usize::from(*window)].ms;
                let mut distinct: Vec<_> = events
                    .iter()
                    .filter(|(ts, _)| inside(*ts, now, ms))
                    .map(|(ts, _)| ts.div_euclid(DAY_MS))
                    .collect();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(days.get(row) as usize, distinct.len(), "days over {ms} ms as of {now}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn totals_equal_the_rule_in_any_order_of_arrival(
            steps in prop::collection::vec((0i64..5, 1i64..80, 0i64..100, prop::bool::weighted(0.2)), 1..80)
        ) {
            let mut builder = RowBuilder::default();
            let layout = Layout::new(&Catalogue::load("t", FEATURES).unwrap(), &mut builder).unwrap();
            let mut row = builder.finish();
            let mut log = ThinVec::new();
            let mut now = 1_700_000_000_000;
            let mut events = Vec::new();
            for (size, gap, value, late) in steps {
                now += gap * [1_000, 5 * 60_000, HOUR_MS / 3, 7 * HOUR_MS, 3 * DAY_MS][size as usize];
                let ts = if late { now - gap * HOUR_MS * 3 } else { now };
                let mut windows = Windows { layout: &layout, row: &mut row, log: &mut log };
                windows.advance(now);
                let mut measures = Measures::new(layout.panes.len());
                for (slot, pane) in layout.panes.iter().enumerate() {
                    measures.put(slot as u8, if pane.name.starts_with("count") { 1 } else { value });
                }
                windows.apply(ts, now, &mut measures, &[]);
                events.push((ts, value));
                check(&layout, &row, &events, now);
                let silent = now + gap * HOUR_MS;
                let mut later = (row.clone(), log.clone());
                Windows { layout: &layout, row: &mut later.0, log: &mut later.1 }.advance(silent);
                check(&layout, &later.0, &events, silent);
                Windows { layout: &layout, row: &mut later.0, log: &mut later.1 }.compact(silent);
                check(&layout, &later.0, &events, silent);
                prop_assert!(panes::is_valid(&log, layout.panes.len()));
            }
        }

        #[test]
        fn no_total_changes_before_the_announced_instant(
            gaps in prop::collection::vec(1i64..200, 1..40)
        ) {
            let mut builder = RowBuilder::default();
            let layout = Layout::new(&Catalogue::load("t", FEATURES).unwrap(), &mut builder).unwrap();
            let mut row = builder.finish();
            let mut log = ThinVec::new();
            let mut now = 1_700_000_000_000;
            for gap in gaps {
                now += gap * HOUR_MS / 4;
                let mut windows = Windows { layout: &layout, row: &mut row, log: &mut log };
                windows.advance(now);
                let mut measures = Measures::new(layout.panes.len());
                measures.put(0, 1);
                windows.apply(now, now, &mut measures, &[]);
            }
            let totals = |row: &[u32]| layout.panes[0].totals.iter().map(|(_, t)| match t {
                Total::Count(slot) => slot.get(row), _ => 0 }).collect::<Vec<_>>();
            for _ in 0..50 {
                let mut windows = Windows { layout: &layout, row: &mut row, log: &mut log };
                let next = (0..layout.windows.len()).filter_map(|w| windows.next_change(w as u8, 1)).min();
                let Some(next) = next else { break };
                prop_assert!(next > now);
                let before = totals(windows.row);
                windows.advance(next - 1);
                prop_assert_eq!(&before, &totals(windows.row));
                windows.advance(next);
                now = next;
            }
        }
    }
}
