//! Claude Code itself: every way into its model, alone and in order, and what each of them proves.

use std::time::Instant;

use peer_tests::clients::{
    Call, Claude, Gate, Stage, call, calls, given, hostile_body, latency, say,
};
use serde_json::{Value, json};

/// What `peerctl setup` writes into the client's hooks, for the server of the test's own
/// configuration.
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

/// `claude -p` runs a command, and a message is sent while the model's answer, which calls another
/// one, is on its way. Nothing but `carrier` is there to carry it. Returns what the message was,
/// and where in the talk it was shown.
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
    assert_eq!(
        request.results().last().map(|result| result.text.contains("| which bcrypt?")),
        Some(true)
    );
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
    let steps =
        [call(Call::shell("true")), calls([list(), list()]).held(&gate), say("done").held(&last)];
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
    assert!(request.shows("From peerd, which carries messages"), "it is said who speaks");
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
    // What the client says below its answer when the turn is over.
    tui.wait_for("· done");
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
    let agent = json!({"description": "look", "prompt": "sub-begin", "subagent_type": "general-purpose", "run_in_background": false});
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
    assert_eq!(
        stage.trace(&id),
        ["stored".to_owned(), format!("offered {carrier}"), format!("presented {carrier}")]
    );
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

/// The client takes the flag and, without its maker's say, loads no channel: what is sent there is
/// dropped silently.
#[test]
fn a_channel_that_is_not_loaded_is_not_taken_for_seen() {
    let stage = peer_tests::stage!();
    let config = "[adapter]\ncarriers_off = [\"inbox_socket\", \"hook\"]\n[limits]\nvisibility_timeout_ms = 1000\n";
    stage.home.configure(config);
    let gate = Gate::new();
    let talk = stage
        .model
        .talk("luna-begin", [call(Call::shell("true")), call(Call::shell("true")).held(&gate)]);
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
    assert_eq!(
        stage.trace(&id),
        ["stored", "offered channel", "offered tool_result", "presented tool_result"]
    );
}

/// A body that forges what stands around it, by each way into the model.
fn quotes_a_hostile_message(carrier: &str) {
    let stage = peer_tests::stage!();
    stage.leave_only(carrier);
    let gate = Gate::new();
    let talk = stage.model.talk(
        "luna-begin",
        [call(Call::shell("true")), call(Call::shell("true")).held(&gate), say("done")],
    );
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
    let _ =
        stage.claude().name("luna").settings(hooks()).print("an earlier session").wait().success();
    let id = stage.send("luna", "for later");
    let talk = stage.model.talk("luna-begin", [say("done")]);
    let news = stage.news();
    let running = stage.claude().name("luna").settings(hooks()).print("luna-begin");
    assert_eq!(talk.request(0).count("| for later"), 1);
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
}

/// The client lets its own child's posts pass where it holds strangers' ones: peerd must not be a
/// way around that dialog.
fn is_not_posted_to_before_the_person_says_yes(mode: &str, options: &[&str]) {
    let stage = peer_tests::stage!();
    let talk = stage.model.talk("luna-begin", [say("ready")]);
    let news = stage.news();
    let tui = stage
        .claude()
        .name("luna")
        .permission_mode(mode)
        .args(options.iter().copied())
        .settings(hooks())
        .terminal();
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
    // It is on trial, and the hook of the prompt that it makes carries it as well.
    assert_eq!(stage.trace(&id)[..2], ["stored", "offered inbox_socket"]);
    tui.close();
}

#[test]
fn a_session_that_bypasses_permissions_is_not_posted_to_before_the_person_says_yes() {
    is_not_posted_to_before_the_person_says_yes("bypassPermissions", &[]);
}

/// The press of a key would lead there, and nobody would tell.
#[test]
fn a_session_that_may_come_to_bypass_permissions_is_not_posted_to_before_the_person_says_yes() {
    is_not_posted_to_before_the_person_says_yes(
        "default",
        &["--allow-dangerously-skip-permissions"],
    );
}

/// The person's own settings of the client close one way after the other.
#[test]
fn with_each_way_closed_the_next_one_carries() {
    let closed = json!({"disableAllHooks": true});
    let mut refusing = hooks();
    refusing["crossSessionInbound"] = json!("refuse");
    let both = json!({"disableAllHooks": true, "crossSessionInbound": "refuse"});
    for (settings, variable, expected) in [
        // The socket is on trial, so a hook or a result carries it as well.
        (hooks(), "UNUSED", vec!["stored", "offered inbox_socket", "offered hook"]),
        (
            closed.clone(),
            "UNUSED",
            vec!["stored", "offered inbox_socket", "presented inbox_socket"],
        ),
        // Nothing tells that the post was dropped.
        (
            refusing,
            "UNUSED",
            vec!["stored", "offered inbox_socket", "offered hook", "presented hook"],
        ),
        (
            both,
            "UNUSED",
            vec!["stored", "offered inbox_socket", "offered tool_result", "presented tool_result"],
        ),
        // The client hands its socket down to nobody.
        (
            hooks(),
            "CLAUDE_CODE_MCP_ALLOWLIST_ENV",
            vec!["stored", "offered hook", "presented hook"],
        ),
        (
            closed,
            "CLAUDE_CODE_MCP_ALLOWLIST_ENV",
            vec!["stored", "offered tool_result", "presented tool_result"],
        ),
    ] {
        let stage = peer_tests::stage!();
        stage.home.configure("[limits]\nvisibility_timeout_ms = 1000\n");
        let gate = Gate::new();
        let talk = stage
            .model
            .talk("luna-begin", [call(Call::shell("true")), call(Call::shell("true")).held(&gate)]);
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
        let running = stage
            .claude()
            .name("luna")
            .settings(settings.clone())
            .env(variable, "1")
            .print("luna-begin");
        talk.request(1);
        // Where it hands down so little, its name does not arrive either.
        let peers = stage.home.peerctl(&["peers", "--json"]).success().json();
        let mut names =
            peers.as_array().into_iter().flatten().filter_map(|peer| peer["name"].as_str());
        let name = names.find(|name| *name != "human").expect("the session is listed");
        let id = stage.send(name, "which bcrypt?");
        gate.open();
        talk.request_with("| which bcrypt?");
        let _ = news.wait("presented", &id);
        let _ = running.wait().success();
        let trace = stage.trace(&id);
        assert!(
            trace.iter().map(String::as_str).take(expected.len()).eq(expected.iter().copied()),
            "{settings}: {trace:?}"
        );
        let ways = trace.iter().filter(|step| step.starts_with("offered")).count();
        for request in talk.requests() {
            let (shown, marked) =
                (request.count("| which bcrypt?"), request.count("13 chars (shown before)"));
            assert!(
                shown <= ways && marked < 2 && (shown < 2 || marked == 1),
                "{settings} {variable}: shown {shown} times"
            );
        }
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
    let ids: Vec<String> =
        (0..20).map(|number| stage.send("luna", &format!("message {number} of it"))).collect();
    gate.open();
    for id in &ids {
        let _ = news.wait("presented", id);
    }
    let _ = running.wait().success();
    let requests = talk.requests();
    let shown: String = requests
        .last()
        .expect("there are requests")
        .shown()
        .into_iter()
        .map(|shown| shown.text + "\n")
        .collect();
    let places: Vec<Option<usize>> =
        (0..20).map(|number| shown.find(&format!("| message {number} of it"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    let counts: Vec<usize> =
        (0..20).map(|number| shown.matches(&format!("| message {number} of it")).count()).collect();
    // The first one may have been on trial.
    assert!(counts[0] <= 2 && counts[1..].iter().all(|count| *count == 1), "{counts:?}");
}

/// The client hands a post over when the tool has run, which takes longer than a carrier has time.
fn waits_for_a_long_tool<Running>(start: impl FnOnce(Claude<'_>) -> Running) {
    let stage = peer_tests::stage!();
    // A hook would carry what is on trial.
    stage.home.configure("[adapter]\ncarriers_off = [\"hook\", \"channel\"]\n[limits]\nvisibility_timeout_ms = 500\n");
    let steps = [
        call(Call::shell("sleep 2")),
        call(Call::shell("true")),
        call(Call::shell("true")),
        say("done with it"),
    ];
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

/// Another hook of the person's refuses the prompt, and the client drops what ours said to it
/// without a word.
#[test]
fn what_a_refused_prompt_took_with_it_is_not_taken_for_seen() {
    let stage = peer_tests::stage!();
    let config = "[adapter]\ncarriers_off = [\"inbox_socket\", \"channel\"]\n[limits]\nvisibility_timeout_ms = 500\n";
    stage.home.configure(config);
    let mut settings = hooks();
    let refuse = r#"grep -q forbidden && echo '{"decision":"block","reason":"not that"}' || true"#;
    let ours = settings["hooks"]["UserPromptSubmit"][0].clone();
    settings["hooks"]["UserPromptSubmit"] =
        json!([ours, {"hooks": [{"type": "command", "command": refuse}]}]);
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

/// The socket brings the beginning, and the model reads on with calls of its own.
#[test]
fn a_long_message_is_proved_when_the_model_has_read_all_of_it() {
    let stage = peer_tests::stage!();
    stage.leave_only("inbox_socket");
    let body: String = (0..600).map(|number| format!("line {number} of it\n")).collect();
    let gate = Gate::new();
    let talk = stage
        .model
        .talk("luna-begin", [call(Call::shell("true")), call(Call::shell("true")).held(&gate)]);
    talk.then((0..20).map(|_| {
        given(|request| {
            let shown: String =
                request.shown().into_iter().map(|shown| shown.text + "\n").collect();
            let Some((_, rest)) = shown.rsplit_once("check_messages(message_id=\"") else {
                return call(Call::shell("true"));
            };
            let (id, rest) = rest.split_once("\", offset=").expect("an offset follows");
            match rest.split_once(')').and_then(|(offset, _)| offset.parse::<u64>().ok()) {
                Some(_) if shown.contains("| line 599 of it") => say("done"),
                Some(offset) => {
                    call(Call::peers("check_messages", json!({"message_id": id, "offset": offset})))
                }
                None => say("no offset"),
            }
        })
    }));
    let news = stage.news();
    let running = stage.claude().name("luna").settings(hooks()).print("luna-begin");
    talk.request(1);
    let id = stage.send("luna", &body);
    gate.open();
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    let shown: String = talk
        .requests()
        .pop()
        .expect("there are requests")
        .shown()
        .into_iter()
        .map(|shown| shown.text)
        .collect();
    for line in ["| line 0 of it", "| line 599 of it"] {
        assert_eq!(shown.matches(line).count(), 1, "{line}");
    }
    assert_eq!(stage.trace(&id).last().map(String::as_str), Some("presented tool_result"));
}

/// An idle session is left in peace, and its next turn brings what came meanwhile.
#[test]
fn what_only_informs_wakes_nobody_and_rides_on_the_next_turn() {
    for settings in [hooks(), json!({})] {
        let stage = peer_tests::stage!();
        let talk = stage
            .model
            .talk("luna-begin", [say("ready"), call(Call::shell("sleep 2")), say("read it")]);
        let news = stage.news();
        let tui = stage.claude().name("luna").settings(settings).terminal();
        tui.submit("luna-begin");
        tui.wait_for("ready");
        // What the client says below its answer when the turn is over.
        tui.wait_for("· done");
        let sent = stage
            .home
            .peerctl(&["send", "luna", "--intent", "inform", "--json", "--", "just so you know"])
            .success()
            .json();
        let id = sent["id"].as_str().expect("a message has an id");
        let _ = news.wait("leased", id);
        assert_eq!(talk.requests().len(), 1, "nobody is woken by it");
        tui.submit("go on");
        let _ = news.wait("presented", id);
        tui.wait_for("read it");
        let requests = talk.requests();
        assert!(requests.iter().any(|request| request.shows("go on")), "the prompt was taken");
        assert_eq!(requests.last().map(|request| request.count("| just so you know")), Some(1));
        tui.close();
    }
}

/// The second message that would wake it finds that it was woken as often as it may be.
#[test]
fn a_session_is_woken_only_so_many_times() {
    let stage = peer_tests::stage!();
    stage.home.configure("[adapter]\nwakeups_per_hour = 1\n");
    let talk = stage.model.talk("wake up", [say("woken"), say("again")]);
    let news = stage.news();
    let tui = stage.claude().name("luna").settings(hooks()).terminal();
    news.wait_online("luna");
    let first = stage.send("luna", "wake up, luna");
    talk.request(0);
    let _ = news.wait("presented", &first);
    tui.wait_for("woken");
    tui.wait_for("· done");
    let second = stage.send("luna", "and once more");
    let _ = news.wait("leased", &second);
    tui.submit("what is new?");
    let request = talk.request(1);
    assert!(request.shows("what is new?") && request.count("| and once more") == 1);
    let _ = news.wait("presented", &second);
    assert_eq!(stage.trace(&second), ["stored", "offered hook", "presented hook"]);
    tui.close();
}
