//! Which peer this session is, and which of the client's sessions, as the environment, tool calls,
//! hooks and the client's files reveal it. The broker finds the mailbox by it.
//!
//! Knows when the client changed to another conversation. Does not know the files that record it.
//! Invariant: without a known session of the client there is no seat.

use peer_proto::hook::{HookCall, HookEvent};
use peer_proto::limits::SEAT_KEY_BYTES_MAX;
use peer_proto::request::{Registered, Resume, Seat, SeatKind};

use crate::ClientKind;
use crate::adapter::{Adapter, Credentials};
use crate::event::{Action, BindOutcome};

/// The reasons for which a Claude Code session may get another id.
const CHANGES_OF_SESSION: [&str; 4] = ["clear", "resume", "compact", "fork"];

/// The session that a hook belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This session.
    Ours,
    /// Another session: a client that a tool of this session started runs hooks too.
    Anothers,
    /// This session, if the hook's conversation is the one that this adapter serves, or becomes
    /// that one.
    OursIfItSpeaks,
    /// This session under another id, if the client's registry has that id for this client.
    OursIfListed,
    /// This session under another id.
    OursByAnotherName,
}

impl Adapter {
    /// Returns the client's own name of the session, if it is known.
    pub fn seat(&self) -> Option<Seat> {
        let claude = || {
            let key = self
                .settings
                .claude_session
                .clone()
                .filter(|_| self.carriers.client == ClientKind::Claude)?;
            (key.len() <= SEAT_KEY_BYTES_MAX).then_some(Seat { kind: SeatKind::Claude, key })
        };
        self.seat.clone().or_else(claude)
    }

    /// Whether the conversation that gets the mail is known.
    pub fn has_conversation(&self) -> bool {
        self.main_conversation.is_some()
    }

    /// Returns the session that a hook belongs to. The process tree alone cannot tell this client
    /// from one that its tool started. Claude Code's registry can.
    pub fn whose(&self, hook: &HookCall) -> Whose {
        let known = self.seat();
        if known.as_ref() == Some(&hook.seat) {
            return Whose::Ours;
        }
        match (self.carriers.client, hook.seat.kind) {
            // One adapter serves one thread: the first that a hook names.
            (ClientKind::Codex, SeatKind::Codex) => Whose::OursIfItSpeaks,
            (ClientKind::Claude, SeatKind::Claude) => {
                let source = hook.source.as_deref().unwrap_or("");
                let changed =
                    hook.event == HookEvent::SessionStart && CHANGES_OF_SESSION.contains(&source);
                if known.is_none() || changed { Whose::OursIfListed } else { Whose::Anothers }
            }
            (ClientKind::Other, SeatKind::Other) if known.is_none() => Whose::OursByAnotherName,
            _ => Whose::Anothers,
        }
    }

    /// Makes the first conversation that calls a tool the one that gets the mail. The broker learns
    /// the client's name of it, which finds its mailbox again. For a subagent that is its root
    /// conversation.
    pub(crate) fn speaks(&mut self, conversation: String) {
        if self.main_conversation.is_some() {
            return;
        }
        if self.carriers.client == ClientKind::Codex {
            self.replies
                .push(Action::Bind(Seat { kind: SeatKind::Codex, key: conversation.clone() }));
            self.speaking = Some(conversation);
        } else {
            self.main_conversation = Some(conversation);
        }
    }

    /// Handles a new id of this session, for example after its conversation was emptied.
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
            // The registration reports it.
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
            // For example, the key is too long: the session works on under its provisional name.
            BindOutcome::Refused(why) => {
                self.actions.push(Action::Notice(format!(
                    "the mailbox of this conversation ends with this session: {why}"
                )));
            }
            BindOutcome::Failed => return,
        }
        self.main_conversation = speaking.or(self.main_conversation.take());
    }

    /// Applies a registration at the broker. `again`: on a new connection of a process that was a
    /// session before.
    pub(crate) fn registered(&mut self, registered: Registered, again: bool) {
        let Registered { peer, name, token, notice, takes_mail, inbox_socket_in_bypass, .. } =
            registered;
        self.actions.extend(notice.map(Action::Notice));
        self.actions.push(Action::Title(name.clone()));
        let is_same = self.was.replace(peer) == Some(peer);
        let repeats_here = !takes_mail || (is_same && (again || self.inbox.repeats_here()));
        self.inbox.mark_repeats(repeats_here);
        self.identity =
            Some(Credentials { peer, name, takes_mail, resume: Resume { peer, token } });
        self.facts.inbox_socket_in_bypass = inbox_socket_in_bypass;
        // A second adapter of one client leaves the title to the first.
        if takes_mail {
            self.actions.push(Action::Summarize(peer));
        }
    }

    /// Sets this session's name.
    pub(crate) fn named(&mut self, name: String) {
        self.actions.push(Action::Title(name.clone()));
        if let Some(identity) = &mut self.identity {
            identity.name = name;
        }
    }

    /// Shows this session's name in the client's tab. An unregistered session has no known name.
    pub(crate) fn reassert_title(&mut self) {
        let name = self.identity.as_ref().map(|identity| identity.name.clone());
        self.actions.extend(name.filter(|_| self.is_connected).map(Action::Title));
    }
}
