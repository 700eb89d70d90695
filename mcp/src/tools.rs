//! The tools: what each is called, what it takes, and what it does with the broker's help.
//!
//! A tool answers in plain text for a model. It knows the session and the inbox's questions, not the protocol of the
//! client: results, errors and the block at the end are made in [`crate::server`].

mod arguments;
mod channels;
mod check_messages;
mod list_peers;
mod memory;
mod questions;
mod search;
mod send_message;
mod tasks;
mod wait;

use std::sync::Arc;

use peer_proto::ids::{IdError, MessageId};
use peer_proto::limits::MESSAGES_PER_REQUEST_MAX;
use peer_proto::request::{Reply, Request};
use peer_proto::settings::Profile;
use rmcp::model::{JsonObject, MetaObject, Tool};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Value, json};
use thiserror::Error;

use crate::call::Caller;
use crate::render::{BLOCK_CHARS_MAX, counted, word};
use crate::session::{CallError, Session, renamed};
use arguments::{ArgumentError, Arguments};

/// One call of a tool, as the tool sees it.
pub(crate) struct ToolCall<'a> {
    pub(crate) session: &'a Arc<Session>,
    pub(crate) caller: &'a Caller,
    /// The client's side of the call: cancellation and progress.
    pub(crate) context: &'a RequestContext<RoleServer>,
    /// Messages with this arrival number and later ones came after the call began.
    pub(crate) since: u64,
}

/// What a tool answers.
#[derive(Default)]
pub(crate) struct Output {
    /// Whole sentences; may have several lines.
    pub(crate) text: String,
    /// The call failed, although parts of it may have been done.
    pub(crate) failed: bool,
    /// What follows the text.
    pub(crate) mail: Mail,
    /// Held until the mail is in the result, so that the channel does not take it first.
    pub(crate) waited: Option<wait::Waiting>,
}

/// What of the session's mail follows a tool's own text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mail {
    /// Whatever is due.
    Due {
        /// Shown whatever became of it before.
        also: Option<MessageId>,
        /// Most characters.
        budget: usize,
    },
    /// Nothing: the text has it all.
    InText,
}

impl Default for Mail {
    fn default() -> Self {
        Self::Due { also: None, budget: BLOCK_CHARS_MAX }
    }
}

impl Output {
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
    #[error("this session's directory ({cwd}) is in no git repository; use scope \"directory\" or \"machine\"")]
    NoRepository { cwd: String },
    #[error(
        "this session's directory is not known (it was removed, or may not be read), and is equal to no other; \
         list_peers() without scope lists all peers, each with its directory"
    )]
    NoDirectory,
    #[error("set_summary was given nothing to set; give summary, state or task")]
    NothingToSet,
    #[error(
        "ack_messages: {} is no message id ({reason}); ids stand in the header of each message",
        crate::render::sentence(text)
    )]
    NoMessageId { text: String, reason: IdError },
    #[error("the broker answered with a reply of another kind; ask the user to run `peerctl daemon restart`")]
    OtherReply,
}

/// The tools that a session of this profile is offered.
pub(crate) fn offered(profile: Profile) -> impl Iterator<Item = ToolName> {
    ToolName::ALL.into_iter().filter(move |tool| profile == Profile::Full || tool.is_core())
}

/// The tools by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToolName {
    ListPeers,
    SendMessage,
    CheckMessages,
    AckMessages,
    SetSummary,
    RenamePeer,
    Channels,
    AskPeer,
    AnswerQuestion,
    Search,
    Tasks,
    Memory,
}

impl ToolName {
    pub(crate) const ALL: [Self; 12] = [
        Self::ListPeers,
        Self::SendMessage,
        Self::CheckMessages,
        Self::AckMessages,
        Self::SetSummary,
        Self::RenamePeer,
        Self::Channels,
        Self::AskPeer,
        Self::AnswerQuestion,
        Self::Search,
        Self::Tasks,
        Self::Memory,
    ];

    /// It is offered in every profile.
    fn is_core(self) -> bool {
        match self {
            Self::ListPeers
            | Self::SendMessage
            | Self::CheckMessages
            | Self::AckMessages
            | Self::SetSummary
            | Self::RenamePeer => true,
            Self::Channels | Self::AskPeer | Self::AnswerQuestion | Self::Search | Self::Tasks | Self::Memory => false,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ListPeers => "list_peers",
            Self::SendMessage => "send_message",
            Self::CheckMessages => "check_messages",
            Self::AckMessages => "ack_messages",
            Self::SetSummary => "set_summary",
            Self::RenamePeer => "rename_peer",
            Self::Channels => "channels",
            Self::AskPeer => "ask_peer",
            Self::AnswerQuestion => "answer_question",
            Self::Tasks => "tasks",
            Self::Memory => "memory",
            Self::Search => "search",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::ListPeers => {
                "Lists the agents on this machine: name, what each is doing, whether it is online and how it can be reached."
            }
            Self::SendMessage => {
                "Sends a message to other agents or to the user (human). It is stored before this returns, and waits for those who are offline. Answer a message with reply_to."
            }
            Self::CheckMessages => {
                "Shows messages that wait for you, optionally only some of them; the others stay. With message_id: the whole text of one, in parts."
            }
            Self::AckMessages => "Says that you have dealt with messages that need no reply.",
            Self::SetSummary => "Tells the other agents what you are doing. Parts that are left out stay.",
            Self::RenamePeer => "Changes your name among the agents.",
            Self::Channels => {
                "Channels (#name) have members who hear what is sent to them; posts wake nobody. Groups (@name) are labels: join to carry one."
            }
            Self::AskPeer => {
                "Asks a question; the first answer closes it. Without to: whoever works in your repository or directory."
            }
            Self::AnswerQuestion => {
                "Answers an open question. Name your sources; without any the asker is told that it is from memory."
            }
            Self::Tasks => {
                "Tasks that the agents share. One of many wins a claim; creator and assignee hear of changes, and whoever waits for a task when it ends. A claim ends with its session."
            }
            Self::Memory => "Notes that all agents share, under keys; they survive restarts.",
            Self::Search => "Finds messages you sent or were sent, your channels' posts, notes and tasks by their words.",
        }
    }

    /// Its arguments: name and schema; the first `needed` of them are required.
    fn arguments(self) -> (usize, Vec<(&'static str, Value)>) {
        let text = |description: &str| json!({"type": "string", "description": description});
        let whole = |description: &str| json!({"type": "integer", "minimum": 0, "description": description});
        let wait = || whole("seconds to wait");
        match self {
            Self::ListPeers => (
                0,
                vec![
                    (
                        "scope",
                        json!({"type": "string", "enum": ["machine", "directory", "repo"], "description": "default machine"}),
                    ),
                    ("query", text("only where this stands in name, summary, task, client or directory")),
                    ("state", text("only of this state, such as idle")),
                    ("client", text("only of this client, such as codex")),
                ],
            ),
            Self::SendMessage => (
                2,
                vec![
                    ("to", text("name or id, human, #channel, @group, or several separated by commas")),
                    ("message", text("at most 60 KiB")),
                    (
                        "intent",
                        json!({"type": "string", "enum": ["request", "inform"], "description": "request (default) may wake its reader; a reply defaults to inform"}),
                    ),
                    ("reply_to", text("id of the message you answer")),
                    ("thread", text("default: that of reply_to, or a new one")),
                    ("ttl_s", whole("expires if not seen within these seconds")),
                    ("wait_s", whole("seconds to wait for the reply")),
                    ("sources", text("what your claims rest on, separated by commas")),
                    ("idempotency_key", text("repeating it does not send again")),
                ],
            ),
            Self::CheckMessages => (
                0,
                vec![
                    ("from", text("only from this name or id")),
                    ("thread", text("only this thread")),
                    (
                        "kind",
                        json!({"type": "string", "enum": ["all", "questions", "answers"], "description": "questions: open ones, requests; answers: replies"}),
                    ),
                    ("message_id", text("read this one")),
                    ("offset", whole("with message_id: first character")),
                    ("wait_s", wait()),
                    ("limit", json!({"type": "integer", "minimum": 1, "description": "most messages"})),
                    ("peek", json!({"type": "boolean", "description": "look without taking"})),
                ],
            ),
            Self::AckMessages => (1, vec![("message_ids", text("ids separated by commas"))]),
            Self::SetSummary => (
                0,
                vec![
                    ("summary", text("what you are doing, one sentence")),
                    ("state", text("working, idle, blocked, away or a few words")),
                    ("task", text("your present task")),
                ],
            ),
            Self::RenamePeer => (1, vec![("new_name", text("1 to 32 of A-Z a-z 0-9 _ -"))]),
            Self::Channels => (1, channels::arguments()),
            Self::Search => (1, search::arguments()),
            Self::AskPeer => (
                1,
                vec![
                    ("question", text("one question")),
                    ("to", text("names, #channel or @group")),
                    ("context_hint", text("where to look, or why you ask")),
                    ("wait_s", wait()),
                ],
            ),
            Self::AnswerQuestion => (
                2,
                vec![
                    ("question_id", text("m-…")),
                    ("answer", text("at most 60 KiB")),
                    ("sources", text("files, lines, commands or pages, separated by commas")),
                ],
            ),
            Self::Tasks => (1, tasks::arguments()),
            Self::Memory => (1, memory::arguments()),
        }
    }

    /// What the client is told of it.
    pub(crate) fn definition(self) -> Tool {
        let (needed, arguments) = self.arguments();
        let required: Vec<&str> = arguments.iter().take(needed).map(|(name, _)| *name).collect();
        let mut schema = JsonObject::new();
        schema.insert("type".into(), json!("object"));
        schema.insert("properties".into(), arguments.iter().map(|(name, schema)| (name.to_string(), schema.clone())).collect());
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        schema.insert("additionalProperties".into(), json!(false));
        let tool = Tool::new(self.as_str(), self.description(), schema);
        match self {
            Self::SendMessage | Self::CheckMessages | Self::AckMessages => {
                let mut meta = MetaObject::new();
                meta.0.insert("anthropic/alwaysLoad".into(), json!(true));
                tool.with_meta(meta)
            }
            _ => tool,
        }
    }

    /// Checks the arguments, as far as that goes without the broker.
    pub(crate) fn parse(self, values: JsonObject) -> Result<Act, ToolError> {
        let (_, arguments) = self.arguments();
        let mut known: Vec<&str> = arguments.iter().map(|(name, _)| *name).collect();
        if self == Self::SendMessage {
            // Accepted for `to`, and not advertised: one way to say it is enough for a schema.
            known.push("to_id");
        }
        let mut given = Arguments::new(self.as_str(), &known, values)?;
        Ok(match self {
            Self::ListPeers => Act::ListPeers(list_peers::ListPeers::parse(&mut given)?),
            Self::SendMessage => Act::SendMessage(Box::new(send_message::SendMessage::parse(&mut given)?)),
            Self::CheckMessages => Act::CheckMessages(check_messages::CheckMessages::parse(&mut given)?),
            Self::AckMessages => {
                let texts = given.list("message_ids")?;
                if texts.is_empty() {
                    return Err(given.missing("message_ids").into());
                }
                let id = |text: String| text.parse().map_err(|reason| ToolError::NoMessageId { text, reason });
                Act::AckMessages(texts.into_iter().map(id).collect::<Result<_, _>>()?)
            }
            Self::SetSummary => {
                let (summary, state, task) =
                    (given.text_or_empty("summary")?, given.text_or_empty("state")?, given.text_or_empty("task")?);
                if summary.is_none() && state.is_none() && task.is_none() {
                    return Err(ToolError::NothingToSet);
                }
                Act::SetSummary { summary, state, task }
            }
            Self::RenamePeer => Act::RenamePeer { new_name: given.needed("new_name")? },
            Self::Channels => Act::Channels(channels::Channels::parse(&mut given)?),
            Self::AskPeer => Act::AskPeer(Box::new(questions::AskPeer::parse(&mut given)?)),
            Self::Search => Act::Search(Box::new(search::Search::parse(&mut given)?)),
            Self::AnswerQuestion => Act::AnswerQuestion(Box::new(questions::AnswerQuestion::parse(&mut given)?)),
            Self::Tasks => Act::Tasks(Box::new(tasks::Tasks::parse(&mut given)?)),
            Self::Memory => Act::Memory(Box::new(memory::Memory::parse(&mut given)?)),
        })
    }
}

/// A call whose arguments are in order.
pub(crate) enum Act {
    ListPeers(list_peers::ListPeers),
    SendMessage(Box<send_message::SendMessage>),
    CheckMessages(check_messages::CheckMessages),
    AckMessages(Vec<MessageId>),
    SetSummary { summary: Option<String>, state: Option<String>, task: Option<String> },
    RenamePeer { new_name: String },
    Channels(channels::Channels),
    AskPeer(Box<questions::AskPeer>),
    AnswerQuestion(Box<questions::AnswerQuestion>),
    Tasks(Box<tasks::Tasks>),
    Memory(Box<memory::Memory>),
    Search(Box<search::Search>),
}

impl Act {
    /// Does it.
    pub(crate) async fn run(self, call: &ToolCall<'_>) -> Result<Output, ToolError> {
        match self {
            Self::ListPeers(list) => list.run(call).await,
            Self::SendMessage(send) => send.run(call).await,
            Self::CheckMessages(check) => check.run(call).await,
            Self::AckMessages(messages) => acknowledge(call, messages).await,
            Self::SetSummary { summary, state, task } => {
                if summary.is_some() {
                    call.session.state().first_summary.said();
                }
                match call.session.request(Request::Describe { summary, state, task }).await? {
                    Reply::Done => Ok(Output::text("The other agents see it now.")),
                    _ => Err(ToolError::OtherReply),
                }
            }
            Self::RenamePeer { new_name } => rename(call, new_name).await,
            Self::Channels(channels) => channels.run(call).await,
            Self::AskPeer(ask) => ask.run(call).await,
            Self::AnswerQuestion(answer) => answer.run(call).await,
            Self::Tasks(tasks) => tasks.run(call).await,
            Self::Memory(memory) => memory.run(call).await,
            Self::Search(search) => search.run(call).await,
        }
    }
}

async fn acknowledge(call: &ToolCall<'_>, messages: Vec<MessageId>) -> Result<Output, ToolError> {
    let (mut done, mut strangers) = (Vec::new(), Vec::new());
    for some in messages.chunks(MESSAGES_PER_REQUEST_MAX) {
        let Reply::Acked { acked, unknown } = call.session.request(Request::Ack { messages: some.to_vec() }).await? else {
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
        text.push_str(&format!(" Not known as messages to you: {}; check_messages() shows what waits.", names.join(", ")));
    }
    Ok(Output { text, failed: done.is_empty(), ..Output::default() })
}

async fn rename(call: &ToolCall<'_>, new_name: String) -> Result<Output, ToolError> {
    match call.session.request(Request::Rename { peer: None, new_name: new_name.trim().to_owned() }).await? {
        Reply::Renamed { name, .. } => {
            call.session.settle_pushes().await;
            call.session.drop_notice(&renamed(&name));
            let text = format!("Your name is now {}. Mail under the old name still finds you.", word(&name));
            call.session.named(name);
            Ok(Output::text(text))
        }
        _ => Err(ToolError::OtherReply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_schemas_together_stay_small() {
        for (profile, bytes_max) in [(Profile::Core, 5_000), (Profile::Full, 9_000)] {
            let tools: Vec<Tool> = offered(profile).map(ToolName::definition).collect();
            let all = serde_json::to_vec(&tools).unwrap().len();
            assert!(all < bytes_max, "{all} bytes of schemas in every session's context");
        }
    }

    #[test]
    fn every_argument_of_the_contract_is_taken_and_no_other() {
        let expected = [
            (ToolName::ListPeers, "scope query state client", ""),
            (ToolName::SendMessage, "to message intent reply_to thread ttl_s wait_s sources idempotency_key", "to message"),
            (ToolName::CheckMessages, "from thread kind message_id offset wait_s limit peek", ""),
            (ToolName::AckMessages, "message_ids", "message_ids"),
            (ToolName::SetSummary, "summary state task", ""),
            (ToolName::RenamePeer, "new_name", "new_name"),
            (ToolName::Channels, "action name topic private peer limit", "action"),
            (ToolName::AskPeer, "question to context_hint wait_s", "question"),
            (ToolName::AnswerQuestion, "question_id answer sources", "question_id answer"),
            (ToolName::Tasks, "action task title description needs assignee result state query", "action"),
            (ToolName::Memory, "action key value tags ttl_s if_version prefix tag query offset", "action"),
            (ToolName::Search, "query kind from channel thread newest limit", "query"),
        ];
        for (tool, names, required) in expected {
            let schema = serde_json::to_value(tool.definition()).unwrap()["inputSchema"].clone();
            let mut properties: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            let mut names: Vec<&str> = names.split(' ').collect();
            properties.sort_unstable();
            names.sort_unstable();
            assert_eq!(properties, names);
            let given = schema.get("required").map(|names| names.as_array().unwrap().clone()).unwrap_or_default();
            assert_eq!(given, required.split_whitespace().map(Value::from).collect::<Vec<_>>());
            assert_eq!(schema["additionalProperties"], false);
            assert!(tool.parse(json!({"nonsense": 1}).as_object().unwrap().clone()).is_err());
        }
    }

    #[test]
    fn what_must_always_be_loaded_says_so() {
        let always: Vec<&str> = ToolName::ALL
            .into_iter()
            .filter(|tool| tool.definition().meta.is_some_and(|meta| meta.0["anthropic/alwaysLoad"] == true))
            .map(ToolName::as_str)
            .collect();
        assert_eq!(always, ["send_message", "check_messages", "ack_messages"]);
    }

    #[test]
    fn ids_that_are_none_are_named() {
        let parse = |text: &str| ToolName::AckMessages.parse(json!({ "message_ids": text }).as_object().unwrap().clone());
        let error = parse("m-0000000000000001, nonsense").err().unwrap().to_string();
        assert!(error.contains("\"nonsense\" is no message id") && error.contains("m-01JDK3V7QX8Z2M4T"), "{error}");
        assert!(parse(" , ").err().unwrap().to_string().contains("needs the argument message_ids"));
        assert!(matches!(parse("m-0000000000000001,m-0000000000000002"), Ok(Act::AckMessages(ids)) if ids.len() == 2));
    }
}
