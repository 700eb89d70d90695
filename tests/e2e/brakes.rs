//! The brakes and the person's pauses, through the real broker, adapters and `peerctl`.

use serde_json::json;

#[test]
fn the_person_pauses_a_session_a_thread_and_all_and_an_agents_shell_may_not() {
    let home = peer_tests::home!();
    let (luna, orion) = home.two_sessions();
    let send = |text: &str| luna.call("send_message", json!({"to": "orion", "message": text}));

    let paused = home.peerctl(&["pause", "luna", "--json"]).success().json();
    assert_eq!(paused["paused"], json!([{"kind": "peer", "name": "luna"}]));
    let refused = send("nobody hears this");
    assert!(
        refused.is_error && refused.text.contains("the person has paused luna"),
        "{}",
        refused.text
    );
    assert!(
        refused.text.contains("only your user can resume it") && !refused.text.contains("peerctl"),
        "{}",
        refused.text
    );
    let _ =
        orion.call("send_message", json!({"to": "luna", "message": "but others speak"})).success();
    let _ = home.peerctl(&["send", "orion", "--", "and so does the person"]).success();

    // A pause outlives the broker, and is there for all to see.
    home.kill_broker();
    assert!(send("still not").is_error);
    let status = home.peerctl(&["status", "--json"]).success().json();
    assert_eq!(
        (&status["paused"][0]["name"], &status["refused"]["paused"]),
        (&json!("luna"), &json!(1)),
        "{status:#}"
    );
    let told = home.peerctl(&["status"]).success().stdout;
    assert!(told.contains("1 paused"), "{told}");
    assert_eq!(home.peerctl(&["resume", "luna"]).success().stdout.trim(), "paused: nothing");
    let thread = send("heard again").success();
    assert!(thread.text.contains("stored"), "{}", thread.text);

    let shown = home.peerctl(&["show", &thread.message_id(), "--json"]).success().json();
    let thread = shown["thread"].as_str().expect("a message has a thread").to_owned();
    let _ = home.peerctl(&["pause", &thread]).success();
    let reply =
        orion.call("send_message", json!({"to": "luna", "message": "in it", "thread": thread}));
    assert!(
        reply.is_error && reply.text.contains(&format!("the person has paused {thread}")),
        "{}",
        reply.text
    );
    let _ = send("in another one").success();
    let _ = home.peerctl(&["pause", "all"]).success();
    assert!(send("nowhere").is_error);
    let _ = home.peerctl(&["resume", "all"]).success();
    let _ = orion
        .call("send_message", json!({"to": "luna", "message": "in it", "thread": thread}))
        .success();

    let unknown = home.peerctl(&["pause", "nobody", "--json"]);
    assert_eq!((unknown.code, &unknown.json()["error"]["code"]), (4, &json!("unknown_peer")));
    let seat = home
        .adapter("claude-code")
        .env("PEER_NAME", "vega")
        .env("CLAUDE_CODE_SESSION_ID", "s-1")
        .start();
    seat.register();
    for forbidden in
        [&["pause", "luna", "--json"][..], &["resume", "all", "--json"], &["purge", "--json"]]
    {
        let mut command = home.command(forbidden);
        command.env("CLAUDE_CODE_SESSION_ID", "s-1");
        let outcome = home.run(command, "");
        assert_eq!(
            (outcome.code, &outcome.json()["error"]["code"]),
            (6, &json!("not_permitted")),
            "{forbidden:?}"
        );
    }
}

#[test]
fn a_loop_of_identical_texts_is_refused_and_counted() {
    let home = peer_tests::home!();
    let (luna, orion) = home.two_sessions();
    let first = luna
        .call("send_message", json!({"to": "orion", "message": "thanks"}))
        .success()
        .message_id();
    let again = luna.call("send_message", json!({"to": "orion", "message": "thanks"}));
    assert!(again.is_error && again.text.contains("the same text went to orion"), "{}", again.text);
    let _ = orion.call("check_messages", json!({})).success();
    let _ = orion.call("send_message", json!({"message": "thanks", "reply_to": first})).success();
    // The person says what they like as often as they like.
    for _ in 0..2 {
        let _ = home.peerctl(&["send", "orion", "--", "go on"]).success();
    }
    let status = home.peerctl(&["status", "--json"]).success().json();
    assert_eq!(status["refused"], json!({"identical_text": 1}), "{status:#}");
}

/// What to do next depends on who reads: a model calls tools, a person types commands, and an
/// agent's shell types those that it may run.
#[test]
fn a_refusal_tells_a_model_a_tool_a_person_a_command_and_a_shell_none_that_is_the_persons() {
    let home = peer_tests::home!();
    let vega = home
        .adapter("claude-code")
        .env("PEER_NAME", "vega")
        .env("CLAUDE_CODE_SESSION_ID", "s-1")
        .start();
    let orion = home.claude("orion");
    for session in [&vega, &orion] {
        session.register();
    }
    let told = vega.call("send_message", json!({"to": "#nope", "message": "x"}));
    assert!(
        told.is_error && told.text.contains("there is no channel or group \"#nope\""),
        "{}",
        told.text
    );
    assert!(
        told.text.contains("channels(action=\"list\")") && !told.text.contains("peerctl"),
        "{}",
        told.text
    );
    let told = home.peerctl(&["send", "#nope", "--json", "--", "x"]);
    let error = &told.json()["error"];
    assert_eq!(
        (told.code, &error["message"]),
        (4, &json!("there is no channel or group \"#nope\"")),
        "{told:?}"
    );
    assert_eq!(error["hint"], "`peerctl channels` shows all names");
    assert!(told.stderr.contains("\"#nope\"; `peerctl channels` shows"), "{told:?}");

    let _ = home.peerctl(&["policy", "orion", "refuse"]).success();
    let mut from_its_shell = home.command(&["send", "orion", "--json", "--", "x"]);
    from_its_shell.env("CLAUDE_CODE_SESSION_ID", "s-1");
    let told = home.run(from_its_shell, "");
    assert_eq!(
        (told.code, &told.json()["error"]["code"]),
        (6, &json!("refused_by_policy")),
        "{told:?}"
    );
    assert_eq!(
        told.json()["error"]["hint"],
        "do not repeat it; only the person can change that policy"
    );
}
