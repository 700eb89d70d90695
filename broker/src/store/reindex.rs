//! Changes that the search index must read again: all but new messages.
//!
//! Each such change is one row with a number, written in the transaction of the change itself, so
//! that neither can be lost alone. New messages need no row: their ids tell what the index has not
//! read. Does not know the index.

use std::ops::Bound;

use peer_core::record::DeliveryRecord;
use peer_core::shared::{SharedKey, SharedRecord};
use peer_core::step::Change;
use peer_proto::ids::{MessageId, TaskId};
use peer_proto::message::TraceEvent;
use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::error::{Doing, StoreError, WRITE};
use super::schema::{self, ReferenceRow};
use super::touched::Touched;

/// The most rows that are retained. An index that is further behind is rebuilt.
pub(super) const ROWS_MAX: u64 = 100_000;

/// An item that the index may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reference {
    /// A message.
    Message(MessageId),
    /// A note, by its key.
    Note(String),
    /// A task.
    Task(TaskId),
}

impl Reference {
    fn row(&self) -> ReferenceRow<'_> {
        match self {
            Self::Message(id) => (0, id.to_u128(), b""),
            Self::Note(key) => (1, 0, key.as_bytes()),
            Self::Task(id) => (2, u128::from(id.0), b""),
        }
    }

    /// Returns the reference of a row. `None`: it refers to no possible item.
    pub(super) fn of((kind, number, key): ReferenceRow<'_>) -> Option<Self> {
        match kind {
            0 => MessageId::try_from(number).ok().map(Self::Message),
            1 => str::from_utf8(key).ok().map(|key| Self::Note(key.to_owned())),
            2 => u64::try_from(number).ok().map(|number| Self::Task(TaskId(number))),
            _ => None,
        }
    }

    /// Returns the item that a change affects in the index, new messages apart.
    fn changed_by(change: &Change) -> Option<Self> {
        match change {
            Change::RemoveMessage(id) => Some(Self::Message(*id)),
            Change::PutDelivery { record, .. } => {
                moves_or_hides(record).then_some(Self::Message(record.message))
            }
            Change::RemoveDelivery { message, .. } => Some(Self::Message(*message)),
            Change::PutShared(shared) => match &**shared {
                SharedRecord::Note(note) => Some(Self::Note(note.head.key.clone())),
                SharedRecord::Task(task) => Some(Self::Task(task.id)),
                SharedRecord::Channel(_) | SharedRecord::Question(_) => None,
            },
            Change::RemoveShared(SharedKey::Note(key)) => Some(Self::Note(key.clone())),
            Change::RemoveShared(SharedKey::Task(id)) => Some(Self::Task(*id)),
            Change::RemoveShared(SharedKey::Channel(_) | SharedKey::Question(_))
            | Change::PutMessage(_)
            | Change::PutPeer(_)
            | Change::RemovePeer(_)
            | Change::PutIdempotencyKey { .. }
            | Change::PutNextPeer(_)
            | Change::PutNextTask(_)
            | Change::PutSettings(_)
            | Change::PutPauses(_)
            | Change::PutKept(_)
            | Change::PutBroker(_)
            | Change::PutLink(_)
            | Change::RemoveLink(_)
            | Change::PutReceipt { .. }
            | Change::RemoveReceipt(_)
            | Change::PutWithdrawn { .. }
            | Change::RemoveWithdrawn { .. } => None,
        }
    }
}

/// Whether a delivery was ever held or moved to another recipient. Then the peers that may find its
/// message can change.
fn moves_or_hides(record: &DeliveryRecord) -> bool {
    let tells = |event| {
        matches!(
            event,
            TraceEvent::Held | TraceEvent::Released | TraceEvent::Requeued | TraceEvent::Reassigned
        )
    };
    record.trace.iter().any(|entry| tells(entry.event))
}

/// The rows of one transaction.
pub(super) struct Log<'txn> {
    table: Touched<'txn, u64, ReferenceRow<'static>>,
    next: Option<u64>,
}

impl<'txn> Log<'txn> {
    pub(super) fn new(writing: &'txn WriteTransaction) -> Self {
        Self { table: Touched::new(writing, schema::REINDEX), next: None }
    }

    /// Records the item that the change affects in the index.
    pub(super) fn see(&mut self, change: &Change) -> Result<(), StoreError> {
        let Some(reference) = Reference::changed_by(change) else { return Ok(()) };
        let table = self.table.open()?;
        let number = match self.next {
            Some(next) => next,
            None => {
                table.last().doing(WRITE)?.map_or(1, |(last, _)| last.value().saturating_add(1))
            }
        };
        table.insert(number, reference.row()).doing(WRITE)?;
        self.next = Some(number.saturating_add(1));
        Ok(())
    }
}

/// Whether there are rows to delete.
pub(super) fn is_long(bounds: (u64, u64), seen: u64) -> bool {
    bounds.0 < first_kept(bounds.1, seen)
}

/// Deletes the rows that the index has read, up to and including `seen`, and those beyond the
/// limit. The last row stays, because it has the last number.
pub(super) fn trim(writing: &WriteTransaction, seen: u64) -> Result<(), StoreError> {
    let mut table = writing.open_table(schema::REINDEX).doing(WRITE)?;
    let last = table.last().doing(WRITE)?.map(|(last, _)| last.value());
    let Some(last) = last else { return Ok(()) };
    let outdated = (Bound::Unbounded, Bound::Excluded(first_kept(last, seen)));
    table.retain_in::<u64, _>(outdated, |_, _| false).doing(WRITE)
}

fn first_kept(last: u64, seen: u64) -> u64 {
    seen.saturating_add(1).max(last.saturating_sub(ROWS_MAX)).min(last)
}
