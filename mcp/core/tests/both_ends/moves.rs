//! What may happen next, and how often it is tried: each move does nothing where it does not apply,
//! and then does not count.

use peer_mcp_core::ClientKind;
use peer_mcp_core::call::CallId;
use peer_mcp_core::event::{Event, PushResult};
use peer_proto::hook::{Activity, HookEvent};
use peer_proto::ids::MessageId;
use peer_proto::message::{Carrier, Intent};
use peer_proto::request::{Request, Seat, SeatKind, Send};

use crate::client::{Doing, Piece, body, pieces};
use crate::ends::{Ends, of};
use crate::hooks::{DROPPED, NOT_RUN, REFUSED};
use crate::link::Wait;
use crate::lives;

type Move = fn(&mut Ends, usize) -> bool;

/// The moves, with how often each is tried. A lie is something that a client does and an adapter may
/// not rely on. A move that is never drawn is counted where another move makes it: a push that the
/// client drops, and a prompt that another hook refuses.
pub const MOVES: &[(&str, usize, Move)] = &[
    ("the broker reads a request", 30, |ends, at| ends.deliver_up(at)),
    ("the adapter reads what the broker said", 26, |ends, at| ends.deliver_down(at)),
    ("the adapter looks for ways", 110, look),
    ("a push leaves", 650, push_leaves),
    ("the adapter's time comes", 900, adapter_tick),
    ("time passes", 9, time_passes),
    ("somebody sends", 20, send),
    ("a peer sends", 14, peer_sends),
    ("the person gives the model something to do", 30, prompt),
    ("the model is asked", 100, ask),
    ("the model answers", 120, answer),
    ("the model calls a tool of peerd", 70, call_ours),
    ("the model calls another tool", 45, call_other),
    ("the model reads on", 5000, read_on),
    ("the model acknowledges", 400, acknowledge),
    ("the turn ends", 50, end_turn),
    ("a result leaves", 120, result_leaves),
    ("the client writes its record", 400, |ends, at| ends.clients[of(at)].write_record()),
    ("the adapter reads the record", 700, read_record),
    ("the connection is cut", 3, cut),
    ("the adapter connects again", 60, connect),
    ("the client is killed", 3, die),
    ("the client is started", 60, start),
    ("the broker is killed", 2, restart_broker),
    ("the conversation is emptied", 35, clear),
    ("the conversation is compacted, and the record says so", 18, lives::compact_told),
    ("the conversation is compacted, and no record says so", 14, lives::compact_untold),
    ("a second adapter of the client starts", 8, lives::start_second),
    ("one of two adapters of a client ends", 16, lives::end_one),
    ("a call goes to the adapter that takes no mail", 700, lives::call_idle_one),
    ("another process goes on from the conversation as a fork", 2, lives::fork_away),
    ("the client goes on as a fork, and another process has the original", 40, lives::fork_here),
    ("one message goes to a conversation and to its fork", 8, lives::send_to_both),
    ("lie: a push is dropped without a word", 0, |_, _| false),
    ("lie: a turn is broken off, and what it had is forgotten", 9, break_off),
    (REFUSED, 0, |_, _| false),
    (NOT_RUN, 0, |_, _| false),
    (DROPPED, 0, |_, _| false),
    ("lie: a compaction runs no hook", 36, lives::compact_silently),
    ("lie: a fork goes by the original's id at first", 3, lives::fork_under_old_id),
    ("lie: a hook is not waited for", 9, give_up_hook),
    ("lie: a call is cancelled, its result is dropped", 20, cancel_call),
    ("lie: a subagent calls", 25, subagent_calls),
    ("lie: a subagent's hook runs", 110, subagent_hook),
    ("lie: another session's hook runs", 110, strange_hook),
    ("lie: queued text is reported as a prompt within the turn", 160, prompt_within),
    ("lie: a second call does not wait for the first one's result", 70, second_call),
    ("lie: a push fails when its bytes have begun to leave", 350, push_fails_late),
    ("lie: a push fails before", 350, push_fails_early),
];

/// Makes one random move: often what comes next for a client, else any. Returns whether it did
/// apply.
pub fn step(ends: &mut Ends) -> bool {
    let at = ends.random.below(ends.sessions.len());
    let (what, _, make) = if ends.random.chance(7) { next_of(ends, at) } else { any(ends) };
    ends.log.push(format!("{}: {what}", ends.who(at)));
    let is_made = make(ends, at);
    if is_made {
        ends.count(what);
    } else {
        ends.log.pop();
    }
    is_made
}

fn any(ends: &mut Ends) -> &'static (&'static str, usize, Move) {
    let total: usize = MOVES.iter().map(|(_, weight, _)| weight).sum();
    let mut drawn = ends.random.below(total);
    let is_drawn = |(_, weight, _): &&(&str, usize, Move)| match drawn.checked_sub(*weight) {
        Some(left) => {
            drawn = left;
            false
        }
        None => true,
    };
    MOVES.iter().find(is_drawn).expect("one of them is drawn")
}

/// What a client that is left alone does next.
fn next_of(ends: &mut Ends, at: usize) -> &'static (&'static str, usize, Move) {
    let client = &ends.clients[of(at)];
    let what = match client.doing {
        _ if !ends.is_running(of(at)) => "the client is started",
        _ if ends.sessions[at].program.is_none() => "the adapter connects again",
        Doing::Resting => "the person gives the model something to do",
        Doing::Hooking { .. } if ends.sessions[at].up.is_empty() => {
            "the adapter reads what the broker said"
        }
        Doing::Hooking { .. } => "the broker reads a request",
        Doing::Ready => "the model is asked",
        Doing::Asked => "the model answers",
        Doing::Answered if !client.advice.is_empty() => "the model reads on",
        Doing::Answered => {
            ["the model calls a tool of peerd", "the model calls another tool", "the turn ends"]
                [ends.random.below(3)]
        }
        Doing::Calling if client.calls.iter().any(|call| call.result.is_some()) => {
            "a result leaves"
        }
        Doing::Calling if ends.sessions[at].up.is_empty() => {
            "the adapter reads what the broker said"
        }
        Doing::Calling => "the broker reads a request",
    };
    MOVES.iter().find(|(name, _, _)| *name == what).expect("a move of that name")
}

// ---- the adapter's hands

fn look(ends: &mut Ends, at: usize) -> bool {
    if !ends.sessions[at].is_alive || !std::mem::take(&mut ends.sessions[at].look_wanted) {
        return false;
    }
    let ways = ends.ways(at);
    ends.tell(at, Event::Ways(ways));
    true
}

fn adapter_tick(ends: &mut Ends, at: usize) -> bool {
    let now = ends.world.now.mono_ms;
    let due = ends.sessions[at].is_alive
        && ends.sessions[at].adapter.next_timeout(now).is_some_and(|time| time <= now);
    if due {
        ends.tell(at, Event::Tick);
    }
    due
}

fn push_leaves(ends: &mut Ends, at: usize) -> bool {
    push(ends, at, true)
}

fn push_fails_late(ends: &mut Ends, at: usize) -> bool {
    push(ends, at, false)
}

/// Hands a push over. The client shows it, drops it without a word, or its carrier fails in the
/// middle.
fn push(ends: &mut Ends, at: usize, succeeds: bool) -> bool {
    let Some((carrier, _)) = &ends.sessions[at].push else { return false };
    let carrier = *carrier;
    let is_app_server = carrier == Carrier::AppServer;
    let runs = is_app_server.then(|| ends.clients[of(at)].works());
    let go = ends.tell(at, Event::Leaving { carrier, runs }).go;
    let Some((_, post)) = ends.sessions[at].push.take() else { return false };
    if !go {
        ends.tell(at, Event::PushedOut { carrier, result: PushResult::NotNow });
        return true;
    }
    // What works most of the time drops something now and then.
    let shows = ends.clients[of(at)].shows_pushes && ends.random.chance(75);
    let arrives = shows || is_app_server;
    if succeeds && !arrives {
        ends.count("lie: a push is dropped without a word");
    }
    // What failed in the middle may have arrived all the same.
    let arrives = arrives && (succeeds || ends.random.chance(50));
    let result = if succeeds { PushResult::Left } else { PushResult::Failed };
    ends.tell(at, Event::PushedOut { carrier, result });
    if arrives {
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

fn push_fails_early(ends: &mut Ends, at: usize) -> bool {
    let Some((carrier, _)) = ends.sessions[at].push.take() else { return false };
    ends.tell(at, Event::PushedOut { carrier, result: PushResult::Failed });
    true
}

fn read_record(ends: &mut Ends, at: usize) -> bool {
    let session = &ends.sessions[at];
    if !session.is_alive || !ends.has_unread(at) {
        return false;
    }
    ends.look_into_record(at);
    true
}

// ---- time, links, processes

fn time_passes(ends: &mut Ends, _: usize) -> bool {
    let ms = match ends.random.below(4) {
        0 => ends.random.below(200_000),
        1 => 31_000,
        _ => ends.random.below(3_000),
    };
    ends.world.pass(ms as u64);
    while ends.world.tick() {
        ends.route();
    }
    true
}

fn cut(ends: &mut Ends, at: usize) -> bool {
    if ends.sessions[at].program.is_none() {
        return false;
    }
    let read = ends.random.below(ends.sessions[at].up.len() + 1);
    ends.cut(at, read);
    true
}

fn connect(ends: &mut Ends, at: usize) -> bool {
    if !ends.sessions[at].is_alive || ends.sessions[at].program.is_some() {
        return false;
    }
    ends.connect(at);
    true
}

fn die(ends: &mut Ends, at: usize) -> bool {
    let is_running = ends.is_running(of(at));
    if is_running {
        ends.die(of(at));
    }
    is_running
}

/// The client is started again: with the conversation that it had, or with a new one.
fn start(ends: &mut Ends, at: usize) -> bool {
    if ends.is_running(of(at)) {
        return false;
    }
    if ends.random.chance(50) {
        let conversation = ends.new_conversation();
        ends.clients[of(at)].clear(conversation);
    }
    ends.start(of(at));
    if ends.clients[of(at)].hooks {
        ends.run_hook(of(at), HookEvent::SessionStart);
    }
    true
}

fn restart_broker(ends: &mut Ends, _: usize) -> bool {
    ends.restart_broker();
    true
}

// ---- mail

/// A body; some are too long for one showing.
fn text(ends: &mut Ends) -> String {
    let marks = match ends.random.below(12) {
        0..=2 => 1 + ends.random.below(700),
        3 => 200 + ends.random.below(60),
        _ => 1 + ends.random.below(3),
    };
    body(ends.bodies.len(), marks)
}

fn intent(ends: &mut Ends) -> Intent {
    if ends.random.chance(70) { Intent::Request } else { Intent::Inform }
}

fn to(names: Vec<String>, text: String, intent: Intent, key: Option<String>) -> Request {
    Request::Send(Send {
        to: names,
        text,
        intent: Some(intent),
        reply_to: None,
        thread: None,
        ttl_ms: None,
        sources: Vec::new(),
        idempotency_key: key,
    })
}

/// The person sends, and the broker has it before anything else happens.
fn send(ends: &mut Ends, at: usize) -> bool {
    let name = ends.clients[of(at)].name.clone();
    send_to(ends, vec![name])
}

/// The person sends to these.
pub fn send_to(ends: &mut Ends, names: Vec<String>) -> bool {
    if ends.bodies.len() > 150 {
        return false;
    }
    let text = text(ends);
    let intent = intent(ends);
    let before = ends.world.disk.messages.keys().next_back().copied();
    ends.world.ask("me", to(names, text.clone(), intent, None));
    let sent = ends.world.disk.messages.keys().next_back().copied();
    if let Some(message) = sent.filter(|_| sent != before) {
        ends.bodies.insert(message, text);
    }
    ends.route();
    sent != before
}

/// A session sends to another one; its request may be lost.
fn peer_sends(ends: &mut Ends, at: usize) -> bool {
    if ends.bodies.len() > 150 || ends.sessions[at].program.is_none() {
        return false;
    }
    let text = text(ends);
    let intent = intent(ends);
    let reader = (of(at) + 1) % ends.clients.len();
    let name = ends.clients[reader].name.clone();
    let before = ends.world.disk.messages.len();
    let sending = to(vec![name], text.clone(), intent, Some(format!("key-{before}")));
    ends.sessions[at].up.push_back((sending, Wait::Nothing));
    while ends.sessions[at].program.is_some() && ends.deliver_up(at) {}
    let sent = ends.world.disk.messages.iter().next_back().map(|(id, _)| *id);
    if ends.world.disk.messages.len() > before
        && let Some(message) = sent
    {
        ends.bodies.insert(message, text);
    }
    ends.world.disk.messages.len() > before
}

// ---- the client's turn

fn prompt(ends: &mut Ends, at: usize) -> bool {
    let client = &mut ends.clients[of(at)];
    if !ends.sessions[at].is_alive || client.doing != Doing::Resting {
        return false;
    }
    client.begin_turn();
    client.doing = Doing::Ready;
    if client.kind == ClientKind::Codex || ends.random.chance(50) {
        ends.says(of(at), Activity::Working);
    }
    if ends.clients[of(at)].hooks {
        ends.run_hook(of(at), HookEvent::UserPromptSubmit);
    }
    true
}

fn ask(ends: &mut Ends, at: usize) -> bool {
    if ends.clients[of(at)].doing != Doing::Ready || !ends.clients[of(at)].hooks_to_run.is_empty() {
        return false;
    }
    let queued_too = ends.random.chance(70);
    ends.clients[of(at)].ask(queued_too);
    true
}

fn answer(ends: &mut Ends, at: usize) -> bool {
    if ends.clients[of(at)].doing != Doing::Asked {
        return false;
    }
    ends.answer(of(at));
    true
}

fn call_ours(ends: &mut Ends, at: usize) -> bool {
    if !ends.sessions[at].is_alive || ends.clients[of(at)].doing != Doing::Answered {
        return false;
    }
    ends.clients[of(at)].doing = Doing::Calling;
    ends.call(at, false, true);
    true
}

/// The model's message has another call. Once a result has left, nobody could tell it from a call
/// that follows that.
fn second_call(ends: &mut Ends, at: usize) -> bool {
    let client = &ends.clients[of(at)];
    let is_open = client.calls.len() == 1
        && !client.has_result
        && client.calls[0].result.is_none()
        && !client.calls[0].is_subagents;
    if !ends.sessions[at].is_alive || client.doing != Doing::Calling || !is_open {
        return false;
    }
    ends.call(at, false, true);
    true
}

fn subagent_calls(ends: &mut Ends, at: usize) -> bool {
    let client = &ends.clients[of(at)];
    if !ends.sessions[at].is_alive
        || client.doing != Doing::Calling
        || client.calls.len() > 2
        || client.kind == ClientKind::Other
    {
        return false;
    }
    let call = ends.call(at, true, true);
    assert!(
        !ends.sessions[at].adapter.carries_mail(call),
        "{}",
        ends.story("mail rides on a subagent's call")
    );
    true
}

fn call_other(ends: &mut Ends, at: usize) -> bool {
    if ends.clients[of(at)].doing != Doing::Answered {
        return false;
    }
    after_tools(ends, at, 1);
    true
}

/// All tools of the model's message have run.
pub fn after_tools(ends: &mut Ends, at: usize, count: usize) {
    let client = &mut ends.clients[of(at)];
    client.doing = Doing::Ready;
    client.has_result = false;
    if client.hooks {
        client.hooks_to_run.extend(std::iter::repeat_n(HookEvent::PostToolUse, count));
        if client.kind == ClientKind::Claude {
            client.hooks_to_run.push_back(HookEvent::PostToolBatch);
        }
    }
    ends.next_of_client(of(at));
}

/// The client reads a result. With the last one the model's next request can be made.
fn result_leaves(ends: &mut Ends, at: usize) -> bool {
    let client = &mut ends.clients[of(at)];
    let Some(place) = client.calls.iter().position(|call| call.result.is_some()) else {
        return false;
    };
    ends.take_result(of(at), place);
    if ends.clients[of(at)].calls.is_empty() && ends.clients[of(at)].doing == Doing::Calling {
        after_tools(ends, at, 1);
    }
    true
}

fn cancel_call(ends: &mut Ends, at: usize) -> bool {
    let mut calls = ends.clients[of(at)].calls.iter_mut();
    let Some(call) = calls.find(|call| call.is_wanted) else { return false };
    call.is_wanted = false;
    let (at, id) = (call.at, call.id);
    ends.tell(at, Event::CallDropped(id));
    true
}

/// The model asks for the part of a message that it has not seen.
fn read_on(ends: &mut Ends, at: usize) -> bool {
    if !ends.sessions[at].is_alive || ends.clients[of(at)].doing != Doing::Answered {
        return false;
    }
    let Some((message, offset)) = to_read_on(ends, at) else { return false };
    ends.clients[of(at)].doing = Doing::Calling;
    let call = ends.call(at, false, false);
    read_part(ends, at, call, message, offset);
    true
}

/// What the model is to read on: as a text said, or, of what it was only reminded of, from the
/// first character that it has not seen.
pub fn to_read_on(ends: &mut Ends, at: usize) -> Option<(MessageId, usize)> {
    let client = &mut ends.clients[of(at)];
    if let Some(advice) = client.advice.pop_first() {
        return Some(advice);
    }
    // What is settled by now cannot be read on here: each is tried once.
    let message = client.reminded.pop_first()?;
    let seen = client.seen_up_to(message);
    if seen < ends.bodies.get(&message)?.len() {
        return Some((message, seen));
    }
    client.to_acknowledge.insert(message);
    None
}

pub fn read_part(ends: &mut Ends, at: usize, call: CallId, message: MessageId, offset: usize) {
    let shown = ends.tell(at, Event::ReadOn { call, message, offset, peek: false }).show;
    ends.queue_result(at, call, shown.map(|block| block.text).unwrap_or_default());
}

/// The model acknowledges what it has seen.
fn acknowledge(ends: &mut Ends, at: usize) -> bool {
    let (session, client) = (&ends.sessions[at], &ends.clients[of(at)]);
    if session.program.is_none() || client.doing != Doing::Answered {
        return false;
    }
    let seen = ends.bodies.iter().find(|(message, body)| {
        client.seen_up_to(**message) == body.len() && !session.proved.contains(message)
    });
    let Some((message, _)) = seen else { return false };
    let message = *message;
    ends.sessions[at].up.push_back((Request::Ack { messages: vec![message] }, Wait::Acked));
    true
}

fn end_turn(ends: &mut Ends, at: usize) -> bool {
    if ends.clients[of(at)].doing != Doing::Answered {
        return false;
    }
    if ends.clients[of(at)].hooks {
        ends.run_hook(of(at), HookEvent::Stop);
    } else {
        ends.clients[of(at)].doing = Doing::Resting;
        ends.rests(of(at));
    }
    true
}

fn clear(ends: &mut Ends, at: usize) -> bool {
    let client = &ends.clients[of(at)];
    // One adapter serves one thread of Codex; other clients say nothing of it.
    if !ends.is_running(of(at))
        || client.doing != Doing::Resting
        || client.kind != ClientKind::Claude
    {
        return false;
    }
    ends.go_by_another_id(of(at), "clear", |client, conversation| client.clear(conversation));
    true
}

// ---- lies

fn break_off(ends: &mut Ends, at: usize) -> bool {
    let doing = &ends.clients[of(at)].doing;
    if !matches!(doing, Doing::Asked | Doing::Ready | Doing::Calling) {
        return false;
    }
    for call in ends.clients[of(at)].calls.clone() {
        ends.tell(call.at, Event::CallDropped(call.id));
    }
    let says_so = ends.random.chance(50);
    let lost = ends.clients[of(at)].break_off(says_so);
    let pushed: Vec<MessageId> = lost
        .iter()
        .filter(|piece| piece.by == Carrier::AppServer)
        .flat_map(|piece| pieces(&piece.text).into_iter().map(|(message, _)| message))
        .collect();
    for at in ends.adapters(of(at)).into_iter().filter(|_| !pushed.is_empty()) {
        let messages = pushed.clone();
        ends.tell(at, Event::Dropped { carrier: Carrier::AppServer, messages });
    }
    ends.rests(of(at));
    true
}

fn give_up_hook(ends: &mut Ends, at: usize) -> bool {
    if !matches!(ends.clients[of(at)].doing, Doing::Hooking { .. }) {
        return false;
    }
    ends.give_up_hook(of(at));
    true
}

fn subagent_hook(ends: &mut Ends, at: usize) -> bool {
    let Some(seat) = ends.seat(of(at)) else { return false };
    aside(ends, at, Some("a-subagent".into()), seat)
}

fn strange_hook(ends: &mut Ends, at: usize) -> bool {
    let kind = match ends.clients[of(at)].kind {
        ClientKind::Claude => SeatKind::Claude,
        ClientKind::Codex => SeatKind::Codex,
        ClientKind::Other => return false,
    };
    aside(ends, at, None, Seat { kind, key: "strange".into() })
}

/// A hook that is none of the main conversation's runs, and nobody of that conversation waits for
/// it.
fn aside(ends: &mut Ends, at: usize, agent: Option<String>, seat: Seat) -> bool {
    let client = &ends.clients[of(at)];
    if !client.hooks || client.doing != Doing::Ready || !client.hooks_to_run.is_empty() {
        return false;
    }
    ends.relay_hook(of(at), HookEvent::PostToolUse, agent, seat, None);
    true
}

/// Claude Code reports what was queued as a prompt, also between two tools.
fn prompt_within(ends: &mut Ends, at: usize) -> bool {
    let client = &ends.clients[of(at)];
    let is_claude = client.kind == ClientKind::Claude && client.hooks;
    if !is_claude || client.doing != Doing::Ready || !client.hooks_to_run.is_empty() {
        return false;
    }
    ends.run_hook(of(at), HookEvent::UserPromptSubmit);
    true
}
