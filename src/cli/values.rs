//! How arguments are read that are more than text: instants, spans and finite counts.

use crate::time::{MAX_TS, MIN_TS, Ts, parse_rfc3339, parse_span};

/// An instant: RFC 3339, a date (its midnight, UTC), or epoch milliseconds.
pub fn instant(text: &str) -> Result<Ts, String> {
    let epoch_ms = || text.parse::<Ts>().ok().filter(|ts| (MIN_TS..=MAX_TS).contains(ts));
    parse_rfc3339(text)
        .or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")))
        .or_else(epoch_ms)
        .ok_or_else(|| "write an instant as 2026-01-31T00:00:00Z, 2026-01-31 or epoch milliseconds".into())
}

/// A span of time in milliseconds.
pub fn span(text: &str) -> Result<i64, String> {
    parse_span(text)
}

/// A span of time in milliseconds that is not empty.
pub fn positive_span(text: &str) -> Result<i64, String> {
    match parse_span(text)? {
        0 => Err("must be longer than 0".into()),
        ms => Ok(ms),
    }
}
