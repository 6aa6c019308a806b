//! Why a broker's certificate is not trusted. librdkafka says no more than that it is not, and OpenSSL only asks whoever
//! checks: so one more handshake is made that is stopped where the check fails. Nothing else is sent.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVerifyMode};
use openssl::x509::{X509, X509Ref, X509StoreContextRef};

/// Where systems keep the authorities that they trust: Debian, Fedora, SUSE, Alpine and macOS, others by folder.
const OF_SYSTEMS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
];
const WITHIN: Duration = Duration::from_secs(5);
/// `X509_V_ERR_…`, as OpenSSL's x509_vfy.h numbers them.
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const HOSTNAME_MISMATCH: i32 = 62;
const ADDRESS_MISMATCH: i32 = 64;

/// What is wrong and what to do; `None` when the certificate is in order, or the broker cannot be asked.
pub fn inspect(broker: &str, properties: &BTreeMap<String, String>) -> Option<(String, &'static str)> {
    let (host, _) = broker.rsplit_once(':')?;
    let stream = broker.to_socket_addrs().ok()?.find_map(|a| TcpStream::connect_timeout(&a, WITHIN).ok())?;
    stream.set_read_timeout(Some(WITHIN)).ok()?;
    stream.set_write_timeout(Some(WITHIN)).ok()?;
    let mut builder = SslConnector::builder(SslMethod::tls_client()).ok()?;
    trust(&mut builder, properties)?;
    let found = Arc::new(Mutex::new(None));
    let finding = Arc::clone(&found);
    builder.set_verify_callback(SslVerifyMode::PEER, move |is_good, context| {
        if !is_good {
            let told = explain(context);
            finding.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(told);
        }
        is_good
    });
    let checks_name =
        properties.get("ssl.endpoint.identification.algorithm").is_none_or(|name| name != "none");
    let connector = builder.build().configure().ok()?.verify_hostname(checks_name);
    // Fails where the check fails, which is what is looked for.
    let _ = connector.connect(host, stream);
    found.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The authorities that this machine trusts. The OpenSSL within us was built to look where no system has them; only
/// `SSL_CERT_FILE` and `SSL_CERT_DIR`, which it knows by itself, lead elsewhere.
pub fn of_the_system() -> Option<&'static str> {
    let is_led = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    OF_SYSTEMS.into_iter().find(|path| !is_led && Path::new(path).exists())
}

/// The authorities that librdkafka was told to trust.
fn trust(builder: &mut SslConnectorBuilder, properties: &BTreeMap<String, String>) -> Option<()> {
    let named = properties.get("ssl.ca.location").map(String::as_str).filter(|path| *path != "probe");
    let is_told = named.is_some() || properties.contains_key("ssl.ca.pem");
    if let Some(path) = named.or_else(|| of_the_system().filter(|_| !is_told)) {
        if Path::new(path).is_file() {
            builder.set_ca_file(path).ok()?;
        } else {
            builder.load_verify_locations(None, Some(Path::new(path))).ok()?;
        }
    }
    for authority in
        X509::stack_from_pem(properties.get("ssl.ca.pem").map_or(b"", |pem| pem.as_bytes())).ok()?
    {
        builder.cert_store_mut().add_cert(authority).ok()?;
    }
    Some(())
}

fn explain(context: &X509StoreContextRef) -> (String, &'static str) {
    let (error, certificate) = (context.error(), context.current_cert());
    let told = |tell: fn(&X509Ref) -> String| certificate.map_or(String::new(), tell);
    match error.as_raw() {
        EXPIRED => (
            format!("it has expired{}", told(|c| format!(" on {}", c.not_after()))),
            "renew the broker's certificate, and look at this machine's clock",
        ),
        NOT_YET_VALID => (
            format!("it is not valid yet{}", told(|c| format!(", but from {}", c.not_before()))),
            "look at this machine's clock",
        ),
        HOSTNAME_MISMATCH | ADDRESS_MISMATCH => (
            format!("it is for another host{}", told(|c| format!(": {}", names(c)))),
            "name the broker in \"bootstrap.servers\" as its certificate does, or have the name added to the certificate",
        ),
        _ => (
            format!("{}{}", error.error_string(), told(|c| format!("; its issuer is {}", issuer(c)))),
            "set \"ssl.ca.location\" in [kafka] to the certificate of the authority that issued the broker's",
        ),
    }
}

fn names(certificate: &X509Ref) -> String {
    let names = certificate.subject_alt_names().into_iter().flatten();
    let names: Vec<String> = names.filter_map(|name| name.dnsname().map(str::to_owned)).collect();
    if names.is_empty() { "it names no host".to_owned() } else { names.join(", ") }
}

fn issuer(certificate: &X509Ref) -> String {
    let entries = certificate.issuer_name().entries();
    let texts: Vec<String> = entries.filter_map(|entry| entry.data().to_string().ok()).collect();
    texts.join(", ")
}
