//! The words and bytes that peerd's programs share.
//!
//! This crate knows identifiers, messages, limits, the wire format and where the broker's files
//! are. It knows no socket, clock, environment or file: whoever uses it brings those.
//! `docs/protocol.md` describes the same bytes in prose, and tests hold the two together.
//!
//! Modules, in the order in which to read them:
//!
//! - [`ids`]: what things are called on the wire and in text.
//! - [`limits`]: every bound, with its unit and its reason.
//! - [`message`]: a message, its delivery, and the stages of its life.
//! - [`settings`]: every key of `config.toml`, with its default and bounds.
//! - [`hook`] and [`policy`]: what a client's hooks tell, and what a mailbox takes.
//! - [`brake`]: threads that agents used up, and what was refused lately.
//! - [`channel`], [`question`], [`task`], [`note`] and [`search`]: what a team shares.
//! - [`request`]: what a program may ask, what the broker answers and pushes.
//! - [`reach`]: when a session's model sees a message that is sent now.
//! - [`refusal`]: why the broker said no, and the next step.
//! - [`version`] and [`handshake`]: the fixed preface, before any frame.
//! - [`codec`]: frames to values and back, with every bound checked.
//! - [`location`]: the one state directory.
//! - [`process`]: what Linux writes of a process.
//! - [`text`]: a peer's text, made fit to be shown.

pub mod brake;
pub mod channel;
pub mod codec;
pub mod handshake;
pub mod hook;
pub mod ids;
pub mod limits;
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
