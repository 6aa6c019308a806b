//! Logging in, secrets, and permissions, over plain text: what also a build without TLS can do.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

use crate::broker::{Extras, RealKafka, free_ports};
use crate::process::Process;
use crate::records::fresh;

/// Planted, and looked for wherever it must not be.
pub const SECRET: &str = "alices-secret-93fe21";
const WITHIN: Duration = Duration::from_secs(120);
/// Whoever is not let in is told in time, not after endless tries.
const TOLD_WITHIN: Duration = Duration::from_secs(40);

/// What a run of the program came to.
pub struct Attempt {
    pub code: Option<i32>,
    /// Both streams.
    pub said: String,
}

fn config(app: &str, kafka: &str) -> String {
    let sources: String = ["clickstream", "purchase", "support"]
        .map(|s| format!("[source.{s}]\ntopic = \"{app}-{s}\"\n"))
        .concat();
    format!(
        "[app]\nid = \"{app}\"\ninstance = \"box-0\"\nworkers = 1\n[kafka]\n{kafka}\n\
         [topics]\npartitions = 1\nreplication = 1\nstage_changes = \"{app}-stage-changes\"\n\
         churn_scores = \"{app}-churn-scores\"\nchurn_alerts = \"{app}-churn-alerts\"\n\
         churn_outcomes = \"{app}-churn-outcomes\"\ndlq = \"{app}-dlq\"\nerasures = \"{app}-erasures\"\n\
         {sources}[time]\nclock = \"events\"\n[http]\nlisten = \"127.0.0.1:0\"\n"
    )
}

fn finish(config: &str, args: &[&str], within: Duration) -> Attempt {
    // As talkative as can be, so that nothing secret is hidden by a level.
    let args = [args, &["-vv"]].concat();
    let mut process = Process::stagecast(config, &args, &[]);
    let code = process.exit_code(within);
    Attempt { code, said: process.stdout() + &process.stderr() }
}

/// Tries to make the first contact, for nothing.
pub fn attempt(kafka: &str) -> Attempt {
    finish(&config(&fresh("nobody"), kafka), &["topics", "check"], TOLD_WITHIN)
}

/// Topics, producer, consumer, group and transactions, all over this connection; nothing secret is written anywhere.
pub fn lets_in(kafka: &str) {
    let config = config(&fresh("alice"), kafka);
    for args in [
        &["topics", "create", "--inputs"][..],
        &["simulate", "--customers", "3", "--days", "20", "--to-kafka"],
        &["run", "--until-end"],
        &["check", "--print"],
    ] {
        let done = finish(&config, args, WITHIN);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.said);
        for secret in [SECRET, "client-store-77aa", "principal=alice"] {
            assert!(!done.said.contains(secret), "{args:?} shows `{secret}`: {}", done.said);
        }
    }
}

/// A broker that knows alice and bob by their passwords, and lets nobody do anything unless it was told to.
struct Guarded {
    kafka: RealKafka,
    port: u16,
}

fn guarded() -> &'static Guarded {
    static SHARED: OnceLock<Guarded> = OnceLock::new();
    SHARED.get_or_init(|| {
        let ports = free_ports(1);
        let users: String = (0..6).map(|n| format!(" user_bob{n}=\"{SECRET}\"")).collect();
        let properties = format!(
            "sasl.enabled.mechanisms=PLAIN\n\
             listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_alice=\"{SECRET}\" user_root=\"{SECRET}\"{users};\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS;User:root\n"
        );
        let listeners = vec![("LOGIN", "SASL_PLAINTEXT", ports[0])];
        Guarded { kafka: RealKafka::start_with(1, &Extras { listeners, properties, ..Extras::default() }), port: ports[0] }
    })
}

impl Guarded {
    fn login(&self, user: &str, password: &str) -> String {
        format!(
            "\"bootstrap.servers\" = \"localhost:{}\"\n\"security.protocol\" = \"sasl_plaintext\"\n\
             \"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"{user}\"\n\"sasl.password\" = \"{password}\"\n",
            self.port
        )
    }
}

#[test]
fn a_password_lets_the_whole_service_in() {
    lets_in(&guarded().login("root", SECRET));
}

#[test]
fn a_wrong_password_is_one_error_in_time() {
    let wrong = "guessed-71b0c4";
    let tried = attempt(&guarded().login("alice", wrong));
    assert_eq!(tried.code, Some(1), "{}", tried.said);
    let errors: Vec<&str> = tried.said.lines().filter(|line| line.starts_with("error: ")).collect();
    let expected =
        format!("error: localhost:{} refuses who we say we are: authentication failed", guarded().port);
    assert_eq!(errors, [expected], "{}", tried.said);
    assert!(tried.said.contains("hint: check \"sasl.username\" and \"sasl.password\""), "{}", tried.said);
    assert!(!tried.said.contains(wrong), "{}", tried.said);
}

/// What the lines of `topics acls` grant: operation, kind of resource, its name, and whether the name is a prefix.
type Granted = (String, &'static str, String, bool);

fn granted(printed: &str) -> Vec<Granted> {
    let mut all = Vec::new();
    for line in printed.lines().filter(|line| line.starts_with("kafka-acls.sh ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let after = |flag: &str| words.iter().position(|word| *word == flag).map(|at| words[at + 1]);
        let kinds = ["--topic", "--group", "--transactional-id"];
        let (kind, name) = kinds.into_iter().find_map(|kind| Some((kind, after(kind)?))).expect("a resource");
        let is_prefix = after("--resource-pattern-type") == Some("prefixed");
        for pair in words.windows(2).filter(|pair| pair[0] == "--operation") {
            all.push((pair[1].to_owned(), kind, name.to_owned(), is_prefix));
        }
    }
    all
}

impl Guarded {
    /// Kafka's CreateAcls request, version 1, as the broker's super user.
    fn grant(&self, user: &str, acls: &[Granted]) {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend((text.len() as i16).to_be_bytes());
            out.extend(text.as_bytes());
        };
        let mut request = Vec::new();
        request.extend([0, 30, 0, 1, 0, 0, 0, 7]);
        text(&mut request, "tests");
        request.extend((acls.len() as i32).to_be_bytes());
        for (operation, kind, name, is_prefix) in acls {
            let kinds = BTreeMap::from([("--topic", 2), ("--group", 3), ("--transactional-id", 5)]);
            let operations =
                BTreeMap::from([("Read", 3), ("Write", 4), ("Create", 5), ("DescribeConfigs", 10)]);
            request.push(kinds[kind]);
            text(&mut request, name);
            request.push(if *is_prefix { 4 } else { 3 });
            text(&mut request, &format!("User:{user}"));
            text(&mut request, "*");
            request.extend([operations[operation.as_str()], 3]);
        }
        let mut stream = TcpStream::connect(self.kafka.bootstrap()).unwrap();
        stream.write_all(&(request.len() as i32).to_be_bytes()).unwrap();
        stream.write_all(&request).unwrap();
        let mut head = [0; 16];
        stream.read_exact(&mut head).unwrap();
        // Length, correlation, throttling, number of results; then each with its error first.
        assert_eq!(head[15] as usize, acls.len());
        let mut results = vec![0; i32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize - 12];
        stream.read_exact(&mut results).unwrap();
        assert!(results.chunks(4).all(|result| result[..2] == [0, 0]), "{results:?}");
    }
}

#[test]
fn with_the_permissions_that_are_printed_it_runs_and_without_one_it_says_which() {
    let guarded = guarded();
    let app = fresh("acls");
    let as_user = |user: &str| config(&app, &guarded.login(user, SECRET));
    let printed = finish(&as_user("alice"), &["topics", "acls"], WITHIN);
    let all = granted(&printed.said);
    assert!(printed.said.contains("--allow-principal User:alice "), "{}", printed.said);

    let refused = finish(&as_user("alice"), &["topics", "create", "--inputs"], WITHIN);
    assert!(refused.code == Some(1) && refused.said.contains("topics acls"), "{}", refused.said);
    guarded.grant("alice", &all);
    for (user, args) in [
        ("alice", &["topics", "create", "--inputs"][..]),
        ("alice", &["topics", "check"]),
        ("root", &["simulate", "--customers", "20", "--days", "30", "--to-kafka"]),
        ("alice", &["run", "--until-end"]),
    ] {
        let done = finish(&as_user(user), args, WITHIN);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.said);
    }

    let needed: Vec<&Granted> = all.iter().filter(|(operation, ..)| operation != "Create").collect();
    let state = format!("{app}-state");
    for (number, (operation, kind, of, told)) in [
        ("Read", "--topic", format!("{app}-purchase"), format!("`{app}-purchase`: it does not exist")),
        (
            "Write",
            "--topic",
            format!("{app}-churn-scores"),
            format!("`{app}-churn-scores`: it does not exist"),
        ),
        ("Read", "--topic", state.clone(), format!("cannot restore from topic `{state}`")),
        ("DescribeConfigs", "--topic", state.clone(), format!("the configuration of topic `{state}`")),
        ("Read", "--group", app.clone(), "Group authorization failed".to_owned()),
        ("Write", "--transactional-id", format!("{app}-"), "transactional id".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("bob{number}");
        let but_one: Vec<Granted> = needed
            .iter()
            .filter(|g| (g.0.as_str(), g.1, &g.2) != (operation, kind, &of))
            .map(|g| (*g).clone())
            .collect();
        assert_eq!(but_one.len() + 1, needed.len(), "{operation} {kind} {of} is not among what is printed");
        guarded.grant(&user, &but_one);
        let refused = finish(&as_user(&user), &["run", "--until-end"], WITHIN);
        assert_ne!(refused.code, Some(0), "without {operation} on {of}: {}", refused.said);
        assert!(refused.said.contains(&told), "without {operation} on {of}: not `{told}`: {}", refused.said);
        assert!(refused.said.contains("topics acls"), "without {operation} on {of}: {}", refused.said);
    }
}
