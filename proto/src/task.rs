//! Tasks that sessions share: who does what, and what waits for what.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::ids::{TaskId, Timestamp};

/// What is asked of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskRequest {
    /// Make a task. Answer: that task.
    Create(TaskDraft),
    /// Change a task. Answer: that task as it is now.
    Change {
        /// The task.
        task: TaskId,
        /// What becomes of it.
        act: TaskAct,
    },
    /// Which tasks there are, newest first. Answer: [`Reply::Tasks`](crate::request::Reply::Tasks).
    List(TasksQuery),
    /// One task. Answer: that task.
    Show(TaskId),
}

/// A task to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDraft {
    /// What is to be done, in a line.
    pub title: String,
    /// The rest; may be empty.
    pub description: String,
    /// Who shall do it, by name or id; absent: whoever claims it.
    pub assignee: Option<String>,
    /// What must be complete before it can begin.
    pub needs: Vec<TaskId>,
    /// The creator's name for this act: a repeat gets the first outcome.
    pub idempotency_key: Option<String>,
}

/// What becomes of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskAct {
    /// Give it to a peer, by name or id. Only the creator, its holder and operators.
    Assign(String),
    /// Take it. One of many wins; the others are refused, and told who has it.
    Claim,
    /// Give it back: it is open again. Only its holder, its creator and operators.
    Unclaim,
    /// Begin, or go on after it was blocked. Only its holder; what nobody holds is claimed by it.
    Start,
    /// It cannot go on, and why. Only its holder.
    Block(String),
    /// It is done, and what came of it. Only its holder.
    Complete(String),
    /// It cannot be done, and why. Only its holder.
    Fail(String),
    /// It is not wanted any more, and why. Only its creator and operators.
    Cancel(String),
    /// It shall be done after all, or again. Only its creator and operators.
    Reopen,
}

/// Where a task stands.
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
#[strum(serialize_all = "snake_case")]
pub enum TaskState {
    /// Nobody holds it.
    Open,
    /// Somebody holds it and has not begun.
    Claimed,
    /// Its holder works on it.
    Started,
    /// Its holder cannot go on.
    Blocked,
    /// Done.
    Completed,
    /// Cannot be done.
    Failed,
    /// Not wanted any more.
    Cancelled,
}

impl TaskState {
    /// All states, in wire order.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The state's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether it ends here: completed, failed or cancelled.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Which tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TasksQuery {
    /// Only of this state; absent: all that are not final, or all where `all` says so.
    pub state: Option<TaskState>,
    /// Also final ones.
    pub all: bool,
    /// Only those that this peer holds or is to do.
    pub assignee: Option<String>,
    /// Only those that this peer made.
    pub creator: Option<String>,
    /// Only those in whose title or description this text stands, in any case.
    pub text: Option<String>,
    /// Start after this one: they come newest first.
    pub before: Option<TaskId>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// Its identity.
    pub id: TaskId,
    /// What is to be done, in a line.
    pub title: String,
    /// The rest; may be empty.
    pub description: String,
    /// Where it stands.
    pub state: TaskState,
    /// Who made it, by the name of now.
    pub creator: String,
    /// Who holds it or shall do it.
    pub assignee: Option<String>,
    /// What must be complete before it can begin.
    pub needs: Vec<TaskId>,
    /// What of that is not complete.
    pub waits_for: Vec<TaskId>,
    /// What came of it, or why it is blocked, failed or cancelled.
    pub result: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
}
