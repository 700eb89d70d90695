//! The main job with both real programs, wired by `peerctl setup` as a person would: Claude Code
//! asks, Codex answers, and nobody types anything but the first prompt.

use std::time::Instant;

use peer_tests::clients::{Call, Gate, News, Request, Stage, Terminal, call, given, latency, say};
use serde_json::json;

/// The id in the header of the message that holds `text`.
#[track_caller]
fn id_of(request: &Request, text: &str) -> String {
    let entry = request.entries_with(text).pop().expect("the message is shown");
    let above = entry.text[..entry.text.find(text).expect("it stands there")].to_owned();
    let header = above
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("[m-"))
        .expect("a header stands above");
    format!("m-{}", header.split(' ').next().expect("an id ends"))
}

/// A home in which `peerctl setup` has wired both. Codex has the model that it takes of itself.
fn wired() -> Stage {
    let stage = peer_tests::stage!();
    stage.codex().in_code_mode().unwired().configure();
    let _ = stage.home.peerctl(&["setup", "claude", "codex", "--yes"]).success();
    stage
}

/// Opens Codex as `sol`, whose person trusts our hooks when asked, and Claude Code as `luna`.
fn open(stage: &Stage, news: &News) -> (Terminal, Terminal) {
    let sol = stage.codex().unwired().name("sol").terminal();
    sol.choose("Trust all and continue");
    news.wait_online("sol");
    let luna = stage.claude().unwired().name("luna").terminal();
    news.wait_online("luna");
    (luna, sol)
}

#[test]
fn a_question_wakes_codex_and_its_answer_wakes_claude() {
    let stage = wired();
    let ask =
        json!({"to": "sol", "message": "which bcrypt does the lock file name?", "thread": "auth"});
    let claude = stage.model.talk(
        "luna-begin",
        [call(Call::peers("send_message", ask)), say("asked"), say("thanks, noted")],
    );
    let answer = given(|request| {
        let id = id_of(request, "| which bcrypt");
        call(Call::peers(
            "send_message",
            json!({"message": "it is 5.1.1", "reply_to": id, "sources": "package-lock.json:7"}),
        ))
    });
    // Not before Claude's turn is over: an answer that comes within it wakes nobody.
    let gate = Gate::new();
    let codex = stage.model.talk("which bcrypt", [answer.held(&gate), say("answered")]);

    let news = stage.news();
    let (luna, sol) = open(&stage, &news);
    luna.submit("luna-begin");

    let asked = codex.request(0);
    assert_eq!(asked.count("| which bcrypt does the lock file name?"), 1);
    assert!(asked.shows("request] from luna (claude"), "who asks is said by the broker");
    luna.wait_for("asked");
    let before = Instant::now();
    gate.open();
    sol.wait_for("answered");

    let answered = claude.request_with("| it is 5.1.1");
    latency("claude", "inbox_socket (a turn just ended)", before, &answered);
    // The first post of a session is on trial: the hook of the prompt that it makes carries it as
    // well, marked.
    assert!((1..=2).contains(&answered.count("| it is 5.1.1")));
    let question = id_of(&asked, "| which bcrypt");
    assert!(
        answered.shows(&format!("thread auth reply to {question}")),
        "the answer says what it answers"
    );
    luna.wait_for("thanks, noted");

    let _ = news.wait("answered", &question);
    let reply = id_of(&answered, "| it is 5.1.1");
    let _ = news.wait("presented", &reply);
    // Nothing came twice, and nobody was woken for nothing.
    assert_eq!(claude.requests().len(), 3);
    assert_eq!(codex.requests().len(), 2);
}

/// What comes while both work is in the next request of each, and wakes nobody afterwards.
#[test]
fn both_get_what_comes_while_they_work() {
    let stage = wired();
    let gate = Gate::new();
    let steps =
        || [call(Call::shell("true")).held(&gate), call(Call::shell("true")), say("all done")];
    let claude = stage.model.talk("luna-begin", steps());
    let codex = stage.model.talk("sol-begin", steps());
    let news = stage.news();
    let (luna, sol) = open(&stage, &news);
    luna.submit("luna-begin");
    sol.submit("sol-begin");
    claude.request(0);
    codex.request(0);
    let sent = Instant::now();
    let all = stage
        .home
        .peerctl(&["send", "luna,sol", "--json", "--", "the port is taken"])
        .success()
        .json();
    let id = all["id"].as_str().expect("a message has an id").to_owned();
    let _ = news.wait("offered", &id);
    let _ = news.wait("offered", &id);
    gate.open();
    luna.wait_for("all done");
    sol.wait_for("all done");
    for (client, talk) in [("claude", &claude), ("codex", &codex)] {
        let shown = talk.request_with("| the port is taken");
        latency(client, "all that setup installs", sent, &shown);
        let last = talk.requests().pop().expect("there are requests");
        // Claude Code's first post is on trial, and a hook carries it as well, marked.
        let most = if client == "claude" { 2 } else { 1 };
        assert!(
            (1..=most).contains(&last.count("| the port is taken")),
            "{client} is shown it once"
        );
        assert_eq!(talk.requests().len(), 3, "{client} is not woken again");
    }
}
