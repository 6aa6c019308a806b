//! What a test makes the service do wrong: die, wait or fail at a named point of the protocol, or go without
//! one of the guards that exactly-once rests on, so that a test can show what each guard is there for.
//!
//! In debug builds only; in a release build every question here is answered by a constant.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::answer::Call;
use super::transactions::TxnError;
use crate::time::sleep;

/// The variable that names faults: `POINT:N`, `POINT:N:DEED` or `without:GUARD`, separated by commas.
pub const VARIABLE: &str = "STAGECAST_FAULT";
/// A process that is held goes on once this file is in its working directory.
const GO: &str = "go";

/// A guard that a test may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Records belong to the transaction.
    Transaction,
    /// A transaction that only silence filled carries the positions of its partitions.
    SilentPositions,
    /// Restoring waits for what stands behind the last stable offset.
    RestoreToEnd,
    /// The marker, the states and the group's offsets must agree.
    Agreement,
    /// An abort takes touched customers back.
    Rollback,
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Die,
    Hold,
    Fail,
}

#[derive(Debug)]
struct Point {
    name: String,
    nth: u32,
    deed: Deed,
    seen: AtomicU32,
}

/// The faults that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    points: Arc<[Point]>,
    removed: Arc<[Guard]>,
}

impl Faults {
    /// Those that the environment names.
    pub fn from_env() -> Faults {
        if !cfg!(debug_assertions) {
            return Faults::default();
        }
        std::env::var(VARIABLE).map(|text| Faults::parse(&text)).unwrap_or_default()
    }

    /// What cannot be read is left out.
    pub fn parse(text: &str) -> Faults {
        if !cfg!(debug_assertions) {
            return Faults::default();
        }
        let removed = text.split(',').filter_map(|t| Guard::named(t.strip_prefix("without:")?));
        Faults { removed: removed.collect(), points: text.split(',').filter_map(Point::parse).collect() }
    }

    /// Whether a guard is removed.
    pub fn lack(&self, guard: Guard) -> bool {
        cfg!(debug_assertions) && self.removed.contains(&guard)
    }

    /// A point of the protocol: the Nth time that it is reached, what was asked for happens.
    pub fn at(&self, name: &str) -> Result<(), TxnError> {
        if !cfg!(debug_assertions) {
            return Ok(());
        }
        for point in self.points.iter().filter(|point| point.name == name) {
            if point.seen.fetch_add(1, Ordering::AcqRel) + 1 == point.nth {
                point.deed.act(name)?;
            }
        }
        Ok(())
    }
}

impl Guard {
    fn named(name: &str) -> Option<Guard> {
        match name {
            "transaction" => Some(Guard::Transaction),
            "silent_positions" => Some(Guard::SilentPositions),
            "restore_to_end" => Some(Guard::RestoreToEnd),
            "agreement" => Some(Guard::Agreement),
            "rollback" => Some(Guard::Rollback),
            _ => None,
        }
    }
}

impl Point {
    fn parse(text: &str) -> Option<Point> {
        let mut parts = text.split(':');
        let (name, nth) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        let deed = match parts.next() {
            None | Some("die") => Deed::Die,
            Some("hold") => Deed::Hold,
            Some("fail") => Deed::Fail,
            Some(_) => return None,
        };
        Some(Point { name, nth, deed, seen: AtomicU32::new(0) })
    }
}

impl Deed {
    fn act(self, name: &str) -> Result<(), TxnError> {
        match self {
            Deed::Die => std::process::abort(),
            Deed::Hold => {
                tracing::warn!("held at {name}");
                while !Path::new(GO).exists() {
                    sleep(Duration::from_millis(5));
                }
                Ok(())
            }
            // As when a record could not be delivered in time.
            Deed::Fail => {
                let late = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
                Err(TxnError::new(Call::Delivery, late))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::answer::Answer;

    #[test]
    fn the_nth_time_that_a_point_is_reached_fails_and_asks_for_an_abort() {
        let faults = Faults::parse("before_commit:2:fail,without:rollback,other:1:fail");
        assert_eq!(faults.at("before_commit"), Ok(()));
        assert_eq!(faults.at("before_commit").unwrap_err().answer, Answer::AbortAndRewind);
        assert_eq!(faults.at("before_commit"), Ok(()));
    }

    #[test]
    fn only_the_guard_that_is_named_is_removed() {
        let faults = Faults::parse("without:rollback");
        assert!(faults.lack(Guard::Rollback) && !faults.lack(Guard::Transaction));
        assert!(!Faults::default().lack(Guard::Rollback));
    }

    #[test]
    fn what_cannot_be_read_does_nothing() {
        let faults = Faults::parse("without:nothing,point:x,point:1:dance,,point");
        assert!(faults.points.is_empty() && faults.removed.is_empty());
    }
}
