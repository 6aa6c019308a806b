//! What one event costs one thread: decoding alone, and the whole way from bytes to outputs.
//!
//! The load is that of a shop: 85 % clickstream, 12 % purchase, 3 % support over 20,000 customers of skewed
//! activity and 120 days, about 200 bytes each, with the clock ticking along so that silence is lived through.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use stagecast::event::Source;
use stagecast::event::decoder::{Decoder, Format};
use stagecast::event::money::Money;
use stagecast::event::native::{Envelope, decode};
use stagecast::model::artifact::Transform;
use stagecast::pipeline::catalogue::Catalogue;
use stagecast::pipeline::engine::Engine;
use stagecast::pipeline::lifecycle::{preset, preset_names};
use stagecast::pipeline::plan::{Plan, Settings};
use stagecast::time::{DAY_MS, Tick, Ts, format_rfc3339};

const EVENTS: usize = 400_000;
const CUSTOMERS: usize = 20_000;
const DAYS: i64 = 120;
const START: Ts = 1_767_225_600_000;
const GRACE_MS: i64 = 60_000;
/// Events of one transaction.
const COMMIT_EVERY: usize = 10_000;

type Record = (Source, Ts, Vec<u8>);

fn records() -> Vec<Record> {
    let mut rng = rand_pcg::Pcg64::seed_from_u64(7);
    let zipf = Zipf::new(CUSTOMERS as f64, 0.8).expect("a distribution");
    let step = DAYS * DAY_MS / EVENTS as i64;
    (0..EVENTS)
        .map(|i| {
            let ts = START + i as i64 * step + rng.random_range(0..step);
            let customer = zipf.sample(&mut rng) as u64 * 7_919 % CUSTOMERS as u64;
            record(i, ts, customer, &mut rng)
        })
        .collect()
}

fn record(i: usize, ts: Ts, customer: u64, rng: &mut impl Rng) -> Record {
    const CLICKS: [&str; 8] = [
        "page_viewed",
        "product_viewed",
        "products_searched",
        "product_added",
        "cart_viewed",
        "checkout_started",
        "signed_in",
        "email_opened",
    ];
    let head = format!(r#""event_id":"e-{i:09}","customer_id":"c-{customer:07}""#);
    let at = format_rfc3339(ts);
    let at = at.as_str();
    let (source, json) = match rng.random_range(0..100u32) {
        0..85 => {
            let (name, product) = (CLICKS[rng.random_range(0..CLICKS.len())], rng.random_range(0..999u32));
            let about = format!(
                r#""session_id":"s-{i}","channel":"web","url":"/p/{product}","product_id":"p-{product}""#
            );
            (Source::Clickstream, format!(r#"{{{head},"type":"{name}","ts":"{at}",{about}}}"#))
        }
        85..97 => {
            let name = if rng.random_bool(0.97) { "order_completed" } else { "order_refunded" };
            let cents = rng.random_range(100..20_000u32);
            let amount = format!("{}.{:02}", cents / 100, cents % 100);
            let items = format!(r#"[{{"product_id":"p-1","quantity":1,"price":{amount}}}]"#);
            let about = format!(
                r#""order_id":"o-{i}","amount":{amount},"currency":"EUR","channel":"web","items":{items}"#
            );
            (Source::Purchase, format!(r#"{{{head},"type":"{name}","ts":"{at}",{about}}}"#))
        }
        _ => {
            let name = ["ticket_opened", "ticket_replied", "ticket_solved"][rng.random_range(0..3)];
            let about =
                format!(r#""ticket_id":"t-{i}","priority":"normal","sentiment":-0.4,"channel":"email""#);
            (Source::Support, format!(r#"{{{head},"type":"{name}","ts":"{at}",{about}}}"#))
        }
    };
    (source, ts, json.into_bytes())
}

/// The same event as Segment's library sends it, with the context that comes along.
fn segment_call((_, _, json): &Record) -> Vec<u8> {
    let native: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    let text = |name: &str| native[name].as_str().unwrap_or_default().to_owned();
    let event = match text("type").as_str() {
        "ticket_opened" => "Live Chat Conversation Started".to_owned(),
        "ticket_replied" => "Live Chat Message Sent".to_owned(),
        "ticket_solved" => "Live Chat Conversation Ended".to_owned(),
        name => name.split('_').map(|w| w[..1].to_uppercase() + &w[1..]).collect::<Vec<_>>().join(" "),
    };
    let properties = match native["amount"].as_f64() {
        Some(amount) => format!(
            r#""order_id":"{}","revenue":{amount},"currency":"EUR","products":[{{"product_id":"p-1","quantity":1,"price":{amount}}}]"#,
            text("order_id")
        ),
        None => format!(r#""url":"{}","product_id":"{}""#, text("url"), text("product_id")),
    };
    let (id, user, at) = (text("event_id"), text("customer_id"), text("ts"));
    format!(
        r#"{{"anonymousId":"a-{user}","context":{{"library":{{"name":"analytics.js","version":"2.11.1"}},"locale":"de-DE","page":{{"path":"/"}}}},"event":"{event}","messageId":"{id}","properties":{{{properties}}},"timestamp":"{at}","type":"track","userId":"{user}"}}"#
    )
    .into_bytes()
}

/// What a plan has besides its model.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    /// What training saw, so that a census is taken.
    Census,
    /// As large a model in its shadow.
    Challenger,
}

/// The shipped catalogue, these lifecycles of those that ship, and a model of fourteen terms.
fn plan<'a>(lifecycles: impl IntoIterator<Item = &'a str>, beside: Beside) -> Arc<Plan> {
    let log = Transform::Log1p;
    let recency = |cap: f64| Transform::Recency { cap };
    let terms: Vec<(&str, Transform, (f64, f64, f64))> = vec![
        ("days_since_order", recency(60.0), (0.5, 0.3, 0.6)),
        ("days_since_click", recency(30.0), (0.5, 0.3, 0.4)),
        ("days_since_ticket", Transform::Never, (0.5, 0.5, -0.1)),
        ("clicks_7d", log, (1.0, 1.0, -0.2)),
        ("clicks_30d", log, (2.0, 1.0, -0.2)),
        ("clicks_90d", log, (3.0, 1.0, -0.1)),
        ("orders_30d", log, (0.5, 0.6, -0.3)),
        ("orders_90d", log, (0.9, 0.7, -0.3)),
        ("revenue_90d", log, (3.0, 2.0, -0.1)),
        ("tickets_30d", log, (0.2, 0.4, 0.2)),
        ("sentiment_90d", Transform::Identity, (0.0, 0.3, -0.2)),
        ("tenure_days", log, (3.0, 1.0, -0.1)),
        ("clicks_trend_14d", Transform::Identity, (0.0, 0.4, -0.2)),
        ("overdue_ratio", Transform::Cap { at: 4.0 }, (1.0, 1.0, 0.4)),
    ];
    let text = |name| (format!("{name}.toml"), preset(name).expect("a preset").to_owned());
    let lifecycles: Vec<_> = lifecycles.into_iter().map(text).collect();
    let mut model = support::model(0.0, &terms);
    if beside != Beside::Census {
        model.reference = None;
    }
    let plan = Plan::new(&Catalogue::shipped(), &lifecycles, &model, Settings::default()).expect("a plan");
    if beside != Beside::Challenger {
        return Arc::new(plan);
    }
    let mut challenger = support::model(0.1, &terms);
    challenger.version = "2".into();
    Arc::new(plan.with_challenger(&model, &challenger).expect("a challenger"))
}

fn decode_all(records: &[Record], money: &Money) -> usize {
    let decoded = records.iter().map(|(source, _, json)| {
        let envelope = Envelope { source: *source, key: None, timestamp: None, latest: None };
        black_box(decode(json, &envelope, money)).is_ok()
    });
    decoded.filter(|ok| *ok).count()
}

fn decode_all_segment(calls: &[Vec<u8>], decoder: &Decoder, money: &Money) -> usize {
    let envelope = Envelope { source: Source::Clickstream, key: None, timestamp: None, latest: None };
    let decoded = calls.iter().map(|json| black_box(decoder.decode(json, &envelope, &(), money)).is_ok());
    decoded.filter(|ok| *ok).count()
}

/// The least time of many passes, in turns, so that what else the machine does troubles both alike.
fn least_of_both(
    mut first: impl FnMut() -> usize,
    mut second: impl FnMut() -> usize,
) -> (Duration, Duration) {
    let time = |pass: &mut dyn FnMut() -> usize| {
        let start = Tick::now();
        black_box(pass());
        start.elapsed()
    };
    let rounds = (0..8).map(|_| (time(&mut first), time(&mut second)));
    rounds.fold((Duration::MAX, Duration::MAX), |least, (a, b)| (least.0.min(a), least.1.min(b)))
}

/// Runs all records through a new engine; returns it and how many outputs there were.
fn run_all(records: &[Record], plan: &Arc<Plan>) -> (Engine, usize) {
    let mut engine = Engine::new(Arc::clone(plan), true);
    let mut outputs = 0;
    for (i, (source, ts, json)) in records.iter().enumerate() {
        let envelope = Envelope { source: *source, key: None, timestamp: None, latest: None };
        if let Ok(event) = decode(json, &envelope, &plan.settings.money) {
            engine.tick(ts - GRACE_MS);
            engine.step(&event);
        }
        if (i + 1) % COMMIT_EVERY == 0 {
            outputs += engine.outbox.len();
            engine.commit();
        }
    }
    (engine, outputs)
}

fn encode_all(engine: &Engine) -> usize {
    let mut bytes = Vec::new();
    engine.store().indices().for_each(|index| engine.encode(index, &mut bytes));
    bytes.len()
}

fn core(c: &mut Criterion) {
    let records = records();
    let (plan, all) = (plan(["retention"], Beside::Nothing), plan(preset_names(), Beside::Nothing));
    let start = Tick::now();
    let (engine, outputs) = run_all(&records, &plan);
    let per_event = start.elapsed().as_nanos() / records.len() as u128;
    let scored: u32 = engine.tally.scores.iter().sum();
    println!(
        "decode and step: {per_event} ns per event, {outputs} outputs, {scored} scores, {} bytes",
        engine.bytes()
    );

    let mut group = c.benchmark_group("core");
    group.sample_size(10);
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("decode", |b| b.iter(|| decode_all(&records, &plan.settings.money)));
    let calls: Vec<Vec<u8>> = records.iter().map(segment_call).collect();
    let segment = Decoder::new(Format::Segment, Format::Native, &Default::default(), Default::default());
    let money = &plan.settings.money;
    assert_eq!(decode_all_segment(&calls, &segment, money), records.len());
    let (native, foreign) =
        least_of_both(|| decode_all(&records, money), || decode_all_segment(&calls, &segment, money));
    println!("Segment's calls cost {:.2} times native events", foreign.as_secs_f64() / native.as_secs_f64());
    group.bench_function("decode_segment", |b| {
        b.iter(|| decode_all_segment(&calls, &segment, &plan.settings.money));
    });
    drop(calls);
    group.bench_function("decode_and_step", |b| b.iter_with_large_drop(|| run_all(&records, &plan)));
    // The same with all presets side by side: a seventh of the difference is what one more lifecycle costs.
    group.bench_function("decode_and_step_all_presets", |b| {
        b.iter_with_large_drop(|| run_all(&records, &all));
    });
    for (name, beside) in [("with_census", Beside::Census), ("with_challenger", Beside::Challenger)] {
        let plan = self::plan(["retention"], beside);
        group.bench_function(format!("decode_and_step_{name}"), |b| {
            b.iter_with_large_drop(|| run_all(&records, &plan));
        });
    }
    group.throughput(Throughput::Elements(engine.store().len() as u64));
    group.bench_function("encode", |b| b.iter(|| encode_all(&engine)));
    group.finish();
}

criterion_group!(benches, core);
criterion_main!(benches);
