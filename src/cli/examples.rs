//! Examples of every command, as its `--help`, its man page and the README show them. The tests parse each.

use clap::Command;

/// A command line, and what it does.
pub type Example = (&'static str, &'static str);

/// By command, subcommands with their parent's name in front.
pub const EXAMPLES: [(&str, &[Example]); 23] = [
    (
        "demo",
        &[
            ("stagecast demo", "everything in this process, until Ctrl-C"),
            ("stagecast demo --for 60s --speed 6h", "one minute, in which 15 days pass"),
            ("stagecast demo --brokers broker:9092", "the same show on a real cluster, exactly once"),
        ],
    ),
    (
        "run",
        &[
            ("stagecast run", "the service, configured by stagecast.toml"),
            ("stagecast run --config prod.toml --log-format json", "another file, logs for a machine"),
            (
                "stagecast run --until-end --until 2026-01-01",
                "works off what there is, and the silence up to a day",
            ),
        ],
    ),
    (
        "replay",
        &[
            ("stagecast replay --input data --output out", "the same engine over files"),
            (
                "stagecast replay --input data --output out --features-at 2026-01-01,2026-02-01",
                "with every customer's features at two instants",
            ),
            (
                "stagecast replay --input data --check consumed",
                "names the first difference from what the topics held",
            ),
        ],
    ),
    (
        "topics create",
        &[
            ("stagecast topics create --inputs", "all topics, with the partitions of topics.partitions"),
            (
                "stagecast topics create --set topics.replication=3",
                "outputs and state only, three copies of each",
            ),
        ],
    ),
    (
        "topics acls",
        &[(
            "stagecast topics acls --principal User:stagecast",
            "the commands that grant what is needed, and no more",
        )],
    ),
    ("topics check", &[("stagecast topics check", "policies, partitions, and where keys stand")]),
    (
        "simulate",
        &[
            (
                "stagecast simulate --customers 2000 --days 120 --out data",
                "files for replay, train and evaluate",
            ),
            ("stagecast simulate --to-kafka --rate 500", "500 events a second into the input topics"),
            (
                "stagecast simulate --out data --faults duplicates=0.01,late=0.01,malformed=0.001",
                "with what goes wrong on the way",
            ),
        ],
    ),
    (
        "train",
        &[
            (
                "stagecast train --input data --until 2025-04-01 --output models/mine.json",
                "leaves the time from April on for evaluate",
            ),
            ("stagecast train --from-kafka --output models/mine.json", "from the input topics"),
            (
                "stagecast train --input data --output m.json --label no_event --horizon 14d --lead 7d",
                "who falls silent, a week ahead",
            ),
        ],
    ),
    (
        "evaluate",
        &[
            (
                "stagecast evaluate --input data --model models/mine.json --output report",
                "figures, JSON and a page with plots",
            ),
            ("stagecast evaluate --from-kafka --json", "the configured model on the topics"),
        ],
    ),
    (
        "campaign-report",
        &[
            (
                "stagecast campaign-report --input out --input data",
                "what replay wrote, and the events it read",
            ),
            ("stagecast campaign-report --from-kafka --json", "from the topics, as JSON"),
        ],
    ),
    (
        "recalibrate",
        &[(
            "stagecast recalibrate --from-kafka --output models/churn-set-right.json",
            "a new version, fitted to what became of the scores",
        )],
    ),
    ("models list", &[("stagecast models list", "the versions in the folder, and what each is for")]),
    ("models promote", &[("stagecast models promote churn-2026-03", "this one serves from now on")]),
    ("models rollback", &[("stagecast models rollback", "the champion of before serves again")]),
    ("models challenge", &[("stagecast models challenge churn-2026-04", "scores in the champion's shadow")]),
    (
        "explain",
        &[
            ("stagecast explain c-42", "why this customer has its stage and its score"),
            ("stagecast explain c-42 --url http://stagecast-1:9464 --json", "another instance, as JSON"),
        ],
    ),
    (
        "check",
        &[
            ("stagecast check", "is everything that the configuration names valid?"),
            ("stagecast check --print", "every key with the value in force, secrets masked"),
            (
                "stagecast check --diff retention mine.toml --input data --list",
                "who would move under another definition",
            ),
        ],
    ),
    (
        "dlq replay",
        &[
            ("stagecast dlq replay --dry-run", "what could be used today"),
            (
                "stagecast dlq replay --reason unknown_currency --since 2026-03-01",
                "after a rate was configured",
            ),
            ("stagecast dlq replay --input out/dlq.ndjson", "from a file, repaired or not"),
        ],
    ),
    (
        "erase",
        &[(
            "stagecast erase c-42 --set source.profile.enabled=true",
            "writes the request to the profile topic",
        )],
    ),
    (
        "schema",
        &[
            ("stagecast schema", "which documents there are"),
            ("stagecast schema stage-change", "the JSON Schema of one"),
            ("stagecast schema asyncapi", "the topics of this configuration"),
            ("stagecast schema --out schemas", "all of them, as files"),
        ],
    ),
    (
        "completions",
        &[
            ("stagecast completions bash", "for `source <(stagecast completions bash)`"),
            ("stagecast completions zsh", "for a file `_stagecast` in a folder of $fpath"),
            ("stagecast completions fish", "for ~/.config/fish/completions/stagecast.fish"),
        ],
    ),
    ("man", &[("stagecast man --out man1", "one page for each command; `man man1/stagecast.1`")]),
    ("", &[("stagecast demo", "see it work"), ("stagecast help run", "all about a command")]),
];

/// The command with the examples of it and of its subcommands in their help.
pub fn with_examples(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, examples)| {
        let words: Vec<&str> = path.split_whitespace().collect();
        put(command, &words, &section(examples))
    })
}

fn put(command: Command, path: &[&'static str], text: &str) -> Command {
    match path {
        [] => {
            let known = command.get_after_help().map(ToString::to_string);
            let text = known.map_or_else(|| text.to_owned(), |known| format!("{text}\n\n{known}"));
            command.after_help(text)
        }
        [first, rest @ ..] => command.mut_subcommand(first, |sub| put(sub, rest, text)),
    }
}

fn section(examples: &[Example]) -> String {
    let lines: Vec<String> = examples.iter().map(|(line, help)| format!("  {line}\n      {help}")).collect();
    format!("Examples:\n{}", lines.join("\n"))
}
