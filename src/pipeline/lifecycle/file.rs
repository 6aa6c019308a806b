//! What a lifecycle file says, key by key, with the line of each key.
//!
//! It checks keys and the types of values. What the values mean together (names, rules, reachability) is
//! checked by [`super::build`].

use sha2::{Digest, Sha256};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::did_you_mean;
use crate::time::parse_span;

use super::problems::Problems;

const FILE_KEYS: [&str; 7] = ["name", "initial", "version", "traits", "thresholds", "stage", "override"];
const STAGE_KEYS: [&str; 8] = ["name", "enter", "stay", "from", "min_dwell", "action", "reasons", "customer"];
const PATCH_KEYS: [&str; 4] = ["enter", "stay", "min_dwell", "action"];
/// Hex digits of the content's hash that make a version.
const VERSION_DIGITS: usize = 12;

/// A value and the line of its key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At<T> {
    pub line: usize,
    pub value: T,
}

#[derive(Debug, Default)]
pub(super) struct File {
    pub name: Option<At<String>>,
    pub initial: Option<At<String>>,
    /// As written, else a hash of the content that comments, blanks and the order of keys do not change.
    pub version: String,
    /// That hash, whatever `version` says.
    pub definition: String,
    pub traits: Vec<At<String>>,
    pub thresholds: Vec<(At<String>, f64)>,
    pub stages: Vec<StageText>,
    /// In file order, which is their priority.
    pub overrides: Vec<Override>,
}

#[derive(Debug)]
pub(super) struct StageText {
    pub name: At<String>,
    pub from: Option<At<Vec<String>>>,
    pub customer: bool,
    pub rules: Patch,
    /// What a move into the stage may be told with, and when each is true; in file order.
    pub reasons: Vec<(String, At<String>)>,
}

/// What a stage says and what an override may say differently.
#[derive(Clone, Debug, Default)]
pub(super) struct Patch {
    pub enter: Option<At<String>>,
    pub stay: Option<At<String>>,
    pub min_dwell_ms: Option<i64>,
    pub action: Option<String>,
}

/// `[override.TRAIT.VALUE]`
#[derive(Debug)]
pub(super) struct Override {
    pub line: usize,
    pub of_trait: String,
    pub value: String,
    pub thresholds: Vec<(At<String>, f64)>,
    pub stages: Vec<(At<String>, Patch)>,
}

/// Reads the text; what cannot be read becomes a problem.
pub(super) fn read(text: &str, problems: &mut Problems<'_>) -> File {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = problems.line_of(error.span().map_or(0, |span| span.start));
        problems.add(line, format!("not TOML: {}", error.message().replace('\n', ", ")));
    }
    let mut file = File::default();
    if errors.is_empty() {
        Reader { problems }.file(document.get_ref(), &mut file);
        file.definition = digest(document.get_ref());
        if file.version.is_empty() {
            file.version.clone_from(&file.definition);
        }
    }
    file
}

/// One `key = value` of a table.
struct Entry<'t> {
    line: usize,
    key: &'t str,
    value: &'t DeValue<'t>,
    at: usize,
}

struct Reader<'p, 'a> {
    problems: &'p mut Problems<'a>,
}

impl Reader<'_, '_> {
    fn file(&mut self, document: &DeTable<'_>, file: &mut File) {
        for e in self.entries(document) {
            match e.key {
                "name" => file.name = self.text(&e),
                "initial" => file.initial = self.text(&e),
                "version" => file.version = self.text(&e).map_or(String::new(), |v| v.value),
                "traits" => {
                    let names = self.list(&e).map_or(Vec::new(), |names| names.value);
                    file.traits = names.into_iter().map(|value| At { line: e.line, value }).collect();
                }
                "thresholds" => {
                    for threshold in self.table(&e) {
                        file.thresholds.extend(self.threshold(&threshold));
                    }
                }
                "stage" => self.stages(&e, &mut file.stages),
                "override" => self.overrides(&e, &mut file.overrides),
                _ => self.unknown(&e, "", FILE_KEYS),
            }
        }
    }

    /// The entries of a table in file order.
    fn entries<'t>(&self, table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
        let mut entries: Vec<Entry<'t>> = table
            .iter()
            .map(|(key, value)| {
                let at = key.span().start;
                Entry { line: self.problems.line_of(at), key: key.get_ref(), value: value.get_ref(), at }
            })
            .collect();
        entries.sort_by_key(|e| e.at);
        entries
    }

    fn unknown<const N: usize>(&mut self, e: &Entry<'_>, of: &str, known: [&str; N]) {
        let near = did_you_mean(e.key, known);
        self.problems.add(e.line, format!("unknown key `{}`{of}{near}", e.key));
    }

    fn wrong(&mut self, e: &Entry<'_>, wanted: &str) {
        let found = e.value.type_str();
        self.problems.add(e.line, format!("`{}` must be {wanted}, found a TOML {found}", e.key));
    }

    fn text(&mut self, e: &Entry<'_>) -> Option<At<String>> {
        match e.value.as_str() {
            Some(text) if !text.trim().is_empty() => Some(At { line: e.line, value: text.to_string() }),
            Some(_) => {
                self.problems.add(e.line, format!("`{}` is empty", e.key));
                None
            }
            None => {
                self.wrong(e, "a string");
                None
            }
        }
    }

    fn list(&mut self, e: &Entry<'_>) -> Option<At<Vec<String>>> {
        let text = |v: &Spanned<DeValue<'_>>| v.get_ref().as_str().map(str::to_string);
        let texts: Option<Vec<String>> = e.value.as_array().and_then(|list| list.iter().map(text).collect());
        if texts.is_none() {
            self.wrong(e, "a list of strings");
        }
        texts.map(|value| At { line: e.line, value })
    }

    fn table<'t>(&mut self, e: &Entry<'t>) -> Vec<Entry<'t>> {
        match e.value.as_table() {
            Some(table) => self.entries(table),
            None => {
                self.wrong(e, "a table");
                Vec::new()
            }
        }
    }

    fn threshold(&mut self, e: &Entry<'_>) -> Option<(At<String>, f64)> {
        match number(e.value) {
            Some(n) if !n.is_nan() => Some((At { line: e.line, value: e.key.to_string() }, n)),
            _ => {
                self.wrong(e, "a number");
                None
            }
        }
    }

    fn stages(&mut self, e: &Entry<'_>, stages: &mut Vec<StageText>) {
        let Some(array) = e.value.as_array() else {
            return self.wrong(e, "an array of tables; write [[stage]]");
        };
        for element in array.iter() {
            let line = self.problems.line_of(element.span().start);
            match element.get_ref().as_table() {
                Some(table) => stages.extend(self.stage(line, table)),
                None => self.problems.add(line, "`stage` must be an array of tables; write [[stage]]"),
            }
        }
    }

    fn stage(&mut self, line: usize, table: &DeTable<'_>) -> Option<StageText> {
        let (mut name, mut from, mut rules, mut reasons) = (None, None, Patch::default(), Vec::new());
        let (mut named, mut customer) = (false, false);
        for e in self.entries(table) {
            match e.key {
                "name" => {
                    named = true;
                    name = self.text(&e);
                }
                "from" => from = self.list(&e),
                "customer" => match e.value.as_bool() {
                    Some(says) => customer = says,
                    None => self.wrong(&e, "true or false"),
                },
                "reasons" => {
                    for reason in self.table(&e) {
                        reasons.extend(self.text(&reason).map(|rule| (reason.key.to_string(), rule)));
                    }
                }
                _ if self.patch(&e, &mut rules) => {}
                _ => self.unknown(&e, " of a stage", STAGE_KEYS),
            }
        }
        if !named {
            self.problems.add(line, "a stage has no `name`");
        }
        name.map(|name| StageText { name, from, customer, rules, reasons })
    }

    /// Whether the key is one that stages and overrides share; it has been read then.
    fn patch(&mut self, e: &Entry<'_>, patch: &mut Patch) -> bool {
        match e.key {
            "enter" => patch.enter = self.text(e),
            "stay" => patch.stay = self.text(e),
            "action" => patch.action = self.text(e).map(|action| action.value),
            "min_dwell" => {
                if let Some(text) = self.text(e) {
                    match parse_span(&text.value) {
                        Ok(ms) => patch.min_dwell_ms = Some(ms),
                        Err(what) => self.problems.add(e.line, format!("`min_dwell`: {what}")),
                    }
                }
            }
            _ => return false,
        }
        true
    }

    fn overrides(&mut self, e: &Entry<'_>, overrides: &mut Vec<Override>) {
        for of_trait in self.table(e) {
            for value in self.table(&of_trait) {
                let one = self.override_of(of_trait.key, &value);
                overrides.push(one);
            }
        }
        overrides.sort_by_key(|o| o.line);
    }

    /// A table in it is about a stage, anything else about a threshold.
    fn override_of(&mut self, of_trait: &str, e: &Entry<'_>) -> Override {
        let mut one = Override {
            line: e.line,
            of_trait: of_trait.to_string(),
            value: e.key.to_string(),
            thresholds: Vec::new(),
            stages: Vec::new(),
        };
        for inner in self.table(e) {
            if inner.value.is_table() {
                let mut patch = Patch::default();
                for key in self.table(&inner) {
                    if !self.patch(&key, &mut patch) {
                        self.unknown(&key, " of an override", PATCH_KEYS);
                    }
                }
                one.stages.push((At { line: inner.line, value: inner.key.to_string() }, patch));
            } else {
                one.thresholds.extend(self.threshold(&inner));
            }
        }
        one
    }
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n as f64),
        DeValue::Float(n) => n.as_str().parse().ok(),
        _ => None,
    }
}

/// The first digits of the SHA-256 of the content, written in one canonical way.
fn digest(document: &DeTable<'_>) -> String {
    let mut text = String::new();
    canonical_table(document, false, &mut text);
    let hash = Sha256::digest(text.as_bytes());
    let mut hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(VERSION_DIGITS);
    hex
}

/// Keys in order of name, except below `override` and `reasons`, whose order in the file means something.
fn canonical_table(table: &DeTable<'_>, in_file_order: bool, out: &mut String) {
    let mut entries: Vec<_> = table.iter().collect();
    if in_file_order {
        entries.sort_by_key(|(key, _)| key.span().start);
    } else {
        entries.sort_by(|(a, _), (b, _)| a.get_ref().cmp(b.get_ref()));
    }
    out.push('{');
    for (key, value) in entries {
        let name: &str = key.get_ref();
        out.push_str(&format!("{name:?}="));
        canonical(value.get_ref(), in_file_order || matches!(name, "override" | "reasons"), out);
        out.push(',');
    }
    out.push('}');
}

fn canonical(value: &DeValue<'_>, in_file_order: bool, out: &mut String) {
    match value {
        DeValue::Table(table) => canonical_table(table, in_file_order, out),
        DeValue::Array(array) => {
            out.push('[');
            for element in array.iter() {
                canonical(element.get_ref(), in_file_order, out);
                out.push(',');
            }
            out.push(']');
        }
        DeValue::String(text) => out.push_str(&format!("{:?}", &**text)),
        DeValue::Boolean(flag) => out.push_str(&flag.to_string()),
        DeValue::Datetime(instant) => out.push_str(&instant.to_string()),
        DeValue::Integer(_) | DeValue::Float(_) => out.push_str(&format!("{:?}", number(value))),
    }
}
