//! The demo as somebody meets it for the first time: one command, and before long there is something to see.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use stagecast::time::{Tick, sleep};

/// The program, and what it has said so far.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Demo {
    fn start(args: &[&str]) -> Demo {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stagecast"))
            .args(["demo", "--set", "http.listen=127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Demo { child, lines, said: String::new() }
    }

    /// Waits for a line with these words, and returns what follows them.
    fn wait_for(&mut self, words: &str, patience: Duration) -> String {
        let until = Tick::now().plus(patience);
        loop {
            let left = until.since(Tick::now());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("no `{words}` within {patience:?}; said:\n{}", self.said));
            self.said += &format!("{line}\n");
            if let Some((_, rest)) = line.split_once(words) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Waits for the end, which must be a good one, and returns everything that was said.
    fn end(mut self) -> String {
        let until = Tick::now().plus(Duration::from_secs(60));
        while self.child.try_wait().unwrap().is_none() {
            assert!(Tick::now() < until, "it does not end; said:\n{}", self.said);
            sleep(Duration::from_millis(20));
        }
        let mut complaints = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
        self.lines.iter().for_each(|line| self.said += &format!("{line}\n"));
        assert!(self.child.wait().unwrap().success(), "{}{complaints}", self.said);
        assert_eq!(complaints, "", "nothing to complain about");
        std::mem::take(&mut self.said)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has ended already when the test passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first so many records of an output, read as another program on this machine would.
fn read_output(brokers: &str, topic: &str, wanted: usize) -> Vec<Value> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("auto.offset.reset", "earliest")
        .set("group.protocol", "consumer")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let until = Tick::now().plus(Duration::from_secs(30));
    let mut records = Vec::new();
    while records.len() < wanted {
        assert!(Tick::now() < until, "{} records in {topic}", records.len());
        if let Some(Ok(record)) = consumer.poll(Duration::from_millis(50)) {
            let value: Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
            assert_eq!(record.key().unwrap(), value["customer_id"].as_str().unwrap().as_bytes());
            records.push(value);
        }
    }
    records
}

#[test]
fn before_long_there_is_something_to_see_and_nothing_is_lost() {
    let mut demo = Demo::start(&["--for", "12s", "--history", "60d"]);
    let brokers = demo.wait_for("broker ", Duration::from_secs(20));
    let first = demo.wait_for("first stage change after ", Duration::from_secs(20));
    let seconds: f64 = first.split_whitespace().next().unwrap().parse().unwrap();
    assert!(seconds < 5.0, "{first}");
    for change in read_output(&brokers, "stage-changes", 50) {
        assert_eq!(change["lifecycle"], "retention");
        assert_ne!(change["from"], change["to"]);
    }
    for score in read_output(&brokers, "churn-scores", 50) {
        let p = score["p_churn"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&p), "{score}");
    }
    let said = demo.end();
    assert!(said.contains(" 0 lost,"), "{said}");
    let sent = said.lines().last().unwrap().trim().split(' ').next().unwrap().replace(',', "");
    assert!(sent.parse::<u64>().unwrap() > 1_000, "{said}");
}

#[test]
fn ctrl_c_ends_it_with_everything_worked_off() {
    let mut demo = Demo::start(&["--history", "0", "--customers", "200000"]);
    demo.wait_for("first stage change after ", Duration::from_secs(20));
    let pid = rustix::process::Pid::from_raw(demo.child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let said = demo.end();
    assert!(said.contains(" 0 lost,"), "{said}");
}
