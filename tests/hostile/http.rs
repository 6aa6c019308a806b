//! Hostile clients, against the real server on a real socket: floods, trickles and garbage.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stagecast::config::Config;
use stagecast::http::server::{self, serve};
use stagecast::time::{Tick, sleep};

use crate::targets::answers;

/// A sign of life, on however busy a machine; an answer takes milliseconds.
const ALIVE_WITHIN: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 10_000;

struct Server {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

/// With one thread, as in the service.
fn start() -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve(listener, answers(), std::future::pending()));
    Server { address, _runtime: runtime }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, ALIVE_WITHIN).unwrap();
        stream.set_read_timeout(Some(ALIVE_WITHIN)).unwrap();
        stream.set_write_timeout(Some(ALIVE_WITHIN)).unwrap();
        stream
    }

    /// Everything that comes back for `bytes`. The server may stop listening, or hang up, before it has all.
    fn answer(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn status(&self, bytes: &[u8]) -> String {
        self.answer(bytes).split(' ').nth(1).unwrap_or("").to_owned()
    }

    fn is_alive(&self) {
        let began = Tick::now();
        let mut stream = self.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("/metrics is answered");
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("stagecast_state_customers"),
            "{answer:.200}"
        );
        assert!(began.elapsed() < ALIVE_WITHIN, "/metrics took {:?}", began.elapsed());
        println!("/metrics answered after {} ms", began.elapsed().as_millis());
    }
}

/// As many files as this process may have open.
fn raise_the_limit_of_files() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize)
}

#[test]
fn ten_thousand_silent_connections_keep_nobody_out() {
    // Both ends are this process's, and other tests need some.
    let room = raise_the_limit_of_files().saturating_sub(server::CONNECTIONS_MOST + 500);
    let connections = CONNECTIONS.min(room);
    println!("{connections} connections");
    let server = start();
    let mut held: Vec<TcpStream> = (0..connections).map(|_| server.connect()).collect();
    server.is_alive();
    // Half of them begin to ask, and never finish.
    for stream in held.iter_mut().step_by(2) {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: ");
    }
    server.is_alive();
    drop(held);
    server.is_alive();
}

#[test]
fn clients_that_trickle_are_cut_off_whatever_they_send() {
    let server = start();
    let mut trickling: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    let began = Tick::now();
    let rounds = server::CLIENT_WITHIN.as_millis() as usize / 250 + 8;
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for round in 0..rounds {
        for stream in &mut trickling {
            let _ = stream.write_all(&request[round..round + 1]);
        }
        sleep(Duration::from_millis(250));
    }
    server.is_alive();
    for stream in &mut trickling {
        // The end, or a reset because it went on sending; a time-out would be a connection that is held.
        match stream.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    assert!(began.elapsed() >= server::CLIENT_WITHIN, "they were not slow at all");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let server = start();
    let head = |what: &str| format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{what}connection: close\r\n\r\n");
    let long = "x".repeat(server::HEAD_BYTES_MOST * 4);
    assert_eq!(server.status(head(&format!("x-long: {long}\r\n")).as_bytes()), "431");
    assert_eq!(server.status(head(&"x-many: 1\r\n".repeat(server::HEADERS_MOST * 2)).as_bytes()), "431");
    let url = format!("GET /{long} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(["414", "431"].contains(&server.status(url.as_bytes()).as_str()));
    assert_eq!(server.status(head("content-length: 10000000\r\n").as_bytes()), "413");
    // Ten megabytes of a head that never ends.
    let endless = [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(1_700_000)].concat();
    assert!(["431", ""].contains(&server.status(&endless).as_str()));
    server.is_alive();
}

#[test]
fn everything_is_read_with_get_or_head_alone() {
    let server = start();
    let paths = ["/", "/live", "/kpis", "/metrics", "/healthz", "/readyz", "/customers/c"];
    for path in paths {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
            let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let answer = server.answer(request.as_bytes());
            let expected = if method == "CONNECT" { ["400", "405"] } else { ["405", "405"] };
            let status = answer.split(' ').nth(1).unwrap_or("");
            assert!(expected.contains(&status), "{method} {path}: {answer:.200}");
        }
    }
    for path in ["/", "/kpis", "/metrics", "/healthz"] {
        let answer =
            server.answer(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"),
            "HEAD {path}: {answer:.300}"
        );
    }
}

#[test]
fn garbage_is_answered_or_hung_up_on() {
    let server = start();
    let mut random = rand_pcg::Pcg64::seed_from_u64(1);
    for _ in 0..200 {
        let length = random.random_range(64..4_096);
        let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
        let answer = server.answer(&bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer:.200}");
    }
    let good = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    // What came before the garbage is answered; then the connection is of no use.
    let answer = server.answer(&[good.as_slice(), good, b"\0\xff garbage\r\n\r\n", good].concat());
    assert_eq!(
        (answer.matches("HTTP/1.1 200").count(), answer.matches("HTTP/1.1 400").count()),
        (2, 1),
        "{answer}"
    );
    for smuggled in [
        "GET /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345",
        "GET /metrics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "GET /metrics HTTP/1.1\r\n host: x\r\n\r\n",
        "GET  /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /metrics HTTP/9.9\r\nhost: x\r\n\r\n",
    ] {
        assert_eq!(server.status(smuggled.as_bytes()), "400", "{smuggled:?}");
    }
    assert_eq!(server.answer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "", "HTTP/2 is not spoken");
    server.is_alive();
}

#[test]
fn addresses_that_climb_lead_nowhere() {
    let server = start();
    for path in
        ["/../../etc/passwd", "/..%2f..%2fetc/passwd", "/customers/../metrics", "//metrics", "/metrics/.."]
    {
        let status =
            server.status(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
        assert!(["404", "503"].contains(&status.as_str()), "{path}: {status}");
    }
}

#[test]
fn unless_told_otherwise_it_listens_to_this_machine_alone() {
    assert!(Config::default().http.listen.ip().is_loopback());
}
