//! Segment and RudderStack: the calls of the spec (track, page, screen, identify, group, alias) and the event
//! names of its e-commerce, B2B, live-chat, e-mail and mobile chapters.
//!
//! One topic may carry all kinds of events; what an event is, its name decides.

use std::mem::take;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::json::{Fields, Filled, Leaf, Object, Shape, flat_traits, read, read_at, read_into};
use super::mapped::{Found, Mapped, instant};
use super::names::{Meaning, Snake, known};
use super::{Reason, Reject, Source};
use crate::pipeline::facts::TraitValue;
use crate::time::{MAX_TS, MIN_TS, Ts};

/// What the traits of a group are called for its members, so that they cannot replace their own.
const GROUP_PREFIX: &str = "group.";

/// Reads one call into `mapped`, of which nothing is set yet: it is too large to be handed around.
pub(super) fn map<'a>(json: &'a [u8], mapped: &mut Mapped<'a>) -> Result<(), Reject> {
    let mut call = Call::default();
    read_into(json, &mut call)?;
    match call.kind.as_text() {
        Some("track") => track(&mut call, mapped),
        Some("page") => plain(&mut call, (Source::Clickstream, "page_viewed"), mapped),
        Some("screen") => plain(&mut call, (Source::Clickstream, "screen_viewed"), mapped),
        Some("identify") => identify(json, &mut call, mapped),
        Some("group") => group(json, &mut call, mapped),
        Some("alias") => plain(&mut call, (Source::Profile, "customers_merged"), mapped),
        None if call.kind.is_absent() => Err(Reject::new(Reason::MissingType, "/type is absent")),
        _ => {
            let message = "/type: expected one of track, page, screen, identify, group and alias";
            Err(Reject::new(Reason::InvalidType, message))
        }
    }
}

/// A call, as far as it is read. Filled in where it is: it has many fields, and most of them are absent.
#[derive(Default)]
struct Call<'a> {
    kind: Leaf<'a>,
    event: Leaf<'a>,
    user_id: Leaf<'a>,
    anonymous_id: Leaf<'a>,
    previous_id: Leaf<'a>,
    group_id: Leaf<'a>,
    message_id: Leaf<'a>,
    channel: Leaf<'a>,
    timestamp: Leaf<'a>,
    original_timestamp: Leaf<'a>,
    sent_at: Leaf<'a>,
    received_at: Leaf<'a>,
    properties: Properties<'a>,
    has_properties: Shape,
}

/// The fields of a call by name.
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum CallField {
    Type,
    Event,
    UserId,
    AnonymousId,
    PreviousId,
    GroupId,
    MessageId,
    Channel,
    Timestamp,
    OriginalTimestamp,
    SentAt,
    ReceivedAt,
    Properties,
    #[serde(other)]
    Skipped,
}

impl<'de> Fields<'de> for Call<'de> {
    type Name = CallField;

    fn bit(name: CallField) -> u32 {
        if matches!(name, CallField::Skipped) { 0 } else { 1 << name as u32 }
    }

    fn fill<A: MapAccess<'de>>(&mut self, name: CallField, map: &mut A) -> Result<(), A::Error> {
        let leaf = match name {
            CallField::Type => &mut self.kind,
            CallField::Event => &mut self.event,
            CallField::UserId => &mut self.user_id,
            CallField::AnonymousId => &mut self.anonymous_id,
            CallField::PreviousId => &mut self.previous_id,
            CallField::GroupId => &mut self.group_id,
            CallField::MessageId => &mut self.message_id,
            CallField::Channel => &mut self.channel,
            CallField::Timestamp => &mut self.timestamp,
            CallField::OriginalTimestamp => &mut self.original_timestamp,
            CallField::SentAt => &mut self.sent_at,
            CallField::ReceivedAt => &mut self.received_at,
            CallField::Properties => {
                self.has_properties = map.next_value_seed(Filled(&mut self.properties))?;
                return Ok(());
            }
            CallField::Skipped => return map.next_value::<IgnoredAny>().map(drop),
        };
        *leaf = map.next_value()?;
        Ok(())
    }
}

#[derive(Default)]
struct Properties<'a> {
    revenue: Leaf<'a>,
    subtotal: Leaf<'a>,
    total: Leaf<'a>,
    currency: Leaf<'a>,
    sentiment: Leaf<'a>,
    csat: Leaf<'a>,
    nps: Leaf<'a>,
    text: Leaf<'a>,
}

/// The fields of the properties by name.
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Property {
    Revenue,
    Subtotal,
    Total,
    Currency,
    Sentiment,
    Csat,
    Nps,
    Text,
    #[serde(other)]
    Skipped,
}

impl<'de> Fields<'de> for Properties<'de> {
    type Name = Property;

    fn bit(name: Property) -> u32 {
        if matches!(name, Property::Skipped) { 0 } else { 1 << name as u32 }
    }

    fn fill<A: MapAccess<'de>>(&mut self, name: Property, map: &mut A) -> Result<(), A::Error> {
        let leaf = match name {
            Property::Revenue => &mut self.revenue,
            Property::Subtotal => &mut self.subtotal,
            Property::Total => &mut self.total,
            Property::Currency => &mut self.currency,
            Property::Sentiment => &mut self.sentiment,
            Property::Csat => &mut self.csat,
            Property::Nps => &mut self.nps,
            Property::Text => &mut self.text,
            Property::Skipped => return map.next_value::<IgnoredAny>().map(drop),
        };
        *leaf = map.next_value()?;
        Ok(())
    }
}

/// Where a call has traits. Only two of the six have any, and what comes first in a call need not be its type:
/// so it is read a second time for them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Traits<'a> {
    #[serde(borrow)]
    traits: Option<&'a RawValue>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context<'a> {
    #[serde(borrow)]
    traits: Option<&'a RawValue>,
}

fn plain<'a>(call: &mut Call<'a>, meaning: Meaning, mapped: &mut Mapped<'a>) -> Result<(), Reject> {
    mapped.name = Found::new(take(&mut call.kind), "/type");
    mapped.meaning = Some(meaning);
    common(call, mapped)
}

/// What every call has.
fn common<'a>(call: &mut Call<'a>, mapped: &mut Mapped<'a>) -> Result<(), Reject> {
    mapped.known_ts = corrected_time(call)?;
    let user_id = Found::new(take(&mut call.user_id).or_absent_when_empty(), "/userId");
    let anonymous_id = Found::new(take(&mut call.anonymous_id).or_absent_when_empty(), "/anonymousId");
    mapped.customer_id = user_id.or(anonymous_id).or_looked_for("/userId (or /anonymousId)");
    mapped.ts = Found::new(take(&mut call.timestamp), "/timestamp");
    mapped.event_id = Found::new(take(&mut call.message_id), "/messageId");
    mapped.channel = Found::new(take(&mut call.channel), "/channel");
    mapped.from_id = Found::new(take(&mut call.previous_id).or_absent_when_empty(), "/previousId");
    Ok(())
}

fn track<'a>(call: &mut Call<'a>, mapped: &mut Mapped<'a>) -> Result<(), Reject> {
    let name = Found::new(take(&mut call.event).or_absent_when_empty(), "/event");
    if name.value.is_absent() {
        return Err(Reject::new(Reason::MissingType, "/event is absent, which track needs"));
    }
    if call.has_properties == Shape::Other {
        return Err(Reject::new(Reason::InvalidField, "/properties: expected an object"));
    }
    mapped.meaning = name.value.as_text().and_then(meaning);
    mapped.name = name;
    let properties = &mut call.properties;
    // Revenue leaves out tax and shipping, which are not the customer's worth; so does the subtotal.
    mapped.amount = Found::new(take(&mut properties.revenue).or_absent_when_empty(), "/properties/revenue")
        .or(Found::new(take(&mut properties.subtotal).or_absent_when_empty(), "/properties/subtotal"))
        .or(Found::new(take(&mut properties.total).or_absent_when_empty(), "/properties/total"))
        .or_looked_for("/properties/revenue (or subtotal or total)");
    // The spec asks for the order of a refund and nothing else.
    mapped.refund_without_amount = true;
    mapped.currency =
        Found::new(take(&mut properties.currency).or_absent_when_empty(), "/properties/currency");
    mapped.sentiment = Found::new(take(&mut properties.sentiment), "/properties/sentiment");
    mapped.csat = Found::new(take(&mut properties.csat), "/properties/csat");
    mapped.nps = Found::new(take(&mut properties.nps), "/properties/nps");
    mapped.text = Found::new(take(&mut properties.text), "/properties/text");
    common(call, mapped)
}

/// RudderStack's clients send the traits of an identify in the context.
fn identify<'a>(json: &'a [u8], call: &mut Call<'a>, mapped: &mut Mapped<'a>) -> Result<(), Reject> {
    let Traits { traits, context } = read(json)?;
    let context = match context {
        Some(context) => {
            read_at::<Object<Context<'_>>>(context.get().as_bytes(), "/context")?.or_empty("/context")?
        }
        None => Context::default(),
    };
    mapped.traits = match (traits, context.traits) {
        (Some(traits), _) => Some(flat_traits(traits, "", "/traits")?),
        (None, Some(traits)) => Some(flat_traits(traits, "", "/context/traits")?),
        (None, None) => None,
    };
    plain(call, (Source::Profile, "traits_updated"), mapped)
}

fn group<'a>(json: &'a [u8], call: &mut Call<'a>, mapped: &mut Mapped<'a>) -> Result<(), Reject> {
    let id = match take(&mut call.group_id).or_absent_when_empty() {
        Leaf::Text(id) => Some(id.into_owned()),
        Leaf::Integer(id) => Some(id.to_string()),
        Leaf::Absent => None,
        _ => return Err(Reject::new(Reason::InvalidField, "/groupId: expected text")),
    };
    let mut traits = match read::<Traits<'_>>(json)?.traits {
        Some(traits) => flat_traits(traits, GROUP_PREFIX, "/traits")?,
        None => Vec::new(),
    };
    if let Some(id) = id {
        let name = format!("{GROUP_PREFIX}id").into_boxed_str();
        traits.retain(|(known, _)| *known != name);
        traits.push((name, Some(TraitValue::Text(id.into()))));
    }
    mapped.traits = Some(traits);
    plain(call, (Source::Profile, "traits_updated"), mapped)
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
            let corrected = received.saturating_sub(sent.saturating_sub(original));
            // A device that is wrong by thousands of years in between leads out of the calendar.
            if !(MIN_TS..=MAX_TS).contains(&corrected) {
                let message = "/sentAt: with /originalTimestamp and /receivedAt it gives no instant of the years 0 to 9999";
                return Err(Reject::new(Reason::InvalidTs, message.to_owned()));
            }
            Some(corrected)
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
