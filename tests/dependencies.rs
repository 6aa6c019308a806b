//! What the program is made of: licences and sources as `deny.toml` allows them, and where unsafe code stands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rules() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

/// Every package of the lock file, for all features and platforms.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--all-features", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The licences under which a package may be used, of those that are allowed; `None` where none will do.
///
/// SPDX as it occurs: alternatives (`OR`, also written `/`) of licences that apply together (`AND`), with one level of
/// brackets, which stand around alternatives.
fn usable(expression: &str, allowed: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let expression = expression.replace(" / ", " OR ").replace('/', " OR ");
    if let Some((inner, rest)) = expression.strip_prefix('(').and_then(|rest| rest.split_once(") AND ")) {
        let (mut one, other) = (usable(inner, allowed)?, usable(rest, allowed)?);
        one.extend(other);
        return Some(one);
    }
    expression.split(" OR ").find_map(|all_of| {
        let all_of: Vec<&str> = all_of.split(" AND ").map(str::trim).collect();
        all_of
            .iter()
            .all(|one| allowed.contains(*one))
            .then(|| all_of.into_iter().map(str::to_owned).collect())
    })
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed_and_every_allowed_one_is_needed() {
    let allowed = rules()["licenses"]["allow"].as_array().unwrap().clone();
    let allowed: BTreeSet<String> = allowed.iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    let mut named = String::new();
    for package in packages() {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or("none"));
        let usable = usable(licence, &allowed);
        assert!(usable.is_some(), "{name} is licensed under `{licence}`, of which deny.toml allows nothing");
        named.push_str(licence);
    }
    for licence in &allowed {
        assert!(
            named.contains(licence.as_str()),
            "deny.toml allows {licence}, which nothing is licensed under"
        );
    }
}

#[test]
fn expressions_of_licences_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Zlib".to_owned()]);
    for (expression, is_usable) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("Apache-2.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND Zlib", true),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("(GPL-3.0 OR MIT) AND GPL-2.0", false),
    ] {
        assert_eq!(usable(expression, &allowed).is_some(), is_usable, "{expression}");
    }
}

#[test]
fn every_dependency_comes_from_the_registry_and_none_is_banned() {
    let rules = rules();
    let banned = rules["bans"]["deny"].as_array().unwrap();
    let is_banned = |name: &str| {
        banned.iter().any(|ban| ban["crate"].as_str() == Some(name) && ban.get("wrappers").is_none())
    };
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let source = package["source"].as_str();
        let is_known = source.map_or(name == "stagecast", |source| source.starts_with("registry+"));
        assert!(is_known, "{name} comes from {source:?}");
        assert!(!is_banned(name), "{name} is banned in deny.toml");
    }
}

#[test]
fn every_exception_has_a_reason_and_is_needed() {
    let rules = rules();
    let packages = packages();
    for ban in rules["bans"]["deny"].as_array().unwrap() {
        assert!(ban["reason"].as_str().is_some_and(|reason| reason.len() > 20), "{ban}");
    }
    for ignored in rules["advisories"]["ignore"].as_array().unwrap() {
        let reason = ignored["reason"].as_str().unwrap();
        let concerned = reason.split(' ').next().unwrap();
        assert!(
            packages.iter().any(|package| package["name"] == concerned),
            "{concerned} is gone: {ignored}"
        );
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_but_for_calls_that_say_why() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let main = std::fs::read_to_string(root().join("src/main.rs")).unwrap();
    assert!(lib.contains("#![deny(unsafe_code)]") && main.contains("#![forbid(unsafe_code)]"));
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut allowed = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let (allows, blocks) = (text.matches("allow(unsafe_code)").count(), text.matches("unsafe {").count());
        assert_eq!((allows, text.matches("// SAFETY: ").count()), (blocks, blocks), "{}", path.display());
        if allows > 0 {
            allowed.push((path.strip_prefix(root()).unwrap().display().to_string(), allows));
        }
    }
    allowed.sort();
    let expected = [("kafka/members", 2), ("kafka/transactions", 1)];
    assert_eq!(allowed, expected.map(|(file, calls)| (format!("src/{file}.rs"), calls)));
}
