//! Reads one section: each key once, by what it must be; whatever was not asked for is an unknown key.
//!
//! A key that cannot be read leaves its default standing and a problem behind, so that reading goes on and all
//! problems are told together.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::error::did_you_mean;
use crate::time::parse_span;

use super::layers::{Node, Table, Value};
use super::place::{Place, Problems};

/// What reading needs besides the values.
pub struct Context {
    pub problems: Problems,
    /// Paths in the file are relative to this folder …
    pub file_dir: PathBuf,
    /// … and paths from the environment and the command line to this one.
    pub cwd: PathBuf,
}

impl Context {
    pub fn resolve(&self, place: &Place, path: &str) -> PathBuf {
        match place {
            Place::File { .. } => self.file_dir.join(path),
            Place::Env(_) | Place::Set(_) => self.cwd.join(path),
        }
    }
}

/// A table of the configuration while it is being read.
pub struct Section<'a> {
    path: String,
    table: Option<&'a Table>,
    known: Vec<&'static str>,
    pub context: &'a Context,
}

impl<'a> Section<'a> {
    pub fn root(table: &'a Table, context: &'a Context) -> Self {
        Section { path: String::new(), table: Some(table), known: Vec::new(), context }
    }

    /// The table under `key`; absent is as good as empty.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let node = self.node(key);
        self.inside(self.path_of(key), node)
    }

    /// The tables listed under `key`, or `None` when the key is absent.
    pub fn sections(&mut self, key: &'static str) -> Option<Vec<Section<'a>>> {
        let node = self.node(key)?;
        let Value::List(items) = &node.value else {
            self.wrong(&node.place, key, &format!("expected [[{key}]] tables, found {}", node.kind()));
            return None;
        };
        let inner = |(i, item)| self.inside(format!("{}[{i}]", self.path_of(key)), Some(item));
        Some(items.iter().enumerate().map(inner).collect())
    }

    /// The value of `key` by `read`, or `default` where it is absent or wrong.
    pub fn get<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> T {
        let Some(node) = self.node(key) else { return default };
        read(node).unwrap_or_else(|message| {
            self.wrong(&node.place, key, &message);
            default
        })
    }

    /// The entries of a table whose keys are the operator's own, each by `read`; `None` when it is absent.
    pub fn entries<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str, &Node) -> Result<T, String>,
    ) -> Option<Vec<(String, T)>> {
        let table = self.section(key);
        let mut entries = Vec::new();
        for (name, node) in table.table? {
            match read(name, node) {
                Ok(value) => entries.push((name.clone(), value)),
                Err(message) => table.wrong(&node.place, name, &message),
            }
        }
        Some(entries)
    }

    /// Whether `key` is given, by any layer.
    pub fn has(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    pub fn place(&self, key: &str) -> Option<&'a Place> {
        self.table?.get(key).map(|node| &node.place)
    }

    pub fn nodes(&self) -> impl Iterator<Item = (&'a String, &'a Node)> + use<'a> {
        self.table.into_iter().flatten()
    }

    /// A problem with `key` that only shows beside another key.
    pub fn problem(&self, key: &str, message: &str) {
        let what = format!("`{}`: {message}", self.path_of(key));
        self.context.problems.add(self.place(key), what);
    }

    /// Complains about every key that nothing asked for.
    pub fn finish(self) {
        for (key, node) in self.nodes().filter(|(key, _)| !self.known.contains(&key.as_str())) {
            let nearest = match did_you_mean(key, self.known.iter().copied()) {
                nearest if nearest.is_empty() => format!("; known here are {}", self.known.join(", ")),
                nearest => nearest,
            };
            let what = format!("unknown key `{}`{nearest}", self.path_of(key));
            self.context.problems.add(Some(&node.place), what);
        }
    }

    pub fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key.contains('.')) {
            ("", _) => key.to_string(),
            (path, true) => format!("{path}.\"{key}\""),
            (path, false) => format!("{path}.{key}"),
        }
    }

    fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.table?.get(key)
    }

    fn inside(&self, path: String, node: Option<&'a Node>) -> Section<'a> {
        let table = match node {
            Some(Node { value: Value::Table(table), .. }) => Some(table),
            Some(node) => {
                let what = format!("`{path}`: expected a table, found {}", node.kind());
                self.context.problems.add(Some(&node.place), what);
                None
            }
            None => None,
        };
        Section { path, table, known: Vec::new(), context: self.context }
    }

    pub fn wrong(&self, place: &Place, key: &str, message: &str) {
        self.context.problems.add(Some(place), format!("`{}`: {message}", self.path_of(key)));
    }
}

pub fn text(node: &Node) -> Result<String, String> {
    match (&node.value, &node.raw) {
        (Value::Text(text), _) => Ok(text.clone()),
        (Value::List(_) | Value::Table(_), _) | (_, None) => {
            Err(format!("expected text, found {}", node.kind()))
        }
        (_, Some(raw)) => Ok(raw.to_string()),
    }
}

pub fn nonempty(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    if text.trim().is_empty() { Err("must not be empty".into()) } else { Ok(text) }
}

pub fn flag(node: &Node) -> Result<bool, String> {
    match &node.value {
        Value::Flag(flag) => Ok(*flag),
        _ => Err(format!("expected true or false, found {}", found(node))),
    }
}

/// A whole number within `range`.
pub fn whole(range: RangeInclusive<i64>) -> impl Fn(&Node) -> Result<i64, String> {
    move |node| match node.value {
        Value::Integer(n) if range.contains(&n) => Ok(n),
        _ => {
            let (low, high) = (range.start(), range.end());
            Err(format!("expected a whole number from {low} to {high}, found {}", found(node)))
        }
    }
}

pub fn number(node: &Node) -> Result<f64, String> {
    match node.value {
        Value::Float(x) if x.is_finite() => Ok(x),
        Value::Integer(n) => Ok(n as f64),
        _ => Err(format!("expected a number, found {}", found(node))),
    }
}

/// A share: a number from 0 to 1.
pub fn share(node: &Node) -> Result<f64, String> {
    match number(node)? {
        x if (0.0..=1.0).contains(&x) => Ok(x),
        x => Err(format!("expected a number from 0 to 1, found {x}")),
    }
}

/// A span of time within `range` of milliseconds, which `bounds` tells in words.
pub fn span(range: RangeInclusive<i64>, bounds: &'static str) -> impl Fn(&Node) -> Result<i64, String> {
    move |node| {
        let text = match (&node.value, &node.raw) {
            (Value::Text(text), _) => text.as_str(),
            (Value::Integer(0), _) => "0",
            (_, Some(raw)) => raw,
            (_, None) => {
                return Err(format!("expected a span of time such as \"24h\", found {}", found(node)));
            }
        };
        match parse_span(text)? {
            ms if range.contains(&ms) => Ok(ms),
            _ => Err(format!("expected a span of {bounds}, found `{text}`")),
        }
    }
}

/// A list of text; where a layer carries text, commas do as well as TOML.
pub fn texts(node: &Node) -> Result<Vec<String>, String> {
    match (&node.value, &node.raw) {
        (Value::List(items), _) => items.iter().map(nonempty).collect(),
        (Value::Table(_), _) | (_, None) => Err(format!("expected a list of text, found {}", node.kind())),
        (Value::Text(text), Some(_)) => Ok(comma_separated(text)),
        (_, Some(raw)) => Ok(comma_separated(raw)),
    }
}

pub fn numbers(node: &Node) -> Result<Vec<f64>, String> {
    match (&node.value, &node.raw) {
        (Value::List(items), _) => items.iter().map(number).collect(),
        (Value::Text(text), Some(_)) => comma_separated(text)
            .iter()
            .map(|item| item.parse().map_err(|_| format!("expected numbers, found `{text}`")))
            .collect(),
        _ => Err(format!("expected a list of numbers, found {}", found(node))),
    }
}

fn comma_separated(text: &str) -> Vec<String> {
    text.split(',').map(|item| item.trim().to_string()).filter(|item| !item.is_empty()).collect()
}

/// One of the names that Kafka allows for topics, groups and their like.
pub fn kafka_name(max_bytes: usize) -> impl Fn(&Node) -> Result<String, String> {
    move |node| {
        let name = text(node)?;
        let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !legal || name.is_empty() || name.len() > max_bytes || name == "." || name == ".." {
            return Err(format!(
                "Kafka takes 1 to {max_bytes} letters, digits, `.`, `_` and `-` here, found `{name}`"
            ));
        }
        Ok(name)
    }
}

pub fn address(node: &Node) -> Result<SocketAddr, String> {
    let text = text(node)?;
    text.parse().map_err(|_| {
        format!(
            "expected an IP address and a port such as \"127.0.0.1:9464\" or \"[::]:9464\", found `{text}`"
        )
    })
}

/// A path made independent of where the program runs; empty text stands for what ships with the program.
pub fn path_or_shipped(context: &Context) -> impl Fn(&Node) -> Result<Option<PathBuf>, String> {
    move |node| {
        let text = text(node)?;
        Ok((!text.is_empty()).then(|| context.resolve(&node.place, &text)))
    }
}

/// Whether text that may be a preset's name is the path of a file instead.
pub fn looks_like_path(text: &str) -> bool {
    text.contains(['/', '\\']) || Path::new(text).extension().is_some_and(|extension| extension == "toml")
}

/// The scalar itself where it is short, otherwise what it is.
fn found(node: &Node) -> String {
    match &node.value {
        Value::Text(text) if text.len() <= 40 => format!("`{text}`"),
        Value::Integer(n) => format!("{n}"),
        Value::Float(x) => format!("{x}"),
        Value::Flag(flag) => format!("{flag}"),
        _ => node.kind().to_string(),
    }
}
