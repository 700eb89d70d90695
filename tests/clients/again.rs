//! `codex exec` that ends with mail unproved and is started again at once, under the same name: for
//! a second and a half the adapter of the first one still looks for its last words.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_tests::clients::{Call, Gate, Program, Stage, Step, call, fail, say};
use serde_json::{Value, json};

/// How long the adapter of a client that has ended may still be there.
const STILL_THERE: Duration = Duration::from_millis(1_500);

/// What stands in the header of a repeat. Our instructions have the words in brackets too.
const MARKED: &str = "· 13 chars (shown before)";

fn list() -> Call {
    Call::peers("list_peers", json!({}))
}

/// Everybody who is known: name and id.
#[track_caller]
fn peers(stage: &Stage) -> Vec<(String, Value)> {
    let peers = stage.home.peerctl(&["peers", "--all", "--json"]).success().json();
    let peers = peers.as_array().expect("peers are listed").iter();
    peers
        .map(|peer| {
            (peer["name"].as_str().expect("a peer has a name").to_owned(), peer["id"].clone())
        })
        .collect()
}

/// The first session's model is given one message by a tool result, and answers that with `last`;
/// another message waits. Then `end` brings the program to its end, and so long after that it is
/// started again.
fn is_luna_again(last: impl FnOnce(&Gate) -> Step, end: impl FnOnce(&Program), later: Duration) {
    let stage = peer_tests::stage!();
    stage.leave_only("tool_result");
    let (calls, never) = (Gate::new(), Gate::new());
    let steps = [call(Call::shell("true")), call(list()).held(&calls), last(&never)];
    let talk = stage.model.talk("first-begin", steps);
    let news = stage.news();
    let first = stage.codex().name("luna").exec("first-begin");
    talk.request(1);
    let before = peers(&stage);
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(before[0].0, "luna");
    let shown = stage.send("luna", "which bcrypt?");
    calls.open();
    assert_eq!(talk.request(2).count("| which bcrypt?"), 1);
    let _ = news.wait("offered", &shown);
    let waits = stage.send("luna", "and which argon?");
    end(&first);
    let _ = first.wait();
    let ended = Instant::now();
    assert_eq!(
        stage.trace(&shown).last().map(String::as_str),
        Some("offered tool_result"),
        "nothing proves that it was seen"
    );

    let begins = [call(list()), call(list()), say("done")];
    let talk = stage.model.talk("second-begin", begins);
    thread::sleep(later.saturating_sub(ended.elapsed()));
    let second = stage.codex().name("luna").exec("second-begin");
    assert!(ended.elapsed() < STILL_THERE, "it was not started at once: {:?}", ended.elapsed());
    let request = talk.request_with("| which bcrypt?");
    assert!(
        request.count("| which bcrypt?") == 1 && request.shows(MARKED),
        "it may have been seen, and the repeat says so"
    );
    assert!(
        request.shows("| and which argon?") && !request.shows("16 chars (shown before)"),
        "this one was not"
    );
    for id in [&shown, &waits] {
        let _ = news.wait("presented", id);
    }
    let _ = second.wait().success();
    assert_eq!(peers(&stage), before, "it is who it was, and nobody else came");
    never.open();
}

fn killed(later: Duration) {
    let end = |first: &Program| {
        kill(Pid::from_raw(first.pid.cast_signed()), Signal::SIGKILL).expect("kill codex")
    };
    is_luna_again(|never| say("never heard").held(never), end, later);
}

/// The model's service refuses the request that had the message.
fn failed(later: Duration) {
    is_luna_again(|_| fail(500), |_| {}, later);
}

#[test]
fn a_codex_that_was_killed_with_mail_unproved_is_luna_again_at_once() {
    killed(Duration::ZERO);
}

#[test]
fn a_codex_that_was_killed_with_mail_unproved_is_luna_again_a_second_later() {
    killed(Duration::from_secs(1));
}

#[test]
fn a_codex_that_failed_with_mail_unproved_is_luna_again_at_once() {
    failed(Duration::ZERO);
}

#[test]
fn a_codex_that_failed_with_mail_unproved_is_luna_again_a_second_later() {
    failed(Duration::from_secs(1));
}
