//! Local checkpoints on a real broker: after a kill only the tail of the state topic is read, and whatever is wrong
//! with a file, the outputs are those of replay.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use stagecast::time::sleep;

use crate::process::Process;
use crate::records::{Isolation, until};
use crate::service::{committed, free_address, input_of};
use crate::world::World;

const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 3;
/// So that no partition goes from one worker to another, which would restore it twice.
const ONE_WORKER: &str = "app.workers=1";
/// Said once for each partition whose checkpoint is passed over.
const PASSED_OVER: &str = "the checkpoint is not used";

/// A world with checkpoints in `folder`, and small transactions.
fn world(name: &str, folder: &Path) -> World {
    let extra = format!(
        "[commit]\ninterval = \"10ms\"\ncatch_up = \"10ms\"\nmax_records = 40\n\
         [state]\ncheckpoint_dir = {:?}\ncheckpoint_every = \"100ms\"\n",
        folder.display().to_string()
    );
    World::new(name, PARTITIONS, &extra)
}

fn files(world: &World, folder: &Path) -> Vec<PathBuf> {
    let folder = folder.join(&world.app).join(format!("{}-state", world.app));
    (0..PARTITIONS).map(|partition| folder.join(format!("{partition}.checkpoint"))).collect()
}

fn modified(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

/// Records in the state topic, of every partition.
fn states(world: &World) -> u64 {
    world.kafka.read(&[&world.topic("state")], Isolation::Committed).len() as u64
}

/// What restores said that they read: of the topic, and of files.
fn read_by(log: &str) -> (u64, u64) {
    let number = |line: &str, name: &str| -> u64 {
        let rest = line.split(&format!(" {name}=")).nth(1).unwrap_or_else(|| panic!("{name} in {line}"));
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let restores: Vec<&str> = log.lines().filter(|line| line.contains(" restored ")).collect();
    assert!(!restores.is_empty(), "{log}");
    restores.iter().fold((0, 0), |(records, from_files), line| {
        (records + number(line, "records"), from_files + number(line, "from_files"))
    })
}

/// Loads and consumes a part of the events, from one place in time to another, and stops in good order.
fn run_through(world: &World, from: f64, to: f64) -> String {
    world.load(from, to);
    let mut process = world.start("box-0", &["run", "--set", ONE_WORKER], &[]);
    process.line_with(" restored ", SOON);
    until("everything to be consumed", || committed(world) >= world.count(to));
    process.terminate();
    assert_eq!(process.exit_code(SOON), Some(0), "{}", process.stderr());
    process.stderr()
}

/// Consumes everything up to there, so that every partition has a file that goes on in the midst of its topic: a run
/// has one where the brokers told it in time where the topic ends, the next one knows that from the topic, and what is
/// written in the second cannot begin the topic.
fn run_thrice(world: &World, to: f64) {
    for third in 0..3 {
        run_through(world, to * f64::from(third) / 3.0, to * f64::from(third + 1) / 3.0);
    }
}

fn metric(process: &mut Process, address: &str, outcome: &str) -> u64 {
    let metrics = process.answer(address, "/metrics", SOON);
    let line = format!("stagecast_checkpoints_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|l| l.strip_prefix(&line)).unwrap().parse().unwrap()
}

#[test]
fn after_a_kill_only_the_tail_is_read_and_nothing_is_lost_or_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = world("checkpoints", folder.path());
    world.simulate(150, 200, 21);
    world.load(0.0, 0.7);
    let all = world.count(0.7);
    let mut process = world.start("box-0", &["run"], &[]);
    // Until every partition has had its turn, late in the backlog.
    until("most to be consumed", || committed(&world) > all / 2);
    let seen: Vec<_> = files(&world, folder.path()).iter().map(|file| modified(file)).collect();
    until("every checkpoint to be replaced", || {
        let now = files(&world, folder.path());
        now.iter().zip(&seen).all(|(file, seen)| modified(file) > *seen) || committed(&world) == all
    });
    process.kill();
    process.exit_code(SOON);
    assert!(!process.stderr().contains(PASSED_OVER), "{}", process.stderr());
    let in_topic = states(&world);
    let restarted = world.finish(&["run", "--until-end"], &[]);
    assert!(!restarted.contains(PASSED_OVER), "{restarted}");
    let (records, from_files) = read_by(&restarted);
    assert!(from_files > 100, "{from_files} records from files");
    assert!(records < in_topic / 2, "{records} of {in_topic} records of the topic were read");
    // Kills at other moments, some of them while a file is written.
    world.load(0.7, 1.0);
    for n in 0..6 {
        let before = committed(&world);
        let mut process = world.start("box-0", &["run"], &[]);
        until("the service to be at work", || {
            committed(&world) > before || before == input_of(&world) as i64
        });
        sleep(Duration::from_millis(n * 37));
        process.kill();
        process.exit_code(SOON);
        assert!(!process.stderr().contains(PASSED_OVER), "{}", process.stderr());
    }
    world.finish_and_check();
}

#[test]
fn after_a_clean_stop_next_to_nothing_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = world("checkpoints-stop", folder.path());
    world.simulate(100, 100, 22);
    run_thrice(&world, 0.6);
    let in_topic = states(&world);
    let address = free_address();
    let listen = format!("http.listen={address}");
    let mut process = world.start("box-0", &["run", "--set", ONE_WORKER, "--set", &listen], &[]);
    process.answer(&address, "/readyz", SOON);
    assert_eq!(metric(&mut process, &address, "used"), PARTITIONS as u64);
    assert_eq!(metric(&mut process, &address, "refused"), 0);
    let (records, from_files) = read_by(&process.stderr());
    assert!(from_files > 60 && records < in_topic / 10, "{from_files}, and {records} of {in_topic}");
    process.kill();
    process.exit_code(SOON);
    let log = run_through(&world, 0.6, 1.0);
    assert!(!log.contains(PASSED_OVER) && read_by(&log).1 > 60, "{log}");
    world.finish_and_check();
}

#[test]
fn a_file_that_is_damaged_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = world("checkpoints-damage", folder.path());
    world.simulate(80, 100, 23);
    run_thrice(&world, 0.5);
    let in_topic = states(&world);
    let files = files(&world, folder.path());
    let whole: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    // One has another bit in the middle, one is cut short, one is of another partition.
    let mut damaged = whole.clone();
    let middle = damaged[0].len() / 2;
    damaged[0][middle] ^= 1;
    damaged[1].truncate(whole[1].len() - 1);
    damaged[2] = whole[1].clone();
    files.iter().zip(&damaged).for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
    let log = run_through(&world, 0.5, 0.8);
    assert_eq!(log.matches(PASSED_OVER).count(), 3, "{log}");
    for why in ["a checksum is wrong", "it ends too early", "-state [1] of application"] {
        assert!(log.contains(why), "{why}: {log}");
    }
    assert_eq!(read_by(&log), (in_topic, 0));
    // What was written since is as good as any.
    let log = run_through(&world, 0.8, 1.0);
    assert!(!log.contains(PASSED_OVER) && read_by(&log).1 > 0, "{log}");
    // A file of long ago is as good: only the tail is longer.
    files.iter().zip(&whole).for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
    let log = run_through(&world, 1.0, 1.0);
    assert!(!log.contains(PASSED_OVER) && read_by(&log).1 > 0, "{log}");
    world.finish_and_check();
}

#[test]
fn a_file_of_a_topic_that_was_created_anew_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = world("checkpoints-anew", folder.path());
    world.simulate(60, 100, 24);
    run_thrice(&world, 0.3);
    let files = files(&world, folder.path());
    let of_first: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    // Everything is created anew, the group's offsets included.
    let inputs = ["clickstream", "purchase", "support", "profile"];
    let others = [
        "stage-changes",
        "churn-scores",
        "churn-alerts",
        "churn-outcomes",
        "state",
        "identity",
        "dlq",
        "erasures",
    ];
    let topics: Vec<String> = inputs.iter().chain(&others).map(|name| world.topic(name)).collect();
    topics.iter().for_each(|topic| world.kafka.delete_topic(topic));
    world.kafka.delete_group(&world.app);
    world.finish(&["topics", "create", "--inputs"], &[]);
    // At first the topic is shorter than the files say.
    let log = run_through(&world, 0.0, 0.9);
    assert_eq!(log.matches(PASSED_OVER).count(), 3, "{log}");
    assert!(log.contains("re-created or truncated"), "{log}");
    // Then it is longer, and nothing but the name of the log tells.
    files.iter().zip(&of_first).for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
    let log = run_through(&world, 0.9, 1.0);
    assert_eq!(log.matches(PASSED_OVER).count(), 3, "{log}");
    assert!(log.contains("another one than it was taken of"), "{log}");
    world.finish_and_check();
}
