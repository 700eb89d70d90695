//! What each answer of the core does to the letters, and which requests may be refused.

use std::collections::BTreeSet;

use peer_core::input::ConnectionId;
use peer_core::step::{Change, Effect, Query};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Carrier, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{Filter, Goodbye, Push, Reply, Request, Send, Sent};

use crate::model::*;
use crate::*;

impl Model {
    pub(crate) fn ask(&mut self, program: usize, request: Request) {
        let Some(known) = self.world.programs.get(&program_name(program)) else { return };
        let connection = known.connection;
        let line =
            self.lines.get(&connection).map(|line| Line { peer: self.acts_as(*line), ..*line });
        self.before();
        self.world.ask(&program_name(program), request.clone());
        let id = self.world.requests;
        let Some(line) = line else {
            assert!(
                self.world.effects.is_empty() && self.world.changes.is_empty(),
                "a closed connection asks for nothing"
            );
            return;
        };
        let filtered =
            matches!(&request, Request::Receive { filter, .. } if *filter != Filter::default());
        let answer = self.world.effects.iter().find_map(|effect| match effect {
            Effect::Reply { connection: to, id: of, result } if (*to, *of) == (connection, id) => {
                Some(result.clone())
            }
            _ => None,
        });
        match answer {
            Some(Ok(reply)) => self.granted(connection, line, &request, &reply),
            Some(Err(refusal)) => {
                assert!(
                    self.world.changes.is_empty(),
                    "{request:?} was refused and changed something: {refusal}"
                );
                self.refused(line, &request, refusal.code);
            }
            None => {
                let queried = self.world.effects.iter().find_map(|effect| match effect {
                    Effect::Query { connection: to, id: of, query }
                        if (*to, *of) == (connection, id) =>
                    {
                        Some(query)
                    }
                    _ => None,
                });
                match (queried, &request) {
                    (Some(Query::Text(message) | Query::Show(message)), _) => {
                        self.reads(line, *message)
                    }
                    (Some(Query::History { peer, actor, .. }), Request::History(_)) => {
                        let own = line.program >= BOSS
                            || line.peer.is_some_and(|mine| peer.contains(&mine));
                        assert!(own, "G6: {line:?} reads what {peer:?} said");
                        let reads_for = if actor.is_person() { None } else { actor.agent() };
                        let expected = line.peer.filter(|_| !is_person(line));
                        assert_eq!(reads_for, expected, "nobody reads what is held for them");
                    }
                    (None, Request::Receive { wait: true, .. }) => {}
                    other => panic!("G7: {request:?} has no answer but {other:?}"),
                }
            }
        }
        self.owed.insert((connection, id), filtered);
        self.decided();
        let waits = matches!(request, Request::Receive { wait: true, .. });
        assert!(
            waits || !self.owed.contains_key(&(connection, id)),
            "G7: {request:?} has no answer"
        );
    }

    /// Applies what a granted request is known to bring about.
    pub(crate) fn granted(
        &mut self,
        connection: ConnectionId,
        line: Line,
        request: &Request,
        reply: &Reply,
    ) {
        if let Reply::Registered(registered) = reply {
            self.expected.retain(|peer, _| self.world.disk.peers.contains_key(peer));
            let known = self.expected.contains_key(&registered.peer);
            if self.world.disk.peers[&registered.peer].token
                == Some(world::digest(registered.token))
            {
                self.expected.remove(&registered.peer);
                assert!(
                    !known
                        || matches!(request, Request::Register(register) if register.resume.is_some()),
                    "G6: {request:?}"
                );
            }
        }
        match (request, reply) {
            (Request::Register(register), Reply::Registered(registered)) => {
                // What a session had offered that is expected back is still its own.
                let is_expected = self.expected.contains_key(&registered.peer);
                if register.resume.is_none()
                    && !is_expected
                    && self.sessions_of(registered.peer).is_empty()
                {
                    self.forgotten_offers(registered.peer);
                }
                let resumed = register.resume.is_some();
                self.replaced(registered.peer);
                self.begun += 1;
                let since = self.begun;
                if resumed {
                    self.hand_over(registered.peer);
                }
                let mode = self.last_modes.get(&registered.peer).copied().filter(|_| resumed);
                self.lines
                    .insert(connection, Line { peer: Some(registered.peer), since, mode, ..line });
                assert_eq!(
                    registered.inbox_socket_in_bypass, self.consent,
                    "a session is told what the person said yes to"
                );
            }
            (Request::Bind(_), Reply::Registered(registered)) => {
                self.bound(connection, line, registered.peer)
            }
            (Request::Kick(_), Reply::Done) => {
                self.expected.retain(|peer, _| {
                    self.world
                        .disk
                        .peers
                        .get(peer)
                        .is_some_and(|record| record.client_pid.is_some())
                });
                for kicked in self.goodbyes(Goodbye::Kicked) {
                    self.ended(kicked, true);
                }
            }
            (Request::Send(send), Reply::Sent(sent)) => self.sent(line, send, sent),
            (Request::Offered { messages, carrier, last }, Reply::Done) => {
                let due_at_ms = self.world.now.mono_ms + 30_000;
                let overdue_at_ms = (!last).then_some(due_at_ms);
                for letter in self.own(line.peer, messages) {
                    if letter.waits() && letter.holder == Some(connection) {
                        (letter.offered, letter.shown, letter.offered_by_holder) =
                            (true, true, true);
                        letter.overdue_at_ms = overdue_at_ms;
                        letter.called_for = *carrier == Carrier::ToolResult;
                        letter.tried |= letter.called_for;
                    } else if letter.stage == Stage::Stored && !letter.shown {
                        // It went to another adapter of the client while the offer was on its way.
                        letter.shown = true;
                        letter.told_as_repeat = letter.holder.is_some();
                        letter.overdue_at_ms = letter.holder.and(Some(due_at_ms));
                    }
                }
            }
            (Request::Tried { messages }, Reply::Done) => {
                for letter in self.own(line.peer, messages) {
                    letter.tried |= letter.waits()
                        && letter.holder == Some(connection)
                        && letter.offered_by_holder;
                }
            }
            (Request::Presented { messages, .. }, Reply::Done) => {
                let person = is_person(line);
                assert!(person || line.program < SESSIONS, "G6: a shell settled an agent's mail");
                for letter in self.own(line.peer, messages) {
                    if letter.waits() && (letter.holder.is_some() || letter.offered || person) {
                        letter.settle(Stage::Presented);
                    }
                }
            }
            (Request::Ack { messages }, Reply::Acked { acked, unknown }) => {
                let peer = line.peer.expect("only a peer acknowledges");
                assert!(
                    is_person(line) || line.program < SESSIONS,
                    "G6: a shell settled an agent's mail"
                );
                for message in messages {
                    let known =
                        self.own_letter(peer, *message).is_some_and(|key| !self.letters[&key].kept);
                    assert_eq!(acked.contains(message), known, "{message} is acknowledged");
                    assert_eq!(unknown.contains(message), !known, "{message} is unknown");
                }
                for message in messages {
                    let letter =
                        self.own_letter(peer, *message).and_then(|key| self.letters.get_mut(&key));
                    let open = |letter: &&mut Letter| {
                        !letter.kept && matches!(letter.stage, Stage::Stored | Stage::Dead)
                    };
                    if let Some(letter) = letter.filter(open) {
                        letter.settle(Stage::Presented);
                    }
                }
            }
            (Request::Nack { messages }, Reply::Done) => {
                for letter in self.own(line.peer, messages) {
                    letter.release();
                    (letter.offered, letter.tried) = (false, false);
                }
            }
            (Request::Cancel(message), Reply::Settled { .. }) => {
                let sender = self.world.disk.messages[message].head.from.peer;
                let own = line.peer.is_some_and(|peer| self.ids_of(peer).contains(&sender));
                assert!(line.program >= BOSS || own, "G6: {message} was withdrawn by {line:?}");
                self.of(*message)
                    .filter(|letter| letter.waits())
                    .for_each(|letter| letter.settle(Stage::Cancelled));
            }
            (Request::Requeue(message), Reply::Settled { .. }) => {
                assert!(is_person(line), "G6: {message} was requeued by {line:?}");
                self.of(*message).filter(|letter| is_dead(letter)).for_each(revive);
            }
            (Request::Drop(message), Reply::Settled { .. }) => {
                assert!(is_person(line), "G6: {message} was dropped by {line:?}");
                self.of(*message)
                    .filter(|letter| is_dead(letter))
                    .for_each(|letter| letter.settle(Stage::Dropped));
            }
            (Request::Reassign { message, .. }, Reply::Settled { .. }) => {
                assert!(is_person(line), "G6: {message} was reassigned by {line:?}");
                self.reassigned(*message);
            }
            (Request::Release { message, .. }, Reply::Settled { .. }) => {
                assert!(is_person(line), "G6: {message} was released by {line:?}");
                assert!(
                    self.of(*message).any(|letter| letter.held()),
                    "{message} was released and was not held"
                );
                self.of(*message).filter(|letter| letter.held()).for_each(|letter| {
                    (letter.stage, letter.kept) = (Stage::Stored, false);
                });
            }
            (Request::SetPolicy { peer, policy }, Reply::Policies(policies)) => {
                assert!(is_person(line), "G6: a policy was set by {line:?}");
                match peer.as_ref().map(|peer| self.heir_of(peer.parse().expect("an id"))) {
                    None => self.default_policy = *policy,
                    Some(peer) => {
                        let _ = self.policies.remove(&peer);
                        self.policies.extend(policy.map(|policy| (peer, policy)));
                    }
                }
                assert_eq!(policies.default, self.default_policy.unwrap_or_default());
                let own = self
                    .policies
                    .iter()
                    .filter(|(peer, _)| self.world.disk.peers.contains_key(peer));
                let mut own: Vec<_> = own
                    .map(|(peer, policy)| (self.world.disk.peers[peer].name.clone(), *policy))
                    .collect();
                own.sort();
                assert_eq!(policies.peers, own, "the policies in force");
            }
            (Request::SetConsent { inbox_socket_in_bypass }, Reply::Policies(_)) => {
                assert!(is_person(line), "G6: {line:?} said yes for the person");
                let told = self.world.effects.iter().filter_map(|effect| match effect {
                    Effect::Push {
                        connection,
                        push: Push::Consent { inbox_socket_in_bypass: told },
                    } => {
                        assert_eq!(told, inbox_socket_in_bypass);
                        Some(*connection)
                    }
                    _ => None,
                });
                let told: BTreeSet<ConnectionId> = told.collect();
                let news = self.consent != *inbox_socket_in_bypass;
                let sessions = self
                    .lines
                    .iter()
                    .filter(|(_, line)| news && line.program < SESSIONS && line.peer.is_some());
                assert_eq!(
                    told,
                    sessions.map(|(connection, _)| *connection).collect(),
                    "every session hears of it"
                );
                self.consent = *inbox_socket_in_bypass;
            }
            (Request::Report(report), Reply::Done) => {
                let mode = report.mode.expect("a mode is reported");
                self.last_modes.insert(line.peer.expect("a session reports"), mode);
                self.lines.get_mut(&connection).expect("it is there").mode = Some(mode);
            }
            (Request::Receive { .. }, Reply::Received(_))
            | (Request::StopWaiting(_), Reply::Done)
            | (Request::Rename { .. }, Reply::Renamed { .. }) => {}
            (Request::Inbox { .. }, Reply::Inbox { entries, .. }) => {
                let own = |peer: PeerId| Some(peer) == line.peer;
                assert!(entries.iter().all(|entry| own(entry.peer)), "G6: an inbox is its owner's");
                let held = entries.iter().any(|entry| entry.stage == Stage::Held);
                assert!(line.program >= BOSS || !held, "{line:?} hears of what is held");
            }
            other => panic!("an answer to something else: {other:?}"),
        }
    }

    pub(crate) fn refused(&self, line: Line, request: &Request, code: ErrorCode) {
        if line.peer.is_none()
            && line.program < SESSIONS
            && !matches!(request, Request::Register(_))
        {
            assert_eq!(
                code,
                ErrorCode::OutOfOrder,
                "a connection that is nobody's session asked {request:?}"
            );
        }
        if let (Request::Kick(peer), ErrorCode::TooLate) = (request, code) {
            let sessions = peer.parse().map(|peer| self.sessions_of(peer));
            assert!(
                sessions.is_ok_and(|sessions| sessions.is_empty()),
                "{peer} is online, and was not kicked"
            );
        }
        if let Request::Release { message, .. } = request {
            let held = self.letters.iter().any(|((id, _), letter)| id == message && letter.held());
            assert!(
                !held || !is_person(line),
                "{message} is held, and the person could not release it: {code}"
            );
        }
        if let Request::Send(send) = request
            && let Some(key) = line.peer.zip(send.idempotency_key.clone())
            && let Some((first, before)) = self.keys.get(&key)
        {
            // A name may have come to mean somebody else; an id does not.
            let ids = send.to.iter().all(|to| to.parse::<PeerId>().is_ok());
            assert!(!ids || before != send, "G5: {send:?} is {first}, and was refused with {code}");
        }
    }

    pub(crate) fn goodbyes(&self, why: Goodbye) -> Vec<ConnectionId> {
        let goodbyes = self.world.effects.iter().filter_map(|effect| match effect {
            Effect::Push { connection, push: Push::Goodbye(goodbye) } if *goodbye == why => {
                Some(*connection)
            }
            _ => None,
        });
        goodbyes.collect()
    }

    /// A session that resumes takes the place of the connection that it had before, if that took
    /// the mail.
    pub(crate) fn replaced(&mut self, peer: PeerId) {
        for replaced in self.goodbyes(Goodbye::Replaced) {
            assert!(
                self.sessions_of(peer).contains(&replaced),
                "only a session of the same peer is replaced"
            );
            self.ended(replaced, false);
        }
    }

    /// Whoever resumes takes the mail before other adapters of its client, which hand back what
    /// they hold.
    pub(crate) fn hand_over(&mut self, peer: PeerId) {
        let mut others = self.sessions_of(peer);
        others.sort_by_key(|connection| self.lines[connection].since);
        for connection in others {
            self.begun += 1;
            self.lines.get_mut(&connection).expect("a session's line").since = self.begun;
            self.letters
                .values_mut()
                .filter(|letter| letter.holder == Some(connection))
                .for_each(Letter::release);
        }
    }

    /// A peer's first session since the broker started finds what an earlier one had offered.
    pub(crate) fn forgotten_offers(&mut self, peer: PeerId) {
        for ((_, owner), letter) in &mut self.letters {
            if *owner == peer && letter.waits() && letter.offered && letter.holder.is_none() {
                letter.end_attempt();
            }
        }
    }

    pub(crate) fn bound(&mut self, connection: ConnectionId, line: Line, peer: PeerId) {
        let before = line.peer.expect("only a session binds");
        if before == peer {
            return;
        }
        for letter in self.letters.values_mut().filter(|letter| letter.holder == Some(connection)) {
            letter.release();
        }
        // One that is expected back with its token has not ended: this session shares its peer.
        if self.sessions_of(peer).is_empty() && !self.expected.contains_key(&peer) {
            self.forgotten_offers(peer);
        }
        let (policy, moved) = (self.policy_of(peer), !self.world.disk.peers.contains_key(&before));
        if moved {
            self.moved(before, peer, policy);
        }
        self.begun += 1;
        self.lines.insert(connection, Line { peer: Some(peer), since: self.begun, ..line });
        self.last_modes.extend(line.mode.map(|mode| (peer, mode)));
        if moved {
            self.heirs.insert(before, peer);
            let stricter = self.policies.get(&peer).max(self.policies.get(&before)).copied();
            self.policies.extend(stricter.map(|policy| (peer, policy)));
        }
    }

    /// A provisional peer became another one.
    pub(crate) fn moved(&mut self, before: PeerId, peer: PeerId, policy: Policy) {
        // The provisional peer's waiting mail went with it. One letter is enough for one reader.
        let moved: Vec<MessageId> = self
            .letters
            .iter()
            .filter(|((_, owner), letter)| *owner == before && letter.waits())
            .map(|((message, _), _)| *message)
            .collect();
        for message in moved {
            let mut letter = self.letters.remove(&(message, before)).expect("it was just seen");
            letter.forget_what_is_not_stored();
            let subject = !letter.free && ![before, peer].contains(&letter.from) && !letter.shown;
            let held = subject && (policy != Policy::Accept || self.escalates(letter.from, peer));
            let first = !self.letters.get(&(message, peer)).is_some_and(Letter::waits);
            if held && first {
                (letter.stage, letter.kept) = (Stage::Held, true);
            }
            let kept = self.letters.entry((message, peer)).or_insert_with(|| letter.clone());
            let shown = kept.shown || letter.shown;
            if !kept.waits() && kept.stage != Stage::Presented {
                *kept = letter;
            }
            kept.shown = shown;
        }
    }

    pub(crate) fn reassigned(&mut self, message: MessageId) {
        let dead: Vec<PeerId> = self
            .letters
            .iter()
            .filter(|((id, _), letter)| *id == message && is_dead(letter))
            .map(|((_, owner), _)| *owner)
            .collect();
        let heir = self.world.changes.iter().find_map(|change| match change {
            Change::PutDelivery { record, .. }
                if record.message == message && record.stage == Stage::Stored =>
            {
                Some(record.peer)
            }
            _ => None,
        });
        let heir = heir.expect("a reassigned letter has an heir");
        let first = if dead.contains(&heir) { heir } else { dead[0] };
        for owner in dead {
            if owner == first {
                let mut letter = self.letters.remove(&(message, owner)).expect("it was just seen");
                revive(&mut letter);
                let before = self.letters.insert((message, heir), letter);
                assert!(before.is_none(), "{message} waits for {heir} twice");
            } else {
                self.letters
                    .get_mut(&(message, owner))
                    .expect("it was just seen")
                    .settle(Stage::Dropped);
            }
        }
    }

    pub(crate) fn sent(&mut self, line: Line, send: &Send, sent: &Sent) {
        let head = self.world.disk.messages[&sent.message].head.clone();
        let via = if is_person(line) {
            Via::Person
        } else if line.program == SHELL {
            Via::Shell
        } else {
            Via::Session
        };
        assert_eq!(Some(head.from.peer), line.peer, "G6: the broker stamps the sender");
        assert!(sent.deduplicated || head.from.via == via, "G6: the broker stamps the door");
        let key = send.idempotency_key.clone().map(|key| (head.from.peer, key));
        if sent.deduplicated {
            let first = key.and_then(|key| self.keys.get(&key)).map(|(message, _)| *message);
            assert_eq!(first, Some(sent.message), "G5: a repeat gets the first outcome");
            assert!(self.world.changes.is_empty(), "G5: a repeat stores nothing");
            return;
        }
        if let Some(key) = key {
            let before = self.keys.insert(key, (sent.message, send.clone()));
            assert!(before.is_none(), "G5: {send:?} was stored before, as {before:?}");
        }
        for delivery in &sent.deliveries {
            let refused = delivery.refusal.as_ref().map(|refusal| refusal.code);
            let ruling = self.ruling(head.from.peer, is_person(line), delivery.peer, send.reply_to);
            let expected = match ruling {
                Policy::Accept => Some(Stage::Stored),
                Policy::Hold => Some(Stage::Held),
                Policy::Refuse => None,
            };
            match refused {
                Some(code) => assert_eq!(
                    code == ErrorCode::RefusedByPolicy,
                    ruling == Policy::Refuse,
                    "{delivery:?}"
                ),
                None => assert_eq!(delivery.stage, expected, "{delivery:?}"),
            }
        }
        let accepted: BTreeSet<PeerId> = sent
            .deliveries
            .iter()
            .filter(|delivery| delivery.refusal.is_none())
            .map(|delivery| delivery.peer)
            .collect();
        let stored: BTreeSet<PeerId> = self
            .world
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::PutDelivery { record, was: None } if record.message == sent.message => {
                    Some(record.peer)
                }
                _ => None,
            })
            .collect();
        assert_eq!(accepted, stored, "what the sender was told is what was stored");
        // A reply proves that its sender read what it answers.
        if let Some(key) =
            send.reply_to.and_then(|original| self.own_letter(head.from.peer, original))
            && let Some(letter) = self.letters.get_mut(&key).filter(|letter| !letter.kept)
        {
            letter.answered = true;
            if letter.waits() || letter.stage == Stage::Dead {
                letter.settle(Stage::Presented);
            }
        }
    }

    pub(crate) fn reads(&self, line: Line, message: MessageId) {
        let from = self.heir_of(self.world.disk.messages[&message].head.from.peer);
        let concerns = |peer: PeerId| peer == from || self.own_letter(peer, message).is_some();
        assert!(
            line.program >= BOSS || line.peer.is_some_and(concerns),
            "G6: {line:?} reads {message}"
        );
        let held = |peer: PeerId| {
            self.own_letter(peer, message).is_some_and(|key| self.letters[&key].kept)
        };
        assert!(
            is_person(line) || line.peer == Some(from) || !line.peer.is_some_and(held),
            "{line:?} reads {message}, which is held"
        );
        let held_for_others =
            self.letters.iter().any(|((of, _), letter)| *of == message && letter.kept);
        let has_got_it = line.peer.is_some_and(|peer| self.own_letter(peer, message).is_some());
        assert!(
            is_person(line) || line.peer == Some(from) || has_got_it || !held_for_others,
            "{line:?} reads {message}, which is held for others"
        );
    }
}
