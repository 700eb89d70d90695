//! Damaged records: what was found, and what stands in for it.
//!
//! A record that cannot be read is left out and noted here, and everything else goes on. Whoever opened the store takes the
//! news from here, and says it. What is lost of a message or a delivery is made up from the other, as far as it goes, so
//! that the person can still see, drop and give to another what the damage hit. Invariant: what is made up is never less
//! withheld than what it stands for may have been.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peer_core::record::{Brief, DeliveryRecord, MessageHead};
use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::{Cause, Intent, Kind, Sender, Stage, TraceEntry, TraceEvent, Via};
use serde::Deserialize;

use super::error::{Row, StoreError};
use super::record;

/// Records that are kept by name. Beyond it the disk is the story, and the log has it.
const ROWS_MAX: usize = 10_000;

/// What was found damaged since the store was opened, by the engine and by all readers.
#[derive(Clone, Debug, Default)]
pub(super) struct Damage {
    found: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    rows: BTreeSet<Row>,
    news: Vec<Row>,
}

impl Damage {
    /// The record in `row`; none where it is damaged, which is noted.
    pub(super) fn read<'a, T: Deserialize<'a>>(&self, row: &Row, bytes: &'a [u8]) -> Option<T> {
        self.unless_damaged(row, record::decode(row, bytes))
    }

    /// As [`Damage::read`], of a message without its text.
    pub(super) fn read_head(&self, row: &Row, bytes: &[u8]) -> Option<(MessageHead, Option<String>)> {
        self.unless_damaged(row, record::decode_head(row, bytes))
    }

    /// The message that a key names; none where it names none, which is noted.
    pub(super) fn message_id(&self, key: u128) -> Option<MessageId> {
        let id = MessageId::try_from(key).ok();
        if id.is_none() {
            self.note(Row::Key(key));
        }
        id
    }

    fn unless_damaged<T>(&self, row: &Row, read: Result<T, StoreError>) -> Option<T> {
        match read {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::debug!(cause = %crate::Chain(&error), "a damaged record");
                self.note(row.clone());
                None
            }
        }
    }

    /// Notes that the record in `row` cannot be read, or is not there though others rest on it.
    pub(super) fn note(&self, row: Row) {
        let mut found = self.found();
        if found.rows.len() < ROWS_MAX && found.rows.insert(row.clone()) {
            tracing::warn!(%row, "damaged in the database, and left out; `peerctl daemon verify` says more");
            found.news.push(row);
        }
    }

    /// What was noted since this was last asked.
    pub(super) fn take_news(&self) -> Vec<Row> {
        std::mem::take(&mut self.found().news)
    }

    pub(super) fn total(&self) -> u64 {
        self.found().rows.len() as u64
    }

    pub(super) fn has(&self, row: &Row) -> bool {
        self.found().rows.contains(row)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        // Each change to it is whole: a panic elsewhere cannot leave it half done.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stage of a delivery of which nothing is known but its table, one for each of `schema::DELIVERIES`.
pub(super) const STAND_IN_STAGES: [Stage; 4] = [Stage::Held, Stage::Dead, Stage::Expired, Stage::Cancelled];

/// Stands in for the damaged delivery of a message in the table of `stage`. It counts as held and not let go: whether it was
/// is lost.
pub(super) fn stand_in(message: MessageId, peer: PeerId, stage: Stage, head: Option<&MessageHead>) -> DeliveryRecord {
    let brief = head.map_or_else(unknown_brief, Brief::of);
    let entry = |event, cause| TraceEntry { event, at: brief.sent_at, carrier: None, cause };
    let mut trace = vec![entry(TraceEvent::Stored, None), entry(TraceEvent::Held, Some(Cause::Damaged))];
    if stage == Stage::Dead {
        trace.push(entry(TraceEvent::Dead, Some(Cause::Damaged)));
    }
    DeliveryRecord { message, peer, stage, attempts: 0, acked_at: None, answered_by: None, trace, brief }
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
        // What it was is lost.
        private: true,
    }
}

/// What the deliveries of a message still say of it; none where they say nothing.
pub(super) fn head_from(id: MessageId, deliveries: &[DeliveryRecord]) -> Option<MessageHead> {
    let known = deliveries.iter().find(|delivery| delivery.brief.from != PeerId::SYSTEM || delivery.brief.sent_at.0 > 0)?;
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
    })
}
