//! Whose a name or a seat is when somebody asks for it.
//!
//! A peer belongs to its live session. A peer that was online when the last broker ended belongs to the token of that
//! session: for a grace, and longer while its client lives. Whoever else asks meanwhile becomes a peer of its own, and both
//! are told. Knows nothing of mail. Whether a process has ended is a fact that the caller brings.

use std::collections::BTreeSet;

use peer_proto::ids::PeerId;
use peer_proto::request::{Goodbye, Push, Register, Seat, SeatKind};

use crate::broker::Broker;
use crate::input::{ConnectionId, Facts};
use crate::names::with_suffix;
use crate::record::Process;
use crate::state::presence::Host;
use crate::step::Effect;
use crate::turn::Turn;

/// What a registration found.
pub(crate) enum Found {
    /// This peer is free to be taken up.
    Free(PeerId),
    /// This peer is live in the same client process: share it.
    Shared(PeerId),
    /// Nobody yet: a new peer of this name (none: a friendly one).
    Nobody(Option<String>),
}

/// Why a registration did not get the name or seat that it asked for.
#[derive(Clone, Copy)]
pub(crate) enum Conflict {
    /// Another client process has it now, or is expected back with its token.
    Taken(PeerId),
    /// It is an earlier name of this peer, and still leads there.
    Alias(PeerId),
}

/// What a peer is to whoever asks for its name or seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Nobody's: it can be taken up.
    Free,
    /// The asker's own client has it: both share it.
    Shared,
    /// Another's.
    Taken,
}

/// Who asks for a name or seat.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) host: Host,
    pub(crate) seat: Option<&'a Seat>,
    /// Processes that have certainly ended.
    pub(crate) ended: &'a BTreeSet<Process>,
}

impl Broker {
    /// Where the session of this connection runs. What the kernel says goes before what the adapter says.
    pub(crate) fn host_of(&self, connection: ConnectionId, claimed_pid: u32) -> Host {
        let ancestors = self.presence.connections.get(&connection).map_or(&[][..], |open| &open.ancestors);
        let (adapter, client) = (ancestors.first().copied(), ancestors.get(1).copied());
        Host { client_pid: client.map_or(claimed_pid, |client| client.pid), client, adapter }
    }

    /// Which peer a fresh registration means: a chosen name before a client's seat.
    pub(crate) fn find_peer(&self, register: &Register, host: Host, facts: &Facts) -> (Found, Option<Conflict>) {
        let asker = Asker { host, seat: register.seat.as_ref(), ended: &facts.ended };
        if let Some(name) = &register.name {
            let mut candidate = name.clone();
            let mut conflict = None;
            for n in 2.. {
                let taken = match (self.owner_of_name(&candidate), self.presence.by_name(&candidate)) {
                    (None, None) => return (Found::Nobody(Some(candidate)), conflict),
                    (None, Some(owner)) => Conflict::Alias(owner),
                    (Some(owner), _) => match self.ownership(owner, asker) {
                        Ownership::Free => return (Found::Free(owner), conflict),
                        Ownership::Shared => return (Found::Shared(owner), conflict),
                        Ownership::Taken => Conflict::Taken(owner),
                    },
                };
                conflict.get_or_insert(taken);
                candidate = with_suffix(name, n);
            }
        }
        let Some(owner) = register.seat.as_ref().and_then(|seat| self.presence.by_seat(seat)) else {
            return (Found::Nobody(None), None);
        };
        match self.ownership(owner, asker) {
            Ownership::Free => (Found::Free(owner), None),
            Ownership::Shared => (Found::Shared(owner), None),
            Ownership::Taken => (Found::Nobody(None), Some(Conflict::Taken(owner))),
        }
    }

    /// The peer that a chosen name leads to; none where it is only an earlier name of one.
    fn owner_of_name(&self, name: &str) -> Option<PeerId> {
        let seat = Seat { kind: SeatKind::Name, key: name.to_owned() };
        let named = || {
            let owner = self.presence.by_name(name)?;
            self.presence.name(owner).is_some_and(|own| own.eq_ignore_ascii_case(name)).then_some(owner)
        };
        self.presence.by_seat(&seat).or_else(named)
    }

    /// What a peer is to the asker.
    ///
    /// Two adapters of one client process share its session where the client itself gave both the same seat. A common
    /// parent alone says nothing: a launcher has many children. But where the adapter that had the session has ended, the
    /// same client asks for its own peer again, with a seat or without.
    pub(crate) fn ownership(&self, owner: PeerId, asker: Asker<'_>) -> Ownership {
        let ended = |process: Option<Process>| process.is_some_and(|process| asker.ended.contains(&process));
        let same_seat = asker.seat.is_some_and(|seat| self.presence.by_seat(seat) == Some(owner));
        let mut hosts = self.hosts_of(owner).peekable();
        if hosts.peek().is_some() {
            let hosts: Vec<Host> = hosts.collect();
            return if same_seat && hosts.iter().any(|host| host.has_client_of(&asker.host)) {
                Ownership::Shared
            } else if hosts.iter().all(|host| ended(host.client)) {
                Ownership::Free
            } else {
                Ownership::Taken
            };
        }
        match self.presence.absent(owner).map(|absent| absent.host) {
            None => Ownership::Free,
            Some(host) if ended(host.client) || (host.client.is_none() && ended(host.adapter)) => Ownership::Free,
            Some(host) if host.has_client_of(&asker.host) && ended(host.adapter) => Ownership::Free,
            Some(host) if host.has_client_of(&asker.host) && same_seat => Ownership::Shared,
            Some(_) => Ownership::Taken,
        }
    }

    /// Where the live sessions of a peer run.
    fn hosts_of(&self, peer: PeerId) -> impl Iterator<Item = Host> + '_ {
        let sessions = self.presence.sessions_of(peer).iter();
        sessions.filter_map(|connection| self.presence.session(*connection)).map(|session| session.host)
    }

    /// The processes whose end decides whether this registration gets what it asks for.
    pub(crate) fn processes_before(&self, register: &Register) -> Vec<Process> {
        let mut processes = Vec::new();
        if register.resume.is_some() {
            return processes;
        }
        if let Some(name) = &register.name {
            // Each candidate in turn, up to the first that is free whatever has ended.
            let mut candidate = name.clone();
            for n in 2.. {
                match self.owner_of_name(&candidate) {
                    Some(owner) if self.is_claimed(owner) => processes.extend(self.processes_of(owner)),
                    None if self.presence.by_name(&candidate).is_some() => {}
                    Some(_) | None => break,
                }
                candidate = with_suffix(name, n);
            }
        } else if let Some(owner) = register.seat.as_ref().and_then(|seat| self.presence.by_seat(seat)) {
            processes.extend(self.processes_of(owner));
        }
        processes
    }

    /// The processes whose end decides whether a peer is another's.
    pub(crate) fn processes_of(&self, peer: PeerId) -> Vec<Process> {
        let absent = self.presence.absent(peer).map(|absent| absent.host);
        let adapter = absent.and_then(|host| host.adapter);
        self.hosts_of(peer).chain(absent).filter_map(|host| host.client).chain(adapter).collect()
    }

    fn is_claimed(&self, peer: PeerId) -> bool {
        self.presence.is_online(peer) || self.presence.absent(peer).is_some()
    }

    /// Tells whoever has a peer, now or when its session comes back.
    pub(crate) fn notify_owner(&mut self, turn: &mut Turn<'_>, owner: PeerId, text: &str) {
        for connection in self.presence.sessions_of(owner) {
            turn.push(*connection, Push::Notice(text.to_owned()));
        }
        self.presence.notify_absent(owner, text.to_owned());
    }

    /// Ends the sessions of a client that has ended itself, and whose adapter has not noticed yet or looks for last words.
    pub(crate) fn end_sessions_of_the_dead(&mut self, turn: &mut Turn<'_>, peer: PeerId) {
        // The one that takes the mail ends last, so that none of the others gets it on the way.
        for connection in self.presence.sessions_of(peer).to_vec().into_iter().rev() {
            turn.push(connection, Push::Goodbye(Goodbye::Replaced));
            turn.effect(Effect::Close { connection });
            self.disconnect(turn, connection);
        }
    }
}
