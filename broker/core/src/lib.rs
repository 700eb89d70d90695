//! peerd's rules: a pure state machine.
//!
//! Everything that can happen is one [`Input`](input::Input); everything that is decided is two lists in a
//! [`Step`](step::Step): changes, which must be durable, and effects, which may be seen only after the changes are.
//! The core has no `async`, no clock, no randomness, no hash order and no I/O: time, entropy and what the store knows are
//! arguments, so that the same inputs give the same run.
//!
//! The modules stand in the order in which to read them. `AGENTS.md` beside this crate says where a change goes.

// What goes in, what comes out, and what is durable.
pub mod input;
pub mod step;

mod turn;

pub mod record;
pub mod thing;

// Why a request is refused, and how that reads for whom.
pub mod rejection;
pub mod wording;

// Who acts.
pub mod who;

// The one match from input to room, and time.
pub mod broker;

// The life of one delivery.
mod delivery;

// What is remembered, and the rules over it.
mod state;

mod rules;

// What several rooms use.
mod check;
mod names;

// The words of what the shell asks beside requests.
pub mod counts;
pub mod retention;
