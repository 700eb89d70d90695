//! The data that a client's hooks report, and that an adapter reports of its session.
//!
//! Knows the events of Claude Code and Codex. Does not know what the adapter does with them.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::message::Carrier;
use crate::request::Seat;

/// One run of a client's hook, reduced to the fields that the adapter needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    /// The event in the client.
    pub event: HookEvent,
    /// The client's own session id, as its hook got it.
    pub seat: Seat,
    /// Where the session works; may be empty.
    pub cwd: String,
    /// The file of the client's own record of the session.
    pub transcript: Option<String>,
    /// What the session may do without asking.
    pub mode: Option<Mode>,
    /// The subagent in which it happened; absent: the main conversation.
    pub agent: Option<String>,
    /// The client's name of the current turn.
    pub turn: Option<String>,
    /// The client's name of the tool call.
    pub tool_use: Option<String>,
    /// Why a session began or ended, in the client's words: `startup`, `resume`, `clear`,
    /// `compact`, …
    pub source: Option<String>,
    /// `PEER_NAME` in the hook's environment.
    pub name: Option<String>,
    /// Whether this `Stop` follows a turn that an earlier `Stop` prolonged.
    pub prolonged: bool,
}

/// An event in a client.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[strum(ascii_case_insensitive)]
pub enum HookEvent {
    /// A session begins, is resumed, or continues with an emptied or compacted conversation.
    SessionStart,
    /// The person submitted a prompt.
    UserPromptSubmit,
    /// A tool is about to run.
    PreToolUse,
    /// A tool has run.
    PostToolUse,
    /// All tools that one message of the model called have run.
    PostToolBatch,
    /// The model has ended its turn.
    Stop,
    /// The session ends, or its conversation is emptied.
    SessionEnd,
}

impl HookEvent {
    /// All events, in wire order.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The event's name, as Claude Code and Codex write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The acts that a session may do without asking its user, from the fewest to the most.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Mode {
    /// It may read and plan.
    Plan,
    /// It asks before it acts.
    Prompting,
    /// It edits without asking.
    AcceptEdits,
    /// It acts without asking.
    Bypass,
}

impl Mode {
    /// The mode's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Whether the model is at work.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Activity {
    /// A turn is running.
    Working,
    /// The client waits for its user.
    Idle,
}

impl Activity {
    /// The activity's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The adapter's data about its session; absent parts stay unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What the session may do without asking.
    pub mode: Option<Mode>,
    /// Whether the model is at work.
    pub activity: Option<Activity>,
    /// The carriers that are available now, the next to be tried first; absent: unchanged.
    pub carriers: Option<Vec<Carrier>>,
}
