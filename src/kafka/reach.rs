//! The first contact with the cluster: does it let us in, and if it does not, why, in one sentence.
//!
//! librdkafka tries for ever and tells what failed only in its log. Here a client is listened to until it is let in,
//! or until it says something that trying again will not change. Sends nothing but what any client sends.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::clients::ClientSettings;
use crate::error::{Error, Result};
use crate::time::Tick;

/// How long the cluster may take to answer at all.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long one question waits before the log is looked at.
const ONE_TRY: Duration = Duration::from_millis(500);
/// Lines of librdkafka that are kept.
const LINES_MOST: usize = 50;

/// Returns when a broker has answered, or says why none does.
pub fn reach(settings: &ClientSettings) -> Result<()> {
    let client: BaseConsumer<Witness> = settings
        .admin_config()
        .create_with_context(Witness::default())
        .map_err(|e| Error::user(format!("cannot make a Kafka client: {e}")))?;
    let bootstrap = settings.common.get("bootstrap.servers").map_or("", String::as_str);
    let began = Tick::now();
    loop {
        let Err(error) = client.client().fetch_metadata(None, ONE_TRY) else { return Ok(()) };
        // Serves the queue that the log stands in.
        while client.poll(Duration::from_millis(10)).is_some() {}
        let lines = client.context().lines();
        if let Some(refusal) = lines.iter().find_map(|line| refusal(line, settings)) {
            return Err(refusal);
        }
        if began.elapsed() > ANSWER_MAX {
            // A broker that is starting hangs up as well, but not for that long.
            let protocol = settings.common.get("security.protocol");
            let is_plain = protocol.is_none_or(|name| !name.to_ascii_lowercase().contains("ssl"));
            if let Some(line) = lines.iter().find(|line| is_plain && hangs_up_at_first(line)) {
                return Err(wants_tls(&broker_in(line)));
            }
            let last = lines.last().map_or(String::new(), |line| format!(" ({line})"));
            return Err(Error::world(format!("no broker of {bootstrap} answers: {error}{last}"))
                .hint("is \"bootstrap.servers\" in [kafka] right, and does the cluster answer?"));
        }
    }
}

/// Keeps what librdkafka says about failures.
#[derive(Default)]
struct Witness(Mutex<Vec<String>>);

impl Witness {
    fn keep(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < LINES_MOST {
            lines.push(line.to_owned());
        }
        tracing::debug!(target: "librdkafka", "{line}");
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Witness {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A connection that is closed while it is made is no more than information to librdkafka.
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 || facility == "FAIL" {
            self.keep(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That is the consequence; the reason is told beside it.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.keep(reason);
        }
    }
}

impl ConsumerContext for Witness {}

/// What a line says that only a person can change.
fn refusal(line: &str, settings: &ClientSettings) -> Option<Error> {
    let broker = broker_in(line);
    let told = |what: &str, hint: &str| Some(Error::world(format!("{broker} {what}")).hint(hint));
    let says = |words: &str| line.contains(words);
    if says("certificate verify failed") {
        return Some(not_trusted(&broker, settings));
    }
    if says("mechanism handshake failed") || says("Unsupported SASL mechanism") {
        let mechanism = settings.common.get("sasl.mechanism").map_or("GSSAPI", String::as_str);
        let offered =
            line.split("mechanisms: ").nth(1).map_or("", |rest| rest.split(" (").next().unwrap_or(""));
        let offered = if offered.is_empty() { String::new() } else { format!("; it offers {offered}") };
        return told(
            &format!("does not take the SASL mechanism {mechanism}{offered}"),
            "set \"sasl.mechanism\" in [kafka] to one that the broker's listener has enabled",
        );
    }
    if says("uthentication failed") || says("SASL authentication error") || says("invalid credentials") {
        return told(
            "refuses who we say we are: authentication failed",
            "check \"sasl.username\" and \"sasl.password\" in [kafka], or the token, and that the broker knows this user",
        );
    }
    if says("certificate required")
        || says("client SSL authentication might be required")
        || says("alert bad certificate")
        || says("alert unknown ca")
        || says("alert certificate unknown")
    {
        return told(
            "asks for a client certificate and was shown none that it trusts",
            "set \"ssl.certificate.location\" and \"ssl.key.location\", or \"ssl.keystore.location\", in [kafka]",
        );
    }
    if says("connecting to a SSL listener?") {
        return Some(wants_tls(&broker));
    }
    if says("connecting to a PLAINTEXT broker listener?") || says("wrong version number") {
        return told(
            "does not answer in TLS: its listener seems to speak plain text",
            "set \"security.protocol\" in [kafka] to `plaintext` or `sasl_plaintext`, or name the port that speaks TLS",
        );
    }
    None
}

/// `sasl_ssl://host:9093/bootstrap: …`, `[thrd:host:9093/bootstrap]: …` and `host:9093/bootstrap: …` are about `host:9093`.
fn broker_in(line: &str) -> String {
    let address = |word: &str| {
        let word = word.strip_prefix("thrd:").unwrap_or(word);
        let (address, _) = word.rsplit_once("://").map_or(word, |(_, rest)| rest).split_once('/')?;
        let (_, port) = address.rsplit_once(':')?;
        port.parse::<u16>().is_ok().then(|| address.to_owned())
    };
    let found = line.split([' ', ']', '[']).find_map(address);
    found.unwrap_or_else(|| "the broker".to_owned())
}

/// Why the certificate of `broker` is not trusted; librdkafka says no more than that it is not.
fn not_trusted(broker: &str, settings: &ClientSettings) -> Error {
    #[cfg(feature = "tls")]
    let why = super::certificate::inspect(broker, &settings.common);
    #[cfg(not(feature = "tls"))]
    let why: Option<(String, &'static str)> = {
        let _ = settings;
        None
    };
    let (why, hint) = why.unwrap_or_else(|| {
        (
            "it could not be verified".to_owned(),
            "check \"ssl.ca.location\" in [kafka] and the broker's certificate",
        )
    });
    Error::world(format!("the certificate of {broker} is not trusted: {why}")).hint(hint)
}

/// Whether a broker hung up on the first thing it was asked, without librdkafka's guess at the reason.
fn hangs_up_at_first(line: &str) -> bool {
    line.contains("connection closed by peer") && line.contains("in state APIVERSION_QUERY")
}

fn wants_tls(broker: &str) -> Error {
    Error::world(format!("{broker} hangs up on plain text: its listener seems to want TLS"))
        .hint("set \"security.protocol\" in [kafka] to `ssl` or `sasl_ssl`, or name a port without TLS")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        let settings = ClientSettings::new("localhost:9093", "app", "box-0");
        refusal(line, &settings).map_or(String::new(), |error| error.what)
    }

    #[test]
    fn who_hangs_up_at_first_is_known_by_librdkafkas_words() {
        let line = "[thrd:localhost:43527/bootstrap]: localhost:43527/bootstrap: Disconnected: connection closed by \
                    peer: receive 0 after POLLIN (after 4ms in state APIVERSION_QUERY)";
        assert!(hangs_up_at_first(line));
        assert!(!hangs_up_at_first(&line.replace("APIVERSION_QUERY", "UP")));
        assert!(wants_tls(&broker_in(line)).what.starts_with("localhost:43527 hangs up"));
    }

    #[test]
    fn what_trying_again_does_not_change_is_told_with_the_broker() {
        for (line, expected) in [
            (
                "sasl_ssl://localhost:9093/bootstrap: SASL authentication error: Authentication failed during \
                 authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512 (after 30ms in state AUTH_REQ)",
                "localhost:9093 refuses who we say we are: authentication failed",
            ),
            (
                "sasl_plaintext://localhost:9093/bootstrap: SASL SCRAM-SHA-256 mechanism handshake failed: Broker: \
                 Unsupported SASL mechanism: broker's supported mechanisms: PLAIN,SCRAM-SHA-512 (after 1ms in state AUTH_HANDSHAKE)",
                "localhost:9093 does not take the SASL mechanism GSSAPI; it offers PLAIN,SCRAM-SHA-512",
            ),
            (
                "localhost:9093/bootstrap: Disconnected while requesting ApiVersion: might be caused by incorrect \
                 security.protocol configuration (connecting to a SSL listener?)",
                "localhost:9093 hangs up on plain text: its listener seems to want TLS",
            ),
        ] {
            assert_eq!(told(line), expected);
        }
    }

    #[test]
    fn what_may_pass_is_not_a_refusal() {
        for line in [
            "localhost:9093/bootstrap: Connect to ipv4#127.0.0.1:9093 failed: Connection refused (after 0ms in state CONNECT)",
            "1/1 brokers are down",
            "ssl://localhost:9093/bootstrap: Disconnected (after 3ms in state UP)",
        ] {
            assert_eq!(told(line), "", "{line}");
        }
    }
}
