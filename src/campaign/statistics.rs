//! Intervals for what an experiment measured: shares, their difference, and the difference of means.
//!
//! - A share: Wilson's score interval (E. B. Wilson, JASA 22, 1927). It stays within 0 and 1 and holds its level
//!   for few customers and for shares near either end, where the usual p ± 1.96 s does not.
//! - The difference of two independent shares: Newcombe's hybrid score interval, method 10 of R. G. Newcombe,
//!   Statistics in Medicine 17 (1998) 873–890, made of two Wilson intervals.
//! - The difference of two means: Welch's interval, which lets the spreads differ (B. L. Welch, Biometrika 34, 1947).

use crate::model::metrics::Interval;

/// The 97.5 % point of the standard normal distribution: all intervals are two-sided at 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub hits: u64,
    pub of: u64,
}

impl Share {
    pub fn rate(self) -> f64 {
        self.hits as f64 / self.of as f64
    }

    /// Wilson's interval; `None` of nobody.
    pub fn interval(self) -> Option<Interval> {
        if self.of == 0 {
            return None;
        }
        let (n, p) = (self.of as f64, self.rate());
        let middle = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let whole = 1.0 + Z * Z / n;
        let (low, high) = ((middle - half) / whole, (middle + half) / whole);
        // At the ends the algebra gives 0 and 1, arithmetic only nearly.
        Some(Interval { value: p, low: low.clamp(0.0, p), high: high.clamp(p, 1.0) })
    }

    /// This share minus another of other people, with Newcombe's interval.
    pub fn minus(self, other: Share) -> Option<Interval> {
        let (a, b) = (self.interval()?, other.interval()?);
        let value = a.value - b.value;
        let root = |x: f64, y: f64| (x * x + y * y).sqrt();
        Some(Interval {
            value,
            low: value - root(a.value - a.low, b.high - b.value),
            high: value + root(a.high - a.value, b.value - b.low),
        })
    }

    /// How many standard errors the share lies from the one that was meant to be.
    pub fn errors_from(self, meant: f64) -> f64 {
        let n = self.of as f64;
        (self.hits as f64 - n * meant) / (n * meant * (1.0 - meant)).sqrt()
    }
}

/// Mean and spread of numbers as they come (Welford's method, which loses nothing to cancellation).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    n: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    pub fn add(&mut self, x: f64) {
        self.n += 1;
        let off = x - self.mean;
        self.mean += off / self.n as f64;
        self.squares += off * (x - self.mean);
    }

    pub fn mean(self) -> f64 {
        self.mean
    }

    /// The variance of the mean; `None` of fewer than two.
    fn variance_of_mean(self) -> Option<f64> {
        (self.n >= 2).then(|| self.squares / (self.n - 1) as f64 / self.n as f64)
    }

    /// This mean minus another, with Welch's interval; `None` where either side has fewer than two numbers.
    pub fn minus(self, other: Moments) -> Option<Interval> {
        let (a, b) = (self.variance_of_mean()?, other.variance_of_mean()?);
        let value = self.mean - other.mean;
        let total = a + b;
        if total == 0.0 {
            return Some(Interval { value, low: value, high: value });
        }
        let share = |v: f64, n: u64| v * v / (n - 1) as f64;
        let freedom = total * total / (share(a, self.n) + share(b, other.n));
        let half = students_t(freedom) * total.sqrt();
        Some(Interval { value, low: value - half, high: value + half })
    }
}

/// The 97.5 % point of Student's t: the expansion 26.7.5 in Abramowitz and Stegun, Handbook of Mathematical
/// Functions, right to 0.2 % from four degrees of freedom on; for one and two there are closed forms.
fn students_t(freedom: f64) -> f64 {
    const CAUCHY: f64 = 12.706_204_736_432_095;
    const TWO: f64 = 4.302_652_729_911_275;
    const THREE: f64 = 3.182_446_305_284_263;
    if freedom < 3.0 {
        // Whole degrees are exact; between them the next lower one keeps the interval on the safe side.
        return if freedom < 2.0 { CAUCHY } else { TWO };
    }
    if freedom < 4.0 {
        return THREE;
    }
    let (z, z2) = (Z, Z * Z);
    let terms = [
        z * (z2 + 1.0) / 4.0,
        z * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0,
        z * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0,
        z * ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0) / 92_160.0,
    ];
    let mut power = 1.0;
    terms.iter().fold(z, |sum, term| {
        power *= freedom;
        sum + term / power
    })
}

/// The value below which a share of sorted numbers lies, between neighbours on a line; `None` of none.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = last as f64 * q;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(hits: u64, of: u64) -> Share {
        Share { hits, of }
    }

    #[test]
    fn differences_of_shares_are_those_of_newcombes_paper() {
        // Table II, method 10.
        for (a, b, value, low, high) in [
            (share(56, 70), share(48, 80), 0.2, 0.0524, 0.3339),
            (share(9, 10), share(3, 10), 0.6, 0.1705, 0.8090),
            (share(10, 10), share(0, 10), 1.0, 0.6075, 1.0),
            (share(5, 56), share(0, 29), 0.0893, -0.0381, 0.1926),
        ] {
            let found = a.minus(b).unwrap();
            for (x, y) in [(found.value, value), (found.low, low), (found.high, high)] {
                assert!((x - y).abs() < 6e-5, "{a:?} {b:?}: {found:?}");
            }
        }
    }

    #[test]
    fn a_share_of_nobody_or_of_all_has_an_interval_inside_0_and_1() {
        assert_eq!(share(0, 0).interval(), None);
        let none = share(0, 10).interval().unwrap();
        assert!(none.low == 0.0 && (none.high - 0.2775).abs() < 1e-4, "{none:?}");
        let all = share(10, 10).interval().unwrap();
        assert!(all.high == 1.0 && (all.low - 0.7225).abs() < 1e-4, "{all:?}");
    }

    #[test]
    fn students_t_is_that_of_the_tables() {
        for (freedom, t) in [
            (1.0, 12.7062),
            (2.0, 4.3027),
            (3.0, 3.1824),
            (4.0, 2.7764),
            (5.0, 2.5706),
            (10.0, 2.2281),
            (30.0, 2.0423),
            (1e9, Z),
        ] {
            assert!((students_t(freedom) / t - 1.0).abs() < 2e-3, "{freedom}: {}", students_t(freedom));
        }
        for tenth in 10..2_000 {
            let (here, next) = (students_t(f64::from(tenth) / 10.0), students_t(f64::from(tenth + 1) / 10.0));
            assert!(next <= here, "more degrees never widen the interval");
        }
    }

    #[test]
    fn welchs_interval_is_that_of_a_worked_example() {
        let moments = |xs: &[f64]| {
            let mut moments = Moments::default();
            xs.iter().for_each(|x| moments.add(*x));
            moments
        };
        // By hand: means 5 and 3, variances of the means 10/3/4 and 2/3/3, 4.78 degrees of freedom.
        let (a, b) = (moments(&[3.0, 4.0, 6.0, 7.0]), moments(&[2.0, 3.0, 4.0]));
        let found = a.minus(b).unwrap();
        let error = (10.0f64 / 12.0 + 1.0 / 3.0).sqrt();
        assert!((found.value - 2.0).abs() < 1e-12);
        let t = (found.high - found.value) / error;
        assert!((2.5706..2.7764).contains(&t), "between 5 and 4 degrees of freedom: {t}");
        assert_eq!(moments(&[1.0]).minus(b), None);
        let same = moments(&[1.0, 1.0]).minus(moments(&[0.0, 0.0])).unwrap();
        assert_eq!((same.low, same.high), (1.0, 1.0));
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.9), Some(3.0));
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 0.5), Some(3.0));
    }
}
