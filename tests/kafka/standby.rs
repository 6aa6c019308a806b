//! What is here of partitions that nobody of a process owns, on a real broker: what others own is read along, and what
//! was given up is kept for a moment. Whoever takes over has it already, and goes on as if it had read all.

use std::time::Duration;

use stagecast::event::Source;

use crate::process::Process;
use crate::records::{Isolation, until};
use crate::service::{committed, free_address};
use crate::world::{World, time_of};

const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
const SETTINGS: &str =
    "[commit]\ninterval = \"10ms\"\ncatch_up = \"10ms\"\nmax_records = 40\n[state]\nstandby = true\n";

fn standby_partitions(process: &mut Process, address: &str) -> i64 {
    let metrics = process.answer(address, "/metrics", SOON);
    let value = metrics.lines().find_map(|line| line.strip_prefix("stagecast_standby_partitions "));
    value.unwrap().parse().unwrap()
}

/// Of restores that had partitions of this kind: how many partitions, and records that they still had to read.
fn had(kind: &str, log: &str) -> (u64, u64) {
    let number = |line: &str, name: &str| -> u64 {
        let rest = line.split(&format!(" {name}=")).nth(1).unwrap_or_else(|| panic!("{name} in {line}"));
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let restores = log.lines().filter(|line| line.contains(" restored ") && number(line, kind) > 0);
    restores.fold((0, 0), |(partitions, records), line| {
        (partitions + number(line, kind), records + number(line, "records"))
    })
}

fn followed(log: &str) -> (u64, u64) {
    had("followed", log)
}

/// Leaves only clicks after a place in time: topics are loaded one after another, and whoever reads them meanwhile would
/// take the events of the second for late.
fn one_topic_after(world: &mut World, place: f64) {
    let (first, last) = (world.instant(0.0), world.instant(1.0));
    let at = first + ((last - first) as f64 * place) as i64;
    for source in Source::ALL.into_iter().filter(|source| *source != Source::Clickstream) {
        world.events[source.index()].retain(|(_, json)| time_of(json) < at);
    }
}

/// Both at work, and the second has all that the first owns; then the first is killed with a backlog before it, and the
/// second goes on alone.
fn take_over(world: &World, second: &mut Process, second_at: &str, to: f64) {
    let first = world.start("box-0", &["run"], &[]);
    until("what the first owns to be followed", || {
        standby_partitions(second, second_at) == i64::from(PARTITIONS) / 2
    });
    let before = followed(&second.stderr());
    world.load(to - 0.2, to);
    until("some of it to be done", || committed(world) > world.count(to - 0.2));
    first.kill();
    let taken_over = |log: &str| followed(log).0 - before.0;
    until("the second to take over", || taken_over(&second.stderr()) == PARTITIONS as u64 / 2);
    until("all of it to be done", || committed(world) >= world.count(to));
    let (_, records) = followed(&second.stderr());
    let in_topic = world.kafka.read(&[&world.topic("state")], Isolation::Committed).len() as u64;
    let behind = records - before.1;
    assert!(behind < in_topic / 10, "{behind} of {in_topic} records were still to be read");
}

#[test]
fn whoever_takes_over_has_followed_the_state_and_reads_next_to_nothing() {
    let mut world = World::new("standby", PARTITIONS, SETTINGS);
    world.simulate(150, 200, 31);
    one_topic_after(&mut world, 0.4);
    world.load(0.0, 0.4);
    let at = free_address();
    let mut second = world.start("box-1", &["run", "--set", &format!("http.listen={at}")], &[]);
    until("the first part to be done", || committed(&world) >= world.count(0.4));
    // What was its own goes, comes, and is followed in between: twice.
    take_over(&world, &mut second, &at, 0.6);
    take_over(&world, &mut second, &at, 0.8);
    assert!(!second.stderr().contains("is not used"), "{}", second.stderr());
    second.kill();
    world.load(0.8, 1.0);
    world.finish_and_check();
}

#[test]
fn what_a_rebalance_gives_back_is_not_read_again() {
    let mut world = World::new("kept", PARTITIONS, "[commit]\nmax_records = 200\n");
    world.simulate(300, 200, 33);
    one_topic_after(&mut world, 0.6);
    world.load(0.0, 0.6);
    let first = world.start("box-0", &["run", "--set", "app.workers=2"], &[]);
    until("the first part to be done", || committed(&world) >= world.count(0.6));
    // Its own workers may have shared the partitions one after another.
    let before = had("kept", &first.stderr());
    let mut second = world.start("box-1", &["run"], &[]);
    second.line_with("restored", SOON);
    until("the first to have half of its partitions back", || {
        had("kept", &first.stderr()).0 - before.0 >= PARTITIONS as u64 / 2
    });
    let records = had("kept", &first.stderr()).1 - before.1;
    let in_topic = world.kafka.read(&[&world.topic("state")], Isolation::Committed).len() as u64;
    assert!(records < in_topic / 20, "{records} of {in_topic} records were read again");
    assert!(!first.stderr().contains("is not used"), "{}", first.stderr());
    // What was kept is worked with.
    world.load(0.6, 1.0);
    until("all of it to be done", || committed(&world) >= world.count(1.0));
    first.kill();
    second.kill();
    world.finish_and_check();
}
