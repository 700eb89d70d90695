//! A connection between two members of a team, over subjects of the stream.
//!
//! It carries frames in order or ends. Knows pieces, their numbers, and which message of the server
//! each frame came in. Invariants: a piece with a number that was seen is dropped, and one that leaves a
//! gap ends the connection, because the server may repeat or lose what it has. The server is told
//! that a message arrived only after this broker has committed it. What the server confirms
//! means nothing here but that it still works.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::message::Acker;
use peer_proto::codec;
use peer_proto::ids::{BrokerId, MessageId};
use peer_proto::link::Frame;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::dispatch::Inner;
use crate::seal::{Said, SessionName};

/// Most bytes of a frame in one message of the server.
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// Most bytes of a frame.
const FRAME_BYTES_MAX: usize = peer_proto::limits::FRAME_BYTES_MAX;

/// A piece, with the means to tell the server that it arrived.
pub(crate) struct Arrived {
    pub(crate) number: u64,
    pub(crate) last: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) acker: Acker,
}

/// What the dispatcher hands to a connection.
pub(crate) enum Handed {
    Piece(Box<Arrived>),
    /// It ended, and why.
    End(String),
}

/// Why a connection ended.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct SessionError(pub String);

/// Messages of the server whose mail is not committed yet, by the message of ours that is in them.
type Uncommitted = Arc<Mutex<BTreeMap<MessageId, Vec<Acker>>>>;

fn locked(uncommitted: &Uncommitted) -> MutexGuard<'_, BTreeMap<MessageId, Vec<Acker>>> {
    uncommitted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes both directions of a connection.
pub(crate) fn halves(
    inner: &Arc<Inner>,
    name: SessionName,
    remote: (BrokerId, [u8; 32]),
    pieces: mpsc::UnboundedReceiver<Handed>,
) -> (SessionIn, SessionOut) {
    let uncommitted = Uncommitted::default();
    let incoming = SessionIn {
        pieces,
        next: 0,
        frame: Vec::new(),
        ackers: Vec::new(),
        uncommitted: Arc::clone(&uncommitted),
        inner: Arc::clone(inner),
    };
    let outgoing = SessionOut { inner: Arc::clone(inner), name, remote, next: 0, uncommitted };
    (incoming, outgoing)
}

/// Frames from the other member.
pub struct SessionIn {
    pieces: mpsc::UnboundedReceiver<Handed>,
    /// The number of the next piece.
    next: u64,
    /// The pieces of the frame that is not whole yet, and their messages.
    frame: Vec<u8>,
    ackers: Vec<Acker>,
    uncommitted: Uncommitted,
    inner: Arc<Inner>,
}

impl SessionIn {
    /// Waits for the next frame. Nothing is lost if the wait is given up.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn next(&mut self) -> Result<Frame, SessionError> {
        loop {
            let arrived = match self.pieces.recv().await {
                Some(Handed::Piece(arrived)) => *arrived,
                Some(Handed::End(why)) => return Err(SessionError(why)),
                None => return Err(SessionError("the connection to the server ended".to_owned())),
            };
            if let Some(frame) = self.put(arrived)? {
                return Ok(frame);
            }
        }
    }

    /// Adds a piece. Returns the frame that is whole with it.
    fn put(&mut self, arrived: Arrived) -> Result<Option<Frame>, SessionError> {
        let Arrived { number, last, bytes, acker } = arrived;
        if number < self.next {
            // A repeat. While mail waits for its commit, it may be a repeat of that.
            if self.ackers.is_empty() && locked(&self.uncommitted).is_empty() {
                self.inner.acknowledge(vec![acker]);
            }
            return Ok(None);
        }
        if number > self.next {
            return Err(SessionError(format!(
                "the server lost {} of what the other machine sent",
                number - self.next
            )));
        }
        self.next += 1;
        self.frame.extend_from_slice(&bytes);
        self.ackers.push(acker);
        if self.frame.len() > FRAME_BYTES_MAX {
            return Err(SessionError("the other machine sent too long a frame".to_owned()));
        }
        if !last {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.frame);
        let ackers = std::mem::take(&mut self.ackers);
        let frame = codec::decode(&bytes)
            .map_err(|error| SessionError(format!("a frame cannot be read: {error}")))?;
        match &frame {
            Frame::Mail(mail) => {
                locked(&self.uncommitted).entry(mail.id).or_default().extend(ackers);
            }
            // Of anything else the brokers hold what must last, and both sides begin anew without
            // it.
            _ => self.inner.acknowledge(ackers),
        }
        Ok(Some(frame))
    }
}

/// Frames to the other member.
pub struct SessionOut {
    inner: Arc<Inner>,
    name: SessionName,
    remote: (BrokerId, [u8; 32]),
    next: u64,
    uncommitted: Uncommitted,
}

impl SessionOut {
    /// Sends a frame.
    ///
    /// # Errors
    /// It cannot be sealed or handed to the server.
    pub async fn feed(&mut self, frame: &Frame) -> Result<(), SessionError> {
        let bytes = codec::encode(frame).map_err(|error| SessionError(error.to_string()))?;
        let mut pieces = bytes.chunks(PIECE_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let said = Said::Piece {
                session: self.name,
                number: self.next,
                last: pieces.peek().is_none(),
                bytes: piece.to_vec(),
            };
            self.next += 1;
            self.inner
                .post(self.remote, said, Some(self.name))
                .await
                .map_err(|error| SessionError(error.to_string()))?;
        }
        // `Taken` follows this broker's commit.
        if let Frame::Taken(taken) = frame
            && let Some(ackers) = locked(&self.uncommitted).remove(&taken.message)
        {
            self.inner.acknowledge(ackers);
        }
        Ok(())
    }
}

impl Drop for SessionOut {
    fn drop(&mut self) {
        self.inner.ended(self.remote.0, self.name);
    }
}
