//! Claude Code's sessions: which peer one is, over all that a person does with it, and what becomes
//! of its mail. The hooks are commands here, as they are where the client has no better form.

use peer_tests::clients::{Call, Claude, Gate, call, calls, say};
use serde_json::{Value, json};

/// Each time the client goes on under another id of its own, and nobody but its hooks and its
/// registry tells.
fn stays_the_same_peer_when_cleared_twice(start: impl FnOnce(Claude<'_>) -> Claude<'_>) {
    let stage = peer_tests::stage!();
    let talk = stage.model.talk("luna-begin", [say("ready")]);
    let tui = start(stage.claude().name("luna")).terminal();
    tui.submit("luna-begin");
    tui.wait_for("ready");
    talk.request(0);
    let before = stage.home.peerctl(&["peers", "luna", "--json"]).success().json();
    for turn in ["first-turn", "second-turn"] {
        tui.submit("/clear");
        tui.wait_for("❯");
        let talk = stage
            .model
            .talk(turn, [call(Call::peers("list_peers", json!({}))), say(&format!("{turn} done"))]);
        let news = stage.news();
        tui.submit(turn);
        talk.request(1);
        let id = stage.send("luna", &format!("after {turn}"));
        talk.then([call(Call::peers("list_peers", json!({}))), say("and again")]);
        tui.wait_for(&format!("{turn} done"));
        tui.submit("once more");
        talk.request_with(&format!("| after {turn}"));
        let _ = news.wait("presented", &id);
    }
    let after = stage.home.peerctl(&["peers", "--json"]).success().json();
    let after: Vec<&Value> = after
        .as_array()
        .expect("peers are listed")
        .iter()
        .filter(|peer| peer["name"] != "human")
        .collect();
    assert_eq!(after.len(), 1, "{after:#?}");
    assert_eq!((&after[0]["id"], &after[0]["name"]), (&before[0]["id"], &json!("luna")));
    tui.close();
}

#[test]
fn a_session_that_is_cleared_twice_stays_the_same_peer() {
    stays_the_same_peer_when_cleared_twice(|claude| claude.hooked());
}

#[test]
fn a_session_that_is_cleared_twice_without_hooks_stays_the_same_peer() {
    stays_the_same_peer_when_cleared_twice(|claude| claude);
}

/// The client's own session id finds the mailbox again; a copy of the session is somebody else.
#[test]
fn a_resumed_session_is_the_same_peer_and_a_fork_is_not() {
    let stage = peer_tests::stage!();
    let session = "0b5e1a52-6d5c-4b57-9a3e-1f2a3b4c5d6e";
    let talk = stage.model.talk("first-begin", []);
    let who = |prompt: &str, options: &[&str]| {
        talk.then([call(Call::peers("list_peers", json!({}))), say("done")]);
        let _ =
            stage.claude().hooked().args(options.iter().copied()).print(prompt).wait().success();
        let result = talk
            .requests()
            .last()
            .and_then(|request| request.results().pop())
            .expect("a tool was called")
            .text;
        // The session itself is listed first.
        let at = result.find("(p-").unwrap_or_else(|| panic!("no peer in {result}"));
        result[at..].split([',', ')', ' ']).next().unwrap_or_default().to_owned()
    };
    let first = who("first-begin", &["--session-id", session]);
    let again = who("go on", &["--resume", session]);
    let fork = who("go elsewhere", &["--resume", session, "--fork-session"]);
    assert_eq!(first, again);
    assert_ne!(first, fork);
}

/// The conversation is summed up and goes on under the same id.
#[test]
fn a_session_that_is_compacted_is_reached_as_before() {
    let stage = peer_tests::stage!();
    let talk = stage.model.talk("luna-begin", [say("ready")]);
    let news = stage.news();
    let tui = stage.claude().name("luna").hooked().terminal();
    tui.submit("luna-begin");
    tui.wait_for("ready");
    // The summary is asked for in the same conversation.
    talk.then([say("<summary>luna-begin, and nothing else</summary>"), say("woken")]);
    tui.submit("/compact");
    tui.wait_for("ompacted");
    let after = stage.model.talk("wake up, luna", [say("woken")]);
    let id = stage.send("luna", "wake up, luna");
    let _ = news.wait("presented", &id);
    tui.wait_for("woken");
    drop(after);
    tui.close();
}

/// Escape ends the turn; what the client had queued must neither get lost nor be taken for seen.
#[test]
fn a_turn_that_is_interrupted_loses_nothing() {
    let stage = peer_tests::stage!();
    stage.leave_only("inbox_socket");
    let gate = Gate::new();
    let talk =
        stage.model.talk("luna-begin", [call(Call::shell("true")), say("never heard").held(&gate)]);
    let news = stage.news();
    let tui = stage.claude().name("luna").hooked().terminal();
    tui.submit("luna-begin");
    talk.request(1);
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("offered", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket"]);
    talk.then([say("heard it")]);
    tui.key("Escape");
    gate.open();
    let request = talk.request_with("| which bcrypt?");
    // The post is on trial, and a hook may carry it as well.
    assert!((1..=2).contains(&request.count("| which bcrypt?")));
    let _ = news.wait("presented", &id);
    tui.close();
}

/// The client dies with the message in its hands; whoever sits in that seat next is shown it, and
/// told that it may be a repeat.
#[test]
fn a_client_that_dies_leaves_its_mail_to_the_next_session() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let (gate, never) = (Gate::new(), Gate::new());
    let steps = [
        call(Call::shell("true")),
        call(Call::shell("true")).held(&gate),
        say("never heard").held(&never),
    ];
    let talk = stage.model.talk("first-begin", steps);
    let news = stage.news();
    let running = stage.claude().name("luna").hooked().print("first-begin");
    talk.request(1);
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    talk.request_with("| which bcrypt?");
    drop(running);
    // Before that the name is the dead one's, and the next session would have to take another.
    news.wait_offline("luna");
    let talk = stage.model.talk("second-begin", [say("done")]);
    let running = stage.claude().name("luna").hooked().print("second-begin");
    let request = talk.request_with("| which bcrypt?");
    assert!(request.shows("(shown before)"), "a repeat says so");
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    assert_eq!(
        stage.trace(&id),
        ["stored", "offered hook", "returned", "offered hook", "presented hook"]
    );
}

/// A plugin and an entry of the person's own, say: both adapters belong to one client process.
#[test]
fn two_adapters_of_one_session_are_one_peer_and_show_a_message_once() {
    let stage = peer_tests::stage!();
    let peers = json!({"type": "stdio", "command": stage.peerctl(), "args": ["mcp"]});
    let config = json!({"mcpServers": {"peers": peers, "again": peers}}).to_string();
    let gate = Gate::new();
    let again = |tool: &str| Call::named(&format!("mcp__again__{tool}"), json!({}));
    let steps = [
        call(Call::shell("true")),
        calls([Call::named("mcp__peers__list_peers", json!({})), again("list_peers")]).held(&gate),
        call(again("set_summary")),
        say("done"),
    ];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let claude = stage.claude().name("luna").hooked().unwired();
    let options = [
        "--mcp-config",
        &config,
        "--strict-mcp-config",
        "--allowedTools",
        "mcp__peers,mcp__again,Bash",
    ];
    let running = claude.args(options).print("luna-begin");
    talk.request(1);
    let listed = stage.home.peerctl(&["peers", "--json"]).success().json();
    let names: Vec<&str> =
        listed.as_array().into_iter().flatten().filter_map(|peer| peer["name"].as_str()).collect();
    assert_eq!(names, ["luna"]);
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    let last = talk.requests().pop().expect("there are requests");
    let marked = last.count("13 chars (shown before)");
    assert_eq!(
        last.count("| which bcrypt?"),
        1 + marked,
        "once, or once more with a mark while the first post is on trial"
    );
    assert!(marked <= 1);
    assert!(!last.shows("more waits"), "the one that takes no mail says that some waits");
}

/// The registry and the records are where the person moved them.
#[test]
fn a_client_whose_files_were_moved_is_reached_all_the_same() {
    let stage = peer_tests::stage!();
    stage.leave_only("inbox_socket");
    let gate = Gate::new();
    let steps = [call(Call::shell("true")), call(Call::shell("true")).held(&gate), say("done")];
    let talk = stage.model.talk("luna-begin", steps);
    let news = stage.news();
    let elsewhere = stage.home.root().join("elsewhere");
    let claude = stage.claude().name("luna").env("CLAUDE_CONFIG_DIR", &elsewhere.to_string_lossy());
    let running = claude.print("luna-begin");
    talk.request(1);
    let id = stage.send("luna", "which bcrypt?");
    gate.open();
    talk.request_with("| which bcrypt?");
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket", "presented inbox_socket"]);
}
