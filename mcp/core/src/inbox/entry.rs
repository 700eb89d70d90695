//! One message of this session: the carriers that it was given to, and how far the model was shown
//! it.
//!
//! Knows what each carrier had of one message. Does not know other messages, nor the time.
//! Invariant: only evidence settles an entry.

use peer_proto::hook::HookEvent;
use peer_proto::ids::MessageId;
use peer_proto::message::{Carrier, Intent, Kind, Message};

use super::{Known, Proof};
use crate::call::{CallId, CallOrigin};
use crate::render::{Body, Showing};

/// The number of hooks that show one message before it is only mentioned in a reminder.
const HOOKED_MAX: usize = 2;

/// A message that the broker pushed.
#[derive(Debug)]
pub(super) struct InboxEntry {
    /// The message. Its text is empty: the body replaces it.
    pub(super) message: Message,
    pub(super) body: Body,
    /// The arrival number, which grows with each new message.
    pub(super) arrival: u64,
    /// Whether the current session has its lease. Entries of an earlier connection stay for what is
    /// known of them.
    pub(super) held: bool,
    /// Whether the broker marked it as possibly seen by a model.
    pub(super) shown_before: bool,
    /// Whether another adapter of this client may have given it to the model, and that offer has
    /// not timed out. No push carrier gets it; the next hook or tool result carries it.
    pub(super) with_client: bool,
    /// Whether it is the first reply to a message.
    pub(super) first_reply: bool,
    /// Push carriers that were given it, oldest first.
    pub(super) pushes: Vec<Pushed>,
    /// Hooks whose output carried it, oldest first.
    pub(super) hooks: Vec<Hooked>,
    /// Pieces that went into tool results.
    pub(super) parts: Vec<Part>,
    /// Whether a tool result carried it and timed out.
    pub(super) result_overdue: bool,
    /// The characters that the model was shown according to the client's record.
    pub(super) recorded: Vec<(usize, usize)>,
    pub(super) proof: Option<Proof>,
    /// Whether the client showed an event since a carrier was given it, and the broker was told so.
    pub(super) tried: bool,
}

/// One push of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pushed {
    pub(super) carrier: Carrier,
    /// The end of the part of the body that went.
    pub(super) end: usize,
    /// Whether it timed out without evidence, or the carrier could not be used.
    pub(super) overdue: bool,
    /// Whether the model was shown the part that went, if that was not the whole body.
    pub(super) arrived: bool,
    /// [`Inbox::rounds`](super::Inbox) at that time.
    pub(super) round: u64,
    /// Whether the carrier was unproved then: the next hook or tool result carries the message too.
    pub(super) trial: bool,
}

/// A hook's output that carried a message.
#[derive(Clone, Debug)]
pub(super) struct Hooked {
    pub(super) event: HookEvent,
    /// The number of the session's event.
    pub(super) number: u64,
    /// The position in the conversation.
    pub(super) moment: Moment,
    /// [`Inbox::rounds`](super::Inbox) at that time.
    pub(super) round: u64,
    /// The end of the part of the body that went.
    pub(super) end: usize,
    /// Whether it timed out without evidence, or the hook had ended.
    pub(super) overdue: bool,
}

/// A position in the conversation, as hooks report it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// The client's name of the turn.
    pub(super) turn: Option<String>,
    /// The number of prompts so far.
    pub(super) prompts: u64,
    /// How often the session began, was resumed, was compacted, or lost the order of its events
    /// ([`Inbox::lose_order`](super::Inbox::lose_order)).
    pub(super) starts: u64,
    /// Whether it is the prompt that begins the turn: another prompt may be refused while the turn
    /// goes on.
    pub(super) opens: bool,
}

/// A piece of a body in a tool result.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) call: CallId,
    /// The end of its result in the output to the client, once that is queued.
    pub(super) result_end: Option<u64>,
    /// Whether its result will never be sent, because the client cancelled the call.
    pub(super) is_dropped: bool,
    /// The position in the conversation at that time, from hooks only.
    pub(super) moment: Moment,
    /// The number of events of the main conversation before it.
    pub(super) events: u64,
    /// Whether the turn of its call has ended without an interruption.
    pub(super) is_past: bool,
    pub(super) conversation: Option<String>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The state of a message with its carriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No carrier had it.
    Fresh,
    /// A carrier has it, and has not timed out.
    Open,
    /// An unproved push carrier has it: the next hook or tool result carries it too, at once.
    OnTrial,
    /// Each carrier that had it has timed out.
    Overdue,
}

impl InboxEntry {
    pub(super) fn new(message: Message, body: Body, arrival: u64, shown_before: bool) -> Self {
        Self {
            message,
            body,
            arrival,
            held: true,
            shown_before,
            with_client: false,
            first_reply: false,
            pushes: Vec::new(),
            hooks: Vec::new(),
            parts: Vec::new(),
            result_overdue: false,
            recorded: Vec::new(),
            proof: None,
            tried: false,
        }
    }

    /// Handles the end of the conversation that it was given to.
    pub(super) fn leave_conversation(&mut self) {
        self.shown_before |= self.standing() != Standing::Fresh;
        self.with_client = false;
        self.pushes.clear();
        self.hooks.clear();
        self.parts.clear();
        self.recorded.clear();
        self.result_overdue = false;
    }

    /// Handles the removal of this message from the record by the client. It goes to all carriers
    /// once more, as a repeat. `by`: the carrier that had brought it, if it is known. Returns
    /// whether any carrier had brought it.
    pub(super) fn withdraw(&mut self, by: Option<Carrier>) -> bool {
        let by = by.filter(|carrier| self.went_by(*carrier)).or_else(|| self.last_carrier());
        match by {
            // Another adapter may have brought it; the broker marked it as a repeat in that case.
            None | Some(Carrier::Peerctl) => return std::mem::take(&mut self.with_client),
            Some(Carrier::Hook) => self.hooks.clear(),
            Some(Carrier::ToolResult) => {
                self.parts.clear();
                self.result_overdue = false;
            }
            Some(carrier) => self.pushes.retain(|push| push.carrier != carrier),
        }
        self.shown_before = true;
        true
    }

    /// Whether the last hook that carried it was a prompt's, and carried the whole of it. Once
    /// another prompt begins, it is unknown whether that prompt was accepted.
    pub(super) fn rode_on_a_prompt(&self) -> bool {
        let last = self.hooks.last();
        last.is_some_and(|hook| {
            hook.event == HookEvent::UserPromptSubmit && hook.end >= self.body.chars()
        })
    }

    /// Whether this session holds it, and it is not settled.
    pub(super) fn is_open(&self) -> bool {
        self.held && self.proof.is_none()
    }

    pub(super) fn was_in_result(&self) -> bool {
        self.parts.iter().any(|part| part.counts())
    }

    pub(super) fn was_in_result_whole(&self) -> bool {
        read_up_to(self.parts.iter().filter(|part| part.counts()))
            .is_some_and(|end| end >= self.body.chars())
    }

    /// Whether a push carrier has it, and no hook or tool result had it.
    pub(super) fn is_pushed_only(&self) -> bool {
        !self.pushes.is_empty() && self.hooks.is_empty() && !self.was_in_result()
    }

    /// Whether one push is the only offer of it.
    pub(super) fn is_pushed_once_only(&self) -> bool {
        self.is_pushed_only() && self.pushes.len() == 1
    }

    /// Whether an unproved push carrier has it, and has not timed out.
    pub(super) fn is_on_trial(&self) -> bool {
        self.pushes.iter().any(|push| push.trial && !push.overdue)
    }

    pub(super) fn standing(&self) -> Standing {
        let with_push = self.pushes.iter().any(|push| !push.overdue && !push.trial);
        let with_hook = self.hooks.iter().any(|hook| !hook.overdue);
        let in_result = self.was_in_result();
        if with_push || with_hook || (in_result && !self.result_overdue) {
            Standing::Open
        } else if self.is_on_trial() {
            Standing::OnTrial
        } else if in_result || !self.pushes.is_empty() || !self.hooks.is_empty() {
            Standing::Overdue
        } else {
            Standing::Fresh
        }
    }

    /// Whether it may wake an idle session. A post to a `#channel` never does; mail to a `@group`
    /// may.
    pub(super) fn may_wake(&self) -> bool {
        let in_channel = self.message.channel.as_ref().is_some_and(|name| name.starts_with('#'));
        let said_there = in_channel && self.message.kind != Kind::Notice;
        !said_there && (self.message.intent == Intent::Request || self.first_reply)
    }

    /// Whether a tool result must carry it without a filter.
    pub(super) fn is_due_in_result(&self) -> bool {
        !self.was_in_result() && self.standing() != Standing::Open
    }

    /// Whether a hook's output must carry it. `round` is the current round. A message that went to
    /// a working socket is in the very next request. So one round must pass before missing evidence
    /// means anything. A carrier on trial is not waited for, nor a channel, which most sessions do
    /// not have.
    pub(super) fn is_due_in_hook(&self, round: u64) -> bool {
        match self.standing() {
            Standing::Fresh => true,
            Standing::Open => false,
            Standing::OnTrial => self.hooks.len() < HOOKED_MAX,
            Standing::Overdue => {
                let had_its_round = |push: &Pushed| {
                    push.trial || push.carrier == Carrier::Channel || round >= push.round + 2
                };
                self.hooks.len() < HOOKED_MAX && self.pushes.iter().all(had_its_round)
            }
        }
    }

    /// Whether a push carrier may be given it.
    pub(super) fn is_due_by(&self, carrier: Carrier) -> bool {
        let unseen = self.is_open() && self.hooks.is_empty() && !self.was_in_result();
        let is_free =
            !self.with_client && matches!(self.standing(), Standing::Fresh | Standing::Overdue);
        unseen && is_free && self.pushes.iter().all(|push| push.carrier != carrier)
    }

    /// Applies a piece that the client's record shows. The piece counts if it is equal to one that
    /// some carrier was given.
    pub(super) fn mark_recorded(&mut self, piece: &str, in_result: bool) {
        let pushed = self.pushes.iter().map(|push| (0, push.end));
        let hooked = self.hooks.iter().map(|hook| (0, hook.end));
        // Only a tool's result contains a piece that was given with one.
        let parts = self
            .parts
            .iter()
            .filter(|part| in_result && part.counts())
            .map(|part| (part.start, part.end));
        // Equal parts are told apart by counting.
        let is_it = |span: &(usize, usize)| {
            !self.recorded.contains(span) && self.body.is_piece(span.0, span.1, piece)
        };
        let found = parts.chain(pushed).chain(hooked).find(is_it);
        self.recorded.extend(found);
    }

    /// Whether the client's record shows the whole of it.
    pub(super) fn is_recorded_whole(&self) -> bool {
        reached(self.recorded.iter().copied()).is_some_and(|end| end >= self.body.chars())
    }

    /// Whether this carrier was given any of it.
    pub(super) fn went_by(&self, carrier: Carrier) -> bool {
        match carrier {
            Carrier::ToolResult => self.was_in_result(),
            Carrier::Hook => !self.hooks.is_empty(),
            Carrier::Channel | Carrier::InboxSocket | Carrier::AppServer => {
                self.pushes.iter().any(|push| push.carrier == carrier)
            }
            Carrier::Peerctl => false,
        }
    }

    /// Returns the carrier that was given it last.
    pub(super) fn last_carrier(&self) -> Option<Carrier> {
        if self.was_in_result() {
            Some(Carrier::ToolResult)
        } else if self.hooks.is_empty() {
            self.pushes.last().map(|push| push.carrier)
        } else {
            Some(Carrier::Hook)
        }
    }

    /// Returns what the broker must be told when it pushes this again.
    pub(super) fn known(&self, hooks_come: bool) -> Known {
        match (self.proof, self.last_carrier()) {
            (Some(proof), _) => Known::Proved(proof),
            (None, None) => Known::New,
            (None, Some(carrier)) => {
                let last = carrier == Carrier::ToolResult && !hooks_come;
                Known::Offered { carrier, last, tried: self.tried }
            }
        }
    }

    pub(super) fn showing<'a>(
        &self,
        home: &'a str,
        offset: usize,
        chars_max: usize,
        budget: usize,
    ) -> Showing<'a> {
        let shown_before = self.shown_before || self.standing() != Standing::Fresh;
        Showing { shown_before: shown_before && offset == 0, home, offset, chars_max, budget }
    }

    pub(super) fn id(&self) -> MessageId {
        self.message.id
    }
}

impl Part {
    pub(super) fn new(
        caller: &CallOrigin,
        (events, moment): (u64, &Moment),
        start: usize,
        end: usize,
    ) -> Self {
        let (call, conversation, moment) =
            (caller.call, caller.conversation.clone(), moment.clone());
        Self {
            call,
            result_end: None,
            is_dropped: false,
            conversation,
            moment,
            events,
            is_past: false,
            start,
            end,
        }
    }

    /// Whether the result was sent, or may still be sent.
    pub(super) fn counts(&self) -> bool {
        !self.is_dropped
    }

    /// Whether the result had left before that call was read. Of two overlapping calls, neither
    /// follows the other.
    pub(super) fn left_before(&self, caller: &CallOrigin) -> bool {
        self.result_end.is_some_and(|end| end <= caller.written_before)
    }
}

impl Moment {
    /// Whether this position is in the same turn as an earlier one, with no event in between that
    /// may have removed its text. If the client does not name its turns: no prompt came since.
    pub(super) fn continues(&self, earlier: &Self) -> bool {
        let is_same = match (&earlier.turn, &self.turn) {
            (Some(earlier), Some(now)) => earlier == now,
            _ => earlier.prompts == self.prompts,
        };
        is_same && earlier.starts == self.starts
    }

    /// Whether this position is in the turn of the first prompt since the session began at that
    /// earlier position.
    pub(super) fn is_first_since(&self, earlier: &Self) -> bool {
        self.prompts == earlier.prompts + 1 && self.starts == earlier.starts
    }
}

/// Returns how far these parts reach without a gap from the beginning; `None`: there is no part.
pub(super) fn read_up_to<'a>(parts: impl Iterator<Item = &'a Part>) -> Option<usize> {
    reached(parts.map(|part| (part.start, part.end)))
}

/// Returns how far these spans reach without a gap from the beginning.
fn reached(spans: impl Iterator<Item = (usize, usize)>) -> Option<usize> {
    let mut spans: Vec<(usize, usize)> = spans.collect();
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
