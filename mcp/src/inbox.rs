//! What this session holds, and what of it a model was shown. Pure: no clock, no socket, no task.
//!
//! Knows each delivery the broker pushed, by which carrier it was offered, which characters of it went into which tool
//! result, and whether there is proof. Does not know how anything is sent. The invariants:
//!
//! - Messages are shown in the order of their ids, so that each sender's order is kept; the channel never overtakes one
//!   that still waits for a tool result.
//! - A message is proved by a later call only where its whole body went to the same conversation, in results that had
//!   left before that call was read.
//! - What is proved is never shown again, also where the broker, whose answer was lost, pushes it once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Carrier, Delivery, Evidence, Intent, Message};

use crate::render::{self, BLOCK_CHARS_MAX, Body, EXCERPT_CHARS_MAX, Showing, counted};
use crate::stdio::Call;

/// Messages that the channel may have in flight without proof; the rest goes by tool results.
const CHANNEL_UNPROVED_MAX: usize = 32;

/// Ids that one reminder names.
const REMINDED_MAX: usize = 8;

/// A message is cut, instead of left for the next block, only where it stands first.
const LEAST_BUDGET: usize = 200;

/// The deliveries of this session.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    entries: BTreeMap<MessageId, Entry>,
    arrivals: u64,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    body: Body,
    /// Counts up with each message that was not known before.
    arrival: u64,
    /// The present session has its lease. Entries of an earlier connection are kept for what is known of them.
    held: bool,
    /// The broker says that a model may have seen it.
    shown_before: bool,
    channel: ChannelOffer,
    /// Pieces that went into tool results.
    parts: Vec<Part>,
    proof: Option<Proof>,
}

/// Evidence that is on its way to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The carrier that is proved by it.
    pub(crate) carrier: Carrier,
    /// What was seen.
    pub(crate) evidence: Evidence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelOffer {
    Never,
    /// Pushed, and within its time.
    Open,
    /// Pushed, and its time has passed without evidence.
    Overdue,
}

#[derive(Debug)]
struct Part {
    call: Arc<Call>,
    conversation: Option<String>,
    start: usize,
    end: usize,
}

/// Which conversation made a call, and where the call stands.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The call.
    pub(crate) call: Arc<Call>,
    /// The client's name of the conversation, where it gives one.
    pub(crate) conversation: Option<String>,
}

/// What the broker must be told about a message it has just pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was not known.
    New,
    /// It was offered by an earlier connection, and there is no proof.
    Offered {
        /// By this carrier.
        carrier: Carrier,
        /// No carrier follows it.
        last: bool,
    },
    /// It was proved by an earlier connection; the broker did not confirm that.
    Proved(Proof),
}

/// What a block is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// What an explicit question matched; absent: whatever is due.
    pub(crate) among: Option<&'a [MessageId]>,
    /// Shown whatever became of it before.
    pub(crate) also: Option<MessageId>,
    /// Most messages.
    pub(crate) limit: usize,
    /// Show without offering.
    pub(crate) peek: bool,
    /// Most characters of all messages together.
    pub(crate) budget: usize,
    /// The reader's home directory.
    pub(crate) home: &'a str,
}

impl Ask<'_> {
    /// Whatever is due.
    pub(crate) const DUE: Self =
        Self { among: None, also: None, limit: usize::MAX, peek: false, budget: BLOCK_CHARS_MAX, home: "" };
}

/// What stands at the end of a tool result.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// Whole lines; empty where nothing is to be said.
    pub(crate) text: String,
    /// Messages that it carries and the broker must be told about.
    pub(crate) offered: Vec<MessageId>,
    /// How many messages it shows.
    pub(crate) shown: usize,
}

impl Inbox {
    /// The number that the next unknown message gets: tells what came after a moment.
    pub(crate) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// A new connection to the broker: it pushes again what this session then holds.
    pub(crate) fn begin_session(&mut self) {
        // What even the connection before did not hold any more is settled, or another's.
        self.entries.retain(|_, entry| std::mem::replace(&mut entry.held, false));
    }

    /// The broker pushed this.
    pub(crate) fn deliver(&mut self, delivery: Delivery) -> Known {
        let Delivery { mut message, shown_before, .. } = delivery;
        if let Some(entry) = self.entries.get_mut(&message.id) {
            entry.held = true;
            return match (entry.proof, entry.was_in_result(), entry.channel) {
                (Some(proof), _, _) => Known::Proved(proof),
                (None, true, _) => Known::Offered { carrier: Carrier::ToolResult, last: true },
                (None, false, ChannelOffer::Open | ChannelOffer::Overdue) => {
                    Known::Offered { carrier: Carrier::Channel, last: false }
                }
                (None, false, ChannelOffer::Never) => Known::New,
            };
        }
        let body = Body::new(&message.text);
        // The body stands in for the text: nothing else of it is ever shown.
        message.text = String::new();
        let entry = Entry {
            body,
            arrival: self.arrivals,
            held: true,
            shown_before,
            channel: ChannelOffer::Never,
            parts: Vec::new(),
            proof: None,
            message,
        };
        self.arrivals += 1;
        self.entries.insert(entry.message.id, entry);
        Known::New
    }

    /// The carrier had its time without evidence.
    pub(crate) fn overdue(&mut self, message: MessageId, carrier: Carrier) {
        if let Some(entry) = self.entries.get_mut(&message)
            && carrier == Carrier::Channel
            && entry.channel == ChannelOffer::Open
        {
            entry.channel = ChannelOffer::Overdue;
        }
    }

    /// These are settled, or no longer this session's.
    pub(crate) fn remove(&mut self, messages: &[MessageId]) {
        for message in messages {
            self.entries.remove(message);
        }
    }

    /// What this call proves: it came from a conversation that earlier results showed whole bodies to.
    pub(crate) fn proved_by(&mut self, caller: &Caller) -> Vec<MessageId> {
        let Some(conversation) = caller.conversation.as_deref() else { return Vec::new() };
        let mut proved = Vec::new();
        // Also what a connection that was lost held: the proof outlives it.
        for entry in self.entries.values_mut().filter(|entry| entry.proof.is_none()) {
            let followed = |part: &&Part| {
                part.conversation.as_deref() == Some(conversation) && part.call.counts() && caller.call.follows(&part.call)
            };
            if read_up_to(entry.parts.iter().filter(followed)).is_some_and(|end| end >= entry.body.chars()) {
                entry.proof = Some(Proof { carrier: Carrier::ToolResult, evidence: Evidence::NextCall });
                proved.push(entry.message.id);
            }
        }
        proved
    }

    /// The next message for the channel, now counted as offered by it; `None` where none may go.
    pub(crate) fn next_for_channel(&mut self, home: &str) -> Option<(Message, String)> {
        let in_flight = |entry: &&Entry| entry.is_open() && entry.channel != ChannelOffer::Never;
        if self.entries.values().filter(in_flight).take(CHANNEL_UNPROVED_MAX).count() == CHANNEL_UNPROVED_MAX {
            return None;
        }
        let entry = self.entries.values_mut().find(|entry| entry.is_fresh())?;
        let shown = render::message(&entry.message, &entry.body, entry.showing(home, 0, EXCERPT_CHARS_MAX, BLOCK_CHARS_MAX));
        entry.channel = ChannelOffer::Open;
        Some((entry.message.clone(), shown.quoted))
    }

    /// Whether any of these was in no tool result yet.
    pub(crate) fn any_unseen(&self, messages: &[MessageId]) -> bool {
        messages.iter().any(|message| self.entries.get(message).is_some_and(|entry| entry.is_open() && !entry.was_in_result()))
    }

    /// The first request that arrived at or after `arrival` and was in no tool result yet.
    pub(crate) fn request_since(&self, arrival: u64) -> Option<&Message> {
        let new = |entry: &&Entry| entry.arrival >= arrival && entry.is_open() && !entry.was_in_result();
        self.entries.values().filter(new).map(|entry| &entry.message).find(|message| message.intent == Intent::Request)
    }

    /// All that this session has, oldest first.
    pub(crate) fn open(&self) -> Vec<MessageId> {
        self.entries.values().filter(|entry| entry.is_open()).map(|entry| entry.message.id).collect()
    }

    /// The message of that id, where this session has it.
    pub(crate) fn message(&self, message: MessageId) -> Option<&Message> {
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
            entry.parts.push(Part::new(caller, offset, shown.end));
        }
        Some((shown.quoted, first))
    }

    /// What stands at the end of a result, now counted as carried by it. `waiting` is how many messages the broker says
    /// wait in all; it may know of more than this session holds.
    pub(crate) fn block(&mut self, caller: &Caller, ask: Ask<'_>, waiting: usize) -> Block {
        let held = self.entries.values().filter(|entry| entry.is_open()).count();
        let (mut text, mut offered, mut shown, mut left) = (String::new(), Vec::new(), 0, waiting.saturating_sub(held));
        // Whatever shows a message shows everything earlier from its sender, which only the channel may have had.
        let carried: BTreeMap<PeerId, MessageId> = self
            .entries
            .values()
            .filter(|entry| entry.is_open() && (entry.is_due() || ask.also == Some(entry.message.id)))
            .map(|entry| (entry.message.from.peer, entry.message.id))
            .collect();
        let (mut budget, mut full) = (ask.budget, false);
        for entry in self.entries.values_mut().filter(|entry| entry.is_open()) {
            let id = entry.message.id;
            let wanted = match ask.among {
                None => entry.is_due() || (!entry.was_in_result() && carried.get(&entry.message.from.peer) > Some(&id)),
                Some(matched) => !entry.was_in_result() && matched.contains(&id),
            };
            if !wanted && ask.also != Some(id) {
                left += usize::from(ask.among.is_some() && entry.is_due());
                continue;
            }
            if full || shown == ask.limit {
                // What comes later must not overtake it.
                full = true;
                left += 1;
                continue;
            }
            let whole = entry.showing(ask.home, 0, EXCERPT_CHARS_MAX, BLOCK_CHARS_MAX);
            let mut piece = render::message(&entry.message, &entry.body, whole);
            if piece.quoted.chars().count() > budget {
                if shown > 0 || budget < LEAST_BUDGET {
                    full = true;
                    left += 1;
                    continue;
                }
                piece = render::message(&entry.message, &entry.body, Showing { budget, ..whole });
            }
            budget = budget.saturating_sub(piece.quoted.chars().count());
            text.push_str(&piece.quoted);
            shown += 1;
            if !ask.peek {
                entry.parts.push(Part::new(caller, 0, piece.end));
                offered.push(id);
            }
        }
        if shown > 0 {
            text.insert_str(0, &render::block_head(shown));
        }
        if left > 0 {
            let verb = if left == 1 { "waits" } else { "wait" };
            text.push_str(&format!("{left} more {verb}: check_messages()\n"));
        }
        text.push_str(&self.reminders(&caller.call, ask.among.is_none()));
        Block { text, offered, shown }
    }

    /// One line about what other results or the channel carried and nobody confirmed, without its text.
    fn reminders(&self, now: &Arc<Call>, name_pushed: bool) -> String {
        let mut text = String::new();
        let open = || self.entries.values().filter(|entry| entry.is_open());
        let earlier = |entry: &&Entry| entry.was_in_result() && !entry.parts.iter().any(|part| Arc::ptr_eq(&part.call, now));
        let (whole, cut): (Vec<&Entry>, Vec<&Entry>) = open().filter(earlier).partition(|entry| entry.was_shown_whole());
        if !whole.is_empty() {
            let verb = if whole.len() == 1 { "is" } else { "are" };
            text.push_str(&format!(
                "{} shown before {verb} not confirmed; when dealt with: ack_messages(\"{}\")\n",
                counted(whole.len(), "message"),
                ids(&whole)
            ));
        }
        if let Some(first) = cut.first() {
            let end = read_up_to(first.parts.iter().filter(|part| part.call.counts())).unwrap_or(0);
            text.push_str(&format!(
                "{} shown before in part: check_messages(message_id=\"{}\", offset={end})\n",
                counted(cut.len(), "message"),
                first.message.id
            ));
        }
        let pushed: Vec<&Entry> = open().filter(|entry| entry.channel == ChannelOffer::Open && !entry.was_in_result()).collect();
        if name_pushed && !pushed.is_empty() {
            text.push_str(&format!(
                "{} came through the channel: {}; check_messages() shows them here\n",
                counted(pushed.len(), "message"),
                ids(&pushed)
            ));
        }
        text
    }
}

impl Entry {
    /// This session holds it, and it is not settled.
    fn is_open(&self) -> bool {
        self.held && self.proof.is_none()
    }

    fn was_in_result(&self) -> bool {
        self.parts.iter().any(|part| part.call.counts())
    }

    fn was_shown_whole(&self) -> bool {
        read_up_to(self.parts.iter().filter(|part| part.call.counts())).is_some_and(|end| end >= self.body.chars())
    }

    /// No carrier had it.
    fn is_fresh(&self) -> bool {
        self.is_open() && self.channel == ChannelOffer::Never && !self.was_in_result()
    }

    /// A result must carry it unasked.
    fn is_due(&self) -> bool {
        !self.was_in_result() && self.channel != ChannelOffer::Open
    }

    fn showing<'a>(&self, home: &'a str, offset: usize, chars_max: usize, budget: usize) -> Showing<'a> {
        let shown_before = self.shown_before || self.channel != ChannelOffer::Never || self.was_in_result();
        Showing { shown_before: shown_before && offset == 0, home, offset, chars_max, budget }
    }
}

impl Part {
    fn new(caller: &Caller, start: usize, end: usize) -> Self {
        Self { call: Arc::clone(&caller.call), conversation: caller.conversation.clone(), start, end }
    }
}

/// How far these parts reach without a gap from the beginning; `None` where there is no part at all.
fn read_up_to<'a>(parts: impl Iterator<Item = &'a Part>) -> Option<usize> {
    let mut spans: Vec<(usize, usize)> = parts.map(|part| (part.start, part.end)).collect();
    spans.sort_unstable();
    let mut reached = None;
    for (start, end) in spans {
        if start > reached.unwrap_or(0) {
            break;
        }
        reached = Some(reached.unwrap_or(0).max(end));
    }
    reached
}

fn ids(entries: &[&Entry]) -> String {
    let named: Vec<String> = entries.iter().take(REMINDED_MAX).map(|entry| entry.message.id.to_string()).collect();
    named.join(",")
}

#[cfg(test)]
mod tests;
