//! Everything that is wrong with one lifecycle file, gathered so that a person sees it all at once.
//!
//! It must not decide what is wrong; it only keeps, orders and words it.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// What rules may be made of; the hint beside any rule that cannot be read.
const RULES_ARE: &str = "a rule is CEL made of features, traits, thresholds, p_churn, stage_days, numbers, \
    texts, true, false, null and inf, with && || ! == != < <= > >= + - * / % ?: in [list], has(traits.x), \
    \"x\" in traits, startsWith, endsWith, contains, double() and int()";

/// The problems of one file, by line.
pub(super) struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    found: BTreeSet<(usize, String)>,
    explain_rules: bool,
}

impl<'a> Problems<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Problems { file, text, found: BTreeSet::new(), explain_rules: false }
    }

    /// The line of a byte of the file, counted from 1.
    pub(super) fn line_of(&self, byte: usize) -> usize {
        1 + self.text.bytes().take(byte).filter(|b| *b == b'\n').count()
    }

    pub(super) fn add(&mut self, line: usize, what: impl Into<String>) {
        self.found.insert((line, what.into()));
    }

    /// A problem of a rule's language, after which the reader wants to know what the language is.
    pub(super) fn add_unsupported(&mut self, line: usize, what: impl Into<String>) {
        self.explain_rules = true;
        self.add(line, what);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// One error that lists all of them, each with file and line.
    pub(super) fn into_error(self) -> Error {
        let lines: Vec<String> =
            self.found.iter().map(|(line, what)| format!("{}:{line}: {what}", self.file)).collect();
        let error = Error::user(lines.join("\n"));
        if self.explain_rules { error.hint(RULES_ARE) } else { error }
    }

    /// `made` when nothing is wrong, else the error.
    pub(super) fn result<T>(self, made: Option<T>) -> Result<T> {
        match made {
            Some(made) if self.is_empty() => Ok(made),
            _ => Err(self.into_error()),
        }
    }
}
