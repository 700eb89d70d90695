//! Tasks that sessions share: who does what, and what waits for what.
//!
//! Knows each task's state and who may change it how. Does not know how the news of it travels.

use std::collections::BTreeMap;

use peer_proto::ids::TaskId;
use peer_proto::task::TaskRequest;

use crate::broker::{Broker, Caller};
use crate::input::Now;
use crate::rejection::Rejection;
use crate::step::Step;
use crate::thing::TaskRecord;

/// All tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    by_id: BTreeMap<TaskId, TaskRecord>,
}

impl Tasks {
    pub(crate) fn load(records: Vec<TaskRecord>) -> Self {
        Self { by_id: records.into_iter().map(|record| (record.id, record)).collect() }
    }
}

impl Broker {
    pub(crate) fn task(&mut self, now: Now, caller: Caller, request: TaskRequest, step: &mut Step) -> Result<(), Rejection> {
        let _ = (now, caller, request, step, &self.tasks.by_id);
        Err(Rejection::NotPermitted { act: "this" })
    }
}
