//! One link: this broker, another broker, and the frames between them.
//!
//! Knows the order of a conversation, what is acknowledged when, and when to try again. Does not
//! know how frames travel. Invariants: `Taken` is sent only after this broker has committed. A
//! message that the other broker did not answer is offered to it again. Nothing is sent before both
//! sides have greeted each other and this broker has opened the link.

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp};
use peer_proto::limits::{LINK_CLOCK_MS, MESSAGES_PER_REQUEST_MAX, REQUEST_BYTES_MAX};
use peer_proto::link::{
    DeliveryName, Frame, Greeting, LinkPush, LinkReply, LinkRequest, Mail, Outcome, Receipt, Taken,
    There, Told,
};
use peer_proto::policy::Policy;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{Reply, RequestId};

use crate::lane::Lane;

/// After how long without a frame a [`Frame::Ping`] is sent.
const PING_MS: u64 = 15_000;

/// After how long without a frame from the other side the connection ends.
const SILENCE_MS: u64 = 45_000;

/// After how long without an answer a message, a receipt, a withdrawal or a question is sent again.
const ANSWER_MS: u64 = 30_000;

/// The shortest time before a message that could not be taken is offered again.
const RETRY_MIN_MS: u64 = 1_000;

/// The longest.
const RETRY_MAX_MS: u64 = 60_000;

/// What one `Take` carries besides its texts, at most, for each message.
const MAIL_OVERHEAD_BYTES: usize = 4 * 1024;

/// What a link is made with.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// This broker.
    pub own: BrokerId,
    /// The other broker, if it is known already. Another one is refused.
    pub expected: Option<BrokerId>,
    /// What to call the other broker, if this broker does not know it yet. `None`: what it calls
    /// itself.
    pub alias: Option<String>,
    /// What this machine calls itself.
    pub name: String,
    /// What becomes of the other broker's mail, if this broker does not know it yet.
    pub policy: Policy,
    /// This program's version.
    pub software: String,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection to this broker is ready, in this run of it.
    BrokerUp {
        /// The run: a random number.
        boot: u64,
    },
    /// This broker sent something unasked.
    Pushed(LinkPush),
    /// This broker answered a request.
    Answered {
        /// The request.
        id: RequestId,
        /// The answer.
        result: Result<Reply, Refusal>,
    },
    /// The connection to this broker ended.
    BrokerLost,
    /// A connection to the other link process is ready: both said the same protocol version.
    WireUp,
    /// The other link process sent a frame.
    Came(Frame),
    /// The connection to the other link process ended.
    WireLost,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask this broker.
    Ask {
        /// Names the answer.
        id: RequestId,
        /// What to ask.
        request: LinkRequest,
    },
    /// Send a frame to the other link process.
    Send(Frame),
    /// End the connection to the other link process.
    Close(Stopped),
    /// The link works now: the other broker, and what it is called here.
    Opened {
        /// The other broker.
        remote: BrokerId,
        /// What it is called here.
        alias: String,
        /// What becomes of its mail here.
        policy: Policy,
        /// The version of its link process.
        software: String,
    },
}

/// Why a connection to the other link process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Nothing came from it for too long.
    Silent,
    /// Both ends are the same broker, or it is another broker than expected.
    Identity(String),
    /// The clocks differ too much.
    Clocks(String),
    /// This broker refuses the link.
    Refused(Refusal),
    /// The other side ended it, and why.
    Bye(String),
    /// The other side broke the protocol.
    Protocol(String),
    /// This broker is gone: both sides begin anew.
    NoBroker,
}

impl Stopped {
    /// The reason in words.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Silent => "nothing was heard for 45 seconds".to_owned(),
            Self::Refused(refusal) => refusal.to_string(),
            Self::NoBroker => "the broker ended".to_owned(),
            Self::Identity(why) | Self::Clocks(why) | Self::Bye(why) | Self::Protocol(why) => {
                why.clone()
            }
        }
    }
}

/// What a request that is under way was about.
#[derive(Debug)]
enum Asked {
    Open,
    Take,
    Relayed,
    Receipts(Vec<Told>),
    Told,
    Due,
    Unsettled,
    States(Vec<DeliveryName>),
    Withdraw,
    Other,
}

/// The state of the connection to the other link process.
#[derive(Debug, PartialEq, Eq)]
enum Wire {
    Down,
    /// Our greeting is sent, or waits for this broker's run.
    Greeting,
    /// Both greeted: this broker is asked to open the link.
    Opening,
    Open,
}

/// A message that the other broker has not answered.
#[derive(Debug)]
struct UnderWay {
    /// Its recipients there of which nothing was heard, or that it is to come again for.
    to: BTreeSet<PeerId>,
    /// When it is given back to this broker, to be pushed again.
    again_at: u64,
}

/// One link.
#[derive(Debug)]
pub struct Link {
    settings: LinkSettings,
    /// This broker's run.
    boot: Option<u64>,
    wire: Wire,
    greeting: Option<Greeting>,
    next_id: RequestId,
    asked: BTreeMap<RequestId, Asked>,
    under_way: BTreeMap<MessageId, UnderWay>,
    take: Lane<Mail>,
    relayed: Lane<Taken>,
    receipts: Lane<Receipt>,
    told: Lane<Told>,
    /// Receipts are due, and are not asked for yet.
    due: bool,
    /// When receipts that were sent are sent again.
    confirm_by: Option<u64>,
    /// Withdrawals without an answer, and when they are sent again.
    withdrawals: BTreeSet<MessageId>,
    withdraw_again_at: Option<u64>,
    /// Deliveries that the other side was asked about and has not answered, and when it is asked
    /// again.
    asked_there: BTreeSet<DeliveryName>,
    ask_again_at: Option<u64>,
    sent_at: u64,
    heard_at: u64,
    actions: Vec<Action>,
}

impl Link {
    /// Makes a link that is down at both ends.
    #[must_use]
    pub fn new(settings: LinkSettings) -> Self {
        Self {
            settings,
            boot: None,
            wire: Wire::Down,
            greeting: None,
            next_id: 0,
            asked: BTreeMap::new(),
            under_way: BTreeMap::new(),
            take: Lane::default(),
            relayed: Lane::default(),
            receipts: Lane::default(),
            told: Lane::default(),
            due: false,
            confirm_by: None,
            withdrawals: BTreeSet::new(),
            withdraw_again_at: None,
            asked_there: BTreeSet::new(),
            ask_again_at: None,
            sent_at: 0,
            heard_at: 0,
            actions: Vec::new(),
        }
    }

    /// Applies one event, and returns what to do, in order. `now_ms` is on a monotonic clock, `wall`
    /// on the wall clock.
    pub fn handle(&mut self, now_ms: u64, wall: Timestamp, event: Event) -> Vec<Action> {
        match event {
            Event::BrokerUp { boot } => {
                self.boot = Some(boot);
                self.greet(now_ms, wall);
            }
            Event::BrokerLost => {
                self.boot = None;
                if self.wire != Wire::Down {
                    self.close(Stopped::NoBroker);
                }
            }
            Event::WireUp => {
                self.forget();
                (self.wire, self.heard_at) = (Wire::Greeting, now_ms);
                self.greet(now_ms, wall);
            }
            Event::WireLost => {
                self.wire = Wire::Down;
                self.forget();
            }
            Event::Came(frame) if self.wire != Wire::Down => {
                self.heard_at = now_ms;
                self.came(now_ms, wall, frame);
            }
            // A push may overtake the answer that the link is open.
            Event::Pushed(push) if matches!(self.wire, Wire::Opening | Wire::Open) => {
                self.pushed(now_ms, push);
            }
            Event::Answered { id, result } => self.answered(now_ms, id, result),
            Event::Tick => self.tick(now_ms),
            // A frame or a push of a connection that has ended.
            Event::Came(_) | Event::Pushed(_) => {}
        }
        self.ask_lanes();
        std::mem::take(&mut self.actions)
    }

    /// Milliseconds until `Tick` must be told. `None`: no timer runs.
    #[must_use]
    pub fn poll_timeout(&self, now_ms: u64) -> Option<u64> {
        if self.wire == Wire::Down {
            return None;
        }
        let ping = (self.wire == Wire::Open).then_some(self.sent_at + PING_MS);
        let again = self.under_way.values().map(|waiting| waiting.again_at).min();
        let silence = Some(self.heard_at + SILENCE_MS);
        [ping, again, silence, self.confirm_by, self.withdraw_again_at, self.ask_again_at]
            .into_iter()
            .flatten()
            .map(|at| at.saturating_sub(now_ms))
            .min()
    }

    /// Whether mail can cross now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.wire == Wire::Open
    }

    // ---- the connection

    fn greet(&mut self, now_ms: u64, wall: Timestamp) {
        let Some(boot) = self.boot.filter(|_| self.wire == Wire::Greeting) else { return };
        self.send(
            now_ms,
            Frame::Hello(Greeting {
                own: self.settings.own,
                expected: self.settings.expected,
                boot,
                name: self.settings.name.clone(),
                wall,
                software: self.settings.software.clone(),
            }),
        );
        // The other side may have greeted first.
        if let Some(greeting) = self.greeting.clone() {
            self.open(wall, greeting);
        }
    }

    fn greeted(&mut self, wall: Timestamp, greeting: Greeting) {
        if self.wire != Wire::Greeting || self.greeting.is_some() {
            return self.stop(Stopped::Protocol("it greeted twice".to_owned()));
        }
        self.greeting = Some(greeting.clone());
        if self.boot.is_some() {
            self.open(wall, greeting);
        }
    }

    fn open(&mut self, wall: Timestamp, greeting: Greeting) {
        if let Err(stopped) = self.check(wall, &greeting) {
            return self.stop(stopped);
        }
        self.wire = Wire::Opening;
        let request = LinkRequest::Open {
            own: self.settings.own,
            remote: greeting.own,
            alias: self.settings.alias.clone().unwrap_or(greeting.name),
            boot: greeting.boot,
            policy: self.settings.policy,
        };
        self.ask(Asked::Open, request);
    }

    fn check(&self, wall: Timestamp, greeting: &Greeting) -> Result<(), Stopped> {
        let own = self.settings.own;
        if greeting.own == own {
            let why = "both ends are one broker; run `peerctl link identity --new` on the machine that is a copy";
            return Err(Stopped::Identity(why.to_owned()));
        }
        if greeting.expected.is_some_and(|expected| expected != own) {
            let why = format!("the other machine expects another broker than {own}");
            return Err(Stopped::Identity(why));
        }
        if let Some(expected) = self.settings.expected.filter(|id| *id != greeting.own) {
            let why = format!("the other machine is {}, and not {expected}", greeting.own);
            return Err(Stopped::Identity(why));
        }
        let apart = wall.0.abs_diff(greeting.wall.0);
        if apart > LINK_CLOCK_MS {
            return Err(Stopped::Clocks(format!("the clocks differ by {} s", apart / 1_000)));
        }
        Ok(())
    }

    /// Ends the connection, and tells the other side why.
    fn stop(&mut self, stopped: Stopped) {
        self.actions.push(Action::Send(Frame::Bye { reason: stopped.reason() }));
        self.close(stopped);
    }

    fn close(&mut self, stopped: Stopped) {
        self.actions.push(Action::Close(stopped));
        self.wire = Wire::Down;
        self.forget();
    }

    /// Forgets everything of a connection. The brokers have what must last.
    fn forget(&mut self) {
        self.greeting = None;
        self.asked.clear();
        self.under_way.clear();
        self.take.clear();
        self.relayed.clear();
        self.receipts.clear();
        self.told.clear();
        self.due = false;
        self.confirm_by = None;
        self.withdrawals.clear();
        self.withdraw_again_at = None;
        self.asked_there.clear();
        self.ask_again_at = None;
    }

    // ---- from the other side

    fn came(&mut self, now_ms: u64, wall: Timestamp, frame: Frame) {
        match frame {
            Frame::Hello(greeting) => self.greeted(wall, greeting),
            Frame::Bye { reason } => self.close(Stopped::Bye(reason)),
            Frame::Ping => {}
            // Its broker may have opened the link before this one.
            _ if self.wire == Wire::Greeting => {
                self.stop(Stopped::Protocol("it sent a frame before its greeting".to_owned()));
            }
            Frame::Peers { full, cards, gone } => {
                self.ask(Asked::Other, LinkRequest::Peers { full, cards, gone });
            }
            Frame::Channels { all, cards } => {
                self.ask(Asked::Other, LinkRequest::Channels { all, cards });
            }
            Frame::Mail(mail) => self.take.push(*mail),
            Frame::Taken(taken) => self.taken(now_ms, taken),
            Frame::Receipts(receipts) => {
                for receipt in &receipts {
                    self.withdrawals.remove(&receipt.message);
                }
                self.receipts.extend(receipts);
            }
            Frame::Told(told) => {
                self.confirm_by = None;
                self.told.extend(told);
            }
            Frame::Withdraw(messages) => {
                for page in messages.chunks(MESSAGES_PER_REQUEST_MAX) {
                    self.ask(Asked::Withdraw, LinkRequest::Withdraw(page.to_vec()));
                }
            }
            Frame::Withdrawn(messages) => {
                for message in &messages {
                    self.withdrawals.remove(message);
                }
                for page in messages.chunks(MESSAGES_PER_REQUEST_MAX) {
                    self.ask(Asked::Other, LinkRequest::Withdrawn(page.to_vec()));
                }
            }
            Frame::Ask(names) => {
                for page in names.chunks(MESSAGES_PER_REQUEST_MAX) {
                    self.ask(Asked::States(page.to_vec()), LinkRequest::States(page.to_vec()));
                }
            }
            Frame::States(states) => {
                for (name, _) in &states {
                    self.asked_there.remove(name);
                }
                for page in states.chunks(MESSAGES_PER_REQUEST_MAX) {
                    self.ask(Asked::Other, LinkRequest::Stand(page.to_vec()));
                }
            }
        }
    }

    /// The other broker answered for a message. What it cannot take now stays leased until it is
    /// time to try again.
    fn taken(&mut self, now_ms: u64, taken: Taken) {
        let Taken { message, outcomes } = taken;
        let (later, settled): (Vec<_>, Vec<_>) =
            outcomes.into_iter().partition(|(_, outcome)| matches!(outcome, Outcome::Later { .. }));
        if let Some(waiting) = self.under_way.get_mut(&message) {
            for (peer, _) in &settled {
                waiting.to.remove(peer);
            }
            // An answer that comes twice may be about another try, for other recipients.
            let again = later.iter().filter(|(peer, _)| waiting.to.contains(peer));
            let wait = again.filter_map(|(_, outcome)| match outcome {
                Outcome::Later { retry_after_ms, .. } => Some(*retry_after_ms),
                _ => None,
            });
            if let Some(wait_ms) = wait.max() {
                waiting.again_at = now_ms + wait_ms.clamp(RETRY_MIN_MS, RETRY_MAX_MS);
            }
            if waiting.to.is_empty() {
                self.under_way.remove(&message);
            }
        }
        if !settled.is_empty() {
            self.relayed.push(Taken { message, outcomes: settled });
        }
    }

    // ---- from this broker

    fn pushed(&mut self, now_ms: u64, push: LinkPush) {
        match push {
            LinkPush::Mail(mail) => {
                let to = mail.to.iter().map(|(peer, _)| *peer).collect();
                let again_at = now_ms + ANSWER_MS;
                self.under_way.insert(mail.id, UnderWay { to, again_at });
                self.send(now_ms, Frame::Mail(mail));
            }
            LinkPush::ReceiptsDue => self.due = true,
            LinkPush::Cards { full, cards, gone } => {
                self.send(now_ms, Frame::Peers { full, cards, gone });
            }
            LinkPush::Channels { all, cards } => self.send(now_ms, Frame::Channels { all, cards }),
            LinkPush::Withdraw(messages) => {
                self.withdrawals.extend(messages.iter().copied());
                self.withdraw_again_at = Some(now_ms + ANSWER_MS);
                self.send(now_ms, Frame::Withdraw(messages));
            }
        }
    }

    fn answered(&mut self, now_ms: u64, id: RequestId, result: Result<Reply, Refusal>) {
        let Some(asked) = self.asked.remove(&id) else { return };
        match (asked, result) {
            (Asked::Open, Ok(Reply::Link(LinkReply::Opened { alias, policy, .. }))) => {
                self.opened(alias, policy);
            }
            (Asked::Open, Err(refusal)) => self.stop(Stopped::Refused(refusal)),
            (Asked::Take, Ok(Reply::Link(LinkReply::Taken(taken)))) => {
                self.take.done();
                for taken in taken {
                    self.send(now_ms, Frame::Taken(taken));
                }
            }
            // The other side offers these again.
            (Asked::Take, _) => self.take.done(),
            (Asked::Relayed, _) => self.relayed.done(),
            (Asked::Receipts(told), result) => {
                self.receipts.done();
                if result.is_ok() {
                    self.send(now_ms, Frame::Told(told));
                }
            }
            (Asked::Told, _) => {
                self.told.done();
                // There may be more than fitted into one frame.
                self.due = true;
            }
            (Asked::Due, Ok(Reply::Link(LinkReply::Due(receipts)))) if !receipts.is_empty() => {
                self.confirm_by = Some(now_ms + ANSWER_MS);
                self.send(now_ms, Frame::Receipts(receipts));
            }
            (Asked::Unsettled, Ok(Reply::Link(LinkReply::Unsettled { deliveries, next }))) => {
                if !deliveries.is_empty() {
                    self.asked_there.extend(deliveries.iter().copied());
                    self.ask_again_at = Some(now_ms + ANSWER_MS);
                    self.send(now_ms, Frame::Ask(deliveries));
                }
                if next.is_some() {
                    self.ask(Asked::Unsettled, LinkRequest::Unsettled { after: next });
                }
            }
            (Asked::States(names), Ok(Reply::Link(LinkReply::States(states)))) => {
                let states: Vec<(DeliveryName, Option<There>)> =
                    names.into_iter().zip(states).collect();
                self.send(now_ms, Frame::States(states));
            }
            (Asked::Withdraw, Ok(Reply::Link(LinkReply::Withdrawn(unknown))))
                if !unknown.is_empty() =>
            {
                self.send(now_ms, Frame::Withdrawn(unknown));
            }
            _ => {}
        }
    }

    fn opened(&mut self, alias: String, policy: Policy) {
        self.wire = Wire::Open;
        if let Some(greeting) = &self.greeting {
            let (remote, software) = (greeting.own, greeting.software.clone());
            self.actions.push(Action::Opened { remote, alias, policy, software });
        }
        self.ask(Asked::Unsettled, LinkRequest::Unsettled { after: None });
        self.due = true;
    }

    // ---- timers

    fn tick(&mut self, now_ms: u64) {
        if self.wire == Wire::Down {
            return;
        }
        if self.heard_at + SILENCE_MS <= now_ms {
            return self.stop(Stopped::Silent);
        }
        if self.wire != Wire::Open {
            return;
        }
        let due: Vec<MessageId> = self
            .under_way
            .iter()
            .filter(|(_, waiting)| waiting.again_at <= now_ms)
            .map(|(message, _)| *message)
            .collect();
        for message in due {
            let Some(UnderWay { to, .. }) = self.under_way.remove(&message) else { continue };
            let later = Outcome::Later { code: ErrorCode::Overloaded, retry_after_ms: 0 };
            let outcomes = to.into_iter().map(|peer| (peer, later.clone())).collect();
            self.relayed.push(Taken { message, outcomes });
        }
        if self.confirm_by.is_some_and(|at| at <= now_ms) {
            self.confirm_by = None;
            self.due = true;
        }
        if self.withdraw_again_at.is_some_and(|at| at <= now_ms) {
            let messages: Vec<MessageId> = self.withdrawals.iter().copied().collect();
            self.withdraw_again_at = (!messages.is_empty()).then_some(now_ms + ANSWER_MS);
            for page in messages.chunks(MESSAGES_PER_REQUEST_MAX) {
                self.send(now_ms, Frame::Withdraw(page.to_vec()));
            }
        }
        if self.ask_again_at.is_some_and(|at| at <= now_ms) {
            let names: Vec<DeliveryName> = self.asked_there.iter().copied().collect();
            self.ask_again_at = (!names.is_empty()).then_some(now_ms + ANSWER_MS);
            for page in names.chunks(MESSAGES_PER_REQUEST_MAX) {
                self.send(now_ms, Frame::Ask(page.to_vec()));
            }
        }
        if self.sent_at + PING_MS <= now_ms {
            self.send(now_ms, Frame::Ping);
        }
    }

    // ---- towards both

    fn send(&mut self, now_ms: u64, frame: Frame) {
        self.sent_at = now_ms;
        self.actions.push(Action::Send(frame));
    }

    fn ask(&mut self, asked: Asked, request: LinkRequest) {
        self.next_id += 1;
        self.asked.insert(self.next_id, asked);
        self.actions.push(Action::Ask { id: self.next_id, request });
    }

    /// Asks this broker what waits for it, a batch of each kind at a time.
    fn ask_lanes(&mut self) {
        if self.wire != Wire::Open {
            return;
        }
        let bytes = |mail: &Mail| {
            let sources: usize = mail.sources.iter().map(String::len).sum();
            mail.text.len() + sources + MAIL_OVERHEAD_BYTES + 64 * mail.to.len()
        };
        let fits = |batch: &[Mail], mail: &Mail| {
            let sum: usize = batch.iter().map(bytes).sum();
            sum + bytes(mail) <= REQUEST_BYTES_MAX
                && batch.len() < MESSAGES_PER_REQUEST_MAX
                && batch.iter().all(|other| other.id != mail.id)
        };
        if let Some(mails) = self.take.next(fits) {
            self.ask(Asked::Take, LinkRequest::Take(mails));
        }
        // The broker applies one entry for each delivery, so a later one goes with the next batch.
        let few = |batch: &[Taken], taken: &Taken| {
            let sum: usize = batch.iter().map(|taken| taken.outcomes.len()).sum();
            sum + taken.outcomes.len() <= MESSAGES_PER_REQUEST_MAX
                && batch.iter().all(|other| other.message != taken.message)
        };
        if let Some(taken) = self.relayed.next(few) {
            self.ask(Asked::Relayed, LinkRequest::Relayed(taken));
        }
        let each_once = |batch: &[Receipt], receipt: &Receipt| {
            let name = |receipt: &Receipt| (receipt.message, receipt.peer);
            batch.len() < MESSAGES_PER_REQUEST_MAX
                && batch.iter().all(|other| name(other) != name(receipt))
        };
        if let Some(receipts) = self.receipts.next(each_once) {
            let told = receipts
                .iter()
                .map(|Receipt { message, peer, there }| Told {
                    message: *message,
                    peer: *peer,
                    rev: there.rev,
                })
                .collect();
            self.ask(Asked::Receipts(told), LinkRequest::Receipts(receipts));
        }
        if let Some(told) = self.told.next(|batch, _| batch.len() < MESSAGES_PER_REQUEST_MAX) {
            self.ask(Asked::Told, LinkRequest::Told(told));
        }
        // One frame of receipts is under way at a time.
        if self.due && self.confirm_by.is_none() && self.told.is_idle() {
            self.due = false;
            self.ask(Asked::Due, LinkRequest::Due);
        }
    }
}
