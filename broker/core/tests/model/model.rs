//! The naive model: a flat list of letters, who is who, and what time and lost connections do.

use std::collections::{BTreeMap, BTreeSet};

use peer_core::broker::Config;
use peer_core::input::{ConnectionId, Now};
use peer_core::step::Effect;
use peer_proto::hook::Mode;
use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::EXPIRY_GRACE_MS;
use peer_proto::message::{Carrier, Intent, Stage};
use peer_proto::policy::Policy;
use peer_proto::request::{RequestId, Role, Send};

use crate::world::World;
use crate::*;

/// An open connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) program: usize,
    /// Whose session it is; for the person's terminal, the person.
    pub(crate) peer: Option<PeerId>,
    /// Of a peer's sessions the earliest takes its mail.
    pub(crate) since: u64,
    /// What the session said that it may do without asking.
    pub(crate) mode: Option<Mode>,
}

/// One message to one reader.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) from: PeerId,
    /// Sent by the person or the broker: under no policy.
    pub(crate) free: bool,
    pub(crate) notice: bool,
    pub(crate) answered: bool,
    /// It was held, and nobody let it go since.
    pub(crate) kept: bool,
    /// In which order letters were accepted.
    pub(crate) accepted: u64,
    /// `Stored` while it waits, `Held` while it waits for the person, else how it ended.
    pub(crate) stage: Stage,
    pub(crate) attempts: u32,
    /// Given to a carrier, without proof or return since.
    pub(crate) offered: bool,
    /// The carrier that it was given to last is a tool result.
    pub(crate) called_for: bool,
    /// A model may have been asked with it since it was stored or returned.
    pub(crate) tried: bool,
    /// Given to a carrier at any time.
    pub(crate) shown: bool,
    /// Its holder is told that another adapter of the client gave it to a carrier.
    pub(crate) told_as_repeat: bool,
    pub(crate) holder: Option<ConnectionId>,
    /// The present holder gave it to a carrier.
    pub(crate) offered_by_holder: bool,
    pub(crate) overdue_at_ms: Option<u64>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) text_bytes: usize,
}

impl Letter {
    pub(crate) fn waits(&self) -> bool {
        matches!(self.stage, Stage::Stored | Stage::Held)
    }

    pub(crate) fn held(&self) -> bool {
        self.stage == Stage::Held
    }

    pub(crate) fn release(&mut self) {
        self.holder = None;
        self.offered_by_holder = false;
        self.overdue_at_ms = None;
    }

    /// Of whether a model was asked with it, only the carrier is stored.
    pub(crate) fn forget_what_is_not_stored(&mut self) {
        self.tried = self.offered && self.called_for;
    }

    pub(crate) fn settle(&mut self, stage: Stage) {
        self.release();
        self.stage = stage;
    }

    /// A session ended with it offered.
    pub(crate) fn end_attempt(&mut self) {
        self.release();
        self.offered = false;
        self.attempts += u32::from(std::mem::take(&mut self.tried));
        if self.attempts >= ATTEMPTS_MAX {
            self.stage = Stage::Dead;
        }
    }
}

pub(crate) struct Model {
    pub(crate) world: World,
    pub(crate) lines: BTreeMap<ConnectionId, Line>,
    /// Connections that their program has given up, and whose end the broker has not seen.
    pub(crate) stale: Vec<ConnectionId>,
    pub(crate) letters: BTreeMap<(MessageId, PeerId), Letter>,
    pub(crate) messages: Vec<MessageId>,
    /// Answers that are owed, kept-back ones included, and whether they may reach for mail that is
    /// not the oldest.
    pub(crate) owed: BTreeMap<(ConnectionId, RequestId), bool>,
    pub(crate) keys: BTreeMap<(PeerId, String), (MessageId, Send)>,
    pub(crate) accepted: u64,
    /// Peers whose sessions a killed broker left behind, with their processes, which live: until
    /// the one with the token comes back.
    pub(crate) expected: BTreeMap<PeerId, u32>,
    pub(crate) last_now: Now,
    pub(crate) grace_until_ms: u64,
    /// What the person set, for all and for peers, and said yes to.
    pub(crate) default_policy: Option<Policy>,
    pub(crate) policies: BTreeMap<PeerId, Policy>,
    pub(crate) consent: bool,
    pub(crate) last_modes: BTreeMap<PeerId, Mode>,
    /// Provisional peers that became others, also after those were forgotten.
    pub(crate) heirs: BTreeMap<PeerId, PeerId>,
    pub(crate) begun: u64,
    /// Peers before the step.
    pub(crate) peers_before: BTreeMap<PeerId, Timestamp>,
    /// Letters that waited before the step.
    pub(crate) waited_before: BTreeSet<(MessageId, PeerId)>,
}

pub(crate) fn program_name(program: usize) -> String {
    ["a", "b", "c", "d", "boss", "shell"][program].to_owned()
}

impl Model {
    pub(crate) fn new() -> Self {
        let mut config = Config::default();
        for (key, value) in [
            ("sender_per_minute", 1_000_000),
            ("pair_per_minute", 1_000_000),
            ("thread_turns_max", 1_000_000),
            ("attempts_max", ATTEMPTS_MAX),
            ("pending_per_peer", PENDING_MAX),
        ] {
            assert!(config.limits.set(key, value));
        }
        let mut world = World::new(config);
        world.quiet = true;
        let now = world.now;
        let mut model = Self {
            world,
            lines: BTreeMap::new(),
            stale: Vec::new(),
            letters: BTreeMap::new(),
            messages: Vec::new(),
            owed: BTreeMap::new(),
            keys: BTreeMap::new(),
            accepted: 0,
            expected: BTreeMap::new(),
            last_now: now,
            grace_until_ms: now.mono_ms + EXPIRY_GRACE_MS,
            default_policy: None,
            policies: BTreeMap::new(),
            consent: false,
            last_modes: BTreeMap::new(),
            heirs: BTreeMap::new(),
            begun: 0,
            peers_before: BTreeMap::new(),
            waited_before: BTreeSet::new(),
        };
        model.open_terminals();
        model
    }

    pub(crate) fn open_terminals(&mut self) {
        self.connect(BOSS, Role::Operator, vec![9, 8, 1]);
        self.connect(SHELL, Role::Operator, vec![9, PIDS[2], 1]);
    }

    pub(crate) fn line(&self, program: usize) -> Option<ConnectionId> {
        let connection = self.world.programs.get(&program_name(program))?.connection;
        self.lines.contains_key(&connection).then_some(connection)
    }

    pub(crate) fn peer_of(&self, program: usize) -> Option<PeerId> {
        self.acts_as(*self.lines.get(&self.line(program)?)?)
    }

    pub(crate) fn sessions_of(&self, peer: PeerId) -> Vec<ConnectionId> {
        let sessions = self
            .lines
            .iter()
            .filter(|(_, line)| line.program < SESSIONS && line.peer == Some(peer));
        sessions.map(|(connection, _)| *connection).collect()
    }

    pub(crate) fn connect(&mut self, program: usize, role: Role, ancestors: Vec<u32>) {
        self.before();
        self.world.connect(&program_name(program), role, ancestors, None);
        let connection = self.world.programs[&program_name(program)].connection;
        let peer = (program == BOSS).then_some(PeerId::HUMAN);
        self.lines.insert(connection, Line { program, peer, since: 0, mode: None });
        let welcomed = matches!(self.world.effects.as_slice(), [Effect::Welcome { .. }]);
        assert!(welcomed, "a connection is welcomed: {:?}", self.world.effects);
        self.compare();
    }

    /// A program gives its connection up; the broker hears of it now, or later.
    pub(crate) fn leave(&mut self, program: usize, stale: bool) {
        match self.line(program) {
            Some(connection) if stale => self.stale.push(connection),
            Some(connection) => self.end(connection),
            None => {}
        }
    }

    pub(crate) fn end(&mut self, connection: ConnectionId) {
        self.before();
        self.world.input(peer_core::input::Input::Disconnected { connection });
        self.ended(connection, true);
        self.decided();
    }

    /// A session ended. What it had offered counts an attempt, unless the same session goes on
    /// elsewhere.
    pub(crate) fn ended(&mut self, connection: ConnectionId, counts: bool) {
        self.lines.remove(&connection);
        self.stale.retain(|stale| *stale != connection);
        self.owed.retain(|(waiting, _), _| *waiting != connection);
        for letter in self.letters.values_mut().filter(|letter| letter.holder == Some(connection)) {
            if counts && letter.offered { letter.end_attempt() } else { letter.release() }
        }
    }

    pub(crate) fn tick(&mut self) {
        while self.world.broker.poll_timeout(self.world.now) == Some(0) {
            self.before();
            assert!(self.world.tick());
            let (now, overdue) = (self.world.now, self.world.broker.poll_timeout(self.world.now));
            assert_ne!(overdue, Some(0), "a timeout was handled at {now:?} and is due again");
            self.take_in();
            self.timed_out();
            self.decided();
        }
        // Whatever is due has happened.
        let now = self.world.now;
        for (key, letter) in &self.letters {
            assert!(
                letter.overdue_at_ms.is_none_or(|at_ms| at_ms > now.mono_ms),
                "{key:?} is overdue and nobody was told"
            );
            let expired = letter.waits() && letter.expires_at.is_some_and(|at| at <= now.wall);
            assert!(
                !expired || now.mono_ms < self.grace_until_ms,
                "{key:?} did not expire: {letter:?}"
            );
        }
    }

    /// What only time may do: expire what is past its time, and forget who was away too long.
    pub(crate) fn timed_out(&mut self) {
        let (wall, mono_ms) = (self.world.now.wall, self.world.now.mono_ms);
        for (key @ (_, owner), letter) in &mut self.letters {
            let durable = self.world.disk.deliveries[key].stage;
            if !letter.waits() || durable.is_pending() {
                continue;
            }
            assert!(mono_ms >= self.grace_until_ms, "{key:?} ended within the grace time");
            if durable == Stage::Expired {
                assert!(
                    letter.expires_at.is_some_and(|at| at <= wall),
                    "{key:?} expired before its time"
                );
            } else {
                assert_eq!(durable, Stage::Dead, "time alone does not make {key:?} that");
                assert!(
                    !self.world.disk.peers.contains_key(owner),
                    "{key:?} is dead, and its reader is known"
                );
            }
            letter.settle(durable);
        }
        for (peer, last_seen) in &self.peers_before {
            if !self.world.disk.peers.contains_key(peer) {
                assert!(last_seen.plus_ms(FORGET_MS) <= wall, "{peer} was forgotten too early");
                assert!(
                    self.sessions_of(*peer).is_empty(),
                    "{peer} was forgotten while it was here"
                );
            }
        }
    }

    /// As whom a connection acts. An agent's shell acts as the agent, where only one stands above
    /// it; where none or several do, which are a launcher's, it cannot be told from the person.
    pub(crate) fn acts_as(&self, line: Line) -> Option<PeerId> {
        if line.program != SHELL {
            return line.peer;
        }
        let above = self
            .lines
            .values()
            .filter(|line| line.program < SESSIONS && PIDS[line.program] == PIDS[2]);
        let known = |peer: &PeerId| self.world.disk.peers.contains_key(peer);
        let expected = self
            .expected
            .iter()
            .filter(|(peer, pid)| **pid == PIDS[2] && known(peer))
            .map(|(peer, _)| *peer);
        let agents: BTreeSet<PeerId> = above.filter_map(|line| line.peer).chain(expected).collect();
        if agents.len() == 1 { agents.first().copied() } else { Some(PeerId::HUMAN) }
    }

    pub(crate) fn own<'a>(
        &'a mut self,
        peer: Option<PeerId>,
        messages: &'a [MessageId],
    ) -> impl Iterator<Item = &'a mut Letter> {
        let own = self.letters.iter_mut().filter(move |((_, owner), _)| Some(*owner) == peer);
        own.filter(move |((message, _), _)| messages.contains(message)).map(|(_, letter)| letter)
    }

    pub(crate) fn of(&mut self, message: MessageId) -> impl Iterator<Item = &mut Letter> {
        self.letters.iter_mut().filter(move |((id, _), _)| *id == message).map(|(_, letter)| letter)
    }

    // ---- who is who, and what the person lets them take

    /// The session that takes a peer's mail.
    pub(crate) fn reader(&self, peer: PeerId) -> Option<ConnectionId> {
        self.sessions_of(peer).into_iter().min_by_key(|connection| self.lines[connection].since)
    }

    pub(crate) fn heir_of(&self, peer: PeerId) -> PeerId {
        self.heirs.get(&peer).copied().unwrap_or(peer)
    }

    pub(crate) fn ids_of(&self, peer: PeerId) -> Vec<PeerId> {
        let merged =
            self.heirs.iter().filter(|(_, heir)| **heir == peer).map(|(former, _)| *former);
        std::iter::once(peer).chain(merged).collect()
    }

    /// The letter of this message that is the peer's, under whichever of its ids.
    pub(crate) fn own_letter(
        &self,
        peer: PeerId,
        message: MessageId,
    ) -> Option<(MessageId, PeerId)> {
        self.ids_of(peer)
            .into_iter()
            .map(|id| (message, id))
            .find(|key| self.letters.contains_key(key))
    }

    pub(crate) fn policy_of(&self, peer: PeerId) -> Policy {
        self.policies.get(&peer).copied().or(self.default_policy).unwrap_or_default()
    }

    pub(crate) fn escalates(&self, sender: PeerId, reader: PeerId) -> bool {
        let reported = |peer: PeerId| self.reader(peer).and_then(|reader| self.lines[&reader].mode);
        let sender = reported(sender).unwrap_or(Mode::Prompting);
        let known =
            self.last_modes.get(&reader).copied().unwrap_or(Mode::Prompting).max(Mode::Prompting);
        self.world.config.hold_escalation && sender < reported(reader).unwrap_or(known)
    }

    /// What has to become of a message at one recipient.
    pub(crate) fn ruling(
        &self,
        sender: PeerId,
        free: bool,
        recipient: PeerId,
        reply_to: Option<MessageId>,
    ) -> Policy {
        if free || recipient == PeerId::HUMAN || recipient == sender {
            return Policy::Accept;
        }
        let asked_for = reply_to.is_some_and(|original| {
            let head = &self.world.disk.messages[&original].head;
            let unanswered =
                self.own_letter(sender, original).is_some_and(|key| !self.letters[&key].answered);
            head.intent == Intent::Request
                && self.heir_of(head.from.peer) == recipient
                && unanswered
        });
        let policy = if asked_for { Policy::Accept } else { self.policy_of(recipient) };
        if self.escalates(sender, recipient) { policy.max(Policy::Hold) } else { policy }
    }
}

pub(crate) fn carrier(last: bool) -> Carrier {
    if last { Carrier::ToolResult } else { Carrier::Channel }
}

pub(crate) fn is_person(line: Line) -> bool {
    line.program >= BOSS && line.peer == Some(PeerId::HUMAN)
}

pub(crate) fn is_dead(letter: &Letter) -> bool {
    matches!(letter.stage, Stage::Dead | Stage::Expired)
}

pub(crate) fn revive(letter: &mut Letter) {
    letter.release();
    letter.stage = Stage::Stored;
    letter.attempts = 0;
    (letter.offered, letter.tried) = (false, false);
    letter.expires_at = None;
    letter.kept = false;
}
