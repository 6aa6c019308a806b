//! Records of several lanes as one sequence of events, in the order in which an engine takes them.
//!
//! Owns the reading ahead that the merger needs. Where the records come from ([`Lanes`]) and what becomes of
//! the events is not known here: replay and training share it.

use crate::config::{Clock, Config};
use crate::error::Result;
use crate::event::decoder::Decoder;
use crate::event::money::Money;
use crate::event::{Reject, Source};
use crate::merge::{Merger, Position};
use crate::setup;
use crate::time::{Ts, wall_now};

use super::input::{Line, RawRecord};

/// Records of a lane that wait, where nothing asks for more.
const READ_AHEAD: usize = 64;

/// Where records come from: lanes of ascending offsets.
pub trait Lanes {
    fn lanes(&self) -> usize;
    fn source(&self, lane: usize) -> Source;
    /// The next record of a lane; `None` at its end.
    fn next(&mut self, lane: usize) -> Result<Option<RawRecord>>;
}

/// What to do with a record that cannot be used.
pub trait Rejected {
    fn rejected(&mut self, source: Source, record: &RawRecord, reject: &Reject) -> Result<()>;
}

/// The events of all lanes, merged by time.
pub struct Merged<'a> {
    lanes: Box<dyn Lanes + 'a>,
    merger: Merger<Line>,
    latest: Option<Ts>,
    money: Money,
    /// By source.
    decoders: [Decoder; Source::ALL.len()],
}

impl<'a> Merged<'a> {
    pub fn new(lanes: impl Lanes + 'a, config: &Config) -> Merged<'a> {
        let latest = match config.time.clock {
            Clock::Wall => Some(wall_now().saturating_add(config.time.max_future_ms)),
            Clock::Events => None,
        };
        Merged {
            merger: Merger::new(config.time.grace_ms, vec![Position::default(); lanes.lanes()]),
            lanes: Box::new(lanes),
            latest,
            money: setup::settings(config).money,
            decoders: Source::ALL.map(|source| setup::decoder(setup::source(config, source))),
        }
    }

    /// The next event; `None` when all lanes are at their end.
    pub fn next(&mut self, rejected: &mut dyn Rejected) -> Result<Option<Line>> {
        let mut ahead = READ_AHEAD;
        loop {
            self.read_ahead(ahead, rejected)?;
            if let Some((_, line)) = self.merger.pop() {
                return Ok(Some(line));
            }
            if self.merger.all_ended() && self.merger.waiting() == 0 {
                return Ok(None);
            }
            // So many events at one instant that the merger has to see further to know that no other comes first.
            ahead *= 2;
        }
    }

    /// Reads every lane until so many of its records wait.
    fn read_ahead(&mut self, ahead: usize, rejected: &mut dyn Rejected) -> Result<()> {
        for lane in 0..self.merger.lanes() {
            let source = self.lanes.source(lane);
            while !self.merger.is_ended(lane) && self.merger.waiting_in(lane) < ahead {
                let Some(record) = self.lanes.next(lane)? else {
                    self.merger.set_ended(lane, true);
                    break;
                };
                match record.decode(source, &self.decoders[source.index()], self.latest, &self.money) {
                    Ok(line) => {
                        let (ts, customer) = (line.ts(), line.customer_hash());
                        self.merger.push(lane, line.number, ts, customer, line);
                    }
                    Err(reject) => {
                        self.merger.skip(lane, record.number);
                        rejected.rejected(source, &record, &reject)?;
                    }
                }
            }
        }
        Ok(())
    }
}
