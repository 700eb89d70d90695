//! Identifiers and times. Each has one binary form (serde) and one text form (`Display` and
//! `FromStr`).
//!
//! Does not know a clock: the caller passes the time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Crockford's base 32: no I, L, O or U, so that an identifier can be read aloud and typed.
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The base-32 digits in the text form of a [`MessageId`]: 80 bits.
const MESSAGE_ID_DIGITS: usize = 16;

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time `millis` milliseconds later; the largest time instead of an overflow.
    #[must_use]
    pub fn plus_ms(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to `self`; zero if the clock went backwards.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The identity of a message: globally unique and ordered by time.
///
/// It has 48 bits of milliseconds since the epoch, then 32 bits that the broker draws at random. If
/// that is not beyond the last identifier, it adds a random step to the last one. Always below 2^80. Text form: `m-` and 16 base-32
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u128", into = "u128")]
pub struct MessageId(u128);

impl MessageId {
    /// The smallest identifier.
    pub const MIN: Self = Self(0);
    /// The largest identifier.
    pub const MAX: Self = Self((1 << 80) - 1);

    /// The first identifier that sorts after `last` and has the time `now`; `entropy` fills its
    /// random part.
    ///
    /// If the clock went backwards, the result is `last` and a random step, so the order holds. Two
    /// brokers that both go on from one identifier draw different ones.
    #[must_use]
    pub fn next(last: Self, now: Timestamp, entropy: u32) -> Self {
        let drawn = (u128::from(now.0 & 0xffff_ffff_ffff) << 32) | u128::from(entropy);
        let step = 1 + u128::from(entropy & 0xffff);
        Self(drawn.max((last.0 + step).min(Self::MAX.0)))
    }

    /// The smallest identifier that a message sent at `at` can have.
    #[must_use]
    pub fn first_at(at: Timestamp) -> Self {
        Self(u128::from(at.0 & 0xffff_ffff_ffff) << 32)
    }

    /// The time in it: the message was accepted then, or earlier if the clock had gone backwards.
    #[must_use]
    pub fn accepted_at(self) -> Timestamp {
        Timestamp((self.0 >> 32) as u64)
    }

    /// The name of the thread that this message begins if it names none: from the last digits of
    /// its identifier, which are random.
    #[must_use]
    pub fn default_thread(self) -> String {
        format!("t-{}", &self.to_string()[10..])
    }

    /// The identifier as a number below 2^80. Its order is the order of time.
    #[must_use]
    pub fn to_u128(self) -> u128 {
        self.0
    }
}

impl TryFrom<u128> for MessageId {
    type Error = IdError;

    fn try_from(number: u128) -> Result<Self, IdError> {
        if number <= Self::MAX.0 { Ok(Self(number)) } else { Err(IdError::MessageIdRange) }
    }
}

impl From<MessageId> for u128 {
    fn from(id: MessageId) -> u128 {
        id.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m-")?;
        for digit in (0..MESSAGE_ID_DIGITS).rev() {
            let value = (self.0 >> (digit * 5)) & 31;
            f.write_str(
                std::str::from_utf8(&BASE32[value as usize..=value as usize]).unwrap_or("0"),
            )?;
        }
        Ok(())
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    /// Accepts lower case, and the letters o, i and l for the digits that they look like.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text
            .strip_prefix("m-")
            .or_else(|| text.strip_prefix("M-"))
            .ok_or(IdError::MessageId)?;
        if digits.len() != MESSAGE_ID_DIGITS {
            return Err(IdError::MessageId);
        }
        let mut number = 0u128;
        for digit in digits.bytes() {
            let value = base32_value(digit).ok_or(IdError::MessageId)?;
            number = (number << 5) | value;
        }
        Ok(Self(number))
    }
}

/// The identity of a task: a counter, never used twice by one broker. Text form: `T-` and a decimal
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T-{}", self.0)
    }
}

impl FromStr for TaskId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits =
            text.strip_prefix("T-").or_else(|| text.strip_prefix("t-")).ok_or(IdError::TaskId)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(IdError::TaskId);
        }
        digits.parse().map(Self).map_err(|_| IdError::TaskId)
    }
}

/// The identity of a peer: durable, never used twice by one broker. Text form: `p-` and a decimal
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub u64);

impl PeerId {
    /// The broker itself, as the sender of notices. It has no mailbox.
    pub const SYSTEM: Self = Self(0);
    /// The person, as a peer with a mailbox.
    pub const HUMAN: Self = Self(1);
    /// The first identity of a session's peer.
    pub const FIRST: Self = Self(2);
    /// The lowest identity by which other brokers address a channel.
    const FIRST_CHANNEL: Self = Self(1 << 63);

    /// The identity by which other brokers address a channel of this one. No two channels of one
    /// broker are made at the same time, so it is never used twice.
    #[must_use]
    pub fn of_channel(made_at: Timestamp) -> Self {
        Self(Self::FIRST_CHANNEL.0 | made_at.0)
    }

    /// Whether it addresses a channel. It has no mailbox on the channel's own broker.
    #[must_use]
    pub fn is_channel(self) -> bool {
        self >= Self::FIRST_CHANNEL
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p-{}", self.0)
    }
}

impl FromStr for PeerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let number = text.strip_prefix("p-").ok_or(IdError::PeerId)?;
        number.parse().map(Self).map_err(|_| IdError::PeerId)
    }
}

/// A broker's identity on links: the first 16 bytes of the SHA-256 digest of its public key.
///
/// It survives a restored store, because the key lies beside the store. Text form: `b-` and 26
/// base-32 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BrokerId(pub [u8; 16]);

/// How many base-32 digits stand in the text form of a [`BrokerId`]: 130 bits, the first two zero.
const BROKER_ID_DIGITS: usize = 26;

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("b-")?;
        let number = u128::from_be_bytes(self.0);
        for digit in (0..BROKER_ID_DIGITS).rev() {
            let value = (number >> (digit * 5)) & 31;
            f.write_str(
                std::str::from_utf8(&BASE32[value as usize..=value as usize]).unwrap_or("0"),
            )?;
        }
        Ok(())
    }
}

impl FromStr for BrokerId {
    type Err = IdError;

    /// Accepts lower case, and the letters that base 32 leaves out where they are mistaken for
    /// digits (o, i, l).
    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text
            .strip_prefix("b-")
            .or_else(|| text.strip_prefix("B-"))
            .filter(|digits| digits.len() == BROKER_ID_DIGITS)
            .ok_or(IdError::BrokerId)?;
        let mut number = 0u128;
        for digit in digits.bytes() {
            let value = base32_value(digit).ok_or(IdError::BrokerId)?;
            if number >> 123 != 0 {
                return Err(IdError::BrokerId);
            }
            number = (number << 5) | value;
        }
        Ok(Self(number.to_be_bytes()))
    }
}

/// Returns the value of a base-32 digit, in either case.
fn base32_value(digit: u8) -> Option<u128> {
    let digit = match digit.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    BASE32.iter().position(|known| *known == digit).map(|value| value as u128)
}

/// The identity of a session within one run of the broker. In memory only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// The secret that a session got at registration: 256 random bits. A connection with it is that
/// session.
///
/// It is never logged: its `Debug` form hides it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub [u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not `m-` and 16 base-32 digits.
    #[error("a message id is m- and 16 letters or digits, such as m-01JDK3V7QX8Z2M4T")]
    MessageId,
    /// A number at or above 2^80.
    #[error("a message id is a number below 2^80")]
    MessageIdRange,
    /// Not `p-` and a number.
    #[error("a peer id is p- and a number, such as p-7")]
    PeerId,
    /// Not `b-` and 26 base-32 digits.
    #[error("a broker id is b- and 26 letters or digits")]
    BrokerId,
    /// Not `T-` and a number.
    #[error("a task id is T- and a number, such as T-12")]
    TaskId,
}

/// Whether `name` may be a peer's name: 1 to 32 of `[A-Za-z0-9_-]`, the first a letter or digit,
/// and not reserved.
#[must_use]
pub fn is_peer_name(name: &str) -> bool {
    is_well_formed_name(name) && !is_reserved_name(name)
}

/// Whether `name` has the form of a peer's name, reserved or not.
///
/// A name may not look like an identifier (`p-7`, `m-…`), so that a name and an id never mean
/// different peers.
#[must_use]
pub fn is_well_formed_name(name: &str) -> bool {
    (1..=crate::limits::NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.parse::<PeerId>().is_err()
        && name.parse::<MessageId>().is_err()
}

/// Whether `name` is reserved, in any case: no session may take it.
#[must_use]
pub fn is_reserved_name(name: &str) -> bool {
    ["human", "user", "system", "all", "me"]
        .iter()
        .any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// A name without blanks and quotation marks around it.
#[must_use]
pub fn unquoted(text: &str) -> &str {
    let mut name = text.trim();
    for mark in ['"', '\'', '`'] {
        if let Some(inner) = name.strip_prefix(mark).and_then(|name| name.strip_suffix(mark)) {
            name = inner.trim();
        }
    }
    name
}

/// A peer's name or id without quotation marks and `@`: `@bob` means `bob`. If a group is possible
/// too, the caller must try that first.
#[must_use]
pub fn called_peer(text: &str) -> &str {
    let name = unquoted(text);
    name.strip_prefix('@').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_survives_its_text_form() {
        let id = MessageId::next(MessageId::MIN, Timestamp(1_795_000_000_000), 0xdead_beef);
        let text = id.to_string();
        assert_eq!(text.len(), 18);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_lowercase().parse(), Ok(id));
    }

    #[test]
    fn a_broker_id_survives_its_text_form() {
        for bytes in [[0; 16], [0xff; 16], *b"0123456789abcdef"] {
            let id = BrokerId(bytes);
            let text = id.to_string();
            assert_eq!(text.len(), 28);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_lowercase().parse(), Ok(id));
        }
        // The first digit has three bits.
        for text in ["", "b-", "b-8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "m-00000000000000000000000000"] {
            assert_eq!(text.parse::<BrokerId>(), Err(IdError::BrokerId), "{text:?}");
        }
    }

    #[test]
    fn message_ids_follow_each_other_when_the_clock_goes_backwards() {
        let first = MessageId::next(MessageId::MIN, Timestamp(2_000), u32::MAX);
        let second = MessageId::next(first, Timestamp(1_000), 0);
        assert!(second > first);
        assert!(second.to_string() > first.to_string(), "text order is time order");
    }

    #[test]
    fn what_is_no_message_id_is_refused() {
        for text in [
            "",
            "m-",
            "m-123",
            "x-0123456789ABCDEF",
            "m-0123456789ABCDEFG",
            "m-0123456789ABCDE!",
            "m-ééééééé0",
        ] {
            assert_eq!(text.parse::<MessageId>(), Err(IdError::MessageId), "{text:?}");
        }
        assert_eq!(MessageId::try_from(1u128 << 80), Err(IdError::MessageIdRange));
    }

    #[test]
    fn names_are_bounded_and_some_are_reserved() {
        for good in ["a", "calm-fox", "Build_2", "0x", &"n".repeat(32)] {
            assert!(is_peer_name(good), "{good:?}");
        }
        for bad in [
            "",
            "-a",
            "_a",
            "a b",
            "é",
            "human",
            "HUMAN",
            "me",
            "p-7",
            "m-0123456789ABCDEF",
            &"n".repeat(33),
        ] {
            assert!(!is_peer_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_read_as_it_was_meant() {
        for text in ["bob", " bob\n", "@bob", "\"bob\"", "'@bob'", "`bob`", " \" @bob \" "] {
            assert_eq!(called_peer(text), "bob", "{text:?}");
        }
        for text in ["@@bob", "#bob", "\"bob", "bo b", "\"", ""] {
            assert_ne!(called_peer(text), "bob", "{text:?}");
        }
        assert_eq!(unquoted("\"@api\""), "@api");
    }

    #[test]
    fn a_token_does_not_show_itself() {
        assert_eq!(format!("{:?}", Token([7; 32])), "Token(hidden)");
    }
}
