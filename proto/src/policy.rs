//! What the person lets a session's mailbox take.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};

/// What becomes of a message that another session sends.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumString,
    IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Policy {
    /// It goes its way.
    #[default]
    Accept,
    /// It waits until the person releases it, and the sender is told.
    Hold,
    /// It is refused, and the sender is told.
    Refuse,
}

impl Policy {
    /// The policy's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// All policies that are in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// For every peer that has none of its own.
    pub default: Policy,
    /// What becomes of mail from a session that may do less without asking than its reader; absent:
    /// nothing special.
    pub escalation: Option<Policy>,
    /// The person has said yes to posts into the inbox socket of sessions that bypass permissions,
    /// or may come to.
    pub inbox_socket_in_bypass: bool,
    /// Peers with a policy of their own, by name.
    pub peers: Vec<(String, Policy)>,
}
