//! Tasks that sessions share: who does what, and what waits for what.
//!
//! Knows each task's state and who may change it how. Does not know how the news of it travels: it is mail, from the broker
//! to whom it concerns, in a thread of the task's own. Invariants: a task that is claimed, started or blocked has a holder,
//! and the holder's session is there; a task begins only when all that it needs is complete; what a task needs was there
//! before it, so nothing ever waits for itself.

use std::collections::BTreeMap;

use peer_proto::ids::{PeerId, TaskId};
use peer_proto::limits::{PAGE_ENTRIES_MAX, TASK_NEEDS_MAX, TASK_TEXT_BYTES_MAX, TASK_TITLE_BYTES_MAX, TASKS_OPEN_MAX};
use peer_proto::message::{Intent, Via};
use peer_proto::request::{EventKind, Reply};
use peer_proto::task::{TaskAct, TaskDraft, TaskInfo, TaskRequest, TaskState, TasksQuery};
use peer_proto::text::{is_blank, single_line};

use crate::broker::{Broker, Caller};
use crate::input::{Facts, Now};
use crate::rejection::Rejection;
use crate::sessions::check_length;
use crate::step::{Change, Step};
use crate::thing::{TaskRecord, Thing, ThingKey};

/// Final tasks that are kept; beyond it the oldest are forgotten.
const FINAL_MAX: usize = 10_000;

/// All tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    by_id: BTreeMap<TaskId, TaskRecord>,
    next: u64,
    open: usize,
    /// Holders of the last broker's time have not been looked at yet.
    unreviewed: bool,
}

impl Tasks {
    pub(crate) fn load(records: Vec<TaskRecord>, next: Option<TaskId>) -> Self {
        let mut tasks = Self { next: next.map_or(1, |id| id.0), ..Self::default() };
        records.into_iter().for_each(|record| tasks.put(record));
        tasks.unreviewed = tasks.open > 0;
        tasks
    }

    fn put(&mut self, record: TaskRecord) {
        self.next = self.next.max(record.id.0 + 1);
        self.open += usize::from(!record.state.is_final());
        if let Some(before) = self.by_id.insert(record.id, record) {
            self.open -= usize::from(!before.state.is_final());
        }
    }

    fn get(&self, id: TaskId) -> Result<&TaskRecord, Rejection> {
        self.by_id.get(&id).ok_or(Rejection::UnknownTask(id))
    }

    /// What of a task's needs is not complete. What is forgotten was final, and only completed tasks are needed for good.
    fn waits_for(&self, task: &TaskRecord) -> Vec<TaskId> {
        let open = |id: &TaskId| self.by_id.get(id).is_some_and(|needed| needed.state != TaskState::Completed);
        task.needs.iter().copied().filter(open).collect()
    }

    /// Whether holders that a broker before this one knew may be gone.
    pub(crate) fn is_unreviewed(&self) -> bool {
        self.unreviewed
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TaskRecord> {
        self.by_id.values()
    }
}

/// Who changes a task.
#[derive(Clone, Debug)]
struct Hand {
    peer: PeerId,
    name: String,
    /// The person may do what the creator may.
    is_person: bool,
}

impl Broker {
    pub(crate) fn task(
        &mut self,
        now: Now,
        caller: Caller,
        request: TaskRequest,
        facts: &Facts,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let (sender, _) = self.sender(caller)?;
        let hand = Hand { peer: sender.peer, name: sender.name, is_person: sender.via == Via::Person };
        match request {
            TaskRequest::Create(draft) => self.create_task(now, caller, &hand, draft, facts, step),
            TaskRequest::Change { task, act } => self.change_task(now, caller, &hand, task, act, facts, step),
            TaskRequest::List(query) => self.list_tasks(caller, hand.peer, query, step),
            TaskRequest::Show(task) => {
                let task = self.task_info(self.tasks.get(task)?);
                step.reply(caller.connection, caller.id, Reply::Tasks { tasks: vec![task], next: None });
                Ok(())
            }
        }
    }

    fn create_task(
        &mut self,
        now: Now,
        caller: Caller,
        hand: &Hand,
        draft: TaskDraft,
        facts: &Facts,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let TaskDraft { title, description, assignee, mut needs, idempotency_key } = draft;
        let title = single_line(&title);
        if is_blank(&title) {
            return Err(Rejection::EmptyText);
        }
        check_length("the title", &title, TASK_TITLE_BYTES_MAX)?;
        check_length("the description", &description, TASK_TEXT_BYTES_MAX)?;
        check_length("the idempotency key", idempotency_key.as_deref().unwrap_or(""), TASK_TITLE_BYTES_MAX)?;
        needs.sort();
        needs.dedup();
        if needs.len() > TASK_NEEDS_MAX {
            return Err(Rejection::OutOfBounds { what: "the list of needs", bound: format!("at most {TASK_NEEDS_MAX}") });
        }
        let again = |task: &&TaskRecord| {
            idempotency_key.is_some() && task.idempotency_key == idempotency_key && self.is_same(hand.peer, task.creator)
        };
        if let Some(task) = self.tasks.iter().find(again) {
            let task = self.task_info(task);
            step.reply(caller.connection, caller.id, Reply::Tasks { tasks: vec![task], next: None });
            return Ok(());
        }
        for needed in &needs {
            if matches!(self.tasks.get(*needed)?.state, TaskState::Failed | TaskState::Cancelled) {
                let state = self.tasks.get(*needed)?.state;
                return Err(Rejection::BadTransition {
                    task: *needed,
                    state,
                    why: "it will not be completed, so nothing can need it".to_owned(),
                });
            }
        }
        let assignee = assignee.map(|name| self.presence.resolve(&name, Some(hand.peer))).transpose()?;
        if facts.disk_full {
            return Err(Rejection::NoSpace);
        }
        if self.tasks.open >= TASKS_OPEN_MAX {
            let hint = "complete or cancel some: `peerctl tasks`";
            return Err(Rejection::TooMany { what: "open tasks", count: TASKS_OPEN_MAX, hint });
        }
        let id = TaskId(self.tasks.next);
        let task = TaskRecord {
            id,
            title,
            description,
            state: TaskState::Open,
            creator: hand.peer,
            assignee,
            needs,
            result: String::new(),
            created_at: now.wall,
            changed_at: now.wall,
            idempotency_key,
        };
        step.change(Change::PutNextTask(TaskId(id.0 + 1)));
        self.put_task(now, task.clone(), step);
        step.reply(caller.connection, caller.id, Reply::Tasks { tasks: vec![self.task_info(&task)], next: None });
        self.tell_assignee(now, hand, &task, step);
        self.forget_old_tasks(step);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one fact each, and the only caller has them at hand")]
    fn change_task(
        &mut self,
        now: Now,
        caller: Caller,
        hand: &Hand,
        id: TaskId,
        act: TaskAct,
        facts: &Facts,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let before = self.tasks.get(id)?.clone();
        let mut task = before.clone();
        self.decide(hand, &mut task, act)?;
        if facts.disk_full {
            return Err(Rejection::NoSpace);
        }
        if task == before {
            step.reply(caller.connection, caller.id, Reply::Tasks { tasks: vec![self.task_info(&task)], next: None });
            return Ok(());
        }
        task.changed_at = now.wall;
        self.put_task(now, task.clone(), step);
        step.reply(caller.connection, caller.id, Reply::Tasks { tasks: vec![self.task_info(&task)], next: None });
        self.tell_change(now, hand, &before, &task, step);
        Ok(())
    }

    /// Which state an act leads to, and whether this hand may do it.
    fn decide(&self, hand: &Hand, task: &mut TaskRecord, act: TaskAct) -> Result<(), Rejection> {
        use TaskState::{Blocked, Cancelled, Claimed, Completed, Failed, Open, Started};
        let is_creator = hand.is_person || self.is_same(hand.peer, task.creator);
        let holder = task.assignee.filter(|_| matches!(task.state, Claimed | Started | Blocked));
        let is_holder = holder.is_some_and(|holder| self.is_same(hand.peer, holder));
        let wrong = |why: &str| Rejection::BadTransition { task: task.id, state: task.state, why: why.to_owned() };
        let held = || match holder {
            Some(holder) => Rejection::TaskHeld { task: task.id, holder: self.name_of(holder) },
            None => wrong("nobody holds it; claim it first"),
        };
        let claim = |task: &TaskRecord| {
            let meant_for = task.assignee.filter(|peer| !self.is_same(hand.peer, *peer));
            if let Some(other) = meant_for {
                return Err(Rejection::TaskHeld { task: task.id, holder: self.name_of(other) });
            }
            let waits_for = self.tasks.waits_for(task);
            if waits_for.is_empty() {
                return Ok(());
            }
            let ids: Vec<String> = waits_for.iter().map(TaskId::to_string).collect();
            Err(wrong(&format!("it waits for {}", ids.join(", "))))
        };
        match act {
            TaskAct::Assign(name) => {
                if task.state.is_final() {
                    return Err(wrong("it has ended; reopen it first"));
                }
                if !is_creator && !is_holder {
                    return Err(Rejection::NotPermitted { act: "giving another's task to somebody" });
                }
                let peer = self.presence.resolve(&name, Some(hand.peer))?;
                (task.state, task.assignee) = (Open, Some(peer));
            }
            TaskAct::Claim if is_holder => {}
            TaskAct::Claim => match task.state {
                Open => {
                    claim(task)?;
                    (task.state, task.assignee) = (Claimed, Some(hand.peer));
                }
                Claimed | Started | Blocked => return Err(held()),
                Completed | Failed | Cancelled => return Err(wrong("it has ended")),
            },
            TaskAct::Unclaim => {
                if holder.is_none() {
                    return Err(wrong("nobody holds it"));
                }
                if !is_creator && !is_holder {
                    return Err(held());
                }
                (task.state, task.assignee) = (Open, None);
            }
            TaskAct::Start => match task.state {
                Open => {
                    claim(task)?;
                    (task.state, task.assignee) = (Started, Some(hand.peer));
                }
                Claimed | Started | Blocked if is_holder => {
                    task.state = Started;
                    task.result.clear();
                }
                Claimed | Started | Blocked => return Err(held()),
                Completed | Failed | Cancelled => return Err(wrong("it has ended")),
            },
            TaskAct::Block(why) | TaskAct::Complete(why) | TaskAct::Fail(why) if !is_holder => {
                let _ = why;
                return Err(held());
            }
            TaskAct::Block(why) => end(task, Blocked, why)?,
            TaskAct::Complete(result) => end(task, Completed, result)?,
            TaskAct::Fail(why) => end(task, Failed, why)?,
            TaskAct::Cancel(why) => {
                if task.state.is_final() {
                    return Err(wrong("it has ended"));
                }
                if !is_creator {
                    return Err(Rejection::NotPermitted { act: "cancelling another's task" });
                }
                end(task, Cancelled, why)?;
            }
            TaskAct::Reopen => {
                if !task.state.is_final() {
                    return Err(wrong("it has not ended"));
                }
                if !is_creator {
                    return Err(Rejection::NotPermitted { act: "reopening another's task" });
                }
                (task.state, task.assignee) = (Open, None);
                task.result.clear();
            }
        }
        Ok(())
    }

    fn put_task(&mut self, now: Now, task: TaskRecord, step: &mut Step) {
        let assignee = task.assignee.map(|peer| self.name_of(peer));
        self.tell_thing(EventKind::TaskChanged, now, &task.id.to_string(), assignee, task.state.as_str(), step);
        step.change(Change::PutThing(Box::new(Thing::Task(task.clone()))));
        self.tasks.put(task);
    }

    // ---- news

    fn tell_assignee(&mut self, now: Now, hand: &Hand, task: &TaskRecord, step: &mut Step) {
        let Some(assignee) = task.assignee.filter(|peer| !self.is_same(*peer, hand.peer)) else { return };
        let waits = self.tasks.waits_for(task);
        let when = if waits.is_empty() {
            format!("claim it with tasks(action=\"claim\", task=\"{}\")", task.id)
        } else {
            let ids: Vec<String> = waits.iter().map(TaskId::to_string).collect();
            format!("it waits for {}", ids.join(", "))
        };
        let text = format!("{} gave you task {}: {}\n{when}", hand.name, task.id, task.title);
        self.task_news(now, assignee, Intent::Request, task, text, step);
    }

    fn tell_change(&mut self, now: Now, hand: &Hand, before: &TaskRecord, task: &TaskRecord, step: &mut Step) {
        let result = if task.result.is_empty() { String::new() } else { format!(": {}", task.result) };
        let news = format!("task {} ({}) is {} now, by {}{result}", task.id, task.title, task.state.as_str(), hand.name);
        if task.state == TaskState::Open && task.assignee != before.assignee {
            self.tell_assignee(now, hand, task, step);
        }
        let mut concerned = vec![task.creator];
        concerned.extend(before.assignee);
        concerned.retain(|peer| !self.is_same(*peer, hand.peer));
        concerned.dedup();
        for peer in concerned {
            // Its creator may wait for the end; who lost it must stop.
            let intent = if task.state.is_final() || before.assignee == Some(peer) { Intent::Request } else { Intent::Inform };
            self.task_news(now, peer, intent, task, news.clone(), step);
        }
        if task.state.is_final() {
            self.tell_dependents(now, hand, task, step);
        }
    }

    /// Whoever waits for this task hears that it has ended, and whether theirs can begin.
    fn tell_dependents(&mut self, now: Now, hand: &Hand, ended: &TaskRecord, step: &mut Step) {
        let waiting = |task: &&TaskRecord| !task.state.is_final() && task.needs.contains(&ended.id);
        let dependents: Vec<TaskRecord> = self.tasks.iter().filter(waiting).cloned().collect();
        for task in dependents {
            let left: Vec<String> = self.tasks.waits_for(&task).iter().map(TaskId::to_string).collect();
            let (intent, then) = match (ended.state, left.is_empty()) {
                (TaskState::Completed, true) => (Intent::Request, "it can begin: all that it needs is complete".to_owned()),
                (TaskState::Completed, false) => (Intent::Inform, format!("it still waits for {}", left.join(", "))),
                (state, _) => (Intent::Request, format!("it cannot begin: {} is {}", ended.id, state.as_str())),
            };
            let text = format!("task {} ({}): {} is {}; {then}", task.id, task.title, ended.id, ended.state.as_str());
            let mut concerned = vec![task.assignee.unwrap_or(task.creator)];
            if ended.state != TaskState::Completed {
                concerned.push(task.creator);
            }
            concerned.dedup();
            for peer in concerned {
                if !self.is_same(peer, hand.peer) || ended.state == TaskState::Completed {
                    self.task_news(now, peer, intent, &task, text.clone(), step);
                }
            }
        }
    }

    fn task_news(&mut self, now: Now, to: PeerId, intent: Intent, task: &TaskRecord, text: String, step: &mut Step) {
        self.post_notice(now, to, intent, task.id.to_string(), None, text, step);
    }

    /// A session ended for good: what it held is open again, and the creators hear.
    pub(crate) fn release_tasks(&mut self, now: Now, peer: PeerId, step: &mut Step) {
        use TaskState::{Blocked, Claimed, Started};
        let held = |task: &&TaskRecord| {
            matches!(task.state, Claimed | Started | Blocked) && task.assignee.is_some_and(|holder| self.is_same(peer, holder))
        };
        let held: Vec<TaskRecord> = self.tasks.iter().filter(held).cloned().collect();
        for before in held {
            let mut task = before.clone();
            (task.state, task.assignee, task.changed_at) = (TaskState::Open, None, now.wall);
            self.put_task(now, task.clone(), step);
            let text = format!(
                "task {} ({}) is open again: the session of {}, who had it, ended while it was {}",
                task.id,
                task.title,
                self.name_of(peer),
                before.state.as_str()
            );
            if !self.is_same(task.creator, peer) {
                self.task_news(now, task.creator, Intent::Request, &task, text, step);
            }
        }
    }

    /// Sessions that a killed broker left behind have had their time to come back: what the others held is open again.
    pub(crate) fn release_tasks_of_the_lost(&mut self, now: Now, step: &mut Step) {
        self.tasks.unreviewed = false;
        let mut lost: Vec<PeerId> =
            self.tasks.iter().filter(|task| !task.state.is_final()).filter_map(|task| task.assignee).collect();
        lost.sort_unstable();
        lost.dedup();
        for peer in lost {
            let present = self.presence.present(peer).unwrap_or(peer);
            if present != PeerId::HUMAN && !self.presence.is_online(present) {
                self.release_tasks(now, present, step);
            }
        }
    }

    fn forget_old_tasks(&mut self, step: &mut Step) {
        let needed = |id: TaskId| self.tasks.iter().any(|task| !task.state.is_final() && task.needs.contains(&id));
        let surplus = (self.tasks.by_id.len() - self.tasks.open).saturating_sub(FINAL_MAX);
        let ended = self.tasks.iter().filter(|task| task.state.is_final());
        let old: Vec<TaskId> = ended.map(|task| task.id).take(surplus).filter(|id| !needed(*id)).collect();
        for id in old {
            self.tasks.by_id.remove(&id);
            step.change(Change::RemoveThing(ThingKey::Task(id)));
        }
    }

    // ---- views

    fn list_tasks(&self, caller: Caller, me: PeerId, query: TasksQuery, step: &mut Step) -> Result<(), Rejection> {
        let resolve = |name: Option<String>| name.map(|name| self.presence.resolve(&name, Some(me))).transpose();
        let (assignee, creator) = (resolve(query.assignee)?, resolve(query.creator)?);
        let text = query.text.map(|text| text.to_lowercase());
        let fits = |task: &&TaskRecord| {
            query.before.is_none_or(|before| task.id < before)
                && query.state.map_or(query.all || !task.state.is_final(), |state| task.state == state)
                && assignee.is_none_or(|peer| task.assignee.is_some_and(|own| self.is_same(peer, own)))
                && creator.is_none_or(|peer| self.is_same(peer, task.creator))
                && text
                    .as_ref()
                    .is_none_or(|text| task.title.to_lowercase().contains(text) || task.description.to_lowercase().contains(text))
        };
        let mut found = self.tasks.by_id.values().rev().filter(fits);
        // A description may be long: fewer of them fit a frame than heads do.
        let tasks: Vec<TaskInfo> = found.by_ref().take(PAGE_ENTRIES_MAX / 4).map(|task| self.task_info(task)).collect();
        let next = found.next().and_then(|_| tasks.last()).map(|task| task.id);
        step.reply(caller.connection, caller.id, Reply::Tasks { tasks, next });
        Ok(())
    }

    fn task_info(&self, task: &TaskRecord) -> TaskInfo {
        TaskInfo {
            id: task.id,
            title: task.title.clone(),
            description: task.description.clone(),
            state: task.state,
            creator: self.name_of(task.creator),
            assignee: task.assignee.map(|peer| self.name_of(peer)),
            needs: task.needs.clone(),
            waits_for: self.tasks.waits_for(task),
            result: task.result.clone(),
            created_at: task.created_at,
            changed_at: task.changed_at,
        }
    }
}

/// The task ends, or stops, with these words.
fn end(task: &mut TaskRecord, state: TaskState, words: String) -> Result<(), Rejection> {
    check_length("the result", &words, TASK_TEXT_BYTES_MAX)?;
    (task.state, task.result) = (state, words);
    Ok(())
}
