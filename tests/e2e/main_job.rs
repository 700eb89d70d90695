//! The main job, with real processes: sessions find each other, talk, and lose nothing when
//! something dies.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use peer_tests::{Home, PATIENCE};
use serde_json::{Value, json};

/// What `peerctl show` says of the one delivery of a message.
#[track_caller]
fn delivery(home: &Home, id: &str) -> Value {
    let shown = home.peerctl(&["show", id, "--json"]).success().json();
    let deliveries = shown["deliveries"].as_array().expect("deliveries is a list");
    assert_eq!(deliveries.len(), 1, "{shown}");
    deliveries[0].clone()
}

/// The stages in a delivery's trace, in order.
fn stages(delivery: &Value) -> Vec<String> {
    let trace = delivery["trace"].as_array().expect("trace is a list");
    trace
        .iter()
        .map(|entry| entry["stage"].as_str().expect("a stage is a string").to_owned())
        .collect()
}

/// Whether `wanted` stand in `trace` in that order, perhaps with others in between.
fn in_order(trace: &[String], wanted: &[&str]) -> bool {
    let mut trace = trace.iter();
    wanted.iter().all(|wanted| trace.any(|stage| stage == wanted))
}

/// Whether `text` shows the message `id` in full, with `body` as its one line.
fn shows(text: &str, id: &str, body: &str) -> bool {
    text.contains("[PEER INBOX]")
        && text.lines().any(|line| line.starts_with(&format!("[{id}")))
        && text.lines().any(|line| line == format!("| {body}"))
}

/// The names that `peerctl peers` lists as online.
fn online(home: &Home) -> Vec<String> {
    let peers = home.peerctl(&["peers", "--json"]).success().json();
    let peers =
        peers.as_array().expect("peers is a list").iter().filter(|peer| peer["online"] == true);
    peers.map(|peer| peer["name"].as_str().expect("a name is a string").to_owned()).collect()
}

#[test]
fn two_sessions_ask_and_answer_and_the_trace_tells_how() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    orion.register();
    let peers = luna.call("list_peers", json!({})).success();
    assert!(peers.text.contains("orion") && peers.text.contains("luna"), "{}", peers.text);

    let sent = luna
        .call("send_message", json!({"to": "orion", "message": "bcrypt version in package.json?"}))
        .success();
    let question = sent.message_id();

    // Codex sees it at the end of whatever it calls next, and never again in full.
    let carried = orion.call("list_peers", json!({})).success();
    assert!(shows(&carried.text, &question, "bcrypt version in package.json?"), "{}", carried.text);
    assert!(carried.text.contains("request] from luna (claude"), "{}", carried.text);
    assert_eq!(
        delivery(&home, &question)["stage"],
        "offered",
        "a result that was written proves nothing"
    );

    // A later call of the same conversation proves that the earlier result was read.
    let later = orion.call("list_peers", json!({})).success();
    assert!(!shows(&later.text, &question, "bcrypt version in package.json?"), "{}", later.text);
    assert_eq!(delivery(&home, &question)["stage"], "presented");

    let replied = orion
        .call(
            "send_message",
            json!({"to": "luna", "message": "5.1.1", "reply_to": question, "intent": "request"}),
        )
        .success();
    let answer = replied.message_id();

    // Claude gets it pushed.
    let (_, note) = luna.wait_channel(&answer);
    let params = &note["params"];
    assert!(params["content"].as_str().is_some_and(|text| text.contains("| 5.1.1")), "{note}");
    assert_eq!(params["meta"]["from_name"], "orion", "{note}");
    assert_eq!(params["meta"]["from_client"], "codex", "{note}");
    assert!(
        params["meta"].as_object().is_some_and(|meta| meta.values().all(Value::is_string)),
        "{note}"
    );
    let acked = luna.call("ack_messages", json!({"message_ids": answer})).success();
    assert!(
        !acked.text.contains("| 5.1.1"),
        "what is acknowledged is not shown again: {}",
        acked.text
    );

    let (question, answer_delivery) = (delivery(&home, &question), delivery(&home, &answer));
    assert!(
        in_order(&stages(&question), &["stored", "offered", "presented", "answered"]),
        "{question}"
    );
    assert_eq!(question["answered_by"], json!(answer), "{question}");
    assert!(in_order(&stages(&answer_delivery), &["stored", "offered"]), "{answer_delivery}");
    assert_eq!(answer_delivery["stage"], "presented", "{answer_delivery}");
    assert!(answer_delivery["acked_at"].is_string(), "{answer_delivery}");
    assert_eq!(
        (luna.garbage(), orion.garbage()),
        (vec![], vec![]),
        "standard output carries MCP alone"
    );
}

#[test]
fn the_person_writes_to_a_session_and_a_session_to_the_person() {
    let home = peer_tests::home!();
    let luna = home.claude("luna");
    luna.register();
    let sent = home
        .peerctl(&["send", "luna", "--json", "--", "stop and look at the build"])
        .success()
        .json();
    let id = sent["id"].as_str().expect("an id is a string").to_owned();
    let (_, note) = luna.wait_channel(&id);
    assert!(
        note["params"]["content"]
            .as_str()
            .is_some_and(|text| text.contains("| stop and look at the build")),
        "{note}"
    );

    let _ = luna
        .call("send_message", json!({"to": "human", "message": "looking", "reply_to": id}))
        .success();
    let inbox = home.peerctl(&["inbox", "me", "--json"]).success().json();
    assert!(
        inbox.as_array().is_some_and(|mail| mail.iter().any(|entry| entry["from"] == "luna")),
        "{inbox}"
    );
    assert_eq!(
        delivery(&home, &id)["stage"],
        "presented",
        "a reply proves that the message was seen"
    );
}

#[test]
fn what_a_killed_session_had_not_settled_comes_to_the_next_and_says_that_it_is_a_repeat() {
    let home = peer_tests::home!();
    let luna = home.claude("luna");
    let orion = home.codex("orion");
    orion.register();
    let sent =
        luna.call("send_message", json!({"to": "orion", "message": "are you there"})).success();
    let id = sent.message_id();
    let carried = orion.call("list_peers", json!({})).success();
    assert!(shows(&carried.text, &id, "are you there"), "{}", carried.text);

    orion.kill();
    let killed = Instant::now();
    let orion = home.codex("orion");
    let again = orion.call("list_peers", json!({})).success();
    assert!(shows(&again.text, &id, "are you there"), "{}", again.text);
    assert!(again.text.contains("(shown before)"), "{}", again.text);
    assert!(killed.elapsed() < Duration::from_secs(5), "it took {:?}", killed.elapsed());
    let after = delivery(&home, &id);
    assert_eq!(after["attempts"], 1, "{after}");
}

#[test]
fn a_message_to_a_known_peer_that_is_away_waits_for_it() {
    let home = peer_tests::home!();
    let luna = home.claude("luna");
    let orion = home.codex("orion");
    orion.register();
    orion.close_stdin();
    assert_eq!(orion.wait_exit(PATIENCE).code, 0);
    let sent = luna.call("send_message", json!({"to": "orion", "message": "for later"})).success();
    assert!(sent.text.contains("offline"), "{}", sent.text);
    let orion = home.codex("orion");
    let first = orion.call("check_messages", json!({})).success();
    assert!(shows(&first.text, &sent.message_id(), "for later"), "{}", first.text);
    assert!(!first.text.contains("(shown before)"), "{}", first.text);
}

#[test]
fn sessions_survive_the_death_of_the_broker_and_lose_nothing() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    luna.register();
    orion.register();
    let before = luna
        .call("send_message", json!({"to": "orion", "message": "before the end"}))
        .success()
        .message_id();
    let old = home.kill_broker();

    // Both come back by themselves; the next call starts a broker if nobody has yet.
    let after = luna
        .call("send_message", json!({"to": "orion", "message": "after the end"}))
        .success()
        .message_id();
    assert_ne!(home.broker_pid(), Some(old));
    let mut text = orion.call("check_messages", json!({})).success().text;
    if !shows(&text, &after, "after the end") {
        text += &orion.call("check_messages", json!({"wait_s": 10})).success().text;
    }
    let places = [&before, &after]
        .map(|id| text.find(id.as_str()).unwrap_or_else(|| panic!("{id} is not in {text}")));
    assert!(places[0] < places[1], "out of order: {text}");
    assert_eq!(
        online(&home).iter().filter(|name| ["luna", "orion"].contains(&name.as_str())).count(),
        2
    );
}

#[test]
fn an_adapter_ends_with_its_client() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    for end in ["stdin", "SIGINT", "SIGTERM"] {
        let mcp = home.claude("luna");
        mcp.register();
        let begun = Instant::now();
        match end {
            "SIGINT" => mcp.signal(Signal::SIGINT),
            "SIGTERM" => mcp.signal(Signal::SIGTERM),
            _ => mcp.close_stdin(),
        }
        assert_eq!(mcp.wait_exit(PATIENCE).code, 0, "{end}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{end} took {:?}", begun.elapsed());
    }
}

#[test]
fn a_client_that_stops_reading_loses_nothing_and_holds_up_nobody() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    home.configure(
        "[limits]\nsender_per_minute = 100000\npair_per_minute = 100000\nidentical_text_ms = 0\n",
    );
    let deaf = home.adapter("claude-code").env("PEER_NAME", "deaf").not_reading().spawn();
    deaf.submit(
        "initialize",
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "claude-code", "version": "1"}}),
    );
    deaf.notify("notifications/initialized", json!({}));
    let luna = home.claude("luna");
    let waited = Instant::now();
    while !online(&home).contains(&"deaf".to_owned()) {
        assert!(waited.elapsed() < PATIENCE, "deaf does not register");
    }
    let text = "q".repeat(8_000);
    let ids: Vec<String> = (0..60)
        .map(|place| {
            let message = format!("{place} {text}");
            luna.call("send_message", json!({"to": "deaf", "message": message}))
                .success()
                .message_id()
        })
        .collect();

    // It ends with its client all the same, and everything waits for the next session, in order.
    deaf.close_stdin();
    let _ = deaf.wait_exit(PATIENCE);
    let inbox = home.peerctl(&["inbox", "deaf", "--json"]).success().json();
    let waiting: Vec<&str> = inbox
        .as_array()
        .expect("inbox is a list")
        .iter()
        .filter_map(|entry| entry["id"].as_str())
        .collect();
    assert_eq!(waiting, ids);
}

#[test]
fn a_session_with_only_home_and_path_finds_the_same_broker_as_one_with_a_full_environment() {
    let home = peer_tests::home!();
    let bare = home.adapter("claude-code").env_remove("PEERD_DIR").start();
    let full = home
        .adapter("claude-code")
        .env_remove("PEERD_DIR")
        .env("XDG_DATA_HOME", &home.root().join("data").to_string_lossy())
        .env("XDG_RUNTIME_DIR", &home.root().join("run").to_string_lossy())
        .env("XDG_STATE_HOME", &home.root().join("state-home").to_string_lossy())
        .env("PEER_NAME", "full")
        .start();
    full.register();
    let peers = bare.call("list_peers", json!({})).success();
    assert!(peers.text.contains("full"), "{}", peers.text);
    let mut command = home.command(&["peers", "--json"]);
    command.env_remove("PEERD_DIR");
    assert_eq!(home.run(command, "").success().json().as_array().map(Vec::len), Some(2));
}
