//! Handles SIGINT, depending on its sender.
//!
//! Ctrl-C in a terminal goes to every process of its foreground group: to the client, which may
//! continue, and to us. The client decides about it: if it ends, our input ends or SIGTERM follows.
//! A SIGINT from the client itself asks us to end. Linux tells the two apart; elsewhere SIGINT ends
//! nothing.
//!
//! Knows the sender of a signal. Does not know how the adapter ends.

/// SIGINT, taken over from its usual effect.
pub(crate) struct Interrupts {
    #[cfg(target_os = "linux")]
    signals: Option<nix::sys::signalfd::SignalFd>,
    /// Whether a person runs us by hand, without a client that would decide.
    by_hand: bool,
}

#[cfg(target_os = "linux")]
impl Interrupts {
    /// Blocks SIGINT's usual effect. Call it before any thread is made: threads inherit the mask.
    pub(crate) fn take() -> Self {
        use std::io::IsTerminal;

        use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
        use nix::sys::signalfd::{SfdFlags, SignalFd};

        let mut interrupt = SigSet::empty();
        interrupt.add(Signal::SIGINT);
        // Without a free descriptor, the signal keeps its effect: it ends us.
        let signals =
            SignalFd::with_flags(&interrupt, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).ok();
        let signals = signals
            .filter(|_| pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&interrupt), None).is_ok());
        Self { signals, by_hand: std::io::stdin().is_terminal() }
    }

    /// Waits for a signal that asks us to end.
    pub(crate) async fn asking_to_end(self) {
        let Some(signals) = self.signals.and_then(watched) else {
            return std::future::pending().await;
        };
        loop {
            let Ok(mut ready) = signals.readable().await else {
                return std::future::pending().await;
            };
            match signals.get_ref().read_signal() {
                Ok(Some(info))
                    if self.by_hand
                        || is_of(info.ssi_code, info.ssi_pid, nix::unistd::getppid().as_raw()) =>
                {
                    return;
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => ready.clear_ready(),
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn watched(
    signals: nix::sys::signalfd::SignalFd,
) -> Option<tokio::io::unix::AsyncFd<nix::sys::signalfd::SignalFd>> {
    // SAFETY: a SignalFd is the same open descriptor for as long as it lives, and it lives inside
    // the AsyncFd.
    unsafe {
        tokio::io::unix::AsyncFd::register_with_interest(signals, tokio::io::Interest::READABLE)
    }
    .ok()
}

/// Whether a process sent it (the kernel's own codes are above zero) and that process is `parent`.
#[cfg(target_os = "linux")]
fn is_of(code: i32, sender: u32, parent: i32) -> bool {
    code <= 0 && i64::from(sender) == i64::from(parent)
}

#[cfg(not(target_os = "linux"))]
impl Interrupts {
    /// Blocks SIGINT's usual effect, unless a person runs us by hand.
    pub(crate) fn take() -> Self {
        Self { by_hand: std::io::IsTerminal::is_terminal(&std::io::stdin()) }
    }

    /// Waits for a signal that asks us to end.
    pub(crate) async fn asking_to_end(self) {
        use tokio::signal::unix::{SignalKind, signal};

        let Ok(mut signals) = signal(SignalKind::interrupt()) else {
            return std::future::pending().await;
        };
        loop {
            let more = signals.recv().await;
            if self.by_hand || more.is_none() {
                return;
            }
        }
    }
}
