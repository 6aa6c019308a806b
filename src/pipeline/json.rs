//! Writing JSON into a buffer, for the few messages that are written for nearly every event.
//!
//! serde_json would walk a serializer per field; here a message is a handful of fragments made once and the
//! values between them. Numbers come out as serde_json writes them.

use crate::time::{Ts, format_rfc3339};

/// A JSON text with its quotes, for a fragment.
pub fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    put_text(&mut out, text);
    out
}

/// Appends what needs no escaping as it stands: fragments, punctuation.
#[inline]
pub fn put(out: &mut Vec<u8>, fragment: impl AsRef<[u8]>) {
    out.extend_from_slice(fragment.as_ref());
}

/// Appends a text with its quotes.
#[inline]
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing text to memory cannot fail.
        let written = serde_json::to_writer(out, text);
        debug_assert!(written.is_ok());
    }
}

/// Appends a text or `null`.
pub fn put_optional_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => put(out, "null"),
    }
}

/// Appends a number: whole values without a fraction, infinity as `null`.
#[inline]
pub fn put_number(out: &mut Vec<u8>, x: f64) {
    const EXACT: f64 = 9e15;
    let whole = x as i64;
    if whole as f64 == x && x.abs() < EXACT {
        put_integer(out, whole);
    } else if x.is_finite() {
        put(out, zmij::Buffer::new().format_finite(x));
    } else {
        put(out, "null");
    }
}

/// As [`put_number`], `None` as `null`.
pub fn put_optional_number(out: &mut Vec<u8>, x: Option<f64>) {
    put_number(out, x.unwrap_or(f64::INFINITY));
}

/// Appends an integer.
#[inline]
pub fn put_integer(out: &mut Vec<u8>, n: impl itoa::Integer) {
    put(out, itoa::Buffer::new().format(n));
}

/// Appends an instant with its quotes.
#[inline]
pub fn put_instant(out: &mut Vec<u8>, ts: Ts) {
    out.push(b'"');
    put(out, format_rfc3339(ts).as_str());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::emit::Num;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_out_as_serde_json_writes_them(x in any::<f64>(), small in -1e6..1e6f64, n in any::<i32>()) {
            for x in [x, small, f64::from(n), f64::from(n) / 8.0] {
                let mut out = Vec::new();
                put_number(&mut out, x);
                prop_assert_eq!(String::from_utf8_lossy(&out), serde_json::to_string(&Num(x)).unwrap());
            }
        }

        #[test]
        fn texts_come_out_as_serde_json_writes_them(text in ".*") {
            prop_assert_eq!(quoted(&text), serde_json::to_vec(&text).unwrap());
        }
    }

    #[test]
    fn the_ends_of_the_number_line_come_out_as_serde_json_writes_them() {
        for x in [0.0, -0.0, f64::INFINITY, f64::NAN, 9e15, -9e15, 1e300, f64::MIN_POSITIVE] {
            let mut out = Vec::new();
            put_number(&mut out, x);
            assert_eq!(String::from_utf8_lossy(&out), serde_json::to_string(&Num(x)).unwrap(), "{x}");
        }
    }
}
