//! What the simulator knows of all brokers together, and what it checks at each commit of one.

use std::collections::{BTreeMap, BTreeSet};

use peer_core::record::{DeliveryRecord, MessageRecord};
use peer_core::step::Change;
use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp};
use peer_proto::limits::LINK_CLOCK_MS;
use peer_proto::message::{Cause, Kind, Stage};

use crate::sim::{Accepted, Sim};

/// A delivery of a message of one origin, on one machine.
type Place = (usize, Option<BrokerId>, MessageId, PeerId);

#[derive(Default)]
pub struct Book {
    /// What each broker's own peers said.
    said: BTreeSet<(BrokerId, MessageId, String)>,
    /// The stage that each delivery had last, also of messages that were deleted since.
    stages: BTreeMap<Place, Stage>,
    /// Forged messages that no broker may store.
    pub never: BTreeSet<MessageId>,
    /// Messages that a lying link invented for its own broker: that is its right.
    pub invented: BTreeSet<(BrokerId, MessageId)>,
    /// Messages that their senders withdrew.
    pub cancelled: BTreeSet<MessageId>,
    /// Who was told of what became of a message.
    notices: BTreeSet<(usize, PeerId, MessageId)>,
    /// The name of the recipient there when a message was accepted.
    meant: BTreeMap<(usize, MessageId, PeerId), String>,
    /// The latest time that each machine's clock has shown.
    latest: BTreeMap<usize, Timestamp>,
}

/// The name that a session began with: renaming adds to it, and so does a name that is taken.
fn first_name(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

impl Sim {
    pub fn node_of(&self, broker: BrokerId) -> usize {
        self.nodes.iter().position(|node| node.own == broker).expect("a machine")
    }

    /// The stage that a delivery of another machine's message had last here.
    pub fn stage_there(
        &self,
        from: usize,
        message: MessageId,
        home: (BrokerId, PeerId),
    ) -> Option<Stage> {
        let there = self.node_of(home.0);
        let place = (there, Some(self.nodes[from].own), message, home.1);
        self.book.stages.get(&place).copied()
    }

    /// The delivery at its origin of a message that another machine has.
    pub fn at_origin(
        &self,
        there: usize,
        origin: BrokerId,
        message: MessageId,
        peer: PeerId,
    ) -> Option<&DeliveryRecord> {
        let own = self.nodes[there].own;
        let node = &self.nodes[self.node_of(origin)];
        let range = (message, PeerId(0))..=(message, PeerId(u64::MAX));
        let mut found = node.world.disk.deliveries.range(range).map(|(_, record)| record);
        found.find(|record| node.home(record.peer) == Some((own, peer)))
    }

    /// Whether a machine forgot this delivery when it was put back to an earlier copy.
    pub fn is_forgotten(&self, broker: BrokerId, message: MessageId, peer: PeerId) -> bool {
        self.nodes[self.node_of(broker)].forgotten.contains(&(message, peer))
    }

    /// Checks what a broker has committed since the last time.
    pub fn note(&mut self, node: usize) {
        let now = self.nodes[node].world.now.wall;
        let latest = self.book.latest.entry(node).or_insert(now);
        *latest = now.max(*latest);
        for change in std::mem::take(&mut self.nodes[node].world.changes) {
            match change {
                Change::PutMessage(record) => self.note_message(node, &record),
                Change::PutDelivery { record, was } => self.note_delivery(node, &record, was),
                Change::RemoveMessage(message) => {
                    self.accepted.retain(|known| known.node != node || known.message != message);
                }
                _ => {}
            }
        }
    }

    fn note_message(&mut self, node: usize, record: &MessageRecord) {
        let (this, head) = (&self.nodes[node], &record.head);
        let Some(origin) = head.origin else {
            let bound = self.book.latest[&node].plus_ms(LINK_CLOCK_MS + 1);
            assert!(head.id.accepted_at() <= bound, "I7: a remote clock moved the ids of {node}");
            self.book.said.insert((this.own, head.id, record.text.clone()));
            if let (Kind::Notice, Some(about)) = (head.kind, head.reply_to) {
                self.book.notices.extend(head.to.iter().map(|(peer, _)| (node, *peer, about)));
            }
            return;
        };
        assert!(
            !self.book.never.contains(&head.id),
            "I6: {node} took a forged message {}",
            head.id
        );
        assert_ne!(origin.broker, this.own, "I5: mail came back to its origin");
        let home = this.home(head.from.peer);
        assert!(
            home.is_none_or(|(broker, _)| broker == origin.broker),
            "I6: a link brought mail of another one"
        );
        assert!(
            head.to.iter().all(|(peer, _)| this.home(*peer).is_none()),
            "I5: mail was passed on"
        );
        assert!(
            self.book.said.contains(&(origin.broker, head.id, record.text.clone()))
                || self.book.invented.contains(&(origin.broker, head.id)),
            "I6: {} is not what its sender said",
            head.id
        );
    }

    fn note_delivery(&mut self, node: usize, record: &DeliveryRecord, was: Option<Stage>) {
        let this = &self.nodes[node];
        let (message, peer) = (record.message, record.peer);
        if self.tells {
            println!(
                "    {node}: {message} for {peer} is {}, rev {}",
                record.stage.as_str(),
                record.rev
            );
        }
        let place = (node, record.brief.origin, message, peer);
        let before = self.book.stages.insert(place, record.stage);
        assert!(
            before != Some(Stage::Presented) || record.stage == Stage::Presented,
            "I4: {message} was presented, and {node} takes that back"
        );
        if let Some(home) = this.home(peer) {
            if was.is_none() {
                let name = &this.world.disk.peers[&peer].home.as_ref().expect("a proxy").name;
                let meant = (self.node_of(home.0), message, home.1);
                self.book.meant.insert(meant, first_name(name).to_owned());
                self.accepted.push(Accepted { node, proxy: peer, message });
            }
            if record.is_recalled() {
                self.book.cancelled.insert(message);
            }
            self.note_outgoing(node, home, record);
        } else if let Some(origin) = record.brief.origin {
            if was.is_none() {
                self.note_taken(node, origin, record);
            }
            // A question that one recipient answered is over for the others.
            let is_question = record.brief.kind == Kind::Question;
            assert!(
                record.stage != Stage::Cancelled
                    || is_question
                    || self.book.cancelled.contains(&message),
                "I4: {message} is withdrawn, and not by its sender"
            );
        }
    }

    /// What a broker says of mail that it sent is true.
    fn note_outgoing(&self, node: usize, home: (BrokerId, PeerId), record: &DeliveryRecord) {
        let message = record.message;
        if self.is_forgotten(home.0, message, home.1) {
            return;
        }
        let stage = self.stage_there(node, message, home);
        let text = |node: usize| {
            let record = self.nodes[node].world.disk.messages.get(&message);
            record.map(|record| record.text.as_str())
        };
        if let (Some(here), Some(there)) = (text(node), text(self.node_of(home.0)))
            && matches!(record.stage, Stage::Presented | Stage::Relayed)
        {
            assert_eq!(here, there, "I4: the recipient's broker has another text of {message}");
        }
        match record.stage {
            Stage::Presented => assert_eq!(
                stage,
                Some(Stage::Presented),
                "I4: {message} is presented on {node}, and not on its recipient's machine"
            ),
            Stage::Relayed => assert!(
                stage.is_some(),
                "I1: {message} is stored elsewhere for {node}, and its recipient's broker has it not"
            ),
            _ => {}
        }
    }

    /// What its sender was told is over is not taken any more.
    fn note_taken(&mut self, node: usize, origin: BrokerId, record: &DeliveryRecord) {
        let (message, peer) = (record.message, record.peer);
        let Some(there) = self.at_origin(node, origin, message, peer) else { return };
        let cause = there.trace.last().and_then(|entry| entry.cause);
        let restored = self.nodes[node].restored || self.nodes[self.node_of(origin)].restored;
        match there.stage {
            Stage::Dead if cause == Some(Cause::RefusedThere) => {
                // A copy that came late, after the person changed a policy.
                self.nodes[node].out_of_order.insert(message);
            }
            Stage::Dead | Stage::Expired | Stage::Cancelled => {
                let told = there.stage.as_str();
                assert!(
                    restored || self.clocks_set,
                    "I1: {message} was taken on {node}, and its sender was told that it is {told}"
                );
            }
            _ => {}
        }
    }

    /// A session gets what was sent to it, and nothing after its proof.
    pub fn note_push(&self, node: usize, name: &str, peer: PeerId, message: MessageId) {
        let place = (node, message, peer);
        assert!(!self.proved.contains(&place), "I2: {message} is pushed to {name} after its proof");
        if self.nodes[node].world.disk.messages[&message].head.origin.is_none() {
            return;
        }
        let meant = self.book.meant.get(&place).map_or(name, String::as_str);
        assert_eq!(meant, name, "I6: {message} reaches another than it was sent to");
    }

    pub fn was_told(&self, node: usize, sender: PeerId, message: MessageId) -> bool {
        self.book.notices.contains(&(node, sender, message))
    }

    /// A machine was put back to an earlier copy: the book follows.
    pub fn note_restore(&mut self, node: usize, before: &crate::world::Disk) {
        let this = &mut self.nodes[node];
        let deliveries = &this.world.disk.deliveries;
        let differs = |key: &(MessageId, PeerId), rev: u32| {
            deliveries.get(key).is_none_or(|now| now.rev != rev)
        };
        let lost = before.deliveries.iter().filter(|(key, record)| differs(key, record.rev));
        this.forgotten.extend(lost.map(|(key, _)| *key));
        let is_here = |place: &Place| place.0 == node;
        let places = self.book.stages.keys().filter(|place| is_here(place));
        let lost =
            places.map(|place| (place.2, place.3)).filter(|key| !deliveries.contains_key(key));
        this.forgotten.extend(lost);
        self.book.stages.retain(|place, _| !is_here(place));
        for ((message, peer), record) in &this.world.disk.deliveries {
            self.book.stages.insert((node, record.brief.origin, *message, *peer), record.stage);
        }
        let is_proved = |message: MessageId, peer: PeerId| {
            let record = this.world.disk.deliveries.get(&(message, peer));
            record.is_some_and(|record| record.stage == Stage::Presented)
        };
        self.proved.retain(|(at, message, peer)| *at != node || is_proved(*message, *peer));
        let disk = &this.world.disk;
        self.accepted
            .retain(|known| known.node != node || disk.messages.contains_key(&known.message));
        let known: BTreeSet<(MessageId, PeerId)> = self
            .accepted
            .iter()
            .filter(|known| known.node == node)
            .map(|known| (known.message, known.proxy))
            .collect();
        let again = disk.deliveries.keys().filter(|(_, peer)| this.home(*peer).is_some());
        let again = again.filter(|key| !known.contains(key));
        let again: Vec<Accepted> = again
            .map(|(message, proxy)| Accepted { node, proxy: *proxy, message: *message })
            .collect();
        self.accepted.extend(again);
    }
}
