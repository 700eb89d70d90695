//! Schema 3, and the step from it to schema 4.
//!
//! In schema 3 there were no links: no peer had a home on another broker, no message an origin, and
//! no delivery a revision. The types here were shipped and never change.

use peer_core::record::{KeptRecord, PausesRecord, Process, SettingsRecord, TokenDigest};
use peer_core::shared::SharedKey;
use peer_proto::hook::Mode;
use peer_proto::ids::{MessageId, PeerId, TaskId, Timestamp};
use peer_proto::message::{Intent, Kind, Sender, Stage, TraceEntry, Via};
use peer_proto::policy::Policy;
use peer_proto::request::Seat;
use redb::{Key, ReadableTable, TableDefinition, Value, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{Doing, RecordName, StoreError, WRITE};
use super::{links, record, schema};

/// The version byte of its records.
pub(super) const VERSION: u8 = 3;

/// The version byte of the records that the step writes.
const NEXT: u8 = 4;

#[derive(Serialize, Deserialize)]
pub(super) struct PeerRecord {
    id: PeerId,
    name: String,
    aliases: Vec<String>,
    seats: Vec<Seat>,
    provisional: bool,
    client: String,
    client_version: String,
    cwd: String,
    git_root: Option<String>,
    repo: Option<String>,
    host: String,
    summary: String,
    state: String,
    task: String,
    token: Option<TokenDigest>,
    client_pid: Option<u32>,
    last_seen: Timestamp,
    policy: Option<Policy>,
    mode: Option<Mode>,
    merged_ids: Vec<PeerId>,
    client_process: Option<Process>,
    adapter_process: Option<Process>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct MessageRecord {
    pub(super) head: MessageHead,
    pub(super) idempotency_key: Option<String>,
    pub(super) text: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct MessageHead {
    pub(super) id: MessageId,
    pub(super) from: Sender,
    pub(super) to: Vec<(PeerId, String)>,
    pub(super) intent: Intent,
    pub(super) kind: Kind,
    pub(super) thread: String,
    pub(super) channel: Option<String>,
    pub(super) reply_to: Option<MessageId>,
    pub(super) sent_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) sources: Vec<String>,
    pub(super) text_bytes: u32,
    pub(super) private: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct DeliveryRecord {
    pub(super) message: MessageId,
    pub(super) peer: PeerId,
    pub(super) stage: Stage,
    pub(super) attempts: u32,
    pub(super) acked_at: Option<Timestamp>,
    pub(super) answered_by: Option<MessageId>,
    pub(super) trace: Vec<TraceEntry>,
    pub(super) brief: Brief,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Brief {
    pub(super) from: PeerId,
    pub(super) from_name: String,
    pub(super) via: Via,
    pub(super) intent: Intent,
    pub(super) kind: Kind,
    pub(super) thread: String,
    pub(super) channel: Option<String>,
    pub(super) reply_to: Option<MessageId>,
    pub(super) sent_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) text_bytes: u32,
    pub(super) private: bool,
}

/// Gives the records their new fields and all of them their new version. A record that cannot be
/// read stays as it is. Its version makes it unreadable in schema 4 as well.
pub(super) fn to_version_4(writing: &WriteTransaction) -> Result<(), StoreError> {
    // No home, and not hidden.
    raise(
        writing,
        schema::PEERS,
        |key| Some(RecordName::Peer(PeerId(key))),
        |body| appended::<PeerRecord>(body, &[0, 0]),
    )?;
    raise(writing, schema::MESSAGES, |key| row_of(key, RecordName::Message), with_origin)?;
    for table in schema::DELIVERIES {
        // No origin, which ends the brief; revision 0; not relayed.
        let row = |key: (u128, u64)| row_of(key.0, |id| RecordName::Delivery(id, PeerId(key.1)));
        raise(writing, table, row, |body| appended::<DeliveryRecord>(body, &[0, 0, 0]))?;
    }
    let question = |key| row_of(key, |id| RecordName::SharedRecord(SharedKey::Question(id)));
    raise(writing, schema::QUESTIONS, question, unchanged)?;
    raise(
        writing,
        schema::TASKS,
        |key| Some(RecordName::SharedRecord(SharedKey::Task(TaskId(key)))),
        unchanged,
    )?;
    let text = |key: &[u8]| std::str::from_utf8(key).ok().map(str::to_owned);
    raise(
        writing,
        schema::CHANNELS,
        |key| text(key).map(|name| RecordName::SharedRecord(SharedKey::Channel(name))),
        unchanged,
    )?;
    raise(
        writing,
        schema::NOTES,
        |key| text(key).map(|key| RecordName::SharedRecord(SharedKey::Note(key))),
        unchanged,
    )?;
    links::create(writing)?;
    single_values(writing)
}

fn single_values(writing: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = writing.open_table(schema::META).doing(WRITE)?;
    for (key, row) in [
        (schema::META_NEXT_PEER, RecordName::NextPeer),
        (schema::META_NEXT_TASK, RecordName::NextTask),
        (schema::META_SETTINGS, RecordName::Settings),
        (schema::META_PAUSES, RecordName::Pauses),
        (schema::META_KEPT, RecordName::Kept),
    ] {
        let Some(bytes) = meta.get(key).doing(WRITE)?.map(|bytes| bytes.value().to_vec()) else {
            continue;
        };
        let readable = |body: &[u8]| match row {
            RecordName::Settings => record::decode_body::<SettingsRecord>(body).is_ok(),
            RecordName::Pauses => record::decode_body::<PausesRecord>(body).is_ok(),
            RecordName::Kept => record::decode_body::<KeptRecord>(body).is_ok(),
            _ => record::decode_body::<u64>(body).is_ok(),
        };
        let raised = raised(&row, &bytes, |body| readable(body).then(|| body.to_vec()));
        meta.insert(key, raised.as_slice()).doing(WRITE)?;
    }
    Ok(())
}

fn row_of(key: u128, row: impl FnOnce(MessageId) -> RecordName) -> Option<RecordName> {
    MessageId::try_from(key).ok().map(row)
}

fn unchanged(body: &[u8]) -> Option<Vec<u8>> {
    Some(body.to_vec())
}

/// Appends the encoded new fields to a record of this type.
fn appended<T: DeserializeOwned>(body: &[u8], fields: &[u8]) -> Option<Vec<u8>> {
    record::decode_body::<T>(body).ok()?;
    Some([body, fields].concat())
}

/// Gives a message no origin. It is the last field of the head.
fn with_origin(body: &[u8]) -> Option<Vec<u8>> {
    let old = record::decode_body::<MessageRecord>(body).ok()?;
    let head = record::encode_body(&old.head).ok()?;
    let rest = body.strip_prefix(head.as_slice())?;
    Some([head.as_slice(), &[0], rest].concat())
}

/// Changes the record of version 3 in a row, and gives it its new version. Returns other bytes
/// unchanged.
fn raised(row: &RecordName, bytes: &[u8], change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let body = record::unseal_version(row, bytes, VERSION).ok();
    match body.and_then(change) {
        Some(body) => record::seal_version(row, &body, NEXT),
        None => bytes.to_vec(),
    }
}

/// Rewrites the records of a table, each under its key.
fn raise<K: Key + 'static>(
    writing: &WriteTransaction,
    table: TableDefinition<'static, K, &'static [u8]>,
    row: impl for<'r> Fn(K::SelfType<'r>) -> Option<RecordName>,
    change: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<(), StoreError>
where
    for<'r> K::SelfType<'r>: Copy,
{
    rewrite(writing, table, table, |key, bytes: <&[u8] as Value>::SelfType<'_>, insert| {
        match row(key) {
            Some(row) => insert(key, raised(&row, bytes, &change).as_slice()),
            None => insert(key, bytes),
        }
    })
}

/// Rewrites the rows of a table, in their order. A missing table is treated as empty.
pub(super) fn rewrite<
    K1: Key + 'static,
    V1: Value + 'static,
    K2: Key + 'static,
    V2: Value + 'static,
>(
    writing: &WriteTransaction,
    old: TableDefinition<'static, K1, V1>,
    new: TableDefinition<'static, K2, V2>,
    each: impl for<'r> Fn(
        K1::SelfType<'r>,
        V1::SelfType<'r>,
        &mut dyn FnMut(K2::SelfType<'_>, V2::SelfType<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    drop(writing.open_table(old).doing(WRITE)?);
    let aside = TableDefinition::<K1, V1>::new("being_rewritten");
    writing.rename_table(old, aside).doing(WRITE)?;
    let from = writing.open_table(aside).doing(WRITE)?;
    let mut to = writing.open_table(new).doing(WRITE)?;
    for row in from.iter().doing(WRITE)? {
        let (key, value) = row.doing(WRITE)?;
        each(key.value(), value.value(), &mut |key, value| {
            to.insert(key, value).doing(WRITE)?;
            Ok(())
        })?;
    }
    drop(from);
    writing.delete_table(aside).doing(WRITE)?;
    Ok(())
}
