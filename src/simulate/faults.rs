//! What goes wrong on the way from a customer to a topic, on request: `duplicates=0.01,late=0.01`.
//!
//! A fault never changes what really happened: a late event is the same event, later; a duplicate, a malformed
//! record and one from the future are copies beside the true one. Each share is of the true events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;

use super::random::Random;
use super::record::Record;
use crate::error::did_you_mean;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Ts, format_rfc3339};

/// The shares, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Comes a second time, minutes later, with the same id.
    pub duplicates: f64,
    /// Comes hours or days late.
    pub late: f64,
    /// Comes some seconds late, behind others.
    pub disorder: f64,
    /// A copy that cannot be read.
    pub malformed: f64,
    /// A copy from a clock that runs days ahead.
    pub future: f64,
}

/// How many of each there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultCounts {
    pub duplicates: u64,
    pub late: u64,
    pub disorder: u64,
    pub malformed: u64,
    pub future: u64,
}

const NAMES: [&str; 5] = ["duplicates", "late", "disorder", "malformed", "future"];

impl std::str::FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Faults, String> {
        let mut faults = Faults::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, share) =
                part.split_once('=').ok_or(format!("`{part}` has no share; write {part}=0.01"))?;
            let share = share.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            let share = share.ok_or(format!("the share of `{name}` is not between 0 and 1"))?;
            match name.trim() {
                "duplicates" => faults.duplicates = share,
                "late" => faults.late = share,
                "disorder" => faults.disorder = share,
                "malformed" => faults.malformed = share,
                "future" => faults.future = share,
                other => {
                    let near = did_you_mean(other, NAMES);
                    return Err(format!("there is no fault `{other}`{near}; there are {}", NAMES.join(", ")));
                }
            }
        }
        Ok(faults)
    }
}

/// Takes events in the order in which they happen and gives them in the order in which they arrive.
#[derive(Debug)]
pub struct Injector {
    faults: Faults,
    random: Random,
    held: BinaryHeap<Reverse<Held>>,
    count: u64,
    pub counts: FaultCounts,
}

/// An event under way.
#[derive(Debug)]
struct Held {
    arrives: Ts,
    /// Breaks ties by the order of sending.
    number: u64,
    record: Record,
}

impl Injector {
    pub fn new(faults: Faults, seed: u64) -> Injector {
        let random = Random::new(seed, u64::MAX);
        Injector { faults, random, held: BinaryHeap::new(), count: 0, counts: FaultCounts::default() }
    }

    /// Sends an event off, and what goes wrong with it.
    pub fn send(&mut self, record: Record) {
        let now = record.ts;
        if self.random.chance(self.faults.duplicates) {
            self.counts.duplicates += 1;
            let arrives = now + self.delay(10.0 * MINUTE_MS as f64);
            self.hold(arrives, record.clone());
        }
        if self.random.chance(self.faults.malformed) {
            self.counts.malformed += 1;
            let broken = self.broken(&record);
            self.hold(now, broken);
        }
        if self.random.chance(self.faults.future) {
            self.counts.future += 1;
            let ahead = DAY_MS + self.delay(10.0 * DAY_MS as f64);
            let mistaken = from_the_future(&record, now + ahead, self.count);
            self.hold(now, mistaken);
        }
        let arrives = if self.random.chance(self.faults.late) {
            self.counts.late += 1;
            now + HOUR_MS + self.delay(2.0 * DAY_MS as f64)
        } else if self.random.chance(self.faults.disorder) {
            self.counts.disorder += 1;
            now + self.delay(10.0 * SECOND_MS as f64)
        } else {
            now
        };
        self.hold(arrives, record);
    }

    /// The next event that has arrived by this instant.
    pub fn arrived(&mut self, by: Ts) -> Option<Record> {
        if self.held.peek().is_none_or(|Reverse(held)| held.arrives > by) {
            return None;
        }
        self.held.pop().map(|Reverse(held)| held.record)
    }

    fn hold(&mut self, arrives: Ts, record: Record) {
        self.count += 1;
        self.held.push(Reverse(Held { arrives, number: self.count, record }));
    }

    fn delay(&mut self, mean_ms: f64) -> Ts {
        self.random.exponential(mean_ms) as Ts + 1
    }

    /// What a producer with a defect sends: half a record, no object, no type, or an instant that is none.
    fn broken(&mut self, record: &Record) -> Record {
        let json = &record.json;
        let json = match self.random.between(0, 3) {
            0 => json[..json.len() / 2].to_owned(),
            1 => format!("[{json}]"),
            2 => json.replacen(r#""type":"#, r#""typ":"#, 1),
            _ => with_instant(json, "yesterday"),
        };
        Record { json, ..record.clone() }
    }
}

fn from_the_future(record: &Record, ts: Ts, number: u64) -> Record {
    let json = with_instant(&record.json, format_rfc3339(ts).as_str());
    // An event of its own, or it would be taken for a duplicate.
    let json = json.replacen(r#""event_id":"e"#, &format!(r#""event_id":"f{number}-"#), 1);
    Record { json, ..record.clone() }
}

fn with_instant(json: &str, instant: &str) -> String {
    const KEY: &str = r#""ts":""#;
    let Some(at) = json.find(KEY).map(|at| at + KEY.len()) else { return json.to_owned() };
    let end = json[at..].find('"').map_or(json.len(), |end| at + end);
    format!("{}{instant}{}", &json[..at], &json[end..])
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.arrives, self.number).cmp(&(other.arrives, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reason;
    use crate::event::money::Money;
    use crate::event::native::{Envelope, decode};
    use crate::simulate::{Settings, Simulation};
    use std::collections::BTreeMap;

    fn settings(faults: &str) -> Settings {
        Settings {
            customers: 200,
            days: 120,
            seed: 3,
            faults: faults.parse().unwrap(),
            ..Settings::default()
        }
    }

    fn arrivals(faults: &str) -> (Vec<Record>, FaultCounts) {
        let mut simulation = Simulation::new(&settings(faults)).unwrap();
        let records: Vec<Record> = simulation.by_ref().collect();
        (records, simulation.faults())
    }

    #[test]
    fn shares_are_read_and_mistakes_are_told() {
        let faults: Faults = "duplicates=0.01, late=1".parse().unwrap();
        assert_eq!(faults, Faults { duplicates: 0.01, late: 1.0, ..Faults::default() });
        assert_eq!("".parse(), Ok(Faults::default()));
        for (text, says) in
            [("duplicate=0.1", "did you mean `duplicates`?"), ("late", "late=0.01"), ("late=2", "0 and 1")]
        {
            assert!(text.parse::<Faults>().unwrap_err().contains(says), "{text}");
        }
    }

    #[test]
    fn nothing_true_is_lost_and_everything_else_is_counted() {
        let (plain, none) = arrivals("");
        assert_eq!(none, FaultCounts::default());
        let (faulty, counts) = arrivals("duplicates=0.02,late=0.03,disorder=0.1,malformed=0.01,future=0.01");
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        faulty.iter().for_each(|r| *seen.entry(&r.json).or_default() += 1);
        let (mut true_ones, mut twice) = (0, 0);
        for record in &plain {
            let n = seen.remove(record.json.as_str()).unwrap_or_else(|| panic!("lost: {}", record.json));
            (true_ones, twice) = (true_ones + 1, twice + n - 1);
        }
        // What left for after the end of the simulation arrives all the same.
        assert_eq!(twice, counts.duplicates);
        assert_eq!(seen.values().sum::<u64>(), counts.malformed + counts.future);
        let share = |n: u64| n as f64 / f64::from(true_ones);
        for (n, wanted) in
            [(counts.duplicates, 0.02), (counts.late, 0.03), (counts.malformed, 0.01), (counts.future, 0.01)]
        {
            assert!((share(n) / wanted - 1.0).abs() < 0.35, "{counts:?} of {true_ones}");
        }
        assert!(!faulty.is_sorted_by_key(|r| r.ts), "it arrives out of order");
        assert_eq!(arrivals("late=0.1").0, arrivals("late=0.1").0, "the same seed, the same faults");
    }

    #[test]
    fn malformed_records_are_refused_and_future_ones_only_by_their_instant() {
        let read = |record: &Record, latest| {
            let envelope = Envelope { source: record.source, key: None, timestamp: None, latest };
            decode(record.json.as_bytes(), &envelope, &Money::default()).map(|event| event.ts)
        };
        let (plain, _) = arrivals("");
        let true_ones: std::collections::BTreeSet<_> = plain.iter().map(|r| &r.json).collect();
        let (malformed, _) = arrivals("malformed=0.05");
        let broken: Vec<_> = malformed.iter().filter(|r| !true_ones.contains(&r.json)).collect();
        assert!(!broken.is_empty() && broken.iter().all(|record| read(record, None).is_err()));
        let (future, _) = arrivals("future=0.05");
        for record in future.iter().filter(|r| !true_ones.contains(&r.json)) {
            assert!(read(record, None).unwrap() > record.ts + DAY_MS);
            assert_eq!(read(record, Some(record.ts)).unwrap_err().reason, Reason::FutureTs);
        }
    }
}
