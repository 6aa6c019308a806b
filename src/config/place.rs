//! Where a value came from, and what is wrong with it: problems are gathered and reported together.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// The layer and spot that gave a value. Layers stand in ascending order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    File {
        path: Arc<str>,
        line: usize,
    },
    Env(Arc<str>),
    /// The key of a `--set`, without its value, which may be a secret.
    Set(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line } => write!(f, "{path}:{line}"),
            Place::Env(name) => write!(f, "environment variable {name}"),
            Place::Set(key) => write!(f, "--set {key}"),
        }
    }
}

/// Everything that is wrong, in no order until it is told.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<(Option<Place>, String)>>);

impl Problems {
    pub fn add(&self, place: Option<&Place>, what: impl Into<String>) {
        self.0.borrow_mut().push((place.cloned(), what.into()));
    }

    /// One error for all problems, file first and by line; `Ok` when there are none.
    pub fn into_result(self) -> Result<(), Error> {
        let mut problems = self.0.into_inner();
        problems.sort();
        problems.dedup();
        let told: Vec<String> = problems
            .into_iter()
            .map(|(place, what)| match place {
                Some(place) => format!("{place}: {what}"),
                None => what,
            })
            .collect();
        match told.as_slice() {
            [] => Ok(()),
            [one] => Err(Error::user(one.clone())),
            many => Err(Error::user(format!(
                "the configuration has {} problems\n  {}",
                many.len(),
                many.join("\n  ")
            ))),
        }
    }
}
