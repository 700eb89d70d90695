//! The bytes of a connection between two link processes: a preface each way, then frames.
//!
//! Knows the preface, its noise and the length of a frame. Does not know what a frame means.
//! Invariants: before the preface a talking shell may say something, up to a limit. A frame that
//! cannot be decoded to its last byte ends the connection.

use std::io;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use peer_proto::codec;
use peer_proto::handshake::{FIXED_BYTES, LINK_MAGIC, Preface, PrefaceError};
use peer_proto::limits::FRAME_BYTES_MAX;
use peer_proto::link::Frame;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// The link protocol's version.
pub const LINK_VERSION: u16 = 1;

/// Most bytes that may come before the preface: what a shell prints when it starts.
const NOISE_BYTES_MAX: usize = 64 * 1024;

/// How much of the first line is told if no preface comes.
const NOISE_TOLD_CHARS: usize = 200;

/// Why a connection cannot be used, or ended.
#[derive(Debug, Error)]
pub enum WireError {
    /// It ended.
    #[error("the connection ended")]
    Ended,
    /// It ended, or said too much, before a preface.
    #[error("the other machine is no link: it said {0:?}")]
    NoPreface(String),
    /// The other side speaks no common version.
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    /// A frame of the other side cannot be read.
    #[error("a frame of the other machine cannot be read: {0}")]
    Frame(String),
    /// The operating system's error.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// A connection over a NATS server ended.
    #[error("{0}")]
    Session(String),
}

/// Frames from the other side, whatever carries them.
pub trait FramesIn: Send {
    /// Waits for the next frame. Nothing is lost if the wait is given up.
    fn next(&mut self) -> impl Future<Output = Result<Frame, WireError>> + Send;
}

/// Frames to the other side, whatever carries them.
pub trait FramesOut: Send {
    /// Queues a frame.
    fn feed(&mut self, frame: &Frame) -> impl Future<Output = Result<(), WireError>> + Send;

    /// Sends what is queued.
    fn flush(&mut self) -> impl Future<Output = Result<(), WireError>> + Send;
}

/// Frames from the other side.
pub struct Incoming<R>(FramedRead<R, LengthDelimitedCodec>);

/// Frames to the other side.
pub struct Outgoing<W>(FramedWrite<W, LengthDelimitedCodec>);

fn frames() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .little_endian()
        .length_field_length(4)
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec()
}

/// Exchanges prefaces. Returns both ways, and the other side's software.
///
/// # Errors
/// See [`WireError`].
pub async fn open<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut reader: R,
    mut writer: W,
    executable: &str,
) -> Result<(Incoming<R>, Outgoing<W>, String), WireError> {
    let ours = Preface { min: LINK_VERSION, max: LINK_VERSION, ..Preface::ours(executable) };
    let written = async {
        writer.write_all(&ours.encode_as(LINK_MAGIC)).await?;
        writer.flush().await
    };
    let written = written.await;
    // A side that is no link may end before it has read. What it said tells more.
    let theirs = read_preface(&mut reader).await?;
    written?;
    ours.agree(&theirs)?;
    let incoming = Incoming(FramedRead::new(reader, frames()));
    Ok((incoming, Outgoing(FramedWrite::new(writer, frames())), theirs.software))
}

/// Reads the preface, and skips what comes before it.
async fn read_preface<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Preface, WireError> {
    let mut noise = Vec::new();
    let mut matched = 0;
    while matched < LINK_MAGIC.len() {
        let byte = match reader.read_u8().await {
            Ok(byte) => byte,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(if noise.is_empty() { WireError::Ended } else { no_preface(&noise) });
            }
            Err(error) => return Err(error.into()),
        };
        // No byte but the first of the magic is its first, so a match that breaks off begins anew
        // at most with this byte.
        if byte == LINK_MAGIC[matched] {
            matched += 1;
        } else {
            noise.extend_from_slice(&LINK_MAGIC[..matched]);
            matched = usize::from(byte == LINK_MAGIC[0]);
            if matched == 0 {
                noise.push(byte);
            }
        }
        if noise.len() > NOISE_BYTES_MAX {
            return Err(no_preface(&noise));
        }
    }
    let mut fixed = [0; FIXED_BYTES];
    fixed[..LINK_MAGIC.len()].copy_from_slice(LINK_MAGIC);
    reader.read_exact(&mut fixed[LINK_MAGIC.len()..]).await.map_err(ended)?;
    let (mut preface, software_bytes) = Preface::decode_fixed_as(LINK_MAGIC, &fixed)?;
    let mut software = vec![0; software_bytes];
    reader.read_exact(&mut software).await.map_err(ended)?;
    preface.software = String::from_utf8_lossy(&software).into_owned();
    Ok(preface)
}

fn ended(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => WireError::Ended,
        _ => WireError::Io(error),
    }
}

fn no_preface(noise: &[u8]) -> WireError {
    let text = String::from_utf8_lossy(noise);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    WireError::NoPreface(line.chars().take(NOISE_TOLD_CHARS).collect())
}

impl<R: AsyncRead + Unpin + Send> FramesIn for Incoming<R> {
    async fn next(&mut self) -> Result<Frame, WireError> {
        let bytes = match self.0.next().await {
            None => return Err(WireError::Ended),
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(WireError::Frame(error.to_string()));
            }
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(bytes)) => bytes,
        };
        codec::decode(&bytes).map_err(|error| WireError::Frame(error.to_string()))
    }
}

impl<W: AsyncWrite + Unpin + Send> FramesOut for Outgoing<W> {
    async fn feed(&mut self, frame: &Frame) -> Result<(), WireError> {
        let bytes = codec::encode(frame).map_err(|error| WireError::Frame(error.to_string()))?;
        Ok(self.0.feed(Bytes::from(bytes)).await?)
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        Ok(SinkExt::<Bytes>::flush(&mut self.0).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn meet(said_before: &[u8]) -> Result<String, WireError> {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let (reader, writer) = tokio::io::split(ours);
        let (their_reader, mut their_writer) = tokio::io::split(theirs);
        their_writer.write_all(said_before).await.unwrap();
        let far = open(their_reader, their_writer, "/far/peerctl");
        let near = open(reader, writer, "/near/peerctl");
        let (near, far) = tokio::join!(near, far);
        far?;
        near.map(|(_, _, software)| software)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_shell_says_before_the_preface_is_skipped() {
        for noise in [&b""[..], b"Welcome to desk!\n", b"PEER PEERL PPEERLPEER\n", &[b'x'; 60_000]]
        {
            let software = meet(noise).await.unwrap();
            assert!(software.ends_with("/far/peerctl"), "{software:?}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_cut_at_any_byte_gives_the_frames_before_it_and_no_other() {
        let sent = [Frame::Ping, Frame::Bye { reason: "a reason".to_owned() }, Frame::Ping];
        let mut stream = Preface { min: LINK_VERSION, max: LINK_VERSION, ..Preface::ours("x") }
            .encode_as(LINK_MAGIC)
            .clone();
        let mut ends = Vec::new();
        for frame in &sent {
            let payload = codec::encode(frame).unwrap();
            stream.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            stream.extend(payload);
            ends.push(stream.len());
        }
        for cut in 0..=stream.len() {
            let (mut theirs, ours) = tokio::io::duplex(4096);
            theirs.write_all(&stream[..cut]).await.unwrap();
            theirs.shutdown().await.unwrap();
            let (reader, writer) = tokio::io::split(ours);
            let mut came = Vec::new();
            if let Ok((mut incoming, _, _)) = open(reader, writer, "x").await {
                while let Ok(frame) = incoming.next().await {
                    came.push(frame);
                }
            }
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(came, sent[..whole], "cut after {cut} bytes");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn without_a_preface_the_first_line_is_told() {
        let (mut ours, theirs) = tokio::io::duplex(1024);
        ours.write_all(b"\nbash: peerctl: command not found\n").await.unwrap();
        drop(ours);
        let (reader, writer) = tokio::io::split(theirs);
        let error = open(reader, writer, "x").await.map(|_| ()).unwrap_err();
        let said = "bash: peerctl: command not found";
        assert!(matches!(&error, WireError::NoPreface(line) if line == said), "{error:?}");
        assert!(matches!(meet(&[b'x'; 70_000]).await, Err(WireError::NoPreface(_))));
    }
}
