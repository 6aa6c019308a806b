//! What a running instance answers over HTTP: metrics, health, and one customer at a time. Read-only, but for
//! [`reload`], which is off unless a token is configured.
//!
//! [`server`] takes connections and bears slow clients, [`routes`] says which address answers what,
//! [`queries`] carries questions to the workers that own the customers ([`customer`] writes their answers),
//! [`health`] is what workers say of themselves, and [`live`] what the page shows as it happens. Nothing here
//! can hold up a worker.

pub mod server;
pub mod routes;
pub mod queries;
pub mod customer;
pub mod health;
pub mod live;
pub mod reload;
mod stall;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::metrics::Metrics;
use crate::pipeline::plan::Plan;

pub use customer::{RECENT_MOST, Recent, customer_json};
pub use health::{Health, Phase};
pub use live::Live;
pub use queries::{Queries, Query};
pub use server::serve;

/// What answers are made of.
#[derive(Debug)]
pub struct Shared {
    pub metrics: Arc<Metrics>,
    pub plan: Arc<Plan>,
    pub health: Arc<Health>,
    pub queries: Queries,
    pub live: Arc<Live>,
    /// `None`: a reload cannot be asked for over HTTP.
    pub reloading: Option<reload::Reloading>,
}
