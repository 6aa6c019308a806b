//! A TCP proxy between the program and a broker, for what networks do: slow down, stall, lose answers, cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use stagecast::time::sleep;

/// How long a pump waits for bytes before it looks at the weather again.
const LOOK: Duration = Duration::from_millis(20);

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Every piece comes later, and no more than so many bytes a second do.
    Slow {
        delay: Duration,
        bytes_per_second: u32,
    },
    /// Nothing gets through, and nothing is lost: it comes when the weather changes.
    Stalled,
    /// Requests get through, their answers come when the weather changes.
    AnswersStalled,
    /// The connections are dead and nobody says so: what is sent is lost. They break when the weather changes.
    HalfOpen,
    /// Connections break and new ones are refused.
    Cut,
}

struct Shared {
    weather: Mutex<Weather>,
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// Ends with its last connection when dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy in front of this port.
    pub fn start(target: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            weather: Mutex::new(Weather::Fair),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::Acquire) {
                    return;
                }
                connect(&accepting, client, target);
            }
        });
        Proxy { port, shared }
    }

    pub fn set(&self, weather: Weather) {
        let before = std::mem::replace(&mut *self.shared.weather(), weather);
        if weather == Weather::Cut || before == Weather::HalfOpen {
            self.shared.cut();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.shared.cut();
        // Wakes the one who accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream, target: u16) {
    let Ok(broker) = TcpStream::connect(("127.0.0.1", target)) else { return };
    if *shared.weather() == Weather::Cut {
        return;
    }
    let (Ok(c), Ok(b)) = (client.try_clone(), broker.try_clone()) else { return };
    let mut connections = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
    connections.extend([c, b]);
    drop(connections);
    for (from, to, answers) in [(&client, &broker, false), (&broker, &client, true)] {
        let (Ok(from), Ok(to), shared) = (from.try_clone(), to.try_clone(), Arc::clone(shared)) else {
            return;
        };
        thread::spawn(move || {
            let _ = pump(&shared, &from, &to, answers);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
}

fn pump(shared: &Shared, mut from: &TcpStream, mut to: &TcpStream, answers: bool) -> std::io::Result<()> {
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        loop {
            let weather = *shared.weather();
            match weather {
                Weather::Stalled => sleep(LOOK),
                Weather::AnswersStalled if answers => sleep(LOOK),
                Weather::HalfOpen => break,
                Weather::Slow { delay, bytes_per_second } => {
                    let seconds = read as f64 / f64::from(bytes_per_second.max(1));
                    sleep(delay + Duration::from_secs_f64(seconds));
                    to.write_all(&buffer[..read])?;
                    break;
                }
                Weather::Fair | Weather::AnswersStalled | Weather::Cut => {
                    to.write_all(&buffer[..read])?;
                    break;
                }
            }
            if shared.ended.load(Ordering::Acquire) {
                return Ok(());
            }
        }
    }
}

#[test]
fn the_weather_is_what_was_asked_for() {
    let echo = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let target = echo.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in echo.incoming().flatten() {
            thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(n) = stream.read(&mut bytes) {
                    if n == 0 || stream.write_all(&bytes[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let proxy = Proxy::start(target);
    let open = || {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream
    };
    let say = |mut stream: &TcpStream| {
        let _ = stream.write_all(b"x");
        stream.read(&mut [0; 8]).ok()
    };
    let line = open();
    assert_eq!(say(&line), Some(1));
    proxy.set(Weather::Stalled);
    assert_eq!(say(&line), None);
    proxy.set(Weather::Fair);
    assert_eq!((&line).read(&mut [0; 8]).ok(), Some(1), "nothing was lost");
    proxy.set(Weather::HalfOpen);
    assert_eq!(say(&line), None);
    proxy.set(Weather::Fair);
    assert_ne!(say(&line), Some(1), "the connection is broken");
    proxy.set(Weather::Cut);
    assert_ne!(say(&open()), Some(1));
    proxy.set(Weather::Slow { delay: Duration::from_millis(5), bytes_per_second: 1_000 });
    assert_eq!(say(&open()), Some(1));
}
