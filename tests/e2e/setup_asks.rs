//! `peerctl setup` at a terminal: what it asks, that it asks once, and that an answer counts.

#![cfg(unix)]

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use peer_tests::Home;
use serde_json::Value;

/// What a person sees and how the command ended.
struct Asked {
    questions: Vec<String>,
    stdout: String,
    code: Option<i32>,
}

/// Runs a command at a terminal; each question gets the first answer whose key is part of it, and
/// "no" where none is.
fn at_a_terminal(home: &Home, arguments: &[&str], answers: &[(&str, &str)]) -> Asked {
    let (mut master, slave) = peer_tests::pseudo_terminal();
    let mut command = home.command(arguments);
    command.env("SHELL", "/bin/bash");
    command.stdin(Stdio::from(slave.try_clone().expect("another end"))).stderr(Stdio::from(slave));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("run peerctl");
    // The command holds the terminal's other end, and nobody else does.
    drop(command);
    let mut stdout = child.stdout.take().expect("standard output is piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("read its output");
        text
    });
    let (mut seen, mut asked, mut questions) = (String::new(), 0, Vec::new());
    let mut some = [0; 4_096];
    // An error is the end: the command has let go of the terminal.
    while let Ok(read @ 1..) = master.read(&mut some) {
        seen.push_str(&String::from_utf8_lossy(&some[..read]));
        if seen.ends_with("] ") && seen.len() > asked {
            let question = seen[asked..].trim().to_owned();
            let answer = answers
                .iter()
                .find(|(part, _)| question.contains(part))
                .map_or("n", |(_, answer)| answer);
            questions.push(question);
            asked = seen.len();
            writeln!(master, "{answer}").expect("answer");
        }
    }
    let code = child.wait().expect("wait for it").code();
    Asked { questions, stdout: reader.join().expect("the reader does not panic"), code }
}

fn installed() -> Home {
    let home = peer_tests::home!();
    for dir in [".claude", ".codex"] {
        fs::create_dir(home.home().join(dir)).expect("make a client's directory");
    }
    fs::write(
        home.home().join(".claude.json"),
        "{\"mcpServers\":{\"agent-peers\":{\"command\":\"bun\"}}}",
    )
    .expect("write a file");
    home
}

fn read(home: &Home, path: &str) -> String {
    fs::read_to_string(home.home().join(path)).unwrap_or_default()
}

#[test]
fn each_question_is_asked_once_and_the_answers_count() {
    let home = installed();
    let yes = [
        ("without a dialog", "y"),
        ("bypass permissions", "yes"),
        ("Remove", "y"),
        ("alias", "y"),
        ("Write this", "y"),
    ];
    let asked = at_a_terminal(&home, &["setup"], &yes);
    assert_eq!(asked.code, Some(0), "{:?}", asked.questions);
    assert_eq!(asked.questions.len(), yes.len(), "{:?}", asked.questions);
    assert!(
        asked.stdout.contains("+++ ") && asked.stdout.contains("mcp_tool"),
        "the plan is shown: {}",
        asked.stdout
    );
    assert!(!read(&home, ".claude.json").contains("agent-peers"));
    assert!(read(&home, ".bashrc").starts_with("alias peerclaude="));
    assert!(read(&home, ".claude/settings.json").contains("send_message"));
    let policy = home.peerctl(&["policy", "inbox-socket", "--json"]).success().json();
    assert_eq!(policy["inbox_socket"], Value::Bool(true), "{policy:#}");
    let again = at_a_terminal(&home, &["setup"], &[]);
    assert_eq!((again.code, again.questions), (Some(0), Vec::new()));
}

#[test]
fn who_says_no_to_everything_changes_nothing() {
    let home = installed();
    let asked = at_a_terminal(&home, &["setup"], &[]);
    assert_eq!(asked.code, Some(1), "{:?}", asked.questions);
    assert!(
        !home.home().join(".claude/skills").exists()
            && read(&home, ".codex/config.toml").is_empty()
    );
    assert!(!home.state().exists(), "nothing was begun");
}

#[test]
fn a_no_to_a_question_is_remembered_and_the_rest_is_written() {
    let home = installed();
    let asked = at_a_terminal(&home, &["setup"], &[("Write this", "y")]);
    assert_eq!(asked.code, Some(0), "{:?}", asked.questions);
    assert!(
        !home.home().join(".claude/settings.json").exists()
            && !home.home().join(".bashrc").exists()
    );
    assert!(read(&home, ".claude.json").contains("agent-peers"));
    let policy = home.peerctl(&["policy", "inbox-socket", "--json"]).success().json();
    assert_eq!(policy["inbox_socket"], Value::Bool(false), "{policy:#}");
    // Other programs and the alias are offered again; what concerns what a session may do is not.
    let again = at_a_terminal(&home, &["setup"], &[]);
    assert!(
        again
            .questions
            .iter()
            .all(|question| question.contains("Remove") || question.contains("alias")),
        "{:?}",
        again.questions
    );
    let back = at_a_terminal(&home, &["setup", "--undo"], &[("Restore this", "y")]);
    assert_eq!((back.code, back.questions.len()), (Some(0), 1));
    assert!(!home.home().join(".claude/skills").exists());
}

#[test]
fn who_reads_only_the_beginning_of_the_plan_gets_all_of_it_written() {
    let home = installed();
    let mut child = home
        .command(&["setup", "--yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("run peerctl");
    drop(child.stdout.take());
    assert!(child.wait().expect("wait for it").success());
    let _ = home.peerctl(&["setup", "--check"]).success();
}
