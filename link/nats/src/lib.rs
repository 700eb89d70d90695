//! Links over NATS JetStream: a team of machines on one server, or on one cluster of servers.
//!
//! The server is not trusted with content: what crosses it is sealed from key to key. It is not
//! trusted to keep anything either: a message stays with its sender's broker until the recipient's
//! broker has committed it, so a server that loses its disk costs time.
//!
//! - [`seal`]: boxes from member to member, and the team's directory cards.
//! - [`token`]: what brings a machine into a team.
//! - [`stock`]: the stream, the consumers and the directory on the server.
//! - [`team`]: one member's connection to the server, and who else is there.
//! - [`session`]: a connection between two members, over subjects.

mod directory;
mod dispatch;
pub mod seal;
pub mod session;
pub mod stock;
pub mod team;
pub mod token;
