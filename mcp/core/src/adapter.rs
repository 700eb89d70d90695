//! The adapter's core: one value, changed by one function.
//!
//! The adapter calls [`Adapter::handle`] with each [`Event`] as it happens. It performs each
//! [`Action`] that the call returns, in order and before the next event.
//! At the time that [`Adapter::next_timeout`] names, it calls `handle` with [`Event::Tick`]. The
//! result of an action comes back as a later event. All other functions only read.
//!
//! Knows whether there is a connection, who this session is, and which module takes which decision.
//! Does not know how an action is performed. The invariants:
//!
//! - The broker is told of an offer before the action that lets its bytes leave.
//! - Without a connection, the core sends nothing to the broker. The broker learns the rest when it
//!   pushes the message again.
//! - At most one push is under way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use peer_proto::hook::{Activity, Report};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Carrier, Stage};
use peer_proto::request::{Push, Registered, Request, Resume, Seat};

use crate::ClientKind;
use crate::call::{CallOrigin, Calls};
use crate::event::{Action, Event};
use crate::facts::ClientFacts;
use crate::inbox::{Inbox, Known};
use crate::render;
use crate::under_way::Pushing;
use crate::ways::Carriers;

/// The settings that do not change while the adapter runs.
#[derive(Clone, Debug, Default)]
pub struct AdapterSettings {
    /// The home directory by which paths are shortened; may be empty.
    pub home: String,
    /// The client's own name of its session, from the environment (`CLAUDE_CODE_SESSION_ID`).
    pub claude_session: Option<String>,
    /// Carriers that the person switched off.
    pub carriers_off: Vec<Carrier>,
    /// How often an idle session may be woken in an hour.
    pub wakeups_per_hour: u32,
    /// Whether an idle session may also be woken while nobody has it open.
    pub wake_unattended: bool,
}

/// The peer of this session at the broker.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The peer's id.
    pub peer: PeerId,
    /// The peer's name.
    pub name: String,
    /// Whether this adapter takes the peer's mail, rather than another adapter of the same client.
    pub takes_mail: bool,
    /// The credentials that resume this session on a new connection.
    pub resume: Resume,
}

/// The adapter's core.
#[derive(Debug)]
pub struct Adapter {
    pub(crate) settings: AdapterSettings,
    pub(crate) inbox: Inbox,
    pub(crate) facts: ClientFacts,
    pub(crate) calls: Calls,
    pub(crate) carriers: Carriers,
    pub(crate) pushing: Pushing,
    /// Whether there is a connection on which this adapter is a session.
    pub(crate) is_connected: bool,
    /// Whether the client has ended.
    pub(crate) is_closing: bool,
    pub(crate) identity: Option<Credentials>,
    /// The last known peer of this session, also if the broker no longer knows its token.
    pub(crate) was: Option<PeerId>,
    pub(crate) seat: Option<Seat>,
    /// The conversation that gets the mail: the first one that called a tool.
    pub(crate) main_conversation: Option<String>,
    /// The conversation whose seat was requested.
    pub(crate) speaking: Option<String>,
    /// Tool calls that wait for a message: they show the messages that arrive meanwhile.
    pub(crate) waits: usize,
    /// The path of the client's record of the session.
    pub(crate) record: Option<PathBuf>,
    /// Evidence that the broker has not confirmed yet, by ticket.
    pub(crate) asked: BTreeMap<u64, Vec<MessageId>>,
    tickets: u64,
    /// The last report to the broker on the current connection.
    reported: Option<Report>,
    /// The actions that the current event leads to.
    pub(crate) actions: Vec<Action>,
    /// The actions for the caller of `handle`. They come last, after the requests to the broker.
    pub(crate) replies: Vec<Action>,
}

impl Adapter {
    /// Returns the adapter of a client that has not introduced itself.
    pub fn new(settings: AdapterSettings) -> Self {
        let carriers = Carriers {
            client: ClientKind::Other,
            ways: Default::default(),
            off: settings.carriers_off.clone(),
            wake_unattended: settings.wake_unattended,
        };
        Self {
            settings,
            inbox: Inbox::default(),
            facts: ClientFacts::default(),
            calls: Calls::default(),
            carriers,
            pushing: Pushing::default(),
            is_connected: false,
            is_closing: false,
            identity: None,
            was: None,
            seat: None,
            main_conversation: None,
            speaking: None,
            waits: 0,
            record: None,
            asked: BTreeMap::new(),
            tickets: 0,
            reported: None,
            actions: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// Applies an event that happened at `now`, in milliseconds since any fixed moment. Returns the
    /// actions to perform.
    pub fn handle(&mut self, now: u64, event: Event) -> Vec<Action> {
        match event {
            Event::Introduced(client) => self.carriers.client = client,
            Event::Forgotten => self.identity = None,
            Event::Named(name) => self.named(name),
            Event::SettledOn { seat, conversation } => {
                (self.seat, self.main_conversation) = (seat, conversation)
            }
            Event::Registered(registered) => self.begin(registered),
            Event::Lost => self.lose(),
            Event::Pushed(push) => self.pushed(now, push),
            Event::Answered { ticket, done } => self.answered(ticket, done),
            Event::Bound { seat, outcome } => self.bound(seat, outcome),
            Event::ToolCalled { call, written_before, conversation, is_subagent, tool_use } => {
                let told =
                    || tool_use.as_deref().and_then(|tool_use| self.facts.is_subagent(tool_use));
                let is_subagent = is_subagent || told() == Some(true);
                self.tool_called(CallOrigin { call, written_before, conversation, is_subagent });
            }
            Event::Speaks { conversation } => self.speaks(conversation),
            Event::ResultDue { call, due } => self.result_due(call, &due),
            Event::ReadOn { call, message, offset, peek } => {
                self.read_on(call, message, offset, peek)
            }
            Event::ResultQueued { call, end } => {
                self.calls.end(call);
                self.inbox.result_queued(call, end);
            }
            Event::CallDropped(call) => {
                self.calls.drop(call);
                self.inbox.call_dropped(call);
            }
            Event::RecordAlone => self.inbox.trust_record_alone(),
            Event::CallerTold { tool_use, is_subagent } => {
                if let Some(tool_use) = tool_use {
                    self.facts.record_caller(tool_use, is_subagent);
                }
            }
            Event::HookCame { event, turn, mode, prolonged } => {
                self.hook_came(event, turn.as_deref(), mode, prolonged)
            }
            Event::HookReady { event, received } => self.hook_ready(event, received),
            Event::HookAnswered { messages, asks, outcome } => {
                self.hook_answered(&messages, asks, outcome)
            }
            Event::RecordAt(path) => self.record = Some(path),
            Event::Recorded { seen, withdrawn, speaks } => self.recorded(&seen, &withdrawn, speaks),
            Event::RegistrySays { activity: Activity::Working, .. } => self.turn_begins(now),
            Event::RegistrySays { activity: Activity::Idle, changed } => {
                // Else it may not know yet of a turn that a hook has reported.
                if changed {
                    self.inbox.rests();
                }
                self.set_activity(Activity::Idle);
            }
            Event::HostSays(Some(activity)) => {
                if activity == Activity::Idle {
                    self.inbox.rests();
                }
                self.set_activity(activity);
                // A hook may have reported this before, when nothing could be pushed yet.
                self.search_carriers();
            }
            Event::HostSays(None) => self.host_is_silent(),
            Event::GoesBy(seat) => self.goes_by(seat),
            Event::Dropped { carrier, messages } => self.inbox.take_back(&messages, carrier),
            Event::Settled(messages) => self.settled(&messages),
            Event::WaitBegins => self.waits += 1,
            Event::WaitEnds => {
                self.waits = self.waits.saturating_sub(1);
                self.search_carriers();
            }
            Event::WaysChanged => self.search_carriers(),
            Event::WaysSeen(ways) => self.ways_are(ways),
            Event::Ways(ways) => self.push_next(now, ways),
            Event::Leaving { carrier, runs } => self.leaving(carrier, runs),
            Event::PushedOut { carrier, result } => self.pushed_out(now, carrier, result),
            Event::Tick => self.tick(now),
            Event::Closing => self.is_closing = true,
        }
        self.report(now);
        self.actions.append(&mut self.replies);
        std::mem::take(&mut self.actions)
    }

    // ---- the connection

    fn begin(&mut self, registered: Registered) {
        self.inbox.begin_session();
        (self.reported, self.is_connected) = (None, true);
        self.registered(registered, true);
        // The broker does not know this session's carriers yet.
        self.search_carriers();
    }

    fn lose(&mut self) {
        self.is_connected = false;
        // Relayed hooks that run before the next connection are missed.
        if self.facts.hooks_are_relayed {
            self.inbox.lose_order();
        }
        // Their outcome is unknown: the broker pushes these messages again, or they are settled.
        self.asked.clear();
    }

    fn pushed(&mut self, now: u64, push: Push) {
        match push {
            Push::Deliver(delivery) => {
                if let Some(identity) = &mut self.identity {
                    // The other adapter of this client has ended.
                    identity.takes_mail = true;
                }
                let message = delivery.message.id;
                match self.inbox.deliver(*delivery, self.facts.hooks_come) {
                    Known::New => self.search_carriers(),
                    Known::Offered { carrier, last, tried } => {
                        self.tell(Request::Offered { messages: vec![message], carrier, last });
                        if tried {
                            self.tell(Request::Tried { messages: vec![message] });
                        }
                    }
                    Known::Proved(proof) => self.prove(vec![message], proof),
                }
                self.actions.push(Action::News);
            }
            Push::Overdue { message, carrier } => {
                if self.inbox.overdue(message, carrier) {
                    self.facts.doubt(carrier, now);
                }
                self.search_carriers();
                self.actions.push(Action::News);
            }
            Push::Withdrawn { message, stage } => {
                match stage {
                    Stage::Presented => self.settled(&[message]),
                    Stage::Stored => self.inbox.hand_over(message),
                    _ => self.inbox.remove(&[message]),
                }
                self.search_carriers();
                self.actions.push(Action::News);
            }
            Push::Renamed { name } => {
                self.actions.push(Action::Notice(renamed(&name)));
                self.named(name);
            }
            Push::Notice(text) => self.actions.push(Action::Notice(text)),
            Push::Consent { inbox_socket_in_bypass } => {
                self.facts.inbox_socket_in_bypass = inbox_socket_in_bypass;
                self.search_carriers();
            }
            // The adapter itself handles hooks and goodbyes, and it never watches; a goodbye comes
            // before the loss.
            Push::Hook { .. } | Push::Event { .. } | Push::Link(_) | Push::Goodbye(_) => {}
        }
    }

    /// Sends the broker a request that needs no answer, if there is a connection.
    pub(crate) fn tell(&mut self, request: Request) {
        if self.is_connected {
            self.actions.push(Action::Tell(request));
        }
    }

    /// Sends the broker evidence for these messages. The broker answers when the evidence is
    /// durable.
    pub(crate) fn ask(&mut self, messages: Vec<MessageId>, request: Request) {
        if self.is_connected {
            self.tickets += 1;
            self.asked.insert(self.tickets, messages);
            self.actions.push(Action::Ask { ticket: self.tickets, request });
        }
    }

    /// Reports changes of this session to the broker. Nothing depends on the answer: a refusal
    /// changes nothing.
    fn report(&mut self, now: u64) {
        if !self.is_connected || !self.pushing.knows_ways {
            return;
        }
        let carriers = self.carriers.available_carriers(&self.facts, now);
        let report = Report {
            mode: self.facts.mode,
            activity: self.facts.activity,
            carriers: Some(carriers),
        };
        if self.reported.as_ref() != Some(&report) {
            self.reported = Some(report.clone());
            self.tell(Request::Report(report));
        }
    }

    // ---- read access

    /// Returns the inbox of this session.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Returns which peer this session is at the broker.
    pub fn identity(&self) -> Option<&Credentials> {
        self.identity.as_ref()
    }

    /// Whether there is a connection on which this adapter is a session.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether the model is at work, according to the latest report.
    pub fn activity(&self) -> Option<Activity> {
        self.facts.activity
    }

    /// Whether the client's hooks reach this adapter.
    pub fn hooks_come(&self) -> bool {
        self.facts.hooks_come
    }

    /// Whether a subagent made the tool call of that name; `None`: no hook reported it.
    pub fn is_subagents_call(&self, tool_use: &str) -> Option<bool> {
        self.facts.is_subagent(tool_use)
    }

    /// Returns the path of the client's record of the session.
    pub fn record(&self) -> Option<&Path> {
        self.record.as_deref()
    }

    /// Returns the path of the client's record while it may contain evidence that is still needed.
    pub fn record_to_watch(&self) -> Option<&Path> {
        self.record().filter(|_| !self.inbox.unproved().is_empty())
    }

    /// Returns the next time at which `handle` must be called with a tick.
    pub fn next_timeout(&self, now: u64) -> Option<u64> {
        self.pushing_timeout(now)
    }
}

/// Returns the text for the model when another actor renamed its session.
pub fn renamed(name: &str) -> String {
    format!("this session's name is now {}", render::word(name))
}
