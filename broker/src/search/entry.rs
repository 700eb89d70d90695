//! Entries: the indexed fields of each message, note and task.
//!
//! Knows the fields. Does not know how they are searched. Each change here must increment the
//! index's format.

use peer_core::record::MessageRecord;
use peer_core::shared::{NoteRecord, TaskRecord};
use peer_proto::message::Kind;
use peer_proto::search::HitKind;
use tantivy::TantivyDocument;
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions,
};

use super::wire::{IndexEntry, Party};
use crate::store::Reference;

/// The channel of a message outside of channels that is not private. A channel's name begins with
/// its sign.
pub(super) const DIRECT: &str = "direct";

/// In `kept`: the message is held from at least one of its recipients.
pub(super) const KEPT_FROM_SOME: u64 = u64::MAX;

/// In `kept`: the message is held from all of its recipients.
pub(super) const KEPT_FROM_ALL: u64 = u64::MAX - 1;

/// The fields of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    /// The message's or task's id, or `n:` and the note's key.
    pub(super) key: Field,
    /// The note's key again, to be read. It is the only stored field.
    pub(super) note: Field,
    pub(super) kind: Field,
    /// Milliseconds since the epoch. For a message, those of its id.
    pub(super) at: Field,
    /// The rest of a message's id, or a task's number.
    pub(super) number: Field,
    pub(super) from: Field,
    /// The peers that it concerns: its sender, and all who have a delivery of it.
    pub(super) party: Field,
    /// The peers from whom it is held and not released, with [`KEPT_FROM_SOME`] and
    /// [`KEPT_FROM_ALL`].
    pub(super) kept: Field,
    pub(super) channel: Field,
    pub(super) thread: Field,
    pub(super) text: Field,
}

impl Fields {
    /// The entry of a shared record.
    pub(super) fn entry(&self, entry: &IndexEntry) -> TantivyDocument {
        match entry {
            IndexEntry::Message(message, parties) => self.message(message, parties),
            IndexEntry::Note(note) => self.note_entry(note),
            IndexEntry::Task(task) => self.task(task),
        }
    }

    /// The entry of a message.
    fn message(&self, message: &MessageRecord, deliveries: &[Party]) -> TantivyDocument {
        let (fields, head) = (self, &message.head);
        let kind = match head.kind {
            Kind::Question => HitKind::Question,
            Kind::Answer => HitKind::Answer,
            Kind::Message | Kind::Notice | Kind::Join | Kind::Leave => HitKind::Message,
        };
        let mut entry = TantivyDocument::new();
        entry.add_text(fields.key, head.id.to_string());
        entry.add_u64(fields.kind, kind as u64);
        // The time of its id, which keeps the order even when the clock goes backwards.
        entry.add_u64(fields.at, head.id.accepted_at().0);
        entry.add_u64(fields.number, head.id.to_u128() as u64 & u64::from(u32::MAX));
        entry.add_u64(fields.from, head.from.peer.0);
        entry.add_u64(fields.party, head.from.peer.0);
        for delivery in deliveries {
            if delivery.peer != head.from.peer {
                entry.add_u64(fields.party, delivery.peer.0);
            }
            if delivery.is_kept_back() {
                entry.add_u64(fields.kept, delivery.peer.0);
            }
        }
        let kept = deliveries.iter().filter(|delivery| delivery.is_kept_back()).count();
        if kept > 0 {
            entry.add_u64(fields.kept, KEPT_FROM_SOME);
            if kept == deliveries.len() {
                entry.add_u64(fields.kept, KEPT_FROM_ALL);
            }
        }
        if let Some(channel) = &head.channel {
            entry.add_text(fields.channel, channel.to_ascii_lowercase());
        }
        if !head.private && head.channel.as_ref().is_none_or(|channel| channel.starts_with('@')) {
            entry.add_text(fields.channel, DIRECT);
        }
        entry.add_text(fields.thread, &head.thread);
        entry.add_text(fields.text, &message.text);
        head.sources.iter().for_each(|source| entry.add_text(fields.text, source));
        entry
    }

    /// The entry of a note.
    fn note_entry(&self, note: &NoteRecord) -> TantivyDocument {
        let (fields, head) = (self, &note.head);
        let mut entry = TantivyDocument::new();
        entry.add_text(fields.key, key_of(&Reference::Note(head.key.clone())));
        entry.add_text(fields.note, &head.key);
        entry.add_u64(fields.kind, HitKind::Note as u64);
        entry.add_u64(fields.at, head.changed_at.0);
        entry.add_text(fields.text, &note.value);
        entry.add_text(fields.text, &head.key);
        head.tags.iter().for_each(|tag| entry.add_text(fields.text, tag));
        entry
    }

    /// The entry of a task.
    fn task(&self, task: &TaskRecord) -> TantivyDocument {
        let fields = self;
        let mut entry = TantivyDocument::new();
        entry.add_text(fields.key, task.id.to_string());
        entry.add_u64(fields.kind, HitKind::Task as u64);
        entry.add_u64(fields.at, task.changed_at.0);
        entry.add_u64(fields.number, task.id.0);
        entry.add_u64(fields.from, task.creator.0);
        for peer in
            std::iter::once(task.creator).chain(task.assignee.filter(|peer| *peer != task.creator))
        {
            entry.add_u64(fields.party, peer.0);
        }
        entry.add_text(fields.thread, task.id.to_string());
        for text in [&task.title, &task.description, &task.result] {
            entry.add_text(fields.text, text);
        }
        entry
    }
}

/// Returns the key of an item in the index.
pub(super) fn key_of(reference: &Reference) -> String {
    match reference {
        Reference::Message(id) => id.to_string(),
        Reference::Note(key) => format!("n:{key}"),
        Reference::Task(id) => id.to_string(),
    }
}

/// Returns the fields, in tantivy's form and ours.
pub(super) fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let words = TextFieldIndexing::default()
        .set_tokenizer("words")
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let fields = Fields {
        key: builder.add_text_field("key", STRING),
        note: builder.add_text_field("note", STORED),
        kind: builder.add_u64_field("kind", INDEXED | FAST),
        at: builder.add_u64_field("at", FAST),
        number: builder.add_u64_field("number", FAST),
        from: builder.add_u64_field("from", INDEXED),
        party: builder.add_u64_field("party", INDEXED),
        kept: builder.add_u64_field("kept", INDEXED),
        channel: builder.add_text_field("channel", STRING),
        thread: builder.add_text_field("thread", STRING),
        text: builder.add_text_field("text", TextOptions::default().set_indexing_options(words)),
    };
    (builder.build(), fields)
}
