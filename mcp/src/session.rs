//! This adapter's session with the broker: the connection, and the core that gets every event.
//!
//! Knows when to connect, register and reconnect, and performs the core's actions at the broker.
//! Does not know the tools, the client's display, or what follows from an event. The invariants:
//!
//! - Every change of the adapter's decisions goes through [`Session::handle`], which awaits
//!   nothing.
//! - One async task ([`link`]) owns the connection's pushes and applies them in order.
//!   [`Session::wait_for_pushes`] waits for it, so that the caller with an answer also has the
//!   earlier pushes.
//! - A connection is made only if it is needed: after a loss at once and for a while, then with the
//!   next call.

mod client_watch;
mod link;
mod requests;
mod seat;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use peer_client::{ConnectError, Connection, Endpoint, RequestError};
use peer_mcp_core::adapter::{Adapter, AdapterSettings};
use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::Reply;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::carriers;
use crate::claude::Inherited;
use crate::codex::CodexThread;
use crate::directory::spelled;
use crate::event::{Action, Event};
use crate::git;
use crate::stdio::Outgoing;
use crate::summary::{self, FirstSummary};
use crate::title::Title;
use crate::transcript::Transcript;

pub(crate) use requests::CallError;

use link::{Order, Orders};

pub(crate) use peer_mcp_core::ClientKind;
pub(crate) use peer_mcp_core::adapter::renamed;

/// How long leaving the broker may take, in milliseconds.
const LEAVE_PATIENCE_MS: u64 = 2_000;

/// Notices that wait for the next tool result; the oldest ones are dropped.
const NOTICES_MAX: usize = 8;

/// The program that runs this adapter.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) kind: ClientKind,
    /// Its name, as peers see it.
    pub(crate) name: String,
    pub(crate) version: String,
}

/// The environment, read once at the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `PEER_NAME`.
    pub(crate) name: Option<String>,
    /// `PEERD_CLIENT`.
    pub(crate) client: Option<String>,
    /// `CLAUDE_CODE_SESSION_ID`.
    pub(crate) claude_session: Option<String>,
    /// The home directory; empty if there is none.
    pub(crate) home: String,
    /// The working directory; `None`: it was deleted or may not be read.
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) client_pid: u32,
    /// Whether the title of the client's tab may be set.
    pub(crate) tab_title: bool,
    /// `PEERD_SUMMARIZER`.
    pub(crate) summarizer: Option<String>,
    /// The variables that Claude Code passes to its children.
    pub(crate) claude: Inherited,
    /// Carriers that the person switched off.
    pub(crate) carriers_off: Vec<Carrier>,
    /// How often an idle session may be woken in an hour.
    pub(crate) wakeups_per_hour: u32,
    /// Whether an idle session may also be woken while no terminal has it open.
    pub(crate) wake_unattended: bool,
    /// `CODEX_HOME`, else `.codex` under the home directory.
    pub(crate) codex_config: PathBuf,
}

impl Environment {
    /// Returns the working directory as the broker gets it; empty: it is not known.
    pub(crate) fn directory(&self) -> String {
        self.cwd.as_deref().map_or_else(String::new, spelled)
    }
}

/// The session. The tools, the client's notifications and the async task of the connection share
/// it.
pub(crate) struct Session {
    pub(crate) environment: Environment,
    pub(crate) outgoing: Outgoing,
    pub(crate) title: Title,
    /// The zero of the core's time.
    began: Instant,
    client: OnceLock<Client>,
    state: Mutex<State>,
    link: watch::Sender<Link>,
    /// Counts changes of the inbox, for calls that wait for one.
    news: watch::Sender<u64>,
    /// Orders for the async task of the connection.
    orders: mpsc::UnboundedSender<Order>,
    /// Signals that the core requests the available carriers, or has a new timeout.
    core_wants: Notify,
    /// Signals that the client was given a message, whose evidence may appear in its record.
    given: Notify,
    binding: tokio::sync::Mutex<()>,
    /// Admits one relayed hook at a time: the offers of an ended hook are undone before the next
    /// one looks.
    pub(crate) hooks: tokio::sync::Mutex<()>,
}

/// The shared state. No lock is held across an await.
pub(crate) struct State {
    /// The core. [`Session::handle`] passes it every event; other functions only read it.
    pub(crate) core: Adapter,
    /// The facts about Codex's thread.
    pub(crate) codex: CodexThread,
    /// How far the client's record was read.
    pub(crate) transcript: Transcript,
    /// The git repository of this session, once it was looked up.
    pub(crate) repository: Option<git::Repository>,
    pub(crate) first_summary: FirstSummary,
    /// Whether the client is ready for our notifications, and may show them.
    pub(crate) channel_open: bool,
    /// Whether the core requests the available carriers.
    is_search_wanted: bool,
    /// The core's next timeout.
    timeout: Option<u64>,
    /// The arguments of the connection's async task, until it is started.
    unstarted: Option<(Result<Endpoint, ConnectError>, Orders)>,
    name_refused: bool,
    notices: VecDeque<String>,
}

impl State {
    fn new(environment: &Environment, unstarted: (Result<Endpoint, ConnectError>, Orders)) -> Self {
        let core = Adapter::new(AdapterSettings {
            home: environment.home.clone(),
            claude_session: environment.claude_session.clone(),
            carriers_off: environment.carriers_off.clone(),
            wakeups_per_hour: environment.wakeups_per_hour,
            wake_unattended: environment.wake_unattended,
        });
        Self {
            core,
            codex: CodexThread::default(),
            transcript: Transcript::default(),
            repository: None,
            first_summary: FirstSummary::default(),
            channel_open: false,
            is_search_wanted: false,
            timeout: None,
            unstarted: Some(unstarted),
            name_refused: false,
            notices: VecDeque::new(),
        }
    }
}

#[derive(Clone)]
enum Link {
    /// Not connected yet, or being connected; with the error of the last attempt.
    Trying { last: Option<String> },
    /// Connected and registered at the broker.
    Up(Connection),
    /// No connection; `why` is the error for a tool call. The next call makes it `Trying` again.
    Down { why: String },
    /// Ended for good.
    Ended { why: String },
}

impl Session {
    pub(crate) fn new(
        environment: Environment,
        endpoint: Result<Endpoint, ConnectError>,
        outgoing: Outgoing,
    ) -> Arc<Self> {
        let (orders, ordered) = Orders::new();
        let title = Title::of_tab(environment.tab_title.then_some(environment.client_pid));
        Arc::new(Self {
            outgoing,
            title,
            began: Instant::now(),
            client: OnceLock::new(),
            state: Mutex::new(State::new(&environment, (endpoint, ordered))),
            link: watch::Sender::new(Link::Trying { last: None }),
            news: watch::Sender::new(0),
            orders,
            core_wants: Notify::new(),
            given: Notify::new(),
            binding: tokio::sync::Mutex::default(),
            hooks: tokio::sync::Mutex::default(),
            environment,
        })
    }

    /// Returns the time, in milliseconds since this session was made.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the runtime's instant for that time.
    pub(crate) fn instant(&self, at: u64) -> Instant {
        self.began + Duration::from_millis(at)
    }

    /// Passes an event to the core, and performs its actions. Returns the actions that only the
    /// caller can perform: a block to show, a push to make, a seat to request.
    ///
    /// Nothing is awaited, and all of the adapter runs on one OS thread. So the connection's queue
    /// has the requests in the order of the decisions.
    pub(crate) fn handle(self: &Arc<Self>, event: Event) -> Vec<Action> {
        let now = self.now();
        let (actions, is_other_time) = {
            let state = &mut *self.state();
            let actions = state.core.handle(now, event);
            let timeout = state.core.next_timeout(now);
            (actions, std::mem::replace(&mut state.timeout, timeout) != timeout)
        };
        if is_other_time {
            self.core_wants.notify_one();
        }
        actions.into_iter().filter_map(|action| self.act(action)).collect()
    }

    fn act(self: &Arc<Self>, action: Action) -> Option<Action> {
        match action {
            Action::Tell(request) => {
                if let Some(connection) = self.connected() {
                    drop(connection.submit(request));
                }
            }
            Action::Ask { ticket, request } => {
                let answer = self.connected().map(|connection| connection.submit(request));
                let session = Arc::clone(self);
                tokio::spawn(async move {
                    let done = match answer {
                        Some(answer) => is_done(&answer.await),
                        None => false,
                    };
                    session.handle(Event::Answered { ticket, done });
                });
            }
            Action::Look => {
                self.state().is_search_wanted = true;
                self.core_wants.notify_one();
            }
            Action::Watch => self.given.notify_one(),
            Action::News => self.inbox_changed(),
            Action::Notice(text) => self.notice(text),
            Action::Title(name) => self.title.show(&name),
            Action::Summarize(peer) => summary::begin(self, peer),
            action => return Some(action),
        }
        None
    }

    /// Waits for the core's next need: the available carriers, or its timeout.
    pub(crate) async fn next_need(&self) -> Event {
        loop {
            let (is_search_wanted, timeout) = {
                let mut state = self.state();
                (std::mem::take(&mut state.is_search_wanted), state.timeout)
            };
            if is_search_wanted {
                return Event::Ways(carriers::ways(self));
            }
            let time_comes = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(self.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.core_wants.notified() => {}
                () = time_comes => return Event::Tick,
            }
        }
    }

    /// Reports the available carriers to the core.
    pub(crate) fn see_ways(self: &Arc<Self>) {
        self.handle(Event::WaysSeen(carriers::ways(self)));
    }

    /// Records that the client introduced itself.
    pub(crate) fn set_client(self: &Arc<Self>, client: Client) {
        let kind = client.kind;
        // A client that initializes twice is still the same process.
        if self.client.set(client).is_ok() {
            self.handle(Event::Introduced(kind));
        }
    }

    /// Returns the client; an unknown one gets the fewest features.
    pub(crate) fn client(&self) -> Client {
        let unknown =
            || Client { kind: ClientKind::Other, name: "unknown".into(), version: String::new() };
        self.client.get().cloned().unwrap_or_else(unknown)
    }

    /// Connects, in an async task of its own. A later call has no effect.
    pub(crate) fn start(self: &Arc<Self>) {
        let Some((endpoint, orders)) = self.state().unstarted.take() else { return };
        tokio::spawn(Arc::clone(self).run(endpoint, orders));
        tokio::spawn(carriers::run(Arc::clone(self)));
        tokio::spawn(Arc::clone(self).watch_client());
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // No caller panics while it holds the lock. If one did, a half-changed inbox would lose
        // nothing at the broker.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles the client's end: nothing may be offered to it any more.
    pub(crate) fn close(self: &Arc<Self>) {
        self.handle(Event::Closing);
    }

    /// Returns the signal for changes of the inbox from now on.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Makes the core check for messages to push.
    pub(crate) fn offer(self: &Arc<Self>) {
        self.handle(Event::WaysChanged);
    }

    /// Reports that the recipient acknowledged or answered these.
    pub(crate) fn settled(self: &Arc<Self>, messages: &[MessageId]) {
        self.handle(Event::Settled(messages.to_vec()));
    }

    /// Signals a change of the inbox to waiting calls.
    fn inbox_changed(&self) {
        self.news.send_modify(|changes| *changes += 1);
    }

    /// Returns the notices for the model, once.
    pub(crate) fn take_notices(&self) -> Vec<String> {
        self.state().notices.drain(..).collect()
    }

    /// Returns the connection, if there is one now.
    pub(crate) fn connected(&self) -> Option<Connection> {
        match &*self.link.borrow() {
            Link::Up(connection) if connection.is_open() => Some(connection.clone()),
            _ => None,
        }
    }

    /// Requests a connection: a session that gave up or left tries again.
    pub(crate) fn come_back(&self) {
        self.link.send_if_modified(|link| {
            let gave_up = matches!(link, Link::Down { .. });
            if gave_up {
                *link = Link::Trying { last: None };
            }
            gave_up
        });
        self.order(Order::ComeBack);
    }

    /// Leaves the broker until the client's next call. Other peers see this session offline, and
    /// its mail waits for the session that takes its seat. Returns once the broker has released it.
    pub(crate) async fn leave(&self, why: &'static str) {
        self.title.give_back();
        self.order(Order::Leave(why));
        let mut link = self.link.subscribe();
        let gone = link.wait_for(|link| matches!(link, Link::Down { .. } | Link::Ended { .. }));
        // After a timeout, the next attempt to serve finds the order.
        let _ = tokio::time::timeout(Duration::from_millis(LEAVE_PATIENCE_MS), gone).await;
    }

    fn order(&self, order: Order) {
        // The async task has ended only if the session has ended.
        let _ = self.orders.send(order);
    }

    /// Waits until all that the broker pushed so far is in the inbox.
    pub(crate) async fn wait_for_pushes(&self) {
        let (done, settled) = oneshot::channel();
        self.order(Order::Settle(done));
        // After the session's end, no push arrives.
        let _ = settled.await;
    }

    /// Records that this session renamed itself.
    pub(crate) fn named(self: &Arc<Self>, name: String) {
        self.handle(Event::Named(name));
    }

    /// Adds a notice for the model to the next tool result.
    pub(crate) fn notice(&self, text: String) {
        let mut state = self.state();
        if !state.notices.contains(&text) {
            if state.notices.len() == NOTICES_MAX {
                state.notices.pop_front();
            }
            state.notices.push_back(text);
        }
    }

    /// Removes a notice that a tool's own answer makes superfluous.
    pub(crate) fn drop_notice(&self, text: &str) {
        self.state().notices.retain(|notice| notice != text);
    }
}

/// Whether a request needs no repeat. After a loss or a full disk, it must be repeated. If it was
/// refused, the message is no longer ours.
fn is_done(answer: &Result<Reply, RequestError>) -> bool {
    match answer {
        Err(RequestError::Lost) => false,
        Err(RequestError::Refused(refusal)) => refusal.code != ErrorCode::NoSpace,
        _ => true,
    }
}
