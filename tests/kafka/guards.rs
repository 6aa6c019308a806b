//! What each guard is there for: with it removed the checker finds a violation, with it in place none, all else
//! being equal. So the guard works, and the checker can fail.

use std::fs;
use std::time::Duration;

use stagecast::time::sleep;

use crate::checker::{self, Kind, Violation, kinds};
use crate::process::Process;
use crate::world::{UNTIL, World};

const SOON: Duration = Duration::from_secs(90);
/// Small transactions, and time for what a test has to do in the middle of one.
const SETTINGS: &str = "[commit]\ninterval = \"10ms\"\ncatch_up = \"10ms\"\nmax_records = 40\n\
    [kafka.producer]\n\"transaction.timeout.ms\" = 60000\n";
const TO_THE_END: [&str; 6] = ["run", "--until-end", "--set", "app.workers=1", "--until", UNTIL];

fn world(name: &str, seed: u64) -> World {
    let mut world = World::new(name, 1, SETTINGS);
    world.simulate(12, 60, seed);
    world.load(0.0, 1.0);
    world
}

fn start(world: &World, instance: &str, args: &[&str], faults: &[&str]) -> Process {
    world.start(instance, args, &[("STAGECAST_FAULT", &faults.join(","))])
}

fn let_go(process: &Process) {
    fs::write(process.folder().join("go"), "").unwrap();
}

/// What is wrong after the rest was done.
fn finish(world: &World) -> Vec<Violation> {
    let mut process = world.start("box-0", &TO_THE_END, &[]);
    judge(world, &mut process)
}

/// What is wrong after this process has done its work, or refused to.
fn judge(world: &World, process: &mut Process) -> Vec<Violation> {
    match process.exit_code(SOON) {
        Some(0) => checker::violations(world),
        _ => vec![Violation { kind: Kind::Refused, what: process.stderr() }],
    }
}

/// What is wrong after a process that is held was frozen, an heir did all the work, and the first went on.
fn outlived(world: &World, zombie: &mut Process) -> Vec<Violation> {
    zombie.freeze();
    let mut heir = start(world, "box-1", &TO_THE_END, &[]);
    assert_eq!(heir.exit_code(SOON), Some(0), "{}", heir.stderr());
    let_go(zombie);
    zombie.thaw();
    judge(world, zombie)
}

/// Killed in mid-transaction, at this point, when the broker has what was sent so far.
fn killed_at(point: &str, without: &str) -> Vec<Violation> {
    let world = world("guard-transaction", 21);
    let held = format!("{point}:4:hold");
    let mut process = start(&world, "box-0", &["run", "--set", "app.workers=1"], &[&held, without]);
    process.line_with("held at", SOON);
    sleep(Duration::from_millis(500));
    process.kill();
    finish(&world)
}

#[test]
fn records_outside_the_transaction_are_found_twice() {
    checker::expect_none(&killed_at("before_states", ""));
    let wrong = kinds(&killed_at("before_states", "without:transaction"));
    assert!(wrong.contains(&Kind::Duplicate), "{wrong:?}");
}

#[test]
fn states_outside_the_transaction_are_refused_as_torn() {
    let wrong = killed_at("before_commit", "without:transaction");
    assert_eq!(kinds(&wrong), [Kind::Refused].into());
    assert!(wrong[0].what.contains("a transaction is torn"), "{}", wrong[0].what);
}

/// A worker freezes in a transaction that only silence filled; another takes over and does that work; the
/// first wakes up and commits.
fn woken_in_silence(without: &str) -> Vec<Violation> {
    let world = world("guard-positions", 22);
    world.finish(&["run", "--until-end"], &[]);
    let mut zombie = start(&world, "box-0", &TO_THE_END, &["before_states:1:hold", without]);
    zombie.line_with("held at", SOON);
    outlived(&world, &mut zombie)
}

#[test]
fn a_silent_transaction_without_positions_lets_a_zombie_write() {
    checker::expect_none(&woken_in_silence(""));
    let wrong = kinds(&woken_in_silence("without:silent_positions"));
    assert!(wrong.contains(&Kind::Duplicate) && wrong.contains(&Kind::AlertTwice), "{wrong:?}");
}

/// A worker freezes while it restores; another takes over and does all the work; the first wakes up to offsets and
/// states that do not fit what it has read, which is nobody's fault.
#[test]
fn who_wakes_up_while_it_restores_does_not_take_its_heirs_work_for_damage() {
    let world = world("guard-asleep", 25);
    let mut zombie = start(&world, "box-0", &TO_THE_END, &["state_read:1:hold"]);
    zombie.line_with("held at", SOON);
    checker::expect_none(&outlived(&world, &mut zombie));
    assert!(zombie.stderr().contains("looking again"), "{}", zombie.stderr());
}

/// A worker freezes when its positions are in the transaction and only the end is missing; another takes over
/// and reads the state; the first wakes up and ends the transaction, which no generation forbids.
fn ended_while_another_restores(without: &[&str]) -> Vec<Violation> {
    let world = world("guard-restore", 23);
    let dies_after = ["before_end:3:hold", "after_commit:3:die"];
    let mut first = start(&world, "box-0", &["run", "--set", "app.workers=1"], &dies_after);
    first.line_with("held at", SOON);
    first.freeze();
    let faults = [without, &["state_read:1:hold"]].concat();
    let mut heir = start(&world, "box-1", &TO_THE_END, &faults);
    if without.is_empty() {
        // It waits for the transaction, so that no point is reached; by now it has the partition.
        sleep(Duration::from_secs(8));
    } else {
        heir.line_with("held at", SOON);
    }
    let_go(&first);
    first.thaw();
    assert_eq!(first.exit_code(SOON), None, "it dies of its own fault");
    let_go(&heir);
    judge(&world, &mut heir)
}

#[test]
fn a_restore_that_stops_at_the_last_stable_offset_misses_a_transaction() {
    checker::expect_none(&ended_while_another_restores(&[]));
    // What was read does not fit the group's offsets; looked at again, it does.
    checker::expect_none(&ended_while_another_restores(&["without:restore_to_end"]));
    let both = ["without:restore_to_end", "without:agreement"];
    let wrong = kinds(&ended_while_another_restores(&both));
    assert!(wrong.contains(&Kind::State) && wrong.contains(&Kind::LostWrite), "{wrong:?}");
}

fn aborted(without: &str) -> Vec<Violation> {
    let world = world("guard-rollback", 24);
    let faults = ["before_commit:3:fail", "before_commit:7:fail", without];
    let mut process = start(&world, "box-0", &TO_THE_END, &faults);
    process.line_with("taking the transaction back", SOON);
    judge(&world, &mut process)
}

#[test]
fn an_abort_that_takes_no_customer_back_counts_events_twice_or_not_at_all() {
    checker::expect_none(&aborted(""));
    let wrong = kinds(&aborted("without:rollback"));
    assert!(wrong.contains(&Kind::LostWrite) && wrong.contains(&Kind::State), "{wrong:?}");
}
