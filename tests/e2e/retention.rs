//! Retention through the real broker: what is settled goes by its bounds, what waits stays.

use peer_tests::{Home, Mcp};
use serde_json::{Value, json};

/// Messages that are sent and settled before anything is purged.
const SETTLED: usize = 60;

fn total(home: &Home) -> u64 {
    let status = home.peerctl(&["status", "--json"]).success().json();
    status["messages"]["total"].as_u64().expect("a number")
}

fn purge(home: &Home, arguments: &[&str]) -> Value {
    home.peerctl(&[&["purge", "--json"], arguments].concat()).success().json()
}

#[test]
fn too_much_goes_from_the_oldest_settled_on_and_what_waits_stays() {
    let home = peer_tests::home!();
    home.configure("[retention]\nsettled_count = 40\n[limits]\nsender_per_minute = 10000\npair_per_minute = 10000\n");
    let (luna, vega, orion) = (home.claude("luna"), home.claude("vega"), home.codex("orion"));
    let all_here = |sessions: &[&Mcp]| {
        for session in sessions {
            session.register();
        }
    };
    all_here(&[&luna, &vega, &orion]);
    orion.kill();
    let waits = luna
        .call("send_message", json!({"to": "orion", "message": "this one waits"}))
        .success()
        .message_id();
    let send = |n: usize| {
        let arguments = json!({"to": "human", "message": format!("note {n}"), "idempotency_key": format!("key-{n}")});
        luna.call("send_message", arguments).success().message_id()
    };
    let sent: Vec<String> = (0..SETTLED).map(send).collect();
    let _ = home.peerctl(&["inbox", "me", "--ack"]).success();
    assert_eq!(total(&home), SETTLED as u64 + 1);

    let dry = purge(&home, &["--dry-run"]);
    assert_eq!(dry["dry_run"], json!(true));
    assert_eq!(total(&home), SETTLED as u64 + 1, "a dry run changes nothing");
    // What is counted is counted again by the next broker.
    home.kill_broker();
    // Who starts several sessions is none of them.
    all_here(&[&luna, &vega]);
    let gone = purge(&home, &[]);
    assert_eq!(gone["purged"], dry["purged"], "what was said would go, went");
    // A twentieth more than the bound says, so that the next message is not too much again.
    assert_eq!(
        (total(&home), &gone["purged"]["messages"]),
        (38, &json!(SETTLED + 1 - 38)),
        "{gone:#}"
    );
    assert_eq!(home.peerctl(&["purge"]).success().stdout.trim(), "deleted: nothing");

    let first = home.peerctl(&["show", &sent[0], "--json"]);
    assert_eq!((first.code, &first.json()["error"]["code"]), (4, &json!("unknown_message")));
    let reply = luna.call("send_message", json!({"message": "what was it", "reply_to": sent[0]}));
    assert!(reply.is_error && reply.text.contains("no message"), "{}", reply.text);
    assert_ne!(send(0), sent[0], "the key went with its message");
    assert_eq!(send(SETTLED - 1), sent[SETTLED - 1], "and stays where the message does");

    let orion = home.codex("orion");
    let checked = orion.call("check_messages", json!({})).success();
    assert!(
        checked.text.contains(&waits) && checked.text.contains("this one waits"),
        "{}",
        checked.text
    );
    let _ = home.peerctl(&["daemon", "stop"]).success();
    let _ = home.peerctl(&["daemon", "verify"]).success();
}
