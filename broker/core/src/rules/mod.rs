//! The rules: decide the changes of each request and each timeout.
//!
//! Each module is an `impl Broker`: it reads and changes the indexes of `state`, and writes its
//! decisions into the step. A module may call a method of another one. Its imports come only from
//! modules below it, so there is no cycle.

// Actors, visibility, and events for watchers.
mod actors;
mod visibility;

mod events;

// Peers and sessions.
mod claim;
mod sessions;

mod merge;

// Sends, and the rules that restrict them.
mod pause;
mod policy;

mod audience;
mod refusals;
mod sending;

mod notices;

// The life of a delivery.
mod lease;

mod dead_letters;

// Links to other brokers.
mod cards;
mod proxies;
mod receipts;
mod relay;

mod take;

mod link;
mod links;

// Hooks of clients.
mod hooks;

// Shared records.
mod channel;
mod question;
mod task;

// Channels across links.
mod elsewhere;
mod posts;
mod posts_here;

mod note;

// Listings and searches.
mod listings;
mod search;

// Retention, and the invariants of the whole state.
mod retention;

mod invariants;
