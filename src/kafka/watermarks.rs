//! Where a partition begins and ends, asked until its leader is known.
//!
//! librdkafka hands on what a broker says that does not lead the partition (yet, or any more): right after a topic
//! was made, and while leaders move. That is no answer, so it is asked again.

use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};

use crate::time::{Tick, sleep};

const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The first offset that is there and the one after the last, as `reader` sees them.
///
/// # Errors
/// The broker's, at the latest after twice `patience`.
pub fn watermarks<C: ClientContext + ConsumerContext>(
    reader: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    patience: Duration,
) -> KafkaResult<(i64, i64)> {
    let began = Tick::now();
    loop {
        let answer = reader.fetch_watermarks(topic, partition, patience);
        let code = answer.as_ref().err().and_then(|error| error.rdkafka_error_code());
        if !code.is_some_and(is_about_leaders) || began.elapsed() >= patience {
            return answer;
        }
        sleep(ASK_AGAIN);
    }
}

fn is_about_leaders(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::ReplicaNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
    )
}
