//! Comparing two sets of outputs: per customer, record by record.
//!
//! Records of different customers have no order among each other, so that outputs consumed from partitioned
//! topics compare with those of a replay.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::output::FILES;
use crate::error::{Error, Result};

/// Records by customer, in order.
type ByCustomer = BTreeMap<String, Vec<Value>>;

/// Compares the files that both folders have; `Ok` holds the number of equal records.
///
/// Errors with the first difference: file, customer, which record, and both values.
pub fn compare(new: &Path, earlier: &Path) -> Result<u64> {
    let mut equal = 0;
    let mut compared = 0;
    for name in FILES {
        let (a, b) = (new.join(name), earlier.join(name));
        if !b.exists() || !a.exists() {
            continue;
        }
        compared += 1;
        equal += compare_file(name, &read(&a)?, &read(&b)?)?;
    }
    if compared == 0 {
        let what = format!("{} has none of the files to compare: {}", earlier.display(), FILES.join(", "));
        return Err(Error::user(what));
    }
    Ok(equal)
}

fn compare_file(name: &str, new: &ByCustomer, earlier: &ByCustomer) -> Result<u64> {
    let mut equal = 0;
    let customers: std::collections::BTreeSet<&String> = new.keys().chain(earlier.keys()).collect();
    for customer in customers {
        let none = Vec::new();
        let (a, b) = (new.get(customer).unwrap_or(&none), earlier.get(customer).unwrap_or(&none));
        for n in 0..a.len().max(b.len()) {
            if a.get(n) != b.get(n) {
                let show = |v: Option<&Value>| v.map_or("nothing".into(), Value::to_string);
                let what = format!(
                    "{name}: customer {customer}, record {}: now {}, earlier {}",
                    n + 1,
                    show(a.get(n)),
                    show(b.get(n))
                );
                return Err(Error::world(what));
            }
            equal += 1;
        }
    }
    Ok(equal)
}

fn read(path: &Path) -> Result<ByCustomer> {
    let file = File::open(path).map_err(|e| Error::io("read", path, &e))?;
    let mut records = ByCustomer::new();
    for (n, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|e| Error::io("read", path, &e))?;
        if line.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(&line)
            .map_err(|e| Error::user(format!("{}:{}: not JSON: {e}", path.display(), n + 1)))?;
        // Dead letters have no customer: they compare by the topic they came from, which keeps their order.
        let key = value.get("customer_id").or_else(|| value.get("topic"));
        records.entry(key.and_then(Value::as_str).unwrap_or("").to_owned()).or_default().push(value);
    }
    Ok(records)
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
        assert_eq!(compare(&a, &b), Ok(2));
        write(&b, "{\"customer_id\":\"y\",\"p\":2}\n{\"customer_id\":\"y\",\"p\":3}\n{\"customer_id\":\"x\",\"p\":1}\n");
        let error = compare(&a, &b).unwrap_err();
        assert!(error.what.contains("customer y, record 2: now nothing, earlier {"), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}
