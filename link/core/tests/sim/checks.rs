//! What holds when everything is whole again. `book` has what always holds.

use std::collections::BTreeMap;

use peer_core::record::DeliveryRecord;
use peer_proto::ids::{BrokerId, MessageId, PeerId};
use peer_proto::limits::MESSAGES_PER_REQUEST_MAX;
use peer_proto::link::{LinksRequest, Share};
use peer_proto::message::{Carrier, Evidence, Kind as MessageKind, Stage};
use peer_proto::policy::Policy;
use peer_proto::request::Request;

use crate::net::Kind;
use crate::sim::Sim;

/// Rounds in which everything comes to rest: a full mailbox takes one message a minute.
const ROUNDS_MAX: usize = 120;

impl Sim {
    // ---- when everything is whole again

    /// The network is whole, clocks are right, every session reads what it gets, and the person lets
    /// everything go.
    pub fn settle(&mut self) {
        for wire in &mut self.wires {
            (wire.kind, wire.parted) = (Kind::Stream, false);
            for way in &mut wire.ways {
                way.become_stream();
            }
        }
        let latest = self.nodes.iter().map(|node| node.world.now.wall).max().expect("a machine");
        for node in &mut self.nodes {
            node.world.now.wall = latest;
        }
        for round in 0..ROUNDS_MAX {
            for wire in 0..self.wires.len() {
                self.connect(wire);
            }
            for node in 0..self.nodes.len() {
                self.read_everything(node);
            }
            let mut moves = 0;
            while self.deliver() {
                moves += 1;
                assert!(moves < 20_000, "the links never come to rest");
            }
            if round > 2 && self.is_at_rest() {
                break;
            }
            self.pass(31_000);
        }
        self.check_order();
        self.check_rest();
    }

    /// Nothing is due, and nothing waits or is under way.
    fn is_at_rest(&self) -> bool {
        self.nodes.iter().enumerate().all(|(number, node)| {
            let mut deliveries = node.world.disk.deliveries.values();
            node.world.disk.links.receipts.is_empty()
                && deliveries.all(|record| {
                    let home = node.home(record.peer);
                    home.is_none_or(|home| {
                        !record.stage.is_pending() || self.may_wait(number, home, record)
                    })
                })
        })
    }

    /// Whether a delivery may stay where it is for ever: the person there decides, or its recipient
    /// lost its token to a restored broker and is another peer now.
    fn may_wait(&self, number: usize, home: (BrokerId, PeerId), record: &DeliveryRecord) -> bool {
        let stage = self.stage_there(number, record.message, home);
        let dead = stage == Some(Stage::Dead);
        record.stage == Stage::Relayed && (dead || stage.is_some() && self.is_read_by_nobody(home))
    }

    fn is_read_by_nobody(&self, home: (BrokerId, PeerId)) -> bool {
        let there = &self.nodes[self.node_of(home.0)];
        let programs = &there.world.programs;
        let is_read = there.names.iter().any(|name| programs[name].peer == Some(home.1));
        there.restored && !is_read && home.1 != PeerId::HUMAN
    }

    fn read_everything(&mut self, node: usize) {
        let links: Vec<String> = self.nodes[node]
            .world
            .disk
            .links
            .links
            .values()
            .map(|link| link.alias.clone())
            .collect();
        for link in links {
            let request = LinksRequest::Set {
                link,
                policy: Some(Policy::Accept),
                wake: None,
                share: Some(Share::Names),
            };
            self.ask(node, "boss", Request::Links(request));
        }
        for name in self.nodes[node].names.clone() {
            let name = name.as_str();
            if !self.nodes[node].online.contains(name) {
                self.session_online(node, name);
            }
            let policy = Some(Policy::Accept);
            self.ask(node, "boss", Request::SetPolicy { peer: Some(name.to_owned()), policy });
            let held = self.nodes[node].holds[name].iter().copied();
            let messages: Vec<MessageId> = held.take(MESSAGES_PER_REQUEST_MAX).collect();
            if !messages.is_empty() {
                let (carrier, evidence) = (Carrier::Hook, Evidence::NextCall);
                let offered = Request::Offered { messages: messages.clone(), carrier, last: false };
                self.ask(node, name, offered);
                self.ask(
                    node,
                    name,
                    Request::Presented { messages: messages.clone(), carrier, evidence },
                );
                let peer = self.nodes[node].world.programs[name].peer.expect("a peer");
                for message in messages {
                    self.shown(node, name, message, peer);
                }
            }
        }
        let held: Vec<MessageId> = self.nodes[node]
            .world
            .disk
            .deliveries
            .values()
            .filter(|record| record.stage == Stage::Held)
            .map(|record| record.message)
            .collect();
        for message in held {
            self.ask(node, "boss", Request::Release { message, to: None });
        }
        let deliveries = self.nodes[node].world.disk.deliveries.values();
        let persons = deliveries
            .filter(|record| record.peer == PeerId::HUMAN && record.stage == Stage::Stored);
        let messages: Vec<MessageId> = persons.map(|record| record.message).take(200).collect();
        if !messages.is_empty() {
            self.ask(node, "boss", Request::Ack { messages });
        }
    }

    /// I3: per sender and reader, mail is stored in the order in which it was accepted.
    fn check_order(&self) {
        for node in self.nodes.iter().filter(|node| !node.restored) {
            let mut last: BTreeMap<(PeerId, PeerId), MessageId> = BTreeMap::new();
            for (message, peer) in &node.world.stored_in_order {
                let Some(record) = node.world.disk.messages.get(message) else { continue };
                let Some(origin) = record.head.origin else { continue };
                let from = &self.nodes[self.node_of(origin.broker)];
                let invented = self.book.invented.contains(&(origin.broker, *message));
                if from.restored || invented || node.out_of_order.contains(message) {
                    continue;
                }
                let before = last.insert((record.head.from.peer, *peer), *message);
                assert!(
                    before.is_none_or(|before| before < *message),
                    "I3: {message} was stored after {before:?}"
                );
            }
        }
    }

    fn check_rest(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            let receipts = &node.world.disk.links.receipts;
            assert!(receipts.is_empty(), "I9: receipts are due on {number}: {receipts:?}");
            for record in node.world.disk.deliveries.values() {
                if let Some(home) = node.home(record.peer) {
                    self.check_delivery(number, home, record);
                }
            }
            for accepted in self.accepted.iter().filter(|accepted| accepted.node == number) {
                let key = (accepted.message, accepted.proxy);
                assert!(node.world.disk.deliveries.contains_key(&key), "I1: {accepted:?} is gone");
            }
        }
    }

    /// A delivery at its sender's broker agrees with that at its recipient's.
    fn check_delivery(&self, number: usize, home: (BrokerId, PeerId), record: &DeliveryRecord) {
        let (node, message) = (&self.nodes[number], record.message);
        let stage = self.stage_there(number, message, home);
        let there = &self.nodes[self.node_of(home.0)];
        let found = there.world.disk.deliveries.get(&(message, home.1));
        let told = format!("{message} of {number}: {record:?}\nthere {stage:?} {found:?}");
        let may_wait = self.may_wait(number, home, record);
        assert!(may_wait || !record.stage.is_pending(), "I1, I10: not ended: {told}");
        if may_wait && self.is_read_by_nobody(home) {
            return;
        }
        if matches!(record.stage, Stage::Dead | Stage::Expired) {
            let is_told = self.was_told(number, record.brief.from, message);
            let is_question = record.brief.kind == MessageKind::Question;
            let is_gone = !node.world.disk.peers.contains_key(&record.brief.from);
            assert!(is_told || is_question || is_gone, "I11: nobody was told: {told}");
        }
        // The other person removed the link, and the receipts that were due with it.
        let had_link = !there.removed.contains(&node.own);
        if node.forgotten.contains(&(message, record.peer)) {
            return;
        }
        if self.is_forgotten(home.0, message, home.1) {
            // What it does with it now, it tells all the same.
            let knows = matches!(record.stage, Stage::Presented | Stage::Dropped);
            assert!(stage != Some(Stage::Presented) || knows || !had_link, "I8: {told}");
            return;
        }
        let agrees = match (record.stage, stage) {
            (Stage::Relayed, stage) => stage == Some(Stage::Dead),
            // The person here dropped a dead letter.
            (Stage::Dropped, _) => true,
            (Stage::Dead | Stage::Expired, _) if !had_link => true,
            (Stage::Presented, stage) => stage == Some(Stage::Presented),
            (Stage::Cancelled, stage) => matches!(stage, None | Some(Stage::Cancelled)),
            // Refused, not taken in time, or ended on both sides by itself.
            (Stage::Dead | Stage::Expired, stage) => {
                matches!(stage, None | Some(Stage::Expired | Stage::Cancelled | Stage::Dropped))
            }
            _ => false,
        };
        assert!(agrees, "I8: {told}");
        let acked = found.is_some_and(|found| found.acked_at.is_some());
        let knows = record.acked_at.is_some() || record.stage != Stage::Presented;
        assert!(!acked || knows || !had_link, "I8: the acknowledgement is not known: {told}");
    }
}
