//! No flip in silence is missed, and each is found to the millisecond: against a naive scan.

use proptest::prelude::*;

use super::*;

/// How many milliseconds the scan looks ahead.
const SCAN_MS: i64 = 1_500;

/// The numbers a rule of this file is made of: three lines and a window.
const LINES: [&str; 3] = ["days_since_order", "days_since_click", "overdue_ratio"];

/// An expression over `a`, `b`, `c` (lines) and `w` (a window), and what it evaluates to.
type Shape = (&'static str, fn(f64, f64, f64, f64) -> f64);

const SHAPES: [Shape; 16] = [
    ("a", |a, _, _, _| a),
    ("c", |_, _, c, _| c),
    ("-a", |a, _, _, _| -a),
    ("a + 1", |a, _, _, _| a + 1.0),
    ("3 - a", |a, _, _, _| 3.0 - a),
    ("a * w", |a, _, _, w| a * w),
    ("a / (w + 1)", |a, _, _, w| a / (w + 1.0)),
    ("w / a", |a, _, _, w| w / a),
    ("w / (1 + c) - 2", |_, _, c, w| w / (1.0 + c) - 2.0),
    ("(w + 1) / (3 - c)", |_, _, c, w| (w + 1.0) / (3.0 - c)),
    ("-1 / ((3 - c) / (w + 1))", |_, _, c, w| -1.0 / ((3.0 - c) / (w + 1.0))),
    ("a - b", |a, b, _, _| a - b),
    ("a + b", |a, b, _, _| a + b),
    ("2 * a - c + w", |a, _, c, w| 2.0 * a - c + w),
    ("a / b", |a, b, _, _| a / b),
    ("(a - c) * 0.5", |a, _, c, _| (a - c) * 0.5),
];

/// The shape with its letters replaced by the names they stand for.
fn spelled(shape: &str) -> String {
    let name = |letter: char| match letter {
        'a' => LINES[0].to_string(),
        'b' => LINES[1].to_string(),
        'c' => LINES[2].to_string(),
        'w' => "orders_30d".to_string(),
        other => other.to_string(),
    };
    shape.chars().map(name).collect()
}

#[derive(Debug, Clone)]
struct Case {
    shape: usize,
    cmp: &'static str,
    /// The constant is the expression's value at this many milliseconds from now, plus a nudge.
    target: i64,
    nudge: f64,
    ages: [i64; 3],
    scales: [f64; 3],
    window: f64,
}

fn cases() -> impl Strategy<Value = Case> {
    let scale = prop_oneof![Just(DAY_MS as f64), Just(1_000.0), Just(HOUR_MS as f64), 5.0..1e7f64];
    (
        (0..SHAPES.len(), prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="])),
        (-300..SCAN_MS, prop_oneof![3 => Just(0.0), 1 => -1e-7..1e-7f64]),
        prop::array::uniform3(0..3_000i64),
        (Just(DAY_MS as f64), prop_oneof![Just(DAY_MS as f64), scale.clone()], scale),
        0..4u8,
    )
        .prop_map(|((shape, cmp), (target, nudge), ages, scales, window)| Case {
            shape,
            cmp,
            target,
            nudge,
            ages,
            scales: [scales.0, scales.1, scales.2],
            window: f64::from(window),
        })
}

const NOW: Ts = 1_767_323_045_678;

impl Case {
    fn line(&self, i: usize) -> Line {
        Line { zero: NOW - self.ages[i], scale: self.scales[i] }
    }

    fn world(&self) -> World {
        let mut world = World::new();
        world.now = NOW;
        for (i, name) in LINES.iter().enumerate() {
            world.set_line(name, self.line(i));
        }
        world.set("orders_30d", self.window);
        world
    }

    fn rule(&self) -> String {
        let at = |i: usize| self.line(i).at(NOW + self.target);
        let value = SHAPES[self.shape].1(at(0), at(1), at(2), self.window);
        // A literal cannot be NaN or infinite; `0 / 0` and the like only occur at the very start of a line.
        let constant = if value.is_finite() { value + self.nudge } else { 1.0 };
        let shape = spelled(SHAPES[self.shape].0);
        format!("{shape} {} {constant:?}", self.cmp)
    }
}

fn lifecycle(rule: &str) -> Lifecycle {
    load(&format!("name='t'\ninitial='a'\n[[stage]]\nname='b'\nenter='{rule}'\n[[stage]]\nname='a'\n"))
}

/// The first millisecond in the scan at which the truths differ from those of now.
fn scan(world: &World, lifecycle: &Lifecycle, state: &StageState) -> Option<Ts> {
    let truths = world.truths(lifecycle, state, NOW);
    (NOW + 1..=NOW + SCAN_MS).find(|t| world.truths(lifecycle, state, *t) != truths)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_flip_of_one_comparison_is_found_to_the_millisecond(case in cases()) {
        let (world, lifecycle) = (case.world(), lifecycle(&case.rule()));
        let state = lifecycle.start(NOW - 1);
        let found = world.next(&lifecycle, &state).filter(|t| *t <= NOW + SCAN_MS);
        prop_assert_eq!(found, scan(&world, &lifecycle, &state), "{}", case.rule());
    }

    #[test]
    fn a_rule_of_many_comparisons_never_flips_unforeseen(
        cases in prop::collection::vec(cases(), 2..5),
        joins in prop::collection::vec(prop::sample::select(vec!["&&", "||", "&& !", "== "]), 4),
        stage_days_ms in 0..SCAN_MS,
    ) {
        let world = cases[0].world();
        let mut rule = format!("(stage_days < {:?})", stage_days_ms as f64 / DAY_MS as f64);
        for (case, join) in cases.iter().zip(&joins) {
            // All comparisons share the first case's lines; targets then fall where they may.
            let own = Case { ages: cases[0].ages, scales: cases[0].scales, window: cases[0].window, ..case.clone() };
            rule = format!("({rule} {join}({}))", own.rule());
        }
        let lifecycle = lifecycle(&rule);
        let state = lifecycle.start(NOW - 7);
        let found = world.next(&lifecycle, &state);
        prop_assert!(found.is_none_or(|t| t > NOW));
        if let Some(flip) = scan(&world, &lifecycle, &state) {
            prop_assert!(found.is_some_and(|t| t <= flip), "{} flips at {} but was told {:?}", rule, flip, found);
        }
    }
}

#[test]
fn lines_of_one_slope_do_not_jitter() {
    let lifecycle = lifecycle("days_since_order - days_since_click >= 3");
    let mut world = World::new();
    world.now = NOW;
    world.set_line("days_since_order", Line { zero: NOW - 10 * DAY_MS, scale: DAY_MS as f64 });
    world.set_line("days_since_click", Line { zero: NOW - 7 * DAY_MS, scale: DAY_MS as f64 });
    let state = lifecycle.start(NOW);
    assert_eq!(world.next(&lifecycle, &state), None);
    for step in 0..5_000 {
        assert_eq!(world.truths(&lifecycle, &state, NOW + step * 86_399_989), 1, "after {step}");
    }
}

#[test]
fn what_cannot_be_solved_is_looked_at_every_hour() {
    for rule in
        ["days_since_order % 2 > 1", "days_since_order * days_since_click > 9", "int(days_since_order) == 3"]
    {
        let lifecycle = lifecycle(rule);
        let mut world = World::new();
        world.now = NOW;
        world.assign("days_since_order=now");
        world.assign("days_since_click=now");
        let state = lifecycle.start(NOW);
        let expected = (NOW / HOUR_MS + 1) * HOUR_MS;
        assert_eq!(world.next(&lifecycle, &state), Some(expected), "{rule}");
    }
}

#[test]
fn what_never_happened_never_flips() {
    let world = World::new();
    for rule in ["days_since_order < 45", "days_since_order - days_since_click > 3", "overdue_ratio % 2 > 1"]
    {
        let lifecycle = lifecycle(rule);
        assert_eq!(world.next(&lifecycle, &lifecycle.start(0)), None, "{rule}");
    }
}

#[test]
fn a_zero_slope_turns_infinite_when_time_moves() {
    let lifecycle = lifecycle("overdue_ratio > 2");
    let mut world = World::new();
    world.set_line("overdue_ratio", Line { zero: 0, scale: 0.0 });
    assert_eq!(world.next(&lifecycle, &lifecycle.start(0)), Some(1));
    world.now = 1;
    assert_eq!(world.next(&lifecycle, &lifecycle.start(0)), None);
}

#[test]
fn a_product_with_infinity_is_defined_when_time_moves() {
    let lifecycle = lifecycle("days_since_order * order_gap_days > 1");
    let mut world = World::new();
    world.assign("days_since_order=now");
    world.set("order_gap_days", f64::INFINITY);
    assert_eq!(world.next(&lifecycle, &lifecycle.start(0)), Some(1));
    world.now = 1;
    assert_eq!(world.next(&lifecycle, &lifecycle.start(0)), None);
}

#[test]
fn flips_far_ahead_stay_within_what_rfc_3339_can_write() {
    let mut world = World::new();
    world.now = NOW;
    world.assign("days_since_order=now");
    for (rule, expected) in [
        ("days_since_order > 100000", Some(NOW + 100_000 * DAY_MS + 1)),
        ("days_since_order > 1e9", None),
        ("days_since_order > 1e300", None),
        ("days_since_order < inf", None),
        ("days_since_order > -5", None),
        ("days_since_order + 1 > 1e300", None),
    ] {
        let lifecycle = lifecycle(rule);
        assert_eq!(world.next(&lifecycle, &lifecycle.start(NOW)), expected, "{rule}");
    }
}
