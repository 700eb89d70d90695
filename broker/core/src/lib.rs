//! peerd's rules: a pure state machine.
//!
//! An event is one [`Input`](input::Input). A decision is an entry in one of the two lists of a
//! [`Step`](step::Step). Changes must be durable. Effects may be visible only after the changes are
//! durable. The core has no `async`, no clock, no randomness, no hash order and no I/O. Time,
//! entropy and stored values are arguments, so that the same inputs give the same run.
//!
//! The modules are in reading order. `AGENTS.md` beside this crate says where a change goes.

// Inputs, outputs, and durable records.
pub mod input;
pub mod step;

mod turn;

pub mod record;
pub mod shared;

// Rejections, and their texts for each addressee.
pub mod rejection;
pub mod wording;

// The actors.
pub mod who;

// The match from input to rule, and the timeouts.
pub mod broker;

// The life of one delivery.
mod delivery;

// The state, and the rules over it.
mod state;

mod rules;

// Helpers of several rules.
mod check;
mod names;

// The results that the shell asks for beside requests.
pub mod counts;
pub mod retention;
