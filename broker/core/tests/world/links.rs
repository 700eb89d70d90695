//! Links in the world: what they say, as lines, and a digest of their mail.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use peer_core::record::{LinkRecord, ReceiptKey};
use peer_core::shared::SharedRecord;
use peer_core::step::Change;
use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp};
use peer_proto::link::{
    Card, ChannelCard, DeliveryName, LinkInfo, LinkPush, LinkReply, LinkRequest, LinksRequest,
    Mail, Outcome, Receipt, RemoteSender, Share, Taken, There, Told,
};
use peer_proto::message::{Carrier, Intent, Kind, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{Request, Role};

use super::World;
use super::script::duration_ms;

/// A digest that only a test may use.
pub fn mail_digest(mail: &Mail) -> [u8; 32] {
    let mut hasher = DefaultHasher::new();
    (mail.id, mail.origin, mail.from.peer, &mail.text).hash(&mut hasher);
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&hasher.finish().to_le_bytes());
    digest
}

fn policy_of(text: &str) -> Policy {
    [Policy::Accept, Policy::Hold, Policy::Refuse]
        .into_iter()
        .find(|policy| policy.as_str() == text)
        .unwrap_or_else(|| panic!("no such policy in a script: {text}"))
}

fn there_text(there: &There) -> String {
    let acked = if there.acked_at.is_some() { " acked" } else { "" };
    format!("{} rev {}{acked}", there.stage.as_str(), there.rev)
}

fn card_text(card: &Card) -> String {
    format!("{} {}", card.name, if card.online { "online" } else { "offline" })
}

/// The identity of a broker that a script calls by a name.
pub fn broker_id(name: &str) -> BrokerId {
    let mut id = [0; 16];
    for (place, byte) in name.bytes().enumerate().take(16) {
        id[place] = byte;
    }
    BrokerId(id)
}

/// `luna:9` is the peer 9 of another broker, called luna there.
fn remote_peer(text: &str) -> (PeerId, String) {
    let (name, id) = text.split_once(':').expect("name:id");
    let id = id.parse().expect("a number");
    let is_channel = name.starts_with('#');
    let id = if is_channel { PeerId::of_channel(Timestamp(id)) } else { PeerId(id) };
    (id, name.to_owned())
}

/// `#build:9` is a channel of another broker, called #build there.
fn channel_peer(text: &str) -> PeerId {
    remote_peer(text).0
}

fn stage(text: &str) -> Stage {
    [
        Stage::Posted,
        Stage::Stored,
        Stage::Offered,
        Stage::Presented,
        Stage::Held,
        Stage::Expired,
        Stage::Cancelled,
        Stage::Dead,
        Stage::Dropped,
    ]
    .into_iter()
    .find(|stage| stage.as_str() == text)
    .unwrap_or_else(|| panic!("no such stage in a script: {text}"))
}

impl World {
    /// The identity by which others address a channel of this broker.
    fn channel_here(&self, name: &str) -> Option<PeerId> {
        self.disk.shared.values().find_map(|shared| match shared {
            SharedRecord::Channel(record) if record.name == name => Some(record.address()),
            _ => None,
        })
    }

    fn there(&self, options: &BTreeMap<&str, &str>, text: &str) -> There {
        let stage = stage(text);
        There {
            stage,
            at: self.now.wall,
            rev: options.get("rev").map_or(1, |rev| rev.parse().expect("a number")),
            carrier: (stage == Stage::Presented).then_some(Carrier::Hook),
            acked_at: options.contains_key("acked").then_some(self.now.wall),
        }
    }

    /// A message that a script calls by a name of its own, whether or not it was taken.
    fn remote_message(&mut self, alias: &str, options: &BTreeMap<&str, &str>) -> MessageId {
        if let Some((id, _)) = self.aliases.iter().find(|(_, known)| *known == alias) {
            return *id;
        }
        let at = options.get("at").map_or(self.now.wall, |at| {
            let (sign, duration) = at.split_at(1);
            let by = i64::try_from(duration_ms(duration)).expect("not so far");
            Timestamp(self.now.wall.0.saturating_add_signed(if sign == "-" { -by } else { by }))
        });
        let id = MessageId::next(MessageId::MIN, at, 7 + self.aliases.len() as u32);
        self.aliases.insert(id, alias.to_owned());
        id
    }

    pub(super) fn run_link(
        &mut self,
        name: &str,
        words: &[&str],
        options: &BTreeMap<&str, &str>,
        text: Option<&str>,
    ) {
        let request = match words {
            ["opens", remote] => {
                let ancestors = options
                    .get("under")
                    .map_or(vec![9, 8, 1], |pid| vec![9, pid.parse().expect("a pid"), 1]);
                self.connect(name, Role::Link, ancestors, None);
                LinkRequest::Open {
                    own: broker_id(options.get("own").unwrap_or(&"home")),
                    remote: broker_id(remote),
                    alias: options.get("alias").unwrap_or(remote).to_string(),
                    boot: options.get("boot").map_or(1, |boot| boot.parse().expect("a number")),
                    policy: options
                        .get("policy")
                        .map_or(Policy::Accept, |policy| policy_of(policy)),
                }
            }
            ["peers", cards @ ..] => {
                let card = |text: &&str| {
                    let (peer, name) = remote_peer(text);
                    Card {
                        peer,
                        client: if name == "human" { String::new() } else { "claude".to_owned() },
                        name,
                        online: !options.contains_key("offline"),
                        state: String::new(),
                        summary: String::new(),
                        activity: None,
                    }
                };
                let gone = options.get("gone").map(|gone| remote_peer(gone).0);
                LinkRequest::Peers {
                    full: options.contains_key("full"),
                    cards: cards.iter().map(card).collect(),
                    gone: gone.into_iter().collect(),
                }
            }
            ["channels", channels @ ..] => {
                let list = |key: &str| {
                    let names = options.get(key).map(|names| names.split(','));
                    names.into_iter().flatten().map(str::to_owned).collect::<Vec<_>>()
                };
                let here = |name: &String| {
                    let known = self.disk.peers.values().find(|record| record.name == *name);
                    let id = if name == "human" { Some(PeerId::HUMAN) } else { None };
                    id.or(known.map(|record| record.id)).unwrap_or(PeerId(99))
                };
                let card = |text: &&str| {
                    let (channel, name) = remote_peer(text);
                    ChannelCard {
                        channel,
                        name,
                        topic: options.get("topic").unwrap_or(&"").to_string(),
                        private: options.contains_key("private"),
                        created_by: "bob".to_owned(),
                        created_at: self.now.wall,
                        yours: list("yours").iter().map(here).collect(),
                        others: list("others"),
                    }
                };
                let cards: Vec<ChannelCard> = channels.iter().map(card).collect();
                let mut all: Vec<PeerId> = cards.iter().map(|card| card.channel).collect();
                all.extend(list("also").iter().map(|text| channel_peer(text)));
                LinkRequest::Channels { all, cards }
            }
            ["brings", alias, from, to @ ..] => {
                let id = self.remote_message(alias, options);
                let (peer, sender) = remote_peer(from);
                let path = options.get("path").unwrap_or(&"desk");
                let known = |name: &&str| {
                    let peer = self.disk.peers.values().find(|record| record.name == **name);
                    let id = if *name == "human" { Some(PeerId::HUMAN) } else { None };
                    let id =
                        id.or(peer.map(|record| record.id)).or_else(|| self.channel_here(name));
                    let id = id.unwrap_or(PeerId(99));
                    (id, (*name).to_owned())
                };
                let to = match options.get("as") {
                    Some(wrong) => {
                        to.iter().map(|name| (known(name).0, (*wrong).to_owned())).collect()
                    }
                    None => to.iter().map(known).collect(),
                };
                LinkRequest::Take(vec![Mail {
                    id,
                    origin: broker_id(options.get("origin").unwrap_or(&"desk")),
                    path: path.split(',').map(broker_id).collect(),
                    from: RemoteSender {
                        peer,
                        client: if sender == "human" { String::new() } else { "claude".to_owned() },
                        name: sender,
                        via: Via::Session,
                    },
                    to,
                    channel: options.get("in").map(|channel| channel_peer(channel)),
                    intent: Intent::Request,
                    kind: match options.get("kind").copied() {
                        Some("question") => Kind::Question,
                        Some("answer") => Kind::Answer,
                        Some("notice") => Kind::Notice,
                        Some("join") => Kind::Join,
                        Some("leave") => Kind::Leave,
                        _ => Kind::Message,
                    },
                    thread: options.get("thread").unwrap_or(&"t-far").to_string(),
                    reply_to: options.get("re").map(|alias| self.message(alias)),
                    sent_at: id.accepted_at(),
                    expires_at: options
                        .get("ttl")
                        .map(|ttl| id.accepted_at().plus_ms(duration_ms(ttl))),
                    sources: Vec::new(),
                    text: text.unwrap_or("").to_owned(),
                }])
            }
            ["relayed", alias, peer, outcome] => {
                let message = self.message(alias);
                let outcome = match *outcome {
                    "later" => {
                        Outcome::Later { code: ErrorCode::MailboxFull, retry_after_ms: 1_000 }
                    }
                    "refused" => Outcome::Refused {
                        code: ErrorCode::UnknownPeer,
                        text: text.unwrap_or("").to_owned(),
                    },
                    stage => Outcome::Has(self.there(options, stage)),
                };
                let outcomes = vec![(remote_peer(peer).0, outcome)];
                LinkRequest::Relayed(vec![Taken { message, outcomes }])
            }
            ["receipt", alias, peer, stage] => {
                let (message, there) = (self.message(alias), self.there(options, stage));
                LinkRequest::Receipts(vec![Receipt { message, peer: remote_peer(peer).0, there }])
            }
            ["told", alias, peer] => {
                let message = self.message(alias);
                let peer = self.disk.peers.values().find(|record| record.name == **peer);
                let rev = options.get("rev").map_or(1, |rev| rev.parse().expect("a number"));
                let peer = peer.map_or(PeerId::HUMAN, |record| record.id);
                LinkRequest::Told(vec![Told { message, peer, rev }])
            }
            ["due"] => LinkRequest::Due,
            ["unsettled"] => LinkRequest::Unsettled { after: None },
            ["states", alias, peer] => {
                let message = self.remote_message(alias, options);
                let peer = self.disk.peers.values().find(|record| record.name == **peer);
                let peer = peer.map_or(PeerId::HUMAN, |record| record.id);
                LinkRequest::States(vec![DeliveryName { message, peer }])
            }
            ["stand", alias, peer, stage] => {
                let name = DeliveryName { message: self.message(alias), peer: remote_peer(peer).0 };
                let there = (*stage != "unknown").then(|| self.there(options, stage));
                LinkRequest::Stand(vec![(name, there)])
            }
            ["withdraw", alias] => LinkRequest::Withdraw(vec![self.remote_message(alias, options)]),
            ["withdrawn", alias] => LinkRequest::Withdrawn(vec![self.message(alias)]),
            other => panic!("no such line about a link: {other:?}"),
        };
        self.ask(name, Request::Link(request));
    }

    pub(super) fn run_links(&mut self, name: &str, words: &[&str], options: &BTreeMap<&str, &str>) {
        let request = match words {
            [] => LinksRequest::List,
            ["identify", own] => LinksRequest::Identify { own: broker_id(own) },
            ["set", link] => LinksRequest::Set {
                link: (*link).to_owned(),
                policy: options.get("policy").map(|policy| policy_of(policy)),
                wake: options.get("wake").map(|wake| *wake == "yes"),
                share: options.get("share").map(|share| match *share {
                    "none" => Share::None,
                    "names" => Share::Names,
                    _ => Share::Summaries,
                }),
            },
            ["rename", link, new_name] => {
                LinksRequest::Rename { link: (*link).to_owned(), new_name: (*new_name).to_owned() }
            }
            ["rm", link] => LinksRequest::Remove { link: (*link).to_owned() },
            [verb @ ("hide" | "show"), peer] => {
                LinksRequest::Hide { peer: (*peer).to_owned(), hidden: *verb == "hide" }
            }
            other => panic!("no such line about links: {other:?}"),
        };
        self.ask(name, Request::Links(request));
    }

    pub(super) fn link_change_line(&self, change: &Change) -> String {
        match change {
            Change::PutBroker(_) => "this broker has an identity".to_owned(),
            Change::PutLink(link) => {
                let LinkRecord { alias, policy, wake, share, .. } = &**link;
                let wake = if *wake { "" } else { ", no wake" };
                format!("link {alias}: {}{wake}, shares {}", policy.as_str(), share.as_str())
            }
            Change::RemoveLink(_) => "a link is forgotten".to_owned(),
            Change::PutReceipt { key: ReceiptKey { message, peer, .. }, rev } => {
                format!("receipt {} for {} due, rev {rev}", self.alias(*message), self.peer(*peer))
            }
            Change::RemoveReceipt(ReceiptKey { message, peer, .. }) => {
                format!("receipt {} for {} confirmed", self.alias(*message), self.peer(*peer))
            }
            Change::PutWithdrawn { message, .. } => {
                format!("withdrawn before it came: {}", self.alias(*message))
            }
            Change::RemoveWithdrawn { message, .. } => {
                format!("no longer known as withdrawn: {}", self.alias(*message))
            }
            other => format!("{other:?}"),
        }
    }

    pub(super) fn link_push_line(&self, push: &LinkPush) -> String {
        match push {
            LinkPush::Mail(mail) => format!("mail {}", self.alias(mail.id)),
            LinkPush::ReceiptsDue => "receipts are due".to_owned(),
            LinkPush::Cards { full, cards, gone } => {
                let cards: Vec<String> = cards.iter().map(card_text).collect();
                let all = if *full { "all " } else { "" };
                let gone = if gone.is_empty() { String::new() } else { format!(", gone {gone:?}") };
                format!("{all}peers: {}{gone}", cards.join(", "))
            }
            LinkPush::Channels { all, cards } => {
                let card = |card: &ChannelCard| {
                    let private = if card.private { " private" } else { "" };
                    let (yours, others) = (card.yours.len(), card.others.join(" "));
                    format!("{}{private} with {yours} there and [{others}]", card.name)
                };
                let cards: Vec<String> = cards.iter().map(card).collect();
                format!("{} channels: {}", all.len(), cards.join(", "))
            }
            LinkPush::Withdraw(messages) => {
                let names: Vec<String> = messages.iter().map(|id| self.alias(*id)).collect();
                format!("withdraw {}", names.join(" "))
            }
        }
    }

    pub(super) fn link_reply_line(&self, reply: &LinkReply) -> String {
        match reply {
            LinkReply::Ready { .. } => "this run of the broker".to_owned(),
            LinkReply::Opened { alias, policy, .. } => {
                format!("serves the link {alias}: {}", policy.as_str())
            }
            LinkReply::Taken(taken) => {
                let lines: Vec<String> = taken.iter().map(|taken| self.taken_text(taken)).collect();
                format!("took {}", lines.join("; "))
            }
            LinkReply::Due(receipts) => {
                let line = |receipt: &peer_proto::link::Receipt| {
                    format!("{} {}", self.alias(receipt.message), there_text(&receipt.there))
                };
                format!("due: {}", receipts.iter().map(line).collect::<Vec<_>>().join(", "))
            }
            LinkReply::States(states) => {
                let text = |state: &Option<There>| {
                    state.as_ref().map_or_else(|| "unknown".to_owned(), there_text)
                };
                format!("states: {}", states.iter().map(text).collect::<Vec<_>>().join(", "))
            }
            LinkReply::Unsettled { deliveries, .. } => {
                let name = |name: &peer_proto::link::DeliveryName| self.alias(name.message);
                let names: Vec<String> = deliveries.iter().map(name).collect();
                format!("unsettled: {}", names.join(", "))
            }
            LinkReply::Withdrawn(messages) => {
                let names: Vec<String> = messages.iter().map(|id| self.alias(*id)).collect();
                format!("never came: {}", names.join(" "))
            }
        }
    }

    fn taken_text(&self, taken: &Taken) -> String {
        let text = |outcome: &Outcome| match outcome {
            Outcome::Has(there) => there_text(there),
            Outcome::Later { code, retry_after_ms } => {
                format!("later: {code} ({retry_after_ms} ms)")
            }
            Outcome::Refused { code, text } => format!("refused: {code}: {text}"),
        };
        let outcomes: Vec<String> = taken
            .outcomes
            .iter()
            .map(|(peer, outcome)| {
                let name = if peer.is_channel() { self.peer(*peer) } else { peer.to_string() };
                format!("{name} {}", text(outcome))
            })
            .collect();
        format!("{}: {}", self.alias(taken.message), outcomes.join(", "))
    }

    pub(super) fn links_line(links: &[LinkInfo]) -> String {
        let line = |link: &LinkInfo| {
            format!(
                "{} {}: {} waiting, {} in flight, {} relayed, {} held",
                link.name,
                if link.up { "up" } else { "down" },
                link.waiting,
                link.in_flight,
                link.relayed,
                link.held
            )
        };
        format!("links: {}", links.iter().map(line).collect::<Vec<_>>().join("; "))
    }
}
