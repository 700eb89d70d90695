//! The block at the end of every tool result: the one way in that every client has.
//!
//! Knows how to find out what the broker holds for this session. What is shown, and what the broker is told of it, the core
//! decides ([`peer_mcp_core::adapter`]). Invariant: a block is made only from what the broker confirmed this session holds, so
//! that nothing sent before the call is missed.

use std::sync::Arc;

use peer_client::RequestError;
use peer_proto::ids::MessageId;
use peer_proto::request::{Filter, Received, Reply, Request};

use crate::call::CallId;
use crate::event::{Action, Due, Event};
use crate::inbox::Block;
use crate::session::{CallError, Session};

/// What of the filter this session holds, once all of it has been pushed and is in the inbox, and once the client's record
/// has told what of it the model has seen.
pub(crate) async fn receive(session: &Arc<Session>, filter: Filter) -> Result<Received, CallError> {
    let before = session.state().core.inbox().proofs();
    match session.request(Request::Receive { filter, wait: false }).await? {
        Reply::Received(received) => {
            session.settle_pushes().await;
            session.settle_record().await;
            // What was proved meanwhile does not wait any more.
            let proved = session.state().core.inbox().proofs() - before;
            Ok(Received { waiting: received.waiting.saturating_sub(proved), ..received })
        }
        _ => Err(CallError::Request(RequestError::Unexpected)),
    }
}

/// The block for the call's result. Nothing where there is no broker to tell, or no client to show it to.
pub(crate) fn block(session: &Arc<Session>, call: CallId, due: Due) -> Block {
    shown(session.handle(Event::ResultDue { call, due }))
}

/// A part of a message that this session holds; none where it does not hold it.
pub(crate) fn part(session: &Arc<Session>, call: CallId, message: MessageId, offset: usize, peek: bool) -> Option<String> {
    let block = shown(session.handle(Event::ReadOn { call, message, offset, peek }));
    (!block.text.is_empty()).then_some(block.text)
}

fn shown(actions: Vec<Action>) -> Block {
    let blocks = actions.into_iter().find_map(|action| match action {
        Action::Show { block, .. } => Some(block),
        _ => None,
    });
    blocks.unwrap_or_default()
}
