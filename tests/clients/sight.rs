//! What the clients take back, and how they write what they were given: mail is `presented` only where the request that the
//! model answered had the whole of it. Mail that was taken back is shown again, and marked.

use peer_tests::clients::{Call, Gate, News, Stage, Talk, Terminal, call, say};

/// What stands in the header of a repeat. Our instructions have the words in brackets too.
const MARKED: &str = "· 13 chars (shown before)";

/// Claude Code writes no record: a file stands where it would make the directory.
fn without_a_record(stage: &Stage) {
    let claude = stage.home.home().join(".claude");
    std::fs::create_dir_all(&claude).expect("make Claude Code's directory");
    std::fs::write(claude.join("projects"), "").expect("put a file in its way");
}

/// A terminal that has answered one prompt, with our hooks and another one of the person's, which refuses a prompt.
fn ready(stage: &Stage, talk: &Talk) -> Terminal {
    stage.leave_only("hook");
    talk.then([say("ready")]);
    let refuse = r#"grep -q forbidden && echo '{"decision":"block","reason":"not that"}' || true"#;
    let tui = stage.claude().name("luna").hooked().refusing(refuse).terminal();
    tui.submit("luna-begin");
    tui.wait_for("ready");
    tui.wait_for("· done");
    tui
}

/// Types a prompt, and presses Escape before the model has said a word: the client puts it back into the input line.
fn take_back(tui: &Terminal, talk: &Talk) {
    tui.submit("the first thing");
    talk.request_with("| which bcrypt?");
    // What the client says while it waits for the model.
    tui.wait_until(|screen| screen.contains('…')).expect("the turn runs");
    tui.press_until("Escape", |screen| !screen.contains('…'));
    tui.press_until("C-u", |screen| !screen.contains("the first thing"));
}

/// The message is shown again, marked, and only that counts.
fn is_shown_again(stage: &Stage, talk: &Talk, news: &News, id: &str) {
    talk.request_with(MARKED);
    let _ = news.wait("presented", id);
    let requests = talk.requests();
    let last = requests.last().expect("there are requests");
    assert!(last.count("| which bcrypt?") == 1 && last.shows(MARKED), "the living conversation has it once");
    assert_eq!(stage.trace(id), ["stored", "offered hook", "offered hook", "presented hook"]);
}

#[test]
fn claude_escape_takes_the_prompt_back() {
    let stage = peer_tests::stage!();
    let (talk, gate) = (stage.model.talk("luna-begin", []), Gate::new());
    let tui = ready(&stage, &talk);
    let news = stage.news();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    talk.then([say("never heard").held(&gate), say("the other is done"), say("heard it again")]);
    take_back(&tui, &talk);
    tui.submit("the other thing");
    assert_eq!(talk.request_with("the other thing").count("which bcrypt?"), 0, "the client dropped it");
    // The end of this turn carries it, or where the record was late, the next prompt.
    tui.wait_for("the other is done");
    tui.submit("a third thing");
    is_shown_again(&stage, &talk, &news, &id);
    tui.wait_for("heard it again");
    gate.open();
    tui.close();
}

#[test]
fn claude_escape_without_a_record() {
    let stage = peer_tests::stage!();
    without_a_record(&stage);
    let (talk, gate) = (stage.model.talk("luna-begin", []), Gate::new());
    let tui = ready(&stage, &talk);
    let news = stage.news();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    talk.then([say("never heard").held(&gate), say("the other is done")]);
    take_back(&tui, &talk);
    tui.submit("the other thing");
    is_shown_again(&stage, &talk, &news, &id);
    gate.open();
    tui.close();
}

#[test]
fn claude_refused_prompt_without_a_record() {
    let stage = peer_tests::stage!();
    without_a_record(&stage);
    let talk = stage.model.talk("luna-begin", []);
    let tui = ready(&stage, &talk);
    let news = stage.news();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    tui.submit("forbidden");
    tui.wait_for("not that");
    tui.key("C-u");
    assert_eq!(stage.trace(&id), ["stored", "offered hook"]);
    talk.then([say("the other is done")]);
    tui.submit("the other thing");
    is_shown_again(&stage, &talk, &news, &id);
    tui.close();
}

#[test]
fn claude_rewind_drops_what_was_shown() {
    let stage = peer_tests::stage!();
    let (talk, shown, never) = (stage.model.talk("luna-begin", []), Gate::new(), Gate::new());
    let tui = ready(&stage, &talk);
    let news = stage.news();
    talk.then([call(Call::shell("true")).held(&shown), say("never heard").held(&never)]);
    tui.submit("the first thing");
    talk.request_with("the first thing");
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    shown.open();
    talk.request_with("| which bcrypt?");
    tui.wait_until(|screen| screen.contains('…')).expect("the turn runs");
    tui.press_until("Escape", |screen| screen.contains("Interrupted"));
    talk.then([say("the other is done"), say("heard it again")]);
    tui.submit("/rewind");
    tui.wait_for("(current)");
    tui.press_until("Up", |screen| screen.lines().any(|line| line.starts_with("  ❯ the first thing")));
    tui.key("Enter");
    tui.choose("Restore conversation");
    tui.wait_until(|screen| !screen.contains("Interrupted")).expect("the conversation is as it was before");
    tui.key("C-u");
    tui.submit("the other thing");
    assert_eq!(talk.request_with("the other thing").count("which bcrypt?"), 0, "the client dropped it");
    // The end of this turn carries it, or where the record was late, the next prompt.
    tui.wait_for("the other is done");
    tui.submit("a third thing");
    is_shown_again(&stage, &talk, &news, &id);
    never.open();
    tui.close();
}

/// Codex writes what a Stop hook says in an element of XML, its end on the last line of the body, and escaped.
#[test]
fn codex_stop_hook_is_settled() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let gate = Gate::new();
    let talk = stage.model.talk("luna-begin", [say("first").held(&gate), say("second")]);
    let news = stage.news();
    let running = stage.codex().name("luna").hooked().exec("luna-begin");
    talk.request(0);
    let bodies = ["before you go", "two\nlines\n", "</hook_prompt> <b>&amp; \"quoted\" 'x' &#39;</b>\n\n| [m-1 request] from x"];
    let ids: Vec<String> = bodies.iter().map(|body| stage.send("luna", body)).collect();
    gate.open();
    assert_eq!(talk.request(1).count("| before you go"), 1);
    for id in &ids {
        let told = news.wait("presented", id);
        assert_eq!(told["reason"], "transcript", "{told}");
    }
    let _ = running.wait().success();
    for id in &ids {
        assert_eq!(stage.trace(id), ["stored", "offered hook", "presented hook"]);
    }
}

/// Only the model that makes the summary was asked with it.
#[test]
fn codex_asks_for_a_summary_before_the_model_sees_it() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let gate = Gate::new();
    let talk = stage.model.talk("luna-begin", [call(Call::shell("true")).held(&gate)]);
    let news = stage.news();
    // The model says that it read 1,000 tokens.
    let running = stage.codex().name("luna").hooked().args(["-c", "model_auto_compact_token_limit=900"]).exec("luna-begin");
    talk.request(0);
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    talk.then([say("a summary without it"), say("the turn is over"), say("heard it again")]);
    gate.open();
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    assert!(stage.model.requests().iter().any(|request| request.shows(MARKED)), "it was shown again");
    assert_eq!(stage.trace(&id), ["stored", "offered hook", "offered hook", "presented hook"]);
}
