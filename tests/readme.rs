//! The README's tables are those that the code makes: commands, interfaces, configuration, topics and metrics.
//!
//! A table stands between `<!-- generated: NAME -->` and `<!-- end -->`; `UPDATE=1 cargo test --test readme` writes
//! all of them anew. What the README names must be there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use stagecast::config::keys::{KEYS, WITHOUT_DEFAULT};
use stagecast::config::{Config, Layers};
use stagecast::kafka::topics::Role;
use stagecast::metrics::table::FAMILIES;
use stagecast::schema;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// A table in Markdown; a bar within a cell would end it.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    let head = line(head.iter().map(|cell| (*cell).to_owned()).collect());
    head + &rule + &rows.into_iter().map(line).collect::<String>()
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn commands() -> String {
    fn rows(command: &clap::Command, path: &str) -> Vec<Vec<String>> {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        let subs: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
        if !subs.is_empty() {
            return subs.into_iter().flat_map(|sub| rows(sub, &path)).collect();
        }
        let arguments = command.get_positionals().map(|a| format!(" {}", name_of(a))).collect::<String>();
        let options: Vec<String> = command
            .get_opts()
            .filter(|option| !option.is_global_set())
            .filter_map(|option| option.get_long())
            .filter(|long| *long != "help")
            .map(|long| code(&format!("--{long}")))
            .collect();
        let about = command.get_about().map_or_else(String::new, ToString::to_string);
        vec![vec![code(&format!("{path}{arguments}")), about, options.join(" ")]]
    }
    fn name_of(argument: &clap::Arg) -> String {
        let name = argument.get_value_names().map_or_else(String::new, |names| names.join(" "));
        let name = if name.is_empty() { argument.get_id().to_string().to_uppercase() } else { name };
        if argument.is_required_set() { name } else { format!("[{name}]") }
    }
    let all = stagecast::cli::command();
    let commands = all.get_subcommands().filter(|sub| sub.get_name() != "help");
    table(&["command", "does", "options"], commands.flat_map(|command| rows(command, "")))
}

/// Every key that `check --print` shows, with its default as it is written.
fn defaults() -> BTreeMap<String, String> {
    let layers = Layers { host: "host".into(), ..Layers::default() };
    let printed = Config::from_layers(&layers).unwrap().to_toml();
    let (mut section, mut found) = (String::new(), BTreeMap::new());
    for line in printed.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix('[') {
            Some(heading) => {
                section = heading.trim_matches(['[', ']']).to_owned();
                if is_open(&section) {
                    found.insert(section.clone(), "none".to_owned());
                }
            }
            None if is_open(&section) => {
                found.insert(section.clone(), code(line));
            }
            None => {
                let (key, value) = line.split_once(" = ").unwrap();
                found.insert(format!("{section}.{key}"), code(value));
            }
        }
    }
    found
}

/// Sections whose keys the user names.
fn is_open(section: &str) -> bool {
    section.starts_with("kafka")
        || section == "money.rates"
        || section == "alert.segment"
        || section.ends_with(".fields")
        || section.ends_with(".types")
}

/// A source's keys are the same for all four.
fn documented(key: &str) -> String {
    match key.strip_prefix("source.").and_then(|rest| rest.split_once('.')) {
        Some((_, rest)) => format!("source.NAME.{rest}"),
        None => key.to_owned(),
    }
}

fn configuration() -> String {
    let defaults = defaults();
    let default = |key: &str| match key {
        "source.NAME.topic" => "NAME".to_owned(),
        "app.instance" => "the host's name".to_owned(),
        _ if WITHOUT_DEFAULT.contains(&key) => String::new(),
        _ => defaults[&key.replace("NAME", "clickstream")].clone(),
    };
    table(
        &["key", "default", "decides"],
        KEYS.map(|(key, help)| vec![code(key), default(key), help.to_owned()]),
    )
}

#[test]
fn every_key_is_explained_and_nothing_else() {
    let mut printed: Vec<String> = defaults().keys().map(|key| documented(key)).collect();
    printed.extend(WITHOUT_DEFAULT.map(String::from));
    printed.sort();
    printed.dedup();
    let mut explained = KEYS.map(|(key, _)| key.to_owned());
    explained.sort();
    assert_eq!(printed, explained);
}

/// The topics of a configuration that reads all four sources.
fn topics() -> String {
    let layers = Layers { set: vec!["source.profile.enabled=true".into()], ..Layers::default() };
    let config = Config::from_layers(&layers).unwrap();
    let documents = schema::documents(&config);
    let asyncapi = &documents.iter().find(|d| d.file == "asyncapi.json").unwrap().content;
    let channels = asyncapi["channels"].as_object().unwrap();
    let row = |(topic, role): (&str, Role)| {
        let channel = channels.values().find(|channel| channel["address"] == topic);
        let carries = match role {
            Role::State => "Private: one record per customer, versioned, and commit markers.",
            Role::Moves => "Private: what passes between the ids of one customer.",
            _ => channel.unwrap()["description"].as_str().unwrap(),
        };
        let message = channel.and_then(|c| c["messages"].as_object()?.keys().next());
        let schema = message.map_or_else(String::new, |name| {
            let name = if name == "dead-letter" { "dead-letter-headers" } else { name };
            format!("[{name}](docs/interfaces/{name}.schema.json)")
        });
        let way = if role == Role::Input { "in" } else { "out" };
        let config = role.config(1);
        let kept = config.get("retention.ms").map_or("", |ms| if ms == "-1" { ", for good" } else { "" });
        vec![code(topic), way.into(), format!("{}{kept}", config["cleanup.policy"]), carries.into(), schema]
    };
    let layout = stagecast::setup::topics(&config);
    table(&["topic", "", "cleanup", "carries", "schema"], layout.topics().into_iter().map(row))
}

fn metrics() -> String {
    let row = |family: &stagecast::metrics::table::Family| {
        let labels: Vec<String> = family.labels.iter().map(|label| code(label)).collect();
        vec![code(family.name), family.kind.name().into(), labels.join(" "), family.help.into()]
    };
    table(&["metric", "type", "labels", "says"], FAMILIES.iter().map(row))
}

fn between(name: &str) -> (String, &'static str) {
    (format!("<!-- generated: {name} -->\n"), "<!-- end -->")
}

#[test]
fn the_tables_are_those_that_the_code_makes() {
    let mut text = readme();
    for (name, made) in [
        ("commands", commands()),
        ("configuration", configuration()),
        ("topics", topics()),
        ("metrics", metrics()),
    ] {
        let (begin, end) = between(name);
        let start =
            text.find(&begin).unwrap_or_else(|| panic!("the README has no place for {name}")) + begin.len();
        let stop = start + text[start..].find(end).unwrap_or_else(|| panic!("{name} has no end"));
        if std::env::var_os("UPDATE").is_some() {
            text.replace_range(start..stop, &made);
            fs::write(root().join("README.md"), &text).unwrap();
        } else {
            assert!(text[start..stop] == made, "{name} is stale: run `UPDATE=1 cargo test --test readme`");
        }
    }
}

#[test]
fn what_the_readme_links_to_is_there() {
    let text = readme();
    let anchors: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect();
    let mut checked = 0;
    for (at, _) in text.match_indices("](") {
        let link = text[at + 2..].split(')').next().unwrap();
        if let Some(anchor) = link.strip_prefix('#') {
            assert!(anchors.iter().any(|a| a == anchor), "the README has no section #{anchor}");
        } else if !link.starts_with("http") {
            assert!(Path::new(&root()).join(link).exists(), "the README links to {link}");
        }
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}

/// Command lines in the README's code blocks are ones that the program takes.
#[test]
fn the_readme_s_command_lines_are_accepted() {
    let text = readme();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut checked = 0;
    for line in blocks.flat_map(str::lines) {
        let line = line.split(" #").next().unwrap().trim();
        let Some(call) = line.strip_prefix("stagecast ") else { continue };
        let call = call.split([';', '|', '&', '>']).next().unwrap();
        let words = std::iter::once("stagecast").chain(call.split_whitespace());
        let parsed = stagecast::cli::command().try_get_matches_from(words);
        assert!(parsed.is_ok(), "`{line}`: {}", parsed.unwrap_err());
        checked += 1;
    }
    assert!(checked >= 8, "{checked}");
}
