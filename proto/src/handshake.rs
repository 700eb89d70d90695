//! The preface: the bytes that each end sends before any frame.
//!
//! Knows versions and the software line. Does not know frames. Invariant: the form of the preface
//! never changes, so that two copies of any age can tell why they are incompatible.
//!
//! ```text
//! offset  bytes
//!      0      6  "PEERD\0"
//!      6      2  lowest protocol version spoken, little-endian
//!      8      2  highest protocol version spoken
//!     10      4  features, a bit each; unknown bits are ignored; none are defined yet
//!     14      2  length n of what follows, at most 1,024
//!     16      n  UTF-8: version, a space, path of the executable
//! ```

use thiserror::Error;

use crate::version::{PROTOCOL_MAX, PROTOCOL_MIN, common_version};

/// The first bytes of every connection, in both directions.
pub const MAGIC: &[u8; 6] = b"PEERD\0";

/// The first bytes of a connection between two link processes. The rest of the preface has the same
/// form, and versions of its own.
pub const LINK_MAGIC: &[u8; 6] = b"PEERL\0";

/// The bytes of the fixed part of the preface.
pub const FIXED_BYTES: usize = 16;

/// Most bytes of the software line.
pub const SOFTWARE_BYTES_MAX: usize = 1_024;

/// The data of one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preface {
    /// Lowest protocol version of this end.
    pub min: u16,
    /// Highest protocol version of this end.
    pub max: u16,
    /// A bit per feature.
    pub features: u32,
    /// Version, a space, path of the executable.
    pub software: String,
}

impl Preface {
    /// This build's preface. A path too long for it is cut.
    #[must_use]
    pub fn ours(executable: &str) -> Self {
        let mut software = format!("{} {executable}", env!("CARGO_PKG_VERSION"));
        while software.len() > SOFTWARE_BYTES_MAX {
            software.pop();
        }
        Self { min: PROTOCOL_MIN, max: PROTOCOL_MAX, features: 0, software }
    }

    /// The bytes of the preface.
    ///
    /// # Panics
    /// `software` is longer than [`SOFTWARE_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_as(MAGIC)
    }

    /// The bytes of the preface, with other first bytes.
    ///
    /// # Panics
    /// `software` is longer than [`SOFTWARE_BYTES_MAX`].
    #[must_use]
    pub fn encode_as(&self, magic: &[u8; 6]) -> Vec<u8> {
        assert!(
            self.software.len() <= SOFTWARE_BYTES_MAX,
            "a software line of {} bytes",
            self.software.len()
        );
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.software.len());
        bytes.extend_from_slice(magic);
        bytes.extend_from_slice(&self.min.to_le_bytes());
        bytes.extend_from_slice(&self.max.to_le_bytes());
        bytes.extend_from_slice(&self.features.to_le_bytes());
        bytes.extend_from_slice(&(self.software.len() as u16).to_le_bytes());
        bytes.extend_from_slice(self.software.as_bytes());
        bytes
    }

    /// Decodes the fixed part. Returns the preface without its software line, and the number of
    /// bytes of that line.
    ///
    /// # Errors
    /// See [`PrefaceError`].
    pub fn decode_fixed(bytes: &[u8; FIXED_BYTES]) -> Result<(Self, usize), PrefaceError> {
        Self::decode_fixed_as(MAGIC, bytes)
    }

    /// Like [`Preface::decode_fixed`], for a preface that begins with other bytes.
    ///
    /// # Errors
    /// See [`PrefaceError`].
    pub fn decode_fixed_as(
        magic: &[u8; 6],
        bytes: &[u8; FIXED_BYTES],
    ) -> Result<(Self, usize), PrefaceError> {
        let [m0, m1, m2, m3, m4, m5, min0, min1, max0, max1, f0, f1, f2, f3, n0, n1] = *bytes;
        if [m0, m1, m2, m3, m4, m5] != *magic {
            return Err(PrefaceError::Magic);
        }
        let (min, max) = (u16::from_le_bytes([min0, min1]), u16::from_le_bytes([max0, max1]));
        if min == 0 || min > max {
            return Err(PrefaceError::Range { min, max });
        }
        let software_bytes = usize::from(u16::from_le_bytes([n0, n1]));
        if software_bytes > SOFTWARE_BYTES_MAX {
            return Err(PrefaceError::SoftwareTooLong { bytes: software_bytes });
        }
        let features = u32::from_le_bytes([f0, f1, f2, f3]);
        Ok((Self { min, max, features, software: String::new() }, software_bytes))
    }

    /// The protocol version that both ends use.
    pub fn agree(&self, other: &Self) -> Result<u16, PrefaceError> {
        common_version((self.min, self.max), (other.min, other.max)).ok_or_else(|| {
            PrefaceError::NoCommonVersion {
                ours: self.software.clone(),
                ours_min: self.min,
                ours_max: self.max,
                theirs: other.software.clone(),
                theirs_min: other.min,
                theirs_max: other.max,
            }
        })
    }
}

/// Why two ends cannot communicate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefaceError {
    /// The other end does not use peerd's protocol.
    #[error("the other end of the socket does not speak peerd's protocol")]
    Magic,
    /// The version range is invalid.
    #[error("the other end sent the protocol versions {min} to {max}, which is not a range")]
    Range {
        /// The lowest version that was sent.
        min: u16,
        /// The highest version that was sent.
        max: u16,
    },
    /// The software line is too long.
    #[error("the other end sent a software line of {bytes} bytes, more than {SOFTWARE_BYTES_MAX}")]
    SoftwareTooLong {
        /// The length that was sent.
        bytes: usize,
    },
    /// The version ranges have no common version.
    #[error(
        "no common protocol version: this is {ours} (protocol {ours_min} to {ours_max}), the other end is {theirs} (protocol {theirs_min} to {theirs_max})"
    )]
    NoCommonVersion {
        /// This end: version and executable.
        ours: String,
        /// Lowest version of this end.
        ours_min: u16,
        /// Highest version of this end.
        ours_max: u16,
        /// The other end: version and executable.
        theirs: String,
        /// Lowest version of the other end.
        theirs_min: u16,
        /// Highest version of the other end.
        theirs_max: u16,
    },
}

impl PrefaceError {
    /// The next step; empty if none is known.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoCommonVersion { .. } => {
                "install one version of peerctl, then run `peerctl daemon restart`".to_owned()
            }
            Self::Magic | Self::Range { .. } | Self::SoftwareTooLong { .. } => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(bytes: &[u8]) -> &[u8; FIXED_BYTES] {
        bytes[..FIXED_BYTES].try_into().expect("a preface has its fixed part")
    }

    #[test]
    fn the_preface_is_these_bytes() {
        let preface = Preface { min: 1, max: 2, features: 0, software: "0.1.0 /x".into() };
        let bytes = preface.encode();
        assert_eq!(bytes, b"PEERD\0\x01\x00\x02\x00\x00\x00\x00\x00\x08\x000.1.0 /x");
        let (decoded, software_bytes) = Preface::decode_fixed(fixed(&bytes)).unwrap();
        assert_eq!((decoded.min, decoded.max, software_bytes), (1, 2, 8));
    }

    #[test]
    fn a_stranger_a_wrong_range_and_an_endless_line_are_refused() {
        let mut bytes = Preface::ours("/x").encode();
        bytes[0] = b'H';
        assert_eq!(Preface::decode_fixed(fixed(&bytes)), Err(PrefaceError::Magic));
        let bytes = Preface { min: 3, max: 2, features: 0, software: String::new() }.encode();
        assert_eq!(
            Preface::decode_fixed(fixed(&bytes)),
            Err(PrefaceError::Range { min: 3, max: 2 })
        );
        let mut bytes = Preface::ours("/x").encode();
        bytes[14..16].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(
            Preface::decode_fixed(fixed(&bytes)),
            Err(PrefaceError::SoftwareTooLong { bytes: 65_535 })
        );
    }

    #[test]
    fn a_refusal_names_both_ends_and_the_command_that_helps() {
        let old = Preface { min: 1, max: 1, features: 0, software: "0.1.0 /old/peerctl".into() };
        let new = Preface { min: 2, max: 3, features: 0, software: "3.0.0 /new/peerctl".into() };
        let text = old.agree(&new).unwrap_err().to_string();
        for part in ["/old/peerctl", "/new/peerctl"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(old.agree(&new).unwrap_err().hint().contains("peerctl daemon restart"));
    }

    #[test]
    fn a_path_too_long_is_cut_at_a_character() {
        let preface = Preface::ours(&"é".repeat(2_000));
        assert!(preface.encode().len() <= FIXED_BYTES + SOFTWARE_BYTES_MAX);
    }
}
