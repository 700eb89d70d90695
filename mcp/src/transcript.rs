//! The client's own record of a session: proof that a request to the model contained what a carrier was given.
//!
//! The rule: a message's body, or a part of it, stands in an entry that the model is shown, under the header that peerd
//! writes, and after that entry the model gave an answer that had not begun before it. Knows how far the record was read.
//! Does not know a client's format ([`Dialect`]), nor what of a message is enough, nor when there is something new to read
//! ([`crate::watch`]). Reads, never writes. The invariants:
//!
//! - What is only queued, or shown to a subagent, proves nothing.
//! - A line is read when it is whole, and one look reads a bounded amount.

mod claude;
mod codex;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;

use crate::render::{QUOTE, SOURCES};
use crate::session::ClientKind;

/// How far before its end a record is read at first, in bytes: what was given, and what answer was being given then, may
/// have been written before the first look.
const BACKLOG_BYTES_MAX: u64 = 1024 * 1024;

/// Longer lines are passed over: they hold pictures, or a file that was read.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What one look reads, in bytes. What is left is read by the next one.
const LOOK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers whose names are remembered, so that the rest of an answer is not taken for a new one. Clients write the parts
/// of one answer close together.
const ANSWERS_MAX: usize = 16;

/// What a line of a record says, as far as it is evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The next request to the model has these texts.
    Shown {
        /// Which carrier leads there, where the record tells.
        by: Option<Carrier>,
        /// The texts, as the model is shown them.
        texts: Vec<String>,
    },
    /// The model answered a request. All parts of one answer have the same name, and no other answer has it.
    Answered(String),
}

/// How one client writes its record.
pub(crate) trait Dialect: Send + std::fmt::Debug {
    /// What the line says; `None` for all that proves nothing, such as what is only queued, or a subagent's.
    fn read(&mut self, line: &str) -> Option<Line>;
}

/// What the model was shown of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) message: MessageId,
    /// By which carrier, where the record tells.
    pub(crate) by: Option<Carrier>,
    /// The body, or a part of it, without quotation marks.
    pub(crate) piece: String,
}

/// How far the record was read, and what stood there that no answer has followed yet.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    path: PathBuf,
    dialect: Option<Box<dyn Dialect>>,
    /// Where the next unread byte stands; none before the first look, and while nothing is looked for.
    offset: Option<u64>,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
    /// The line that is being read is too long, or began before the place where reading began.
    passing: bool,
    /// Something in it was understood.
    speaks: bool,
    scan: Scan,
}

impl Transcript {
    /// Whether this record is written in the form that is known here. If so, what is not in it was not shown.
    pub(crate) fn speaks(&self) -> bool {
        self.speaks
    }

    /// What the record at `path` proves of `unproved`, as far as it was not read before.
    pub(crate) fn look(&mut self, client: ClientKind, path: &Path, unproved: &[MessageId]) -> Vec<Seen> {
        if self.path != path {
            // The session goes on in another record, and what was given before may turn up there.
            *self = Self { path: path.into(), dialect: dialect(client), ..Self::default() };
        }
        if unproved.is_empty() {
            // Where it goes on does not matter before something is looked for.
            self.offset = None;
            return Vec::new();
        }
        self.scan.shown.retain(|shown| unproved.contains(&shown.message));
        let mut seen = Vec::new();
        // A record that cannot be read proves nothing; the carriers' times run out, and the next ones follow.
        let _ = self.read(unproved, &mut seen);
        seen
    }

    /// Whether the record has the message, or a part of it, in front of the model's next request.
    pub(crate) fn has(&self, message: MessageId) -> bool {
        self.scan.shown.iter().any(|seen| seen.message == message)
    }

    fn read(&mut self, unproved: &[MessageId], seen: &mut Vec<Seen>) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let mut at = match self.offset {
            Some(offset) if offset <= length => offset,
            // Never read, or rewritten by the client.
            _ => self.begin_near(length),
        };
        file.seek(SeekFrom::Start(at))?;
        let mut chunk = vec![0; 64 * 1024];
        let mut left = LOOK_BYTES_MAX;
        while left > 0 {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            left = left.saturating_sub(count);
            at += count as u64;
            for piece in chunk[..count].split_inclusive(|byte| *byte == b'\n') {
                self.take(piece, unproved, seen);
            }
        }
        self.offset = Some(at);
        Ok(())
    }

    fn begin_near(&mut self, end: u64) -> u64 {
        let at = end.saturating_sub(BACKLOG_BYTES_MAX);
        self.begun.clear();
        self.passing = at > 0;
        self.scan = Scan::default();
        at
    }

    /// Takes a piece of a line.
    fn take(&mut self, piece: &[u8], unproved: &[MessageId], seen: &mut Vec<Seen>) {
        let is_whole = piece.ends_with(b"\n");
        if !self.passing && self.begun.len() + piece.len() > LINE_BYTES_MAX {
            self.begun = Vec::new();
            self.passing = true;
        }
        if self.passing {
            self.passing = !is_whole;
            return;
        }
        self.begun.extend_from_slice(piece);
        if is_whole {
            let line = std::mem::take(&mut self.begun);
            let dialect = self.dialect.as_mut();
            let said = dialect.and_then(|dialect| dialect.read(std::str::from_utf8(&line).ok()?.trim_end()));
            if let Some(line) = said {
                self.speaks = true;
                self.scan.take(line, unproved, seen);
            }
        }
    }
}

fn dialect(client: ClientKind) -> Option<Box<dyn Dialect>> {
    match client {
        ClientKind::Claude => Some(Box::new(claude::Claude)),
        ClientKind::Codex => Some(Box::new(codex::Codex::default())),
        ClientKind::Other => None,
    }
}

/// The rule, without files.
#[derive(Debug, Default)]
struct Scan {
    /// What the model is shown with the next request.
    shown: Vec<Seen>,
    /// The names of the latest answers, the newest last.
    answers: VecDeque<String>,
}

impl Scan {
    fn take(&mut self, line: Line, unproved: &[MessageId], seen: &mut Vec<Seen>) {
        match line {
            Line::Shown { by, texts } => {
                let pieces = texts.iter().flat_map(|text| pieces(text)).filter(|(message, _)| unproved.contains(message));
                self.shown.extend(pieces.map(|(message, piece)| Seen { message, by, piece }));
            }
            Line::Answered(answer) => {
                if self.answers.contains(&answer) {
                    return;
                }
                if self.answers.len() == ANSWERS_MAX {
                    self.answers.pop_front();
                }
                self.answers.push_back(answer);
                seen.append(&mut self.shown);
            }
        }
    }
}

/// The messages in a text that a model is shown, with what stands there of their bodies. Only headers at the beginning of a
/// line are peerd's own: all that peers write stands behind a mark.
fn pieces(text: &str) -> Vec<(MessageId, String)> {
    let mut pieces = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(message) = header(line) else { continue };
        lines.next_if(|line| line.starts_with(SOURCES));
        let mut body: Option<String> = None;
        // A client may have cut the blank at the end of a text.
        while let Some(line) = lines.next_if(|line| line.starts_with(QUOTE.trim_end())) {
            let line = line.strip_prefix(QUOTE).unwrap_or("");
            match &mut body {
                Some(body) => {
                    body.push('\n');
                    body.push_str(line);
                }
                None => body = Some(line.to_owned()),
            }
        }
        pieces.extend(body.map(|body| (message, body)));
    }
    pieces
}

/// The message that a header is about: `[m-… request] from … · 31 chars`.
fn header(line: &str) -> Option<MessageId> {
    // Clients put words of their own before a text, such as `PostToolBatch hook additional context: `.
    let start = if line.starts_with('[') { 0 } else { line.find(": [").filter(|_| !line.starts_with(QUOTE.trim_end()))? + 2 };
    let (id, rest) = line[start..].strip_prefix('[')?.split_once(' ')?;
    rest.contains("] from ").then(|| id.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
