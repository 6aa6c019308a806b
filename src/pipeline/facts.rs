//! What rules and models may look at: features by number, how each moves in silence, and traits.
//!
//! The catalogue gives every feature a [`FeatureId`]; lifecycles and models are compiled against
//! [`FeatureNames`] once and then read plain `f64` slices.

use std::collections::BTreeMap;

use crate::time::Ts;

/// The index of a feature in a feature vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureId(pub u16);

impl FeatureId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How a feature's value moves while its customer does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// Only an event changes it.
    Still,
    /// It may fall when a pane leaves a window, at a hop boundary.
    Windowed,
    /// It grows along a [`Line`].
    Linear,
}

/// A value that grows with time: `(t − zero) / scale`, both in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub zero: Ts,
    pub scale: f64,
}

impl Line {
    /// The value at `t`. Every evaluation of a linear feature is this expression, so that a flip computed
    /// ahead of time and the truth found at that instant agree to the bit. Only a state that is corrupt has instants so far
    /// apart that they saturate.
    pub fn at(self, t: Ts) -> f64 {
        t.saturating_sub(self.zero) as f64 / self.scale
    }
}

/// The feature catalogue as lifecycles and models see it.
pub trait FeatureNames {
    fn id(&self, name: &str) -> Option<FeatureId>;
    /// All names, in the order of their ids.
    fn names(&self) -> Vec<&str>;
    fn motion(&self, id: FeatureId) -> Motion;
}

/// A catalogue of which nothing is known but the names: a dataset's columns, or a model's features.
pub struct NamesOnly<'n>(pub &'n [String]);

impl FeatureNames for NamesOnly<'_> {
    fn id(&self, name: &str) -> Option<FeatureId> {
        let at = self.0.iter().position(|n| n == name)?;
        u16::try_from(at).ok().map(FeatureId)
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    fn motion(&self, _: FeatureId) -> Motion {
        Motion::Still
    }
}

/// The value of a trait (section 1 of the contract: string, number or boolean).
#[derive(Clone, Debug, PartialEq)]
pub enum TraitValue {
    Text(Box<str>),
    Number(f64),
    Flag(bool),
}

/// A customer's traits, in a fixed order so that equal traits are equal bytes.
pub type Traits = BTreeMap<Box<str>, TraitValue>;
