//! `peerctl doctor`: each thing that can be wrong is found, named with what it should be, and
//! mended by what it says.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use peer_tests::{Home, Outcome};
use serde_json::{Value, json};

/// The findings of one kind.
fn findings(outcome: &Outcome, check: &str) -> Vec<Value> {
    let told = outcome.json();
    let all = told["findings"].as_array().unwrap_or_else(|| panic!("no findings in {told:#}"));
    all.iter().filter(|finding| finding["check"] == check).cloned().collect()
}

/// The one finding of a kind that is a problem, with what it says.
#[track_caller]
fn problem(home: &Home, check: &str) -> (String, String) {
    let outcome = home.peerctl(&["doctor", "--json"]);
    assert_eq!(outcome.code, 7, "{outcome:?}");
    let told = outcome.json();
    assert_eq!(told["error"]["code"], "unwell", "{told:#}");
    let found: Vec<_> = findings(&outcome, check)
        .into_iter()
        .filter(|finding| finding["state"] == "problem")
        .collect();
    assert_eq!(found.len(), 1, "{told:#}");
    assert!(!found[0]["expected"].as_str().expect("a text").is_empty(), "{found:#?}");
    let text = |field: &str| found[0][field].as_str().expect("a text").to_owned();
    (text("observed"), text("hint"))
}

/// Copies an executable, by a program of its own: a test that copies while another one forks leaves
/// the copy open for writing in that child, and nobody can run it then.
fn copy_program(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").args([from, to]).status().expect("run cp");
    assert!(done.success(), "cp failed");
}

#[test]
fn where_nothing_is_wrong_it_says_so() {
    let home = peer_tests::home!();
    let outcome = home.peerctl(&["doctor", "--json"]).success();
    assert_eq!(outcome.json()["problems"], 0);
    assert!(!home.state().exists(), "it makes nothing");
    let _ = home.peerctl(&["daemon", "start"]).success();
    fs::create_dir(home.home().join(".claude")).expect("make a directory");
    let _ = home.peerctl(&["setup", "claude", "--yes"]).success();
    let outcome = home.peerctl(&["doctor", "--json"]).success();
    for check in ["broker", "directory", "disk", "config", "claude"] {
        assert!(
            findings(&outcome, check).iter().any(|finding| finding["state"] == "good"),
            "{check}: {outcome:?}"
        );
    }
    // The executable under test lies in a build directory, which is a note.
    assert!(home.peerctl(&["doctor"]).success().stdout.ends_with("no problems, 1 note\n"));
}

#[test]
fn a_directory_or_file_that_others_can_read_is_found() {
    let home = peer_tests::home!();
    home.configure("");
    fs::set_permissions(home.state(), Permissions::from_mode(0o755)).expect("set a mode");
    let (observed, hint) = problem(&home, "directory");
    assert!(observed.contains("755") && hint.contains("chmod 700"), "{observed} {hint}");
    fs::set_permissions(home.state(), Permissions::from_mode(0o700)).expect("set a mode");
    let log = home.state().join("broker.log");
    fs::write(&log, "").expect("write a file");
    fs::set_permissions(&log, Permissions::from_mode(0o644)).expect("set a mode");
    let (_, hint) = problem(&home, "modes");
    assert_eq!(hint, format!("chmod 600 {}", log.display()));
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_found() {
    let home = peer_tests::home!();
    let mut command = home.command(&["doctor", "--json"]);
    command.env("PEERD_DIR", home.root().join("d".repeat(100)));
    let outcome = home.run(command, "");
    assert_eq!(outcome.code, 7, "{outcome:?}");
    let found = findings(&outcome, "directory");
    assert!(found[0]["hint"].as_str().expect("a text").contains("PEERD_DIR"), "{found:#?}");
}

#[test]
fn a_configuration_that_the_broker_cannot_read_is_found() {
    let home = peer_tests::home!();
    home.configure("[limits]\nsender_per_minute = \"many\"\n");
    let (observed, _) = problem(&home, "config");
    assert!(observed.contains("sender_per_minute") || observed.contains("line 2"), "{observed}");
}

#[test]
fn a_broker_whose_executable_is_gone_is_found() {
    let home = peer_tests::home!();
    let copy = home.root().join("peerctl");
    copy_program(home.executable(), &copy);
    let mut command = std::process::Command::new(&copy);
    command
        .args(["daemon", "start"])
        .env_clear()
        .env("HOME", home.home())
        .env("PEERD_DIR", home.state());
    let _ = home.run(command, "").success();
    let outcome = home.peerctl(&["doctor", "--json"]).success();
    assert_eq!(findings(&outcome, "broker")[0]["state"], "note", "another copy: {outcome:?}");
    fs::remove_file(&copy).expect("remove the copy");
    let (_, hint) = problem(&home, "broker");
    assert_eq!(hint, "peerctl daemon restart");
    let _ = home.peerctl(&["daemon", "restart"]).success();
    assert_eq!(home.peerctl(&["doctor", "--json"]).success().json()["problems"], 0);
}

#[test]
#[cfg(target_os = "linux")]
fn that_no_broker_can_start_is_found_by_trying() {
    let home = peer_tests::home!();
    // Nobody can make anything there, not even root.
    let tried = |state: &Path, before: &str| {
        let mut command = std::process::Command::new("/bin/bash");
        command
            .arg("-c")
            .arg(format!("{before} \"$0\" doctor --json"))
            .arg(home.executable())
            .env_clear();
        command.env("HOME", home.home()).env("PEERD_DIR", state).env("PATH", "/usr/bin:/bin");
        let outcome = home.run(command, "");
        let found = findings(&outcome, "broker");
        assert_eq!(found.len(), 1, "{outcome:?}");
        (outcome.code, found[0].clone())
    };
    let (code, found) = tried(Path::new("/proc/peerd/state"), "");
    assert_eq!((code, &found["state"]), (7, &json!("problem")), "{found}");
    assert!(
        found["observed"].as_str().expect("a text").starts_with("cannot create a file in /proc"),
        "{found}"
    );
    assert!(found["hint"].as_str().expect("a text").contains("PEERD_DIR"), "{found}");

    home.configure("");
    let told = |before: &str, part: &str| {
        let (code, found) = tried(&home.state(), before);
        assert_eq!((code, &found["state"]), (7, &json!("problem")), "{before}: {found}");
        assert!(
            found["observed"].as_str().expect("a text").contains(part),
            "{part:?} is not in {found}"
        );
    };
    for limit in ["ulimit -f 0;", "ulimit -f 500;"] {
        told(limit, "File too large");
    }
    let log = home.state().join("broker.log");
    fs::create_dir(&log).expect("make a directory");
    told("", "broker.log");
    fs::remove_dir(&log).expect("remove a directory");

    let database = home.state().join("peers.redb");
    fs::write(&database, "hello").expect("write a file");
    fs::set_permissions(&database, Permissions::from_mode(0o600)).expect("set a mode");
    told("", "peers.redb");
    assert_eq!(fs::read_to_string(&database).expect("read it"), "hello");
    fs::remove_file(&database).expect("remove it");

    let (code, found) = tried(&home.state(), "");
    assert_eq!((code, &found["state"]), (0, &json!("good")), "{found}");
    let left: Vec<_> = fs::read_dir(home.state())
        .expect("read it")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["config.toml"], "what was tried is removed");
}

#[test]
fn a_broker_without_a_socket_is_found() {
    let home = peer_tests::home!();
    home.configure("");
    let lock = fs::File::create(home.state().join("broker.lock")).expect("make a file");
    fs::set_permissions(home.state().join("broker.lock"), Permissions::from_mode(0o600))
        .expect("set a mode");
    lock.lock().expect("lock it");
    let (observed, hint) = problem(&home, "broker");
    assert!(
        observed.contains("holds the broker's lock") && hint.contains("daemon restart"),
        "{observed} {hint}"
    );
}

#[test]
fn a_client_that_is_told_to_run_what_is_gone_is_found_and_mended() {
    let home = peer_tests::home!();
    fs::create_dir(home.home().join(".gemini")).expect("make a directory");
    let _ = home.peerctl(&["setup", "gemini", "--yes"]).success();
    let path = home.home().join(".gemini/settings.json");
    let text = fs::read_to_string(&path).expect("read settings");
    let program = home.executable().display().to_string();
    fs::write(&path, text.replace(&program, "/gone/peerctl")).expect("write settings");
    let (observed, hint) = problem(&home, "gemini");
    assert!(observed.contains("/gone/peerctl"), "{observed}");
    assert_eq!(hint, "peerctl setup gemini");
    let _ = home.peerctl(&["setup", "gemini", "--yes"]).success();
    assert_eq!(home.peerctl(&["doctor", "--json"]).success().json()["problems"], 0);
}

#[test]
fn a_client_that_is_not_wired_up_is_a_note_and_one_that_is_half_wired_a_problem() {
    let home = peer_tests::home!();
    fs::create_dir_all(home.home().join(".claude/skills")).expect("make a directory");
    fs::write(
        home.home().join(".claude.json"),
        "{\"mcpServers\":{\"claude-peers\":{\"command\":\"bun\"}}}",
    )
    .expect("write");
    let outcome = home.peerctl(&["doctor", "--json"]).success();
    let found = findings(&outcome, "claude");
    assert!(found.iter().any(|finding| finding["hint"] == "peerctl setup claude"), "{found:#?}");
    assert!(found.iter().any(|finding| finding["hint"] == "peerctl setup --retire"), "{found:#?}");
    let _ = home.peerctl(&["setup", "claude", "--yes"]).success();
    fs::remove_file(home.home().join(".claude/skills/peers/hooks/hooks.json"))
        .expect("remove a file");
    let (observed, hint) = problem(&home, "claude");
    assert!(observed.contains("hooks.json"), "{observed}");
    assert_eq!(hint, "peerctl setup claude");
    let _ = home.peerctl(&["setup", "claude", "--yes"]).success();
    let own = home.home().join(".mcp.json");
    fs::write(&own, "{\"mcpServers\":{\"mine\":{\"command\":\"/x/peerctl\",\"args\":[\"mcp\"]}}}")
        .expect("write");
    let (observed, _) = problem(&home, "claude");
    assert!(observed.contains(".mcp.json also starts peerctl, under the name mine"), "{observed}");
    fs::remove_file(own).expect("remove a file");
    fs::write(home.home().join(".claude.json"), "{").expect("write");
    let (observed, _) = problem(&home, "claude");
    assert!(observed.contains("line 1, column 2"), "{observed}");
}

/// The digest of a text, by a program that others wrote.
fn sha256(text: &str) -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("run sha256sum");
    std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), text.as_bytes())
        .expect("write to it");
    let output = child.wait_with_output().expect("wait for it");
    String::from_utf8_lossy(&output.stdout)[..64].to_owned()
}

#[test]
fn hooks_that_codex_was_not_told_to_trust_are_found() {
    let home = peer_tests::home!();
    fs::create_dir(home.home().join(".codex")).expect("make a directory");
    let path = home.home().join(".codex/hooks.json");
    fs::write(
        &path,
        "{\"hooks\": {\"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"date\"}]}]}}",
    )
    .expect("write hooks");
    let _ = home.peerctl(&["setup", "codex", "--yes"]).success();
    let (observed, hint) = problem(&home, "codex");
    assert!(
        observed.contains("does not trust yet")
            && observed.contains("SessionStart")
            && hint.contains("/hooks"),
        "{observed} {hint}"
    );

    // As Codex writes it when its user has looked at each.
    let hooks: Value =
        serde_json::from_str(&fs::read_to_string(&path).expect("read hooks")).expect("JSON");
    let mut states = String::new();
    for (event, name) in [
        ("SessionStart", "session_start"),
        ("UserPromptSubmit", "user_prompt_submit"),
        ("PostToolUse", "post_tool_use"),
        ("Stop", "stop"),
        ("SessionEnd", "session_end"),
    ] {
        let groups = hooks["hooks"][event].as_array().expect("a list");
        let last = groups.len() - 1;
        let mut handler = groups[last]["hooks"][0].clone();
        if handler["type"] == "command" {
            handler["async"] = false.into();
        }
        let digest = sha256(&json!({ "event_name": name, "hooks": [handler] }).to_string());
        let key = format!("{}:{name}:{last}:0", path.display());
        states
            .push_str(&format!("\n[hooks.state.\"{key}\"]\ntrusted_hash = \"sha256:{digest}\"\n"));
    }
    let config = home.home().join(".codex/config.toml");
    let text = fs::read_to_string(&config).expect("read the configuration");
    fs::write(&config, format!("{text}{states}")).expect("write the configuration");
    assert_eq!(home.peerctl(&["doctor", "--json"]).success().json()["problems"], 0);

    // Somebody trusted what stood there before.
    let other = states.replacen("sha256:", "sha256:00", 1);
    fs::write(&config, format!("{text}{other}")).expect("write the configuration");
    let (observed, _) = problem(&home, "codex");
    assert!(observed.contains("in an older form only: SessionStart"), "{observed}");
}

#[test]
fn a_session_that_gave_no_sign_is_named() {
    let home = peer_tests::home!();
    let quiet = home.adapter("cursor").env("PEER_NAME", "quiet").start();
    // It is registered when its first call is answered.
    quiet.register();
    let _ = home.peerctl(&["send", "quiet", "are you there?"]).success();
    let outcome = home.peerctl(&["doctor", "--json"]).success();
    let found = findings(&outcome, "sessions");
    assert!(
        found
            .iter()
            .any(|finding| finding["observed"].as_str().expect("a text").starts_with("quiet (")),
        "{found:#?}"
    );
}

/// Two adapters in one process that is called `claude`.
#[cfg(target_os = "linux")]
#[test]
fn two_adapters_in_one_session_are_found() {
    let home = peer_tests::home!();
    let client = home.root().join("claude");
    copy_program(Path::new("/bin/sh"), &client);
    let mut command = std::process::Command::new(&client);
    let line = format!("{0} mcp <&3 & {0} mcp <&3 & echo up; wait", home.executable().display());
    // Both read from a pipe that stays open.
    command
        .args(["-c", &format!("exec 3<&0; {line}")])
        .env_clear()
        .env("HOME", home.home())
        .env("PEERD_DIR", home.state());
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("run it");
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().expect("standard output is piped"), &mut up)
        .expect("both run");
    let deadline = std::time::Instant::now() + peer_tests::PATIENCE;
    // Between fork and exec they are not yet what they will be.
    let observed = loop {
        let outcome = home.peerctl(&["doctor", "--json"]);
        if let [found] = findings(&outcome, "adapters").as_slice() {
            break found["observed"].as_str().expect("a text").to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "{outcome:?}");
    };
    assert!(observed.contains("runs 2 adapters"), "{observed}");
    drop(child.stdin.take());
    let _ = child.wait().expect("it ends");
}
