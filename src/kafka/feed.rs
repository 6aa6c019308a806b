//! Feeding the input topics: what a producer in front of stagecast would do.

use super::clients::ClientSettings;
use super::sender::{Outgoing, Sender};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::Source;
use crate::setup;
use crate::simulate::{Progress, Settings, Simulation, Summary};
use crate::time::wall_now;

/// Sends a simulation to the configured input topics, as fast as the brokers take it. Event times are in the
/// records; the records' own timestamps are those of sending.
pub fn simulate(
    clients: &ClientSettings,
    config: &Config,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    refuse_foreign_formats(config)?;
    let sender = Sender::new(clients)?;
    let mut simulation = Simulation::new(settings)?;
    let mut events = [0; Source::ALL.len()];
    let span = (settings.end() - settings.start) as f64;
    for record in simulation.by_ref() {
        let section = setup::source(config, record.source);
        if !section.enabled {
            continue;
        }
        let customer_id = record.customer_id();
        sender.send(&Outgoing {
            topic: &section.topic,
            partition: None,
            key: Some(customer_id.as_bytes()),
            value: Some(record.json.as_bytes()),
            headers: &[],
            timestamp: wall_now(),
        })?;
        events[record.source.index()] += 1;
        let sent: u64 = events.iter().sum();
        if sent.is_multiple_of(4_096) {
            progress(Progress { events: sent, share: (record.ts - settings.start) as f64 / span });
        }
    }
    sender.finish()?;
    Ok(Summary { events, customers: settings.customers, end: settings.end() })
}

/// Simulated events are native ones, and would all be dead letters on a topic of another format.
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
