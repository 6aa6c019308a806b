//! Moving one customer: which rules are true, where it settles, and when to look again.
//!
//! ```text
//!              enter(S) true, S lists the current stage in `from`,
//!              min_dwell of the current stage has passed
//!   current ───────────────────────────────────────────────────────▶ S, stage_days = 0, again
//!      │  ▲
//!      └──┘  stay(current) true and listed above S, or nothing is true
//! ```
//!
//! | what is true, in file order | dwell passed | then |
//! |---|---|---|
//! | `stay` of the current stage first | any | stays |
//! | `enter` of another, not yet visited at this instant | yes | moves there, looks again |
//! | `enter` of another | no | stays; the end of the dwell is an instant to look at |
//! | nothing | any | stays |
//!
//! Silence never moves a customer for ever. Rules that take turns by `stage_days > 0` would do so every
//! millisecond; so once silence has moved a customer, it lets it rest for a second in each stage, and after
//! 1,000 moves it asks for nothing more until the next event. (What other instants find is still acted upon.)

use crate::pipeline::facts::Traits;
use crate::time::{MAX_TS, SECOND_MS, Ts};

use super::flips::stage_line;
use super::{Facts, Lifecycle, Move, SilentTime, StageState, Variant};

/// How long silence lets a customer rest in a stage that silence brought it to.
pub const SILENT_REST_MS: i64 = SECOND_MS;
/// How often silence moves a customer between two events.
pub const SILENT_MOVES_MOST: u16 = 1_000;

impl Lifecycle {
    /// A customer's state before its first event is evaluated.
    pub fn start(&self, now: Ts) -> StageState {
        let mut visits = vec![0; self.stages.len()].into_boxed_slice();
        if let Some(first) = visits.get_mut(usize::from(self.initial)) {
            *first = 1;
        }
        StageState { stage: self.initial, entered_at: now, truths: 0, visits, silent_moves: 0 }
    }

    /// The variant that applies to a customer with these traits.
    pub fn variant(&self, traits: &Traits) -> usize {
        self.selectors.select(traits)
    }

    /// The truths that matter where the customer is: bit `i` is `stay` of stage `i` when it is the current
    /// one, else `enter` of a stage that may be entered from there, its dwell aside.
    pub fn truths(&self, variant: usize, state: &StageState, now: Ts, facts: &Facts<'_>) -> u64 {
        let facts = Facts { stage_days: stage_line(state.entered_at).at(now), ..*facts };
        self.truths_in(&self.variants[variant], state.stage, &facts)
    }

    fn truths_in(&self, variant: &Variant, stage: u8, facts: &Facts<'_>) -> u64 {
        let current = usize::from(stage);
        let mut truths = u64::from(variant.program.holds(variant.stages[current].stay, facts)) << current;
        let mut others = self.allowed[current];
        while others != 0 {
            let other = others.trailing_zeros() as usize;
            truths |= u64::from(variant.program.holds(variant.stages[other].enter, facts)) << other;
            others &= others - 1;
        }
        truths
    }

    /// Moves the customer until nothing moves, and remembers the truths that matter there.
    ///
    /// Sets `facts.stage_days` as it goes. A stage once left at this instant is not entered again at it.
    pub fn settle(
        &self,
        variant: usize,
        state: &mut StageState,
        now: Ts,
        facts: &mut Facts<'_>,
        mut on_move: impl FnMut(Move<'_>),
    ) {
        let variant = &self.variants[variant];
        let mut left = 0u64;
        loop {
            let current = usize::from(state.stage);
            facts.stage_days = stage_line(state.entered_at).at(now);
            state.truths = self.truths_in(variant, state.stage, facts);
            // Stages stand in order of priority, so that the lowest bit wins.
            let winner = (state.truths & !left).trailing_zeros() as usize;
            let dwelt = state.entered_at.saturating_add(variant.stages[current].min_dwell_ms) <= now;
            if winner == u64::BITS as usize || winner == current || !dwelt {
                return;
            }
            left |= 1 << current;
            on_move(self.enter(variant, state, winner, now, facts));
        }
    }

    fn enter<'a>(
        &self,
        variant: &'a Variant,
        state: &mut StageState,
        to: usize,
        now: Ts,
        facts: &Facts<'_>,
    ) -> Move<'a> {
        let returned = self.roles.was_customer(|stage| state.visits.get(stage).copied().unwrap_or(0));
        let from = std::mem::replace(&mut state.stage, to as u8);
        state.entered_at = now;
        let visit = state.visits.get_mut(to).map_or(1, |visits| {
            *visits = visits.saturating_add(1);
            *visits
        });
        let stage = &variant.stages[to];
        let holds = |bit: usize| usize::from(variant.program.holds(stage.reasons[bit], facts)) << bit;
        let told = &stage.told[(0..stage.reasons.len()).map(holds).sum::<usize>()];
        Move {
            from,
            to: to as u8,
            rule: &told.rule,
            named: &told.named,
            stage_days: facts.stage_days,
            visit,
            returned,
            action: stage.action.as_deref(),
        }
    }

    /// What to do about a customer in this stage.
    pub fn action(&self, variant: usize, stage: u8) -> Option<&str> {
        self.variants[variant].stages.get(usize::from(stage))?.action.as_deref()
    }

    /// When the current stage's `min_dwell` ends.
    pub fn dwell_end(&self, variant: usize, state: &StageState) -> Ts {
        let min_dwell_ms = self.variants[variant].stages[usize::from(state.stage)].min_dwell_ms;
        state.entered_at.saturating_add(min_dwell_ms)
    }

    /// From when on silence may move the customer again.
    fn rest_end(state: &StageState) -> Ts {
        match state.silent_moves {
            0 => state.entered_at,
            1..SILENT_MOVES_MOST => state.entered_at.saturating_add(SILENT_REST_MS),
            _ => Ts::MAX,
        }
    }

    /// Whether an instant of silence asks for [`Lifecycle::settle`]: a truth has flipped since the customer
    /// settled, or the dwell ends right now. While the customer rests (see the module) it asks for nothing.
    pub fn is_due(&self, variant: usize, state: &StageState, now: Ts, facts: &Facts<'_>) -> bool {
        let rest_end = Self::rest_end(state);
        if now < rest_end {
            return false;
        }
        let dwell_end = self.dwell_end(variant, state);
        let dwell_ends = dwell_end > state.entered_at && dwell_end.max(rest_end) == now;
        dwell_ends || self.truths(variant, state, now, facts) != state.truths
    }

    /// The earliest instant after `now` at which something may happen without an event: a truth that matters
    /// may flip, or the dwell ends. It may be too early, never too late.
    pub fn next_candidate(
        &self,
        variant: usize,
        state: &StageState,
        now: Ts,
        facts: &Facts<'_>,
        time: &dyn SilentTime,
    ) -> Option<Ts> {
        let rest_end = Self::rest_end(state);
        if now < rest_end {
            // What flips meanwhile is seen when the rest ends.
            return Some(rest_end).filter(|t| *t <= MAX_TS);
        }
        let dwell_end = Some(self.dwell_end(variant, state)).filter(|t| *t > now && *t <= MAX_TS);
        let variant = &self.variants[variant];
        let watch = &variant.watches[usize::from(state.stage)];
        let flip = watch.next(&variant.program, now, state.entered_at, facts, time);
        [dwell_end, flip].into_iter().flatten().min()
    }
}
