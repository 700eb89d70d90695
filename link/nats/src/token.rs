//! The token that brings a machine into a team.
//!
//! Knows its text form. It holds the team's key: who has it and may use the server is a member.

use std::fmt;
use std::str::FromStr;

use peer_proto::codec;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::seal::TeamKey;

/// How a token begins: its kind and version.
const PREFIX: &str = "peerd-team-1-";

const CHECK_BYTES: usize = 4;

/// What a machine needs to join a team, besides the right to use the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamToken {
    /// The team.
    pub team: String,
    /// The server, or the servers of one cluster.
    pub urls: Vec<String>,
    /// Connections without TLS are allowed, also to other machines.
    pub insecure: bool,
    /// The team's key.
    pub key: TeamKey,
}

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this is no token of a team, or not the whole of one")]
pub struct NotAToken;

#[derive(Serialize, Deserialize)]
struct Form {
    team: String,
    urls: Vec<String>,
    insecure: bool,
    key: [u8; 32],
}

impl fmt::Display for TeamToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { team, urls, insecure, key } = self.clone();
        let mut bytes =
            codec::encode(&Form { team, urls, insecure, key: key.0 }).map_err(|_| fmt::Error)?;
        let check = Sha256::digest(&bytes);
        bytes.extend_from_slice(&check[..CHECK_BYTES]);
        f.write_str(PREFIX)?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TeamToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(NotAToken)?;
        if !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        {
            return Err(NotAToken);
        }
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16))
            .collect::<Result<_, _>>()
            .map_err(|_| NotAToken)?;
        let end = bytes.len().checked_sub(CHECK_BYTES).ok_or(NotAToken)?;
        let (bytes, check) = bytes.split_at(end);
        if Sha256::digest(bytes)[..CHECK_BYTES] != *check {
            return Err(NotAToken);
        }
        let Form { team, urls, insecure, key } = codec::decode(bytes).map_err(|_| NotAToken)?;
        Ok(Self { team, urls, insecure, key: TeamKey(key) })
    }
}

/// Whether a team may have this name: it stands in subjects and in the names of streams.
#[must_use]
pub fn is_team_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_a_damaged_one_is_not() {
        let token = TeamToken {
            team: "blue".to_owned(),
            urls: vec!["tls://nats.example:4222".to_owned()],
            insecure: false,
            key: TeamKey([7; 32]),
        };
        let text = token.to_string();
        assert_eq!(format!(" {text}\n").parse(), Ok(token));
        assert_eq!(text[..text.len() - 2].parse::<TeamToken>(), Err(NotAToken));
        let at = PREFIX.len() + 5;
        let other = if &text[at..=at] == "0" { "1" } else { "0" };
        let damaged = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        assert_eq!(damaged.parse::<TeamToken>(), Err(NotAToken));
        assert_eq!("peerd-team-1-é".parse::<TeamToken>(), Err(NotAToken));
        assert_eq!("".parse::<TeamToken>(), Err(NotAToken));
    }
}
