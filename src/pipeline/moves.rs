//! Who moved from stage to stage in the last 30 days of event time, counted: what the key figures are made of.
//!
//! Moves are counted as they are decided, by UTC day, lifecycle, segment and the stage left; a count says how many
//! went to which stage, how many of them had been customers before, and how long they had been there. Each
//! such count is a small record of the state topic, written in the transaction of the moves that it counts, and
//! taken back with them: no restart, no rebalance and no abort loses a move or counts one twice. A transaction writes
//! the counts that it changed and no others, at most one for each move.
//!
//! All is said by names. Where a definition changes, what was counted of stages that are still there under the same
//! names of lifecycle and stages keeps its meaning; the rest is not shown, and gone when its days are.
//!
//! Bounds: [`WINDOW_DAYS`] days, and of each, for every stage of every lifecycle, [`SEGMENTS_MOST`] segments, the
//! others together, and those without one. A record is at most 8 KiB and the names of the stages it leads to (1,001
//! lengths of a stay, and 6 bytes for how often), and far less in practice: 2 or 3 bytes for each length that occurred.
//!
//! ```text
//!  \xffkpis                                          since when moves are counted
//!  \xffkpis ‖ day ‖ lifecycle ‖ segment ‖ stage left  a count; deleted when its day leaves the window
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::varint::{get_i64, get_u64, put_i64, put_u64};
use super::worth::{OTHERS, SEGMENTS_MOST};
use crate::time::{DAY_MS, MAX_TS, MIN_TS, Ts};

/// What the keys of these records in the state topic begin with. It is no UTF-8, so that no customer can have it.
pub const KEY: &[u8] = b"\xffkpis";
/// Days of event time that moves are known of.
pub const WINDOW_DAYS: i64 = 30;

const VERSION: u8 = 1;
/// Stays are counted in steps of this factor, beginning at one minute: the highest is one of 757 years.
const STEP: f64 = 1.02;
const STEPS_MOST: u16 = 1_000;
const MINUTES_A_DAY: f64 = 1_440.0;
/// Stages that can be moved to from one; more than a lifecycle may have.
const STAGES_MOST: u64 = 255;
/// Far more than there are customers, and far less than what sums could not hold.
const COUNT_MOST: u64 = 1 << 40;
/// Days far beyond every event, either way.
const DAY_MOST: i64 = 1 << 40;

/// What is counted apart on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'m> {
    pub lifecycle: &'m str,
    /// Empty where there is none.
    pub segment: &'m str,
    pub from: &'m str,
}

impl<'m> Place<'m> {
    fn write(&self, out: &mut Vec<u8>) {
        for name in [self.lifecycle, self.segment, self.from] {
            put_text(out, name);
        }
    }

    fn read(bytes: &'m [u8]) -> Option<Place<'m>> {
        let mut at = 0;
        let mut text = || get_text(bytes, &mut at);
        let place = Place { lifecycle: text()?, segment: text()?, from: text()? };
        (at == bytes.len()).then_some(place)
    }
}

/// A customer's move from one stage to another.
#[derive(Clone, Copy, Debug)]
pub struct Passage<'a> {
    pub place: Place<'a>,
    pub to: &'a str,
    /// Whether the customer had been in a stage of customers when it left.
    pub returned: bool,
    pub stage_days: f64,
    pub at: Ts,
}

/// Those who left a stage on a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    to: BTreeMap<Box<str>, Moved>,
    /// How many stays took so many steps.
    stays: BTreeMap<u16, u64>,
}

/// How many moved from one stage to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub all: u64,
    /// Of them, those who had been in a stage of customers.
    pub returned: u64,
}

impl Moved {
    pub fn add(&mut self, more: Moved) {
        self.all = self.all.saturating_add(more.all);
        self.returned = self.returned.saturating_add(more.returned);
    }
}

impl Left {
    fn count(&mut self, passage: &Passage<'_>) {
        let one = Moved { all: 1, returned: u64::from(passage.returned) };
        match self.to.get_mut(passage.to) {
            Some(moved) => moved.add(one),
            None => drop(self.to.insert(passage.to.into(), one)),
        }
        if passage.stage_days.is_finite() && passage.stage_days >= 0.0 {
            *self.stays.entry(steps(passage.stage_days)).or_default() += 1;
        }
    }

    /// By stage.
    pub fn to(&self) -> impl Iterator<Item = (&str, Moved)> {
        self.to.iter().map(|(to, moved)| (&**to, *moved))
    }

    pub fn stays(&self) -> &BTreeMap<u16, u64> {
        &self.stays
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_u64(&mut out, self.to.len() as u64);
        for (to, moved) in &self.to {
            put_text(&mut out, to);
            put_u64(&mut out, moved.all);
            put_u64(&mut out, moved.returned);
        }
        let mut before = 0;
        for (steps, n) in &self.stays {
            put_u64(&mut out, u64::from(*steps - before));
            put_u64(&mut out, *n);
            before = *steps;
        }
        out
    }

    fn read(bytes: &[u8]) -> Option<Left> {
        let (mut at, mut left) = (1, Left::default());
        let stages = Some(get_u64(bytes, &mut at)).filter(|n| *n <= STAGES_MOST)?;
        for _ in 0..stages {
            let to = get_text(bytes, &mut at)?;
            let all = get_u64(bytes, &mut at).min(COUNT_MOST);
            let moved = Moved { all, returned: get_u64(bytes, &mut at).min(all) };
            left.to.insert(to.into(), moved);
        }
        let mut steps = 0u64;
        while at < bytes.len() {
            steps = steps.checked_add(get_u64(bytes, &mut at)).filter(|s| *s <= u64::from(STEPS_MOST))?;
            left.stays.insert(steps as u16, get_u64(bytes, &mut at).min(COUNT_MOST));
        }
        (at == bytes.len()).then_some(left)
    }

    /// In memory, give or take the nodes of maps.
    fn bytes(&self) -> usize {
        let names: usize = self.to.keys().map(|to| to.len() + size_of::<(Box<str>, Moved)>()).sum();
        names + self.stays.len() * size_of::<(u16, u64)>()
    }
}

/// By the bytes of a [`Place`].
type Day = BTreeMap<Box<[u8]>, Left>;

/// The moves of a partition. Cheap to copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    since: Option<Ts>,
    days: BTreeMap<i64, Arc<Day>>,
    /// Those told apart: all that the days know.
    segments: Arc<BTreeSet<Box<str>>>,
}

impl Moves {
    /// The first move that was ever counted.
    pub fn since(&self) -> Option<Ts> {
        self.since
    }

    /// The newest UTC day that anybody moved on, since 1970.
    pub fn newest_day(&self) -> Option<i64> {
        self.days.keys().next_back().copied()
    }

    /// What was counted, by day.
    pub fn counts(&self) -> impl Iterator<Item = (i64, Place<'_>, &Left)> {
        self.days.iter().flat_map(|(day, counts)| {
            counts.iter().filter_map(|(names, left)| Some((*day, Place::read(names)?, left)))
        })
    }

    /// All records, as the state topic holds them.
    pub fn records(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let head = self.since.map(|since| (KEY.to_vec(), encode_since(since)));
        let days = self
            .days
            .iter()
            .flat_map(|(day, counts)| counts.iter().map(|(names, left)| (key(*day, names), left.encode())));
        head.into_iter().chain(days)
    }

    pub fn bytes(&self) -> usize {
        let counts = self.days.values().flat_map(|day| day.iter());
        counts.map(|(names, left)| names.len() + size_of::<Left>() + left.bytes()).sum()
    }

    /// Takes in a record; `None` deletes it. `Ok(false)`: the key is of another kind.
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool, String> {
        let Some(rest) = key.strip_prefix(KEY) else { return Ok(false) };
        let value = value.filter(|value| !value.is_empty());
        match value.and_then(|value| value.first()) {
            None | Some(&VERSION) => {}
            Some(other) => {
                return Err(format!(
                    "a count of moves has version {other}; this program reads version {VERSION}"
                ));
            }
        }
        let read = if rest.is_empty() { self.read_since(value) } else { self.read_count(rest, value) };
        read.map(|()| true).ok_or_else(|| "a count of moves is damaged".to_owned())
    }

    fn read_since(&mut self, value: Option<&[u8]>) -> Option<()> {
        let read = |value: &[u8]| {
            let mut at = 1;
            let since = get_i64(value, &mut at);
            (at == value.len() && (MIN_TS..=MAX_TS).contains(&since)).then_some(since)
        };
        self.since = match value {
            Some(value) => Some(read(value)?),
            None => None,
        };
        Some(())
    }

    fn read_count(&mut self, key: &[u8], value: Option<&[u8]>) -> Option<()> {
        let mut at = 0;
        let day = Some(get_i64(key, &mut at)).filter(|day| (-DAY_MOST..=DAY_MOST).contains(day))?;
        let names = key.get(at..)?;
        let place = Place::read(names)?;
        match value {
            Some(value) => {
                let left = Left::read(value)?;
                self.tell_apart(place.segment);
                Arc::make_mut(self.days.entry(day).or_default()).insert(names.into(), left);
            }
            None => {
                self.put(day, names, None);
                self.list_segments();
            }
        }
        Some(())
    }

    /// The name under which a segment is counted.
    fn tell_apart<'s>(&mut self, segment: &'s str) -> &'s str {
        if segment.is_empty() || segment == OTHERS || self.segments.contains(segment) {
            return segment;
        }
        if self.segments.len() >= SEGMENTS_MOST {
            return OTHERS;
        }
        Arc::make_mut(&mut self.segments).insert(segment.into());
        segment
    }

    /// Segments that no day knows any more make room for others.
    fn list_segments(&mut self) {
        let segments = self.counts().map(|(_, place, _)| place.segment);
        let told = segments.filter(|segment| !segment.is_empty() && *segment != OTHERS);
        self.segments = Arc::new(told.map(Box::from).collect());
    }

    fn get(&self, day: i64, names: &[u8]) -> Option<&Left> {
        self.days.get(&day)?.get(names)
    }

    fn put(&mut self, day: i64, names: &[u8], left: Option<Left>) {
        let counts = Arc::make_mut(self.days.entry(day).or_default());
        match left {
            Some(left) => drop(counts.insert(names.into(), left)),
            None => drop(counts.remove(names)),
        }
        if counts.is_empty() {
            self.days.remove(&day);
        }
    }
}

/// The moves of a partition while transactions come and go.
#[derive(Debug, Default)]
pub struct Traffic {
    moves: Moves,
    /// What the transaction at hand has changed, as it was before; kept only where there are transactions.
    before: BTreeMap<(i64, Box<[u8]>), Option<Left>>,
    since_before: Option<Ts>,
    journal: bool,
    names: Vec<u8>,
}

impl Traffic {
    /// `journal`: keep what [`Traffic::rollback`] and [`Traffic::changes`] need.
    pub fn new(journal: bool) -> Traffic {
        Traffic { journal, ..Traffic::default() }
    }

    /// Takes in a record; see [`Moves::restore`].
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool, String> {
        let restored = self.moves.restore(key, value);
        self.since_before = self.moves.since;
        restored
    }

    /// Counts a move; one of a day that has left the window is too late to count.
    pub fn count(&mut self, passage: &Passage<'_>) {
        let day = passage.at.div_euclid(DAY_MS);
        let newest = self.moves.newest_day().unwrap_or(day);
        if day <= newest - WINDOW_DAYS {
            return;
        }
        if day > newest {
            self.expire(day - WINDOW_DAYS);
        }
        self.moves.since = Some(self.moves.since.map_or(passage.at, |since| since.min(passage.at)));
        let segment = self.moves.tell_apart(passage.place.segment);
        self.names.clear();
        Place { segment, ..passage.place }.write(&mut self.names);
        let counts = Arc::make_mut(self.moves.days.entry(day).or_default());
        let known = counts.get_mut(&*self.names);
        if self.journal {
            let before = self.before.entry((day, Box::from(&*self.names)));
            before.or_insert_with(|| known.as_deref().cloned());
        }
        match known {
            Some(left) => left.count(passage),
            None => counts.entry(Box::from(&*self.names)).or_default().count(passage),
        }
    }

    /// Forgets this day and those before it.
    fn expire(&mut self, last: i64) {
        let kept = self.moves.days.split_off(&(last + 1));
        let gone = std::mem::replace(&mut self.moves.days, kept);
        if gone.is_empty() {
            return;
        }
        if self.journal {
            for (day, counts) in gone {
                for (names, left) in Arc::unwrap_or_clone(counts) {
                    self.before.entry((day, names)).or_insert(Some(left));
                }
            }
        }
        self.moves.list_segments();
    }

    pub fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Keys and values of what the transaction at hand has changed.
    pub fn changes(&self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        let since = self.moves.since.filter(|_| self.moves.since != self.since_before);
        let head = since.map(|since| (KEY.to_vec(), Some(encode_since(since))));
        let counts = self.before.keys().map(|(day, names)| {
            let left = self.moves.get(*day, names);
            (key(*day, names), left.map(Left::encode))
        });
        head.into_iter().chain(counts)
    }

    pub fn commit(&mut self) {
        self.before.clear();
        self.since_before = self.moves.since;
    }

    pub fn rollback(&mut self) {
        if self.before.is_empty() {
            return;
        }
        for ((day, names), left) in std::mem::take(&mut self.before) {
            self.moves.put(day, &names, left);
        }
        self.moves.since = self.since_before;
        self.moves.list_segments();
    }
}

fn key(day: i64, names: &[u8]) -> Vec<u8> {
    let mut key = KEY.to_vec();
    put_i64(&mut key, day);
    key.extend_from_slice(names);
    key
}

fn encode_since(since: Ts) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_i64(&mut out, since);
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn get_text<'b>(bytes: &'b [u8], at: &mut usize) -> Option<&'b str> {
    let len = usize::try_from(get_u64(bytes, at)).ok()?;
    let text = std::str::from_utf8(bytes.get(*at..at.checked_add(len)?)?).ok()?;
    *at += len;
    Some(text)
}

fn steps(days: f64) -> u16 {
    let minutes = (days * MINUTES_A_DAY).max(1.0);
    ((minutes.ln() / STEP.ln()).round() as u16).min(STEPS_MOST)
}

/// Days, within 2 %. `None` of no stays.
pub fn median_days(stays: &BTreeMap<u16, u64>) -> Option<f64> {
    let total: u64 = stays.values().sum();
    let mut seen = 0;
    let middle = stays.iter().find(|(_, n)| {
        seen += *n;
        seen * 2 >= total
    });
    middle.map(|(steps, _)| STEP.powi(i32::from(*steps)) / MINUTES_A_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passage<'a>(from: &'a str, to: &'a str, segment: &'a str, day: i64) -> Passage<'a> {
        let place = Place { lifecycle: "retention", segment, from };
        Passage { place, to, returned: day % 2 == 0, stage_days: (day % 40) as f64, at: day * DAY_MS }
    }

    /// What a reader of the state topic has, once these changes are written to what it had.
    fn write(log: &mut BTreeMap<Vec<u8>, Vec<u8>>, traffic: &Traffic) {
        for (key, value) in traffic.changes() {
            match value {
                Some(value) => drop(log.insert(key, value)),
                None => drop(log.remove(&key)),
            }
        }
    }

    fn read(log: &BTreeMap<Vec<u8>, Vec<u8>>) -> Traffic {
        let mut traffic = Traffic::new(true);
        for (key, value) in log {
            assert_eq!(traffic.restore(key, Some(value)), Ok(true));
        }
        traffic
    }

    proptest! {
        /// Transactions that are committed and taken back, in any order: the log holds what the committed ones say.
        #[test]
        fn the_log_says_what_was_committed_and_nothing_else(
            transactions in prop::collection::vec(
                (any::<bool>(), prop::collection::vec((0..3usize, 0..3usize, 0..40usize, 0..90i64), 0..12)),
                1..12,
            ),
        ) {
            let stages = ["loyalty", "retention", "win-back"];
            let (mut log, mut traffic, mut plain) = (BTreeMap::new(), Traffic::new(true), Traffic::new(false));
            for (is_committed, moves) in &transactions {
                let before = traffic.moves().clone();
                for (from, to, segment, day) in moves {
                    let segment = if *segment == 0 { String::new() } else { format!("s{segment}") };
                    let passage = passage(stages[*from], stages[*to], &segment, *day);
                    traffic.count(&passage);
                    if *is_committed {
                        plain.count(&passage);
                    }
                }
                if *is_committed {
                    write(&mut log, &traffic);
                    traffic.commit();
                    prop_assert_eq!(traffic.moves(), plain.moves());
                } else {
                    traffic.rollback();
                    prop_assert_eq!(traffic.moves(), &before);
                }
                prop_assert_eq!(traffic.changes().count(), 0);
                let restored = read(&log);
                prop_assert_eq!(restored.moves(), traffic.moves());
                let records: BTreeMap<_, _> = traffic.moves().records().collect();
                prop_assert_eq!(&records, &log);
            }
        }

        #[test]
        fn damage_is_no_panic_and_what_is_accepted_is_counted_on(
            key in prop::collection::vec(any::<u8>(), 0..40),
            value in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut traffic = Traffic::new(true);
            let _ = traffic.restore(&[KEY, &key].concat(), Some(&[&[VERSION][..], &value].concat()));
            traffic.count(&passage("loyalty", "retention", "vip", 3));
            traffic.rollback();
        }
    }

    #[test]
    fn days_outside_the_window_are_deleted_and_moves_of_them_are_too_late() {
        let (mut log, mut traffic) = (BTreeMap::new(), Traffic::new(true));
        for day in [10, 11, 10 + WINDOW_DAYS, 10] {
            traffic.count(&passage("loyalty", "retention", "", day));
            write(&mut log, &traffic);
            traffic.commit();
        }
        let days: Vec<i64> = read(&log).moves().counts().map(|(day, _, _)| day).collect();
        assert_eq!(days, [11, 10 + WINDOW_DAYS]);
        assert_eq!((log.len(), read(&log).moves().since()), (3, Some(10 * DAY_MS)));
    }

    #[test]
    fn a_transaction_writes_what_it_changed_and_no_more() {
        let mut traffic = Traffic::new(true);
        for day in 0..WINDOW_DAYS {
            ["", "smb", "vip"].iter().for_each(|s| traffic.count(&passage("loyalty", "retention", s, day)));
        }
        assert_eq!(traffic.changes().count(), 3 * WINDOW_DAYS as usize + 1);
        traffic.commit();
        (0..1_000).for_each(|_| traffic.count(&passage("loyalty", "win-back", "smb", WINDOW_DAYS - 1)));
        let changes: Vec<_> = traffic.changes().collect();
        assert_eq!(changes.len(), 1);
        assert!(changes[0].1.as_ref().is_some_and(|value| value.len() < 100), "{changes:?}");
    }

    #[test]
    fn segments_and_lengths_of_a_stay_are_bounded() {
        let mut traffic = Traffic::new(true);
        for n in 0..5_000 {
            let segment = format!("s{}", n % 200);
            let stay = 1.01f64.powi(n) / MINUTES_A_DAY;
            let passage = passage("loyalty", "retention", &segment, 0);
            traffic.count(&Passage { stage_days: stay, ..passage });
            let passage = Passage { place: Place { segment: "", ..passage.place }, ..passage };
            traffic.count(&Passage { stage_days: stay, ..passage });
        }
        let segments: BTreeSet<_> = traffic.moves().counts().map(|(_, place, _)| place.segment).collect();
        assert_eq!(segments.len(), SEGMENTS_MOST + 2);
        assert!(segments.contains("") && segments.contains(OTHERS));
        let longest = traffic.changes().filter_map(|(_, value)| value).map(|value| value.len()).max();
        assert!((1_001..8 * 1_024).contains(&longest.unwrap()), "{longest:?}");
        assert_eq!(read(&traffic.moves().records().collect()).moves(), traffic.moves());
    }

    #[test]
    fn records_of_another_version_and_other_keys_are_told_apart() {
        let mut moves = Moves::default();
        assert_eq!(moves.restore(b"\xffcommit", Some(b"{}")), Ok(false));
        assert_eq!(moves.restore(KEY, Some(&[VERSION])), Err("a count of moves is damaged".into()));
        let refused = moves.restore(KEY, Some(&[VERSION + 1, 0])).unwrap_err();
        assert!(refused.contains("this program reads version 1"), "{refused}");
        assert_eq!(moves.restore(KEY, None), Ok(true));
        assert_eq!(moves, Moves::default());
    }

    #[test]
    fn a_median_is_right_within_two_percent() {
        for days in [0.001, 0.5, 1.0, 45.0, 400.0, 36_500.0] {
            let stays = BTreeMap::from([(steps(days), 3)]);
            assert!((median_days(&stays).unwrap() / days - 1.0).abs() < 0.02, "{days}");
        }
    }
}
