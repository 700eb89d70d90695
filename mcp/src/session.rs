//! This adapter's session with the broker: the connection, and the core that everything is told to.
//!
//! Knows when to connect, register and come back, and does what the core wants done at the broker. Does not know what tools
//! there are, what a client shows, nor what follows from an event. The invariants:
//!
//! - Whatever changes what the adapter decides goes through [`Session::handle`], which awaits nothing.
//! - One task ([`link`]) owns the connection's pushes and applies them in order; [`Session::settle_pushes`] waits for it, so that
//!   whoever has an answer has also what was pushed before it.
//! - A connection is made only where something needs it: after a loss at once and for a while, then with the next call.

mod client_watch;
mod link;
mod requests;
mod seat;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use peer_client::{ConnectError, Connection, Endpoint, RequestError};
use peer_mcp_core::adapter::{Adapter, Settings};
use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::Reply;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::carriers;
use crate::claude::Inherited;
use crate::codex::Codex;
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

/// Notices that wait for the next tool result; the oldest give way.
const NOTICES_MAX: usize = 8;

/// The program that runs this adapter.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) kind: ClientKind,
    /// Its name, as peers see it.
    pub(crate) name: String,
    pub(crate) version: String,
}

/// What the environment says, read once at the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// `PEER_NAME`.
    pub(crate) name: Option<String>,
    /// `PEERD_CLIENT`.
    pub(crate) client: Option<String>,
    /// `CLAUDE_CODE_SESSION_ID`.
    pub(crate) claude_session: Option<String>,
    /// The home directory; empty where there is none.
    pub(crate) home: String,
    /// The working directory; none where it is gone or may not be read.
    pub(crate) cwd: Option<PathBuf>,
    /// The client's process.
    pub(crate) client_pid: u32,
    /// Whether the title of the client's tab may be set.
    pub(crate) tab_title: bool,
    /// `PEERD_SUMMARIZER`.
    pub(crate) summarizer: Option<String>,
    /// What Claude Code hands down to its children.
    pub(crate) claude: Inherited,
    /// Carriers that the person switched off.
    pub(crate) carriers_off: Vec<Carrier>,
    /// How often a session that rests may be woken in an hour.
    pub(crate) wakeups_per_hour: u32,
    /// A session that rests and that no terminal has open may be woken too.
    pub(crate) wake_unattended: bool,
    /// `CODEX_HOME`, else `.codex` under the home directory.
    pub(crate) codex_config: PathBuf,
}

impl Surroundings {
    /// The working directory as the broker is told of it; empty where it is not known.
    pub(crate) fn directory(&self) -> String {
        self.cwd.as_deref().map_or_else(String::new, spelled)
    }
}

/// The session. Shared by the tools, the client's notifications and the task that serves the connection.
pub(crate) struct Session {
    pub(crate) surroundings: Surroundings,
    pub(crate) outgoing: Outgoing,
    pub(crate) title: Title,
    /// When time began, as the heart counts it.
    began: Instant,
    client: OnceLock<Client>,
    state: Mutex<State>,
    link: watch::Sender<Link>,
    /// Counts changes of the inbox, for those who wait for one.
    news: watch::Sender<u64>,
    /// What the task that serves the connection is to do.
    orders: mpsc::UnboundedSender<Order>,
    /// The core wants to know which ways into the client there are, or names another time than before.
    core_wants: Notify,
    /// Something was given to the client, and its record may tell what became of it.
    given: Notify,
    binding: tokio::sync::Mutex<()>,
    /// One relayed hook at a time: what a hook that was gone had taken is back before the next one looks.
    pub(crate) hooks: tokio::sync::Mutex<()>,
}

/// What several parties change. No lock is held while anything is awaited.
pub(crate) struct State {
    /// What decides. It is told of everything by [`Session::handle`]; others only read it.
    pub(crate) core: Adapter,
    /// What is known of Codex's thread.
    pub(crate) codex: Codex,
    /// How far the client's own record of it was read.
    pub(crate) transcript: Transcript,
    /// Where we are in git, once it was looked up.
    pub(crate) repository: Option<git::Repository>,
    pub(crate) first_summary: FirstSummary,
    /// The client has said that it is ready for notifications of ours, and may show them.
    pub(crate) channel_open: bool,
    /// The core wants to know which ways into the client there are.
    is_look_wanted: bool,
    /// When the core wants to be asked again.
    timeout: Option<u64>,
    /// What the task that serves the connection needs, until it is started.
    unstarted: Option<(Result<Endpoint, ConnectError>, Orders)>,
    name_refused: bool,
    notices: VecDeque<String>,
}

impl State {
    fn new(surroundings: &Surroundings, unstarted: (Result<Endpoint, ConnectError>, Orders)) -> Self {
        let core = Adapter::new(Settings {
            home: surroundings.home.clone(),
            claude_session: surroundings.claude_session.clone(),
            carriers_off: surroundings.carriers_off.clone(),
            wakeups_per_hour: surroundings.wakeups_per_hour,
            wake_unattended: surroundings.wake_unattended,
        });
        Self {
            core,
            codex: Codex::default(),
            transcript: Transcript::default(),
            repository: None,
            first_summary: FirstSummary::default(),
            channel_open: false,
            is_look_wanted: false,
            timeout: None,
            unstarted: Some(unstarted),
            name_refused: false,
            notices: VecDeque::new(),
        }
    }
}

#[derive(Clone)]
enum Link {
    /// Not connected yet, or being connected; with what the last attempt said.
    Trying { last: Option<String> },
    /// Connected and registered.
    Up(Connection),
    /// What a tool call is told. The next one makes it `Trying` again.
    Down { why: String },
    /// Over for good.
    Ended { why: String },
}

impl Session {
    pub(crate) fn new(surroundings: Surroundings, endpoint: Result<Endpoint, ConnectError>, outgoing: Outgoing) -> Arc<Self> {
        let (orders, ordered) = Orders::new();
        let title = Title::of_tab(surroundings.tab_title.then_some(surroundings.client_pid));
        Arc::new(Self {
            outgoing,
            title,
            began: Instant::now(),
            client: OnceLock::new(),
            state: Mutex::new(State::new(&surroundings, (endpoint, ordered))),
            link: watch::Sender::new(Link::Trying { last: None }),
            news: watch::Sender::new(0),
            orders,
            core_wants: Notify::new(),
            given: Notify::new(),
            binding: tokio::sync::Mutex::default(),
            hooks: tokio::sync::Mutex::default(),
            surroundings,
        })
    }

    /// The time, in milliseconds since this session was made.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// That time as the runtime has it.
    pub(crate) fn instant(&self, at: u64) -> Instant {
        self.began + Duration::from_millis(at)
    }

    /// Tells the core what happened, and does what it wants done. Returns what only whoever told it can do: a block to show,
    /// a push to make, a seat to ask for.
    ///
    /// Nothing is awaited, and all of the adapter runs on one thread: what the broker is told stands in the connection's queue
    /// in the order in which it was decided.
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
                self.state().is_look_wanted = true;
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

    /// What the core wants next: to know the ways into the client, or that its time has come.
    pub(crate) async fn look_wanted(&self) -> Event {
        loop {
            let (is_look_wanted, timeout) = {
                let mut state = self.state();
                (std::mem::take(&mut state.is_look_wanted), state.timeout)
            };
            if is_look_wanted {
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

    /// Tells the core which ways into the client there are now.
    pub(crate) fn see_ways(self: &Arc<Self>) {
        self.handle(Event::WaysSeen(carriers::ways(self)));
    }

    /// The client has introduced itself.
    pub(crate) fn set_client(self: &Arc<Self>, client: Client) {
        let kind = client.kind;
        // A client that initializes twice is still the same process.
        if self.client.set(client).is_ok() {
            self.handle(Event::Introduced(kind));
        }
    }

    /// The client; unknown ones get the least.
    pub(crate) fn client(&self) -> Client {
        let unknown = || Client { kind: ClientKind::Other, name: "unknown".into(), version: String::new() };
        self.client.get().cloned().unwrap_or_else(unknown)
    }

    /// Connects, in a task of its own. The second and later times nothing happens.
    pub(crate) fn start(self: &Arc<Self>) {
        let Some((endpoint, orders)) = self.state().unstarted.take() else { return };
        tokio::spawn(Arc::clone(self).run(endpoint, orders));
        tokio::spawn(carriers::run(Arc::clone(self)));
        tokio::spawn(Arc::clone(self).watch_client());
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // No caller panics while it holds the lock; if one did, an inbox half changed still loses nothing at the broker.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client is gone: nothing may be offered to it any more.
    pub(crate) fn close(self: &Arc<Self>) {
        self.handle(Event::Closing);
    }

    /// Changes of the inbox from now on.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// There may be something to push.
    pub(crate) fn offer(self: &Arc<Self>) {
        self.handle(Event::WaysChanged);
    }

    /// The reader acknowledged or answered these.
    pub(crate) fn settled(self: &Arc<Self>, messages: &[MessageId]) {
        self.handle(Event::Settled(messages.to_vec()));
    }

    /// Tells those who wait that the inbox changed.
    fn inbox_changed(&self) {
        self.news.send_modify(|changes| *changes += 1);
    }

    /// What the model should be told, once.
    pub(crate) fn take_notices(&self) -> Vec<String> {
        self.state().notices.drain(..).collect()
    }

    /// The connection, if there is one right now.
    pub(crate) fn connected(&self) -> Option<Connection> {
        match &*self.link.borrow() {
            Link::Up(connection) if connection.is_open() => Some(connection.clone()),
            _ => None,
        }
    }

    /// The broker is wanted: where this session has given up or left, it tries again.
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

    /// Leaves the broker until the client's next call: others see this session offline, and its mail waits for whoever
    /// takes its place. Returns once the broker has let it go.
    pub(crate) async fn leave(&self, why: &'static str) {
        self.title.give_back();
        self.order(Order::Leave(why));
        let mut link = self.link.subscribe();
        let gone = link.wait_for(|link| matches!(link, Link::Down { .. } | Link::Ended { .. }));
        // Whatever holds it up, the next attempt to serve finds the wish.
        let _ = tokio::time::timeout(Duration::from_millis(LEAVE_PATIENCE_MS), gone).await;
    }

    fn order(&self, order: Order) {
        // The task is gone only where the session has ended.
        let _ = self.orders.send(order);
    }

    /// Waits until everything that the broker pushed so far is in the inbox.
    pub(crate) async fn settle_pushes(&self) {
        let (done, settled) = oneshot::channel();
        self.order(Order::Settle(done));
        // Where the session has ended, nothing is pushed.
        let _ = settled.await;
    }

    /// This session has renamed itself.
    pub(crate) fn named(self: &Arc<Self>, name: String) {
        self.handle(Event::Named(name));
    }

    /// Tells the model, with the next tool result.
    pub(crate) fn notice(&self, text: String) {
        let mut state = self.state();
        if !state.notices.contains(&text) {
            if state.notices.len() == NOTICES_MAX {
                state.notices.pop_front();
            }
            state.notices.push_back(text);
        }
    }

    /// Forgets a notice that a tool's own answer makes superfluous.
    pub(crate) fn drop_notice(&self, text: &str) {
        self.state().notices.retain(|notice| notice != text);
    }
}

/// Whether what was asked is done for good. Lost, or cut off by a full disk: it must be said again. Refused: no longer ours.
fn is_done(answer: &Result<Reply, RequestError>) -> bool {
    match answer {
        Err(RequestError::Lost) => false,
        Err(RequestError::Refused(refusal)) => refusal.code != ErrorCode::NoSpace,
        _ => true,
    }
}
