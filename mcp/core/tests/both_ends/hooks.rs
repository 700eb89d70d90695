//! The clients' hooks, as the hands of an adapter run them: one at a time, until the answer of each
//! has arrived or is lost.

use peer_mcp_core::ClientKind;
use peer_mcp_core::Whose;
use peer_mcp_core::event::Event;
use peer_proto::hook::{Activity, HookCall, HookEvent};
use peer_proto::message::Carrier;
use peer_proto::request::{Filter, Request, Role, Seat};

use crate::client::{Doing, Piece};
use crate::ends::{Ends, Outcome, Running, Wait};

impl Ends {
    /// The client runs a hook.
    pub fn run_hook(
        &mut self,
        at: usize,
        event: HookEvent,
        agent: Option<String>,
        seat: Option<Seat>,
    ) {
        self.programs += 1;
        let program = format!("hook.{}", self.programs);
        let session = &mut self.sessions[at];
        let Some(seat) = seat.or_else(|| Self::seat(session)) else { return };
        let hook = HookCall {
            event,
            seat,
            cwd: "/work".into(),
            transcript: None,
            mode: None,
            agent,
            turn: session.client.names_turns.then(|| session.client.turn.to_string()),
            tool_use: None,
            source: (event == HookEvent::SessionStart).then(|| "clear".to_owned()),
            name: None,
            prolonged: event == HookEvent::Stop && session.client.is_prolonged,
        };
        let pids = vec![session.pid + 2, session.pid];
        session.client.doing = Doing::Hooking { program: program.clone(), event };
        self.world.connect(&program, Role::Hook, pids, None);
        self.world.ask(&program, Request::Hook(hook));
        self.route();
    }

    /// The client waits no more for its hook.
    pub fn give_up_hook(&mut self, at: usize) {
        self.hook_returns(at, "");
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
        let is_listed = Self::seat(&self.sessions[at]).as_ref() == Some(&seat);
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

    /// The client has its hook's output, and goes on.
    pub fn hook_returns(&mut self, at: usize, output: &str) {
        let Doing::Hooking { program, event } = self.sessions[at].client.doing.clone() else {
            return;
        };
        if self.world.programs.contains_key(&program) {
            self.world.disconnect(&program);
            self.world.programs.remove(&program);
            self.route();
        }
        // Another hook may refuse the prompt: the turn does not begin, and the client drops what
        // ours printed.
        let is_prompt =
            event == HookEvent::UserPromptSubmit && self.sessions[at].client.is_turns_first;
        if is_prompt && !output.is_empty() && !self.is_honest && self.random.chance(85) {
            self.count("lie: a prompt is refused by another hook, its output is dropped");
            self.sessions[at].client.break_off(false);
            return self.rests(at);
        }
        let client = &mut self.sessions[at].client;
        if !output.is_empty() {
            client.pending.push(Piece { text: output.to_owned(), by: Carrier::Hook });
        }
        client.doing = match event {
            HookEvent::UserPromptSubmit
            | HookEvent::PreToolUse
            | HookEvent::PostToolUse
            | HookEvent::PostToolBatch => Doing::Ready,
            HookEvent::Stop if !output.is_empty() => {
                client.is_prolonged = true;
                Doing::Ready
            }
            HookEvent::Stop | HookEvent::SessionStart | HookEvent::SessionEnd => Doing::Resting,
        };
        if event == HookEvent::Stop && client.doing == Doing::Resting {
            self.rests(at);
        }
        self.next_of_client(at);
    }

    /// Hooks that the client is to run before it goes on.
    pub fn next_of_client(&mut self, at: usize) {
        if !matches!(self.sessions[at].client.doing, Doing::Ready | Doing::Resting) {
            return;
        }
        if let Some(event) = self.sessions[at].client.hooks_to_run.pop_front() {
            self.run_hook(at, event, None, None);
        }
    }

    /// The client says of itself that its model rests.
    pub fn rests(&mut self, at: usize) {
        self.says(at, Activity::Idle);
    }

    /// The client says of itself whether its model works: in its list of sessions, or through its
    /// host.
    pub fn says(&mut self, at: usize, activity: Activity) {
        match self.sessions[at].client.kind {
            ClientKind::Claude => drop(self.tell(at, Event::RegistrySays(activity))),
            ClientKind::Codex => drop(self.tell(at, Event::HostSays(Some(activity)))),
            ClientKind::Other => {}
        }
    }
}
