//! Everything that reads bytes from outside, each as one function that a fuzzer, a smoke test and a test of hostile
//! input call alike: it panics when a promise is broken, and says whether the bytes were accepted.
//!
//! Owns the promises; where the bytes come from is for its callers to say.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use stagecast::config::{Config, Layers};
use stagecast::event::decoder::{Decoder, Format, Headers};
use stagecast::event::money::Money;
use stagecast::event::names::is_type;
use stagecast::event::native::{
    Envelope, MAX_CUSTOMER_ID_BYTES, MAX_EVENT_ID_BYTES, MAX_TRAIT_NAME_BYTES, MAX_TRAIT_TEXT_BYTES,
    MAX_TRAITS,
};
use stagecast::event::{Event, Field, ProfileChange, Reject, Source};
use stagecast::http::{self, Health, Live, Queries};
use stagecast::kafka::marker::Marker;
use stagecast::metrics::{Metrics, PartitionFigures};
use stagecast::model::Model;
use stagecast::pipeline::catalogue::Catalogue;
use stagecast::pipeline::described::Description;
use stagecast::pipeline::engine::Engine;
use stagecast::pipeline::facts::TraitValue;
use stagecast::pipeline::lifecycle::preset;
use stagecast::pipeline::moves::{self, Moves};
use stagecast::pipeline::plan::{Plan, Settings};
use stagecast::time::{DAY_MS, MIN_TS, Tick, Ts};

use crate::support;

/// Whether the bytes were accepted.
pub type Target = fn(&[u8]) -> bool;

/// By the name of its corpus.
pub const TARGETS: [(&str, Target); 16] = [
    ("native", native),
    ("framing", framing),
    ("segment", segment),
    ("cloudevents", cloudevents),
    ("zendesk", zendesk),
    ("pointers", pointers),
    ("state", state),
    ("marker", marker),
    ("description", description),
    ("moves", moves),
    ("model", model),
    ("features", features),
    ("lifecycle", lifecycle),
    ("cel", cel),
    ("config", config),
    ("http", http),
];

pub fn target(name: &str) -> Target {
    let known = TARGETS.iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("no target is called {name}")).1
}

/// Of a client, and with one that has gone.
const PATIENCE: Duration = Duration::from_secs(60);
const NOW: Ts = 1_767_225_600_000;
/// A reason is a header of a dead letter: a sentence, whatever the record.
const REASON_BYTES_MOST: usize = 1_024;

fn native(value: &[u8]) -> bool {
    let decoder = Decoder::default();
    let accepted = Source::ALL.map(|source| decodes(&decoder, source, value, &()));
    accepted.contains(&true)
}

/// A schema id of four bytes in front.
fn framing(value: &[u8]) -> bool {
    let framed = [&[0, 0, 0, 1, 7], value].concat();
    native(&framed)
}

fn segment(value: &[u8]) -> bool {
    decodes(&foreign(Format::Segment, Format::Native), Source::Clickstream, value, &())
}

fn zendesk(value: &[u8]) -> bool {
    decodes(&foreign(Format::Zendesk, Format::Native), Source::Support, value, &())
}

/// Headers as lines of `name: value` up to an empty line, then the value.
fn cloudevents(bytes: &[u8]) -> bool {
    let (headers, value) = match bytes.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (HeaderLines::read(&bytes[..at]), &bytes[at + 2..]),
        None => (HeaderLines::default(), bytes),
    };
    let data = [Format::Native, Format::Segment];
    let accepted =
        data.map(|data| decodes(&foreign(Format::CloudEvents, data), Source::Purchase, value, &headers));
    accepted.contains(&true)
}

fn pointers(value: &[u8]) -> bool {
    let fields = [
        ("customer_id", "/user/id"),
        ("type", "/kind"),
        ("ts", "/meta/at"),
        ("amount", "/items/0/price"),
        ("traits", "/user"),
        ("text", "/notes/1"),
    ];
    let fields = fields.map(|(field, at)| (field.to_owned(), at.to_owned())).into();
    let types = [("OrderPlaced", "order_completed"), ("Changed", "traits_updated"), ("*", "order_updated")];
    let types = types.map(|(from, to)| (from.to_owned(), to.to_owned())).into();
    decodes(&Decoder::new(Format::Native, Format::Native, &fields, types), Source::Purchase, value, &())
}

fn foreign(format: Format, data: Format) -> Decoder {
    Decoder::new(format, data, &BTreeMap::new(), BTreeMap::new())
}

#[derive(Debug, Default)]
struct HeaderLines(Vec<(String, Vec<u8>)>);

impl HeaderLines {
    fn read(bytes: &[u8]) -> HeaderLines {
        let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
            let at = line.windows(2).position(|two| two == b": ")?;
            Some((String::from_utf8(line[..at].to_vec()).ok()?, line[at + 2..].to_vec()))
        });
        HeaderLines(lines.collect())
    }
}

impl Headers for HeaderLines {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }
}

/// Decodes as `run` does, checks what comes out, and applies what is usable.
fn decodes(decoder: &Decoder, source: Source, value: &[u8], headers: &dyn Headers) -> bool {
    let envelope = Envelope { source, key: Some(b"key"), timestamp: Some(NOW), latest: Some(NOW + DAY_MS) };
    match decoder.decode(value, &envelope, headers, &Money::default()) {
        Ok(event) => {
            check_event(&event);
            check_engine(&event);
            true
        }
        Err(reject) => {
            check_reject(&reject);
            false
        }
    }
}

fn check_event(event: &Event<'_>) {
    assert!((1..=MAX_CUSTOMER_ID_BYTES).contains(&event.customer_id.len()), "an id of impossible length");
    assert!(is_type(&event.name), "no type: {:?}", event.name);
    assert!((MIN_TS..=NOW + DAY_MS).contains(&event.ts), "an impossible instant: {}", event.ts);
    assert!(event.event_id.as_ref().is_none_or(|id| id.len() <= MAX_EVENT_ID_BYTES), "a long event id");
    let within = |field, low: i64, high: i64| {
        assert!(
            event.numbers.get(field).is_none_or(|n| (low..=high).contains(&n)),
            "{field:?} is out of range"
        );
    };
    within(Field::Amount, 0, 1_000_000_000_000_000_000);
    within(Field::Sentiment, -1_000_000, 1_000_000);
    within(Field::Csat, 1_000_000, 5_000_000);
    within(Field::Nps, 0, 10_000_000);
    if let Some(ProfileChange::Traits(changes)) = event.profile.as_deref() {
        assert!(changes.len() <= MAX_TRAITS + 1, "{} traits", changes.len());
        for (name, value) in changes {
            assert!(name.len() <= MAX_TRAIT_NAME_BYTES, "a trait's name has {} bytes", name.len());
            match value {
                Some(TraitValue::Text(text)) => assert!(text.len() <= MAX_TRAIT_TEXT_BYTES),
                Some(TraitValue::Number(number)) => assert!(number.is_finite(), "{name} is {number}"),
                Some(TraitValue::Flag(_)) | None => {}
            }
        }
    }
}

fn check_reject(reject: &Reject) {
    let said = (1..=REASON_BYTES_MOST).contains(&reject.message.len());
    assert!(said, "a reason of {} bytes for {}", reject.message.len(), reject.reason.code());
}

/// Whatever is usable must pass through the engine, and its customer's state through the state topic.
fn check_engine(event: &Event<'_>) {
    let mut engine = Engine::new(Arc::clone(plan()), true);
    engine.step(event);
    engine.commit();
    let Some(customer) = engine.store().find(&event.customer_id) else { return };
    let mut state = Vec::new();
    engine.encode(customer, &mut state);
    let mut again = Engine::new(Arc::clone(plan()), true);
    again.restore(&event.customer_id, &state).expect("a state that was just written is read");
    again.finish_restore();
    let mut rewritten = Vec::new();
    again.encode(again.store().find(&event.customer_id).expect("it was restored"), &mut rewritten);
    assert_eq!(state, rewritten, "a restored state is written as it was read");
}

/// A plan with everything that state can hold.
pub fn plan() -> &'static Arc<Plan> {
    static PLAN: OnceLock<Arc<Plan>> = OnceLock::new();
    PLAN.get_or_init(|| {
        let lifecycles = ["retention", "matrix"].map(|name| preset(name).expect("a preset").to_owned());
        support::plan(&lifecycles, Settings::default())
    })
}

/// The body of a state record: the checksum is made right, or nothing behind it would ever be reached.
fn state(body: &[u8]) -> bool {
    let checksum = xxhash_rust::xxh3::xxh3_64(body) as u32;
    let record = [body, &checksum.to_le_bytes()].concat();
    let mut engine = Engine::new(Arc::clone(plan()), true);
    // The bytes as they came are a record too, almost surely one whose checksum is wrong.
    let _ = engine.restore("corrupt", body);
    let accepted = engine.restore("c", &record).is_ok();
    engine.finish_restore();
    lives_on(&mut engine, "c", NOW);
    accepted
}

/// Two events and a fortnight of silence, a taken back one among them.
fn lives_on(engine: &mut Engine, customer: &str, from: Ts) {
    let step = |engine: &mut Engine, source, name: &'static str, ts| {
        let mut numbers = stagecast::event::Numbers::default();
        numbers.set(Field::Amount, 19.9);
        let (event_id, profile, channel) = (None, None, None);
        let customer_id = customer.into();
        engine.step(&Event {
            source,
            customer_id,
            name: name.into(),
            ts,
            event_id,
            numbers,
            profile,
            channel,
        });
    };
    step(engine, Source::Clickstream, "page_viewed", from);
    engine.commit();
    step(engine, Source::Purchase, "order_completed", from + DAY_MS);
    engine.rollback();
    step(engine, Source::Purchase, "order_completed", from + DAY_MS);
    // Bounded, as a partition's task bounds it between two commits.
    for _ in 0..1_000 {
        if !engine.tick(from + 14 * DAY_MS) {
            break;
        }
        engine.outbox.clear();
    }
    engine.commit();
    for index in engine.store().indices().collect::<Vec<u32>>() {
        engine.encode(index, &mut Vec::new());
    }
}

fn marker(bytes: &[u8]) -> bool {
    match Marker::decode(bytes) {
        Ok(marker) => {
            assert_eq!(Marker::decode(&marker.encode()).as_ref(), Ok(&marker));
            true
        }
        Err(why) => {
            assert!(!why.is_empty());
            false
        }
    }
}

fn description(bytes: &[u8]) -> bool {
    let Ok(description) = Description::decode(bytes) else { return false };
    assert_eq!(Description::decode(&description.encode()).as_ref(), Ok(&description));
    let mut engine = Engine::new(Arc::clone(plan()), true);
    engine.learn_layout(description.id(), description);
    engine.layout_news();
    lives_on(&mut engine, "c", NOW);
    true
}

/// The length of a key behind what all of them begin with, the key, and the value.
fn moves(bytes: &[u8]) -> bool {
    let Some((len, rest)) = bytes.split_first() else { return false };
    let (key, value) = rest.split_at(usize::from(*len).min(rest.len()));
    let key = [moves::KEY, key].concat();
    let mut restored = Moves::default();
    if restored.restore(&key, Some(value)).is_err() {
        return false;
    }
    let mut again = Moves::default();
    for (key, value) in restored.records() {
        again.restore(&key, Some(&value)).expect("a count that was just written is read");
    }
    assert_eq!(again, restored);
    let mut engine = Engine::new(Arc::clone(plan()), true);
    engine.traffic.restore(&key, Some(value)).expect("it was accepted before");
    lives_on(&mut engine, "c", NOW);
    let figures = PartitionFigures { moves: engine.traffic.moves().clone(), ..PartitionFigures::default() };
    let metrics = Metrics::new(plan()).expect("metrics");
    metrics.set_partition(0, figures);
    assert!(serde_json::to_string(&metrics.kpis()).is_ok());
    true
}

fn model(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(model) = Model::from_json(text, "model.json") else { return false };
    let written = model.to_json().expect("a model that was read can be written");
    assert!(Model::from_json(&written, "again").is_ok(), "a model that was written can be read");
    works(&Catalogue::shipped(), &[], &model)
}

fn features(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(catalogue) = Catalogue::load("features.toml", text) else { return false };
    let Ok(plan) = Plan::for_features(&catalogue, Settings::default()) else { return false };
    lives_on(&mut Engine::new(Arc::new(plan), true), "c", NOW);
    true
}

fn lifecycle(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    works(&Catalogue::shipped(), &[("lifecycle.toml".to_owned(), text.to_owned())], &support::small_model())
}

/// A rule, in a lifecycle of two stages.
fn cel(bytes: &[u8]) -> bool {
    let Ok(rule) = std::str::from_utf8(bytes) else { return false };
    // JSON's escapes are TOML's.
    let rule = serde_json::to_string(rule).expect("text is JSON");
    let text = format!(
        "name = \"fuzzed\"\ninitial = \"low\"\ntraits = [\"segment\"]\n[thresholds]\nfew = 3\n\
         [[stage]]\nname = \"high\"\nenter = {rule}\n[[stage]]\nname = \"low\"\nenter = \"orders_7d == 0\"\n"
    );
    lifecycle(text.as_bytes())
}

/// Compiles, and lives on; `false` when it is refused, which must be said.
fn works(catalogue: &Catalogue, lifecycles: &[(String, String)], model: &Model) -> bool {
    match Plan::new(catalogue, lifecycles, model, Settings::default()) {
        Ok(plan) => {
            lives_on(&mut Engine::new(Arc::new(plan), true), "c", NOW);
            true
        }
        Err(error) => {
            assert!(!error.what.is_empty(), "refused without a word");
            false
        }
    }
}

/// A configuration file that names no secret files: what those may be is the operator's choice, not input.
fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    if text.contains(".file") || text.contains("_file") {
        return false;
    }
    let file = Some(("stagecast.toml".into(), text.to_owned()));
    let layers = Layers { file, host: "host".to_owned(), ..Layers::default() };
    match Config::from_layers(&layers) {
        Ok(config) => {
            let shown = config.to_toml();
            assert!(toml::de::DeTable::parse(&shown).is_ok(), "what is shown is no TOML:\n{shown}");
            true
        }
        Err(error) => {
            assert!(!error.what.is_empty(), "refused without a word");
            false
        }
    }
}

/// What one client says, whole; accepted when something was answered.
fn http(bytes: &[u8]) -> bool {
    thread_local! {
        static SERVER: RefCell<(tokio::runtime::Runtime, Arc<http::Shared>)> = RefCell::new(server());
    }
    SERVER.with_borrow_mut(|(runtime, shared)| {
        let answer = runtime.block_on(asked(Arc::clone(shared), bytes));
        check_answer(&answer);
        !answer.is_empty()
    })
}

/// The clock stands still while anything can run, so that time-outs cost nothing.
fn server() -> (tokio::runtime::Runtime, Arc<http::Shared>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    (runtime.expect("a runtime"), answers())
}

/// What an instance without customers answers from.
pub fn answers() -> Arc<http::Shared> {
    let (queries, _) = Queries::new(1);
    Arc::new(http::Shared {
        metrics: Metrics::new(plan()).expect("metrics"),
        plan: Arc::clone(plan()),
        health: Arc::new(Health::new(1, Tick::now(), Duration::from_secs(10))),
        queries,
        live: Arc::new(Live::default()),
        reloading: None,
    })
}

async fn asked(shared: Arc<http::Shared>, bytes: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (near, far) = tokio::io::duplex(64 * 1024);
    let served = tokio::spawn(http::server::converse_with(far, shared));
    let (mut answers, mut questions) = tokio::io::split(near);
    let bytes = bytes.to_vec();
    let asking = tokio::spawn(async move {
        // The server may have heard enough. It hangs up on whoever hangs up, so that must wait.
        let _ = questions.write_all(&bytes).await;
        questions
    });
    let mut answer = Vec::new();
    // A stream of news has no end of its own.
    let _ = tokio::time::timeout(PATIENCE, answers.read_to_end(&mut answer)).await;
    drop((answers, asking.await));
    let ended = tokio::time::timeout(PATIENCE, served).await;
    ended.expect("no connection outlives its client").expect("a connection ends without a panic");
    answer
}

fn check_answer(answer: &[u8]) {
    if answer.is_empty() {
        return;
    }
    let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
    assert!(
        status.is_some_and(|status| matches!(
            status,
            100 | 200 | 400 | 404 | 405 | 413 | 414 | 431 | 503 | 504
        )),
        "no such answer: {}",
        String::from_utf8_lossy(&answer[..answer.len().min(200)])
    );
}
