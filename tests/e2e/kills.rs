//! `kill -9` of adapter and broker at each step of a message's life. Whatever was acknowledged is
//! there afterwards.

use peer_tests::{Home, Mcp, PATIENCE};
use serde_json::{Value, json};

#[track_caller]
fn delivery(home: &Home, id: &str) -> Value {
    home.peerctl(&["show", id, "--json"]).success().json()["deliveries"][0].clone()
}

/// Kills the broker, as soon as there is one again.
fn kill_the_next_broker(home: &Home) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while home.broker_pid().is_none() {
        assert!(std::time::Instant::now() < deadline, "nobody started a broker");
    }
    home.kill_broker();
}

fn ready(adapters: &[&Mcp]) {
    for adapter in adapters {
        adapter.register();
    }
}

#[test]
fn stored_then_the_broker_dies() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    ready(&[&luna, &orion]);
    orion.kill();
    let id =
        luna.call("send_message", json!({"to": "orion", "message": "kept"})).success().message_id();
    home.kill_broker();
    let orion = home.codex("orion");
    let mail = orion.call("check_messages", json!({})).success().text;
    assert!(
        mail.contains(&id) && mail.contains("| kept") && !mail.contains("(shown before)"),
        "{mail}"
    );
}

#[test]
fn leased_then_the_adapter_dies() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    ready(&[&luna, &orion]);
    let id = luna
        .call("send_message", json!({"to": "orion", "message": "held, not shown"}))
        .success()
        .message_id();
    orion.kill();
    let orion = home.codex("orion");
    let mail = orion.call("check_messages", json!({})).success().text;
    assert!(mail.contains(&id) && !mail.contains("(shown before)"), "{mail}");
    assert_eq!(delivery(&home, &id)["attempts"], 0);
}

#[test]
fn offered_then_the_adapter_dies() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    ready(&[&luna, &orion]);
    let id = luna
        .call("send_message", json!({"to": "orion", "message": "shown, unproved"}))
        .success()
        .message_id();
    assert!(orion.call("check_messages", json!({})).success().text.contains("| shown, unproved"));
    orion.kill();
    let orion = home.codex("orion");
    let mail = orion.call("check_messages", json!({})).success().text;
    let header = mail
        .lines()
        .find(|line| line.starts_with(&format!("[{id}")))
        .unwrap_or_else(|| panic!("{mail}"));
    assert!(header.contains("(shown before)"), "a repeat says that it is one: {mail}");
    assert_eq!(delivery(&home, &id)["attempts"], 1);
}

#[test]
fn offered_then_the_broker_dies_and_the_evidence_still_counts() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    ready(&[&luna, &orion]);
    let id = luna
        .call("send_message", json!({"to": "orion", "message": "proved later"}))
        .success()
        .message_id();
    assert!(orion.call("check_messages", json!({})).success().text.contains("| proved later"));
    home.kill_broker();
    let next = orion.call("list_peers", json!({})).success().text;
    assert!(!next.contains("| proved later"), "it is not shown twice: {next}");
    let delivery = delivery(&home, &id);
    assert_eq!(
        (delivery["stage"].as_str(), delivery["attempts"].as_u64()),
        (Some("presented"), Some(0)),
        "{delivery}"
    );
}

#[test]
fn pushed_through_the_channel_then_the_broker_dies() {
    let home = peer_tests::home!();
    let (orion, luna) = (home.codex("orion"), home.claude("luna"));
    ready(&[&luna, &orion]);
    let id = orion
        .call("send_message", json!({"to": "luna", "message": "over the channel"}))
        .success()
        .message_id();
    let _ = luna.wait_channel(&id);
    home.kill_broker();
    let _ = luna.call("ack_messages", json!({"message_ids": id})).success();
    assert_eq!(delivery(&home, &id)["stage"], "presented");
    let again = luna
        .notifications()
        .iter()
        .filter(|note| note["params"]["meta"]["message_id"] == id.as_str())
        .count();
    assert_eq!(again, 1, "one session is shown a message once");
}

#[test]
fn presented_then_everything_dies_and_it_is_never_shown_again() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    ready(&[&luna, &orion]);
    let id =
        luna.call("send_message", json!({"to": "orion", "message": "once"})).success().message_id();
    assert!(orion.call("check_messages", json!({})).success().text.contains("| once"));
    ready(&[&orion]);
    assert_eq!(delivery(&home, &id)["stage"], "presented");
    home.kill_broker();
    orion.kill();
    let orion = home.codex("orion");
    let mail = orion.call("check_messages", json!({})).success().text;
    assert!(!mail.contains(&id), "{mail}");
}

#[test]
fn a_repeated_key_finds_the_first_outcome_after_the_broker_died() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    ready(&[&luna, &orion]);
    let send = ["send", "orion", "--idempotency-key", "k-1", "--json", "--", "exactly once"];
    let first = home.peerctl(&send).success().json();
    home.kill_broker();
    let second = home.peerctl(&send).success().json();
    assert_eq!((&first["id"], &second["deduplicated"]), (&second["id"], &json!(true)));
    let mail = orion.call("check_messages", json!({})).success().text;
    assert_eq!(mail.matches("| exactly once").count(), 1, "{mail}");
}

#[test]
fn a_wait_survives_the_broker_that_it_waited_at() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    ready(&[&luna, &orion]);
    let waiting =
        orion.submit_call("check_messages", json!({"from": "luna", "wait_s": 40}), json!({}));
    // The wait has reached the broker once a later call of the same connection was answered.
    let _ = orion.call_with_meta(
        "set_summary",
        json!({"summary": "waiting"}),
        json!({"threadId": "another"}),
    );
    home.kill_broker();
    let _ =
        luna.call("send_message", json!({"to": "orion", "message": "after the crash"})).success();
    assert!(orion.result(waiting, PATIENCE).success().text.contains("| after the crash"));
}

#[test]
fn a_conversation_goes_on_while_the_broker_is_killed_again_and_again() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    home.configure("[limits]\nsender_per_minute = 100000\npair_per_minute = 100000\npending_per_peer = 100000\n");
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    ready(&[&luna, &orion]);
    const ROUNDS: usize = 12;
    const PER_ROUND: usize = 8;
    let mut sent = Vec::new();
    for round in 0..ROUNDS {
        let calls: Vec<u64> = (0..PER_ROUND)
            .map(|n| {
                let text = format!("round {round} number {n}");
                luna.submit_call(
                    "send_message",
                    json!({"to": "orion", "message": text, "intent": "inform"}),
                    json!({}),
                )
            })
            .collect();
        // Some of these are before the commit, some after it, some unanswered when the broker dies.
        kill_the_next_broker(&home);
        for call in calls {
            sent.push(luna.result(call, PATIENCE).success().message_id());
        }
    }
    let mut shown = Vec::new();
    for _ in 0..ROUNDS * PER_ROUND {
        let mail = orion.call("check_messages", json!({})).success().text;
        let ids =
            mail.lines().filter(|line| line.starts_with("[m-")).map(|line| line[1..19].to_owned());
        let before = shown.len();
        shown.extend(ids);
        if shown.len() == before {
            break;
        }
    }
    let mut all = sent.clone();
    all.sort();
    let mut once = shown.clone();
    once.sort();
    once.dedup();
    assert_eq!(once, all, "every acknowledged message was shown, and no other");
    assert_eq!(shown.len(), once.len(), "none was shown twice");
    assert!(shown.is_sorted(), "in the order in which they were accepted");
}
