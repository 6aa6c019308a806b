//! Brokers behind TLS, client certificates, SCRAM and OAUTHBEARER: the whole service gets in where it should, and is
//! told why where it should not. Keys and certificates are made by Java's keytool, which comes with the broker's Java.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::broker::{Extras, RealKafka, free_ports};
use crate::security::{Attempt, SECRET, attempt, lets_in};

/// Of every key store that the broker reads.
const STORE_PASSWORD: &str = "broker-store-4e1d";
/// Of the one that the client reads.
const CLIENT_PASSWORD: &str = "client-store-77aa";

struct Secured {
    _kafka: RealKafka,
    keys: tempfile::TempDir,
    ports: Vec<u16>,
}

/// One broker with a listener for everything, shared by these tests.
fn secured() -> &'static Secured {
    static SHARED: OnceLock<Secured> = OnceLock::new();
    SHARED.get_or_init(|| {
        let keys = tempfile::tempdir().unwrap();
        let ports = free_ports(5);
        make_keys(keys.path());
        let kafka = RealKafka::start_with(1, &extras(keys.path(), &ports));
        Secured { _kafka: kafka, keys, ports }
    })
}

const LISTENERS: [(&str, &str); 5] = [
    ("GOOD", "SASL_SSL"),
    ("MUTUAL", "SSL"),
    ("ELSEWHERE", "SSL"),
    ("EXPIRED", "SSL"),
    ("PLAINSCRAM", "SASL_PLAINTEXT"),
];

fn extras(keys: &Path, ports: &[u16]) -> Extras {
    let listeners =
        LISTENERS.iter().zip(ports).map(|((name, protocol), port)| (*name, *protocol, *port)).collect();
    let store = |listener: &str, name: &str| {
        format!(
            "listener.name.{listener}.ssl.keystore.location={}\nlistener.name.{listener}.ssl.keystore.password={STORE_PASSWORD}\n\
             listener.name.{listener}.ssl.key.password={STORE_PASSWORD}\n",
            keys.join(format!("{name}.p12")).display()
        )
    };
    let login = |mechanism: &str, module: &str| {
        format!(
            "listener.name.good.{mechanism}.sasl.jaas.config=org.apache.kafka.common.security.{module};\n\
             listener.name.plainscram.{mechanism}.sasl.jaas.config=org.apache.kafka.common.security.{module};\n"
        )
    };
    let properties = [
        store("good", "good"),
        store("mutual", "good"),
        store("elsewhere", "elsewhere"),
        store("expired", "expired"),
        format!(
            "listener.name.mutual.ssl.client.auth=required\nlistener.name.mutual.ssl.truststore.location={}\n\
             listener.name.mutual.ssl.truststore.password={STORE_PASSWORD}\n",
            keys.join("trust.p12").display()
        ),
        "sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER\n".to_owned(),
        login("scram-sha-512", "scram.ScramLoginModule required"),
        login(
            "oauthbearer",
            "oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\"",
        ),
    ];
    Extras {
        listeners,
        users: vec![format!("SCRAM-SHA-512=[name=alice,password={SECRET}]")],
        properties: properties.concat(),
    }
}

/// Two authorities, and what the trusted one has signed.
fn make_keys(dir: &Path) {
    for authority in ["ca", "other-ca"] {
        keytool(
            dir,
            &[
                "-genkeypair",
                "-alias",
                authority,
                "-keystore",
                &format!("{authority}.p12"),
                "-dname",
                &format!("CN={authority}"),
                "-ext",
                "bc:c=ca:true",
                "-validity",
                "30",
            ],
        );
        keytool(
            dir,
            &[
                "-exportcert",
                "-rfc",
                "-alias",
                authority,
                "-keystore",
                &format!("{authority}.p12"),
                "-file",
                &format!("{authority}.pem"),
            ],
        );
    }
    keytool(dir, &["-importcert", "-noprompt", "-alias", "ca", "-file", "ca.pem", "-keystore", "trust.p12"]);
    for (name, host, more) in [
        ("good", "san=dns:localhost,ip:127.0.0.1", ["-validity", "30"].as_slice()),
        ("elsewhere", "san=dns:kafka.example.com", &["-validity", "30"]),
        ("expired", "san=dns:localhost", &["-startdate", "-10d", "-validity", "3"]),
        ("client", "san=dns:client", &["-validity", "30"]),
    ] {
        let (store, request, signed) = (format!("{name}.p12"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("CN={name}");
        keytool(dir, &["-genkeypair", "-alias", name, "-keystore", &store, "-dname", &subject]);
        keytool(dir, &["-certreq", "-alias", name, "-keystore", &store, "-file", &request]);
        let sign = [
            "-gencert",
            "-rfc",
            "-alias",
            "ca",
            "-keystore",
            "ca.p12",
            "-infile",
            &request,
            "-outfile",
            &signed,
            "-ext",
            host,
        ];
        keytool(dir, &[&sign[..], more].concat());
        keytool(dir, &["-importcert", "-noprompt", "-alias", "ca", "-file", "ca.pem", "-keystore", &store]);
        keytool(dir, &["-importcert", "-noprompt", "-alias", name, "-file", &signed, "-keystore", &store]);
    }
    let client = ["-storepasswd", "-keystore", "client.p12", "-new", CLIENT_PASSWORD];
    keytool(dir, &client);
}

fn keytool(dir: &Path, args: &[&str]) {
    let output = Command::new("keytool")
        .current_dir(dir)
        .args(args)
        .args(["-storepass", STORE_PASSWORD, "-storetype", "PKCS12"])
        .args(if args[0] == "-genkeypair" {
            ["-keyalg", "EC", "-groupname", "secp256r1"].as_slice()
        } else {
            &[]
        })
        .output()
        .expect("keytool comes with Java");
    assert!(output.status.success(), "keytool {args:?}: {}", String::from_utf8_lossy(&output.stdout));
}

impl Secured {
    fn port(&self, listener: &str) -> u16 {
        let at = LISTENERS.iter().position(|(name, _)| *name == listener).expect("a listener");
        self.ports[at]
    }

    fn key(&self, name: &str) -> PathBuf {
        self.keys.path().join(name)
    }

    /// The `[kafka]` section for a listener that speaks TLS.
    fn tls(&self, listener: &str, authority: &str, more: &str) -> String {
        let protocol =
            LISTENERS.iter().find(|(name, _)| *name == listener).expect("a listener").1.to_lowercase();
        format!(
            "\"bootstrap.servers\" = \"localhost:{}\"\n\"security.protocol\" = \"{protocol}\"\n\
             \"ssl.ca.location\" = \"{}\"\n{more}",
            self.port(listener),
            self.key(authority).display()
        )
    }
}

fn scram(password: &str) -> String {
    format!(
        "\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\"sasl.username\" = \"alice\"\n\"sasl.password\" = \"{password}\"\n"
    )
}

fn told(attempt: &Attempt, expected: &str) {
    assert_eq!(attempt.code, Some(1), "{}", attempt.said);
    let errors: Vec<&str> = attempt.said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(expected), "not `{expected}`: {}", attempt.said);
    assert!(attempt.said.contains("hint: "), "{}", attempt.said);
}

#[test]
fn scram_over_tls_lets_the_whole_service_in() {
    let secured = secured();
    lets_in(&secured.tls("GOOD", "ca.pem", &scram(SECRET)));
}

#[test]
fn oauthbearer_over_tls_lets_the_whole_service_in() {
    let token = "\"sasl.mechanism\" = \"OAUTHBEARER\"\n\"enable.sasl.oauthbearer.unsecure.jwt\" = true\n\
        \"sasl.oauthbearer.config\" = \"principal=alice scope=kafka\"\n";
    lets_in(&secured().tls("GOOD", "ca.pem", token));
}

#[test]
fn a_client_certificate_lets_the_whole_service_in_and_none_does_not() {
    let secured = secured();
    let store = format!(
        "\"ssl.keystore.location\" = \"{}\"\n\"ssl.keystore.password\" = \"{CLIENT_PASSWORD}\"\n",
        secured.key("client.p12").display()
    );
    lets_in(&secured.tls("MUTUAL", "ca.pem", &store));
    told(&attempt(&secured.tls("MUTUAL", "ca.pem", "")), "asks for a client certificate");
}

#[test]
fn scram_without_tls_lets_the_whole_service_in() {
    let secured = secured();
    let address = format!(
        "\"bootstrap.servers\" = \"localhost:{}\"\n\"security.protocol\" = \"sasl_plaintext\"\n",
        secured.port("PLAINSCRAM")
    );
    lets_in(&(address + &scram(SECRET)));
}

#[test]
fn a_wrong_password_is_told_once_and_never_shown() {
    let wrong = "not-the-password-5a1c";
    let tried = attempt(&secured().tls("GOOD", "ca.pem", &scram(wrong)));
    told(&tried, "refuses who we say we are");
    assert!(!tried.said.contains(wrong), "{}", tried.said);
}

#[test]
fn a_mechanism_that_the_listener_does_not_have_is_told_with_those_it_has() {
    let scram256 = scram(SECRET).replace("512", "256");
    told(
        &attempt(&secured().tls("GOOD", "ca.pem", &scram256)),
        "does not take the SASL mechanism SCRAM-SHA-256; it offers ",
    );
}

#[test]
fn an_authority_that_is_not_trusted_is_told_with_its_name() {
    let tried = attempt(&secured().tls("GOOD", "other-ca.pem", &scram(SECRET)));
    told(&tried, "is not trusted: ");
    assert!(tried.said.contains("its issuer is ca"), "{}", tried.said);
}

#[test]
fn a_certificate_for_another_host_is_told_with_that_host() {
    told(
        &attempt(&secured().tls("ELSEWHERE", "ca.pem", "")),
        "is not trusted: it is for another host: kafka.example.com",
    );
}

#[test]
fn a_certificate_that_has_expired_is_told_with_its_date() {
    told(&attempt(&secured().tls("EXPIRED", "ca.pem", "")), "is not trusted: it has expired on ");
}

#[test]
fn tls_and_plain_text_that_meet_are_told() {
    let secured = secured();
    let plain = format!("\"bootstrap.servers\" = \"localhost:{}\"\n", secured.port("MUTUAL"));
    told(&attempt(&plain), "its listener seems to want TLS");
    let tls = secured.tls("GOOD", "ca.pem", &scram(SECRET));
    let tls = tls.replace(&secured.port("GOOD").to_string(), &secured.port("PLAINSCRAM").to_string());
    told(&attempt(&tls), "its listener seems to speak plain text");
}
