//! Encodes and decodes records: a version byte, a checksum, then bincode.
//!
//! Knows the encoding. Does not know the tables. Only this file turns stored bytes into a record,
//! so no record is read without a check of its checksum.
//!
//! Invariants:
//! - The checksum covers the row's name and the encoded record. So bytes that changed on the disk
//!   are no record, and neither is a record under another key than its own.
//! - The meaning of these bytes never changes. A shipped record is frozen, with every type inside
//!   it, because bincode writes no field names. If a field is added, removed, reordered or retyped,
//!   old bytes are silently read as something else. The same happens if an enum variant is inserted
//!   anywhere but at the end. The golden bytes in this module's tests fail first. To change a
//!   record: copy the old type into a module of its own beside `version_1.rs`, raise [`VERSION`],
//!   and add the step that rewrites the old rows. A variant that is
//!   appended at the end of an enum needs that too. Without it, an older broker would fail on one
//!   row instead of refusing the file by its schema.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use peer_core::record::MessageHead;
use peer_core::shared::SharedKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::error::{RecordName, StoreError};

/// The version of the records that this build writes, and the only one that it reads outside a
/// migration.
pub(super) const VERSION: u8 = 4;

/// Bytes before the encoded record: the version, and the checksum (CRC-32, little-endian).
pub(super) const HEAD_BYTES: usize = 5;

/// The size of the largest record. The longest text takes 60 KiB. Sources, recipients and paths at
/// their own limits add 14 KiB more. redb rounds a row up to a power of two: beyond 64 KiB it takes
/// 128 KiB, which only a message at all limits at once does.
pub const RECORD_BYTES_MAX: usize = 120 * 1024;

/// bincode counts what decoding takes in memory, not encoded bytes.
const MEMORY_BYTES_MAX: usize = 16 * RECORD_BYTES_MAX;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MEMORY_BYTES_MAX>> =
    bincode::config::standard()
        .with_little_endian()
        .with_variable_int_encoding()
        .with_limit::<MEMORY_BYTES_MAX>();

/// Encodes the record of `row`.
pub(super) fn encode<T: Serialize>(row: &RecordName, record: &T) -> Result<Vec<u8>, StoreError> {
    encode_body(record)
        .map(|body| seal(row, &body))
        .map_err(|source| row.clone().unwritable(source))
}

/// Decodes the record of `row`, if `bytes` are exactly one record that was written there.
pub(super) fn decode<'a, T: Deserialize<'a>>(
    row: &RecordName,
    bytes: &'a [u8],
) -> Result<T, StoreError> {
    unseal_version(row, bytes, VERSION)
        .and_then(decode_body)
        .map_err(|source| row.clone().unreadable(source))
}

/// Decodes a message's head and idempotency key, without copying its text. The text is checked as
/// well.
pub(super) fn decode_head(
    row: &RecordName,
    bytes: &[u8],
) -> Result<(MessageHead, Option<String>), StoreError> {
    // The same fields in the same order as `MessageRecord`, with the text borrowed.
    let (head, idempotency_key, _text): (MessageHead, Option<String>, &str) = decode(row, bytes)?;
    Ok((head, idempotency_key))
}

/// Prepends version and checksum to an encoded record of `row`.
pub(super) fn seal(row: &RecordName, body: &[u8]) -> Vec<u8> {
    seal_version(row, body, VERSION)
}

/// Like [`seal`], for an earlier version, in the steps of a migration.
pub(super) fn seal_version(row: &RecordName, body: &[u8], version: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.push(version);
    bytes.extend_from_slice(&checksum(row, body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Returns the encoded record of this version in `row`, after its checksum was checked.
pub(super) fn unseal_version<'a>(
    row: &RecordName,
    bytes: &'a [u8],
    version: u8,
) -> Result<&'a [u8], RecordError> {
    let Some((found, rest)) = bytes.split_first() else {
        return Err(RecordError::Empty);
    };
    if *found != version {
        return Err(RecordError::Version { found: *found });
    }
    let Some((stored, body)) = rest.split_first_chunk() else {
        return Err(RecordError::Checksum);
    };
    if u32::from_le_bytes(*stored) == checksum(row, body) {
        Ok(body)
    } else {
        Err(RecordError::Checksum)
    }
}

/// Returns the checksum of the row's name and the encoded record. The name is a kind and a key, and
/// its bytes never change.
fn checksum(row: &RecordName, body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    match row {
        RecordName::Peer(peer) => {
            sum.update(b"peer");
            sum.update(&peer.0.to_le_bytes());
        }
        RecordName::Message(message) => {
            sum.update(b"message");
            sum.update(&message.to_u128().to_le_bytes());
        }
        RecordName::Delivery(message, peer) => {
            sum.update(b"delivery");
            sum.update(&message.to_u128().to_le_bytes());
            sum.update(&peer.0.to_le_bytes());
        }
        // No record is under these.
        RecordName::Key(number) => sum.update(&number.to_le_bytes()),
        RecordName::LastCommit => sum.update(b"last_commit"),
        RecordName::Page(at) => sum.update(&at.to_le_bytes()),
        RecordName::Link(broker) => {
            sum.update(b"link");
            sum.update(&broker.0);
        }
        RecordName::Broker => sum.update(b"broker"),
        RecordName::Due => sum.update(b"due"),
        RecordName::NextPeer => sum.update(b"next_peer"),
        RecordName::NextTask => sum.update(b"next_task"),
        RecordName::Settings => sum.update(b"settings"),
        RecordName::Pauses => sum.update(b"pauses"),
        RecordName::Kept => sum.update(b"kept"),
        RecordName::SharedRecord(SharedKey::Channel(name)) => {
            sum.update(b"channel");
            sum.update(name.to_ascii_lowercase().as_bytes());
        }
        RecordName::SharedRecord(SharedKey::Question(question)) => {
            sum.update(b"question");
            sum.update(&question.to_u128().to_le_bytes());
        }
        RecordName::SharedRecord(SharedKey::Task(task)) => {
            sum.update(b"task");
            sum.update(&task.0.to_le_bytes());
        }
        RecordName::SharedRecord(SharedKey::Note(key)) => {
            sum.update(b"note");
            sum.update(key.as_bytes());
        }
    }
    sum.update(body);
    sum.finalize()
}

pub(super) fn encode_body<T: Serialize>(record: &T) -> Result<Vec<u8>, RecordError> {
    let body = bincode::serde::encode_to_vec(record, CONFIG)?;
    let bytes = HEAD_BYTES + body.len();
    if bytes > RECORD_BYTES_MAX { Err(RecordError::TooLarge { bytes }) } else { Ok(body) }
}

/// Decodes `body`, if it is exactly one record. Checks no checksum: for [`decode`], and for records
/// from before there were checksums.
pub(super) fn decode_body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RecordError> {
    let (record, consumed) = bincode::serde::borrow_decode_from_slice(body, CONFIG)?;
    if consumed != body.len() {
        return Err(RecordError::TrailingBytes { bytes: body.len() - consumed });
    }
    Ok(record)
}

/// Encodes the schema version in `meta`. It has no version byte and its form never changes, so that
/// an older program can read a newer file's schema version.
pub(super) fn encode_number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// Decodes a number in `meta`.
pub(super) fn decode_number(bytes: &[u8]) -> Result<u64, RecordError> {
    let bytes = bytes.try_into().map_err(|_| RecordError::Number { bytes: bytes.len() })?;
    Ok(u64::from_le_bytes(bytes))
}

/// The reason why bytes are no record, or a record has no bytes.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Not even a version byte.
    #[error("the record is empty")]
    Empty,
    /// Written by another version.
    #[error("the record has version {found}, and this program reads version {VERSION}")]
    Version {
        /// The version byte found.
        found: u8,
    },
    /// The bytes are not those that were written there.
    #[error("the record does not match its checksum")]
    Checksum,
    /// More bytes than the record needs.
    #[error("{bytes} bytes follow the record")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A number has eight bytes.
    #[error("{bytes} bytes are not a number")]
    Number {
        /// How many bytes there are.
        bytes: usize,
    },
    /// Larger than a record may be.
    #[error("a record of {bytes} bytes is larger than {RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The encoder's own reason.
    #[error("the record cannot be encoded")]
    Encode(#[from] bincode::error::EncodeError),
    /// The decoder's own reason: a cut value, an unknown variant, invalid UTF-8, a length beyond
    /// the limit.
    #[error("the bytes of the record cannot be decoded")]
    Decode(#[from] bincode::error::DecodeError),
}
