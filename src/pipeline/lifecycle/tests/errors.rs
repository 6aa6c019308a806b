//! Every way a file can be wrong, and the message for it.

use super::*;

fn problems(text: &str) -> String {
    let error = Lifecycle::load("x.toml", text, &names()).err().map(|e| {
        assert_eq!(e.exit_code(), 2);
        e.what
    });
    error.unwrap_or_default()
}

/// The problems of a sound file whose stage `b`, at line 3, has this body from line 5 on.
fn problems_of_stage(body: &str) -> String {
    problems(&format!(
        "name = \"t\"\ninitial = \"a\"\n[[stage]]\nname = \"b\"\n{body}\n[[stage]]\nname = \"a\"\n"
    ))
}

#[test]
fn rules_are_checked_before_anything_runs() {
    for (rule, expected) in [
        ("orders_9d > 1", "unknown name `orders_9d` (did you mean `orders_7d`?)"),
        ("p_chrun > 1", "unknown name `p_chrun` (did you mean `p_churn`?)"),
        ("now > 1", "unknown name `now` (a trait is traits.NAME)"),
        ("orders_90d && true", "`&&` needs true or false, found a number"),
        ("!orders_90d", "`!` needs true or false, found a number"),
        ("orders_90d", "the rule is a number, not true or false"),
        ("\"x\"", "the rule is a text, not true or false"),
        ("\"a\" < 1", "`<` compares a text with a number"),
        ("orders_90d == \"x\"", "`==` compares a number with a text"),
        ("orders_90d == true", "`==` compares a boolean with a number"),
        ("orders_90d == null", "`==` compares a number with a null"),
        ("(p_churn > 1) < true", "`<` cannot order a boolean"),
        ("traits.x < null", "`<` cannot order a null"),
        ("\"a\" + \"b\" == \"ab\"", "`+` needs numbers, found a text"),
        ("-true", "`-` needs numbers, found a boolean"),
        ("orders_90d.contains(\"x\")", "`contains` needs texts, found a number"),
        ("segment == \"x\"", "unknown name `segment` (a trait is traits.NAME)"),
        ("traits == 1", "`traits` needs a name: traits.segment, or \"segment\" in traits"),
        ("(true ? 1 : \"x\") == 1", "both sides of `:` must be of one type, found a number and a text"),
        ("(1 > 2 ? 1 : true) == 1", "both sides of `:` must be of one type, found a number and a boolean"),
    ] {
        let expected = format!("x.toml:5: stage `b`, `enter`: {expected}");
        assert_eq!(problems_of_stage(&format!("enter = '{rule}'")), expected, "{rule}");
    }
}

#[test]
fn what_lies_outside_the_language_is_named_with_what_lies_inside() {
    for (rule, expected) in [
        ("[1, 2].all(x, x > 0)", "a macro over a list (all, exists, map, filter) is not supported in rules"),
        ("size(\"x\") > 0", "`size()` is not supported in rules"),
        ("timestamp(\"2026-01-01T00:00:00Z\") > 0", "`timestamp()` is not supported in rules"),
        ("{\"a\": 1} == 1", "a map is not supported in rules"),
        ("[1] == 1", "a list outside of `in` is not supported in rules"),
        ("b\"x\" == 1", "a byte string is not supported in rules"),
        (
            "traits.a.b == 1",
            "`traits.a.b` (a trait with a dot in its name is traits[\"a.b\"]) is not supported in rules",
        ),
        ("traits[1] == 1", "`[…]` on anything but traits[\"name\"] is not supported in rules"),
        ("1 in [orders_90d]", "`in` over a list of anything but literals is not supported in rules"),
        (
            "1 in orders_90d",
            "`in` over anything but a list of literals or `traits` is not supported in rules",
        ),
        ("traits.a.matches(\"x\")", "`.matches()` is not supported in rules"),
    ] {
        let text = format!("name='t'\ninitial='a'\n[[stage]]\nname='a'\nenter='''{rule}'''\n");
        let error = Lifecycle::load("x.toml", &text, &names()).unwrap_err();
        assert_eq!(error.what, format!("x.toml:5: stage `a`, `enter`: {expected}"), "{rule}");
        assert!(error.hint.unwrap().contains("startsWith"), "{rule}");
    }
}

#[test]
fn broken_syntax_tells_the_place() {
    for rule in ["orders_90d >", "orders_90d >= 3 &&", "(", "a b", "1 +* 2", "\"", "has(traits[\"x\"])"] {
        let found = problems(&format!("name='t'\ninitial='a'\n[[stage]]\nname='a'\nenter='''{rule}'''\n"));
        assert!(found.starts_with("x.toml:5: stage `a`, `enter`: not CEL: "), "{rule}: {found}");
    }
    assert!(problems_of_stage("enter = ' '").contains("x.toml:5: `enter` is empty"));
}

#[test]
fn rules_without_end_are_refused() {
    let long = format!("enter = '{}'", "orders_90d > 1 && ".repeat(300) + "true");
    assert!(problems_of_stage(&long).contains("the rule is longer than 4096 bytes"));
    let many = (0..7).map(|_| "(p_churn > 0.5 ? 1 : 2)").collect::<Vec<_>>().join(" + ");
    let found = problems_of_stage(&format!("enter = '{many} > 1'"));
    assert!(found.contains("more than 64 alternatives of `?:` meet in one value"), "{found}");
    let nested = format!("enter = '{}true{}'", "(".repeat(11), ")".repeat(11));
    assert!(problems_of_stage(&nested).contains("more than 10 brackets are open at once"));
    let doubling = "p_churn<1==(".repeat(10) + "p_churn<1" + &")".repeat(10);
    let found = problems_of_stage(&format!("enter = '{}'", [doubling.as_str(); 9].join("&&")));
    assert!(found.contains("the rule has more than 256 operators"), "{found}");
    let deep = "p_churn + p_churn * (".repeat(9) + "p_churn" + &")".repeat(9) + " > 1";
    let found = problems_of_stage(&format!("enter = '{deep}'"));
    assert!(found.contains("the rules are too large"), "{found}");
}

#[test]
fn keys_are_checked_with_their_nearest() {
    for (text, expected) in [
        (
            "name='t'\ninital='a'\n[[stage]]\nname='a'",
            "x.toml:2: unknown key `inital` (did you mean `initial`?)",
        ),
        (
            "name='t'\ninitial='a'\n[[stage]]\nname='a'\nentr='true'",
            "x.toml:5: unknown key `entr` of a stage (did you mean `enter`?)",
        ),
        (
            "name='t'\ninitial='a'\n[[stage]]\nname='a'\nenter=1",
            "x.toml:5: `enter` must be a string, found a TOML integer",
        ),
        (
            "name='t'\ninitial='a'\n[[stage]]\nname='a'\nfrom='b'",
            "x.toml:5: `from` must be a list of strings, found a TOML string",
        ),
        (
            "name='t'\ninitial='a'\ntraits='b'\n[[stage]]\nname='a'",
            "x.toml:3: `traits` must be a list of strings, found a TOML string",
        ),
        (
            "name='t'\ninitial='a'\n[stage]\nname='a'",
            "x.toml:3: `stage` must be an array of tables; write [[stage]], found a TOML table",
        ),
        (
            "name='t'\ninitial='a'\n[thresholds]\nx='a'\n[[stage]]\nname='a'",
            "x.toml:4: `x` must be a number, found a TOML string",
        ),
        (
            "name='t'\ninitial='a'\n[[stage]]\nname='a'\nmin_dwell='soon'",
            "x.toml:5: `min_dwell`: `soon` is not a span of time; write for example \"90d\", \"24h\", \"10m\" or \"250ms\"",
        ),
        ("name='t'\ninitial='a'\n[[stage]]\naction='x'", "x.toml:3: a stage has no `name`"),
        ("name='t'\ninitial='a'", "x.toml:1: no [[stage]]: a lifecycle needs at least one"),
        ("initial='a'\n[[stage]]\nname='a'", "x.toml:1: `name` is missing"),
        (
            "name='t'\n[[stage]]\nname='a'",
            "x.toml:1: `initial` is missing: name the stage in which every customer begins",
        ),
        (
            "name='t'\ninitial='a'\n[[stage]]\nname='a'\n[override.x.y.a]\nfrom=['a']",
            "x.toml:6: unknown key `from` of an override",
        ),
    ] {
        assert!(problems(text).contains(expected), "{text}\n{}", problems(text));
    }
    assert!(problems("name = 't\n").starts_with("x.toml:1: not TOML: "));
}

#[test]
fn stages_and_names_are_checked_against_each_other() {
    let a = "name='t'\ninitial='a'\n[[stage]]\nname='a'\n";
    for (text, expected) in [
        (format!("{a}[[stage]]\nname='a'\nenter='true'"), "x.toml:6: stage `a` is there already, at line 4"),
        (
            format!("{a}[[stage]]\nname='B'\nenter='true'"),
            "x.toml:6: the stage's name `B` must be snake_case or kebab-case, at most 64 bytes",
        ),
        (format!("{a}[[stage]]\nname='b__c'\nenter='true'"), "x.toml:6: the stage's name `b__c` must be"),
        (
            "name='T 1'\ninitial='a'\n[[stage]]\nname='a'\n".into(),
            "x.toml:1: the lifecycle's name `T 1` must be",
        ),
        (
            format!("{a}[[stage]]\nname='bb'\nenter='true'\nfrom=['bc']"),
            "x.toml:8: `from`: unknown stage `bc` (did you mean `bb`?)",
        ),
        (
            "name='t'\ninitial='ab'\n[[stage]]\nname='aa'\n".into(),
            "x.toml:2: `initial`: unknown stage `ab` (did you mean `aa`?)",
        ),
        (format!("{a}[[stage]]\nname='b'"), "x.toml:6: stage `b` is unreachable: it has no `enter` rule"),
        (
            format!(
                "{a}[[stage]]\nname='b'\nenter='true'\nfrom=['c']\n[[stage]]\nname='c'\nenter='true'\nfrom=['b']"
            ),
            "x.toml:6: stage `b` is unreachable: no chain of `from` leads to it from `a`\nx.toml:10: stage `c` is unreachable",
        ),
        (
            format!("{a}[thresholds]\norders_90d=1"),
            "x.toml:6: threshold `orders_90d` has the name of a feature",
        ),
        (format!("{a}[thresholds]\np_churn=1"), "x.toml:6: threshold `p_churn` has a name that is taken"),
        (format!("{a}[thresholds]\nx-y=1"), "x.toml:6: threshold `x-y` is no name that a rule can say"),
        (
            format!("traits=['x y']\n{a}"),
            "x.toml:1: trait `x y` is no name that a rule can say; read it as traits[\"name\"] instead",
        ),
        (format!("traits=['x']\n{a}[thresholds]\nx=1"), "x.toml:1: trait `x` is declared twice"),
        (
            format!("{a}[thresholds]\nmany=1\n[override.s.x]\nmay=2"),
            "x.toml:8: unknown threshold `may` (did you mean `many`?)",
        ),
        (format!("{a}[override.s.x.aa]\nenter='true'"), "x.toml:5: unknown stage `aa` (did you mean `a`?)"),
        (
            format!("{a}[override.s.x.a]\nenter='nope > 1'"),
            "x.toml:6: stage `a`, `enter`: unknown name `nope` (a trait is traits.NAME)",
        ),
    ] {
        assert!(problems(&text).contains(expected), "{text}\n{}", problems(&text));
    }
    let many: String = (0..33).map(|i| format!("[[stage]]\nname='s{i}'\nenter='true'\n")).collect();
    let found = problems(&format!("name='t'\ninitial='s0'\n{many}"));
    assert!(found.contains("x.toml:100: 33 stages; at most 32 are possible"), "{found}");
    let combinations: String = (0..7).map(|i| format!("[override.t{i}.x.a]\naction='x'\n")).collect();
    let found = problems(&format!("{a}{combinations}"));
    assert!(found.contains("x.toml:17: the overrides up to here make 128 combinations"), "{found}");
}

#[test]
fn all_problems_of_a_file_come_at_once() {
    let found = problems(
        "name = 'Bad'\ninitial = 'a'\nsurprise = 1\n[[stage]]\nname = 'a'\n[[stage]]\nname = 'b'\n\
         enter = 'ordrs_90d > 1 && nope(1) && stage_day > 2'\nmin_dwell = 'x'\nfrom = ['c']\n",
    );
    let lines: Vec<&str> = found.lines().map(|l| l.split(": ").next().unwrap()).collect();
    let expected: Vec<String> = [1, 3, 8, 8, 8, 9, 10, 7].iter().map(|n| format!("x.toml:{n}")).collect();
    let (mut lines, mut expected): (Vec<_>, Vec<_>) = (lines, expected.iter().map(String::as_str).collect());
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected, "{found}");
}
