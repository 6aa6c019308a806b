//! The program (or another) as a process of its own: started in a folder of its own, watched through what it
//! writes and answers, and signalled.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use stagecast::time::{Tick, sleep};
use tempfile::TempDir;

use crate::broker::pid;

/// A running program; killed when dropped, its last words printed when the test failed.
pub struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    /// Starts `stagecast ARGS` with `config` as the `stagecast.toml` of its folder.
    pub fn stagecast(config: &str, args: &[&str], env: &[(&str, &str)]) -> Process {
        let folder = folder();
        fs::write(folder.path().join("stagecast.toml"), config).unwrap();
        Process::start_in(folder, Path::new(env!("CARGO_BIN_EXE_stagecast")), args, env)
    }

    /// Starts any program in an empty folder.
    pub fn start(program: &str, args: &[&str]) -> Process {
        Process::start_in(folder(), Path::new(program), args, &[])
    }

    fn start_in(folder: TempDir, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Process {
        let file = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
        let child = Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap();
        Process { child, folder }
    }

    /// Its folder, to look at or put files into.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).unwrap()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    /// The first line, of either stream, that contains `text`, as soon as there is one.
    pub fn line_with(&mut self, text: &str, within: Duration) -> String {
        self.until(&format!("a line with `{text}`"), within, |p| {
            let written = p.stdout() + "\n" + &p.stderr();
            written.lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// The body of `GET path` at `address`, as soon as the answer is 200.
    pub fn answer(&mut self, address: &str, path: &str, within: Duration) -> String {
        self.until(&format!("an answer from {address}{path}"), within, |_| match get(address, path) {
            Some((200, body)) => Some(body),
            _ => None,
        })
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its exit code, when it ends in time; `None` for a signal.
    pub fn exit_code(&mut self, within: Duration) -> Option<i32> {
        let started = Tick::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < within, "it does not end:\n{}", self.stderr());
            sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).unwrap();
    }

    fn until<T>(&mut self, what: &str, within: Duration, look: impl Fn(&Process) -> Option<T>) -> T {
        let started = Tick::now();
        loop {
            let ended = self.child.try_wait().unwrap();
            if let Some(found) = look(self) {
                return found;
            }
            assert!(ended.is_none(), "it ended ({ended:?}) without {what}");
            assert!(started.elapsed() < within, "waited in vain for {what}");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("its output:\n{}\nits errors:\n{}", self.stdout(), self.stderr());
        }
    }
}

/// Status and body of `GET path`, when something answers.
pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    // In one piece: a server may answer the first part and close.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn a_process_is_seen_signalled_and_ended() {
    let within = Duration::from_secs(20);
    let script = "trap 'echo bye; exit 7' TERM; echo ready >&2; while :; do sleep 0.05; done";
    let mut process = Process::start("sh", &["-c", script]);
    assert_eq!(process.line_with("ready", within), "ready");
    process.freeze();
    process.thaw();
    process.terminate();
    assert_eq!(process.exit_code(within), Some(7));
    assert_eq!(process.stdout(), "bye\n");
    let mut killed = Process::start("sh", &["-c", "sleep 60"]);
    killed.kill();
    assert_eq!(killed.exit_code(within), None);
    assert!(killed.folder().is_dir());
}

#[test]
fn an_answer_over_http_is_waited_for() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        for status in ["503 Not yet", "200 OK"] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{status}").unwrap();
        }
    });
    let mut process = Process::start("sleep", &["60"]);
    assert_eq!(process.answer(&address, "/readyz", Duration::from_secs(20)), "200 OK");
    server.join().unwrap();
}

#[test]
fn the_program_starts_in_a_folder_with_its_configuration() {
    let mut process = Process::stagecast("", &["--help"], &[("NO_COLOR", "1")]);
    process.exit_code(Duration::from_secs(20));
    assert!(process.folder().join("stagecast.toml").is_file());
}
