//! Ends deliveries that were not presented: expiry, withdrawal, dead letters, and the person's
//! decisions on dead letters.

use std::collections::BTreeSet;

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Cause, Kind, Stage};
use peer_proto::question::QuestionState;
use peer_proto::request::Reply;

use crate::broker::Broker;
use crate::delivery::Transition;
use crate::input::{Damaged, Facts, Stopped};
use crate::record::DeliveryRecord;
use crate::rejection::{Act, Obstacle, Rejection};
use crate::state::mailbox::MailboxEntry;
use crate::turn::Turn;
use crate::who::{Actor, Caller};
use crate::wording::{self, Addressee};

impl Broker {
    /// Expires the pending deliveries whose time to live has ended.
    pub(crate) fn expire(&mut self, turn: &mut Turn<'_>) {
        // Expire every due delivery before refilling windows. Otherwise the refill could push one
        // that is about to expire.
        let (mut ended, mut freed) = (Vec::new(), BTreeSet::new());
        while let Some((_, message, peer)) =
            self.mailboxes.next_expiry().filter(|(at, ..)| *at <= turn.now.wall)
        {
            let is_over = |entry: &MailboxEntry| {
                entry.record.brief.expires_at.is_some_and(|at| at <= turn.now.wall)
            };
            freed.insert(peer);
            if !self.mailboxes.get(peer, message).is_some_and(is_over) {
                self.dead_letter(turn, peer, message, Cause::Unreachable);
                continue;
            }
            let Some(record) = self.end(turn, peer, message, Transition::Expire) else { break };
            ended.push(record);
        }
        // An expired question is reported once, by the rules of questions.
        for record in ended.iter().filter(|record| record.brief.kind != Kind::Question) {
            let (message, name) = (record.message, self.name_of(record.peer));
            self.notify_sender(
                turn,
                record,
                format!("your message {message} to {name} expired before it was presented"),
            );
        }
        for peer in freed {
            self.fill_window(turn, peer);
        }
    }

    /// Makes a pending delivery a dead letter, and tells its sender.
    pub(crate) fn dead_letter(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        message: MessageId,
        cause: Cause,
    ) {
        // A wish to join or to leave is of no use to anybody once its channel cannot hear it.
        let entry = self.mailboxes.get(peer, message);
        let kind = entry.map(|entry| entry.record.brief.kind);
        let transition = match kind {
            Some(Kind::Join | Kind::Leave) => Transition::Cancel(Some(cause)),
            _ => Transition::DeadLetter(cause),
        };
        let Some(record) = self.end(turn, peer, message, transition) else { return };
        // A peer that is being forgotten gets no more mail, not even a notice about its own
        // message.
        if cause == Cause::PeerForgotten && self.is_same(peer, record.brief.from) {
            return;
        }
        let sender = Addressee::of_mail_to(record.brief.from);
        let name = self.name_of(peer);
        let text = match kind {
            Some(Kind::Leave) => return,
            Some(Kind::Join) => wording::join_refused(&name, "it did not answer"),
            _ => wording::dead_letter(message, &name, cause, record.attempts, sender),
        };
        self.notify_sender(turn, &record, text);
    }

    /// Makes dead letters of deliveries that the damage stops, and reports the damage to watchers
    /// with the person's rights.
    pub(crate) fn set_damaged_aside(&mut self, turn: &mut Turn<'_>, records: &[Damaged]) {
        for record in records {
            if record.is_news {
                self.emit_damaged(turn, &record.what);
            }
            let waiting: Vec<(PeerId, MessageId)> = match record.stops {
                None => Vec::new(),
                Some(Stopped::Delivery(message, peer)) => vec![(peer, message)],
                Some(Stopped::Message(message)) => {
                    self.mailboxes.iter().map(|(peer, _)| (peer, message)).collect()
                }
                Some(Stopped::Peer(peer)) => self
                    .mailboxes
                    .messages(peer, |_| true)
                    .into_iter()
                    .map(|message| (peer, message))
                    .collect(),
            };
            for (peer, message) in waiting {
                self.dead_letter(turn, peer, message, Cause::Damaged);
                self.fill_window(turn, peer);
            }
        }
    }

    /// Settles a pending delivery without presenting it.
    pub(crate) fn end(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        message: MessageId,
        transition: Transition,
    ) -> Option<DeliveryRecord> {
        self.advance(turn, peer, message, &[transition], None).map(|entry| entry.record)
    }

    pub(crate) fn cancel(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        message: MessageId,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let actor = caller.actor()?;
        let stored = facts.stored.get(&message).ok_or(Rejection::UnknownMessage(message))?;
        let sender = stored.head.from.peer;
        let cause = match actor {
            Actor::Person if sender == PeerId::HUMAN => None,
            _ if actor.agent().is_some_and(|peer| self.is_same(peer, sender)) => None,
            _ if actor.is_person() => Some(Cause::Operator),
            _ => {
                self.check_sees(caller, stored)?;
                return Err(Rejection::NotPermitted { act: Act::WithdrawOthers });
            }
        };
        let pending: Vec<PeerId> = stored
            .deliveries
            .iter()
            .map(|delivery| delivery.peer)
            .filter(|peer| self.mailboxes.get(*peer, message).is_some())
            .collect();
        let is_open_question = self.questions.is_open(message);
        if pending.is_empty() && !is_open_question {
            return Err(Rejection::TooLate { message, obstacle: stored.obstacle() });
        }
        if is_open_question {
            self.close_question(turn, message, QuestionState::Cancelled, None);
        }
        let mut deliveries = Vec::new();
        for peer in pending {
            let stage = self.withdraw_from(turn, peer, message, cause);
            deliveries.push((self.name_of(peer), stage));
            self.fill_window(turn, peer);
        }
        turn.reply(caller, Reply::Settled { deliveries });
        Ok(())
    }

    /// Withdraws a pending delivery. If a copy of it may be on another broker, that broker is asked,
    /// and decides. Returns the stage that follows.
    pub(crate) fn withdraw_from(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        message: MessageId,
        cause: Option<Cause>,
    ) -> Stage {
        let stage = self.mailboxes.get(peer, message).map(MailboxEntry::stage);
        match stage {
            Some(stage) if stage != Stage::Held && self.mailboxes.broker_of(peer).is_some() => {
                self.recall(turn, peer, message);
                stage
            }
            _ => {
                self.end(turn, peer, message, Transition::Cancel(cause));
                Stage::Cancelled
            }
        }
    }

    pub(crate) fn requeue(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        message: MessageId,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        caller.check_person(Act::Requeue)?;
        let letters = self.letters(message, facts)?;
        if letters.iter().any(|letter| self.presence.get(letter.peer).is_none()) {
            return Err(Rejection::TooLate { message, obstacle: Obstacle::Orphaned });
        }
        let mut deliveries = Vec::new();
        for letter in letters {
            let peer = letter.peer;
            self.revive(turn, letter, Transition::Requeue);
            deliveries.push((self.name_of(peer), Stage::Stored));
        }
        turn.reply(caller, Reply::Settled { deliveries });
        Ok(())
    }

    pub(crate) fn reassign(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        message: MessageId,
        to: &str,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        caller.check_person(Act::Reassign)?;
        let mut letters = self.letters(message, facts)?;
        let heir = self.presence.resolve(to, caller.peer())?;
        let has_it = |delivery: &DeliveryRecord| delivery.peer == heir && !is_letter(delivery);
        if facts.stored.get(&message).is_some_and(|stored| stored.deliveries.iter().any(has_it)) {
            return Err(Rejection::TooLate { message, obstacle: Obstacle::There });
        }
        // Several dead letters of one message become one delivery. A peer's own delivery is kept in
        // preference to one of a peer that was merged into it.
        letters.sort_by_key(|letter| letter.peer != heir);
        let mut letters = letters.into_iter();
        if let Some(first) = letters.next() {
            self.revive(turn, first, Transition::Reassign(heir));
        }
        for letter in letters {
            self.drop_one(turn, letter);
        }
        turn.reply(
            caller,
            Reply::Settled { deliveries: vec![(self.name_of(heir), Stage::Stored)] },
        );
        Ok(())
    }

    pub(crate) fn drop_letter(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        message: MessageId,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        caller.check_person(Act::Drop)?;
        let letters = self.letters(message, facts)?;
        let deliveries =
            letters.iter().map(|letter| (self.name_of(letter.peer), Stage::Dropped)).collect();
        for letter in letters {
            self.drop_one(turn, letter);
        }
        turn.reply(caller, Reply::Settled { deliveries });
        Ok(())
    }

    fn drop_one(&mut self, turn: &mut Turn<'_>, mut letter: DeliveryRecord) {
        let was = letter.stage;
        self.apply(turn, &mut letter, Transition::Drop);
        self.put_delivery(turn, &letter, Some(was));
    }

    /// Puts a dead letter back into a mailbox, as if it had just been accepted. Its trace
    /// continues.
    fn revive(&mut self, turn: &mut Turn<'_>, mut letter: DeliveryRecord, transition: Transition) {
        let before = letter.clone();
        self.apply(turn, &mut letter, transition);
        let (heir, brief) = (letter.peer, letter.brief.clone());
        if before.peer == heir {
            self.put_delivery(turn, &letter, Some(before.stage));
        } else {
            self.remove_delivery(turn, &before);
            self.put_delivery(turn, &letter, None);
        }
        self.mailboxes.insert(MailboxEntry::new(letter));
        self.fill_window(turn, heir);
        self.wake_waits(turn, heir, &brief);
    }

    /// Returns the dead and expired deliveries of a message.
    fn letters(&self, message: MessageId, facts: &Facts) -> Result<Vec<DeliveryRecord>, Rejection> {
        let stored = facts.stored.get(&message).ok_or(Rejection::UnknownMessage(message))?;
        let letters: Vec<DeliveryRecord> =
            stored.deliveries.iter().filter(|delivery| is_letter(delivery)).cloned().collect();
        if letters.is_empty() {
            return Err(Rejection::TooLate { message, obstacle: Obstacle::NoDeadLetter });
        }
        Ok(letters)
    }
}

fn is_letter(delivery: &DeliveryRecord) -> bool {
    matches!(delivery.stage, Stage::Dead | Stage::Expired)
}
