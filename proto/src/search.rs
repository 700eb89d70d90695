//! Search over messages, questions, answers, notes and tasks.
//!
//! Knows queries and hits. Does not know the index or who may see a hit: the broker does.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::ids::Timestamp;

/// A query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchQuery {
    /// Words, all of which must match; `"several words"` is a phrase, `word*` a beginning.
    pub text: String,
    /// Only these kinds; empty: all.
    pub kinds: Vec<HitKind>,
    /// Only messages from or to this peer, by name or id.
    pub peer: Option<String>,
    /// Only messages in this channel.
    pub channel: Option<String>,
    /// Only messages of this thread.
    pub thread: Option<String>,
    /// Only results since this time.
    pub since: Option<Timestamp>,
    /// Newest first, instead of best match first.
    pub newest: bool,
    /// At most this many, and never more than
    /// [`PAGE_ENTRIES_MAX`](crate::limits::PAGE_ENTRIES_MAX).
    pub limit: u32,
    /// Skip this many hits.
    pub offset: u32,
}

/// A kind of search result.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum HitKind {
    /// A message that is neither question nor answer.
    Message,
    /// A question.
    Question,
    /// An answer.
    Answer,
    /// A note.
    Note,
    /// A task.
    Task,
}

impl HitKind {
    /// All kinds, in wire order.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The kind's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A search result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// Its kind.
    pub kind: HitKind,
    /// A message's or task's id, or a note's key.
    pub id: String,
    /// The name of the peer that wrote it.
    pub from: String,
    /// The recipients, or the channel; empty for notes and tasks.
    pub to: Vec<String>,
    /// When it was sent or changed.
    pub at: Timestamp,
    /// The part of its text that matches best, in one line.
    pub snippet: String,
    /// The byte ranges of the snippet that match.
    pub matches: Vec<(u32, u32)>,
}
