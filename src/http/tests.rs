//! A real listener, spoken to byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::config::Config;
use crate::metrics::tests::Scrape;
use crate::time::Tick;

struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
    workers: Vec<Receiver<Query>>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<crate::error::Result<()>>,
}

async fn start(workers: usize) -> Service {
    start_as(workers, &Config::default()).await
}

async fn start_as(workers: usize, config: &Config) -> Service {
    let plan = Arc::new(crate::setup::plan(config, None).unwrap());
    let metrics = Metrics::new(&plan).unwrap();
    let models = crate::reload::Models::new(config, Arc::clone(&plan), Arc::clone(&metrics)).unwrap();
    let (queries, receivers) = Queries::new(workers);
    let health = Arc::new(Health::new(workers, Tick::now(), Duration::from_secs(10)));
    (0..workers).for_each(|w| health.set_ready(w, true));
    let shared = Arc::new(Shared {
        metrics,
        plan,
        health,
        queries,
        live: Arc::default(),
        reloading: config.http.token.as_deref().map(|token| reload::Reloading::new(token, Arc::new(models))),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(serve(listener, Arc::clone(&shared), async { drop(stopped.await) }));
    Service { address, shared, workers: receivers, stop, served }
}

/// A worker that knows the customers of `known` and says their ids.
fn answering(receiver: Receiver<Query>, known: &'static [&'static str]) {
    std::thread::spawn(move || {
        for query in receiver {
            query.answer(|id| known.contains(&id).then(|| json!({ "customer_id": id }).to_string()));
        }
    });
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Service {
    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }
}

async fn read_to_end(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes));
    let _ = read.await.expect("no end of the answer");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

#[tokio::test]
async fn metrics_are_valid_exposition_text() {
    let service = start(1).await;
    let answer = service.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"));
    assert_eq!(Scrape::parse(&answer.body).value("stagecast_state_customers"), 0.0);
}

#[tokio::test]
async fn a_reload_needs_the_token_and_says_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("churn.json");
    std::fs::write(&path, crate::setup::SHIPPED_MODEL).unwrap();
    let mut config = Config::default();
    config.model.path = Some(path.clone());
    config.http.token = Some("open-sesame".into());
    let service = start_as(1, &config).await;
    let ask = |authorization: &str| {
        format!(
            "POST /-/reload HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n{authorization}\r\n"
        )
    };
    for wrong in ["", "authorization: Bearer open-sesam\r\n", "authorization: Basic open-sesame\r\n"] {
        let answer = service.send(&ask(wrong)).await;
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
    }
    let right = ask("authorization: Bearer open-sesame\r\n");
    assert_eq!(service.send(&right).await.json()["result"], "unchanged");
    let mut other = crate::model::Model::read(&path).unwrap();
    other.version = "another".into();
    other.write(&path).unwrap();
    let answer = service.send(&right).await;
    assert_eq!((answer.status, answer.json()["result"].as_str()), (200, Some("ok")));
    assert_eq!(answer.json()["model"]["version"], "another");
    std::fs::write(&path, "{}").unwrap();
    let answer = service.send(&right).await;
    assert_eq!((answer.status, answer.json()["result"].as_str()), (422, Some("refused")));
    assert!(answer.json()["error"].as_str().unwrap().contains("churn.json:1: not a churn model"));
    assert_eq!(answer.json()["model"]["version"], "another", "the old one goes on");
    let got = service.get("/-/reload").await;
    assert_eq!(got.status, 405);
    assert!(got.json()["error"].as_str().unwrap().contains("POST"));
}

#[tokio::test]
async fn a_reload_is_off_without_a_token() {
    let service = start(1).await;
    let request = "POST /-/reload HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer \r\n\r\n";
    let answer = service.send(request).await;
    assert_eq!(answer.status, 403);
    assert!(answer.json()["error"].as_str().unwrap().contains("set http.token"));
}

#[tokio::test]
async fn health_and_readiness_are_told_apart() {
    let service = start(2).await;
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.get("/readyz").await.status, 200);

    service.shared.health.set_phase(1, Phase::Restoring);
    assert_eq!(service.get("/healthz").await.status, 200, "restoring is no reason to restart");
    let answer = service.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["missing"], json!(["worker 1 is restoring its partitions"]));

    service.shared.health.ended(1, Some("fenced".into()));
    let answer = service.get("/healthz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reasons"], json!(["worker 1 has ended: fenced"]));
}

#[tokio::test]
async fn a_customer_is_found_whatever_its_id_and_worker() {
    let mut service = start(2).await;
    answering(service.workers.remove(0), &["plain"]);
    answering(service.workers.remove(0), &["a/b c", "Zoë", "50%"]);
    for (path, id) in [
        ("plain", "plain"),
        ("a%2Fb%20c", "a/b c"),
        ("Zo%C3%AB", "Zoë"),
        ("50%25", "50%"),
        ("plain?x=1", "plain"),
    ] {
        let answer = service.get(&format!("/customers/{path}")).await;
        assert_eq!((answer.status, &answer.json()["customer_id"]), (200, &json!(id)));
        assert!(answer.head.contains("cache-control: no-store"));
    }
    assert_eq!(service.get("/customers/nobody").await.status, 404);
    assert_eq!(service.get("/customers/a%20b").await.status, 404);
}

#[tokio::test]
async fn ids_that_cannot_be_are_refused() {
    let service = start(1).await;
    assert_eq!(service.get("/customers/%FF").await.status, 400);
    assert_eq!(service.get(&format!("/customers/{}", "x".repeat(257))).await.status, 400);
    assert_eq!(service.get("/customers/").await.status, 404);
    service.get("/customers/%FF").await.json()["error"].as_str().unwrap();
}

#[tokio::test]
async fn no_answer_is_not_the_answer_no() {
    let mut service = start(1).await;
    let late = service.get("/customers/c1").await;
    assert_eq!(late.status, 504);
    late.json();

    let worker = service.workers.remove(0);
    service.shared.health.set_ready(0, false);
    answering(worker, &[]);
    // The first question waits still and is passed over; the second finds a worker without its partitions.
    assert_eq!(service.get("/customers/c1").await.status, 503);
    service.shared.health.set_ready(0, true);
    assert_eq!(service.get("/customers/c1").await.status, 404);

    let mut service = start(1).await;
    service.workers.clear();
    assert_eq!(service.get("/customers/c1").await.status, 503);
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let service = start(1).await;
    let answer = service.get("/nothing/here").await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.json()["error"],
        "nothing is at /nothing/here; there are /, /live, /kpis, /metrics, /healthz, /readyz, /customers/{id}"
    );
    for method in ["POST", "PUT", "DELETE"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = service.send(&request).await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: get"), "{}", answer.head);
        answer.json();
    }
    let index = service.get("/").await;
    assert!(index.status == 200 && index.body.contains("customers/"));
}

#[tokio::test]
async fn large_heads_and_bodies_are_refused() {
    let service = start(1).await;
    let header = format!("x-long: {}\r\n", "x".repeat(32 * 1024));
    let answer = service.send(&format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{header}\r\n")).await;
    assert_eq!(answer.status, 431);
    let many = "x-many: 1\r\n".repeat(100);
    let answer = service.send(&format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
    assert_eq!(answer.status, 431);
    let answer = service.send("GET /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n").await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn slow_clients_hold_up_nobody_and_are_cut_off() {
    let service = start(1).await;
    let mut slow = Vec::new();
    for part in ["", "GET /metr", "GET /metrics HTTP/1.1\r\nhost: x\r\nx-more: "] {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // One whose first request was in order, and who then says no more.
    let mut idle = TcpStream::connect(service.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    slow.push(idle);

    let quick =
        tokio::time::timeout(server::CLIENT_WITHIN - Duration::from_secs(1), service.get("/metrics")).await;
    assert_eq!(quick.expect("the slow ones hold it up").status, 200);
    for mut stream in slow {
        let within = server::CLIENT_WITHIN + Duration::from_secs(5);
        tokio::time::timeout(within, read_to_end(&mut stream)).await.expect("not cut off");
    }
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_cut_off() {
    let service = start(1).await;
    // Makes the answer larger than what the kernel buffers for a connection.
    (0..40_000).for_each(|partition| service.shared.metrics.set_lag(&"t".repeat(200), partition, 1, 1.0));
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // However long it takes to write so much: from its first byte on the client is the one that is slow.
    stream.readable().await.unwrap();
    tokio::time::sleep(server::CLIENT_WITHIN + Duration::from_secs(3)).await;
    let mut taken = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut taken)).await;
    assert!(end.is_ok(), "the answer goes on");
    let text = String::from_utf8_lossy(&taken);
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    assert!(taken.len() < length.parse().unwrap(), "the whole answer was taken");
}

#[tokio::test]
async fn beyond_the_limit_whoever_is_silent_longest_makes_room() {
    let service = start(1).await;
    let mut asked = TcpStream::connect(service.address).await.unwrap();
    asked.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut asked, &["200 OK"]).await;
    let mut silent = Vec::new();
    for _ in 1..server::CONNECTIONS_MOST {
        silent.push(TcpStream::connect(service.address).await.unwrap());
    }
    assert_eq!(service.get("/metrics").await.status, 200, "the flood keeps out who asks");
    let began = Tick::now();
    assert_eq!(read_to_end(&mut silent[0]).await.status, 0);
    assert!(began.elapsed() < server::CLIENT_WITHIN, "it was cut off for its silence alone");
    // Who has asked before stays, although it came first.
    asked.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut asked, &["200 OK"]).await;
}

#[tokio::test]
async fn stopping_finishes_the_answer_under_way() {
    let mut service = start(1).await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(b"GET /customers/c1 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let worker = service.workers.remove(0);
    let query = tokio::task::spawn_blocking(move || worker.recv().unwrap()).await.unwrap();
    let mut idle = TcpStream::connect(service.address).await.unwrap();
    service.stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    query.answer(|_| Some("{}".into()));
    let answer = read_to_end(&mut stream).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    let served =
        tokio::time::timeout(Duration::from_secs(4), service.served).await.expect("it goes on serving");
    served.unwrap().unwrap();
    assert_eq!(read_to_end(&mut idle).await.status, 0, "connections are closed");
}

/// Opens the stream of news, and reads until it has all of these words.
async fn read_news(service: &Service, wanted: &[&str]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let text = read_until(&mut stream, wanted).await;
    (stream, text)
}

async fn read_until(stream: &mut TcpStream, wanted: &[&str]) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 16_384]);
    while !wanted.iter().all(|words| text.contains(words)) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer));
        let n = read.await.unwrap_or_else(|_| panic!("no {wanted:?} in {text}")).unwrap();
        assert!(n > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

#[tokio::test]
async fn a_watcher_is_told_what_was_and_then_what_happens() {
    use crate::pipeline::outbox::Channel;
    let service = start(1).await;
    let tell =
        |channel, json: &'static str| service.shared.live.committed([(channel, json.as_bytes())].into_iter());
    tell(Channel::StageChanges, r#"{"sequence":1}"#);
    let (mut stream, text) = read_news(&service, &["event: figures", r#"{"sequence":1}"#]).await;
    assert!(text.to_lowercase().contains("content-type: text/event-stream"), "{text}");
    tell(Channel::ChurnAlerts, r#"{"alert_id":"a"}"#);
    let told = read_until(&mut stream, &["event: alert", r#"{"alert_id":"a"}"#]).await;
    assert!(!told.contains("sequence"), "nothing is told twice: {told}");
}

#[tokio::test]
async fn watchers_are_few_and_one_that_leaves_makes_room() {
    let service = start(1).await;
    let mut watchers = Vec::new();
    for _ in 0..live::WATCHERS_MOST {
        watchers.push(read_news(&service, &["event: figures"]).await.0);
    }
    let refused = service.get("/live").await;
    assert_eq!(refused.status, 503);
    assert!(refused.json()["error"].as_str().unwrap().contains("watch"));
    watchers.clear();
    // A connection that is gone is noticed when something is to be told, which is every second.
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        if read_until(&mut stream, &["\r\n"]).await.starts_with("HTTP/1.1 200") {
            return;
        }
    }
    panic!("no room after all watchers have left");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_watchers() {
    let service = start(1).await;
    let (mut stream, _) = read_news(&service, &["event: figures"]).await;
    service.stop.send(()).unwrap();
    let began = Tick::now();
    service.served.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn key_figures_are_those_of_the_committed_changes() {
    let service = start(1).await;
    let moves = crate::metrics::kpis::tests::moves(&[("reach", "acquisition", "smb", 20_454)]);
    let seen_to = Some(20_454 * crate::time::DAY_MS);
    let figures = crate::metrics::PartitionFigures { moves, seen_to, ..Default::default() };
    service.shared.metrics.set_partition(0, figures);
    let kpis = service.get("/kpis").await.json();
    assert_eq!(kpis["as_of"], "2026-01-01T00:00:00.000Z");
    let conversion = &kpis["lifecycles"][0]["conversions"][0];
    assert_eq!((&conversion["from"], &conversion["rate"]), (&json!("reach"), &json!(1.0)));
    let segment = &kpis["lifecycles"][0]["segments"][0];
    assert_eq!((&segment["segment"], &segment["conversions"][0]), (&json!("smb"), conversion));
}

/// Answers are what the OpenAPI document says: each address under a service that is well, and one that is not.
#[tokio::test]
async fn answers_keep_to_the_documents() {
    let mut service = start(1).await;
    service.shared.health.ended(0, Some("fenced".into()));
    check_answers(&service, &[("/healthz", 503), ("/readyz", 503), ("/customers/%FF", 400)]).await;
    service.shared.health.set_ready(0, true);
    answering(service.workers.remove(0), &[]);
    let well = [("/kpis", 200), ("/healthz", 200), ("/readyz", 200), ("/customers/nobody", 404)];
    check_answers(&service, &well).await;
    let plain = routes::PATHS.into_iter().filter(|path| !path.contains('{') && *path != "/live");
    for path in plain {
        assert_eq!(service.get(path).await.status, 200, "{path}");
    }
    let (_, news) = read_news(&service, &["event: figures", "\n\n"]).await;
    let figures = news.split("data: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let schema = of_openapi("/components/schemas/figures");
    assert_valid(&schema, &serde_json::from_str(figures).unwrap());
}

fn of_openapi(pointer: &str) -> Value {
    let documents = crate::schema::documents(&Config::default());
    let openapi = documents.into_iter().find(|d| d.file == "openapi.json").unwrap().content;
    let found = openapi.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not documented"));
    match found["$ref"].as_str() {
        Some(reference) => openapi.pointer(&reference[1..]).unwrap().clone(),
        None => found.clone(),
    }
}

fn assert_valid(schema: &Value, value: &Value) {
    let validator = jsonschema::validator_for(schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {value}");
}

async fn check_answers(service: &Service, asked: &[(&str, u16)]) {
    for (path, status) in asked {
        let answer = service.get(path).await;
        assert_eq!(answer.status, *status, "{path}");
        let documented = if path.starts_with("/customers/") { "/customers/{id}" } else { *path };
        let documented = documented.replace('/', "~1");
        let schema = of_openapi(&format!(
            "/paths/{documented}/get/responses/{status}/content/application~1json/schema"
        ));
        assert_valid(&schema, &answer.json());
    }
}
