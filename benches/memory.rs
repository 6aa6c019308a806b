//! What a customer costs in memory: a million customers of 30 events each in 90 days, the shipped catalogue, the
//! retention lifecycle, in the allocator that serves. Prints resident bytes per customer beside what the engine
//! itself believes, which `stagecast_state_bytes` shows.
//! `CUSTOMERS=10000000 EVENTS=10 cargo bench --bench memory` for ten million with ten events each (half an hour).

#[path = "../tests/support/mod.rs"]
mod support;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::{Rng, RngExt, SeedableRng};
use stagecast::event::{Event, Field, Numbers, Source};
use stagecast::pipeline::engine::Engine;
use stagecast::pipeline::lifecycle::preset;
use stagecast::pipeline::plan::{Plan, Settings};
use stagecast::pipeline::store::{Customer, Seen};
use stagecast::time::{DAY_MS, HOUR_MS, Tick, Ts};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAYS: i64 = 90;
const START: Ts = 1_767_225_600_000;
const PARTITIONS: u64 = 16;
const PAGE_BYTES: f64 = 4096.0;

/// Of this process, in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).expect("a number") * PAGE_BYTES
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number"))
}

fn event<'a>(id: &'a str, event_id: &'a str, ts: Ts, rng: &mut impl Rng) -> Event<'a> {
    const CLICKS: [&str; 4] = ["page_viewed", "product_viewed", "products_searched", "product_added"];
    let mut numbers = Numbers::default();
    let (source, name) = match rng.random_range(0..100u32) {
        0..85 => (Source::Clickstream, CLICKS[rng.random_range(0..CLICKS.len())]),
        85..97 => {
            numbers.set(Field::Amount, f64::from(rng.random_range(100..20_000u32)) / 100.0);
            (Source::Purchase, "order_completed")
        }
        _ => (Source::Support, "ticket_opened"),
    };
    Event {
        source,
        customer_id: Cow::Borrowed(id),
        name: Cow::Borrowed(name),
        ts,
        event_id: Some(Cow::Borrowed(event_id)),
        numbers,
        channel: None,
        profile: None,
    }
}

/// Customers of one partition and their 90 days, hour by hour, each hour with its share of everybody's events.
fn lived(plan: &Arc<Plan>, partition: u64, customers: u64, events_each: u64) -> (Engine, u64) {
    let mut engine = Engine::new(Arc::clone(plan), true);
    engine.share_room(PARTITIONS as usize);
    let mut rng = rand_pcg::Pcg64::seed_from_u64(partition);
    let (hours, mut events) = (DAYS * 24, 0u64);
    for hour in 0..hours {
        let due = |hour: i64| (customers * events_each) as i64 * hour / hours;
        let here = due(hour + 1) - due(hour);
        for k in 0..here {
            let customer = rng.random_range(0..customers);
            let ts = START + hour * HOUR_MS + k * HOUR_MS / here;
            let (id, event_id) = (format!("c-{partition:02}{customer:05}"), format!("e-{events:09}"));
            engine.step(&event(&id, &event_id, ts, &mut rng));
            events += 1;
        }
        while engine.tick(START + hour * HOUR_MS) {
            engine.outbox.clear();
        }
        engine.commit();
    }
    eprintln!("partition {partition}: {events} events of {} customers", engine.store().len());
    (engine, events)
}

fn main() {
    stagecast::memory::use_small_pages();
    let (customers, events_each) = (setting("CUSTOMERS", 1_000_000), setting("EVENTS", 30));
    // Daily rescoring takes its time and no memory.
    let settings = Settings { rescore_every_ms: 365 * DAY_MS, ..Settings::default() };
    let plan = support::plan(&[preset("retention").expect("a preset").to_owned()], settings);
    let before = resident();
    let began = Tick::now();
    // As a service has them: partitions, shared out over threads. One partition of a million would hardly find
    // a customer in a cache and take the better part of an hour.
    let next = AtomicU64::new(0);
    let live_through = || {
        let mut mine = Vec::new();
        loop {
            let partition = next.fetch_add(1, Ordering::Relaxed);
            if partition >= PARTITIONS {
                return mine;
            }
            mine.push(lived(&plan, partition, customers / PARTITIONS, events_each));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let engines: Vec<(Engine, u64)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(live_through)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    let events: u64 = engines.iter().map(|(_, events)| events).sum();
    let known = engines.iter().map(|(engine, _)| engine.store().len()).sum::<usize>() as f64;
    let told = engines.iter().map(|(engine, _)| engine.bytes()).sum::<usize>() as f64;
    let grown = resident() - before;
    println!("{events} events of {known} customers in {:.0} s", began.elapsed().as_secs_f64());
    println!("resident  {:.0} bytes per customer", grown / known);
    println!("told      {:.0} bytes per customer ({:+.1} %)", told / known, 100.0 * (told / grown - 1.0));
    show_parts(&plan, &engines, known);
}

/// What there is to keep of a customer, on average.
fn show_parts(plan: &Plan, engines: &[(Engine, u64)], known: f64) {
    let mut sums = [0; 6];
    for store in engines.iter().map(|(engine, _)| engine.store()) {
        for index in store.indices() {
            sums.iter_mut().zip(lists(&store.look(index).customer)).for_each(|(sum, bytes)| *sum += bytes);
        }
    }
    println!("of each customer, in bytes: row {}", plan.new_row.len() * size_of::<u32>());
    for (name, sum) in
        ["panes", "sessions", "event ids", "order days", "channels", "kept scores"].iter().zip(sums)
    {
        println!("  {name:12} {:4.0}", sum as f64 / known);
    }
}

fn lists(customer: &Customer) -> [usize; 6] {
    [
        customer.log.len(),
        customer.sessions.len(),
        customer.seen.len() * size_of::<Seen>(),
        customer.order_days.0.len() * size_of::<u32>(),
        customer.channels.len(),
        customer.kept.len(),
    ]
}
