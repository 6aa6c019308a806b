//! What the command line accepts and refuses, as data.

use clap::{CommandFactory, Parser};

use super::*;

/// Every command's arguments, each through its own parser.
#[derive(Debug, Parser)]
struct One<A: clap::Args> {
    #[command(flatten)]
    args: A,
}

fn args<A: clap::Args + std::fmt::Debug>(line: &str) -> Result<A, String> {
    let words = std::iter::once("stagecast").chain(line.split_whitespace());
    match One::<A>::try_parse_from(words) {
        Ok(one) => Ok(one.args),
        Err(error) => {
            assert_eq!(error.exit_code(), 2, "{error}");
            Err(error.to_string())
        }
    }
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
    One::<demo::Args>::command().debug_assert();
    One::<run::Args>::command().debug_assert();
    One::<replay::Args>::command().debug_assert();
    One::<topics::Args>::command().debug_assert();
    One::<simulate::Args>::command().debug_assert();
    One::<train::Args>::command().debug_assert();
    One::<evaluate::Args>::command().debug_assert();
    One::<campaign_report::Args>::command().debug_assert();
    One::<models::Args>::command().debug_assert();
    One::<recalibrate::Args>::command().debug_assert();
    One::<explain::Args>::command().debug_assert();
}

/// Every command that can be called, by its words.
fn callable(command: &clap::Command, path: &str) -> Vec<String> {
    let of = |sub: &clap::Command| callable(sub, format!("{path} {}", sub.get_name()).trim());
    let subs: Vec<String> =
        command.get_subcommands().filter(|sub| sub.get_name() != "help").flat_map(of).collect();
    if subs.is_empty() { vec![path.to_owned()] } else { subs }
}

#[test]
fn every_command_has_examples_that_it_accepts() {
    let mut commands = callable(&Cli::command(), "");
    let mut exemplified: Vec<&str> = examples::EXAMPLES.iter().map(|(path, _)| *path).collect();
    exemplified.retain(|path| !path.is_empty());
    commands.sort();
    exemplified.sort_unstable();
    assert_eq!(exemplified, commands);
    for (path, examples) in examples::EXAMPLES {
        assert!(!examples.is_empty(), "{path}");
        for (line, _) in examples.iter().filter(|(line, _)| !line.starts_with("stagecast help")) {
            assert!(line.starts_with(&format!("stagecast {path}")), "`{line}` is no example of `{path}`");
            let parsed = try_parse(line.split(' ').map(OsString::from));
            assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
        }
    }
}

#[test]
fn help_shows_the_examples_and_exit_codes() {
    let error = try_parse(["stagecast", "dlq", "replay", "--help"].map(OsString::from)).unwrap_err();
    assert_eq!(error.exit_code(), 0);
    assert!(error.to_string().contains("stagecast dlq replay --dry-run"), "{error}");
    let top = command().render_help().to_string();
    assert!(top.contains("Exit codes:") && top.contains("stagecast demo"), "{top}");
}

#[test]
fn completions_and_manual_know_every_command() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "stagecast", &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in callable(&Cli::command(), "") {
            let word = command.split(' ').next_back().unwrap();
            assert!(script.contains(word), "{shell}: {command}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    generate::man(&generate::Man { out: folder.path().join("man1") }).unwrap();
    for command in callable(&Cli::command(), "") {
        let page = folder.path().join(format!("man1/stagecast-{}.1", command.replace(' ', "-")));
        let page = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        assert!(page.contains("Examples:"), "{command}");
    }
}

#[test]
fn run_has_an_end_only_when_asked() {
    assert_eq!(args::<run::Args>(""), Ok(run::Args { until_end: false, until: None }));
    let ended = args::<run::Args>("--until-end --until 1970-01-01T00:00:01Z");
    assert_eq!(ended, Ok(run::Args { until_end: true, until: Some(1_000) }));
    assert!(args::<run::Args>("--until 2026-01-01").unwrap_err().contains("--until-end"));
    assert!(args::<run::Args>("--until-end --until soon").unwrap_err().contains("2026-01-31T00:00:00Z"));
}

#[test]
fn replay_takes_instants_in_every_spelling_and_needs_somewhere_to_go() {
    let replay =
        args::<replay::Args>("--input in --output out --features-at 1970-01-02,5,1970-01-01T00:00:01Z");
    assert_eq!(replay.unwrap().features_at, [86_400_000, 5, 1_000]);
    assert!(args::<replay::Args>("--input in").unwrap_err().contains("--output"));
    assert_eq!(args::<replay::Args>("--input in --check old").unwrap().output, None);
    assert!(args::<replay::Args>("--output out").unwrap_err().contains("--input"));
}

#[test]
fn the_demo_needs_nothing_and_can_be_told_everything() {
    let plain = args::<demo::Args>("").unwrap();
    assert_eq!((plain.length, plain.brokers, plain.speed), (None, None, 86_400_000));
    let told = args::<demo::Args>("--for 60s --brokers b:9092 --speed 1h --history 0").unwrap();
    assert_eq!((told.length, told.speed, told.history), (Some(60_000), 3_600_000, 0));
    assert_eq!(told.brokers.as_deref(), Some("b:9092"));
    for wrong in ["--for 0", "--for soon", "--speed 0", "--customers 0"] {
        assert!(args::<demo::Args>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn simulated_events_have_a_rate_only_on_their_way_to_kafka_and_faults_everywhere() {
    assert_eq!(args::<simulate::Args>("--to-kafka --rate 500").unwrap().rate, Some(500.0));
    assert!(args::<simulate::Args>("--out d --rate 500").is_err());
    assert_eq!(args::<simulate::Args>("--out d --faults late=0.5").unwrap().settings().faults.late, 0.5);
    for wrong in ["--to-kafka --rate 0", "--to-kafka --rate -1", "--out d --faults lat=0.5"] {
        assert!(args::<simulate::Args>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn simulate_goes_to_one_destination() {
    assert_eq!(args::<simulate::Args>("--out d --customers 7").unwrap().customers, 7);
    assert!(args::<simulate::Args>("--to-kafka").unwrap().to_kafka);
    assert_eq!(args::<simulate::Args>("--out d").unwrap().start, crate::simulate::START);
    assert_eq!(args::<simulate::Args>("--out d --start 1970-01-02").unwrap().start, 86_400_000);
    for wrong in ["", "--out d --to-kafka", "--out d --customers 0", "--out d --days 0"] {
        assert!(args::<simulate::Args>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn train_has_the_documented_defaults() {
    let train = args::<train::Args>("--input d --output m.json").unwrap();
    let days = |n| n * crate::time::DAY_MS;
    assert_eq!((train.horizon, train.lead, train.active_within), (days(30), 0, days(90)));
    assert_eq!((train.label, train.cuts.as_slice()), (train::Label::NoOrder, &[][..]));
    let other = args::<train::Args>("--input d --output m.json --label no_event --lead 7d").unwrap();
    assert_eq!((other.label, other.lead), (train::Label::NoEvent, days(7)));
    assert!(args::<train::Args>("--from-kafka --output m.json").unwrap().from_kafka);
    for wrong in
        ["--output m", "--input d", "--input d --output m --horizon 0d", "--input d --from-kafka --output m"]
    {
        assert!(args::<train::Args>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn topics_names_an_action() {
    let create = topics::Action::Create { inputs: true };
    assert_eq!(args::<topics::Args>("create --inputs").unwrap().action, create);
    assert_eq!(args::<topics::Args>("check").unwrap().action, topics::Action::Check);
    assert!(args::<topics::Args>("delete").is_err());
}

#[test]
fn a_diff_names_two_lifecycles_and_its_input() {
    let diff =
        args::<check::Args>("--diff old.toml value --input d --until 1970-01-01T00:00:01Z --list").unwrap();
    assert_eq!(
        (diff.diff, diff.until, diff.list),
        (vec!["old.toml".into(), "value".into()], Some(1_000), true)
    );
    for wrong in
        ["--diff a b", "--diff a --input d", "--input d", "--list", "--json", "--diff a b --input d --print"]
    {
        assert!(args::<check::Args>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn global_flags_stand_before_or_after_the_command() {
    for line in
        ["stagecast --set a=1 -v check --print --set b=2", "stagecast check -v --set a=1 --set b=2 --print"]
    {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!((cli.global.verbose, cli.global.log_format), (1, LogFormat::Text));
        assert!(matches!(cli.command, Command::Check(check::Args { print: true, .. })));
    }
    for wrong in ["stagecast check -v -q", "stagecast check --log-format xml", "stagecast chek", "stagecast"]
    {
        assert_eq!(Cli::try_parse_from(wrong.split(' ')).unwrap_err().exit_code(), 2, "{wrong}");
    }
}
