//! `stagecast train --from-kafka`: topics and files that hold the same events make the same model.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use stagecast::event::Source;
use stagecast::simulate::START;
use stagecast::time::DAY_MS;

use crate::records::fresh;
use crate::world::{World, event};

const ANSWER_MAX: Duration = Duration::from_secs(30);

fn train(world: &World, args: &[&str], folder: &Path) -> (Vec<u8>, Vec<u8>) {
    fs::create_dir_all(folder).unwrap();
    let output = folder.join("churn.json");
    let output_text = output.to_string_lossy().into_owned();
    world.finish(&[&["train", "--output", &output_text], args].concat(), &[]);
    (fs::read(&output).unwrap(), fs::read(output.with_extension("md")).unwrap())
}

#[test]
fn topics_and_files_of_the_same_events_make_the_same_model_byte_for_byte() {
    let mut world = World::new("training", 5, "");
    world.simulate(120, 200, 9);
    world.load(0.0, 1.0);
    let scratch = tempfile::tempdir().unwrap();
    let events = scratch.path().join("events");
    fs::create_dir(&events).unwrap();
    for source in Source::ALL {
        let lines = world.events[source.index()].iter().map(|(_, json)| format!("{json}\n"));
        fs::write(events.join(format!("{}.ndjson", source.name())), lines.collect::<String>()).unwrap();
    }
    let events = events.to_string_lossy().into_owned();
    let from_files = train(&world, &["--input", &events], &scratch.path().join("files"));
    let from_topics = train(&world, &["--from-kafka"], &scratch.path().join("topics"));
    assert!(from_files == from_topics, "the models or their cards differ");

    // An aborted and an open transaction end every partition now: neither's records are history.
    let producer = world.transaction();
    producer.abort_transaction(ANSWER_MAX).unwrap();
    let open = world.transaction();
    let after = train(&world, &["--from-kafka"], &scratch.path().join("after"));
    assert!(from_files == after, "a record was learned from that is not committed");
    drop(open);
}

impl World {
    /// A transaction, still open, that brings orders of unknown customers to every partition.
    fn transaction(&self) -> BaseProducer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.kafka.bootstrap())
            .set("transactional.id", fresh(&self.app))
            .create()
            .unwrap();
        producer.init_transactions(ANSWER_MAX).unwrap();
        producer.begin_transaction().unwrap();
        for n in 0..40 * self.partitions {
            let key = format!("nobody-{n}");
            let json = event(&key, "order_completed", START + 100 * DAY_MS, r#","amount":1"#);
            let (topic, partition) = (self.topic("purchase"), n % self.partitions);
            let record = BaseRecord::to(&topic).key(&key).payload(&json).partition(partition);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(ANSWER_MAX).unwrap();
        producer
    }
}
