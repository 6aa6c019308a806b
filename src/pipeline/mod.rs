//! PURE: what one event, or one instant of silence, means for one customer. No IO, no clock, no randomness.

pub mod facts;
pub mod words;
pub mod catalogue;
pub mod layout;
pub mod varint;
pub mod panes;
pub mod windows;
pub mod sessions;
pub mod timers;
