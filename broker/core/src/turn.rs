//! One turn of the rules: its time, and its decisions.
//!
//! Every rule that may decide something gets the turn. Does not know the decisions' meaning.

use peer_proto::refusal::Refusal;
use peer_proto::request::{Push, Reply, RequestId};

use crate::input::{ConnectionId, Now};
use crate::step::{Change, Effect, Query, Step};
use crate::who::Caller;

/// The time of one input, and the step that takes its decisions.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) step: &'a mut Step,
}

impl Turn<'_> {
    pub(crate) fn change(&mut self, change: Change) {
        self.step.change(change);
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.step.effects.push(effect);
    }

    pub(crate) fn push(&mut self, connection: ConnectionId, push: Push) {
        self.effect(Effect::Push { connection, push });
    }

    /// Answers the request of this turn.
    pub(crate) fn reply(&mut self, caller: Caller, reply: Reply) {
        self.reply_to(caller.connection, caller.id, reply);
    }

    /// Answers a request whose answer was pending.
    pub(crate) fn reply_to(&mut self, connection: ConnectionId, id: RequestId, reply: Reply) {
        self.effect(Effect::Reply { connection, id, result: Ok(reply) });
    }

    pub(crate) fn refuse(&mut self, caller: Caller, refusal: Refusal) {
        self.effect(Effect::Reply {
            connection: caller.connection,
            id: caller.id,
            result: Err(refusal),
        });
    }

    /// Answers the request of this turn with what the store holds.
    pub(crate) fn query(&mut self, caller: Caller, query: Query) {
        self.effect(Effect::Query { connection: caller.connection, id: caller.id, query });
    }
}
