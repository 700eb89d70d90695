//! One member's connection to its team: the server, the directory, and who else is there.
//!
//! Knows how the server is reached and checked. Does not know a broker. Invariants: without TLS no
//! other machine is connected to, unless the person said so. Two living holders of one identity do
//! not go on. A connection to the server that ended is not mended: everything begins anew.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, context::GetStreamErrorKind};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use futures_util::StreamExt;
use peer_proto::handshake::{LINK_MAGIC, Preface};
use peer_proto::ids::{BrokerId, Timestamp};
use peer_proto::link::Mail;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::directory::{alone, look, read_directory, write_card};
pub use crate::dispatch::Letter;
use crate::dispatch::{self, Inner, Parts, agree, joined};
use crate::seal::{DirectoryCard, Said, SealError, Sealer, TeamKey, random};
use crate::session::{SessionIn, SessionOut};
use crate::stock;

/// The oldest server that can serve a team.
const SERVER_LEAST: (i64, i64, i64) = (2, 10, 0);

/// How long the server may take to connect, and to answer.
const ANSWER_MS: u64 = 5_000;

/// How long a member that was told that this one is here may take to call.
const CALL_MS: u64 = 10_000;

/// How a team is reached, and who joins it.
#[derive(Clone, Debug)]
pub struct TeamSettings {
    /// The team.
    pub team: String,
    /// The server, or the servers of one cluster.
    pub urls: Vec<String>,
    /// A file with what proves the right to use the server.
    pub creds: Option<PathBuf>,
    /// A file with the certificate of the authority that signed the server's.
    pub ca: Option<PathBuf>,
    /// Allow connections without TLS also to other machines.
    pub insecure: bool,
    /// This broker's private key.
    pub secret: [u8; 32],
    /// The team's key, then a former one that still counts.
    pub keys: Vec<TeamKey>,
    /// What this machine calls itself.
    pub name: String,
    /// This program's version.
    pub software: String,
    /// The versions of the link protocol that this program speaks.
    pub preface: Preface,
}

/// A member of the team, other than this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its broker.
    pub id: BrokerId,
    /// What it calls itself, if its card says so.
    pub name: Option<String>,
}

/// What happens in a team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TeamNews {
    /// A member is known now.
    Member(Member),
    /// What came from somebody is not accepted.
    Refused {
        /// Who sent it, by the subject or its key.
        id: BrokerId,
        /// Why.
        why: String,
    },
    /// What comes from it is accepted again.
    Accepted {
        /// Who.
        id: BrokerId,
    },
}

/// A member that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// What it calls itself.
    pub name: String,
    /// The version of its `peerctl`.
    pub software: String,
}

/// Why the team cannot be served.
#[derive(Clone, Debug, Error)]
pub enum TeamError {
    /// An address is none.
    #[error("{0} is no address of a NATS server")]
    Address(String),
    /// A file cannot be used.
    #[error("cannot use {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The server cannot be reached.
    #[error("cannot reach the NATS server {at}: {why}")]
    Unreachable {
        /// Where.
        at: String,
        /// Why.
        why: String,
    },
    /// The server does not let this machine in, or refuses something.
    #[error("the NATS server refuses it: {0}")]
    Denied(String),
    /// The server is too old.
    #[error("the NATS server is version {0}; a team needs 2.10 or newer")]
    Version(String),
    /// The stream or the directory is missing, and this member may not make it.
    #[error("the team has no stream or directory on the server: {0}")]
    Missing(String),
    /// They have other settings than a team needs.
    #[error("{what} has other settings on the server than a team needs: {differences}")]
    Settings {
        /// The stream or the directory.
        what: String,
        /// What is different.
        differences: String,
    },
    /// Another living process has this broker's identity.
    #[error("another machine is {0} too: both have the same link.key")]
    IdentityConflict(BrokerId),
    /// A call of the server failed.
    #[error("{0}")]
    Server(String),
    /// The connection ended.
    #[error("the connection to the NATS server ended")]
    Lost,
    /// The consumer was made anew, because it did not fit the stream.
    #[error("the server's record of what was delivered did not fit what it has, and was made anew")]
    Repaired,
    /// Nothing can be sealed.
    #[error("{0}")]
    Seal(String),
}

impl From<SealError> for TeamError {
    fn from(error: SealError) -> Self {
        Self::Seal(error.to_string())
    }
}

impl TeamError {
    pub(crate) fn lost() -> Self {
        Self::Lost
    }

    /// Whether trying again by itself is of no use: a person must change something.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable { .. }
                | Self::Server(_)
                | Self::Lost
                | Self::Repaired
                | Self::Seal(_)
        )
    }

    /// The next step.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Address(_) => "name it as tls://HOST:4222",
            Self::File { .. } => "check the path, its owner and its mode",
            Self::Unreachable { why, .. } if why.contains("certificate") => {
                "name the certificate of the server's authority with --ca"
            }
            Self::Unreachable { .. } => {
                "check the address and the network; a server without TLS needs --insecure"
            }
            Self::Denied(_) => {
                "ask the server's admin; `peerctl link team permissions TEAM` prints what this machine needs"
            }
            Self::Version(_) => "ask the server's admin for a newer one",
            Self::Missing(_) => {
                "run `peerctl link team new TEAM` with --admin-creds, or let the server's admin do it"
            }
            Self::Settings { .. } => {
                "ask the server's admin to correct it, or choose another team name"
            }
            Self::IdentityConflict(_) => {
                "run `peerctl link identity --new` on the machine that is a copy"
            }
            Self::Server(_) | Self::Lost | Self::Repaired | Self::Seal(_) => "it is tried again",
        }
    }
}

/// Why there is no connection to a member.
#[derive(Debug, Error)]
pub enum MeetError {
    /// It is not there.
    #[error("that machine is not there; mail waits for it")]
    Away,
    /// Its key is not known yet.
    #[error("that machine was not heard of yet")]
    Unknown,
    /// It declined, or answered something else.
    #[error("{0}")]
    Declined(String),
    /// The server failed.
    #[error(transparent)]
    Team(TeamError),
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A connection to a team. It ends when this is dropped.
pub struct Team {
    inner: Arc<Inner>,
    /// Dropping it ends them.
    _tasks: JoinSet<()>,
}

impl Drop for Team {
    fn drop(&mut self) {
        self.inner.fail(TeamError::Lost);
    }
}

/// Whether a connection to this address leaves the machine.
fn leaves(address: &ServerAddr) -> bool {
    let host = address.host().trim_matches(['[', ']']);
    host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An address without what must not be shown: a password in it.
#[must_use]
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

/// Checks the form of an address of a server.
///
/// # Errors
/// [`TeamError::Address`]
pub fn check_address(url: &str) -> Result<(), TeamError> {
    let bad = || TeamError::Address(without_password(url));
    let address: ServerAddr = url.parse().map_err(|_| bad())?;
    if address.is_websocket() || address.host().is_empty() {
        return Err(bad());
    }
    Ok(())
}

/// The user and the password that stand in an address.
fn in_address(address: &ServerAddr) -> Option<(String, Option<String>)> {
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let escaped = after
                .get(..2)
                .filter(|_| *first == b'%')
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(escaped.unwrap_or(*first));
            rest = if escaped.is_some() { &after[2..] } else { after };
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Some((plain(address.username()?), address.password().map(plain)))
}

type EventEnd = mpsc::UnboundedReceiver<async_nats::Event>;

async fn open(
    settings: &TeamSettings,
    creds: Option<&PathBuf>,
    inbox: String,
) -> Result<(Client, EventEnd), TeamError> {
    let mut addresses = Vec::new();
    for url in &settings.urls {
        check_address(url)?;
        let address: ServerAddr =
            url.parse().map_err(|_| TeamError::Address(without_password(url)))?;
        addresses.push(address);
    }
    let (sender, events) = mpsc::unbounded_channel();
    let mut options = ConnectOptions::new()
        .name("peerctl link")
        .custom_inbox_prefix(inbox)
        .connection_timeout(Duration::from_millis(ANSWER_MS))
        .request_timeout(Some(Duration::from_millis(ANSWER_MS)))
        // Only servers that the person named: another one could be reached without TLS.
        .ignore_discovered_servers()
        .require_tls(!settings.insecure && addresses.iter().any(leaves))
        .event_callback(move |event| {
            let sender = sender.clone();
            async move {
                let _ = sender.send(event);
            }
        });
    if let Some((user, password)) = addresses.iter().find_map(in_address) {
        options = match password {
            Some(password) => options.user_and_password(user, password),
            // As the server's own tools read it.
            None => options.token(user),
        };
    }
    if let Some(path) = creds {
        let text = std::fs::read_to_string(path)
            .map_err(|error| TeamError::File { path: path.clone(), why: error.to_string() })?;
        options = options
            .credentials(&text)
            .map_err(|error| TeamError::File { path: path.clone(), why: error.to_string() })?;
    }
    if let Some(path) = &settings.ca {
        options = options.add_root_certificates(path.clone());
    }
    let at: Vec<String> = settings.urls.iter().map(|url| without_password(url)).collect();
    let connecting = options.connect(addresses);
    // A cluster has several addresses, each with a timeout of its own.
    let client = tokio::time::timeout(Duration::from_millis(3 * ANSWER_MS), connecting)
        .await
        .map_err(|_| TeamError::Unreachable {
            at: at.join(", "),
            why: "it does not answer".into(),
        })?
        .map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                TeamError::Denied("it does not know this user or these credentials".to_owned())
            }
            _ => TeamError::Unreachable { at: at.join(", "), why: chain(&error) },
        })?;
    let (major, minor, patch) = SERVER_LEAST;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(TeamError::Version(client.server_info().version));
    }
    Ok((client, events))
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Whether an error of the server says that a stream is not there.
fn is_missing(error: &jetstream::context::GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND)
}

/// Finds a stream, or makes it if this user may. Checks its settings.
async fn stand(
    context: &jetstream::Context,
    wanted: jetstream::stream::Config,
    refused: impl Fn(&str, String) -> TeamError,
) -> Result<Stream, TeamError> {
    let name = wanted.name.clone();
    let stream = match context.get_stream(&name).await {
        Ok(stream) => stream,
        Err(error) if is_missing(&error) => {
            context.create_stream(wanted.clone()).await.map_err(|error| {
                TeamError::Missing(format!("{name}; {}", refused("making it", chain(&error))))
            })?
        }
        Err(error) => return Err(refused(&format!("looking at {name}"), chain(&error))),
    };
    let differences = stock::differences(&stream.cached_info().config, &wanted);
    if !differences.is_empty() {
        return Err(TeamError::Settings { what: name, differences: differences.join("; ") });
    }
    Ok(stream)
}

/// Makes the stream and the directory of a team, with an admin's credentials, or checks those that
/// are there. Returns the version of the server.
///
/// # Errors
/// See [`TeamError`].
pub async fn make(settings: &TeamSettings, admin: Option<&PathBuf>) -> Result<String, TeamError> {
    let own = Sealer::new(settings.secret, settings.team.clone(), Vec::new()).own;
    let creds = admin.or(settings.creds.as_ref());
    let (client, mut events) = open(settings, creds, stock::inbox(own)).await?;
    let context = jetstream::new(client.clone());
    let made = async {
        let plain = |doing: &str, error: String| TeamError::Server(format!("{doing}: {error}"));
        stand(&context, stock::stream_config(&settings.team), plain).await?;
        stand(&context, stock::directory_config(&settings.team), plain).await
    };
    let made = made.await;
    if let Err(error) = made {
        while let Ok(event) = events.try_recv() {
            if let async_nats::Event::ServerError(async_nats::ServerError::Other(text)) = event {
                return Err(TeamError::Denied(text));
            }
        }
        return Err(error);
    }
    Ok(client.server_info().version)
}

/// Connects without becoming a holder: for a question to a member.
///
/// # Errors
/// See [`TeamError`].
pub async fn visit(settings: TeamSettings) -> Result<Team, TeamError> {
    let (inner, tasks) = begin(&settings, mpsc::unbounded_channel().0).await?;
    Ok(Team { inner, _tasks: tasks })
}

/// Connects to the server, takes this broker's place in the team, and receives.
///
/// # Errors
/// See [`TeamError`].
pub async fn connect(
    settings: TeamSettings,
) -> Result<(Team, mpsc::UnboundedReceiver<TeamNews>), TeamError> {
    let (sender, news) = mpsc::unbounded_channel();
    let (inner, mut tasks) = begin(&settings, sender).await?;
    let own = inner.own();
    let refused = |doing: &str, error: String| inner.because(doing, error);
    let stream = stand(&inner.context, stock::stream_config(&inner.team), refused).await?;
    let directory = stand(&inner.context, stock::directory_config(&inner.team), refused).await?;
    // Before this process listens: whoever answers is another one.
    alone(&inner).await?;
    let requests = inner
        .client
        .subscribe(stock::live(&inner.team, own))
        .await
        .map_err(|error| inner.because("listening", error))?;
    tasks.spawn(dispatch::answer(Arc::clone(&inner), requests));
    let consumer = inner
        .context
        .create_consumer_on_stream(
            stock::consumer_config(&inner.team, own),
            stock::stream(&inner.team),
        )
        .await
        .map_err(|error| inner.because("making the consumer", chain(&error)))?;
    let messages = consumer
        .stream()
        .heartbeat(Duration::from_secs(15))
        .expires(Duration::from_secs(60))
        .max_messages_per_batch(256)
        .messages()
        .await
        .map_err(|error| inner.because("receiving", error))?;
    tasks.spawn(dispatch::receive(Arc::clone(&inner), messages));
    let card = write_card(&inner, &directory, None).await?;
    read_directory(&inner, &directory).await?;
    tasks.spawn(look(Arc::clone(&inner), stream, directory, card));
    Ok((Team { inner, _tasks: tasks }, news))
}

async fn begin(
    settings: &TeamSettings,
    news: mpsc::UnboundedSender<TeamNews>,
) -> Result<(Arc<Inner>, JoinSet<()>), TeamError> {
    let sealer = Sealer::new(settings.secret, settings.team.clone(), settings.keys.clone());
    let inbox = stock::inbox(sealer.own);
    let (client, mut events) = open(settings, settings.creds.as_ref(), inbox).await?;
    let context = jetstream::new(client.clone());
    let parts = Parts {
        client,
        context,
        sealer,
        team: settings.team.clone(),
        name: settings.name.clone(),
        software: settings.software.clone(),
        preface: settings.preface.clone(),
    };
    let (inner, ends) = Inner::new(parts, news)?;
    let mut tasks = JoinSet::new();
    let told = Arc::clone(&inner);
    tasks.spawn(async move {
        while let Some(event) = events.recv().await {
            told.event(event);
        }
    });
    tasks.spawn(dispatch::acknowledge(ends.acks));
    tasks.spawn(dispatch::confirm(Arc::clone(&inner), ends.confirmations));
    Ok((inner, tasks))
}

// ---- other members

/// Sends a request to a member, and returns its answer.
pub(crate) async fn ask(
    inner: &Arc<Inner>,
    to: BrokerId,
    public: [u8; 32],
    said: impl FnOnce([u8; 16]) -> Said,
) -> Result<([u8; 16], Said), MeetError> {
    let team = |error: SealError| MeetError::Team(error.into());
    let nonce = random::<16>().map_err(team)?;
    let sealed = inner.sealer.seal(&public, said(nonce)).map_err(team)?;
    let answer = inner.client.request(stock::live(&inner.team, to), sealed.into()).await;
    let message = match answer {
        Ok(message) => message,
        Err(error) if error.kind() == RequestErrorKind::NoResponders => {
            return Err(MeetError::Away);
        }
        // A machine that sleeps does not answer either. Nor does one that may not be asked, and that
        // has a reason.
        Err(error) => {
            let is_silent = error.kind() == RequestErrorKind::TimedOut;
            return match inner.because("calling that machine", error) {
                TeamError::Server(_) if is_silent => Err(MeetError::Away),
                error => Err(MeetError::Team(error)),
            };
        }
    };
    match inner.sealer.open(Some(to), &message.payload) {
        Ok((_, said)) => Ok((nonce, said)),
        Err(why) => Err(MeetError::Declined(format!("what it answered is not accepted: {why}"))),
    }
}

impl Team {
    /// This broker.
    #[must_use]
    pub fn own(&self) -> BrokerId {
        self.inner.own()
    }

    /// Waits until the connection to the server has ended, and says why.
    pub async fn failed(&self) -> Arc<TeamError> {
        self.inner.failed().await
    }

    /// Waits until a member shows itself: it calls, or says that it is there.
    pub async fn stirred(&self, member: BrokerId) {
        self.inner.stirred(member).notified().await;
    }

    /// Reads the directory: who is in it, and how many cards the team key does not open.
    ///
    /// # Errors
    /// See [`TeamError`].
    pub async fn members(&self) -> Result<(Vec<(BrokerId, DirectoryCard)>, usize), TeamError> {
        let inner = &self.inner;
        let doing = "reading the directory";
        let directory = inner
            .context
            .get_stream(stock::directory(&inner.team))
            .await
            .map_err(|error| inner.because(doing, chain(&error)))?;
        let mut subjects = directory
            .info_with_subjects(format!("$KV.PEERD_{}_dir.>", inner.team))
            .await
            .map_err(|error| inner.because(doing, error))?;
        let (mut members, mut unread) = (Vec::new(), 0);
        while let Some(entry) = subjects.next().await {
            let (subject, _) = entry.map_err(|error| inner.because(doing, error))?;
            let Some(owner) = stock::owner(&inner.team, &subject) else { continue };
            let Ok(message) = directory.direct_get_last_for_subject(subject).await else {
                continue;
            };
            match inner.sealer.open_card(owner, &message.payload) {
                Ok(card) => members.push((owner, card)),
                Err(_) => unread += 1,
            }
        }
        Ok((members, unread))
    }

    /// Leaves a message for a member that is not there. The server has it then, which is no promise:
    /// the sender's broker keeps it.
    ///
    /// # Errors
    /// See [`MeetError`].
    pub async fn leave(&self, member: BrokerId, mail: Mail) -> Result<(), MeetError> {
        let public = self.inner.public_of(member).ok_or(MeetError::Unknown)?;
        self.inner.post_letter((member, public), mail).await.map_err(MeetError::Team)
    }

    /// Waits for a message that a member left. One that is not put away comes again.
    pub async fn letter(&self, member: BrokerId) -> Letter {
        let came = self.inner.letter_came(member);
        loop {
            if let Some(letter) = self.inner.next_letter(member) {
                return letter;
            }
            came.notified().await;
        }
    }

    /// This broker has committed what came of a letter.
    pub fn put_away(&self, letter: Letter) {
        self.inner.put_away(letter);
    }

    /// Asks a member whether it is there. Its key must be known, or `public` be given.
    ///
    /// # Errors
    /// See [`MeetError`].
    pub async fn probe(&self, member: BrokerId, public: [u8; 32]) -> Result<Here, MeetError> {
        match ask(&self.inner, member, public, |nonce| Said::Probe { nonce }).await? {
            (sent, Said::Here { nonce, name, software, .. }) if nonce == sent => {
                Ok(Here { name, software })
            }
            (_, said) => Err(declined(said)),
        }
    }

    /// Makes a connection to a member, or takes the one that it made.
    ///
    /// # Errors
    /// See [`MeetError`].
    pub async fn meet(&self, member: BrokerId) -> Result<(SessionIn, SessionOut), MeetError> {
        let inner = &self.inner;
        if let Some(ready) = inner.take_ready(member) {
            return Ok(ready);
        }
        let public = inner.public_of(member).ok_or(MeetError::Unknown)?;
        if inner.own() < member {
            return self.call(member, public).await;
        }
        match ask(inner, member, public, |nonce| Said::Knock { nonce, wall: now() }).await? {
            (sent, Said::Noticed { nonce }) if nonce == sent => {}
            (_, said) => return Err(declined(said)),
        }
        let stirred = inner.stirred(member);
        let called = async {
            loop {
                if let Some(ready) = inner.take_ready(member) {
                    return ready;
                }
                stirred.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_millis(CALL_MS), called)
            .await
            .map_err(|_| MeetError::Declined("that machine is there, and does not call".to_owned()))
    }

    async fn call(
        &self,
        member: BrokerId,
        public: [u8; 32],
    ) -> Result<(SessionIn, SessionOut), MeetError> {
        let inner = &self.inner;
        let preface = inner.preface.encode_as(LINK_MAGIC);
        let answer = ask(inner, member, public, |half| {
            inner.begin_call(member, half);
            Said::Call { half, wall: now(), preface }
        })
        .await;
        let answered = match answer {
            Ok((sent, Said::Called { theirs, half, preface })) if theirs == sent => {
                agree(&inner.preface, &preface)
                    .map_err(MeetError::Declined)
                    .map(|()| joined(sent, half))
            }
            Ok((_, said)) => Err(declined(said)),
            Err(error) => Err(error),
        };
        match answered {
            Ok(name) => {
                inner.end_call(member, Some((name, public))).ok_or(MeetError::Team(TeamError::Lost))
            }
            Err(error) => {
                inner.end_call(member, None);
                Err(error)
            }
        }
    }
}

fn declined(said: Said) -> MeetError {
    match said {
        Said::Declined { why } => MeetError::Declined(format!("that machine declined: {why}")),
        _ => MeetError::Declined("that machine answered something else".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_reached_without_tls() {
        let leaves = |url: &str| leaves(&url.parse().unwrap());
        assert!(!leaves("nats://127.0.0.1:4222"));
        assert!(!leaves("nats://[::1]:4222"));
        assert!(!leaves("nats://localhost"));
        assert!(leaves("nats://nats.example"));
        assert!(leaves("nats://10.0.0.1"));
    }

    #[test]
    fn a_user_in_an_address_is_found() {
        let found = |url: &str| in_address(&url.parse().unwrap());
        let user = Some(("ann".to_owned(), Some("p%ss:@".to_owned())));
        assert_eq!(found("tls://ann:p%25ss%3A%40@host"), user);
        assert_eq!(found("tls://t0ken@host"), Some(("t0ken".to_owned(), None)));
        assert_eq!(found("tls://host"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("tls://ann:secret@host:4222"), "tls://host:4222");
        assert_eq!(without_password("host"), "nats://host");
        assert!(check_address("tls://host:4222").is_ok());
        for bad in ["http://host", "ws://host", "nats://", ""] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
