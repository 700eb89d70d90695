//! Carriers on trial, a burst, and the order in which hooks and results of one call reach the
//! model, with the real clients.

use std::collections::BTreeMap;
use std::thread;

use peer_tests::clients::{Call, Request, Stage, Talk, call, given, say};
use serde_json::json;

/// What stands in the header of a repeat. Our instructions have the words in brackets too.
const MARKED: &str = "chars (shown before)";

fn list() -> Call {
    Call::peers("list_peers", json!({}))
}

/// All that the model is shown, one entry after the other.
fn shown(request: &Request) -> String {
    request.shown().into_iter().map(|shown| shown.text + "\n").collect()
}

/// How often each of the numbered messages stands in the conversation.
fn counts(request: &Request, messages: usize) -> BTreeMap<usize, usize> {
    let text = shown(request);
    (0..messages)
        .map(|number| (number, text.matches(&format!("| message {number} of it ")).count()))
        .collect()
}

/// The model goes on, one call after the other, until it was shown the last of so many messages.
fn works_until_it_saw_all(talk: &Talk, messages: usize, mut next: impl FnMut() -> Call) {
    let calls: Vec<Call> = (0..600).map(|_| next()).collect();
    talk.then(calls.into_iter().map(|next| {
        given(move |request| match counts(request, messages).values().all(|count| *count > 0) {
            true => say("done"),
            false => call(next),
        })
    }));
}

/// Each was shown once, but for one that was on trial; nothing is called a repeat that is none; no
/// carrier had it to lose.
#[track_caller]
fn each_is_shown_once(stage: &Stage, talk: &Talk, ids: &[String]) {
    let requests = talk.requests();
    let last = requests.last().expect("there are requests");
    let counts = counts(last, ids.len());
    let twice: Vec<usize> =
        counts.iter().filter(|(_, count)| **count != 1).map(|(number, _)| *number).collect();
    assert!(
        twice.len() <= 1,
        "not once: {:?}",
        counts.iter().filter(|(_, count)| **count != 1).collect::<Vec<_>>()
    );
    assert!(counts.values().all(|count| (1..=2).contains(count)), "{counts:?}");
    assert_eq!(
        shown(last).matches(MARKED).count(),
        twice.len(),
        "a mark for each repeat and for nothing else"
    );
    let offered_again = |id: &&String| {
        stage.trace(id).iter().filter(|step| step.starts_with("offered")).count() > 1
    };
    let offered_again: Vec<&String> = ids.iter().filter(offered_again).collect();
    assert!(offered_again.len() <= 1, "only what was on trial goes by two ways: {offered_again:?}");
}

/// Sends so many long messages, several at a time, as fast as they go.
fn burst(stage: &Stage, messages: usize) -> Vec<String> {
    let filler = "x".repeat(1_900);
    let send =
        |number: usize| (number, stage.send("luna", &format!("message {number} of it {filler}")));
    let mut sent: Vec<(usize, String)> = thread::scope(|scope| {
        let lane = |lane: usize| {
            scope.spawn(move || (lane..messages).step_by(4).map(send).collect::<Vec<_>>())
        };
        let lanes: Vec<_> = (0..4).map(lane).collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("it sends")).collect()
    });
    sent.sort_unstable();
    sent.into_iter().map(|(_, id)| id).collect()
}

/// The person may send as many as a test needs.
const MANY: &str = "[limits]\nsender_per_minute = 100000\n";

/// Claude Code drops what is posted too fast without a word, so nothing may be.
#[test]
fn claude_burst() {
    let stage = peer_tests::stage!();
    stage.home.configure(MANY);
    let talk = stage.model.talk("luna-begin", [call(Call::shell("true"))]);
    let (mut step, messages) = (0, 200);
    works_until_it_saw_all(&talk, messages, || {
        step += 1;
        if step % 5 == 0 { list() } else { Call::shell("true") }
    });
    let running = stage.claude().name("luna").hooked().print("luna-begin");
    talk.request(0);
    let ids = burst(&stage, messages);
    // A request for each patience that a busy machine may need.
    for number in (0..messages).step_by(10) {
        talk.request_with(&format!("| message {number} of it "));
    }
    let _ = running.wait().success();
    for id in &ids {
        assert_eq!(
            stage.trace(id).pop().map(|step| step.starts_with("presented")),
            Some(true),
            "{:?}",
            stage.trace(id)
        );
    }
    each_is_shown_once(&stage, &talk, &ids);
}

/// The channel that was asked for is not loaded, and the session has two steps: a hook shows the
/// mail in the second.
#[test]
fn claude_short_sessions_with_hooks_show_the_mail() {
    let stage = peer_tests::stage!();
    stage.home.configure("[adapter]\ncarriers_off = [\"inbox_socket\"]\n");
    let talk = stage.model.talk("luna-begin", [call(Call::shell("sleep 1")), say("done")]);
    let news = stage.news();
    let channel = ["--dangerously-load-development-channels", "server:peers"];
    let running = stage.claude().name("luna").hooked().args(channel).print("luna-begin");
    talk.request(0);
    let id = stage.send("luna", "which bcrypt?");
    let _ = running.wait().success();
    let last = talk.requests().pop().expect("there are requests");
    assert!(last.count("| which bcrypt?") == 1 && last.shows(MARKED), "at once, and marked");
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered channel", "offered hook", "presented hook"]);
}

/// Codex puts what a hook of a call says before what the call returned.
#[test]
fn codex_backlog_in_order() {
    let stage = peer_tests::stage!();
    stage.home.configure(MANY);
    let (messages, mut step) = (12, 0);
    let talk = stage.model.talk("luna-begin", [call(Call::shell("true"))]);
    works_until_it_saw_all(&talk, messages, || {
        step += 1;
        if step % 3 == 0 { Call::shell("true") } else { list() }
    });
    let news = stage.news();
    // Known by its name before it is there.
    let _idle = stage.model.talk("nothing to do", [say("nothing")]);
    let first = stage.codex().name("luna").hooked().exec("nothing to do");
    let _ = first.wait();
    let filler = "x".repeat(1_900);
    let ids: Vec<String> = (0..messages)
        .map(|number| stage.send("luna", &format!("message {number} of it {filler}")))
        .collect();
    let running = stage.codex().name("luna").hooked().exec("luna-begin");
    for id in &ids {
        let _ = news.wait("presented", id);
    }
    let _ = running.wait().success();
    let last = talk.requests().pop().expect("there are requests");
    let text = shown(&last);
    let places: Vec<Option<usize>> =
        (0..messages).map(|number| text.find(&format!("| message {number} of it "))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    each_is_shown_once(&stage, &talk, &ids);
}
