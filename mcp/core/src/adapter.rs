//! The adapter's core: one value, changed by one function.
//!
//! How it is called: [`Adapter::handle`] with each [`Event`] as it happens, and then each [`Action`] it returns, in order and
//! before the next event; at the time that [`Adapter::next_timeout`] names, with [`Event::Tick`]. What is asked for by an
//! action comes back as an event later. Everything else here only reads.
//!
//! Knows whether there is a connection, who this session is, and which room decides what. Does not know how anything is done.
//! The invariants:
//!
//! - The broker is told of an offer before the action that lets its bytes leave.
//! - Nothing is told to the broker without a connection; what it missed is told when it pushes the message again.
//! - One push is under way at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use peer_proto::hook::{Activity, Report};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Carrier, Stage};
use peer_proto::request::{Push, Registered, Request, Resume, Seat};

use crate::ClientKind;
use crate::call::{Caller, Calls};
use crate::event::{Action, Event};
use crate::facts::Facts;
use crate::inbox::{Inbox, Known};
use crate::render;
use crate::under_way::Pushing;
use crate::ways::Carriers;

/// What does not change while the adapter lives.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The reader's home directory, which paths are shortened by; may be empty.
    pub home: String,
    /// The client's own name of its session, as the environment has it (`CLAUDE_CODE_SESSION_ID`).
    pub claude_session: Option<String>,
    /// Carriers that the person switched off.
    pub carriers_off: Vec<Carrier>,
    /// How often a session that rests may be woken in an hour.
    pub wakeups_per_hour: u32,
    /// A session that rests and that nobody has open may be woken too.
    pub wake_unattended: bool,
}

/// Who we are at the broker.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The peer.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// Mail comes to this adapter, and not to another one of this client.
    pub takes_mail: bool,
    /// What resumes this session on a new connection.
    pub resume: Resume,
}

/// The adapter's core.
#[derive(Debug)]
pub struct Adapter {
    pub(crate) settings: Settings,
    pub(crate) inbox: Inbox,
    pub(crate) facts: Facts,
    pub(crate) calls: Calls,
    pub(crate) carriers: Carriers,
    pub(crate) pushing: Pushing,
    /// There is a connection, and this adapter is a session on it.
    pub(crate) is_connected: bool,
    /// The client is gone.
    pub(crate) is_closing: bool,
    pub(crate) identity: Option<Identity>,
    /// Who we were last, also where the broker does not know our token any more.
    pub(crate) was: Option<PeerId>,
    pub(crate) seat: Option<Seat>,
    /// The conversation that mail rides on: the first that called a tool.
    pub(crate) main_conversation: Option<String>,
    /// The conversation that the seat which is asked for belongs to.
    pub(crate) speaking: Option<String>,
    /// Tool calls that wait for a message: what comes meanwhile is theirs to show.
    pub(crate) waits: usize,
    /// Where the client's own record of the session is.
    pub(crate) record: Option<PathBuf>,
    /// Evidence that the broker has not confirmed yet.
    pub(crate) asked: BTreeMap<u64, Vec<MessageId>>,
    tickets: u64,
    /// What the broker was told last, on the present connection.
    reported: Option<Report>,
    /// What the present event leads to.
    pub(crate) actions: Vec<Action>,
    /// What of it is for whoever told the event: it comes last, when the broker has been told.
    pub(crate) replies: Vec<Action>,
}

impl Adapter {
    /// The adapter of a client that has not introduced itself.
    pub fn new(settings: Settings) -> Self {
        let carriers = Carriers {
            client: ClientKind::Other,
            ways: Default::default(),
            off: settings.carriers_off.clone(),
            wake_unattended: settings.wake_unattended,
        };
        Self {
            settings,
            inbox: Inbox::default(),
            facts: Facts::default(),
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

    /// Takes note of what happened at `now`, in milliseconds since any fixed moment; returns what is to be done.
    pub fn handle(&mut self, now: u64, event: Event) -> Vec<Action> {
        match event {
            Event::Introduced(client) => self.carriers.client = client,
            Event::Forgotten => self.identity = None,
            Event::Named(name) => self.named(name),
            Event::SettledOn { seat, conversation } => (self.seat, self.main_conversation) = (seat, conversation),
            Event::Registered(registered) => self.begin(registered),
            Event::Lost => self.lose(),
            Event::Pushed(push) => self.pushed(now, push),
            Event::Answered { ticket, done } => self.answered(ticket, done),
            Event::Bound { seat, outcome } => self.bound(seat, outcome),
            Event::ToolCalled { call, written_before, conversation, is_subagent, tool_use } => {
                let told = || tool_use.as_deref().and_then(|tool_use| self.facts.is_subagent(tool_use));
                let is_subagent = is_subagent || told() == Some(true);
                self.tool_called(Caller { call, written_before, conversation, is_subagent });
            }
            Event::Speaks { conversation } => self.speaks(conversation),
            Event::ResultDue { call, due } => self.result_due(call, &due),
            Event::ReadOn { call, message, offset, peek } => self.read_on(call, message, offset, peek),
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
                    self.facts.note_caller(tool_use, is_subagent);
                }
            }
            Event::HookCame { event, turn, mode, prolonged } => self.hook_came(event, turn.as_deref(), mode, prolonged),
            Event::HookReady { event, received } => self.hook_ready(event, received),
            Event::HookAnswered { messages, asks, outcome } => self.hook_answered(&messages, asks, outcome),
            Event::RecordAt(path) => self.record = Some(path),
            Event::Recorded { seen, withdrawn, speaks } => self.recorded(&seen, &withdrawn, speaks),
            Event::RegistrySays(Activity::Working) => self.turn_begins(now),
            Event::RegistrySays(Activity::Idle) => self.set_activity(Activity::Idle),
            Event::HostSays(Some(activity)) => {
                self.set_activity(activity);
                // A hook may have told before, when nothing could be pushed yet.
                self.look();
            }
            Event::HostSays(None) => self.host_is_silent(),
            Event::GoesBy(seat) => self.goes_by(seat),
            Event::Dropped { carrier, messages } => self.inbox.take_back(&messages, carrier),
            Event::Settled(messages) => self.settled(&messages),
            Event::WaitBegins => self.waits += 1,
            Event::WaitEnds => {
                self.waits = self.waits.saturating_sub(1);
                self.look();
            }
            Event::WaysChanged => self.look(),
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
        // The broker knows nothing of this session's ways yet.
        self.look();
    }

    fn lose(&mut self) {
        self.is_connected = false;
        // Nobody knows what became of them: the broker pushes the messages again, or has them settled.
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
                    Known::New => self.look(),
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
                self.look();
                self.actions.push(Action::News);
            }
            Push::Withdrawn { message, stage } => {
                match stage {
                    Stage::Presented => self.settled(&[message]),
                    _ => self.inbox.remove(&[message]),
                }
                self.look();
                self.actions.push(Action::News);
            }
            Push::Renamed { name } => {
                self.actions.push(Action::Notice(renamed(&name)));
                self.named(name);
            }
            Push::Notice(text) => self.actions.push(Action::Notice(text)),
            Push::Consent { inbox_socket_in_bypass } => {
                self.facts.inbox_socket_in_bypass = inbox_socket_in_bypass;
                self.look();
            }
            // The hands run hooks; adapters do not watch; a goodbye comes before the loss.
            Push::Hook { .. } | Push::Event { .. } | Push::Goodbye(_) => {}
        }
    }

    /// The broker is told, where there is one.
    pub(crate) fn tell(&mut self, request: Request) {
        if self.is_connected {
            self.actions.push(Action::Tell(request));
        }
    }

    /// The broker is told of evidence for these, and says when that is durable.
    pub(crate) fn ask(&mut self, messages: Vec<MessageId>, request: Request) {
        if self.is_connected {
            self.tickets += 1;
            self.asked.insert(self.tickets, messages);
            self.actions.push(Action::Ask { ticket: self.tickets, request });
        }
    }

    /// Tells the broker what it does not know yet of this session. Nothing rests on it: a refusal changes nothing.
    fn report(&mut self, now: u64) {
        if !self.is_connected || !self.pushing.knows_ways {
            return;
        }
        let carriers = self.carriers.present(&self.facts, now);
        let report = Report { mode: self.facts.mode, activity: self.facts.activity, carriers: Some(carriers) };
        if self.reported.as_ref() != Some(&report) {
            self.reported = Some(report.clone());
            self.tell(Request::Report(report));
        }
    }

    // ---- what others may read

    /// What this session holds.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Who we are at the broker.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// There is a connection, and this adapter is a session on it.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether the model is at work, as far as anybody told.
    pub fn activity(&self) -> Option<Activity> {
        self.facts.activity
    }

    /// Whether the client's hooks call us.
    pub fn hooks_come(&self) -> bool {
        self.facts.hooks_come
    }

    /// Whether a subagent made the tool call of that name; none where nobody told.
    pub fn is_subagents_call(&self, tool_use: &str) -> Option<bool> {
        self.facts.is_subagent(tool_use)
    }

    /// The client's own record of the session.
    pub fn record(&self) -> Option<&Path> {
        self.record.as_deref()
    }

    /// The client's own record, while it may bring a proof that is wanted.
    pub fn record_to_watch(&self) -> Option<&Path> {
        self.record().filter(|_| !self.inbox.unproved().is_empty())
    }

    /// The next time that makes a difference by itself.
    pub fn next_timeout(&self, now: u64) -> Option<u64> {
        self.pushing_timeout(now)
    }
}

/// What the model is told when its session was renamed by somebody else.
pub fn renamed(name: &str) -> String {
    format!("this session's name among the peers is now {}", render::word(name))
}
