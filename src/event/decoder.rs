//! Every way in: the format of a topic, as configured, and the one call that reads a record of it.
//!
//! Plain native records take the direct way ([`native`]); all others are mapped by their format, their fields
//! by pointer and their names by table where the operator says so, and then checked by the same rules.

use std::collections::BTreeMap;
use std::fmt;

use super::mapped::{Mapped, Types};
use super::money::Money;
use super::native::{self, Envelope};
use super::pointers::Pointers;
use super::{Event, MAX_MERGE_BYTES, ProfileChange, Reason, Reject, cloudevents, json, segment, zendesk};

/// How the records of a topic are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Native,
    /// Segment, and RudderStack, which follows it.
    Segment,
    CloudEvents,
    Zendesk,
}

impl Format {
    pub const ALL: [Format; 4] = [Format::Native, Format::Segment, Format::CloudEvents, Format::Zendesk];

    pub fn name(self) -> &'static str {
        match self {
            Format::Native => "native",
            Format::Segment => "segment",
            Format::CloudEvents => "cloudevents",
            Format::Zendesk => "zendesk",
        }
    }

    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// The headers of a record, as far as a format asks for them.
pub trait Headers: fmt::Debug {
    /// The value of the first header of this name, whatever its case.
    fn get(&self, name: &str) -> Option<&[u8]>;

    /// All of them, in order.
    fn all(&self) -> Vec<(String, Option<Vec<u8>>)> {
        Vec::new()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

/// A record without headers, such as a line of a file.
impl Headers for () {
    fn get(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

fn check_merge_record(value: &[u8], headers: &dyn Headers) -> Result<(), Reject> {
    let bytes_of =
        |(name, value): &(String, Option<Vec<u8>>)| name.len() + value.as_ref().map_or(0, Vec::len);
    let bytes = value.len() + headers.all().iter().map(bytes_of).sum::<usize>();
    if bytes <= MAX_MERGE_BYTES {
        return Ok(());
    }
    let message = format!("{bytes} bytes with its headers; a merge has at most {MAX_MERGE_BYTES}");
    Err(Reject::new(Reason::TooLarge, message))
}

/// What reads the records of one topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    format: Format,
    /// What CloudEvents carry.
    data: Format,
    /// Where fields are that are not where the format has them.
    fields: Pointers,
    /// The native types of foreign names.
    types: Types,
    plain: bool,
}

impl Decoder {
    /// `fields`: native field to JSON pointer; `types`: foreign name to native type. `data` is what CloudEvents
    /// carry, native or Segment.
    pub fn new(
        format: Format,
        data: Format,
        fields: &BTreeMap<String, String>,
        types: BTreeMap<String, String>,
    ) -> Decoder {
        let plain = format == Format::Native && fields.is_empty() && types.is_empty();
        let is_native = match format {
            Format::CloudEvents => data == Format::Native,
            format => format == Format::Native,
        };
        let fields = match is_native {
            true => Pointers::native_but(fields),
            false => Pointers::new(fields.iter().map(|(field, at)| (field.as_str(), at.as_str()))),
        };
        Decoder { format, data, fields, types, plain }
    }

    /// Whether nothing but native records is read.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Reads one record.
    pub fn decode<'a>(
        &'a self,
        value: &'a [u8],
        envelope: &Envelope<'a>,
        headers: &'a dyn Headers,
        money: &Money,
    ) -> Result<Event<'a>, Reject> {
        let decoded = match self.plain {
            true => native::decode(value, envelope, money),
            false => self.decode_mapped(value, envelope, headers, money),
        };
        let event = decoded.map_err(|reject| told_by_encoding(reject, value, headers))?;
        if let Some(ProfileChange::Merged(_)) = event.profile.as_deref() {
            check_merge_record(value, headers)?;
        }
        Ok(event)
    }

    fn decode_mapped<'a>(
        &'a self,
        value: &'a [u8],
        envelope: &Envelope<'a>,
        headers: &'a dyn Headers,
        money: &Money,
    ) -> Result<Event<'a>, Reject> {
        if self.format == Format::CloudEvents {
            cloudevents::check_single(headers)?;
        }
        let json = json::object(value)?;
        let mut mapped = Mapped::default();
        if self.format != Format::CloudEvents {
            self.map(self.format, json, &mut mapped)?;
            return mapped.into_event(envelope, &self.types, money);
        }
        let parcel = cloudevents::open(json, headers)?;
        let checked = self.map(self.data, parcel.data, &mut mapped).and_then(|()| {
            parcel.attributes.stand_in(&mut mapped, envelope.key.is_some());
            mapped.into_event(envelope, &self.types, money)
        });
        if parcel.structured { checked.map_err(cloudevents::inside_data) } else { checked }
    }

    fn map<'a>(&'a self, format: Format, json: &'a [u8], mapped: &mut Mapped<'a>) -> Result<(), Reject> {
        match format {
            Format::Segment => segment::map(json, mapped)?,
            Format::Zendesk => *mapped = zendesk::map(json)?,
            Format::Native | Format::CloudEvents => {}
        }
        if !self.fields.is_empty() {
            self.fields.apply(json, mapped)?;
        }
        Ok(())
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new(Format::Native, Format::Native, &BTreeMap::new(), BTreeMap::new())
    }
}

/// Says so where a value is no JSON because it is Avro or Protobuf.
fn told_by_encoding(reject: Reject, value: &[u8], headers: &dyn Headers) -> Reject {
    if !matches!(reject.reason, Reason::MalformedJson | Reason::NotAnObject) {
        return reject;
    }
    const AVRO_MARKER: &[u8] = &[0xc3, 0x01];
    let content_type = headers.text("content-type").unwrap_or_default().to_ascii_lowercase();
    let what = if content_type.contains("avro") || content_type.contains("protobuf") {
        "the content type is"
    } else if json::is_begun(value) {
        // It is JSON that is wrong, whatever stands before it.
        return reject;
    } else if value.first() == Some(&0) {
        "a schema id stands before the value, which is no JSON:"
    } else if headers.get("__value_schema_id").is_some() {
        "a header names a schema for the value, which is no JSON:"
    } else if value.starts_with(AVRO_MARKER) {
        "the value begins as"
    } else {
        return reject;
    };
    let message = format!("{what} Avro or Protobuf, which are not read; produce JSON (JSON Schema will do)");
    Reject::new(Reason::UnsupportedEncoding, message)
}

#[cfg(test)]
mod tests;
