//! Retention: deletes messages that were settled long ago, and the oldest settled ones when the
//! store exceeds its limits.
//!
//! Knows the rules of deletion, the totals, and the position of a pass. Does not know the store.
//! The engine reads a few rows at a time, oldest first, while it is idle. For a pass that the
//! person asked for, it also reads between batches. Invariants: pending deliveries and open
//! questions are never deleted. A dead letter has a limit of its own. The newest message stays,
//! because the ids continue from it.

use std::collections::BTreeSet;

use peer_proto::ids::{MessageId, Timestamp};
use peer_proto::limits::LINK_MEMORY_MS;
use peer_proto::message::{Kind, Stage};

use crate::broker::Broker;
use crate::input::{Now, StoredMessage};
use crate::record::{DeliveryRecord, KeptRecord};
use crate::rejection::{Act, Crowd, Rejection};
use crate::retention::{Sweep, Tally};
use crate::state::retained::Pass;
use crate::step::{Change, Step};
use crate::turn::Turn;
use crate::who::Caller;

/// Passes that can be requested at the same time.
const ASKED_MAX: usize = 8;

/// The time between two passes that nobody requested. Everything that is due meanwhile is deleted
/// in one pass.
const REST_MS: u64 = 3_600_000;

/// When a limit is exceeded, this fraction of it is deleted as well, so that the next message does
/// not exceed it again.
const SLACK: u64 = 20;

/// The decision on one message.
enum RetentionVerdict {
    Goes,
    Stays,
    StaysUntil(Timestamp),
}

impl Broker {
    /// Starts the counts. `first` is the oldest message.
    pub(crate) fn start_retaining(&mut self, now: Now, text_bytes: u64, first: Option<MessageId>) {
        self.retaining.text_bytes = text_bytes;
        let due_at = first.map(|first| first.accepted_at().plus_ms(self.shortest_ms()));
        self.retaining.due_at = if self.is_too_much() { Some(now.wall) } else { due_at };
        if let Some(at) = self.tasks.first_ended() {
            self.retaining.bring_forward(at.plus_ms(self.config.retention.tasks_ms));
        }
    }

    /// Returns the next step of retention, if there is one.
    #[must_use]
    pub fn poll_sweep(&self, now: Now) -> Option<Sweep> {
        let is_asked = self.retaining.passes.iter().any(|pass| pass.asked_by.is_some());
        if let Some(pass) = self.retaining.passes.front() {
            return Some(Sweep { in_ms: 0, is_asked, after: pass.after });
        }
        let in_ms = self.retaining.due_at?.ms_since(now.wall).max(self.grace_ms(now));
        Some(Sweep { in_ms, is_asked, after: None })
    }

    /// Returns the totals that the store records, so that it need not count them when it is opened.
    #[must_use]
    pub fn kept(&self) -> KeptRecord {
        KeptRecord { through: self.last_message, text_bytes: self.retaining.text_bytes }
    }

    pub(crate) fn purge(&mut self, caller: Caller, dry_run: bool) -> Result<(), Rejection> {
        caller.check_person(Act::Purge)?;
        if self.retaining.passes.len() >= ASKED_MAX {
            return Err(Rejection::TooMany { what: Crowd::Purges, count: ASKED_MAX });
        }
        let pass = Pass { asked_by: Some(caller), dry_run, ..self.new_pass() };
        self.retaining.passes.push_back(pass);
        Ok(())
    }

    /// Makes one step. `rows` are the messages after [`Sweep::after`], oldest first. `next` is
    /// where the following step continues. `None`: there are no more. Returns the deleted counts if
    /// this step ended a pass.
    pub fn sweep(
        &mut self,
        now: Now,
        rows: &[StoredMessage],
        next: Option<MessageId>,
        step: &mut Step,
    ) -> Option<Tally> {
        let turn = &mut Turn { now, step };
        let mut pass = self.retaining.passes.pop_front().unwrap_or_else(|| self.new_pass());
        if pass.after.is_none() {
            self.sweep_tasks(turn, &mut pass);
        }
        let rows_before = pass.tally.rows();
        let mut ended = next.is_none();
        for stored in rows {
            // The messages that follow were accepted later, so they are not due before this one
            // would be.
            let earliest = stored.head.id.accepted_at().plus_ms(self.shortest_ms());
            if earliest > now.wall && !self.is_over(&pass) {
                pass.bring_forward(earliest);
                ended = true;
                break;
            }
            match self.judge(now, stored, &pass) {
                RetentionVerdict::Goes => self.forget_message(turn, stored, &mut pass),
                RetentionVerdict::Stays => {}
                RetentionVerdict::StaysUntil(at) => pass.bring_forward(at),
            }
        }
        if !pass.dry_run && pass.tally.rows() > rows_before {
            turn.change(Change::PutKept(self.kept()));
        }
        pass.after = next;
        if !ended {
            self.retaining.passes.push_front(pass);
            return None;
        }
        if let Some(caller) = pass.asked_by {
            turn.reply(caller, pass.tally.reply());
        }
        if pass.dry_run {
            return None;
        }
        self.retaining.rests_until = now.wall.plus_ms(REST_MS);
        // A message that is pending now may be settled by then.
        let due_at =
            pass.due_at.or((self.messages > 0).then(|| now.wall.plus_ms(self.shortest_ms())));
        self.retaining.due_at = due_at.map(|at| at.max(self.retaining.rests_until));
        Some(pass.tally).filter(|tally| *tally != Tally::default())
    }

    /// Counts one more stored message.
    pub(crate) fn record_stored(&mut self, now: Now, text_bytes: usize) {
        self.retaining.text_bytes += text_bytes as u64;
        if self.is_too_much() {
            self.retaining.bring_forward(self.retaining.rests_until.max(now.wall));
        } else if self.retaining.due_at.is_none() {
            self.retaining.bring_forward(now.wall.plus_ms(self.shortest_ms()));
        }
    }

    /// Counts a message that is older than the newest one: the totals are recorded anew, because
    /// those of the store are counted by id.
    pub(crate) fn record_late(&mut self, turn: &mut Turn<'_>, id: MessageId) {
        self.retaining.bring_forward(id.accepted_at().plus_ms(self.shortest_ms()));
        turn.change(Change::PutKept(self.kept()));
    }

    /// Makes a pass due after a task has ended.
    pub(crate) fn record_task_ended(&mut self, now: Now) {
        let at = now.wall.plus_ms(self.config.retention.tasks_ms);
        self.retaining.bring_forward(at.max(self.retaining.rests_until));
    }

    fn new_pass(&self) -> Pass {
        let bounds = &self.config.retention;
        let with_slack = |bound: u64| bound - bound / SLACK;
        Pass {
            messages_max: (self.messages > bounds.settled_count)
                .then(|| with_slack(bounds.settled_count)),
            bytes_max: (self.retaining.text_bytes > bounds.settled_bytes)
                .then(|| with_slack(bounds.settled_bytes)),
            ..Pass::default()
        }
    }

    fn is_too_much(&self) -> bool {
        let bounds = &self.config.retention;
        self.messages > bounds.settled_count || self.retaining.text_bytes > bounds.settled_bytes
    }

    /// Whether a pass must still make room.
    fn is_over(&self, pass: &Pass) -> bool {
        // A dry run changes nothing: subtract here what it would have deleted.
        let (rows, bytes) =
            if pass.dry_run { (pass.tally.rows(), pass.tally.text_bytes) } else { (0, 0) };
        pass.messages_max.is_some_and(|max| self.messages.saturating_sub(rows) > max)
            || pass
                .bytes_max
                .is_some_and(|max| self.retaining.text_bytes.saturating_sub(bytes) > max)
    }

    /// The shortest time from acceptance to deletion.
    fn shortest_ms(&self) -> u64 {
        self.config.retention.settled_ms.min(self.config.retention.dead_ms)
    }

    fn judge(&self, now: Now, stored: &StoredMessage, pass: &Pass) -> RetentionVerdict {
        let id = stored.head.id;
        let waits = stored.deliveries.iter().any(|delivery| delivery.stage.is_pending());
        if waits || id == self.last_message || self.questions.is_open(id) {
            return RetentionVerdict::Stays;
        }
        // A repeat of it may come until then, and must be recognised.
        let remembered_until = id.accepted_at().plus_ms(LINK_MEMORY_MS);
        let may_come = |delivery: &DeliveryRecord| {
            delivery.stage == Stage::Posted || delivery.brief.origin.is_some()
        };
        let may_come = stored.head.origin.is_some() || stored.deliveries.iter().any(may_come);
        if may_come && remembered_until > now.wall {
            return RetentionVerdict::StaysUntil(remembered_until);
        }
        let bounds = &self.config.retention;
        let ends = stored.deliveries.iter().map(|delivery| {
            let settled_at = delivery.trace.last().map_or(stored.head.sent_at, |entry| entry.at);
            settled_at.plus_ms(if delivery.stage == Stage::Dead {
                bounds.dead_ms
            } else {
                bounds.settled_ms
            })
        });
        let ends_at = ends.max().unwrap_or_else(|| stored.head.sent_at.plus_ms(bounds.settled_ms));
        let is_letter = stored.deliveries.iter().any(|delivery| delivery.stage == Stage::Dead);
        // Its origin has not heard yet what became of it, and could not ask any more.
        let is_due = stored.head.origin.is_some_and(|origin| self.links.has_due(origin.broker, id));
        if ends_at <= now.wall || (!is_letter && !is_due && self.is_over(pass)) {
            RetentionVerdict::Goes
        } else {
            RetentionVerdict::StaysUntil(ends_at)
        }
    }

    fn forget_message(&mut self, turn: &mut Turn<'_>, stored: &StoredMessage, pass: &mut Pass) {
        let head = &stored.head;
        let dead = || stored.deliveries.iter().filter(|delivery| delivery.stage == Stage::Dead);
        match head.kind {
            Kind::Question => pass.tally.questions += 1,
            Kind::Notice => pass.tally.notices += 1,
            _ => pass.tally.messages += 1,
        }
        pass.tally.dead_letters += dead().count() as u64;
        pass.tally.text_bytes += u64::from(head.text_bytes);
        if pass.dry_run {
            return;
        }
        turn.change(Change::RemoveMessage(head.id));
        let origins = stored.deliveries.iter().filter_map(|delivery| delivery.brief.origin);
        let origins = origins.chain(head.origin.map(|origin| origin.broker));
        for broker in origins.collect::<BTreeSet<_>>() {
            for key in self.links.forget_due(broker, head.id) {
                turn.change(Change::RemoveReceipt(key));
            }
        }
        self.forget_question(turn, head.id);
        self.messages -= 1;
        dead().for_each(|letter| self.mailboxes.count(Some(letter.stage), None));
        // A damaged message may not have been counted.
        self.retaining.text_bytes =
            self.retaining.text_bytes.saturating_sub(u64::from(head.text_bytes));
    }

    fn sweep_tasks(&mut self, turn: &mut Turn<'_>, pass: &mut Pass) {
        let tasks_ms = self.config.retention.tasks_ms;
        let ended = self.tasks.ended_by(turn.now.wall, tasks_ms);
        pass.tally.tasks = ended.len() as u64;
        if !pass.dry_run {
            self.forget_tasks(turn, ended);
            if let Some(at) = self.tasks.first_ended() {
                pass.bring_forward(at.plus_ms(tasks_ms));
            }
        }
    }
}
