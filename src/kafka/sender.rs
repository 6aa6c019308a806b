//! Sending records that are no part of a transaction: what a producer in front of stagecast would do.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::util::Timeout;

use super::clients::ClientSettings;
use super::transactions::Deliveries;
use crate::error::{Error, Result};
use crate::time::{Ts, sleep};

/// How long to leave a full queue alone.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);
/// How long the last records may take.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

/// A header's name and value.
pub type OwnedHeader = (String, Option<Vec<u8>>);

/// A record to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    /// `None`: as the key says.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [OwnedHeader],
    pub timestamp: Ts,
}

/// Sends as fast as the brokers take it.
pub struct Sender {
    producer: ThreadedProducer<Deliveries>,
}

impl Sender {
    pub fn new(clients: &ClientSettings) -> Result<Sender> {
        clients.feed_producer().map(|producer| Sender { producer }).map_err(|e| failed(&e))
    }

    /// Hands a record to the producer, which sends it behind the scenes; see [`Sender::finish`].
    pub fn send(&self, outgoing: &Outgoing<'_>) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(outgoing.topic).timestamp(outgoing.timestamp);
        record.key = outgoing.key;
        record.payload = outgoing.value;
        record.partition = outgoing.partition;
        if !outgoing.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(outgoing.headers.len());
            let put = |headers: OwnedHeaders, (key, value): &OwnedHeader| {
                headers.insert(Header { key, value: value.as_deref() })
            };
            record = record.headers(outgoing.headers.iter().fold(headers, put));
        }
        while let Err((error, back)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(failed(&error));
            }
            sleep(QUEUE_PAUSE);
            record = back;
        }
        Ok(())
    }

    /// Waits until everything is taken; the error names the first record that was not.
    pub fn finish(&self) -> Result<()> {
        self.producer.flush(Timeout::After(FLUSH_WITHIN)).map_err(|e| failed(&e))?;
        match self.producer.context().first_failure() {
            Some(failure) => {
                Err(Error::world(format!("a record for {} was not taken: {}", failure.topic, failure.error)))
            }
            None => Ok(()),
        }
    }
}

fn failed(error: &KafkaError) -> Error {
    Error::world(format!("cannot send to the input topics: {error}"))
}
