//! The tables: their names, keys and values.
//!
//! Knows the layout of rows. Does not know the meaning of a record's bytes (`record`), nor when
//! rows move (`mod`).
//!
//! Deliveries are divided into tables by stage, so that the cost of start-up, sends and counts does
//! not grow with history. `pending` has everything that the core keeps in memory. A settled
//! delivery is read only with its message. All of these tables are keyed by message, then
//! recipient: new rows are on the last page, and the deliveries of one message are neighbours. This
//! also holds after an operator or a bind moved them to another recipient.
//!
//! Text keys are plain bytes, because redb panics over a text that is no UTF-8, and a damaged one
//! may be none.
//!
//! Every version reads the table `meta`, even an older one that must refuse the file, so its form
//! never changes. Its values are plain bytes, while every record begins with a version byte of its
//! own. The records in `meta` have one too, because no version needs them in order to refuse.

use std::ops::RangeInclusive;

use peer_core::record::DeliveryRecord;
use peer_proto::ids::MessageId;
use peer_proto::message::Stage;
use redb::TableDefinition;

use super::pages::format::{Keys, Shape};

/// Single values, by name.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The schema version, a `u64`. Present in every database of ours.
pub(super) const META_SCHEMA: &str = "schema";

/// Version and executable of the program that brought the schema to its version, as UTF-8.
pub(super) const META_WRITTEN_BY: &str = "written_by";

/// The identity that the next new peer gets, a record of a `u64`. Absent until the core stored one.
pub(super) const META_NEXT_PEER: &str = "next_peer";

/// The person's settings for all peers, a record. Absent until the person set something.
pub(super) const META_SETTINGS: &str = "settings";

/// The person's pauses, a record. Absent until the person paused something.
pub(super) const META_PAUSES: &str = "pauses";

/// The last totals, a record. Absent: they must be counted.
pub(super) const META_KEPT: &str = "kept";

/// Peer -> its record.
pub(super) const PEERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("peers");

/// Message -> its record, text included. In order of time.
pub(super) const MESSAGES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("messages");

/// Message and recipient.
pub(super) type DeliveryKey = (u128, u64);

/// A table of deliveries.
pub(super) type DeliveryTable = TableDefinition<'static, DeliveryKey, &'static [u8]>;

/// Stored, offered, held and relayed deliveries.
pub(super) const PENDING: DeliveryTable = TableDefinition::new("pending");

/// Dead letters. They are separate from the expired ones, so that counting them only reads the
/// table's head.
pub(super) const DEAD: DeliveryTable = TableDefinition::new("dead");

/// Deliveries whose time to live ended.
pub(super) const EXPIRED: DeliveryTable = TableDefinition::new("expired");

/// Presented, cancelled, dropped and posted deliveries.
pub(super) const SETTLED: DeliveryTable = TableDefinition::new("settled");

/// All tables of deliveries: each delivery is in exactly one.
pub(super) const DELIVERIES: [DeliveryTable; 4] = [PENDING, DEAD, EXPIRED, SETTLED];

/// Returns which of [`DELIVERIES`] has a delivery of this stage. `None` for `Leased`, which is
/// never stored.
pub(super) fn table_of(stage: Stage) -> Option<usize> {
    match stage {
        Stage::Stored | Stage::Offered | Stage::Held | Stage::Relayed => Some(0),
        Stage::Dead => Some(1),
        Stage::Expired => Some(2),
        Stage::Presented | Stage::Cancelled | Stage::Dropped | Stage::Posted => Some(3),
        Stage::Leased => None,
    }
}

/// Channel or group, in lower case and with its sign -> its record.
pub(super) const CHANNELS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("channels");

/// A question's message -> its record.
pub(super) const QUESTIONS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("questions");

/// Task -> its record.
pub(super) const TASKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("tasks");

/// A note's key -> its record, value included.
pub(super) const NOTES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("notes");

/// The identity that the next new task gets, a record of a `u64`. Absent until there was one.
pub(super) const META_NEXT_TASK: &str = "next_task";

/// Another broker -> the record of the link to it.
pub(super) const LINKS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("links");

/// A message's origin, the message and its recipient here, big-endian -> the revision of the receipt
/// that is due.
pub(super) const RECEIPTS: TableDefinition<'_, &[u8], u32> = TableDefinition::new("receipts");

/// A message's origin and the message, big-endian -> nothing: it was withdrawn before it came.
pub(super) const WITHDRAWN: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("withdrawn");

/// This broker's identity on links, a record. Absent: no link was ever made.
pub(super) const META_BROKER: &str = "broker";

/// A change that the search index must read again: its kind, its number, its key.
pub(super) type ReferenceRow<'a> = (u8, u128, &'a [u8]);

/// A number -> a change that the search index must read again.
pub(super) const REINDEX: TableDefinition<'_, u64, ReferenceRow<'_>> =
    TableDefinition::new("reindex");

/// Sender and its idempotency key -> the message that the key named.
pub(super) const IDEMPOTENCY: TableDefinition<'_, (u64, &[u8]), u128> =
    TableDefinition::new("idempotency");

/// Returns the key of a delivery in its table.
pub(super) fn key_of(record: &DeliveryRecord) -> DeliveryKey {
    (record.message.to_u128(), record.peer.0)
}

/// Returns the keys of all deliveries of one message.
pub(super) fn keys_of_message(message: MessageId) -> RangeInclusive<DeliveryKey> {
    (message.to_u128(), 0)..=(message.to_u128(), u64::MAX)
}

const fn shape(keys: Keys, key: Option<usize>) -> Shape {
    Shape { key, value: None, keys, value_min: 0 }
}

/// The layout of the rows of each table. redb panics over a text that is no UTF-8, so a damaged
/// `meta` is not read.
pub(super) const SHAPES: [(&str, Shape); 16] = [
    ("meta", shape(Keys::Guarded, None)),
    ("peers", shape(Keys::Number, Some(8))),
    ("messages", shape(Keys::Number, Some(16))),
    ("pending", shape(Keys::Delivery, Some(24))),
    ("dead", shape(Keys::Delivery, Some(24))),
    ("expired", shape(Keys::Delivery, Some(24))),
    ("settled", shape(Keys::Delivery, Some(24))),
    ("channels", shape(Keys::Bytes, None)),
    ("questions", shape(Keys::Number, Some(16))),
    ("tasks", shape(Keys::Number, Some(8))),
    ("notes", shape(Keys::Bytes, None)),
    ("links", shape(Keys::Number, Some(16))),
    ("receipts", Shape { value: Some(4), ..shape(Keys::Bytes, None) }),
    ("withdrawn", shape(Keys::Bytes, None)),
    // Two numbers and bytes.
    ("reindex", Shape { value_min: 17, ..shape(Keys::Number, Some(8)) }),
    ("idempotency", Shape { value: Some(16), ..shape(Keys::NumberAndBytes, None) }),
];
