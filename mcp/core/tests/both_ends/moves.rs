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
use crate::ends::{Ends, Wait};

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
    ("the model reads on", 900, read_on),
    ("the model acknowledges", 400, acknowledge),
    ("the turn ends", 50, end_turn),
    ("a result leaves", 120, result_leaves),
    ("the client writes its record", 400, |ends, at| ends.sessions[at].client.write_record()),
    ("the adapter reads the record", 700, read_record),
    ("the connection is cut", 3, cut),
    ("the adapter connects again", 60, connect),
    ("the client is killed", 3, die),
    ("the client is started", 60, start),
    ("the broker is killed", 3, restart_broker),
    ("the conversation is emptied", 80, clear),
    ("lie: a push is dropped without a word", 0, |_, _| false),
    ("lie: a turn is broken off, and what it had is forgotten", 9, break_off),
    ("lie: a prompt is refused by another hook, its output is dropped", 0, |_, _| false),
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
    ends.log.push(format!("{}: {what}", ends.sessions[at].name));
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
    let client = &ends.sessions[at].client;
    let what = match client.doing {
        _ if !ends.sessions[at].is_alive => "the client is started",
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
    let runs = is_app_server.then(|| ends.sessions[at].client.works());
    let go = ends.tell(at, Event::Leaving { carrier, runs }).go;
    let Some((_, post)) = ends.sessions[at].push.take() else { return false };
    if !go {
        ends.tell(at, Event::PushedOut { carrier, result: PushResult::NotNow });
        return true;
    }
    // What works most of the time drops something now and then.
    let shows = ends.sessions[at].client.shows_pushes && ends.random.chance(75);
    let arrives = shows || is_app_server;
    if succeeds && !arrives {
        ends.count("lie: a push is dropped without a word");
    }
    // What failed in the middle may have arrived all the same.
    let arrives = arrives && (succeeds || ends.random.chance(50));
    let result = if succeeds { PushResult::Left } else { PushResult::Failed };
    ends.tell(at, Event::PushedOut { carrier, result });
    if arrives {
        let piece = Piece { text: post.text, by: carrier };
        let client = &mut ends.sessions[at].client;
        if client.doing == Doing::Resting {
            client.begin_turn();
            client.pending.push(piece);
            client.doing = Doing::Ready;
            ends.says(at, Activity::Working);
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
    if !session.is_alive || !session.client.records || !session.client.has_unread() {
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
    if !ends.sessions[at].is_alive {
        return false;
    }
    let read = ends.random.below(ends.sessions[at].up.len() + 1);
    ends.die(at, read);
    true
}

/// The client is started again: with the conversation that it had, or with a new one.
fn start(ends: &mut Ends, at: usize) -> bool {
    if ends.sessions[at].is_alive {
        return false;
    }
    if ends.random.chance(50) {
        ends.conversations += 1;
        let conversation = ends.conversations;
        ends.sessions[at].client.clear(conversation);
    }
    ends.start(at);
    if ends.sessions[at].client.hooks {
        ends.run_hook(at, HookEvent::SessionStart, None, None);
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

fn to(name: String, text: String, intent: Intent, key: Option<String>) -> Request {
    Request::Send(Send {
        to: vec![name],
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
    if ends.bodies.len() > 150 {
        return false;
    }
    let text = text(ends);
    let intent = intent(ends);
    let name = ends.sessions[at].name.clone();
    let before = ends.world.disk.messages.keys().next_back().copied();
    ends.world.ask("me", to(name, text.clone(), intent, None));
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
    let reader = (at + 1) % ends.sessions.len();
    let name = ends.sessions[reader].name.clone();
    let before = ends.world.disk.messages.len();
    ends.sessions[at]
        .up
        .push_back((to(name, text.clone(), intent, Some(format!("key-{before}"))), Wait::Nothing));
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
    let session = &mut ends.sessions[at];
    if !session.is_alive || session.client.doing != Doing::Resting {
        return false;
    }
    session.client.begin_turn();
    session.client.doing = Doing::Ready;
    if session.client.kind == ClientKind::Codex || ends.random.chance(50) {
        ends.says(at, Activity::Working);
    }
    if ends.sessions[at].client.hooks {
        ends.run_hook(at, HookEvent::UserPromptSubmit, None, None);
    }
    true
}

fn ask(ends: &mut Ends, at: usize) -> bool {
    if ends.sessions[at].client.doing != Doing::Ready
        || !ends.sessions[at].client.hooks_to_run.is_empty()
    {
        return false;
    }
    let queued_too = ends.random.chance(70);
    ends.sessions[at].client.ask(queued_too);
    true
}

fn answer(ends: &mut Ends, at: usize) -> bool {
    if ends.sessions[at].client.doing != Doing::Asked {
        return false;
    }
    let bodies = std::mem::take(&mut ends.bodies);
    ends.sessions[at].client.answer(&bodies);
    ends.bodies = bodies;
    true
}

fn call_ours(ends: &mut Ends, at: usize) -> bool {
    if ends.sessions[at].client.doing != Doing::Answered {
        return false;
    }
    ends.sessions[at].client.doing = Doing::Calling;
    ends.call(at, false, true);
    true
}

/// The model's message has another call. Once a result has left, nobody could tell it from a call
/// that follows that.
fn second_call(ends: &mut Ends, at: usize) -> bool {
    let client = &ends.sessions[at].client;
    let is_open = client.calls.len() == 1
        && !client.has_result
        && client.calls[0].result.is_none()
        && !client.calls[0].is_subagents;
    if client.doing != Doing::Calling || !is_open {
        return false;
    }
    ends.call(at, false, true);
    true
}

fn subagent_calls(ends: &mut Ends, at: usize) -> bool {
    let client = &ends.sessions[at].client;
    if client.doing != Doing::Calling || client.calls.len() > 2 || client.kind == ClientKind::Other
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
    if ends.sessions[at].client.doing != Doing::Answered {
        return false;
    }
    after_tools(ends, at, 1);
    true
}

/// All tools of the model's message have run.
fn after_tools(ends: &mut Ends, at: usize, count: usize) {
    let client = &mut ends.sessions[at].client;
    client.doing = Doing::Ready;
    client.has_result = false;
    if client.hooks {
        client.hooks_to_run.extend(std::iter::repeat_n(HookEvent::PostToolUse, count));
        if client.kind == ClientKind::Claude {
            client.hooks_to_run.push_back(HookEvent::PostToolBatch);
        }
    }
    ends.next_of_client(at);
}

/// The client reads a result. With the last one the model's next request can be made.
fn result_leaves(ends: &mut Ends, at: usize) -> bool {
    let session = &mut ends.sessions[at];
    let Some(place) = session.client.calls.iter().position(|call| call.result.is_some()) else {
        return false;
    };
    let call = session.client.calls.remove(place);
    let (text, end) = call.result.unwrap_or_default();
    session.left_bytes = session.left_bytes.max(end);
    session.client.has_result = true;
    if call.is_wanted && !call.is_subagents && !text.is_empty() {
        session.client.pending.push(Piece { text, by: Carrier::ToolResult });
    }
    if session.client.calls.is_empty() && session.client.doing == Doing::Calling {
        after_tools(ends, at, 1);
    }
    true
}

fn cancel_call(ends: &mut Ends, at: usize) -> bool {
    let session = &mut ends.sessions[at];
    let Some(call) = session.client.calls.iter_mut().find(|call| call.is_wanted) else {
        return false;
    };
    call.is_wanted = false;
    let id = call.id;
    ends.tell(at, Event::CallDropped(id));
    true
}

/// The model asks for the part of a message that it has not seen.
fn read_on(ends: &mut Ends, at: usize) -> bool {
    if ends.sessions[at].client.doing != Doing::Answered {
        return false;
    }
    let Some((message, offset)) = to_read_on(ends, at) else { return false };
    ends.sessions[at].client.doing = Doing::Calling;
    let call = ends.call(at, false, false);
    read_part(ends, at, call, message, offset);
    true
}

/// What the model is to read on: as a text said, or, of what it was only reminded of, from the
/// first character that it has not seen.
pub fn to_read_on(ends: &mut Ends, at: usize) -> Option<(MessageId, usize)> {
    let client = &mut ends.sessions[at].client;
    if let Some(advice) = client.advice.pop_first() {
        return Some(advice);
    }
    // What is settled by now cannot be read on here: each is tried once.
    let message = client.reminded.pop_first()?;
    let seen = client.seen_up_to(message);
    (seen < ends.bodies.get(&message)?.len()).then_some((message, seen))
}

pub fn read_part(ends: &mut Ends, at: usize, call: CallId, message: MessageId, offset: usize) {
    let shown = ends.tell(at, Event::ReadOn { call, message, offset, peek: false }).show;
    ends.queue_result(at, call, shown.map(|block| block.text).unwrap_or_default());
}

/// The model acknowledges what it has seen.
fn acknowledge(ends: &mut Ends, at: usize) -> bool {
    let session = &ends.sessions[at];
    if session.program.is_none() || session.client.doing != Doing::Answered {
        return false;
    }
    let seen = ends.bodies.iter().find(|(message, body)| {
        session.client.seen_up_to(**message) == body.len() && !session.proved.contains(message)
    });
    let Some((message, _)) = seen else { return false };
    let message = *message;
    ends.sessions[at]
        .up
        .push_back((Request::Ack { messages: vec![message] }, Wait::Acked(vec![message])));
    true
}

fn end_turn(ends: &mut Ends, at: usize) -> bool {
    if ends.sessions[at].client.doing != Doing::Answered {
        return false;
    }
    if ends.sessions[at].client.hooks {
        ends.run_hook(at, HookEvent::Stop, None, None);
    } else {
        ends.sessions[at].client.doing = Doing::Resting;
        ends.rests(at);
    }
    true
}

fn clear(ends: &mut Ends, at: usize) -> bool {
    let session = &ends.sessions[at];
    // One adapter serves one thread of Codex; other clients say nothing of it.
    if !session.is_alive
        || session.client.doing != Doing::Resting
        || session.client.kind != ClientKind::Claude
    {
        return false;
    }
    ends.conversations += 1;
    let conversation = ends.conversations;
    ends.look_into_record(at);
    ends.sessions[at].client.clear(conversation);
    // The client's list of sessions says so, and a hook where there are hooks; nobody knows which
    // comes first.
    let seat =
        Seat { kind: SeatKind::Claude, key: format!("{}-{conversation}", ends.sessions[at].name) };
    let hook_first = ends.random.chance(50);
    if hook_first && ends.sessions[at].client.hooks {
        ends.run_hook(at, HookEvent::SessionStart, None, None);
    }
    ends.tell(at, Event::GoesBy(seat));
    if !hook_first && ends.sessions[at].client.hooks {
        ends.run_hook(at, HookEvent::SessionStart, None, None);
    }
    true
}

// ---- lies

fn break_off(ends: &mut Ends, at: usize) -> bool {
    let doing = &ends.sessions[at].client.doing;
    if !matches!(doing, Doing::Asked | Doing::Ready | Doing::Calling) {
        return false;
    }
    for call in ends.sessions[at].client.calls.clone() {
        ends.tell(at, Event::CallDropped(call.id));
    }
    let says_so = ends.random.chance(50);
    let lost = ends.sessions[at].client.break_off(says_so);
    let pushed: Vec<MessageId> = lost
        .iter()
        .filter(|piece| piece.by == Carrier::AppServer)
        .flat_map(|piece| pieces(&piece.text).into_iter().map(|(message, _)| message))
        .collect();
    if !pushed.is_empty() {
        ends.tell(at, Event::Dropped { carrier: Carrier::AppServer, messages: pushed });
    }
    ends.rests(at);
    true
}

fn give_up_hook(ends: &mut Ends, at: usize) -> bool {
    if !matches!(ends.sessions[at].client.doing, Doing::Hooking { .. }) {
        return false;
    }
    ends.give_up_hook(at);
    true
}

fn subagent_hook(ends: &mut Ends, at: usize) -> bool {
    aside(ends, at, Some("a-subagent".into()), None)
}

fn strange_hook(ends: &mut Ends, at: usize) -> bool {
    let kind = match ends.sessions[at].client.kind {
        ClientKind::Claude => SeatKind::Claude,
        ClientKind::Codex => SeatKind::Codex,
        ClientKind::Other => return false,
    };
    aside(ends, at, None, Some(Seat { kind, key: "strange".into() }))
}

/// A hook that is none of the main conversation's runs, and nobody of that conversation waits for
/// it.
fn aside(ends: &mut Ends, at: usize, agent: Option<String>, seat: Option<Seat>) -> bool {
    let client = &ends.sessions[at].client;
    if !client.hooks || client.doing != Doing::Ready || !client.hooks_to_run.is_empty() {
        return false;
    }
    ends.run_hook(at, HookEvent::PostToolUse, agent, seat);
    true
}

/// Claude Code reports what was queued as a prompt, also between two tools.
fn prompt_within(ends: &mut Ends, at: usize) -> bool {
    let client = &ends.sessions[at].client;
    let is_claude = client.kind == ClientKind::Claude && client.hooks;
    if !is_claude || client.doing != Doing::Ready || !client.hooks_to_run.is_empty() {
        return false;
    }
    ends.run_hook(at, HookEvent::UserPromptSubmit, None, None);
    true
}
