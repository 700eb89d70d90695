//! The async task of a session: connects, registers, applies the broker's pushes, and reconnects
//! after a loss.
//!
//! Knows when an attempt is useful. Does not know what a tool requests of the broker, only that one
//! does. Invariant: pushes are applied in the order in which they arrive.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use peer_client::{ConnectError, Endpoint, Pushes, Reconnect, RequestError};
use peer_proto::limits::PATH_BYTES_MAX;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{Goodbye, Push, Register, Reply, Request, Role};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{ClientKind, Link, Session};
use crate::carriers::hook;
use crate::codex;
use crate::directory::spelled;
use crate::event::Event;
use crate::git;
use crate::render;

/// How long the adapter tries to reach a lost broker without a call, in milliseconds; after that
/// the next tool call does it. This is longer than a deliberately stopped broker is left alone, so
/// that a broker without a successor is started again.
const LOSS_PATIENCE_MS: u64 = 30_000;

/// How long the first registration waits for facts about the session's directory, in milliseconds.
const LOOK_MS_MAX: u64 = 1_000;

/// Orders for the async task of the connection.
pub(super) enum Order {
    /// Connect: the next attempt must not wait.
    ComeBack,
    /// Leave the broker until the client's next call; the text is that call's error.
    Leave(&'static str),
    /// Answer when all that was pushed so far is in the inbox.
    Settle(oneshot::Sender<()>),
}

/// The orders, and those that are still open.
pub(super) struct Orders {
    queue: mpsc::UnboundedReceiver<Order>,
    /// Whether a connection was requested since the last check.
    is_wanted: bool,
    /// Why this session must leave; `None`: it stays.
    leaving: Option<&'static str>,
}

impl Orders {
    pub(super) fn new() -> (mpsc::UnboundedSender<Order>, Self) {
        let (sender, queue) = mpsc::unbounded_channel();
        (sender, Self { queue, is_wanted: false, leaving: None })
    }

    /// Records the next order. The session, which holds the sender, outlives this async task.
    async fn next(&mut self) {
        match self.queue.recv().await {
            Some(order) => self.record(order),
            None => std::future::pending().await,
        }
    }

    fn record_all(&mut self) {
        while let Ok(order) = self.queue.try_recv() {
            self.record(order);
        }
    }

    fn record(&mut self, order: Order) {
        match order {
            Order::ComeBack => self.is_wanted = true,
            Order::Leave(why) => self.leaving = Some(why),
            // The caller may have been cancelled. Without a connection there are no pushes.
            Order::Settle(done) => drop(done.send(())),
        }
    }

    /// Records the orders that arrive during `work`.
    async fn noted_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.next() => {}
            }
        }
    }
}

impl Session {
    /// Connects, serves the connection, and reconnects, until the session has ended.
    pub(super) async fn run(
        self: Arc<Self>,
        endpoint: Result<Endpoint, ConnectError>,
        mut orders: Orders,
    ) {
        let endpoint = match endpoint {
            Ok(endpoint) => endpoint,
            Err(error) => return self.end(error.for_model()),
        };
        self.read_environment().await;
        while self.client().kind == ClientKind::Codex && !codex::adopt_thread(&self).await {
            self.wait_for_call("this adapter has no conversation yet", &mut orders).await;
        }
        let mut reconnect = Reconnect::new(endpoint, Role::Adapter);
        let patience = Duration::from_millis(LOSS_PATIENCE_MS);
        let mut give_up_at = Instant::now() + patience;
        loop {
            if let Some(why) = orders.leaving.take() {
                self.wait_for_call(why, &mut orders).await;
                give_up_at = Instant::now() + patience;
                reconnect.hurry();
            }
            let error = match orders.noted_during(self.attempt(&mut reconnect)).await {
                Ok(mut pushes) => {
                    orders.is_wanted = false;
                    let goodbye = self.serve(&mut pushes, &mut orders).await;
                    self.lose();
                    match goodbye {
                        Some(Goodbye::Kicked) => {
                            return self.end("an operator ended this session".into());
                        }
                        Some(Goodbye::Replaced) => {
                            return self.end("another adapter took this session over".into());
                        }
                        Some(Goodbye::Stopping | Goodbye::TooSlow) | None => {}
                    }
                    give_up_at = Instant::now() + patience;
                    continue;
                }
                Err(error) => error,
            };
            let is_wanted = std::mem::take(&mut orders.is_wanted);
            if is_wanted {
                reconnect.hurry();
            }
            if error.is_lasting() || (!is_wanted && Instant::now() >= give_up_at) {
                self.wait_for_call(&error.to_string(), &mut orders).await;
                give_up_at = Instant::now() + patience;
                reconnect.hurry();
            } else if error.is_verdict() {
                // Waiting callers get the error now; this loop continues all the same.
                self.link.send_replace(Link::Down { why: error.to_string() });
            } else {
                self.link.send_replace(Link::Trying { last: Some(error.to_string()) });
            }
        }
    }

    /// Waits for the client's next call, or another request for the broker.
    async fn wait_for_call(&self, why: &str, orders: &mut Orders) {
        // Earlier callers get this error.
        orders.record_all();
        orders.is_wanted = false;
        let why = orders.leaving.take().unwrap_or(why);
        self.link.send_replace(Link::Down { why: why.to_owned() });
        while !orders.is_wanted {
            orders.next().await;
            if let Some(why) = orders.leaving.take() {
                self.link.send_replace(Link::Down { why: why.to_owned() });
            }
        }
    }

    fn end(&self, why: String) {
        self.title.give_back();
        self.link.send_replace(Link::Ended { why });
        self.inbox_changed();
    }

    fn lose(self: &Arc<Self>) {
        self.link.send_replace(Link::Trying { last: None });
        self.handle(Event::Lost);
    }

    /// Looks up slow facts after the client has its first answer, on another OS thread. A file
    /// system that hangs does not delay the registration: later facts are reported with the next
    /// one.
    async fn read_environment(self: &Arc<Self>) {
        let session = Arc::clone(self);
        let (done, looked) = oneshot::channel();
        // A separate OS thread, because the runtime would wait for its own threads at the end.
        std::thread::spawn(move || {
            let repository = session.environment.cwd.as_deref().and_then(git::repository_of);
            session.state().repository = repository;
            // The caller may have stopped waiting.
            let _ = done.send(());
        });
        let _ = tokio::time::timeout(Duration::from_millis(LOOK_MS_MAX), looked).await;
    }

    /// Makes one attempt to connect and register.
    async fn attempt(self: &Arc<Self>, reconnect: &mut Reconnect) -> Result<Pushes, AttemptError> {
        reconnect.set_seat(self.seat());
        let (connection, pushes, _) = reconnect.next().await?;
        loop {
            let register = self.registration();
            let (named, resumes) = (register.name.clone(), register.resume.is_some());
            match connection.request(Request::Register(register)).await {
                Ok(Reply::Registered(registered)) => {
                    // The core's immediate requests go over this connection.
                    self.link.send_replace(Link::Up(connection));
                    self.handle(Event::Registered(registered));
                    return Ok(pushes);
                }
                Ok(_) => return Err(AttemptError::Request(RequestError::Unexpected)),
                Err(RequestError::Refused(refusal)) => match (refusal.code, named) {
                    // The broker no longer knows the session: register as a new one.
                    (ErrorCode::BadToken | ErrorCode::UnknownPeer, _) if resumes => {
                        self.handle(Event::Forgotten);
                    }
                    (
                        ErrorCode::BadName | ErrorCode::ReservedName | ErrorCode::NameTaken,
                        Some(name),
                    ) => {
                        self.notice(format!(
                            "the broker refused the name in PEER_NAME ({}): {refusal}. This session has another name; \
                             rename_peer changes it",
                            render::sentence(&name)
                        ));
                        self.state().name_refused = true;
                    }
                    _ => return Err(AttemptError::Refused(refusal)),
                },
                Err(error) => return Err(AttemptError::Request(error)),
            }
        }
    }

    fn registration(&self) -> Register {
        let client = self.client();
        let seat = self.seat();
        let state = self.state();
        Register {
            name: state.codex.name(self.environment.name.clone()).filter(|_| !state.name_refused),
            seat,
            client: client.name,
            client_version: client.version,
            client_pid: self.environment.client_pid,
            cwd: self.environment.directory(),
            git_root: state.repository.as_ref().map(|repository| spelled(&repository.root)),
            repo: state.repository.as_ref().map(|repository| spelled(&repository.common)),
            host: nix::unistd::gethostname().map_or_else(
                |_| String::new(),
                |host| bounded(&host.to_string_lossy(), PATH_BYTES_MAX),
            ),
            resume: state.core.identity().map(|identity| identity.resume.clone()),
        }
    }

    /// Applies pushes until the connection ends; returns the broker's goodbye, if it sent one.
    async fn serve(self: &Arc<Self>, pushes: &mut Pushes, orders: &mut Orders) -> Option<Goodbye> {
        loop {
            if orders.leaving.is_some() {
                // The connection ends with the last of its handles; the broker ends its half once
                // it has read the end.
                self.lose();
                while pushes.next().await.is_some() {}
                return None;
            }
            tokio::select! {
                // Pushes first: a caller that waits for them is answered once none is queued.
                biased;
                push = pushes.next() => match push? {
                    Push::Goodbye(goodbye) => return Some(goodbye),
                    Push::Hook { call, hook } => drop(tokio::spawn(hook::relayed(Arc::clone(self), call, *hook))),
                    push => drop(self.handle(Event::Pushed(push))),
                },
                () = orders.next() => {}
                () = self.outgoing.drained() => self.offer(),
            }
        }
    }
}

/// Why one attempt led to no session.
#[derive(Debug, Error)]
enum AttemptError {
    #[error("{}", .0.for_model())]
    Connect(#[from] ConnectError),
    #[error("registering with the broker failed: {0}")]
    Refused(Refusal),
    #[error("registering with the broker failed: {}", .0.for_model())]
    Request(RequestError),
}

impl AttemptError {
    /// Whether another attempt at once would fail the same way. Starting the broker already retries
    /// for long enough. A suspended broker or a full disk needs a person.
    fn is_verdict(&self) -> bool {
        match self {
            Self::Connect(ConnectError::StartFailed { .. } | ConnectError::Suspended { .. }) => {
                true
            }
            Self::Connect(ConnectError::Refused(refusal)) | Self::Refused(refusal) => {
                refusal.code == ErrorCode::NoSpace
            }
            Self::Connect(_) | Self::Request(_) => false,
        }
    }

    /// Whether an attempt without a call is pointless.
    fn is_lasting(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_lasting(),
            Self::Refused(refusal) => !matches!(
                refusal.code,
                ErrorCode::Overloaded | ErrorCode::Stopping | ErrorCode::NoSpace
            ),
            Self::Request(error) => *error != RequestError::Lost,
        }
    }
}

/// Returns the text, cut at a character if it is longer than a field may be.
fn bounded(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
