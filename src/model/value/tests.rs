//! Fits against parameters that are known: simulated customers, limits that can be worked out by hand, and
//! closed forms.

use super::*;
use crate::pipeline::facts::Motion;
use rand::RngExt;
use rand_distr::{Beta, Distribution, Exp, Gamma};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;

/// The published fit to the CDNOW sample (weeks), in days.
fn published() -> Orders {
    Orders {
        kind: Kind::BgNbd,
        r: 0.243,
        alpha: 4.414 * 7.0,
        a: 0.793,
        b: 2.426,
        log_likelihood: 0.0,
        dropout_identified: true,
    }
}

fn buyer(frequency: u32, recency: f64, age: f64) -> Buyer {
    Buyer { frequency, recency, age, monetary: 20.0 }
}

/// One life: a customer as of `age` days, and how many orders follow within `ahead` days.
fn live(orders: &Orders, age: f64, ahead: f64, rng: &mut Pcg64) -> (Buyer, u32) {
    let rate = Gamma::new(orders.r, 1.0 / orders.alpha).unwrap().sample(rng).max(1e-12);
    let leaves = Beta::new(orders.a, orders.b).unwrap().sample(rng);
    let gap = Exp::new(rate).unwrap();
    let (mut at, mut seen, mut after) = (0.0, buyer(0, 0.0, age), 0);
    let mut alive = orders.kind == Kind::BgNbd || rng.random::<f64>() >= leaves;
    while alive {
        at += gap.sample(rng);
        match at {
            at if at <= age => (seen.frequency, seen.recency) = (seen.frequency + 1, at),
            at if at <= age + ahead => after += 1,
            _ => break,
        }
        alive = rng.random::<f64>() >= leaves;
    }
    (seen, after)
}

fn lives(orders: &Orders, n: usize, ahead: f64) -> Vec<(Buyer, u32)> {
    let mut rng = Pcg64::seed_from_u64(3);
    (0..n).map(|i| live(orders, 180.0 + (i % 90) as f64, ahead, &mut rng)).collect()
}

#[test]
fn a_fit_finds_the_parameters_that_customers_were_drawn_from() {
    for kind in [Kind::BgNbd, Kind::MbgNbd] {
        let truth = Orders { kind, ..published() };
        let buyers: Vec<Buyer> = lives(&truth, 5_000, 0.0).into_iter().map(|(buyer, _)| buyer).collect();
        let fitted = Orders::fit(&buyers).unwrap();
        assert_eq!(fitted.kind, kind, "the likelier model is the one drawn from");
        let near = |found: f64, truth: f64, most: f64| (found / truth).ln().abs() < most;
        assert!(near(fitted.r, truth.r, 0.15) && near(fitted.alpha, truth.alpha, 0.2), "{fitted:?}");
        // a and b are known less well than their mean is.
        assert!(near(fitted.a / (fitted.a + fitted.b), truth.a / (truth.a + truth.b), 0.2), "{fitted:?}");
        assert!(fitted.dropout_identified);
    }
}

#[test]
fn where_nobody_leaves_the_fit_stays_in_bounds_and_says_that_dropout_is_not_identified() {
    let truth = Orders { kind: Kind::MbgNbd, r: 4.0, alpha: 40.0, a: 1e-3, b: 1e3, ..published() };
    let buyers: Vec<Buyer> = lives(&truth, 600, 0.0).into_iter().map(|(buyer, _)| buyer).collect();
    let fitted = Orders::fit(&buyers).unwrap();
    assert!(!fitted.dropout_identified, "{fitted:?}");
    fitted.check().unwrap();
    let p = fitted.p_no_order(&buyer(18, 175.0, 180.0), 30.0);
    assert!((0.0..0.2).contains(&p), "a regular buyer is not given up: {p}");
}

#[test]
fn what_is_foretold_comes_true_on_average() {
    for kind in [Kind::BgNbd, Kind::MbgNbd] {
        let truth = Orders { kind, ..published() };
        let lives = lives(&truth, 40_000, 60.0);
        for repeats in [0..1, 1..3, 3..1_000] {
            let picked: Vec<_> = lives.iter().filter(|(b, _)| repeats.contains(&b.frequency)).collect();
            let mean = |f: &dyn Fn(&(Buyer, u32)) -> f64| {
                picked.iter().map(|life| f(life)).sum::<f64>() / picked.len() as f64
            };
            let none = mean(&|(_, after)| f64::from(*after == 0));
            let p = mean(&|(buyer, _)| truth.p_no_order(buyer, 60.0));
            assert!((p - none).abs() < 0.015, "{kind:?} {repeats:?}: foretold {p}, came {none}");
            let after = mean(&|(_, after)| f64::from(*after));
            let expected = mean(&|(b, _)| truth.expected(b, 60.0, &truth.dropout(b.frequency)));
            assert!((expected / after - 1.0).abs() < 0.08, "{kind:?} {repeats:?}: {expected} {after}");
        }
    }
}

#[test]
fn expected_orders_equal_the_closed_form() {
    let orders = published();
    let Orders { r, alpha, a, b, .. } = orders;
    for (x, recency, age, days) in [(0, 0.0, 270.0, 273.0), (2, 30.0, 200.0, 90.0), (26, 240.0, 260.0, 365.0)]
    {
        let f = f64::from(x);
        let z = days / (alpha + age + days);
        // Gauss's series, as long as it takes.
        let (mut term, mut series) = (1.0, 1.0);
        for k in 0..20_000 {
            let k = f64::from(k);
            term *= (r + f + k) * (b + f + k) / ((a + b + f - 1.0 + k) * (k + 1.0)) * z;
            series += term;
        }
        let shrink = ((alpha + age) / (alpha + age + days)).powf(r + f);
        let alive = orders.p_alive(&buyer(x, recency, age));
        let closed = (a + b + f - 1.0) / (a - 1.0) * (1.0 - shrink * series) * alive;
        let found = orders.expected(&buyer(x, recency, age), days, &orders.dropout(x));
        assert!((found / closed - 1.0).abs() < 1e-6, "{x}: {found} {closed}");
    }
}

#[test]
fn every_one_time_buyer_is_alive_to_bg_nbd_but_not_to_mbg_nbd_and_silence_always_raises_p_no_order() {
    let (old, modified) = (published(), Orders { kind: Kind::MbgNbd, ..published() });
    assert_eq!(old.p_alive(&buyer(0, 0.0, 400.0)), 1.0);
    assert!(modified.p_alive(&buyer(0, 0.0, 400.0)) < 0.75);
    for orders in [old, modified] {
        for (frequency, recency) in [(0, 0.0), (1, 30.0), (30, 300.0)] {
            let p = |age: f64| orders.p_no_order(&buyer(frequency, recency, age), 30.0);
            let silence: Vec<f64> = (0..60).map(|n| p(recency + f64::from(n) * 20.0)).collect();
            assert!(silence.is_sorted() && silence[59] <= 1.0 && silence[0] > 0.0, "{silence:?}");
        }
    }
}

#[test]
fn spending_is_found_again_and_drawn_towards_the_mean_of_all() {
    let truth = Spend { p: 6.25, q: 3.74, v: 15.44, log_likelihood: 0.0 };
    let mut rng = Pcg64::seed_from_u64(5);
    let buyers: Vec<Buyer> = (0..8_000)
        .map(|n| {
            let scale = Gamma::new(truth.q, 1.0 / truth.v).unwrap().sample(&mut rng);
            let frequency = n % 5;
            let one = Gamma::new(truth.p * f64::from(frequency.max(1)), 1.0 / scale).unwrap();
            Buyer {
                monetary: one.sample(&mut rng) / f64::from(frequency.max(1)),
                ..buyer(frequency, 9.0, 9.0)
            }
        })
        .collect();
    let fitted = Spend::fit(&buyers).unwrap();
    let mean = |s: &Spend| s.p * s.v / (s.q - 1.0);
    assert!((fitted.p / truth.p).ln().abs() < 0.15 && (fitted.q / truth.q).ln().abs() < 0.15, "{fitted:?}");
    assert!((mean(&fitted) / mean(&truth) - 1.0).abs() < 0.03);
    let of = |frequency| fitted.expected(&Buyer { frequency, monetary: 100.0, ..buyer(0, 0.0, 1.0) });
    assert!((of(0) - mean(&fitted)).abs() < 1e-9);
    assert!([of(0), of(1), of(5), of(50), 100.0].is_sorted());
}

struct Names;

impl FeatureNames for Names {
    fn id(&self, name: &str) -> Option<FeatureId> {
        FEATURES.iter().position(|n| *n == name).map(|i| FeatureId(i as u16))
    }

    fn names(&self) -> Vec<&str> {
        FEATURES.to_vec()
    }

    fn motion(&self, _: FeatureId) -> Motion {
        Motion::Still
    }
}

fn valuer() -> Valuer {
    let spend = Some(Spend { p: 6.25, q: 3.74, v: 15.44, log_likelihood: 0.0 });
    let model = ValueModel { orders: published(), spend, annual_discount: ANNUAL_DISCOUNT, buyers: 1_000 };
    Valuer::new(&model, 30 * DAY_MS, &Names).unwrap()
}

#[test]
fn a_year_is_worth_its_orders_at_the_margin_less_a_discount() {
    let valuer = valuer();
    for frequency in [0, 3, 127, 128, 400] {
        let features = [f64::from(frequency), 200.0, 210.0, 30.0, 10.0];
        let value = valuer.value(&features, 0.5);
        let buyer = Buyer { monetary: 30.0, ..buyer(frequency, 200.0, 210.0) };
        let expected = valuer.orders.expected(&buyer, 365.0, &valuer.orders.dropout(frequency));
        let undiscounted = expected * valuer.spend.unwrap().expected(&buyer) * 0.5;
        let share = value.clv_365d.unwrap() / undiscounted;
        assert!((0.93..0.99).contains(&share), "{frequency}: {share}");
        assert_eq!(value.p_no_order, valuer.p_no_order(&features));
        assert_eq!(value.p_no_order, Some(valuer.orders.p_no_order(&buyer, 30.0)));
    }
}

#[test]
fn who_never_ordered_has_no_values_and_odd_numbers_give_no_odd_probability() {
    let valuer = valuer();
    assert_eq!(valuer.value(&[0.0, 0.0, 0.0, 0.0, f64::INFINITY], 0.3), Value::default());
    for features in [
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [1e9, 1e6, 1e6, 1e12, 0.0],
        [5.0, 50.0, 20.0, -3.0, -30.0],
        [3.0, 0.0, 1e7, 0.0, 1e7],
    ] {
        let Value { p_no_order, clv_365d } = valuer.value(&features, 0.3);
        assert!((0.0..=1.0).contains(&p_no_order.unwrap()), "{features:?}");
        assert!(clv_365d.unwrap() >= 0.0 && clv_365d.unwrap().is_finite(), "{features:?}");
    }
}

#[test]
fn too_few_buyers_or_returns_give_no_value_model() {
    let once = vec![buyer(0, 0.0, 100.0); 500];
    assert_eq!(ValueModel::fit(&once), None);
    let few: Vec<Buyer> = (0..99).map(|n| buyer(1, f64::from(n), 100.0)).collect();
    assert_eq!(ValueModel::fit(&few), None);
}
