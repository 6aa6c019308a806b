//! stagecast: who has moved on, who is about to leave, who has come back.
//!
//! The modules stand in the order in which an event meets them:
//! it is decoded ([`event`]), merged with the other topics of its partition ([`merge`]), carried through
//! windows, features, lifecycles, score and alerts ([`pipeline`], pure), by a model ([`model`]), and what is
//! due goes out through Kafka ([`kafka`]) or to files ([`replay`]). A model is made from the same events by [`training`]. Around it: [`config`], [`metrics`],
//! [`http`], [`cli`].
#![deny(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod error;
pub mod time;
pub mod signals;
pub mod memory;
pub mod event;
pub mod merge;
pub mod days;
pub mod pipeline;
pub mod model;
pub mod kafka;
pub mod replay;
pub mod training;
pub mod evaluate;
pub mod campaign;
pub mod simulate;
pub mod config;
pub mod metrics;
pub mod http;
pub mod schema;
pub mod setup;
pub mod registry;
pub mod reload;
#[cfg(feature = "otel")]
pub mod otel;
pub mod demo;
pub mod cli;
