//! Claude Code's `notifications/claude/channel`: a message on its own, while the model works or when it is idle.
//!
//! The client confirms nothing, and drops the notification silently where the session has no such channel: writing one is
//! an offer and never evidence. Invariants: the broker is told of an offer before its bytes are queued, and nothing is
//! offered to a client that has not read what it was sent before.

use peer_proto::message::{Carrier, Message};
use peer_proto::request::Request;
use serde_json::json;

use crate::render::{rfc3339, word};
use crate::session::Session;

/// Offers what may go through the channel now.
pub(crate) fn offer(session: &Session) {
    let Some(connection) = session.connected() else { return };
    // One notification at a time: the next goes when this one has left.
    while session.outgoing.is_drained() {
        let mut state = session.state();
        // A call that waits shows what comes meanwhile; the client would hold a notification back until that call's end.
        if !state.channel_open || state.waits > 0 || session.is_closing() {
            return;
        }
        let Some((message, content)) = state.inbox.next_for_channel(&session.surroundings.home) else { return };
        drop(state);
        drop(connection.submit(Request::Offered { messages: vec![message.id], carrier: Carrier::Channel, last: false }));
        session.outgoing.push(&notification(&message, &content));
    }
}

fn notification(message: &Message, content: &str) -> Vec<u8> {
    let notification = json!({
        "jsonrpc": "2.0",
        "method": "notifications/claude/channel",
        "params": {
            "content": content.trim_end_matches('\n'),
            "meta": {
                "message_id": message.id.to_string(),
                "from_id": message.from.peer.to_string(),
                "from_name": word(&message.from.name),
                "from_client": word(&message.from.client),
                "intent": message.intent.as_str(),
                "thread": word(&message.thread),
                "sent_at": rfc3339(message.sent_at),
            },
        },
    });
    let mut line = notification.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use crate::render::tests::request;

    use super::*;

    #[test]
    fn a_notification_is_one_line_with_strings_under_plain_keys() {
        let line = notification(&request(1, "lu\nna", "x"), "[m-1 request] from luna\n| x\n| y\n");
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["params"]["content"], "[m-1 request] from luna\n| x\n| y");
        let meta = value["params"]["meta"].as_object().unwrap();
        assert_eq!(meta["message_id"], "m-0000000000000001");
        assert_eq!(meta["from_name"], "lu na");
        assert_eq!(meta["sent_at"], "2026-11-18T11:06:40.000Z");
        for (key, value) in meta {
            assert!(value.is_string() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{key}");
        }
        assert_eq!(meta.len(), 7);
    }
}
