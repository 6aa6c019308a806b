//! The naive model itself, held against values and histories worked out by hand.

mod naive;

use naive::arbitrary::{START, Shape, histories, lifecycles, money};
use naive::features::{leaves_window, names};
use naive::{
    Ev, Grid, Kind, Money, Policy, Scoring, Trigger, View, World, features, history, in_window,
    score_instants, walk,
};
use proptest::prelude::*;
use serde_json::json;
use stagecast::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Ts};

fn value(name: &str, events: &[Ev], at: Ts) -> f64 {
    View { events, at, money: &money() }.get(name)
}

fn day(n: i64) -> Ts {
    START + n * DAY_MS
}

// Windows

#[test]
fn a_window_loses_an_event_at_the_hop_boundary_and_not_a_millisecond_earlier() {
    for (what, ts, window, leaves) in [
        ("7 d, mid hour", START + 30 * MINUTE_MS, 7 * DAY_MS, day(7)),
        ("7 d, on the hour", START, 7 * DAY_MS, day(7)),
        ("7 d, just before the hour", START - 1, 7 * DAY_MS, day(7) - HOUR_MS),
        ("1 d, last millisecond of the hour", START + HOUR_MS - 1, DAY_MS, day(1)),
        ("30 d, last millisecond of the day", day(1) - 1, 30 * DAY_MS, day(30)),
        ("30 d, on the day", day(1), 30 * DAY_MS, day(31)),
        (
            "an hour less than 12 d hops by the hour",
            START + 330 * MINUTE_MS,
            287 * HOUR_MS,
            START + 292 * HOUR_MS,
        ),
        ("12 d hops by the day", START + 330 * MINUTE_MS, 12 * DAY_MS, day(12)),
        ("before 1970", -1, DAY_MS, 23 * HOUR_MS),
    ] {
        assert!(in_window(ts, ts, Some(window)), "{what}: counts at once");
        assert!(!in_window(ts, ts - 1, Some(window)), "{what}: does not count before it happens");
        assert!(in_window(ts, leaves - 1, Some(window)), "{what}: still counts");
        assert!(!in_window(ts, leaves, Some(window)), "{what}: has left");
        assert_eq!(leaves_window(ts, window), leaves, "{what}: solved");
        assert!(in_window(ts, leaves + 1_000 * DAY_MS, None), "{what}: a lifetime forgets nothing");
    }
}

#[test]
fn kinds_and_types_count_where_the_catalogue_says() {
    let events = [
        Ev::click(START),
        Ev::new(Kind::Clickstream, "product_shared", START),
        Ev::new(Kind::Clickstream, "hovered", START),
        Ev::new(Kind::Purchase, "order_cancelled", START),
        Ev::order(START, 10.0),
        Ev::support("ticket_replied", START),
        Ev::new(Kind::Profile, "traits_updated", START),
    ];
    for (name, expected) in [
        ("events_7d", 6.0),
        ("clicks_1d", 3.0),
        ("shares_90d", 1.0),
        ("orders_lifetime", 1.0),
        ("tickets_7d", 0.0),
        ("days_since_ticket", f64::INFINITY),
        ("days_since_event", 1.0),
    ] {
        assert_eq!(
            value(name, &events, day(1) - if name == "clicks_1d" { 1 } else { 0 }),
            expected,
            "{name}"
        );
    }
}

#[test]
fn active_days_are_utc_days_and_profile_events_are_no_activity() {
    let events = [
        Ev::click(START + 1),
        Ev::support("ticket_replied", day(1) - 1),
        Ev::order(day(1), 5.0),
        Ev::new(Kind::Profile, "traits_updated", day(3)),
    ];
    assert_eq!(value("active_days_7d", &events, day(3)), 2.0);
    assert_eq!(
        value("active_days_7d", &events, day(7)),
        2.0,
        "23:59:59.999 of the first day is still inside"
    );
    assert_eq!(value("active_days_7d", &events, day(7) + 23 * HOUR_MS), 1.0);
    assert_eq!(value("active_days_30d", &events, day(30)), 1.0);
    let only_profile = &events[3..];
    assert_eq!(value("tenure_days", only_profile, day(9)), 0.0);
    assert_eq!(value("days_since_event", only_profile, day(9)), f64::INFINITY);
    assert_eq!(value("tenure_days", &events, day(9) + 1), 9.0);
}

#[test]
fn a_session_ends_with_thirty_minutes_of_silence_and_counts_by_its_start() {
    let half_hour = 30 * MINUTE_MS;
    let first = START + 50 * MINUTE_MS;
    let clicks = [
        Ev::click(first),
        Ev::click(first),                     // the same instant: the same session
        Ev::click(first + half_hour - 1),     // goes on
        Ev::click(first + 2 * half_hour - 1), // exactly 30 min later: a new one
        Ev::order(first + 3 * half_hour, 1.0),
        Ev::click(first + 3 * half_hour), // orders keep no session alive
    ];
    assert_eq!(value("sessions_7d", &clicks[..3], day(1)), 1.0);
    assert_eq!(value("sessions_7d", &clicks[..4], day(1)), 2.0);
    assert_eq!(value("sessions_7d", &clicks, day(1)), 3.0);
    assert_eq!(value("sessions_7d", &clicks, day(7)), 2.0, "the first started in the hour that left");
    assert_eq!(value("clicks_7d", &clicks, day(7)), 3.0, "its third click came an hour later");
}

#[test]
fn a_late_click_joins_two_sessions() {
    let apart = [Ev::click(START), Ev::click(START + 40 * MINUTE_MS)];
    let joined = [apart[0].clone(), apart[1].clone(), Ev::click(START + 20 * MINUTE_MS)];
    assert_eq!(value("sessions_30d", &apart, day(1)), 2.0);
    assert_eq!(value("sessions_30d", &joined, day(1)), 1.0);
}

#[test]
fn a_trend_compares_fourteen_days_with_the_fourteen_before() {
    let orders =
        [Ev::order(day(0), 1.0), Ev::order(day(20), 1.0), Ev::order(day(21), 1.0), Ev::order(day(27), 1.0)];
    assert_eq!(value("orders_trend_14d", &orders, day(27)), (3.0 - 1.0) / (3.0 + 1.0 + 1.0));
    assert_eq!(value("orders_trend_14d", &orders, day(28)), 3.0 / 4.0, "the first has left the 28 days");
    assert_eq!(value("orders_trend_14d", &orders, day(35)), (1.0 - 2.0) / (1.0 + 2.0 + 1.0));
    assert_eq!(value("clicks_trend_14d", &orders, day(35)), 0.0);
}

#[test]
fn orders_make_gaps_rfm_and_value() {
    let ten = START + 10 * HOUR_MS;
    let mut events = vec![
        Ev::order(ten, 50.0),
        Ev::order(ten + 2 * HOUR_MS, 30.0),
        Ev { currency: Some("USD".into()), ..Ev::order(ten + 10 * DAY_MS, 40.0) },
        Ev { amount: Some(10.0), ..Ev::new(Kind::Purchase, "order_refunded", ten + 11 * DAY_MS) },
        Ev { currency: Some("EUR".into()), ..Ev::order(ten + 21 * DAY_MS, 20.0) },
    ];
    let now = ten + 35 * DAY_MS;
    for (name, expected) in [
        ("revenue_lifetime", 136.8),
        ("revenue_30d", 56.8),
        ("order_value_lifetime", 34.2),
        ("refunds_30d", 1.0),
        ("order_gap_days", 7.0),
        ("days_since_order", 14.0),
        ("overdue_ratio", 2.0),
        ("rfm_frequency", 2.0),
        ("rfm_recency_days", 21.0),
        ("rfm_age_days", 35.0),
        ("rfm_monetary", 28.4),
        ("clv_to_date", (136.8 - 10.0) * 0.3),
    ] {
        assert_eq!(value(name, &events, now), expected, "{name}");
    }
    events.truncate(1);
    assert_eq!(value("order_gap_days", &events, now), f64::INFINITY);
    assert_eq!(value("overdue_ratio", &events, now), 0.0);
    assert_eq!(value("rfm_frequency", &events, now), 0.0);
    assert_eq!(value("rfm_monetary", &events, now), 0.0);
    events.push(events[0].clone());
    assert_eq!(value("order_gap_days", &events, now), 0.0);
    assert_eq!(value("overdue_ratio", &events, ten), 0.0);
    assert_eq!(value("overdue_ratio", &events, ten + 1), 0.0, "orders at one instant have no rhythm");
}

#[test]
fn money_is_rounded_to_millionths_per_event() {
    let events =
        [Ev::order(START, 0.000_000_4), Ev::order(START, 0.000_000_4), Ev::order(START, 0.000_000_6)];
    assert_eq!(value("revenue_lifetime", &events, START), 0.000_001);
}

#[test]
fn open_tickets_never_fall_below_zero_and_means_are_over_those_that_carry_one() {
    let feeling = |type_: &str, ts, s| Ev { sentiment: Some(s), ..Ev::support(type_, ts) };
    let events = [
        Ev::support("ticket_solved", day(0)),
        feeling("ticket_opened", day(1), -0.5),
        feeling("ticket_reopened", day(2), 0.2),
        Ev::support("ticket_solved", day(3)),
        Ev { csat: Some(4.0), ..Ev::support("csat_rated", day(4)) },
    ];
    assert_eq!(value("open_tickets", &events, day(0)), 0.0);
    assert_eq!(value("open_tickets", &events, day(1)), 0.0, "the solved one counts against the lifetime");
    assert_eq!(value("open_tickets", &events, day(2)), 1.0);
    assert_eq!(value("open_tickets", &events, day(4)), 0.0);
    assert_eq!(value("sentiment_90d", &events, day(4)), -0.15);
    assert_eq!(value("sentiment_90d", &events, day(91)), 0.2);
    assert_eq!(value("csat_90d", &events, day(3)), 0.0);
    assert_eq!(value("csat_90d", &events, day(4)), 4.0);
}

// Dedupe

#[test]
fn a_repeated_id_is_dropped_within_a_day_of_the_newest_event_and_forgotten_after() {
    let counted = |events: &[Ev]| history(&World::new(&[]), events, day(9)).applied.len();
    let first = || Ev::click(START).with_id("a");
    assert_eq!(counted(&[first(), first()]), 1);
    assert_eq!(counted(&[first(), Ev::click(day(1)).with_id("a")]), 1, "to the horizon");
    assert_eq!(counted(&[first(), Ev::click(day(1) + 1).with_id("a")]), 2, "past the horizon");
    assert_eq!(counted(&[first(), Ev::click(day(1)), first()]), 2);
    assert_eq!(counted(&[first(), Ev::click(day(1) + 1), first()]), 3, "forgotten, so it counts again");
    assert_eq!(counted(&[Ev::click(START), Ev::click(START)]), 2, "no id, no dedupe");
}

// Lifecycles

/// Changes as text, so that a history reads as one: day (or instant) | from > to | trigger visit stage_days.
fn told(events: &[Ev], lifecycle: &str, until: Ts) -> Vec<String> {
    let changes = walk(events, lifecycle, until);
    for (i, change) in changes.iter().enumerate() {
        assert_eq!(change.sequence, i as u64 + 1);
        assert_eq!(change.event_id.is_some(), change.trigger == Trigger::Event);
    }
    let tell = |c: naive::StageChange| {
        let (days, rest) = ((c.ts - START).div_euclid(DAY_MS), (c.ts - START).rem_euclid(DAY_MS));
        let when = if rest == 0 { format!("{days}d") } else { format!("{days}d+{rest}ms") };
        format!("{when} {}>{} {} #{} {}", c.from, c.to, c.trigger.name(), c.visit, c.stage_days)
    };
    changes.into_iter().map(tell).collect()
}

const RETENTION: &str = r#"
name    = "retention"
initial = "fresh"
[[stage]]
name  = "loyal"
enter = "orders_90d >= 2 && days_since_order < 45"
stay  = "days_since_order < 60"
from  = ["active"]
[[stage]]
name  = "active"
enter = "orders_lifetime >= 1 && days_since_event < 45"
[[stage]]
name  = "lapsed"
enter = "days_since_event >= 45"
[[stage]]
name  = "fresh"
enter = "false"
stay  = "days_since_event < 45"
"#;

#[test]
fn a_customer_goes_up_falls_silent_and_comes_all_the_way_back_in_one_instant() {
    let events = [
        Ev::click(day(0)).with_id("a"),
        Ev::order(day(10), 9.0).with_id("b"), // fresh > active
        Ev::order(day(20), 9.0).with_id("c"), // active > loyal
        // hysteresis: loyal beyond 45 days, to 60
        Ev::order(day(100), 9.0).with_id("d"), // lapsed > active > loyal: `from` makes it pass through active
    ];
    assert_eq!(
        told(&events, RETENTION, day(400)),
        [
            "10d fresh>active event #1 10",
            "20d active>loyal event #1 10",
            "80d loyal>lapsed silence #1 60",
            "100d lapsed>active event #2 20",
            "100d active>loyal event #2 0",
            "160d loyal>lapsed silence #2 60",
        ]
    );
    assert_eq!(told(&events, RETENTION, day(160) - 1).len(), 5, "not before its time");
    assert_eq!(told(&events, RETENTION, day(160)).len(), 6, "`until` is included");
}

#[test]
fn silence_speaks_at_exactly_last_plus_45_days() {
    let events = [Ev::click(START + 7).with_id("a"), Ev::order(START + 1_007, 1.0).with_id("b")];
    assert_eq!(
        told(&events, RETENTION, day(60)),
        ["0d+1007ms fresh>active event #1 0.000011574074074074073", "45d+1007ms active>lapsed silence #1 45"]
    );
    let strictly = RETENTION.replace("days_since_event >= 45", "days_since_event > 45");
    assert_eq!(
        told(&events[..1], &strictly, day(60)),
        ["45d+8ms fresh>lapsed silence #1 45.00000001157407"],
        "a strict comparison flips one millisecond later"
    );
    assert_eq!(
        told(
            &[events[0].clone(), Ev::new(Kind::Profile, "traits_updated", day(45) + 7).with_id("p")],
            RETENTION,
            day(50)
        ),
        ["45d+7ms fresh>lapsed event #1 45"],
        "an event at that very instant is what speaks"
    );
}

const HEAT: &str = r#"
name    = "heat"
initial = "cold"
[[stage]]
name  = "boiling"
enter = "clicks_1d >= 4"
from  = ["hot"]
[[stage]]
name  = "hot"
enter = "clicks_1d >= 2"
min_dwell = "36h"
[[stage]]
name  = "cold"
enter = "true"
"#;

#[test]
fn the_end_of_a_min_dwell_is_an_instant_of_its_own() {
    let ten = 10 * MINUTE_MS;
    let mut events = vec![Ev::click(START).with_id("a"), Ev::click(START + ten).with_id("b")];
    let cooled = format!("1d+{}ms hot>cold silence #2 1.5", 12 * HOUR_MS + ten);
    assert_eq!(
        told(&events, HEAT, day(9)),
        [format!("0d+{ten}ms cold>hot event #1 {}", ten as f64 / DAY_MS as f64), cooled],
        "both clicks have left at 1d, but the dwell lasts to 36 h after the move"
    );
    let seen = score_times(&events, HEAT, day(2));
    assert_eq!(
        seen,
        [START, START + ten, day(1), START + ten + 36 * HOUR_MS],
        "the flip at 1d is looked at too"
    );
    let third = day(1) + 12 * HOUR_MS - 2;
    events
        .extend([third, third + 1, third + 2, third + 3].map(|ts| Ev::click(ts).with_id(&format!("c{ts}"))));
    assert_eq!(
        told(&events, HEAT, day(2))[1..],
        [format!("1d+{}ms hot>boiling silence #1 1.5", 12 * HOUR_MS + ten)],
        "four clicks late in the dwell: the move waits for its end"
    );
}

/// When a customer of a lifecycle is evaluated, rescoring left out.
fn score_times(events: &[Ev], lifecycle: &str, until: Ts) -> Vec<Ts> {
    let zero = |_: &View| 0.0;
    let scoring = Scoring { rescore_every: 1_000_000 * DAY_MS, ..Scoring::new(&zero) };
    let world = World::new(&[lifecycle]).with_scoring(scoring);
    history(&world, events, until).scored.into_iter().map(|(ts, _)| ts).collect()
}

#[test]
fn a_windowed_rule_flips_within_one_hop() {
    let lapses = r#"
name = "l"
initial = "on"
[[stage]]
name = "on"
enter = "events_30d > 0"
[[stage]]
name = "off"
enter = "true"
"#;
    let noon = START + 12 * HOUR_MS;
    assert_eq!(told(&[Ev::click(noon).with_id("a")], lapses, day(99)), ["30d on>off silence #1 29.5"]);
}

#[test]
fn no_stage_is_visited_twice_at_one_instant_and_the_walk_says_so() {
    let pair = r#"
name = "pair"
initial = "a"
[[stage]]
name = "b"
enter = "true"
stay = "false"
[[stage]]
name = "a"
enter = "true"
"#;
    let events = [Ev::click(START).with_id("x"), Ev::click(day(1)).with_id("y")];
    let world = World::new(&[pair]);
    assert!(history(&world, &events, day(2)).restless);
    assert_eq!(told(&events, pair, day(2)), ["0d a>b event #1 0", "1d b>a event #2 1",]);
    assert!(!history(&World::new(&[RETENTION]), &events, day(99)).restless);
}

#[test]
fn a_late_event_is_evaluated_as_of_the_last_instant_but_counts_at_its_own() {
    let events =
        [Ev::click(day(0)).with_id("a"), Ev::click(day(5)).with_id("b"), Ev::order(day(3), 1.0).with_id("c")];
    assert_eq!(
        told(&events, RETENTION, day(99)),
        ["5d fresh>active event #1 5", "50d active>lapsed silence #1 45"],
    );
}

#[test]
fn traits_decide_and_a_missing_trait_decides_nothing() {
    let tiers = r#"
name = "tiers"
initial = "plain"
[[stage]]
name = "gold"
enter = 'traits.tier == "gold" && traits.seats >= 20'
[[stage]]
name = "plain"
enter = "true"
"#;
    let profile = |ts, id, traits: serde_json::Value| Ev {
        traits: serde_json::from_value(traits).expect("an object"),
        ..Ev::new(Kind::Profile, "traits_updated", ts).with_id(id)
    };
    let events = [
        Ev::click(day(0)).with_id("a"),
        profile(day(1), "b", json!({"tier": "gold"})),
        profile(day(2), "c", json!({"seats": 20})),
        profile(day(3), "d", json!({"tier": null})),
    ];
    assert_eq!(told(&events, tiers, day(9)), ["2d plain>gold event #1 2", "3d gold>plain event #2 1"]);
}

#[test]
fn silence_rests_for_a_second_and_moves_a_customer_a_thousand_times_at_most() {
    let restless = r#"
name = "restless"
initial = "a"
[[stage]]
name = "a"
enter = "stage_days > 0"
stay = "false"
[[stage]]
name = "b"
enter = "stage_days > 0"
stay = "false"
"#;
    let changes = walk(&[Ev::click(START)], restless, day(1));
    assert_eq!(changes.len(), 1_000);
    let first: Vec<i64> = changes.iter().take(3).map(|c| c.ts - START).collect();
    assert_eq!(first, [1, 1_001, 2_001]);
}

// Scores and alerts

/// Scores each click by its place in a list.
fn scripted(script: &'static [f64]) -> impl Fn(&View) -> f64 {
    move |view| script[view.get("clicks_lifetime") as usize - 1]
}

#[test]
fn a_score_is_emitted_first_when_it_moved_and_when_its_band_changes() {
    let p = scripted(&[0.1, 0.105, 0.111, 0.2995, 0.3, 0.305, 0.7, 0.699]);
    let clicks: Vec<Ev> = (0..8).map(|i| Ev::click(START + i)).collect();
    let world = World::new(&[RETENTION]).with_scoring(Scoring::new(&p));
    let scores = history(&world, &clicks, START + 8).scores();
    let said: Vec<String> = scores.iter().map(|s| format!("{} {}", s.p, s.band.name())).collect();
    assert_eq!(said, ["0.1 low", "0.111 low", "0.2995 low", "0.3 medium", "0.7 high", "0.699 medium"]);
    assert_eq!(scores[0].stages, [("retention".to_owned(), "fresh".to_owned())].into());
}

#[test]
fn a_silent_customer_is_rescored_a_day_after_the_last_scoring() {
    let p = |view: &View| view.get("days_since_event") / 10.0;
    let clicks = [Ev::click(START), Ev::click(day(1) + 5), Ev::click(day(3))];
    let scored: Vec<Ts> =
        score_instants(&clicks, Scoring::new(&p), day(5)).into_iter().map(|(ts, _)| ts).collect();
    assert_eq!(scored, [START, day(1), day(1) + 5, day(2) + 5, day(3), day(4), day(5)]);
}

#[test]
fn an_alert_fires_once_rearms_below_clear_and_rests_for_its_cooldown() {
    let script = &[0.7, 0.71, 0.9, 0.5, 0.8, 0.49, 0.8, 0.8, 0.8];
    let p = scripted(script);
    let hours = [0, 1, 2, 3, 4, 5, 6, 1 + 48 - 1, 1 + 48];
    let clicks: Vec<Ev> = hours.iter().map(|h| Ev::click(START + h * HOUR_MS)).collect();
    let policy = Policy::on_score("churn", 0.7, 0.5, 2 * DAY_MS);
    let scoring = Scoring { policies: vec![policy], rescore_every: 99 * DAY_MS, ..Scoring::new(&p) };
    let alerts = history(&World::new(&[]).with_scoring(scoring), &clicks, day(9)).alerts();
    let fired: Vec<i64> = alerts.iter().map(|a| (a.ts - START) / HOUR_MS).collect();
    assert_eq!(
        fired,
        [1, 49],
        "0.7 does not rise above; 0.5 does not clear; re-armed at 5 h, rested at 49 h"
    );
}

#[test]
fn outputs_of_one_instant_are_stages_then_score_then_alerts() {
    let p = |view: &View| if view.get("orders_lifetime") > 0.0 { 0.9 } else { 0.1 };
    let world = World::new(&[HEAT, RETENTION]).with_scoring(Scoring::new(&p));
    let events = [Ev::click(START), Ev::click(START + 1), Ev::order(START + SECOND_MS, 1.0)];
    let outputs = history(&world, &events, START + SECOND_MS).outputs;
    let names: Vec<String> = outputs
        .iter()
        .map(|o| match o {
            naive::Output::Stage(c) => format!("{} {} #{}", c.lifecycle, c.to, c.sequence),
            naive::Output::Score(s) => format!("{}", s.p),
            naive::Output::Alert(a) => a.policy.clone(),
        })
        .collect();
    assert_eq!(names, ["0.1", "heat hot #1", "retention active #2", "0.9", "churn"]);
}

// What holds for every history

fn shape(late: bool) -> Shape {
    Shape { max_events: 25, late, ..Shape::default() }
}

/// A score that moves with activity and with silence.
fn some_score(view: &View) -> f64 {
    let z =
        0.05 * view.get("days_since_event").min(1e3) - 0.2 * view.get("events_30d") - view.get("orders_90d")
            + 1.0;
    1.0 / (1.0 + (-z).exp())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn looking_only_where_a_window_can_lose_an_event_misses_nothing(
        events in histories(Shape { max_events: 8, ..shape(true) }),
        lifecycle in lifecycles("x", true),
    ) {
        let until = events.iter().map(|e| e.ts).max().unwrap_or(START) + 20 * DAY_MS;
        let world = |grid| World::new(&[&lifecycle]).with_money(money()).with_grid(grid);
        prop_assume!(until - START < 150 * DAY_MS);
        let sparse = history(&world(Grid::Expiries), &events, until);
        prop_assert_eq!(sparse, history(&world(Grid::EveryHour), &events, until));
    }

    #[test]
    fn what_is_written_up_to_an_instant_does_not_depend_on_what_comes_later(
        events in histories(shape(false)),
        lifecycle in lifecycles("x", true),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = events[cut.index(events.len())].ts - 1;
        let before: Vec<Ev> = events.iter().filter(|e| e.ts <= cut).cloned().collect();
        let run = |events: &[Ev], until| {
            let world = World::new(&[&lifecycle]).with_money(money()).with_scoring(Scoring::new(&some_score));
            history(&world, events, until).outputs
        };
        let whole = run(&events, cut).into_iter().filter(|o| o.ts() <= cut).collect::<Vec<_>>();
        prop_assert_eq!(run(&before, cut), whole);
    }

    #[test]
    fn another_lifecycle_and_the_scores_leave_a_lifecycle_alone(
        events in histories(shape(true)),
        lifecycle in lifecycles("x", true),
        other in lifecycles("y", true),
    ) {
        let until = events.iter().map(|e| e.ts).max().unwrap_or(START) + 90 * DAY_MS;
        let alone = history(&World::new(&[&lifecycle]).with_money(money()), &events, until);
        // Every evaluated instant evaluates all; only one that would have moved anyway is not left alone.
        prop_assume!(!alone.restless);
        let alone = alone.stage_changes();
        // Who has moved so often in silence moves on only where it is scored anyway, which the scores decide.
        prop_assume!(alone.len() < 1_000);
        prop_assume!(alone.windows(2).all(|pair| pair[1].ts == pair[0].ts || pair[1].ts - pair[0].ts > SECOND_MS));
        let world = World::new(&[&other, &lifecycle]).with_money(money()).with_scoring(Scoring::new(&some_score));
        let mut beside = history(&world, &events, until).stage_changes();
        beside.retain(|c| c.lifecycle == "x");
        beside.iter_mut().enumerate().for_each(|(i, c)| c.sequence = i as u64 + 1);
        prop_assert_eq!(alone, beside);
    }

    #[test]
    fn features_do_not_depend_on_the_order_of_arrival(events in histories(shape(false)), seed in any::<u64>()) {
        let at = events.iter().map(|e| e.ts).max().unwrap_or(START) + (seed % 40) as i64 * DAY_MS;
        let mut shuffled = events.clone();
        shuffled.sort_by_key(|e| (e.ts as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        prop_assert_eq!(features(&events, at, &money()), features(&shuffled, at, &money()));
        prop_assert_eq!(features(&events, at, &money()).len(), names().len());
    }
}

/// Not a promise but a measurement: `cargo test --test naive_selftest speed -- --ignored --nocapture`.
#[test]
#[ignore = "prints how long a walk takes"]
fn speed() {
    let events: Vec<Ev> = (0..60)
        .map(|i| (START + i * 80 * HOUR_MS + i * i * MINUTE_MS, i))
        .map(|(ts, i)| if i % 4 == 0 { Ev::order(ts, 10.0) } else { Ev::click(ts) })
        .collect();
    for (what, scoring) in [("stages only", None), ("with scores", Some(Scoring::new(&some_score)))] {
        let mut world = World::new(&[RETENTION]);
        world.scoring = scoring;
        let start = stagecast::time::Tick::now();
        let walked = history(&world, &events, day(230));
        println!("{what}: {} outputs in {:?}", walked.outputs.len(), start.elapsed());
    }
}

#[test]
fn counts_compare_with_whole_and_decimal_literals_alike() {
    for rule in
        ["clicks_7d == 2", "clicks_7d == 2.0", "!(clicks_7d != 2)", "clicks_7d >= 2", "clicks_7d < 2.5"]
    {
        let text = format!(
            "name=\"n\"\ninitial=\"a\"\n[[stage]]\nname=\"b\"\nenter='{rule}'\n[[stage]]\nname=\"a\"\nenter=\"true\""
        );
        let events =
            [Ev::new(Kind::Profile, "traits_updated", START), Ev::click(START + 1), Ev::click(START + 2)];
        let at_end = &history(&World::new(&[&text]), &events, START + 2).stages["n"];
        assert_eq!(at_end, "b", "{rule}");
    }
    assert_eq!(Money::default().base, "EUR");
}
