//! Standard input and output, so that a client that stops reading neither blocks the adapter nor loses mail.
//!
//! Everything for the client is queued in memory, and one task drains the queue into the real output: nothing else ever
//! waits for the client. [`ClientPipe`] is rmcp's transport over it; it also notes where each tool call stands in the
//! stream of bytes, because a call is evidence for an earlier result only if it came after that result had left.
//!
//! Knows bytes and call ids; knows no message and no broker. Invariant: the queue holds at most [`QUEUE_BYTES_MAX`]; a
//! client that lets it grow beyond that gets nothing more (the process ends, and its leases return to the broker).

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use rmcp::model::{ClientNotification, ClientRequest, GetExtensions, JsonRpcMessage, RequestId};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// Bytes that may wait for a client that does not read. The longest result is far below it.
pub(crate) const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes written at once; how much has left is known to this grain.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// The queue towards the client. A handle: clones share the queue.
#[derive(Clone, Default)]
pub(crate) struct Outgoing(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    drained: Notify,
    overflown: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<u8>,
    /// Bytes ever queued.
    queued: u64,
    /// Bytes that the output has taken.
    written: u64,
}

impl Outgoing {
    /// Queues bytes. Whole lines only, so that lines of different origin never mix.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut queue = self.lock();
        queue.waiting.extend_from_slice(bytes);
        queue.queued += bytes.len() as u64;
        if queue.queued - queue.written > QUEUE_BYTES_MAX as u64 {
            self.0.overflown.notify_one();
        }
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Whether the output has taken everything.
    pub(crate) fn is_drained(&self) -> bool {
        let queue = self.lock();
        queue.queued == queue.written
    }

    /// Waits until the output has taken everything that was queued since the last time.
    pub(crate) async fn drained(&self) {
        self.0.drained.notified().await;
    }

    /// Waits until more is queued than may be.
    pub(crate) async fn overflown(&self) {
        self.0.overflown.notified().await;
    }

    /// Writes what is queued for as long as `output` takes it; returns why it no longer does.
    pub(crate) async fn write_to(self, mut output: impl AsyncWrite + Unpin) -> io::Error {
        loop {
            let waiting = std::mem::take(&mut self.lock().waiting);
            if waiting.is_empty() {
                self.0.filled.notified().await;
                continue;
            }
            for piece in waiting.chunks(WRITE_BYTES_MAX) {
                // Only a flushed byte has left: an output that is no pipe buffers.
                if let Err(error) = output.write_all(piece).await {
                    return error;
                }
                if let Err(error) = output.flush().await {
                    return error;
                }
                self.lock().written += piece.len() as u64;
            }
            if self.is_drained() {
                self.0.drained.notify_one();
            }
        }
    }

    fn queued(&self) -> u64 {
        self.lock().queued
    }

    fn written(&self) -> u64 {
        self.lock().written
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The counters are changed together with the bytes; a panic in between is impossible.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// rmcp writes its answers here: always ready, never full.
impl AsyncWrite for Outgoing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Where one tool call stands in the stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// Bytes that the output had taken when the call was read.
    written_before: u64,
    /// Where its result ends in the output's stream, once that is queued.
    result_end: OnceLock<u64>,
    /// Its result will never be sent, because the client cancelled the call.
    dropped: AtomicBool,
}

impl Call {
    /// A call read when the output had taken `written_before` bytes.
    pub(crate) fn new(written_before: u64) -> Self {
        Self { written_before, ..Self::default() }
    }

    /// Whether `earlier`'s result had left before this call was read. Overlapping calls never follow each other.
    pub(crate) fn follows(&self, earlier: &Self) -> bool {
        earlier.result_end.get().is_some_and(|end| *end <= self.written_before)
    }

    /// Whether the result was, or may yet be, sent.
    pub(crate) fn counts(&self) -> bool {
        !self.dropped.load(Ordering::Relaxed)
    }

    /// Its result ends at this offset of the output.
    pub(crate) fn answered(&self, end: u64) {
        // Only a defective client uses an id twice; the first answer counts then.
        let _ = self.result_end.set(end);
    }

    /// The client wants no result any more.
    pub(crate) fn drop_result(&self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

/// rmcp's transport: lines of JSON in, lines into the queue out.
pub(crate) struct ClientPipe<R: AsyncRead> {
    lines: AsyncRwTransport<RoleServer, R, Outgoing>,
    outgoing: Outgoing,
    unanswered: HashMap<RequestId, Arc<Call>>,
    closed: Arc<Notify>,
}

impl<R: AsyncRead + Send + Unpin> ClientPipe<R> {
    /// Reads from `input`; `closed` hears of its end.
    pub(crate) fn new(input: R, outgoing: Outgoing, closed: Arc<Notify>) -> Self {
        let lines = AsyncRwTransport::new_server(input, outgoing.clone());
        Self { lines, outgoing, unanswered: HashMap::new(), closed }
    }
}

impl<R: AsyncRead + Send + Unpin + 'static> Transport<RoleServer> for ClientPipe<R> {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleServer>) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let answered = match &item {
            JsonRpcMessage::Response(response) => self.unanswered.remove(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref().and_then(|id| self.unanswered.remove(id)),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let sending = self.lines.send(item);
        let outgoing = self.outgoing.clone();
        async move {
            sending.await?;
            if let Some(call) = answered {
                call.answered(outgoing.queued());
            }
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        // The one await: rmcp drops this future whenever something else happens, and nothing may be lost then.
        let Some(mut message) = self.lines.receive().await else {
            self.closed.notify_one();
            return None;
        };
        match &mut message {
            JsonRpcMessage::Request(request) => {
                if let ClientRequest::CallToolRequest(_) = &request.request {
                    let call = Arc::new(Call::new(self.outgoing.written()));
                    self.unanswered.insert(request.id.clone(), Arc::clone(&call));
                    request.request.extensions_mut().insert(call);
                }
            }
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(call) = cancelled.params.request_id.as_ref().and_then(|id| self.unanswered.remove(id))
                {
                    call.drop_result();
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.lines.close().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_blocks_nobody_and_gets_everything_later() {
        let outgoing = Outgoing::default();
        let (client, ours) = tokio::io::duplex(1_000);
        let writing = tokio::spawn(outgoing.clone().write_to(ours));
        let lines: Vec<String> = (0..2_000).map(|number| format!("{number:0100}\n")).collect();
        for line in &lines {
            // Pushing is not even asynchronous.
            outgoing.push(line.as_bytes());
        }
        assert!(!outgoing.is_drained());
        let mut read = vec![0; 101 * 2_000];
        let (mut reading, _) = tokio::io::split(client);
        reading.read_exact(&mut read).await.unwrap();
        assert_eq!(read, lines.concat().into_bytes());
        outgoing.drained().await;
        assert!(outgoing.is_drained());
        writing.abort();
    }

    #[tokio::test]
    async fn more_than_the_queue_may_hold_is_told() {
        let outgoing = Outgoing::default();
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..5 {
            outgoing.push(&line);
        }
        outgoing.overflown().await;
    }

    #[tokio::test]
    async fn a_client_that_closes_its_end_is_noticed() {
        let outgoing = Outgoing::default();
        let (client, ours) = tokio::io::duplex(10);
        drop(client);
        outgoing.push(b"hello\n");
        let error = outgoing.write_to(ours).await;
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn overlapping_calls_never_follow_each_other() {
        let first = Call::new(0);
        let overlapping = Call::new(0);
        assert!(!overlapping.follows(&first), "no result yet");
        first.answered(100);
        assert!(!overlapping.follows(&first));
        assert!(!Call::new(99).follows(&first), "its last byte had not left");
        assert!(Call::new(100).follows(&first));
        assert!(!first.follows(&first));
    }
}
