//! Segment and RudderStack: the calls of the spec (track, page, screen, identify, group, alias) and the event
//! names of its e-commerce, B2B, live-chat, e-mail and mobile chapters.
//!
//! One topic may carry all kinds of events; what an event is, its name decides.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{Leaf, Object, flat_traits, read};
use super::mapped::{Found, Mapped, instant};
use super::names::{Meaning, Snake, known};
use super::{Reason, Reject, Source};
use crate::pipeline::facts::TraitValue;
use crate::time::Ts;

/// What the traits of a group are called for its members, so that they cannot replace their own.
const GROUP_PREFIX: &str = "group.";

/// Reads one call.
pub(super) fn map(json: &[u8]) -> Result<Mapped<'_>, Reject> {
    let call: Call<'_> = read(json)?;
    match call.kind.as_text() {
        Some("track") => track(call),
        Some("page") => plain(call, (Source::Clickstream, "page_viewed")),
        Some("screen") => plain(call, (Source::Clickstream, "screen_viewed")),
        Some("identify") => identify(call),
        Some("group") => group(call),
        Some("alias") => alias(call),
        None if call.kind.is_absent() => Err(Reject::new(Reason::MissingType, "/type is absent")),
        _ => {
            let message = "/type: expected one of track, page, screen, identify, group and alias";
            Err(Reject::new(Reason::InvalidType, message))
        }
    }
}

/// A call, as far as it is read. A second occurrence of a field is malformed.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Call<'a> {
    #[serde(borrow, rename = "type")]
    kind: Leaf<'a>,
    #[serde(borrow)]
    event: Leaf<'a>,
    #[serde(borrow)]
    user_id: Leaf<'a>,
    #[serde(borrow)]
    anonymous_id: Leaf<'a>,
    #[serde(borrow)]
    previous_id: Leaf<'a>,
    #[serde(borrow)]
    group_id: Leaf<'a>,
    #[serde(borrow)]
    message_id: Leaf<'a>,
    #[serde(borrow)]
    channel: Leaf<'a>,
    #[serde(borrow)]
    timestamp: Leaf<'a>,
    #[serde(borrow)]
    original_timestamp: Leaf<'a>,
    #[serde(borrow)]
    sent_at: Leaf<'a>,
    #[serde(borrow)]
    received_at: Leaf<'a>,
    #[serde(borrow)]
    properties: Object<Properties<'a>>,
    #[serde(borrow)]
    traits: Option<&'a RawValue>,
    #[serde(borrow)]
    context: Object<Context<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Properties<'a> {
    #[serde(borrow)]
    revenue: Leaf<'a>,
    #[serde(borrow)]
    subtotal: Leaf<'a>,
    #[serde(borrow)]
    total: Leaf<'a>,
    #[serde(borrow)]
    currency: Leaf<'a>,
    #[serde(borrow)]
    sentiment: Leaf<'a>,
    #[serde(borrow)]
    csat: Leaf<'a>,
    #[serde(borrow)]
    nps: Leaf<'a>,
    #[serde(borrow)]
    text: Leaf<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context<'a> {
    #[serde(borrow)]
    traits: Option<&'a RawValue>,
}

fn plain(call: Call<'_>, meaning: Meaning) -> Result<Mapped<'_>, Reject> {
    let known_ts = corrected_time(&call)?;
    let user_id = Found::new(call.user_id.or_absent_when_empty(), "/userId");
    let anonymous_id = Found::new(call.anonymous_id.or_absent_when_empty(), "/anonymousId");
    Ok(Mapped {
        customer_id: user_id.or(anonymous_id),
        name: Found::new(call.kind, "/type"),
        meaning: Some(meaning),
        ts: Found::new(call.timestamp, "/timestamp"),
        known_ts,
        event_id: Found::new(call.message_id, "/messageId"),
        channel: Found::new(call.channel, "/channel"),
        ..Mapped::default()
    })
}

fn track(mut call: Call<'_>) -> Result<Mapped<'_>, Reject> {
    let name = Found::new(std::mem::take(&mut call.event).or_absent_when_empty(), "/event");
    if name.value.is_absent() {
        return Err(Reject::new(Reason::MissingType, "/event is absent, which track needs"));
    }
    let properties = std::mem::take(&mut call.properties).or_empty("/properties")?;
    let meaning = name.value.as_text().and_then(meaning);
    // Revenue leaves out tax and shipping, which are not the customer's worth; so does the subtotal.
    let amount = Found::new(properties.revenue, "/properties/revenue")
        .or(Found::new(properties.subtotal, "/properties/subtotal"))
        .or(Found::new(properties.total, "/properties/total"));
    Ok(Mapped {
        name,
        meaning,
        amount,
        currency: Found::new(properties.currency, "/properties/currency"),
        sentiment: Found::new(properties.sentiment, "/properties/sentiment"),
        csat: Found::new(properties.csat, "/properties/csat"),
        nps: Found::new(properties.nps, "/properties/nps"),
        text: Found::new(properties.text, "/properties/text"),
        ..plain(call, (Source::Clickstream, ""))?
    })
}

/// RudderStack's clients send the traits of an identify in the context.
fn identify(mut call: Call<'_>) -> Result<Mapped<'_>, Reject> {
    let context = std::mem::take(&mut call.context).or_empty("/context")?;
    let traits = match (call.traits, context.traits) {
        (Some(traits), _) => Some(flat_traits(traits, "", "/traits")?),
        (None, Some(traits)) => Some(flat_traits(traits, "", "/context/traits")?),
        (None, None) => None,
    };
    Ok(Mapped { traits, ..plain(call, (Source::Profile, "traits_updated"))? })
}

fn group(mut call: Call<'_>) -> Result<Mapped<'_>, Reject> {
    let id = match std::mem::take(&mut call.group_id).or_absent_when_empty() {
        Leaf::Text(id) => Some(id.into_owned()),
        Leaf::Integer(id) => Some(id.to_string()),
        Leaf::Absent => None,
        _ => return Err(Reject::new(Reason::InvalidField, "/groupId: expected text")),
    };
    let mut traits = match call.traits {
        Some(traits) => flat_traits(traits, GROUP_PREFIX, "/traits")?,
        None => Vec::new(),
    };
    if let Some(id) = id {
        let name = format!("{GROUP_PREFIX}id").into_boxed_str();
        traits.retain(|(known, _)| *known != name);
        traits.push((name, Some(TraitValue::Text(id.into()))));
    }
    let traits = Some(traits);
    Ok(Mapped { traits, ..plain(call, (Source::Profile, "traits_updated"))? })
}

fn alias(mut call: Call<'_>) -> Result<Mapped<'_>, Reject> {
    let from_id = Found::new(std::mem::take(&mut call.previous_id).or_absent_when_empty(), "/previousId");
    Ok(Mapped { from_id, ..plain(call, (Source::Profile, "customers_merged"))? })
}

/// When the event happened, where the pipeline has not put it into `timestamp`: the server's clock less the
/// time that passed on the device since, so that a device's wrong clock does no harm; else what there is.
fn corrected_time(call: &Call<'_>) -> Result<Option<Ts>, Reject> {
    if !call.timestamp.is_absent() {
        return Ok(None);
    }
    let at = |leaf: &Leaf<'_>, at| instant(&Found { value: leaf.clone(), at });
    let original = at(&call.original_timestamp, "/originalTimestamp")?;
    let sent = at(&call.sent_at, "/sentAt")?;
    let received = at(&call.received_at, "/receivedAt")?;
    Ok(match (original, sent, received) {
        (Some(original), Some(sent), Some(received)) => {
            Some(received.saturating_sub(sent.saturating_sub(original)))
        }
        _ => original.or(received).or(sent),
    })
}

/// What a name of the spec means here. Names are matched whatever their case and spelling.
fn meaning(event: &str) -> Option<Meaning> {
    let snake = Snake::new(event);
    let name = snake.as_str();
    known(name).or_else(|| alias_of(name))
}

fn alias_of(name: &str) -> Option<Meaning> {
    use Source::{Clickstream, Profile, Purchase, Support};
    Some(match name {
        // E-commerce, with the names of its first version.
        "completed_order" => (Purchase, "order_completed"),
        "order_updated" => (Purchase, "order_updated"),
        "refunded_order" => (Purchase, "order_refunded"),
        "cancelled_order" | "order_canceled" => (Purchase, "order_cancelled"),
        "subscription_canceled" => (Purchase, "subscription_cancelled"),
        "viewed_product" => (Clickstream, "product_viewed"),
        "added_product" | "wishlist_product_added_to_cart" => (Clickstream, "product_added"),
        "removed_product" => (Clickstream, "product_removed"),
        "product_list_filtered" | "viewed_product_category" => (Clickstream, "product_list_viewed"),
        "product_added_to_wishlist" => (Clickstream, "wishlist_added"),
        "cart_shared" => (Clickstream, "product_shared"),
        "viewed_cart" => (Clickstream, "cart_viewed"),
        "started_checkout" => (Clickstream, "checkout_started"),
        // B2B
        "invite_sent" => (Clickstream, "referral_sent"),
        // E-mail. What is done to a customer is no activity of the customer's.
        "email_link_clicked" => (Clickstream, "email_clicked"),
        "email_marked_as_spam" => (Clickstream, "unsubscribed"),
        "email_delivered" => (Profile, "email_delivered"),
        "email_bounced" => (Profile, "email_bounced"),
        "push_notification_received" => (Profile, "push_notification_received"),
        "push_notification_bounced" => (Profile, "push_notification_bounced"),
        // Live chat
        "live_chat_conversation_started" => (Support, "ticket_opened"),
        "live_chat_message_sent" | "live_chat_message_received" => (Support, "ticket_replied"),
        "live_chat_conversation_ended" => (Support, "ticket_solved"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
