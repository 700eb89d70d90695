//! What must hold: each decision of the core against the model, and all letters against the core's
//! store.

use std::collections::{BTreeMap, BTreeSet};

use peer_core::input::ConnectionId;
use peer_core::step::{Change, Effect};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::{EXPIRY_GRACE_MS, LEASE_WINDOW_BYTES, LEASE_WINDOW_MESSAGES};
use peer_proto::message::{Kind, Stage, Via};
use peer_proto::request::{Push, Received, Reply};

use crate::model::*;
use crate::*;

impl Model {
    pub(crate) fn before(&mut self) {
        self.world.changes.clear();
        self.world.effects.clear();
        let now = self.world.now;
        // Nobody sets the clock forward here; a clock that was set back may hide from the wall that
        // the machine slept.
        if now.slept_ms - self.last_now.slept_ms > WAKE_DRIFT_MS {
            self.grace_until_ms = now.mono_ms + EXPIRY_GRACE_MS;
        }
        self.last_now = now;
        self.peers_before =
            self.world.disk.peers.iter().map(|(id, record)| (*id, record.last_seen)).collect();
        self.waited_before =
            self.letters.iter().filter(|(_, letter)| letter.waits()).map(|(key, _)| *key).collect();
    }

    /// Takes in what the core decided, effect by effect, and compares.
    pub(crate) fn decided(&mut self) {
        // A filter leases what matches before what is older.
        let filtered = self.world.effects.iter().any(|effect| match effect {
            Effect::Reply { connection, id, .. } => {
                self.owed.get(&(*connection, *id)) == Some(&true)
            }
            _ => false,
        });
        self.take_in();
        self.check_notices();
        for effect in std::mem::take(&mut self.world.effects) {
            match effect {
                Effect::Deliver { connection, message, attempts, shown_before } => {
                    self.delivered(connection, message, attempts, shown_before, filtered);
                }
                Effect::Reply { connection, id, result } => {
                    assert!(
                        self.owed.remove(&(connection, id)).is_some(),
                        "G7: an answer to nothing, or a second one"
                    );
                    if let Ok(Reply::Received(received)) = result {
                        self.received(connection, &received);
                    }
                }
                Effect::Forward { .. } => panic!("no link is served in this model"),
                Effect::Welcome { connection, id, .. }
                | Effect::Query { connection, id, .. }
                | Effect::Search { connection, id, .. } => {
                    assert!(
                        self.owed.remove(&(connection, id)).is_some(),
                        "G7: an answer to nothing, or a second one"
                    );
                }
                Effect::Push { connection, push: Push::Overdue { message, .. } } => {
                    let mono_ms = self.world.now.mono_ms;
                    let letter = self.held_by(connection, message);
                    let due = letter.overdue_at_ms.take().is_some_and(|at_ms| at_ms <= mono_ms);
                    assert!(due && letter.waits(), "{message} is not overdue");
                }
                Effect::Push { connection, push: Push::Withdrawn { message, .. } } => {
                    let held = self.letters.iter().any(|((id, _), letter)| {
                        *id == message && letter.holder == Some(connection)
                    });
                    assert!(!held, "{message} was withdrawn from its holder, who still has it");
                }
                Effect::Push { .. } | Effect::Close { .. } => {}
                Effect::Stop => panic!("nobody asked the broker to stop"),
            }
        }
        self.compare();
    }

    /// New letters.
    pub(crate) fn take_in(&mut self) {
        for change in self.world.changes.clone() {
            match change {
                Change::PutMessage(record) if !self.messages.contains(&record.head.id) => {
                    assert!(
                        self.messages.last() < Some(&record.head.id),
                        "ids follow the order of acceptance"
                    );
                    self.messages.push(record.head.id);
                }
                Change::PutDelivery { record, was: None }
                    if !self.letters.contains_key(&(record.message, record.peer)) =>
                {
                    let head = &self.world.disk.messages[&record.message].head;
                    assert!(
                        head.to.iter().any(|(peer, _)| *peer == record.peer),
                        "{record:?} was not addressed to its reader"
                    );
                    self.accepted += 1;
                    let held = record.stage == Stage::Held;
                    assert!(
                        !held || head.kind != Kind::Notice,
                        "the broker's own word is held: {record:?}"
                    );
                    let letter = Letter {
                        from: head.from.peer,
                        free: matches!(head.from.via, Via::Person | Via::Broker),
                        notice: head.kind == Kind::Notice,
                        answered: false,
                        kept: record.stage == Stage::Held,
                        accepted: self.accepted,
                        stage: record.stage,
                        attempts: 0,
                        offered: false,
                        called_for: false,
                        tried: false,
                        shown: false,
                        told_as_repeat: false,
                        holder: None,
                        offered_by_holder: false,
                        overdue_at_ms: None,
                        expires_at: head.expires_at,
                        text_bytes: head.text_bytes as usize,
                    };
                    self.letters.insert((record.message, record.peer), letter);
                }
                _ => {}
            }
        }
    }

    /// The sender of a letter that expired or died hears of it, once, and nobody else does.
    pub(crate) fn check_notices(&self) {
        let mut told: BTreeMap<(MessageId, PeerId), usize> = BTreeMap::new();
        for change in &self.world.changes {
            if let Change::PutMessage(record) = change
                && record.head.kind == Kind::Notice
            {
                let about = record.head.reply_to.expect("a notice is about a message");
                *told.entry((about, record.head.to[0].0)).or_default() += 1;
            }
        }
        let mut due: BTreeMap<(MessageId, PeerId), usize> = BTreeMap::new();
        // A sender that was forgotten in the same step may have been told before; not of its own
        // end, though.
        let mut possible: BTreeMap<(MessageId, PeerId), usize> = BTreeMap::new();
        for (key @ (message, owner), letter) in &self.letters {
            let ended = self.waited_before.contains(key) && is_dead(letter);
            let to = self.heir_of(letter.from);
            let gone = to != PeerId::HUMAN && !self.world.disk.peers.contains_key(&to);
            if !ended || letter.notice {
                continue;
            }
            let own_end = letter.stage == Stage::Dead && to == *owner;
            if !gone {
                *due.entry((*message, to)).or_default() += 1;
            } else if !own_end {
                *possible.entry((*message, to)).or_default() += 1;
            }
        }
        told.retain(|key, count| possible.get(key).is_none_or(|possible| *count > *possible));
        assert_eq!(told, due, "who was told (left) and who had to be (right)");
    }

    pub(crate) fn held_by(&mut self, connection: ConnectionId, message: MessageId) -> &mut Letter {
        let peer = self.lines.get(&connection).and_then(|line| line.peer);
        let peer =
            peer.unwrap_or_else(|| panic!("G6: {connection:?} is no session and gets {message}"));
        let letter = self
            .letters
            .get_mut(&(message, peer))
            .unwrap_or_else(|| panic!("G6: {message} is not {peer}'s"));
        assert_eq!(letter.holder, Some(connection), "G6: {message} is held elsewhere");
        letter
    }

    pub(crate) fn delivered(
        &mut self,
        connection: ConnectionId,
        message: MessageId,
        attempts: u32,
        shown_before: bool,
        filtered: bool,
    ) {
        let peer = self
            .lines
            .get(&connection)
            .filter(|line| line.program < SESSIONS)
            .and_then(|line| line.peer);
        let peer =
            peer.unwrap_or_else(|| panic!("G6: {connection:?} is no session and gets {message}"));
        let letter = self
            .letters
            .get_mut(&(message, peer))
            .unwrap_or_else(|| panic!("G6: {message} is not {peer}'s"));
        assert!(
            letter.stage == Stage::Stored,
            "G4: {message} is settled or held and was pushed: {letter:?}"
        );
        if letter.holder == Some(connection) {
            let is_due = std::mem::take(&mut letter.told_as_repeat);
            assert!(is_due && shown_before, "{message} is pushed once more, and is no news");
            return;
        }
        assert_eq!(letter.holder, None, "{message} is pushed while it is held");
        assert_eq!(attempts, letter.attempts, "{message} says how many sessions ended with it");
        assert_eq!(shown_before, letter.shown, "G4: {message} says whether it may have been seen");
        letter.holder = Some(connection);
        letter.overdue_at_ms = letter.shown.then_some(self.world.now.mono_ms + 30_000);
        let (from, accepted) = (letter.from, letter.accepted);
        let overtaken = self.letters.iter().find(|((_, owner), letter)| {
            let ready = letter.stage == Stage::Stored && letter.holder.is_none();
            *owner == peer && ready && letter.from == from && letter.accepted < accepted
        });
        assert!(filtered || overtaken.is_none(), "G3: {message} overtakes {overtaken:?}");
    }

    pub(crate) fn received(&self, connection: ConnectionId, received: &Received) {
        let peer = self
            .lines
            .get(&connection)
            .and_then(|line| line.peer)
            .expect("only a session receives");
        for message in &received.messages {
            let letter = self
                .letters
                .get(&(*message, peer))
                .unwrap_or_else(|| panic!("G6: {message} is not {peer}'s"));
            assert!(
                letter.stage == Stage::Stored,
                "G4: {message} is settled or held and was named"
            );
            assert_eq!(
                letter.holder,
                Some(connection),
                "{message} is held by whom it was named to"
            );
        }
        assert!(received.messages.is_sorted(), "oldest first");
    }

    /// G2: the core, the disk and the model know the same letters, each in the same stage.
    pub(crate) fn compare(&self) {
        let disk: BTreeSet<_> = self.world.disk.deliveries.keys().collect();
        let known: BTreeSet<_> = self.letters.keys().collect();
        assert_eq!(
            disk, known,
            "G2: letters on the disk (left) and letters that there should be (right)"
        );
        let mut windows: BTreeMap<PeerId, (usize, usize)> = BTreeMap::new();
        for (key @ (message, owner), letter) in &self.letters {
            let durable = &self.world.disk.deliveries[key];
            let expected =
                if letter.waits() && letter.offered { Stage::Offered } else { letter.stage };
            assert_eq!(durable.stage, expected, "G2: {message} to {owner}, {letter:?}");
            assert_eq!(durable.attempts, letter.attempts, "the attempts of {message} to {owner}");
            let pending = self.world.broker.pending_delivery(*message, *owner);
            assert_eq!(
                pending.is_some(),
                letter.waits(),
                "G2: {message} waits for {owner} in memory"
            );
            if let Some(pending) = pending {
                let leased = letter.holder.is_some() && !letter.offered;
                assert_eq!(
                    pending.stage,
                    if leased { Stage::Leased } else { expected },
                    "{message} to {owner}"
                );
            }
            if letter.waits() && letter.holder.is_some() && !letter.offered_by_holder {
                let window = windows.entry(*owner).or_default();
                *window = (window.0 + 1, window.1 + letter.text_bytes);
            }
        }
        // G8: what could be with a session is.
        for ((message, owner), letter) in &self.letters {
            if let Some(holder) = letter.holder {
                assert_eq!(
                    self.lines.get(&holder).and_then(|line| line.peer),
                    Some(*owner),
                    "{message} is held by its reader"
                );
            } else if letter.stage == Stage::Stored && !self.sessions_of(*owner).is_empty() {
                let (messages, bytes) = windows.get(owner).copied().unwrap_or_default();
                let full = messages >= LEASE_WINDOW_MESSAGES || bytes >= LEASE_WINDOW_BYTES;
                assert!(full, "G8: {message} waits though {owner} is here");
            }
        }
        self.check_timer();
    }

    /// Nothing that is due is forgotten, and nothing wakes a broker that has nothing to do.
    pub(crate) fn check_timer(&self) {
        let (now, poll) = (self.world.now, self.world.broker.poll_timeout(self.world.now));
        let grace_ms = self.grace_until_ms.saturating_sub(now.mono_ms);
        let overdue = self.letters.values().filter_map(|letter| letter.overdue_at_ms);
        let overdue = overdue.map(|at_ms| at_ms.saturating_sub(now.mono_ms));
        let expiries = self
            .letters
            .values()
            .filter(|letter| letter.waits())
            .filter_map(|letter| letter.expires_at);
        let expiries = expiries.map(|at| at.ms_since(now.wall).max(grace_ms));
        let next = overdue.chain(expiries).min();
        if let Some(next) = next {
            assert!(
                poll.is_some_and(|poll| poll <= next),
                "something is due in {next} ms, and the timer says {poll:?}"
            );
        }
        let absent = self
            .world
            .disk
            .peers
            .keys()
            .any(|peer| *peer != PeerId::HUMAN && self.sessions_of(*peer).is_empty());
        assert!(
            next.is_some() || absent || !self.expected.is_empty() || poll.is_none(),
            "an idle broker wakes up in {poll:?} ms"
        );
    }
}
