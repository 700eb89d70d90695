//! What the systems that peerd replaces could do, as far as no other file shows it; and that every
//! test which the table in `docs/parity.md` names is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peer_tests::{Mcp, PATIENCE};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the repository")
        .to_path_buf()
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("read {path}: {why}"))
}

/// The texts of a history, in its order.
fn texts(history: &Value) -> Vec<&str> {
    history
        .as_array()
        .expect("history is a list")
        .iter()
        .filter_map(|row| row["text"].as_str())
        .collect()
}

// ---- the table

/// The rows of the tables in a page: their cells, without the first two lines of each table.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("| ") && !lines.peek().is_some_and(|next| next.starts_with("|--")) {
            rows.push(line.trim_matches('|').split('|').map(str::trim).collect());
        }
    }
    rows
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_row_names_tests_that_exist() {
    let page = read("docs/parity.md");
    let rows = rows(&page);
    assert!(rows.len() > 30, "only {} rows were found", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let [what, shown] = row[..] else {
            wrong.push(format!("not two cells: {row:?}"));
            continue;
        };
        let tests: Vec<&str> = quoted(shown).collect();
        if tests.is_empty() && !shown.starts_with("missing: ") {
            wrong.push(format!("{what:?} names no test and does not say what is missing"));
        }
        for test in tests {
            let Some((place, name)) = test.split_once("::") else {
                wrong.push(format!("{test:?} is not of the form file::test"));
                continue;
            };
            let scenario = root().join(format!("broker/core/tests/scenarios/{name}.txt"));
            let code = ["e2e", "clients", "links", "tidy"]
                .map(|dir| root().join(format!("tests/{dir}/{place}.rs")));
            let is_test = |text: String| {
                text.contains(&format!("#[test]\nfn {name}("))
                    || text.contains(&format!("#[tokio::test]\nasync fn {name}("))
            };
            let found = match place {
                "scenario" => scenario.exists(),
                _ => code.iter().filter_map(|path| fs::read_to_string(path).ok()).any(is_test),
            };
            if !found {
                wrong.push(format!("{what:?} names {test}, which does not exist"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The fields of each public struct in a file, with their types.
fn fields(code: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for piece in code.split("\npub struct ").skip(1) {
        let Some((name, rest)) = piece.split_once(" {\n") else { continue };
        if !name.chars().all(char::is_alphanumeric) {
            continue;
        }
        let body = rest.split("\n}").next().unwrap_or_default();
        let field = |line: &str| {
            let (name, kind) = line.trim().strip_prefix("pub ")?.split_once(": ")?;
            Some((name.to_owned(), kind.trim_end_matches(',').to_owned()))
        };
        found.insert(name.to_owned(), body.lines().filter_map(field).collect());
    }
    found
}

/// Nothing is kept that the page on security does not list, and nothing can be: no field takes
/// whatever it is given.
#[test]
fn the_store_has_the_fields_that_the_page_on_security_lists() {
    let mut kept = fields(&read("broker/core/src/record.rs"));
    kept.extend(fields(&read("broker/core/src/shared.rs")));
    // What the store hands over at a start; it is made of the records.
    for whole in ["Image", "LinksImage", "SharedRecords"] {
        assert!(kept.remove(whole).is_some(), "{whole} is there");
    }
    for (record, fields) in &kept {
        assert!(!fields.is_empty(), "{record} has fields");
        for (field, kind) in fields {
            let open = ["Vec<u8>", "Value", "Map<", "Box<dyn", "Any"]
                .iter()
                .any(|word| kind.contains(word));
            assert!(!open, "{record}.{field} is {kind}, which takes anything");
        }
    }
    let page = read("docs/security.md");
    let told: BTreeMap<String, BTreeSet<String>> = rows(&page)
        .into_iter()
        .filter_map(|row| {
            let record = row.first()?.strip_prefix('`')?.strip_suffix('`')?.to_owned();
            Some((record, quoted(row.get(1)?).map(str::to_owned).collect()))
        })
        .collect();
    let kept: BTreeMap<String, BTreeSet<String>> =
        kept.into_iter().map(|(record, fields)| (record, fields.into_keys().collect())).collect();
    assert_eq!(told, kept, "the table in docs/security.md, and the records of the code");
}

// ---- what no other file shows

#[test]
fn a_client_of_any_kind_uses_all_that_sessions_share_and_every_result_is_measured() {
    let home = peer_tests::home!();
    let (gemini, editor) =
        (home.session("gemini-cli", "gemini"), home.session("an-editor", "editor"));
    let question = gemini
        .call("ask_peer", json!({"to": "editor", "question": "which port?"}))
        .success()
        .message_id();
    let message = editor
        .call("send_message", json!({"to": "gemini", "message": "hello"}))
        .success()
        .message_id();
    for (tool, arguments) in [
        ("list_peers", json!({"scope": "directory"})),
        ("set_summary", json!({"summary": "edits", "state": "working", "task": "T-1"})),
        ("rename_peer", json!({"new_name": "editor-2"})),
        ("check_messages", json!({"kind": "questions"})),
        ("ack_messages", json!({"message_ids": question})),
        (
            "answer_question",
            json!({"question_id": question, "answer": "8080", "sources": "README.md:4"}),
        ),
        ("channels", json!({"action": "create", "name": "#ports"})),
        ("tasks", json!({"action": "create", "title": "mend the port"})),
        ("memory", json!({"action": "set", "key": "port", "value": "8080"})),
        ("search", json!({"query": "port"})),
        ("ask_peer", json!({"to": "gemini", "question": "and the host?"})),
        ("send_message", json!({"to": "gemini", "message": "see above", "reply_to": question})),
        ("tasks", json!({"action": "claim", "task": "T-99"})),
        ("memory", json!({"colour": "red"})),
    ] {
        let result = editor.call(tool, arguments.clone());
        assert_eq!(
            result.is_error,
            arguments["task"] == "T-99" || arguments["colour"] == "red",
            "{tool}: {}",
            result.text
        );
        let whole = &result.raw["result"];
        assert_eq!(
            whole["_meta"]["chars"],
            json!(result.text.chars().count()),
            "{tool}: {whole:#}"
        );
        assert_eq!(
            whole["_meta"]["lines"],
            json!(result.text.lines().count()),
            "{tool}: {whole:#}"
        );
        assert!(
            whole["_meta"]["ms"].is_u64() && whole.get("structuredContent").is_none(),
            "{tool}: {whole:#}"
        );
    }
    let seen = gemini.call("check_messages", json!({})).success().text;
    assert!(seen.contains("sources: README.md:4\n| 8080") && seen.contains(&message), "{seen}");
}

#[test]
fn what_two_said_and_what_a_group_was_told_is_read_on_while_mail_arrives() {
    let home = peer_tests::home!();
    let (luna, orion, vega) = (
        home.session("claude-code", "luna"),
        home.session("codex-mcp-client", "orion"),
        home.session("an-editor", "vega"),
    );
    let _ = orion.call("channels", json!({"action": "join", "name": "@build"})).success();
    let _ = vega.call("channels", json!({"action": "join", "name": "@build"})).success();
    let say = |from: &Mcp, to: &str, text: &str| {
        from.call("send_message", json!({"to": to, "message": text, "thread": "t-day"}))
            .success()
            .message_id()
    };
    let first = say(&luna, "orion", "0");
    let (mut last, mut read, mut between) = (first.clone(), vec!["0".to_owned()], Vec::new());
    for number in 1..=5 {
        let (from, to) = if number % 2 == 0 { (&luna, "orion") } else { (&orion, "luna") };
        let _ = say(from, to, &number.to_string());
        let _ = say(&vega, to, &format!("aside {number}"));
        between.push(format!("group {number}"));
        let _ = home.peerctl(&["send", "@build", "--", &format!("group {number}")]).success();
        loop {
            let page = [
                "history", "--peer", "luna", "--with", "orion", "--after", &last, "-n", "1",
                "--json",
            ];
            let page = home.peerctl(&page).success().json();
            let Some(newest) = page.as_array().and_then(|page| page.last()) else { break };
            last = newest["id"].as_str().expect("an id").to_owned();
            read.extend(texts(&page).into_iter().map(str::to_owned));
        }
    }
    assert_eq!(read, ["0", "1", "2", "3", "4", "5"]);
    let group = home.peerctl(&["history", "--channel", "@build", "--json"]).success().json();
    assert_eq!(texts(&group), between);
    let since = home
        .peerctl(&["history", "--since", "1h", "--after", &first, "-n", "100", "--json"])
        .success()
        .json();
    assert_eq!(
        since.as_array().map(Vec::len),
        Some(15),
        "five of each, and the first is left out: {since:#}"
    );
    let thread =
        home.peerctl(&["history", "--thread", "t-day", "-n", "100", "--json"]).success().json();
    assert_eq!(thread.as_array().map(Vec::len), Some(11), "{thread:#}");
    let page = orion
        .call("search", json!({"query": "group", "channel": "@build", "newest": true}))
        .success()
        .text;
    assert!(page.starts_with("5 hits found, newest first."), "{page}");
}

#[test]
fn what_a_session_says_of_itself_is_listed_and_it_is_the_same_when_it_returns() {
    let home = peer_tests::home!();
    let (luna, orion) =
        (home.session("claude-code", "luna"), home.session("codex-mcp-client", "orion"));
    let said =
        json!({"summary": "waits for the key", "state": "blocked", "task": "sign the build"});
    let _ = orion.call("set_summary", said).success();
    let listed = luna.call("list_peers", json!({})).success().text;
    let line = listed
        .lines()
        .find(|line| line.starts_with("- orion ("))
        .unwrap_or_else(|| panic!("{listed}"));
    for word in [
        "codex",
        "state \"blocked\"",
        "doing \"waits for the key\"",
        "task \"sign the build\"",
        "online",
    ] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let row = || home.peerctl(&["peers", "orion", "--json"]).success().json()[0].clone();
    let here = row();
    assert_eq!(
        (&here["online"], &here["task"]),
        (&json!(true), &json!("sign the build")),
        "{here:#}"
    );
    orion.close_stdin();
    let _ = orion.wait_exit(PATIENCE);
    assert_eq!((&row()["online"], &row()["id"]), (&json!(false), &here["id"]));
    let _back = home.session("codex-mcp-client", "orion");
    assert_eq!(
        (&row()["online"], &row()["id"]),
        (&json!(true), &here["id"]),
        "the same name is the same peer"
    );
}

#[test]
fn a_message_goes_to_an_id_as_to_a_name() {
    let home = peer_tests::home!();
    let (luna, orion) =
        (home.session("claude-code", "luna"), home.session("codex-mcp-client", "orion"));
    let peer = home.peerctl(&["peers", "orion", "--json"]).success().json()[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let _ = orion.call("rename_peer", json!({"new_name": "rigel"})).success();
    let _ = luna.call("send_message", json!({"to_id": peer, "message": "by id"})).success();
    let _ = luna
        .call("send_message", json!({"to": "orion", "message": "by its earlier name"}))
        .success();
    let _ = home.peerctl(&["send", &peer, "--", "from a script"]).success();
    let seen = orion.call("check_messages", json!({})).success().text;
    for text in ["| by id", "| by its earlier name", "| from a script"] {
        assert!(seen.contains(text), "{text}: {seen}");
    }
}

#[test]
fn who_is_in_the_same_repository_is_listed_across_worktrees() {
    let home = peer_tests::home!();
    let (main, tree) = (home.root().join("main"), home.root().join("tree"));
    fs::create_dir(&main).expect("make a directory");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=luna", "-c", "user.email=luna@example.org"])
            .args(arguments)
            .current_dir(&main);
        let output = command.env("HOME", home.home()).output().expect("run git");
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    git(&["worktree", "add", "-q", "-b", "other", &tree.to_string_lossy()]);
    let at = |name: &str, dir: &Path| {
        let mcp = home.adapter("claude-code").env("PEER_NAME", name).cwd(dir).start();
        mcp.register();
        mcp
    };
    let luna = at("luna", &main);
    let (_near, _same, _far) = (at("near", &tree), at("same", &main), at("far", &home.home()));
    let listed = |scope: &str| {
        let text = luna.call("list_peers", json!({ "scope": scope })).success().text;
        ["near", "same", "far"].map(|name| text.contains(&format!("- {name} (")))
    };
    assert_eq!(listed("machine"), [true, true, true]);
    assert_eq!(listed("repo"), [true, true, false]);
    assert_eq!(listed("directory"), [false, true, false]);
}

#[test]
fn the_demo_shows_a_message_each_way() {
    let home = peer_tests::home!();
    let shown = home.peerctl(&["demo"]).success().stdout;
    assert!(shown.matches("presented").count() >= 2, "{shown}");
    assert!(!home.state().exists(), "it touches nothing of the user's");
}
