//! Zendesk's ticket events, as its webhooks and event streams send them.
//!
//! The customer is the ticket's `external_id`; where an account keeps it elsewhere, a pointer in
//! `[source.NAME.fields]` says so.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{Leaf, Object, read, read_at};
use super::mapped::{Found, Mapped, tail};
use super::names::{Meaning, Snake};
use super::{Reject, Source};

/// Zendesk's two faces as ratings from 1 to 5.
const GOOD: Leaf<'static> = Leaf::Integer(5);
const BAD: Leaf<'static> = Leaf::Integer(1);
const RATING: &str = "/detail/satisfaction_rating";
const COMMENT: &str = "/event/comment";

/// Reads one event.
pub(super) fn map(json: &[u8]) -> Result<Mapped<'_>, Reject> {
    let envelope: Envelope<'_> = read(json)?;
    let detail = envelope.detail.or_empty("/detail")?;
    let event = envelope.event.or_empty("/event")?;
    let name = Found::new(envelope.kind, "/type");
    let kind = name.value.as_text().map(|text| Snake::new(tail(text)));
    let kind = kind.as_ref().map_or("", Snake::as_str);
    let is_ticket = name.value.as_text().is_some_and(|text| text.contains("ticket"));
    let rating = if is_rating(kind) { rating(&event, detail.satisfaction_rating)? } else { None };
    let meaning = match is_ticket {
        true => Some(ticket_meaning(kind, &event, rating.is_some())),
        false => None,
    };
    let text = text(kind, event.comment, detail.description)?;
    Ok(Mapped {
        customer_id: Found::new(detail.external_id.or_absent_when_empty(), "/detail/external_id"),
        name,
        dotted: true,
        meaning,
        ts: Found::new(envelope.time, "/time")
            .or(Found::new(detail.updated_at, "/detail/updated_at"))
            .or(Found::new(detail.created_at, "/detail/created_at")),
        event_id: Found::new(envelope.id, "/id"),
        csat: rating.unwrap_or_default(),
        text,
        ..Mapped::default()
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Leaf<'a>,
    #[serde(borrow, rename = "type")]
    kind: Leaf<'a>,
    #[serde(borrow)]
    time: Leaf<'a>,
    #[serde(borrow)]
    detail: Object<Detail<'a>>,
    #[serde(borrow)]
    event: Object<Change<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail<'a> {
    #[serde(borrow)]
    external_id: Leaf<'a>,
    #[serde(borrow)]
    created_at: Leaf<'a>,
    #[serde(borrow)]
    updated_at: Leaf<'a>,
    #[serde(borrow)]
    description: Leaf<'a>,
    #[serde(borrow)]
    satisfaction_rating: Option<&'a RawValue>,
}

/// What the event changed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Change<'a> {
    #[serde(borrow)]
    current: Leaf<'a>,
    #[serde(borrow)]
    previous: Leaf<'a>,
    #[serde(borrow)]
    rating: Leaf<'a>,
    #[serde(borrow)]
    score: Leaf<'a>,
    /// A text, or a comment with its author.
    #[serde(borrow)]
    comment: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Comment<'a> {
    #[serde(borrow)]
    body: Leaf<'a>,
    #[serde(borrow)]
    author: Object<Author<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Author<'a> {
    #[serde(borrow)]
    is_staff: Leaf<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Satisfaction<'a> {
    #[serde(borrow)]
    score: Leaf<'a>,
}

fn is_rating(kind: &str) -> bool {
    kind.starts_with("satisfaction") || kind.starts_with("csat")
}

fn ticket_meaning(kind: &str, change: &Change<'_>, rated: bool) -> Meaning {
    let name = match kind {
        "created" | "ticket_created" => "ticket_opened",
        "comment_added" | "comment_created" => "ticket_replied",
        "status_changed" => return status_meaning(change),
        _ if rated => "csat_rated",
        _ => "ticket_updated",
    };
    (Source::Support, name)
}

/// A ticket is solved once: Zendesk closes it some days later by itself, which says nothing about anyone.
fn status_meaning(change: &Change<'_>) -> Meaning {
    let done = |leaf: &Leaf<'_>, status: &str| leaf.as_text().is_some_and(|s| s.eq_ignore_ascii_case(status));
    let was_done = done(&change.previous, "solved") || done(&change.previous, "closed");
    let is_done = done(&change.current, "solved") || done(&change.current, "closed");
    match (was_done, is_done) {
        (false, true) => (Source::Support, "ticket_solved"),
        (true, false) => (Source::Support, "ticket_reopened"),
        (true, true) => (Source::Profile, "ticket_closed"),
        (false, false) => (Source::Support, "ticket_updated"),
    }
}

/// The rating, if one was given: a survey that was only offered has none.
fn rating<'a>(change: &Change<'a>, raw: Option<&'a RawValue>) -> Result<Option<Found<'a>>, Reject> {
    let kept = match raw {
        Some(raw) => match part(raw, RATING)? {
            Leaf::Nested => part::<Object<Satisfaction<'a>>>(raw, RATING)?.or_empty(RATING)?.score,
            leaf => leaf,
        },
        None => Leaf::Absent,
    };
    let found = Found::new(change.current.clone(), "/event/current")
        .or(Found::new(change.rating.clone(), "/event/rating"))
        .or(Found::new(change.score.clone(), "/event/score"))
        .or(Found::new(kept, "/detail/satisfaction_rating/score"));
    let value = match found.value.as_text().map(str::to_ascii_lowercase).as_deref() {
        Some("good" | "good_with_comment") => GOOD,
        Some("bad" | "bad_with_comment") => BAD,
        Some("offered" | "unoffered") => return Ok(None),
        _ => found.value,
    };
    Ok((!value.is_absent()).then_some(Found::new(value, found.at)))
}

/// What the customer wrote; not what the staff did, whose mood is another matter.
fn text<'a>(kind: &str, comment: Option<&'a RawValue>, description: Leaf<'a>) -> Result<Found<'a>, Reject> {
    if matches!(kind, "created" | "ticket_created") {
        return Ok(Found::new(description, "/detail/description"));
    }
    let Some(raw) = comment else { return Ok(Found::default()) };
    match part(raw, COMMENT)? {
        Leaf::Nested => {
            let comment = part::<Object<Comment<'a>>>(raw, COMMENT)?.or_empty(COMMENT)?;
            let staff = comment.author.or_empty("/event/comment/author")?.is_staff == Leaf::Flag(true);
            let body = if staff { Leaf::Absent } else { comment.body };
            Ok(Found::new(body, "/event/comment/body"))
        }
        leaf => Ok(Found::new(leaf, COMMENT)),
    }
}

fn part<'a, T: Deserialize<'a>>(raw: &'a RawValue, at: &str) -> Result<T, Reject> {
    read_at(raw.get().as_bytes(), at)
}

#[cfg(test)]
mod tests {
    use super::super::decoder::{Decoder, Format};
    use super::super::money::Money;
    use super::super::native::Envelope;
    use super::super::{Event, Field, Reason, Reject, Source};

    fn read(json: &str) -> Result<Event<'static>, Reject> {
        let decoder = Decoder::new(Format::Zendesk, Format::Native, &Default::default(), Default::default());
        let envelope = Envelope { source: Source::Support, key: None, timestamp: None, latest: None };
        decoder.decode(json.as_bytes(), &envelope, &(), &Money::default()).map(Event::into_owned)
    }

    fn event(kind: &str, event: &str) -> String {
        format!(
            r#"{{"account_id":1,"id":"ev-1","time":"2026-01-08T10:12:07.672717030Z","type":"zen:event-type:ticket.{kind}",
               "detail":{{"id":"5158","external_id":"c-7","requester_id":"844","description":"It is broken, I am angry",
               "status":"OPEN","tags":["a"],"via":{{"channel":"web"}}}},"event":{event},"subject":"zen:ticket:5158"}}"#
        )
    }

    #[test]
    fn ticket_events_become_native_ones() {
        for (kind, change, name) in [
            ("created", "{}", "ticket_opened"),
            (
                "comment_added",
                r#"{"comment":{"body":"Great, thanks!","author":{"is_staff":false}}}"#,
                "ticket_replied",
            ),
            ("status_changed", r#"{"previous":"OPEN","current":"SOLVED"}"#, "ticket_solved"),
            ("status_changed", r#"{"previous":"SOLVED","current":"OPEN"}"#, "ticket_reopened"),
            ("status_changed", r#"{"previous":"NEW","current":"PENDING"}"#, "ticket_updated"),
            ("status_changed", r#"{"previous":"SOLVED","current":"CLOSED"}"#, "ticket_closed"),
            ("satisfaction_score_changed", r#"{"current":"good"}"#, "csat_rated"),
            ("satisfaction_score_changed", r#"{"current":"offered"}"#, "ticket_updated"),
            ("priority_changed", r#"{"previous":"LOW","current":"HIGH"}"#, "ticket_updated"),
        ] {
            let read =
                read(&event(kind, change)).unwrap_or_else(|reject| panic!("{kind} {change}: {reject}"));
            assert_eq!(&*read.name, name, "{kind} {change}");
            assert_eq!((&*read.customer_id, read.ts), ("c-7", 1_767_867_127_672));
            assert_eq!(read.event_id.as_deref(), Some("ev-1"));
            let expected = if name == "ticket_closed" { Source::Profile } else { Source::Support };
            assert_eq!(read.source, expected, "{kind} {change}");
        }
    }

    #[test]
    fn ratings_and_moods_come_along() {
        let number = |json: &str, field| read(json).unwrap().numbers.get(field);
        assert_eq!(
            number(&event("satisfaction_score_changed", r#"{"current":"bad"}"#), Field::Csat),
            Some(1_000_000)
        );
        assert_eq!(number(&event("csat_response_received", r#"{"rating":4}"#), Field::Csat), Some(4_000_000));
        assert!(number(&event("created", "{}"), Field::Sentiment).unwrap() < 0);
        let reply =
            |staff| format!(r#"{{"comment":{{"body":"Great, thanks!","author":{{"is_staff":{staff}}}}}}}"#);
        assert!(number(&event("comment_added", &reply(false)), Field::Sentiment).unwrap() > 0);
        assert_eq!(number(&event("comment_added", &reply(true)), Field::Sentiment), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_pointer() {
        let told = |json: &str| read(json).map(|event| event.name.to_string()).unwrap_err();
        let nobody = event("created", "{}").replace("\"c-7\"", "null");
        let reject = told(&nobody);
        assert_eq!(reject.reason, Reason::MissingCustomerId);
        assert!(reject.message.starts_with("/detail/external_id"), "{reject}");
        let reject = told(&event("satisfaction_score_changed", r#"{"current":9}"#));
        assert_eq!(reject.reason, Reason::InvalidField);
        assert!(reject.message.starts_with("/event/current"), "{reject}");
        assert_eq!(
            told(r#"{"detail":7,"type":"zen:event-type:ticket.created"}"#).message,
            "/detail: expected an object"
        );
    }
}
