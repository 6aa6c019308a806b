//! Examples from small histories, held against what can be worked out by hand, and against leaks.

use super::*;
use crate::config::Config;
use crate::replay::Lanes;
use crate::setup;
use crate::simulate::{Settings, Simulation};
use crate::time::{DAY_MS, format_rfc3339};

/// Records in memory, one lane per source.
#[derive(Clone, Debug, Default)]
struct Memory {
    lanes: [Vec<String>; 4],
    read: [usize; 4],
}

impl Lanes for Memory {
    fn lanes(&self) -> usize {
        4
    }

    fn source(&self, lane: usize) -> Source {
        Source::ALL[lane]
    }

    fn next(&mut self, lane: usize) -> Result<Option<RawRecord>> {
        let number = self.read[lane];
        self.read[lane] += 1;
        let record = |line: &String| RawRecord {
            number: number as i64,
            key: None,
            timestamp: None,
            bytes: line.as_bytes().into(),
        };
        Ok(self.lanes[lane].get(number).map(record))
    }
}

impl Memory {
    fn push(&mut self, source: Source, customer: &str, name: &str, ts: Ts) {
        let line = format!(
            r#"{{"customer_id":"{customer}","type":"{name}","ts":"{}","amount":10}}"#,
            format_rfc3339(ts)
        );
        self.lanes[source.index()].push(line);
    }

    fn of(events: &[(Source, &str, &str, Ts)]) -> Memory {
        let mut memory = Memory::default();
        events.iter().for_each(|(source, customer, name, ts)| memory.push(*source, customer, name, *ts));
        memory
    }
}

fn task(label: Label) -> Task {
    let horizon = 30 * DAY_MS;
    Task {
        name: "t".into(),
        label,
        horizon,
        lead: 0,
        active_within: 90 * DAY_MS,
        cuts: Vec::new(),
        until: None,
        monotone: false,
    }
}

fn examples(memory: Memory, task: &Task, cuts: &[Ts], most: usize) -> Dataset {
    let mut config = Config::default();
    config.identity.traits.push("was".into());
    let plan = setup::plan_for_features(&config).unwrap();
    let collector = Collector::new(plan, task, most);
    collect(collector, cuts, 0, &mut Merged::new(memory, &config), &|_| {}).unwrap().dataset
}

/// Customer and label of each example, in the order of names.
fn labels(memory: Memory, task: &Task, cuts: &[Ts], names: &[&'static str]) -> Vec<(&'static str, bool)> {
    let dataset = examples(memory, task, cuts, usize::MAX);
    let name = |hash: &u64| *names.iter().find(|name| hash_customer(name) == *hash).unwrap();
    let mut found: Vec<_> = dataset.customer.iter().map(name).zip(dataset.label.iter().copied()).collect();
    found.sort();
    found
}

const CUT: Ts = 100 * DAY_MS;
const BUY: (Source, &str) = (Source::Purchase, "order_completed");

#[test]
fn a_label_covers_its_horizon_from_the_first_millisecond_to_before_the_last() {
    let buys = |customer, ts| (BUY.0, customer, BUY.1, ts);
    let mut events: Vec<_> = ["at", "in", "before end", "at end"].map(|c| buys(c, CUT - DAY_MS)).to_vec();
    events.push((Source::Clickstream, "only looks", "page_viewed", CUT - DAY_MS));
    events.extend([
        buys("at", CUT),
        buys("in", CUT + 3 * DAY_MS),
        buys("before end", CUT + 30 * DAY_MS - 1),
        buys("at end", CUT + 30 * DAY_MS),
    ]);
    events.push((Source::Clickstream, "only looks", "page_viewed", CUT + DAY_MS));
    let names = ["at", "in", "before end", "at end", "only looks"];
    let found = |task: &Task| labels(Memory::of(&events), task, &[CUT], &names);
    let expected =
        [("at", false), ("at end", true), ("before end", false), ("in", false), ("only looks", true)];
    assert_eq!(found(&task(Label::NoOrder)), expected);
    assert!(!found(&task(Label::NoEvent)).contains(&("only looks", true)));
    let lead = Task { lead: 2 * DAY_MS, ..task(Label::NoOrder) };
    let expected =
        [("at", true), ("at end", false), ("before end", false), ("in", false), ("only looks", true)];
    assert_eq!(found(&lead), expected, "an order in the gap does not count");
}

#[test]
fn examples_are_the_customers_who_did_something_lately() {
    let within = 90 * DAY_MS;
    let memory = Memory::of(&[
        (BUY.0, "long ago", BUY.1, CUT - within - 1),
        (BUY.0, "just", BUY.1, CUT - within),
        (Source::Support, "asks", "ticket_opened", CUT - 1),
        (Source::Clickstream, "comes", "page_viewed", CUT),
        (Source::Clickstream, "late", "page_viewed", CUT + 90 * DAY_MS),
        (Source::Profile, "known", "traits_updated", CUT - 1),
    ]);
    let names = ["long ago", "just", "asks", "comes", "late", "known"];
    let found = labels(memory, &task(Label::NoOrder), &[CUT], &names);
    assert_eq!(found, [("asks", true), ("just", true)]);
}

#[test]
fn who_has_cancelled_can_only_cancel_again_after_a_new_start() {
    let (start, cancel) = ("subscription_started", "subscription_cancelled");
    let event = |customer, name, days| (Source::Purchase, customer, name, CUT + days * DAY_MS);
    let memory = Memory::of(&[
        event("back", cancel, -20),
        event("gone", start, -30),
        event("gone", cancel, -10),
        event("stays", start, -10),
        event("leaves", start, -10),
        event("back", start, -5),
        event("leaves", cancel, 5),
        event("gone", cancel, 6),
        event("back", cancel, 31),
    ]);
    let found = labels(memory, &task(Label::Cancelled), &[CUT], &["back", "gone", "stays", "leaves"]);
    assert_eq!(found, [("back", false), ("leaves", true), ("stays", false)]);
}

#[test]
fn an_event_that_comes_late_changes_no_row_but_counts_where_it_happened() {
    // Far more events in between than are read ahead.
    let mut early = vec![(BUY.0, "a", BUY.1, CUT - 5 * DAY_MS)];
    early.extend((0..500).map(|i| (BUY.0, "b", BUY.1, CUT + 40 * DAY_MS + i * 60_000)));
    let late = [(BUY.0, "a", BUY.1, CUT - DAY_MS), (BUY.0, "a", BUY.1, CUT + 2 * DAY_MS)];
    let without = examples(Memory::of(&early), &task(Label::NoOrder), &[CUT], usize::MAX);
    let with =
        examples(Memory::of(&[early, late.to_vec()].concat()), &task(Label::NoOrder), &[CUT], usize::MAX);
    assert_eq!(without.rows, with.rows);
    assert_eq!((without.label, with.label), (vec![true], vec![false]));
}

#[test]
fn a_repeated_event_is_no_sign_of_life() {
    let mut memory = Memory::of(&[(BUY.0, "a", BUY.1, CUT - DAY_MS), (BUY.0, "b", BUY.1, CUT + 40 * DAY_MS)]);
    let repeat =
        |ts| format!(r#"{{"customer_id":"a","type":"order_completed","ts":{ts},"amount":1,"event_id":"x"}}"#);
    memory.lanes[1].insert(1, repeat(CUT - 1));
    memory.lanes[1].insert(2, repeat(CUT + 1));
    let dataset = examples(memory, &task(Label::NoOrder), &[CUT], usize::MAX);
    assert_eq!(dataset.label, [true]);
}

fn simulated(garble_from: Option<Ts>) -> (Memory, Ts) {
    let settings = Settings { customers: 120, days: 200, seed: 3, ..Settings::default() };
    let mut memory = Memory::default();
    for record in Simulation::new(&settings).unwrap() {
        match garble_from {
            // Everything from there on is other people's, of another kind and elsewhere in time.
            Some(from) if record.ts >= from => {
                let later = from + (record.ts - from) / 3;
                let customer = format!("c{:07}", (record.customer * 7) % 150);
                let kinds = ["order_completed", "ticket_opened", "page_viewed", "subscription_cancelled"];
                let source = Source::ACTIVITY[(record.ts % 3) as usize];
                memory.push(source, &customer, kinds[(record.ts % 4) as usize], later);
            }
            _ => memory.lanes[record.source.index()].push(record.json),
        }
    }
    (memory, settings.start)
}

#[test]
fn nothing_at_or_after_a_cut_can_reach_its_rows() {
    let (plain, start) = simulated(None);
    let cuts: Vec<Ts> = (0..4).map(|i| start + (80 + 25 * i) * DAY_MS + i * 3_333_333).collect();
    let expected = examples(plain, &task(Label::NoOrder), &cuts, usize::MAX);
    for (i, cut) in cuts.iter().enumerate() {
        let garbled = examples(simulated(Some(*cut)).0, &task(Label::NoOrder), &cuts[..=i], usize::MAX);
        let rows = expected.at.iter().filter(|at| *at <= cut).count();
        assert!(rows > 30 * (i + 1), "{rows}");
        assert_eq!(garbled.rows, expected.rows.slice(ndarray::s![..rows, ..]));
        assert_eq!(garbled.customer, expected.customer[..rows]);
        assert_ne!(garbled.label, expected.label[..rows], "the labels do see it");
    }
}

#[test]
fn too_many_examples_are_thinned_by_customer_and_not_by_chance() {
    let (memory, start) = simulated(None);
    let cuts: Vec<Ts> = (0..4).map(|i| start + (80 + 25 * i) * DAY_MS).collect();
    let all = examples(memory.clone(), &task(Label::NoOrder), &cuts, usize::MAX);
    let most = all.label.len() / 2;
    let few = examples(memory, &task(Label::NoOrder), &cuts, most);
    assert!(few.label.len() <= most && few.label.len() > most / 4, "{} of {most}", few.label.len());
    let kept: Vec<usize> =
        (0..all.label.len()).filter(|i| few.customer.contains(&all.customer[*i])).collect();
    assert_eq!(few.rows, all.rows.select(ndarray::Axis(0), &kept), "whole customers stay");
    assert_eq!(few.label, kept.iter().map(|i| all.label[*i]).collect::<Vec<_>>());
    assert_eq!(few.at, kept.iter().map(|i| all.at[*i]).collect::<Vec<_>>());
}

#[test]
fn nobody_learns_from_what_was_erased_since() {
    let later = CUT + 60 * DAY_MS;
    let buys = |customer, ts| (BUY.0, customer, BUY.1, ts);
    let erased = |customer, ts| (Source::Profile, customer, "customer_deleted", ts);
    let memory = Memory::of(&[
        buys("stays", CUT - DAY_MS),
        buys("gone", CUT - DAY_MS),
        buys("back", CUT - DAY_MS),
        erased("gone", CUT + 5 * DAY_MS),
        erased("back", CUT + 5 * DAY_MS),
        buys("gone", CUT + 6 * DAY_MS),
        buys("stays", CUT + 40 * DAY_MS),
        buys("back", CUT + 40 * DAY_MS),
        buys("stays", later + 40 * DAY_MS),
    ]);
    for most in [usize::MAX, 4] {
        let dataset = examples(memory.clone(), &task(Label::NoOrder), &[CUT, later], most);
        let named = |name: &str, at: Ts| {
            let of = hash_customer(name);
            dataset.customer.iter().zip(&dataset.at).any(|(customer, found)| (*customer, *found) == (of, at))
        };
        assert!(!named("gone", CUT) && !named("gone", later) && !named("back", CUT), "{most}");
        if most == usize::MAX {
            assert!(named("stays", CUT) && named("stays", later) && named("back", later));
            assert_eq!(dataset.rows.nrows(), 3);
        }
    }
}

#[test]
fn what_a_customer_does_later_is_about_who_was_merged_into_it() {
    for says_so in
        [r#""customers_merged","from_id":"visitor""#, r#""traits_updated","traits":{"was":"visitor"}"#]
    {
        let buys = |customer, ts| (BUY.0, customer, BUY.1, ts);
        let mut memory = Memory::of(&[
            buys("visitor", CUT - DAY_MS),
            buys("other", CUT - DAY_MS),
            buys("named", CUT + 3 * DAY_MS),
            buys("visitor", CUT + 50 * DAY_MS),
        ]);
        let ts = format_rfc3339(CUT + DAY_MS);
        let told = format!(r#"{{"customer_id":"named","type":{says_so},"ts":"{ts}"}}"#);
        memory.lanes[Source::Profile.index()].push(told);
        let names = ["visitor", "other", "named"];
        let later = CUT + 40 * DAY_MS;
        let found = labels(memory.clone(), &task(Label::NoOrder), &[CUT, later], &names);
        assert_eq!(
            found,
            [("named", false), ("other", true), ("other", true), ("visitor", false)],
            "{says_so}"
        );
        memory.push(Source::Profile, "visitor", "customer_deleted", CUT + 60 * DAY_MS);
        let found = labels(memory, &task(Label::NoOrder), &[CUT, later], &names);
        assert_eq!(found, [("other", true), ("other", true)], "both are erased");
    }
}

fn collected(memory: Memory, cuts: &[Ts], ahead: usize, by: Option<&str>) -> Result<Examples> {
    let config = Config::default();
    let task = task(Label::NoOrder);
    let collector =
        Collector { by, ..Collector::new(setup::plan_for_features(&config).unwrap(), &task, 1_000) };
    collect(collector, cuts, ahead, &mut Merged::new(memory, &config), &|_| {})
}

#[test]
fn a_clock_that_runs_ahead_takes_no_cut_before_its_time() {
    let buys = |customer, days: i64| (BUY.0, customer, BUY.1, CUT + days * DAY_MS);
    let cuts = [CUT, CUT + 30 * DAY_MS];
    let plain = [buys("a", -20), buys("b", -10), buys("a", -1), buys("b", 2), buys("a", 31), buys("b", 70)];
    let mut wrong = plain.to_vec();
    wrong.insert(1, buys("c", 300));
    let [without, with] =
        [plain.to_vec(), wrong].map(|events| collected(Memory::of(&events), &cuts, 1, None).unwrap());
    assert_eq!(with.dataset.rows, without.dataset.rows);
    assert_eq!(with.dataset.label, without.dataset.label);
    assert_eq!(with.dataset.at, [CUT, CUT, CUT + 30 * DAY_MS, CUT + 30 * DAY_MS]);
    assert_eq!(with.buyers.len(), 2);
}

#[test]
fn a_wrong_clock_in_each_hundred_leaves_the_others_examples_as_they_are() {
    let names: Vec<String> = (0..100).map(|i| format!("c{i:02}")).collect();
    let kinds = [BUY, (Source::Clickstream, "page_viewed")];
    // Everybody comes once a day, and each hour somebody else.
    let mut events: Vec<_> = (0..60 * 100)
        .map(|n| {
            (
                kinds[n % 3 / 2].0,
                names[n % 100].as_str(),
                kinds[n % 3 / 2].1,
                CUT + (n as i64 - 3_000) * DAY_MS / 100,
            )
        })
        .collect();
    let right = events.clone();
    for n in (50..events.len()).step_by(101) {
        events.insert(n, (kinds[n % 2].0, "stranger", kinds[n % 2].1, CUT + 300 * DAY_MS + n as i64));
    }
    let cuts = [CUT, CUT + 10 * DAY_MS];
    let wrong = events.len() - right.len();
    let with = collected(Memory::of(&events), &cuts, wrong, None).unwrap();
    let without = collected(Memory::of(&right), &cuts, 0, None).unwrap();
    assert_eq!(with.dataset.at.len(), 200);
    assert_eq!((with.dataset.rows, with.dataset.label), (without.dataset.rows, without.dataset.label));
}

#[test]
fn files_that_are_sorted_by_customer_are_refused() {
    // More than the few records that are read ahead and put in order.
    let names: Vec<String> = (0..200).map(|i| format!("c{i}")).collect();
    let of = |name| (0..9).map(move |i| (BUY.0, name, BUY.1, CUT + (10 * i - 40) * DAY_MS));
    let events: Vec<_> = names.iter().flat_map(|name| of(name.as_str())).collect();
    let refused = collected(Memory::of(&events), &[CUT], 2, None).err().unwrap();
    assert!(refused.what.contains("not in the order of time"), "{refused}");
    let mut sorted = events;
    sorted.sort_by_key(|(.., ts)| *ts);
    assert_eq!(collected(Memory::of(&sorted), &[CUT], 2, None).unwrap().dataset.at.len(), 200);
}

#[test]
fn groups_stay_with_their_examples_when_others_are_erased() {
    let buys = |customer, days: i64| (BUY.0, customer, BUY.1, CUT + days * DAY_MS);
    let mut memory =
        Memory::of(&[buys("a", -3), buys("b", -2), buys("c", -1), buys("c", 5), buys("a", 6), buys("b", 7)]);
    for (customer, tier) in [("a", "x"), ("b", "y"), ("c", "z")] {
        let ts = format_rfc3339(CUT - DAY_MS / 2);
        let told = format!(
            r#"{{"customer_id":"{customer}","type":"traits_updated","traits":{{"tier":"{tier}"}},"ts":"{ts}"}}"#
        );
        memory.lanes[Source::Profile.index()].push(told);
    }
    memory.push(Source::Profile, "b", "customer_deleted", CUT + 8 * DAY_MS);
    memory.push(Source::Profile, "nobody", "customer_deleted", CUT + 8 * DAY_MS);
    let examples = collected(memory, &[CUT], 0, Some("tier")).unwrap();
    let tier_of = |customer| if customer == hash_customer("a") { "x" } else { "z" };
    let told: Vec<_> = examples.groups.iter().map(|group| group.segment.as_deref().unwrap()).collect();
    assert_eq!(told, examples.dataset.customer.iter().map(|c| tier_of(*c)).collect::<Vec<_>>());
    assert_eq!(told.len(), 2);
}
