//! Searching what was said, asked, noted and planned.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::ids::Timestamp;

/// What is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchQuery {
    /// Words; `"several words"` is a phrase, `word*` a beginning. All of them must be found.
    pub text: String,
    /// Only these; empty: everything.
    pub kinds: Vec<HitKind>,
    /// Only what this peer said or was sent, by name or id.
    pub peer: Option<String>,
    /// Only what was said in this channel.
    pub channel: Option<String>,
    /// Only what was said in this thread.
    pub thread: Option<String>,
    /// Only what is not older.
    pub since: Option<Timestamp>,
    /// Newest first, instead of best first.
    pub newest: bool,
    /// At most this many, and never more than
    /// [`PAGE_ENTRIES_MAX`](crate::limits::PAGE_ENTRIES_MAX).
    pub limit: u32,
    /// Leave out this many from the front.
    pub offset: u32,
}

/// What a search can find.
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

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// What it is.
    pub kind: HitKind,
    /// A message's or task's id, or a note's key.
    pub id: String,
    /// Who said, wrote or made it.
    pub from: String,
    /// To whom; the channel; empty for notes and tasks.
    pub to: Vec<String>,
    /// When.
    pub at: Timestamp,
    /// The part of its text that fits best, in one line.
    pub snippet: String,
    /// Byte ranges of the snippet that were looked for.
    pub matches: Vec<(u32, u32)>,
}
