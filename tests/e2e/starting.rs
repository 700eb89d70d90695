//! How a broker starts in odd surroundings, and what is said where it cannot: signals, limits,
//! owners, a lost socket, an upgrade.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_tests::Home;
use serde_json::json;

/// `peerctl` with these arguments, by a shell that runs `before` first, with the home's
/// environment.
fn behind(home: &Home, before: &str, arguments: &[&str]) -> Command {
    let inner = home.command(arguments);
    let mut command = Command::new("/bin/bash");
    command
        .arg("-c")
        .arg(format!("{before}; exec \"$0\" \"$@\""))
        .arg(inner.get_program())
        .args(arguments)
        .env_clear();
    command.env("PATH", "/usr/bin:/bin");
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// A program whose brokers are `run`: the real one in all else. A file that was replaced at its
/// start is taken for its successor, and the successor is a script here.
fn with_brokers_that(home: &Home, run: &str) -> PathBuf {
    let (script, real) = (home.root().join("peerctl"), home.root().join("peerctl (deleted)"));
    if !real.exists() {
        // By a program of its own: what this process had open for writing, a child of another test
        // might hold open.
        let copied = Command::new("cp").arg(home.executable()).arg(&real).status().expect("run cp");
        assert!(copied.success());
    }
    let text = format!(
        "#!/bin/bash\nif [ \"$2\" = run ]; then echo x >> {}/runs; {run}; fi\nexec \"{}\" \"$@\"\n",
        home.root().display(),
        real.display()
    );
    let made = Command::new("/bin/bash")
        .args(["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""])
        .arg(&script)
        .arg(text)
        .status();
    assert!(made.expect("run a shell").success());
    real
}

fn runs(home: &Home) -> usize {
    fs::read_to_string(home.root().join("runs")).map_or(0, |runs| runs.lines().count())
}

#[test]
fn nothing_of_its_starters_signals_limits_and_nice_value_reaches_the_broker() {
    let home = peer_tests::home!();
    // bash cannot block signals; it can ignore them, and what it ignores its children cannot hear.
    let before = "trap '' TERM INT HUP CHLD QUIT USR1 XFSZ XCPU; ulimit -S -t 30; ulimit -S -f 100; ulimit -S -n 30; ulimit -S -c 0; nice -n 0 true; renice -n 5 $$ >/dev/null";
    let _ = home.run(behind(&home, before, &["status"]), "").success();
    let pid = home.broker_pid().expect("a broker runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read its status");
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a mask");
        u64::from_str_radix(line.trim(), 16).expect("a number")
    };
    let bit = |signal: Signal| 1u64 << (signal as i32 - 1);
    assert_eq!(mask("SigBlk:"), 0);
    // A closed pipe and a file that is too large are errors of one write.
    // 32 and 33 are the C library's own; no program can change them.
    assert_eq!(mask("SigIgn:") & !(0b11 << 31), bit(Signal::SIGPIPE) | bit(Signal::SIGXFSZ));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("read its limits");
    for name in ["Max cpu time", "Max file size", "Max open files"] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("a limit");
        let values: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(values[0], values[1], "{name}");
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read its stat");
    let nice: i32 = stat
        .rsplit_once(')')
        .expect("a name")
        .1
        .split_whitespace()
        .nth(16)
        .expect("a nice value")
        .parse()
        .expect("a number");
    if nix::unistd::geteuid().is_root() {
        assert_eq!(nice, 0, "root may take it back");
    }
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("end it");
    home.wait_for_no_broker();
}

#[test]
fn signals_that_its_starter_blocked_reach_the_broker() {
    let home = peer_tests::home!();
    let outcome = home.run(
        behind(&home, "exec env --block-signal=TERM,INT,HUP,CHLD \"$0\" \"$@\"", &["status"]),
        "",
    );
    if outcome.stderr.contains("unrecognized option") || outcome.stderr.contains("illegal option") {
        // An `env` that cannot block them.
        return;
    }
    let _ = outcome.success();
    let pid = home.broker_pid().expect("a broker runs");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("end it");
    home.wait_for_no_broker();
}

/// A program and its arguments that give another one a world of its own, by these options of
/// `unshare`; none where this system has no such worlds.
fn apart(options: &'static str) -> Option<[&'static str; 2]> {
    let tried = Command::new("unshare")
        .args([options, "true"])
        .stderr(std::process::Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success()).then_some(["unshare", options])
}

#[test]
fn without_proc_commands_adapters_and_brokers_start() {
    let home = peer_tests::home!();
    let Some([program, options]) = apart("-Urm") else { return };
    // By an absolute path, by a relative one, and by one on PATH.
    let script = "mount -t tmpfs none /proc || exit 99; bin=$(dirname \"$0\"); base=$(basename \"$0\"); set -e; \
                  \"$0\" status >/dev/null; \"$0\" daemon restart >/dev/null; \"$0\" daemon stop >/dev/null; \
                  cd \"$bin\"; ./$base status > /dev/null; ./$base daemon stop >/dev/null; cd /; \
                  \"$0\" doctor >/dev/null; \"$0\" demo >/dev/null; echo all";
    let mut command = Command::new(program);
    command.args([options, "bash", "-c", script]).arg(home.executable()).env_clear();
    command
        .env("HOME", home.home())
        .env("PEERD_DIR", home.state())
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    let outcome = home.run(command, "");
    if outcome.code == 99 {
        return;
    }
    assert_eq!((outcome.code, &*outcome.stdout), (0, "all\n"), "{outcome:?}");
}

#[test]
fn an_adapter_serves_the_first_process_of_a_container_and_ends_with_a_wrapper() {
    let home = peer_tests::home!();
    let wrapped = ["/bin/sh", "-c", "\"$0\" \"$@\"; true"];
    if let Some(apart) = apart("-Urpf") {
        let launcher: Vec<&str> =
            apart.into_iter().chain(["--mount-proc"]).chain(wrapped).collect();
        let first =
            home.adapter("claude-code").env("PEER_NAME", "first").through(&launcher).start();
        first.register();
        first.close_stdin();
        assert_eq!(first.wait_exit(peer_tests::PATIENCE).code, 0);
    }
    let luna = home.adapter("claude-code").env("PEER_NAME", "luna").through(&wrapped).start();
    luna.register();
    luna.kill();
    let begun = Instant::now();
    while home.peerctl(&["peers", "luna", "--json"]).success().json()[0]["online"] != false {
        assert!(
            begun.elapsed() < peer_tests::PATIENCE,
            "the adapter of a wrapper that was killed lives on"
        );
    }
}

#[test]
fn the_log_of_a_broker_that_runs_is_bounded_and_made_again() {
    let home = peer_tests::home!();
    let _ = home.peerctl(&["status"]).success();
    let log = home.state().join("broker.log");
    fs::OpenOptions::new()
        .write(true)
        .open(&log)
        .expect("open the log")
        .set_len(11 << 20)
        .expect("make it large");
    // What a broker logs.
    let complaint = |preface: &[u8; 16]| {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(home.socket()).expect("connect");
        stream.write_all(preface).expect("write");
        // It is logged before the connection ends.
        let _ = stream.read_to_end(&mut Vec::new());
    };
    complaint(b"GET / HTTP/1.1\r\n");
    assert_eq!(
        fs::metadata(home.state().join("broker.log.1")).expect("it was set aside").len(),
        11 << 20
    );
    assert!(fs::metadata(&log).expect("another one").len() < 1 << 20);
    fs::remove_file(&log).expect("remove the log");
    // Of one kind there is one complaint a minute.
    complaint(b"PEERD\0\0\0\0\0\0\0\0\0\0\0");
    assert!(fs::read_to_string(&log).expect("it was made again").contains("connection"));
}

#[test]
fn an_adapter_and_a_command_start_a_broker_where_sigchld_is_ignored() {
    let home = peer_tests::home!();
    let _ = home.run(behind(&home, "trap '' CHLD", &["status"]), "").success();
    let _ = home.run(behind(&home, "trap '' CHLD", &["daemon", "restart"]), "").success();
    let _ = home.run(behind(&home, "trap '' CHLD", &["demo"]), "").success();
}

#[test]
fn a_broker_that_dies_at_its_start_is_started_twice_and_no_more_and_it_is_said_of_what_it_died() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    for (run, told) in [
        ("kill -KILL $$", &["signal 9, SIGKILL", "without any output"][..]),
        ("kill -ABRT $$", &["SIGABRT"]),
        ("echo all is lost >&2; kill -SEGV $$", &["SIGSEGV", "all is lost"]),
        ("kill -XFSZ $$", &["SIGXFSZ", "ulimit -f"]),
        ("exec 2>&-; exit 134", &["exit code 134"]),
        (
            "mkdir -p -m 700 $PEERD_DIR; echo the log knows >> $PEERD_DIR/broker.log; kill -BUS $$",
            &["SIGBUS", "the log knows"],
        ),
    ] {
        let _ = fs::remove_file(home.root().join("runs"));
        let program = with_brokers_that(&home, run);
        let mut command = Command::new(&program);
        command.args(["daemon", "start"]).env_clear();
        command
            .env("HOME", home.home())
            .env("PEERD_DIR", home.state())
            .env("PATH", "/usr/bin:/bin");
        let outcome = home.run(command, "");
        assert_eq!(runs(&home), 2, "{run}: {outcome:?}");
        assert_ne!(outcome.code, 0);
        for told in told {
            assert!(outcome.stderr.contains(told), "{told:?} is not in {}", outcome.stderr);
        }
        assert!(outcome.stderr.contains("peerctl doctor"), "{}", outcome.stderr);
    }
}

#[test]
fn a_command_whose_broker_dies_at_its_start_says_of_what() {
    let home = peer_tests::home!();
    let program = with_brokers_that(&home, "kill -ABRT $$");
    let mut command = Command::new(&program);
    command
        .arg("status")
        .env_clear()
        .env("HOME", home.home())
        .env("PEERD_DIR", home.state())
        .env("PATH", "/usr/bin:/bin");
    let outcome = home.run(command, "");
    assert_eq!((outcome.code, runs(&home)), (3, 2), "{outcome:?}");
    assert!(outcome.stderr.contains("SIGABRT"), "{outcome:?}");
}

#[test]
fn an_adapter_goes_on_after_the_upgrade_that_removed_its_version() {
    let installed = peer_tests::home!();
    let (link, v1, v2) = (
        installed.root().join("peerctl"),
        installed.root().join("v1"),
        installed.root().join("v2"),
    );
    let home = Home::new(link.to_str().expect("a path that is text"));
    for version in [&v1, &v2] {
        fs::create_dir(version).expect("make a directory");
        let copied = Command::new("cp")
            .arg(installed.executable())
            .arg(version.join("peerctl"))
            .status()
            .expect("run cp");
        assert!(copied.success());
    }
    symlink(v1.join("peerctl"), &link).expect("link");
    let adapter = home.adapter("codex-mcp-client").start();
    adapter.register();
    fs::remove_file(&link).expect("unlink");
    symlink(v2.join("peerctl"), &link).expect("link");
    fs::remove_dir_all(&v1).expect("remove a version");
    home.kill_broker();
    let _ = adapter.call("set_summary", json!({"summary": "after the upgrade"})).success();
}

#[test]
fn a_broker_that_nobody_can_reach_is_got_over_by_a_start_and_told_by_status() {
    let home = peer_tests::home!();
    // Without a watch on the directory: all inotify instances are taken. The end of a connection
    // makes the broker look for its socket, so that must be over before the socket goes.
    let script = "echo 0 > /proc/sys/user/max_inotify_instances; \"$0\" status >/dev/null && sleep 1 && rm \"$PEERD_DIR/broker.sock\" && \
                  { \"$0\" daemon status; echo \"exit $?\"; \"$0\" --json status && \"$0\" daemon status >/dev/null; echo \"exit $?\"; }; \
                  sleep 1; rm \"$PEERD_DIR/broker.sock\"; \"$0\" daemon stop; \"$0\" daemon stop";
    let mut command = Command::new("unshare");
    command.args(["-Ur", "bash", "-c", script]).arg(home.executable()).env_clear();
    command
        .env("HOME", home.home())
        .env("PEERD_DIR", home.state())
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    let outcome = home.run(command, "");
    if !outcome.stdout.contains("exit") {
        // This system has no user namespaces for it.
        assert!(
            outcome.stderr.contains("unshare") || outcome.stderr.contains("max_inotify"),
            "{outcome:?}"
        );
        return;
    }
    assert!(outcome.stderr.contains("no broker can be reached at"), "{outcome:?}");
    assert!(outcome.stderr.contains("holds the broker's lock and is serving"), "{outcome:?}");
    assert!(outcome.stdout.contains("exit 3") && outcome.stdout.contains("exit 0"), "{outcome:?}");
    assert!(
        outcome.stdout.contains("was stopped by SIGTERM, because it could not be asked"),
        "{outcome:?}"
    );
    assert!(outcome.stdout.ends_with("no broker is running\n"), "{outcome:?}");
    assert_eq!(home.broker_pid(), None);
}

#[test]
fn a_suspended_broker_is_stopped_by_the_person_and_not_by_an_agents_shell() {
    let home = peer_tests::home!();
    let _ = home.peerctl(&["daemon", "start"]).success();
    let pid = home.broker_pid().expect("a broker runs");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).expect("suspend it");
    let mut shell = home.command(&["daemon", "stop", "--json"]);
    shell.env("CLAUDECODE", "1");
    let refused = home.run(shell, "");
    assert_eq!(refused.code, 6, "{refused:?}");
    assert_eq!(refused.json()["error"]["code"], "not_permitted");
    assert_eq!(home.broker_pid(), Some(pid));
    let stopped = home.peerctl(&["daemon", "stop"]).success();
    assert!(
        stopped.stdout.contains(&format!("pid {pid}")) && stopped.stdout.contains("suspended"),
        "{stopped:?}"
    );
    assert_eq!(home.broker_pid(), None);
}

#[test]
fn a_stranger_that_listens_and_says_nothing_is_no_broker() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    home.configure("");
    let stranger = UnixListener::bind(home.socket()).expect("listen");
    let begun = Instant::now();
    let outcome = home.peerctl(&["--no-start", "status"]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    let told = format!("is not a broker (process {})", std::process::id());
    assert!(outcome.stderr.contains(&told), "{outcome:?}");
    let _ = home.peerctl(&["daemon", "start"]).success();
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "it waited for a stranger's word: {:?}",
        begun.elapsed()
    );
    drop(stranger);
}

#[test]
fn in_another_users_home_every_command_says_whose_it_is_and_makes_nothing() {
    let home = peer_tests::home!();
    let theirs = home.root().join("theirs");
    fs::create_dir(&theirs).expect("make a directory");
    if chown(&theirs, Some(64_711), Some(64_711)).is_err() {
        return;
    }
    for arguments in [
        &["status"][..],
        &["daemon", "start"],
        &["doctor"],
        &["setup", "claude", "--yes"],
        &["peers"],
        &["uninstall", "--purge"],
    ] {
        let mut command = home.command(arguments);
        command.env("HOME", &theirs).env_remove("PEERD_DIR");
        let outcome = home.run(command, "");
        assert_ne!(outcome.code, 0, "{outcome:?}");
        let told = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(
            told.contains("belongs to user 64711") && told.contains("run it as that user"),
            "{told}"
        );
        assert!(!told.contains("remove"), "{told}");
    }
    // Setup writes under HOME wherever the state directory is.
    fs::create_dir(theirs.join(".claude")).expect("make a directory");
    let mut command = home.command(&["setup", "claude", "--yes"]);
    command.env("HOME", &theirs);
    assert_ne!(home.run(command, "").code, 0);
    assert_eq!(fs::read_dir(theirs.join(".claude")).expect("read it").count(), 0);
    assert_eq!(fs::read_dir(&theirs).expect("read it").count(), 1);
}

#[test]
fn who_is_locked_out_hears_by_whom_and_how_to_get_in() {
    let home = peer_tests::home!();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let theirs = home.root().join("theirs");
    let closed = theirs.join(".local");
    fs::create_dir_all(closed.join("share/peerd")).expect("make directories");
    fs::set_permissions(home.root(), fs::Permissions::from_mode(0o755)).expect("set a mode");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("set a mode");
    chown(&theirs, Some(64_711), Some(64_711)).expect("give it away");
    let asked = || {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "64711", "--regid", "64711", "--clear-groups"])
            .arg(home.executable())
            .args(["status", "--json"]);
        command.env_clear().env("HOME", &theirs).env("PATH", "/usr/bin:/bin");
        home.run(command, "").json()["error"].clone()
    };
    let of_root = asked();
    assert_eq!(of_root["code"], "locked_out", "{of_root}");
    assert!(
        of_root["message"]
            .as_str()
            .expect("a text")
            .contains("belongs to user 0 (root) and has mode 0700"),
        "{of_root}"
    );
    assert!(
        of_root["hint"]
            .as_str()
            .expect("a text")
            .contains(&format!("chown -R 64711 '{}'", closed.display())),
        "{of_root}"
    );
    chown(&closed, Some(64_711), Some(64_711)).expect("give it away");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("set a mode");
    let closed_by_mode = asked();
    assert!(
        closed_by_mode["hint"].as_str().expect("a text").contains("chmod u+rwx"),
        "{closed_by_mode}"
    );
}

#[test]
fn an_adapter_that_may_make_no_thread_says_so() {
    let home = peer_tests::home!();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    fs::set_permissions(home.root(), fs::Permissions::from_mode(0o755)).expect("set a mode");
    fs::set_permissions(home.home(), fs::Permissions::from_mode(0o755)).expect("set a mode");
    // A user of whom no other process runs.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "64713", "--regid", "64713", "--clear-groups"]);
    command.args(["/bin/bash", "-c", "ulimit -u 1; exec \"$0\" mcp"]).arg(home.executable());
    command.env_clear().env("HOME", home.home()).env("PATH", "/usr/bin:/bin");
    let outcome = home.run(command, "{}\n");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains("ulimit -u") && !outcome.stderr.contains("panicked"),
        "{outcome:?}"
    );
}

#[test]
fn too_few_descriptors_are_told_and_no_panic() {
    let home = peer_tests::home!();
    for limit in 5..12 {
        for arguments in [&["status"][..], &["daemon", "status"], &["doctor"]] {
            let outcome = home.run(behind(&home, &format!("ulimit -n {limit}"), arguments), "");
            assert!(outcome.code < 100, "{limit} {arguments:?}: {outcome:?}");
            assert!(!outcome.stderr.contains("panicked"), "{limit} {arguments:?}: {outcome:?}");
        }
    }
    let told = home.run(behind(&home, "ulimit -n 8", &["status"]), "");
    assert!(told.stderr.contains("ulimit -n"), "{told:?}");
}

#[test]
fn an_empty_home_names_no_place() {
    let home = peer_tests::home!();
    let mut command = home.command(&["status"]);
    command.env("HOME", "").env_remove("PEERD_DIR");
    let outcome = home.run(command, "");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("PEERD_DIR"), "{outcome:?}");
}

#[test]
fn arguments_that_are_no_text_are_wrong_usage_and_a_hooks_never_fail_it() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let home = peer_tests::home!();
    let odd = OsStr::from_bytes(b"\xff");
    for before in [
        &[][..],
        &["send"],
        &["send", "a"],
        &["mcp"],
        &["--json"],
        &["daemon", "start"],
        &["hook"],
        &["--json", "hook"],
    ] {
        let mut command = home.command(before);
        command.arg(odd);
        let outcome = home.run(command, "");
        let wanted = if before.contains(&"hook") { 0 } else { 2 };
        assert_eq!(outcome.code, wanted, "{before:?}: {outcome:?}");
    }
}
