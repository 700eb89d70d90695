//! Damaged records: which were found, and what replaces them.
//!
//! A record that cannot be read is left out and recorded here, and everything else works. The owner
//! of the store reads new damage from here and reports it. A lost message or delivery is rebuilt
//! from the other as far as possible, so that the person can still see, drop and reassign it.
//! Invariant: a replacement is never less restricted than the lost record may have been.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peer_core::record::{Brief, DeliveryRecord, MessageHead, Origin};
use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::{Cause, Intent, Kind, Sender, Stage, TraceEntry, TraceEvent, Via};
use serde::Deserialize;

use super::error::{RecordName, StoreError};
use super::record;

/// The most records that are named. With more, the disk is the problem, and the log has the rest.
const ROWS_MAX: usize = 10_000;

/// The damage that the engine and all readers found since the store was opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Damage {
    found: Arc<Mutex<DamagedRows>>,
}

#[derive(Debug, Default)]
struct DamagedRows {
    rows: BTreeSet<RecordName>,
    news: Vec<RecordName>,
}

impl Damage {
    /// Returns the record in `row`. `None`: it is damaged, which is recorded.
    pub(super) fn read<'a, T: Deserialize<'a>>(
        &self,
        row: &RecordName,
        bytes: &'a [u8],
    ) -> Option<T> {
        self.unless_damaged(row, record::decode(row, bytes))
    }

    /// Like [`Damage::read`], for a message without its text.
    pub(super) fn read_head(
        &self,
        row: &RecordName,
        bytes: &[u8],
    ) -> Option<(MessageHead, Option<String>)> {
        self.unless_damaged(row, record::decode_head(row, bytes))
    }

    /// Returns the message that a key names. `None`: it names none, which is recorded.
    pub(super) fn message_id(&self, key: u128) -> Option<MessageId> {
        let id = MessageId::try_from(key).ok();
        if id.is_none() {
            self.record(RecordName::Key(key));
        }
        id
    }

    fn unless_damaged<T>(&self, row: &RecordName, read: Result<T, StoreError>) -> Option<T> {
        match read {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::debug!(cause = %crate::Chain(&error), "a damaged record");
                self.record(row.clone());
                None
            }
        }
    }

    /// Records that the record in `row` cannot be read, or is missing while others depend on it.
    pub(super) fn record(&self, row: RecordName) {
        let mut found = self.found();
        if found.rows.len() < ROWS_MAX && found.rows.insert(row.clone()) {
            tracing::warn!(%row, "damaged in the database, and left out; `peerctl daemon verify` says more");
            found.news.push(row);
        }
    }

    /// Returns the damage that was recorded since the last call.
    pub(super) fn take_news(&self) -> Vec<RecordName> {
        std::mem::take(&mut self.found().news)
    }

    pub(super) fn total(&self) -> u64 {
        self.found().rows.len() as u64
    }

    pub(super) fn has(&self, row: &RecordName) -> bool {
        self.found().rows.contains(row)
    }

    fn found(&self) -> MutexGuard<'_, DamagedRows> {
        // Each change to it is complete: a panic elsewhere cannot leave it half done.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stage of a replaced delivery of which only the table is known, one for each of
/// `schema::DELIVERIES`.
pub(super) const STAND_IN_STAGES: [Stage; 4] =
    [Stage::Held, Stage::Dead, Stage::Expired, Stage::Cancelled];

/// Replaces the damaged delivery of a message in the table of `stage`. It counts as held and not
/// released, because that information is lost.
pub(super) fn stand_in(
    message: MessageId,
    peer: PeerId,
    stage: Stage,
    head: Option<&MessageHead>,
) -> DeliveryRecord {
    let brief = head.map_or_else(unknown_brief, Brief::of);
    let entry = |event, cause| TraceEntry { event, at: brief.sent_at, carrier: None, cause };
    let mut trace =
        vec![entry(TraceEvent::Stored, None), entry(TraceEvent::Held, Some(Cause::Damaged))];
    if stage == Stage::Dead {
        trace.push(entry(TraceEvent::Dead, Some(Cause::Damaged)));
    }
    DeliveryRecord {
        message,
        peer,
        stage,
        attempts: 0,
        acked_at: None,
        answered_by: None,
        trace,
        brief,
        rev: 0,
        relay: None,
    }
}

fn unknown_brief() -> Brief {
    Brief {
        from: PeerId::SYSTEM,
        from_name: "unknown".into(),
        via: Via::Broker,
        intent: Intent::Inform,
        kind: Kind::Notice,
        thread: String::new(),
        channel: None,
        reply_to: None,
        sent_at: Timestamp(0),
        expires_at: None,
        text_bytes: 0,
        // Whether it was private is lost.
        private: true,
        origin: None,
    }
}

/// Rebuilds a message's head from its deliveries. `None`: they do not have enough.
pub(super) fn head_from(id: MessageId, deliveries: &[DeliveryRecord]) -> Option<MessageHead> {
    let known = deliveries
        .iter()
        .find(|delivery| delivery.brief.from != PeerId::SYSTEM || delivery.brief.sent_at.0 > 0)?;
    let brief = &known.brief;
    Some(MessageHead {
        id,
        from: Sender {
            peer: brief.from,
            name: brief.from_name.clone(),
            client: String::new(),
            cwd: String::new(),
            via: brief.via,
        },
        to: deliveries.iter().map(|delivery| (delivery.peer, delivery.peer.to_string())).collect(),
        intent: brief.intent,
        kind: brief.kind,
        thread: brief.thread.clone(),
        channel: brief.channel.clone(),
        reply_to: brief.reply_to,
        sent_at: brief.sent_at,
        expires_at: brief.expires_at,
        sources: Vec::new(),
        text_bytes: brief.text_bytes,
        private: brief.private,
        // The digest is lost: a repeat of it is refused, and never stored twice.
        origin: brief.origin.map(|broker| Origin { broker, via: brief.via, digest: [0; 32] }),
    })
}
