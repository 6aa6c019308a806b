//! Restored customers who are not live yet: their windows are not counted, and no timer stands for them.
//!
//! A state of the log is decoded at once, and its customer settles in later: a newer state may follow, and then the
//! work would have been for nothing. Who has not settled in is a bit each; they are taken in turn, round and round.

const BITS: usize = u64::BITS as usize;

/// The numbers of customers who have yet to settle in.
#[derive(Debug, Default)]
pub struct Unsettled {
    words: Vec<u64>,
    len: usize,
    /// The word that is looked at next.
    hand: usize,
}

impl Unsettled {
    pub fn insert(&mut self, customer: u32) {
        let (word, bit) = place(customer);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.len += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    pub fn remove(&mut self, customer: u32) {
        let (word, bit) = place(customer);
        if let Some(word) = self.words.get_mut(word) {
            self.len -= usize::from(*word & bit != 0);
            *word &= !bit;
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes out whoever has waited for longest, more or less: the next one round.
    pub fn take(&mut self) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        loop {
            let hand = self.hand % self.words.len();
            let word = &mut self.words[hand];
            if *word == 0 {
                self.hand = hand + 1;
                continue;
            }
            let bit = word.trailing_zeros();
            *word &= *word - 1;
            self.len -= 1;
            self.hand = hand;
            return Some((hand * BITS) as u32 + bit);
        }
    }

    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

fn place(customer: u32) -> (usize, u64) {
    (customer as usize / BITS, 1 << (customer as usize % BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_holds_what_a_set_would(steps in prop::collection::vec((0u8..4, 0u32..300), 0..200)) {
            let (mut unsettled, mut set) = (Unsettled::default(), BTreeSet::new());
            for (kind, customer) in steps {
                match kind {
                    0 | 1 => {
                        unsettled.insert(customer);
                        set.insert(customer);
                    }
                    2 => {
                        unsettled.remove(customer);
                        set.remove(&customer);
                    }
                    _ => {
                        let taken = unsettled.take();
                        prop_assert_eq!(taken.is_none(), set.is_empty());
                        prop_assert!(taken.is_none_or(|taken| set.remove(&taken)));
                    }
                }
                prop_assert_eq!(unsettled.len(), set.len());
            }
        }
    }

    #[test]
    fn whoever_comes_again_behind_the_hand_waits_for_its_next_turn() {
        let mut unsettled = Unsettled::default();
        [1, 70, 200].into_iter().for_each(|customer| unsettled.insert(customer));
        assert_eq!((unsettled.take(), unsettled.take()), (Some(1), Some(70)));
        unsettled.insert(1);
        assert_eq!((unsettled.take(), unsettled.take(), unsettled.take()), (Some(200), Some(1), None));
    }
}
