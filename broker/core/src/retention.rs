//! The words of retention: how long and how much is kept, the next step of a pass, and what went.
//!
//! The rules are in `rules/retention.rs`, what they remember in `state/retained.rs`.

use peer_proto::ids::MessageId;
use peer_proto::request::Reply;
use peer_proto::settings;

/// Messages that one step looks at: a send that comes meanwhile waits for no more than these.
pub const SWEEP_ROWS_MAX: usize = 128;

/// How long and how much is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long a message is kept after it was settled.
    pub settled_ms: u64,
    /// How many messages are kept; beyond it the oldest settled ones go.
    pub settled_count: u64,
    /// How many bytes of text are kept; beyond it the oldest settled ones go.
    pub settled_bytes: u64,
    /// How long a dead letter is kept.
    pub dead_ms: u64,
    /// How long a task is kept after it ended.
    pub tasks_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self::from(&settings::Retention::default())
    }
}

/// In the units that the rules count in.
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
    /// In how many milliseconds it is worth making.
    pub in_ms: u64,
    /// Somebody waits for it; else it is for when nothing else is to do.
    pub is_asked: bool,
    /// It looks at the messages after this one.
    pub after: Option<MessageId>,
}

/// How much went, or would go.
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
