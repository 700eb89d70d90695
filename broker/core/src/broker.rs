//! The match from each input to its rule, the timeouts, and the state that the rules share.
//!
//! Knows every index of `state`, and calls the rules by name. Does not know what the rules decide.

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::{CLOCK_STEP_GRACE_MS, EXPIRY_GRACE_MS, MESSAGES_PER_REQUEST_MAX};
use peer_proto::link::LinkRequest;
use peer_proto::policy::Policy;
use peer_proto::request::{Reply, Request};
use peer_proto::settings::Limits;

use crate::input::{ConnectionId, Facts, Input, Lookups, Now};
use crate::record::{Image, PausesRecord, PeerRecord, SettingsRecord};
use crate::rejection::{Act, Rejection};
use crate::retention::Retention;
use crate::state::channels::Channels;
use crate::state::hook_calls::HookCalls;
use crate::state::links::Links;
use crate::state::mailboxes::Mailboxes;
use crate::state::notes::Notes;
use crate::state::presence::{HUMAN_NAME, OpenConnection, Presence};
use crate::state::questions::Questions;
use crate::state::refusals::Refusals;
use crate::state::retained::Retaining;
use crate::state::send_limits::SendLimits;
use crate::state::tasks::Tasks;
use crate::step::{Effect, Query, Step};
use crate::turn::Turn;
use crate::who::{Actor, Caller};

/// The configuration that the rules need.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Limits.
    pub limits: Limits,
    /// Whether `peerctl` from within an agent's process tree may act as an operator.
    pub allow_operator_from_agents: bool,
    /// The policy for mail to a peer without a policy of its own, until the person sets another
    /// default.
    pub default_policy: Policy,
    /// Whether mail is held if its sender's session may do less without asking than the
    /// recipient's.
    pub hold_escalation: bool,
    /// The limits of retention.
    pub retention: Retention,
}

/// If the clocks differ by more than this between two inputs, the machine slept, or somebody set
/// the wall clock.
const CLOCK_DRIFT_MS: u64 = 5_000;

/// The rules and their state.
///
/// The shell calls it from one thread. For each batch, with one [`Step`] for its decisions:
///
/// 1. It calls [`Broker::handle_timeout`], at the latest at the time that [`Broker::poll_timeout`]
///    returned after the batch before.
/// 2. For each input: if it is a request, [`Broker::lookups`] names the values that the store must
///    provide. The shell reads them, and they become [`Facts`]. If [`Step::outdates`] says that
///    this batch has changed one of these values, the shell commits first. Then it calls
///    [`Broker::handle`] at once: no other input may come between a request's lookups and its
///    handling.
/// 3. It commits all changes of the step, and then carries out its effects in order. If the commit
///    fails, it carries out none of them and drops the broker, whose memory would be ahead of the
///    store.
///
/// While the shell is idle, [`Broker::poll_sweep`] returns the next messages that retention checks.
/// If a request waits for the pass, the shell also calls it before the next batch. The shell reads
/// these messages, calls [`Broker::sweep`] with them, and commits that step by itself.
#[derive(Debug)]
pub struct Broker {
    pub(crate) config: Config,
    pub(crate) presence: Presence,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) send_limits: SendLimits,
    pub(crate) hooks: HookCalls,
    pub(crate) channels: Channels,
    pub(crate) questions: Questions,
    pub(crate) tasks: Tasks,
    pub(crate) notes: Notes,
    pub(crate) settings: SettingsRecord,
    pub(crate) pauses: PausesRecord,
    pub(crate) refusals: Refusals,
    pub(crate) retaining: Retaining,
    pub(crate) last_message: MessageId,
    pub(crate) next_peer: PeerId,
    pub(crate) messages: u64,
    pub(crate) links: Links,
    /// This run's random number, which links tell other brokers. Absent until a link is served.
    pub(crate) boot: Option<u64>,
    /// Mixed from the random bits of all requests, for what is decided without one.
    entropy: u64,
    last_now: Now,
    /// Nothing expires before this time, on the monotonic clock.
    grace_until_ms: u64,
    /// The time, on the monotonic clock, until which the sessions of a killed broker are expected
    /// back.
    expected_until_ms: u64,
}

impl Broker {
    /// Creates a broker that continues from the store's image.
    #[must_use]
    pub fn new(config: Config, image: Image, now: Now) -> Self {
        let mut peers = image.peers;
        // A peer that had a session when the last broker ended was last seen then, not when the
        // session began.
        for record in peers.iter_mut().filter(|record| record.client_pid.is_some()) {
            record.last_seen = record.last_seen.max(now.wall);
        }
        if !peers.iter().any(|record| record.id == PeerId::HUMAN) {
            peers.push(PeerRecord::new(PeerId::HUMAN, HUMAN_NAME.to_owned(), Timestamp(0)));
        }
        let last_peer = peers.iter().map(|record| record.id.0 + 1).max().unwrap_or(0);
        let channels = Channels::load(image.shared.channels);
        let last_message = image.last_message.unwrap_or(MessageId::MIN).max(channels.newest_from());
        let proxies = peers
            .iter()
            .filter_map(|record| Some((record.id, record.home.as_ref()?.broker)))
            .collect();
        let mut broker = Self {
            config,
            presence: Presence::load(peers),
            mailboxes: Mailboxes::load(image.pending, image.dead, proxies),
            entropy: image.links.own.map_or(0, |own| u128::from_be_bytes(own.0) as u64),
            links: Links::load(image.links),
            boot: None,
            send_limits: SendLimits::default(),
            hooks: HookCalls::default(),
            channels,
            questions: Questions::load(image.shared.questions),
            tasks: Tasks::load(image.shared.tasks, image.next_task),
            notes: Notes::load(image.shared.notes),
            settings: image.settings,
            pauses: image.pauses,
            refusals: Refusals::default(),
            retaining: Retaining::default(),
            last_message,
            next_peer: PeerId(last_peer.max(PeerId::FIRST.0))
                .max(image.next_peer.unwrap_or(PeerId::FIRST)),
            messages: image.messages,
            last_now: now,
            grace_until_ms: now.mono_ms.saturating_add(EXPIRY_GRACE_MS),
            expected_until_ms: now.mono_ms.saturating_add(EXPIRY_GRACE_MS),
        };
        broker.start_retaining(now, image.text_bytes, image.first_message);
        broker
    }

    /// Returns the values that the store must provide before this request can be handled.
    #[must_use]
    pub fn lookups(&self, connection: ConnectionId, request: &Request) -> Lookups {
        let one = |message: MessageId| Lookups { messages: vec![message], ..Lookups::default() };
        match request {
            Request::Send(send) => Lookups {
                messages: send.reply_to.into_iter().collect(),
                idempotency: self.key_of(connection, send.idempotency_key.as_ref()),
                ..Lookups::default()
            },
            Request::Ask(ask) => Lookups {
                idempotency: self.key_of(connection, ask.idempotency_key.as_ref()),
                ..Lookups::default()
            },
            Request::Answer(answer) => Lookups {
                messages: vec![answer.question],
                idempotency: self.key_of(connection, answer.idempotency_key.as_ref()),
                ..Lookups::default()
            },
            // A request beyond the limit is refused anyway, so nothing is looked up for it.
            Request::Ack { messages } if messages.len() <= MESSAGES_PER_REQUEST_MAX => {
                Lookups { messages: messages.clone(), ..Lookups::default() }
            }
            Request::Note(request) => {
                Lookups { note: Self::note_to_read(request), ..Lookups::default() }
            }
            Request::Register(register) => {
                Lookups { processes: self.processes_before(register), ..Lookups::default() }
            }
            Request::Bind(seat) => Lookups {
                messages: self.mail_to_move(connection, seat),
                processes: self
                    .presence
                    .by_seat(seat)
                    .map(|owner| self.processes_of(owner))
                    .unwrap_or_default(),
                ..Lookups::default()
            },
            Request::Link(request) => {
                let messages = self.mail_of_link(connection, request);
                Lookups { messages, ..Lookups::default() }
            }
            Request::Read(message)
            | Request::Show(message)
            | Request::Requeue(message)
            | Request::Reassign { message, .. }
            | Request::Drop(message)
            | Request::Cancel(message)
            | Request::Release { message, .. } => one(*message),
            _ => Lookups::default(),
        }
    }

    /// Returns the messages that a link's request is about. A list beyond the limit is refused
    /// anyway.
    fn mail_of_link(&self, connection: ConnectionId, request: &LinkRequest) -> Vec<MessageId> {
        let mut messages: Vec<MessageId> = match request {
            LinkRequest::Take(mails) => {
                mails.iter().flat_map(|mail| [Some(mail.id), mail.reply_to]).flatten().collect()
            }
            LinkRequest::Relayed(taken) => taken.iter().map(|taken| taken.message).collect(),
            LinkRequest::Receipts(receipts) => {
                receipts.iter().map(|receipt| receipt.message).collect()
            }
            LinkRequest::Stand(answers) => answers.iter().map(|(name, _)| name.message).collect(),
            LinkRequest::States(names) => names.iter().map(|name| name.message).collect(),
            LinkRequest::Withdraw(messages) => messages.clone(),
            LinkRequest::Due => self.due_messages(connection),
            LinkRequest::Ready { .. }
            | LinkRequest::Open { .. }
            | LinkRequest::Peers { .. }
            | LinkRequest::Channels { .. }
            | LinkRequest::Told(_)
            | LinkRequest::Unsettled { .. }
            | LinkRequest::Withdrawn(_) => Vec::new(),
        };
        messages.truncate(2 * MESSAGES_PER_REQUEST_MAX);
        messages
    }

    /// Returns the sender to which a request's idempotency key belongs.
    fn key_of(&self, connection: ConnectionId, key: Option<&String>) -> Option<(PeerId, String)> {
        self.actor_on(connection).map(Actor::peer).zip(key.cloned())
    }

    /// Applies one input. A refused request leaves no change.
    pub fn handle(&mut self, now: Now, input: Input, step: &mut Step) {
        self.notice_lost_time(now);
        let turn = &mut Turn { now, step };
        match input {
            Input::Connected { connection, id, role, ancestors, seat } => {
                let open = OpenConnection {
                    role,
                    ancestors,
                    seat,
                    session: None,
                    waits: Vec::new(),
                    link: None,
                };
                self.presence.connections.insert(connection, open);
                let authority = self.authority_on(connection);
                turn.effect(Effect::Welcome { connection, id, authority });
            }
            Input::Disconnected { connection } => self.disconnect(turn, connection),
            Input::Damaged(records) => self.set_damaged_aside(turn, &records),
            Input::Asked { connection, id, request, facts } => {
                // The program may have sent this before it noticed that the broker closed its
                // connection.
                if !self.presence.connections.contains_key(&connection) {
                    return;
                }
                self.entropy = self.entropy.rotate_left(17) ^ facts.entropy;
                let caller = Caller { connection, id, actor: self.actor_on(connection) };
                let (changes, effects) = (turn.step.changes.len(), turn.step.effects.len());
                if let Err(rejection) = self.ask(turn, caller, request, &facts) {
                    assert!(
                        turn.step.changes.len() == changes && turn.step.effects.len() == effects,
                        "a refused request leaves nothing behind: {rejection}"
                    );
                    let refusal = rejection.refusal(caller.addressee());
                    self.emit_refusal(turn, caller, &refusal);
                    turn.refuse(caller, refusal);
                }
            }
        }
    }

    fn ask(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: Request,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        match request {
            Request::Hello(_) => Err(Rejection::HelloTwice),
            Request::Register(register) => self.register(turn, caller, register, facts),
            Request::Bind(seat) => self.bind(turn, caller, seat, facts),
            Request::Describe { summary, state, task } => {
                self.describe(turn, caller, summary, state, task)
            }
            Request::Rename { peer, new_name } => self.rename(turn, caller, peer, new_name),
            Request::Peers(query) => self.list_peers(turn, caller, &query),
            Request::Send(send) => self.send(turn, caller, send, facts),
            Request::Receive { filter, wait } => self.receive(turn, caller, &filter, wait),
            Request::StopWaiting(id) => self.stop_waiting(turn, caller, id),
            Request::Offered { messages, carrier, last } => {
                self.offered(turn, caller, &messages, carrier, last)
            }
            Request::Tried { messages } => self.tried(turn, caller, &messages),
            Request::Presented { messages, carrier, evidence } => {
                self.presented(turn, caller, &messages, carrier, evidence)
            }
            Request::Ack { messages } => self.ack(turn, caller, messages, facts),
            Request::Nack { messages } => self.nack(turn, caller, &messages),
            Request::Read(message) => {
                self.reading(turn, caller, message, facts, Query::Text(message))
            }
            Request::Show(message) => {
                self.reading(turn, caller, message, facts, Query::Show(message))
            }
            Request::Inbox { peer, held, after } => {
                self.list_inbox(turn, caller, peer, held, after)
            }
            Request::History(query) => self.list_history(turn, caller, query),
            Request::Orphans { after } => {
                caller.check_operator()?;
                turn.query(caller, Query::Orphans { after, actor: caller.actor()? });
                Ok(())
            }
            Request::Requeue(message) => self.requeue(turn, caller, message, facts),
            Request::Reassign { message, to } => self.reassign(turn, caller, message, &to, facts),
            Request::Drop(message) => self.drop_letter(turn, caller, message, facts),
            Request::Cancel(message) => self.cancel(turn, caller, message, facts),
            Request::Watch { peer, bodies } => self.watch(turn, caller, peer, bodies),
            Request::Kick(peer) => self.kick(turn, caller, &peer),
            Request::Status => {
                turn.query(caller, Query::Status);
                Ok(())
            }
            Request::Shutdown => {
                caller.check_person(Act::StopBroker)?;
                turn.reply(caller, Reply::Done);
                turn.effect(Effect::Stop);
                Ok(())
            }
            Request::Report(report) => self.report(turn, caller, report),
            Request::Hook(hook) => self.relay_hook(turn, caller, hook),
            Request::HookAnswer { call, output, asks_with } => {
                self.hook_answer(turn, caller, call, output, &asks_with)
            }
            Request::Policies => self.list_policies(turn, caller),
            Request::SetPolicy { peer, policy } => self.set_policy(turn, caller, peer, policy),
            Request::SetConsent { inbox_socket_in_bypass } => {
                self.set_consent(turn, caller, inbox_socket_in_bypass)
            }
            Request::Release { message, to } => self.release_held(turn, caller, message, to, facts),
            Request::Channel(request) => self.channel(turn, caller, request, facts),
            Request::Ask(ask) => self.ask_question(turn, caller, ask, facts),
            Request::Answer(answer) => self.answer_question(turn, caller, answer, facts),
            Request::Questions(query) => self.list_questions(turn, caller, &query),
            Request::Task(request) => self.task(turn, caller, request, facts),
            Request::Note(request) => self.note(turn, caller, request, facts),
            Request::Search(query) => self.search(turn, caller, query),
            Request::Pause(what) => self.pause(turn, caller, &what),
            Request::Resume(what) => self.resume(turn, caller, &what),
            Request::Purge { dry_run } => self.purge(caller, dry_run),
            Request::Refusals => self.list_refusals(turn, caller),
            Request::Link(request) => self.link(turn, caller, request, facts),
            Request::Links(request) => self.links(turn, caller, request),
        }
    }

    /// Applies everything that is due: visibility timeouts, expired deliveries, forgotten peers.
    pub fn handle_timeout(&mut self, now: Now, step: &mut Step) {
        self.notice_lost_time(now);
        let turn = &mut Turn { now, step };
        // Only here, never between a request's lookups and its handling: both must see the same
        // sender.
        if now.mono_ms >= self.expected_until_ms {
            for lost in self.presence.expect_nobody() {
                self.notify_askers(turn, lost);
            }
            if self.tasks.is_unreviewed() {
                self.unclaim_tasks_of_the_lost(turn);
            }
        }
        // Expire first: an expired delivery needs no next carrier.
        if now.mono_ms >= self.grace_until_ms {
            self.expire(turn);
            self.expire_questions(turn);
            self.forget_old_peers(turn);
            self.forget_notes(turn);
        }
        self.report_overdue(turn);
    }

    /// Milliseconds until `handle_timeout` must be called next. `None`: no timer runs.
    #[must_use]
    pub fn poll_timeout(&self, now: Now) -> Option<u64> {
        let grace_ms = self.grace_ms(now);
        let overdue =
            self.mailboxes.next_overdue().map(|(at_ms, ..)| at_ms.saturating_sub(now.mono_ms));
        let expiry =
            self.mailboxes.next_expiry().map(|(at, ..)| at.ms_since(now.wall).max(grace_ms));
        let forget = self
            .presence
            .longest_offline()
            .map(|(at, _)| at.plus_ms(self.forget_offline_ms()).ms_since(now.wall).max(grace_ms));
        let awaits = self.presence.expects_anybody() || self.tasks.is_unreviewed();
        let expected = awaits.then(|| self.expected_until_ms.saturating_sub(now.mono_ms));
        let note = self.notes.next_expiry().map(|at| at.ms_since(now.wall).max(grace_ms));
        let question = self.questions.next_expiry().map(|at| at.ms_since(now.wall).max(grace_ms));
        [overdue, expiry, forget, expected, note, question].into_iter().flatten().min()
    }

    /// Draws bits that another broker would not draw: they differ in what was asked of each, and in
    /// its identity. SplitMix64.
    pub(crate) fn draw(&mut self) -> u32 {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.entropy ^ (self.entropy >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) as u32
    }

    /// Milliseconds until anything may expire.
    pub(crate) fn grace_ms(&self, now: Now) -> u64 {
        self.grace_until_ms.saturating_sub(now.mono_ms)
    }

    // ---- helpers of several rules

    pub(crate) fn forget_offline_ms(&self) -> u64 {
        u64::from(self.config.limits.forget_offline_hours) * 3_600_000
    }

    /// Detects time in which no peer could act: the machine slept, or somebody set the wall clock
    /// forward. A wrong date may be fixed soon. So the longer such a step is, the longer nothing
    /// expires after it.
    fn notice_lost_time(&mut self, now: Now) {
        let last = self.last_now;
        let slept_ms = now.slept_ms.saturating_sub(last.slept_ms);
        let passed_ms = now.mono_ms.saturating_sub(last.mono_ms).saturating_add(slept_ms);
        let step_ms = now.wall.ms_since(last.wall).saturating_sub(passed_ms);
        let grace_ms = match step_ms > CLOCK_DRIFT_MS {
            true => step_ms.clamp(EXPIRY_GRACE_MS, CLOCK_STEP_GRACE_MS),
            false if slept_ms > CLOCK_DRIFT_MS => EXPIRY_GRACE_MS,
            false => 0,
        };
        self.grace_until_ms = self.grace_until_ms.max(now.mono_ms.saturating_add(grace_ms));
        self.last_now = now;
    }
}
