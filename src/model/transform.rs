//! What is done to a feature before it is weighed: a closed list, and what each of its members means.

use serde::{Deserialize, Serialize};

/// No finite feature value counts for more than this, so that no event can make a score infinite.
pub const VALUE_MOST: f64 = 1e12;

/// What is done to a feature before it is weighed. Each gives a finite number for every input.
///
/// Where the effect of "it never happened" (+inf) cannot be read off the transform itself, +inf gives 0 and a
/// [`Transform::Never`] term carries it. Finite values count for at most ±[`VALUE_MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// x; +inf gives 0.
    Identity,
    /// ln(1 + x), and −ln(1 − x) below 0; +inf gives 0.
    Log1p,
    /// min(x, at); +inf gives `at`.
    Cap { at: f64 },
    /// `log1p` of min(x, at); +inf gives that of `at`.
    Log1pCap { at: f64 },
    /// min(x, cap) / cap, not below 0; +inf gives 1.
    Recency { cap: f64 },
    /// 1 for +inf, otherwise 0.
    Never,
    /// max(0, x − knot), for splines; +inf gives 0.
    Hinge { knot: f64 },
    /// The log odds of a probability, which is kept a millionth away from 0 and 1; +inf gives 0.
    Logit,
}

impl Transform {
    /// The definition. The scorer computes the same faster and is tested against this.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Transform::Identity => tame(x),
            Transform::Log1p => signed_log(tame(x)),
            Transform::Cap { at } => x.min(at).max(-VALUE_MOST),
            Transform::Log1pCap { at } => signed_log(x.min(at).max(-VALUE_MOST)),
            Transform::Recency { cap } => (x.min(cap) / cap).max(0.0),
            Transform::Never => f64::from(x == f64::INFINITY),
            Transform::Hinge { knot } => {
                if x.is_finite() {
                    (tame(x) - knot).max(0.0)
                } else {
                    0.0
                }
            }
            Transform::Logit => log_odds(x),
        }
    }

    /// The value at which the transform bends, where it has one.
    pub fn bend(self) -> Option<f64> {
        match self {
            Transform::Cap { at } | Transform::Log1pCap { at } => Some(at),
            Transform::Recency { cap } => Some(cap),
            Transform::Hinge { knot } => Some(knot),
            Transform::Identity | Transform::Log1p | Transform::Never | Transform::Logit => None,
        }
    }

    pub(super) fn bend_is_usable(self) -> bool {
        match (self, self.bend()) {
            (Transform::Hinge { .. }, Some(knot)) => (0.0..=VALUE_MOST).contains(&knot),
            (_, Some(at)) => at > 0.0 && at <= VALUE_MOST,
            (_, None) => true,
        }
    }

    /// A total order on transforms, for finding duplicates.
    pub(super) fn key(self) -> (u8, u64) {
        let kind = match self {
            Transform::Identity => 0,
            Transform::Log1p => 1,
            Transform::Cap { .. } => 2,
            Transform::Log1pCap { .. } => 3,
            Transform::Recency { .. } => 4,
            Transform::Never => 5,
            Transform::Hinge { .. } => 6,
            Transform::Logit => 7,
        };
        (kind, self.bend().unwrap_or(0.0).to_bits())
    }
}

/// A finite value within ±[`VALUE_MOST`]; 0 for what is not finite.
fn tame(x: f64) -> f64 {
    if x.is_finite() { x.clamp(-VALUE_MOST, VALUE_MOST) } else { 0.0 }
}

/// ln(p / (1 − p)), by the pure-Rust logarithm.
fn log_odds(p: f64) -> f64 {
    const NEAREST: f64 = 1e-6;
    if p == f64::INFINITY {
        return 0.0;
    }
    // `max` and `min` leave no NaN.
    let p = p.max(NEAREST).min(1.0 - NEAREST);
    libm::log(p / (1.0 - p))
}

/// ln(1 + |x|) with the sign of x. The pure-Rust logarithm, so that scores are the same bytes everywhere.
pub(super) fn signed_log(x: f64) -> f64 {
    libm::log(1.0 + x.abs()).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: [f64; 9] = [f64::NEG_INFINITY, -1e300, -2.0, 0.0, 0.5, 3.0, 90.0, 1e300, f64::INFINITY];

    #[test]
    fn every_transform_gives_a_finite_number_for_every_input() {
        for transform in [
            Transform::Identity,
            Transform::Log1p,
            Transform::Cap { at: 9.0 },
            Transform::Log1pCap { at: 9.0 },
            Transform::Recency { cap: 90.0 },
            Transform::Never,
            Transform::Hinge { knot: 2.0 },
            Transform::Logit,
        ] {
            for x in INPUTS {
                assert!(transform.apply(x).is_finite(), "{transform:?} of {x}");
            }
        }
    }

    #[test]
    fn transforms_mean_what_the_file_says() {
        let inf = f64::INFINITY;
        for (transform, x, value) in [
            (Transform::Identity, -2.5, -2.5),
            (Transform::Identity, inf, 0.0),
            (Transform::Log1p, 1.0, 2f64.ln()),
            (Transform::Log1p, -1.0, -(2f64.ln())),
            (Transform::Log1p, inf, 0.0),
            (Transform::Cap { at: 5.0 }, 7.0, 5.0),
            (Transform::Cap { at: 5.0 }, inf, 5.0),
            (Transform::Log1pCap { at: 5.0 }, inf, 6f64.ln()),
            (Transform::Log1pCap { at: 5.0 }, 1.0, 2f64.ln()),
            (Transform::Recency { cap: 90.0 }, 45.0, 0.5),
            (Transform::Recency { cap: 90.0 }, inf, 1.0),
            (Transform::Never, inf, 1.0),
            (Transform::Never, 1e300, 0.0),
            (Transform::Hinge { knot: 2.0 }, 5.0, 3.0),
            (Transform::Hinge { knot: 2.0 }, 1.0, 0.0),
            (Transform::Hinge { knot: 2.0 }, inf, 0.0),
            (Transform::Logit, 0.5, 0.0),
            (Transform::Logit, 0.8, 4f64.ln()),
            (Transform::Logit, 1.0, 999_999f64.ln()),
            (Transform::Logit, -3.0, -(999_999f64.ln())),
            (Transform::Logit, inf, 0.0),
        ] {
            assert!((transform.apply(x) - value).abs() < 1e-9, "{transform:?} of {x}");
        }
    }
}
