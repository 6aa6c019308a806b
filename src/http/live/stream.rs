//! News as Server-Sent Events: one watcher's stream, which ends when it falls behind or the service stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use super::{Live, News};

/// A comment so often, so that a connection that nobody reads is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// There are as many watchers as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

struct Watcher {
    news: broadcast::Receiver<News>,
    closing: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
}

/// What is known now, and then everything as it happens.
pub fn watch(live: &Live) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Refused> {
    let slot = Arc::clone(&live.slots).try_acquire_owned().map_err(|_| Refused)?;
    // Both under the lock that the workers take: nothing is told twice or not at all.
    let latest = live.latest();
    let watcher = Watcher { news: live.news.subscribe(), closing: live.closing.subscribe(), _slot: slot };
    let known = stream::iter(latest.all());
    drop(latest);
    let events = known.chain(stream::unfold(watcher, next)).map(|news| Ok(event(&news)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// `None` ends the stream: the service stops, or so much was missed that the watcher had better begin anew.
async fn next(mut watcher: Watcher) -> Option<(News, Watcher)> {
    let news = tokio::select! {
        news = watcher.news.recv() => news.ok()?,
        _ = watcher.closing.wait_for(|closing| *closing) => return None,
    };
    Some((news, watcher))
}

fn event(news: &News) -> Event {
    Event::default().event(news.what).data(&*news.json)
}
