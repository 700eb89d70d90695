//! Tasks: work that sessions share, with an assignee and dependencies.
//!
//! Knows each task's state, and who may change it how. Does not know how notices about it travel:
//! they are the broker's mail to the peers concerned, in the task's own thread. A notice about one
//! session's act is subject to the same policy and rate as that session's mail, so a task cannot
//! bypass them. Invariants: a task that is claimed, started or blocked has a holder whose session
//! is online. A task begins only when all tasks that it needs are complete. A task needs only older
//! tasks, so there is no cycle. Creators and assignees follow a provisional peer to the peer that
//! it is merged into.

use peer_proto::ids::{PeerId, TaskId};
use peer_proto::limits::{
    PAGE_ENTRIES_MAX, TASK_NEEDS_MAX, TASK_TEXT_BYTES_MAX, TASK_TITLE_BYTES_MAX, TASKS_OPEN_MAX,
};
use peer_proto::message::{Intent, Sender, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::request::{Reply, WatchEvent};
use peer_proto::task::{TaskAct, TaskDraft, TaskInfo, TaskRequest, TaskState, TasksQuery};
use peer_proto::text::{is_blank, quoted, single_line};

use crate::broker::Broker;
use crate::check::{check_idempotency_key, check_length};
use crate::input::{Facts, Now};
use crate::rejection::{Act, Crowd, Rejection, RemoteBar, TaskBar};
use crate::rules::notices::Notice;
use crate::shared::{SharedKey, SharedRecord, TaskRecord};
use crate::state::tasks::is_held;
use crate::step::Change;
use crate::turn::Turn;
use crate::who::Caller;
use crate::wording::{self, Addressee, listed};

/// The peer that changes a task.
#[derive(Clone, Debug)]
struct TaskActor {
    caller: Caller,
    sender: Sender,
    /// Whether it is the person, who may do everything that the creator may.
    is_person: bool,
}

impl TaskActor {
    fn is(&self, peer: PeerId) -> bool {
        self.sender.peer == peer
    }
}

impl Broker {
    pub(crate) fn task(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: TaskRequest,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let (sender, _) = self.sender(caller)?;
        let actor = TaskActor { caller, is_person: caller.actor()?.is_person(), sender };
        let changes = matches!(request, TaskRequest::Create(_) | TaskRequest::Change { .. });
        // The actor decides what is permitted. An unknown agent's shell is not accepted as the
        // person.
        if changes && actor.is(PeerId::HUMAN) && actor.sender.via != Via::Person && !actor.is_person
        {
            return Err(Rejection::NotPermitted { act: Act::ChangeTasksUntold });
        }
        match request {
            TaskRequest::Create(draft) => self.create_task(turn, &actor, draft, facts),
            TaskRequest::Change { task, act } => self.change_task(turn, &actor, task, act, facts),
            TaskRequest::List(query) => self.list_tasks(turn, caller, actor.sender.peer, query),
            TaskRequest::Show(task) => {
                let task = self.task_info(self.tasks.get(task)?);
                turn.reply(caller, Reply::Tasks { tasks: vec![task], next: None });
                Ok(())
            }
        }
    }

    fn create_task(
        &mut self,
        turn: &mut Turn<'_>,
        actor: &TaskActor,
        draft: TaskDraft,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let draft = checked_draft(draft)?;
        if let Some(task) = self.made_before(actor, &draft)? {
            let task = self.task_info(task);
            turn.reply(actor.caller, Reply::Tasks { tasks: vec![task], next: None });
            return Ok(());
        }
        let TaskDraft { title, description, assignee, needs, idempotency_key } = draft;
        for needed in &needs {
            let state = self.tasks.get(*needed)?.state;
            if matches!(state, TaskState::Failed | TaskState::Cancelled) {
                return Err(Rejection::BadTransition {
                    task: *needed,
                    state,
                    why: TaskBar::WillNotComplete,
                });
            }
        }
        let assignee = assignee.map(|name| self.assignee_for(actor, &name)).transpose()?;
        facts.check_space()?;
        self.check_room()?;
        self.check_rate(turn.now, actor)?;
        self.send_limits.count_act(turn.now.mono_ms, actor.sender.peer);
        let id = self.tasks.next_id();
        let task = TaskRecord {
            id,
            title,
            description,
            state: TaskState::Open,
            creator: actor.sender.peer,
            assignee,
            needs,
            result: String::new(),
            created_at: turn.now.wall,
            changed_at: turn.now.wall,
            idempotency_key,
        };
        turn.change(Change::PutNextTask(TaskId(id.0 + 1)));
        self.put_task(turn, task.clone());
        turn.reply(actor.caller, Reply::Tasks { tasks: vec![self.task_info(&task)], next: None });
        self.notify_assignee(turn, actor, &task);
        self.forget_tasks(turn, self.tasks.surplus());
        Ok(())
    }

    /// Returns the task that this actor created under the same idempotency key, if the draft is the
    /// same.
    fn made_before(
        &self,
        actor: &TaskActor,
        draft: &TaskDraft,
    ) -> Result<Option<&TaskRecord>, Rejection> {
        let again = |task: &&TaskRecord| {
            task.idempotency_key == draft.idempotency_key && actor.is(task.creator)
        };
        let Some(task) = draft.idempotency_key.as_ref().and_then(|_| self.tasks.iter().find(again))
        else {
            return Ok(None);
        };
        if (&task.title, &task.description, &task.needs)
            == (&draft.title, &draft.description, &draft.needs)
        {
            return Ok(Some(task));
        }
        let bound = format!("a new key for each new task; this one belongs to {}", task.id);
        Err(Rejection::OutOfBounds { what: "the idempotency key", bound })
    }

    fn change_task(
        &mut self,
        turn: &mut Turn<'_>,
        actor: &TaskActor,
        id: TaskId,
        act: TaskAct,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let before = self.tasks.get(id)?.clone();
        let mut task = before.clone();
        self.decide(actor, &mut task, act)?;
        facts.check_space()?;
        if task == before {
            turn.reply(
                actor.caller,
                Reply::Tasks { tasks: vec![self.task_info(&task)], next: None },
            );
            return Ok(());
        }
        self.check_rate(turn.now, actor)?;
        self.send_limits.count_act(turn.now.mono_ms, actor.sender.peer);
        task.changed_at = turn.now.wall;
        if task.state.is_final() {
            self.record_task_ended(turn.now);
        }
        // A shell may act for a session that is expected back. If the session does not return, its
        // end would go unnoticed.
        let is_unwatched =
            is_held(task.state) && task.assignee.is_some_and(|holder| !self.may_hold(holder));
        self.tasks.set_unreviewed(self.tasks.is_unreviewed() || is_unwatched);
        self.put_task(turn, task.clone());
        turn.reply(actor.caller, Reply::Tasks { tasks: vec![self.task_info(&task)], next: None });
        self.notify_change(turn, actor, &before, &task);
        Ok(())
    }

    /// Returns the peer that a task is given to, if that peer accepts mail from this actor.
    fn assignee_for(&self, actor: &TaskActor, name: &str) -> Result<PeerId, Rejection> {
        let peer = self.presence.resolve(name, Some(actor.sender.peer))?;
        self.check_is_here(peer, RemoteBar::GiveTask)?;
        match self.rule_on(&actor.sender, peer, None) {
            Policy::Refuse => Err(Rejection::RefusedByPolicy { name: self.name_of(peer) }),
            Policy::Accept | Policy::Hold => Ok(peer),
        }
    }

    /// Checks the rate. Acts on tasks are mail to others, and count as sends of the actor.
    fn check_rate(&self, now: Now, actor: &TaskActor) -> Result<(), Rejection> {
        self.check_pause(&actor.sender, None)?;
        self.send_limits.check_sender(
            &self.config.limits,
            now.mono_ms,
            actor.sender.peer,
            &actor.sender.name,
        )
    }

    fn check_room(&self) -> Result<(), Rejection> {
        if self.tasks.open_count() < TASKS_OPEN_MAX {
            return Ok(());
        }
        Err(Rejection::TooMany { what: Crowd::OpenTasks, count: TASKS_OPEN_MAX })
    }

    /// Whether the end of a peer is noticed: its session is online, or it is the person.
    fn may_hold(&self, peer: PeerId) -> bool {
        peer == PeerId::HUMAN || self.presence.is_online(peer)
    }

    /// Returns the state that an act leads to, or the reason why this actor may not do it.
    fn decide(
        &self,
        actor: &TaskActor,
        task: &mut TaskRecord,
        act: TaskAct,
    ) -> Result<(), Rejection> {
        use TaskState::{Blocked, Cancelled, Claimed, Completed, Failed, Open, Started};
        let is_creator = actor.is_person || actor.is(task.creator);
        let is_assignee = task.assignee.is_some_and(|peer| actor.is(peer));
        let holder = task.assignee.filter(|_| is_held(task.state));
        let is_holder = holder.is_some() && is_assignee;
        let (id, state) = (task.id, task.state);
        let wrong = |why: TaskBar| Rejection::BadTransition { task: id, state, why };
        let held = || match holder {
            Some(holder) => Rejection::TaskHeld { task: id, holder: self.name_of(holder) },
            None if state.is_final() => wrong(TaskBar::Ended),
            None => wrong(TaskBar::ClaimFirst),
        };
        let can_begin = |task: &TaskRecord| {
            if let Some(other) = task.assignee.filter(|_| !is_assignee) {
                return Err(Rejection::TaskHeld { task: id, holder: self.name_of(other) });
            }
            let waits_for = self.tasks.waits_for(task);
            if waits_for.is_empty() { Ok(()) } else { Err(wrong(TaskBar::WaitsFor(waits_for))) }
        };
        match act {
            TaskAct::Assign(name) => {
                if state.is_final() {
                    return Err(wrong(TaskBar::ReopenFirst));
                }
                if !is_creator && !is_holder {
                    return Err(Rejection::NotPermitted { act: Act::GiveAwayTask });
                }
                let peer = self.assignee_for(actor, &name)?;
                if task.assignee != Some(peer) {
                    become_open(task, Some(peer));
                }
            }
            TaskAct::Claim if is_holder => {}
            TaskAct::Claim => match state {
                Open => {
                    can_begin(task)?;
                    (task.state, task.assignee) = (Claimed, Some(actor.sender.peer));
                }
                Claimed | Started | Blocked | Completed | Failed | Cancelled => return Err(held()),
            },
            // The assignee may also decline the task.
            TaskAct::Unclaim => {
                if task.assignee.is_none() || state.is_final() {
                    return Err(wrong(if state.is_final() {
                        TaskBar::Ended
                    } else {
                        TaskBar::NobodyHasIt
                    }));
                }
                if !is_creator && !is_assignee {
                    let holder = task.assignee.map(|peer| self.name_of(peer)).unwrap_or_default();
                    return Err(Rejection::TaskHeld { task: id, holder });
                }
                become_open(task, None);
            }
            TaskAct::Start => match state {
                Open | Claimed | Blocked if state == Open || is_holder => {
                    can_begin(task)?;
                    (task.state, task.assignee) = (Started, Some(actor.sender.peer));
                    task.result.clear();
                }
                Started if is_holder => {}
                Open | Claimed | Started | Blocked | Completed | Failed | Cancelled => {
                    return Err(held());
                }
            },
            TaskAct::Block(why) if is_holder => end(task, Blocked, why)?,
            TaskAct::Complete(result)
                if is_holder || repeats(task, is_assignee, Completed, &result) =>
            {
                end(task, Completed, result)?;
            }
            TaskAct::Fail(why) if is_holder || repeats(task, is_assignee, Failed, &why) => {
                end(task, Failed, why)?
            }
            TaskAct::Block(_) | TaskAct::Complete(_) | TaskAct::Fail(_) => return Err(held()),
            TaskAct::Cancel(why) => {
                if state.is_final() && !repeats(task, is_creator, Cancelled, &why) {
                    return Err(wrong(TaskBar::Ended));
                }
                if !is_creator {
                    return Err(Rejection::NotPermitted { act: Act::CancelTask });
                }
                end(task, Cancelled, why)?;
            }
            TaskAct::Reopen => {
                if !state.is_final() {
                    return Err(wrong(TaskBar::NotEnded));
                }
                if !is_creator {
                    return Err(Rejection::NotPermitted { act: Act::ReopenTask });
                }
                self.check_room()?;
                become_open(task, None);
            }
        }
        Ok(())
    }

    fn put_task(&mut self, turn: &mut Turn<'_>, task: TaskRecord) {
        let assignee = task.assignee.map(|peer| self.name_of(peer));
        let event = WatchEvent::TaskChanged { task: task.id, assignee, state: task.state };
        self.emit(turn, &[], &event);
        turn.change(Change::PutShared(Box::new(SharedRecord::Task(task.clone()))));
        self.tasks.put(task);
    }

    // ---- notices

    fn notify_assignee(&mut self, turn: &mut Turn<'_>, actor: &TaskActor, task: &TaskRecord) {
        let Some(assignee) = task.assignee.filter(|peer| !actor.is(*peer)) else { return };
        let waits = self.tasks.waits_for(task);
        let when = if waits.is_empty() {
            wording::claim_it(task.id, Addressee::of_mail_to(assignee))
        } else {
            format!("it waits for {}", listed(&waits))
        };
        let text = format!(
            "{} gave you task {}: {}\n{when}",
            actor.sender.name,
            task.id,
            quoted(&task.title)
        );
        let notice = Notice::new(assignee, task.id.to_string(), text);
        self.task_news(turn, actor, Notice { intent: Intent::Request, ..notice });
    }

    fn notify_change(
        &mut self,
        turn: &mut Turn<'_>,
        actor: &TaskActor,
        before: &TaskRecord,
        task: &TaskRecord,
    ) {
        let news = self.news(actor, before, task);
        if task.state == TaskState::Open && task.assignee != before.assignee {
            self.notify_assignee(turn, actor, task);
        }
        let mut concerned = vec![task.creator];
        concerned.extend(before.assignee);
        concerned.retain(|peer| !actor.is(*peer));
        concerned.dedup();
        for peer in concerned {
            // The creator may wait for the end, or can help. A peer that lost the task must stop.
            let acts = task.state.is_final()
                || task.state == TaskState::Blocked
                || before.assignee == Some(peer);
            let intent = if acts { Intent::Request } else { Intent::Inform };
            let notice = Notice::new(peer, task.id.to_string(), news.clone());
            self.task_news(turn, actor, Notice { intent, ..notice });
        }
        if task.state.is_final() || before.state.is_final() {
            self.notify_dependents(turn, actor, task);
        }
    }

    /// Describes an act on a task, in one sentence.
    fn news(&self, actor: &TaskActor, before: &TaskRecord, task: &TaskRecord) -> String {
        let which = format!("task {} ({})", task.id, quoted(&task.title));
        let what = match (task.state, task.assignee, before.assignee) {
            (TaskState::Open, ..) if before.state.is_final() => format!("reopened {which}"),
            (TaskState::Open, Some(next), _) => format!("gave {which} to {}", self.name_of(next)),
            (TaskState::Open, None, Some(last)) if !actor.is(last) => {
                format!("took {which} from {}: it is open for anybody", self.name_of(last))
            }
            (TaskState::Open, ..) => format!("gave {which} back: it is open for anybody"),
            (TaskState::Blocked, ..) => format!("cannot go on with {which}"),
            (TaskState::Failed, ..) => format!("could not do {which}"),
            (state, ..) => format!("{} {which}", state.as_str()),
        };
        let result = if task.result.is_empty() {
            String::new()
        } else {
            format!(": {}", quoted(&task.result))
        };
        format!("{} {what}{result}", actor.sender.name)
    }

    /// Notifies peers whose tasks need this one that it has ended, and whether their tasks can
    /// begin. Also notifies them if it is open again.
    fn notify_dependents(&mut self, turn: &mut Turn<'_>, actor: &TaskActor, changed: &TaskRecord) {
        let waiting =
            |task: &&TaskRecord| !task.state.is_final() && task.needs.contains(&changed.id);
        let dependents: Vec<TaskRecord> = self.tasks.iter().filter(waiting).cloned().collect();
        for task in dependents {
            let left = self.tasks.waits_for(&task);
            let (intent, then) = match (changed.state, left.is_empty()) {
                (TaskState::Completed, true) if is_held(task.state) => {
                    (Intent::Request, "it can continue".to_owned())
                }
                _ if is_held(task.state) => (
                    Intent::Request,
                    "it was started already: check whether it is still valid".to_owned(),
                ),
                (TaskState::Completed, true) => (
                    Intent::Request,
                    "it can start: every task that it needs is complete".to_owned(),
                ),
                (TaskState::Completed | TaskState::Open, _) => {
                    (Intent::Inform, format!("it waits for {}", listed(&left)))
                }
                (_, _) => (
                    Intent::Request,
                    format!("it cannot start until {} is reopened and complete", changed.id),
                ),
            };
            let state = changed.state.as_str();
            let text = format!(
                "task {} ({}) needs {}, which is {state} now; {then}",
                task.id,
                quoted(&task.title),
                changed.id
            );
            let mut concerned = vec![task.assignee.unwrap_or(task.creator)];
            if changed.state != TaskState::Completed {
                concerned.push(task.creator);
            }
            concerned.dedup();
            for peer in concerned {
                if !actor.is(peer) || changed.state == TaskState::Completed {
                    let notice = Notice::new(peer, task.id.to_string(), text.clone());
                    self.task_news(turn, actor, Notice { intent, ..notice });
                }
            }
        }
    }

    /// Posts a notice about an actor's act. It is subject to the recipient's policy for mail from
    /// that actor.
    fn task_news(&mut self, turn: &mut Turn<'_>, actor: &TaskActor, notice: Notice) {
        let stage = match self.rule_on(&actor.sender, notice.to, None) {
            Policy::Accept => Stage::Stored,
            Policy::Hold => Stage::Held,
            Policy::Refuse => return,
        };
        self.post_notice(turn, Notice { stage, ..notice });
    }

    /// Reopens the tasks of a session that ended. If the peer is being forgotten, also unassigns
    /// the open tasks given to it. Notifies the creators, and the peer itself if it may come back.
    pub(crate) fn unclaim_tasks(&mut self, turn: &mut Turn<'_>, peer: PeerId, forgotten: bool) {
        let left = |task: &&TaskRecord| {
            task.assignee == Some(peer)
                && (is_held(task.state) || (forgotten && task.state == TaskState::Open))
        };
        let left: Vec<TaskRecord> = self.tasks.iter().filter(left).cloned().collect();
        let name = self.name_of(peer);
        for before in left {
            let mut task = before.clone();
            become_open(&mut task, None);
            task.changed_at = turn.now.wall;
            self.put_task(turn, task.clone());
            let why = match before.state {
                TaskState::Open => {
                    format!("its assignee {name} was offline for too long and is forgotten")
                }
                state => format!(
                    "the session of {name}, which held it, ended while it was {}",
                    state.as_str()
                ),
            };
            let text = format!(
                "task {} ({}) is open for anybody again: {why}",
                task.id,
                quoted(&task.title)
            );
            if task.creator != peer {
                let notice = Notice::new(task.creator, task.id.to_string(), text.clone());
                self.post_notice(turn, Notice { intent: Intent::Request, ..notice });
            }
            // If the session comes back, it must learn that it lost the task.
            if !forgotten {
                let claim = wording::claim_it(task.id, Addressee::of_mail_to(peer));
                let text = format!("{text}; to continue, {claim}");
                self.post_notice(turn, Notice::new(peer, task.id.to_string(), text));
            }
        }
    }

    /// Reopens tasks of sessions that did not come back within the grace period after a broker was
    /// killed.
    pub(crate) fn unclaim_tasks_of_the_lost(&mut self, turn: &mut Turn<'_>) {
        self.tasks.set_unreviewed(false);
        let held = self.tasks.iter().filter(|task| is_held(task.state));
        let mut lost: Vec<PeerId> =
            held.filter_map(|task| task.assignee).filter(|peer| !self.may_hold(*peer)).collect();
        lost.sort_unstable();
        lost.dedup();
        for peer in lost {
            self.unclaim_tasks(turn, peer, false);
        }
    }

    pub(crate) fn forget_tasks(&mut self, turn: &mut Turn<'_>, tasks: Vec<TaskId>) {
        for id in tasks {
            self.tasks.remove(id);
            turn.change(Change::RemoveShared(SharedKey::Task(id)));
        }
    }

    /// Checks the invariants of tasks between two inputs.
    pub(crate) fn assert_task_invariants(&self) {
        self.tasks.assert_invariants();
        for task in self.tasks.iter() {
            let id = task.id;
            if is_held(task.state) {
                let holder = task.assignee.expect("what is held has a holder");
                assert!(
                    self.tasks.is_unreviewed() || self.may_hold(holder),
                    "{holder} holds {id} and has no session"
                );
            }
            if let Some(assignee) = task.assignee.filter(|_| !task.state.is_final()) {
                assert!(
                    self.presence.get(assignee).is_some(),
                    "{id} is for {assignee}, who is not retained"
                );
            }
        }
    }

    // ---- listings

    fn list_tasks(
        &self,
        turn: &mut Turn<'_>,
        caller: Caller,
        me: PeerId,
        query: TasksQuery,
    ) -> Result<(), Rejection> {
        let resolve = |name: Option<String>| {
            name.map(|name| self.presence.resolve(&name, Some(me))).transpose()
        };
        check_length("the search text", query.text.as_deref().unwrap_or(""), TASK_TITLE_BYTES_MAX)?;
        let (assignee, creator) = (resolve(query.assignee)?, resolve(query.creator)?);
        let text = query.text.map(|text| text.to_lowercase());
        let fits = |task: &&TaskRecord| {
            query.before.is_none_or(|before| task.id < before)
                && query
                    .state
                    .map_or(query.all || !task.state.is_final(), |state| task.state == state)
                && assignee.is_none_or(|peer| task.assignee == Some(peer))
                && creator.is_none_or(|peer| task.creator == peer)
                && text.as_ref().is_none_or(|text| {
                    task.title.to_lowercase().contains(text)
                        || task.description.to_lowercase().contains(text)
                })
        };
        let mut found = self.tasks.iter().rev().filter(fits);
        // A description may be long, so fewer tasks than heads fit a frame.
        let tasks: Vec<TaskInfo> =
            found.by_ref().take(PAGE_ENTRIES_MAX / 4).map(|task| self.task_info(task)).collect();
        let next = found.next().and_then(|_| tasks.last()).map(|task| task.id);
        turn.reply(caller, Reply::Tasks { tasks, next });
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

/// Makes the task claimable, by anybody or by this peer.
fn become_open(task: &mut TaskRecord, assignee: Option<PeerId>) {
    (task.state, task.assignee) = (TaskState::Open, assignee);
    task.result.clear();
}

/// Ends or stops the task, with these words.
fn end(task: &mut TaskRecord, state: TaskState, words: String) -> Result<(), Rejection> {
    if matches!(state, TaskState::Blocked | TaskState::Failed) {
        check_words("the reason", &words)?;
    }
    check_length("the result", &words, TASK_TEXT_BYTES_MAX)?;
    (task.state, task.result) = (state, words);
    Ok(())
}

/// Whether an act that ends a task is a repeat by the same actor with the same words: its answer
/// was lost.
fn repeats(task: &TaskRecord, by_the_same: bool, state: TaskState, words: &str) -> bool {
    by_the_same && task.state == state && task.result == words
}

/// Returns the draft within its bounds: the title in one line, each need once.
fn checked_draft(mut draft: TaskDraft) -> Result<TaskDraft, Rejection> {
    draft.title = single_line(&draft.title);
    check_words("the title", &draft.title)?;
    check_length("the title", &draft.title, TASK_TITLE_BYTES_MAX)?;
    check_length("the description", &draft.description, TASK_TEXT_BYTES_MAX)?;
    check_idempotency_key(draft.idempotency_key.as_deref())?;
    draft.needs.sort();
    draft.needs.dedup();
    if draft.needs.len() > TASK_NEEDS_MAX {
        return Err(Rejection::OutOfBounds {
            what: "the list of needs",
            bound: format!("at most {TASK_NEEDS_MAX}"),
        });
    }
    Ok(draft)
}

fn check_words(what: &'static str, words: &str) -> Result<(), Rejection> {
    if is_blank(words) {
        Err(Rejection::OutOfBounds { what, bound: "at least one visible character".to_owned() })
    } else {
        Ok(())
    }
}
