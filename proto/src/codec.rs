//! Values to frame payloads and back. The one module that says bincode: whoever replaces the
//! encoding changes this file.
//!
//! A frame is a little-endian `u32` length and that many bytes of payload. Whoever has a socket
//! does the framing; this module does the payload, and [`HEADER_BYTES`] and [`crate::limits`] say
//! what the framing needs to know.
//!
//! What bincode does not do by itself is done here (each was reproduced with 2.0.1): without a
//! limit a nine-byte payload aborts the process by asking for an exabyte; the limit counts memory,
//! not encoded bytes; encoding is not limited at all; trailing bytes are ignored.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::limits::FRAME_BYTES_MAX;

/// Bytes of the length that stands before each payload.
pub const HEADER_BYTES: usize = 4;

/// bincode counts what decoding takes in memory: small values in long lists take up to 16 times
/// their encoded size.
const MEMORY_BYTES_MAX: usize = 16 * FRAME_BYTES_MAX;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MEMORY_BYTES_MAX>> =
    bincode::config::standard()
        .with_little_endian()
        .with_variable_int_encoding()
        .with_limit::<MEMORY_BYTES_MAX>();

/// The payload that says `value`.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let payload = bincode::serde::encode_to_vec(value, CONFIG)?;
    if payload.len() > FRAME_BYTES_MAX {
        return Err(EncodeError::TooLarge { bytes: payload.len() });
    }
    Ok(payload)
}

/// The value that `payload` says, if it says exactly one.
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

/// Why a value has no payload.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// Larger than a frame may be.
    #[error("a frame of {bytes} bytes is larger than {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The encoder's own reason.
    #[error("this value cannot be put into a frame")]
    Value(#[from] bincode::error::EncodeError),
}

/// Why a payload says nothing.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Larger than a frame may be.
    #[error("a frame of {bytes} bytes is larger than {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// More bytes than the value needs.
    #[error("{bytes} bytes follow the value in its frame")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// The decoder's own reason: an unknown variant, a cut value, invalid UTF-8, a length beyond
    /// the limit.
    #[error("this frame is no value of the protocol")]
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
