//! The state of the rules: one file per index, with its invariants.
//!
//! These files know records and each other. They do not know the rules, nor the invariants across
//! files. `tests/tidy` checks this.

// Peers, sessions and connections.
pub(crate) mod presence;

// Pending deliveries.
pub(crate) mod mailbox;
pub(crate) mod mailboxes;
pub(crate) mod outgoing;

// Links to other brokers.
pub(crate) mod links;

// Send limits and recent refusals.
pub(crate) mod refusals;
pub(crate) mod send_limits;

// Shared records.
pub(crate) mod channels;
pub(crate) mod questions;
pub(crate) mod tasks;

pub(crate) mod notes;

// Pending hooks, and the totals of the store.
pub(crate) mod hook_calls;
pub(crate) mod retained;
