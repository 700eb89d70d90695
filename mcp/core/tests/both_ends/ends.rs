//! The broker's rules and several adapters' cores, and the processes that they run in. The links
//! between them are in `link.rs`; whether the promises hold is looked at in `promises.rs`.
//!
//! A client has two places for adapters: most have one adapter, and some have two for a while.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use peer_core::broker::Config;
use peer_mcp_core::ClientKind;
use peer_mcp_core::adapter::{Adapter, AdapterSettings};
use peer_mcp_core::event::{BindOutcome, Event, HookOutcome};
use peer_mcp_core::inbox::{Block, Post};
use peer_proto::hook::HookCall;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::Carrier;
use peer_proto::request::{CLAUDE_CLIENT, Register, Request, Role, Seat, SeatKind};

use crate::client::{Client, Doing};
use crate::link::{Down, Wait};
use crate::random::Random;
use crate::world::World;

/// Places for adapters that each client has.
const ADAPTERS_EACH: usize = 2;

/// The client of the adapter at this place.
pub fn of(at: usize) -> usize {
    at / ADAPTERS_EACH
}

/// The first place for an adapter of this client.
pub fn first_of(client: usize) -> usize {
    client * ADAPTERS_EACH
}

/// A relayed hook that the adapter works on.
pub struct Running {
    pub call: u64,
    pub hook: HookCall,
    /// It waits for a seat.
    pub is_binding: bool,
}

/// A place for an adapter: the process, and its link to the broker.
pub struct Session {
    pub adapter: Adapter,
    /// The number of the process among all adapters that ever ran.
    pub serial: u64,
    pub pid: u32,
    pub is_alive: bool,
    /// Messages whose proof this adapter has told of.
    pub proved: BTreeSet<MessageId>,
    /// Messages that the broker pushed when it knew of an offer of them.
    pub came_offered: BTreeSet<MessageId>,
    /// The broker's name for the open connection.
    pub program: Option<String>,
    pub up: VecDeque<(Request, Wait)>,
    pub down: VecDeque<Down>,
    pub waits: BTreeMap<u64, Wait>,
    pub running: Option<Running>,
    pub is_answering: bool,
    pub hooks_waiting: VecDeque<(u64, HookCall)>,
    pub look_wanted: bool,
    pub push: Option<(Carrier, Post)>,
    pub queued_bytes: u64,
    pub left_bytes: u64,
    pub calls: u64,
    /// Lines of the client's record that it has read.
    pub read: usize,
}

impl Session {
    fn empty() -> Self {
        Self {
            adapter: Adapter::new(AdapterSettings::default()),
            serial: 0,
            pid: 0,
            is_alive: false,
            proved: BTreeSet::new(),
            came_offered: BTreeSet::new(),
            program: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            waits: BTreeMap::new(),
            running: None,
            is_answering: false,
            hooks_waiting: VecDeque::new(),
            look_wanted: false,
            push: None,
            queued_bytes: 0,
            left_bytes: 0,
            calls: 0,
            read: 0,
        }
    }

    /// The peer that this adapter is.
    pub fn peer(&self) -> Option<PeerId> {
        self.adapter.identity().map(|identity| identity.peer)
    }
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
    pub clients: Vec<Client>,
    pub sessions: Vec<Session>,
    pub random: Random,
    pub counts: BTreeMap<&'static str, u64>,
    /// Each message's body.
    pub bodies: BTreeMap<MessageId, String>,
    pub programs: u64,
    pub conversations: u32,
    /// The adapter whose request the broker reads.
    pub asking: Option<usize>,
    /// Messages whose beginnings a model has seen: as which peer, and from which adapter process.
    pub seen_as: BTreeSet<(PeerId, MessageId)>,
    pub seen_from: BTreeSet<(u64, MessageId)>,
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
            clients: Vec::new(),
            sessions: Vec::new(),
            random,
            counts: BTreeMap::new(),
            bodies: BTreeMap::new(),
            programs: 0,
            conversations: 0,
            asking: None,
            seen_as: BTreeSet::new(),
            seen_from: BTreeSet::new(),
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

    // ---- clients

    /// Another client, with places for its adapters.
    pub fn add(&mut self, mut client: Client) -> usize {
        client.name = format!("session-{}", self.clients.len() + 1);
        self.clients.push(client);
        self.sessions.extend(std::iter::repeat_with(Session::empty).take(ADAPTERS_EACH));
        self.clients.len() - 1
    }

    pub fn new_conversation(&mut self) -> u32 {
        self.conversations += 1;
        self.conversations
    }

    /// The adapters of this client that run.
    pub fn adapters(&self, client: usize) -> Vec<usize> {
        let places = first_of(client)..first_of(client + 1);
        places.filter(|at| self.sessions[*at].is_alive).collect()
    }

    pub fn is_running(&self, client: usize) -> bool {
        !self.adapters(client).is_empty()
    }

    /// The client's own name of its conversation.
    pub fn seat(&self, client: usize) -> Option<Seat> {
        let Client { kind, conversation, .. } = self.clients[client];
        let kind = match kind {
            ClientKind::Claude => SeatKind::Claude,
            ClientKind::Codex => SeatKind::Codex,
            ClientKind::Other => return None,
        };
        Some(Seat { kind, key: format!("conversation-{conversation}") })
    }

    fn new_pid(&mut self) -> u32 {
        self.programs += 1;
        u32::try_from(self.programs).expect("few programs") + 1_000
    }

    /// A new process of the client, and a new adapter in it.
    pub fn start(&mut self, client: usize) {
        self.clients[client].pid = self.new_pid();
        self.start_adapter(first_of(client));
    }

    /// A new adapter of a client that runs.
    pub fn start_adapter(&mut self, at: usize) {
        let client = of(at);
        let seat = self.seat(client);
        let claude_session =
            seat.as_ref().filter(|seat| seat.kind == SeatKind::Claude).map(|seat| seat.key.clone());
        let pid = self.new_pid();
        self.sessions[at] = Session {
            adapter: Adapter::new(AdapterSettings {
                claude_session,
                wakeups_per_hour: 100_000,
                wake_unattended: true,
                ..AdapterSettings::default()
            }),
            serial: u64::from(pid),
            pid,
            is_alive: true,
            ..Session::empty()
        };
        let kind = self.clients[client].kind;
        self.tell(at, Event::Introduced(kind));
        if kind == ClientKind::Codex {
            let conversation = seat.as_ref().map(|seat| seat.key.clone());
            self.tell(at, Event::SettledOn { seat, conversation });
            // A client of this kind may run several calls of one message one after the other, and
            // says so.
            if self.clients[client].records {
                self.tell(at, Event::RecordAlone);
            }
        }
        self.connect(at);
    }

    /// The adapter connects and registers. A second adapter that registers under an id that the
    /// broker does not know yet becomes another peer, unless its client is Claude Code. Here it waits
    /// until the first one has told that id.
    pub fn connect(&mut self, at: usize) {
        if self.sessions[at].adapter.identity().is_none() && self.waits_for_another(at) {
            return;
        }
        self.programs += 1;
        let (adapter_pid, client_pid) = (self.sessions[at].pid, self.clients[of(at)].pid);
        let name = self.clients[of(at)].name.clone();
        let program = format!("{name}.{}", self.programs);
        let is_claude = self.clients[of(at)].kind == ClientKind::Claude;
        let client = if is_claude { CLAUDE_CLIENT } else { "test" };
        let session = &mut self.sessions[at];
        let seat = session.adapter.seat();
        let register = |resume| Register {
            name: Some(name.clone()),
            seat: seat.clone(),
            client: client.into(),
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
            if self.waits_for_another(at) {
                return self.cut(at, 0);
            }
            self.ask(at, Request::Register(second), Wait::Register);
        }
        assert!(self.sessions[at].adapter.is_connected(), "a session registers");
    }

    /// Whether another adapter of the client is to tell the broker the client's present id.
    fn waits_for_another(&self, at: usize) -> bool {
        let knows = |other: usize| other != at && self.sessions[other].adapter.identity().is_some();
        let is_claude = self.clients[of(at)].kind == ClientKind::Claude;
        !is_claude && self.adapters(of(at)).into_iter().any(knows) && !self.is_id_known(of(at))
    }

    /// Whether the broker knows the client's peer by the client's present id.
    pub fn is_id_known(&self, client: usize) -> bool {
        let seat = self.seat(client);
        let mut peers = self.world.disk.peers.values();
        let name = &self.clients[client].name;
        seat.is_some_and(|seat| peers.any(|peer| peer.name == *name && peer.seats.contains(&seat)))
    }

    /// The connection ends. Of what the adapter had sent the broker still reads `read` requests.
    pub fn cut(&mut self, at: usize, read: usize) {
        for _ in 0..read.min(self.sessions[at].up.len()) {
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
            Down::Push(_) | Down::Message { .. } => None,
        }));
        session.hooks_waiting.clear();
        session.came_offered.clear();
        self.tell(at, Event::Lost);
        for wait in waits {
            self.lose(at, wait);
        }
        // A hook that came by this connection is answered by none.
        let session = &mut self.sessions[at];
        (session.running, session.is_answering) = (None, false);
    }

    pub fn lose(&mut self, at: usize, wait: Wait) {
        match wait {
            Wait::Nothing | Wait::Register | Wait::Acked => {}
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

    /// The adapter's process ends. Of what it had sent the broker still reads `read` requests.
    pub fn end_adapter(&mut self, at: usize, read: usize) {
        self.tell(at, Event::Closing);
        self.cut(at, read);
        let session = &mut self.sessions[at];
        session.is_alive = false;
        self.world.ended.insert(session.pid);
    }

    /// The client's process is killed, with all adapters in it. Several threads may have been in
    /// it.
    pub fn die(&mut self, client: usize) {
        let pid = self.clients[client].pid;
        self.world.ended.insert(pid);
        let in_it = (0..self.clients.len()).filter(|other| self.clients[*other].pid == pid);
        for client in in_it.collect::<Vec<_>>() {
            if let Doing::Hooking { program, .. } = self.clients[client].doing.clone()
                && self.world.programs.contains_key(&program)
            {
                self.world.disconnect(&program);
                self.route();
            }
            for at in self.adapters(client) {
                let read = self.random.below(self.sessions[at].up.len() + 1);
                self.end_adapter(at, read);
            }
            let client = &mut self.clients[client];
            client.break_off(false);
            client.pending.clear();
            client.unwritten.clear();
        }
    }

    /// The broker is killed, and another one goes on with what is durable.
    pub fn restart_broker(&mut self) {
        for at in 0..self.sessions.len() {
            if self.sessions[at].program.is_some() {
                self.lost(at);
            }
        }
        self.world.restart();
        self.world.connect("me", Role::Operator, Vec::new(), None);
        self.route();
        // A hook without a broker says nothing.
        for client in 0..self.clients.len() {
            if matches!(self.clients[client].doing, Doing::Hooking { .. }) {
                self.hook_returns(client, "", 0);
            }
        }
    }
}
