//! The client's own record of a session: proof that a model request contained what a carrier was given.

use std::path::Path;

use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;

/// How far the record was read.
#[derive(Debug, Default)]
pub(crate) struct Transcript {}

impl Transcript {
    /// What the record at `path` shows of `unproved` since the last look; with the carrier, where it tells.
    pub(crate) fn look(&mut self, path: &Path, unproved: &[MessageId]) -> Vec<(MessageId, Option<Carrier>)> {
        let _ = (path, unproved);
        Vec::new()
    }
}
