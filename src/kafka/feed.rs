//! Feeding the input topics: what a producer in front of stagecast would do.

use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::util::Timeout;
use std::time::Duration;

use super::clients::ClientSettings;
use super::transactions::Deliveries;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::Source;
use crate::setup;
use crate::simulate::{Progress, Settings, Simulation, Summary};
use crate::time::{sleep, wall_now};

/// Sends a simulation to the configured input topics, as fast as the brokers take it. Event times are in the
/// records; the records' own timestamps are those of sending.
pub fn simulate(
    clients: &ClientSettings,
    config: &Config,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    let failed =
        |e: rdkafka::error::KafkaError| Error::world(format!("cannot send to the input topics: {e}"));
    let producer: ThreadedProducer<Deliveries> = clients.feed_producer().map_err(failed)?;
    let mut simulation = Simulation::new(settings)?;
    let mut events = [0; Source::ALL.len()];
    let span = (settings.end() - settings.start) as f64;
    for record in simulation.by_ref() {
        let section = setup::source(config, record.source);
        if !section.enabled {
            continue;
        }
        let customer_id = record.customer_id();
        let mut message =
            BaseRecord::to(&section.topic).key(&customer_id).payload(&record.json).timestamp(wall_now());
        while let Err((error, back)) = producer.send(message) {
            if error.rdkafka_error_code() != Some(rdkafka::error::RDKafkaErrorCode::QueueFull) {
                return Err(failed(error));
            }
            sleep(Duration::from_millis(5));
            message = back;
        }
        events[record.source.index()] += 1;
        let sent: u64 = events.iter().sum();
        if sent.is_multiple_of(4_096) {
            progress(Progress { events: sent, share: (record.ts - settings.start) as f64 / span });
        }
    }
    producer.flush(Timeout::After(Duration::from_secs(60))).map_err(failed)?;
    match producer.context().first_failure() {
        Some(failure) => {
            Err(Error::world(format!("a record for {} was not taken: {}", failure.topic, failure.error)))
        }
        None => Ok(Summary { events, customers: settings.customers, end: settings.end() }),
    }
}
