//! The span of an event that came with a trace: from its record read to its outputs decided.
//!
//! With the feature `otel` the outputs are children of that span; without it, of whatever the record was a child of.

use crate::event::Source;
use crate::event::trace::Trace;
use crate::time::Ts;

/// The trace as the event's outputs carry it on.
#[cfg(not(feature = "otel"))]
pub fn processed(trace: Trace, _: Source, _: i32, _: Ts) -> Trace {
    trace
}

#[cfg(feature = "otel")]
pub fn processed(trace: Trace, source: Source, partition: i32, read_at: Ts) -> Trace {
    crate::otel::span(trace, source, partition, read_at, crate::time::wall_now())
}
