//! The examples in `deploy/examples` are read by what runs them, and read the outputs as they must be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn examples(extension: &str) -> Vec<PathBuf> {
    let folder = root().join("deploy/examples");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    assert!(!found.is_empty(), "no example in {extension}");
    found
}

fn passes(command: &mut Command, what: &Path) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{}: {}", what.display(), String::from_utf8_lossy(&output.stderr));
}

fn has(program: &str, arguments: &[&str], word: &str) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|o| o.status.success() && String::from_utf8_lossy(&o.stdout).contains(word))
}

#[test]
fn every_consumer_reads_committed_records_only_and_stands_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for path in ["py", "java", "sh", "json"].into_iter().flat_map(examples) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("read_committed"), "{}", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(readme.contains(&format!("deploy/examples/{name}")), "the README does not name {name}");
    }
}

#[test]
fn the_scripts_can_be_parsed() {
    for path in examples("sh") {
        passes(Command::new("bash").arg("-n").arg(&path), &path);
    }
    if has("python3", &["--version"], "Python 3") {
        for path in examples("py") {
            let parse = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
            passes(Command::new("python3").args(["-c", parse]).arg(&path), &path);
        }
    }
}

/// Where Kafka's jars and a compiler are, as they are for the tests with a real broker on a JDK.
#[test]
fn the_java_example_compiles_against_the_client() {
    let libs = std::env::var_os("STAGECAST_TEST_KAFKA_LIBS").map(PathBuf::from);
    let libs = libs.unwrap_or_else(|| root().join("target/kafka-libs"));
    if !libs.is_dir() || !has("java", &["--list-modules"], "jdk.compiler") {
        return;
    }
    let jars = fs::read_dir(&libs).unwrap().map(|entry| entry.unwrap().path());
    let class_path = std::env::join_paths(jars).unwrap();
    let out = tempfile::tempdir().unwrap();
    for path in examples("java") {
        let mut compile = Command::new("java");
        compile.args([
            "-m",
            "jdk.compiler/com.sun.tools.javac.Main",
            "-Xlint:all,-processing,-path",
            "-Werror",
            "-d",
        ]);
        compile.arg(out.path()).arg("-cp").arg(&class_path).arg(&path);
        passes(&mut compile, &path);
    }
}

#[test]
fn the_connector_has_strings_alone_as_connect_wants() {
    for path in examples("json") {
        let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let properties = config["config"].as_object().unwrap();
        assert!(config["name"].is_string() && properties.values().all(|value| value.is_string()));
        assert_eq!(properties["consumer.override.isolation.level"], "read_committed");
        // As text: a converter of JSON would want a schema with every record.
        assert!(properties["value.converter"].as_str().unwrap().ends_with("StringConverter"));
    }
}
