//! What retention reads: how much is kept, and the oldest of it.
//!
//! Knows rows. Does not know what goes.

use std::ops::Bound;

use peer_core::input::StoredMessage;
use peer_core::record::KeptRecord;
use peer_proto::ids::{MessageId, PeerId};
use redb::{ReadTransaction, ReadableTable};

use super::error::{Doing, READ, Row, StoreError};
use super::{message_id, record, schema};

/// Bytes of texts in the store: what was counted when it was last written down, and what came since.
pub(super) fn text_bytes(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    messages: &impl ReadableTable<u128, &'static [u8]>,
) -> Result<u64, StoreError> {
    let kept: Option<KeptRecord> = match meta.get(schema::META_KEPT).doing(READ)? {
        Some(bytes) => Some(record::decode(&Row::Kept, bytes.value())?),
        None => None,
    };
    let start = kept.map_or(Bound::Unbounded, |kept| Bound::Excluded(kept.through.to_u128()));
    let mut text_bytes = kept.map_or(0, |kept| kept.text_bytes);
    for row in messages.range::<u128>((start, Bound::Unbounded)).doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        // What cannot be read is not counted: it never goes.
        let row = Row::Message(message_id(key.value())?);
        text_bytes += record::decode_head(&row, bytes.value()).map_or(0, |(head, _)| u64::from(head.text_bytes));
    }
    Ok(text_bytes)
}

/// See [`Store::stored_after`](super::Store::stored_after).
pub(super) fn stored_after(
    reading: &ReadTransaction,
    after: Option<MessageId>,
    rows_max: usize,
) -> Result<(Vec<StoredMessage>, Option<MessageId>), StoreError> {
    let messages = reading.open_table(schema::MESSAGES).doing(READ)?;
    let mut tables = Vec::with_capacity(schema::DELIVERIES.len());
    for table in schema::DELIVERIES {
        tables.push(reading.open_table(table).doing(READ)?);
    }
    let start = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_u128()));
    let (mut found, mut last, mut looked_at) = (Vec::new(), None, 0);
    for row in messages.range::<u128>((start, Bound::Unbounded)).doing(READ)? {
        if looked_at == rows_max {
            return Ok((found, last));
        }
        looked_at += 1;
        let (key, bytes) = row.doing(READ)?;
        let id = message_id(key.value())?;
        last = Some(id);
        let Ok((head, idempotency_key)) = record::decode_head(&Row::Message(id), bytes.value()) else { continue };
        let (mut deliveries, mut readable) = (Vec::with_capacity(head.to.len()), true);
        for table in &tables {
            for row in table.range(schema::keys_of_message(id)).doing(READ)? {
                let (key, bytes) = row.doing(READ)?;
                match record::decode(&Row::Delivery(id, PeerId(key.value().1)), bytes.value()) {
                    Ok(delivery) => deliveries.push(delivery),
                    Err(_) => readable = false,
                }
            }
        }
        if readable {
            found.push(StoredMessage { head, idempotency_key, deliveries });
        }
    }
    Ok((found, None))
}
