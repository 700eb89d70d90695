//! Asks the broker for the seat that the core has settled on, and finds out whose a hook is.
//!
//! Knows where a client says which session it is. What follows from it, the core decides. Invariant: one seat is asked for at
//! a time.

use std::sync::Arc;

use peer_client::RequestError;
use peer_mcp_core::Whose;
use peer_proto::hook::{HookCall, HookEvent};
use peer_proto::request::{Reply, Request, Seat};

use super::{CallError, ClientKind, Session};
use crate::codex;
use crate::event::{Action, BindOutcome, Event};

impl Session {
    /// The client's own name of the session, as far as it is known.
    pub(crate) fn seat(&self) -> Option<Seat> {
        self.state().core.seat()
    }

    /// A conversation calls a tool: the first one is the one that mail rides on.
    pub(crate) async fn bind(self: &Arc<Self>, conversation: &str) -> Result<(), CallError> {
        let _one_at_a_time = self.binding.lock().await;
        if self.client().kind == ClientKind::Codex {
            codex::find_record(self);
        }
        self.sit(Event::Speaks { conversation: conversation.to_owned() }).await
    }

    /// The client says that this session goes by another id of its own now, such as after its conversation was emptied.
    pub(crate) async fn rebind(self: &Arc<Self>, seat: Seat) -> Result<(), CallError> {
        let _one_at_a_time = self.binding.lock().await;
        if self.seat().as_ref() != Some(&seat) {
            // What the last conversation's record says by now is proof; what it says later nobody reads.
            self.look_into_transcript();
        }
        self.sit(Event::GoesBy(seat)).await
    }

    async fn sit(self: &Arc<Self>, event: Event) -> Result<(), CallError> {
        let seat = self.handle(event).into_iter().find_map(|action| match action {
            Action::Bind(seat) => Some(seat),
            _ => None,
        });
        let Some(seat) = seat else { return Ok(()) };
        let (outcome, result) = match self.request(Request::Bind(seat.clone())).await {
            Ok(Reply::Registered(registered)) => (BindOutcome::Done(registered), Ok(())),
            Ok(_) => (BindOutcome::Failed, Err(CallError::Request(RequestError::Unexpected))),
            Err(CallError::Refused(refusal)) => (BindOutcome::Refused(refusal.to_string()), Ok(())),
            Err(error) => (BindOutcome::Failed, Err(error)),
        };
        self.handle(Event::Bound { seat, outcome });
        result
    }

    /// Whether a hook is one of this session's; where it tells of a new id of this session, that is followed.
    pub(crate) async fn follow(self: &Arc<Self>, hook: &HookCall) -> bool {
        let (whose, has_conversation) = {
            let state = self.state();
            (state.core.whose(hook), state.core.has_conversation())
        };
        match whose {
            Whose::Ours => true,
            Whose::Anothers => false,
            Whose::OursIfItSpeaks => {
                if hook.event == HookEvent::SessionStart && has_conversation {
                    codex::gone_on(self, &hook.seat.key);
                }
                self.connected().is_some() && self.bind(&hook.seat.key).await.is_ok() && self.seat().as_ref() == Some(&hook.seat)
            }
            Whose::OursIfListed => self.is_registered_as(&hook.seat.key).await && self.rebind(hook.seat.clone()).await.is_ok(),
            Whose::OursByAnotherName => self.rebind(hook.seat.clone()).await.is_ok(),
        }
    }
}
