//! Requests the core's seat from the broker, and finds out which session a hook belongs to.
//!
//! Knows where a client names its session. Does not know what follows from it: the core decides
//! that. Invariant: at most one seat is requested at a time.

use std::sync::Arc;

use peer_client::RequestError;
use peer_mcp_core::Whose;
use peer_proto::hook::{HookCall, HookEvent};
use peer_proto::request::{Reply, Request, Seat};

use super::{CallError, ClientKind, Session};
use crate::codex;
use crate::event::{Action, BindOutcome, Event};

impl Session {
    /// Returns the client's own name of the session, if it is known.
    pub(crate) fn seat(&self) -> Option<Seat> {
        self.state().core.seat()
    }

    /// Handles a tool call of a conversation: the first one gets the mail.
    pub(crate) async fn bind(self: &Arc<Self>, conversation: &str) -> Result<(), CallError> {
        let _one_at_a_time = self.binding.lock().await;
        if self.client().kind == ClientKind::Codex {
            codex::find_record(self);
        }
        self.sit(Event::Speaks { conversation: conversation.to_owned() }).await
    }

    /// Handles a new id of this session, for example after its conversation was emptied.
    pub(crate) async fn rebind(self: &Arc<Self>, seat: Seat) -> Result<(), CallError> {
        let _one_at_a_time = self.binding.lock().await;
        if self.seat().as_ref() != Some(&seat) {
            // The previous record is evidence up to now; later lines of it are not read.
            self.read_transcript();
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

    /// Whether a hook belongs to this session. If the hook names a new id of this session, the
    /// adapter adopts it.
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
                self.connected().is_some()
                    && self.bind(&hook.seat.key).await.is_ok()
                    && self.seat().as_ref() == Some(&hook.seat)
            }
            Whose::OursIfListed => {
                self.is_registered_as(&hook.seat.key).await
                    && self.rebind(hook.seat.clone()).await.is_ok()
            }
            Whose::OursByAnotherName => self.rebind(hook.seat.clone()).await.is_ok(),
        }
    }
}
