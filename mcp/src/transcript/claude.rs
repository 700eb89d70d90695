//! Claude Code's record: `<config>/projects/<directory>/<session>.jsonl`, one JSON object per line.
//!
//! Observed with 2.1.332. A conversation consists of `user`, `assistant`, `attachment` and `system`
//! entries. Each request is recorded beside them, unless a switch of the vendor's turns that off.
//!
//! - `api-request` names the messages of the request, each by the SHA-256 of its canonical JSON.
//! - `requestRef` of an `assistant` entry names the request that it answers.
//! - A message is in an `api-request-blob`, or consists of consecutive `user` entries; then it has
//!   no blob.
//!
//! All other lines are the client's own notes, above all `queue-operation`, which has every text
//! that only waits. Subagents have records of their own; an entry that is marked as a side chain
//! all the same is skipped.
//!
//! Knows the format of a line. Does not know which messages are searched for, nor what is evidence.

use peer_proto::message::Carrier;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Basis, RecordFormat, RecordLine, Text};

/// Texts in lines that may matter. Most other lines are long and irrelevant, and are not parsed.
const WORDS: [&str; 3] = ["\"parentUuid\"", "\"isSidechain\"", "\"api-request"];

/// The text that Claude Code writes for its person if a turn was interrupted.
const INTERRUPTED: &str = "[Request interrupted by user";

/// How Claude Code writes its record.
#[derive(Debug, Default)]
pub(crate) struct ClaudeFormat {
    /// The consecutive `user` entries, as far as they are whole.
    row: Option<UserRow>,
    /// Whether the next row began in an unread part.
    is_midway: bool,
}

/// The message of consecutive `user` entries.
#[derive(Clone, Debug)]
struct UserRow {
    digest: Sha256,
    name: Option<String>,
}

impl RecordFormat for ClaudeFormat {
    fn read(&mut self, line: &str) -> Vec<RecordLine> {
        let may_matter = WORDS.iter().any(|word| line.contains(word));
        let entry: Option<Value> = may_matter.then(|| serde_json::from_str(line).ok()).flatten();
        let Some(entry) = entry else { return Vec::new() };
        match entry["type"].as_str() {
            Some("api-request") => request(&entry).into_iter().collect(),
            Some("api-request-blob") => message(&entry).into_iter().collect(),
            Some(kind @ ("user" | "assistant" | "attachment" | "system"))
                if entry["isSidechain"] != true =>
            {
                let mut said = Vec::new();
                said.extend(entry["uuid"].as_str().map(|name| RecordLine::Entry(name.to_owned())));
                match kind {
                    "user" => self.user(&entry, &mut said),
                    "assistant" => {
                        (self.row, self.is_midway) = (None, false);
                        said.extend(answered(&entry));
                    }
                    "attachment" => said.extend(attached(&entry)),
                    _ if entry["subtype"] == "compact_boundary" => {
                        said.push(RecordLine::Compacted(Vec::new()))
                    }
                    _ => {}
                }
                said
            }
            _ => Vec::new(),
        }
    }

    fn gap(&mut self) {
        (self.row, self.is_midway) = (None, true);
    }
}

impl ClaudeFormat {
    fn user(&mut self, entry: &Value, said: &mut Vec<RecordLine>) {
        let content = &entry["message"]["content"];
        let mut texts = Vec::new();
        collect(content, None, &mut texts);
        let mut blocks = content.as_array().into_iter().flatten();
        let is_result = entry["sourceToolAssistantUUID"].is_string()
            || blocks.any(|block| block["type"] == "tool_result");
        let is_note = entry["isMeta"] == true && entry["origin"].is_null();
        let is_interruption = texts.iter().any(|text| text.text.starts_with(INTERRUPTED));
        if !is_result && !is_note && !is_interruption && entry["isCompactSummary"] != true {
            said.push(RecordLine::Prompt {
                after: entry["parentUuid"].as_str().map(str::to_owned),
            });
        }
        said.extend(self.row(content, &texts));
        let by = if is_result { Some(Carrier::ToolResult) } else { carrier_of(&entry["origin"]) };
        // The model's own summary may repeat text that it was shown.
        if !texts.is_empty() && entry["isCompactSummary"] != true {
            said.push(RecordLine::Shown { by, texts });
        }
    }

    /// Adds an entry to the row, and returns the row's message.
    fn row(&mut self, content: &Value, texts: &[Text]) -> Option<RecordLine> {
        if self.is_midway {
            return None;
        }
        let row = self.row.get_or_insert_with(|| UserRow {
            digest: Sha256::new_with_prefix("{\"content\":["),
            name: None,
        });
        let text;
        let blocks = match content {
            Value::Array(blocks) => blocks.as_slice(),
            Value::String(_) => {
                text = [serde_json::json!({ "type": "text", "text": content })];
                &text
            }
            _ => return None,
        };
        let mut is_first = row.name.is_none();
        for block in blocks {
            let mut canonical = String::from(if is_first { "" } else { "," });
            write_canonical(block, &mut canonical);
            row.digest.update(canonical);
            is_first = false;
        }
        let name = hex(row.digest.clone().chain_update("],\"role\":\"user\"}"));
        let extends = row.name.replace(name.clone());
        Some(RecordLine::Message { name, extends, texts: texts.to_vec() })
    }
}

/// Parses an attachment. Its text for the model is in `rendered`; an attachment without it is for
/// the person, or a note.
fn attached(entry: &Value) -> Option<RecordLine> {
    let mut texts = Vec::new();
    for rendered in entry["rendered"].as_array()? {
        collect(&rendered["content"], None, &mut texts);
    }
    let attachment = &entry["attachment"];
    let is_hooks = attachment["type"].as_str().is_some_and(|kind| kind.starts_with("hook_"));
    let by = if is_hooks { Some(Carrier::Hook) } else { carrier_of(&attachment["origin"]) };
    (!texts.is_empty()).then_some(RecordLine::Shown { by, texts })
}

/// Parses a request: the messages that it consists of.
fn request(entry: &Value) -> Option<RecordLine> {
    let base =
        entry["base"].as_str().map(|base| (base.to_owned(), entry["keep"].as_u64().unwrap_or(0)));
    let base = base.map(|(base, keep)| (base, usize::try_from(keep).unwrap_or(usize::MAX)));
    let tail = entry["tail"]
        .as_array()?
        .iter()
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect();
    Some(RecordLine::Request { name: entry["id"].as_str()?.to_owned(), base, tail })
}

/// Parses a message of requests. The model was not shown its own text.
fn message(entry: &Value) -> Option<RecordLine> {
    let message = &entry["message"];
    let mut texts = Vec::new();
    if message["role"] != "assistant" {
        collect(&message["content"], None, &mut texts);
    }
    Some(RecordLine::Message { name: entry["hash"].as_str()?.to_owned(), extends: None, texts })
}

/// Returns the carrier of a message that the client had queued.
fn carrier_of(origin: &Value) -> Option<Carrier> {
    match origin["kind"].as_str()? {
        "peer" => Some(Carrier::InboxSocket),
        "channel" => Some(Carrier::Channel),
        _ => None,
    }
}

/// Parses an answer of the model, and not one that the client made up after a failed request.
fn answered(entry: &Value) -> Option<RecordLine> {
    let message = &entry["message"];
    if entry["isApiErrorMessage"] == true || message["model"] == "<synthetic>" {
        return None;
    }
    let request = match (entry["requestRef"].as_str(), &entry["requestHookChanged"]) {
        (Some(request), _) => Basis::Request(request.to_owned()),
        (None, Value::Null) => Basis::Untold,
        // The person's own hook changed the request before it left.
        (None, _) => Basis::Changed,
    };
    let name = message["id"].as_str()?.to_owned();
    Some(RecordLine::Answered { name, request, is_sure: true })
}

/// Collects the texts of a message's content: a string, or blocks. A tool's result contains blocks
/// again.
fn collect(content: &Value, call: Option<&str>, texts: &mut Vec<Text>) {
    let text = |text: &str| Text { call: call.map(str::to_owned), text: text.to_owned() };
    match content {
        Value::String(string) => texts.push(text(string)),
        Value::Array(blocks) => {
            for block in blocks {
                match block["type"].as_str() {
                    Some("text") => texts.extend(block["text"].as_str().map(text)),
                    Some("tool_result") => {
                        collect(&block["content"], block["tool_use_id"].as_str(), texts)
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// Writes the JSON whose digest Claude Code takes: keys in order, no blanks, and nothing about
/// caches.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                out.push_str(if place > 0 { "," } else { "" });
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> =
                fields.iter().filter(|(key, _)| *key != "cache_control").collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (place, (key, field)) in fields.into_iter().enumerate() {
                out.push_str(if place > 0 { "," } else { "" });
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(field, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the line's content except the entry's name, and the message that it makes.
    fn read(line: &str) -> Vec<RecordLine> {
        let mut said = ClaudeFormat::default().read(line);
        said.retain(|line| !matches!(line, RecordLine::Entry(_) | RecordLine::Message { .. }));
        said
    }

    fn shown(by: Carrier, text: &str) -> Vec<RecordLine> {
        vec![shown_by(by, None, text)]
    }

    fn shown_by(by: Carrier, call: Option<&str>, text: &str) -> RecordLine {
        let text = Text { call: call.map(str::to_owned), text: text.to_owned() };
        RecordLine::Shown { by: Some(by), texts: vec![text] }
    }

    fn begins(after: &str) -> RecordLine {
        RecordLine::Prompt { after: Some(after.to_owned()) }
    }

    // The lines are from 2.1.332, shortened.

    #[test]
    fn the_model_is_shown_tool_results_prompts_and_what_is_rendered_of_attachments() {
        let result = r#"{"parentUuid":"c4","isSidechain":false,"promptId":"70","type":"user","message":{"role":"user","content":[{"tool_use_id":"toolu_0020","type":"tool_result","content":[{"type":"text","text":"sent\n[m-1 request]"}]}]},"uuid":"8b","toolUseResult":[{"type":"text","text":"sent"}],"sourceToolAssistantUUID":"c4"}"#;
        assert_eq!(
            read(result),
            [shown_by(Carrier::ToolResult, Some("toolu_0020"), "sent\n[m-1 request]")]
        );
        let woken = r#"{"parentUuid":"5","isSidechain":false,"type":"user","message":{"role":"user","content":"Another Claude session sent a message:\n[m-1 request]"},"isMeta":true,"origin":{"kind":"peer","from":"unknown","verifiedPeerPid":14798},"turnOrigin":"peer"}"#;
        let post = shown_by(
            Carrier::InboxSocket,
            None,
            "Another Claude session sent a message:\n[m-1 request]",
        );
        assert_eq!(read(woken), [begins("5"), post]);
        let queued = r#"{"parentUuid":"37","isSidechain":false,"attachment":{"type":"queued_command","prompt":"[m-1 request]","commandMode":"prompt","origin":{"kind":"peer"},"isMeta":true},"type":"attachment","rendered":[{"content":"<system-reminder>\nAnother Claude session sent a message while you were working:\n[m-1 request]\n</system-reminder>"}],"renderedRole":"system"}"#;
        assert_eq!(
            read(queued),
            shown(
                Carrier::InboxSocket,
                "<system-reminder>\nAnother Claude session sent a message while you were working:\n[m-1 request]\n</system-reminder>"
            )
        );
        let hook = r#"{"parentUuid":"8","isSidechain":false,"attachment":{"type":"hook_additional_context","hookName":"PostToolBatch","content":["[m-1 request]"],"hookEvent":"PostToolBatch"},"type":"attachment","rendered":[{"content":"<system-reminder>\nPostToolBatch hook additional context: [m-1 request]\n</system-reminder>"}]}"#;
        assert_eq!(
            read(hook),
            shown(
                Carrier::Hook,
                "<system-reminder>\nPostToolBatch hook additional context: [m-1 request]\n</system-reminder>"
            )
        );
    }

    #[test]
    fn what_is_queued_noted_or_a_subagents_is_not_shown() {
        let notes = [
            r#"{"type":"queue-operation","operation":"enqueue","sessionId":"d7","content":"[m-1 request] for the user"}"#,
            r#"{"parentUuid":"8","isSidechain":false,"attachment":{"type":"hook_success","hookName":"Stop","content":"","stdout":"{\"additionalContext\":\"[m-1 request]\"}"},"type":"attachment"}"#,
            r#"{"parentUuid":"8","type":"system","subtype":"stop_hook_summary","isSidechain":false,"content":"\"user\" [m-1 request]"}"#,
            r#"{"parentUuid":"8","isSidechain":true,"type":"user","message":{"role":"user","content":"[m-1 request]"}}"#,
            r#"{"parentUuid":"8","isSidechain":true,"type":"assistant","message":{"id":"msg_1","role":"assistant","content":[]}}"#,
            r#"{"parentUuid":"8","type":"user","message":"#,
            "\"parentUuid\"",
        ];
        for line in notes {
            assert_eq!(read(line), [], "{line}");
        }
    }

    #[test]
    fn an_answer_is_known_by_the_name_that_its_parts_share() {
        let part = |content: &str| {
            format!(
                r#"{{"parentUuid":"6","isSidechain":false,"message":{{"id":"msg_001","type":"message","role":"assistant","model":"claude-opus-5-5","content":[{content}]}},"requestId":"req_001","type":"assistant","uuid":"7"}}"#
            )
        };
        let answer =
            |request| RecordLine::Answered { name: "msg_001".into(), request, is_sure: true };
        for content in [
            r#"{"type":"text","text":"calling"}"#,
            r#"{"type":"tool_use","id":"toolu_1","name":"x","input":{}}"#,
        ] {
            assert_eq!(read(&part(content)), [answer(Basis::Untold)]);
        }
        let told = part("").replace("\"requestId\"", "\"requestRef\":\"r1\",\"requestId\"");
        assert_eq!(read(&told), [answer(Basis::Request("r1".into()))]);
        let changed = told.replace(
            "\"requestRef\":\"r1\"",
            r#""requestHookChanged":{"record":"r1","what":["body"]}"#,
        );
        assert_eq!(read(&changed), [answer(Basis::Changed)]);
        let failed = r#"{"parentUuid":"6","isSidechain":false,"message":{"id":"a1","role":"assistant","model":"<synthetic>","content":[{"type":"text","text":"API Error"}]},"isApiErrorMessage":true,"type":"assistant"}"#;
        assert_eq!(read(failed), []);
    }

    #[test]
    fn a_prompt_begins_a_turn_and_results_notes_and_interruptions_do_not() {
        let user = |fields: &str, content: &str| {
            read(&format!(
                r#"{{"parentUuid":"8","type":"user","message":{{"role":"user","content":{content}}},"uuid":"9"{fields}}}"#
            ))
        };
        let is_prompt = |said: Vec<RecordLine>| said.contains(&begins("8"));
        assert!(
            is_prompt(user("", r#""go""#))
                && is_prompt(user(r#","isMeta":true,"origin":{"kind":"peer"}"#, r#""go""#))
        );
        assert!(!is_prompt(user("", r#"[{"type":"tool_result","tool_use_id":"t","content":""}]"#)));
        assert!(!is_prompt(user(r#","isMeta":true"#, r#""a skill""#)));
        assert!(!is_prompt(user(
            "",
            r#"[{"type":"text","text":"[Request interrupted by user for tool use]"}]"#
        )));
        let summary = user(r#","isCompactSummary":true"#, r#""[m-1 request]""#);
        assert_eq!(summary, [], "the model wrote it");
        let compacted =
            r#"{"parentUuid":null,"type":"system","subtype":"compact_boundary","uuid":"9"}"#;
        assert_eq!(read(compacted), [RecordLine::Compacted(Vec::new())]);
    }

    #[test]
    fn a_request_is_made_of_messages_by_their_digests() {
        let request = r#"{"type":"api-request","id":"r2","querySource":"repl_main_thread","base":"r1","keep":2,"tail":["a","b"]}"#;
        let expected = RecordLine::Request {
            name: "r2".into(),
            base: Some(("r1".into(), 2)),
            tail: vec!["a".into(), "b".into()],
        };
        assert_eq!(read(request), [expected]);
        let blob = r#"{"type":"api-request-blob","hash":"a","message":{"role":"system","content":[{"type":"text","text":"[m-1 request]"}]}}"#;
        let texts = vec![Text { call: None, text: "[m-1 request]".into() }];
        assert_eq!(
            ClaudeFormat::default().read(blob),
            [RecordLine::Message { name: "a".into(), extends: None, texts }]
        );
        let own = ClaudeFormat::default().read(&blob.replace("system", "assistant"));
        assert_eq!(
            own,
            [RecordLine::Message { name: "a".into(), extends: None, texts: Vec::new() }]
        );
    }

    /// The digest is one that 2.1.332 wrote: of `{"content":[{"text":"the other
    /// thing","type":"text"}],"role":"user"}`.
    #[test]
    fn entries_in_a_row_make_one_message_by_the_digest_that_the_client_takes() {
        let entry = |text: &str| {
            format!(
                r#"{{"parentUuid":"8","type":"user","message":{{"role":"user","content":"{text}"}},"uuid":"9"}}"#
            )
        };
        let names = |claude: &mut ClaudeFormat, line: &str| {
            claude.read(line).into_iter().find_map(|line| match line {
                RecordLine::Message { name, extends, .. } => Some((name, extends)),
                _ => None,
            })
        };
        let mut claude = ClaudeFormat::default();
        let first = names(&mut claude, &entry("the other thing"));
        let expected = "f4b322d533a66893cf9598e0f3c67fa72b251f6f41f6cb4233aab4f908f60b62";
        assert_eq!(first, Some((expected.to_owned(), None)));
        let second = names(&mut claude, &entry("and more"));
        assert!(second.is_some_and(
            |(name, extends)| name != expected && extends.as_deref() == Some(expected)
        ));
        claude.gap();
        assert_eq!(
            names(&mut claude, &entry("the rest of a row")),
            None,
            "nobody knows how it began"
        );
        let answer = r#"{"parentUuid":"8","type":"assistant","message":{"id":"m","role":"assistant","content":[]}}"#;
        assert_eq!(names(&mut claude, answer), None);
        assert_eq!(
            names(&mut claude, &entry("the other thing")),
            Some((expected.to_owned(), None))
        );
    }
}
