//! How sessions come and go: registration, binding to a seat, names, and the end.

use peer_proto::ids::{PeerId, Timestamp};
use peer_proto::limits::{NAME_CHARS_MAX, PATH_BYTES_MAX, PEERS_MAX, SEAT_KEY_BYTES_MAX, SUMMARY_BYTES_MAX};
use peer_proto::message::{Cause, Stage};
use peer_proto::request::{EventKind, Goodbye, Push, Register, Registered, Reply, Role, Seat, SeatKind};

use crate::broker::{Actor, Broker, Caller};
use crate::input::{ConnectionId, Facts, Now};
use crate::presence::{Operator, Session, add_alias, add_seat, check_name, rename};
use crate::record::PeerRecord;
use crate::rejection::Rejection;
use crate::step::{Change, Effect, Step};

/// What a registration found.
enum Found {
    /// This peer is free to be taken up.
    Free(PeerId),
    /// This peer is live in the same client process: share it.
    Shared(PeerId),
    /// Nobody yet: a new peer of this name (none: a friendly one).
    Nobody(Option<String>),
    /// Another client process has it: a new peer of this name instead.
    Live(PeerId, Option<String>),
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
        // What the kernel says of the client's process is better than what the adapter says.
        let client_pid = open.ancestors.get(1).copied().unwrap_or(register.client_pid);
        if let Some(resume) = &register.resume {
            let known = self.presence.get(resume.peer).and_then(|record| record.token);
            if known.is_none() || known != facts.resume_digest {
                return Err(Rejection::BadToken);
            }
            let peer = resume.peer;
            self.end_replaced_session(now, peer, client_pid, step);
            return self.begin_session(now, caller, peer, client_pid, &register, facts, None, true, step);
        }
        let found = self.find_peer(&register, client_pid);
        let (peer, notice) = match found {
            Found::Free(peer) => (peer, None),
            Found::Shared(peer) => {
                (peer, Some("another adapter of this client takes this peer's mail; this one only serves tools".to_owned()))
            }
            Found::Nobody(name) => (self.new_peer(now, name, facts, step)?, None),
            Found::Live(owner, name) => {
                let new = self.new_peer(now, name, facts, step)?;
                let (owner_name, new_name) = (self.name_of(owner), self.name_of(new));
                self.notify_sessions(
                    owner,
                    format!("another session asked to be {owner_name}; it is {new_name} now, and {owner_name} stays yours"),
                    step,
                );
                (new, Some(format!("{owner_name} is live in another session: this one is {new_name}")))
            }
        };
        // Sessions of an earlier process ended without a word, such as in a crash of the machine: what they had offered
        // counts as their attempt.
        if !self.presence.is_online(peer) {
            self.count_forgotten_offers(now, peer, step);
        }
        self.begin_session(now, caller, peer, client_pid, &register, facts, notice, false, step)
    }

    /// Which peer a fresh registration means: a chosen name before a client's seat.
    fn find_peer(&self, register: &Register, client_pid: u32) -> Found {
        if let Some(name) = &register.name {
            let mut candidate = name.clone();
            let mut live = None;
            for n in 2.. {
                let seat = Seat { kind: SeatKind::Name, key: candidate.clone() };
                let owner = self.presence.by_seat(&seat).or_else(|| {
                    self.presence
                        .by_name(&candidate)
                        .filter(|peer| self.presence.name(*peer).is_some_and(|own| own.eq_ignore_ascii_case(&candidate)))
                });
                match owner {
                    None => {
                        let name = self.presence.free_name(&candidate);
                        return live.map_or(Found::Nobody(Some(name.clone())), |owner| Found::Live(owner, Some(name)));
                    }
                    Some(owner) if !self.presence.is_online(owner) => return Found::Free(owner),
                    Some(owner) if self.same_client(owner, client_pid, register.seat.as_ref()) => return Found::Shared(owner),
                    Some(owner) => {
                        live.get_or_insert(owner);
                        candidate = crate::names::with_suffix(name, n);
                    }
                }
            }
        }
        let owner = register.seat.as_ref().and_then(|seat| self.presence.by_seat(seat));
        match owner {
            None => Found::Nobody(None),
            Some(owner) if !self.presence.is_online(owner) => Found::Free(owner),
            Some(owner) if self.same_client(owner, client_pid, register.seat.as_ref()) => Found::Shared(owner),
            Some(owner) => Found::Live(owner, None),
        }
    }

    /// Two adapters of one client process share its session where the client itself gave both the same seat. A common
    /// parent alone says nothing: a launcher has many children.
    fn same_client(&self, owner: PeerId, client_pid: u32, seat: Option<&Seat>) -> bool {
        let same_process = self
            .presence
            .sessions_of(owner)
            .iter()
            .filter_map(|connection| self.presence.session(*connection))
            .any(|session| session.client_pid == client_pid);
        let same_seat = seat.is_some_and(|seat| self.presence.by_seat(seat) == Some(owner));
        same_process && same_seat
    }

    fn new_peer(&mut self, now: Now, name: Option<String>, facts: &Facts, step: &mut Step) -> Result<PeerId, Rejection> {
        if self.presence.len() >= PEERS_MAX {
            let unused = self.presence.offline().map(|(_, peer)| peer).find(|peer| self.mailbox(*peer).is_none());
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
        let record = PeerRecord {
            id,
            name,
            aliases: Vec::new(),
            seats,
            provisional,
            client: String::new(),
            client_version: String::new(),
            cwd: String::new(),
            git_root: None,
            repo: None,
            host: String::new(),
            summary: String::new(),
            state: String::new(),
            task: String::new(),
            token: None,
            last_seen: now.wall,
        };
        step.change(Change::PutNextPeer(self.next_peer));
        self.presence.put(record);
        Ok(id)
    }

    #[expect(clippy::too_many_arguments, reason = "one fact each, and both callers have them at hand")]
    fn begin_session(
        &mut self,
        now: Now,
        caller: Caller,
        peer: PeerId,
        client_pid: u32,
        register: &Register,
        facts: &Facts,
        notice: Option<String>,
        resumed: bool,
        step: &mut Step,
    ) -> Result<(), Rejection> {
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
        let token = match (resumed, &register.resume) {
            (true, Some(resume)) => resume.token,
            _ if came_online => {
                record.token = Some(digest);
                token
            }
            _ => token,
        };
        if let Some(name) = register.name.as_ref().filter(|_| came_online && !resumed) {
            // The name asked for finds this mailbox again, whatever an operator calls the peer; a suffixed one keeps its own.
            let seat = Seat { kind: SeatKind::Name, key: name.clone() };
            if self.presence.by_seat(&seat).is_none() && record.name.eq_ignore_ascii_case(name) {
                add_seat(&mut record, seat);
            }
        }
        if let Some(seat) = register.seat.clone().filter(|seat| self.presence.by_seat(seat).is_none()) {
            add_seat(&mut record, seat);
        }
        self.update_peer(record.clone(), step);
        let session = Session { peer, client_pid, proofs: std::collections::BTreeMap::new() };
        self.presence.attach(caller.connection, session);
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
        })
    }

    /// Ends the connection that a resumed session had before: its client is the same, so nothing counts as an attempt.
    fn end_replaced_session(&mut self, now: Now, peer: PeerId, client_pid: u32, step: &mut Step) {
        for connection in self.presence.sessions_of(peer).to_vec() {
            let same = self.presence.session(connection).is_some_and(|session| session.client_pid == client_pid);
            if same && self.presence.reader(peer) == Some(connection) {
                self.hand_back(now, peer, connection, step);
                self.presence.detach(connection, now.wall);
                self.presence.connections.remove(&connection);
                step.push(connection, Push::Goodbye(Goodbye::Replaced));
                step.effects.push(Effect::Close { connection });
            }
        }
    }

    /// Takes back what a connection holds; its session goes on elsewhere.
    fn hand_back(&mut self, now: Now, peer: PeerId, connection: ConnectionId, step: &mut Step) {
        let held: Vec<_> = self
            .mailbox(peer)
            .map(|mailbox| {
                let held = mailbox.iter().filter(|entry| entry.lease.is_some_and(|lease| lease.holder == connection));
                held.map(|entry| entry.record.message).collect()
            })
            .unwrap_or_default();
        for message in held {
            self.release(now, peer, message, Cause::SessionEnded, step);
        }
    }

    /// What stands as offered though no session holds it was offered by a session that ended while no broker watched.
    fn count_forgotten_offers(&mut self, now: Now, peer: PeerId, step: &mut Step) {
        let offered: Vec<_> = self
            .mailbox(peer)
            .map(|mailbox| {
                let orphaned = mailbox.iter().filter(|entry| entry.lease.is_none() && entry.record.stage == Stage::Offered);
                orphaned.map(|entry| entry.record.message).collect()
            })
            .unwrap_or_default();
        for message in offered {
            self.count_attempt(now, peer, message, step);
        }
    }

    /// The client told the session which seat it sits on.
    pub(crate) fn bind(&mut self, now: Now, caller: Caller, seat: Seat, facts: &Facts, step: &mut Step) -> Result<(), Rejection> {
        let mine = self.session_peer(caller)?;
        check_seat(&seat)?;
        let Some(record) = self.presence.get(mine).cloned() else { return Err(Rejection::NotRegistered) };
        let Some(session) = self.presence.session(caller.connection) else { return Err(Rejection::NotRegistered) };
        let client_pid = session.client_pid;
        let Some((token, digest)) = facts.token else { return Err(Rejection::BadToken) };
        let owner = match self.presence.by_seat(&seat) {
            None => {
                let mut record = record;
                add_seat(&mut record, seat);
                return self.stay(now, caller, record, (token, digest), None, step);
            }
            Some(owner) if owner == mine => return self.stay(now, caller, record, (token, digest), None, step),
            Some(owner) => owner,
        };
        let live_elsewhere = self.presence.is_online(owner) && !self.same_client(owner, client_pid, Some(&seat));
        if live_elsewhere {
            let (owner_name, my_name) = (self.name_of(owner), record.name.clone());
            self.notify_sessions(
                owner,
                format!("another process claims the session of {owner_name}; it is {my_name}, and {owner_name} stays yours"),
                step,
            );
            let notice = format!("this client session is live as {owner_name} in another process: this one stays {my_name}");
            return self.stay(now, caller, record, (token, digest), Some(notice), step);
        }
        // The session moves to the peer that the seat belongs to. A provisional peer goes with it, mail and name.
        self.hand_back(now, mine, caller.connection, step);
        let detached = self.presence.detach(caller.connection, now.wall);
        let proofs = detached.map(|(session, _)| session.proofs).unwrap_or_default();
        let Some(mut adopted) = self.presence.get(owner).cloned() else { return Err(Rejection::NotRegistered) };
        let came_online = !self.presence.is_online(owner);
        if came_online {
            // Before the mail moves: what this session itself had offered is not a lost session's.
            self.count_forgotten_offers(now, owner, step);
        }
        if record.provisional && !self.presence.is_online(mine) {
            self.move_mail(now, mine, owner, step);
            self.presence.remove(mine);
            step.change(Change::RemovePeer(mine));
            self.quota.forget(mine);
            add_alias(&mut adopted, record.name.clone());
        } else if let Some(left) = self.presence.get(mine).cloned() {
            step.change(Change::PutPeer(Box::new(left.clone())));
            self.tell_peer(EventKind::PeerOffline, now.wall, &left, None, None, step);
        }
        if came_online {
            adopted.token = Some(digest);
        }
        adopted.client.clone_from(&record.client);
        adopted.client_version.clone_from(&record.client_version);
        adopted.cwd.clone_from(&record.cwd);
        adopted.git_root.clone_from(&record.git_root);
        adopted.repo.clone_from(&record.repo);
        adopted.host.clone_from(&record.host);
        adopted.last_seen = now.wall;
        self.update_peer(adopted.clone(), step);
        self.presence.attach(caller.connection, Session { peer: owner, client_pid, proofs });
        step.reply(caller.connection, caller.id, self.registered(owner, caller.connection, token, None));
        if came_online {
            self.tell_peer(EventKind::PeerOnline, now.wall, &adopted, None, None, step);
        }
        self.pump(now, owner, step);
        Ok(())
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
        if self.presence.reader(peer) == Some(caller.connection) {
            record.token = Some(digest);
        }
        record.last_seen = now.wall;
        self.update_peer(record, step);
        step.reply(caller.connection, caller.id, self.registered(peer, caller.connection, token, notice));
        Ok(())
    }

    /// Gives all pending mail of one peer to another, in one step.
    fn move_mail(&mut self, now: Now, from: PeerId, to: PeerId, step: &mut Step) {
        let messages: Vec<_> =
            self.mailbox(from).map(|mailbox| mailbox.iter().map(|entry| entry.record.message).collect()).unwrap_or_default();
        for message in messages {
            let Some(entry) = self.dequeue(from, message) else { continue };
            step.change(Change::RemoveDelivery { message, peer: from, was: entry.record.stage });
            // A message to both stands in the other mailbox already, or was settled there: once is enough.
            if self.mailbox(to).is_some_and(|mailbox| mailbox.get(message).is_some()) {
                continue;
            }
            let mut record = entry.record;
            record.peer = to;
            crate::mailbox::trace(&mut record, peer_proto::message::TraceEvent::Reassigned, now.wall, None, Some(Cause::Bound));
            step.change(Change::PutDelivery { record: Box::new(record.clone()), was: None });
            self.enqueue(record);
        }
    }

    pub(crate) fn describe(
        &mut self,
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
        record.summary = summary.unwrap_or(record.summary);
        record.state = state.unwrap_or(record.state);
        record.task = task.unwrap_or(record.task);
        self.update_peer(record, step);
        step.reply(caller.connection, caller.id, Reply::Done);
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
        let actor = self.actor(caller)?;
        let me = self.sending_peer(caller.connection);
        let subject = match (actor, peer) {
            (Actor::Session(mine), None) => mine,
            (Actor::Session(mine), Some(name)) if self.presence.resolve(&name, me)? == mine => mine,
            (Actor::Session(_), Some(_)) => return Err(Rejection::NotPermitted { act: "renaming another peer" }),
            (Actor::Operator(_), Some(name)) => {
                self.person(caller, "renaming a peer")?;
                self.presence.resolve(&name, me)?
            }
            (Actor::Operator(Operator::Shell(Some(_)) | Operator::Shell(None) | Operator::Person), None) => {
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
        for connection in self.presence.sessions_of(subject).to_vec() {
            if connection != caller.connection {
                step.push(connection, Push::Renamed { name: new_name.clone() });
            }
        }
        self.tell_peer(EventKind::PeerRenamed, now.wall, &before, Some(new_name), None, step);
        Ok(())
    }

    pub(crate) fn kick(&mut self, now: Now, caller: Caller, name: &str, step: &mut Step) -> Result<(), Rejection> {
        self.person(caller, "ending a session")?;
        let peer = self.presence.resolve(name, None)?;
        let Some(mut record) = self.presence.get(peer).cloned() else { return Err(Rejection::NotRegistered) };
        for connection in self.presence.sessions_of(peer).to_vec() {
            step.push(connection, Push::Goodbye(Goodbye::Kicked));
            step.effects.push(Effect::Close { connection });
            self.disconnect(now, connection, step);
        }
        // Without a token the session cannot resume by itself.
        record.token = None;
        record.last_seen = now.wall;
        self.update_peer(record, step);
        step.reply(caller.connection, caller.id, Reply::Done);
        Ok(())
    }

    /// A connection ended. What its session held is ready again before anything else happens.
    pub(crate) fn disconnect(&mut self, now: Now, connection: ConnectionId, step: &mut Step) {
        if let Some(session) = self.presence.session(connection) {
            let peer = session.peer;
            self.return_leases(now, peer, connection, step);
            self.presence.detach(connection, now.wall);
            if self.presence.is_online(peer) {
                // Another adapter of the same client goes on with the mail.
                self.pump(now, peer, step);
            } else if let Some(record) = self.presence.get(peer).cloned() {
                step.change(Change::PutPeer(Box::new(record.clone())));
                self.tell_peer(EventKind::PeerOffline, now.wall, &record, None, None, step);
            }
        }
        self.presence.connections.remove(&connection);
    }

    /// Forgets peers that have been offline too long.
    pub(crate) fn forget_old_peers(&mut self, now: Now, step: &mut Step) {
        let after_ms = self.forget_offline_ms();
        while let Some((_, peer)) = self.presence.longest_offline().filter(|(at, _)| at.plus_ms(after_ms) <= now.wall) {
            self.forget_peer(now, peer, step);
        }
    }

    fn forget_peer(&mut self, now: Now, peer: PeerId, step: &mut Step) {
        let messages: Vec<_> =
            self.mailbox(peer).map(|mailbox| mailbox.iter().map(|entry| entry.record.message).collect()).unwrap_or_default();
        for message in messages {
            self.bury(now, peer, message, Cause::PeerForgotten, step);
        }
        if let Some(record) = self.presence.remove(peer) {
            step.change(Change::RemovePeer(peer));
            self.quota.forget(peer);
            self.tell_peer(EventKind::PeerForgotten, now.wall, &record, None, None, step);
        }
    }

    pub(crate) fn name_of(&self, peer: PeerId) -> String {
        self.presence.name(peer).map_or_else(|| peer.to_string(), str::to_owned)
    }

    fn notify_sessions(&self, peer: PeerId, text: String, step: &mut Step) {
        for connection in self.presence.sessions_of(peer) {
            step.push(*connection, Push::Notice(text.clone()));
        }
    }
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

fn check_seat(seat: &Seat) -> Result<(), Rejection> {
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
