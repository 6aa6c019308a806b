//! What the manifests, the compose file and the image promise: fields that belong together agree, with each other and
//! with the program. Whether each field is one that its reader knows, `schemas.mjs` asks the schemas.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use stagecast::config::Config;

use crate::{deploy, yaml};

fn manifest(name: &str) -> Value {
    yaml(&format!("kubernetes/{name}.yaml"))
}

fn config(file: &str) -> Config {
    Config::load(Some(&deploy().join(file)), &[]).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn root(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

fn words(arguments: &Value) -> Vec<String> {
    arguments.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn accepted(arguments: &Value) {
    let line = [vec!["stagecast".to_owned()], words(arguments)].concat();
    let parsed = stagecast::cli::command().try_get_matches_from(&line);
    assert!(parsed.is_ok(), "{line:?}: {}", parsed.unwrap_err());
}

#[test]
fn a_pod_is_one_member_by_its_name_and_has_time_to_finish() {
    let set = manifest("statefulset");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let env = |name: &str| {
        let all = container["env"].as_array().unwrap();
        all.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{name} is not set")).clone()
    };
    let instance = env("STAGECAST__APP__INSTANCE");
    assert_eq!(instance["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= 30);
    accepted(&container["args"]);
    let workers: u64 = env("STAGECAST__APP__WORKERS")["value"].as_str().unwrap().parse().unwrap();
    assert_eq!(container["resources"]["requests"]["cpu"], workers.to_string(), "a core for each worker");
    for resource in ["requests", "limits"] {
        assert!(container["resources"][resource]["memory"].is_string(), "memory holds the state");
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(set["spec"]["serviceName"], manifest("service")["metadata"]["name"]);
}

/// Restoring may take minutes and Kafka may be away: neither is a reason to kill a pod.
#[test]
fn liveness_asks_whether_it_lives_and_readiness_whether_it_serves() {
    let set = manifest("statefulset");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let port = &container["ports"][0];
    let http: Value = serde_json::from_str(&root("docs/interfaces/openapi.json")).unwrap();
    for (probe, path) in
        [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
    {
        let get = &container[probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&json!(path), &port["name"]), "{probe}");
        assert!(http["paths"].get(path).is_some(), "{path} is not served");
    }
    let listens = config("kubernetes/stagecast.toml").http.listen;
    assert_eq!(port["containerPort"], listens.port());
    assert!(listens.ip().is_unspecified(), "probes come from outside of the pod");
}

#[test]
fn what_selects_the_pods_selects_them() {
    let set = manifest("statefulset");
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    let service = manifest("service");
    for selector in [
        &set["spec"]["selector"]["matchLabels"],
        &service["spec"]["selector"],
        &manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"],
    ] {
        for (label, value) in selector.as_object().unwrap() {
            assert_eq!(&labels[label], value, "{label}");
        }
    }
    let monitor = manifest("servicemonitor");
    for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&service["metadata"]["labels"][label], value, "{label}");
    }
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    assert_eq!(manifest("poddisruptionbudget")["spec"]["maxUnavailable"], 1);
}

#[test]
fn scaling_follows_the_lag_of_the_group_that_the_configuration_names() {
    let (scaled, config) = (manifest("scaledobject"), config("kubernetes/stagecast.toml"));
    let (spec, set) = (&scaled["spec"], manifest("statefulset"));
    assert_eq!(spec["scaleTargetRef"]["kind"], set["kind"]);
    assert_eq!(spec["scaleTargetRef"]["name"], set["metadata"]["name"]);
    let trigger = &spec["triggers"][0];
    assert_eq!(trigger["type"], "kafka");
    assert_eq!(trigger["metadata"]["consumerGroup"], config.app.id);
    assert_eq!(trigger["metadata"]["topic"], config.source.clickstream.topic);
    let brokers = config.kafka.common.iter().find(|(key, _)| *key == "bootstrap.servers").unwrap().1;
    assert_eq!(trigger["metadata"]["bootstrapServers"].as_str().unwrap(), brokers);
    let most = spec["maxReplicaCount"].as_u64().unwrap();
    assert!(most <= u64::from(config.topics.partitions), "a pod without a partition has nothing to do");
    assert!(spec["minReplicaCount"].as_u64().unwrap() >= 1);
}

#[test]
fn kustomize_takes_every_manifest_and_makes_what_the_pod_mounts() {
    let kustomization = manifest("kustomization");
    let taken: BTreeSet<String> = words(&kustomization["resources"]).into_iter().collect();
    let there: BTreeSet<String> = fs::read_dir(deploy().join("kubernetes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml")
        .collect();
    assert_eq!(taken, there);
    let set = manifest("statefulset");
    let pod = &set["spec"]["template"]["spec"];
    let made = &kustomization["configMapGenerator"][0];
    assert_eq!(pod["volumes"][0]["configMap"]["name"], made["name"]);
    assert!(deploy().join("kubernetes").join(made["files"][0].as_str().unwrap()).exists());
    assert_eq!(pod["containers"][0]["image"], kustomization["images"][0]["name"]);
    assert_eq!(kustomization["images"][0]["newTag"], env!("CARGO_PKG_VERSION"));
    assert_eq!(kustomization["namespace"], manifest("namespace")["metadata"]["name"]);
}

#[test]
fn compose_starts_things_in_order_with_commands_that_the_program_takes() {
    let compose: Value = serde_norway::from_str(&root("docker-compose.yml")).unwrap();
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        if service["image"] == "stagecast" {
            accepted(&service["command"]);
            let mount = service["volumes"][0].as_str().unwrap();
            assert!(mount.contains(":/etc/stagecast/stagecast.toml"), "{name} runs in /etc/stagecast");
        } else {
            assert!(service["image"].as_str().unwrap().contains(':'), "{name} has a version");
        }
    }
    assert!(services["kafka"]["healthcheck"]["test"].is_array());
    assert_eq!(services["topics"]["depends_on"]["kafka"]["condition"], "service_healthy");
    for service in ["stagecast", "load"] {
        let waits = &services[service]["depends_on"]["topics"]["condition"];
        assert_eq!(waits, "service_completed_successfully", "{service}");
    }
    let config = config("compose/stagecast.toml");
    let listener = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    let brokers = config.kafka.common.iter().find(|(key, _)| *key == "bootstrap.servers").unwrap().1;
    assert!(listener.contains(brokers.as_str()), "{listener} is not {brokers}");
    let scrape = yaml("prometheus/prometheus.yml");
    let target = &scrape["scrape_configs"][0]["static_configs"][0]["targets"][0];
    assert_eq!(target, &format!("stagecast:{}", config.http.listen.port()));
}

/// Everything that a build looks at is copied, and what runs has no shell and no root.
#[test]
fn the_image_is_built_of_what_is_there_and_runs_as_nobody() {
    let dockerfile = root("Dockerfile");
    let (build, run) = dockerfile.rsplit_once("\nFROM ").unwrap();
    assert!(run.starts_with("gcr.io/distroless/") && run.lines().next().unwrap().ends_with(":nonroot"));
    assert!(run.contains("\nUSER nonroot\n") && run.contains("ENTRYPOINT [\"/usr/local/bin/stagecast\"]"));
    let copied: Vec<&str> = build
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .flat_map(|line| line.rsplit_once(' ').unwrap().0.split(' '))
        .collect();
    for file in &copied {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{file} is not there");
    }
    for needed in ["Cargo.toml", "Cargo.lock", ".cargo", "src", "models", "benches", "README.md"] {
        assert!(copied.contains(&needed), "{needed} is not copied");
    }
    let cmd = run.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    accepted(&serde_json::from_str(cmd).unwrap());
}
