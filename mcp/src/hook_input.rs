//! Reads a client's hook input into the few fields that matter.
//!
//! A hook's standard input has the fields as JSON, and an `mcp_tool` hook has them as the arguments
//! of its tool. In the latter each value is a text, and a field that the event lacks is empty.
//! Pure.
//!
//! Knows the clients' names of fields and events. Does not know what a hook proves.

use peer_proto::hook::{HookCall, Mode};
use peer_proto::limits::{NAME_CHARS_MAX, PATH_BYTES_MAX, SEAT_KEY_BYTES_MAX};
use peer_proto::request::{Seat, SeatKind};
use serde_json::Value;

use crate::directory::spelled;
use crate::stdio::fix_surrogates;

/// Reads a hook's standard input. The client may have cut a tool's result within a character; the
/// hook is used all the same.
#[must_use]
pub fn hook_call_in(client: &str, event: Option<&str>, mut input: Vec<u8>) -> Option<HookCall> {
    fix_surrogates(&mut input);
    let text = String::from_utf8_lossy(&input);
    hook_call(client, event, &serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?)
}

/// Reads the input of one hook; `None`: it names no session or no known event, so the hook is not
/// ours.
///
/// `client` is `claude`, `codex` or another client that uses the same JSON; `event` overrides the
/// event in the input.
pub(crate) fn hook_call(client: &str, event: Option<&str>, input: &Value) -> Option<HookCall> {
    let text = |field: &str, bytes_max: usize| {
        let value = input.get(field)?.as_str()?.trim();
        (!value.is_empty() && value.len() <= bytes_max).then(|| value.to_owned())
    };
    let name = event.map(str::to_owned).or_else(|| text("hook_event_name", NAME_CHARS_MAX))?;
    let event = name.parse().ok()?;
    let kind = match client {
        "claude" => SeatKind::Claude,
        "codex" => SeatKind::Codex,
        _ => SeatKind::Other,
    };
    let is_true = |field: &str| match input.get(field) {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(value)) => value == "true",
        _ => false,
    };
    Some(HookCall {
        event,
        seat: Seat { kind, key: text("session_id", SEAT_KEY_BYTES_MAX)? },
        cwd: text("cwd", usize::MAX).map_or_else(String::new, |cwd| spelled(cwd.as_ref())),
        transcript: text("transcript_path", PATH_BYTES_MAX),
        mode: text("permission_mode", NAME_CHARS_MAX).and_then(|mode| mode_named(&mode)),
        agent: text("agent_id", SEAT_KEY_BYTES_MAX),
        turn: text("prompt_id", SEAT_KEY_BYTES_MAX).or_else(|| text("turn_id", SEAT_KEY_BYTES_MAX)),
        tool_use: text("tool_use_id", SEAT_KEY_BYTES_MAX),
        source: text("source", NAME_CHARS_MAX).or_else(|| text("reason", NAME_CHARS_MAX)),
        name: None,
        prolonged: is_true("stop_hook_active"),
    })
}

/// Returns the mode for the client's own name of it.
fn mode_named(name: &str) -> Option<Mode> {
    match name {
        "plan" => Some(Mode::Plan),
        // An act that is not allowed is denied without a question.
        "default" | "dontAsk" => Some(Mode::Prompting),
        // A program judges each act before it is done.
        "acceptEdits" | "auto" => Some(Mode::AcceptEdits),
        "bypassPermissions" => Some(Mode::Bypass),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use peer_proto::hook::HookEvent;
    use serde_json::json;

    use super::*;

    #[test]
    fn standard_input_and_arguments_say_the_same() {
        let input = json!({
            "session_id": "s-1", "transcript_path": "/t.jsonl", "cwd": "/api", "permission_mode": "bypassPermissions",
            "hook_event_name": "Stop", "prompt_id": "u-1", "stop_hook_active": true, "last_assistant_message": "done",
        });
        let arguments = json!({
            "session_id": "s-1", "transcript_path": "/t.jsonl", "cwd": "/api", "permission_mode": "bypassPermissions",
            "hook_event_name": "Stop", "prompt_id": "u-1", "stop_hook_active": "true", "agent_id": "", "tool_use_id": "",
        });
        let call = hook_call("claude", None, &input).unwrap();
        assert_eq!(Some(&call), hook_call("claude", Some("stop"), &arguments).as_ref());
        assert_eq!(
            (call.event, call.mode, call.prolonged, call.agent),
            (HookEvent::Stop, Some(Mode::Bypass), true, None)
        );
        assert_eq!(call.seat, Seat { kind: SeatKind::Claude, key: "s-1".into() });
    }

    #[test]
    fn a_result_that_was_cut_within_a_character_hides_no_hook() {
        let expected = hook_call_in(
            "claude",
            None,
            br#"{"session_id": "s-1", "hook_event_name": "Stop"}"#.to_vec(),
        );
        assert!(expected.is_some());
        for input in [
            &br#"{"session_id": "s-1", "hook_event_name": "Stop", "tool_response": "cut \ud83d"}"#[..],
            b"{\"session_id\": \"s-1\", \"hook_event_name\": \"Stop\", \"tool_response\": \"\xff\xfe\"}",
            b"\xef\xbb\xbf{\"session_id\": \"s-1\", \"hook_event_name\": \"Stop\"}",
        ] {
            assert_eq!(hook_call_in("claude", None, input.to_vec()), expected, "{}", String::from_utf8_lossy(input));
        }
        assert_eq!(hook_call_in("claude", None, b"{".to_vec()), None);
    }

    #[test]
    fn what_is_not_understood_is_nobodys_hook() {
        for input in [
            json!(null),
            json!([]),
            json!({}),
            json!({ "hook_event_name": "Stop" }),
            json!({ "session_id": "s" }),
        ] {
            assert_eq!(hook_call("codex", None, &input), None, "{input}");
        }
        let strange = json!({ "session_id": "s", "hook_event_name": "MessageDisplay" });
        assert_eq!(hook_call("claude", None, &strange), None);
        let wrong = json!({ "session_id": "s", "hook_event_name": "Stop", "cwd": 7, "permission_mode": "yolo", "agent_id": {} });
        let call = hook_call("claude", None, &wrong).unwrap();
        assert_eq!((call.cwd.as_str(), call.mode, call.agent), ("", None, None));
        let long =
            json!({ "session_id": "x".repeat(SEAT_KEY_BYTES_MAX + 1), "hook_event_name": "Stop" });
        assert_eq!(hook_call("claude", None, &long), None);
    }
}
