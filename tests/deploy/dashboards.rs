//! The Grafana dashboards, as data: what each panel asks, from the program's own metric table.

use serde_json::{Value, json};
use stagecast::metrics::table as m;
use stagecast::metrics::table::Family;

/// One panel: a title, how it is drawn, in which unit, how wide (of 24), and what it asks, with legends.
struct Panel {
    title: &'static str,
    kind: &'static str,
    unit: &'static str,
    width: u32,
    asks: Vec<(String, &'static str)>,
}

fn panel(
    title: &'static str,
    kind: &'static str,
    unit: &'static str,
    width: u32,
    asks: Vec<(String, &'static str)>,
) -> Panel {
    Panel { title, kind, unit, width, asks }
}

const OURS: &str = r#"job=~"$job""#;

fn per_second(family: &Family, by: &str) -> String {
    format!("sum by ({by}) (rate({}{{{OURS}}}[$__rate_interval]))", family.name)
}

fn quantile(q: f64, family: &Family) -> String {
    format!("histogram_quantile({q}, sum by (le) (rate({}_bucket{{{OURS}}}[$__rate_interval])))", family.name)
}

fn percentiles(family: &Family) -> Vec<(String, &'static str)> {
    vec![(quantile(0.5, family), "p50"), (quantile(0.95, family), "p95"), (quantile(0.99, family), "p99")]
}

fn sum(family: &Family, by: &str) -> String {
    format!("sum by ({by}) ({}{{{OURS}}})", family.name)
}

fn largest(family: &Family, by: &str) -> String {
    format!("max by ({by}) ({}{{{OURS}}})", family.name)
}

/// A metric that the table does not have yet.
fn promised(name: &str, by: &str) -> String {
    format!("max by ({by}) ({name}{{{OURS}}})")
}

pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("operations.json", dashboard("stagecast-operations", "stagecast: operations", operations())),
        ("lifecycle.json", dashboard("stagecast-lifecycle", "stagecast: lifecycle and churn", lifecycle())),
        ("model.json", dashboard("stagecast-model", "stagecast: model", model())),
    ]
}

fn operations() -> Vec<Panel> {
    let slow = format!(
        "1 - sum(rate({0}_bucket{{{OURS}, le=\"1\"}}[$__rate_interval])) / sum(rate({0}_count{{{OURS}}}[$__rate_interval]))",
        m::END_TO_END.name
    );
    vec![
        panel(
            "Events",
            "timeseries",
            "ops",
            8,
            vec![(per_second(&m::EVENTS, "source, result"), "{{source}} {{result}}")],
        ),
        panel("End-to-end latency", "timeseries", "s", 8, percentiles(&m::END_TO_END)),
        panel("Slower than the objective of 1 s", "timeseries", "percentunit", 8, vec![(slow, "share")]),
        panel("Scoring", "timeseries", "s", 8, percentiles(&m::SCORING)),
        panel(
            "Transactions",
            "timeseries",
            "ops",
            8,
            vec![(per_second(&m::TRANSACTIONS, "outcome"), "{{outcome}}")],
        ),
        panel("Transaction duration", "timeseries", "s", 8, percentiles(&m::TRANSACTION_DURATION)),
        panel("Records behind", "timeseries", "short", 8, vec![(sum(&m::LAG, "topic"), "{{topic}}")]),
        panel(
            "Event time behind the wall",
            "timeseries",
            "s",
            8,
            vec![(largest(&m::EVENT_TIME_LAG, "topic"), "{{topic}}")],
        ),
        panel(
            "Dead letters",
            "timeseries",
            "ops",
            8,
            vec![(per_second(&m::DEAD_LETTERS, "source, reason"), "{{source}} {{reason}}")],
        ),
        panel(
            "Customers in memory",
            "timeseries",
            "short",
            8,
            vec![(sum(&m::STATE_CUSTOMERS, "instance"), "{{instance}}")],
        ),
        panel(
            "State in memory",
            "timeseries",
            "bytes",
            8,
            vec![(sum(&m::STATE_BYTES, "instance"), "{{instance}}")],
        ),
        panel("Restores", "timeseries", "s", 8, vec![(quantile(0.95, &m::RESTORE_DURATION), "p95")]),
        panel(
            "Records restored",
            "timeseries",
            "ops",
            8,
            vec![(per_second(&m::RESTORE_RECORDS, "instance"), "{{instance}}")],
        ),
        panel(
            "Local checkpoints",
            "timeseries",
            "ops",
            8,
            vec![(per_second(&m::CHECKPOINTS, "outcome"), "{{outcome}}")],
        ),
        panel(
            "Partitions read along",
            "timeseries",
            "short",
            8,
            vec![(sum(&m::STANDBY_PARTITIONS, "instance"), "{{instance}}")],
        ),
        panel(
            "State read along",
            "timeseries",
            "bytes",
            8,
            vec![(sum(&m::STANDBY_BYTES, "instance"), "{{instance}}")],
        ),
        panel("Running", "table", "short", 24, vec![(sum(&m::BUILD_INFO, "instance, version"), "")]),
    ]
}

fn lifecycle() -> Vec<Panel> {
    let kpi = |family| vec![(largest(family, "lifecycle"), "{{lifecycle}}")];
    let segment = |family| vec![(largest(family, "lifecycle, segment"), "{{lifecycle}}: {{segment}}")];
    vec![
        panel(
            "Customers per stage",
            "timeseries",
            "short",
            12,
            vec![(sum(&m::CUSTOMERS, "lifecycle, stage"), "{{lifecycle}}: {{stage}}")],
        ),
        panel(
            "Stage changes",
            "timeseries",
            "ops",
            12,
            vec![(per_second(&m::STAGE_CHANGES, "lifecycle, from, to"), "{{lifecycle}}: {{from}} to {{to}}")],
        ),
        panel("Retention rate, 30 days", "timeseries", "percentunit", 8, kpi(&m::RETENTION_RATIO)),
        panel("Churn rate, 30 days", "timeseries", "percentunit", 8, kpi(&m::CHURN_RATIO)),
        panel("Win-back rate, 30 days", "timeseries", "percentunit", 8, kpi(&m::WIN_BACK_RATIO)),
        panel(
            "Conversion, 30 days",
            "timeseries",
            "percentunit",
            12,
            vec![(largest(&m::CONVERSION_RATIO, "lifecycle, from, to"), "{{lifecycle}}: {{from}} to {{to}}")],
        ),
        panel(
            "Median time in a stage",
            "timeseries",
            "s",
            12,
            vec![(largest(&m::STAGE_DURATION_MEDIAN, "lifecycle, stage"), "{{lifecycle}}: {{stage}}")],
        ),
        panel(
            "What the customers of a stage have brought in",
            "timeseries",
            "short",
            12,
            vec![(sum(&m::CLV_TO_DATE, "lifecycle, stage"), "{{lifecycle}}: {{stage}}")],
        ),
        panel(
            "Customers per segment and stage",
            "timeseries",
            "short",
            12,
            vec![(
                sum(&m::SEGMENT_CUSTOMERS, "lifecycle, segment, stage"),
                "{{lifecycle}}: {{segment}} {{stage}}",
            )],
        ),
        panel(
            "What the customers of a segment have brought in",
            "timeseries",
            "short",
            12,
            vec![(
                sum(&m::SEGMENT_CLV_TO_DATE, "lifecycle, segment, stage"),
                "{{lifecycle}}: {{segment}} {{stage}}",
            )],
        ),
        panel(
            "Retention rate by segment, 30 days",
            "timeseries",
            "percentunit",
            8,
            segment(&m::SEGMENT_RETENTION_RATIO),
        ),
        panel(
            "Churn rate by segment, 30 days",
            "timeseries",
            "percentunit",
            8,
            segment(&m::SEGMENT_CHURN_RATIO),
        ),
        panel(
            "Win-back rate by segment, 30 days",
            "timeseries",
            "percentunit",
            8,
            segment(&m::SEGMENT_WIN_BACK_RATIO),
        ),
        panel(
            "Conversion by segment, 30 days",
            "timeseries",
            "percentunit",
            12,
            vec![(
                largest(&m::SEGMENT_CONVERSION_RATIO, "lifecycle, segment, from, to"),
                "{{lifecycle}}: {{segment}} {{from}} to {{to}}",
            )],
        ),
        panel(
            "Median time in a stage by segment",
            "timeseries",
            "s",
            12,
            vec![(
                largest(&m::SEGMENT_STAGE_DURATION_MEDIAN, "lifecycle, segment, stage"),
                "{{lifecycle}}: {{segment}} {{stage}}",
            )],
        ),
        panel(
            "Alerts",
            "timeseries",
            "ops",
            12,
            vec![(per_second(&m::ALERTS, "policy, group"), "{{policy}} {{group}}")],
        ),
        panel("Churn scores", "timeseries", "percentunit", 12, percentiles(&m::CHURN_SCORE)),
    ]
}

fn model() -> Vec<Panel> {
    vec![
        panel(
            "Model in use",
            "table",
            "short",
            8,
            vec![(sum(&m::MODEL_INFO, "instance, name, version"), "")],
        ),
        panel(
            "Reloads",
            "timeseries",
            "short",
            8,
            vec![(promised("stagecast_model_reloads_total", "result"), "{{result}}")],
        ),
        panel(
            "Outcomes known",
            "timeseries",
            "short",
            8,
            vec![(promised("stagecast_live_labels_total", "job"), "{{job}}")],
        ),
        panel("Live AUC", "timeseries", "short", 8, vec![(promised("stagecast_live_auc", "job"), "{{job}}")]),
        panel(
            "Live Brier score",
            "timeseries",
            "short",
            8,
            vec![(promised("stagecast_live_brier", "job"), "{{job}}")],
        ),
        panel(
            "Live AUC by model",
            "timeseries",
            "short",
            8,
            vec![(promised("stagecast_live_version_auc", "name, version"), "{{name}} {{version}}")],
        ),
        panel(
            "Live Brier score by model",
            "timeseries",
            "short",
            8,
            vec![(largest(&m::LIVE_VERSION_BRIER, "name, version"), "{{name}} {{version}}")],
        ),
        panel(
            "Challenger",
            "table",
            "short",
            8,
            vec![(sum(&m::CHALLENGER_INFO, "instance, name, version"), "")],
        ),
        panel(
            "Challenger's score less the champion's",
            "heatmap",
            "short",
            8,
            vec![(
                format!(
                    "sum by (le) (increase({}_bucket{{{OURS}}}[$__rate_interval]))",
                    m::CHALLENGER_DIFFERENCE.name
                ),
                "{{le}}",
            )],
        ),
        panel(
            "Live AUC by stage",
            "timeseries",
            "short",
            8,
            vec![(promised("stagecast_live_stage_auc", "stage"), "{{stage}}")],
        ),
        panel(
            "Live log loss and calibration error",
            "timeseries",
            "short",
            8,
            vec![
                (promised("stagecast_live_log_loss", "job"), "log loss"),
                (promised("stagecast_live_calibration_error", "job"), "calibration error"),
            ],
        ),
        panel(
            "Live lift of the highest tenth",
            "timeseries",
            "short",
            8,
            vec![(promised("stagecast_live_lift_10", "job"), "{{job}}")],
        ),
        panel(
            "Drift of features and score (PSI)",
            "timeseries",
            "short",
            8,
            vec![
                (largest(&m::FEATURE_DRIFT, "feature"), "{{feature}}"),
                (largest(&m::SCORE_DRIFT, "job"), "the score"),
            ],
        ),
        panel(
            "Scores computed",
            "heatmap",
            "short",
            24,
            vec![(
                format!("sum by (le) (increase({}_bucket{{{OURS}}}[$__rate_interval]))", m::CHURN_SCORE.name),
                "{{le}}",
            )],
        ),
    ]
}

/// The queries of a finished dashboard.
pub fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

fn dashboard(uid: &str, title: &str, panels: Vec<Panel>) -> Value {
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let (mut x, mut y, height) = (0, 0, 8);
    let mut made = Vec::new();
    for (id, panel) in panels.into_iter().enumerate() {
        if x + panel.width > 24 {
            (x, y) = (0, y + height);
        }
        made.push(draw(&panel, id as u64 + 1, (x, y, height), &source));
        x += panel.width;
    }
    let job = json!({
        "name": "job", "label": "Job", "type": "query", "datasource": source, "refresh": 2,
        "query": format!("label_values({}, job)", m::BUILD_INFO.name),
        "definition": format!("label_values({}, job)", m::BUILD_INFO.name),
        "multi": true, "includeAll": true, "current": { "text": "All", "value": "$__all" },
    });
    json!({
        "uid": uid, "title": title, "tags": ["stagecast"], "schemaVersion": 39, "version": 1,
        "editable": true, "graphTooltip": 1, "refresh": "10s", "time": { "from": "now-30m", "to": "now" },
        "links": [{ "type": "dashboards", "tags": ["stagecast"], "title": "stagecast", "asDropdown": true }],
        "templating": { "list": [
            { "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {} },
            job,
        ] },
        "panels": made,
    })
}

fn draw(panel: &Panel, id: u64, (x, y, height): (u32, u32, u32), source: &Value) -> Value {
    let table = panel.kind == "table";
    let target = |(n, (ask, legend)): (usize, &(String, &str))| {
        json!({
            "refId": char::from(b'A' + n as u8).to_string(), "datasource": source, "expr": ask,
            "legendFormat": legend, "instant": table, "range": !table,
            "format": if table { "table" } else if panel.kind == "heatmap" { "heatmap" } else { "time_series" },
        })
    };
    let targets: Vec<Value> = panel.asks.iter().enumerate().map(target).collect();
    json!({
        "id": id, "type": panel.kind, "title": panel.title, "datasource": source,
        "gridPos": { "x": x, "y": y, "w": panel.width, "h": height },
        "fieldConfig": { "defaults": { "unit": panel.unit }, "overrides": [] },
        "targets": targets,
    })
}
