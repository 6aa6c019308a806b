//! Comparing two sets of outputs: per customer, record by record.
//!
//! Records of different customers have no order among each other, so that outputs consumed from partitioned
//! topics compare with those of a replay. Of each record only its place and a hash are held.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::output::FILES;
use crate::error::{Error, Result};

/// What two folders have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Equal {
    pub records: u64,
    /// Files with which nothing was compared, since the earlier folder has none of that name.
    pub missing: Vec<&'static str>,
}

/// Compares the files that both folders have. Who consumed some topics only has the files of those.
///
/// Errors with the first difference: file, customer, which record, and both values.
pub fn compare(new: &Path, earlier: &Path) -> Result<Equal> {
    let mut equal = Equal { records: 0, missing: Vec::new() };
    let written = FILES.into_iter().filter(|name| new.join(name).exists());
    let mut compared = 0;
    for name in written {
        let (a, b) = (new.join(name), earlier.join(name));
        if !b.exists() {
            equal.missing.push(name);
            continue;
        }
        compared += 1;
        equal.records += compare_file(name, &mut Records::read(&a)?, &mut Records::read(&b)?)?;
    }
    if compared == 0 {
        let what = format!("{} has none of the files to compare: {}", earlier.display(), FILES.join(", "));
        return Err(Error::user(what));
    }
    Ok(equal)
}

fn compare_file(name: &str, new: &mut Records, earlier: &mut Records) -> Result<u64> {
    let mut equal = 0;
    let customers: BTreeSet<String> =
        new.by_customer.keys().chain(earlier.by_customer.keys()).cloned().collect();
    for customer in &customers {
        let (a, b) = (new.of(customer), earlier.of(customer));
        for n in 0..a.len().max(b.len()) {
            if a.get(n).map(|r| r.hash) != b.get(n).map(|r| r.hash) {
                // Equal values may be written in different ways.
                let (now, then) = (new.value(a.get(n))?, earlier.value(b.get(n))?);
                if now != then {
                    return Err(difference(name, customer, n, now, then));
                }
            }
            equal += 1;
        }
    }
    Ok(equal)
}

fn difference(name: &str, customer: &str, n: usize, now: Option<Value>, then: Option<Value>) -> Error {
    let show = |v: Option<Value>| v.map_or("nothing".into(), |v| v.to_string());
    let (now, then) = (show(now), show(then));
    Error::world(format!("{name}: customer {customer}, record {}: now {now}, earlier {then}", n + 1))
}

/// A file's records by customer, in order.
struct Records {
    path: PathBuf,
    file: File,
    by_customer: BTreeMap<String, Vec<Place>>,
}

#[derive(Clone, Copy)]
struct Place {
    hash: u64,
    offset: u64,
}

/// Dead letters have no customer: they compare by the topic they came from, which keeps their order. Receipts
/// of erasures have a hash in its place.
#[derive(Deserialize)]
struct Head {
    customer_id: Option<String>,
    customer_hash: Option<String>,
    topic: Option<String>,
}

impl Records {
    fn read(path: &Path) -> Result<Records> {
        let open = || File::open(path).map_err(|e| Error::io("read", path, &e));
        let mut records = Records { path: path.to_owned(), file: open()?, by_customer: BTreeMap::new() };
        let mut reader = BufReader::with_capacity(1 << 18, open()?);
        let (mut line, mut offset, mut number) = (Vec::new(), 0u64, 0u64);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(|e| Error::io("read", path, &e))?;
            if read == 0 {
                return Ok(records);
            }
            number += 1;
            let text = line.trim_ascii();
            // What a consumer makes of a tombstone, which has no place in a replay's files.
            if !text.is_empty() && text != b"null" {
                let head: Head = serde_json::from_slice(text).map_err(|e| records.not_json(number, &e))?;
                let key = head.customer_id.or(head.customer_hash).or(head.topic).unwrap_or_default();
                let place = Place { hash: xxhash_rust::xxh3::xxh3_64(text), offset };
                records.by_customer.entry(key).or_default().push(place);
            }
            offset += read as u64;
        }
    }

    fn not_json(&self, line: u64, error: &serde_json::Error) -> Error {
        Error::user(format!("{}:{line}: not a JSON record: {error}", self.path.display()))
    }

    fn of(&self, customer: &str) -> Vec<Place> {
        self.by_customer.get(customer).cloned().unwrap_or_default()
    }

    fn value(&mut self, place: Option<&Place>) -> Result<Option<Value>> {
        let Some(place) = place else { return Ok(None) };
        let mut line = Vec::new();
        let read = self.file.seek(SeekFrom::Start(place.offset));
        let read = read.and_then(|_| BufReader::new(&mut self.file).read_until(b'\n', &mut line));
        read.map_err(|e| Error::io("read", &self.path, &e))?;
        serde_json::from_slice(&line).map(Some).map_err(|e| self.not_json(0, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for d in [&a, &b] {
            std::fs::create_dir(d).unwrap();
        }
        let write = |d: &Path, text: &str| std::fs::write(d.join("churn-scores.ndjson"), text).unwrap();
        write(&a, "{\"customer_id\":\"x\",\"p\":1}\n{\"customer_id\":\"y\",\"p\":2}\n");
        write(&b, "{\"customer_id\":\"y\",\"p\":2}\n{\"p\":1,\"customer_id\":\"x\"}\n");
        let equal = |missing: &[&'static str]| Ok(Equal { records: 2, missing: missing.to_vec() });
        assert_eq!(compare(&a, &b), equal(&[]));
        std::fs::write(a.join("churn-alerts.ndjson"), "{\"customer_id\":\"x\"}\n").unwrap();
        assert_eq!(compare(&a, &b), equal(&["churn-alerts.ndjson"]), "it is said what was not compared");
        write(&b, "\n{\"customer_id\":\"y\",\"p\":2}\nnull\n{\"p\":1,\"customer_id\":\"x\"}\n");
        assert_eq!(compare(&a, &b), equal(&["churn-alerts.ndjson"]), "a tombstone is no record");
        write(
            &b,
            "{\"customer_id\":\"y\",\"p\":2}\n{\"customer_id\":\"y\",\"p\":3}\n{\"customer_id\":\"x\",\"p\":1}\n",
        );
        let error = compare(&a, &b).unwrap_err();
        assert!(error.what.contains("customer y, record 2: now nothing, earlier {"), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}
