//! Realistic customers with a known truth, as events in the native format and in time order.
//!
//! A customer orders at a latent rate until it drops out, at a latent hazard that bad support experiences
//! raise; sessions surround orders, tickets and refunds follow them, seasons and campaigns move everybody, and a
//! campaign brings some of the lost back ([`calendar`]). Without [`faults`] events are in time order; with them
//! they are in the order of arrival. The same settings give the same bytes on every platform. Owns no clock and,
//! but for [`files`], no IO.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::{Error, Result};
use crate::time::{DAY_MS, MAX_TS, Ts, format_rfc3339};

pub mod random;
pub mod person;
pub mod calendar;
pub mod campaign;
pub mod life;
pub mod record;
pub mod faults;
pub mod files;

pub use campaign::Campaign;
pub use faults::{FaultCounts, Faults};
pub use files::{Progress, Summary, write_files, write_simulation};
pub use person::Truth;
pub use record::Record;

use faults::Injector;
use life::Life;
use random::Random;

pub const CUSTOMERS_MOST: u64 = 9_999_999;
pub const DAYS_MOST: u32 = 36_500;
/// 2025-01-01T00:00:00Z.
pub const START: Ts = 1_735_689_600_000;
const EARLY: f64 = 0.35;
const EARLY_DAYS: f64 = 4.0;

/// What to simulate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub customers: u64,
    pub days: u32,
    pub seed: u64,
    /// The first instant; the last is `days` later.
    pub start: Ts,
    /// The share of customers who are there from the first days on; the others arrive evenly.
    pub early: f64,
    /// What goes wrong on the way.
    pub faults: Faults,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            customers: 1_000,
            days: 365,
            seed: 1,
            start: START,
            early: EARLY,
            faults: Faults::default(),
        }
    }
}

impl Settings {
    pub fn check(&self) -> Result<()> {
        if self.customers == 0 || self.customers > CUSTOMERS_MOST {
            return Err(Error::user(format!("--customers {} is not 1 to {CUSTOMERS_MOST}", self.customers)));
        }
        if self.days == 0 || self.days > DAYS_MOST {
            return Err(Error::user(format!("--days {} is not 1 to {DAYS_MOST}", self.days)));
        }
        if self.start < 0 || self.end() > MAX_TS {
            let start = format_rfc3339(self.start);
            return Err(Error::user(format!("a start at {start} is not between 1970 and 9999")));
        }
        Ok(())
    }

    /// Everything happens before this instant.
    pub fn end(&self) -> Ts {
        self.start.saturating_add(i64::from(self.days) * DAY_MS)
    }
}

/// The events of all customers, merged in time order. Holds per customer what is still to come, which is one
/// session at most and the tickets that are open, never a history.
#[derive(Debug)]
pub struct Simulation {
    end: Ts,
    seed: u64,
    /// Who arrives when, the last first.
    arrivals: Vec<(Ts, u32)>,
    lives: Vec<Option<Box<Life>>>,
    next: BinaryHeap<Reverse<(Ts, u32)>>,
    truths: Vec<Option<Truth>>,
    /// What a campaign adds, the last first.
    answers: Vec<Record>,
    way: Injector,
}

impl Simulation {
    pub fn new(settings: &Settings) -> Result<Simulation> {
        settings.check()?;
        let customers = settings.customers as u32;
        let mut random = Random::new(settings.seed, 0);
        let span = (settings.end() - settings.start) as f64;
        let mut arrival = |customer: u32| {
            let ms = match random.chance(settings.early) {
                true => random.exponential(EARLY_DAYS) * DAY_MS as f64,
                false => random.unit() * span,
            };
            (settings.start + ms.min(span - 1.0) as Ts, customer)
        };
        let mut arrivals: Vec<(Ts, u32)> = (1..=customers).map(&mut arrival).collect();
        arrivals.sort_unstable_by_key(|arrival| Reverse(*arrival));
        let mut lives = Vec::new();
        lives.resize_with(settings.customers as usize + 1, || None);
        Ok(Simulation {
            end: settings.end(),
            seed: settings.seed,
            arrivals,
            truths: vec![None; lives.len()],
            lives,
            next: BinaryHeap::new(),
            answers: Vec::new(),
            way: Injector::new(settings.faults, settings.seed),
        })
    }

    /// With the records of a [`Campaign`], which are in time order.
    pub fn answered(self, mut answers: Vec<Record>) -> Simulation {
        answers.reverse();
        Simulation { answers, ..self }
    }

    /// What was really so, by customer number; complete once the events are used up.
    pub fn truths(&self) -> impl Iterator<Item = &Truth> {
        self.truths.iter().flatten()
    }

    /// Lets everyone arrive who is due before the next thing that happens.
    fn let_arrive(&mut self) {
        while let Some((at, customer)) = self.arrivals.last().copied() {
            if self.next.peek().is_some_and(|Reverse((next, _))| *next < at) {
                return;
            }
            self.arrivals.pop();
            let life = Life::begins(self.seed, customer, at);
            self.lives[customer as usize] = Some(Box::new(life));
            self.next.push(Reverse((at, customer)));
        }
    }
}

impl Simulation {
    /// What went wrong so far.
    pub fn faults(&self) -> FaultCounts {
        self.way.counts
    }

    /// When something can happen next.
    fn next_at(&self) -> Option<Ts> {
        let life = self.next.peek().map(|Reverse((at, _))| *at);
        let arrival = self.arrivals.last().map(|(at, _)| *at);
        let answer = self.answers.last().map(|record| record.ts);
        life.into_iter().chain(arrival).chain(answer).min()
    }

    /// The next thing that really happens.
    fn happens(&mut self) -> Option<Record> {
        loop {
            self.let_arrive();
            let next = self.next.peek().map_or(Ts::MAX, |Reverse((at, _))| *at);
            if let Some(answer) = self.answers.pop_if(|record| record.ts <= next) {
                return Some(answer);
            }
            let Reverse((_, customer)) = self.next.pop()?;
            let slot = &mut self.lives[customer as usize];
            let Some(life) = slot else { continue };
            let record = life.step();
            match life.next_at().filter(|at| *at < self.end) {
                Some(at) => self.next.push(Reverse((at, customer))),
                None => {
                    self.truths[customer as usize] = Some(life.truth(self.end));
                    *slot = None;
                }
            }
            if record.is_some() {
                return record;
            }
        }
    }
}

impl Iterator for Simulation {
    type Item = Record;

    /// The next event that arrives. What is still under way at the end arrives after it.
    fn next(&mut self) -> Option<Record> {
        loop {
            // Nothing that happens from now on can arrive before the next thing that happens.
            let until = self.next_at().unwrap_or(Ts::MAX);
            if let Some(record) = self.way.arrived(until.saturating_sub(1)) {
                return Some(record);
            }
            match self.happens() {
                Some(record) => self.way.send(record),
                None => return self.way.arrived(Ts::MAX),
            }
        }
    }
}

#[cfg(test)]
mod tests;
