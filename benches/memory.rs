//! What a customer costs in memory: a million customers of 30 events each in 90 days, the shipped catalogue, the
//! retention lifecycle, in the allocator that serves. Prints resident bytes per customer beside what the engine
//! itself believes. `CUSTOMERS=100000 cargo bench --bench memory` for less.

#[path = "../tests/support/mod.rs"]
mod support;

use std::borrow::Cow;
use std::sync::Arc;

use rand::{Rng, RngExt, SeedableRng};
use stagecast::event::{Event, Field, Numbers, Source};
use stagecast::pipeline::engine::Engine;
use stagecast::pipeline::lifecycle::preset;
use stagecast::pipeline::plan::Settings;
use stagecast::time::{DAY_MS, HOUR_MS, Tick, Ts};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAYS: i64 = 90;
const EVENTS_EACH: i64 = 30;
const START: Ts = 1_767_225_600_000;
const PAGE_BYTES: f64 = 4096.0;

/// Of this process, in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).expect("a number") * PAGE_BYTES
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

fn main() {
    let customers: u64 = std::env::var("CUSTOMERS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    // Daily rescoring takes its time and no memory.
    let settings = Settings { rescore_every_ms: 365 * DAY_MS, ..Settings::default() };
    let plan = support::plan(&[preset("retention").expect("a preset").to_owned()], settings);
    let before = resident();
    let mut engine = Engine::new(Arc::clone(&plan), true);
    let mut rng = rand_pcg::Pcg64::seed_from_u64(1);
    let began = Tick::now();
    let mut events = 0u64;
    // Hour by hour, each with its share of everybody's events.
    let hours = DAYS * 24;
    for hour in 0..hours {
        let here = customers as i64 * EVENTS_EACH / hours;
        for k in 0..here {
            let customer = rng.random_range(0..customers);
            let ts = START + hour * HOUR_MS + k * HOUR_MS / here;
            let (id, event_id) = (format!("c-{customer:07}"), format!("e-{events:09}"));
            engine.step(&event(&id, &event_id, ts, &mut rng));
            events += 1;
        }
        while engine.tick(START + hour * HOUR_MS) {
            engine.outbox.clear();
        }
        engine.commit();
    }
    let known = engine.store().len() as f64;
    let (grown, told) = (resident() - before, engine.bytes() as f64);
    println!("{events} events of {known} customers in {:.0} s", began.elapsed().as_secs_f64());
    println!("resident  {:.0} bytes per customer", grown / known);
    println!("told      {:.0} bytes per customer ({:+.1} %)", told / known, 100.0 * (told / grown - 1.0));
    println!("fixed row {} bytes", plan.new_row.len() * 4);
}
