//! The clients' hooks, as the hands of an adapter run them: one at a time, until the answer of each
//! has arrived or is lost.

use peer_mcp_core::ClientKind;
use peer_mcp_core::Whose;
use peer_mcp_core::event::Event;
use peer_proto::hook::{Activity, HookCall, HookEvent};
use peer_proto::message::Carrier;
use peer_proto::request::{Filter, Request, Role, Seat};

use crate::client::{Doing, Piece, named};
use crate::ends::{Ends, Outcome, Running, of};
use crate::link::{Down, Wait};

/// A hook of the main conversation that the client does not run: its event is told to nobody.
pub const NOT_RUN: &str = "lie: a hook is not run, and nobody is told";
/// A hook's output that the client accepts, and then drops.
pub const DROPPED: &str = "lie: a hook's output is accepted and dropped without a word";
/// A prompt that another hook refuses.
pub const REFUSED: &str = "lie: a prompt is refused by another hook, its output is dropped";

impl Ends {
    /// The client runs a hook of its main conversation.
    pub fn run_hook(&mut self, client: usize, event: HookEvent) {
        let source = (event == HookEvent::SessionStart).then_some("clear");
        self.run_hook_from(client, event, source);
    }

    /// The same, with the reason for which a session begins.
    pub fn run_hook_from(&mut self, client: usize, event: HookEvent, source: Option<&str>) {
        if !self.is_honest && self.random.chance(5) {
            self.count(NOT_RUN);
            self.forget_untold(client, event);
            let goes_on = self.clients[client].works();
            self.go_on(client, event, goes_on, false);
            return;
        }
        let Some(seat) = self.seat(client) else { return };
        self.relay_hook(client, event, None, seat, source);
    }

    /// A hook with these words runs, of this conversation or of another one.
    pub fn relay_hook(
        &mut self,
        client: usize,
        event: HookEvent,
        agent: Option<String>,
        seat: Seat,
        source: Option<&str>,
    ) {
        self.programs += 1;
        let program = format!("hook.{}", self.programs);
        let goes_on = self.clients[client].works();
        let session = &mut self.clients[client];
        let hook = HookCall {
            event,
            seat,
            cwd: "/work".into(),
            transcript: None,
            mode: None,
            agent,
            turn: session.names_turns.then(|| session.turn.to_string()),
            tool_use: None,
            source: source.map(str::to_owned),
            name: None,
            prolonged: event == HookEvent::Stop && session.is_prolonged,
        };
        session.doing = Doing::Hooking { program: program.clone(), event, goes_on };
        let pid = session.pid;
        self.world.connect(&program, Role::Hook, vec![pid + 1_000_000, pid], None);
        self.world.ask(&program, Request::Hook(hook));
        self.route();
        match event {
            HookEvent::UserPromptSubmit => self.clients[client].forgotten.clear(),
            HookEvent::SessionStart => self.clients[client].dropped_now.clear(),
            _ => {}
        }
    }

    /// The event of a hook that did not run would have said that texts were forgotten. Without a
    /// record, nothing else says so.
    pub fn forget_untold(&mut self, client: usize, event: HookEvent) {
        let client = &mut self.clients[client];
        let is_named = client.names_turns;
        let forgotten = match event {
            HookEvent::SessionStart => &mut client.dropped_now,
            HookEvent::UserPromptSubmit if !is_named => &mut client.forgotten,
            _ => return,
        };
        let forgotten = std::mem::take(forgotten);
        if !client.records {
            client.untold.extend(forgotten);
        }
    }

    /// The client waits no more for its hook.
    pub fn give_up_hook(&mut self, client: usize) {
        self.hook_returns(client, "", 0);
    }

    pub fn next_hook(&mut self, at: usize) {
        // One hook at a time, until its answer has arrived or is known not to.
        if self.sessions[at].running.is_some() || self.sessions[at].is_answering {
            return;
        }
        let Some((call, hook)) = self.sessions[at].hooks_waiting.pop_front() else { return };
        let ways = self.ways(at);
        self.tell(at, Event::WaysSeen(ways));
        let is_subagents = hook.agent.is_some();
        let whose = self.sessions[at].adapter.whose(&hook);
        let seat = hook.seat.clone();
        // The client's own list of sessions has the id that it goes by now.
        let is_listed = self.seat(of(at)).as_ref() == Some(&seat);
        self.sessions[at].running = Some(Running { call, hook, is_binding: false });
        let is_ours = match whose {
            _ if is_subagents => false,
            Whose::Ours => true,
            Whose::OursIfListed => is_listed,
            _ => false,
        };
        if !is_ours {
            return self.print(at, Outcome::default());
        }
        if whose == Whose::OursIfListed {
            self.look_into_record(at);
            self.tell(at, Event::GoesBy(seat));
            let is_asked =
                self.sessions[at].up.iter().any(|(_, wait)| matches!(wait, Wait::Bind(_)));
            if is_asked {
                if let Some(running) = &mut self.sessions[at].running {
                    running.is_binding = true;
                }
                return;
            }
        }
        self.hook_is_ours(at);
    }

    pub fn hook_is_ours(&mut self, at: usize) {
        let Some(running) = &mut self.sessions[at].running else { return };
        running.is_binding = false;
        let hook = running.hook.clone();
        self.look_into_record(at);
        let outcome = self.tell(
            at,
            Event::HookCame {
                event: hook.event,
                turn: hook.turn,
                mode: hook.mode,
                prolonged: hook.prolonged,
            },
        );
        if outcome.receive {
            let receive = Request::Receive { filter: Filter::default(), wait: false };
            self.sessions[at].up.push_back((receive, Wait::Hook));
        } else {
            self.print(at, outcome);
        }
    }

    /// The adapter answers the hook that it works on.
    pub fn print(&mut self, at: usize, outcome: Outcome) {
        let Some(Running { call, .. }) = self.sessions[at].running.take() else { return };
        let (block, asks) = outcome.print.unwrap_or_default();
        let asks_with = if asks { block.offered.clone() } else { Vec::new() };
        let answer = Request::HookAnswer { call, output: block.text, asks_with };
        self.sessions[at]
            .up
            .push_back((answer, Wait::HookAnswer { messages: block.offered, asks }));
        self.sessions[at].is_answering = true;
    }

    /// The client has its hook's output, which an adapter's process gave, and goes on.
    pub fn hook_returns(&mut self, client: usize, output: &str, from: u64) {
        let Doing::Hooking { program, event, goes_on } = self.clients[client].doing.clone() else {
            return;
        };
        if self.world.programs.contains_key(&program) {
            self.world.disconnect(&program);
            self.world.programs.remove(&program);
            self.route();
        }
        // Another hook may refuse the prompt: the turn does not begin, and the client drops what
        // ours printed.
        let is_prompt = event == HookEvent::UserPromptSubmit && self.clients[client].is_turns_first;
        if is_prompt && !output.is_empty() && !self.is_honest && self.random.chance(85) {
            self.count(REFUSED);
            self.clients[client].break_off(false);
            return self.rests(client);
        }
        if !output.is_empty() {
            let piece = Piece { text: output.to_owned(), by: Carrier::Hook, from, is_kept: false };
            if !self.is_honest && self.random.chance(45) {
                self.count(DROPPED);
                let client = &mut self.clients[client];
                if !client.records {
                    client.untold.extend(named(&[piece]).into_iter().map(|(message, _)| message));
                }
            } else {
                self.clients[client].pending.push(piece);
            }
        }
        self.go_on(client, event, goes_on, !output.is_empty());
    }

    /// The client goes on after a hook. `has_output`: a Stop hook asks its model once more.
    fn go_on(&mut self, client: usize, event: HookEvent, goes_on: bool, has_output: bool) {
        let model = &mut self.clients[client];
        model.doing = match event {
            HookEvent::UserPromptSubmit
            | HookEvent::PreToolUse
            | HookEvent::PostToolUse
            | HookEvent::PostToolBatch => Doing::Ready,
            HookEvent::Stop if has_output => {
                model.is_prolonged = true;
                Doing::Ready
            }
            HookEvent::SessionStart if goes_on => Doing::Ready,
            HookEvent::Stop | HookEvent::SessionStart | HookEvent::SessionEnd => Doing::Resting,
        };
        if event == HookEvent::Stop && model.doing == Doing::Resting {
            self.rests(client);
        }
        self.next_of_client(client);
    }

    /// Hooks that the client is to run before it goes on.
    pub fn next_of_client(&mut self, client: usize) {
        if !matches!(self.clients[client].doing, Doing::Ready | Doing::Resting) {
            return;
        }
        if let Some(event) = self.clients[client].hooks_to_run.pop_front() {
            self.run_hook(client, event);
        }
    }

    /// Whether the adapter has asked for a seat and was not answered: it asks for one at a time.
    pub fn is_binding(&self, at: usize) -> bool {
        let session = &self.sessions[at];
        let mut waits = session.up.iter().map(|(_, wait)| wait).chain(session.waits.values());
        waits.any(|wait| matches!(wait, Wait::Bind(_)))
            || session.down.iter().any(|down| matches!(down, Down::Answer(Wait::Bind(_), _)))
    }

    /// The client says of itself that its model rests.
    pub fn rests(&mut self, client: usize) {
        self.says(client, Activity::Idle);
    }

    /// The client says of itself whether its model works: in its list of sessions, or through its
    /// host. Each adapter of it hears that.
    pub fn says(&mut self, client: usize, activity: Activity) {
        for at in self.adapters(client) {
            match self.clients[client].kind {
                ClientKind::Claude => {
                    // The file that says so names the conversation too.
                    let seat = self.seat(client).filter(|_| !self.is_binding(at));
                    if let Some(seat) = seat {
                        self.tell(at, Event::GoesBy(seat));
                    }
                    self.tell(at, Event::RegistrySays { activity, changed: true });
                }
                ClientKind::Codex => drop(self.tell(at, Event::HostSays(Some(activity)))),
                ClientKind::Other => {}
            }
        }
    }
}
