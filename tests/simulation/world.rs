//! The input, the same for the shell and for the oracle, and what the oracle makes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;
use stagecast::config::{Clock, Config, Layers};
use stagecast::event::Source;
use stagecast::event::decoder::Decoder;
use stagecast::event::native::{Envelope, decode};
use stagecast::kafka::task::{Input, Reading, Timing};
use stagecast::pipeline::engine::Engine;
use stagecast::pipeline::outbox::hash_customer;
use stagecast::pipeline::plan::Plan;
use stagecast::setup;
use stagecast::simulate::{Settings, Simulation};
use stagecast::time::{DAY_MS, Ts, parse_rfc3339};

use crate::cluster::{Output, Place};

pub const PARTITIONS: i32 = 3;
const CUSTOMERS: u64 = 9;
const DAYS: u32 = 50;

/// An event where it stands.
#[derive(Clone, Debug)]
pub struct Fed {
    pub place: Place,
    pub customer: String,
    pub json: String,
    pub ts: Ts,
}

/// Events in the order of time, and what is right.
#[derive(Debug)]
pub struct World {
    pub partitions: i32,
    pub plan: Arc<Plan>,
    pub inputs: Arc<[Input]>,
    pub timing: Timing,
    pub events: Vec<Fed>,
    /// Long after the last event.
    pub until: Ts,
    /// By customer, in order.
    pub outputs: BTreeMap<String, Vec<Output>>,
    pub states: BTreeMap<String, Vec<u8>>,
}

impl World {
    /// The world of a seed, made once.
    pub fn of(seed: u64) -> Arc<World> {
        static WORLDS: Mutex<BTreeMap<u64, Arc<World>>> = Mutex::new(BTreeMap::new());
        let mut worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(worlds.entry(seed).or_insert_with(|| Arc::new(World::new(seed))))
    }

    fn new(seed: u64) -> World {
        let settings = Settings { customers: CUSTOMERS, days: DAYS, seed, ..Settings::default() };
        let mut events: Vec<Fed> = Simulation::new(&settings)
            .unwrap()
            .map(|record| {
                let customer = record.customer_id();
                let partition = (hash_customer(&customer) % PARTITIONS as u64) as i32;
                let event: Value = serde_json::from_str(&record.json).unwrap();
                let ts = parse_rfc3339(event["ts"].as_str().unwrap()).unwrap();
                Fed { place: (partition, record.source.index()), customer, json: record.json, ts }
            })
            .collect();
        events.sort_by_key(|event| (event.ts, event.place.1));
        let until = events.last().unwrap().ts + 90 * DAY_MS;
        let plan = plan();
        let (outputs, states) = oracle(&plan, &events, until);
        let inputs = Source::ALL.map(|source| Input {
            source,
            topic: source.name().to_owned(),
            reading: Reading::Events(Decoder::default()),
        });
        // The wall clock is the simulation's own, and an idle partition follows it at once.
        let timing = Timing { clock: Clock::Wall, grace_ms: 0, max_future_ms: 0 };
        let inputs: Arc<[Input]> = inputs.into();
        World { partitions: PARTITIONS, plan, inputs, timing, events, until, outputs, states }
    }

    pub fn lanes(&self) -> usize {
        self.inputs.len()
    }
}

fn plan() -> Arc<Plan> {
    static PLAN: OnceLock<Arc<Plan>> = OnceLock::new();
    let plan = PLAN.get_or_init(|| {
        let config = Config::from_layers(&Layers { host: "box".into(), ..Layers::default() }).unwrap();
        Arc::new(setup::plan(&config, None).unwrap())
    });
    Arc::clone(plan)
}

/// One engine, one event after the other.
fn oracle(
    plan: &Arc<Plan>,
    events: &[Fed],
    until: Ts,
) -> (BTreeMap<String, Vec<Output>>, BTreeMap<String, Vec<u8>>) {
    let mut engine = Engine::new(Arc::clone(plan), false);
    let mut outputs: BTreeMap<String, Vec<Output>> = BTreeMap::new();
    let mut take = |engine: &mut Engine| {
        for output in outputs_of(engine) {
            outputs.entry(output.customer.clone()).or_default().push(output);
        }
        engine.outbox.clear();
    };
    for event in events {
        let source = Source::ALL[event.place.1];
        let envelope = Envelope { source, key: None, timestamp: None, latest: None };
        let decoded = decode(event.json.as_bytes(), &envelope, &plan.settings.money).unwrap();
        engine.step(&decoded);
        take(&mut engine);
    }
    engine.run_until(until);
    take(&mut engine);
    (outputs, states_of(&engine).collect())
}

/// What waits to go out.
pub fn outputs_of(engine: &Engine) -> Vec<Output> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let output = |(record, key, value): (&stagecast::pipeline::outbox::Record, &[u8], &[u8])| Output {
        customer: text(key),
        id: record.id,
        json: format!("{:?} {}", record.channel, text(value)),
    };
    engine.outbox.records().map(output).collect()
}

pub fn states_of(engine: &Engine) -> impl Iterator<Item = (String, Vec<u8>)> {
    let state = |index: u32| {
        let mut bytes = Vec::new();
        engine.encode(index, &mut bytes);
        (engine.store().id(index).to_string(), bytes)
    };
    engine.store().indices().map(state)
}
