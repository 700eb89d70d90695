//! `peerctl setup` and `uninstall` on the files of people who have files already: comments, odd
//! layouts, links, entries of others. What is taken back is compared byte by byte, with modes and
//! links.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use peer_tests::{Home, Outcome};
use serde_json::Value;

/// Everything under a directory: what it is, its mode, its content.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).expect("read a directory").flatten() {
            let path = entry.path();
            let metadata = path.symlink_metadata().expect("look at a file");
            let mode = metadata.permissions().mode();
            if metadata.is_symlink() {
                let target = fs::read_link(&path).expect("read a link");
                found.insert(path, format!("link to {}", target.display()));
            } else if metadata.is_dir() {
                walk(&path, found);
                found.insert(path, format!("{mode:o} directory"));
            } else {
                let text =
                    String::from_utf8_lossy(&fs::read(&path).expect("read a file")).into_owned();
                found.insert(path, format!("{mode:o} {text:?}"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, &mut found);
    found
}

/// A home directory in which clients are installed, with these files.
fn with(files: &[(&str, &str)]) -> Home {
    let home = peer_tests::home!();
    for dir in [".claude", ".codex", ".gemini"] {
        fs::create_dir(home.home().join(dir)).expect("make a client's directory");
    }
    for (path, text) in files {
        put(&home, path, text);
    }
    home
}

fn put(home: &Home, path: &str, text: &str) {
    let path = home.home().join(path);
    fs::create_dir_all(path.parent().expect("a file lies in a directory"))
        .expect("make a directory");
    fs::write(path, text).expect("write a file");
}

fn text(home: &Home, path: &str) -> String {
    fs::read_to_string(home.home().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Runs `peerctl`, which must succeed.
#[track_caller]
fn ok(home: &Home, arguments: &[&str]) {
    let _ = home.peerctl(arguments).success();
}

#[track_caller]
fn state(outcome: &Outcome, client: &str) -> String {
    let told = outcome.json();
    let clients = told["clients"].as_array().expect("clients is a list");
    let found = clients
        .iter()
        .find(|entry| entry["client"] == client)
        .unwrap_or_else(|| panic!("no {client} in {told:#}"));
    found["state"].as_str().expect("state is a text").to_owned()
}

#[track_caller]
fn refused(outcome: &Outcome, exit: i32, code: &str) -> Value {
    assert_eq!(outcome.code, exit, "{outcome:?}");
    let told = outcome.json();
    assert_eq!(told["error"]["code"], code, "{told:#}");
    told
}

const SETTINGS: &[&str] = &[
    "{}",
    "{\n}\n",
    "{\"model\":\"opus\",\"permissions\":{\"allow\":[]}}",
    "\u{feff}{\r\n\t\"permissions\": {\r\n\t\t\"allow\": [\r\n\t\t\t\"Bash(ls)\"\r\n\t\t],\r\n\t\t\"deny\": []\r\n\t}\r\n}",
    "{\n    \"hooks\": {\"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"say done\"}]}]}\n\n\n}\n\n",
];

const CONFIGS: &[&str] = &[
    "",
    "# mine, all of it\nmodel = \"gpt-5\" # c\n\n[mcp_servers.other]\ncommand = 'x'\n\n# the end",
    "model = \"gpt-5\"\r\n[mcp_servers]\r\nother = { command = \"x\" }\r\n",
    "[[hooks.Stop]]\n[[hooks.Stop.hooks]]\ntype = \"command\"\ncommand = \"say done\"\n[hooks.state.\"a:stop:0:0\"]\ntrusted_hash = \"sha256:00\"\n",
    "[hooks]\nStop = [{ hooks = [{ type = \"command\", command = \"say\" }] }]\n",
    "\n\n\n",
];

const GEMINI: &[&str] = &[
    "{\n  // my theme\n  \"theme\": \"dark\", /* really */\n  \"mcpServers\": {\n    \"x\": {\"command\": \"y\"}, // last\n  },\n}\n",
    "{\"mcpServers\":{}}",
    "// nothing yet\n{}\n",
];

const HOOKS: &[&str] = &[
    "{\"hooks\":{}}",
    "{\n  \"hooks\": {\n    \"SessionStart\": [\n      { \"matcher\": \"startup\", \"hooks\": [ { \"type\": \"command\", \"command\": \"date\" } ] }\n    ]\n  }\n}",
    "{}\n",
];

/// Copies an executable, by a program of its own: a test that copies while another one forks leaves
/// the copy open for writing in that child, and nobody can run it then.
fn copy_program(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").args([from, to]).status().expect("run cp");
    assert!(done.success(), "cp failed");
}

#[test]
fn what_setup_writes_is_taken_back_to_the_byte() {
    for round in 0..6 {
        let pick = |texts: &'static [&'static str]| texts[round % texts.len()];
        let home = with(&[
            (".claude/settings.json", pick(SETTINGS)),
            (".claude.json", "{\"numStartups\":3,\"projects\":{\"/p\":{\"mcpServers\":{}}}}"),
            (".codex/config.toml", pick(CONFIGS)),
            (".codex/hooks.json", pick(HOOKS)),
            (".gemini/settings.json", pick(GEMINI)),
        ]);
        fs::set_permissions(home.home().join(".codex/config.toml"), Permissions::from_mode(0o640))
            .expect("set a mode");
        let before = snapshot(&home.home());

        let dry = home.peerctl(&["setup", "--dry-run", "--json"]).success();
        assert_eq!(dry.json()["written"], false);
        refused(&home.peerctl(&["setup", "--check", "--json"]), 1, "differs");
        assert_eq!(snapshot(&home.home()), before, "round {round}: looking changed something");

        let done = home.peerctl(&["setup", "--yes", "--json"]).success();
        assert_eq!(done.json()["written"], true);
        let after = snapshot(&home.home());
        ok(&home, &["setup", "--check", "--json"]);
        let again = home.peerctl(&["setup", "--yes", "--json"]).success();
        assert_eq!(
            (again.json()["written"].clone(), state(&again, "codex")),
            (Value::Bool(false), "unchanged".to_owned())
        );
        assert_eq!(
            snapshot(&home.home()),
            after,
            "round {round}: the second setup changed something"
        );

        ok(&home, &["setup", "--undo", "--yes", "--json"]);
        assert_eq!(snapshot(&home.home()), before, "round {round}: undo");
        ok(&home, &["setup", "--yes"]);
        ok(&home, &["uninstall", "--yes"]);
        assert_eq!(snapshot(&home.home()), before, "round {round}: uninstall");

        // Also where nothing remembers what was there.
        ok(&home, &["setup", "--yes"]);
        fs::remove_dir_all(home.state()).expect("remove the state directory");
        ok(&home, &["uninstall", "--yes"]);
        assert_eq!(snapshot(&home.home()), before, "round {round}: uninstall without a memory");
    }
}

#[test]
fn a_home_without_any_file_of_a_client_is_empty_again() {
    let home = peer_tests::home!();
    let before = snapshot(&home.home());
    refused(&home.peerctl(&["setup", "--yes", "--json"]), 4, "no_client");
    for back in [["setup", "--undo", "--yes"].as_slice(), ["uninstall", "--yes"].as_slice()] {
        ok(&home, &["setup", "--all", "--yes"]);
        assert!(text(&home, ".codex/config.toml").contains("[mcp_servers.peers]"));
        assert!(
            text(&home, ".claude/settings.json").contains("mcp__plugin_peers_peers__send_message")
        );
        ok(&home, back);
        assert_eq!(snapshot(&home.home()), before, "{back:?}");
    }
}

#[test]
fn what_is_written_names_this_program_and_the_state_directory() {
    let home = with(&[]);
    ok(&home, &["setup", "--yes"]);
    let program = home.executable().display().to_string();
    let dir = home.state().display().to_string();
    let plugin: Value =
        serde_json::from_str(&text(&home, ".claude/skills/peers/.claude-plugin/plugin.json"))
            .expect("JSON");
    let server = &plugin["mcpServers"]["peers"];
    assert_eq!(
        (&server["command"], &server["env"]["PEERD_DIR"]),
        (&program.clone().into(), &dir.clone().into()),
        "{plugin:#}"
    );
    assert_eq!(server["args"], serde_json::json!(["mcp"]));
    let hooks = text(&home, ".claude/skills/peers/hooks/hooks.json");
    assert!(
        hooks.contains(&format!("PEERD_DIR={dir} {program} hook claude SessionStart")),
        "{hooks}"
    );
    let config = text(&home, ".codex/config.toml");
    assert!(
        config.contains(&format!("command = \"{program}\""))
            && config.contains(&format!("env = {{ PEERD_DIR = \"{dir}\" }}"))
    );
    assert!(config.contains("\"PEER_NAME\", \"PEERD_ENABLED\""), "{config}");
    assert!(
        config.contains(&format!("PEERD_DIR={dir} {program} hook codex SessionStart")),
        "{config}"
    );
    let gemini: Value = serde_json::from_str(&text(&home, ".gemini/settings.json")).expect("JSON");
    assert_eq!(gemini["mcpServers"]["peers"]["env"]["PEERD_DIR"], dir);
    let said = home.peerctl(&["setup", "--yes", "--json"]).success().json();
    assert!(
        said["warnings"].to_string().contains("build directory"),
        "a test runs what cargo built: {said:#}"
    );
}

#[test]
fn directories_that_the_environment_names_are_honoured() {
    let home = peer_tests::home!();
    let (claude, codex) = (home.root().join("cc"), home.root().join("cx"));
    for dir in [&claude, &codex] {
        fs::create_dir(dir).expect("make a directory");
    }
    let run = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("CLAUDE_CONFIG_DIR", &claude).env("CODEX_HOME", &codex);
        let _ = home.run(command, "").success();
    };
    run(&["setup", "--yes"]);
    assert!(
        claude.join("skills/peers/.claude-plugin/plugin.json").exists()
            && codex.join("config.toml").exists()
    );
    assert_eq!(snapshot(&home.home()), BTreeMap::new());
    run(&["setup", "--check"]);
    run(&["setup", "--undo", "--yes"]);
    assert_eq!((snapshot(&claude), snapshot(&codex)), Default::default());
}

#[test]
fn links_are_followed_and_stay() {
    let home = with(&[
        ("dotfiles/config.toml", "model = \"x\"\n"),
        ("dotfiles/claude/settings.json", "{\n  \"a\": 1\n}\n"),
    ]);
    fs::remove_dir(home.home().join(".claude")).expect("remove a directory");
    symlink("dotfiles/claude", home.home().join(".claude")).expect("link a directory");
    symlink("../dotfiles/config.toml", home.home().join(".codex/config.toml"))
        .expect("link a file");
    symlink("../dotfiles/not-yet.json", home.home().join(".gemini/settings.json"))
        .expect("link to nothing");
    let before = snapshot(&home.home());
    ok(&home, &["setup", "--yes"]);
    assert!(text(&home, "dotfiles/config.toml").contains("[mcp_servers.peers]"));
    assert!(text(&home, "dotfiles/not-yet.json").contains("peers"));
    assert!(
        home.home().join(".codex/config.toml").is_symlink()
            && home.home().join(".gemini/settings.json").is_symlink()
    );
    ok(&home, &["setup", "--undo", "--yes"]);
    assert_eq!(snapshot(&home.home()), before);
}

#[test]
fn what_others_changed_since_stays_when_ours_goes() {
    for back in [["setup", "--undo", "--yes"].as_slice(), ["uninstall", "--yes"].as_slice()] {
        let home = with(&[
            (
                ".claude/settings.json",
                "{\n  \"permissions\": {\n    \"allow\": [\"Bash(ls)\"]\n  }\n}\n",
            ),
            (".codex/config.toml", "model = \"x\"\n"),
            (".gemini/settings.json", "{\n  \"theme\": \"dark\"\n}\n"),
        ]);
        ok(&home, &["setup", "--yes"]);
        let settings =
            text(&home, ".claude/settings.json").replace("\"Bash(ls)\"", "\"Bash(ls)\", \"Read\"");
        put(&home, ".claude/settings.json", &settings);
        // What Codex writes when its user trusts a hook or allows a tool for good.
        let config = text(&home, ".codex/config.toml")
            + "\n[mcp_servers.peers.tools.list_peers]\napproval_mode = \"approve\"\n\n[projects.\"/p\"]\ntrust_level = \"trusted\" # theirs\n";
        put(&home, ".codex/config.toml", &config);
        let gemini = text(&home, ".gemini/settings.json").replace("dark", "light");
        put(&home, ".gemini/settings.json", &gemini);
        ok(&home, &["setup", "--check"]);
        ok(&home, back);
        let expected = "{\n  \"permissions\": {\n    \"allow\": [\"Bash(ls)\", \"Read\"]\n  }\n}\n";
        assert_eq!(text(&home, ".claude/settings.json"), expected, "{back:?}");
        let expected = "model = \"x\"\n\n[projects.\"/p\"]\ntrust_level = \"trusted\" # theirs\n";
        assert_eq!(text(&home, ".codex/config.toml"), expected, "{back:?}");
        assert_eq!(
            text(&home, ".gemini/settings.json"),
            "{\n  \"theme\": \"light\"\n}\n",
            "{back:?}"
        );
        assert!(!home.home().join(".claude/skills").exists());
    }
}

#[test]
fn a_file_that_cannot_be_read_stops_it_and_is_named_with_the_place() {
    let broken = [
        (".codex/config.toml", "model = \"x\"\nbroken = = 1\n", "line 2, column 10"),
        (".claude/settings.json", "{\n  \"a\": 1,\n  // no comments here\n}\n", "line 3, column 3"),
        (".claude.json", "{\"a\": 1", "line 1, column 8"),
        (".codex/hooks.json", "{\"hooks\": ]}", "line 1, column 11"),
        (
            ".gemini/settings.json",
            "{ \"mcpServers\": { \"x\": {} \"y\": {} } }",
            "line 1, column 27",
        ),
    ];
    for (path, content, place) in broken {
        let home = with(&[(path, content)]);
        let before = snapshot(&home.home());
        for command in [
            ["setup", "--yes", "--json"].as_slice(),
            &["setup", "--check", "--json"],
            &["uninstall", "--yes", "--json"],
        ] {
            let told = refused(&home.peerctl(command), 1, "unparsable");
            let message = told["error"]["message"].as_str().expect("message is a text").to_owned();
            assert!(message.contains(path) && message.contains(place), "{command:?}: {message}");
        }
        assert_eq!(snapshot(&home.home()), before, "{path}");
    }
}

#[test]
fn an_entry_of_somebody_else_is_reported_and_nothing_is_written() {
    let theirs = [
        (
            "claude",
            ".claude.json",
            "{\"mcpServers\":{\"peers\":{\"command\":\"node\",\"args\":[\"peers.js\"]}}}",
        ),
        ("claude", ".claude/skills/peers/SKILL.md", "---\nname: peers\n---\n"),
        ("codex", ".codex/config.toml", "[mcp_servers.peers]\ncommand = \"node\"\n"),
        ("codex", ".codex/config.toml", "mcp_servers = { other = { command = \"x\" } }\n"),
        ("gemini", ".gemini/settings.json", "{\"mcpServers\":{\"peers\":{\"url\":\"http://x\"}}}"),
    ];
    for (client, path, content) in theirs {
        let home = with(&[(path, content)]);
        let before = snapshot(&home.home());
        let outcome = home.peerctl(&["setup", "--yes", "--json"]);
        let told = refused(&outcome, 1, "conflict");
        assert_eq!(
            (state(&outcome, client).as_str(), &told["written"]),
            ("conflict", &Value::Bool(false)),
            "{told:#}"
        );
        refused(&home.peerctl(&["setup", client, "--check", "--json"]), 1, "differs");
        ok(&home, &["uninstall", "--yes"]);
        assert_eq!(snapshot(&home.home()), before, "{path}");
    }
    // Ours, and changed by somebody: theirs now.
    let home = with(&[]);
    ok(&home, &["setup", "--yes"]);
    let plugin = ".claude/skills/peers/.claude-plugin/plugin.json";
    let edited =
        text(&home, plugin).replace("\"PEERD_DIR\"", "\"PEER_NAME\": \"luna\", \"PEERD_DIR\"");
    put(&home, plugin, &edited);
    refused(&home.peerctl(&["setup", "--yes", "--json"]), 1, "conflict");
    assert_eq!(text(&home, plugin), edited);
}

#[test]
fn a_file_that_may_not_be_written_stops_it_before_the_first_write() {
    let home = with(&[(".gemini/settings.json", "{}\n")]);
    fs::set_permissions(home.home().join(".gemini/settings.json"), Permissions::from_mode(0o444))
        .expect("set a mode");
    let before = snapshot(&home.home());
    let told = refused(&home.peerctl(&["setup", "--yes", "--json"]), 1, "not_writable");
    assert!(told["error"]["message"].as_str().expect("a text").contains("read-only"), "{told:#}");
    assert_eq!(snapshot(&home.home()), before);
}

#[test]
fn a_setup_that_was_killed_between_two_files_is_finished_or_taken_back() {
    let files = [
        (".codex/config.toml", "model = \"x\"\n"),
        (".gemini/settings.json", "{\"a\":1}"),
        (".claude/settings.json", "{}"),
    ];
    let home = with(&files);
    let before = snapshot(&home.home());
    ok(&home, &["setup", "--yes"]);
    let whole = snapshot(&home.home());
    // As a kill leaves it: all is remembered, and some files were not written yet.
    let half = || {
        for (path, text) in &files[..2] {
            put(&home, path, text);
        }
        for file in [".claude-plugin/plugin.json", "hooks/hooks.json"] {
            fs::remove_file(home.home().join(".claude/skills/peers").join(file))
                .expect("remove a file");
        }
        put(&home, ".claude/skills/peers/.claude-plugin/.peerctl-setup-x1", "{ half");
        put(&home, ".codex/.peerctl-setup-x2", "mod");
    };
    half();
    refused(&home.peerctl(&["setup", "--check", "--json"]), 1, "differs");
    ok(&home, &["setup", "--yes"]);
    assert_eq!(snapshot(&home.home()), whole);
    ok(&home, &["setup", "--undo", "--yes"]);
    assert_eq!(snapshot(&home.home()), before, "finished, then taken back");
    ok(&home, &["setup", "--yes"]);
    half();
    ok(&home, &["setup", "--undo", "--yes"]);
    assert_eq!(snapshot(&home.home()), before, "taken back at once");
}

#[test]
fn two_runs_for_two_clients_are_taken_back_together_or_one_by_one() {
    let home = with(&[(".codex/config.toml", "model = \"x\"\n")]);
    let before = snapshot(&home.home());
    ok(&home, &["setup", "claude", "--yes"]);
    let with_claude = snapshot(&home.home());
    ok(&home, &["setup", "codex", "--yes"]);
    ok(&home, &["setup", "codex", "--undo", "--yes"]);
    assert_eq!(snapshot(&home.home()), with_claude);
    ok(&home, &["setup", "codex", "--yes"]);
    ok(&home, &["setup", "--undo", "--yes"]);
    assert_eq!(snapshot(&home.home()), before);
    assert!(
        !home.state().join("backups").exists(),
        "copies of the person's files are kept for nothing"
    );
}

#[test]
fn another_copy_of_the_program_takes_the_place_of_the_first() {
    let home = with(&[(".gemini/settings.json", "{}"), (".codex/hooks.json", HOOKS[1])]);
    let before = snapshot(&home.home());
    ok(&home, &["setup", "--yes"]);
    let copy = home.root().join("peerctl");
    copy_program(home.executable(), &copy);
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&copy);
        command.args(arguments).env_clear().env("HOME", home.home()).env("PEERD_DIR", home.state());
        home.run(command, "")
    };
    refused(&run(&["setup", "--check", "--json"]), 1, "differs");
    let plugin = ".claude/skills/peers/.claude-plugin/plugin.json";
    let old = text(&home, plugin);
    let _ = run(&["setup", "--yes"]).success();
    // As a kill leaves it before the second run came to this file.
    put(&home, plugin, &old);
    let _ = run(&["setup", "--yes"]).success();
    let _ = run(&["setup", "--check"]).success();
    let files = snapshot(&home.home());
    let old = home.executable().display().to_string();
    let left: Vec<_> =
        files.iter().filter(|(_, text)| text.contains(&old)).map(|(path, _)| path).collect();
    assert!(left.is_empty(), "{left:?} still name {old}");
    let _ = run(&["setup", "--undo", "--yes"]).success();
    assert_eq!(snapshot(&home.home()), before);
}

#[test]
fn what_was_added_by_hand_is_taken_over_and_not_doubled() {
    let claude = "{\n  \"mcpServers\": {\n    \"peers\": {\n      \"type\": \"stdio\",\n      \"command\": \"peerctl\",\n      \"args\": [\"mcp\"],\n      \"env\": {}\n    }\n  },\n  \"projects\": {\"/p\": {\"mcpServers\": {\"peers\": {\"command\": \"/x/peerctl\", \"args\": [\"mcp\"]}, \"y\": {}}}}\n}\n";
    let codex = "[mcp_servers.peers]\ncommand = \"peerctl\"\nargs = [\"mcp\"]\nenv_vars = [\"PEER_NAME\", \"MINE\"] # two\n\n[mcp_servers.peers.env]\nX = \"1\"\n";
    let home = with(&[(".claude.json", claude), (".codex/config.toml", codex)]);
    let before = snapshot(&home.home());
    ok(&home, &["setup", "--yes"]);
    let memory = text(&home, ".claude.json");
    assert!(
        !memory.contains("\"peers\"") && memory.contains("\"y\": {}"),
        "two adapters in one session: {memory}"
    );
    let config = text(&home, ".codex/config.toml");
    assert_eq!(config.matches("[mcp_servers.peers]").count(), 1);
    assert!(
        config.contains("\"PEER_NAME\", \"MINE\", \"PEERD_ENABLED\"")
            && config.contains("# two")
            && config.contains("X = \"1\"\nPEERD_DIR = "),
        "{config}"
    );
    ok(&home, &["setup", "--check"]);
    ok(&home, &["setup", "--undo", "--yes"]);
    assert_eq!(snapshot(&home.home()), before);
}

#[test]
fn entries_of_other_mailboxes_are_retired_when_the_person_says_so_and_come_back() {
    let claude = "{\"mcpServers\":{\"agent-peers\":{\"command\":\"bun\",\"args\":[\"/a/agent-peers-mcp/claude-server.ts\"]},\"z\":{}}}";
    let settings = "{\n  \"hooks\": {\n    \"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"bun ~/claude-peers-mcp/hook.ts\"}]}, {\"hooks\": []}]\n  }\n}\n";
    let codex = "[mcp_servers.agent-peers] # old\ncommand = \"bun\"\nargs = [\"/a/agent-peers-mcp/codex-server.ts\"]\n\n[mcp_servers.z]\ncommand = \"z\"\n";
    let home = with(&[
        (".claude.json", claude),
        (".claude/settings.json", settings),
        (".codex/config.toml", codex),
    ]);
    let before = snapshot(&home.home());
    let said = home.peerctl(&["setup", "--yes", "--json"]).success().json();
    assert!(said["warnings"].to_string().contains("--retire"), "{said:#}");
    assert!(text(&home, ".claude.json").contains("agent-peers"));
    ok(&home, &["setup", "--yes", "--retire"]);
    for path in [".claude.json", ".claude/settings.json", ".codex/config.toml"] {
        let text = text(&home, path);
        assert!(!text.contains("agent-peers") && !text.contains("claude-peers"), "{path}: {text}");
    }
    ok(&home, &["setup", "--undo", "--yes"]);
    assert_eq!(snapshot(&home.home()), before);

    // Also into files that changed since.
    ok(&home, &["setup", "--yes", "--retire"]);
    put(
        &home,
        ".claude.json",
        &text(&home, ".claude.json").replace("\"z\":{}", "\"z\":{},\"new\":{}"),
    );
    put(&home, ".codex/config.toml", &(text(&home, ".codex/config.toml") + "\n[new]\n"));
    ok(&home, &["setup", "--undo", "--yes"]);
    let memory: Value = serde_json::from_str(&text(&home, ".claude.json")).expect("JSON");
    assert_eq!(memory["mcpServers"]["agent-peers"]["command"], "bun", "{memory:#}");
    assert!(memory["mcpServers"]["new"].is_object());
    let config = text(&home, ".codex/config.toml");
    assert!(
        config.contains("[mcp_servers.agent-peers] # old")
            && config.contains("[new]")
            && !config.contains("peerctl"),
        "{config}"
    );
}

#[test]
fn without_a_terminal_nothing_is_written_unless_somebody_said_yes() {
    let home = with(&[]);
    let before = snapshot(&home.home());
    let told = refused(&home.peerctl(&["setup", "--json"]), 2, "usage");
    let hint = told["error"]["hint"].as_str().expect("hint is a text");
    assert!(hint.contains("--yes") && hint.contains("--dry-run"), "{told:#}");
    assert_eq!(snapshot(&home.home()), before);
    ok(&home, &["setup", "--yes"]);
    let wired = snapshot(&home.home());
    refused(&home.peerctl(&["setup", "--undo", "--json"]), 2, "usage");
    refused(&home.peerctl(&["uninstall", "--json"]), 2, "usage");
    assert_eq!(snapshot(&home.home()), wired);
    // Where nothing is to be done nobody need be asked.
    ok(&home, &["setup"]);
}

#[test]
fn the_message_tools_run_without_a_dialog_unless_the_answer_was_no() {
    let home = with(&[(
        ".claude/settings.json",
        "{\"permissions\":{\"deny\":[\"mcp__plugin_peers_peers__ack_messages\"]}}",
    )]);
    ok(&home, &["setup", "--yes", "--tools", "no"]);
    assert!(!text(&home, ".codex/config.toml").contains("approval_mode"));
    ok(&home, &["setup", "--check"]);
    // The answer is remembered.
    assert_eq!(home.peerctl(&["setup", "--yes", "--json"]).success().json()["written"], false);
    ok(&home, &["setup", "--yes", "--tools", "yes"]);
    let settings: Value =
        serde_json::from_str(&text(&home, ".claude/settings.json")).expect("JSON");
    let allowed = settings["permissions"]["allow"].as_array().expect("a list");
    let names: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
    // What the person forbade stays forbidden.
    assert_eq!(
        names,
        ["mcp__plugin_peers_peers__send_message", "mcp__plugin_peers_peers__check_messages"]
    );
    assert_eq!(text(&home, ".codex/config.toml").matches("approval_mode = \"approve\"").count(), 3);
}

#[test]
fn the_alias_comes_and_goes() {
    let home = with(&[(".zshrc", "export A=1")]);
    let run = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("SHELL", "/usr/bin/zsh");
        let _ = home.run(command, "").success();
    };
    let before = snapshot(&home.home());
    run(&["setup", "claude", "--yes"]);
    assert_eq!(text(&home, ".zshrc"), "export A=1");
    run(&["setup", "claude", "--yes", "--alias"]);
    assert!(
        text(&home, ".zshrc")
            .contains("\nalias peerclaude='claude --dangerously-load-development-channels plugin:peers@skills-dir'")
    );
    run(&["setup", "--undo", "--yes"]);
    assert_eq!(snapshot(&home.home()), before);
    run(&["setup", "claude", "--yes", "--alias"]);
    put(&home, ".zshrc", &(text(&home, ".zshrc") + "\nexport B=2\n"));
    run(&["uninstall", "--yes"]);
    assert_eq!(text(&home, ".zshrc"), "export A=1\nexport B=2\n");
}

#[test]
fn any_client_gets_a_snippet() {
    let home = peer_tests::home!();
    let program = home.executable().display().to_string();
    for (client, way) in [
        ("any", "mcpServers"),
        ("cursor", "mcpServers"),
        ("opencode", "mcp"),
        ("copilot", "mcpServers"),
        ("amp", "amp.mcpServers"),
    ] {
        let printed = home.peerctl(&["setup", client, "--print"]).success();
        let snippet: Value =
            serde_json::from_str(&printed.stdout).expect("the snippet alone is on standard output");
        assert!(snippet[way]["peers"].to_string().contains(&program), "{client}: {snippet:#}");
    }
    let printed = home.peerctl(&["setup", "codex", "--print"]).success();
    assert!(
        printed.stdout.contains("[mcp_servers.peers]") && printed.stderr.contains("config.toml"),
        "{printed:?}"
    );
    let told = refused(&home.peerctl(&["setup", "cursor", "--yes", "--json"]), 2, "usage");
    assert!(told["error"]["hint"].as_str().expect("a text").contains("--print"), "{told:#}");
    assert_eq!(snapshot(&home.home()), BTreeMap::new());
}

#[test]
fn uninstall_with_purge_stops_the_broker_and_removes_the_state_directory() {
    let home = with(&[]);
    ok(&home, &["setup", "--yes"]);
    ok(&home, &["daemon", "start"]);
    fs::write(home.state().join("notes.txt"), "mine").expect("write a file");
    let outcome = home.peerctl(&["uninstall", "--purge", "--yes", "--json"]);
    refused(&outcome, 1, "wrong");
    assert_eq!(snapshot(&home.state()).len(), 1, "what is not ours stays");
    fs::remove_file(home.state().join("notes.txt")).expect("remove a file");
    ok(&home, &["uninstall", "--purge", "--yes"]);
    assert!(!home.state().exists());
    assert!(home.broker_pid().is_none());
}

#[test]
fn hooks_that_share_a_group_with_ours_stay() {
    let theirs = "{ \"type\": \"command\", \"command\": \"say done\" }";
    let home = with(&[(".codex/hooks.json", HOOKS[1])]);
    ok(&home, &["setup", "codex", "--yes"]);
    let hooks = text(&home, ".codex/hooks.json");
    let place = hooks.find("\"type\": \"mcp_tool\"").expect("a hook of ours");
    let start = hooks[..place].rfind('{').expect("it is an object");
    put(&home, ".codex/hooks.json", &format!("{}{theirs}, {}", &hooks[..start], &hooks[start..]));
    ok(&home, &["setup", "--check", "codex"]);
    ok(&home, &["uninstall", "codex", "--yes"]);
    let left = text(&home, ".codex/hooks.json");
    assert!(
        left.contains("say done") && left.contains("date") && !left.contains("peers"),
        "{left}"
    );

    let home = with(&[(".codex/config.toml", "model = \"x\"\n")]);
    ok(&home, &["setup", "codex", "--yes"]);
    let shared = "[[hooks.Stop.hooks]]\ntype = \"command\"\ncommand = \"say done\"\n\n";
    let config = text(&home, ".codex/config.toml")
        .replace("[[hooks.Stop.hooks]]\n", &format!("{shared}[[hooks.Stop.hooks]]\n"));
    put(&home, ".codex/config.toml", &config);
    ok(&home, &["setup", "--check", "codex"]);
    ok(&home, &["uninstall", "codex", "--yes"]);
    let left = text(&home, ".codex/config.toml");
    assert_eq!(
        left,
        format!("model = \"x\"\n\n[[hooks.Stop]]\n\n{}", shared.trim_end().to_owned() + "\n"),
        "{left}"
    );
}

#[test]
fn hooks_and_switches_of_ours_in_claude_s_settings_go() {
    let settings = "{\n  \"enabledPlugins\": {\"peers@skills-dir\": false, \"x@y\": true},\n  \"hooks\": {\n    \"Stop\": [\n      {\"hooks\": [{\"type\": \"command\", \"command\": \"/x/peerctl hook claude Stop\"}, {\"type\": \"command\", \"command\": \"date\"}]}\n    ]\n  }\n}\n";
    let home = with(&[(".claude/settings.json", settings)]);
    let before = snapshot(&home.home());
    let said = home.peerctl(&["setup", "claude", "--yes", "--json"]).success().json();
    assert!(said["warnings"].to_string().contains("disabled"), "{said:#}");
    let now = text(&home, ".claude/settings.json");
    assert!(
        !now.contains("hook claude") && now.contains("date"),
        "each event would be told twice: {now}"
    );
    ok(&home, &["setup", "--undo", "--yes"]);
    assert_eq!(snapshot(&home.home()), before);
    ok(&home, &["uninstall", "--yes"]);
    let left: Value = serde_json::from_str(&text(&home, ".claude/settings.json")).expect("JSON");
    assert_eq!(left["enabledPlugins"], serde_json::json!({ "x@y": true }));
    assert_eq!(left["hooks"]["Stop"][0]["hooks"].as_array().expect("a list").len(), 1);
}

#[test]
fn only_one_command_writes_at_a_time() {
    let home = with(&[]);
    ok(&home, &["setup", "claude", "--yes"]);
    let dir = fs::File::open(home.state().join("backups/setup")).expect("open the directory");
    dir.lock().expect("lock it");
    refused(&home.peerctl(&["setup", "--yes", "--json"]), 1, "busy");
    refused(&home.peerctl(&["uninstall", "--yes", "--json"]), 1, "busy");
    ok(&home, &["setup", "claude", "--check"]);
    drop(dir);
    ok(&home, &["setup", "--yes"]);
}

#[test]
fn the_state_directory_follows_the_environment_in_every_client() {
    let home = with(&[]);
    let before = snapshot(&home.home());
    ok(&home, &["setup", "--yes"]);
    let usual = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env_remove("PEERD_DIR");
        home.run(command, "")
    };
    let outcome = usual(&["setup", "--check", "--json"]);
    for client in ["claude", "codex", "gemini"] {
        assert_eq!(state(&outcome, client), "differs", "{outcome:?}");
    }
    let _ = usual(&["setup", "--yes"]).success();
    let _ = usual(&["setup", "--check"]).success();
    let elsewhere = home.state().display().to_string();
    for path in [
        ".claude/skills/peers/.claude-plugin/plugin.json",
        ".codex/config.toml",
        ".gemini/settings.json",
    ] {
        assert!(!text(&home, path).contains(&elsewhere), "{path} still leads to another broker");
    }
    // What each state directory remembers is taken back in turn.
    let _ = usual(&["setup", "--undo", "--yes"]).success();
    ok(&home, &["setup", "--undo", "--yes"]);
    let left = snapshot(&home.home())
        .into_iter()
        .filter(|(path, _)| !path.starts_with(home.home().join(".local")));
    assert_eq!(left.collect::<BTreeMap<_, _>>(), before);
}

/// The path of the program is quoted in JSON, in TOML and for the shell that runs the hooks.
#[test]
fn a_path_with_spaces_and_quotation_marks_is_written_as_it_is() {
    let home = with(&[]);
    let dir = home.root().join("it's \"my\" $HOME dir é");
    fs::create_dir(&dir).expect("make a directory");
    let program = dir.join("peerctl");
    copy_program(home.executable(), &program);
    let before = snapshot(&home.home());
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", home.home())
            .env("PEERD_DIR", home.root().join("a 'b'"));
        home.run(command, "").success()
    };
    let _ = run(&["setup", "--yes"]);
    let _ = run(&["setup", "--check"]);
    let hooks: Value =
        serde_json::from_str(&text(&home, ".claude/skills/peers/hooks/hooks.json")).expect("JSON");
    let line =
        hooks["hooks"]["SessionStart"][0]["hooks"][0]["command"].as_str().expect("a command");
    let shown = line.replace(" hook claude SessionStart", " --version; echo $?");
    let output =
        std::process::Command::new("/bin/sh").args(["-c", &shown]).output().expect("run a shell");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("\n0\n"), "{line}: {output:?}");
    let plugin: Value =
        serde_json::from_str(&text(&home, ".claude/skills/peers/.claude-plugin/plugin.json"))
            .expect("JSON");
    assert_eq!(plugin["mcpServers"]["peers"]["command"], program.display().to_string());
    let _ = run(&["uninstall", "--yes"]);
    assert_eq!(snapshot(&home.home()), before);
}
