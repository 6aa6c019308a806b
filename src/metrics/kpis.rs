//! Key figures of a lifecycle, from the stage changes that were committed: conversion, retention, churn,
//! win-back, and how long a stage lasts. Pure: observations in, numbers out.
//!
//! All rates are over the last [`WINDOW_DAYS`] days of event time, and all have the same denominator: everyone
//! who was in the stages concerned at some time of the window, which is those who are in them now and those who
//! left them meanwhile. So every rate lies between 0 and 1, whatever the customers do, and needs nothing but
//! the changes and the stages of now.
//!
//! | figure | definition |
//! |---|---|
//! | conversion from a to b | moves from a to b / everyone who was in a |
//! | churn rate | moves from a customer's stage to a lapsed one / everyone who was in a customer's stage |
//! | retention rate | 1 − churn rate |
//! | win-back rate | moves from a lapsed stage to a customer's stage / everyone who was in a lapsed stage |
//! | CLV of a stage | the sum, and the mean, of `clv_to_date` of those who are in it, by segment too; counted every 15 s |
//! | median time in a stage | of the stays that ended since observation began, within 2 % |
//!
//! A stage counts as lapsed by its name ([`LAPSED`]). A customer's stages are those that a lapsed stage can be
//! entered from (`from`), or, where it does not say, all but the initial and the lapsed ones.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::pipeline::lifecycle::Lifecycle;
use crate::pipeline::plan::Plan;
use crate::pipeline::worth::{StageWorth, Worth};
use crate::time::{DAY_MS, Rfc3339, Ts, format_rfc3339, parse_rfc3339};

pub const WINDOW_DAYS: i64 = 30;
/// Stages whose customers have gone, by name.
pub const LAPSED: [&str; 8] =
    ["win-back", "lapsed", "defected", "churned", "lost", "dormant", "inactive", "gone"];
/// Stays are counted in steps of this factor.
const STEP: f64 = 1.02;
const DAY_SECONDS: f64 = 86_400.0;

/// What is observed of one process's customers.
#[derive(Debug)]
pub struct Kpis {
    lifecycles: Vec<Observed>,
    since: Option<Ts>,
    now: Ts,
}

#[derive(Debug)]
struct Observed {
    name: String,
    stages: Vec<String>,
    lapsed: Vec<bool>,
    customer: Vec<bool>,
    /// By UTC day, how often each pair of stages was passed.
    days: BTreeMap<i64, BTreeMap<(usize, usize), u64>>,
    /// Every pair that was ever passed: its rate falls to 0, it does not vanish.
    passed: BTreeSet<(usize, usize)>,
    /// By stage, how many stays ended after so many steps.
    stays: Vec<BTreeMap<u16, u64>>,
}

/// What a stage change says that matters here.
#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    lifecycle: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    from: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    to: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    ts: std::borrow::Cow<'a, str>,
    stage_days: Option<f64>,
}

/// The figures of all lifecycles.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub window_days: i64,
    /// The newest event time seen.
    pub as_of: Option<Rfc3339>,
    /// The first change that was observed: a window that reaches further back holds only what came after.
    pub observed_since: Option<Rfc3339>,
    pub lifecycles: Vec<LifecycleKpis>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LifecycleKpis {
    pub lifecycle: String,
    pub customer_stages: Vec<String>,
    pub lapsed_stages: Vec<String>,
    pub churn_rate: Option<f64>,
    pub retention_rate: Option<f64>,
    pub win_back_rate: Option<f64>,
    pub conversions: Vec<Conversion>,
    pub stages: Vec<StageKpis>,
    /// By the value of the customers' trait `segment`.
    pub segments: Vec<SegmentKpis>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentKpis {
    pub segment: String,
    pub stages: Vec<SegmentStage>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentStage {
    pub stage: String,
    pub customers: u64,
    pub clv_to_date: f64,
    pub mean_clv_to_date: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conversion {
    pub from: String,
    pub to: String,
    pub moves: u64,
    /// `null` while nobody was there to convert.
    pub rate: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageKpis {
    pub stage: String,
    pub customers: i64,
    pub entered: u64,
    pub left: u64,
    pub median_days: Option<f64>,
    /// What its customers have brought in, and per customer, as of the last count.
    pub clv_to_date: f64,
    pub mean_clv_to_date: Option<f64>,
}

impl Kpis {
    pub fn new(plan: &Plan) -> Kpis {
        let lifecycles = plan.lifecycles.iter().map(|(lifecycle, _)| Observed::new(lifecycle)).collect();
        Kpis { lifecycles, since: None, now: Ts::MIN }
    }

    /// Takes in the JSON of a stage change that is committed.
    pub fn observe(&mut self, json: &[u8]) {
        let Ok(change) = serde_json::from_slice::<Change<'_>>(json) else { return };
        let Some(ts) = parse_rfc3339(&change.ts) else { return };
        let Some(observed) = self.lifecycles.iter_mut().find(|o| o.name == change.lifecycle) else { return };
        let (Some(from), Some(to)) = (observed.stage(&change.from), observed.stage(&change.to)) else {
            return;
        };
        self.since = Some(self.since.map_or(ts, |since| since.min(ts)));
        self.now = self.now.max(ts);
        observed.passed.insert((from, to));
        *observed.days.entry(ts.div_euclid(DAY_MS)).or_default().entry((from, to)).or_default() += 1;
        if let Some(days) = change.stage_days.filter(|days| days.is_finite() && *days >= 0.0) {
            *observed.stays[from].entry(steps(days)).or_default() += 1;
        }
    }

    /// Time has come so far, changes or not.
    pub fn set_now(&mut self, now: Ts) {
        self.now = self.now.max(now);
        let first = self.first_day();
        self.lifecycles.iter_mut().for_each(|o| o.days = o.days.split_off(&first));
    }

    fn first_day(&self) -> i64 {
        self.now.div_euclid(DAY_MS) - WINDOW_DAYS + 1
    }

    /// `customers`: how many are in each stage of each lifecycle now; `worth`: what they have brought in.
    pub fn report(&self, customers: &[Vec<i64>], worth: &Worth) -> Report {
        let none = Vec::new();
        let of = |k: usize| customers.get(k).unwrap_or(&none);
        let first = self.first_day();
        let lifecycles = self.lifecycles.iter().enumerate();
        let lifecycles = lifecycles.map(|(k, o)| LifecycleKpis {
            segments: o.segments(k, worth),
            ..o.report(first, of(k), worth.all.get(k).map_or(&[], |stages| stages))
        });
        let lifecycles = lifecycles.collect();
        let as_of = (self.now != Ts::MIN).then(|| format_rfc3339(self.now));
        let observed_since = self.since.map(format_rfc3339);
        Report { window_days: WINDOW_DAYS, as_of, observed_since, lifecycles }
    }
}

impl Observed {
    fn new(lifecycle: &Lifecycle) -> Observed {
        let stages: Vec<String> = lifecycle.stages().iter().map(|s| s.name.to_string()).collect();
        let lapsed: Vec<bool> = stages.iter().map(|s| LAPSED.contains(&s.as_str())).collect();
        let gates: Vec<_> =
            lifecycle.stages().iter().zip(&lapsed).filter(|(_, l)| **l).map(|(s, _)| &s.from).collect();
        let is_customer = |k: usize| {
            let named = |from: &Option<Box<[Box<str>]>>| match from {
                Some(from) => from.iter().any(|name| **name == *stages[k]),
                None => k != usize::from(lifecycle.initial),
            };
            !lapsed[k] && gates.iter().any(|from| named(from))
        };
        Observed {
            name: lifecycle.name.to_string(),
            customer: (0..stages.len()).map(is_customer).collect(),
            stays: vec![BTreeMap::new(); stages.len()],
            days: BTreeMap::new(),
            passed: BTreeSet::new(),
            lapsed,
            stages,
        }
    }

    fn stage(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage == name)
    }

    fn segments(&self, k: usize, worth: &Worth) -> Vec<SegmentKpis> {
        let of_segment = |(segment, stages): (&Box<str>, &Vec<Vec<StageWorth>>)| {
            let of = |s: usize| stages.get(k).and_then(|stages| stages.get(s)).copied().unwrap_or_default();
            let stage = |(s, stage): (usize, &String)| SegmentStage {
                stage: stage.clone(),
                customers: of(s).customers,
                clv_to_date: of(s).clv_to_date(),
                mean_clv_to_date: of(s).mean_clv_to_date(),
            };
            SegmentKpis {
                segment: segment.to_string(),
                stages: self.stages.iter().enumerate().map(stage).collect(),
            }
        };
        worth.segments.iter().map(of_segment).collect()
    }

    fn report(&self, first_day: i64, customers: &[i64], worth: &[StageWorth]) -> LifecycleKpis {
        let mut moves: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for (pair, n) in self.days.range(first_day..).flat_map(|(_, day)| day) {
            *moves.entry(*pair).or_default() += n;
        }
        let now = |stage: usize| customers.get(stage).copied().unwrap_or(0);
        let sum = |picked: &dyn Fn(usize, usize) -> bool| -> u64 {
            moves.iter().filter(|((from, to), _)| picked(*from, *to)).map(|(_, n)| n).sum()
        };
        // Everyone who was in these stages: those who are, and those who went out of them.
        let were_in = |inside: &dyn Fn(usize) -> bool| {
            let are: i64 = (0..self.stages.len()).filter(|s| inside(*s)).map(now).sum();
            are.max(0) as u64 + sum(&|from, to| inside(from) && !inside(to))
        };
        let (customer, lapsed) = (|s: usize| self.customer[s], |s: usize| self.lapsed[s]);
        let churn_rate = rate(sum(&|from, to| customer(from) && lapsed(to)), were_in(&customer));
        let conversion = |(from, to): &(usize, usize)| {
            let n = moves.get(&(*from, *to)).copied().unwrap_or(0);
            Conversion {
                from: self.stages[*from].clone(),
                to: self.stages[*to].clone(),
                moves: n,
                rate: rate(n, were_in(&|s| s == *from)),
            }
        };
        let stage = |s: usize| StageKpis {
            stage: self.stages[s].clone(),
            customers: now(s),
            entered: sum(&|_, to| to == s),
            left: sum(&|from, _| from == s),
            median_days: median_days(&self.stays[s]),
            clv_to_date: worth.get(s).map_or(0.0, StageWorth::clv_to_date),
            mean_clv_to_date: worth.get(s).and_then(StageWorth::mean_clv_to_date),
        };
        LifecycleKpis {
            lifecycle: self.name.clone(),
            customer_stages: self.names(&self.customer),
            lapsed_stages: self.names(&self.lapsed),
            churn_rate,
            retention_rate: churn_rate.map(|churn| 1.0 - churn),
            win_back_rate: rate(sum(&|from, to| lapsed(from) && customer(to)), were_in(&lapsed)),
            conversions: self.passed.iter().map(conversion).collect(),
            stages: (0..self.stages.len()).map(stage).collect(),
            segments: Vec::new(),
        }
    }

    fn names(&self, picked: &[bool]) -> Vec<String> {
        self.stages.iter().zip(picked).filter(|(_, p)| **p).map(|(s, _)| s.clone()).collect()
    }
}

fn rate(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A stay in steps of [`STEP`], beginning at one minute.
fn steps(days: f64) -> u16 {
    let minutes = (days * 1_440.0).max(1.0);
    (minutes.ln() / STEP.ln()).round() as u16
}

fn median_days(stays: &BTreeMap<u16, u64>) -> Option<f64> {
    let total: u64 = stays.values().sum();
    let mut seen = 0;
    let middle = stays.iter().find(|(_, n)| {
        seen += *n;
        seen * 2 >= total
    });
    middle.map(|(steps, _)| STEP.powi(i32::from(*steps)) / 1_440.0)
}

/// A rate as a gauge shows it: one that does not exist is no number.
pub fn or_nan(rate: Option<f64>) -> f64 {
    rate.unwrap_or(f64::NAN)
}

/// Days as a gauge shows them.
pub fn seconds(days: Option<f64>) -> f64 {
    or_nan(days.map(|days| days * DAY_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The preset: 0 loyalty, 1 retention, 2 conversion, 3 win-back, 4 acquisition, 5 reach.
    fn kpis() -> Kpis {
        Kpis::new(&crate::setup::plan(&Config::default(), None).unwrap())
    }

    fn change(from: &str, to: &str, day: i64, stage_days: f64) -> String {
        let ts = format_rfc3339(day * DAY_MS + 1);
        format!(
            r#"{{"customer_id":"c","lifecycle":"retention","from":"{from}","to":"{to}","ts":"{ts}","stage_days":{stage_days}}}"#
        )
    }

    fn of(kpis: &Kpis, customers: [i64; 6]) -> LifecycleKpis {
        kpis.report(&[customers.to_vec()], &Worth::default()).lifecycles.remove(0)
    }

    #[test]
    fn rates_follow_their_definitions() {
        let mut kpis = kpis();
        for (from, to, n) in [
            ("retention", "win-back", 2),
            ("loyalty", "retention", 1),
            ("win-back", "retention", 1),
            ("acquisition", "conversion", 3),
        ] {
            (0..n).for_each(|_| kpis.observe(change(from, to, 100, 2.0).as_bytes()));
        }
        let found = of(&kpis, [1, 4, 3, 2, 9, 20]);
        assert_eq!(found.customer_stages, ["loyalty", "retention", "conversion"]);
        assert_eq!(found.lapsed_stages, ["win-back"]);
        // Eight are customers, two lapsed.
        assert_eq!((found.churn_rate, found.retention_rate), (Some(0.2), Some(0.8)));
        // Two are lapsed, one came back.
        assert_eq!(found.win_back_rate, Some(1.0 / 3.0));
        let conversion = found.conversions.iter().find(|c| c.from == "acquisition").unwrap();
        assert_eq!((conversion.moves, conversion.rate), (3, Some(0.25)));
        let retention = found.stages.iter().find(|s| s.stage == "retention").unwrap();
        assert_eq!((retention.entered, retention.left, retention.customers), (2, 2, 4));
        assert!((retention.median_days.unwrap() - 2.0).abs() < 0.04, "{retention:?}");
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more() {
        let mut kpis = kpis();
        kpis.observe(change("retention", "win-back", 100, 1.0).as_bytes());
        kpis.set_now((100 + WINDOW_DAYS - 1) * DAY_MS);
        assert_eq!(of(&kpis, [0, 3, 0, 1, 0, 0]).churn_rate, Some(0.25));
        kpis.set_now((100 + WINDOW_DAYS) * DAY_MS);
        assert_eq!(of(&kpis, [0, 3, 0, 1, 0, 0]).churn_rate, Some(0.0));
    }

    #[test]
    fn no_rate_is_made_of_nobody() {
        let found = of(&kpis(), [0; 6]);
        assert_eq!((found.churn_rate, found.win_back_rate), (None, None));
        assert!(found.conversions.is_empty() && found.stages.iter().all(|s| s.median_days.is_none()));
        assert_eq!(kpis().report(&[], &Worth::default()).as_of, None);
    }

    #[test]
    fn what_is_no_stage_change_is_passed_over() {
        let mut kpis = kpis();
        for json in ["", "{}", &change("reach", "nowhere", 1, 1.0), &change("reach", "reach", 1, -1.0)] {
            kpis.observe(json.as_bytes());
        }
        assert!(of(&kpis, [0; 6]).stages.iter().all(|s| s.median_days.is_none()));
    }

    #[test]
    fn a_median_is_right_within_two_percent() {
        for days in [0.001, 0.5, 1.0, 45.0, 400.0, 36_500.0] {
            let stays = BTreeMap::from([(steps(days), 3)]);
            assert!((median_days(&stays).unwrap() / days - 1.0).abs() < 0.02, "{days}");
        }
    }
}
