//! Checks the invariants that hold after every input. Tests call this after each step. The cost
//! grows with the whole state, so the running broker does not call it.

use peer_proto::ids::PeerId;
use peer_proto::limits::{
    LEASE_WINDOW_BYTES, LEASE_WINDOW_MESSAGES, LINK_WINDOW_BYTES, LINK_WINDOW_MESSAGES,
};
use peer_proto::message::Stage;

use crate::broker::Broker;
use crate::state::mailbox::MailboxEntry;

impl Broker {
    /// Checks every invariant that holds between two inputs.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn assert_invariants(&self) {
        self.presence.assert_invariants();
        self.assert_task_invariants();
        self.notes.assert_invariants();
        self.channels.assert_invariants(&self.presence);
        self.questions.assert_invariants();
        self.links.assert_invariants();
        for (broker, _) in self.links.all_live() {
            let outgoing = self.mailboxes.outgoing(broker);
            let room = |(messages, bytes): (usize, usize)| {
                messages < LINK_WINDOW_MESSAGES && bytes < LINK_WINDOW_BYTES
            };
            let left =
                outgoing.filter(|outgoing| room(outgoing.window()) && outgoing.next().is_some());
            assert!(left.is_none(), "a message for {broker} was not pushed");
        }
        self.assert_pause_invariants();
        let (mut expiries, mut overdue) = (0, 0);
        for (peer, mailbox) in self.mailboxes.iter() {
            assert!(
                self.presence.get(peer).is_some(),
                "mail waits for {peer}, who is not retained"
            );
            assert!(mailbox.len() > 0, "an empty mailbox of {peer} is kept");
            mailbox.assert_invariants();
            for entry in mailbox.iter() {
                self.assert_entry(peer, entry);
                expiries += usize::from(self.mailboxes.deadline(entry).is_some());
                overdue += usize::from(entry.overdue_at_ms().is_some());
            }
            // A receiving session with room in its window has been pushed every ready delivery.
            let (messages, bytes) = mailbox.window();
            let room = messages < LEASE_WINDOW_MESSAGES && bytes < LEASE_WINDOW_BYTES;
            let waits =
                mailbox.first_ready().filter(|_| room && self.presence.reader(peer).is_some());
            assert_eq!(waits, None, "a message of {peer} was not pushed");
        }
        assert_eq!((expiries, overdue), self.mailboxes.indexed(), "no timer without its delivery");
        assert!(self.presence.get(PeerId::HUMAN).is_some(), "the person is a peer");
    }

    /// Checks one delivery against the rest of the state.
    fn assert_entry(&self, peer: PeerId, entry: &MailboxEntry) {
        let record = &entry.record;
        let message = record.message;
        assert_eq!(record.peer, peer, "{message} stands in its reader's mailbox");
        let stage = record.stage;
        let is_relayed = stage == Stage::Relayed;
        let is_pending = matches!(stage, Stage::Stored | Stage::Offered | Stage::Held)
            || (is_relayed && self.mailboxes.broker_of(peer).is_some());
        assert!(is_pending, "{message} is {stage:?} in the store and yet pending");
        assert!(!record.trace.is_empty(), "{message} has no trace");
        assert!(
            record.attempts < self.config.limits.attempts_max,
            "{message} has had its attempts"
        );
        if let Some(lease) = entry.lease {
            assert!(stage != Stage::Held, "{message} is held, and with a session");
            let link = self.mailboxes.broker_of(peer).and_then(|broker| self.links.live(broker));
            assert_eq!(
                self.presence.reader(peer).or(link.map(|live| live.connection)),
                Some(lease.holder),
                "{message} is leased to its peer's reader"
            );
            assert!(
                lease.offered.is_none() || stage == Stage::Offered,
                "{message} was offered by the session that holds it"
            );
        }
        if let Some(at_ms) = entry.overdue_at_ms() {
            assert!(self.mailboxes.has_overdue(at_ms, message, peer), "{message} has its timer");
        }
        if let Some(at) = self.mailboxes.deadline(entry) {
            assert!(self.mailboxes.has_expiry(at, message, peer), "{message} has its expiry");
        }
    }
}
