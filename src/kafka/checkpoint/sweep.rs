//! From a task to the records of its checkpoint, some at a time.
//!
//! A sweep looks at the task only while nothing is uncommitted. Between two looks transactions may be committed or
//! taken back: whom they changed stands in the topic behind the sweep's offset, so it does not matter whether the
//! sweep had been there. Owns how far it is; writes nothing itself.

use super::format::Frame;
use crate::kafka::marker;
use crate::kafka::task::Task;
use crate::pipeline::erasure::OptOut;
use crate::pipeline::varint::put_u64;
use crate::pipeline::{drift, quality};
use crate::time::Tick;

/// The transaction that the states of a checkpoint say they are from: none. The last transaction's states are in the
/// tail, which tells whether it is whole.
const NO_TRANSACTION: u64 = 0;
/// Customers between two looks at the clock.
const BETWEEN_CLOCKS: u32 = 32;

/// How far a sweep over one task is.
#[derive(Debug, Default)]
pub struct Sweep {
    begun: bool,
    next: u32,
    value: Vec<u8>,
}

impl Sweep {
    /// Adds records to `frame` until it is full, the time is over or all are in; true when all are. What is not about
    /// single customers goes in at once, at the beginning.
    pub fn fill(&mut self, task: &Task, frame: &mut Frame, until: Tick) -> bool {
        debug_assert!(task.is_savable(), "only what is committed may be written");
        if !self.begun {
            self.begun = true;
            put_shared(task, frame);
        }
        let store = task.engine().store();
        while !frame.is_full() {
            if self.next >= store.slots() {
                return true;
            }
            let id = store.id(self.next);
            // Nobody has a number that is free; no customer's id is empty.
            if !id.is_empty() {
                self.value.clear();
                put_u64(&mut self.value, NO_TRANSACTION);
                task.engine().encode(self.next, &mut self.value);
                frame.put(id.as_bytes(), &self.value);
            }
            self.next += 1;
            if self.next.is_multiple_of(BETWEEN_CLOCKS) && Tick::now() >= until {
                return false;
            }
        }
        false
    }
}

/// Everything but customers and the marker, which is in the tail.
fn put_shared(task: &Task, frame: &mut Frame) {
    let engine = task.engine();
    for (layout, description) in engine.described_layouts() {
        frame.put(&marker::layout_key(layout), &description);
    }
    for (hash, opt_out) in engine.opt_outs().all() {
        frame.put(&OptOut::key(hash), &opt_out.encode());
    }
    for (key, value) in engine.identities().records() {
        frame.put(&key, &value);
    }
    for (key, value) in engine.traffic.moves().records() {
        frame.put(&key, &value);
    }
    frame.put(quality::KEY, &engine.quality.ledger().encode());
    frame.put(drift::KEY, &engine.drift.census().encode());
}
