//! Faults on real brokers, in an order that a seed decides, under the one checker.
//!
//! The short runs belong to the suite. The long ones are ignored there; `tests/faults.sh` runs them and prints a
//! row of figures for each. `STAGECAST_FAULTS_SEED` repeats a run's choices.

use std::fs;
use std::time::Duration;

use stagecast::event::Source;
use stagecast::time::{Tick, sleep, wall_now};

use crate::broker::RealKafka;
use crate::checker;
use crate::process::{Process, get};
use crate::proxy::Weather;
use crate::records::{Isolation, Record, until};
use crate::service::{committed, free_address, input_of};
use crate::world::World;

const SOON: Duration = Duration::from_secs(90);
/// After what was done to it, the service must be through with what there is.
const RECOVERED_MAX: Duration = Duration::from_secs(120);
/// Small transactions, so that there is work for long, which the broker gives up soon.
const MANY: &str = "[commit]\ninterval = \"10ms\"\ncatch_up = \"10ms\"\nmax_records = 4\n\
    [kafka.producer]\n\"transaction.timeout.ms\" = 5000\n";

/// So many customers for so many rounds of trouble that a fast machine is not through with them before the last one,
/// at four records a transaction: it commits more than a thousand records in each second of a round in which the
/// broker is there. What is left over costs little, for the end takes it in large transactions.
fn plenty(rounds: usize) -> u64 {
    60 * rounds as u64
}

/// Choices that a seed repeats.
struct Dice(u64);

impl Dice {
    /// Prints the seed, so that the run can be repeated.
    fn new(what: &str) -> Dice {
        let seed = std::env::var("STAGECAST_FAULTS_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(wall_now() as u64);
        println!("{what}: STAGECAST_FAULTS_SEED={seed}");
        Dice(seed)
    }

    /// A number below `n` (splitmix64).
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll(to - from))
    }
}

/// Durations, of which a row shows the middle, the 95th percentile and the longest.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn at(&mut self, share: f64) -> f64 {
        self.0.sort();
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).round() as usize).map_or(0.0, Duration::as_secs_f64)
    }

    fn text(mut self) -> String {
        let (p50, p95, max) = (self.at(0.5), self.at(0.95), self.at(1.0));
        format!("p50 {p50:.2} s, p95 {p95:.2} s, longest {max:.2} s")
    }
}

/// A running service that can be asked how it is.
struct Service {
    process: Process,
    address: String,
}

impl Service {
    fn start(world: &World, instance: &str, args: &[&str], env: &[(&str, &str)]) -> Service {
        let address = free_address();
        let listen = format!("http.listen={address}");
        let process = world.start(instance, &[&["run", "--set", &listen], args].concat(), env);
        Service { process, address }
    }

    fn status(&self, path: &str) -> Option<u16> {
        get(&self.address, path).map(|(status, _)| status)
    }

    fn commits(&self) -> f64 {
        let Some((200, metrics)) = get(&self.address, "/metrics") else { return 0.0 };
        let line = metrics
            .lines()
            .find_map(|l| l.strip_prefix("stagecast_transactions_total{outcome=\"committed\"} "));
        line.and_then(|n| n.parse().ok()).unwrap_or(0.0)
    }

    /// Still the same process.
    fn must_run(&mut self) {
        assert!(self.process.is_running(), "the service has ended:\n{}", self.process.stderr());
    }
}

/// Does something to the world each time that the service is at work, so many times or until the input is used
/// up; `trouble` returns once the cause is gone. How long it then takes until something is committed again.
///
/// All input is there from the start: of topics that are filled while they are read, each has its own order only.
fn through(world: &World, rounds: usize, mut trouble: impl FnMut(usize)) -> Times {
    let (mut times, all) = (Times::default(), input_of(world) as i64);
    for round in 0..rounds {
        let before = committed(world);
        wait(|| committed(world) > before || before == all);
        trouble(round);
        let (healed, before) = (Tick::now(), committed(world));
        if before == all {
            break;
        }
        wait(|| committed(world) > before);
        println!("round {round}: committing again after {:.2?}", healed.elapsed());
        times.0.push(healed.elapsed());
    }
    println!("{} of {all} events were committed while it lasted", committed(world));
    assert!(times.0.len() * 4 >= rounds * 3, "the input was used up after {} of {rounds}", times.0.len());
    times
}

fn wait(so: impl Fn() -> bool) {
    let started = Tick::now();
    while !so() {
        assert!(started.elapsed() < RECOVERED_MAX, "nothing is committed for {RECOVERED_MAX:?}");
        sleep(Duration::from_millis(20));
    }
}

/// The row of a run whose world was found to be right.
fn report(fault: &str, what: &str, figures: &str) {
    println!("FAULT | {fault} | {what} | 0 violations | {figures} |");
}

fn finish(world: &World) {
    let quickly = ["--set", "commit.max_records=10000", "--set", "commit.catch_up=500ms"];
    world.finish(&[&["run", "--until-end", "--until", crate::world::UNTIL], &quickly[..]].concat(), &[]);
    checker::expect_none(&checker::violations(world));
}

fn kills(count: usize, customers: u64) {
    let mut dice = Dice::new("kill -9 in mid-transaction");
    let mut world = World::new("faults-kills", 4, MANY);
    world.simulate(customers, 200, 31);
    world.load(0.0, 1.0);
    let points = ["before_states", "before_commit", "before_end", "after_commit"];
    // The second transaction of its only worker; the first one is the sign that it is back at work.
    let one_worker = ["--set", "app.workers=1"];
    let mut times = Times::default();
    for kill in 0..count {
        let point = points[dice.roll(4) as usize];
        let fault = format!("{point}:2:hold");
        let started = Tick::now();
        let mut service = Service::start(&world, "box-0", &one_worker, &[("STAGECAST_FAULT", &fault)]);
        until(&format!("kill {kill} meets a service at work"), || service.commits() > 0.0);
        times.0.push(started.elapsed());
        service.process.line_with("held at", SOON);
        sleep(dice.millis(0, 30));
        service.process.kill();
    }
    assert!(committed(&world) < input_of(&world) as i64, "the input was too short for the last kills");
    finish(&world);
    report(
        "F1",
        &format!("kill -9 in mid-transaction × {count}"),
        &format!("from start to first commit: {}", times.text()),
    );
}

#[test]
fn kills_in_mid_transaction_lose_and_repeat_nothing() {
    kills(6, 10);
}

#[test]
#[ignore = "long"]
fn long_kills() {
    kills(100, 50);
}

/// Each heir is the next zombie.
fn zombies(count: usize) {
    let mut dice = Dice::new("SIGSTOP zombies");
    let mut world = World::new("faults-zombies", 2, MANY);
    world.simulate(plenty(count), 100, 32);
    world.load(0.0, 1.0);
    let mut zombie = Service::start(&world, "box-0", &[], &[]);
    until("the first to be ready", || zombie.status("/readyz") == Some(200));
    let times = through(&world, count, |round| {
        sleep(dice.millis(0, 60));
        zombie.process.freeze();
        let heir = Service::start(&world, &format!("box-{}", 1 + round % 2), &[], &[]);
        until("the heir to be at work", || {
            heir.commits() > 0.0 || committed(&world) == input_of(&world) as i64
        });
        zombie.process.thaw();
        sleep(dice.millis(500, 2_500));
        zombie.must_run();
        zombie.process.kill();
        zombie = heir;
    });
    drop(zombie);
    finish(&world);
    report(
        "F3",
        &format!("SIGSTOP beyond the session, an heir, SIGCONT × {count}"),
        &format!("committing again after: {}", times.text()),
    );
}

#[test]
#[ignore = "long"]
fn long_zombies() {
    zombies(10);
}

/// Frozen for longer than its session and its transaction may last, with nobody to take over.
fn pauses(count: usize) {
    let mut dice = Dice::new("SIGSTOP longer than the transaction");
    let mut world = World::new("faults-pauses", 2, MANY);
    world.simulate(plenty(count), 100, 33);
    world.load(0.0, 1.0);
    let mut service = Service::start(&world, "box-0", &[], &[]);
    let times = through(&world, count, |_| {
        sleep(dice.millis(0, 200));
        service.process.freeze();
        sleep(dice.millis(6_500, 8_000));
        service.process.thaw();
    });
    service.must_run();
    drop(service);
    finish(&world);
    report(
        "F4",
        &format!("SIGSTOP longer than the transaction's time-out × {count}"),
        &format!("same process, committing again after: {}", times.text()),
    );
}

#[test]
#[ignore = "long"]
fn long_pauses() {
    pauses(5);
}

/// A broker that nobody else uses; it is killed in the end.
fn own(kafka: RealKafka) -> &'static RealKafka {
    Box::leak(Box::new(kafka))
}

fn outages(count: usize, absence: Duration) {
    let mut dice = Dice::new("broker outages");
    let kafka = own(RealKafka::start(1));
    let mut world = World::on(kafka, "faults-outages", 2, MANY);
    world.simulate(plenty(count + 1), 100, 34);
    world.load(0.0, 1.0);
    let mut service = Service::start(&world, "box-0", &[], &[]);
    until("the service to be ready", || service.status("/readyz") == Some(200));
    let mut absent = Duration::ZERO;
    let times = through(&world, count + 1, |round| {
        sleep(dice.millis(0, 200));
        match (round, round % 3) {
            (last, _) if last == count => {
                kafka.stop(1);
                let gone = Tick::now();
                while gone.elapsed() < absence {
                    sleep(Duration::from_millis(500));
                    assert_eq!(service.status("/healthz"), Some(200), "it lives without a broker");
                }
                kafka.restart(1);
                absent = gone.elapsed();
            }
            (_, 0) => {
                kafka.kill(1);
                kafka.restart(1);
            }
            (_, 1) => {
                kafka.freeze(1);
                sleep(dice.millis(3_000, 8_000));
                kafka.thaw(1);
            }
            _ => {
                kafka.stop(1);
                kafka.restart(1);
            }
        }
    });
    service.must_run();
    println!("{}", service.process.stderr());
    drop(service);
    finish(&world);
    kafka.kill(1);
    let last = times.0.last().map_or(0.0, Duration::as_secs_f64);
    report(
        "F5–F7",
        &format!(
            "broker kill -9, SIGSTOP 3–8 s, stop, in turn × {count}; then {:.0} s of absence",
            absent.as_secs_f64()
        ),
        &format!("no exit; committing again after: {}; after the absence {last:.2} s", times.text()),
    );
}

#[test]
fn a_broker_that_dies_freezes_and_stops_costs_nothing_but_time() {
    outages(3, Duration::from_secs(8));
}

#[test]
#[ignore = "long"]
fn long_outages() {
    outages(15, Duration::from_secs(300));
}

/// One of three brokers dies and comes back, so that leaders and coordinators move.
#[test]
#[ignore = "long"]
fn long_leaders() {
    let count = 9;
    let mut dice = Dice::new("leader moves");
    let kafka = own(RealKafka::start(3));
    let mut world = World::on(kafka, "faults-leaders", 2, MANY);
    world.simulate(plenty(count), 100, 40);
    world.load(0.0, 1.0);
    let mut service = Service::start(&world, "box-0", &[], &[]);
    until("the service to be ready", || service.status("/readyz") == Some(200));
    let times = through(&world, count, |round| {
        sleep(dice.millis(0, 200));
        let broker = 1 + round % 3;
        if dice.roll(2) == 0 {
            kafka.kill(broker)
        } else {
            kafka.stop(broker)
        }
        sleep(dice.millis(500, 4_000));
        kafka.restart(broker);
    });
    service.must_run();
    drop(service);
    finish(&world);
    (1..=3).for_each(|broker| kafka.kill(broker));
    let what = format!("one of three brokers killed or stopped, and back × {count}");
    report("F8", &what, &format!("no exit; committing again after: {}", times.text()));
}

/// The broker's disk is full, so that the broker ends; then there is room again.
#[test]
#[ignore = "long"]
fn long_disk_full() {
    let kafka = own(RealKafka::on_small_disk(150));
    let mut world = World::on(kafka, "faults-disk", 2, MANY);
    world.simulate(plenty(6), 100, 41);
    world.load(0.0, 1.0);
    let filler = kafka.data(1).join("filler");
    let mut service = Service::start(&world, "box-0", &[], &[]);
    until("the service to be at work", || service.commits() > 0.0);
    // Fails when nothing more fits, which is the point.
    let full = fs::write(&filler, vec![0u8; 150 << 20]);
    assert!(full.is_err(), "the disk is not full");
    until("the broker to end", || kafka.has_ended(1));
    sleep(Duration::from_secs(15));
    assert_eq!(service.status("/healthz"), Some(200), "it lives without a broker");
    fs::remove_file(&filler).unwrap();
    kafka.revive(1);
    let (back, before) = (Tick::now(), committed(&world));
    wait(|| committed(&world) > before);
    let took = back.elapsed();
    service.must_run();
    drop(service);
    finish(&world);
    kafka.kill(1);
    let figures = format!("no exit; the first commit {:.2} s after the broker was back", took.as_secs_f64());
    report("F14", "disk of the broker full, broker gone, room again", &figures);
}

fn weather(dice: &mut Dice) -> (Weather, Duration) {
    match dice.roll(6) {
        0 => (
            Weather::Slow { delay: Duration::from_millis(50), bytes_per_second: 125_000 },
            dice.millis(1_000, 3_000),
        ),
        1 => (Weather::Stalled, dice.millis(500, 4_000)),
        2 => (Weather::AnswersStalled, dice.millis(500, 4_000)),
        // Longer than a transaction may last: what is sent late belongs to nobody any more.
        3 => (Weather::AnswersStalled, dice.millis(6_000, 8_000)),
        4 => (Weather::HalfOpen, dice.millis(500, 4_000)),
        _ => (Weather::Cut, dice.millis(200, 3_000)),
    }
}

fn network(count: usize) {
    let mut dice = Dice::new("network");
    let kafka = own(RealKafka::behind_proxies(1));
    let mut world = World::on(kafka, "faults-network", 2, MANY);
    world.simulate(plenty(count), 100, 35);
    world.load(0.0, 1.0);
    let mut service = Service::start(&world, "box-0", &[], &[]);
    until("the service to be ready", || service.status("/readyz") == Some(200));
    let times = through(&world, count, |round| {
        sleep(dice.millis(0, 200));
        let (weather, lasts) = weather(&mut dice);
        println!("round {round}: {weather:?} for {lasts:?}");
        kafka.proxies[0].set(weather);
        sleep(lasts);
        kafka.proxies[0].set(Weather::Fair);
    });
    service.must_run();
    drop(service);
    finish(&world);
    kafka.kill(1);
    report(
        "F11–F13",
        &format!("slow, stalled, answers lost, half-open, cut, at random × {count}"),
        &format!("no exit; committing again after: {}", times.text()),
    );
}

#[test]
fn bad_weather_between_program_and_broker_costs_nothing_but_time() {
    network(4);
}

#[test]
#[ignore = "long"]
fn long_network() {
    network(30);
}

/// Instances come and go every other second.
fn storm(rounds: usize) {
    let mut dice = Dice::new("rebalance storm");
    let mut world = World::new("faults-storm", 6, MANY);
    world.simulate(20 * rounds as u64, 100, 36);
    world.load(0.0, 1.0);
    let mut places: [Option<Service>; 4] = [const { None }; 4];
    let (mut started, mut killed, mut stopped) = (0, 0, 0);
    for _ in 0..rounds {
        for _ in 0..2 {
            let place = dice.roll(4) as usize;
            match places[place].take() {
                None => {
                    places[place] = Some(Service::start(&world, &format!("box-{place}"), &[], &[]));
                    started += 1;
                }
                Some(mut service) if dice.roll(2) == 0 => {
                    service.must_run();
                    service.process.terminate();
                    let code = service.process.exit_code(SOON);
                    let said = service.process.stderr();
                    // Before it has begun, a signal has its usual effect.
                    assert!(code == Some(0) || !said.contains("starting"), "{code:?}: {said}");
                    stopped += 1;
                }
                Some(service) => {
                    service.process.kill();
                    killed += 1;
                }
            }
        }
        sleep(Duration::from_millis(2_000));
    }
    places.iter_mut().flatten().for_each(Service::must_run);
    let at_the_end = committed(&world) as f64 / input_of(&world) as f64;
    drop(places);
    finish(&world);
    let figures = format!(
        "{started} starts, {stopped} SIGTERM, {killed} SIGKILL; {:.0} % done while it lasted",
        at_the_end * 100.0
    );
    report("F2, F9, F10, F28", &format!("rebalance storm, {} s", rounds * 2), &figures);
}

#[test]
fn a_storm_of_rebalances_loses_and_repeats_nothing() {
    storm(6);
}

#[test]
#[ignore = "long"]
fn long_storm() {
    storm(150);
}

/// Every tenth record cannot be used.
fn poison(customers: u64) {
    let mut dice = Dice::new("poison");
    let mut world = World::new("faults-poison", 2, MANY);
    world.simulate(customers, 100, 37);
    let (topic, rounds) = (world.topic("clickstream"), 5);
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for round in 0..rounds {
        let share = |n: usize| n as f64 / rounds as f64;
        world.load(share(round), share(round + 1));
        let many = (world.count(share(round + 1)) - world.count(share(round))) / 9;
        let new: Vec<Vec<u8>> =
            (0..many).map(|_| (0..dice.roll(200)).map(|_| dice.roll(256) as u8).collect()).collect();
        world.kafka.produce(&topic, new.iter().map(|value| Record::new("k", value.clone())));
        sent.extend(new);
    }
    let mut service = Service::start(&world, "box-0", &["--set", "commit.max_records=1000"], &[]);
    wait(|| committed(&world) >= world.count(1.0) + sent.len() as i64);
    service.must_run();
    drop(service);
    finish(&world);
    let letters = world.kafka.read(&[&format!("{}-dlq", world.app)], Isolation::Committed);
    let mut arrived: Vec<Vec<u8>> = letters.into_iter().map(|l| l.value.unwrap_or_default()).collect();
    arrived.sort();
    sent.sort();
    assert!(arrived == sent, "{} dead letters of {}", arrived.len(), sent.len());
    report("F18", "10 % poison", &format!("no stop; {} dead letters, each byte for byte", sent.len()));
}

#[test]
fn ten_percent_of_poison_stop_nothing_and_are_kept_to_the_byte() {
    poison(15);
}

#[test]
#[ignore = "long"]
fn long_poison() {
    poison(100);
}

/// Half of all events are one customer's.
#[test]
fn a_customer_with_half_of_all_events_is_written_once_a_transaction() {
    let mut world = World::new("faults-hot", 1, "[commit]\ninterval = \"100ms\"\n");
    world.simulate(20, 60, 38);
    let others = input_of(&world);
    let first = world.events[Source::Clickstream.index()][0].1.clone();
    let from = crate::world::time_of(&first);
    for n in 0..others as i64 {
        let json = crate::world::event("hot", "product_viewed", from + n * 60_000, "");
        world.add(Source::Clickstream, "hot", &json);
    }
    world.sort();
    world.load(0.0, 1.0);
    finish(&world);
    let states = world.kafka.read(&[&world.topic("state")], Isolation::Committed);
    let markers = states.iter().filter(|read| read.key == stagecast::kafka::marker::KEY).count();
    let hot = states.iter().filter(|read| read.key == b"hot").count();
    assert!(hot > 0 && hot <= markers, "{hot} states in {markers} transactions");
}

/// Damages the last state in the log and returns what the service says of it.
fn damaged(damage: impl Fn(&mut Vec<u8>)) -> String {
    let mut world = World::new("faults-corrupt", 1, "");
    world.simulate(4, 30, 39);
    world.load(0.0, 1.0);
    world.finish(&["run", "--until-end"], &[]);
    let topic = world.topic("state");
    let states = world.kafka.read(&[&topic], Isolation::Committed);
    let state = states.iter().rfind(|read| read.key[0] != 0xff && read.value.is_some()).unwrap();
    let mut value = state.value.clone().unwrap();
    damage(&mut value);
    let bad = Record { partition: Some(0), value: Some(value), ..Record::new(state.key.clone(), "") };
    world.kafka.produce(&topic, [bad]);
    let mut process = world.start("box-0", &["run", "--until-end"], &[]);
    assert_eq!(process.exit_code(SOON), Some(2), "{}", process.stderr());
    process.stderr()
}

#[test]
fn a_damaged_state_is_refused_with_its_place_and_a_way_out() {
    let damages: [fn(&mut Vec<u8>); 4] = [
        |value| {
            let middle = value.len() / 2;
            value[middle] ^= 1;
        },
        |value| value.truncate(value.len() / 2),
        |value| value.fill(0xff),
        |value| *value = b"{\"by\":\"another program\"}".to_vec(),
    ];
    for damage in damages {
        let said = damaged(damage);
        assert!(said.contains("-state [0] offset ") && said.contains("to start over"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}
