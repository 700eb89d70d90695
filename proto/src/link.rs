//! Links: what a link process asks of its own broker, and what two link processes tell each other.
//!
//! A link joins two brokers. Each keeps its own store. The broker knows no transport: a separate
//! process speaks to it over its socket, and to the other link process over ssh or NATS. The sending
//! broker keeps a message until the receiving broker has committed it.
//!
//! Knows no transport, key or file. `docs/links.md` tells the whole way of a message.

use serde::{Deserialize, Serialize};

use crate::hook::Activity;
use crate::ids::{BrokerId, MessageId, PeerId, Timestamp};
use crate::message::{Carrier, Intent, Kind, Stage, Via};
use crate::policy::Policy;
use crate::refusal::ErrorCode;

// ---- what crosses a link

/// A message as it crosses a link. Only the origin's broker makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// Its identity, the same on every broker.
    pub id: MessageId,
    /// The broker that accepted it.
    pub origin: BrokerId,
    /// The brokers that it passed, the origin first. Exactly the origin: nothing is passed on.
    pub path: Vec<BrokerId>,
    /// Who sent it.
    pub from: RemoteSender,
    /// The recipients that this copy is for: identity on the receiving broker, and name there. A post
    /// to a channel there has the channel as its only one.
    pub to: Vec<(PeerId, String)>,
    /// The channel of the origin that it was posted in. Then its sender may be a peer of any broker
    /// with a member, by the name that the origin knows it by.
    pub channel: Option<PeerId>,
    /// Whether it may wake its recipient.
    pub intent: Intent,
    /// What it is for: a message, a question or an answer; or, to a channel there, a join or a leave.
    pub kind: Kind,
    /// Its conversation.
    pub thread: String,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// When its origin accepted it.
    pub sent_at: Timestamp,
    /// When it expires if it was not presented.
    pub expires_at: Option<Timestamp>,
    /// What its claims rest on.
    pub sources: Vec<String>,
    /// The text, exactly as sent.
    pub text: String,
}

/// A sender on another broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteSender {
    /// Its identity there.
    pub peer: PeerId,
    /// Its name there.
    pub name: String,
    /// Its client; empty for the person.
    pub client: String,
    /// The door that it came in by there.
    pub via: Via,
}

/// A peer of another broker, as that broker tells of it. Never directories or processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its identity there.
    pub peer: PeerId,
    /// Its name there.
    pub name: String,
    /// `claude`, `codex`, …; empty for the person.
    pub client: String,
    /// A session that takes its mail is connected there.
    pub online: bool,
    /// Its state, in its own words.
    pub state: String,
    /// What it is doing, in its own words.
    pub summary: String,
    /// Whether its model is at work, where that is known.
    pub activity: Option<Activity>,
}

/// A channel of another broker, as that broker tells of it. One is told of the public channels, if
/// peers are shared, and of those that it has members in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelCard {
    /// Its identity there: [`PeerId::of_channel`] of when it was made.
    pub channel: PeerId,
    /// Its name there, with its sign.
    pub name: String,
    /// What it is for; may be empty.
    pub topic: String,
    /// Only members see it.
    pub private: bool,
    /// Who made it, by the name there.
    pub created_by: String,
    /// When it was made, by the clock there.
    pub created_at: Timestamp,
    /// The members that are peers of the broker that is told, by their identity on it.
    pub yours: Vec<PeerId>,
    /// The other members, by their names there.
    pub others: Vec<String>,
}

/// Where a delivery stands on the recipient's broker, as that broker tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct There {
    /// Its stage there.
    pub stage: Stage,
    /// When it came to this stage, by the clock there.
    pub at: Timestamp,
    /// Counts the durable changes of the delivery. A lower number is older news.
    pub rev: u32,
    /// The carrier that had it last.
    pub carrier: Option<Carrier>,
    /// When its recipient acknowledged it.
    pub acked_at: Option<Timestamp>,
}

/// What the recipient's broker tells of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The message.
    pub message: MessageId,
    /// The recipient, by its identity on its own broker.
    pub peer: PeerId,
    /// Where the delivery stands.
    pub there: There,
}

/// What the receiving broker did with a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It has the message, now or before, and durably.
    Has(There),
    /// It cannot take it now: a rate, a full mailbox or disk, a pause. To be tried again.
    Later {
        /// What is in the way.
        code: ErrorCode,
        /// When trying again makes sense.
        retry_after_ms: u64,
    },
    /// It will never take it.
    Refused {
        /// The kind of refusal.
        code: ErrorCode,
        /// The reason.
        text: String,
    },
}

/// The outcomes of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The message.
    pub message: MessageId,
    /// The recipients, by their identity on the receiving broker.
    pub outcomes: Vec<(PeerId, Outcome)>,
}

/// A delivery, named across a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliveryName {
    /// The message.
    pub message: MessageId,
    /// The recipient, by its identity on its own broker.
    pub peer: PeerId,
}

/// A receipt that the origin confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The message.
    pub message: MessageId,
    /// The recipient, by its identity on its own broker.
    pub peer: PeerId,
    /// The revision of the receipt.
    pub rev: u32,
}

// ---- the link process and its broker

/// What a link process asks of its own broker. Each list has at most
/// [`MESSAGES_PER_REQUEST_MAX`](crate::limits::MESSAGES_PER_REQUEST_MAX) entries. `Open` comes before all but
/// `Ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkRequest {
    /// Which run of this broker is it? It may come before `Open`. Answer: [`LinkReply::Ready`].
    Ready {
        /// This broker's identity.
        own: BrokerId,
    },
    /// Serve the link to one other broker on this connection. Answer: [`LinkReply::Opened`].
    Open {
        /// This broker's identity.
        own: BrokerId,
        /// The other broker's.
        remote: BrokerId,
        /// What to call it, where this broker does not know it yet.
        alias: String,
        /// The other broker's present run: a random number. 0: it is not reached now, and its mail is
        /// carried by letter.
        boot: u64,
        /// What becomes of its mail, where this broker does not know it yet.
        policy: Policy,
    },
    /// The peers of the other broker. Answer: `Reply::Done`.
    Peers {
        /// These are all: others are gone.
        full: bool,
        /// New or changed ones.
        cards: Vec<Card>,
        /// Those that are gone, by their identity there.
        gone: Vec<PeerId>,
    },
    /// Messages from the other broker. Each may be named once. Answer: [`LinkReply::Taken`], once
    /// all of it is durable.
    Take(Vec<Mail>),
    /// What the other broker did with messages that this connection holds. Answer: `Reply::Done`.
    Relayed(Vec<Taken>),
    /// What the other broker tells of this broker's messages. Answer: `Reply::Done`.
    Receipts(Vec<Receipt>),
    /// Receipts that the other broker confirmed. Answer: `Reply::Done`.
    Told(Vec<Told>),
    /// Receipts that are due, the first ones. Answer: [`LinkReply::Due`].
    Due,
    /// The other broker asks where these of its messages stand. Answer: [`LinkReply::States`].
    States(Vec<DeliveryName>),
    /// What the other broker answered to that question. Answer: `Reply::Done`.
    Stand(Vec<(DeliveryName, Option<There>)>),
    /// Relayed deliveries to the other broker that are not settled. Answer:
    /// [`LinkReply::Unsettled`].
    Unsettled {
        /// Start after this one.
        after: Option<DeliveryName>,
    },
    /// The other broker's senders withdraw these. Answer: [`LinkReply::Withdrawn`].
    Withdraw(Vec<MessageId>),
    /// The other broker never got these, and will not take them any more. Answer: `Reply::Done`.
    Withdrawn(Vec<MessageId>),
    /// The channels of the other broker. Answer: `Reply::Done`.
    Channels {
        /// All that it tells of: others are gone.
        all: Vec<PeerId>,
        /// New or changed ones.
        cards: Vec<ChannelCard>,
    },
}

/// What a broker answers a link process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkReply {
    /// To `Ready`.
    Ready {
        /// This broker's present run: a random number.
        boot: u64,
    },
    /// To `Open`.
    Opened {
        /// What the other broker is called here.
        alias: String,
        /// What becomes of its mail.
        policy: Policy,
    },
    /// To `Take`: one per message, in order.
    Taken(Vec<Taken>),
    /// To `Due`.
    Due(Vec<Receipt>),
    /// To `States`, in order. Absent: this broker does not have it.
    States(Vec<Option<There>>),
    /// To `Unsettled`.
    Unsettled {
        /// One page.
        deliveries: Vec<DeliveryName>,
        /// There are more: ask again after this one.
        next: Option<DeliveryName>,
    },
    /// To `Withdraw`: those that this broker does not have, and will not take any more.
    Withdrawn(Vec<MessageId>),
}

/// What a broker sends a link process unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkPush {
    /// A message is leased to this connection, for the recipients that it names.
    Mail(Box<Mail>),
    /// Receipts are due: ask with [`LinkRequest::Due`].
    ReceiptsDue,
    /// Peers of this broker, for the other one.
    Cards {
        /// These are all.
        full: bool,
        /// New or changed ones.
        cards: Vec<Card>,
        /// Those that are gone.
        gone: Vec<PeerId>,
    },
    /// Senders of this broker withdraw these.
    Withdraw(Vec<MessageId>),
    /// Channels of this broker, for the other one.
    Channels {
        /// All that it is told of.
        all: Vec<PeerId>,
        /// New or changed ones.
        cards: Vec<ChannelCard>,
    },
}

// ---- the person and the broker

/// How much of this broker's peers another one is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Share {
    /// Nothing: its peers can only reply.
    None,
    /// Names, clients, and who is online.
    Names,
    /// Also states, summaries and activity.
    #[default]
    Summaries,
}

impl Share {
    /// The name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Names => "names",
            Self::Summaries => "summaries",
        }
    }
}

/// What the person asks about links (operators). Answer: `Reply::Links`, all links or the one that
/// it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinksRequest {
    /// All links.
    List,
    /// Give this broker another identity, as on a copy of a machine. All links are removed, because
    /// the other brokers know the former identity.
    Identify {
        /// The identity.
        own: BrokerId,
    },
    /// Change what holds for a link; absent parts stay.
    Set {
        /// The link's name or the other broker's identity.
        link: String,
        /// What becomes of its mail.
        policy: Option<Policy>,
        /// Whether its requests may wake their recipients.
        wake: Option<bool>,
        /// What it is told.
        share: Option<Share>,
    },
    /// Give a link another name.
    Rename {
        /// The link's name or the other broker's identity.
        link: String,
        /// The name it shall have.
        new_name: String,
    },
    /// Forget a link and its peers. Mail that waits for them becomes dead letters.
    Remove {
        /// The link's name or the other broker's identity.
        link: String,
    },
    /// Keep a peer out of what other brokers are told, or tell them of it again.
    Hide {
        /// A name or id.
        peer: String,
        /// Whether it is kept out.
        hidden: bool,
    },
}

/// A link, as the person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// What the other broker is called here.
    pub name: String,
    /// The other broker.
    pub broker: BrokerId,
    /// A link process serves it now.
    pub up: bool,
    /// Since when it is up or down; absent where it never was up.
    pub since: Option<Timestamp>,
    /// When the other broker was last heard of.
    pub heard_at: Option<Timestamp>,
    /// What becomes of its mail.
    pub policy: Policy,
    /// Whether its requests may wake their recipients.
    pub wake: bool,
    /// What it is told.
    pub share: Share,
    /// Its peers that are known here.
    pub peers: u64,
    /// Deliveries that wait to be sent there.
    pub waiting: u64,
    /// Deliveries that are on their way.
    pub in_flight: u64,
    /// Deliveries that are stored there, and not settled.
    pub relayed: u64,
    /// Deliveries from there that are held.
    pub held: u64,
}

// ---- two link processes

/// A frame between two link processes. After `Hello` of both sides, the frames are the same on every
/// transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// The first frame of each side.
    Hello(Greeting),
    /// Peers of the sending broker.
    Peers {
        /// These are all.
        full: bool,
        /// New or changed ones.
        cards: Vec<Card>,
        /// Those that are gone.
        gone: Vec<PeerId>,
    },
    /// A message.
    Mail(Box<Mail>),
    /// What came of a message. Sent only after the receiving broker's commit.
    Taken(Taken),
    /// Where deliveries of the other side's messages stand now.
    Receipts(Vec<Receipt>),
    /// These receipts are durable at the origin.
    Told(Vec<Told>),
    /// Withdraw these messages.
    Withdraw(Vec<MessageId>),
    /// These were never received, and will not be taken any more.
    Withdrawn(Vec<MessageId>),
    /// Where do these stand?
    Ask(Vec<DeliveryName>),
    /// The answer to `Ask`.
    States(Vec<(DeliveryName, Option<There>)>),
    /// Nothing else was sent for a while.
    Ping,
    /// The connection ends, and why.
    Bye {
        /// Why.
        reason: String,
    },
    /// Channels of the sending broker.
    Channels {
        /// All that it tells of: others are gone.
        all: Vec<PeerId>,
        /// New or changed ones.
        cards: Vec<ChannelCard>,
    },
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The sending broker.
    pub own: BrokerId,
    /// The broker that it wants to reach; absent at first contact.
    pub expected: Option<BrokerId>,
    /// The sending broker's present run: a random number.
    pub boot: u64,
    /// What the sending machine calls itself: a proposal for the link's name.
    pub name: String,
    /// Its wall clock.
    pub wall: Timestamp,
    /// Its version.
    pub software: String,
}
