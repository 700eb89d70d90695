//! The life of a delivery: every change of its stage, in one table.
//!
//! Knows deliveries and their leases. Does not know mailboxes, peers, nor who may do what. Invariant: no other
//! rule writes a stage, or a line of a trace. `docs/delivery.md` shows the same table, and a test compares the two. The store
//! alone makes a record up by hand, where damage took the one that was there.

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::TRACE_ENTRIES_MAX;
use peer_proto::message::{Carrier, Cause, Evidence, Stage, TraceEntry, TraceEvent};
use peer_proto::request::DeliveryEvent;

use crate::record::{Brief, DeliveryRecord};
use crate::state::mailbox::{Lease, MailboxEntry};

/// What happens to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// The reader's policy holds it.
    Hold,
    /// The person releases it.
    Release,
    /// The broker pushes it to a session. In memory only.
    Lease(Lease),
    /// The session gives it back, or ends, and no attempt is counted. In memory only.
    Unlease,
    /// The session handed it to a carrier.
    Offer {
        carrier: Carrier,
        /// When the session is to try the next carrier, on the monotonic clock.
        overdue_at_ms: Option<u64>,
    },
    /// The session took its offer back, or ended. The end of a session is an attempt if it may have asked a model with it.
    Return(Cause),
    /// Evidence shows that the model was shown the whole text.
    Present { carrier: Option<Carrier>, evidence: Evidence },
    /// The reader dealt with it.
    Ack,
    /// The reader replied, with this message.
    Answer(MessageId),
    /// Its time to live ended.
    Expire,
    /// The sender withdrew it, or the person did.
    Cancel(Option<Cause>),
    /// It became a dead letter.
    DeadLetter(Cause),
    /// The person puts a dead letter back into its queue.
    Requeue,
    /// The person gives a dead letter to this peer.
    Reassign(PeerId),
    /// Its reader turned out to be this peer.
    Bind(PeerId),
    /// The person drops a dead letter.
    Drop,
}

impl Transition {
    /// The legal table: the stage that follows `from`; none where this cannot happen there.
    fn next(self, from: Stage) -> Option<Stage> {
        use Stage::{Cancelled, Dead, Dropped, Expired, Held, Leased, Offered, Presented, Stored};
        Some(match (self, from) {
            (Self::Hold, Stored) => Held,
            (Self::Release, Held) => Stored,
            (Self::Lease(_), Stored) => Leased,
            (Self::Unlease, Leased) => Stored,
            // A broker that was killed leaves deliveries that are offered, and leased to nobody.
            (Self::Lease(_) | Self::Unlease, Offered) => Offered,
            (Self::Offer { .. }, Leased | Offered) => Offered,
            (Self::Return(_), Offered) => Stored,
            // A reader may acknowledge what it was shown before the broker was killed, or before it became a dead letter.
            (Self::Present { .. }, Stored | Leased | Offered | Dead) => Presented,
            (Self::Ack | Self::Answer(_), Presented | Expired | Cancelled | Dropped) => from,
            (Self::Expire, Stored | Leased | Offered | Held) => Expired,
            (Self::Cancel(_), Stored | Leased | Offered | Held) => Cancelled,
            (Self::DeadLetter(_), Stored | Leased | Offered | Held) => Dead,
            (Self::Requeue | Self::Reassign(_), Dead | Expired) => Stored,
            (Self::Bind(_), Stored | Offered | Held) => from,
            (Self::Drop, Dead | Expired) => Dropped,
            _ => return None,
        })
    }

    /// The line that it leaves in the trace; none where it happens in memory only.
    fn traced(self) -> Option<TraceEvent> {
        Some(match self {
            Self::Lease(_) | Self::Unlease => return None,
            Self::Hold => TraceEvent::Held,
            Self::Release => TraceEvent::Released,
            Self::Offer { .. } => TraceEvent::Offered,
            Self::Return(_) => TraceEvent::Returned,
            Self::Present { .. } => TraceEvent::Presented,
            Self::Ack => TraceEvent::Acked,
            Self::Answer(_) => TraceEvent::Answered,
            Self::Expire => TraceEvent::Expired,
            Self::Cancel(_) => TraceEvent::Cancelled,
            Self::DeadLetter(_) => TraceEvent::Dead,
            Self::Requeue => TraceEvent::Requeued,
            Self::Reassign(_) | Self::Bind(_) => TraceEvent::Reassigned,
            Self::Drop => TraceEvent::Dropped,
        })
    }

    /// What watchers are told; none where they are not.
    fn event(self) -> Option<DeliveryEvent> {
        Some(match self {
            Self::Bind(_) => return None,
            Self::Hold => DeliveryEvent::Held,
            Self::Release => DeliveryEvent::Released,
            Self::Lease(_) => DeliveryEvent::Leased,
            Self::Offer { carrier, .. } => DeliveryEvent::Offered { carrier },
            Self::Unlease | Self::Return(_) => DeliveryEvent::Returned { cause: self.cause() },
            Self::Present { carrier, evidence } => DeliveryEvent::Presented { carrier, evidence },
            Self::Ack => DeliveryEvent::Acked,
            Self::Answer(_) => DeliveryEvent::Answered,
            Self::Expire => DeliveryEvent::Expired,
            Self::Cancel(cause) => DeliveryEvent::Cancelled { cause },
            Self::DeadLetter(cause) => DeliveryEvent::Dead { cause },
            // It waits as if it had just been accepted.
            Self::Requeue | Self::Reassign(_) => DeliveryEvent::Stored { cause: self.cause(), text: None },
            Self::Drop => DeliveryEvent::Dropped,
        })
    }

    fn carrier(self) -> Option<Carrier> {
        match self {
            Self::Offer { carrier, .. } => Some(carrier),
            Self::Present { carrier, .. } => carrier,
            _ => None,
        }
    }

    fn cause(self) -> Option<Cause> {
        match self {
            Self::Hold => Some(Cause::Policy),
            Self::Release | Self::Requeue | Self::Reassign(_) | Self::Drop => Some(Cause::Operator),
            Self::Return(cause) | Self::DeadLetter(cause) => Some(cause),
            Self::Present { evidence, .. } => Some(Cause::Evidence(evidence)),
            Self::Expire => Some(Cause::TtlEnded),
            Self::Cancel(cause) => cause,
            Self::Bind(_) => Some(Cause::Bound),
            Self::Lease(_) | Self::Unlease | Self::Offer { .. } | Self::Ack | Self::Answer(_) => None,
        }
    }

    /// Its name in `docs/delivery.md`.
    #[cfg(test)]
    fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Lease(_) => "lease",
            Self::Unlease => "unlease",
            Self::Offer { .. } => "offer",
            Self::Return(_) => "return",
            Self::Present { .. } => "present",
            Self::Ack => "ack",
            Self::Answer(_) => "answer",
            Self::Expire => "expire",
            Self::Cancel(_) => "cancel",
            Self::DeadLetter(_) => "dead-letter",
            Self::Requeue => "requeue",
            Self::Reassign(_) => "reassign",
            Self::Bind(_) => "bind",
            Self::Drop => "drop",
        }
    }

    /// Whether the store is told.
    pub(crate) fn is_durable(self) -> bool {
        self.traced().is_some()
    }
}

impl DeliveryRecord {
    /// A delivery that was accepted just now.
    pub(crate) fn accepted(message: MessageId, peer: PeerId, brief: Brief, at: Timestamp) -> Self {
        let begun = TraceEntry { event: TraceEvent::Stored, at, carrier: None, cause: None };
        Self { message, peer, stage: Stage::Stored, attempts: 0, acked_at: None, answered_by: None, trace: vec![begun], brief }
    }

    /// Carries out a transition of a delivery that no session holds. Returns what watchers are told.
    pub(crate) fn apply(&mut self, transition: Transition, at: Timestamp) -> Option<DeliveryEvent> {
        let stage = self.stage;
        self.apply_from(stage, transition, at)
    }

    fn apply_from(&mut self, from: Stage, transition: Transition, at: Timestamp) -> Option<DeliveryEvent> {
        let next = transition.next(from);
        debug_assert!(next.is_some(), "{transition:?} of {} for {}, which is {from:?}", self.message, self.peer);
        self.stage = match next {
            // A lease is in memory alone.
            Some(Stage::Leased) => Stage::Stored,
            Some(stage) => stage,
            None => return None,
        };
        match transition {
            Transition::Ack => self.acked_at = Some(at),
            Transition::Answer(reply) => self.answered_by = Some(reply),
            Transition::DeadLetter(Cause::AttemptsExceeded) => self.attempts += 1,
            Transition::Bind(peer) => self.peer = peer,
            Transition::Requeue | Transition::Reassign(_) => {
                self.attempts = 0;
                // What expired once must not expire again at once.
                self.brief.expires_at = None;
                if let Transition::Reassign(peer) = transition {
                    self.peer = peer;
                }
            }
            _ => {}
        }
        let (carrier, cause) = (transition.carrier(), transition.cause());
        if let Some(event) = transition.traced() {
            self.trace(TraceEntry { event, at, carrier, cause });
        }
        transition.event()
    }

    /// Writes one line. A full trace loses its second line: how it began stays.
    fn trace(&mut self, entry: TraceEntry) {
        if self.trace.len() >= TRACE_ENTRIES_MAX {
            self.trace.remove(1);
        }
        self.trace.push(entry);
    }

    /// Two deliveries became one, this one: copies the other's offer, so that a model is told of a repeat.
    pub(crate) fn copy_offer(&mut self, other: &Self) {
        let offered = |record: &Self| record.trace.iter().find(|entry| entry.event == TraceEvent::Offered).copied();
        if let (None, Some(entry)) = (offered(self), offered(other)) {
            self.trace.insert(1, entry);
            self.trace.truncate(TRACE_ENTRIES_MAX);
        }
    }

    /// Whether it was ever handed to a carrier, as far as the trace goes back.
    pub(crate) fn was_offered(&self) -> bool {
        self.trace.iter().any(|entry| entry.event == TraceEvent::Offered)
    }

    /// The carrier that any session offered it by last.
    pub(crate) fn offered_last_by(&self) -> Option<Carrier> {
        self.trace.iter().rfind(|entry| entry.event == TraceEvent::Offered).and_then(|entry| entry.carrier)
    }
}

impl MailboxEntry {
    /// Carries out a transition, its lease included. Returns what watchers are told.
    pub(crate) fn apply(&mut self, transition: Transition, at: Timestamp) -> Option<DeliveryEvent> {
        let from = self.stage();
        if transition == Transition::Return(Cause::SessionEnded) {
            self.record.attempts += u32::from(self.tried);
        }
        let news = self.record.apply_from(from, transition, at);
        match transition {
            Transition::Lease(lease) => self.lease = Some(lease),
            Transition::Unlease => self.lease = None,
            Transition::Offer { carrier, overdue_at_ms } => {
                if let Some(lease) = &mut self.lease {
                    (lease.offered, lease.overdue_at_ms) = (Some(carrier), overdue_at_ms);
                }
                // The client called for it, and asks its model next.
                self.tried |= carrier == Carrier::ToolResult;
            }
            Transition::Return(_) => {
                self.lease = None;
                self.tried = false;
            }
            _ => {}
        }
        news
    }

    /// The delivery as a reader sees it: a lease is a stage, and the last line of the trace.
    pub(crate) fn with_lease(&self) -> DeliveryRecord {
        let mut record = self.record.clone();
        if let (Stage::Leased, Some(lease)) = (self.stage(), self.lease) {
            record.stage = Stage::Leased;
            record.trace(TraceEntry { event: TraceEvent::Leased, at: lease.at, carrier: None, cause: None });
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use peer_proto::message::{Kind, Via};

    use super::*;
    use crate::input::ConnectionId;

    const STAGES: [Stage; 9] = [
        Stage::Stored,
        Stage::Leased,
        Stage::Offered,
        Stage::Presented,
        Stage::Held,
        Stage::Expired,
        Stage::Cancelled,
        Stage::Dead,
        Stage::Dropped,
    ];

    const LEASE: Lease = Lease { holder: ConnectionId(7), at: Timestamp(5), offered: None, overdue_at_ms: None };

    fn transitions() -> [Transition; 16] {
        [
            Transition::Hold,
            Transition::Release,
            Transition::Lease(LEASE),
            Transition::Unlease,
            Transition::Offer { carrier: Carrier::Hook, overdue_at_ms: Some(9) },
            Transition::Return(Cause::Nack),
            Transition::Present { carrier: Some(Carrier::Hook), evidence: Evidence::Ack },
            Transition::Ack,
            Transition::Answer(MessageId::MIN),
            Transition::Expire,
            Transition::Cancel(None),
            Transition::DeadLetter(Cause::AttemptsExceeded),
            Transition::Requeue,
            Transition::Reassign(PeerId::HUMAN),
            Transition::Bind(PeerId::HUMAN),
            Transition::Drop,
        ]
    }

    fn entry(stage: Stage) -> MailboxEntry {
        let brief = Brief {
            from: PeerId::SYSTEM,
            from_name: String::new(),
            via: Via::Broker,
            intent: peer_proto::message::Intent::Inform,
            kind: Kind::Message,
            thread: String::new(),
            channel: None,
            reply_to: None,
            sent_at: Timestamp(1),
            expires_at: Some(Timestamp(90)),
            text_bytes: 0,
            private: false,
        };
        let mut record = DeliveryRecord::accepted(MessageId::MIN, PeerId(9), brief, Timestamp(1));
        record.stage = if stage == Stage::Leased { Stage::Stored } else { stage };
        MailboxEntry { record, lease: (stage == Stage::Leased).then_some(LEASE), tried: false }
    }

    /// The arrows of the picture: from, what happens, to. A frame stands for all stages in it.
    fn arrows(page: &str) -> BTreeSet<(String, String, String)> {
        let picture = page.split("```mermaid").nth(1).and_then(|rest| rest.split("```").next()).expect("a picture");
        let (mut frames, mut open, mut arrows) = (BTreeMap::<&str, Vec<&str>>::new(), None, BTreeSet::new());
        for line in picture.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "stateDiagram-v2") {
            if let Some(frame) = line.strip_prefix("state ").and_then(|rest| rest.strip_suffix(" {")) {
                open = Some(frame);
            } else if line == "}" {
                open = None;
            } else if let Some((ends, names)) = line.split_once(" : ") {
                let (from, to) = ends.split_once(" --> ").expect("an arrow");
                let sources = frames.get(from).cloned().unwrap_or_else(|| vec![from]);
                for (source, name) in sources.iter().flat_map(|source| names.split(", ").map(move |name| (source, name))) {
                    let target = if from == to { source } else { to };
                    arrows.insert(((*source).to_owned(), name.to_owned(), target.to_owned()));
                }
            } else if let Some(frame) = open {
                frames.entry(frame).or_default().push(line);
            } else {
                panic!("what is this line of the picture: {line}");
            }
        }
        arrows.retain(|(source, ..)| source != "[*]");
        arrows
    }

    #[test]
    fn the_picture_in_the_documents_shows_the_table() {
        let page = include_str!("../../../docs/delivery.md");
        let mut table = BTreeSet::new();
        for (from, transition) in STAGES.into_iter().flat_map(|from| transitions().map(|transition| (from, transition))) {
            if let Some(to) = transition.next(from) {
                table.insert((from.as_str().to_owned(), transition.name().to_owned(), to.as_str().to_owned()));
            }
        }
        assert_eq!(arrows(page), table);
    }

    #[test]
    fn each_legal_transition_leaves_its_stage_and_its_line() {
        for (from, transition) in STAGES.into_iter().flat_map(|from| transitions().map(|transition| (from, transition))) {
            let Some(to) = transition.next(from) else { continue };
            let mut entry = entry(from);
            let before = entry.record.trace.len();
            let news = entry.apply(transition, Timestamp(3));
            assert_eq!(entry.stage(), to, "{transition:?} from {from:?}");
            assert_eq!(entry.record.trace.len() - before, usize::from(transition.is_durable()), "{transition:?} from {from:?}");
            let told = |event: &DeliveryEvent| (event.carrier(), event.cause());
            assert_eq!(news.as_ref().map(told), transition.event().map(|_| (transition.carrier(), transition.cause())));
            assert_eq!(news, transition.event());
            assert_eq!(entry.record.attempts, u32::from(transition == Transition::DeadLetter(Cause::AttemptsExceeded)));
            let is_new = matches!(transition, Transition::Requeue | Transition::Reassign(_));
            assert_eq!(entry.record.brief.expires_at.is_none(), is_new, "{transition:?} from {from:?}");
        }
    }

    #[test]
    fn the_end_of_a_session_is_an_attempt_where_a_model_may_have_been_asked() {
        for tried in [false, true] {
            let mut entry = MailboxEntry { tried, ..entry(Stage::Offered) };
            entry.apply(Transition::Return(Cause::SessionEnded), Timestamp(3));
            assert_eq!((entry.record.attempts, entry.tried), (u32::from(tried), false));
        }
    }

    #[test]
    fn a_full_trace_keeps_how_it_began() {
        let mut entry = entry(Stage::Leased);
        for at in 0..TRACE_ENTRIES_MAX as u64 * 2 {
            entry.apply(Transition::Offer { carrier: Carrier::Hook, overdue_at_ms: None }, Timestamp(at));
        }
        assert_eq!(entry.record.trace.len(), TRACE_ENTRIES_MAX);
        assert_eq!(entry.record.trace[0].event, TraceEvent::Stored);
    }
}
