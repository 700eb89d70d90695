//! Codex with the model that it takes of itself, which calls tools from programs that it writes.
//! What a program does not print, the model never sees, although the tool was called and its result
//! was taken.

use peer_tests::clients::{Call, Codex, Stage, Talk, call, say};
use serde_json::{Value, json};

/// Runs programs, one after the other, in a session for which one message waits. Our tools are not
/// offered directly: that is how Codex has it where the configuration says nothing.
fn run(stage: &Stage, programs: &[&str]) -> Talk {
    stage.leave_only("tool_result");
    let steps = programs.iter().map(|source| call(Call::program(source))).chain([say("done")]);
    let talk = stage.model.talk("luna-begin", [call(Call::shell("true"))]);
    talk.then(steps);
    let sender = stage.home.claude("sol");
    let wake = json!({"to": "luna", "message": "crab\ncrab"});
    let running = stage.codex().in_code_mode().deferring().name("luna").exec("luna-begin");
    talk.request(0);
    let _ = sender.call("send_message", wake).success();
    let _ = running.wait().success();
    talk
}

/// What became of the one message.
fn delivery(stage: &Stage) -> Value {
    let all = stage.home.peerctl(&["history", "--json"]).success().json();
    let id = all[0]["id"].as_str().expect("a message has an id").to_owned();
    stage.home.peerctl(&["show", &id, "--json"]).success().json()["deliveries"][0].clone()
}

fn reached(delivery: &Value, stage: &str) -> bool {
    delivery["trace"]
        .as_array()
        .is_some_and(|trace| trace.iter().any(|entry| entry["stage"] == stage))
}

#[test]
fn what_a_program_keeps_to_itself_is_not_counted_as_seen() {
    let stage = peer_tests::stage!();
    let twice = "await tools.mcp__peers__check_messages({}); await tools.mcp__peers__list_peers({}); text('nothing');";
    let talk = run(&stage, &[twice, "await tools.mcp__peers__list_peers({}); text('nothing');"]);
    let request = talk.requests().pop().expect("there are requests");
    assert!(!request.shows("crab\n"), "{}", stage.model.story());
    let delivery = delivery(&stage);
    assert!(reached(&delivery, "offered") && !reached(&delivery, "presented"), "{delivery}");
}

#[test]
fn what_a_program_prints_is_seen() {
    let stage = peer_tests::stage!();
    let prints =
        "for (const part of (await tools.mcp__peers__check_messages({})).content) text(part.text);";
    let talk = run(&stage, &[prints, "text('nothing');"]);
    talk.request_with("| crab\n| crab");
    let delivery = delivery(&stage);
    assert!(reached(&delivery, "presented"), "{delivery}");
}

/// Nobody reads a whole result more simply than so.
#[test]
fn what_a_program_prints_as_json_is_seen() {
    let stage = peer_tests::stage!();
    let talk =
        run(&stage, &["text(await tools.mcp__peers__check_messages({}));", "text('nothing');"]);
    talk.request_with(r"| crab\n| crab");
    let delivery = delivery(&stage);
    assert!(reached(&delivery, "presented"), "{delivery}");
}

/// What `omit_tools_from` is for, which `peerctl setup` writes: without it the model is told the
/// first words of our instructions, and nothing of our tools.
fn hides_our_tools(set: impl for<'a> Fn(Codex<'a>) -> Codex<'a>) {
    let stage = peer_tests::stage!();
    let talk = stage.model.talk("luna-begin", [say("done")]);
    let _ = set(stage.codex()).deferring().name("luna").exec("luna-begin").wait().success();
    let request = talk.request(0);
    assert!(!request.tools().iter().any(|(name, _)| name.contains("peers")), "{}", request.body);
    let instructions =
        stage.home.adapter("codex-mcp-client").spawn().initialize()["instructions"].clone();
    let instructions = instructions.as_str().expect("there are instructions");
    let told: String = instructions.chars().take(247).collect();
    assert!(request.shows(&format!("- mcp__peers: {told}...")), "{}", stage.model.story());
    assert!(!request.shows(instructions));
}

#[test]
fn our_tools_are_hidden_where_the_configuration_does_not_forbid_it() {
    hides_our_tools(|codex| codex);
}

#[test]
fn our_tools_are_hidden_in_code_mode_where_the_configuration_does_not_forbid_it() {
    hides_our_tools(|codex| codex.in_code_mode());
}
