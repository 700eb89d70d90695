//! What happens to conversations and adapters: compaction, a second adapter of one client, forks.
//!
//! A client that forks leaves two conversations that have the same beginning. Each is a session of
//! its own: what was sent to one is not proved by what the other one saw.

use peer_mcp_core::ClientKind;
use peer_mcp_core::event::Event;
use peer_proto::hook::HookEvent;
use peer_proto::message::Carrier;

use crate::client::{Client, Doing, Piece, named};
use crate::ends::{Ends, first_of, of};
use crate::moves::{after_tools, send_to};

/// Clients of a world that are there from the beginning.
pub const CLIENTS: usize = 3;

/// Most clients of a world, with those that began as forks.
const CLIENTS_MAX: usize = 5;

impl Ends {
    /// The model has answered.
    pub fn answer(&mut self, client: usize) {
        let asked = self.clients[client].answer(&self.bodies);
        self.note_seen(client, &asked);
    }

    /// The client has a result.
    pub fn take_result(&mut self, client: usize, place: usize) {
        let client = &mut self.clients[client];
        let call = client.calls.remove(place);
        let (text, end) = call.result.unwrap_or_default();
        let session = &mut self.sessions[call.at];
        session.left_bytes = session.left_bytes.max(end);
        client.has_result = true;
        if call.is_wanted && !call.is_subagents && !text.is_empty() {
            let from = session.serial;
            let piece = Piece { text, by: Carrier::ToolResult, from, is_kept: false };
            client.pending.push(piece);
        }
    }

    /// The client goes on under another id of its own: `change` says with what. Its list of sessions
    /// says so, and a hook where there are hooks; nobody knows which comes first.
    pub fn go_by_another_id(
        &mut self,
        client: usize,
        source: &str,
        change: impl FnOnce(&mut Client, u32),
    ) {
        let conversation = self.new_conversation();
        for at in self.adapters(client) {
            self.look_into_record(at);
            self.sessions[at].read = 0;
        }
        change(&mut self.clients[client], conversation);
        let hook_first = self.random.chance(50);
        if hook_first && self.clients[client].hooks {
            self.run_hook_from(client, HookEvent::SessionStart, Some(source));
        }
        self.tell_id(client);
        if !hook_first && self.clients[client].hooks {
            self.run_hook_from(client, HookEvent::SessionStart, Some(source));
        }
    }

    fn tell_id(&mut self, client: usize) {
        let Some(seat) = self.seat(client) else { return };
        for at in self.adapters(client) {
            // One seat at a time: the next look into the list of sessions repeats it.
            if !self.is_binding(at) {
                self.tell(at, Event::GoesBy(seat.clone()));
            }
        }
    }

    /// The place of another client: a new one, or that of a fork that has ended, or ends now.
    fn place_for_fork(&mut self, fork: Client, origin: usize) -> Option<usize> {
        if self.clients.len() < CLIENTS_MAX {
            return Some(self.add(fork));
        }
        let mut places: Vec<usize> =
            (CLIENTS..CLIENTS_MAX).filter(|place| *place != origin).collect();
        places.sort_by_key(|place| self.is_running(*place));
        let place = *places.first()?;
        if self.is_running(place) {
            let is_shared = self.clients[place].pid == self.clients[origin].pid;
            if is_shared {
                return None;
            }
            self.die(place);
        }
        let name = self.clients[place].name.clone();
        self.clients[place] = Client { name, ..fork };
        Some(place)
    }
}

// ---- compaction

pub fn compact_told(ends: &mut Ends, at: usize) -> bool {
    ends.clients[of(at)].records && compact(ends, at, true, true)
}

pub fn compact_untold(ends: &mut Ends, at: usize) -> bool {
    compact(ends, at, false, true)
}

pub fn compact_silently(ends: &mut Ends, at: usize) -> bool {
    let says_so = ends.random.chance(50);
    ends.clients[of(at)].hooks && compact(ends, at, says_so, false)
}

/// The client replaces the conversation by a shorter one, between two turns or before a request. It
/// keeps all that waits for the next request, nothing of it, or some.
fn compact(ends: &mut Ends, at: usize, says_so: bool, runs_hook: bool) -> bool {
    let client = &ends.clients[of(at)];
    let is_between = matches!(client.doing, Doing::Resting | Doing::Ready);
    if !ends.is_running(of(at)) || !is_between || !client.hooks_to_run.is_empty() {
        return false;
    }
    let chance = [0, 100, 50][ends.random.below(3)];
    let random = &mut ends.random;
    let client = &mut ends.clients[of(at)];
    let lost = client.compact(|| random.chance(chance), says_so);
    client.dropped_now = named(&lost).into_iter().map(|(message, _)| message).collect();
    if client.hooks && runs_hook {
        ends.run_hook_from(of(at), HookEvent::SessionStart, Some("compact"));
    } else {
        ends.forget_untold(of(at), HookEvent::SessionStart);
    }
    true
}

// ---- a second adapter of one client

/// The client starts another adapter beside the one that runs: it has two entries for the server,
/// or it loads its servers again and ends the old one later.
pub fn start_second(ends: &mut Ends, at: usize) -> bool {
    let Some(other) = other_of(at).filter(|other| !ends.sessions[*other].is_alive) else {
        return false;
    };
    let is_up = ends.sessions[at].program.is_some();
    // Two adapters are one session only by the id that their client gave both, or by the process of
    // Claude Code.
    let is_claude = ends.clients[of(at)].kind == ClientKind::Claude;
    if !is_up || !(is_claude || ends.is_id_known(of(at))) {
        return false;
    }
    ends.start_adapter(other);
    true
}

/// One of two adapters ends. The client sees that its calls there have failed.
pub fn end_one(ends: &mut Ends, at: usize) -> bool {
    if ends.adapters(of(at)).len() < 2 {
        return false;
    }
    let read = ends.random.below(ends.sessions[at].up.len() + 1);
    ends.end_adapter(at, read);
    let client = &mut ends.clients[of(at)];
    client.calls.retain(|call| call.at != at);
    if client.calls.is_empty() && client.doing == Doing::Calling {
        after_tools(ends, at, 1);
    }
    true
}

/// The model calls a tool of the adapter that takes no mail.
pub fn call_idle_one(ends: &mut Ends, at: usize) -> bool {
    let takes = |at: &usize| ends.sessions[*at].adapter.identity().is_some_and(|it| it.takes_mail);
    let adapters = ends.adapters(of(at));
    if adapters.len() < 2 || ends.clients[of(at)].doing != Doing::Answered {
        return false;
    }
    let Some(idle) = adapters.into_iter().find(|at| !takes(at)) else { return false };
    ends.clients[of(at)].doing = Doing::Calling;
    ends.call(idle, false, true);
    true
}

fn other_of(at: usize) -> Option<usize> {
    (first_of(of(at))..first_of(of(at) + 1)).find(|other| *other != at)
}

// ---- forks

/// Another process goes on from the conversation, under an id of its own. Codex has it in the same
/// process: in the same terminal, where the adapter of the original leaves, or in another one.
pub fn fork_away(ends: &mut Ends, at: usize) -> bool {
    let is_codex = ends.clients[of(at)].kind == ClientKind::Codex;
    if is_codex && !ends.is_running(of(at)) {
        return false;
    }
    let conversation = ends.new_conversation();
    let Some(fork) = begin_fork(ends, at, conversation) else { return false };
    if is_codex {
        if ends.random.chance(50) {
            for at in ends.adapters(of(at)) {
                ends.cut(at, usize::MAX);
            }
        }
        ends.clients[fork].pid = ends.clients[of(at)].pid;
        ends.start_adapter(first_of(fork));
    } else {
        ends.start(fork);
    }
    start_hook(ends, fork);
    true
}

/// The client itself goes on as a fork, under another id. Another process goes on with the original
/// conversation, under the id that the client had.
pub fn fork_here(ends: &mut Ends, at: usize) -> bool {
    let client = &ends.clients[of(at)];
    let can_fork = client.kind == ClientKind::Claude && client.doing == Doing::Resting;
    let is_told = !ends.adapters(of(at)).into_iter().any(|at| ends.is_binding(at));
    if !can_fork || !is_told || !ends.is_running(of(at)) {
        return false;
    }
    let original = client.conversation;
    let Some(other) = begin_fork(ends, at, original) else { return false };
    ends.go_by_another_id(of(at), "fork", |client, conversation| {
        let seen = client.seen.get(&client.conversation).cloned().unwrap_or_default();
        client.seen.insert(conversation, seen);
        client.conversation = conversation;
    });
    ends.start(other);
    start_hook(ends, other);
    true
}

/// A fork has the original's id in its environment, and learns its own from its client's list of
/// sessions or from a hook.
pub fn fork_under_old_id(ends: &mut Ends, at: usize) -> bool {
    if ends.clients[of(at)].kind != ClientKind::Claude {
        return false;
    }
    let (original, own) = (ends.clients[of(at)].conversation, ends.new_conversation());
    let Some(fork) = begin_fork(ends, at, original) else { return false };
    ends.start(fork);
    let client = &mut ends.clients[fork];
    client.conversation = own;
    let seen = client.seen.remove(&original).unwrap_or_default();
    client.seen.insert(own, seen);
    if !client.hooks || ends.random.chance(50) {
        ends.tell_id(fork);
    }
    start_hook(ends, fork);
    true
}

fn begin_fork(ends: &mut Ends, at: usize, conversation: u32) -> Option<usize> {
    let with_open = ends.random.chance(50);
    let of_it = ends.clients[of(at)].fork(conversation, with_open);
    ends.place_for_fork(of_it, of(at))
}

fn start_hook(ends: &mut Ends, fork: usize) {
    let source = ["resume", "fork"][ends.random.below(2)];
    if ends.clients[fork].hooks {
        ends.run_hook_from(fork, HookEvent::SessionStart, Some(source));
    }
}

/// One message goes to a fork and to the client that it was forked from: two deliveries of it.
pub fn send_to_both(ends: &mut Ends, at: usize) -> bool {
    let client = &ends.clients[of(at)];
    let Some(original) = client.fork_of.clone().filter(|name| *name != client.name) else {
        return false;
    };
    let names = vec![original, client.name.clone()];
    send_to(ends, names)
}
