//! Codex's control socket: puts mail into a running turn, or begins a turn for it.
//!
//! Knows the requests for turns and threads. Does not know which mail is due. The mail goes as
//! context that is marked untrusted, which the model gets verbatim as the output of a tool. Codex
//! needs a line from the user with it: a notice that names the senders. The invariants:
//!
//! - Only this adapter's own thread gets mail.
//! - A turn is begun only if no turn runs and a message may wake the session. A terminal must have
//!   the thread open, unless the person allowed otherwise.
//! - If the client declines mail, such as during a review or a compaction, no model was shown it,
//!   and it goes by another carrier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{Leave, PushCarrier, PushError};
use crate::codex::{Control, ControlError};
use crate::inbox::Post;
use crate::render::counted;
use crate::session::Session;
use crate::ways::Ways;

/// The name of the tool whose output the mail is for the model.
const CONTEXT: &str = "peers";

pub(crate) struct AppServer;

impl PushCarrier for AppServer {
    fn see(session: &Session, ways: &mut Ways) {
        let state = session.state();
        ways.app_server = state.codex.way_in().is_some();
        ways.attended = state.codex.is_attended();
    }

    async fn push(session: &Arc<Session>, post: &Post, leave: Leave<'_>) -> Result<(), PushError> {
        let Some((control, thread)) = session.state().codex.way_in() else {
            return Err(PushError::Gone);
        };
        let turn = running_turn(&control, &thread).await?;
        session.see_ways();
        leave.now(Some(turn.is_some()))?;
        let mut params = params(&thread, post);
        let method = match turn {
            Some(turn) => {
                params["expectedTurnId"] = turn.into();
                "turn/steer"
            }
            None => "turn/start",
        };
        taken(control.ask(method, params).await)
    }
}

/// Returns the running turn of the thread; `None`: no turn runs.
async fn running_turn(control: &Control, thread: &str) -> Result<Option<String>, PushError> {
    let read = control.ask("thread/read", json!({ "threadId": thread })).await?;
    if read["thread"]["status"]["type"] != "active" {
        return Ok(None);
    }
    let newest = json!({ "threadId": thread, "limit": 1, "sortDirection": "desc" });
    let turns = control.ask("thread/turns/list", newest).await?;
    let turn = &turns["data"][0];
    if turn["status"] != "inProgress" {
        // Between two turns: the next event shows which.
        return Err(PushError::NotNow);
    }
    Ok(turn["id"].as_str().map(str::to_owned))
}

fn params(thread: &str, post: &Post) -> Value {
    json!({
        "threadId": thread,
        "input": [{ "type": "text", "text": notice(post) }],
        "additionalContext": { fresh_key(): { "kind": "untrusted", "name": CONTEXT, "value": post.text.trim_end_matches('\n') } },
    })
}

/// Returns a key that no push had. Codex shows the text of a key only when it changes, and a repeat
/// may be equal.
fn fresh_key() -> String {
    static PUSHES: AtomicU64 = AtomicU64::new(0);
    format!("{CONTEXT}-{}-{}", std::process::id(), PUSHES.fetch_add(1, Ordering::Relaxed))
}

/// Returns the line in place of the user's text. The names are checked by the broker, so they
/// cannot contain instructions.
fn notice(post: &Post) -> String {
    let mut senders: Vec<String> = Vec::new();
    for message in &post.messages {
        let sender = crate::render::word(&message.from.name);
        if !senders.contains(&sender) {
            senders.push(sender);
        }
    }
    format!(
        "[peerd, not your user] {} from {}, quoted in the output of \"{CONTEXT}\" just above",
        counted(post.messages.len(), "message"),
        senders.join(", ")
    )
}

/// Translates the client's answer.
fn taken(answer: Result<Value, ControlError>) -> Result<(), PushError> {
    match answer {
        Ok(_) => Ok(()),
        // The turn ended meanwhile, or takes no input.
        Err(ControlError::Refused { .. }) => Err(PushError::NotNow),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::samples::request;

    use super::*;

    #[test]
    fn the_mail_is_untrusted_context_and_the_line_says_whose_it_is() {
        let messages =
            vec![request(1, "lu\nna", "x"), request(2, "sol", "y"), request(3, "sol", "z")];
        let post = Post { messages, text: "[PEER INBOX] 3 messages.\n| x\n".into() };
        let params = params("01a", &post);
        assert_eq!(params["threadId"], "01a");
        let contexts = params["additionalContext"].as_object().unwrap();
        let (key, context) = contexts.iter().next().unwrap();
        assert_eq!(contexts.len(), 1);
        assert_eq!(
            *context,
            json!({ "kind": "untrusted", "name": "peers", "value": "[PEER INBOX] 3 messages.\n| x" })
        );
        assert_ne!(*key, fresh_key());
        let line = params["input"][0]["text"].as_str().unwrap();
        assert_eq!(
            line,
            "[peerd, not your user] 3 messages from lu na, sol, quoted in the output of \"peers\" just above"
        );
    }
}
