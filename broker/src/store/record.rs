//! Records to bytes and back: a version byte, then bincode.
//!
//! Knows the encoding. Does not know the tables.
//!
//! Invariant: what these bytes mean never changes. A record that was shipped is frozen, with every type inside it: bincode
//! writes no field names, so a field added, removed, reordered or retyped, or an enum variant inserted anywhere but at the
//! end, would silently read old bytes as something else. The golden bytes in this module's tests fail first. To change a
//! record: copy the old type into `migrate.rs`, raise [`VERSION`], and add the step that rewrites the old rows. (A variant
//! appended at the end of an enum needs that too: not for our sake, but so that an older broker refuses the file by its
//! schema instead of stumbling over one row.)

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use peer_core::record::{MessageHead, MessageRecord};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the records that this build writes, and the only one that it reads outside a migration.
pub(super) const VERSION: u8 = 1;

/// Largest record. The longest text takes 60 KiB; sources, recipients and paths at their own limits add 14 KiB more.
/// redb rounds a row up to a power of two: beyond 64 KiB it takes 128 KiB, which only a message at all limits at once does.
pub const RECORD_BYTES_MAX: usize = 120 * 1024;

/// bincode counts what decoding takes in memory, not encoded bytes.
const MEMORY_BYTES_MAX: usize = 16 * RECORD_BYTES_MAX;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MEMORY_BYTES_MAX>> =
    bincode::config::standard().with_little_endian().with_variable_int_encoding().with_limit::<MEMORY_BYTES_MAX>();

/// The bytes of a record.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, RecordError> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(record, &mut bytes, CONFIG)?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(RecordError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// The record that `bytes` are, if they are exactly one.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    let Some((version, body)) = bytes.split_first() else {
        return Err(RecordError::Empty);
    };
    if *version != VERSION {
        return Err(RecordError::Version { found: *version });
    }
    let (record, consumed) = bincode::serde::borrow_decode_from_slice(body, CONFIG)?;
    if consumed != body.len() {
        return Err(RecordError::TrailingBytes { bytes: body.len() - consumed });
    }
    Ok(record)
}

/// A message's head and idempotency key, without copying its text; the text is checked all the same.
pub(super) fn decode_head(bytes: &[u8]) -> Result<(MessageHead, Option<String>), RecordError> {
    // The same fields in the same order as `MessageRecord`, with the text borrowed.
    let (head, idempotency_key, _text): (MessageHead, Option<String>, &str) = decode(bytes)?;
    Ok((head, idempotency_key))
}

/// A message, whole.
pub(super) fn decode_message(bytes: &[u8]) -> Result<MessageRecord, RecordError> {
    decode(bytes)
}

/// The bytes of a number in `meta`. No version byte: this form is for good, so that an older program can read a newer
/// file's schema version.
pub(super) fn encode_number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// The number that `bytes` in `meta` are.
pub(super) fn decode_number(bytes: &[u8]) -> Result<u64, RecordError> {
    let bytes = bytes.try_into().map_err(|_| RecordError::Number { bytes: bytes.len() })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Why bytes are no record, or a record has no bytes.
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
    /// More bytes than the record needs.
    #[error("{bytes} bytes follow the record")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A number has eight bytes.
    #[error("{bytes} bytes are no number")]
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
    /// The decoder's own reason: a cut value, an unknown variant, invalid UTF-8, a length beyond the limit.
    #[error("the record's bytes make no sense")]
    Decode(#[from] bincode::error::DecodeError),
}
