//! Questions to the workers: each owns its customers alone, so whoever wants to see one has to ask.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;

/// Questions that wait for one worker; more are turned away.
const WAITING_MOST: usize = 1_024;

/// How long an answer may take. A worker answers between two batches.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A question to one worker.
#[derive(Debug)]
pub struct Query {
    pub customer_id: String,
    /// The customer as JSON ([`super::customer::customer_json`]), or `None` when this worker does not know it.
    pub reply: oneshot::Sender<Option<String>>,
}

impl Query {
    /// Answers, unless whoever asked has given up, in which case `look_up` is not called.
    pub fn answer(self, look_up: impl FnOnce(&str) -> Option<String>) {
        if !self.reply.is_closed() {
            // Only fails when whoever asked gave up meanwhile.
            let _ = self.reply.send(look_up(&self.customer_id));
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Not all workers answered in time.
    Late,
    /// A worker does not take questions: it has ended, or too many wait already.
    Unavailable,
}

/// The way to all workers.
#[derive(Clone, Debug)]
pub struct Queries {
    workers: Vec<SyncSender<Query>>,
}

impl Queries {
    /// One receiver for each worker, in order.
    pub fn new(workers: usize) -> (Queries, Vec<Receiver<Query>>) {
        let (workers, receivers) = (0..workers).map(|_| sync_channel(WAITING_MOST)).unzip();
        (Queries { workers }, receivers)
    }

    /// Asks every worker: the first that knows the customer answers; `None` when all have answered and none does.
    pub async fn ask(&self, customer_id: &str) -> Result<Option<String>, NoAnswer> {
        let mut open = Vec::with_capacity(self.workers.len());
        let mut unavailable = false;
        for worker in &self.workers {
            let (reply, answer) = oneshot::channel();
            match worker.try_send(Query { customer_id: customer_id.to_owned(), reply }) {
                Ok(()) => open.push(answer),
                Err(_) => unavailable = true,
            }
        }
        let found = tokio::time::timeout(ANSWER_WITHIN, first(open)).await.map_err(|_| NoAnswer::Late)?;
        match found {
            (Some(json), _) => Ok(Some(json)),
            (None, true) if !unavailable => Ok(None),
            (None, _) => Err(NoAnswer::Unavailable),
        }
    }
}

/// The first answer that is something, and whether everybody answered until then.
async fn first(mut open: Vec<oneshot::Receiver<Option<String>>>) -> (Option<String>, bool) {
    let (mut found, mut all) = (None, true);
    poll_fn(move |cx| {
        open.retain_mut(|answer| match Pin::new(answer).poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(Some(json))) => {
                found.get_or_insert(json);
                false
            }
            Poll::Ready(Ok(None)) => false,
            Poll::Ready(Err(_)) => {
                all = false;
                false
            }
        });
        if found.is_some() || open.is_empty() { Poll::Ready((found.take(), all)) } else { Poll::Pending }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    /// Answers one question on a thread of its own.
    fn answer(receiver: Receiver<Query>, json: Option<&'static str>) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || receiver.recv().unwrap().answer(|_| json.map(str::to_owned)))
    }

    #[test]
    fn whoever_knows_the_customer_answers() {
        let (queries, mut receivers) = Queries::new(3);
        // The first worker never answers, which does not matter once another knows.
        let silent = receivers.remove(0);
        answer(receivers.remove(0), None);
        answer(receivers.remove(0), Some("{}"));
        assert_eq!(block_on(queries.ask("c1")), Ok(Some("{}".into())));
        drop(silent);
    }

    #[test]
    fn nobody_knows_only_when_everybody_said_so() {
        let (queries, mut receivers) = Queries::new(2);
        answer(receivers.remove(0), None);
        answer(receivers.remove(0), None);
        assert_eq!(block_on(queries.ask("c1")), Ok(None));

        let (queries, mut receivers) = Queries::new(2);
        drop(receivers.remove(1));
        answer(receivers.remove(0), None);
        assert_eq!(block_on(queries.ask("c1")), Err(NoAnswer::Unavailable), "a worker is gone");

        let (queries, receivers) = Queries::new(1);
        let dropped = std::thread::spawn(move || drop(receivers[0].recv()));
        assert_eq!(block_on(queries.ask("c1")), Err(NoAnswer::Unavailable), "a question was dropped");
        dropped.join().unwrap();
    }

    #[test]
    fn a_worker_that_does_not_answer_is_late_and_its_question_is_not_looked_up() {
        let (queries, receivers) = Queries::new(1);
        assert_eq!(block_on(queries.ask("c1")), Err(NoAnswer::Late));
        receivers[0].recv().unwrap().answer(|_| unreachable!("nobody waits for this"));
    }

    #[test]
    fn questions_that_wait_are_limited() {
        let (queries, _receivers) = Queries::new(1);
        block_on(async {
            for _ in 0..WAITING_MOST {
                let asked = tokio::time::timeout(Duration::ZERO, queries.ask("c1")).await;
                assert!(asked.is_err(), "nobody has answered yet");
            }
            assert_eq!(queries.ask("c1").await, Err(NoAnswer::Unavailable));
        });
    }
}
