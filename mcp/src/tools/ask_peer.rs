//! `ask_peer`: a request that its first answer closes.

use peer_proto::question::Ask;
use peer_proto::request::{Reply, Request, Sent};

use super::arguments::{Argument, Arguments, number, text};
use super::send_message::{deliveries, fresh_key, is_on_its_way, wait_for_reply};
use super::{Profile, Tool, ToolCall, ToolError, ToolOutput};
use crate::render::word;

pub(crate) struct AskPeer {
    ask: Ask,
    wait_s: u64,
}

impl Tool for AskPeer {
    const NAME: &'static str = "ask_peer";
    const DESCRIPTION: &'static str = "Asks a question; the first answer closes it. Without to, it goes to the agents in your repository or directory.";
    const PROFILE: Profile = Profile::Full;
    const NEEDED: usize = 1;

    fn arguments() -> Vec<Argument> {
        vec![
            text("question", "one question"),
            text("to", "names, #channel or @group"),
            text("context_hint", "where to look, or why you ask"),
            number("wait_s", 0, "seconds to wait"),
        ]
    }

    fn parse(given: &mut Arguments) -> Result<Self, ToolError> {
        let ask = Ask {
            to: given.list("to")?,
            question: given.needed("question")?,
            context_hint: given.text("context_hint")?,
            ttl_ms: None,
            idempotency_key: Some(fresh_key()),
        };
        Ok(Self { ask, wait_s: given.number("wait_s")?.unwrap_or(0) })
    }

    async fn run(self, call: &ToolCall<'_>) -> Result<ToolOutput, ToolError> {
        // The git repository is known once the session has begun.
        call.session.ready().await?;
        let Reply::Sent(sent) = call.session.request(Request::Ask(self.ask)).await? else {
            return Err(ToolError::OtherReply);
        };
        let mut output = ToolOutput { text: asked(&sent), ..ToolOutput::default() };
        output.failed = !sent.deliveries.is_empty()
            && sent.deliveries.iter().all(|delivery| delivery.refusal.is_some());
        if output.failed {
            return Ok(output);
        }
        if self.wait_s > 0 && sent.deliveries.iter().any(is_on_its_way) {
            wait_for_reply(call, sent.message, self.wait_s, &mut output).await?;
        } else {
            output.text.push_str("Continue your work: the answer comes by itself, or a notice that there will be none.\n");
        }
        Ok(output)
    }
}

fn asked(sent: &Sent) -> String {
    let to = match sent.deliveries.is_empty() {
        true => "- no other members yet: it stays open for those who join\n".to_owned(),
        false => deliveries(sent),
    };
    format!("Question {} is open, thread {}.\n{to}", sent.message, word(&sent.thread))
}
