//! A rule after type-checking and before it is laid out flat: what [`super::cel`] makes and
//! [`super::program`] compiles.
//!
//! Alternatives (`c ? a : b`) are lifted out of numbers and texts up to the comparison they stand in, so that a
//! [`Sum`] never branches and every truth is a decision over plain comparisons.

use crate::pipeline::facts::FeatureId;

/// A number that customers differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Feature(FeatureId),
    PChurn,
    StageDays,
}

/// The index of a trait's name in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraitId(pub u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cmp {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
}

impl Cmp {
    /// Whether it holds; a NaN on either side satisfies nothing, `!=` included.
    #[allow(clippy::double_comparisons)] // `a != b` would hold for a NaN
    pub(super) fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Cmp::Lt => a < b,
            Cmp::Le => a <= b,
            Cmp::Gt => a > b,
            Cmp::Ge => a >= b,
            Cmp::Eq => a == b,
            Cmp::Ne => a < b || a > b,
        }
    }

    /// The same comparison with its sides exchanged.
    pub(super) fn mirrored(self) -> Cmp {
        match self {
            Cmp::Lt => Cmp::Gt,
            Cmp::Le => Cmp::Ge,
            Cmp::Gt => Cmp::Lt,
            Cmp::Ge => Cmp::Le,
            same => same,
        }
    }

    pub(super) fn is_ordering(self) -> bool {
        !matches!(self, Cmp::Eq | Cmp::Ne)
    }

    pub(super) fn sign(self) -> &'static str {
        match self {
            Cmp::Lt => "<",
            Cmp::Le => "<=",
            Cmp::Gt => ">",
            Cmp::Ge => ">=",
            Cmp::Eq => "==",
            Cmp::Ne => "!=",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl Arith {
    pub(super) fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Arith::Add => a + b,
            Arith::Sub => a - b,
            Arith::Mul => a * b,
            Arith::Div => a / b,
            Arith::Rem => a % b,
        }
    }
}

/// A number without alternatives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sum {
    Const(f64),
    Slot(Slot),
    /// A trait read as a number: NaN when it is missing or is none.
    Trait(TraitId),
    Neg(Box<Sum>),
    /// `int()`: the part before the decimal point, as in CEL.
    Whole(Box<Sum>),
    Arith(Arith, Box<Sum>, Box<Sum>),
}

impl Sum {
    pub(super) fn neg(of: Sum) -> Sum {
        match of {
            Sum::Const(n) => Sum::Const(-n),
            other => Sum::Neg(Box::new(other)),
        }
    }

    pub(super) fn whole(of: Sum) -> Sum {
        match of {
            Sum::Const(n) => Sum::Const(n.trunc()),
            other => Sum::Whole(Box::new(other)),
        }
    }

    pub(super) fn arith(op: Arith, a: Sum, b: Sum) -> Sum {
        match (a, b) {
            (Sum::Const(a), Sum::Const(b)) => Sum::Const(op.apply(a, b)),
            (a, b) => Sum::Arith(op, Box::new(a), Box::new(b)),
        }
    }
}

/// A value without alternatives that is not a truth.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Text(Box<str>),
    Trait(TraitId),
    Number(Sum),
}

/// A text, a trait or null: what is compared by kind and value rather than as a number.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Null,
    Text(Box<str>),
    Trait(TraitId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextFn {
    StartsWith,
    EndsWith,
    Contains,
}

/// One comparison or look-up: what a decision is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Numbers(Cmp, Sum, Sum),
    Words(Cmp, Word, Word),
    Text(TextFn, Word, Word),
    Has(TraitId),
    IsNumber(TraitId),
    IsFlag(TraitId, bool),
}

/// A truth.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Truth {
    Const(bool),
    Test(Test),
    Not(Box<Truth>),
    And(Box<Truth>, Box<Truth>),
    Or(Box<Truth>, Box<Truth>),
    /// Both sides have the same truth.
    Same(Box<Truth>, Box<Truth>),
    If(Box<Truth>, Box<Truth>, Box<Truth>),
}

impl Truth {
    // Named for CEL's `!`; `std::ops::Not` would hide the allocation.
    #[allow(clippy::should_implement_trait)]
    pub(super) fn not(self) -> Truth {
        match self {
            Truth::Const(b) => Truth::Const(!b),
            other => Truth::Not(Box::new(other)),
        }
    }

    pub(super) fn and(self, other: Truth) -> Truth {
        Truth::And(Box::new(self), Box::new(other))
    }

    pub(super) fn or(self, other: Truth) -> Truth {
        Truth::Or(Box::new(self), Box::new(other))
    }

    pub(super) fn same(self, other: Truth) -> Truth {
        Truth::Same(Box::new(self), Box::new(other))
    }

    pub(super) fn choose(self, yes: Truth, no: Truth) -> Truth {
        Truth::If(Box::new(self), Box::new(yes), Box::new(no))
    }
}

/// A value that may depend on truths: the leaves are free of alternatives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cases<T> {
    Is(T),
    If(Box<Truth>, Box<Cases<T>>, Box<Cases<T>>),
}

impl<T> Cases<T> {
    pub(super) fn leaves(&self) -> Vec<&T> {
        match self {
            Cases::Is(leaf) => vec![leaf],
            Cases::If(_, yes, no) => {
                let mut all = yes.leaves();
                all.extend(no.leaves());
                all
            }
        }
    }

    pub(super) fn map<U>(self, with: &mut impl FnMut(T) -> U) -> Cases<U> {
        match self {
            Cases::Is(leaf) => Cases::Is(with(leaf)),
            Cases::If(c, yes, no) => Cases::If(c, Box::new(yes.map(with)), Box::new(no.map(with))),
        }
    }

    /// Every leaf of `self` met with every leaf of `other`, under the conditions of both.
    pub(super) fn meet<U: Clone, V>(self, other: &Cases<U>, with: &mut impl FnMut(T, U) -> V) -> Cases<V>
    where
        T: Clone,
    {
        match (self, other) {
            (Cases::If(c, yes, no), other) => {
                Cases::If(c, Box::new(yes.meet(other, with)), Box::new(no.meet(other, with)))
            }
            (Cases::Is(a), Cases::Is(b)) => Cases::Is(with(a, b.clone())),
            (Cases::Is(a), Cases::If(c, yes, no)) => Cases::If(
                c.clone(),
                Box::new(Cases::Is(a.clone()).meet(yes, with)),
                Box::new(Cases::Is(a).meet(no, with)),
            ),
        }
    }
}

impl Cases<Truth> {
    pub(super) fn into_truth(self) -> Truth {
        match self {
            Cases::Is(truth) => truth,
            Cases::If(c, yes, no) => c.choose(yes.into_truth(), no.into_truth()),
        }
    }
}
