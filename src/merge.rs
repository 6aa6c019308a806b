//! Merging the topics of one partition by event time.
//!
//! Every topic is a lane. Within a lane the events of one customer keep their order; events of different
//! customers do not wait for each other. An event goes out once no lane can still bring one that belongs
//! before it: every lane that has not reached its end must have been read `grace` past the event. So what a
//! customer's events meet does not depend on other customers, nor on how far each topic happens to be read.
//!
//! A wrong clock holds nobody up. How far a lane has been read is what the last two records say, so that one from the
//! future does not speak for its lane; it waits for its time, or until so many came behind it that the account of
//! offsets would grow too long ([`OPEN_MOST`]).
//!
//! Records go out of offset order, so the merger also keeps account of which offsets are done. Pure; the same
//! code merges Kafka partitions and files.

use std::collections::VecDeque;

use crate::time::Ts;

/// Records held back for `grace` over all lanes; beyond it the oldest go out without waiting that long.
pub const MAX_WAITING: usize = 8_192;
/// Offsets of a lane from the oldest record that waits on. Beyond it that one goes out before its time: every commit has
/// to say which of those behind it are done.
pub const OPEN_MOST: usize = 4 * MAX_WAITING;

/// One topic of the partition.
#[derive(Debug)]
struct Lane<T> {
    /// By effective time, ties in order of arrival.
    waiting: VecDeque<Waiting<T>>,
    /// The event times of the last two records read, the newest last.
    last: [Ts; 2],
    ended: bool,
    offsets: Offsets,
}

impl<T> Lane<T> {
    /// Up to here the lane has been read, but for records that are late by more than `grace`.
    fn clock(&self) -> Ts {
        self.last[0].min(self.last[1])
    }

    /// Whether what waits is ahead of what has been read by more than `grace`.
    fn is_ahead(&self, waiting: &Waiting<T>, grace_ms: i64) -> bool {
        waiting.at > self.clock().saturating_add(grace_ms)
    }

    /// How many of those that wait are not.
    fn ready(&self, grace_ms: i64) -> usize {
        self.waiting.partition_point(|waiting| !self.is_ahead(waiting, grace_ms))
    }
}

#[derive(Debug)]
struct Waiting<T> {
    /// The event's own time, or that of an earlier event of its customer in this lane if that was later: a late
    /// event does not overtake, unless what it overtakes has a clock that is wrong.
    at: Ts,
    customer: u64,
    offset: i64,
    item: T,
}

/// The lanes of one partition.
#[derive(Debug)]
pub struct Merger<T> {
    lanes: Vec<Lane<T>>,
    grace_ms: i64,
    waiting: usize,
}

impl<T> Merger<T> {
    /// `starts`: for each lane the next offset to read and those beyond it that are done already.
    pub fn new(grace_ms: i64, starts: Vec<Position>) -> Self {
        let lane = |start| Lane {
            waiting: VecDeque::new(),
            last: [Ts::MIN; 2],
            ended: false,
            offsets: Offsets::new(start),
        };
        Merger { lanes: starts.into_iter().map(lane).collect(), grace_ms, waiting: 0 }
    }

    /// Whether the record at this offset was done before; if so it is accounted for and must be dropped.
    pub fn is_done(&mut self, lane: usize, offset: i64) -> bool {
        self.lanes[lane].offsets.take_done(offset)
    }

    /// Accounts for a record that needs no merging (a dead letter).
    pub fn skip(&mut self, lane: usize, offset: i64) {
        self.lanes[lane].offsets.read(offset, true);
    }

    /// Takes an event in. Offsets of a lane ascend. `customer` is any hash of the customer id.
    pub fn push(&mut self, lane: usize, offset: i64, ts: Ts, customer: u64, item: T) {
        let lane = &mut self.lanes[lane];
        lane.offsets.read(offset, false);
        lane.last = [lane.last[1], ts];
        // What is further from both of the last two is from the future.
        let future = lane.last[0].max(ts).saturating_add(self.grace_ms);
        // They stand in order, so the last of its own is the latest.
        let later = lane.waiting.iter().rev().take_while(|w| w.at > ts);
        let own = later.filter(|w| w.at <= future).find(|w| w.customer == customer);
        let at = own.map_or(ts, |w| w.at);
        let place = lane.waiting.iter().rposition(|w| w.at <= at).map_or(0, |i| i + 1);
        lane.waiting.insert(place, Waiting { at, customer, offset, item });
        self.waiting += 1;
    }

    /// Says whether a lane has been read to its end for now.
    pub fn set_ended(&mut self, lane: usize, ended: bool) {
        self.lanes[lane].ended = ended;
    }

    pub fn is_ended(&self, lane: usize) -> bool {
        self.lanes[lane].ended
    }

    /// Whether every lane has been read to its end.
    pub fn all_ended(&self) -> bool {
        self.lanes.iter().all(|lane| lane.ended)
    }

    /// The next event in order, if it is certain.
    pub fn pop(&mut self) -> Option<Next<T>> {
        match self.overdue() {
            Some(lane) => self.take_oldest(lane),
            None => self.take_at(self.certain()?, 0, false),
        }
    }

    /// A lane whose account of offsets has become too long.
    fn overdue(&self) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.offsets.is_long())
    }

    /// The lane of the event that comes first of those read, if none can come before it.
    fn certain(&self) -> Option<usize> {
        let (at, index) = self.first()?;
        (0..self.lanes.len()).all(|lane| !self.holds_back(lane, at)).then_some(index)
    }

    /// The record of the lane that was read first of those that wait.
    fn take_oldest(&mut self, index: usize) -> Option<Next<T>> {
        let lane = &self.lanes[index];
        let offset = lane.offsets.oldest()?;
        let place = lane.waiting.iter().rposition(|waiting| waiting.offset == offset)?;
        let early = lane.is_ahead(&lane.waiting[place], self.grace_ms);
        self.take_at(index, place, early)
    }

    fn take_at(&mut self, lane: usize, place: usize, early: bool) -> Option<Next<T>> {
        let taken = self.lanes[lane].waiting.remove(place)?;
        self.lanes[lane].offsets.done(taken.offset);
        self.waiting -= 1;
        Some(Next { lane, item: taken.item, early })
    }

    /// Some of those that come next, at most `count` of each lane, in no order that means anything.
    pub fn next_few(&self, count: usize) -> impl Iterator<Item = &T> + Clone {
        // So far the fullest lane goes meanwhile, and the others with it.
        let fullest = self.lanes.iter().max_by_key(|lane| lane.waiting.len());
        let until = fullest.and_then(|lane| lane.waiting.get(count)).map_or(Ts::MAX, |waiting| waiting.at);
        self.lanes.iter().flat_map(move |lane| {
            lane.waiting.iter().take(count).take_while(move |w| w.at <= until).map(|w| &w.item)
        })
    }

    /// The effective time and the lane of the event that comes first of those read.
    fn first(&self) -> Option<(Ts, usize)> {
        let front = |lane: &Lane<T>| lane.waiting.front().map(|w| w.at);
        self.lanes.iter().enumerate().filter_map(|(i, lane)| front(lane).map(|at| (at, i))).min()
    }

    /// Whether a lane may still bring an event before one at `at`.
    fn holds_back(&self, lane: usize, at: Ts) -> bool {
        let lane = &self.lanes[lane];
        let read_on = lane.clock() >= at.saturating_add(self.grace_ms) || self.is_crowded();
        !lane.ended && (lane.waiting.is_empty() || !read_on)
    }

    fn is_crowded(&self) -> bool {
        let ready = || self.lanes.iter().map(|lane| lane.ready(self.grace_ms)).sum::<usize>();
        self.waiting > MAX_WAITING && ready() > MAX_WAITING
    }

    /// Whether more must be read of this lane before the next event can go out.
    pub fn wants(&self, lane: usize) -> bool {
        match self.first() {
            Some((at, _)) => self.holds_back(lane, at),
            None => !self.lanes[lane].ended,
        }
    }

    /// Whether [`Merger::pop`] would give an event.
    pub fn is_ready(&self) -> bool {
        self.overdue().is_some() || self.certain().is_some()
    }

    /// Records of a lane that wait and are not from the future.
    pub fn ready_in(&self, lane: usize) -> usize {
        self.lanes[lane].ready(self.grace_ms)
    }

    /// Records of a lane that wait.
    pub fn waiting_in(&self, lane: usize) -> usize {
        self.lanes[lane].waiting.len()
    }

    /// Records that wait over all lanes.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// What of a lane is done, for the commit.
    pub fn position(&self, lane: usize) -> Position {
        self.lanes[lane].offsets.position()
    }

    /// The offset behind the newest record read.
    pub fn read_to(&self, lane: usize) -> i64 {
        self.lanes[lane].offsets.next
    }

    /// Says that everything before this offset is read, as the end of a partition tells when its last offsets
    /// hold no records (transaction markers, compacted ones).
    pub fn read_up_to(&mut self, lane: usize, next: i64) {
        let offsets = &mut self.lanes[lane].offsets;
        offsets.next = offsets.next.max(next);
    }
}

/// An event whose turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next<T> {
    pub lane: usize,
    pub item: T,
    /// Whether it goes out before its time. Then its time does not say how far the others are.
    pub early: bool,
}

/// How far a lane is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Everything before it is done.
    pub next: i64,
    /// Offsets from there on that are done too, ascending.
    pub ahead: Vec<i64>,
}

/// Which offsets of a lane are done.
#[derive(Debug)]
struct Offsets {
    /// The offset behind the newest record read.
    next: i64,
    /// Read but not all done: the first is not done.
    open: VecDeque<(i64, bool)>,
    /// Done in an earlier life, yet to be read again; ascending.
    done_before: VecDeque<i64>,
}

impl Offsets {
    fn new(start: Position) -> Self {
        Offsets { next: start.next, open: VecDeque::new(), done_before: start.ahead.into() }
    }

    fn take_done(&mut self, offset: i64) -> bool {
        while self.done_before.front().is_some_and(|done| *done < offset) {
            self.done_before.pop_front();
        }
        if self.done_before.front() != Some(&offset) {
            return false;
        }
        self.done_before.pop_front();
        self.read(offset, true);
        true
    }

    fn read(&mut self, offset: i64, done: bool) {
        self.next = offset + 1;
        if !done || !self.open.is_empty() {
            self.open.push_back((offset, done));
        }
    }

    /// Whether the account of what is open has become too long.
    fn is_long(&self) -> bool {
        self.open.len() > OPEN_MOST
    }

    /// The oldest offset that is not done.
    fn oldest(&self) -> Option<i64> {
        self.open.front().map(|(offset, _)| *offset)
    }

    fn done(&mut self, offset: i64) {
        match self.open.front() {
            Some((first, _)) if *first == offset => {
                self.open.pop_front();
                while self.open.front().is_some_and(|(_, done)| *done) {
                    self.open.pop_front();
                }
            }
            _ => {
                if let Ok(found) = self.open.binary_search_by_key(&offset, |(o, _)| *o) {
                    self.open[found].1 = true;
                }
            }
        }
    }

    fn position(&self) -> Position {
        let done = self.open.iter().filter(|(_, done)| *done).map(|(offset, _)| *offset);
        Position {
            next: self.open.front().map_or(self.next, |(offset, _)| *offset),
            ahead: done.chain(self.done_before.iter().copied()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Item = (u64, Ts, usize);
    /// Customers from here on have clocks that are wrong.
    const STRANGERS: u64 = 100;

    fn drain(merger: &mut Merger<Item>, out: &mut Vec<Item>) {
        while let Some(next) = merger.pop() {
            out.push(next.item);
        }
    }

    /// Reads the lanes in the given rhythm and returns what came out.
    fn merge(lanes: &[Vec<Item>], rhythm: &[usize], grace: i64) -> Vec<Item> {
        let mut merger = Merger::new(grace, lanes.iter().map(|_| Position::default()).collect());
        let mut read = vec![0; lanes.len()];
        let mut out = Vec::new();
        for lane in rhythm.iter().map(|r| r % lanes.len()).chain((0..lanes.len()).cycle()) {
            if read.iter().zip(lanes).all(|(r, l)| *r == l.len()) {
                break;
            }
            if let Some(item) = lanes[lane].get(read[lane]) {
                merger.push(lane, read[lane] as i64, item.1, item.0, *item);
                read[lane] += 1;
            }
            merger.set_ended(lane, read[lane] == lanes[lane].len());
            drain(&mut merger, &mut out);
        }
        (0..lanes.len()).for_each(|lane| merger.set_ended(lane, true));
        drain(&mut merger, &mut out);
        for (lane, items) in lanes.iter().enumerate() {
            assert_eq!(merger.position(lane), Position { next: items.len() as i64, ahead: vec![] });
        }
        out
    }

    /// The same lanes with records of others between theirs whose clocks are wrong: each is alone among right ones.
    fn with_wrong_clocks(lanes: &[Vec<Item>], wrong: &[(usize, usize, i64)]) -> Vec<Vec<Item>> {
        let mut lanes = lanes.to_vec();
        for (serial, (lane, place, ahead)) in wrong.iter().enumerate() {
            let items = &mut lanes[lane % 3];
            let place = place % (items.len() + 1);
            let is_wrong =
                |at: Option<usize>| at.and_then(|at| items.get(at)).is_some_and(|i| i.0 >= STRANGERS);
            if !is_wrong(place.checked_sub(1)) && !is_wrong(Some(place)) {
                let customer = STRANGERS + serial as u64 % 3;
                items.insert(place, (customer, 100_000 + ahead, 10_000 + serial));
            }
        }
        lanes
    }

    fn of_customer(items: &[Item], customer: u64) -> Vec<Item> {
        items.iter().filter(|i| i.0 == customer).copied().collect()
    }

    /// Three lanes; within a lane, events may be out of order by up to the grace, except those of one customer.
    fn lanes() -> impl Strategy<Value = Vec<Vec<Item>>> {
        let event = (0u64..6, 0i64..400, 0i64..50);
        prop::collection::vec(prop::collection::vec(event, 0..60), 3).prop_map(|lanes| {
            let mut serial = 0;
            lanes
                .into_iter()
                .map(|mut events| {
                    // Arrival order is by time plus a delay within the grace.
                    events.sort_by_key(|(_, ts, delay)| ts + delay);
                    let mut newest: BTreeMap<u64, Ts> = BTreeMap::new();
                    events.retain(|(customer, ts, _)| {
                        let newest = newest.entry(*customer).or_insert(*ts);
                        let keep = *ts >= *newest;
                        *newest = (*newest).max(*ts);
                        keep
                    });
                    events
                        .into_iter()
                        .map(|(customer, ts, _)| {
                            serial += 1;
                            (customer, ts, serial)
                        })
                        .collect()
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn a_customers_order_depends_on_its_own_events_alone(
            lanes in lanes(), a in prop::collection::vec(0usize..3, 0..200), b in prop::collection::vec(0usize..3, 0..200)
        ) {
            let (first, second) = (merge(&lanes, &a, 50), merge(&lanes, &b, 50));
            for customer in 0..6 {
                let alone: Vec<Vec<Item>> = lanes.iter().map(|lane| of_customer(lane, customer)).collect();
                let expected = merge(&alone, &[], 50);
                prop_assert!(expected.is_sorted_by_key(|i| i.1));
                prop_assert_eq!(of_customer(&first, customer), expected.clone());
                prop_assert_eq!(of_customer(&second, customer), expected);
            }
        }

        #[test]
        fn a_wrong_clock_here_and_there_changes_nothing_for_others(
            lanes in lanes(),
            wrong in prop::collection::vec((0usize..3, 0usize..60, 0i64..1_000_000), 1..12),
            rhythm in prop::collection::vec(0usize..3, 0..200),
        ) {
            let all = merge(&with_wrong_clocks(&lanes, &wrong), &rhythm, 50);
            for customer in 0..6 {
                let alone: Vec<Vec<Item>> = lanes.iter().map(|lane| of_customer(lane, customer)).collect();
                prop_assert_eq!(of_customer(&all, customer), merge(&alone, &[], 50));
            }
        }

        #[test]
        fn a_stop_anywhere_loses_and_repeats_nothing(
            lanes in lanes(), rhythm in prop::collection::vec(0usize..3, 1..200), stop in 0usize..150
        ) {
            let mut merger = Merger::new(50, lanes.iter().map(|_| Position::default()).collect());
            let mut read = [0usize; 3];
            let mut out = Vec::new();
            for lane in rhythm.iter().take(stop) {
                if let Some(item) = lanes[*lane].get(read[*lane]) {
                    merger.push(*lane, read[*lane] as i64, item.1, item.0, *item);
                    read[*lane] += 1;
                }
                drain(&mut merger, &mut out);
            }
            let positions: Vec<Position> = (0..3).map(|lane| merger.position(lane)).collect();
            let mut again = Merger::new(50, positions.clone());
            for (lane, items) in lanes.iter().enumerate() {
                for (offset, item) in items.iter().enumerate().skip(positions[lane].next as usize) {
                    if !again.is_done(lane, offset as i64) {
                        again.push(lane, offset as i64, item.1, item.0, *item);
                    }
                }
                again.set_ended(lane, true);
            }
            drain(&mut again, &mut out);
            let straight = merge(&lanes, &rhythm, 50);
            for customer in 0..6 {
                prop_assert_eq!(of_customer(&out, customer), of_customer(&straight, customer));
            }
        }
    }

    /// Two lanes go on for long, a record from the far future waits in each.
    #[test]
    fn the_account_of_offsets_stays_short_behind_a_record_that_waits() {
        let mut merger = Merger::new(10, vec![Position::default(), Position::default()]);
        let (mut out, mut early, mut longest) = (0, 0, 0);
        let count = 3 * OPEN_MOST as i64;
        for offset in 0..count {
            for lane in 0..2 {
                // Of the two strangers, one comes again with a clock that is right.
                let ts = if offset == 5 { 1_000_000_000 } else { offset };
                let customer = if offset % 1_000 == 5 { STRANGERS } else { offset as u64 % 50 };
                merger.push(lane, offset, ts, customer, (customer, ts, 0));
            }
            while let Some(next) = merger.pop() {
                out += 1;
                early += i32::from(next.early);
                assert!(!next.early || next.item.1 == 1_000_000_000);
            }
            if offset % 512 == 0 {
                longest = longest.max(merger.position(0).ahead.len()).max(merger.position(1).ahead.len());
            }
        }
        assert_eq!(early, 2, "both went out before their time");
        assert!(longest > OPEN_MOST / 2 && longest <= OPEN_MOST, "{longest}");
        assert!(out > 2 * count - 100 && merger.waiting() < 100, "{out} went out, {} wait", merger.waiting());
    }

    #[test]
    fn whose_clock_was_wrong_once_goes_on_in_order() {
        let lanes = vec![
            vec![(1, 100, 1), (2, 9_000, 2), (1, 130, 3), (1, 140, 4), (2, 150, 5), (1, 200, 6)],
            vec![(2, 145, 7), (1, 220, 8)],
            vec![],
        ];
        let order: Vec<usize> = merge(&lanes, &[], 10).iter().map(|i| i.2).collect();
        assert_eq!(order, [1, 3, 4, 7, 5, 6, 8, 2]);
    }

    #[test]
    fn a_late_event_does_not_overtake_its_own_customer() {
        let lanes = vec![vec![(1, 100, 1), (1, 20, 2), (2, 500, 3)], vec![(1, 110, 4)], vec![]];
        let order: Vec<usize> = merge(&lanes, &[], 10).iter().map(|i| i.2).collect();
        assert_eq!(order, [1, 2, 4, 3]);
    }
}
