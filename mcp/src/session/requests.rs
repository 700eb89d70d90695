//! Sends a tool's requests to the broker, over a connection that exists or comes in time.
//!
//! Knows how long a call waits, and the errors for a missing answer. Does not know the content of a
//! request. Invariant: a request whose repeat would act twice is sent once.

use std::sync::Arc;
use std::time::Duration;

use peer_client::{Connection, RequestError};
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{Reply, Request};
use thiserror::Error;
use tokio::time::Instant;

use super::{Link, Session};

/// How long a tool call waits for the broker, in milliseconds. Starting one takes a fraction of it.
const CALL_PATIENCE_MS: u64 = 10_000;

/// How long one request waits for its answer, in milliseconds. This is far more than the slowest
/// disk takes, and less than clients wait for a tool, even if a call asks twice.
const ANSWER_PATIENCE_MS: u64 = 20_000;

/// How long an answer may take before the adapter checks whether the broker is suspended, in
/// milliseconds.
const SUSPICION_MS: u64 = 2_000;

/// Why a tool has no answer from the broker. The texts are for the model.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error("{0}")]
    Refused(Refusal),
    /// There is no broker.
    #[error(
        "the broker cannot be reached: {why}; nothing was lost: call this tool again, and tell your user if it fails again"
    )]
    Unreachable {
        /// The error of the last attempt.
        why: String,
    },
    /// This session must not reconnect.
    #[error("{why}; mail for this session waits until the client is restarted")]
    Ended {
        /// The session or actor that ended it.
        why: String,
    },
    /// The broker was stopped by a signal.
    #[error(
        "the broker is suspended: tell your user to resume its process, {pid}. Your request may then \
         still be carried out: check before you repeat it"
    )]
    Suspended {
        /// The process id of the broker.
        pid: u32,
    },
    /// The connection is open, and no answer comes: the disk hangs, or the broker's process is not
    /// visible from here.
    #[error(
        "the broker is connected, but has not answered for {} s: tell your user. Your request may still be \
         carried out: check before you repeat it",
        ANSWER_PATIENCE_MS / 1_000
    )]
    Silent,
    /// The broker ended before it answered a request that must not be repeated.
    #[error(
        "the broker ended before it answered. Your request may have been carried out: check before you repeat it"
    )]
    Unanswered,
    /// The connection is open, and the request is wrong.
    #[error("{}", .0.for_model())]
    Request(RequestError),
}

impl Session {
    /// Returns the connection, after waiting for it until `deadline`.
    async fn connection(self: &Arc<Self>, deadline: Instant) -> Result<Connection, CallError> {
        self.start();
        if let Some(connection) = self.connected() {
            return Ok(connection);
        }
        self.come_back();
        let mut link = self.link.subscribe();
        let decided = |link: &Link| match link {
            Link::Trying { .. } => false,
            Link::Up(connection) => connection.is_open(),
            Link::Down { .. } | Link::Ended { .. } => true,
        };
        let found = tokio::time::timeout_at(deadline, link.wait_for(decided))
            .await
            .map(|found| found.map(|link| link.clone()));
        match found {
            Ok(Ok(Link::Up(connection))) => Ok(connection),
            Ok(Ok(Link::Down { why })) => Err(CallError::Unreachable { why }),
            Ok(Ok(Link::Ended { why })) => Err(CallError::Ended { why }),
            Ok(Ok(Link::Trying { .. }) | Err(_)) | Err(_) => {
                let why = match &*self.link.borrow() {
                    Link::Trying { last: Some(last) } => last.clone(),
                    _ => format!("it did not answer within {} s", CALL_PATIENCE_MS / 1_000),
                };
                Err(CallError::Unreachable { why })
            }
        }
    }

    /// Waits until this session has begun at the broker.
    pub(crate) async fn ready(self: &Arc<Self>) -> Result<(), CallError> {
        self.connection(Instant::now() + Duration::from_millis(CALL_PATIENCE_MS)).await.map(drop)
    }

    /// Sends a request, and repeats it on the next connection if one ended before the answer. Every
    /// request of a session may be repeated: a send carries an idempotency key. For the exceptions,
    /// see [`Session::request_once`].
    pub(crate) async fn request(self: &Arc<Self>, request: Request) -> Result<Reply, CallError> {
        self.ask(request, true).await
    }

    /// Sends a request whose repeat would act twice.
    pub(crate) async fn request_once(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<Reply, CallError> {
        self.ask(request, false).await
    }

    async fn ask(self: &Arc<Self>, request: Request, repeatable: bool) -> Result<Reply, CallError> {
        let deadline = Instant::now() + Duration::from_millis(CALL_PATIENCE_MS);
        loop {
            let connection = self.connection(deadline).await?;
            match answer(&connection, request.clone()).await? {
                Ok(reply) => return Ok(reply),
                Err(RequestError::Lost) if repeatable => {}
                Err(RequestError::Lost) => return Err(CallError::Unanswered),
                Err(RequestError::Refused(refusal)) if refusal.code == ErrorCode::Stopping => {
                    // The broker sends its reason once and then closes.
                    let _ = tokio::time::timeout_at(deadline, connection.closed()).await;
                }
                Err(RequestError::Refused(refusal)) => return Err(CallError::Refused(refusal)),
                Err(error) => return Err(CallError::Request(error)),
            }
        }
    }
}

/// Returns the answer, or why none came in time.
async fn answer(
    connection: &Connection,
    request: Request,
) -> Result<Result<Reply, RequestError>, CallError> {
    let mut answer = connection.submit(request);
    for patience_ms in [SUSPICION_MS, ANSWER_PATIENCE_MS - SUSPICION_MS] {
        if let Ok(answer) =
            tokio::time::timeout(Duration::from_millis(patience_ms), &mut answer).await
        {
            return Ok(answer);
        }
        if let Some(pid) = connection.suspended_broker() {
            return Err(CallError::Suspended { pid });
        }
    }
    Err(CallError::Silent)
}
