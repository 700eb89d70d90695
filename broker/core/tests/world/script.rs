//! The language of the scenarios: one line, one input.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use peer_proto::channel::ChannelRequest;
use peer_proto::hook::{Activity, Mode, Report};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Carrier, Evidence, Intent};
use peer_proto::policy::Policy;
use peer_proto::question::{Answer, Ask, QuestionsQuery};
use peer_proto::request::{
    Filter, HistoryQuery, Pausing, Register, Request, Resume, Role, Seat, SeatKind, Send,
};

use peer_proto::search::SearchQuery;

use super::World;

impl World {
    /// Runs one line of a script. `times=` runs it so often, and lets only the last time say what
    /// the core decided.
    pub fn run(&mut self, line: &str) {
        if let Some((line, times)) = line.split_once(" times=") {
            let (times, text) = times
                .split_once(": ")
                .map_or((times, String::new()), |(times, text)| (times, format!(": {text}")));
            for left in (0..times.parse::<usize>().expect("a number")).rev() {
                self.quiet = left > 0;
                self.run(&format!("{line}{text}"));
            }
            return;
        }
        let (line, text) =
            line.split_once(": ").map_or((line, None), |(line, text)| (line, Some(text)));
        let words: Vec<&str> = line.split_whitespace().collect();
        let options: BTreeMap<&str, &str> =
            words.iter().filter_map(|word| word.split_once('=')).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.contains('=')).collect();
        let ids = |world: &Self, from: usize| -> Vec<MessageId> {
            words[from..]
                .iter()
                .filter(|w| w.starts_with(['m', 'r']))
                .map(|w| world.message(w))
                .collect()
        };
        match words.as_slice() {
            ["pass", duration] => {
                let millis = duration_ms(duration);
                self.pass(millis);
                while self.tick() {}
            }
            ["sleep", duration] => {
                self.sleep(duration_ms(duration));
                while self.tick() {}
            }
            ["clock", by] => {
                let (sign, duration) = by.split_at(1);
                let by_ms = i64::try_from(duration_ms(duration)).expect("not so far");
                self.set_clock(if sign == "-" { -by_ms } else { by_ms });
                while self.tick() {}
            }
            ["timer"] => {
                let timer = self
                    .broker
                    .poll_timeout(self.now)
                    .map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms"));
                writeln!(self.said, "    > timer: {timer}").unwrap();
            }
            ["restart"] => self.restart(),
            ["ends", pids @ ..] => {
                self.ended.extend(pids.iter().map(|pid| pid.parse::<u32>().expect("a pid")))
            }
            ["shuts-down", name] => self.ask(name, Request::Shutdown),
            ["limit", key, value] => {
                assert!(
                    self.config.limits.set(key, value.parse().expect("a number")),
                    "a limit called {key}"
                );
                self.restart();
            }
            ["hold-escalation"] => {
                self.config.hold_escalation = true;
                self.restart();
            }
            ["allow-operator-from-agents"] => {
                self.config.allow_operator_from_agents = true;
                self.restart();
            }
            ["stage", message] => {
                let id = self.message(message);
                for ((_, peer), durable) in
                    self.disk.deliveries.range((id, PeerId(0))..=(id, PeerId(u64::MAX)))
                {
                    let record =
                        self.broker.pending_delivery(id, *peer).unwrap_or_else(|| durable.clone());
                    let trace: Vec<&str> =
                        record.trace.iter().map(|entry| entry.event.as_str()).collect();
                    let line = format!(
                        "{message} to {}: {}, trace {}",
                        self.peer(*peer),
                        record.stage.as_str(),
                        trace.join(" ")
                    );
                    writeln!(self.said, "    > {line}").unwrap();
                }
            }
            [name, "online"] => {
                let pid = options
                    .get("pid")
                    .map_or(1_000 + self.programs.len() as u32, |pid| pid.parse().expect("a pid"));
                let seat = options.get("seat").map(|seat| parse_seat(seat));
                let register = Register {
                    name: options.get("name").map(|name| (*name).to_owned()),
                    seat,
                    client: options.get("client").unwrap_or(&"claude").to_string(),
                    client_version: "1".to_owned(),
                    client_pid: pid,
                    cwd: options.get("cwd").unwrap_or(&"/w").to_string(),
                    git_root: None,
                    repo: options.get("repo").map(|repo| (*repo).to_owned()),
                    host: "h".to_owned(),
                    resume: None,
                };
                let adapter =
                    options.get("adapter").map_or(pid + 50_000, |pid| pid.parse().expect("a pid"));
                let ancestors = if options.get("kernel") == Some(&"silent") {
                    Vec::new()
                } else {
                    vec![adapter, pid, 1]
                };
                self.connect(name, Role::Adapter, ancestors, None);
                self.programs.get_mut(*name).expect("just connected").register =
                    Some(register.clone());
                self.ask(name, Request::Register(register));
            }
            [name, "resumes"] => {
                let program = self.programs[*name].clone();
                let register = Register {
                    resume: Some(Resume {
                        peer: program.peer.expect("was registered"),
                        token: program.token.expect("has a token"),
                    }),
                    ..program.register.expect("was registered")
                };
                self.connect(name, Role::Adapter, vec![program.pid + 50_000, program.pid, 1], None);
                self.ask(name, Request::Register(register));
            }
            [name, "operator"] => {
                let ancestors = options
                    .get("under")
                    .map_or(vec![9, 8, 1], |pid| vec![9, pid.parse().expect("a pid"), 1]);
                let seat = options.get("seat").map(|seat| parse_seat(seat));
                self.connect(name, Role::Operator, ancestors, seat);
            }
            [name, "offline"] => self.disconnect(name),
            [name, "binds", seat] => self.ask(name, Request::Bind(parse_seat(seat))),
            // The answer is lost on its way.
            [name, "binds", seat, "unanswered"] => {
                let before = self.programs[*name].token;
                self.ask(name, Request::Bind(parse_seat(seat)));
                self.programs.get_mut(*name).expect("a known program").token = before;
            }
            [name, "sends", to @ ..] => {
                let send = Send {
                    to: to.iter().map(|to| (*to).to_owned()).collect(),
                    text: text.unwrap_or("").to_owned(),
                    intent: options.get("intent").map(|intent| {
                        if *intent == "inform" { Intent::Inform } else { Intent::Request }
                    }),
                    reply_to: options.get("re").map(|alias| self.message(alias)),
                    thread: options.get("thread").map(|thread| (*thread).to_owned()),
                    ttl_ms: options.get("ttl").map(|ttl| duration_ms(ttl)),
                    sources: Vec::new(),
                    idempotency_key: options.get("key").map(|key| (*key).to_owned()),
                };
                self.ask(name, Request::Send(send));
            }
            [name, "channels"] => self.ask(name, Request::Channel(ChannelRequest::List)),
            [name, "creates", channel, private @ ..] => {
                let (name, channel, topic) =
                    (*name, (*channel).to_owned(), text.unwrap_or("").to_owned());
                let request = ChannelRequest::Create {
                    name: channel,
                    topic,
                    private: private == ["private"],
                };
                self.ask(name, Request::Channel(request));
            }
            [name, "joins", channel] => {
                self.ask(name, Request::Channel(ChannelRequest::Join((*channel).to_owned())))
            }
            [name, "leaves", channel] => {
                self.ask(name, Request::Channel(ChannelRequest::Leave((*channel).to_owned())))
            }
            [name, "invites", peer, channel] => {
                let request = ChannelRequest::Invite {
                    name: (*channel).to_owned(),
                    peer: (*peer).to_owned(),
                };
                self.ask(name, Request::Channel(request));
            }
            [name, "topic", channel] => {
                let request = ChannelRequest::SetTopic {
                    name: (*channel).to_owned(),
                    topic: text.unwrap_or("").to_owned(),
                };
                self.ask(name, Request::Channel(request));
            }
            [name, "asks", to @ ..] => {
                let ask = Ask {
                    to: to.iter().map(|to| (*to).to_owned()).collect(),
                    question: text.unwrap_or("").to_owned(),
                    context_hint: options.get("hint").map(|hint| (*hint).to_owned()),
                    ttl_ms: options.get("ttl").map(|ttl| duration_ms(ttl)),
                    idempotency_key: options.get("key").map(|key| (*key).to_owned()),
                };
                self.ask(name, Request::Ask(ask));
            }
            [name, "answers", question] => {
                let answer = Answer {
                    question: self.message(question),
                    answer: text.unwrap_or("").to_owned(),
                    sources: options
                        .get("source")
                        .map(|source| (*source).to_owned())
                        .into_iter()
                        .collect(),
                    idempotency_key: options.get("key").map(|key| (*key).to_owned()),
                };
                self.ask(name, Request::Answer(answer));
            }
            [name, "questions", open @ ..] => {
                let peer = options.get("of").map(|peer| (*peer).to_owned());
                let query = QuestionsQuery { open: open == ["open"], peer, before: None };
                self.ask(name, Request::Questions(query));
            }
            [name, "reads", message] => {
                let id = self.message(message);
                self.ask(name, Request::Read(id));
            }
            [name, "offered", ..] => {
                let (carrier, last) = parse_carrier(options["by"]);
                let messages = ids(self, 2);
                self.ask(name, Request::Offered { messages, carrier, last });
            }
            [name, "tried", ..] => {
                let messages = ids(self, 2);
                self.ask(name, Request::Tried { messages });
            }
            [name, "presented", ..] => {
                let (carrier, _) = parse_carrier(options["by"]);
                let evidence = match options.get("evidence").copied().unwrap_or("next_call") {
                    "printed" => Evidence::Printed,
                    "next_turn" => Evidence::NextTurn,
                    _ => Evidence::NextCall,
                };
                let messages = ids(self, 2);
                self.ask(name, Request::Presented { messages, carrier, evidence });
            }
            [name, "acks", ..] => {
                let messages = ids(self, 2);
                self.ask(name, Request::Ack { messages });
            }
            [name, "nacks", ..] => {
                let messages = ids(self, 2);
                self.ask(name, Request::Nack { messages });
            }
            [name, verb @ ("receives" | "waits")] => {
                let filter = Filter {
                    from: options.get("from").map(|from| (*from).to_owned()),
                    thread: options.get("thread").map(|thread| (*thread).to_owned()),
                    kind: None,
                    reply_to: options.get("re").map(|alias| self.message(alias)),
                };
                self.ask(name, Request::Receive { filter, wait: *verb == "waits" });
            }
            [name, "stops-waiting"] => {
                let id = self.requests;
                self.ask(name, Request::StopWaiting(id));
            }
            [name, "describes"] => {
                let owned = |key: &str| options.get(key).map(|value| (*value).to_owned());
                let request = Request::Describe {
                    summary: text.map(str::to_owned),
                    state: owned("state"),
                    task: owned("task"),
                };
                self.ask(name, request);
            }
            [name, "renames", new_name] => {
                self.ask(name, Request::Rename { peer: None, new_name: (*new_name).to_owned() })
            }
            [name, "renames", peer, new_name] => {
                self.ask(
                    name,
                    Request::Rename {
                        peer: Some((*peer).to_owned()),
                        new_name: (*new_name).to_owned(),
                    },
                );
            }
            [name, "lists", all @ ..] => {
                let query = peer_proto::request::PeersQuery {
                    all: all == ["all"],
                    remote: all == ["remote"],
                    repo: options.get("repo").map(|repo| (*repo).to_owned()),
                    state: options.get("state").map(|state| (*state).to_owned()),
                    client: options.get("client").map(|client| (*client).to_owned()),
                    ..peer_proto::request::PeersQuery::default()
                };
                self.ask(name, Request::Peers(query));
            }
            [name, "inbox", of @ ..] => {
                let peer = of.first().map(|peer| (*peer).to_owned());
                self.ask(
                    name,
                    Request::Inbox { peer, held: options.contains_key("held"), after: None },
                );
            }
            [name, "reports", word @ ("working" | "idle")] => {
                let activity = [Activity::Working, Activity::Idle]
                    .into_iter()
                    .find(|known| known.as_str() == *word);
                self.ask(name, Request::Report(Report { activity, ..Report::default() }));
            }
            [name, "reports", mode] => {
                let report = Report { mode: Some(parse_mode(mode)), ..Report::default() };
                self.ask(name, Request::Report(report));
            }
            [name, "policies"] => self.ask(name, Request::Policies),
            [name, "sets", peer, policy] => {
                let peer = (*peer != "all").then(|| (*peer).to_owned());
                self.ask(name, Request::SetPolicy { peer, policy: parse_policy(policy) });
            }
            [name, "consents", answer] => {
                self.ask(name, Request::SetConsent { inbox_socket_in_bypass: *answer == "yes" })
            }
            [name, "releases", message, to @ ..] => {
                let (message, to) = (self.message(message), to.first().map(|to| (*to).to_owned()));
                self.ask(name, Request::Release { message, to });
            }
            [name, "history", of @ ..] => {
                let channel = options.get("channel").map(|channel| (*channel).to_owned());
                let query = HistoryQuery {
                    peer: of.first().map(|peer| (*peer).to_owned()),
                    channel,
                    ..HistoryQuery::default()
                };
                self.ask(name, Request::History(query));
            }
            [name, "finds"] => {
                let option = |key: &str| options.get(key).map(|value| (*value).to_owned());
                let text = text.unwrap_or("").to_owned();
                let (peer, channel, thread) = (option("peer"), option("channel"), option("thread"));
                self.ask(
                    name,
                    Request::Search(SearchQuery {
                        text,
                        peer,
                        channel,
                        thread,
                        ..SearchQuery::default()
                    }),
                );
            }
            [name, "pauses", rest @ ..] => self.ask(name, Request::Pause(parse_pausing(rest))),
            [name, "resumes", rest @ ..] => self.ask(name, Request::Resume(parse_pausing(rest))),
            [name, "purges", dry @ ..] => {
                self.ask(name, Request::Purge { dry_run: dry == ["dry"] })
            }
            ["sweep", rows] => self.sweep(rows.parse().expect("a number")),
            ["keep", key, value] => {
                let keep = &mut self.config.retention;
                match *key {
                    "settled" => keep.settled_ms = duration_ms(value),
                    "dead" => keep.dead_ms = duration_ms(value),
                    "tasks" => keep.tasks_ms = duration_ms(value),
                    "count" => keep.settled_count = value.parse().expect("a number"),
                    "bytes" => keep.settled_bytes = value.parse().expect("a number"),
                    other => panic!("nothing of that kind is kept: {other}"),
                }
                self.restart();
            }
            ["refused"] => {
                let counts: Vec<String> = self
                    .broker
                    .counts()
                    .refused
                    .iter()
                    .map(|(code, count)| format!("{code} {count}"))
                    .collect();
                writeln!(self.said, "    > refused: {}", counts.join(", ")).unwrap();
            }
            [name, "refusals"] => self.ask(name, Request::Refusals),
            ["used-up"] => {
                let line = |thread: &peer_proto::brake::UsedUpThread| {
                    format!(
                        "{} after {} turns of {}",
                        thread.thread,
                        thread.turns,
                        thread.speakers.join(" ")
                    )
                };
                let lines: Vec<String> = self.broker.counts().used_up.iter().map(line).collect();
                writeln!(self.said, "    > used up: {}", lines.join("; ")).unwrap();
            }
            [name, "watches", bodies @ ..] => {
                self.ask(name, Request::Watch { peer: None, bodies: bodies == ["bodies"] })
            }
            [name, "kicks", peer] => self.ask(name, Request::Kick((*peer).to_owned())),
            [name, "shows", message] => {
                let id = self.message(message);
                self.ask(name, Request::Show(id));
            }
            [name, "cancels", message] => {
                let id = self.message(message);
                self.ask(name, Request::Cancel(id));
            }
            [name, "requeues", message] => {
                let id = self.message(message);
                self.ask(name, Request::Requeue(id));
            }
            [name, "reassigns", message, to] => {
                let message = self.message(message);
                self.ask(name, Request::Reassign { message, to: (*to).to_owned() });
            }
            [name, "drops", message] => {
                let id = self.message(message);
                self.ask(name, Request::Drop(id));
            }
            [name, "task", rest @ ..] => self.run_task(name, rest, &options, text),
            [name, "tasks", rest @ ..] => self.run_tasks(name, rest, &options, text),
            [name, "note", rest @ ..] => self.run_note(name, rest, &options, text),
            [name, "notes", rest @ ..] => self.run_notes(name, rest, &options),
            [name, "link", rest @ ..] => self.run_link(name, rest, &options, text),
            [name, "links", rest @ ..] => self.run_links(name, rest, &options),
            other => panic!("no such line in a script: {other:?}"),
        }
    }
}

pub fn parse_seat(text: &str) -> Seat {
    let (kind, key) = text.split_once(':').expect("kind:key");
    let kind = match kind {
        "claude" => SeatKind::Claude,
        "codex" => SeatKind::Codex,
        "name" => SeatKind::Name,
        _ => SeatKind::Other,
    };
    Seat { kind, key: key.to_owned() }
}

fn parse_mode(text: &str) -> Mode {
    let modes = [Mode::Plan, Mode::Prompting, Mode::AcceptEdits, Mode::Bypass];
    modes
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .unwrap_or_else(|| panic!("no such mode in a script: {text}"))
}

fn parse_pausing(words: &[&str]) -> Pausing {
    match words {
        ["all"] => Pausing::All,
        ["thread", thread] => Pausing::Thread((*thread).to_owned()),
        [peer] => Pausing::Peer((*peer).to_owned()),
        other => panic!("nothing to pause in a script: {other:?}"),
    }
}

/// None: `default`.
fn parse_policy(text: &str) -> Option<Policy> {
    let policies = [Policy::Accept, Policy::Hold, Policy::Refuse];
    let known = policies.into_iter().find(|policy| policy.as_str() == text);
    assert!(known.is_some() || text == "default", "no such policy in a script: {text}");
    known
}

fn parse_carrier(text: &str) -> (Carrier, bool) {
    match text {
        "channel" => (Carrier::Channel, false),
        "inbox_socket" => (Carrier::InboxSocket, false),
        "hook" => (Carrier::Hook, false),
        "tool_result" => (Carrier::ToolResult, true),
        "peerctl" => (Carrier::Peerctl, true),
        other => panic!("no such carrier in a script: {other}"),
    }
}

pub(super) fn duration_ms(text: &str) -> u64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => panic!("no such unit in a script: {other}"),
    };
    digits.parse::<u64>().expect("a number") * unit
}
