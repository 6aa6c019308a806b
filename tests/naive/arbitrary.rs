//! Random histories of one customer and random small lifecycles, near the edges where mistakes live.
//!
//! Edges: gaps around the 30 minutes of a session, whole hours and days, windows' lengths and rules' literals.
//! Nothing here knows what the right answer is.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::json;
use stagecast::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Ts};

use super::event::{Ev, Kind, Money};

/// 2026-01-01T00:00:00Z.
pub const START: Ts = 1_767_225_600_000;

/// What a history may contain.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub max_events: usize,
    /// Events that arrive after later ones.
    pub late: bool,
    /// Profile events, which set and remove the traits `tier` and `seats`.
    pub profile: bool,
    /// Events that arrive twice, and ids used for a second event.
    pub duplicates: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { max_events: 40, late: false, profile: true, duplicates: true }
    }
}

/// The currencies that [`histories`] use: the base, none, and one with this rate.
pub fn money() -> Money {
    Money { rates: [("USD".to_owned(), 0.92)].into(), ..Money::default() }
}

/// One customer's events in order of arrival; never empty.
pub fn histories(shape: Shape) -> impl Strategy<Value = Vec<Ev>> {
    let start = prop_oneof![
        select(vec![0, -1, 1, HOUR_MS, 23 * HOUR_MS + 59 * MINUTE_MS]),
        0..2 * DAY_MS, // anywhere
    ];
    let steps = vec((gap(), event(shape.profile)), 1..=shape.max_events);
    (start, steps, disturbances(shape)).prop_map(|(start, steps, disturbances)| {
        let mut at = START + start;
        let mut events = Vec::new();
        for (i, (gap, event)) in steps.into_iter().enumerate() {
            at = if i == 0 { at } else { gap.after(at) };
            events.push(Ev { ts: at, id: Some(format!("e{i}")), ..event });
        }
        disturbances.into_iter().for_each(|d| d.disturb(&mut events));
        events
    })
}

/// How long until the next event.
#[derive(Clone, Copy, Debug)]
enum Gap {
    Of(i64),
    /// To this many milliseconds past the next boundary of this length.
    ToBoundary(i64, i64),
}

impl Gap {
    fn after(self, at: Ts) -> Ts {
        match self {
            Gap::Of(gap) => at + gap,
            Gap::ToBoundary(length, past) => at.max((at.div_euclid(length) + 1) * length + past),
        }
    }
}

fn gap() -> impl Strategy<Value = Gap> {
    let off_by_one = |ms: i64| (ms - 1..=ms + 1).prop_map(Gap::Of);
    prop_oneof![
        2 => Just(Gap::Of(0)),
        4 => (1..2 * SECOND_MS).prop_map(Gap::Of),
        6 => (SECOND_MS..20 * MINUTE_MS).prop_map(Gap::Of),
        3 => off_by_one(30 * MINUTE_MS),
        2 => off_by_one(DAY_MS),
        4 => (HOUR_MS..DAY_MS).prop_map(Gap::Of),
        6 => (DAY_MS..10 * DAY_MS).prop_map(Gap::Of),
        2 => (10 * DAY_MS..100 * DAY_MS).prop_map(Gap::Of),
        2 => (select(vec![1, 7, 14, 30, 45, 60, 90]), -1..=1i64).prop_map(|(d, off)| Gap::Of(d * DAY_MS + off)),
        2 => (select(vec![HOUR_MS, DAY_MS]), -1..=1i64).prop_map(|(length, past)| Gap::ToBoundary(length, past)),
    ]
}

/// What happens to the order of arrival.
#[derive(Clone, Debug)]
enum Disturbance {
    /// The event arrives again, so many places later.
    Again(Index, usize),
    /// A second event is given the id of the one so many places earlier.
    SameId(Index, usize),
    /// The event arrives so many places later.
    Late(Index, usize),
}

impl Disturbance {
    fn disturb(self, events: &mut Vec<Ev>) {
        let len = events.len();
        match self {
            Disturbance::Again(i, later) => {
                let i = i.index(len);
                events.insert((i + 1 + later).min(len), events[i].clone());
            }
            Disturbance::SameId(i, earlier) => {
                let i = i.index(len);
                events[i].id = events[i.saturating_sub(earlier)].id.clone();
            }
            Disturbance::Late(i, later) => {
                let event = events.remove(i.index(len));
                events.insert((i.index(len) + later).min(len - 1), event);
            }
        }
    }
}

/// Without lateness, an event arrives again only at once, so that event time never goes back.
fn disturbances(shape: Shape) -> BoxedStrategy<Vec<Disturbance>> {
    let places = if shape.late { 0..8usize } else { 0..1 };
    let again = (any::<Index>(), places).prop_map(|(i, n)| Disturbance::Again(i, n)).boxed();
    let same_id = (any::<Index>(), 1..4usize).prop_map(|(i, n)| Disturbance::SameId(i, n)).boxed();
    let late = (any::<Index>(), 1..8usize).prop_map(|(i, n)| Disturbance::Late(i, n)).boxed();
    let mut kinds = Vec::new();
    if shape.duplicates {
        kinds.extend([again, same_id]);
    }
    if shape.late {
        kinds.push(late);
    }
    if kinds.is_empty() {
        Just(Vec::new()).boxed()
    } else {
        vec(proptest::strategy::Union::new(kinds), 0..5).boxed()
    }
}

/// An event without its time and id.
fn event(profile: bool) -> BoxedStrategy<Ev> {
    prop_oneof![
        8 => clickstream(),
        5 => purchase(),
        3 => support(),
        if profile { 1 } else { 0 } => traits(),
    ]
    .boxed()
}

fn clickstream() -> impl Strategy<Value = Ev> {
    #[rustfmt::skip]
    let types = vec![
        "page_viewed", "product_viewed", "products_searched", "product_added", "checkout_started", "email_opened",
        "product_shared", "product_reviewed", "referral_sent", "unsubscribed", "hovered",
    ];
    select(types).prop_map(|type_| Ev::new(Kind::Clickstream, type_, 0))
}

fn purchase() -> impl Strategy<Value = Ev> {
    #[rustfmt::skip]
    let types = vec![
        "order_completed", "order_completed", "order_completed", "order_refunded", "order_cancelled",
        "subscription_started", "subscription_cancelled",
    ];
    let amount = prop_oneof![
        3 => (0..50_000i64).prop_map(|cents| cents as f64 / 100.0),
        1 => select(vec![0.0, 0.01, 50.0, 100.0, 99.99, 33.333_333_3]),
    ];
    let currency = select(vec![None, Some("EUR".to_owned()), Some("USD".to_owned())]);
    (select(types), amount, currency).prop_map(|(type_, amount, currency)| {
        let priced = ["order_completed", "order_refunded"].contains(&type_);
        let (amount, currency) = if priced { (Some(amount), currency) } else { (None, None) };
        Ev { amount, currency, ..Ev::new(Kind::Purchase, type_, 0) }
    })
}

fn support() -> impl Strategy<Value = Ev> {
    let types = vec![
        "ticket_opened",
        "ticket_opened",
        "ticket_replied",
        "ticket_solved",
        "ticket_reopened",
        "csat_rated",
    ];
    let sentiment = proptest::option::of((-100..=100i64).prop_map(|n| n as f64 / 100.0));
    (select(types), sentiment, 1..=5u8).prop_map(|(type_, sentiment, csat)| {
        let csat = (type_ == "csat_rated").then(|| f64::from(csat));
        Ev { sentiment, csat, ..Ev::new(Kind::Support, type_, 0) }
    })
}

fn traits() -> impl Strategy<Value = Ev> {
    let tier = select(vec![json!("gold"), json!("basic"), json!(null)]).prop_map(|v| ("tier".to_owned(), v));
    let seats = select(vec![json!(5), json!(50), json!(null)]).prop_map(|v| ("seats".to_owned(), v));
    vec(prop_oneof![tier, seats], 0..3).prop_map(|traits| Ev {
        traits: traits.into_iter().collect(),
        ..Ev::new(Kind::Profile, "traits_updated", 0)
    })
}

/// What rules may name besides the features of the catalogue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vocabulary {
    /// The traits `tier` and `seats`.
    pub traits: bool,
    pub p_churn: bool,
}

/// The text of a lifecycle file: two to five stages with rules over the catalogue (and the traits `tier` and
/// `seats`, if asked for).
pub fn lifecycles(name: &'static str, traits: bool) -> impl Strategy<Value = String> {
    lifecycles_over(name, Vocabulary { traits, ..Vocabulary::default() })
}

/// As [`lifecycles`], with rules over all of this vocabulary.
pub fn lifecycles_over(name: &'static str, words: Vocabulary) -> impl Strategy<Value = String> {
    (2..=5usize).prop_flat_map(move |n| {
        let stages = (0..n).map(|i| stage(i, n, words)).collect::<Vec<_>>();
        (0..n, stages).prop_map(move |(initial, mut stages)| {
            open_up_unreachable(initial, &mut stages);
            let stages: String = stages.into_iter().map(|stage| stage.text()).collect();
            format!("name = \"{name}\"\ninitial = \"s{initial}\"\n{stages}")
        })
    })
}

#[derive(Clone, Debug)]
struct StageText {
    rules: String,
    from: Option<Vec<usize>>,
}

impl StageText {
    fn text(self) -> String {
        let names =
            |from: Vec<usize>| from.iter().map(|j| format!("\"s{j}\"")).collect::<Vec<_>>().join(", ");
        let from = self.from.map(|from| format!("from = [{}]\n", names(from)));
        self.rules + &from.unwrap_or_default()
    }
}

/// Lets every stage that no chain of `from` leads to be entered from anywhere; a file with one is refused.
fn open_up_unreachable(initial: usize, stages: &mut [StageText]) {
    let mut reached = vec![initial];
    let mut at = 0;
    while at < reached.len() {
        let leads = |s: &StageText| s.from.as_ref().is_none_or(|from| from.contains(&reached[at]));
        let next: Vec<usize> =
            (0..stages.len()).filter(|i| leads(&stages[*i]) && !reached.contains(i)).collect();
        reached.extend(next);
        at += 1;
    }
    for (i, stage) in stages.iter_mut().enumerate().filter(|(i, _)| !reached.contains(i)) {
        debug_assert!(i != initial);
        stage.from = None;
    }
}

fn stage(i: usize, n: usize, words: Vocabulary) -> impl Strategy<Value = StageText> {
    let from = proptest::sample::subsequence((0..n).collect::<Vec<_>>(), 1..=n);
    let dwell = select(vec!["90m", "1h", "1d", "36h", "10d"]);
    (
        rule(words),
        proptest::option::weighted(0.4, rule(words)),
        proptest::option::weighted(0.3, from),
        proptest::option::weighted(0.3, dwell),
    )
        .prop_map(move |(enter, stay, from, dwell)| {
            let mut text = format!("[[stage]]\nname = \"s{i}\"\nenter = '{enter}'\n");
            if let Some(stay) = stay {
                text += &format!("stay = '{stay}'\n");
            }
            if let Some(dwell) = dwell {
                text += &format!("min_dwell = \"{dwell}\"\n");
            }
            StageText { rules: text, from }
        })
}

/// A rule: comparisons of one feature with one literal, joined by `&&`, `||` and `!`.
pub fn rule(words: Vocabulary) -> BoxedStrategy<String> {
    let atom = prop_oneof![
        4 => counts(),
        4 => days(),
        1 => ratios(),
        1 => Just("true".to_owned()),
        if words.traits { 1 } else { 0 } => traits_rule(),
        if words.p_churn { 1 } else { 0 } => compare(vec!["p_churn"], ORDER.to_vec(), vec!["0.2", "0.5", "0.7"]),
    ];
    atom.prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} && {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
    .boxed()
}

fn compare(
    features: Vec<&'static str>,
    ops: Vec<&'static str>,
    literals: Vec<&'static str>,
) -> BoxedStrategy<String> {
    (select(features), select(ops), select(literals)).prop_map(|(f, op, c)| format!("{f} {op} {c}")).boxed()
}

const ORDER: [&str; 4] = ["<", "<=", ">", ">="];

/// Whole numbers, which only an event or the end of a window changes.
#[rustfmt::skip]
fn counts() -> BoxedStrategy<String> {
    let features = vec![
        "events_7d", "events_30d", "events_90d", "events_lifetime", "clicks_1d", "clicks_7d", "clicks_90d",
        "sessions_7d", "sessions_30d", "active_days_7d", "active_days_90d", "product_views_7d", "cart_adds_30d",
        "searches_30d", "checkouts_30d", "emails_opened_30d", "shares_90d", "orders_7d", "orders_30d", "orders_90d",
        "orders_lifetime", "refunds_30d", "tickets_30d", "open_tickets", "rfm_frequency",
    ];
    let ops = ["==", "!="].into_iter().chain(ORDER).collect();
    compare(features, ops, vec!["0", "1", "2", "3", "1.0", "5"])
}

/// Values that grow by the millisecond. `stage_days` is compared with nothing near 0: two stages left at
/// `stage_days > 0` would take turns every millisecond for ever.
#[rustfmt::skip]
fn days() -> BoxedStrategy<String> {
    let features = vec![
        "days_since_event", "days_since_click", "days_since_order", "days_since_ticket", "tenure_days", "rfm_age_days",
        "days_since_subscription_started", "days_since_subscription_cancelled",
    ];
    let mut ops = ORDER.repeat(3);
    ops.push("==");
    let literals = vec!["0.5", "1", "1.234567", "2", "7", "14", "30", "30.0", "45", "60"];
    let or_zero = literals.iter().copied().chain(["0"]).collect();
    prop_oneof![
        6 => compare(features, ops, or_zero),
        1 => compare(vec!["stage_days"], ORDER.to_vec(), literals),
    ]
    .boxed()
}

/// Amounts, means and ratios.
#[rustfmt::skip]
fn ratios() -> BoxedStrategy<String> {
    let ops = ORDER.to_vec();
    prop_oneof![
        compare(vec!["revenue_30d", "revenue_90d", "revenue_lifetime"], ops.clone(), vec!["0", "100", "99.99", "500.5"]),
        compare(vec!["sentiment_90d", "csat_90d"], ops.clone(), vec!["0", "0.25", "-0.2", "3"]),
        compare(vec!["clicks_trend_14d", "orders_trend_14d"], ops.clone(), vec!["0", "0.5", "-0.5", "0.31"]),
        compare(vec!["order_gap_days", "rfm_recency_days"], ops.clone(), vec!["7", "30", "1.5"]),
        compare(vec!["overdue_ratio", "activity_overdue_60d"], ops.clone(), vec!["1", "1.5", "2"]),
        compare(vec!["order_value_lifetime", "rfm_monetary", "clv_to_date"], ops, vec!["0", "20.123", "75.5"]),
    ]
    .boxed()
}

fn traits_rule() -> BoxedStrategy<String> {
    select(vec![
        r#"traits.tier == "gold""#,
        r#"traits.tier != "gold""#,
        "traits.seats >= 20",
        "traits.seats < 20.5",
    ])
    .prop_map(str::to_owned)
    .boxed()
}
