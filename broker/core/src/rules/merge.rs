//! A session finds its seat: two peers become one, or a session moves to another peer.
//!
//! Knows what of a peer moves: mail, tasks, memberships, names. Does not know whose a seat is (`claim`). Invariant: a message
//! to both peers is shown once, and as a repeat where the other one was offered it.

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::Stage;
use peer_proto::request::{Event, Push, Seat};

use crate::broker::Broker;
use crate::check::check_seat;
use crate::delivery::Transition;
use crate::input::{ConnectionId, Facts, Now};
use crate::record::{DeliveryRecord, PeerRecord, delivery_to};
use crate::rejection::Rejection;
use crate::rules::claim::{Asker, Ownership};
use crate::rules::sessions::set_host;
use crate::state::mailbox::Entry;
use crate::state::presence::{Session, add_alias, add_former, add_seat};
use crate::step::{Change, Step};
use crate::thing::{TaskRecord, Thing};
use crate::who::Caller;

impl Broker {
    /// The client told the session which seat it sits on.
    pub(crate) fn bind(&mut self, now: Now, caller: Caller, seat: Seat, facts: &Facts, step: &mut Step) -> Result<(), Rejection> {
        let mine = self.session_peer(caller)?;
        check_seat(&seat)?;
        let Some(record) = self.presence.get(mine).cloned() else { return Err(Rejection::NotRegistered) };
        let Some(session) = self.presence.session(caller.connection) else { return Err(Rejection::NotRegistered) };
        let host = session.host;
        let Some((token, digest)) = facts.token else { return Err(Rejection::BadToken) };
        let owner = match self.presence.by_seat(&seat) {
            None if self.is_name_of_another(&seat, mine) => return Err(Rejection::NameTaken { name: seat.key }),
            None => {
                let mut record = record;
                add_seat(&mut record, seat);
                return self.stay(now, caller, record, (token, digest), None, step);
            }
            Some(owner) if owner == mine => return self.stay(now, caller, record, (token, digest), None, step),
            Some(owner) => owner,
        };
        let ownership = self.ownership(owner, Asker { host, seat: Some(&seat), ended: &facts.ended });
        if ownership == Ownership::Taken {
            let (owner_name, my_name) = (self.name_of(owner), record.name.clone());
            let text =
                format!("another process claims the session of {owner_name}; it is {my_name}, and {owner_name} stays yours");
            self.tell_owner(owner, &text, step);
            let notice = if self.presence.is_online(owner) {
                format!("this client session is live as {owner_name} in another process: this one stays {my_name}")
            } else {
                format!("this client session is {owner_name}'s, which is expected back: this one stays {my_name}")
            };
            return self.stay(now, caller, record, (token, digest), Some(notice), step);
        }
        let holds_token = ownership == Ownership::Free;
        if holds_token {
            self.end_sessions_of_the_dead(now, owner, step);
        }
        // The session moves to the peer that the seat belongs to. A provisional peer goes with it, mail and name.
        let handed_back = self.hand_back(now, mine, caller.connection, step);
        let session = self.presence.detach(caller.connection, now.wall).unwrap_or_else(|| Session::new(mine, host));
        let Some(mut adopted) = self.presence.get(owner).cloned() else { return Err(Rejection::NotRegistered) };
        let came_online = !self.presence.is_online(owner);
        if holds_token {
            // Before the mail moves: what this session itself had offered is not a lost session's.
            self.count_forgotten_offers(now, owner, step);
        }
        let came_along = record.provisional && !self.presence.is_online(mine);
        if came_along {
            self.move_mail(now, mine, owner, facts, step);
            self.presence.remove(mine);
            step.change(Change::RemovePeer(mine));
            self.quota.forget(mine);
            add_alias(&mut adopted, record.name.clone());
            add_former(&mut adopted, mine);
            // What the person set for either holds; the stricter word where they set both.
            adopted.policy = adopted.policy.max(record.policy);
        } else {
            for message in &handed_back {
                step.push(caller.connection, Push::Withdrawn { message: *message, stage: Stage::Stored });
            }
            self.leave_peer(now, mine, step);
        }
        if holds_token {
            adopted.token = Some(digest);
            set_host(&mut adopted, host);
        }
        adopted.client.clone_from(&record.client);
        adopted.client_version.clone_from(&record.client_version);
        adopted.cwd.clone_from(&record.cwd);
        adopted.git_root.clone_from(&record.git_root);
        adopted.repo.clone_from(&record.repo);
        adopted.host.clone_from(&record.host);
        adopted.last_seen = now.wall;
        adopted.mode = session.mode.or(adopted.mode);
        self.update_peer(adopted.clone(), step);
        if came_along {
            self.move_tasks(mine, owner, step);
            self.move_memberships(mine, owner, step);
        }
        self.presence.attach(caller.connection, Session { peer: owner, holds_token, ..session }, false);
        step.reply(caller.connection, caller.id, self.registered(owner, caller.connection, token, None));
        if came_online {
            self.tell_watchers(now.wall, &[owner], &Event::PeerOnline { peer: adopted.name }, step);
        }
        self.pump(now, owner, step);
        for message in handed_back {
            // What stayed behind was withdrawn before; this came along and waits for the person now, or was read there.
            let stage = self.mailboxes.get(owner, message).map(|entry| entry.record.stage);
            if came_along && stage.is_none_or(|stage| stage == Stage::Held) {
                step.push(caller.connection, Push::Withdrawn { message, stage: stage.unwrap_or(Stage::Presented) });
            }
        }
        self.review_waits(now, owner, caller.connection, step);
        Ok(())
    }

    /// What a `Bind` to this seat would move to another peer.
    pub(crate) fn mail_to_move(&self, connection: ConnectionId, seat: &Seat) -> Vec<MessageId> {
        let mine = self.presence.session(connection).and_then(|session| self.presence.get(session.peer));
        let Some(mine) = mine.filter(|mine| mine.provisional && self.presence.by_seat(seat).is_some()) else { return Vec::new() };
        self.mailboxes.messages(mine.id, |_| true)
    }

    /// Binding changed nothing about who the session is.
    fn stay(
        &mut self,
        now: Now,
        caller: Caller,
        mut record: PeerRecord,
        (token, digest): (peer_proto::ids::Token, crate::record::TokenDigest),
        notice: Option<String>,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let peer = record.id;
        if self.presence.session(caller.connection).is_some_and(|session| session.holds_token) {
            record.token = Some(digest);
        }
        record.last_seen = now.wall;
        self.update_peer(record, step);
        step.reply(caller.connection, caller.id, self.registered(peer, caller.connection, token, notice));
        Ok(())
    }

    /// Gives all pending mail of one peer to another, in one step.
    fn move_mail(&mut self, now: Now, from: PeerId, to: PeerId, facts: &Facts, step: &mut Step) {
        for message in self.mailboxes.messages(from, |_| true) {
            let Some(entry) = self.mailboxes.remove(from, message) else { continue };
            self.remove_delivery(&entry.record, step);
            // A message to both waits in the other mailbox already, or was read there: once is enough.
            let known = facts.stored.get(&message).and_then(|stored| delivery_to(&stored.deliveries, to));
            if self.mailboxes.get(to, message).is_some() {
                if entry.shown_before() {
                    self.note_shown(to, message, &entry.record, step);
                }
                continue;
            }
            if known.is_some_and(|known| known.stage == Stage::Presented) {
                continue;
            }
            // What waited when it was looked up and waits no more became a dead letter in this very step.
            let was = known.map(|known| if known.stage.is_pending() { Stage::Dead } else { known.stage });
            let mut record = entry.record;
            if let Some(known) = known {
                record.note_shown(known);
            }
            self.apply(now, &mut record, Transition::Bind(to), step);
            let own = [from, to].contains(&record.brief.from);
            let unseen = record.stage == Stage::Stored && !record.was_offered();
            if unseen && !own && self.holds_moved(record.brief.from, record.brief.via, to) {
                self.apply(now, &mut record, Transition::Hold, step);
            }
            self.put_delivery(&record, was, step);
            self.mailboxes.insert(Entry::new(record));
        }
    }

    /// Another delivery of a message to the same reader is gone: the pending one says that it was offered.
    pub(crate) fn note_shown(&mut self, peer: PeerId, message: MessageId, other: &DeliveryRecord, step: &mut Step) {
        let kept = self.mailboxes.update(peer, message, |kept| {
            kept.record.note_shown(other);
            kept.record.clone()
        });
        if let Some(kept) = kept {
            self.put_delivery(&kept, Some(kept.stage), step);
        }
    }

    /// A provisional peer became another one: its tasks go with it.
    pub(crate) fn move_tasks(&mut self, from: PeerId, to: PeerId, step: &mut Step) {
        let concerns = |task: &&TaskRecord| task.creator == from || task.assignee == Some(from);
        let moved: Vec<TaskRecord> = self.tasks.iter().filter(concerns).cloned().collect();
        let after = |peer: PeerId| if peer == from { to } else { peer };
        for mut task in moved {
            (task.creator, task.assignee) = (after(task.creator), task.assignee.map(after));
            step.change(Change::PutThing(Box::new(Thing::Task(task.clone()))));
            self.tasks.put(task);
        }
    }

    /// A peer became another one (`Bind`): its memberships go with it.
    pub(crate) fn move_memberships(&mut self, from: PeerId, to: PeerId, step: &mut Step) {
        for mut record in self.channels.of(from).cloned().collect::<Vec<_>>() {
            let there = record.members.contains(&to);
            record.members.retain(|member| !there || *member != from);
            record.members.iter_mut().filter(|member| **member == from).for_each(|member| *member = to);
            self.put_channel(record, step);
        }
    }
}
