//! Searching through real adapters and `peerctl`: who finds what, how it is shown, and what a kill
//! leaves of the index.

use std::fs;
use std::time::{Duration, Instant};

use peer_tests::{Home, Mcp, PATIENCE};
use serde_json::{Value, json};

/// An adapter that offers all tools.
fn session(home: &Home, client: &str, name: &str) -> Mcp {
    let adapter = home.adapter(client).env("PEER_NAME", name).env("PEERD_PROFILE", "full");
    let adapter = if client == "claude-code" {
        adapter.env("CLAUDE_CODE_SESSION_ID", name)
    } else {
        adapter.thread_id(name)
    };
    adapter.registered()
}

fn send(from: &Mcp, to: &str, text: &str) -> String {
    from.call("send_message", json!({"to": to, "message": text})).success().message_id()
}

#[track_caller]
fn found(home: &Home, arguments: &[&str]) -> Vec<Value> {
    let arguments: Vec<&str> = ["search", "--json"].iter().chain(arguments).copied().collect();
    home.peerctl(&arguments).success().json().as_array().expect("a list").clone()
}

#[track_caller]
fn ids(home: &Home, arguments: &[&str]) -> Vec<String> {
    found(home, arguments)
        .iter()
        .map(|row| row["id"].as_str().expect("an id is a text").to_owned())
        .collect()
}

#[test]
fn each_finds_its_own_at_once_and_the_person_everything() {
    let home = peer_tests::home!();
    let (luna, orion, vega) = (
        session(&home, "claude-code", "luna"),
        session(&home, "codex-mcp-client", "orion"),
        session(&home, "claude-code", "vega"),
    );
    let first =
        send(&luna, "orion", "The Parser::new fix for src/lexer.rs breaks the *build*: Größe is 0");
    let second = send(&orion, "vega", "the build of staging is green again");

    // Without a pause: what was sent before is found.
    let seen = orion.call("search", json!({"query": "build", "newest": true})).success().text;
    assert!(seen.starts_with("2 hits found, newest first."), "{seen}");
    let (at_first, at_second) =
        (seen.find(&first).expect("the first"), seen.find(&second).expect("the second"));
    assert!(at_second < at_first, "{seen}");
    assert!(seen.contains(&format!("- message {first} by luna to orion, ")), "{seen}");
    assert!(!seen.contains(&format!("[{first}")), "no header of a message: {seen}");
    let seen = luna.call("search", json!({"query": "build"})).success().text;
    assert!(seen.contains(&first) && !seen.contains(&second), "{seen}");
    let seen = vega.call("search", json!({"query": "parser"})).success().text;
    assert!(seen.starts_with("Nothing has all"), "{seen}");

    assert_eq!(ids(&home, &["build", "--newest"]), [second.as_str(), first.as_str()]);
    assert_eq!(ids(&home, &["parser::new"]), [first.as_str()]);
    assert_eq!(ids(&home, &["src/lexer.rs", "GRÖSSE"]), [first.as_str()]);
    assert_eq!(ids(&home, &["'staging is green' aga*"]), [second.as_str()]);
    assert_eq!(ids(&home, &[&first]), [first.as_str()]);
    assert_eq!(ids(&home, &["build", "--peer", "vega"]), [second.as_str()]);
    assert_eq!(
        ids(&home, &["build", "--kind", "message", "-n", "1", "--newest"]),
        [second.as_str()]
    );
    assert!(ids(&home, &["build", "--kind", "note", "--kind", "task"]).is_empty());
    assert!(ids(&home, &["build", "--since", "2020-01-01", "--thread", "nowhere"]).is_empty());
    assert!(ids(&home, &["staging parser"]).is_empty());

    let row = &found(&home, &["parser::new"])[0];
    assert_eq!(
        (&row["from"], &row["kind"], &row["to"]),
        (&json!("luna"), &json!("message"), &json!(["orion"]))
    );
    assert!(
        row["text"].as_str().is_some_and(|text| text.starts_with("The Parser"))
            && row["stage"].is_string(),
        "{row}"
    );
    let (snippet, range) = (row["snippet"].as_str().expect("a snippet"), &row["matches"][0]);
    let at =
        |place: usize| usize::try_from(range[place].as_u64().expect("a number")).expect("small");
    assert_eq!(&snippet[at(0)..at(1)], "Parser::new", "{row}");
    let shown = home.peerctl(&["search", "parser::new"]).success().stdout;
    assert!(shown.contains("luna -> orion") && shown.contains("The Parser::new fix"), "{shown}");
}

#[test]
fn what_channels_keep_and_what_is_held_is_not_found() {
    let home = peer_tests::home!();
    let (luna, orion, vega) = (
        session(&home, "claude-code", "luna"),
        session(&home, "codex-mcp-client", "orion"),
        session(&home, "claude-code", "vega"),
    );
    let _ = luna
        .call("channels", json!({"action": "create", "name": "#ops", "private": true}))
        .success();
    let _ = luna
        .call("channels", json!({"action": "invite", "name": "#ops", "peer": "orion"}))
        .success();
    let posted = send(&luna, "#ops", "the violet plan");
    let seen =
        |mcp: &Mcp, query: &str| mcp.call("search", json!({ "query": query })).success().text;
    assert!(
        seen(&orion, "violet").contains(&posted) && seen(&orion, "violet").contains(" to #ops, ")
    );
    assert!(seen(&vega, "violet").starts_with("Nothing has all"));
    assert_eq!(ids(&home, &["violet", "--channel", "ops"]), [posted.as_str()]);

    let _ = home.peerctl(&["policy", "vega", "hold"]).success();
    let held = send(&orion, "vega", "an indigo secret");
    assert!(seen(&vega, "indigo").starts_with("Nothing has all"));
    assert!(seen(&orion, "indigo").contains(&held));
    let _ = home.peerctl(&["release", &held]).success();
    assert!(seen(&vega, "indigo").contains(&held));
}

#[test]
fn an_idle_broker_indexes_before_anybody_asks_again() {
    let home = peer_tests::home!();
    let luna = session(&home, "claude-code", "luna");
    // Before the first search there is nobody who could.
    assert!(ids(&home, &["umber"]).is_empty());
    let id = send(&luna, "human", "umber");
    // Its own commit says how far the index is.
    let meta = home.state().join("search/meta.json");
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&meta).is_ok_and(|meta| meta.contains(&id)) {
        assert!(Instant::now() < deadline, "the index of an idle broker is behind");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn bad_questions_are_refused_and_odd_ones_find_nothing() {
    let home = peer_tests::home!();
    let luna = session(&home, "claude-code", "luna");
    for (arguments, said) in [
        (json!({}), "search needs the argument query"),
        (json!({"query": "  "}), "query is empty"),
        (json!({"query": 7}), "query is the number 7"),
        (json!({"query": "a", "kind": "memo"}), "must be message, question, answer, note or task"),
        (json!({"query": "a", "limit": 0}), "must be at least 1"),
        (json!({"query": "a", "since": "2h"}), "search has no argument \"since\""),
        (json!({"query": "a", "from": "nobody"}), "no peer is called \"nobody\""),
        (json!({"query": "a".repeat(1_001)}), "at most 1000 bytes"),
        (
            json!({"query": "a* b* c* d* e* f* g* h* i*"}),
            "at most 8 of them; whole words have no star",
        ),
    ] {
        let result = luna.call("search", arguments.clone());
        assert!(result.is_error && result.text.contains(said), "{arguments}: {}", result.text);
    }
    for odd in ["???", "\" ( AND", "*", "-NOT:x^2~", "\u{0}x\u{7}", "部署", &"x ".repeat(500)] {
        assert!(
            luna.call("search", json!({"query": odd}))
                .success()
                .text
                .starts_with("Nothing has all"),
            "{odd}"
        );
    }
    home.peerctl(&["search", " ", "--json"]).refused(1, "out_of_bounds");
    home.peerctl(&["search", "x", "--peer", "nobody", "--json"]).refused(4, "unknown_peer");
    home.peerctl(&["search", "--json"]).refused(2, "usage");
    home.peerctl(&["search", "x", "--kind", "memo", "--json"]).refused(2, "usage");
    assert_eq!(home.peerctl(&["search", "nothing-like-it"]).success().stdout, "");
}

#[test]
fn an_index_outlives_a_kill_and_is_made_anew_where_it_is_lost() {
    let home = peer_tests::home!();
    let (luna, orion) =
        (session(&home, "claude-code", "luna"), session(&home, "codex-mcp-client", "orion"));
    let first = send(&luna, "orion", "amber one");
    assert_eq!(ids(&home, &["amber"]), [first.as_str()]);
    let second = send(&luna, "orion", "amber two");
    home.kill_broker();
    assert_eq!(ids(&home, &["amber", "--newest"]), [second.as_str(), first.as_str()]);
    drop((luna, orion));

    let _ = home.peerctl(&["daemon", "stop"]).success();
    let report = home.peerctl(&["daemon", "verify", "--json"]).success().json();
    assert_eq!(report["search_index"]["sound"], true, "{report}");
    let index = home.state().join("search");
    // Of a file that no broker can read.
    fs::write(index.join("meta.json"), "nonsense").expect("write into the index");
    assert_eq!(ids(&home, &["amber"]).len(), 2);
    let _ = home.peerctl(&["daemon", "stop"]).success();
    fs::remove_dir_all(&index).expect("throw the index away");
    assert_eq!(ids(&home, &["amber"]).len(), 2);
    home.peerctl(&["daemon", "reindex", "--json"]).refused(1, "broker");
    let _ = home.peerctl(&["daemon", "stop"]).success();
    let made = home.peerctl(&["daemon", "reindex", "--json"]).success().json();
    assert!(made["entries"].as_u64().is_some_and(|entries| entries >= 2), "{made}");
    let report = home.peerctl(&["daemon", "verify"]).success().stdout;
    assert!(report.contains("search index") && report.trim_end().ends_with("sound"), "{report}");
    // Where an index cannot be, a search says so, and mail goes on.
    fs::remove_dir_all(&index).expect("throw the index away");
    fs::write(&index, "in the way").expect("put a file in the way");
    let told = home.peerctl(&["search", "amber", "--json"]);
    told.refused(1, "overloaded");
    let luna = session(&home, "claude-code", "luna");
    let _ = send(&luna, "human", "still here");
}

/// Of a store without an index, behind one, killed, closed, made anew, and of one that is damaged.
#[test]
fn verify_says_what_is_true_of_each_state_of_the_index() {
    let home = peer_tests::home!();
    let verified = |sound: bool| {
        let outcome = home.peerctl(&["daemon", "verify", "--json"]);
        let said = outcome.json();
        let index = &said["search_index"];
        assert_eq!(
            (outcome.code == 0, index.is_null() || index["sound"] == sound),
            (sound, true),
            "{outcome:?}"
        );
        index.clone()
    };
    let stop = || drop(home.peerctl(&["daemon", "stop"]).success());
    let index = home.state().join("search");
    let luna = session(&home, "claude-code", "luna");
    let id = send(&luna, "human", "amber one");
    drop(luna);
    stop();
    assert!(!index.exists(), "nobody searched");
    assert_eq!(verified(true), Value::Null);
    assert_eq!(ids(&home, &["amber"]), [id.as_str()]);
    stop();
    assert_eq!((&verified(true)["entries"], &verified(true)["behind"]), (&json!(1), &json!(0)));
    let luna = session(&home, "claude-code", "luna");
    let _ = send(&luna, "human", "amber two");
    drop(luna);
    home.kill_broker();
    assert_eq!(verified(true)["behind"], 1);
    let _ = home.peerctl(&["daemon", "reindex"]).success();
    assert_eq!((&verified(true)["entries"], &verified(true)["behind"]), (&json!(2), &json!(0)));
    let files =
        || fs::read_dir(&index).expect("the index").map(|entry| entry.expect("an entry").path());
    let term =
        files().find(|path| path.extension().is_some_and(|end| end == "term")).expect("words");
    let mut bytes = fs::read(&term).expect("read the words");
    bytes[0] ^= 0x41;
    fs::write(&term, bytes).expect("damage the words");
    assert_eq!(verified(false)["damaged_files"], 1);
    // A broker does not wait to be told.
    assert_eq!(ids(&home, &["amber"]).len(), 2);
    stop();
    assert_eq!(verified(true)["entries"], 2);
    fs::write(index.join("meta.json"), "nonsense").expect("write into the index");
    assert_eq!(verified(false)["damaged_files"], 1);
}

#[test]
fn who_finds_little_hears_of_longer_words() {
    let home = peer_tests::home!();
    let luna = session(&home, "claude-code", "luna");
    for text in ["passkey", "two passkeys", "passkey-login"] {
        let _ = send(&luna, "human", text);
    }
    let told = home.peerctl(&["search", "passkey"]).success();
    assert!(
        told.stdout.contains("passkey-login") && !told.stdout.contains("two passkeys"),
        "{told:?}"
    );
    assert!(told.stderr.contains("1 more for passkey*"), "{told:?}");
    assert!(!home.peerctl(&["search", "passkey*"]).success().stderr.contains("more for"));
    assert!(!home.peerctl(&["search", "two"]).success().stderr.contains("more for"));
}
