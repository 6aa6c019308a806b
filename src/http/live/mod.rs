//! What the live page shows as it happens: figures once a second, and the latest stage changes and alerts.
//!
//! Workers hand over what they committed and never wait: [`Live::committed`] keeps a few and drops the rest.
//! Watchers are few, and one that does not keep up is cut off; its browser connects again by itself.

pub mod figures;
mod stream;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Semaphore, broadcast, watch};

use super::Shared;
use crate::pipeline::outbox::Channel;
use crate::time::Tick;
use figures::Figures;

pub use stream::{Refused, watch as subscribe};

/// Watchers at the same time.
pub const WATCHERS_MOST: usize = 32;
/// News that may wait for one watcher; with more it is cut off.
const WAITING_MOST: usize = 256;
/// News of one transaction that are shown; at full speed there are thousands.
const NEWS_PER_COMMIT: usize = 8;
/// Latest changes of each lifecycle, and latest alerts, for a page that is just opened.
const LATEST_MOST: usize = 30;
/// Between two looks at the figures.
const FIGURES_EVERY: Duration = Duration::from_secs(1);

/// One thing that watchers are told: what it is, and JSON.
#[derive(Clone, Debug)]
pub struct News {
    pub what: &'static str,
    pub json: Arc<str>,
}

/// What is going on, for everyone who watches.
#[derive(Debug)]
pub struct Live {
    news: broadcast::Sender<News>,
    latest: Mutex<Latest>,
    slots: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Latest {
    /// By lifecycle, so that a busy one leaves those of a quiet one; with the place in the order of all.
    changes: BTreeMap<String, VecDeque<(u64, Arc<str>)>>,
    told: u64,
    alerts: VecDeque<Arc<str>>,
    figures: Option<Arc<str>>,
}

impl Default for Live {
    fn default() -> Self {
        Live {
            news: broadcast::channel(WAITING_MOST).0,
            latest: Mutex::default(),
            slots: Arc::new(Semaphore::new(WATCHERS_MOST)),
            closing: watch::channel(false).0,
        }
    }
}

impl Live {
    /// What one transaction brought, in order: stage changes and alerts as JSON.
    pub fn committed<'j>(&self, outputs: impl DoubleEndedIterator<Item = (Channel, &'j [u8])>) {
        let mut newest: Vec<_> = outputs.rev().filter_map(news_of).take(NEWS_PER_COMMIT).collect();
        newest.reverse();
        if newest.is_empty() {
            return;
        }
        let mut latest = self.latest();
        for news in newest {
            latest.remember(&news);
            // Fails when nobody watches.
            let _ = self.news.send(news);
        }
    }

    /// The JSON of the latest stage change.
    pub fn latest_change(&self) -> Option<Arc<str>> {
        let latest = self.latest();
        let newest = latest.changes.values().filter_map(VecDeque::back).max_by_key(|(place, _)| *place);
        newest.map(|(_, json)| Arc::clone(json))
    }

    /// From now on every stream ends.
    pub fn close(&self) {
        let _ = self.closing.send(true);
    }

    fn show(&self, figures: Arc<str>) {
        let news = News { what: "figures", json: figures };
        self.latest().remember(&news);
        let _ = self.news.send(news);
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn news_of((channel, json): (Channel, &[u8])) -> Option<News> {
    let what = match channel {
        Channel::StageChanges => "change",
        Channel::ChurnAlerts => "alert",
        _ => return None,
    };
    Some(News { what, json: std::str::from_utf8(json).ok()?.trim_end().into() })
}

impl Latest {
    fn remember(&mut self, news: &News) {
        let json = Arc::clone(&news.json);
        match news.what {
            "change" => {
                self.told += 1;
                let list = self.changes.entry(lifecycle_of(&json)).or_default();
                push_within(list, (self.told, json));
            }
            "alert" => push_within(&mut self.alerts, json),
            _ => self.figures = Some(json),
        }
    }

    /// Everything a new watcher should know, the oldest first.
    fn all(&self) -> Vec<News> {
        let figures = self.figures.iter().map(|json| ("figures", json));
        let alerts = self.alerts.iter().map(|json| ("alert", json));
        let mut changes: Vec<_> = self.changes.values().flatten().collect();
        changes.sort_unstable_by_key(|(place, _)| *place);
        figures
            .chain(alerts)
            .chain(changes.into_iter().map(|(_, json)| ("change", json)))
            .map(|(what, json)| News { what, json: Arc::clone(json) })
            .collect()
    }
}

fn push_within<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == LATEST_MOST {
        list.pop_front();
    }
    list.push_back(item);
}

fn lifecycle_of(change: &str) -> String {
    #[derive(Deserialize)]
    struct Change<'a> {
        #[serde(borrow)]
        lifecycle: Cow<'a, str>,
    }
    serde_json::from_str(change).map(|change: Change<'_>| change.lifecycle.into_owned()).unwrap_or_default()
}

/// Looks at the figures once a second until the process ends.
pub async fn keep_figures(shared: Arc<Shared>) {
    let mut figures = Figures::default();
    let mut beat = tokio::time::interval(FIGURES_EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let ready = shared.health.missing().is_empty();
        let seen =
            figures.look(&shared.metrics.gather(), &shared.metrics.kpis(), &shared.plan, ready, Tick::now());
        match serde_json::to_string(&seen) {
            Ok(json) => shared.live.show(json.into()),
            Err(error) => tracing::error!(%error, "the page's figures could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_lifecycle_leaves_what_is_known_of_a_quiet_one() {
        let live = Live::default();
        let tell = |lifecycle: &str, n: usize| {
            let json = format!("{{\"lifecycle\":\"{lifecycle}\",\"n\":{n}}}\n");
            live.committed([(Channel::StageChanges, json.as_bytes())].into_iter());
        };
        tell("quiet", 0);
        (0..100).for_each(|n| tell("busy", n));
        assert_eq!(live.latest_change().as_deref(), Some("{\"lifecycle\":\"busy\",\"n\":99}"));
        tell("quiet", 1);
        assert_eq!(live.latest_change().as_deref(), Some("{\"lifecycle\":\"quiet\",\"n\":1}"));
        let told: Vec<_> = live.latest().all().iter().map(|news| news.json.to_string()).collect();
        assert_eq!(told.len(), LATEST_MOST + 2);
        assert!(told[0].contains("quiet") && told[1].contains("\"n\":70") && told[31].contains("quiet"));
    }

    #[test]
    fn a_new_watcher_is_told_the_latest_and_no_more() {
        let live = Live::default();
        for n in 0..100 {
            let json = format!("{{\"n\":{n}}}\n");
            live.committed(
                [(Channel::StageChanges, json.as_bytes()), (Channel::ChurnScores, b"{}")].into_iter(),
            );
        }
        live.committed([(Channel::ChurnAlerts, &b"{\"a\":1}"[..])].into_iter());
        live.show("{}".into());
        let all = live.latest().all();
        assert_eq!(all.len(), LATEST_MOST + 2);
        assert_eq!((all[0].what, all[1].what), ("figures", "alert"));
        assert_eq!(&*all.last().unwrap().json, "{\"n\":99}");
    }

    #[test]
    fn a_large_transaction_shows_only_its_newest() {
        let live = Live::default();
        let jsons: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        live.committed(jsons.iter().map(|json| (Channel::StageChanges, json.as_bytes())));
        let shown: Vec<_> = live.latest().all().iter().map(|news| news.json.to_string()).collect();
        assert_eq!(shown, ["42", "43", "44", "45", "46", "47", "48", "49"]);
    }
}
