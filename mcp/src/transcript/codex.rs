//! Codex's record ("rollout"), one JSON object per line:
//! `<config>/sessions/<date>/rollout-<time>-<thread>.jsonl`.
//!
//! Observed with 0.171.0. The model's input and output are in `response_item` lines. The items of
//! one answer are consecutive, and a `token_usage_record` ends them. The calls of one answer have
//! no common name, and they run one after the other. So this file names an answer by counting the
//! lines that end one. `event_msg` lines repeat much of it for the person, tool results included,
//! and are not evidence. A subagent has a record of its own.
//!
//! A model's summary has the same form as an answer, and only the following `compacted` line shows
//! the difference. That line has the text of the new conversation. If the person goes back to an
//! earlier prompt, the thread continues in another file.
//!
//! Knows the format of a line. Does not know which messages are searched for, nor what is evidence.

use peer_proto::message::Carrier;
use serde_json::Value;

use super::{Basis, RecordFormat, RecordLine, Text};

/// Lines that end an answer, or show that none is under way.
const BOUNDARIES: [&str; 4] = ["task_started", "task_complete", "turn_aborted", ROLLED_BACK];

/// The line by which Codex reports that it dropped the latest turns.
const ROLLED_BACK: &str = "thread_rolled_back";

/// Items that only a model makes, beside its own messages, and that a model does not make in a
/// summary.
const ACTS: [&str; 6] = [
    "function_call",
    "custom_tool_call",
    "local_shell_call",
    "web_search_call",
    "tool_search_call",
    "image_generation_call",
];

/// The beginning and the end of a Stop hook's text for the model. The text between them is escaped
/// for XML.
const HOOK_PROMPT: (&str, &str) = ("<hook_prompt", "</hook_prompt>");

/// How Codex writes its record.
#[derive(Debug, Default)]
pub(crate) struct CodexFormat {
    /// Answers that have ended.
    ended: u64,
}

impl RecordFormat for CodexFormat {
    fn read(&mut self, line: &str) -> Vec<RecordLine> {
        // Most lines are long and irrelevant: those that cannot matter are not parsed. Within a
        // text these words would be between escaped quotation marks.
        let says = |word: &str| line.contains(&format!("\"{word}\""));
        let may_matter = ["response_item", "token_usage_record", "compacted"]
            .into_iter()
            .chain(BOUNDARIES)
            .any(says);
        let entry: Option<Value> = may_matter.then(|| serde_json::from_str(line).ok()).flatten();
        let Some(entry) = entry else { return Vec::new() };
        let payload = &entry["payload"];
        match (entry["type"].as_str(), payload["type"].as_str()) {
            (Some("response_item"), _) => self.item(payload).into_iter().collect(),
            (Some("compacted"), _) => {
                let items = payload["replacement_history"].as_array().into_iter().flatten();
                vec![RecordLine::Compacted(
                    items.filter_map(shown).flat_map(|(_, texts)| texts).collect(),
                )]
            }
            (Some("token_usage_record"), _) => {
                self.ended += 1;
                Vec::new()
            }
            (Some("event_msg"), Some(event)) if BOUNDARIES.contains(&event) => {
                self.ended += 1;
                match event {
                    "task_complete" => vec![RecordLine::WentOn],
                    "turn_aborted" => vec![RecordLine::Aborted],
                    // The line does not show which turns are gone.
                    ROLLED_BACK => vec![RecordLine::Compacted(Vec::new())],
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    fn gap(&mut self) {}
}

impl CodexFormat {
    fn item(&self, item: &Value) -> Option<RecordLine> {
        let kind = item["type"].as_str()?;
        let is_said = kind == "reasoning" || (kind == "message" && item["role"] == "assistant");
        if is_said || ACTS.contains(&kind) {
            let name = self.ended.to_string();
            return Some(RecordLine::Answered { name, request: Basis::Untold, is_sure: !is_said });
        }
        let (by, texts) = shown(item)?;
        Some(RecordLine::Shown { by, texts })
    }
}

/// Returns the texts that an item shows to the model, and the carrier.
fn shown(item: &Value) -> Option<(Option<Carrier>, Vec<Text>)> {
    let (by, texts) = match item["type"].as_str()? {
        "message" if item["role"] != "assistant" => {
            let texts = texts(&item["content"], None);
            let is_prompt = texts.iter().any(|text| text.text.starts_with(HOOK_PROMPT.0));
            let by_hook = item["role"] == "developer" || is_prompt;
            (by_hook.then_some(Carrier::Hook), texts.into_iter().map(hook_prompt).collect())
        }
        "function_call_output" | "custom_tool_call_output" => {
            // Text that a client adds to a turn is recorded as the output of a call that no model
            // made.
            let call = item["call_id"].as_str();
            let by = if call.is_some() { Carrier::ToolResult } else { Carrier::AppServer };
            (Some(by), texts(&item["output"], call))
        }
        _ => return None,
    };
    (!texts.is_empty()).then_some((by, texts))
}

/// Returns the texts of a content: one, or several parts.
fn texts(content: &Value, call: Option<&str>) -> Vec<Text> {
    let text = |text: String| Text { call: call.map(str::to_owned), text };
    match content {
        Value::String(string) => vec![text(string.clone())],
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).map(unwrapped).map(text).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns a text, or the text in it if a program of the model's printed the whole result of a tool
/// as JSON.
fn unwrapped(text: &str) -> String {
    let result: Option<Value> =
        text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
    let parts =
        result.as_ref().and_then(|result| result["content"].as_array()).into_iter().flatten();
    let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    if texts.is_empty() { text.to_owned() } else { texts.join("\n") }
}

/// Returns a Stop hook's text without Codex's element around it; other texts unchanged. Each hook's
/// text has its own element, and cannot end one, because it is escaped.
fn hook_prompt(Text { call, text }: Text) -> Text {
    let mut said = String::new();
    let mut rest = text.as_str();
    while let Some(element) = rest.strip_prefix(HOOK_PROMPT.0) {
        let Some((inner, after)) =
            element.split_once('>').and_then(|(_, inner)| inner.split_once(HOOK_PROMPT.1))
        else {
            break;
        };
        said.push_str(&unescaped(inner));
        said.push('\n');
        rest = after.trim_start();
    }
    said.push_str(rest);
    Text { call, text: said }
}

/// Resolves XML's escapes. Other text stays unchanged.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.find('&').map(|place| rest.split_at(place)) {
        plain.push_str(before);
        let named = from.find(';').map(|end| (&from[1..end], &from[end + 1..]));
        let code = |name: &str| match name.strip_prefix("#x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => name.strip_prefix('#')?.parse().ok(),
        };
        let found = named.and_then(|(name, after)| {
            let known = [("lt", '<'), ("gt", '>'), ("amp", '&'), ("quot", '"'), ("apos", '\'')];
            let letter =
                known.into_iter().find(|(known, _)| *known == name).map(|(_, letter)| letter);
            letter.or_else(|| code(name).and_then(char::from_u32)).map(|letter| (letter, after))
        });
        let (letter, after) = found.unwrap_or(('&', &from[1..]));
        plain.push(letter);
        rest = after;
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(call: Option<&str>, text: &str) -> Text {
        Text { call: call.map(str::to_owned), text: text.to_owned() }
    }

    fn by(carrier: Carrier, call: Option<&str>, shown: &str) -> Vec<RecordLine> {
        vec![RecordLine::Shown { by: Some(carrier), texts: vec![text(call, shown)] }]
    }

    fn name(said: &[RecordLine]) -> &str {
        let [RecordLine::Answered { name, .. }] = said else { panic!("no answer: {said:?}") };
        name
    }

    // The lines are from 0.171.0, shortened.
    const CALL: &str = r#"{"timestamp":"T","type":"response_item","payload":{"type":"function_call","status":"completed","id":"fc_a","name":"list_peers","namespace":"mcp__peers","arguments":"{}","call_id":"call_a"}}"#;
    const RESULT: &str = r#"{"timestamp":"T","type":"response_item","payload":{"type":"function_call_output","id":"fco_1","call_id":"call_a","output":[{"type":"input_text","text":"[m-1 request]"}]}}"#;
    const USAGE: &str = r#"{"timestamp":"T","type":"token_usage_record","payload":{"thread_id":"01","response_id":"resp_1"}}"#;

    #[test]
    fn what_the_model_is_shown_tells_the_carrier() {
        let mut codex = CodexFormat::default();
        assert_eq!(codex.read(RESULT), by(Carrier::ToolResult, Some("call_a"), "[m-1 request]"));
        let shell = r#"{"type":"response_item","payload":{"type":"function_call_output","call_id":"c","output":"Output:\nhi\n"}}"#;
        assert_eq!(codex.read(shell), by(Carrier::ToolResult, Some("c"), "Output:\nhi\n"));
        let program = r#"{"type":"response_item","payload":{"type":"custom_tool_call_output","call_id":"c","output":[{"type":"input_text","text":"Script completed\n"},{"type":"input_text","text":"{\"content\":[{\"type\":\"text\",\"text\":\"[m-1 request]\\n| a\"}],\"isError\":false}"}]}}"#;
        let texts =
            vec![text(Some("c"), "Script completed\n"), text(Some("c"), "[m-1 request]\n| a")];
        assert_eq!(
            codex.read(program),
            [RecordLine::Shown { by: Some(Carrier::ToolResult), texts }]
        );
        let steered = r#"{"type":"response_item","payload":{"type":"function_call_output","id":"fco_2","name":"peers","namespace":"agent","output":"[PEER INBOX] 1 message.\n[m-1 request]"}}"#;
        assert_eq!(
            codex.read(steered),
            by(Carrier::AppServer, None, "[PEER INBOX] 1 message.\n[m-1 request]")
        );
        let hook = r#"{"type":"response_item","payload":{"type":"message","role":"developer","content":[{"type":"input_text","text":"[m-1 request]"}]}}"#;
        assert_eq!(codex.read(hook), by(Carrier::Hook, None, "[m-1 request]"));
        let person = r#"{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"go"}]}}"#;
        assert_eq!(
            codex.read(person),
            [RecordLine::Shown { by: None, texts: vec![text(None, "go")] }]
        );
    }

    /// Written by 0.171.0 for a body of `</hook_prompt> <b>&amp; "quoted"` and another hook's
    /// output behind it.
    #[test]
    fn what_a_stop_hook_said_is_read_without_codexs_own_frame_and_escapes() {
        let stop = r#"{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"<hook_prompt hook_run_id=\"stop:4:/c\">[m-1 request] from x\n| &lt;/hook_prompt&gt; &lt;b&gt;&amp;amp; \"quoted\" &#39; &#x27; &no; & &;\n| last</hook_prompt>"},{"type":"input_text","text":"<hook_prompt hook_run_id=\"stop:5:/c\">another one's</hook_prompt>"}]}}"#;
        let expected =
            "[m-1 request] from x\n| </hook_prompt> <b>&amp; \"quoted\" ' ' &no; & &;\n| last\n";
        let texts = vec![text(None, expected), text(None, "another one's\n")];
        assert_eq!(
            CodexFormat::default().read(stop),
            [RecordLine::Shown { by: Some(Carrier::Hook), texts }]
        );
    }

    #[test]
    fn two_calls_of_one_answer_have_one_name_and_those_of_the_next_another() {
        let mut codex = CodexFormat::default();
        let first = codex.read(CALL);
        assert_eq!(first, codex.read(CALL));
        assert_eq!((codex.read(USAGE), codex.read(RESULT).len()), (vec![], 1));
        let second = codex.read(CALL);
        assert_ne!(name(&second), name(&first));
        // An interrupted turn has no usage record of its last answer.
        let aborted =
            r#"{"type":"event_msg","payload":{"type":"turn_aborted","reason":"interrupted"}}"#;
        assert_eq!(codex.read(aborted), [RecordLine::Aborted]);
        let spoken = r#"{"type":"response_item","payload":{"type":"message","role":"assistant","content":[{"type":"output_text","text":"ok"}]}}"#;
        let third = codex.read(spoken);
        assert_ne!(name(&third), name(&second));
        assert!(
            matches!(third[..], [RecordLine::Answered { is_sure: false, .. }]),
            "it may be a summary"
        );
    }

    #[test]
    fn a_compaction_tells_what_the_conversation_goes_on_with() {
        let compacted = r#"{"type":"compacted","payload":{"message":"[m-1 request]","replacement_history":[{"type":"message","role":"user","content":[{"type":"input_text","text":"[m-2 request]"}]},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"[m-3 request]"}]}]}}"#;
        assert_eq!(
            CodexFormat::default().read(compacted),
            [RecordLine::Compacted(vec![text(None, "[m-2 request]")])]
        );
        let remote = r#"{"type":"compacted","payload":{"message":"[m-1 request]"}}"#;
        assert_eq!(CodexFormat::default().read(remote), [RecordLine::Compacted(Vec::new())]);
        let rolled_back =
            r#"{"type":"event_msg","payload":{"type":"thread_rolled_back","num_turns":1}}"#;
        assert_eq!(CodexFormat::default().read(rolled_back), [RecordLine::Compacted(Vec::new())]);
    }

    #[test]
    fn what_the_person_is_shown_is_no_evidence() {
        let mut codex = CodexFormat::default();
        let notes = [
            r#"{"type":"event_msg","payload":{"type":"item_completed","item":{"type":"McpToolCall","result":{"content":[{"type":"text","text":"[m-1 request] \"response_item\""}]}}}}"#,
            r#"{"type":"event_msg","payload":{"type":"token_count","info":{}}}"#,
            r#"{"type":"session_meta","payload":{"id":"01","base_instructions":{"text":"[m-1 request]"}}}"#,
            r#"{"type":"response_item","payload":{"type":"ghost_snapshot"}}"#,
            r#"{"type":"response_item","payload":"#,
            "\"response_item\"",
        ];
        for line in notes {
            assert_eq!(codex.read(line), [], "{line}");
        }
        assert_eq!(codex.ended, 0);
    }
}
