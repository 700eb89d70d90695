//! Notes: texts under keys that sessions share.
//!
//! Knows the requests about notes and their answers. Does not know when a note expires: the
//! broker's rules do.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::limits::{NOTE_KEY_BYTES_MAX, NOTE_TAG_BYTES_MAX};

/// A request about notes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoteRequest {
    /// Read one note. Answer: [`Reply::Note`](crate::request::Reply::Note).
    Get(String),
    /// Write a note; an existing one is replaced. Answer: the note, without its value.
    Set(NoteDraft),
    /// Add a line to a note; a missing note is created. Answer: the note, without its value.
    Append {
        /// The key.
        key: String,
        /// The text to add, after a line end.
        text: String,
    },
    /// List notes by key, without their values. Answer:
    /// [`Reply::Notes`](crate::request::Reply::Notes).
    List {
        /// Only keys that begin with this.
        prefix: String,
        /// Only notes with this tag.
        tag: Option<String>,
        /// Start after this key.
        after: Option<String>,
    },
    /// Delete a note. Answer: the deleted note, without its value.
    Delete {
        /// The key.
        key: String,
        /// Delete it only if it still has this version.
        if_version: Option<u64>,
    },
}

/// A note to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteDraft {
    /// The key: letters, digits, `.`, `_`, `-`, `/` and `:`, at most [`NOTE_KEY_BYTES_MAX`].
    pub key: String,
    /// The value: at most [`NOTE_BYTES_MAX`](crate::limits::NOTE_BYTES_MAX) bytes.
    pub value: String,
    /// The tags of the note.
    pub tags: Vec<String>,
    /// Milliseconds after which it is deleted; absent: never.
    pub ttl_ms: Option<u64>,
    /// Write only if the note still has this version; 0: only if no such note exists.
    pub if_version: Option<u64>,
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteInfo {
    /// Its key.
    pub key: String,
    /// Its value; absent if only its head was asked for.
    pub value: Option<String>,
    /// The tags of the note.
    pub tags: Vec<String>,
    /// Counts up from 1 with each change.
    pub version: u64,
    /// The name that its last author had then.
    pub author: String,
    /// When it changed last.
    pub changed_at: Timestamp,
    /// When it is deleted.
    pub expires_at: Option<Timestamp>,
    /// The size of its value.
    pub bytes: u32,
}

/// Whether a text may be the key of a note.
#[must_use]
pub fn is_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
    (1..=NOTE_KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(plain)
}

/// Whether a text may be the tag of a note: letters, digits, `.`, `_` and `-`.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NOTE_TAG_BYTES_MAX).contains(&tag.len()) && tag.bytes().all(plain)
}
