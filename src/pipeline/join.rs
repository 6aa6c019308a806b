//! What two states of one customer make together.
//!
//! Whatever is kept does not depend on the order of events, so that the features of the two together are those
//! of a customer who had made all their events: counts and sums add up, firsts are the earlier and lasts the
//! later one, panes are added pane by pane, days and sessions are joined as sets. Not so what only a course of
//! events tells: stage, visits, dwell, alerts and the last score stay those of the customer that remains; one
//! that nobody knew takes over the other's. Of a trait that both have, the remaining customer's own holds.
//!
//! What a state no longer holds cannot be joined: a day or session of both that is older than every window
//! counts for each of them in lifetime features. PURE.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use thin_vec::ThinVec;

use super::channels::{self, with_main_channel};
use super::codec::Decoded;
use super::emit::{StageChange, Trigger};
use super::engine::{Engine, SEEN_MOST, TRAITS_BYTES_MOST, bytes_of, count, passage, push_change};
use super::facts::Traits;
use super::features;
use super::layout::{Layout, NEVER, Orders, Touch};
use super::lifecycle::{Facts, Move};
use super::outcomes;
use super::plan::Plan;
use super::sessions;
use super::store::{Customer, OrderDays, Seen};
use super::windows::Windows;
use super::worth;
use crate::time::{DAY_MS, Ts};

/// Why a customer that goes on in another's stage is in it.
const CONTINUES: &str = "true // it is the customer that was in this stage";

/// The merge by which two states are joined.
pub(super) struct Joining<'a> {
    pub merged_at: Ts,
    pub event_id: Option<&'a str>,
    /// Whether nobody knew the remaining customer then.
    pub is_new: bool,
}

impl Engine {
    /// Joins a state to that of `target`, as of `at` or the target's last instant, and evaluates what comes of
    /// it.
    pub(super) fn join(&mut self, target: &str, moved: Decoded, at: Ts, merge: &Joining<'_>) {
        let plan = &*Arc::clone(&self.plan);
        let head = plan.head;
        let index = match self.store.find(target) {
            Some(index) => {
                self.live_through(plan, index, at - 1);
                self.store.touch(index, false);
                let now = at.max(head.now.get(self.store.row(index)));
                let (row, customer) = self.store.parts_mut(index);
                let theirs = moved.row.clone();
                join_states(plan, row, customer, moved, now);
                head.now.set(row, now);
                if merge.is_new {
                    self.go_on_as(index, &theirs, now, merge.event_id);
                }
                index
            }
            None => self.take_over(target, moved, at),
        };
        let now = head.now.get(self.store.row(index));
        head.advanced.set(self.store.row_mut(index), now);
        head.persisted.set(self.store.row_mut(index), now);
        let hash = merge.event_id.map(|id| xxhash_rust::xxh3::xxh3_64(id.as_bytes()));
        self.remember(index, hash, merge.merged_at);
        if self.evaluate(plan, index, now, Trigger::Event, merge.event_id) {
            self.keep_score(plan, index, now);
        }
        self.schedule(plan, index, now);
    }

    /// Puts a customer that nobody knew at its merge, and who has begun a life of its own while the other's state
    /// was under way, where it would be had it begun in the other's stages; unless it is there already.
    fn go_on_as(&mut self, index: u32, theirs: &[u32], now: Ts, event_id: Option<&str>) {
        let plan = Arc::clone(&self.plan);
        let (row, customer) = self.store.parts_mut(index);
        let features = &mut self.scratch.features;
        features::read_into(&plan.layout, row, now, plan.settings.margin, &plan.needed, features);
        let p_churn = plan.p_churn(features, customer.traits.as_deref());
        let mut room = Traits::new();
        let traits = with_main_channel(&plan, customer, &mut room);
        for (k, (lifecycle, slots)) in plan.lifecycles.iter().enumerate() {
            let (mut own, mut other) = (lifecycle.start(now), lifecycle.start(now));
            slots.load(row, &mut own);
            slots.load(theirs, &mut other);
            let variant = lifecycle.variant(traits);
            let mut facts = Facts { features, p_churn, stage_days: 0.0, traits };
            let mut settled = other.clone();
            lifecycle.settle(variant, &mut settled, now, &mut facts, |_| {});
            if settled.stage == own.stage || other.stage == own.stage {
                continue;
            }
            let moved = Move {
                from: own.stage,
                to: other.stage,
                rule: CONTINUES,
                named: &[],
                stage_days: (now - own.entered_at) as f64 / DAY_MS as f64,
                visit: other.visits[usize::from(other.stage)],
                returned: lifecycle.roles().was_customer(|stage| own.visits[stage]),
                action: lifecycle.action(variant, other.stage),
            };
            slots.store(row, &other);
            self.population[k][usize::from(own.stage)] -= 1;
            self.population[k][usize::from(other.stage)] += 1;
            count(&mut self.tally.stage_changes, (k as u8, own.stage, other.stage, Trigger::Event));
            self.traffic.count(&passage(lifecycle, &moved, &worth::segment_of(traits), now));
            let change = StageChange {
                customer_id: &customer.id,
                lifecycle: k,
                gone: None,
                moved: &moved,
                ts: now,
                trigger: Trigger::Event,
                event_id,
                features,
                p_churn,
            };
            push_change(&mut self.outbox, &plan, row, &change);
        }
    }

    /// A customer nobody knew begins where the other was. What was written about the other was not about it: it
    /// counts its changes from 1, and has no score yet.
    fn take_over(&mut self, target: &str, moved: Decoded, at: Ts) -> u32 {
        let plan = Arc::clone(&self.plan);
        let head = plan.head;
        let index = self.adopt(target, |row, customer| {
            row.copy_from_slice(&moved.row);
            customer.log = moved.log;
            customer.sessions = moved.sessions;
            customer.seen = moved.seen;
            customer.traits = moved.traits;
            customer.order_days = moved.order_days;
            customer.channels = moved.channels;
            customer.kept = moved.kept;
            let now = at.max(head.now.get(row));
            head.now.set(row, now);
            head.sequence.set(row, 0);
            head.emitted.set(row, 0);
            head.emitted_p.set(row, f64::NAN);
            Windows { layout: &plan.layout, row, log: &mut customer.log }.recount(now);
        });
        self.store.touch(index, true);
        index
    }
}

/// Folds `other` into a customer, as of `now`, which neither has lived beyond.
fn join_states(plan: &Plan, row: &mut [u32], customer: &mut Customer, other: Decoded, now: Ts) {
    let (layout, head) = (&plan.layout, plan.head);
    // First: orders and sessions compare with the firsts and lasts of both.
    for index in 0..layout.orders.len() {
        join_orders(layout, index as u8, row, customer, &other);
    }
    let mut edits = Vec::new();
    for touch in &layout.touches {
        join_touched(*touch, row, &other.row);
    }
    if let Some(slots) = &layout.sessions {
        if let Some(lifetime) = slots.lifetime {
            lifetime.add(row, lifetime.get(&other.row));
        }
        let theirs = (&other.row[..], &other.sessions[..]);
        sessions::join(slots, row, &mut customer.sessions, theirs, now, &mut edits);
    }
    Windows { layout, row, log: &mut customer.log }.join(&other.log, &edits, now);
    outcomes::join(&head.outcomes, row, &mut customer.kept, (&other.row, &other.kept));
    channels::join(&mut customer.channels, &other.channels);
    head.newest.set(row, head.newest.get(row).max(head.newest.get(&other.row)));
    join_seen(&mut customer.seen, &other.seen);
    if let Some(traits) = other.traits {
        join_traits(customer.traits.get_or_insert_with(Box::default), *traits);
    }
}

/// Of more than a customer may have, the newest are kept.
fn join_seen(own: &mut ThinVec<Seen>, other: &[Seen]) {
    let known: HashSet<Seen, foldhash::fast::FixedState> = own.iter().copied().collect();
    own.extend(other.iter().filter(|seen| !known.contains(seen)).copied());
    if own.len() > SEEN_MOST {
        own.sort_unstable_by_key(|seen| (seen.ts, seen.id));
        drop(own.drain(..own.len() - SEEN_MOST));
    }
}

/// Its own go before the other's, for which there may be no room.
fn join_traits(own: &mut Traits, other: Traits) {
    let mut bytes: usize = own.iter().map(|(name, value)| bytes_of(name, value)).sum();
    for (name, value) in other {
        let more = bytes_of(&name, &value);
        if !own.contains_key(&name) && bytes + more <= TRAITS_BYTES_MOST {
            bytes += more;
            own.insert(name, value);
        }
    }
}

/// Joins what an event touches in this way; panes, orders and sessions apart.
fn join_touched(touch: Touch, row: &mut [u32], other: &[u32]) {
    match touch {
        Touch::Count(slot) | Touch::CountPresence(slot, _) => slot.add(row, slot.get(other)),
        Touch::Sum(slot, _) => slot.add(row, slot.get(other)),
        // Before the last instants are joined, as every touch of its kind.
        Touch::ActiveDay(active) => active.join(row, other),
        // Opened and reopened add to the same slot that solved takes from: once is enough.
        Touch::Net(slot, delta) if delta < 0 => slot.add(row, slot.get(other)),
        Touch::Min(slot, _) => slot.set(row, slot.get(row).min(slot.get(other))),
        Touch::Max(slot, _) => slot.set(row, slot.get(row).max(slot.get(other))),
        Touch::First(slot) => {
            let firsts = [slot.get(row), slot.get(other)];
            slot.set(row, firsts.into_iter().filter(|ts| *ts != NEVER).min().unwrap_or(NEVER));
        }
        Touch::Last(slot) => slot.set(row, slot.get(row).max(slot.get(other))),
        Touch::LastValue(value, _) => {
            let theirs = (value.ts.get(other), value.micros.get(other));
            if theirs > (value.ts.get(row), value.micros.get(row)) {
                value.ts.set(row, theirs.0);
                value.micros.set(row, theirs.1);
            }
        }
        Touch::Net(..)
        | Touch::Order(_)
        | Touch::Pane(_)
        | Touch::PaneField(..)
        | Touch::PanePresence(..)
        | Touch::Session => {}
    }
}

/// Distinct order days, those between the first and the last, and the revenue of the first.
fn join_orders(layout: &Layout, index: u8, row: &mut [u32], customer: &mut Customer, other: &Decoded) {
    let orders = &layout.orders[usize::from(index)];
    let (mine, theirs) = (
        known_days(orders, index, row, &customer.order_days),
        known_days(orders, index, &other.row, &other.order_days),
    );
    // Days of another catalogue may be counted that are not known.
    let both = mine.intersection(&theirs).count() as u32;
    orders.days.add(row, orders.days.get(&other.row).saturating_sub(both));
    match (mine.first(), theirs.first()) {
        (Some(my_first), Some(their_first)) if my_first == their_first => {
            orders.first_day.add(row, orders.first_day.get(&other.row));
        }
        (my_first, Some(their_first)) if my_first.is_none_or(|mine| their_first < mine) => {
            orders.first_day.set(row, orders.first_day.get(&other.row));
        }
        _ => {}
    }
    let all: Vec<u32> = mine.union(&theirs).copied().collect();
    let between = all.get(1..all.len().saturating_sub(1)).unwrap_or(&[]);
    let days = &mut customer.order_days.0;
    days.retain(|entry| OrderDays::orders_of(*entry) != usize::from(index));
    days.extend_from_slice(between);
    days.sort_unstable();
}

/// The days of orders that a state knows, as entries of [`OrderDays`].
fn known_days(orders: &Orders, index: u8, row: &[u32], days: &OrderDays) -> BTreeSet<u32> {
    let ends = [orders.first.get(row), orders.last.get(row)].into_iter().filter(|ts| *ts != NEVER);
    let ends = ends.map(|ts| OrderDays::entry(index, ts.div_euclid(DAY_MS)));
    let between = days.0.iter().filter(|entry| OrderDays::orders_of(**entry) == usize::from(index));
    ends.chain(between.copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::facts::TraitValue;

    #[test]
    fn merging_makes_no_customer_larger_than_one_may_be() {
        let of =
            |from: u64| (from..from + 9_000).map(|n| Seen { id: n, ts: n as Ts }).collect::<ThinVec<_>>();
        let mut seen = of(0);
        join_seen(&mut seen, &of(4_500));
        assert_eq!(seen.len(), 13_500, "what both know is kept once");
        join_seen(&mut seen, &of(20_000));
        assert_eq!(seen.len(), SEEN_MOST);
        assert_eq!(seen.last().map(|seen| seen.ts), Some(28_999));
        assert_eq!(seen[0].ts, 13_500 + 9_000 - SEEN_MOST as Ts, "the oldest went");

        let traits = |names: std::ops::Range<usize>, text: &str| -> Traits {
            names.map(|n| (format!("{n:03}").into(), TraitValue::Text(text.repeat(1_000).into()))).collect()
        };
        let mut own = traits(0..40, "a");
        join_traits(&mut own, traits(30..100, "b"));
        let bytes: usize = own.iter().map(|(name, value)| bytes_of(name, value)).sum();
        assert!(bytes <= TRAITS_BYTES_MOST && bytes > TRAITS_BYTES_MOST - 2_000, "{bytes}");
        assert_eq!(own["035"], TraitValue::Text("a".repeat(1_000).into()), "its own holds");
        assert_eq!(own["040"], TraitValue::Text("b".repeat(1_000).into()));
    }
}
