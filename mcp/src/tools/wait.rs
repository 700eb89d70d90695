//! Waits for a message within a tool call.
//!
//! A wait ends early at a matching message that no result has shown. It also ends at a request to
//! this session that arrived since the call began. So two sessions that wait for each other can
//! continue. Older mail does not end it.
//!
//! Knows the filter and the time limit. Does not know how a result is shown. Invariant: nothing
//! polls. The broker answers a waiting `Receive` on a match, also beyond its pushes so far, and the
//! inbox signals pushed messages.

use std::sync::Arc;
use std::time::Duration;

use peer_proto::ids::MessageId;
use peer_proto::message::{Kind, Message};
use peer_proto::request::{Filter, Request};
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use tokio::time::Instant;

use super::{ToolCall, ToolError};
use crate::carriers::tool_result;
use crate::event::Event;
use crate::render::word;
use crate::session::{ClientKind, Session};

/// The longest wait in one call of Claude Code, in seconds: beyond two minutes it moves a call into
/// the background.
const CLAUDE_WAIT_S_MAX: u64 = 110;

/// The longest wait in one call of Codex and unknown clients, in seconds: sixty is a common timeout
/// for a tool.
const OTHER_WAIT_S_MAX: u64 = 50;

/// How often a client that asked for progress is told that the call still waits, in seconds.
const PROGRESS_S: u64 = 10;

/// The condition of a wait.
pub(crate) struct WaitCondition {
    pub(crate) filter: Filter,
    pub(crate) kind: WaitKind,
}

/// The contract's `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitKind {
    All,
    /// Requests that are not replies.
    Questions,
    Answers,
}

/// The end of a wait.
pub(crate) enum WaitEnd {
    /// These match, and at least one was in no result yet.
    Matched(Vec<MessageId>),
    /// A request from this peer came instead.
    Request { message: MessageId, from: String },
    /// No matching message came in time.
    TimedOut,
}

/// While this exists, the channel leaves new messages to the result of the waiting call.
pub(crate) struct WaitGuard {
    session: Arc<Session>,
}

impl WaitGuard {
    pub(crate) fn begin(session: &Arc<Session>) -> Self {
        session.handle(Event::WaitBegins);
        Self { session: Arc::clone(session) }
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.session.handle(Event::WaitEnds);
    }
}

/// Returns the longest possible wait, and a line for the model if that is less than it asked for.
pub(crate) fn clamped(call: &ToolCall<'_>, wait_s: u64) -> (u64, String) {
    let most = match call.session.client().kind {
        ClientKind::Claude => CLAUDE_WAIT_S_MAX,
        ClientKind::Codex | ClientKind::Other => OTHER_WAIT_S_MAX,
    };
    match wait_s > most {
        true => (most, format!("wait_s was cut to {most}, the longest that this client allows.\n")),
        false => (wait_s, String::new()),
    }
}

impl WaitCondition {
    /// Returns the current matches, shown or not, and how many messages of the filter wait in
    /// total.
    pub(crate) async fn now(
        &self,
        call: &ToolCall<'_>,
    ) -> Result<(Vec<MessageId>, u64), ToolError> {
        let received = tool_result::receive(call.session, self.filter.clone()).await?;
        let state = call.session.state();
        // Without a filter the broker names only messages that no carrier had yet; all messages of
        // this session match.
        let matching = match self.filter == Filter::default() {
            true => state.core.inbox().open(),
            false => received.messages,
        };
        let fits = |id: &MessageId| {
            state.core.inbox().message(*id).is_some_and(|message| self.kind.fits(message))
        };
        Ok((matching.into_iter().filter(fits).collect(), received.waiting))
    }

    /// Waits until a message matches, a request comes, or the time is over.
    pub(crate) async fn wait(
        &self,
        call: &ToolCall<'_>,
        wait_s: u64,
    ) -> Result<WaitEnd, ToolError> {
        let started = Instant::now();
        let deadline = started + Duration::from_secs(wait_s);
        let mut news = call.session.news();
        let connection = call.session.connected();
        let mut broker = connection.as_ref().map(|connection| {
            connection.submit(Request::Receive { filter: self.filter.clone(), wait: true })
        });
        let mut progress = Progress::new(call);
        let ended = loop {
            // Before the check, so that a later message counts as a change.
            news.borrow_and_update();
            let (matched, _) = self.now(call).await?;
            {
                let state = call.session.state();
                if state.core.inbox().any_unseen(&matched) {
                    break WaitEnd::Matched(matched);
                }
                if let Some(request) = state.core.inbox().request_since(call.since) {
                    break WaitEnd::Request { message: request.id, from: word(&request.from.name) };
                }
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { break WaitEnd::TimedOut },
                () = answered(&mut broker) => broker = None,
                () = progress.due() => progress.report(started).await,
                () = tokio::time::sleep_until(deadline) => break WaitEnd::TimedOut,
                () = call.context.ct.cancelled() => break WaitEnd::TimedOut,
            }
        };
        if let (Some(connection), Some(answer)) = (connection, broker) {
            drop(connection.submit(Request::StopWaiting(answer.id())));
        }
        Ok(ended)
    }
}

/// Waits for the broker to report a match. The match is looked up afterwards, so a loss is not an
/// error.
async fn answered(broker: &mut Option<peer_client::Answer>) {
    match broker {
        Some(answer) => {
            let _ = answer.await;
        }
        None => std::future::pending().await,
    }
}

impl WaitKind {
    fn fits(self, message: &Message) -> bool {
        let answers = message.kind == Kind::Answer || message.reply_to.is_some();
        match self {
            Self::All => true,
            Self::Answers => answers,
            Self::Questions => {
                message.kind == Kind::Question
                    || (message.kind == Kind::Message
                        && message.intent == peer_proto::message::Intent::Request
                        && !answers)
            }
        }
    }
}

/// Progress notifications of one call, if its client gave a token for them.
struct Progress<'a> {
    call: &'a ToolCall<'a>,
    token: Option<ProgressToken>,
    next: Instant,
}

impl<'a> Progress<'a> {
    fn new(call: &'a ToolCall<'a>) -> Self {
        let next = Instant::now() + Duration::from_secs(PROGRESS_S);
        Self { call, token: call.context.meta.get_progress_token(), next }
    }

    async fn due(&self) {
        match &self.token {
            Some(_) => tokio::time::sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }

    async fn report(&mut self, started: Instant) {
        self.next += Duration::from_secs(PROGRESS_S);
        if let Some(token) = self.token.clone() {
            let mut param =
                ProgressNotificationParam::new(token, started.elapsed().as_secs_f64().round());
            param.message = Some("waiting for a message".into());
            // An unreachable client will soon be found to have ended.
            let _ = self.call.context.peer.notify_progress(param).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use peer_proto::message::Intent;

    use super::*;
    use crate::samples::request;

    #[test]
    fn questions_are_new_requests_and_answers_are_replies() {
        let question = request(1, "luna", "x");
        let mut answer = request(2, "luna", "x");
        answer.reply_to = Some(question.id);
        let mut news = request(3, "luna", "x");
        news.intent = Intent::Inform;
        let fitting =
            |kind: WaitKind| [&question, &answer, &news].map(|message| kind.fits(message));
        assert_eq!(fitting(WaitKind::All), [true, true, true]);
        assert_eq!(fitting(WaitKind::Questions), [true, false, false]);
        assert_eq!(fitting(WaitKind::Answers), [false, true, false]);
    }
}
