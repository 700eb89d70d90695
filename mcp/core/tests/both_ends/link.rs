//! The links between adapters and the broker, and the hands of the adapters.
//!
//! The hands are played here as `mcp/src` has them: what is asked of the broker travels in order,
//! and so do its answers and pushes.

use std::collections::BTreeSet;

use peer_core::input::ConnectionId;
use peer_core::step::{Change, Effect};
use peer_mcp_core::ClientKind;
use peer_mcp_core::call::CallId;
use peer_mcp_core::event::{Action, BindOutcome, Due, Event, HookOutcome};
use peer_mcp_core::inbox::{Block, Seen};
use peer_mcp_core::render::BLOCK_CHARS_MAX;
use peer_mcp_core::ways::Ways;
use peer_proto::ids::MessageId;
use peer_proto::message::{Carrier, Delivery, Stage};
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{Filter, Push, Reply, Request, Seat};

use crate::client::{Call, Doing, Line, pieces};
use crate::ends::{Ends, Outcome, of};

/// What the answer to a request is for.
#[derive(Debug)]
pub enum Wait {
    Nothing,
    Register,
    Ticket(u64),
    Bind(Seat),
    /// The broker said what this session holds: a hook's output can be made.
    Hook,
    HookAnswer {
        messages: Vec<MessageId>,
        asks: bool,
    },
    Call(CallId),
    Acked,
}

/// Something on its way to an adapter.
#[derive(Debug)]
pub enum Down {
    Push(Push),
    /// A message, and whether the broker knew of an offer of it.
    Message {
        delivery: Box<Delivery>,
        was_offered: bool,
    },
    Answer(Wait, Result<Reply, Refusal>),
}

impl Ends {
    /// The broker reads the next request of this adapter.
    pub fn deliver_up(&mut self, at: usize) -> bool {
        let Some((request, wait)) = self.sessions[at].up.pop_front() else { return false };
        self.ask(at, request, wait);
        true
    }

    pub fn ask(&mut self, at: usize, request: Request, wait: Wait) {
        let Some(program) = self.sessions[at].program.clone() else { return self.lose(at, wait) };
        let is_register = matches!(wait, Wait::Register);
        self.sessions[at].waits.insert(self.world.requests + 1, wait);
        self.world.ask(&program, request);
        self.asking = Some(at);
        self.route();
        self.asking = None;
        if is_register {
            // The handshake is one step here: nothing else is under way on a new connection.
            let place = self.sessions[at]
                .down
                .iter()
                .position(|down| matches!(down, Down::Answer(Wait::Register, _)));
            let answer = place.and_then(|place| self.sessions[at].down.remove(place));
            if let Some(Down::Answer(wait, result)) = answer {
                self.answered(at, wait, result);
            }
        }
    }

    /// The adapter reads what the broker said next.
    pub fn deliver_down(&mut self, at: usize) -> bool {
        match self.sessions[at].down.pop_front() {
            None => return false,
            Some(Down::Push(Push::Hook { call, hook })) => {
                self.sessions[at].hooks_waiting.push_back((call, *hook));
                self.next_hook(at);
            }
            Some(Down::Message { delivery, was_offered }) => {
                if was_offered {
                    self.sessions[at].came_offered.insert(delivery.message.id);
                }
                self.tell(at, Event::Pushed(Push::Deliver(delivery)));
            }
            Some(Down::Push(push)) => drop(self.tell(at, Event::Pushed(push))),
            Some(Down::Answer(wait, result)) => self.answered(at, wait, result),
        }
        true
    }

    /// Takes what the broker decided: what became durable is looked at, and what it says goes on
    /// its way.
    pub fn route(&mut self) {
        for change in std::mem::take(&mut self.world.changes) {
            if let Change::PutDelivery { record, was } = &change
                && record.stage == Stage::Presented
                && *was != Some(Stage::Presented)
            {
                let cause = record.trace.last().and_then(|entry| entry.cause);
                self.stored_as_presented(record.message, record.peer, cause);
            }
        }
        for effect in std::mem::take(&mut self.world.effects) {
            match effect {
                Effect::Reply { connection, id, result } => match self.at(connection) {
                    Some(at) => {
                        if let Ok(Reply::Registered(registered)) = &result {
                            self.clients[of(at)].peers.insert(registered.peer);
                        }
                        if let Some(wait) = self.sessions[at].waits.remove(&id) {
                            self.sessions[at].down.push_back(Down::Answer(wait, result));
                        }
                    }
                    None => self.replied_to_another(connection, result),
                },
                Effect::Deliver { connection, message, attempts, shown_before } => {
                    let Some(at) = self.at(connection) else { continue };
                    let was_offered = self.was_offered(at, message);
                    let message = self.world.disk.messages[&message].clone().into_message();
                    let delivery = Box::new(Delivery { message, attempts, shown_before });
                    self.sessions[at].down.push_back(Down::Message { delivery, was_offered });
                }
                Effect::Push { connection, push } => {
                    if let Some(at) = self.at(connection) {
                        self.sessions[at].down.push_back(Down::Push(push));
                    }
                }
                Effect::Close { connection } => {
                    assert!(
                        self.at(connection).is_none(),
                        "{}",
                        self.story("the broker ends a session whose client lives")
                    );
                }
                _ => {}
            }
        }
    }

    fn at(&self, connection: ConnectionId) -> Option<usize> {
        self.sessions.iter().position(|session| {
            let program =
                session.program.as_ref().and_then(|program| self.world.programs.get(program));
            program.is_some_and(|program| program.connection == connection)
        })
    }

    fn replied_to_another(&mut self, connection: ConnectionId, result: Result<Reply, Refusal>) {
        let program =
            self.world.programs.iter().find(|(_, program)| program.connection == connection);
        let Some(program) = program.map(|(name, _)| name.clone()) else { return };
        let output = match result {
            Ok(Reply::Hook { output }) => output,
            Ok(Reply::Sent(_)) => return,
            Ok(_) => return,
            Err(refusal) => panic!("{program} was refused: {refusal}"),
        };
        let waits = |doing: &Doing| matches!(doing, Doing::Hooking { program: open, .. } if *open == program);
        if let Some(client) = self.clients.iter().position(|client| waits(&client.doing)) {
            let from = self.asking.map_or(0, |at| self.sessions[at].serial);
            self.hook_returns(client, &output, from);
        }
    }

    // ---- the adapter

    /// Tells an adapter's core what happened, and plays its hands.
    pub fn tell(&mut self, at: usize, event: Event) -> Outcome {
        let now = self.world.now.mono_ms;
        let explicit = matches!(event, Event::ReadOn { .. });
        let told = self.is_telling.then(|| format!("{event:?}"));
        let actions = self.sessions[at].adapter.handle(now, event);
        if let Some(told) = told {
            println!("{}: {told}\n    {actions:?}", self.who(at));
        }
        let mut outcome = Outcome::default();
        let mut offered = BTreeSet::new();
        for action in actions {
            match action {
                Action::Tell(request) => {
                    if let Request::Offered { messages, .. } = &request {
                        offered.extend(messages.iter().copied());
                    }
                    self.sessions[at].up.push_back((request, Wait::Nothing));
                }
                Action::Ask { ticket, request } => {
                    if let Request::Presented { messages, .. } = &request {
                        self.sessions[at].proved.extend(messages);
                    }
                    self.sessions[at].up.push_back((request, Wait::Ticket(ticket)));
                }
                Action::Bind(seat) => {
                    self.sessions[at].up.push_back((Request::Bind(seat.clone()), Wait::Bind(seat)))
                }
                Action::Look => self.sessions[at].look_wanted = true,
                Action::Push { carrier, post } => {
                    self.shown(at, &post.text, "pushed");
                    self.sessions[at].push = Some((carrier, post));
                }
                Action::Go => {
                    let ids = self.sessions[at]
                        .push
                        .as_ref()
                        .map(|(_, post)| post.ids())
                        .unwrap_or_default();
                    assert!(
                        ids.iter().all(|id| offered.contains(id)),
                        "{}",
                        self.story("bytes leave before the broker is told")
                    );
                    outcome.go = true;
                }
                Action::Show { block, .. } => {
                    let is_told = block.offered.iter().all(|id| offered.contains(id));
                    assert!(
                        is_told,
                        "{}",
                        self.story("a result is made before the broker is told")
                    );
                    if !explicit {
                        self.shown(at, &block.text, "shown in a result");
                    }
                    outcome.show = Some(block);
                }
                Action::Print { block, asks } => {
                    let is_told = block.offered.iter().all(|id| offered.contains(id));
                    assert!(is_told, "{}", self.story("a hook prints before the broker is told"));
                    self.shown(at, &block.text, "printed by a hook");
                    outcome.print = Some((block, asks));
                }
                Action::Receive { .. } => outcome.receive = true,
                Action::Notice(_)
                | Action::Title(_)
                | Action::Summarize(_)
                | Action::Watch
                | Action::News => {}
            }
        }
        outcome
    }

    fn answered(&mut self, at: usize, wait: Wait, result: Result<Reply, Refusal>) {
        match (wait, result) {
            (Wait::Nothing, _) => {}
            (Wait::Register, Ok(Reply::Registered(registered))) => {
                drop(self.tell(at, Event::Registered(registered)))
            }
            (Wait::Register, refused) => self.log.push(format!("registering: {refused:?}")),
            (Wait::Ticket(ticket), result) => {
                let done = !matches!(result, Err(Refusal { code: ErrorCode::NoSpace, .. }));
                self.tell(at, Event::Answered { ticket, done });
            }
            (Wait::Bind(seat), result) => {
                let outcome = match result {
                    Ok(Reply::Registered(registered)) => BindOutcome::Done(registered),
                    Ok(_) => BindOutcome::Failed,
                    Err(refusal) => BindOutcome::Refused(refusal.to_string()),
                };
                self.tell(at, Event::Bound { seat, outcome });
                if self.sessions[at].running.as_ref().is_some_and(|running| running.is_binding) {
                    self.hook_is_ours(at);
                }
            }
            (Wait::Hook, result) => {
                self.look_into_record(at);
                let Some(event) =
                    self.sessions[at].running.as_ref().map(|running| running.hook.event)
                else {
                    return;
                };
                let outcome = self.tell(at, Event::HookReady { event, received: result.is_ok() });
                self.print(at, outcome);
            }
            (Wait::HookAnswer { messages, asks }, result) => {
                let outcome = if result.is_ok() { HookOutcome::Relayed } else { HookOutcome::Gone };
                self.sessions[at].is_answering = false;
                self.tell(at, Event::HookAnswered { messages, asks, outcome });
                self.next_hook(at);
            }
            (Wait::Call(call), Ok(Reply::Received(received))) => {
                self.look_into_record(at);
                let due = Due {
                    among: None,
                    also: None,
                    limit: usize::MAX,
                    peek: false,
                    budget: BLOCK_CHARS_MAX,
                    waiting: received.waiting,
                };
                let block = if self.sessions[at].adapter.carries_mail(call) {
                    self.tell(at, Event::ResultDue { call, due }).show.unwrap_or_default()
                } else {
                    Block::default()
                };
                self.queue_result(at, call, block.text);
            }
            (Wait::Call(call), _) => self.queue_result(at, call, String::new()),
            (Wait::Acked, Ok(Reply::Acked { acked, .. })) => {
                self.sessions[at].proved.extend(&acked);
                self.tell(at, Event::Settled(acked));
            }
            (Wait::Acked, _) => {}
        }
    }

    pub fn queue_result(&mut self, at: usize, call: CallId, text: String) {
        let session = &mut self.sessions[at];
        session.queued_bytes += 100 + text.len() as u64;
        let end = session.queued_bytes;
        let mut calls = self.clients[of(at)].calls.iter_mut();
        if let Some(open) = calls.find(|open| open.at == at && open.id == call) {
            open.result = Some((text, end));
        }
        self.tell(at, Event::ResultQueued { call, end });
    }

    /// Whether this adapter reads the record, and there is something new in it.
    pub fn has_unread(&self, at: usize) -> bool {
        let (session, client) = (&self.sessions[at], &self.clients[of(at)]);
        let is_wanted = client.records && !session.adapter.inbox().unproved().is_empty();
        is_wanted && session.read < client.record.len()
    }

    /// Reads what is new in the client's record, while evidence is missed.
    pub fn look_into_record(&mut self, at: usize) {
        if !self.clients[of(at)].records {
            return;
        }
        let (mut seen, mut withdrawn) = (Vec::new(), Vec::new());
        let from = self.sessions[at].read;
        let news = if self.has_unread(at) { &self.clients[of(at)].record[from..] } else { &[] };
        for line in news {
            match line {
                Line::Answered(piece) => {
                    let in_result = piece.by == Carrier::ToolResult && !piece.is_kept;
                    let by = (!in_result && !piece.is_kept).then_some(piece.by);
                    let shown = pieces(&piece.text).into_iter();
                    seen.extend(shown.map(|(message, piece)| Seen {
                        message,
                        by,
                        in_result,
                        piece,
                    }));
                }
                Line::TakenBack(messages) => withdrawn.extend(messages.iter().copied()),
            }
        }
        self.sessions[at].read += news.len();
        self.tell(at, Event::Recorded { seen, withdrawn, speaks: true });
    }

    /// Which ways into the client there seem to be: a client does not say that it drops what it is
    /// given.
    pub fn ways(&self, at: usize) -> Ways {
        let client = &self.clients[of(at)];
        let is_claude = client.takes_pushes && client.kind == ClientKind::Claude;
        Ways {
            channel: is_claude,
            channel_loaded: is_claude && of(at).is_multiple_of(2),
            inbox_socket: is_claude,
            asks_first: true,
            app_server: client.takes_pushes && client.kind == ClientKind::Codex,
            attended: true,
        }
    }

    /// A call of the client arrives at the adapter.
    pub fn call(&mut self, at: usize, is_subagents: bool, wait_for_mail: bool) -> CallId {
        self.look_into_record(at);
        // Codex names the conversation, another one for a subagent; Claude Code says so in the
        // call.
        let main = self.seat(of(at)).map(|seat| seat.key);
        let session = &mut self.sessions[at];
        session.calls += 1;
        let call = CallId(session.calls);
        let is_codex = self.clients[of(at)].kind == ClientKind::Codex;
        let conversation = if is_subagents { Some("a-subagent".to_owned()) } else { main };
        let conversation = conversation.filter(|_| is_codex);
        let open = Call { id: call, at, result: None, is_wanted: true, is_subagents };
        self.clients[of(at)].calls.push(open);
        let written_before = session.left_bytes;
        let is_subagent = is_subagents && !is_codex;
        self.tell(
            at,
            Event::ToolCalled { call, written_before, conversation, is_subagent, tool_use: None },
        );
        if wait_for_mail {
            if self.sessions[at].adapter.is_connected() {
                let receive = Request::Receive { filter: Filter::default(), wait: false };
                self.sessions[at].up.push_back((receive, Wait::Call(call)));
            } else {
                self.queue_result(at, call, String::new());
            }
        }
        call
    }
}
