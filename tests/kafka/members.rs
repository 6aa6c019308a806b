//! The consumer of the inputs, on a real broker.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Message, Offset, TopicPartitionList};
use stagecast::kafka::clients::ClientSettings;
use stagecast::kafka::members::{self, Member, Request};

use crate::broker::RealKafka;
use crate::records::{Record, fresh, until};

const POLL: Duration = Duration::from_millis(50);

/// Polls until the group asks something.
pub fn request(member: &Member) -> Request {
    let mut request = None;
    until("the group asks", || {
        drop(member.poll(POLL));
        request = member.context().next();
        request.is_some()
    });
    request.unwrap()
}

/// Polls until a record comes; returns its text.
fn next(member: &Member) -> String {
    let mut text = None;
    until("a record comes", || {
        if let Some(Ok(message)) = member.poll(POLL) {
            text = message.payload().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        }
        text.is_some()
    });
    text.unwrap()
}

fn from_the_beginning(partitions: &TopicPartitionList) -> TopicPartitionList {
    let mut from = partitions.clone();
    from.set_all_offsets(Offset::Offset(0)).unwrap();
    from
}

#[test]
fn a_partition_that_was_held_back_when_it_was_revoked_is_read_after_it_came_back() {
    let kafka = RealKafka::shared();
    let topic = kafka.topic("in", 1, &[]);
    kafka.produce(&topic, [Record::new("k", "first")]);
    let settings = ClientSettings::new(&kafka.bootstrap(), &fresh("app"), "box-0");
    let member = members::join(&settings, 0, &[&topic]).unwrap();
    let Request::Assign(partitions) = request(&member) else { panic!("nothing was there to revoke") };
    members::assign(&member, &from_the_beginning(&partitions)).unwrap();
    assert_eq!(next(&member), "first");

    member.pause(&partitions).unwrap();
    members::unassign(&member, &partitions).unwrap();
    members::assign(&member, &from_the_beginning(&partitions)).unwrap();
    assert_eq!(next(&member), "first");
    members::prepare_to_close(&member);
}
