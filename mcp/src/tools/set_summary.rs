//! `set_summary`: sets the activity of this session that other peers see.

use peer_proto::request::{Reply, Request};

use super::arguments::{Argument, Arguments, text};
use super::{Profile, Tool, ToolCall, ToolError, ToolOutput};

/// The checked arguments; an omitted one leaves its value unchanged.
pub(crate) struct SetSummary {
    summary: Option<String>,
    state: Option<String>,
    task: Option<String>,
}

impl Tool for SetSummary {
    const NAME: &'static str = "set_summary";
    const DESCRIPTION: &'static str =
        "Tells the other agents what you are doing. Omitted fields stay as they are.";
    const PROFILE: Profile = Profile::Core;
    const NEEDED: usize = 0;

    fn arguments() -> Vec<Argument> {
        vec![
            text("summary", "what you are doing, one sentence"),
            text("state", "working, idle, blocked, away or a few words"),
            text("task", "your current task"),
        ]
    }

    fn parse(given: &mut Arguments) -> Result<Self, ToolError> {
        let (summary, state, task) = (
            given.text_or_empty("summary")?,
            given.text_or_empty("state")?,
            given.text_or_empty("task")?,
        );
        if summary.is_none() && state.is_none() && task.is_none() {
            return Err(ToolError::NothingToSet);
        }
        Ok(Self { summary, state, task })
    }

    async fn run(self, call: &ToolCall<'_>) -> Result<ToolOutput, ToolError> {
        let Self { summary, state, task } = self;
        if summary.is_some() {
            call.session.state().first_summary.said();
        }
        match call.session.request(Request::Describe { summary, state, task }).await? {
            Reply::Done => Ok(ToolOutput::text("The other agents see it now.")),
            _ => Err(ToolError::OtherReply),
        }
    }
}
