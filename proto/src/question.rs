//! Questions: messages that their first answer closes.
//!
//! Knows the requests about questions and their answers. Does not know when a question closes: the
//! broker's rules do.

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::ids::{MessageId, Timestamp};

/// The source that the broker sets for an answer without sources.
pub const FROM_MEMORY: &str = "from memory";

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Names, ids, `#channel`, `@group`. Empty: all other peers in the same repository, or else in
    /// the same directory.
    pub to: Vec<String>,
    /// The question: not empty, at most `text_bytes_max` bytes with the hint.
    pub question: String,
    /// Where to look for the answer, or why it is asked.
    pub context_hint: Option<String>,
    /// Milliseconds after which it expires without an answer; absent:
    /// [`QUESTION_TTL_MS`](crate::limits::QUESTION_TTL_MS).
    pub ttl_ms: Option<u64>,
    /// The asker's name for this act: a repeat gets the first outcome.
    pub idempotency_key: Option<String>,
}

/// The answer to a question. The first one closes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The question.
    pub question: MessageId,
    /// The answer: not empty, at most `text_bytes_max` bytes.
    pub answer: String,
    /// The sources of the answer; empty: it is from memory, and the asker is told so.
    pub sources: Vec<String>,
    /// The answerer's name for this act: a repeat gets the first outcome.
    pub idempotency_key: Option<String>,
}

/// A query for questions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionsQuery {
    /// Only open questions.
    pub open: bool,
    /// Only questions that this peer asked or was asked; absent: the caller's (for an operator:
    /// all).
    pub peer: Option<String>,
    /// Start after this one: the newest come first.
    pub before: Option<MessageId>,
}

/// The state of a question.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum QuestionState {
    /// It waits for its answer.
    Open,
    /// It has its answer.
    Answered,
    /// Its time ended without an answer.
    Expired,
    /// Its asker withdrew it.
    Cancelled,
}

impl QuestionState {
    /// The state's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A question without its text, which is in the message of the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionInfo {
    /// The question's message.
    pub question: MessageId,
    /// The current name of its asker.
    pub from: String,
    /// The recipients: peers' names, or a channel or group.
    pub to: Vec<String>,
    /// Its state.
    pub state: QuestionState,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The name of the answering peer, and the answer's message.
    pub answered: Option<(String, MessageId)>,
}
