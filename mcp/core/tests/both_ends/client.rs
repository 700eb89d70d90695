//! A client program as the adapter meets it: its model, its hooks, its record, and what it does
//! with what it is given.
//!
//! It knows what its model was really asked with. The adapter is told only what a real client would
//! let it see. A text counts as seen when the model has answered a request that had it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use peer_mcp_core::ClientKind;
use peer_mcp_core::call::CallId;
use peer_mcp_core::inbox::Seen;
use peer_mcp_core::render::QUOTE;
use peer_proto::hook::HookEvent;
use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;

/// A text that stands in front of the model, and how it came there.
#[derive(Clone, Debug)]
pub struct Piece {
    pub text: String,
    pub by: Carrier,
}

/// What the client does just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It waits for its user.
    Resting,
    /// It waits for a hook.
    Hooking { program: String, event: HookEvent },
    /// The next request to the model can be made.
    Ready,
    /// The model was asked.
    Asked,
    /// The model has answered, and says what comes next.
    Answered,
    /// Tools of the adapter run.
    Calling,
}

/// A tool call that the client has made.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: CallId,
    /// The result, once the adapter has queued it, and where it ends among all bytes to the client.
    pub result: Option<(String, u64)>,
    /// The client still wants the result.
    pub is_wanted: bool,
    /// A subagent made it.
    pub is_subagents: bool,
}

pub struct Client {
    pub kind: ClientKind,
    /// It runs hooks.
    pub hooks: bool,
    /// It writes a record of the conversation that can be read.
    pub records: bool,
    /// Its hooks name the turn.
    pub names_turns: bool,
    /// Something can be pushed into it.
    pub takes_pushes: bool,
    /// It shows what a push carrier brings. Else it drops that without a word.
    pub shows_pushes: bool,
    /// The conversation, which is a new one after `/clear`.
    pub conversation: u32,
    pub turn: u32,
    /// A Stop hook has put off the end of this turn.
    pub is_prolonged: bool,
    /// Nothing was asked in this turn yet.
    pub is_turns_first: bool,
    pub doing: Doing,
    /// Hooks that are to run, in this order.
    pub hooks_to_run: VecDeque<HookEvent>,
    /// What the next request has.
    pub pending: Vec<Piece>,
    /// What was pushed while the model works, and goes into some later request.
    pub queued: Vec<Piece>,
    /// What the request under way has.
    pub asked: Vec<Piece>,
    /// Which characters of each message the model has answered to, by conversation.
    pub seen: BTreeMap<u32, BTreeMap<MessageId, Vec<bool>>>,
    /// What the client has not written down yet.
    pub unwritten: Vec<Piece>,
    /// What stands in the record and was not read yet.
    pub unread: Vec<Piece>,
    /// What the record says was taken back, and was not read yet.
    pub withdrawn: Vec<(MessageId, Option<Carrier>)>,
    pub calls: Vec<Call>,
    /// A result of the model's message has left.
    pub has_result: bool,
    /// What the latest texts said how to read on, by message.
    pub advice: BTreeMap<MessageId, usize>,
    /// Messages that results have named as not confirmed.
    pub reminded: BTreeSet<MessageId>,
}

impl Client {
    pub fn new(kind: ClientKind, conversation: u32) -> Self {
        Self {
            kind,
            hooks: false,
            records: false,
            names_turns: true,
            takes_pushes: true,
            shows_pushes: true,
            conversation,
            turn: 0,
            is_prolonged: false,
            is_turns_first: false,
            doing: Doing::Resting,
            hooks_to_run: VecDeque::new(),
            pending: Vec::new(),
            queued: Vec::new(),
            asked: Vec::new(),
            seen: BTreeMap::new(),
            unwritten: Vec::new(),
            unread: Vec::new(),
            withdrawn: Vec::new(),
            calls: Vec::new(),
            has_result: false,
            advice: BTreeMap::new(),
            reminded: BTreeSet::new(),
        }
    }

    /// What it is, in words.
    pub fn what(&self, name: &str) -> String {
        let Self { kind, hooks, records, names_turns, doing, .. } = self;
        format!(
            "{name}: {kind:?}, hooks {hooks}, record {records}, names turns {names_turns}, {doing:?}"
        )
    }

    /// A turn runs.
    pub fn works(&self) -> bool {
        match &self.doing {
            Doing::Resting => false,
            Doing::Hooking { event, .. } => {
                !matches!(event, HookEvent::SessionStart | HookEvent::SessionEnd)
            }
            _ => true,
        }
    }

    /// A turn begins. What was queued goes into its first request.
    pub fn begin_turn(&mut self) {
        self.turn += 1;
        self.is_prolonged = false;
        self.is_turns_first = true;
        self.pending.append(&mut self.queued);
    }

    /// The model is asked with everything that waits. What was pushed late may wait for a later
    /// request.
    pub fn ask(&mut self, queued_too: bool) {
        if queued_too {
            self.pending.append(&mut self.queued);
        }
        self.asked = std::mem::take(&mut self.pending);
        self.is_turns_first = false;
        self.doing = Doing::Asked;
    }

    /// The model has answered: it has seen what it was asked with.
    pub fn answer(&mut self, bodies: &BTreeMap<MessageId, String>) {
        let seen = self.seen.entry(self.conversation).or_default();
        for asked in &self.asked {
            self.reminded.extend(reminders(&asked.text));
            self.advice.extend(advice(&asked.text));
            for (message, piece) in pieces(&asked.text) {
                let Some(body) = bodies.get(&message) else { continue };
                let seen = seen.entry(message).or_insert_with(|| vec![false; body.len()]);
                let is_news =
                    |(at, _): &(usize, &str)| seen[*at..*at + piece.len()].contains(&false);
                if let Some((at, _)) = body.match_indices(&piece).find(is_news) {
                    seen[at..at + piece.len()].fill(true);
                }
            }
        }
        let asked = std::mem::take(&mut self.asked);
        if self.records {
            self.unwritten.extend(asked);
        }
        self.doing = Doing::Answered;
    }

    /// The person breaks the turn off before the model has answered. The client forgets what the
    /// request had, and what waited for the next one. `says_so`: its record tells.
    pub fn break_off(&mut self, says_so: bool) -> Vec<Piece> {
        let mut lost = std::mem::take(&mut self.asked);
        lost.append(&mut self.pending);
        lost.append(&mut self.queued);
        // Codex keeps what tools have said in the conversation.
        let keeps =
            |piece: &Piece| self.kind == ClientKind::Codex && piece.by == Carrier::ToolResult;
        (self.pending, lost) = lost.into_iter().partition(keeps);
        if self.records && says_so {
            let ids = lost.iter().flat_map(|piece| {
                pieces(&piece.text).into_iter().map(|(id, _)| (id, Some(piece.by)))
            });
            self.withdrawn.extend(ids);
        }
        self.calls.clear();
        self.has_result = false;
        self.hooks_to_run.clear();
        self.doing = Doing::Resting;
        lost
    }

    /// The conversation is emptied: another one begins.
    pub fn clear(&mut self, conversation: u32) {
        self.conversation = conversation;
        self.pending.clear();
        self.queued.clear();
        self.unwritten.clear();
        self.unread.clear();
        self.withdrawn.clear();
    }

    /// The client writes down what it has asked its model with.
    pub fn write_record(&mut self) -> bool {
        let is_any = !self.unwritten.is_empty();
        self.unread.append(&mut self.unwritten);
        is_any
    }

    /// What stands in the record that was not read yet, as the adapter's reader would tell it.
    pub fn read_record(&mut self) -> (Vec<Seen>, Vec<(MessageId, Option<Carrier>)>) {
        let mut seen = Vec::new();
        for piece in self.unread.drain(..) {
            let in_result = piece.by == Carrier::ToolResult;
            let by = (!in_result).then_some(piece.by);
            seen.extend(pieces(&piece.text).into_iter().map(|(message, piece)| Seen {
                message,
                by,
                in_result,
                piece,
            }));
        }
        (seen, std::mem::take(&mut self.withdrawn))
    }

    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty() || !self.withdrawn.is_empty()
    }

    /// Whether one conversation's model has seen all of a message.
    pub fn has_seen(&self, message: MessageId) -> bool {
        self.seen.values().any(|seen| seen.get(&message).is_some_and(|seen| !seen.contains(&false)))
    }

    /// How many characters of it, from the first on, the present conversation's model has seen.
    pub fn seen_up_to(&self, message: MessageId) -> usize {
        let seen = self.seen.get(&self.conversation).and_then(|seen| seen.get(&message));
        seen.map_or(0, |seen| seen.iter().take_while(|is_seen| **is_seen).count())
    }
}

/// A body of which any piece but a very short one says where it stands.
pub fn body(message: usize, marks: usize) -> String {
    (0..marks).map(|place| format!("{message:03}.{place:04};")).collect()
}

/// The messages that a text names in a line of the adapter's own, such as those without proof.
pub fn reminders(text: &str) -> Vec<MessageId> {
    let is_own = |line: &&str| !line.starts_with(['[', '|', '…']);
    let words = text
        .lines()
        .filter(is_own)
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
    words.filter_map(|word| word.parse().ok()).collect()
}

/// How a text says that its messages are read on.
fn advice(text: &str) -> Vec<(MessageId, usize)> {
    let calls = text.split("check_messages(message_id=\"").skip(1);
    let parts = calls.filter_map(|call| call.split_once(')')?.0.split_once("\", offset="));
    parts.filter_map(|(id, offset)| Some((id.parse().ok()?, offset.parse().ok()?))).collect()
}

/// The messages in a text that a model is shown, with what stands there of their bodies.
pub fn pieces(text: &str) -> Vec<(MessageId, String)> {
    let mut pieces = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let id = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(' '))
            .filter(|(_, rest)| rest.contains("] from "));
        let Some(message) = id.and_then(|(id, _)| id.parse().ok()) else { continue };
        let mut body = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with(QUOTE)) {
            body.push(&line[QUOTE.len()..]);
        }
        if !body.is_empty() {
            pieces.push((message, body.join("\n")));
        }
    }
    pieces
}
