//! The stage changes and alerts of a transaction, kept until its commit makes them news.
//!
//! One buffer that every transaction uses again: catching up there are thousands of them in each.

use crate::pipeline::outbox::Channel;

/// In the order in which they were decided.
#[derive(Debug, Default)]
pub struct News {
    bytes: Vec<u8>,
    /// Whose they are and what they say, by where that ends in `bytes`.
    ends: Vec<(Channel, [usize; 2])>,
}

/// One stage change or alert: its customer's id and its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'n> {
    pub channel: Channel,
    pub customer: &'n [u8],
    pub json: &'n [u8],
}

impl News {
    /// Takes in an output [that is told](is_told).
    pub fn note(&mut self, item: Item<'_>) {
        let ends = [item.customer, item.json].map(|part| {
            self.bytes.extend_from_slice(part);
            self.bytes.len()
        });
        self.ends.push((item.channel, ends));
    }

    pub fn items(&self) -> impl DoubleEndedIterator<Item = Item<'_>> + Clone {
        (0..self.ends.len()).map(|k| {
            let start = k.checked_sub(1).map_or(0, |before| self.ends[before].1[1]);
            let (channel, [customer, json]) = self.ends[k];
            Item { channel, customer: &self.bytes[start..customer], json: &self.bytes[customer..json] }
        })
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Whether outputs of this kind are told.
pub fn is_told(channel: Channel) -> bool {
    matches!(channel, Channel::StageChanges | Channel::ChurnAlerts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_told_in_order_from_both_ends() {
        let mut news = News::default();
        let first = Item { channel: Channel::StageChanges, customer: b"a", json: b"{1}" };
        let last = Item { channel: Channel::ChurnAlerts, customer: b"", json: b"{3}" };
        news.note(first);
        news.note(last);
        assert!(news.items().eq([first, last]));
        assert!(news.items().rev().eq([last, first]));
        news.clear();
        assert_eq!(news.items().count(), 0);
        let told = Channel::ALL.into_iter().filter(|channel| is_told(*channel));
        assert!(told.eq([Channel::StageChanges, Channel::ChurnAlerts]));
    }
}
