//! The seats of those who are awake: a row of words and a [`Customer`] each, in chunks that never move or grow.
//!
//! Knows who sits where and who has not been needed for longest (a clock, as page caches have it: a hand goes round,
//! passes by once whoever was needed meanwhile, and names the others). Whether somebody may rise, and what becomes of
//! whoever does, is [`super::store`]'s to say.

use super::store::Customer;

/// Seats to a chunk: few, since every partition has some, and most customers have none.
const CHUNK: usize = 256;
/// What the allocator keeps free between lists, of what they take: they grow, and leave gaps of sizes that fewer want.
/// `cargo bench --bench memory` had from half as much to all of it again, by events each and who rests.
const GAPS_PERCENT: usize = 65;
/// Nobody's number.
pub const NOBODY: u32 = u32::MAX;

/// The seats of one partition.
#[derive(Debug)]
pub struct Seats {
    new_row: Box<[u32]>,
    rows: Vec<Box<[u32]>>,
    customers: Vec<Box<[Customer]>>,
    /// By seat: whose it is, and whether that one was needed since the hand went by.
    taken: Vec<u32>,
    needed: Vec<bool>,
    free: Vec<u32>,
    hand: usize,
}

impl Seats {
    pub fn new(new_row: Box<[u32]>) -> Self {
        Seats {
            new_row,
            rows: Vec::new(),
            customers: Vec::new(),
            taken: Vec::new(),
            needed: Vec::new(),
            free: Vec::new(),
            hand: 0,
        }
    }

    pub fn new_row(&self) -> &[u32] {
        &self.new_row
    }

    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// How many are taken.
    pub fn awake(&self) -> usize {
        self.taken.len() - self.free.len()
    }

    /// Gives somebody a seat. Its row holds anything, its [`Customer`] nothing.
    pub fn take(&mut self, index: u32) -> u32 {
        let seat = self.free.pop().unwrap_or_else(|| self.add());
        self.taken[seat as usize] = index;
        self.needed[seat as usize] = true;
        seat
    }

    fn add(&mut self) -> u32 {
        let seat = self.taken.len();
        if seat.is_multiple_of(CHUNK) {
            self.rows.push(vec![0; CHUNK * self.new_row.len()].into());
            self.customers.push((0..CHUNK).map(|_| Customer::default()).collect());
        }
        self.taken.push(NOBODY);
        self.needed.push(false);
        seat as u32
    }

    /// Whoever sits there rises; what it had is gone.
    pub fn leave(&mut self, seat: u32) {
        *self.parts_mut(seat).1 = Customer::default();
        self.taken[seat as usize] = NOBODY;
        self.free.push(seat);
    }

    pub fn need(&mut self, seat: u32) {
        self.needed[seat as usize] = true;
    }

    /// Moves the hand on by one seat; names who sits there, if it was not needed since the hand was there last.
    pub fn ask_next(&mut self) -> Option<u32> {
        let seat = self.hand;
        self.hand = (seat + 1) % self.taken.len();
        let (index, needed) = (self.taken[seat], std::mem::take(&mut self.needed[seat]));
        (index != NOBODY && !needed).then_some(index)
    }

    /// Gives the last chunk back if half of all seats are free, and more than a chunk: a transaction that many had
    /// a part in is over. One at a time, so that what the next one needs is still there. Calls `moved` with the
    /// number and the new seat of everybody who sat in it.
    pub fn give_back(&mut self, mut moved: impl FnMut(u32, u32)) {
        if self.free.len() <= CHUNK || self.free.len() < self.taken.len() / 2 {
            return;
        }
        let first = (self.rows.len() - 1) * CHUNK;
        self.free.retain(|seat| (*seat as usize) < first);
        for seat in first..self.taken.len() {
            let index = self.taken[seat];
            // The chunk has no more seats than are free before it.
            if index != NOBODY
                && let Some(to) = self.free.pop()
            {
                self.move_to(seat as u32, to);
                moved(index, to);
            }
        }
        self.rows.pop();
        self.customers.pop();
        self.taken.truncate(first);
        self.needed.truncate(first);
        self.hand = self.hand.min(first - 1);
    }

    fn move_to(&mut self, from: u32, to: u32) {
        let (row, customer) = self.parts_mut(from);
        let (row, customer) = (row.to_vec(), std::mem::take(customer));
        let (row_there, customer_there) = self.parts_mut(to);
        row_there.copy_from_slice(&row);
        *customer_there = customer;
        self.taken[to as usize] = self.taken[from as usize];
        self.needed[to as usize] = self.needed[from as usize];
    }

    pub fn row(&self, seat: u32) -> &[u32] {
        let ((chunk, place), width) = (at(seat), self.new_row.len());
        &self.rows[chunk][place * width..][..width]
    }

    pub fn row_mut(&mut self, seat: u32) -> &mut [u32] {
        let ((chunk, place), width) = (at(seat), self.new_row.len());
        &mut self.rows[chunk][place * width..][..width]
    }

    pub fn customer(&self, seat: u32) -> &Customer {
        let (chunk, place) = at(seat);
        &self.customers[chunk][place]
    }

    /// Both parts of what is known of somebody.
    pub fn parts_mut(&mut self, seat: u32) -> (&mut [u32], &mut Customer) {
        let ((chunk, place), width) = (at(seat), self.new_row.len());
        (&mut self.rows[chunk][place * width..][..width], &mut self.customers[chunk][place])
    }

    /// A new row beside the parts, for whoever fills them.
    pub fn parts_to_fill(&mut self, seat: u32) -> (&[u32], &mut [u32], &mut Customer) {
        let ((chunk, place), width) = (at(seat), self.new_row.len());
        let row = &mut self.rows[chunk][place * width..][..width];
        (&self.new_row, row, &mut self.customers[chunk][place])
    }

    /// Bytes of all seats, with what the allocator adds.
    pub fn bytes(&self) -> usize {
        let each = self.new_row.len() * size_of::<u32>() + size_of::<Customer>();
        let lists: usize = self.customers.iter().flatten().map(Customer::heap_bytes).sum();
        let seating = self.taken.capacity() * 4 + self.needed.capacity() + self.free.capacity() * 4;
        self.rows.len() * CHUNK * each + lists + lists * GAPS_PERCENT / 100 + seating
    }
}

fn at(seat: u32) -> (usize, usize) {
    (seat as usize / CHUNK, seat as usize % CHUNK)
}
