//! When and how a session's model will see a message that is sent now.
//!
//! Knows what the session's adapter reported. Does not know whether the report is still true.

use std::fmt;

use crate::hook::Activity;
use crate::message::Carrier;
use crate::request::CarrierProof;

/// When a session's model sees a message that may wake it. Another message waits for the next turn
/// of an idle session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At once, or between two tool calls, by this push carrier.
    Now(CarrierProof),
    /// After a tool has run or when a turn begins, by a hook.
    NextEvent(CarrierProof),
    /// With its user's next prompt, by a hook: the session is idle.
    NextTurn(CarrierProof),
    /// When it calls a tool of peerd.
    NextCall(CarrierProof),
}

impl Reach {
    /// How an online session is reached. `carriers` are those that it reported, the next to be
    /// tried first. Without a report it is the end of a tool result, which every client has.
    #[must_use]
    pub fn of(carriers: &[CarrierProof], activity: Option<Activity>) -> Self {
        let is_push = |proof: &&CarrierProof| {
            matches!(proof.carrier, Carrier::Channel | Carrier::InboxSocket | Carrier::AppServer)
        };
        let named =
            |carrier: Carrier| carriers.iter().find(|proof| proof.carrier == carrier).copied();
        // A carrier that was tried before and is no longer available comes after the tool result.
        let present = carriers
            .iter()
            .position(|proof| proof.carrier == Carrier::ToolResult)
            .unwrap_or(carriers.len());
        if let Some(push) = carriers[..present].iter().find(is_push) {
            return Self::Now(*push);
        }
        match (named(Carrier::Hook), activity) {
            (Some(hook), Some(Activity::Idle)) => Self::NextTurn(hook),
            (Some(hook), _) => Self::NextEvent(hook),
            (None, _) => {
                let unproved = CarrierProof { carrier: Carrier::ToolResult, proven_at: None };
                Self::NextCall(named(Carrier::ToolResult).unwrap_or(unproved))
            }
        }
    }

    /// The carrier, and when it was last proved.
    #[must_use]
    pub fn carrier(&self) -> CarrierProof {
        match self {
            Self::Now(proof)
            | Self::NextEvent(proof)
            | Self::NextTurn(proof)
            | Self::NextCall(proof) => *proof,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self {
            Self::Now(_) => "reached now",
            Self::NextEvent(_) => "sees mail after its next tool call",
            Self::NextTurn(_) => "is idle and sees mail with its user's next prompt",
            Self::NextCall(_) => "sees mail with its next call of a peers tool",
        };
        write!(f, "{when}, by {}", self.carrier().carrier.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_way_that_is_there_says_when() {
        let proof = |carrier| CarrierProof { carrier, proven_at: None };
        let of = |carriers: &[Carrier], activity| {
            let carriers: Vec<_> = carriers.iter().map(|carrier| proof(*carrier)).collect();
            Reach::of(&carriers, activity).to_string()
        };
        use Carrier::{Channel, Hook, InboxSocket, ToolResult};
        assert_eq!(of(&[], None), "sees mail with its next call of a peers tool, by tool_result");
        assert_eq!(
            of(&[ToolResult, Channel], None),
            "sees mail with its next call of a peers tool, by tool_result"
        );
        assert_eq!(
            of(&[InboxSocket, Hook, ToolResult], Some(Activity::Idle)),
            "reached now, by inbox_socket"
        );
        assert_eq!(
            of(&[Hook, ToolResult], Some(Activity::Working)),
            "sees mail after its next tool call, by hook"
        );
        assert_eq!(
            of(&[Hook, ToolResult], Some(Activity::Idle)),
            "is idle and sees mail with its user's next prompt, by hook"
        );
    }
}
