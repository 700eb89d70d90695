//! What happens in a run: operations as they are drawn, and how each is carried out.

use peer_proto::hook::{Mode, Report};
use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::EXPIRY_GRACE_MS;
use peer_proto::message::{Carrier, Evidence, Intent, Stage};
use peer_proto::policy::Policy;
use peer_proto::request::{Filter, HistoryQuery, Register, Request, RequestId, Resume, Role, Send};
use proptest::prelude::*;

use crate::model::*;
use crate::world::script::parse_seat;
use crate::*;

/// A draw that is put in relation to what there is when the operation runs.
pub(crate) type Draw = u16;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Online { program: usize, name: Option<usize>, seat: Option<usize>, leave_stale: bool },
    Offline { program: usize },
    StaleEnds,
    Resume { program: usize, leave_stale: bool },
    Bind { program: usize, seat: usize },
    Rename { program: usize, name: usize },
    Kick { program: usize },
    Send { program: usize, to: Vec<Draw>, options: SendOptions },
    Burst { program: usize, to: Draw, count: u8, large: bool, ttl_ms: Option<u64> },
    Offered { program: usize, messages: Vec<Draw>, last: bool },
    OfferAll { program: usize, last: bool },
    Presented { program: usize, messages: Vec<Draw> },
    Ack { program: usize, messages: Vec<Draw> },
    Nack { program: usize, messages: Vec<Draw> },
    Tried { program: usize, messages: Vec<Draw> },
    Receive { program: usize, filter: Option<(u8, Draw)>, wait: bool },
    StopWaiting { program: usize, wait: Draw },
    Cancel { program: usize, message: Draw },
    Requeue { program: usize, message: Draw },
    Reassign { program: usize, message: Draw, to: Draw },
    Drop { program: usize, message: Draw },
    Read { program: usize, message: Draw },
    Inbox { program: usize },
    Pass { millis: u64 },
    Sleep { millis: u64 },
    ClockBack { millis: u64 },
    Restart { hold_escalation: bool },
    SetPolicy { program: usize, peer: Draw, policy: Option<Policy> },
    SetConsent { program: usize, yes: bool },
    Release { program: usize, message: Draw },
    Report { program: usize, mode: Mode },
    History { program: usize },
}

#[derive(Clone, Debug)]
pub(crate) struct SendOptions {
    pub(crate) text: u8,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) key: Option<u8>,
    pub(crate) thread: Option<usize>,
    pub(crate) reply_to: Option<Draw>,
    pub(crate) inform: bool,
}

pub(crate) fn operation() -> impl Strategy<Value = Op> {
    let session = || 0..SESSIONS;
    let anyone = || 0..SESSIONS + 2;
    let mostly_boss = || prop_oneof![3 => Just(BOSS), 1 => anyone()];
    let policy = || {
        prop::sample::select(vec![
            None,
            Some(Policy::Accept),
            Some(Policy::Hold),
            Some(Policy::Hold),
            Some(Policy::Refuse),
        ])
    };
    let some = || prop::collection::vec(any::<Draw>(), 1..4);
    let ttl = || {
        prop::option::weighted(0.3, prop::sample::select(vec![1_000_u64, 5_000, 40_000, 600_000]))
    };
    let options =
        (0..3_u8, ttl(), prop::option::weighted(0.3, 0..3_u8), prop::option::of(0..THREADS.len()))
            .prop_flat_map(|(text, ttl_ms, key, thread)| {
                (
                    Just((text, ttl_ms, key, thread)),
                    prop::option::weighted(0.3, any::<Draw>()),
                    any::<bool>(),
                )
            })
            .prop_map(|((text, ttl_ms, key, thread), reply_to, inform)| SendOptions {
                text,
                ttl_ms,
                key,
                thread,
                reply_to,
                inform,
            });
    let online = (
        session(),
        prop::option::weighted(0.3, 0..NAMES.len()),
        prop::option::weighted(0.4, 0..SEATS.len()),
        prop::bool::weighted(0.2),
    );
    prop_oneof![
        10 => online.prop_map(|(program, name, seat, leave_stale)| Op::Online { program, name, seat, leave_stale }),
        6 => session().prop_map(|program| Op::Offline { program }),
        2 => Just(Op::StaleEnds),
        4 => (session(), prop::bool::weighted(0.4)).prop_map(|(program, leave_stale)| Op::Resume { program, leave_stale }),
        7 => (session(), 0..SEATS.len()).prop_map(|(program, seat)| Op::Bind { program, seat }),
        1 => (session(), 0..NAMES.len()).prop_map(|(program, name)| Op::Rename { program, name }),
        2 => session().prop_map(|program| Op::Kick { program }),
        24 => (anyone(), some(), options).prop_map(|(program, to, options)| Op::Send { program, to, options }),
        2 => (session(), any::<Draw>(), 5..80_u8, any::<bool>(), ttl())
            .prop_map(|(program, to, count, large, ttl_ms)| Op::Burst { program, to, count, large, ttl_ms }),
        8 => (session(), some(), any::<bool>()).prop_map(|(program, messages, last)| Op::Offered { program, messages, last }),
        3 => (session(), any::<bool>()).prop_map(|(program, last)| Op::OfferAll { program, last }),
        6 => (anyone(), some()).prop_map(|(program, messages)| Op::Presented { program, messages }),
        5 => (anyone(), some()).prop_map(|(program, messages)| Op::Ack { program, messages }),
        4 => (session(), some()).prop_map(|(program, messages)| Op::Nack { program, messages }),
        4 => (session(), some()).prop_map(|(program, messages)| Op::Tried { program, messages }),
        7 => (session(), prop::option::of((0..3_u8, any::<Draw>())), any::<bool>())
            .prop_map(|(program, filter, wait)| Op::Receive { program, filter, wait }),
        2 => (session(), any::<Draw>()).prop_map(|(program, wait)| Op::StopWaiting { program, wait }),
        3 => (anyone(), any::<Draw>()).prop_map(|(program, message)| Op::Cancel { program, message }),
        3 => (mostly_boss(), any::<Draw>()).prop_map(|(program, message)| Op::Requeue { program, message }),
        3 => (mostly_boss(), any::<Draw>(), any::<Draw>())
            .prop_map(|(program, message, to)| Op::Reassign { program, message, to }),
        1 => (mostly_boss(), any::<Draw>()).prop_map(|(program, message)| Op::Drop { program, message }),
        2 => (anyone(), any::<Draw>()).prop_map(|(program, message)| Op::Read { program, message }),
        1 => anyone().prop_map(|program| Op::Inbox { program }),
        6 => prop::sample::select(vec![1_u64, 500, 2_000, 31_000, 61_000, 700_000]).prop_map(|millis| Op::Pass { millis }),
        1 => Just(Op::Pass { millis: FORGET_MS + 3_600_000 }),
        2 => prop::sample::select(vec![1_000_u64, 10_000, 3_600_000]).prop_map(|millis| Op::Sleep { millis }),
        1 => Just(Op::ClockBack { millis: 7_200_000 }),
        2 => any::<bool>().prop_map(|hold_escalation| Op::Restart { hold_escalation }),
        6 => (mostly_boss(), any::<Draw>(), policy())
            .prop_map(|(program, peer, policy)| Op::SetPolicy { program, peer, policy }),
        1 => (mostly_boss(), any::<bool>()).prop_map(|(program, yes)| Op::SetConsent { program, yes }),
        4 => (mostly_boss(), any::<Draw>()).prop_map(|(program, message)| Op::Release { program, message }),
        4 => (session(), prop::sample::select(vec![Mode::Plan, Mode::Prompting, Mode::Bypass]))
            .prop_map(|(program, mode)| Op::Report { program, mode }),
        1 => anyone().prop_map(|program| Op::History { program }),
    ]
}

impl Model {
    /// A message: three times of four one of the caller's own mail, if there is any.
    pub(crate) fn draw_message(&self, peer: Option<PeerId>, draw: Draw) -> MessageId {
        let own: Vec<MessageId> = self
            .letters
            .iter()
            .filter(|((_, owner), letter)| Some(*owner) == peer && letter.waits())
            .map(|((m, _), _)| *m)
            .collect();
        let pool = if !draw.is_multiple_of(4) && !own.is_empty() { &own } else { &self.messages };
        match pool.len() {
            0 => MessageId::try_from(99_u128).expect("a small number is an id"),
            len => pool[usize::from(draw / 4) % len],
        }
    }

    pub(crate) fn draw_held(&self, draw: Draw) -> MessageId {
        let held: Vec<MessageId> = self
            .letters
            .iter()
            .filter(|(_, letter)| letter.held())
            .map(|((message, _), _)| *message)
            .collect();
        if held.is_empty() || draw.is_multiple_of(8) {
            self.draw_message(None, draw)
        } else {
            held[usize::from(draw) % held.len()]
        }
    }

    pub(crate) fn draw_dead(&self, draw: Draw) -> MessageId {
        let dead: Vec<MessageId> = self
            .letters
            .iter()
            .filter(|(_, letter)| matches!(letter.stage, Stage::Dead | Stage::Expired))
            .map(|((message, _), _)| *message)
            .collect();
        if dead.is_empty() || draw.is_multiple_of(8) {
            self.draw_message(None, draw)
        } else {
            dead[usize::from(draw) % dead.len()]
        }
    }

    /// A recipient, by id, by name, or one that is not there.
    pub(crate) fn draw_recipient(&self, draw: Draw) -> String {
        let peers: Vec<PeerId> =
            self.world.disk.peers.keys().copied().filter(|id| *id != PeerId::HUMAN).collect();
        match (draw % 8, peers.len()) {
            (0, _) | (_, 0) => "human".to_owned(),
            (1, _) => NAMES[usize::from(draw / 8) % NAMES.len()].to_owned(),
            (2, len) => self.world.disk.peers[&peers[usize::from(draw / 8) % len]].name.clone(),
            // Everyone: so that one message has deliveries whose readers become one.
            (3, _) => peers.iter().map(PeerId::to_string).collect::<Vec<_>>().join(","),
            (_, len) => peers[usize::from(draw / 8) % len].to_string(),
        }
    }

    // ---- operations

    pub(crate) fn run(&mut self, op: &Op) {
        match op {
            Op::Online { program, name, seat, leave_stale } => {
                let register = Register {
                    name: name.map(|name| NAMES[name].to_owned()),
                    seat: seat.map(|seat| parse_seat(SEATS[seat])),
                    client: "claude".to_owned(),
                    client_version: "1".to_owned(),
                    client_pid: PIDS[*program],
                    cwd: "/w".to_owned(),
                    git_root: None,
                    repo: None,
                    host: "h".to_owned(),
                    resume: None,
                };
                self.leave(*program, *leave_stale);
                let pid = PIDS[*program];
                self.connect(*program, Role::Adapter, vec![pid + 50_000, pid, 1]);
                self.world
                    .programs
                    .get_mut(&program_name(*program))
                    .expect("just connected")
                    .register = Some(register.clone());
                self.ask(*program, Request::Register(register));
            }
            Op::Offline { program } => self.leave(*program, false),
            Op::StaleEnds => {
                if let Some(connection) = self.stale.pop() {
                    self.end(connection);
                }
            }
            Op::Resume { program, leave_stale } => {
                let Some(known) = self.world.programs.get(&program_name(*program)).cloned() else {
                    return;
                };
                let (Some(register), Some(peer), Some(token)) =
                    (known.register, known.peer, known.token)
                else {
                    return;
                };
                self.leave(*program, *leave_stale);
                let pid = PIDS[*program];
                self.connect(*program, Role::Adapter, vec![pid + 50_000, pid, 1]);
                self.ask(
                    *program,
                    Request::Register(Register {
                        resume: Some(Resume { peer, token }),
                        ..register
                    }),
                );
            }
            Op::Bind { program, seat } => {
                self.ask(*program, Request::Bind(parse_seat(SEATS[*seat])))
            }
            Op::Rename { program, name } => {
                self.ask(
                    *program,
                    Request::Rename { peer: None, new_name: NAMES[*name].to_owned() },
                );
            }
            Op::Kick { program } => {
                if let Some(peer) = self.peer_of(*program) {
                    self.ask(BOSS, Request::Kick(peer.to_string()));
                }
            }
            Op::Send { program, to, options } => {
                let sender = self.peer_of(*program);
                let send = Send {
                    to: to.iter().map(|draw| self.draw_recipient(*draw)).collect(),
                    text: format!("text {}", options.text),
                    intent: options.inform.then_some(Intent::Inform),
                    reply_to: options.reply_to.map(|draw| self.draw_message(sender, draw)),
                    thread: options.thread.map(|thread| THREADS[thread].to_owned()),
                    ttl_ms: options.ttl_ms,
                    sources: Vec::new(),
                    idempotency_key: options.key.map(|key| format!("k{key}")),
                };
                // A program that resends says the same again.
                let again = sender
                    .zip(send.idempotency_key.clone())
                    .and_then(|key| self.keys.get(&key))
                    .map(|(_, send)| send);
                let send = again.filter(|_| options.text > 0).cloned().unwrap_or(send);
                self.ask(*program, Request::Send(send));
            }
            Op::Burst { program, to, count, large, ttl_ms } => {
                let to = self.draw_recipient(*to);
                let text = if *large { "x".repeat(60_000) } else { "x".to_owned() };
                for _ in 0..(*count).min(if *large { 12 } else { u8::MAX }) {
                    let send = Send {
                        to: vec![to.clone()],
                        text: text.clone(),
                        intent: None,
                        reply_to: None,
                        thread: Some(THREADS[0].to_owned()),
                        ttl_ms: *ttl_ms,
                        sources: Vec::new(),
                        idempotency_key: None,
                    };
                    self.ask(*program, Request::Send(send));
                }
            }
            Op::Offered { program, messages, last } => {
                let messages = self.draw_messages(*program, messages);
                self.ask(
                    *program,
                    Request::Offered { messages, carrier: carrier(*last), last: *last },
                );
            }
            Op::OfferAll { program, last } => {
                let holder = self.line(*program);
                let held = self
                    .letters
                    .iter()
                    .filter(|(_, letter)| letter.holder.is_some() && letter.holder == holder);
                let messages: Vec<MessageId> =
                    held.map(|((message, _), _)| *message).take(256).collect();
                self.ask(
                    *program,
                    Request::Offered { messages, carrier: carrier(*last), last: *last },
                );
            }
            Op::Presented { program, messages } => {
                let messages = self.draw_messages(*program, messages);
                self.ask(
                    *program,
                    Request::Presented {
                        messages,
                        carrier: Carrier::Channel,
                        evidence: Evidence::NextCall,
                    },
                );
            }
            Op::Ack { program, messages } => {
                let messages = self.draw_messages(*program, messages);
                self.ask(*program, Request::Ack { messages });
            }
            Op::Nack { program, messages } => {
                let messages = self.draw_messages(*program, messages);
                self.ask(*program, Request::Nack { messages });
            }
            Op::Tried { program, messages } => {
                let messages = self.draw_messages(*program, messages);
                self.ask(*program, Request::Tried { messages });
            }
            Op::Receive { program, filter, wait } => {
                let mut wanted = Filter::default();
                match filter {
                    Some((0, draw)) => wanted.from = Some(self.draw_recipient(*draw)),
                    Some((1, draw)) => {
                        wanted.thread = Some(THREADS[usize::from(*draw) % THREADS.len()].to_owned())
                    }
                    Some((_, draw)) => wanted.reply_to = Some(self.draw_message(None, *draw)),
                    None => {}
                }
                self.ask(*program, Request::Receive { filter: wanted, wait: *wait });
            }
            Op::StopWaiting { program, wait } => {
                let waits: Vec<RequestId> = self
                    .owed
                    .keys()
                    .filter(|(connection, _)| Some(*connection) == self.line(*program))
                    .map(|(_, id)| *id)
                    .collect();
                let id =
                    waits.get(usize::from(*wait) % waits.len().max(1)).copied().unwrap_or(u64::MAX);
                self.ask(*program, Request::StopWaiting(id));
            }
            Op::Cancel { program, message } => {
                // Mostly a message of the caller's own.
                let sender = self.peer_of(*program);
                let own: Vec<MessageId> = self
                    .letters
                    .iter()
                    .filter(|(_, letter)| Some(letter.from) == sender)
                    .map(|((message, _), _)| *message)
                    .collect();
                let message = match own.len() {
                    len if len > 0 && message % 4 != 0 => own[usize::from(*message) % len],
                    _ => self.draw_message(None, *message),
                };
                self.ask(*program, Request::Cancel(message));
            }
            Op::Requeue { program, message } => {
                let message = self.draw_dead(*message);
                self.ask(*program, Request::Requeue(message));
            }
            Op::Reassign { program, message, to } => {
                let (message, to) = (self.draw_dead(*message), self.draw_recipient(*to));
                self.ask(*program, Request::Reassign { message, to });
            }
            Op::Drop { program, message } => {
                let message = self.draw_dead(*message);
                self.ask(*program, Request::Drop(message));
            }
            Op::Read { program, message } => {
                let message = self.draw_message(None, *message);
                self.ask(
                    *program,
                    if message.to_u128().is_multiple_of(2) {
                        Request::Read(message)
                    } else {
                        Request::Show(message)
                    },
                );
            }
            Op::Inbox { program } => {
                self.ask(*program, Request::Inbox { peer: None, held: false, after: None })
            }
            Op::Pass { millis } => {
                self.world.pass(*millis);
                self.tick();
            }
            Op::Sleep { millis } => {
                self.world.sleep(*millis);
                self.tick();
            }
            Op::ClockBack { millis } => {
                self.world.now.wall = Timestamp(self.world.now.wall.0 - millis);
                self.tick();
            }
            Op::Restart { hold_escalation } => {
                self.world.config.hold_escalation = *hold_escalation;
                self.world.restart();
                self.lines.clear();
                self.stale.clear();
                self.owed.clear();
                for letter in self.letters.values_mut() {
                    letter.release();
                    letter.forget_what_is_not_stored();
                }
                self.last_now = self.world.now;
                self.grace_until_ms = self.world.now.mono_ms + EXPIRY_GRACE_MS;
                let peers = self.world.disk.peers.iter();
                self.expected = peers
                    .filter_map(|(id, record)| record.client_pid.map(|pid| (*id, pid)))
                    .collect();
                self.compare();
                self.open_terminals();
            }
            Op::SetPolicy { program, peer, policy } => self.set_policy(*program, *peer, *policy),
            Op::SetConsent { program, yes } => {
                self.ask(*program, Request::SetConsent { inbox_socket_in_bypass: *yes })
            }
            Op::Release { program, message } => {
                let message = self.draw_held(*message);
                self.ask(*program, Request::Release { message, to: None });
            }
            Op::Report { program, mode } => {
                self.ask(
                    *program,
                    Request::Report(Report { mode: Some(*mode), ..Report::default() }),
                );
            }
            Op::History { program } => {
                self.ask(*program, Request::History(HistoryQuery::default()))
            }
        }
    }

    pub(crate) fn set_policy(&mut self, program: usize, peer: Draw, policy: Option<Policy>) {
        let peers: Vec<PeerId> =
            self.world.disk.peers.keys().chain(self.heirs.keys()).copied().collect();
        let peer = (!peer.is_multiple_of(4))
            .then(|| peers.get(usize::from(peer / 4) % peers.len().max(1)).copied())
            .flatten();
        self.ask(program, Request::SetPolicy { peer: peer.map(|peer| peer.to_string()), policy });
    }

    pub(crate) fn draw_messages(&self, program: usize, draws: &[Draw]) -> Vec<MessageId> {
        let peer = self.peer_of(program);
        draws.iter().map(|draw| self.draw_message(peer, *draw)).collect()
    }
}
