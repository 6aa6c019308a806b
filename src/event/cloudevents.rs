//! CloudEvents 1.0 over Kafka, binary and structured mode: the attributes, and the data they describe.
//!
//! In binary mode the attributes are headers and the value is the data; in structured mode the value is a JSON
//! object of both, which is also what stands in files. Attributes stand in for what the data does not say.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::decoder::Headers;
use super::json::{Leaf, read};
use super::mapped::{Found, Mapped};
use super::native::MAX_EVENT_ID_BYTES;
use super::{Reason, Reject};

/// The media types of structured mode begin so.
const STRUCTURED: &str = "application/cloudevents";
const BATCH: &str = "application/cloudevents-batch";

/// An event taken apart.
pub(super) struct Parcel<'a> {
    pub data: &'a [u8],
    pub attributes: Attributes<'a>,
    /// Whether the data was inside the value, under `/data`.
    pub structured: bool,
}

/// Those that can stand in for something.
#[derive(Default)]
pub(super) struct Attributes<'a> {
    id: Leaf<'a>,
    source: Leaf<'a>,
    kind: Leaf<'a>,
    subject: Leaf<'a>,
    time: Leaf<'a>,
    places: Places,
}

/// What the attributes are called where they stood.
#[derive(Clone, Copy, Default)]
struct Places {
    id: &'static str,
    kind: &'static str,
    subject: &'static str,
    time: &'static str,
}

const HEADERS: Places = Places {
    id: "header ce_id",
    kind: "header ce_type",
    subject: "header ce_subject",
    time: "header ce_time",
};
/// Said so that they are not taken for places in the data.
const ENVELOPE: Places = Places {
    id: "the envelope's /id",
    kind: "the envelope's /type",
    subject: "the envelope's /subject",
    time: "the envelope's /time",
};

/// Refuses what says that it is several events, whatever its value looks like.
pub(super) fn check_single(headers: &dyn Headers) -> Result<(), Reject> {
    if !starts_with(content_type(headers), BATCH) {
        return Ok(());
    }
    let message = "header content-type: batches of CloudEvents are not read; send one event a record";
    Err(Reject::new(Reason::UnsupportedEncoding, message))
}

fn content_type(headers: &dyn Headers) -> &str {
    headers.text("content-type").unwrap_or_default().trim()
}

/// Decides by the content type, as the Kafka binding says, and else by what is there.
pub(super) fn open<'a>(json: &'a [u8], headers: &'a dyn Headers) -> Result<Parcel<'a>, Reject> {
    let content_type = content_type(headers);
    let binary = !starts_with(content_type, STRUCTURED) && headers.text("ce_specversion").is_some();
    if binary {
        Ok(Parcel { data: json, attributes: from_headers(headers), structured: false })
    } else {
        whole(json)
    }
}

fn starts_with(content_type: &str, prefix: &str) -> bool {
    content_type.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn from_headers(headers: &dyn Headers) -> Attributes<'_> {
    let attribute =
        |name: &str| headers.text(name).map_or(Leaf::Absent, |text| Leaf::Text(Cow::Borrowed(text)));
    Attributes {
        id: attribute("ce_id"),
        source: attribute("ce_source"),
        kind: attribute("ce_type"),
        subject: attribute("ce_subject"),
        time: attribute("ce_time"),
        places: HEADERS,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Structured<'a> {
    #[serde(borrow)]
    specversion: Leaf<'a>,
    #[serde(borrow)]
    id: Leaf<'a>,
    #[serde(borrow)]
    source: Leaf<'a>,
    #[serde(borrow, rename = "type")]
    kind: Leaf<'a>,
    #[serde(borrow)]
    subject: Leaf<'a>,
    #[serde(borrow)]
    time: Leaf<'a>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
}

fn whole(json: &[u8]) -> Result<Parcel<'_>, Reject> {
    let event: Structured<'_> = read(json)?;
    if event.specversion.is_absent() {
        let message = "/specversion is absent and so is the header ce_specversion: this is no CloudEvent";
        return Err(Reject::new(Reason::InvalidField, message));
    }
    let data = match (event.data, event.data_base64) {
        (Some(data), _) if data.get().starts_with('{') => data.get().as_bytes(),
        (Some(_), _) => return Err(Reject::new(Reason::NotAnObject, "/data: expected an object")),
        (None, Some(_)) => {
            let message = "/data_base64: only data that is JSON itself is read";
            return Err(Reject::new(Reason::UnsupportedEncoding, message));
        }
        (None, None) => return Err(Reject::new(Reason::Empty, "/data is absent")),
    };
    let Structured { id, source, kind, subject, time, .. } = event;
    let attributes = Attributes { id, source, kind, subject, time, places: ENVELOPE };
    Ok(Parcel { data, attributes, structured: true })
}

impl<'a> Attributes<'a> {
    /// Lets the attributes stand in for what the data does not say.
    pub(super) fn stand_in(self, mapped: &mut Mapped<'a>, has_key: bool) {
        if mapped.event_id.value.is_absent() {
            mapped.event_id = Found::new(self.id_of_source(), self.places.id);
        }
        fill(&mut mapped.ts, self.time, self.places.time);
        if mapped.name.value.is_absent() && mapped.meaning.is_none() {
            fill(&mut mapped.name, self.kind, self.places.kind);
            mapped.dotted = true;
        }
        if !has_key {
            fill(&mut mapped.customer_id, self.subject, self.places.subject);
        }
    }

    /// An `id` is unique only beside its `source`.
    fn id_of_source(&self) -> Leaf<'a> {
        let Leaf::Text(id) = &self.id else { return self.id.clone() };
        let source = self.source.as_text().unwrap_or("");
        let whole = format!("{source}#{id}");
        if whole.len() <= MAX_EVENT_ID_BYTES {
            return Leaf::Text(Cow::Owned(whole));
        }
        Leaf::Text(Cow::Owned(format!("{:032x}", xxhash_rust::xxh3::xxh3_128(whole.as_bytes()))))
    }
}

/// The pointer at which the data was looked into stays, since that is where it should be.
fn fill<'a>(place: &mut Found<'a>, value: Leaf<'a>, at: &'a str) {
    if place.value.is_absent() && !value.is_absent() {
        *place = Found::new(value, at);
    }
}

/// Places in the data, as seen from the value.
pub(super) fn inside_data(reject: Reject) -> Reject {
    match reject.message.starts_with('/') {
        true => Reject { message: format!("/data{}", reject.message), ..reject },
        false => reject,
    }
}
