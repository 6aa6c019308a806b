//! Chance that is the same on every platform: PCG for bits, pure-Rust logarithms and powers for shapes.
//!
//! Nothing here may use the platform's mathematics library, a hash map's order, or a float's rounding mode.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;

/// One customer's own stream of chance: independent of every other customer's.
#[derive(Clone, Debug)]
pub struct Random(Pcg64Mcg);

impl Random {
    pub fn new(seed: u64, stream: u64) -> Random {
        let high = mix(seed ^ mix(stream));
        let low = mix(high ^ stream);
        Random(Pcg64Mcg::new(u128::from(high) << 64 | u128::from(low)))
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = (high - low + 1).max(1) as u128;
        low + ((u128::from(self.0.next_u64()) * width) >> 64) as i64
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -libm::log(1.0 - self.unit()) * mean
    }

    /// Standard normal, by the polar method.
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let r = x * x + y * y;
            if r > 0.0 && r < 1.0 {
                return x * (-2.0 * libm::log(r) / r).sqrt();
            }
        }
    }

    /// Gamma with this shape and mean (Marsaglia and Tsang 2000).
    pub fn gamma(&mut self, shape: f64, mean: f64) -> f64 {
        let boost = if shape < 1.0 { libm::pow(1.0 - self.unit(), 1.0 / shape) } else { 1.0 };
        let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
            if v > 0.0 && libm::log(1.0 - self.unit()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return boost * d * v * mean / shape;
            }
        }
    }

    /// One of a list by weight.
    pub fn pick<'t, T>(&mut self, from: &'t [(T, u32)]) -> &'t T {
        let total: u32 = from.iter().map(|(_, weight)| weight).sum();
        let mut left = self.between(0, i64::from(total) - 1);
        for (item, weight) in from {
            left -= i64::from(*weight);
            if left < 0 {
                return item;
            }
        }
        &from[from.len() - 1].0
    }
}

/// The finaliser of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_variance(mut draw: impl FnMut(&mut Random) -> f64) -> (f64, f64) {
        let mut random = Random::new(1, 1);
        let xs: Vec<f64> = (0..20_000).map(|_| draw(&mut random)).collect();
        let mean = xs.iter().sum::<f64>() / xs.len() as f64;
        (mean, xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / xs.len() as f64)
    }

    fn close(found: (f64, f64), mean: f64, variance: f64) {
        assert!((found.0 - mean).abs() < 0.05 * (1.0 + mean), "mean {} is not {mean}", found.0);
        assert!(
            (found.1 - variance).abs() < 0.12 * (1.0 + variance),
            "variance {} is not {variance}",
            found.1
        );
    }

    #[test]
    fn distributions_have_their_means_and_variances() {
        close(mean_and_variance(Random::unit), 0.5, 1.0 / 12.0);
        close(mean_and_variance(Random::normal), 0.0, 1.0);
        close(mean_and_variance(|r| r.exponential(3.0)), 3.0, 9.0);
        close(mean_and_variance(|r| r.gamma(2.5, 5.0)), 5.0, 10.0);
        close(mean_and_variance(|r| r.gamma(0.5, 1.0)), 1.0, 2.0);
        close(mean_and_variance(|r| r.between(1, 6) as f64), 3.5, 35.0 / 12.0);
        close(mean_and_variance(|r| *r.pick(&[(0.0, 3), (1.0, 1)])), 0.25, 0.1875);
    }

    #[test]
    fn streams_are_their_own_and_repeatable() {
        let first = |seed, stream| Random::new(seed, stream).unit();
        assert_eq!(first(1, 1), first(1, 1));
        assert_ne!(first(1, 1), first(1, 2));
        assert_ne!(first(1, 1), first(2, 1));
        // The first draws of neighbouring customers are spread evenly.
        let below: usize = (0..1_000).filter(|stream| first(7, *stream) < 0.5).count();
        assert!((450..550).contains(&below), "{below}");
    }

    #[test]
    fn the_bits_are_those_of_every_platform() {
        let mut random = Random::new(42, 7);
        let bits: Vec<u64> =
            vec![random.unit().to_bits(), random.gamma(0.7, 2.0).to_bits(), random.normal().to_bits()];
        assert_eq!(bits, EXPECTED_BITS);
    }

    const EXPECTED_BITS: [u64; 3] = [4606111612233284475, 4588220871101439511, 13824751527267368915];
}
