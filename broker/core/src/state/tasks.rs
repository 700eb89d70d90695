//! Tasks by their id, and the number of open ones.
//!
//! Does not know rules, nor who is online. Invariants: an id is given once. A task needs only tasks
//! that are older.

use std::collections::BTreeMap;

use peer_proto::ids::{TaskId, Timestamp};
use peer_proto::task::TaskState;

use crate::rejection::Rejection;
use crate::shared::TaskRecord;

/// Final tasks that are retained. Beyond it the oldest are forgotten.
const FINAL_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Tasks {
    by_id: BTreeMap<TaskId, TaskRecord>,
    next: u64,
    open: usize,
    /// Whether some holders may be sessions of the last broker, and it is not yet known whether
    /// they come back.
    unreviewed: bool,
}

impl Tasks {
    pub(crate) fn load(records: Vec<TaskRecord>, next: Option<TaskId>) -> Self {
        let mut tasks = Self { next: next.map_or(1, |id| id.0), ..Self::default() };
        records.into_iter().for_each(|record| tasks.put(record));
        tasks.unreviewed = tasks.open > 0;
        tasks
    }

    pub(crate) fn put(&mut self, record: TaskRecord) {
        self.next = self.next.max(record.id.0 + 1);
        self.open += usize::from(!record.state.is_final());
        if let Some(before) = self.by_id.insert(record.id, record) {
            self.open -= usize::from(!before.state.is_final());
        }
    }

    pub(crate) fn get(&self, id: TaskId) -> Result<&TaskRecord, Rejection> {
        self.by_id.get(&id).ok_or(Rejection::UnknownTask(id))
    }

    /// Returns the needs of a task that are not complete. A forgotten task was final, and completed
    /// if it is still needed.
    pub(crate) fn waits_for(&self, task: &TaskRecord) -> Vec<TaskId> {
        let open = |id: &TaskId| {
            self.by_id.get(id).is_some_and(|needed| needed.state != TaskState::Completed)
        };
        task.needs.iter().copied().filter(open).collect()
    }

    /// Whether holders that an earlier broker knew may be gone.
    pub(crate) fn is_unreviewed(&self) -> bool {
        self.unreviewed
    }

    /// Returns the time at which the first ended task ended.
    pub(crate) fn first_ended(&self) -> Option<Timestamp> {
        self.iter().filter(|task| task.state.is_final()).map(|task| task.changed_at).min()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &TaskRecord> {
        self.by_id.values()
    }

    /// Returns the id of the next new task.
    pub(crate) fn next_id(&self) -> TaskId {
        TaskId(self.next)
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open
    }

    pub(crate) fn set_unreviewed(&mut self, unreviewed: bool) {
        self.unreviewed = unreviewed;
    }

    /// Removes a final task.
    pub(crate) fn remove(&mut self, id: TaskId) {
        self.by_id.remove(&id);
    }

    /// Returns the final tasks beyond the limit that no task needs, the oldest first.
    pub(crate) fn surplus(&self) -> Vec<TaskId> {
        let surplus = (self.by_id.len() - self.open).saturating_sub(FINAL_MAX);
        let ended = self.iter().filter(|task| task.state.is_final());
        ended.map(|task| task.id).take(surplus).filter(|id| !self.is_needed(*id)).collect()
    }

    /// Returns the tasks that ended at least this long ago, and that no task needs.
    pub(crate) fn ended_by(&self, now: Timestamp, after_ms: u64) -> Vec<TaskId> {
        let old =
            |task: &&TaskRecord| task.state.is_final() && task.changed_at.plus_ms(after_ms) <= now;
        self.iter().filter(old).map(|task| task.id).filter(|id| !self.is_needed(*id)).collect()
    }

    /// Whether a task that is not final needs this one.
    fn is_needed(&self, id: TaskId) -> bool {
        self.iter().any(|task| !task.state.is_final() && task.needs.contains(&id))
    }

    /// Checks the invariants of tasks alone between two inputs.
    pub(crate) fn assert_invariants(&self) {
        let open = self.iter().filter(|task| !task.state.is_final()).count();
        assert_eq!(open, self.open, "open tasks are counted");
        for (id, task) in &self.by_id {
            assert!(
                *id == task.id && id.0 < self.next,
                "{id} stands under its own id, which is not given again"
            );
            assert!(
                task.needs.iter().all(|needed| needed < id),
                "{id} needs what was there before it"
            );
        }
    }
}

/// Whether a peer holds a task in this state.
pub(crate) fn is_held(state: TaskState) -> bool {
    matches!(state, TaskState::Claimed | TaskState::Started | TaskState::Blocked)
}
