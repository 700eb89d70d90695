//! One connection: preface, `Hello`, then frames in both directions, until either end closes it.
//!
//! Knows bytes and requests, but not their meaning: each request goes to the engine as an
//! [`Arrival`], and answers come from the [`Outbox`]. A program's mistake ends only its own
//! connection. Invariant: exactly one [`Arrival::Gone`] follows each [`Arrival::Hello`].

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use peer_core::input::ConnectionId;
use peer_core::rejection::Rejection;
use peer_core::wording::Addressee;
use peer_proto::codec::{self, DecodeError};
use peer_proto::handshake::{FIXED_BYTES, Preface, PrefaceError};
use peer_proto::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use peer_proto::refusal::Refusal;
use peer_proto::request::{ClientFrame, Hello, Request, RequestId, Role, ServerFrame};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::ancestry;
use crate::budget::Budget;
use crate::frames::{FrameFault, Frames};
use crate::outbox::{Outbox, Taken};
use crate::telemetry::Throttle;
use crate::turns::{Arrival, Closed, Entrance};

/// How long a connection that is ending may take to read its last frames.
const LAST_WORDS_MS: u64 = 1_000;

/// How long a program may leave many answers unread. Then its connection ends.
const UNREAD_TIMEOUT_MS: u64 = 30_000;

/// The retry delay for a program that was refused for lack of room.
const TURNED_AWAY_RETRY_MS: u64 = 5_000;

/// How long a connection on an operator's place has for its preface and `Hello`, because others
/// wait for the place.
const OPERATOR_HELLO_MS: u64 = 1_000;

/// Who may use a place among the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionClass {
    Anybodys,
    /// One of the last places: the person must get through even if sessions use all others.
    Operators,
}

/// The values that all connections of one run share.
pub(crate) struct ConnectionContext {
    /// The queue to the engine.
    pub(crate) arrivals: Entrance,
    /// The broker's own preface.
    pub(crate) preface: Preface,
    /// The budget for requests.
    pub(crate) budget: Arc<Budget>,
    /// The limit on warnings that programs can cause at will.
    pub(crate) warnings: Throttle,
    /// How long a new connection has for its preface and `Hello`, and any connection for the rest
    /// of a frame.
    pub(crate) timeout: Duration,
}

/// Serves one connection to its end. `pid` is the connected process, as the kernel reports it.
pub(crate) async fn serve(
    mut stream: UnixStream,
    connection: ConnectionId,
    pid: Option<u32>,
    place: ConnectionClass,
    shared: &ConnectionContext,
) {
    let patience = match place {
        ConnectionClass::Anybodys => shared.timeout,
        ConnectionClass::Operators => shared.timeout.min(Duration::from_millis(OPERATOR_HELLO_MS)),
    };
    let deadline = Instant::now() + patience;
    let protocol = match timeout_at(deadline, greet(&mut stream, &shared.preface))
        .await
        .unwrap_or(Err(ConnectionFault::Silent))
    {
        Ok(protocol) => protocol,
        Err(fault) => return report(connection, pid, &fault, shared),
    };

    let (outbox, in_flight) = (Outbox::default(), Semaphore::new(REQUESTS_IN_FLIGHT_MAX));
    let (read, write) = stream.split();
    let frames = Frames::of_a_stranger(read, shared.budget.share(pid), shared.timeout);
    let mut reader = FrameReader {
        connection,
        frames,
        in_flight: &in_flight,
        outbox: &outbox,
        shared,
        place,
        said_hello: false,
    };
    let (unwritten, answers) = (BytesMut::new(), 0);
    let mut writer =
        FrameWriter { write, unwritten, answers, in_flight: &in_flight, outbox: &outbox, shared };

    let end = tokio::select! {
        end = reader.run(deadline, protocol, pid) => end,
        end = writer.run() => end.map_err(ConnectionFault::Socket),
        () = outbox.ending() => Ok(()),
    };
    if let Err(ConnectionFault::Socket(_)) = &end
        && reader.said_hello
    {
        // The program died while we wrote to it. Its earlier requests still count, and are at most
        // a socket's buffer.
        let _ = timeout(Duration::from_millis(LAST_WORDS_MS), reader.requests()).await;
    }
    if let Err(fault) = &end {
        if let Some((id, refusal)) = fault.answer() {
            outbox.reply(id, Err(refusal));
        }
        report(connection, pid, fault, shared);
    }
    outbox.close();
    if reader.said_hello {
        // If the engine has ended already, it needs no notice.
        let _ = shared.arrivals.push(Arrival::Gone { connection });
    }
    if !matches!(end, Err(ConnectionFault::Socket(_))) {
        // A program that does not read its last frames loses them.
        let _ = timeout(Duration::from_millis(LAST_WORDS_MS), writer.run()).await;
    }
}

/// Refuses a connection for lack of room: sends the preface, and the refusal of its first request.
/// Everything that the program sends is discarded.
pub(crate) async fn turn_away(
    mut stream: UnixStream,
    connections_max: usize,
    shared: &ConnectionContext,
) {
    let rejection = Rejection::TooManyConnections {
        connections: connections_max,
        retry_after_ms: TURNED_AWAY_RETRY_MS,
    };
    // The role is not known yet, and the text is the same for every addressee.
    let refusal = rejection.refusal(Addressee::Person);
    // No request has this id, so the refusal answers any request.
    let Ok(frame) = codec::encode(&ServerFrame::Reply { id: 0, result: Err(refusal) }) else {
        return;
    };
    let Ok(length) = u32::try_from(frame.len()) else { return };
    let said = [&shared.preface.encode()[..], &length.to_le_bytes(), &frame].concat();
    let last_words = async {
        stream.write_all(&said).await?;
        stream.shutdown().await?;
        // If the socket were closed with unread bytes, the program's own write would fail before it
        // read this.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = timeout(Duration::from_millis(LAST_WORDS_MS), last_words).await;
}

/// Exchanges the prefaces, and agrees on a protocol version.
async fn greet(stream: &mut UnixStream, ours: &Preface) -> Result<u16, ConnectionFault> {
    stream.write_all(&ours.encode()).await?;
    let mut fixed = [0; FIXED_BYTES];
    stream.read_exact(&mut fixed).await?;
    let (mut theirs, software_bytes) = Preface::decode_fixed(&fixed)?;
    let mut software = vec![0; software_bytes];
    stream.read_exact(&mut software).await?;
    theirs.software = String::from_utf8_lossy(&software).into_owned();
    Ok(ours.agree(&theirs)?)
}

struct FrameReader<'a> {
    connection: ConnectionId,
    frames: Frames<ReadHalf<'a>>,
    in_flight: &'a Semaphore,
    outbox: &'a Outbox,
    shared: &'a ConnectionContext,
    place: ConnectionClass,
    said_hello: bool,
}

impl FrameReader<'_> {
    /// Reads until the program ends the connection.
    async fn run(
        &mut self,
        deadline: Instant,
        protocol: u16,
        pid: Option<u32>,
    ) -> Result<(), ConnectionFault> {
        let first = timeout_at(deadline, self.frames.next())
            .await
            .map_err(|_| ConnectionFault::Silent)??;
        // The frame and its room are dropped here.
        let Some(first) = first.map(|frame| frame.decode()).transpose()? else { return Ok(()) };
        let (id, hello) = match first {
            ClientFrame { id, request: Request::Hello(hello) } => (id, hello),
            ClientFrame { id, .. } => return Err(ConnectionFault::NoHello { id }),
        };
        if self.place == ConnectionClass::Operators && hello.role != Role::Operator {
            return Err(ConnectionFault::NoPlace { id });
        }
        self.hello(id, hello, protocol, pid)?;
        self.requests().await
    }

    /// Reads the requests after `Hello`. It may be interrupted anywhere and called again.
    async fn requests(&mut self) -> Result<(), ConnectionFault> {
        loop {
            self.make_room().await?;
            let Some(frame) = self.frames.next().await? else { return Ok(()) };
            let arrival = Arrival::Asked { connection: self.connection, frame };
            self.shared.arrivals.push(arrival)?;
        }
    }

    fn hello(
        &mut self,
        id: RequestId,
        hello: Hello,
        protocol: u16,
        pid: Option<u32>,
    ) -> Result<(), ConnectionFault> {
        let ancestors = pid.map(ancestry::of).unwrap_or_default();
        let outbox = self.outbox.clone();
        let arrival =
            Arrival::Hello { connection: self.connection, id, hello, protocol, ancestors, outbox };
        self.shared.arrivals.push(arrival)?;
        self.said_hello = true;
        self.take_room();
        self.frames.allow(FRAME_BYTES_MAX);
        Ok(())
    }

    /// Waits until one more request may be unanswered, and counts it. The writer decrements the
    /// count.
    ///
    /// While a connection is not read, its end is not seen either. A session that died with all its
    /// requests waiting would keep its leases. So its hang-up is watched meanwhile, through a
    /// descriptor of its own. After the hang-up there is room for the rest, which is at most a
    /// socket's buffer.
    async fn make_room(&self) -> Result<(), ConnectionFault> {
        if self.take_room() {
            return Ok(());
        }
        let same_socket = self.frames.socket().as_ref().as_fd().try_clone_to_owned()?;
        let hangup = UnixStream::from_std(same_socket.into())?;
        loop {
            tokio::select! {
                room = self.in_flight.acquire() => {
                    room.map_err(|_| ConnectionFault::Stopping)?.forget();
                    return Ok(());
                }
                ready = hangup.ready(Interest::READABLE) => {
                    if ready?.is_read_closed() {
                        return Ok(());
                    }
                    // More requests wait, and that is no news. Clear the readiness, so that only
                    // the next event wakes us.
                    let _ = hangup.try_io::<()>(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
                }
            }
        }
    }

    fn take_room(&self) -> bool {
        self.in_flight.try_acquire().map(|room| room.forget()).is_ok()
    }
}

struct FrameWriter<'a> {
    write: WriteHalf<'a>,
    /// Taken from the outbox, and not yet written to the socket. Stored here so that writing can be
    /// interrupted anywhere and continue.
    unwritten: BytesMut,
    /// Requests that the bytes in `unwritten` answer.
    answers: usize,
    in_flight: &'a Semaphore,
    outbox: &'a Outbox,
    shared: &'a ConnectionContext,
}

impl FrameWriter<'_> {
    /// Writes frames, many at once if many wait, until the connection ends and everything is
    /// written.
    async fn run(&mut self) -> io::Result<()> {
        loop {
            while !self.unwritten.is_empty() {
                let written = self.write.write_buf(&mut self.unwritten);
                match timeout(Duration::from_millis(UNREAD_TIMEOUT_MS), written).await {
                    Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => _ = written?,
                    // Its requests wait for it to read, and hold room that others share. If it
                    // asked for little, it may take its time: a session may be suspended.
                    Err(_) if self.outbox.is_crowded() => self.outbox.give_up(),
                    Err(_) => {}
                }
            }
            // Only answers that are written make room for new requests. So a program that sends
            // requests without reading answers is not read either.
            self.in_flight.add_permits(std::mem::take(&mut self.answers));
            match self.outbox.take(&mut self.unwritten) {
                Taken::Frames { answers, relieved } => {
                    self.answers = answers;
                    if relieved {
                        self.shared.arrivals.relieve();
                    }
                }
                Taken::Nothing => self.outbox.filled().await,
                Taken::End => return Ok(()),
            }
        }
    }
}

/// The reason why the broker ended a connection.
#[derive(Debug, Error)]
enum ConnectionFault {
    #[error("it sent nothing in time")]
    Silent,
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    #[error(
        "its frame is larger than {HELLO_BYTES_MAX} bytes before Hello, or {FRAME_BYTES_MAX} after"
    )]
    FrameTooLarge,
    #[error("its frame did not arrive whole in time")]
    FrameSlow,
    #[error(transparent)]
    Frame(#[from] DecodeError),
    #[error("its first request is not Hello")]
    NoHello { id: RequestId },
    #[error("it is a session's, and the last connections are reserved for the person")]
    NoPlace { id: RequestId },
    #[error("the broker is stopping")]
    Stopping,
    #[error("its socket failed: {0}")]
    Socket(io::Error),
}

impl From<Closed> for ConnectionFault {
    fn from(_: Closed) -> Self {
        Self::Stopping
    }
}

impl From<FrameFault> for ConnectionFault {
    fn from(fault: FrameFault) -> Self {
        match fault {
            FrameFault::TooLarge => Self::FrameTooLarge,
            FrameFault::Slow => Self::FrameSlow,
            FrameFault::Socket(error) => Self::Socket(error),
        }
    }
}

impl From<io::Error> for ConnectionFault {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl ConnectionFault {
    /// Returns the refusal that the program gets before its connection closes. `None`: it could not
    /// understand one.
    fn answer(&self) -> Option<(RequestId, Refusal)> {
        let (id, rejection) = match self {
            Self::Frame(error) => return Some((0, bad_frame(error))),
            Self::FrameTooLarge | Self::FrameSlow => {
                (0, Rejection::BadFrame { reason: self.to_string() })
            }
            Self::NoPlace { id } => {
                (*id, Rejection::NoPlace { retry_after_ms: TURNED_AWAY_RETRY_MS })
            }
            Self::NoHello { id } => (*id, Rejection::NoHello),
            Self::Silent | Self::Preface(_) | Self::Stopping | Self::Socket(_) => return None,
        };
        // The text is the same for every addressee.
        Some((id, rejection.refusal(Addressee::Person)))
    }
}

/// The refusal of a frame that is no value of the protocol. It is sent before the connection
/// closes, with the id 0.
pub(crate) fn bad_frame(error: &DecodeError) -> Refusal {
    let mut reason = error.to_string();
    // The decoder's own reason is one level down, and is all that helps the author of a client.
    if let DecodeError::Value(of_decoder) = error {
        reason = format!("{reason}: {of_decoder}");
    }
    Rejection::BadFrame { reason }.refusal(Addressee::Person)
}

fn report(
    connection: ConnectionId,
    pid: Option<u32>,
    fault: &ConnectionFault,
    shared: &ConnectionContext,
) {
    let kind = match fault {
        // A program that was killed, or that connected while the broker stopped: nobody can act on
        // it.
        ConnectionFault::Socket(_) | ConnectionFault::Stopping => {
            return tracing::debug!(connection = connection.0, pid, cause = %fault, "connection ended");
        }
        ConnectionFault::Silent => "silent",
        ConnectionFault::Preface(PrefaceError::Magic) => "preface",
        ConnectionFault::Preface(_) => "versions",
        ConnectionFault::FrameTooLarge | ConnectionFault::FrameSlow | ConnectionFault::Frame(_) => {
            "frame"
        }
        ConnectionFault::NoHello { .. } => "no hello",
        ConnectionFault::NoPlace { .. } => "no place",
    };
    if let Some(unsaid) = shared.warnings.due(kind) {
        tracing::warn!(connection = connection.0, pid, cause = %fault, unsaid, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use peer_proto::request::Push;

    use super::*;
    use crate::turns;

    fn frame(id: RequestId, request: Request) -> Vec<u8> {
        let payload = codec::encode(&ClientFrame { id, request }).unwrap();
        [&(payload.len() as u32).to_le_bytes()[..], &payload].concat()
    }

    /// An adapter reports what it is about to show and may be killed right after. The broker may
    /// notice the death because a write fails, before it has read the report: then it was lost.
    #[tokio::test]
    async fn what_a_program_wrote_before_it_died_still_counts() {
        // Which of the two is noticed first is left to chance each time.
        for _ in 0..32 {
            let (arrivals, arrived) = turns::open();
            let (budget, warnings, timeout) =
                (Arc::default(), Throttle::default(), Duration::from_secs(20));
            let shared = ConnectionContext {
                arrivals,
                preface: Preface::ours("/x/peerctl"),
                budget,
                warnings,
                timeout,
            };
            let (mut program, broker_end) = UnixStream::pair().unwrap();
            let serving = tokio::spawn({
                let shared = Arc::new(shared);
                async move {
                    serve(broker_end, ConnectionId(1), None, ConnectionClass::Anybodys, &shared)
                        .await
                }
            });
            let hello = Hello {
                role: Role::Adapter,
                version: "0".into(),
                executable: "/x".into(),
                seat: None,
            };
            program.write_all(&Preface::ours("/x").encode()).await.unwrap();
            program.write_all(&frame(1, Request::Hello(hello))).await.unwrap();
            let outbox = loop {
                match arrived.next() {
                    Some(Arrival::Hello { outbox, .. }) => break outbox,
                    Some(other) => panic!("hello was expected: {other:?}"),
                    // Everything runs on this one thread: nothing else happens until it is given
                    // away.
                    None => tokio::task::yield_now().await,
                }
            };
            for id in 2..102 {
                program.write_all(&frame(id, Request::Status)).await.unwrap();
            }
            drop(program);
            outbox.push(1, Push::Notice("nobody reads this".into()));
            serving.await.unwrap();
            let asked = std::iter::from_fn(|| arrived.next())
                .filter(|arrival| matches!(arrival, Arrival::Asked { .. }))
                .count();
            assert_eq!(asked, 100);
        }
    }
}
