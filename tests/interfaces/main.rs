//! The interface documents say what the program does: they are those that the code makes, every line that is
//! written keeps to its schema, the reader takes exactly the events that the schemas take, and examples are true.
//!
//! `UPDATE=1 cargo test --test interfaces` writes `docs/interfaces` anew. `validate.mjs` holds AsyncAPI and OpenAPI
//! against the schemas of those specifications.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::{Value, json};
use stagecast::cli::schema::text;
use stagecast::config::{Config, Layers};
use stagecast::event::Source;
use stagecast::event::money::{MAX_AMOUNT, Money};
use stagecast::event::native::{Envelope, decode};
use stagecast::kafka::dead_letter;
use stagecast::pipeline::outbox::Channel;
use stagecast::replay::{Request, replay};
use stagecast::schema::{self, Event};
use stagecast::simulate::{Settings, write_files};
use stagecast::time::DAY_MS;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/interfaces")
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap_or_else(|e| panic!("{e}: {schema:#}"))
}

fn event(name: &str) -> Event {
    schema::events().into_iter().find(|event| event.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[track_caller]
fn assert_valid(validator: &Validator, value: &Value, what: &str) {
    let errors: Vec<String> =
        validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

#[test]
fn the_documents_that_ship_are_those_that_the_code_makes() {
    let documents = schema::documents(&Config::default());
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(folder()).unwrap();
        documents.iter().for_each(|d| fs::write(folder().join(&d.file), text(d)).unwrap());
    }
    let shipped: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    assert_eq!(shipped, documents.iter().map(|d| d.file.clone()).collect());
    for document in documents {
        let there = fs::read_to_string(folder().join(&document.file)).unwrap();
        assert!(
            there == text(&document),
            "{} is stale: run `UPDATE=1 cargo test --test interfaces`",
            document.file
        );
    }
}

#[test]
fn every_schema_is_one_and_its_examples_keep_to_it() {
    for event in schema::events() {
        let schema = schema::schema(&event);
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{}", event.name);
        let validator = validator(&closed(schema));
        assert!(!event.examples.is_empty() || event.name == "figures", "{} has no example", event.name);
        for example in &event.examples {
            assert_valid(&validator, example, event.name);
        }
    }
}

/// The schema without room for fields that it does not name, so that a field which is written but not described
/// is found.
fn closed(mut schema: Value) -> Value {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|property| *property = closed(property.take()));
        schema["additionalProperties"] = schema.get("additionalProperties").cloned().unwrap_or(json!(false));
    } else if let Some(values) = schema.get_mut("additionalProperties").filter(|v| v.is_object()) {
        *values = closed(values.take());
    }
    if let Some(items) = schema.get_mut("items") {
        *items = closed(items.take());
    }
    schema
}

/// A configuration with everything on that writes something.
fn config() -> Config {
    let set = ["source.profile.enabled=true", "lifecycles.use=['retention', 'value']"].map(String::from);
    Config::from_layers(&Layers { set: set.to_vec(), ..Layers::default() }).unwrap()
}

/// Customers with faults on their way, one of whom asks to be forgotten.
fn simulated(into: &Path) {
    let settings = Settings {
        customers: 40,
        days: 150,
        faults: "malformed=0.01,duplicates=0.01,late=0.01".parse().unwrap(),
        ..Settings::default()
    };
    write_files(&settings, into, false, &mut |_| {}).unwrap();
    let profile = into.join("profile.ndjson");
    let gone = r#"{"customer_id":"c0000001","type":"customer_deleted","ts":"2025-06-30T00:00:00Z"}"#;
    let before = fs::read_to_string(&profile).unwrap();
    fs::write(profile, format!("{before}{gone}\n")).unwrap();
}

#[test]
fn every_line_of_a_replay_keeps_to_its_schema() {
    let room = tempfile::tempdir().unwrap();
    let (input, output) = (room.path().join("in"), room.path().join("out"));
    simulated(&input);
    let (config, until) = (config(), stagecast::simulate::START + 200 * DAY_MS);
    let plan = stagecast::setup::plan(&config, None).unwrap();
    let request = Request {
        input: input.clone(),
        output: output.clone(),
        features_at: vec![until - 100 * DAY_MS],
        until: Some(until),
        force: false,
    };
    replay(plan, &config, &request, &|_| Ok(())).unwrap();
    for (file, name) in [
        ("stage-changes", "stage-change"),
        ("churn-scores", "churn-score"),
        ("churn-alerts", "churn-alert"),
        ("churn-outcomes", "churn-outcome"),
        ("erasures", "erasure-receipt"),
        ("dlq", "dead-letter-line"),
        ("features", "features-line"),
    ] {
        let validator = validator(&closed(event(name).schema));
        let lines = lines(&output.join(format!("{file}.ndjson")));
        assert!(!lines.is_empty(), "{file} has no line");
        lines.iter().for_each(|line| assert_valid(&validator, line, name));
    }
    let unusable: BTreeSet<(String, u64)> = lines(&output.join("dlq.ndjson"))
        .iter()
        .map(|line| (line["topic"].as_str().unwrap().to_owned(), line["offset"].as_u64().unwrap()))
        .collect();
    for source in Source::ALL {
        let validator = validator(&schema::input(source).schema);
        let text = fs::read_to_string(input.join(format!("{}.ndjson", source.name()))).unwrap();
        for (number, line) in text.lines().enumerate() {
            if !unusable.contains(&(source.name().to_owned(), number as u64)) {
                assert_valid(&validator, &serde_json::from_str(line).unwrap(), source.name());
            }
        }
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether the reader takes an event whose record has a key and a timestamp.
fn is_read(source: Source, json: &Value) -> bool {
    let envelope = Envelope { source, key: Some(b"key"), timestamp: Some(0), latest: None };
    decode(json.to_string().as_bytes(), &envelope, &Money::default()).is_ok()
}

/// Every field of every example is replaced by values of every kind, and left out.
#[test]
fn the_reader_takes_what_the_schemas_take_and_nothing_else() {
    let values = json!([
        null, true, 0, 1, -1, 7.5, 11, 1_772_357_400_125_i64, 900_000_000_000_000_000_i64, "", "a_b", "A b", "2026-03-01T09:30:00Z",
        "2026-03-01T09:30:00", "2026-02-30T00:00:00+01:00", "x".repeat(65), "x".repeat(129), "x".repeat(257), [], [1], {},
        {"a": 1}, {"a": {}}, {"a": [1]}, {"a": null}
    ]);
    // What the reader passes over, and a text of which it wants to know more than a schema can say.
    let unread = ["items", "from_id", "currency"];
    let mut compared = 0;
    for source in Source::ALL {
        let event = schema::input(source);
        let validator = validator(&event.schema);
        let names: Vec<String> = event.schema["properties"].as_object().unwrap().keys().cloned().collect();
        for example in &event.examples {
            for name in names.iter().filter(|name| !unread.contains(&name.as_str())) {
                let mut changed: Vec<Value> = values.as_array().unwrap().clone();
                changed.push(Value::String("\u{1}absent".into()));
                for value in changed {
                    if name == "amount" && value.as_f64().is_some_and(|amount| amount > MAX_AMOUNT) {
                        // The limit is one in the base currency, whatever the event's.
                        continue;
                    }
                    if name == "traits" && example["type"] == "customer_deleted" {
                        // Who is to be forgotten is so whatever else the event says.
                        continue;
                    }
                    let mut json = example.clone();
                    match value.as_str() {
                        Some("\u{1}absent") => drop(json.as_object_mut().unwrap().remove(name)),
                        _ => json[name] = value,
                    }
                    assert_eq!(
                        is_read(source, &json),
                        validator.is_valid(&json),
                        "the reader and the schema of {} disagree: {json}",
                        source.name()
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 1_000, "{compared}");
}

#[test]
fn the_headers_of_dead_letters_are_those_that_are_written() {
    let reject =
        stagecast::event::Reject::new(stagecast::event::Reason::InvalidTs, "/ts: expected an instant");
    let mut origin = dead_letter::Origin {
        topic: "purchase",
        partition: 3,
        offset: 17,
        timestamp: Some(1_772_702_157_000),
    };
    let headers: Value = dead_letter::headers(&origin, &reject).into_iter().collect();
    assert_valid(&validator(&closed(event("dead-letter-headers").schema)), &headers, "headers");
    origin.timestamp = None;
    let headers: Value = dead_letter::headers(&origin, &reject).into_iter().collect();
    assert_valid(&validator(&closed(event("dead-letter-headers").schema)), &headers, "headers");
}

/// What `$ref` names within a document is there.
fn check_references(document: &Value, at: &Value, file: &str) -> usize {
    let below = match at {
        Value::Object(fields) => fields.values().map(|v| check_references(document, v, file)).sum(),
        Value::Array(items) => items.iter().map(|v| check_references(document, v, file)).sum(),
        _ => 0,
    };
    let Some(reference) = at.get("$ref").and_then(Value::as_str) else { return below };
    let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{file} names {reference} elsewhere"));
    assert!(document.pointer(pointer).is_some(), "{file}: {reference} is not there");
    below + 1
}

fn document(file: &str, config: &Config) -> Value {
    schema::documents(config).into_iter().find(|d| d.file == file).unwrap().content
}

#[test]
fn asyncapi_has_every_topic_of_the_configuration_with_its_event() {
    let config = config();
    let document = document("asyncapi.json", &config);
    assert!(check_references(&document, &document, "asyncapi.json") > 20);
    let addresses: BTreeSet<&str> =
        document["channels"].as_object().unwrap().values().map(|c| c["address"].as_str().unwrap()).collect();
    let layout = stagecast::setup::topics(&config);
    let private = [layout.state.as_str(), layout.identity.as_str()];
    let topics: BTreeSet<&str> = layout.topics().into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(addresses, topics.into_iter().filter(|topic| !private.contains(topic)).collect());
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        if name == "dead-letter" {
            continue;
        }
        let payload = validator(&message["payload"]);
        let examples = message["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{name}");
        examples.iter().for_each(|example| assert_valid(&payload, &example["payload"], name));
    }
    for channel in Channel::ALL {
        let message = &document["components"]["messages"][schema::output(channel).name];
        assert_eq!(message["headers"]["properties"]["ce_type"]["const"], channel.event_type());
    }
    let policies = &document["channels"]["churnScores"]["bindings"]["kafka"]["topicConfiguration"];
    assert_eq!(policies["cleanup.policy"], json!(["compact"]));
}

#[test]
fn asyncapi_does_not_tell_passwords() {
    let set = vec!["kafka.bootstrap.servers=SASL_SSL://user:canary@b1:9092,b2:9092".to_owned()];
    let config = Config::from_layers(&Layers { set, ..Layers::default() }).unwrap();
    let document = document("asyncapi.json", &config);
    assert_eq!(document["servers"]["kafka"]["host"], "b1:9092");
    assert!(!document.to_string().contains("canary"));
}

#[test]
fn openapi_has_every_address() {
    let document = document("openapi.json", &config());
    assert!(check_references(&document, &document, "openapi.json") > 10);
    let paths: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(paths, stagecast::http::routes::PATHS.into_iter().collect());
}
