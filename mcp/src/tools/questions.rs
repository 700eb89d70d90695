//! `ask_peer` and `answer_question`: requests that their first answer closes.

use peer_proto::question::{Answer, Ask, QuestionInfo, QuestionsQuery};
use peer_proto::request::{Reply, Request, Sent};

use super::arguments::{ArgumentError, Arguments};
use super::send_message::{deliveries, fresh_key, is_on_its_way, wait_for_reply};
use super::{Output, ToolCall, ToolError};
use crate::render::{ago, word};

/// Questions that one answer names.
const NAMED_MAX: usize = 20;

/// The checked arguments of `ask_peer`.
pub(crate) struct AskPeer {
    ask: Ask,
    wait_s: u64,
}

impl AskPeer {
    pub(crate) fn parse(given: &mut Arguments) -> Result<Self, ArgumentError> {
        let ask = Ask {
            to: given.list("to")?,
            question: given.needed("question")?,
            context_hint: given.text("context_hint")?,
            ttl_ms: None,
            idempotency_key: Some(fresh_key()),
        };
        Ok(Self { ask, wait_s: given.number("wait_s")?.unwrap_or(0) })
    }

    pub(crate) async fn run(self, call: &ToolCall<'_>) -> Result<Output, ToolError> {
        // Where we are in git is known once the session has begun.
        call.session.ready().await?;
        let Reply::Sent(sent) = call.session.request(Request::Ask(self.ask)).await? else {
            return Err(ToolError::OtherReply);
        };
        let mut output = Output { text: asked(&sent), ..Output::default() };
        output.failed = !sent.deliveries.is_empty() && sent.deliveries.iter().all(|delivery| delivery.refusal.is_some());
        if output.failed {
            return Ok(output);
        }
        if self.wait_s > 0 && sent.deliveries.iter().any(is_on_its_way) {
            wait_for_reply(call, sent.message, self.wait_s, &mut output).await?;
        } else {
            output.text.push_str("Go on with your work: the answer comes by itself, and so does news that there will be none.\n");
        }
        Ok(output)
    }
}

fn asked(sent: &Sent) -> String {
    let to = match sent.deliveries.is_empty() {
        true => "- nobody else is a member yet: it stays open for whoever comes\n".to_owned(),
        false => deliveries(sent),
    };
    format!("Question {} is open, thread {}.\n{to}", sent.message, word(&sent.thread))
}

/// The checked arguments of `answer_question`.
pub(crate) struct AnswerQuestion {
    answer: Answer,
}

impl AnswerQuestion {
    pub(crate) fn parse(given: &mut Arguments) -> Result<Self, ArgumentError> {
        let Some(question) = given.parsed("question_id", "an id such as m-01JDK3V7QX8Z2M4T")? else {
            return Err(given.missing("question_id"));
        };
        let answer = Answer {
            question,
            answer: given.needed("answer")?,
            sources: given.list("sources")?,
            idempotency_key: Some(fresh_key()),
        };
        Ok(Self { answer })
    }

    pub(crate) async fn run(self, call: &ToolCall<'_>) -> Result<Output, ToolError> {
        let (question, unsourced) = (self.answer.question, self.answer.sources.is_empty());
        let Reply::Sent(sent) = call.session.request(Request::Answer(self.answer)).await? else {
            return Err(ToolError::OtherReply);
        };
        // The broker settled it with the answer.
        call.session.settled(&[question]);
        let mut output = Output { text: deliveries(&sent), ..Output::default() };
        output.failed = sent.deliveries.iter().all(|delivery| delivery.refusal.is_some());
        if !output.failed {
            let memory = if unsourced { ", as from memory: you named no sources" } else { "" };
            output.text.insert_str(0, &format!("Question {question} is answered with {}{memory}.\n", sent.message));
        }
        Ok(output)
    }
}

/// The questions that wait for an answer of this session.
pub(super) async fn open_to_us(call: &ToolCall<'_>) -> Result<Vec<QuestionInfo>, ToolError> {
    let query = QuestionsQuery { open: true, ..QuestionsQuery::default() };
    let Reply::Questions { mut questions, .. } = call.session.request(Request::Questions(query)).await? else {
        return Err(ToolError::OtherReply);
    };
    let own = call.session.state().core.identity().map(|identity| identity.name.clone());
    questions.retain(|question| Some(&question.from) != own.as_ref());
    Ok(questions)
}

/// Open questions that a text does not show, one line each.
pub(super) fn still_open(questions: &[QuestionInfo], text: &str) -> String {
    let shown = |question: &&QuestionInfo| text.contains(&format!("[{} ", question.question));
    let earlier: Vec<&QuestionInfo> = questions.iter().filter(|question| !shown(question)).collect();
    if earlier.is_empty() {
        return String::new();
    }
    let mut text = "Still open; check_messages(message_id=…) shows one again:\n".to_owned();
    for question in earlier.iter().take(NAMED_MAX) {
        let to: Vec<String> = question.to.iter().filter(|to| to.starts_with(['#', '@'])).map(|to| word(to)).collect();
        let to = if to.is_empty() { String::new() } else { format!(" to {}", to.join(", ")) };
        text.push_str(&format!("- {} from {}{to}, asked {}\n", question.question, word(&question.from), ago(question.asked_at)));
    }
    if earlier.len() > NAMED_MAX {
        text.push_str(&format!("{} more\n", earlier.len() - NAMED_MAX));
    }
    text
}
