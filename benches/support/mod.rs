//! What benchmarks of the whole service share: a broker, services under measurement, and what a process used.
//!
//! Decides nothing about what is measured. Everything that is started here ends with its owner.
#![allow(dead_code)] // every benchmark takes the parts it needs

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rustix::process::{Pid, Signal, kill_process};
use stagecast::time::{Tick, Ts, format_rfc3339, sleep};

/// The unit of `/proc/PID/stat`, the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;
const STARTED_MOST: Duration = Duration::from_secs(120);

/// A number from the environment, such as `RATE=20000`.
pub fn setting(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number"))
}

/// A Kafka broker: the one at `BS`, or one that is started for this run and deleted afterwards.
pub struct Broker {
    pub address: String,
    started: Option<Running>,
}

impl Broker {
    /// `jvm`: options of its Java; empty: those of the script.
    pub fn start(jvm: &str) -> Broker {
        if let Ok(address) = std::env::var("BS") {
            return Broker { address, started: None };
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/start.sh");
        // The script takes this port and the next.
        let port =
            (0..100).map(|_| free_port()).find(|port| TcpListener::bind(("127.0.0.1", port + 1)).is_ok());
        let mut child = Command::new(script)
            .arg(port.expect("two free ports").to_string())
            .env("KAFKA_JVM", jvm)
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/kafka/start.sh starts");
        let mut address = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut address).expect("the broker's address");
        assert!(!address.is_empty(), "the broker did not start");
        Broker { address: address.trim().to_owned(), started: Some(Running(child)) }
    }

    /// CPU seconds of the broker, 0 where it is not ours.
    pub fn cpu_seconds(&self) -> f64 {
        let Some(script) = &self.started else { return 0.0 };
        children_of(script.0.id()).into_iter().map(cpu_seconds).sum()
    }

    /// What a client of the benchmark's own begins with.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }
}

/// A process that is asked to end when its owner lets it go.
pub struct Running(pub Child);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks the process to end and waits for it.
    pub fn end(&mut self) {
        if self.0.try_wait().ok().flatten().is_none()
            && let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// The program, with a configuration file of this text and this folder as its home.
pub struct Stagecast {
    config: PathBuf,
}

impl Stagecast {
    pub fn new(home: &Path, config: &str) -> Stagecast {
        let path = home.join("stagecast.toml");
        std::fs::write(&path, config).expect("a configuration file");
        Stagecast { config: path }
    }

    fn command(&self, arguments: &[&str], settings: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagecast"));
        command.args(arguments).arg("--config").arg(&self.config);
        settings.iter().for_each(|setting| {
            command.arg("--set").arg(setting);
        });
        command
    }

    /// Runs a command to its end.
    pub fn must(&self, arguments: &[&str], settings: &[String]) {
        let output = self.command(arguments, settings).output().expect("stagecast starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the service; what it logs goes to `log`.
    pub fn run(&self, arguments: &[&str], settings: &[String], log: &Path) -> Running {
        let log = std::fs::File::create(log).expect("a log file");
        let arguments = [&["run"], arguments].concat();
        let mut command = self.command(&arguments, settings);
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        Running(child.expect("stagecast starts"))
    }
}

/// What a GET of a plain HTTP server answers; `None` while nobody does.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

/// A scrape of `/metrics`.
pub struct Scrape(String);

impl Scrape {
    pub fn of(port: u16) -> Scrape {
        Scrape(get(port, "/metrics").expect("the service answers").1)
    }

    /// The sum over all series of a name.
    pub fn sum(&self, name: &str) -> f64 {
        self.series(name).map(|(_, value)| value).sum()
    }

    /// Labels and value of every series of exactly this name.
    fn series<'s>(&'s self, name: &'s str) -> impl Iterator<Item = (&'s str, f64)> + 's {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with('{'))?;
            Some((labels, value.parse().ok()?))
        })
    }

    /// Upper bounds of a histogram's buckets and how many observations since `before` lie at or under each.
    pub fn buckets_since(&self, before: &Scrape, histogram: &str) -> Vec<(f64, f64)> {
        let name = format!("{histogram}_bucket");
        let of = |scrape: &Scrape| -> Vec<(f64, f64)> {
            let bound = |labels: &str| -> Option<f64> {
                let text = labels.split_once("le=\"")?.1.split_once('"')?.0;
                if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
            };
            scrape.series(&name).filter_map(|(labels, n)| Some((bound(labels)?, n))).collect()
        };
        of(self).into_iter().zip(of(before)).map(|((bound, n), (_, earlier))| (bound, n - earlier)).collect()
    }
}

/// The quantile of a histogram, straight lines drawn between the bounds of its buckets.
pub fn quantile(buckets: &[(f64, f64)], q: f64) -> f64 {
    let wanted = buckets.last().map_or(0.0, |(_, n)| *n) * q;
    let (mut below, mut under) = (0.0, 0.0);
    for (bound, n) in buckets {
        if *n >= wanted && *n > under {
            let share = (wanted - under) / (n - under);
            return if bound.is_finite() { below + (bound - below) * share } else { f64::INFINITY };
        }
        (below, under) = (*bound, *n);
    }
    f64::NAN
}

/// The value under which a share `q` of the sorted values lies (nearest rank).
pub fn percentile<T: Copy>(sorted: &[T], q: f64) -> Option<T> {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// Waits until `done`, and panics with `what` when that takes longer than `most`.
pub fn wait_for(what: &str, most: Duration, mut done: impl FnMut() -> bool) {
    let began = Tick::now();
    while !done() {
        assert!(began.elapsed() < most, "{what}: not within {} s", most.as_secs());
        sleep(Duration::from_millis(100));
    }
}

/// Waits until a service has its partitions and has restored them; one that ends instead is told of by its log.
pub fn wait_until_ready(port: u16, service: &mut Running, log: &Path) {
    wait_for("the service is ready", STARTED_MOST, || {
        if let Ok(Some(status)) = service.0.try_wait() {
            panic!("{status}: {}", std::fs::read_to_string(log).unwrap_or_default());
        }
        get(port, "/readyz").is_some_and(|(status, _)| status == 200)
    });
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a socket");
    listener.local_addr().expect("an address").port()
}

/// User and system time of a process so far, its threads included.
pub fn cpu_seconds(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |fields| [11, 12].iter().filter_map(|at| ticks(&fields, *at)).sum())
}

/// User and system time of all children of this process that have ended and been waited for.
pub fn cpu_seconds_of_the_ended() -> f64 {
    stat(std::process::id()).map_or(0.0, |fields| [13, 14].iter().filter_map(|at| ticks(&fields, *at)).sum())
}

/// The fields of `/proc/PID/stat` behind the name.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

fn ticks(fields: &[String], at: usize) -> Option<f64> {
    fields.get(at)?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND)
}

fn children_of(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A line such as `VmHWM` (the most memory ever resident) of `/proc/PID/status`, in bytes; 0 once it is gone.
pub fn status_bytes(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The machine's load of the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// One native event as a shop sends it, about 200 bytes; `mix` in 0..100 decides between 85 % clickstream, 12 %
/// purchase and 3 % support. Returns its topic and JSON.
pub fn shop_event(number: u64, customer: &str, ts: Ts, mix: u32) -> (&'static str, String) {
    const CLICKS: [&str; 4] = ["page_viewed", "product_viewed", "products_searched", "product_added"];
    let at = format_rfc3339(ts);
    let head = format!(r#""event_id":"e-{number:010}","customer_id":"{customer}","ts":"{}""#, at.as_str());
    match mix {
        0..85 => {
            let name = CLICKS[number as usize % CLICKS.len()];
            let about =
                format!(r#""session_id":"s-{customer}","channel":"web","url":"/p/{}""#, number % 1_000);
            ("clickstream", format!(r#"{{{head},"type":"{name}",{about}}}"#))
        }
        85..97 => {
            let amount = format!("{}.{:02}", 1 + number % 200, number % 100);
            let about =
                format!(r#""order_id":"o-{number}","amount":{amount},"currency":"EUR","channel":"web""#);
            ("purchase", format!(r#"{{{head},"type":"order_completed",{about}}}"#))
        }
        _ => (
            "support",
            format!(r#"{{{head},"type":"ticket_opened","ticket_id":"t-{number}","priority":"normal"}}"#),
        ),
    }
}

pub const TOPICS: [&str; 3] = ["clickstream", "purchase", "support"];
