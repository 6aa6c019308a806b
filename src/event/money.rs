//! Money: the base currency and the rates into it.

use std::collections::BTreeMap;

/// The largest amount of one event, in the base currency. Above it an amount is taken for an error, so that
/// sums in millionths cannot overflow unnoticed.
pub const MAX_AMOUNT: f64 = 1e12;

/// How amounts become the base currency.
#[derive(Clone, Debug, PartialEq)]
pub struct Money {
    /// ISO 4217 code of the base currency.
    pub base: String,
    /// Units of the base currency for one unit of the named currency.
    pub rates: BTreeMap<String, f64>,
}

impl Default for Money {
    fn default() -> Self {
        Money { base: "EUR".into(), rates: BTreeMap::new() }
    }
}

impl Money {
    /// The rate of `currency` into the base; `None` when it is not configured. Codes compare without case.
    pub fn rate(&self, currency: &str) -> Option<f64> {
        if currency.eq_ignore_ascii_case(&self.base) {
            return Some(1.0);
        }
        self.rates.iter().find(|(code, _)| code.eq_ignore_ascii_case(currency)).map(|(_, rate)| *rate)
    }
}
