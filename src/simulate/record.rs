//! The JSON of simulated events: the native format, written by hand because every text in it is our own.

use std::fmt::{Display, Write};

use crate::event::Source;
use crate::time::{Ts, format_rfc3339};

/// One simulated event, as a Kafka record or a line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub source: Source,
    pub ts: Ts,
    pub customer: u32,
    /// One JSON object without a line end.
    pub json: String,
}

impl Record {
    pub fn customer_id(&self) -> String {
        customer_id(self.customer)
    }
}

/// `c0000042`: equal lengths, so that ids sort as numbers do.
pub fn customer_id(customer: u32) -> String {
    format!("c{customer:07}")
}

/// Writes the fields of one event, in the order in which they are given.
pub struct Writer {
    record: Record,
}

impl Writer {
    /// Starts an event. `number` counts the customer's events and makes the id.
    pub fn new(source: Source, customer: u32, number: u32, kind: &str, ts: Ts) -> Writer {
        let mut json = String::with_capacity(224);
        // Writing to a string cannot fail.
        let _ = write!(
            json,
            r#"{{"event_id":"e{customer:07}-{number}","customer_id":"c{customer:07}","type":"{kind}","ts":"{}""#,
            format_rfc3339(ts)
        );
        Writer { record: Record { source, ts, customer, json } }
    }

    /// A text that needs no escaping: ASCII without quotes, backslashes or control characters.
    pub fn text(self, key: &str, value: impl Display) -> Writer {
        self.raw(key, format_args!("\"{value}\""))
    }

    /// A number, a boolean, or JSON that is complete in itself.
    pub fn raw(mut self, key: &str, value: impl Display) -> Writer {
        let _ = write!(self.record.json, r#","{key}":{value}"#);
        self
    }

    pub fn cents(self, key: &str, cents: i64) -> Writer {
        self.raw(key, Hundredths(cents))
    }

    pub fn end(mut self) -> Record {
        self.record.json.push('}');
        self.record
    }
}

/// Hundredths as a decimal number: exact, so that the bytes are the same everywhere.
#[derive(Clone, Copy)]
pub struct Hundredths(pub i64);

impl Display for Hundredths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let n = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", n / 100, n % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_json_object_in_the_native_format() {
        let record = Writer::new(Source::Purchase, 42, 7, "order_completed", 1_767_323_045_678)
            .text("order_id", "o42-1")
            .cents("amount", 1_205)
            .end();
        assert_eq!(
            record.json,
            r#"{"event_id":"e0000042-7","customer_id":"c0000042","type":"order_completed","ts":"2026-01-02T03:04:05.678Z","order_id":"o42-1","amount":12.05}"#
        );
        assert_eq!(record.customer_id(), "c0000042");
    }

    #[test]
    fn hundredths_are_exact() {
        for (n, text) in [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (-123, "-1.23"), (1_000_001, "10000.01")] {
            assert_eq!(Hundredths(n).to_string(), text);
        }
    }
}
