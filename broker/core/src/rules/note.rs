//! Notes: texts that peers share under keys.
//!
//! Knows each note's head and when it expires. The values are in the store alone. Does not know
//! their meaning. Invariants: each change of a note increments its version by one. An expired note
//! is invisible even before it is deleted.

use std::ops::Bound;

use peer_proto::ids::Timestamp;
use peer_proto::limits::{
    NOTE_BYTES_MAX, NOTE_KEY_BYTES_MAX, NOTE_TAG_BYTES_MAX, NOTE_TAGS_MAX, NOTES_MAX,
    PAGE_ENTRIES_MAX, TTL_MS_MAX, TTL_MS_MIN,
};
use peer_proto::note::{NoteDraft, NoteInfo, NoteRequest, is_key, is_tag};
use peer_proto::request::Reply;
use peer_proto::text::is_blank;

use crate::broker::Broker;
use crate::input::{Facts, Now};
use crate::rejection::{Crowd, Rejection};
use crate::shared::{NoteHead, NoteRecord, SharedKey, SharedRecord};
use crate::state::notes::is_live;
use crate::step::{Change, Query};
use crate::turn::Turn;
use crate::who::Caller;

/// Characters of the current value that the refusal of a write quotes.
const PRESENT_CHARS_MAX: usize = 500;

/// Expired notes that one step deletes.
const FORGOTTEN_AT_ONCE_MAX: usize = 256;

/// A note as this request will store it.
struct Writing {
    key: String,
    value: String,
    tags: Vec<String>,
    expires_at: Option<Timestamp>,
    author: String,
}

impl Broker {
    /// Returns the key of the note whose value this request needs.
    pub(crate) fn note_to_read(request: &NoteRequest) -> Option<String> {
        match request {
            NoteRequest::Set(NoteDraft { key, if_version: Some(_), .. })
            | NoteRequest::Append { key, .. }
            | NoteRequest::Delete { key, if_version: Some(_) } => {
                Some(key.clone()).filter(|key| key.len() <= NOTE_KEY_BYTES_MAX)
            }
            _ => None,
        }
    }

    pub(crate) fn note(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: NoteRequest,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let (author, _) = self.sender(caller)?;
        let present = facts.note.as_ref().filter(|note| is_live(turn.now, &note.head));
        match request {
            NoteRequest::Get(key) => {
                check_key(&key)?;
                self.notes.live(turn.now, &key).ok_or_else(|| unknown(&key))?;
                turn.query(caller, Query::Note(key));
                Ok(())
            }
            NoteRequest::Set(draft) => {
                let NoteDraft { key, value, tags, ttl_ms, if_version } = draft;
                check_key(&key)?;
                let tags = checked_tags(tags)?;
                if ttl_ms.is_some_and(|ttl_ms| !(TTL_MS_MIN..=TTL_MS_MAX).contains(&ttl_ms)) {
                    return Err(Rejection::OutOfBounds {
                        what: "the time to live",
                        bound: "1 second to 30 days".to_owned(),
                    });
                }
                self.check_version(turn.now, &key, if_version, present)?;
                let expires_at = ttl_ms.map(|ttl_ms| turn.now.wall.plus_ms(ttl_ms));
                self.write_note(
                    turn,
                    caller,
                    Writing { key, value, tags, expires_at, author: author.name },
                    facts,
                )
            }
            NoteRequest::Append { key, text } => {
                check_key(&key)?;
                let (value, tags, expires_at) = match present {
                    Some(note) => (
                        format!("{}\n{text}", note.value),
                        note.head.tags.clone(),
                        note.head.expires_at,
                    ),
                    None => (text.clone(), Vec::new(), None),
                };
                check_text(&text)?;
                self.write_note(
                    turn,
                    caller,
                    Writing { key, value, tags, expires_at, author: author.name },
                    facts,
                )
            }
            NoteRequest::List { prefix, tag, after } => {
                self.list_notes(turn, caller, &prefix, tag.as_deref(), after.as_deref());
                Ok(())
            }
            NoteRequest::Delete { key, if_version } => {
                check_key(&key)?;
                self.check_version(turn.now, &key, if_version, present)?;
                let head = self.notes.live(turn.now, &key).cloned().ok_or_else(|| unknown(&key))?;
                self.notes.remove(&key);
                turn.change(Change::RemoveShared(SharedKey::Note(key)));
                turn.reply(caller, Reply::Note(info(&head)));
                Ok(())
            }
        }
    }

    /// Refuses a write if its writer has not read the current version.
    fn check_version(
        &self,
        now: Now,
        key: &str,
        if_version: Option<u64>,
        present: Option<&NoteRecord>,
    ) -> Result<(), Rejection> {
        let version = self.notes.live(now, key).map_or(0, |head| head.version);
        if if_version.is_none_or(|expected| expected == version) {
            return Ok(());
        }
        let value = present
            .map(|note| note.value.chars().take(PRESENT_CHARS_MAX).collect())
            .unwrap_or_default();
        Err(Rejection::VersionConflict { key: key.to_owned(), version, value })
    }

    fn write_note(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        writing: Writing,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let Writing { key, value, tags, expires_at, author } = writing;
        if value.len() > NOTE_BYTES_MAX {
            let bound = format!("at most {NOTE_BYTES_MAX} bytes; this would be {}", value.len());
            return Err(Rejection::OutOfBounds { what: "the note", bound });
        }
        check_text(&value)?;
        facts.check_space()?;
        let before = self.notes.live(turn.now, &key);
        if before.is_none() && self.notes.len() >= NOTES_MAX {
            return Err(Rejection::TooMany { what: Crowd::Notes, count: NOTES_MAX });
        }
        let version = before.map_or(0, |head| head.version) + 1;
        let bytes = value.len() as u32;
        let head =
            NoteHead { key, tags, version, author, changed_at: turn.now.wall, expires_at, bytes };
        turn.reply(caller, Reply::Note(info(&head)));
        turn.change(Change::PutShared(Box::new(SharedRecord::Note(NoteRecord {
            head: head.clone(),
            value,
        }))));
        self.notes.put(head);
        Ok(())
    }

    fn list_notes(
        &self,
        turn: &mut Turn<'_>,
        caller: Caller,
        prefix: &str,
        tag: Option<&str>,
        after: Option<&str>,
    ) {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let tagged =
            |head: &&NoteHead| tag.is_none_or(|tag| head.tags.iter().any(|own| own == tag));
        let heads = self.notes.from(start);
        let mut found = heads
            .take_while(|head| head.key.starts_with(prefix))
            .filter(|head| is_live(turn.now, head))
            .filter(tagged);
        let notes: Vec<NoteInfo> = found.by_ref().take(PAGE_ENTRIES_MAX).map(info).collect();
        let next = found.next().and_then(|_| notes.last()).map(|note| note.key.clone());
        turn.reply(caller, Reply::Notes { notes, next });
    }

    /// Deletes expired notes, a limited number per step. If more remain, the next timeout is
    /// immediate.
    pub(crate) fn forget_notes(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            let Some(key) = self.notes.expired(turn.now) else { break };
            self.notes.remove(&key);
            turn.change(Change::RemoveShared(SharedKey::Note(key)));
        }
    }
}

fn unknown(key: &str) -> Rejection {
    Rejection::UnknownNote { key: key.to_owned() }
}

fn info(head: &NoteHead) -> NoteInfo {
    NoteInfo {
        key: head.key.clone(),
        value: None,
        tags: head.tags.clone(),
        version: head.version,
        author: head.author.clone(),
        changed_at: head.changed_at,
        expires_at: head.expires_at,
        bytes: head.bytes,
    }
}

fn check_text(text: &str) -> Result<(), Rejection> {
    if is_blank(text) {
        return Err(Rejection::OutOfBounds {
            what: "the note",
            bound: "at least one visible character".to_owned(),
        });
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), Rejection> {
    if is_key(key) {
        return Ok(());
    }
    let bound = format!("1 to {NOTE_KEY_BYTES_MAX} letters, digits, ., _, -, / or :");
    Err(Rejection::OutOfBounds { what: "the key", bound })
}

fn checked_tags(mut tags: Vec<String>) -> Result<Vec<String>, Rejection> {
    tags.sort();
    tags.dedup();
    if tags.len() <= NOTE_TAGS_MAX && tags.iter().all(|tag| is_tag(tag)) {
        return Ok(tags);
    }
    let bound = format!(
        "at most {NOTE_TAGS_MAX}, each 1 to {NOTE_TAG_BYTES_MAX} letters, digits, ., _ or -"
    );
    Err(Rejection::OutOfBounds { what: "the list of tags", bound })
}
