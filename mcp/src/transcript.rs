//! The client's own record of a session: proof that a request to the model contained what a carrier was given.
//!
//! The rule: the request that the model answered contained a message's body, or a part of it, under the header that peerd
//! writes. A record that names each request's content is taken at its word. In any other the text stands in an entry that
//! the model is shown, an answer follows that had not begun before it, and nothing in between says that the client took
//! the entry back. Knows how far the record was read. Does not know a client's format ([`Dialect`]), nor what of a message
//! is enough, nor when there is something new to read ([`crate::watch`]). Reads, never writes. The invariants:
//!
//! - What is only queued, shown to a subagent, or shown to a model that only makes a summary, proves nothing.
//! - A line is read when it is whole, and one look reads a bounded amount.
//! - What is remembered of a record is bounded, and concerns messages alone that lack proof.

mod claude;
mod codex;
mod scan;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;

use crate::inbox::Seen;
use crate::render::{QUOTE, SOURCES};
use crate::session::ClientKind;

use scan::Scan;

/// How far before its end a record is read at first, in bytes: what was given, and what answer was being given then, may
/// have been written before the first look.
const BACKLOG_BYTES_MAX: u64 = 1024 * 1024;

/// Longer lines are passed over: they hold pictures, or a file that was read.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes before the place where reading goes on that are compared with what was read there: a client may have written
/// another file in its place, or this one anew.
const SEAM_BYTES_MAX: usize = 256;

/// What one look reads, in bytes. What is left is read by the next one.
const LOOK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a line of a record says, as far as it is evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The conversation goes on with this entry, by its name.
    Entry(String),
    /// A turn begins, behind the entry of that name; none: at the conversation's beginning. What the client has taken back
    /// stands behind that entry too.
    Prompt {
        /// The entry that it follows.
        after: Option<String>,
    },
    /// The next request to the model has these texts.
    Shown {
        /// Which carrier leads there, where the record tells.
        by: Option<Carrier>,
        /// The texts, as the model is shown them.
        texts: Vec<Text>,
    },
    /// A message of which requests are made.
    Message {
        /// Its name: the digest of its content.
        name: String,
        /// The message that it begins with.
        extends: Option<String>,
        /// What it shows besides.
        texts: Vec<Text>,
    },
    /// The model was asked.
    Request {
        /// The request's name.
        name: String,
        /// It begins like that request, with so many of its messages.
        base: Option<(String, usize)>,
        /// The names of the messages that follow.
        tail: Vec<String>,
    },
    /// The model answered a request. All parts of one answer have the same name, and no other answer has it.
    Answered {
        /// The answer's name.
        name: String,
        /// Which request it answers.
        request: Basis,
        /// The client may have asked for a summary alone; if so, it says that before it goes on.
        is_sure: bool,
    },
    /// The conversation went on: the last answer was the model's own.
    WentOn,
    /// The turn was broken off: whose the last answer was is not told.
    Aborted,
    /// The client replaced the conversation by a shorter one, which has these texts.
    Compacted(Vec<Text>),
}

/// Which request an answer belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// The one of this name.
    Request(String),
    /// The client does not say.
    Untold,
    /// Nobody knows what was asked: something changed the request on its way.
    Changed,
}

/// A text that the model is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// The tool call that it is a result of.
    pub(crate) call: Option<String>,
    /// The text itself.
    pub(crate) text: String,
}

/// How one client writes its record.
pub(crate) trait Dialect: Send + std::fmt::Debug {
    /// What the line says, in this order; nothing for all that is no evidence, such as what is only queued.
    fn read(&mut self, line: &str) -> Vec<Line>;

    /// A line was passed over, or reading begins in the middle.
    fn gap(&mut self);
}

/// What a look has found.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// What the model was shown and has answered.
    pub(crate) seen: Vec<Seen>,
    /// What had stood in the record, and the client took back before the model answered; by which carrier, where that is
    /// known.
    pub(crate) withdrawn: Vec<(MessageId, Option<Carrier>)>,
}

/// How far the record was read, and what stood there that no answer has followed yet.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    path: PathBuf,
    dialect: Option<Box<dyn Dialect>>,
    /// Where the next unread byte stands; none before the first look.
    offset: Option<u64>,
    /// What stood just before that.
    seam: Vec<u8>,
    /// Nothing was looked for when it was looked at last.
    is_paused: bool,
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

    /// What the record at `path` says of the messages that are `open`, as far as it was not read before. It is read while
    /// proof is `wanted` of any.
    pub(crate) fn look(&mut self, client: ClientKind, path: &Path, open: &[MessageId], wanted: bool) -> Looked {
        let mut looked = Looked::default();
        if self.path != path {
            // The session goes on in another record, without what was in front of the next request here.
            self.scan.leave(&mut looked);
            *self = Self { path: path.into(), ..Self::default() };
        }
        if !wanted {
            self.is_paused = true;
            return looked;
        }
        self.scan.keep_only(open);
        // A record that cannot be read proves nothing; the carriers' times run out, and the next ones follow.
        let _ = self.read(client, open, &mut looked);
        looked
    }

    /// Whether the record has the message, or a part of it, in front of the model's next request.
    pub(crate) fn has(&self, message: MessageId) -> bool {
        self.scan.has(message)
    }

    fn read(&mut self, client: ClientKind, open: &[MessageId], looked: &mut Looked) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let is_paused = std::mem::take(&mut self.is_paused);
        let mut at = match self.offset {
            // Nothing is read twice: what was withdrawn and given again would be withdrawn once more.
            Some(offset)
                if !(is_paused && length.saturating_sub(offset) > BACKLOG_BYTES_MAX) && self.goes_on(&mut file, offset)? =>
            {
                offset
            }
            // Never read, written anew by the client, or too much of it while nothing was looked for.
            _ => {
                // What stood there without an answer stands where nobody reads it any more.
                self.scan.leave(looked);
                self.begin_near(client, length)
            }
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
                self.take(piece, open, looked);
            }
            self.seam.extend_from_slice(&chunk[..count]);
            let surplus = self.seam.len().saturating_sub(SEAM_BYTES_MAX);
            self.seam.drain(..surplus);
        }
        self.offset = Some(at);
        Ok(())
    }

    /// Whether what was read before this offset still stands there.
    fn goes_on(&self, file: &mut File, offset: u64) -> io::Result<bool> {
        file.seek(SeekFrom::Start(offset - self.seam.len() as u64))?;
        let mut found = Vec::with_capacity(self.seam.len());
        file.by_ref().take(self.seam.len() as u64).read_to_end(&mut found)?;
        Ok(found == self.seam)
    }

    fn begin_near(&mut self, client: ClientKind, end: u64) -> u64 {
        let at = end.saturating_sub(BACKLOG_BYTES_MAX);
        self.begun.clear();
        self.seam.clear();
        self.passing = at > 0;
        self.scan = Scan::default();
        self.dialect = dialect(client);
        if let Some(dialect) = self.dialect.as_mut().filter(|_| self.passing) {
            dialect.gap();
        }
        at
    }

    /// Takes a piece of a line.
    fn take(&mut self, piece: &[u8], open: &[MessageId], looked: &mut Looked) {
        let is_whole = piece.ends_with(b"\n");
        let Some(dialect) = &mut self.dialect else { return };
        if !self.passing && self.begun.len() + piece.len() > LINE_BYTES_MAX {
            self.begun = Vec::new();
            self.passing = true;
        }
        if self.passing {
            self.passing = !is_whole;
            dialect.gap();
            return;
        }
        self.begun.extend_from_slice(piece);
        if is_whole {
            let line = std::mem::take(&mut self.begun);
            let Ok(line) = std::str::from_utf8(&line) else { return dialect.gap() };
            let said = dialect.read(line.trim_end());
            self.speaks |= !said.is_empty();
            self.scan.take(said, open, looked);
        }
    }
}

fn dialect(client: ClientKind) -> Option<Box<dyn Dialect>> {
    match client {
        ClientKind::Claude => Some(Box::<claude::Claude>::default()),
        ClientKind::Codex => Some(Box::<codex::Codex>::default()),
        ClientKind::Other => None,
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
