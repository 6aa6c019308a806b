//! Configurations that change while state is live: another definition of a lifecycle, another feature.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use stagecast::simulate::START;
use stagecast::time::{DAY_MS, format_rfc3339};

use crate::checker::expect_sequences;
use crate::records::{Isolation, Record};
use crate::service::refused;
use crate::world::World;

const OLD: &str = r#"
name = "journey"
initial = "new"
[[stage]]
name = "loyal"
enter = "orders_90d >= 3"
stay = "days_since_order < 60"
[[stage]]
name = "active"
enter = "days_since_event < 7"
[[stage]]
name = "quiet"
enter = "days_since_event >= 7"
[[stage]]
name = "new"
enter = "false"
"#;

/// `active` is gone, `engaged` is new, and the others are entered at other values.
fn new() -> String {
    OLD.replace("orders_90d >= 3", "orders_90d >= 2").replace("active", "engaged").replace("7", "10")
}

/// Stage changes by customer.
fn changes(world: &World) -> BTreeMap<String, Vec<Value>> {
    world.written(Isolation::Committed).remove("stage-changes").unwrap_or_default()
}

fn by_definition(changes: &BTreeMap<String, Vec<Value>>) -> BTreeMap<&str, Vec<&Value>> {
    let of = |changes: &'_ Vec<Value>| changes.iter().filter(|c| c["trigger"] == "definition").count();
    changes
        .iter()
        .filter(|(_, all)| of(all) > 0)
        .map(|(customer, all)| {
            (customer.as_str(), all.iter().filter(|c| c["trigger"] == "definition").collect())
        })
        .collect()
}

#[test]
fn an_edited_lifecycle_moves_every_customer_it_concerns_exactly_once_through_kills() {
    let folder = tempfile::tempdir().unwrap();
    let [old_file, file] = ["old.toml", "journey.toml"].map(|name| folder.path().join(name));
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    fs::write(&old_file, OLD).unwrap();
    fs::write(&file, OLD).unwrap();
    let extra = format!(
        "[lifecycles]\nuse = [{:?}]\n[commit]\ninterval = \"10ms\"\ncatch_up = \"10ms\"\n",
        text(&file)
    );
    let mut world = World::new("definition", 2, &extra);
    world.simulate(1_500, 20, 12);
    world.load(0.0, 1.0);
    let until = format_rfc3339(START + 20 * DAY_MS).as_str().to_owned();
    world.finish(&["run", "--until-end", "--until", &until], &[]);
    let before = changes(&world);
    assert!(by_definition(&before).is_empty());

    // What is said beforehand.
    fs::write(&file, new()).unwrap();
    let input = text(&world.replay().parent().unwrap().join("input"));
    let (old_name, new_name) = (text(&old_file), text(&file));
    let mut check = world.start(
        "box-0",
        &["check", "--diff", &old_name, &new_name, "--input", &input, "--until", &until, "--json"],
        &[],
    );
    assert_eq!(check.exit_code(std::time::Duration::from_secs(60)), Some(0), "{}", check.stderr());
    let said: Value = serde_json::from_str(&check.stdout()).unwrap();

    // Killed right after some customers are reconciled, then in the middle of a transaction.
    let mut told = 0;
    for point in ["after_commit:1", "before_commit:1"] {
        let mut process = world.start("box-0", &["run", "--until-end"], &[("STAGECAST_FAULT", point)]);
        process.exit_code(std::time::Duration::from_secs(60));
        let so_far = by_definition(&changes(&world)).len();
        assert!(so_far >= told, "{point}");
        told = so_far;
    }
    let output = world.finish(&["run", "--until-end"], &[]);
    assert!(output.contains("lifecycles with another definition: journey"), "{output}");
    let after = changes(&world);
    let moved = by_definition(&after);
    assert!(0 < told && told < moved.len(), "{told} of {} before the last start", moved.len());
    expect_sequences(&after);
    let mut moves: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (customer, chain) in &moved {
        let (first, last) = (chain[0], chain[chain.len() - 1]);
        let stood =
            before.get(*customer).and_then(|all| all.last()).map_or("new", |c| c["to"].as_str().unwrap());
        assert_eq!(first["from"].as_str(), Some(stood), "{customer}");
        *moves.entry((stood, last["to"].as_str().unwrap())).or_default() += 1;
    }
    let expected = said["moves"].as_array().unwrap().iter().filter(|m| m["on_applying"] != 0);
    let expected: BTreeMap<(&str, &str), u64> = expected
        .map(|m| {
            ((m["from"].as_str().unwrap(), m["to"].as_str().unwrap()), m["on_applying"].as_u64().unwrap())
        })
        .collect();
    moves.retain(|(from, to), _| from != to);
    assert_eq!(moves, expected);
    let stands = |all: &Vec<Value>| all.last().is_some_and(|change| change["to"] == "active");
    assert!(
        before.values().any(stands) && !after.values().any(stands),
        "nobody is left in a stage that is gone"
    );

    world.finish(&["run", "--until-end"], &[]);
    assert_eq!(changes(&world), after, "once is enough");
}

#[test]
fn a_feature_is_added_on_live_state_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("features.toml");
    let feature = |name: &str, of: &str| {
        format!(
            "[[feature]]\nname = \"{name}\"\nsource = \"clickstream\"\ntypes = [\"{of}\"]\nagg = \"count\"\n\
             windows = [\"7d\", \"lifetime\"]\n"
        )
    };
    let removed = feature("removals", "product_removed");
    fs::write(&file, &removed).unwrap();
    let extra = format!("[features]\nfile = {:?}\n", file.to_string_lossy());
    let mut world = World::new("feature", 2, &extra);
    world.simulate(60, 60, 13);
    world.load(0.0, 0.5);
    world.finish(&["run", "--until-end"], &[]);
    fs::write(&file, feature("wishes", "wishlist_added") + &feature("carts", "cart_viewed")).unwrap();
    world.load(0.5, 1.0);
    let output = world.finish(&["run", "--until-end"], &[]);
    assert!(output.contains("wishes_7d, wishes_lifetime, carts_7d"), "{output}");
    world.finish_and_check();
    let state = world.kafka.read(&[&world.topic("state")], Isolation::Committed);
    let descriptions = state.iter().filter(|record| record.key.starts_with(b"\xfflayout-")).count();
    assert_eq!(descriptions, 4, "one per partition and layout");
}

#[test]
fn a_state_that_nothing_describes_is_refused_until_something_does() {
    let mut world = World::new("undescribed", 1, "");
    world.simulate(10, 30, 16);
    world.load(0.0, 1.0);
    world.finish(&["run", "--until-end"], &[]);
    let topic = world.topic("state");
    let records = world.kafka.read(&[&topic], Isolation::Committed);
    let described = records.iter().find(|record| record.key.starts_with(b"\xfflayout-")).unwrap();
    let known = records.iter().rev().find(|record| !record.key.starts_with(b"\xff")).unwrap();
    // Behind the number of its transaction: a version, the layout's id, the rest, a checksum.
    let mut value = known.value.clone().unwrap();
    let (state, end) = (value.iter().position(|byte| *byte < 0x80).unwrap() + 1, value.len() - 4);
    value[state + 1..state + 5].copy_from_slice(&7u32.to_le_bytes());
    let checksum = xxhash_rust::xxh3::xxh3_64(&value[state..end]) as u32;
    value[end..].copy_from_slice(&checksum.to_le_bytes());
    world.kafka.produce(&topic, [Record::new(known.key.clone(), value)]);
    refused(&world, "nothing tells what stands where in it");
    refused(&world, "run this version once with the configuration that wrote them");
    // As the first transaction of that run would.
    let description = described.value.clone().unwrap();
    world.kafka.produce(&topic, [Record::new(b"\xfflayout-00000007".to_vec(), description)]);
    world.finish_and_check();
}
