//! What files, environments and `--set` arguments mean, and what is said of wrong ones, as data.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The example of the documentation: it states the defaults, except for the two files it names.
const DOCUMENTED: &str = r#"
[app]
id = "stagecast"
instance = "stagecast-0"
workers = 0

[kafka]
"bootstrap.servers" = "localhost:9092"

[source.clickstream]
topic  = "clickstream"
format = "native"
[source.clickstream.fields]

[topics]

[commit]
interval = "100ms"
catch_up = "1s"

[time]
clock = "wall"
grace = "1m"
max_future = "10m"

[features]
file = "features.toml"
dedupe = "24h"

[lifecycles]
use = ["retention"]

[model]
path = "models/churn.json"

[scores]
min_change = 0.01
rescore_every = "24h"
bands = [0.3, 0.7]

[[alert]]
policy = "churn"
raise = 0.7
clear = 0.5
cooldown = "7d"
control = 0.1

[money]
base = "EUR"
margin = 0.3
rates = { USD = 0.92 }

[http]
listen = "127.0.0.1:9464"
"#;

fn layers(file: &str, env: &[(&str, &str)], set: &[&str]) -> Layers {
    Layers {
        file: Some((PathBuf::from("conf/stagecast.toml"), file.to_string())),
        env: env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        set: set.iter().map(|argument| argument.to_string()).collect(),
        host: String::new(),
        cwd: PathBuf::from("/here"),
    }
}

fn read(file: &str, env: &[(&str, &str)], set: &[&str]) -> Config {
    Config::from_layers(&layers(file, env, set)).unwrap_or_else(|error| panic!("{error}"))
}

fn error(file: &str, env: &[(&str, &str)], set: &[&str]) -> String {
    let error = Config::from_layers(&layers(file, env, set)).expect_err(file);
    assert_eq!(error.exit_code(), 2);
    error.what
}

#[test]
fn the_documented_example_states_the_defaults() {
    let mut documented = read(DOCUMENTED, &[], &[]);
    assert_eq!(documented.features.file.take(), Some(PathBuf::from("/here/conf/features.toml")));
    assert_eq!(documented.model.path.take(), Some(PathBuf::from("/here/conf/models/churn.json")));
    assert_eq!(documented, Config::default());
}

#[test]
fn an_empty_file_and_no_file_mean_the_defaults() {
    assert_eq!(read("", &[], &[]), Config::default());
    assert_eq!(Config::from_layers(&Layers::default()), Ok(Config::default()));
    let topics = Config::default().topics;
    assert_eq!((topics.dlq.as_str(), topics.state.as_str()), ("stagecast-dlq", "stagecast-state"));
}

#[test]
fn the_instance_is_named_after_the_host() {
    let of_host = |host: &str| {
        let layers = Layers { host: host.into(), ..Layers::default() };
        Config::from_layers(&layers).map(|config| config.app.instance)
    };
    assert_eq!(of_host("worker-3.example.com\n"), Ok("worker-3.example.com".into()));
    assert_eq!(of_host("münchen 7"), Ok("m-nchen-7".into()));
    assert_eq!(of_host("\n"), Ok("stagecast-0".into()));
}

#[test]
fn private_topics_follow_the_application_and_default_rates_the_base_currency() {
    let config = read("[app]\nid = \"churn\"\n[money]\nbase = \"USD\"", &[], &[]);
    assert_eq!((config.topics.dlq.as_str(), config.topics.state.as_str()), ("churn-dlq", "churn-state"));
    assert_eq!(config.money.rates, BTreeMap::new());
    let own = read("money.rates = { GBP = 1.17 }", &[], &[]).money.rates;
    assert_eq!(own, BTreeMap::from([("GBP".to_string(), 1.17)]));
}

#[test]
fn later_layers_win_key_by_key() {
    let file = "[commit]\ninterval = \"10ms\"\ncatch_up = \"2s\"\n[kafka]\n\"linger.ms\" = 1\nacks = \"all\"";
    let env = [("STAGECAST__COMMIT__INTERVAL", "20ms"), ("STAGECAST__KAFKA__QUEUE_BUFFERING_MAX_MS", "2")];
    let set = ["commit.interval=30ms", "kafka.linger.ms=3", "commit.interval=40ms"];
    let interval = |env: &[_], set: &[_]| {
        let config = read(file, env, set);
        assert_eq!(config.commit.catch_up.as_secs(), 2);
        assert_eq!(config.kafka.common["acks"], "all");
        (config.commit.interval.as_millis(), config.kafka.common["linger.ms"].clone())
    };
    assert_eq!(interval(&[], &[]), (10, "1".into()));
    assert_eq!(interval(&env, &[]), (20, "2".into()));
    assert_eq!(interval(&env, &set), (40, "3".into()));
}

/// Each spelling, and the line of the printed configuration that it must lead to.
#[test]
fn every_key_can_be_spelt_in_every_layer() {
    for (env, set, line) in [
        ("STAGECAST__APP__ID=007", "app.id=007", "id = \"007\""),
        ("stagecast__app__workers=3", "app.workers=3", "workers = 3"),
        ("STAGECAST__SCORES__BANDS=0.2, 0.6", "scores.bands=[0.2, 0.6]", "bands = [0.2, 0.6]"),
        ("STAGECAST__LIFECYCLES__USE=[\"aida\"]", "lifecycles.use=aida", "use = [\"aida\"]"),
        (
            "STAGECAST__LIFECYCLES__USE=aida,x.toml",
            "lifecycles.use=aida,/here/x.toml",
            "use = [\"aida\", \"/here/x.toml\"]",
        ),
        ("STAGECAST__MONEY__RATES__GBP=1.2", "money.rates.GBP=1.2", "GBP = 1.2"),
        (
            "STAGECAST__SOURCE__PURCHASE__TYPES__OrderPlaced=order_completed",
            "source.purchase.types.OrderPlaced=order_completed",
            "OrderPlaced = \"order_completed\"",
        ),
        (
            "STAGECAST__SOURCE__PURCHASE__TYPES__BOUGHT=order_completed",
            "source.purchase.types.bought=order_completed",
            "bought = \"order_completed\"",
        ),
        (
            "STAGECAST__ALERT__0__SEGMENT__planName=gold",
            "alert.0.segment.planName=gold",
            "planName = \"gold\"",
        ),
        ("STAGECAST__TIME__GRACE=0", "time.grace=0", "grace = \"0ms\""),
        ("STAGECAST__ALERT__CHURN__RAISE=0.8", "alert.churn.raise=0.8", "raise = 0.8"),
        ("STAGECAST__ALERT__0__COOLDOWN=3d", "alert.0.cooldown=3d", "cooldown = \"3d\""),
        ("STAGECAST__ALERT=[{policy=\"x\"}]", "alert=[{policy='x'}]", "policy = \"x\""),
        (
            "STAGECAST__SOURCE__PROFILE__ENABLED=true",
            "source.profile={enabled=true, topic='p'}",
            "enabled = true",
        ),
        ("STAGECAST__MODEL__PATH=m.json", "model.path=m.json", "path = \"/here/m.json\""),
        (
            "STAGECAST__KAFKA__BOOTSTRAP_SERVERS=a:1,b:2",
            "kafka.bootstrap.servers=a:1,b:2",
            "\"bootstrap.servers\" = \"a:1,b:2\"",
        ),
        (
            "STAGECAST__KAFKA__METADATA_BROKER_LIST=a:1",
            "kafka.\"metadata.broker.list\"=a:1",
            "\"bootstrap.servers\" = \"a:1\"",
        ),
        (
            "STAGECAST__KAFKA__CONSUMER__FETCH_MIN_BYTES=9",
            "kafka.consumer.fetch.min.bytes=9",
            "\"fetch.min.bytes\" = \"9\"",
        ),
        ("STAGECAST__KAFKA__LOG_LEVEL=3", "kafka.log_level=3", "log_level = \"3\""),
        ("STAGECAST__KAFKA__CLIENT_ID=12#34", "kafka.client.id=12#34", "\"client.id\" = \"12#34\""),
    ] {
        let (name, value) = env.split_once('=').unwrap();
        for printed in [read("", &[(name, value)], &[]).to_toml(), read("", &[], &[set]).to_toml()] {
            assert!(printed.lines().any(|printed| printed == line), "{env} | {set}: no {line} in\n{printed}");
        }
    }
}

#[test]
fn values_of_kafka_may_be_text_numbers_or_flags_in_any_spelling_of_their_names() {
    let config = read(
        "[kafka]\nsecurity.protocol = \"ssl\"\n\"linger.ms\" = 5\ncheck.crcs = true\n\
         [kafka.consumer]\nfetch.message.max.bytes = 7\n\"group.protocol\" = \"consumer\"\n\
         [kafka.producer]\n\"compression.codec\" = \"zstd\"\nacks = -1",
        &[],
        &[],
    );
    let has = |properties: BTreeMap<String, String>, expected: &[(&str, &str)]| {
        let expected = expected.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(properties, expected.collect());
    };
    let common = [("bootstrap.servers", "localhost:9092"), ("security.protocol", "ssl")];
    has(config.kafka.for_admin(), &common);
    let consumer =
        [("check.crcs", "true"), ("max.partition.fetch.bytes", "7"), ("group.protocol", "consumer")];
    has(config.kafka.for_consumer(), &[&common[..], &consumer].concat());
    let producer = [("linger.ms", "5"), ("compression.type", "zstd"), ("acks", "-1")];
    has(config.kafka.for_producer(), &[&common[..], &producer].concat());
}

/// A file's text, and what is said of it.
#[test]
fn wrong_files_are_told_with_line_and_way_out() {
    for (file, told) in [
        ("[commit]\n\nintervall = 1", ":3: unknown key `commit.intervall` (did you mean `interval`?)"),
        ("[comit]", ":1: unknown key `comit` (did you mean `commit`?)"),
        ("[http]\nzebra = 1", ":2: unknown key `http.zebra`; known here are listen, token, token_file"),
        ("app = 3", ":1: `app`: expected a table, found a number"),
        ("[app]\nid = 3", ":2: `app.id`: expected text, found a number"),
        (
            "[app]\nid = \"a b\"",
            ":2: `app.id`: Kafka takes 1 to 240 letters, digits, `.`, `_` and `-` here, found `a b`",
        ),
        ("[app]\nworkers = -1", ":2: `app.workers`: expected a whole number from 0 to 1024, found -1"),
        (
            "[commit]\ninterval = \"-1s\"",
            ":2: `commit.interval`: `-1s` is not a span of time; write for example \"90d\", \"24h\", \"10m\" or \"250ms\"",
        ),
        (
            "[commit]\ninterval = 100",
            ":2: `commit.interval`: expected a span of time such as \"24h\", found 100",
        ),
        ("[commit]\ncatch_up = \"6m\"", ":2: `commit.catch_up`: expected a span of 1ms to 5m, found `6m`"),
        (
            "[commit]\nmax_records = 0",
            ":2: `commit.max_records`: expected a whole number from 1 to 10000000, found 0",
        ),
        ("[time]\nclock = \"sun\"", ":2: `time.clock`: expected \"wall\" or \"events\", found `sun`"),
        (
            "[time]\ngrace = 2026-01-01",
            ":2: `time.grace`: expected a span of time such as \"24h\", found a date",
        ),
        (
            "[source.purchase]\ndata = \"segment\"",
            ":2: `source.purchase.data`: only CloudEvents carry data; remove this or set format = \"cloudevents\"",
        ),
        (
            "[source.purchase]\nformat = \"cloudevents\"\ndata = \"zendesk\"",
            ":3: `source.purchase.data`: CloudEvents carry native or segment data here, not zendesk",
        ),
        (
            "[source.purchase.types]\n\"Order Placed\" = \"Order Completed\"",
            ":2: `source.purchase.types.Order Placed`: `Order Completed` is no native type, which is snake_case and of at most 64 bytes",
        ),
        (
            "[source.purchase]\nformat = \"xml\"",
            ":2: `source.purchase.format`: there is no format `xml`; there are native, segment, cloudevents, zendesk",
        ),
        (
            "[source.orders]",
            ":1: unknown key `source.orders`; known here are clickstream, purchase, support, profile",
        ),
        (
            "[source.support]\ntopic = \"purchase\"",
            ":2: `source.support.topic`: topic `purchase` is already `source.purchase.topic`; every topic needs its own",
        ),
        (
            "[topics]\nstate = \"churn-scores\"",
            ":2: `topics.state`: topic `churn-scores` is already `topics.churn_scores`; every topic needs its own",
        ),
        (
            "[topics]\nreplication = 0",
            ":2: `topics.replication`: expected -1 (the broker's default) or at least 1, found 0",
        ),
        (
            "[source]\nclickstream.enabled = false\npurchase.enabled = false\nsupport.enabled = false",
            ":1: `source`: one of clickstream, purchase and support must be enabled",
        ),
        (
            "[source.support.fields]\ncustmer_id = \"/u\"",
            ":2: `source.support.fields.custmer_id`: events have no such field (did you mean `customer_id`?)",
        ),
        (
            "[source.support.fields]\ntext = \"body\"",
            ":2: `source.support.fields.text`: `body` is not a JSON pointer; write for example \"/user/id\"",
        ),
        ("[lifecycles]\nuse = []", ":2: `lifecycles.use`: name at least one preset or file"),
        ("[lifecycles]\nuse = [\"aida\", \"aida\"]", ":2: `lifecycles.use`: `aida` is listed twice"),
        (
            "[scores]\nbands = [0.7, 0.3]",
            ":2: `scores.bands`: expected two numbers from 0 to 1, the smaller one first",
        ),
        (
            "[scores]\nbands = [0.3, 1.3]",
            ":2: `scores.bands`: expected two numbers from 0 to 1, the smaller one first",
        ),
        ("[scores]\nmin_change = nan", ":2: `scores.min_change`: expected a number, found NaN"),
        (
            "[scores]\nrescore_every = \"0\"",
            ":2: `scores.rescore_every`: expected a span of 1s or more, found `0`",
        ),
        ("[alert]\npolicy = \"x\"", ":1: `alert`: expected [[alert]] tables, found a table"),
        ("[[alert]]\nclear = 0.9", ":2: `alert[0].clear`: clear (0.9) must not be above raise (0.7)"),
        ("[[alert]]\nraise = 0.4", ":2: `alert[0].raise`: clear (0.5) must not be above raise (0.4)"),
        ("[[alert]]\ncontrol = 1.5", ":2: `alert[0].control`: expected a number from 0 to 1, found 1.5"),
        (
            "[[alert]]\n[[alert]]\npolicy = \"churn\"",
            ":3: `alert[1].policy`: `churn` is the name of another alert; name each its own",
        ),
        ("[[alert]]\nlifecycle = \"aida\"", ":2: `alert[0].lifecycle`: name the stage as well"),
        (
            "[[alert]]\nstage = \"x\"\nraise = 0.3",
            ":3: `alert[0].raise`: an alert is about a score or about a stage; remove this or `stage`",
        ),
        (
            "[[alert]]\nsegment.plan = []",
            ":2: `alert[0].segment.plan`: expected text, a number or true or false, found a list",
        ),
        (
            "[money]\nbase = \"euro\"",
            ":2: `money.base`: `euro` is not a currency code: three capital letters such as EUR",
        ),
        ("[money]\nrates.USD = 0", ":2: `money.rates.USD`: expected a number above 0, found 0"),
        ("[money]\nrates.USD = inf", ":2: `money.rates.USD`: expected a number, found inf"),
        ("[money]\nrates.EUR = 2", ":2: `money.rates.EUR`: EUR is the base currency, worth 1"),
        ("[money]\nmargin = \"much\"", ":2: `money.margin`: expected a number, found `much`"),
        (
            "[http]\nlisten = \"localhost:80\"",
            ":2: `http.listen`: expected an IP address and a port such as \"127.0.0.1:9464\" or \"[::]:9464\", found `localhost:80`",
        ),
        (
            "[kafka]\nlinger.mss = 3",
            ":2: `kafka.\"linger.mss\"`: librdkafka has no such property (did you mean `linger.ms`?)",
        ),
        ("[kafka]\nconsumer = 3", ":2: `kafka.consumer`: expected a table, found a number"),
        (
            "[kafka]\nlinger.ms = []",
            ":2: `kafka.\"linger.ms\"`: expected text, a number or true or false, found a list",
        ),
        ("[app]\nid = \"a\"\nid = \"b\"", ":3: duplicate key"),
    ] {
        assert_eq!(error(file, &[], &[]), format!("conf/stagecast.toml{told}"), "{file}");
    }
}

#[test]
fn properties_that_would_break_exactly_once_are_refused_with_the_reason() {
    for (table, property, reason) in [
        ("", "\"group.id\" = \"x\"", "it is app.id"),
        ("", "\"group.instance.id\" = \"x\"", "app.instance"),
        ("", "\"transactional.id\" = \"x\"", "app.instance"),
        ("", "\"enable.auto.commit\" = true", "in the transaction"),
        ("", "\"auto.commit.enable\" = \"T\"", "in the transaction"),
        (".consumer", "\"enable.auto.offset.store\" = true", "in the transaction"),
        (".consumer", "\"isolation.level\" = \"read_uncommitted\"", "aborted transactions"),
        (".consumer", "\"auto.offset.reset\" = \"latest\"", "before the first start"),
        (".consumer", "\"partition.assignment.strategy\" = \"roundrobin\"", "same instance"),
        (".consumer", "\"enable.partition.eof\" = true", "stagecast sets it"),
        (".producer", "\"enable.idempotence\" = false", "transactions need it"),
        (".producer", "acks = 1", "every replica"),
        (".producer", "\"request.required.acks\" = \"1\"", "every replica"),
        (".producer", "\"max.in.flight\" = 6", "from 1 to 5"),
        (".producer", "\"transaction.timeout.ms\" = 1999", "at least twice commit.catch_up, 2000"),
        ("", "\"transaction.timeout.ms\" = 1999", "at least twice commit.catch_up, 2000"),
        (
            ".producer",
            "\"transaction.timeout.ms\" = 5000\n\"message.timeout.ms\" = 5000",
            "less than transaction",
        ),
        (".producer", "\"fetch.min.bytes\" = 5000", "property of consumers"),
        (".consumer", "\"linger.ms\" = 5", "property of producers"),
        (
            ".consumer",
            "\"group.protocol\" = \"consumer\"\n\"session.timeout.ms\" = 6000",
            "belongs to the broker",
        ),
        ("", "\"linger.ms\" = 5\n\"queue.buffering.max.ms\" = 6", "given twice"),
        ("", "\"bootstrap.servers\" = \"\"", "name at least one broker"),
    ] {
        let told = error(&format!("[kafka{table}]\n{property}"), &[], &[]);
        assert!(told.starts_with("conf/stagecast.toml:") && told.contains(reason), "{property}: {told}");
    }
}

#[test]
fn properties_set_to_what_they_must_be_are_no_fault() {
    read(
        "[kafka]\nacks = \"all\"\nenable.idempotence = true\nenable.auto.commit = false\n\
         isolation.level = \"read_committed\"\nauto.offset.reset = \"earliest\"\n\
         partition.assignment.strategy = \"range\"\nmax.in.flight = 5\ntransaction.timeout.ms = 2000",
        &[],
        &[],
    );
}

#[test]
fn problems_of_all_layers_are_told_together_each_with_its_layer() {
    let env = [("STAGECAST__APP__WORKERS", "many"), ("STAGECAST__ALERT__9__RAISE", "1"), ("OTHER", "x")];
    let told =
        error("[app]\nid = \"\"\n[nope]", &env, &["time.clok=wall", "no value", ".=x", "alert.churn.x=1"]);
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    for (line, start) in lines.iter().zip([
        "the configuration has 8 problems",
        "conf/stagecast.toml:2: `app.id`: Kafka takes",
        "conf/stagecast.toml:3: unknown key `nope`",
        "environment variable STAGECAST__ALERT__9__RAISE: there is no alert policy `9`",
        "environment variable STAGECAST__APP__WORKERS: `app.workers`: expected a whole number",
        "--set .: write --set key=value",
        "--set alert.churn.x: unknown key `alert[0].x`; known here are policy,",
        "--set no value: write --set key=value",
        "--set time.clok: unknown key `time.clok` (did you mean `clock`?)",
    ]) {
        assert!(line.starts_with(start), "{line} should start {start}");
    }
    assert_eq!(lines.len(), 9, "{told}");
}

#[test]
fn secrets_come_from_files_beside_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pw"), "canary\r\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    let path = dir.path().join("stagecast.toml");
    let from = |text: &str, env: &[(&str, &str)]| {
        let layers = Layers { file: Some((path.clone(), text.into())), ..layers("", env, &[]) };
        Config::from_layers(&layers).map(|config| config.kafka.common)
    };
    assert_eq!(from("[kafka]\nsasl.password.file = \"pw\"", &[]).unwrap()["sasl.password"], "canary");
    let absolute = dir.path().join("pw").display().to_string();
    let env = [("STAGECAST__KAFKA__SASL_PASSWORD_FILE", absolute.as_str())];
    assert_eq!(from("[kafka]\n\"sasl.password\" = \"overridden\"", &env).unwrap()["sasl.password"], "canary");
    // librdkafka's own property keeps its name and its value.
    let own = "sasl.oauthbearer.assertion.private.key.file";
    assert_eq!(from(&format!("[kafka]\n{own} = \"pw\""), &[]).unwrap()[own], "pw");
    for (text, told) in [
        ("[kafka]\nsasl.password.file = \"none\"", "cannot read the secret file"),
        ("[kafka]\nsasl.password.file = \"empty\"", "is empty"),
        ("[kafka]\n\"sasl.password.file\" = \"pw\"\n\"sasl.password\" = \"x\"", "given twice"),
        ("[kafka]\nsasl.pasword.file = \"pw\"", "librdkafka has no such property"),
    ] {
        let error = from(text, &[]).unwrap_err().what;
        assert!(error.contains(told), "{text}: {error}");
    }
}

#[test]
fn no_secret_is_shown_by_print_debug_or_an_error() {
    let secrets = "[kafka]\nsasl.password = \"canary\"\nssl.key.pem = \"canary\"\nssl.key.password = \"canary\"\n\
         sasl.oauthbearer.config = \"principal=canary\"\nbootstrap.servers = \"SASL_SSL://u:canary@b:1\"\n\
         [kafka.consumer]\nsasl.oauthbearer.client.secret = \"canary\"\n\
         [kafka.producer]\nsasl.oauthbearer.assertion.private.key.passphrase = \"canary\"\n\
         [privacy]\nsalt = \"canary\"\n\
         [http]\ntoken = \"canary-canary\"\n";
    let env = [("STAGECAST__KAFKA__SSL_KEYSTORE_PASSWORD", "canary")];
    let config = read(secrets, &env, &["kafka.producer.ssl.key.pem=canary"]);
    for shown in [config.to_toml(), format!("{config:?}")] {
        assert!(!shown.contains("canary"), "{shown}");
        assert_eq!(shown.matches(mask::MASK).count(), 11, "{shown}");
    }
    for broken in
        ["kafka.sasl.passwort=canary", "kafka.sasl.password=['canary']", "kafka.sasl.password.x=canary"]
    {
        let told = error(&format!("{secrets}zebra = 1"), &env, &[broken]);
        assert!(!told.contains("canary"), "{told}");
    }
    let told = error("[kafka]\nsasl.password = canary\n", &[], &[]);
    assert!(!told.contains("canary"), "{told}");
}

#[test]
fn unverified_tls_is_noticed() {
    assert_eq!(Config::default().kafka.unverified_tls(), [""; 0]);
    let off = "[kafka.consumer]\nenable.ssl.certificate.verification = false\n\
         [kafka]\nssl.endpoint.identification.algorithm = \"none\"";
    assert_eq!(read(off, &[], &[]).kafka.unverified_tls().len(), 2);
}

#[test]
fn a_named_file_must_exist() {
    let error = Config::load(Some(Path::new("no/such/file.toml")), &[]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.what.starts_with("cannot read the configuration file no/such/file.toml: "), "{error}");
}

#[test]
fn no_alerts_at_all_can_be_asked_for_and_printed() {
    let config = read("alert = []", &[], &[]);
    assert_eq!(config.alert, []);
    assert_eq!(read(&config.to_toml(), &[], &[]), config);
}

prop_compose! {
    fn policies()(
        names in prop::collection::btree_set("[^\\p{Cc}]{0,12}[a-z]", 0..4),
        raise in 0.0..=1.0, share in 0.0..=1.0, cooldown_ms in 0..=i64::from(u32::MAX),
        stage in prop::option::of(".{0,9}[a-z]"), action in prop::option::of(".{0,9}[a-z]"),
        segment in prop::collection::btree_map(".{0,9}", traits(), 0..3),
        min_clv in prop::option::of(-1e9..1e9f64),
    ) -> Vec<AlertPolicy> {
        let policy = |policy| AlertPolicy {
            policy,
            raise: if stage.is_some() { 0.7 } else { raise },
            clear: if stage.is_some() { 0.5 } else { raise * share },
            cooldown_ms,
            control: share,
            lifecycle: stage.clone(),
            stage: stage.clone(),
            segment: segment.clone(),
            min_clv,
            action: action.clone(),
        };
        names.into_iter().map(policy).collect()
    }
}

fn traits() -> impl Strategy<Value = TraitScalar> {
    prop_oneof![
        "[a-z \"'\\\\\n\t]{0,8}".prop_map(|text| TraitScalar::Text(text.into())),
        (-1e9..1e9f64).prop_map(TraitScalar::Number),
        any::<bool>().prop_map(TraitScalar::Flag),
    ]
}

proptest! {
    #[test]
    fn what_is_printed_means_the_same_when_read(
        alert in policies(),
        client_id in "[a-zA-Z \"'\\\\\n\t#=\\[\\]ä-ü]{0,12}",
        pointer in "(/[a-z\"\\\\ ]{0,4}){0,3}",
        alien in "[A-Za-z.:* \"]{0,9}",
        file in prop::option::of("/[a-z \"'\\\\]{1,9}"),
        rate in 1e-9..1e9f64,
        (low, high) in (0.0..0.5f64, 0.5001..1.0f64),
        span in 1_000..=i64::from(u32::MAX),
    ) {
        let mut config = Config { alert, ..Config::default() };
        config.kafka.producer.insert("client.id".into(), client_id);
        config.source.purchase.fields.insert("amount".into(), pointer);
        config.source.purchase.types.insert(alien, "order_completed".into());
        config.source.purchase.format = Format::CloudEvents;
        config.source.purchase.data = Format::Segment;
        config.features.file = file.map(PathBuf::from);
        config.money.rates.insert("GBP".into(), rate);
        config.scores.bands = [low, high];
        config.scores.rescore_every_ms = span;
        let printed = config.to_toml();
        let again = Config::from_layers(&layers(&printed, &[], &[]));
        prop_assert_eq!(again, Ok(config), "{}", printed);
    }

    #[test]
    fn no_input_panics(file in ".{0,60}", name in "[A-Z_0-9]{0,20}", value in ".{0,20}", set in ".{0,20}") {
        let name = format!("STAGECAST__{name}");
        let env = [(name.as_str(), value.as_str()), ("STAGECAST__KAFKA__CLIENT_ID", value.as_str())];
        let set = [set.as_str(), "alert.churn.raise=0.6"];
        let _ = Config::from_layers(&layers(&file, &env, &set));
    }
}
