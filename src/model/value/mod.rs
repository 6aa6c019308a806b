//! What a customer is still worth: the probability of no order within the horizon and the value of the next
//! year, from four numbers per customer (the `rfm_*` features).
//!
//! Owns the section `value` of a model's file, its fit and its reading. [`orders`] says when orders come,
//! [`spend`] what they are worth. A customer who never ordered has no such values.

use serde::{Deserialize, Serialize};

use super::artifact::Model;
use crate::error::{Error, Result};
use crate::pipeline::facts::{FeatureId, FeatureNames};
use crate::time::DAY_MS;

pub mod orders;
pub mod spend;
mod minimise;
mod quadrature;

pub use orders::{Kind, Orders};
use quadrature::Rule;
pub use spend::Spend;

/// The features that a value is computed from.
pub const FEATURES: [&str; 5] =
    ["rfm_frequency", "rfm_recency_days", "rfm_age_days", "rfm_monetary", "days_since_order"];
/// The probability of no order within the horizon, as a feature.
pub const P_NO_ORDER: &str = "p_no_order";
/// What of a year's orders is worth, as a feature.
pub const CLV_365D: &str = "clv_365d";
/// A fit looks at no more buyers than this.
pub const BUYERS_MOST: usize = 10_000;
/// Fewer buyers, or buyers with a repeat order, say nothing about four parameters.
const BUYERS_LEAST: usize = 100;
const REPEAT_BUYERS_LEAST: usize = 30;
/// How far ahead the value looks, in steps that are discounted each as a whole.
const YEAR_DAYS: f64 = 365.0;
const STEPS: usize = 4;
/// What money in a year is worth less than money now.
const ANNUAL_DISCOUNT: f64 = 0.1;
/// The quadrature of so many frequencies is kept.
const KEPT: usize = 128;

/// A customer who has ordered, as of an instant. Times in days since the first order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buyer {
    /// Days with an order after the first such day.
    pub frequency: u32,
    /// Age at the last order.
    pub recency: f64,
    pub age: f64,
    /// Mean value of the repeat orders.
    pub monetary: f64,
}

impl Buyer {
    /// From the values of [`FEATURES`]; `None` for who never ordered.
    pub fn read([frequency, recency, age, monetary, since]: [f64; 5]) -> Option<Buyer> {
        let usable = since.is_finite() && recency >= 0.0 && age.is_finite();
        // A clock that runs backwards does not make a customer younger than its last order.
        let buyer = || Buyer { frequency: frequency as u32, recency, age: age.max(recency), monetary };
        usable.then(buyer)
    }
}

/// The section `value` of a model's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueModel {
    pub orders: Orders,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend: Option<Spend>,
    pub annual_discount: f64,
    /// Buyers that were fitted on, all who had ever ordered or an even sample of them.
    pub buyers: usize,
}

impl ValueModel {
    /// `None` where there are too few buyers, or too few who came back.
    pub fn fit(buyers: &[Buyer]) -> Option<ValueModel> {
        let repeat = buyers.iter().filter(|buyer| buyer.frequency > 0).count();
        if buyers.len() < BUYERS_LEAST || repeat < REPEAT_BUYERS_LEAST {
            return None;
        }
        Some(ValueModel {
            orders: Orders::fit(buyers)?,
            spend: Spend::fit(buyers),
            annual_discount: ANNUAL_DISCOUNT,
            buyers: buyers.len(),
        })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.orders.check().map_err(|what| format!("value.orders: {what}"))?;
        if let Some(spend) = &self.spend {
            spend.check().map_err(|what| format!("value.spend: {what}"))?;
        }
        if !(0.0..=1.0).contains(&self.annual_discount) {
            return Err(format!("value: `annual_discount` is {}, not 0 to 1", self.annual_discount));
        }
        Ok(())
    }
}

/// What is foretold of a customer, where it can be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Value {
    /// The probability of no order within the model's horizon.
    pub p_no_order: Option<f64>,
    /// Discounted margin of the orders of the next 365 days.
    pub clv_365d: Option<f64>,
}

/// A [`ValueModel`] compiled against a catalogue: reads a feature vector, allocates nothing.
#[derive(Clone, Debug)]
pub struct Valuer {
    orders: Orders,
    spend: Option<Spend>,
    horizon_days: f64,
    features: [FeatureId; FEATURES.len()],
    /// By frequency: how likely a customer is to leave after an order.
    dropout: Box<[Rule]>,
    /// What an order in each step is worth now.
    discount: [f64; STEPS],
}

impl Valuer {
    /// That of a model, where it has one.
    pub fn of(model: &Model, names: &dyn FeatureNames) -> Result<Option<Valuer>> {
        model.value.as_ref().map(|value| Valuer::new(value, model.horizon, names)).transpose()
    }

    /// Fails where the catalogue lacks a feature.
    pub fn new(model: &ValueModel, horizon: i64, names: &dyn FeatureNames) -> Result<Valuer> {
        let mut features = [FeatureId(0); FEATURES.len()];
        for (id, name) in features.iter_mut().zip(FEATURES) {
            *id = names.id(name).ok_or_else(|| {
                Error::user(format!("the model foretells values from `{name}`, which the catalogue lacks"))
                    .hint("declare the feature as the shipped catalogue does, or train the model again")
            })?;
        }
        let step_years = 1.0 / STEPS as f64;
        let yearly = libm::log1p(model.annual_discount);
        Ok(Valuer {
            orders: model.orders,
            spend: model.spend,
            horizon_days: horizon as f64 / DAY_MS as f64,
            features,
            dropout: (0..KEPT as u32).map(|frequency| model.orders.dropout(frequency)).collect(),
            discount: std::array::from_fn(|step| libm::exp(-yearly * (step as f64 + 0.5) * step_years)),
        })
    }

    /// The features it looks at, by id.
    pub fn features(&self) -> [FeatureId; FEATURES.len()] {
        self.features
    }

    /// The probability of no order of this buyer within the horizon. Two logarithms.
    pub fn p_no_order_of(&self, buyer: &Buyer) -> f64 {
        self.orders.p_no_order(buyer, self.horizon_days)
    }

    /// Discounted margin of this buyer's orders of the next 365 days, where spending could be fitted. `margin` is
    /// the share of an order's value that stays. A microsecond.
    pub fn clv_365d_of(&self, buyer: &Buyer, margin: f64) -> Option<f64> {
        let spend = self.spend.as_ref()?;
        Some(self.discounted_orders(buyer) * spend.expected(buyer) * margin)
    }

    /// The probability of no order within the horizon; `None` for who never ordered.
    pub fn p_no_order(&self, features: &[f64]) -> Option<f64> {
        self.buyer(features).map(|buyer| self.p_no_order_of(&buyer))
    }

    /// Both values, for what is written rather than for every event.
    pub fn value(&self, features: &[f64], margin: f64) -> Value {
        let Some(buyer) = self.buyer(features) else { return Value::default() };
        Value { p_no_order: Some(self.p_no_order_of(&buyer)), clv_365d: self.clv_365d_of(&buyer, margin) }
    }

    fn buyer(&self, features: &[f64]) -> Option<Buyer> {
        Buyer::read(self.features.map(|id| features[id.index()]))
    }

    fn discounted_orders(&self, buyer: &Buyer) -> f64 {
        let made;
        let dropout = match self.dropout.get(buyer.frequency as usize) {
            Some(kept) => kept,
            None => {
                made = self.orders.dropout(buyer.frequency);
                &made
            }
        };
        let (mut sum, mut before) = (0.0, 0.0);
        for (step, discount) in self.discount.iter().enumerate() {
            let days = YEAR_DAYS * (step as f64 + 1.0) / STEPS as f64;
            let until = self.orders.expected_alive(buyer, days, dropout);
            sum += (until - before) * discount;
            before = until;
        }
        self.orders.p_alive(buyer) * sum
    }
}

#[cfg(test)]
mod tests;
