//! The signals that end the broker, and the one that must not.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// From its creation on SIGTERM and SIGINT ask for an end and SIGHUP does nothing: the broker outlives its terminal.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    _hangup: Signal,
}

impl Signals {
    /// Takes the signals over. Needs a tokio runtime.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal that asks for an end, by its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
