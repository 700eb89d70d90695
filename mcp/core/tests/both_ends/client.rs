//! A client program as its adapters meet it: its model, its hooks, its record, and what it does
//! with what it is given.
//!
//! It knows what its model was really asked with. An adapter is told only what a real client would
//! let it see. A text counts as seen when the model has answered a request that had it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use peer_mcp_core::ClientKind;
use peer_mcp_core::call::CallId;
use peer_mcp_core::render::QUOTE;
use peer_proto::hook::HookEvent;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::Carrier;

/// A text that stands in front of the model, and how it came there.
#[derive(Clone, Debug)]
pub struct Piece {
    pub text: String,
    pub by: Carrier,
    /// The adapter process that gave it.
    pub from: u64,
    /// A compaction kept it: the record does not say any more how it came.
    pub is_kept: bool,
}

/// A line of the client's record.
#[derive(Clone, Debug)]
pub enum Line {
    /// The model has answered a request that had this.
    Answered(Piece),
    /// The client took these back before the model answered.
    TakenBack(Vec<(MessageId, Option<Carrier>)>),
}

/// What the client does just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It waits for its user.
    Resting,
    /// It waits for a hook. `goes_on`: a turn goes on when the hook has ended.
    Hooking { program: String, event: HookEvent, goes_on: bool },
    /// The next request to the model can be made.
    Ready,
    /// The model was asked.
    Asked,
    /// The model has answered, and says what comes next.
    Answered,
    /// Tools of an adapter run.
    Calling,
}

/// A tool call that the client has made.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: CallId,
    /// The adapter that it was made to.
    pub at: usize,
    /// The result, once the adapter has queued it, and where it ends among all bytes to the client.
    pub result: Option<(String, u64)>,
    /// The client still wants the result.
    pub is_wanted: bool,
    /// A subagent made it.
    pub is_subagents: bool,
}

#[derive(Clone)]
pub struct Client {
    pub name: String,
    pub kind: ClientKind,
    /// Its process. Several threads of Codex have one. 0: it was never started.
    pub pid: u32,
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
    pub unwritten: Vec<Line>,
    /// What stands in the record of this conversation.
    pub record: Vec<Line>,
    pub calls: Vec<Call>,
    /// A result of the model's message has left.
    pub has_result: bool,
    /// What the latest texts said how to read on, by message.
    pub advice: BTreeMap<MessageId, usize>,
    /// Messages that results have named as not confirmed.
    pub reminded: BTreeSet<MessageId>,
    /// Messages that results have named as not confirmed, though the model has read all of them.
    pub to_acknowledge: BTreeSet<MessageId>,
    /// Messages whose texts were forgotten since the last prompt that a hook told of.
    pub forgotten: BTreeSet<MessageId>,
    /// Messages whose texts were forgotten while nothing told any adapter: this client keeps no
    /// record, and lost a hook or a hook's output.
    pub untold: BTreeSet<MessageId>,
    /// Messages whose texts the latest compaction dropped.
    pub dropped_now: BTreeSet<MessageId>,
    /// The peers that the broker has taken it for.
    pub peers: BTreeSet<PeerId>,
    /// The name of the client that it was forked from.
    pub fork_of: Option<String>,
}

impl Client {
    pub fn new(kind: ClientKind, conversation: u32) -> Self {
        Self {
            name: String::new(),
            kind,
            pid: 0,
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
            record: Vec::new(),
            calls: Vec::new(),
            has_result: false,
            advice: BTreeMap::new(),
            reminded: BTreeSet::new(),
            to_acknowledge: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            untold: BTreeSet::new(),
            dropped_now: BTreeSet::new(),
            peers: BTreeSet::new(),
            fork_of: None,
        }
    }

    /// What it is, in words.
    pub fn what(&self) -> String {
        let Self { name, kind, hooks, records, names_turns, doing, conversation, .. } = self;
        format!(
            "{name}: {kind:?}, hooks {hooks}, record {records}, names turns {names_turns}, \
             conversation {conversation}, {doing:?}"
        )
    }

    /// A turn runs.
    pub fn works(&self) -> bool {
        match &self.doing {
            Doing::Resting => false,
            Doing::Hooking { event, goes_on, .. } => {
                *goes_on || !matches!(event, HookEvent::SessionStart | HookEvent::SessionEnd)
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
    pub fn answer(&mut self, bodies: &BTreeMap<MessageId, String>) -> Vec<Piece> {
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
            self.unwritten.extend(asked.iter().cloned().map(Line::Answered));
        }
        self.doing = Doing::Answered;
        asked
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
            self.unwritten.push(Line::TakenBack(named(&lost)));
        }
        self.forgotten.extend(named(&lost).into_iter().map(|(message, _)| message));
        self.calls.clear();
        self.has_result = false;
        self.hooks_to_run.clear();
        self.doing = Doing::Resting;
        lost
    }

    /// The conversation is replaced by a shorter one. Of what waits for the next request it keeps
    /// what `keeps` says. `says_so`: its record tells, and no longer how the rest came.
    pub fn compact(&mut self, mut keeps: impl FnMut() -> bool, says_so: bool) -> Vec<Piece> {
        let before = std::mem::take(&mut self.pending);
        if self.records && says_so {
            self.unwritten.push(Line::TakenBack(named(&before)));
        }
        let (kept, lost): (Vec<Piece>, Vec<Piece>) = before.into_iter().partition(|_| keeps());
        self.pending = kept;
        self.pending.iter_mut().for_each(|piece| piece.is_kept |= says_so);
        lost
    }

    /// The conversation is emptied: another one begins.
    pub fn clear(&mut self, conversation: u32) {
        self.conversation = conversation;
        self.pending.clear();
        self.queued.clear();
        self.unwritten.clear();
        self.record.clear();
    }

    /// Another process goes on from this conversation under another name. It has what stands in the
    /// record; `with_open`: also what tools and hooks said since the model's last answer.
    pub fn fork(&self, conversation: u32, with_open: bool) -> Self {
        let seen = self.seen.get(&self.conversation).cloned().unwrap_or_default();
        let is_said = |piece: &&Piece| matches!(piece.by, Carrier::ToolResult | Carrier::Hook);
        let pending =
            if with_open { self.pending.iter().filter(is_said).cloned().collect() } else { vec![] };
        Self {
            hooks: self.hooks,
            records: self.records,
            names_turns: self.names_turns,
            takes_pushes: self.takes_pushes,
            shows_pushes: self.shows_pushes,
            turn: self.turn,
            pending,
            seen: BTreeMap::from([(conversation, seen)]),
            record: self.record.clone(),
            fork_of: Some(self.name.clone()),
            ..Self::new(self.kind, conversation)
        }
    }

    /// The client writes down what it has asked its model with.
    pub fn write_record(&mut self) -> bool {
        let is_any = !self.unwritten.is_empty();
        self.record.append(&mut self.unwritten);
        is_any
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

/// The messages in these texts, with the carrier of each.
pub fn named(lost: &[Piece]) -> Vec<(MessageId, Option<Carrier>)> {
    let ids = |piece: &Piece| {
        let by = piece.by;
        pieces(&piece.text).into_iter().map(move |(id, _)| (id, Some(by)))
    };
    lost.iter().flat_map(ids).collect()
}

/// Whether the text says of this message that it was shown before.
pub fn is_marked(text: &str, message: MessageId) -> bool {
    let header = format!("[{message} ");
    let mut headers =
        text.lines().filter(|line| line.starts_with(&header) && line.contains("] from "));
    headers.all(|line| line.ends_with(" (shown before)"))
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
