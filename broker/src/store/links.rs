//! Links in the store: the links, the receipts that are due, and messages that were withdrawn
//! before they came.
//!
//! Knows the keys of each. Does not know their meaning.

use peer_core::record::{LinkRecord, LinksImage, ReceiptKey};
use peer_core::step::Change;
use peer_proto::ids::{BrokerId, MessageId, PeerId};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::damage::Damage;
use super::error::{Doing, READ, RecordName, StoreError, WRITE};
use super::touched::Touched;
use super::{record, schema};

/// The tables of one transaction, each opened when it is first needed.
pub(super) struct Tables<'txn> {
    links: Touched<'txn, u128, &'static [u8]>,
    receipts: Touched<'txn, &'static [u8], u32>,
    withdrawn: Touched<'txn, &'static [u8], &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn new(writing: &'txn WriteTransaction) -> Self {
        Self {
            links: Touched::new(writing, schema::LINKS),
            receipts: Touched::new(writing, schema::RECEIPTS),
            withdrawn: Touched::new(writing, schema::WITHDRAWN),
        }
    }

    /// Carries out a change of links. Ignores others.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::PutLink(link) => self.put_link(link),
            Change::RemoveLink(broker) => self.remove_link(*broker),
            Change::PutReceipt { key, rev } => {
                self.receipts.open()?.insert(receipt_key(key).as_slice(), rev).doing(WRITE)?;
                Ok(())
            }
            Change::RemoveReceipt(key) => {
                self.receipts.open()?.remove(receipt_key(key).as_slice()).doing(WRITE)?;
                Ok(())
            }
            Change::PutWithdrawn { broker, message } => {
                let key = withdrawn_key(*broker, *message);
                self.withdrawn.open()?.insert(key.as_slice(), [].as_slice()).doing(WRITE)?;
                Ok(())
            }
            Change::RemoveWithdrawn { broker, message } => {
                let key = withdrawn_key(*broker, *message);
                self.withdrawn.open()?.remove(key.as_slice()).doing(WRITE)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn put_link(&mut self, link: &LinkRecord) -> Result<(), StoreError> {
        let bytes = record::encode(&RecordName::Link(link.broker), link)?;
        self.links.open()?.insert(number(link.broker), bytes.as_slice()).doing(WRITE)?;
        Ok(())
    }

    fn remove_link(&mut self, broker: BrokerId) -> Result<(), StoreError> {
        self.links.open()?.remove(number(broker)).doing(WRITE)?;
        self.receipts.open()?.retain(|key, _| !key.starts_with(&broker.0)).doing(WRITE)?;
        self.withdrawn.open()?.retain(|key, _| !key.starts_with(&broker.0)).doing(WRITE)?;
        Ok(())
    }
}

/// Makes the tables.
pub(super) fn create(writing: &WriteTransaction) -> Result<(), StoreError> {
    writing.open_table(schema::LINKS).doing(WRITE)?;
    writing.open_table(schema::RECEIPTS).doing(WRITE)?;
    writing.open_table(schema::WITHDRAWN).doing(WRITE)?;
    Ok(())
}

/// Loads all of them that can be read. Leaves out receipts of unknown links.
pub(super) fn load(reading: &ReadTransaction, damage: &Damage) -> Result<LinksImage, StoreError> {
    let mut image = LinksImage::default();
    for row in reading.open_table(schema::LINKS).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        image.links.extend(damage.read(&RecordName::Link(broker(key.value())), bytes.value()));
    }
    let is_known = |links: &[LinkRecord], broker| links.iter().any(|link| link.broker == broker);
    for row in reading.open_table(schema::RECEIPTS).doing(READ)?.iter().doing(READ)? {
        let (key, rev) = row.doing(READ)?;
        match receipt_of(key.value()) {
            Some(key) if is_known(&image.links, key.broker) => {
                image.receipts.push((key, rev.value()));
            }
            Some(_) => {}
            None => damage.record(RecordName::Due),
        }
    }
    for row in reading.open_table(schema::WITHDRAWN).doing(READ)?.iter().doing(READ)? {
        let (key, _) = row.doing(READ)?;
        match withdrawn_of(key.value()) {
            Some((origin, message)) if is_known(&image.links, origin) => {
                image.withdrawn.push((origin, message));
            }
            Some(_) => {}
            None => damage.record(RecordName::Due),
        }
    }
    let meta = reading.open_table(schema::META).doing(READ)?;
    if let Some(bytes) = meta.get(schema::META_BROKER).doing(READ)? {
        image.own = damage.read(&RecordName::Broker, bytes.value());
    }
    Ok(image)
}

fn receipt_key(key: &ReceiptKey) -> Vec<u8> {
    let mut bytes = withdrawn_key(key.broker, key.message);
    bytes.extend_from_slice(&key.peer.0.to_be_bytes());
    bytes
}

fn withdrawn_key(broker: BrokerId, message: MessageId) -> Vec<u8> {
    [broker.0.as_slice(), message.to_u128().to_be_bytes().as_slice()].concat()
}

/// Reads the key of a receipt.
pub(super) fn receipt_of(key: &[u8]) -> Option<ReceiptKey> {
    let (named, peer) = key.split_last_chunk()?;
    let (broker, message) = withdrawn_of(named)?;
    Some(ReceiptKey { broker, message, peer: PeerId(u64::from_be_bytes(*peer)) })
}

/// Reads the key of a message that was withdrawn.
pub(super) fn withdrawn_of(key: &[u8]) -> Option<(BrokerId, MessageId)> {
    let (broker, message) = key.split_first_chunk()?;
    let message = u128::from_be_bytes(message.try_into().ok()?);
    Some((BrokerId(*broker), MessageId::try_from(message).ok()?))
}

pub(super) fn number(broker: BrokerId) -> u128 {
    u128::from_be_bytes(broker.0)
}

pub(super) fn broker(number: u128) -> BrokerId {
    BrokerId(number.to_be_bytes())
}
