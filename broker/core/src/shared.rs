//! The durable shared records: channels, questions, tasks and notes. Each is one row under its own
//! key. As for [`record`](crate::record), a shipped record is frozen.

use peer_proto::ids::{MessageId, PeerId, TaskId, Timestamp};
use peer_proto::question::QuestionState;
use peer_proto::task::TaskState;
use serde::{Deserialize, Serialize};

/// A channel or group; or what is known here of a channel of another broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRecord {
    /// With its sign: `#name` or `@name`. `#name@link` for a channel of another broker.
    pub name: String,
    /// What it is for; may be empty.
    pub topic: String,
    /// Only members know of it.
    pub private: bool,
    /// The members, in the order in which they came. Of a channel of another broker, those who are
    /// peers of this one.
    pub members: Vec<PeerId>,
    /// Who made it, by the name of that time.
    pub created_by: String,
    /// When it was made; of a channel of another broker, when this one first had a member in it.
    pub created_at: Timestamp,
}

impl ChannelRecord {
    /// Returns the identity by which other brokers address it.
    #[must_use]
    pub fn address(&self) -> PeerId {
        PeerId::of_channel(self.created_at)
    }
}

/// A question, beside its message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionRecord {
    /// The question's message.
    pub question: MessageId,
    /// Who asked.
    pub asker: PeerId,
    /// Who was asked.
    pub to: Vec<PeerId>,
    /// The channel or group that was asked, with its sign.
    pub channel: Option<String>,
    /// Where it stands.
    pub state: QuestionState,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Who answered, and the answer's message.
    pub answered: Option<(PeerId, MessageId)>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its identity.
    pub id: TaskId,
    /// What is to be done, in a line.
    pub title: String,
    /// The rest; may be empty.
    pub description: String,
    /// Where it stands.
    pub state: TaskState,
    /// Who made it.
    pub creator: PeerId,
    /// Who holds it or shall do it.
    pub assignee: Option<PeerId>,
    /// What must be complete before it can begin.
    pub needs: Vec<TaskId>,
    /// What came of it, or why it is blocked, failed or cancelled.
    pub result: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
    /// The creator's name for its making.
    pub idempotency_key: Option<String>,
}

/// Everything about a note but its value: what the core keeps in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteHead {
    /// Its key.
    pub key: String,
    /// What it is filed under.
    pub tags: Vec<String>,
    /// Counts up from 1 with each change.
    pub version: u64,
    /// Who changed it last, by the name of that time.
    pub author: String,
    /// When it changed last.
    pub changed_at: Timestamp,
    /// When it is forgotten.
    pub expires_at: Option<Timestamp>,
    /// The size of its value.
    pub bytes: u32,
}

/// A note, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRecord {
    /// Everything but its value.
    pub head: NoteHead,
    /// What it says.
    pub value: String,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedRecord {
    /// A channel or group.
    Channel(ChannelRecord),
    /// A question.
    Question(QuestionRecord),
    /// A task.
    Task(TaskRecord),
    /// A note.
    Note(NoteRecord),
}

/// The key of a shared record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SharedKey {
    /// A channel or group, by its name.
    Channel(String),
    /// A question.
    Question(MessageId),
    /// A task.
    Task(TaskId),
    /// A note, by its key.
    Note(String),
}

impl SharedRecord {
    /// Returns its key.
    #[must_use]
    pub fn key(&self) -> SharedKey {
        match self {
            Self::Channel(record) => SharedKey::Channel(record.name.clone()),
            Self::Question(record) => SharedKey::Question(record.question),
            Self::Task(record) => SharedKey::Task(record.id),
            Self::Note(record) => SharedKey::Note(record.head.key.clone()),
        }
    }
}

/// All shared records that the store held when the broker started. Notes are without their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedRecords {
    /// Channels and groups.
    pub channels: Vec<ChannelRecord>,
    /// Questions.
    pub questions: Vec<QuestionRecord>,
    /// Tasks.
    pub tasks: Vec<TaskRecord>,
    /// Notes.
    pub notes: Vec<NoteHead>,
}
