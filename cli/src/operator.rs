//! The connection of `peerctl` to the broker.
//!
//! Knows the requests that the commands share, and their pages. Does not know the caller's rights.
//! The broker decides whether the caller is the person or, within an agent's process tree, that
//! agent's shell.

use std::time::Duration;

use peer_client::{Connection, Endpoint, Pushes, RequestError, Start};
use peer_proto::ids::{MessageId, called_peer};
use peer_proto::message::{Carrier, Evidence, Message};
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{
    Authority, InboxEntry, PeerInfo, PeersQuery, Reply, Request, Role, Seat, SeatKind, Send, Sent,
    Shown, Welcome,
};
use peer_proto::search::{Hit, SearchQuery};
use tokio::time::Instant;

use crate::error::Failure;
use crate::output::Output;

/// Milliseconds that a search may take in all.
const SEARCH_PATIENCE_MS: u64 = 5_000;

/// A greeted connection with the operator's role.
pub(crate) struct Operator {
    connection: Connection,
    pub(crate) pushes: Pushes,
    pub(crate) welcome: Welcome,
}

/// The pauses between attempts to reach a broker that ended, in milliseconds; each is twice the one
/// before.
const RECONNECT_PAUSE_MS_MIN: u64 = 100;
const RECONNECT_PAUSE_MS_MAX: u64 = 5_000;

/// Waits until a broker is running again, and connects. It starts none, because a person may have
/// stopped the broker on purpose.
///
/// # Errors
/// An obstacle that no wait removes: a directory without permission, or another protocol version.
pub(crate) async fn reconnect(output: &Output, endpoint: &Endpoint) -> Result<Operator, Failure> {
    output.remark("lost the connection to the broker; waiting until one runs (Ctrl-C ends this)");
    let quiet = Endpoint { start: Start::Never, ..endpoint.clone() };
    let mut pause_ms = RECONNECT_PAUSE_MS_MIN;
    loop {
        match Operator::connect(&quiet).await {
            Ok(operator) => {
                output.remark("connected again");
                return Ok(operator);
            }
            Err(failure) if failure.is_lost() => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(RECONNECT_PAUSE_MS_MAX);
    }
}

impl Operator {
    /// Connects, and starts the broker if the endpoint allows it.
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Self, Failure> {
        let (connection, pushes, welcome) =
            Connection::open(endpoint, Role::Operator, seat_from_env()).await?;
        Ok(Self { connection, pushes, welcome })
    }

    /// Sends a request and waits for its reply.
    pub(crate) async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        Ok(self.connection.request(request).await?)
    }

    /// One page of a search: the hits, their total number, and the number of changes that are not
    /// indexed. While the index is behind, or the search was given up, this asks again for as long
    /// as a person may wait.
    pub(crate) async fn search(
        &self,
        query: &SearchQuery,
    ) -> Result<(Vec<Hit>, u64, u64), Failure> {
        let deadline = Instant::now() + Duration::from_millis(SEARCH_PATIENCE_MS);
        loop {
            match self.connection.request(Request::Search(query.clone())).await {
                // The broker itself waited before this reply.
                Ok(Reply::Hits { behind, .. }) if behind > 0 && Instant::now() < deadline => {}
                Ok(Reply::Hits { hits, total, behind }) => return Ok((hits, total, behind)),
                Ok(_) => return Err(unexpected()),
                Err(RequestError::Refused(Refusal {
                    code: ErrorCode::Overloaded,
                    retry_after_ms: Some(pause_ms),
                    ..
                })) if Instant::now() + Duration::from_millis(pause_ms) < deadline => {
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a request whose reply is a bare "done".
    pub(crate) async fn ask_done(&self, request: Request) -> Result<(), Failure> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Waits until the broker has closed the connection.
    pub(crate) async fn closed(&self) {
        self.connection.closed().await;
    }

    pub(crate) async fn send(&self, send: Send) -> Result<Sent, Failure> {
        match self.ask(Request::Send(send)).await? {
            Reply::Sent(sent) => Ok(sent),
            _ => Err(unexpected()),
        }
    }

    /// Reads one whole message.
    pub(crate) async fn read(&self, message: MessageId) -> Result<Message, Failure> {
        match self.ask(Request::Read(message)).await? {
            Reply::Text(message) => Ok(*message),
            _ => Err(unexpected()),
        }
    }

    /// Reads one message with its deliveries.
    pub(crate) async fn show(&self, message: MessageId) -> Result<Shown, Failure> {
        match self.ask(Request::Show(message)).await? {
            Reply::Shown(shown) => Ok(*shown),
            _ => Err(unexpected()),
        }
    }

    /// All peers that match the query, over all pages.
    pub(crate) async fn peers(&self, mut query: PeersQuery) -> Result<Vec<PeerInfo>, Failure> {
        let mut all = Vec::new();
        loop {
            let Reply::Peers { peers, next } = self.ask(Request::Peers(query.clone())).await?
            else {
                return Err(unexpected());
            };
            all.extend(peers);
            match next {
                Some(_) => query.after = next,
                None => return Ok(all),
            }
        }
    }

    /// The peer with this name, alias or id.
    pub(crate) async fn peer(&self, given: &str) -> Result<PeerInfo, Failure> {
        let query = PeersQuery { all: true, remote: true, ..PeersQuery::default() };
        let mut peers = self.peers(query).await?;
        match find(&peers, given) {
            Some(place) => Ok(peers.swap_remove(place)),
            None => Err(no_such_peer(given)),
        }
    }

    /// The waiting mail of a peer (`*`: of all peers; `None`: of the person), over all pages.
    pub(crate) async fn inbox(
        &self,
        peer: Option<String>,
        held: bool,
    ) -> Result<Vec<InboxEntry>, Failure> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let request = Request::Inbox { peer: peer.clone(), held, after };
            let Reply::Inbox { entries, next } = self.ask(request).await? else {
                return Err(unexpected());
            };
            all.extend(entries);
            match next {
                Some(_) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// Whether the caller has the person's rights.
    pub(crate) fn is_person(&self) -> bool {
        self.welcome.authority == Authority::Person
    }

    /// Settles messages to the person that were printed in full. For an agent's shell, nothing is
    /// settled.
    pub(crate) async fn printed(&self, messages: Vec<MessageId>) -> Result<(), Failure> {
        if messages.is_empty() || !self.is_person() {
            return Ok(());
        }
        self.ask_done(Request::Presented {
            messages,
            carrier: Carrier::Peerctl,
            evidence: Evidence::Printed,
        })
        .await
    }
}

/// The index of the peer with this name or id. An earlier name counts only if no peer has it now.
pub(crate) fn find(peers: &[PeerInfo], given: &str) -> Option<usize> {
    let given = called_peer(given);
    let by_name =
        |peer: &PeerInfo| peer.name.eq_ignore_ascii_case(given) || peer.id.to_string() == given;
    let by_alias =
        |peer: &PeerInfo| peer.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(given));
    peers.iter().position(by_name).or_else(|| peers.iter().position(by_alias))
}

/// The person's name as a peer, if `given` means the person. Listings of peers do not have the
/// person.
pub(crate) fn person(given: &str) -> Option<&'static str> {
    let given = called_peer(given);
    ["me", "human", "user"].iter().any(|name| given.eq_ignore_ascii_case(name)).then_some("human")
}

/// Parses a message id.
pub(crate) fn message_id(given: &str) -> Result<MessageId, Failure> {
    given.parse().map_err(|_| Failure::no_such_message(given))
}

/// The failure for an unknown name.
pub(crate) fn no_such_peer(given: &str) -> Failure {
    let given = peer_proto::text::single_line(given);
    let message = format!("no peer is called {given:?}");
    Failure::not_found(ErrorCode::UnknownPeer.as_str(), message)
        .hint("`peerctl peers --all` lists all known peers")
}

/// The failure for a reply of the wrong kind.
pub(crate) fn unexpected() -> Failure {
    RequestError::Unexpected.into()
}

/// The session of this shell, if the client names it in the environment.
fn seat_from_env() -> Option<Seat> {
    [("CLAUDE_CODE_SESSION_ID", SeatKind::Claude), ("CODEX_THREAD_ID", SeatKind::Codex)]
        .into_iter()
        .find_map(|(name, kind)| {
            let key = std::env::var(name).ok().filter(|key| !key.is_empty())?;
            Some(Seat { kind, key })
        })
}
