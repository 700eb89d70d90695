//! Search: a process of its own that has the index of the store, and a thread that feeds and
//! queries it.
//!
//! The index library trusts its files: on a wrong byte it ends its process, and the system does so
//! if a mapped file is cut. Mail must not be affected by that. So the index is open in another
//! process (`process`), which a small parent (`parent`) forks, and which may access the index only
//! (`confine`). The thread (`indexer`) reads the store, sends items to index (`feed`, `wire`), and
//! builds answers from hits (`answer`). Neither knows who may see what: the rules decided that
//! before.
//!
//! Invariants: before the first search there is no thread, and no process but the parent. The
//! engine waits for neither. The index holds nothing that the store does not, and can be deleted at
//! any time.

mod answer;
mod confine;
mod entry;
mod feed;
mod index;
mod indexer;
mod local;
mod parent;
mod process;
mod snippet;
mod wire;
mod words;

#[cfg(test)]
mod tests;

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use peer_core::rejection::Rejection;
use peer_core::step::Search;
use peer_core::wording::Addressee;
use peer_proto::ids::Timestamp;
use peer_proto::request::{Reply, RequestId};

pub use self::index::IndexError;
use self::indexer::{Indexer, IndexerEvent, PendingSearch};
pub use self::local::{CaughtUp, IndexReport, LocalIndex, LocalLooked};
pub(crate) use self::parent::{Parent, in_a_child};
use crate::outbox::Outbox;
use crate::store::Snapshots;

/// The engine's handle on the search. Dropping it ends the thread and the processes, and waits for
/// their end.
#[derive(Debug)]
pub(crate) struct Searching {
    snapshots: Snapshots,
    dir: PathBuf,
    /// Moved to the thread when it starts.
    parent: Option<Parent>,
    signals: Arc<IndexSignals>,
    indexer: Option<(Sender<IndexerEvent>, JoinHandle<()>)>,
}

/// The connection that waits for the answer to a search.
#[derive(Debug)]
pub(crate) struct SearchOrigin {
    pub(crate) outbox: Outbox,
    pub(crate) id: RequestId,
    pub(crate) addressee: Addressee,
}

impl SearchOrigin {
    fn answer(&self, answer: Result<Reply, Rejection>) {
        self.outbox.reply(self.id, answer.map_err(|rejection| rejection.refusal(self.addressee)));
    }

    fn refuse(&self, rejection: &Rejection) {
        self.outbox.reply(self.id, Err(rejection.refusal(self.addressee)));
    }
}

/// The state that the two threads share beside the events.
#[derive(Debug, Default)]
struct IndexSignals {
    /// Whether the engine has work, so that indexing in advance must wait.
    busy: AtomicBool,
    /// Counts the engine's commits.
    commits: AtomicU64,
    /// The row up to which the index has durably read the changes.
    seen_row: AtomicU64,
    /// The connection to the search process. Shutting it down ends every wait for the process.
    line: Mutex<Option<UnixStream>>,
}

impl Searching {
    /// Creates the handle, without starting anything before the first search of the index in `dir`.
    /// Without a parent every search is refused.
    pub(crate) fn new(snapshots: Snapshots, dir: PathBuf, parent: Option<Parent>) -> Self {
        let signals = IndexSignals::default();
        if !dir.join("meta.json").exists() {
            // A new index reads everything, so no changes need be retained.
            signals.seen_row.store(u64::MAX, Ordering::Relaxed);
        }
        Self { snapshots, dir, parent, signals: Arc::new(signals), indexer: None }
    }

    /// Queues a search. The answer comes later.
    pub(crate) fn ask(&mut self, asker: SearchOrigin, search: Box<Search>, now: Timestamp) {
        let commits = self.signals.commits.load(Ordering::Acquire);
        let events = match self.start() {
            Ok(events) => events,
            Err(reason) => return asker.refuse(&Rejection::NoIndex { reason }),
        };
        let question = PendingSearch { asker, search, now, asked_at: Instant::now(), commits };
        if let Err(mpsc::SendError(IndexerEvent::Ask(question))) =
            events.send(IndexerEvent::Ask(question))
        {
            let reason = "the search has ended, and the end of broker.log says why".into();
            question.asker.refuse(&Rejection::NoIndex { reason });
        }
    }

    /// Returns the thread's queue, and starts the thread if it does not run.
    fn start(&mut self) -> Result<&Sender<IndexerEvent>, String> {
        if self.indexer.is_none() {
            // Until the position of the index is known, all changes are retained.
            self.signals.seen_row.store(0, Ordering::Relaxed);
            let parent = self
                .parent
                .take()
                .ok_or("the broker has no parent process that could start the search process")?;
            let (events, arriving) = mpsc::channel();
            let indexer = Indexer::new(
                self.snapshots.clone(),
                self.dir.clone(),
                parent,
                Arc::clone(&self.signals),
                events.clone(),
            );
            let log = tracing::dispatcher::get_default(Clone::clone);
            let run = move || {
                let _logging = tracing::dispatcher::set_default(&log);
                indexer.run(&arriving);
            };
            let thread = std::thread::Builder::new().name("search".into()).spawn(run);
            let thread = thread
                .map_err(|error| format!("cannot start the thread of the search: {error}"))?;
            self.indexer = Some((events, thread));
        }
        self.indexer
            .as_ref()
            .map(|(events, _)| events)
            .ok_or_else(|| "the search has ended".to_owned())
    }

    /// The engine has work: pauses indexing in advance.
    pub(crate) fn hold(&self) {
        self.signals.busy.store(true, Ordering::Relaxed);
    }

    /// Counts a commit: a snapshot that is taken from now on includes it.
    pub(crate) fn committed(&self) {
        self.signals.commits.fetch_add(1, Ordering::Release);
    }

    /// The engine is idle: resumes indexing in advance.
    pub(crate) fn go_on(&self) {
        self.signals.busy.store(false, Ordering::Relaxed);
        // The next search finds out whether the thread still lives.
        let _ = self.indexer.as_ref().map(|(events, _)| events.send(IndexerEvent::Idle));
    }

    /// The row up to which the store need not retain changes for the index.
    pub(crate) fn seen_row(&self) -> u64 {
        self.signals.seen_row.load(Ordering::Relaxed)
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        let Some((events, thread)) = self.indexer.take() else { return };
        let _ = events.send(IndexerEvent::Stop);
        if let Some(line) = self.signals.line.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            let _ = line.shutdown(Shutdown::Both);
        }
        if thread.join().is_err() {
            tracing::error!("the search thread died; the index is checked at the next start");
        }
    }
}
