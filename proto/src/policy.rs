//! The person's policies for mail to sessions.
//!
//! Knows the values on the wire. Does not know to which mail a policy applies: the broker's rules
//! do.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};

/// What happens to a message from another session.
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
    /// It is delivered.
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

/// All policies in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// The policy for every peer without its own.
    pub default: Policy,
    /// The policy for mail from a session that may do less without asking than its recipient;
    /// absent: no such policy.
    pub escalation: Option<Policy>,
    /// Whether the person allows the inbox socket in sessions that bypass permissions, or may begin
    /// to.
    pub inbox_socket_in_bypass: bool,
    /// Peers with their own policy, by name.
    pub peers: Vec<(String, Policy)>,
}
