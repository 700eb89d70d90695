//! Searching: a thread of its own that keeps an index of the store, and answers from it.
//!
//! It reads the store through its own snapshots and never holds up the engine, which only hands it what is asked and says
//! when it is idle: then what came since is indexed, unless work comes. A search first indexes what it lacks, so that what
//! was sent before it is found. Does not know who may see what: that was ruled before.
//!
//! Invariants: the thread sleeps while nothing is asked and the engine does not go idle; the index holds nothing that the
//! store does not, and can be thrown away at any time.

mod entry;
mod index;
mod snippet;
mod words;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use peer_core::step::Search;
use peer_proto::ids::{PeerId, Timestamp};
use peer_proto::limits::DISK_RESERVE_BYTES;
use peer_proto::message::Kind;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{Reply, RequestId};
use peer_proto::search::{Hit, HitKind};
use tantivy::tokenizer::TextAnalyzer;
use words::Part;

pub use self::index::{CaughtUp, Index, IndexError, IndexReport, Looked};

use crate::outbox::Outbox;
use crate::state_dir;
use crate::store::{Reader, Reference, Snapshot, StoreError};

/// The engine's handle on the thread. Dropped, it ends the thread and waits for its end.
#[derive(Debug)]
pub(crate) struct Searching {
    jobs: Option<Sender<Job>>,
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

/// What the two threads tell each other beside the jobs.
#[derive(Debug, Default)]
struct Signals {
    /// The engine has work: what is done for the future waits.
    busy: AtomicBool,
    stopping: AtomicBool,
    /// Counts the engine's commits.
    commits: AtomicU64,
    /// The row up to which the index has seen what it must look at again, for good.
    seen_row: AtomicU64,
}

#[derive(Debug)]
enum Job {
    /// The engine is idle.
    Idle,
    /// Somebody asks.
    Ask(Question),
}

#[derive(Debug)]
struct Question {
    outbox: Outbox,
    id: RequestId,
    search: Box<Search>,
    now: Timestamp,
}

impl Searching {
    /// Starts the thread, on the index in `dir`.
    pub(crate) fn start(reader: Reader, dir: PathBuf) -> std::io::Result<Self> {
        let (jobs, arriving) = mpsc::channel();
        let signals = Arc::new(Signals::default());
        let log = tracing::dispatcher::get_default(Clone::clone);
        let desk = Desk { reader, dir, index: None, whole_at: None, signals: Arc::clone(&signals), analyzer: words::analyzer() };
        let thread = std::thread::Builder::new().name("search".into()).spawn(move || {
            let _logging = tracing::dispatcher::set_default(&log);
            desk.run(&arriving);
        })?;
        Ok(Self { jobs: Some(jobs), signals, thread: Some(thread) })
    }

    /// Has a search answered, some time.
    pub(crate) fn ask(&self, outbox: Outbox, id: RequestId, search: Box<Search>, now: Timestamp) {
        let asked = Job::Ask(Question { outbox, id, search, now });
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(asked));
        if let Some(Err(mpsc::SendError(Job::Ask(question)))) = sent {
            question.outbox.reply(id, Err(unavailable("the search has ended; see the end of broker.log".into())));
        }
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
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(Job::Idle));
    }

    /// The row up to which the store need not keep what the index was to look at again.
    pub(crate) fn seen_row(&self) -> u64 {
        self.signals.seen_row.load(Ordering::Relaxed)
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        self.signals.stopping.store(true, Ordering::Relaxed);
        self.jobs = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the search thread died; the index is checked at the next start");
        }
    }
}

/// The thread's own.
struct Desk {
    reader: Reader,
    dir: PathBuf,
    index: Option<Index>,
    /// Everything is indexed up to this commit of the engine's; none: not known.
    whole_at: Option<u64>,
    signals: Arc<Signals>,
    analyzer: TextAnalyzer,
}

impl Desk {
    fn run(mut self, arriving: &Receiver<Job>) {
        // At once, and not with the first job: whether the index is this store's shows in what the store holds now.
        if let Err(error) = self.reader.snapshot().map_err(IndexError::from).and_then(|store| self.open(&store)) {
            tracing::warn!(cause = %error, "the search index cannot be opened");
        }
        for job in arriving {
            if self.signals.stopping.load(Ordering::Relaxed) {
                break;
            }
            match job {
                Job::Idle => {
                    let signals = Arc::clone(&self.signals);
                    let stop = || signals.busy.load(Ordering::Relaxed) || signals.stopping.load(Ordering::Relaxed);
                    if let Err(error) = self.catch_up(&stop) {
                        tracing::warn!(cause = %error, "the search index cannot go on");
                        self.let_go();
                    }
                }
                Job::Ask(Question { outbox, id, search, now }) => outbox.reply(id, self.answer(&search, now)),
            }
        }
    }

    /// After an error: opened again, the index is looked at, and made anew if that is what it needs.
    fn let_go(&mut self) {
        (self.index, self.whole_at) = (None, None);
    }

    fn open(&mut self, store: &Snapshot) -> Result<(), IndexError> {
        let index = Index::open(&self.dir, store)?;
        self.signals.seen_row.store(index.seen_row(), Ordering::Relaxed);
        self.index = Some(index);
        Ok(())
    }

    /// Indexes what is missing; an index that gets in the way is made anew, once.
    fn catch_up(&mut self, stop: &dyn Fn() -> bool) -> Result<CaughtUp, IndexError> {
        let commits = self.signals.commits.load(Ordering::Acquire);
        if self.whole_at == Some(commits) {
            return Ok(CaughtUp::Whole);
        }
        self.whole_at = None;
        if state_dir::free_bytes(self.dir.parent().unwrap_or(Path::new("/"))).is_ok_and(|free| free < DISK_RESERVE_BYTES) {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(IndexError::Directory { path: self.dir.clone(), source });
        }
        let mut caught_up = self.try_to_catch_up(stop);
        if let Err(error @ (IndexError::Behind | IndexError::Lost { .. } | IndexError::Index(_))) = &caught_up {
            tracing::warn!(cause = ?error, "the search index is made anew");
            self.index = None;
            self.index = Some(Index::create(&self.dir)?);
            caught_up = self.try_to_catch_up(stop);
        }
        self.whole_at = matches!(caught_up, Ok(CaughtUp::Whole)).then_some(commits);
        caught_up
    }

    fn try_to_catch_up(&mut self, stop: &dyn Fn() -> bool) -> Result<CaughtUp, IndexError> {
        if self.index.is_none() {
            self.open(&self.reader.snapshot()?)?;
        }
        let Some(index) = &mut self.index else { return Err(IndexError::Behind) };
        let caught_up = index.catch_up(&self.reader, stop)?;
        self.signals.seen_row.store(index.seen_row(), Ordering::Relaxed);
        Ok(caught_up)
    }

    fn answer(&mut self, search: &Search, now: Timestamp) -> Result<Reply, Refusal> {
        let signals = Arc::clone(&self.signals);
        let caught_up = self.catch_up(&|| signals.stopping.load(Ordering::Relaxed));
        let found = caught_up.and_then(|caught_up| match (caught_up, &self.index) {
            (CaughtUp::Whole, Some(index)) => hits(index, &self.reader.snapshot()?, &mut self.analyzer, search, now).map(Some),
            _ => Ok(None),
        });
        match found {
            Ok(Some((hits, total))) => Ok(Reply::Hits { hits, total }),
            Ok(None) => Err(Refusal {
                code: ErrorCode::Stopping,
                message: "the broker is stopping".into(),
                hint: "ask again: the next command starts it".into(),
                retry_after_ms: None,
            }),
            Err(error) => {
                tracing::warn!(cause = ?error, "a search failed");
                self.let_go();
                Err(unavailable(error.to_string()))
            }
        }
    }
}

fn unavailable(message: String) -> Refusal {
    Refusal {
        code: ErrorCode::Overloaded,
        message,
        hint: "`peerctl history` reads without the index; `peerctl daemon stop`, then `peerctl daemon reindex` makes it anew"
            .into(),
        retry_after_ms: None,
    }
}

/// Runs a search that the rules allowed on what is indexed: what was found, and how much there is in all.
///
/// # Errors
/// Where the index or the store cannot be read.
pub fn find(index: &Index, store: &Snapshot, search: &Search, now: Timestamp) -> Result<(Vec<Hit>, u64), IndexError> {
    hits(index, store, &mut words::analyzer(), search, now)
}

fn hits(
    index: &Index,
    store: &Snapshot,
    analyzer: &mut TextAnalyzer,
    search: &Search,
    now: Timestamp,
) -> Result<(Vec<Hit>, u64), IndexError> {
    let parts = words::parts(&search.query.text);
    let found = index.find(search, &parts)?;
    let mut total = found.total;
    let mut hits = Vec::with_capacity(found.references.len());
    for reference in &found.references {
        match hit(store, analyzer, &parts, reference, now)? {
            Some(hit) => hits.push(hit),
            // It was taken out since, or its time is over.
            None => total = total.saturating_sub(1),
        }
    }
    Ok((hits, total))
}

fn hit(
    store: &Snapshot,
    analyzer: &mut TextAnalyzer,
    parts: &[Part],
    reference: &Reference,
    now: Timestamp,
) -> Result<Option<Hit>, StoreError> {
    Ok(match reference {
        Reference::Message(id) => store.message(*id)?.map(|message| {
            let snippet = snippet::snippet(analyzer, &message.text, parts);
            let head = message.head;
            Hit {
                kind: match head.kind {
                    Kind::Question => HitKind::Question,
                    Kind::Answer => HitKind::Answer,
                    Kind::Message | Kind::Notice => HitKind::Message,
                },
                id: id.to_string(),
                from: head.from.name,
                to: match head.channel {
                    Some(channel) => vec![channel],
                    None => head.to.into_iter().map(|(_, name)| name).collect(),
                },
                at: head.sent_at,
                snippet: snippet.text,
                matches: snippet.matches,
            }
        }),
        Reference::Note(key) => store.note(key)?.filter(|note| note.head.expires_at.is_none_or(|at| at > now)).map(|note| {
            let snippet = snippet::snippet(analyzer, &note.value, parts);
            Hit {
                kind: HitKind::Note,
                id: note.head.key,
                from: note.head.author,
                to: Vec::new(),
                at: note.head.changed_at,
                snippet: snippet.text,
                matches: snippet.matches,
            }
        }),
        Reference::Task(id) => match store.task(*id)? {
            Some(task) => {
                let texts = [&task.title, &task.description, &task.result].map(|text| text.trim());
                let text = texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" · ");
                let snippet = snippet::snippet(analyzer, &text, parts);
                Some(Hit {
                    kind: HitKind::Task,
                    id: id.to_string(),
                    from: name_of(store, task.creator)?,
                    to: Vec::new(),
                    at: task.changed_at,
                    snippet: snippet.text,
                    matches: snippet.matches,
                })
            }
            None => None,
        },
    })
}

fn name_of(store: &Snapshot, peer: PeerId) -> Result<String, StoreError> {
    Ok(match store.peer_name(peer)? {
        Some(name) => name,
        None if peer == PeerId::HUMAN => "human".to_owned(),
        None => peer.to_string(),
    })
}
