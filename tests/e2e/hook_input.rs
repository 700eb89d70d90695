//! What clients do to a hook: they leave its input open, give it none, call it wrongly or switch it
//! off. It ends, it never fails, and it leaves nobody with a broken pipe.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use peer_tests::Home;

/// No hook may take this long; the clients' timeout, which `setup` writes, is the same.
const HOOK_MS_MAX: u64 = 5_000;

const STOP: &str =
    r#"{"session_id":"s1","hook_event_name":"PostToolUse","cwd":"/","tool_response":"}\" {"}"#;

fn hook(home: &Home, arguments: &[&str], variables: &[(&str, &str)]) -> (Child, ChildStdin) {
    let mut command: Command = home.command(arguments);
    command
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut hook = command.spawn().unwrap();
    let input = hook.stdin.take().unwrap();
    (hook, input)
}

/// Waits for the end of a hook whose input somebody still holds open.
fn ends_well(mut hook: Child, held: &ChildStdin) {
    let _ = held;
    let end = Instant::now() + Duration::from_millis(HOOK_MS_MAX);
    let status = loop {
        match hook.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > end => {
                hook.kill().unwrap();
                panic!("the hook still runs: {:?}", hook.wait_with_output());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(status.success(), "{status}");
}

#[test]
fn a_hook_whose_input_stays_open_ends_with_the_whole_object() {
    let home = peer_tests::home!();
    let _ = home.peerctl(&["daemon", "start"]).success();
    for pieces in
        [&[STOP][..], &[&STOP[..20], &STOP[20..]], &["\u{feff} ", STOP, "\n"], &[STOP, "\n\n"]]
    {
        let (hook, mut input) = hook(&home, &["hook", "claude", "PostToolUse"], &[]);
        for piece in pieces {
            // What follows the object may come when the hook has ended.
            let _ = input.write_all(piece.as_bytes());
            let _ = input.flush();
        }
        ends_well(hook, &input);
    }
}

#[test]
fn a_hook_that_is_given_nothing_or_half_an_object_ends_all_the_same() {
    let home = peer_tests::home!();
    for text in ["", "{", r#"{"session_id":"s1","x":[[["#, "no object"] {
        let (hook, mut input) = hook(&home, &["hook", "codex", "Stop"], &[]);
        input.write_all(text.as_bytes()).unwrap();
        ends_well(hook, &input);
    }
    let closed = home.command(&["hook", "claude", "Stop"]).stdin(Stdio::null()).output().unwrap();
    assert!(closed.status.success() && closed.stdout.is_empty(), "{closed:?}");
}

#[test]
fn a_hook_that_does_nothing_reads_all_of_its_input() {
    let home = peer_tests::home!();
    let large = format!(
        r#"{{"session_id":"s1","hook_event_name":"PostToolUse","tool_response":"{}"}}"#,
        "A".repeat(3 << 20)
    );
    let (off, other) = ([("PEERD_ENABLED", "0")], [("AGENT_PEERS_ENABLED", "0")]);
    for (arguments, variables) in [
        (&["hook", "claude", "PostToolUse"][..], &off[..]),
        (&["hook", "codex", "PostToolUse"], &other),
        (&["hook", "nosuch", "PostToolUse"], &[]),
        (&["hook", "claude", "NoSuchEvent"], &[]),
        (&["hook"], &[]),
        (&["hook", "claude", "PostToolUse", "--newer-flag"], &[]),
        (&["hook", "claude", "Stop", "and", "more"], &[]),
    ] {
        let (hook, mut input) = hook(&home, arguments, variables);
        input
            .write_all(large.as_bytes())
            .unwrap_or_else(|error| panic!("{arguments:?} {variables:?}: {error}"));
        ends_well(hook, &input);
    }
}

#[test]
fn a_hook_with_non_blocking_pipes_is_one_like_others() {
    let home = peer_tests::home!();
    let (reading, writing) = std::io::pipe().unwrap();
    for end in [reading.as_fd(), writing.as_fd()] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    let mut command = home.command(&["hook", "claude"]);
    command.stdin(reading).stdout(Stdio::piped());
    let hook = command.spawn().unwrap();
    drop(command);
    let mut writing = writing;
    writing.write_all(STOP.as_bytes()).unwrap();
    drop(writing);
    let output = hook.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn what_is_printed_into_a_non_blocking_pipe_of_a_slow_reader_is_whole() {
    let home = peer_tests::home!();
    home.configure("[limits]\nsender_per_minute = 1000\n");
    for number in 0..40 {
        let text = format!("{number} {}", "z".repeat(5_000));
        let _ = home.peerctl(&["send", "human", "--", &text]).success();
    }
    for arguments in
        [&["history", "--json"][..], &["inbox", "--json"], &["history"], &["completions", "bash"]]
    {
        let whole = home.peerctl(arguments).success().stdout;
        let (mut reading, writing) = std::io::pipe().unwrap();
        fcntl(writing.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut command = home.command(arguments);
        let mut printing = command.stdout(writing).spawn().unwrap();
        drop(command);
        let mut read = String::new();
        std::io::Read::read_to_string(&mut reading, &mut read).unwrap();
        assert!(printing.wait().unwrap().success(), "{arguments:?}");
        // What waits is older the second time.
        let without_numbers = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        assert!(without_numbers(&read) == without_numbers(&whole), "{arguments:?}");
    }
}
