//! The values and bytes that peerd's programs share.
//!
//! Knows identifiers, messages, limits, the wire format, and the paths of the broker's files. Does
//! not know sockets, clocks, the environment or files: its callers pass what it needs.
//! `docs/protocol.md` describes the same bytes in prose, and tests compare the two.
//!
//! Modules, in the order in which to read them:
//!
//! - [`ids`]: identifiers, names and times.
//! - [`limits`]: every fixed bound, with its unit and its reason.
//! - [`message`]: a message, its delivery, and the stages of its life.
//! - [`settings`]: every key of `config.toml`, with its default and bounds.
//! - [`hook`] and [`policy`]: the data of a client's hooks, and the policies for mail.
//! - [`brake`]: threads whose turns are used up, and refused sends.
//! - [`channel`], [`question`], [`task`], [`note`] and [`search`]: the records that a team shares.
//! - [`link`]: what crosses a link between two brokers.
//! - [`request`]: the requests of a program, and the broker's replies and pushes.
//! - [`reach`]: when a session's model sees a message that is sent now.
//! - [`refusal`]: the broker's refusals, with the next step.
//! - [`version`] and [`handshake`]: the fixed preface before any frame.
//! - [`codec`]: encodes and decodes frames, and checks every bound.
//! - [`location`]: the one state directory.
//! - [`process`]: the line of a process in Linux's `/proc`.
//! - [`text`]: makes a peer's text safe to show.

pub mod brake;
pub mod channel;
pub mod codec;
pub mod handshake;
pub mod hook;
pub mod ids;
pub mod limits;
pub mod link;
pub mod location;
pub mod message;
pub mod note;
pub mod policy;
pub mod process;
pub mod question;
pub mod reach;
pub mod refusal;
pub mod request;
pub mod search;
pub mod settings;
pub mod task;
pub mod text;
pub mod version;
