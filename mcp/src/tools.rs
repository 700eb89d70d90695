//! The tools: one table with a row for each tool. A tool is one file with its name, description,
//! arguments and effect.
//!
//! A tool answers in plain text for a model. Knows the session and the inbox. Does not know the
//! client's protocol: [`crate::server`] makes the results, the errors and the block at the end.
//! Invariant: each tool checks its arguments before it acts.
//!
//! To add a tool, write a file with a type that implements [`Tool`], and add a line to [`TOOLS`].

mod ack_messages;
mod answer_question;
mod arguments;
mod ask_peer;
mod channels;
mod check_messages;
mod list_peers;
mod memory;
mod questions;
mod rename_peer;
mod search;
mod send_message;
mod set_summary;
mod tasks;
mod wait;

use std::pin::Pin;
use std::sync::Arc;

use peer_proto::ids::{IdError, MessageId};
use peer_proto::settings::Profile;
use rmcp::model::{self, JsonObject, MetaObject};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::json;
use thiserror::Error;

use crate::call::CallOrigin;
use crate::render::BLOCK_CHARS_MAX;
use crate::session::{CallError, Session};
use arguments::{Argument, ArgumentError, Arguments};

/// A tool: its description for a client, the parsing of a call, and its effect.
pub(crate) trait Tool: Send + Sized + 'static {
    const NAME: &'static str;
    /// Its description for a model.
    const DESCRIPTION: &'static str;
    /// The smallest profile that offers it.
    const PROFILE: Profile;
    /// How many of its arguments, from the first on, are required.
    const NEEDED: usize;
    /// Whether Claude Code has it in every request's list, and need not search for it first.
    const ALWAYS_LOADED: bool = false;
    /// Names of arguments that are accepted and not listed: one name for each is enough for a
    /// schema.
    const ALSO_TAKEN: &'static [&'static str] = &[];

    /// Returns the arguments that a client is told of.
    fn arguments() -> Vec<Argument>;

    /// Reads and checks a call's arguments, as far as possible without the broker.
    fn parse(given: &mut Arguments) -> Result<Self, ToolError>;

    fn run(self, call: &ToolCall<'_>)
    -> impl Future<Output = Result<ToolOutput, ToolError>> + Send;
}

/// A row of [`TOOLS`].
pub(crate) struct ToolRow {
    pub(crate) name: &'static str,
    profile: Profile,
    define: fn() -> model::Tool,
    parse: fn(JsonObject) -> Result<Box<dyn ParsedCall>, ToolError>,
}

/// All tools, in the order in which a client lists them.
pub(crate) static TOOLS: [ToolRow; 12] = [
    row::<list_peers::ListPeers>(),
    row::<send_message::SendMessage>(),
    row::<check_messages::CheckMessages>(),
    row::<ack_messages::AckMessages>(),
    row::<set_summary::SetSummary>(),
    row::<rename_peer::RenamePeer>(),
    row::<channels::ChannelArguments>(),
    row::<ask_peer::AskPeer>(),
    row::<answer_question::AnswerQuestion>(),
    row::<search::SearchArguments>(),
    row::<tasks::TaskArguments>(),
    row::<memory::MemoryArguments>(),
];

const fn row<T: Tool>() -> ToolRow {
    ToolRow { name: T::NAME, profile: T::PROFILE, define: define::<T>, parse: parse::<T> }
}

impl ToolRow {
    /// Returns the tool's description for the client.
    pub(crate) fn definition(&self) -> model::Tool {
        (self.define)()
    }

    pub(crate) fn parse(&self, values: JsonObject) -> Result<Box<dyn ParsedCall>, ToolError> {
        (self.parse)(values)
    }
}

fn define<T: Tool>() -> model::Tool {
    let arguments = T::arguments();
    let required: Vec<&str> = arguments.iter().take(T::NEEDED).map(|(name, _)| *name).collect();
    let mut schema = JsonObject::new();
    schema.insert("type".into(), json!("object"));
    schema.insert(
        "properties".into(),
        arguments.iter().map(|(name, schema)| (name.to_string(), schema.clone())).collect(),
    );
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    schema.insert("additionalProperties".into(), json!(false));
    let tool = model::Tool::new(T::NAME, T::DESCRIPTION, schema);
    if !T::ALWAYS_LOADED {
        return tool;
    }
    let mut meta = MetaObject::new();
    meta.0.insert("anthropic/alwaysLoad".into(), json!(true));
    tool.with_meta(meta)
}

fn parse<T: Tool>(values: JsonObject) -> Result<Box<dyn ParsedCall>, ToolError> {
    Ok(Box::new(read::<T>(values)?))
}

fn read<T: Tool>(values: JsonObject) -> Result<T, ToolError> {
    let arguments = T::arguments();
    let known: Vec<&str> =
        arguments.iter().map(|(name, _)| *name).chain(T::ALSO_TAKEN.iter().copied()).collect();
    T::parse(&mut Arguments::new(T::NAME, &known, values)?)
}

/// A call that was parsed: a [`Tool`] without its type.
pub(crate) trait ParsedCall: Send {
    fn act<'a>(self: Box<Self>, call: &'a ToolCall<'a>) -> Acting<'a>;
}

/// The future of a call.
pub(crate) type Acting<'a> =
    Pin<Box<dyn Future<Output = Result<ToolOutput, ToolError>> + Send + 'a>>;

impl<T: Tool> ParsedCall for T {
    fn act<'a>(self: Box<Self>, call: &'a ToolCall<'a>) -> Acting<'a> {
        Box::pin(self.run(call))
    }
}

/// One call of a tool.
pub(crate) struct ToolCall<'a> {
    pub(crate) session: &'a Arc<Session>,
    pub(crate) caller: &'a CallOrigin,
    /// The client's side of the call: cancellation and progress.
    pub(crate) context: &'a RequestContext<RoleServer>,
    /// The arrival number at the beginning of the call: later messages have this one or a higher
    /// one.
    pub(crate) since: u64,
}

/// The answer of a tool.
#[derive(Default)]
pub(crate) struct ToolOutput {
    /// Whole sentences; may have several lines.
    pub(crate) text: String,
    /// Whether the call failed, although parts of it may have been done.
    pub(crate) failed: bool,
    /// The mail after the text.
    pub(crate) mail: Mail,
    /// Dropped once the mail is in the result, so that the channel does not take it first.
    pub(crate) waited: Option<wait::WaitGuard>,
}

/// The session's mail after a tool's own text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mail {
    Due {
        /// A message that is shown in any case.
        also: Option<MessageId>,
        /// The largest number of characters.
        budget: usize,
    },
    /// No mail: the text contains it all.
    InText,
}

impl Default for Mail {
    fn default() -> Self {
        Self::Due { also: None, budget: BLOCK_CHARS_MAX }
    }
}

impl ToolOutput {
    fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// Why a tool did nothing. The texts are for the model.
#[derive(Debug, Error)]
pub(crate) enum ToolError {
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(
        "this session's directory ({cwd}) is not in a git repository; use scope \"directory\" or \"machine\""
    )]
    NoRepository { cwd: String },
    #[error(
        "this session's directory is unknown: it was removed, or cannot be read; \
         list_peers() without scope lists all peers, each with its directory"
    )]
    NoDirectory,
    #[error("set_summary needs summary, state or task; call it again with one of them")]
    NothingToSet,
    #[error(
        "ack_messages: {} is not a message id ({reason}); the header of each message has its id",
        crate::render::sentence(text)
    )]
    NoMessageId { text: String, reason: IdError },
    #[error("the broker sent an unexpected reply; tell your user to restart the broker")]
    OtherReply,
}

/// Returns the tools that a session of this profile is offered.
pub(crate) fn offered(profile: Profile) -> impl Iterator<Item = &'static ToolRow> {
    TOOLS.iter().filter(move |tool| profile == Profile::Full || tool.profile == Profile::Core)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn all_schemas_together_stay_small() {
        for (profile, bytes_max) in [(Profile::Core, 5_000), (Profile::Full, 9_000)] {
            let tools: Vec<model::Tool> = offered(profile).map(ToolRow::definition).collect();
            let all = serde_json::to_vec(&tools).unwrap().len();
            assert!(all < bytes_max, "{all} bytes of schemas in every session's context");
        }
    }

    #[test]
    fn every_argument_of_the_contract_is_taken_and_no_other() {
        let expected = [
            ("list_peers", "scope query state client", ""),
            (
                "send_message",
                "to message intent reply_to thread ttl_s wait_s sources idempotency_key",
                "to message",
            ),
            ("check_messages", "from thread kind message_id offset wait_s limit peek", ""),
            ("ack_messages", "message_ids", "message_ids"),
            ("set_summary", "summary state task", ""),
            ("rename_peer", "new_name", "new_name"),
            ("channels", "action name topic private peer limit", "action"),
            ("ask_peer", "question to context_hint wait_s", "question"),
            ("answer_question", "question_id answer sources", "question_id answer"),
            ("search", "query kind from channel thread newest limit", "query"),
            ("tasks", "action task title description needs assignee result state query", "action"),
            ("memory", "action key value tags ttl_s if_version prefix tag query offset", "action"),
        ];
        assert_eq!(TOOLS.each_ref().map(|tool| tool.name), expected.map(|(name, ..)| name));
        for (tool, (_, names, required)) in TOOLS.iter().zip(expected) {
            let schema = serde_json::to_value(tool.definition()).unwrap()["inputSchema"].clone();
            let mut properties: Vec<&str> =
                schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            let mut names: Vec<&str> = names.split(' ').collect();
            properties.sort_unstable();
            names.sort_unstable();
            assert_eq!(properties, names);
            let given = schema
                .get("required")
                .map(|names| names.as_array().unwrap().clone())
                .unwrap_or_default();
            assert_eq!(given, required.split_whitespace().map(Value::from).collect::<Vec<_>>());
            assert_eq!(schema["additionalProperties"], false);
            assert!(tool.parse(json!({"nonsense": 1}).as_object().unwrap().clone()).is_err());
        }
    }

    #[test]
    fn what_must_always_be_loaded_says_so() {
        let always: Vec<&str> = TOOLS
            .iter()
            .filter(|tool| {
                tool.definition().meta.is_some_and(|meta| meta.0["anthropic/alwaysLoad"] == true)
            })
            .map(|tool| tool.name)
            .collect();
        assert_eq!(always, ["send_message", "check_messages", "ack_messages"]);
    }
}
