//! The rules: what each request and each moment changes.
//!
//! Each room is an `impl Broker`: it reads and changes the rooms of `state`, and writes its decisions into the step. A room may
//! call a method of another one. What it imports from another one stands below it, in no circle.

// Who acts, what they may see, and what watchers are told.
mod actors;
mod visibility;

mod events;

// Who is here.
mod claim;
mod sessions;

mod merge;

// Who may say what.
mod pause;
mod policy;

mod audience;
mod refusals;
mod sending;

mod notices;

// What becomes of a delivery.
mod lease;

mod dead_letters;

// Hooks of clients.
mod hooks;

// What sessions share.
mod channel;
mod question;
mod task;

mod note;

// What others see of all this.
mod listings;
mod search;

// When it goes, and what must hold.
mod retention;

mod invariants;
