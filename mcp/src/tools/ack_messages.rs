//! `ack_messages`: acknowledges messages that need no reply.

use peer_proto::ids::MessageId;
use peer_proto::limits::MESSAGES_PER_REQUEST_MAX;
use peer_proto::request::{Reply, Request};

use super::arguments::{Argument, Arguments, text};
use super::{Profile, Tool, ToolCall, ToolError, ToolOutput};
use crate::render::counted;

#[derive(Debug)]
pub(crate) struct AckMessages(Vec<MessageId>);

impl Tool for AckMessages {
    const NAME: &'static str = "ack_messages";
    const DESCRIPTION: &'static str = "Marks messages as dealt with, if they need no reply.";
    const PROFILE: Profile = Profile::Core;
    const NEEDED: usize = 1;
    const ALWAYS_LOADED: bool = true;

    fn arguments() -> Vec<Argument> {
        vec![text("message_ids", "ids separated by commas")]
    }

    fn parse(given: &mut Arguments) -> Result<Self, ToolError> {
        let texts = given.list("message_ids")?;
        if texts.is_empty() {
            return Err(given.missing("message_ids").into());
        }
        let id =
            |text: String| text.parse().map_err(|reason| ToolError::NoMessageId { text, reason });
        Ok(Self(texts.into_iter().map(id).collect::<Result<_, _>>()?))
    }

    async fn run(self, call: &ToolCall<'_>) -> Result<ToolOutput, ToolError> {
        let (mut done, mut strangers) = (Vec::new(), Vec::new());
        for some in self.0.chunks(MESSAGES_PER_REQUEST_MAX) {
            let Reply::Acked { acked, unknown } =
                call.session.request(Request::Ack { messages: some.to_vec() }).await?
            else {
                return Err(ToolError::OtherReply);
            };
            call.session.settled(&acked);
            done.extend(acked);
            strangers.extend(unknown);
        }
        call.session.offer();
        let mut text = format!("{} acknowledged.", counted(done.len(), "message"));
        if !strangers.is_empty() {
            let names: Vec<String> = strangers.iter().map(MessageId::to_string).collect();
            text.push_str(&format!(
                " Not messages to you: {}; check_messages() shows waiting messages.",
                names.join(", ")
            ));
        }
        Ok(ToolOutput { text, failed: done.is_empty(), ..ToolOutput::default() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::read;
    use super::*;

    #[test]
    fn ids_that_are_none_are_named() {
        let parse = |text: &str| {
            read::<AckMessages>(json!({ "message_ids": text }).as_object().unwrap().clone())
        };
        let error = parse("m-0000000000000001, nonsense").unwrap_err().to_string();
        assert!(
            error.contains("\"nonsense\" is not a message id")
                && error.contains("m-01JDK3V7QX8Z2M4T"),
            "{error}"
        );
        assert!(parse(" , ").unwrap_err().to_string().contains("needs the argument message_ids"));
        assert_eq!(parse("m-0000000000000001,m-0000000000000002").unwrap().0.len(), 2);
    }
}
