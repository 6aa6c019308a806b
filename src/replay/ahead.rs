//! Decoding ahead: records are read in order, decoded by several threads, and come out in order.
//!
//! Owns the threads and the batches on their way. What a record means is decided one by one, so that how many
//! threads there are changes nothing about what comes out.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::error::Result;
use crate::event::decoder::Decoder;
use crate::event::money::Money;
use crate::event::{Reject, Source};
use crate::time::Ts;

use super::input::{Line, RawRecord};
use super::merged::Lanes;

/// Records ahead over all lanes, of which a history on Kafka has one for each partition of each topic.
const RECORDS_AHEAD: usize = 8_192;
/// A batch ends with its lane's share of them, at least so many; or with so many bytes.
const BATCH_RECORDS_LEAST: usize = 16;
const BATCH_BYTES: usize = 1 << 20;
/// Batches of a lane that are decoded, or waiting for that, beside the one that is used up.
const BATCHES_AHEAD: usize = 3;
/// More threads than this wait for the reader.
const THREADS_MOST: usize = 4;

/// What all records are decoded by.
#[derive(Debug)]
pub struct Rules {
    /// By source.
    pub decoders: [Decoder; Source::ALL.len()],
    pub money: Money,
    /// Event times after this instant are refused.
    pub latest: Option<Ts>,
}

/// A record that was decoded, or the record and why not.
pub type Decoded = Result<Line, (RawRecord, Reject)>;

/// The records of all lanes, decoded.
pub struct Ahead<'a> {
    lanes: Box<dyn Lanes + 'a>,
    queues: Vec<Queue>,
    /// Threads end when it is dropped.
    jobs: Sender<Job>,
}

#[derive(Default)]
struct Queue {
    current: std::vec::IntoIter<Decoded>,
    coming: VecDeque<Receiver<Vec<Decoded>>>,
    /// The lane has no more to read.
    ended: bool,
}

struct Job {
    source: Source,
    records: Vec<RawRecord>,
    answer: SyncSender<Vec<Decoded>>,
}

impl<'a> Ahead<'a> {
    pub fn new(lanes: impl Lanes + 'a, rules: Rules) -> Ahead<'a> {
        let (jobs, waiting) = channel::<Job>();
        let (rules, waiting) = (Arc::new(rules), Arc::new(Mutex::new(waiting)));
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MOST);
        for _ in 0..threads {
            let (rules, waiting) = (Arc::clone(&rules), Arc::clone(&waiting));
            thread::spawn(move || {
                loop {
                    // Held while waiting: one thread takes the next job, the others the ones after it.
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    let decoded = job.records.into_iter().map(|record| rules.decode(job.source, record));
                    // Who does not want it any more has been dropped.
                    let _ = job.answer.send(decoded.collect());
                }
            });
        }
        let queues = (0..lanes.lanes()).map(|_| Queue::default()).collect();
        Ahead { lanes: Box::new(lanes), queues, jobs }
    }

    pub fn source(&self, lane: usize) -> Source {
        self.lanes.source(lane)
    }

    /// The next record of a lane; `None` at its end.
    ///
    /// # Errors
    /// What reading the lane fails with, which may show before the records read so far have come out.
    pub fn next(&mut self, lane: usize) -> Result<Option<Decoded>> {
        loop {
            if let Some(decoded) = self.queues[lane].current.next() {
                return Ok(Some(decoded));
            }
            while !self.queues[lane].ended && self.queues[lane].coming.len() <= BATCHES_AHEAD {
                self.read_batch(lane)?;
            }
            let Some(batch) = self.queues[lane].coming.pop_front() else { return Ok(None) };
            // A thread that is gone has panicked, which decoding must not.
            self.queues[lane].current = batch.recv().expect("records are decoded").into_iter();
        }
    }

    fn read_batch(&mut self, lane: usize) -> Result<()> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let share = RECORDS_AHEAD / (self.queues.len() * (BATCHES_AHEAD + 1));
        while records.len() < share.max(BATCH_RECORDS_LEAST) && bytes < BATCH_BYTES {
            let Some(record) = self.lanes.next(lane)? else {
                self.queues[lane].ended = true;
                break;
            };
            bytes += record.bytes.len();
            records.push(record);
        }
        if !records.is_empty() {
            let (answer, batch) = sync_channel(1);
            self.queues[lane].coming.push_back(batch);
            let job = Job { source: self.lanes.source(lane), records, answer };
            self.jobs.send(job).expect("threads wait for jobs");
        }
        Ok(())
    }
}

impl Rules {
    fn decode(&self, source: Source, record: RawRecord) -> Decoded {
        let decoder = &self.decoders[source.index()];
        record.decode(source, decoder, self.latest, &self.money).map_err(|reject| (record, reject))
    }
}
