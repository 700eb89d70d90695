//! The real Claude Code and Codex against a model server of the tests' own; `tests/clients/run`
//! runs it, and `tests/clients/run target/debug/peerctl sight::` the tests of one module.

mod again;
mod basics;
mod claude;
mod claude_sessions;
mod codex;
mod hostile;
mod installed;
mod programs;
mod sight;
mod tabs;
mod together;
mod trial;
mod trust;
