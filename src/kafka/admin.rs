//! Asking the cluster what its topics look like, and creating new ones. Decides nothing ([`super::topics`]).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic as KafkaTopic, OwnedResourceSpecifier,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::{Error, Result};
use crate::kafka::clients::{ClientSettings, LogContext};
use crate::kafka::topics::{AdminFacts, Layout, NewTopic, TopicFacts};
use crate::kafka::{acls, reach};
use crate::time::{Tick, sleep};

/// How long the cluster may take to answer one question.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long a topic may take to be known after its creation.
const KNOWN_MAX: Duration = Duration::from_secs(30);

/// A connection for questions about topics.
pub struct Admin {
    client: AdminClient<LogContext>,
    bootstrap: String,
}

impl Admin {
    pub fn connect(settings: &ClientSettings) -> Result<Self> {
        settings.check()?;
        reach::reach(settings)?;
        let bootstrap = settings.common.get("bootstrap.servers").cloned().unwrap_or_default();
        let client = settings.admin().map_err(|e| Error::user(format!("cannot make a Kafka client: {e}")))?;
        Ok(Admin { client, bootstrap })
    }

    /// The topics of `layout` that exist, with their partitions and effective configuration.
    pub fn look(&self, layout: &Layout) -> Result<AdminFacts> {
        // All topics at once: asking for one by name could bring it to life.
        let metadata = self
            .client
            .inner()
            .fetch_metadata(None, ANSWER_MAX)
            .map_err(|e| self.failed("cannot ask for the topics", &e))?;
        let wanted = layout.topics();
        let mut topics = BTreeMap::new();
        for topic in metadata.topics().iter().filter(|t| wanted.iter().any(|(name, _)| *name == t.name())) {
            let partitions = topic.partitions();
            let replication = partitions.iter().map(|p| p.replicas().len()).min().unwrap_or(0);
            let facts = TopicFacts {
                partitions: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
                replication: i32::try_from(replication).unwrap_or(i32::MAX),
                config: BTreeMap::new(),
            };
            topics.insert(topic.name().to_owned(), facts);
        }
        self.add_configs(&mut topics)?;
        Ok(AdminFacts { brokers: metadata.brokers().len(), topics })
    }

    /// Creates topics and waits until the cluster knows them. A topic that appeared meanwhile is left as it is.
    pub fn create(&self, new: &[NewTopic]) -> Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        let topics: Vec<KafkaTopic<'_>> = new.iter().map(kafka_topic).collect();
        let results = wait(self.client.create_topics(&topics, &options()))
            .map_err(|e| self.failed("cannot create topics", &e))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    let hint = match code {
                        RDKafkaErrorCode::TopicAuthorizationFailed => acls::HINT,
                        _ => "topics that were created before it stay; running this again goes on from there",
                    };
                    return Err(Error::world(format!("topic `{topic}` was not created: {code}")).hint(hint));
                }
            }
        }
        self.until_known(new)
    }

    fn add_configs(&self, topics: &mut BTreeMap<String, TopicFacts>) -> Result<()> {
        if topics.is_empty() {
            return Ok(());
        }
        let resources: Vec<_> = topics.keys().map(|t| ResourceSpecifier::Topic(t)).collect();
        let answers = wait(self.client.describe_configs(&resources, &options()))
            .map_err(|e| self.failed("cannot ask for the topics' configuration", &e))?;
        // Answers stand in the order of the questions.
        let asked: Vec<String> = topics.keys().cloned().collect();
        for (topic, answer) in asked.iter().zip(answers) {
            let refused = |why: &str| {
                let what = format!(
                    "the configuration of topic `{topic}` may not be looked at{why} (DescribeConfigs)"
                );
                Error::world(what).hint(acls::HINT)
            };
            let ConfigResource { specifier, entries } =
                answer.map_err(|code| refused(&format!(": {code}")))?;
            // The client passes over the error of a single topic; a topic that may be looked at has settings.
            if entries.is_empty() {
                return Err(refused(""));
            }
            let OwnedResourceSpecifier::Topic(name) = specifier else { continue };
            if let Some(facts) = topics.get_mut(&name) {
                facts.config = entries.into_iter().filter_map(|e| Some((e.name, e.value?))).collect();
            }
        }
        Ok(())
    }

    fn until_known(&self, new: &[NewTopic]) -> Result<()> {
        let started = Tick::now();
        loop {
            let metadata = self
                .client
                .inner()
                .fetch_metadata(None, ANSWER_MAX)
                .map_err(|e| self.failed("cannot ask for the topics", &e))?;
            let known = |n: &NewTopic| {
                metadata.topics().iter().any(|t| {
                    t.name() == n.name
                        && !t.partitions().is_empty()
                        && t.partitions().iter().all(|p| p.leader() >= 0)
                })
            };
            match new.iter().find(|n| !known(n)) {
                None => return Ok(()),
                Some(late) if started.elapsed() > KNOWN_MAX => {
                    return Err(Error::world(format!("topic `{}` was created but has no leader", late.name)));
                }
                Some(_) => sleep(Duration::from_millis(50)),
            }
        }
    }

    fn failed(&self, doing: &str, error: &KafkaError) -> Error {
        Error::world(format!("{doing} at {}: {error}", self.bootstrap))
            .hint("is \"bootstrap.servers\" in [kafka] right, and does the cluster answer?")
    }
}

fn kafka_topic(new: &NewTopic) -> KafkaTopic<'_> {
    let topic = KafkaTopic::new(&new.name, new.partitions, TopicReplication::Fixed(new.replication));
    new.config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX))
}

/// Waits for an answer of the admin client, which completes it from its own thread; needs no runtime and may
/// be called inside one.
fn wait<F: Future>(answer: F) -> F::Output {
    let mut answer = pin!(answer);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match answer.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
