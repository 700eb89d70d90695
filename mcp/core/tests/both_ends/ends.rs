//! The broker's rules and several adapters' cores, with a link between each two that loses what is
//! under way when it is cut.
//!
//! The hands of the adapter are played here as `mcp/src` has them: what is asked of the broker
//! travels in order, and so do its answers and pushes. Whether the promises hold is looked at
//! wherever something is shown or stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use peer_core::broker::Config;
use peer_core::step::{Change, Effect};
use peer_mcp_core::ClientKind;
use peer_mcp_core::adapter::{Adapter, Settings};
use peer_mcp_core::call::CallId;
use peer_mcp_core::event::{Action, BindOutcome, Due, Event, HookOutcome};
use peer_mcp_core::inbox::{Block, Post};
use peer_mcp_core::render::BLOCK_CHARS_MAX;
use peer_mcp_core::ways::Ways;
use peer_proto::hook::HookCall;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Carrier, Cause, Delivery, Evidence, Stage};
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{Filter, Push, Register, Reply, Request, Role, Seat, SeatKind};

use crate::client::{Call, Client, Doing, pieces};
use crate::random::Random;
use crate::world::World;

/// What the answer to a request is for.
#[derive(Debug)]
pub enum Wait {
    Nothing,
    Register,
    Ticket(u64),
    Bind(Seat),
    /// The broker said what this session holds: a hook's output can be made.
    Hook,
    HookAnswer {
        messages: Vec<MessageId>,
        asks: bool,
    },
    Call(CallId),
    Acked(Vec<MessageId>),
}

/// Something on its way to an adapter.
#[derive(Debug)]
pub enum Down {
    Push(Push),
    Answer(Wait, Result<Reply, Refusal>),
}

/// A relayed hook that the adapter works on.
pub struct Running {
    pub call: u64,
    pub hook: HookCall,
    /// It waits for a seat.
    pub is_binding: bool,
}

pub struct Session {
    pub name: String,
    pub number: u32,
    pub adapter: Adapter,
    /// Messages whose proof this adapter has told of.
    pub proved: BTreeSet<MessageId>,
    /// The broker's name for the open connection.
    pub program: Option<String>,
    pub up: VecDeque<(Request, Wait)>,
    pub down: VecDeque<Down>,
    waits: BTreeMap<u64, Wait>,
    pub running: Option<Running>,
    pub is_answering: bool,
    pub hooks_waiting: VecDeque<(u64, HookCall)>,
    pub look_wanted: bool,
    pub push: Option<(Carrier, Post)>,
    pub client: Client,
    pub is_alive: bool,
    pub queued_bytes: u64,
    pub left_bytes: u64,
    pub calls: u64,
    /// The client's process; its adapter's is the next one, its hooks' the one after.
    pub pid: u32,
}

/// What the hands are left to do with an event's actions.
#[derive(Default)]
pub struct Outcome {
    pub go: bool,
    pub show: Option<Block>,
    pub print: Option<(Block, bool)>,
    pub receive: bool,
}

pub struct Ends {
    pub world: World,
    pub sessions: Vec<Session>,
    pub random: Random,
    pub counts: BTreeMap<&'static str, u64>,
    /// Each message's body.
    pub bodies: BTreeMap<MessageId, String>,
    pub programs: u64,
    pub conversations: u32,
    /// No client lies any more.
    pub is_honest: bool,
    /// Each event and action is printed.
    pub is_telling: bool,
    /// What was done, to be printed where a promise is broken.
    pub log: Vec<String>,
}

impl Ends {
    pub fn new(random: Random) -> Self {
        let mut config = Config::default();
        for (key, value) in [
            ("sender_per_minute", 1_000_000),
            ("pair_per_minute", 1_000_000),
            ("thread_turns_max", 1_000),
            ("attempts_max", 100),
            ("forget_offline_hours", 8_760),
        ] {
            let _ = config.limits.set(key, value);
        }
        let mut world = World::new(config);
        world.quiet = true;
        world.connect("me", Role::Operator, Vec::new(), None);
        let mut ends = Self {
            world,
            sessions: Vec::new(),
            random,
            counts: BTreeMap::new(),
            bodies: BTreeMap::new(),
            programs: 0,
            conversations: 0,
            is_honest: false,
            is_telling: std::env::var_os("PEERD_BOTH_ENDS_TELL").is_some(),
            log: Vec::new(),
        };
        ends.route();
        ends
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
        self.log.push(what.to_owned());
        if self.is_telling {
            println!("-- {what}");
        }
    }

    // ---- sessions

    /// Another client with its adapter.
    pub fn add(&mut self, mut client: Client) {
        let number = u32::try_from(self.sessions.len()).expect("a few") + 1;
        self.conversations += 1;
        client.conversation = self.conversations;
        self.sessions.push(Session {
            name: format!("session-{number}"),
            number,
            adapter: Adapter::new(Settings::default()),
            proved: BTreeSet::new(),
            program: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            waits: BTreeMap::new(),
            running: None,
            is_answering: false,
            hooks_waiting: VecDeque::new(),
            look_wanted: false,
            push: None,
            client,
            is_alive: false,
            queued_bytes: 0,
            left_bytes: 0,
            calls: 0,
            pid: 0,
        });
    }

    pub fn seat(session: &Session) -> Option<Seat> {
        let kind = match session.client.kind {
            ClientKind::Claude => SeatKind::Claude,
            ClientKind::Codex => SeatKind::Codex,
            ClientKind::Other => return None,
        };
        Some(Seat { kind, key: format!("{}-{}", session.name, session.client.conversation) })
    }

    /// A new process of the client, and a new adapter in it.
    pub fn start(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        let seat = Self::seat(session);
        let claude_session =
            seat.as_ref().filter(|seat| seat.kind == SeatKind::Claude).map(|seat| seat.key.clone());
        session.adapter = Adapter::new(Settings {
            claude_session,
            wakeups_per_hour: 100_000,
            wake_unattended: true,
            ..Settings::default()
        });
        session.proved.clear();
        (session.is_alive, session.look_wanted, session.push) = (true, false, None);
        (session.queued_bytes, session.left_bytes) = (0, 0);
        self.programs += 1;
        session.pid = 10 * u32::try_from(self.programs).expect("few programs");
        let kind = session.client.kind;
        self.tell(at, Event::Introduced(kind));
        if kind == ClientKind::Codex {
            let conversation = seat.as_ref().map(|seat| seat.key.clone());
            self.tell(at, Event::SettledOn { seat, conversation });
            // A client of this kind may run several calls of one message one after the other, and
            // says so.
            if self.sessions[at].client.records {
                self.tell(at, Event::RecordAlone);
            }
        }
        self.connect(at);
    }

    /// The adapter connects and registers.
    pub fn connect(&mut self, at: usize) {
        self.programs += 1;
        let session = &mut self.sessions[at];
        let (adapter_pid, client_pid) = (session.pid + 1, session.pid);
        let program = format!("{}.{}", session.name, self.programs);
        let seat = session.adapter.seat();
        let register = |resume| Register {
            name: Some(session.name.clone()),
            seat: seat.clone(),
            client: "test".into(),
            client_version: "1".into(),
            client_pid,
            cwd: "/work".into(),
            git_root: None,
            repo: None,
            host: "host".into(),
            resume,
        };
        let resume = session.adapter.identity().map(|identity| identity.resume.clone());
        let (first, second) = (register(resume.clone()), register(None));
        session.program = Some(program.clone());
        session.up.clear();
        self.world.connect(&program, Role::Adapter, vec![adapter_pid, client_pid], seat);
        self.route();
        self.ask(at, Request::Register(first), Wait::Register);
        if resume.is_some() && !self.sessions[at].adapter.is_connected() {
            self.tell(at, Event::Forgotten);
            self.ask(at, Request::Register(second), Wait::Register);
        }
        assert!(self.sessions[at].adapter.is_connected(), "a session registers");
    }

    /// The connection ends. Of what the adapter had sent the broker still reads `read` requests.
    pub fn cut(&mut self, at: usize, read: usize) {
        for _ in 0..read {
            self.deliver_up(at);
        }
        let Some(program) = self.sessions[at].program.take() else { return };
        self.world.disconnect(&program);
        self.route();
        self.lost(at);
    }

    /// The adapter takes note that its connection has ended.
    fn lost(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        session.program = None;
        let mut waits: Vec<Wait> = std::mem::take(&mut session.waits).into_values().collect();
        waits.extend(session.up.drain(..).map(|(_, wait)| wait));
        waits.extend(session.down.drain(..).filter_map(|down| match down {
            Down::Answer(wait, _) => Some(wait),
            Down::Push(_) => None,
        }));
        session.hooks_waiting.clear();
        self.tell(at, Event::Lost);
        for wait in waits {
            self.lose(at, wait);
        }
        // A hook that came by this connection is answered by none.
        let session = &mut self.sessions[at];
        (session.running, session.is_answering) = (None, false);
    }

    fn lose(&mut self, at: usize, wait: Wait) {
        match wait {
            Wait::Nothing | Wait::Register | Wait::Acked(_) => {}
            Wait::Ticket(ticket) => drop(self.tell(at, Event::Answered { ticket, done: false })),
            Wait::Bind(seat) => {
                drop(self.tell(at, Event::Bound { seat, outcome: BindOutcome::Failed }))
            }
            Wait::Hook => {
                if let Some(Running { hook, .. }) = self.sessions[at].running.take() {
                    // Nobody is there to read the output.
                    let outcome =
                        self.tell(at, Event::HookReady { event: hook.event, received: false });
                    assert!(
                        outcome.print.is_some_and(|(block, _)| block.offered.is_empty()),
                        "without a broker nothing is offered"
                    );
                }
            }
            Wait::HookAnswer { messages, asks } => {
                self.tell(
                    at,
                    Event::HookAnswered { messages, asks, outcome: HookOutcome::Unknown },
                );
            }
            Wait::Call(call) => self.queue_result(at, call, String::new()),
        }
    }

    /// The client is killed, with its adapter.
    pub fn die(&mut self, at: usize, read: usize) {
        if let Doing::Hooking { program, .. } = self.sessions[at].client.doing.clone() {
            self.world.disconnect(&program);
            self.route();
        }
        self.tell(at, Event::Closing);
        self.cut(at, read);
        let session = &mut self.sessions[at];
        session.is_alive = false;
        self.world.ended.extend([session.pid, session.pid + 1]);
        session.client.break_off(false);
        session.client.clear(session.client.conversation);
    }

    /// The broker is killed, and another one goes on with what is durable.
    pub fn restart_broker(&mut self) {
        for at in 0..self.sessions.len() {
            if self.sessions[at].program.is_some() {
                self.lost(at);
            }
        }
        self.world.restart();
        let hooking = |session: &Session| matches!(session.client.doing, Doing::Hooking { .. });
        self.world.connect("me", Role::Operator, Vec::new(), None);
        self.route();
        // A hook without a broker says nothing.
        for at in 0..self.sessions.len() {
            if hooking(&self.sessions[at]) {
                self.hook_returns(at, "");
            }
        }
    }

    // ---- the link

    /// The broker reads the next request of this adapter.
    pub fn deliver_up(&mut self, at: usize) -> bool {
        let Some((request, wait)) = self.sessions[at].up.pop_front() else { return false };
        self.ask(at, request, wait);
        true
    }

    fn ask(&mut self, at: usize, request: Request, wait: Wait) {
        let Some(program) = self.sessions[at].program.clone() else { return self.lose(at, wait) };
        let is_register = matches!(wait, Wait::Register);
        self.sessions[at].waits.insert(self.world.requests + 1, wait);
        self.world.ask(&program, request);
        self.route();
        if is_register {
            // The handshake is one step here: nothing else is under way on a new connection.
            let place = self.sessions[at]
                .down
                .iter()
                .position(|down| matches!(down, Down::Answer(Wait::Register, _)));
            let answer = place.and_then(|place| self.sessions[at].down.remove(place));
            if let Some(Down::Answer(wait, result)) = answer {
                self.answered(at, wait, result);
            }
        }
    }

    /// The adapter reads what the broker said next.
    pub fn deliver_down(&mut self, at: usize) -> bool {
        match self.sessions[at].down.pop_front() {
            None => return false,
            Some(Down::Push(Push::Hook { call, hook })) => {
                self.sessions[at].hooks_waiting.push_back((call, *hook));
                self.next_hook(at);
            }
            Some(Down::Push(push)) => drop(self.tell(at, Event::Pushed(push))),
            Some(Down::Answer(wait, result)) => self.answered(at, wait, result),
        }
        true
    }

    /// Takes what the broker decided: what became durable is looked at, and what it says goes on
    /// its way.
    pub fn route(&mut self) {
        for change in std::mem::take(&mut self.world.changes) {
            if let Change::PutDelivery { record, was } = &change
                && record.stage == Stage::Presented
                && *was != Some(Stage::Presented)
            {
                let cause = record.trace.last().and_then(|entry| entry.cause);
                self.stored_as_presented(record.message, record.peer, cause);
            }
        }
        for effect in std::mem::take(&mut self.world.effects) {
            match effect {
                Effect::Reply { connection, id, result } => match self.at(connection) {
                    Some(at) => {
                        if let Some(wait) = self.sessions[at].waits.remove(&id) {
                            self.sessions[at].down.push_back(Down::Answer(wait, result));
                        }
                    }
                    None => self.replied_to_another(connection, result),
                },
                Effect::Deliver { connection, message, attempts, shown_before } => {
                    let Some(at) = self.at(connection) else { continue };
                    let message = self.world.disk.messages[&message].clone().into_message();
                    let delivery = Delivery { message, attempts, shown_before };
                    self.sessions[at].down.push_back(Down::Push(Push::Deliver(Box::new(delivery))));
                }
                Effect::Push { connection, push } => {
                    if let Some(at) = self.at(connection) {
                        self.sessions[at].down.push_back(Down::Push(push));
                    }
                }
                _ => {}
            }
        }
    }

    fn at(&self, connection: peer_core::input::ConnectionId) -> Option<usize> {
        self.sessions.iter().position(|session| {
            let program =
                session.program.as_ref().and_then(|program| self.world.programs.get(program));
            program.is_some_and(|program| program.connection == connection)
        })
    }

    fn replied_to_another(
        &mut self,
        connection: peer_core::input::ConnectionId,
        result: Result<Reply, Refusal>,
    ) {
        let program =
            self.world.programs.iter().find(|(_, program)| program.connection == connection);
        let Some(program) = program.map(|(name, _)| name.clone()) else { return };
        let output = match result {
            Ok(Reply::Hook { output }) => output,
            Ok(Reply::Sent(_)) => return,
            Ok(_) => return,
            Err(refusal) => panic!("{program} was refused: {refusal}"),
        };
        let waits = |session: &Session| matches!(&session.client.doing, Doing::Hooking { program: open, .. } if *open == program);
        if let Some(at) = self.sessions.iter().position(waits) {
            self.hook_returns(at, &output);
        }
    }

    // ---- the adapter

    /// Tells an adapter's core what happened, and plays its hands.
    pub fn tell(&mut self, at: usize, event: Event) -> Outcome {
        let now = self.world.now.mono_ms;
        let explicit = matches!(event, Event::ReadOn { .. });
        let told = self.is_telling.then(|| format!("{event:?}"));
        let actions = self.sessions[at].adapter.handle(now, event);
        if let Some(told) = told {
            println!("{}: {told}\n    {actions:?}", self.sessions[at].name);
        }
        let mut outcome = Outcome::default();
        let mut offered = BTreeSet::new();
        for action in actions {
            match action {
                Action::Tell(request) => {
                    if let Request::Offered { messages, .. } = &request {
                        offered.extend(messages.iter().copied());
                    }
                    self.sessions[at].up.push_back((request, Wait::Nothing));
                }
                Action::Ask { ticket, request } => {
                    if let Request::Presented { messages, .. } = &request {
                        self.sessions[at].proved.extend(messages);
                    }
                    self.sessions[at].up.push_back((request, Wait::Ticket(ticket)));
                }
                Action::Bind(seat) => {
                    self.sessions[at].up.push_back((Request::Bind(seat.clone()), Wait::Bind(seat)))
                }
                Action::Look => self.sessions[at].look_wanted = true,
                Action::Push { carrier, post } => {
                    self.shown(at, &post.text, "pushed");
                    self.sessions[at].push = Some((carrier, post));
                }
                Action::Go => {
                    let ids = self.sessions[at]
                        .push
                        .as_ref()
                        .map(|(_, post)| post.ids())
                        .unwrap_or_default();
                    assert!(
                        ids.iter().all(|id| offered.contains(id)),
                        "{}",
                        self.story("bytes leave before the broker is told")
                    );
                    outcome.go = true;
                }
                Action::Show { block, .. } => {
                    let is_told = block.offered.iter().all(|id| offered.contains(id));
                    assert!(
                        is_told,
                        "{}",
                        self.story("a result is made before the broker is told")
                    );
                    if !explicit {
                        self.shown(at, &block.text, "shown in a result");
                    }
                    outcome.show = Some(block);
                }
                Action::Print { block, asks } => {
                    let is_told = block.offered.iter().all(|id| offered.contains(id));
                    assert!(is_told, "{}", self.story("a hook prints before the broker is told"));
                    self.shown(at, &block.text, "printed by a hook");
                    outcome.print = Some((block, asks));
                }
                Action::Receive { .. } => outcome.receive = true,
                Action::Notice(_)
                | Action::Title(_)
                | Action::Summarize(_)
                | Action::Watch
                | Action::News => {}
            }
        }
        outcome
    }

    fn answered(&mut self, at: usize, wait: Wait, result: Result<Reply, Refusal>) {
        match (wait, result) {
            (Wait::Nothing, _) => {}
            (Wait::Register, Ok(Reply::Registered(registered))) => {
                drop(self.tell(at, Event::Registered(registered)))
            }
            (Wait::Register, refused) => self.log.push(format!("registering: {refused:?}")),
            (Wait::Ticket(ticket), result) => {
                let done = !matches!(result, Err(Refusal { code: ErrorCode::NoSpace, .. }));
                self.tell(at, Event::Answered { ticket, done });
            }
            (Wait::Bind(seat), result) => {
                let outcome = match result {
                    Ok(Reply::Registered(registered)) => BindOutcome::Done(registered),
                    Ok(_) => BindOutcome::Failed,
                    Err(refusal) => BindOutcome::Refused(refusal.to_string()),
                };
                self.tell(at, Event::Bound { seat, outcome });
                if self.sessions[at].running.as_ref().is_some_and(|running| running.is_binding) {
                    self.hook_is_ours(at);
                }
            }
            (Wait::Hook, result) => {
                self.look_into_record(at);
                let Some(event) =
                    self.sessions[at].running.as_ref().map(|running| running.hook.event)
                else {
                    return;
                };
                let outcome = self.tell(at, Event::HookReady { event, received: result.is_ok() });
                self.print(at, outcome);
            }
            (Wait::HookAnswer { messages, asks }, result) => {
                let outcome = if result.is_ok() { HookOutcome::Relayed } else { HookOutcome::Gone };
                self.sessions[at].is_answering = false;
                self.tell(at, Event::HookAnswered { messages, asks, outcome });
                self.next_hook(at);
            }
            (Wait::Call(call), Ok(Reply::Received(received))) => {
                self.look_into_record(at);
                let due = Due {
                    among: None,
                    also: None,
                    limit: usize::MAX,
                    peek: false,
                    budget: BLOCK_CHARS_MAX,
                    waiting: received.waiting,
                };
                let block = if self.sessions[at].adapter.carries_mail(call) {
                    self.tell(at, Event::ResultDue { call, due }).show.unwrap_or_default()
                } else {
                    Block::default()
                };
                self.queue_result(at, call, block.text);
            }
            (Wait::Call(call), _) => self.queue_result(at, call, String::new()),
            (Wait::Acked(messages), Ok(_)) => {
                self.sessions[at].proved.extend(&messages);
                self.tell(at, Event::Settled(messages));
            }
            (Wait::Acked(_), Err(_)) => {}
        }
    }

    pub fn queue_result(&mut self, at: usize, call: CallId, text: String) {
        let session = &mut self.sessions[at];
        session.queued_bytes += 100 + text.len() as u64;
        let end = session.queued_bytes;
        if let Some(open) = session.client.calls.iter_mut().find(|open| open.id == call) {
            open.result = Some((text, end));
        }
        self.tell(at, Event::ResultQueued { call, end });
    }

    /// Reads what is new in the client's record.
    pub fn look_into_record(&mut self, at: usize) {
        let client = &mut self.sessions[at].client;
        let speaks = client.records;
        let (seen, withdrawn) = client.read_record();
        if speaks {
            self.tell(at, Event::Recorded { seen, withdrawn, speaks });
        }
    }

    /// Which ways into the client there seem to be: a client does not say that it drops what it is
    /// given.
    pub fn ways(&self, at: usize) -> Ways {
        let session = &self.sessions[at];
        let takes = session.client.takes_pushes;
        let is_claude = takes && session.client.kind == ClientKind::Claude;
        Ways {
            channel: is_claude,
            channel_loaded: is_claude && session.number.is_multiple_of(2),
            inbox_socket: is_claude,
            asks_first: true,
            app_server: takes && session.client.kind == ClientKind::Codex,
            attended: true,
        }
    }

    /// A call of the client arrives at the adapter.
    pub fn call(&mut self, at: usize, is_subagents: bool, wait_for_mail: bool) -> CallId {
        self.look_into_record(at);
        let session = &mut self.sessions[at];
        session.calls += 1;
        let call = CallId(session.calls);
        let is_codex = session.client.kind == ClientKind::Codex;
        // Codex names the conversation, another one for a subagent; Claude Code says so in the
        // call.
        let main = Self::seat(session).map(|seat| seat.key);
        let conversation = if is_subagents { Some("a-subagent".to_owned()) } else { main };
        let conversation = conversation.filter(|_| is_codex);
        session.client.calls.push(Call { id: call, result: None, is_wanted: true, is_subagents });
        let written_before = session.left_bytes;
        let is_subagent = is_subagents && !is_codex;
        self.tell(
            at,
            Event::ToolCalled { call, written_before, conversation, is_subagent, tool_use: None },
        );
        if wait_for_mail {
            if self.sessions[at].adapter.is_connected() {
                let receive = Request::Receive { filter: Filter::default(), wait: false };
                self.sessions[at].up.push_back((receive, Wait::Call(call)));
            } else {
                self.queue_result(at, call, String::new());
            }
        }
        call
    }

    // ---- the promises

    /// A message became `presented`: its reader's model has been asked with all of it, unless the
    /// reader says so itself.
    fn stored_as_presented(&mut self, message: MessageId, peer: PeerId, cause: Option<Cause>) {
        if !matches!(cause, Some(Cause::Evidence(evidence)) if evidence != Evidence::Ack) {
            return;
        }
        *self.counts.entry("presented by evidence").or_default() += 1;
        if !self.bodies.contains_key(&message) {
            return;
        }
        let is_seen = self.sessions.iter().any(|session| {
            let is_reader = self.world.broker.peer_name(peer) == Some(session.name.as_str());
            is_reader && session.client.has_seen(message)
        });
        assert!(
            is_seen,
            "{}",
            self.story(&format!(
                "{message} to {peer} is presented by {cause:?}, and no model has seen all of it"
            ))
        );
    }

    /// A text goes to a client unasked: nothing in it was proved before.
    fn shown(&mut self, at: usize, text: &str, how: &str) {
        for (message, _) in pieces(text) {
            *self.counts.entry("showings").or_default() += 1;
            let is_proved = self.sessions[at].proved.contains(&message);
            assert!(
                !is_proved,
                "{}",
                self.story(&format!(
                    "{message} is {how} in {} after proof",
                    self.sessions[at].name
                ))
            );
            let peer = self.sessions[at].adapter.identity().map(|identity| identity.peer);
            let stored = peer.and_then(|peer| self.world.disk.deliveries.get(&(message, peer)));
            let is_over = stored.is_some_and(|delivery| delivery.stage == Stage::Presented);
            // What the broker has stored may be on its way to this adapter.
            let is_known = self.sessions[at].down.is_empty() && is_over;
            assert!(
                !is_known,
                "{}",
                self.story(&format!(
                    "{message} is {how} in {} though stored as presented",
                    self.sessions[at].name
                ))
            );
        }
    }

    /// What happened, for whoever reads why a promise is broken.
    pub fn story(&self, what: &str) -> String {
        let from = self.log.len().saturating_sub(120);
        let who = self
            .sessions
            .iter()
            .map(|session| {
                format!(
                    "{} is {:?}",
                    session.client.what(&session.name),
                    session.adapter.identity().map(|it| (it.peer, it.name.clone(), it.takes_mail))
                )
            })
            .collect::<Vec<_>>()
            .join("; ");
        format!("{what}\n{who}\nwhat was done last:\n  {}", self.log[from..].join("\n  "))
    }
}
