//! A Kafka inside the process: librdkafka's mock cluster, for the demo and for tests.
//!
//! It listens on 127.0.0.1, on a port of its own choice, and any client that uses librdkafka can connect. It
//! keeps 5 MiB per partition and drops what is older; [`super::broker`] says what else it does not do. The
//! cluster may not leave the thread it was made on, so it has one. Consumers must be gone before it is dropped:
//! they would wait for their session to end.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rdkafka::mocking::MockCluster;

use crate::error::{Error, Result};

const BROKERS: i32 = 1;

/// Runs until it is dropped.
#[derive(Debug)]
pub struct EmbeddedKafka {
    bootstrap: String,
    /// Dropping it ends the thread.
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedKafka {
    /// Starts a broker that has these topics with so many partitions each.
    pub fn start<'t>(topics: impl IntoIterator<Item = &'t str>, partitions: i32) -> Result<EmbeddedKafka> {
        let topics: Vec<String> = topics.into_iter().map(str::to_owned).collect();
        let (started, outcome) = channel();
        let (alive, until_dropped) = channel();
        let serve = move || match make(&topics, partitions) {
            Ok(cluster) => {
                // Both channels fail only when whoever started this is gone.
                let _ = started.send(Ok(cluster.bootstrap_servers()));
                let _ = until_dropped.recv();
            }
            Err(error) => drop(started.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("embedded-kafka".into()).spawn(serve);
        let thread = thread.map_err(|e| Error::world(format!("cannot start the embedded broker: {e}")))?;
        let bootstrap = outcome
            .recv()
            .unwrap_or_else(|_| Err(Error::world("the embedded broker ended before it had begun")))?;
        Ok(EmbeddedKafka { bootstrap, alive: Some(alive), thread: Some(thread) })
    }

    /// Its `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

fn make(
    topics: &[String],
    partitions: i32,
) -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>> {
    let failed = |e| Error::world(format!("cannot start the embedded broker: {e}"));
    let cluster = MockCluster::new(BROKERS).map_err(failed)?;
    for topic in topics {
        cluster.create_topic(topic, partitions, BROKERS).map_err(failed)?;
    }
    Ok(cluster)
}

impl Drop for EmbeddedKafka {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; were it to, there is nothing left to end.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::clients::{BrokerKind, ClientSettings};
    use rdkafka::consumer::Consumer;
    use std::time::Duration;

    #[test]
    fn it_has_the_topics_it_was_started_with_and_starts_again() {
        for _ in 0..2 {
            let kafka = EmbeddedKafka::start(["in", "out"], 3).unwrap();
            let mut clients = ClientSettings::new(kafka.bootstrap(), "app", "box");
            clients.broker = BrokerKind::Embedded;
            let reader = clients.end_offsets(0).unwrap();
            let metadata = reader.fetch_metadata(None, Duration::from_secs(10)).unwrap();
            let mut topics: Vec<_> =
                metadata.topics().iter().map(|t| (t.name(), t.partitions().len())).collect();
            topics.sort();
            assert_eq!(topics, [("in", 3), ("out", 3)]);
        }
    }
}
