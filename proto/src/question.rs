//! Questions: requests that their first answer closes.

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::ids::{MessageId, Timestamp};

/// What the broker names as the source of an answer that names none.
pub const FROM_MEMORY: &str = "from memory";

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Names, ids, `#channel`, `@group`. Empty: whoever else works in the same repository, or else
    /// the same directory.
    pub to: Vec<String>,
    /// The question: not empty, at most `text_bytes_max` bytes with the hint.
    pub question: String,
    /// Where to look, or why it is asked.
    pub context_hint: Option<String>,
    /// Milliseconds after which it expires unanswered; absent:
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
    /// What it rests on; empty: it is from memory, and the asker is told so.
    pub sources: Vec<String>,
    /// The answerer's name for this act: a repeat gets the first outcome.
    pub idempotency_key: Option<String>,
}

/// Which questions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionsQuery {
    /// Only open ones.
    pub open: bool,
    /// Only those that this peer asked or was asked; absent: the caller (for an operator: anybody).
    pub peer: Option<String>,
    /// Start after this one: they come newest first.
    pub before: Option<MessageId>,
}

/// Where a question stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum QuestionState {
    /// It waits for its answer.
    Open,
    /// It has its answer.
    Answered,
    /// Its time ended without one.
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

/// A question, without its text: that is the message of the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionInfo {
    /// The question's message.
    pub question: MessageId,
    /// Who asked, by the name of now.
    pub from: String,
    /// Who was asked: peers' names, or a channel or group.
    pub to: Vec<String>,
    /// Where it stands.
    pub state: QuestionState,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Who answered, and the answer's message.
    pub answered: Option<(String, MessageId)>,
}
