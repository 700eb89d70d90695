//! Questions through the public contract: real adapters, and `peerctl`.

use peer_tests::{Home, Mcp, PATIENCE};
use serde_json::{Value, json};

#[track_caller]
fn two(home: &Home) -> (Mcp, Mcp) {
    (home.session("claude-code", "luna"), home.session("codex-mcp-client", "orion"))
}

/// The questions that `peerctl` lists.
#[track_caller]
fn listed(home: &Home, arguments: &[&str]) -> Vec<Value> {
    let listed = home.peerctl(&[&["questions", "--json"], arguments].concat()).success().json();
    listed.as_array().expect("questions is a list").clone()
}

#[test]
fn the_first_answer_closes_a_question_and_carries_its_sources() {
    let home = peer_tests::home!();
    let (luna, orion) = two(&home);
    let vega = home.session("some-client", "vega");
    let asked = luna
        .call("ask_peer", json!({"question": "which bcrypt version?", "to": "orion,vega", "context_hint": "package.json"}))
        .success();
    let question = asked.message_id();
    assert!(asked.text.contains(&format!("Question {question} is open")), "{}", asked.text);

    let seen = orion.call("check_messages", json!({"kind": "questions"})).success().text;
    assert!(seen.contains(&format!("[{question} question] from luna")), "{seen}");
    assert!(seen.contains("| which bcrypt version?\n| context: package.json"), "{seen}");
    // Seen is not answered: it stays on the list.
    orion.register();
    let again = orion.call("check_messages", json!({"kind": "questions"})).success().text;
    assert!(
        again.contains(&format!("Still open; check_messages(message_id=…) shows one again:\n- {question} from luna, asked ")),
        "{again}"
    );
    let _ = vega.call("check_messages", json!({})).success();

    let answer =
        json!({"question_id": question, "answer": "5.1", "sources": "package.json:12, npm ls"});
    let answered = orion.call("answer_question", answer).success().text;
    assert!(answered.contains(&format!("Question {question} is answered with m-")), "{answered}");
    let got = luna.call("check_messages", json!({"kind": "answers"})).success().text;
    assert!(
        got.contains(" answer] from orion") && got.contains(&format!("reply to {question}")),
        "{got}"
    );
    assert!(got.contains("sources: package.json:12, \"npm ls\"\n| 5.1"), "{got}");

    let late = vega.call("answer_question", json!({"question_id": question, "answer": "5.0"}));
    assert!(
        late.is_error && late.text.contains("is closed: orion answered it with m-"),
        "{}",
        late.text
    );
    let after = vega.call("check_messages", json!({"kind": "questions"})).success().text;
    assert!(!after.contains("Still open") && !after.contains(&format!("[{question} ")), "{after}");
    let rows = listed(&home, &[]);
    assert_eq!(
        (&rows[0]["state"], &rows[0]["answered"]["by"]),
        (&json!("answered"), &json!("orion"))
    );
    assert!(listed(&home, &["--open"]).is_empty());
}

#[test]
fn who_waits_gets_the_answer_and_no_sources_mean_from_memory() {
    let home = peer_tests::home!();
    let (luna, orion) = two(&home);
    let waiting = luna
        .submit("tools/call", json!({"name": "ask_peer", "arguments": {"question": "which port?", "to": "orion", "wait_s": 30}}));
    let seen = orion.call("check_messages", json!({"kind": "questions", "wait_s": 20})).success();
    let _ = orion
        .call("answer_question", json!({"question_id": seen.message_id(), "answer": "8080"}))
        .success();
    let (_, reply) = luna.reply(waiting, PATIENCE).expect("the wait ends with the answer");
    let text = reply["result"]["content"][0]["text"].as_str().expect("a text").to_owned();
    assert!(
        text.contains("The reply came: m-") && text.contains("sources: from memory\n| 8080"),
        "{text}"
    );
}

#[test]
fn an_ordinary_reply_is_an_answer_too() {
    let home = peer_tests::home!();
    let (luna, orion) = two(&home);
    let question = luna
        .call("ask_peer", json!({"question": "which host?", "to": "orion"}))
        .success()
        .message_id();
    let _ = orion
        .call("send_message", json!({"to": "luna", "reply_to": question, "message": "localhost"}))
        .success();
    let got = luna.call("check_messages", json!({"kind": "answers"})).success().text;
    assert!(got.contains(" answer] from orion") && got.contains("| localhost"), "{got}");
    assert_eq!(listed(&home, &[])[0]["state"], "answered");
}

#[test]
fn an_asker_hears_when_the_asked_session_ends_and_when_time_is_over() {
    let home = peer_tests::home!();
    let (luna, orion) = two(&home);
    let question = luna
        .call("ask_peer", json!({"question": "anybody?", "to": "orion"}))
        .success()
        .message_id();
    orion.close_stdin();
    let _ = orion.wait_exit(PATIENCE);
    let heard = luna.call("check_messages", json!({"wait_s": 20})).success().text;
    assert!(
        heard.contains(&format!(
            "| the session of orion ended without answering your question {question}"
        )),
        "{heard}"
    );
    let withdrawn = home.peerctl(&["cancel", &question]).success().stdout;
    assert!(!withdrawn.is_empty());
    assert_eq!(listed(&home, &[])[0]["state"], "cancelled");

    // Whoever starts one session alone is taken for it.
    let _vega = home.session("some-client", "vega");
    let asked = home
        .peerctl(&["questions", "ask", "--to", "luna", "--ttl", "1h", "--json", "--", "and you?"])
        .success()
        .json();
    assert_eq!(asked["deliveries"][0]["to"], "luna", "{asked:#}");
    let answer =
        home.peerctl(&["questions", "answer", asked["id"].as_str().expect("an id"), "--", "mine"]);
    assert_eq!(answer.code, 6, "nobody answers himself: {answer:?}");
}

#[test]
fn a_question_to_nobody_in_particular_goes_to_the_neighbours() {
    let home = peer_tests::home!();
    let near = home.root().join("near");
    let far = home.root().join("far");
    for dir in [&near, &far] {
        std::fs::create_dir(dir).expect("make a directory");
    }
    let session = |name: &str, dir: &std::path::Path| {
        let mcp = home
            .adapter("claude-code")
            .env("PEER_NAME", name)
            .env("PEERD_PROFILE", "full")
            .cwd(dir)
            .start();
        mcp.register();
        mcp
    };
    let luna = session("luna", &near);
    let alone = luna.call("ask_peer", json!({"question": "anybody?"}));
    assert!(
        alone.is_error
            && alone.text.contains("no other peer is online in this repository or directory"),
        "{}",
        alone.text
    );
    let _vega = session("vega", &far);
    let _orion = session("orion", &near);
    let asked = luna.call("ask_peer", json!({"question": "who knows?"})).success().text;
    assert!(asked.contains("- orion: ") && !asked.contains("- vega: "), "{asked}");
}

#[test]
fn a_channels_question_is_for_whoever_is_or_comes_there() {
    let home = peer_tests::home!();
    let (luna, orion) = two(&home);
    let _ = luna.call("channels", json!({"action": "create", "name": "#ops"})).success();
    let question =
        luna.call("ask_peer", json!({"question": "who deployed?", "to": "#ops"})).success();
    assert!(question.text.contains("no other members yet"), "{}", question.text);
    let question = question.message_id();
    let outside = orion.call("answer_question", json!({"question_id": question, "answer": "I"}));
    assert!(outside.is_error && outside.text.contains("no question"), "{}", outside.text);
    let _ = orion.call("channels", json!({"action": "join", "name": "#ops"})).success();
    let open = orion.call("check_messages", json!({"kind": "questions"})).success().text;
    assert!(open.contains(&format!("- {question} from luna to #ops, asked ")), "{open}");
    let _ = orion
        .call("answer_question", json!({"question_id": question, "answer": "I did"}))
        .success();
    let got = luna.call("check_messages", json!({"kind": "answers"})).success().text;
    assert!(got.contains("| I did"), "{got}");
}

#[test]
fn bad_arguments_are_named() {
    let home = peer_tests::home!();
    let luna = home.session("claude-code", "luna");
    for (tool, arguments, expected) in [
        ("ask_peer", json!({}), "needs the argument question"),
        ("ask_peer", json!({"question": "x", "to": "nobody-here"}), "no peer is called"),
        (
            "ask_peer",
            json!({"question": "x", "to": "human", "wait_s": "soon"}),
            "must be a whole number",
        ),
        ("ask_peer", json!({"question": "x".repeat(61_441), "to": "human"}), "and the limit is"),
        ("answer_question", json!({"answer": "x"}), "needs the argument question_id"),
        ("answer_question", json!({"question_id": "m-1", "answer": "x"}), "an id such as"),
        (
            "answer_question",
            json!({"question_id": "m-01JDK3V7QX8Z2M4T", "answer": "x"}),
            "no question m-01JDK3V7QX8Z2M4T",
        ),
        (
            "answer_question",
            json!({"question_id": "m-01JDK3V7QX8Z2M4T"}),
            "needs the argument answer",
        ),
    ] {
        let result = luna.call(tool, arguments.clone());
        assert!(
            result.is_error && result.text.contains(expected),
            "{tool} {expected}: {}",
            result.text
        );
    }
    assert_eq!(home.peerctl(&["questions", "answer", "m-01JDK3V7QX8Z2M4T", "--", "x"]).code, 4);
    assert_eq!(home.peerctl(&["questions", "--peer", "nobody-here"]).code, 4);
}
