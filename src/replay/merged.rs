//! Records of several lanes as one sequence of events, in the order in which an engine takes them.
//!
//! Owns the reading ahead that the merger needs. Where the records come from ([`Lanes`]) and what becomes of
//! the events is not known here: replay and training share it.

use crate::config::{Clock, Config};
use crate::error::Result;
use crate::event::{Reject, Source};
use crate::merge::{MAX_WAITING, Merger, Next, Position};
use crate::setup;
use crate::time::wall_now;

use super::ahead::{Ahead, Rules};
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
    records: Ahead<'a>,
    merger: Merger<Line>,
}

impl<'a> Merged<'a> {
    pub fn new(lanes: impl Lanes + 'a, config: &Config) -> Merged<'a> {
        let latest = match config.time.clock {
            Clock::Wall => Some(wall_now().saturating_add(config.time.max_future_ms)),
            Clock::Events => None,
        };
        let decoders = Source::ALL.map(|source| setup::decoder(setup::source(config, source)));
        let merger = Merger::new(config.time.grace_ms, vec![Position::default(); lanes.lanes()]);
        let rules = Rules { decoders, money: setup::settings(config).money, latest };
        Merged { records: Ahead::new(lanes, rules), merger }
    }

    /// The next event; `None` when all lanes are at their end.
    pub fn next(&mut self, rejected: &mut dyn Rejected) -> Result<Option<Line>> {
        let mut ahead = READ_AHEAD;
        loop {
            self.read_ahead(ahead, rejected)?;
            if let Some(Next { item: mut line, early, .. }) = self.merger.pop() {
                line.early = early;
                return Ok(Some(line));
            }
            if self.merger.all_ended() && self.merger.waiting() == 0 {
                return Ok(None);
            }
            // So many events at one instant that the merger has to see further to know that no other comes first.
            ahead *= 2;
        }
    }

    /// Reads every lane until so many of its records wait. Those from the future do not count, within reason: they may
    /// wait for long.
    fn read_ahead(&mut self, ahead: usize, rejected: &mut dyn Rejected) -> Result<()> {
        for lane in 0..self.merger.lanes() {
            while !self.merger.is_ended(lane)
                && self.merger.ready_in(lane) < ahead
                && self.merger.waiting_in(lane) < ahead.max(MAX_WAITING)
            {
                match self.records.next(lane)? {
                    Some(Ok(line)) => {
                        let (ts, customer) = (line.ts(), line.customer_hash());
                        self.merger.push(lane, line.number, ts, customer, line);
                    }
                    Some(Err((record, reject))) => {
                        self.merger.skip(lane, record.number);
                        rejected.rejected(self.records.source(lane), &record, &reject)?;
                    }
                    None => self.merger.set_ended(lane, true),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::replay::Inputs;

    #[derive(Default)]
    struct Reasons(Vec<String>);

    impl Rejected for Reasons {
        fn rejected(&mut self, source: Source, _: &RawRecord, reject: &Reject) -> Result<()> {
            self.0.push(format!("{} {}", source.name(), reject.reason.code()));
            Ok(())
        }
    }

    #[test]
    fn every_file_is_read_in_the_format_of_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let write =
            |name: &str, lines: &[&str]| std::fs::write(dir.path().join(name), lines.join("\n")).unwrap();
        let order = r#"{"type":"track","event":"Order Completed","userId":"c","timestamp":"2026-01-02T00:00:00Z","properties":{"revenue":5}}"#;
        let page = r#"{"type":"page","userId":"c","timestamp":"2026-01-01T00:00:00Z"}"#;
        write("clickstream.ndjson", &[page, order, "{}"]);
        let solved = r#"{"specversion":"1.0","id":"1","source":"/desk","type":"desk.ticket_solved","time":"2026-01-03T00:00:00Z","data":{"customer_id":"c"}}"#;
        write("support.ndjson", &[solved, page]);
        let set =
            ["source.clickstream.format=segment", "source.support.format=cloudevents", "time.clock=events"];
        let layers = Layers { set: set.map(String::from).to_vec(), ..Layers::default() };
        let config = Config::from_layers(&layers).unwrap();
        let mut merged = Merged::new(Inputs::open(dir.path(), &config).unwrap(), &config);
        let (mut reasons, mut events) = (Reasons::default(), Vec::new());
        while let Some(line) = merged.next(&mut reasons).unwrap() {
            events.push(format!("{} {}", line.event().source.name(), line.event().name));
        }
        assert_eq!(events, ["clickstream page_viewed", "purchase order_completed", "support ticket_solved"]);
        assert_eq!(reasons.0, ["clickstream missing_type", "support invalid_field"]);
    }
}
