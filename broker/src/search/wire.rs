//! What the broker and the search process say to each other, in frames of a length and a payload.
//!
//! The broker sends what is to be indexed and what is looked for; the process says what it has and what it found. Knows
//! neither store nor index. The other end may be wrong in any way: a frame has a bound and is decoded strictly.

use std::io::{self, Read, Write};

use peer_core::record::{DeliveryRecord, MessageRecord};
use peer_core::step::Search;
use peer_core::thing::{NoteRecord, TaskRecord};
use peer_proto::codec::{self, HEADER_BYTES};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::FRAME_BYTES_MAX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::Reference;

/// How far the store is indexed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// All messages up to this one.
    pub(super) message: Option<MessageId>,
    /// All rows of what had to be looked at again, up to this number.
    pub(super) row: u64,
    /// Notes and tasks that were there when it was begun.
    pub(super) things: bool,
}

/// Something as the store has it now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Entry {
    Message(Box<MessageRecord>, Vec<Party>),
    Note(Box<NoteRecord>),
    Task(Box<TaskRecord>),
}

/// Somebody who has a delivery of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Party {
    pub(super) peer: PeerId,
    kept_back: bool,
}

impl Party {
    pub(super) fn of(delivery: &DeliveryRecord) -> Self {
        Self { peer: delivery.peer, kept_back: delivery.is_kept_back() }
    }

    /// Whether it is held from its reader, and never let go.
    pub(super) fn is_kept_back(&self) -> bool {
        self.kept_back
    }
}

/// One thing to index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Put {
    pub(super) reference: Reference,
    /// It is new: no entry of it can be there.
    pub(super) fresh: bool,
    /// Absent where it is in the store no more.
    pub(super) entry: Option<Entry>,
}

/// From the broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Asked {
    /// Throw the index away and begin a new one. Answer: [`Said::Opened`].
    Begin,
    /// Index this. No answer.
    Put(Box<Put>),
    /// That was one batch. Answer: [`Said::Done`].
    Through {
        /// Up to where the index is with it.
        cursor: Cursor,
        /// It shall be found and be durable.
        commit: bool,
    },
    /// Look for something. Answer: [`Said::Found`].
    Find {
        /// Comes back with the answer.
        number: u64,
        /// What is looked for, and what of it may be found.
        search: Box<Search>,
    },
}

/// From the search process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// The index is open. Comes first, without being asked for.
    Opened {
        /// How far it is.
        cursor: Cursor,
        /// How many entries there are.
        entries: u64,
        /// Files that were damaged, so that it was begun anew.
        damaged: u64,
    },
    /// A batch was taken.
    Done {
        /// How many entries can be found now, where it was committed.
        committed: Option<u64>,
    },
    /// What was found.
    Found {
        /// The question's.
        number: u64,
        /// Keys in order, and how many there are in all.
        found: Found,
    },
    /// The index cannot go on; the process ends.
    Failed {
        /// Why.
        why: String,
    },
}

/// What was found: keys in order, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) references: Vec<Reference>,
    pub(super) total: u64,
}

/// Writes one frame. One that is too large is an error before anything is written.
pub(super) fn write(to: &mut impl Write, frame: &impl Serialize) -> io::Result<()> {
    let payload = codec::encode(frame).map_err(io::Error::other)?;
    // At once: the other end reads a frame at a time.
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_le_bytes()[..], &payload].concat())
}

/// Reads one frame; none at the end.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut header = [0; HEADER_BYTES];
    match from.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(header) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame larger than any can be"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    codec::decode(&payload).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
