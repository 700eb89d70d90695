//! Frames to be written to one connection: filled by the engine, emptied by the connection's
//! writer.
//!
//! Filling never blocks, so a program that does not read cannot delay the engine or other
//! connections. Invariant: the waiting bytes are bounded. A connection that exceeds the bound is
//! closed, and its session's deliveries are ready for its next connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, BytesMut};
use peer_core::rejection::Rejection;
use peer_core::wording::Addressee;
use peer_proto::codec::{self, HEADER_BYTES};
use peer_proto::limits::WATCH_BACKLOG_BYTES_MAX;
use peer_proto::refusal::Refusal;
use peer_proto::request::{Goodbye, Push, Reply, RequestId, ServerFrame};
use tokio::sync::Notify;

/// The most bytes that may wait for any connection. A session's window and the answers to its
/// unanswered requests stay below it. Only a program that sends requests and does not read reaches
/// it.
const BACKLOG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers that may wait unread before no more requests of that connection are handled. Pages
/// arrive as fast as they are read.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

/// Bytes that the writer takes at once: enough to make a system call cheap per frame, few enough to
/// copy.
const WRITE_BATCH_BYTES: usize = 256 * 1024;

/// One connection's queue. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    shared: Arc<OutboxState>,
}

#[derive(Debug, Default)]
struct OutboxState {
    queue: Mutex<OutboxQueue>,
    /// Signals that something can be taken.
    filled: Notify,
    /// Signals that nothing more is accepted.
    ending: Notify,
}

#[derive(Debug, Default)]
struct OutboxQueue {
    frames: VecDeque<QueuedFrame>,
    bytes: usize,
    /// Bytes of the answers among them.
    answer_bytes: usize,
    /// Whether it got an event, so that the narrower bound applies.
    watches: bool,
    /// The engine's batch that last pushed an event here, and the bytes that waited when that batch
    /// began. A burst within one batch does not mean that the program reads slowly.
    batch: u64,
    bytes_before_batch: usize,
    ended: bool,
}

#[derive(Debug)]
struct QueuedFrame {
    payload: Vec<u8>,
    answers: bool,
}

/// The result of a take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Bytes to write, with the answers to this many requests.
    Frames {
        /// Requests that the bytes answer.
        answers: usize,
        /// Whether the outbox was crowded until this take.
        relieved: bool,
    },
    Nothing,
    /// Nothing waits and nothing will come: close the connection.
    End,
}

impl Outbox {
    pub(crate) fn reply(&self, id: RequestId, result: Result<Reply, Refusal>) {
        let payload = codec::encode(&ServerFrame::Reply { id, result }).unwrap_or_else(|error| {
            tracing::error!(cause = %error, "an answer does not fit a frame");
            // The refusal has the same text for every addressee.
            let refusal = Rejection::AnswerTooLarge.refusal(Addressee::Person);
            codec::encode(&ServerFrame::Reply { id, result: Err(refusal) })
                .expect("a short refusal fits a frame")
        });
        self.enqueue(self.queue(), QueuedFrame { payload, answers: true });
    }

    /// Pushes a frame in the engine's batch of that number.
    pub(crate) fn push(&self, batch: u64, push: Push) {
        let event = matches!(push, Push::Event { .. });
        match codec::encode(&ServerFrame::Push(push)) {
            Ok(payload) => {
                let mut queue = self.queue();
                if event && queue.batch != batch {
                    queue.watches = true;
                    queue.batch = batch;
                    queue.bytes_before_batch = queue.bytes;
                }
                self.enqueue(queue, QueuedFrame { payload, answers: false });
            }
            Err(error) => tracing::error!(cause = %error, "a push does not fit a frame"),
        }
    }

    /// Ends the connection once the waiting frames are written.
    pub(crate) fn close(&self) {
        self.queue().ended = true;
        self.shared.filled.notify_one();
        self.shared.ending.notify_one();
    }

    /// Whether the connection is ending. It gets no more frames, and its requests need no handling.
    pub(crate) fn is_ending(&self) -> bool {
        self.queue().ended
    }

    /// Whether both belong to the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether so many answers wait that its program must read before it gets more.
    pub(crate) fn is_crowded(&self) -> bool {
        self.queue().is_crowded()
    }

    /// Ends a connection whose program does not read. Drops the waiting frames, and sends the
    /// reason.
    pub(crate) fn give_up(&self) {
        let mut queue = self.queue();
        if !queue.ended {
            queue.give_up();
        }
        drop(queue);
        self.shared.filled.notify_one();
        self.shared.ending.notify_one();
    }

    /// Returns once the connection is ending. For one waiter.
    pub(crate) async fn ending(&self) {
        while !self.is_ending() {
            self.shared.ending.notified().await;
        }
    }

    /// Returns once something may be taken. For one waiter.
    pub(crate) async fn filled(&self) {
        self.shared.filled.notified().await;
    }

    /// Moves frames, with their lengths, to the end of `bytes`.
    pub(crate) fn take(&self, bytes: &mut BytesMut) -> Taken {
        let mut queue = self.queue();
        let (mut answers, mut any) = (0, false);
        let was_crowded = queue.is_crowded();
        while bytes.len() < WRITE_BATCH_BYTES
            && let Some(frame) = queue.frames.pop_front()
        {
            queue.bytes -= frame.bytes();
            queue.answer_bytes -= if frame.answers { frame.bytes() } else { 0 };
            bytes.put_u32_le(frame.payload.len() as u32);
            bytes.put_slice(&frame.payload);
            answers += usize::from(frame.answers);
            any = true;
        }
        match (any, queue.ended) {
            (true, _) => Taken::Frames { answers, relieved: was_crowded && !queue.is_crowded() },
            (false, true) => Taken::End,
            (false, false) => Taken::Nothing,
        }
    }

    fn queue(&self) -> MutexGuard<'_, OutboxQueue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, mut queue: MutexGuard<'_, OutboxQueue>, frame: QueuedFrame) {
        queue.add(frame);
        if queue.is_too_long() {
            queue.give_up();
            self.shared.ending.notify_one();
        }
        drop(queue);
        self.shared.filled.notify_one();
    }
}

impl OutboxQueue {
    fn add(&mut self, frame: QueuedFrame) {
        if !self.ended {
            self.bytes += frame.bytes();
            self.answer_bytes += if frame.answers { frame.bytes() } else { 0 };
            self.frames.push_back(frame);
        }
    }

    fn is_crowded(&self) -> bool {
        !self.ended && self.answer_bytes >= ANSWERS_BYTES_MAX
    }

    fn is_too_long(&self) -> bool {
        let slow_watcher = self.watches && self.bytes_before_batch > WATCH_BACKLOG_BYTES_MAX;
        !self.ended && (slow_watcher || self.bytes > BACKLOG_BYTES_MAX)
    }

    /// Drops the waiting frames, adds the reason, and ends.
    fn give_up(&mut self) {
        self.frames.clear();
        (self.bytes, self.answer_bytes) = (0, 0);
        let payload = codec::encode(&ServerFrame::Push(Push::Goodbye(Goodbye::TooSlow)))
            .expect("a goodbye fits a frame");
        self.add(QueuedFrame { payload, answers: false });
        self.ended = true;
    }
}

impl QueuedFrame {
    fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

#[cfg(test)]
impl Outbox {
    /// Takes and decodes all waiting frames.
    pub(crate) fn taken(&self) -> Vec<ServerFrame> {
        use bytes::Buf;

        let (mut bytes, mut frames) = (BytesMut::new(), Vec::new());
        while let Taken::Frames { .. } = self.take(&mut bytes) {
            while !bytes.is_empty() {
                let length = bytes.get_u32_le() as usize;
                frames
                    .push(codec::decode(&bytes.split_to(length)).expect("the outbox holds frames"));
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(bytes: usize) -> Push {
        Push::Notice("n".repeat(bytes))
    }

    fn event(bytes: usize) -> Push {
        let event = peer_proto::request::WatchEvent::Damaged { what: "t".repeat(bytes) };
        Push::Event { at: peer_proto::ids::Timestamp(0), event: Box::new(event) }
    }

    #[test]
    fn frames_keep_their_order_and_answers_are_counted() {
        let outbox = Outbox::default();
        outbox.reply(7, Ok(Reply::Done));
        outbox.push(1, notice(1));
        let mut bytes = BytesMut::new();
        assert_eq!(outbox.take(&mut bytes), Taken::Frames { answers: 1, relieved: false });
        assert_eq!(outbox.take(&mut bytes), Taken::Nothing);
        outbox.close();
        assert_eq!(outbox.take(&mut bytes), Taken::End);
    }

    #[test]
    fn what_comes_after_the_end_is_dropped() {
        let outbox = Outbox::default();
        outbox.push(1, notice(1));
        outbox.close();
        outbox.push(1, notice(2));
        assert_eq!(outbox.taken(), [ServerFrame::Push(notice(1))]);
    }

    #[test]
    fn a_watcher_that_does_not_read_is_told_so_and_ended() {
        let outbox = Outbox::default();
        let mut batch = 0;
        while !outbox.is_ending() {
            batch += 1;
            outbox.push(batch, event(60_000));
            assert!(batch < 100, "the backlog is not bounded");
        }
        assert!(
            batch as usize * 60_000 > WATCH_BACKLOG_BYTES_MAX,
            "ended after {batch} events only"
        );
        assert_eq!(outbox.taken(), [ServerFrame::Push(Push::Goodbye(Goodbye::TooSlow))]);
    }

    #[test]
    fn a_burst_within_one_batch_does_not_make_a_watcher_slow() {
        let outbox = Outbox::default();
        for _ in 0..100 {
            outbox.push(1, event(60_000));
        }
        assert!(!outbox.is_ending());
        assert_eq!(outbox.taken().len(), 100);
        outbox.push(2, event(1));
        assert!(!outbox.is_ending());
    }

    #[test]
    fn a_program_that_asks_and_does_not_read_is_ended() {
        let outbox = Outbox::default();
        for _ in 0..BACKLOG_BYTES_MAX / 500_000 + 1 {
            outbox.push(1, notice(500_000));
        }
        assert!(outbox.is_ending());
    }
}
