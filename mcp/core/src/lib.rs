//! The adapter's core: which message goes by which carrier, what the client's doings prove, and what the broker is told.
//!
//! It has no clock, no file, no socket, no task and no hash order: time and everything that was read come in as arguments. It
//! does not know how a carrier writes, how a client's record is spelled, nor what a tool does. `AGENTS.md` beside this crate
//! says how to change it.

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
