//! What a rule means, snippet by snippet.

use super::*;

/// The truth of one rule in a world with these assignments.
fn truth(rule: &str, given: &str) -> bool {
    let text = format!(
        "name = \"t\"\ninitial = \"a\"\ntraits = [\"segment\"]\n[thresholds]\nmany = 3\n\
         [[stage]]\nname = \"b\"\nenter = '{rule}'\n[[stage]]\nname = \"a\"\n"
    );
    let lifecycle = load(&text);
    let mut world = World::new();
    given.split_whitespace().for_each(|assignment| world.assign(assignment));
    let state = lifecycle.start(-DAY_MS);
    world.truths(&lifecycle, &state, 0) == 1
}

#[track_caller]
fn check(given: &str, cases: &[(&str, bool)]) {
    for (rule, expected) in cases {
        assert_eq!(truth(rule, given), *expected, "{rule} given {given}");
    }
}

#[test]
fn numbers_compare_and_calculate_as_doubles() {
    check(
        "orders_90d=3 orders_30d=2 sentiment_90d=-0.5",
        &[
            ("orders_90d >= 3", true),
            ("orders_90d > 3", false),
            ("3 <= orders_90d", true),
            ("4 < orders_90d", false),
            ("orders_90d == 3.0", true),
            ("orders_90d != 3", false),
            ("orders_90d >= many", true),
            ("orders_90d - orders_30d == 1", true),
            ("orders_90d + 1 * 2 == 5", true),
            ("(orders_90d + 1) * 2 == 8", true),
            ("orders_30d / orders_90d > 0.66 && orders_30d / orders_90d < 0.67", true),
            ("orders_90d % 2 == 1", true),
            ("-orders_90d < 0", true),
            ("-sentiment_90d == 0.5", true),
            ("sentiment_90d < -0.25", true),
            ("1 / 2 == 0.5", true),
            ("int(orders_90d / 2) == 1", true),
            ("double(orders_90d) == 3", true),
            ("p_churn == 0.5", true),
            ("stage_days == 1", true),
            ("tenure_days == inf && tenure_days > 1e300", true),
            ("2u + 1u == 3", true),
        ],
    );
}

#[test]
fn division_by_zero_is_infinite_and_nan_satisfies_nothing() {
    check(
        "orders_90d=0 orders_30d=2",
        &[
            ("orders_30d / orders_90d == inf", true),
            ("-orders_30d / orders_90d == -inf", true),
            ("orders_90d / orders_90d == orders_90d / orders_90d", false),
            ("orders_90d / orders_90d != 1", false),
            ("orders_90d / orders_90d < 1 || orders_90d / orders_90d >= 1", false),
            ("!(orders_90d / orders_90d < 1)", true),
            ("inf - inf == 0", false),
        ],
    );
}

#[test]
fn truths_combine_and_choose() {
    check(
        "orders_90d=3 orders_30d=0",
        &[
            ("true", true),
            ("!true", false),
            ("orders_90d > 1 && orders_30d > 1", false),
            ("orders_90d > 1 || orders_30d > 1", true),
            ("orders_30d > 1 || orders_90d > 1 && orders_90d < 9", true),
            ("!(orders_90d > 1) || !(orders_30d > 1)", true),
            ("orders_90d > 1 ? orders_30d == 0 : false", true),
            ("(orders_90d > 1 ? 10 : 20) == 10", true),
            ("(orders_30d > 1 ? 10 : orders_90d) + (orders_90d > 1 ? 1 : 2) == 4", true),
            ("(orders_90d > 1) == (orders_30d == 0)", true),
            ("(orders_90d > 1) != (orders_30d == 0)", false),
            ("orders_90d in [1, 2, 3]", true),
            ("orders_90d in [1, 2]", false),
            ("orders_90d in [many]", true),
            ("orders_90d in []", false),
            ("!(orders_90d in [1, 2])", true),
        ],
    );
}

#[test]
fn traits_are_texts_numbers_and_flags() {
    check(
        "traits.segment=enterprise traits.seats=40 traits.vip=true",
        &[
            ("traits.segment == \"enterprise\"", true),
            ("traits[\"segment\"] == \"enterprise\"", true),
            ("segment == \"enterprise\"", true),
            ("segment != \"smb\"", true),
            ("segment in [\"smb\", \"enterprise\"]", true),
            ("segment.startsWith(\"enter\")", true),
            ("segment.endsWith(\"prise\") && segment.contains(\"terp\")", true),
            ("segment.contains(\"x\")", false),
            ("\"enterprise-plus\".startsWith(segment)", true),
            ("segment < \"f\" && segment >= \"e\"", true),
            ("has(traits.segment) && \"seats\" in traits", true),
            ("traits.seats > 20", true),
            ("20 < traits.seats", true),
            ("traits.seats / 2 == 20", true),
            ("traits.seats == 40 && traits.seats != 41", true),
            ("traits.seats == \"40\"", false),
            ("traits.seats in [10, 40]", true),
            ("traits.vip", true),
            ("traits.vip == true", true),
            ("traits.vip != (p_churn > 0.9)", true),
            ("traits.segment", false),
            ("traits.segment > 1", false),
            ("traits.segment == 1", false),
            ("traits.segment != 1", true),
            ("(traits.vip ? segment : \"none\") == \"enterprise\"", true),
            ("traits.vip == traits.seats", false),
        ],
    );
}

#[test]
fn a_missing_trait_is_null_and_never_an_error() {
    check(
        "traits.other=1",
        &[
            ("traits.gone == \"x\"", false),
            ("traits.gone != \"x\"", true),
            ("traits.gone == null", true),
            ("traits.gone != null", false),
            ("traits.other == null", false),
            ("traits.gone == 1", false),
            ("traits.gone != 1", true),
            ("traits.gone < 1 || traits.gone >= 1", false),
            ("traits.gone + 1 == 1 || traits.gone + 1 != 1", false),
            ("-traits.gone < 0", false),
            ("traits.gone < \"x\"", false),
            ("traits.gone.contains(\"x\")", false),
            ("has(traits.gone) || \"gone\" in traits", false),
            ("traits.gone", false),
            ("!traits.gone", true),
            ("traits.gone == false", false),
            ("traits.gone in [\"x\", 1, true]", false),
            ("traits.gone == traits.away", true),
        ],
    );
}
