//! What the core keeps in memory, read once at the start.
//!
//! What is damaged is left out and noted. Where the person had set or paused something, and what it was cannot be read, the
//! strictest that they may have meant holds until they say it again.

use std::ops::Bound;

use peer_core::record::{DeliveryRecord, Image, MessageHead, PausesRecord, SettingsRecord};
use peer_proto::ids::{PeerId, TaskId};
use peer_proto::message::Stage;
use peer_proto::policy::Policy;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::damage::{Damage, stand_in};
use super::error::{Doing, READ, Row, StoreError};
use super::{retained, schema, things};

/// See [`Store::load`](super::Store::load).
pub(super) fn load(reading: &ReadTransaction, damage: &Damage) -> Result<Image, StoreError> {
    let mut peers = Vec::new();
    let table = reading.open_table(schema::PEERS).doing(READ)?;
    for row in table.iter().doing(READ)? {
        let (id, bytes) = row.doing(READ)?;
        peers.extend(damage.read(&Row::Peer(PeerId(id.value())), bytes.value()));
    }
    let pending = deliveries(reading, 0, (Bound::Unbounded, Bound::Unbounded), usize::MAX, damage)?;
    let messages = reading.open_table(schema::MESSAGES).doing(READ)?;
    let last_message = messages.last().doing(READ)?.and_then(|(id, _)| damage.message_id(id.value()));
    let first_message = messages.first().doing(READ)?.and_then(|(id, _)| damage.message_id(id.value()));
    let meta = reading.open_table(schema::META).doing(READ)?;
    let next_peer = meta.get(schema::META_NEXT_PEER).doing(READ)?;
    let next_peer = next_peer.map(|bytes| damage.read(&Row::NextPeer, bytes.value()).unwrap_or(PeerId::FIRST));
    // An id is not given again, also where the record of the peer that had it is damaged.
    let last_peer = table.last().doing(READ)?.map(|(id, _)| PeerId(id.value().saturating_add(1)));
    let next_peer = if damage.total() > 0 { next_peer.max(last_peer) } else { next_peer };
    let next_task = meta.get(schema::META_NEXT_TASK).doing(READ)?;
    let next_task = next_task.map(|bytes| damage.read(&Row::NextTask, bytes.value()).unwrap_or(TaskId(1)));
    let tasks = reading.open_table(schema::TASKS).doing(READ)?;
    let last_task = tasks.last().doing(READ)?.map(|(id, _)| TaskId(id.value().saturating_add(1)));
    let settings = match meta.get(schema::META_SETTINGS).doing(READ)? {
        Some(bytes) => damage
            .read(&Row::Settings, bytes.value())
            .unwrap_or(SettingsRecord { default_policy: Some(Policy::Hold), inbox_socket_in_bypass: false }),
        None => SettingsRecord::default(),
    };
    let pauses = match meta.get(schema::META_PAUSES).doing(READ)? {
        Some(bytes) => damage.read(&Row::Pauses, bytes.value()).unwrap_or(PausesRecord { all: true, ..PausesRecord::default() }),
        None => PausesRecord::default(),
    };
    let things = things::load(reading, damage)?;
    let next_task = if damage.total() > 0 { next_task.max(last_task) } else { next_task };
    Ok(Image {
        peers,
        pending,
        last_message,
        first_message,
        next_peer,
        dead: reading.open_table(schema::DEAD).doing(READ)?.len().doing(READ)?,
        messages: messages.len().doing(READ)?,
        text_bytes: retained::text_bytes(&meta, &messages, damage)?,
        settings,
        pauses,
        things,
        next_task,
    })
}

/// At most `limit` deliveries of one of [`schema::DELIVERIES`], in its order. What cannot be read has a stand-in.
pub(super) fn deliveries(
    reading: &ReadTransaction,
    table: usize,
    range: (Bound<schema::DeliveryKey>, Bound<schema::DeliveryKey>),
    limit: usize,
    damage: &Damage,
) -> Result<Vec<DeliveryRecord>, StoreError> {
    let rows = reading.open_table(schema::DELIVERIES[table]).doing(READ)?;
    let mut found = Vec::new();
    for row in rows.range::<schema::DeliveryKey>(range).doing(READ)? {
        if found.len() == limit {
            break;
        }
        let (key, bytes) = row.doing(READ)?;
        let (message, peer) = (key.value().0, PeerId(key.value().1));
        let Some(message) = damage.message_id(message) else { continue };
        let row = Row::Delivery(message, peer);
        let readable = damage.read(&row, bytes.value());
        found.push(match readable.filter(|delivery: &DeliveryRecord| schema::table_of(delivery.stage) == Some(table)) {
            Some(delivery) => delivery,
            None => {
                damage.note(row);
                let head = head_of(&reading.open_table(schema::MESSAGES).doing(READ)?, message.to_u128(), damage)?;
                stand_in(message, peer, STAND_IN_STAGES[table], head.as_ref())
            }
        });
    }
    Ok(found)
}

/// The stage of a delivery of which nothing is known but its table.
pub(super) const STAND_IN_STAGES: [Stage; 4] = [Stage::Held, Stage::Dead, Stage::Expired, Stage::Cancelled];

/// The head of a message that can be read.
pub(super) fn head_of(
    messages: &impl ReadableTable<u128, &'static [u8]>,
    key: u128,
    damage: &Damage,
) -> Result<Option<MessageHead>, StoreError> {
    let Some(id) = damage.message_id(key) else { return Ok(None) };
    let Some(bytes) = messages.get(key).doing(READ)? else { return Ok(None) };
    Ok(damage.read_head(&Row::Message(id), bytes.value()).map(|(head, _)| head))
}
