//! Hostile input: whatever comes in over Kafka, in a file or over HTTP is taken or refused, in bounded memory, and
//! nothing panics. Work is measured in allocations and bytes, never in time.
//!
//! The corpora of `fuzz/` and seeded mutations of them go through the very functions that a fuzzer calls.

#[path = "../support/mod.rs"]
mod support;
mod http;
mod mutate;
mod targets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mutate::Mutations;
use stagecast::event::decoder::{Decoder, Format};
use stagecast::event::money::Money;
use stagecast::event::native::Envelope;
use stagecast::event::{MAX_RECORD_BYTES, Reason, Source};
use stagecast::pipeline::engine::{Applied, SEEN_MOST, TRAITS_BYTES_MOST};
use stagecast::pipeline::lifecycle::preset;
use stagecast::pipeline::moves;
use stagecast::pipeline::plan::Settings;
use stagecast::time::{DAY_MS, format_rfc3339};
use support::{Driver, plan};
use targets::{TARGETS, target};

/// Brokers take records of 1 MiB unless told otherwise; a customer's state is one record.
const STATE_BYTES_MOST: usize = 512 * 1024;
/// Of each corpus; more with `MUTATIONS=1000000`.
const MUTATIONS: u64 = 400;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let read = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = read.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// On a thread with the stack that the service's workers have.
fn on_a_workers_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap();
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn every_seed_is_taken_or_refused_as_its_name_says() {
    on_a_workers_stack(|| {
        for (name, target) in TARGETS {
            let seeds = corpus(name);
            let taken: Vec<bool> = seeds.iter().map(|(_, bytes)| target(bytes)).collect();
            let ok = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with("ok");
            let wrong = seeds.iter().zip(&taken).filter(|((path, _), taken)| ok(path) != **taken);
            let wrong: Vec<&PathBuf> = wrong.map(|((path, _), _)| path).collect();
            assert!(wrong.is_empty(), "{name}: {wrong:?}");
            let taken = taken.into_iter().filter(|taken| *taken).count();
            assert!(taken > 0 && taken < seeds.len(), "{name}: {taken} of {} are taken", seeds.len());
        }
    });
}

#[test]
fn no_mutation_of_a_seed_breaks_anything() {
    let mutations = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(MUTATIONS);
    let only = std::env::var("TARGET").ok();
    on_a_workers_stack(move || {
        for (name, target) in TARGETS.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|o| o == name))
        {
            let seeds: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, bytes)| bytes).collect();
            let mut inputs = Mutations::new(&seeds, 7);
            let mut taken = 0u64;
            for number in 0..mutations {
                let input = inputs.next();
                let tried = std::panic::catch_unwind(|| target(&input));
                taken += u64::from(tried.unwrap_or_else(|panic| {
                    eprintln!("{name}, mutation {number}: {:?}", String::from_utf8_lossy(&input));
                    std::panic::resume_unwind(panic)
                }));
            }
            println!("{name}: {taken} of {mutations} taken");
        }
    });
}

fn decoders() -> Vec<(String, Decoder)> {
    let plain = |format, data| Decoder::new(format, data, &BTreeMap::new(), BTreeMap::new());
    let mut all: Vec<(String, Decoder)> =
        Format::ALL.map(|format| (format.name().to_owned(), plain(format, Format::Native))).into();
    all.push(("cloudevents of segment".to_owned(), plain(Format::CloudEvents, Format::Segment)));
    let fields = [("customer_id", "/user/id"), ("traits", "/traits"), ("type", "/type"), ("text", "/a/0")];
    let fields = fields.map(|(field, at)| (field.to_owned(), at.to_owned())).into();
    all.push(("pointers".to_owned(), Decoder::new(Format::Native, Format::Native, &fields, BTreeMap::new())));
    all
}

/// Records that ask for much, each of at most the size that is looked into, and some beyond it.
fn demanding() -> Vec<(&'static str, Vec<u8>)> {
    let room = MAX_RECORD_BYTES - 200;
    let identify = |traits: &str| {
        format!(
            r#"{{"type":"identify","customer_id":"c","userId":"c","user":{{"id":"c"}},"traits":{traits}}}"#
        )
    };
    let deep = |open: &str, close: &str, depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
    let long_name = "n".repeat(room / 2);
    let many = |one: &dyn Fn(usize) -> String, bytes: usize| {
        let (mut all, mut n) = (String::new(), 0);
        while all.len() < bytes {
            all.push_str(&one(n));
            n += 1;
        }
        all.trim_end_matches(',').to_owned()
    };
    let texts: Vec<(&str, String)> = vec![
        ("10 MiB", "x".repeat(10 << 20)),
        ("10 MiB of an object", format!(r#"{{"a":"{}"}}"#, "x".repeat(10 << 20))),
        ("deep lists", format!(r#"{{"traits":{}}}"#, deep("[", "]", room / 2 - 20))),
        ("deep objects", identify(&deep(r#"{"a":"#, "}", room / 6 - 40))),
        ("deep in what nobody asks for", format!(r#"{{"other":{}}}"#, deep("[", "]", 200_000))),
        ("a hundred levels of traits", identify(&deep(r#"{"a":"#, "}", 100))),
        (
            "a long name with many inside",
            identify(&format!(r#"{{"{long_name}":{{{}}}}}"#, many(&|n| format!(r#""{n}":1,"#), room / 3))),
        ),
        ("many traits", identify(&format!("{{{}}}", many(&|n| format!(r#""{n}":1,"#), room - 200)))),
        ("one long trait", identify(&format!(r#"{{"a":"{}"}}"#, "x".repeat(room - 200)))),
        ("a trait that is nested, with a long name", identify(&format!(r#"{{"{long_name}":[1]}}"#))),
        ("many fields", format!("{{{}}}", many(&|n| format!(r#""f{n}":[{{}}],"#), room))),
        (
            "long lists",
            format!(r#"{{"a":[{}],"items":[{}]}}"#, "1,".repeat(200_000) + "1", "{},".repeat(99_999) + "1"),
        ),
        ("a long number", format!(r#"{{"amount":{}}}"#, "9".repeat(room))),
        ("a long exponent", format!(r#"{{"amount":1e{}}}"#, "9".repeat(room))),
        ("a long fraction", format!(r#"{{"amount":0.{}1,"customer_id":"c"}}"#, "0".repeat(room - 200))),
        ("a long id", format!(r#"{{"customer_id":"{0}","userId":"{0}"}}"#, "x".repeat(room / 2 - 40))),
        ("a long instant", format!(r#"{{"ts":"2026-01-01T00:00:00.{}Z"}}"#, "1".repeat(room))),
        (
            "a long name of an event",
            format!(r#"{{"type":"track","event":"{}","userId":"u"}}"#, "aB".repeat(room / 2 - 40)),
        ),
        (
            "a long channel",
            format!(
                r#"{{"customer_id":"c","userId":"c","type":"page","channel":"{}"}}"#,
                "x".repeat(room - 200)
            ),
        ),
        (
            "a long text",
            format!(
                r#"{{"customer_id":"c","type":"ticket_opened","text":"{}"}}"#,
                "good bad ".repeat(room / 10)
            ),
        ),
        ("escapes", format!(r#"{{"customer_id":"{}"}}"#, r"\u0041".repeat(room / 6 - 20))),
        ("white space", format!("{}{{}}{}", " ".repeat(room / 2), "\n".repeat(room / 2))),
    ];
    texts.into_iter().map(|(what, text)| (what, text.into_bytes())).collect()
}

#[test]
fn demanding_records_are_read_in_memory_in_proportion_to_their_size() {
    let envelope = Envelope { source: Source::Profile, key: Some(b"c"), timestamp: Some(0), latest: Some(1) };
    let money = Money::default();
    // The lexicon of moods is loaded once and is not any record's.
    target("native")(br#"{"customer_id":"c","type":"ticket_opened","text":"good"}"#);
    let demanding = demanding();
    for (decoding, decoder) in decoders() {
        for (what, record) in &demanding {
            for source in [Source::Profile, Source::Support] {
                let envelope = Envelope { source, ..envelope };
                let read = || drop(decoder.decode(record, &envelope, &(), &money));
                let used = allocation_counter::measure(read);
                // Escaped text is copied once; a list of its parts may be grown by doubling.
                let bytes_most = 4 * record.len().min(MAX_RECORD_BYTES) as u64 + 256 * 1024;
                assert!(used.bytes_max <= bytes_most, "{decoding}, {what}, {source:?}: {used:?}");
                let allocations_most = record.len().min(MAX_RECORD_BYTES) as u64 / 2 + 20_000;
                assert!(used.count_total <= allocations_most, "{decoding}, {what}, {source:?}: {used:?}");
                let bytes_most = 16 * record.len().min(MAX_RECORD_BYTES) as u64 + (4 << 20);
                assert!(used.bytes_total <= bytes_most, "{decoding}, {what}, {source:?}: {used:?}");
            }
        }
    }
}

#[test]
fn what_no_json_can_mean_is_refused_by_every_decoder() {
    let envelope = Envelope { source: Source::Purchase, key: None, timestamp: None, latest: None };
    let money = Money::default();
    let wrong: [(&[u8], &[Reason]); 18] = [
        (b"", &[Reason::Empty]),
        (b"\0", &[Reason::UnsupportedEncoding]),
        (b"\0\0\0\0\x01", &[Reason::UnsupportedEncoding]),
        (b"\xff\xfe{}", &[Reason::MalformedJson]),
        (b"\xef\xbb\xbf{}", &[Reason::MalformedJson]),
        (
            b"{\"customer_id\":\"\xc3\x28\",\"user\":{\"id\":\"\xc3\x28\"},\"type\":\"\xc3\x28\",\"id\":\"\xc3\x28\"}",
            &[Reason::MalformedJson],
        ),
        (br#"{"customer_id":"\ud800","userId":"\ud800","user":{"id":"\ud800"},"type":"\ud800","id":"\ud800"}"#, &[Reason::MalformedJson]),
        (br#"{"amount":NaN}"#, &[Reason::MalformedJson]),
        (br#"{"amount":Infinity}"#, &[Reason::MalformedJson]),
        (br#"{"amount":-inf}"#, &[Reason::MalformedJson]),
        (br#"{"type":1e400,"user":{"id":1e400}}"#, &[Reason::MalformedJson]),
        (br#"{"type":"a","type":"b"}"#, &[Reason::MalformedJson, Reason::InvalidField, Reason::MissingCustomerId]),
        (b"{\"type\":\"a\0b\"}", &[Reason::MalformedJson]),
        (b"[1,2]", &[Reason::NotAnObject]),
        (b"\"text\"", &[Reason::NotAnObject]),
        (b"{} {}", &[Reason::MalformedJson]),
        (b"{\"a\":1,}", &[Reason::MalformedJson]),
        (b"{\"a\"", &[Reason::MalformedJson]),
    ];
    for (decoding, decoder) in decoders() {
        for (record, reasons) in &wrong {
            let reject = decoder.decode(record, &envelope, &(), &money).map(|event| event.into_owned());
            let reject = reject.expect_err(&decoding);
            let told = String::from_utf8_lossy(record);
            assert!(reasons.contains(&reject.reason), "{decoding}: {told}: {reject}");
        }
    }
}

#[test]
fn native_fields_at_their_limits_are_taken_and_beyond_them_refused() {
    let envelope = Envelope { source: Source::Purchase, key: None, timestamp: None, latest: None };
    let decoder = Decoder::default();
    let read = |more: &str| {
        let record = format!(r#"{{"type":"order_completed","ts":0,{more}}}"#);
        let event = decoder.decode(record.as_bytes(), &envelope, &(), &Money::default());
        event.map(|_| ()).map_err(|reject| reject.reason)
    };
    let id = |bytes: usize| format!(r#""amount":1,"customer_id":"{}""#, "i".repeat(bytes));
    for (more, expected) in [
        (id(256), Ok(())),
        (id(257), Err(Reason::InvalidCustomerId)),
        (id(300), Err(Reason::InvalidCustomerId)),
        (id(0), Err(Reason::InvalidCustomerId)),
        (r#""customer_id":"\u0000","amount":1"#.to_owned(), Ok(())),
        (r#""customer_id":18446744073709551615,"amount":0"#.to_owned(), Ok(())),
        (r#""customer_id":1e3,"amount":0"#.to_owned(), Err(Reason::InvalidCustomerId)),
        (r#""customer_id":"c","amount":-0.0"#.to_owned(), Ok(())),
        (r#""customer_id":"c","amount":1e12"#.to_owned(), Ok(())),
        (r#""customer_id":"c","amount":1.0000001e12"#.to_owned(), Err(Reason::InvalidAmount)),
        (r#""customer_id":"c","amount":1e308"#.to_owned(), Err(Reason::InvalidAmount)),
        (r#""customer_id":"c","amount":1e400"#.to_owned(), Err(Reason::MalformedJson)),
        (r#""customer_id":"c","amount":5e-324"#.to_owned(), Ok(())),
        (r#""customer_id":"c","amount":1,"ts":1"#.to_owned(), Err(Reason::MalformedJson)),
    ] {
        assert_eq!(read(&more), expected, "{more}");
    }
}

#[test]
fn instants_at_the_ends_of_the_calendar_are_taken_and_beyond_them_refused() {
    let envelope = Envelope { source: Source::Clickstream, key: None, timestamp: None, latest: None };
    let decoder = Decoder::default();
    let read = |ts: &str| {
        let record = format!(r#"{{"customer_id":"c","type":"page_viewed","ts":{ts}}}"#);
        decoder.decode(record.as_bytes(), &envelope, &(), &Money::default()).map(|event| event.ts)
    };
    for taken in
        ["253402300799999", "-62167219200000", r#""9999-12-31T23:59:59.999Z""#, r#""0000-01-01T00:00:00Z""#]
    {
        assert!(read(taken).is_ok(), "{taken}");
    }
    for refused in [
        "253402300800000",
        "-62167219200001",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        r#""0000-01-01T00:00:00+23:59""#,
        r#""9999-12-31T23:59:59-23:59""#,
        r#""2026-02-30T00:00:00Z""#,
        r#""2026-01-01T00:00:00""#,
    ] {
        assert_eq!(read(refused).map_err(|reject| reject.reason), Err(Reason::InvalidTs), "{refused}");
    }
}

#[test]
fn a_customer_of_a_hundred_thousand_events_a_day_has_a_state_that_a_broker_takes() {
    let lifecycles = [preset("retention").unwrap().to_owned()];
    let plan = plan(&lifecycles, Settings::default());
    let mut driver = Driver::new(&plan);
    let start = 1_767_225_600_000;
    let click = |n: i64| {
        let ts = format_rfc3339(start + n * 800);
        format!(r#"{{"customer_id":"bot","type":"page_viewed","event_id":"e{n}","ts":"{ts}"}}"#)
    };
    for n in 0..100_000 {
        driver.apply(Source::Clickstream, click(n).as_bytes());
        if n % 1_000 == 0 {
            driver.commit();
        }
    }
    driver.commit();
    let states = driver.states();
    assert!(states["bot"].len() < STATE_BYTES_MOST, "{} bytes", states["bot"].len());
    // What is remembered is the newest, before a restart and after it.
    let remembered = 100_000 - (SEEN_MOST * 3 / 4) as i64;
    for mut driver in [Driver::restored(&plan, &states), driver] {
        for n in [remembered, 99_999] {
            assert_eq!(driver.apply(Source::Clickstream, click(n).as_bytes()), Applied::Duplicate, "{n}");
        }
    }
}

#[test]
fn a_flood_of_traits_fills_the_room_of_its_customer_and_no_more() {
    let mut driver = Driver::new(&plan(&[], Settings::default()));
    let update = |round: usize, value: &str| {
        let traits: Vec<String> = (0..200).map(|n| format!(r#""t{round}-{n}":{value}"#)).collect();
        format!(
            r#"{{"customer_id":"c","type":"traits_updated","ts":{},"traits":{{{}}}}}"#,
            1_767_225_600_000 + round,
            traits.join(",")
        )
    };
    let long = format!("\"{}\"", "x".repeat(4_000));
    for round in 0..20 {
        driver.apply(Source::Profile, update(round, &long).as_bytes());
    }
    driver.commit();
    let bytes = driver.states()["c"].len();
    assert!((TRAITS_BYTES_MOST / 2..2 * TRAITS_BYTES_MOST).contains(&bytes), "{bytes}");
    // Removing makes room, and what was there first has stayed.
    driver.apply(Source::Profile, update(0, "null").as_bytes());
    let last = r#"{"customer_id":"c","type":"traits_updated","ts":1767225600100,"traits":{"plan":"pro"}}"#;
    driver.apply(Source::Profile, last.as_bytes());
    driver.commit();
    let store = driver.engine.store();
    let traits = store.traits(store.find("c").unwrap()).unwrap();
    assert!(traits.contains_key("plan"), "{} traits", traits.len());
}

#[test]
fn silence_of_two_thousand_years_is_lived_through_in_bounded_steps() {
    let lifecycles = ["retention", "value", "matrix"].map(|name| preset(name).unwrap().to_owned());
    let mut driver = Driver::new(&plan(&lifecycles, Settings::default()));
    driver.apply(
        Source::Purchase,
        br#"{"customer_id":"c","type":"order_completed","amount":1,"ts":"0001-01-01T00:00:00Z"}"#,
    );
    driver.commit();
    let used = allocation_counter::measure(|| {
        driver.apply(
            Source::Purchase,
            br#"{"customer_id":"c","type":"order_completed","amount":1,"ts":"2026-01-01T00:00:00Z"}"#,
        );
    });
    let outputs = driver.commit().len();
    assert!(outputs < 10_000, "{outputs} outputs");
    assert!(used.bytes_max < 64 << 20, "{used:?}");
}

#[test]
fn rules_that_are_deep_long_or_many_are_answered_on_a_small_stack() {
    on_a_workers_stack(|| {
        let cel = target("cel");
        let times = |part: &str, times: usize| part.repeat(times);
        let rules = [
            times("!", 4_000) + "true",
            times("-", 4_000) + "1 > 0",
            times("- ", 2_000) + "1 > 0",
            times("1 + ", 1_000) + "1 > 0",
            // As deep as a rule can be.
            times("1 + ", 250) + "1 > 0",
            times("orders_7d + ", 250) + "1 > 0",
            times("true && ", 255) + "true",
            times("true ? true : ", 127) + "true",
            times("true == ", 255) + "true",
            "traits".to_owned() + &times(".a", 250) + " == 1",
            times("1 in ", 250) + "[1]",
            times("true && ", 500) + "true",
            times("orders_7d > 0 || ", 240) + "true",
            times("true ? true : ", 250) + "true",
            times("orders_7d > 1 ? 1 : ", 200) + "1 == 1",
            times("orders_7d > 1 ? orders_7d > 2 : ", 120) + "true",
            times("(", 9) + "true" + &times(")", 9),
            times("(", 2_000) + "true" + &times(")", 2_000),
            times("[", 2_000) + &times("]", 2_000),
            times("{", 2_000) + &times("}", 2_000),
            times("true == ", 500) + "true",
            times("(orders_7d > 1) == ", 200) + "true",
            times("a.", 2_000) + "b",
            times("traits.", 500) + "b == 1",
            "traits".to_owned() + &times(".a", 2_000) + " == 1",
            "traits".to_owned() + &times("[\"a\"]", 800) + " == 1",
            "f".to_owned() + &times("(f", 1_900),
            "\"".to_owned() + &times("\\", 4_000),
            format!("\"{}\" == traits.a", "x".repeat(4_000)),
            format!("{} > 0", "9".repeat(4_000)),
            format!("1e{} > 0", "9".repeat(4_000)),
            "traits.a in [".to_owned() + &times("1,", 1_900) + "1]",
            times("\u{1F600}", 1_000),
            "orders_7d > 0".repeat(1_000),
        ];
        for rule in rules {
            // An overflow of the stack ends the process: with `--nocapture` this says where.
            println!("{rule:.40}");
            cel(rule.as_bytes());
        }
    });
}

#[test]
fn files_that_are_deep_or_repeat_themselves_are_answered_on_a_small_stack() {
    on_a_workers_stack(|| {
        let deep = |open: &str, close: &str| open.repeat(50_000) + &close.repeat(50_000);
        for (name, target) in TARGETS {
            for text in [
                deep("[", "]"),
                deep("{\"a\":", "}"),
                format!("a = {}", deep("[", "]")),
                format!("a = {}", deep("{a=", "}")),
                format!("[{}]\n", "a.".repeat(20_000) + "a"),
                format!("{} = 1\n", "a.".repeat(20_000) + "a"),
                "[[stage]]\n".repeat(2_000),
                "[[feature]]\nname = \"a\"\n".repeat(300),
                "[override.a.b]\n".repeat(1_000),
                format!("name = \"{}\"", "x".repeat(1 << 20)),
                format!("\"{}\" = 1", "x".repeat(1 << 20)),
                "\u{0}".repeat(1 << 16),
                "GET / HTTP/1.1\r\n\r\n".repeat(500),
            ] {
                assert!(!target(text.as_bytes()) || name == "http", "{name}: {:.60}", text);
            }
        }
    });
}

/// `UPDATE=1` writes them, after a change of what a state is.
#[test]
fn the_seeds_of_states_are_states_of_this_version() {
    let events = [
        (Source::Clickstream, r#""type":"page_viewed","channel":"email","event_id":"a""#),
        (Source::Purchase, r#""type":"order_completed","amount":12.5"#),
        (Source::Support, r#""type":"ticket_opened","text":"terrible""#),
        (Source::Profile, r#""type":"traits_updated","traits":{"segment":"vip","seats":3,"new":true}"#),
        (Source::Purchase, r#""type":"order_completed","amount":99,"event_id":"b""#),
    ];
    let mut driver = Driver::new(targets::plan());
    for (day, (source, fields)) in events.iter().enumerate() {
        let ts = format_rfc3339(1_767_225_600_000 + day as i64 * 20 * DAY_MS);
        driver.apply(*source, format!(r#"{{"customer_id":"c","ts":"{ts}",{fields}}}"#).as_bytes());
        driver.commit();
        let state = driver.states().remove("c").unwrap();
        let body = &state[..state.len() - 4];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/state");
        let seed = folder.join(format!("ok-{}", day + 1));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&seed, body).unwrap();
            std::fs::write(folder.join("bad-cut"), &body[..body.len() / 2]).unwrap();
            std::fs::write(folder.join("bad-empty"), b"").unwrap();
        }
        assert_eq!(std::fs::read(&seed).unwrap(), body, "{}: UPDATE=1 writes it", seed.display());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/moves");
    for (n, (key, value)) in driver.engine.traffic.moves().records().take(4).enumerate() {
        let rest = key.strip_prefix(moves::KEY).unwrap();
        let bytes = [&[rest.len() as u8], rest, &value].concat();
        let seed = folder.join(format!("ok-{n}"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&seed, &bytes).unwrap();
            std::fs::write(folder.join("bad-cut"), &bytes[..bytes.len() - 1]).unwrap();
            std::fs::write(folder.join("bad-version"), [&[rest.len() as u8], rest, &[9][..]].concat())
                .unwrap();
        }
        assert_eq!(std::fs::read(&seed).unwrap(), bytes, "{}: UPDATE=1 writes it", seed.display());
    }
    let description = driver.engine.plan().description.encode();
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/description/ok-1.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&seed, &description).unwrap();
    }
    assert_eq!(std::fs::read(&seed).unwrap(), description, "{}: UPDATE=1 writes it", seed.display());
}
