//! The effective configuration as TOML: every key, secrets masked, and valid input again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::time::format_span;

use super::mask;
use super::types::{AlertPolicy, Clock, Config, SourceConfig, Sources, TraitScalar};

impl Config {
    /// What `stagecast check --print` shows.
    pub fn to_toml(&self) -> String {
        let mut out = Page::default();
        self.print_kafka_side(&mut out);
        self.print_rules_side(&mut out);
        for alert in &self.alert {
            print_alert(&mut out, alert);
        }
        out.section("money");
        out.text("base", &self.money.base);
        out.key("margin", self.money.margin);
        out.section("money.rates");
        for (code, rate) in &self.money.rates {
            out.key(code, *rate);
        }
        out.section("privacy");
        out.span("opt_out", self.privacy.opt_out_ms);
        out.text("salt", &mask::masked("salt", self.privacy.salt.as_deref().unwrap_or_default()));
        out.text("consent", &self.privacy.consent);
        out.section("identity");
        out.span("follow", self.identity.follow_ms);
        out.key("traits", self.identity.traits.clone());
        out.section("state");
        out.path("checkpoint_dir", &self.state.checkpoint_dir);
        out.duration("checkpoint_every", self.state.checkpoint_every);
        out.key("standby", self.state.standby);
        out.section("http");
        out.text("listen", &self.http.listen.to_string());
        out.text("token", &mask::masked("token", self.http.token.as_deref().unwrap_or_default()));
        out.0
    }

    fn print_kafka_side(&self, out: &mut Page) {
        out.section("app");
        out.text("id", &self.app.id);
        out.text("instance", &self.app.instance);
        out.key("workers", self.app.workers as i64);
        let kafka = &self.kafka;
        for (name, properties) in [
            ("kafka", &kafka.common),
            ("kafka.consumer", &kafka.consumer),
            ("kafka.producer", &kafka.producer),
        ] {
            out.section(name);
            for (key, value) in properties {
                out.text(key, &mask::masked(key, value));
            }
        }
        let Sources { clickstream, purchase, support, profile } = &self.source;
        print_source(out, "clickstream", clickstream);
        print_source(out, "purchase", purchase);
        print_source(out, "support", support);
        print_source(out, "profile", profile);
        let topics = &self.topics;
        out.section("topics");
        out.text("stage_changes", &topics.stage_changes);
        out.text("churn_scores", &topics.churn_scores);
        out.text("churn_alerts", &topics.churn_alerts);
        out.text("churn_outcomes", &topics.churn_outcomes);
        out.text("erasures", &topics.erasures);
        out.text("dlq", &topics.dlq);
        out.text("state", &topics.state);
        out.text("identity", &topics.identity);
        out.key("partitions", i64::from(topics.partitions));
        out.key("replication", i64::from(topics.replication));
        out.section("commit");
        out.duration("interval", self.commit.interval);
        out.duration("catch_up", self.commit.catch_up);
        out.key("max_records", self.commit.max_records as i64);
        out.key("max_bytes", self.commit.max_bytes as i64);
    }

    fn print_rules_side(&self, out: &mut Page) {
        out.section("time");
        let clock = match self.time.clock {
            Clock::Wall => "wall",
            Clock::Events => "events",
        };
        out.text("clock", clock);
        out.span("grace", self.time.grace_ms);
        out.span("max_future", self.time.max_future_ms);
        out.section("features");
        out.path("file", &self.features.file);
        out.span("dedupe", self.features.dedupe_ms);
        out.section("lifecycles");
        out.key("use", self.lifecycles.use_.clone());
        out.section("model");
        out.path("path", &self.model.path);
        out.path("challenger", &self.model.challenger);
        out.section("scores");
        out.key("min_change", self.scores.min_change);
        out.span("rescore_every", self.scores.rescore_every_ms);
        out.key("bands", self.scores.bands.to_vec());
        out.section("outcomes");
        out.key("sample", self.outcomes.sample);
        out.span("every", self.outcomes.every_ms);
        if self.alert.is_empty() {
            // Above the first table of the list there would be no place for it; a dotted key needs none.
            out.0.insert_str(0, "alert = []\n\n");
        }
    }
}

fn print_source(out: &mut Page, name: &str, source: &SourceConfig) {
    out.section(&format!("source.{name}"));
    out.key("enabled", source.enabled);
    out.text("topic", &source.topic);
    out.text("format", source.format.name());
    out.text("data", source.data.name());
    out.section(&format!("source.{name}.fields"));
    for (field, pointer) in &source.fields {
        out.text(field, pointer);
    }
    out.section(&format!("source.{name}.types"));
    for (foreign, native) in &source.types {
        out.text(foreign, native);
    }
}

/// A policy about a stage has no thresholds; one about a score has no stage.
fn print_alert(out: &mut Page, alert: &AlertPolicy) {
    out.heading("[[alert]]");
    out.text("policy", &alert.policy);
    for (key, value) in [("lifecycle", &alert.lifecycle), ("stage", &alert.stage), ("action", &alert.action)]
    {
        if let Some(text) = value {
            out.text(key, text);
        }
    }
    if alert.stage.is_none() {
        out.key("raise", alert.raise);
        out.key("clear", alert.clear);
    }
    out.span("cooldown", alert.cooldown_ms);
    out.key("control", alert.control);
    if let Some(least) = alert.min_clv {
        out.key("min_clv", least);
    }
    out.heading("[alert.segment]");
    print_traits(out, &alert.segment);
}

fn print_traits(out: &mut Page, traits: &BTreeMap<String, TraitScalar>) {
    for (name, value) in traits {
        match value {
            TraitScalar::Text(text) => out.text(name, &mask::masked(name, text)),
            TraitScalar::Number(number) => out.key(name, *number),
            TraitScalar::Flag(flag) => out.key(name, *flag),
        }
    }
}

/// TOML while it is being written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn section(&mut self, name: &str) {
        self.heading(&format!("[{name}]"));
    }

    fn heading(&mut self, line: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn key(&mut self, key: &str, value: impl Into<toml::Value>) {
        let line = toml::Table::from_iter([(key.to_string(), value.into())]);
        self.0.push_str(&line.to_string());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, value);
    }

    fn span(&mut self, key: &str, ms: i64) {
        self.key(key, format_span(ms));
    }

    fn duration(&mut self, key: &str, span: Duration) {
        self.span(key, i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
    }

    /// Empty text stands for what ships with the program, or for nothing.
    fn path(&mut self, key: &str, path: &Option<PathBuf>) {
        self.key(key, path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default());
    }
}
