//! The signals that end the broker, and SIGHUP, which must not.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// From its creation on, SIGTERM and SIGINT request the end, and SIGHUP does nothing: the broker
/// outlives its terminal.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    _hangup: Signal,
}

impl StopSignals {
    /// Installs the handlers. Needs a tokio runtime.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns the name of the next signal that requests the end.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
