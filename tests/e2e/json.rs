//! What `--json` prints has the type that `peerctl schema` publishes: every command, with a real
//! broker behind it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use peer_tests::schema::misfits;
use peer_tests::{Home, News, Outcome};
use serde_json::{Map, Value, json};

/// The published types, and those of which an output was seen.
struct Types {
    schemas: Map<String, Value>,
    seen: RefCell<BTreeSet<String>>,
}

impl Types {
    fn of(home: &Home) -> Self {
        let printed = home.peerctl(&["schema"]).success().json();
        Self {
            schemas: printed.as_object().expect("an object of schemas").clone(),
            seen: RefCell::default(),
        }
    }

    /// Checks one value against the type of that name.
    #[track_caller]
    fn fits(&self, name: &str, value: &Value) {
        let schema = self.schemas.get(name).unwrap_or_else(|| panic!("no type is called {name}"));
        let found = misfits(schema, value);
        assert!(found.is_empty(), "{name}: {}\n{value:#}", found.join("\n"));
        self.seen.borrow_mut().insert(name.to_owned());
    }

    /// Runs a command with `--json`, and checks what it prints; returns it.
    #[track_caller]
    fn prints(&self, home: &Home, name: &str, arguments: &[&str]) -> Value {
        let outcome = home.peerctl(&[&["--json"], arguments].concat()).success();
        let value = outcome.json();
        self.fits(name, &value);
        value
    }

    /// Checks a failure; where the command has a type that tells how far it came, both.
    #[track_caller]
    fn fails(&self, outcome: &Outcome, name: Option<&str>) {
        assert_ne!(outcome.code, 0, "{outcome:?}");
        let mut value = outcome.json();
        let fields = value.as_object_mut().expect("an object");
        let error = fields.remove("error").expect("an error");
        self.fits("error", &json!({ "error": error }));
        match name {
            Some(name) => self.fits(name, &value),
            None => assert_eq!(value, json!({}), "fields beside the error"),
        }
    }
}

/// Lets one sender say much.
const CONFIG: &str = "[limits]\nsender_per_minute = 1000\npair_per_minute = 1000\n";

/// A broker that lets one sender say much, and refuses a text that comes twice.
fn begin() -> (Home, Types) {
    let home = peer_tests::home!();
    home.configure(CONFIG);
    let types = Types::of(&home);
    (home, types)
}

fn id_of(value: &Value) -> String {
    value["id"].as_str().expect("an id").to_owned()
}

/// Messages and their deliveries: sent, refused, held, withdrawn, expired.
fn of_messages(home: &Home, types: &Types) {
    let prints = |name: &str, arguments: &[&str]| types.prints(home, name, arguments);
    types.fails(&home.peerctl(&["--json", "--no-start", "status"]), None);
    prints("daemon-start", &["daemon", "start"]);
    let (luna, orion) = home.two_sessions();
    let watcher = News::start(home);

    let id = id_of(&prints(
        "send",
        &["send", "orion", "--thread", "harbour", "--", "the coral harbour opens"],
    ));
    prints("inbox", &["inbox"]);
    assert!(orion.says("check_messages", json!({})).contains(&id));
    let reply = json!({"to": "human", "message": "the coral harbour is open", "reply_to": id, "sources": "port.log"});
    let _ = orion.call("send_message", reply).success();
    prints("inbox-me", &["inbox", "me"]);
    prints("show", &["show", &id]);
    prints("history", &["history"]);
    prints("search", &["search", "coral"]);

    // Refused as a whole, and by one recipient of two.
    let _ = home.peerctl(&["policy", "orion", "refuse"]).success();
    let _rigel = home
        .adapter("claude-code")
        .env("PEER_NAME", "rigel")
        .env("CLAUDE_CODE_SESSION_ID", "s-1")
        .registered();
    let shell = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("CLAUDE_CODE_SESSION_ID", "s-1");
        home.run(command, "")
    };
    types.fails(&shell(&["--json", "send", "orion", "--", "nobody reads this"]), Some("send"));
    types.fails(&shell(&["--json", "send", "orion,luna", "--", "one reads this"]), Some("send"));
    types.fails(&home.peerctl(&["--json", "send", "nobody", "--", "x"]), None);
    types.fails(&home.peerctl(&["--json", "send"]), None);
    prints("history-refused", &["history", "--refused"]);

    let _ = home.peerctl(&["policy", "orion", "hold"]).success();
    let _ = luna
        .call("send_message", json!({"to": "orion", "message": "the first that is held"}))
        .success();
    let second = luna
        .call("send_message", json!({"to": "orion", "message": "the second that is held"}))
        .success()
        .message_id();
    prints("inbox", &["inbox", "--held"]);
    prints("release", &["release", &second]);
    types.fails(&home.peerctl(&["--json", "release", &second]), None);
    prints("release", &["release", "--all"]);

    orion.kill();
    watcher.wait_offline("orion");
    let _ = home.peerctl(&["policy", "orion", "accept"]).success();
    let gone = id_of(&prints("send", &["send", "orion", "--", "this is withdrawn"]));
    prints("settled", &["cancel", &gone]);
    let late = id_of(&prints("send", &["send", "orion", "--ttl", "1s", "--", "this expires"]));
    assert_eq!(watcher.wait("expired", &late)["to"], "orion");
    prints("orphans", &["orphans"]);
    prints("settled", &["orphans", "drop", &late]);

    types.fails(
        &home.peerctl(&["--json", "ask", "luna", "--wait", "1s", "--", "who is there?"]),
        Some("ask"),
    );
    types.fails(&home.peerctl(&["--json", "wait", "--to", "me", "--timeout", "10ms"]), None);
}

/// A question that is answered, and what a watcher is told meanwhile.
fn of_waiting(home: &Home, types: &Types) {
    // With one session alone, the test's own commands would be those of its shell.
    let (maia, _electra) =
        (home.session("some-client", "maia"), home.session("some-client", "electra"));
    let watcher = News::start(home);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            home.peerctl(&["wait", "--json", "--from", "maia", "--to", "me", "--timeout", "20s"])
        });
        let asks = scope.spawn(|| {
            home.peerctl(&["ask", "--json", "maia", "--wait", "20s", "--", "who keeps the light?"])
        });
        let question = maia
            .call("check_messages", json!({"from": "human", "wait_s": 20}))
            .success()
            .message_id();
        let answer = || {
            maia.call(
                "send_message",
                json!({"to": "human", "message": "I do", "reply_to": question}),
            )
            .success()
        };
        let _ = answer();
        types.fits("ask", &asks.join().expect("no panic").success().json());
        // Whoever began to wait after the answer waits for the next one.
        while !waits.is_finished() {
            let _ = maia
                .call(
                    "send_message",
                    json!({"to": "human", "message": format!("it burns {:?}", Instant::now())}),
                )
                .success();
        }
        types.fits("tail", &waits.join().expect("no panic").success().json());
    });
    let _ = maia.call("rename_peer", json!({"new_name": "merope"})).success();
    let events = watcher.until("peer_renamed");
    assert!(events.len() > 4, "{events:?}");
    events.iter().for_each(|event| types.fits("tail", event));
}

/// What sessions share, and what the person operates.
fn of_the_team(home: &Home, types: &Types) {
    let prints = |name: &str, arguments: &[&str]| types.prints(home, name, arguments);
    let (vega, _deneb) =
        (home.session("some-client", "vega"), home.session("some-client", "deneb"));
    prints("peers", &["peers", "--all"]);
    prints("peers", &["peers", "vega"]);
    prints("channel", &["channels", "create", "#tide", "--topic", "when it turns"]);
    prints("channels", &["channels"]);
    prints("send", &["send", "#tide", "--", "it turns at noon"]);
    prints("history", &["channels", "history", "#tide"]);

    prints("send", &["questions", "ask", "--to", "vega", "--", "when is low water?"]);
    prints("questions", &["questions"]);
    let asked = home.peerctl(&["questions", "--json"]).success().json();
    let question = id_of(&asked[0]);
    let _ = vega
        .call(
            "answer_question",
            json!({"question_id": question, "answer": "at six", "sources": "tables"}),
        )
        .success();
    prints("questions", &["questions"]);
    prints("history", &["history"]);
    prints("show", &["show", &question]);

    prints("task", &["tasks", "create", "--for", "vega", "--", "paint the buoy"]);
    prints("task", &["tasks", "create", "--needs", "T-1", "--", "launch the buoy"]);
    prints("tasks", &["tasks"]);
    prints("task", &["tasks", "show", "T-2"]);
    prints(
        "note",
        &["memory", "set", "harbour/depth", "--tag", "port", "--ttl", "1h", "--", "nine metres"],
    );
    prints("note", &["memory", "get", "harbour/depth"]);
    prints("memory", &["memory"]);
    prints("memory-search", &["memory", "search", "metres"]);
    prints("search", &["search", "buoy"]);
    prints("search", &["search", "metres"]);
    let exported = home.peerctl(&["memory", "export"]).success();
    exported.json_lines().iter().for_each(|line| types.fits("note", line));
    let import =
        home.peerctl_with_input(&["--json", "memory", "import", "-"], &exported.stdout).success();
    types.fits("memory-import", &import.json());

    prints("policy", &["policy"]);
    prints("policy-peer", &["policy", "vega", "hold"]);
    prints("policy-peer", &["policy", "vega"]);
    prints("policy-all", &["policy", "all", "accept"]);
    prints("policy-inbox-socket", &["policy", "inbox-socket", "allow"]);
    prints("policy", &["policy"]);
    prints("pause", &["pause", "vega"]);
    prints("pause", &["pause", "--thread", "harbour"]);
    prints("pause", &["pause", "all"]);
    prints("status", &["status"]);
    prints("peers", &["peers"]);
    prints("pause", &["resume", "all"]);
    prints("rename", &["rename", "vega", "altair"]);
    prints("purge", &["purge", "--dry-run"]);
    prints("kick", &["kick", "altair"]);

    types.fits("peers-watch", &first_line(home.command(&["--json", "peers", "--watch"])));
}

/// What is said of the machine, the broker and the clients' files.
fn of_the_machine(home: &Home, types: &Types) {
    let prints = |name: &str, arguments: &[&str]| types.prints(home, name, arguments);
    prints("version", &["version"]);
    prints("status", &["daemon", "status"]);
    prints("config", &["config"]);
    // The broker keeps the old value of one key, and reads nothing of a file with a mistake.
    home.configure("[limits]\npair_per_minute = 7\n[adapter]\ncarriers_off = [\"hook\"]\n");
    prints("config", &["config"]);
    home.configure("[limits]\npair_per_minut = 7\n");
    types.fails(&home.peerctl(&["--json", "config"]), Some("config"));
    home.configure(CONFIG);
    // What it finds depends on the machine.
    let doctor = home.peerctl(&["--json", "doctor"]);
    if doctor.code == 0 {
        types.fits("doctor", &doctor.json());
    } else {
        types.fails(&doctor, Some("doctor"));
    }
    fs::create_dir(home.home().join(".claude")).expect("make a client's directory");
    types.fails(&home.peerctl(&["--json", "setup", "--check"]), Some("setup"));
    prints("setup", &["setup", "--dry-run"]);
    prints("setup", &["setup", "--yes"]);
    prints("setup", &["setup", "--check"]);
    prints("setup-print", &["setup", "--all", "--print"]);
    prints("setup", &["uninstall", "--yes"]);

    prints("daemon-stop", &["daemon", "stop"]);
    prints("daemon-stop", &["daemon", "stop"]);
    prints("version", &["version"]);
    prints("daemon-verify", &["daemon", "verify"]);
    prints("daemon-reindex", &["daemon", "reindex"]);
    prints("daemon-verify", &["daemon", "verify"]);
}

/// What is said of links. The other machine is a directory of its own here, which a script in the
/// place of ssh enters: step links of CI has the real ssh.
fn of_links(home: &Home, types: &Types) {
    let desk = peer_tests::home!();
    let _ = desk.peerctl(&["daemon", "start"]).success();
    let bin = home.root().join("bin");
    fs::create_dir_all(&bin).expect("make a directory");
    let script = format!(
        "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexport HOME={} PEERD_DIR={}\nexec sh -c \"$*\"\n",
        desk.home().display(),
        desk.state().display()
    );
    fs::write(bin.join("ssh"), script).expect("write a script");
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755))
        .expect("make it executable");
    let command = |arguments: &[&str]| {
        let mut command = home.command(&[&["--json", "link"], arguments].concat());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", bin.display()));
        command
    };
    let prints = |name: &str, arguments: &[&str]| {
        types.fits(name, &home.run(command(arguments), "").success().json());
    };
    let program = home.executable().display().to_string();
    prints("link-identity", &["identity"]);
    prints("links", &["add", "desk", "--ssh", "desk", "--command", &program]);
    prints("links", &["ls"]);
    prints("link-show", &["show", "desk"]);
    prints("link-test", &["test", "desk"]);
    prints("links", &["set", "desk", "accept"]);
    types.fails(&home.run(command(&["show", "attic"]), ""), None);
    types.fits("link-run", &first_line(command(&["run"])));
    prints("link-service", &["service"]);
    prints("link-process", &["start"]);
    prints("link-process", &["start"]);
    prints("links", &["rename", "desk", "tower"]);
    prints("link-process", &["stop"]);
    prints("link-process", &["stop"]);
    prints("links", &["rm", "tower"]);
    prints("link-identity", &["identity", "--new"]);
    prints("link-find", &["find", "desk"]);
    // A team whose server nobody asks: step links of CI has real servers.
    let key = home.state().join("link.team-blue.key");
    fs::write(&key, [7; 32]).expect("write a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("keep it private");
    let team = "[team.blue]\nnats = [\"tls://localhost:1\"]\nkey = \"link.team-blue.key\"\n";
    fs::write(home.state().join("links.toml"), team).expect("write links.toml");
    prints("teams", &["team", "ls"]);
    prints("team-token", &["team", "invite", "blue"]);
    prints("team-permissions", &["team", "permissions", "blue"]);
    types.fails(&home.run(command(&["team", "invite", "red"]), ""), None);
    prints("team-token", &["team", "rekey", "blue"]);
    prints("teams", &["team", "rm", "blue"]);
}

/// The first line of a command that goes on, as an object.
fn first_line(mut command: Command) -> Value {
    let mut running =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("run peerctl");
    let mut line = String::new();
    let read = BufReader::new(running.stdout.take().expect("it is piped")).read_line(&mut line);
    let _ = (running.kill(), running.wait());
    assert!(read.is_ok_and(|bytes| bytes > 0));
    serde_json::from_str(&line).expect("a line is an object")
}

/// What measures or plays on a broker of its own.
fn of_throwaways(home: &Home, types: &Types) {
    let prints = |name: &str, arguments: &[&str]| types.prints(home, name, arguments);
    prints("demo", &["demo"]);
    let few = ["--rounds", "1", "--samples", "2"];
    prints("bench-latency", &[&["bench", "latency"], &few[..]].concat());
    prints("bench-latency", &[&["bench", "search"], &few[..]].concat());
    prints("bench-fanout", &[&["bench", "fanout", "--members", "2"], &few[..]].concat());
    prints(
        "bench-throughput",
        &["bench", "throughput", "--rounds", "1", "--producers", "1", "--messages", "2"],
    );
}

#[test]
fn every_command_prints_what_its_schema_says() {
    let (home, types) = begin();
    of_messages(&home, &types);
    of_waiting(&home, &types);
    of_the_team(&home, &types);
    of_links(&home, &types);
    of_the_machine(&home, &types);
    of_throwaways(&home, &types);
    let never: Vec<_> =
        types.schemas.keys().filter(|name| !types.seen.borrow().contains(*name)).collect();
    assert!(never.is_empty(), "of these types no output was seen: {never:?}");
}

#[test]
fn one_type_is_printed_by_its_name_and_another_name_is_told_which_there_are() {
    let home = peer_tests::home!();
    let all = home.peerctl(&["schema"]).success().json();
    assert_eq!(home.peerctl(&["schema", "status"]).success().json(), all["status"]);
    let refused = home.peerctl(&["schema", "statuses", "--json"]);
    refused.refused(4, "unknown_type");
    assert!(refused.stderr.contains("the types are: error, "), "{refused:?}");
    assert!(!home.state().exists(), "it needs no directory");
}
