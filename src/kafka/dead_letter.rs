//! Dead letters: records that cannot be used, as they came, with the reason in Kafka Connect's headers.

use crate::event::Reject;

pub const TOPIC: &str = "__connect.errors.topic";
pub const PARTITION: &str = "__connect.errors.partition";
pub const OFFSET: &str = "__connect.errors.offset";
pub const CLASS: &str = "__connect.errors.exception.class.name";
pub const MESSAGE: &str = "__connect.errors.exception.message";

/// The headers that say where a record came from and why it is here.
pub fn headers(topic: &str, partition: i32, offset: i64, reject: &Reject) -> [(&'static str, String); 5] {
    [
        (TOPIC, topic.to_owned()),
        (PARTITION, partition.to_string()),
        (OFFSET, offset.to_string()),
        (CLASS, reject.reason.code().to_owned()),
        (MESSAGE, reject.message.clone()),
    ]
}

/// The same as one line of JSON, for files. A value that is not UTF-8 is given in hexadecimal instead.
pub fn as_json(
    topic: &str,
    partition: i32,
    offset: i64,
    key: Option<&[u8]>,
    value: &[u8],
    reject: &Reject,
) -> String {
    let mut line = serde_json::Map::new();
    line.insert("topic".into(), topic.into());
    line.insert("partition".into(), partition.into());
    line.insert("offset".into(), offset.into());
    line.insert("reason".into(), reject.reason.code().into());
    line.insert("message".into(), reject.message.clone().into());
    put_bytes(&mut line, "key", key);
    put_bytes(&mut line, "value", Some(value));
    let headers = headers(topic, partition, offset, reject);
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
