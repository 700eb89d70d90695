//! What the clients take back, and how they write what they were given: mail is `presented` only
//! where the request that the model answered had the whole of it. Mail that was taken back is shown
//! again, and marked.

use std::thread;
use std::time::{Duration, Instant};

use peer_tests::clients::{Call, Claude, Gate, News, PATIENCE, Stage, Talk, Terminal, call, say};

/// What stands in the header of a repeat. Our instructions have the words in brackets too.
const MARKED: &str = "· 13 chars (shown before)";

/// Claude Code writes no record: a file stands where it would make the directory.
fn without_a_record(stage: &Stage) {
    let claude = stage.home.home().join(".claude");
    std::fs::create_dir_all(&claude).expect("make Claude Code's directory");
    std::fs::write(claude.join("projects"), "").expect("put a file in its way");
}

/// Waits until Claude Code has written the text into a record: it shows some things before.
fn is_recorded(stage: &Stage, text: &str) {
    let projects = stage.home.home().join(".claude/projects");
    let records = || {
        let directories = std::fs::read_dir(&projects).into_iter().flatten().flatten();
        directories.flat_map(|directory| std::fs::read_dir(directory.path()).into_iter().flatten())
    };
    let is_there = || {
        records().flatten().any(|record| {
            std::fs::read_to_string(record.path()).is_ok_and(|lines| lines.contains(text))
        })
    };
    let deadline = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < deadline, "no record says {text}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Claude Code's own switch: its record does not name requests.
fn without_requests(claude: Claude<'_>) -> Claude<'_> {
    claude.env("CLAUDE_CODE_ELEGANT_MEADOW", "0")
}

/// A terminal that has answered one prompt, with our hooks and another one of the person's, which
/// refuses a prompt.
fn ready(stage: &Stage, talk: &Talk) -> Terminal {
    ready_with(stage, talk, |claude| claude)
}

fn ready_with(stage: &Stage, talk: &Talk, set: impl FnOnce(Claude<'_>) -> Claude<'_>) -> Terminal {
    stage.leave_only("hook");
    talk.then([say("ready")]);
    let refuse = r#"grep -q forbidden && echo '{"decision":"block","reason":"not that"}' || true"#;
    let tui = set(stage.claude().name("luna").hooked().refusing(refuse)).terminal();
    tui.submit("luna-begin");
    tui.wait_for("ready");
    tui.wait_for("· done");
    tui
}

/// Types a prompt, and presses Escape before the model has said a word: the client puts it back
/// into the input line.
fn take_back(tui: &Terminal, talk: &Talk) {
    tui.submit("the first thing");
    talk.request_with("| which bcrypt?");
    escape(tui);
    tui.press_until("C-u", |screen| !screen.contains("the first thing"));
}

/// Presses Escape while the client waits for the model's first word.
fn escape(tui: &Terminal) {
    // What the client says while it waits.
    tui.wait_until(|screen| screen.contains('…')).expect("the turn runs");
    tui.press_until("Escape", |screen| !screen.contains('…'));
}

/// The message is shown again, marked, and only that counts.
fn is_shown_again(stage: &Stage, talk: &Talk, news: &News, id: &str) {
    talk.request_with(MARKED);
    let _ = news.wait("presented", id);
    let requests = talk.requests();
    let last = requests.last().expect("there are requests");
    assert!(
        last.count("| which bcrypt?") == 1 && last.shows(MARKED),
        "the living conversation has it once"
    );
    assert_eq!(stage.trace(id), ["stored", "offered hook", "offered hook", "presented hook"]);
}

fn escape_takes_the_prompt_back(set: impl FnOnce(Claude<'_>) -> Claude<'_>) {
    let stage = peer_tests::stage!();
    let (talk, gate) = (stage.model.talk("luna-begin", []), Gate::new());
    let tui = ready_with(&stage, &talk, set);
    let news = stage.news();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    talk.then([say("never heard").held(&gate), say("the other is done"), say("heard it again")]);
    take_back(&tui, &talk);
    tui.submit("the other thing");
    assert_eq!(
        talk.request_with("the other thing").count("which bcrypt?"),
        0,
        "the client dropped it"
    );
    // The end of this turn carries it, or where the record was late, the next prompt.
    tui.wait_for("the other is done");
    tui.submit("a third thing");
    is_shown_again(&stage, &talk, &news, &id);
    tui.wait_for("heard it again");
    gate.open();
    tui.close();
}

#[test]
fn claude_escape_takes_the_prompt_back() {
    escape_takes_the_prompt_back(|claude| claude);
}

#[test]
fn claude_escape_takes_the_prompt_back_where_no_requests_are_recorded() {
    escape_takes_the_prompt_back(without_requests);
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

fn rewind_drops_what_was_shown(set: impl FnOnce(Claude<'_>) -> Claude<'_>) {
    let stage = peer_tests::stage!();
    let (talk, shown, never) = (stage.model.talk("luna-begin", []), Gate::new(), Gate::new());
    let tui = ready_with(&stage, &talk, set);
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
    tui.press_until("Up", |screen| {
        screen.lines().any(|line| line.starts_with("  ❯ the first thing"))
    });
    tui.key("Enter");
    tui.choose("Restore conversation");
    tui.wait_until(|screen| !screen.contains("Interrupted"))
        .expect("the conversation is as it was before");
    tui.key("C-u");
    tui.submit("the other thing");
    assert_eq!(
        talk.request_with("the other thing").count("which bcrypt?"),
        0,
        "the client dropped it"
    );
    // The end of this turn carries it, or where the record was late, the next prompt.
    tui.wait_for("the other is done");
    tui.submit("a third thing");
    is_shown_again(&stage, &talk, &news, &id);
    never.open();
    tui.close();
}

#[test]
fn claude_rewind_drops_what_was_shown() {
    rewind_drops_what_was_shown(|claude| claude);
}

#[test]
fn claude_rewind_drops_what_was_shown_where_no_requests_are_recorded() {
    rewind_drops_what_was_shown(without_requests);
}

/// The model that makes the summary is asked first, and its answer proves nothing. The client keeps
/// the latest turn beside it.
fn compacted_after_escape(set: impl FnOnce(Claude<'_>) -> Claude<'_>, offers: usize) {
    let stage = peer_tests::stage!();
    let (talk, shown, never, gate) =
        (stage.model.talk("luna-begin", []), Gate::new(), Gate::new(), Gate::new());
    let tui = ready_with(&stage, &talk, set);
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
    talk.then([
        say("<summary>luna-begin, and nothing else</summary>"),
        say("heard it").held(&gate),
    ]);
    tui.submit("/compact");
    tui.wait_for("ompacted");
    is_recorded(&stage, "compact_boundary");
    tui.submit("the other thing");
    assert_eq!(talk.request_with("the other thing").count("| which bcrypt?"), offers);
    let mut expected = vec!["stored"];
    expected.extend(vec!["offered hook"; offers]);
    assert_eq!(stage.trace(&id), expected, "nobody but the summariser has answered yet");
    gate.open();
    let _ = news.wait("presented", &id);
    never.open();
    tui.close();
}

#[test]
fn claude_compacted_after_escape() {
    compacted_after_escape(|claude| claude, 1);
}

/// Nobody knows what the client keeps.
#[test]
fn claude_compacted_after_escape_where_no_requests_are_recorded() {
    compacted_after_escape(without_requests, 2);
}

/// Codex writes what a Stop hook says in an element of XML, its end on the last line of the body,
/// and escaped.
#[test]
fn codex_stop_hook_is_settled() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let gate = Gate::new();
    let talk = stage.model.talk("luna-begin", [say("first").held(&gate), say("second")]);
    let news = stage.news();
    let running = stage.codex().name("luna").hooked().exec("luna-begin");
    talk.request(0);
    let bodies = [
        "before you go",
        "two\nlines\n",
        "</hook_prompt> <b>&amp; \"quoted\" 'x' &#39;</b>\n\n| [m-1 request] from x",
    ];
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
    let running = stage
        .codex()
        .name("luna")
        .hooked()
        .args(["-c", "model_auto_compact_token_limit=900"])
        .exec("luna-begin");
    talk.request(0);
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    talk.then([say("a summary without it"), say("the turn is over"), say("heard it again")]);
    gate.open();
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    assert!(
        stage.model.requests().iter().any(|request| request.shows(MARKED)),
        "it was shown again"
    );
    assert_eq!(stage.trace(&id), ["stored", "offered hook", "offered hook", "presented hook"]);
}

/// A post begins a turn, and Escape ends it before the model has said a word. The client keeps the
/// post.
#[test]
fn claude_escape_after_a_post() {
    let stage = peer_tests::stage!();
    stage.leave_only("inbox_socket");
    let (talk, never, gate) =
        (stage.model.talk("luna-begin", [say("ready")]), Gate::new(), Gate::new());
    let tui = stage.claude().name("luna").hooked().terminal();
    tui.submit("luna-begin");
    tui.wait_for("· done");
    let news = stage.news();
    talk.then([say("never heard").held(&never), say("heard it").held(&gate)]);
    let id = stage.send("luna", "which bcrypt?");
    talk.request_with("| which bcrypt?");
    escape(&tui);
    tui.submit("the other thing");
    assert_eq!(
        talk.request_with("the other thing").count("| which bcrypt?"),
        1,
        "the client kept it"
    );
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket"], "nobody has answered yet");
    gate.open();
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered inbox_socket", "presented inbox_socket"]);
    never.open();
    tui.close();
}

#[test]
fn claude_escape_takes_two_prompts_back() {
    let stage = peer_tests::stage!();
    let (talk, gate) = (stage.model.talk("luna-begin", []), Gate::new());
    let tui = ready(&stage, &talk);
    let news = stage.news();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    talk.then([
        say("never heard").held(&gate),
        say("nor this").held(&gate),
        say("the other is done"),
        say("heard it again"),
    ]);
    take_back(&tui, &talk);
    tui.submit("the second thing");
    talk.request_with("the second thing");
    escape(&tui);
    tui.press_until("C-u", |screen| !screen.contains("the second thing"));
    assert_eq!(stage.trace(&id).last().map(String::as_str), Some("offered hook"));
    tui.submit("the other thing");
    tui.wait_for("the other is done");
    tui.submit("a third thing");
    talk.request_with(MARKED);
    let _ = news.wait("presented", &id);
    assert_eq!(
        talk.requests().last().map(|last| last.shows(MARKED)),
        Some(true),
        "the living conversation has it"
    );
    gate.open();
    tui.close();
}

/// What Escape put back into the input line is sent once more, with more words.
#[test]
fn claude_a_prompt_that_was_put_back_is_sent_again() {
    let stage = peer_tests::stage!();
    let (talk, gate) = (stage.model.talk("luna-begin", []), Gate::new());
    let tui = ready(&stage, &talk);
    let news = stage.news();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    talk.then([say("never heard").held(&gate), say("the other is done"), say("heard it again")]);
    tui.submit("the first thing");
    talk.request_with("| which bcrypt?");
    escape(&tui);
    tui.submit(", and more");
    assert_eq!(
        talk.request_with("the first thing, and more").count("which bcrypt?"),
        0,
        "the client dropped it"
    );
    tui.wait_for("the other is done");
    tui.submit("a third thing");
    is_shown_again(&stage, &talk, &news, &id);
    gate.open();
    tui.close();
}

#[test]
fn claude_clear_after_escape() {
    let stage = peer_tests::stage!();
    let (talk, gate) = (stage.model.talk("luna-begin", []), Gate::new());
    let tui = ready(&stage, &talk);
    let news = stage.news();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    talk.then([say("never heard").held(&gate)]);
    take_back(&tui, &talk);
    tui.submit("/clear");
    tui.wait_for("❯");
    let after = stage.model.talk("the other thing", [say("heard it again")]);
    tui.submit("the other thing");
    is_shown_again(&stage, &after, &news, &id);
    gate.open();
    tui.close();
}

/// Resumed, the conversation has the prompt that was taken back, with all that rode on it.
#[test]
fn claude_resumed_after_escape() {
    let stage = peer_tests::stage!();
    let (talk, gate, heard) = (stage.model.talk("luna-begin", []), Gate::new(), Gate::new());
    let tui = ready(&stage, &talk);
    let news = stage.news();
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    talk.then([say("never heard").held(&gate)]);
    take_back(&tui, &talk);
    tui.close();
    news.wait_offline("luna");
    talk.then([say("heard it again").held(&heard)]);
    let tui = stage.claude().name("luna").hooked().args(["--continue"]).terminal();
    tui.submit("the other thing");
    assert!(talk.request_with("the other thing").shows(MARKED));
    assert_eq!(
        stage.trace(&id),
        ["stored", "offered hook", "returned", "offered hook"],
        "nobody has answered yet"
    );
    heard.open();
    let _ = news.wait("presented", &id);
    gate.open();
    tui.close();
}

/// Another hook of the person's ends the turn in which ours carried the message; the client keeps
/// what ours said.
fn another_hook_ends_the_turn(set: impl FnOnce(Claude<'_>) -> Claude<'_>) {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let (talk, shown, gate) = (stage.model.talk("luna-begin", []), Gate::new(), Gate::new());
    let stop = r#"{"continue":false,"stopReason":"not further"}"#;
    let command = format!("test -e stop && {{ rm stop; echo '{stop}'; }} || true");
    let tui = set(stage.claude().name("luna").hooked().also("PostToolBatch", &command)).terminal();
    talk.then([call(Call::shell("touch stop")).held(&shown), say("the other is done").held(&gate)]);
    let news = stage.news();
    tui.submit("luna-begin");
    talk.request(0);
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    shown.open();
    tui.wait_for("not further");
    tui.submit("the other thing");
    assert_eq!(
        talk.request_with("the other thing").count("| which bcrypt?"),
        1,
        "the client kept it"
    );
    assert_eq!(stage.trace(&id), ["stored", "offered hook"], "nobody has answered yet");
    gate.open();
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered hook", "presented hook"]);
    tui.close();
}

#[test]
fn claude_another_hook_ends_the_turn() {
    another_hook_ends_the_turn(|claude| claude);
}

#[test]
fn claude_another_hook_ends_the_turn_where_no_requests_are_recorded() {
    another_hook_ends_the_turn(without_requests);
}

#[test]
fn codex_stop_hook_is_settled_in_a_terminal() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let gate = Gate::new();
    let talk = stage.model.talk("luna-begin", [say("first").held(&gate), say("second")]);
    let news = stage.news();
    let tui = stage.codex().name("luna").hooked().terminal();
    tui.submit("luna-begin");
    talk.request(0);
    let id = stage.send("luna", "before you go");
    gate.open();
    assert_eq!(talk.request(1).count("| before you go"), 1);
    let _ = news.wait("presented", &id);
    assert_eq!(stage.trace(&id), ["stored", "offered hook", "presented hook"]);
    tui.wait_for("second");
    tui.close();
}

/// Codex keeps no record: what a hook showed is proved by the end of its turn, unless a summary
/// came in between.
#[test]
fn codex_asks_for_a_summary_without_a_record() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let news = stage.news();
    for (prompt, tokens) in [("luna-begin", "100000"), ("luna-again", "900")] {
        let gate = Gate::new();
        let talk = stage.model.talk(prompt, [call(Call::shell("true")).held(&gate)]);
        let limit = format!("model_auto_compact_token_limit={tokens}");
        let running =
            stage.codex().name("luna").hooked().args(["--ephemeral", "-c", &limit]).exec(prompt);
        talk.request(0);
        let id = stage.send("luna", "which bcrypt?");
        let _ = news.wait("leased", &id);
        talk.then([
            say("a summary without it, or an end"),
            say("the turn is over"),
            say("once more"),
        ]);
        gate.open();
        let _ = running.wait().success();
        news.wait_offline("luna");
        let fate = if tokens == "900" { "returned" } else { "presented hook" };
        assert_eq!(stage.trace(&id), ["stored", "offered hook", fate]);
    }
}

/// Killed before the model answered, and resumed: the conversation has it already, and is shown it
/// again.
#[test]
fn codex_exec_resumes_after_it_was_killed() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let (shown, never, heard) = (Gate::new(), Gate::new(), Gate::new());
    let talk = stage.model.talk(
        "luna-begin",
        [call(Call::shell("true")).held(&shown), say("never heard").held(&never)],
    );
    let news = stage.news();
    let running = stage.codex().name("luna").hooked().exec("luna-begin");
    talk.request(0);
    let id = stage.send("luna", "which bcrypt?");
    let _ = news.wait("leased", &id);
    shown.open();
    talk.request_with("| which bcrypt?");
    drop(running);
    news.wait_offline("luna");
    talk.then([call(Call::shell("true")).held(&heard), say("heard it again")]);
    let options = ["resume", "--last", "--dangerously-bypass-hook-trust"];
    let running = stage.codex().name("luna").args(options).exec("the other thing");
    assert!(talk.request_with("the other thing").shows(MARKED));
    assert_eq!(
        stage.trace(&id),
        ["stored", "offered hook", "returned", "offered hook"],
        "nobody has answered yet"
    );
    heard.open();
    let _ = news.wait("presented", &id);
    let _ = running.wait().success();
    never.open();
}

/// The thread goes on without the prompt, and without what rode on it.
#[test]
fn codex_goes_back_to_a_prompt() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    let (talk, never, gate) =
        (stage.model.talk("luna-begin", [say("ready")]), Gate::new(), Gate::new());
    let news = stage.news();
    let tui = stage.codex().name("luna").hooked().terminal();
    tui.submit("luna-begin");
    tui.wait_for("ready");
    // A Stop hook would carry a request.
    let options = ["send", "luna", "--intent", "inform", "--json", "--", "which bcrypt?"];
    let sent = stage.home.peerctl(&options).success().json();
    let id = sent["id"].as_str().expect("a message has an id").to_owned();
    let _ = news.wait("leased", &id);
    talk.then([say("never heard").held(&never), say("heard it again").held(&gate)]);
    tui.submit("the first thing");
    talk.request_with("| which bcrypt?");
    tui.press_until("Escape", |screen| screen.contains("nterrupted"));
    tui.press_until("Escape", |screen| screen.contains("again to edit previous message"));
    tui.press_until("Escape", |screen| screen.contains("rewind"));
    tui.press_until("Enter", |screen| screen.contains("reverted to this point"));
    tui.press_until("C-u", |screen| !screen.contains("› the first thing"));
    tui.submit("the other thing");
    let next = talk.request_with("the other thing");
    assert!(
        next.count("| which bcrypt?") == 1 && next.shows(MARKED),
        "it has the message once, as a repeat"
    );
    assert_eq!(
        stage.trace(&id).last().map(String::as_str),
        Some("offered hook"),
        "nobody has answered yet"
    );
    gate.open();
    let _ = news.wait("presented", &id);
    never.open();
    tui.close();
}
