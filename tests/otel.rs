//! A traced event becomes a span at a collector, and what it causes a child of that span.
#![cfg(feature = "otel")]

use std::io::{Read, Write};
use std::net::TcpListener;

use stagecast::event::Source;
use stagecast::event::trace::Trace;
use stagecast::otel;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Takes one request and answers that it has it; returns the first line and the body.
fn take(listener: &TcpListener) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..n]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length =
            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.unwrap();
        if bytes.len() >= end + 4 + length {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            return (head.lines().next().unwrap().to_owned(), bytes[end + 4..].to_vec());
        }
    }
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    body.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn a_traced_event_is_a_span_between_its_producer_and_its_outputs() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let collector = std::thread::spawn(move || take(&listener));
    let exporting = otel::start_to(&address).unwrap();
    let came = Trace::new(PARENT, Some("vendor=1")).unwrap();
    let goes = otel::span(came.clone(), Source::Purchase, 3, 1_772_357_400_125, 1_772_357_400_130);
    assert_eq!(goes.parent()[..36], came.parent()[..36], "the same trace");
    assert_ne!(goes.parent()[36..52], came.parent()[36..52], "another span");
    assert_eq!(goes.state(), Some("vendor=1"));
    drop(exporting);

    let (request, body) = collector.join().unwrap();
    assert_eq!(request, "POST /v1/traces HTTP/1.1");
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    };
    for wanted in [
        b"process purchase".to_vec(),
        b"stagecast".to_vec(),
        bytes(&PARENT[3..35]),
        bytes(&PARENT[36..52]),
        bytes(&goes.parent()[36..52]),
    ] {
        assert!(contains(&body, &wanted), "the span lacks {}", String::from_utf8_lossy(&wanted));
    }
}
