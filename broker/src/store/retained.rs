//! What retention reads: how much is kept, and the oldest of it.
//!
//! Knows rows. Does not know what goes.

use std::ops::Bound;

use peer_core::input::StoredMessage;
use peer_core::record::KeptRecord;
use peer_proto::ids::{MessageId, PeerId};
use redb::{ReadTransaction, ReadableTable};

use super::damage::{Damage, head_from, stand_in};
use super::error::{Doing, READ, Row, StoreError};
use super::image::STAND_IN_STAGES;
use super::schema;

/// Bytes of texts in the store: what was counted when it was last written down, and what came since.
pub(super) fn text_bytes(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    messages: &impl ReadableTable<u128, &'static [u8]>,
    damage: &Damage,
) -> Result<u64, StoreError> {
    let kept: Option<KeptRecord> = match meta.get(schema::META_KEPT).doing(READ)? {
        Some(bytes) => damage.read(&Row::Kept, bytes.value()),
        None => None,
    };
    let start = kept.map_or(Bound::Unbounded, |kept| Bound::Excluded(kept.through.to_u128()));
    let mut text_bytes = kept.map_or(0, |kept| kept.text_bytes);
    for row in messages.range::<u128>((start, Bound::Unbounded)).doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        // What cannot be read is not counted.
        let Some(id) = damage.message_id(key.value()) else { continue };
        text_bytes += damage.read_head(&Row::Message(id), bytes.value()).map_or(0, |(head, _)| u64::from(head.text_bytes));
    }
    Ok(text_bytes)
}

/// See [`Store::stored_after`](super::Store::stored_after).
pub(super) fn stored_after(
    reading: &ReadTransaction,
    after: Option<MessageId>,
    rows_max: usize,
    damage: &Damage,
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
        let Some(id) = damage.message_id(key.value()) else { continue };
        last = Some(id);
        let read = damage.read_head(&Row::Message(id), bytes.value());
        let mut deliveries = Vec::new();
        for (table, stage) in tables.iter().zip(STAND_IN_STAGES) {
            for row in table.range(schema::keys_of_message(id)).doing(READ)? {
                let (key, bytes) = row.doing(READ)?;
                let peer = PeerId(key.value().1);
                let delivery = damage.read(&Row::Delivery(id, peer), bytes.value());
                deliveries.push(delivery.unwrap_or_else(|| stand_in(id, peer, stage, read.as_ref().map(|(head, _)| head))));
            }
        }
        let read = read.or_else(|| head_from(id, &deliveries).map(|head| (head, None)));
        found.extend(read.map(|(head, idempotency_key)| StoredMessage { head, idempotency_key, deliveries }));
    }
    Ok((found, None))
}
