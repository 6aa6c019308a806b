//! Dead letters: records that cannot be used, as they came, with the reason in Kafka Connect's headers.

use crate::event::Reject;
use crate::time::Ts;

pub const TOPIC: &str = "__connect.errors.topic";
pub const PARTITION: &str = "__connect.errors.partition";
pub const OFFSET: &str = "__connect.errors.offset";
pub const CLASS: &str = "__connect.errors.exception.class.name";
pub const MESSAGE: &str = "__connect.errors.exception.message";
/// The record's own timestamp in milliseconds: the event time where its value tells none.
pub const TIMESTAMP: &str = "__connect.errors.timestamp";

/// Where a record stood, and when it came.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Option<Ts>,
}

/// The headers that say where a record came from and why it is here.
pub fn headers(origin: &Origin<'_>, reject: &Reject) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        (TOPIC, origin.topic.to_owned()),
        (PARTITION, origin.partition.to_string()),
        (OFFSET, origin.offset.to_string()),
        (CLASS, reject.reason.code().to_owned()),
        (MESSAGE, reject.message.clone()),
    ];
    headers.extend(origin.timestamp.map(|ts| (TIMESTAMP, ts.to_string())));
    headers
}

/// The same as one line of JSON, for files. A value that is not UTF-8 is given in hexadecimal instead.
pub fn as_json(origin: &Origin<'_>, key: Option<&[u8]>, value: &[u8], reject: &Reject) -> String {
    let mut line = serde_json::Map::new();
    line.insert("topic".into(), origin.topic.into());
    line.insert("partition".into(), origin.partition.into());
    line.insert("offset".into(), origin.offset.into());
    line.insert("reason".into(), reject.reason.code().into());
    line.insert("message".into(), reject.message.clone().into());
    put_bytes(&mut line, "key", key);
    put_bytes(&mut line, "value", Some(value));
    let headers = headers(origin, reject);
    line.insert("headers".into(), headers.into_iter().collect());
    serde_json::Value::Object(line).to_string()
}

fn put_bytes(line: &mut serde_json::Map<String, serde_json::Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => line.insert(name.into(), serde_json::Value::Null),
        Some(Ok(text)) => line.insert(name.into(), text.into()),
        Some(Err(_)) => {
            let hex = bytes.unwrap_or(&[]).iter().map(|b| format!("{b:02x}")).collect::<String>();
            line.insert(format!("{name}_hex"), hex.into())
        }
    };
}
