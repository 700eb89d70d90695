//! The block at the end of every tool result: the one way in that every client has.
//!
//! Before a call acts, what it proves goes to the broker; after it acted, what is due goes into its result. Invariants:
//! the broker is told of an offer before the result can leave, and a block is made only from what the broker confirmed
//! this session holds, so that nothing sent before the call is missed.

use std::sync::Arc;

use peer_client::{Connection, RequestError};
use peer_proto::ids::MessageId;
use peer_proto::limits::MESSAGES_PER_REQUEST_MAX;
use peer_proto::message::{Carrier, Evidence};
use peer_proto::request::{Filter, Received, Reply, Request};

use crate::inbox::{Ask, Block, Caller, Proof};
use crate::session::{CallError, Session};

/// Tells the broker what this call proves. Nothing else of the call may come before it.
pub(crate) fn prove(session: &Arc<Session>, caller: &Caller) {
    let proved = session.state().inbox.proved_by(caller);
    // Without a connection the inbox keeps the proof, and tells it when the broker pushes the message again.
    if let Some(connection) = session.connected().filter(|_| !proved.is_empty()) {
        session.prove(&connection, proved, Proof { carrier: Carrier::ToolResult, evidence: Evidence::NextCall });
    }
}

/// What of the filter this session holds, once all of it has been pushed and is in the inbox, and once the client's record
/// has told what of it the model has seen.
pub(crate) async fn receive(session: &Arc<Session>, filter: Filter) -> Result<Received, CallError> {
    let before = session.state().inbox.proofs();
    match session.request(Request::Receive { filter, wait: false }).await? {
        Reply::Received(received) => {
            session.settle_pushes().await;
            session.settle_record().await;
            // What was proved meanwhile does not wait any more.
            let proved = session.state().inbox.proofs() - before;
            Ok(Received { waiting: received.waiting.saturating_sub(proved), ..received })
        }
        _ => Err(CallError::Request(RequestError::Unexpected)),
    }
}

/// Makes the block and offers what it shows. Nothing where there is no broker to tell, or no client to show it to.
pub(crate) fn block(session: &Session, caller: &Caller, ask: Ask<'_>, waiting: u64) -> Block {
    let Some(connection) = session.connected().filter(|_| !session.is_closing() && caller.call.counts()) else {
        return Block::default();
    };
    let block = {
        let mut state = session.state();
        // What another adapter of this client takes cannot be had here.
        let takes_mail = state.identity.as_ref().is_some_and(|identity| identity.takes_mail);
        let waiting = if takes_mail { usize::try_from(waiting).unwrap_or(usize::MAX) } else { 0 };
        state.inbox.block(caller, ask, waiting)
    };
    offered(session, &connection, &block.offered);
    block
}

/// Tells the broker, before the result can leave, that it carries these. The answer says nothing that matters here: what
/// was withdrawn meanwhile is shown once more than needed.
pub(crate) fn offered(session: &Session, connection: &Connection, messages: &[MessageId]) {
    // Where hooks come, what was shown to somebody else, such as a subagent, has another way.
    let last = !session.state().facts.hooks_come;
    for messages in messages.chunks(MESSAGES_PER_REQUEST_MAX) {
        drop(connection.submit(Request::Offered { messages: messages.to_vec(), carrier: Carrier::ToolResult, last }));
    }
    session.given();
}
