//! What an order is worth: Gamma-Gamma.
//!
//! A customer's orders vary around a mean of its own, and these means vary over customers. What a customer has
//! spent so far is drawn towards the mean of all, the more the fewer orders there are. (Fader and Hardie 2013.)

use serde::{Deserialize, Serialize};

use super::Buyer;
use super::minimise::{Range, minimise};

/// Where to begin, and the bounds: p, q, and v in multiples of the mean order. Below q = 1 the mean of all
/// customers would be infinite.
const RANGES: [Range; 3] =
    [Range::new(1e-1, 500.0, 4.0), Range::new(1.05, 500.0, 4.0), Range::new(1e-3, 500.0, 1.0)];

/// A fitted model of spending.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spend {
    pub p: f64,
    pub q: f64,
    /// In the base currency.
    pub v: f64,
    /// Mean over customers with repeat orders.
    pub log_likelihood: f64,
}

impl Spend {
    /// Fits on the customers with repeat orders; `None` where there are none, or no parameters fit.
    pub fn fit(buyers: &[Buyer]) -> Option<Spend> {
        let repeat: Vec<&Buyer> = buyers.iter().filter(|b| b.frequency > 0 && b.monetary > 0.0).collect();
        let mean = repeat.iter().map(|b| b.monetary).sum::<f64>() / repeat.len() as f64;
        let scaled: Vec<(f64, f64)> =
            repeat.iter().map(|b| (f64::from(b.frequency), b.monetary / mean)).collect();
        let ([p, q, v], cost) = minimise(&RANGES, &|parameters| cost(&scaled, parameters))?;
        // The density of an amount, not of a multiple of the mean.
        Some(Spend { p, q, v: v * mean, log_likelihood: -cost - libm::log(mean) })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let usable = |x: f64| x > 0.0 && x.is_finite();
        if usable(self.p) && usable(self.v) && usable(self.q - 1.0) {
            return Ok(());
        }
        Err(format!("`p` {}, `q` {} or `v` {} is out of bounds", self.p, self.q, self.v))
    }

    /// The expected value of an order of this customer.
    pub fn expected(&self, buyer: &Buyer) -> f64 {
        // Without a repeat order there is nothing but the mean of all.
        let n = if buyer.monetary > 0.0 { self.p * f64::from(buyer.frequency) } else { 0.0 };
        (self.p * self.v + n * buyer.monetary) / (n + self.q - 1.0)
    }
}

/// The mean negative log likelihood.
fn cost(repeat: &[(f64, f64)], &[p, q, v]: &[f64; 3]) -> f64 {
    let ln_gamma = libm::lgamma;
    let common = q * libm::log(v) - ln_gamma(q);
    let of = |(x, mean): &(f64, f64)| {
        let n = p * x;
        common + ln_gamma(n + q) - ln_gamma(n) + (n - 1.0) * libm::log(*mean) + n * libm::log(*x)
            - (n + q) * libm::log(x * mean + v)
    };
    -repeat.iter().map(of).sum::<f64>() / repeat.len() as f64
}
