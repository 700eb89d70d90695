//! `rename_peer`: changes the name of this session.

use peer_proto::request::{Reply, Request};

use super::arguments::{Argument, Arguments, text};
use super::{Profile, Tool, ToolCall, ToolError, ToolOutput};
use crate::render::word;
use crate::session::renamed;

pub(crate) struct RenamePeer(String);

impl Tool for RenamePeer {
    const NAME: &'static str = "rename_peer";
    const DESCRIPTION: &'static str = "Changes your name among the agents.";
    const PROFILE: Profile = Profile::Core;
    const NEEDED: usize = 1;

    fn arguments() -> Vec<Argument> {
        vec![text("new_name", "1 to 32 of A-Z a-z 0-9 _ -")]
    }

    fn parse(given: &mut Arguments) -> Result<Self, ToolError> {
        Ok(Self(given.needed("new_name")?))
    }

    async fn run(self, call: &ToolCall<'_>) -> Result<ToolOutput, ToolError> {
        match call
            .session
            .request(Request::Rename { peer: None, new_name: self.0.trim().to_owned() })
            .await?
        {
            Reply::Renamed { name, .. } => {
                call.session.wait_for_pushes().await;
                call.session.drop_notice(&renamed(&name));
                let text = format!(
                    "Your name is now {}. Mail under the old name still finds you.",
                    word(&name)
                );
                call.session.named(name);
                Ok(ToolOutput::text(text))
            }
            _ => Err(ToolError::OtherReply),
        }
    }
}
