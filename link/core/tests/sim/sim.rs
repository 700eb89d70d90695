//! Two to five brokers with links between them: who is connected to whom, and what is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use peer_core::broker::Config;
use peer_core::step::Effect;
use peer_link_core::{Action, Event, Link, LinkSettings};
use peer_proto::ids::{BrokerId, MessageId, PeerId};
use peer_proto::link::{Frame, LinkPush, LinkReply, LinkRequest};
use peer_proto::policy::Policy;
use peer_proto::refusal::Refusal;
use peer_proto::request::{Push, Register, Reply, Request, RequestId, Resume, Role};

use crate::book::Book;
use crate::net::{Kind, Way};
use crate::random::Random;
use crate::world::{Disk, World};

/// Something on its way from a broker to its link process.
pub enum FromBroker {
    Push(LinkPush),
    Answer(RequestId, Result<Reply, Refusal>),
}

/// One end of a link: the process, and its connection to its broker.
pub struct End {
    pub to: usize,
    pub core: Link,
    pub program: String,
    /// Link processes that this broker had for this link.
    pub processes: usize,
    pub connected: bool,
    /// Pushes and answers, each in order: a process may read either first.
    pub inbox: VecDeque<FromBroker>,
    /// The broker's request ids, and the link's.
    pub asked: BTreeMap<RequestId, RequestId>,
}

/// A machine.
pub struct Node {
    pub world: World,
    pub own: BrokerId,
    pub ends: Vec<End>,
    /// The sessions that there ever were, by the names that they began with.
    pub names: Vec<String>,
    /// What each session holds.
    pub holds: BTreeMap<String, BTreeSet<MessageId>>,
    pub online: BTreeSet<String>,
    pub images: Vec<Disk>,
    /// It was put back to an earlier image at least once.
    pub restored: bool,
    /// Brokers whose links its person removed.
    pub removed: BTreeSet<BrokerId>,
    /// Deliveries of which it forgot something when it was put back.
    pub forgotten: BTreeSet<(MessageId, PeerId)>,
    /// Messages whose order a person changed: requeued, or refused before.
    pub out_of_order: BTreeSet<MessageId>,
}

/// The wire between two machines.
pub struct Wire {
    pub ends: [usize; 2],
    pub kind: Kind,
    pub up: bool,
    /// The network is divided here: no connection can be made.
    pub parted: bool,
    pub ways: [Way; 2],
}

/// A message that a broker accepted for a peer of another one.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub node: usize,
    pub proxy: PeerId,
    pub message: MessageId,
}

pub struct Sim {
    pub random: Random,
    pub nodes: Vec<Node>,
    pub wires: Vec<Wire>,
    pub accepted: Vec<Accepted>,
    /// What was proved to a model, by machine, message and peer.
    pub proved: BTreeSet<(usize, MessageId, PeerId)>,
    pub book: Book,
    /// A link process of this world lies.
    pub lies: bool,
    /// Ids of two machines are often the same in this world, as they are once in 2^32 else.
    pub same_ids: bool,
    /// Somebody sets clocks in this world.
    pub clocks_set: bool,
    /// Of all that happened, in order: a seed that is played again gives the same.
    pub digest: u64,
    pub counts: BTreeMap<&'static str, u64>,
    pub tells: bool,
}

/// Sessions that each machine begins with.
pub const SESSIONS: [&str; 2] = ["ann", "bob"];

pub fn broker_id(node: usize) -> BrokerId {
    BrokerId([node as u8 + 1; 16])
}

fn end_name(to: usize, process: usize) -> String {
    format!("link-{to}/{process}")
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let size = [2, 2, 2, 2, 2, 2, 3, 3, 4, 5][random.below(10)];
        let (lies, clocks_set) = (random.chance(25), random.chance(20));
        let same_ids = random.chance(5);
        let mut sim = Self {
            random,
            nodes: Vec::new(),
            wires: Vec::new(),
            accepted: Vec::new(),
            proved: BTreeSet::new(),
            book: Book::default(),
            lies,
            same_ids,
            clocks_set,
            digest: seed,
            counts: BTreeMap::new(),
            tells: std::env::var("PEERD_LINK_TELL").is_ok(),
        };
        let links = sim.draw_links(size);
        for node in 0..size {
            sim.add_node(node, &links, same_ids);
        }
        for ends in links {
            let kind = match sim.random.below(100) {
                0..=49 => Kind::Stream,
                50..=79 => Kind::Service,
                _ => Kind::Attic,
            };
            let ways = [Way::default(), Way::default()];
            sim.wires.push(Wire { ends, kind, up: false, parted: false, ways });
        }
        for wire in 0..sim.wires.len() {
            sim.connect(wire);
        }
        for _ in 0..60 {
            sim.deliver();
        }
        sim.save();
        sim
    }

    /// Draws who has a link to whom: most pairs, and always a chain.
    fn draw_links(&mut self, size: usize) -> Vec<[usize; 2]> {
        let mut links = Vec::new();
        for one in 0..size {
            for other in one + 1..size {
                if other == one + 1 || self.random.chance(60) {
                    links.push([one, other]);
                }
            }
        }
        links
    }

    fn add_node(&mut self, node: usize, links: &[[usize; 2]], same_ids: bool) {
        let mut config = Config::default();
        for key in ["sender_per_minute", "pair_per_minute", "thread_turns_max"] {
            assert!(config.limits.set(key, 1_000_000));
        }
        if self.random.chance(25) {
            assert!(config.limits.set("pending_per_peer", 1 + self.random.below(4) as u32));
        }
        if self.random.chance(50) {
            config.retention.settled_count = 1 + self.random.below(10) as u64;
        }
        let mut world = World::new(config);
        world.quiet = true;
        world.entropy = self.random.draw();
        if same_ids {
            world.id_bits = 0x1;
        } else {
            world.set_clock(self.random.below(60_000) as i64 - 30_000);
        }
        world.connect("boss", Role::Operator, vec![9, 8, 1], None);
        let mut this = Node {
            world,
            own: broker_id(node),
            ends: Vec::new(),
            names: Vec::new(),
            holds: BTreeMap::new(),
            online: BTreeSet::new(),
            images: Vec::new(),
            restored: false,
            removed: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            out_of_order: BTreeSet::new(),
        };
        let others = links.iter().filter(|ends| ends.contains(&node));
        for to in others.map(|ends| ends[usize::from(ends[0] == node)]) {
            this.ends.push(End {
                to,
                core: new_link(node, to),
                program: end_name(to, 0),
                processes: 0,
                connected: false,
                inbox: VecDeque::new(),
                asked: BTreeMap::new(),
            });
        }
        self.nodes.push(this);
        for name in SESSIONS {
            self.session_online(node, name);
        }
    }

    pub fn tell(&mut self, kind: &'static str) {
        if self.tells {
            println!("{kind}");
        }
        *self.counts.entry(kind).or_default() += 1;
        self.digest_in(kind.as_bytes());
    }

    fn digest_in(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    // ---- sessions

    pub fn session_online(&mut self, node: usize, name: &str) {
        let this = &mut self.nodes[node];
        if !this.names.iter().any(|known| known == name) {
            this.names.push(name.to_owned());
        }
        let place = this.names.iter().position(|known| known == name).expect("a session") as u32;
        let pid = 1_000 + place;
        let known = this.world.programs.get(name).cloned();
        let resume =
            known.and_then(|program| Some(Resume { peer: program.peer?, token: program.token? }));
        this.world.connect(name, Role::Adapter, vec![pid + 50_000, pid, 1], None);
        let register = Register {
            name: Some(name.to_owned()),
            seat: None,
            client: "claude".to_owned(),
            client_version: "1".to_owned(),
            client_pid: pid,
            cwd: "/w".to_owned(),
            git_root: None,
            repo: None,
            host: "h".to_owned(),
            resume: None,
        };
        let with = Register { resume: resume.clone(), ..register.clone() };
        this.world.ask(name, Request::Register(with));
        this.holds.insert(name.to_owned(), BTreeSet::new());
        let is_in = |this: &Node| {
            this.world.effects.iter().any(|effect| {
                matches!(effect, Effect::Reply { result: Ok(Reply::Registered(_)), .. })
            })
        };
        // A restored broker may not know the token.
        if !is_in(this) {
            this.world.ask(name, Request::Register(register));
        }
        assert!(is_in(this), "a session gets in");
        this.online.insert(name.to_owned());
        self.route(node);
    }

    pub fn session_offline(&mut self, node: usize, name: &str) {
        let this = &mut self.nodes[node];
        this.world.disconnect(name);
        this.holds.insert(name.to_owned(), BTreeSet::new());
        this.online.remove(name);
        self.route(node);
    }

    pub fn ask(&mut self, node: usize, name: &str, request: Request) {
        self.nodes[node].world.ask(name, request);
        self.route(node);
    }

    /// Carries what a broker decided to whom it is for.
    pub fn route(&mut self, node: usize) {
        self.note(node);
        let effects = std::mem::take(&mut self.nodes[node].world.effects);
        let mut closed = Vec::new();
        for effect in effects {
            match effect {
                Effect::Reply { connection, id, result } => {
                    self.nodes[node].answer(connection.0, id, &result);
                }
                Effect::Push { connection, push: Push::Link(push) } => {
                    self.nodes[node].push(connection.0, FromBroker::Push(push));
                }
                Effect::Forward { connection, message, to, own, channel } => {
                    let mail = Box::new(self.nodes[node].mail(message, to, own, channel));
                    self.nodes[node].push(connection.0, FromBroker::Push(LinkPush::Mail(mail)));
                }
                Effect::Deliver { connection, message, .. } => {
                    let Some((name, peer)) = self.nodes[node].session_of(connection.0) else {
                        continue;
                    };
                    self.note_push(node, &name, peer, message);
                    let held = self.nodes[node].holds.get_mut(&name).expect("a session");
                    held.insert(message);
                }
                Effect::Push { connection, push: Push::Withdrawn { message, .. } } => {
                    let this = &mut self.nodes[node];
                    if let Some((name, _)) = this.session_of(connection.0) {
                        this.holds.get_mut(&name).expect("a session").remove(&message);
                    }
                }
                Effect::Close { connection } => closed.push(connection.0),
                _ => {}
            }
        }
        for connection in closed {
            match self.nodes[node].end_of(connection) {
                Some(place) => self.broker_lost(node, place),
                None => self.close_former(node, connection),
            }
        }
    }

    /// The broker closed the connection of a link process that is gone.
    fn close_former(&mut self, node: usize, connection: u64) {
        let programs = &self.nodes[node].world.programs;
        let found = programs.iter().find(|(_, program)| program.connection.0 == connection);
        if let Some(name) = found.map(|(name, _)| name.clone()).filter(|name| name.contains('/')) {
            self.nodes[node].world.disconnect(&name);
            self.nodes[node].world.programs.remove(&name);
            self.route(node);
        }
    }

    // ---- link processes

    pub fn broker_connect(&mut self, node: usize, place: usize) {
        let end = &mut self.nodes[node].ends[place];
        end.processes += 1;
        end.program = end_name(end.to, end.processes);
        let (program, own) = (self.nodes[node].ends[place].program.clone(), self.nodes[node].own);
        self.nodes[node].world.connect(&program, Role::Link, vec![9, 8, 1], None);
        self.route(node);
        let end = &mut self.nodes[node].ends[place];
        (end.connected, end.asked) = (true, BTreeMap::new());
        end.inbox.clear();
        self.nodes[node].world.ask(&program, Request::Link(LinkRequest::Ready { own }));
        let boot = self.nodes[node].world.effects.iter().find_map(|effect| match effect {
            Effect::Reply { result: Ok(Reply::Link(LinkReply::Ready { boot })), .. } => Some(*boot),
            _ => None,
        });
        self.route(node);
        let boot = boot.expect("the broker says which run it is");
        self.handle(node, place, Event::BrokerUp { boot });
    }

    pub fn broker_lost(&mut self, node: usize, place: usize) {
        let end = &mut self.nodes[node].ends[place];
        if !std::mem::replace(&mut end.connected, false) {
            return;
        }
        end.inbox.clear();
        let program = end.program.clone();
        self.nodes[node].world.disconnect(&program);
        self.route(node);
        self.handle(node, place, Event::BrokerLost);
    }

    pub fn handle(&mut self, node: usize, place: usize, event: Event) {
        let now = self.nodes[node].world.now;
        let end = &mut self.nodes[node].ends[place];
        if self.tells {
            println!("  {node} about {}: {event:?}", end.to);
        }
        let (to, actions) = (end.to, end.core.handle(now.mono_ms, now.wall, event));
        for action in actions {
            match action {
                Action::Ask { id, request } => {
                    let end = &mut self.nodes[node].ends[place];
                    if !end.connected {
                        continue;
                    }
                    let program = end.program.clone();
                    let next = self.nodes[node].world.requests + 1;
                    self.nodes[node].ends[place].asked.insert(next, id);
                    self.ask(node, &program, Request::Link(request));
                }
                Action::Send(frame) => {
                    self.check_states(node, to, &frame);
                    let (wire, way) = self.wire(node, to);
                    if self.wires[wire].up {
                        let kind = self.wires[wire].kind;
                        self.wires[wire].ways[way].send(kind, &frame);
                    }
                }
                Action::Close(_) => {
                    let (wire, _) = self.wire(node, to);
                    self.cut(wire);
                }
                Action::Opened { remote, .. } => {
                    assert_eq!(remote, broker_id(to), "the link leads where it should");
                }
            }
        }
    }

    /// The wire between two machines, and the way from the first to the second.
    pub fn wire(&self, from: usize, to: usize) -> (usize, usize) {
        let ends = [from.min(to), from.max(to)];
        let wire = self.wires.iter().position(|wire| wire.ends == ends).expect("a wire");
        (wire, usize::from(from > to))
    }

    pub fn connect(&mut self, wire: usize) {
        if self.wires[wire].up || self.wires[wire].parted {
            return;
        }
        let ends = self.wires[wire].ends;
        self.wires[wire].up = true;
        for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            let place = self.nodes[from].place(to);
            if !self.nodes[from].ends[place].connected {
                self.broker_connect(from, place);
            }
            self.handle(from, place, Event::WireUp);
        }
    }

    pub fn cut(&mut self, wire: usize) {
        if !std::mem::replace(&mut self.wires[wire].up, false) {
            return;
        }
        for way in &mut self.wires[wire].ways {
            way.clear();
        }
        let ends = self.wires[wire].ends;
        for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            let place = self.nodes[from].place(to);
            self.handle(from, place, Event::WireLost);
        }
    }

    /// Cuts a stream at any byte: what was before it still comes.
    pub fn cut_anywhere(&mut self, wire: usize) {
        let ends = self.wires[wire].ends;
        for (way, to, from) in [(0, ends[1], ends[0]), (1, ends[0], ends[1])] {
            let frames = self.wires[wire].ways[way].last_frames(&mut self.random);
            for frame in frames {
                if self.wires[wire].up {
                    let place = self.nodes[to].place(from);
                    self.came(to, place, frame);
                }
            }
        }
        self.cut(wire);
    }

    pub fn came(&mut self, node: usize, place: usize, frame: Frame) {
        self.tell("frame arrives");
        if let Frame::Mail(mail) = &frame {
            self.digest_in(&mail.id.to_u128().to_le_bytes());
        }
        self.handle(node, place, Event::Came(frame));
    }

    /// Lets one thing arrive somewhere. Returns whether anything was under way.
    pub fn deliver(&mut self) -> bool {
        let mut ready = Vec::new();
        for (node, this) in self.nodes.iter().enumerate() {
            for (place, end) in this.ends.iter().enumerate() {
                if !end.inbox.is_empty() {
                    ready.push((node, place, true));
                }
                let (wire, way) = self.wire(end.to, node);
                if self.wires[wire].up && !self.wires[wire].ways[way].is_empty() {
                    ready.push((node, place, false));
                }
            }
        }
        if ready.is_empty() {
            return false;
        }
        let (node, place, from_broker) = ready[self.random.below(ready.len())];
        if from_broker {
            let end = &mut self.nodes[node].ends[place];
            let is_push = |what: &FromBroker| matches!(what, FromBroker::Push(_));
            let wants_push = self.random.chance(50);
            let place_of = end.inbox.iter().position(|what| is_push(what) == wants_push);
            let next = end.inbox.remove(place_of.unwrap_or(0));
            let event = match next.expect("something is ready") {
                FromBroker::Push(push) => Event::Pushed(push),
                FromBroker::Answer(id, result) => Event::Answered { id, result },
            };
            self.handle(node, place, event);
        } else {
            let (wire, way) = self.wire(self.nodes[node].ends[place].to, node);
            let mut kinds = Vec::new();
            let wire = &mut self.wires[wire];
            let mut tell = |kind| kinds.push(kind);
            let frame = wire.ways[way].arrive(wire.kind, &mut self.random, &mut tell);
            for kind in kinds {
                self.tell(kind);
            }
            if let Some(frame) = frame {
                self.came(node, place, frame);
            }
        }
        true
    }

    /// Lets time pass everywhere.
    pub fn pass(&mut self, millis: u64) {
        for node in 0..self.nodes.len() {
            self.nodes[node].world.pass(millis);
            while self.nodes[node].world.tick() {}
            self.nodes[node].world.sweep(128);
            self.route(node);
            for place in 0..self.nodes[node].ends.len() {
                let now = self.nodes[node].world.now;
                if self.nodes[node].ends[place].core.poll_timeout(now.mono_ms) == Some(0) {
                    self.handle(node, place, Event::Tick);
                }
            }
        }
    }

    pub fn save(&mut self) {
        for node in &mut self.nodes {
            node.images.push(node.world.disk.clone());
        }
    }
}

pub fn new_link(node: usize, to: usize) -> Link {
    Link::new(LinkSettings {
        own: broker_id(node),
        expected: Some(broker_id(to)),
        alias: Some(format!("n{to}")),
        name: format!("n{node}"),
        policy: Policy::Accept,
        software: "sim".to_owned(),
    })
}
