//! How sessions come and go: registration, binding to a seat, names, and the end.

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::{KEPT_FROM_ROOM_MS, NAME_CHARS_MAX, PATH_BYTES_MAX, PEERS_MAX, SEAT_KEY_BYTES_MAX, SUMMARY_BYTES_MAX};
use peer_proto::message::{Cause, Stage};
use peer_proto::request::{EventKind, Goodbye, Push, Register, Registered, Reply, Role, Seat, SeatKind};
use peer_proto::text::named;

use crate::broker::Broker;
use crate::claim::{Asker, Conflict, Found, Standing};
use crate::delivery::Transition;
use crate::input::{ConnectionId, Facts, Now};
use crate::lease::delivery_to;
use crate::mailbox::Entry;
use crate::presence::{Host, Session, add_alias, add_former, add_seat, check_name, rename};
use crate::record::{PeerRecord, Process};
use crate::rejection::Rejection;
use crate::step::{Change, Effect, Step};
use crate::who::{Actor, Caller};

/// How a session begins.
struct Beginning {
    peer: PeerId,
    host: Host,
    notice: Option<String>,
    /// It takes the mail before other adapters of its client.
    takes_over: bool,
    /// It holds the token that resumes the session.
    holds_token: bool,
}

impl Broker {
    pub(crate) fn register(
        &mut self,
        now: Now,
        caller: Caller,
        register: Register,
        facts: &Facts,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let Some(open) = self.presence.connections.get(&caller.connection) else { return Ok(()) };
        if open.session.is_some() {
            return Err(Rejection::AlreadyRegistered);
        }
        if open.role != Role::Adapter {
            return Err(Rejection::NotPermitted { act: "registering as a peer" });
        }
        check_register(&register)?;
        let host = self.host_of(caller.connection, register.client_pid);
        if let Some(resume) = &register.resume {
            let known = self.presence.get(resume.peer).and_then(|record| record.token);
            if known.is_none() || known != facts.resume_digest {
                return Err(Rejection::BadToken);
            }
            let peer = resume.peer;
            let takes_over = self.make_way(now, peer, host, step);
            let notice = self.presence.give_up(peer).and_then(|absent| absent.notice);
            let beginning = Beginning { peer, host, notice, takes_over, holds_token: true };
            return self.begin_session(now, caller, beginning, &register, facts, step);
        }
        let (found, conflict) = self.find_peer(&register, host, facts);
        let (peer, shared) = match found {
            Found::Free(peer) => (peer, false),
            Found::Shared(peer) => (peer, true),
            Found::Nobody(name) => {
                // The program that connected, and what started it.
                let ancestors = self.presence.connections.get(&caller.connection).map(|open| open.ancestors.as_slice());
                let processes: Vec<Process> = ancestors.unwrap_or_default().iter().take(2).copied().collect();
                self.quota.check_newcomer(now.mono_ms, &processes)?;
                let peer = self.new_peer(now, name, facts, step)?;
                self.quota.count_newcomer(now.mono_ms, &processes);
                (peer, false)
            }
        };
        let notice = match conflict {
            _ if shared && self.presence.is_online(peer) => {
                Some("another adapter of this client takes this peer's mail; this one only serves tools".to_owned())
            }
            _ if shared => None,
            Some(Conflict::Taken(owner)) => {
                let (owner_name, new_name) = (self.name_of(owner), self.name_of(peer));
                let text =
                    format!("another session asked to be {owner_name}; it is {new_name} now, and {owner_name} stays yours");
                self.tell_owner(owner, &text, step);
                Some(if self.presence.is_online(owner) {
                    format!("{owner_name} is live in another session: this one is {new_name}")
                } else {
                    format!("{owner_name} is another session's, which is expected back: this one is {new_name}")
                })
            }
            Some(Conflict::Alias(owner)) => {
                let (asked, owner_name) = (register.name.as_deref().unwrap_or(""), self.name_of(owner));
                Some(format!("{asked} is an earlier name of {owner_name}: this session is {}", self.name_of(peer)))
            }
            None => None,
        };
        if !shared {
            self.end_sessions_of_the_dead(now, peer, step);
            // Sessions of an earlier process ended without a word, such as in a crash of the machine: what they had offered
            // counts as their attempt.
            self.count_forgotten_offers(now, peer, step);
        }
        let beginning = Beginning { peer, host, notice, takes_over: false, holds_token: !shared };
        self.begin_session(now, caller, beginning, &register, facts, step)
    }

    fn new_peer(&mut self, now: Now, name: Option<String>, facts: &Facts, step: &mut Step) -> Result<PeerId, Rejection> {
        if self.presence.len() >= PEERS_MAX {
            // The one that was away longest, and nothing of the person's or of others' goes with it.
            let long_ago = |(at, _): &(Timestamp, PeerId)| at.plus_ms(KEPT_FROM_ROOM_MS) <= now.wall;
            let unused = self.presence.offline().take_while(long_ago).map(|(_, peer)| peer).find(|peer| self.is_unused(*peer));
            match unused {
                Some(peer) => self.forget_peer(now, peer, step),
                None => return Err(Rejection::TooManyPeers { peers: self.presence.len() }),
            }
        }
        let id = self.next_peer;
        self.next_peer = PeerId(id.0 + 1);
        let provisional = name.is_none();
        let name = name.unwrap_or_else(|| self.presence.friendly_name(facts.entropy));
        let seats = if provisional { Vec::new() } else { vec![Seat { kind: SeatKind::Name, key: name.clone() }] };
        let record = PeerRecord { seats, provisional, ..PeerRecord::new(id, name, now.wall) };
        step.change(Change::PutNextPeer(self.next_peer));
        self.presence.put(record);
        Ok(id)
    }

    /// Whether nothing is lost with a peer: no mail, no policy, no pause, no place in a channel, and no session that is
    /// expected back.
    fn is_unused(&self, peer: PeerId) -> bool {
        let has_policy = self.presence.get(peer).is_some_and(|record| record.policy.is_some());
        let is_paused = self.pauses.peers.iter().any(|paused| self.is_same(peer, *paused));
        let is_member = self.channels.of(peer).next().is_some();
        !has_policy && !is_paused && !is_member && self.mailbox(peer).is_none() && self.presence.absent(peer).is_none()
    }

    fn begin_session(
        &mut self,
        now: Now,
        caller: Caller,
        beginning: Beginning,
        register: &Register,
        facts: &Facts,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let Beginning { peer, host, notice, takes_over, holds_token } = beginning;
        let (Some(mut record), Some((token, digest))) = (self.presence.get(peer).cloned(), facts.token) else {
            return Err(Rejection::BadToken);
        };
        let came_online = !self.presence.is_online(peer);
        record.client.clone_from(&register.client);
        record.client_version.clone_from(&register.client_version);
        record.cwd.clone_from(&register.cwd);
        record.git_root.clone_from(&register.git_root);
        record.repo.clone_from(&register.repo);
        record.host.clone_from(&register.host);
        record.last_seen = now.wall;
        // A second adapter shares the session; the first keeps the token that resumes it.
        if holds_token {
            set_host(&mut record, host);
        }
        let token = match &register.resume {
            Some(resume) => resume.token,
            None if holds_token => {
                record.token = Some(digest);
                token
            }
            None => token,
        };
        if let Some(name) = register.name.as_ref().filter(|_| came_online && register.resume.is_none()) {
            // The name asked for finds this mailbox again, whatever an operator calls the peer; a suffixed one keeps its own.
            let seat = Seat { kind: SeatKind::Name, key: name.clone() };
            if self.presence.by_seat(&seat).is_none() && record.name.eq_ignore_ascii_case(name) {
                add_seat(&mut record, seat);
            }
        }
        let free = |seat: &Seat| self.presence.by_seat(seat).is_none() && !self.is_name_of_another(seat, peer);
        if let Some(seat) = register.seat.clone().filter(free) {
            add_seat(&mut record, seat);
        }
        self.update_peer(record.clone(), step);
        // Whoever resumes is the same session, and does what it did.
        let mode = if register.resume.is_some() { record.mode } else { None };
        self.presence.attach(caller.connection, Session { mode, holds_token, ..Session::new(peer, host) }, takes_over);
        step.reply(caller.connection, caller.id, self.registered(peer, caller.connection, token, notice));
        if came_online {
            self.tell_peer(EventKind::PeerOnline, now.wall, &record, None, None, step);
        }
        self.pump(now, peer, step);
        Ok(())
    }

    fn registered(&self, peer: PeerId, connection: ConnectionId, token: peer_proto::ids::Token, notice: Option<String>) -> Reply {
        Reply::Registered(Registered {
            peer,
            name: self.name_of(peer),
            token,
            takes_mail: self.presence.reader(peer) == Some(connection),
            notice,
            waiting: self.mailbox(peer).map_or(0, |mailbox| (mailbox.len() - mailbox.held()) as u64),
            inbox_socket_in_bypass: self.settings.inbox_socket_in_bypass,
        })
    }

    /// Makes way for the adapter that holds the token. The connection that it had before ends: its client is the same, so
    /// nothing counts as an attempt. Other adapters of that client stay, and hand the mail back. Says whether the adapter
    /// takes the mail now.
    fn make_way(&mut self, now: Now, peer: PeerId, host: Host, step: &mut Step) -> bool {
        let holder = |connection: &&ConnectionId| self.presence.session(**connection).is_some_and(|session| session.holds_token);
        let held = self.presence.sessions_of(peer).iter().find(holder).copied();
        if let Some(connection) = held {
            let same = self.presence.session(connection).is_some_and(|session| session.host.has_client_of(&host));
            if !same {
                return false;
            }
            self.hand_back(now, peer, connection, step);
            self.presence.detach(connection, now.wall);
            self.presence.hang_up(connection);
            self.hooks.hang_up(connection, step);
            step.push(connection, Push::Goodbye(Goodbye::Replaced));
            step.effects.push(Effect::Close { connection });
        }
        if let Some(reader) = self.presence.reader(peer) {
            for message in self.hand_back(now, peer, reader, step) {
                step.push(reader, Push::Withdrawn { message, stage: Stage::Stored });
            }
        }
        true
    }

    /// Takes back what a connection holds, and says what that is; its session goes on elsewhere.
    fn hand_back(&mut self, now: Now, peer: PeerId, connection: ConnectionId, step: &mut Step) -> Vec<MessageId> {
        let held = self.mailboxes.messages(peer, |entry| entry.lease.is_some_and(|lease| lease.holder == connection));
        for message in &held {
            self.advance(now, peer, *message, &[Transition::Unlease], None, step);
        }
        held
    }

    /// What stands as offered though no session holds it was offered by a session that ended while no broker watched.
    fn count_forgotten_offers(&mut self, now: Now, peer: PeerId, step: &mut Step) {
        let is_orphaned = |entry: &Entry| entry.lease.is_none() && entry.record.stage == Stage::Offered;
        let offered = self.mailboxes.messages(peer, is_orphaned);
        self.count_attempts(now, peer, offered, step);
    }

    /// The client told the session which seat it sits on.
    pub(crate) fn bind(&mut self, now: Now, caller: Caller, seat: Seat, facts: &Facts, step: &mut Step) -> Result<(), Rejection> {
        let mine = self.session_peer(caller)?;
        check_seat(&seat)?;
        let Some(record) = self.presence.get(mine).cloned() else { return Err(Rejection::NotRegistered) };
        let Some(session) = self.presence.session(caller.connection) else { return Err(Rejection::NotRegistered) };
        let host = session.host;
        let Some((token, digest)) = facts.token else { return Err(Rejection::BadToken) };
        let owner = match self.presence.by_seat(&seat) {
            None if self.is_name_of_another(&seat, mine) => return Err(Rejection::NameTaken { name: seat.key }),
            None => {
                let mut record = record;
                add_seat(&mut record, seat);
                return self.stay(now, caller, record, (token, digest), None, step);
            }
            Some(owner) if owner == mine => return self.stay(now, caller, record, (token, digest), None, step),
            Some(owner) => owner,
        };
        let standing = self.standing(owner, Asker { host, seat: Some(&seat), ended: &facts.ended });
        if standing == Standing::Taken {
            let (owner_name, my_name) = (self.name_of(owner), record.name.clone());
            let text =
                format!("another process claims the session of {owner_name}; it is {my_name}, and {owner_name} stays yours");
            self.tell_owner(owner, &text, step);
            let notice = if self.presence.is_online(owner) {
                format!("this client session is live as {owner_name} in another process: this one stays {my_name}")
            } else {
                format!("this client session is {owner_name}'s, which is expected back: this one stays {my_name}")
            };
            return self.stay(now, caller, record, (token, digest), Some(notice), step);
        }
        let holds_token = standing == Standing::Free;
        if holds_token {
            self.end_sessions_of_the_dead(now, owner, step);
        }
        // The session moves to the peer that the seat belongs to. A provisional peer goes with it, mail and name.
        let handed_back = self.hand_back(now, mine, caller.connection, step);
        let session = self.presence.detach(caller.connection, now.wall).unwrap_or_else(|| Session::new(mine, host));
        let Some(mut adopted) = self.presence.get(owner).cloned() else { return Err(Rejection::NotRegistered) };
        let came_online = !self.presence.is_online(owner);
        if holds_token {
            // Before the mail moves: what this session itself had offered is not a lost session's.
            self.count_forgotten_offers(now, owner, step);
        }
        let came_along = record.provisional && !self.presence.is_online(mine);
        if came_along {
            self.move_mail(now, mine, owner, facts, step);
            self.presence.remove(mine);
            step.change(Change::RemovePeer(mine));
            self.quota.forget(mine);
            add_alias(&mut adopted, record.name.clone());
            add_former(&mut adopted, mine);
            // What the person set for either holds; the stricter word where they set both.
            adopted.policy = adopted.policy.max(record.policy);
        } else {
            for message in &handed_back {
                step.push(caller.connection, Push::Withdrawn { message: *message, stage: Stage::Stored });
            }
            self.leave_peer(now, mine, step);
        }
        if holds_token {
            adopted.token = Some(digest);
            set_host(&mut adopted, host);
        }
        adopted.client.clone_from(&record.client);
        adopted.client_version.clone_from(&record.client_version);
        adopted.cwd.clone_from(&record.cwd);
        adopted.git_root.clone_from(&record.git_root);
        adopted.repo.clone_from(&record.repo);
        adopted.host.clone_from(&record.host);
        adopted.last_seen = now.wall;
        adopted.mode = session.mode.or(adopted.mode);
        self.update_peer(adopted.clone(), step);
        if came_along {
            self.move_tasks(mine, owner, step);
            self.move_memberships(mine, owner, step);
        }
        self.presence.attach(caller.connection, Session { peer: owner, holds_token, ..session }, false);
        step.reply(caller.connection, caller.id, self.registered(owner, caller.connection, token, None));
        if came_online {
            self.tell_peer(EventKind::PeerOnline, now.wall, &adopted, None, None, step);
        }
        self.pump(now, owner, step);
        for message in handed_back {
            // What stayed behind was withdrawn before; this came along and waits for the person now, or was read there.
            let stage = self.mailboxes.get(owner, message).map(|entry| entry.record.stage);
            if came_along && stage.is_none_or(|stage| stage == Stage::Held) {
                step.push(caller.connection, Push::Withdrawn { message, stage: stage.unwrap_or(Stage::Presented) });
            }
        }
        self.review_waits(now, owner, caller.connection, step);
        Ok(())
    }

    /// A session of this peer is gone: another adapter of the same client goes on with the mail, or the peer is offline.
    fn leave_peer(&mut self, now: Now, peer: PeerId, step: &mut Step) {
        if let Some(reader) = self.presence.reader(peer) {
            self.pump(now, peer, step);
            self.review_waits(now, peer, reader, step);
        } else if let Some(record) = self.presence.get(peer).cloned() {
            step.change(Change::PutPeer(Box::new(record.clone())));
            self.tell_peer(EventKind::PeerOffline, now.wall, &record, None, None, step);
            self.release_tasks(now, peer, false, step);
            self.tell_askers(now, peer, step);
        }
    }

    /// Whether a seat of a chosen name would lead to somebody else than the name itself does.
    fn is_name_of_another(&self, seat: &Seat, peer: PeerId) -> bool {
        seat.kind == SeatKind::Name && self.presence.by_name(&seat.key).is_some_and(|owner| owner != peer)
    }

    /// What a `Bind` to this seat would move to another peer.
    pub(crate) fn mail_to_move(&self, connection: ConnectionId, seat: &Seat) -> Vec<MessageId> {
        let mine = self.presence.session(connection).and_then(|session| self.presence.get(session.peer));
        let Some(mine) = mine.filter(|mine| mine.provisional && self.presence.by_seat(seat).is_some()) else { return Vec::new() };
        self.mailboxes.messages(mine.id, |_| true)
    }

    /// Binding changed nothing about who the session is.
    fn stay(
        &mut self,
        now: Now,
        caller: Caller,
        mut record: PeerRecord,
        (token, digest): (peer_proto::ids::Token, crate::record::TokenDigest),
        notice: Option<String>,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let peer = record.id;
        if self.presence.session(caller.connection).is_some_and(|session| session.holds_token) {
            record.token = Some(digest);
        }
        record.last_seen = now.wall;
        self.update_peer(record, step);
        step.reply(caller.connection, caller.id, self.registered(peer, caller.connection, token, notice));
        Ok(())
    }

    /// Gives all pending mail of one peer to another, in one step.
    fn move_mail(&mut self, now: Now, from: PeerId, to: PeerId, facts: &Facts, step: &mut Step) {
        for message in self.mailboxes.messages(from, |_| true) {
            let Some(entry) = self.mailboxes.remove(from, message) else { continue };
            self.remove_delivery(&entry.record, step);
            // A message to both waits in the other mailbox already, or was read there: once is enough.
            let known = facts.stored.get(&message).and_then(|stored| delivery_to(&stored.deliveries, to));
            if self.mailboxes.get(to, message).is_some() {
                if entry.shown_before() {
                    self.note_shown(to, message, &entry.record, step);
                }
                continue;
            }
            if known.is_some_and(|known| known.stage == Stage::Presented) {
                continue;
            }
            // What waited when it was looked up and waits no more became a dead letter in this very step.
            let was = known.map(|known| if known.stage.is_pending() { Stage::Dead } else { known.stage });
            let mut record = entry.record;
            if let Some(known) = known {
                record.note_shown(known);
            }
            self.apply(now, &mut record, Transition::Bind(to), step);
            let own = [from, to].contains(&record.brief.from);
            let unseen = record.stage == Stage::Stored && !record.was_offered();
            if unseen && !own && self.holds_moved(record.brief.from, record.brief.via, to) {
                self.apply(now, &mut record, Transition::Hold, step);
            }
            self.put_delivery(&record, was, step);
            self.mailboxes.insert(Entry::new(record));
        }
    }

    pub(crate) fn describe(
        &mut self,
        now: Now,
        caller: Caller,
        summary: Option<String>,
        state: Option<String>,
        task: Option<String>,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        for (what, text) in [("the summary", &summary), ("the state", &state), ("the task", &task)] {
            check_length(what, text.as_deref().unwrap_or(""), SUMMARY_BYTES_MAX)?;
        }
        let Some(mut record) = self.presence.get(peer).cloned() else { return Err(Rejection::NotRegistered) };
        let before = record.clone();
        record.summary = summary.unwrap_or(record.summary);
        record.state = state.unwrap_or(record.state);
        record.task = task.unwrap_or(record.task);
        let news = [
            ("state", &before.state, &record.state),
            ("task", &before.task, &record.task),
            ("summary", &before.summary, &record.summary),
        ]
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(what, _, after)| format!("{what}: {}", named(after)));
        let news = news.collect::<Vec<_>>().join(", ");
        self.update_peer(record.clone(), step);
        step.reply(caller.connection, caller.id, Reply::Done);
        if !news.is_empty() {
            self.tell_peer(EventKind::PeerChanged, now.wall, &record, None, Some(&news), step);
        }
        Ok(())
    }

    pub(crate) fn rename(
        &mut self,
        now: Now,
        caller: Caller,
        peer: Option<String>,
        new_name: String,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let (actor, me) = (caller.actor()?, caller.peer());
        let subject = match (actor, peer) {
            (Actor::Session(mine), None) => mine,
            (Actor::Session(mine), Some(name)) if self.presence.resolve(&name, me)? == mine => mine,
            (Actor::Session(_), Some(_)) => return Err(Rejection::NotPermitted { act: "renaming another peer" }),
            (Actor::Person | Actor::Shell { .. }, Some(name)) => {
                caller.check_person("renaming a peer")?;
                self.presence.resolve(&name, me)?
            }
            (Actor::Person | Actor::Shell { .. }, None) => {
                return Err(Rejection::NotPermitted { act: "renaming the person" });
            }
        };
        if subject == PeerId::HUMAN {
            return Err(Rejection::NotPermitted { act: "renaming the person" });
        }
        check_name(&new_name)?;
        if self.presence.by_name(&new_name).is_some_and(|owner| owner != subject) {
            return Err(Rejection::NameTaken { name: new_name });
        }
        let Some(mut record) = self.presence.get(subject).cloned() else { return Err(Rejection::NotRegistered) };
        let before = record.clone();
        rename(&mut record, new_name.clone());
        // Renaming oneself is choosing a name: asking for it at the next start finds this mailbox.
        let seat = Seat { kind: SeatKind::Name, key: new_name.clone() };
        if self.presence.by_seat(&seat).is_none() {
            add_seat(&mut record, seat);
        }
        self.update_peer(record, step);
        step.reply(caller.connection, caller.id, Reply::Renamed { peer: subject, name: new_name.clone() });
        // Choosing the name that one has is no news to anybody.
        if before.name == new_name {
            return Ok(());
        }
        for connection in self.presence.sessions_of(subject).to_vec() {
            if connection != caller.connection {
                step.push(connection, Push::Renamed { name: new_name.clone() });
            }
        }
        self.tell_peer(EventKind::PeerRenamed, now.wall, &before, Some(new_name), None, step);
        Ok(())
    }

    pub(crate) fn kick(&mut self, now: Now, caller: Caller, name: &str, step: &mut Step) -> Result<(), Rejection> {
        caller.check_person("ending a session")?;
        let peer = self.presence.resolve(name, None)?;
        let Some(mut record) = self.presence.get(peer).cloned() else { return Err(Rejection::NotRegistered) };
        // A session that is expected back can be ended too: its token is void then, and its name free.
        if self.presence.give_up(peer).is_none() && self.presence.sessions_of(peer).is_empty() {
            return Err(Rejection::NoSession { name: record.name });
        }
        // The one that takes the mail ends last, so that none of the others gets it on the way.
        for connection in self.presence.sessions_of(peer).to_vec().into_iter().rev() {
            step.push(connection, Push::Goodbye(Goodbye::Kicked));
            step.effects.push(Effect::Close { connection });
            self.disconnect(now, connection, step);
        }
        // Without a token the session cannot resume by itself.
        record.token = None;
        record.client_pid = None;
        record.client_process = None;
        record.adapter_process = None;
        record.last_seen = now.wall;
        self.update_peer(record, step);
        step.reply(caller.connection, caller.id, Reply::Done);
        Ok(())
    }

    /// A connection ended. What its session held is ready again before anything else happens.
    pub(crate) fn disconnect(&mut self, now: Now, connection: ConnectionId, step: &mut Step) {
        // It is no session any more before its mail goes anywhere: nothing may be pushed to it now.
        if let Some(session) = self.presence.detach(connection, now.wall) {
            self.return_leases(now, session.peer, connection, step);
            self.leave_peer(now, session.peer, step);
        }
        self.presence.hang_up(connection);
        self.hooks.hang_up(connection, step);
    }

    /// Forgets peers that have been offline too long.
    pub(crate) fn forget_old_peers(&mut self, now: Now, step: &mut Step) {
        let after_ms = self.forget_offline_ms();
        while let Some((_, peer)) = self.presence.longest_offline().filter(|(at, _)| at.plus_ms(after_ms) <= now.wall) {
            self.forget_peer(now, peer, step);
        }
    }

    fn forget_peer(&mut self, now: Now, peer: PeerId, step: &mut Step) {
        for message in self.mailboxes.messages(peer, |_| true) {
            self.bury(now, peer, message, Cause::PeerForgotten, step);
        }
        self.release_tasks(now, peer, true, step);
        self.end_memberships(peer, step);
        self.forget_pauses(peer, step);
        if let Some(record) = self.presence.remove(peer) {
            step.change(Change::RemovePeer(peer));
            self.quota.forget(peer);
            self.tell_peer(EventKind::PeerForgotten, now.wall, &record, None, None, step);
        }
    }

    pub(crate) fn name_of(&self, peer: PeerId) -> String {
        self.presence.name(peer).map_or_else(|| peer.to_string(), str::to_owned)
    }
}

/// Notes where the session runs whose token resumes it.
fn set_host(record: &mut PeerRecord, host: Host) {
    record.client_pid = Some(host.client_pid);
    record.client_process = host.client;
    record.adapter_process = host.adapter;
}

fn check_register(register: &Register) -> Result<(), Rejection> {
    if let Some(name) = &register.name {
        check_name(name)?;
    }
    if let Some(seat) = &register.seat {
        check_seat(seat)?;
    }
    check_length("the client's name", &register.client, NAME_CHARS_MAX)?;
    check_length("the client's version", &register.client_version, NAME_CHARS_MAX * 2)?;
    check_length("the working directory", &register.cwd, PATH_BYTES_MAX)?;
    check_length("the git root", register.git_root.as_deref().unwrap_or(""), PATH_BYTES_MAX)?;
    check_length("the repository", register.repo.as_deref().unwrap_or(""), PATH_BYTES_MAX)?;
    check_length("the host's name", &register.host, PATH_BYTES_MAX)
}

pub(crate) fn check_seat(seat: &Seat) -> Result<(), Rejection> {
    if seat.key.is_empty() {
        return Err(Rejection::OutOfBounds { what: "the seat", bound: format!("1 to {SEAT_KEY_BYTES_MAX} bytes") });
    }
    // A chosen name is claimed by Register or Rename, where its form is checked.
    if seat.kind == SeatKind::Name {
        return check_name(&seat.key);
    }
    check_length("the seat", &seat.key, SEAT_KEY_BYTES_MAX)
}

pub(crate) fn check_length(what: &'static str, text: &str, bytes_max: usize) -> Result<(), Rejection> {
    if text.len() <= bytes_max {
        Ok(())
    } else {
        Err(Rejection::OutOfBounds { what, bound: format!("at most {bytes_max} bytes") })
    }
}

/// When a peer that went offline at `last_seen` leaves the default listing.
pub(crate) fn is_listed(now: Timestamp, last_seen: Timestamp) -> bool {
    now.ms_since(last_seen) < peer_proto::limits::LISTED_OFFLINE_MS
}
