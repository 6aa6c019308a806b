//! Fields by JSON pointer (RFC 6901), for formats that no other module knows.
//!
//! The pointers are compiled into a tree once; a record is then read in one pass that enters only what a
//! pointer leads into and skips all else. What is nowhere in the record is absent.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Reject;
use super::json::{Key, Leaf, digits, flat_traits, malformed, read_at};
use super::mapped::{Found, Mapped};

/// The native fields that can be pointed at and matter for scoring.
const MAPPED: [&str; 12] = [
    "customer_id",
    "type",
    "ts",
    "event_id",
    "channel",
    "amount",
    "currency",
    "sentiment",
    "csat",
    "nps",
    "text",
    "from_id",
];
const TRAITS: &str = "traits";

/// Where the fields of a record are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pointers {
    root: Node,
    /// By number, as in the tree: the field's name and its pointer.
    fields: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Node {
    children: BTreeMap<String, Node>,
    /// The fields that are found here.
    wanted: Vec<usize>,
}

/// What was found, by the number of the field.
type Values<'de> = Vec<Option<&'de RawValue>>;

impl Pointers {
    /// From a table of native fields and pointers.
    pub(super) fn new<'f>(fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> Pointers {
        let mut pointers = Pointers { root: Node::default(), fields: Vec::new() };
        for (field, pointer) in fields.into_iter().filter(|(f, _)| MAPPED.contains(f) || *f == TRAITS) {
            let mut node = &mut pointers.root;
            for segment in pointer.split('/').skip(1) {
                node = node.children.entry(segment.replace("~1", "/").replace("~0", "~")).or_default();
            }
            node.wanted.push(pointers.fields.len());
            pointers.fields.push((field.to_owned(), pointer.to_owned()));
        }
        pointers
    }

    /// Where the native format has its fields, except for those that `fields` names otherwise.
    pub(super) fn native_but(fields: &BTreeMap<String, String>) -> Pointers {
        let mut all: BTreeMap<String, String> =
            MAPPED.iter().chain([&TRAITS]).map(|f| ((*f).to_owned(), format!("/{f}"))).collect();
        all.extend(fields.clone());
        Pointers::new(all.iter().map(|(field, pointer)| (field.as_str(), pointer.as_str())))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Puts the fields of `json` in the place of those of `mapped`.
    pub(super) fn apply<'a>(&'a self, json: &'a [u8], mapped: &mut Mapped<'a>) -> Result<(), Reject> {
        let mut values: Values<'a> = vec![None; self.fields.len()];
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let walk = Walk { node: &self.root, values: &mut values };
        walk.deserialize(&mut deserializer)
            .and_then(|()| deserializer.end())
            .map_err(|e| malformed(&e, json, ""))?;
        for ((field, pointer), raw) in self.fields.iter().zip(values) {
            if field == TRAITS {
                mapped.traits = match raw {
                    Some(raw) => Some(flat_traits(raw, "", pointer)?),
                    None => None,
                };
                continue;
            }
            let value = match raw {
                Some(raw) => leaf(raw, pointer)?,
                None => Leaf::Absent,
            };
            put(mapped, field, Found::new(value, pointer));
        }
        Ok(())
    }
}

/// A value; an integer beyond 64 bits by its digits, as it can be an id.
fn leaf<'a>(raw: &'a RawValue, pointer: &str) -> Result<Leaf<'a>, Reject> {
    Ok(match read_at(raw.get().as_bytes(), pointer)? {
        Leaf::Float(float) => digits(raw).map_or(Leaf::Float(float), |digits| Leaf::Text(digits.into())),
        leaf => leaf,
    })
}

fn put<'a>(mapped: &mut Mapped<'a>, field: &str, found: Found<'a>) {
    let place = match field {
        "customer_id" => &mut mapped.customer_id,
        "type" => {
            // What the format knew was about the name it had found itself.
            mapped.meaning = None;
            &mut mapped.name
        }
        "ts" => {
            mapped.known_ts = None;
            &mut mapped.ts
        }
        "event_id" => &mut mapped.event_id,
        "channel" => &mut mapped.channel,
        "amount" => &mut mapped.amount,
        "currency" => &mut mapped.currency,
        "sentiment" => &mut mapped.sentiment,
        "csat" => &mut mapped.csat,
        "nps" => &mut mapped.nps,
        "text" => &mut mapped.text,
        "from_id" => &mut mapped.from_id,
        _ => return,
    };
    *place = found;
}

/// One step of the way through a record.
struct Walk<'n, 'v, 'de> {
    node: &'n Node,
    values: &'v mut Values<'de>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.node.wanted.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let raw = <&'de RawValue as serde::Deserialize>::deserialize(deserializer)?;
        for field in &self.node.wanted {
            self.values[*field] = Some(raw);
        }
        if self.node.children.is_empty() {
            return Ok(());
        }
        // Something is wanted whole and in parts.
        serde_json::Deserializer::from_str(raw.get()).deserialize_any(self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            match self.node.children.get(key.as_ref()) {
                Some(node) => map.next_value_seed(Walk { node, values: &mut *self.values })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0usize.. {
            let more = match self.node.children.get(&index.to_string()) {
                Some(node) => seq.next_element_seed(Walk { node, values: &mut *self.values })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
}
