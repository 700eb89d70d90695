//! Schema 2, and the step from it to schema 3.
//!
//! In schema 2 neither a message nor a delivery recorded whether the message is private. The types
//! here were shipped and never change.

use std::collections::BTreeMap;

use peer_core::record as now;
use peer_proto::ids::{MessageId, PeerId, TaskId, Timestamp};
use peer_proto::message::{Intent, Kind, Sender, Stage, TraceEntry, Via};
use redb::{Key, ReadableTable, TableDefinition, Value, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use peer_core::shared::{ChannelRecord, NoteRecord, QuestionRecord, SharedKey, TaskRecord};

use super::error::{Doing, RecordName, StoreError, WRITE};
use super::version_3::rewrite;
use super::{record, schema, version_3};

/// The version byte of its records.
pub(super) const VERSION: u8 = 2;

#[derive(Deserialize)]
pub(super) struct MessageRecord {
    head: MessageHead,
    idempotency_key: Option<String>,
    text: String,
}

#[derive(Deserialize)]
struct MessageHead {
    id: MessageId,
    from: Sender,
    to: Vec<(PeerId, String)>,
    intent: Intent,
    kind: Kind,
    thread: String,
    channel: Option<String>,
    reply_to: Option<MessageId>,
    sent_at: Timestamp,
    expires_at: Option<Timestamp>,
    sources: Vec<String>,
    text_bytes: u32,
}

#[derive(Deserialize)]
pub(super) struct DeliveryRecord {
    message: MessageId,
    peer: PeerId,
    stage: Stage,
    attempts: u32,
    acked_at: Option<Timestamp>,
    answered_by: Option<MessageId>,
    trace: Vec<TraceEntry>,
    brief: Brief,
}

#[derive(Deserialize)]
struct Brief {
    from: PeerId,
    from_name: String,
    via: Via,
    intent: Intent,
    kind: Kind,
    thread: String,
    channel: Option<String>,
    reply_to: Option<MessageId>,
    sent_at: Timestamp,
    expires_at: Option<Timestamp>,
    text_bytes: u32,
}

/// Determines which messages are private. If that is unknown, a message is private.
struct Privacy {
    /// The current public channels, in lower case, with their times of creation.
    open: BTreeMap<String, Timestamp>,
    private: BTreeMap<MessageId, bool>,
}

impl Privacy {
    /// Records whether a message is private. Messages come in the order of time, so the answered
    /// message is known.
    fn note(&mut self, id: MessageId, channel: Option<&str>, reply_to: Option<MessageId>) -> bool {
        let in_private = channel.is_some_and(|name| !self.is_open(name, id));
        let private = in_private
            || reply_to
                .is_some_and(|answered| self.private.get(&answered).copied().unwrap_or(false));
        self.private.insert(id, private);
        private
    }

    fn is_open(&self, channel: &str, id: MessageId) -> bool {
        let since = self.open.get(&channel.to_ascii_lowercase());
        channel.starts_with('@') || since.is_some_and(|since| id >= MessageId::first_at(*since))
    }

    /// Returns whether a delivery is private: as its message, or by its own data if the message is
    /// missing.
    fn of(&self, delivery: &DeliveryRecord) -> bool {
        let known = self.private.get(&delivery.message).copied();
        known.unwrap_or_else(|| {
            delivery
                .brief
                .channel
                .as_deref()
                .is_some_and(|name| !self.is_open(name, delivery.message))
        })
    }
}

/// Writes into every message and delivery whether it is private, and raises the version of all
/// records. A record that cannot be read stays as it is. Its version makes it unreadable in schema
/// 3 as well.
pub(super) fn to_version_3(writing: &WriteTransaction) -> Result<(), StoreError> {
    let mut privacy = Privacy { open: open_channels(writing)?, private: BTreeMap::new() };
    record_messages(writing, &mut privacy)?;
    rewrite(writing, schema::MESSAGES, schema::MESSAGES, |key, bytes, insert| {
        let row = MessageId::try_from(key).ok().map(RecordName::Message);
        let changed = |row: &RecordName| {
            read::<MessageRecord>(row, bytes).map(|old| written(row, &message(old, &privacy)))
        };
        match row.as_ref().and_then(changed) {
            Some(changed) => insert(key, changed?.as_slice()),
            None => insert(key, bytes),
        }
    })?;
    for table in schema::DELIVERIES {
        rewrite(writing, table, table, |key, bytes, insert| {
            let row = MessageId::try_from(key.0)
                .ok()
                .map(|message| RecordName::Delivery(message, PeerId(key.1)));
            let changed = |row: &RecordName| {
                read::<DeliveryRecord>(row, bytes).map(|old| written(row, &delivery(old, &privacy)))
            };
            match row.as_ref().and_then(changed) {
                Some(changed) => insert(key, changed?.as_slice()),
                None => insert(key, bytes),
            }
        })?;
    }
    raise(writing, schema::PEERS, |key, bytes| {
        sealed::<version_3::PeerRecord>(&RecordName::Peer(PeerId(key)), bytes)
    })?;
    raise(writing, schema::QUESTIONS, |key, bytes| match MessageId::try_from(key) {
        Ok(question) => sealed::<QuestionRecord>(
            &RecordName::SharedRecord(SharedKey::Question(question)),
            bytes,
        ),
        Err(_) => bytes.to_vec(),
    })?;
    raise(writing, schema::TASKS, |key, bytes| {
        sealed::<TaskRecord>(&RecordName::SharedRecord(SharedKey::Task(TaskId(key))), bytes)
    })?;
    raise(writing, schema::CHANNELS, |key, bytes| match std::str::from_utf8(key) {
        Ok(name) => sealed::<ChannelRecord>(
            &RecordName::SharedRecord(SharedKey::Channel(name.to_owned())),
            bytes,
        ),
        Err(_) => bytes.to_vec(),
    })?;
    raise(writing, schema::NOTES, |key, bytes| match std::str::from_utf8(key) {
        Ok(key) => {
            sealed::<NoteRecord>(&RecordName::SharedRecord(SharedKey::Note(key.to_owned())), bytes)
        }
        Err(_) => bytes.to_vec(),
    })?;
    single_values(writing)
}

fn open_channels(writing: &WriteTransaction) -> Result<BTreeMap<String, Timestamp>, StoreError> {
    let channels = writing.open_table(schema::CHANNELS).doing(WRITE)?;
    let mut open = BTreeMap::new();
    for row in channels.iter().doing(WRITE)? {
        let (key, value) = row.doing(WRITE)?;
        let Ok(name) = std::str::from_utf8(key.value()) else { continue };
        let row = RecordName::SharedRecord(SharedKey::Channel(name.to_owned()));
        if let Some(record) =
            read::<ChannelRecord>(&row, value.value()).filter(|record| !record.private)
        {
            open.insert(record.name.to_ascii_lowercase(), record.created_at);
        }
    }
    Ok(open)
}

fn record_messages(writing: &WriteTransaction, privacy: &mut Privacy) -> Result<(), StoreError> {
    let messages = writing.open_table(schema::MESSAGES).doing(WRITE)?;
    for row in messages.iter().doing(WRITE)? {
        let (key, value) = row.doing(WRITE)?;
        let Ok(id) = MessageId::try_from(key.value()) else { continue };
        if let Some(old) = read::<MessageRecord>(&RecordName::Message(id), value.value()) {
            privacy.note(id, old.head.channel.as_deref(), old.head.reply_to);
        }
    }
    Ok(())
}

fn message(old: MessageRecord, privacy: &Privacy) -> version_3::MessageRecord {
    let head = old.head;
    version_3::MessageRecord {
        head: version_3::MessageHead {
            private: privacy.private.get(&head.id).copied().unwrap_or(true),
            id: head.id,
            from: head.from,
            to: head.to,
            intent: head.intent,
            kind: head.kind,
            thread: head.thread,
            channel: head.channel,
            reply_to: head.reply_to,
            sent_at: head.sent_at,
            expires_at: head.expires_at,
            sources: head.sources,
            text_bytes: head.text_bytes,
        },
        idempotency_key: old.idempotency_key,
        text: old.text,
    }
}

fn delivery(old: DeliveryRecord, privacy: &Privacy) -> version_3::DeliveryRecord {
    let private = privacy.of(&old);
    let brief = old.brief;
    version_3::DeliveryRecord {
        message: old.message,
        peer: old.peer,
        stage: old.stage,
        attempts: old.attempts,
        acked_at: old.acked_at,
        answered_by: old.answered_by,
        trace: old.trace,
        brief: version_3::Brief {
            from: brief.from,
            from_name: brief.from_name,
            via: brief.via,
            intent: brief.intent,
            kind: brief.kind,
            thread: brief.thread,
            channel: brief.channel,
            reply_to: brief.reply_to,
            sent_at: brief.sent_at,
            expires_at: brief.expires_at,
            text_bytes: brief.text_bytes,
            private,
        },
    }
}

fn single_values(writing: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = writing.open_table(schema::META).doing(WRITE)?;
    for key in [
        schema::META_NEXT_PEER,
        schema::META_NEXT_TASK,
        schema::META_SETTINGS,
        schema::META_PAUSES,
        schema::META_KEPT,
    ] {
        let Some(bytes) = meta.get(key).doing(WRITE)?.map(|bytes| bytes.value().to_vec()) else {
            continue;
        };
        let raised = match key {
            schema::META_NEXT_PEER => sealed::<u64>(&RecordName::NextPeer, &bytes),
            schema::META_NEXT_TASK => sealed::<u64>(&RecordName::NextTask, &bytes),
            schema::META_SETTINGS => sealed::<now::SettingsRecord>(&RecordName::Settings, &bytes),
            schema::META_PAUSES => sealed::<now::PausesRecord>(&RecordName::Pauses, &bytes),
            _ => sealed::<now::KeptRecord>(&RecordName::Kept, &bytes),
        };
        meta.insert(key, raised.as_slice()).doing(WRITE)?;
    }
    Ok(())
}

/// Reads the record of version 2 in a row. `None`: the bytes are no record.
fn read<T: DeserializeOwned>(row: &RecordName, bytes: &[u8]) -> Option<T> {
    record::unseal_version(row, bytes, VERSION).ok().and_then(|body| record::decode_body(body).ok())
}

/// Encodes a changed record.
fn written<T: Serialize>(row: &RecordName, record: &T) -> Result<Vec<u8>, StoreError> {
    let body = record::encode_body(record).map_err(|source| row.clone().unwritable(source))?;
    Ok(record::seal_version(row, &body, version_3::VERSION))
}

/// Gives an unchanged record its new version. Returns other bytes unchanged.
fn sealed<T: DeserializeOwned>(row: &RecordName, bytes: &[u8]) -> Vec<u8> {
    match (read::<T>(row, bytes), record::unseal_version(row, bytes, VERSION)) {
        (Some(_), Ok(body)) => record::seal_version(row, body, version_3::VERSION),
        _ => bytes.to_vec(),
    }
}

/// Rewrites the records of a table, each under its key.
fn raise<K: Key + 'static>(
    writing: &WriteTransaction,
    table: TableDefinition<'static, K, &'static [u8]>,
    raised: impl for<'r> Fn(K::SelfType<'r>, &'r [u8]) -> Vec<u8>,
) -> Result<(), StoreError>
where
    for<'r> K::SelfType<'r>: Copy,
{
    rewrite(writing, table, table, |key, bytes: <&[u8] as Value>::SelfType<'_>, insert| {
        insert(key, raised(key, bytes).as_slice())
    })
}
