//! Answers queries from the store, once the rules have permitted them.
//!
//! Knows how records become answers. Changes nothing. Invariants: an answer fits a frame, however
//! much is stored, and the rest is on the next page. One call takes some milliseconds at most.

use std::ops::ControlFlow;

use peer_core::broker::Broker;
use peer_core::input::ConnectionId;
use peer_core::record::{DeliveryRecord, MessageHead, MessageRecord};
use peer_core::rejection::Rejection;
use peer_core::shared::NoteHead;
use peer_core::step::Query;
use peer_core::who::Actor;
use peer_proto::codec;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::{HISTORY_ROWS_MAX, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use peer_proto::message::{Kind, TraceEvent};
use peer_proto::note::NoteInfo;
use peer_proto::refusal::Refusal;
use peer_proto::request::{Orphan, Position, Reply, Shown, ShownDelivery, Status};

use crate::store::{RecordName, Snapshot, Span, StoreError};

/// The most rows that one piece of a history reads, and messages that it returns: some
/// milliseconds' work.
const PIECE_ROWS_MAX: usize = 64;
const PIECE_ENTRIES_MAX: usize = 16;

/// The progress of a history. All other queries are answered in one piece.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    messages: Vec<Shown>,
    /// Messages that matched, returned or not, and the bytes of their texts.
    matched: usize,
    text_bytes: usize,
    /// Bytes of the returned messages.
    bytes: usize,
    rows: usize,
    /// The message after which to continue, in the order of the reading.
    cursor: Option<MessageId>,
}

/// Works on one piece of a query. `None`: call it again with the same `progress`. `status` provides
/// the values that only the engine knows.
pub(crate) fn answer(
    store: &Snapshot,
    broker: &Broker,
    asker: ConnectionId,
    query: &Query,
    progress: &mut Progress,
    status: impl FnOnce() -> Status,
) -> Result<Option<Result<Reply, Refusal>>, StoreError> {
    let refused = |rejection: Rejection| rejection.refusal(broker.addressee(asker));
    Ok(Some(match query {
        Query::Text(id) => {
            let message = store.message(*id)?;
            message
                .map(|record| Reply::Text(Box::new(record.into_message())))
                .ok_or_else(|| refused(unknown(store, *id)))
        }
        Query::Show(id) => match store.message(*id)? {
            Some(record) => {
                let deliveries = deliveries_of(store, broker, *id)?;
                Ok(Reply::Shown(Box::new(shown(broker, record, deliveries))))
            }
            None => Err(refused(unknown(store, *id))),
        },
        Query::History { .. } => return Ok(history(store, broker, query, progress)?.map(Ok)),
        Query::Orphans { after, actor } => Ok(orphans(store, broker, *after, *actor)?),
        Query::Note(key) => {
            let note = store.note(key)?;
            let missing = || refused(Rejection::UnknownNote { key: key.clone() });
            note.map(|note| Reply::Note(note_of(note.head, Some(note.value)))).ok_or_else(missing)
        }
        Query::Status => Ok(Reply::Status(Box::new(status()))),
    }))
}

/// Converts a stored note to its form in an answer.
fn note_of(head: NoteHead, value: Option<String>) -> NoteInfo {
    NoteInfo {
        key: head.key,
        value,
        tags: head.tags,
        version: head.version,
        author: head.author,
        changed_at: head.changed_at,
        expires_at: head.expires_at,
        bytes: head.bytes,
    }
}

/// The peers whose messages a history includes. Empty: all peers.
struct Between<'a> {
    peer: &'a [PeerId],
    with: &'a [PeerId],
    thread: Option<&'a str>,
    channel: Option<&'a str>,
}

impl Between<'_> {
    fn includes(&self, head: &MessageHead) -> bool {
        let sent = |by: &[PeerId]| by.contains(&head.from.peer);
        let got = |by: &[PeerId]| head.to.iter().any(|(peer, _)| by.contains(peer));
        let parties = match (self.peer, self.with) {
            ([], []) => true,
            (one, []) | ([], one) => sent(one) || got(one),
            (one, other) => (sent(one) && got(other)) || (sent(other) && got(one)),
        };
        let said_there = |channel: &str| {
            let same = head
                .channel
                .as_deref()
                .is_some_and(|said_in| said_in.eq_ignore_ascii_case(channel));
            same && head.kind != Kind::Notice
        };
        parties
            && self.thread.is_none_or(|thread| head.thread == thread)
            && self.channel.is_none_or(said_there)
    }
}

/// Reads a piece of a page: the matching messages among the next rows, without those hidden from
/// the actor. The page ends when it is full, when enough rows were read, or with the last row.
fn history(
    store: &Snapshot,
    broker: &Broker,
    query: &Query,
    progress: &mut Progress,
) -> Result<Option<Reply>, StoreError> {
    let Query::History { peer, with, thread, channel, since, before, after, limit, actor } = query
    else {
        return Ok(None);
    };
    let between = Between { peer, with, thread: thread.as_deref(), channel: channel.as_deref() };
    let mut span =
        Span { after: *after, before: *before, since: *since, oldest_first: after.is_some() };
    match progress.cursor {
        Some(cursor) if span.oldest_first => span.after = Some(cursor),
        Some(cursor) => span.before = Some(cursor),
        None => {}
    }
    let limit = (*limit).clamp(1, PAGE_ENTRIES_MAX);
    let (mut found, mut rows) = (Vec::new(), 0);
    let mut next = store.scan(span, PIECE_ROWS_MAX, |record| {
        rows += 1;
        if between.includes(&record.head) && broker.may_concern(*actor, &record.head) {
            progress.matched += 1;
            progress.text_bytes += record.text.len();
            found.push(record);
        }
        let full = progress.matched >= limit || progress.text_bytes >= PAGE_BYTES_MAX;
        if full || found.len() >= PIECE_ENTRIES_MAX {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    // Rows that are too old were read without being visited.
    progress.rows += if found.len() >= PIECE_ENTRIES_MAX { rows } else { PIECE_ROWS_MAX };
    let mut found = found.into_iter();
    for record in found.by_ref() {
        let id = record.head.id;
        let deliveries = deliveries_of(store, broker, id)?;
        if !broker.sees_message(*actor, &record.head, &deliveries) {
            continue;
        }
        let entry = shown(broker, record, deliveries);
        progress.bytes += codec::encode(&entry).map_or(PAGE_BYTES_MAX, |payload| payload.len());
        progress.messages.push(entry);
        // Cut the page if the traces of its deliveries make it too large.
        if progress.bytes >= PAGE_BYTES_MAX {
            next = if found.as_slice().is_empty() { next } else { Some(id) };
            break;
        }
    }
    progress.cursor = next;
    let full =
        progress.matched >= limit || progress.text_bytes.max(progress.bytes) >= PAGE_BYTES_MAX;
    if next.is_none() || full || progress.rows >= HISTORY_ROWS_MAX {
        return Ok(Some(Reply::History { messages: std::mem::take(&mut progress.messages), next }));
    }
    Ok(None)
}

/// Returns the deliveries of a message in their current state.
fn deliveries_of(
    store: &Snapshot,
    broker: &Broker,
    message: MessageId,
) -> Result<Vec<DeliveryRecord>, StoreError> {
    let stored = store.deliveries(message)?;
    // The core knows the lease of a pending delivery.
    let now = |delivery: DeliveryRecord| {
        broker.pending_delivery(delivery.message, delivery.peer).unwrap_or(delivery)
    };
    Ok(stored.into_iter().map(now).collect())
}

fn shown(broker: &Broker, record: MessageRecord, deliveries: Vec<DeliveryRecord>) -> Shown {
    let deliveries = deliveries.into_iter().map(|delivery| ShownDelivery {
        peer: delivery.peer,
        name: name_of(broker, delivery.peer),
        stage: delivery.stage,
        attempts: delivery.attempts,
        acked_at: delivery.acked_at,
        answered_by: delivery.answered_by,
        trace: delivery.trace,
        there: delivery.relay.and_then(|relay| relay.there),
    });
    Shown { deliveries: deliveries.collect(), message: record.into_message() }
}

fn orphans(
    store: &Snapshot,
    broker: &Broker,
    after: Option<Position>,
    actor: Actor,
) -> Result<Reply, StoreError> {
    // One more than a page, to know whether there is another.
    let mut records = store.orphans(after, PAGE_ENTRIES_MAX + 1)?;
    let more = records.len() > PAGE_ENTRIES_MAX;
    records.truncate(PAGE_ENTRIES_MAX);
    let next = records
        .last()
        .filter(|_| more)
        .map(|last| Position { message: last.message, peer: last.peer });
    records.retain(|record| broker.sees_delivery(actor, record));
    Ok(Reply::Orphans {
        entries: records.into_iter().map(|record| orphan(broker, record)).collect(),
        next,
    })
}

fn orphan(broker: &Broker, record: DeliveryRecord) -> Orphan {
    let ended = record
        .trace
        .iter()
        .rev()
        .find(|entry| matches!(entry.event, TraceEvent::Dead | TraceEvent::Expired));
    Orphan {
        message: record.message,
        peer: record.peer,
        to: name_of(broker, record.peer),
        stage: record.stage,
        cause: ended
            .and_then(|entry| entry.cause)
            .map_or(record.stage.as_str(), |cause| cause.as_str())
            .into(),
        at: ended.map_or(record.brief.sent_at, |entry| entry.at),
        text_bytes: record.brief.text_bytes,
        from: record.brief.from_name,
    }
}

fn name_of(broker: &Broker, peer: PeerId) -> String {
    broker.peer_name(peer).map_or_else(|| peer.to_string(), str::to_owned)
}

fn unknown(store: &Snapshot, id: MessageId) -> Rejection {
    if store.is_damaged(&RecordName::Message(id)) {
        Rejection::DamagedMessage(id)
    } else {
        Rejection::UnknownMessage(id)
    }
}
