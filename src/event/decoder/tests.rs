use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::event::{Field, ProfileChange, Source};
use crate::pipeline::facts::TraitValue;

#[derive(Debug)]
struct List(Vec<(&'static str, Vec<u8>)>);

impl Headers for List {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    fn all(&self) -> Vec<(String, Option<Vec<u8>>)> {
        self.0.iter().map(|(key, value)| ((*key).to_owned(), Some(value.clone()))).collect()
    }
}

fn headers(list: &[(&'static str, &str)]) -> List {
    List(list.iter().map(|(key, value)| (*key, value.as_bytes().to_vec())).collect())
}

fn table(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn read(
    decoder: &Decoder,
    source: Source,
    value: &[u8],
    headers: &dyn Headers,
) -> Result<Event<'static>, Reject> {
    let envelope = Envelope { source, key: None, timestamp: Some(7), latest: None };
    decoder.decode(value, &envelope, headers, &Money::default()).map(Event::into_owned)
}

fn pointed(fields: &[(&str, &str)], types: &[(&str, &str)]) -> Decoder {
    Decoder::new(Format::Native, Format::Native, &table(fields), table(types))
}

fn cloudevents(data: Format) -> Decoder {
    Decoder::new(Format::CloudEvents, data, &BTreeMap::new(), BTreeMap::new())
}

#[test]
fn pointers_reach_anywhere_and_types_are_translated() {
    let decoder = pointed(
        &[
            ("customer_id", "/user/id"),
            ("type", "/kind"),
            ("ts", "/meta/at"),
            ("amount", "/lines/1/net~1sum"),
            ("traits", "/user"),
        ],
        &[("OrderPlaced", "order_completed"), ("UserChanged", "traits_updated")],
    );
    let json =
        br#"{"user":{"id":4711,"plan":"pro","geo":{"city":"Bonn"}},"kind":"OrderPlaced","event_id":"e1",
        "meta":{"at":"2026-01-01T00:00:00Z"},"lines":[{},{"net/sum":"12.5"},3],"x":[[[]]]}"#;
    let event = read(&decoder, Source::Clickstream, json, &()).unwrap();
    assert_eq!(
        (event.source, &*event.name, &*event.customer_id),
        (Source::Purchase, "order_completed", "4711")
    );
    assert_eq!((event.ts, event.numbers.get(Field::Amount)), (1_767_225_600_000, Some(12_500_000)));
    assert_eq!(event.event_id.as_deref(), Some("e1"));

    let json = String::from_utf8(json.to_vec()).unwrap().replace("OrderPlaced", "UserChanged");
    let event = read(&decoder, Source::Clickstream, json.as_bytes(), &()).unwrap();
    let Some(ProfileChange::Traits(traits)) = event.profile.as_deref() else { panic!("{event:?}") };
    assert!(traits.contains(&("geo.city".into(), Some(TraitValue::Text("Bonn".into())))));

    let json = json.replace("UserChanged", "Something Else");
    let event = read(&decoder, Source::Support, json.as_bytes(), &()).unwrap();
    assert_eq!((event.source, &*event.name), (Source::Support, "something_else"));
}

#[test]
fn a_customer_is_erased_on_the_profile_topic_or_where_the_operator_says_so() {
    let segment = Decoder::new(Format::Segment, Format::Native, &table(&[]), table(&[]));
    let json =
        br#"{"type":"track","event":"Customer Deleted","userId":"u","timestamp":"2026-01-01T00:00:00Z"}"#;
    let reject = read(&segment, Source::Clickstream, json, &()).unwrap_err();
    assert_eq!(reject.reason, Reason::UnsupportedType, "anybody's browser could ask for it");
    let erased = |decoder: &Decoder, source| {
        let event = read(decoder, source, json, &()).unwrap();
        assert_eq!(event.profile.as_deref(), Some(&ProfileChange::Deleted));
    };
    erased(&segment, Source::Profile);
    let types = table(&[("Customer Deleted", "customer_deleted")]);
    erased(&Decoder::new(Format::Segment, Format::Native, &table(&[]), types), Source::Clickstream);
}

#[test]
fn a_channel_is_read_by_pointer_and_from_segments_calls() {
    let decoder = pointed(&[("customer_id", "/c"), ("type", "/t"), ("channel", "/via/name")], &[]);
    let json = br#"{"c":"x","t":"page_viewed","via":{"name":"store"}}"#;
    assert_eq!(read(&decoder, Source::Clickstream, json, &()).unwrap().channel.as_deref(), Some("store"));
    let segment = Decoder::new(Format::Segment, Format::Native, &table(&[]), table(&[]));
    let json =
        br#"{"type":"track","event":"x","userId":"u","timestamp":"2026-01-01T00:00:00Z","channel":"mobile"}"#;
    assert_eq!(read(&segment, Source::Clickstream, json, &()).unwrap().channel.as_deref(), Some("mobile"));
}

#[test]
fn a_star_stands_for_every_other_name_and_for_none() {
    let decoder = pointed(&[("customer_id", "/c"), ("amount", "/sum")], &[("*", "order_completed")]);
    for json in [r#"{"c":"x","sum":5}"#, r#"{"c":"x","sum":5,"type":"whatever"}"#] {
        let event = read(&decoder, Source::Purchase, json.as_bytes(), &()).unwrap();
        assert_eq!((event.source, &*event.name, event.ts), (Source::Purchase, "order_completed", 7));
    }
    let event = read(&decoder, Source::Purchase, br#"{"c":"x","type":"order_cancelled"}"#, &()).unwrap();
    assert_eq!(&*event.name, "order_cancelled");
}

#[test]
fn what_is_wrong_is_told_with_the_pointer_of_the_operator() {
    let decoder = pointed(&[("customer_id", "/user/id"), ("amount", "/sum"), ("traits", "/t")], &[]);
    let told = |json: &str| {
        let reject = read(&decoder, Source::Purchase, json.as_bytes(), &()).unwrap_err();
        (reject.reason, reject.message.split([' ', ':']).next().unwrap().to_owned())
    };
    assert_eq!(told(r#"{"type":"order_completed"}"#), (Reason::MissingCustomerId, "/user/id".into()));
    assert_eq!(
        told(r#"{"type":"order_completed","user":7}"#),
        (Reason::MissingCustomerId, "/user/id".into())
    );
    assert_eq!(
        told(r#"{"type":"order_completed","user":{"id":[]}}"#),
        (Reason::InvalidCustomerId, "/user/id".into())
    );
    assert_eq!(told(r#"{"type":"order_completed","user":{"id":1}}"#), (Reason::MissingAmount, "/sum".into()));
    assert_eq!(told(r#"{"type":"a","user":{"id":1},"t":3}"#), (Reason::InvalidField, "/t".into()));
    assert_eq!(told(r#"{"user":{"id":1}}"#), (Reason::MissingType, "/type".into()));
    assert_eq!(told(r#"{"type":"a","user":{"id":1}"#).0, Reason::MalformedJson);
    assert_eq!(told(r#"{"type":"a","user":{"id":1}} x"#).0, Reason::MalformedJson);
}

#[test]
fn fields_by_pointer_win_over_those_of_a_format() {
    let fields = table(&[("customer_id", "/detail/requester_id")]);
    let decoder = Decoder::new(Format::Zendesk, Format::Native, &fields, BTreeMap::new());
    let json = br#"{"type":"zen:event-type:ticket.created","detail":{"external_id":"e","requester_id":844}}"#;
    let event = read(&decoder, Source::Support, json, &()).unwrap();
    assert_eq!((&*event.customer_id, &*event.name), ("844", "ticket_opened"));
    let types = table(&[("Plan Upgraded", "subscription_renewed")]);
    let decoder = Decoder::new(Format::Segment, Format::Native, &BTreeMap::new(), types);
    let json = br#"{"type":"track","event":"Plan Upgraded","userId":"u"}"#;
    let event = read(&decoder, Source::Clickstream, json, &()).unwrap();
    assert_eq!((event.source, &*event.name), (Source::Purchase, "subscription_renewed"));
}

const DATA: &str = r#"{"customer_id":"c1","amount":5}"#;

#[test]
fn binary_cloudevents_take_what_is_missing_from_their_headers() {
    let binary = headers(&[
        ("ce_specversion", "1.0"),
        ("ce_id", "17"),
        ("ce_source", "/shop"),
        ("ce_type", "com.example.shop.order_completed.v2"),
        ("ce_time", "2026-01-01T00:00:00Z"),
        ("ce_subject", "c9"),
        ("Content-Type", "application/json"),
    ]);
    let event = read(&cloudevents(Format::Native), Source::Clickstream, DATA.as_bytes(), &binary).unwrap();
    assert_eq!(
        (event.source, &*event.name, &*event.customer_id),
        (Source::Purchase, "order_completed", "c1")
    );
    assert_eq!((event.ts, event.event_id.as_deref()), (1_767_225_600_000, Some("/shop#17")));
    let event = read(&cloudevents(Format::Native), Source::Purchase, br#"{"amount":5}"#, &binary).unwrap();
    assert_eq!(&*event.customer_id, "c9");
}

#[test]
fn structured_cloudevents_carry_all_in_the_value() {
    let whole = |data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"17","source":"/shop","type":"order.completed","time":"2026-01-01T00:00:00Z","data":{data}}}"#
        )
    };
    let json = whole(r#"{"customer_id":"c1","type":"order_completed","amount":5,"ts":9}"#);
    let structured = headers(&[("content-type", "Application/CloudEvents+json; charset=UTF-8")]);
    let no_headers = headers(&[]);
    for headers in [&structured, &no_headers] {
        let event =
            read(&cloudevents(Format::Native), Source::Clickstream, json.as_bytes(), headers).unwrap();
        assert_eq!((event.source, event.ts, &*event.customer_id), (Source::Purchase, 9, "c1"));
    }
    let json = whole(r#"{"type":"track","event":"Order Completed","userId":"u","properties":{"revenue":3}}"#);
    let event = read(&cloudevents(Format::Segment), Source::Clickstream, json.as_bytes(), &()).unwrap();
    assert_eq!((event.source, event.ts, &*event.customer_id), (Source::Purchase, 1_767_225_600_000, "u"));
    let json =
        whole(r#"{"type":"track","event":"Order Completed","userId":"u","properties":{"revenue":"x"}}"#);
    let reject = read(&cloudevents(Format::Segment), Source::Clickstream, json.as_bytes(), &()).unwrap_err();
    assert_eq!(reject.reason, Reason::InvalidAmount);
    assert!(reject.message.starts_with("/data/properties/revenue"), "{reject}");
}

#[test]
fn what_is_no_readable_cloudevent_is_refused_with_the_reason() {
    let decoder = cloudevents(Format::Native);
    let told = |value: &str, headers: &List| {
        read(&decoder, Source::Purchase, value.as_bytes(), headers).unwrap_err()
    };
    let none = headers(&[]);
    assert_eq!(told(DATA, &none).reason, Reason::InvalidField);
    let batch = headers(&[("content-type", "application/cloudevents-batch+json")]);
    assert_eq!(told("[]", &batch).reason, Reason::UnsupportedEncoding);
    assert_eq!(told("{}", &batch).reason, Reason::UnsupportedEncoding);
    assert_eq!(
        told(r#"{"specversion":"1.0","data_base64":"e30="}"#, &none).reason,
        Reason::UnsupportedEncoding
    );
    assert_eq!(told(r#"{"specversion":"1.0","data":7}"#, &none).message, "/data: expected an object");
    assert_eq!(told(r#"{"specversion":"1.0"}"#, &none).reason, Reason::Empty);
    let odd = r#"{"specversion":"1.0","time":"soon","type":"order_completed","data":{"customer_id":"c","amount":1}}"#;
    assert!(told(odd, &none).message.starts_with("the envelope's /time: "), "{}", told(odd, &none));
    let binary = headers(&[("ce_specversion", "1.0"), ("ce_time", "soon"), ("ce_type", "order_completed")]);
    let told = told(r#"{"customer_id":"c","amount":1}"#, &binary);
    assert!(told.message.starts_with("header ce_time: "), "{told}");
}

#[test]
fn schema_ids_are_skipped_and_other_encodings_are_called_by_their_name() {
    let json = br#"{"type":"page","userId":"u"}"#;
    let segment = Decoder::new(Format::Segment, Format::Native, &BTreeMap::new(), BTreeMap::new());
    let framed = [&[0, 0, 0, 0, 9][..], json].concat();
    assert_eq!(&*read(&segment, Source::Clickstream, &framed, &()).unwrap().name, "page_viewed");
    let by_header = List(vec![("__value_schema_id", vec![1; 17])]);
    assert_eq!(&*read(&segment, Source::Clickstream, json, &by_header).unwrap().name, "page_viewed");

    let avro = [&[0, 0, 0, 0, 9][..], b"\x02c1\x04order"].concat();
    let native = Decoder::default();
    let typed = headers(&[("content-type", "application/x-protobuf")]);
    for decoder in [&segment, &native] {
        for (value, headers) in [
            (avro.as_slice(), &() as &dyn Headers),
            (b"\xc3\x01\x09\x09", &()),
            (b"\x0a\x02c1", &by_header),
            (b"\x0a\x02c1", &typed),
        ] {
            let reject = read(decoder, Source::Clickstream, value, headers).unwrap_err();
            assert_eq!(reject.reason, Reason::UnsupportedEncoding, "{reject}");
        }
        for (value, reason) in [
            (&b"hello"[..], Reason::MalformedJson),
            (b"\0\0\0\0\x07{\"customer_id\":\"c\",", Reason::MalformedJson),
            (b"\0\0\0\0\x07[1]", Reason::NotAnObject),
        ] {
            let reject = read(decoder, Source::Clickstream, value, &()).unwrap_err();
            assert_eq!(reject.reason, reason, "{reject}");
        }
    }
}

#[test]
fn a_mood_comes_from_the_text_where_none_is_given() {
    let native = Decoder::default();
    let mood = |json: &str| {
        read(&native, Source::Support, json.as_bytes(), &()).unwrap().numbers.get(Field::Sentiment)
    };
    assert!(
        mood(r#"{"customer_id":"c","type":"ticket_opened","text":"I hate this, it is awful"}"#).unwrap() < 0
    );
    let told =
        r#"{"customer_id":"c","type":"ticket_opened","text":"I hate this, it is awful","sentiment":0.5}"#;
    assert_eq!(mood(told), Some(500_000));
    assert_eq!(mood(r#"{"customer_id":"c","type":"ticket_opened"}"#), None);
    let pointed = pointed(&[("text", "/body")], &[]);
    let json = br#"{"customer_id":"c","type":"ticket_opened","body":"Wonderful, I love it"}"#;
    let event = read(&pointed, Source::Support, json, &()).unwrap();
    assert!(event.numbers.get(Field::Sentiment).unwrap() > 0);
}

/// What a customer's values are made of, so that it shows where one leaks.
const SECRET: &str = "s3cret";

/// JSON of the words that the formats look for, in any wrong place and of any wrong type.
fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(SECRET)),
        prop::sample::select(vec![
            "",
            "track",
            "page",
            "identify",
            "group",
            "alias",
            "Order Completed",
            "CSAT Rated",
            "order_completed",
            "customers_merged",
            "zen:event-type:ticket.status_changed",
            "zen:event-type:ticket.csat",
            "SOLVED",
            "2026-01-01T00:00:00Z",
            "1.0",
            "12.50",
        ])
        .prop_map(Value::from),
    ];
    let words = prop::sample::select(vec![
        "type",
        "event",
        "userId",
        "anonymousId",
        "previousId",
        "groupId",
        "messageId",
        "timestamp",
        "sentAt",
        "originalTimestamp",
        "receivedAt",
        "properties",
        "revenue",
        "total",
        "currency",
        "csat",
        "nps",
        "text",
        "traits",
        "context",
        "specversion",
        "id",
        "source",
        "subject",
        "time",
        "data",
        "detail",
        "external_id",
        "satisfaction_rating",
        "score",
        "comment",
        "body",
        "author",
        "is_staff",
        "current",
        "previous",
        "customer_id",
        "ts",
        "event_id",
        "amount",
        "sentiment",
        "0",
        "from_id",
    ]);
    leaf.prop_recursive(4, 64, 12, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(words.clone().prop_map(String::from), inner, 0..12)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn nothing_panics_and_no_message_quotes_a_value(json in json(), cut in prop::option::of(0usize..200)) {
        let mut bytes = serde_json::to_vec(&json).unwrap();
        bytes.truncate(cut.unwrap_or(bytes.len()));
        let tables = [
            table(&[]),
            table(&[("customer_id", "/detail/id"), ("traits", "/detail"), ("type", "/0/type"), ("text", "")]),
        ];
        for (format, data) in [
            (Format::Native, Format::Native),
            (Format::Segment, Format::Native),
            (Format::Zendesk, Format::Native),
            (Format::CloudEvents, Format::Native),
            (Format::CloudEvents, Format::Segment),
        ] {
            for fields in &tables {
                let decoder = Decoder::new(format, data, fields, table(&[("*", "csat_rated")]));
                for source in Source::ALL {
                    if let Err(reject) = read(&decoder, source, &bytes, &()) {
                        prop_assert!(!reject.message.contains(SECRET), "{reject}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_merge_is_no_large_record_wherever_its_bytes_are() {
    let plain = pointed(&[], &[]);
    let merge = |more: usize| {
        let text = "x".repeat(more);
        format!(r#"{{"customer_id":"a","type":"customers_merged","from_id":"b","ts":1,"other":"{text}"}}"#)
    };
    assert!(read(&plain, Source::Profile, merge(60_000).as_bytes(), &()).is_ok());
    let long = read(&plain, Source::Profile, merge(70_000).as_bytes(), &()).unwrap_err();
    assert_eq!(long.reason, Reason::TooLarge);
    let heavy = headers(&[("h", &"x".repeat(70_000))]);
    assert_eq!(
        read(&plain, Source::Profile, merge(1).as_bytes(), &heavy).unwrap_err().reason,
        Reason::TooLarge
    );
    let traits = merge(70_000).replace("customers_merged", "traits_updated");
    assert!(
        read(&plain, Source::Profile, traits.as_bytes(), &heavy).is_ok(),
        "of others nobody keeps the record"
    );
}
