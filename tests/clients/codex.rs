//! Codex itself: every way into its model, alone and in order, what each of them proves, and which
//! thread, terminal and name a session has where one process hosts them all.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use peer_tests::clients::{
    Call, Codex, Gate, Stage, call, calls, given, hostile_body, latency, say,
};
use serde_json::{Value, json};

fn list() -> Call {
    Call::peers("list_peers", json!({}))
}

/// What `peerctl peers` says of one that is online.
#[track_caller]
fn online(stage: &Stage) -> Vec<Value> {
    let peers = stage.home.peerctl(&["peers", "--json"]).success().json();
    peers
        .as_array()
        .expect("peers are listed")
        .iter()
        .filter(|peer| peer["online"] == true)
        .cloned()
        .collect()
}

#[track_caller]
fn names(stage: &Stage) -> Vec<String> {
    let mut names: Vec<String> = online(stage)
        .iter()
        .map(|peer| peer["name"].as_str().expect("a peer has a name").to_owned())
        .collect();
    names.sort_unstable();
    names
}

/// A pipe in the working directory: whoever reads it waits until it is opened and closed again.
struct Pipe(PathBuf);

impl Pipe {
    fn new(stage: &Stage, name: &str) -> Self {
        let path = stage.work().join(name);
        mkfifo(&path, Mode::S_IRWXU).expect("make a pipe");
        Self(path)
    }

    /// Returns when somebody reads it; dropping what it returns lets them go on.
    fn opened(&self) -> File {
        OpenOptions::new().write(true).open(&self.0).expect("open a pipe")
    }
}

/// Wires Codex as `peerctl setup` does, and then trusts the hooks, as the person does in `/hooks`.
fn set_up(stage: &Stage) {
    stage.codex().unwired().configure();
    let _ = stage.home.peerctl(&["setup", "codex", "--yes"]).success();
    let codex = std::env::var_os("PEERD_CODEX").expect("tests/clients/run says where Codex is");
    let mut server = Command::new(codex);
    server
        .arg("app-server")
        .env_clear()
        .env("HOME", stage.home.home())
        .env("PATH", "/usr/bin:/bin")
        .current_dir(stage.work());
    let mut server = server
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("run codex");
    let mut stdin = server.stdin.take().expect("standard input is piped");
    let about_us = json!({"clientInfo": {"name": "test", "version": "1"}, "capabilities": {"experimentalApi": true}});
    for line in [
        json!({"id": 1, "method": "initialize", "params": about_us}),
        json!({"method": "initialized"}),
        json!({"id": 2, "method": "hooks/list", "params": {"cwds": []}}),
    ] {
        writeln!(stdin, "{line}").expect("ask codex");
    }
    let answers = BufReader::new(server.stdout.take().expect("standard output is piped"))
        .lines()
        .map_while(Result::ok);
    let listed = answers
        .map(|line| serde_json::from_str::<Value>(&line).expect("codex speaks JSON"))
        .find(|said| said["id"] == 2);
    drop(stdin);
    let _ = server.wait();
    let listed = listed.expect("codex lists its hooks");
    let hooks = listed["result"]["data"][0]["hooks"].as_array().expect("there are hooks");
    assert!(hooks.len() >= 5, "{hooks:#?}");
    let config = stage.home.home().join(".codex/config.toml");
    let mut config =
        OpenOptions::new().append(true).open(config).expect("open codex's configuration");
    for hook in hooks {
        let state =
            format!("[hooks.state.{}]\ntrusted_hash = {}\n", hook["key"], hook["currentHash"]);
        config.write_all(state.as_bytes()).expect("trust a hook");
    }
}

/// `codex exec` runs a command, and a message is sent while the model's answer, which calls `next`,
/// is on its way.
fn carried_between_two_calls(stage: &Stage, codex: Codex<'_>, carrier: &str, next: Call) -> String {
    stage.leave_only(carrier);
    let (second, third) = (Gate::new(), Gate::new());
    let steps = [
        call(Call::shell("echo one")),
        call(next).held(&second),
        call(Call::shell("echo three")).held(&third),
        say("done"),
    ];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let running = codex.name("luna").exec("luna-begin");
    talk.request(1);
    let sent = Instant::now();
    let id = stage.send("luna", "which bcrypt?");
    second.open();
    let request = talk.request_with("| which bcrypt?");
    latency("codex", carrier, sent, &request);
    third.open();
    let told = news.wait("presented", &id);
    assert_eq!(told["reason"], "transcript", "{told}");
    let _ = running.wait().success();
    for (at, request) in talk.requests().iter().enumerate() {
        assert_eq!(request.count("| which bcrypt?"), usize::from(at >= 2), "request {at}");
    }
    id
}

#[test]
fn a_hook_carries_between_two_calls() {
    let stage = peer_tests::stage!();
    let id =
        carried_between_two_calls(&stage, stage.codex().hooked(), "hook", Call::shell("echo two"));
    assert_eq!(stage.trace(&id), ["stored", "offered hook", "presented hook"]);
}

#[test]
fn a_tool_result_carries_where_nothing_else_does_and_the_record_proves_it() {
    let stage = peer_tests::stage!();
    let id = carried_between_two_calls(&stage, stage.codex(), "tool_result", list());
    assert_eq!(stage.trace(&id), ["stored", "offered tool_result", "presented tool_result"]);
}

/// Codex skips it without a word until its person has trusted it.
#[test]
fn a_hook_that_is_not_trusted_is_not_taken_for_seen() {
    let stage = peer_tests::stage!();
    let hook = "[[hooks.PostToolUse]]\nhooks = [{ type = \"command\", command = \"peerctl hook codex PostToolUse\" }]\n";
    let id = carried_between_two_calls(&stage, stage.codex().config(hook), "hook", list());
    assert_eq!(stage.trace(&id), ["stored", "offered tool_result", "presented tool_result"]);
}

/// Codex runs the calls of one answer one after the other, each with its result before the next
/// begins, and the model has seen none of them.
#[test]
fn two_calls_in_one_message_do_not_prove_each_other() {
    let stage = peer_tests::stage!();
    stage.leave_only("tool_result");
    let (gate, last) = (Gate::new(), Gate::new());
    // The call after them is the model's next answer; how the program ends is not what this is
    // about.
    let after = call(list()).held(&last);
    let steps =
        [call(Call::shell("true")), calls([list(), list()]).held(&gate), after, say("done")];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let running = stage.codex().name("luna").exec("luna-begin");
    talk.request(1);
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    let request = talk.request(2);
    assert_eq!(request.count("| which bcrypt?"), 1);
    let _ = news.wait("offered", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered tool_result"]);
    last.open();
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
}

/// Between two calls of an exec'd session its own server has no control socket: nothing is pushed,
/// and nothing is lost.
#[test]
fn a_subagent_that_calls_our_tools_does_not_swallow_its_parents_mail() {
    let stage = peer_tests::stage!();
    stage.leave_only("tool_result");
    let (gate, parent) = (Gate::new(), Gate::new());
    let agent = json!({"message": "sub-begin", "agent_type": "default"});
    let wait = given(|request| {
        let spawned: Value =
            serde_json::from_str(&request.results().pop().expect("there is a result").text)
                .expect("it is JSON");
        call(Call::named(
            "multi_agent_v1__wait_agent",
            json!({"targets": [spawned["agent_id"]], "timeout_ms": 60_000}),
        ))
    });
    let parents = [call(list()).held(&parent), call(list()), say("parent done")];
    let steps =
        [call(Call::named("multi_agent_v1__spawn_agent", agent)), wait].into_iter().chain(parents);
    let talk = stage.model.talk("luna-begin", steps);
    let sub = stage
        .model
        .talk("sub-begin", [call(list()), call(list()).held(&gate), call(list()), say("sub done")]);
    let news = stage.news();
    let running = stage.codex().name("luna").exec("luna-begin");
    sub.request(1);
    assert_eq!(names(&stage), ["luna"], "a subagent is no peer");
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    sub.request(3);
    talk.request(2);
    for request in sub.requests() {
        assert_eq!(request.count("which bcrypt?"), 0, "the subagent was shown its parent's mail");
    }
    parent.open();
    assert_eq!(talk.request(3).count("| which bcrypt?"), 1);
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    assert_eq!(stage.trace(&id), ["stored", "offered tool_result", "presented tool_result"]);
}

/// A session without a chosen name is found by its thread.
#[test]
fn a_session_that_is_resumed_has_its_mail() {
    let stage = peer_tests::stage!();
    stage.leave_only("tool_result");
    let talk = stage.model.talk("first-begin", [call(list()), say("done")]);
    let news = stage.news();
    let _ = stage.codex().exec("first-begin").wait().success();
    talk.request(1);
    let peers = stage.home.peerctl(&["peers", "--all", "--json"]).success().json();
    let name = peers[0]["name"].as_str().expect("a peer has a name").to_owned();
    let id = stage.send(&name, "which bcrypt?");
    talk.then([call(list()), call(list()), say("resumed")]);
    let _ = stage.codex().args(["resume", "--last"]).exec("go-on").wait().success();
    assert_eq!(talk.request_with("| which bcrypt?").count("| which bcrypt?"), 1);
    let _ = news.wait("presented", &id);
    let after = stage.home.peerctl(&["peers", "--all", "--json"]).success().json();
    assert_eq!(after.as_array().map(Vec::len), Some(1), "{after}");
}

#[test]
fn a_running_turn_is_steered() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let (pipe, last) = (Pipe::new(&stage, "one"), Gate::new());
    let talk =
        stage.model.talk("luna-begin", [call(Call::shell("cat one")), say("all done").held(&last)]);
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    tui.submit("luna-begin");
    let running = pipe.opened();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("offered", &id);
    let ended = Instant::now();
    drop(running);
    let request = talk.request(1);
    latency("codex", "app_server (from the end of the tool that ran)", ended, &request);
    assert_eq!(request.count("| which bcrypt?"), 1);
    assert!(request.shows("[peerd, not your user] 1 message from human"), "it is said who speaks");
    assert_eq!(stage.trace(&id), ["stored", "offered app_server"], "nothing was answered yet");
    last.open();
    let _ = news.wait("presented", &id);
    tui.wait_for("all done");
    assert_eq!(stage.trace(&id), ["stored", "offered app_server", "presented app_server"]);
    tui.close();
}

/// What comes while the model answers is in the request that follows, in the same turn.
#[test]
fn mail_that_comes_while_the_model_answers_follows_in_the_same_turn() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let gate = Gate::new();
    let talk =
        stage.model.talk("luna-begin", [say("first answer").held(&gate), say("second answer")]);
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    tui.submit("luna-begin");
    talk.request(0);
    let sent = Instant::now();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("offered", &id);
    gate.open();
    let request = talk.request(1);
    latency("codex", "app_server", sent, &request);
    assert_eq!(request.count("| which bcrypt?"), 1);
    tui.wait_for("second answer");
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered app_server", "presented app_server"]);
    tui.close();
}

/// Nobody has typed anything into it yet.
#[test]
fn an_idle_terminal_is_woken() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let talk = stage.model.talk("wake up", [say("woken")]);
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    let sent = Instant::now();
    let id = stage.send("luna", "wake up, luna");
    let request = talk.request(0);
    latency("codex", "app_server (idle)", sent, &request);
    assert_eq!(request.count("| wake up, luna"), 1);
    tui.wait_for("woken");
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered app_server", "presented app_server"]);
    tui.close();
}

/// What only informs rides on the turn that somebody else begins.
#[test]
fn what_only_informs_wakes_nobody_and_rides_on_the_next_turn() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let (gate, last) = (Gate::new(), Gate::new());
    let steps = [call(Call::shell("true")).held(&gate), say("all done").held(&last)];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    let sent = stage
        .home
        .peerctl(&["send", "luna", "--intent", "inform", "--json", "--", "for your interest"])
        .success()
        .json();
    let id = sent["id"].as_str().expect("a message has an id");
    tui.submit("luna-begin");
    assert_eq!(talk.request(0).count("for your interest"), 0);
    let _ = news.wait("offered", id);
    gate.open();
    assert_eq!(talk.request(1).count("| for your interest"), 1);
    last.open();
    let _ = news.wait("presented", id);
    tui.wait_for("all done");
    tui.close();
}

#[test]
fn the_app_server_quotes_a_hostile_message() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let gate = Gate::new();
    let talk =
        stage.model.talk("luna-begin", [call(Call::shell("true")).held(&gate), say("all done")]);
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    tui.submit("luna-begin");
    talk.request(0);
    let id = stage.send("luna", &hostile_body("EVIL"));
    let _ = news.wait("offered", &id);
    gate.open();
    talk.request(1).assert_quoted("EVIL");
    tui.close();
}

/// Hooks, the control socket and tool results, all at once: each has its turn to show the same
/// message, and one does.
#[test]
fn with_all_that_setup_installs_each_message_is_shown_once() {
    let stage = peer_tests::stage!();
    set_up(&stage);
    let (one, two) = (Pipe::new(&stage, "one"), Pipe::new(&stage, "two"));
    let steps =
        [call(Call::shell("cat one")), call(list()), call(Call::shell("cat two")), say("all done")];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let tui = stage.codex().unwired().name("luna").terminal();
    news.wait_online("luna");
    tui.submit("luna-begin");
    let one = one.opened();
    let first = stage.send("luna", "the first message");
    let _ = news.wait("offered", &first);
    drop(one);
    let _ = news.wait("presented", &first);
    let two = two.opened();
    let second = stage.send("luna", "the second message");
    let _ = news.wait("offered", &second);
    drop(two);
    let _ = news.wait("presented", &second);
    // At rest: what comes as a turn ends is declined once and goes again.
    tui.wait_for("Worked for");
    talk.then([say("woken again")]);
    let third = stage.send("luna", "the third message");
    let last = talk.request_with("the third message");
    let _ = news.wait("presented", &third);
    tui.wait_for("woken again");
    for text in ["| the first message", "| the second message", "| the third message"] {
        assert_eq!(last.count(text), 1, "{text}");
    }
    for id in [first, second, third] {
        assert_eq!(stage.trace(&id), ["stored", "offered app_server", "presented app_server"]);
    }
    let peer = &online(&stage)[0];
    assert_eq!((&peer["mode"], &peer["activity"]), (&json!("bypass"), &json!("idle")), "{peer:#?}");
    tui.close();
}

/// Its thread has an adapter of its own in the same daemon, with the same environment.
#[test]
fn a_subagent_in_a_terminal_is_no_peer_and_gets_nothing() {
    let stage = peer_tests::stage!();
    set_up(&stage);
    let (gate, parent) = (Gate::new(), Gate::new());
    let agent = json!({"message": "sub-begin", "agent_type": "default"});
    let wait = given(|request| {
        let spawned: Value =
            serde_json::from_str(&request.results().pop().expect("there is a result").text)
                .expect("it is JSON");
        call(Call::named(
            "multi_agent_v1__wait_agent",
            json!({"targets": [spawned["agent_id"]], "timeout_ms": 60_000}),
        ))
    });
    let steps = [
        call(Call::named("multi_agent_v1__spawn_agent", agent)),
        wait,
        say("parent done").held(&parent),
    ];
    let talk = stage.model.talk("luna-begin", steps);
    let sub = stage.model.talk(
        "sub-begin",
        [call(list()), call(Call::shell("true")).held(&gate), call(list()), say("sub done")],
    );
    let news = stage.news();
    let tui = stage.codex().unwired().name("luna").terminal();
    news.wait_online("luna");
    tui.submit("luna-begin");
    sub.request(1);
    assert_eq!(names(&stage), ["luna"], "a subagent is no peer");
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("offered", &id);
    gate.open();
    sub.request(3);
    assert_eq!(talk.request(2).count("| which bcrypt?"), 1);
    parent.open();
    let _ = news.wait("presented", &id);
    tui.wait_for("parent done");
    for request in sub.requests() {
        assert_eq!(request.count("which bcrypt?"), 0, "the subagent was shown its parent's mail");
    }
    assert_eq!(stage.trace(&id), ["stored", "offered app_server", "presented app_server"]);
    tui.close();
}

/// One process serves both, with the environment of the first.
#[test]
fn two_terminals_in_one_daemon_have_the_names_that_their_persons_asked_for() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let news = stage.news();
    let luna = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    let sol = stage.codex().name("sol").terminal();
    news.wait_online("sol");
    let peers = online(&stage);
    assert_eq!(names(&stage), ["luna", "sol"]);
    assert_eq!(
        peers[0]["client_pid"], peers[1]["client_pid"],
        "one process serves both: {peers:#?}"
    );
    let talk = stage.model.talk("for sol", [say("sol is up")]);
    let id = stage.send("sol", "for sol alone");
    assert_eq!(talk.request(0).count("| for sol alone"), 1);
    sol.wait_for("sol is up");
    let _ = news.wait("presented", &id);
    assert!(!luna.screen().contains("peerd, not your user"));
    sol.close();
    luna.close();
}

/// Each time the terminal goes on in another thread, with another adapter, while the adapter before
/// lives on.
fn stays_the_same_peer_when_cleared_twice(stage: &Stage, codex: Codex<'_>) {
    stage.leave_only("app_server");
    let news = stage.news();
    let tui = codex.terminal();
    news.wait_online_any();
    let before = online(stage);
    let name = before[0]["name"].as_str().expect("a peer has a name");
    // A conversation that nothing was said in is not left.
    let talk = stage.model.talk("luna-begin", [say("begun")]);
    tui.submit("luna-begin");
    talk.request(0);
    tui.wait_for("begun");
    for turn in ["first", "second"] {
        // Between two turns: during one it is refused.
        tui.wait_for("Worked for");
        tui.submit("/clear");
        news.wait_online(name);
        let marker = format!("after the {turn}");
        let talk = stage.model.talk(&marker, [say(&format!("{turn} read"))]);
        let id = stage.send(name, &marker);
        assert_eq!(talk.request(0).count(&format!("| {marker}")), 1);
        tui.wait_for(&format!("{turn} read"));
        let _ = news.wait("presented", &id);
    }
    let after = online(stage);
    assert_eq!((after.len(), &after[0]["id"]), (1, &before[0]["id"]), "{after:#?}");
    tui.close();
}

#[test]
fn a_terminal_that_is_cleared_twice_stays_the_same_peer() {
    let stage = peer_tests::stage!();
    stays_the_same_peer_when_cleared_twice(&stage, stage.codex().name("luna"));
}

#[test]
fn a_terminal_without_a_chosen_name_that_is_cleared_twice_stays_the_same_peer() {
    let stage = peer_tests::stage!();
    stays_the_same_peer_when_cleared_twice(&stage, stage.codex());
}

/// It has the conversation's past and none of its mail.
#[test]
fn a_fork_in_the_same_terminal_is_another_peer() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    let talk = stage.model.talk("luna-begin", [say("begun")]);
    tui.submit("luna-begin");
    talk.request(0);
    tui.wait_for("begun");
    tui.wait_for("Worked for");
    tui.submit("/fork");
    news.wait_offline("luna");
    news.wait_online_any();
    let fork = online(&stage);
    assert_eq!(fork.len(), 1, "{fork:#?}");
    let fork = fork[0]["name"].as_str().expect("a peer has a name");
    assert_ne!(fork, "luna");
    let id = stage.send("luna", "for luna alone");
    assert_eq!(stage.trace(&id), ["stored"]);
    talk.then([say("fork read")]);
    let id = stage.send(fork, "for the fork");
    let request = talk.request_with("| for the fork");
    assert_eq!(request.count("for luna alone"), 0);
    let _ = news.wait("presented", &id);
    tui.close();
}

/// The conversation goes on in the same thread, with less in it.
#[test]
fn a_conversation_that_is_compacted_is_reached_as_before() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    let talk = stage.model.talk("luna-begin", [say("begun")]);
    tui.submit("luna-begin");
    tui.wait_for("begun");
    tui.wait_for("Worked for");
    tui.submit("/compact");
    tui.wait_for("compacted");
    let later = stage.model.talk("after that", [say("read")]);
    talk.then([say("read")]);
    let id = stage.send("luna", "after that");
    tui.wait_for("read");
    let _ = news.wait("presented", &id);
    let shown: usize = later
        .requests()
        .iter()
        .chain(&talk.requests())
        .map(|request| request.count("| after that"))
        .sum();
    assert_eq!(shown, 1);
    assert_eq!(stage.trace(&id), ["stored", "offered app_server", "presented app_server"]);
    tui.close();
}

/// Codex forgets what was steered into a turn that is then interrupted.
#[test]
fn a_turn_that_is_interrupted_loses_nothing() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let pipe = Pipe::new(&stage, "one");
    let talk = stage.model.talk("luna-begin", [call(Call::shell("cat one")), say("spoken")]);
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    tui.submit("luna-begin");
    let running = pipe.opened();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("offered", &id);
    tui.key("Escape");
    tui.wait_for("interrupted");
    drop(running);
    assert_eq!(talk.request_with("| which bcrypt?").count("| which bcrypt?"), 1);
    tui.wait_for("spoken");
    let _ = news.wait("presented", &id);
    assert_eq!(
        stage.trace(&id),
        ["stored", "offered app_server", "offered app_server", "presented app_server"]
    );
    tui.close();
}

/// Its adapter and its thread live on in the daemon for a while, and nobody would see what they do.
#[test]
fn a_closed_terminal_is_no_reader_and_is_not_woken() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let news = stage.news();
    let first = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    let talk = stage.model.talk("luna-begin", [say("begun")]);
    first.submit("luna-begin");
    talk.request(0);
    first.wait_for("begun");
    first.close();
    news.wait_offline("luna");
    let id = stage.send("luna", "anybody there?");
    assert_eq!(stage.trace(&id), ["stored"]);
    // Whoever opens a terminal of that name has its mail.
    let talk = stage.model.talk("anybody there", [say("here")]);
    let second = stage.codex().name("luna").terminal();
    assert_eq!(talk.request(0).count("| anybody there?"), 1);
    second.wait_for("here");
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered app_server", "presented app_server"]);
    second.close();
}

/// What runs is read by somebody, and what rests is not.
#[test]
fn a_terminal_that_is_closed_while_its_turn_runs_is_offline_when_that_ends() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let pipe = Pipe::new(&stage, "one");
    let talk =
        stage.model.talk("luna-begin", [call(Call::shell("cat one")), say("nobody sees it")]);
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    tui.submit("luna-begin");
    let running = pipe.opened();
    tui.close();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("offered", &id);
    drop(running);
    assert_eq!(talk.request(1).count("| which bcrypt?"), 1);
    let _ = news.wait("presented", &id);
    news.wait_offline("luna");
}

/// A terminal with a server of its own has no control socket, and its hooks tell which conversation
/// it is in.
#[test]
fn a_terminal_with_its_own_server_that_is_cleared_has_its_mail() {
    let stage = peer_tests::stage!();
    let news = stage.news();
    let tui = stage.codex().name("luna").hooked().terminal();
    news.wait_online("luna");
    let before = online(&stage);
    for turn in ["first-begin", "second-begin", "third-begin"] {
        let pipe = Pipe::new(&stage, turn);
        let cat = format!("cat {turn}");
        let talk = stage.model.talk(turn, [call(Call::shell(&cat)), say(&format!("{turn} done"))]);
        tui.submit(turn);
        let running = pipe.opened();
        let id = stage.send("luna", &format!("in the {turn}"));
        drop(running);
        assert_eq!(talk.request(1).count(&format!("| in the {turn}")), 1);
        let _ = news.wait("presented", &id);
        assert_eq!(stage.trace(&id), ["stored", "offered hook", "presented hook"]);
        tui.wait_for(&format!("{turn} done"));
        tui.wait_for("Worked for");
        tui.submit("/clear");
        tui.wait_until(|screen| !screen.contains("Worked for")).expect("the screen is cleared");
    }
    let after = online(&stage);
    assert_eq!(
        (after.len(), &after[0]["id"], &after[0]["name"]),
        (1, &before[0]["id"], &json!("luna")),
        "{after:#?}"
    );
    tui.close();
}

/// The person said that nobody needs to watch.
#[test]
fn a_closed_terminal_is_woken_where_the_person_allowed_it() {
    let stage = peer_tests::stage!();
    stage.home.configure("[adapter]\nwake_unattended = true\n");
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    let talk = stage.model.talk("luna-begin", [say("begun")]);
    tui.submit("luna-begin");
    talk.request(0);
    tui.wait_for("begun");
    tui.close();
    talk.then([say("unattended")]);
    let id = stage.send("luna", "anybody there?");
    assert_eq!(talk.request_with("anybody there?").count("| anybody there?"), 1);
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered app_server", "presented app_server"]);
}

/// What was taken by a server that then died had been shown to nobody.
#[test]
fn mail_for_an_app_server_that_is_gone_is_not_taken_for_seen() {
    let stage = peer_tests::stage!();
    stage.leave_only("app_server");
    let gate = Gate::new();
    let talk =
        stage.model.talk("luna-begin", [call(Call::shell("true")).held(&gate), say("never")]);
    let news = stage.news();
    let tui = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    tui.submit("luna-begin");
    talk.request(0);
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("offered", &id);
    let daemon = online(&stage)[0]["client_pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok())
        .expect("a peer has a client");
    kill(Pid::from_raw(daemon), Signal::SIGKILL).expect("kill the daemon");
    news.wait_offline("luna");
    assert_eq!(
        stage.home.peerctl(&["inbox", "luna", "--json"]).success().json()[0]["id"],
        json!(id),
        "it waits"
    );
    gate.open();
    tui.close();
    let talk = stage.model.talk("which bcrypt", [say("this one")]);
    let second = stage.codex().name("luna").terminal();
    let request = talk.request(0);
    assert_eq!(request.count("| which bcrypt?"), 1);
    assert!(request.shows("(shown before)"), "it may have been seen, and the repeat says so");
    second.wait_for("this one");
    let _ = news.wait("presented", &id);
    second.close();
}
