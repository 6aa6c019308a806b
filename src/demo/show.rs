//! What the demo tells the terminal: where to look, how it goes, and how it went.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::Control;
use crate::cli::print;
use crate::config::Config;
use crate::error::Result;
use crate::kafka::clients::{BrokerKind, ClientSettings};
use crate::kafka::service::Shared;
use crate::metrics::table;
use crate::time::{Tick, format_rfc3339, sleep};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// On a terminal one line is kept up to date; elsewhere there are lines.
const TERMINAL_EVERY: Duration = Duration::from_millis(500);
const LINE_EVERY: Duration = Duration::from_secs(5);

pub struct Show {
    shared: Arc<Shared>,
    address: SocketAddr,
    brokers: String,
    broker: BrokerKind,
    stage_changes: String,
    others: [String; 2],
    began: Tick,
}

/// What a line about a stage change says.
#[derive(Deserialize)]
struct Change {
    customer_id: String,
    lifecycle: String,
    from: String,
    to: String,
}

impl Show {
    pub fn new(config: &Config, clients: &ClientSettings, address: SocketAddr, shared: Arc<Shared>) -> Show {
        Show {
            shared,
            address,
            brokers: clients.common.get("bootstrap.servers").cloned().unwrap_or_default(),
            broker: clients.broker,
            stage_changes: config.topics.stage_changes.clone(),
            others: [config.topics.churn_scores.clone(), config.topics.churn_alerts.clone()],
            began: Tick::now(),
        }
    }

    /// Where to look, and what this is.
    pub fn banner(&self) -> Result<()> {
        let Show { address, brokers, stage_changes, others: [scores, alerts], .. } = self;
        let what = match self.broker {
            BrokerKind::Embedded => {
                "  This broker is librdkafka's mock, inside the process: it keeps 5 MiB a partition and does not\n  \
                   isolate transactions. Exactly-once holds on real brokers: `demo --brokers HOST:PORT` runs the\n  \
                   same show there.\n\n"
            }
            BrokerKind::Real => {
                "  Every output, state and position goes out in a transaction: exactly once. The topics of this\n  \
                   show stay behind when it ends.\n\n"
            }
        };
        print(&format!(
            "stagecast demo: simulated customers, a year in six minutes\n\n  \
               live page    http://{address}/\n  \
               metrics      http://{address}/metrics\n  \
               key figures  http://{address}/kpis\n  \
               broker       {brokers}\n  \
               outputs      kcat -C -q -o end -b {brokers} -t {stage_changes}\n               \
                            and {scores}, {alerts}\n\n{what}  Ctrl-C ends it.\n\n"
        ))
    }

    /// Tells how it goes until the time is over or the end is asked for.
    pub fn tell(&self, control: &Control, length: Option<Duration>) {
        let line = line();
        let every = if line.is_hidden() { LINE_EVERY } else { TERMINAL_EVERY };
        let mut told = Tick::now();
        let mut first = true;
        while !control.is_ending() && !self.shared.is_stopping() {
            if length.is_some_and(|length| self.began.elapsed() >= length) {
                control.end();
                break;
            }
            if first && self.tell_first(&line) {
                first = false;
            }
            if told.elapsed() >= every {
                self.tell_status(&line, control);
                told = Tick::now();
            }
            sleep(LOOK_EVERY);
        }
        line.finish_and_clear();
    }

    /// The first stage change, once there is one.
    fn tell_first(&self, line: &ProgressBar) -> bool {
        let Some(change) = self.latest() else { return false };
        let seconds = self.began.elapsed().as_secs_f64();
        self.say(line, &format!("  first stage change after {seconds:.1} s: {change}"));
        true
    }

    fn tell_status(&self, line: &ProgressBar, control: &Control) {
        let status = self.status(control);
        if line.is_hidden() {
            self.say(line, &status);
        } else {
            let latest = self.latest().unwrap_or_default();
            line.set_message(format!("{status}\n  {latest}"));
        }
    }

    /// A line above the one that is kept up to date. A reader that has gone away is no reason to stop.
    fn say(&self, line: &ProgressBar, text: &str) {
        line.suspend(|| {
            if let Err(error) = print(&format!("{text}\n")) {
                tracing::debug!(%error, "nobody reads");
            }
        });
    }

    fn status(&self, control: &Control) -> String {
        let metrics = &self.shared.metrics;
        let date = format_rfc3339(control.sent.event_time()).as_str()[..10].to_owned();
        let phase = match (control.sent.is_over(), control.sent.is_live()) {
            (true, _) if !control.is_ending() => "end of simulated time",
            (_, true) => "live",
            (_, false) => "history",
        };
        let mut text = format!("  {date} {phase}");
        if !self.shared.is_stopping() {
            // Writing to a string cannot fail.
            let customers = HumanCount(metrics.total(&table::STATE_CUSTOMERS));
            let _ = write!(text, " · {customers} customers");
        }
        for (family, name) in [
            (&table::EVENTS, "events"),
            (&table::CHURN_SCORE, "scores"),
            (&table::STAGE_CHANGES, "stage changes"),
            (&table::ALERTS, "alerts"),
        ] {
            let _ = write!(text, " · {} {name}", HumanCount(metrics.total(family)));
        }
        text
    }

    fn latest(&self) -> Option<String> {
        let json = self.shared.live.latest_change()?;
        let Change { customer_id, lifecycle, from, to } = serde_json::from_str(&json).ok()?;
        Some(format!("{customer_id} {lifecycle}: {from} → {to}"))
    }

    /// How it went.
    pub fn farewell(&self, control: &Control) -> Result<()> {
        let metrics = &self.shared.metrics;
        let (sent, done) = (control.sent.events(), metrics.events_done());
        let lost = sent.saturating_sub(done);
        print(&format!(
            "{}\n  {} events sent, {} processed, {lost} lost, in {:.1} s\n",
            self.status(control),
            HumanCount(sent),
            HumanCount(done),
            self.began.elapsed().as_secs_f64()
        ))
    }
}

fn line() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
