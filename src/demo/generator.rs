//! The events of the demo: history as fast as it is taken, then the present at its pace. Never far ahead of
//! the service: the mock broker drops the oldest records of a partition that grows too large.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::{Control, Settings};
use crate::config::Config;
use crate::error::Result;
use crate::kafka::clients::ClientSettings;
use crate::kafka::feed::Feeder;
use crate::kafka::service::Shared;
use crate::simulate::{self, Simulation};
use crate::time::{Tick, Ts, sleep, wall_now};

/// Events on their way at most. All of them in one topic are below 2,000 a partition, a tenth of what the mock
/// keeps.
const LEAD_MOST: u64 = 20_000;
/// Between two looks at how far the service has come.
const LOOK_EVERY: u64 = 256;
const PAUSE: Duration = Duration::from_millis(2);

/// How far the generator has come.
#[derive(Debug, Default)]
pub struct Sent {
    events: AtomicU64,
    event_time: AtomicI64,
    live: AtomicBool,
    over: AtomicBool,
}

impl Sent {
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    pub fn event_time(&self) -> Ts {
        self.event_time.load(Ordering::Acquire)
    }

    /// Whether history is over and the present runs.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Sends events until the demo ends or simulated time is used up.
pub fn feed(
    settings: &Settings,
    events: &simulate::Settings,
    config: &Config,
    clients: &ClientSettings,
    shared: &Shared,
    control: &Control,
) -> Result<()> {
    let feeder = Feeder::new(clients, config)?;
    let stop = || control.is_ending() || shared.is_stopping();
    let sent = &control.sent;
    let present = events.start + settings.history_ms;
    let mut began = None;
    for record in Simulation::new(events)? {
        if record.ts >= present {
            let began = *began.get_or_insert_with(Tick::now);
            sent.live.store(true, Ordering::Release);
            while !stop() && record.ts > present + passed(began, settings.speed_ms) {
                sleep(PAUSE);
            }
        }
        while sent.events().is_multiple_of(LOOK_EVERY) && is_far_ahead(sent, shared) && !stop() {
            sleep(PAUSE);
        }
        if stop() {
            break;
        }
        sent.event_time.store(record.ts, Ordering::Release);
        if feeder.send(&record, wall_now())? {
            sent.events.fetch_add(1, Ordering::AcqRel);
        }
    }
    let flushed = feeder.finish();
    sent.over.store(true, Ordering::Release);
    flushed
}

/// Event time since the present began.
fn passed(began: Tick, speed_ms: i64) -> Ts {
    (began.elapsed().as_secs_f64() * speed_ms as f64) as Ts
}

fn is_far_ahead(sent: &Sent, shared: &Shared) -> bool {
    sent.events().saturating_sub(shared.metrics.events_done()) > LEAD_MOST
}
