//! One value per variant of what crosses a link, and of what is asked about links.

use peer_proto::hook::Activity;
use peer_proto::ids::{BrokerId, PeerId};
use peer_proto::link::*;
use peer_proto::message::{Carrier, Intent, Kind, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::refusal::ErrorCode;

use crate::values::{AT, message_id};

const HERE: BrokerId = BrokerId([0x11; 16]);
const THERE: BrokerId = BrokerId([0x22; 16]);

pub(crate) fn there() -> There {
    There {
        stage: Stage::Presented,
        at: AT,
        rev: 3,
        carrier: Some(Carrier::Hook),
        acked_at: Some(AT),
    }
}

fn card() -> Card {
    Card {
        peer: PeerId(9),
        name: "bob".into(),
        client: "codex".into(),
        online: true,
        state: "working".into(),
        summary: "porting the tests".into(),
        activity: Some(Activity::Working),
    }
}

fn channels() -> (Vec<PeerId>, Vec<ChannelCard>) {
    let card = ChannelCard {
        channel: PeerId::of_channel(AT),
        name: "#build".into(),
        topic: "what runs where".into(),
        private: true,
        created_by: "luna".into(),
        created_at: AT,
        yours: vec![PeerId(9)],
        others: vec!["luna".into(), "vega@tower".into()],
    };
    (vec![card.channel, PeerId::of_channel(AT.plus_ms(1))], vec![card])
}

fn mail() -> Mail {
    Mail {
        id: message_id(1),
        origin: HERE,
        path: vec![HERE],
        from: RemoteSender {
            peer: PeerId(2),
            name: "luna".into(),
            client: "claude".into(),
            via: Via::Session,
        },
        to: vec![(PeerId(9), "bob".into())],
        channel: Some(PeerId::of_channel(AT)),
        intent: Intent::Request,
        kind: Kind::Question,
        thread: "t-9f2".into(),
        reply_to: Some(message_id(0)),
        sent_at: AT,
        expires_at: Some(AT.plus_ms(60_000)),
        sources: vec!["package.json".into()],
        text: "bcrypt version?".into(),
    }
}

fn name() -> DeliveryName {
    DeliveryName { message: message_id(1), peer: PeerId(9) }
}

fn receipt() -> Receipt {
    Receipt { message: message_id(1), peer: PeerId(9), there: there() }
}

fn told() -> Told {
    Told { message: message_id(1), peer: PeerId(9), rev: 3 }
}

fn taken() -> Taken {
    let outcomes = outcomes().into_iter().zip(9..).map(|(outcome, peer)| (PeerId(peer), outcome));
    Taken { message: message_id(1), outcomes: outcomes.collect() }
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Has(there()),
        Outcome::Later { code: ErrorCode::MailboxFull, retry_after_ms: 60_000 },
        Outcome::Refused { code: ErrorCode::UnknownPeer, text: "no peer is called bob".into() },
    ]
}

pub(crate) fn link_requests() -> Vec<LinkRequest> {
    vec![
        LinkRequest::Ready { own: HERE },
        LinkRequest::Open {
            own: HERE,
            remote: THERE,
            alias: "desk".into(),
            boot: 7,
            policy: Policy::Hold,
        },
        LinkRequest::Peers { full: true, cards: vec![card()], gone: vec![PeerId(10)] },
        LinkRequest::Take(vec![mail()]),
        LinkRequest::Relayed(vec![taken()]),
        LinkRequest::Receipts(vec![receipt()]),
        LinkRequest::Told(vec![told()]),
        LinkRequest::Due,
        LinkRequest::States(vec![name()]),
        LinkRequest::Stand(vec![(name(), Some(there())), (name(), None)]),
        LinkRequest::Unsettled { after: Some(name()) },
        LinkRequest::Withdraw(vec![message_id(1)]),
        LinkRequest::Withdrawn(vec![message_id(1)]),
        LinkRequest::Channels { all: channels().0, cards: channels().1 },
    ]
}

pub(crate) fn link_replies() -> Vec<LinkReply> {
    vec![
        LinkReply::Ready { boot: 7 },
        LinkReply::Opened { alias: "desk".into(), policy: Policy::Accept },
        LinkReply::Taken(vec![taken()]),
        LinkReply::Due(vec![receipt()]),
        LinkReply::States(vec![Some(there()), None]),
        LinkReply::Unsettled { deliveries: vec![name()], next: Some(name()) },
        LinkReply::Withdrawn(vec![message_id(1)]),
    ]
}

pub(crate) fn link_pushes() -> Vec<LinkPush> {
    vec![
        LinkPush::Mail(Box::new(mail())),
        LinkPush::ReceiptsDue,
        LinkPush::Cards { full: false, cards: vec![card()], gone: vec![PeerId(10)] },
        LinkPush::Withdraw(vec![message_id(1)]),
        LinkPush::Channels { all: channels().0, cards: channels().1 },
    ]
}

pub(crate) fn links_requests() -> Vec<LinksRequest> {
    let link = || "desk".to_owned();
    vec![
        LinksRequest::List,
        LinksRequest::Identify { own: HERE },
        LinksRequest::Set {
            link: link(),
            policy: Some(Policy::Hold),
            wake: Some(false),
            share: Some(Share::Names),
        },
        LinksRequest::Rename { link: link(), new_name: "tower".into() },
        LinksRequest::Remove { link: link() },
        LinksRequest::Hide { peer: "luna".into(), hidden: true },
    ]
}

pub(crate) fn link_infos() -> Vec<LinkInfo> {
    vec![LinkInfo {
        name: "desk".into(),
        broker: THERE,
        up: true,
        since: Some(AT),
        heard_at: Some(AT),
        policy: Policy::Hold,
        wake: true,
        share: Share::Summaries,
        peers: 3,
        waiting: 2,
        in_flight: 1,
        relayed: 4,
        held: 5,
    }]
}

pub(crate) fn frames() -> Vec<Frame> {
    vec![
        Frame::Hello(Greeting {
            own: HERE,
            expected: Some(THERE),
            boot: 7,
            name: "laptop".into(),
            wall: AT,
            software: "0.1.0".into(),
        }),
        Frame::Peers { full: true, cards: vec![card()], gone: vec![PeerId(10)] },
        Frame::Mail(Box::new(mail())),
        Frame::Taken(taken()),
        Frame::Receipts(vec![receipt()]),
        Frame::Told(vec![told()]),
        Frame::Withdraw(vec![message_id(1)]),
        Frame::Withdrawn(vec![message_id(1)]),
        Frame::Ask(vec![name()]),
        Frame::States(vec![(name(), Some(there())), (name(), None)]),
        Frame::Ping,
        Frame::Bye { reason: "the clocks differ by 312 s".into() },
        Frame::Channels { all: channels().0, cards: channels().1 },
    ]
}
