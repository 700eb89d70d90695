//! What end-to-end tests stand on: a home of their own, the real executable, and a small MCP
//! client.
//!
//! It knows processes, pipes and JSON lines; it does not know the broker's protocol or any rule of
//! delivery. It keeps one invariant: when a [`Home`] is dropped, no process that it caused is
//! alive.
//!
//! A test begins with `let home = peer_tests::home!();`.

pub mod clients;
mod home;
mod mcp;
mod news;
mod pty;
pub mod schema;

pub use home::{Home, Outcome};
pub use mcp::{Adapter, Mcp, ToolResult};
pub use news::News;
pub use pty::pseudo_terminal;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a test waits for what must happen before it fails. Generous: the machine may be busy
/// with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A fresh [`Home`] with the executable under test. A macro, because only the test's own package
/// knows where that is.
#[macro_export]
macro_rules! home {
    () => {
        $crate::Home::new(env!("CARGO_BIN_EXE_peerctl-under-test"))
    };
}

/// Held by a test that fills the machine or measures it: no two of them run at the same time. Other
/// tests run beside it.
///
/// A test begins with `let _serial = peer_tests::serial();`, before it makes a [`Home`].
pub fn serial() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has not spoilt anything for the next.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
