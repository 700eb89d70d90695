//! The ways into the client's model that this adapter has itself. What each can prove is in `docs/mcp.md`.
//!
//! - [`tool_result`]: the block at the end of every tool result. Any client, no turn of its own.
//! - [`channel`]: Claude Code's channel notification. At once, and dropped silently where the channel is not loaded.

pub(crate) mod channel;
pub(crate) mod tool_result;
