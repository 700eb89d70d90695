//! The end of a world: everybody behaves for a while, and then every message has been presented to
//! its reader.

use peer_mcp_core::event::{Event, PushResult};
use peer_proto::hook::{Activity, HookEvent};
use peer_proto::ids::MessageId;
use peer_proto::message::{Carrier, Stage};
use peer_proto::request::Request;

use crate::client::{Doing, Piece};
use crate::ends::{Ends, of};
use crate::link::Wait;
use crate::moves::{read_part, to_read_on};

/// Turns in which the clients behave. Each takes more than a visibility timeout.
const TURNS: usize = 60;

/// Lets the clients behave until nothing waits.
pub fn settle(ends: &mut Ends) {
    ends.log.push("everybody behaves from now on".into());
    ends.is_honest = true;
    for client in 0..ends.clients.len() {
        ends.clients[client].shows_pushes = true;
        if !ends.is_running(client) {
            ends.start(client);
        }
    }
    for _ in 0..TURNS {
        for at in running(ends) {
            if ends.sessions[at].program.is_none() {
                ends.connect(at);
            }
            turn(ends, at);
        }
        if waiting(ends).is_none() {
            break;
        }
        ends.world.pass(31_000);
        while ends.world.tick() {
            ends.route();
        }
    }
    if let Some(lost) = waiting(ends) {
        panic!(
            "{}",
            ends.story(&format!(
                "{lost} still waits, though its reader has behaved for {TURNS} turns"
            ))
        );
    }
}

/// The adapters that run: some clients have two.
fn running(ends: &Ends) -> Vec<usize> {
    (0..ends.sessions.len()).filter(|at| ends.sessions[*at].is_alive).collect()
}

/// A delivery that nobody was shown, and is in nobody's hand any more.
fn waiting(ends: &Ends) -> Option<String> {
    let open = ends.world.disk.deliveries.values().find(|delivery| {
        ends.bodies.contains_key(&delivery.message) && delivery.stage != Stage::Presented
    });
    open.map(|delivery| {
        format!("{} to {}, which is {:?}", delivery.message, delivery.peer, delivery.stage)
    })
}

/// Everything that is under way arrives, at each adapter of the client.
fn flow(ends: &mut Ends, at: usize) {
    loop {
        let mut moved = false;
        for at in ends.adapters(of(at)) {
            moved |= ends.deliver_up(at) | ends.deliver_down(at);
            let now = ends.world.now.mono_ms;
            if ends.sessions[at].adapter.next_timeout(now).is_some_and(|time| time <= now)
                && ends.random.chance(50)
            {
                ends.tell(at, Event::Tick);
            }
            if std::mem::take(&mut ends.sessions[at].look_wanted) {
                let ways = ends.ways(at);
                ends.tell(at, Event::Ways(ways));
                moved = true;
            }
            moved |= push(ends, at);
        }
        if !moved {
            return;
        }
    }
}

fn push(ends: &mut Ends, at: usize) -> bool {
    let Some((carrier, _)) = &ends.sessions[at].push else { return false };
    let carrier = *carrier;
    let runs = (carrier == Carrier::AppServer).then(|| ends.clients[of(at)].works());
    let go = ends.tell(at, Event::Leaving { carrier, runs }).go;
    let Some((_, post)) = ends.sessions[at].push.take() else { return false };
    let result = if go { PushResult::Left } else { PushResult::NotNow };
    ends.tell(at, Event::PushedOut { carrier, result });
    if go {
        let from = ends.sessions[at].serial;
        let piece = Piece { text: post.text, by: carrier, from, is_kept: false };
        let client = &mut ends.clients[of(at)];
        if client.doing == Doing::Resting {
            client.begin_turn();
            client.pending.push(piece);
            client.doing = Doing::Ready;
            ends.says(of(at), Activity::Working);
        } else {
            client.queued.push(piece);
        }
    }
    true
}

fn read(ends: &mut Ends, at: usize) {
    ends.clients[of(at)].write_record();
    for at in ends.adapters(of(at)) {
        ends.look_into_record(at);
    }
}

/// Goes on until the client does something else than waiting.
fn wait_for_hooks(ends: &mut Ends, at: usize) {
    flow(ends, at);
    for _ in 0..10 {
        if !matches!(ends.clients[of(at)].doing, Doing::Hooking { .. }) {
            break;
        }
        // What came by a connection that is gone is answered by nobody.
        ends.give_up_hook(of(at));
        flow(ends, at);
    }
}

fn ask_and_answer(ends: &mut Ends, at: usize) {
    for _ in 0..10 {
        wait_for_hooks(ends, at);
        match ends.clients[of(at)].doing {
            Doing::Ready => ends.clients[of(at)].ask(true),
            Doing::Asked => {
                ends.answer(of(at));
                read(ends, at);
                flow(ends, at);
                return;
            }
            Doing::Calling => results(ends, at),
            _ => return,
        }
    }
}

/// All results arrive, and the hooks after them run.
fn results(ends: &mut Ends, at: usize) {
    flow(ends, at);
    while !ends.clients[of(at)].calls.is_empty() {
        ends.take_result(of(at), 0);
    }
    let client = &mut ends.clients[of(at)];
    client.doing = Doing::Ready;
    if client.hooks {
        client.hooks_to_run.push_back(HookEvent::PostToolUse);
        if client.kind == peer_mcp_core::ClientKind::Claude {
            client.hooks_to_run.push_back(HookEvent::PostToolBatch);
        }
        ends.next_of_client(of(at));
    }
    wait_for_hooks(ends, at);
}

/// One turn: the model calls a tool, reads on where it was shown a part, acknowledges what it has
/// seen, and ends.
fn turn(ends: &mut Ends, at: usize) {
    ask_and_answer(ends, at);
    if ends.clients[of(at)].doing == Doing::Resting {
        ends.clients[of(at)].begin_turn();
        ends.clients[of(at)].doing = Doing::Ready;
        ends.says(of(at), Activity::Working);
        if ends.clients[of(at)].hooks {
            ends.run_hook(of(at), HookEvent::UserPromptSubmit);
        }
        ask_and_answer(ends, at);
    }
    for _ in 0..6 {
        if ends.clients[of(at)].doing != Doing::Answered {
            break;
        }
        ends.clients[of(at)].doing = Doing::Calling;
        match to_read_on(ends, at) {
            Some((message, offset)) => {
                let call = ends.call(at, false, false);
                read_part(ends, at, call, message, offset);
            }
            None => drop(ends.call(at, false, true)),
        }
        results(ends, at);
        ask_and_answer(ends, at);
    }
    acknowledge(ends, at);
    if ends.clients[of(at)].doing == Doing::Answered {
        if ends.clients[of(at)].hooks {
            ends.run_hook(of(at), HookEvent::Stop);
            wait_for_hooks(ends, at);
        } else {
            ends.clients[of(at)].doing = Doing::Resting;
            ends.rests(of(at));
        }
    }
    read(ends, at);
    flow(ends, at);
    ask_and_answer(ends, at);
}

/// A client without a record and without names for its conversations proves nothing else. With a
/// record, the model acknowledges what it has read and is reminded of: a compaction may have left
/// nothing in the record that tells how it came.
fn acknowledge(ends: &mut Ends, at: usize) {
    let (session, client) = (&ends.sessions[at], &ends.clients[of(at)]);
    let is_due = |message: &MessageId| !client.records || client.to_acknowledge.contains(message);
    let seen = ends.bodies.keys().copied().filter(is_due);
    let seen: Vec<_> = seen
        .filter(|message| client.has_seen(*message) && !session.proved.contains(message))
        .collect();
    for message in seen {
        ends.sessions[at].up.push_back((Request::Ack { messages: vec![message] }, Wait::Acked));
    }
    flow(ends, at);
}
