//! Tasks by their id, and how many of them are open.
//!
//! Does not know rules, nor who is here. Invariants: an id is given once; a task needs only tasks that are older.

use std::collections::BTreeMap;

use peer_proto::ids::{TaskId, Timestamp};
use peer_proto::task::TaskState;

use crate::rejection::Rejection;
use crate::thing::TaskRecord;

/// Final tasks that are kept; beyond it the oldest are forgotten.
const FINAL_MAX: usize = 10_000;

/// All tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    by_id: BTreeMap<TaskId, TaskRecord>,
    next: u64,
    open: usize,
    /// Some holders may be sessions of the last broker's time, and whether they come back is not known yet.
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

    /// What of a task's needs is not complete. What is forgotten was final, and only completed tasks are needed for good.
    pub(crate) fn waits_for(&self, task: &TaskRecord) -> Vec<TaskId> {
        let open = |id: &TaskId| self.by_id.get(id).is_some_and(|needed| needed.state != TaskState::Completed);
        task.needs.iter().copied().filter(open).collect()
    }

    /// Whether holders that a broker before this one knew may be gone.
    pub(crate) fn is_unreviewed(&self) -> bool {
        self.unreviewed
    }

    /// When the first of those that ended did.
    pub(crate) fn first_ended(&self) -> Option<Timestamp> {
        self.iter().filter(|task| task.state.is_final()).map(|task| task.changed_at).min()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &TaskRecord> {
        self.by_id.values()
    }

    /// The id that the next new task gets.
    pub(crate) fn next_id(&self) -> TaskId {
        TaskId(self.next)
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open
    }

    pub(crate) fn set_unreviewed(&mut self, unreviewed: bool) {
        self.unreviewed = unreviewed;
    }

    /// Takes out a task that is final.
    pub(crate) fn remove(&mut self, id: TaskId) {
        self.by_id.remove(&id);
    }

    /// The final ones that are too many, the oldest first, and for which nothing waits.
    pub(crate) fn surplus(&self) -> Vec<TaskId> {
        let surplus = (self.by_id.len() - self.open).saturating_sub(FINAL_MAX);
        let ended = self.iter().filter(|task| task.state.is_final());
        ended.map(|task| task.id).take(surplus).filter(|id| !self.is_needed(*id)).collect()
    }

    /// The tasks that ended so long ago, and for which nothing waits.
    pub(crate) fn ended_by(&self, now: Timestamp, after_ms: u64) -> Vec<TaskId> {
        let old = |task: &&TaskRecord| task.state.is_final() && task.changed_at.plus_ms(after_ms) <= now;
        self.iter().filter(old).map(|task| task.id).filter(|id| !self.is_needed(*id)).collect()
    }

    /// Whether a task that is not final waits for this one.
    fn is_needed(&self, id: TaskId) -> bool {
        self.iter().any(|task| !task.state.is_final() && task.needs.contains(&id))
    }

    /// Checks what must hold of tasks alone between two inputs.
    pub(crate) fn assert_invariants(&self) {
        let open = self.iter().filter(|task| !task.state.is_final()).count();
        assert_eq!(open, self.open, "open tasks are counted");
        for (id, task) in &self.by_id {
            assert!(*id == task.id && id.0 < self.next, "{id} stands under its own id, which is not given again");
            assert!(task.needs.iter().all(|needed| needed < id), "{id} needs what was there before it");
        }
    }
}

/// Somebody has it in hand.
pub(crate) fn is_held(state: TaskState) -> bool {
    matches!(state, TaskState::Claimed | TaskState::Started | TaskState::Blocked)
}
