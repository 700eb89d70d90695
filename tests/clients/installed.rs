//! What `peerctl setup` writes, as the real programs read it: the model is offered our tools, may
//! use them without a dialog, and gets mail between two steps; and after `--undo` the program is as
//! it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use peer_tests::clients::{Call, Gate, Request, Stage, call, latency, say};
use serde_json::json;

/// The prompts that a script answers.
const PROMPT: &str = "luna-begin";

/// Runs `peerctl setup` for one client, as a person who says yes.
fn set_up(stage: &Stage, client: &str) {
    let outcome = stage.home.peerctl(&["setup", client, "--yes"]).success();
    assert!(!outcome.stdout.is_empty(), "a person is told what was written: {outcome:?}");
    let _ = stage.home.peerctl(&["setup", client, "--check"]).success();
}

/// The files of a client's directory that a person calls theirs, with their content. What the
/// programs write of themselves while they run is left out by looking only before and after.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.insert(
                    path.to_string_lossy().into_owned(),
                    fs::read(&path).unwrap_or_default(),
                );
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, &mut found);
    found
}

fn is_offered_our_tools(request: &Request) -> bool {
    request.tools().iter().any(|(name, _)| name.ends_with("peers__send_message"))
}

#[test]
fn claude_has_our_tools_and_asks_nobody_before_it_uses_them() {
    let stage = peer_tests::stage!();
    set_up(&stage, "claude");
    let hello = json!({"to": "human", "message": "hello, my person"});
    let steps = [
        call(Call::peers("send_message", hello)),
        call(Call::peers("check_messages", json!({}))),
        say("done"),
    ];
    let talk = stage.model.talk(PROMPT, steps);
    let _ = stage.claude().unwired().asking().name("luna").print(PROMPT).wait().success();
    assert!(is_offered_our_tools(&talk.request(0)), "the plugin is not loaded");
    let results = talk.request(2).results();
    assert!(results[0].text.contains("- human: stored"), "{results:?}");
    assert!(results[1].text.contains("No new messages"), "{results:?}");
    assert_eq!(stage.home.peerctl(&["inbox", "me", "--json"]).success().json()[0]["from"], "luna");
}

#[test]
fn claude_gets_mail_between_two_steps() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    set_up(&stage, "claude");
    let gate = Gate::new();
    let talk = stage.model.talk(PROMPT, [call(Call::shell("true")).held(&gate), say("done")]);
    let running = stage.claude().unwired().name("luna").print(PROMPT);
    talk.request(0);
    let sent = Instant::now();
    let _ = stage.home.peerctl(&["send", "luna", "between two steps"]).success();
    gate.open();
    let request = talk.request(1);
    assert_eq!(request.count("| between two steps"), 1, "{}", stage.model.story());
    latency("claude", "hook", sent, &request);
    let _ = running.wait().success();
}

fn codex_has_our_tools(in_code_mode: bool) {
    let stage = peer_tests::stage!();
    let codex = || {
        let codex = stage.codex().unwired().name("luna");
        if in_code_mode { codex.in_code_mode() } else { codex }
    };
    codex().configure();
    set_up(&stage, "codex");
    let hello = json!({"to": "human", "message": "hello, my person"});
    let talk = stage.model.talk(PROMPT, [call(Call::peers("send_message", hello)), say("done")]);
    let _ = codex().exec(PROMPT).wait().success();
    assert!(
        is_offered_our_tools(&talk.request(0)),
        "our tools are hidden:\n{}",
        talk.request(0).body
    );
    let results = talk.request(1).results();
    assert!(results[0].text.contains("- human: stored"), "{results:?}");
    assert_eq!(stage.home.peerctl(&["inbox", "me", "--json"]).success().json()[0]["from"], "luna");
}

#[test]
fn codex_has_our_tools_and_asks_nobody_before_it_uses_them() {
    codex_has_our_tools(false);
}

#[test]
fn codex_in_code_mode_has_our_tools_and_asks_nobody_before_it_uses_them() {
    codex_has_our_tools(true);
}

/// The person trusts hooks in the program; this option says that for one run.
#[test]
fn codex_gets_mail_between_two_steps_by_hooks_that_are_trusted() {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    stage.codex().unwired().configure();
    set_up(&stage, "codex");
    let gate = Gate::new();
    let talk = stage.model.talk(PROMPT, [call(Call::shell("true")).held(&gate), say("done")]);
    let running =
        stage.codex().unwired().name("luna").args(["--dangerously-bypass-hook-trust"]).exec(PROMPT);
    talk.request(0);
    let sent = Instant::now();
    let _ = stage.home.peerctl(&["send", "luna", "between two steps"]).success();
    gate.open();
    let request = talk.request(1);
    assert_eq!(request.count("| between two steps"), 1, "{}", stage.model.story());
    latency("codex", "hook", sent, &request);
    let _ = running.wait().success();
}

#[test]
fn after_undo_claude_is_as_it_was() {
    let stage = peer_tests::stage!();
    let settings = stage.home.home().join(".claude/settings.json");
    fs::create_dir_all(settings.parent().expect("it lies in a directory")).expect("make it");
    fs::write(
        &settings,
        "{\n\t\"permissions\": {\"allow\": [\"WebFetch\"] },\n  \"model\":\"opus\" }",
    )
    .expect("write settings");
    let dir = stage.home.home().join(".claude");
    let before = files(&dir);
    set_up(&stage, "claude");
    assert_ne!(files(&dir), before);
    let _ = stage.home.peerctl(&["setup", "claude", "--undo", "--yes"]).success();
    assert_eq!(files(&dir), before);

    let talk = stage.model.talk(PROMPT, [say("done")]);
    let _ = stage.claude().unwired().print(PROMPT).wait().success();
    assert!(!talk.request(0).shows("peers__"), "{}", stage.model.story());
}

#[test]
fn after_undo_codex_is_as_it_was() {
    let stage = peer_tests::stage!();
    let own = "# mine\n[mcp_servers.other]\ncommand = \"true\"  # keep\nenabled=false\n";
    stage.codex().unwired().config(own).configure();
    let dir = stage.home.home().join(".codex");
    let before = files(&dir);
    set_up(&stage, "codex");
    assert_ne!(files(&dir), before);
    let _ = stage.home.peerctl(&["setup", "codex", "--undo", "--yes"]).success();
    assert_eq!(files(&dir), before);

    let talk = stage.model.talk(PROMPT, [say("done")]);
    let _ = stage.codex().unwired().exec(PROMPT).wait().success();
    assert!(!talk.request(0).body.to_string().contains("mcp__peers"), "{}", stage.model.story());
}
