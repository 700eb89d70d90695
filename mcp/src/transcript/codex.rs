//! Codex's record ("rollout"): `<config>/sessions/<date>/rollout-<time>-<thread>.jsonl`, one JSON object per line.
//!
//! Observed with 0.171.0. What a model is shown and what it says stand in `response_item` lines; the items of one answer
//! come one after the other, and a `token_usage_record` closes them. The calls of one answer carry no common name, and they
//! run one after the other: an answer is named here by counting what ends one. `event_msg` lines repeat much of it for the
//! person's eyes, tool results included, and prove nothing. A subagent has a record of its own.

use peer_proto::message::Carrier;
use serde_json::Value;

use super::{Dialect, Line};

/// What ends an answer, or makes sure that none is under way.
const BOUNDARIES: [&str; 3] = ["task_started", "task_complete", "turn_aborted"];

/// What only a model makes, beside messages of its own.
const ANSWERS: [&str; 7] = [
    "function_call",
    "custom_tool_call",
    "local_shell_call",
    "web_search_call",
    "tool_search_call",
    "image_generation_call",
    "reasoning",
];

/// How Codex writes the prompt that a Stop hook makes.
const STOP_HOOK: &str = "<hook_prompt";

/// How Codex writes its record.
#[derive(Debug, Default)]
pub(crate) struct Codex {
    /// Answers that have ended.
    ended: u64,
}

impl Dialect for Codex {
    fn read(&mut self, line: &str) -> Option<Line> {
        // Most lines are long and none of ours: those that cannot matter are not parsed. Within a text these words would
        // stand between escaped quotation marks.
        let is_boundary = line.contains("\"token_usage_record\"")
            || BOUNDARIES.iter().any(|boundary| line.contains(&format!("\"{boundary}\"")));
        if !is_boundary && !line.contains("\"response_item\"") {
            return None;
        }
        let entry: Value = serde_json::from_str(line).ok()?;
        let payload = &entry["payload"];
        match entry["type"].as_str()? {
            "token_usage_record" => self.ended += 1,
            "event_msg" if BOUNDARIES.iter().any(|boundary| payload["type"] == *boundary) => self.ended += 1,
            "response_item" => return self.item(payload),
            _ => {}
        }
        None
    }
}

impl Codex {
    fn item(&self, item: &Value) -> Option<Line> {
        let answered = || Some(Line::Answered(self.ended.to_string()));
        match item["type"].as_str()? {
            "message" if item["role"] == "assistant" => answered(),
            "message" => {
                let texts = texts(&item["content"]);
                let by_hook = item["role"] == "developer" || texts.iter().any(|text| text.starts_with(STOP_HOOK));
                shown(by_hook.then_some(Carrier::Hook), texts)
            }
            "function_call_output" | "custom_tool_call_output" => {
                // What a client adds to a turn is written as the output of a call that nobody made.
                let by = if item["call_id"].is_string() { Carrier::ToolResult } else { Carrier::AppServer };
                shown(Some(by), texts(&item["output"]))
            }
            kind if ANSWERS.contains(&kind) => answered(),
            _ => None,
        }
    }
}

fn shown(by: Option<Carrier>, texts: Vec<String>) -> Option<Line> {
    (!texts.is_empty()).then_some(Line::Shown { by, texts })
}

/// The texts of a content: one, or several parts.
fn texts(content: &Value) -> Vec<String> {
    match content {
        Value::String(text) => vec![text.clone()],
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).map(unwrapped).collect(),
        _ => Vec::new(),
    }
}

/// A text, or what is in it where a program of the model's printed the whole result of a tool, which is JSON then.
fn unwrapped(text: &str) -> String {
    let result: Option<Value> = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
    let parts = result.as_ref().and_then(|result| result["content"].as_array()).into_iter().flatten();
    let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    if texts.is_empty() { text.to_owned() } else { texts.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(carrier: Carrier, text: &str) -> Option<Line> {
        Some(Line::Shown { by: Some(carrier), texts: vec![text.to_owned()] })
    }

    // The lines are 0.171.0's, shortened.
    const CALL: &str = r#"{"timestamp":"T","type":"response_item","payload":{"type":"function_call","status":"completed","id":"fc_a","name":"list_peers","namespace":"mcp__peers","arguments":"{}","call_id":"call_a"}}"#;
    const RESULT: &str = r#"{"timestamp":"T","type":"response_item","payload":{"type":"function_call_output","id":"fco_1","call_id":"call_a","output":[{"type":"input_text","text":"[m-1 request]"}]}}"#;
    const USAGE: &str = r#"{"timestamp":"T","type":"token_usage_record","payload":{"thread_id":"01","response_id":"resp_1"}}"#;

    #[test]
    fn what_the_model_is_shown_tells_the_carrier() {
        let mut codex = Codex::default();
        assert_eq!(codex.read(RESULT), by(Carrier::ToolResult, "[m-1 request]"));
        let shell =
            r#"{"type":"response_item","payload":{"type":"function_call_output","call_id":"c","output":"Output:\nhi\n"}}"#;
        assert_eq!(codex.read(shell), by(Carrier::ToolResult, "Output:\nhi\n"));
        let program = r#"{"type":"response_item","payload":{"type":"custom_tool_call_output","call_id":"c","output":[{"type":"input_text","text":"Script completed\n"},{"type":"input_text","text":"{\"content\":[{\"type\":\"text\",\"text\":\"[m-1 request]\\n| a\"}],\"isError\":false}"}]}}"#;
        let texts = vec!["Script completed\n".to_owned(), "[m-1 request]\n| a".to_owned()];
        assert_eq!(codex.read(program), Some(Line::Shown { by: Some(Carrier::ToolResult), texts }));
        let steered = r#"{"type":"response_item","payload":{"type":"function_call_output","id":"fco_2","name":"peers","namespace":"agent","output":"[PEER INBOX] 1 message.\n[m-1 request]"}}"#;
        assert_eq!(codex.read(steered), by(Carrier::AppServer, "[PEER INBOX] 1 message.\n[m-1 request]"));
        let hook = r#"{"type":"response_item","payload":{"type":"message","role":"developer","content":[{"type":"input_text","text":"[m-1 request]"}]}}"#;
        assert_eq!(codex.read(hook), by(Carrier::Hook, "[m-1 request]"));
        let stop = r#"{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"<hook_prompt hook_run_id=\"x\">[m-1 request]</hook_prompt>"}]}}"#;
        assert_eq!(codex.read(stop), by(Carrier::Hook, "<hook_prompt hook_run_id=\"x\">[m-1 request]</hook_prompt>"));
        let person = r#"{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"go"}]}}"#;
        assert_eq!(codex.read(person), Some(Line::Shown { by: None, texts: vec!["go".into()] }));
    }

    #[test]
    fn two_calls_of_one_answer_have_one_name_and_those_of_the_next_another() {
        let mut codex = Codex::default();
        let first = codex.read(CALL);
        assert!(first.is_some() && first == codex.read(CALL));
        assert_eq!((codex.read(USAGE), codex.read(RESULT).is_some()), (None, true));
        let second = codex.read(CALL);
        assert!(second.is_some() && second != first);
        // A turn that was interrupted has no usage of its last answer.
        let aborted = r#"{"type":"event_msg","payload":{"type":"turn_aborted","reason":"interrupted"}}"#;
        assert_eq!(codex.read(aborted), None);
        let spoken = r#"{"type":"response_item","payload":{"type":"message","role":"assistant","content":[{"type":"output_text","text":"ok"}]}}"#;
        let third = codex.read(spoken);
        assert!(third.is_some() && third != second);
    }

    #[test]
    fn what_the_person_is_shown_is_no_evidence() {
        let mut codex = Codex::default();
        let notes = [
            r#"{"type":"event_msg","payload":{"type":"item_completed","item":{"type":"McpToolCall","result":{"content":[{"type":"text","text":"[m-1 request] \"response_item\""}]}}}}"#,
            r#"{"type":"event_msg","payload":{"type":"token_count","info":{}}}"#,
            r#"{"type":"session_meta","payload":{"id":"01","base_instructions":{"text":"[m-1 request]"}}}"#,
            r#"{"type":"compacted","payload":{"message":"[m-1 request]"}}"#,
            r#"{"type":"response_item","payload":{"type":"ghost_snapshot"}}"#,
            r#"{"type":"response_item","payload":"#,
            "\"response_item\"",
        ];
        for line in notes {
            assert_eq!(codex.read(line), None, "{line}");
        }
        assert_eq!(codex.ended, 0);
    }
}
