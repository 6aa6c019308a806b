//! The contract's sections 1 to 4, read out loud: what one customer's events mean, by brute force.
//!
//! This model shadows the real engine in property tests. It keeps every event in a `Vec`, counts whatever it
//! is asked for afresh, and runs rules in CEL's own interpreter; it must share no code with the engine beyond
//! the constants and parsers of `stagecast::time`, or both would be wrong together.
//!
//! Read it in this order: [`event`] (what happened), [`features`] (what can be known at an instant),
//! [`lifecycle`] (what the rules are), [`walk`] (what happens, in order), [`outputs`] (what is written),
//! [`arbitrary`] (random histories and lifecycles).
//!
//! Not modelled: erasure and merging of customers, overrides by trait, `p_no_order` and `clv_365d`. A lifecycle
//! that asks for one of these is refused by a panic, not misread.
#![allow(dead_code, unused_imports)] // every test binary takes the parts it needs

pub mod event;
pub mod features;
pub mod lifecycle;
pub mod walk;
pub mod outputs;
pub mod arbitrary;

pub use event::{Ev, Kind, Money};
pub use features::{View, features, in_window};
pub use lifecycle::Lifecycle;
pub use outputs::{Alert, Band, History, Output, Score, StageChange, Trigger};
pub use walk::{Grid, On, Policy, Scoring, World, history, score_instants, walk};
