//! Which of the client's own sessions this is, as it comes to be known: from the environment, a tool call, a hook, or the
//! client's own files. The broker finds the mailbox by it.

use std::sync::Arc;

use peer_proto::hook::{HookCall, HookEvent};
use peer_proto::limits::SEAT_KEY_BYTES_MAX;
use peer_proto::request::{Reply, Request, Seat, SeatKind};

use super::{CallError, ClientKind, Session};
use crate::codex;
use peer_client::RequestError;

/// Why a Claude Code session may go on under another id.
const CHANGES_OF_SESSION: [&str; 4] = ["clear", "resume", "compact", "fork"];

impl Session {
    /// The client's own name of the session, as far as it is known.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let claude = || {
            let key = self.surroundings.claude_session.clone().filter(|_| self.client().kind == ClientKind::Claude)?;
            (key.len() <= SEAT_KEY_BYTES_MAX).then_some(Seat { kind: SeatKind::Claude, key })
        };
        self.state().seat.clone().or_else(claude)
    }

    /// Known before the session begins: its seat, and the conversation that mail rides on, where that is known too.
    pub(crate) fn settle_on(&self, seat: Option<Seat>, main_conversation: Option<String>) {
        let mut state = self.state();
        state.seat = seat;
        state.main_conversation = main_conversation;
    }

    /// The first conversation that calls a tool is the one that mail rides on; the broker learns the client's own name of
    /// it, which finds its mailbox again. Of a subagent that is the conversation at its root.
    pub(crate) async fn bind(self: &Arc<Self>, conversation: &str) -> Result<(), CallError> {
        let _one_at_a_time = self.binding.lock().await;
        if self.client().kind == ClientKind::Codex {
            codex::find_record(self);
        }
        if self.state().main_conversation.is_some() {
            return Ok(());
        }
        if self.client().kind == ClientKind::Codex {
            self.sit(Seat { kind: SeatKind::Codex, key: conversation.to_owned() }).await?;
        }
        self.state().main_conversation = Some(conversation.to_owned());
        Ok(())
    }

    /// The client says that this session goes by another id of its own now, such as after its conversation was emptied.
    pub(crate) async fn rebind(self: &Arc<Self>, seat: Seat) -> Result<(), CallError> {
        let _one_at_a_time = self.binding.lock().await;
        let before = self.seat();
        if before.as_ref() == Some(&seat) {
            return Ok(());
        }
        if before.is_some_and(|before| before.kind == SeatKind::Claude) {
            // What the last conversation's record says by now is proof; what it says later nobody reads.
            self.look_into_transcript();
            self.state().inbox.leave_conversation();
        }
        if self.connected().is_none() {
            // Told with the registration.
            self.state().seat = Some(seat);
            return Ok(());
        }
        self.sit(seat).await
    }

    async fn sit(self: &Arc<Self>, seat: Seat) -> Result<(), CallError> {
        match self.request(Request::Bind(seat.clone())).await {
            Ok(Reply::Registered(registered)) => {
                self.state().seat = Some(seat);
                self.registered(registered, false);
                Ok(())
            }
            Ok(_) => Err(CallError::Request(RequestError::Unexpected)),
            // Such as a key beyond its bound: the session works on under its provisional name.
            Err(CallError::Refused(refusal)) => {
                self.notice(format!("this conversation has no lasting mailbox: {refusal}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a hook is one of this session's; where it tells of a new id of this session, that is followed.
    ///
    /// A client that a tool of this session started runs hooks too, before an adapter of its own is there, and the kernel's
    /// word alone cannot tell them apart. Claude Code's registry can.
    pub(crate) async fn follow(self: &Arc<Self>, hook: &HookCall) -> bool {
        let known = self.seat();
        if known.as_ref() == Some(&hook.seat) {
            return true;
        }
        match (self.client().kind, hook.seat.kind) {
            (ClientKind::Codex, SeatKind::Codex) => {
                if hook.event == HookEvent::SessionStart && self.state().main_conversation.is_some() {
                    codex::gone_on(self, &hook.seat.key);
                }
                // One adapter serves one thread, and the first that it hears of is the one.
                self.connected().is_some() && self.bind(&hook.seat.key).await.is_ok() && self.seat().as_ref() == Some(&hook.seat)
            }
            (ClientKind::Claude, SeatKind::Claude) => {
                let source = hook.source.as_deref().unwrap_or("");
                let changed = hook.event == HookEvent::SessionStart && CHANGES_OF_SESSION.contains(&source);
                (known.is_none() || changed)
                    && self.is_registered_as(&hook.seat.key).await
                    && self.rebind(hook.seat.clone()).await.is_ok()
            }
            (ClientKind::Other, SeatKind::Other) => known.is_none() && self.rebind(hook.seat.clone()).await.is_ok(),
            _ => false,
        }
    }
}
