//! The rule of evidence, without files and without a client's format.
//!
//! A message that a carrier was given appears in the record as an entry of the conversation. It
//! also appears in the recorded requests, if the client records them. An answer proves the content
//! of its request.
//!
//! Without recorded requests, an answer proves the entries before it that were not removed. The
//! client removes entries after an unanswered prompt, entries behind the one that a new prompt
//! continues from, and entries that a compaction left out.
//!
//! Knows entries, requests and answers. Does not know the format of a line. Invariant: a forgotten
//! entry is not evidence.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;

use super::{Basis, RecordLine, RecordNews, Seen, Text, pieces};

/// The number of answers whose names are remembered, so that the rest of an answer does not count
/// as a new one. Clients write the parts of one answer close together.
const ANSWERS_MAX: usize = 16;

/// The number of requests that are remembered. An answer's request is among the latest ones, and so
/// is a request's base.
const REQUESTS_MAX: usize = 64;

/// The number of request messages with unproved mail that are remembered. A forgotten one is not
/// evidence.
const MESSAGES_MAX: usize = 256;

/// The number of entries whose names are remembered while an entry lacks an answer.
const ENTRIES_MAX: usize = 1_024;

/// A part of a message's body at one position of the conversation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    message: MessageId,
    /// The tool call whose result contains it, and how many equal parts precede it.
    place: Option<(String, usize)>,
    text: String,
}

/// A piece in an entry of the conversation that no answer has followed.
#[derive(Debug)]
struct ShownPiece {
    piece: Piece,
    by: Option<Carrier>,
    /// The number of its line.
    line: u64,
    /// The number of its entry.
    entry: u64,
    /// Whether the client seems to have removed it.
    is_taken_back: bool,
}

/// A request, as far as it shows unproved mail.
#[derive(Debug)]
struct ModelRequest {
    name: String,
    line: u64,
    /// Its messages that show some: position and name.
    with: Vec<(usize, String)>,
}

/// The memory for a record.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The number of lines with content.
    line: u64,
    shown: Vec<ShownPiece>,
    /// The names of the latest answers, the newest last.
    answers: VecDeque<String>,
    /// An answer that may be a summary.
    unsure: Option<(String, u64)>,
    /// The line of the last prompt, and whether an answer followed it.
    prompt: Option<(u64, bool)>,
    /// The number of entries so far, and the names of the latest ones.
    entry: u64,
    entries: VecDeque<String>,
    /// Whether the client records its requests.
    tells_requests: bool,
    requests: VecDeque<ModelRequest>,
    /// Messages of requests that show unproved mail, and their names, the newest last.
    messages: BTreeMap<String, Vec<Piece>>,
    names: VecDeque<String>,
    /// Requests that were answered before they were recorded.
    awaited: VecDeque<String>,
    /// The reported pieces of tool results. Two parts of a body may be equal, and no part counts
    /// twice.
    told: BTreeSet<Piece>,
}

impl Scan {
    pub(super) fn has(&self, message: MessageId) -> bool {
        self.shown.iter().any(|shown| shown.piece.message == message)
    }

    /// Forgets all other messages.
    pub(super) fn keep_only(&mut self, open: &[MessageId]) {
        let is_wanted = |piece: &Piece| open.contains(&piece.message);
        self.shown.retain(|shown| is_wanted(&shown.piece));
        self.told.retain(is_wanted);
        for pieces in self.messages.values_mut() {
            pieces.retain(is_wanted);
        }
    }

    /// Handles the end of the record: entries without an answer count as removed.
    pub(super) fn leave(&mut self, looked: &mut RecordNews) {
        looked.withdrawn.extend(self.shown.drain(..).map(|shown| (shown.piece.message, shown.by)));
    }

    /// Applies the content of one line.
    pub(super) fn take(
        &mut self,
        said: Vec<RecordLine>,
        open: &[MessageId],
        looked: &mut RecordNews,
    ) {
        self.line += 1;
        for line in said {
            match line {
                RecordLine::Entry(name) => self.enter(name),
                RecordLine::Prompt { after } => self.prompted(after.as_deref(), looked),
                RecordLine::Shown { by, texts } => {
                    self.resolve(looked);
                    self.show(by, &texts, open);
                }
                RecordLine::Message { name, extends, texts } => {
                    self.keep(name, extends.as_deref(), &texts, open)
                }
                RecordLine::Request { name, base, tail } => self.asked(name, base, &tail, looked),
                RecordLine::Answered { name, request, is_sure } => {
                    self.answered(name, request, is_sure, looked)
                }
                RecordLine::WentOn => self.resolve(looked),
                RecordLine::Aborted => self.unsure = None,
                RecordLine::Compacted(texts) => {
                    // The last answer was the summary.
                    self.unsure = None;
                    self.take_back(looked, |_| true);
                    self.show(None, &texts, open);
                }
            }
        }
    }

    fn enter(&mut self, name: String) {
        if self.shown.is_empty() {
            self.entries.clear();
        } else if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(name);
        self.entry += 1;
    }

    /// Handles a prompt. Entries behind the one that the prompt continues from were removed. So was
    /// an earlier unanswered prompt, with all later entries.
    fn prompted(&mut self, after: Option<&str>, looked: &mut RecordNews) {
        let place = after.and_then(|name| self.entries.iter().rposition(|known| known == name));
        let last = place.map_or(0, |place| self.entry - (self.entries.len() - 1 - place) as u64);
        let unanswered = self.prompt.and_then(|(line, is_answered)| (!is_answered).then_some(line));
        self.take_back(looked, |shown| {
            shown.entry > last || unanswered.is_some_and(|line| shown.line >= line)
        });
        self.prompt = Some((self.line, false));
    }

    /// Marks pieces as removed. If requests are recorded, the next one shows whether that is so.
    fn take_back(&mut self, looked: &mut RecordNews, which: impl Fn(&ShownPiece) -> bool) {
        for shown in self.shown.iter_mut().filter(|shown| which(shown)) {
            shown.is_taken_back = true;
        }
        if !self.tells_requests {
            self.withdraw(looked, |shown| shown.is_taken_back);
        }
    }

    fn withdraw(&mut self, looked: &mut RecordNews, which: impl Fn(&ShownPiece) -> bool) {
        let withdrawn = self
            .shown
            .extract_if(.., |shown| which(shown))
            .map(|shown| (shown.piece.message, shown.by));
        looked.withdrawn.extend(withdrawn);
    }

    fn show(&mut self, by: Option<Carrier>, texts: &[Text], open: &[MessageId]) {
        let (line, entry) = (self.line, self.entry);
        let shown = pieces_in(texts, open).into_iter();
        self.shown.extend(shown.map(|piece| ShownPiece {
            piece,
            by,
            line,
            entry,
            is_taken_back: false,
        }));
    }

    // ---- if the client records its requests

    fn keep(&mut self, name: String, extends: Option<&str>, texts: &[Text], open: &[MessageId]) {
        let mut pieces =
            extends.and_then(|name| self.messages.get(name)).cloned().unwrap_or_default();
        pieces.extend(pieces_in(texts, open));
        if pieces.is_empty() || self.messages.contains_key(&name) {
            return;
        }
        if self.names.len() == MESSAGES_MAX {
            let oldest = self.names.pop_front();
            oldest.and_then(|name| self.messages.remove(&name));
        }
        self.names.push_back(name.clone());
        self.messages.insert(name, pieces);
    }

    fn asked(
        &mut self,
        name: String,
        base: Option<(String, usize)>,
        tail: &[String],
        looked: &mut RecordNews,
    ) {
        self.tells_requests = true;
        let (base, keep) = base.unwrap_or_default();
        let base = self.requests.iter().rfind(|asked| asked.name == base);
        let kept = base
            .into_iter()
            .flat_map(|base| &base.with)
            .filter(|(place, _)| *place < keep)
            .cloned();
        let new = tail.iter().enumerate().filter(|(_, name)| self.messages.contains_key(*name));
        let with = kept.chain(new.map(|(place, name)| (keep + place, name.clone()))).collect();
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(ModelRequest { name: name.clone(), line: self.line, with });
        if self.awaited.contains(&name) {
            self.awaited.retain(|awaited| *awaited != name);
            self.prove_request(&name, looked);
        }
    }

    /// Reports the content of the request, and the removed entries before it that the request does
    /// not contain.
    fn prove_request(&mut self, name: &str, looked: &mut RecordNews) -> bool {
        let Some(asked) = self.requests.iter().rfind(|asked| asked.name == name) else {
            return false;
        };
        let had: Vec<Piece> = asked
            .with
            .iter()
            .filter_map(|(_, message)| self.messages.get(message))
            .flatten()
            .cloned()
            .collect();
        let line = asked.line;
        for piece in &had {
            let entry = self.shown.iter().rfind(|shown| shown.piece == *piece);
            let by = entry
                .or_else(|| self.shown.iter().rfind(|shown| shown.piece.message == piece.message));
            self.tell(piece.clone(), by.and_then(|shown| shown.by), looked);
        }
        self.shown.retain(|shown| !had.contains(&shown.piece));
        let is_in = |message: MessageId| had.iter().any(|piece| piece.message == message);
        self.withdraw(looked, |shown| shown.line < line && !is_in(shown.piece.message));
        true
    }

    // ---- answers

    fn answered(&mut self, name: String, request: Basis, is_sure: bool, looked: &mut RecordNews) {
        match &self.unsure {
            Some((unsure, _)) if *unsure == name && !is_sure => return,
            Some(_) => self.resolve(looked),
            None => {}
        }
        if self.answers.contains(&name) {
            return;
        }
        if self.answers.len() == ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(name.clone());
        if !is_sure {
            self.unsure = Some((name, self.line));
            return;
        }
        if let Some((_, is_answered)) = &mut self.prompt {
            *is_answered = true;
        }
        match request {
            // A client may record an answer before its request.
            Basis::Request(request) => {
                if !self.prove_request(&request, looked) {
                    if self.awaited.len() == ANSWERS_MAX {
                        self.awaited.pop_front();
                    }
                    self.awaited.push_back(request);
                }
            }
            Basis::Changed => {}
            Basis::Untold => self.prove_before(self.line, looked),
        }
    }

    /// Accepts the last answer as the model's own.
    fn resolve(&mut self, looked: &mut RecordNews) {
        if let Some((_, line)) = self.unsure.take() {
            self.prove_before(line, looked);
        }
    }

    /// Proves the entries before an answer in this line.
    fn prove_before(&mut self, line: u64, looked: &mut RecordNews) {
        self.withdraw(looked, |shown| shown.is_taken_back);
        let shown: Vec<ShownPiece> = self.shown.extract_if(.., |shown| shown.line < line).collect();
        for shown in shown {
            self.tell(shown.piece, shown.by, looked);
        }
    }

    fn tell(&mut self, piece: Piece, by: Option<Carrier>, looked: &mut RecordNews) {
        let in_result = piece.place.is_some();
        if !in_result || self.told.insert(piece.clone()) {
            looked.seen.push(Seen { message: piece.message, by, in_result, piece: piece.text });
        }
    }
}

/// Returns the parts of these messages that the texts of one entry show.
fn pieces_in(texts: &[Text], open: &[MessageId]) -> Vec<Piece> {
    let mut found: Vec<Piece> = Vec::new();
    for Text { call, text } in texts {
        for (message, text) in
            pieces(text).into_iter().filter(|(message, _)| open.contains(message))
        {
            let of_call =
                |piece: &&Piece| piece.place.as_ref().map(|(call, _)| call) == call.as_ref();
            let alike = found
                .iter()
                .filter(of_call)
                .filter(|piece| piece.message == message && piece.text == text)
                .count();
            found.push(Piece { message, place: call.clone().map(|call| (call, alike)), text });
        }
    }
    found
}

#[cfg(test)]
mod tests;
