//! Serves one connection between two link processes, from the greeting to its end.
//!
//! Knows the broker's connection, the wire and the clock. Does not know when to try again, nor how
//! the wire was made: `peer-link-core` and `run` do. Invariant: what the link's core decides is done
//! in order.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use peer_client::Reconnect;
use peer_client::{Answer, ConnectError, Connection, Pushes, RequestError};
use peer_link_core::{Action, Event, Link, Stopped};
use peer_proto::ids::BrokerId;
use peer_proto::link::{LinkReply, LinkRequest};
use peer_proto::policy::Policy;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{Push, Reply, Request, RequestId};
use thiserror::Error;

use crate::clock;
use crate::wire::{FramesIn, FramesOut, WireError};

/// How long the other side may take to greet.
pub(crate) const GREETING_MS: u64 = 20_000;

/// A connection over which mail can cross now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The other broker.
    pub remote: BrokerId,
    /// What it is called here.
    pub alias: String,
    /// What becomes of its mail here.
    pub policy: Policy,
    /// The version of the other link process.
    pub software: String,
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum Ended {
    /// This machine's broker cannot be reached.
    #[error("{0}")]
    Broker(#[from] ConnectError),
    /// This machine's broker refused the link process.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// This machine's broker ended, or closed the connection.
    #[error("the broker of this machine ended the connection")]
    BrokerLost,
    /// The wire failed.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// The link ended it.
    #[error("{}", .0.reason())]
    Stopped(Stopped),
    /// The other side did not greet in time.
    #[error("the other machine did not greet within 20 s")]
    NoGreeting,
}

impl Ended {
    /// Whether trying again by itself is of no use: a person must change something.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Stopped(Stopped::Identity(_) | Stopped::Refused(_)))
    }
}

/// An answer of the broker, with the link's own id of the request.
struct Named {
    id: RequestId,
    answer: Answer,
}

impl Future for Named {
    type Output = (RequestId, Result<Reply, RequestError>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let id = self.id;
        Pin::new(&mut self.answer).poll(context).map(|result| (id, result))
    }
}

/// A connection to this machine's broker, as a link process.
pub struct BrokerLine {
    pub(crate) connection: Connection,
    pub(crate) pushes: Pushes,
    boot: u64,
}

/// Connects to this machine's broker. `own` is its identity.
///
/// # Errors
/// [`Ended::Broker`] or [`Ended::Refused`].
pub async fn connect_broker(broker: &mut Reconnect, own: BrokerId) -> Result<BrokerLine, Ended> {
    let (connection, pushes, _) = broker.next().await?;
    match connection.request(Request::Link(LinkRequest::Ready { own })).await {
        Ok(Reply::Link(LinkReply::Ready { boot })) => Ok(BrokerLine { connection, pushes, boot }),
        Err(RequestError::Refused(refusal)) => Err(Ended::Refused(refusal)),
        Ok(_) | Err(_) => Err(Ended::BrokerLost),
    }
}

/// Serves a connection until it ends, and says why it ended. `opened` is called once mail can cross;
/// if it answers `false`, the connection ends in order.
pub async fn serve<R: FramesIn, W: FramesOut>(
    mut broker: BrokerLine,
    mut link: Link,
    (mut incoming, mut outgoing): (R, W),
    mut opened: impl FnMut(Opened) -> bool,
) -> Ended {
    let began = Instant::now();
    let now_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut answers = FuturesUnordered::<Named>::new();
    let mut events = vec![Event::BrokerUp { boot: broker.boot }, Event::WireUp];
    loop {
        for event in events.drain(..) {
            for action in link.handle(now_ms(), clock::now(), event) {
                match action {
                    Action::Ask { id, request } => {
                        let answer = broker.connection.submit(Request::Link(request));
                        answers.push(Named { id, answer });
                    }
                    Action::Send(frame) => {
                        if let Err(error) = outgoing.feed(&frame).await {
                            return error.into();
                        }
                    }
                    Action::Close(stopped) => {
                        let _ = outgoing.flush().await;
                        return Ended::Stopped(stopped);
                    }
                    Action::Opened { remote, alias, policy, software } => {
                        if !opened(Opened { remote, alias, policy, software }) {
                            let _ = outgoing.flush().await;
                            return Ended::Stopped(Stopped::Bye("it was only tried".to_owned()));
                        }
                    }
                }
            }
        }
        if let Err(error) = outgoing.flush().await {
            return error.into();
        }
        if !link.is_open() && now_ms() > GREETING_MS {
            return Ended::NoGreeting;
        }
        let wait_ms = link.poll_timeout(now_ms()).unwrap_or(GREETING_MS).min(GREETING_MS);
        let event = tokio::select! {
            frame = incoming.next() => match frame {
                Ok(frame) => Event::Came(frame),
                Err(error) => return error.into(),
            },
            push = broker.pushes.next() => match push {
                Some(Push::Link(push)) => Event::Pushed(push),
                Some(_) => continue,
                None => return Ended::BrokerLost,
            },
            Some((id, result)) = answers.next(), if !answers.is_empty() => match result {
                Ok(reply) => Event::Answered { id, result: Ok(reply) },
                Err(RequestError::Refused(refusal)) => {
                    Event::Answered { id, result: Err(refusal) }
                }
                Err(RequestError::Lost) => return Ended::BrokerLost,
                Err(error) => Event::Answered { id, result: Err(own_fault(&error)) },
            },
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => Event::Tick,
        };
        events.push(event);
    }
}

/// A request that could not even be sent, as the link hears of it.
fn own_fault(error: &RequestError) -> Refusal {
    Refusal {
        code: ErrorCode::BadFrame,
        message: error.to_string(),
        hint: error.hint(),
        retry_after_ms: None,
    }
}
