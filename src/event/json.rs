//! JSON as far as foreign formats need it: the leaf values they carry, objects that may be absent, and flat
//! traits out of nested ones.
//!
//! Borrows from the record's bytes wherever the JSON has no escapes. Knows no format and no rule about events.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::native::{MAX_TRAIT_NAME_BYTES, MAX_TRAITS, check_trait, long_trait_name};
use super::place::pointer_at;
use super::{MAX_RECORD_BYTES, Reason, Reject, TraitChanges};
use crate::pipeline::facts::TraitValue;

/// Confluent wire framing: a zero byte and a schema id of four bytes stand before the JSON.
const FRAMING_BYTES: usize = 5;

/// The JSON of a record's value, which must be an object.
pub(super) fn object(value: &[u8]) -> Result<&[u8], Reject> {
    if value.len() > MAX_RECORD_BYTES {
        let message = format!("{} bytes; at most {MAX_RECORD_BYTES} are read", value.len());
        return Err(Reject::new(Reason::TooLarge, message));
    }
    if value.is_empty() {
        return Err(Reject::new(Reason::Empty, "the record has no value"));
    }
    let json = unframed(value);
    if json.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
        return Ok(json);
    }
    Err(match serde_json::from_slice::<IgnoredAny>(json) {
        Ok(_) => Reject::new(Reason::NotAnObject, "the value is JSON but no object"),
        Err(error) => malformed(&error, json, ""),
    })
}

/// What stands behind a schema id, if there is one.
fn unframed(value: &[u8]) -> &[u8] {
    match value.first() {
        Some(0) if value.len() > FRAMING_BYTES => &value[FRAMING_BYTES..],
        _ => value,
    }
}

/// Whether a value begins as an object or list does, and so is meant to be JSON.
pub(super) fn is_begun(value: &[u8]) -> bool {
    matches!(unframed(value).iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'['))
}

/// Reads a whole object.
pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Reject> {
    read_at(json, "")
}

/// Reads a whole value that stands at `at` in the record.
pub(super) fn read_at<'a, T: Deserialize<'a>>(json: &'a [u8], at: &str) -> Result<T, Reject> {
    serde_json::from_slice(json).map_err(|error| malformed(&error, json, at))
}

/// Reads a whole object into where its fields are kept.
pub(super) fn read_into<'a, T: Fields<'a>>(json: &'a [u8], fields: &mut T) -> Result<(), Reject> {
    // Text that is known to be UTF-8 as a whole need not be looked at again string by string. Where it is not,
    // the reader of bytes says where.
    let read = match std::str::from_utf8(json) {
        Ok(text) => fill(fields, serde_json::Deserializer::from_str(text)),
        Err(_) => fill(fields, serde_json::Deserializer::from_slice(json)),
    };
    read.map_err(|error| malformed(&error, json, ""))
}

fn fill<'a, T: Fields<'a>, R: serde_json::de::Read<'a>>(
    fields: &mut T,
    mut json: serde_json::Deserializer<R>,
) -> Result<(), serde_json::Error> {
    Filled(fields).deserialize(&mut json)?;
    json.end()
}

/// What is wrong with `json`, which stands at `at` in the record, and where.
pub(super) fn malformed(error: &serde_json::Error, json: &[u8], at: &str) -> Reject {
    // serde_json's own sentence may quote a field's value; its kind and place are enough.
    let what = match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends too early",
        serde_json::error::Category::Data => "a field comes twice or has an impossible shape",
        _ if error.to_string().starts_with("number out of range") => "a number beyond all bounds",
        _ => "not valid JSON",
    };
    let (line, column) = (error.line(), error.column());
    let pointer = format!("{at}{}", pointer_at(json, line, column));
    let message = match (pointer.as_str(), at) {
        ("", _) => format!("the value: {what} (line {line}, column {column})"),
        (pointer, "") => format!("{pointer}: {what} (line {line}, column {column})"),
        // Lines and columns of a part are not those of the record.
        (pointer, _) => format!("{pointer}: {what}"),
    };
    Reject::new(Reason::MalformedJson, message)
}

/// A JSON value as far as a field needs it. `null` counts as absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Leaf<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Integer(i64),
    Float(f64),
    Flag(bool),
    Nested,
}

impl<'a> Leaf<'a> {
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Leaf::Absent)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Leaf::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Empty text counts as absent too.
    pub(super) fn or_absent_when_empty(self) -> Leaf<'a> {
        if self.as_text() == Some("") { Leaf::Absent } else { self }
    }

    /// A finite number, be it written as one or as text: sellers of software disagree about that.
    pub(super) fn as_number(&self) -> Option<f64> {
        let number = match self {
            Leaf::Integer(n) => *n as f64,
            Leaf::Float(x) => *x,
            Leaf::Text(text) => {
                let text = text.trim();
                // Words such as `nan` and `inf` are numbers to Rust alone.
                if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
                    return None;
                }
                text.parse().ok()?
            }
            _ => return None,
        };
        number.is_finite().then_some(number)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Leaf<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LeafVisitor)
    }
}

struct LeafVisitor;

impl<'de> Visitor<'de> for LeafVisitor {
    type Value = Leaf<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
        Ok(Leaf::Text(Cow::Borrowed(v)))
    }
    fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Leaf::Text(Cow::Owned(v.to_owned())))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Self::Value, E> {
        Ok(Leaf::Integer(v))
    }
    /// What does not fit an `i64` is an id at best, and text serves ids as well.
    fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(v).map_or_else(|_| Leaf::Text(Cow::Owned(v.to_string())), Leaf::Integer))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Self::Value, E> {
        Ok(Leaf::Float(v))
    }
    fn visit_bool<E>(self, v: bool) -> Result<Self::Value, E> {
        Ok(Leaf::Flag(v))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Leaf::Absent)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Leaf::Nested)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Leaf::Nested)
    }
}

/// The text of an integer, however long it is; `None` for anything else.
pub(super) fn digits(raw: &RawValue) -> Option<&str> {
    let digits = raw.get().strip_prefix('-').unwrap_or(raw.get());
    digits.bytes().all(|b| b.is_ascii_digit()).then_some(raw.get())
}

/// An object inside the record; `null` counts as absent.
#[derive(Debug, Default)]
pub(super) enum Object<T> {
    #[default]
    Absent,
    Is(T),
    Other,
}

impl<T: Default> Object<T> {
    /// What it holds; nothing where it is absent. `at` is its pointer.
    pub(super) fn or_empty(self, at: &str) -> Result<T, Reject> {
        match self {
            Object::Absent => Ok(T::default()),
            Object::Is(inner) => Ok(inner),
            Object::Other => Err(Reject::new(Reason::InvalidField, format!("{at}: expected an object"))),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object::Is)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Object::Absent)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Object::Other)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Object::Other)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Object::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Object::Other)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Object::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Object::Other)
    }
}

/// An object of which some fields are read, each into its place.
pub(super) trait Fields<'de> {
    /// A field's name, as one of those that are read or any other.
    type Name: Copy + Deserialize<'de>;

    /// Its bit, which no other field has; 0 for the names that are passed over.
    fn bit(name: Self::Name) -> u32;

    /// Reads the value that follows the name.
    fn fill<A: MapAccess<'de>>(&mut self, name: Self::Name, map: &mut A) -> Result<(), A::Error>;
}

/// What stood where an object was looked for; `null` counts as absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Shape {
    #[default]
    Absent,
    Object,
    Other,
}

/// Fills an object's fields in. A second occurrence of a field is malformed.
pub(super) struct Filled<'t, T>(pub &'t mut T);

impl<'de, T: Fields<'de>> DeserializeSeed<'de> for Filled<'_, T> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Fields<'de>> Visitor<'de> for Filled<'_, T> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut came = 0;
        while let Some(name) = map.next_key::<T::Name>()? {
            let bit = T::bit(name);
            if came & bit != 0 {
                return Err(serde::de::Error::custom("a field came twice"));
            }
            came |= bit;
            self.0.fill(name, &mut map)?;
        }
        Ok(Shape::Object)
    }
    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Absent)
    }
    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Shape::Other)
    }
}

/// An object's key, borrowed where it has no escapes.
pub(super) struct Key<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Leaf::deserialize(deserializer)? {
            Leaf::Text(text) => Ok(Key(text)),
            _ => Err(serde::de::Error::custom("object keys are strings")),
        }
    }
}

type Trait = (Box<str>, Option<TraitValue>);

/// The traits that a nested object amounts to: `{"address":{"city":…}}` gives `address.city`, all of them
/// behind `prefix`. `null` removes a trait; lists are no traits and are passed over. `at` is its pointer.
pub(super) fn flat_traits(raw: &RawValue, prefix: &str, at: &str) -> Result<TraitChanges, Reject> {
    let mut found = FlatTraits::default();
    if raw.get().trim_start().starts_with('{') {
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        let seed = Flatten { path: prefix.to_owned(), found: &mut found };
        seed.deserialize(&mut deserializer).map_err(|error| malformed(&error, raw.get().as_bytes(), at))?;
    } else if raw.get() != "null" {
        return Err(Reject::new(Reason::InvalidField, format!("{at}: expected an object")));
    }
    let FlatTraits { traits, has_long_names } = found;
    if traits.len() > MAX_TRAITS {
        return Err(Reject::new(Reason::InvalidField, format!("{at}: more than {MAX_TRAITS} entries")));
    }
    if has_long_names {
        return Err(long_trait_name(at));
    }
    for (name, value) in &traits {
        let text = if let Some(TraitValue::Text(text)) = value { text } else { "" };
        check_trait(name, text, at)?;
    }
    Ok(traits)
}

#[derive(Default)]
struct FlatTraits {
    traits: Vec<Trait>,
    has_long_names: bool,
}

struct Flatten<'t> {
    /// The name of what comes; empty at the root, and ends in a dot for a prefix.
    path: String,
    found: &'t mut FlatTraits,
}

impl Flatten<'_> {
    fn put<E>(self, value: Option<TraitValue>) -> Result<(), E> {
        // One more than may be, so that it shows.
        if self.found.traits.len() <= MAX_TRAITS {
            self.found.traits.push((self.path.into(), value));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Flatten<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flatten<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let dot = if self.path.is_empty() || self.path.ends_with('.') { "" } else { "." };
            if self.path.len() + key.len() > MAX_TRAIT_NAME_BYTES {
                // It would be copied for every trait inside.
                self.found.has_long_names = true;
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let path = format!("{}{dot}{key}", self.path);
            map.next_value_seed(Flatten { path, found: self.found })?;
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(None)
    }
    fn visit_str<E>(self, v: &str) -> Result<(), E> {
        self.put(Some(TraitValue::Text(v.into())))
    }
    fn visit_i64<E>(self, v: i64) -> Result<(), E> {
        self.put(Some(TraitValue::Number(v as f64)))
    }
    fn visit_u64<E>(self, v: u64) -> Result<(), E> {
        self.put(Some(TraitValue::Number(v as f64)))
    }
    fn visit_f64<E>(self, v: f64) -> Result<(), E> {
        self.put(Some(TraitValue::Number(v)))
    }
    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        self.put(Some(TraitValue::Flag(v)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_traits_become_flat_ones() {
        let json = r#"{"plan":"pro","seats":3,"address":{"city":"Bonn","geo":{"lat":50.7}},"tags":["a"],"old":null}"#;
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        let traits = flat_traits(raw, "group.", "/traits").unwrap();
        let names: Vec<&str> = traits.iter().map(|(name, _)| &**name).collect();
        assert_eq!(
            names,
            ["group.plan", "group.seats", "group.address.city", "group.address.geo.lat", "group.old"]
        );
        assert_eq!(traits[4].1, None);
        assert_eq!(traits[2].1, Some(TraitValue::Text("Bonn".into())));
    }

    #[test]
    fn traits_that_are_no_object_or_too_many_are_told_with_their_place() {
        let raw: &RawValue = serde_json::from_str("[1]").unwrap();
        assert_eq!(flat_traits(raw, "", "/traits").unwrap_err().message, "/traits: expected an object");
        let many: Vec<String> = (0..=MAX_TRAITS).map(|i| format!("\"t{i}\":1")).collect();
        let text = format!("{{{}}}", many.join(","));
        let raw: &RawValue = serde_json::from_str(&text).unwrap();
        assert_eq!(flat_traits(raw, "", "/traits").unwrap_err().reason, Reason::InvalidField);
    }

    #[test]
    fn a_name_is_as_long_as_its_whole_path() {
        let long = "n".repeat(MAX_TRAIT_NAME_BYTES - 1);
        let text = format!(r#"{{"{long}":{{"a":1,"b":{{"c":2}}}}}}"#);
        let raw: &RawValue = serde_json::from_str(&text).unwrap();
        let reject = flat_traits(raw, "", "/traits").unwrap_err();
        assert_eq!((reject.reason, reject.message.len() < 100), (Reason::InvalidField, true), "{reject}");
        let text = format!(r#"{{"{long}":1,"note":"{}"}}"#, "x".repeat(5_000));
        let raw: &RawValue = serde_json::from_str(&text).unwrap();
        assert_eq!(
            flat_traits(raw, "", "/traits").unwrap_err().message,
            "/traits/note: the text of a trait has at most 4096 bytes"
        );
    }

    #[test]
    fn what_is_malformed_is_told_with_its_pointer() {
        let told = |json: &str, at: &str| {
            let error = serde_json::from_str::<serde_json::Value>(json).unwrap_err();
            malformed(&error, json.as_bytes(), at).message
        };
        assert_eq!(
            told(r#"{"amount":1e999}"#, ""),
            "/amount: a number beyond all bounds (line 1, column 15)"
        );
        assert_eq!(told(r#"{"a":[1,x]}"#, ""), "/a/1: not valid JSON (line 1, column 9)");
        assert_eq!(told("{1", ""), "the value: not valid JSON (line 1, column 2)");
        assert_eq!(told(r#"{"a":"\ud800"}"#, "/traits"), "/traits/a: not valid JSON");
        assert_eq!(told("1e999", "/order/total"), "/order/total: a number beyond all bounds");
    }

    #[test]
    fn numbers_may_be_written_as_text() {
        assert_eq!(Leaf::Text("19.90".into()).as_number(), Some(19.9));
        assert_eq!(Leaf::Text(" 19.90 ".into()).as_number(), Some(19.9));
        assert_eq!(Leaf::Integer(7).as_number(), Some(7.0));
        for leaf in
            [Leaf::Text("nan".into()), Leaf::Text("inf".into()), Leaf::Text("1e999".into()), Leaf::Flag(true)]
        {
            assert_eq!(leaf.as_number(), None, "{leaf:?}");
        }
    }
}
