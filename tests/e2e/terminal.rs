//! What the person and the other agents see of a session before it has said a word: the title of
//! its terminal tab, and its first summary.
//!
//! The client is a shell whose standard streams are a pseudo-terminal of the test's own; the
//! adapter is its child, with pipes to the test.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{FlowArg, LocalFlags, SetArg, tcflow, tcgetattr, tcsetattr};
use nix::unistd::{Pid, ttyname};
use peer_tests::{Adapter, Home, PATIENCE};
use serde_json::json;

/// What a terminal gets when a title is shown for the first time.
const KEEP: &str = "\x1b[22;0t";

/// What it gets at the end.
const GIVE_BACK: &str = "\x1b]0;\x07\x1b[23;0t";

/// Turns a shell with pipes into one on the terminal, which then does what its second argument
/// says: there the pipes are descriptors 8, 9 and 7.
const ON_TERMINAL: &str = r#"exec 8<&0 9>&1 7>&2; tty=$1 does=$2; shift 2; exec setsid --ctty sh -c "$does" sh "$@" 0<>"$tty" 1>&0 2>&0"#;

/// A client that runs its adapter as Claude Code does: in its own process group.
const CLIENT: &str = r#"(exec "$@" <&8 >&9 2>&7); exit"#;

fn title(name: &str) -> String {
    format!("\x1b]0;peer:{name}\x07")
}

/// A pseudo-terminal, and everything that was written to it.
struct Terminal {
    slave: File,
    written: Arc<(Mutex<Vec<u8>>, Condvar)>,
}

impl Terminal {
    fn open() -> Self {
        let (mut master, slave) = peer_tests::pseudo_terminal();
        let written = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let ours = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut some = [0; 4_096];
            // An error is its end: the last program on it is gone.
            while let Ok(read @ 1..) = master.read(&mut some) {
                ours.0.lock().expect("nobody panicked").extend(&some[..read]);
                ours.1.notify_all();
            }
        });
        Self { slave, written }
    }

    fn path(&self) -> PathBuf {
        ttyname(&self.slave).expect("it has a name")
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.0.lock().expect("nobody panicked")).into_owned()
    }

    /// Waits until exactly `text` was written to it since it was opened.
    #[track_caller]
    fn wait(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut written = self.written.0.lock().expect("nobody panicked");
        while *written != text.as_bytes() {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{:?} instead of {text:?}", String::from_utf8_lossy(&written));
            written = self.written.1.wait_timeout(written, left).expect("nobody panicked").0;
        }
    }

    /// An adapter whose client does `does` on this terminal.
    fn adapter<'home>(&self, home: &'home Home, does: &str) -> Adapter<'home> {
        let path = self.path();
        let path = path.to_str().expect("UTF-8");
        home.adapter("claude-code").env("PEER_NAME", "luna").env("TERM", "xterm").through(&[
            "sh",
            "-c",
            ON_TERMINAL,
            "sh",
            path,
            does,
        ])
    }
}

#[test]
fn the_tab_has_the_session_s_name_until_its_end() {
    let home = peer_tests::home!();
    let terminal = Terminal::open();
    let adapter = terminal.adapter(&home, CLIENT).start();
    let shown = format!("{KEEP}{}", title("luna"));
    terminal.wait(&shown);

    // Shown again with every call: the client may have set a title of its own meanwhile.
    let _ = adapter.call("set_summary", json!({"summary": "testing"})).success();
    let shown = shown + &title("luna");
    terminal.wait(&shown);

    let _ = adapter.call("rename_peer", json!({"new_name": "nova"})).success();
    let shown = shown + &title("luna") + &title("nova");
    terminal.wait(&shown);
    let _ = home.peerctl(&["rename", "nova", "vega"]).success();
    let shown = shown + &title("vega");
    terminal.wait(&shown);

    adapter.close_stdin();
    let _ = adapter.wait_exit(PATIENCE);
    terminal.wait(&(shown + GIVE_BACK));
}

#[test]
fn a_session_that_was_ended_gives_the_title_back() {
    let home = peer_tests::home!();
    let terminal = Terminal::open();
    let adapter = terminal.adapter(&home, CLIENT).start();
    let shown = format!("{KEEP}{}", title("luna"));
    terminal.wait(&shown);
    let _ = home.peerctl(&["kick", "luna"]).success();
    let shown = shown + GIVE_BACK;
    terminal.wait(&shown);
    // It has no name any more, and nothing is given back twice.
    assert!(adapter.call("list_peers", json!({})).is_error);
    adapter.close_stdin();
    let _ = adapter.wait_exit(PATIENCE);
    terminal.wait(&shown);
}

/// Codex runs its servers in process groups of their own. `stty tostop` stops whoever writes from
/// the background.
#[test]
fn an_adapter_in_the_background_of_its_client_s_terminal_is_not_stopped() {
    let home = peer_tests::home!();
    let terminal = Terminal::open();
    let mut settings = tcgetattr(&terminal.slave).expect("it is a terminal");
    settings.local_flags |= LocalFlags::TOSTOP;
    tcsetattr(&terminal.slave, SetArg::TCSANOW, &settings).expect("it is a terminal");
    let adapter = terminal.adapter(&home, r#"set -m; (exec "$@" <&8 >&9 2>&7) & wait"#).start();
    adapter.register();
    terminal.wait(&format!("{KEEP}{}", title("luna")));
}

/// Some clients start their servers in sessions of their own: then the kernel gives the adapter no
/// terminal.
#[test]
fn an_adapter_away_from_its_client_s_terminal_finds_it() {
    let home = peer_tests::home!();
    let terminal = Terminal::open();
    let adapter = terminal.adapter(&home, r#"(exec setsid "$@" <&8 >&9 2>&7); exit"#).start();
    let shown = format!("{KEEP}{}", title("luna"));
    terminal.wait(&shown);
    adapter.close_stdin();
    let _ = adapter.wait_exit(PATIENCE);
    terminal.wait(&(shown + GIVE_BACK));
}

#[test]
fn a_terminal_that_takes_nothing_delays_nothing() {
    let home = peer_tests::home!();
    let terminal = Terminal::open();
    // What Ctrl-S does.
    tcflow(&terminal.slave, FlowArg::TCOOFF).expect("it is a terminal");
    let adapter = terminal.adapter(&home, CLIENT).start();
    let began = Instant::now();
    adapter.register();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    adapter.close_stdin();
    let _ = adapter.wait_exit(PATIENCE);
    tcflow(&terminal.slave, FlowArg::TCOON).expect("it is a terminal");
}

#[test]
fn a_signal_gives_the_title_back_too() {
    let home = peer_tests::home!();
    let terminal = Terminal::open();
    // The shell becomes the adapter, which then is the terminal's own session.
    let adapter = terminal.adapter(&home, r#"exec "$@" <&8 >&9 2>&7"#).start();
    let shown = format!("{KEEP}{}", title("luna"));
    terminal.wait(&shown);
    adapter.signal(Signal::SIGTERM);
    let _ = adapter.wait_exit(PATIENCE);
    terminal.wait(&(shown + GIVE_BACK));
}

/// None of these may write a byte: the tab shows somebody else, or its person said no.
#[test]
fn a_tab_that_is_not_the_client_s_stays_as_it_is() {
    for (why, does, variable, value) in [
        ("switched off", CLIENT, "PEERD_DISABLE_TAB_TITLE", "1"),
        ("no terminal that knows titles", CLIENT, "TERM", "dumb"),
        (
            "a client whose streams are elsewhere",
            r#"exec 0</dev/null 1>&0 2>&0; (exec "$@" <&8 >&9 2>&7); exit"#,
            "X",
            "",
        ),
        (
            "a client in the background",
            r#"set -m; { (exec "$@" <&8 >&9 2>&7); exit; } & wait"#,
            "X",
            "",
        ),
        (
            "a client without a terminal",
            r#"exec setsid --wait sh -c '(exec "$@" <&8 >&9 2>&7); exit' sh "$@""#,
            "X",
            "",
        ),
    ] {
        let home = peer_tests::home!();
        let terminal = Terminal::open();
        let adapter =
            terminal.adapter(&home, &format!("export {variable}={value}; {does}")).start();
        adapter.register();
        adapter.close_stdin();
        let _ = adapter.wait_exit(PATIENCE);
        assert_eq!(terminal.text(), "", "{why}");
    }
    // Dormant: it has no name to show.
    let home = peer_tests::home!();
    let terminal = Terminal::open();
    let adapter = terminal.adapter(&home, &format!("export PEERD_ENABLED=0; {CLIENT}")).start();
    let _ = adapter.request("tools/list", json!({}));
    adapter.close_stdin();
    let _ = adapter.wait_exit(PATIENCE);
    assert_eq!(terminal.text(), "");
}

/// A git repository with one changed file.
fn repository(home: &Home) -> PathBuf {
    let root = home.root().join("api");
    std::fs::create_dir(&root).expect("make a directory");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=luna", "-c", "user.email=luna@example.org"])
            .args(arguments)
            .current_dir(&root);
        command.env("HOME", home.home());
        let output = command.output().expect("run git");
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "-q", "-b", "topic/bcrypt"]);
    git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    std::fs::write(root.join("package.json"), "{}").expect("write a file");
    root
}

/// Waits until `name`'s summary is `expected`.
#[track_caller]
fn wait_for_summary(home: &Home, name: &str, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let summary = summary(home, name);
        if summary == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{summary:?} instead of {expected:?}");
        // A summary is no event that is told.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the others see of `name`; nothing before it is there.
fn summary(home: &Home, name: &str) -> String {
    let peers = home.peerctl(&["peers", "--json"]).success().json();
    let found = peers.as_array().expect("a list").iter().find(|peer| peer["name"] == name);
    found.map_or_else(String::new, |peer| peer["summary"].as_str().expect("a summary").to_owned())
}

#[test]
fn the_first_summary_comes_from_git_and_gives_way_to_the_session_s_own() {
    let home = peer_tests::home!();
    let root = repository(&home);
    let start = |name| {
        let adapter = home.adapter("claude-code").env("PEER_NAME", name).cwd(&root).start();
        adapter.register();
        adapter
    };
    let luna = start("luna");
    wait_for_summary(&home, "luna", "on branch topic/bcrypt, 1 changed file");
    let _ = luna.call("set_summary", json!({"summary": "updating bcrypt"})).success();
    luna.close_stdin();
    let _ = luna.wait_exit(PATIENCE);

    // The next session of the same name finds what the last one said. That of another is there to
    // tell when it is too late.
    let (_luna, _nova) = (start("luna"), start("nova"));
    wait_for_summary(&home, "nova", "on branch topic/bcrypt, 1 changed file");
    assert_eq!(summary(&home, "luna"), "updating bcrypt");
}

#[test]
fn the_person_s_own_program_makes_the_first_summary() {
    let home = peer_tests::home!();
    let root = repository(&home);
    let said = home.root().join("said");
    let program = format!("tee '{}' | tr '{{' '[' | cut -c 1-12; echo more", said.display());
    let luna = home
        .adapter("claude-code")
        .env("PEER_NAME", "luna")
        .env("PEERD_SUMMARIZER", &program)
        .cwd(&root)
        .start();
    luna.register();
    wait_for_summary(&home, "luna", r#"["branch":"t"#);
    let facts: serde_json::Value =
        serde_json::from_slice(&std::fs::read(said).expect("it was asked")).expect("JSON");
    assert_eq!(facts["branch"], "topic/bcrypt");
    assert_eq!(facts["files"], json!(["package.json"]));
    assert_eq!(facts["cwd"], root.to_str().expect("UTF-8"));
}

#[test]
fn a_program_that_fails_is_told_once_and_git_takes_its_place() {
    let home = peer_tests::home!();
    let root = repository(&home);
    let luna = home
        .adapter("claude-code")
        .env("PEER_NAME", "luna")
        .env("PEERD_SUMMARIZER", "exit 7")
        .cwd(&root)
        .start();
    wait_for_summary(&home, "luna", "on branch topic/bcrypt, 1 changed file");
    let result = luna.call("list_peers", json!({})).success();
    assert!(result.text.contains("PEERD_SUMMARIZER ended with exit status: 7"), "{}", result.text);
    assert!(!luna.call("list_peers", json!({})).success().text.contains("PEERD_SUMMARIZER"));
}

#[test]
fn a_program_that_hangs_delays_nobody_and_ends_with_the_session() {
    let home = peer_tests::home!();
    let started = home.root().join("started");
    nix::unistd::mkfifo(&started, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
    let program = format!(
        "trap '' TERM HUP INT; echo $$ >'{}'; sleep 600 & wait; sleep 600",
        started.display()
    );
    let luna = home
        .adapter("claude-code")
        .env("PEER_NAME", "luna")
        .env("PEERD_SUMMARIZER", &program)
        .start();
    let pid = std::fs::read_to_string(&started).expect("it says its number");
    let began = Instant::now();
    luna.register();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let group = Pid::from_raw(pid.trim().parse().expect("a number"));
    assert_eq!(killpg(group, None), Ok(()));
    luna.close_stdin();
    let _ = luna.wait_exit(PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    while killpg(group, None).is_ok() {
        assert!(Instant::now() < deadline, "the program lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}
