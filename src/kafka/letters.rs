//! Dead letters on their way back: read from their topic or from a file of a replay, looked at again with the
//! configuration of today, and sent to where they came from.
//!
//! Whatever can still not be used stays where it is: sending it would only make another dead letter.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use rdkafka::message::Headers as _;
use serde_json::Value;

use super::bounded::{self, Found};
use super::clients::ClientSettings;
use super::dead_letter;
use super::sender::{Outgoing, OwnedHeader, Sender};
use crate::config::{Clock, Config};
use crate::error::{Error, Result};
use crate::event::decoder::{Decoder, Headers};
use crate::event::money::Money;
use crate::event::native::Envelope;
use crate::event::{Reject, Source};
use crate::setup;
use crate::time::{Ts, wall_now};

/// Headers that a dead letter has on top of its record's own.
const ADDED: [&str; 6] = [
    dead_letter::TOPIC,
    dead_letter::PARTITION,
    dead_letter::OFFSET,
    dead_letter::CLASS,
    dead_letter::MESSAGE,
    dead_letter::TIMESTAMP,
];

/// A record that could not be used, as it came, and where from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Letter {
    pub topic: String,
    /// Of that topic; a file has none.
    pub partition: Option<i32>,
    /// Why it is here.
    pub reason: String,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// The record's own.
    pub headers: Vec<OwnedHeader>,
    /// The record's own timestamp.
    pub timestamp: Option<Ts>,
    /// When it became a dead letter.
    pub dead_since: Option<Ts>,
}

/// Which of them, and whether really.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Empty: whatever the reason.
    pub reasons: Vec<String>,
    /// Only those that became dead letters at or after this instant.
    pub since: Option<Ts>,
    pub dry_run: bool,
}

/// What became of the dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub read: u64,
    /// By topic.
    pub sent: BTreeMap<String, u64>,
    /// Not asked for, by their reason or time.
    pub passed_over: u64,
    /// By the reason of today.
    pub still_unusable: BTreeMap<&'static str, u64>,
    /// From topics that are no input of this configuration, by topic.
    pub foreign: BTreeMap<String, u64>,
}

/// Sends the dead letters of the configured topic back. `progress` is told the number read.
pub fn replay_topic(
    clients: &ClientSettings,
    config: &Config,
    request: &Request,
    progress: &dyn Fn(u64),
) -> Result<Summary> {
    let mut back = WayBack::new(clients, config, request, progress)?;
    bounded::read_topic(clients, &config.topics.dlq, &mut |found| back.take(Letter::from_found(&found)))?;
    back.finish()
}

/// Sends the dead letters of a file that `replay` wrote.
pub fn replay_file(
    clients: &ClientSettings,
    config: &Config,
    path: &Path,
    request: &Request,
    progress: &dyn Fn(u64),
) -> Result<Summary> {
    let mut back = WayBack::new(clients, config, request, progress)?;
    let file = File::open(path).map_err(|e| {
        Error::user(format!("cannot read {}: {e}", path.display())).hint("name the dlq.ndjson of a replay")
    })?;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|e| Error::io("read", path, &e))?;
        if line.trim().is_empty() {
            continue;
        }
        let letter = Letter::from_json(&line).ok_or_else(|| {
            let what = format!("{}:{}: this is no dead letter", path.display(), number + 1);
            Error::user(what).hint("a dead letter is an object with `topic`, `reason` and `value` at least")
        })?;
        back.take(letter)?;
    }
    back.finish()
}

/// Where each letter goes.
struct WayBack<'a> {
    inputs: BTreeMap<String, (Source, Decoder)>,
    money: Money,
    latest: Option<Ts>,
    request: &'a Request,
    /// `None`: only looks.
    sender: Option<Sender>,
    summary: Summary,
    progress: &'a dyn Fn(u64),
}

impl<'a> WayBack<'a> {
    fn new(
        clients: &ClientSettings,
        config: &Config,
        request: &'a Request,
        progress: &'a dyn Fn(u64),
    ) -> Result<WayBack<'a>> {
        let inputs = setup::enabled_sources(config);
        Ok(WayBack {
            inputs: inputs
                .map(|(s, section)| (section.topic.clone(), (s, setup::decoder(section))))
                .collect(),
            money: setup::settings(config).money,
            latest: match config.time.clock {
                Clock::Wall => Some(wall_now().saturating_add(config.time.max_future_ms)),
                Clock::Events => None,
            },
            request,
            sender: if request.dry_run { None } else { Some(Sender::new(clients)?) },
            summary: Summary::default(),
            progress,
        })
    }

    fn take(&mut self, letter: Letter) -> Result<()> {
        self.summary.read += 1;
        (self.progress)(self.summary.read);
        let Request { reasons, since, .. } = self.request;
        let is_wanted = reasons.is_empty() || reasons.contains(&letter.reason);
        let is_recent = since.is_none_or(|since| letter.dead_since.is_none_or(|ts| ts >= since));
        if !is_wanted || !is_recent {
            self.summary.passed_over += 1;
            return Ok(());
        }
        let Some((source, decoder)) = self.inputs.get(&letter.topic) else {
            *self.summary.foreign.entry(letter.topic).or_default() += 1;
            return Ok(());
        };
        match letter.customer(*source, decoder, self.latest, &self.money) {
            Ok(customer) => {
                if let Some(sender) = &self.sender {
                    sender.send(&letter.outgoing(customer.as_bytes()))?;
                }
                *self.summary.sent.entry(letter.topic).or_default() += 1;
            }
            Err(reject) => *self.summary.still_unusable.entry(reject.reason.code()).or_default() += 1,
        }
        Ok(())
    }

    fn finish(self) -> Result<Summary> {
        if let Some(sender) = self.sender {
            sender.finish()?;
        }
        Ok(self.summary)
    }
}

impl Headers for Vec<OwnedHeader> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_deref())
    }
}

impl Letter {
    /// Whose event it is, if it can be used now.
    fn customer(
        &self,
        source: Source,
        decoder: &Decoder,
        latest: Option<Ts>,
        money: &Money,
    ) -> Result<String, Reject> {
        let envelope = Envelope { source, key: self.key.as_deref(), timestamp: self.timestamp, latest };
        let value = self.value.as_deref().unwrap_or_default();
        decoder.decode(value, &envelope, &self.headers, money).map(|event| event.customer_id.to_string())
    }

    /// As it came. A line of a file has no key and belongs where its customer does.
    fn outgoing<'a>(&'a self, customer: &'a [u8]) -> Outgoing<'a> {
        Outgoing {
            topic: &self.topic,
            partition: self.partition,
            key: self.key.as_deref().or(self.partition.is_none().then_some(customer)),
            value: self.value.as_deref(),
            headers: &self.headers,
            timestamp: self.timestamp.unwrap_or_else(wall_now),
        }
    }

    /// A line as [`dead_letter::as_json`] writes it.
    fn from_json(line: &str) -> Option<Letter> {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| line.get(name)?.as_str().map(str::to_owned);
        let bytes = |name: &str| match text(name) {
            Some(text) => Some(text.into_bytes()),
            None => from_hex(line.get(format!("{name}_hex"))?.as_str()?),
        };
        Some(Letter {
            topic: text("topic")?,
            reason: text("reason")?,
            key: bytes("key"),
            value: Some(bytes("value")?),
            timestamp: line["headers"][dead_letter::TIMESTAMP].as_str().and_then(|ms| ms.parse().ok()),
            ..Letter::default()
        })
    }

    fn from_found(found: &Found<'_>) -> Letter {
        let mut headers: Vec<OwnedHeader> = found
            .headers
            .into_iter()
            .flat_map(|headers| headers.iter())
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect();
        let added = take_added(&mut headers);
        let dead_since = found.timestamp;
        let told = added.get(dead_letter::TIMESTAMP).and_then(|ms| ms.parse().ok());
        Letter {
            topic: added.get(dead_letter::TOPIC).cloned().unwrap_or_default(),
            partition: added.get(dead_letter::PARTITION).and_then(|number| number.parse().ok()),
            reason: added.get(dead_letter::CLASS).cloned().unwrap_or_default(),
            key: found.key.map(<[u8]>::to_vec),
            value: found.value.map(<[u8]>::to_vec),
            headers,
            // Versions before this header told no more than when it became a dead letter.
            timestamp: told.or(dead_since),
            dead_since,
        }
    }
}

/// Takes away what was added when the record became a dead letter: the last header of each name, since a record
/// may have been one before.
fn take_added(headers: &mut Vec<OwnedHeader>) -> BTreeMap<&'static str, String> {
    let mut added = BTreeMap::new();
    for name in ADDED {
        if let Some(at) = headers.iter().rposition(|(key, _)| key == name) {
            let (_, value) = headers.remove(at);
            added.insert(name, String::from_utf8(value.unwrap_or_default()).unwrap_or_default());
        }
    }
    added
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let pairs = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(pairs.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reason;

    fn header(key: &str, value: &str) -> OwnedHeader {
        (key.to_owned(), Some(value.as_bytes().to_vec()))
    }

    #[test]
    fn a_line_of_a_replay_is_read_back_byte_for_byte() {
        let reject = Reject::new(Reason::MalformedJson, "broken");
        for (key, value) in [(None, &b"not json"[..]), (Some(&b"k"[..]), b"\xff\x00\x0a")] {
            let origin =
                dead_letter::Origin { topic: "clickstream", partition: 0, offset: 7, timestamp: Some(-5) };
            let line = dead_letter::as_json(&origin, key, value, &reject);
            let letter = Letter::from_json(&line).unwrap();
            assert_eq!(letter.timestamp, Some(-5));
            assert_eq!((letter.topic.as_str(), letter.reason.as_str()), ("clickstream", "malformed_json"));
            assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (key, Some(value)));
        }
        assert_eq!(Letter::from_json(r#"{"customer_id":"c"}"#), None);
    }

    #[test]
    fn a_records_own_headers_survive_those_of_the_dead_letter() {
        let reject = Reject::new(Reason::InvalidType, "x");
        let own = vec![header("trace", "t"), header(dead_letter::CLASS, "from.connect")];
        let mut headers = own.clone();
        let origin =
            dead_letter::Origin { topic: "purchase", partition: 3, offset: 9, timestamp: Some(1_700_000) };
        headers.extend(dead_letter::headers(&origin, &reject).iter().map(|(key, value)| header(key, value)));
        let added = take_added(&mut headers);
        assert_eq!(headers, own);
        assert_eq!(
            (added[dead_letter::TOPIC].as_str(), added[dead_letter::CLASS].as_str()),
            ("purchase", "invalid_type")
        );
        assert_eq!(added[dead_letter::TIMESTAMP], "1700000");
    }

    #[test]
    fn only_what_can_be_used_now_goes_back() {
        let config = Config::default();
        let request = Request { reasons: vec!["invalid_type".into()], since: Some(100), dry_run: true };
        let mut back = WayBack::new(&setup::clients(&config), &config, &request, &|_| {}).unwrap();
        let letter = |topic: &str, reason: &str, timestamp, value: &str| Letter {
            topic: topic.into(),
            reason: reason.into(),
            dead_since: Some(timestamp),
            value: Some(value.as_bytes().to_vec()),
            ..Letter::default()
        };
        let good = r#"{"customer_id":"c","type":"page_viewed","ts":5}"#;
        for letter in [
            letter("clickstream", "invalid_type", 100, good),
            letter("clickstream", "invalid_type", 100, r#"{"customer_id":"c","type":"Page Viewed","ts":5}"#),
            letter("clickstream", "invalid_type", 99, good),
            letter("clickstream", "missing_ts", 100, good),
            letter("other", "invalid_type", 100, good),
        ] {
            back.take(letter).unwrap();
        }
        let summary = back.finish().unwrap();
        assert_eq!(summary.sent, [("clickstream".to_owned(), 1)].into());
        assert_eq!(summary.still_unusable, [("invalid_type", 1)].into());
        assert_eq!(summary.foreign, [("other".to_owned(), 1)].into());
        assert_eq!((summary.read, summary.passed_over), (5, 2));
    }

    #[test]
    fn a_line_without_a_key_goes_where_its_customer_belongs() {
        let line = Letter { topic: "t".into(), ..Letter::default() };
        assert_eq!(line.outgoing(b"c").key, Some(&b"c"[..]));
        let record = Letter { partition: Some(4), ..line };
        let outgoing = record.outgoing(b"c");
        assert_eq!((outgoing.key, outgoing.partition), (None, Some(4)));
    }
}
