//! The service: checks the ground, starts the workers and the HTTP server, and sees to it that all stop.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::TopicPartitionList;

use super::checkpoint::Checkpoints;
use super::clients::ClientSettings;
use super::ending::Ending;
use super::faults::Faults;
use super::standby::Standby;
use super::task::{Input, Reading, Timing};
use super::watermarks::watermarks;
use super::worker::work;
use crate::config::{self, Commit, Config};
use crate::error::{Error, Result};
use crate::event::Source;
use crate::http::{self, Health, Live, Queries};
use crate::metrics::Metrics;
use crate::pipeline::plan::Plan;
use crate::reload::Models;
use crate::setup;
use crate::signals;
use crate::time::{Tick, Ts, wall_now};

/// What the workers share.
pub struct Shared {
    pub clients: ClientSettings,
    pub models: Arc<Models>,
    pub inputs: Arc<[Input]>,
    pub topics: config::Topics,
    pub commit: Commit,
    pub timing: Timing,
    /// Of every input and of the state topic.
    pub partitions: i32,
    pub ce_source: String,
    pub until_end: bool,
    pub until: Option<Ts>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub live: Arc<Live>,
    pub faults: Faults,
    pub checkpoints: Option<Arc<Checkpoints>>,
    pub standby: Option<Standby>,
    /// Of `--until-end`.
    pub ending: Ending,
    stopping: AtomicBool,
}

/// What `run` was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    pub until_end: bool,
    pub until: Option<Ts>,
}

/// Runs the service until a signal, an error, or the end of what `--until-end` asks for.
pub fn run(config: &Config, plan: Plan, request: Request) -> Result<()> {
    let service = Service::prepare(config, plan, request, setup::clients(config))?;
    let shared = service.shared();
    service.run(move || shared.stop())
}

/// A service whose ground is checked: its topics are there, and its address is taken.
pub struct Service {
    shared: Arc<Shared>,
    http: Arc<http::Shared>,
    receivers: Vec<std::sync::mpsc::Receiver<http::Query>>,
    runtime: tokio::runtime::Runtime,
    listener: tokio::net::TcpListener,
}

impl Service {
    pub fn prepare(
        config: &Config,
        plan: Plan,
        request: Request,
        clients: ClientSettings,
    ) -> Result<Service> {
        let partitions = clients.broker.require_topics(&clients, &setup::topics(config))?;
        let workers = worker_count(config, partitions);
        let (runtime, listener) = listen(config)?;
        let (queries, receivers) = Queries::new(workers);
        let plan = Arc::new(plan);
        let metrics = Metrics::new(&plan)?;
        let transaction = Duration::from_millis(clients.transaction_timeout_ms()?);
        let models = Arc::new(Models::new(config, Arc::clone(&plan), Arc::clone(&metrics))?);
        let token = config.http.token.as_deref();
        let http = Arc::new(http::Shared {
            metrics,
            plan,
            health: Arc::new(Health::new(workers, Tick::now(), transaction)),
            queries,
            live: Arc::default(),
            reloading: token.map(|token| http::reload::Reloading::new(token, Arc::clone(&models))),
        });
        let shared = Arc::new(Shared::new(config, request, clients, models, partitions, &http)?);
        tracing::info!(workers, partitions, address = %config.http.listen, "starting");
        Ok(Service { shared, http, receivers, runtime, listener })
    }

    /// What the workers share, to watch and to stop them by.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Where it answers over HTTP.
    pub fn address(&self) -> Result<std::net::SocketAddr> {
        self.listener.local_addr().map_err(|e| Error::world(format!("the HTTP address is not known: {e}")))
    }

    /// Runs until it is stopped. The first signal calls `asked_to_stop`, the second stops at once.
    pub fn run(self, asked_to_stop: impl Fn() + Send + 'static) -> Result<()> {
        let Service { shared, http, receivers, runtime, listener } = self;
        let stopped = Arc::clone(&shared);
        let server =
            runtime.spawn(http::serve(listener, http, async move { stopped.until_stopping().await }));
        runtime.spawn(signals::obey("finishing the transaction at hand", asked_to_stop));
        runtime.spawn(obey_hangups(Arc::clone(&shared)));
        let watcher = watch_model(&shared)?;
        let follower = follow_others(&shared)?;
        let outcome = run_workers(&shared, receivers);
        shared.stop();
        // It panics nowhere; were it to, there is nothing left to watch.
        let _ = watcher.join();
        // Nor does it here, and nothing is lost with it.
        let _ = follower.map(std::thread::JoinHandle::join);
        let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), server).await });
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome?;
        if shared.until_end && !shared.ending.all_through() {
            return Err(Error::world("stopped by a signal before the end")
                .hint("what was done is committed: the next run goes on from there"));
        }
        Ok(())
    }
}

fn listen(config: &Config) -> Result<(tokio::runtime::Runtime, tokio::net::TcpListener)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Error::world(format!("cannot start the HTTP server's runtime: {e}")))?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind(config.http.listen)).map_err(|e| {
        Error::world(format!("cannot listen on {}: {e}", config.http.listen))
            .hint("another process listens there; choose another address with http.listen")
    })?;
    Ok((runtime, listener))
}

/// One per core unless configured; never more than there are partitions.
fn worker_count(config: &Config, partitions: i32) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = if config.app.workers == 0 { cores } else { config.app.workers };
    wanted.clamp(1, partitions.max(1) as usize)
}

/// Where each input ends now. What passes between the ids of a customer ends when nobody has anything to tell.
fn end_offsets(
    clients: &ClientSettings,
    inputs: &[Input],
    partitions: i32,
) -> Result<BTreeMap<(usize, i32), i64>> {
    let failed = |e| Error::world(format!("cannot ask for the end of the inputs: {e}"));
    let reader = clients.end_offsets(0).map_err(failed)?;
    let mut ends = BTreeMap::new();
    let events = inputs.iter().enumerate().filter(|(_, input)| input.reading != Reading::Moves);
    for (lane, input) in events {
        for partition in 0..partitions {
            let (_, high) =
                watermarks(&reader, &input.topic, partition, Duration::from_secs(10)).map_err(failed)?;
            ends.insert((lane, partition), high);
        }
    }
    Ok(ends)
}

fn watch_model(shared: &Arc<Shared>) -> Result<std::thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let watch = move || shared.models.watch(|| shared.is_stopping());
    let spawned = std::thread::Builder::new().name("model-watch".into()).spawn(watch);
    spawned.map_err(|e| Error::world(format!("cannot start watching the model: {e}")))
}

/// Keeps what is given up for a while, and reads along what other processes own where that is asked for.
fn follow_others(shared: &Arc<Shared>) -> Result<Option<std::thread::JoinHandle<()>>> {
    if shared.standby.is_none() {
        return Ok(None);
    }
    let shared = Arc::clone(shared);
    let follow = move || {
        if let Some(standby) = &shared.standby {
            standby.follow(|| shared.is_stopping());
        }
    };
    let spawned = std::thread::Builder::new().name("standby".into()).spawn(follow);
    spawned.map(Some).map_err(|e| Error::world(format!("cannot start following other instances: {e}")))
}

/// Runs every worker on a thread of its own; the first error stops all and is the service's.
fn run_workers(shared: &Arc<Shared>, receivers: Vec<std::sync::mpsc::Receiver<http::Query>>) -> Result<()> {
    let mut threads = Vec::new();
    for (worker, queries) in receivers.into_iter().enumerate() {
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name(format!("worker-{worker}"));
        let spawned = thread.spawn(move || {
            // A panic must stop the others as well, whichever of them is waited for.
            let working = AssertUnwindSafe(|| work(&shared, worker, &queries));
            let outcome = std::panic::catch_unwind(working).unwrap_or_else(|_| {
                Err(Error::world("a worker ended in a panic; this is a bug in stagecast"))
            });
            shared.health.ended(worker, outcome.as_ref().err().map(ToString::to_string));
            if outcome.is_err() {
                shared.stop();
            }
            outcome
        });
        threads.push(spawned.map_err(|e| Error::world(format!("cannot start a worker thread: {e}")))?);
    }
    let mut outcome = Ok(());
    for thread in threads {
        let ended = thread.join().unwrap_or_else(|_| Err(Error::world("a worker thread is gone")));
        outcome = outcome.and(ended);
    }
    outcome
}

/// A hangup asks for the model to be read again.
async fn obey_hangups(shared: Arc<Shared>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::error!("cannot listen for SIGHUP");
        return;
    };
    while hangup.recv().await.is_some() {
        shared.models.ask();
    }
}

impl Shared {
    fn new(
        config: &Config,
        request: Request,
        clients: ClientSettings,
        models: Arc<Models>,
        partitions: i32,
        http: &http::Shared,
    ) -> Result<Shared> {
        let started = wall_now();
        let events = setup::enabled_sources(config).map(|(source, section)| Input {
            source,
            topic: section.topic.clone(),
            reading: Reading::Events(setup::decoder(section)),
        });
        let topic = config.topics.identity.clone();
        let moves = Input { source: Source::Profile, topic, reading: Reading::Moves };
        let inputs: Arc<[Input]> = events.chain([moves]).collect();
        let ends =
            if request.until_end { end_offsets(&clients, &inputs, partitions)? } else { BTreeMap::new() };
        let checkpoints = Checkpoints::prepare(config, &clients)?.map(Arc::new);
        let standby =
            Standby::prepare(config, &clients, &models, &http.metrics, checkpoints.as_ref(), partitions)?;
        Ok(Shared {
            checkpoints,
            standby,
            clients,
            models,
            inputs,
            topics: config.topics.clone(),
            commit: config.commit.clone(),
            timing: Timing {
                clock: config.time.clock,
                grace_ms: config.time.grace_ms,
                max_future_ms: config.time.max_future_ms,
            },
            partitions,
            ce_source: format!("/stagecast/{}", config.app.id),
            until_end: request.until_end,
            until: request.until,
            metrics: Arc::clone(&http.metrics),
            health: Arc::clone(&http.health),
            live: Arc::clone(&http.live),
            faults: Faults::from_env(),
            ending: Ending::new(partitions, request.until, ends, started),
            stopping: AtomicBool::new(false),
        })
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    async fn until_stopping(&self) {
        while !self.is_stopping() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The partition numbers of an assignment, which must be the same for every input.
    pub fn partitions_of(&self, assigned: &TopicPartitionList) -> Result<BTreeSet<i32>> {
        let elements = assigned.elements();
        let all: BTreeSet<i32> = elements.iter().map(|e| e.partition()).collect();
        if let Some(new) = all.iter().find(|p| **p >= self.partitions) {
            let what = format!(
                "the inputs had {} partitions at start and now have partition {new}",
                self.partitions
            );
            return Err(
                Error::user(what).hint("keys have moved to other partitions; start over with a new app.id")
            );
        }
        for input in self.inputs.iter() {
            let of_topic: BTreeSet<i32> =
                elements.iter().filter(|e| e.topic() == input.topic).map(|e| e.partition()).collect();
            if of_topic != all {
                let what = format!(
                    "the group assigned partitions {of_topic:?} of {} but {all:?} of all inputs: customers would be split",
                    input.topic
                );
                return Err(Error::world(what).hint(
                    "every member must use the range assignor and subscribe to the same topics, and all topics must have \
                     the same partitions; a topic that was just made may take the session timeout to be assigned",
                ));
            }
        }
        Ok(all)
    }

    /// Whether no partition will ever tell another anything again.
    pub fn is_drained(&self) -> bool {
        self.ending.is_drained(|read_to| self.is_read(read_to))
    }

    fn is_read(&self, read_to: &BTreeMap<i32, i64>) -> bool {
        let Ok(reader) = self.clients.end_offsets(0) else { return false };
        read_to.iter().all(|(partition, read_to)| {
            let ends = watermarks(&reader, &self.topics.identity, *partition, Duration::from_secs(10));
            ends.is_ok_and(|(_, high)| high <= *read_to)
        })
    }
}
