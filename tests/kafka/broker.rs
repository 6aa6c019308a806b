//! Real brokers: fetched, formatted, started, stopped, killed, frozen, and deleted when the test is done.
//!
//! A keeper process holds the other end of a pipe: when the test process is gone, however it went, the keeper
//! kills its brokers and deletes their data.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::{Pid, Signal, kill_process};
use stagecast::time::{Tick, sleep};

use crate::proxy::Proxy;

/// How long a broker may take until it answers; a loaded machine needs a good part of it.
const READY_MAX: Duration = Duration::from_secs(90);
const STOPPED_MAX: Duration = Duration::from_secs(20);
const CLUSTER_ID: &str = "c3RhZ2VjYXN0LXRlc3RzLQ";
const JVM: [&str; 4] = [
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/// A cluster of brokers, each also a controller.
pub struct RealKafka {
    dir: PathBuf,
    ports: Vec<u16>,
    /// One in front of each broker, where programs under test go through them.
    pub proxies: Vec<Proxy>,
    brokers: Mutex<Vec<Option<Child>>>,
    keeper: Child,
    /// Closing it is what the keeper waits for.
    alive: Option<ChildStdin>,
}

impl RealKafka {
    /// The one broker that tests share which do no harm to it.
    pub fn shared() -> &'static RealKafka {
        static SHARED: OnceLock<RealKafka> = OnceLock::new();
        SHARED.get_or_init(|| RealKafka::start(1))
    }

    /// Starts `brokers` brokers with nothing in them and returns when all of them answer.
    pub fn start(brokers: usize) -> RealKafka {
        RealKafka::start_as(brokers, &Extras::default(), false, None)
    }

    /// The same with more listeners, whose ports stand in `extras`.
    pub fn start_with(brokers: usize, extras: &Extras) -> RealKafka {
        RealKafka::start_as(brokers, extras, false, None)
    }

    /// One broker with so many megabytes of disk (a tmpfs, for which one has to be root).
    pub fn on_small_disk(megabytes: u32) -> RealKafka {
        RealKafka::start_as(1, &Extras::default(), false, Some(megabytes))
    }

    /// The same, and programs reach them through proxies only.
    pub fn behind_proxies(brokers: usize) -> RealKafka {
        RealKafka::start_as(brokers, &Extras::default(), true, None)
    }

    fn start_as(brokers: usize, extras: &Extras, proxied: bool, disk_mb: Option<u32>) -> RealKafka {
        let dir =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-{}-{}", std::process::id(), unique()));
        fs::create_dir_all(&dir).unwrap();
        if let Some(megabytes) = disk_mb {
            mount(&dir.join("data-1"), megabytes);
        }
        let mut keeper = keeper(&dir);
        let alive = keeper.stdin.take();
        let ports = free_ports(3 * brokers);
        let behind = if proxied { &ports[2 * brokers..] } else { &[] };
        let proxies: Vec<Proxy> = behind.iter().map(|port| Proxy::start(*port)).collect();
        for id in 1..=brokers {
            let mut properties =
                properties(&dir, id, brokers, &ports) + &extras.properties(id, brokers, &ports);
            if let (Some(port), Some(proxy)) = (behind.get(id - 1), proxies.get(id - 1)) {
                properties = with_proxy(&properties, *port, proxy.port);
            }
            fs::write(dir.join(format!("{id}.properties")), properties).unwrap();
        }
        let cluster = RealKafka {
            dir,
            ports: ports[..brokers].to_vec(),
            proxies,
            brokers: Mutex::new((0..brokers).map(|_| None).collect()),
            keeper,
            alive,
        };
        (1..=brokers).for_each(|id| cluster.format(id, &extras.users));
        (1..=brokers).for_each(|id| cluster.launch(id));
        cluster.until_all_answer();
        cluster
    }

    /// The value of `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        addresses.join(",")
    }

    /// The same, for programs under test.
    pub fn bootstrap_of_programs(&self) -> String {
        if self.proxies.is_empty() {
            return self.bootstrap();
        }
        let addresses: Vec<String> = self.proxies.iter().map(|p| format!("127.0.0.1:{}", p.port)).collect();
        addresses.join(",")
    }

    pub fn size(&self) -> usize {
        self.ports.len()
    }

    /// Where broker `id` has its data.
    pub fn data(&self, id: usize) -> PathBuf {
        self.dir.join(format!("data-{id}"))
    }

    /// Whether broker `id` has ended by itself.
    pub fn has_ended(&self, id: usize) -> bool {
        let mut brokers = self.brokers();
        brokers[id - 1].as_mut().is_none_or(|broker| broker.try_wait().unwrap().is_some())
    }

    /// Starts broker `id` again after it ended by itself.
    pub fn revive(&self, id: usize) {
        drop(self.brokers()[id - 1].take());
        self.restart(id);
    }

    /// Pulls the plug on broker `id` (from 1).
    pub fn kill(&self, id: usize) {
        self.end(id, Signal::KILL);
    }

    /// Shuts broker `id` down in good order.
    pub fn stop(&self, id: usize) {
        self.end(id, Signal::TERM);
    }

    /// Starts broker `id` again, with its data, and waits until every running broker answers.
    pub fn restart(&self, id: usize) {
        self.launch(id);
        self.until_all_answer();
    }

    /// Freezes broker `id`: its connections stay open and nothing answers.
    pub fn freeze(&self, id: usize) {
        self.signal(id, Signal::STOP);
    }

    pub fn thaw(&self, id: usize) {
        self.signal(id, Signal::CONT);
    }

    fn brokers(&self) -> MutexGuard<'_, Vec<Option<Child>>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn format(&self, id: usize, users: &[String]) {
        let properties = self.dir.join(format!("{id}.properties"));
        let output = java()
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(&properties)
            .args(users.iter().flat_map(|user| ["--add-scram", user]))
            .output()
            .unwrap();
        assert!(output.status.success(), "formatting failed: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn launch(&self, id: usize) {
        let log = fs::File::options().create(true).append(true).open(self.log(id)).unwrap();
        let broker = java()
            .arg("kafka.Kafka")
            .arg(self.dir.join(format!("{id}.properties")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        fs::write(self.pid_file(id), broker.id().to_string()).unwrap();
        let before = self.brokers()[id - 1].replace(broker);
        assert!(before.is_none(), "broker {id} is running already");
    }

    fn signal(&self, id: usize, signal: Signal) {
        let brokers = self.brokers();
        let broker = brokers[id - 1].as_ref().expect("the broker is running");
        kill_process(pid(broker), signal).unwrap();
    }

    fn end(&self, id: usize, signal: Signal) {
        self.signal(id, signal);
        let mut broker = self.brokers()[id - 1].take().expect("the broker is running");
        wait_or_kill(&mut broker);
        let _ = fs::remove_file(self.pid_file(id));
    }

    fn until_all_answer(&self) {
        let (started, running) = (Tick::now(), self.brokers().iter().flatten().count());
        let asker: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("reconnect.backoff.max.ms", "200")
            .create()
            .unwrap();
        let answered = || {
            let metadata = asker.fetch_metadata(None, Duration::from_secs(1));
            metadata.is_ok_and(|m| m.brokers().len() >= running)
        };
        while !answered() {
            assert!(started.elapsed() < READY_MAX, "no answer from Kafka in {READY_MAX:?}:\n{}", self.logs());
            for broker in self.brokers().iter_mut().flatten() {
                assert!(broker.try_wait().unwrap().is_none(), "a broker ended by itself:\n{}", self.logs());
            }
            sleep(Duration::from_millis(100));
        }
    }

    fn log(&self, id: usize) -> PathBuf {
        self.dir.join(format!("{id}.log"))
    }

    fn pid_file(&self, id: usize) -> PathBuf {
        self.dir.join(format!("{id}.pid"))
    }

    /// The last lines every broker wrote.
    fn logs(&self) -> String {
        let tail = |id| {
            let text = fs::read_to_string(self.log(id)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(15).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        (1..=self.ports.len()).map(|id| format!("broker {id}:\n{}\n", tail(id))).collect()
    }
}

impl Drop for RealKafka {
    fn drop(&mut self) {
        for mut broker in self.brokers().iter_mut().filter_map(Option::take) {
            let _ = broker.kill();
            let _ = broker.wait();
        }
        drop(self.alive.take());
        let _ = self.keeper.wait();
    }
}

/// What a broker has besides a plain listener for everybody.
#[derive(Default)]
pub struct Extras {
    /// Name, protocol and port of more listeners.
    pub listeners: Vec<(&'static str, &'static str, u16)>,
    /// SCRAM users, as the storage tool takes them.
    pub users: Vec<String>,
    /// More lines of `server.properties`.
    pub properties: String,
}

impl Extras {
    /// Of two lines about one property the last one counts.
    fn properties(&self, id: usize, brokers: usize, ports: &[u16]) -> String {
        if self.listeners.is_empty() {
            return self.properties.clone();
        }
        let of = |(name, _, port): &(&str, &str, u16)| format!(",{name}://localhost:{port}");
        let more: String = self.listeners.iter().map(of).collect();
        let of = |(name, protocol, _): &(&str, &str, u16)| format!(",{name}:{protocol}");
        let protocols: String = self.listeners.iter().map(of).collect();
        let (port, controller) = (ports[id - 1], ports[brokers + id - 1]);
        format!(
            "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{more}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n{}",
            self.properties
        )
    }
}

/// A number no other caller in this process gets.
pub fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn wait_or_kill(child: &mut Child) {
    let started = Tick::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > STOPPED_MAX {
            let _ = child.kill();
        }
        sleep(Duration::from_millis(20));
    }
}

fn mount(folder: &Path, megabytes: u32) {
    fs::create_dir_all(folder).unwrap();
    let size = format!("size={megabytes}m");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).status();
    assert!(mounted.is_ok_and(|status| status.success()), "a small disk takes root, who may mount one");
}

/// Waits for the pipe to close, kills what is left, deletes `dir`.
fn keeper(dir: &Path) -> Child {
    let script = r#"trap "" INT TERM HUP; cat >/dev/null
        for f in "$1"/*.pid; do [ -f "$f" ] && kill -9 "$(cat "$f")"; done
        for d in "$1"/data-*; do mountpoint -q "$d" && { sleep 1; umount "$d"; }; done
        rm -rf "$1" || { sleep 1; rm -rf "$1"; }"#;
    Command::new("sh")
        .args(["-c", script, "keeper"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh is needed to clean up after the brokers")
}

/// Ports that were free a moment ago.
pub fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// `ports` are the brokers' followed by the controllers'.
fn properties(dir: &Path, id: usize, brokers: usize, ports: &[u16]) -> String {
    let (port, controller) = (ports[id - 1], ports[brokers + id - 1]);
    let voters: Vec<String> =
        (1..=brokers).map(|id| format!("{id}@127.0.0.1:{}", ports[brokers + id - 1])).collect();
    let (replicas, min_isr) = (brokers.min(3), if brokers >= 3 { 2 } else { 1 });
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={dir}/data-{id}\n\
         auto.create.topics.enable=false\n\
         num.network.threads=2\n\
         num.io.threads=2\n\
         offsets.topic.num.partitions=4\n\
         offsets.topic.replication.factor={replicas}\n\
         transaction.state.log.num.partitions=4\n\
         transaction.state.log.replication.factor={replicas}\n\
         transaction.state.log.min.isr={min_isr}\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms=500\n\
         group.initial.rebalance.delay.ms=0\n\
         group.min.session.timeout.ms=1000\n\
         broker.session.timeout.ms=3000\n\
         broker.heartbeat.interval.ms=500\n\
         log.retention.ms=-1\n",
        voters = voters.join(","),
        dir = dir.display(),
    )
}

/// Adds a listener that tells its clients to come through the proxy.
fn with_proxy(properties: &str, port: u16, proxy: u16) -> String {
    let lines = properties.lines().map(|line| match line.split_once('=') {
        Some(("listeners", all)) => format!("listeners={all},PROXIED://127.0.0.1:{port}\n"),
        Some(("advertised.listeners", all)) => {
            format!("advertised.listeners={all},PROXIED://127.0.0.1:{proxy}\n")
        }
        Some(("listener.security.protocol.map", all)) => {
            format!("listener.security.protocol.map={all},PROXIED:PLAINTEXT\n")
        }
        _ => format!("{line}\n"),
    });
    lines.collect::<String>() + "inter.broker.listener.name=PLAINTEXT\n"
}

fn java() -> Command {
    let mut command = Command::new("java");
    command.args(JVM).arg("-cp").arg(format!("{}/*", libs().display()));
    command
}

/// The folder of jars, fetched the first time.
fn libs() -> &'static Path {
    static LIBS: OnceLock<PathBuf> = OnceLock::new();
    LIBS.get_or_init(|| {
        let java = Command::new("java").arg("-version").output();
        assert!(
            java.is_ok_and(|o| o.status.success()),
            "these tests start a real Kafka and need Java 17: install it (Debian: apt install openjdk-17-jre-headless)"
        );
        match std::env::var_os("STAGECAST_TEST_KAFKA_LIBS") {
            Some(folder) => PathBuf::from(folder),
            None => fetched_libs(),
        }
    })
}

/// `target/kafka-libs`. Each process fetches into a folder of its own; the first one to finish names it, so
/// that a folder of this name is always complete.
fn fetched_libs() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let (libs, own) = (target.join("kafka-libs"), target.join(format!("kafka-libs.{}", std::process::id())));
    if libs.is_dir() {
        return libs;
    }
    let fetched = Command::new("mvn")
        .args(["-q", "-B", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/pom.xml")])
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", own.display()))
        .output()
        .expect(
            "these tests fetch Kafka with Maven: install it (Debian: apt install maven), or name a folder with \
             Kafka's jars in STAGECAST_TEST_KAFKA_LIBS",
        );
    assert!(
        fetched.status.success(),
        "mvn could not fetch Kafka: {}",
        String::from_utf8_lossy(&fetched.stdout)
    );
    if fs::rename(&own, &libs).is_err() {
        assert!(libs.is_dir(), "cannot name {}", libs.display());
        let _ = fs::remove_dir_all(&own);
    }
    libs
}
