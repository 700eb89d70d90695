//! A link process that lies: it sends the other machine frames that no rule of its own would make.

use peer_link_core::Event;
use peer_proto::ids::{BrokerId, MessageId, PeerId};
use peer_proto::link::{DeliveryName, Frame, Mail, Receipt, RemoteSender, There};
use peer_proto::message::{Intent, Kind, Stage, Via};

use crate::sim::Sim;

const DAY_MS: u64 = 24 * 3_600_000;

impl Sim {
    /// One link process sends a forged frame, as it would arrive.
    pub fn lie(&mut self) {
        let from = self.random.below(self.nodes.len());
        let place = self.random.below(self.nodes[from].ends.len());
        let to = self.nodes[from].ends[place].to;
        let at = self.nodes[to].place(from);
        if !self.nodes[to].ends[at].core.is_open() {
            return;
        }
        let Some(frame) = self.forge(from, to) else { return };
        self.tell("lie");
        self.handle(to, at, Event::Came(frame));
    }

    fn forge(&mut self, from: usize, to: usize) -> Option<Frame> {
        let mut mail = self.forged_mail(from, to)?;
        let kind = self.random.below(11);
        if kind > 6 {
            return self.forge_word(kind, from, to);
        }
        match kind {
            0 => {
                // Mail of another machine, or of none.
                let origin = BrokerId([self.random.below(9) as u8 + 1; 16]);
                if origin == self.nodes[from].own {
                    return None;
                }
                (mail.origin, mail.path) = (origin, vec![origin]);
                self.book.never.insert(mail.id);
            }
            1 => {
                // Passed on, or once here before.
                mail.path.push(self.nodes[self.random.below(self.nodes.len())].own);
                self.book.never.insert(mail.id);
            }
            2 => {
                let away = [LIE_AHEAD_MS, 50 * 365 * DAY_MS][self.random.below(2)];
                mail.id = MessageId::first_at(mail.sent_at.plus_ms(away));
                self.book.never.insert(mail.id);
            }
            3 => {
                let age = [7 * DAY_MS + 120_000, 9 * DAY_MS][self.random.below(2)];
                let past = mail.sent_at.0.saturating_sub(age);
                mail.id = MessageId::first_at(peer_proto::ids::Timestamp(past));
                self.book.never.insert(mail.id);
            }
            4 => {
                // The id of a message that is there already, with another text.
                mail.id = self.known_message(to)?;
                let origin = self.nodes[to].world.disk.messages[&mail.id].head.origin;
                // It may be deleted before this comes, and is a new one then.
                if origin.is_none_or(|origin| origin.broker != mail.origin) {
                    self.book.invented.insert((mail.origin, mail.id));
                }
            }
            5 => {
                mail.to[0].1 = "nobody".to_owned();
                self.book.never.insert(mail.id);
            }
            _ => {
                // Its own, and its own broker does not know it.
                self.book.invented.insert((mail.origin, mail.id));
            }
        }
        Some(Frame::Mail(Box::new(mail)))
    }

    /// What it says about messages that are not its own.
    fn forge_word(&mut self, kind: usize, from: usize, to: usize) -> Option<Frame> {
        match kind {
            7 => {
                // A message of another machine.
                let message = self.known_message(to)?;
                let origin = self.nodes[to].world.disk.messages[&message].head.origin;
                if origin.is_some_and(|origin| origin.broker == self.nodes[from].own) {
                    return None;
                }
                Some(Frame::Withdraw(vec![message]))
            }
            8 => {
                // Of a reader on a third machine.
                let message = self.known_message(to)?;
                let peer = PeerId(self.random.below(12) as u64);
                if self.is_own_reader(from, to, message, peer) {
                    return None;
                }
                let there = There {
                    stage: [Stage::Presented, Stage::Cancelled][self.random.below(2)],
                    at: self.nodes[to].world.now.wall,
                    rev: 1_000,
                    carrier: None,
                    acked_at: None,
                };
                Some(Frame::Receipts(vec![Receipt { message, peer, there }]))
            }
            9 => {
                let message = self.known_message(to)?;
                let peer = PeerId(self.random.below(12) as u64);
                Some(Frame::Ask(vec![DeliveryName { message, peer }]))
            }
            _ => {
                let message = self.known_message(to)?;
                let node = &self.nodes[to];
                let recalled = |record: &peer_core::record::DeliveryRecord| {
                    record.message == message && record.is_recalled()
                };
                if node.world.disk.deliveries.values().any(recalled) {
                    return None;
                }
                Some(Frame::Withdrawn(vec![message]))
            }
        }
    }

    /// Whether this machine may speak about that delivery: it is to its own reader.
    fn is_own_reader(&self, from: usize, to: usize, message: MessageId, peer: PeerId) -> bool {
        let own = self.nodes[from].own;
        let node = &self.nodes[to];
        let range = (message, PeerId(0))..=(message, PeerId(u64::MAX));
        let mut found = node.world.disk.deliveries.range(range);
        found.any(|((_, proxy), _)| node.home(*proxy) == Some((own, peer)))
    }

    fn known_message(&mut self, node: usize) -> Option<MessageId> {
        let ids: Vec<MessageId> = self.nodes[node].world.disk.messages.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.random.below(ids.len())])
    }

    /// A message that a link process makes up, well formed.
    fn forged_mail(&mut self, from: usize, to: usize) -> Option<Mail> {
        let own = self.nodes[from].own;
        let peers = self.nodes[to].world.disk.peers.values();
        let peers: Vec<(PeerId, String)> = peers
            .filter(|record| record.home.is_none() && record.id != PeerId::HUMAN)
            .map(|record| (record.id, record.name.clone()))
            .collect();
        let recipient = peers.get(self.random.below(peers.len().max(1)))?.clone();
        let now = self.nodes[to].world.now.wall;
        let id = MessageId::next(MessageId::MIN, now, self.random.draw() as u32 | 1 << 31);
        Some(Mail {
            id,
            origin: own,
            path: vec![own],
            from: RemoteSender {
                peer: PeerId(2),
                name: "ann".to_owned(),
                client: "claude".to_owned(),
                via: Via::Session,
            },
            to: vec![recipient],
            channel: None,
            intent: Intent::Request,
            kind: Kind::Message,
            thread: "t-lie".to_owned(),
            reply_to: None,
            sent_at: now,
            expires_at: None,
            sources: Vec::new(),
            text: format!("a lie {id}"),
        })
    }

    /// A broker tells a link only of that link's own messages.
    pub fn check_states(&self, node: usize, to: usize, frame: &Frame) {
        let Frame::States(states) = frame else { return };
        let (this, other) = (&self.nodes[node], self.nodes[to].own);
        for (name, there) in states {
            let record = this.world.disk.messages.get(&name.message);
            let origin = record.and_then(|record| record.head.origin).map(|origin| origin.broker);
            let withdrawn = this.world.disk.links.withdrawn.contains(&(other, name.message));
            assert!(
                there.is_none() || withdrawn || record.is_none() || origin == Some(other),
                "I6: {to} hears of {}, which is not its own",
                name.message
            );
        }
    }
}

/// Two minutes: more than clocks may differ.
const LIE_AHEAD_MS: u64 = 120_000;
