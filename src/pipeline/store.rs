//! The customers of one partition: where each one's state is, and how to take a transaction back.
//!
//! State lies in chunks that never move or grow, one row of words and one [`Customer`] each. The first touch of
//! a customer in a transaction saves its state, so that an abort restores exactly the customers it concerns.

use compact_str::CompactString;
use hashbrown::HashTable;
use thin_vec::ThinVec;

use super::facts::{TraitValue, Traits};
use super::plan::HeadSlots;
use crate::time::{DAY_MS, MIN_TS, Ts};

const CHUNK: usize = 1024;

/// An event id that was seen, hashed, with its event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: u64,
    pub ts: Ts,
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
    new_row: Box<[u32]>,
    rows: Vec<Box<[u32]>>,
    customers: Vec<Box<[Customer]>>,
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
    /// `journal`: keep what a rollback needs.
    pub fn new(head: HeadSlots, new_row: Box<[u32]>, journal: bool) -> Self {
        Store {
            head,
            new_row,
            rows: Vec::new(),
            customers: Vec::new(),
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

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub fn find(&self, id: &str) -> Option<u32> {
        self.index.find(self.hash(id), |i| self.customer(*i).id == id).copied()
    }

    /// The customer, and whether it is new.
    pub fn find_or_create(&mut self, id: &str) -> (u32, bool) {
        let hash = self.hash(id);
        if let Some(index) = self.index.find(hash, |i| self.customer(*i).id == id) {
            return (*index, false);
        }
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        self.customer_mut(index).id = CompactString::new(id);
        let (chunk, place) = at(index);
        let width = self.new_row.len();
        self.rows[chunk][place * width..][..width].copy_from_slice(&self.new_row);
        self.show(index);
        (index, true)
    }

    fn grow(&mut self) -> u32 {
        let index = self.len;
        self.len += 1;
        if (index as usize).is_multiple_of(CHUNK) {
            self.rows.push(vec![0; CHUNK * self.new_row.len()].into());
            self.customers.push((0..CHUNK).map(|_| Customer::default()).collect());
        }
        index
    }

    /// Forgets a customer. Its timers may still name the index, which is then [`Ts::MAX`] away.
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
        let is_found = || self.index.find(self.hash(&self.customer(index).id), |i| *i == index).is_some();
        !self.erased.is_empty() && !is_found()
    }

    fn hide(&mut self, index: u32) {
        let hash = self.hash(&self.customer(index).id);
        if let Ok(entry) = self.index.find_entry(hash, |i| *i == index) {
            entry.remove();
        }
        let due = self.head.due;
        due.set(self.row_mut(index), Ts::MAX);
    }

    /// The counterpart of [`Store::hide`].
    fn show(&mut self, index: u32) {
        let hash = self.hash(&self.customer(index).id);
        let (customers, hasher) = (&self.customers, &self.hasher);
        self.index.insert_unique(hash, index, |i| hash_of(hasher, &customers[at(*i).0][at(*i).1].id));
    }

    fn vacate(&mut self, index: u32) {
        *self.customer_mut(index) = Customer::default();
        self.free.push(index);
    }

    fn hash(&self, id: &str) -> u64 {
        hash_of(&self.hasher, id)
    }

    pub fn customer(&self, index: u32) -> &Customer {
        &self.customers[at(index).0][at(index).1]
    }

    pub fn customer_mut(&mut self, index: u32) -> &mut Customer {
        &mut self.customers[at(index).0][at(index).1]
    }

    pub fn row(&self, index: u32) -> &[u32] {
        let width = self.new_row.len();
        &self.rows[at(index).0][at(index).1 * width..][..width]
    }

    pub fn row_mut(&mut self, index: u32) -> &mut [u32] {
        let width = self.new_row.len();
        &mut self.rows[at(index).0][at(index).1 * width..][..width]
    }

    /// Both parts of a customer's state.
    pub fn parts_mut(&mut self, index: u32) -> (&mut [u32], &mut Customer) {
        let (chunk, place) = at(index);
        let width = self.new_row.len();
        (&mut self.rows[chunk][place * width..][..width], &mut self.customers[chunk][place])
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
    pub fn touch(&mut self, index: u32, born: bool) {
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
        let (chunk, place) = at(index);
        let width = self.new_row.len();
        let customer = &self.customers[chunk][place];
        let mut undo = Undo { customer: index, born, lens: [0; 6], traits: None };
        if !born {
            self.undo_rows.extend_from_slice(before.unwrap_or(&self.rows[chunk][place * width..][..width]));
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

    /// The transaction is committed: nothing of it can be taken back.
    pub fn commit(&mut self) {
        for index in std::mem::take(&mut self.erased) {
            self.vacate(index);
        }
        self.undo.clear();
        self.undo_rows.clear();
        self.undo_bytes.clear();
        self.undo_seen.clear();
        self.undo_order_days.clear();
        self.dirty.clear();
        self.transaction = self.transaction.wrapping_add(1).max(1);
    }

    /// Brings back every customer as it was before the transaction. Calls `restored` for each with its row
    /// before and after; a customer born in the transaction is gone and has no row after.
    pub fn rollback(&mut self, mut restored: impl FnMut(u32, &[u32], Option<&[u32]>)) {
        let width = self.new_row.len();
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
            let (chunk, place) = at(undo.customer);
            self.rows[chunk][place * width..][..width].copy_from_slice(&self.undo_rows[row_at..]);
            self.undo_rows.truncate(row_at);
            let [log, sessions, seen, order_days, channels, kept] = undo.lens.map(|n| n as usize);
            let customer = &mut self.customers[chunk][place];
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

    /// Bytes of all customers, the allocator's overhead estimated at 8 per allocation.
    pub fn bytes(&self) -> usize {
        let fixed = self.rows.len() * CHUNK * (self.new_row.len() * 4 + size_of::<Customer>());
        let varying: usize = self.indices().map(|i| self.customer(i).heap_bytes()).sum();
        fixed + varying + self.index.capacity() * 5
    }
}

impl Customer {
    fn heap_bytes(&self) -> usize {
        let thin = |capacity: usize| if capacity == 0 { 0 } else { 16 + capacity + 8 };
        let id = if self.id.is_heap_allocated() { self.id.capacity() + 8 } else { 0 };
        let text = |value: &TraitValue| if let TraitValue::Text(text) = value { text.len() } else { 0 };
        let traits = self.traits.as_ref().map_or(0, |traits| {
            48 + traits.iter().map(|(name, value)| 64 + name.len() + text(value)).sum::<usize>()
        });
        id + thin(self.log.capacity())
            + thin(self.sessions.capacity())
            + thin(self.seen.capacity() * size_of::<Seen>())
            + thin(self.order_days.0.capacity() * 4)
            + thin(self.channels.capacity())
            + thin(self.kept.capacity())
            + traits
    }
}

fn at(index: u32) -> (usize, usize) {
    (index as usize / CHUNK, index as usize % CHUNK)
}

fn hash_of(hasher: &foldhash::fast::RandomState, id: &str) -> u64 {
    use std::hash::BuildHasher;
    hasher.hash_one(id)
}
