//! Much mail for one peer: all of it arrives, in order, in bounded blocks.

use peer_tests::Home;
use serde_json::json;

/// What one tool result may hold at most: 6,000 characters of quoted text, headers, and what the
/// tool itself says.
const RESULT_CHARS_MAX: usize = 16_000;

fn roomy(home: &Home) {
    home.configure(
        "[limits]\nsender_per_minute = 1000000\npair_per_minute = 1000000\npending_per_peer = 1000000\nidentical_text_ms = 0\n",
    );
}

fn headers(text: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with("[m-")).map(|line| line[1..19].to_owned()).collect()
}

#[test]
fn a_hundred_of_the_longest_texts_of_quotes_all_arrive_whole_and_in_order() {
    let home = peer_tests::home!();
    roomy(&home);
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    orion.register();
    orion.kill();
    let text = "\"".repeat(61_440);
    let sent: Vec<String> = (0..100)
        .map(|_| {
            luna.call("send_message", json!({"to": "orion", "message": text}))
                .success()
                .message_id()
        })
        .collect();
    let refused = luna.call("send_message", json!({"to": "orion", "message": "\"".repeat(61_441)}));
    assert!(refused.is_error && refused.text.contains("61440"), "{}", refused.text);

    let orion = home.codex("orion");
    let mut shown: Vec<String> = Vec::new();
    while shown.len() < sent.len() {
        let mail = orion.call("check_messages", json!({})).success().text;
        assert!(
            mail.chars().count() <= RESULT_CHARS_MAX,
            "a block of {} characters",
            mail.chars().count()
        );
        let ids = headers(&mail);
        assert!(!ids.is_empty(), "{} of {} shown, then: {mail}", shown.len(), sent.len());
        shown.extend(ids);
    }
    assert_eq!(shown, sent);

    // The first and the last, to their ends, in parts.
    for id in [&sent[0], &sent[99]] {
        let (mut offset, mut quotes) = (0, 0);
        while offset < text.len() {
            let part = orion
                .call("check_messages", json!({"message_id": id, "offset": offset}))
                .success()
                .text;
            let got: usize = part
                .lines()
                .filter_map(|line| line.strip_prefix("| "))
                .map(|line| line.matches('"').count())
                .sum();
            assert!(
                got > 0 && part.chars().count() <= RESULT_CHARS_MAX,
                "at {offset}: {part:.200}"
            );
            quotes += got;
            offset += got;
        }
        assert_eq!(quotes, text.len(), "every character of {id}");
    }
}

#[test]
fn ten_thousand_small_ones_all_arrive_in_order() {
    let home = peer_tests::home!();
    roomy(&home);
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    orion.register();
    orion.kill();
    const MESSAGES: usize = 10_000;
    let mut sent = Vec::new();
    let mut calls = std::collections::VecDeque::new();
    for n in 0..MESSAGES {
        calls.push_back(luna.submit_call(
            "send_message",
            json!({"to": "orion", "message": format!("number {n}")}),
            json!({}),
        ));
        if calls.len() == 64 {
            let call = calls.pop_front().expect("some are under way");
            sent.push(luna.result(call, peer_tests::PATIENCE).success().message_id());
        }
    }
    for call in calls {
        sent.push(luna.result(call, peer_tests::PATIENCE).success().message_id());
    }
    let orion = home.codex("orion");
    let mut numbers = Vec::new();
    while numbers.len() < MESSAGES {
        let mail = orion.call("check_messages", json!({})).success().text;
        assert!(
            mail.chars().count() <= RESULT_CHARS_MAX,
            "a block of {} characters",
            mail.chars().count()
        );
        let before = numbers.len();
        numbers.extend(headers(&mail));
        assert!(numbers.len() > before, "{before} shown, then: {mail}");
    }
    sent.sort();
    assert_eq!(numbers, sent, "all of them, each once, in the order in which they were accepted");
    // What is stored does not stop a send.
    let _ = luna.call("send_message", json!({"to": "orion", "message": "one more"})).success();
}
