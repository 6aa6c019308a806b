//! Lifecycles as written: stages, and rules that CEL's own interpreter decides. Section 3 of the contract.
//!
//! What moves a customer, and when, is the walk's; here is only what the rules say at an instant.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cel::objects::Value as CelValue;
use cel::{Context, Env, Program};
use serde_json::Value;
use stagecast::time::parse_span;

use super::features::View;

pub type Traits = BTreeMap<String, Value>;

pub struct Lifecycle {
    pub name: String,
    /// The index of the stage in which everybody starts.
    pub initial: usize,
    /// From the highest to the lowest priority.
    pub stages: Vec<Stage>,
}

pub struct Stage {
    pub name: String,
    pub enter: Rule,
    pub stay: Rule,
    /// The stages from which this one can be entered; `None`: from any.
    pub from: Option<Vec<String>>,
    /// Milliseconds.
    pub min_dwell: i64,
}

pub struct Rule {
    pub text: String,
    program: Program,
    /// The variables it names: features, `traits`, `stage_days`.
    pub names: BTreeSet<String>,
    /// Every number it mentions.
    pub literals: Vec<f64>,
}

impl Lifecycle {
    /// Reads a lifecycle file; panics on what this model cannot read.
    pub fn parse(text: &str) -> Self {
        let file: toml::Table = toml::from_str(text).expect("a lifecycle is TOML");
        assert!(!file.contains_key("override"), "overrides by trait are not modelled");
        let tables = file["stage"].as_array().expect("[[stage]]");
        let stages: Vec<Stage> = tables.iter().map(Stage::parse).collect();
        let initial = file["initial"].as_str().expect("initial = \"…\"");
        let known = |name: &str| stages.iter().position(|s| s.name == name);
        for from in stages.iter().flat_map(|s| s.from.iter().flatten()) {
            assert!(known(from).is_some(), "`from` names no stage: {from}");
        }
        Lifecycle {
            name: file["name"].as_str().expect("name = \"…\"").to_owned(),
            initial: known(initial).expect("`initial` names one of the stages"),
            stages,
        }
    }

    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.stages.iter().flat_map(|s| [&s.enter, &s.stay])
    }

    /// Whether `from` lets a customer go from one stage to another.
    pub fn leads(&self, from: usize, to: usize) -> bool {
        match &self.stages[to].from {
            None => true,
            Some(names) => names.contains(&self.stages[from].name),
        }
    }

    /// The rules whose truth can matter to a customer in `current`: whether it may stay, and where it may go.
    pub fn relevant(&self, current: usize) -> Vec<&Rule> {
        let rule = |i: usize| match i == current {
            true => Some(&self.stages[i].stay),
            false => self.leads(current, i).then_some(&self.stages[i].enter),
        };
        (0..self.stages.len()).filter_map(rule).collect()
    }
}

impl Stage {
    fn parse(table: &toml::Value) -> Self {
        let text = |key: &str| table.get(key).map(|v| v.as_str().expect("a string").to_owned());
        let names = |v: &toml::Value| -> Vec<String> {
            v.as_array()
                .expect("from is a list")
                .iter()
                .map(|v| v.as_str().expect("a name").to_owned())
                .collect()
        };
        let enter = text("enter").unwrap_or_else(|| "false".to_owned());
        Stage {
            name: text("name").expect("a stage has a name"),
            stay: Rule::parse(&text("stay").unwrap_or_else(|| enter.clone())),
            enter: Rule::parse(&enter),
            from: table.get("from").map(names),
            min_dwell: text("min_dwell").map_or(0, |span| parse_span(&span).expect("a span")),
        }
    }
}

impl Rule {
    fn parse(text: &str) -> Self {
        let program =
            Program::compile(&with_null_traits(text)).unwrap_or_else(|e| panic!("`{text}` is not CEL: {e}"));
        let names: BTreeSet<String> =
            program.references().variables().into_iter().map(str::to_owned).collect();
        Rule { text: text.to_owned(), literals: literals(text), program, names }
    }

    pub fn holds(&self, context: &Context) -> bool {
        match self.program.execute(context) {
            Ok(CelValue::Bool(truth)) => truth,
            other => panic!("`{}` is no truth value: {other:?}", self.text),
        }
    }
}

/// A rule whose comparisons `traits.x <op> <literal>` take a missing trait for null: equal to nothing that can
/// be written, different from everything, and in no order with anything.
fn with_null_traits(rule: &str) -> String {
    let Some((before, rest)) = rule.split_once("traits.") else { return rule.to_owned() };
    let name = &rest[..word_len(rest, |c| c.is_ascii_alphanumeric() || c == '_')];
    let tail = rest[name.len()..].trim_start();
    let op = &tail[..word_len(tail, |c| "=!<>".contains(c))];
    let value = tail[op.len()..].trim_start();
    let len = match value.strip_prefix('"') {
        Some(text) => 2 + text.find('"').expect("a string ends"),
        None => word_len(value, |c| c.is_ascii_digit() || c == '.'),
    };
    let (literal, after) = value.split_at(len);
    let known = format!("has(traits.{name})");
    let atom = match op {
        "!=" => format!("(!{known} || traits.{name} != {literal})"),
        op => format!("({known} && traits.{name} {op} {literal})"),
    };
    format!("{before}{atom}{}", with_null_traits(after))
}

/// What rules can see at an instant: the features they name and the customer's traits.
pub fn context(
    env: &Arc<Env>,
    names: &BTreeSet<String>,
    view: &View,
    traits: &Traits,
    p_churn: Option<f64>,
) -> Context<'static, 'static> {
    let mut context = Context::with_env(Arc::clone(env));
    for name in names {
        match name.as_str() {
            "traits" => {
                let traits: HashMap<String, CelValue> =
                    traits.iter().map(|(k, v)| (k.clone(), cel_value(v))).collect();
                context.add_variable_from_value("traits", traits);
            }
            "stage_days" => {} // differs by lifecycle; the walk adds it
            "p_churn" => {
                let p = p_churn.expect("a rule on p_churn needs a world with scores");
                context.add_variable_from_value("p_churn", p);
            }
            feature => context.add_variable_from_value(feature, view.get(feature)),
        }
    }
    context
}

fn cel_value(v: &Value) -> CelValue {
    match v {
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => n.as_f64().unwrap_or_default().into(),
        Value::String(s) => s.as_str().into(),
        other => panic!("a trait is a string, a number or a boolean, not {other}"),
    }
}

/// The numbers written in a rule: digits that belong neither to a name nor to a string.
pub fn literals(rule: &str) -> Vec<f64> {
    let mut found = Vec::new();
    let mut rest = rule;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '"' | '\'' => 2 + rest[1..].find(c).expect("a string ends"),
            c if c.is_ascii_alphabetic() || c == '_' => {
                word_len(rest, |c| c.is_ascii_alphanumeric() || c == '_')
            }
            c if c.is_ascii_digit() => {
                let len = word_len(rest, |c| c.is_ascii_digit() || c == '.');
                found.push(rest[..len].parse().expect("a plain number"));
                len
            }
            c => c.len_utf8(),
        };
        rest = &rest[len..];
    }
    found
}

fn word_len(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}
