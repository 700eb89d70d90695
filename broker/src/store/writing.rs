//! One write transaction: changes become rows.
//!
//! Knows which table each [`Change`] affects. Does not know when a transaction begins or is
//! committed. Invariant: if a change contradicts the stored data, the transaction fails, and
//! nothing of it is written.

use peer_core::record::{DeliveryRecord, MessageRecord};
use peer_core::step::Change;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::Stage;
use redb::WriteTransaction;
use serde::Serialize;

use super::error::{Doing, RecordName, StoreError, WRITE};
use super::touched::Touched;
use super::{links, record, reindex, schema, shared};

/// Carries out `changes`, in order.
pub(super) fn apply(writing: &WriteTransaction, changes: &[Change]) -> Result<(), StoreError> {
    let mut tables = Tables {
        messages: Touched::new(writing, schema::MESSAGES),
        deliveries: schema::DELIVERIES.map(|table| Touched::new(writing, table)),
        peers: Touched::new(writing, schema::PEERS),
        idempotency: Touched::new(writing, schema::IDEMPOTENCY),
        meta: Touched::new(writing, schema::META),
        shared: shared::SharedTables::new(writing),
        links: links::Tables::new(writing),
        reindex: reindex::Log::new(writing),
    };
    changes.iter().try_for_each(|change| tables.apply(change))
}

/// The tables of one transaction.
struct Tables<'txn> {
    messages: Touched<'txn, u128, &'static [u8]>,
    deliveries: [Touched<'txn, schema::DeliveryKey, &'static [u8]>; schema::DELIVERIES.len()],
    peers: Touched<'txn, u64, &'static [u8]>,
    idempotency: Touched<'txn, (u64, &'static [u8]), u128>,
    meta: Touched<'txn, &'static str, &'static [u8]>,
    shared: shared::SharedTables<'txn>,
    links: links::Tables<'txn>,
    reindex: reindex::Log<'txn>,
}

impl Tables<'_> {
    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        self.reindex.see(change)?;
        match change {
            Change::PutMessage(message) => self.put_message(message),
            Change::RemoveMessage(message) => self.remove_message_and_key(*message),
            Change::PutDelivery { record, was } => self.put_delivery(record, *was),
            Change::RemoveDelivery { message, peer, was } => {
                self.remove_delivery(*message, *peer, *was)
            }
            Change::PutPeer(peer) => {
                let bytes = record::encode(&RecordName::Peer(peer.id), peer)?;
                self.peers.open()?.insert(peer.id.0, bytes.as_slice()).doing(WRITE)?;
                Ok(())
            }
            Change::RemovePeer(peer) => {
                self.peers.open()?.remove(peer.0).doing(WRITE)?;
                Ok(())
            }
            Change::PutIdempotencyKey { sender, key, message } => {
                self.idempotency
                    .open()?
                    .insert((sender.0, key.as_bytes()), message.to_u128())
                    .doing(WRITE)?;
                Ok(())
            }
            Change::PutShared(shared) => self.shared.put(shared),
            Change::RemoveShared(key) => self.shared.remove(key),
            Change::PutNextPeer(peer) => {
                self.put_value(schema::META_NEXT_PEER, &RecordName::NextPeer, &peer.0)
            }
            Change::PutNextTask(task) => {
                self.put_value(schema::META_NEXT_TASK, &RecordName::NextTask, &task.0)
            }
            Change::PutSettings(settings) => {
                self.put_value(schema::META_SETTINGS, &RecordName::Settings, settings)
            }
            Change::PutPauses(pauses) => {
                self.put_value(schema::META_PAUSES, &RecordName::Pauses, pauses)
            }
            Change::PutKept(kept) => self.put_value(schema::META_KEPT, &RecordName::Kept, kept),
            Change::PutBroker(broker) => {
                self.put_value(schema::META_BROKER, &RecordName::Broker, broker)
            }
            Change::PutLink(_)
            | Change::RemoveLink(_)
            | Change::PutReceipt { .. }
            | Change::RemoveReceipt(_)
            | Change::PutWithdrawn { .. }
            | Change::RemoveWithdrawn { .. } => self.links.apply(change),
        }
    }

    /// Stores one of the single values in `meta`.
    fn put_value(
        &mut self,
        key: &str,
        row: &RecordName,
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        let bytes = record::encode(row, value)?;
        self.meta.open()?.insert(key, bytes.as_slice()).doing(WRITE)?;
        Ok(())
    }

    fn put_message(&mut self, message: &MessageRecord) -> Result<(), StoreError> {
        let id = message.head.id;
        let bytes = record::encode(&RecordName::Message(id), message)?;
        match self.messages.open()?.insert(id.to_u128(), bytes.as_slice()).doing(WRITE)? {
            Some(_) => Err(StoreError::MessageExists { message: id }),
            None => Ok(()),
        }
    }

    /// Moves a delivery from the table of its old stage to that of its new one.
    fn put_delivery(
        &mut self,
        delivery: &DeliveryRecord,
        was: Option<Stage>,
    ) -> Result<(), StoreError> {
        let (message, peer) = (delivery.message, delivery.peer);
        let contradiction = || StoreError::Contradiction { message, peer, was };
        let to = schema::table_of(delivery.stage).ok_or_else(contradiction)?;
        let from =
            was.map(|stage| schema::table_of(stage).ok_or_else(contradiction)).transpose()?;
        let bytes = record::encode(&RecordName::Delivery(message, peer), delivery)?;
        let key = schema::key_of(delivery);
        if let Some(from) = from.filter(|from| *from != to)
            && self.deliveries[from].open()?.remove(key).doing(WRITE)?.is_none()
        {
            return Err(contradiction());
        }
        let replaced =
            self.deliveries[to].open()?.insert(key, bytes.as_slice()).doing(WRITE)?.is_some();
        if replaced != (from == Some(to)) {
            return Err(contradiction());
        }
        Ok(())
    }

    fn remove_delivery(
        &mut self,
        message: MessageId,
        peer: PeerId,
        was: Stage,
    ) -> Result<(), StoreError> {
        let removed = match schema::table_of(was) {
            Some(from) => self.deliveries[from]
                .open()?
                .remove((message.to_u128(), peer.0))
                .doing(WRITE)?
                .is_some(),
            None => false,
        };
        if removed {
            Ok(())
        } else {
            Err(StoreError::Contradiction { message, peer, was: Some(was) })
        }
    }

    fn remove_message_and_key(&mut self, message: MessageId) -> Result<(), StoreError> {
        match self.remove_message(message)? {
            Removed::Whole { sender, key: Some(key) } => {
                self.idempotency.open()?.remove((sender.0, key.as_bytes())).doing(WRITE)?;
            }
            Removed::Damaged => self
                .idempotency
                .open()?
                .retain(|_, named| named != message.to_u128())
                .doing(WRITE)?,
            Removed::Whole { key: None, .. } | Removed::Nothing => {}
        }
        Ok(())
    }

    /// Deletes a message with its deliveries. Fails if one of them is still pending.
    fn remove_message(&mut self, id: MessageId) -> Result<Removed, StoreError> {
        let removed = self.messages.open()?.remove(id.to_u128()).doing(WRITE)?;
        let Some(bytes) = removed else { return Ok(Removed::Nothing) };
        let removed = match record::decode_head(&RecordName::Message(id), bytes.value()) {
            Ok((head, key)) => Removed::Whole { sender: head.from.peer, key },
            Err(_) => Removed::Damaged,
        };
        drop(bytes);
        for (place, table) in self.deliveries.iter_mut().enumerate() {
            let table = table.open()?;
            let mut rows =
                table.extract_from_if(schema::keys_of_message(id), |_, _| true).doing(WRITE)?;
            if let Some(row) = rows.next() {
                let (key, _) = row.doing(WRITE)?;
                if Some(place) == schema::table_of(Stage::Stored) {
                    return Err(StoreError::Contradiction {
                        message: id,
                        peer: PeerId(key.value().1),
                        was: None,
                    });
                }
            }
            for row in rows {
                row.doing(WRITE)?;
            }
        }
        Ok(removed)
    }
}

/// The result of deleting a message.
enum Removed {
    /// It did not exist.
    Nothing,
    /// Its idempotency key is known.
    Whole { sender: PeerId, key: Option<String> },
    /// Its record is damaged, so its key is unknown.
    Damaged,
}
