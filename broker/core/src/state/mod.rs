//! What the rules remember: one room an index, with what must hold of it.
//!
//! These rooms know records and each other. They do not know the rules, nor what holds all rooms together. `tests/tidy` checks
//! it.

// Who is here.
pub(crate) mod presence;

// What waits for whom.
pub(crate) mod mailbox;
pub(crate) mod mailboxes;

// How much was said, and what was refused.
pub(crate) mod refusals;
pub(crate) mod send_limits;

// What sessions share.
pub(crate) mod channels;
pub(crate) mod questions;
pub(crate) mod tasks;

pub(crate) mod notes;

// Hooks that wait, and how much is stored.
pub(crate) mod hook_calls;
pub(crate) mod retained;
