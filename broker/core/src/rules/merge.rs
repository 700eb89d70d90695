//! Merges two peers, or moves a session to another peer, when a session binds to its seat.
//!
//! Knows which parts of a peer move: mail, tasks, memberships, names. Does not know who owns a seat
//! (`claim`). Invariant: a message to both peers is shown once, and as a repeat if either delivery
//! was offered.

use peer_proto::ids::{MessageId, PeerId, Token};
use peer_proto::message::Stage;
use peer_proto::request::{Push, Seat, WatchEvent};

use crate::broker::Broker;
use crate::check::check_seat;
use crate::delivery::Transition;
use crate::input::{ConnectionId, Facts};
use crate::record::{DeliveryRecord, PeerRecord, TokenDigest, delivery_to};
use crate::rejection::Rejection;
use crate::rules::claim::{Asker, Ownership};
use crate::rules::sessions::set_host;
use crate::shared::{SharedRecord, TaskRecord};
use crate::state::channels::is_elsewhere;
use crate::state::mailbox::MailboxEntry;
use crate::state::presence::{Host, PeerSession, add_alias, add_merged_id, add_seat};
use crate::step::Change;
use crate::turn::Turn;
use crate::who::Caller;

/// A session that moves to the peer that its seat belongs to.
struct Moving {
    /// The peer that the session had until now.
    mine: PeerRecord,
    owner: PeerId,
    host: Host,
    /// Whether the session holds the token that resumes it.
    holds_token: bool,
}

impl Broker {
    /// Binds a session to the seat that its client reported.
    pub(crate) fn bind(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        seat: Seat,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let mine = self.session_peer(caller)?;
        check_seat(&seat)?;
        let Some(record) = self.presence.get(mine).cloned() else {
            return Err(Rejection::NotRegistered);
        };
        let Some(session) = self.presence.session(caller.connection) else {
            return Err(Rejection::NotRegistered);
        };
        let (host, present_token) = (session.host, session.token);
        let Some((token, digest)) = facts.token else { return Err(Rejection::BadToken) };
        let owner = match self.presence.by_seat(&seat) {
            None if self.is_name_of_another(&seat, mine) => {
                return Err(Rejection::NameTaken { name: seat.key });
            }
            None => {
                let mut record = record;
                add_seat(&mut record, seat);
                return self.stay(turn, caller, record, present_token, None);
            }
            Some(owner) if owner == mine => {
                return self.stay(turn, caller, record, present_token, None);
            }
            Some(owner) => owner,
        };
        let asker = Asker { host, seat: Some(&seat), client: &record.client, ended: &facts.ended };
        let ownership = self.ownership(owner, asker);
        if ownership == Ownership::Taken {
            let notice = self.notify_seat_taken(turn, owner, &record.name);
            return self.stay(turn, caller, record, present_token, Some(notice));
        }
        let moving =
            Moving { mine: record, owner, host, holds_token: ownership == Ownership::Free };
        self.move_session(turn, caller, moving, (token, digest), facts)
    }

    /// Notifies the peer that has a seat that another session asked for it. Returns the text for
    /// that session.
    fn notify_seat_taken(&mut self, turn: &mut Turn<'_>, owner: PeerId, my_name: &str) -> String {
        let owner_name = self.name_of(owner);
        let text = format!(
            "another process claims the session of {owner_name}; it is called {my_name}, and you keep {owner_name}"
        );
        self.notify_owner(turn, owner, &text);
        if self.presence.is_online(owner) {
            format!(
                "this client session is live as {owner_name} in another process: this one stays {my_name}"
            )
        } else {
            format!(
                "this client session belongs to {owner_name}, which is expected back: this one stays {my_name}"
            )
        }
    }

    /// Moves the session to the peer of the seat. A provisional peer is merged into it with its
    /// mail and name.
    fn move_session(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        Moving { mine: record, owner, host, holds_token }: Moving,
        (token, digest): (Token, TokenDigest),
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let mine = record.id;
        if holds_token {
            self.end_sessions_of_the_dead(turn, owner);
        }
        let Some(mut adopted) = self.presence.get(owner).cloned() else {
            return Err(Rejection::NotRegistered);
        };
        let handed_back = self.hand_back(turn, mine, caller.connection);
        let session = self
            .presence
            .detach(caller.connection, turn.now.wall)
            .unwrap_or_else(|| PeerSession::new(mine, host, token));
        let came_online = !self.presence.is_online(owner);
        if holds_token {
            // Count before the mail moves: this session's own offers are not those of a lost
            // session.
            self.count_forgotten_offers(turn, owner);
            adopted.token = Some(digest);
            set_host(&mut adopted, host);
        }
        let came_along = record.provisional && !self.presence.is_online(mine);
        if came_along {
            self.move_mail(turn, mine, owner, facts);
            self.presence.remove(mine);
            turn.change(Change::RemovePeer(mine));
            self.send_limits.forget(mine);
            add_alias(&mut adopted, record.name.clone());
            add_merged_id(&mut adopted, mine);
            // The person may have set a policy for both peers. The stricter one holds.
            adopted.policy = adopted.policy.max(record.policy);
        } else {
            for message in &handed_back {
                turn.push(
                    caller.connection,
                    Push::Withdrawn { message: *message, stage: Stage::Stored },
                );
            }
            self.leave_peer(turn, mine);
        }
        adopted.last_seen = turn.now.wall;
        adopted.mode = session.mode.or(adopted.mode);
        work_as(&mut adopted, record);
        self.update_peer(turn, adopted.clone());
        if came_along {
            self.move_tasks(turn, mine, owner);
            self.move_memberships(turn, mine, owner);
        }
        self.presence.attach(
            caller.connection,
            PeerSession { peer: owner, token, holds_token, ..session },
            false,
        );
        turn.reply(caller, self.registered(owner, caller.connection, token, None));
        if came_online {
            self.emit(turn, &[owner], &WatchEvent::PeerOnline { peer: adopted.name });
        }
        self.fill_window(turn, owner);
        for message in handed_back {
            // The mail that stayed behind was withdrawn before. This delivery moved: it is now held
            // for the person, or was presented there.
            let stage = self.mailboxes.get(owner, message).map(|entry| entry.record.stage);
            if came_along && stage.is_none_or(|stage| stage == Stage::Held) {
                turn.push(
                    caller.connection,
                    Push::Withdrawn { message, stage: stage.unwrap_or(Stage::Presented) },
                );
            }
        }
        self.review_waits(turn, owner, caller.connection);
        Ok(())
    }

    /// Returns the mail that a `Bind` to this seat would move to another peer.
    pub(crate) fn mail_to_move(&self, connection: ConnectionId, seat: &Seat) -> Vec<MessageId> {
        let mine =
            self.presence.session(connection).and_then(|session| self.presence.get(session.peer));
        let Some(mine) =
            mine.filter(|mine| mine.provisional && self.presence.by_seat(seat).is_some())
        else {
            return Vec::new();
        };
        self.mailboxes.messages(mine.id, |_| true)
    }

    /// Answers a bind that does not change the session's peer.
    fn stay(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        mut record: PeerRecord,
        token: Token,
        notice: Option<String>,
    ) -> Result<(), Rejection> {
        let peer = record.id;
        record.last_seen = turn.now.wall;
        self.update_peer(turn, record);
        turn.reply(caller, self.registered(peer, caller.connection, token, notice));
        Ok(())
    }

    /// Moves all pending mail of one peer to another, in one step.
    fn move_mail(&mut self, turn: &mut Turn<'_>, from: PeerId, to: PeerId, facts: &Facts) {
        for message in self.mailboxes.messages(from, |_| true) {
            let Some(entry) = self.mailboxes.remove(from, message) else { continue };
            self.remove_delivery(turn, &entry.record);
            // A message to both peers is pending or was presented in the other mailbox: one
            // delivery is enough.
            let known =
                facts.stored.get(&message).and_then(|stored| delivery_to(&stored.deliveries, to));
            if self.mailboxes.get(to, message).is_some() {
                if entry.shown_before() {
                    self.copy_offer(turn, to, message, &entry.record);
                }
                continue;
            }
            if known.is_some_and(|known| known.stage == Stage::Presented) {
                continue;
            }
            // A delivery that was pending at the lookup and is not any more became a dead letter in
            // this step.
            let was =
                known.map(|known| if known.stage.is_pending() { Stage::Dead } else { known.stage });
            let mut record = entry.record;
            if let Some(known) = known {
                record.copy_offer(known);
            }
            self.apply(turn, &mut record, Transition::Bind(to));
            let own = [from, to].contains(&record.brief.from);
            let unseen = record.stage == Stage::Stored && !record.was_offered();
            if unseen && !own && self.holds_moved(record.brief.from, record.brief.via, to) {
                self.apply(turn, &mut record, Transition::Hold);
            }
            self.put_delivery(turn, &record, was);
            self.mailboxes.insert(MailboxEntry::new(record));
        }
    }

    /// Marks the pending delivery as offered when another delivery of its message to the same peer
    /// is removed.
    pub(crate) fn copy_offer(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        message: MessageId,
        other: &DeliveryRecord,
    ) {
        let kept = self.mailboxes.update(peer, message, |kept| {
            kept.record.copy_offer(other);
            kept.record.clone()
        });
        if let Some(kept) = kept {
            self.put_delivery(turn, &kept, Some(kept.stage));
        }
    }

    /// Moves the tasks of a provisional peer to the peer that it was merged into.
    pub(crate) fn move_tasks(&mut self, turn: &mut Turn<'_>, from: PeerId, to: PeerId) {
        let concerns = |task: &&TaskRecord| task.creator == from || task.assignee == Some(from);
        let moved: Vec<TaskRecord> = self.tasks.iter().filter(concerns).cloned().collect();
        let after = |peer: PeerId| if peer == from { to } else { peer };
        for mut task in moved {
            (task.creator, task.assignee) = (after(task.creator), task.assignee.map(after));
            turn.change(Change::PutShared(Box::new(SharedRecord::Task(task.clone()))));
            self.tasks.put(task);
        }
    }

    /// Moves the memberships of a merged peer to the peer that it was merged into (`Bind`).
    pub(crate) fn move_memberships(&mut self, turn: &mut Turn<'_>, from: PeerId, to: PeerId) {
        for mut record in self.channels.of(from).cloned().collect::<Vec<_>>() {
            let there = record.members.contains(&to);
            record.members.retain(|member| !there || *member != from);
            record
                .members
                .iter_mut()
                .filter(|member| **member == from)
                .for_each(|member| *member = to);
            let name = record.name.clone();
            self.put_channel(turn, record);
            if is_elsewhere(&name) && !there {
                self.rejoin(turn, &name, to);
            }
        }
    }
}

/// Copies the client and the directory of the session to the peer's record.
fn work_as(adopted: &mut PeerRecord, record: PeerRecord) {
    adopted.client = record.client;
    adopted.client_version = record.client_version;
    adopted.cwd = record.cwd;
    adopted.git_root = record.git_root;
    adopted.repo = record.repo;
    adopted.host = record.host;
}
