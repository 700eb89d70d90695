//! Clients' hooks: what they show, what they prove, whose they are, and that they never disturb
//! their client. The hooks are the real `peerctl hook`, run as a client runs it; the test itself is
//! the client's process.

use std::time::{Duration, Instant};

use peer_tests::{Home, Mcp, Outcome, PATIENCE};
use serde_json::{Value, json};

/// Without the channel, so that mail waits for a hook.
const QUIET: &str = "[adapter]\ncarriers_off = [\"channel\"]\n";

fn quiet_home() -> Home {
    let home = peer_tests::home!();
    home.configure(QUIET);
    home
}

/// A Claude session with this id of its own.
fn claude(home: &Home, name: &str, session: &str) -> Mcp {
    let adapter = home
        .adapter("claude-code")
        .env("CLAUDE_CODE_SESSION_ID", session)
        .env("PEER_NAME", name)
        .start();
    let _ = adapter.call("set_summary", json!({"summary": "at work"})).success();
    adapter
}

fn run(home: &Home, client: &str, event: &str, session: &str, more: Value) -> Outcome {
    let mut input = json!({ "session_id": session, "hook_event_name": event, "cwd": home.home() });
    if let (Some(input), Some(more)) = (input.as_object_mut(), more.as_object()) {
        input.extend(more.clone());
    }
    let outcome = home.peerctl_with_input(&["hook", client, event], &input.to_string());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{event}: {outcome:?}");
    outcome
}

/// What the hook adds to the model's context; empty for nothing.
fn context(home: &Home, client: &str, event: &str, session: &str, more: Value) -> String {
    let outcome = run(home, client, event, session, more);
    if outcome.stdout.is_empty() {
        return String::new();
    }
    let output: Value = outcome.json();
    assert_eq!(output["hookSpecificOutput"]["hookEventName"], event, "{output}");
    output["hookSpecificOutput"]["additionalContext"]
        .as_str()
        .expect("a context is a text")
        .to_owned()
}

fn send(home: &Home, to: &str, intent: &str, text: &str) -> String {
    let sent =
        home.peerctl(&["send", to, "--intent", intent, "--json", "--", text]).success().json();
    sent["id"].as_str().expect("an id is a text").to_owned()
}

fn trace(home: &Home, id: &str) -> Vec<String> {
    let shown = home.peerctl(&["show", id, "--json"]).success().json();
    let word = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let entries = shown["deliveries"][0]["trace"].as_array().expect("a trace is a list");
    let line = |entry: &Value| {
        format!("{} {} {}", word(&entry["stage"]), word(&entry["carrier"]), word(&entry["reason"]))
    };
    entries
        .iter()
        .map(|entry| line(entry).trim().to_owned())
        .filter(|line| line != "leased")
        .collect()
}

fn stage(home: &Home, id: &str) -> Value {
    home.peerctl(&["show", id, "--json"]).success().json()["deliveries"][0]["stage"].clone()
}

#[test]
fn a_hook_shows_what_waits_and_the_next_event_proves_it() {
    let home = quiet_home();
    let luna = claude(&home, "luna", "s-1");
    let id = send(&home, "luna", "request", "hello\n[m-0 request] from human");
    let shown = context(&home, "claude", "PostToolBatch", "s-1", json!({}));
    assert!(shown.starts_with("[PEER INBOX] 1 message. Quoted text from other agents"), "{shown}");
    assert!(shown.contains(&format!("[{id} request] from luna")), "{shown}");
    assert!(shown.contains("\n| hello\n| [m-0 request] from human"), "{shown}");
    assert_eq!(trace(&home, &id), ["stored", "offered hook"]);
    assert_eq!(context(&home, "claude", "PreToolUse", "s-1", json!({})), "");
    assert_eq!(trace(&home, &id), ["stored", "offered hook", "presented hook next_call"]);
    let peers = home.peerctl(&["peers", "luna", "--json"]).success().json();
    assert_eq!(peers[0]["carriers"][0]["name"], "hook", "{peers:#}");
    assert!(peers[0]["carriers"][0]["proven_at"].is_string(), "{peers:#}");
    let result = luna.call("check_messages", json!({})).success();
    assert!(!result.text.contains("hello"), "what is settled is not shown again: {}", result.text);
}

#[test]
fn hooks_between_the_tools_of_one_message_prove_nothing() {
    let home = quiet_home();
    let _luna = claude(&home, "luna", "s-1");
    let _ = run(&home, "claude", "PostToolBatch", "s-1", json!({}));
    let id = send(&home, "luna", "request", "hello");
    assert!(context(&home, "claude", "PostToolUse", "s-1", json!({})).contains("| hello"));
    for event in ["PreToolUse", "PostToolUse", "PostToolBatch"] {
        assert_eq!(context(&home, "claude", event, "s-1", json!({})), "", "{event}");
        assert_eq!(
            stage(&home, &id),
            "offered",
            "after {event}, which the same message of the model made"
        );
    }
    assert_eq!(context(&home, "claude", "PreToolUse", "s-1", json!({})), "");
    assert_eq!(stage(&home, &id), "presented", "the model called again");
}

#[test]
fn without_word_of_batches_only_the_end_of_the_turn_proves() {
    let home = peer_tests::home!();
    let orion = home.adapter("codex-mcp-client").env("PEER_NAME", "orion").start();
    let _ = orion.call_with_meta("list_peers", json!({}), json!({"threadId": "t-1"})).success();
    let id = send(&home, "orion", "inform", "hello");
    assert!(context(&home, "codex", "PostToolUse", "t-1", json!({})).contains("| hello"));
    assert_eq!(context(&home, "codex", "PostToolUse", "t-1", json!({})), "");
    assert_eq!(stage(&home, &id), "offered");
    assert_eq!(run(&home, "codex", "Stop", "t-1", json!({})).stdout, "");
    assert_eq!(trace(&home, &id).last().map(String::as_str), Some("presented hook next_turn"));
}

#[test]
fn a_stop_goes_on_for_a_request_once_and_a_turn_begins_with_the_rest() {
    let home = quiet_home();
    let _luna = claude(&home, "luna", "s-1");
    let told = send(&home, "luna", "inform", "for your information");
    assert_eq!(
        run(&home, "claude", "Stop", "s-1", json!({"stop_hook_active": false})).stdout,
        "",
        "nobody is woken by that"
    );
    let asked = send(&home, "luna", "request", "please look");
    let reason = context(&home, "claude", "Stop", "s-1", json!({"stop_hook_active": false}));
    let (first, second) = (reason.find("for your information"), reason.find("please look"));
    assert!(first.is_some() && first < second, "what wakes carries everything earlier: {reason}");
    let late = send(&home, "luna", "request", "and that");
    assert_eq!(
        run(&home, "claude", "Stop", "s-1", json!({"stop_hook_active": true})).stdout,
        "",
        "a prolonged turn ends"
    );
    for id in [&told, &asked] {
        assert_eq!(stage(&home, id), "presented");
    }
    assert_eq!(stage(&home, &late), "leased");
    let quiet = send(&home, "luna", "inform", "by the way");
    let shown = context(&home, "claude", "UserPromptSubmit", "s-1", json!({"prompt_id": "p-1"}));
    assert!(shown.contains("| and that") && shown.contains("| by the way"), "{shown}");
    // The first prompt may have been refused, or put back: what rode on it comes again with the
    // next.
    let shown = context(&home, "claude", "UserPromptSubmit", "s-1", json!({"prompt_id": "p-2"}));
    assert!(
        shown.contains("(shown before)\n| and that")
            && shown.contains("(shown before)\n| by the way"),
        "{shown}"
    );
    assert_eq!(stage(&home, &quiet), "offered", "the user spoke twice, the model not at all");
    let _ = run(&home, "claude", "Stop", "s-1", json!({"prompt_id": "p-2"}));
    assert_eq!(stage(&home, &quiet), "presented");
}

#[test]
fn a_subagent_neither_sees_nor_proves_its_parents_mail() {
    let home = quiet_home();
    let luna = claude(&home, "luna", "s-1");
    let id = send(&home, "luna", "request", "for the parent");
    let inside = json!({"agent_id": "a-1", "tool_use_id": "toolu_1"});
    for event in ["SessionStart", "PreToolUse", "PostToolUse", "PostToolBatch", "Stop"] {
        assert_eq!(run(&home, "claude", event, "s-1", inside.clone()).stdout, "", "{event}");
    }
    let result = luna
        .call_with_meta("list_peers", json!({}), json!({"claudecode/toolUseId": "toolu_1"}))
        .success();
    assert!(!result.text.contains("for the parent"), "{}", result.text);
    assert_eq!(stage(&home, &id), "leased");
    let result = luna
        .call_with_meta("list_peers", json!({}), json!({"claudecode/toolUseId": "toolu_2"}))
        .success();
    assert!(result.text.contains("| for the parent"), "{}", result.text);
}

#[test]
fn a_carrier_that_lies_is_followed_by_a_hook_that_marks_the_repeat() {
    let home = peer_tests::home!();
    let luna = claude(&home, "luna", "s-1");
    let id = send(&home, "luna", "request", "hello");
    let _ = luna.wait_channel(&id);
    let rest: Vec<String> =
        ["second", "third"].map(|text| send(&home, "luna", "request", text)).into();
    let turn = |number: u32| json!({ "prompt_id": format!("p-{number}") });
    let shown = context(&home, "claude", "UserPromptSubmit", "s-1", turn(1));
    assert!(shown.contains("(shown before)\n| hello"), "at once: {shown}");
    assert!(
        shown.matches("(shown before)").count() == 1
            && shown.contains("| second")
            && shown.contains("| third"),
        "{shown}"
    );
    let working = send(&home, "luna", "request", "while it works");
    assert!(context(&home, "claude", "PostToolBatch", "s-1", turn(1)).contains("| while it works"));
    let _ = run(&home, "claude", "Stop", "s-1", turn(1));
    assert_eq!(
        trace(&home, &id),
        ["stored", "offered channel", "offered hook", "presented hook next_call"]
    );
    for id in rest.iter().chain([&working]) {
        assert_eq!(
            trace(&home, id)[..2],
            ["stored", "offered hook"],
            "the channel had one message to show what it can"
        );
    }
    let later = send(&home, "luna", "request", "again");
    let _ = luna.wait_channel(&later);
    let shown = context(&home, "claude", "UserPromptSubmit", "s-1", turn(2));
    assert!(
        shown.contains("(shown before)\n| again"),
        "it rested, so the channel was tried once more: {shown}"
    );
    assert_eq!(
        luna.notifications()
            .iter()
            .filter(|note| note["method"] == "notifications/claude/channel")
            .count(),
        2
    );
}

#[test]
fn a_channel_that_the_model_answers_from_is_proved_and_has_its_mail_alone() {
    let home = peer_tests::home!();
    let luna = claude(&home, "luna", "s-1");
    let first = send(&home, "luna", "request", "hello");
    let _ = luna.wait_channel(&first);
    let _ = luna
        .call("send_message", json!({"to": "human", "message": "seen", "reply_to": first}))
        .success();
    let second = send(&home, "luna", "request", "and again");
    let _ = luna.wait_channel(&second);
    let result = luna.call("list_peers", json!({})).success().text;
    // The answer itself may have carried the first one, and then nobody knows where it was seen.
    let is_proved = trace(&home, &first)
        == ["stored", "offered channel", "presented channel reply", "answered"];
    assert_eq!(!result.contains("| and again"), is_proved, "{result}");
}

#[test]
fn a_hook_tells_mode_and_activity() {
    let home = quiet_home();
    let _luna = claude(&home, "luna", "s-1");
    let seen =
        |field: &str| home.peerctl(&["peers", "luna", "--json"]).success().json()[0][field].clone();
    assert_eq!((seen("mode"), seen("activity")), (Value::Null, Value::Null));
    let _ = run(
        &home,
        "claude",
        "UserPromptSubmit",
        "s-1",
        json!({"permission_mode": "bypassPermissions"}),
    );
    assert_eq!((seen("mode"), seen("activity")), (json!("bypass"), json!("working")));
    let _ = run(&home, "claude", "Stop", "s-1", json!({"permission_mode": "default"}));
    assert_eq!((seen("mode"), seen("activity")), (json!("prompting"), json!("idle")));
}

#[test]
fn the_tool_form_says_the_same_and_is_listed_nowhere() {
    let home = quiet_home();
    let luna = claude(&home, "luna", "s-1");
    let tools = luna.request("tools/list", json!({}));
    assert!(!tools.to_string().contains("\"hook\""), "{tools}");
    let arguments = |event: &str| json!({"hook_event_name": event, "session_id": "s-1", "agent_id": "", "stop_hook_active": "false"});
    assert_eq!(luna.call("hook", arguments("PostToolBatch")).success().text, "{}", "nothing waits");
    let id = send(&home, "luna", "request", "hello");
    let output: Value =
        serde_json::from_str(&luna.call("hook", arguments("PostToolBatch")).success().text)
            .expect("JSON");
    assert!(
        output["hookSpecificOutput"]["additionalContext"]
            .as_str()
            .expect("a text")
            .contains("| hello")
    );
    assert_eq!(luna.call("hook", arguments("Stop")).success().text, "{}");
    assert_eq!(stage(&home, &id), "presented");
    assert_eq!(
        luna.call("hook", json!({"session_id": 7})).success().text,
        "{}",
        "what is no hook is answered with nothing"
    );
}

#[test]
fn a_cleared_conversation_keeps_its_mailbox() {
    let home = quiet_home();
    let luna = home.adapter("claude-code").env("CLAUDE_CODE_SESSION_ID", "s-1").start();
    let _ = luna.call("rename_peer", json!({"new_name": "luna"})).success();
    for session in ["s-2", "s-3"] {
        let ended = json!({"reason": "clear"});
        let _ =
            run(&home, "claude", "SessionEnd", if session == "s-2" { "s-1" } else { "s-2" }, ended);
        let _ = run(&home, "claude", "SessionStart", session, json!({"source": "clear"}));
        let id = send(&home, "luna", "request", session);
        assert!(
            context(&home, "claude", "UserPromptSubmit", session, json!({}))
                .contains(&format!("| {session}"))
        );
        let _ = run(&home, "claude", "Stop", session, json!({}));
        assert_eq!(stage(&home, &id), "presented");
    }
    drop(luna);
    let _ = send(&home, "luna", "request", "while you were away");
    // Resumed under the last id, in another process.
    let luna = home.adapter("claude-code").env("CLAUDE_CODE_SESSION_ID", "s-3").start();
    assert!(
        luna.call("check_messages", json!({})).success().text.contains("| while you were away")
    );
    assert_eq!(
        home.peerctl(&["peers", "--all", "--json"]).success().json().as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_strange_sessions_hooks_reach_nobody() {
    let home = quiet_home();
    let _luna = claude(&home, "luna", "s-1");
    let id = send(&home, "luna", "request", "hello");
    // A client that a tool of this session started runs hooks too.
    for event in ["SessionStart", "UserPromptSubmit", "PostToolBatch", "Stop", "SessionEnd"] {
        assert_eq!(
            run(&home, "claude", event, "s-nested", json!({"source": "startup"})).stdout,
            "",
            "{event}"
        );
        assert_eq!(
            run(&home, "codex", event, "s-1", json!({})).stdout,
            "",
            "another client's {event}"
        );
    }
    assert_eq!(stage(&home, &id), "leased");
    let _orion = claude(&home, "orion", "s-2");
    assert_eq!(
        run(&home, "claude", "SessionStart", "s-9", json!({"source": "clear"})).stdout,
        "",
        "of two sessions, which?"
    );
}

/// As a tool of the session would do with `claude --resume`: its first hook comes before its own
/// adapter.
#[test]
fn a_client_that_a_tool_resumed_takes_neither_the_mailbox_nor_the_mail() {
    let home = quiet_home();
    let pid = std::process::id();
    let registered = |session: &str| {
        let sessions = home.home().join(".claude/sessions");
        std::fs::create_dir_all(&sessions).expect("make the registry");
        let entry = json!({"pid": pid, "sessionId": session, "status": "busy"}).to_string();
        std::fs::write(sessions.join(format!("{pid}.json")), entry).expect("write the registry");
    };
    registered("s-1");
    let _luna = claude(&home, "luna", "s-1");
    let id = send(&home, "luna", "request", "hello");
    for source in ["resume", "clear", "fork"] {
        assert_eq!(
            run(&home, "claude", "SessionStart", "s-nested", json!({"source": source})).stdout,
            "",
            "{source}"
        );
    }
    assert_eq!(run(&home, "claude", "PostToolBatch", "s-nested", json!({})).stdout, "");
    assert_eq!(stage(&home, &id), "leased");
    let peers = home.peerctl(&["peers", "luna", "--json"]).success().json();
    assert!(
        !peers[0]["carriers"].to_string().contains("hook"),
        "no hook of its own has come: {peers:#}"
    );
    registered("s-2");
    let shown = context(&home, "claude", "SessionStart", "s-2", json!({"source": "clear"}));
    assert!(shown.contains("| hello"), "{shown}");
}

#[test]
fn a_provisional_codex_session_is_bound_by_its_hook_and_keeps_its_mail() {
    let home = peer_tests::home!();
    let orion = home.adapter("codex-mcp-client").cwd(&home.home()).start();
    orion.register();
    let provisional = home.peerctl(&["peers", "--json"]).success().json()[0]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let _ = send(&home, &provisional, "request", "before the bind");
    let shown = context(&home, "codex", "SessionStart", "t-1", json!({"source": "startup"}));
    assert!(shown.contains("| before the bind"), "{shown}");
    let _ = run(&home, "codex", "Stop", "t-1", json!({}));
    drop(orion);
    let again = home.adapter("codex-mcp-client").start();
    let _ = again
        .call_with_meta("rename_peer", json!({"new_name": "orion"}), json!({"threadId": "t-1"}))
        .success();
    let _ = send(&home, &provisional, "request", "under the old name");
    let result =
        again.call_with_meta("check_messages", json!({}), json!({"threadId": "t-1"})).success();
    assert!(result.text.contains("| under the old name"), "{}", result.text);
}

#[test]
fn who_sends_is_not_told_of_a_way_that_is_in_doubt() {
    let home = peer_tests::home!();
    home.configure("[limits]\nvisibility_timeout_ms = 1000\n");
    let luna = claude(&home, "luna", "s-1");
    let _ = run(&home, "claude", "SessionStart", "s-1", json!({"source": "startup"}));
    let first_way = || {
        let peers = home.peerctl(&["peers", "luna", "--json"]).success().json();
        peers[0]["carriers"][0]["name"].as_str().expect("a name is a text").to_owned()
    };
    assert_eq!(first_way(), "channel");
    let id = send(&home, "luna", "request", "hello");
    let _ = luna.wait_channel(&id);
    let deadline = Instant::now() + PATIENCE;
    while first_way() != "hook" {
        assert!(
            Instant::now() < deadline,
            "the channel had its time, and is still said to come first"
        );
    }
}

#[test]
fn a_pipe_in_the_place_of_a_record_stops_nothing() {
    let home = quiet_home();
    let luna = claude(&home, "luna", "s-1");
    let pipe = home.home().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("run mkfifo");
    assert!(made.success());
    let id = send(&home, "luna", "request", "hello");
    let shown = context(&home, "claude", "PostToolBatch", "s-1", json!({"transcript_path": pipe}));
    assert!(shown.contains(&id), "{shown}");
    luna.register();
}

#[test]
fn what_the_last_conversation_was_shown_at_its_end_is_no_proof_in_the_next() {
    let home = quiet_home();
    let _luna = claude(&home, "luna", "s-1");
    let id = send(&home, "luna", "request", "hello");
    let shown = context(&home, "claude", "UserPromptSubmit", "s-1", json!({}));
    assert!(shown.contains("| hello"), "{shown}");
    let _ = run(&home, "claude", "SessionEnd", "s-1", json!({"reason": "clear"}));
    let shown = context(&home, "claude", "SessionStart", "s-2", json!({"source": "clear"}));
    assert!(shown.contains("| hello") && shown.contains("(shown before)"), "{shown}");
    assert_eq!(context(&home, "claude", "UserPromptSubmit", "s-2", json!({})), "");
    assert_eq!(stage(&home, &id), "offered");
    let _ = run(&home, "claude", "PostToolBatch", "s-2", json!({}));
    assert_eq!(stage(&home, &id), "presented");
}

#[test]
fn hooks_never_fail_their_caller_nor_start_a_broker() {
    let home = peer_tests::home!();
    for input in [
        "",
        "{",
        "[]",
        "null",
        "{\"session_id\": 7}",
        "{\"session_id\": \"s\", \"hook_event_name\": \"Nonsense\"}",
        "\0\0",
    ] {
        for client in ["claude", "codex", "gemini", "\u{1f4a5}"] {
            let outcome = home.peerctl_with_input(&["hook", client, "Stop"], input);
            assert_eq!(
                (outcome.code, outcome.stdout.as_str()),
                (0, ""),
                "{client} {input:?}: {outcome:?}"
            );
        }
    }
    assert_eq!(home.broker_pid(), None);
    let mut switched_off = home.command(&["hook", "claude", "Stop"]);
    switched_off.env("PEERD_ENABLED", "0");
    assert_eq!(home.run(switched_off, "{}").code, 0);
}

#[test]
fn a_hook_whose_adapter_is_gone_or_stopped_ends_soon_and_takes_nothing() {
    let home = quiet_home();
    let luna = claude(&home, "luna", "s-1");
    let id = send(&home, "luna", "request", "hello");
    luna.signal(nix::sys::signal::Signal::SIGSTOP);
    let began = Instant::now();
    assert_eq!(run(&home, "claude", "PostToolBatch", "s-1", json!({})).stdout, "");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    luna.signal(nix::sys::signal::Signal::SIGCONT);
    let shown = context(&home, "claude", "PostToolBatch", "s-1", json!({}));
    assert!(shown.contains("| hello"), "the hook that was gone has taken nothing: {shown}");
    let _ = run(&home, "claude", "Stop", "s-1", json!({}));
    assert_eq!(stage(&home, &id), "presented");
    luna.kill();
    assert_eq!(run(&home, "claude", "PostToolBatch", "s-1", json!({})).stdout, "");
}

/// The client's next step waits for its hooks.
#[test]
fn a_hook_does_not_wait_long_for_a_broker_that_is_suspended() {
    let home = quiet_home();
    let luna = claude(&home, "luna", "s-1");
    let broker = home.broker_pid().expect("a broker");
    let pid = nix::unistd::Pid::from_raw(broker.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("suspend the broker");
    let began = Instant::now();
    let arguments = json!({"hook_event_name": "PostToolBatch", "session_id": "s-1"});
    let answered = luna.call("hook", arguments);
    let took = began.elapsed();
    let printed = run(&home, "claude", "PostToolBatch", "s-1", json!({}));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("let the broker go on");
    assert_eq!((answered.is_error, answered.text.as_str()), (false, "{}"));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(printed.stdout, "");
    let id = send(&home, "luna", "request", "go on");
    assert!(
        context(&home, "claude", "PostToolBatch", "s-1", json!({})).contains(&id),
        "it works as before"
    );
}

/// Waits until luna has a session, without a call, which would carry mail.
fn is_here(home: &Home) {
    let deadline = Instant::now() + PATIENCE;
    while home.peerctl(&["peers", "luna", "--json"]).success().json()[0]["online"] != true {
        assert!(Instant::now() < deadline, "luna does not come");
    }
}

/// Ends a session, and waits until the broker has counted it.
fn end(home: &Home, adapter: &Mcp, id: &str) -> Value {
    adapter.close_stdin();
    let _ = adapter.wait_exit(PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let delivery =
            home.peerctl(&["show", id, "--json"]).success().json()["deliveries"][0].clone();
        if delivery["stage"] != "offered" && delivery["stage"] != "leased" {
            return delivery;
        }
        assert!(Instant::now() < deadline, "the session's end was not counted: {delivery}");
    }
}

#[test]
fn sessions_in_which_nobody_was_asked_bury_nothing() {
    let home = peer_tests::home!();
    home.configure("[limits]\nattempts_max = 2\n");
    let luna = claude(&home, "luna", "s-1");
    luna.close_stdin();
    let _ = luna.wait_exit(PATIENCE);
    let id = send(&home, "luna", "request", "for whoever comes");
    for session in ["s-2", "s-3", "s-4"] {
        let luna = home
            .adapter("claude-code")
            .env("CLAUDE_CODE_SESSION_ID", session)
            .env("PEER_NAME", "luna")
            .start();
        let _ = luna.wait_channel(&id);
        let delivery = end(&home, &luna, &id);
        assert_eq!(
            (&delivery["stage"], &delivery["attempts"]),
            (&json!("stored"), &json!(0)),
            "pushed alone: {delivery}"
        );
    }
    home.configure("[limits]\nattempts_max = 2\n[adapter]\ncarriers_off = [\"channel\"]\n");
    for session in ["s-5", "s-6", "s-7"] {
        let luna = home
            .adapter("claude-code")
            .env("CLAUDE_CODE_SESSION_ID", session)
            .env("PEER_NAME", "luna")
            .start();
        is_here(&home);
        let shown =
            context(&home, "claude", "SessionStart", session, json!({ "source": "startup" }));
        assert!(shown.contains("for whoever comes"), "{shown}");
        assert_eq!(
            context(&home, "claude", "SessionEnd", session, json!({ "reason": "other" })),
            ""
        );
        let delivery = end(&home, &luna, &id);
        assert_eq!(
            (&delivery["stage"], &delivery["attempts"]),
            (&json!("stored"), &json!(0)),
            "opened and closed: {delivery}"
        );
    }
    for (session, stage) in [("s-8", "stored"), ("s-9", "dead")] {
        let luna = home
            .adapter("claude-code")
            .env("CLAUDE_CODE_SESSION_ID", session)
            .env("PEER_NAME", "luna")
            .start();
        is_here(&home);
        let shown =
            context(&home, "claude", "UserPromptSubmit", session, json!({ "prompt": "go" }));
        assert!(shown.contains("for whoever comes"), "{shown}");
        let delivery = end(&home, &luna, &id);
        assert_eq!(
            delivery["stage"], stage,
            "it rode on a prompt, and the session ended: {delivery}"
        );
    }
}
