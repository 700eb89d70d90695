//! The push carriers: each checks whether it is available, and hands over its messages.
//!
//! Knows how to write by each carrier. Does not know the order of the carriers, which is in
//! [`peer_mcp_core::ways`], nor which of them gets which message: the core decides that. Invariant:
//! a carrier reports to the core just before its first byte leaves.
//!
//! A push carrier is one file here with an `impl` of [`PushCarrier`]. Evidence comes from
//! elsewhere: tool calls ([`tool_result`]), hooks ([`hook`]) and the client's record
//! ([`transcript`](crate::transcript)).

pub(crate) mod app_server;
pub(crate) mod channel;
pub(crate) mod hook;
pub(crate) mod inbox_socket;
pub(crate) mod tool_result;

use std::sync::Arc;

use peer_proto::message::Carrier;

use crate::codex::ControlError;
use crate::event::{Action, Event, PushResult};
use crate::inbox::Post;
use crate::session::Session;
use crate::ways::Ways;

use app_server::AppServer;
use channel::Channel;
use inbox_socket::InboxSocket;

/// A carrier that needs no call of the client.
pub(crate) trait PushCarrier {
    /// Records what this carrier finds available. Cheap, and without waiting.
    fn see(session: &Session, ways: &mut Ways);

    /// Hands over. Reports to the core just before the first byte leaves, by [`Leave::now`].
    async fn push(session: &Arc<Session>, post: &Post, leave: Leave<'_>) -> Result<(), PushError>;
}

/// Asks the core for permission to hand over; the core tells the broker first.
pub(crate) struct Leave<'a> {
    session: &'a Arc<Session>,
    carrier: Carrier,
}

impl Leave<'_> {
    /// Requests permission for bytes that leave next. `runs`: whether the client reported just now
    /// that a turn runs.
    pub(crate) fn now(self, runs: Option<bool>) -> Result<(), PushError> {
        let actions = self.session.handle(Event::Leaving { carrier: self.carrier, runs });
        let may_go = actions.iter().any(|action| matches!(action, Action::Go));
        if may_go { Ok(()) } else { Err(PushError::NotNow) }
    }
}

/// Returns the carriers that are available now.
pub(crate) fn ways(session: &Session) -> Ways {
    let mut ways = Ways::default();
    Channel::see(session, &mut ways);
    InboxSocket::see(session, &mut ways);
    AppServer::see(session, &mut ways);
    ways
}

/// Finds the available carriers and hands over, whenever the core requests it. Never returns.
pub(crate) async fn run(session: Arc<Session>) {
    loop {
        let event = session.next_need().await;
        for action in session.handle(event) {
            if let Action::Push { carrier, post } = action {
                let result = match hand_over(&session, carrier, &post).await {
                    Ok(()) => PushResult::Left,
                    Err(PushError::NotNow) => PushResult::NotNow,
                    Err(_) => PushResult::Failed,
                };
                session.handle(Event::PushedOut { carrier, result });
            }
        }
    }
}

async fn hand_over(session: &Arc<Session>, carrier: Carrier, post: &Post) -> Result<(), PushError> {
    let leave = Leave { session, carrier };
    match carrier {
        Carrier::Channel => Channel::push(session, post, leave).await,
        Carrier::InboxSocket => InboxSocket::push(session, post, leave).await,
        Carrier::AppServer => AppServer::push(session, post, leave).await,
        Carrier::Hook | Carrier::ToolResult | Carrier::Peerctl => Err(PushError::Gone),
    }
}

/// Why a push carrier could not hand over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// The carrier is no longer available.
    #[error("the carrier is gone")]
    Gone,
    /// The system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The carrier found something unexpected in its place.
    #[error("{0}")]
    Refused(String),
    /// The client takes nothing now, or the core did not let it go: the next event leads to another
    /// attempt.
    #[error("the client takes nothing now")]
    NotNow,
    /// Codex's control socket failed.
    #[error("{0}")]
    Control(#[from] ControlError),
}
