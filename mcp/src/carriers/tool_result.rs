//! The block at the end of every tool result: the carrier that every client has.
//!
//! Knows how to find out what the broker holds for this session. Does not know which messages are
//! shown, nor what the broker is told of them: the core decides that ([`peer_mcp_core::adapter`]).
//! Invariant: a block contains only messages that the broker confirmed this session holds. So no
//! message that was sent before the call is missed.

use std::sync::Arc;

use peer_client::RequestError;
use peer_proto::ids::MessageId;
use peer_proto::request::{Filter, Received, Reply, Request};

use crate::call::CallId;
use crate::event::{Action, Due, Event};
use crate::inbox::Block;
use crate::session::{CallError, Session};

/// Returns the messages of the filter that this session holds. Before, all of them were pushed into
/// the inbox, and the client's record was read for what the model has seen.
pub(crate) async fn receive(session: &Arc<Session>, filter: Filter) -> Result<Received, CallError> {
    let before = session.state().core.inbox().proofs();
    match session.request(Request::Receive { filter, wait: false }).await? {
        Reply::Received(received) => {
            session.wait_for_pushes().await;
            session.wait_for_record().await;
            // A message that was proved meanwhile no longer waits.
            let proved = session.state().core.inbox().proofs() - before;
            Ok(Received { waiting: received.waiting.saturating_sub(proved), ..received })
        }
        _ => Err(CallError::Request(RequestError::Unexpected)),
    }
}

/// Returns the block for the call's result; empty without a broker or without a client.
pub(crate) fn block(session: &Arc<Session>, call: CallId, due: Due) -> Block {
    shown(session.handle(Event::ResultDue { call, due }))
}

/// Returns a part of a message; `None`: this session does not hold it.
pub(crate) fn part(
    session: &Arc<Session>,
    call: CallId,
    message: MessageId,
    offset: usize,
    peek: bool,
) -> Option<String> {
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
