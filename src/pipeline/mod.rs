//! PURE: what one event, or one instant of silence, means for one customer. No IO, no clock, no randomness.

pub mod facts;
pub mod words;
pub mod catalogue;
pub mod layout;
pub mod varint;
pub mod panes;
pub mod windows;
pub mod sessions;
pub mod features;
pub mod lifecycle;
pub mod plan;
pub mod store;
pub mod timers;
pub mod outbox;
pub mod json;
pub mod emit;
pub mod alert;
pub mod outcomes;
pub mod quality;
pub mod engine;
pub mod codec;
