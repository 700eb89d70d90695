//! The adapter's core: decides which message goes by which carrier, which events of the client are
//! evidence, and what the broker is told.
//!
//! Knows the session, its messages and its carriers. Does not know how a carrier writes, the format
//! of a client's record, or what a tool does. Invariant: it has no clock, no file, no socket, no OS
//! thread and no hash order. The time and all that was read come in as arguments. `AGENTS.md`
//! beside this crate says how to change it.

pub mod adapter;
pub mod event;

pub mod call;
pub mod inbox;
pub mod render;
pub mod ways;

mod evidence;
mod facts;
mod hooks;
mod pushing;
mod results;
mod seat;
mod under_way;

pub use seat::Whose;

#[cfg(test)]
mod samples;

/// The client that runs this adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Any other MCP client.
    Other,
}
