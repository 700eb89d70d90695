//! What comes from the server, and whom it is for.
//!
//! Knows the members that were heard of and their connections. Does not decide when to call one.
//! Invariants: nothing is believed before its box opened for the sender that the subject names. What
//! belongs to no present connection is acknowledged to the server and dropped: the brokers ask again
//! for what they need.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::Acker;
use async_nats::jetstream::{self, AckKind};
use async_nats::{Client, Event, HeaderMap, Message, ServerError};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peer_proto::codec;
use peer_proto::handshake::{FIXED_BYTES, LINK_MAGIC, Preface};
use peer_proto::ids::BrokerId;
use peer_proto::link::{Frame, Mail};
use tokio::sync::{Notify, mpsc, watch};

use crate::seal::{OpenError, Said, SealError, Sealer, SessionName, random};
use crate::session::{Arrived, Handed, SessionIn, SessionOut, halves};
use crate::stock;
use crate::team::{Member, TeamError, TeamNews, now};

/// How far the clock of a caller may be off. The link itself allows less.
const CALL_AGE_MS: u64 = 120_000;

/// How many calls are remembered, so that a repeat of one does nothing.
const CALLS_KEPT: usize = 1_024;

/// How many senders whose words are not accepted are told of.
const REFUSALS_KEPT: usize = 64;

/// A member that was heard of.
#[derive(Default)]
struct Remote {
    public: Option<[u8; 32]>,
    live: Option<Live>,
    /// A connection that the other member made, and nobody serves yet.
    ready: Option<(SessionIn, SessionOut)>,
    /// What came for a call that is not answered yet.
    calling: Option<Calling>,
    /// It showed itself.
    stirred: Arc<Notify>,
    /// Letters from it that wait to be taken, and who is told of a new one.
    letters: VecDeque<Letter>,
    letter_came: Arc<Notify>,
}

/// A call that is not answered yet: the caller's half of the connection's name, and what came for it.
struct Calling {
    half: [u8; 16],
    kept: Vec<(SessionName, Arrived)>,
}

/// A message that came without a connection.
pub struct Letter {
    /// The message.
    pub mail: Mail,
    /// What the sending machine calls itself.
    pub name: String,
    acker: Acker,
}

/// A connection that is served.
struct Live {
    name: SessionName,
    pieces: mpsc::UnboundedSender<Handed>,
}

/// One member's connection to the server, as all its parts see it.
pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) context: jetstream::Context,
    pub(crate) sealer: Sealer,
    pub(crate) team: String,
    pub(crate) name: String,
    pub(crate) software: String,
    pub(crate) preface: Preface,
    pub(crate) run: [u8; 16],
    remotes: Mutex<BTreeMap<BrokerId, Remote>>,
    calls: Mutex<Vec<[u8; 16]>>,
    news: mpsc::UnboundedSender<TeamNews>,
    /// What the server refused last.
    refused: Mutex<Option<String>>,
    /// Whose words were not accepted, and why: each is told once.
    refusals: Mutex<BTreeMap<BrokerId, OpenError>>,
    acks: mpsc::UnboundedSender<Acker>,
    confirmations: mpsc::UnboundedSender<Confirmation>,
    /// Why the connection to the server ended.
    end: watch::Sender<Option<Arc<TeamError>>>,
}

/// A publication that the server has not confirmed yet.
pub(crate) struct Confirmation {
    to: BrokerId,
    session: Option<SessionName>,
    future: PublishAckFuture,
}

/// The other ends of what [`Inner`] sends.
pub(crate) struct Ends {
    pub(crate) acks: mpsc::UnboundedReceiver<Acker>,
    pub(crate) confirmations: mpsc::UnboundedReceiver<Confirmation>,
}

/// What [`Inner`] is made of.
pub(crate) struct Parts {
    pub(crate) client: Client,
    pub(crate) context: jetstream::Context,
    pub(crate) sealer: Sealer,
    pub(crate) team: String,
    pub(crate) name: String,
    pub(crate) software: String,
    pub(crate) preface: Preface,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub(crate) fn new(
        parts: Parts,
        news: mpsc::UnboundedSender<TeamNews>,
    ) -> Result<(Arc<Self>, Ends), SealError> {
        let Parts { client, context, sealer, team, name, software, preface } = parts;
        let (acks, acks_end) = mpsc::unbounded_channel();
        let (confirmations, confirmations_end) = mpsc::unbounded_channel();
        let inner = Self {
            client,
            context,
            sealer,
            team,
            name,
            software,
            preface,
            run: random()?,
            remotes: Mutex::default(),
            calls: Mutex::default(),
            news,
            refused: Mutex::default(),
            refusals: Mutex::default(),
            acks,
            confirmations,
            end: watch::Sender::new(None),
        };
        Ok((Arc::new(inner), Ends { acks: acks_end, confirmations: confirmations_end }))
    }

    pub(crate) fn own(&self) -> BrokerId {
        self.sealer.own
    }

    // ---- the connection to the server

    /// Ends everything. The first reason counts.
    pub(crate) fn fail(&self, error: TeamError) {
        let error = Arc::new(error);
        let is_first = self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            if is_first {
                *end = Some(Arc::clone(&error));
            }
            is_first
        });
        if !is_first {
            return;
        }
        let mut unserved = Vec::new();
        for remote in locked(&self.remotes).values_mut() {
            remote.hang_up(&error.to_string());
            remote.stirred.notify_one();
            unserved.extend(remote.ready.take());
        }
        drop(unserved);
    }

    /// Waits until the connection to the server has ended.
    pub(crate) async fn failed(&self) -> Arc<TeamError> {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or_else(|| Arc::new(TeamError::lost())),
            Err(_) => Arc::new(TeamError::lost()),
        }
    }

    /// What the client of the server tells.
    pub(crate) fn event(&self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.fail(TeamError::lost()),
            // The call that it is about only times out, so its reason is kept for it.
            Event::ServerError(ServerError::Other(text)) => {
                *locked(&self.refused) = Some(text);
            }
            Event::ServerError(ServerError::AuthorizationViolation) => {
                self.fail(TeamError::Denied("the server ended the connection".to_owned()));
            }
            _ => {}
        }
    }

    /// An error of a call, with what the server refused, if it did.
    pub(crate) fn because(&self, doing: &str, error: impl std::fmt::Display) -> TeamError {
        match locked(&self.refused).take() {
            Some(refused) => TeamError::Denied(format!("{doing}: {refused}")),
            None => TeamError::Server(format!("{doing}: {error}")),
        }
    }

    pub(crate) fn acknowledge(&self, ackers: Vec<Acker>) {
        for acker in ackers {
            // Without its task the server sends them again.
            let _ = self.acks.send(acker);
        }
    }

    /// Seals and publishes. The server's confirmation is awaited elsewhere: only its absence counts.
    pub(crate) async fn post(
        &self,
        (to, public): (BrokerId, [u8; 32]),
        said: Said,
        session: Option<SessionName>,
    ) -> Result<(), TeamError> {
        let future = self.publish((to, public), said).await?;
        let _ = self.confirmations.send(Confirmation { to, session, future });
        Ok(())
    }

    async fn publish(
        &self,
        (to, public): (BrokerId, [u8; 32]),
        said: Said,
    ) -> Result<PublishAckFuture, TeamError> {
        let subject = stock::mail(&self.team, to, self.own());
        // It covers a repeat of this publication by the client. A later try has another one.
        let mut headers = HeaderMap::new();
        let id: [u8; 16] = random()?;
        headers.insert("Nats-Msg-Id", format!("{:032x}", u128::from_be_bytes(id)));
        let bytes = self.sealer.seal(&public, said)?;
        self.context
            .publish_with_headers(subject, headers, bytes.into())
            .await
            .map_err(|error| self.because("sending", error))
    }

    fn unconfirmed(
        &self,
        to: BrokerId,
        session: Option<SessionName>,
        kind: PublishErrorKind,
        text: &str,
    ) {
        let error = self.because("the server did not store what was sent", text);
        let mut remotes = locked(&self.remotes);
        let remote = remotes.entry(to).or_default();
        let is_full = text.contains("maximum messages per subject exceeded");
        if session.is_some_and(|name| remote.is(name)) {
            let why = if is_full {
                "the other machine has fetched none of the last 1000 parts that were sent"
                    .to_owned()
            } else {
                error.to_string()
            };
            remote.hang_up(&why);
        }
        drop(remotes);
        // A full mailbox concerns its pair alone. Anything else, such as a missing stream, all.
        if !is_full || kind == PublishErrorKind::StreamNotFound {
            self.fail(error);
        }
    }

    // ---- members

    /// A member was heard of. Its key is known from now on.
    pub(crate) fn heard_of(&self, id: BrokerId, public: [u8; 32], name: Option<String>) {
        let is_new = {
            let mut remotes = locked(&self.remotes);
            let remote = remotes.entry(id).or_default();
            remote.public.replace(public).is_none()
        };
        if is_new && id != self.own() {
            let _ = self.news.send(TeamNews::Member(Member { id, name }));
        }
        // Another key is a state that ends. Anything else was an attack, or an accident, and stays told.
        let mut refusals = locked(&self.refusals);
        if refusals.get(&id) == Some(&OpenError::TeamKey) {
            refusals.remove(&id);
            let _ = self.news.send(TeamNews::Accepted { id });
        }
    }

    /// What came from somebody is not accepted. It is told once, however often it comes.
    pub(crate) fn refused_of(&self, id: BrokerId, why: &OpenError) {
        let mut refusals = locked(&self.refusals);
        if refusals.get(&id) == Some(why) || refusals.len() >= REFUSALS_KEPT {
            return;
        }
        refusals.insert(id, why.clone());
        let _ = self.news.send(TeamNews::Refused { id, why: why.to_string() });
    }

    pub(crate) fn public_of(&self, id: BrokerId) -> Option<[u8; 32]> {
        locked(&self.remotes).get(&id).and_then(|remote| remote.public)
    }

    pub(crate) fn stirred(&self, id: BrokerId) -> Arc<Notify> {
        Arc::clone(&locked(&self.remotes).entry(id).or_default().stirred)
    }

    /// A connection that the other member made.
    pub(crate) fn take_ready(&self, id: BrokerId) -> Option<(SessionIn, SessionOut)> {
        locked(&self.remotes).get_mut(&id).and_then(|remote| remote.ready.take())
    }

    /// What comes for this call is kept until it is answered.
    pub(crate) fn begin_call(&self, id: BrokerId, half: [u8; 16]) {
        let mut remotes = locked(&self.remotes);
        let remote = remotes.entry(id).or_default();
        remote.hang_up("it began anew");
        remote.calling = Some(Calling { half, kept: Vec::new() });
    }

    /// The call was answered: the connection is there. `None`: it was not.
    pub(crate) fn end_call(
        self: &Arc<Self>,
        id: BrokerId,
        answered: Option<(SessionName, [u8; 32])>,
    ) -> Option<(SessionIn, SessionOut)> {
        let mut remotes = locked(&self.remotes);
        let remote = remotes.entry(id).or_default();
        let kept = remote.calling.take().map(|calling| calling.kept).unwrap_or_default();
        let (name, public) = answered?;
        let (sender, pieces) = mpsc::unbounded_channel();
        for (_, arrived) in kept.into_iter().filter(|(session, _)| *session == name) {
            let _ = sender.send(Handed::Piece(Box::new(arrived)));
        }
        remote.live = Some(Live { name, pieces: sender });
        drop(remotes);
        self.drop_letters(id);
        Some(halves(self, name, (id, public), pieces))
    }

    /// Nobody serves this connection any more.
    pub(crate) fn ended(&self, id: BrokerId, name: SessionName) {
        // It may be called while a connection is replaced, which holds the lock: that one is not
        // the present one any more.
        if let Ok(mut remotes) = self.remotes.try_lock()
            && let Some(remote) = remotes.get_mut(&id)
            && remote.is(name)
        {
            remote.live = None;
        }
    }

    // ---- what comes

    /// A message of the stream.
    fn mail(&self, message: jetstream::Message) {
        let (message, acker) = message.split();
        let (from, bytes) = match stock::parties(&self.team, &message.subject) {
            Some((from, to)) if to == self.own() => (from, message.payload),
            _ => return self.acknowledge(vec![acker]),
        };
        match self.sealer.open(Some(from), &bytes) {
            Ok((public, Said::Piece { session, number, last, bytes })) => {
                self.heard_of(from, public, None);
                self.piece(from, session, Arrived { number, last, bytes, acker });
            }
            Ok((public, Said::Letter { name, frame })) => {
                self.heard_of(from, public, Some(name.clone()));
                self.letter(from, name, &frame, acker);
            }
            // Something that belongs elsewhere: a repeat of a request, or of another version.
            Ok(_) => self.acknowledge(vec![acker]),
            Err(why) => {
                self.acknowledge(vec![acker]);
                self.refused_of(from, &why);
            }
        }
    }

    /// A letter is kept for whoever serves its sender. While a connection to it is up, the letter is
    /// not needed: the sender still has the message, and sends it there.
    fn letter(&self, from: BrokerId, name: String, frame: &[u8], acker: Acker) {
        let mut remotes = locked(&self.remotes);
        let remote = remotes.entry(from).or_default();
        match codec::decode(frame) {
            Ok(Frame::Mail(mail)) if remote.live.is_none() => {
                // The server repeats what was not taken in time.
                remote.letters.retain(|letter| letter.mail.id != mail.id);
                remote.letters.push_back(Letter { mail: *mail, name, acker });
                remote.letter_came.notify_one();
            }
            _ => self.acknowledge(vec![acker]),
        }
    }

    /// Publishes a letter, and waits until the server has it. It is no promise: the sender's broker
    /// keeps the message.
    pub(crate) async fn post_letter(
        &self,
        to: (BrokerId, [u8; 32]),
        mail: Mail,
    ) -> Result<(), TeamError> {
        let frame = codec::encode(&Frame::Mail(Box::new(mail)))
            .map_err(|error| TeamError::Seal(error.to_string()))?;
        let future = self.publish(to, Said::Letter { name: self.name.clone(), frame }).await?;
        match future.await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.because("leaving a letter", error)),
        }
    }

    pub(crate) fn letter_came(&self, from: BrokerId) -> Arc<Notify> {
        Arc::clone(&locked(&self.remotes).entry(from).or_default().letter_came)
    }

    pub(crate) fn next_letter(&self, from: BrokerId) -> Option<Letter> {
        locked(&self.remotes).get_mut(&from).and_then(|remote| remote.letters.pop_front())
    }

    /// Letters of a member that is reached now are not needed any more.
    fn drop_letters(&self, from: BrokerId) {
        let letters = {
            let mut remotes = locked(&self.remotes);
            let remote = remotes.entry(from).or_default();
            std::mem::take(&mut remote.letters)
        };
        self.acknowledge(letters.into_iter().map(|letter| letter.acker).collect());
    }

    /// A letter was taken, or never will be.
    pub(crate) fn put_away(&self, letter: Letter) {
        self.acknowledge(vec![letter.acker]);
    }

    fn piece(&self, from: BrokerId, session: SessionName, arrived: Arrived) {
        let mut remotes = locked(&self.remotes);
        let remote = remotes.entry(from).or_default();
        if let Some(live) = remote.live.as_ref().filter(|live| live.name == session) {
            if let Err(mpsc::error::SendError(Handed::Piece(arrived))) =
                live.pieces.send(Handed::Piece(Box::new(arrived)))
            {
                self.acknowledge(vec![arrived.acker]);
            }
            return;
        }
        match &mut remote.calling {
            Some(calling) if session.starts_with(&calling.half) => {
                calling.kept.push((session, arrived));
            }
            // Of a connection that has ended: both sides begin anew.
            _ => self.acknowledge(vec![arrived.acker]),
        }
    }

    /// A request of another member. What is said in return goes to `reply`.
    async fn asked(self: &Arc<Self>, message: Message) {
        let Some(reply) = message.reply.clone() else { return };
        let (public, answer) = match self.sealer.open(None, &message.payload) {
            Ok((public, said)) => (Some(public), self.answer(public, said)),
            // Its key is known though its words do not count. It is told, so that its person is.
            Err(why @ OpenError::TeamKey) => {
                let public = message.payload.get(1..33).and_then(|key| key.try_into().ok());
                if let Some(public) = public {
                    self.refused_of(crate::seal::id_of(&public), &why);
                }
                (public, Some(Said::Declined { why: why.to_string() }))
            }
            Err(_) => (None, None),
        };
        let (Some(public), Some(answer)) = (public, answer) else { return };
        if let Ok(bytes) = self.sealer.seal(&public, answer) {
            // If it does not leave, the other side's request times out.
            let _ = self.client.publish(reply, bytes.into()).await;
        }
    }

    fn answer(self: &Arc<Self>, public: [u8; 32], said: Said) -> Option<Said> {
        let from = crate::seal::id_of(&public);
        match said {
            Said::Probe { nonce } => Some(Said::Here {
                nonce,
                run: self.run,
                name: self.name.clone(),
                software: self.software.clone(),
            }),
            _ if from == self.own() => None,
            Said::Knock { nonce, wall } => {
                if now().0.abs_diff(wall.0) > CALL_AGE_MS || !self.is_first(nonce) {
                    return None;
                }
                self.heard_of(from, public, None);
                let mut remotes = locked(&self.remotes);
                let remote = remotes.entry(from).or_default();
                // It has no connection, so what there was has ended.
                remote.hang_up("the other machine began anew");
                remote.stirred.notify_one();
                Some(Said::Noticed { nonce })
            }
            Said::Call { half, wall, preface } => {
                Some(self.called(from, public, half, wall, &preface))
            }
            _ => None,
        }
    }

    fn called(
        self: &Arc<Self>,
        from: BrokerId,
        public: [u8; 32],
        theirs: [u8; 16],
        wall: peer_proto::ids::Timestamp,
        preface: &[u8],
    ) -> Said {
        let declined = |why: String| Said::Declined { why };
        if from > self.own() {
            return declined("the member with the lower identity calls".to_owned());
        }
        let apart = now().0.abs_diff(wall.0);
        if apart > CALL_AGE_MS {
            return declined(format!("the clocks differ by {} s", apart / 1_000));
        }
        if !self.is_first(theirs) {
            return declined("this call came before".to_owned());
        }
        if let Err(why) = agree(&self.preface, preface) {
            return declined(why);
        }
        let Ok(half) = random::<16>() else {
            return declined("the system there gives no random bits".to_owned());
        };
        self.heard_of(from, public, None);
        let name = joined(theirs, half);
        let (sender, pieces) = mpsc::unbounded_channel();
        let mut remotes = locked(&self.remotes);
        let remote = remotes.entry(from).or_default();
        remote.hang_up("the other machine began anew");
        remote.live = Some(Live { name, pieces: sender });
        let before = remote.ready.replace(halves(self, name, (from, public), pieces));
        remote.stirred.notify_one();
        drop(remotes);
        drop(before);
        self.drop_letters(from);
        Said::Called { theirs, half, preface: self.preface.encode_as(LINK_MAGIC) }
    }

    /// Whether a call or knock is new. A repeat of one does nothing.
    fn is_first(&self, half: [u8; 16]) -> bool {
        let mut calls = locked(&self.calls);
        if calls.contains(&half) {
            return false;
        }
        if calls.len() == CALLS_KEPT {
            calls.remove(0);
        }
        calls.push(half);
        true
    }
}

impl Remote {
    fn is(&self, name: SessionName) -> bool {
        self.live.as_ref().is_some_and(|live| live.name == name)
    }

    fn hang_up(&mut self, why: &str) {
        if let Some(live) = self.live.take() {
            let _ = live.pieces.send(Handed::End(why.to_owned()));
        }
    }
}

/// The name of a connection: the caller's half, then the other's.
pub(crate) fn joined(caller: [u8; 16], called: [u8; 16]) -> SessionName {
    let mut name = [0; 32];
    name[..16].copy_from_slice(&caller);
    name[16..].copy_from_slice(&called);
    name
}

/// Whether both sides speak one version of the link protocol.
pub(crate) fn agree(ours: &Preface, theirs: &[u8]) -> Result<(), String> {
    let (fixed, software) = theirs
        .split_first_chunk::<FIXED_BYTES>()
        .ok_or_else(|| "its preface is too short".to_owned())?;
    let (mut theirs, _) =
        Preface::decode_fixed_as(LINK_MAGIC, fixed).map_err(|error| error.to_string())?;
    theirs.software = String::from_utf8_lossy(software).into_owned();
    ours.agree(&theirs).map(|_| ()).map_err(|error| error.to_string())
}

// ---- tasks

/// Passes on what comes from the stream, until it fails.
pub(crate) async fn receive(inner: Arc<Inner>, mut messages: jetstream::consumer::pull::Stream) {
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => inner.mail(message),
            Err(error) => return inner.fail(inner.because("receiving", error)),
        }
    }
    inner.fail(TeamError::lost());
}

/// Answers requests of other members, until the connection ends.
pub(crate) async fn answer(inner: Arc<Inner>, mut requests: async_nats::Subscriber) {
    while let Some(request) = requests.next().await {
        inner.asked(request).await;
    }
    inner.fail(TeamError::lost());
}

/// Tells the server what arrived. Without an answer it sends that again.
pub(crate) async fn acknowledge(mut acks: mpsc::UnboundedReceiver<Acker>) {
    while let Some(acker) = acks.recv().await {
        let _ = acker.ack_with(AckKind::Ack).await;
    }
}

/// Watches that the server stores what is sent.
pub(crate) async fn confirm(
    inner: Arc<Inner>,
    mut confirmations: mpsc::UnboundedReceiver<Confirmation>,
) {
    let mut waiting = FuturesUnordered::new();
    loop {
        let done = tokio::select! {
            next = confirmations.recv() => match next {
                Some(Confirmation { to, session, future }) => {
                    let confirmed = std::future::IntoFuture::into_future(future);
                    waiting.push(async move { (to, session, confirmed.await) });
                    continue;
                }
                None => return,
            },
            Some(done) = waiting.next(), if !waiting.is_empty() => done,
        };
        if let (to, session, Err(error)) = done {
            // The event that tells why may come a moment later.
            tokio::time::sleep(Duration::from_millis(20)).await;
            inner.unconfirmed(to, session, error.kind(), &error.to_string());
        }
    }
}
