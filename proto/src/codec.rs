//! Encodes values as frame payloads, and decodes them.
//!
//! Only this module uses bincode, so another encoding changes only this file. A frame is a
//! little-endian `u32` length and a payload of that many bytes. The owner of the socket does the
//! framing, with [`HEADER_BYTES`] and [`crate::limits`]. Invariant: no payload costs more memory
//! than the limit, and none has bytes after its value.
//!
//! bincode does not ensure that by itself (reproduced with 2.0.1). Without a limit, a nine-byte
//! payload aborts the process because it asks for an exabyte. The limit counts memory, not encoded
//! bytes. Encoding has no limit at all, and trailing bytes are ignored.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::limits::FRAME_BYTES_MAX;

/// Bytes of the length before each payload.
pub const HEADER_BYTES: usize = 4;

/// The memory limit of decoding, in bytes. Small values in long lists take up to 16 times their
/// encoded size.
const MEMORY_BYTES_MAX: usize = 16 * FRAME_BYTES_MAX;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MEMORY_BYTES_MAX>> =
    bincode::config::standard()
        .with_little_endian()
        .with_variable_int_encoding()
        .with_limit::<MEMORY_BYTES_MAX>();

/// Encodes `value` as a payload.
///
/// # Errors
/// The payload is larger than a frame, or the encoder refuses the value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let payload = bincode::serde::encode_to_vec(value, CONFIG)?;
    if payload.len() > FRAME_BYTES_MAX {
        return Err(EncodeError::TooLarge { bytes: payload.len() });
    }
    Ok(payload)
}

/// Decodes a payload.
///
/// # Errors
/// The payload is not exactly one value of this type.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    if payload.len() > FRAME_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: payload.len() });
    }
    let (value, consumed) = bincode::serde::decode_from_slice(payload, CONFIG)?;
    if consumed != payload.len() {
        return Err(DecodeError::TrailingBytes { bytes: payload.len() - consumed });
    }
    Ok(value)
}

/// Why a value cannot be encoded.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The payload is larger than a frame may be.
    #[error("a frame of {bytes} bytes is larger than {FRAME_BYTES_MAX}")]
    TooLarge {
        /// The size in bytes.
        bytes: usize,
    },
    /// The encoder's own reason.
    #[error("this value cannot be encoded as a frame")]
    Value(#[from] bincode::error::EncodeError),
}

/// Why a payload cannot be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The payload is larger than a frame may be.
    #[error("a frame of {bytes} bytes is larger than {FRAME_BYTES_MAX}")]
    TooLarge {
        /// The size in bytes.
        bytes: usize,
    },
    /// The payload has more bytes than the value needs.
    #[error("{bytes} bytes follow the value in its frame")]
    TrailingBytes {
        /// The number of extra bytes.
        bytes: usize,
    },
    /// The decoder's own reason: an unknown variant, a truncated value, invalid UTF-8, or a length
    /// beyond the limit.
    #[error("this frame is not a value of the protocol")]
    Value(#[from] bincode::error::DecodeError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{ClientFrame, Request};

    #[test]
    fn a_hostile_length_costs_nothing() {
        // A request of variant 2 (Bind) whose string claims 2^60 bytes: an error, not an
        // allocation.
        let hostile = [0, 2, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10];
        assert!(matches!(decode::<ClientFrame>(&hostile), Err(DecodeError::Value(_))));
    }

    #[test]
    fn bytes_after_the_value_are_refused() {
        let mut payload = encode(&ClientFrame { id: 1, request: Request::Status }).unwrap();
        payload.push(0);
        assert!(matches!(
            decode::<ClientFrame>(&payload),
            Err(DecodeError::TrailingBytes { bytes: 1 })
        ));
    }

    #[test]
    fn what_is_larger_than_a_frame_is_refused_both_ways() {
        let frame = ClientFrame { id: 1, request: Request::Kick("k".repeat(FRAME_BYTES_MAX)) };
        assert!(matches!(encode(&frame), Err(EncodeError::TooLarge { .. })));
        let payload = vec![0; FRAME_BYTES_MAX + 1];
        assert!(matches!(decode::<ClientFrame>(&payload), Err(DecodeError::TooLarge { .. })));
    }
}
