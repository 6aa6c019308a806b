//! Feeding the input topics: what a producer in front of stagecast would do.

use std::time::Duration;

use super::clients::ClientSettings;
use super::sender::{Outgoing, Sender};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::Source;
use crate::setup;
use crate::simulate::{Progress, Record, Settings, Simulation, Summary};
use crate::time::{Tick, Ts, sleep, wall_now};

/// Shorter waits are not worth their overhead: what is due meanwhile goes out at once.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const PROGRESS_EVERY: u64 = 4_096;

/// Sends simulated events to the configured input topics, keyed by customer and partitioned as Java does it.
pub struct Feeder {
    sender: Sender,
    /// By source; `None`: not enabled.
    topics: [Option<String>; Source::ALL.len()],
}

impl Feeder {
    /// Refuses topics of another format: simulated events are native, and would all be dead letters there.
    pub fn new(clients: &ClientSettings, config: &Config) -> Result<Feeder> {
        refuse_foreign_formats(config)?;
        let topics = Source::ALL.map(|source| {
            let section = setup::source(config, source);
            section.enabled.then(|| section.topic.clone())
        });
        Ok(Feeder { sender: Sender::new(clients)?, topics })
    }

    /// Sends one event; false when its source is not enabled. `timestamp` is the record's own: latency is
    /// measured from it. Waits while the local queue is full.
    pub fn send(&self, record: &Record, timestamp: Ts) -> Result<bool> {
        let Some(topic) = &self.topics[record.source.index()] else { return Ok(false) };
        let customer_id = record.customer_id();
        self.sender.send(&Outgoing {
            topic,
            partition: None,
            key: Some(customer_id.as_bytes()),
            value: Some(record.json.as_bytes()),
            headers: &[],
            timestamp,
        })?;
        Ok(true)
    }

    /// Waits until the brokers have everything.
    pub fn finish(&self) -> Result<()> {
        self.sender.finish()
    }
}

fn refuse_foreign_formats(config: &Config) -> Result<()> {
    let foreign = setup::enabled_sources(config).find(|(_, section)| !setup::decoder(section).is_plain());
    match foreign {
        None => Ok(()),
        Some((source, section)) => {
            let (name, format) = (source.name(), section.format.name());
            let what = format!("source.{name} is not read as plain native events (format = \"{format}\")");
            Err(Error::user(what).hint("simulated events are native; use topics of their own for them"))
        }
    }
}

/// Sends a simulation to the configured input topics. Event times are in the records.
///
/// Without `rate` as fast as the brokers take it, and a record's own timestamp is that of sending. With it the
/// loop is open: the n-th event is due n/rate after the start and bears that instant as its timestamp, so that
/// a stall anywhere, here included, shows as latency.
pub fn simulate(
    clients: &ClientSettings,
    config: &Config,
    settings: &Settings,
    rate: Option<f64>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    let feeder = Feeder::new(clients, config)?;
    let mut simulation = Simulation::new(settings)?;
    let mut events = [0; Source::ALL.len()];
    let span = (settings.end() - settings.start) as f64;
    let (began, wall) = (Tick::now(), wall_now());
    let mut sent: u64 = 0;
    for record in simulation.by_ref() {
        let timestamp = match rate {
            None => wall_now(),
            Some(rate) => {
                let due = Duration::from_secs_f64(sent as f64 / rate);
                wait_until(began, due);
                wall + due.as_millis() as Ts
            }
        };
        if feeder.send(&record, timestamp)? {
            events[record.source.index()] += 1;
            sent += 1;
        }
        if sent.is_multiple_of(PROGRESS_EVERY) {
            progress(Progress { events: sent, share: (record.ts - settings.start) as f64 / span });
        }
    }
    feeder.finish()?;
    Ok(Summary { events, customers: settings.customers, end: settings.end(), faults: simulation.faults() })
}

fn wait_until(began: Tick, due: Duration) {
    let wait = due.saturating_sub(began.elapsed());
    if wait >= SHORTEST_WAIT {
        sleep(wait);
    }
}
