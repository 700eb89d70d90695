//! The hooks that `peerctl setup codex` writes, in a real terminal: Codex asks its user whether to
//! trust them, `peerctl doctor` knows the answer, and uninstalling leaves what Codex wrote.

use std::fs;

use peer_tests::clients::{Call, Gate, Stage, call, say};
use serde_json::Value;

const PROMPT: &str = "luna-begin";

fn set_up() -> Stage {
    let stage = peer_tests::stage!();
    stage.leave_only("hook");
    stage.codex().unwired().configure();
    let _ = stage.home.peerctl(&["setup", "codex", "--yes"]).success();
    stage
}

/// What doctor says of Codex' hooks, and with which exit code.
fn diagnosis(stage: &Stage) -> (i32, String) {
    let outcome = stage.home.peerctl(&["doctor", "--json"]);
    let told = outcome.json();
    let findings = told["findings"].as_array().expect("findings is a list");
    let of_codex = findings.iter().filter(|finding| finding["check"] == "codex");
    (
        outcome.code,
        of_codex.filter_map(|finding| finding["observed"].as_str()).collect::<Vec<_>>().join("; "),
    )
}

#[test]
fn hooks_that_the_person_trusts_in_the_terminal_carry_mail() {
    let stage = set_up();
    let (code, said) = diagnosis(&stage);
    assert!(code == 7 && said.contains("does not trust yet"), "{said}");
    let gate = Gate::new();
    let talk = stage.model.talk(PROMPT, [call(Call::shell("true")).held(&gate), say("bye-now")]);
    let codex = stage.codex().unwired().name("luna").terminal();
    codex.choose("Trust all and continue");
    codex.submit(PROMPT);
    talk.request(0);
    // The digests are Codex' own.
    let (code, said) = diagnosis(&stage);
    assert!(code == 0 && said.contains("5 hooks, all trusted"), "{said}");
    let _ = stage.home.peerctl(&["send", "luna", "between two steps"]).success();
    gate.open();
    codex.wait_for("bye-now");
    assert_eq!(talk.request(1).count("| between two steps"), 1, "{}", stage.model.story());

    // What Codex wrote meanwhile is Codex'.
    let _ = stage.home.peerctl(&["setup", "codex", "--check"]).success();
    let _ = stage.home.peerctl(&["uninstall", "codex", "--yes"]).success();
    let config = fs::read_to_string(stage.home.home().join(".codex/config.toml"))
        .expect("read the configuration");
    assert!(
        config.contains("trusted_hash")
            && !config.contains("mcp_servers.peers")
            && !config.contains("hooks.Stop"),
        "{config}"
    );
}

#[test]
fn hooks_that_the_person_does_not_trust_are_no_carrier() {
    let stage = set_up();
    let gate = Gate::new();
    let talk = stage.model.talk(PROMPT, [call(Call::shell("true")).held(&gate), say("bye-now")]);
    let codex = stage.codex().unwired().name("luna").terminal();
    codex.choose("Continue without trusting");
    codex.submit(PROMPT);
    talk.request(0);
    let sent =
        stage.home.peerctl(&["send", "luna", "between two steps", "--json"]).success().json();
    gate.open();
    codex.wait_for("bye-now");
    assert_eq!(talk.request(1).count("| between two steps"), 0, "{}", stage.model.story());
    let id = sent["id"].as_str().expect("an id");
    let shown = stage.home.peerctl(&["show", id, "--json"]).success().json();
    assert_ne!(shown["deliveries"][0]["stage"], Value::from("presented"), "{shown:#}");
    let (code, said) = diagnosis(&stage);
    assert!(code == 7 && said.contains("does not trust yet"), "{said}");
}
