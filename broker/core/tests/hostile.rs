//! A hostile link process: every request, with every field at its bounds and beyond.
//!
//! Held at each request: it gets one answer, and the broker goes on. What changes in the store is
//! the link's own: its mail, its proxies, its receipts, and deliveries to its proxies. Nothing of
//! this broker's peers, of other links or of the person changes.

#![allow(unreachable_pub, reason = "the modules of one test")]

#[path = "../../../mcp/core/tests/both_ends/random.rs"]
mod random;
mod world;

use std::collections::BTreeSet;

use peer_core::broker::Config;
use peer_core::shared::{SharedKey, SharedRecord};
use peer_core::step::{Change, Effect};
use peer_proto::channel::ChannelRequest;
use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp};
use peer_proto::limits::{
    LINK_PEERS_MAX, MESSAGES_PER_REQUEST_MAX, RECIPIENTS_MAX, TEXT_BYTES_MAX,
};
use peer_proto::link::{
    Card, ChannelCard, DeliveryName, LinkReply, LinkRequest, Mail, Outcome, Receipt, RemoteSender,
    Taken, There, Told,
};
use peer_proto::message::{Carrier, Intent, Kind, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{Register, Reply, Request, Role, Send};

use random::Random;
use world::World;

const OWN: BrokerId = BrokerId([1; 16]);
const HOSTILE: BrokerId = BrokerId([2; 16]);
const HONEST: BrokerId = BrokerId([3; 16]);

/// A channel of the hostile broker, in which bob is.
const HOME_CHANNEL: PeerId = PeerId((1 << 63) | 1_000);

/// Worlds, and requests in each.
const WORLDS: u64 = 60;
const REQUESTS_EACH: usize = 150;

const HOUR_MS: u64 = 3_600_000;

#[expect(clippy::disallowed_methods, reason = "it says how much is to be played")]
fn worlds() -> u64 {
    let worlds = std::env::var("PEERD_HOSTILE_WORLDS");
    worlds.map_or(WORLDS, |worlds| worlds.parse().expect("a number"))
}

struct Hostile {
    random: Random,
    world: World,
    /// The proxies of the hostile broker before the request.
    proxies_before: BTreeSet<PeerId>,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        let mut world = World::new(Config::default());
        world.quiet = true;
        world.entropy = seed;
        world.connect("boss", Role::Operator, vec![9, 8, 1], None);
        for (place, name) in ["ann", "bob"].into_iter().enumerate() {
            let pid = 1_000 + place as u32;
            world.connect(name, Role::Adapter, vec![pid + 50_000, pid, 1], None);
            world.ask(name, Request::Register(register(name, pid)));
        }
        let mut hostile =
            Self { random: Random::new(seed), world, proxies_before: BTreeSet::new() };
        for (name, remote) in [("honest", HONEST), ("hostile", HOSTILE)] {
            hostile.world.connect(name, Role::Link, vec![9, 8, 1], None);
            let open = LinkRequest::Open {
                own: OWN,
                remote,
                alias: name.to_owned(),
                boot: 7,
                policy: Policy::Accept,
            };
            hostile.world.ask(name, Request::Link(open));
            let cards = vec![card(PeerId(9), "luna"), card(PeerId(10), "max")];
            let peers = LinkRequest::Peers { full: true, cards, gone: Vec::new() };
            hostile.world.ask(name, Request::Link(peers));
        }
        for (name, private) in [("#ops", false), ("#plan", true)] {
            let (name, topic) = (name.to_owned(), String::new());
            let create = ChannelRequest::Create { name, topic, private };
            hostile.world.ask("ann", Request::Channel(create));
        }
        let cards = vec![hostile.channel_card(HOME_CHANNEL, "#lab")];
        let tell = LinkRequest::Channels { all: vec![HOME_CHANNEL], cards };
        hostile.world.ask("hostile", Request::Link(tell));
        let join = ChannelRequest::Join("#lab@hostile".to_owned());
        hostile.world.ask("bob", Request::Channel(join));
        hostile.send("ann", "luna@honest");
        hostile.send("ann", "luna@hostile");
        hostile.send("bob", "max@hostile");
        hostile.send("ann", "bob");
        let id = hostile.id_at(0);
        let mut mail = hostile.fair_mail(id);
        (mail.origin, mail.path) = (HONEST, vec![HONEST]);
        hostile.world.ask("honest", Request::Link(LinkRequest::Take(vec![mail])));
        hostile
    }

    fn send(&mut self, from: &str, to: &str) {
        let send = Send {
            to: vec![to.to_owned()],
            text: format!("from {from} to {to}"),
            intent: None,
            reply_to: None,
            thread: None,
            ttl_ms: None,
            sources: Vec::new(),
            idempotency_key: None,
        };
        self.world.ask(from, Request::Send(send));
    }

    /// The identities of this broker's channels.
    fn channels(&self) -> Vec<PeerId> {
        let address = |record: &SharedRecord| match record {
            SharedRecord::Channel(channel) => Some(channel.address()),
            _ => None,
        };
        self.world.disk.shared.values().filter_map(address).collect()
    }

    fn channel_card(&mut self, channel: PeerId, name: &str) -> ChannelCard {
        ChannelCard {
            channel,
            name: name.to_owned(),
            topic: if self.random.chance(80) { String::new() } else { self.text(4_000) },
            private: self.random.chance(30),
            created_by: "luna".to_owned(),
            created_at: self.world.now.wall,
            yours: vec![PeerId(3)],
            others: vec!["luna".to_owned()],
        }
    }

    /// A new id, so many milliseconds from now.
    fn id_at(&mut self, away_ms: i64) -> MessageId {
        let at = Timestamp(self.world.now.wall.0.saturating_add_signed(away_ms));
        MessageId::next(MessageId::MIN, at, self.random.draw() as u32)
    }

    fn id(&mut self) -> MessageId {
        let known: Vec<MessageId> = self.world.disk.messages.keys().copied().collect();
        match self.random.below(8) {
            0..=2 => known[self.random.below(known.len())],
            3 | 4 => self.id_at(0),
            5 => self.id_at(60_001),
            6 => self.id_at(-7 * 24 * HOUR_MS as i64 - 1),
            _ => [MessageId::MIN, MessageId::MAX, self.id_at(75 * 365 * 24 * HOUR_MS as i64)]
                [self.random.below(3)],
        }
    }

    fn peer(&mut self) -> PeerId {
        if self.random.chance(15) {
            let channels = self.channels();
            return channels[self.random.below(channels.len())];
        }
        let odd = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 99, HOME_CHANNEL.0, 1 << 63, u64::MAX];
        PeerId(odd[self.random.below(odd.len())])
    }

    fn text(&mut self, most: usize) -> String {
        match self.random.below(9) {
            0 => String::new(),
            1 => " \n\t\u{200b}".to_owned(),
            2 => "\u{1b}[2J\u{202e}\0".to_owned(),
            3 => "x".repeat(most),
            4 => "é".repeat(most / 2 + 1),
            5 => "x".repeat(most + 1),
            _ => "words".to_owned(),
        }
    }

    fn name(&mut self) -> String {
        let names = [
            "ann",
            "bob",
            "luna",
            "max",
            "human",
            "all",
            "*",
            "luna@honest",
            "@",
            "#ops",
            "a b",
            "\u{7}",
        ];
        match self.random.below(3) {
            0 => self.text(64),
            _ => names[self.random.below(names.len())].to_owned(),
        }
    }

    fn time(&mut self) -> Timestamp {
        let now = self.world.now.wall.0;
        let times = [0, now, now + HOUR_MS, now - HOUR_MS, u64::MAX, u64::MAX - 60_000];
        Timestamp(times[self.random.below(times.len())])
    }

    fn broker(&mut self) -> BrokerId {
        [OWN, HOSTILE, HONEST, BrokerId([0; 16])][self.random.below(4)]
    }

    fn stage(&mut self) -> Stage {
        let stages = [
            Stage::Stored,
            Stage::Leased,
            Stage::Offered,
            Stage::Presented,
            Stage::Held,
            Stage::Expired,
            Stage::Cancelled,
            Stage::Dead,
            Stage::Dropped,
            Stage::Relayed,
        ];
        stages[self.random.below(stages.len())]
    }

    fn there(&mut self) -> There {
        There {
            stage: self.stage(),
            at: self.time(),
            rev: [0, 1, 5, u32::MAX][self.random.below(4)],
            carrier: self.random.chance(50).then_some(Carrier::Hook),
            acked_at: self.random.chance(30).then_some(Timestamp(u64::MAX)),
        }
    }

    /// A message that may be taken.
    fn fair_mail(&mut self, id: MessageId) -> Mail {
        let names = [(PeerId(2), "ann"), (PeerId(3), "bob"), (PeerId(1), "human")];
        let (peer, name) = names[self.random.below(3)];
        Mail {
            id,
            origin: HOSTILE,
            path: vec![HOSTILE],
            from: RemoteSender {
                peer: PeerId(9),
                name: "luna".to_owned(),
                client: "claude".to_owned(),
                via: Via::Session,
            },
            to: vec![(peer, name.to_owned())],
            channel: None,
            intent: Intent::Request,
            kind: Kind::Message,
            thread: format!("t-{}", self.random.below(50)),
            reply_to: None,
            sent_at: id.accepted_at(),
            expires_at: None,
            sources: Vec::new(),
            text: format!("a text {id}"),
        }
    }

    /// A message with up to three fields at their bounds or beyond.
    fn mail(&mut self, id: MessageId) -> Mail {
        let mut mail = self.fair_mail(id);
        for _ in 0..self.random.below(4) {
            match self.random.below(16) {
                0 => mail.origin = self.broker(),
                1 => {
                    let paths = [vec![], vec![HOSTILE, OWN], vec![HONEST], vec![HOSTILE; 10_000]];
                    mail.path = paths[self.random.below(4)].clone();
                }
                2 => mail.from.peer = self.peer(),
                3 => mail.from.name = self.name(),
                4 => mail.from.client = self.text(64),
                5 => mail.from.via = [Via::Person, Via::Broker, Via::Remote][self.random.below(3)],
                6 => {
                    let count = [0, 2, RECIPIENTS_MAX, RECIPIENTS_MAX + 1][self.random.below(4)];
                    mail.to = (0..count).map(|_| (self.peer(), self.name())).collect();
                }
                7 => {
                    let kinds =
                        [Kind::Question, Kind::Answer, Kind::Notice, Kind::Join, Kind::Leave];
                    mail.kind = kinds[self.random.below(5)];
                }
                8 => mail.thread = self.text(64),
                9 => mail.reply_to = Some(self.id()),
                10 => mail.sent_at = self.time(),
                11 => mail.expires_at = Some(self.time()),
                12 => {
                    let count = [1, 17, 5_000][self.random.below(3)];
                    mail.sources = (0..count).map(|_| self.text(40)).collect();
                }
                13 => mail.channel = Some([HOME_CHANNEL, self.peer()][self.random.below(2)]),
                // A fair post, join or leave.
                14 => {
                    let channel = self.peer();
                    let names = ["#ops", "#plan"];
                    mail.to = vec![(channel, names[self.random.below(2)].to_owned())];
                    mail.kind = [Kind::Message, Kind::Join, Kind::Leave][self.random.below(3)];
                }
                _ => mail.text = self.text(TEXT_BYTES_MAX),
            }
        }
        mail
    }

    /// How many entries a list has: mostly one, sometimes none or too many.
    fn count(&mut self) -> usize {
        [0, 1, 1, 1, 2, MESSAGES_PER_REQUEST_MAX, MESSAGES_PER_REQUEST_MAX + 1]
            [self.random.below(7)]
    }

    fn names(&mut self) -> Vec<DeliveryName> {
        (0..self.count()).map(|_| DeliveryName { message: self.id(), peer: self.peer() }).collect()
    }

    fn request(&mut self) -> LinkRequest {
        match self.random.below(14) {
            0 => LinkRequest::Ready { own: self.broker() },
            1 => LinkRequest::Open {
                own: self.broker(),
                remote: [OWN, HOSTILE][self.random.below(2)],
                alias: self.name(),
                boot: self.random.draw(),
                policy: Policy::Accept,
            },
            2 => {
                let count = [0, 1, 3, LINK_PEERS_MAX, LINK_PEERS_MAX + 1][self.random.below(5)];
                let card = |this: &mut Self, place: usize| Card {
                    peer: if this.random.chance(50) {
                        this.peer()
                    } else {
                        PeerId(100 + place as u64)
                    },
                    name: if this.random.chance(50) { this.name() } else { format!("peer{place}") },
                    client: this.text(64),
                    online: true,
                    state: if this.random.chance(80) { String::new() } else { this.text(400) },
                    summary: if this.random.chance(80) { String::new() } else { this.text(400) },
                    activity: None,
                };
                let cards = (0..count).map(|place| card(self, place)).collect();
                let gone = (0..self.count()).map(|_| self.peer()).collect();
                LinkRequest::Peers { full: self.random.chance(30), cards, gone }
            }
            3..=5 => {
                let count = [0, 1, 1, 1, 2, 4][self.random.below(6)];
                let mails = (0..count).map(|_| self.id()).collect::<Vec<_>>();
                LinkRequest::Take(mails.into_iter().map(|id| self.mail(id)).collect())
            }
            6 => {
                let outcome = |this: &mut Self| match this.random.below(3) {
                    0 => Outcome::Has(this.there()),
                    1 => Outcome::Later { code: ErrorCode::NoSpace, retry_after_ms: u64::MAX },
                    _ => Outcome::Refused { code: ErrorCode::BadName, text: this.text(100_000) },
                };
                let taken = |this: &mut Self| {
                    let outcomes = (0..this.count().min(3)).map(|_| (this.peer(), outcome(this)));
                    let outcomes = outcomes.collect();
                    Taken { message: this.id(), outcomes }
                };
                LinkRequest::Relayed((0..self.count()).map(|_| taken(self)).collect())
            }
            7 => {
                let names = self.names();
                let receipt = |this: &mut Self, name: DeliveryName| Receipt {
                    message: name.message,
                    peer: name.peer,
                    there: this.there(),
                };
                LinkRequest::Receipts(names.into_iter().map(|name| receipt(self, name)).collect())
            }
            8 => {
                let names = self.names().into_iter();
                let told = |DeliveryName { message, peer }| Told { message, peer, rev: u32::MAX };
                LinkRequest::Told(names.map(told).collect())
            }
            9 => LinkRequest::States(self.names()),
            10 => {
                let names = self.names();
                let answer = |this: &mut Self| this.random.chance(60).then(|| this.there());
                LinkRequest::Stand(names.into_iter().map(|name| (name, answer(self))).collect())
            }
            12 => {
                let count = [0, 1, 1, 2, 3_000][self.random.below(5)];
                let mut cards = Vec::new();
                for _ in 0..count {
                    let channel = [HOME_CHANNEL, self.peer()][self.random.below(2)];
                    let name = ["#lab", "#ops", "@ops", "lab", "#lab@x", "#"][self.random.below(6)];
                    let mut card = self.channel_card(channel, name);
                    for _ in 0..self.random.below(3) {
                        match self.random.below(4) {
                            0 => card.name = self.name(),
                            1 => card.created_by = self.text(64),
                            2 => card.yours = (0..self.count()).map(|_| self.peer()).collect(),
                            _ => card.others = (0..self.count()).map(|_| self.name()).collect(),
                        }
                    }
                    cards.push(card);
                }
                let all = (0..self.count()).map(|_| self.peer()).collect();
                LinkRequest::Channels { all, cards }
            }
            11 => LinkRequest::Withdraw((0..self.count()).map(|_| self.id()).collect()),
            _ => match self.random.below(3) {
                0 => LinkRequest::Due,
                1 => LinkRequest::Unsettled { after: self.names().pop() },
                _ => LinkRequest::Withdrawn((0..self.count()).map(|_| self.id()).collect()),
            },
        }
    }

    /// Asks, and checks what came of it.
    fn ask(&mut self, request: LinkRequest) -> Reply {
        self.world.changes.clear();
        self.world.effects.clear();
        let peers: Vec<PeerId> = self.world.disk.peers.keys().copied().collect();
        self.proxies_before = peers.into_iter().filter(|peer| self.is_proxy(*peer)).collect();
        let asked = request.clone();
        let told = || format!("{asked:?}").chars().take(600).collect::<String>();
        self.world.ask("hostile", Request::Link(request));
        let connection = self.world.programs["hostile"].connection;
        let mut replies = Vec::new();
        for effect in std::mem::take(&mut self.world.effects) {
            match effect {
                Effect::Reply { connection: to, result, .. } if to == connection => {
                    replies.push(result);
                }
                Effect::Stop => panic!("it stopped the broker: {}", told()),
                _ => {}
            }
        }
        assert_eq!(replies.len(), 1, "one answer: {}", told());
        for change in std::mem::take(&mut self.world.changes) {
            assert!(self.is_its_own(&change), "{change:?}\nby {}", told());
        }
        match replies.remove(0) {
            Ok(reply) => reply,
            Err(refusal) => {
                assert!(!refusal.message.is_empty(), "a refusal says why: {}", told());
                Reply::Done
            }
        }
    }

    fn is_proxy(&self, peer: PeerId) -> bool {
        let record = self.world.disk.peers.get(&peer);
        record.and_then(|record| record.home.as_ref()).is_some_and(|home| home.broker == HOSTILE)
    }

    /// Whether a change is about what the hostile link brings or is sent.
    fn is_its_own(&self, change: &Change) -> bool {
        match change {
            Change::PutMessage(record) => match record.head.origin {
                Some(origin) => origin.broker == HOSTILE && record.head.from.via == Via::Remote,
                None => record.head.kind == Kind::Notice,
            },
            Change::PutDelivery { record, was } => {
                let is_new_notice = was.is_none() && record.brief.kind == Kind::Notice;
                record.brief.origin == Some(HOSTILE) || self.is_proxy(record.peer) || is_new_notice
            }
            Change::PutPeer(record) => self.is_proxy(record.id),
            Change::PutLink(record) => record.broker == HOSTILE,
            Change::PutReceipt { key, .. } | Change::RemoveReceipt(key) => key.broker == HOSTILE,
            Change::PutWithdrawn { broker, .. } | Change::RemoveWithdrawn { broker, .. } => {
                *broker == HOSTILE
            }
            Change::PutNextPeer(_) | Change::PutKept(_) => true,
            // A question that it brought, or that one of its peers was asked. Its own channels, and
            // its peers among the members of the public one here.
            Change::PutShared(shared) => match &**shared {
                SharedRecord::Question(_) => true,
                SharedRecord::Channel(channel) => {
                    let ours = |member: &&PeerId| !self.is_proxy(**member);
                    channel.name.ends_with("@hostile")
                        || channel.name == "#ops"
                            && channel.members.iter().filter(ours).eq(&[PeerId(2)])
                }
                _ => false,
            },
            Change::RemoveShared(SharedKey::Channel(name)) => name.ends_with("@hostile"),
            Change::RemovePeer(peer) => self.proxies_before.contains(peer),
            _ => false,
        }
    }
}

fn register(name: &str, pid: u32) -> Register {
    Register {
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
    }
}

fn card(peer: PeerId, name: &str) -> Card {
    Card {
        peer,
        name: name.to_owned(),
        client: "claude".to_owned(),
        online: true,
        state: String::new(),
        summary: String::new(),
        activity: None,
    }
}

#[test]
fn whatever_a_link_says_it_changes_only_what_is_its_own() {
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..worlds() {
        let mut hostile = Hostile::new(seed);
        for _ in 0..REQUESTS_EACH {
            let request = hostile.request();
            if let Reply::Link(LinkReply::Taken(answers)) = hostile.ask(request) {
                for (_, outcome) in answers.into_iter().flat_map(|taken| taken.outcomes) {
                    match outcome {
                        Outcome::Has(_) => taken += 1,
                        Outcome::Refused { text, .. } => {
                            assert!(!text.is_empty(), "a refusal says why");
                            refused += 1;
                        }
                        Outcome::Later { .. } => {}
                    }
                }
            }
            if hostile.random.chance(3) {
                hostile.world.pass(HOUR_MS / 4);
                while hostile.world.tick() {}
            }
        }
        // It still works: a session sends, and another gets it.
        hostile.world.effects.clear();
        hostile.send("bob", "ann");
        let is_sent = |effect: &Effect| matches!(effect, Effect::Reply { result: Ok(_), .. });
        assert!(hostile.world.effects.iter().any(is_sent), "the broker goes on");
    }
    assert!(taken > 200 && refused > 1_000, "{taken} taken and {refused} refused");
}

#[test]
fn a_million_cards_are_refused_as_a_whole() {
    let mut hostile = Hostile::new(1);
    let before = hostile.world.disk.peers.len();
    let cards = (0..1_000_000).map(|peer| card(PeerId(peer), "luna")).collect();
    hostile.ask(LinkRequest::Peers { full: true, cards, gone: Vec::new() });
    assert_eq!(hostile.world.disk.peers.len(), before);
}

#[test]
fn a_link_cannot_have_more_proxies_than_one_list_may_name() {
    let mut hostile = Hostile::new(2);
    for page in 0..10 {
        let peers = (0..LINK_PEERS_MAX as u64).map(|place| page * 10_000 + place);
        let cards = peers.map(|peer| card(PeerId(peer), &format!("p{peer}"))).collect();
        hostile.ask(LinkRequest::Peers { full: false, cards, gone: Vec::new() });
    }
    let own = hostile.world.disk.peers.keys().filter(|peer| hostile.is_proxy(**peer));
    assert!(own.count() <= LINK_PEERS_MAX);
}
