//! The consumer of the inputs, on a real broker.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Message, Offset, TopicPartitionList};
use stagecast::kafka::clients::ClientSettings;
use stagecast::kafka::members::{self, Member, Request};
use stagecast::time::Tick;

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
    members::close(member);
}

/// Closes a member, which must come to an end by itself.
fn close(member: Member, what: &str) {
    let started = Tick::now();
    members::close(member);
    assert!(started.elapsed() < Duration::from_secs(9), "a member does not close: {what}");
}

#[test]
fn a_member_closes_whatever_the_group_still_asks() {
    let kafka = RealKafka::shared();
    let topic = kafka.topic("in", 2, &[]);
    let settings = ClientSettings::new(&kafka.bootstrap(), &fresh("app"), "box-0");
    let join = |worker| members::join(&settings, worker, &[&topic]).unwrap();

    let first = join(0);
    assert!(matches!(request(&first), Request::Assign(_)));
    close(first, "it was asked to take partitions");

    let first = join(0);
    let Request::Assign(partitions) = request(&first) else { panic!("nothing was there to revoke") };
    members::assign(&first, &from_the_beginning(&partitions)).unwrap();
    let second = join(1);
    until("the group asks for partitions back", || {
        drop(second.poll(POLL));
        drop(first.poll(POLL));
        matches!(first.context().next(), Some(Request::Revoke { .. }))
    });
    close(first, "it was asked for partitions");
    close(second, "it was joining");
}
