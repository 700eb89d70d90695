//! The moves: what befalls brokers, links, sessions, people and the network.

use std::collections::BTreeMap;

use peer_link_core::Event;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::link::{LinksRequest, Share};
use peer_proto::message::{Carrier, Evidence, Stage};
use peer_proto::policy::Policy;
use peer_proto::question::{Answer, Ask};
use peer_proto::request::{Request, Role, Send};

use crate::net::Kind;
use crate::sim::{SESSIONS, Sim, new_link};

/// Sessions that one machine may ever have.
const SESSIONS_MAX: usize = 6;

const DAY_MS: u64 = 24 * 3_600_000;

impl Sim {
    pub fn step(&mut self) {
        let node = self.random.below(self.nodes.len());
        let names = &self.nodes[node].names;
        let name = names[self.random.below(names.len())].clone();
        match self.random.below(1_000) {
            0..=349 => {
                for _ in 0..1 + self.random.below(12) {
                    self.deliver();
                }
            }
            350..=499 => self.send(node, &name),
            500..=699 => self.read(node, &name),
            700..=729 => {
                let millis = [200, 2_000, 20_000, 40_000][self.random.below(4)];
                self.tell("time passes");
                self.pass(millis);
            }
            730..=733 => self.days(),
            734..=748 => self.break_wire(),
            749..=758 => self.kill_link(node),
            759..=768 => self.restart(node),
            769..=788 => self.cancel(node, &name),
            789..=808 => self.policy(node, &name),
            809..=838 => self.decide(node),
            839..=853 => {
                if self.nodes[node].online.contains(&name) {
                    self.tell("session ends");
                    self.session_offline(node, &name);
                } else {
                    self.session_online(node, &name);
                }
            }
            854..=858 => self.rename(node, &name),
            859..=863 => self.newcomer(node),
            864..=869 => {
                if self.random.chance(30) {
                    self.restore(node);
                } else {
                    let image = self.nodes[node].world.disk.clone();
                    self.nodes[node].images.push(image);
                }
            }
            870..=877 => self.manage_link(node, &name),
            878..=882 => self.set_clock(node),
            883..=887 => {
                self.tell("purge");
                self.ask(node, "boss", Request::Purge { dry_run: false });
                self.nodes[node].world.sweep(128);
                self.route(node);
            }
            888..=905 => self.disturb(),
            906..=945 if self.lies => self.lie(),
            _ => {
                for wire in 0..self.wires.len() {
                    if self.random.chance(30) {
                        self.wires[wire].parted = false;
                    }
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

    // ---- the network

    fn break_wire(&mut self) {
        let wire = self.random.below(self.wires.len());
        if !self.wires[wire].up {
            return;
        }
        self.tell("connection cut");
        if self.random.chance(20) {
            self.tell("network divided");
            self.wires[wire].parted = true;
        }
        self.cut_anywhere(wire);
    }

    /// A service between two link processes does what such a service may do.
    fn disturb(&mut self) {
        let (wire, way) = (self.random.below(self.wires.len()), self.random.below(2));
        let this = &mut self.wires[wire];
        if this.kind == Kind::Stream || !this.up {
            return;
        }
        let ends = this.ends;
        match self.random.below(3) {
            0 => {
                if this.ways[way].lose_tail(&mut self.random) {
                    self.tell("service loses its tail");
                }
            }
            1 => {
                if this.ways[way].roll_back(&mut self.random) {
                    self.tell("service loses its place");
                }
            }
            _ => {
                let (from, to) = (ends[way], ends[1 - way]);
                let place = self.nodes[to].place(from);
                if this.kind != Kind::Attic || !self.nodes[to].ends[place].core.is_open() {
                    return;
                }
                if let Some(frame) = this.ways[way].stale(&mut self.random) {
                    self.tell("frame of an ended connection");
                    self.came(to, place, frame);
                }
            }
        }
    }

    /// Much time passes: what is too old is refused, forgotten or deleted.
    fn days(&mut self) {
        self.tell("days pass");
        let days = [1, 3, 7, 9][self.random.below(4)];
        self.pass(days * DAY_MS);
        // What fell due waits for half a minute after a start or a jump of the clock.
        for _ in 0..2 {
            self.pass(31_000);
        }
    }

    fn set_clock(&mut self, node: usize) {
        if self.clocks_set {
            self.tell("clock set");
            let by_ms = self.random.below(120_000) as i64 - 60_000;
            self.nodes[node].world.set_clock(by_ms);
        }
    }

    // ---- sessions

    /// A session that was not there before.
    fn newcomer(&mut self, node: usize) {
        let count = self.nodes[node].names.len();
        if count < SESSIONS_MAX {
            self.tell("newcomer");
            // No other machine has this name, and none had it before.
            let number = self.counts["newcomer"];
            self.session_online(node, &format!("guest{number}"));
        }
    }

    fn send(&mut self, node: usize, name: &str) {
        let this = &self.nodes[node];
        if !this.online.contains(name) {
            return;
        }
        let peers = this.world.disk.peers.values();
        let proxies: Vec<PeerId> =
            peers.filter(|record| record.home.is_some()).map(|record| record.id).collect();
        if proxies.is_empty() {
            return;
        }
        let first = proxies[self.random.below(proxies.len())];
        let second = proxies[self.random.below(proxies.len())];
        let several = self.random.chance(25) && second != first;
        let to = if several { vec![first, second] } else { vec![first] };
        let to: Vec<String> = to.iter().map(PeerId::to_string).collect();
        let held: Vec<MessageId> = this.holds[name].iter().copied().collect();
        let original = held.get(self.random.below(held.len().max(1))).copied();
        // Where ids are the same, it would answer another machine's message as well.
        let original = original.filter(|_| !self.same_ids);
        let reply_to = original.filter(|_| self.random.chance(20));
        self.tell(if several { "send to two" } else { "send" });
        let number = self.digest % 1_000_000;
        let text = format!("message {number} of {node}{}", if several { ", to two" } else { "" });
        let ttl_ms = self.random.chance(15).then_some(60_000);
        if self.random.chance(6) {
            self.tell("question");
            let ask = Ask { to, question: text, context_hint: None, ttl_ms, idempotency_key: None };
            return self.ask(node, name, Request::Ask(ask));
        }
        if let Some(question) = original.filter(|_| self.random.chance(6)) {
            self.tell("answer");
            let (answer, sources) = (text, Vec::new());
            let answer = Answer { question, answer, sources, idempotency_key: None };
            return self.ask(node, name, Request::Answer(answer));
        }
        if reply_to.is_some() {
            self.tell("reply");
        }
        let send = Send {
            to,
            text,
            intent: None,
            reply_to,
            thread: None,
            ttl_ms,
            sources: Vec::new(),
            idempotency_key: None,
        };
        if self.random.chance(2) {
            // It is stored, and the broker ends before anybody hears of it.
            self.tell("broker killed after a commit");
            self.nodes[node].world.ask(name, Request::Send(send));
            return self.begin_again(node);
        }
        self.ask(node, name, Request::Send(send));
    }

    /// A session does something with what it holds.
    fn read(&mut self, node: usize, name: &str) {
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

    fn rename(&mut self, node: usize, name: &str) {
        if self.nodes[node].online.contains(name) {
            self.tell("rename");
            let new_name = format!("{name}-{}", self.random.below(5));
            self.ask(node, name, Request::Rename { peer: None, new_name });
        }
    }

    // ---- processes

    fn kill_link(&mut self, node: usize) {
        let place = self.random.below(self.nodes[node].ends.len());
        let to = self.nodes[node].ends[place].to;
        self.tell("link process killed");
        let (wire, _) = self.wire(node, to);
        if self.random.chance(40) {
            // The broker does not notice before the next process comes.
            self.tell("link process replaced");
            let end = &mut self.nodes[node].ends[place];
            (end.connected, end.asked) = (false, BTreeMap::new());
            end.inbox.clear();
        } else {
            self.broker_lost(node, place);
        }
        self.nodes[node].ends[place].core = new_link(node, to);
        self.cut(wire);
    }

    /// The broker is killed, and starts from what is durable.
    fn restart(&mut self, node: usize) {
        self.tell("broker killed");
        self.begin_again(node);
    }

    fn begin_again(&mut self, node: usize) {
        self.note(node);
        let this = &mut self.nodes[node];
        this.world.effects.clear();
        this.world.programs.retain(|name, _| !name.contains('/'));
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
    fn restore(&mut self, node: usize) {
        let this = &self.nodes[node];
        if this.images.is_empty() {
            return;
        }
        self.tell("database restored");
        self.note(node);
        let this = &mut self.nodes[node];
        let image = this.images[self.random.below(this.images.len())].clone();
        let before = std::mem::replace(&mut this.world.disk, image);
        this.restored = true;
        // Two brokers may give the same id. One never gives an id twice, also not after this: its
        // random bits differ.
        this.world.id_bits = u64::MAX;
        self.note_restore(node, &before);
        self.begin_again(node);
    }

    // ---- people

    fn cancel(&mut self, node: usize, name: &str) {
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

    fn policy(&mut self, node: usize, name: &str) {
        let policy = match self.random.below(4) {
            0 => Some(Policy::Hold),
            1 => Some(Policy::Refuse),
            _ => Some(Policy::Accept),
        };
        self.tell("policy");
        if self.random.chance(50) {
            let request = Request::SetPolicy { peer: Some(name.to_owned()), policy };
            return self.ask(node, "boss", request);
        }
        let Some(link) = self.alias(node) else { return };
        let policy = policy.filter(|policy| *policy != Policy::Refuse || self.random.chance(20));
        let wake = Some(self.random.chance(80));
        let request = LinksRequest::Set { link, policy, wake, share: None };
        self.ask(node, "boss", Request::Links(request));
    }

    /// The name of one of a machine's links.
    fn alias(&mut self, node: usize) -> Option<String> {
        let links = self.nodes[node].world.disk.links.links.values();
        let aliases: Vec<String> = links.map(|link| link.alias.clone()).collect();
        (!aliases.is_empty()).then(|| aliases[self.random.below(aliases.len())].clone())
    }

    /// The person changes what a link is called and what it is told, or forgets it.
    fn manage_link(&mut self, node: usize, name: &str) {
        let Some(link) = self.alias(node) else { return };
        let request = match self.random.below(10) {
            0..=2 => {
                self.tell("link renamed");
                LinksRequest::Rename { link, new_name: format!("far{}", self.random.below(9)) }
            }
            3..=5 => {
                self.tell("link told less");
                let share = [Share::None, Share::Names, Share::Summaries][self.random.below(3)];
                LinksRequest::Set { link, policy: None, wake: None, share: Some(share) }
            }
            6..=8 => {
                self.tell("peer hidden");
                LinksRequest::Hide { peer: name.to_owned(), hidden: self.random.chance(50) }
            }
            _ => {
                self.tell("link removed");
                let this = &mut self.nodes[node];
                let links = this.world.disk.links.links.values();
                this.removed
                    .extend(links.filter(|known| known.alias == link).map(|known| known.broker));
                LinksRequest::Remove { link }
            }
        };
        self.ask(node, "boss", Request::Links(request));
    }

    /// The person decides on held mail and dead letters.
    fn decide(&mut self, node: usize) {
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
}
