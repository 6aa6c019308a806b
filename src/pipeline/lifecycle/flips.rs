//! When a truth can flip while its customer does nothing.
//!
//! Per stage a customer can be in, [`Watch`] lists what moves in the rules that matter there: numbers compared
//! with constants (solved exactly), windows (their owner knows when they change), and other comparisons
//! (solved where they are linear or a ratio of linear things, looked at every hour where they are not).
//! An instant given here may turn out to change nothing; none is missed.

use std::collections::{BTreeMap, BTreeSet};

use crate::pipeline::facts::{FeatureId, FeatureNames, Line, Motion, Traits};
use crate::time::{DAY_MS, HOUR_MS, MAX_TS, Ts};

use super::expr::{Arith, Cmp, Slot};
use super::program::{Check, Entry, MAX_STACK, NumberOp, Numbers, Program};
use super::{Facts, SilentTime};

/// The line along which `stage_days` grows.
pub(super) fn stage_line(entered_at: Ts) -> Line {
    Line { zero: entered_at, scale: DAY_MS as f64 }
}

/// Whether a number grows with time alone.
pub(super) fn grows(slot: Slot, names: &dyn FeatureNames) -> bool {
    match slot {
        Slot::Feature(id) => names.motion(id) == Motion::Linear,
        Slot::StageDays => true,
        Slot::PChurn => false,
    }
}

/// What moves in silence in the rules that matter in one stage.
#[derive(Debug, Default)]
pub(super) struct Watch {
    timers: Box<[Timer]>,
    windows: Box<[FeatureId]>,
    compounds: Box<[u16]>,
}

/// A growing number and the constants it is compared with, smallest first.
#[derive(Debug)]
struct Timer {
    slot: Slot,
    marks: Box<[Mark]>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Mark {
    than: f64,
    cmp: Cmp,
}

impl Mark {
    /// Of two marks at one constant, the order in which a growing number flips them.
    fn order(&self) -> u8 {
        match self.cmp {
            Cmp::Lt | Cmp::Ge => 0,
            Cmp::Eq | Cmp::Ne => 1,
            Cmp::Le | Cmp::Gt => 2,
        }
    }
}

impl Watch {
    pub(super) fn new(
        program: &Program,
        entries: impl IntoIterator<Item = Entry>,
        names: &dyn FeatureNames,
    ) -> Watch {
        let mut marks: BTreeMap<Slot, Vec<Mark>> = BTreeMap::new();
        let (mut windows, mut compounds) = (BTreeSet::new(), BTreeSet::new());
        let mut see_window = |slot: Slot| match slot {
            Slot::Feature(id) if names.motion(id) == Motion::Windowed => {
                windows.insert(id);
            }
            _ => {}
        };
        for check in program.reachable_checks(entries) {
            match check {
                Check::Mark { slot, cmp, than } => {
                    see_window(slot);
                    if grows(slot, names) && !than.is_nan() {
                        marks.entry(slot).or_default().push(Mark { than, cmp });
                    }
                }
                Check::Compound(at) => {
                    let compound = program.compound(at);
                    let ops = program.ops(&compound.left).iter().chain(program.ops(&compound.right));
                    for slot in ops.filter_map(|op| if let NumberOp::Slot(s) = op { Some(*s) } else { None })
                    {
                        see_window(slot);
                        if grows(slot, names) {
                            compounds.insert(at);
                        }
                    }
                }
                Check::Words(_) | Check::Has(_) | Check::IsNumber(_) | Check::IsFlag(..) => {}
            }
        }
        Watch {
            timers: marks.into_iter().map(Timer::new).collect(),
            windows: windows.into_iter().collect(),
            compounds: compounds.into_iter().collect(),
        }
    }

    /// The earliest instant after `now` at which a truth may flip.
    pub(super) fn next(
        &self,
        program: &Program,
        now: Ts,
        entered_at: Ts,
        facts: &Facts<'_>,
        time: &dyn SilentTime,
    ) -> Option<Ts> {
        let ahead = Ahead { facts, time, entered_at, at: now };
        let mut earliest = Ts::MAX;
        for timer in &*self.timers {
            if let Some(line) = ahead.line(timer.slot) {
                earliest = earliest.min(timer.next(line, now).unwrap_or(Ts::MAX));
            }
        }
        for window in &*self.windows {
            let change = time.window_change(*window).filter(|t| *t > now);
            earliest = earliest.min(change.unwrap_or(Ts::MAX));
        }
        for at in &*self.compounds {
            earliest = earliest.min(next_of_compound(program, *at, &ahead).unwrap_or(Ts::MAX));
        }
        (earliest <= MAX_TS).then_some(earliest)
    }
}

impl Timer {
    fn new((slot, mut marks): (Slot, Vec<Mark>)) -> Timer {
        marks.sort_by(|a, b| a.than.total_cmp(&b.than).then(a.order().cmp(&b.order())));
        marks.dedup();
        Timer { slot, marks: marks.into() }
    }

    /// The first flip after `now`: of the constants not yet passed the smallest comes first.
    fn next(&self, line: Line, now: Ts) -> Option<Ts> {
        let value = line.at(now);
        if line.scale.is_nan() || line.scale <= 0.0 {
            // No slope to solve with: 0/0 turns infinite as soon as time moves, and then stays.
            let next = line.at(now + 1);
            let flips = self.marks.iter().any(|m| m.cmp.holds(value, m.than) != m.cmp.holds(next, m.than));
            return flips.then_some(now + 1);
        }
        self.marks.iter().filter(|mark| mark.than >= value).find_map(|mark| mark.flip(value, line, now))
    }
}

impl Mark {
    /// The first instant after `now` at which the comparison is other than at `now`, where the line has
    /// `value`, which has not passed the constant.
    fn flip(&self, value: f64, line: Line, now: Ts) -> Option<Ts> {
        let reached = |v: f64| v >= self.than;
        let passed = |v: f64| v > self.than;
        match self.cmp {
            Cmp::Lt | Cmp::Ge if value < self.than => first(line, self.than, now, reached),
            Cmp::Lt | Cmp::Ge => None,
            Cmp::Le | Cmp::Gt => first(line, self.than, now, passed),
            Cmp::Eq | Cmp::Ne if value < self.than => {
                first(line, self.than, now, reached).filter(|t| line.at(*t) == self.than)
            }
            Cmp::Eq | Cmp::Ne => first(line, self.than, now, passed),
        }
    }
}

/// The first instant after `now` whose value satisfies `is`, which once true stays true and turns true near
/// the constant `at`. The estimate is made by arithmetic, the answer by evaluating.
fn first(line: Line, at: f64, now: Ts, is: impl Fn(f64) -> bool) -> Option<Ts> {
    let span = at * line.scale;
    let until_max = (MAX_TS - line.zero) as f64;
    if span.is_nan() || span > until_max + 8.0 {
        return None;
    }
    let estimate = line.zero.saturating_add(span.ceil() as Ts);
    let start = (now + 1).max(estimate - 1);
    if (start == now + 1 || !is(line.at(start - 1)))
        && let Some(t) = (start..start + 4).find(|t| is(line.at(*t)))
    {
        return Some(t);
    }
    bisect(now, MAX_TS, |t| is(line.at(t)))
}

/// The first instant in (`lo`, `hi`] at which `is`, for an `is` that once true stays true; none if not at `hi`.
fn bisect(mut lo: Ts, mut hi: Ts, is: impl Fn(Ts) -> bool) -> Option<Ts> {
    if hi <= lo || !is(hi) {
        return None;
    }
    while hi - lo > 1 {
        let mid = lo + (hi - lo) / 2;
        if is(mid) {
            hi = mid;
        } else {
            lo = mid;
        }
    }
    Some(hi)
}

/// The facts as they will be at a later instant of silence, windows aside.
#[derive(Clone, Copy)]
struct Ahead<'a> {
    facts: &'a Facts<'a>,
    time: &'a dyn SilentTime,
    entered_at: Ts,
    at: Ts,
}

impl Ahead<'_> {
    fn line(&self, slot: Slot) -> Option<Line> {
        match slot {
            Slot::Feature(id) => self.time.line(id),
            Slot::StageDays => Some(stage_line(self.entered_at)),
            Slot::PChurn => None,
        }
    }

    fn at(self, at: Ts) -> Self {
        Ahead { at, ..self }
    }
}

impl Numbers for Ahead<'_> {
    fn number(&self, slot: Slot) -> f64 {
        self.line(slot).map_or_else(|| self.facts.number(slot), |line| line.at(self.at))
    }

    fn traits(&self) -> &Traits {
        self.facts.traits
    }
}

fn next_of_compound(program: &Program, at: u16, ahead: &Ahead<'_>) -> Option<Ts> {
    let compound = program.compound(at);
    let now = ahead.at;
    let next_hour = (now.div_euclid(HOUR_MS) + 1) * HOUR_MS;
    let truth = program.compound_holds(at, ahead);
    let flipped = |t: Ts| program.compound_holds(at, &ahead.at(t)) != truth;
    // Where a division by zero ends as soon as time moves on, the value before says nothing.
    if flipped(now + 1) {
        return Some(now + 1);
    }
    let left = ratio(program, program.ops(&compound.left), ahead);
    let right = ratio(program, program.ops(&compound.right), ahead);
    let Some(apart) = left.zip(right).and_then(|(l, r)| l.plus(r.times(-1.0))) else {
        return Some(next_hour);
    };
    let mut turns = [apart.zero(), apart.pole()];
    turns.sort_by(f64::total_cmp);
    turns.into_iter().filter(|turn| turn.is_finite()).find_map(|turn| flip_near(turn, now, flipped))
}

/// The first flip around `turn` milliseconds after `now`, where the exact difference is zero or has a pole.
fn flip_near(turn: f64, now: Ts, flipped: impl Fn(Ts) -> bool) -> Option<Ts> {
    if turn > (MAX_TS - now) as f64 || turn < -(HOUR_MS as f64) {
        return None;
    }
    let centre = now + turn.floor() as Ts;
    let before = (centre - 3).max(now);
    if (before == now || !flipped(before))
        && let Some(t) = (before + 1..=centre + 3).find(|t| flipped(*t))
    {
        return Some(t);
    }
    // Rounding, or a slope of years, moved it further than a few milliseconds.
    [64, 4_096, 262_144, HOUR_MS].into_iter().find_map(|width| {
        let (lo, hi) = ((centre - width).max(now), centre + width);
        if lo == now || !flipped(lo) { bisect(lo, hi, &flipped) } else { None }
    })
}

/// `(n0 + n1·x) / (d0 + d1·x)`, x being milliseconds after now: what a numeric expression is as long as only
/// time moves. A constant denominator is always 1.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    n0: f64,
    n1: f64,
    d0: f64,
    d1: f64,
}

impl Ratio {
    fn constant(value: f64) -> Ratio {
        Ratio { n0: value, n1: 0.0, d0: 1.0, d1: 0.0 }
    }

    fn line(line: Line, now: Ts) -> Ratio {
        Ratio { n0: line.at(now), n1: 1.0 / line.scale, d0: 1.0, d1: 0.0 }
    }

    fn is_constant(self) -> bool {
        self.n1 == 0.0 && self.d1 == 0.0
    }

    fn is_linear(self) -> bool {
        self.d1 == 0.0
    }

    fn zero(self) -> f64 {
        -self.n0 / self.n1
    }

    fn pole(self) -> f64 {
        -self.d0 / self.d1
    }

    fn times(self, by: f64) -> Ratio {
        Ratio { n0: self.n0 * by, n1: self.n1 * by, ..self }
    }

    fn plus(self, other: Ratio) -> Option<Ratio> {
        if self.is_linear() && other.is_linear() {
            return Some(Ratio { n0: self.n0 + other.n0, n1: self.n1 + other.n1, d0: 1.0, d1: 0.0 });
        }
        let (ratio, other) = if self.is_linear() { (other, self) } else { (self, other) };
        other.is_constant().then_some(Ratio {
            n0: ratio.n0 + other.n0 * ratio.d0,
            n1: ratio.n1 + other.n0 * ratio.d1,
            ..ratio
        })
    }

    /// Times a constant; an infinite or undefined one makes a constant of whatever no longer changes sign.
    fn scaled(self, by: f64) -> Option<Ratio> {
        if by.is_finite() {
            return Some(self.times(by));
        }
        let ahead = |turn: f64| turn > 0.0 && turn.is_finite();
        let just_after = (self.n0 + self.n1) / (self.d0 + self.d1);
        (!ahead(self.zero()) && !ahead(self.pole())).then(|| Ratio::constant(just_after * by))
    }

    fn over(self, by: Ratio) -> Option<Ratio> {
        if by.is_constant() {
            let inverse = 1.0 / by.n0;
            return if inverse.is_finite() && inverse != 0.0 {
                Some(Ratio { n0: self.n0 / by.n0, n1: self.n1 / by.n0, ..self })
            } else {
                self.scaled(inverse)
            };
        }
        if self.is_linear() && by.is_linear() {
            return Some(Ratio { n0: self.n0, n1: self.n1, d0: by.n0, d1: by.n1 });
        }
        self.is_constant().then_some(Ratio { n0: self.n0 * by.d0, n1: self.n0 * by.d1, d0: by.n0, d1: by.n1 })
    }

    fn combine(self, arith: Arith, other: Ratio) -> Option<Ratio> {
        match arith {
            _ if self.is_constant() && other.is_constant() => {
                Some(Ratio::constant(arith.apply(self.n0, other.n0)))
            }
            Arith::Add => self.plus(other),
            Arith::Sub => self.plus(other.times(-1.0)),
            Arith::Mul if other.is_constant() => self.scaled(other.n0),
            Arith::Mul if self.is_constant() => other.scaled(self.n0),
            Arith::Div => self.over(other),
            Arith::Mul | Arith::Rem => None,
        }
    }
}

/// A numeric expression as a function of time; `None` where it is no ratio of lines.
fn ratio(program: &Program, ops: &[NumberOp], ahead: &Ahead<'_>) -> Option<Ratio> {
    let mut stack = [Ratio::constant(0.0); MAX_STACK];
    let mut top = 0;
    for op in ops {
        match *op {
            NumberOp::Neg => stack[top - 1] = stack[top - 1].times(-1.0),
            NumberOp::Whole if stack[top - 1].is_constant() => {
                stack[top - 1] = Ratio::constant(stack[top - 1].n0.trunc());
            }
            NumberOp::Whole => return None,
            NumberOp::Arith(arith) => {
                top -= 1;
                stack[top - 1] = stack[top - 1].combine(arith, stack[top])?;
            }
            NumberOp::Const(n) => {
                stack[top] = Ratio::constant(n);
                top += 1;
            }
            NumberOp::Trait(id) => {
                stack[top] = Ratio::constant(program.trait_number(id, ahead.facts.traits));
                top += 1;
            }
            NumberOp::Slot(slot) => {
                stack[top] = match ahead.line(slot) {
                    Some(line) => Ratio::line(line, ahead.at),
                    None => Ratio::constant(ahead.facts.number(slot)),
                };
                top += 1;
            }
        }
    }
    Some(stack[0])
}
