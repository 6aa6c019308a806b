//! A store under any actions against a plain model, with any number of customers allowed to stay awake.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::pipeline::plan::head_slots;
use crate::pipeline::words::{RowBuilder, Slot};

/// What a caller can change of a customer.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    words: Vec<u32>,
    timer: Ts,
    log: Vec<u8>,
    kept: Vec<u8>,
    seen: Vec<Seen>,
    days: Vec<u32>,
    traits: Option<Traits>,
}

#[derive(Clone, Debug)]
enum Act {
    /// Changes a customer in the transaction; creates it if it is not there.
    Change(u8, Change),
    /// What silence does: changes a row, which the transaction need not take back, and the timer.
    Pass(u8, u32),
    /// Silence that turns out to matter: touches with the row of before.
    Speak(u8, u32),
    Wake(u8),
    Rest,
    Erase(u8),
    /// Outside transactions, as restoring does.
    Forget(u8),
    Commit,
    Rollback,
}

#[derive(Clone, Debug)]
enum Change {
    Word(usize, u32),
    Log(Vec<u8>),
    Kept(Vec<u8>),
    Seen(u64, i64),
    Day(i64),
    Trait(Option<u8>),
}

const WORDS: usize = 5;

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let change = prop_oneof![
        (0..WORDS, prop_oneof![Just(0), 0u32..100, any::<u32>()])
            .prop_map(|(at, word)| Change::Word(at, word)),
        vec(any::<u8>(), 0..60).prop_map(Change::Log),
        vec(any::<u8>(), 0..9).prop_map(Change::Kept),
        (any::<u64>(), any::<i64>()).prop_map(|(id, ts)| Change::Seen(id, ts)),
        (0i64..30_000).prop_map(Change::Day),
        prop::option::of(any::<u8>()).prop_map(Change::Trait),
    ];
    let who = || 0u8..12;
    let act = prop_oneof![
        8 => (who(), change).prop_map(|(who, change)| Act::Change(who, change)),
        2 => (who(), any::<u32>()).prop_map(|(who, to)| Act::Pass(who, to)),
        2 => (who(), any::<u32>()).prop_map(|(who, to)| Act::Speak(who, to)),
        3 => who().prop_map(Act::Wake),
        2 => Just(Act::Rest),
        2 => who().prop_map(Act::Erase),
        1 => who().prop_map(Act::Forget),
        2 => Just(Act::Commit),
        1 => Just(Act::Rollback),
    ];
    vec(act, 0..160)
}

/// Beside a plain map, and the map as it was when the transaction began.
struct Pair {
    store: Store,
    head: HeadSlots,
    words: [Slot<u32>; WORDS],
    now: BTreeMap<String, Known>,
    before: BTreeMap<String, Known>,
    /// Of this transaction: what silence does to them after that is taken back.
    touched: Vec<String>,
}

/// Some names are too long to stand in a place.
fn name(who: u8) -> String {
    if who.is_multiple_of(3) {
        format!("a customer of a rather long name, number {who}")
    } else {
        format!("c{who}")
    }
}

impl Pair {
    fn new(awake_least: usize) -> Self {
        let mut row = RowBuilder::default();
        let words = std::array::from_fn(|i| row.slot(i as u32 * 7));
        let head = head_slots(&mut row);
        let store = Store::new(head, row.finish(), true, awake_least);
        let (now, before) = (BTreeMap::new(), BTreeMap::new());
        Pair { store, head, words, now, before, touched: Vec::new() }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Change(who, change) => self.change(&name(*who), change),
            Act::Pass(who, to) => self.pass(&name(*who), *to, false),
            Act::Speak(who, to) => self.pass(&name(*who), *to, true),
            Act::Wake(who) => {
                if let Some(index) = self.store.find(&name(*who)) {
                    assert!(self.store.wake(index));
                }
            }
            Act::Rest => self.store.rest(),
            Act::Erase(who) => {
                if let Some(index) = self.store.find(&name(*who)) {
                    self.store.touch(index, false);
                    self.store.erase(index);
                    self.now.remove(&name(*who));
                    self.touched.push(name(*who));
                }
            }
            Act::Forget(who) => {
                let in_transaction = !self.store.dirty().is_empty();
                if let Some(index) = self.store.find(&name(*who)).filter(|_| !in_transaction) {
                    self.store.wake(index);
                    self.store.remove(index);
                    self.now.remove(&name(*who));
                    self.before.remove(&name(*who));
                }
            }
            Act::Commit => {
                self.store.commit();
                self.begin();
            }
            Act::Rollback => {
                self.store.rollback(|_, _, _| {});
                self.now = std::mem::take(&mut self.before);
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        self.before = self.now.clone();
        self.touched.clear();
    }

    fn change(&mut self, id: &str, change: &Change) {
        let (index, born) = self.store.find_or_create(id);
        assert_eq!(born, !self.now.contains_key(id));
        self.store.touch(index, born);
        self.touched.push(id.to_owned());
        let words = (0..WORDS as u32).map(|i| i * 7).collect();
        let known = self.now.entry(id.to_owned()).or_insert_with(|| Known {
            words,
            timer: Ts::MAX,
            ..Known::default()
        });
        let (row, customer) = self.store.parts_mut(index);
        match change {
            Change::Word(at, word) => {
                self.words[*at].set(row, *word);
                known.words[*at] = *word;
            }
            Change::Log(log) => {
                customer.log = ThinVec::from(&log[..]);
                known.log.clone_from(log);
            }
            Change::Kept(kept) => {
                customer.kept = ThinVec::from(&kept[..]);
                known.kept.clone_from(kept);
            }
            Change::Seen(id, ts) => {
                customer.seen.push(Seen { id: *id, ts: *ts });
                known.seen.push(Seen { id: *id, ts: *ts });
            }
            Change::Day(day) => {
                customer.order_days.insert(0, *day);
                known.days.clone_from(&customer.order_days.0.to_vec());
            }
            Change::Trait(value) => {
                let traits = value.map(|n| Traits::from([("t".into(), TraitValue::Number(f64::from(n)))]));
                customer.traits = traits.clone().map(Box::new);
                known.traits = traits;
            }
        }
    }

    fn pass(&mut self, id: &str, to: u32, is_heard: bool) {
        let Some(index) = self.store.find(id) else { return };
        self.store.wake(index);
        let before = self.store.row(index).to_vec();
        let row = self.store.row_mut(index);
        self.words[0].set(row, to);
        self.head.timer.set(row, Ts::from(to));
        let known = self.now.get_mut(id).expect("the model knows whom the store knows");
        (known.words[0], known.timer) = (to, Ts::from(to));
        if is_heard {
            self.store.touch_after(index, &before);
            self.touched.push(id.to_owned());
        } else if !self.touched.iter().any(|touched| touched == id) {
            // It stays so whatever becomes of the transaction, also if that touches the customer later.
            self.before.insert(id.to_owned(), self.now[id].clone());
        }
    }

    fn known(&self, index: u32) -> Known {
        let look = self.store.look(index);
        let Customer { log, kept, seen, order_days, traits, .. } = &*look.customer;
        Known {
            words: self.words.iter().map(|slot| slot.get(&look.row)).collect(),
            timer: self.head.timer.get(&look.row),
            log: log.to_vec(),
            kept: kept.to_vec(),
            seen: seen.to_vec(),
            days: order_days.0.to_vec(),
            traits: traits.as_deref().cloned(),
        }
    }

    fn check(&self) {
        let all = self.store.indices().map(|index| (self.store.id(index).to_string(), self.known(index)));
        assert_eq!(all.collect::<BTreeMap<_, _>>(), self.now);
        assert_eq!(self.store.len(), self.now.len());
        let mut room = Vec::new();
        for (id, known) in &self.now {
            let index = self.store.find(id).expect("whoever is known is found");
            assert_eq!(self.store.look(index).customer.id, *id);
            assert_eq!(self.store.timer(index), known.timer);
            assert_eq!(self.store.traits(index).as_deref(), known.traits.as_ref());
            let row = self.store.peek(index, &mut room);
            assert_eq!(self.words.map(|slot| slot.get(row)).to_vec(), known.words);
        }
        let names: Vec<String> = (0..u8::MAX).map(name).collect();
        let one_by_one: Vec<u32> = names.iter().filter_map(|id| self.store.find(id)).collect();
        let mut at_once = vec![7];
        self.store.find_all(names.iter().map(String::as_str), &mut at_once);
        assert_eq!(at_once, one_by_one);
        for index in self.store.dirty() {
            let state = self.store.state(*index);
            assert!(matches!(state, State::Awake { .. }), "whom a transaction concerns is awake");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whoever_rests_is_what_it_was_whatever_happens(awake_least in 0usize..6, acts in acts()) {
        let mut pair = Pair::new(awake_least);
        for act in &acts {
            pair.act(act);
            pair.check();
        }
        pair.act(&Act::Rollback);
        pair.check();
        pair.store.rest();
        prop_assert!(pair.store.awake() <= awake_least, "{} are awake", pair.store.awake());
        pair.check();
    }
}

#[test]
fn a_large_transaction_gives_its_seats_back_and_moves_nobody_s_state() {
    let mut pair = Pair::new(3);
    for who in 0..3_000u32 {
        pair.change(&format!("c{who}"), &Change::Word(1, who));
    }
    let large = pair.store.seats.bytes();
    assert_eq!(pair.store.awake(), 3_000, "whom the transaction concerns stays awake");
    for _ in 0..40 {
        pair.act(&Act::Commit);
        // Somebody sits in the last chunk at times.
        pair.change("c2999", &Change::Word(2, 5));
        pair.change("c1", &Change::Word(2, 6));
    }
    pair.act(&Act::Commit);
    assert!(pair.store.seats.bytes() * 4 < large, "{} of {large} bytes", pair.store.seats.bytes());
    pair.check();
}

#[test]
fn what_is_told_of_a_customer_at_rest_is_less_than_of_one_awake() {
    let bytes = |awake_least: usize| {
        let mut pair = Pair::new(awake_least);
        (0..2_000u32).for_each(|who| pair.change(&format!("c{who}"), &Change::Log(vec![1; 40])));
        (0..60).for_each(|_| pair.act(&Act::Commit));
        pair.store.bytes()
    };
    assert!(bytes(0) < bytes(2_000), "{} and {}", bytes(0), bytes(2_000));
}
