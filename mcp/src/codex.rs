//! Finds the Codex thread of this adapter, the terminal that has it open, and whether its model
//! works.
//!
//! Observed with 0.171.0. One Codex process can host the threads of all terminals and all
//! subagents, and gives each an adapter of its own. The environment that an adapter inherits does
//! not name its thread.
//!
//! The adapter asks the host, over its control socket, to call the tool [`INTRODUCE`] in each
//! thread: the adapter that is called is in that thread. A host without such a socket has one
//! terminal or none, and its open files name its threads. If neither names the thread, the client's
//! first call does.
//!
//! Knows threads and terminals. Does not know the mail. The invariants:
//!
//! - An adapter without a thread is not a peer. Codex starts such an adapter to ask for its tools.
//! - A subagent's adapter has its root thread's seat: it serves tools and takes no mail.
//! - The adapter never subscribes to a thread: Codex ends a thread without subscribers.

mod control;
mod processes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peer_proto::hook::Activity;
use peer_proto::limits::SEAT_KEY_BYTES_MAX;
use peer_proto::message::Carrier;
use peer_proto::request::{Seat, SeatKind};
use rmcp::model::JsonObject;
use serde_json::{Value, json};

pub(crate) use control::{Control, ControlError};
use control::{Notifications, SOCKET};
use processes::{HostProcess, Hosted};

use crate::event::Event;
use crate::session::Session;
use crate::title;

/// The tool that adapters call in each other through their host. It is listed nowhere, so no model
/// knows it.
pub(crate) const INTRODUCE: &str = "introduce";

/// The metadata that Codex adds to each call of its model.
pub(crate) const TURN: &str = "x-codex-turn-metadata";

/// The name that `peerctl setup` gives this server in Codex's configuration.
const SERVER: &str = "peers";

/// The server that each terminal offers to the threads that it opens.
const TERMINAL_SERVER: &str = "codex_tui";

/// The number of threads that are asked for their adapter.
const THREADS_MAX: usize = 256;

/// How long a thread that starts may be unknown to its host, in milliseconds.
const START_PATIENCE_MS: u64 = 3_000;

/// The error of a tool call after its terminal changed to another conversation.
const SUPERSEDED: &str = "its terminal has switched to another conversation";

/// The error of a tool call after its terminal was closed.
const UNATTENDED: &str = "no terminal has this conversation open";

/// The known facts about the thread.
#[derive(Debug, Default)]
pub(crate) struct CodexThread {
    /// The thread that this adapter serves.
    thread: Option<String>,
    /// Whether the thread is that of another thread's subagent.
    is_subagent: bool,
    control: Option<Control>,
    /// The terminal that has it open.
    terminal: Option<HostProcess>,
    /// Whether a terminal had it open, and has ended.
    was_closed: bool,
    /// The name that the person chose in that terminal; `None`: it is not known to differ from the
    /// inherited one.
    asked_name: Option<Option<String>>,
}

impl CodexThread {
    /// Records the thread that the client named in a call.
    pub(crate) fn record_call(&mut self, thread: &str, is_subagent: bool) {
        if self.thread.is_none() {
            self.thread = Some(thread.to_owned());
        }
        self.is_subagent |= is_subagent;
    }

    /// Returns the name to request, given the inherited one.
    pub(crate) fn name(&self, inherited: Option<String>) -> Option<String> {
        self.asked_name.clone().unwrap_or(inherited)
    }

    /// Returns the connection by which to push into the thread, and the thread.
    pub(crate) fn way_in(&self) -> Option<(Control, String)> {
        let control =
            self.control.clone().filter(|control| control.is_open() && !self.is_subagent)?;
        Some((control, self.thread.clone()?))
    }

    /// Whether somebody can see what the thread does.
    pub(crate) fn is_attended(&self) -> bool {
        self.terminal.is_some_and(HostProcess::is_alive)
    }
}

/// Handles a conversation that began in that thread. If this adapter's host has it, and that host
/// has a single terminal, the terminal has changed to it. From now on the adapter there takes the
/// mail.
pub(crate) fn gone_on(session: &Arc<Session>, thread: &str) {
    let hosts_one_terminal = {
        let state = session.state();
        state.codex.control.is_none() && !state.codex.is_subagent
    };
    let host = session.environment.client_pid;
    // A client that a tool of this session started reports its own conversations here as well.
    if !hosts_one_terminal
        || processes::is_server(host)
        || !Hosted::by(host).threads.iter().any(|hosted| hosted == thread)
    {
        return;
    }
    session.state().codex.asked_name = Some(None);
    let session = Arc::clone(session);
    tokio::spawn(async move { session.leave(SUPERSEDED).await });
}

/// Finds out which thread this is. Returns whether the session may begin; if not, the client's next
/// call reveals more.
pub(crate) async fn adopt_thread(session: &Arc<Session>) -> bool {
    let host = session.environment.client_pid;
    let hosted = Hosted::by(host);
    let config = hosted.config.clone().unwrap_or_else(|| session.environment.codex_config.clone());
    match Control::open(&config.join(SOCKET), host).await {
        Ok((control, notes)) => adopt_thread_of_host(session, control, notes).await,
        // It does not exist, or belongs to another Codex.
        Err(_) => adopt_thread_of_files(session, &hosted),
    }
}

/// Finds the thread by the open files of a host without a control socket.
fn adopt_thread_of_files(session: &Arc<Session>, hosted: &Hosted) -> bool {
    match hosted.threads.as_slice() {
        [] => true,
        [only] => {
            session.state().codex.record_call(only, false);
            session.handle(Event::SettledOn { seat: seat(only), conversation: Some(only.clone()) });
            find_record(session);
            true
        }
        // An editor's host, with several conversations: the client's call names this one.
        _ if processes::is_server(session.environment.client_pid) => {
            session.state().codex.thread.is_some()
        }
        // A terminal's host, and a later thread: another conversation there, or a subagent. Either
        // shares the first one's mailbox, and the client's first call shows which it is.
        [first, ..] => {
            session.handle(Event::SettledOn { seat: seat(first), conversation: None });
            true
        }
    }
}

/// Finds the thread's record among the files that its host writes, unless it is known.
pub(crate) fn find_record(session: &Arc<Session>) {
    let thread = {
        let state = session.state();
        state
            .codex
            .thread
            .clone()
            .filter(|_| state.core.record().is_none() && !state.codex.is_subagent)
    };
    let Some(thread) = thread else { return };
    let hosted = Hosted::by(session.environment.client_pid);
    if let Some(record) = hosted.record(&thread) {
        session.handle(Event::RecordAt(record.to_path_buf()));
    }
}

async fn adopt_thread_of_host(
    session: &Arc<Session>,
    control: Control,
    mut notes: Notifications,
) -> bool {
    let finding = find_thread(session, &control, &mut notes);
    let patience = Duration::from_millis(START_PATIENCE_MS);
    let Ok(Some(thread)) = tokio::time::timeout(patience, finding).await else { return false };
    let Ok(read) = control.ask("thread/read", json!({ "threadId": thread })).await else {
        return false;
    };
    let about = &read["thread"];
    let root = about["sessionId"].as_str().unwrap_or(&thread).to_owned();
    let is_subagent = about["parentThreadId"].is_string() || root != thread;
    let terminal = terminal_of(&control, &thread).await;
    {
        let mut state = session.state();
        state.codex.control = Some(control.clone());
        state.codex.is_subagent = is_subagent;
        state.codex.terminal = terminal;
        state.codex.asked_name =
            Some(if is_subagent { None } else { asked_name(session, terminal) });
        session.title.is_in(
            terminal.and_then(|terminal| titled_tab(session, terminal)).filter(|_| !is_subagent),
        );
    }
    if is_subagent {
        session.handle(Event::SettledOn { seat: seat(&root), conversation: Some(root) });
        session.state().codex.control = None;
        return true;
    }
    if let Some(record) = about["path"].as_str() {
        session.handle(Event::RecordAt(PathBuf::from(record)));
    }
    session.handle(Event::HostSays(activity(&about["status"])));
    let before = match terminal {
        Some(terminal) => supersede(&control, &thread, terminal).await,
        None => None,
    };
    // A fork is another peer; the original keeps its name and its mail.
    let is_fork = before.is_some() && before.as_deref() == about["forkedFromId"].as_str();
    if is_fork {
        session.state().codex.asked_name = Some(None);
    }
    // The mailbox of the terminal's previous conversation becomes this one's.
    let before = before.filter(|_| !is_fork);
    let own = seat(&root);
    let moves_on_to = own.clone().filter(|_| before.is_some());
    session.handle(Event::SettledOn {
        seat: before.as_deref().map_or(own, seat),
        conversation: Some(root),
    });
    tokio::spawn(attend(Arc::clone(session), notes, moves_on_to));
    true
}

/// Returns the thread in which this adapter is called.
async fn find_thread(
    session: &Session,
    control: &Control,
    notes: &mut Notifications,
) -> Option<String> {
    let known = || session.state().codex.thread.clone();
    for thread in loaded(control).await {
        if let Some(thread) = known() {
            return Some(thread);
        }
        introduce(control, &thread, None).await;
    }
    loop {
        if let Some(thread) = known() {
            return Some(thread);
        }
        // The call may still be on its way.
        let (method, params) = notes.recv().await?;
        if let ("thread/started", Some(thread)) = (method.as_str(), params["thread"]["id"].as_str())
        {
            introduce(control, thread, None).await;
        }
    }
}

/// Returns the threads that the host has, the newest first.
async fn loaded(control: &Control) -> Vec<String> {
    let listed = control.ask("thread/loaded/list", json!({})).await.unwrap_or_default();
    let threads = listed["data"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned);
    let mut threads: Vec<String> = threads.collect();
    threads.sort_unstable_by(|one, other| other.cmp(one));
    threads.truncate(THREADS_MAX);
    threads
}

/// Requests a call of the adapter in that thread, which is this one or another.
async fn introduce(
    control: &Control,
    thread: &str,
    terminal: Option<HostProcess>,
) -> Option<Value> {
    let arguments =
        json!({ "pid": std::process::id(), "terminal": terminal.map(HostProcess::word) });
    let call =
        json!({ "threadId": thread, "server": SERVER, "tool": INTRODUCE, "arguments": arguments });
    // A thread without such a server, or with an older one, is not ours.
    let answer = control.ask("mcpServer/tool/call", call).await.ok()?;
    serde_json::from_str(answer["content"][0]["text"].as_str()?).ok()
}

/// Handles a call through the host, by this adapter or by another. If the other one's terminal is
/// ours, that terminal has changed to another conversation.
pub(crate) async fn introduced(session: &Session, arguments: &JsonObject) -> Value {
    let ours = std::process::id();
    let (thread, gives_way) = {
        let state = session.state();
        let terminal =
            state.codex.terminal.filter(|_| !state.codex.is_subagent).map(HostProcess::word);
        let is_another = arguments.get("pid").and_then(Value::as_u64) != Some(ours.into());
        let same = terminal.is_some()
            && terminal.as_deref() == arguments.get("terminal").and_then(Value::as_str);
        (state.codex.thread.clone(), is_another && same)
    };
    if gives_way {
        // A later call of the old conversation must not request the name again.
        session.state().codex.asked_name = Some(None);
        session.leave(SUPERSEDED).await;
    }
    json!({ "pid": ours, "thread": thread, "left": gives_way })
}

/// Notifies the adapters of this terminal's earlier conversations. Returns the latest one's thread.
async fn supersede(control: &Control, thread: &str, terminal: HostProcess) -> Option<String> {
    let mut before = None;
    for other in loaded(control).await.into_iter().filter(|other| other != thread) {
        let answer = introduce(control, &other, Some(terminal)).await;
        if before.is_none() && answer.is_some_and(|answer| answer["left"] == true) {
            before = Some(other);
        }
    }
    before
}

/// Returns the terminal that has the thread open; `None`: it is not known.
async fn terminal_of(control: &Control, thread: &str) -> Option<HostProcess> {
    if let Some(port) = terminal_port(control, thread).await
        && let Ok(Some(terminal)) =
            tokio::task::spawn_blocking(move || processes::listener(port)).await
    {
        return Some(terminal);
    }
    // The host names only the terminal that opened it first. Another one was told to resume it.
    let thread = thread.to_owned();
    tokio::task::spawn_blocking(move || processes::resuming(&thread)).await.ok().flatten()
}

/// Returns the port at which the terminal that opened the thread serves it.
async fn terminal_port(control: &Control, thread: &str) -> Option<u16> {
    // Without a server's name the host would restart all servers to ask them.
    let asked =
        json!({ "threadId": thread, "serverName": TERMINAL_SERVER, "detail": "toolsAndAuthOnly" });
    let status = control.ask("mcpServerStatus/list", asked).await.ok()?;
    let server =
        status["data"].as_array()?.iter().find(|server| server["name"] == TERMINAL_SERVER)?;
    server["httpOrigin"].as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// Returns the name that the person chose in this terminal.
fn asked_name(session: &Session, terminal: Option<HostProcess>) -> Option<String> {
    let configured = session
        .environment
        .name
        .clone()
        .filter(|name| Some(name) != of_host(session, "PEER_NAME").as_ref());
    terminal.and_then(|terminal| terminal.variable("PEER_NAME")).or(configured)
}

/// Returns the process of this terminal, if we may set the title of its tab.
fn titled_tab(session: &Session, terminal: HostProcess) -> Option<u32> {
    let configured = |name: &str| {
        std::env::var(name).ok().filter(|value| Some(value) != of_host(session, name).as_ref())
    };
    title::is_wanted(|name| configured(name).or_else(|| terminal.variable(name)))
        .then(|| terminal.pid())
}

/// Returns a variable of the host. It came from the first terminal, whichever that was, and does
/// not apply to another.
fn of_host(session: &Session, variable: &str) -> Option<String> {
    HostProcess::of(session.environment.client_pid)?.variable(variable)
}

/// Follows the host's notifications about the thread while the connection lasts.
async fn attend(session: Arc<Session>, mut notes: Notifications, moved_on_to: Option<Seat>) {
    if let Some(seat) = moved_on_to
        && session.ready().await.is_ok()
    {
        // On a loss, the seat of the previous conversation finds the mailbox as well.
        let _ = session.rebind(seat).await;
    }
    session.offer();
    loop {
        let terminal = session.state().codex.terminal;
        let terminal_ended = async {
            match terminal {
                Some(terminal) => terminal.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            note = notes.recv() => match note {
                Some((method, params)) => take_notification(&session, &method, &params).await,
                None => break,
            },
            () = terminal_ended => {
                let is_idle = {
                    let mut state = session.state();
                    state.codex.terminal = None;
                    state.codex.was_closed = true;
                    state.core.activity() != Some(Activity::Working)
                };
                if is_idle {
                    rest(&session).await;
                }
                session.see_ways();
            }
        }
    }
    // No report shows any more whether it works.
    session.state().codex.control = None;
    session.see_ways();
    session.handle(Event::HostSays(None));
}

async fn take_notification(session: &Arc<Session>, method: &str, params: &Value) {
    let Some((control, thread)) = session.state().codex.way_in() else { return };
    match method {
        "thread/status/changed" if params["threadId"] == thread.as_str() => {
            let Some(activity) = activity(&params["status"]) else { return };
            let was_closed = session.state().codex.was_closed;
            if activity == Activity::Working && was_closed {
                // Somebody may have opened it again.
                let terminal = terminal_of(&control, &thread).await;
                {
                    let mut state = session.state();
                    state.codex.terminal = terminal;
                    state.codex.was_closed = terminal.is_none();
                    session
                        .title
                        .is_in(terminal.and_then(|terminal| titled_tab(session, terminal)));
                }
                session.come_back();
            }
            if activity == Activity::Idle {
                take_back_what_was_dropped(session, &control, &thread).await;
            }
            session.handle(Event::HostSays(Some(activity)));
            if activity == Activity::Idle && session.state().codex.was_closed {
                rest(session).await;
            }
        }
        // The host subscribes every connection to a subagent's thread, and would keep the thread
        // while a subscriber exists.
        "thread/started" if params["thread"]["parentThreadId"].is_string() => {
            let _ = control
                .ask("thread/unsubscribe", json!({ "threadId": params["thread"]["id"] }))
                .await;
        }
        _ => {}
    }
}

/// Removes offers that Codex dropped: it forgets steered text if its user interrupts the turn. No
/// model was shown text that its record lacks.
async fn take_back_what_was_dropped(session: &Arc<Session>, control: &Control, thread: &str) {
    if session.state().core.inbox().only_with(Carrier::AppServer).is_empty() {
        return;
    }
    let newest = json!({ "threadId": thread, "limit": 1, "sortDirection": "desc" });
    let Ok(turns) = control.ask("thread/turns/list", newest).await else { return };
    if turns["data"][0]["status"] != "interrupted" {
        return;
    }
    session.read_transcript();
    let messages = {
        let state = session.state();
        let given = state.core.inbox().only_with(Carrier::AppServer);
        given.into_iter().filter(|message| !state.transcript.has(*message)).collect()
    };
    session.handle(Event::Dropped { carrier: Carrier::AppServer, messages });
}

/// Leaves the broker: a conversation that no terminal has open and that has no work reads nothing.
/// Its mail waits.
async fn rest(session: &Session) {
    if !session.environment.wake_unattended {
        session.leave(UNATTENDED).await;
    }
}

fn activity(status: &Value) -> Option<Activity> {
    match status["type"].as_str()? {
        "active" => Some(Activity::Working),
        "idle" | "systemError" => Some(Activity::Idle),
        _ => None,
    }
}

/// Returns the seat of a thread. A key that is too long would be refused with the whole
/// registration.
fn seat(thread: &str) -> Option<Seat> {
    (thread.len() <= SEAT_KEY_BYTES_MAX)
        .then(|| Seat { kind: SeatKind::Codex, key: thread.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thread_that_is_heard_of_is_the_one() {
        let mut codex = CodexThread::default();
        codex.record_call("01a", false);
        codex.record_call("01b", false);
        assert_eq!(codex.thread.as_deref(), Some("01a"));
        assert!(codex.way_in().is_none() && !codex.is_attended());
    }

    #[test]
    fn the_name_of_the_terminal_stands_in_for_the_inherited_one() {
        let mut codex = CodexThread::default();
        assert_eq!(codex.name(Some("luna".into())).as_deref(), Some("luna"));
        codex.asked_name = Some(Some("sol".into()));
        assert_eq!(codex.name(Some("luna".into())).as_deref(), Some("sol"));
        codex.asked_name = Some(None);
        assert_eq!(codex.name(Some("luna".into())), None);
    }

    #[test]
    fn a_status_that_is_not_known_says_nothing() {
        assert_eq!(
            activity(&json!({ "type": "active", "activeFlags": ["waitingOnApproval"] })),
            Some(Activity::Working)
        );
        assert_eq!(activity(&json!({ "type": "idle" })), Some(Activity::Idle));
        assert_eq!(activity(&json!({ "type": "notLoaded" })), None);
        assert_eq!(activity(&Value::Null), None);
    }
}
