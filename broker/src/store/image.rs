//! Loads the data that the core keeps in memory, once at the start.
//!
//! A damaged record is left out and recorded as damage. If the person's settings or pauses cannot
//! be read, the strictest possible ones hold until the person sets them again.

use std::ops::Bound;

use peer_core::record::{Image, KeptRecord, PausesRecord, SettingsRecord};
use peer_proto::ids::{PeerId, TaskId};
use peer_proto::policy::Policy;
use redb::{ReadableTable, ReadableTableMetadata};

use super::error::{Doing, READ, RecordName, StoreError};
use super::{Snapshot, links, schema, shared};

/// See [`Snapshot::image`].
pub(super) fn load(snapshot: &Snapshot) -> Result<Image, StoreError> {
    let (reading, damage) = (snapshot.reading(), snapshot.damage());
    let mut peers = Vec::new();
    let table = reading.open_table(schema::PEERS).doing(READ)?;
    for row in table.iter().doing(READ)? {
        let (id, bytes) = row.doing(READ)?;
        peers.extend(damage.read(&RecordName::Peer(PeerId(id.value())), bytes.value()));
    }
    let pending = snapshot.deliveries_in(0, (Bound::Unbounded, Bound::Unbounded), usize::MAX)?;
    let messages = snapshot.messages()?;
    let last_message =
        messages.last().doing(READ)?.and_then(|(id, _)| damage.message_id(id.value()));
    let first_message =
        messages.first().doing(READ)?.and_then(|(id, _)| damage.message_id(id.value()));
    let meta = reading.open_table(schema::META).doing(READ)?;
    let next_peer = meta.get(schema::META_NEXT_PEER).doing(READ)?;
    let next_peer = next_peer
        .map(|bytes| damage.read(&RecordName::NextPeer, bytes.value()).unwrap_or(PeerId::FIRST));
    // An id is never given again, even if the record of its peer is damaged.
    let last_peer = table.last().doing(READ)?.map(|(id, _)| PeerId(id.value().saturating_add(1)));
    let next_peer = if damage.total() > 0 { next_peer.max(last_peer) } else { next_peer };
    let next_task = meta.get(schema::META_NEXT_TASK).doing(READ)?;
    let next_task = next_task
        .map(|bytes| damage.read(&RecordName::NextTask, bytes.value()).unwrap_or(TaskId(1)));
    let tasks = reading.open_table(schema::TASKS).doing(READ)?;
    let last_task = tasks.last().doing(READ)?.map(|(id, _)| TaskId(id.value().saturating_add(1)));
    let settings = match meta.get(schema::META_SETTINGS).doing(READ)? {
        Some(bytes) => {
            damage.read(&RecordName::Settings, bytes.value()).unwrap_or(SettingsRecord {
                default_policy: Some(Policy::Hold),
                inbox_socket_in_bypass: false,
            })
        }
        None => SettingsRecord::default(),
    };
    let pauses = match meta.get(schema::META_PAUSES).doing(READ)? {
        Some(bytes) => damage
            .read(&RecordName::Pauses, bytes.value())
            .unwrap_or(PausesRecord { all: true, ..PausesRecord::default() }),
        None => PausesRecord::default(),
    };
    let shared = shared::load(reading, damage)?;
    let next_task = if damage.total() > 0 { next_task.max(last_task) } else { next_task };
    Ok(Image {
        peers,
        pending,
        last_message,
        first_message,
        next_peer,
        dead: reading.open_table(schema::DEAD).doing(READ)?.len().doing(READ)?,
        messages: messages.len().doing(READ)?,
        text_bytes: text_bytes(snapshot, &meta)?,
        settings,
        pauses,
        shared,
        next_task,
        links: links::load(reading, damage)?,
    })
}

/// Returns the bytes of texts in the store: the last recorded total, and what came since.
fn text_bytes(
    snapshot: &Snapshot,
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<u64, StoreError> {
    let damage = snapshot.damage();
    let kept: Option<KeptRecord> = match meta.get(schema::META_KEPT).doing(READ)? {
        Some(bytes) => damage.read(&RecordName::Kept, bytes.value()),
        None => None,
    };
    let start = kept.map_or(Bound::Unbounded, |kept| Bound::Excluded(kept.through.to_u128()));
    let mut text_bytes = kept.map_or(0, |kept| kept.text_bytes);
    for row in snapshot.messages()?.range::<u128>((start, Bound::Unbounded)).doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        // A record that cannot be read is not counted.
        let Some(id) = damage.message_id(key.value()) else { continue };
        text_bytes += damage
            .read_head(&RecordName::Message(id), bytes.value())
            .map_or(0, |(head, _)| u64::from(head.text_bytes));
    }
    Ok(text_bytes)
}
