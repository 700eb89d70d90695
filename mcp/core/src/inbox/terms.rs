//! The arguments and results of the inbox: values without rules.

use peer_proto::ids::MessageId;
use peer_proto::message::{Carrier, Evidence, Message};

use crate::render::BLOCK_CHARS_MAX;

/// Evidence that is on its way to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The carrier that it proves.
    pub carrier: Carrier,
    /// The kind of evidence.
    pub evidence: Evidence,
}

/// What the broker must be told about a message that it has just pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The message is new to this session.
    New,
    /// An earlier connection offered it, without evidence so far.
    Offered {
        /// The carrier that was offered it.
        carrier: Carrier,
        /// Whether no other carrier follows.
        last: bool,
        /// Whether the client showed an event since.
        tried: bool,
    },
    /// An earlier connection proved it; the broker did not confirm that.
    Proved(Proof),
}

/// A text of a message that the model was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The message's id.
    pub message: MessageId,
    /// The carrier, if the record shows it.
    pub by: Option<Carrier>,
    /// Whether it is in the result of a tool.
    pub in_result: bool,
    /// The body, or a part of it, without quotation marks.
    pub piece: String,
}

/// The bounds of a block.
#[derive(Clone, Copy, Debug)]
pub struct BlockRequest<'a> {
    /// The messages that an explicit filter matched; `None`: all due messages.
    pub among: Option<&'a [MessageId]>,
    /// A message that is shown in any case.
    pub also: Option<MessageId>,
    /// The largest number of messages.
    pub limit: usize,
    /// Whether to show the messages without offering them.
    pub peek: bool,
    /// The largest number of characters of all messages together.
    pub budget: usize,
    /// The home directory by which paths are shortened.
    pub home: &'a str,
}

impl BlockRequest<'_> {
    /// All due messages, without bounds.
    pub const DUE: Self = Self {
        among: None,
        also: None,
        limit: usize::MAX,
        peek: false,
        budget: BLOCK_CHARS_MAX,
        home: "",
    };
}

/// The block at the end of a tool result.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Whole lines; empty if there is nothing to show.
    pub text: String,
    /// Messages that it carries and the broker must be told about.
    pub offered: Vec<MessageId>,
    /// The number of messages that it shows.
    pub shown: usize,
}

/// The content of a push.
#[derive(Debug)]
pub struct Post {
    /// The messages, oldest first, without their texts.
    pub messages: Vec<Message>,
    /// The text for the model: a block, or for the channel one message.
    pub text: String,
}

impl Post {
    /// Returns the messages' ids.
    pub fn ids(&self) -> Vec<MessageId> {
        self.messages.iter().map(|message| message.id).collect()
    }
}

/// Messages in the form in which they are shown.
pub(super) struct Quoted {
    pub(super) text: String,
    /// How far the body of each message goes.
    pub(super) shown: Vec<(MessageId, usize)>,
    /// The number of wanted messages that had no room.
    pub(super) left: usize,
}
