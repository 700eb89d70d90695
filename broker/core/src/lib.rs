//! peerd's rules: a pure state machine.
//!
//! Everything that can happen is one [`Input`](input::Input); everything that is decided is two lists in a
//! [`Step`](step::Step): changes, which must be durable, and effects, which may be seen only after the changes are.
//! The core has no `async`, no clock, no randomness, no hash order and no I/O: time, entropy and what the store knows are
//! arguments, so that the same inputs give the same run.
//!
//! Modules, in the order in which to read them:
//!
//! - [`input`]: what can happen.
//! - [`step`]: what is decided.
//! - [`record`]: what is durable.
//! - [`rejection`] and [`wording`]: why a request is refused, and how that reads for whom.
//! - [`broker`]: the one match from input to room; then the rooms: `who` (who acts), `visibility` (who may see what), `presence` and `sessions` (who is here), `sending`,
//!   `quota`, `pause` and `policy` (who may say what), `delivery` (its stages), `mailbox`, `mailboxes`, `lease` and
//!   `letters` (what becomes of it), `retention`
//!   (when it goes), `view` (what others see); and what sessions share: `channel`, `question`, `task` and `note`.

mod brake;
pub mod broker;
mod channel;
mod claim;
pub mod counts;
mod delivery;
mod hooks;
pub mod input;
mod invariants;
mod lease;
mod letters;
mod mailbox;
mod mailboxes;
mod names;
mod note;
mod notice;
mod pause;
mod policy;
mod presence;
mod question;
mod quota;
pub mod record;
pub mod rejection;
pub mod retention;
mod search;
mod sending;
mod sessions;
pub mod step;
mod task;
pub mod thing;
mod view;
mod visibility;
pub mod who;
pub mod wording;
