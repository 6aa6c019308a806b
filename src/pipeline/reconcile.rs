//! Customers of a lifecycle whose definition has changed: each is evaluated once under the new one.
//!
//! Which definition a customer was last evaluated under is told by the layout of its state in the log, so that
//! a stop at any place neither repeats nor forgets one: whoever is reconciled is written under the new layout,
//! in the same transaction as what came of it. Customers are evaluated as of the instant up to which their
//! partition had lived through silence, or as of their own last instant where that is later.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::channels::with_main_channel;
use super::emit::{StageChange, Trigger};
use super::engine::{Engine, OUTBOX_BYTES, count, push_change};
use super::facts::Traits;
use super::features;
use super::lifecycle::Move;
use super::windows::Windows;
use crate::time::Ts;

/// Customers reconciled before the caller may commit: all of them are written.
const AT_ONCE: usize = 256;

/// What a customer's restored state says is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Lifecycles, as bits, in which the customer begins.
    pub fresh: u64,
    /// By lifecycle, the stage it stood in, which is gone.
    pub gone: Vec<(u8, Box<str>)>,
}

/// The customers that wait.
#[derive(Debug, Default)]
pub struct Reconciling {
    found: BTreeMap<u32, Due>,
    /// In order, once all are found; those before `next` are done, before `committed` for good.
    waiting: Vec<(u32, Due)>,
    next: usize,
    committed: usize,
}

impl Reconciling {
    /// While restoring: what this customer waits for now, which replaces what an older state said.
    pub fn note(&mut self, index: u32, due: Option<Due>) {
        match due {
            Some(due) => drop(self.found.insert(index, due)),
            None => drop(self.found.remove(&index)),
        }
    }

    pub fn begin(&mut self) {
        *self = Reconciling {
            waiting: std::mem::take(&mut self.found).into_iter().collect(),
            ..Reconciling::default()
        };
    }

    fn take(&mut self) -> Option<(u32, Due)> {
        let taken = self.waiting.get(self.next).cloned();
        self.next += usize::from(taken.is_some());
        taken
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len() - self.next
    }

    pub fn commit(&mut self) {
        self.committed = self.next;
        if self.waiting() == 0 {
            *self = Reconciling::default();
        }
    }

    pub fn rollback(&mut self) {
        self.next = self.committed;
    }
}

impl Engine {
    /// Customers that wait to be reconciled. No event may be applied before all are.
    pub fn to_reconcile(&self) -> usize {
        self.reconciling.waiting()
    }

    /// Evaluates waiting customers as of `at`; returns whether more wait, for once what came of these is out.
    pub fn reconcile(&mut self, at: Ts) -> bool {
        for _ in 0..AT_ONCE {
            if self.outbox.bytes() >= OUTBOX_BYTES {
                break;
            }
            let Some((index, due)) = self.reconciling.take() else { break };
            self.reconcile_one(index, &due, at);
        }
        self.to_reconcile() > 0
    }

    fn reconcile_one(&mut self, index: u32, due: &Due, at: Ts) {
        let plan = Arc::clone(&self.plan);
        let head = plan.head;
        self.store.touch(index, false);
        let (row, customer) = self.store.parts_mut(index);
        let at = at.max(head.now.get(row));
        Windows { layout: &plan.layout, row, log: &mut customer.log }.advance(at);
        head.advanced.set(row, at);
        head.persisted.set(row, at);
        for (k, (_, slots)) in plan.lifecycles.iter().enumerate() {
            if due.fresh >> k & 1 == 1 {
                slots.entered_at.set(row, at);
            }
        }
        for (lifecycle, from) in &due.gone {
            self.leave_gone_stage(index, usize::from(*lifecycle), from, at);
        }
        self.evaluate(&plan, index, at, Trigger::Definition, None);
        self.schedule(&plan, index, at);
    }

    /// The way out of a stage that is no longer defined, so that whoever counts by changes finds nobody left
    /// in it. The customer stands in `initial` already.
    fn leave_gone_stage(&mut self, index: u32, k: usize, gone: &str, at: Ts) {
        let plan = Arc::clone(&self.plan);
        let (row, customer) = self.store.parts_mut(index);
        let features = &mut self.scratch.features;
        features::read_into(&plan.layout, row, at, plan.settings.margin, &plan.needed, features);
        let p_churn = plan.p_churn(features, customer.traits.as_deref());
        let (lifecycle, slots) = &plan.lifecycles[k];
        let state = &mut self.scratch.states[k];
        slots.load(row, state);
        let visit = state.visits[usize::from(state.stage)].saturating_add(1);
        state.visits[usize::from(state.stage)] = visit;
        let mut room = Traits::new();
        let variant = lifecycle.variant(with_main_channel(&plan, customer, &mut room));
        let rule = format!("true // the stage `{gone}` is no longer defined");
        let moved = Move {
            from: state.stage,
            to: state.stage,
            rule: &rule,
            named: &[],
            stage_days: (at - state.entered_at) as f64 / crate::time::DAY_MS as f64,
            visit,
            returned: false,
            action: lifecycle.action(variant, state.stage),
        };
        state.entered_at = at;
        slots.store(row, state);
        count(&mut self.tally.gone_stages, (k as u8, gone.into(), state.stage));
        let change = StageChange {
            customer_id: &customer.id,
            lifecycle: k,
            gone: Some(gone),
            moved: &moved,
            ts: at,
            trigger: Trigger::Definition,
            event_id: None,
            features,
            p_churn,
        };
        push_change(&mut self.outbox, &plan, row, &change);
    }
}
