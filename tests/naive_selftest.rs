//! The naive model itself, held against values worked out by hand.

mod naive;
