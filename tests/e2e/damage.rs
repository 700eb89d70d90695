//! Records of the database that are damaged, as the person hears of them: by watching, and without
//! anybody asking for them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use peer_proto::ids::MessageId;
use peer_tests::{Home, News};
use redb::{Database, ReadableDatabase, TableDefinition};
use serde_json::{Value, json};

/// Where a message stands: its number, its record.
const MESSAGES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("messages");

/// What a start checks as a whole is smaller than that.
const LARGE_BYTES: u64 = 16 * 1024 * 1024;

/// Changes the last byte of a message's record, which is one of its text, while no broker runs.
fn damage(home: &Home, id: &str) {
    let number = id.parse::<MessageId>().expect("the id of a message").to_u128();
    let database = Database::open(home.state().join("peers.redb")).expect("open the database");
    let reading = database.begin_read().expect("read the database");
    let messages = reading.open_table(MESSAGES).expect("it has a table of messages");
    let mut record = messages
        .get(number)
        .expect("read the table")
        .expect("the message is stored")
        .value()
        .to_vec();
    *record.last_mut().expect("a record has bytes") ^= 1;
    let writing = database.begin_write().expect("write to the database");
    writing
        .open_table(MESSAGES)
        .expect("it has a table")
        .insert(number, record.as_slice())
        .expect("write a record");
    writing.commit().expect("write to the database");
}

fn damaged(home: &Home) -> Value {
    home.peerctl(&["status", "--json"]).success().json()["damaged"].clone()
}

/// The problem that doctor finds in the database: what is, and what to do.
#[track_caller]
fn problem(home: &Home) -> (String, String) {
    let outcome = home.peerctl(&["doctor", "--json"]);
    assert_eq!(outcome.code, 7, "{outcome:?}");
    let told = outcome.json();
    let findings = told["findings"].as_array().expect("a list").iter();
    let of_it: Vec<_> = findings
        .filter(|finding| finding["check"] == "database" && finding["state"] == "problem")
        .collect();
    assert_eq!(of_it.len(), 1, "{told:#}");
    let text = |field: &str| of_it[0][field].as_str().expect("a text").to_owned();
    (text("observed"), text("hint"))
}

#[test]
fn whoever_watches_hears_what_is_damaged_when_it_is_found() {
    let home = peer_tests::home!();
    let sent = |text: &str| {
        let sent = home.peerctl(&["send", "human", "--json", "--", text]).success().json();
        sent["id"].as_str().expect("an id").to_owned()
    };
    let (first, second) = (sent("the first"), sent("the second"));
    let _ = home.peerctl(&["daemon", "stop"]).success();
    damage(&home, &first);

    let news = News::start(&home);
    let mut command = home.command(&["tail", "-n", "1"]);
    let mut tail =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run peerctl tail");
    let mut ready = String::new();
    BufReader::new(tail.stderr.take().expect("it is piped"))
        .read_line(&mut ready)
        .expect("read that it watches");
    assert_eq!(damaged(&home), 0, "nobody has read it yet");

    let refused = home.peerctl(&["show", &first, "--json"]);
    assert_eq!(
        (refused.code, &refused.json()["error"]["code"]),
        (4, &json!("unknown_message")),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("damaged"), "{refused:?}");
    let told = news.wait_any("damaged");
    assert_eq!(told["reason"], format!("message {first}"), "{told}");
    assert!(told["at"].is_string() && told["text"].is_null(), "{told}");
    // It waited for the person, and is a dead letter now.
    assert_eq!(news.wait("dead", &first)["to"], "human");
    let printed = tail.wait_with_output().expect("it ends by itself");
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(
        printed.contains("damaged") && printed.contains(&format!("(message {first})")),
        "{printed}"
    );

    assert_eq!(damaged(&home), 1);
    assert!(
        home.peerctl(&["status"])
            .success()
            .stdout
            .contains("1 damaged record is left out, see `peerctl doctor`")
    );
    let (observed, hint) = problem(&home);
    assert_eq!(observed, "damaged records that the broker leaves out: 1");
    assert_eq!(hint, "peerctl daemon stop && peerctl daemon verify");
    let letters = home.peerctl(&["orphans", "--json"]).success().json();
    assert_eq!(
        (&letters[0]["id"], &letters[0]["cause"]),
        (&json!(first), &json!("damaged")),
        "{letters}"
    );
    let shown = home.peerctl(&["show", &second, "--json"]).success().json();
    assert_eq!(shown["text"], "the second");
}

/// A start reads what waits, and a file of this size is not checked as a whole. Nobody ever asks
/// for this message.
#[test]
fn a_damaged_record_of_a_settled_message_in_a_large_database_is_found_by_itself() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    home.configure("[limits]\nsender_per_minute = 1000000\npair_per_minute = 1000000\n");
    let luna = home.claude("luna");
    let filler = "x".repeat(60_000);
    let sent: Vec<String> = (0..300)
        .map(|number| {
            let text = format!("{number} {filler}");
            luna.call("send_message", json!({"to": "human", "message": text}))
                .success()
                .message_id()
        })
        .collect();
    luna.kill();
    let _ = home.peerctl(&["inbox", "me", "--ack"]).success();
    let status = home.peerctl(&["status", "--json"]).success().json();
    assert_eq!(
        (&status["messages"]["stored"], &status["messages"]["total"]),
        (&json!(0), &json!(300)),
        "{status}"
    );
    let _ = home.peerctl(&["daemon", "stop"]).success();
    let file = std::fs::metadata(home.state().join("peers.redb")).expect("the database is there");
    assert!(file.len() > LARGE_BYTES, "{}", file.len());
    // The last one that is read, and one before it.
    damage(&home, &sent[150]);
    damage(&home, &sent[299]);

    let news = News::start(&home);
    let started = Instant::now();
    for id in [&sent[150], &sent[299]] {
        let told = news.wait_any("damaged");
        assert_eq!(told["reason"], format!("message {id}"), "{told}");
    }
    // Within seconds: it begins a second after the last that arrived.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(damaged(&home), 2);
    assert_eq!(problem(&home).1, "peerctl daemon stop && peerctl daemon verify");
    // What was settled is no dead letter.
    assert_eq!(home.peerctl(&["orphans", "--json"]).success().json(), json!([]));
    let log = std::fs::read_to_string(home.state().join("broker.log")).expect("read the log");
    for id in [&sent[150], &sent[299]] {
        assert_eq!(log.matches(&format!("message {id}")).count(), 1, "{log}");
    }
    drop(news);

    let _ = home.peerctl(&["daemon", "stop"]).success();
    let outcome = home.peerctl(&["daemon", "verify", "--json"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let problems = [150, 299].map(|place| format!("the message {} cannot be read", sent[place]));
    assert_eq!(
        (&outcome.json()["problems"], &outcome.json()["sound"]),
        (&json!(problems), &json!(false)),
        "{outcome:?}"
    );
    let (observed, hint) = problem(&home);
    assert_eq!(observed, format!("problems: 2; the first: {}", problems[0]));
    assert_eq!(hint, "peerctl daemon verify");
}
