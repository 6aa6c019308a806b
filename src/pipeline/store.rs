//! The customers of one partition: where each one's state is, and how to take a transaction back.
//!
//! A customer is awake or at rest. Awake it has a seat: a row of words and a [`Customer`], in chunks that never move.
//! At rest it is [`super::rest`]'s bytes in a bed ([`super::beds`]), which take less; most customers of a large
//! partition are, since few have something to do in one second. Whoever has is woken ([`Store::wake`]), and goes back to rest once the seats that
//! were not needed for longest are wanted. The first touch of a customer in a transaction saves its state, so that an
//! abort restores exactly the customers it concerns; they stay awake until then.

use std::borrow::Cow;

use compact_str::CompactString;
use hashbrown::HashTable;
use thin_vec::ThinVec;

use super::beds::{Bed, Beds};
use super::facts::{TraitValue, Traits};
use super::plan::HeadSlots;
use super::rest::{self, Packer};
use super::seats::{NOBODY, Seats};
use crate::time::{DAY_MS, MIN_TS, Ts};

/// Customers to a chunk of places, which never move.
const CHUNK: usize = 1024;
/// Customers who may stay awake with nothing to do, unless the plan says otherwise: about 150 MB. With fewer customers
/// there is little to save, and waking them up costs CPU. Debug builds have next to none, so that every
/// test of the engine is one of waking up too.
pub const AWAKE_LEAST: usize = if cfg!(debug_assertions) { 2 } else { 100_000 };
/// One customer of so many may stay awake with nothing to do, however few the plan allows.
const AWAKE_SHARE: usize = 64;
/// Room to take a transaction back that is kept in each list from one to the next, however little there was.
const UNDO_KEPT_BYTES: usize = 16 * 1024;

/// An event id that was seen, hashed, and until when it counts: the dedupe horizon from `ts` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    pub id: u64,
    pub ts: Ts,
}

impl Seen {
    /// An event is remembered by its own time. One so late that its time is outside the horizon already is remembered by
    /// the newest of its customer, and known again where both its id and its time come again.
    pub fn of(id: u64, ts: Ts, newest: Ts, horizon: i64) -> Seen {
        if newest - ts <= horizon {
            return Seen { id, ts };
        }
        Seen { id: xxhash_rust::xxh3::xxh3_64_with_seed(&ts.to_le_bytes(), id), ts: newest }
    }
}

/// Where a customer's state is.
#[derive(Clone, Copy, Debug)]
enum State {
    /// The place is free.
    Nobody,
    Awake {
        seat: u32,
    },
    AtRest(Bed),
}

/// The same in four bytes, as every customer has one: the number of a bed, or what is left over for seats.
#[derive(Clone, Copy, Debug)]
struct Place(u32);

impl Place {
    const EMPTY: Place = Place(NOBODY);

    fn awake(seat: u32) -> Place {
        debug_assert!(seat < NOBODY - Bed::END);
        Place(Bed::END + seat)
    }

    fn at_rest(bed: Bed) -> Place {
        Place(bed.number())
    }

    fn state(self) -> State {
        match self.0 {
            NOBODY => State::Nobody,
            bed @ 0..Bed::END => State::AtRest(Bed::of_number(bed)),
            seat => State::Awake { seat: seat - Bed::END },
        }
    }
}

/// A customer to look at, whether it is awake or at rest.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    pub row: Cow<'a, [u32]>,
    pub customer: Cow<'a, Customer>,
}

/// The part of a customer's state that varies in size.
#[derive(Clone, Debug, Default)]
pub struct Customer {
    pub id: CompactString,
    /// See [`super::panes`].
    pub log: ThinVec<u8>,
    /// See [`super::sessions`].
    pub sessions: ThinVec<u8>,
    /// Event ids inside the dedupe horizon.
    pub seen: ThinVec<Seen>,
    pub traits: Option<Box<Traits>>,
    pub order_days: OrderDays,
    /// See [`super::channels`].
    pub channels: ThinVec<u8>,
    /// See [`super::outcomes`].
    pub kept: ThinVec<u8>,
}

/// The UTC days of orders between the first and the last, without which a late order could count its day
/// twice. Sorted; each is the index of the orders it belongs to and the day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderDays(pub ThinVec<u32>);

impl OrderDays {
    const DAY_BITS: u32 = 24;

    /// The index of the orders that an entry belongs to.
    pub fn orders_of(entry: u32) -> usize {
        (entry >> Self::DAY_BITS) as usize
    }

    /// The entry of a day since 1970.
    pub fn entry(orders: u8, day: i64) -> u32 {
        let since_year_0 = (day - MIN_TS.div_euclid(DAY_MS)).clamp(0, (1 << Self::DAY_BITS) - 1);
        u32::from(orders) << Self::DAY_BITS | since_year_0 as u32
    }

    /// The entry's day, of the orders of another index.
    pub fn with_orders(entry: u32, orders: u8) -> u32 {
        u32::from(orders) << Self::DAY_BITS | entry & ((1 << Self::DAY_BITS) - 1)
    }

    /// Adds a day (since 1970); whether it was new. A late order apart, it goes to the end.
    pub fn insert(&mut self, orders: u8, day: i64) -> bool {
        let entry = Self::entry(orders, day);
        match self.0.binary_search(&entry) {
            Ok(_) => false,
            Err(place) => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(2 + self.0.len() / 4);
                }
                self.0.insert(place, entry);
                true
            }
        }
    }
}

/// What a customer was before the transaction. The bytes stand in the store's undo buffers, in order.
#[derive(Debug)]
struct Undo {
    customer: u32,
    born: bool,
    lens: [u32; 6],
    traits: Option<Box<Traits>>,
}

/// All customers of a partition.
#[derive(Debug)]
pub struct Store {
    head: HeadSlots,
    places: Vec<Box<[Place]>>,
    seats: Seats,
    beds: Beds,
    packer: Packer,
    /// How many may stay awake with nothing to do.
    awake_least: usize,
    /// Customers since [`Store::rest_at_times`] put any to rest.
    looked_after: usize,
    packing: Vec<u8>,
    index: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    free: Vec<u32>,
    /// Erased in this transaction: nobody finds them, and they keep what a rollback needs until the commit.
    erased: Vec<u32>,
    len: u32,
    journal: bool,
    /// Numbers the transactions; starts at 1 because new rows say 0.
    transaction: u32,
    dirty: Vec<u32>,
    undo: Vec<Undo>,
    undo_rows: Vec<u32>,
    undo_bytes: Vec<u8>,
    undo_seen: Vec<Seen>,
    undo_order_days: Vec<u32>,
}

impl Store {
    /// `journal`: keep what a rollback needs. `awake_least`: so many customers may stay awake with nothing to do.
    pub fn new(head: HeadSlots, new_row: Box<[u32]>, journal: bool, awake_least: usize) -> Self {
        Store {
            head,
            places: Vec::new(),
            seats: Seats::new(new_row),
            beds: Beds::default(),
            packer: Packer::default(),
            awake_least,
            looked_after: 0,
            packing: Vec::new(),
            index: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            free: Vec::new(),
            erased: Vec::new(),
            len: 0,
            journal,
            transaction: 1,
            dirty: Vec::new(),
            undo: Vec::new(),
            undo_rows: Vec::new(),
            undo_bytes: Vec::new(),
            undo_seen: Vec::new(),
            undo_order_days: Vec::new(),
        }
    }

    /// Customers known.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Of these, who is awake.
    pub fn awake(&self) -> usize {
        self.seats.awake()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Finds a customer, who may be at rest.
    pub fn find(&self, id: &str) -> Option<u32> {
        self.index.find(self.hash(id), |i| self.id(*i) == id).copied()
    }

    /// Finds several customers at once, who may be at rest; `found` then holds those who are known. Each step of the way
    /// to a name is taken for all before the next: memory brings them together, where [`Store::find`] waits for each.
    pub fn find_all<'e>(&self, ids: impl Iterator<Item = &'e str> + Clone, found: &mut Vec<u32>) {
        found.clear();
        found.extend(ids.clone().map(|id| {
            let mut likely = NOBODY;
            // Compares nothing: hardly ever two have so much of their hashes in common.
            let _ = self.index.find(self.hash(id), |index| {
                likely = *index;
                false
            });
            likely
        }));
        let awake = found.iter().filter(|index| **index != NOBODY).map(|index| self.state(*index));
        std::hint::black_box(awake.fold(0, |seen, state| match state {
            State::Awake { seat } => seen ^ self.seats.customer(seat).id.len(),
            State::Nobody | State::AtRest(_) => seen,
        }));
        let mut known = 0;
        for (place, id) in ids.enumerate() {
            let likely = found[place];
            let is_it = likely != NOBODY && self.id(likely) == id;
            if let Some(index) = if is_it { Some(likely) } else { self.find(id) } {
                found[known] = index;
                known += 1;
            }
        }
        found.truncate(known);
    }

    /// Reads what the next steps will look at first of customers who are awake, of all of them at once: memory then
    /// brings it while nobody waits for it. Each alone would wait several times, one behind the other. What it returns
    /// means nothing.
    pub fn warm(&self, indices: &[u32]) -> u32 {
        const WORDS_TO_A_LINE: usize = 16;
        let mut seen = 0;
        for index in indices {
            if let State::Awake { seat } = self.state(*index) {
                let lines = self.seats.row(seat).iter().step_by(WORDS_TO_A_LINE);
                seen ^= lines.fold(0, |seen, word| seen ^ word);
            }
        }
        for index in indices {
            if let State::Awake { seat } = self.state(*index) {
                let Customer { log, sessions, seen: ids, kept, .. } = self.seats.customer(seat);
                // Their ends, where they grow, may be another line than their beginnings.
                seen ^= ids.last().map_or(0, |id| id.id as u32) ^ kept.len() as u32;
                seen ^= u32::from(log.last().copied().unwrap_or(0) ^ sessions.last().copied().unwrap_or(0));
            }
        }
        seen
    }

    /// The customer, who is awake then, and whether it is new.
    pub fn find_or_create(&mut self, id: &str) -> (u32, bool) {
        if let Some(index) = self.find(id) {
            self.wake(index);
            return (index, false);
        }
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let seat = self.seats.take(index);
        let (new_row, row, customer) = self.seats.parts_to_fill(seat);
        row.copy_from_slice(new_row);
        customer.id = CompactString::new(id);
        *self.place_mut(index) = Place::awake(seat);
        self.show(index);
        (index, true)
    }

    fn grow(&mut self) -> u32 {
        let index = self.len;
        self.len += 1;
        if (index as usize).is_multiple_of(CHUNK) {
            self.places.push(vec![Place::EMPTY; CHUNK].into());
        }
        index
    }

    fn state(&self, index: u32) -> State {
        self.places[at(index).0][at(index).1].state()
    }

    fn place_mut(&mut self, index: u32) -> &mut Place {
        &mut self.places[at(index).0][at(index).1]
    }

    /// The seat of a customer who is awake. Of any other one that nobody has, so that no other's state is changed.
    fn seat(&self, index: u32) -> u32 {
        let State::Awake { seat } = self.state(index) else {
            debug_assert!(false, "nobody is awake there");
            return NOBODY;
        };
        seat
    }

    /// Wakes a customer, so that its row and lists can be read and changed. Returns whether anybody is there.
    pub fn wake(&mut self, index: u32) -> bool {
        let bed = match self.state(index) {
            State::Nobody => return false,
            State::Awake { seat } => {
                self.seats.need(seat);
                return true;
            }
            State::AtRest(bed) => bed,
        };
        let seat = self.seats.take(index);
        *self.place_mut(index) = Place::awake(seat);
        let (new_row, row, customer) = self.seats.parts_to_fill(seat);
        let timer = self.packer.unpack(self.beds.get(bed), new_row, row, customer);
        self.head.timer.set(row, timer);
        self.beds.remove(bed);
        true
    }

    /// From now on so many customers may stay awake with nothing to do.
    pub fn set_awake_least(&mut self, count: usize) {
        self.awake_least = count;
    }

    /// Puts to rest who was not needed for longest, until no more are awake than may be. Whoever the transaction at
    /// hand concerns stays awake. Nobody else is sure to be awake after it.
    pub fn rest(&mut self) {
        let may_be = self.awake_least.max(self.len() / AWAKE_SHARE) + self.dirty.len().max(self.undo.len());
        // Twice round: once for everybody to be passed by, once to be put to rest.
        let mut asked = 2 * self.seats.len();
        while asked > 0 && self.awake() > may_be {
            asked -= 1;
            if let Some(index) = self.seats.ask_next().filter(|index| !self.is_concerned(*index)) {
                self.put_to_rest(index);
            }
        }
    }

    /// The same between two customers of many that are looked after in a row: each time as many could be awake anew.
    pub fn rest_at_times(&mut self) {
        self.looked_after += 1;
        if self.looked_after > self.awake_least {
            self.looked_after = 0;
            self.rest();
        }
    }

    /// Whether the transaction at hand changes the customer.
    fn is_concerned(&self, index: u32) -> bool {
        let (HeadSlots { touched, dirty, .. }, row) = (self.head, self.row(index));
        touched.get(row) == self.transaction || dirty.get(row) == self.transaction
    }

    fn put_to_rest(&mut self, index: u32) {
        let seat = self.seat(index);
        let HeadSlots { timer, touched, dirty, .. } = self.head;
        let (new_row, row, customer) = self.seats.parts_to_fill(seat);
        let due = timer.get(row);
        timer.set(row, timer.get(new_row));
        // Of transactions that are over.
        touched.set(row, touched.get(new_row));
        dirty.set(row, dirty.get(new_row));
        self.packing.clear();
        self.packer.pack(due, row, new_row, customer, &mut self.packing);
        match self.beds.put(&self.packing) {
            Some(bed) => {
                *self.place_mut(index) = Place::at_rest(bed);
                self.seats.leave(seat);
            }
            // All beds are taken, so it stays up.
            None => timer.set(row, due),
        }
    }

    /// When the wheel will name the customer; [`Ts::MAX`] where nobody is.
    pub fn timer(&self, index: u32) -> Ts {
        match self.state(index) {
            State::Nobody => Ts::MAX,
            State::Awake { seat } => self.head.timer.get(self.seats.row(seat)),
            State::AtRest(bed) => rest::timer(self.beds.get(bed)),
        }
    }

    /// Whether a customer is at rest and nothing is due of it by `limit`: a timer is never late.
    pub fn rests_beyond(&self, index: u32, limit: Ts) -> bool {
        !matches!(self.state(index), State::Awake { .. }) && self.timer(index) > limit
    }

    /// A customer's name; empty where nobody is.
    pub fn id(&self, index: u32) -> &str {
        match self.state(index) {
            State::Nobody => "",
            State::Awake { seat } => &self.seats.customer(seat).id,
            State::AtRest(bed) => rest::id(self.beds.get(bed)),
        }
    }

    /// The traits of a customer, who may be at rest.
    pub fn traits(&self, index: u32) -> Option<Cow<'_, Traits>> {
        match self.state(index) {
            State::Nobody => None,
            State::Awake { seat } => self.seats.customer(seat).traits.as_deref().map(Cow::Borrowed),
            State::AtRest(bed) => rest::traits(self.beds.get(bed)).map(Cow::Owned),
        }
    }

    /// The row of a customer, who may be at rest; then it is made in `room`. For looks at everybody.
    pub fn peek<'r>(&'r self, index: u32, room: &'r mut Vec<u32>) -> &'r [u32] {
        let State::AtRest(bed) = self.state(index) else { return self.row(index) };
        room.resize(self.seats.new_row().len(), 0);
        let timer = self.packer.unpack_row(self.beds.get(bed), self.seats.new_row(), room);
        self.head.timer.set(room, timer);
        room
    }

    /// All of a customer, who may be at rest.
    pub fn look(&self, index: u32) -> Look<'_> {
        let State::AtRest(bed) = self.state(index) else {
            return Look { row: self.row(index).into(), customer: Cow::Borrowed(self.customer(index)) };
        };
        let (mut row, mut customer) = (self.seats.new_row().to_vec(), Customer::default());
        let bytes = self.beds.get(bed);
        let timer = self.packer.unpack(bytes, self.seats.new_row(), &mut row, &mut customer);
        self.head.timer.set(&mut row, timer);
        Look { row: row.into(), customer: Cow::Owned(customer) }
    }

    /// Forgets a customer, who is awake. Its timers may still name the index, which is then [`Ts::MAX`] away.
    pub fn remove(&mut self, index: u32) {
        self.hide(index);
        self.vacate(index);
    }

    /// Forgets a customer when this transaction is committed; until then nobody finds it. It must be touched.
    pub fn erase(&mut self, index: u32) {
        self.hide(index);
        self.erased.push(index);
    }

    /// The customers that this transaction erases.
    pub fn erased(&self) -> &[u32] {
        &self.erased
    }

    /// Whether a customer that this transaction touches is erased by it.
    pub fn is_erased(&self, index: u32) -> bool {
        let is_found = || self.index.find(self.hash(self.id(index)), |i| *i == index).is_some();
        !self.erased.is_empty() && !is_found()
    }

    fn hide(&mut self, index: u32) {
        let hash = self.hash(self.id(index));
        if let Ok(entry) = self.index.find_entry(hash, |i| *i == index) {
            entry.remove();
        }
        let due = self.head.due;
        due.set(self.row_mut(index), Ts::MAX);
    }

    /// The counterpart of [`Store::hide`].
    fn show(&mut self, index: u32) {
        let hash = self.hash(self.id(index));
        // Apart from the rest of the store meanwhile, which is asked for the names once there is no room left.
        let mut names = std::mem::take(&mut self.index);
        names.insert_unique(hash, index, |i| self.hash(self.id(*i)));
        self.index = names;
    }

    fn vacate(&mut self, index: u32) {
        self.seats.leave(self.seat(index));
        *self.place_mut(index) = Place::EMPTY;
        self.free.push(index);
    }

    fn hash(&self, id: &str) -> u64 {
        hash_of(&self.hasher, id)
    }

    /// Of a customer who is awake, as the next three.
    pub fn customer(&self, index: u32) -> &Customer {
        self.seats.customer(self.seat(index))
    }

    pub fn row(&self, index: u32) -> &[u32] {
        self.seats.row(self.seat(index))
    }

    pub fn row_mut(&mut self, index: u32) -> &mut [u32] {
        self.seats.row_mut(self.seat(index))
    }

    /// Both parts of a customer's state.
    pub fn parts_mut(&mut self, index: u32) -> (&mut [u32], &mut Customer) {
        self.seats.parts_mut(self.seat(index))
    }

    /// Customers are numbered below this; numbers that are free have no due instant.
    pub fn slots(&self) -> u32 {
        self.len
    }

    /// The customers, in no order that means anything.
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.index.iter().copied()
    }

    /// Says that this transaction changes the customer: saves what it was, and will write what it becomes.
    /// It is awake then.
    pub fn touch(&mut self, index: u32, born: bool) {
        self.wake(index);
        self.save(index, born, None);
        let (dirty, transaction) = (self.head.dirty, self.transaction);
        if dirty.get(self.row(index)) != transaction {
            dirty.set(self.row_mut(index), transaction);
            self.dirty.push(index);
        }
    }

    /// As [`Store::touch`], for a customer whose row has changed already and was `before`.
    pub fn touch_after(&mut self, index: u32, before: &[u32]) {
        self.save(index, false, Some(before));
        self.touch(index, false);
    }

    fn save(&mut self, index: u32, born: bool, before: Option<&[u32]>) {
        let (touched, transaction) = (self.head.touched, self.transaction);
        if !self.journal || touched.get(self.row(index)) == transaction {
            return;
        }
        let seat = self.seat(index);
        let customer = self.seats.customer(seat);
        let mut undo = Undo { customer: index, born, lens: [0; 6], traits: None };
        if !born {
            self.undo_rows.extend_from_slice(before.unwrap_or(self.seats.row(seat)));
            self.undo_bytes.extend_from_slice(&customer.log);
            self.undo_bytes.extend_from_slice(&customer.sessions);
            self.undo_bytes.extend_from_slice(&customer.channels);
            self.undo_bytes.extend_from_slice(&customer.kept);
            self.undo_seen.extend_from_slice(&customer.seen);
            self.undo_order_days.extend_from_slice(&customer.order_days.0);
            let lens = [
                customer.log.len(),
                customer.sessions.len(),
                customer.seen.len(),
                customer.order_days.0.len(),
                customer.channels.len(),
                customer.kept.len(),
            ];
            undo.lens = lens.map(|len| len as u32);
            undo.traits = customer.traits.clone();
        }
        self.undo.push(undo);
        touched.set(self.row_mut(index), transaction);
    }

    /// The customers that this transaction must write.
    pub fn dirty(&self) -> &[u32] {
        &self.dirty
    }

    /// Bytes that the undo buffers hold.
    pub fn undo_bytes(&self) -> usize {
        let words = self.undo_rows.len() + self.undo_order_days.len();
        words * 4 + self.undo_bytes.len() + self.undo_seen.len() * size_of::<Seen>()
    }

    /// Bytes that the undo buffers hold or could hold at once.
    pub fn undo_capacity_bytes(&self) -> usize {
        self.undo.capacity() * size_of::<Undo>()
            + (self.undo_rows.capacity() + self.undo_order_days.capacity() + self.dirty.capacity()) * 4
            + self.undo_bytes.capacity()
            + self.undo_seen.capacity() * size_of::<Seen>()
    }

    /// The transaction is committed: nothing of it can be taken back.
    pub fn commit(&mut self) {
        for index in std::mem::take(&mut self.erased) {
            self.vacate(index);
        }
        self.empty_undo();
        self.transaction = self.transaction.wrapping_add(1).max(1);
        self.rest();
        let places = &mut self.places;
        self.seats.give_back(|index, seat| places[at(index).0][at(index).1] = Place::awake(seat));
        self.give_back_beds();
    }

    /// Gives room back that nobody rests in any more, if there is enough of it.
    fn give_back_beds(&mut self) {
        let mut moved = Vec::new();
        let (index, places, hasher) = (&self.index, &self.places, &self.hasher);
        self.beds.give_back(|string, from, to| {
            let is_there =
                |i: &u32| matches!(places[at(*i).0][at(*i).1].state(), State::AtRest(bed) if bed == from);
            let customer = index.find(hash_of(hasher, rest::id(string)), is_there);
            debug_assert!(customer.is_some(), "whoever rests is known");
            moved.extend(customer.map(|customer| (*customer, to)));
        });
        // Only now, as a number that was given back may be another's already.
        for (customer, bed) in moved {
            *self.place_mut(customer) = Place::at_rest(bed);
        }
    }

    /// Nothing can be taken back any more. Room for far more than there was is given back.
    fn empty_undo(&mut self) {
        fn empty<T>(list: &mut Vec<T>) {
            list.shrink_to((UNDO_KEPT_BYTES / size_of::<T>()).max(2 * list.len()));
            list.clear();
        }
        empty(&mut self.undo);
        empty(&mut self.undo_rows);
        empty(&mut self.undo_bytes);
        empty(&mut self.undo_seen);
        empty(&mut self.undo_order_days);
        empty(&mut self.dirty);
    }

    /// Brings back every customer as it was before the transaction. Calls `restored` for each with its row
    /// before and after; a customer born in the transaction is gone and has no row after.
    pub fn rollback(&mut self, mut restored: impl FnMut(u32, &[u32], Option<&[u32]>)) {
        let width = self.seats.new_row().len();
        for index in std::mem::take(&mut self.erased) {
            self.show(index);
        }
        let mut undo_log = std::mem::take(&mut self.undo);
        for undo in undo_log.drain(..).rev() {
            if undo.born {
                restored(undo.customer, self.row(undo.customer), None);
                self.remove(undo.customer);
                continue;
            }
            let row_at = self.undo_rows.len() - width;
            restored(undo.customer, self.row(undo.customer), Some(&self.undo_rows[row_at..]));
            let (row, customer) = self.seats.parts_mut(self.seat(undo.customer));
            row.copy_from_slice(&self.undo_rows[row_at..]);
            self.undo_rows.truncate(row_at);
            let [log, sessions, seen, order_days, channels, kept] = undo.lens.map(|n| n as usize);
            let order_days_at = self.undo_order_days.len() - order_days;
            customer.order_days.0 = ThinVec::from(&self.undo_order_days[order_days_at..]);
            self.undo_order_days.truncate(order_days_at);
            customer.seen = ThinVec::from(&self.undo_seen[self.undo_seen.len() - seen..]);
            self.undo_seen.truncate(self.undo_seen.len() - seen);
            customer.kept = ThinVec::from(&self.undo_bytes[self.undo_bytes.len() - kept..]);
            self.undo_bytes.truncate(self.undo_bytes.len() - kept);
            customer.channels = ThinVec::from(&self.undo_bytes[self.undo_bytes.len() - channels..]);
            self.undo_bytes.truncate(self.undo_bytes.len() - channels);
            customer.sessions = ThinVec::from(&self.undo_bytes[self.undo_bytes.len() - sessions..]);
            self.undo_bytes.truncate(self.undo_bytes.len() - sessions);
            customer.log = ThinVec::from(&self.undo_bytes[self.undo_bytes.len() - log..]);
            self.undo_bytes.truncate(self.undo_bytes.len() - log);
            customer.traits = undo.traits;
        }
        self.undo = undo_log;
        self.commit();
    }

    /// Bytes of all customers, with what the allocator adds.
    pub fn bytes(&self) -> usize {
        let places = self.places.len() * CHUNK * size_of::<Place>();
        places + self.beds.bytes() + self.packer.bytes() + self.seats.bytes() + table(&self.index)
    }
}

/// A place of a hash table takes its value and a byte of control; tables have a power of two of places, of which
/// seven eighths are used.
fn table(index: &HashTable<u32>) -> usize {
    (index.capacity() * 8 / 7).next_power_of_two() * (size_of::<u32>() + 1)
}

/// What the allocator gives for so many bytes: mimalloc has four sizes to each power of two, and multiples of 16
/// bytes below 128.
pub(super) fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(bytes.next_power_of_two() / 8),
    }
}

fn id_bytes(id: &CompactString) -> usize {
    if id.is_heap_allocated() { allocated(id.capacity()) } else { 0 }
}

fn traits_bytes(traits: Option<&Traits>) -> usize {
    let text =
        |value: &TraitValue| if let TraitValue::Text(text) = value { allocated(text.len()) } else { 0 };
    traits.map_or(0, |traits| {
        48 + traits.iter().map(|(name, value)| 64 + allocated(name.len()) + text(value)).sum::<usize>()
    })
}

impl Customer {
    /// Bytes of its lists and texts, with what the allocator adds.
    pub(super) fn heap_bytes(&self) -> usize {
        let thin = |capacity: usize| if capacity == 0 { 0 } else { allocated(16 + capacity) };
        id_bytes(&self.id)
            + thin(self.log.capacity())
            + thin(self.sessions.capacity())
            + thin(self.seen.capacity() * size_of::<Seen>())
            + thin(self.order_days.0.capacity() * 4)
            + thin(self.channels.capacity())
            + thin(self.kept.capacity())
            + traits_bytes(self.traits.as_deref())
    }
}

fn at(index: u32) -> (usize, usize) {
    (index as usize / CHUNK, index as usize % CHUNK)
}

fn hash_of(hasher: &foldhash::fast::RandomState, id: &str) -> u64 {
    use std::hash::BuildHasher;
    hasher.hash_one(id)
}

#[cfg(test)]
mod tests;
