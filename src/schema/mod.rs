//! The interfaces as documents: a JSON Schema for every event in and out and for every answer over HTTP, an AsyncAPI
//! document about the topics and an OpenAPI document about the routes.
//!
//! Each event is described once, beside nothing that could say otherwise: names of types, reasons, channels and
//! headers come from the code that uses them, and the tests hold every output and the reader of inputs against
//! the schemas. Pure.

mod shape;
mod inputs;
mod outputs;
mod http;
mod asyncapi;

use serde_json::{Value, json};

use crate::config::Config;
use crate::event::{Reason, Source};
use crate::pipeline::outbox::Channel;

/// One kind of message or answer.
#[derive(Clone, Debug)]
pub struct Event {
    /// In kebab-case; the document's name.
    pub name: &'static str,
    pub title: &'static str,
    pub help: &'static str,
    /// Its shape alone.
    pub schema: Value,
    pub examples: Vec<Value>,
}

/// A document with its file name.
#[derive(Clone, Debug)]
pub struct Document {
    pub file: String,
    pub content: Value,
}

/// Every event and answer, inputs first.
pub fn events() -> Vec<Event> {
    let reasons = reasons();
    let letters = outputs::dead_letter_headers(&reasons);
    let line = inputs::dead_letter_line(&reasons, letters.schema.clone());
    let mut events: Vec<Event> = Source::ALL.into_iter().map(inputs::event).collect();
    events.extend(Channel::ALL.into_iter().map(outputs::event));
    events.extend([letters, line, inputs::features_line()]);
    events.extend(http::bodies());
    events
}

/// The event that a kind of input has.
pub fn input(source: Source) -> Event {
    inputs::event(source)
}

/// The event that an output topic carries.
pub fn output(channel: Channel) -> Event {
    outputs::event(channel)
}

/// All documents; topics and addresses are those of the configuration.
pub fn documents(config: &Config) -> Vec<Document> {
    let of = |event: &Event| Document { file: format!("{}.schema.json", event.name), content: schema(event) };
    let mut documents: Vec<Document> = events().iter().map(of).collect();
    documents.push(Document { file: "asyncapi.json".into(), content: asyncapi::asyncapi(config) });
    documents.push(Document { file: "openapi.json".into(), content: http::openapi(config) });
    documents
}

/// The schema of an event as a document of its own.
pub fn schema(event: &Event) -> Value {
    let mut schema = inline(event);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["$id"] = json!(format!("urn:stagecast:{}", event.name));
    schema
}

/// The schema of an event within another document.
fn inline(event: &Event) -> Value {
    let mut schema = event.schema.clone();
    schema["title"] = event.title.into();
    schema["description"] = event.help.into();
    if !event.examples.is_empty() {
        schema["examples"] = event.examples.clone().into();
    }
    schema
}

fn reasons() -> Vec<&'static str> {
    Reason::ALL.map(Reason::code).to_vec()
}
