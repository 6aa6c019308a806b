//! Instants, their text forms, and the only place that reads a clock or waits.
//!
//! Event time is `i64` milliseconds since 1970-01-01T00:00:00Z everywhere ([`Ts`]).

use std::time::Duration;

/// An instant of event time: milliseconds since the Unix epoch, UTC.
pub type Ts = i64;

pub const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59.999Z: what RFC 3339 can write.
pub const MIN_TS: Ts = -62_167_219_200_000;
pub const MAX_TS: Ts = 253_402_300_799_999;

/// Reads an RFC 3339 instant with any offset; fractions finer than a millisecond are cut off.
///
/// Returns `None` for anything else, a missing offset included. A leap second (`:60`) is read as the second
/// that follows it.
pub fn parse_rfc3339(text: &str) -> Option<Ts> {
    let b = text.as_bytes();
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || b[16] != b':' {
        return None;
    }
    if !matches!(b[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (digits(&b[0..4])?, digits(&b[5..7])?, digits(&b[8..10])?);
    let (hour, minute, second) = (digits(&b[11..13])?, digits(&b[14..16])?, digits(&b[17..19])?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (millis, rest) = fraction(&b[19..])?;
    let offset_minutes = offset(rest)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let ts = (seconds - offset_minutes * 60) * 1_000 + millis;
    (MIN_TS..=MAX_TS).contains(&ts).then_some(ts)
}

fn digits(b: &[u8]) -> Option<i64> {
    // One decision at the end instead of one per digit.
    let (mut n, mut are_digits) = (0i64, true);
    for digit in b.iter().map(|c| c.wrapping_sub(b'0')) {
        are_digits &= digit <= 9;
        n = n * 10 + i64::from(digit);
    }
    are_digits.then_some(n)
}

/// The milliseconds of an optional `.fff…`, and what follows it.
fn fraction(b: &[u8]) -> Option<(i64, &[u8])> {
    if b.first() != Some(&b'.') {
        return Some((0, b));
    }
    let len = b[1..].iter().take_while(|c| c.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let millis = (0..3).fold(0, |n, i| n * 10 + if i < len { i64::from(b[1 + i] - b'0') } else { 0 });
    Some((millis, &b[1 + len..]))
}

/// Minutes east of UTC of `Z` or `±hh:mm`, which must be all that is left.
fn offset(b: &[u8]) -> Option<i64> {
    match b {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (h, m) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let minutes = (h <= 23 && m <= 59).then_some(h * 60 + m)?;
            Some(if *sign == b'-' { -minutes } else { minutes })
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Hinnant, "chrono-compatible low-level date
/// algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// The inverse of `days_from_civil`: year, month, day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// `2026-01-02T03:04:05.678Z`, into 24 bytes on the stack. Instants outside years 0 to 9999 are clamped.
pub fn format_rfc3339(ts: Ts) -> Rfc3339 {
    let ts = ts.clamp(MIN_TS, MAX_TS);
    let (days, in_day) = (ts.div_euclid(DAY_MS), ts.rem_euclid(DAY_MS));
    let (year, month, day) = civil_from_days(days);
    let mut b = *b"0000-00-00T00:00:00.000Z";
    let mut put = |at: usize, width: usize, mut n: i64| {
        for i in (0..width).rev() {
            b[at + i] = b'0' + (n % 10) as u8;
            n /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, in_day / HOUR_MS);
    put(14, 2, in_day / MINUTE_MS % 60);
    put(17, 2, in_day / SECOND_MS % 60);
    put(20, 3, in_day % 1_000);
    Rfc3339(b)
}

/// The text of an instant; always ASCII.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rfc3339([u8; 24]);

impl Rfc3339 {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Rfc3339 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Reads a span such as `90d`, `24h`, `10m`, `30s`, `250ms`, `1w` or a sum of them (`1d12h`), in milliseconds.
///
/// Errors with a sentence for a person when the text is anything else, negative, or longer than 1,000 years.
pub fn parse_span(text: &str) -> Result<i64, String> {
    let bad = || {
        format!("`{text}` is not a span of time; write for example \"90d\", \"24h\", \"10m\" or \"250ms\"")
    };
    let (mut total, mut rest) = (0i64, text.trim());
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let number_len = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_len = rest[number_len..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let number: i64 = rest[..number_len].parse().map_err(|_| bad())?;
        let unit = match &rest[number_len..number_len + unit_len] {
            "ms" => 1,
            "s" => SECOND_MS,
            "m" | "min" => MINUTE_MS,
            "h" => HOUR_MS,
            "d" => DAY_MS,
            "w" => 7 * DAY_MS,
            _ => return Err(bad()),
        };
        total = number.checked_mul(unit).and_then(|n| n.checked_add(total)).ok_or_else(bad)?;
        rest = rest[number_len + unit_len..].trim_start();
    }
    if total > 365_250 * DAY_MS { Err(bad()) } else { Ok(total) }
}

/// The shortest single-unit text of a span: `90d`, `36h`, `1500ms`.
pub fn format_span(ms: i64) -> String {
    for (unit, name) in [(DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "m"), (SECOND_MS, "s")] {
        if ms != 0 && ms % unit == 0 {
            return format!("{}{name}", ms / unit);
        }
    }
    format!("{ms}ms")
}

/// Milliseconds since the Unix epoch by the wall clock.
#[allow(clippy::disallowed_methods)]
pub fn wall_now() -> Ts {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => since.as_millis() as Ts,
        Err(before) => -(before.duration().as_millis() as Ts),
    }
}

/// A point of the monotonic clock, for measuring intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(std::time::Instant);

impl Tick {
    #[allow(clippy::disallowed_methods)]
    pub fn now() -> Self {
        Tick(std::time::Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        Tick::now().since(self)
    }

    pub fn since(self, earlier: Tick) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    pub fn plus(self, span: Duration) -> Tick {
        Tick(self.0 + span)
    }
}

/// Blocks this thread.
#[allow(clippy::disallowed_methods)]
pub fn sleep(span: Duration) {
    std::thread::sleep(span);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_reads_offsets_and_fractions() {
        for (text, ts) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-01-02T03:04:05.678Z", Some(1_767_323_045_678)),
            ("2026-01-02T03:04:05.6Z", Some(1_767_323_045_600)),
            ("2026-01-02T03:04:05.678999+02:00", Some(1_767_323_045_678 - 2 * HOUR_MS)),
            ("2026-01-02t03:04:05-00:30", Some(1_767_323_045_000 + 30 * MINUTE_MS)),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
            ("2026-01-02T03:04:05", None),
            ("2026-02-29T00:00:00Z", None),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-02T24:00:00Z", None),
            ("2026-01-02T03:04:05.Z", None),
            ("2026-01-02T03:04:05+0200", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), ts, "{text}");
        }
    }

    #[test]
    fn formatting_is_the_inverse_of_reading() {
        for ts in [0, -1, 1, 1_767_323_045_678, MIN_TS, MAX_TS, 951_782_400_000, -2_203_891_200_000] {
            assert_eq!(parse_rfc3339(format_rfc3339(ts).as_str()), Some(ts), "{ts}");
        }
        assert_eq!(format_rfc3339(1_767_323_045_678).as_str(), "2026-01-02T03:04:05.678Z");
    }

    #[test]
    fn spans_read_and_write() {
        for (text, ms) in
            [("90d", 90 * DAY_MS), ("1d12h", 36 * HOUR_MS), ("250ms", 250), ("0", 0), ("2w", 14 * DAY_MS)]
        {
            assert_eq!(parse_span(text), Ok(ms), "{text}");
        }
        for text in ["", "90", "d", "-1d", "1y", "99999999999d", "1.5h"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
        assert_eq!(format_span(36 * HOUR_MS), "36h");
        assert_eq!(format_span(1_500), "1500ms");
    }
}
