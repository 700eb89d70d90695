//! Reads frames from a socket, each with room in the [`budget`](crate::budget).
//!
//! Knows lengths and deadlines, but not the frames' meaning. The engine decodes a request when its
//! turn comes, because a decoded request can take many times its bytes. Invariants: a body is not
//! read before there is room for it. A frame arrives whole within its time, or its connection ends.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use peer_proto::codec::{self, DecodeError, HEADER_BYTES};
use peer_proto::limits::{HELLO_BYTES_MAX, REQUEST_BYTES_MAX};
use peer_proto::request::ClientFrame;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::time::{Instant, timeout_at};

use crate::budget::{Room, Share};

/// Bytes that are read from a socket at once if frames are small: many frames cost one system call.
const READ_BATCH_BYTES: usize = 4 * 1024;

/// One undecoded frame, with the room that it takes.
#[derive(Debug)]
pub(crate) struct Frame {
    payload: BytesMut,
    /// `None`: a test made the frame.
    _room: Option<Room>,
}

impl Frame {
    pub(crate) fn decode(&self) -> Result<ClientFrame, DecodeError> {
        codec::decode(&self.payload)
    }

    /// How long its payload is.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len()
    }

    #[cfg(test)]
    pub(crate) fn of(frame: &ClientFrame) -> Self {
        Self { payload: BytesMut::from(&codec::encode(frame).unwrap()[..]), _room: None }
    }
}

/// The reason why there is no next frame.
#[derive(Debug)]
pub(crate) enum FrameFault {
    TooLarge,
    Slow,
    Socket(io::Error),
}

/// The frames of one connection.
pub(crate) struct Frames<R> {
    socket: BufReader<R>,
    share: Share,
    timeout: Duration,
    bytes_max: usize,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// The deadline of the incomplete frame. `None`: between frames.
    deadline: Option<Instant>,
    body: Option<FrameBody>,
}

struct FrameBody {
    payload: BytesMut,
    length: usize,
    room: Room,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Reads frames before `Hello`: an unknown program gets little room.
    pub(crate) fn of_a_stranger(socket: R, share: Share, timeout: Duration) -> Self {
        let socket = BufReader::with_capacity(READ_BATCH_BYTES, socket);
        let (header, header_bytes) = ([0; HEADER_BYTES], 0);
        Self {
            socket,
            share,
            timeout,
            bytes_max: HELLO_BYTES_MAX,
            header,
            header_bytes,
            deadline: None,
            body: None,
        }
    }

    /// Sets the largest size of a frame from now on.
    pub(crate) fn allow(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    pub(crate) fn socket(&self) -> &R {
        self.socket.get_ref()
    }

    /// Returns the next frame. `None`: the program ended the connection between two frames. It may
    /// be interrupted anywhere and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, FrameFault> {
        loop {
            if let Some(body) = &mut self.body {
                let missing = body.length - body.payload.len();
                if missing > 0 {
                    let mut rest = (&mut body.payload).limit(missing);
                    let deadline =
                        *self.deadline.get_or_insert_with(|| Instant::now() + self.timeout);
                    read_some(timeout_at(deadline, self.socket.read_buf(&mut rest)).await)?;
                    continue;
                }
                let whole = self.body.take();
                (self.header_bytes, self.deadline) = (0, None);
                return Ok(
                    whole.map(|body| Frame { payload: body.payload, _room: Some(body.room) })
                );
            }
            if self.header_bytes < HEADER_BYTES {
                let rest = &mut self.header[self.header_bytes..];
                if self.header_bytes == 0 {
                    match self.socket.read(rest).await.map_err(FrameFault::Socket)? {
                        0 => return Ok(None),
                        count => self.header_bytes = count,
                    }
                    self.deadline = Some(Instant::now() + self.timeout);
                } else {
                    let deadline =
                        *self.deadline.get_or_insert_with(|| Instant::now() + self.timeout);
                    self.header_bytes +=
                        read_some(timeout_at(deadline, self.socket.read(rest)).await)?;
                }
                continue;
            }
            let length = u32::from_le_bytes(self.header) as usize;
            if length > self.bytes_max {
                return Err(FrameFault::TooLarge);
            }
            let room = if length > REQUEST_BYTES_MAX {
                // Few are read at once: a queue of frames must not live longer than one frame may.
                let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.timeout);
                timeout_at(deadline, self.share.take(length)).await.map_err(|_| FrameFault::Slow)?
            } else {
                let room = self.share.take(length).await;
                // The program did nothing wrong while there was no room.
                self.deadline = Some(Instant::now() + self.timeout);
                room
            };
            self.body = Some(FrameBody { payload: BytesMut::with_capacity(length), length, room });
        }
    }
}

/// Returns the bytes of one read within a frame. Fails at the end of the stream, or too late.
fn read_some(
    read: Result<io::Result<usize>, tokio::time::error::Elapsed>,
) -> Result<usize, FrameFault> {
    match read {
        Ok(Ok(0)) => Err(FrameFault::Socket(io::ErrorKind::UnexpectedEof.into())),
        Ok(Ok(count)) => Ok(count),
        Ok(Err(error)) => Err(FrameFault::Socket(error)),
        Err(_) => Err(FrameFault::Slow),
    }
}
