//! The life of a session: registration, names, its state, and its end.

use peer_proto::hook::Report;
use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::{
    KEPT_FROM_ROOM_MS, NAME_CHARS_MAX, PATH_BYTES_MAX, PEERS_MAX, SUMMARY_BYTES_MAX,
};
use peer_proto::message::{Carrier, Cause, Stage};
use peer_proto::request::{
    Goodbye, Push, Register, Registered, Reply, Role, Seat, SeatKind, WatchEvent,
};
use peer_proto::text::named;

use crate::broker::Broker;
use crate::check::{check_length, check_name, check_seat};
use crate::delivery::Transition;
use crate::input::{ConnectionId, Facts};
use crate::record::{PeerRecord, Process};
use crate::rejection::{Act, Rejection, RemoteBar};
use crate::rules::claim::{ClaimedPeer, Conflict};
use crate::state::mailbox::MailboxEntry;
use crate::state::presence::{Host, PeerSession, add_seat, rename};
use crate::step::{Change, Effect};
use crate::turn::Turn;
use crate::who::{Actor, Caller};

/// The most carriers that a report can name, each once.
const CARRIERS_MAX: usize = 8;

/// The circumstances in which a session begins.
struct Beginning {
    peer: PeerId,
    host: Host,
    notice: Option<String>,
    /// Whether it becomes the receiving session before other adapters of its client.
    takes_over: bool,
    /// Whether it holds the token that resumes the session.
    holds_token: bool,
}

impl Broker {
    pub(crate) fn register(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        register: Register,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let Some(open) = self.presence.connections.get(&caller.connection) else { return Ok(()) };
        if open.session.is_some() {
            return Err(Rejection::AlreadyRegistered);
        }
        if open.role != Role::Adapter {
            return Err(Rejection::NotPermitted { act: Act::RegisterAsPeer });
        }
        check_register(&register)?;
        let host = self.host_of(caller.connection, register.client_pid);
        if let Some(resume) = &register.resume {
            let known = self.presence.get(resume.peer).and_then(|record| record.token);
            if known.is_none() || known != facts.resume_digest {
                return Err(Rejection::BadToken);
            }
            let peer = resume.peer;
            let takes_over = self.make_way(turn, peer, host);
            let notice = self.presence.give_up(peer).and_then(|absent| absent.notice);
            let beginning = Beginning { peer, host, notice, takes_over, holds_token: true };
            return self.begin_session(turn, caller, beginning, &register, facts);
        }
        let (found, conflict) = self.find_peer(&register, host, facts);
        let (peer, shared) = match found {
            ClaimedPeer::Free(peer) => (peer, false),
            ClaimedPeer::Shared(peer) => (peer, true),
            ClaimedPeer::Nobody(name) => (self.newcomer(turn, caller, name, facts)?, false),
        };
        let notice = match conflict {
            _ if shared && self.presence.is_online(peer) => Some(
                "another adapter of this client gets this peer's mail; this one only serves tools"
                    .to_owned(),
            ),
            _ if shared => None,
            Some(conflict) => {
                Some(self.notify_conflict(turn, peer, conflict, register.name.as_deref()))
            }
            None => None,
        };
        if !shared {
            self.end_sessions_of_the_dead(turn, peer);
            // Sessions of an earlier process ended unreported, as in a crash of the machine. Their
            // offers count as attempts.
            self.count_forgotten_offers(turn, peer);
        }
        let beginning = Beginning { peer, host, notice, takes_over: false, holds_token: !shared };
        self.begin_session(turn, caller, beginning, &register, facts)
    }

    /// Registers a program as a new peer, within the limit of new peers per process.
    fn newcomer(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        name: Option<String>,
        facts: &Facts,
    ) -> Result<PeerId, Rejection> {
        // The program that connected, and its ancestors.
        let ancestors =
            self.presence.connections.get(&caller.connection).map(|open| open.ancestors.as_slice());
        let processes: Vec<Process> =
            ancestors.unwrap_or_default().iter().take(2).copied().collect();
        self.send_limits.check_newcomer(turn.now.mono_ms, &processes)?;
        let peer = self.new_peer(turn, name, facts)?;
        self.send_limits.count_newcomer(turn.now.mono_ms, &processes);
        Ok(peer)
    }

    /// Notifies the owner of a name or seat that a session did not get. Returns the text for that
    /// session.
    fn notify_conflict(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        conflict: Conflict,
        asked: Option<&str>,
    ) -> String {
        let name = self.name_of(peer);
        match conflict {
            Conflict::Taken(owner) => {
                let owner_name = self.name_of(owner);
                let text = format!(
                    "another session asked for the name {owner_name}; it is called {name}, and you keep {owner_name}"
                );
                self.notify_owner(turn, owner, &text);
                if self.presence.is_online(owner) {
                    format!("another live session is called {owner_name}: this session is {name}")
                } else {
                    format!(
                        "{owner_name} is reserved for a session that is expected back: this session is {name}"
                    )
                }
            }
            Conflict::Alias(owner) => {
                let (asked, owner_name) = (asked.unwrap_or(""), self.name_of(owner));
                format!("{asked} is an earlier name of {owner_name}: this session is {name}")
            }
        }
    }

    fn new_peer(
        &mut self,
        turn: &mut Turn<'_>,
        name: Option<String>,
        facts: &Facts,
    ) -> Result<PeerId, Rejection> {
        if self.presence.len() >= PEERS_MAX {
            // Removes the peer that was offline longest. No mail or setting of the person or of
            // others may be lost with it.
            let long_ago =
                |(at, _): &(Timestamp, PeerId)| at.plus_ms(KEPT_FROM_ROOM_MS) <= turn.now.wall;
            let unused = self
                .presence
                .offline()
                .take_while(long_ago)
                .map(|(_, peer)| peer)
                .find(|peer| self.is_unused(*peer));
            match unused {
                Some(peer) => self.forget_peer(turn, peer),
                None => return Err(Rejection::TooManyPeers { peers: self.presence.len() }),
            }
        }
        let id = self.next_peer;
        self.next_peer = PeerId(id.0 + 1);
        let provisional = name.is_none();
        let name = name.unwrap_or_else(|| self.presence.friendly_name(facts.entropy));
        let seats = if provisional {
            Vec::new()
        } else {
            vec![Seat { kind: SeatKind::Name, key: name.clone() }]
        };
        let record = PeerRecord { seats, provisional, ..PeerRecord::new(id, name, turn.now.wall) };
        turn.change(Change::PutNextPeer(self.next_peer));
        self.presence.put(record);
        Ok(id)
    }

    /// Whether a peer can be removed without loss: it has no mail, no policy, no pause, no
    /// membership, and no session that is expected back.
    fn is_unused(&self, peer: PeerId) -> bool {
        let has_policy = self.presence.get(peer).is_some_and(|record| record.policy.is_some());
        let is_paused = self.pauses.peers.iter().any(|paused| self.is_same(peer, *paused));
        let is_member = self.channels.of(peer).next().is_some();
        !has_policy
            && !is_paused
            && !is_member
            && self.mailboxes.of(peer).is_none()
            && self.presence.absent(peer).is_none()
    }

    fn begin_session(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        beginning: Beginning,
        register: &Register,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let Beginning { peer, host, notice, takes_over, holds_token } = beginning;
        let (Some(mut record), Some((token, digest))) =
            (self.presence.get(peer).cloned(), facts.token)
        else {
            return Err(Rejection::BadToken);
        };
        let came_online = !self.presence.is_online(peer);
        record.client.clone_from(&register.client);
        record.client_version.clone_from(&register.client_version);
        record.cwd.clone_from(&register.cwd);
        record.git_root.clone_from(&register.git_root);
        record.repo.clone_from(&register.repo);
        record.host.clone_from(&register.host);
        record.last_seen = turn.now.wall;
        // A second adapter shares the session. The first keeps the token that resumes it.
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
        if let Some(name) =
            register.name.as_ref().filter(|_| came_online && register.resume.is_none())
        {
            // The requested name finds this mailbox again, even if an operator renames the peer. A
            // name with a suffix is its own seat.
            let seat = Seat { kind: SeatKind::Name, key: name.clone() };
            if self.presence.by_seat(&seat).is_none() && record.name.eq_ignore_ascii_case(name) {
                add_seat(&mut record, seat);
            }
        }
        let free = |seat: &Seat| {
            self.presence.by_seat(seat).is_none() && !self.is_name_of_another(seat, peer)
        };
        if let Some(seat) = register.seat.clone().filter(free) {
            add_seat(&mut record, seat);
        }
        self.update_peer(turn, record.clone());
        // A session that resumes is the same session, with the same mode.
        let mode = if register.resume.is_some() { record.mode } else { None };
        self.presence.attach(
            caller.connection,
            PeerSession { mode, holds_token, ..PeerSession::new(peer, host, token) },
            takes_over,
        );
        turn.reply(caller, self.registered(peer, caller.connection, token, notice));
        if came_online {
            self.emit(turn, &[peer], &WatchEvent::PeerOnline { peer: record.name });
        }
        self.fill_window(turn, peer);
        Ok(())
    }

    pub(crate) fn registered(
        &self,
        peer: PeerId,
        connection: ConnectionId,
        token: peer_proto::ids::Token,
        notice: Option<String>,
    ) -> Reply {
        Reply::Registered(Registered {
            peer,
            name: self.name_of(peer),
            token,
            takes_mail: self.presence.reader(peer) == Some(connection),
            notice,
            waiting: self
                .mailboxes
                .of(peer)
                .map_or(0, |mailbox| (mailbox.len() - mailbox.held()) as u64),
            inbox_socket_in_bypass: self.settings.inbox_socket_in_bypass,
        })
    }

    /// Replaces the old connection of an adapter that holds the token. The client is the same, so
    /// nothing counts as an attempt. Other adapters of the client stay, and give their leases back.
    /// Returns whether this adapter is the receiving session now.
    fn make_way(&mut self, turn: &mut Turn<'_>, peer: PeerId, host: Host) -> bool {
        let holder = |connection: &&ConnectionId| {
            self.presence.session(**connection).is_some_and(|session| session.holds_token)
        };
        let held = self.presence.sessions_of(peer).iter().find(holder).copied();
        if let Some(connection) = held {
            let same = self
                .presence
                .session(connection)
                .is_some_and(|session| session.host.has_client_of(&host));
            if !same {
                return false;
            }
            self.hand_back(turn, peer, connection);
            self.presence.detach(connection, turn.now.wall);
            self.presence.hang_up(connection);
            self.hang_up_hooks(turn, connection);
            turn.push(connection, Push::Goodbye(Goodbye::Replaced));
            turn.effect(Effect::Close { connection });
        }
        if let Some(reader) = self.presence.reader(peer) {
            for message in self.hand_back(turn, peer, reader) {
                turn.push(reader, Push::Withdrawn { message, stage: Stage::Stored });
            }
        }
        true
    }

    /// Takes back the leases of a connection, and returns them. The session continues on another
    /// connection.
    pub(crate) fn hand_back(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        connection: ConnectionId,
    ) -> Vec<MessageId> {
        let held = self
            .mailboxes
            .messages(peer, |entry| entry.lease.is_some_and(|lease| lease.holder == connection));
        for message in &held {
            self.advance(turn, peer, *message, &[Transition::Unlease], None);
        }
        held
    }

    /// Counts attempts for deliveries that are offered but not leased. A session offered them and
    /// ended while no broker ran.
    pub(crate) fn count_forgotten_offers(&mut self, turn: &mut Turn<'_>, peer: PeerId) {
        let is_orphaned =
            |entry: &MailboxEntry| entry.lease.is_none() && entry.record.stage == Stage::Offered;
        let offered = self.mailboxes.messages(peer, is_orphaned);
        self.count_attempts(turn, peer, offered);
    }

    /// Ends a session's part in its peer. Another adapter of the same client becomes the receiving
    /// session, or the peer goes offline.
    pub(crate) fn leave_peer(&mut self, turn: &mut Turn<'_>, peer: PeerId) {
        if let Some(reader) = self.presence.reader(peer) {
            self.fill_window(turn, peer);
            self.review_waits(turn, peer, reader);
        } else if let Some(record) = self.presence.get(peer).cloned() {
            turn.change(Change::PutPeer(Box::new(record.clone())));
            self.emit(turn, &[peer], &WatchEvent::PeerOffline { peer: record.name });
            self.unclaim_tasks(turn, peer, false);
            self.notify_askers(turn, peer);
        }
    }

    /// Whether a seat of a chosen name would resolve to another peer than the name itself.
    pub(crate) fn is_name_of_another(&self, seat: &Seat, peer: PeerId) -> bool {
        seat.kind == SeatKind::Name
            && self.presence.by_name(&seat.key).is_some_and(|owner| owner != peer)
    }

    pub(crate) fn describe(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        summary: Option<String>,
        state: Option<String>,
        task: Option<String>,
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        for (what, text) in [("the summary", &summary), ("the state", &state), ("the task", &task)]
        {
            check_length(what, text.as_deref().unwrap_or(""), SUMMARY_BYTES_MAX)?;
        }
        let Some(mut record) = self.presence.get(peer).cloned() else {
            return Err(Rejection::NotRegistered);
        };
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
        self.update_peer(turn, record.clone());
        turn.reply(caller, Reply::Done);
        if !news.is_empty() {
            self.emit(turn, &[peer], &WatchEvent::PeerChanged { peer: record.name, news });
        }
        Ok(())
    }

    pub(crate) fn rename(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        peer: Option<String>,
        new_name: String,
    ) -> Result<(), Rejection> {
        let (actor, me) = (caller.actor()?, caller.peer());
        let subject = match (actor, peer) {
            (Actor::Session(mine), None) => mine,
            (Actor::Session(mine), Some(name)) if self.presence.resolve(&name, me)? == mine => mine,
            (Actor::Session(_), Some(_)) => {
                return Err(Rejection::NotPermitted { act: Act::RenameOther });
            }
            (Actor::Person | Actor::Shell { .. }, Some(name)) => {
                caller.check_person(Act::RenamePeer)?;
                self.presence.resolve(&name, me)?
            }
            (Actor::Person | Actor::Shell { .. }, None) => {
                return Err(Rejection::NotPermitted { act: Act::RenamePerson });
            }
        };
        if subject == PeerId::HUMAN {
            return Err(Rejection::NotPermitted { act: Act::RenamePerson });
        }
        self.check_is_here(subject, RemoteBar::Rename)?;
        check_name(&new_name)?;
        if self.presence.by_name(&new_name).is_some_and(|owner| owner != subject) {
            return Err(Rejection::NameTaken { name: new_name });
        }
        let Some(mut record) = self.presence.get(subject).cloned() else {
            return Err(Rejection::NotRegistered);
        };
        let before = record.clone();
        rename(&mut record, new_name.clone());
        // A session that renames itself chooses a name: the same name at the next start finds this
        // mailbox.
        let seat = Seat { kind: SeatKind::Name, key: new_name.clone() };
        if self.presence.by_seat(&seat).is_none() {
            add_seat(&mut record, seat);
        }
        self.update_peer(turn, record);
        turn.reply(caller, Reply::Renamed { peer: subject, name: new_name.clone() });
        // A rename to the current name is no event.
        if before.name == new_name {
            return Ok(());
        }
        for connection in self.presence.sessions_of(subject).to_vec() {
            if connection != caller.connection {
                turn.push(connection, Push::Renamed { name: new_name.clone() });
            }
        }
        self.emit(turn, &[subject], &WatchEvent::PeerRenamed { peer: before.name, new_name });
        Ok(())
    }

    pub(crate) fn kick(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        name: &str,
    ) -> Result<(), Rejection> {
        caller.check_person(Act::EndSession)?;
        let peer = self.presence.resolve(name, None)?;
        let Some(mut record) = self.presence.get(peer).cloned() else {
            return Err(Rejection::NotRegistered);
        };
        // A session that is expected back can be ended too. Its token becomes void, and its name
        // free.
        if self.presence.give_up(peer).is_none() && self.presence.sessions_of(peer).is_empty() {
            return Err(Rejection::NoSession { name: record.name });
        }
        // The receiving session ends last, so that none of the other sessions is given its mail.
        for connection in self.presence.sessions_of(peer).to_vec().into_iter().rev() {
            turn.push(connection, Push::Goodbye(Goodbye::Kicked));
            turn.effect(Effect::Close { connection });
            self.disconnect(turn, connection);
        }
        // Without a token the session cannot resume.
        record.token = None;
        record.client_pid = None;
        record.client_process = None;
        record.adapter_process = None;
        record.last_seen = turn.now.wall;
        self.update_peer(turn, record);
        turn.reply(caller, Reply::Done);
        Ok(())
    }

    /// Ends a connection. The deliveries that its session held are ready again before anything else
    /// happens.
    pub(crate) fn disconnect(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        // Detach the session before its mail moves, so that nothing is pushed to it any more.
        if let Some(session) = self.presence.detach(connection, turn.now.wall) {
            self.return_leases(turn, session.peer, connection);
            self.leave_peer(turn, session.peer);
        }
        self.close_link(turn, connection);
        self.presence.hang_up(connection);
        self.hang_up_hooks(turn, connection);
    }

    pub(crate) fn report(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        report: Report,
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        if report.carriers.as_ref().is_some_and(|carriers| carriers.len() > CARRIERS_MAX) {
            return Err(Rejection::OutOfBounds {
                what: "the list of carriers",
                bound: format!("at most {CARRIERS_MAX}"),
            });
        }
        if report.carriers.as_ref().is_some_and(|carriers| carriers.contains(&Carrier::Peerctl)) {
            return Err(Rejection::NotPermitted { act: Act::OfferTerminal });
        }
        let mut changed = None;
        if let Some(session) = self
            .presence
            .connections
            .get_mut(&caller.connection)
            .and_then(|open| open.session.as_mut())
        {
            session.mode = report.mode.or(session.mode);
            changed = report.activity.filter(|activity| session.activity != Some(*activity));
            session.activity = report.activity.or(session.activity);
            if let Some(carriers) = report.carriers {
                session.carriers = carriers;
            }
        }
        if let Some(mode) = report.mode {
            self.record_mode(turn, peer, mode);
        }
        turn.reply(caller, Reply::Done);
        // If a client has several adapters, the receiving session reports for all of them.
        let told = changed.filter(|_| self.presence.reader(peer) == Some(caller.connection));
        if let Some((activity, record)) = told.zip(self.presence.get(peer)) {
            let news = format!("activity: {}", activity.as_str());
            let event = WatchEvent::PeerChanged { peer: record.name.clone(), news };
            self.emit(turn, &[peer], &event);
        }
        Ok(())
    }

    /// Forgets peers that have been offline longer than the limit.
    pub(crate) fn forget_old_peers(&mut self, turn: &mut Turn<'_>) {
        let after_ms = self.forget_offline_ms();
        while let Some((_, peer)) =
            self.presence.longest_offline().filter(|(at, _)| at.plus_ms(after_ms) <= turn.now.wall)
        {
            self.forget_peer(turn, peer);
        }
    }

    pub(crate) fn forget_peer(&mut self, turn: &mut Turn<'_>, peer: PeerId) {
        let broker = self.mailboxes.broker_of(peer);
        for message in self.mailboxes.messages(peer, |_| true) {
            self.dead_letter(turn, peer, message, Cause::PeerForgotten);
        }
        self.unclaim_tasks(turn, peer, true);
        self.end_memberships(turn, peer);
        self.forget_channel(turn, peer);
        self.forget_pauses(turn, peer);
        if let Some(record) = self.presence.remove(peer) {
            self.mailboxes.remove_proxy(peer);
            self.links.set_online(peer, false);
            turn.change(Change::RemovePeer(peer));
            self.send_limits.forget(peer);
            self.emit(turn, &[peer], &WatchEvent::PeerForgotten { peer: record.name });
        }
        // Messages to this proxy and to others may have waited for it.
        if let Some(broker) = broker {
            self.fill_link(turn, broker);
        }
    }

    pub(crate) fn update_peer(&mut self, turn: &mut Turn<'_>, record: PeerRecord) {
        turn.change(Change::PutPeer(Box::new(record.clone())));
        self.presence.put(record);
    }

    pub(crate) fn name_of(&self, peer: PeerId) -> String {
        self.peer_name(peer).map_or_else(|| peer.to_string(), str::to_owned)
    }
}

/// Records the processes of the session that the token resumes.
pub(crate) fn set_host(record: &mut PeerRecord, host: Host) {
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
