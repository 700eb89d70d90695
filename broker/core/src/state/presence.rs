//! Presence: peers with their names, aliases and seats (durable), and connections with their
//! sessions (in memory).
//!
//! Knows identity and authority. Does not know mail. Invariants: every name and alias resolves to
//! one retained peer. Every seat resolves to one retained peer. A peer has at most one receiving
//! session.

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::hook::{Activity, Mode};
use peer_proto::ids::{BrokerId, PeerId, Timestamp, Token, called_peer};
use peer_proto::limits::{ALIASES_MAX, SEATS_MAX};
use peer_proto::message::Carrier;
use peer_proto::request::{CarrierProof, RequestId, Role, Seat, SeatKind};

use crate::input::ConnectionId;
use crate::names;
use crate::record::{Home, PeerRecord, Process};
use crate::rejection::{NoMailbox, Rejection};

/// The name of the person's peer.
pub(crate) const HUMAN_NAME: &str = "human";

#[derive(Debug)]
pub(crate) struct OpenConnection {
    pub(crate) role: Role,
    /// The connecting process, its parent, and so on.
    pub(crate) ancestors: Vec<Process>,
    /// The seat that its environment named.
    pub(crate) seat: Option<Seat>,
    pub(crate) session: Option<PeerSession>,
    /// `Receive` requests whose answer is pending.
    pub(crate) waits: Vec<Wait>,
    /// The broker whose link it serves.
    pub(crate) link: Option<BrokerId>,
}

/// The session of a connection that is registered as a peer.
#[derive(Debug)]
pub(crate) struct PeerSession {
    pub(crate) peer: PeerId,
    pub(crate) host: Host,
    /// The token that it was given when it began. A `Bind` that does not change the session's peer
    /// returns it again: the answer may be lost, and then the old token must still be valid.
    pub(crate) token: Token,
    /// Whether it holds the token that resumes the peer's session. Other adapters of its client do
    /// not.
    pub(crate) holds_token: bool,
    /// Carriers that were tried, with the time when evidence last proved each.
    pub(crate) proofs: BTreeMap<Carrier, Option<Timestamp>>,
    /// Carriers that are available now, as its adapter reports.
    pub(crate) carriers: Vec<Carrier>,
    pub(crate) mode: Option<Mode>,
    pub(crate) activity: Option<Activity>,
}

impl PeerSession {
    /// Creates a session of which only its peer, its host and its token are known.
    pub(crate) fn new(peer: PeerId, host: Host, token: Token) -> Self {
        let (proofs, carriers) = (BTreeMap::new(), Vec::new());
        Self { peer, host, token, holds_token: false, proofs, carriers, mode: None, activity: None }
    }
}

/// The processes of a session: its client, and its adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// The client's process id, from the kernel, or else from the adapter.
    pub(crate) client_pid: u32,
    /// The client's process. `None`: the kernel did not name it.
    pub(crate) client: Option<Process>,
    /// The adapter's process. `None`: the kernel did not name it.
    pub(crate) adapter: Option<Process>,
}

impl Host {
    /// Whether both have the same client process.
    pub(crate) fn has_client_of(&self, other: &Self) -> bool {
        match (self.client, other.client) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.client_pid == other.client_pid,
        }
    }
}

/// A session of the last broker whose adapter has not come back with its token.
#[derive(Debug)]
pub(crate) struct Absent {
    pub(crate) host: Host,
    /// The notice that it gets when it comes back.
    pub(crate) notice: Option<String>,
}

/// The events that a watcher wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatchFilter {
    pub(crate) peer: Option<PeerId>,
    pub(crate) bodies: bool,
}

/// A `Receive` whose answer is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) id: RequestId,
    pub(crate) filter: Matcher,
}

/// A filter whose names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matcher {
    /// All ids of one sender. Empty: any sender.
    pub(crate) from: Vec<PeerId>,
    pub(crate) thread: Option<String>,
    pub(crate) kind: Option<peer_proto::message::Kind>,
    pub(crate) reply_to: Option<peer_proto::ids::MessageId>,
}

impl Matcher {
    pub(crate) fn matches(&self, brief: &crate::record::Brief) -> bool {
        (self.from.is_empty() || self.from.contains(&brief.from))
            && self.thread.as_ref().is_none_or(|thread| *thread == brief.thread)
            && self.kind.is_none_or(|kind| kind == brief.kind)
            && self.reply_to.is_none_or(|reply_to| brief.reply_to == Some(reply_to))
    }
}

/// The owner of a `peerctl` process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ancestry {
    /// The person, as far as the broker can know.
    Person,
    /// An agent. `None`: it is unknown which.
    Agent(Option<PeerId>),
}

#[derive(Debug, Default)]
pub(crate) struct Presence {
    peers: BTreeMap<PeerId, PeerRecord>,
    /// Names and aliases, in lower case: two names that differ only in case would be confused.
    names: BTreeMap<String, PeerId>,
    /// Provisional peers that were merged, with the peers that they were merged into.
    merged_into: BTreeMap<PeerId, PeerId>,
    seats: BTreeMap<Seat, PeerId>,
    offline: BTreeSet<(Timestamp, PeerId)>,
    /// Peers that were online when the last broker ended, and whose session has not come back. Each
    /// belongs to its token: for a grace period, and longer if its process is known. Each keeps its
    /// identity: a restart of the broker does not turn an agent's shell into the person.
    absent: BTreeMap<PeerId, Absent>,
    /// The absent peers that are still expected: their tasks and questions wait until the grace
    /// period is over.
    expected: BTreeSet<PeerId>,
    pub(crate) connections: BTreeMap<ConnectionId, OpenConnection>,
    /// Connections that watch, in an index of their own because every event needs them.
    watchers: BTreeMap<ConnectionId, WatchFilter>,
    sessions: BTreeMap<PeerId, Vec<ConnectionId>>,
    /// Proxies, by the broker and identity of the peer that each stands for.
    proxies: BTreeMap<(BrokerId, PeerId), PeerId>,
    /// Proxies that are listed by a link that is up. They are not forgotten.
    listed: BTreeSet<PeerId>,
}

impl Presence {
    pub(crate) fn load(peers: Vec<PeerRecord>) -> Self {
        let mut presence = Self::default();
        for record in peers {
            if let Some(client_pid) = record.client_pid {
                let host = Host {
                    client_pid,
                    client: record.client_process,
                    adapter: record.adapter_process,
                };
                presence.absent.insert(record.id, Absent { host, notice: None });
                presence.expected.insert(record.id);
            }
            presence.put(record);
        }
        presence
    }

    /// Whether a session of a killed broker may still come back.
    pub(crate) fn expects_anybody(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Ends the grace period, and returns the peers that have not come back. Those without a known
    /// process are free for any session now.
    pub(crate) fn expect_nobody(&mut self) -> Vec<PeerId> {
        self.absent
            .retain(|_, absent| absent.host.client.is_some() || absent.host.adapter.is_some());
        std::mem::take(&mut self.expected).into_iter().collect()
    }

    /// Returns the last broker's session of this peer, if it has not come back.
    pub(crate) fn absent(&self, peer: PeerId) -> Option<&Absent> {
        self.absent.get(&peer)
    }

    /// Stores a notice for a session that has not come back.
    pub(crate) fn notify_absent(&mut self, peer: PeerId, notice: String) {
        if let Some(absent) = self.absent.get_mut(&peer) {
            absent.notice = Some(notice);
        }
    }

    /// Stops expecting this peer's session.
    pub(crate) fn give_up(&mut self, peer: PeerId) -> Option<Absent> {
        self.expected.remove(&peer);
        self.absent.remove(&peer)
    }

    /// Stores a peer's new state in memory, with its names and seats.
    pub(crate) fn put(&mut self, record: PeerRecord) {
        let id = record.id;
        self.unlink(id);
        for name in record.aliases.iter().chain([&record.name]) {
            self.names.insert(name.to_ascii_lowercase(), id);
        }
        for seat in &record.seats {
            self.seats.insert(seat.clone(), id);
        }
        for merged in &record.merged_ids {
            self.merged_into.insert(*merged, id);
        }
        if let Some(home) = &record.home {
            self.proxies.insert((home.broker, home.peer), id);
        }
        if self.can_be_forgotten(id) {
            self.offline.insert((record.last_seen, id));
        }
        self.peers.insert(id, record);
    }

    pub(crate) fn remove(&mut self, id: PeerId) -> Option<PeerRecord> {
        self.give_up(id);
        self.listed.remove(&id);
        self.unlink(id)
    }

    fn unlink(&mut self, id: PeerId) -> Option<PeerRecord> {
        let record = self.peers.remove(&id)?;
        for name in record.aliases.iter().chain([&record.name]) {
            self.names.remove(&name.to_ascii_lowercase());
        }
        for seat in &record.seats {
            self.seats.remove(seat);
        }
        for merged in &record.merged_ids {
            self.merged_into.remove(merged);
        }
        if let Some(home) = &record.home {
            self.proxies.remove(&(home.broker, home.peer));
        }
        self.offline.remove(&(record.last_seen, id));
        Some(record)
    }

    /// Whether a peer's time offline counts.
    fn can_be_forgotten(&self, id: PeerId) -> bool {
        !self.is_online(id) && id != PeerId::HUMAN && !self.listed.contains(&id)
    }

    /// Returns the proxy of a peer of another broker.
    pub(crate) fn proxy_of(&self, broker: BrokerId, peer: PeerId) -> Option<PeerId> {
        self.proxies.get(&(broker, peer)).copied()
    }

    /// Returns all proxies of a broker's peers.
    pub(crate) fn proxies_of(&self, broker: BrokerId) -> impl Iterator<Item = PeerId> + '_ {
        self.proxies
            .range((broker, PeerId(0))..=(broker, PeerId(u64::MAX)))
            .map(|(_, proxy)| *proxy)
    }

    /// Records whether a link that is up lists this proxy.
    pub(crate) fn set_listed(&mut self, proxy: PeerId, listed: bool, now: Timestamp) {
        let Some(record) = self.peers.get_mut(&proxy) else { return };
        self.offline.remove(&(record.last_seen, proxy));
        if listed {
            self.listed.insert(proxy);
        } else if self.listed.remove(&proxy) {
            record.last_seen = now;
        }
        let last_seen = record.last_seen;
        if self.can_be_forgotten(proxy) {
            self.offline.insert((last_seen, proxy));
        }
    }

    pub(crate) fn is_listed(&self, proxy: PeerId) -> bool {
        self.listed.contains(&proxy)
    }

    /// Returns the peers whose client is this process: those with a session, and those whose
    /// session is expected back.
    fn hosted_by(&self, process: Process) -> BTreeSet<PeerId> {
        let hosts = |host: &Host| {
            host.client.map_or(host.client_pid == process.pid, |client| client == process)
        };
        let sessions = self.connections.values().filter_map(|open| open.session.as_ref());
        let live = sessions.filter(|session| hosts(&session.host)).map(|session| session.peer);
        live.chain(
            self.absent.iter().filter(|(_, absent)| hosts(&absent.host)).map(|(peer, _)| *peer),
        )
        .collect()
    }

    pub(crate) fn get(&self, id: PeerId) -> Option<&PeerRecord> {
        self.peers.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PeerRecord> {
        self.peers.values()
    }

    pub(crate) fn after(&self, after: Option<PeerId>) -> impl Iterator<Item = &PeerRecord> {
        let first = after.map_or(PeerId(0), |id| PeerId(id.0.saturating_add(1)));
        self.peers.range(first..).map(|(_, record)| record)
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn name(&self, id: PeerId) -> Option<&str> {
        match id {
            PeerId::SYSTEM => Some("system"),
            _ => self.peers.get(&self.current(id)?).map(|record| record.name.as_str()),
        }
    }

    /// Returns the retained peer of this id: its own, or the peer that it was merged into.
    pub(crate) fn current(&self, id: PeerId) -> Option<PeerId> {
        if self.peers.contains_key(&id) { Some(id) } else { self.merged_into.get(&id).copied() }
    }

    /// Returns all ids of a peer, its current one first.
    pub(crate) fn ids_of(&self, peer: PeerId) -> Vec<PeerId> {
        let merged = self.peers.get(&peer).map_or(&[][..], |record| &record.merged_ids);
        std::iter::once(peer).chain(merged.iter().copied()).collect()
    }

    pub(crate) fn by_seat(&self, seat: &Seat) -> Option<PeerId> {
        self.seats.get(seat).copied()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<PeerId> {
        self.names.get(&name.to_ascii_lowercase()).copied()
    }

    /// Resolves `text` to a peer: an id, a name or an alias; `human` or `user`; `me` if the caller
    /// is a peer. Quotation marks around it and an `@` before it are ignored.
    pub(crate) fn resolve(&self, text: &str, me: Option<PeerId>) -> Result<PeerId, Rejection> {
        let text = called_peer(text);
        let found = match text.to_ascii_lowercase().as_str() {
            "human" | "user" => Some(PeerId::HUMAN),
            "me" => me,
            "system" => return Err(no_mailbox(text, NoMailbox::System)),
            "all" => return Err(no_mailbox(text, NoMailbox::BroadcastOff)),
            _ => match text.parse::<PeerId>() {
                Ok(id) => self.current(id),
                Err(_) => self.by_name(text),
            },
        };
        // A channel is written to by its name, and by members alone.
        let is_peer = |id: &PeerId| self.get(*id).is_none_or(|record| !record.is_channel());
        found.filter(is_peer).ok_or_else(|| {
            let mut name: String = text.chars().take(64).collect();
            if name.len() < text.len() {
                name.push('…');
            }
            Rejection::UnknownPeer { nearest: self.nearest_names(&name), name }
        })
    }

    /// Returns names of peers like this one, nearest first.
    pub(crate) fn nearest_names(&self, name: &str) -> Vec<String> {
        let candidates = self
            .peers
            .values()
            .filter(|record| record.id != PeerId::HUMAN && !record.is_channel())
            .map(|record| record.name.as_str());
        names::nearest(name, candidates)
    }

    pub(crate) fn friendly_name(&self, entropy: u64) -> String {
        names::friendly(entropy, |name| self.by_name(name).is_none())
    }

    // ---- connections

    /// Removes a closed connection.
    pub(crate) fn hang_up(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
        self.watchers.remove(&connection);
    }

    pub(crate) fn watch(&mut self, connection: ConnectionId, watch: WatchFilter) {
        self.watchers.insert(connection, watch);
    }

    pub(crate) fn is_watched(&self) -> bool {
        !self.watchers.is_empty()
    }

    pub(crate) fn watchers(&self) -> impl Iterator<Item = (ConnectionId, WatchFilter)> + '_ {
        self.watchers.iter().map(|(connection, watch)| (*connection, *watch))
    }

    // ---- sessions

    pub(crate) fn session(&self, connection: ConnectionId) -> Option<&PeerSession> {
        self.connections.get(&connection)?.session.as_ref()
    }

    pub(crate) fn sessions_of(&self, peer: PeerId) -> &[ConnectionId] {
        self.sessions.get(&peer).map_or(&[], Vec::as_slice)
    }

    /// Returns the receiving session of the peer: its oldest one.
    pub(crate) fn reader(&self, peer: PeerId) -> Option<ConnectionId> {
        self.sessions_of(peer).first().copied()
    }

    /// Returns the receiving sessions of peers whose client is this process.
    pub(crate) fn readers_of_client(&self, pid: u32) -> impl Iterator<Item = ConnectionId> + '_ {
        let readers = self.sessions.values().filter_map(|sessions| sessions.first().copied());
        readers.filter(move |reader| {
            self.session(*reader).is_some_and(|session| session.host.client_pid == pid)
        })
    }

    /// Returns all sessions, including those that are not receiving sessions.
    pub(crate) fn all_sessions(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.sessions.values().flatten().copied()
    }

    /// Returns the carriers of the receiving session: the available ones, then others that were
    /// tried.
    pub(crate) fn carriers(&self, peer: PeerId) -> Vec<CarrierProof> {
        let Some(session) = self.reader(peer).and_then(|reader| self.session(reader)) else {
            return Vec::new();
        };
        let tried = session.proofs.keys().filter(|carrier| !session.carriers.contains(carrier));
        let proven_at = |carrier: &Carrier| session.proofs.get(carrier).copied().flatten();
        let proof =
            |carrier: &Carrier| CarrierProof { carrier: *carrier, proven_at: proven_at(carrier) };
        session.carriers.iter().chain(tried).map(proof).collect()
    }

    pub(crate) fn is_online(&self, peer: PeerId) -> bool {
        self.reader(peer).is_some()
    }

    /// Begins a session. `takes_over` makes it the receiving session before others of its peer.
    pub(crate) fn attach(
        &mut self,
        connection: ConnectionId,
        session: PeerSession,
        takes_over: bool,
    ) {
        let peer = session.peer;
        self.expected.remove(&peer);
        if session.holds_token {
            self.absent.remove(&peer);
        }
        if let Some(record) = self.peers.get(&peer) {
            self.offline.remove(&(record.last_seen, peer));
        }
        let sessions = self.sessions.entry(peer).or_default();
        sessions.insert(if takes_over { 0 } else { sessions.len() }, connection);
        if let Some(open) = self.connections.get_mut(&connection) {
            open.session = Some(session);
        }
    }

    /// Ends a connection's session, and returns it.
    pub(crate) fn detach(
        &mut self,
        connection: ConnectionId,
        now: Timestamp,
    ) -> Option<PeerSession> {
        let session = self.connections.get_mut(&connection)?.session.take()?;
        let peer = session.peer;
        let sessions = self.sessions.entry(peer).or_default();
        sessions.retain(|other| *other != connection);
        if sessions.is_empty() {
            self.sessions.remove(&peer);
            if let Some(record) = self.peers.get_mut(&peer) {
                record.last_seen = now;
                // If a session is still expected now, the next broker expects it too.
                if !self.absent.contains_key(&peer) {
                    record.client_pid = None;
                    record.client_process = None;
                    record.adapter_process = None;
                }
                self.offline.insert((now, peer));
            }
        }
        Some(session)
    }

    /// Returns the peer that has been offline longest.
    pub(crate) fn longest_offline(&self) -> Option<(Timestamp, PeerId)> {
        self.offline.first().copied()
    }

    pub(crate) fn offline(&self) -> impl Iterator<Item = (Timestamp, PeerId)> + '_ {
        self.offline.iter().copied()
    }

    // ---- authority

    /// Returns the owner of this connection by ancestry: the nearest ancestor process that is a
    /// session's client.
    ///
    /// A process with several sessions is one agent only if all of them are threads of one Codex
    /// daemon. Otherwise it is a launcher, such as a terminal multiplexer or a test, and the search
    /// continues above it. The seat in the environment only tells the sessions of one process
    /// apart, or is used when no ancestor is known. A process chooses its own environment, so the
    /// kernel's information takes precedence.
    pub(crate) fn ancestry(&self, connection: ConnectionId) -> Ancestry {
        let Some(open) = self.connections.get(&connection) else { return Ancestry::Agent(None) };
        let claimed = open
            .seat
            .as_ref()
            .and_then(|seat| self.by_seat(seat))
            .filter(|peer| self.is_online(*peer));
        for process in &open.ancestors {
            let hosted: Vec<PeerId> = self.hosted_by(*process).into_iter().collect();
            match hosted.as_slice() {
                [] => {}
                [peer] => return Ancestry::Agent(Some(*peer)),
                several if claimed.is_some_and(|peer| several.contains(&peer)) => {
                    return Ancestry::Agent(claimed);
                }
                several
                    if several.iter().all(|peer| {
                        self.get(*peer).is_some_and(|record| record.client == "codex")
                    }) =>
                {
                    return Ancestry::Agent(None);
                }
                _ => {}
            }
        }
        claimed.map_or(Ancestry::Person, |peer| Ancestry::Agent(Some(peer)))
    }

    // ---- invariants

    pub(crate) fn assert_invariants(&self) {
        for (name, id) in &self.names {
            let record = &self.peers[id];
            let owned = record
                .aliases
                .iter()
                .chain([&record.name])
                .any(|own| own.eq_ignore_ascii_case(name));
            assert!(owned, "{name} leads to {id}, which does not have it");
        }
        for record in self.peers.values() {
            assert_eq!(
                self.names.get(&record.name.to_ascii_lowercase()),
                Some(&record.id),
                "{} has a name of its own",
                record.id
            );
            let offline = self.offline.contains(&(record.last_seen, record.id));
            let expected = self.can_be_forgotten(record.id);
            assert_eq!(
                offline, expected,
                "{} is in the offline set exactly while it is offline",
                record.id
            );
            let home = record.home.as_ref();
            let is_proxy = |home: &Home| self.proxy_of(home.broker, home.peer) == Some(record.id);
            assert!(home.is_none_or(is_proxy), "{} is found as a proxy", record.id);
        }
        for (peer, absent) in &self.absent {
            assert!(
                self.peers.contains_key(peer),
                "{peer} is retained, as its session is expected back: {absent:?}"
            );
        }
        assert!(
            self.watchers.keys().all(|watcher| self.connections.contains_key(watcher)),
            "a watcher is connected"
        );
        for (merged, id) in &self.merged_into {
            assert!(!self.peers.contains_key(merged), "{merged} is retained, and became {id}");
            assert!(
                self.peers[id].merged_ids.contains(merged),
                "{merged} leads to {id}, which it did not become"
            );
        }
        for (seat, id) in &self.seats {
            assert!(self.peers[id].seats.contains(seat), "a seat leads to the peer that has it");
        }
        for (peer, sessions) in &self.sessions {
            assert!(
                !sessions.is_empty() && self.peers.contains_key(peer),
                "a session's peer is retained"
            );
            let holders = sessions
                .iter()
                .filter_map(|connection| self.session(*connection))
                .filter(|session| session.holds_token);
            assert!(
                holders.count() + usize::from(self.absent.contains_key(peer)) <= 1,
                "{peer} has one token"
            );
            for connection in sessions {
                assert_eq!(self.session(*connection).map(|session| session.peer), Some(*peer));
            }
        }
    }
}

/// Whether two directories or repositories are known to be the same. An unknown one is never the
/// same.
pub(crate) fn is_same_place(one: &str, other: &str) -> bool {
    !one.is_empty() && one == other
}

/// Gives a peer another name. The old one still resolves to it.
pub(crate) fn rename(record: &mut PeerRecord, name: String) {
    let old = std::mem::replace(&mut record.name, name);
    let same = |other: &String, name: &str| other.eq_ignore_ascii_case(name);
    record.aliases.retain(|alias| !same(alias, &record.name) && !same(alias, &old));
    if !same(&old, &record.name) {
        add_alias(record, old);
    }
}

/// Adds a name that resolves to a peer. The oldest one is dropped if there are too many.
pub(crate) fn add_alias(record: &mut PeerRecord, alias: String) {
    if alias.eq_ignore_ascii_case(&record.name)
        || record.aliases.iter().any(|known| known.eq_ignore_ascii_case(&alias))
    {
        return;
    }
    record.aliases.push(alias);
    if record.aliases.len() > ALIASES_MAX {
        record.aliases.remove(0);
    }
}

/// Records that a provisional peer was merged into this one. The oldest one is dropped if there are
/// too many.
pub(crate) fn add_merged_id(record: &mut PeerRecord, merged: PeerId) {
    record.merged_ids.push(merged);
    if record.merged_ids.len() > ALIASES_MAX {
        record.merged_ids.remove(0);
    }
}

/// Adds a seat that resolves to a peer. The oldest one is dropped if there are too many, a chosen
/// name last.
pub(crate) fn add_seat(record: &mut PeerRecord, seat: Seat) {
    record.provisional = false;
    if record.seats.contains(&seat) {
        return;
    }
    record.seats.push(seat);
    if record.seats.len() > SEATS_MAX {
        let earlier = &record.seats[..record.seats.len() - 1];
        let oldest = earlier.iter().position(|seat| seat.kind != SeatKind::Name).unwrap_or(0);
        record.seats.remove(oldest);
    }
}

fn no_mailbox(name: &str, why: NoMailbox) -> Rejection {
    Rejection::NoMailbox { name: name.to_owned(), why }
}
