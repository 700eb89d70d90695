//! A world for the core in tests: a store that is a few maps, clocks that stand still, and a name
//! for everything.
//!
//! The core is the real one. The store here is a model: it applies the core's changes and answers
//! its lookups, so that a restart rebuilds the core from nothing but what was durable.

#![allow(dead_code, unreachable_pub, reason = "each test file uses the part that it needs")]

pub mod finding;
pub mod links;
pub mod script;
pub mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Bound;

use peer_core::broker::{Broker, Config};
use peer_core::input::{ConnectionId, Facts, Input, Now, StoredMessage};
use peer_core::record::{
    DeliveryRecord, Image, LinkRecord, LinksImage, MessageRecord, PausesRecord, PeerRecord,
    Process, ReceiptKey, SettingsRecord, TokenDigest,
};
use peer_core::shared::{NoteRecord, SharedKey, SharedRecord, SharedRecords};
use peer_core::step::{Change, Effect, Query, Step};
use peer_proto::channel::ChannelInfo;
use peer_proto::ids::{BrokerId, MessageId, PeerId, TaskId, Timestamp, Token};
use peer_proto::link::LinkRequest;
use peer_proto::message::{Carrier, Kind, Stage};
use peer_proto::policy::Policy;
use peer_proto::question::QuestionInfo;
use peer_proto::refusal::Refusal;
use peer_proto::request::{
    Goodbye, Pausing, Push, Register, Reply, Request, Role, Seat, WatchEvent,
};

/// What is durable, as maps.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub messages: BTreeMap<MessageId, MessageRecord>,
    pub deliveries: BTreeMap<(MessageId, PeerId), DeliveryRecord>,
    pub peers: BTreeMap<PeerId, PeerRecord>,
    pub keys: BTreeMap<(PeerId, String), MessageId>,
    pub next_peer: Option<PeerId>,
    pub settings: SettingsRecord,
    pub pauses: PausesRecord,
    pub shared: BTreeMap<SharedKey, SharedRecord>,
    pub links: LinksOnDisk,
    pub next_task: Option<TaskId>,
}

/// What is durable of links.
#[derive(Clone, Debug, Default)]
pub struct LinksOnDisk {
    pub own: Option<BrokerId>,
    pub links: BTreeMap<BrokerId, LinkRecord>,
    pub receipts: BTreeMap<ReceiptKey, u32>,
    pub withdrawn: BTreeSet<(BrokerId, MessageId)>,
}

impl LinksOnDisk {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::PutBroker(own) => self.own = Some(*own),
            Change::PutLink(link) => drop(self.links.insert(link.broker, (**link).clone())),
            Change::RemoveLink(broker) => {
                assert!(self.links.remove(broker).is_some(), "a link that is forgotten was there");
                self.receipts.retain(|key, _| key.broker != *broker);
                self.withdrawn.retain(|(origin, _)| origin != broker);
            }
            Change::PutReceipt { key, rev } => drop(self.receipts.insert(*key, *rev)),
            Change::RemoveReceipt(key) => drop(self.receipts.remove(key)),
            Change::PutWithdrawn { broker, message } => {
                self.withdrawn.insert((*broker, *message));
            }
            Change::RemoveWithdrawn { broker, message } => {
                self.withdrawn.remove(&(*broker, *message));
            }
            other => panic!("{other:?} is about no link"),
        }
    }

    fn image(&self) -> LinksImage {
        LinksImage {
            own: self.own,
            links: self.links.values().cloned().collect(),
            receipts: self.receipts.iter().map(|(key, rev)| (*key, *rev)).collect(),
            withdrawn: self.withdrawn.iter().copied().collect(),
        }
    }
}

impl Disk {
    /// Applies a change, and insists that what it says it replaces is what is there.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::PutMessage(record) => {
                // The scenario about quotation marks has this word in all that peers say.
                let mut unquoted = record.text.split('"').step_by(2);
                let is_quoted = record.head.kind != Kind::Notice
                    || !unquoted.any(|words| words.contains("OBEY"));
                assert!(is_quoted, "the broker says a peer's words as its own: {}", record.text);
                assert!(
                    self.messages.insert(record.head.id, (**record).clone()).is_none(),
                    "a message is stored once"
                );
            }
            Change::PutDelivery { record, was } => {
                let before =
                    self.deliveries.insert((record.message, record.peer), (**record).clone());
                assert_eq!(
                    before.map(|before| before.stage),
                    *was,
                    "the delivery that {record:?} replaces"
                );
                assert_ne!(record.stage, Stage::Leased, "leases are not durable");
            }
            Change::RemoveDelivery { message, peer, was } => {
                let before = self.deliveries.remove(&(*message, *peer));
                assert_eq!(
                    before.map(|before| before.stage),
                    Some(*was),
                    "the delivery that is removed"
                );
            }
            Change::PutPeer(record) => {
                self.peers.insert(record.id, (**record).clone());
            }
            Change::RemovePeer(peer) => {
                self.peers.remove(peer);
            }
            Change::PutIdempotencyKey { sender, key, message } => {
                self.keys.insert((*sender, key.clone()), *message);
            }
            Change::PutNextPeer(peer) => self.next_peer = Some(*peer),
            Change::PutSettings(settings) => self.settings = *settings,
            Change::PutPauses(pauses) => self.pauses = (**pauses).clone(),
            Change::PutKept(kept) => {
                let counted = self
                    .messages
                    .range(..=kept.through)
                    .map(|(_, record)| record.text.len() as u64);
                assert_eq!(kept.text_bytes, counted.sum::<u64>(), "what is kept is counted");
            }
            Change::PutShared(shared) => {
                self.shared.insert(shared.key(), (**shared).clone());
            }
            Change::RemoveShared(key) => {
                assert!(self.shared.remove(key).is_some(), "what is forgotten was there: {key:?}");
            }
            Change::PutNextTask(task) => self.next_task = Some(*task),
            Change::PutBroker(_)
            | Change::PutLink(_)
            | Change::RemoveLink(_)
            | Change::PutReceipt { .. }
            | Change::RemoveReceipt(_)
            | Change::PutWithdrawn { .. }
            | Change::RemoveWithdrawn { .. } => self.links.apply(change),
            Change::RemoveMessage(message) => {
                assert!(
                    self.messages.remove(message).is_some(),
                    "a message that is forgotten was there"
                );
                assert!(
                    !self
                        .deliveries
                        .iter()
                        .any(|((id, _), delivery)| id == message && delivery.stage.is_pending())
                );
                self.deliveries.retain(|(id, _), _| id != message);
                self.keys.retain(|_, named| named != message);
            }
        }
    }

    pub fn image(&self) -> Image {
        Image {
            peers: self.peers.values().cloned().collect(),
            pending: self
                .deliveries
                .values()
                .filter(|delivery| delivery.stage.is_pending())
                .cloned()
                .collect(),
            last_message: self.messages.keys().next_back().copied(),
            next_peer: self.next_peer,
            dead: self.deliveries.values().filter(|delivery| delivery.stage == Stage::Dead).count()
                as u64,
            messages: self.messages.len() as u64,
            text_bytes: self.messages.values().map(|record| record.text.len() as u64).sum(),
            first_message: self.messages.keys().next().copied(),
            settings: self.settings,
            pauses: self.pauses.clone(),
            shared: self.shared(),
            next_task: self.next_task,
            links: self.links.image(),
        }
    }

    fn shared(&self) -> SharedRecords {
        let mut all = SharedRecords::default();
        for shared in self.shared.values().cloned() {
            match shared {
                SharedRecord::Channel(record) => all.channels.push(record),
                SharedRecord::Question(record) => all.questions.push(record),
                SharedRecord::Task(record) => all.tasks.push(record),
                SharedRecord::Note(record) => all.notes.push(record.head),
            }
        }
        all
    }

    pub fn note(&self, key: &str) -> Option<NoteRecord> {
        match self.shared.get(&SharedKey::Note(key.to_owned())) {
            Some(SharedRecord::Note(record)) => Some(record.clone()),
            _ => None,
        }
    }

    pub fn stored(&self, id: MessageId) -> Option<StoredMessage> {
        let record = self.messages.get(&id)?;
        Some(StoredMessage {
            head: record.head.clone(),
            idempotency_key: record.idempotency_key.clone(),
            deliveries: self
                .deliveries
                .range((id, PeerId(0))..=(id, PeerId(u64::MAX)))
                .map(|(_, delivery)| delivery.clone())
                .collect(),
        })
    }
}

/// A program that talks to the core, by the name that the script gives it.
#[derive(Clone, Debug)]
pub struct Program {
    pub connection: ConnectionId,
    pub role: Role,
    pub register: Option<Register>,
    pub pid: u32,
    pub peer: Option<PeerId>,
    pub token: Option<Token>,
}

pub struct World {
    pub broker: Broker,
    pub config: Config,
    pub disk: Disk,
    pub now: Now,
    pub programs: BTreeMap<String, Program>,
    pub aliases: BTreeMap<MessageId, String>,
    /// Processes that have ended, by their ids.
    pub ended: BTreeSet<u32>,
    pub said: String,
    /// Says nothing: for tests that read the steps themselves.
    pub quiet: bool,
    /// What the core decided since this was last emptied.
    pub changes: Vec<Change>,
    pub effects: Vec<Effect>,
    /// New deliveries, in the order in which they were stored.
    pub stored_in_order: Vec<(MessageId, PeerId)>,
    pub connections: u64,
    /// The id of the latest request.
    pub requests: u64,
    /// Random bits of the requests: worlds that are played together begin with different ones.
    pub entropy: u64,
    /// The random bits that a send gets: few, where ids of two brokers shall be the same.
    pub id_bits: u64,
}

impl World {
    pub fn new(config: Config) -> Self {
        let now = Now { wall: Timestamp(1_795_000_000_000), mono_ms: 1_000_000, slept_ms: 0 };
        Self {
            broker: Broker::new(config.clone(), Image::default(), now),
            config,
            disk: Disk::default(),
            now,
            programs: BTreeMap::new(),
            aliases: BTreeMap::new(),
            ended: BTreeSet::new(),
            said: String::new(),
            quiet: false,
            changes: Vec::new(),
            effects: Vec::new(),
            stored_in_order: Vec::new(),
            connections: 0,
            requests: 0,
            entropy: 0,
            id_bits: u64::MAX,
        }
    }

    /// Kills the broker and starts another one on what is durable.
    pub fn restart(&mut self) {
        self.broker = Broker::new(self.config.clone(), self.disk.image(), self.now);
    }

    pub fn pass(&mut self, millis: u64) {
        self.now.wall = self.now.wall.plus_ms(millis);
        self.now.mono_ms += millis;
    }

    pub fn sleep(&mut self, millis: u64) {
        self.now.wall = self.now.wall.plus_ms(millis);
        self.now.slept_ms += millis;
    }

    /// Somebody sets the wall clock, forward or back.
    pub fn set_clock(&mut self, by_ms: i64) {
        self.now.wall = Timestamp(self.now.wall.0.saturating_add_signed(by_ms));
    }

    /// Lets due timers run, as the engine would.
    pub fn tick(&mut self) -> bool {
        if self.broker.poll_timeout(self.now) != Some(0) {
            return false;
        }
        let mut step = Step::default();
        self.broker.handle_timeout(self.now, &mut step);
        self.commit(step);
        true
    }

    /// Makes the steps of retention that are due, as the engine would when nothing else is to do:
    /// so many rows each.
    pub fn sweep(&mut self, rows_max: usize) {
        while let Some(sweep) = self.broker.poll_sweep(self.now).filter(|sweep| sweep.in_ms == 0) {
            let after = sweep.after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut ids = self.disk.messages.range((after, Bound::Unbounded)).map(|(id, _)| *id);
            let rows: Vec<MessageId> = ids.by_ref().take(rows_max).collect();
            let next = ids.next().and(rows.last().copied());
            let rows: Vec<StoredMessage> =
                rows.into_iter().filter_map(|id| self.disk.stored(id)).collect();
            let mut step = Step::default();
            self.broker.sweep(self.now, &rows, next, &mut step);
            self.commit(step);
        }
    }

    pub fn connect(&mut self, name: &str, role: Role, ancestors: Vec<u32>, seat: Option<Seat>) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let pid = ancestors.get(1).copied().unwrap_or(0);
        let known = self.programs.remove(name);
        let (register, token, peer) = known
            .map_or((None, None, None), |program| (program.register, program.token, program.peer));
        self.programs
            .insert(name.to_owned(), Program { connection, role, register, pid, peer, token });
        let ancestors =
            ancestors.into_iter().map(|pid| Process { pid, started: u64::from(pid) }).collect();
        self.input(Input::Connected { connection, id: 0, role, ancestors, seat });
    }

    pub fn disconnect(&mut self, name: &str) {
        let connection = self.programs[name].connection;
        self.input(Input::Disconnected { connection });
    }

    pub fn ask(&mut self, name: &str, request: Request) {
        let connection = self.programs[name].connection;
        self.requests += 1;
        self.entropy = self
            .entropy
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let lookups = self.broker.lookups(connection, &request);
        let mut facts = Facts { entropy: self.entropy >> 16, ..Facts::default() };
        if let Request::Send(_) | Request::Ask(_) = &request {
            facts.entropy &= self.id_bits;
        }
        let token = Token([self.requests as u8; 32]);
        facts.token = Some((token, digest(token)));
        if let Request::Register(Register { resume: Some(resume), .. }) = &request {
            facts.resume_digest = Some(digest(resume.token));
        }
        facts.stored =
            lookups.messages.iter().filter_map(|id| Some((*id, self.disk.stored(*id)?))).collect();
        let prior = lookups.idempotency.and_then(|key| self.disk.keys.get(&key));
        facts.prior = prior.and_then(|id| {
            self.disk.stored(*id).zip(self.disk.messages.get(id).map(|record| record.text.clone()))
        });
        facts.mail_digests = match &request {
            Request::Link(LinkRequest::Take(mails)) => {
                mails.iter().map(links::mail_digest).collect()
            }
            _ => Vec::new(),
        };
        facts.note = lookups.note.and_then(|key| self.disk.note(&key));
        facts.ended = lookups
            .processes
            .into_iter()
            .filter(|process| self.ended.contains(&process.pid))
            .collect();
        let id = self.requests;
        self.input(Input::Asked { connection, id, request, facts });
    }

    pub fn input(&mut self, input: Input) {
        let mut step = Step::default();
        self.broker.handle(self.now, input, &mut step);
        self.commit(step);
    }

    fn commit(&mut self, step: Step) {
        self.broker.assert_invariants();
        for change in &step.changes {
            self.disk.apply(change);
            if let Change::PutDelivery { record, was: None } = change {
                self.stored_in_order.push((record.message, record.peer));
            }
            if let Change::PutMessage(record) = change {
                let alias = format!("m{}", self.aliases.len() + 1);
                self.aliases.entry(record.head.id).or_insert(alias);
            }
        }
        for change in &step.changes {
            if !self.quiet {
                let line = self.change_line(change);
                writeln!(self.said, "    * {line}").unwrap();
            }
        }
        for effect in &step.effects {
            self.remember(effect);
            if !self.quiet {
                let line = self.effect_line(effect);
                writeln!(self.said, "    > {line}").unwrap();
            }
        }
        self.changes.extend(step.changes.iter().cloned());
        self.effects.extend(step.effects.iter().cloned());
        // What the core remembers is what the disk would give it.
        let pending =
            self.disk.deliveries.values().filter(|delivery| delivery.stage.is_pending()).count();
        let counts = self.broker.counts();
        assert_eq!(
            pending as u64,
            counts.stored + counts.leased + counts.held,
            "memory and disk agree on what waits"
        );
        let dead =
            self.disk.deliveries.values().filter(|delivery| delivery.stage == Stage::Dead).count();
        assert_eq!(dead as u64, counts.dead, "memory and disk agree on dead letters");
        assert_eq!(self.disk.messages.len() as u64, counts.messages);
    }

    fn remember(&mut self, effect: &Effect) {
        if let Effect::Reply { connection, result: Ok(Reply::Registered(registered)), .. } = effect
        {
            let program = self
                .programs
                .values_mut()
                .find(|program| program.connection == *connection)
                .expect("a known program");
            program.peer = Some(registered.peer);
            program.token = Some(registered.token);
        }
    }

    // ---- names

    pub fn message(&self, alias: &str) -> MessageId {
        let known = self.aliases.iter().find(|(_, known)| *known == alias).map(|(id, _)| *id);
        known.unwrap_or_else(|| MessageId::try_from(99u128).expect("a small number is an id"))
    }

    pub fn alias(&self, id: MessageId) -> String {
        self.aliases.get(&id).cloned().unwrap_or_else(|| "m?".to_owned())
    }

    fn program_of(&self, connection: ConnectionId) -> String {
        let found = self.programs.iter().find(|(_, program)| program.connection == connection);
        found.map_or_else(|| format!("connection-{}", connection.0), |(name, _)| name.clone())
    }

    pub fn peer(&self, id: PeerId) -> String {
        // The id of a peer that is no more may lead to another one's name.
        let retained = id <= PeerId::HUMAN || self.disk.peers.contains_key(&id) || id.is_channel();
        let name = self.broker.peer_name(id).filter(|_| retained);
        name.map_or_else(|| id.to_string(), str::to_owned)
    }

    fn text(&self, text: &str) -> String {
        self.aliases.iter().fold(text.replace('\n', " ⏎ "), |text, (id, alias)| {
            text.replace(&id.to_string(), alias)
        })
    }

    fn change_line(&self, change: &Change) -> String {
        match change {
            Change::PutMessage(record) => {
                let head = &record.head;
                let reply =
                    head.reply_to.map_or(String::new(), |id| format!(" re {}", self.alias(id)));
                let via = head.from.via.as_str();
                let text = self.text(&record.text);
                let kind = match head.kind {
                    Kind::Message | Kind::Notice => head.intent.as_str().to_owned(),
                    other => format!("{} ({})", other.as_str(), head.intent.as_str()),
                };
                let channel =
                    head.channel.as_ref().map_or(String::new(), |channel| format!(" in {channel}"));
                let sources = if head.sources.is_empty() {
                    String::new()
                } else {
                    format!(" by {}", head.sources.join(", "))
                };
                format!(
                    "message {} from {} ({via}) {kind}{channel}{reply}{sources}: {text}",
                    self.alias(head.id),
                    head.from.name
                )
            }
            Change::PutDelivery { record, .. } => {
                let mut line = format!(
                    "delivery {} to {} {}",
                    self.alias(record.message),
                    self.peer(record.peer),
                    record.stage.as_str()
                );
                if record.attempts > 0 {
                    write!(line, " attempts={}", record.attempts).unwrap();
                }
                if record.acked_at.is_some() {
                    line += " acked";
                }
                if let Some(answer) = record.answered_by {
                    write!(line, " answered-by={}", self.alias(answer)).unwrap();
                }
                if let Some(last) = record.trace.last() {
                    let carrier = last.carrier.map_or("", Carrier::as_str);
                    let cause = last.cause.map_or("", |cause| cause.as_str());
                    write!(
                        line,
                        " ({})",
                        [last.event.as_str(), carrier, cause]
                            .join(" ")
                            .split_whitespace()
                            .collect::<Vec<_>>()
                            .join(" ")
                    )
                    .unwrap();
                }
                line
            }
            Change::RemoveDelivery { message, peer, .. } => {
                format!("no delivery {} to {}", self.alias(*message), self.peer(*peer))
            }
            Change::PutBroker(_)
            | Change::PutLink(_)
            | Change::RemoveLink(_)
            | Change::PutReceipt { .. }
            | Change::RemoveReceipt(_)
            | Change::PutWithdrawn { .. }
            | Change::RemoveWithdrawn { .. } => self.link_change_line(change),
            Change::PutPeer(record) => {
                let mut line = format!("peer {}", record.name);
                if record.provisional {
                    line += " provisional";
                }
                if !record.aliases.is_empty() {
                    write!(line, " aliases={}", record.aliases.join(",")).unwrap();
                }
                if !record.seats.is_empty() {
                    let seats: Vec<String> = record
                        .seats
                        .iter()
                        .map(|seat| format!("{:?}:{}", seat.kind, seat.key))
                        .collect();
                    write!(line, " seats={}", seats.join(",")).unwrap();
                }
                if let Some(policy) = record.policy {
                    write!(line, " policy={}", policy.as_str()).unwrap();
                }
                if let Some(mode) = record.mode {
                    write!(line, " mode={}", mode.as_str()).unwrap();
                }
                if !record.merged_ids.is_empty() {
                    let merged: Vec<String> =
                        record.merged_ids.iter().map(PeerId::to_string).collect();
                    write!(line, " merged={}", merged.join(",")).unwrap();
                }
                line
            }
            Change::RemovePeer(peer) => format!("no peer {peer}"),
            Change::PutIdempotencyKey { key, message, .. } => {
                format!("key {key} names {}", self.alias(*message))
            }
            Change::PutNextPeer(peer) => format!("next peer {peer}"),
            Change::PutShared(shared) => shared_line(shared),
            Change::RemoveShared(SharedKey::Question(question)) => {
                format!("no question {}", self.alias(*question))
            }
            Change::RemoveShared(key) => format!("no {key:?}"),
            Change::PutNextTask(task) => format!("next task {task}"),
            Change::RemoveMessage(message) => format!("no message {}", self.alias(*message)),
            Change::PutKept(kept) => format!("kept {} bytes", kept.text_bytes),
            Change::PutPauses(pauses) => {
                let peers = pauses.peers.iter().map(|peer| self.peer(*peer));
                let paused: Vec<String> = peers.chain(pauses.threads.iter().cloned()).collect();
                format!("pauses all={} {}", pauses.all, paused.join(" "))
            }
            Change::PutSettings(settings) => {
                let default = settings.default_policy.map_or("as configured", Policy::as_str);
                format!(
                    "settings: default {default}, inbox socket {}",
                    allowed(settings.inbox_socket_in_bypass)
                )
            }
        }
    }

    fn effect_line(&self, effect: &Effect) -> String {
        let to = |connection: &ConnectionId| self.program_of(*connection);
        match effect {
            Effect::Reply { connection, result: Ok(reply), .. } => {
                format!("{}: {}", to(connection), self.reply_line(reply))
            }
            Effect::Reply { connection, result: Err(refusal), .. } => {
                format!("{}: refused: {}", to(connection), self.refusal_line(refusal))
            }
            Effect::Welcome { connection, authority, .. } => {
                format!("{}: welcome, {authority:?}", to(connection))
            }
            Effect::Query { connection, query, .. } => {
                format!("{}: reads {}", to(connection), self.query_line(query))
            }
            Effect::Search { connection, search, .. } => {
                format!("{}: finds {}", to(connection), self.found_line(search))
            }
            Effect::Deliver { connection, message, attempts, shown_before } => {
                let again = if *shown_before { " (shown before)" } else { "" };
                let attempts =
                    if *attempts > 0 { format!(" attempts={attempts}") } else { String::new() };
                format!("{}: gets {}{attempts}{again}", to(connection), self.alias(*message))
            }
            Effect::Forward { connection, message, to: recipients, .. } => {
                let head = &self.disk.messages[message].head;
                let names = recipients.iter().map(|to| to.clone().as_sent(head).1);
                let names: Vec<String> = names.collect();
                format!(
                    "{}: forwards {} to {}",
                    to(connection),
                    self.alias(*message),
                    names.join(", ")
                )
            }
            Effect::Push { connection, push } => {
                format!("{}: {}", to(connection), self.push_line(push))
            }
            Effect::Close { connection } => format!("{}: closed", to(connection)),
            Effect::Stop => "the broker stops".to_owned(),
        }
    }

    fn refusal_line(&self, refusal: &Refusal) -> String {
        let retry =
            refusal.retry_after_ms.map_or(String::new(), |ms| format!(" (retry after {ms} ms)"));
        format!("{}: {}{retry}", refusal.code, self.text(&refusal.to_string()))
    }

    fn reply_line(&self, reply: &Reply) -> String {
        match reply {
            Reply::Registered(registered) => {
                let mail = if registered.takes_mail { "" } else { ", without mail" };
                let notice = registered
                    .notice
                    .as_ref()
                    .map_or(String::new(), |notice| format!("; {notice}"));
                format!("is {} ({} wait{mail}){notice}", registered.name, registered.waiting)
            }
            Reply::Sent(sent) => {
                let deliveries: Vec<String> = sent
                    .deliveries
                    .iter()
                    .map(|delivery| {
                        let online = if delivery.online { "online" } else { "offline" };
                        let what = delivery.stage.map_or_else(
                            || {
                                format!(
                                    "refused: {}",
                                    delivery.refusal.as_ref().expect("a refusal").code
                                )
                            },
                            |stage| stage.as_str().to_owned(),
                        );
                        format!("{} {what} {online}", delivery.name)
                    })
                    .collect();
                let again = if sent.deduplicated { " again" } else { "" };
                format!("sent {}{again}: {}", self.alias(sent.message), deliveries.join(", "))
            }
            Reply::Received(received) => {
                let ids: Vec<String> = received.messages.iter().map(|id| self.alias(*id)).collect();
                format!("holds [{}] of {}", ids.join(" "), received.waiting)
            }
            Reply::Acked { acked, unknown } => {
                let list = |ids: &[MessageId]| {
                    ids.iter().map(|id| self.alias(*id)).collect::<Vec<_>>().join(" ")
                };
                format!("acked [{}] unknown [{}]", list(acked), list(unknown))
            }
            Reply::Peers { peers, .. } => {
                let line = |peer: &peer_proto::request::PeerInfo| {
                    let online = if peer.online { "online" } else { "offline" };
                    let carriers: Vec<String> = peer
                        .carriers
                        .iter()
                        .map(|proof| {
                            format!(
                                " {}{}",
                                proof.carrier.as_str(),
                                if proof.proven_at.is_some() { "!" } else { "?" }
                            )
                        })
                        .collect();
                    format!(
                        "{} {online} pending={} leased={}{}",
                        peer.name,
                        peer.pending,
                        peer.leased,
                        carriers.concat()
                    )
                };
                format!("peers: {}", peers.iter().map(line).collect::<Vec<_>>().join("; "))
            }
            Reply::Inbox { entries, .. } => {
                let line = |entry: &peer_proto::request::InboxEntry| {
                    format!(
                        "{} {}->{} {}",
                        self.alias(entry.message),
                        entry.from,
                        entry.to,
                        entry.stage.as_str()
                    )
                };
                format!("inbox: {}", entries.iter().map(line).collect::<Vec<_>>().join("; "))
            }
            Reply::Purged { counts, text_bytes } => {
                let counts = counts
                    .iter()
                    .filter(|(_, count)| *count > 0)
                    .map(|(kind, count)| format!("{count} {kind}, "));
                format!("purged: {}{text_bytes} bytes", counts.collect::<String>())
            }
            Reply::Paused(paused) => {
                let line = |paused: &Pausing| match paused {
                    Pausing::All => "all".to_owned(),
                    Pausing::Peer(name) => name.clone(),
                    Pausing::Thread(thread) => format!("thread {thread}"),
                };
                format!("paused: {}", paused.iter().map(line).collect::<Vec<_>>().join(", "))
            }
            Reply::Link(reply) => self.link_reply_line(reply),
            Reply::Links(links) => Self::links_line(links),
            Reply::Refusals(refusals) => {
                let line = |refused: &peer_proto::brake::RefusedSend| {
                    format!(
                        "{} from {} to {}: {}",
                        refused.code.as_str(),
                        refused.from,
                        refused.to,
                        refused.beginning
                    )
                };
                format!("refusals: {}", refusals.iter().map(line).collect::<Vec<_>>().join("; "))
            }
            Reply::Settled { deliveries } => {
                let parts: Vec<String> = deliveries
                    .iter()
                    .map(|(name, stage)| format!("{name} {}", stage.as_str()))
                    .collect();
                format!("settled: {}", parts.join(", "))
            }
            Reply::Renamed { name, .. } => format!("renamed to {name}"),
            Reply::Policies(policies) => {
                let own = policies
                    .peers
                    .iter()
                    .map(|(name, policy)| format!(", {name} {}", policy.as_str()));
                let escalation = policies.escalation.map_or("", |policy| policy.as_str());
                format!(
                    "policies: default {}, escalation {}, inbox socket {}{}",
                    policies.default.as_str(),
                    if escalation.is_empty() { "off" } else { escalation },
                    allowed(policies.inbox_socket_in_bypass),
                    own.collect::<String>()
                )
            }
            Reply::Tasks { tasks, next } => shared::tasks_line(tasks, *next),
            Reply::Note(note) => format!("note {}", shared::note_line(note)),
            Reply::Notes { notes, next } => shared::notes_line(notes, next.as_deref()),
            Reply::Channels(channels) => {
                let line = |channel: &ChannelInfo| {
                    let private = if channel.private { " private" } else { "" };
                    let joined = if channel.joined { "" } else { ", not joined" };
                    let topic = if channel.topic.is_empty() {
                        String::new()
                    } else {
                        format!(" for {:?}", channel.topic)
                    };
                    let asked = if channel.asked { ", asked" } else { "" };
                    format!(
                        "{}{private} of [{}]{topic}{joined}{asked}",
                        channel.name,
                        channel.members.join(" ")
                    )
                };
                format!("channels: {}", channels.iter().map(line).collect::<Vec<_>>().join("; "))
            }
            Reply::Questions { questions, .. } => {
                let line = |question: &QuestionInfo| {
                    let (id, state) = (self.alias(question.question), question.state.as_str());
                    let answered = question.answered.as_ref();
                    let answered = answered.map_or(String::new(), |(by, id)| {
                        format!(" by {by} with {}", self.alias(*id))
                    });
                    format!("{id} {}->{} {state}{answered}", question.from, question.to.join(","))
                };
                format!("questions: {}", questions.iter().map(line).collect::<Vec<_>>().join("; "))
            }
            Reply::Done => "done".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn query_line(&self, query: &Query) -> String {
        match query {
            Query::Text(id) => format!("the text of {}", self.alias(*id)),
            Query::Show(id) => format!("the life of {}", self.alias(*id)),
            Query::History { channel: Some(channel), .. } => {
                format!("what was said in {channel}: {}", self.history_line(query))
            }
            Query::History { peer, with, .. } => {
                let name = |ids: &[PeerId]| {
                    ids.first().map_or_else(|| "anyone".to_owned(), |peer| self.peer(*peer))
                };
                format!("what {} and {} said: {}", name(peer), name(with), self.history_line(query))
            }
            Query::Orphans { .. } => "the dead letters".to_owned(),
            Query::Note(key) => format!("the note {key}"),
            Query::Status => "the status".to_owned(),
        }
    }

    fn push_line(&self, push: &Push) -> String {
        match push {
            Push::Overdue { message, carrier } => {
                format!("overdue {} by {}", self.alias(*message), carrier.as_str())
            }
            Push::Withdrawn { message, stage } => {
                format!("withdrawn {}, {}", self.alias(*message), stage.as_str())
            }
            Push::Renamed { name } => format!("is called {name} now"),
            Push::Notice(text) => format!("notice: {text}"),
            Push::Goodbye(goodbye) => format!(
                "goodbye, {}",
                match goodbye {
                    Goodbye::Stopping => "stopping",
                    Goodbye::Kicked => "kicked",
                    Goodbye::Replaced => "replaced",
                    Goodbye::TooSlow => "too slow",
                }
            ),
            Push::Event { event, .. } => {
                format!("event {} {}", event.as_str(), self.event_line(event))
            }
            Push::Hook { call, hook } => format!("hook {call}, {}", hook.event.as_str()),
            Push::Consent { inbox_socket_in_bypass } => {
                format!("inbox socket {}", allowed(*inbox_socket_in_bypass))
            }
            Push::Link(push) => self.link_push_line(push),
            Push::Deliver(_) => unreachable!("the core says Deliver as an effect of its own"),
        }
    }

    fn event_line(&self, event: &WatchEvent) -> String {
        match event {
            WatchEvent::Delivery { delivery, what } => {
                let carrier = what
                    .carrier()
                    .map_or(String::new(), |carrier| format!(" {}", carrier.as_str()));
                let cause =
                    what.cause().map_or(String::new(), |cause| format!(" ({})", cause.as_str()));
                let text = what.text().map_or(String::new(), |text| format!(": {text}"));
                format!(
                    "{} {}->{}{carrier}{cause}{text}",
                    self.alias(delivery.message),
                    delivery.from,
                    delivery.to
                )
            }
            WatchEvent::Refused { from, to: None, code, .. } => {
                format!("{from} ({})", code.as_str())
            }
            WatchEvent::Refused { from, to: Some(to), code, .. } => {
                format!("{from}->{to} ({})", code.as_str())
            }
            WatchEvent::PeerOnline { peer }
            | WatchEvent::PeerOffline { peer }
            | WatchEvent::PeerForgotten { peer } => peer.clone(),
            WatchEvent::PeerRenamed { peer, new_name } => format!("{peer}->{new_name}"),
            WatchEvent::PeerChanged { peer, news } => format!("{peer} ({news})"),
            WatchEvent::TaskChanged { task, assignee: None, state } => {
                format!("{task} ({})", state.as_str())
            }
            WatchEvent::TaskChanged { task, assignee: Some(assignee), state } => {
                format!("{task}->{assignee} ({})", state.as_str())
            }
            WatchEvent::Paused(what) | WatchEvent::Resumed(what) => match what {
                Pausing::All => "all".to_owned(),
                Pausing::Peer(peer) => peer.clone(),
                Pausing::Thread(_) => String::new(),
            },
            WatchEvent::Loop { turns, .. } => format!(" ({turns} turns)"),
            WatchEvent::Damaged { what } => format!(" ({what})"),
        }
    }
}

fn shared_line(shared: &SharedRecord) -> String {
    match shared {
        SharedRecord::Channel(record) => {
            let members: Vec<String> = record.members.iter().map(PeerId::to_string).collect();
            format!("channel {} of {}", record.name, members.join(" "))
        }
        SharedRecord::Question(record) => format!("question {}", record.state.as_str()),
        SharedRecord::Task(record) => {
            format!("task {} {}: {}", record.id, record.state.as_str(), record.title)
        }
        SharedRecord::Note(record) => {
            format!("note {} version {}", record.head.key, record.head.version)
        }
    }
}

pub fn digest(token: Token) -> TokenDigest {
    TokenDigest(token.0.map(|byte| !byte))
}

fn allowed(yes: bool) -> &'static str {
    if yes { "allowed" } else { "not allowed" }
}
