//! A link's rules: a pure state machine between a broker and the link process of another broker.
//!
//! An [`Event`] comes from the broker, from the other link process, or from the clock. An
//! [`Action`] goes back to one of them. The link has no transport, no clock, no file and no
//! randomness: the same events give the same actions.
//!
//! It holds nothing that may not be lost. What must survive is in the two brokers: a message stays
//! in the sender's broker until the recipient's broker has committed it.

mod lane;
mod link;

pub use link::{Action, Event, Link, LinkSettings, Stopped};
