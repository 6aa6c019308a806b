//! The engine over files: the same merge, the same steps and the same outputs as over Kafka, with no broker.
//!
//! One pass reads up to four files as the lanes of one partition. Event time is what the events say; the clock
//! follows them, less `grace`, and at the end runs on to `until`.

mod ahead;
mod input;
mod merged;
mod output;
pub mod check;
pub mod diff;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;
use crate::error::Result;
use crate::event::{Reject, Source};
use crate::pipeline::engine::{Applied, Engine};
use crate::pipeline::identity::Refused;
use crate::pipeline::plan::Plan;
use crate::setup;
use crate::time::Ts;

pub use input::{Inputs, Line, RawRecord, find, reader};
pub use merged::{Lanes, Merged, Rejected};
pub use output::Output;

/// What to replay.
#[derive(Clone, Debug)]
pub struct Request {
    pub input: PathBuf,
    pub output: PathBuf,
    pub features_at: Vec<Ts>,
    pub until: Option<Ts>,
    pub force: bool,
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub events: u64,
    pub late: u64,
    pub duplicates: u64,
    /// Dropped, since their customer was erased.
    pub erased: u64,
    pub dead_letters: u64,
    pub outputs: u64,
    pub customers: u64,
}

/// Replays `request.input` into `request.output`.
///
/// `progress` is told the number of events now and then. An error of it ends the replay, which then leaves nothing behind.
pub fn replay(
    plan: Plan,
    config: &Config,
    request: &Request,
    progress: &dyn Fn(u64) -> Result<()>,
) -> Result<Summary> {
    let plan = Arc::new(plan);
    let mut features_at = request.features_at.clone();
    features_at.sort_unstable();
    features_at.dedup();
    let inputs = Inputs::open(&request.input, config)?;
    let mut output = Output::create(&request.output, request.force, !features_at.is_empty())?;
    let mut pass = Pass::new(&plan, config, inputs);
    let disturbed = pass.run(&features_at, None, &mut output, progress)?;
    if let Some(until) = request.until {
        pass.run_on(until, &mut output)?;
    }
    let summary = pass.summary();
    for at in disturbed {
        // An event at or before this instant came after the snapshot was taken: take it anew from those alone.
        let mut again = Pass::new(&plan, config, Inputs::open(&request.input, config)?);
        let mut snapshot = output.replace_snapshot(at);
        again.run(&[at], Some(at), &mut snapshot, progress)?;
    }
    output.finish()?;
    Ok(summary)
}

/// One reading of the inputs.
struct Pass<'a> {
    config: &'a Config,
    engine: Engine,
    events: Merged<'a>,
    clock: Ts,
    summary: Summary,
}

impl<'a> Pass<'a> {
    fn new(plan: &Arc<Plan>, config: &'a Config, inputs: Inputs) -> Self {
        Pass {
            config,
            engine: Engine::new(Arc::clone(plan), false),
            events: Merged::new(inputs, config),
            clock: Ts::MIN,
            summary: Summary::default(),
        }
    }

    /// Reads everything, or everything up to and including `only_until`. Returns the instants of `features_at`
    /// whose snapshots a later line contradicted.
    fn run(
        &mut self,
        features_at: &[Ts],
        only_until: Option<Ts>,
        output: &mut Output,
        progress: &dyn Fn(u64) -> Result<()>,
    ) -> Result<Vec<Ts>> {
        let mut snapshots = features_at.iter().copied().peekable();
        let mut taken: Vec<Ts> = Vec::new();
        let mut disturbed: Vec<Ts> = Vec::new();
        while let Some(line) = self.next(output)? {
            let event = line.event();
            if only_until.is_some_and(|until| event.ts > until) {
                continue;
            }
            // How far the others are, which an event that comes before its time does not tell.
            let reached = if line.early { self.clock } else { event.ts };
            while let Some(at) = snapshots.next_if(|at| *at < reached) {
                self.snapshot(at, output)?;
                taken.push(at);
            }
            disturbed.extend(
                taken
                    .iter()
                    .filter(|at| event.ts <= **at && !disturbed.contains(at))
                    .copied()
                    .collect::<Vec<_>>(),
            );
            self.clock = self.clock.max(reached);
            match self.engine.step_alone(event) {
                Applied::InOrder | Applied::Moved | Applied::Refused => {}
                Applied::Late => self.summary.late += 1,
                Applied::Duplicate => self.summary.duplicates += 1,
                Applied::OptedOut => self.summary.erased += 1,
            }
            self.refuse(output)?;
            while self.engine.tick(self.clock.saturating_sub(self.config.time.grace_ms)) {
                self.flush(output)?;
            }
            self.summary.events += 1;
            if self.summary.events.is_multiple_of(1_024) {
                progress(self.summary.events)?;
            }
            self.flush(output)?;
        }
        for at in snapshots {
            self.snapshot(at, output)?;
        }
        Ok(disturbed)
    }

    fn next(&mut self, output: &mut Output) -> Result<Option<Line>> {
        let mut dead = DeadLetters { config: self.config, count: &mut self.summary.dead_letters, output };
        self.events.next(&mut dead)
    }

    /// Merges of customers who cannot be one are known for that only now.
    fn refuse(&mut self, output: &mut Output) -> Result<()> {
        for Refused { origin, reject, .. } in self.engine.identities_mut().take_refused() {
            let Some(origin) = origin else { continue };
            let source = Source::from_name(&origin.topic).unwrap_or(Source::Profile);
            let record = RawRecord {
                number: origin.offset,
                key: None,
                timestamp: origin.timestamp,
                bytes: origin.value.into(),
            };
            self.summary.dead_letters += 1;
            output.dead_letter(&setup::source(self.config, source).topic, &record, &reject)?;
        }
        Ok(())
    }

    /// Lets time pass up to and including `until`.
    fn run_on(&mut self, until: Ts, output: &mut Output) -> Result<()> {
        let mut from = Some(0);
        while let Some(next) = from {
            from = self.engine.run_on(until, next);
            self.flush(output)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, at: Ts, output: &mut Output) -> Result<()> {
        self.run_on(at, output)?;
        output.features(&self.engine, at)
    }

    fn flush(&mut self, output: &mut Output) -> Result<()> {
        if !self.engine.outbox.is_empty() {
            self.summary.outputs += self.engine.outbox.len() as u64;
            output.records(&self.engine.outbox)?;
        }
        self.engine.commit();
        Ok(())
    }

    fn summary(&self) -> Summary {
        Summary { customers: self.engine.store().len() as u64, ..self.summary }
    }
}

struct DeadLetters<'a> {
    config: &'a Config,
    count: &'a mut u64,
    output: &'a mut Output,
}

impl Rejected for DeadLetters<'_> {
    fn rejected(&mut self, source: Source, record: &RawRecord, reject: &Reject) -> Result<()> {
        *self.count += 1;
        self.output.dead_letter(&setup::source(self.config, source).topic, record, reject)
    }
}
