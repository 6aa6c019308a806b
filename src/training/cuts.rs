//! The instants from which a model learns to look ahead.
//!
//! A cut is of use when its horizon lies inside the input. Left to itself the choice covers the whole input,
//! evenly, after enough history for the windows and with room for a split by time.

use std::collections::BTreeMap;

use super::{Task, examples::Skipped};
use crate::error::{Error, Result};
use crate::event::Source;
use crate::model::Model;
use crate::replay::Merged;
use crate::time::{DAY_MS, HOUR_MS, Ts, format_rfc3339, format_span};

/// More cuts than this only repeat each other.
pub const CUTS_MOST: i64 = 24;
/// Of the default catalogue: 90 days.
const LONGEST_WINDOW: Ts = 90 * DAY_MS;
/// The share of events that may lie before the first day that counts: a few wrong clocks are no history. As many at the
/// end, or one, are none either if they are that much fewer a day than in the weeks before, for so many days.
const STRAY_SHARE: f64 = 0.001;
const STRAY_DAYS_LEAST: i64 = 7;
const STRAY_RATE_MOST: f64 = 0.05;
const RATE_DAYS: i64 = 14;

/// What the input covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first event's day, but for strays.
    pub first: Ts,
    /// The last event, but for strays.
    pub last: Ts,
    /// How many were read, of whatever time.
    pub events: u64,
}

impl Span {
    /// So many events may run ahead of all others: twice as many as may lie apart.
    pub fn ahead(&self) -> usize {
        (2.0 * STRAY_SHARE * self.events as f64) as usize + 1
    }
}

/// Reads everything for its times: of what customers did, and before `until`. That something lies at or after it is all that
/// is learned of that.
pub fn span(events: &mut Merged<'_>, until: Option<Ts>, progress: &dyn Fn(u64)) -> Result<Span> {
    // By day: how many, and the last of them.
    let mut days = BTreeMap::<i64, (u64, Ts)>::new();
    let (mut known, mut count, mut beyond) = (0u64, 0u64, false);
    while let Some(line) = events.next(&mut Skipped::default())? {
        count += 1;
        if count.is_multiple_of(1_024) {
            progress(count);
        }
        let ts = line.ts();
        if !Source::ACTIVITY.contains(&line.event().source) {
            continue;
        }
        if until.is_some_and(|until| ts >= until) {
            beyond = true;
            continue;
        }
        let (events, last) = days.entry(ts.div_euclid(DAY_MS)).or_insert((0, ts));
        *events += 1;
        *last = (*last).max(ts);
        known += 1;
    }
    let stray = (known as f64 * STRAY_SHARE) as u64;
    let mut before = 0;
    let first = days.iter().find_map(|(day, (events, _))| {
        before += events;
        (before > stray).then_some(day * DAY_MS)
    });
    let (Some(first), Some(end)) = (first, end(&days, stray.max(1))) else {
        return Err(match until.filter(|_| beyond) {
            Some(until) => Error::user(format!("the input holds nothing before {}", format_rfc3339(until)))
                .hint("give a later instant with --until"),
            None => Error::user("the input holds no usable event of what customers did")
                .hint("`stagecast replay` writes what is wrong with each record to dlq.ndjson"),
        });
    };
    let last = match until {
        Some(until) if beyond => until,
        _ => end,
    };
    Ok(Span { first, last, events: count })
}

/// The last event before so many at most that lie apart: over a week and more, hardly one where there were twenty a day.
fn end(days: &BTreeMap<i64, (u64, Ts)>, stray: u64) -> Option<Ts> {
    let (last_day, (_, last)) = days.last_key_value()?;
    let (mut end, mut after) = (*last, 0);
    for (day, (events, last)) in days.iter().rev() {
        let apart = last_day - day;
        if after > 0 && apart >= STRAY_DAYS_LEAST {
            let before: u64 = days.range(day - RATE_DAYS + 1..=*day).map(|(_, (events, _))| events).sum();
            let rate = before as f64 / RATE_DAYS as f64;
            if (after as f64 / apart as f64) < STRAY_RATE_MOST * rate {
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

/// The cuts in ascending order: those asked for, or evenly spaced ones.
pub fn choose(task: &Task, span: &Span) -> Result<Vec<Ts>> {
    let cuts = if task.cuts.is_empty() { spread(task, span)? } else { usable(task, span)? };
    Ok(cuts)
}

/// Cuts for judging a model: those asked for, or evenly spaced ones that lie after everything it learned from,
/// or before all of it. Without a model nothing was learned from this input.
pub fn unseen(task: &Task, span: &Span, model: Option<&Model>) -> Result<Vec<Ts>> {
    if !task.cuts.is_empty() {
        return usable(task, span);
    }
    let last = span.last.saturating_sub(task.reach());
    let history = past(task).min((last - span.first) / 2);
    let first = match model {
        Some(model) if span.last > model.training.first_cut && model.created >= span.first => model.created,
        // It learned nothing here, or later than all of this, or before any of it: the input needs a past of its own.
        _ => span.first.saturating_add(history),
    };
    if first > last {
        let learned = model.map_or(Ts::MIN, |model| model.created);
        return Err(Error::user(format!(
            "there is no time left to judge the model on: it learned from what happened until {}, the input ends at {}, \
             and an example needs {} after it",
            format_rfc3339(learned),
            format_rfc3339(span.last),
            format_span(task.reach()),
        ))
        .hint("train with --until an earlier instant; or say --unseen if the model never saw this input"));
    }
    let steps = ((last - first) / (task.horizon / 2).max(1)).min(CUTS_MOST - 1);
    let at = |i: i64| first + ((last - first) as i128 * i128::from(i) / i128::from(steps.max(1))) as i64;
    Ok((0..=steps).map(at).collect())
}

/// Windows and rhythms need a past: as long as customers may have been silent and still be examples, or as the longest
/// window where that is enough.
fn past(task: &Task) -> Ts {
    task.horizon.max(task.active_within.min(LONGEST_WINDOW))
}

fn usable(task: &Task, span: &Span) -> Result<Vec<Ts>> {
    let inside = |cut: &Ts| *cut > span.first && cut.saturating_add(task.reach()) <= span.last;
    let mut cuts: Vec<Ts> = task.cuts.iter().copied().filter(inside).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let why = format!(
        "the input covers {} to {}, and a cut needs history before it and {} after it",
        format_rfc3339(span.first),
        format_rfc3339(span.last),
        format_span(task.reach()),
    );
    if cuts.is_empty() {
        return Err(Error::user(format!("none of the {} cuts is usable: {why}", task.cuts.len())).hint(
            format!(
                "choose cuts after {} and not after {}, or leave --cuts out",
                format_rfc3339(span.first),
                format_rfc3339(span.last.saturating_sub(task.reach()))
            ),
        ));
    }
    for cut in task.cuts.iter().filter(|cut| !cuts.contains(cut)) {
        tracing::warn!("no examples are taken at {}: {why}", format_rfc3339(*cut));
    }
    Ok(cuts)
}

/// Steps of half a horizon, wider where there would be too many. The past is shorter where two cuts a reach apart (for
/// the split) would not fit otherwise.
fn spread(task: &Task, span: &Span) -> Result<Vec<Ts>> {
    let room = span.last - span.first - task.reach();
    if room <= task.reach() {
        let lead = match task.lead {
            0 => String::new(),
            lead => format!(" and --lead {}", format_span(lead)),
        };
        return Err(Error::user(format!(
            "the input covers {}, which is too short: with --horizon {}{lead} it takes more than {}, so that the \
             model can be tried on a later time than it learned from",
            format_span((span.last - span.first) / DAY_MS * DAY_MS),
            format_span(task.horizon),
            format_span(2 * task.reach()),
        ))
        .hint("give a longer history, or a shorter --horizon"));
    }
    let history = past(task).min((room - task.reach() * 3 / 2).max((room - task.reach()) / 2));
    let (first, last) = (span.first + history, span.last - task.reach());
    let steps = ((last - first) / (task.horizon / 2).max(1)).clamp(2, CUTS_MOST - 1);
    let at = |i: i64| first + ((last - first) as i128 * i128::from(i) / i128::from(steps)) as i64;
    // Whole hours read better; times of day still differ, as they do when customers are scored.
    let whole = |ts: Ts| if task.horizon >= DAY_MS { ts.div_euclid(HOUR_MS) * HOUR_MS } else { ts };
    let mut cuts: Vec<Ts> = (0..=steps).map(|i| whole(at(i))).collect();
    cuts.dedup();
    Ok(cuts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::artifact::Label;

    fn task(horizon: i64, lead: i64, active_within: i64) -> Task {
        let [horizon, lead, active_within] = [horizon, lead, active_within].map(|days| days * DAY_MS);
        Task {
            name: "t".into(),
            label: Label::NoOrder,
            horizon,
            lead,
            active_within,
            cuts: Vec::new(),
            until: None,
            monotone: false,
        }
    }

    fn days(n: i64) -> Span {
        Span { first: 0, last: n * DAY_MS + 5, events: 1 }
    }

    #[test]
    fn cuts_cover_the_input_and_leave_room_for_history_horizon_and_a_split() {
        for n in 61..900 {
            for task in [task(30, 0, 90), task(30, 0, 400), task(20, 10, 10), task(7, 1, 30)] {
                let cuts = choose(&task, &days(n)).unwrap();
                let (first, last) = (cuts[0], cuts[cuts.len() - 1]);
                assert!(
                    cuts.is_sorted() && cuts.len() >= 3 && cuts.len() <= CUTS_MOST as usize,
                    "{n}: {cuts:?}"
                );
                assert!(first >= 0 && last + task.reach() <= days(n).last);
                assert!(last - first >= task.reach() - HOUR_MS, "{n}: a split fits");
                assert!(days(n).last - last - task.reach() <= HOUR_MS, "{n}: up to the end");
            }
        }
        assert_eq!(choose(&task(30, 0, 90), &days(540)).unwrap().len(), 24);
    }

    #[test]
    fn an_input_without_room_for_a_split_is_refused_with_the_lengths() {
        let error = choose(&task(30, 5, 90), &days(60)).unwrap_err();
        assert!(error.what.contains("covers 60d") && error.what.contains("more than 70d"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn cuts_that_were_asked_for_are_kept_where_their_horizon_is_inside_the_input() {
        let asked =
            |cuts: &[i64]| Task { cuts: cuts.iter().map(|d| d * DAY_MS).collect(), ..task(30, 0, 90) };
        assert_eq!(choose(&asked(&[70, 50, 50, 71, -3]), &days(100)).unwrap(), [50 * DAY_MS, 70 * DAY_MS]);
        let error = choose(&asked(&[71, 90]), &days(100)).unwrap_err();
        assert!(error.what.contains("none of the 2 cuts is usable"), "{error}");
        assert!(error.hint.unwrap().contains("not after 1970-03-12T00:00:00.005Z"));
    }

    #[test]
    fn a_few_events_far_behind_all_others_are_not_the_end() {
        let even = |days: i64, each: u64| (0..days).map(move |day| (day, (each, day * DAY_MS + 7)));
        let last_of =
            |days: &[(i64, (u64, Ts))], stray| end(&days.iter().copied().collect(), stray).unwrap() / DAY_MS;
        let busy: Vec<_> = even(100, 40).collect();
        assert_eq!(last_of(&busy, 4), 99);
        let with = |more: &[(i64, u64)]| {
            let more = more.iter().map(|(day, events)| (*day, (*events, day * DAY_MS)));
            busy.iter().copied().chain(more).collect::<Vec<_>>()
        };
        assert_eq!(last_of(&with(&[(400, 1)]), 4), 99);
        assert_eq!(last_of(&with(&[(101, 1), (110, 1), (113, 2)]), 4), 99);
        assert_eq!(last_of(&with(&[(110, 3), (113, 2)]), 4), 113, "five are more than may be strays");
        assert_eq!(last_of(&with(&[(103, 1)]), 4), 103, "a quiet weekend");
        let sparse: Vec<_> = (0..50).map(|week| (7 * week, (1, 7 * week * DAY_MS))).collect();
        assert_eq!(last_of(&sparse, 1), 343, "once a week is how they are");
    }
}
