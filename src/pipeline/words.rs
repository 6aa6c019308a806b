//! The fixed-size part of a customer's state: a row of 32-bit words, addressed by typed slots.
//!
//! The layout is known only once the catalogue and the lifecycles are, so a struct cannot hold it; a row of
//! words costs no more than a struct would and copies as one block, which is what rolling back needs.

use std::marker::PhantomData;

/// The place of a `T` in a row.
pub struct Slot<T> {
    at: u16,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slot<T> {}

impl<T> std::fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({})", self.at)
    }
}

impl<T> PartialEq for Slot<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

/// What fits into a slot.
pub trait Word: Copy {
    const WORDS: usize;
    fn load(words: &[u32]) -> Self;
    fn store(self, words: &mut [u32]);
}

impl Word for u32 {
    const WORDS: usize = 1;
    #[inline(always)]
    fn load(words: &[u32]) -> Self {
        words[0]
    }
    #[inline(always)]
    fn store(self, words: &mut [u32]) {
        words[0] = self;
    }
}

impl Word for u64 {
    const WORDS: usize = 2;
    #[inline(always)]
    fn load(words: &[u32]) -> Self {
        u64::from(words[0]) | u64::from(words[1]) << 32
    }
    #[inline(always)]
    fn store(self, words: &mut [u32]) {
        words[0] = self as u32;
        words[1] = (self >> 32) as u32;
    }
}

impl Word for i64 {
    const WORDS: usize = 2;
    #[inline(always)]
    fn load(words: &[u32]) -> Self {
        u64::load(words) as i64
    }
    #[inline(always)]
    fn store(self, words: &mut [u32]) {
        (self as u64).store(words);
    }
}

impl Word for f64 {
    const WORDS: usize = 2;
    #[inline(always)]
    fn load(words: &[u32]) -> Self {
        f64::from_bits(u64::load(words))
    }
    #[inline(always)]
    fn store(self, words: &mut [u32]) {
        self.to_bits().store(words);
    }
}

impl<T: Word> Slot<T> {
    #[inline(always)]
    pub fn get(self, row: &[u32]) -> T {
        let at = usize::from(self.at);
        T::load(&row[at..at + T::WORDS])
    }

    #[inline(always)]
    pub fn set(self, row: &mut [u32], value: T) {
        let at = usize::from(self.at);
        value.store(&mut row[at..at + T::WORDS]);
    }
}

impl Slot<u32> {
    #[inline(always)]
    pub fn add(self, row: &mut [u32], n: u32) {
        let word = &mut row[usize::from(self.at)];
        *word = word.wrapping_add(n);
    }
}

impl Slot<i64> {
    #[inline(always)]
    pub fn add(self, row: &mut [u32], n: i64) {
        self.set(row, self.get(row).saturating_add(n));
    }
}

/// Lays slots out one after another.
#[derive(Clone, Debug, Default)]
pub struct RowBuilder {
    initial: Vec<u32>,
}

impl RowBuilder {
    /// A slot that holds `initial` in a new customer.
    ///
    /// # Panics
    /// Never for rows under 65,536 words; the limits on windows, features, lifecycles and policies keep rows
    /// far below.
    pub fn slot<T: Word>(&mut self, initial: T) -> Slot<T> {
        let at = self.initial.len();
        debug_assert!(at + T::WORDS <= usize::from(u16::MAX));
        self.initial.resize(at + T::WORDS, 0);
        initial.store(&mut self.initial[at..]);
        Slot { at: at as u16, kind: PhantomData }
    }

    /// The row of a new customer.
    pub fn finish(self) -> Box<[u32]> {
        self.initial.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_their_values_apart() {
        let mut builder = RowBuilder::default();
        let (a, b, c) = (builder.slot(7u32), builder.slot(i64::MIN), builder.slot(0.25f64));
        let mut row = builder.finish();
        assert_eq!((a.get(&row), b.get(&row), c.get(&row)), (7, i64::MIN, 0.25));
        a.add(&mut row, 3);
        b.set(&mut row, -5);
        assert_eq!((a.get(&row), b.get(&row), c.get(&row)), (10, -5, 0.25));
    }
}
