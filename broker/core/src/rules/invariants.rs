//! What must hold after every input. Tests and the property test call this after each step; it costs what the whole state
//! costs, so the running broker does not.

use peer_proto::ids::PeerId;
use peer_proto::message::Stage;

use crate::broker::Broker;

impl Broker {
    /// Checks everything that must hold between two inputs.
    ///
    /// # Panics
    /// Where something does not hold.
    pub fn assert_invariants(&self) {
        self.presence.assert_invariants();
        self.assert_task_invariants();
        self.notes.assert_invariants();
        self.channels.assert_invariants(&self.presence);
        self.questions.assert_invariants();
        self.assert_pause_invariants();
        let (mut expiries, mut overdue) = (0, 0);
        for (peer, mailbox) in self.mailboxes.iter() {
            assert!(self.presence.get(peer).is_some(), "mail waits for {peer}, who is not retained");
            assert!(mailbox.len() > 0, "an empty mailbox of {peer} is kept");
            let (mut held, mut leased, mut window, mut bytes, mut ready) = (0, 0, 0, 0, 0);
            for entry in mailbox.iter() {
                let record = &entry.record;
                assert_eq!(record.peer, peer, "{} stands in its reader's mailbox", record.message);
                assert!(
                    matches!(record.stage, Stage::Stored | Stage::Offered | Stage::Held),
                    "{} is {:?} in the store and yet pending",
                    record.message,
                    record.stage
                );
                assert!(!record.trace.is_empty(), "{} has no trace", record.message);
                assert!(record.attempts < self.config.limits.attempts_max, "{} has had its attempts", record.message);
                held += usize::from(record.stage == Stage::Held);
                leased += usize::from(entry.lease.is_some());
                window += usize::from(entry.in_window());
                bytes += if entry.in_window() { record.brief.text_bytes as usize } else { 0 };
                let is_ready = mailbox.is_ready(record.message);
                ready += usize::from(is_ready);
                assert_eq!(is_ready, entry.lease.is_none() && record.stage != Stage::Held, "{} is ready or not", record.message);
                if let Some(lease) = entry.lease {
                    assert!(record.stage != Stage::Held, "{} is held, and with a session", record.message);
                    assert_eq!(
                        self.presence.reader(peer),
                        Some(lease.holder),
                        "{} is leased to its peer's reader",
                        record.message
                    );
                    assert_eq!(lease.offered.is_some() && record.stage == Stage::Offered, lease.offered.is_some());
                    if let Some(at_ms) = lease.overdue_at_ms {
                        overdue += 1;
                        assert!(self.mailboxes.has_overdue(at_ms, record.message, peer), "{} has its timer", record.message);
                    }
                }
                if let Some(at) = record.brief.expires_at {
                    expiries += 1;
                    assert!(self.mailboxes.has_expiry(at, record.message, peer), "{} has its expiry", record.message);
                }
            }
            assert_eq!((held, leased, (window, bytes)), (mailbox.held(), mailbox.leased(), mailbox.window()), "counts of {peer}");
            // A reader with room in its window has been pushed whatever is ready.
            let room = window < peer_proto::limits::LEASE_WINDOW_MESSAGES && bytes < peer_proto::limits::LEASE_WINDOW_BYTES;
            assert!(ready == 0 || !room || self.presence.reader(peer).is_none(), "{ready} messages of {peer} were not pushed");
        }
        assert_eq!((expiries, overdue), self.mailboxes.indexed(), "no timer without its delivery");
        assert!(self.presence.get(PeerId::HUMAN).is_some(), "the person is a peer");
    }
}
