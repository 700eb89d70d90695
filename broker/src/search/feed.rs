//! Selects the next items of the store to index.
//!
//! Knows the store and the position of the index. Does not know the index.

use std::ops::ControlFlow;

use peer_proto::ids::MessageId;

use super::wire::{Cursor, IndexEntry, Party, Put};
use crate::store::{Reference, Snapshot, Span, StoreError};

/// The most rows that are read from one snapshot.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 1024 * 1024;

/// One batch of work.
#[derive(Debug)]
pub(super) enum Batch {
    /// The index has everything.
    Nothing,
    /// The items to index, and the position after them.
    Work { puts: Vec<Put>, cursor: Cursor, bytes: usize },
    /// The store has deleted the changes that the index has missed: it must be rebuilt.
    Behind,
}

/// Whether an index with this position can belong to this store.
pub(super) fn fits(store: &Snapshot, cursor: Cursor) -> Result<bool, StoreError> {
    if cursor == Cursor::default() {
        return Ok(true);
    }
    let knows_newest = match cursor.message {
        Some(id) => store.message(id)?.is_some(),
        None => true,
    };
    Ok(knows_newest
        && match store.reindex_bounds()? {
            Some((first, last)) => first <= cursor.row + 1 && cursor.row <= last,
            None => cursor.row == 0,
        })
}

/// Returns the batch after `cursor`.
pub(super) fn batch(store: &Snapshot, mut cursor: Cursor) -> Result<Batch, StoreError> {
    let mut puts = Vec::new();
    let bounds = store.reindex_bounds()?;
    if !cursor.shared {
        for reference in store.notes_and_tasks()? {
            puts.push(put_of(store, reference)?);
        }
        cursor = Cursor { message: None, row: bounds.map_or(0, |(_, last)| last), shared: true };
        return Ok(Batch::Work { bytes: puts.iter().map(bytes_of).sum(), puts, cursor });
    }
    if bounds.is_some_and(|(first, _)| first > cursor.row + 1) {
        return Ok(Batch::Behind);
    }
    let mut any = false;
    for (number, reference) in store.reindex_after(cursor.row, BATCH_ROWS)? {
        any = true;
        match reference {
            // It is a later item of this walk, and is indexed in its state then.
            Some(Reference::Message(id)) if Some(id) > cursor.message => {}
            Some(reference) => puts.push(put_of(store, reference)?),
            // A newer broker wrote it.
            None => {}
        }
        cursor.row = number;
    }
    let (mut messages, mut bytes) = (Vec::new(), 0);
    let span = Span { after: cursor.message, oldest_first: true, ..Span::default() };
    let next = store.scan(span, BATCH_ROWS, |message| {
        bytes += message.text.len();
        messages.push(message);
        if bytes >= BATCH_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    for message in messages {
        any = true;
        let id = message.head.id;
        let entry = Some(IndexEntry::Message(Box::new(message), parties(store, id)?));
        puts.push(Put { reference: Reference::Message(id), fresh: true, entry });
        cursor.message = Some(id);
    }
    if next.is_some() {
        // Damaged messages are not visited. The batch may end with them, and there are more.
        any = true;
        cursor.message = next;
    }
    if !any {
        return Ok(Batch::Nothing);
    }
    Ok(Batch::Work { bytes: puts.iter().map(bytes_of).sum(), puts, cursor })
}

/// Reads one item in its current state.
fn put_of(store: &Snapshot, reference: Reference) -> Result<Put, StoreError> {
    let entry = match &reference {
        Reference::Message(id) => match store.message(*id)? {
            Some(message) => Some(IndexEntry::Message(Box::new(message), parties(store, *id)?)),
            None => None,
        },
        Reference::Note(key) => store.note(key)?.map(|note| IndexEntry::Note(Box::new(note))),
        Reference::Task(id) => store.task(*id)?.map(|task| IndexEntry::Task(Box::new(task))),
    };
    Ok(Put { reference, fresh: false, entry })
}

fn parties(store: &Snapshot, id: MessageId) -> Result<Vec<Party>, StoreError> {
    Ok(store.deliveries(id)?.iter().map(Party::of).collect())
}

/// Estimates the memory of an item until it is committed. Each entry has a fixed cost.
fn bytes_of(put: &Put) -> usize {
    64 + match &put.entry {
        Some(IndexEntry::Message(message, _)) => message.text.len(),
        Some(IndexEntry::Note(note)) => note.value.len(),
        Some(IndexEntry::Task(task)) => task.description.len() + task.result.len(),
        None => 0,
    }
}
