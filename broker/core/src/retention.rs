//! The types of retention: its limits, the next step of a pass, and the deleted counts.
//!
//! The rules are in `rules/retention.rs`, and their state in `state/retained.rs`.

use peer_proto::ids::MessageId;
use peer_proto::request::Reply;
use peer_proto::settings;

/// Messages that one step checks. A send that arrives meanwhile waits for no more than these.
pub const SWEEP_ROWS_MAX: usize = 128;

/// The limits of retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds that a message is retained after it was settled.
    pub settled_ms: u64,
    /// The most messages that are retained. Beyond it the oldest settled ones are deleted.
    pub settled_count: u64,
    /// The most bytes of text that are retained. Beyond it the oldest settled messages are deleted.
    pub settled_bytes: u64,
    /// Milliseconds that a dead letter is retained.
    pub dead_ms: u64,
    /// Milliseconds that a task is retained after it ended.
    pub tasks_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self::from(&settings::Retention::default())
    }
}

/// Converts the settings to the units of the rules.
impl From<&settings::Retention> for Retention {
    fn from(configured: &settings::Retention) -> Self {
        let ms = |days: u32| u64::from(days) * 24 * 3_600_000;
        Self {
            settled_ms: ms(configured.settled_days),
            settled_count: configured.settled_count.into(),
            settled_bytes: u64::from(configured.settled_mib) * 1024 * 1024,
            dead_ms: ms(configured.dead_days),
            tasks_ms: ms(configured.tasks_days),
        }
    }
}

/// The next step of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Milliseconds until the step is due.
    pub in_ms: u64,
    /// Whether a request waits for it. Otherwise it runs while the engine is idle.
    pub is_asked: bool,
    /// It checks the messages after this one.
    pub after: Option<MessageId>,
}

/// The counts that a pass deleted, or would delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages, answers included.
    pub messages: u64,
    /// Questions.
    pub questions: u64,
    /// The broker's own notices.
    pub notices: u64,
    /// Dead letters among all these.
    pub dead_letters: u64,
    /// Tasks.
    pub tasks: u64,
    /// Bytes of text.
    pub text_bytes: u64,
}

impl Tally {
    pub(crate) fn rows(&self) -> u64 {
        self.messages + self.questions + self.notices
    }

    pub(crate) fn reply(&self) -> Reply {
        let counts = [
            ("messages", self.messages),
            ("questions", self.questions),
            ("notices", self.notices),
            ("dead letters", self.dead_letters),
            ("tasks", self.tasks),
        ];
        Reply::Purged {
            counts: counts.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
            text_bytes: self.text_bytes,
        }
    }
}
