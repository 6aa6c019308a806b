//! Who a simulated customer is: what can be seen (traits) and what cannot (rates and hazards, the truth).

use serde::Serialize;

use super::calendar;
use super::random::Random;
use crate::time::{DAY_MS, HOUR_MS, Rfc3339, Ts};

/// What a customer is like, fixed at birth.
#[derive(Clone, Debug)]
pub struct Person {
    pub segment: &'static Segment,
    pub country: &'static Country,
    pub plan: &'static str,
    /// The channel most of its sessions come through.
    pub channel: &'static str,
    pub opted_in: bool,
    /// Orders per day while it is a customer (gamma).
    pub orders_per_day: f64,
    /// Sessions per day while it is a customer; at least as many as orders.
    pub sessions_per_day: f64,
    /// Dropouts per day before any experience has raised it (gamma).
    pub hazard_per_day: f64,
    /// Mean price of an item, in cents.
    pub item_cents: f64,
    pub subscriber: bool,
}

#[derive(Debug)]
pub struct Segment {
    pub name: &'static str,
    days_between_orders: f64,
    days_until_dropout: f64,
    item_cents: f64,
    subscribers: f64,
}

#[derive(Debug)]
pub struct Country {
    pub code: &'static str,
    utc_offset_hours: i64,
}

#[rustfmt::skip]
const SEGMENTS: [(Segment, u32); 3] = [
    (Segment { name: "consumer", days_between_orders: 24.0, days_until_dropout: 150.0, item_cents: 2_200.0, subscribers: 0.15 }, 72),
    (Segment { name: "small_business", days_between_orders: 15.0, days_until_dropout: 240.0, item_cents: 5_500.0, subscribers: 0.35 }, 21),
    (Segment { name: "enterprise", days_between_orders: 9.0, days_until_dropout: 420.0, item_cents: 14_000.0, subscribers: 0.6 }, 7),
];

const fn country(code: &'static str, utc_offset_hours: i64) -> Country {
    Country { code, utc_offset_hours }
}

#[rustfmt::skip]
const COUNTRIES: [(Country, u32); 8] = [
    (country("DE", 1), 26), (country("FR", 1), 16), (country("GB", 0), 16), (country("US", -6), 18),
    (country("NL", 1), 8), (country("ES", 1), 7), (country("PL", 1), 6), (country("IN", 5), 3),
];

const CHANNELS: [(&str, u32); 5] = [("web", 44), ("app", 26), ("email", 12), ("search", 11), ("social", 7)];
const PLANS: [(&str, u32); 3] = [("free", 60), ("basic", 28), ("pro", 12)];

/// Shapes below 2 make a few customers account for much, as in every shop.
const RATE_SHAPE: f64 = 1.1;
const HAZARD_SHAPE: f64 = 0.9;
const SESSIONS_PER_ORDER_LEAST: f64 = 1.6;
const SESSIONS_PER_ORDER_MORE: f64 = 3.0;
const IDLE_SESSIONS_PER_DAY: f64 = 0.02;

impl Person {
    pub fn born(random: &mut Random) -> Person {
        let segment = random.pick(&SEGMENTS);
        let orders_per_day = random.gamma(RATE_SHAPE, 1.0 / segment.days_between_orders).min(3.0);
        let per_order = SESSIONS_PER_ORDER_LEAST + random.gamma(1.5, SESSIONS_PER_ORDER_MORE);
        Person {
            segment,
            country: random.pick(&COUNTRIES),
            plan: random.pick::<&str>(&PLANS),
            channel: random.pick::<&str>(&CHANNELS),
            opted_in: random.chance(0.7),
            orders_per_day,
            sessions_per_day: (orders_per_day * per_order + IDLE_SESSIONS_PER_DAY).min(8.0),
            hazard_per_day: random.gamma(HAZARD_SHAPE, 1.0 / segment.days_until_dropout).max(1e-5),
            item_cents: segment.item_cents * libm::exp(0.5 * random.normal()),
            subscriber: random.chance(segment.subscribers),
        }
    }

    /// The chance that a session of a customer who is still there ends in an order.
    pub fn conversion(&self) -> f64 {
        (self.orders_per_day / self.sessions_per_day).min(0.95)
    }

    /// The channel of one session.
    pub fn channel_of_a_session(&self, random: &mut Random) -> &'static str {
        if random.chance(0.7) { self.channel } else { random.pick::<&str>(&CHANNELS) }
    }

    /// The next session after `t`, `slowdown` times rarer than usual: a Poisson process thinned to the rhythm
    /// of the year, of the week and of the customer's own day.
    pub fn next_session(&self, t: Ts, slowdown: f64, random: &mut Random) -> Ts {
        let mean_ms = DAY_MS as f64 * slowdown / (self.sessions_per_day * RHYTHM_MOST);
        let mut t = t;
        loop {
            t += random.exponential(mean_ms) as Ts + 1;
            if random.chance(self.rhythm(t) / RHYTHM_MOST) {
                return t;
            }
        }
    }

    fn rhythm(&self, t: Ts) -> f64 {
        let local = t + self.country.utc_offset_hours * HOUR_MS;
        let day = (local.div_euclid(DAY_MS) + 3).rem_euclid(7) as usize;
        let hour = (local.rem_euclid(DAY_MS) / HOUR_MS) as usize;
        WEEK[day] * DAY[hour] * calendar::mood(t, self.opted_in)
    }
}

/// Monday to Sunday, mean 1.
const WEEK: [f64; 7] = [1.02, 0.94, 0.92, 0.95, 0.98, 1.04, 1.15];
/// By local hour, mean 1.
const DAY: [f64; 24] = [
    0.35, 0.2, 0.12, 0.1, 0.1, 0.18, 0.42, 0.75, 1.0, 1.15, 1.2, 1.25, 1.3, 1.2, 1.1, 1.1, 1.2, 1.35, 1.55,
    1.8, 1.95, 1.85, 1.75, 1.03,
];
const RHYTHM_MOST: f64 = 1.15 * 1.95 * calendar::MOOD_MOST;

/// What was really so, one line of truth.ndjson.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Truth {
    pub customer_id: String,
    pub segment: &'static str,
    pub orders_per_day: f64,
    pub dropout_per_day: f64,
    /// How much experiences had changed the dropout rate at the end.
    pub dropout_factor: f64,
    pub orders: u32,
    pub bad_experiences: u32,
    /// When it was a customer; between spells, and after the last, it orders nothing.
    pub spells: Vec<Spell>,
    /// The end of the last spell, `null` for a customer who is still there.
    pub dropped_out: Option<Rfc3339>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spell {
    pub from: Rfc3339,
    /// `null`: until the end of the simulation.
    pub to: Option<Rfc3339>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rhythm_has_mean_one_and_its_stated_peak() {
        let mean = |xs: &[f64]| xs.iter().sum::<f64>() / xs.len() as f64;
        assert!((mean(&WEEK) - 1.0).abs() < 1e-9, "{}", mean(&WEEK));
        assert!((mean(&DAY) - 1.0).abs() < 1e-9, "{}", mean(&DAY));
        let most = |xs: &[f64]| xs.iter().copied().fold(0.0, f64::max);
        assert_eq!(most(&WEEK) * most(&DAY) * calendar::MOOD_MOST, RHYTHM_MOST);
    }

    #[test]
    fn people_order_less_often_than_they_visit() {
        for stream in 0..500 {
            let person = Person::born(&mut Random::new(3, stream));
            assert!(person.conversion() > 0.0 && person.conversion() < 1.0);
            assert!(person.orders_per_day <= person.sessions_per_day && person.item_cents > 0.0);
        }
    }

    #[test]
    fn sessions_keep_their_rate() {
        let mut random = Random::new(9, 9);
        let person = Person { sessions_per_day: 2.0, ..Person::born(&mut random) };
        let mut t = 0;
        let sessions = std::iter::from_fn(|| {
            t = person.next_session(t, 1.0, &mut random);
            (t < 1_000 * DAY_MS).then_some(t)
        });
        let n = sessions.count();
        assert!((1_850..2_150).contains(&n), "{n}");
    }
}
