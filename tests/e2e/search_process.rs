//! The process that has the search index open: when it is there, what its death costs, and what is
//! left when the broker dies.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_tests::{Home, Mcp, PATIENCE};
use serde_json::{Value, json};

fn session(home: &Home, name: &str) -> Mcp {
    home.adapter("claude-code")
        .env("PEER_NAME", name)
        .env("CLAUDE_CODE_SESSION_ID", name)
        .registered()
}

fn send(from: &Mcp, text: &str) {
    let _ = from.call("send_message", json!({"to": "human", "message": text})).success();
}

#[track_caller]
fn found(home: &Home, query: &str) -> usize {
    let rows = home.peerctl(&["search", "--json", "-n", "50", query]).success().json();
    rows.as_array().map_or(0, Vec::len)
}

/// The processes that `parent` forked and that are not gone.
fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .expect("list processes")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| stat(*pid).is_some_and(|(state, of)| of == parent && state != "Z"))
        .collect()
}

/// A process's state and its parent.
fn stat(pid: u32) -> Option<(String, u32)> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may have anything in it.
    let mut fields = line.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// The broker, the parent of its search process, and that process, where there is one.
fn processes(home: &Home) -> (u32, u32, Option<u32>) {
    let broker = home.broker_pid().expect("a broker runs");
    let forked = children(broker);
    let [parent] = forked[..] else { panic!("the broker has not one child but {forked:?}") };
    let search = children(parent);
    assert!(search.len() < 2, "{search:?}");
    (broker, parent, search.first().copied())
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("signal a process");
}

#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

#[track_caller]
fn is_gone(pid: u32) {
    wait_for(&format!("{pid} is gone"), || stat(pid).is_none_or(|(state, _)| state == "Z"));
}

#[test]
fn it_is_there_from_the_first_search_on_and_may_do_little() {
    let home = peer_tests::home!();
    let luna = session(&home, "luna");
    send(&luna, "amber one");
    assert_eq!(processes(&home).2, None);
    assert!(!home.state().join("search").exists());
    assert_eq!(found(&home, "amber"), 1);
    let (_, _, search) = processes(&home);
    let status = fs::read_to_string(format!("/proc/{}/status", search.expect("it runs")))
        .expect("its status");
    assert!(
        status.contains("\nSeccomp:\t2\n") && status.contains("\nNoNewPrivs:\t1\n"),
        "{status}"
    );
    drop(luna);
    let _ = home.peerctl(&["daemon", "stop"]).success();
    is_gone(search.expect("it ran"));
}

#[test]
fn its_death_costs_the_mail_nothing_and_the_next_search_answers() {
    let home = peer_tests::home!();
    let luna = session(&home, "luna");
    send(&luna, "amber at first");
    assert_eq!(found(&home, "amber"), 1);
    let (broker, parent, _) = processes(&home);
    let signals =
        [Signal::SIGKILL, Signal::SIGABRT, Signal::SIGTERM, Signal::SIGABRT, Signal::SIGKILL];
    for (round, how) in signals.into_iter().enumerate() {
        let search = processes(&home).2.expect("it runs");
        signal(search, how);
        send(&luna, &format!("amber {round}"));
        assert_eq!(found(&home, "amber"), round + 2, "after {how}");
        is_gone(search);
        let after = processes(&home);
        assert_eq!((after.0, after.1), (broker, parent));
        assert_ne!(after.2, Some(search));
    }
    // While somebody waits for it as well.
    let search = processes(&home).2.expect("it runs");
    signal(search, Signal::SIGSTOP);
    let asking = std::thread::scope(|scope| {
        let asking = scope.spawn(|| found(&home, "amber"));
        send(&luna, "umber");
        signal(search, Signal::SIGKILL);
        asking.join().expect("a search")
    });
    assert_eq!(asking, 6);
    assert_eq!(home.broker_pid(), Some(broker));
}

#[test]
fn one_that_does_not_answer_is_ended_and_the_mail_goes_on() {
    let home = peer_tests::home!();
    let luna = session(&home, "luna");
    send(&luna, "amber");
    assert_eq!(found(&home, "amber"), 1);
    let (broker, _, search) = processes(&home);
    let search = search.expect("it runs");
    signal(search, Signal::SIGSTOP);
    // Each of these is answered: by what was given up, then by the next process.
    let refused = home.peerctl(&["search", "amber", "--json"]);
    send(&luna, "umber");
    wait_for("another process answers", || {
        let told = home.peerctl(&["search", "amber", "--json"]);
        told.code == 0 && told.json().as_array().is_some_and(|rows| rows.len() == 1)
    });
    assert!(refused.code == 0 || refused.json()["error"]["code"] == "overloaded", "{refused:?}");
    is_gone(search);
    assert_eq!(home.broker_pid(), Some(broker));
}

#[test]
fn a_file_that_is_cut_or_wrong_while_it_is_mapped_costs_no_hit_and_no_mail() {
    let home = peer_tests::home!();
    let luna = session(&home, "luna");
    for number in 0..20 {
        send(&luna, &format!("amber number {number} of them all"));
    }
    assert_eq!(found(&home, "amber"), 20);
    let broker = home.broker_pid();
    let files = || {
        let entries = fs::read_dir(home.state().join("search"))
            .expect("the index")
            .map(|entry| entry.expect("an entry").path());
        entries
            .filter(|path| path.extension().is_some_and(|end| end != "json" && end != "lock"))
            .collect::<Vec<_>>()
    };
    assert!(files().len() > 5, "{:?}", files());
    for path in files() {
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(0))
            .expect("cut a file");
    }
    send(&luna, "amber after the cut");
    // It may have been told of what was in memory still; then a restart finds the damage.
    wait_for("all are found", || found(&home, "amber") == 21);
    assert_eq!(home.broker_pid(), broker);
    for path in files() {
        let bytes = fs::read(&path).expect("read a file").len();
        fs::write(&path, vec![0xa5; bytes]).expect("overwrite a file");
    }
    home.kill_broker();
    assert_eq!(found(&home, "amber"), 21);
}

#[test]
fn nothing_is_left_of_a_broker_that_is_killed_during_a_search() {
    let home = peer_tests::home!();
    let luna = session(&home, "luna");
    send(&luna, "amber");
    assert_eq!(found(&home, "amber"), 1);
    drop(luna);
    for round in 0..5 {
        let (broker, parent, search) = processes(&home);
        let search = search.expect("it runs");
        // It neither reads nor ends by itself: the worst moment.
        signal(search, Signal::SIGSTOP);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| home.peerctl(&["search", "amber", "--json"]));
            wait_for("the search is asked for", || {
                fs::read_dir(format!("/proc/{broker}/task")).is_ok_and(|tasks| tasks.count() > 2)
            });
            home.kill_broker();
            is_gone(parent);
            is_gone(search);
            let _ = asking.join().expect("a command that ends");
        });
        let status = home.peerctl(&["status", "--json"]).success().json();
        assert_ne!(status["pid"], json!(broker), "{status}");
        let rows: Value = home.peerctl(&["search", "amber", "--json"]).success().json();
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "round {round}: {rows}");
    }
}

/// Each search indexes what came since in a piece of its own, and threads of the library make few
/// of many.
#[test]
fn its_pieces_become_few_while_it_is_confined() {
    let home = peer_tests::home!();
    let luna = session(&home, "luna");
    let pieces = || {
        let entries =
            fs::read_dir(home.state().join("search")).expect("the index").filter_map(Result::ok);
        entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "store")).count()
    };
    send(&luna, "amber 0");
    assert_eq!(found(&home, "amber"), 1);
    let first = processes(&home).2;
    for number in 1..20 {
        send(&luna, &format!("amber {number}"));
        assert_eq!(found(&home, "amber"), number + 1);
    }
    wait_for("twenty pieces have become few", || pieces() < 10);
    assert_eq!(found(&home, "amber"), 20);
    assert!(first.is_some() && processes(&home).2 == first, "and no other process did it");
    let log = fs::read_to_string(home.state().join("broker.log")).expect("the log");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
