//! What always holds, and what holds when everything is whole again.

use std::collections::BTreeMap;

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Carrier, Evidence, Kind as MessageKind, Stage};
use peer_proto::policy::Policy;
use peer_proto::request::Request;

use crate::net::Kind;
use crate::sim::{Node, SESSIONS, Sim};

impl Sim {
    // ---- what always holds

    pub fn check(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            node.world.broker.assert_invariants();
            for record in node.world.disk.messages.values() {
                let Some(origin) = record.head.origin else { continue };
                let from = node.world.disk.peers.get(&record.head.from.peer);
                let home = from.and_then(|from| from.home.as_ref());
                assert!(
                    home.is_none_or(|home| home.broker == origin.broker),
                    "I6: a link brought mail of another one"
                );
                assert_ne!(origin.broker, node.own, "I5: mail came back to its origin");
                assert!(
                    record.head.to.iter().all(|(peer, _)| node.home(*peer).is_none()),
                    "I5: mail was passed on"
                );
            }
            self.check_presented(number);
        }
    }

    /// I4: only what is presented there is presented here.
    fn check_presented(&self, number: usize) {
        let node = &self.nodes[number];
        for ((message, proxy), record) in &node.world.disk.deliveries {
            let Some((broker, peer)) = node.home(*proxy) else { continue };
            if record.stage != Stage::Presented {
                continue;
            }
            let there = self.nodes.iter().find(|there| there.own == broker).expect("a machine");
            if there.restored || node.restored {
                continue;
            }
            let found = there.world.disk.deliveries.get(&(*message, peer));
            assert_eq!(
                found.map(|found| found.stage),
                Some(Stage::Presented),
                "I4: {message} is presented here, and not there"
            );
        }
    }

    // ---- when everything is whole again

    /// The network is whole, every session reads what it gets, and the person lets everything go.
    pub fn settle(&mut self) {
        for wire in &mut self.wires {
            wire.kind = Kind::Stream;
        }
        for round in 0..24 {
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
            // A link that was cut while frames were lost asks again when it is connected anew.
            if round == 3 || round == 9 {
                for wire in 0..self.wires.len() {
                    self.cut(wire);
                }
            }
            self.pass(if round < 16 { 31_000 } else { 1_000 });
            self.check();
        }
        self.check_order();
        self.check_rest();
    }

    fn read_everything(&mut self, node: usize) {
        for name in SESSIONS {
            if !self.nodes[node].online.contains(name) {
                self.session_online(node, name);
            }
            let policy = Some(Policy::Accept);
            self.ask(node, "boss", Request::SetPolicy { peer: Some(name.to_owned()), policy });
            let messages: Vec<MessageId> = self.nodes[node].holds[name].iter().copied().collect();
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
        for node in &self.nodes {
            if self.nodes.iter().any(|node| node.restored) {
                return;
            }
            let mut last: BTreeMap<(PeerId, PeerId), MessageId> = BTreeMap::new();
            for (message, peer) in &node.world.stored_in_order {
                let Some(record) = node.world.disk.messages.get(message) else { continue };
                if record.head.origin.is_none() || node.out_of_order.contains(message) {
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
            assert!(
                node.world.disk.links.receipts.is_empty(),
                "I9: receipts are due on {number}: {:?}",
                node.world.disk.links.receipts
            );
            for ((message, proxy), record) in &node.world.disk.deliveries {
                let Some((broker, peer)) = node.home(*proxy) else { continue };
                let there = self.nodes.iter().find(|there| there.own == broker).expect("a machine");
                let found = there.world.disk.deliveries.get(&(*message, peer));
                let stage = found.map(|found| found.stage);
                let told = format!("{message} to {proxy} of {number}: {record:?}\nthere {found:?}");
                assert!(
                    record.stage != Stage::Stored && record.stage != Stage::Relayed
                        || stage == Some(Stage::Dead),
                    "I1, I10: not ended: {told}"
                );
                if there.restored || node.restored {
                    continue;
                }
                match record.stage {
                    Stage::Presented => assert_eq!(stage, Some(Stage::Presented), "I8: {told}"),
                    Stage::Relayed => assert_eq!(stage, Some(Stage::Dead), "I8: {told}"),
                    Stage::Cancelled => {
                        assert!(matches!(stage, None | Some(Stage::Cancelled)), "I8: {told}");
                    }
                    Stage::Dead | Stage::Dropped | Stage::Expired => {
                        assert_ne!(stage, Some(Stage::Presented), "I8: {told}");
                        self.check_notice(node, *message, record.brief.from, record.stage);
                    }
                    _ => {}
                }
            }
            for accepted in self.accepted.iter().filter(|accepted| accepted.node == number) {
                assert!(
                    node.world.disk.deliveries.contains_key(&(accepted.message, accepted.proxy)),
                    "I1: {accepted:?} is gone"
                );
            }
        }
    }

    /// I11: who sent it was told.
    fn check_notice(&self, node: &Node, message: MessageId, sender: PeerId, stage: Stage) {
        let told = node.world.disk.messages.values().any(|record| {
            record.head.kind == MessageKind::Notice
                && record.head.reply_to == Some(message)
                && record.head.to.iter().any(|(peer, _)| *peer == sender)
        });
        assert!(told || stage == Stage::Dropped, "I11: nobody was told of {message}");
    }
}
