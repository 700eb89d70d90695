//! How brokers and adapters come and go: many at once, quietly, and never two.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_tests::{Home, PATIENCE};
use serde_json::json;

/// Rounds of twenty adapters; `PEERD_START_ROUNDS` says how many.
fn rounds() -> usize {
    std::env::var("PEERD_START_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6)
}

#[test]
fn twenty_adapters_at_once_have_one_broker_and_twenty_names() {
    let _serial = peer_tests::serial();
    for round in 0..rounds() {
        let home = peer_tests::home!();
        let adapters: Vec<_> = (0..20).map(|_| home.adapter("codex-mcp-client").start()).collect();
        let calls: Vec<u64> = adapters
            .iter()
            .map(|adapter| adapter.submit_call("list_peers", json!({}), json!({})))
            .collect();
        if round % 2 == 1 {
            // The winner dies during its start, or shortly after: somebody else takes over.
            let deadline = Instant::now() + PATIENCE;
            loop {
                if let Some(pid) = home.broker_pid() {
                    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
                    break;
                }
                assert!(Instant::now() < deadline, "no broker in round {round}");
            }
        }
        for (adapter, call) in adapters.iter().zip(calls) {
            let result = adapter.result(call, PATIENCE);
            assert!(!result.is_error, "round {round}: {}", result.text);
        }
        // Whoever had its answer before the broker died is back once it has another one.
        for adapter in &adapters {
            let _ = adapter.call("set_summary", json!({"summary": "here"})).success();
        }
        let peers = home.peerctl(&["peers", "--json"]).success().json();
        let online: Vec<_> = peers
            .as_array()
            .expect("a list")
            .iter()
            .filter(|peer| peer["online"] == true)
            .collect();
        let names: BTreeSet<_> =
            online.iter().map(|peer| peer["name"].as_str().expect("a name")).collect();
        assert_eq!((online.len(), names.len()), (20, 20), "round {round}: {peers}");
        let brokers = home.processes().iter().filter(|pid| is_broker(**pid)).count();
        assert_eq!(brokers, 1, "round {round}");
    }
}

fn is_broker(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    line.contains("daemon run")
}

/// Context switches of all of a process's threads, and the bytes that it had written to disks.
#[cfg(target_os = "linux")]
fn activity(pid: u32) -> (u64, u64) {
    let mut switches = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
        let status = std::fs::read_to_string(task.expect("readable").path().join("status"))
            .expect("readable");
        let values = status
            .lines()
            .filter_map(|line| line.split_once("ctxt_switches:"))
            .map(|(_, value)| value.trim());
        switches += values.map(|value| value.parse::<u64>().expect("a number")).sum::<u64>();
    }
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let written = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))
        .map_or(0, |n| n.parse().expect("a number"));
    (switches, written)
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_broker_and_an_idle_adapter_do_not_wake_and_write_nothing() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    for adapter in [&luna, &orion] {
        adapter.register();
    }
    // Unread mail, offered by the last carrier: no timer may run for it.
    let _ = luna.call("send_message", json!({"to": "orion", "message": "unread"})).success();
    let _ = orion.call("check_messages", json!({})).success();
    let broker = home.broker_pid().expect("a broker");
    // The checkpoint after the last commit is the broker's last work. Two quiet seconds in a row
    // are idleness.
    let deadline = Instant::now() + PATIENCE;
    let mut before = (activity(broker), activity(luna.pid), activity(orion.pid));
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let after = (activity(broker), activity(luna.pid), activity(orion.pid));
        if after == before {
            break;
        }
        assert!(Instant::now() < deadline, "never idle: {before:?}, then {after:?}");
        before = after;
    }
}

#[test]
fn a_broker_whose_socket_is_gone_ends_and_makes_room() {
    let home = peer_tests::home!();
    let _ = home.peerctl(&["daemon", "start"]).success();
    let first = home.broker_pid().expect("a broker");
    std::fs::remove_file(home.socket()).expect("remove the socket");
    home.wait_for_no_broker();
    let _ = home.peerctl(&["status", "--json"]).success();
    assert_ne!(home.broker_pid(), Some(first));
}

#[test]
fn a_connection_that_finds_no_room_is_told_so() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    let executable = home.executable().to_str().expect("UTF-8");
    let mut start = std::process::Command::new("sh");
    // Sixteen connections, and the descriptors that are none.
    start.args(["-c", "ulimit -n 80 && exec \"$0\" daemon start", executable]);
    start.env("HOME", home.home()).env("PEERD_DIR", home.state());
    assert!(start.status().expect("run a shell").success());
    // How many it takes: whoever asked before may not have left when the crowd comes, and then
    // leaves one place.
    let (mut crowd, mut refused) = (Vec::new(), home.peerctl(&["status", "--json"]));
    while refused.code == 0 && crowd.len() < 320 {
        crowd.extend(
            (0..16).map(|_| UnixStream::connect(home.socket()).expect("there is a broker")),
        );
        refused = home.peerctl(&["status", "--json"]);
    }
    assert_eq!(
        (refused.code, &refused.json()["error"]["code"]),
        (1, &json!("overloaded")),
        "{refused:?}"
    );
    assert!(
        refused.stderr.contains("the broker has 16 connections, and accepts no more"),
        "{refused:?}"
    );

    drop(crowd);
    let deadline = Instant::now() + PATIENCE;
    while home.peerctl(&["status"]).code != 0 {
        assert!(Instant::now() < deadline, "there is no room again");
    }
}

#[test]
fn a_second_broker_in_one_directory_is_refused() {
    let home = peer_tests::home!();
    let _ = home.peerctl(&["daemon", "start"]).success();
    let second = home.peerctl(&["daemon", "run"]);
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains("runs already"), "{second:?}");
    let _ = home.peerctl(&["daemon", "stop"]).success();
    home.wait_for_no_broker();
    let status = home.peerctl(&["status", "--no-start", "--json"]);
    assert_eq!(status.code, 3, "{status:?}");
}

#[test]
fn a_dormant_adapter_has_no_tools_and_starts_no_broker() {
    let home = peer_tests::home!();
    for (key, value) in [("PEERD_ENABLED", "0"), ("AGENT_PEERS_ENABLED", "0")] {
        let adapter = home.adapter("claude-code").env(key, value).start();
        let tools = adapter.request("tools/list", json!({}));
        assert_eq!(tools["result"]["tools"], json!([]), "{tools}");
    }
    home.configure("[adapter]\nopt_in = true\n");
    let adapter = home.adapter("claude-code").start();
    assert_eq!(adapter.request("tools/list", json!({}))["result"]["tools"], json!([]));
    let adapter = home.adapter("claude-code").env("PEERD_ENABLED", "1").start();
    assert_ne!(adapter.request("tools/list", json!({}))["result"]["tools"], json!([]));
    drop(adapter);
}

#[test]
fn what_is_wrong_with_the_directory_is_said_with_the_way_out() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let refused = |home: &Home, says: &[&str]| {
        let outcome = home.peerctl(&["daemon", "start"]);
        assert_ne!(outcome.code, 0, "{outcome:?}");
        for part in says {
            assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
        }
    };
    let open = peer_tests::home!();
    open.configure("");
    std::fs::set_permissions(open.state(), PermissionsExt::from_mode(0o755)).expect("chmod");
    refused(&open, &["chmod 700"]);

    let linked = peer_tests::home!();
    std::fs::create_dir(linked.root().join("real")).expect("mkdir");
    symlink(linked.root().join("real"), linked.state()).expect("symlink");
    refused(&linked, &["is not a directory", "PEERD_DIR"]);

    let damaged = peer_tests::home!();
    damaged.configure("");
    std::fs::write(damaged.state().join("peers.redb"), vec![7; 50_000]).expect("write");
    std::fs::set_permissions(damaged.state().join("peers.redb"), PermissionsExt::from_mode(0o600))
        .expect("chmod");
    refused(&damaged, &["peers.redb"]);
    assert_eq!(
        std::fs::read(damaged.state().join("peers.redb")).expect("read"),
        vec![7; 50_000],
        "it is left as it was"
    );
}
