//! Claude Code's record: `<config>/projects/<directory>/<session>.jsonl`, one JSON object per line.
//!
//! Observed with 2.1.332. The conversation is made of `user`, `assistant`, `attachment` and `system` entries; all others
//! (`queue-operation` above all, which has every text that merely waits) are the client's own notes. Subagents have
//! records of their own; where an entry is marked as a side chain all the same, it is passed over.

use peer_proto::message::Carrier;
use serde_json::Value;

use super::{Dialect, Line};

/// How Claude Code writes its record.
#[derive(Debug)]
pub(crate) struct Claude;

impl Dialect for Claude {
    fn read(&mut self, line: &str) -> Option<Line> {
        // Most lines are long and none of ours: those that cannot matter are not parsed.
        let may_matter = ["\"assistant\"", "\"user\"", "\"attachment\""].iter().any(|word| line.contains(word));
        let entry: Value = may_matter.then(|| serde_json::from_str(line).ok()).flatten()?;
        if entry["isSidechain"] == true {
            return None;
        }
        match entry["type"].as_str()? {
            "assistant" => answered(&entry),
            "user" => {
                let mut texts = Vec::new();
                collect(&entry["message"]["content"], &mut texts);
                let by = if entry["sourceToolAssistantUUID"].is_string() {
                    Some(Carrier::ToolResult)
                } else {
                    carrier_of(&entry["origin"])
                };
                (!texts.is_empty()).then_some(Line::Shown { by, texts })
            }
            // What the model gets of an attachment stands in `rendered`; one without it is for the person, or a note.
            "attachment" => {
                let mut texts = Vec::new();
                for rendered in entry["rendered"].as_array()? {
                    collect(&rendered["content"], &mut texts);
                }
                let attachment = &entry["attachment"];
                let is_hooks = attachment["type"].as_str().is_some_and(|kind| kind.starts_with("hook_"));
                let by = if is_hooks { Some(Carrier::Hook) } else { carrier_of(&attachment["origin"]) };
                (!texts.is_empty()).then_some(Line::Shown { by, texts })
            }
            _ => None,
        }
    }
}

/// Which way a message came that the client had queued.
fn carrier_of(origin: &Value) -> Option<Carrier> {
    match origin["kind"].as_str()? {
        "peer" => Some(Carrier::InboxSocket),
        "channel" => Some(Carrier::Channel),
        _ => None,
    }
}

/// An answer of the model, and not one that the client made up where a request failed.
fn answered(entry: &Value) -> Option<Line> {
    let message = &entry["message"];
    if entry["isApiErrorMessage"] == true || message["model"] == "<synthetic>" {
        return None;
    }
    message["id"].as_str().map(|id| Line::Answered(id.to_owned()))
}

/// The texts of a message's content: a string, or blocks, of which a tool's result has blocks again.
fn collect(content: &Value, texts: &mut Vec<String>) {
    match content {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(blocks) => {
            for block in blocks {
                match block["type"].as_str() {
                    Some("text") => texts.extend(block["text"].as_str().map(str::to_owned)),
                    Some("tool_result") => collect(&block["content"], texts),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Line> {
        Claude.read(line)
    }

    fn shown(by: Carrier, text: &str) -> Option<Line> {
        Some(Line::Shown { by: Some(by), texts: vec![text.to_owned()] })
    }

    // The lines are 2.1.332's, shortened.

    #[test]
    fn the_model_is_shown_tool_results_prompts_and_what_is_rendered_of_attachments() {
        let result = r#"{"parentUuid":"c4","isSidechain":false,"promptId":"70","type":"user","message":{"role":"user","content":[{"tool_use_id":"toolu_0020","type":"tool_result","content":[{"type":"text","text":"sent\n[m-1 request]"}]}]},"uuid":"8b","toolUseResult":[{"type":"text","text":"sent"}],"sourceToolAssistantUUID":"c4"}"#;
        assert_eq!(read(result), shown(Carrier::ToolResult, "sent\n[m-1 request]"));
        let woken = r#"{"parentUuid":"5","isSidechain":false,"type":"user","message":{"role":"user","content":"Another Claude session sent a message:\n[m-1 request]"},"isMeta":true,"origin":{"kind":"peer","from":"unknown","verifiedPeerPid":14798},"turnOrigin":"peer"}"#;
        assert_eq!(read(woken), shown(Carrier::InboxSocket, "Another Claude session sent a message:\n[m-1 request]"));
        let queued = r#"{"parentUuid":"37","isSidechain":false,"attachment":{"type":"queued_command","prompt":"[m-1 request]","commandMode":"prompt","origin":{"kind":"peer"},"isMeta":true},"type":"attachment","rendered":[{"content":"<system-reminder>\nAnother Claude session sent a message while you were working:\n[m-1 request]\n</system-reminder>"}],"renderedRole":"system"}"#;
        assert_eq!(
            read(queued),
            shown(
                Carrier::InboxSocket,
                "<system-reminder>\nAnother Claude session sent a message while you were working:\n[m-1 request]\n</system-reminder>"
            )
        );
        let hook = r#"{"isSidechain":false,"attachment":{"type":"hook_additional_context","hookName":"PostToolBatch","content":["[m-1 request]"],"hookEvent":"PostToolBatch"},"type":"attachment","rendered":[{"content":"<system-reminder>\nPostToolBatch hook additional context: [m-1 request]\n</system-reminder>"}]}"#;
        assert_eq!(
            read(hook),
            shown(Carrier::Hook, "<system-reminder>\nPostToolBatch hook additional context: [m-1 request]\n</system-reminder>")
        );
    }

    #[test]
    fn what_is_queued_noted_or_a_subagents_is_not_shown() {
        let notes = [
            r#"{"type":"queue-operation","operation":"enqueue","sessionId":"d7","content":"[m-1 request] for the user"}"#,
            r#"{"type":"api-request-blob","content":[{"type":"text","text":"[m-1 request]"}],"role":"user"}"#,
            r#"{"isSidechain":false,"attachment":{"type":"hook_success","hookName":"Stop","content":"","stdout":"{\"additionalContext\":\"[m-1 request]\"}"},"type":"attachment"}"#,
            r#"{"type":"system","subtype":"stop_hook_summary","isSidechain":false,"content":"\"user\" [m-1 request]"}"#,
            r#"{"isSidechain":true,"type":"user","message":{"role":"user","content":"[m-1 request]"}}"#,
            r#"{"isSidechain":true,"type":"assistant","message":{"id":"msg_1","role":"assistant","content":[]}}"#,
            r#"{"type":"user","message":"#,
            "\"assistant\"",
        ];
        for line in notes {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn an_answer_is_known_by_the_name_that_its_parts_share() {
        let part = |content: &str| {
            format!(
                r#"{{"isSidechain":false,"message":{{"id":"msg_001","type":"message","role":"assistant","model":"claude-opus-5-5","content":[{content}]}},"requestId":"req_001","type":"assistant","uuid":"7"}}"#
            )
        };
        for content in [r#"{"type":"text","text":"calling"}"#, r#"{"type":"tool_use","id":"toolu_1","name":"x","input":{}}"#] {
            assert_eq!(read(&part(content)), Some(Line::Answered("msg_001".into())));
        }
        let failed = r#"{"isSidechain":false,"message":{"id":"a1","role":"assistant","model":"<synthetic>","content":[{"type":"text","text":"API Error"}]},"isApiErrorMessage":true,"type":"assistant"}"#;
        assert_eq!(read(failed), None);
    }
}
