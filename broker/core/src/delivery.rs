//! The life of a delivery: all transitions of its stage, in one table.
//!
//! Knows deliveries and their leases. Does not know mailboxes, peers, or permissions. Invariant: no
//! other code writes a stage or a trace entry. `docs/delivery.md` shows the same table, and a test
//! compares the two. Only the store makes up a record by itself, where damage destroyed one.

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::TRACE_ENTRIES_MAX;
use peer_proto::link::There;
use peer_proto::message::{Carrier, Cause, Evidence, Stage, TraceEntry, TraceEvent};
use peer_proto::request::DeliveryEvent;

use crate::record::{Brief, DeliveryRecord, Relay};
use crate::state::mailbox::{Lease, MailboxEntry};

/// A legal change of a delivery's stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// The recipient's policy holds it.
    Hold,
    /// The person releases it.
    Release,
    /// The broker pushes it to a session. In memory only.
    Lease(Lease),
    /// The session gives it back or ends, without an attempt. In memory only.
    Unlease,
    /// The session handed it to a carrier.
    Offer {
        carrier: Carrier,
        /// The time of the session's visibility timeout, on the monotonic clock.
        overdue_at_ms: Option<u64>,
    },
    /// The session took its offer back, or ended. The end of a session is an attempt if a model may
    /// have been asked with it.
    Return(Cause),
    /// Evidence shows that the model was shown the whole text.
    Present { carrier: Option<Carrier>, evidence: Evidence },
    /// The recipient acknowledged it.
    Ack,
    /// The recipient replied with this message.
    Answer(MessageId),
    /// Its time to live ended.
    Expire,
    /// The sender withdrew it, or the person did.
    Cancel(Option<Cause>),
    /// It became a dead letter.
    DeadLetter(Cause),
    /// The person puts a dead letter back into its mailbox.
    Requeue,
    /// The person gives a dead letter to this peer.
    Reassign(PeerId),
    /// Its recipient was merged into this peer.
    Bind(PeerId),
    /// The person drops a dead letter.
    Drop,
    /// The recipient's broker has it, and has not settled it.
    Relay {
        there: There,
        /// The run of that broker.
        boot: u64,
    },
    /// The recipient's broker does not have it any more.
    Unrelay,
    /// The sender wants the recipient's broker to withdraw it.
    Recall,
    /// The recipient's broker says that the model was shown it.
    PresentThere { there: There, boot: u64 },
    /// The channel's broker takes a post, a join or a leave: it is settled, on that broker and on
    /// its sender's.
    Post,
}

impl Transition {
    /// Returns the stage that follows `from`. `None`: the transition is not legal there.
    fn next(self, from: Stage) -> Option<Stage> {
        use Stage::{
            Cancelled, Dead, Dropped, Expired, Held, Leased, Offered, Posted, Presented, Relayed,
            Stored,
        };
        Some(match (self, from) {
            (Self::Hold, Stored) => Held,
            (Self::Release, Held) => Stored,
            (Self::Lease(_), Stored) => Leased,
            (Self::Unlease, Leased) => Stored,
            // A killed broker leaves deliveries that are offered without a lease.
            (Self::Lease(_) | Self::Unlease, Offered) => Offered,
            (Self::Offer { .. }, Leased | Offered) => Offered,
            (Self::Return(_), Offered) => Stored,
            // A recipient may acknowledge a message that it was shown before the broker was killed,
            // or before it became a dead letter.
            (Self::Present { .. }, Stored | Leased | Offered | Relayed | Dead) => Presented,
            (Self::Ack | Self::Answer(_), Presented | Expired | Cancelled | Dropped) => from,
            (Self::Expire, Stored | Leased | Offered | Held | Relayed) => Expired,
            (Self::Cancel(_), Stored | Leased | Offered | Held | Relayed) => Cancelled,
            (Self::DeadLetter(_), Stored | Leased | Offered | Held | Relayed) => Dead,
            (Self::Requeue | Self::Reassign(_), Dead | Expired) => Stored,
            (Self::Bind(_), Stored | Offered | Held) => from,
            (Self::Drop, Dead | Expired | Relayed) => Dropped,
            // The recipient's broker decides, also if this one had given up.
            (Self::Relay { .. }, Stored | Leased | Relayed | Dead | Expired) => Relayed,
            (Self::Unrelay, Relayed) => Stored,
            (Self::Recall, Stored | Leased | Relayed) => from,
            (Self::PresentThere { .. }, Stored | Leased | Relayed | Dead | Expired | Cancelled) => {
                Presented
            }
            (Self::Post, Stored | Leased | Dead | Expired | Cancelled) => Posted,
            _ => return None,
        })
    }

    /// Returns its trace entry. `None`: it happens in memory only.
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
            Self::Relay { .. } => TraceEvent::Relayed,
            Self::Unrelay => TraceEvent::Unrelayed,
            Self::Recall => TraceEvent::Recalled,
            Self::PresentThere { .. } => TraceEvent::Presented,
            Self::Post => TraceEvent::Posted,
        })
    }

    /// Returns the event for watchers. `None`: there is no event.
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
            // It is pending as if it had just been accepted.
            Self::Requeue | Self::Reassign(_) => {
                DeliveryEvent::Stored { cause: self.cause(), text: None }
            }
            Self::Drop => DeliveryEvent::Dropped,
            Self::Relay { there, .. } => DeliveryEvent::Relayed { stage: there.stage },
            Self::Unrelay => DeliveryEvent::Unrelayed,
            Self::Recall => DeliveryEvent::Recalled,
            Self::PresentThere { there, .. } => {
                DeliveryEvent::Presented { carrier: there.carrier, evidence: Evidence::Receipt }
            }
            Self::Post => DeliveryEvent::Posted,
        })
    }

    fn carrier(self) -> Option<Carrier> {
        match self {
            Self::Offer { carrier, .. } => Some(carrier),
            Self::Present { carrier, .. } => carrier,
            Self::PresentThere { there, .. } => there.carrier,
            _ => None,
        }
    }

    fn cause(self) -> Option<Cause> {
        match self {
            Self::Hold => Some(Cause::Policy),
            Self::Release | Self::Requeue | Self::Reassign(_) | Self::Drop => Some(Cause::Operator),
            Self::Return(cause) | Self::DeadLetter(cause) => Some(cause),
            Self::Present { evidence, .. } => Some(Cause::Evidence(evidence)),
            Self::PresentThere { .. } => Some(Cause::Evidence(Evidence::Receipt)),
            Self::Expire => Some(Cause::TtlEnded),
            Self::Cancel(cause) => cause,
            Self::Bind(_) => Some(Cause::Bound),
            Self::Lease(_)
            | Self::Unlease
            | Self::Offer { .. }
            | Self::Ack
            | Self::Answer(_)
            | Self::Relay { .. }
            | Self::Unrelay
            | Self::Recall
            | Self::Post => None,
        }
    }

    /// Returns its name in `docs/delivery.md`.
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
            Self::Relay { .. } => "relay",
            Self::Unrelay => "unrelay",
            Self::Recall => "recall",
            Self::PresentThere { .. } => "present-there",
            Self::Post => "post",
        }
    }

    /// Whether the store records it.
    pub(crate) fn is_durable(self) -> bool {
        self.traced().is_some()
    }
}

impl DeliveryRecord {
    /// Creates a delivery that was just accepted.
    pub(crate) fn accepted(message: MessageId, peer: PeerId, brief: Brief, at: Timestamp) -> Self {
        let begun = TraceEntry { event: TraceEvent::Stored, at, carrier: None, cause: None };
        Self {
            message,
            peer,
            stage: Stage::Stored,
            attempts: 0,
            acked_at: None,
            answered_by: None,
            trace: vec![begun],
            brief,
            rev: 0,
            relay: None,
        }
    }

    /// Applies a transition to a delivery that no session holds. Returns the event for watchers.
    pub(crate) fn apply(&mut self, transition: Transition, at: Timestamp) -> Option<DeliveryEvent> {
        let stage = self.stage;
        self.apply_from(stage, transition, at)
    }

    fn apply_from(
        &mut self,
        from: Stage,
        transition: Transition,
        at: Timestamp,
    ) -> Option<DeliveryEvent> {
        let next = transition.next(from);
        debug_assert!(
            next.is_some(),
            "{transition:?} of {} for {}, which is {from:?}",
            self.message,
            self.peer
        );
        self.stage = match next {
            // A lease exists in memory only.
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
                self.relay = None;
                // A requeued delivery must not expire again at once.
                self.brief.expires_at = None;
                if let Transition::Reassign(peer) = transition {
                    self.peer = peer;
                }
            }
            Transition::Relay { there, boot } | Transition::PresentThere { there, boot } => {
                self.relay = Some(Relay { there: Some(there), boot, recalled: self.is_recalled() });
            }
            Transition::Unrelay => {
                self.relay = Some(Relay { there: None, boot: 0, recalled: self.is_recalled() });
            }
            Transition::Recall => {
                let relay = self.relay.unwrap_or(Relay { there: None, boot: 0, recalled: true });
                self.relay = Some(Relay { recalled: true, ..relay });
            }
            _ => {}
        }
        let (carrier, cause) = (transition.carrier(), transition.cause());
        if let Some(event) = transition.traced() {
            self.rev = self.rev.saturating_add(1);
            self.trace(TraceEntry { event, at, carrier, cause });
        }
        transition.event()
    }

    /// Appends one trace entry. A full trace loses its second entry, because the first tells how it
    /// began.
    fn trace(&mut self, entry: TraceEntry) {
        if self.trace.len() >= TRACE_ENTRIES_MAX {
            self.trace.remove(1);
        }
        self.trace.push(entry);
    }

    /// Records an offer by a session that does not hold it, so that it is shown as a repeat.
    pub(crate) fn note_offer(&mut self, carrier: Carrier, at: Timestamp) {
        let event = TraceEvent::Offered;
        self.trace(TraceEntry { event, at, carrier: Some(carrier), cause: None });
    }

    /// Copies the offer of a dropped delivery to this one, so that it is shown as a repeat.
    pub(crate) fn copy_offer(&mut self, other: &Self) {
        let offered = |record: &Self| {
            record.trace.iter().find(|entry| entry.event == TraceEvent::Offered).copied()
        };
        if let (None, Some(entry)) = (offered(self), offered(other)) {
            self.trace.insert(1, entry);
            self.trace.truncate(TRACE_ENTRIES_MAX);
        }
    }

    /// Whether it was ever offered, as far as the trace goes back.
    pub(crate) fn was_offered(&self) -> bool {
        self.trace.iter().any(|entry| entry.event == TraceEvent::Offered)
    }

    /// Returns the carrier that any session offered it to last.
    pub(crate) fn offered_last_by(&self) -> Option<Carrier> {
        self.trace
            .iter()
            .rfind(|entry| entry.event == TraceEvent::Offered)
            .and_then(|entry| entry.carrier)
    }
}

impl MailboxEntry {
    /// Applies a transition, including its lease. Returns the event for watchers.
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
                // The client called the tool, and asks its model with the result next.
                self.tried |= carrier == Carrier::ToolResult;
            }
            Transition::Return(_) => {
                self.lease = None;
                self.tried = false;
            }
            Transition::Relay { .. } => self.lease = None,
            _ => {}
        }
        news
    }

    /// Returns the delivery as programs see it: with a lease as a stage and as the last trace
    /// entry.
    pub(crate) fn with_lease(&self) -> DeliveryRecord {
        let mut record = self.record.clone();
        if let (Stage::Leased, Some(lease)) = (self.stage(), self.lease) {
            record.stage = Stage::Leased;
            record.trace(TraceEntry {
                event: TraceEvent::Leased,
                at: lease.at,
                carrier: None,
                cause: None,
            });
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

    const STAGES: [Stage; 11] = [
        Stage::Stored,
        Stage::Leased,
        Stage::Offered,
        Stage::Presented,
        Stage::Held,
        Stage::Expired,
        Stage::Cancelled,
        Stage::Dead,
        Stage::Dropped,
        Stage::Relayed,
        Stage::Posted,
    ];

    const LEASE: Lease =
        Lease { holder: ConnectionId(7), at: Timestamp(5), offered: None, overdue_at_ms: None };

    const THERE: There = There {
        stage: Stage::Offered,
        at: Timestamp(4),
        rev: 2,
        carrier: Some(Carrier::Hook),
        acked_at: None,
    };

    fn transitions() -> [Transition; 21] {
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
            Transition::Relay { there: THERE, boot: 1 },
            Transition::Unrelay,
            Transition::Recall,
            Transition::PresentThere { there: THERE, boot: 1 },
            Transition::Post,
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
            origin: None,
        };
        let mut record = DeliveryRecord::accepted(MessageId::MIN, PeerId(9), brief, Timestamp(1));
        record.stage = if stage == Stage::Leased { Stage::Stored } else { stage };
        MailboxEntry { record, lease: (stage == Stage::Leased).then_some(LEASE), tried: false }
    }

    /// The arrows of the picture: from, what happens, to. A frame stands for all stages in it.
    fn arrows(page: &str) -> BTreeSet<(String, String, String)> {
        let picture = page
            .split("```mermaid")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .expect("a picture");
        let (mut frames, mut open, mut arrows) =
            (BTreeMap::<&str, Vec<&str>>::new(), None, BTreeSet::new());
        for line in picture
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && *line != "stateDiagram-v2")
        {
            if let Some(frame) =
                line.strip_prefix("state ").and_then(|rest| rest.strip_suffix(" {"))
            {
                open = Some(frame);
            } else if line == "}" {
                open = None;
            } else if let Some((ends, names)) = line.split_once(" : ") {
                let (from, to) = ends.split_once(" --> ").expect("an arrow");
                let sources = frames.get(from).cloned().unwrap_or_else(|| vec![from]);
                for (source, name) in sources
                    .iter()
                    .flat_map(|source| names.split(", ").map(move |name| (source, name)))
                {
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
        for (from, transition) in
            STAGES.into_iter().flat_map(|from| transitions().map(|transition| (from, transition)))
        {
            if let Some(to) = transition.next(from) {
                table.insert((
                    from.as_str().to_owned(),
                    transition.name().to_owned(),
                    to.as_str().to_owned(),
                ));
            }
        }
        assert_eq!(arrows(page), table);
    }

    #[test]
    fn each_legal_transition_leaves_its_stage_and_its_line() {
        for (from, transition) in
            STAGES.into_iter().flat_map(|from| transitions().map(|transition| (from, transition)))
        {
            let Some(to) = transition.next(from) else { continue };
            let mut entry = entry(from);
            let before = entry.record.trace.len();
            let news = entry.apply(transition, Timestamp(3));
            assert_eq!(entry.stage(), to, "{transition:?} from {from:?}");
            assert_eq!(
                entry.record.trace.len() - before,
                usize::from(transition.is_durable()),
                "{transition:?} from {from:?}"
            );
            let told = |event: &DeliveryEvent| (event.carrier(), event.cause());
            assert_eq!(
                news.as_ref().map(told),
                transition.event().map(|_| (transition.carrier(), transition.cause()))
            );
            assert_eq!(news, transition.event());
            assert_eq!(
                entry.record.attempts,
                u32::from(transition == Transition::DeadLetter(Cause::AttemptsExceeded))
            );
            let is_new = matches!(transition, Transition::Requeue | Transition::Reassign(_));
            assert_eq!(
                entry.record.brief.expires_at.is_none(),
                is_new,
                "{transition:?} from {from:?}"
            );
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
            entry.apply(
                Transition::Offer { carrier: Carrier::Hook, overdue_at_ms: None },
                Timestamp(at),
            );
        }
        assert_eq!(entry.record.trace.len(), TRACE_ENTRIES_MAX);
        assert_eq!(entry.record.trace[0].event, TraceEvent::Stored);
    }
}
