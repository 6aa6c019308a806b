//! The instants from which a model learns to look ahead.
//!
//! A cut is of use when its horizon lies inside the input. Left to itself the choice covers the whole input,
//! evenly, after enough history for the windows and with room for a split by time.

use super::{Task, examples::Skipped};
use crate::days::{Days, STRAY_SHARE};
use crate::error::{Error, Result};
use crate::event::Source;
use crate::model::Model;
use crate::replay::Merged;
use crate::time::{DAY_MS, HOUR_MS, Ts, format_rfc3339, format_span};

/// More cuts than this only repeat each other.
pub const CUTS_MOST: i64 = 24;
/// Of the default catalogue: 90 days.
const LONGEST_WINDOW: Ts = 90 * DAY_MS;

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
    let mut days = Days::default();
    let (mut count, mut beyond) = (0u64, false);
    let mut skipped = Skipped::default();
    while let Some(line) = events.next(&mut skipped)? {
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
        days.note(ts);
    }
    let (Some(first), Some(end)) = (days.first(), days.end()) else {
        return Err(skipped.beside(match until.filter(|_| beyond) {
            Some(until) => Error::user(format!("the input holds nothing before {}", format_rfc3339(until)))
                .hint("give a later instant with --until"),
            None => Error::user("the input holds no usable event of what customers did")
                .hint("`stagecast replay` writes what is wrong with each record to dlq.ndjson"),
        }));
    };
    let last = match until {
        Some(until) if beyond => until,
        _ => end,
    };
    Ok(Span { first, last, events: count })
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
}
