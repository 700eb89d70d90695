//! Decides which peer a registration gets when it asks for a name or a seat.
//!
//! A peer belongs to its live session. After a restart, a peer that was online belongs to the token
//! of its session: for a grace period, and longer while its client lives. Another session that asks
//! meanwhile becomes a peer of its own, and both are told. Does not know mail. The shell brings the
//! fact whether a process has ended.

use std::collections::BTreeSet;

use peer_proto::ids::PeerId;
use peer_proto::request::{CLAUDE_CLIENT, Goodbye, Push, Register, Seat, SeatKind};

use crate::broker::Broker;
use crate::input::{ConnectionId, Facts};
use crate::names::with_suffix;
use crate::record::{PeerRecord, Process};
use crate::state::presence::Host;
use crate::step::Effect;
use crate::turn::Turn;

/// The result of looking up the peer that a registration means.
pub(crate) enum ClaimedPeer {
    /// The peer is free: the session becomes this peer.
    Free(PeerId),
    /// The peer is live in the same client process, and the session shares it.
    Shared(PeerId),
    /// No such peer: the session becomes a new peer of this name. `None`: the broker invents a
    /// name.
    Nobody(Option<String>),
}

/// The reason why a registration did not get the name or seat that it asked for.
#[derive(Clone, Copy)]
pub(crate) enum Conflict {
    /// Another client process has it now, or is expected back with its token.
    Taken(PeerId),
    /// It is an earlier name of this peer, and still resolves to it.
    Alias(PeerId),
}

/// The relation of a peer to the session that asks for its name or seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// No session has it, and the asker can take it.
    Free,
    /// The asker's own client has it, and both share it.
    Shared,
    /// Another client has it.
    Taken,
}

/// The session that asks for a name or seat.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) host: Host,
    pub(crate) seat: Option<&'a Seat>,
    /// The name of its client.
    pub(crate) client: &'a str,
    /// Processes that are known to have ended.
    pub(crate) ended: &'a BTreeSet<Process>,
}

impl Broker {
    /// Returns where the session of this connection runs. The kernel's information takes precedence
    /// over the adapter's.
    pub(crate) fn host_of(&self, connection: ConnectionId, claimed_pid: u32) -> Host {
        let ancestors =
            self.presence.connections.get(&connection).map_or(&[][..], |open| &open.ancestors);
        let (adapter, client) = (ancestors.first().copied(), ancestors.get(1).copied());
        Host { client_pid: client.map_or(claimed_pid, |client| client.pid), client, adapter }
    }

    /// Returns the peer that a new registration means. A chosen name takes precedence over a
    /// client's seat.
    pub(crate) fn find_peer(
        &self,
        register: &Register,
        host: Host,
        facts: &Facts,
    ) -> (ClaimedPeer, Option<Conflict>) {
        let asker = Asker {
            host,
            seat: register.seat.as_ref(),
            client: &register.client,
            ended: &facts.ended,
        };
        if let Some(name) = &register.name {
            let mut candidate = name.clone();
            let mut conflict = None;
            for n in 2.. {
                let taken =
                    match (self.owner_of_name(&candidate), self.presence.by_name(&candidate)) {
                        (None, None) => return (ClaimedPeer::Nobody(Some(candidate)), conflict),
                        (None, Some(owner)) => Conflict::Alias(owner),
                        (Some(owner), _) => match self.ownership(owner, asker) {
                            Ownership::Free => return (ClaimedPeer::Free(owner), conflict),
                            Ownership::Shared => return (ClaimedPeer::Shared(owner), conflict),
                            Ownership::Taken => Conflict::Taken(owner),
                        },
                    };
                conflict.get_or_insert(taken);
                candidate = with_suffix(name, n);
            }
        }
        let Some(owner) = register.seat.as_ref().and_then(|seat| self.presence.by_seat(seat))
        else {
            return (ClaimedPeer::Nobody(None), None);
        };
        match self.ownership(owner, asker) {
            Ownership::Free => (ClaimedPeer::Free(owner), None),
            Ownership::Shared => (ClaimedPeer::Shared(owner), None),
            Ownership::Taken => (ClaimedPeer::Nobody(None), Some(Conflict::Taken(owner))),
        }
    }

    /// Returns the peer that has this chosen name. `None`: no peer has it, or only as an earlier
    /// name.
    fn owner_of_name(&self, name: &str) -> Option<PeerId> {
        let seat = Seat { kind: SeatKind::Name, key: name.to_owned() };
        let named = || {
            let owner = self.presence.by_name(name)?;
            self.presence
                .name(owner)
                .is_some_and(|own| own.eq_ignore_ascii_case(name))
                .then_some(owner)
        };
        self.presence.by_seat(&seat).or_else(named)
    }

    /// Returns the relation of a peer to the asker.
    ///
    /// Two adapters of one client process share its session if the client gave both the same seat. A
    /// common parent alone proves nothing, because a launcher has many children, and a Codex process
    /// many threads. A process of Claude Code has one session at a time, whose id changes at
    /// `/clear`, and either adapter may report the new one first: two that ask for one name share it.
    /// If the adapter
    /// that had the session has ended, the same client gets its own peer again, with a seat or
    /// without.
    pub(crate) fn ownership(&self, owner: PeerId, asker: Asker<'_>) -> Ownership {
        let ended = |process: Option<Process>| {
            process.is_some_and(|process| asker.ended.contains(&process))
        };
        let is_claude =
            |record: &PeerRecord| record.client == CLAUDE_CLIENT && asker.client == CLAUDE_CLIENT;
        let same_seat = asker.seat.is_some_and(|seat| self.presence.by_seat(seat) == Some(owner))
            || self.presence.get(owner).is_some_and(is_claude);
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
            Some(host) if ended(host.client) || (host.client.is_none() && ended(host.adapter)) => {
                Ownership::Free
            }
            Some(host) if host.has_client_of(&asker.host) && ended(host.adapter) => Ownership::Free,
            Some(host) if host.has_client_of(&asker.host) && same_seat => Ownership::Shared,
            Some(_) => Ownership::Taken,
        }
    }

    /// Returns where the live sessions of a peer run.
    fn hosts_of(&self, peer: PeerId) -> impl Iterator<Item = Host> + '_ {
        let sessions = self.presence.sessions_of(peer).iter();
        sessions
            .filter_map(|connection| self.presence.session(*connection))
            .map(|session| session.host)
    }

    /// Returns the processes whose end decides whether this registration gets what it asks for.
    pub(crate) fn processes_before(&self, register: &Register) -> Vec<Process> {
        let mut processes = Vec::new();
        if register.resume.is_some() {
            return processes;
        }
        if let Some(name) = &register.name {
            // Includes each candidate name, up to the first that is free in any case.
            let mut candidate = name.clone();
            for n in 2.. {
                match self.owner_of_name(&candidate) {
                    Some(owner) if self.is_claimed(owner) => {
                        processes.extend(self.processes_of(owner))
                    }
                    None if self.presence.by_name(&candidate).is_some() => {}
                    Some(_) | None => break,
                }
                candidate = with_suffix(name, n);
            }
        } else if let Some(owner) =
            register.seat.as_ref().and_then(|seat| self.presence.by_seat(seat))
        {
            processes.extend(self.processes_of(owner));
        }
        processes
    }

    /// Returns the processes whose end decides whether a peer belongs to another session.
    pub(crate) fn processes_of(&self, peer: PeerId) -> Vec<Process> {
        let absent = self.presence.absent(peer).map(|absent| absent.host);
        let adapter = absent.and_then(|host| host.adapter);
        self.hosts_of(peer).chain(absent).filter_map(|host| host.client).chain(adapter).collect()
    }

    fn is_claimed(&self, peer: PeerId) -> bool {
        self.presence.is_online(peer) || self.presence.absent(peer).is_some()
    }

    /// Notifies the peer that owns a name or seat, now or when its session comes back.
    pub(crate) fn notify_owner(&mut self, turn: &mut Turn<'_>, owner: PeerId, text: &str) {
        for connection in self.presence.sessions_of(owner) {
            turn.push(*connection, Push::Notice(text.to_owned()));
        }
        self.presence.notify_absent(owner, text.to_owned());
    }

    /// Ends the sessions of a client that has ended while its adapter still runs. The adapter may
    /// not have noticed, or may still be reading the end of the record.
    pub(crate) fn end_sessions_of_the_dead(&mut self, turn: &mut Turn<'_>, peer: PeerId) {
        // The receiving session ends last, so that none of the other sessions is given its mail.
        for connection in self.presence.sessions_of(peer).to_vec().into_iter().rev() {
            turn.push(connection, Push::Goodbye(Goodbye::Replaced));
            turn.effect(Effect::Close { connection });
            self.disconnect(turn, connection);
        }
    }
}
