//! SIGTERM and Ctrl-C: the first asks, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// The first signal asks to stop, and what is done first is told; the second stops at once.
pub async fn obey(doing: &'static str, asked_to_stop: impl Fn()) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals");
        return;
    };
    let mut asked = false;
    loop {
        let number = tokio::select! {
            _ = terminate.recv() => 15,
            _ = interrupt.recv() => 2,
        };
        if asked {
            tracing::warn!("stopping at once");
            std::process::exit(128 + number);
        }
        tracing::info!("{doing}; a second signal stops at once");
        asked = true;
        asked_to_stop();
    }
}

/// For work that is of no use half done, on a thread that has no time to listen.
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens from now on, until the process ends.
    pub fn listen() -> Result<Stop> {
        let asked = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&asked);
        let cannot = |e: std::io::Error| Error::world(format!("cannot listen for signals: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(cannot)?;
        let listen = move || runtime.block_on(obey("stopping", move || tell.store(true, Ordering::Relaxed)));
        std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(cannot)?;
        Ok(Stop(asked))
    }

    /// An error once one was asked to stop.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::world("stopped by a signal; nothing was written")),
            false => Ok(()),
        }
    }
}
