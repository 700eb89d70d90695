//! peerd's broker: sockets, the engine's thread and the store, around the rules of `peer-core`.
//!
//! Only this crate opens the socket, reads clocks and randomness, and uses redb. It knows none of
//! the rules. To follow a message, read connection, engine, outbox. The modules are in reading
//! order:
//!
//! - [`config`]: the settings that the person may change.
//! - `state_dir`, `listener`, `socket_path`: the directory, the lock, the socket. `rehearsal`:
//!   whether a broker could have them.
//! - `admission`: which accepted connections are served.
//! - `budget`, `frames`, `connection`: bytes to frames within the memory budget, and answers to
//!   bytes.
//! - `turns`: requests for the engine, one from each connection in turn.
//! - `engine`: batch, apply, commit once, carry out effects.
//! - `outbox`: frames that wait for each connection.
//! - `readings`, `query`: answers from the store, a piece at a time.
//! - [`search`]: search by words.
//! - [`store`]: the durable data.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peer_core::broker::Broker;
use peer_proto::handshake::Preface;
use peer_proto::limits::HELLO_TIMEOUT_MS;
use peer_proto::location::{Location, Phase};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::connection::ConnectionContext;
use crate::engine::{BrokerIdentity, Engine};
use crate::listener::Socket;
use crate::search::{IndexError, IndexReport, LocalIndex, LocalLooked, Parent, Searching};
use crate::state_dir::Lock;
use crate::store::{OpenError, Snapshot, Store, StoreError};
use crate::telemetry::Throttle;

pub mod config;
pub mod search;
pub mod store;

mod admission;
mod ancestry;
mod budget;
mod clock;
mod connection;
mod detach;
mod engine;
mod frames;
mod inherited;
mod listener;
mod mail;
mod outbox;
mod query;
mod readings;
mod rehearsal;
mod sandbox;
mod shutdown;
mod socket_path;
mod state_dir;
mod telemetry;
mod turns;

pub use crate::config::ConfigError;
pub use crate::detach::DetachError;
pub use crate::engine::EngineError;
pub use crate::inherited::wait_for_children;
pub use crate::listener::{ServeError, SocketError};
pub use crate::rehearsal::{RehearsalError, rehearse};
pub use crate::sandbox::SandboxError;
pub use crate::state_dir::{DirError, LockError, examine, free_bytes};
pub use crate::telemetry::LogError;

/// The options of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The state directory.
    pub location: Location,
    /// The running executable, as reported to programs that connect.
    pub executable: PathBuf,
    /// Whether the kernel must keep the process from opening network sockets. This cannot be
    /// undone, and holds for the whole process.
    pub sandbox: bool,
    /// Whether to detach from the starter: its session, working directory and descriptors at once,
    /// its stdin, stdout and stderr after `ready`. Then the process must do nothing else.
    pub detached: bool,
}

/// Runs the broker on this thread until it must stop: by SIGTERM or SIGINT, by an operator, or
/// because its socket's path does not lead to it any more.
///
/// `ready` is called once the socket accepts connections. In detached mode the starter's stderr is
/// closed right after.
///
/// # Errors
/// [`RunError::AlreadyRunning`] if another broker holds the directory. The others say what was
/// wrong and what to do. Everything that was acknowledged before an error is on the disk.
pub fn run(options: RunOptions, ready: impl FnOnce()) -> Result<(), RunError> {
    inherited::heed_signals();
    run_with(options, Duration::from_millis(HELLO_TIMEOUT_MS), ready)
}

/// Rebuilds the search index while no broker runs.
///
/// # Errors
/// [`RunError::AlreadyRunning`] if a broker holds the directory. Otherwise the error of the store
/// or the index.
pub fn reindex(location: &Location) -> Result<IndexReport, RunError> {
    state_dir::secure(location.dir())?;
    let _lock = take_lock(location)?;
    let store = Store::open(&location.database(), &location.backups())?;
    let snapshots = store.snapshots();
    let mut index = LocalIndex::create(&location.search_index())?;
    index.catch_up(&snapshots, || false)?;
    index.merge()?;
    Ok(index.check(&snapshots.take().map_err(RunError::Load)?)?)
}

/// Checks the search index against the store while no broker runs. Changes nothing in the store.
/// `None`: there is no index, or one of another store or format, and the next broker makes one.
/// Must be called before this process starts a thread. A child process does the check, because a
/// damaged index can end the process that reads it. If the child ends that way, the index counts as
/// damaged.
///
/// # Errors
/// The error of the store, or the reason why the index cannot be read.
pub fn check_index(location: &Location) -> Result<Option<IndexReport>, RunError> {
    let looked = search::in_a_child(|| {
        index_report(location).map_err(|error| (Chain(&error).to_string(), error.hint()))
    });
    match looked.map_err(RunError::Runtime)? {
        Some(report) => report.map_err(|(message, hint)| RunError::Check { message, hint }),
        None => Ok(Some(IndexReport { damaged_files: 1, ..IndexReport::default() })),
    }
}

fn index_report(location: &Location) -> Result<Option<IndexReport>, RunError> {
    let store = Store::open_for_reading(&location.database())?.take().map_err(RunError::Load)?;
    Ok(match LocalIndex::open_in(&location.search_index(), &store)? {
        LocalLooked::None => None,
        LocalLooked::Damaged(damaged_files) => {
            Some(IndexReport { damaged_files, ..IndexReport::default() })
        }
        LocalLooked::Sound(index) => Some(index.check(&store)?),
    })
}

fn take_lock(location: &Location) -> Result<Lock, RunError> {
    Lock::take(&location.lock()).map_err(|error| match error {
        LockError::Held { path } => RunError::AlreadyRunning { lock: path },
        error => RunError::Lock(error),
    })
}

fn run_with(options: RunOptions, timeout: Duration, ready: impl FnOnce()) -> Result<(), RunError> {
    if options.detached {
        detach::leave_starter()?;
    }
    let location = &options.location;
    // Fork before this process has anything that a child could inherit. A broker whose searches are
    // refused is better than none.
    let parent = Parent::fork(location.search_index(), options.sandbox);
    state_dir::secure(location.dir())?;
    // Dropped last: the next holder of the lock finds the store closed and the socket gone.
    let lock = take_lock(location)?;
    let log = telemetry::open(&location.log())?;
    let _logging = tracing::dispatcher::set_default(&log);
    if options.detached {
        telemetry::log_panics();
    }
    let parent =
        parent.inspect_err(|error| tracing::warn!(cause = %error, "there will be no search")).ok();
    let outcome = serve(&options, &lock, parent, timeout, ready);
    if let Err(error) = &outcome {
        // The starter may not read stderr any more.
        tracing::error!(cause = %Chain(error), hint = %error.hint(), "broker down");
    }
    outcome
}

fn serve(
    options: &RunOptions,
    lock: &Lock,
    parent: Option<Parent>,
    timeout: Duration,
    ready: impl FnOnce(),
) -> Result<(), RunError> {
    let location = &options.location;
    let clock = Clock::start();
    let config::InForce { settings, fault: config_fault } =
        config::for_start(&location.config(), &location.config_kept());
    if let Some(fault) = &config_fault {
        tracing::error!(cause = %fault, hint = config::FAULT_HINT, "the configuration is not in force");
    }
    let store = Store::open(&location.database(), &location.backups())?;
    let image = store.snapshot().and_then(Snapshot::image).map_err(RunError::Load)?;
    let (peers, pending, messages) = (image.peers.len(), image.pending.len(), image.messages);
    let broker = Broker::new(config::rules(&settings), image, clock.now());

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let sandbox = options.sandbox && sandbox::apply()?;
    let socket = Socket::bind(&location.socket())?;

    let executable = options.executable.display().to_string();
    let our_preface = Preface::ours(&executable);
    let identity = BrokerIdentity {
        executable,
        dir: location.dir().into(),
        socket: location.socket(),
        sandbox,
        config: config::of_the_broker(&settings),
        config_fault,
    };
    let (to_engine, arrivals) = turns::open();
    let searching = Searching::new(store.snapshots(), location.search_index(), parent);
    let engine = Engine::new(clock, broker, store, searching, arrivals, identity);
    let (engine_ended, ended) = oneshot::channel();
    let log = tracing::dispatcher::get_default(Clone::clone);
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let _logging = tracing::dispatcher::set_default(&log);
            // If the receiver is gone, serving failed, and that error is reported.
            let _ = engine_ended.send(engine.run());
        })
        .map_err(RunError::Runtime)?;

    let mut at_ready = Ok(());
    let (budget, warnings) = (Arc::default(), Throttle::default());
    let shared =
        ConnectionContext { arrivals: to_engine, preface: our_preface, budget, warnings, timeout };
    let up = || {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            socket = %location.socket().display(),
            pid = std::process::id(),
            sandbox,
            peers,
            pending,
            messages,
            "broker up"
        );
        lock.record(Phase::Serving);
        ready();
        if options.detached {
            at_ready = detach::drop_stdio();
        }
    };
    let served =
        runtime.block_on(listener::serve(socket, shared, ended, up, || lock.record(Phase::Ending)));
    // It is dropped with its way to the engine, so that the thread ends in any case.
    let thread = thread.join();
    at_ready?;
    let outcome = served?;
    thread.map_err(|_| ServeError::EngineDied)?;
    Ok(outcome?)
}

/// The reason why the broker did not start, or ended by itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// Another broker holds the directory: there is nothing to do.
    #[error("a broker runs already and holds {}", lock.display())]
    AlreadyRunning {
        /// The lock file that it holds.
        lock: PathBuf,
    },
    /// The directory.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The lock file.
    #[error(transparent)]
    Lock(LockError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store opens and cannot be read.
    #[error("cannot read the store")]
    Load(#[source] StoreError),
    /// The search index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The search index could not be checked.
    #[error("{message}")]
    Check {
        /// Why.
        message: String,
        /// The next step.
        hint: String,
    },
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The rehearsal.
    #[error(transparent)]
    Rehearsal(#[from] RehearsalError),
    /// Leaving the starter.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// Threads or the runtime.
    #[error("cannot start the broker's threads")]
    Runtime(#[source] std::io::Error),
    /// Serving connections.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl RunError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::AlreadyRunning { .. } => {
                "use it, or stop it with `peerctl daemon stop`".to_owned()
            }
            Self::Load(_) => "run `peerctl daemon verify`".to_owned(),
            Self::Dir(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Log(error) => error.hint(),
            Self::Open(error) => error.hint(),
            Self::Index(error) => error.hint(),
            Self::Check { hint, .. } => hint.clone(),
            Self::Sandbox(error) => error.hint(),
            Self::Socket(error) => error.hint(),
            Self::Rehearsal(error) => error.hint(),
            Self::Detach(error) => error.hint(),
            Self::Serve(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Runtime(_) => String::new(),
        }
    }
}

/// An error with its sources, on one line, without the next step.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
