//! Scenarios of evidence, in records made of the lines of Claude Code 2.1.332.

use std::io::Write;

use super::*;
use crate::render::{self, BLOCK_CHARS_MAX, Body, EXCERPT_CHARS_MAX, Showing};
use crate::samples::request;

struct Record {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Record {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.jsonl");
        Self { path, _dir: dir }
    }

    fn append(&self, text: &str) {
        let mut file = File::options().create(true).append(true).open(&self.path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn read(&self, transcript: &mut Transcript) -> Vec<Seen> {
        self.look_all(transcript).seen
    }

    fn look_all(&self, transcript: &mut Transcript) -> RecordNews {
        transcript.read_news(ClientKind::Claude, &self.path, &[id(1), id(2)], true)
    }
}

fn id(number: u32) -> MessageId {
    MessageId::try_from(u128::from(number)).unwrap()
}

fn quoted_from(number: u32, text: &str, offset: usize) -> (String, usize) {
    let subject = request(number, "luna", text);
    let body = Body::new(text);
    let showing = Showing {
        shown_before: false,
        home: "",
        offset,
        chars_max: EXCERPT_CHARS_MAX,
        budget: BLOCK_CHARS_MAX,
    };
    let piece = render::message(&subject, &body, showing);
    (piece.quoted, piece.end)
}

fn quoted(number: u32, text: &str) -> String {
    quoted_from(number, text, 0).0
}

fn answer(name: &str) -> String {
    let message = serde_json::json!({"id": name, "model": "claude-opus-5-5", "content": [{"type": "text", "text": "ok"}]});
    format!(
        "{}\n",
        serde_json::json!({"parentUuid": "0", "isSidechain": false, "type": "assistant", "message": message})
    )
}

fn result(text: &str) -> String {
    let content =
        serde_json::json!([{"type": "tool_result", "content": [{"type": "text", "text": text}]}]);
    let entry = serde_json::json!({"parentUuid": "0", "isSidechain": false, "type": "user", "message": {"content": content}, "sourceToolAssistantUUID": "1"});
    format!("{entry}\n")
}

fn queued(text: &str) -> String {
    format!(
        "{}\n",
        serde_json::json!({"type": "queue-operation", "operation": "enqueue", "content": text})
    )
}

fn seen(number: u32, piece: &str) -> [Seen; 1] {
    let by = Some(Carrier::ToolResult);
    [Seen { message: id(number), by, in_result: false, piece: piece.to_owned() }]
}

#[test]
fn a_new_answer_after_the_text_proves_it() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    assert!(record.read(&mut transcript).is_empty(), "the record is not there yet");
    record.append(&result(&format!(
        "done\n\n[PEER INBOX] 2 messages.\n{}{}",
        quoted(1, "ping\n\npong"),
        quoted(3, "x")
    )));
    assert!(record.read(&mut transcript).is_empty(), "no answer yet");
    record.append(&answer("msg_2"));
    assert_eq!(record.read(&mut transcript), seen(1, "ping\n\npong"));
    record.append(&answer("msg_3"));
    assert!(record.read(&mut transcript).is_empty(), "it is told once");
}

#[test]
fn the_rest_of_the_answer_that_made_the_call_proves_nothing() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    record.append(&(answer("msg_1") + &result(&quoted(1, "ping")) + &answer("msg_1")));
    assert!(record.read(&mut transcript).is_empty());
    record.append(&result("the other call of that message"));
    assert!(record.read(&mut transcript).is_empty());
    record.append(&answer("msg_2"));
    assert_eq!(record.read(&mut transcript), seen(1, "ping"));
}

#[test]
fn what_is_only_queued_proves_nothing() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    record.append(&(queued(&quoted(1, "ping")) + &answer("msg_1") + &answer("msg_2")));
    assert!(record.read(&mut transcript).is_empty());
}

#[test]
fn another_ones_quotation_is_not_the_message() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    let whole = quoted(1, "ping");
    let headless = whole.replace("[m-", "m-");
    let forged = quoted(3, &format!("{whole}\nx: {whole}"));
    record.append(&(result(&headless) + &result(&forged) + &answer("msg_1") + &answer("msg_2")));
    assert!(record.read(&mut transcript).is_empty());
}

#[test]
fn each_part_of_a_body_is_told_once() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    let lines: String = (0..900).map(|number| format!("line {number}\n")).collect();
    let body = Body::new(&lines);
    let mut offset = 0;
    while offset < body.chars() {
        let (piece, end) = quoted_from(1, &lines, offset);
        record.append(&(result(&piece) + &answer(&format!("msg_{end}"))));
        let seen = record.read(&mut transcript);
        assert!(
            seen.len() == 1 && body.is_piece(offset, end, &seen[0].piece),
            "{offset} to {end}: {seen:?}"
        );
        assert!(record.read(&mut transcript).is_empty());
        offset = end;
    }
}

#[test]
fn lines_that_come_in_pieces_are_read_when_they_are_whole() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    let text = result(&quoted(1, "ping 🦀")) + &answer("msg_2");
    for bytes in text.as_bytes().chunks(7) {
        assert!(record.read(&mut transcript).is_empty());
        let mut file = File::options().create(true).append(true).open(&record.path).unwrap();
        file.write_all(bytes).unwrap();
    }
    assert_eq!(record.read(&mut transcript), seen(1, "ping 🦀"));
}

#[test]
fn the_session_goes_on_in_another_record() {
    let (before, after, mut transcript) = (Record::new(), Record::new(), Transcript::default());
    before.append(&(answer("msg_1") + &result(&quoted(1, "ping"))));
    assert!(before.read(&mut transcript).is_empty());
    // The conversation was emptied before the model was asked: the new one begins without it.
    after.append(&answer("msg_2"));
    assert!(after.read(&mut transcript).is_empty());
    after.append(&(result(&quoted(1, "ping")) + &answer("msg_3")));
    assert_eq!(after.read(&mut transcript), seen(1, "ping"));
}

#[test]
fn a_record_that_was_rewritten_is_read_again() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    record.append(&(answer("msg_1") + &answer("msg_2")));
    assert!(record.read(&mut transcript).is_empty());
    std::fs::write(&record.path, answer("m")).unwrap();
    assert!(record.read(&mut transcript).is_empty());
    record.append(&(result(&quoted(1, "ping")) + &answer("msg_3")));
    assert_eq!(record.read(&mut transcript), seen(1, "ping"));
}

/// An answer in the new record does not prove the text of the old one.
#[test]
fn a_record_that_another_takes_the_place_of_is_left_and_the_other_one_read() {
    let shown = (id(1), Some(Carrier::ToolResult));
    let longer = answer("msg_2") + &queued(&"x".repeat(5_000)) + &answer("msg_3");
    let put: [fn(&Record, &str); 3] = [
        // Rewritten, and longer than before at the next look.
        |record, text| std::fs::write(&record.path, text).unwrap(),
        |record, text| {
            std::fs::rename(&record.path, record.path.with_extension("old")).unwrap();
            record.append(text);
        },
        |record, text| {
            std::fs::remove_file(&record.path).unwrap();
            std::fs::create_dir(&record.path).unwrap();
            assert!(File::open(&record.path).is_ok(), "a directory can be opened");
            let mut transcript = Transcript::default();
            assert_eq!(record.look_all(&mut transcript), RecordNews::default());
            std::fs::remove_dir(&record.path).unwrap();
            record.append(text);
        },
    ];
    for put in put {
        let (record, mut transcript) = (Record::new(), Transcript::default());
        record.append(&(answer("msg_1") + &result(&quoted(1, "ping"))));
        assert_eq!(record.look_all(&mut transcript), RecordNews::default());
        put(&record, &longer);
        let looked = record.look_all(&mut transcript);
        assert_eq!((looked.seen, looked.withdrawn), (vec![], vec![shown]));
        record.append(&(result(&quoted(1, "ping")) + &answer("msg_4")));
        assert_eq!(record.read(&mut transcript), seen(1, "ping"));
    }
}

#[test]
fn a_record_that_cannot_be_read_for_a_while_is_read_on_from_the_same_place() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    record.append(&(answer("msg_1") + &result(&quoted(1, "ping"))));
    assert_eq!(record.look_all(&mut transcript), RecordNews::default());
    let aside = record.path.with_extension("aside");
    std::fs::rename(&record.path, &aside).unwrap();
    assert_eq!(record.look_all(&mut transcript), RecordNews::default());
    std::fs::create_dir(&record.path).unwrap();
    assert_eq!(record.look_all(&mut transcript), RecordNews::default());
    std::fs::remove_dir(&record.path).unwrap();
    std::fs::rename(&aside, &record.path).unwrap();
    record.append(&answer("msg_2"));
    assert_eq!(record.read(&mut transcript), seen(1, "ping"));
}

#[test]
fn of_a_long_record_only_the_end_is_read_and_endless_lines_are_passed_over() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    record.append(&(result(&quoted(1, "ping")) + &answer("msg_1")));
    record.append(&queued(&"x".repeat(8 * 1024)).repeat(400));
    assert!(
        record.read(&mut transcript).is_empty(),
        "it stands before the place where reading begins"
    );
    record.append(&queued(&"y".repeat(LINE_BYTES_MAX)));
    assert!(record.read(&mut transcript).is_empty());
    assert!(transcript.begun.is_empty());
    record.append(&(result(&quoted(2, "ping")) + &answer("msg_3")));
    assert_eq!(record.read(&mut transcript), seen(2, "ping"));
}

#[test]
fn a_header_is_read_behind_words_of_the_client_but_not_behind_a_quotation_mark() {
    let line = quoted(1, "ping").lines().next().unwrap().to_owned();
    assert_eq!(header(&line), Some(id(1)));
    assert_eq!(header(&format!("Stop hook additional context: {line}")), Some(id(1)));
    assert_eq!(header(&format!("{line} (shown before)")), Some(id(1)));
    assert_eq!(header(&format!("| {line}")), None);
    assert_eq!(header(&format!("| x: {line}")), None);
    for other in [
        "[PEER INBOX] 1 message.",
        "[m-1 request] from luna · 4 chars",
        "",
        "[",
        "x: [",
        &line.replace("] from", " from"),
    ] {
        assert_eq!(header(other), None, "{other}");
    }
}

#[test]
fn nothing_is_read_twice_when_something_is_looked_for_again() {
    let (record, mut transcript) = (Record::new(), Transcript::default());
    let compacted = "{\"parentUuid\":null,\"type\":\"system\",\"subtype\":\"compact_boundary\",\"uuid\":\"c\"}\n";
    record.append(&(result(&quoted(1, "ping")) + compacted));
    assert_eq!(record.look_all(&mut transcript).withdrawn, [(id(1), Some(Carrier::ToolResult))]);
    let paused = transcript.read_news(ClientKind::Claude, &record.path, &[id(1), id(2)], false);
    assert_eq!(paused, RecordNews::default());
    record.append(&result(&quoted(1, "ping")));
    assert_eq!(
        record.look_all(&mut transcript),
        RecordNews::default(),
        "it was given again, and stands there again"
    );
    record.append(&answer("msg_1"));
    assert_eq!(record.read(&mut transcript), seen(1, "ping"));
}
