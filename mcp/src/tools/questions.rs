//! The open questions to this session.

use peer_proto::question::{QuestionInfo, QuestionsQuery};
use peer_proto::request::{Reply, Request};

use super::{ToolCall, ToolError};
use crate::render::{ago, word};

/// The number of questions that one answer names.
const NAMED_MAX: usize = 20;

/// Returns the questions that wait for an answer of this session.
pub(super) async fn open_to_us(call: &ToolCall<'_>) -> Result<Vec<QuestionInfo>, ToolError> {
    let query = QuestionsQuery { open: true, ..QuestionsQuery::default() };
    let Reply::Questions { mut questions, .. } =
        call.session.request(Request::Questions(query)).await?
    else {
        return Err(ToolError::OtherReply);
    };
    let own = call.session.state().core.identity().map(|identity| identity.name.clone());
    questions.retain(|question| Some(&question.from) != own.as_ref());
    Ok(questions)
}

/// Renders the open questions that a text does not show, one line each.
pub(super) fn still_open(questions: &[QuestionInfo], text: &str) -> String {
    let shown = |question: &&QuestionInfo| text.contains(&format!("[{} ", question.question));
    let earlier: Vec<&QuestionInfo> =
        questions.iter().filter(|question| !shown(question)).collect();
    if earlier.is_empty() {
        return String::new();
    }
    let mut text = "Still open; check_messages(message_id=…) shows one again:\n".to_owned();
    for question in earlier.iter().take(NAMED_MAX) {
        let to: Vec<String> =
            question.to.iter().filter(|to| to.starts_with(['#', '@'])).map(|to| word(to)).collect();
        let to = if to.is_empty() { String::new() } else { format!(" to {}", to.join(", ")) };
        text.push_str(&format!(
            "- {} from {}{to}, asked {}\n",
            question.question,
            word(&question.from),
            ago(question.asked_at)
        ));
    }
    if earlier.len() > NAMED_MAX {
        text.push_str(&format!("{} more\n", earlier.len() - NAMED_MAX));
    }
    text
}
