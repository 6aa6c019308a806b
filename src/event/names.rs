//! The names of events: which native types have a meaning of their own, and how a foreign name becomes
//! snake_case.

use std::borrow::Cow;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Source;
use super::native::MAX_TYPE_BYTES;

/// A native type and the kind of event it is.
pub(super) type Meaning = (Source, &'static str);

/// The types with a meaning of their own.
pub const KNOWN: [(Source, &[&str]); 4] = [
    (
        Source::Clickstream,
        &[
            "page_viewed",
            "screen_viewed",
            "product_viewed",
            "product_list_viewed",
            "products_searched",
            "product_added",
            "product_removed",
            "cart_viewed",
            "wishlist_added",
            "checkout_started",
            "signed_up",
            "signed_in",
            "ad_clicked",
            "email_opened",
            "email_clicked",
            "product_shared",
            "product_reviewed",
            "referral_sent",
            "unsubscribed",
        ],
    ),
    (
        Source::Purchase,
        &[
            "order_completed",
            "order_refunded",
            "order_cancelled",
            "subscription_started",
            "subscription_renewed",
            "subscription_cancelled",
        ],
    ),
    (
        Source::Support,
        &["ticket_opened", "ticket_replied", "ticket_solved", "ticket_reopened", "csat_rated", "nps_rated"],
    ),
    (Source::Profile, &["traits_updated", "customer_deleted", "customers_merged"]),
];

/// The meaning of a native type.
pub(super) fn known(name: &str) -> Option<Meaning> {
    static BY_NAME: LazyLock<HashMap<&str, Meaning, RandomState>> = LazyLock::new(|| {
        let of_kind = |(source, names): (Source, &'static [&'static str])| {
            names.iter().map(move |name| (*name, (source, *name)))
        };
        KNOWN.into_iter().flat_map(of_kind).collect()
    });
    BY_NAME.get(name).copied()
}

/// Whether text is a type as the native format writes it.
pub fn is_type(text: &str) -> bool {
    (1..=MAX_TYPE_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// A name in snake_case on the stack, so that well-known names cost no allocation.
pub(super) struct Snake {
    bytes: [u8; MAX_TYPE_BYTES],
    len: usize,
}

impl Snake {
    /// `Order Completed`, `orderCompleted`, `ORDER-COMPLETED ` all give `order_completed`. What does not fit
    /// is cut off; a name without a letter or digit of ASCII gives nothing.
    pub(super) fn new(text: &str) -> Snake {
        let mut snake = Snake { bytes: [0; MAX_TYPE_BYTES], len: 0 };
        let (mut gap, mut before) = (false, 0u8);
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() {
                let hump =
                    byte.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit());
                if (gap || hump) && snake.len > 0 {
                    snake.push(b'_');
                }
                snake.push(byte.to_ascii_lowercase());
                if snake.len == MAX_TYPE_BYTES {
                    break;
                }
                gap = false;
            } else {
                gap = true;
            }
            before = byte;
        }
        snake
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    pub(super) fn as_str(&self) -> &str {
        // Only ASCII was pushed.
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }

    /// On its own; `fallback` where nothing is left of the name.
    pub(super) fn into_name(self, fallback: &'static str) -> Cow<'static, str> {
        match self.as_str() {
            "" => Cow::Borrowed(fallback),
            name => Cow::Owned(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_spelling_becomes_snake_case() {
        for (text, snake) in [
            ("Order Completed", "order_completed"),
            ("  order   completed ", "order_completed"),
            ("orderCompleted", "order_completed"),
            ("ORDER-COMPLETED", "order_completed"),
            ("order_completed", "order_completed"),
            ("CSAT Rated", "csat_rated"),
            ("Step2Done (v3)", "step2_done_v3"),
            ("日本", ""),
        ] {
            assert_eq!(Snake::new(text).as_str(), snake, "{text}");
        }
        let long = Snake::new(&"abc ".repeat(100));
        assert!(is_type(long.as_str()), "{}", long.as_str());
    }

    #[test]
    fn every_known_type_is_a_type_and_is_known_once() {
        let mut seen = std::collections::BTreeSet::new();
        for (source, names) in KNOWN {
            for name in names {
                assert!(is_type(name) && seen.insert(*name), "{name}");
                assert_eq!(known(name), Some((source, *name)));
            }
        }
    }
}
