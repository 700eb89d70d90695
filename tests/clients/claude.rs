//! Claude Code itself: every way into its model, alone and in order, and what each of them proves.

use std::time::Instant;

use peer_tests::clients::{Call, Claude, Gate, Stage, call, calls, given, hostile_body, latency, say};
use serde_json::{Value, json};

/// What `peerctl setup` writes into the client's hooks, for the server of the test's own configuration.
fn hooks() -> Value {
    let fields = [
        "hook_event_name",
        "session_id",
        "transcript_path",
        "cwd",
        "permission_mode",
        "prompt_id",
        "agent_id",
        "tool_use_id",
        "source",
        "stop_hook_active",
    ];
    let input: Value = fields
        .iter()
        .map(|field| ((*field).to_owned(), json!(format!("${{{field}}}"))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let tool = json!([{"hooks": [{"type": "mcp_tool", "server": "peers", "tool": "hook", "input": input}]}]);
    let command = |event: &str| json!([{"hooks": [{"type": "command", "command": format!("peerctl hook claude {event}")}]}]);
    json!({"hooks": {
        "SessionStart": command("SessionStart"),
        "UserPromptSubmit": tool,
        "PreToolUse": [{"matcher": "mcp__.*peers.*", "hooks": tool[0]["hooks"]}],
        "PostToolBatch": tool,
        "Stop": tool,
        "SessionEnd": command("SessionEnd"),
    }})
}

/// `claude -p` runs a command, and a message is sent while the model's answer, which calls another one, is on its way.
/// Nothing but `carrier` is there to carry it. Returns what the message was, and where in the talk it was shown.
fn carried_between_two_calls(stage: &Stage, carrier: &str) -> (String, Vec<usize>) {
    stage.leave_only(carrier);
    let (second, third) = (Gate::new(), Gate::new());
    let steps = [
        call(Call::shell("echo one")),
        call(Call::shell("echo two")).held(&second),
        call(Call::shell("echo three")).held(&third),
        say("done"),
    ];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let running = stage.claude().name("luna").settings(hooks()).print("luna-begin");
    talk.request(1);
    let sent = Instant::now();
    let id = stage.send("luna", "which bcrypt?");
    second.open();
    let request = talk.request_with("| which bcrypt?");
    latency("claude", carrier, sent, &request);
    third.open();
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    let shown = talk
        .requests()
        .iter()
        .enumerate()
        .filter(|(_, request)| request.count("| which bcrypt?") > 0)
        .map(|(at, _)| at)
        .collect();
    for request in talk.requests() {
        assert!(request.count("| which bcrypt?") <= 1, "it was shown twice");
    }
    (id, shown)
}

#[test]
fn the_inbox_socket_carries_between_two_calls() {
    let stage = peer_tests::stage!();
    let (id, shown) = carried_between_two_calls(&stage, "inbox_socket");
    assert_eq!(shown, [2, 3]);
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket", "presented inbox_socket"]);
}

#[test]
fn a_hook_carries_between_two_calls() {
    let stage = peer_tests::stage!();
    let (id, shown) = carried_between_two_calls(&stage, "hook");
    assert_eq!(shown, [2, 3]);
    assert_eq!(stage.trace(&id), ["stored", "offered hook", "presented hook"]);
}

#[test]
fn a_tool_result_carries_where_nothing_else_does_and_the_record_proves_it() {
    let stage = peer_tests::stage!();
    stage.leave_only("tool_result");
    let gate = Gate::new();
    let steps = [
        call(Call::shell("true")),
        call(Call::peers("list_peers", json!({}))).held(&gate),
        call(Call::shell("true")),
        say("done"),
    ];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let running = stage.claude().name("luna").print("luna-begin");
    talk.request(1);
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    let request = talk.request_with("| which bcrypt?");
    assert_eq!(request.results().last().map(|result| result.text.contains("| which bcrypt?")), Some(true));
    let told = news.wait("presented", &id);
    assert_eq!(told["reason"], "transcript", "{told}");
    let _ = running.wait().success();
    assert_eq!(stage.trace(&id), ["stored", "offered tool_result", "presented tool_result"]);
}

/// The model asked for both before it saw either's result.
#[test]
fn two_calls_in_one_message_do_not_prove_each_other() {
    let stage = peer_tests::stage!();
    stage.leave_only("tool_result");
    let (gate, last) = (Gate::new(), Gate::new());
    let list = || Call::peers("list_peers", json!({}));
    let steps = [call(Call::shell("true")), calls([list(), list()]).held(&gate), say("done").held(&last)];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let running = stage.claude().name("luna").print("luna-begin");
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

/// Nobody has typed anything into it, and no hook has told of its mode.
#[test]
fn the_inbox_socket_wakes_a_session_that_never_had_a_prompt() {
    let stage = peer_tests::stage!();
    stage.leave_only("inbox_socket");
    let talk = stage.model.talk("wake up", [say("woken")]);
    let news = stage.news();
    let tui = stage.claude().name("luna").terminal();
    news.wait_online("luna");
    let id = stage.send("luna", "wake up, luna");
    let request = talk.request(0);
    assert_eq!(request.count("| wake up, luna"), 1);
    assert!(request.shows("From peerd, the mailbox"), "it is said who speaks");
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket", "presented inbox_socket"]);
    tui.close();
}

#[test]
fn the_inbox_socket_wakes_an_idle_session() {
    let stage = peer_tests::stage!();
    stage.leave_only("inbox_socket");
    let talk = stage.model.talk("luna-begin", [say("ready")]);
    let news = stage.news();
    let tui = stage.claude().name("luna").settings(hooks()).terminal();
    tui.submit("luna-begin");
    tui.wait_for("ready");
    talk.then([say("woken")]);
    let sent = Instant::now();
    let id = stage.send("luna", "wake up, luna");
    let request = talk.request_with("| wake up, luna");
    latency("claude", "inbox_socket (idle)", sent, &request);
    tui.wait_for("woken");
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket", "presented inbox_socket"]);
    tui.close();
}

/// A subagent's calls carry the parent's session, and neither carry its mail nor prove it.
fn a_subagent_leaves_its_parents_mail(carrier: &str, settings: Value) {
    let stage = peer_tests::stage!();
    stage.leave_only(carrier);
    let (gate, parent) = (Gate::new(), Gate::new());
    let list = || call(Call::peers("list_peers", json!({})));
    let agent =
        json!({"description": "look", "prompt": "sub-begin", "subagent_type": "general-purpose", "run_in_background": false});
    let steps = [call(Call::named("Agent", agent)), list().held(&parent), say("parent done")];
    let talk = stage.model.talk("luna-begin", steps);
    let sub = stage.model.talk("sub-begin", [list(), list().held(&gate), list(), say("sub done")]);
    let news = stage.news();
    let running = stage.claude().name("luna").settings(settings).print("luna-begin");
    sub.request(1);
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    sub.request(3);
    let request = talk.request(1);
    for request in sub.requests() {
        assert_eq!(request.count("which bcrypt?"), 0, "the subagent was shown its parent's mail");
    }
    parent.open();
    let shown = if request.count("which bcrypt?") > 0 { request } else { talk.request(2) };
    assert_eq!(shown.count("| which bcrypt?"), 1);
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    assert_eq!(stage.trace(&id), ["stored".to_owned(), format!("offered {carrier}"), format!("presented {carrier}")]);
}

#[test]
fn a_subagent_that_calls_our_tools_does_not_swallow_what_a_hook_carries() {
    a_subagent_leaves_its_parents_mail("hook", hooks());
}

#[test]
fn a_subagent_that_calls_our_tools_does_not_swallow_what_a_tool_result_carries() {
    a_subagent_leaves_its_parents_mail("tool_result", hooks());
}

/// The client's records tell whose call it is.
#[test]
fn a_subagent_that_calls_our_tools_does_not_swallow_its_parents_mail_where_no_hook_tells() {
    a_subagent_leaves_its_parents_mail("tool_result", json!({}));
}

/// Each time the client goes on under another id of its own, and nobody but its hooks and its registry tells.
fn stays_the_same_peer_when_cleared_twice(settings: Value) {
    let stage = peer_tests::stage!();
    let talk = stage.model.talk("luna-begin", [say("ready")]);
    let tui = stage.claude().name("luna").settings(settings).terminal();
    tui.submit("luna-begin");
    tui.wait_for("ready");
    talk.request(0);
    let before = stage.home.peerctl(&["peers", "luna", "--json"]).success().json();
    for turn in ["first-turn", "second-turn"] {
        tui.submit("/clear");
        tui.wait_for("❯");
        let talk = stage.model.talk(turn, [call(Call::peers("list_peers", json!({}))), say(&format!("{turn} done"))]);
        let news = stage.news();
        tui.submit(turn);
        talk.request(1);
        let id = stage.send("luna", &format!("after {turn}"));
        talk.then([call(Call::peers("list_peers", json!({}))), say("and again")]);
        tui.wait_for(&format!("{turn} done"));
        tui.submit("once more");
        talk.request_with(&format!("| after {turn}"));
        let _ = news.wait("presented", &id);
    }
    let after = stage.home.peerctl(&["peers", "--json"]).success().json();
    let after: Vec<&Value> = after.as_array().expect("peers are listed").iter().filter(|peer| peer["name"] != "human").collect();
    assert_eq!(after.len(), 1, "{after:#?}");
    assert_eq!((&after[0]["id"], &after[0]["name"]), (&before[0]["id"], &json!("luna")));
    tui.close();
}

#[test]
fn a_session_that_is_cleared_twice_stays_the_same_peer() {
    stays_the_same_peer_when_cleared_twice(hooks());
}

#[test]
fn a_session_that_is_cleared_twice_without_hooks_stays_the_same_peer() {
    stays_the_same_peer_when_cleared_twice(json!({}));
}

/// The client takes the flag and, without its maker's say, loads no channel: what is sent there is dropped silently.
#[test]
fn a_channel_that_is_not_loaded_is_not_taken_for_seen() {
    let stage = peer_tests::stage!();
    let config = "[adapter]\ncarriers_off = [\"inbox_socket\", \"hook\"]\n[limits]\nvisibility_timeout_ms = 1000\n";
    stage.home.configure(config);
    let gate = Gate::new();
    let talk = stage.model.talk("luna-begin", [call(Call::shell("true")), call(Call::shell("true")).held(&gate)]);
    // The model calls a tool of ours again and again, until the channel has had its time.
    talk.then((0..200).map(|_| {
        given(|request| match request.shows("| which bcrypt?") {
            true => say("done"),
            false => call(Call::peers("list_peers", json!({}))),
        })
    }));
    let news = stage.news();
    let channel = ["--dangerously-load-development-channels", "server:peers"];
    let running = stage.claude().name("luna").args(channel).print("luna-begin");
    talk.request(1);
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("offered", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered channel"]);
    gate.open();
    let request = talk.request_with("| which bcrypt?");
    assert!(request.shows("(shown before)"), "a repeat says so");
    assert!(talk.requests().len() > 3, "what the channel had was at once shown by another way");
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    assert_eq!(stage.trace(&id), ["stored", "offered channel", "offered tool_result", "presented tool_result"]);
}

/// A body that forges what stands around it, by each way into the model.
fn quotes_a_hostile_message(carrier: &str) {
    let stage = peer_tests::stage!();
    stage.leave_only(carrier);
    let gate = Gate::new();
    let talk = stage.model.talk("luna-begin", [call(Call::shell("true")), call(Call::shell("true")).held(&gate), say("done")]);
    let running = stage.claude().name("luna").settings(hooks()).print("luna-begin");
    talk.request(1);
    let id = stage.send("luna", &hostile_body("EVIL"));
    gate.open();
    let request = talk.request_with(&id);
    request.assert_quoted("EVIL");
    let _ = running.wait().success();
}

#[test]
fn the_inbox_socket_quotes_a_hostile_message() {
    quotes_a_hostile_message("inbox_socket");
}

#[test]
fn a_hook_quotes_a_hostile_message() {
    quotes_a_hostile_message("hook");
}

/// What comes while the model ends its turn is shown to it before the session rests.
#[test]
fn a_stop_hook_carries_what_came_last() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let gate = Gate::new();
    let talk = stage.model.talk("luna-begin", [say("first").held(&gate), say("second")]);
    let news = stage.news();
    let running = stage.claude().name("luna").settings(hooks()).print("luna-begin");
    talk.request(0);
    let id = stage.send("luna", "before you go");
    gate.open();
    assert_eq!(talk.request(1).count("| before you go"), 1);
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
}

/// What waited for a session before it began is in the request that its first prompt makes.
#[test]
fn a_hook_carries_what_waited_before_the_first_prompt() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let _ = stage.claude().name("luna").settings(hooks()).print("an earlier session").wait().success();
    let id = stage.send("luna", "for later");
    let talk = stage.model.talk("luna-begin", [say("done")]);
    let news = stage.news();
    let running = stage.claude().name("luna").settings(hooks()).print("luna-begin");
    assert_eq!(talk.request(0).count("| for later"), 1);
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
}

/// The client lets its own child's posts pass where it holds strangers' ones: peerd must not be a way around that dialog.
fn is_not_posted_to_before_the_person_says_yes(mode: &str, options: &[&str]) {
    let stage = peer_tests::stage!();
    let talk = stage.model.talk("luna-begin", [say("ready")]);
    let news = stage.news();
    let tui = stage.claude().name("luna").permission_mode(mode).args(options.iter().copied()).settings(hooks()).terminal();
    tui.submit("luna-begin");
    tui.wait_for("ready");
    let id = stage.send("luna", "not by that way");
    talk.then([say("second")]);
    tui.submit("go on");
    let request = talk.request_with("| not by that way");
    assert!(!request.shows("Another Claude session"), "it came through the socket");
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered hook", "presented hook"]);
    tui.wait_for("second");

    let _ = stage.home.peerctl(&["policy", "inbox-socket", "allow"]).success();
    talk.then([say("third")]);
    let id = stage.send("luna", "by that way");
    talk.request_with("| by that way");
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket", "presented inbox_socket"]);
    tui.close();
}

#[test]
fn a_session_that_bypasses_permissions_is_not_posted_to_before_the_person_says_yes() {
    is_not_posted_to_before_the_person_says_yes("bypassPermissions", &[]);
}

/// The press of a key would lead there, and nobody would tell.
#[test]
fn a_session_that_may_come_to_bypass_permissions_is_not_posted_to_before_the_person_says_yes() {
    is_not_posted_to_before_the_person_says_yes("default", &["--allow-dangerously-skip-permissions"]);
}

/// The person's own settings of the client close one way after the other.
#[test]
fn with_each_way_closed_the_next_one_carries() {
    let closed = json!({"disableAllHooks": true});
    let mut refusing = hooks();
    refusing["crossSessionInbound"] = json!("refuse");
    let both = json!({"disableAllHooks": true, "crossSessionInbound": "refuse"});
    for (settings, variable, expected) in [
        (hooks(), "UNUSED", vec!["stored", "offered inbox_socket", "presented inbox_socket"]),
        (closed.clone(), "UNUSED", vec!["stored", "offered inbox_socket", "presented inbox_socket"]),
        // Nothing tells that the post was dropped but that nobody saw it.
        (refusing, "UNUSED", vec!["stored", "offered inbox_socket", "offered hook", "presented hook"]),
        (both, "UNUSED", vec!["stored", "offered inbox_socket", "offered tool_result", "presented tool_result"]),
        // The client hands its socket down to nobody.
        (hooks(), "CLAUDE_CODE_MCP_ALLOWLIST_ENV", vec!["stored", "offered hook", "presented hook"]),
        (closed, "CLAUDE_CODE_MCP_ALLOWLIST_ENV", vec!["stored", "offered tool_result", "presented tool_result"]),
    ] {
        let stage = peer_tests::stage!();
        stage.home.configure("[limits]\nvisibility_timeout_ms = 1000\n");
        let gate = Gate::new();
        let talk = stage.model.talk("luna-begin", [call(Call::shell("true")), call(Call::shell("true")).held(&gate)]);
        // The model calls a tool again and again, one of ours only where nothing else is left.
        let by_result = expected.last().is_some_and(|last| last.contains("tool_result"));
        talk.then((0..200).map(|_| {
            given(move |request| match (request.shows("| which bcrypt?"), by_result) {
                (true, _) => say("done"),
                (false, true) => call(Call::peers("list_peers", json!({}))),
                (false, false) => call(Call::shell("true")),
            })
        }));
        let news = stage.news();
        let running = stage.claude().name("luna").settings(settings.clone()).env(variable, "1").print("luna-begin");
        talk.request(1);
        // Where it hands down so little, its name does not arrive either.
        let peers = stage.home.peerctl(&["peers", "--json"]).success().json();
        let mut names = peers.as_array().into_iter().flatten().filter_map(|peer| peer["name"].as_str());
        let name = names.find(|name| *name != "human").expect("the session is listed");
        let id = stage.send(name, "which bcrypt?");
        gate.open();
        talk.request_with("| which bcrypt?");
        let _ = news.wait("presented", &id);
        let _ = running.wait().success();
        for request in talk.requests() {
            assert!(request.count("| which bcrypt?") <= 1, "{settings} {variable}: it was shown twice");
        }
        assert_eq!(stage.trace(&id), expected, "{settings} {variable}");
    }
}

/// Everything is there to carry them, all at once.
#[test]
fn a_burst_is_shown_once_and_in_order() {
    let stage = peer_tests::stage!();
    let gate = Gate::new();
    let steps = [call(Call::shell("true")), call(Call::peers("list_peers", json!({}))).held(&gate)];
    let talk = stage.model.talk("luna-begin", steps);
    talk.then((0..200).map(|_| {
        given(|request| match request.shows("| message 19 of it") {
            true => say("done"),
            false => call(Call::shell("true")),
        })
    }));
    let news = stage.news();
    let running = stage.claude().name("luna").settings(hooks()).print("luna-begin");
    talk.request(1);
    let ids: Vec<String> = (0..20).map(|number| stage.send("luna", &format!("message {number} of it"))).collect();
    gate.open();
    for id in &ids {
        let _ = news.wait("presented", id);
    }
    let _ = running.wait().success();
    let requests = talk.requests();
    let shown: String = requests.last().expect("there are requests").shown().into_iter().map(|shown| shown.text + "\n").collect();
    let places: Vec<Option<usize>> = (0..20).map(|number| shown.find(&format!("| message {number} of it"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    for number in 0..20 {
        assert_eq!(shown.matches(&format!("| message {number} of it")).count(), 1, "message {number}");
    }
}

/// The client's own session id finds the mailbox again; a copy of the session is somebody else.
#[test]
fn a_resumed_session_is_the_same_peer_and_a_fork_is_not() {
    let stage = peer_tests::stage!();
    let session = "0b5e1a52-6d5c-4b57-9a3e-1f2a3b4c5d6e";
    let talk = stage.model.talk("first-begin", []);
    let who = |prompt: &str, options: &[&str]| {
        talk.then([call(Call::peers("list_peers", json!({}))), say("done")]);
        let _ = stage.claude().settings(hooks()).args(options.iter().copied()).print(prompt).wait().success();
        let result = talk.requests().last().and_then(|request| request.results().pop()).expect("a tool was called").text;
        // The session itself is listed first.
        let at = result.find("(p-").unwrap_or_else(|| panic!("no peer in {result}"));
        result[at..].split([',', ')', ' ']).next().unwrap_or_default().to_owned()
    };
    let first = who("first-begin", &["--session-id", session]);
    let again = who("go on", &["--resume", session]);
    let fork = who("go elsewhere", &["--resume", session, "--fork-session"]);
    assert_eq!(first, again);
    assert_ne!(first, fork);
}

/// The client hands a post over when the tool has run, which takes longer than a carrier has time.
fn waits_for_a_long_tool<Running>(start: impl FnOnce(Claude<'_>) -> Running) {
    let stage = peer_tests::stage!();
    stage.home.configure("[limits]\nvisibility_timeout_ms = 500\n");
    let steps = [call(Call::shell("sleep 2")), call(Call::shell("true")), call(Call::shell("true")), say("done with it")];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let running = start(stage.claude().name("luna").settings(hooks()));
    talk.request(0);
    let id = stage.send("luna", "which bcrypt?");
    assert_eq!(talk.request(3).count("| which bcrypt?"), 1);
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket", "presented inbox_socket"]);
    drop(running);
}

#[test]
fn a_post_waits_for_a_long_tool_and_is_shown_once() {
    waits_for_a_long_tool(|claude| claude.print("luna-begin"));
}

#[test]
fn a_post_waits_for_a_long_tool_in_a_terminal_and_is_shown_once() {
    waits_for_a_long_tool(|claude| {
        let terminal = claude.terminal();
        terminal.submit("luna-begin");
        terminal
    });
}

/// Escape ends the turn; what the client had queued must neither get lost nor be taken for seen.
#[test]
fn a_turn_that_is_interrupted_loses_nothing() {
    let stage = peer_tests::stage!();
    stage.leave_only("inbox_socket");
    let gate = Gate::new();
    let talk = stage.model.talk("luna-begin", [call(Call::shell("true")), say("never heard").held(&gate)]);
    let news = stage.news();
    let tui = stage.claude().name("luna").settings(hooks()).terminal();
    tui.submit("luna-begin");
    talk.request(1);
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("offered", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket"]);
    talk.then([say("heard it")]);
    tui.key("Escape");
    gate.open();
    let request = talk.request_with("| which bcrypt?");
    assert_eq!(request.count("| which bcrypt?"), 1);
    let _ = news.wait("presented", &id);
    tui.close();
}

/// The client dies with the message in its hands; whoever sits in that seat next is shown it, and told that it may be a repeat.
#[test]
fn a_client_that_dies_leaves_its_mail_to_the_next_session() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let (gate, never) = (Gate::new(), Gate::new());
    let steps = [call(Call::shell("true")), call(Call::shell("true")).held(&gate), say("never heard").held(&never)];
    let talk = stage.model.talk("first-begin", steps);
    let news = stage.news();
    let running = stage.claude().name("luna").settings(hooks()).print("first-begin");
    talk.request(1);
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    talk.request_with("| which bcrypt?");
    drop(running);
    let talk = stage.model.talk("second-begin", [say("done")]);
    let running = stage.claude().name("luna").settings(hooks()).print("second-begin");
    let request = talk.request_with("| which bcrypt?");
    assert!(request.shows("(shown before)"), "a repeat says so");
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    assert_eq!(stage.trace(&id), ["stored", "offered hook", "returned", "offered hook", "presented hook"]);
}

/// A plugin and an entry of the person's own, say: both adapters belong to one client process.
#[test]
fn two_adapters_of_one_session_are_one_peer_and_show_a_message_once() {
    let stage = peer_tests::stage!();
    let peers = json!({"type": "stdio", "command": stage.peerctl(), "args": ["mcp"]});
    let config = json!({"mcpServers": {"peers": peers, "again": peers}}).to_string();
    let gate = Gate::new();
    let again = |tool: &str| Call::named(&format!("mcp__again__{tool}"), json!({}));
    let steps = [
        call(Call::shell("true")),
        calls([Call::named("mcp__peers__list_peers", json!({})), again("list_peers")]).held(&gate),
        call(again("set_summary")),
        say("done"),
    ];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let claude = stage.claude().name("luna").settings(hooks()).unwired();
    let options = ["--mcp-config", &config, "--strict-mcp-config", "--allowedTools", "mcp__peers,mcp__again,Bash"];
    let running = claude.args(options).print("luna-begin");
    talk.request(1);
    let listed = stage.home.peerctl(&["peers", "--json"]).success().json();
    let names: Vec<&str> = listed.as_array().into_iter().flatten().filter_map(|peer| peer["name"].as_str()).collect();
    assert_eq!(names, ["luna"]);
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    let last = talk.requests().pop().expect("there are requests");
    assert_eq!(last.count("| which bcrypt?"), 1);
    assert!(!last.shows("more waits"), "the one that takes no mail says that some waits");
}

/// The conversation is summed up and goes on under the same id.
#[test]
fn a_session_that_is_compacted_is_reached_as_before() {
    let stage = peer_tests::stage!();
    let talk = stage.model.talk("luna-begin", [say("ready")]);
    let news = stage.news();
    let tui = stage.claude().name("luna").settings(hooks()).terminal();
    tui.submit("luna-begin");
    tui.wait_for("ready");
    // The summary is asked for in the same conversation.
    talk.then([say("<summary>luna-begin, and nothing else</summary>"), say("woken")]);
    tui.submit("/compact");
    tui.wait_for("ompacted");
    let after = stage.model.talk("wake up, luna", [say("woken")]);
    let id = stage.send("luna", "wake up, luna");
    let _ = news.wait("presented", &id);
    tui.wait_for("woken");
    drop(after);
    tui.close();
}

/// The registry and the records are where the person moved them.
#[test]
fn a_client_whose_files_were_moved_is_reached_all_the_same() {
    let stage = peer_tests::stage!();
    stage.leave_only("inbox_socket");
    let gate = Gate::new();
    let steps = [call(Call::shell("true")), call(Call::shell("true")).held(&gate), say("done")];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let elsewhere = stage.home.root().join("elsewhere");
    let claude = stage.claude().name("luna").env("CLAUDE_CONFIG_DIR", &elsewhere.to_string_lossy());
    let running = claude.print("luna-begin");
    talk.request(1);
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    talk.request_with("| which bcrypt?");
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket", "presented inbox_socket"]);
}

/// Another hook of the person's refuses the prompt, and the client drops what ours said to it without a word.
#[test]
fn what_a_refused_prompt_took_with_it_is_not_taken_for_seen() {
    let stage = peer_tests::stage!();
    let config = "[adapter]\ncarriers_off = [\"inbox_socket\", \"channel\"]\n[limits]\nvisibility_timeout_ms = 500\n";
    stage.home.configure(config);
    let mut settings = hooks();
    let refuse = r#"grep -q forbidden && echo '{"decision":"block","reason":"not that"}' || true"#;
    let ours = settings["hooks"]["UserPromptSubmit"][0].clone();
    settings["hooks"]["UserPromptSubmit"] = json!([ours, {"hooks": [{"type": "command", "command": refuse}]}]);
    let talk = stage.model.talk("luna-begin", []);
    talk.then((0..200).map(|_| {
        given(|request| match request.shows("| which bcrypt?") {
            true => say("done with it"),
            false => call(Call::shell("true")),
        })
    }));
    let news = stage.news();
    let tui = stage.claude().name("luna").settings(settings).terminal();
    news.wait_online("luna");
    let id = stage.send("luna", "which bcrypt?");
    tui.submit("forbidden");
    tui.wait_for("not that");
    assert_eq!(stage.trace(&id), ["stored", "offered hook"]);
    tui.key("C-u");
    tui.submit("luna-begin");
    let request = talk.request_with("| which bcrypt?");
    assert!(request.shows("(shown before)"), "nobody knows that it was not");
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered hook", "offered hook", "presented hook"]);
    tui.wait_for("done with it");
    tui.close();
}
