//! Key figures across restarts and rebalances, on a real broker: whoever holds the partitions says the same.

use std::time::Duration;

use serde_json::Value;
use stagecast::time::{Tick, sleep};

use crate::process::{Process, get};
use crate::records::until;
use crate::service::{committed, free_address, input_of};
use crate::world::World;

const SOON: Duration = Duration::from_secs(60);
/// Longer than what customers have brought in goes uncounted.
const SETTLED: Duration = Duration::from_secs(16);

/// An instance and where it answers.
struct Instance {
    process: Process,
    address: String,
}

impl Instance {
    fn start(world: &World, name: &str) -> Instance {
        let address = free_address();
        let listen = format!("http.listen={address}");
        Instance { process: world.start(name, &["run", "--set", &listen], &[]), address }
    }

    fn kpis(&mut self) -> Value {
        serde_json::from_str(&self.process.answer(&self.address, "/kpis", SOON)).unwrap()
    }

    /// The gauges of key figures; of whoever does not answer yet, none.
    fn gauges(&self) -> Vec<String> {
        let (_, metrics) = get(&self.address, "/metrics").unwrap_or_default();
        let is_figure = |line: &&str| {
            ["_ratio{", "_duration_median_seconds{", "stagecast_clv_to_date{"]
                .iter()
                .any(|part| line.contains(part))
        };
        metrics.lines().filter(is_figure).map(str::to_owned).collect()
    }

    fn settled_kpis(&mut self) -> Value {
        let (mut last, mut since) = (self.kpis(), Tick::now());
        until("the key figures to settle", || {
            sleep(Duration::from_millis(500));
            let now = self.kpis();
            if now != last {
                (last, since) = (now, Tick::now());
            }
            since.elapsed() >= SETTLED
        });
        last
    }
}

/// Moves by lifecycle, all together.
fn moves(kpis: &Value) -> u64 {
    let conversions = kpis["lifecycles"].as_array().unwrap().iter().flat_map(|l| l["conversions"].as_array());
    conversions.flatten().map(|conversion| conversion["moves"].as_u64().unwrap()).sum()
}

#[test]
fn key_figures_are_the_same_after_a_restart_and_wherever_the_partitions_are() {
    let mut world = World::new("kpis", 4, "");
    world.simulate(80, 120, 21);
    world.load(0.0, 1.0);
    let total = input_of(&world) as i64;
    let mut first = Instance::start(&world, "box-0");
    until("everything to be consumed", || committed(&world) >= total);
    let (before, gauges) = (first.settled_kpis(), first.gauges());
    let lifecycle = &before["lifecycles"][0];
    assert!(moves(&before) > 20 && before["observed_since"].is_string(), "not much of a test: {before}");
    assert!(lifecycle["churn_rate"].is_f64() && lifecycle["win_back_rate"].is_f64(), "{before}");
    assert!(lifecycle["segments"].as_array().is_some_and(|segments| segments.len() > 1), "{before}");
    assert!(gauges.len() > 20, "{gauges:?}");

    first.process.kill();
    let mut first = Instance::start(&world, "box-0");
    first.process.answer(&first.address, "/readyz", SOON);
    until("the same figures after a restart", || first.kpis() == before);
    assert_eq!(first.gauges(), gauges);

    let mut second = Instance::start(&world, "box-1");
    until("two instances to share the moves", || {
        let (one, other) = (moves(&first.kpis()), moves(&second.kpis()));
        one > 0 && other > 0 && one + other == moves(&before)
    });
    first.process.terminate();
    assert_eq!(first.process.exit_code(SOON), Some(0), "{}", first.process.stderr());
    until("the same figures with all partitions at another instance", || second.kpis() == before);
    assert_eq!(second.gauges(), gauges);
    second.process.terminate();
    assert_eq!(second.process.exit_code(SOON), Some(0), "{}", second.process.stderr());
}
