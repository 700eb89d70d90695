//! The broker's search thread: feeds the search process, queries it, and answers with its hits.
//!
//! It reads the store through its own snapshots and never delays the engine, which only passes
//! searches on and reports when it is idle. A search first waits until earlier commits are indexed.
//! After [`CATCH_UP`] it is answered from the indexed part, and states how much is missing. Does
//! not know who may see what: the rules decided that before.
//!
//! Invariants: the thread sleeps while there is no search, nothing is under way and the engine does
//! not become idle. It never blocks on the search process. A process that does not answer, or sends
//! an invalid frame, is ended. The next search starts it again, at once the first time, then after
//! a pause. An index on which the process failed is not read again.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use peer_core::rejection::Rejection;
use peer_core::step::Search;
use peer_proto::ids::Timestamp;
use peer_proto::limits::DISK_RESERVE_BYTES;
use peer_proto::request::Reply;
use tantivy::tokenizer::TextAnalyzer;

use super::SearchOrigin;
use super::feed::{self, Batch};
use super::index::{COMMIT_BYTES, IndexError};
use super::local::make_private;
use super::parent::{Parent, ProcessEnd};
use super::wire::{self, Cursor, SearchHits, SearchReply, SearchRequest};
use super::{IndexSignals, answer, words};
use crate::state_dir;
use crate::store::Snapshots;

/// The time after which a search is answered from the indexed part. It is refused if the rest of
/// the deadline was not enough.
const CATCH_UP: Duration = Duration::from_millis(300);

/// The deadline of a search.
pub(super) const DEADLINE: Duration = Duration::from_millis(500);

/// The time for one search after which the search process is ended, so that the next search need
/// not wait for it.
const FINDING: Duration = Duration::from_secs(2);

/// The time for opening the index or for one batch after which the search process is ended.
const WORKING: Duration = Duration::from_secs(60);

/// The time that a frame may wait for room. The process reads all frames but searches at once.
const WRITING: Duration = Duration::from_secs(2);

/// The pause after the second death in a row. It doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// An event for the thread.
#[derive(Debug)]
pub(super) enum IndexerEvent {
    /// The engine is idle.
    Idle,
    Ask(PendingSearch),
    /// The search process of this number sent a frame. `None`: its connection closed.
    Replied(u64, Option<SearchReply>),
    Stop,
}

#[derive(Debug)]
pub(super) struct PendingSearch {
    pub(super) asker: SearchOrigin,
    pub(super) search: Box<Search>,
    pub(super) now: Timestamp,
    pub(super) asked_at: Instant,
    /// The engine's commits at the time of the search: the search must include them.
    pub(super) commits: u64,
}

/// A search that waits.
struct Pending {
    question: PendingSearch,
    /// Its number and how much was not indexed, once it was sent to the process.
    sent: Option<(u64, u64)>,
}

/// The connection to a search process.
struct SearchLink {
    stream: UnixStream,
    number: u64,
    /// The request without an answer, and when it was sent.
    doing: Option<(IndexWork, Instant)>,
    /// The search without an answer, and when it was sent.
    finding: Option<(u64, Instant)>,
    opened: bool,
    cursor: Cursor,
    /// How many entries can be found.
    entries: u64,
    uncommitted_bytes: usize,
    uncommitted: bool,
    /// The commit of the engine up to which everything is indexed and can be found.
    whole_at: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum IndexWork {
    Opening,
    /// A batch from the store as of this commit. `last`: there was nothing more.
    Batch {
        commits: u64,
        last: bool,
        row: u64,
    },
}

/// The reason for indexing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IndexPriority {
    Not,
    /// To index in advance, while the engine is idle.
    Idle,
    /// A search waits for it.
    Now,
}

/// The state of the thread.
pub(super) struct Indexer {
    snapshots: Snapshots,
    dir: PathBuf,
    parent: Parent,
    signals: Arc<IndexSignals>,
    events: Sender<IndexerEvent>,
    analyzer: TextAnalyzer,
    line: Option<SearchLink>,
    lines: u64,
    finds: u64,
    pending: VecDeque<Pending>,
    wanted: IndexPriority,
    /// Search processes that died since the last answer of one.
    deaths: u32,
    not_before: Option<Instant>,
    /// Whether the index in the directory must not be read.
    distrusted: bool,
    last_words: String,
}

impl Indexer {
    pub(super) fn new(
        snapshots: Snapshots,
        dir: PathBuf,
        parent: Parent,
        signals: Arc<IndexSignals>,
        events: Sender<IndexerEvent>,
    ) -> Self {
        Self {
            snapshots,
            dir,
            parent,
            signals,
            events,
            analyzer: words::analyzer(),
            line: None,
            lines: 0,
            finds: 0,
            pending: VecDeque::new(),
            wanted: IndexPriority::Not,
            deaths: 0,
            not_before: None,
            distrusted: false,
            last_words: String::new(),
        }
    }

    pub(super) fn run(mut self, arriving: &Receiver<IndexerEvent>) {
        loop {
            let arrived = match self.due() {
                Some(at) => arriving.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => arriving.recv().map_err(RecvTimeoutError::from),
            };
            match arrived {
                Ok(IndexerEvent::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.go_on(Instant::now());
        }
        for pending in self.pending.drain(..) {
            pending.question.asker.refuse(&Rejection::Stopping);
        }
        // Dropping the parent ends both processes.
    }

    /// Returns the next time at which something is due without an event.
    fn due(&self) -> Option<Instant> {
        let questions = self.pending.iter().map(|pending| match pending.sent {
            None if self
                .line
                .as_ref()
                .is_some_and(|line| line.finding.is_none() && line.opened) =>
            {
                pending.question.asked_at + CATCH_UP
            }
            _ => pending.question.asked_at + DEADLINE,
        });
        let doing =
            self.line.as_ref().and_then(|line| line.doing).map(|(_, since)| since + WORKING);
        let finding =
            self.line.as_ref().and_then(|line| line.finding).map(|(_, since)| since + FINDING);
        questions.chain(doing).chain(finding).min()
    }

    fn take(&mut self, event: IndexerEvent) {
        match event {
            IndexerEvent::Idle if self.line.is_some() => {
                self.wanted = self.wanted.max_of(IndexPriority::Idle)
            }
            IndexerEvent::Idle | IndexerEvent::Stop => {}
            IndexerEvent::Ask(question) => {
                self.wanted = IndexPriority::Now;
                self.pending.push_back(Pending { question, sent: None });
            }
            IndexerEvent::Replied(number, said) => {
                if self.line.as_ref().is_some_and(|line| line.number == number) {
                    match said {
                        Some(said) => self.take_reply(said),
                        None => self.died(),
                    }
                }
            }
        }
    }

    fn take_reply(&mut self, said: SearchReply) {
        let Some(line) = &mut self.line else { return };
        match said {
            SearchReply::Opened { cursor, entries, damaged } => {
                if damaged > 0 {
                    tracing::warn!(files = damaged, "the search index was damaged; it is rebuilt");
                }
                (line.doing, line.opened, line.whole_at) = (None, true, None);
                (line.cursor, line.entries) = (cursor, entries);
                (line.uncommitted, line.uncommitted_bytes) = (false, 0);
                let fits = self.snapshots.take().and_then(|store| feed::fits(&store, cursor));
                match fits {
                    Ok(true) => self.signals.seen_row.store(cursor.row, Ordering::Relaxed),
                    Ok(false) => self.begin(),
                    Err(error) => self.refuse_all(&error.into()),
                }
            }
            SearchReply::Done { committed } => {
                let Some((IndexWork::Batch { commits, last, row }, _)) = line.doing.take() else {
                    return self.end("sent an unexpected reply");
                };
                if let Some(entries) = committed {
                    line.entries = entries;
                    (line.uncommitted, line.uncommitted_bytes) = (false, 0);
                    line.whole_at = last.then_some(commits);
                    self.signals.seen_row.store(row, Ordering::Relaxed);
                }
            }
            SearchReply::Found { number, found } => {
                if line.finding.take().is_none_or(|(sent, _)| sent != number) {
                    return self.end("sent an unexpected reply");
                }
                self.deaths = 0;
                self.found(number, &found);
            }
            SearchReply::Failed { why } => self.last_words = why,
        }
    }

    /// Makes one step after another, until it must wait.
    fn go_on(&mut self, now: Instant) {
        self.give_up(now);
        while self.wanted != IndexPriority::Not || !self.pending.is_empty() {
            if self.line.is_none() && !self.start(now) {
                return;
            }
            if !self.step(now) {
                return;
            }
        }
    }

    /// Makes one step. Returns whether there may be another.
    fn step(&mut self, now: Instant) -> bool {
        let Some(line) = &mut self.line else { return false };
        if !line.opened || matches!(line.doing, Some((IndexWork::Opening, _))) {
            return false;
        }
        // While a search is under way, neither another search nor a batch is sent: both would wait
        // for it.
        if line.finding.is_some() {
            return false;
        }
        let whole_at = line.whole_at;
        let is_due = |question: &PendingSearch| {
            whole_at.is_some_and(|at| at >= question.commits) || now >= question.asked_at + CATCH_UP
        };
        let next = self
            .pending
            .iter()
            .position(|pending| pending.sent.is_none() && is_due(&pending.question));
        if let Some(place) = next {
            return self.start_search(place, now);
        }
        if line.doing.is_some() {
            return false;
        }
        self.index_more(now)
    }

    /// Sends a search to the process.
    fn start_search(&mut self, place: usize, now: Instant) -> bool {
        self.finds += 1;
        let (Some(line), Some(pending)) = (&mut self.line, self.pending.get_mut(place)) else {
            return false;
        };
        let whole = line.whole_at.is_some_and(|at| at >= pending.question.commits);
        let behind = match whole {
            true => 0,
            false => self
                .snapshots
                .take()
                .and_then(|store| store.entries())
                .map_or(1, |entries| entries.saturating_sub(line.entries).max(1)),
        };
        let asked =
            SearchRequest::Find { number: self.finds, search: pending.question.search.clone() };
        pending.sent = Some((self.finds, behind));
        line.finding = Some((self.finds, now));
        let asker = pending.question.asker.outbox.clone();
        if let Err(error) = wire::write(&mut line.stream, &asked) {
            self.end(&format!("cannot be written to: {error}"));
        }
        // Each connection gets one turn: its other searches wait behind those of other connections.
        let (others, its): (Vec<_>, Vec<_>) = self
            .pending
            .drain(..)
            .partition(|pending| !pending.question.asker.outbox.is_same(&asker));
        self.pending.extend(others.into_iter().chain(its));
        true
    }

    /// Sends the next batch. Returns whether another step may follow.
    fn index_more(&mut self, now: Instant) -> bool {
        let commits = self.signals.commits.load(Ordering::Acquire);
        let busy = self.wanted == IndexPriority::Idle && self.signals.busy.load(Ordering::Relaxed);
        let Some(line) = &mut self.line else { return false };
        if line.whole_at == Some(commits) || (busy && !line.uncommitted) {
            self.wanted = IndexPriority::Not;
            // Searches that still wait are answered now.
            return !self.pending.is_empty() && line.whole_at == Some(commits);
        }
        let free = state_dir::free_bytes(self.dir.parent().unwrap_or(Path::new("/")));
        if free.is_ok_and(|free| free < DISK_RESERVE_BYTES) {
            let source = io::ErrorKind::StorageFull.into();
            self.refuse_all(&IndexError::Directory { path: self.dir.clone(), source });
            return false;
        }
        let batch = match self.snapshots.take().and_then(|store| feed::batch(&store, line.cursor)) {
            Ok(batch) => batch,
            Err(error) => {
                self.refuse_all(&error.into());
                return false;
            }
        };
        let (puts, cursor, bytes, last) = match batch {
            Batch::Behind => {
                self.begin();
                return true;
            }
            Batch::Nothing => (Vec::new(), line.cursor, 0, true),
            Batch::Work { puts, cursor, bytes } => (puts, cursor, bytes, false),
        };
        if last && !line.uncommitted {
            line.whole_at = Some(commits);
            return true;
        }
        line.uncommitted = true;
        line.uncommitted_bytes += bytes;
        line.cursor = cursor;
        let commit = last || busy || line.uncommitted_bytes >= COMMIT_BYTES;
        line.doing = Some((IndexWork::Batch { commits, last, row: cursor.row }, now));
        let puts = puts.into_iter().map(|put| SearchRequest::Put(Box::new(put)));
        for asked in puts.chain([SearchRequest::Through { cursor, commit }]) {
            if let Err(error) = wire::write(&mut line.stream, &asked) {
                self.end(&format!("cannot be written to: {error}"));
                return true;
            }
        }
        true
    }

    /// The index was made from another store, or the store continued without it.
    fn begin(&mut self) {
        let Some(line) = &mut self.line else { return };
        tracing::warn!("the search index does not match the store; it is rebuilt");
        (line.opened, line.doing, line.whole_at) =
            (false, Some((IndexWork::Opening, Instant::now())), None);
        if let Err(error) = wire::write(&mut line.stream, &SearchRequest::Begin) {
            self.end(&format!("cannot be written to: {error}"));
        }
    }

    /// Starts a search process. Returns whether there is one.
    fn start(&mut self, now: Instant) -> bool {
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            let retry_after_ms = at.duration_since(now).as_millis() as u64 + 1;
            let last_words = self.last_words.clone();
            self.refuse(&Rejection::SearchDied { deaths: self.deaths, last_words, retry_after_ms });
            return false;
        }
        match self.try_to_start(now) {
            Ok(line) => {
                self.line = Some(line);
                true
            }
            Err(source) => {
                self.refuse_all(&IndexError::Directory { path: self.dir.clone(), source });
                false
            }
        }
    }

    fn try_to_start(&mut self, now: Instant) -> io::Result<SearchLink> {
        make_private(&self.dir)?;
        let stream = self.parent.start(self.distrusted)?;
        stream.set_write_timeout(Some(WRITING))?;
        let mut hearing = stream.try_clone()?;
        *self.signals.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some(stream.try_clone()?);
        self.lines += 1;
        let (number, events) = (self.lines, self.events.clone());
        self.last_words.clear();
        std::thread::Builder::new().name("search-line".into()).spawn(move || {
            loop {
                let said = wire::read(&mut hearing).ok().flatten();
                let over = said.is_none();
                if events.send(IndexerEvent::Replied(number, said)).is_err() || over {
                    break;
                }
            }
        })?;
        tracing::debug!(anew = self.distrusted, "the search process is up");
        self.distrusted = false;
        Ok(SearchLink {
            stream,
            number,
            doing: Some((IndexWork::Opening, now)),
            finding: None,
            opened: false,
            cursor: Cursor::default(),
            entries: 0,
            uncommitted_bytes: 0,
            uncommitted: false,
            whole_at: None,
        })
    }

    /// Ends a search process that failed to do its work.
    fn end(&mut self, why: &str) {
        self.last_words = format!("it {why}, and was ended");
        // If it happens twice in a row, the index is the cause.
        self.distrusted |= self.deaths > 0;
        self.died();
    }

    /// Cleans up after a search process that is gone or must go.
    fn died(&mut self) {
        if let Some(line) = self.line.take() {
            let _ = line.stream.shutdown(Shutdown::Both);
        }
        match self.parent.end() {
            Ok(ProcessEnd::Broke(code)) => {
                self.distrusted = true;
                if self.last_words.is_empty() {
                    self.last_words = match code < 0 {
                        true => format!("signal {}", -code),
                        false => format!("exit code {code}"),
                    };
                }
            }
            Ok(ProcessEnd::Killed | ProcessEnd::None) if self.last_words.is_empty() => {
                self.last_words = "it was killed".into()
            }
            Ok(_) => {}
            Err(error) => {
                self.last_words = format!("its parent is gone ({error}); restart the broker")
            }
        }
        self.deaths += 1;
        tracing::warn!(cause = %self.last_words, deaths = self.deaths, anew = self.distrusted, "the search process ended");
        self.not_before = (self.deaths > 1).then(|| {
            let doubled = PAUSE_MIN.saturating_mul(1 << (self.deaths - 2).min(6));
            Instant::now() + doubled.min(PAUSE_MAX)
        });
        // They are sent again, as long as they may wait.
        self.pending.iter_mut().for_each(|pending| pending.sent = None);
        if self.wanted == IndexPriority::Idle || self.pending.is_empty() {
            self.wanted = IndexPriority::Not;
        }
    }

    /// Answers searches that waited too long, and ends a process that takes too long.
    fn give_up(&mut self, now: Instant) {
        // A search that the process works on ends by itself.
        self.pending
            .retain(|pending| pending.sent.is_some() || !pending.question.asker.outbox.is_ending());
        while let Some(place) =
            self.pending.iter().position(|pending| now >= pending.question.asked_at + DEADLINE)
        {
            let Some(Pending { question, sent }) = self.pending.remove(place) else { break };
            let answer = match sent {
                Some(_) => Err(Rejection::SearchGivenUp { after_ms: DEADLINE.as_millis() as u64 }),
                // The search was not sent.
                None => {
                    let entries = self.snapshots.take().and_then(|store| store.entries());
                    Ok(Reply::Hits {
                        hits: Vec::new(),
                        total: 0,
                        behind: entries.unwrap_or(1).max(1),
                    })
                }
            };
            question.asker.answer(answer);
        }
        let Some(line) = &self.line else { return };
        if line.finding.is_some_and(|(_, since)| now >= since + FINDING) {
            self.end("did not answer a search in time");
        } else if line.doing.is_some_and(|(_, since)| now >= since + WORKING) {
            self.end("did not answer in time");
        }
    }

    /// Answers the search of this number.
    fn found(&mut self, number: u64, found: &SearchHits) {
        let of = |pending: &Pending| pending.sent.is_some_and(|(sent, _)| sent == number);
        let Some(place) = self.pending.iter().position(of) else { return };
        let Some(Pending { question, sent }) = self.pending.remove(place) else { return };
        let behind = sent.map_or(0, |(_, behind)| behind);
        let parts = words::parts(&question.search.query.text);
        let answer = self
            .snapshots
            .take()
            .and_then(|store| answer::hits(&store, &mut self.analyzer, &parts, found, question.now))
            .map(|(hits, total)| Reply::Hits { hits, total, behind })
            .map_err(|error| Rejection::NoIndex { reason: error.to_string() });
        question.asker.answer(answer);
    }

    fn refuse_all(&mut self, error: &IndexError) {
        tracing::warn!(cause = %crate::Chain(error), "the search index cannot go on");
        self.refuse(&Rejection::NoIndex { reason: error.to_string() });
    }

    fn refuse(&mut self, rejection: &Rejection) {
        self.wanted = IndexPriority::Not;
        for pending in self.pending.drain(..) {
            pending.question.asker.refuse(rejection);
        }
    }
}

impl IndexPriority {
    fn max_of(self, other: Self) -> Self {
        if self == Self::Now { self } else { other }
    }
}
