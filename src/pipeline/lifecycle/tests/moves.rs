//! Histories and the moves they make.

use super::*;

#[track_caller]
fn check(lifecycle: &str, history: &str, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(play(&load(lifecycle), history), expected.join("\n"));
}

const TWO: &str = "name='t'\ninitial='low'\n\
    [[stage]]\nname='high'\nenter='orders_90d >= 3'\nstay='orders_90d >= 2'\n\
    [[stage]]\nname='low'\nenter='orders_90d < 3'\n";

#[test]
fn the_highest_true_stage_wins_and_hysteresis_holds_it() {
    check(
        TWO,
        "0d orders_90d=1
         1d orders_90d=3
         2d orders_90d=2
         3d orders_90d=1
         5d orders_90d=2
         6d orders_90d=9",
        "1d: low>high (#1, 1)
         3d: high>low (#2, 2)
         6d: low>high (#2, 3)",
    );
}

#[test]
fn file_order_is_priority() {
    let stages = |first: &str, second: &str| {
        format!(
            "name='t'\ninitial='a'\n[[stage]]\nname='{first}'\nenter='orders_7d > 0'\n\
             [[stage]]\nname='{second}'\nenter='orders_7d > 0'\n[[stage]]\nname='a'\n"
        )
    };
    check(&stages("x", "y"), "0d orders_7d=1", "0d: a>x (#1, 0)");
    check(&stages("y", "x"), "0d orders_7d=1", "0d: a>y (#1, 0)");
}

#[test]
fn from_limits_where_a_stage_is_entered_and_moves_chain_at_one_instant() {
    let chain = "name='t'\ninitial='a'\n\
        [[stage]]\nname='c'\nenter='orders_7d >= 2'\nfrom=['b']\n\
        [[stage]]\nname='b'\nenter='orders_7d >= 1'\nfrom=['a']\n\
        [[stage]]\nname='a'\nenter='orders_7d == 0'\n";
    check(chain, "0d orders_7d=0\n 1d orders_7d=2", "1d: a>b (#1, 1)\n 1d: b>c (#1, 0)");
    check(
        chain,
        "0d orders_7d=1\n 1d orders_7d=0\n 2d orders_7d=5",
        "0d: a>b (#1, 0)\n 1d: b>a (#2, 1)\n 2d: a>b (#2, 1)\n 2d: b>c (#1, 0)",
    );
}

#[test]
fn no_stage_is_visited_twice_at_one_instant() {
    let ring = "name='t'\ninitial='a'\n\
        [[stage]]\nname='a'\nenter='orders_7d > 0'\nstay='false'\n\
        [[stage]]\nname='b'\nenter='orders_7d > 0'\nstay='false'\nfrom=['a']\n\
        [[stage]]\nname='c'\nenter='orders_7d > 0'\nstay='false'\nfrom=['b']\n";
    check(ring, "0d orders_7d=1", "0d: a>b (#1, 0)\n 0d: b>c (#1, 0)");
    check(
        ring,
        "0d orders_7d=1\n 1d orders_7d=1",
        "0d: a>b (#1, 0)\n 0d: b>c (#1, 0)\n 1d: c>a (#2, 1)\n 1d: a>b (#2, 0)",
    );
}

#[test]
fn a_dwell_holds_the_customer_and_its_end_is_an_instant() {
    let dwell = "name='t'\ninitial='a'\n\
        [[stage]]\nname='b'\nenter='orders_7d > 0'\nmin_dwell='36h'\n\
        [[stage]]\nname='a'\nenter='orders_7d == 0'\n";
    check(dwell, "0d orders_7d=1\n 1d orders_7d=0\n 9d until", "0d: a>b (#1, 0)\n 1d12h: b>a (#2, 1.5)");
    check(dwell, "0d orders_7d=1\n 1d orders_7d=0\n 1d12h orders_7d=1\n 9d until", "0d: a>b (#1, 0)");
}

#[test]
fn days_in_a_stage_begin_again_with_every_move() {
    let clock = "name='t'\ninitial='a'\n\
        [[stage]]\nname='b'\nenter='stage_days >= 2'\nstay='stage_days <= 1'\n\
        [[stage]]\nname='a'\nenter='true'\nstay='stage_days < 2'\n";
    check(
        clock,
        "0d\n 6d until",
        "2d: a>b (#1, 2)
         3d1ms: b>a (#2, 1)
         5d1ms: a>b (#2, 2)",
    );
}

#[test]
fn silence_flips_to_the_millisecond() {
    let lapse = |rule: &str| {
        format!(
            "name='t'\ninitial='a'\n[[stage]]\nname='b'\nenter='{rule}'\n[[stage]]\nname='a'\nenter='orders_7d > 1'\n"
        )
    };
    let history = "1h days_since_order=now days_since_click=now\n 5h days_since_click=now\n 99d until";
    for (rule, expected) in [
        ("days_since_order >= 45", "45d1h: a>b (#1, 45)"),
        ("days_since_order > 45", "45d3600001ms: a>b (#1, 45)"),
        ("!(days_since_order < 45)", "45d1h: a>b (#1, 45)"),
        ("45 <= days_since_order && orders_30d == 0", "45d1h: a>b (#1, 45)"),
        ("days_since_order + days_since_click >= 20", "10d3h: a>b (#1, 10.083333)"),
        ("days_since_order - 1 > 2 * 3", "7d3600001ms: a>b (#1, 7)"),
        ("1 / days_since_order <= 0.5", "2d1h: a>b (#1, 2)"),
        ("days_since_click / (days_since_order + 1) >= 0.9", "10d17h: a>b (#1, 10.666667)"),
        ("(orders_30d == 0 ? days_since_order : days_since_click) >= 3", "3d1h: a>b (#1, 3)"),
        ("days_since_order % 10 >= 5", "5d1h: a>b (#1, 5)"),
        ("days_since_ticket < 5", ""),
    ] {
        assert_eq!(play(&load(&lapse(rule)), history), expected, "{rule}");
    }
}

#[test]
fn windows_are_asked_when_they_change() {
    let lifecycle = load(TWO);
    let mut world = World::new();
    world.set("orders_90d", 3.0);
    let id = world.id("orders_90d");
    world.changes = vec![(id, 5 * HOUR_MS, 2.0), (id, 7 * HOUR_MS, 1.0)];
    let mut told = Vec::new();
    let mut state = lifecycle.start(0);
    settle(&lifecycle, &world, &mut state, &mut told);
    assert_eq!(world.next(&lifecycle, &state), Some(5 * HOUR_MS));
    silence(&lifecycle, &mut world, &mut state, DAY_MS, &mut told);
    assert_eq!(told, ["0d: low>high (#1, 0)", "7h: high>low (#2, 0.291667)"]);
}

#[test]
fn a_move_tells_the_rule_its_features_and_the_action() {
    let lifecycle = load(
        "name='t'\ninitial='a'\n[[stage]]\nname='b'\nenter=' orders_7d > 0 && p_churn < 0.9 '\naction='greet'\n[[stage]]\nname='a'\n",
    );
    let mut world = World::new();
    world.set("orders_7d", 1.0);
    let mut moves = 0;
    let mut state = lifecycle.start(0);
    world.with_facts(DAY_MS, |facts| {
        lifecycle.settle(0, &mut state, DAY_MS, facts, |m| {
            moves += 1;
            assert_eq!((m.from, m.to, m.rule), (1, 0, "orders_7d > 0 && p_churn < 0.9"));
            assert_eq!((m.named, m.action), (&[world.id("orders_7d")][..], Some("greet")));
            assert_eq!((m.stage_days, m.visit), (1.0, 1));
        });
        assert_eq!(facts.stage_days, 0.0);
    });
    assert_eq!(moves, 1);
    assert_eq!(state.visits[..], [1, 1]);
    assert_eq!(lifecycle.features(), [world.id("orders_7d")]);
    assert!(lifecycle.reads_p_churn() && lifecycle.reads_traits().is_empty());
    assert_eq!(lifecycle.stage_index("b"), Some(0));
}

const VARIANTS: &str = "name='t'\ninitial='a'\ntraits=['segment']\n[thresholds]\nmany=10\n\
    [[stage]]\nname='b'\nenter='orders_90d >= many'\naction='base'\n\
    [[stage]]\nname='a'\nenter='orders_90d < many'\n\
    [override.segment.enterprise]\nmany=2\n\
    [override.channel.web]\nmany=5\n\
    [override.channel.web.b]\naction='by web'\nmin_dwell='2d'\n\
    [override.seats.40.b]\nenter='true'\nstay='orders_90d > 0'\n";

#[test]
fn overrides_apply_to_the_customers_their_traits_select() {
    let lifecycle = load(VARIANTS);
    assert_eq!(lifecycle.variant_count(), 8);
    assert_eq!(lifecycle.reads_traits(), ["channel".into(), "seats".into(), "segment".into()]);
    for (traits, orders, expected) in [
        ("", 9, None),
        ("", 10, Some("base")),
        ("traits.segment=smb", 9, None),
        ("traits.segment=enterprise", 2, Some("base")),
        ("traits.channel=web", 4, None),
        ("traits.channel=web", 5, Some("by web")),
        ("traits.channel=web traits.segment=enterprise", 2, Some("by web")),
        ("traits.seats=40", 0, Some("base")),
        ("traits.seats=40.0 traits.channel=web", 0, Some("by web")),
        ("traits.seats=41", 0, None),
    ] {
        let mut world = World::new();
        traits.split_whitespace().for_each(|t| world.assign(t));
        world.set("orders_90d", f64::from(orders));
        let (mut state, mut action) = (lifecycle.start(0), None);
        world.with_facts(0, |facts| {
            lifecycle.settle(lifecycle.variant(&world.traits), &mut state, 0, facts, |m| {
                action = m.action.map(str::to_string);
            });
        });
        assert_eq!(action.as_deref(), expected, "{traits} with {orders}");
    }
}

#[test]
fn the_version_is_of_the_content_not_of_its_form() {
    let version = |text: &str| load(text).version.to_string();
    let base = version(VARIANTS);
    assert_eq!(base.len(), 12);
    let reformed = VARIANTS.replace('\n', "\n\n# a remark\n").replace("name='t'", "name   =   \"t\"");
    assert_eq!(version(&reformed), base);
    assert_ne!(version(&VARIANTS.replace("many=10", "many=11")), base);
    assert_eq!(version(&format!("version='7'\n{VARIANTS}")), "7");
    let (before, last) = VARIANTS.split_once("[override.channel.web]").unwrap();
    let (head, first) = before.split_once("[override.segment.enterprise]").unwrap();
    let swapped = format!("{head}[override.channel.web]{last}[override.segment.enterprise]{first}");
    assert_ne!(version(&swapped), base, "which override comes first means something");
}

#[test]
fn retention_goes_all_the_way_round() {
    let text = preset("retention").unwrap();
    assert!(preset_names().any(|name| name == "retention") && preset("none").is_none());
    let lifecycle = Lifecycle::load("retention", text, &names()).unwrap();
    let stages: Vec<&str> = lifecycle.stages().iter().map(|s| &*s.name).collect();
    assert_eq!(stages, ["loyalty", "retention", "conversion", "win-back", "acquisition", "reach"]);
    assert!(lifecycle.stages().iter().all(|stage| stage.action.is_some()));
    let history = "
        0d   days_since_event=now days_since_click=now
        2d   days_since_event=now days_since_click=now product_views_30d=3
        3d   days_since_event=now days_since_order=now orders_lifetime=1 orders_90d=1
        20d  days_since_event=now days_since_order=now orders_lifetime=2 orders_90d=2
        40d  days_since_event=now days_since_order=now orders_lifetime=3 orders_90d=3
        200d days_since_event=now days_since_order=now orders_lifetime=4 orders_90d=1 product_views_30d=0
        600d days_since_event=now days_since_click=now cart_adds_30d=1
        610d days_since_event=now days_since_order=now orders_lifetime=5 orders_90d=1 cart_adds_30d=0
        611d days_since_event=now
        999d until";
    let expected = "
        2d: reach>acquisition (#1, 2)
        3d: acquisition>conversion (#1, 1)
        20d: conversion>retention (#1, 17)
        40d: retention>loyalty (#1, 20)
        100d: loyalty>retention (#2, 60)
        130d: retention>win-back (#1, 30)
        200d: win-back>retention (#3, 70)
        290d: retention>win-back (#2, 90)
        565d: win-back>reach (#2, 275)
        600d: reach>acquisition (#2, 35)
        610d: acquisition>retention (#4, 10)
        700d: retention>win-back (#3, 90)
        975d: win-back>reach (#3, 275)";
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(play(&lifecycle, history), expected.join("\n"));
}

#[test]
fn interest_that_dies_is_reached_anew() {
    let lifecycle = Lifecycle::load("retention", preset("retention").unwrap(), &names()).unwrap();
    let history = "0d days_since_event=now days_since_click=now cart_adds_30d=1\n 99d until";
    let expected = "0d: reach>acquisition (#1, 0)\n60d: acquisition>reach (#2, 60)";
    assert_eq!(play(&lifecycle, history), expected);
}

#[test]
fn a_move_is_told_with_every_reason_that_is_true_and_the_features_they_name() {
    let lifecycle = load(
        r#"
        name = "reasons"
        initial = "here"
        [[stage]]
        name = "gone"
        enter = "days_since_order >= 10"
        [stage.reasons]
        "unresolved complaint" = "open_tickets > 0"
        "falling interest" = "clicks_30d == 0"
        [[stage]]
        name = "here"
        enter = "days_since_order < 10"
        "#,
    );
    let told = |tickets: &str, clicks: &str| {
        let mut world = World::new();
        world.assign(&format!("open_tickets={tickets}"));
        world.assign(&format!("clicks_30d={clicks}"));
        let mut state = lifecycle.start(0);
        let features = world.features_at(0);
        let traits = Traits::new();
        let mut facts = Facts { features: &features, p_churn: 0.5, stage_days: 0.0, traits: &traits };
        let mut told = Vec::new();
        lifecycle.settle(0, &mut state, 0, &mut facts, |moved| {
            let named: Vec<String> =
                moved.named.iter().map(|id| names().names()[id.index()].to_owned()).collect();
            told.push((moved.rule.to_owned(), named.len()));
        });
        told.remove(0)
    };
    assert_eq!(told("0", "5"), ("days_since_order >= 10".into(), 1));
    assert_eq!(told("1", "5"), ("days_since_order >= 10 // unresolved complaint".into(), 2));
    assert_eq!(
        told("1", "0"),
        ("days_since_order >= 10 // unresolved complaint, falling interest".into(), 3)
    );
}

#[test]
fn wrong_reasons_are_told_with_their_place() {
    let text = "name = \"r\"\ninitial = \"a\"\n[[stage]]\nname = \"a\"\nenter = \"true\"\n[stage.reasons]\nwhy = \"ordrs_90d > 0\"\n";
    let error = Lifecycle::load("r.toml", text, &names()).unwrap_err();
    assert!(error.what.starts_with("r.toml:7: stage `a`, `reasons.\"why\"`"), "{error}");
    let many: String = (0..9).map(|i| format!("r{i} = \"true\"\n")).collect();
    let text = format!(
        "name = \"r\"\ninitial = \"a\"\n[[stage]]\nname = \"a\"\nenter = \"true\"\n[stage.reasons]\n{many}"
    );
    let error = Lifecycle::load("r.toml", &text, &names()).unwrap_err();
    assert!(error.what.contains("has 9 reasons; at most 8 are possible"), "{error}");
}
