//! The stage changes and alerts of a transaction, kept until its commit makes them news.
//!
//! One buffer that every transaction uses again: catching up there are thousands of them in each.

use crate::pipeline::outbox::Channel;

/// In the order in which they were decided.
#[derive(Debug, Default)]
pub struct News {
    bytes: Vec<u8>,
    /// Whose they are and what they say, by where that ends in `bytes`.
    ends: Vec<(Channel, usize, usize)>,
}

/// One stage change or alert: its customer's id and its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'n> {
    pub channel: Channel,
    pub customer: &'n [u8],
    pub json: &'n [u8],
}

impl News {
    /// Takes an output in if it is of a kind that is told.
    pub fn note(&mut self, channel: Channel, customer: &[u8], json: &[u8]) {
        if matches!(channel, Channel::StageChanges | Channel::ChurnAlerts) {
            self.bytes.extend_from_slice(customer);
            let customer_end = self.bytes.len();
            self.bytes.extend_from_slice(json);
            self.ends.push((channel, customer_end, self.bytes.len()));
        }
    }

    pub fn items(&self) -> impl DoubleEndedIterator<Item = Item<'_>> + Clone {
        (0..self.ends.len()).map(|k| {
            let start = k.checked_sub(1).map_or(0, |before| self.ends[before].2);
            let (channel, customer_end, end) = self.ends[k];
            Item { channel, customer: &self.bytes[start..customer_end], json: &self.bytes[customer_end..end] }
        })
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_alerts_are_told_in_order_from_both_ends_and_nothing_else_is() {
        let mut news = News::default();
        news.note(Channel::StageChanges, b"a", b"{1}");
        news.note(Channel::ChurnScores, b"a", b"{2}");
        news.note(Channel::ChurnAlerts, b"", b"{3}");
        let first = Item { channel: Channel::StageChanges, customer: b"a", json: b"{1}" };
        let last = Item { channel: Channel::ChurnAlerts, customer: b"", json: b"{3}" };
        assert!(news.items().eq([first, last]));
        assert!(news.items().rev().eq([last, first]));
        news.clear();
        assert_eq!(news.items().count(), 0);
    }
}
