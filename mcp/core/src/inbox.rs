//! The inbox: the deliveries of this session, and how far a model was shown each. Pure: no clock,
//! no socket, no OS thread.
//!
//! Knows each delivery that the broker pushed, the carriers that it was offered by, the characters
//! that each carrier had, and the evidence. Does not know how a carrier sends, nor which carriers
//! are available now. The invariants:
//!
//! - Messages are shown in the order of their ids, so that each sender's order is kept. A push
//!   never overtakes a message that still waits for a tool result.
//! - A message is given to one carrier at a time: to the next one only after the last one timed out
//!   or failed. The exception is one message on trial with an unproved push carrier: hooks and tool
//!   results carry it as well.
//! - A later call or event proves a message only if its whole body went to the same conversation
//!   before.
//! - A proved message is never shown again, even if the broker pushes it once more because its
//!   answer was lost.
//! - A message that another adapter of this client may have shown goes into hooks and tool results.
//!   No push carrier gets it before that adapter's carrier timed out. New messages do not wait for
//!   it.

mod entry;
mod events;
mod push;
mod terms;

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::hook::HookEvent;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Carrier, Delivery, Evidence, Intent, Message};

use crate::call::{CallId, CallOrigin};
use crate::render::{self, BLOCK_CHARS_MAX, Body, EXCERPT_CHARS_MAX, Showing, counted};

pub use terms::{Block, BlockRequest, Known, Post, Proof, Seen};

use entry::{Hooked, InboxEntry, Moment, Part, Standing, read_up_to};
use terms::Quoted;

/// Messages whose replies are remembered, to tell a first reply from later ones.
const ANSWERED_MAX: usize = 1_024;

/// The number of ids that one reminder names.
const REMINDED_MAX: usize = 8;

/// The smallest budget to which a message is cut. Only the first message of a block is cut; another
/// one is left for the next block.
const LEAST_BUDGET: usize = 200;

/// The deliveries of this session.
#[derive(Debug, Default)]
pub struct Inbox {
    entries: BTreeMap<MessageId, InboxEntry>,
    arrivals: u64,
    /// Messages to which this session has seen a reply.
    answered: BTreeSet<MessageId>,
    /// Events of the main conversation that hooks reported.
    events: u64,
    /// How often the model was about to be asked, or had ended its turn, as hooks reported it.
    rounds: u64,
    /// Whether hooks report the moment when all tools of one message have run.
    tells_batches: bool,
    /// Whether a result that left proves nothing: its text may not have been shown.
    record_alone: bool,
    /// Whether the client's record shows the model's messages.
    record_speaks: bool,
    /// The number of messages that were proved.
    proofs: u64,
    /// Whether a turn runs, as hooks reported it; `None`: no hook of this conversation has reported
    /// it.
    runs: Option<bool>,
    /// The position of the last event in the conversation.
    moment: Moment,
    /// Whether a message that the broker pushes as a repeat may have been shown in this client.
    repeats_here: bool,
    /// Whether the current connection has brought every message that this session holds.
    holds_all: bool,
}

impl Inbox {
    /// Returns the arrival number of the next unknown message: messages with a lower one came
    /// before this moment.
    pub fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Begins a new connection to the broker, which pushes again the messages that this session
    /// then holds.
    pub(crate) fn begin_session(&mut self) {
        // If the previous connection had brought every message that this session held, drop the
        // others: they were settled, or went to another session. It may have been lost before.
        let is_known = std::mem::take(&mut self.holds_all);
        self.entries.retain(|_, entry| std::mem::replace(&mut entry.held, false) || !is_known);
    }

    /// Records that the broker pushed every message that this session holds on this connection.
    pub(crate) fn mark_all_held(&mut self) {
        self.holds_all = true;
    }

    /// Sets whether messages that the broker pushes as repeats may have been shown in this client.
    /// Another adapter of the client may have shown them, or this one on an earlier connection.
    pub(crate) fn mark_repeats(&mut self, here: bool) {
        self.repeats_here = here;
    }

    /// Returns the value that [`Inbox::mark_repeats`] set.
    pub(crate) fn repeats_here(&self) -> bool {
        self.repeats_here
    }

    /// Adds a delivery that the broker pushed. `hooks_come`: whether hooks of the client follow a
    /// tool result.
    pub(crate) fn deliver(&mut self, delivery: Delivery, hooks_come: bool) -> Known {
        let Delivery { mut message, shown_before, .. } = delivery;
        if let Some(entry) = self.entries.get_mut(&message.id) {
            // Another adapter of the client offered it meanwhile.
            if shown_before && !entry.shown_before {
                entry.shown_before = true;
                entry.with_client = self.repeats_here && entry.standing() == Standing::Fresh;
            }
            entry.held = true;
            return entry.known(hooks_come);
        }
        let body = Body::new(&message.text);
        // The body replaces the text: no other part of it is ever shown.
        message.text = String::new();
        let first_reply = message.reply_to.is_some_and(|answered| self.answered.insert(answered));
        if self.answered.len() > ANSWERED_MAX {
            self.answered.pop_first();
        }
        let with_client = shown_before && self.repeats_here;
        let entry = InboxEntry {
            with_client,
            first_reply,
            ..InboxEntry::new(message, body, self.arrivals, shown_before)
        };
        self.entries.insert(entry.id(), entry);
        self.arrivals += 1;
        Known::New
    }

    /// Handles the timeout of a carrier without evidence. Returns whether to distrust the carrier.
    /// It is still trusted if the client declined the message and it was taken back, or if the
    /// beginning of a long message arrived. It is also trusted if another adapter may have had the
    /// message.
    pub(crate) fn overdue(&mut self, message: MessageId, carrier: Carrier) -> bool {
        let Some(entry) = self.entries.get_mut(&message) else { return false };
        entry.with_client = false;
        if !entry.went_by(carrier) {
            return false;
        }
        match carrier {
            Carrier::ToolResult => entry.result_overdue = true,
            Carrier::Hook => entry.hooks.iter_mut().for_each(|hook| hook.overdue = true),
            _ => {
                let mut failed = false;
                for push in entry.pushes.iter_mut().filter(|push| push.carrier == carrier) {
                    push.overdue = true;
                    failed |= !push.arrived;
                }
                return failed;
            }
        }
        true
    }

    /// Handles the client's change to another conversation, for example after `/clear`. Unproved
    /// messages of the last conversation go to all carriers once more, as repeats. No later event
    /// proves them.
    pub(crate) fn leave_conversation(&mut self) {
        // No hook reports the end of a turn that was interrupted.
        self.runs = None;
        for entry in self.entries.values_mut().filter(|entry| entry.proof.is_none()) {
            entry.leave_conversation();
        }
    }

    /// Removes messages that are settled, or that no longer belong to this session.
    pub(crate) fn remove(&mut self, messages: &[MessageId]) {
        for message in messages {
            self.entries.remove(message);
        }
    }

    /// Handles the end of this session's lease: another adapter of the client has the message now,
    /// or another session. If it comes back, it is a repeat if this session gave it to a carrier.
    /// The order of the events meanwhile is unknown, so no later event proves it.
    pub(crate) fn hand_over(&mut self, message: MessageId) {
        let Some(entry) = self.entries.get_mut(&message) else { return };
        entry.held = false;
        if entry.proof.is_none() {
            entry.leave_conversation();
            // The client may have it by now, from either adapter.
            entry.with_client = self.repeats_here;
        }
        if entry.proof.is_none() && !entry.shown_before {
            self.entries.remove(&message);
        }
    }

    // ---- evidence

    /// Makes the client's record the only evidence for tool results. Such a client runs the calls
    /// of one answer one after the other. A program that the model wrote may make them and hide
    /// their results from the model.
    pub(crate) fn trust_record_alone(&mut self) {
        self.record_alone = true;
    }

    /// Sets whether the client's record shows the model's messages. If it does, no event is
    /// evidence: a client may silently drop a hook's output, for example if another hook refuses
    /// the prompt.
    pub(crate) fn trust_record(&mut self, speaks: bool) {
        self.record_speaks = speaks;
    }

    /// Returns the messages that this call proves: their whole bodies were shown to the calling
    /// conversation in earlier results, and it was not compacted since.
    pub(crate) fn proved_by(&mut self, caller: &CallOrigin) -> Vec<MessageId> {
        let Some(conversation) = caller.conversation.as_deref().filter(|_| !self.record_alone)
        else {
            return Vec::new();
        };
        // A compaction may have dropped a result before the model was asked with it.
        let starts = self.moment.starts;
        self.prove(|entry| {
            let followed = |part: &&Part| {
                part.conversation.as_deref() == Some(conversation)
                    && part.moment.starts == starts
                    && part.counts()
                    && part.left_before(caller)
            };
            let whole = read_up_to(entry.parts.iter().filter(followed))
                .is_some_and(|end| end >= entry.body.chars());
            whole.then_some(Proof { carrier: Carrier::ToolResult, evidence: Evidence::NextCall })
        })
        .into_iter()
        .map(|(message, _)| message)
        .collect()
    }

    /// Applies what the client's record shows that the model was asked with. Returns the messages
    /// that are now proved whole.
    pub(crate) fn recorded(&mut self, seen: &[Seen]) -> Vec<(MessageId, Proof)> {
        for seen in seen {
            if let Some(entry) = self.entries.get_mut(&seen.message) {
                entry.mark_recorded(&seen.piece, seen.in_result);
            }
        }
        self.prove(|entry| {
            let last = seen
                .iter()
                .rfind(|seen| seen.message == entry.id())
                .filter(|_| entry.is_recorded_whole())?;
            let carrier = last
                .by
                .filter(|carrier| entry.went_by(*carrier))
                .or_else(|| entry.last_carrier())?;
            Some(Proof { carrier, evidence: Evidence::Transcript })
        })
    }

    /// Returns the push carriers that brought any of these. They are proved to work, even if a long
    /// message is not yet proved.
    pub(crate) fn arrived(&mut self, seen: &[Seen]) -> Vec<Carrier> {
        let mut carriers = Vec::new();
        for seen in seen {
            let Some(entry) = self.entries.get_mut(&seen.message) else { continue };
            let by = seen.by.or_else(|| entry.last_carrier());
            for push in entry.pushes.iter_mut().filter(|push| Some(push.carrier) == by) {
                push.arrived = true;
                carriers.push(push.carrier);
            }
        }
        carriers
    }

    /// Returns the messages that a carrier was given without evidence so far: the client's record
    /// is searched for them.
    pub fn unproved(&self) -> Vec<MessageId> {
        let given = |entry: &&InboxEntry| entry.proof.is_none() && entry.last_carrier().is_some();
        self.entries.values().filter(given).map(InboxEntry::id).collect()
    }

    /// Returns all messages without evidence, given to a carrier or not.
    pub fn unsettled(&self) -> Vec<MessageId> {
        self.entries.values().filter(|entry| entry.proof.is_none()).map(InboxEntry::id).collect()
    }

    /// Whether the next result would show any message without a filter.
    pub fn is_any_due(&self) -> bool {
        let in_flight = self.in_flight();
        self.entries.values().any(|entry| {
            entry.is_open() && entry.is_due_in_result() && !is_behind(entry, &in_flight)
        })
    }

    /// Whether the next result or hook may repeat a message that a push carrier had and that the
    /// model may have seen.
    pub fn would_repeat_push(&self) -> bool {
        // The record does not show yet what the next request will contain.
        let may_be_recorded = |entry: &InboxEntry| match entry.standing() {
            Standing::Overdue => true,
            Standing::OnTrial => entry.pushes.iter().all(|push| push.round < self.rounds),
            Standing::Fresh | Standing::Open => false,
        };
        self.entries
            .values()
            .any(|entry| entry.is_open() && entry.is_pushed_only() && may_be_recorded(entry))
    }

    /// Marks messages as tried after the client showed an event: its model may have been asked with
    /// all that it was given. Returns the newly marked ones. `among`: only these. `held_up`: the
    /// messages of a push that has not left yet.
    pub(crate) fn newly_tried(
        &mut self,
        among: Option<&[MessageId]>,
        held_up: &[MessageId],
    ) -> Vec<MessageId> {
        let given = |entry: &&mut InboxEntry| {
            let is_meant = among.is_none_or(|among| among.contains(&entry.message.id));
            let is_with_client =
                || !entry.is_pushed_once_only() || !held_up.contains(&entry.message.id);
            is_meant
                && entry.is_open()
                && !entry.tried
                && entry.last_carrier().is_some()
                && is_with_client()
        };
        let mut tried = Vec::new();
        for entry in self.entries.values_mut().filter(given) {
            entry.tried = true;
            tried.push(entry.message.id);
        }
        tried
    }

    /// Whether the client was given a message whose evidence the broker has not stored yet.
    pub fn is_any_given(&self) -> bool {
        self.entries.values().any(|entry| entry.held && entry.last_carrier().is_some())
    }

    /// Records evidence. This includes messages of a lost connection: the evidence outlives the
    /// connection.
    fn prove(&mut self, proof: impl Fn(&InboxEntry) -> Option<Proof>) -> Vec<(MessageId, Proof)> {
        let mut proved = Vec::new();
        let mut entries = std::mem::take(&mut self.entries);
        for entry in entries.values_mut().filter(|entry| entry.proof.is_none()) {
            if let Some(found) = proof(entry) {
                entry.proof = Some(found);
                proved.push((entry.id(), found));
            }
        }
        self.entries = entries;
        self.proofs += proved.len() as u64;
        proved
    }

    /// Returns how many messages were proved so far, to correct an older count of the broker.
    pub fn proofs(&self) -> u64 {
        self.proofs
    }

    // ---- hooks

    /// Returns the mail for a hook's output, and counts it as carried. If the model would be idle
    /// after this event, the output carries only messages that may wake, with all earlier ones.
    pub(crate) fn hook_block(&mut self, event: HookEvent, budget: usize, home: &str) -> Block {
        let round = self.rounds;
        let in_flight = self.in_flight();
        let due = |entry: &InboxEntry| {
            entry.is_open() && entry.is_due_in_hook(round) && !is_behind(entry, &in_flight)
        };
        if event == HookEvent::Stop
            && !self.entries.values().any(|entry| due(entry) && entry.may_wake())
        {
            return Block::default();
        }
        // A block that shows a message also shows all earlier messages of its sender that only a
        // push carrier had.
        let carried = self.latest_by_sender(due);
        let wanted =
            |entry: &InboxEntry| entry.is_open() && (due(entry) || overtaken(entry, &carried));
        let quoted = self.quote(wanted, usize::MAX, budget, home);
        if quoted.shown.is_empty() {
            return Block::default();
        }
        let (number, moment) = (self.events, self.moment.clone());
        for (message, end) in &quoted.shown {
            if let Some(entry) = self.entries.get_mut(message) {
                entry.hooks.push(Hooked {
                    event,
                    number,
                    moment: moment.clone(),
                    round,
                    end: *end,
                    overdue: false,
                });
            }
        }
        let mut text = render::block_head(quoted.shown.len());
        text.push_str(&quoted.text);
        push_more(&mut text, quoted.left);
        let offered: Vec<MessageId> = quoted.shown.iter().map(|(message, _)| *message).collect();
        Block { text, shown: offered.len(), offered }
    }

    /// Whether a tool result carries mail that the model has not been asked with yet, as far as is
    /// known. If the client puts a hook's text before the result of its call, the order would be
    /// wrong.
    pub(crate) fn is_result_under_way(&self) -> bool {
        let is_unseen = |entry: &InboxEntry, part: &Part| {
            let may_be = if self.record_speaks {
                !entry.recorded.contains(&(part.start, part.end)) && !entry.result_overdue
            } else {
                // This event is the first one since.
                part.events + 1 >= self.events
            };
            may_be && part.counts() && self.moment.continues(&part.moment)
        };
        self.entries
            .values()
            .any(|entry| entry.is_open() && entry.parts.iter().any(|part| is_unseen(entry, part)))
    }

    /// Marks messages whose hook may or may not have had its output: that proves nothing, and the
    /// next time they are shown as repeats.
    pub(crate) fn doubt_hook(&mut self, messages: &[MessageId]) {
        for message in messages {
            if let Some(entry) = self.entries.get_mut(message) {
                entry.hooks.pop();
                entry.shown_before = true;
            }
        }
    }

    /// Undoes an offer whose hook ended before it had its output.
    pub(crate) fn take_back_hook(&mut self, messages: &[MessageId]) {
        for message in messages {
            if let Some(entry) = self.entries.get_mut(message) {
                entry.hooks.pop();
            }
        }
    }

    /// Records that the order of events is unknown. A hook was reported late because its client did
    /// not wait for it, or hooks were missed without a connection. Events no longer prove messages
    /// that were given before.
    pub(crate) fn lose_order(&mut self) {
        self.moment.starts += 1;
        for part in self.entries.values_mut().flat_map(|entry| &mut entry.parts) {
            part.is_past = false;
        }
    }

    // ---- tool results

    /// Records that the result of this call is queued, and ends at that byte of the output.
    pub(crate) fn result_queued(&mut self, call: CallId, end: u64) {
        for part in self.parts_of(call) {
            // Only a defective client uses an id twice; then the first answer counts.
            part.result_end.get_or_insert(end);
        }
    }

    /// Undoes the offers in the result of a cancelled call: no model was shown it.
    pub(crate) fn call_dropped(&mut self, call: CallId) {
        self.parts_of(call).for_each(|part| part.is_dropped = true);
    }

    fn parts_of(&mut self, call: CallId) -> impl Iterator<Item = &mut Part> {
        self.entries
            .values_mut()
            .flat_map(|entry| &mut entry.parts)
            .filter(move |part| part.call == call)
    }

    /// Whether any of these was in no tool result yet.
    pub fn any_unseen(&self, messages: &[MessageId]) -> bool {
        messages.iter().any(|message| {
            self.entries.get(message).is_some_and(|entry| entry.is_open() && !entry.was_in_result())
        })
    }

    /// Returns the first request that arrived at or after `arrival` and was in no tool result yet.
    pub fn request_since(&self, arrival: u64) -> Option<&Message> {
        let new = |entry: &&InboxEntry| {
            entry.arrival >= arrival && entry.is_open() && !entry.was_in_result()
        };
        self.entries
            .values()
            .filter(new)
            .map(|entry| &entry.message)
            .find(|message| message.intent == Intent::Request)
    }

    /// Returns all unsettled messages of this session, oldest first.
    pub fn open(&self) -> Vec<MessageId> {
        self.entries.values().filter(|entry| entry.is_open()).map(InboxEntry::id).collect()
    }

    /// Returns the message with that id, if this session has it.
    pub fn message(&self, message: MessageId) -> Option<&Message> {
        self.entries.get(&message).filter(|entry| entry.is_open()).map(|entry| &entry.message)
    }

    /// Returns a part of one message's body from `offset`, and whether the broker must be told of
    /// an offer.
    pub(crate) fn part(
        &mut self,
        message: MessageId,
        offset: usize,
        peek: bool,
        home: &str,
        caller: &CallOrigin,
    ) -> Option<(String, bool)> {
        let entry = self.entries.get_mut(&message).filter(|entry| entry.is_open())?;
        let shown = render::message(
            &entry.message,
            &entry.body,
            entry.showing(home, offset, usize::MAX, BLOCK_CHARS_MAX),
        );
        let first = !peek && !entry.was_in_result();
        if !peek {
            entry.parts.push(Part::new(caller, (self.events, &self.moment), offset, shown.end));
        }
        Some((shown.quoted, first))
    }

    /// Returns the block for the end of a result, and counts its messages as carried. `waiting` is
    /// the broker's count of waiting messages, which may be more than this session holds.
    pub(crate) fn block(
        &mut self,
        caller: &CallOrigin,
        ask: BlockRequest<'_>,
        waiting: usize,
    ) -> Block {
        let held = self.entries.values().filter(|entry| entry.is_open()).count();
        let also = |entry: &InboxEntry| ask.also == Some(entry.id());
        // A block that shows a message also shows all earlier messages of its sender that only a
        // push carrier had.
        let in_flight = self.in_flight();
        let due = |entry: &InboxEntry| entry.is_due_in_result() && !is_behind(entry, &in_flight);
        let carried = self.latest_by_sender(|entry| entry.is_open() && (due(entry) || also(entry)));
        let wanted = |entry: &InboxEntry| {
            let matched = match ask.among {
                None => due(entry) || overtaken(entry, &carried),
                Some(matched) => !entry.was_in_result() && matched.contains(&entry.id()),
            };
            entry.is_open() && (matched || also(entry))
        };
        let unasked = |entry: &&InboxEntry| {
            entry.is_open() && ask.among.is_some() && entry.is_due_in_result() && !wanted(entry)
        };
        let mut left = waiting.saturating_sub(held) + self.entries.values().filter(unasked).count();
        let quoted = self.quote(wanted, ask.limit, ask.budget, ask.home);
        left += quoted.left;
        let shown = quoted.shown.len();
        let mut offered = Vec::new();
        if !ask.peek {
            for (message, end) in quoted.shown {
                if let Some(entry) = self.entries.get_mut(&message) {
                    entry.parts.push(Part::new(caller, (self.events, &self.moment), 0, end));
                    entry.result_overdue = false;
                    offered.push(message);
                }
            }
        }
        let mut text = if shown > 0 { render::block_head(shown) } else { String::new() };
        text.push_str(&quoted.text);
        push_more(&mut text, left);
        text.push_str(&self.reminders(caller.call, ask.among.is_none()));
        Block { text, offered, shown }
    }

    /// Returns one line about messages that a result, hook or push carried and that nobody
    /// confirmed, without their texts.
    fn reminders(&self, now: CallId, name_pushed: bool) -> String {
        let mut text = String::new();
        let open = || self.entries.values().filter(|entry| entry.is_open());
        let earlier = |entry: &&InboxEntry| {
            entry.was_in_result() && !entry.parts.iter().any(|part| part.call == now)
        };
        let (whole, cut): (Vec<&InboxEntry>, Vec<&InboxEntry>) =
            open().filter(earlier).partition(|entry| entry.was_in_result_whole());
        if !whole.is_empty() {
            let verb = if whole.len() == 1 { "is" } else { "are" };
            text.push_str(&format!(
                "{} shown before {verb} not confirmed; when dealt with: ack_messages(\"{}\")\n",
                counted(whole.len(), "message"),
                ids(&whole)
            ));
        }
        if let Some(first) = cut.first() {
            let end = read_up_to(first.parts.iter().filter(|part| part.counts())).unwrap_or(0);
            text.push_str(&format!(
                "{} shown before in part: check_messages(message_id=\"{}\", offset={end})\n",
                counted(cut.len(), "message"),
                first.message.id
            ));
        }
        let with_other =
            |entry: &&InboxEntry| entry.standing() == Standing::Open && !entry.was_in_result();
        let (hooked, pushed): (Vec<&InboxEntry>, Vec<&InboxEntry>) =
            open().filter(with_other).partition(|entry| !entry.is_pushed_only());
        for (elsewhere, way) in [(pushed, self.way()), (hooked, "a hook")] {
            if name_pushed && !elsewhere.is_empty() {
                text.push_str(&format!(
                    "{} came through {way}: {}; check_messages() shows them here\n",
                    counted(elsewhere.len(), "message"),
                    ids(&elsewhere)
                ));
            }
        }
        text
    }

    /// Returns the model's name of the push carrier.
    fn way(&self) -> &'static str {
        let carriers = || {
            self.entries.values().filter_map(|entry| entry.pushes.last()).map(|push| push.carrier)
        };
        if carriers().all(|carrier| carrier == Carrier::Channel) { "the channel" } else { "a push" }
    }

    // ---- shared

    /// Returns the first message of each sender that only a working push carrier has. The model is
    /// about to be asked with it, so later messages of the sender must come after it.
    fn in_flight(&self) -> BTreeMap<PeerId, MessageId> {
        let mut first = BTreeMap::new();
        let pushed = |entry: &&InboxEntry| {
            entry.is_open() && entry.is_pushed_only() && entry.standing() == Standing::Open
        };
        for entry in self.entries.values().filter(pushed) {
            first.entry(entry.message.from.peer).or_insert(entry.message.id);
        }
        first
    }

    /// Returns the last message of each sender among these.
    fn latest_by_sender(&self, among: impl Fn(&InboxEntry) -> bool) -> BTreeMap<PeerId, MessageId> {
        let chosen = self.entries.values().filter(|entry| among(entry));
        chosen.map(|entry| (entry.message.from.peer, entry.message.id)).collect()
    }

    /// Quotes the wanted messages, oldest first, as far as there is room. A message never overtakes
    /// an earlier one that had no room.
    fn quote(
        &self,
        wanted: impl Fn(&InboxEntry) -> bool,
        limit: usize,
        mut budget: usize,
        home: &str,
    ) -> Quoted {
        let mut quoted = Quoted { text: String::new(), shown: Vec::new(), left: 0 };
        for entry in self.entries.values().filter(|entry| wanted(entry)) {
            if quoted.left > 0 || quoted.shown.len() == limit {
                quoted.left += 1;
                continue;
            }
            let whole = entry.showing(home, 0, EXCERPT_CHARS_MAX, BLOCK_CHARS_MAX);
            let mut piece = render::message(&entry.message, &entry.body, whole);
            if piece.quoted.chars().count() > budget {
                if !quoted.shown.is_empty() || budget < LEAST_BUDGET {
                    quoted.left += 1;
                    continue;
                }
                piece = render::message(&entry.message, &entry.body, Showing { budget, ..whole });
            }
            budget = budget.saturating_sub(piece.quoted.chars().count());
            quoted.text.push_str(&piece.quoted);
            quoted.shown.push((entry.message.id, piece.end));
        }
        quoted
    }
}

/// Whether an earlier message of the same sender is in flight: this one waits until that has
/// arrived or timed out.
fn is_behind(entry: &InboxEntry, in_flight: &BTreeMap<PeerId, MessageId>) -> bool {
    in_flight.get(&entry.message.from.peer).is_some_and(|first| *first < entry.message.id)
}

/// Whether a later message of the same sender is shown, and only a push carrier had this one.
fn overtaken(entry: &InboxEntry, carried: &BTreeMap<PeerId, MessageId>) -> bool {
    entry.is_pushed_only() && carried.get(&entry.message.from.peer) > Some(&entry.message.id)
}

/// Appends the line about messages that had no room.
fn push_more(text: &mut String, left: usize) {
    if left > 0 {
        let verb = if left == 1 { "waits" } else { "wait" };
        text.push_str(&format!("{left} more {verb}: check_messages()\n"));
    }
}

fn ids(entries: &[&InboxEntry]) -> String {
    let named: Vec<String> =
        entries.iter().take(REMINDED_MAX).map(|entry| entry.message.id.to_string()).collect();
    named.join(",")
}

#[cfg(test)]
mod carrier_tests;
#[cfg(test)]
mod tests;
