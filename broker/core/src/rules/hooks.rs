//! Passes a client's hook call to the adapter that serves the same client, and passes the answer
//! back.
//!
//! Nothing here is durable, and no mail is touched. The adapter holds the leases, so only the
//! adapter decides what a hook shows. Invariants: a call is answered once, and empty if the adapter
//! disconnects first. A hook reaches a session only if the kernel shows that both descend from one
//! client process, or if the hook's ancestors are unknown.

use peer_proto::hook::HookCall;
use peer_proto::ids::MessageId;
use peer_proto::limits::{NAME_CHARS_MAX, PATH_BYTES_MAX, SEAT_KEY_BYTES_MAX};
use peer_proto::request::{Push, Reply, Role};

use crate::broker::Broker;
use crate::check::{check_count, check_length, check_seat};
use crate::input::ConnectionId;
use crate::rejection::{Act, Rejection};
use crate::state::hook_calls::HookWait;
use crate::state::presence::is_same_place;
use crate::turn::Turn;
use crate::who::Caller;

impl Broker {
    pub(crate) fn relay_hook(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        hook: HookCall,
    ) -> Result<(), Rejection> {
        if self.presence.connections.get(&caller.connection).map(|open| open.role)
            != Some(Role::Hook)
        {
            return Err(Rejection::NotPermitted { act: Act::SpeakAsHook });
        }
        check_seat(&hook.seat)?;
        for (what, text, bytes_max) in [
            ("the working directory", Some(&hook.cwd), PATH_BYTES_MAX),
            ("the transcript's path", hook.transcript.as_ref(), PATH_BYTES_MAX),
            ("the subagent", hook.agent.as_ref(), SEAT_KEY_BYTES_MAX),
            ("the turn", hook.turn.as_ref(), SEAT_KEY_BYTES_MAX),
            ("the tool call", hook.tool_use.as_ref(), SEAT_KEY_BYTES_MAX),
            ("the source", hook.source.as_ref(), NAME_CHARS_MAX),
            ("the name", hook.name.as_ref(), SEAT_KEY_BYTES_MAX),
        ] {
            check_length(what, text.map_or("", String::as_str), bytes_max)?;
        }
        let Some(adapter) = self.adapter_of(caller.connection, &hook) else {
            turn.reply(caller, Reply::Hook { output: String::new() });
            return Ok(());
        };
        let call = self.hooks.begin(HookWait { hook: caller.connection, id: caller.id, adapter });
        turn.push(adapter, Push::Hook { call, hook: Box::new(hook) });
        Ok(())
    }

    /// Returns the adapter of the session in which a hook ran. The client's own session id decides.
    /// If no session has that id, the nearest ancestor of the hook that is a client decides,
    /// provided it has one session only.
    fn adapter_of(&self, connection: ConnectionId, hook: &HookCall) -> Option<ConnectionId> {
        let ancestors = &self.presence.connections.get(&connection)?.ancestors;
        let seated = self.presence.by_seat(&hook.seat).and_then(|peer| self.presence.reader(peer));
        let related = |adapter: ConnectionId| {
            let client = self.presence.session(adapter).map(|session| session.host.client_pid);
            ancestors.is_empty()
                || client.is_some_and(|pid| ancestors.iter().any(|above| above.pid == pid))
        };
        if let Some(adapter) = seated.filter(|adapter| related(*adapter)) {
            return Some(adapter);
        }
        for above in ancestors {
            let hosted: Vec<ConnectionId> = self.presence.readers_of_client(above.pid).collect();
            match hosted.as_slice() {
                [] => {}
                [adapter] => return Some(*adapter),
                several => {
                    let mut fitting = several.iter().filter(|adapter| {
                        let peer = self
                            .presence
                            .session(**adapter)
                            .and_then(|session| self.presence.get(session.peer));
                        peer.is_some_and(|peer| {
                            is_same_place(&peer.cwd, &hook.cwd)
                                && !peer.seats.iter().any(|seat| seat.kind == hook.seat.kind)
                        })
                    });
                    return fitting.next().copied().filter(|_| fitting.next().is_none());
                }
            }
        }
        None
    }

    /// Records in the same turn which messages the client asks its model with: the session may end
    /// before its adapter reports.
    pub(crate) fn hook_answer(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        call: u64,
        output: String,
        asks_with: &[MessageId],
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        if !asks_with.is_empty() {
            check_count(asks_with)?;
        }
        let wait = self.hooks.answer(call, caller.connection).ok_or(Rejection::HookGone)?;
        self.record_tried(caller, peer, asks_with);
        turn.reply_to(wait.hook, wait.id, Reply::Hook { output });
        turn.reply(caller, Reply::Done);
        Ok(())
    }

    /// Answers the hooks that wait for a closed connection, with nothing.
    pub(crate) fn hang_up_hooks(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        for wait in self.hooks.hang_up(connection) {
            turn.reply_to(wait.hook, wait.id, Reply::Hook { output: String::new() });
        }
    }
}
