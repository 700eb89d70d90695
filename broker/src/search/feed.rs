//! What of the store is to be indexed next.
//!
//! Knows the store and how far the index is. Does not know the index.

use std::ops::ControlFlow;

use peer_proto::ids::MessageId;

use super::wire::{Cursor, Entry, Party, Put};
use crate::store::{Reference, Snapshot, Span, StoreError};

/// What one snapshot is held for.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 1024 * 1024;

/// One batch of work.
#[derive(Debug)]
pub(super) enum Batch {
    /// The index has everything.
    Nothing,
    /// This is to be indexed, and then the index is there.
    Work { puts: Vec<Put>, cursor: Cursor, bytes: usize },
    /// The store no longer knows what the index has missed: it must be made anew.
    Behind,
}

/// Whether an index that is so far can be of this store.
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

/// What comes after `cursor`.
pub(super) fn batch(store: &Snapshot, mut cursor: Cursor) -> Result<Batch, StoreError> {
    let mut puts = Vec::new();
    let bounds = store.reindex_bounds()?;
    if !cursor.things {
        for reference in store.notes_and_tasks()? {
            puts.push(put_of(store, reference)?);
        }
        cursor = Cursor { message: None, row: bounds.map_or(0, |(_, last)| last), things: true };
        return Ok(Batch::Work { bytes: puts.iter().map(bytes_of).sum(), puts, cursor });
    }
    if bounds.is_some_and(|(first, _)| first > cursor.row + 1) {
        return Ok(Batch::Behind);
    }
    let mut any = false;
    for (number, reference) in store.reindex_after(cursor.row, BATCH_ROWS)? {
        any = true;
        match reference {
            // Its turn comes, and it is seen as it is then.
            Some(Reference::Message(id)) if Some(id) > cursor.message => {}
            Some(reference) => puts.push(put_of(store, reference)?),
            // Written by a newer broker.
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
        let entry = Some(Entry::Message(Box::new(message), parties(store, id)?));
        puts.push(Put { reference: Reference::Message(id), fresh: true, entry });
        cursor.message = Some(id);
    }
    if next.is_some() {
        // Damaged messages are not visited: the batch may end with them, and there are more.
        any = true;
        cursor.message = next;
    }
    if !any {
        return Ok(Batch::Nothing);
    }
    Ok(Batch::Work { bytes: puts.iter().map(bytes_of).sum(), puts, cursor })
}

/// One thing as it is now, in place of what it was.
fn put_of(store: &Snapshot, reference: Reference) -> Result<Put, StoreError> {
    let entry = match &reference {
        Reference::Message(id) => match store.message(*id)? {
            Some(message) => Some(Entry::Message(Box::new(message), parties(store, *id)?)),
            None => None,
        },
        Reference::Note(key) => store.note(key)?.map(|note| Entry::Note(Box::new(note))),
        Reference::Task(id) => store.task(*id)?.map(|task| Entry::Task(Box::new(task))),
    };
    Ok(Put { reference, fresh: false, entry })
}

fn parties(store: &Snapshot, id: MessageId) -> Result<Vec<Party>, StoreError> {
    Ok(store.deliveries(id)?.iter().map(Party::of).collect())
}

/// About what a thing takes in memory until it is committed: an entry takes some whatever it says.
fn bytes_of(put: &Put) -> usize {
    64 + match &put.entry {
        Some(Entry::Message(message, _)) => message.text.len(),
        Some(Entry::Note(note)) => note.value.len(),
        Some(Entry::Task(task)) => task.description.len() + task.result.len(),
        None => 0,
    }
}
