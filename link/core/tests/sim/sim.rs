//! Two or three brokers with links between them, and everything that befalls them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use peer_core::broker::Config;
use peer_core::step::Effect;
use peer_link_core::{Action, Event, Link, Settings};
use peer_proto::ids::{BrokerId, MessageId, PeerId};
use peer_proto::link::{LinkPush, LinkReply, LinkRequest, LinksRequest};
use peer_proto::message::{Carrier, Evidence, Stage};
use peer_proto::policy::Policy;
use peer_proto::refusal::Refusal;
use peer_proto::request::{Push, Register, Reply, Request, RequestId, Resume, Role, Send};

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
    /// What each session holds.
    pub holds: BTreeMap<String, BTreeSet<MessageId>>,
    pub online: BTreeSet<String>,
    pub images: Vec<Disk>,
    /// It was put back to an earlier image: what it had seen since is forgotten.
    pub restored: bool,
    /// Messages whose order a person changed: requeued, or refused before.
    pub out_of_order: BTreeSet<MessageId>,
}

/// The wire between two machines.
pub struct Wire {
    pub ends: [usize; 2],
    pub kind: Kind,
    pub up: bool,
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
    pub counts: BTreeMap<&'static str, u64>,
    pub tells: bool,
}

pub const SESSIONS: [&str; 2] = ["ann", "bob"];

fn broker_id(node: usize) -> BrokerId {
    BrokerId([node as u8 + 1; 16])
}

fn end_name(to: usize) -> String {
    format!("link-{to}")
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let size = if random.chance(25) { 3 } else { 2 };
        let mut sim = Self {
            random,
            nodes: Vec::new(),
            wires: Vec::new(),
            accepted: Vec::new(),
            proved: BTreeSet::new(),
            counts: BTreeMap::new(),
            tells: std::env::var("PEERD_LINK_TELL").is_ok(),
        };
        for node in 0..size {
            sim.add_node(node, size);
        }
        for one in 0..size {
            for other in one + 1..size {
                let kind = if sim.random.chance(40) { Kind::Lossy } else { Kind::Stream };
                sim.wires.push(Wire {
                    ends: [one, other],
                    kind,
                    up: false,
                    ways: [Way::default(), Way::default()],
                });
            }
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

    pub fn add_node(&mut self, node: usize, size: usize) {
        let mut config = Config::default();
        for key in ["sender_per_minute", "pair_per_minute", "thread_turns_max"] {
            assert!(config.limits.set(key, 1_000_000));
        }
        let mut world = World::new(config);
        world.quiet = true;
        world.entropy = self.random.draw();
        world.set_clock(self.random.below(50_000) as i64 - 25_000);
        world.connect("boss", Role::Operator, vec![9, 8, 1], None);
        let mut this = Node {
            world,
            own: broker_id(node),
            ends: Vec::new(),
            holds: BTreeMap::new(),
            online: BTreeSet::new(),
            images: Vec::new(),
            restored: false,
            out_of_order: BTreeSet::new(),
        };
        for to in (0..size).filter(|to| *to != node) {
            this.ends.push(End {
                to,
                core: new_link(node, to),
                program: end_name(to),
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
    }

    // ---- sessions

    pub fn session_online(&mut self, node: usize, name: &str) {
        let place = SESSIONS.iter().position(|known| *known == name).expect("a session") as u32;
        let this = &mut self.nodes[node];
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
        let effects = std::mem::take(&mut self.nodes[node].world.effects);
        self.nodes[node].world.changes.clear();
        let mut closed = Vec::new();
        for effect in effects {
            match effect {
                Effect::Reply { connection, id, result } => {
                    self.nodes[node].answer(connection.0, id, &result);
                    if let Ok(Reply::Sent(sent)) = &result {
                        self.remember(node, sent);
                    }
                }
                Effect::Push { connection, push: Push::Link(push) } => {
                    self.nodes[node].push(connection.0, FromBroker::Push(push));
                }
                Effect::Forward { connection, message, to, own, channel } => {
                    let mail = Box::new(self.nodes[node].mail(message, to, own, channel));
                    self.nodes[node].push(connection.0, FromBroker::Push(LinkPush::Mail(mail)));
                }
                Effect::Deliver { connection, message, .. } => {
                    let this = &mut self.nodes[node];
                    let Some((name, peer)) = this.session_of(connection.0) else { continue };
                    let again = self.proved.contains(&(node, message, peer));
                    assert!(
                        !again || self.nodes[node].restored,
                        "I2: {message} is pushed to {name} after its proof"
                    );
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
            let place = self.nodes[node].end_of(connection);
            if let Some(place) = place {
                self.broker_lost(node, place);
            }
        }
    }

    pub fn remember(&mut self, node: usize, sent: &peer_proto::request::Sent) {
        for delivery in &sent.deliveries {
            let is_proxy = self.nodes[node].home(delivery.peer).is_some();
            if is_proxy && delivery.stage.is_some() && !sent.deduplicated {
                let (message, proxy) = (sent.message, delivery.peer);
                self.accepted.push(Accepted { node, proxy, message });
            }
        }
    }

    // ---- link processes

    pub fn broker_connect(&mut self, node: usize, place: usize) {
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
                    let (wire, way) = self.wire(node, to);
                    if self.wires[wire].up {
                        self.wires[wire].ways[way].send(&frame);
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
        if self.wires[wire].up {
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
            let frame = wire.ways[way].arrive(wire.kind, &mut self.random, |kind| kinds.push(kind));
            for kind in kinds {
                self.tell(kind);
            }
            if let Some(frame) = frame {
                self.tell("frame arrives");
                self.handle(node, place, Event::Came(frame));
            }
        }
        true
    }

    /// Lets time pass everywhere.
    pub fn pass(&mut self, millis: u64) {
        for node in 0..self.nodes.len() {
            self.nodes[node].world.pass(millis);
            while self.nodes[node].world.tick() {}
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

    // ---- moves

    pub fn step(&mut self) {
        let node = self.random.below(self.nodes.len());
        let name = SESSIONS[self.random.below(SESSIONS.len())];
        match self.random.below(200) {
            0..=69 => {
                for _ in 0..1 + self.random.below(12) {
                    self.deliver();
                }
            }
            70..=99 => self.send(node, name),
            100..=149 => self.read(node, name),
            150..=155 => {
                let millis = [200, 2_000, 20_000, 40_000][self.random.below(4)];
                self.tell("time passes");
                self.pass(millis);
            }
            156..=158 => {
                let wire = self.random.below(self.wires.len());
                if self.wires[wire].up {
                    self.tell("connection cut");
                    self.cut(wire);
                }
            }
            159..=160 => self.kill_link(node),
            161..=162 => self.restart(node),
            163..=166 => self.cancel(node, name),
            167..=170 => self.policy(node, name),
            171..=176 => self.decide(node),
            177..=179 => {
                if self.nodes[node].online.contains(name) {
                    self.tell("session ends");
                    self.session_offline(node, name);
                } else {
                    self.session_online(node, name);
                }
            }
            180 => self.rename(node, name),
            181 => {
                if self.random.chance(30) {
                    self.restore(node);
                } else {
                    let image = self.nodes[node].world.disk.clone();
                    self.nodes[node].images.push(image);
                }
            }
            _ => {
                for wire in 0..self.wires.len() {
                    self.connect(wire);
                }
                for name in SESSIONS {
                    if !self.nodes[node].online.contains(name) {
                        self.session_online(node, name);
                    }
                }
            }
        }
    }

    pub fn send(&mut self, node: usize, name: &str) {
        let this = &self.nodes[node];
        if !this.online.contains(name) {
            return;
        }
        let proxies: Vec<PeerId> = this
            .world
            .disk
            .peers
            .values()
            .filter(|record| record.home.is_some())
            .map(|record| record.id)
            .collect();
        if proxies.is_empty() {
            return;
        }
        let first = proxies[self.random.below(proxies.len())];
        let second = proxies[self.random.below(proxies.len())];
        let several = self.random.chance(25) && second != first;
        let to = if several { vec![first, second] } else { vec![first] };
        let held: Vec<MessageId> = this.holds[name].iter().copied().collect();
        let reply_to = held
            .get(self.random.below(held.len().max(1)))
            .copied()
            .filter(|_| self.random.chance(20));
        let number = self.accepted.len();
        let send = Send {
            to: to.iter().map(PeerId::to_string).collect(),
            text: format!("message {number} of {node}"),
            intent: None,
            reply_to,
            thread: None,
            ttl_ms: self.random.chance(15).then_some(60_000),
            sources: Vec::new(),
            idempotency_key: None,
        };
        self.tell(if several { "send to two" } else { "send" });
        if reply_to.is_some() {
            self.tell("reply");
        }
        self.ask(node, name, Request::Send(send));
    }

    /// A session does something with what it holds.
    pub fn read(&mut self, node: usize, name: &str) {
        let this = &self.nodes[node];
        let held: Vec<MessageId> = this.holds[name].iter().copied().collect();
        if held.is_empty() || !this.online.contains(name) {
            return;
        }
        let message = held[self.random.below(held.len())];
        let messages = vec![message];
        let peer = this.world.programs[name].peer.expect("a peer");
        match self.random.below(10) {
            0..=3 => {
                self.tell("offer");
                let (carrier, last) = (Carrier::Hook, false);
                self.ask(node, name, Request::Offered { messages, carrier, last });
            }
            4..=7 => {
                self.tell("proof");
                let carrier = Carrier::Hook;
                self.ask(
                    node,
                    name,
                    Request::Offered { messages: messages.clone(), carrier, last: false },
                );
                let evidence = Evidence::NextCall;
                self.ask(node, name, Request::Presented { messages, carrier, evidence });
                self.shown(node, name, message, peer);
            }
            8 => {
                self.tell("ack");
                self.ask(node, name, Request::Ack { messages });
                self.shown(node, name, message, peer);
            }
            _ => self.ask(node, name, Request::Nack { messages }),
        }
    }

    pub fn shown(&mut self, node: usize, name: &str, message: MessageId, peer: PeerId) {
        let this = &mut self.nodes[node];
        let stage = this.world.disk.deliveries.get(&(message, peer)).map(|record| record.stage);
        if stage == Some(Stage::Presented) {
            self.proved.insert((node, message, peer));
            this.holds.get_mut(name).expect("a session").remove(&message);
        }
    }

    pub fn kill_link(&mut self, node: usize) {
        let place = self.random.below(self.nodes[node].ends.len());
        let to = self.nodes[node].ends[place].to;
        self.tell("link process killed");
        let (wire, _) = self.wire(node, to);
        self.broker_lost(node, place);
        self.cut(wire);
        self.nodes[node].ends[place].core = new_link(node, to);
    }

    /// The broker is killed, and starts from what is durable.
    pub fn restart(&mut self, node: usize) {
        self.tell("broker killed");
        self.begin_again(node);
    }

    pub fn begin_again(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        this.world.effects.clear();
        this.world.restart();
        let online: Vec<String> = this.online.iter().cloned().collect();
        for place in 0..this.ends.len() {
            let end = &mut self.nodes[node].ends[place];
            (end.connected, end.asked) = (false, BTreeMap::new());
            end.inbox.clear();
            self.handle(node, place, Event::BrokerLost);
        }
        self.nodes[node].world.connect("boss", Role::Operator, vec![9, 8, 1], None);
        for name in online {
            self.session_online(node, &name);
        }
        self.route(node);
    }

    /// Somebody puts an earlier copy of the database back.
    pub fn restore(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        if this.images.is_empty() {
            return;
        }
        let image = this.images[self.random.below(this.images.len())].clone();
        let this = &mut self.nodes[node];
        this.world.disk = image;
        this.restored = true;
        self.tell("database restored");
        let lost = |accepted: &Accepted| {
            accepted.node == node
                && !self.nodes[node].world.disk.messages.contains_key(&accepted.message)
        };
        let lost: Vec<MessageId> =
            self.accepted.iter().filter(|accepted| lost(accepted)).map(|a| a.message).collect();
        self.accepted.retain(|accepted| accepted.node != node || !lost.contains(&accepted.message));
        self.proved.retain(|(at, ..)| *at != node);
        self.begin_again(node);
    }

    pub fn cancel(&mut self, node: usize, name: &str) {
        let mine: Vec<MessageId> = self
            .accepted
            .iter()
            .filter(|accepted| accepted.node == node)
            .map(|accepted| accepted.message)
            .collect();
        if mine.is_empty() || !self.nodes[node].online.contains(name) {
            return;
        }
        self.tell("cancel");
        let message = mine[self.random.below(mine.len())];
        self.ask(node, "boss", Request::Cancel(message));
    }

    pub fn policy(&mut self, node: usize, name: &str) {
        let policy = match self.random.below(4) {
            0 => Some(Policy::Hold),
            1 => Some(Policy::Refuse),
            _ => Some(Policy::Accept),
        };
        self.tell("policy");
        if self.random.chance(50) {
            self.ask(node, "boss", Request::SetPolicy { peer: Some(name.to_owned()), policy });
            return;
        }
        let links = &self.nodes[node].world.disk.links.links;
        let aliases: Vec<String> = links.values().map(|link| link.alias.clone()).collect();
        if aliases.is_empty() {
            return;
        }
        let link = aliases[self.random.below(aliases.len())].clone();
        let policy = policy.filter(|policy| *policy != Policy::Refuse);
        let wake = Some(self.random.chance(80));
        self.ask(
            node,
            "boss",
            Request::Links(LinksRequest::Set { link, policy, wake, share: None }),
        );
    }

    /// The person decides on held mail and dead letters.
    pub fn decide(&mut self, node: usize) {
        let this = &self.nodes[node];
        let of = |stage: Stage| -> Vec<MessageId> {
            let found = this.world.disk.deliveries.values().filter(|found| found.stage == stage);
            found.map(|record| record.message).collect()
        };
        let (held, dead) = (of(Stage::Held), of(Stage::Dead));
        if !held.is_empty() && self.random.chance(70) {
            self.tell("release");
            let message = held[self.random.below(held.len())];
            self.ask(node, "boss", Request::Release { message, to: None });
        } else if !dead.is_empty() {
            let message = dead[self.random.below(dead.len())];
            for other in &mut self.nodes {
                other.out_of_order.insert(message);
            }
            if self.random.chance(70) {
                self.tell("requeue");
                self.ask(node, "boss", Request::Requeue(message));
            } else {
                self.ask(node, "boss", Request::Drop(message));
            }
        }
    }

    pub fn rename(&mut self, node: usize, name: &str) {
        if self.nodes[node].online.contains(name) {
            self.tell("rename");
            let new_name = format!("{name}-{}", self.random.below(5));
            self.ask(node, name, Request::Rename { peer: None, new_name });
        }
    }
}

fn new_link(node: usize, to: usize) -> Link {
    Link::new(Settings {
        own: broker_id(node),
        expected: Some(broker_id(to)),
        alias: Some(format!("n{to}")),
        name: format!("n{node}"),
        policy: Policy::Accept,
        software: "sim".to_owned(),
    })
}
