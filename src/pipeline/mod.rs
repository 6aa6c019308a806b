//! PURE: what one event, or one instant of silence, means for one customer. No IO, no clock, no randomness.

pub mod facts;
pub mod lifecycle;
