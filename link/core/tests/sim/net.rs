//! The network between two link processes: frames under way, in a stream that may be cut, or in a
//! stream-less service that loses, repeats and reorders.

use std::collections::VecDeque;

use peer_proto::codec::{decode, encode};
use peer_proto::link::Frame;

use crate::random::Random;

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In order, until it is cut: what was under way is lost.
    Stream,
    /// Each frame by itself: lost, repeated or overtaken, but for greetings.
    Lossy,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Way {
    frames: VecDeque<Vec<u8>>,
}

impl Way {
    /// Frames travel as bytes, as they do outside.
    pub fn send(&mut self, frame: &Frame) {
        self.frames.push_back(encode(frame).expect("a frame"));
    }

    pub fn clear(&mut self) {
        self.frames.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes the next frame that arrives, if one does, and counts what befell it.
    pub fn arrive(
        &mut self,
        kind: Kind,
        random: &mut Random,
        mut tell: impl FnMut(&'static str),
    ) -> Option<Frame> {
        let lossy = kind == Kind::Lossy && !is_greeting(self.frames.front()?);
        let place = if lossy && self.frames.len() > 1 && random.chance(20) {
            tell("frame overtakes");
            // It does not overtake a greeting.
            let end = self
                .frames
                .iter()
                .position(|bytes| is_greeting(bytes))
                .unwrap_or(self.frames.len());
            random.below(end)
        } else {
            0
        };
        let bytes = self.frames.remove(place)?;
        let frame: Frame = decode(&bytes).expect("a frame");
        if lossy && random.chance(15) {
            tell("frame lost");
            return None;
        }
        if lossy && random.chance(10) {
            tell("frame repeated");
            self.frames.push_back(bytes);
        }
        Some(frame)
    }
}

fn is_greeting(bytes: &[u8]) -> bool {
    matches!(decode::<Frame>(bytes), Ok(Frame::Hello(_) | Frame::Bye { .. }))
}
