//! Notes: what sessions remember together, under keys.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::limits::{NOTE_KEY_BYTES_MAX, NOTE_TAG_BYTES_MAX};

/// What is asked of notes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoteRequest {
    /// One note. Answer: [`Reply::Note`](crate::request::Reply::Note).
    Get(String),
    /// Write a note, new or in place of an old one. Answer: the note, without its value.
    Set(NoteDraft),
    /// Add a line to a note; one that is not there is made. Answer: the note, without its value.
    Append {
        /// The key.
        key: String,
        /// What is added, after a line end.
        text: String,
    },
    /// Which notes there are, by key, without their values. Answer:
    /// [`Reply::Notes`](crate::request::Reply::Notes).
    List {
        /// Only keys that begin with this.
        prefix: String,
        /// Only notes with this tag.
        tag: Option<String>,
        /// Start after this key.
        after: Option<String>,
    },
    /// Forget a note. Answer: the note that was, without its value.
    Delete {
        /// The key.
        key: String,
        /// Only if it still has this version.
        if_version: Option<u64>,
    },
}

/// A note to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteDraft {
    /// Letters, digits, `.`, `_`, `-`, `/` and `:`, at most [`NOTE_KEY_BYTES_MAX`].
    pub key: String,
    /// At most [`NOTE_BYTES_MAX`](crate::limits::NOTE_BYTES_MAX) bytes.
    pub value: String,
    /// What it is filed under.
    pub tags: Vec<String>,
    /// Milliseconds after which it is forgotten; absent: never.
    pub ttl_ms: Option<u64>,
    /// Only if the note still has this version; 0: only if there is none.
    pub if_version: Option<u64>,
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteInfo {
    /// Its key.
    pub key: String,
    /// What it says; absent where only its head was asked for.
    pub value: Option<String>,
    /// What it is filed under.
    pub tags: Vec<String>,
    /// Counts up from 1 with each change.
    pub version: u64,
    /// Who changed it last, by the name of that time.
    pub author: String,
    /// When it changed last.
    pub changed_at: Timestamp,
    /// When it is forgotten.
    pub expires_at: Option<Timestamp>,
    /// The size of its value.
    pub bytes: u32,
}

/// Whether a note may stand under this key.
#[must_use]
pub fn is_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
    (1..=NOTE_KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(plain)
}

/// Whether a note may be filed under this tag: letters, digits, `.`, `_` and `-`.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NOTE_TAG_BYTES_MAX).contains(&tag.len()) && tag.bytes().all(plain)
}
