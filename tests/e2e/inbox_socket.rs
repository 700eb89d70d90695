//! The way into Claude Code's own inbox socket, with the test as the client: what is posted, to
//! whom, when not, and what in the client's files proves it.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Instant;

use peer_tests::{Adapter, Home, Mcp, PATIENCE};
use serde_json::{Value, json};

const SESSION: &str = "0b5e1a52-6d5c-4b57-9a3e-1f2a3b4c5d6e";
const TOKEN: &str = "0123456789abcdef";

/// What Claude Code keeps for a session, kept by the test.
struct Client<'home> {
    home: &'home Home,
    socket: PathBuf,
    listener: UnixListener,
}

impl<'home> Client<'home> {
    fn new(home: &'home Home) -> Self {
        let sockets = home.root().join("socks");
        fs::create_dir(&sockets).expect("make a directory");
        fs::set_permissions(&sockets, Permissions::from_mode(0o700)).expect("close it to others");
        let socket = sockets.join("claude.sock");
        let listener = UnixListener::bind(&socket).expect("listen");
        Self { home, socket, listener }
    }

    fn config(&self) -> PathBuf {
        self.home.home().join(".claude")
    }

    /// Says in the registry what the client of this process id does.
    fn register(&self, pid: u32, change: Value) {
        let mut entry = json!({"pid": pid, "sessionId": SESSION, "messagingSocketPath": self.socket, "status": "idle"});
        entry
            .as_object_mut()
            .expect("an object")
            .extend(change.as_object().cloned().unwrap_or_default());
        let sessions = self.config().join("sessions");
        fs::create_dir_all(&sessions).expect("make a directory");
        fs::write(sessions.join(format!("{pid}.json")), entry.to_string())
            .expect("write the registry");
    }

    fn adapter(&self) -> Adapter<'home> {
        self.home
            .adapter("claude-code")
            .env("PEER_NAME", "luna")
            .env("CLAUDE_CODE_SESSION_ID", SESSION)
            .env("CLAUDE_CODE_MESSAGING_SOCKET", &self.socket.to_string_lossy())
            .env("CLAUDE_CODE_MESSAGING_TOKEN", TOKEN)
    }

    /// The lines of the next post.
    fn post(&self) -> Vec<Value> {
        let (stream, _) = self.listener.accept().expect("a post");
        BufReader::new(stream)
            .lines()
            .map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
            .collect()
    }

    /// Whether nothing was written to the socket. Who looks at who listens must connect for it.
    fn was_told_nothing(&self) -> bool {
        self.listener.set_nonblocking(true).expect("do not wait");
        let heard = |mut stream: std::os::unix::net::UnixStream| {
            stream.set_nonblocking(false).expect("wait");
            std::io::read_to_string(&mut stream).expect("read")
        };
        std::iter::from_fn(|| self.listener.accept().ok())
            .all(|(stream, _)| heard(stream).is_empty())
    }

    fn record(&self, entries: &[Value]) {
        let path = self.config().join("projects/work").join(format!("{SESSION}.jsonl"));
        fs::create_dir_all(path.parent().expect("a directory")).expect("make it");
        let mut file =
            fs::File::options().create(true).append(true).open(path).expect("open the record");
        for entry in entries {
            writeln!(file, "{entry}").expect("write the record");
        }
    }
}

fn quiet_home() -> Home {
    let home = peer_tests::home!();
    home.configure("[adapter]\ncarriers_off = [\"channel\"]\n");
    home
}

/// Luna, who is known to the broker, and somebody else who writes to her.
fn both(client: &Client<'_>, luna: Adapter<'_>) -> (Mcp, Mcp) {
    let (luna, orion) = (luna.spawn(), client.home.codex("orion"));
    // Where it was started by a launcher, that is the client.
    client.register(luna.pid, json!({}));
    luna.initialize();
    orion.register();
    let _ = luna.call("set_summary", json!({"summary": "rests"})).success();
    (luna, orion)
}

fn send(orion: &Mcp, text: &str) -> String {
    orion.call("send_message", json!({"to": "luna", "message": text})).success().message_id()
}

fn trace(home: &Home, id: &str) -> Vec<String> {
    let shown = home.peerctl(&["show", id, "--json"]).success().json();
    let word = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let steps = shown["deliveries"][0]["trace"].as_array().expect("a trace").iter();
    steps
        .map(|step| {
            format!("{} {}", word(&step["stage"]), word(&step["carrier"])).trim().to_owned()
        })
        .collect()
}

/// Nothing else brought it, and nothing was posted: the next result has it, as if nobody had seen
/// it.
#[track_caller]
fn comes_by_a_result(home: &Home, client: &Client<'_>, luna: &Mcp, orion: &Mcp) {
    let id = send(orion, "which bcrypt?");
    let deadline = Instant::now() + PATIENCE;
    let result = loop {
        let result = luna.call("list_peers", json!({})).success().text;
        // It may just be on its way to be refused.
        if !result.contains("came through a push") || Instant::now() > deadline {
            break result;
        }
    };
    assert!(result.contains("| which bcrypt?") && !result.contains("(shown before)"), "{result}");
    assert!(client.was_told_nothing(), "it was posted");
    assert_eq!(trace(home, &id), ["stored", "offered tool_result"]);
}

#[test]
fn a_post_says_who_speaks_and_the_record_proves_it() {
    let home = quiet_home();
    let client = Client::new(&home);
    client.register(std::process::id(), json!({}));
    let (luna, orion) = both(&client, client.adapter());
    let id = send(&orion, "which bcrypt?");
    let lines = client.post();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], json!({"type": "auth", "token": TOKEN}));
    let content = lines[1]["message"]["content"].as_str().expect("a text").to_owned();
    assert_eq!(
        lines[1],
        json!({"type": "user", "message": {"role": "user", "content": content}}),
        "it claims to be nobody"
    );
    assert!(content.starts_with("From peerd, ") && content.contains("send_message"), "{content}");
    assert!(
        content.contains(&format!("\n[{id} request] from orion (codex"))
            && content.ends_with("| which bcrypt?"),
        "{content}"
    );
    assert_eq!(trace(&home, &id), ["stored", "offered inbox_socket"]);

    // That it waits in the client's queue, and that a subagent or an answer from before was there,
    // says nothing.
    let answer = |name: &str| json!({"type": "assistant", "isSidechain": false, "message": {"id": name, "model": "m", "content": []}});
    let shown = |sidechain: bool| {
        let origin = json!({"kind": "peer", "from": "unknown"});
        json!({"type": "user", "isSidechain": sidechain, "isMeta": true, "origin": origin, "message": {"role": "user", "content": content}})
    };
    let queued = json!({"type": "queue-operation", "operation": "enqueue", "content": content});
    client.record(&[answer("msg_1"), queued, answer("msg_2"), shown(true), answer("msg_3")]);
    let result = luna.call("set_summary", json!({"summary": "works"})).success().text;
    assert!(
        result.contains("(shown before)\n| which bcrypt?"),
        "the socket is on trial, so the result carries it too: {result}"
    );
    assert_eq!(trace(&home, &id), ["stored", "offered inbox_socket", "offered tool_result"]);
    client.record(&[shown(false), answer("msg_3")]);
    let again = luna.call("set_summary", json!({"summary": "still works"})).success().text;
    assert!(!again.contains("| which bcrypt?"), "{again}");
    assert_eq!(
        trace(&home, &id),
        ["stored", "offered inbox_socket", "offered tool_result"],
        "the rest of an answer that had begun before"
    );
    client.record(&[answer("msg_4")]);
    let deadline = Instant::now() + PATIENCE;
    // The record is watched: nobody calls.
    while trace(&home, &id).len() < 4 {
        assert!(Instant::now() < deadline, "it is not proved");
    }
    assert_eq!(
        trace(&home, &id),
        ["stored", "offered inbox_socket", "offered tool_result", "presented inbox_socket"]
    );

    // From now on it has its mail alone, however much there is.
    let next: Vec<String> = ["one", "two"].map(|text| send(&orion, text)).into();
    let mut posted = String::new();
    while !next.iter().all(|id| posted.contains(id.as_str())) {
        posted.push_str(&client.post()[1].to_string());
    }
    let result = luna.call("set_summary", json!({"summary": "goes on"})).success().text;
    assert!(!result.contains("| one") && result.contains("came through a push"), "{result}");
}

#[test]
fn nothing_is_posted_where_the_registry_does_not_name_the_socket() {
    let home = quiet_home();
    let client = Client::new(&home);
    client.register(std::process::id(), json!({"messagingSocketPath": "/elsewhere.sock"}));
    let (luna, orion) = both(&client, client.adapter());
    comes_by_a_result(&home, &client, &luna, &orion);
}

#[test]
fn nothing_is_posted_where_there_is_no_registry() {
    let home = quiet_home();
    let client = Client::new(&home);
    let (luna, orion) = both(&client, client.adapter());
    comes_by_a_result(&home, &client, &luna, &orion);
}

#[test]
fn nothing_is_posted_into_a_directory_that_others_can_change() {
    let home = quiet_home();
    let client = Client::new(&home);
    client.register(std::process::id(), json!({}));
    fs::set_permissions(home.root().join("socks"), Permissions::from_mode(0o777))
        .expect("open it to others");
    let (luna, orion) = both(&client, client.adapter());
    comes_by_a_result(&home, &client, &luna, &orion);
}

/// The test listens, and another process is the client. The refused post was once tried again at
/// once and for ever, so that no call was answered any more.
#[test]
fn nothing_is_posted_to_a_process_that_is_not_the_client() {
    let home = quiet_home();
    let client = Client::new(&home);
    let (luna, orion) =
        both(&client, client.adapter().through(&["sh", "-c", "\"$@\"; exit", "sh"]));
    comes_by_a_result(&home, &client, &luna, &orion);
}

#[test]
fn nothing_is_posted_into_a_session_that_bypasses_permissions_before_the_person_says_yes() {
    let home = quiet_home();
    let client = Client::new(&home);
    client.register(std::process::id(), json!({}));
    let (luna, orion) = both(&client, client.adapter());
    let hook = json!({"hook_event_name": "PreToolUse", "session_id": SESSION, "permission_mode": "bypassPermissions"});
    let _ = luna.call("hook", hook).success();
    comes_by_a_result(&home, &client, &luna, &orion);
    let _ = home.peerctl(&["policy", "inbox-socket", "allow"]).success();
    client.listener.set_nonblocking(false).expect("wait again");
    let id = send(&orion, "and now?");
    let lines = client.post();
    assert!(
        lines[1]["message"]["content"].as_str().is_some_and(|content| content.contains(&id)),
        "{lines:?}"
    );
}

#[test]
fn nothing_is_posted_into_a_session_whose_settings_may_lead_there() {
    let home = quiet_home();
    let client = Client::new(&home);
    client.register(std::process::id(), json!({}));
    fs::write(
        client.config().join("settings.json"),
        r#"{"permissions": {"defaultMode": "bypassPermissions"}}"#,
    )
    .expect("write settings");
    let (luna, orion) = both(&client, client.adapter());
    comes_by_a_result(&home, &client, &luna, &orion);
}
