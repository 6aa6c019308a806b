//! Rules laid out flat: a decision is a walk over tests, each of which names the next; no allocation, no
//! recursion, no error while it runs.
//!
//! It evaluates at one instant only. When a truth may flip is the business of [`super::flips`].

use std::ops::Range;

use crate::pipeline::facts::{TraitValue, Traits};

use super::Facts;
use super::expr::{Arith, Cmp, Slot, Sum, Test, TextFn, TraitId, Truth, Word};

/// How many tests and numeric steps all rules of one variant may have together.
const MAX_STEPS: usize = 16_384;
/// How many numbers an expression may hold at once.
pub(super) const MAX_STACK: usize = 16;

/// Where a decision starts; at or above [`REJECT`] it is already made.
pub(super) type Entry = u16;
pub(super) const ACCEPT: Entry = u16::MAX;
pub(super) const REJECT: Entry = u16::MAX - 1;

/// Sides with more than one growing number in them count as equal when they are no further apart: rounding
/// makes even the difference of two lines of one slope jitter, and a truth must not jitter with it. (In days it
/// is a thousandth of a millisecond, and more than rounding does to a century.)
const JITTER: f64 = 1e-11;

/// All rules of one variant of a lifecycle.
#[derive(Debug, Default)]
pub(super) struct Program {
    steps: Vec<Step>,
    compounds: Vec<Compound>,
    numbers: Vec<NumberOp>,
    words: Vec<WordTest>,
    traits: Vec<Box<str>>,
    overflown: bool,
}

#[derive(Debug)]
struct Step {
    check: Check,
    yes: Entry,
    no: Entry,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// The common case: one number against a constant.
    Mark {
        slot: Slot,
        cmp: Cmp,
        than: f64,
    },
    Compound(u16),
    Words(u16),
    Has(TraitId),
    IsNumber(TraitId),
    IsFlag(TraitId, bool),
}

/// A comparison of two numeric expressions.
#[derive(Debug)]
pub(super) struct Compound {
    pub left: Range<u16>,
    pub right: Range<u16>,
    pub cmp: Cmp,
    /// More than one growing number takes part.
    pub jitters: bool,
}

impl Compound {
    pub(super) fn holds(&self, left: f64, right: f64) -> bool {
        if self.jitters && (left - right).abs() <= JITTER {
            return self.cmp.holds(0.0, 0.0);
        }
        self.cmp.holds(left, right)
    }
}

/// One step of a numeric expression in postfix order.
#[derive(Clone, Copy, Debug)]
pub(super) enum NumberOp {
    Const(f64),
    Slot(Slot),
    Trait(TraitId),
    Neg,
    Whole,
    Arith(Arith),
}

#[derive(Debug)]
enum WordTest {
    Compare(Cmp, Word, Word),
    Text(TextFn, Word, Word),
}

/// Where the numbers of one instant come from.
pub(super) trait Numbers {
    fn number(&self, slot: Slot) -> f64;
    fn traits(&self) -> &Traits;
}

impl Numbers for Facts<'_> {
    #[inline]
    fn number(&self, slot: Slot) -> f64 {
        match slot {
            Slot::Feature(id) => self.features.get(id.index()).copied().unwrap_or(f64::NAN),
            Slot::PChurn => self.p_churn,
            Slot::StageDays => self.stage_days,
        }
    }

    fn traits(&self) -> &Traits {
        self.traits
    }
}

impl Program {
    /// Whether the rule that starts at `entry` is true.
    #[inline]
    pub(super) fn holds(&self, entry: Entry, facts: &impl Numbers) -> bool {
        let mut at = entry;
        while at < REJECT {
            let step = &self.steps[usize::from(at)];
            at = if self.check(step.check, facts) { step.yes } else { step.no };
        }
        at == ACCEPT
    }

    #[inline]
    fn check(&self, check: Check, facts: &impl Numbers) -> bool {
        match check {
            Check::Mark { slot, cmp, than } => cmp.holds(facts.number(slot), than),
            Check::Compound(at) => self.compound_holds(at, facts),
            Check::Words(at) => self.words_hold(&self.words[usize::from(at)], facts.traits()),
            Check::Has(id) => self.trait_value(id, facts.traits()).is_some(),
            Check::IsNumber(id) => {
                matches!(self.trait_value(id, facts.traits()), Some(TraitValue::Number(_)))
            }
            Check::IsFlag(id, wanted) => {
                self.trait_value(id, facts.traits()) == Some(&TraitValue::Flag(wanted))
            }
        }
    }

    pub(super) fn compound(&self, at: u16) -> &Compound {
        &self.compounds[usize::from(at)]
    }

    pub(super) fn compound_holds(&self, at: u16, facts: &impl Numbers) -> bool {
        let compound = self.compound(at);
        compound.holds(self.number(&compound.left, facts), self.number(&compound.right, facts))
    }

    pub(super) fn ops(&self, range: &Range<u16>) -> &[NumberOp] {
        &self.numbers[usize::from(range.start)..usize::from(range.end)]
    }

    /// A trait as a number: NaN when it is missing or none.
    pub(super) fn trait_number(&self, id: TraitId, traits: &Traits) -> f64 {
        match self.trait_value(id, traits) {
            Some(TraitValue::Number(n)) => *n,
            _ => f64::NAN,
        }
    }

    fn trait_value<'t>(&self, id: TraitId, traits: &'t Traits) -> Option<&'t TraitValue> {
        traits.get(&*self.traits[usize::from(id.0)])
    }

    fn number(&self, range: &Range<u16>, facts: &impl Numbers) -> f64 {
        let mut stack = [0.0_f64; MAX_STACK];
        let mut top = 0;
        for op in self.ops(range) {
            match *op {
                NumberOp::Neg => stack[top - 1] = -stack[top - 1],
                NumberOp::Whole => stack[top - 1] = stack[top - 1].trunc(),
                NumberOp::Arith(arith) => {
                    top -= 1;
                    stack[top - 1] = arith.apply(stack[top - 1], stack[top]);
                }
                NumberOp::Const(_) | NumberOp::Slot(_) | NumberOp::Trait(_) => {
                    stack[top] = match *op {
                        NumberOp::Const(n) => n,
                        NumberOp::Slot(slot) => facts.number(slot),
                        NumberOp::Trait(id) => self.trait_number(id, facts.traits()),
                        NumberOp::Neg | NumberOp::Whole | NumberOp::Arith(_) => f64::NAN,
                    };
                    top += 1;
                }
            }
        }
        stack[0]
    }

    fn words_hold(&self, test: &WordTest, traits: &Traits) -> bool {
        match test {
            WordTest::Compare(cmp, a, b) => compare_words(*cmp, self.value(a, traits), self.value(b, traits)),
            WordTest::Text(text_fn, a, b) => match (self.value(a, traits), self.value(b, traits)) {
                (Value::Text(a), Value::Text(b)) => match text_fn {
                    TextFn::StartsWith => a.starts_with(b),
                    TextFn::EndsWith => a.ends_with(b),
                    TextFn::Contains => a.contains(b),
                },
                _ => false,
            },
        }
    }

    fn value<'t>(&'t self, word: &'t Word, traits: &'t Traits) -> Value<'t> {
        match word {
            Word::Null => Value::Null,
            Word::Text(text) => Value::Text(text),
            Word::Trait(id) => match self.trait_value(*id, traits) {
                None => Value::Null,
                Some(TraitValue::Text(text)) => Value::Text(text),
                Some(TraitValue::Number(n)) => Value::Number(*n),
                Some(TraitValue::Flag(flag)) => Value::Flag(*flag),
            },
        }
    }
}

#[derive(PartialEq)]
enum Value<'t> {
    Null,
    Text(&'t str),
    Number(f64),
    Flag(bool),
}

fn compare_words(cmp: Cmp, a: Value<'_>, b: Value<'_>) -> bool {
    match (cmp, a, b) {
        (_, Value::Number(a), Value::Number(b)) => cmp.holds(a, b),
        (Cmp::Eq, a, b) => a == b,
        (Cmp::Ne, a, b) => a != b,
        (Cmp::Lt, Value::Text(a), Value::Text(b)) => a < b,
        (Cmp::Le, Value::Text(a), Value::Text(b)) => a <= b,
        (Cmp::Gt, Value::Text(a), Value::Text(b)) => a > b,
        (Cmp::Ge, Value::Text(a), Value::Text(b)) => a >= b,
        _ => false,
    }
}

/// Compiling: every rule is added once, back to front, so that a test knows where to go on.
impl Program {
    /// Adds a rule and says where it starts. `grows` tells which numbers grow in silence.
    pub(super) fn add(&mut self, rule: &Truth, grows: &dyn Fn(Slot) -> bool) -> Entry {
        self.lay(rule, ACCEPT, REJECT, grows)
    }

    /// Closes the program; an error when the rules were too many or too deep.
    pub(super) fn finish(mut self, traits: Vec<Box<str>>) -> Result<Program, String> {
        if self.overflown {
            return Err(format!(
                "the rules are too large: at most {MAX_STEPS} comparisons in all, and {MAX_STACK} numbers \
                 open at once in one of them"
            ));
        }
        self.traits = traits;
        Ok(self)
    }

    fn lay(&mut self, truth: &Truth, yes: Entry, no: Entry, grows: &dyn Fn(Slot) -> bool) -> Entry {
        // Laying `Same` out doubles its second side: stop before that can take long.
        if self.overflown {
            return REJECT;
        }
        match truth {
            Truth::Const(true) => yes,
            Truth::Const(false) => no,
            Truth::Not(of) => self.lay(of, no, yes, grows),
            Truth::And(a, b) => {
                let then = self.lay(b, yes, no, grows);
                self.lay(a, then, no, grows)
            }
            Truth::Or(a, b) => {
                let otherwise = self.lay(b, yes, no, grows);
                self.lay(a, yes, otherwise, grows)
            }
            Truth::Same(a, b) => {
                let (if_so, if_not) = (self.lay(b, yes, no, grows), self.lay(b, no, yes, grows));
                self.lay(a, if_so, if_not, grows)
            }
            Truth::If(c, a, b) => {
                let (then, otherwise) = (self.lay(a, yes, no, grows), self.lay(b, yes, no, grows));
                self.lay(c, then, otherwise, grows)
            }
            Truth::Test(test) => {
                let check = self.check_of(test, grows);
                self.push(Step { check, yes, no })
            }
        }
    }

    fn push(&mut self, step: Step) -> Entry {
        if self.steps.len() >= MAX_STEPS || self.numbers.len() >= MAX_STEPS {
            self.overflown = true;
            return REJECT;
        }
        self.steps.push(step);
        (self.steps.len() - 1) as Entry
    }

    fn check_of(&mut self, test: &Test, grows: &dyn Fn(Slot) -> bool) -> Check {
        match test {
            Test::Numbers(cmp, Sum::Slot(slot), Sum::Const(than)) => {
                Check::Mark { slot: *slot, cmp: *cmp, than: *than }
            }
            Test::Numbers(cmp, left, right) => {
                let jitters = count_growing(left, grows) + count_growing(right, grows) > 1;
                let (left, right) = (self.flatten(left), self.flatten(right));
                self.compounds.push(Compound { left, right, cmp: *cmp, jitters });
                Check::Compound((self.compounds.len() - 1) as u16)
            }
            Test::Words(cmp, a, b) => self.word_test(WordTest::Compare(*cmp, a.clone(), b.clone())),
            Test::Text(text_fn, a, b) => self.word_test(WordTest::Text(*text_fn, a.clone(), b.clone())),
            Test::Has(id) => Check::Has(*id),
            Test::IsNumber(id) => Check::IsNumber(*id),
            Test::IsFlag(id, wanted) => Check::IsFlag(*id, *wanted),
        }
    }

    fn word_test(&mut self, test: WordTest) -> Check {
        self.words.push(test);
        Check::Words((self.words.len() - 1) as u16)
    }

    fn flatten(&mut self, sum: &Sum) -> Range<u16> {
        let start = self.numbers.len();
        self.emit(sum, 1);
        start as u16..self.numbers.len() as u16
    }

    fn emit(&mut self, sum: &Sum, depth: usize) {
        if depth > MAX_STACK || self.numbers.len() >= MAX_STEPS {
            self.overflown = true;
            return;
        }
        match sum {
            Sum::Const(n) => self.numbers.push(NumberOp::Const(*n)),
            Sum::Slot(slot) => self.numbers.push(NumberOp::Slot(*slot)),
            Sum::Trait(id) => self.numbers.push(NumberOp::Trait(*id)),
            Sum::Neg(of) => {
                self.emit(of, depth);
                self.numbers.push(NumberOp::Neg);
            }
            Sum::Whole(of) => {
                self.emit(of, depth);
                self.numbers.push(NumberOp::Whole);
            }
            Sum::Arith(arith, a, b) => {
                self.emit(a, depth);
                self.emit(b, depth + 1);
                self.numbers.push(NumberOp::Arith(*arith));
            }
        }
    }

    /// Every check that the rules which start at `entries` can come to.
    pub(super) fn reachable_checks(&self, entries: impl IntoIterator<Item = Entry>) -> Vec<Check> {
        let mut seen = vec![false; self.steps.len()];
        let mut open: Vec<Entry> = entries.into_iter().collect();
        let mut checks = Vec::new();
        while let Some(at) = open.pop() {
            if at >= REJECT || std::mem::replace(&mut seen[usize::from(at)], true) {
                continue;
            }
            let step = &self.steps[usize::from(at)];
            checks.push(step.check);
            open.extend([step.yes, step.no]);
        }
        checks
    }
}

fn count_growing(sum: &Sum, grows: &dyn Fn(Slot) -> bool) -> usize {
    match sum {
        Sum::Const(_) | Sum::Trait(_) => 0,
        Sum::Slot(slot) => usize::from(grows(*slot)),
        Sum::Neg(of) | Sum::Whole(of) => count_growing(of, grows),
        Sum::Arith(_, a, b) => count_growing(a, grows) + count_growing(b, grows),
    }
}
