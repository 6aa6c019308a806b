//! Spans by OpenTelemetry, exported over OTLP/HTTP to a collector nearby (plain text; a collector carries them on
//! over TLS). Only for events whose record came with a trace: nothing here begins one.
//!
//! Where to and as whom, the variables of OpenTelemetry say: `OTEL_EXPORTER_OTLP_ENDPOINT`,
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::http::{Request, Response, header};
use hyper_util::rt::TokioIo;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{Span, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::error::{Error, Result};
use crate::event::Source;
use crate::event::trace::{PARENT, STATE, Trace};
use crate::time::Ts;

/// Without one of these spans go nowhere.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// How long a collector may take.
const EXPORT_MAX: Duration = Duration::from_secs(10);

/// Exports until it is dropped; what waits then goes out first.
#[derive(Debug)]
pub struct Exporting(SdkTracerProvider);

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Begins to export, if the environment says where to.
pub fn start() -> Result<Option<Exporting>> {
    if ENDPOINTS.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty())) {
        return Ok(None);
    }
    export(SpanExporter::builder().with_http().with_http_client(Posting)).map(Some)
}

/// Begins to export to this address.
pub fn start_to(endpoint: &str) -> Result<Exporting> {
    export(SpanExporter::builder().with_http().with_http_client(Posting).with_endpoint(endpoint))
}

fn export(
    builder: opentelemetry_otlp::SpanExporterBuilder<opentelemetry_otlp::HttpExporterBuilderSet>,
) -> Result<Exporting> {
    let exporter = builder.build().map_err(|error| {
        Error::user(format!("cannot export spans: {error}")).hint(
            "set OTEL_EXPORTER_OTLP_ENDPOINT to a collector such as http://127.0.0.1:4318, or to nothing",
        )
    })?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(env!("CARGO_PKG_NAME"));
    }
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    global::set_tracer_provider(provider.clone());
    Ok(Exporting(provider))
}

/// The span of an event, and the trace as what it causes carries it on.
pub fn span(trace: Trace, source: Source, partition: i32, from: Ts, to: Ts) -> Trace {
    let propagator = TraceContextPropagator::new();
    let parent = propagator.extract_with_context(&Context::new(), &Carrier(trace.clone()));
    let tracer = global::tracer(env!("CARGO_PKG_NAME"));
    let builder = tracer
        .span_builder(format!("process {}", source.name()))
        .with_kind(SpanKind::Consumer)
        .with_start_time(at(from))
        .with_attributes([
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.partition.id", partition.to_string()),
            KeyValue::new("stagecast.source", source.name()),
        ]);
    let mut span = tracer.build_with_context(builder, &parent);
    span.end_with_timestamp(at(to));
    let context = Context::new().with_remote_span_context(span.span_context().clone());
    let mut carrier = Carrier(trace);
    propagator.inject_context(&context, &mut carrier);
    carrier.0
}

fn at(ts: Ts) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ts.max(0).unsigned_abs())
}

/// A trace as propagators see it.
struct Carrier(Trace);

impl Extractor for Carrier {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            PARENT => Some(self.0.parent()),
            STATE => self.0.state(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT, STATE]
    }
}

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        let changed = match key {
            PARENT => Trace::new(&value, self.0.state()),
            STATE => Trace::new(self.0.parent(), Some(&value)),
            _ => None,
        };
        // What is not well-formed leaves the trace as it came.
        if let Some(changed) = changed {
            self.0 = changed;
        }
    }
}

/// Posts a batch over a connection of its own. The exporter calls it from a thread of its own.
#[derive(Debug)]
struct Posting;

impl Posting {
    async fn post(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let uri = request.uri().clone();
        let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(format!("{uri} is not an http:// address").into());
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = tokio::net::TcpStream::connect((bare, uri.port_u16().unwrap_or(80))).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (mut head, body) = request.into_parts();
        if let Some(authority) = uri.authority() {
            head.headers.insert(header::HOST, authority.as_str().parse()?);
        }
        head.uri = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        let answer = sender.send_request(Request::from_parts(head, axum::body::Body::from(body))).await?;
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(axum::body::Body::new(body), ANSWER_BYTES_MOST).await?;
        Ok(Response::from_parts(head, body))
    }
}

const ANSWER_BYTES_MOST: usize = 1 << 20;

#[async_trait::async_trait]
impl HttpClient for Posting {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(EXPORT_MAX, Posting::post(request)).await })?
    }
}
