//! JSON Schema in a few words: what a value may be, and the fields of an object.
//!
//! Only keywords that draft 7 and 2020-12 read alike, so that one schema serves both the files and AsyncAPI.

use serde_json::{Map, Value, json};

/// One field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    name: &'static str,
    shape: Value,
    is_required: bool,
}

/// A field that is always there.
pub fn field(name: &'static str, help: &str, shape: Value) -> Field {
    Field { name, shape: described(shape, help), is_required: true }
}

/// A field that may be left out, or be `null`, which is the same.
pub fn optional(name: &'static str, help: &str, shape: Value) -> Field {
    Field { name, shape: described(or_null(shape), help), is_required: false }
}

/// A value with a sentence about it.
pub fn described(mut shape: Value, help: &str) -> Value {
    shape["description"] = help.into();
    shape
}

pub fn text() -> Value {
    json!({ "type": "string" })
}

pub fn text_like(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

pub fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> Value {
    json!({ "type": "string", "enum": words.into_iter().collect::<Vec<_>>() })
}

pub fn always(word: &str) -> Value {
    json!({ "type": "string", "const": word })
}

pub fn flag() -> Value {
    json!({ "type": "boolean" })
}

pub fn number() -> Value {
    json!({ "type": "number" })
}

pub fn within(low: f64, high: f64) -> Value {
    json!({ "type": "number", "minimum": low, "maximum": high })
}

pub fn at_least(low: f64) -> Value {
    json!({ "type": "number", "minimum": low })
}

pub fn count(from: u32) -> Value {
    json!({ "type": "integer", "minimum": from })
}

/// An instant as outputs write it: UTC, with milliseconds.
pub fn instant() -> Value {
    json!({ "type": "string", "format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$" })
}

pub fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

/// Names that are not known beforehand, each with a value of one shape.
pub fn map(of: Value) -> Value {
    json!({ "type": "object", "additionalProperties": of })
}

/// More fields than these may come with a later version; readers pass over what they do not know.
pub fn object(fields: impl IntoIterator<Item = Field>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields {
        properties.insert(field.name.to_owned(), field.shape);
        if field.is_required {
            required.push(field.name);
        }
    }
    let mut shape = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        shape["required"] = json!(required);
    }
    shape
}

/// The same, or `null`.
pub fn or_null(mut shape: Value) -> Value {
    if let Some(words) = shape.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    let types = match shape["type"].take() {
        Value::Array(mut types) => {
            types.push("null".into());
            types
        }
        one => vec![one, "null".into()],
    };
    shape["type"] = types.into();
    shape
}
