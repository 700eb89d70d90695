//! Tasks that sessions share.
//!
//! Knows the requests about tasks and their answers. Does not know the legal changes of a task: the
//! broker's rules do.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::ids::{TaskId, Timestamp};

/// A request about tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskRequest {
    /// Create a task. Answer: that task.
    Create(TaskDraft),
    /// Change a task. Answer: the changed task.
    Change {
        /// The task.
        task: TaskId,
        /// The change.
        act: TaskAct,
    },
    /// List tasks, newest first. Answer: [`Reply::Tasks`](crate::request::Reply::Tasks).
    List(TasksQuery),
    /// One task. Answer: that task.
    Show(TaskId),
}

/// A task to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDraft {
    /// What is to be done, in one line.
    pub title: String,
    /// More about the task; may be empty.
    pub description: String,
    /// The peer that it is assigned to, by name or id; absent: any peer that claims it.
    pub assignee: Option<String>,
    /// Tasks that must be complete before it can start.
    pub needs: Vec<TaskId>,
    /// The creator's name for this act: a repeat gets the first outcome.
    pub idempotency_key: Option<String>,
}

/// A change of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskAct {
    /// Assign it to a peer, by name or id. Only its creator, its holder and operators.
    Assign(String),
    /// Claim it. One of several claims wins; the others are refused, and told who holds it.
    Claim,
    /// Give up the claim, so that it is open again. Only its holder, its creator and operators.
    Unclaim,
    /// Start it, or continue after it was blocked. Only its holder; an open task is claimed by it.
    Start,
    /// Mark it as blocked, with the reason. Only its holder.
    Block(String),
    /// Mark it as complete, with the result. Only its holder.
    Complete(String),
    /// Mark it as failed, with the reason. Only its holder.
    Fail(String),
    /// Cancel it, with the reason. Only its creator and operators.
    Cancel(String),
    /// Reopen it. Only its creator and operators.
    Reopen,
}

/// The state of a task.
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
    /// No peer holds it.
    Open,
    /// A peer holds it and has not started.
    Claimed,
    /// Its holder works on it.
    Started,
    /// Its holder cannot continue.
    Blocked,
    /// It is done.
    Completed,
    /// It cannot be done.
    Failed,
    /// It is no longer wanted.
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

    /// Whether the state is final: completed, failed or cancelled.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// A query for tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TasksQuery {
    /// Only tasks in this state; absent: all that are not final, or all with `all`.
    pub state: Option<TaskState>,
    /// Also final tasks.
    pub all: bool,
    /// Only tasks that are assigned to this peer.
    pub assignee: Option<String>,
    /// Only tasks that this peer created.
    pub creator: Option<String>,
    /// Only tasks with this text in their title or description, in any case.
    pub text: Option<String>,
    /// Start after this one: the newest come first.
    pub before: Option<TaskId>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// Its identity.
    pub id: TaskId,
    /// What is to be done, in one line.
    pub title: String,
    /// More about the task; may be empty.
    pub description: String,
    /// Its state.
    pub state: TaskState,
    /// The current name of its creator.
    pub creator: String,
    /// The peer that holds it or that it is assigned to.
    pub assignee: Option<String>,
    /// Tasks that must be complete before it can start.
    pub needs: Vec<TaskId>,
    /// Those of them that are not complete.
    pub waits_for: Vec<TaskId>,
    /// The result, or why it is blocked, failed or cancelled.
    pub result: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
}
