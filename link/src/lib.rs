//! A link process: carries frames between a broker and another machine's link process.
//!
//! `peer-link-core` decides; this crate has the hands: the broker's connection, the wire, the ssh
//! child, and its files. It opens no network socket: ssh and `peer-link-nats` do.
//!
//! - [`identity`]: who this broker is on links: `link.key`.
//! - [`mod@file`]: which links there are: `links.toml`.
//! - [`wire`]: the preface and the frames of a connection.
//! - [`serve`]: one connection, from the greeting to its end.
//! - [`served`]: which process serves the links, and how they are.
//! - [`ssh`]: the ssh child of a link.
//! - `letters`: mail for a member of a team that is not there.
//! - `team`: a team on a NATS server, with the feature `nats`.
//! - [`run`]: all links, kept up.

mod clock;
pub mod file;
pub mod identity;
#[cfg(feature = "nats")]
mod letters;
pub mod run;
pub mod serve;
pub mod served;
pub mod ssh;
#[cfg(feature = "nats")]
pub mod team;
pub mod wire;
