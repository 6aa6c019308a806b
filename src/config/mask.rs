//! Keeps secrets out of everything a person or a log collector sees.
//!
//! A property is secret when librdkafka's own list says so or when its name looks like it; a value is secret
//! when it holds a private key, or credentials inside an address. Too much is masked rather than too little.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// What stands in place of a secret.
pub const MASK: &str = "********";

/// Words in a property's name that mark it as secret.
const SECRET_WORDS: [&str; 10] = [
    "salt",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "jaas",
    "credential",
    "key.pem",
    "api.key",
];

/// Secret properties whose names hold none of the words: both may carry a bearer token or a password.
const SECRET_NAMES: [&str; 4] =
    ["sasl.oauthbearer.config", "sasl.oauthbearer.extensions", "sasl.kerberos.kinit.cmd", "ssl_key"];

/// Names that hold such a word and are no secret; credentials inside their values are still masked.
const PUBLIC_NAMES: [&str; 2] =
    ["sasl.oauthbearer.token.endpoint.url", "sasl.oauthbearer.client.credentials.client.id"];

/// The value of a property as it may be shown.
pub fn masked<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if value.is_empty() {
        return Cow::Borrowed(value);
    }
    if is_secret_name(name) || value.contains("PRIVATE KEY") {
        return Cow::Borrowed(MASK);
    }
    mask_addresses(value)
}

pub(super) fn masked_all(properties: &BTreeMap<String, String>) -> BTreeMap<&str, Cow<'_, str>> {
    properties.iter().map(|(name, value)| (name.as_str(), masked(name, value))).collect()
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if PUBLIC_NAMES.contains(&name.as_str()) {
        return false;
    }
    let spelt_with_dots = name.replace(['_', '-'], ".");
    SECRET_NAMES.contains(&name.as_str()) || SECRET_WORDS.iter().any(|word| spelt_with_dots.contains(word))
}

/// Masks `user:password@` and what follows `?` in every address of a comma-separated list.
fn mask_addresses(value: &str) -> Cow<'_, str> {
    if !value.contains(['@', '?']) {
        return Cow::Borrowed(value);
    }
    let shown: Vec<String> = value.split(',').map(mask_address).collect();
    Cow::Owned(shown.join(","))
}

fn mask_address(address: &str) -> String {
    let (scheme, rest) = match address.find("://") {
        Some(at) => address.split_at(at + 3),
        None => ("", address),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) if !scheme.is_empty() => (rest, format!("?{MASK}")),
        _ => (rest, String::new()),
    };
    match rest.rsplit_once('@') {
        Some((user, host)) if !scheme.is_empty() || user.contains(':') => {
            format!("{scheme}{MASK}@{host}{query}")
        }
        _ => format!("{scheme}{rest}{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_or_looks_secret_is_masked_and_nothing_else() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.truststore.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.config",
            "sasl.jaas.config",
            "SASL_PASSWORD",
            "api_key",
        ] {
            assert_eq!(masked(name, "canary"), MASK, "{name}");
        }
        for (name, value, shown) in [
            ("bootstrap.servers", "a:9092,b:9092", "a:9092,b:9092"),
            ("bootstrap.servers", "a:1,SASL_SSL://u:canary@b:2", "a:1,SASL_SSL://********@b:2"),
            ("http.proxy", "u:canary@proxy:3128", "********@proxy:3128"),
            (
                "sasl.oauthbearer.token.endpoint.url",
                "https://u:canary@idp/token?key=canary",
                "https://********@idp/token?********",
            ),
            ("sasl.oauthbearer.token.endpoint.url", "https://idp/token", "https://idp/token"),
            ("sasl.kerberos.principal", "kafka@EXAMPLE.COM", "kafka@EXAMPLE.COM"),
            ("ssl.certificate.pem", "-----BEGIN PRIVATE KEY-----canary", MASK),
            ("sasl.username", "app", "app"),
            ("sasl.oauthbearer.client.id", "app", "app"),
            ("sasl.password", "", ""),
        ] {
            assert_eq!(masked(name, value), shown, "{name} = {value}");
        }
    }
}
