//! The adapter's heart: which message goes by which carrier, what the client's doings prove, and what the broker is told.
//!
//! It has no clock, no file, no socket, no task and no hash order: time and everything that was read come in as arguments. It
//! does not know how a carrier writes, how a client's record is spelled, nor what a tool does.

pub mod call;
pub mod facts;
pub mod inbox;
pub mod render;

#[cfg(test)]
mod samples;

/// Which program runs this adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Any other MCP client.
    Other,
}
