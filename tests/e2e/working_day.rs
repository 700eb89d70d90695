//! A working day: five sessions of both client kinds share channels, tasks, questions and notes,
//! while one of them and the broker are killed. Everything ends as its rules say, and what was said
//! can be read afterwards.

use std::cell::RefCell;
use std::time::Instant;

use peer_tests::{Home, Mcp, PATIENCE, ToolResult};
use serde_json::{Value, json};

/// A session, and all that its model was shown.
struct Colleague {
    name: &'static str,
    client: &'static str,
    mcp: Mcp,
    shown: RefCell<String>,
}

impl Colleague {
    /// One with all tools, registered. Its client's own session id makes its mailbox the same after
    /// a restart.
    #[track_caller]
    fn begin(home: &Home, client: &'static str, name: &'static str) -> Self {
        let adapter = home.adapter(client).env("PEER_NAME", name).env("PEERD_PROFILE", "full");
        let adapter = match client {
            "claude-code" => adapter.env("CLAUDE_CODE_SESSION_ID", name),
            _ => adapter.thread_id(&format!("thread-of-{name}")),
        };
        let colleague = Self { name, client, mcp: adapter.start(), shown: RefCell::default() };
        let _ = colleague.does("list_peers", json!({}));
        colleague
    }

    fn note(&self, result: ToolResult) -> ToolResult {
        self.shown.borrow_mut().push_str(&format!("{}\n", result.text));
        result
    }

    #[track_caller]
    fn tries(&self, tool: &str, arguments: Value) -> ToolResult {
        let id = self.mcp.submit_call(tool, arguments, json!({}));
        self.note(self.mcp.result(id, PATIENCE))
    }

    /// A call that succeeds, and what it says.
    #[track_caller]
    fn does(&self, tool: &str, arguments: Value) -> String {
        self.tries(tool, arguments).success().text
    }

    /// A call that is refused, with these words.
    #[track_caller]
    fn may_not(&self, tool: &str, arguments: Value, why: &str) {
        let result = self.tries(tool, arguments);
        assert!(
            result.is_error && result.text.contains(why),
            "{}: {why}: {}",
            self.name,
            result.text
        );
    }

    #[track_caller]
    fn says(&self, to: &str, text: &str) -> String {
        self.tries("send_message", json!({"to": to, "message": text, "intent": "inform"}))
            .success()
            .message_id()
    }

    #[track_caller]
    fn asks(&self, to: &str, question: &str) -> String {
        self.tries("ask_peer", json!({"to": to, "question": question})).success().message_id()
    }

    /// All that reached its model, also what was pushed.
    fn heard(&self) -> String {
        let pushed: Vec<Value> = self.mcp.notifications();
        let contents = pushed.iter().filter_map(|note| note["params"]["content"].as_str());
        contents.fold(self.shown.borrow().clone(), |all, content| all + content + "\n")
    }

    /// Waits until its model has been shown this.
    #[track_caller]
    fn hears(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.heard().contains(what) {
            assert!(
                Instant::now() < deadline,
                "{} never hears {what:?}, but {}",
                self.name,
                self.heard()
            );
            let _ = self.does("check_messages", json!({"wait_s": 5}));
        }
    }
}

/// Of several sessions that do the same at once: the place of the only one that succeeds, and what
/// the others are told.
#[track_caller]
fn at_once(
    colleagues: &[&Colleague],
    tool: &str,
    arguments: impl Fn(&Colleague) -> Value,
) -> (usize, Vec<String>) {
    let calls: Vec<u64> = colleagues
        .iter()
        .map(|colleague| colleague.mcp.submit_call(tool, arguments(colleague), json!({})))
        .collect();
    let results: Vec<ToolResult> = colleagues
        .iter()
        .zip(calls)
        .map(|(colleague, call)| colleague.note(colleague.mcp.result(call, PATIENCE)))
        .collect();
    let won: Vec<usize> = (0..results.len()).filter(|place| !results[*place].is_error).collect();
    let [won] = won[..] else { panic!("one of them succeeds: {results:?}") };
    (won, results.into_iter().filter(|result| result.is_error).map(|result| result.text).collect())
}

/// The row of a list in which `key` is `value`.
#[track_caller]
fn row<'a>(rows: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = rows.as_array().expect("a list").iter().find(|row| row[key] == value);
    found.unwrap_or_else(|| panic!("no {key} {value} in {rows:#}"))
}

#[test]
fn five_sessions_release_something_while_one_of_them_and_the_broker_die() {
    let home = peer_tests::home!();
    let luna = Colleague::begin(&home, "claude-code", "luna");
    let vega = Colleague::begin(&home, "claude-code", "vega");
    let mut team = vec![
        Colleague::begin(&home, "codex-mcp-client", "orion"),
        Colleague::begin(&home, "codex-mcp-client", "nova"),
        Colleague::begin(&home, "claude-code", "lyra"),
    ];

    // Morning: a place for all, and one that is not there for nova and lyra.
    let _ = luna
        .does("channels", json!({"action": "create", "name": "#release", "topic": "version 1.4"}));
    for colleague in team.iter().chain([&vega]) {
        let _ = colleague.does("channels", json!({"action": "join", "name": "#release"}));
    }
    let _ = luna.does(
        "channels",
        json!({"action": "create", "name": "#keys", "topic": "who signs", "private": true}),
    );
    for name in ["orion", "vega"] {
        let _ = luna.does("channels", json!({"action": "invite", "name": "#keys", "peer": name}));
    }
    team[0].hears("luna made you a member of #keys, which is for \"who signs\"");
    let _ = luna.says("#release", "1.4 leaves at noon");
    let _ = vega.says("#keys", "I sign this time");
    for colleague in team.iter().chain([&vega]) {
        colleague.hears("| 1.4 leaves at noon");
    }
    luna.hears("| I sign this time");
    team[0].hears("| I sign this time");
    let _ = luna.does(
        "set_summary",
        json!({"summary": "leads the release of 1.4", "state": "working", "task": "plan"}),
    );
    let peers = vega.does("list_peers", json!({"query": "leads the release"}));
    assert!(peers.contains("- luna (") && !peers.contains("- nova ("), "{peers}");

    // A tree of tasks: the last one needs the other two.
    let changelog = json!({"action": "create", "title": "write the changelog"});
    assert!(luna.does("tasks", changelog).contains("T-1 open"));
    let _ = luna.does("tasks", json!({"action": "create", "title": "build the packages", "description": "for both systems"}));
    let publish =
        json!({"action": "create", "title": "publish", "needs": "T-1,T-2", "assignee": "vega"});
    assert!(luna.does("tasks", publish).contains("T-3 open"));
    vega.hears("| luna gave you task T-3: \"publish\"\n| it waits for T-1, T-2");
    vega.may_not("tasks", json!({"action": "claim", "task": "T-3"}), "it waits for T-1, T-2");
    let _ = vega.does("tasks", json!({"action": "start", "task": "T-1"}));
    let _ = vega.does(
        "tasks",
        json!({"action": "complete", "task": "T-1", "result": "CHANGELOG has 14 lines"}),
    );
    luna.hears("| vega completed task T-1 (\"write the changelog\"): \"CHANGELOG has 14 lines\"");
    vega.hears("which is completed now; it waits for T-2");

    // All three want the next one.
    let contestants: Vec<&Colleague> = team.iter().collect();
    let (won, told) = at_once(&contestants, "tasks", |_| json!({"action": "claim", "task": "T-2"}));
    let builder = team[won].name;
    assert!(told.iter().all(|text| text.contains("T-2") && text.contains(builder)), "{told:?}");
    let _ = team[won].does("tasks", json!({"action": "start", "task": "T-2"}));
    luna.hears(&format!("| {builder} started task T-2 (\"build the packages\")"));

    // A question to a channel: the first answer closes it.
    let staging = vega.asks("#release", "which version is on staging?");
    let (first, told) = at_once(
        &[&team[0], &team[1]],
        "answer_question",
        |colleague| json!({"question_id": staging, "answer": format!("1.3, says {}", colleague.name), "sources": "deploy.log:41"}),
    );
    let answerer = team[first].name;
    assert!(told[0].contains(&format!("is closed: {answerer} answered it")), "{told:?}");
    vega.hears(&format!("sources: deploy.log:41\n| 1.3, says {answerer}"));

    // Two write the same note at once: one is told what the other wrote, and writes what holds of
    // both.
    let note = |value: &str, version: u64| json!({"action": "set", "key": "release/state", "value": value, "if_version": version});
    let _ = luna.does("memory", note("changelog", 0));
    let (writer, told) = at_once(&[&team[1], &team[2]], "memory", |colleague| {
        note(&format!("and {}", colleague.name), 1)
    });
    let (writer, late) = if writer == 0 { (&team[1], &team[2]) } else { (&team[2], &team[1]) };
    assert!(told[0].contains(&format!("version 2 by {}", writer.name)), "{told:?}");
    assert!(
        told[0].contains(&format!("| and {}\n", writer.name)) && told[0].contains("if_version=2"),
        "{told:?}"
    );
    let both = format!("and {} and {}", writer.name, late.name);
    let _ = late.does("memory", note(&both, 2));

    // Whoever builds is killed, with a question open.
    let green = luna.asks(builder, "is the build green?");
    team[won].mcp.kill();
    luna.hears(&format!(
        "| the session of {builder} ended without answering your question {green}"
    ));
    luna.hears("| task T-2 (\"build the packages\") is open for anybody again: the session of");
    let client = team[won].client;
    drop(team.remove(won));
    let _ = luna.says("#release", &format!("{builder} is gone, who builds?"));
    let contestants: Vec<&Colleague> = team.iter().collect();
    let (next, _) = at_once(&contestants, "tasks", |_| json!({"action": "claim", "task": "T-2"}));

    // It comes back, finds what it missed, and still may answer.
    let back = Colleague::begin(&home, client, builder);
    back.hears("to continue, claim it with");
    back.hears(&format!("| {builder} is gone, who builds?"));
    back.may_not("tasks", json!({"action": "complete", "task": "T-2"}), team[next].name);
    let open = back.does("check_messages", json!({"kind": "questions"}));
    assert!(back.heard().contains("| is the build green?") || open.contains(&green), "{open}");
    let _ = back.does("answer_question", json!({"question_id": green, "answer": "it was"}));
    luna.hears("sources: from memory\n| it was");

    // The broker dies between two steps of a task.
    let _ = team[next]
        .does("tasks", json!({"action": "complete", "task": "T-2", "result": "4 packages"}));
    vega.hears("which is completed now; it can start: every task that it needs is complete");
    let _ = vega.does("tasks", json!({"action": "start", "task": "T-3"}));
    home.kill_broker();
    let _ =
        vega.does("tasks", json!({"action": "complete", "task": "T-3", "result": "1.4 is out"}));
    luna.hears("| vega completed task T-3 (\"publish\"): \"1.4 is out\"");
    let _ = luna.says("#release", "1.4 is out, thanks to all");
    for colleague in team.iter().chain([&vega, &back]) {
        colleague.hears("| 1.4 is out, thanks to all");
    }
    for outsider in team.iter().chain([&back]).filter(|colleague| colleague.name != "orion") {
        assert!(
            !outsider.heard().contains("#keys") && !outsider.heard().contains("I sign"),
            "{}",
            outsider.heard()
        );
        let listed = outsider.does("channels", json!({"action": "list"}));
        assert!(listed.contains("#release") && !listed.contains("#keys"), "{listed}");
        outsider.may_not(
            "channels",
            json!({"action": "history", "name": "#keys"}),
            "there is no channel or group \"#keys\"",
        );
        assert!(outsider.does("search", json!({"query": "sign"})).starts_with("Nothing has all"));
    }

    // Evening: everything ended as it should.
    let tasks = home.peerctl(&["tasks", "list", "--all", "--json"]).success().json();
    for (task, assignee) in [("T-1", "vega"), ("T-2", team[next].name), ("T-3", "vega")] {
        let task = row(&tasks, "id", task);
        assert_eq!(
            (&task["state"], &task["assignee"]),
            (&json!("completed"), &json!(assignee)),
            "{task:#}"
        );
    }
    let questions = home.peerctl(&["questions", "--json"]).success().json();
    assert_eq!(row(&questions, "id", &staging)["answered"]["by"], answerer, "{questions:#}");
    assert_eq!(row(&questions, "id", &green)["answered"]["by"], builder, "{questions:#}");
    let note = home.peerctl(&["memory", "get", "release/state", "--json"]).success().json();
    assert_eq!((&note["value"], &note["version"]), (&json!(both), &json!(3)), "{note:#}");
    let found = home.peerctl(&["search", "packages", "--json"]).success().json();
    assert_eq!(row(&found, "kind", "task")["id"], "T-2", "{found:#}");
    let status = home.peerctl(&["status", "--json"]).success().json();
    assert_eq!(status["messages"]["dead"], 0, "{status:#}");

    reads_well(&home);
    drop((luna, vega, team, back));
    let _ = home.peerctl(&["daemon", "stop"]).success();
    let _ = home.peerctl(&["daemon", "verify"]).success();
}

/// The transcript has all that was said, once and in its order; `cargo test … -- --nocapture` shows
/// it.
#[track_caller]
#[expect(clippy::print_stdout, reason = "whether it reads well, a person judges")]
fn reads_well(home: &Home) {
    let history = home.peerctl(&["history", "-n", "500"]).success().stdout;
    println!("{history}");
    let spoken = [
        "| 1.4 leaves at noon",
        "| I sign this time",
        "| luna gave you task T-3: \"publish\"",
        "| vega completed task T-1",
        "| which version is on staging?",
        "| 1.3, says ",
        "| is the build green?",
        " ended without answering your question ",
        " is gone, who builds?",
        "| it was\n",
        "it can start: every task that it needs is complete",
        "| vega completed task T-3",
        "| 1.4 is out, thanks to all",
    ];
    let places: Vec<usize> = spoken
        .iter()
        .map(|text| history.find(text).unwrap_or_else(|| panic!("{text:?} is not in {history}")))
        .collect();
    assert!(places.is_sorted(), "{places:?}: {history}");
    for text in spoken {
        assert_eq!(history.matches(text).count(), 1, "{text:?}: {history}");
    }
    let rows = home.peerctl(&["history", "-n", "500", "--json"]).success().json();
    let rows = rows.as_array().expect("history is a list");
    let mut ids: Vec<&str> = rows.iter().map(|row| row["id"].as_str().expect("an id")).collect();
    assert!(ids.is_sorted(), "in the order in which it was accepted: {ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), rows.len(), "each message once");
    let private = home.peerctl(&["history", "--channel", "#keys", "--json"]).success().json();
    assert_eq!(private.as_array().map(Vec::len), Some(1), "{private:#}");
}
