//! What the inbox is asked, and what it answers. Values, without a rule.

use peer_proto::ids::MessageId;
use peer_proto::message::{Carrier, Evidence, Message};

use crate::render::BLOCK_CHARS_MAX;

/// Evidence that is on its way to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The carrier that is proved by it.
    pub carrier: Carrier,
    /// What was seen.
    pub evidence: Evidence,
}

/// What the broker must be told about a message it has just pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was not known.
    New,
    /// It was offered by an earlier connection, and there is no proof.
    Offered {
        /// By this carrier.
        carrier: Carrier,
        /// No carrier follows it.
        last: bool,
        /// The client showed an event since.
        tried: bool,
    },
    /// It was proved by an earlier connection; the broker did not confirm that.
    Proved(Proof),
}

/// What the model was shown of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which message.
    pub message: MessageId,
    /// By which carrier, where the record tells.
    pub by: Option<Carrier>,
    /// It stands in the result of a tool.
    pub in_result: bool,
    /// The body, or a part of it, without quotation marks.
    pub piece: String,
}

/// What a block is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What an explicit question matched; absent: whatever is due.
    pub among: Option<&'a [MessageId]>,
    /// Shown whatever became of it before.
    pub also: Option<MessageId>,
    /// Most messages.
    pub limit: usize,
    /// Show without offering.
    pub peek: bool,
    /// Most characters of all messages together.
    pub budget: usize,
    /// The reader's home directory.
    pub home: &'a str,
}

impl Ask<'_> {
    /// Whatever is due.
    pub const DUE: Self = Self { among: None, also: None, limit: usize::MAX, peek: false, budget: BLOCK_CHARS_MAX, home: "" };
}

/// What stands at the end of a tool result.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Whole lines; empty where nothing is to be said.
    pub text: String,
    /// Messages that it carries and the broker must be told about.
    pub offered: Vec<MessageId>,
    /// How many messages it shows.
    pub shown: usize,
}

/// What a push carrier is to hand over.
#[derive(Debug)]
pub struct Post {
    /// The messages, oldest first, without their texts.
    pub messages: Vec<Message>,
    /// What the model is to be shown: a block, or for the channel one message.
    pub text: String,
}

impl Post {
    /// The messages' ids.
    pub fn ids(&self) -> Vec<MessageId> {
        self.messages.iter().map(|message| message.id).collect()
    }
}

/// Messages in the form in which they are shown.
pub(super) struct Quoted {
    pub(super) text: String,
    /// How far each body goes.
    pub(super) shown: Vec<(MessageId, usize)>,
    /// Messages that were wanted and had no room.
    pub(super) left: usize,
}
