//! Brings the file, the environment and `--set` into one tree of values that know where they came from.
//!
//! It knows TOML and the spelling of each layer, not what the keys mean; [`super::kafka::normalise`] evens out
//! the spellings of librdkafka properties before layers are laid over each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kafka;
use super::place::{Place, Problems};

/// Prefix of the environment variables that are configuration; what follows is the path of a key.
const ENV_PREFIX: &str = "STAGECAST__";

pub type Table = BTreeMap<String, Node>;

/// A value, where it came from, and, for the layers that carry text, the text itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub value: Value,
    pub place: Place,
    pub raw: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
    /// A secret to be read from the file of this name.
    FromFile(String),
    /// A TOML value that no key takes: its name.
    Unusable(&'static str),
}

impl Node {
    /// "a number", for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "text",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::FromFile(_) => "a secret file",
            Value::Unusable(kind) => kind,
        }
    }
}

/// The layers on top of the built-in defaults, laid over each other.
pub fn merged(
    file: Option<(&str, &str)>,
    env: &[(String, String)],
    set: &[String],
    problems: &Problems,
) -> Table {
    let mut tree = file.map(|(path, text)| parse_file(path, text, problems)).unwrap_or_default();
    kafka::normalise(&mut tree, problems);
    for (path, node) in env_assignments(env).into_iter().chain(set_assignments(set, problems)) {
        assign(&mut tree, &path, node, problems);
    }
    tree
}

fn parse_file(path: &str, text: &str, problems: &Problems) -> Table {
    let name: Arc<str> = path.into();
    let at = |offset: usize| {
        let before = text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|b| **b == b'\n').count();
        Place::File { path: name.clone(), line }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return table_of(table.get_ref(), &at);
    }
    // What a broken file leaves over would only give rise to more complaints.
    for error in errors {
        let place = error.span().map(|span| at(span.start)).unwrap_or_else(|| at(0));
        problems.add(Some(&place), error.message());
    }
    Table::new()
}

fn table_of(table: &DeTable<'_>, at: &dyn Fn(usize) -> Place) -> Table {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key_text: &std::borrow::Cow<'_, str> = key.get_ref();
        let node = Node { value: value_of(value.get_ref(), at), place: at(key.span().start), raw: None };
        (key_text.to_string(), node)
    };
    table.iter().map(entry).collect()
}

fn value_of(value: &DeValue<'_>, at: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Integer(n),
            Err(_) => Value::Unusable("a number beyond 64 bits"),
        },
        DeValue::Float(x) => x.as_str().parse().map(Value::Float).unwrap_or(Value::Unusable("a number")),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(_) => Value::Unusable("a date"),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node {
                    value: value_of(item.get_ref(), at),
                    place: at(item.span().start),
                    raw: None,
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(table_of(table, at)),
    }
}

/// The keys that the environment sets, in the order of the variables' names so that the result is one.
fn env_assignments(env: &[(String, String)]) -> Vec<(Vec<String>, Node)> {
    let mut ours: Vec<_> = env
        .iter()
        .filter(|(name, _)| {
            name.get(..ENV_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(ENV_PREFIX))
        })
        .collect();
    ours.sort();
    ours.into_iter()
        .map(|(name, text)| {
            (
                path_of_variable(&name[ENV_PREFIX.len()..]),
                node_of_text(text, Place::Env(name.as_str().into())),
            )
        })
        .collect()
}

/// The path that a variable names, in whatever case it is written: currency codes are capitals, what users name
/// themselves stays as it is unless all of it is capitals, as variables are, and every other key is lower case.
fn path_of_variable(name: &str) -> Vec<String> {
    let written: Vec<&str> = name.split("__").collect();
    let path: Vec<String> = written.iter().map(|key| key.to_ascii_lowercase()).collect();
    let in_their_case = match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["money", "rates", code] => Some(code.to_ascii_uppercase()),
        ["source", _, "types", _] | ["alert", _, "segment", _] => written
            .last()
            .filter(|own| own.bytes().any(|b| b.is_ascii_lowercase()))
            .map(|own| (*own).to_owned()),
        _ => None,
    };
    match in_their_case {
        Some(key) => path.into_iter().take(written.len() - 1).chain([key]).collect(),
        None => path,
    }
}

fn set_assignments(set: &[String], problems: &Problems) -> Vec<(Vec<String>, Node)> {
    let mut assignments = Vec::new();
    for argument in set {
        match split_set(argument) {
            Some((key, path, text)) => assignments.push((path, node_of_text(text, Place::Set(key.into())))),
            None => {
                let key = argument.split('=').next().unwrap_or_default();
                problems.add(Some(&Place::Set(key.into())), "write --set key=value, with a key such as commit.interval or kafka.\"bootstrap.servers\"");
            }
        }
    }
    assignments
}

/// Splits `a."b.c"=value` into the key as written, its segments, and the value.
fn split_set(argument: &str) -> Option<(&str, Vec<String>, &str)> {
    let (mut path, mut segment, mut quote) = (Vec::new(), String::new(), None);
    for (at, c) in argument.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => segment.push(c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '.' | '=') => {
                let done = std::mem::take(&mut segment).trim().to_string();
                if done.is_empty() {
                    return None;
                }
                path.push(done);
                if c == '=' {
                    return Some((argument[..at].trim(), path, &argument[at + 1..]));
                }
            }
            (None, c) => segment.push(c),
        }
    }
    None
}

/// Text is read as a TOML value where it is one, and stands for itself otherwise.
fn node_of_text(text: &str, place: Place) -> Node {
    let value = match DeValue::parse(text.trim()) {
        Ok(value) => value_of(value.get_ref(), &|_| place.clone()),
        Err(_) => Value::Text(text.to_string()),
    };
    Node { value, place, raw: Some(text.into()) }
}

fn assign(tree: &mut Table, path: &[String], node: Node, problems: &Problems) {
    match path {
        [alert, which, rest @ ..] if alert == "alert" && !rest.is_empty() => {
            assign_to_alert(tree, which, rest, node, problems);
        }
        _ => {
            let mut layer = nested(path, node);
            kafka::normalise(&mut layer, problems);
            merge(tree, layer);
        }
    }
}

fn nested(path: &[String], node: Node) -> Table {
    match path {
        [] => Table::new(),
        [key] => Table::from([(key.clone(), node)]),
        [key, rest @ ..] => {
            let place = node.place.clone();
            let inner = Node { value: Value::Table(nested(rest, node)), place, raw: None };
            Table::from([(key.clone(), inner)])
        }
    }
}

/// `alert.churn.raise` by the policy's name, `alert.0.raise` by its place in the list.
fn assign_to_alert(tree: &mut Table, which: &str, rest: &[String], node: Node, problems: &Problems) {
    let place = node.place.clone();
    let alert = tree.entry("alert".into()).or_insert_with(|| default_alerts(&place));
    let Value::List(policies) = &mut alert.value else { return };
    let index = which.parse::<usize>().ok().or_else(|| policies.iter().position(|p| is_policy(p, which)));
    match index.and_then(|index| policies.get_mut(index)) {
        Some(Node { value: Value::Table(policy), .. }) => merge(policy, nested(rest, node)),
        _ => problems.add(
            Some(&place),
            format!("there is no alert policy `{which}`; name one by its `policy` or by its place, from 0"),
        ),
    }
}

/// The list that holds when no layer declares one: the default policy, all of whose keys have defaults.
fn default_alerts(place: &Place) -> Node {
    let node = |value| Node { value, place: place.clone(), raw: None };
    let name = node(Value::Text(super::AlertPolicy::default().policy));
    node(Value::List(vec![node(Value::Table(Table::from([("policy".into(), name)])))]))
}

fn is_policy(node: &Node, name: &str) -> bool {
    let Value::Table(table) = &node.value else { return false };
    match table.get("policy").map(|policy| &policy.value) {
        Some(Value::Text(policy)) => policy.eq_ignore_ascii_case(name),
        _ => false,
    }
}

/// Tables are laid over each other key by key; anything else replaces what was there.
fn merge(under: &mut Table, over: Table) {
    for (key, node) in over {
        match (under.get_mut(&key), node) {
            (Some(Node { value: Value::Table(below), .. }), Node { value: Value::Table(above), .. }) => {
                merge(below, above)
            }
            (_, node) => {
                under.insert(key, node);
            }
        }
    }
}
