//! Claude Code's `notifications/claude/channel`: one message each, while the model works or is
//! idle.
//!
//! Knows when the client can show a notification. Does not know which mail is due. The client
//! confirms nothing, and silently drops the notification if its session has no such channel. So a
//! notification is an offer and never evidence. Invariants: the broker is told of an offer before
//! its bytes are queued. A client that has not read all earlier output gets no offer.
//! offered to a client that has not read what it was sent before.

use std::sync::{Arc, OnceLock};

use peer_proto::message::Message;
use serde_json::json;

use super::{Leave, PushCarrier, PushError};
use crate::inbox::Post;
use crate::render::{rfc3339, word};
use crate::session::Session;
use crate::ways::Ways;

/// The options that name a channel on Claude Code's command line.
const FLAGS: [&str; 2] = ["--channels", "--dangerously-load-development-channels"];

pub(crate) struct Channel;

impl PushCarrier for Channel {
    fn see(session: &Session, ways: &mut Ways) {
        let loaded = loaded(session);
        // The client reported that it is ready, may show a notification, and has read the one
        // before.
        ways.channel =
            session.state().channel_open && session.outgoing.is_drained() && loaded != Loaded::No;
        ways.channel_loaded = loaded == Loaded::Yes;
    }

    async fn push(session: &Arc<Session>, post: &Post, leave: Leave<'_>) -> Result<(), PushError> {
        let [message] = post.messages.as_slice() else { return Err(PushError::Gone) };
        leave.now(None)?;
        session.outgoing.push(&notification(message, &post.text));
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loaded {
    Yes,
    No,
    /// The client must not be asked, or is not Claude Code itself.
    Unknown,
}

/// Whether the client's command line names our channel. It does not change while the client runs.
fn loaded(session: &Session) -> Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    *LOADED.get_or_init(|| {
        let command = std::fs::read(format!("/proc/{}/cmdline", session.environment.client_pid))
            .unwrap_or_default();
        let words: Vec<String> = command
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        judged(&words)
    })
}

fn judged(command: &[String]) -> Loaded {
    let is_claude = command.iter().take(2).any(|word| word.rsplit('/').next() == Some("claude"));
    // Values follow their flag until the next one; ours end in the server's name, or are the
    // plugin's.
    let mut in_flag = false;
    let named = command.iter().any(|word| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if word.starts_with("--") {
            in_flag = FLAGS.contains(&name);
        }
        in_flag && (is_ours(value) || (!word.starts_with("--") && is_ours(word)))
    });
    match (is_claude, named) {
        (_, true) => Loaded::Yes,
        (true, false) => Loaded::No,
        (false, false) => Loaded::Unknown,
    }
}

fn is_ours(entry: &str) -> bool {
    entry == "server:peers" || entry.starts_with("plugin:peers@")
}

fn notification(message: &Message, content: &str) -> Vec<u8> {
    let mut notification = json!({
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
    if let Some(channel) = &message.channel {
        notification["params"]["meta"]["channel"] = json!(word(channel));
    }
    let mut line = notification.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use crate::samples::request;

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
            assert!(
                value.is_string()
                    && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{key}"
            );
        }
        assert_eq!(meta.len(), 7);
        let mut post = request(1, "luna", "x");
        post.channel = Some("#ops".into());
        let line = notification(&post, "x");
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["params"]["meta"]["channel"], "#ops");
    }

    #[test]
    fn the_command_line_tells_whether_the_channel_was_loaded() {
        let judged =
            |command: &str| judged(&command.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(judged("claude --resume"), Loaded::No);
        assert_eq!(judged("/opt/bin/claude -p go"), Loaded::No);
        assert_eq!(
            judged("claude --dangerously-load-development-channels server:other"),
            Loaded::No
        );
        assert_eq!(
            judged("claude --dangerously-load-development-channels server:other server:peers"),
            Loaded::Yes
        );
        assert_eq!(judged("node /opt/claude --channels=plugin:peers@skills-dir"), Loaded::Yes);
        assert_eq!(judged("claude --channels plugin:other@x --model server:peers"), Loaded::No);
        assert_eq!(judged("python3 suite.py"), Loaded::Unknown);
    }
}
