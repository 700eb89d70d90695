//! Searching: a process of its own that keeps an index of the store, and a thread that feeds and asks it.
//!
//! The index is made by a library that trusts its files: over a wrong byte it ends its process, and over a file that was cut
//! while it was mapped the system does. Nothing of that may reach the mail. So the index is open in another process
//! (`process`), which is forked by a small parent (`parent`) and may touch the index alone (`confine`). The thread (`indexer`)
//! reads the store, sends what is to be indexed (`feed`, `wire`), and makes answers of what was found (`answer`). Neither
//! knows who may see what: that was ruled before.
//!
//! Invariants: before the first search there is no thread and no process but the parent. The engine waits for neither. The
//! index holds nothing that the store does not, and can be thrown away at any time.

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
use self::indexer::{Event, Indexer, Question};
pub use self::local::{CaughtUp, IndexReport, LocalIndex, LocalLooked};
pub(crate) use self::parent::{Parent, in_a_child};
use crate::outbox::Outbox;
use crate::store::Snapshots;

/// The engine's handle on the search. Dropped, it ends the thread and the processes, and waits for their end.
#[derive(Debug)]
pub(crate) struct Searching {
    snapshots: Snapshots,
    dir: PathBuf,
    /// The thread's, once it was started.
    parent: Option<Parent>,
    signals: Arc<Signals>,
    indexer: Option<(Sender<Event>, JoinHandle<()>)>,
}

/// Who waits for the answer to a search.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) outbox: Outbox,
    pub(crate) id: RequestId,
    pub(crate) addressee: Addressee,
}

impl Asker {
    fn answer(&self, answer: Result<Reply, Rejection>) {
        self.outbox.reply(self.id, answer.map_err(|rejection| rejection.refusal(self.addressee)));
    }

    fn refuse(&self, rejection: &Rejection) {
        self.outbox.reply(self.id, Err(rejection.refusal(self.addressee)));
    }
}

/// What the two threads tell each other beside the events.
#[derive(Debug, Default)]
struct Signals {
    /// The engine has work: what is done for the future waits.
    busy: AtomicBool,
    /// Counts the engine's commits.
    commits: AtomicU64,
    /// The row up to which the index has seen what it must look at again, for good.
    seen_row: AtomicU64,
    /// The line to the search process: cut, nobody waits for it.
    line: Mutex<Option<UnixStream>>,
}

impl Searching {
    /// Nothing is started before somebody searches the index in `dir`. Without a parent every search is refused.
    pub(crate) fn new(snapshots: Snapshots, dir: PathBuf, parent: Option<Parent>) -> Self {
        let signals = Signals::default();
        if !dir.join("meta.json").exists() {
            // Whoever makes an index looks at everything.
            signals.seen_row.store(u64::MAX, Ordering::Relaxed);
        }
        Self { snapshots, dir, parent, signals: Arc::new(signals), indexer: None }
    }

    /// Has a search answered, some time.
    pub(crate) fn ask(&mut self, asker: Asker, search: Box<Search>, now: Timestamp) {
        let commits = self.signals.commits.load(Ordering::Acquire);
        let events = match self.start() {
            Ok(events) => events,
            Err(reason) => return asker.refuse(&Rejection::NoIndex { reason }),
        };
        let question = Question { asker, search, now, asked_at: Instant::now(), commits };
        if let Err(mpsc::SendError(Event::Ask(question))) = events.send(Event::Ask(question)) {
            let reason = "the search has ended, and the end of broker.log says why".into();
            question.asker.refuse(&Rejection::NoIndex { reason });
        }
    }

    /// The thread, started where it does not run.
    fn start(&mut self) -> Result<&Sender<Event>, String> {
        if self.indexer.is_none() {
            // Until it is known how far the index is, what it must look at again is kept.
            self.signals.seen_row.store(0, Ordering::Relaxed);
            let parent = self.parent.take().ok_or("the search has no process to start from")?;
            let (events, arriving) = mpsc::channel();
            let indexer =
                Indexer::new(self.snapshots.clone(), self.dir.clone(), parent, Arc::clone(&self.signals), events.clone());
            let log = tracing::dispatcher::get_default(Clone::clone);
            let run = move || {
                let _logging = tracing::dispatcher::set_default(&log);
                indexer.run(&arriving);
            };
            let thread = std::thread::Builder::new().name("search".into()).spawn(run);
            let thread = thread.map_err(|error| format!("the search's thread cannot be started: {error}"))?;
            self.indexer = Some((events, thread));
        }
        self.indexer.as_ref().map(|(events, _)| events).ok_or_else(|| "the search has ended".to_owned())
    }

    /// The engine works: what is indexed ahead of need waits.
    pub(crate) fn hold(&self) {
        self.signals.busy.store(true, Ordering::Relaxed);
    }

    /// Something was committed: a snapshot that is taken from now on has it.
    pub(crate) fn committed(&self) {
        self.signals.commits.fetch_add(1, Ordering::Release);
    }

    /// The engine is idle: this is the time.
    pub(crate) fn go_on(&self) {
        self.signals.busy.store(false, Ordering::Relaxed);
        // Whether it still lives shows when somebody asks.
        let _ = self.indexer.as_ref().map(|(events, _)| events.send(Event::Idle));
    }

    /// The row up to which the store need not keep what the index was to look at again.
    pub(crate) fn seen_row(&self) -> u64 {
        self.signals.seen_row.load(Ordering::Relaxed)
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        let Some((events, thread)) = self.indexer.take() else { return };
        let _ = events.send(Event::Stop);
        if let Some(line) = self.signals.line.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = line.shutdown(Shutdown::Both);
        }
        if thread.join().is_err() {
            tracing::error!("the search thread died; the index is checked at the next start");
        }
    }
}
