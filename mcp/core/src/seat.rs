//! Who this session is, and which of the client's own sessions that is, as it comes to be known: from the environment, a tool
//! call, a hook, or the client's own files. The broker finds the mailbox by it.
//!
//! Knows when the client has gone on with another conversation. Does not know the files that say so.

use peer_proto::hook::{HookCall, HookEvent};
use peer_proto::limits::SEAT_KEY_BYTES_MAX;
use peer_proto::request::{Registered, Resume, Seat, SeatKind};

use crate::ClientKind;
use crate::adapter::{Adapter, Identity};
use crate::event::{Action, BindOutcome};

/// Why a Claude Code session may go on under another id.
const CHANGES_OF_SESSION: [&str; 4] = ["clear", "resume", "compact", "fork"];

/// Whose a hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This session's.
    Ours,
    /// Another session's: a client that a tool of this session started runs hooks too.
    Anothers,
    /// This session's, if it speaks for the conversation that this adapter serves, or comes to.
    OursIfItSpeaks,
    /// This session's under another id, if the client's own list of sessions has that id for this client.
    OursIfListed,
    /// This session's under another id.
    OursByAnotherName,
}

impl Adapter {
    /// The client's own name of the session, as far as it is known.
    pub fn seat(&self) -> Option<Seat> {
        let claude = || {
            let key = self.settings.claude_session.clone().filter(|_| self.carriers.client == ClientKind::Claude)?;
            (key.len() <= SEAT_KEY_BYTES_MAX).then_some(Seat { kind: SeatKind::Claude, key })
        };
        self.seat.clone().or_else(claude)
    }

    /// Whether it is known which conversation mail rides on.
    pub fn has_conversation(&self) -> bool {
        self.main_conversation.is_some()
    }

    /// Whether a hook is one of this session's. The kernel's word alone cannot tell this client from one that a tool of it
    /// started; Claude Code's own list of sessions can.
    pub fn whose(&self, hook: &HookCall) -> Whose {
        let known = self.seat();
        if known.as_ref() == Some(&hook.seat) {
            return Whose::Ours;
        }
        match (self.carriers.client, hook.seat.kind) {
            // One adapter serves one thread, and the first that it hears of is the one.
            (ClientKind::Codex, SeatKind::Codex) => Whose::OursIfItSpeaks,
            (ClientKind::Claude, SeatKind::Claude) => {
                let source = hook.source.as_deref().unwrap_or("");
                let changed = hook.event == HookEvent::SessionStart && CHANGES_OF_SESSION.contains(&source);
                if known.is_none() || changed { Whose::OursIfListed } else { Whose::Anothers }
            }
            (ClientKind::Other, SeatKind::Other) if known.is_none() => Whose::OursByAnotherName,
            _ => Whose::Anothers,
        }
    }

    /// The first conversation that calls a tool is the one that mail rides on; the broker learns the client's own name of it,
    /// which finds its mailbox again. Of a subagent that is the conversation at its root.
    pub(crate) fn speaks(&mut self, conversation: String) {
        if self.main_conversation.is_some() {
            return;
        }
        if self.carriers.client == ClientKind::Codex {
            self.replies.push(Action::Bind(Seat { kind: SeatKind::Codex, key: conversation.clone() }));
            self.speaking = Some(conversation);
        } else {
            self.main_conversation = Some(conversation);
        }
    }

    /// The client says that this session goes by another id of its own now, such as after its conversation was emptied.
    pub(crate) fn goes_by(&mut self, seat: Seat) {
        let before = self.seat();
        if before.as_ref() == Some(&seat) {
            return;
        }
        if before.is_some_and(|before| before.kind == SeatKind::Claude) {
            self.inbox.leave_conversation();
        }
        if self.is_connected {
            self.replies.push(Action::Bind(seat));
        } else {
            // Told with the registration.
            self.seat = Some(seat);
        }
    }

    pub(crate) fn bound(&mut self, seat: Seat, outcome: BindOutcome) {
        let speaking = self.speaking.take_if(|conversation| *conversation == seat.key);
        match outcome {
            BindOutcome::Done(registered) => {
                self.seat = Some(seat);
                self.registered(registered, false);
            }
            // Such as a key beyond its bound: the session works on under its provisional name.
            BindOutcome::Refused(why) => {
                self.actions.push(Action::Notice(format!("this conversation has no lasting mailbox: {why}")));
            }
            BindOutcome::Failed => return,
        }
        self.main_conversation = speaking.or(self.main_conversation.take());
    }

    /// The broker says who we are. `again`: on a new connection, where this process was a session before.
    pub(crate) fn registered(&mut self, registered: Registered, again: bool) {
        let Registered { peer, name, token, notice, takes_mail, inbox_socket_in_bypass, .. } = registered;
        self.actions.extend(notice.map(Action::Notice));
        self.actions.push(Action::Title(name.clone()));
        let is_same = self.was.replace(peer) == Some(peer);
        let repeats_here = !takes_mail || (is_same && (again || self.inbox.repeats_here()));
        self.inbox.note_repeats(repeats_here);
        self.identity = Some(Identity { peer, name, takes_mail, resume: Resume { peer, token } });
        self.facts.inbox_socket_in_bypass = inbox_socket_in_bypass;
        // A second adapter of one client leaves it to the first.
        if takes_mail {
            self.actions.push(Action::Summarize(peer));
        }
    }

    /// This session has this name from now on.
    pub(crate) fn named(&mut self, name: String) {
        self.actions.push(Action::Title(name.clone()));
        if let Some(identity) = &mut self.identity {
            identity.name = name;
        }
    }

    /// Shows this session's name in the client's tab. Without a session it has no name that anybody knows.
    pub(crate) fn reassert_title(&mut self) {
        let name = self.identity.as_ref().map(|identity| identity.name.clone());
        self.actions.extend(name.filter(|_| self.is_connected).map(Action::Title));
    }
}
