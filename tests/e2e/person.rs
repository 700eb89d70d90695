//! What the person is told: what stops an agent, what was refused, what is true of a peer now, and
//! what to type next.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use peer_tests::{Home, Mcp, PATIENCE};
use serde_json::{Value, json};

fn list(home: &Home, arguments: &[&str]) -> Vec<Value> {
    home.peerctl(arguments).success().json().as_array().expect("a list").clone()
}

/// A command that goes on, with what it prints line by line.
struct Stream {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Stream {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spawn");
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// Waits for a line of that text.
    #[track_caller]
    fn until(lines: &Receiver<String>, text: &str) -> String {
        loop {
            let line = lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|why| panic!("no line with {text:?}: {why}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn ended(mut self) -> i32 {
        self.child.wait().expect("it ends").code().expect("by itself")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (to, from) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                break;
            }
        }
    });
    from
}

#[test]
fn a_used_up_thread_is_named_wherever_the_person_looks() {
    let home = peer_tests::home!();
    home.configure("[limits]\nthread_turns_max = 2\n");
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    luna.register();
    orion.register();
    let tail = Stream::start(home.command(&["tail", "--json"]));
    let _ = Stream::until(&tail.stderr, "waiting for events");
    let say = |from: &Mcp, to: &str, text: &str| {
        from.call("send_message", json!({"to": to, "message": text, "thread": "t-loop"}))
    };
    let _ = say(&luna, "orion", "one").success();
    let _ = say(&orion, "luna", "two").success();
    assert!(say(&luna, "orion", "three").is_error);
    let last = say(&orion, "luna", "four");
    assert!(last.is_error && last.text.contains("paused"), "it is shut for both: {}", last.text);

    let event: Value =
        serde_json::from_str(&Stream::until(&tail.stdout, "\"loop\"")).expect("JSON");
    assert_eq!(event["thread"], "t-loop");
    let status = home.peerctl(&["status"]).success().stdout;
    assert!(status.contains("thread t-loop (2 turns without you: luna, orion)"), "{status}");
    let status = home.peerctl(&["status", "--json"]).success().json();
    let paused = &status["paused"][0];
    assert_eq!(
        (&paused["kind"], &paused["name"], &paused["turns"]),
        (&json!("loop"), &json!("t-loop"), &json!(2))
    );
    let peers = home.peerctl(&["peers"]).success();
    assert!(peers.stderr.contains("thread t-loop (2 turns without you"), "{peers:?}");
    let doctor = home.peerctl(&["doctor"]).success().stdout;
    assert!(
        doctor.contains("thread t-loop") && doctor.contains("peerctl resume --thread t-loop"),
        "{doctor}"
    );
    let inbox = home.peerctl(&["inbox", "me"]).success();
    assert!(
        inbox.stdout.contains("thread t-loop is paused") && inbox.stderr.contains("t-loop"),
        "{inbox:?}"
    );

    let _ = home.peerctl(&["resume", "t-loop"]).success();
    let _ = say(&luna, "orion", "five").success();
    assert_eq!(home.peerctl(&["status", "--json"]).success().json()["paused"], json!([]));
}

#[test]
fn a_refused_message_can_be_looked_up_with_its_reason() {
    let home = peer_tests::home!();
    home.configure("[limits]\npending_per_peer = 1\n");
    let (luna, orion, vega) = (home.claude("luna"), home.codex("orion"), home.codex("vega"));
    for session in [&luna, &orion, &vega] {
        session.register();
    }
    let _ = luna.call("send_message", json!({"to": "orion", "message": "first"})).success();
    let long = format!("second {}", "x".repeat(200));
    assert!(luna.call("send_message", json!({"to": "orion", "message": long})).is_error);

    let refused = list(&home, &["history", "--refused", "--json"]);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(
        (&refused[0]["from"], &refused[0]["to"], &refused[0]["code"]),
        (&json!("luna"), &json!("orion"), &json!("mailbox_full"))
    );
    let beginning = refused[0]["beginning"].as_str().expect("a text");
    assert!(beginning.starts_with("second x") && beginning.chars().count() == 80, "{beginning}");
    assert_eq!(list(&home, &["history", "--refused", "--peer", "orion", "--json"]).len(), 1);
    assert_eq!(list(&home, &["history", "--refused", "--peer", "vega", "--json"]).len(), 0);
    let orphans = home.peerctl(&["orphans"]).success();
    assert!(orphans.stderr.contains("peerctl history --refused"), "{orphans:?}");

    // Another agent's shell hears nothing of it.
    let seat = home
        .adapter("claude-code")
        .env("PEER_NAME", "nova")
        .env("CLAUDE_CODE_SESSION_ID", "s-1")
        .start();
    seat.register();
    let mut shell = home.command(&["history", "--refused", "--json"]);
    shell.env("CLAUDE_CODE_SESSION_ID", "s-1");
    assert_eq!(home.run(shell, "").success().json(), json!([]));
}

#[test]
fn what_peers_says_is_true_now() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    luna.register();
    let _ = orion
        .call("set_summary", json!({"summary": "porting", "state": "working", "task": "T-1"}))
        .success();
    let row = |name: &str| -> String {
        let table = home.peerctl(&["peers", "--all"]).success().stdout;
        table
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name} in {table}"))
            .to_owned()
    };
    let _ = home.peerctl(&["policy", "luna", "hold"]).success();
    let _ = home.peerctl(&["send", "luna", "--", "yours"]).success();
    assert!(
        row("luna").contains("luna (hold)") && !row("luna").contains("held"),
        "{}",
        row("luna")
    );
    let _ = orion
        .call("send_message", json!({"to": "luna", "message": "for you to read first"}))
        .success();
    assert!(row("luna").contains("2 (1 held)"), "{}", row("luna"));

    let _ = home.peerctl(&["pause", "luna"]).success();
    assert!(row("luna").contains("paused by you"), "{}", row("luna"));
    assert!(home.peerctl(&["peers", "luna"]).success().stdout.contains("peerctl resume luna"));
    assert_eq!(list(&home, &["peers", "luna", "--json"])[0]["paused"], true);

    let unknown = home.peerctl(&["peers", "--state", "nosuch"]).success();
    assert!(unknown.stderr.contains("no peer is in state \"nosuch\" (2 online)"), "{unknown:?}");
    assert!(unknown.stderr.contains("working"), "the states that there are: {unknown:?}");

    assert_eq!(list(&home, &["peers", "--state", "working", "--json"]).len(), 1);
    let _ = home.peerctl(&["kick", "orion"]).success();
    assert_eq!(
        list(&home, &["peers", "--state", "working", "--json"]).len(),
        0,
        "whoever is gone does nothing"
    );
    assert!(row("orion").contains("was working"), "{}", row("orion"));
}

#[test]
fn doctor_names_what_the_person_stopped_and_a_mailbox_that_is_full() {
    let home = peer_tests::home!();
    home.configure("[limits]\npending_per_peer = 1\n");
    let (luna, orion) = (home.codex("luna"), home.claude("orion"));
    luna.register();
    orion.register();
    assert!(
        home.peerctl(&["doctor"]).success().stdout.contains("no problems, "),
        "a note stands under it"
    );
    let _ = home.peerctl(&["pause", "all"]).success();
    let _ = home.peerctl(&["policy", "all", "hold"]).success();
    let mut command = home.command(&["doctor"]);
    command.env("PEERD_ENABLED", "0");
    let told = home.run(command, "").success().stdout;
    for part in [
        "all agents are paused by you",
        "peerctl resume all",
        "held until you release it",
        "PEERD_ENABLED=0",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    let _ = home.peerctl(&["resume", "all"]).success();
    let _ = home.peerctl(&["policy", "all", "accept"]).success();

    let _ = home.peerctl(&["send", "luna", "--", "only this one fits"]).success();
    let _ = luna.call("check_messages", json!({})).success();
    let full = home.peerctl(&["doctor"]);
    assert_eq!(full.code, 7, "{full:?}");
    assert!(
        full.stdout.contains("the mailbox of luna is full") && full.stdout.contains("ack_messages"),
        "{}",
        full.stdout
    );
}

#[test]
fn watchers_outlive_a_restart_of_the_broker() {
    let home = peer_tests::home!();
    // Of two clients: a process with the sessions of one only is taken for an agent's shell, which
    // may not stop the broker.
    let sessions = [home.codex("luna"), home.claude("orion")];
    sessions.iter().for_each(Mcp::register);
    let tail = Stream::start(home.command(&["tail", "--json", "--peer", "luna"]));
    let wait = Stream::start(home.command(&["wait", "--to", "luna", "--timeout", "2m", "--json"]));
    let peers = Stream::start(home.command(&["peers", "-w"]));
    let _ = Stream::until(&tail.stderr, "waiting for events");
    let _ = Stream::until(&wait.stderr, "waiting");
    let _ = Stream::until(&peers.stdout, "luna");
    let _ = home.peerctl(&["daemon", "stop"]).success();
    for stream in [&tail, &wait, &peers] {
        let _ = Stream::until(&stream.stderr, "lost the connection to the broker");
    }
    // Sent perhaps before they are back: `wait` finds it all the same.
    let sent =
        home.peerctl(&["send", "luna", "--json", "--", "after the restart"]).success().json();
    let _ = Stream::until(&wait.stdout, sent["id"].as_str().expect("an id"));
    assert_eq!(wait.ended(), 0);
    for stream in [&tail, &peers] {
        let _ = Stream::until(&stream.stderr, "connected again");
    }
    let sent = home.peerctl(&["send", "luna", "--json", "--", "and one more"]).success().json();
    let _ = Stream::until(&tail.stdout, sent["id"].as_str().expect("an id"));
}

#[test]
fn ask_says_whom_it_waits_for() {
    let home = peer_tests::home!();
    let sessions = [home.codex("luna"), home.codex("orion")];
    sessions.iter().for_each(Mcp::register);
    let asked = home.peerctl(&["ask", "luna", "--wait", "2s", "--", "are you there?"]);
    assert_eq!(asked.code, 5, "{asked:?}");
    assert!(asked.stderr.contains("asked luna (online, sees mail with its next call"), "{asked:?}");
    assert!(asked.stderr.contains("waiting up to 2s"), "{asked:?}");
}

#[test]
fn the_person_is_told_how_to_free_a_task_and_what_was_meant() {
    let home = peer_tests::home!();
    let luna = home
        .adapter("codex-mcp-client")
        .env("PEER_NAME", "luna")
        .env("PEERD_PROFILE", "full")
        .start();
    let orion = home.claude("orion");
    orion.register();
    let _ = luna.call("tasks", json!({"action": "create", "title": "staging"})).success();
    let _ = luna.call("tasks", json!({"action": "claim", "task": "T-1"})).success();
    let refused = home.peerctl(&["tasks", "complete", "T-1", "done", "--json"]);
    assert_eq!(refused.code, 6, "{refused:?}");
    assert_eq!(refused.json()["error"]["hint"], "`peerctl tasks unclaim T-1` makes it open again");

    let version = home.peerctl(&["version", "--json"]).success().json();
    assert_eq!(version["version"], version["broker"]["version"]);
    assert_eq!(list(&home, &["ls", "--json"]).len(), 2);
    let _ = home.peerctl(&["log", "-n", "1"]).success();
    let nonsense = home.peerctl(&["nosuch"]);
    assert!(nonsense.code == 2 && !nonsense.stderr.contains("tip"), "{nonsense:?}");
    assert!(home.peerctl(&["hisotry"]).stderr.contains("'history'"));
}
