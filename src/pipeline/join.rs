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

use std::collections::BTreeSet;
use std::sync::Arc;

use super::channels;
use super::codec::Decoded;
use super::emit::Trigger;
use super::engine::Engine;
use super::layout::{Layout, NEVER, Orders, Touch};
use super::outcomes;
use super::plan::Plan;
use super::sessions;
use super::store::{Customer, OrderDays};
use super::windows::Windows;
use crate::time::{DAY_MS, Ts};

impl Engine {
    /// Joins a state to that of `target`, as of `at` or the target's last instant, and evaluates what comes of
    /// it. `merge` is when that was asked for, and the id of the event that did.
    pub(super) fn join(&mut self, target: &str, moved: Decoded, at: Ts, merge: (Ts, Option<&str>)) {
        let plan = &*Arc::clone(&self.plan);
        let head = plan.head;
        let index = match self.store.find(target) {
            Some(index) => {
                self.live_through(plan, index, at - 1);
                self.store.touch(index, false);
                let now = at.max(head.now.get(self.store.row(index)));
                let (row, customer) = self.store.parts_mut(index);
                join_states(plan, row, customer, moved, now);
                head.now.set(row, now);
                index
            }
            None => self.take_over(target, moved, at),
        };
        let now = head.now.get(self.store.row(index));
        head.advanced.set(self.store.row_mut(index), now);
        head.persisted.set(self.store.row_mut(index), now);
        let (merged_at, event_id) = merge;
        let hash = event_id.map(|id| xxhash_rust::xxh3::xxh3_64(id.as_bytes()));
        self.remember(index, hash, merged_at);
        if self.evaluate(plan, index, now, Trigger::Event, event_id) {
            self.keep_score(plan, index, now);
        }
        self.schedule(plan, index, now);
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
    for seen in other.seen {
        if !customer.seen.contains(&seen) {
            customer.seen.push(seen);
        }
    }
    if let Some(mut traits) = other.traits {
        traits.extend(customer.traits.take().into_iter().flat_map(|own| *own));
        customer.traits = Some(traits);
    }
}

/// Joins what an event touches in this way; panes, orders and sessions apart.
fn join_touched(touch: Touch, row: &mut [u32], other: &[u32]) {
    match touch {
        Touch::Count(slot) | Touch::CountPresence(slot, _) => slot.add(row, slot.get(other)),
        Touch::Sum(slot, _) => slot.add(row, slot.get(other)),
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
