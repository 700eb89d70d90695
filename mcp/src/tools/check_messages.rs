//! `check_messages`: shows the waiting messages of this session, all or some; or one message in
//! parts.

use peer_proto::ids::MessageId;
use peer_proto::message::Kind;
use peer_proto::request::{Filter, Reply, Request};

use super::arguments::{Argument, Arguments, described, flag, number, one_of, text};
use super::wait::{WaitCondition, WaitEnd, WaitGuard, WaitKind, clamped};
use super::{Mail, Profile, Tool, ToolCall, ToolError, ToolOutput, questions};
use crate::carriers::tool_result;
use crate::event::Due;
use crate::render::{self, BLOCK_CHARS_MAX, Body, Showing, counted};

pub(crate) struct CheckMessages {
    from: Option<String>,
    thread: Option<String>,
    kind: WaitKind,
    message_id: Option<MessageId>,
    offset: usize,
    wait_s: u64,
    limit: usize,
    peek: bool,
}

const KINDS: [(&str, WaitKind); 3] =
    [("all", WaitKind::All), ("questions", WaitKind::Questions), ("answers", WaitKind::Answers)];

impl Tool for CheckMessages {
    const NAME: &'static str = "check_messages";
    const DESCRIPTION: &'static str = "Shows the messages that wait for you; those that a filter leaves out keep waiting. With message_id: the whole text of one, in parts.";
    const PROFILE: Profile = Profile::Core;
    const NEEDED: usize = 0;
    const ALWAYS_LOADED: bool = true;

    fn arguments() -> Vec<Argument> {
        vec![
            text("from", "only from this name or id"),
            text("thread", "only this thread"),
            described(one_of("kind", &KINDS), "questions: open ones, requests; answers: replies"),
            text("message_id", "read this message"),
            number("offset", 0, "with message_id: first character"),
            number("wait_s", 0, "seconds to wait"),
            number("limit", 1, "at most so many messages"),
            flag("peek", "show them and keep them new"),
        ]
    }

    fn parse(given: &mut Arguments) -> Result<Self, ToolError> {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let check = Self {
            from: given.text("from")?.map(|from| from.trim().to_owned()),
            thread: given.text("thread")?.map(|thread| thread.trim().to_owned()),
            kind: given.choice("kind", &KINDS)?.unwrap_or(WaitKind::All),
            message_id: given.parsed("message_id", "an id such as m-01JDK3V7QX8Z2M4T")?,
            offset: given.number("offset")?.map_or(0, size),
            wait_s: given.number("wait_s")?.unwrap_or(0),
            limit: given.number("limit")?.map_or(usize::MAX, size),
            peek: given.flag("peek")?,
        };
        if check.limit == 0 {
            return Err(given.unfit("limit", "at least 1", "0".into()).into());
        }
        if check.offset > 0 && check.message_id.is_none() {
            return Err(given.missing("message_id").into());
        }
        Ok(check)
    }

    async fn run(self, call: &ToolCall<'_>) -> Result<ToolOutput, ToolError> {
        match self.message_id {
            Some(message) => self.read(call, message).await,
            None => self.show_waiting(call).await,
        }
    }
}

impl CheckMessages {
    /// Shows one message from an offset, also if it is settled already.
    async fn read(self, call: &ToolCall<'_>, id: MessageId) -> Result<ToolOutput, ToolError> {
        let home = &call.session.environment.home;
        // The message may be on its way to the inbox, which records how much of it was shown.
        tool_result::receive(call.session, Filter::default()).await?;
        let held = tool_result::part(call.session, call.caller.call, id, self.offset, self.peek);
        let text = match held {
            Some(text) => text,
            None => {
                let Reply::Text(message) = call.session.request(Request::Read(id)).await? else {
                    return Err(ToolError::OtherReply);
                };
                let body = Body::new(&message.text);
                let showing = Showing {
                    shown_before: false,
                    home,
                    offset: self.offset,
                    chars_max: usize::MAX,
                    budget: BLOCK_CHARS_MAX,
                };
                render::message(&message, &body, showing).quoted
            }
        };
        let budget = BLOCK_CHARS_MAX.saturating_sub(text.chars().count());
        let text = render::block_head(1) + &text;
        Ok(ToolOutput { text, mail: Mail::Due { also: None, budget }, ..ToolOutput::default() })
    }

    /// Shows the waiting messages, after a wait if the call has one.
    async fn show_waiting(self, call: &ToolCall<'_>) -> Result<ToolOutput, ToolError> {
        let filter =
            Filter { from: self.from.clone(), thread: self.thread.clone(), ..Filter::default() };
        let wanted = WaitCondition { filter, kind: self.kind };
        let (wait_s, cut) = clamped(call, self.wait_s);
        let mut waited = None;
        let mut instead = String::new();
        if wait_s > 0 {
            waited = Some(WaitGuard::begin(call.session));
            match wanted.wait(call, wait_s).await? {
                WaitEnd::Matched(_) => {}
                WaitEnd::Request { message, from } if self.is_filtered() => {
                    instead = format!(
                        "The wait ended because a request came from {from}: check_messages(message_id=\"{message}\") shows it.\n"
                    );
                }
                WaitEnd::Request { .. } => {}
                WaitEnd::TimedOut => instead = format!("No message came within {wait_s} s.\n"),
            }
        }
        let (mut matched, waiting) = wanted.now(call).await?;
        let questions = match self.kind {
            WaitKind::Questions => questions::open_to_us(call).await?,
            WaitKind::All | WaitKind::Answers => Vec::new(),
        };
        if self.kind == WaitKind::Questions {
            let state = call.session.state();
            let is_question = |id: &MessageId| {
                state
                    .core
                    .inbox()
                    .message(*id)
                    .is_some_and(|message| message.kind == Kind::Question)
            };
            matched
                .retain(|id| !is_question(id) || questions.iter().any(|open| open.question == *id));
        }
        let waiting = if self.is_filtered() { 0 } else { waiting };
        let (among, limit, peek) = (Some(matched), self.limit, self.peek);
        let due = Due { among, also: None, limit, peek, budget: BLOCK_CHARS_MAX, waiting };
        let block = tool_result::block(call.session, call.caller.call, due);
        let mut text = instead;
        if block.shown == 0 && text.is_empty() {
            text = match self.is_filtered() {
                true => "No new message matches.\n".into(),
                false => "No new messages.\n".into(),
            };
        }
        text.push_str(&block.text);
        if self.from.is_none() && self.thread.is_none() {
            text.push_str(&questions::still_open(&questions, &block.text));
        }
        if self.peek && block.shown > 0 {
            text.push_str(&format!(
                "Because of peek, still new: {}.\n",
                counted(block.shown, "message")
            ));
        }
        Ok(ToolOutput { text: cut + &text, mail: Mail::InText, waited, ..ToolOutput::default() })
    }

    fn is_filtered(&self) -> bool {
        self.from.is_some() || self.thread.is_some() || self.kind != WaitKind::All
    }
}
