use std::collections::BTreeMap;

use super::super::decoder::{Decoder, Format};
use super::super::money::Money;
use super::super::native::Envelope;
use super::super::{Event, Field, ProfileChange, Reason, Reject, Source};
use crate::pipeline::facts::TraitValue;

fn read(json: &str) -> Result<Event<'static>, Reject> {
    let decoder = Decoder::new(Format::Segment, Format::Native, &BTreeMap::new(), BTreeMap::new());
    let envelope = Envelope { source: Source::Clickstream, key: None, timestamp: None, latest: None };
    let money = Money { base: "EUR".into(), rates: [("USD".to_owned(), 0.5)].into() };
    decoder.decode(json.as_bytes(), &envelope, &(), &money).map(Event::into_owned)
}

fn track(event: &str, properties: &str) -> Event<'static> {
    let json = format!(
        r#"{{"type":"track","event":"{event}","userId":"u1","messageId":"m1","timestamp":"2026-01-02T03:04:05.678Z",
           "context":{{"ip":"1.2.3.4","library":{{"name":"x"}}}},"integrations":{{"All":true}},"properties":{properties}}}"#
    );
    read(&json).unwrap_or_else(|reject| panic!("{event}: {reject}"))
}

fn traits(event: &Event<'_>) -> BTreeMap<String, Option<TraitValue>> {
    let Some(ProfileChange::Traits(traits)) = event.profile.as_deref() else { panic!("{event:?}") };
    traits.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

#[test]
fn names_of_the_spec_become_native_types_of_the_right_kind() {
    use Source::*;
    for (event, source, name) in [
        ("Order Completed", Purchase, "order_completed"),
        ("Completed Order", Purchase, "order_completed"),
        ("order completed", Purchase, "order_completed"),
        ("Order Refunded", Purchase, "order_refunded"),
        ("Order Cancelled", Purchase, "order_cancelled"),
        ("Order Updated", Purchase, "order_updated"),
        ("Products Searched", Clickstream, "products_searched"),
        ("Product List Viewed", Clickstream, "product_list_viewed"),
        ("Product List Filtered", Clickstream, "product_list_viewed"),
        ("Product Viewed", Clickstream, "product_viewed"),
        ("Product Added", Clickstream, "product_added"),
        ("Product Removed", Clickstream, "product_removed"),
        ("Cart Viewed", Clickstream, "cart_viewed"),
        ("Checkout Started", Clickstream, "checkout_started"),
        ("Product Added to Wishlist", Clickstream, "wishlist_added"),
        ("Wishlist Product Added to Cart", Clickstream, "product_added"),
        ("Product Shared", Clickstream, "product_shared"),
        ("Cart Shared", Clickstream, "product_shared"),
        ("Product Reviewed", Clickstream, "product_reviewed"),
        ("Signed Up", Clickstream, "signed_up"),
        ("Signed In", Clickstream, "signed_in"),
        ("Invite Sent", Clickstream, "referral_sent"),
        ("Live Chat Conversation Started", Support, "ticket_opened"),
        ("Live Chat Message Sent", Support, "ticket_replied"),
        ("Live Chat Message Received", Support, "ticket_replied"),
        ("Live Chat Conversation Ended", Support, "ticket_solved"),
        ("Email Opened", Clickstream, "email_opened"),
        ("Email Link Clicked", Clickstream, "email_clicked"),
        ("Unsubscribed", Clickstream, "unsubscribed"),
        ("Email Delivered", Profile, "email_delivered"),
        ("Subscription Started", Purchase, "subscription_started"),
        ("CSAT Rated", Support, "csat_rated"),
        ("Trial Started", Clickstream, "trial_started"),
        ("myOwnEvent (v2)", Clickstream, "my_own_event_v2"),
        ("予約", Clickstream, "unnamed"),
    ] {
        let event = track(event, r#"{"revenue":10}"#);
        assert_eq!((event.source, &*event.name), (source, name));
        assert_eq!((&*event.customer_id, event.ts), ("u1", 1_767_323_045_678));
        assert_eq!(event.event_id.as_deref(), Some("m1"));
    }
}

#[test]
fn pages_and_screens_are_views() {
    let page = r#"{"type":"page","anonymousId":"a1","userId":null,"name":"Home","timestamp":"2026-01-01T00:00:00Z"}"#;
    let event = read(page).unwrap();
    assert_eq!((event.source, &*event.name, &*event.customer_id), (Source::Clickstream, "page_viewed", "a1"));
    let screen = page.replace("\"page\"", "\"screen\"").replace("null", "\"\"");
    let event = read(&screen).unwrap();
    assert_eq!((&*event.name, &*event.customer_id), ("screen_viewed", "a1"));
}

#[test]
fn the_amount_is_the_revenue_else_the_subtotal_else_the_total() {
    let amount = |properties: &str| track("Order Completed", properties).numbers.get(Field::Amount);
    assert_eq!(
        amount(r#"{"total":30,"subtotal":25,"revenue":20,"products":[{"price":7}]}"#),
        Some(20_000_000)
    );
    assert_eq!(amount(r#"{"total":30,"subtotal":25}"#), Some(25_000_000));
    assert_eq!(amount(r#"{"total":"30.50","revenue":null}"#), Some(30_500_000));
    assert_eq!(amount(r#"{"revenue":20,"currency":"USD"}"#), Some(10_000_000));
}

#[test]
fn the_time_is_corrected_for_the_clock_of_the_device() {
    let times = |times: &str| {
        read(&format!(r#"{{"type":"page","userId":"u",{times}}}"#)).map(|event| event.ts - 1_767_225_600_000)
    };
    let original = r#""originalTimestamp":"2026-01-01T05:00:00Z""#;
    let all = format!(r#"{original},"sentAt":"2026-01-01T05:00:10Z","receivedAt":"2026-01-01T00:00:30Z""#);
    assert_eq!(times(&format!(r#"{all},"timestamp":"2026-01-01T00:00:05Z""#)), Ok(5_000));
    assert_eq!(times(&all), Ok(20_000));
    assert_eq!(times(original), Ok(5 * 3_600_000));
    assert_eq!(times(r#""receivedAt":"2026-01-01T00:00:30Z""#), Ok(30_000));
    let reject = times(r#""originalTimestamp":"yesterday""#).unwrap_err();
    assert_eq!(reject.reason, Reason::InvalidTs);
    assert!(reject.message.starts_with("/originalTimestamp:"), "{reject}");
    assert_eq!(times(r#""x":1"#).unwrap_err().reason, Reason::MissingTs);
}

#[test]
fn identify_and_group_set_traits() {
    let identify = r#"{"type":"identify","userId":"u","timestamp":"2026-01-01T00:00:00Z",
        "traits":{"plan":"pro","address":{"city":"Bonn"},"seats":3,"vip":true,"tags":["x"],"old":null}}"#;
    let event = read(identify).unwrap();
    assert_eq!((event.source, &*event.name), (Source::Profile, "traits_updated"));
    let got = traits(&event);
    assert_eq!(got["address.city"], Some(TraitValue::Text("Bonn".into())));
    assert_eq!((got.len(), &got["old"]), (5, &None));

    let rudder = r#"{"type":"identify","userId":"u","channel":"web","originalTimestamp":"2026-01-01T00:00:00Z",
        "context":{"traits":{"plan":"free"}}}"#;
    assert_eq!(traits(&read(rudder).unwrap())["plan"], Some(TraitValue::Text("free".into())));

    let group = r#"{"type":"group","userId":"u","groupId":"g1","timestamp":"2026-01-01T00:00:00Z",
        "traits":{"plan":"enterprise","id":"other"}}"#;
    let got = traits(&read(group).unwrap());
    assert_eq!(got["group.plan"], Some(TraitValue::Text("enterprise".into())));
    assert_eq!(got["group.id"], Some(TraitValue::Text("g1".into())));
}

#[test]
fn an_alias_is_a_merge_of_the_previous_id() {
    let alias = r#"{"type":"alias","userId":"u","previousId":"a","timestamp":"2026-01-01T00:00:00Z"}"#;
    let Some(ProfileChange::Merged(merge)) = read(alias).unwrap().profile.map(|p| *p) else { panic!() };
    assert_eq!(&*merge.from_id, "a");
    let itself = read(&alias.replace("\"a\"", "\"u\"")).unwrap_err();
    assert_eq!(itself.reason, Reason::InvalidMerge);
    assert!(itself.message.starts_with("/previousId"), "{itself}");
    let reject = read(&alias.replace("previousId", "x")).unwrap_err();
    assert_eq!(reject.reason, Reason::MissingCustomerId);
    assert!(reject.message.starts_with("/previousId"), "{reject}");
}

#[test]
fn what_is_wrong_is_told_with_its_pointer() {
    let ts = r#""timestamp":"2026-01-01T00:00:00Z""#;
    for (json, reason, pointer) in [
        (format!(r#"{{{ts},"userId":"u"}}"#), Reason::MissingType, "/type"),
        (format!(r#"{{{ts},"userId":"u","type":"merge"}}"#), Reason::InvalidType, "/type"),
        (format!(r#"{{{ts},"userId":"u","type":"track"}}"#), Reason::MissingType, "/event"),
        (format!(r#"{{{ts},"userId":"u","type":"track","event":7}}"#), Reason::InvalidType, "/event"),
        (format!(r#"{{{ts},"type":"page"}}"#), Reason::MissingCustomerId, "/userId"),
        (format!(r#"{{{ts},"type":"page","anonymousId":{{}}}}"#), Reason::InvalidCustomerId, "/anonymousId"),
        (
            format!(r#"{{{ts},"type":"track","userId":"u","event":"Order Completed","properties":[]}}"#),
            Reason::InvalidField,
            "/properties",
        ),
        (
            format!(r#"{{{ts},"type":"track","userId":"u","event":"Order Completed","properties":{{}}}}"#),
            Reason::MissingAmount,
            "/properties/revenue",
        ),
        (
            format!(
                r#"{{{ts},"type":"track","userId":"u","event":"Order Completed","properties":{{"total":-1}}}}"#
            ),
            Reason::InvalidAmount,
            "/properties/total",
        ),
        (format!(r#"{{{ts},"type":"identify","userId":"u","traits":[1]}}"#), Reason::InvalidField, "/traits"),
        (format!(r#"{{{ts},"type":"page","userId":"u","userId":"v"}}"#), Reason::MalformedJson, "/userId:"),
        ("{".to_owned(), Reason::MalformedJson, "the value"),
        ("7".to_owned(), Reason::NotAnObject, "the value"),
        (String::new(), Reason::Empty, "the record"),
    ] {
        let reject = read(&json).map(|event| event.name.to_string()).unwrap_err();
        assert_eq!(reject.reason, reason, "{json}: {reject}");
        assert!(reject.message.starts_with(pointer), "{json}: {reject}");
    }
}

#[test]
fn deep_nesting_is_answered() {
    let deep = format!(
        r#"{{"type":"identify","userId":"u","traits":{}1{}}}"#,
        r#"{"a":"#.repeat(5_000),
        "}".repeat(5_000)
    );
    assert_eq!(read(&deep).unwrap_err().reason, Reason::MalformedJson);
}

#[test]
fn a_refund_may_name_its_order_only_and_a_purchase_may_not() {
    let refund = track("Order Refunded", r#"{"order_id":"o1"}"#);
    assert_eq!((&*refund.name, refund.numbers.get(Field::Amount)), ("order_refunded", None));
    let json = r#"{"type":"track","event":"Order Completed","userId":"u","timestamp":1,"properties":{"order_id":"o1","revenue":""}}"#;
    assert_eq!(read(json).unwrap_err().reason, Reason::MissingAmount);
}
