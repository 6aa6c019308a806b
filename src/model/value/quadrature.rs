//! Expectations over a Beta distribution, by Gauss quadrature. Pure numbers; knows no customers.

/// Points of a rule. Eight give the expectations here to six digits.
pub const POINTS: usize = 8;
/// Halvings until a point is known as well as a double can tell.
const BISECTIONS: usize = 60;

/// Points in (0, 1) and their weights, which add up to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    pub points: [f64; POINTS],
    pub weights: [f64; POINTS],
}

impl Rule {
    /// The rule of Beta(a, b), for a and b above 0.
    pub fn beta(a: f64, b: f64) -> Rule {
        let recurrence = Recurrence::beta(a, b);
        let points = std::array::from_fn(|nth| recurrence.root(nth));
        Rule { points, weights: points.map(|x| recurrence.weight(x)) }
    }

    pub fn mean(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.points.iter().zip(self.weights).map(|(x, weight)| weight * f(*x)).sum()
    }
}

/// The three-term recurrence of the polynomials that are orthonormal under Beta(a, b): Jacobi's, moved to (0, 1).
struct Recurrence {
    middle: [f64; POINTS],
    /// Squares; the first is not used.
    side: [f64; POINTS],
}

impl Recurrence {
    fn beta(a: f64, b: f64) -> Recurrence {
        let sum = a + b;
        let middle = |k: f64| {
            if k == 0.0 {
                return a / sum;
            }
            let s = sum + 2.0 * k;
            (1.0 + (a - b) * (sum - 2.0) / ((s - 2.0) * s)) / 2.0
        };
        let side = |k: f64| {
            if k == 1.0 {
                return a * b / (sum * sum * (sum + 1.0));
            }
            let s = sum + 2.0 * k - 2.0;
            k * (k + b - 1.0) * (k + a - 1.0) * (k + sum - 2.0) / (s * s * (s + 1.0) * (s - 1.0))
        };
        Recurrence {
            middle: std::array::from_fn(|k| middle(k as f64)),
            side: std::array::from_fn(|k| if k == 0 { 0.0 } else { side(k as f64) }),
        }
    }

    /// The `nth` eigenvalue of the recurrence's matrix, from below: counted by Sturm's sequence, so that no
    /// starting point can lead astray.
    fn root(&self, nth: usize) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..BISECTIONS {
            let x = 0.5 * (low + high);
            if self.roots_below(x) > nth {
                high = x;
            } else {
                low = x;
            }
        }
        0.5 * (low + high)
    }

    fn roots_below(&self, x: f64) -> usize {
        let (mut pivot, mut below) = (1.0f64, 0);
        for (middle, side) in self.middle.iter().zip(self.side) {
            pivot = middle - x - side / pivot;
            if pivot == 0.0 {
                pivot = f64::MIN_POSITIVE;
            }
            below += usize::from(pivot < 0.0);
        }
        below
    }

    /// Christoffel's number.
    fn weight(&self, x: f64) -> f64 {
        let (mut before, mut value, mut sum) = (0.0, 1.0, 1.0);
        for k in 0..POINTS - 1 {
            let next = ((x - self.middle[k]) * value - libm::sqrt(self.side[k]) * before)
                / libm::sqrt(self.side[k + 1]);
            (before, value) = (value, next);
            sum += value * value;
        }
        1.0 / sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distribution() {
        for (a, b) in [(0.79, 2.43), (0.001, 40.0), (1.0, 1.0), (2.0, 0.3), (0.5, 300.0), (20.0, 90.0)] {
            let rule = Rule::beta(a, b);
            assert!(rule.points.is_sorted() && rule.points[0] > 0.0 && rule.points[POINTS - 1] < 1.0);
            let mut moment = 1.0;
            for k in 0..2 * POINTS {
                let found = rule.mean(|p| p.powi(k as i32));
                assert!(
                    (found - moment).abs() < 1e-9 * moment.max(1e-3),
                    "{a} {b}: moment {k}: {found} {moment}"
                );
                moment *= (a + k as f64) / (a + b + k as f64);
            }
        }
    }
}
