//! Key figures of a lifecycle, from the stage changes that were committed: conversion, retention, churn,
//! win-back, and how long a stage lasts. Pure: counts in, numbers out.
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
//! | CLV of a stage | the sum, and the mean, of `clv_to_date` of those who are in it, counted every 15 s |
//! | median time in a stage | of the stays that ended in the window, within 2 % |
//!
//! Each is there for all customers together and for every segment: a customer's is the value of its trait `segment`,
//! and a move counts for the segment that its customer was in when it moved.
//!
//! Which stages are customers' and which are lapsed is said in [`crate::pipeline::lifecycle::roles`]. Where prospects
//! and former customers share a stage, only the latter count as lapsed: of those who are there and of those who leave.
//!
//! The changes are those that the partitions of this instance remember ([`crate::pipeline::moves`]): restarts and
//! rebalances do not lose them. As long as none is known, every rate is `null`, since nothing was observed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::pipeline::lifecycle::Lifecycle;
use crate::pipeline::moves::{Left, Moved, Moves, WINDOW_DAYS, median_days};
use crate::pipeline::plan::Plan;
use crate::pipeline::worth::{self, StageWorth, Worth};
use crate::time::{DAY_MS, Rfc3339, Ts, format_rfc3339};

const DAY_SECONDS: f64 = 86_400.0;

/// What the key figures are about.
#[derive(Debug)]
pub struct Kpis {
    lifecycles: Vec<Observed>,
}

/// A lifecycle, and which of its stages mean what.
#[derive(Debug)]
struct Observed {
    name: String,
    stages: Vec<String>,
    lapsed: Vec<bool>,
    /// Whether only former customers count as lapsed in a lapsed stage.
    by_return: bool,
    customer: Vec<bool>,
}

/// The moves of some customers in one lifecycle.
#[derive(Debug, Default)]
struct Sum {
    /// Every pair that is known to have been passed, and how often in the window.
    passed: BTreeMap<(usize, usize), Moved>,
    /// By stage, how many stays ended after so many steps.
    stays: BTreeMap<usize, BTreeMap<u16, u64>>,
}

/// The moves of all customers in one lifecycle, and of those of each segment.
#[derive(Debug, Default)]
struct Sums {
    all: Sum,
    segments: BTreeMap<Box<str>, Sum>,
}

/// Who is in the stages of a lifecycle now.
#[derive(Clone, Copy)]
struct Present<'a> {
    customers: &'a [i64],
    worth: &'a [StageWorth],
}

/// The figures of all lifecycles.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub window_days: i64,
    /// The newest event time seen.
    pub as_of: Option<Rfc3339>,
    /// The first change that was observed, by whichever instance: a window that reaches further back holds only
    /// what came after. `None`: none was, and no rate is known.
    pub observed_since: Option<Rfc3339>,
    pub lifecycles: Vec<LifecycleKpis>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LifecycleKpis {
    pub lifecycle: String,
    pub customer_stages: Vec<String>,
    pub lapsed_stages: Vec<String>,
    #[serde(flatten)]
    pub all: Figures,
    pub segments: Vec<SegmentKpis>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentKpis {
    pub segment: String,
    #[serde(flatten)]
    pub figures: Figures,
}

/// Of some customers, in one lifecycle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    pub churn_rate: Option<f64>,
    pub retention_rate: Option<f64>,
    pub win_back_rate: Option<f64>,
    pub conversions: Vec<Conversion>,
    pub stages: Vec<StageKpis>,
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
        Kpis { lifecycles: plan.lifecycles.iter().map(|(lifecycle, _)| Observed::new(lifecycle)).collect() }
    }

    /// `moves`: of each partition; `now`: how far event time has come; `customers`: how many are in each stage of
    /// each lifecycle now; `worth`: what they have brought in.
    pub fn report(&self, moves: &[Moves], now: Option<Ts>, customers: &[Vec<i64>], worth: &Worth) -> Report {
        let since = moves.iter().filter_map(Moves::since).min();
        let last_day =
            moves.iter().filter_map(Moves::newest_day).max().max(now.map(|now| now.div_euclid(DAY_MS)));
        let sums = self.sum(moves, last_day.map_or(0, |day| day - WINDOW_DAYS + 1));
        let lifecycles = self.lifecycles.iter().zip(&sums).enumerate().map(|(k, (observed, sums))| {
            let customers = customers.get(k).map_or(&[][..], Vec::as_slice);
            let present = Present { customers, worth: of_lifecycle(&worth.all, k) };
            let is_known = since.is_some();
            LifecycleKpis {
                lifecycle: observed.name.clone(),
                customer_stages: observed.names(&observed.customer),
                lapsed_stages: observed.names(&observed.lapsed),
                all: observed.figures(&sums.all, present, is_known),
                segments: observed.segments(k, sums, worth, is_known),
            }
        });
        let lifecycles = lifecycles.collect();
        let (as_of, observed_since) = (now.map(format_rfc3339), since.map(format_rfc3339));
        Report { window_days: WINDOW_DAYS, as_of, observed_since, lifecycles }
    }

    /// By lifecycle. What was counted of lifecycles and stages that are defined no more has no place here.
    fn sum(&self, moves: &[Moves], first_day: i64) -> Vec<Sums> {
        let mut sums: Vec<Sums> = self.lifecycles.iter().map(|_| Sums::default()).collect();
        for (day, place, left) in moves.iter().flat_map(Moves::counts) {
            let lifecycles = self.lifecycles.iter().zip(&mut sums);
            let Some((observed, sums)) = lifecycles.into_iter().find(|(o, _)| o.name == place.lifecycle)
            else {
                continue;
            };
            let Some(from) = observed.stage(place.from) else { continue };
            let is_recent = day >= first_day;
            sums.all.add(observed, from, left, is_recent);
            if !place.segment.is_empty() {
                let segment = worth::told_apart(&mut sums.segments, place.segment);
                segment.add(observed, from, left, is_recent);
            }
        }
        sums
    }
}

impl Sum {
    fn add(&mut self, observed: &Observed, from: usize, left: &Left, is_recent: bool) {
        for (to, moved) in left.to() {
            let Some(to) = observed.stage(to) else { continue };
            let sum = self.passed.entry((from, to)).or_default();
            if is_recent {
                sum.add(moved);
            }
        }
        if is_recent {
            let stays = self.stays.entry(from).or_default();
            left.stays().iter().for_each(|(steps, n)| *stays.entry(*steps).or_default() += n);
        }
    }
}

impl Observed {
    fn new(lifecycle: &Lifecycle) -> Observed {
        let (stages, roles) = (lifecycle.stages(), lifecycle.roles());
        Observed {
            name: lifecycle.name.to_string(),
            stages: stages.iter().map(|stage| stage.name.to_string()).collect(),
            lapsed: (0..stages.len()).map(|k| roles.is_lapsed(k)).collect(),
            by_return: roles.by_return,
            customer: (0..stages.len()).map(|k| roles.is_customer(k)).collect(),
        }
    }

    fn stage(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage == name)
    }

    /// Of every segment that somebody is in, or has moved in.
    fn segments(&self, k: usize, sums: &Sums, worth: &Worth, is_known: bool) -> Vec<SegmentKpis> {
        let (nothing, nobody) = (Sum::default(), Vec::new());
        let names: BTreeSet<_> = worth.segments.keys().chain(sums.segments.keys()).collect();
        let of = |segment: &str| {
            let worth = of_lifecycle(worth.segments.get(segment).unwrap_or(&nobody), k);
            let customers: Vec<i64> = worth.iter().map(|stage| stage.customers as i64).collect();
            let moves = sums.segments.get(segment).unwrap_or(&nothing);
            let figures = self.figures(moves, Present { customers: &customers, worth }, is_known);
            SegmentKpis { segment: segment.to_owned(), figures }
        };
        names.into_iter().map(|segment| of(segment)).collect()
    }

    /// `is_known`: whether any move was ever observed.
    fn figures(&self, of: &Sum, present: Present<'_>, is_known: bool) -> Figures {
        let Present { customers, worth } = present;
        let now = |stage: usize| customers.get(stage).copied().unwrap_or(0);
        let sum = |picked: &dyn Fn(usize, usize) -> bool, n: fn(&Moved) -> u64| -> u64 {
            of.passed.iter().filter(|((from, to), _)| picked(*from, *to)).map(|(_, moved)| n(moved)).sum()
        };
        let all: fn(&Moved) -> u64 = |moved| moved.all;
        let rate = |part: u64, whole: u64| rate(part, whole).filter(|_| is_known);
        // Everyone who was in these stages: those who are, and those who went out of them.
        let were_in = |inside: &dyn Fn(usize) -> bool| {
            let are: i64 = (0..self.stages.len()).filter(|s| inside(*s)).map(now).sum();
            are.max(0) as u64 + sum(&|from, to| inside(from) && !inside(to), all)
        };
        let (customer, lapsed) = (|s: usize| self.customer[s], |s: usize| self.lapsed[s]);
        let churn_rate = rate(sum(&|from, to| customer(from) && lapsed(to), all), were_in(&customer));
        let won_back = |n| sum(&|from, to| lapsed(from) && customer(to), n);
        let win_back_rate = if self.by_return {
            let returned: fn(&Moved) -> u64 = |moved| moved.returned;
            let are = worth.iter().zip(&self.lapsed).filter(|(_, lapsed)| **lapsed);
            let are: u64 = are.map(|(stage, _)| stage.returned).sum();
            rate(won_back(returned), are + sum(&|from, to| lapsed(from) && !lapsed(to), returned))
        } else {
            rate(won_back(all), were_in(&lapsed))
        };
        let conversion = |((from, to), moved): (&(usize, usize), &Moved)| Conversion {
            from: self.stages[*from].clone(),
            to: self.stages[*to].clone(),
            moves: moved.all,
            rate: rate(moved.all, were_in(&|s| s == *from)),
        };
        let stage = |s: usize| StageKpis {
            stage: self.stages[s].clone(),
            customers: now(s),
            entered: sum(&|_, to| to == s, all),
            left: sum(&|from, _| from == s, all),
            median_days: of.stays.get(&s).and_then(median_days),
            clv_to_date: worth.get(s).map_or(0.0, StageWorth::clv_to_date),
            mean_clv_to_date: worth.get(s).and_then(StageWorth::mean_clv_to_date),
        };
        Figures {
            churn_rate,
            retention_rate: churn_rate.map(|churn| 1.0 - churn),
            win_back_rate,
            conversions: of.passed.iter().map(conversion).collect(),
            stages: (0..self.stages.len()).map(stage).collect(),
        }
    }

    fn names(&self, picked: &[bool]) -> Vec<String> {
        self.stages.iter().zip(picked).filter(|(_, p)| **p).map(|(s, _)| s.clone()).collect()
    }
}

/// By stage; of a lifecycle that nobody was counted in, nothing.
fn of_lifecycle(stages: &[Vec<StageWorth>], k: usize) -> &[StageWorth] {
    stages.get(k).map_or(&[], Vec::as_slice)
}

fn rate(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
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
pub(crate) mod tests {
    use super::*;
    use crate::config::Config;
    use crate::pipeline::catalogue::Catalogue;
    use crate::pipeline::lifecycle::preset;
    use crate::pipeline::moves::{Passage, Place, Traffic};
    use crate::pipeline::plan::Settings;

    /// Moves within the lifecycle `retention`: from, to, segment, UTC day.
    pub(crate) fn moves(passages: &[(&str, &str, &str, i64)]) -> Moves {
        let mut traffic = Traffic::new(true);
        for (from, to, segment, day) in passages {
            let place = Place { lifecycle: "retention", segment, from };
            traffic.count(&Passage { place, to, returned: false, stage_days: 2.0, at: day * DAY_MS + 1 });
        }
        traffic.commit();
        traffic.moves().clone()
    }

    /// The preset: 0 loyalty, 1 retention, 2 conversion, 3 win-back, 4 acquisition, 5 reach.
    fn kpis() -> Kpis {
        Kpis::new(&crate::setup::plan(&Config::default(), None).unwrap())
    }

    fn of_all(moves: Moves, now: Option<Ts>, customers: [i64; 6]) -> LifecycleKpis {
        kpis().report(&[moves], now, &[customers.to_vec()], &Worth::default()).lifecycles.remove(0)
    }

    #[test]
    fn rates_follow_their_definitions() {
        let passages = [
            vec![("retention", "win-back", "", 100); 2],
            vec![("loyalty", "retention", "", 100)],
            vec![("win-back", "retention", "", 100)],
            vec![("acquisition", "conversion", "", 100); 3],
        ];
        let LifecycleKpis { customer_stages, lapsed_stages, all: found, .. } =
            of_all(moves(&passages.concat()), None, [1, 4, 3, 2, 9, 20]);
        assert_eq!(customer_stages, ["loyalty", "retention", "conversion"]);
        assert_eq!(lapsed_stages, ["win-back"]);
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
    fn a_segment_has_the_figures_of_its_customers_alone() {
        let lapses = |segment: &'static str, n| vec![("retention", "win-back", segment, 100); n];
        let moves = moves(&[lapses("smb", 1), lapses("vip", 3), lapses("", 5)].concat());
        // Three of smb's are in retention; of vip nobody is left.
        let there = StageWorth { customers: 3, ..StageWorth::default() };
        let stages = vec![vec![StageWorth::default(), there]];
        let worth = Worth { all: Vec::new(), segments: [("smb".into(), stages)].into() };
        let report = kpis().report(&[moves], None, &[vec![0, 3, 0, 9, 0, 0]], &worth).lifecycles.remove(0);
        let rates: Vec<_> =
            report.segments.iter().map(|s| (s.segment.as_str(), s.figures.churn_rate)).collect();
        assert_eq!(rates, [("smb", Some(0.25)), ("vip", Some(1.0))]);
        assert_eq!(report.all.churn_rate, Some(9.0 / 12.0));
        assert_eq!(report.segments[1].figures.conversions[0].moves, 3);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["segments"][0]["stages"][1]["customers"], 3);
        assert_eq!(json["stages"][1]["left"], 9);
    }

    #[test]
    fn partitions_add_up() {
        let one = moves(&[("retention", "win-back", "smb", 100), ("win-back", "retention", "", 90)]);
        let other = moves(&[("retention", "win-back", "smb", 101)]);
        let report = kpis().report(&[one, other], None, &[vec![0, 2, 0, 1, 0, 0]], &Worth::default());
        assert_eq!(report.lifecycles[0].all.churn_rate, Some(0.5));
        assert_eq!(report.lifecycles[0].segments[0].figures.conversions[0].moves, 2);
        assert_eq!(report.observed_since, Some(format_rfc3339(90 * DAY_MS + 1)));
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more() {
        let on = |day: i64| {
            let lapsed = moves(&[("retention", "win-back", "", 100)]);
            of_all(lapsed, Some(day * DAY_MS), [0, 3, 0, 1, 0, 0]).all
        };
        assert_eq!(on(100 + WINDOW_DAYS - 1).churn_rate, Some(0.25));
        let after = on(100 + WINDOW_DAYS);
        assert_eq!((after.churn_rate, after.conversions[0].moves), (Some(0.0), 0));
        assert_eq!(after.stages[1].median_days, None);
    }

    #[test]
    fn no_rate_is_made_of_nobody_or_of_nothing_observed() {
        let found = of_all(Moves::default(), None, [0; 6]).all;
        assert_eq!((found.churn_rate, found.win_back_rate), (None, None));
        assert!(found.conversions.is_empty() && found.stages.iter().all(|s| s.median_days.is_none()));
        let known = Some(100 * DAY_MS);
        let found = of_all(Moves::default(), known, [5; 6]).all;
        assert_eq!((found.churn_rate, found.retention_rate, found.win_back_rate), (None, None, None));
        let report = kpis().report(&[Moves::default()], None, &[], &Worth::default());
        assert_eq!((report.as_of, report.observed_since), (None, None));
        let found = of_all(moves(&[("reach", "acquisition", "", 100)]), known, [5; 6]).all;
        assert_eq!(
            (found.churn_rate, found.retention_rate, found.win_back_rate),
            (Some(0.0), Some(1.0), Some(0.0))
        );
    }

    #[test]
    fn moves_of_stages_that_are_defined_no_more_are_left_out_and_the_rest_stays() {
        let known =
            [("retention", "win-back", "", 100), ("old", "win-back", "", 100), ("retention", "old", "", 100)];
        let found = of_all(moves(&known), None, [0, 1, 0, 1, 0, 0]).all;
        assert_eq!((found.conversions.len(), found.churn_rate), (1, Some(0.5)));
        assert_eq!((found.stages[1].left, found.stages[3].entered), (1, 1));
    }

    /// Which stages of the presets mean what; `null` everywhere would be no figure at all.
    #[test]
    fn every_preset_says_who_is_a_customer_and_who_has_lapsed() {
        for (name, customers, lapsed) in [
            ("retention", &["loyalty", "retention", "conversion"][..], &["win-back"][..]),
            ("aida", &["action", "desire", "interest"], &["awareness"]),
            ("cyclic", &["advocacy", "loyalty", "retention", "development"], &["acquisition"]),
            ("advocacy", &["advocacy", "retention", "purchase"], &["consideration", "awareness"]),
            ("b2b-meddic", &["advocacy", "retention", "purchase"], &["consideration", "awareness"]),
        ] {
            let kpis = of_preset(name);
            let observed = &kpis.lifecycles[0];
            let found = (observed.names(&observed.customer), observed.names(&observed.lapsed));
            assert_eq!(
                (found.0.len(), &found.1[..]),
                (customers.len(), &lapsed.iter().map(|s| s.to_string()).collect::<Vec<_>>()[..]),
                "{name}"
            );
            assert!(
                customers.iter().all(|stage| found.0.iter().any(|known| known == stage)),
                "{name}: {found:?}"
            );
        }
        for name in ["value", "reengagement", "matrix"] {
            let kpis = of_preset(name);
            let of = &kpis.lifecycles[0];
            assert!(of.customer.contains(&true) && of.lapsed.contains(&true), "{name}: {of:?}");
        }
    }

    fn of_preset(name: &str) -> Kpis {
        let catalogue = Catalogue::shipped();
        let model = crate::model::Model::of_one_term("clicks_7d", &catalogue);
        let lifecycle = (format!("{name}.toml"), preset(name).unwrap().to_owned());
        Kpis::new(&Plan::new(&catalogue, &[lifecycle], &model, Settings::default()).unwrap())
    }

    #[test]
    fn where_no_stage_is_named_as_lapsed_those_have_lapsed_who_came_back_to_the_initial_one() {
        let kpis = of_preset("cyclic");
        let mut traffic = Traffic::new(true);
        for (from, to, returned, n) in [
            ("acquisition", "development", false, 7),
            ("acquisition", "development", true, 1),
            ("development", "acquisition", false, 4),
        ] {
            let place = Place { lifecycle: "cyclic", segment: "", from };
            (0..n).for_each(|_| traffic.count(&Passage { place, to, returned, stage_days: 1.0, at: 0 }));
        }
        let initial = kpis.lifecycles[0].stage("acquisition").unwrap();
        let development = kpis.lifecycles[0].stage("development").unwrap();
        let (mut customers, mut stages) = (vec![0; 5], vec![StageWorth::default(); 5]);
        // A hundred who never bought, three who lapsed and four who are customers.
        (customers[initial], customers[development]) = (103, 4);
        stages[initial].returned = 3;
        let worth = Worth { all: vec![stages], ..Worth::default() };
        let report = kpis.report(&[traffic.moves().clone()], None, &[customers], &worth);
        let found = &report.lifecycles[0].all;
        assert_eq!((found.churn_rate, found.win_back_rate), (Some(0.5), Some(0.25)));
    }
}
