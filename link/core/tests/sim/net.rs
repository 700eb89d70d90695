//! The network between two link processes: a stream of bytes that may be cut anywhere, or a service
//! that keeps each frame by itself and may lose, repeat, reorder and bring back what it had.

use std::collections::VecDeque;

use peer_proto::codec::{HEADER_BYTES, decode, encode};
use peer_proto::link::Frame;

use crate::random::Random;

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes in order, until it is cut: what was under way is lost, from any byte on.
    Stream,
    /// Each frame by itself: lost, repeated, overtaken, or brought again after the service lost its
    /// place. Greetings are neither lost nor overtaken: the transport begins a connection with them.
    Service,
    /// As `Service`, and frames of connections that have ended may come as well.
    Attic,
}

/// Frames of ended connections that are kept.
const ATTIC_MAX: usize = 12;

/// One direction.
#[derive(Debug, Default)]
pub struct Way {
    /// What was sent and has not come: whole frames of a service.
    frames: VecDeque<Vec<u8>>,
    /// What was sent and has not come: the bytes of a stream, with the length before each frame.
    bytes: VecDeque<u8>,
    /// What has come of a frame that is not whole yet.
    begun: Vec<u8>,
    /// What came on this connection, for a service that lost its place.
    came: Vec<Vec<u8>>,
    /// Frames of ended connections.
    attic: Vec<Vec<u8>>,
}

impl Way {
    /// Frames travel as bytes, as they do outside.
    pub fn send(&mut self, kind: Kind, frame: &Frame) {
        let payload = encode(frame).expect("a frame");
        if kind == Kind::Stream {
            let length = u32::try_from(payload.len()).expect("a frame is not that long");
            self.bytes.extend(length.to_le_bytes());
            self.bytes.extend(payload);
        } else {
            self.frames.push_back(payload);
        }
    }

    /// The connection ends.
    pub fn clear(&mut self) {
        self.attic.extend(self.came.drain(..).chain(self.frames.drain(..)));
        self.attic.retain(|bytes| !is_greeting(bytes));
        let surplus = self.attic.len().saturating_sub(ATTIC_MAX);
        self.attic.drain(..surplus);
        self.bytes.clear();
        self.begun.clear();
    }

    /// The network is whole from now on: what a stream had under way goes on as frames of a stream.
    pub fn become_stream(&mut self) {
        self.attic.clear();
        self.came.clear();
        for payload in std::mem::take(&mut self.frames) {
            let length = u32::try_from(payload.len()).expect("a frame is not that long");
            self.bytes.extend(length.to_le_bytes());
            self.bytes.extend(payload);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.bytes.is_empty()
    }

    /// Takes what arrives next, and returns a frame if one is whole. Counts what befell it.
    pub fn arrive(
        &mut self,
        kind: Kind,
        random: &mut Random,
        tell: &mut impl FnMut(&'static str),
    ) -> Option<Frame> {
        match kind {
            Kind::Stream => self.arrive_bytes(random, tell),
            Kind::Service | Kind::Attic => self.arrive_frame(random, tell),
        }
    }

    /// A part of the stream arrives: mostly a whole frame, sometimes fewer bytes.
    fn arrive_bytes(
        &mut self,
        random: &mut Random,
        tell: &mut impl FnMut(&'static str),
    ) -> Option<Frame> {
        let missing = self.missing();
        let count = if random.chance(90) { missing } else { 1 + random.below(missing) };
        if count < missing {
            tell("part of a frame arrives");
        }
        self.begun.extend(self.bytes.drain(..count.min(self.bytes.len())));
        self.whole()
    }

    /// Bytes that the present frame still needs.
    fn missing(&self) -> usize {
        let byte = |place: usize| {
            let from_bytes = || self.bytes[place - self.begun.len()];
            self.begun.get(place).copied().unwrap_or_else(from_bytes)
        };
        let length = u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]);
        HEADER_BYTES + length as usize - self.begun.len()
    }

    fn whole(&mut self) -> Option<Frame> {
        let header = self.begun.first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_le_bytes(*header) as usize;
        if self.begun.len() < HEADER_BYTES + length {
            return None;
        }
        let frame = decode(&self.begun[HEADER_BYTES..]).expect("a frame");
        self.begun.clear();
        Some(frame)
    }

    /// The stream is about to be cut: returns the frames that still come whole, as the cut is at any
    /// byte of what is under way.
    pub fn last_frames(&mut self, random: &mut Random) -> Vec<Frame> {
        let mut left = random.below(self.bytes.len() + 1);
        let mut frames = Vec::new();
        while left > 0 && !self.bytes.is_empty() {
            let count = self.missing().min(left);
            self.begun.extend(self.bytes.drain(..count));
            left -= count;
            frames.extend(self.whole());
        }
        frames
    }

    fn arrive_frame(
        &mut self,
        random: &mut Random,
        tell: &mut impl FnMut(&'static str),
    ) -> Option<Frame> {
        let loose = !is_greeting(self.frames.front()?);
        let place = if loose && self.frames.len() > 1 && random.chance(20) {
            tell("frame overtakes");
            random.below(self.until_greeting())
        } else {
            0
        };
        let bytes = self.frames.remove(place)?;
        let frame: Frame = decode(&bytes).expect("a frame");
        if loose && random.chance(12) {
            tell("frame lost");
            return None;
        }
        if loose && random.chance(8) {
            tell("frame repeated");
            self.frames.push_back(bytes.clone());
        }
        self.came.push(bytes);
        Some(frame)
    }

    fn until_greeting(&self) -> usize {
        let greeting = self.frames.iter().position(|bytes| is_greeting(bytes));
        greeting.unwrap_or(self.frames.len())
    }

    /// The service loses the last frames that it had accepted. Returns whether it had any.
    pub fn lose_tail(&mut self, random: &mut Random) -> bool {
        let count = 1 + random.below(4);
        let mut lost = false;
        for _ in 0..count {
            if self.frames.back().is_none_or(|bytes| is_greeting(bytes)) {
                break;
            }
            lost = self.frames.pop_back().is_some();
        }
        lost
    }

    /// The service forgets where its reader was: it brings the last frames again, in order. Returns
    /// whether there are any.
    pub fn roll_back(&mut self, random: &mut Random) -> bool {
        let after = self.came.iter().rposition(|bytes| is_greeting(bytes)).map_or(0, |at| at + 1);
        let from = after + random.below(self.came.len() - after + 1);
        let again = self.came.split_off(from);
        let some = !again.is_empty();
        let place = self.frames.iter().rposition(|bytes| is_greeting(bytes)).map_or(0, |at| at + 1);
        for (offset, bytes) in again.into_iter().enumerate() {
            self.frames.insert(place + offset, bytes);
        }
        some
    }

    /// A frame of an ended connection, if there is one.
    pub fn stale(&mut self, random: &mut Random) -> Option<Frame> {
        if self.attic.is_empty() {
            return None;
        }
        let place = random.below(self.attic.len());
        Some(decode(&self.attic[place]).expect("a frame"))
    }
}

fn is_greeting(bytes: &[u8]) -> bool {
    matches!(decode::<Frame>(bytes), Ok(Frame::Hello(_) | Frame::Bye { .. }))
}
