//! On which days something happened: where what is told begins and ends, but for wrong clocks.
//!
//! Owns what counts as a wrong clock in hindsight: a few events, far from all others. Pure.

use std::collections::BTreeMap;

use crate::time::{DAY_MS, Ts, format_rfc3339};

/// The share of events that may lie before the first day that counts: a few wrong clocks are no history. As many at the
/// end, or one, are none either if they are that much fewer a day than in the weeks before, for so many days.
pub const STRAY_SHARE: f64 = 0.001;
const STRAY_DAYS_LEAST: i64 = 7;
const STRAY_RATE_MOST: f64 = 0.05;
const RATE_DAYS: i64 = 14;
/// With fewer events a day a pause says nothing.
const RATE_LEAST: f64 = 1.0;

/// Events by UTC day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Days {
    /// By day since 1970: how many, and the last of them.
    events: BTreeMap<i64, (u64, Ts)>,
    count: u64,
}

impl Days {
    pub fn note(&mut self, ts: Ts) {
        let (events, last) = self.events.entry(ts.div_euclid(DAY_MS)).or_insert((0, ts));
        *events += 1;
        *last = (*last).max(ts);
        self.count += 1;
    }

    fn stray(&self) -> u64 {
        (self.count as f64 * STRAY_SHARE) as u64
    }

    /// The midnight at which the first day that counts begins.
    pub fn first(&self) -> Option<Ts> {
        let mut before = 0;
        self.events.iter().find_map(|(day, (events, _))| {
            before += events;
            (before > self.stray()).then_some(day * DAY_MS)
        })
    }

    /// The last event before so few that lie apart: over a week and more, hardly one where there were twenty a day. Says so
    /// where there are any.
    pub fn end(&self) -> Option<Ts> {
        let stray = self.stray().max(1);
        let (last_day, (_, last)) = self.events.last_key_value()?;
        let (mut end, mut after) = (*last, 0);
        for (day, (events, last)) in self.events.iter().rev() {
            let apart = last_day - day;
            if after > 0 && apart >= STRAY_DAYS_LEAST {
                let around = self.events.range(day - RATE_DAYS + 1..=*day);
                let rate = around.map(|(_, (events, _))| events).sum::<u64>() as f64 / RATE_DAYS as f64;
                if rate >= RATE_LEAST && (after as f64 / apart as f64) < STRAY_RATE_MOST * rate {
                    end = *last;
                }
            }
            after += events;
            if after > stray {
                break;
            }
        }
        if end < *last {
            tracing::warn!(
                "what lies after {} is so little that it is taken for wrong clocks: the input ends there",
                format_rfc3339(end)
            );
        }
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_events_far_behind_all_others_are_not_the_end() {
        let of = |told: &[(i64, u64)]| {
            let mut days = Days::default();
            told.iter()
                .for_each(|(day, events)| (0..*events).for_each(|n| days.note(day * DAY_MS + n as Ts)));
            days.end().unwrap() / DAY_MS
        };
        let busy: Vec<_> = (0..100).map(|day| (day, 40)).collect();
        let with = |more: &[(i64, u64)]| of(&[&busy, more].concat());
        assert_eq!(of(&busy), 99);
        assert_eq!(with(&[(400, 1)]), 99);
        assert_eq!(with(&[(101, 1), (110, 1), (113, 2)]), 99, "four of four thousand");
        assert_eq!(with(&[(110, 3), (113, 2)]), 113, "five are more than may be strays");
        assert_eq!(with(&[(103, 1)]), 103, "a quiet weekend");
        let sparse: Vec<_> = (0..50).map(|week| (7 * week, 1)).collect();
        assert_eq!(of(&sparse), 343, "once a week is how they are");
        assert_eq!(of(&[(4, 2), (15, 2), (90, 1)]), 90, "so few have no rate");
    }

    #[test]
    fn a_few_events_long_before_all_others_are_not_the_beginning() {
        let mut days = Days::default();
        (0..10).for_each(|n| days.note(n));
        (0..20_000).for_each(|n| days.note((1_000 + n % 30) * DAY_MS));
        assert_eq!(days.first(), Some(1_000 * DAY_MS));
        (0..20).for_each(|n| days.note(n));
        assert_eq!(days.first(), Some(0), "thirty are a history");
        assert_eq!((Days::default().first(), Days::default().end()), (None, None));
    }
}
