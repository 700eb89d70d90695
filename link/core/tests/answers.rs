//! What a link does when frames of the other side are lost, repeated, or come together.

use peer_link_core::{Action, Event, Link, LinkSettings};
use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp};
use peer_proto::link::{
    DeliveryName, Frame, Greeting, LinkPush, LinkReply, LinkRequest, Mail, Outcome, Receipt,
    RemoteSender, Taken, There,
};
use peer_proto::message::{Intent, Kind, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::request::{Reply, RequestId};

const OURS: BrokerId = BrokerId([1; 16]);
const THEIRS: BrokerId = BrokerId([2; 16]);
const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// A link with what it did last.
struct Open {
    link: Link,
    now_ms: u64,
    asked: Vec<(RequestId, LinkRequest)>,
    sent: Vec<Frame>,
}

impl Open {
    fn new() -> Self {
        let settings = LinkSettings {
            own: OURS,
            expected: None,
            alias: None,
            name: "ours".to_owned(),
            policy: Policy::Accept,
            software: "test".to_owned(),
        };
        let link = Link::new(settings);
        let mut open = Self { link, now_ms: 1_000, asked: Vec::new(), sent: Vec::new() };
        open.event(Event::BrokerUp { boot: 1 });
        open.event(Event::WireUp);
        open.event(Event::Came(Frame::Hello(Greeting {
            own: THEIRS,
            expected: None,
            boot: 2,
            name: "theirs".to_owned(),
            wall: NOW,
            software: "test".to_owned(),
        })));
        let (alias, policy) = ("theirs".to_owned(), Policy::Accept);
        open.answer(LinkReply::Opened { alias, policy });
        assert!(open.link.is_open());
        open
    }

    fn event(&mut self, event: Event) {
        for action in self.link.handle(self.now_ms, NOW, event) {
            match action {
                Action::Ask { id, request } => self.asked.push((id, request)),
                Action::Send(frame) => self.sent.push(frame),
                Action::Opened { .. } => {}
                Action::Close(stopped) => panic!("{stopped:?}"),
            }
        }
    }

    /// The broker answers the oldest request.
    fn answer(&mut self, reply: LinkReply) {
        let (id, _) = self.asked.remove(0);
        self.event(Event::Answered { id, result: Ok(Reply::Link(reply)) });
    }

    fn pass(&mut self, millis: u64) {
        self.now_ms += millis;
        // The other side lives.
        self.event(Event::Came(Frame::Ping));
        self.event(Event::Tick);
    }

    fn requests(&mut self) -> Vec<LinkRequest> {
        self.asked.drain(..).map(|(_, request)| request).collect()
    }
}

fn message(number: u64) -> MessageId {
    MessageId::first_at(Timestamp(NOW.0 + number))
}

fn there(stage: Stage, rev: u32) -> There {
    There { stage, at: NOW, rev, carrier: None, acked_at: None }
}

fn mail(id: MessageId, to: &[u64]) -> LinkPush {
    LinkPush::Mail(Box::new(Mail {
        id,
        origin: OURS,
        path: vec![OURS],
        from: RemoteSender {
            peer: PeerId(2),
            name: "ann".to_owned(),
            client: "claude".to_owned(),
            via: Via::Session,
        },
        to: to.iter().map(|peer| (PeerId(*peer), format!("peer{peer}"))).collect(),
        channel: None,
        intent: Intent::Inform,
        kind: Kind::Message,
        thread: "t".to_owned(),
        reply_to: None,
        sent_at: NOW,
        expires_at: None,
        sources: Vec::new(),
        text: "hello".to_owned(),
    }))
}

#[test]
fn a_repeated_answer_for_one_recipient_does_not_end_the_wait_for_another() {
    let mut open = Open::new();
    open.event(Event::Pushed(mail(message(1), &[10])));
    // A repeat of the answer for a recipient that had it before.
    let other = Taken {
        message: message(1),
        outcomes: vec![(PeerId(9), Outcome::Has(there(Stage::Stored, 0)))],
    };
    open.event(Event::Came(Frame::Taken(other)));
    let place = open.asked.iter().position(|(_, asked)| matches!(asked, LinkRequest::Relayed(_)));
    let (id, _) = open.asked.remove(place.expect("the broker hears of the answer"));
    open.event(Event::Answered { id, result: Ok(Reply::Done) });
    open.pass(30_000);
    let given_back = |request: &LinkRequest| match request {
        LinkRequest::Relayed(taken) => taken.iter().any(|taken| {
            taken.outcomes.iter().any(|(peer, outcome)| {
                *peer == PeerId(10) && matches!(outcome, Outcome::Later { .. })
            })
        }),
        _ => false,
    };
    assert!(open.requests().iter().any(given_back), "nobody sends it to the other recipient again");
}

#[test]
fn news_of_one_delivery_goes_to_the_broker_one_at_a_time() {
    let mut open = Open::new();
    let receipt = |stage, rev| {
        let receipt = Receipt { message: message(1), peer: PeerId(9), there: there(stage, rev) };
        Event::Came(Frame::Receipts(vec![receipt]))
    };
    open.requests();
    open.event(receipt(Stage::Stored, 1));
    open.event(receipt(Stage::Offered, 2));
    open.event(receipt(Stage::Presented, 3));
    let mut stages = Vec::new();
    while let Some((id, request)) = open.asked.pop() {
        let LinkRequest::Receipts(receipts) = request else { continue };
        assert_eq!(receipts.len(), 1, "the broker applies one of a delivery: {receipts:?}");
        stages.push(receipts[0].there.stage);
        open.event(Event::Answered { id, result: Ok(Reply::Done) });
    }
    assert_eq!(stages, [Stage::Stored, Stage::Offered, Stage::Presented]);
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let mut open = Open::new();
    let name = DeliveryName { message: message(1), peer: PeerId(9) };
    let place =
        open.asked.iter().position(|(_, asked)| matches!(asked, LinkRequest::Unsettled { .. }));
    let (id, _) = open.asked.remove(place.expect("the broker is asked what is unsettled"));
    let reply = LinkReply::Unsettled { deliveries: vec![name], next: None };
    open.event(Event::Answered { id, result: Ok(Reply::Link(reply)) });
    let asks = |open: &mut Open| {
        open.sent.drain(..).filter(|frame| *frame == Frame::Ask(vec![name])).count()
    };
    assert_eq!(asks(&mut open), 1);
    open.pass(29_000);
    assert_eq!(asks(&mut open), 0);
    open.pass(1_000);
    assert_eq!(asks(&mut open), 1, "no answer came");
    open.event(Event::Came(Frame::States(vec![(name, Some(there(Stage::Stored, 0)))])));
    open.pass(30_000);
    assert_eq!(asks(&mut open), 0, "it was answered");
}
