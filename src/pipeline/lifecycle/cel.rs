//! From the text of a rule to a typed [`Truth`]: parses CEL, resolves names, checks types.
//!
//! It reports every problem of a rule and gives nothing to run when there is one. It knows nothing of stages.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, Expr, LiteralValue, SelectExpr, operators as op};
use cel::{IdedExpr, Program};

use crate::error::did_you_mean;
use crate::pipeline::facts::{FeatureId, FeatureNames};

use super::expr::{Arith, Cases, Cmp, Scalar, Slot, Sum, Test, TextFn, TraitId, Truth, Word};

/// The longest rule, and the most alternatives that may meet in one comparison.
pub(super) const MAX_RULE_BYTES: usize = 4_096;
const MAX_CASES: usize = 64;
/// How many brackets may be open at once: the parser spends much stack on each, and a file must not be able to
/// exhaust it.
const MAX_OPEN_BRACKETS: usize = 10;
/// How many operators, selections and opened brackets: each may be one level of the syntax tree, as in
/// `a + b + c + …`, and trees are walked by recursion.
const MAX_OPERATORS: usize = 256;

/// Names that mean something in every rule and so cannot be given to a threshold or a trait.
pub(super) const SPECIAL_NAMES: [&str; 4] = ["p_churn", "stage_days", "traits", "inf"];

/// The names a rule may use.
pub(super) struct Scope<'a> {
    pub names: &'a dyn FeatureNames,
    pub thresholds: &'a [(Box<str>, f64)],
    /// Traits that may be named without `traits.`.
    pub bare_traits: &'a [Box<str>],
}

/// What rules turned out to read.
#[derive(Default)]
pub(super) struct Reads {
    pub features: BTreeSet<FeatureId>,
    pub traits: Vec<Box<str>>,
    pub p_churn: bool,
}

impl Reads {
    fn trait_id(&mut self, name: &str) -> TraitId {
        let at = self.traits.iter().position(|t| &**t == name).unwrap_or_else(|| {
            self.traits.push(name.into());
            self.traits.len() - 1
        });
        TraitId(at as u16)
    }
}

/// One thing wrong with a rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Complaint {
    pub what: String,
    /// It lies outside the supported part of CEL.
    pub unsupported: bool,
}

fn unsupported(what: impl Into<String>) -> Complaint {
    Complaint { what: what.into(), unsupported: true }
}

/// Reads the syntax of a rule.
pub(super) fn parse(source: &str) -> Result<IdedExpr, Complaint> {
    if source.trim().is_empty() {
        return Err(unsupported("the rule is empty"));
    }
    if source.len() > MAX_RULE_BYTES {
        return Err(unsupported(format!("the rule is longer than {MAX_RULE_BYTES} bytes")));
    }
    if most_open_brackets(source) > MAX_OPEN_BRACKETS {
        return Err(unsupported(format!("more than {MAX_OPEN_BRACKETS} brackets are open at once")));
    }
    if operators(source) > MAX_OPERATORS {
        return Err(unsupported(format!("the rule has more than {MAX_OPERATORS} operators")));
    }
    match Program::compile(source) {
        Ok(program) => Ok(program.expression().clone()),
        Err(errors) => {
            let first = errors.errors.first();
            let text = first.map_or("it cannot be read".to_string(), |e| {
                format!("{} (line {}, column {} of the rule)", e.msg, e.pos.0, e.pos.1)
            });
            Err(unsupported(format!("not CEL: {text}")))
        }
    }
}

fn most_open_brackets(source: &str) -> usize {
    let (mut open, mut most) = (0usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// An upper bound: what stands in texts counts too. A sign that is repeated (`&&`, `!!!`) is one.
fn operators(source: &str) -> usize {
    let bytes = source.as_bytes();
    let is_operator = |byte: u8| b"+-*/%<>=!&|?:.([{".contains(&byte);
    let begins = |at: usize| is_operator(bytes[at]) && !(at > 0 && bytes[at - 1] == bytes[at]);
    let signs = (0..bytes.len()).filter(|at| begins(*at)).count();
    signs + source.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| *word == "in").count()
}

/// Types a parsed rule; `reads` learns what it names.
pub(super) fn lower(rule: &IdedExpr, scope: &Scope<'_>, reads: &mut Reads) -> Result<Truth, Vec<Complaint>> {
    let mut lowering = Lowering { scope, reads, complaints: Vec::new() };
    let typed = lowering.expr(rule);
    let truth = match kind(&typed) {
        Kind::Number | Kind::Text | Kind::Null => {
            lowering.say(format!("the rule is a {}, not true or false", kind(&typed).name()));
            Truth::Const(false)
        }
        _ => lowering.truth(typed, "a rule"),
    };
    if lowering.complaints.is_empty() { Ok(truth) } else { Err(lowering.complaints) }
}

#[derive(Clone, Debug)]
enum Typed {
    Flag(Truth),
    Scalar(Cases<Scalar>),
    /// Already complained about.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flag,
    Number,
    Text,
    Null,
    /// A trait, or a mix that only a customer decides.
    Open,
    Broken,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Flag => "boolean",
            Kind::Number => "number",
            Kind::Text => "text",
            Kind::Null => "null",
            Kind::Open | Kind::Broken => "trait",
        }
    }
}

fn kind(typed: &Typed) -> Kind {
    match typed {
        Typed::Flag(_) => Kind::Flag,
        Typed::Broken => Kind::Broken,
        Typed::Scalar(cases) => {
            let mut kinds = cases.leaves().into_iter().map(kind_of_scalar);
            let first = kinds.next().unwrap_or(Kind::Open);
            if kinds.all(|k| k == first) { first } else { Kind::Open }
        }
    }
}

fn kind_of_scalar(scalar: &Scalar) -> Kind {
    match scalar {
        Scalar::Null => Kind::Null,
        Scalar::Text(_) => Kind::Text,
        Scalar::Trait(_) => Kind::Open,
        Scalar::Number(_) => Kind::Number,
    }
}

fn is(scalar: Scalar) -> Typed {
    Typed::Scalar(Cases::Is(scalar))
}

fn number(n: f64) -> Typed {
    is(Scalar::Number(Sum::Const(n)))
}

struct Lowering<'a, 'b> {
    scope: &'a Scope<'a>,
    reads: &'b mut Reads,
    complaints: Vec<Complaint>,
}

impl Lowering<'_, '_> {
    fn say(&mut self, what: impl Into<String>) -> Typed {
        self.complaints.push(Complaint { what: what.into(), unsupported: false });
        Typed::Broken
    }

    fn refuse(&mut self, what: impl std::fmt::Display) -> Typed {
        self.complaints.push(unsupported(format!("{what} is not supported in rules")));
        Typed::Broken
    }

    fn expr(&mut self, e: &IdedExpr) -> Typed {
        match &e.expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(_) => self.refuse("a macro over a list (all, exists, map, filter)"),
            Expr::List(_) => self.refuse("a list outside of `in`"),
            Expr::Map(_) => self.refuse("a map"),
            Expr::Struct(_) => self.refuse("a message"),
            Expr::Unspecified => self.refuse("an empty expression"),
        }
    }

    fn literal(&mut self, literal: &LiteralValue) -> Typed {
        match literal {
            LiteralValue::Boolean(b) => Typed::Flag(Truth::Const(*b.inner())),
            LiteralValue::Int(n) => number(*n.inner() as f64),
            LiteralValue::UInt(n) => number(*n.inner() as f64),
            LiteralValue::Double(n) => number(*n.inner()),
            LiteralValue::String(text) => is(Scalar::Text(text.inner().into())),
            LiteralValue::Null => is(Scalar::Null),
            LiteralValue::Bytes(_) => self.refuse("a byte string"),
        }
    }

    fn name(&mut self, name: &str) -> Typed {
        if let Some(id) = self.scope.names.id(name) {
            self.reads.features.insert(id);
            return is(Scalar::Number(Sum::Slot(Slot::Feature(id))));
        }
        if let Some((_, n)) = self.scope.thresholds.iter().find(|(t, _)| &**t == name) {
            return number(*n);
        }
        if self.scope.bare_traits.iter().any(|t| &**t == name) {
            return self.trait_named(name);
        }
        match name {
            "p_churn" => {
                self.reads.p_churn = true;
                is(Scalar::Number(Sum::Slot(Slot::PChurn)))
            }
            "stage_days" => is(Scalar::Number(Sum::Slot(Slot::StageDays))),
            "inf" => number(f64::INFINITY),
            "traits" => self.say("`traits` needs a name: traits.segment, or \"segment\" in traits"),
            unknown => self.unknown(unknown),
        }
    }

    fn unknown(&mut self, name: &str) -> Typed {
        let mut known = self.scope.names.names();
        known.extend(SPECIAL_NAMES);
        known.extend(self.scope.thresholds.iter().map(|(t, _)| &**t));
        known.extend(self.scope.bare_traits.iter().map(|t| &**t));
        let near = did_you_mean(name, known);
        let hint = if near.is_empty() { " (a trait is traits.NAME)" } else { &near };
        self.say(format!("unknown name `{name}`{hint}"))
    }

    fn trait_named(&mut self, name: &str) -> Typed {
        is(Scalar::Trait(self.reads.trait_id(name)))
    }

    fn select(&mut self, select: &SelectExpr) -> Typed {
        if let Expr::Select(inner) = &select.operand.expr
            && is_traits(&inner.operand)
        {
            let name = format!("{}.{}", inner.field, select.field);
            return self
                .refuse(format!("`traits.{name}` (a trait with a dot in its name is traits[\"{name}\"])"));
        }
        if !is_traits(&select.operand) {
            return self.refuse(format!("`.{}` on anything but `traits`", select.field));
        }
        if select.test {
            return Typed::Flag(Truth::Test(Test::Has(self.reads.trait_id(&select.field))));
        }
        self.trait_named(&select.field)
    }

    fn call(&mut self, call: &CallExpr) -> Typed {
        if let Some(target) = &call.target {
            return self.method(target, call);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (op::LOGICAL_AND, [a, b]) => self.logic("&&", a, b, Truth::and),
            (op::LOGICAL_OR, [a, b]) => self.logic("||", a, b, Truth::or),
            (op::LOGICAL_NOT, [a]) => {
                let a = self.expr(a);
                Typed::Flag(self.truth(a, "`!`").not())
            }
            (op::CONDITIONAL, [c, yes, no]) => self.conditional(c, yes, no),
            (op::NEGATE, [a]) => self.unary(a, "`-`", Sum::neg),
            ("double", [a]) => self.unary(a, "`double()`", |n| n),
            ("int", [a]) => self.unary(a, "`int()`", Sum::whole),
            (op::INDEX, [of, key]) => self.index(of, key),
            (op::IN, [a, list]) => self.is_in(a, list),
            (name, [a, b]) => match (comparison(name), arithmetic(name)) {
                (Some(cmp), _) => {
                    let (a, b) = (self.expr(a), self.expr(b));
                    self.compare(cmp, a, b)
                }
                (_, Some((arith, sign))) => self.arith(arith, sign, a, b),
                _ => self.refuse(format!("`{name}()`")),
            },
            (name, _) => self.refuse(format!("`{name}()`")),
        }
    }

    fn logic(&mut self, sign: &str, a: &IdedExpr, b: &IdedExpr, join: fn(Truth, Truth) -> Truth) -> Typed {
        let (a, b) = (self.expr(a), self.expr(b));
        let needs = format!("`{sign}`");
        let (a, b) = (self.truth(a, &needs), self.truth(b, &needs));
        Typed::Flag(join(a, b))
    }

    /// A truth of what `needs` one. A trait is true only when it is the boolean `true`.
    fn truth(&mut self, typed: Typed, needs: &str) -> Truth {
        match (kind(&typed), typed) {
            (_, Typed::Flag(truth)) => truth,
            (Kind::Open, Typed::Scalar(cases)) => cases.map(&mut scalar_is_true).into_truth(),
            (Kind::Broken, _) => Truth::Const(false),
            (other, _) => {
                self.say(format!("{needs} needs true or false, found a {}", other.name()));
                Truth::Const(false)
            }
        }
    }

    fn conditional(&mut self, c: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Typed {
        let (c, yes, no) = (self.expr(c), self.expr(yes), self.expr(no));
        let c = self.truth(c, "the condition of `?:`");
        match (yes, no) {
            (Typed::Scalar(yes), Typed::Scalar(no)) => {
                let kinds = (kind(&Typed::Scalar(yes.clone())), kind(&Typed::Scalar(no.clone())));
                if kinds.0 != kinds.1 && !kinds_mix(kinds.0, kinds.1) {
                    return self.branches_differ(kinds.0, kinds.1);
                }
                self.bounded(Cases::If(Box::new(c), Box::new(yes), Box::new(no)))
            }
            (Typed::Broken, _) | (_, Typed::Broken) => Typed::Broken,
            (yes, no) if [kind(&yes), kind(&no)].iter().all(|k| matches!(k, Kind::Flag | Kind::Open)) => {
                let (yes, no) = (self.truth(yes, "`?:`"), self.truth(no, "`?:`"));
                Typed::Flag(c.choose(yes, no))
            }
            (yes, no) => self.branches_differ(kind(&yes), kind(&no)),
        }
    }

    fn branches_differ(&mut self, a: Kind, b: Kind) -> Typed {
        self.say(format!("both sides of `:` must be of one type, found a {} and a {}", a.name(), b.name()))
    }

    fn bounded(&mut self, cases: Cases<Scalar>) -> Typed {
        if cases.leaves().len() > MAX_CASES {
            return self.say(format!("more than {MAX_CASES} alternatives of `?:` meet in one value"));
        }
        Typed::Scalar(cases)
    }

    /// Cases of numbers of what `needs` them; a trait that is none reads as NaN.
    fn numbers(&mut self, typed: Typed, needs: &str) -> Option<Cases<Sum>> {
        match (kind(&typed), typed) {
            (Kind::Number | Kind::Open, Typed::Scalar(cases)) => Some(cases.map(&mut scalar_as_number)),
            (Kind::Broken, _) => None,
            (other, _) => {
                self.say(format!("{needs} needs numbers, found a {}", other.name()));
                None
            }
        }
    }

    fn unary(&mut self, a: &IdedExpr, needs: &str, with: fn(Sum) -> Sum) -> Typed {
        let a = self.expr(a);
        match self.numbers(a, needs) {
            Some(cases) => Typed::Scalar(cases.map(&mut |n| Scalar::Number(with(n)))),
            None => Typed::Broken,
        }
    }

    fn arith(&mut self, arith: Arith, sign: &str, a: &IdedExpr, b: &IdedExpr) -> Typed {
        let (a, b) = (self.expr(a), self.expr(b));
        let needs = format!("`{sign}`");
        match (self.numbers(a, &needs), self.numbers(b, &needs)) {
            (Some(a), Some(b)) if a.leaves().len() * b.leaves().len() <= MAX_CASES => {
                Typed::Scalar(a.meet(&b, &mut |a, b| Scalar::Number(Sum::arith(arith, a, b))))
            }
            (Some(_), Some(_)) => {
                self.say(format!("more than {MAX_CASES} alternatives of `?:` meet in one value"))
            }
            _ => Typed::Broken,
        }
    }

    fn compare(&mut self, cmp: Cmp, a: Typed, b: Typed) -> Typed {
        let kinds = (kind(&a), kind(&b));
        match (a, b) {
            (Typed::Broken, _) | (_, Typed::Broken) => Typed::Broken,
            _ if cmp.is_ordering() && has_no_order(kinds.0, kinds.1) => {
                let odd = if has_no_order(kinds.0, kinds.0) { kinds.0 } else { kinds.1 };
                self.say(format!("`{}` cannot order a {}", cmp.sign(), odd.name()))
            }
            (Typed::Flag(a), Typed::Flag(b)) => Typed::Flag(equal_or_not(cmp, a.same(b))),
            (Typed::Flag(flag), Typed::Scalar(cases)) | (Typed::Scalar(cases), Typed::Flag(flag)) => {
                let other = kind(&Typed::Scalar(cases.clone()));
                if other != Kind::Open {
                    return self.say(format!("`{}` compares a boolean with a {}", cmp.sign(), other.name()));
                }
                let equal = cases.map(&mut |s| flag_equals(&flag, s)).into_truth();
                Typed::Flag(equal_or_not(cmp, equal))
            }
            (Typed::Scalar(a), Typed::Scalar(b)) => {
                if kinds.0 != kinds.1 && !kinds_mix(kinds.0, kinds.1) {
                    let (a, b) = (kinds.0.name(), kinds.1.name());
                    return self.say(format!("`{}` compares a {a} with a {b}", cmp.sign()));
                }
                if a.leaves().len() * b.leaves().len() > MAX_CASES {
                    return self.say(format!("more than {MAX_CASES} alternatives of `?:` meet in one value"));
                }
                Typed::Flag(a.meet(&b, &mut |a, b| compare_scalars(cmp, a, b)).into_truth())
            }
        }
    }

    fn index(&mut self, of: &IdedExpr, key: &IdedExpr) -> Typed {
        match (&key.expr, is_traits(of)) {
            (Expr::Literal(LiteralValue::String(name)), true) => self.trait_named(name.inner()),
            _ => self.refuse("`[…]` on anything but traits[\"name\"]"),
        }
    }

    fn is_in(&mut self, a: &IdedExpr, list: &IdedExpr) -> Typed {
        match (&a.expr, &list.expr) {
            (Expr::Literal(LiteralValue::String(name)), _) if is_traits(list) => {
                Typed::Flag(Truth::Test(Test::Has(self.reads.trait_id(name.inner()))))
            }
            (_, Expr::List(list)) if list.optional_indices.is_empty() => {
                let a = self.expr(a);
                let mut any = Truth::Const(false);
                for element in &list.elements {
                    let element = self.expr(element);
                    if !is_constant(&element) {
                        return self.refuse("`in` over a list of anything but literals");
                    }
                    if let Typed::Flag(equal) = self.compare(Cmp::Eq, a.clone(), element) {
                        any = any.or(equal);
                    }
                }
                Typed::Flag(any)
            }
            _ => self.refuse("`in` over anything but a list of literals or `traits`"),
        }
    }

    fn method(&mut self, target: &IdedExpr, call: &CallExpr) -> Typed {
        let text_fn = match call.func_name.as_str() {
            "startsWith" => TextFn::StartsWith,
            "endsWith" => TextFn::EndsWith,
            "contains" => TextFn::Contains,
            other => return self.refuse(format!("`.{other}()`")),
        };
        let name = &call.func_name;
        let [argument] = call.args.as_slice() else {
            return self.say(format!("`{name}` takes one text"));
        };
        let (target, argument) = (self.expr(target), self.expr(argument));
        match (self.words(target, name), self.words(argument, name)) {
            (Some(a), Some(b)) if a.leaves().len() * b.leaves().len() <= MAX_CASES => {
                let test = |a, b| Truth::Test(Test::Text(text_fn, a, b));
                Typed::Flag(a.meet(&b, &mut { test }).into_truth())
            }
            (Some(_), Some(_)) => {
                self.say(format!("more than {MAX_CASES} alternatives of `?:` meet in one value"))
            }
            _ => Typed::Broken,
        }
    }

    fn words(&mut self, typed: Typed, function: &str) -> Option<Cases<Word>> {
        match (kind(&typed), typed) {
            (Kind::Text | Kind::Open, Typed::Scalar(cases)) => Some(cases.map(&mut scalar_as_word)),
            (Kind::Broken, _) => None,
            (other, _) => {
                self.say(format!("`{function}` needs texts, found a {}", other.name()));
                None
            }
        }
    }
}

fn is_traits(e: &IdedExpr) -> bool {
    matches!(&e.expr, Expr::Ident(name) if name == "traits")
}

fn is_constant(typed: &Typed) -> bool {
    match typed {
        Typed::Flag(truth) => matches!(truth, Truth::Const(_)),
        Typed::Scalar(Cases::Is(Scalar::Number(n))) => matches!(n, Sum::Const(_)),
        Typed::Scalar(Cases::Is(scalar)) => !matches!(scalar, Scalar::Trait(_)),
        Typed::Scalar(Cases::If(..)) => false,
        // It has been complained about already.
        Typed::Broken => true,
    }
}

/// Whether two kinds may meet although they differ: only the customer's trait decides.
fn kinds_mix(a: Kind, b: Kind) -> bool {
    matches!(a, Kind::Open) || matches!(b, Kind::Open)
}

fn has_no_order(a: Kind, b: Kind) -> bool {
    [a, b].iter().any(|k| matches!(k, Kind::Flag | Kind::Null))
}

fn equal_or_not(cmp: Cmp, equal: Truth) -> Truth {
    if cmp == Cmp::Ne { equal.not() } else { equal }
}

fn scalar_is_true(scalar: Scalar) -> Truth {
    match scalar {
        Scalar::Trait(id) => Truth::Test(Test::IsFlag(id, true)),
        _ => Truth::Const(false),
    }
}

fn scalar_as_number(scalar: Scalar) -> Sum {
    match scalar {
        Scalar::Number(n) => n,
        Scalar::Trait(id) => Sum::Trait(id),
        Scalar::Null | Scalar::Text(_) => Sum::Const(f64::NAN),
    }
}

fn scalar_as_word(scalar: Scalar) -> Word {
    match scalar {
        Scalar::Text(text) => Word::Text(text),
        Scalar::Trait(id) => Word::Trait(id),
        Scalar::Null | Scalar::Number(_) => Word::Null,
    }
}

fn flag_equals(flag: &Truth, scalar: Scalar) -> Truth {
    match scalar {
        Scalar::Trait(id) => {
            flag.clone().choose(Truth::Test(Test::IsFlag(id, true)), Truth::Test(Test::IsFlag(id, false)))
        }
        _ => Truth::Const(false),
    }
}

/// Values of different kinds are unequal and have no order; a missing trait is null.
fn compare_scalars(cmp: Cmp, a: Scalar, b: Scalar) -> Truth {
    match (a, b) {
        (Scalar::Number(a), Scalar::Number(b)) => compare_numbers(cmp, a, b),
        (Scalar::Trait(id), Scalar::Number(n)) | (Scalar::Number(n), Scalar::Trait(id)) if cmp == Cmp::Ne => {
            let other_kind = Truth::Test(Test::IsNumber(id)).not();
            other_kind.or(compare_numbers(cmp, Sum::Trait(id), n))
        }
        (Scalar::Trait(id), Scalar::Number(n)) => compare_numbers(cmp, Sum::Trait(id), n),
        (Scalar::Number(n), Scalar::Trait(id)) => compare_numbers(cmp, n, Sum::Trait(id)),
        (Scalar::Number(_), _) | (_, Scalar::Number(_)) => Truth::Const(cmp == Cmp::Ne),
        (a, b) => Truth::Test(Test::Words(cmp, scalar_as_word(a), scalar_as_word(b))),
    }
}

fn compare_numbers(cmp: Cmp, a: Sum, b: Sum) -> Truth {
    match (a, b) {
        (Sum::Const(a), Sum::Const(b)) => Truth::Const(cmp.holds(a, b)),
        // The constant stands on the right, where the fast path looks for it.
        (Sum::Const(a), b) => Truth::Test(Test::Numbers(cmp.mirrored(), b, Sum::Const(a))),
        (a, b) => Truth::Test(Test::Numbers(cmp, a, b)),
    }
}

fn comparison(name: &str) -> Option<Cmp> {
    Some(match name {
        op::LESS => Cmp::Lt,
        op::LESS_EQUALS => Cmp::Le,
        op::GREATER => Cmp::Gt,
        op::GREATER_EQUALS => Cmp::Ge,
        op::EQUALS => Cmp::Eq,
        op::NOT_EQUALS => Cmp::Ne,
        _ => return None,
    })
}

fn arithmetic(name: &str) -> Option<(Arith, &'static str)> {
    Some(match name {
        op::ADD => (Arith::Add, "+"),
        op::SUBSTRACT => (Arith::Sub, "-"),
        op::MULTIPLY => (Arith::Mul, "*"),
        op::DIVIDE => (Arith::Div, "/"),
        op::MODULO => (Arith::Rem, "%"),
        _ => return None,
    })
}
