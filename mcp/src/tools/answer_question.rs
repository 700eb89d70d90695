//! `answer_question`: the answer that closes a question, with its sources.

use peer_proto::question::Answer;
use peer_proto::request::{Reply, Request};

use super::arguments::{Argument, Arguments, text};
use super::send_message::{deliveries, fresh_key};
use super::{Profile, Tool, ToolCall, ToolError, ToolOutput};

pub(crate) struct AnswerQuestion {
    answer: Answer,
}

impl Tool for AnswerQuestion {
    const NAME: &'static str = "answer_question";
    const DESCRIPTION: &'static str = "Answers an open question. Name your sources; an answer without sources is marked as from memory.";
    const PROFILE: Profile = Profile::Full;
    const NEEDED: usize = 2;

    fn arguments() -> Vec<Argument> {
        vec![
            text("question_id", "m-…"),
            text("answer", "at most 60 KiB"),
            text("sources", "files, lines, commands or pages, separated by commas"),
        ]
    }

    fn parse(given: &mut Arguments) -> Result<Self, ToolError> {
        let Some(question) = given.parsed("question_id", "an id such as m-01JDK3V7QX8Z2M4T")?
        else {
            return Err(given.missing("question_id").into());
        };
        let answer = Answer {
            question,
            answer: given.needed("answer")?,
            sources: given.list("sources")?,
            idempotency_key: Some(fresh_key()),
        };
        Ok(Self { answer })
    }

    async fn run(self, call: &ToolCall<'_>) -> Result<ToolOutput, ToolError> {
        let (question, unsourced) = (self.answer.question, self.answer.sources.is_empty());
        let Reply::Sent(sent) = call.session.request(Request::Answer(self.answer)).await? else {
            return Err(ToolError::OtherReply);
        };
        // The broker settled it with the answer.
        call.session.settled(&[question]);
        let mut output = ToolOutput { text: deliveries(&sent), ..ToolOutput::default() };
        output.failed = sent.deliveries.iter().all(|delivery| delivery.refusal.is_some());
        if !output.failed {
            let memory =
                if unsourced { ", marked as from memory: you named no sources" } else { "" };
            output.text.insert_str(
                0,
                &format!("Question {question} is answered with {}{memory}.\n", sent.message),
            );
        }
        Ok(output)
    }
}
