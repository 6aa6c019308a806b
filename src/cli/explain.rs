//! `stagecast explain`: asks a running instance about a customer and says in words why it has its stage and
//! its score. The words come from the answer alone.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, Result};

/// How long the instance may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MOST: usize = 8 << 20;
/// Contributions of less than this move no probability by a thousandth.
const CONTRIBUTION_LEAST: f64 = 0.005;
const RECENT_SHOWN: usize = 5;

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// The customer's id
    pub customer: String,

    /// Where the instance answers [default: http.listen of the configuration]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// Prints the instance's answer as it is
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args, config: &Config) -> Result<()> {
    let base = args.url.clone().unwrap_or_else(|| format!("http://{}", config.http.listen));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::world(format!("cannot start a runtime: {e}")))?;
    let (status, text) = runtime.block_on(ask(&base, &args.customer))?;
    if status != StatusCode::OK {
        return Err(refused(&base, status, &text));
    }
    if args.json {
        return super::print(&(text.trim_end().to_owned() + "\n"));
    }
    let page: Page = serde_json::from_str(&text).map_err(|e| {
        Error::world(format!("{base} answered something else than a customer: {e}"))
            .hint("is a stagecast of this version listening there?")
    })?;
    super::print(&words(&page))
}

/// One GET, one connection.
async fn ask(base: &str, customer: &str) -> Result<(StatusCode, String)> {
    let wrong = || {
        Error::user(format!("`{base}` is not an address such as http://127.0.0.1:9464"))
            .hint("name the instance with --url, or with http.listen in the configuration")
    };
    let uri: Uri = base.parse().map_err(|_| wrong())?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(wrong()) };
    let port = uri.port_u16().unwrap_or(80);
    let unreachable = |why: String| {
        Error::world(format!("cannot ask {base}: {why}"))
            .hint("is an instance running (`stagecast run`)? --url says where it listens")
    };
    let exchange = async {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream =
            tokio::net::TcpStream::connect((bare, port)).await.map_err(|e| unreachable(e.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        tokio::spawn(connection);
        let path = format!("{}/customers/{}", uri.path().trim_end_matches('/'), encoded(customer));
        let request = Request::get(path)
            .header(header::HOST, format!("{host}:{port}"))
            .body(Body::empty())
            .map_err(|_| wrong())?;
        let answer = sender.send_request(request).await.map_err(|e| unreachable(e.to_string()))?;
        let status = answer.status();
        let body = axum::body::to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MOST)
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    match tokio::time::timeout(ANSWER_MAX, exchange).await {
        Ok(answered) => answered,
        Err(_) => Err(unreachable(format!("no answer within {} s", ANSWER_MAX.as_secs()))),
    }
}

/// Percent-encodes all that is not plain in a path.
fn encoded(id: &str) -> String {
    let mut out = String::new();
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn refused(base: &str, status: StatusCode, text: &str) -> Error {
    let said: Option<Value> = serde_json::from_str(text).ok();
    let said = said.as_ref().and_then(|v| v["error"].as_str()).unwrap_or("no reason given");
    let error = Error::world(format!("{base} answered {}: {said}", status.as_u16()));
    match status {
        StatusCode::NOT_FOUND => {
            error.hint("check the id; with several instances, ask the one that owns the customer's partition")
        }
        _ => error,
    }
}

/// What is used of an answer.
#[derive(Debug, Deserialize)]
struct Page {
    customer_id: String,
    ts: String,
    /// `null`, as its band is, of who refuses to be scored.
    p_churn: Option<f64>,
    band: Option<String>,
    stages: BTreeMap<String, InStage>,
    contributions: Vec<Contribution>,
    model: ModelName,
    last_event_at: Option<String>,
    next_evaluation_at: Option<String>,
    recent: Vec<Change>,
}

#[derive(Debug, Deserialize)]
struct InStage {
    stage: String,
    since: Option<String>,
    days: Option<f64>,
    action: Option<String>,
    visits: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Contribution {
    /// `null` or "intercept" for what every customer starts from.
    feature: Option<String>,
    /// `null` is "never".
    value: Option<f64>,
    contribution: f64,
}

#[derive(Debug, Deserialize)]
struct ModelName {
    name: String,
    version: String,
}

#[derive(Debug, Deserialize)]
struct Change {
    lifecycle: String,
    from: String,
    to: String,
    ts: String,
    trigger: String,
    rule: String,
    features: BTreeMap<String, Option<f64>>,
}

fn words(page: &Page) -> String {
    let mut out = format!("Customer {} as of {}\n", page.customer_id, page.ts);
    if let Some(last) = &page.last_event_at {
        let _ = writeln!(out, "Last event: {last}");
    }
    score(&mut out, page);
    for (lifecycle, stage) in &page.stages {
        in_stage(&mut out, lifecycle, stage, &page.recent);
    }
    if let Some(next) = &page.next_evaluation_at {
        let _ = writeln!(out, "\nIf nothing happens, looked at again at {next}.");
    }
    out
}

fn score(out: &mut String, page: &Page) {
    let Page { p_churn: Some(p_churn), band: Some(band), model, .. } = page else {
        let _ = writeln!(out, "\nRisk of churn: not scored, as this customer refuses it.");
        return;
    };
    let _ = writeln!(
        out,
        "\nRisk of churn: {p_churn:.3}, which is {band} (model {} {})",
        model.name, model.version
    );
    let is_start = |c: &&Contribution| matches!(c.feature.as_deref(), None | Some("intercept"));
    let start: f64 = page.contributions.iter().filter(is_start).map(|c| c.contribution).sum();
    let _ =
        writeln!(out, "  An average customer of the training starts at {:.3}.", 1.0 / (1.0 + (-start).exp()));
    let of = |raises: bool| {
        let clear = |c: &&Contribution| {
            !is_start(c) && c.contribution.abs() >= CONTRIBUTION_LEAST && (c.contribution > 0.0) == raises
        };
        page.contributions.iter().filter(clear).collect::<Vec<_>>()
    };
    for (heading, raises) in [("Raised by", true), ("Lowered by", false)] {
        let found = of(raises);
        if found.is_empty() {
            continue;
        }
        let _ = writeln!(out, "  {heading}:");
        for contribution in found {
            let name = contribution.feature.as_deref().unwrap_or_default();
            let odds = contribution.contribution.abs().exp();
            let way = if raises { "times" } else { "divided by" };
            let (value, odds) = (shown(contribution.value), format!("odds {way} {odds:.2}"));
            let _ = writeln!(out, "    {:<26} {value:>12}   {odds}", name);
        }
    }
}

/// A number as people write it.
fn shown(value: Option<f64>) -> String {
    match value {
        None => "never".into(),
        Some(x) if x.fract() == 0.0 => format!("{x}"),
        Some(x) => format!("{x:.2}"),
    }
}

fn in_stage(out: &mut String, lifecycle: &str, stage: &InStage, recent: &[Change]) {
    let visit = stage.visits.get(&stage.stage).copied().unwrap_or(0);
    let times = match visit {
        0 | 1 => String::new(),
        n => format!(", for the {n}. time"),
    };
    let since = stage.since.as_ref().map_or(String::new(), |since| format!(" since {since}"));
    let days = stage.days.map_or(String::new(), |days| format!(" ({days:.1} days)"));
    let _ = writeln!(out, "\nStage in {lifecycle}: {}{since}{days}{times}", stage.stage);
    if let Some(action) = &stage.action {
        let _ = writeln!(out, "  What to do: {action}");
    }
    let own: Vec<&Change> = recent.iter().filter(|change| change.lifecycle == lifecycle).collect();
    match own.first() {
        Some(change) if change.to == stage.stage => {
            let values: Vec<String> =
                change.features.iter().map(|(name, value)| format!("{name} = {}", shown(*value))).collect();
            let cause = match change.trigger.as_str() {
                "silence" => "because time passed",
                "event" => "at an event",
                other => other,
            };
            let _ = writeln!(out, "  It came from {} {cause}: {}", change.from, change.rule);
            if !values.is_empty() {
                let _ = writeln!(out, "  At that instant {}.", values.join(", "));
            }
        }
        _ => out
            .push_str("  This instance has not seen it enter; the topic of stage changes has the reason.\n"),
    }
    if own.len() > 1 {
        out.push_str("  Before that:\n");
    }
    for change in own.iter().skip(1).take(RECENT_SHOWN) {
        let _ = writeln!(out, "    {}  {} to {}: {}", change.ts, change.from, change.to, change.rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::{Read, Write as _};

    const ANSWER: &str = r#"{"customer_id":"c 1","ts":"2026-01-05T00:00:00.000Z","p_churn":0.81,"band":"high",
        "stages":{"retention":{"stage":"at-risk","since":"2026-01-02T00:00:00.000Z","days":3.0,
            "action":"call them","visits":{"at-risk":2,"loyal":1}}},
        "contributions":[{"feature":"days_since_order","value":45.5,"contribution":1.2},
            {"feature":"intercept","value":1,"contribution":0.4},
            {"feature":"days_since_ticket","value":null,"contribution":-0.15},
            {"feature":"orders_90d","value":0,"contribution":0.0001}],
        "features":{},"traits":{},"model":{"name":"churn","version":"abc"},"sequence":2,
        "last_event_at":"2025-11-20T00:00:00.000Z","evaluated_at":null,
        "next_evaluation_at":"2026-01-06T00:00:00.000Z",
        "recent":[{"lifecycle":"retention","from":"loyal","to":"at-risk","ts":"2026-01-02T00:00:00.000Z",
            "trigger":"silence","rule":"days_since_order > 42","features":{"days_since_order":42.0}},
            {"lifecycle":"retention","from":"reach","to":"loyal","ts":"2025-10-02T00:00:00.000Z",
            "trigger":"event","rule":"orders_90d >= 3","features":{}}]}"#;

    #[test]
    fn the_words_say_why_for_score_and_stage() {
        let said = words(&serde_json::from_str(ANSWER).unwrap());
        for what in [
            "Customer c 1 as of 2026-01-05",
            "0.810, which is high (model churn abc)",
            "starts at 0.599",
            "days_since_order                  45.50   odds times 3.32",
            "days_since_ticket                 never   odds divided by 1.16",
            "at-risk since 2026-01-02T00:00:00.000Z (3.0 days), for the 2. time",
            "What to do: call them",
            "It came from loyal because time passed: days_since_order > 42",
            "At that instant days_since_order = 42.",
            "reach to loyal: orders_90d >= 3",
            "looked at again at 2026-01-06",
        ] {
            assert!(said.contains(what), "{what} is not in:\n{said}");
        }
        assert!(!said.contains("orders_90d    "), "what moves nothing is not listed:\n{said}");
    }

    #[test]
    fn who_refuses_to_be_scored_is_explained_as_well() {
        let mut answer: serde_json::Value = serde_json::from_str(ANSWER).unwrap();
        for (key, value) in [("p_churn", json!(null)), ("band", json!(null)), ("contributions", json!([]))] {
            answer[key] = value;
        }
        let said = words(&serde_json::from_value(answer).unwrap());
        assert!(said.contains("not scored, as this customer refuses it"), "{said}");
        assert!(said.contains("at-risk since") && !said.contains("An average customer"), "{said}");
    }

    /// Answers one request with this and returns what was asked.
    fn answer(status: &'static str, body: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1_024];
            let n = stream.read(&mut asked).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            String::from_utf8_lossy(&asked[..n]).into_owned()
        });
        (base, served)
    }

    fn explain(base: String, customer: &str) -> Result<()> {
        run(&Args { customer: customer.into(), url: Some(base), json: false }, &Config::default())
    }

    #[test]
    fn a_customer_is_asked_for_by_its_encoded_id() {
        let (base, served) = answer("200 OK", ANSWER);
        explain(base, "c 1/ä").unwrap();
        let asked = served.join().unwrap();
        assert!(asked.starts_with("GET /customers/c%201%2F%C3%A4 HTTP/1.1\r\n"), "{asked}");
    }

    #[test]
    fn a_refusal_is_told_with_its_reason() {
        let (base, served) = answer("404 Not Found", r#"{"error":"no such customer here"}"#);
        let error = explain(base, "x").unwrap_err();
        served.join().unwrap();
        assert!(error.what.contains("404: no such customer here"), "{error}");
        assert!(error.hint.unwrap().contains("partition"));
        let error = explain("http://127.0.0.1:1".into(), "x").unwrap_err();
        assert!(error.what.contains("cannot ask http://127.0.0.1:1"), "{error}");
        for wrong in ["https://box", "box:9464x", "ftp://a"] {
            assert_eq!(explain(wrong.into(), "x").unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
