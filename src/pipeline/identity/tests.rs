use super::*;
use crate::event::{Event, Field, Merge, Numbers};
use crate::pipeline::facts::TraitValue;

use super::message::{Body, Carried};

fn to(target: &str, until: Ts) -> Option<Redirect> {
    Some(Redirect {
        v: VERSION,
        target: target.into(),
        via: 1,
        merged_at: 1,
        until,
        origin: None,
        noted_at: 0,
    })
}

fn event(profile: Option<ProfileChange>) -> Event<'static> {
    let mut numbers = Numbers::default();
    numbers.set(Field::Amount, 0.1 + 0.2);
    numbers.set(Field::Sentiment, -1.0);
    Event {
        source: Source::Profile,
        customer_id: "old".into(),
        name: "something_new".into(),
        ts: 5,
        event_id: Some("e\"1".into()),
        numbers,
        profile: profile.map(Box::new),
        channel: Some("app".into()),
    }
}

#[test]
fn an_event_comes_out_of_a_message_as_it_went_in() {
    let text = TraitValue::Text("true".into());
    let traits = vec![
        ("flag".into(), Some(TraitValue::Flag(false))),
        ("number".into(), Some(TraitValue::Number(0.1 + 0.2))),
        ("text".into(), Some(text)),
        ("gone".into(), None),
    ];
    let value = vec![0, 159, 146, 150];
    let headers = vec![("h".to_owned(), Some(vec![255])), ("none".to_owned(), None)];
    let origin =
        Origin { topic: "t".into(), offset: 7, key: Some(vec![1]), value, headers, ..Origin::default() };
    let merge = Merge { from_id: "x".into(), origin: Some(Box::new(origin)) };
    for profile in [
        None,
        Some(ProfileChange::Traits(traits)),
        Some(ProfileChange::Deleted),
        Some(ProfileChange::Merged(merge)),
    ] {
        let event = event(profile);
        let body = Body::Event(Box::new(Carried::of(&event)));
        let message = Message::new(
            "new",
            5,
            vec![Hop { id: "old".into(), target: "new".into(), via: 3, merged_at: 2, is_told: true }],
            body,
        );
        let read = Message::decode(&message.encode()).unwrap();
        assert_eq!(read, message);
        let Body::Event(carried) = read.body else { panic!("{read:?}") };
        assert_eq!(carried.event("new", 5), Event { customer_id: "new".into(), ..event });
    }
}

#[test]
fn what_is_no_message_is_told_without_quoting_it() {
    for (bytes, reason) in [
        (&b"canary"[..], "malformed_json"),
        (br#"{"v":9,"to":"canary","at":1,"body":"forget"}"#, "invalid_field"),
        (br#"{"v":1,"to":"canary","at":-99999999999999999,"body":"forget"}"#, "invalid_field"),
        (br#"{"v":1,"to":"canary","at":1,"body":{"state":{"from":"canary","state":"0"}}}"#, "malformed_json"),
    ] {
        let reject = Message::decode(bytes).unwrap_err();
        assert_eq!(reject.reason.code(), reason);
        assert!(!reject.message.contains("canary"), "{reject}");
    }
    assert!(Message::decode(br#"{"v":1,"to":"c","at":1,"body":"forget"}"#).is_ok());
}

#[test]
fn records_are_read_back_and_damage_is_told() {
    let mut all = Identities::default();
    all.change_redirect("a", to("b", 9));
    all.change_aliases("b", vec!["a".into()]);
    let mut again = Identities::default();
    for (key, value) in all.changes() {
        assert!(std::str::from_utf8(&key).is_err(), "a customer could have it");
        assert_eq!(again.restore(&key, value.as_deref()), Ok(true));
    }
    assert_eq!((again.target("a"), again.aliases("b")), (Some("b"), all.aliases("b")));
    let key = b"\xffredirect a";
    assert_eq!(again.restore(key, Some(b"{")), Err(CodecError::Corrupt));
    assert_eq!(again.restore(key, Some(br#"{"v":2,"later":1}"#)), Err(CodecError::OtherVersion(2)));
    assert_eq!(again.restore(b"\xffcommit", Some(b"{}")), Ok(false));
    assert_eq!(again.restore(key, None), Ok(true));
    assert_eq!(again.restore(b"\xffaliases b", None), Ok(true));
    assert!(again.is_empty() && again.by_end.is_empty());
}

#[test]
fn the_record_of_a_merge_is_kept_until_nothing_can_contradict_it() {
    let mut all = Identities::default();
    let noted = |noted_at: Ts| {
        let origin = Some(Box::new(Origin { offset: 7, value: b"{}".to_vec(), ..Origin::default() }));
        to("c", 99).map(|redirect| Redirect { origin, noted_at, ..redirect })
    };
    all.change_redirect("a", noted(10));
    all.change_redirect("b", noted(20));
    let mut again = Identities::default();
    for (key, value) in all.changes() {
        again.restore(&key, value.as_deref()).unwrap();
    }
    assert_eq!(again.redirects, all.redirects);
    again.forget_records(10);
    let kept = |all: &Identities| ["a", "b"].map(|id| all.redirects[id].origin.is_some());
    assert_eq!((kept(&again), again.changes().len()), ([false, true], 1));
    again.rollback();
    assert_eq!((kept(&again), again.by_note.len()), ([true, true], 2));
    again.expire(99);
    assert!(again.is_empty() && again.by_note.is_empty());
}

#[test]
fn each_redirect_ends_in_its_time_and_a_rollback_brings_all_back() {
    let mut all = Identities::default();
    all.change_redirect("a", to("c", 10));
    all.change_redirect("b", to("c", 20));
    all.commit();
    all.change_redirect("b", to("d", 30));
    all.change_aliases("d", vec!["b".into()]);
    all.expire(15);
    let changed: Vec<bool> = all.changes().iter().map(|(_, value)| value.is_some()).collect();
    assert_eq!(changed, [true, false, true], "aliases of d, a is over, b");
    all.rollback();
    assert_eq!((all.target("a"), all.target("b"), all.aliases("d").len()), (Some("c"), Some("c"), 0));
    all.expire(20);
    assert!(all.is_empty() && all.by_end.is_empty());
}

#[test]
fn a_message_of_another_version_is_told_from_one_that_is_none() {
    let own = Message::new("a", 5, vec![], Body::Forget).encode();
    let text = String::from_utf8(own.clone()).unwrap();
    let later =
        text.replace(&format!("\"v\":{VERSION}"), "\"v\":9").replace("\"forget\"", "{\"something\":\"new\"}");
    assert_ne!(text, later);
    assert_eq!(Message::foreign_version(later.as_bytes()), Some(9));
    for other in [own.as_slice(), b"{}", b"{\"v\":9}", b"\xff", b""] {
        assert_eq!(Message::foreign_version(other), None, "{}", String::from_utf8_lossy(other));
    }
}
