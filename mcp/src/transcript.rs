//! The client's record of a session: evidence that a request to the model contained an offered
//! message.
//!
//! The rule: the answered request contained a message's body, or a part of it, under the header
//! that peerd writes. A record that names each request's content is trusted. In any other record
//! three conditions hold:
//!
//! - The text is in an entry that the model is shown.
//! - An answer follows that had not begun before the entry.
//! - No line in between shows that the client removed the entry.
//!
//! Knows how far the record was read. Does not know a client's format ([`RecordFormat`]), how much of a
//! message is enough, or when to read again ([`crate::watch`]). Reads, never writes. The
//! invariants:
//!
//! - Text that is only queued, shown to a subagent, or shown to a model that only makes a summary,
//!   is not evidence.
//! - A line is read when it is whole, and one look reads a bounded amount.
//! - The memory for a record is bounded, and concerns only messages without evidence.

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

/// How far before its end a record is read at first, in bytes. An offer, and the answer in progress
/// then, may have been written before the first look.
const BACKLOG_BYTES_MAX: u64 = 1024 * 1024;

/// Longer lines are skipped: they contain pictures, or a file that was read.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes before the current offset that are compared with those read there. A client may have
/// replaced the file or rewritten it.
const SEAM_BYTES_MAX: usize = 256;

/// The number of bytes that one look reads. The next look reads the rest.
const LOOK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The content of a record's line, as far as it is evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordLine {
    /// The conversation continues with this entry, by its name.
    Entry(String),
    /// A turn begins, behind the entry of that name; `None`: at the conversation's beginning. The
    /// entries that the client removed are also behind that entry.
    Prompt {
        /// The entry that it follows.
        after: Option<String>,
    },
    /// The next request to the model has these texts.
    Shown {
        /// The carrier, if the record shows it.
        by: Option<Carrier>,
        /// The texts, as the model is shown them.
        texts: Vec<Text>,
    },
    /// A message of which requests are composed.
    Message {
        /// The message's name: the digest of its content.
        name: String,
        /// The message that it begins with.
        extends: Option<String>,
        /// The other texts that it shows.
        texts: Vec<Text>,
    },
    /// The model was asked.
    Request {
        name: String,
        /// The request that it begins like, and how many of its messages it repeats.
        base: Option<(String, usize)>,
        /// The names of the messages that follow.
        tail: Vec<String>,
    },
    /// The model answered a request. All parts of one answer have the same name, and no other
    /// answer has it.
    Answered {
        name: String,
        /// The request that it answers.
        request: Basis,
        /// Whether it is certainly not a summary's answer; otherwise the client records that before
        /// the conversation continues.
        is_sure: bool,
    },
    /// The conversation continued: the last answer was the model's own.
    WentOn,
    /// The turn was interrupted: the record does not show whose the last answer was.
    Aborted,
    /// The client replaced the conversation by a shorter one, which has these texts.
    Compacted(Vec<Text>),
}

/// The request that an answer belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// The request of this name.
    Request(String),
    /// The record does not name it.
    Untold,
    /// Unknown: a hook changed the request on its way.
    Changed,
}

/// A text that the model is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// The tool call whose result contains it.
    pub(crate) call: Option<String>,
    pub(crate) text: String,
}

/// The format of one client's record.
pub(crate) trait RecordFormat: Send + std::fmt::Debug {
    /// Returns the line's content, in order; empty for a line without evidence, for example about
    /// queued text.
    fn read(&mut self, line: &str) -> Vec<RecordLine>;

    /// Handles a skipped line, or a start in the middle of the record.
    fn gap(&mut self);
}

/// The result of a look.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordNews {
    /// The texts that the model was shown and has answered.
    pub(crate) seen: Vec<Seen>,
    /// The messages that the client removed from the record before the model answered, with the
    /// carrier if it is known.
    pub(crate) withdrawn: Vec<(MessageId, Option<Carrier>)>,
}

/// How far the record was read, and the entries that no answer has followed yet.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    path: PathBuf,
    dialect: Option<Box<dyn RecordFormat>>,
    /// The offset of the next unread byte; `None` before the first look.
    offset: Option<u64>,
    /// The bytes just before that offset.
    seam: Vec<u8>,
    /// Whether no message was searched for at the last look.
    is_paused: bool,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
    /// Whether the current line is too long, or began before the first offset.
    passing: bool,
    /// Whether at least one line was understood.
    speaks: bool,
    scan: Scan,
}

impl Transcript {
    /// Whether this record has a known format. If it has, a message that the record lacks was not
    /// shown.
    pub(crate) fn speaks(&self) -> bool {
        self.speaks
    }

    /// Reads the new lines of the record at `path`, and returns what they show of the `open`
    /// messages. The record is read while evidence is `wanted` for any.
    pub(crate) fn read_news(
        &mut self,
        client: ClientKind,
        path: &Path,
        open: &[MessageId],
        wanted: bool,
    ) -> RecordNews {
        let mut looked = RecordNews::default();
        if self.path != path {
            // The session continues in another record, without the unanswered entries of this one.
            self.scan.leave(&mut looked);
            *self = Self { path: path.into(), ..Self::default() };
        }
        if !wanted {
            self.is_paused = true;
            return looked;
        }
        self.scan.keep_only(open);
        // A record that cannot be read is no evidence: the carriers time out, and the next ones
        // follow.
        let _ = self.read(client, open, &mut looked);
        looked
    }

    /// Whether the record has the message, or a part of it, before the model's next request.
    pub(crate) fn has(&self, message: MessageId) -> bool {
        self.scan.has(message)
    }

    fn read(
        &mut self,
        client: ClientKind,
        open: &[MessageId],
        looked: &mut RecordNews,
    ) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let is_paused = std::mem::take(&mut self.is_paused);
        let mut at = match self.offset {
            // No line is read twice: a message that was removed and offered again would be removed
            // once more.
            Some(offset)
                if !(is_paused && length.saturating_sub(offset) > BACKLOG_BYTES_MAX)
                    && self.goes_on(&mut file, offset)? =>
            {
                offset
            }
            // Never read, rewritten by the client, or too long a gap while no message was searched
            // for.
            _ => {
                // No later line is read behind the unanswered entries.
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

    /// Whether the bytes before this offset are still the ones that were read.
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

    /// Reads a piece of a line.
    fn take(&mut self, piece: &[u8], open: &[MessageId], looked: &mut RecordNews) {
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

fn dialect(client: ClientKind) -> Option<Box<dyn RecordFormat>> {
    match client {
        ClientKind::Claude => Some(Box::<claude::ClaudeFormat>::default()),
        ClientKind::Codex => Some(Box::<codex::CodexFormat>::default()),
        ClientKind::Other => None,
    }
}

/// Returns the messages in a text for a model, with the parts of their bodies there. Only headers
/// at the beginning of a line are peerd's own: text of peers has a mark before it.
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

/// Returns the message of a header: `[m-… request] from … · 31 chars`.
fn header(line: &str) -> Option<MessageId> {
    // Clients put their own text before it, such as `PostToolBatch hook additional context: `.
    let start = if line.starts_with('[') {
        0
    } else {
        line.find(": [").filter(|_| !line.starts_with(QUOTE.trim_end()))? + 2
    };
    let (id, rest) = line[start..].strip_prefix('[')?.split_once(' ')?;
    rest.contains("] from ").then(|| id.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
