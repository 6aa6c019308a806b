//! `stagecast demo`: simulated customers, a broker, the service and its live page, in one process.
//!
//! Everything but the broker is what `run` uses: the same engine, the same Kafka shell. The broker is
//! librdkafka's mock unless real ones are named. [`generator`] makes the events, [`show`] tells the terminal,
//! and this file sees to it that all begin and end together and that no event was lost on the way.

pub mod generator;
pub mod show;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::{Clock, Config};
use crate::error::{Error, Result};
use crate::kafka::clients::{BrokerKind, ClientSettings};
use crate::kafka::embedded::EmbeddedKafka;
use crate::kafka::service::{Request, Service, Shared};
use crate::kafka::topics;
use crate::setup;
use crate::simulate;
use crate::time::{Tick, sleep, wall_now};

use generator::Sent;
use show::Show;

/// The mock drops what is older than 5 MiB a partition, so there are many.
const PARTITIONS: u32 = 16;
/// Simulated time there is; whoever watches for an hour has seen all of it.
pub const DAYS: u32 = 3_650;
/// A shop that opens with few customers and grows: nearly all arrive later.
const EARLY: f64 = 0.02;
/// For the service to work off what is on its way once the events have ended.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to show.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `None`: the broker in this process.
    pub brokers: Option<String>,
    pub customers: u64,
    pub seed: u64,
    /// Event time that passes in a second.
    pub speed_ms: i64,
    /// Event time that is there when the show begins, fed as fast as it is taken.
    pub history_ms: i64,
    /// `None`: until told to stop.
    pub length: Option<Duration>,
}

/// What the threads of the demo tell each other.
#[derive(Debug, Default)]
pub struct Control {
    ending: AtomicBool,
    pub sent: Sent,
}

impl Control {
    /// Asks for a clean end: no more events, and what is on its way is worked off.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }
}

/// Runs the demo until its time is over, a signal, or an error.
pub fn run(settings: &Settings, config: &Config) -> Result<()> {
    let config = configure(settings, config);
    let layout = setup::topics(&config);
    let mut clients = setup::clients(&config);
    // Declared before the service, so dropped after it: consumers must be gone before their broker.
    let embedded = match settings.brokers {
        Some(_) => {
            topics::create(&clients, &layout, true, &mut std::io::sink())?;
            None
        }
        None => {
            let kafka = EmbeddedKafka::start(layout.topics().iter().map(|(t, _)| *t), layout.partitions)?;
            clients.common.insert("bootstrap.servers".to_owned(), kafka.bootstrap().to_owned());
            clients.broker = BrokerKind::Embedded;
            Some(kafka)
        }
    };
    let service =
        Service::prepare(&config, setup::plan(&config, None)?, Request::default(), clients.clone())?;
    let show = Show::new(&config, &clients, service.address()?, service.shared());
    show.banner()?;
    let outcome = play(settings, &config, &clients, service, &show);
    drop(embedded);
    outcome
}

/// The configuration of the show: the user's own catalogue, lifecycles, model and policies, with names, topics
/// and time that suit simulated customers.
fn configure(settings: &Settings, config: &Config) -> Config {
    let mut config = config.clone();
    config.time.clock = Clock::Events;
    // With events in all partitions all the time, there is always a little to catch up with.
    config.commit.catch_up = config.commit.interval;
    config.topics.partitions = PARTITIONS;
    for section in [
        &mut config.source.clickstream,
        &mut config.source.purchase,
        &mut config.source.support,
        &mut config.source.profile,
    ] {
        section.enabled = true;
    }
    config.app.instance = "demo".to_owned();
    match &settings.brokers {
        None => config.app.id = "stagecast-demo".to_owned(),
        // The same customers come again with every show, so each has topics of its own.
        Some(brokers) => {
            config.app.id = format!("stagecast-demo-{}", wall_now() / 1_000);
            config.kafka.common.insert("bootstrap.servers".to_owned(), brokers.clone());
            rename_topics(&mut config);
        }
    }
    config
}

fn rename_topics(config: &mut Config) {
    let app = config.app.id.clone();
    let topics = &mut config.topics;
    let named = [
        (&mut config.source.clickstream.topic, "clickstream"),
        (&mut config.source.purchase.topic, "purchase"),
        (&mut config.source.support.topic, "support"),
        (&mut config.source.profile.topic, "profile"),
        (&mut topics.stage_changes, "stage-changes"),
        (&mut topics.churn_scores, "churn-scores"),
        (&mut topics.churn_alerts, "churn-alerts"),
        (&mut topics.churn_outcomes, "churn-outcomes"),
        (&mut topics.erasures, "erasures"),
        (&mut topics.dlq, "dlq"),
        (&mut topics.state, "state"),
        (&mut topics.identity, "identity"),
    ];
    for (topic, name) in named {
        *topic = format!("{app}-{name}");
    }
}

fn play(
    settings: &Settings,
    config: &Config,
    clients: &ClientSettings,
    service: Service,
    show: &Show,
) -> Result<()> {
    let control = Arc::new(Control::default());
    let shared = service.shared();
    let events = simulate::Settings {
        customers: settings.customers,
        days: DAYS,
        seed: settings.seed,
        early: EARLY,
        ..simulate::Settings::default()
    };
    let (fed, ran) = std::thread::scope(|scope| {
        let generator = scope.spawn(|| {
            let fed = generator::feed(settings, &events, config, clients, &shared, &control);
            if fed.is_err() {
                shared.stop();
            }
            fed
        });
        scope.spawn(|| {
            show.tell(&control, settings.length);
            drain(&control, &shared);
            shared.stop();
        });
        let asked = Arc::clone(&control);
        let ran = service.run(move || asked.end());
        control.end();
        let fed = generator.join().unwrap_or_else(|_| Err(Error::world("the generator of events panicked")));
        (fed, ran)
    });
    ran.and(fed)?;
    show.farewell(&control)?;
    check_for_losses(&control, &shared)
}

/// Waits until everything that was sent is done.
fn drain(control: &Control, shared: &Shared) {
    let began = Tick::now();
    while !shared.is_stopping() && began.elapsed() < DRAIN_WITHIN {
        if control.sent.is_over() && shared.metrics.events_done() >= control.sent.events() {
            return;
        }
        sleep(LOOK_EVERY);
    }
}

/// Every event that was sent must have been committed: scored, or told why not.
fn check_for_losses(control: &Control, shared: &Shared) -> Result<()> {
    let (sent, done) = (control.sent.events(), shared.metrics.events_done());
    if sent == done {
        return Ok(());
    }
    let what = format!("{sent} events were sent and {done} were processed");
    Err(Error::world(what)
        .hint("the machine may be too slow for this --speed; try a lower one, such as --speed 6h"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    /// A show on brokers of one's own must neither read nor write what a service there has.
    #[test]
    fn a_show_shares_no_topic_with_who_owns_the_brokers() {
        let own = Config::from_layers(&Layers::default()).unwrap();
        let settings = Settings {
            brokers: Some("box:9092".to_owned()),
            customers: 1,
            seed: 1,
            speed_ms: 1,
            history_ms: 1,
            length: None,
        };
        let show = configure(&settings, &own);
        let (shown, owned) = (setup::topics(&show), setup::topics(&own));
        for (topic, _) in shown.topics() {
            assert!(topic.starts_with(&show.app.id), "{topic}");
            assert!(owned.topics().iter().all(|(other, _)| topic != *other), "{topic}");
        }
        assert!(shown.topics().len() > 8);
    }
}
