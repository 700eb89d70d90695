//! The titles of the tabs that the real programs run in. No turn is made: nobody asks the model.

use peer_tests::clients::Terminal;

/// What a terminal is told to be called after a session.
fn title(name: &str) -> String {
    format!("\x1b]0;peer:{name}\x07")
}

/// What a terminal is told at the end: back to the title before.
const GIVE_BACK: &str = "\x1b[23;0t";

/// Waits until the program, or its adapter, has written `text` to the terminal.
#[track_caller]
fn wait_written(terminal: &Terminal, text: &str) {
    let found = terminal.wait_until(|_| terminal.written().contains(text));
    assert!(found.is_ok(), "{text:?} was not written");
}

#[test]
fn the_tab_of_claude_code_has_its_session_s_name_until_it_ends() {
    let stage = peer_tests::stage!();
    let news = stage.news();
    let luna = stage.claude().name("luna").terminal();
    news.wait_online("luna");
    wait_written(&luna, &title("luna"));
    let _ = stage.home.peerctl(&["rename", "luna", "nova"]).success();
    wait_written(&luna, &title("nova"));
    luna.submit("/exit");
    wait_written(&luna, GIVE_BACK);
}

/// One daemon without a terminal runs the adapters of both.
#[test]
fn each_tab_of_codex_has_the_name_of_its_own_session() {
    let stage = peer_tests::stage!();
    let news = stage.news();
    let luna = stage.codex().name("luna").terminal();
    news.wait_online("luna");
    let sol = stage.codex().name("sol").terminal();
    news.wait_online("sol");
    wait_written(&luna, &title("luna"));
    wait_written(&sol, &title("sol"));
    let quiet = stage.codex().name("quiet").env("PEERD_DISABLE_TAB_TITLE", "1").terminal();
    news.wait_online("quiet");
    assert!(!quiet.written().contains("peer:"));
    assert!(!luna.written().contains(&title("sol")) && !sol.written().contains(&title("luna")));
    for terminal in [&luna, &sol, &quiet] {
        terminal.close();
    }
}

#[test]
fn the_tab_of_a_codex_without_a_daemon_has_its_name_too() {
    let stage = peer_tests::stage!();
    let news = stage.news();
    let luna = stage.codex().name("luna").args(["--no-daemon"]).terminal();
    news.wait_online("luna");
    wait_written(&luna, &title("luna"));
    luna.close();
}
