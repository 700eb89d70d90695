//! The frames between the broker and the search process, each with a length and a payload.
//!
//! The broker sends items to index and searches. The process sends its position and hits. Knows
//! neither store nor index. The other end is not trusted: a frame has a bound and is decoded
//! strictly.

use std::io::{self, Read, Write};

use peer_core::record::{DeliveryRecord, MessageRecord};
use peer_core::shared::{NoteRecord, TaskRecord};
use peer_core::step::Search;
use peer_proto::codec::{self, HEADER_BYTES};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::FRAME_BYTES_MAX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::Reference;

/// The position up to which the store is indexed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// All messages up to this one.
    pub(super) message: Option<MessageId>,
    /// All rows of changes up to this number.
    pub(super) row: u64,
    /// Whether the notes and tasks that existed at the start are indexed.
    pub(super) shared: bool,
}

/// An item in its current state in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum IndexEntry {
    Message(Box<MessageRecord>, Vec<Party>),
    Note(Box<NoteRecord>),
    Task(Box<TaskRecord>),
}

/// A peer that has a delivery of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Party {
    pub(super) peer: PeerId,
    kept_back: bool,
}

impl Party {
    pub(super) fn of(delivery: &DeliveryRecord) -> Self {
        Self { peer: delivery.peer, kept_back: delivery.is_kept_back() }
    }

    /// Whether it is held from its recipient and not released.
    pub(super) fn is_kept_back(&self) -> bool {
        self.kept_back
    }
}

/// One item to index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Put {
    pub(super) reference: Reference,
    /// Whether it is new, so that it can have no entry.
    pub(super) fresh: bool,
    /// `None`: it is not in the store any more.
    pub(super) entry: Option<IndexEntry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum SearchRequest {
    /// Delete the index and create a new one. Answer: [`SearchReply::Opened`].
    Begin,
    /// Index this. No answer.
    Put(Box<Put>),
    /// That was one batch. Answer: [`SearchReply::Done`].
    Through {
        /// The position of the index after it.
        cursor: Cursor,
        /// Whether it must be searchable and durable.
        commit: bool,
    },
    /// Run a search. Answer: [`SearchReply::Found`].
    Find {
        /// Returned with the answer.
        number: u64,
        /// The search, with the limits on what it may find.
        search: Box<Search>,
    },
}

/// From the search process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum SearchReply {
    /// The index is open. Sent first, without a request.
    Opened {
        cursor: Cursor,
        /// How many entries there are.
        entries: u64,
        /// The number of damaged files because of which it was rebuilt.
        damaged: u64,
    },
    /// A batch was taken.
    Done {
        /// How many entries can be found now, if it was committed.
        committed: Option<u64>,
    },
    Found {
        /// The number of the search.
        number: u64,
        /// Keys in order, and how many there are in all.
        found: SearchHits,
    },
    /// The index cannot go on; the process ends.
    Failed {
        /// The reason.
        why: String,
    },
}

/// The hits: keys in order, and their total number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SearchHits {
    pub(super) references: Vec<Reference>,
    pub(super) total: u64,
}

/// Writes one frame. If it is too large, fails before anything is written.
pub(super) fn write(to: &mut impl Write, frame: &impl Serialize) -> io::Result<()> {
    let payload = codec::encode(frame).map_err(io::Error::other)?;
    // One write, because the other end reads a frame at a time.
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_le_bytes()[..], &payload].concat())
}

/// Reads one frame. `None`: the end.
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
    codec::decode(&payload)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
