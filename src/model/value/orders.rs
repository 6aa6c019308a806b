//! When will the next order come, if ever: BG/NBD and MBG/NBD.
//!
//! A customer orders at a rate of its own, Gamma(r, alpha) over customers, and after each order leaves for good
//! with a probability of its own, Beta(a, b). In BG/NBD nobody leaves before the second order; in MBG/NBD one
//! may leave after the first, so that a one-time buyer is not taken for alive for ever. Time is in days.
//! (Fader, Hardie and Lee 2005; Batislam, Denizel and Filiztekin 2007.)

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Buyer;
use super::minimise::{Range, minimise};
use super::quadrature::Rule;

/// The bounds of a fit, where to begin, and what the parameters are called: r, alpha (days), a, b.
const RANGES: [Range; 4] = [
    Range::new(1e-2, 50.0, 0.5),
    Range::new(1e-1, 1e4, 30.0),
    Range::new(1e-3, 20.0, 0.5),
    Range::new(1e-2, 1e3, 2.0),
];
/// Dropout has to explain so many nats over the same rates without it, or it cannot be told from chance.
const DROPOUT_GAIN_LEAST: f64 = 3.0;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    BgNbd,
    MbgNbd,
}

/// A fitted model of orders.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    pub kind: Kind,
    pub r: f64,
    /// In days.
    pub alpha: f64,
    pub a: f64,
    pub b: f64,
    /// Mean over customers.
    pub log_likelihood: f64,
    /// Whether the data tell customers who left from customers who pause. If not, `a` and `b` lie at a bound of
    /// the fit and say nothing.
    pub dropout_identified: bool,
}

impl Orders {
    /// The likelier of the two models. `None` where no parameters fit at all.
    pub fn fit(buyers: &[Buyer]) -> Option<Orders> {
        let fitted = [Kind::MbgNbd, Kind::BgNbd].map(|kind| Orders::fit_kind(kind, buyers));
        fitted
            .into_iter()
            .flatten()
            .reduce(|best, other| if other.log_likelihood > best.log_likelihood { other } else { best })
    }

    pub fn fit_kind(kind: Kind, buyers: &[Buyer]) -> Option<Orders> {
        let counted = Counted::new(buyers);
        let ([r, alpha, a, b], cost) = minimise(&RANGES, &|p| counted.cost(kind, p))?;
        let stays = Range::new(1e-9, 1e-9, 1e-9);
        let ranges = [RANGES[0], RANGES[1], stays, Range::new(1.0, 1.0, 1.0)];
        let (_, without) = minimise(&ranges, &|p| counted.cost(kind, p))?;
        let gain = (without - cost) * counted.customers;
        let at_edge = RANGES[2].is_at_edge(a) || RANGES[3].is_at_edge(b);
        let dropout_identified = gain >= DROPOUT_GAIN_LEAST && !at_edge;
        Some(Orders { kind, r, alpha, a, b, log_likelihood: -cost, dropout_identified })
    }

    /// Every parameter within the bounds of a fit.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, value, range) in [
            ("r", self.r, RANGES[0]),
            ("alpha", self.alpha, RANGES[1]),
            ("a", self.a, RANGES[2]),
            ("b", self.b, RANGES[3]),
        ] {
            if !(range.least..=range.most).contains(&value) {
                return Err(format!("`{name}` is {value}, not {} to {}", range.least, range.most));
            }
        }
        Ok(())
    }

    /// The probability that a customer has not left for good.
    pub fn p_alive(&self, buyer: &Buyer) -> f64 {
        let x = f64::from(buyer.frequency);
        let left = match self.kind {
            Kind::BgNbd if buyer.frequency == 0 => return 1.0,
            Kind::BgNbd => self.a / (self.b + x - 1.0),
            Kind::MbgNbd => self.a / (self.b + x),
        };
        let silence = libm::log((self.alpha + buyer.age) / (self.alpha + buyer.recency));
        1.0 / (1.0 + left * libm::exp((self.r + x) * silence))
    }

    /// The probability of no order in the next so many days.
    pub fn p_no_order(&self, buyer: &Buyer, days: f64) -> f64 {
        let seen = self.alpha + buyer.age;
        let waits = libm::exp((self.r + f64::from(buyer.frequency)) * libm::log(seen / (seen + days)));
        1.0 - self.p_alive(buyer) * (1.0 - waits)
    }

    /// The distribution of a customer's probability to leave after an order, given that it has not left.
    pub fn dropout(&self, frequency: u32) -> Rule {
        let x = f64::from(frequency);
        Rule::beta(
            self.a,
            match self.kind {
                Kind::BgNbd => self.b + x,
                Kind::MbgNbd => self.b + x + 1.0,
            },
        )
    }

    /// Orders expected in the next so many days. `dropout` is that of the buyer's frequency.
    pub fn expected(&self, buyer: &Buyer, days: f64, dropout: &Rule) -> f64 {
        self.p_alive(buyer) * self.expected_alive(buyer, days, dropout)
    }

    /// The same for a customer who has not left: at rate λ and dropout p, orders go on at λ e^(−λ p t).
    pub fn expected_alive(&self, buyer: &Buyer, days: f64, dropout: &Rule) -> f64 {
        let (power, ahead) = (self.r + f64::from(buyer.frequency), days / (self.alpha + buyer.age));
        dropout.mean(|p| {
            let p = p.max(f64::EPSILON);
            -libm::expm1(-power * libm::log1p(p * ahead)) / p
        })
    }
}

/// Buyers by frequency, equal ones counted: what depends on the frequency alone is computed once for all.
struct Counted {
    customers: f64,
    /// Frequency → recency, age and how many.
    by_frequency: BTreeMap<u32, Vec<(f64, f64, f64)>>,
}

impl Counted {
    fn new(buyers: &[Buyer]) -> Counted {
        let mut counts: BTreeMap<(u32, u64, u64), f64> = BTreeMap::new();
        for buyer in buyers {
            // Non-negative doubles are in the order of their bits.
            let key = (buyer.frequency, buyer.recency.to_bits(), buyer.age.to_bits());
            *counts.entry(key).or_default() += 1.0;
        }
        let mut by_frequency: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for ((frequency, recency, age), n) in counts {
            let same = by_frequency.entry(frequency).or_default();
            same.push((f64::from_bits(recency), f64::from_bits(age), n));
        }
        Counted { customers: buyers.len() as f64, by_frequency }
    }

    /// The mean negative log likelihood.
    fn cost(&self, kind: Kind, &[r, alpha, a, b]: &[f64; 4]) -> f64 {
        let ln_gamma = libm::lgamma;
        let mut sum = 0.0;
        for (frequency, buyers) in &self.by_frequency {
            let x = f64::from(*frequency);
            let stays = if kind == Kind::BgNbd { x } else { x + 1.0 };
            let left = match kind {
                Kind::BgNbd if x == 0.0 => 0.0,
                Kind::BgNbd => a / (b + x - 1.0),
                Kind::MbgNbd => a / (b + x),
            };
            let common =
                ln_gamma(r + x) - ln_gamma(r) + r * libm::log(alpha) + ln_gamma(a + b) + ln_gamma(b + stays)
                    - ln_gamma(b)
                    - ln_gamma(a + b + stays);
            for (recency, age, n) in buyers {
                let seen = libm::log(alpha + age);
                let silent = (r + x) * (seen - libm::log(alpha + recency));
                sum += n * (common - (r + x) * seen + ln_one_plus(left, silent));
            }
        }
        -sum / self.customers
    }
}

/// ln(1 + factor × e^power), also where the power is out of all bounds.
fn ln_one_plus(factor: f64, power: f64) -> f64 {
    if factor == 0.0 {
        0.0
    } else if power > 30.0 {
        libm::log(factor + libm::exp(-power)) + power
    } else {
        libm::log1p(factor * libm::exp(power))
    }
}
