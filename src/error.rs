//! The one error type that reaches a person, and its exit code.
//!
//! Bad records are values ([`crate::event::Reject`]), not errors. An error here ends a command: it says what
//! is wrong, where, and what to do about it, in one sentence each.

use std::fmt;
use std::path::Path;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Wrong usage, configuration, lifecycle, feature or model file, or topic layout: exit code 2.
    User,
    /// The world did not play along (a broker, a disk) or a check failed: exit code 1.
    World,
}

/// An error with the place it concerns and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub blame: Blame,
    /// What is wrong, and where: one sentence without a full stop.
    pub what: String,
    /// What to do, where there is something to do.
    pub hint: Option<String>,
}

impl Error {
    /// Wrong usage or configuration (exit code 2).
    pub fn user(what: impl Into<String>) -> Self {
        Error { blame: Blame::User, what: what.into(), hint: None }
    }

    /// A failure of the surroundings (exit code 1).
    pub fn world(what: impl Into<String>) -> Self {
        Error { blame: Blame::World, what: what.into(), hint: None }
    }

    /// A file that could not be read or written (exit code 1).
    pub fn io(doing: &str, path: &Path, source: &std::io::Error) -> Self {
        Error::world(format!("cannot {doing} {}: {source}", path.display()))
    }

    /// One error that tells all of several problems; the blame is the user's where any of it is.
    pub fn all_of(mut problems: Vec<Error>) -> Self {
        if problems.len() == 1 {
            return problems.remove(0);
        }
        let what: Vec<String> = problems.iter().map(Error::to_string).collect();
        let blame = if problems.iter().any(|p| p.blame == Blame::User) { Blame::User } else { Blame::World };
        Error { blame, what: what.join("\n"), hint: None }
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// 2 for wrong usage or configuration, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self.blame {
            Blame::User => 2,
            Blame::World => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// " (did you mean `x`?)" for the known name nearest to `unknown`, or nothing when none is near.
pub fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let best = known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(unknown, k), k))
        .min_by_key(|(distance, _)| *distance);
    match best {
        Some((distance, k)) if distance <= 1 + unknown.chars().count() / 3 => {
            format!(" (did you mean `{k}`?)")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_offered_only_when_near() {
        assert_eq!(did_you_mean("orders_9d", ["orders_90d", "clicks_1d"]), " (did you mean `orders_90d`?)");
        assert_eq!(did_you_mean("zebra", ["orders_90d", "clicks_1d"]), "");
    }

    #[test]
    fn blame_decides_the_exit_code() {
        assert_eq!(Error::user("x").exit_code(), 2);
        assert_eq!(Error::world("x").hint("do y").exit_code(), 1);
    }
}
