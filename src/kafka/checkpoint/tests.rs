//! Which checkpoints may be used, how they come and go as files, and that a task comes back from one and the tail of
//! its log as it was, whatever happened while the checkpoint was taken.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::format::Frame;
use super::sweep::Sweep;
use super::*;
use crate::config::Clock;
use crate::event::{Event, Field, Numbers, ProfileChange, Source};
use crate::kafka::marker;
use crate::kafka::restore::Reading;
use crate::kafka::task::{Task, Timing};
use crate::kafka::worker::write_states;
use crate::pipeline::engine::Engine;
use crate::pipeline::plan::Plan;
use crate::time::{DAY_MS, HOUR_MS};

const NOW: Ts = 1_767_225_600_000;

fn checkpoints(folder: &Path, instance: &str) -> Checkpoints {
    Checkpoints {
        folder: folder.to_owned(),
        every: Duration::from_secs(1),
        cluster: "cluster-1".into(),
        app: "app".into(),
        topic: "app-state".into(),
        instance: instance.into(),
        age_most_ms: 12 * HOUR_MS,
        written: AtomicU64::new(0),
    }
}

fn header(of: &Checkpoints) -> Header {
    of.header(2, "log-1", 7, Anchor { from: 100, taken_at: NOW })
}

fn write(to: &Checkpoints, header: &Header, value: &[u8]) {
    let mut file = to.begin(header).unwrap();
    let mut frame = Frame::new();
    frame.put(b"key", value);
    file.records(&frame).unwrap();
    assert!(file.finish(5).unwrap() > 100);
}

#[test]
fn a_checkpoint_is_used_only_where_everything_fits() {
    let dir = tempfile::tempdir().unwrap();
    let ours = checkpoints(dir.path(), "box-0");
    let fits = header(&ours);
    let (bounds, now) = ((0, 150), NOW + HOUR_MS);
    let check = |header: &Header, bounds, now| ours.check(header, 2, 7, bounds, now);
    assert_eq!(check(&fits, bounds, now), Ok(()));
    assert_eq!(check(&fits, (100, 100), NOW - CLOCK_SKEW_MS), Ok(()), "at every limit");
    assert_eq!(check(&fits, (100, 100), NOW + 12 * HOUR_MS), Ok(()), "at every limit");
    for (wrong, word) in [
        (Header { cluster: "cluster-2".into(), ..fits.clone() }, "cluster-2"),
        (Header { app: "other".into(), ..fits.clone() }, "other"),
        (Header { topic: "topic-2".into(), ..fits.clone() }, "topic-2"),
        (Header { partition: 3, ..fits.clone() }, "[3]"),
        (Header { layout: 8, ..fits.clone() }, "another configuration"),
        (Header { from: 151, ..fits.clone() }, "re-created"),
        (Header { taken_at: NOW - 12 * HOUR_MS, ..fits.clone() }, "delete.retention.ms"),
        (Header { taken_at: NOW + 2 * HOUR_MS, ..fits.clone() }, "clock"),
    ] {
        let refused = check(&wrong, bounds, now).unwrap_err();
        assert!(refused.contains(word), "{refused}");
    }
    assert!(check(&fits, (101, 150), now).unwrap_err().contains("holds 101 to 150"), "records were deleted");
    assert!(check(&fits, bounds, i64::MAX).is_err() && check(&fits, bounds, i64::MIN).is_err());
}

#[test]
fn a_file_appears_whole_and_replaces_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let ours = checkpoints(dir.path(), "box-0");
    let header = header(&ours);
    let open = || ours.open(2, 7, (0, 150), NOW);
    assert!(open().unwrap().is_none());
    let mut unfinished = ours.begin(&header).unwrap();
    unfinished.records(&Frame::new()).unwrap();
    assert!(open().unwrap().is_none(), "it is not there before it is whole");
    drop(unfinished);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "and goes when it is given up");
    for value in [&b"first"[..], b"second"] {
        write(&ours, &header, value);
        let (found, reader) = open().unwrap().unwrap();
        assert_eq!(found, header);
        let mut values = Vec::new();
        let trailer = reader.read(|_, value| {
            values.push(value.to_vec());
            Ok::<(), Bad>(())
        });
        assert_eq!((values, trailer.unwrap().sequence), (vec![value.to_vec()], 5));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        fs::metadata(ours.path(2)).unwrap().permissions().mode() & 0o777,
        0o600,
        "it is about persons"
    );
    fs::write(ours.path(2), b"something else entirely").unwrap();
    assert!(open().is_err_and(|why| why.contains("no checkpoint")));
}

#[test]
fn what_is_of_no_use_any_more_is_deleted_and_what_others_are_at_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let ours = checkpoints(dir.path(), "box-0");
    let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let kept = ["1.checkpoint", "4.box-1-0.unfinished", "5.x.box-0-0.unfinished", "notes"];
    let deleted = ["0.checkpoint", "3.box-0-7.unfinished", "6.box-1-1.unfinished"];
    for name in kept.iter().chain(&deleted) {
        let file = File::create(dir.path().join(name)).unwrap();
        if ["0.checkpoint", "6.box-1-1.unfinished", "notes"].contains(name) {
            file.set_modified(old).unwrap();
        }
    }
    ours.clean();
    let mut left: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, kept);
    // Once it has written, what is unfinished may be its own work at hand.
    write(&ours, &header(&ours), b"v");
    fs::write(dir.path().join("3.box-0-9.unfinished"), b"").unwrap();
    ours.clean();
    assert!(dir.path().join("3.box-0-9.unfinished").exists());
}

/// A log of one partition: records with their offsets; and the task that writes it.
struct World {
    log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    task: Task,
    seed: u64,
    ts: Ts,
}

fn plan() -> Arc<Plan> {
    static PLAN: OnceLock<Arc<Plan>> = OnceLock::new();
    Arc::clone(PLAN.get_or_init(|| Arc::new(setup::plan(&Config::default(), None).unwrap())))
}

fn task_of(engine: Engine, sequence: u64) -> Task {
    let timing = Timing { clock: Clock::Events, grace_ms: 0, max_future_ms: 0 };
    Task::new(0, 1, Arc::new([]), timing, engine, sequence, Vec::new()).with_log(Some("log-1".into()))
}

/// Everything that a sweep over the task gives.
fn content(task: &Task) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut sweep = Sweep::default();
    records_of(&mut sweep, task, Tick::now().plus(Duration::from_secs(60))).into_iter().collect()
}

/// The records of the frames that a sweep fills up to `until`.
fn records_of(sweep: &mut Sweep, task: &Task, until: Tick) -> Vec<(Vec<u8>, Vec<u8>)> {
    let checkpoints = checkpoints(Path::new("nowhere"), "box-0");
    let mut writer = Writer::begin(Vec::new(), &header(&checkpoints)).unwrap();
    loop {
        let mut frame = Frame::new();
        let done = sweep.fill(task, &mut frame, until);
        writer.records(&frame).unwrap();
        if done || Tick::now() >= until {
            break;
        }
    }
    let bytes = writer.finish(0).unwrap();
    let mut records = Vec::new();
    let (_, reader) = Reader::open(&bytes[..]).unwrap();
    let read = reader.read(|key, value| {
        records.push((key.to_vec(), value.to_vec()));
        Ok::<(), Bad>(())
    });
    read.unwrap();
    records
}

impl World {
    fn new(seed: u64) -> World {
        let mut engine = Engine::new(plan(), true);
        let redirect = br#"{"v":1,"target":"c3","until":1900000000000}"#;
        assert!(engine.restore_identity(b"\xffredirect c-before", Some(redirect)).unwrap());
        let mut world = World { log: Vec::new(), task: task_of(engine, 0), seed, ts: NOW };
        world.log.push((b"\xffredirect c-before".to_vec(), Some(redirect.to_vec())));
        world
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    /// Some events, among them erasures.
    fn live(&mut self, customers: u64) {
        for _ in 0..1 + self.random(12) {
            self.ts += self.random(6 * HOUR_MS as u64) as i64;
            let mut numbers = Numbers::default();
            numbers.set(Field::Amount, 1.0 + self.random(90) as f64);
            let (source, name, profile) = match self.random(10) {
                0 => (Source::Profile, "customer_deleted", Some(Box::new(ProfileChange::Deleted))),
                1..=4 => (Source::Purchase, "order_completed", None),
                _ => (Source::Clickstream, "product_viewed", None),
            };
            let customer_id = format!("c{}", self.random(customers));
            // Old enough for whoever was erased to begin anew, now and then.
            self.ts += if self.random(40) == 0 { 31 * DAY_MS } else { 0 };
            let event = Event {
                source,
                customer_id: customer_id.into(),
                name: name.into(),
                ts: self.ts,
                event_id: None,
                numbers,
                profile,
                channel: None,
            };
            self.task.engine_mut().step(&event);
            self.task.changed = true;
        }
        self.task.engine_mut().outbox.clear();
    }

    fn commit(&mut self) {
        let (mut buffer, log) = (Vec::new(), &mut self.log);
        write_states::<()>(&self.task, &mut buffer, |key, value| {
            log.push((key.to_vec(), value.map(<[u8]>::to_vec)));
            Ok(())
        })
        .unwrap();
        self.task.commit();
    }

    /// What a reader makes of a checkpoint and of the log from an offset on, of which compaction has left what is
    /// the last of its key.
    fn read(&self, records: &[(Vec<u8>, Vec<u8>)], from: usize) -> (Task, marker::Found) {
        let plan = plan();
        let mut reading = Reading::new(&plan, "state", 0);
        for (key, value) in records {
            reading.take(from as i64, key, Some(value)).unwrap();
        }
        let last: BTreeMap<&[u8], usize> =
            self.log.iter().enumerate().map(|(at, (key, _))| (&key[..], at)).collect();
        for (at, (key, value)) in self.log.iter().enumerate().skip(from) {
            if last[&key[..]] == at {
                reading.take(at as i64, key, value.as_deref()).unwrap();
            }
        }
        let (engine, found) = reading.finish().unwrap();
        let resume = marker::resume(0, 1, &found, &[]).unwrap();
        (task_of(engine, resume.sequence), found)
    }
}

const NOTHING: [String; 0] = [];

/// Everything of a task once its clock has run on: states are written as of the last instant at which something came
/// of them, and memory may have lived through more silence.
fn after_silence(task: &mut Task, until: Ts) -> BTreeMap<Vec<u8>, Vec<u8>> {
    task.engine_mut().run_until(until);
    task.engine_mut().outbox.clear();
    task.commit();
    content(task)
}

/// The keys of what differs.
fn differing(one: &BTreeMap<Vec<u8>, Vec<u8>>, other: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<String> {
    let keys = one.keys().chain(other.keys()).filter(|key| one.get(*key) != other.get(*key));
    keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

#[test]
fn a_checkpoint_and_the_tail_make_what_the_whole_log_makes_whatever_happened_meanwhile() {
    let mut swept_in_pieces = 0;
    for seed in 0..12 {
        let mut world = World::new(seed);
        for _ in 0..1 + world.random(20) {
            world.live(150);
            world.commit();
        }
        // As a worker does it: where does the topic end, then a transaction, then the sweep.
        let from = world.log.len();
        world.live(150);
        world.commit();
        let (mut sweep, mut records, mut pieces) = (Sweep::default(), Vec::new(), 0);
        loop {
            let before = records.len();
            // No time at all: a piece is as short as can be.
            records.extend(records_of(&mut sweep, &world.task, Tick::now()));
            pieces += 1;
            if records.len() == before {
                break;
            }
            for _ in 0..world.random(3) {
                world.live(200);
                if world.random(4) == 0 { world.task.rollback() } else { world.commit() }
            }
        }
        swept_in_pieces += usize::from(pieces > 3);
        for _ in 0..world.random(5) {
            world.live(200);
            world.commit();
        }
        let (mut whole, found) = world.read(&[], 0);
        let (mut part, found_in_part) = world.read(&records, from);
        assert_eq!(part.sequence(), world.task.sequence());
        assert_eq!(found_in_part.states, found.states);
        assert!(part.undescribed().is_empty() && content(&part).len() > 5);
        // What a restore says of its own beginning is good for the next checkpoint.
        let of_part: Vec<_> = content(&part).into_iter().collect();
        let (mut again, _) = world.read(&of_part, found_in_part.last_from.unwrap() as usize);
        let until = world.ts + 30 * DAY_MS;
        let expected = after_silence(&mut world.task, until);
        for (name, task) in
            [("log", &mut whole), ("checkpoint", &mut part), ("second checkpoint", &mut again)]
        {
            assert_eq!(differing(&after_silence(task, until), &expected), NOTHING, "seed {seed}, {name}");
            assert_eq!(task.engine().population(), world.task.engine().population());
        }
    }
    assert!(swept_in_pieces > 6, "{swept_in_pieces}");
}

#[test]
fn a_tail_that_begins_too_late_is_seen_by_the_marker() {
    let mut world = World::new(7);
    for _ in 0..5 {
        world.live(50);
        world.commit();
    }
    let records: Vec<_> = content(&world.task).into_iter().collect();
    let plan = plan();
    let mut reading = Reading::new(&plan, "state", 0);
    for (key, value) in &records {
        reading.take(0, key, Some(value)).unwrap();
    }
    let at = world.log.len() - 1;
    let (key, value) = &world.log[at];
    reading.take(at as i64, key, value.as_deref()).unwrap();
    let (_, found) = reading.finish().unwrap();
    assert!(marker::resume(0, 1, &found, &[]).is_err_and(|why| why.contains("torn")));
}

#[test]
fn nothing_is_saved_that_is_not_committed_or_waits_to_be_described_or_reconciled() {
    let mut world = World::new(1);
    world.live(5);
    assert!(!world.task.is_savable());
    world.commit();
    assert!(world.task.is_savable());
    world.live(5);
    assert!(!world.task.is_savable());
    world.task.rollback();
    assert!(world.task.is_savable());
    assert!(!task_of(Engine::new(plan(), true), 0).is_savable(), "nothing describes its layout yet");
}
