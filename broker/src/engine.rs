//! The engine: the one thread that owns the rules and the store.
//!
//! Takes the inputs that have arrived, applies each to the core, and commits all changes of the
//! batch in one transaction. Only then it carries out the effects, in order. While one commit runs,
//! the next batch gathers: this is the group commit, and it needs no timer. Knows neither sockets
//! nor rules.
//!
//! Invariants: nothing is visible before it is durable. After a failed commit, no effect is carried
//! out and the broker ends, because memory would be ahead of the disk. Programs connect again and
//! resend under their idempotency keys. An idle engine sleeps without a timeout and writes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use peer_core::broker::Broker;
use peer_core::input::{ConnectionId, Damaged, Facts, Input, Lookups, Now};
use peer_core::record::{MessageRecord, TokenDigest};
use peer_core::rejection::Rejection;
use peer_core::retention::SWEEP_ROWS_MAX;
use peer_core::step::{Change, Effect, Step};
use peer_proto::channel::ChannelRequest;
use peer_proto::ids::{MessageId, Token};
use peer_proto::limits::DISK_RESERVE_BYTES;
use peer_proto::link::{LinkPush, LinkRequest};
use peer_proto::message::Delivery;
use peer_proto::note::NoteRequest;
use peer_proto::refusal::Refusal;
use peer_proto::request::{Authority, ClientFrame, Goodbye, Push, Reply, Request, Status, Welcome};
use peer_proto::task::TaskRequest;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::clock::Clock;
use crate::connection::bad_frame;
use crate::frames::Frame;
use crate::mail::{mail, mail_digest};
use crate::outbox::Outbox;
use crate::readings::{ReadingState, Readings};
use crate::search::{SearchOrigin, Searching};
use crate::store::{RecordName, Snapshot, Store, StoreError, Walk};
use crate::telemetry::Throttle;
use crate::turns::{Arrival, TurnQueue};
use crate::{ancestry, query, state_dir, telemetry};

#[cfg(test)]
mod tests;

/// The most inputs in one batch. Beyond it a commit costs more per message, and the first of them
/// wait longer.
const BATCH_INPUTS_MAX: usize = 256;

/// The most bytes of requests in one batch, so that a transaction stays small in memory.
const BATCH_REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// How long one batch takes inputs. A request waits about that long for the others of its batch.
const BATCH_US_MAX: u64 = 10_000;

/// How long the engine reads between two batches.
const READING_US_MAX: u64 = 2_000;

/// The most batches, with readings between them, after the end was requested.
const LAST_BATCHES_MAX: usize = 64;

/// How long the engine must be idle after a commit before it prepares the store for a quick start
/// after a kill.
const CHECKPOINT_IDLE_MS: u64 = 1_000;

/// Commits whose times `status` reports.
const COMMIT_TIMES_KEPT: usize = 256;

/// The broker's own data in `Welcome` and `Status`.
#[derive(Clone, Debug)]
pub(crate) struct BrokerIdentity {
    pub(crate) executable: String,
    pub(crate) dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) sandbox: bool,
    /// The settings that are in force.
    pub(crate) config: Vec<(String, String)>,
    /// The reason why they differ from the file.
    pub(crate) config_fault: Option<String>,
}

pub(crate) struct Engine {
    clock: Clock,
    broker: Broker,
    store: Store,
    searching: Searching,
    arrivals: TurnQueue,
    readings: Readings,
    lines: BTreeMap<ConnectionId, RegisteredConnection>,
    warnings: Throttle,
    /// Connections that sent an invalid frame, and still wait for answers.
    leaving: Vec<ConnectionId>,
    identity: BrokerIdentity,
    step: Step,
    /// Counts commits, so that outboxes can tell a burst from a backlog.
    batch: u64,
    /// In microseconds, latest last.
    commit_times: VecDeque<u64>,
    /// When the store is to be checkpointed, on the monotonic clock. `None`: nothing was written
    /// since the last checkpoint.
    checkpoint_at_ms: Option<u64>,
    /// The rest of a database that was too large to be checked at the start.
    walk: Option<Walk>,
    /// Messages that were to be pushed and cannot be read.
    undeliverable: Vec<MessageId>,
    /// The time, on the monotonic clock, from which the engine is idle if nothing arrives.
    quiet_at_ms: u64,
    stopping: bool,
}

/// A connection that sent `Hello`.
struct RegisteredConnection {
    outbox: Outbox,
    protocol: u16,
    /// It sent an invalid frame: nothing more is read from it. Once everything before is answered,
    /// it gets this refusal.
    last_word: Option<Refusal>,
}

impl Engine {
    pub(crate) fn new(
        clock: Clock,
        broker: Broker,
        store: Store,
        searching: Searching,
        arrivals: TurnQueue,
        identity: BrokerIdentity,
    ) -> Self {
        Self {
            clock,
            broker,
            walk: store.walk(),
            store,
            searching,
            arrivals,
            readings: Readings::default(),
            lines: BTreeMap::new(),
            warnings: Throttle::default(),
            leaving: Vec::new(),
            identity,
            step: Step::default(),
            batch: 0,
            commit_times: VecDeque::with_capacity(COMMIT_TIMES_KEPT),
            // Opening may have written.
            checkpoint_at_ms: Some(CHECKPOINT_IDLE_MS),
            undeliverable: Vec::new(),
            quiet_at_ms: CHECKPOINT_IDLE_MS,
            stopping: false,
        }
    }

    /// Runs until it must stop or fails. Then closes every connection, and sends each the reason if
    /// it can act on it.
    pub(crate) fn run(mut self) -> Result<(), EngineError> {
        let worked = self.work_until_told();
        for (connection, line) in &self.lines {
            match &worked {
                Ok(()) => line.outbox.push(self.batch, Push::Goodbye(Goodbye::Stopping)),
                // Pending requests all get this answer, under the id that no request has.
                Err(EngineError::Commit(error)) if error.is_no_space() => {
                    let addressee = self.broker.addressee(*connection);
                    line.outbox.reply(0, Err(Rejection::NothingStored.refusal(addressee)));
                }
                Err(_) => {}
            }
            line.outbox.close();
        }
        worked?;
        self.store.checkpoint(Some(&self.broker.kept())).map_err(EngineError::Commit)
    }

    fn work_until_told(&mut self) -> Result<(), EngineError> {
        // Set aside the damage that was found on opening, before any request can ask for it.
        self.commit_batch()?;
        while !self.stopping {
            let first = self.wait();
            self.work(first)?;
        }
        // Requests that arrived before the end are still answered, up to a limit.
        for _ in 0..LAST_BATCHES_MAX {
            self.arrivals.wait(Some(Duration::ZERO));
            let last = self.arrivals.next();
            if last.is_none() && !self.readings.can_go_on(|connection| self.place(connection)) {
                break;
            }
            self.work(last)?;
        }
        Ok(())
    }

    /// Sleeps until something arrives, is due or can be read.
    fn wait(&self) -> Option<Arrival> {
        let now = self.clock.now();
        let reading_ms = self.readings.can_go_on(|connection| self.place(connection)).then_some(0);
        let checkpoint_ms = self.checkpoint_at_ms.map(|at| at.saturating_sub(now.mono_ms));
        let quiet_ms = self.quiet_at_ms.saturating_sub(now.mono_ms);
        let sweep_ms = self
            .broker
            .poll_sweep(now)
            .map(|sweep| if sweep.is_asked { 0 } else { sweep.in_ms.max(quiet_ms) });
        let walk_ms = self.walk.as_ref().map(|_| quiet_ms);
        let due_ms = [self.broker.poll_timeout(now), checkpoint_ms, sweep_ms, reading_ms, walk_ms]
            .into_iter()
            .flatten()
            .min();
        self.arrivals.wait(due_ms.map(Duration::from_millis));
        self.arrivals.next()
    }

    /// Runs one batch: everything that is due, `first`, and everything that arrived since.
    fn work(&mut self, first: Option<Arrival>) -> Result<(), EngineError> {
        let now = self.clock.now();
        if first.is_none() && self.checkpoint_at_ms.is_some_and(|at| at <= now.mono_ms) {
            self.store.trim_reindex(self.searching.seen_row()).map_err(EngineError::Commit)?;
            self.store.checkpoint(Some(&self.broker.kept())).map_err(EngineError::Commit)?;
            self.checkpoint_at_ms = None;
            self.searching.go_on();
        }
        self.sweep(now, first.is_none())?;
        self.read_on(now, first.is_none())?;
        self.broker.handle_timeout(now, &mut self.step);
        let (mut inputs, mut request_bytes) = (0, 0);
        let began_us = self.clock.mono_us();
        let mut next = first;
        while let Some(arrival) = next {
            inputs += 1;
            if let Arrival::Asked { frame, .. } = &arrival {
                request_bytes += frame.bytes();
            }
            self.apply(now, arrival)?;
            let full = inputs >= BATCH_INPUTS_MAX
                || request_bytes >= BATCH_REQUEST_BYTES_MAX
                || self.clock.mono_us().saturating_sub(began_us) >= BATCH_US_MAX;
            next = if full { None } else { self.arrivals.next() };
        }
        if inputs > 0 {
            self.quiet_at_ms = now.mono_ms + CHECKPOINT_IDLE_MS;
            self.checkpoint_at_ms = self.checkpoint_at_ms.map(|_| self.quiet_at_ms);
        }
        self.commit_batch()?;
        self.read()
    }

    /// Works on readings for a moment, a piece for each connection in turn.
    fn read(&mut self) -> Result<(), EngineError> {
        let until_us = self.clock.mono_us() + READING_US_MAX;
        loop {
            let lines = &self.lines;
            let Some((connection, mut reading)) =
                self.readings.next(|connection| place(lines, connection))
            else {
                break;
            };
            let Some(line) = self.lines.get(&connection) else { continue };
            let status = || self.status(line.protocol);
            let (query, progress) = (&reading.query, &mut reading.progress);
            let answer = self.read_store(|store| {
                query::answer(store, &self.broker, connection, query, progress, status)
            })?;
            match answer {
                Some(result) => line.outbox.reply(reading.id, result),
                None => self.readings.put_back(connection, reading),
            }
            if self.clock.mono_us() >= until_us {
                break;
            }
        }
        self.see_off();
        // Set aside the damage that was found during the reading.
        self.commit_batch()
    }

    fn place(&self, connection: ConnectionId) -> ReadingState {
        place(&self.lines, connection)
    }

    /// Runs one step of retention if it is due. It is a commit of its own, because it must read
    /// what is stored.
    fn sweep(&mut self, now: Now, idle: bool) -> Result<(), EngineError> {
        let quiet = idle && self.quiet_at_ms <= now.mono_ms;
        let due = self
            .broker
            .poll_sweep(now)
            .filter(|sweep| sweep.is_asked || (sweep.in_ms == 0 && quiet));
        let Some(due) = due else { return Ok(()) };
        let (rows, next) =
            self.read_store(|store| store.stored_after(due.after, SWEEP_ROWS_MAX))?;
        if let Some(gone) = self.broker.sweep(now, &rows, next, &mut self.step) {
            tracing::info!(?gone, "deleted messages whose retention had ended");
        }
        self.commit_batch()
    }

    /// Runs one step of the check of a large database, if the engine is idle. Sets aside the damage
    /// that it finds.
    fn read_on(&mut self, now: Now, idle: bool) -> Result<(), EngineError> {
        let Some(walk) = self.walk.as_mut().filter(|_| idle && self.quiet_at_ms <= now.mono_ms)
        else {
            return Ok(());
        };
        if !self.store.read_on(walk).map_err(EngineError::Read)? {
            tracing::info!(
                records = walk.records(),
                damaged = self.store.damaged(),
                "every record of the database was read"
            );
            self.walk = None;
        }
        self.commit_batch()
    }

    fn apply(&mut self, now: Now, arrival: Arrival) -> Result<(), EngineError> {
        let input = match arrival {
            Arrival::Hello { connection, id, hello, protocol, ancestors, outbox } => {
                self.lines
                    .insert(connection, RegisteredConnection { outbox, protocol, last_word: None });
                Input::Connected { connection, id, role: hello.role, ancestors, seat: hello.seat }
            }
            Arrival::Asked { connection, frame } => {
                let Some(ClientFrame { id, request }) = self.decoded(connection, &frame) else {
                    return Ok(());
                };
                if lists(&request) {
                    self.arrivals.rest(connection);
                }
                // Requests that a program wrote before it died still count. An adapter reports what
                // it is about to show, and may be killed right after showing it
                // (docs/adr/0006-offered-is-reported-before-the-bytes-leave.md).
                let lookups = self.broker.lookups(connection, &request);
                if self.step.outdates(&lookups) {
                    self.commit_batch()?;
                }
                let facts = self.facts(&request, lookups)?;
                Input::Asked { connection, id, request, facts }
            }
            Arrival::Gone { connection } => {
                self.lines.remove(&connection);
                Input::Disconnected { connection }
            }
            Arrival::Stop => {
                self.stopping = true;
                return Ok(());
            }
        };
        self.broker.handle(now, input, &mut self.step);
        Ok(())
    }

    /// Decodes a frame. `None`: it is invalid, and its connection gets a refusal.
    fn decoded(&mut self, connection: ConnectionId, frame: &Frame) -> Option<ClientFrame> {
        let line = self.lines.get_mut(&connection).filter(|line| line.last_word.is_none())?;
        match frame.decode() {
            Ok(heard) => Some(heard),
            Err(error) => {
                if let Some(unsaid) = self.warnings.due("frame") {
                    tracing::warn!(connection = connection.0, cause = %error, unsaid, "connection ended");
                }
                line.last_word = Some(bad_frame(&error));
                self.leaving.push(connection);
                None
            }
        }
    }

    /// Ends the connections that sent an invalid frame, as soon as their earlier requests are
    /// answered.
    fn see_off(&mut self) {
        let (lines, readings) = (&self.lines, &self.readings);
        self.leaving.retain(|connection| {
            let Some(line) = lines.get(connection) else { return false };
            let stays = readings.has(*connection);
            if let Some(last_word) = line.last_word.clone().filter(|_| !stays) {
                line.outbox.reply(0, Err(last_word));
                line.outbox.close();
            }
            stays
        });
    }

    /// Reads from the store as of the last commit.
    fn read_store<T>(
        &self,
        read: impl FnOnce(&Snapshot) -> Result<T, StoreError>,
    ) -> Result<T, EngineError> {
        self.store.snapshot().and_then(read).map_err(EngineError::Read)
    }

    fn facts(&self, request: &Request, lookups: Lookups) -> Result<Facts, EngineError> {
        let mut stored = BTreeMap::new();
        for id in lookups.messages {
            if let Some(message) = self.read_store(|store| store.stored(id))? {
                stored.insert(id, message);
            }
        }
        let prior = match lookups.idempotency {
            Some((sender, key)) => self.read_store(|store| store.sent_under(sender, &key))?,
            None => None,
        };
        let token = match request {
            Request::Register(_) | Request::Bind(_) => Some(fresh_token()?),
            _ => None,
        };
        let resume_digest = match request {
            Request::Register(register) => {
                register.resume.as_ref().map(|resume| digest(&resume.token))
            }
            _ => None,
        };
        // If the file system does not report its free space, the commit will fail instead.
        let stores = matches!(
            request,
            Request::Send(_)
                | Request::Ask(_)
                | Request::Answer(_)
                | Request::Task(_)
                | Request::Note(_)
                | Request::Channel(_)
                | Request::Link(LinkRequest::Take(_))
        );
        let disk_full = stores
            && state_dir::free_bytes(&self.identity.dir)
                .is_ok_and(|free| free < DISK_RESERVE_BYTES);
        let entropy = getrandom::u64().map_err(EngineError::Entropy)?;
        let note = match lookups.note {
            Some(key) => self.read_store(|store| store.note(&key))?,
            None => None,
        };
        let ended =
            lookups.processes.into_iter().filter(|process| ancestry::has_ended(*process)).collect();
        let mail_digests = match request {
            Request::Link(LinkRequest::Take(mails)) => mails.iter().map(mail_digest).collect(),
            _ => Vec::new(),
        };
        Ok(Facts {
            entropy,
            token,
            resume_digest,
            stored,
            prior,
            note,
            ended,
            disk_full,
            mail_digests,
        })
    }

    /// Commits the decisions, then carries out their effects, and sets aside the damage found by
    /// them.
    fn commit_batch(&mut self) -> Result<(), EngineError> {
        self.commit_step()?;
        // Each round sets pending deliveries aside, and they are pending no more. So the loop ends.
        loop {
            let mut found: Vec<Damaged> =
                self.store.take_damage().iter().map(|row| damaged(row, true)).collect();
            found.extend(
                self.undeliverable
                    .drain(..)
                    .map(|message| damaged(&RecordName::Message(message), false)),
            );
            if found.is_empty() {
                return Ok(());
            }
            self.broker.handle(self.clock.now(), Input::Damaged(found), &mut self.step);
            self.commit_step()?;
        }
    }

    fn commit_step(&mut self) -> Result<(), EngineError> {
        if self.step.is_empty() {
            return Ok(());
        }
        let mut step = std::mem::take(&mut self.step);
        if !step.changes.is_empty() {
            for change in &step.changes {
                telemetry::log_change(change);
            }
            self.searching.hold();
            let started_us = self.clock.mono_us();
            self.store.commit(&step.changes).map_err(EngineError::Commit)?;
            self.searching.committed();
            let ended_us = self.clock.mono_us();
            if self.commit_times.len() == COMMIT_TIMES_KEPT {
                self.commit_times.pop_front();
            }
            self.commit_times.push_back(ended_us - started_us);
            tracing::debug!(
                changes = step.changes.len(),
                elapsed_us = ended_us - started_us,
                "committed"
            );
            self.checkpoint_at_ms = Some(ended_us / 1_000 + CHECKPOINT_IDLE_MS);
        }
        self.batch += 1;
        self.carry_out(&mut step)?;
        step.clear();
        // Put the emptied step back, so that its memory is used again.
        self.step = step;
        Ok(())
    }

    fn carry_out(&mut self, step: &mut Step) -> Result<(), EngineError> {
        let fresh: BTreeMap<MessageId, &MessageRecord> =
            step.changes.iter().filter_map(put_message).collect();
        for effect in step.effects.drain(..) {
            telemetry::log_effect(&effect);
            match effect {
                Effect::Reply { connection, id, result } => {
                    let Some(line) = self.lines.get(&connection) else { continue };
                    line.outbox.reply(id, result);
                }
                Effect::Welcome { connection, id, authority } => {
                    let Some(line) = self.lines.get(&connection) else { continue };
                    line.outbox.reply(id, Ok(Reply::Welcome(self.welcome(authority))));
                }
                Effect::Query { connection, id, query } => self.readings.add(connection, id, query),
                Effect::Search { connection, id, search } => {
                    let Some(line) = self.lines.get(&connection) else { continue };
                    let asker = SearchOrigin {
                        outbox: line.outbox.clone(),
                        id,
                        addressee: self.broker.addressee(connection),
                    };
                    self.searching.ask(asker, search, self.clock.now().wall);
                }
                Effect::Deliver { connection, message, attempts, shown_before } => {
                    if !self.lines.contains_key(&connection) {
                        continue;
                    }
                    let Some(record) = self.text_of(&fresh, message)? else { continue };
                    let Some(line) = self.lines.get(&connection) else { continue };
                    let delivery =
                        Delivery { message: record.into_message(), attempts, shown_before };
                    line.outbox.push(self.batch, Push::Deliver(Box::new(delivery)));
                }
                Effect::Forward { connection, message, to, own, channel } => {
                    if !self.lines.contains_key(&connection) {
                        continue;
                    }
                    let Some(record) = self.text_of(&fresh, message)? else { continue };
                    let Some(line) = self.lines.get(&connection) else { continue };
                    let mail = Box::new(mail(record, own, to, channel));
                    line.outbox.push(self.batch, Push::Link(LinkPush::Mail(mail)));
                }
                Effect::Push { connection, push } => {
                    let Some(line) = self.lines.get(&connection) else { continue };
                    line.outbox.push(self.batch, push);
                }
                Effect::Close { connection } => {
                    let Some(line) = self.lines.get(&connection) else { continue };
                    line.outbox.close();
                }
                Effect::Stop => self.stopping = true,
            }
        }
        Ok(())
    }

    /// Returns a message that is to be pushed. `None`: it is damaged, and is set aside.
    fn text_of(
        &mut self,
        fresh: &BTreeMap<MessageId, &MessageRecord>,
        message: MessageId,
    ) -> Result<Option<MessageRecord>, EngineError> {
        let record = match fresh.get(&message) {
            Some(record) => Some((*record).clone()),
            None => self.read_store(|store| store.message(message))?,
        };
        if record.is_none() {
            // Damaged, or gone: message and delivery are written in one transaction. The mail of
            // other peers goes on.
            self.read_store(|store| {
                store.record_missing(RecordName::Message(message));
                Ok(())
            })?;
            self.undeliverable.push(message);
        }
        Ok(record)
    }

    fn welcome(&self, authority: Authority) -> Welcome {
        Welcome {
            version: env!("CARGO_PKG_VERSION").into(),
            executable: self.identity.executable.clone(),
            pid: std::process::id(),
            authority,
        }
    }

    fn status(&self, protocol: u16) -> Status {
        let mut times: Vec<u64> = self.commit_times.iter().copied().collect();
        times.sort_unstable();
        let counts = self.broker.counts();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol,
            pid: std::process::id(),
            uptime_ms: self.clock.now().mono_ms,
            socket: self.identity.socket.display().to_string(),
            dir: self.identity.dir.display().to_string(),
            executable: self.identity.executable.clone(),
            sandbox: self.identity.sandbox,
            peers_online: counts.peers_online,
            peers_offline: counts.peers_offline,
            stored: counts.stored,
            leased: counts.leased,
            held: counts.held,
            dead: counts.dead,
            messages_total: counts.messages,
            oldest_at: counts.oldest_at,
            commit_us_p50: times.get(times.len() / 2).copied().unwrap_or(0),
            commit_us_max: times.last().copied().unwrap_or(0),
            disk_free_bytes: state_dir::free_bytes(&self.identity.dir).unwrap_or(0),
            paused: counts.paused,
            refused: counts.refused,
            used_up: counts.used_up,
            config: self.identity.config.clone(),
            config_fault: self.identity.config_fault.clone(),
            damaged: self.store.damaged(),
        }
    }
}

fn damaged(row: &RecordName, is_news: bool) -> Damaged {
    Damaged { what: row.to_string(), stops: row.stops(), is_news }
}

/// Whether a connection's reading may go on.
fn place(
    lines: &BTreeMap<ConnectionId, RegisteredConnection>,
    connection: ConnectionId,
) -> ReadingState {
    match lines.get(&connection) {
        Some(line) if line.outbox.is_ending() => ReadingState::Gone,
        Some(line) if line.outbox.is_crowded() => ReadingState::Crowded,
        Some(_) => ReadingState::Free,
        None => ReadingState::Gone,
    }
}

/// Whether the answer to a request may be large. Then its connection gets one such answer per
/// batch.
fn lists(request: &Request) -> bool {
    match request {
        Request::Peers(_)
        | Request::Inbox { .. }
        | Request::Policies
        | Request::Questions(_)
        | Request::Refusals => true,
        Request::Channel(request) => matches!(request, ChannelRequest::List),
        Request::Task(request) => matches!(request, TaskRequest::List(_)),
        Request::Note(request) => matches!(request, NoteRequest::List { .. }),
        _ => false,
    }
}

fn put_message(change: &Change) -> Option<(MessageId, &MessageRecord)> {
    match change {
        Change::PutMessage(record) => Some((record.head.id, record)),
        _ => None,
    }
}

fn fresh_token() -> Result<(Token, TokenDigest), EngineError> {
    let mut token = Token([0; 32]);
    getrandom::fill(&mut token.0).map_err(EngineError::Entropy)?;
    let digest = digest(&token);
    Ok((token, digest))
}

fn digest(token: &Token) -> TokenDigest {
    TokenDigest(Sha256::digest(token.0).into())
}

/// The reason why the engine ended by itself. The disk holds everything that was acknowledged.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A batch did not become durable, and no effect of it is visible.
    #[error("cannot write to the store; no accepted message is lost")]
    Commit(#[source] StoreError),
    /// The store cannot be read.
    #[error("cannot read from the store")]
    Read(#[source] StoreError),
    /// The system has no random bits.
    #[error("cannot draw random bits from the system")]
    Entropy(#[source] getrandom::Error),
}

impl EngineError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Commit(_) => "fix the cause; the next command then starts the broker".to_owned(),
            Self::Read(_) => "stop the broker and run `peerctl daemon verify`".to_owned(),
            Self::Entropy(_) => String::new(),
        }
    }
}
