//! What this session holds, and what of it a model was shown. Pure: no clock, no socket, no task.
//!
//! Knows each delivery the broker pushed, by which carrier it was offered, which characters of it went where, and whether
//! there is proof. Does not know how anything is sent, nor which carriers there are now. The invariants:
//!
//! - Messages are shown in the order of their ids, so that each sender's order is kept; what is pushed never overtakes one
//!   that still waits for a tool result.
//! - A message is given to one carrier at a time: to the next one only after the last one had its time, or could not. One
//!   message alone is on trial with a push carrier that was not proved, and goes with what the client calls as well.
//! - A message is proved by a later call or event only where its whole body went to the same conversation before it.
//! - What is proved is never shown again, also where the broker, whose answer was lost, pushes it once more.
//! - What another adapter of this client may have shown goes with what the client calls. No push carrier has it before that
//!   had its time, and what is new does not wait for it.

mod entry;
mod events;
mod push;
mod terms;

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::hook::HookEvent;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Carrier, Delivery, Evidence, Intent, Message};

use crate::call::{CallId, Caller};
use crate::render::{self, BLOCK_CHARS_MAX, Body, EXCERPT_CHARS_MAX, Showing, counted};

pub use terms::{Ask, Block, Known, Post, Proof, Seen};

use entry::{Entry, Hooked, Moment, Part, Standing, read_up_to};
use terms::Quoted;

/// Messages whose replies are remembered, to tell a first reply from later ones.
const ANSWERED_MAX: usize = 1_024;

/// Ids that one reminder names.
const REMINDED_MAX: usize = 8;

/// A message is cut, instead of left for the next block, only where it stands first.
const LEAST_BUDGET: usize = 200;

/// The deliveries of this session.
#[derive(Debug, Default)]
pub struct Inbox {
    entries: BTreeMap<MessageId, Entry>,
    arrivals: u64,
    /// Messages that were replied to in this session's hearing.
    answered: BTreeSet<MessageId>,
    /// Events of the main conversation that hooks told of.
    events: u64,
    /// Times that the model was about to be asked, or had ended its turn, as hooks told of them.
    rounds: u64,
    /// Hooks tell when all tools of one message have run.
    tells_batches: bool,
    /// A result that left need not have been shown.
    record_alone: bool,
    /// The client's record tells what the model was shown.
    record_speaks: bool,
    /// Messages that were proved, in all.
    proofs: u64,
    /// Whether a turn runs, as hooks told; none before any told of one in this conversation.
    runs: Option<bool>,
    /// Where in the conversation the last event was.
    moment: Moment,
    /// What the broker pushes as a repeat may have been shown in this client.
    repeats_here: bool,
}

impl Inbox {
    /// The number that the next unknown message gets: tells what came after a moment.
    pub fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// A new connection to the broker: it pushes again what this session then holds.
    pub(crate) fn begin_session(&mut self) {
        // What even the connection before did not hold any more is settled, or another's.
        self.entries.retain(|_, entry| std::mem::replace(&mut entry.held, false));
    }

    /// Whether what the broker pushes as a repeat may have been shown in this very client: by another adapter of it, or by this
    /// one on an earlier connection.
    pub(crate) fn note_repeats(&mut self, here: bool) {
        self.repeats_here = here;
    }

    /// See [`Inbox::note_repeats`].
    pub(crate) fn repeats_here(&self) -> bool {
        self.repeats_here
    }

    /// The broker pushed this. `hooks_come`: hooks of the client follow a tool result.
    pub(crate) fn deliver(&mut self, delivery: Delivery, hooks_come: bool) -> Known {
        let Delivery { mut message, shown_before, .. } = delivery;
        if let Some(entry) = self.entries.get_mut(&message.id) {
            entry.held = true;
            return entry.known(hooks_come);
        }
        let body = Body::new(&message.text);
        // The body stands in for the text: nothing else of it is ever shown.
        message.text = String::new();
        let first_reply = message.reply_to.is_some_and(|answered| self.answered.insert(answered));
        if self.answered.len() > ANSWERED_MAX {
            self.answered.pop_first();
        }
        let with_client = shown_before && self.repeats_here;
        let entry = Entry { with_client, first_reply, ..Entry::new(message, body, self.arrivals, shown_before) };
        self.entries.insert(entry.id(), entry);
        self.arrivals += 1;
        Known::New
    }

    /// The carrier had its time without evidence. Returns whether that speaks against the carrier: what the client declined
    /// was taken back, of a long message the beginning may have arrived, and another adapter may have had it.
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

    /// The client goes on with another conversation, such as after `/clear`: what was given to the last one and is not proved
    /// goes all its ways once more, as a repeat, and nothing that happens from now on proves what the last one was given.
    pub(crate) fn leave_conversation(&mut self) {
        // No hook tells of the end of a turn that was broken off.
        self.runs = None;
        for entry in self.entries.values_mut().filter(|entry| entry.proof.is_none()) {
            entry.leave_conversation();
        }
    }

    /// These are settled, or no longer this session's.
    pub(crate) fn remove(&mut self, messages: &[MessageId]) {
        for message in messages {
            self.entries.remove(message);
        }
    }

    // ---- evidence

    /// What this client does next does not prove what a result carried; its record does. It runs the calls of one answer one
    /// after the other, and a program that the model wrote may have made them and kept their results to itself.
    pub(crate) fn trust_record_alone(&mut self) {
        self.record_alone = true;
    }

    /// Whether the client's record tells what the model was shown. Then no event does: a client drops a hook's output without
    /// a word, such as where another hook refuses the prompt, and goes on as ever.
    pub(crate) fn note_record(&mut self, speaks: bool) {
        self.record_speaks = speaks;
    }

    /// What this call proves: it came from a conversation that earlier results showed whole bodies to.
    pub(crate) fn proved_by(&mut self, caller: &Caller) -> Vec<MessageId> {
        let Some(conversation) = caller.conversation.as_deref().filter(|_| !self.record_alone) else { return Vec::new() };
        self.prove(|entry| {
            let followed =
                |part: &&Part| part.conversation.as_deref() == Some(conversation) && part.counts() && part.left_before(caller);
            let whole = read_up_to(entry.parts.iter().filter(followed)).is_some_and(|end| end >= entry.body.chars());
            whole.then_some(Proof { carrier: Carrier::ToolResult, evidence: Evidence::NextCall })
        })
        .into_iter()
        .map(|(message, _)| message)
        .collect()
    }

    /// The client's own record shows that the model was asked with these in front of it. Tells what is proved whole by that.
    pub(crate) fn recorded(&mut self, seen: &[Seen]) -> Vec<(MessageId, Proof)> {
        for seen in seen {
            if let Some(entry) = self.entries.get_mut(&seen.message) {
                entry.note_recorded(&seen.piece, seen.in_result);
            }
        }
        self.prove(|entry| {
            let last = seen.iter().rfind(|seen| seen.message == entry.id()).filter(|_| entry.is_recorded_whole())?;
            let carrier = last.by.filter(|carrier| entry.went_by(*carrier)).or_else(|| entry.last_carrier())?;
            Some(Proof { carrier, evidence: Evidence::Transcript })
        })
    }

    /// The push carriers that brought any of these, and are proved to work by that, also where a long message is not.
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

    /// Messages that a carrier was given and that nothing proves: what is looked for in the client's own record.
    pub fn unproved(&self) -> Vec<MessageId> {
        let given = |entry: &&Entry| entry.proof.is_none() && entry.last_carrier().is_some();
        self.entries.values().filter(given).map(Entry::id).collect()
    }

    /// Messages that nothing proves, given to a carrier or not.
    pub fn unsettled(&self) -> Vec<MessageId> {
        self.entries.values().filter(|entry| entry.proof.is_none()).map(Entry::id).collect()
    }

    /// Whether the next result would show anything unasked.
    pub fn is_any_due(&self) -> bool {
        let in_flight = self.in_flight();
        self.entries.values().any(|entry| entry.is_open() && entry.is_due_in_result() && !is_behind(entry, &in_flight))
    }

    /// Whether the next result or hook may show what a push carrier had, and what the model may have seen by that.
    pub fn would_repeat_push(&self) -> bool {
        // The record says nothing yet of what the next request will have.
        let may_be_recorded = |entry: &Entry| match entry.standing() {
            Standing::Overdue => true,
            Standing::OnTrial => entry.pushes.iter().all(|push| push.round < self.rounds),
            Standing::Fresh | Standing::Open => false,
        };
        self.entries.values().any(|entry| entry.is_open() && entry.is_pushed_only() && may_be_recorded(entry))
    }

    /// The client showed an event: what it was given so far, of `among` where that is given, its model may have been asked
    /// with. Returns of which messages that is news. `held_up`: what a push has chosen and not let go yet.
    pub(crate) fn newly_tried(&mut self, among: Option<&[MessageId]>, held_up: &[MessageId]) -> Vec<MessageId> {
        let given = |entry: &&mut Entry| {
            let is_meant = among.is_none_or(|among| among.contains(&entry.message.id));
            let is_with_client = || !entry.is_pushed_once_only() || !held_up.contains(&entry.message.id);
            is_meant && entry.is_open() && !entry.tried && entry.last_carrier().is_some() && is_with_client()
        };
        let mut tried = Vec::new();
        for entry in self.entries.values_mut().filter(given) {
            entry.tried = true;
            tried.push(entry.message.id);
        }
        tried
    }

    /// Whether anything was given to the client of which the broker does not know yet that the model was shown it.
    pub fn is_any_given(&self) -> bool {
        self.entries.values().any(|entry| entry.held && entry.last_carrier().is_some())
    }

    /// Notes proofs. Also for what a connection that was lost held: the proof outlives it.
    fn prove(&mut self, proof: impl Fn(&Entry) -> Option<Proof>) -> Vec<(MessageId, Proof)> {
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

    /// How many messages were proved so far: tells what a count of the broker's no longer has.
    pub fn proofs(&self) -> u64 {
        self.proofs
    }

    // ---- hooks

    /// What a hook's output shall carry, now counted as carried by it. Where the model would rest after this event, only
    /// what may end its rest is carried, with everything earlier.
    pub(crate) fn hook_block(&mut self, event: HookEvent, budget: usize, home: &str) -> Block {
        let round = self.rounds;
        let in_flight = self.in_flight();
        let due = |entry: &Entry| entry.is_open() && entry.is_due_in_hook(round) && !is_behind(entry, &in_flight);
        if event == HookEvent::Stop && !self.entries.values().any(|entry| due(entry) && entry.may_wake()) {
            return Block::default();
        }
        // Whatever shows a message shows everything earlier from its sender, which only a push carrier may have had.
        let carried = self.latest_by_sender(due);
        let wanted = |entry: &Entry| entry.is_open() && (due(entry) || overtaken(entry, &carried));
        let quoted = self.quote(wanted, usize::MAX, budget, home);
        if quoted.shown.is_empty() {
            return Block::default();
        }
        let (number, moment) = (self.events, self.moment.clone());
        for (message, end) in &quoted.shown {
            if let Some(entry) = self.entries.get_mut(message) {
                entry.hooks.push(Hooked { event, number, moment: moment.clone(), round, end: *end, overdue: false });
            }
        }
        let mut text = render::block_head(quoted.shown.len());
        text.push_str(&quoted.text);
        push_more(&mut text, quoted.left);
        let offered: Vec<MessageId> = quoted.shown.iter().map(|(message, _)| *message).collect();
        Block { text, shown: offered.len(), offered }
    }

    /// Whether a tool result carries mail that the model has not been asked with yet, as far as is known. A client that puts
    /// the text of a call's hook before its result would show what came last first.
    pub(crate) fn is_result_under_way(&self) -> bool {
        let is_unseen = |entry: &Entry, part: &Part| {
            let may_be = if self.record_speaks {
                !entry.recorded.contains(&(part.start, part.end)) && !entry.result_overdue
            } else {
                // This very event is the first since.
                part.events + 1 >= self.events
            };
            may_be && part.counts() && self.moment.continues(&part.moment)
        };
        self.entries.values().any(|entry| entry.is_open() && entry.parts.iter().any(|part| is_unseen(entry, part)))
    }

    /// Nobody knows whether the hook had its output: it proves nothing, and what shows these next says that it is a repeat.
    pub(crate) fn doubt_hook(&mut self, messages: &[MessageId]) {
        for message in messages {
            if let Some(entry) = self.entries.get_mut(message) {
                entry.hooks.pop();
                entry.shown_before = true;
            }
        }
    }

    /// The hook was gone before it had its output.
    pub(crate) fn take_back_hook(&mut self, messages: &[MessageId]) {
        for message in messages {
            if let Some(entry) = self.entries.get_mut(message) {
                entry.hooks.pop();
            }
        }
    }

    // ---- tool results

    /// The result of this call is queued, and ends at that byte of all that the client is sent.
    pub(crate) fn result_queued(&mut self, call: CallId, end: u64) {
        for part in self.parts_of(call) {
            // Only a defective client uses an id twice; the first answer counts then.
            part.result_end.get_or_insert(end);
        }
    }

    /// The client wants no result of this call: what it would have carried was shown to nobody.
    pub(crate) fn call_dropped(&mut self, call: CallId) {
        self.parts_of(call).for_each(|part| part.is_dropped = true);
    }

    fn parts_of(&mut self, call: CallId) -> impl Iterator<Item = &mut Part> {
        self.entries.values_mut().flat_map(|entry| &mut entry.parts).filter(move |part| part.call == call)
    }

    /// Whether any of these was in no tool result yet.
    pub fn any_unseen(&self, messages: &[MessageId]) -> bool {
        messages.iter().any(|message| self.entries.get(message).is_some_and(|entry| entry.is_open() && !entry.was_in_result()))
    }

    /// The first request that arrived at or after `arrival` and was in no tool result yet.
    pub fn request_since(&self, arrival: u64) -> Option<&Message> {
        let new = |entry: &&Entry| entry.arrival >= arrival && entry.is_open() && !entry.was_in_result();
        self.entries.values().filter(new).map(|entry| &entry.message).find(|message| message.intent == Intent::Request)
    }

    /// All that this session has, oldest first.
    pub fn open(&self) -> Vec<MessageId> {
        self.entries.values().filter(|entry| entry.is_open()).map(Entry::id).collect()
    }

    /// The message of that id, where this session has it.
    pub fn message(&self, message: MessageId) -> Option<&Message> {
        self.entries.get(&message).filter(|entry| entry.is_open()).map(|entry| &entry.message)
    }

    /// A part of one message's body from `offset`, and whether the broker must be told that it was offered.
    pub(crate) fn part(
        &mut self,
        message: MessageId,
        offset: usize,
        peek: bool,
        home: &str,
        caller: &Caller,
    ) -> Option<(String, bool)> {
        let entry = self.entries.get_mut(&message).filter(|entry| entry.is_open())?;
        let shown = render::message(&entry.message, &entry.body, entry.showing(home, offset, usize::MAX, BLOCK_CHARS_MAX));
        let first = !peek && !entry.was_in_result();
        if !peek {
            entry.parts.push(Part::new(caller, (self.events, &self.moment), offset, shown.end));
        }
        Some((shown.quoted, first))
    }

    /// What stands at the end of a result, now counted as carried by it. `waiting` is how many messages the broker says
    /// wait in all; it may know of more than this session holds.
    pub(crate) fn block(&mut self, caller: &Caller, ask: Ask<'_>, waiting: usize) -> Block {
        let held = self.entries.values().filter(|entry| entry.is_open()).count();
        let also = |entry: &Entry| ask.also == Some(entry.id());
        // Whatever shows a message shows everything earlier from its sender, which only a push carrier may have had.
        let in_flight = self.in_flight();
        let due = |entry: &Entry| entry.is_due_in_result() && !is_behind(entry, &in_flight);
        let carried = self.latest_by_sender(|entry| entry.is_open() && (due(entry) || also(entry)));
        let wanted = |entry: &Entry| {
            let matched = match ask.among {
                None => due(entry) || overtaken(entry, &carried),
                Some(matched) => !entry.was_in_result() && matched.contains(&entry.id()),
            };
            entry.is_open() && (matched || also(entry))
        };
        let unasked = |entry: &&Entry| entry.is_open() && ask.among.is_some() && entry.is_due_in_result() && !wanted(entry);
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

    /// One line about what a result, a hook or a push carried and nobody confirmed, without its text.
    fn reminders(&self, now: CallId, name_pushed: bool) -> String {
        let mut text = String::new();
        let open = || self.entries.values().filter(|entry| entry.is_open());
        let earlier = |entry: &&Entry| entry.was_in_result() && !entry.parts.iter().any(|part| part.call == now);
        let (whole, cut): (Vec<&Entry>, Vec<&Entry>) = open().filter(earlier).partition(|entry| entry.was_in_result_whole());
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
        let with_other = |entry: &&Entry| entry.standing() == Standing::Open && !entry.was_in_result();
        let (hooked, pushed): (Vec<&Entry>, Vec<&Entry>) = open().filter(with_other).partition(|entry| !entry.is_pushed_only());
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

    /// What the model knows the push carrier as.
    fn way(&self) -> &'static str {
        let carriers = || self.entries.values().filter_map(|entry| entry.pushes.last()).map(|push| push.carrier);
        if carriers().all(|carrier| carrier == Carrier::Channel) { "the channel" } else { "a push" }
    }

    // ---- shared

    /// The first message of each sender that a push carrier which works has, and nothing else had: the model is about to be
    /// asked with it, so what the sender wrote after it must come after it.
    fn in_flight(&self) -> BTreeMap<PeerId, MessageId> {
        let mut first = BTreeMap::new();
        let pushed = |entry: &&Entry| entry.is_open() && entry.is_pushed_only() && entry.standing() == Standing::Open;
        for entry in self.entries.values().filter(pushed) {
            first.entry(entry.message.from.peer).or_insert(entry.message.id);
        }
        first
    }

    /// The last message of each sender among these.
    fn latest_by_sender(&self, among: impl Fn(&Entry) -> bool) -> BTreeMap<PeerId, MessageId> {
        let chosen = self.entries.values().filter(|entry| among(entry));
        chosen.map(|entry| (entry.message.from.peer, entry.message.id)).collect()
    }

    /// The wanted messages, oldest first, as far as there is room. What comes later never overtakes what has none.
    fn quote(&self, wanted: impl Fn(&Entry) -> bool, limit: usize, mut budget: usize, home: &str) -> Quoted {
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

/// Something earlier from the same sender is in flight: this waits until it has arrived, or had its time.
fn is_behind(entry: &Entry, in_flight: &BTreeMap<PeerId, MessageId>) -> bool {
    in_flight.get(&entry.message.from.peer).is_some_and(|first| *first < entry.message.id)
}

/// Something later from the same sender is shown, and this only a push carrier had.
fn overtaken(entry: &Entry, carried: &BTreeMap<PeerId, MessageId>) -> bool {
    entry.is_pushed_only() && carried.get(&entry.message.from.peer) > Some(&entry.message.id)
}

/// The line about what had no room.
fn push_more(text: &mut String, left: usize) {
    if left > 0 {
        let verb = if left == 1 { "waits" } else { "wait" };
        text.push_str(&format!("{left} more {verb}: check_messages()\n"));
    }
}

fn ids(entries: &[&Entry]) -> String {
    let named: Vec<String> = entries.iter().take(REMINDED_MAX).map(|entry| entry.message.id.to_string()).collect();
    named.join(",")
}

#[cfg(test)]
mod carrier_tests;
#[cfg(test)]
mod tests;
