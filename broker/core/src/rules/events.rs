//! What watchers are told.
//!
//! Knows who watches, and asks the visibility room what they may see. Does not decide that something happens. Invariant: an
//! event reaches only those who may see what it is about, and a text only those who may read it.

use peer_proto::ids::{PeerId, Timestamp};
use peer_proto::message::Sender;
use peer_proto::refusal::Refusal;
use peer_proto::request::{Event, EventKind, Push, Reply, Send};

use crate::broker::Broker;
use crate::delivery::News;
use crate::input::Now;
use crate::record::{DeliveryRecord, PeerRecord};
use crate::rejection::Rejection;
use crate::state::presence::Watch;
use crate::step::Step;
use crate::who::{Actor, Caller};

impl Broker {
    pub(crate) fn watch(&mut self, caller: Caller, peer: Option<String>, bodies: bool, step: &mut Step) -> Result<(), Rejection> {
        caller.check_operator()?;
        let peer = peer.map(|name| self.presence.resolve(&name, caller.peer())).transpose()?;
        self.presence.watch(caller.connection, Watch { peer, bodies });
        step.reply(caller.connection, caller.id, Reply::Done);
        Ok(())
    }

    /// Tells watchers about one delivery.
    pub(crate) fn tell(&self, news: News, at: Timestamp, record: &DeliveryRecord, text: Option<&str>, step: &mut Step) {
        if !self.presence.is_watched() {
            return;
        }
        let event = Event {
            kind: news.kind,
            at,
            message: Some(record.message),
            from: Some(record.brief.from_name.clone()),
            to: Some(self.presence.name(record.peer).map_or_else(|| record.peer.to_string(), str::to_owned)),
            thread: Some(record.brief.thread.clone()),
            reply_to: record.brief.reply_to,
            intent: Some(record.brief.intent),
            carrier: news.carrier,
            cause: news.cause.map(|cause| cause.as_str().to_owned()),
            text: text.map(str::to_owned),
        };
        let present = |peer: PeerId| self.presence.present(peer).unwrap_or(peer);
        let parties = [present(record.brief.from), present(record.peer)];
        let sees = |actor: Actor| self.sees_delivery(actor, record);
        self.push_event(&parties, &event, sees, |actor| self.sees_text_of(actor, record), step);
    }

    /// Tells watchers about what sessions share.
    pub(crate) fn tell_thing(&self, kind: EventKind, now: Now, what: &str, to: Option<String>, state: &str, step: &mut Step) {
        let event = Event {
            kind,
            at: now.wall,
            message: None,
            from: Some(what.to_owned()),
            to,
            thread: Some(what.to_owned()),
            reply_to: None,
            intent: None,
            carrier: None,
            cause: Some(state.to_owned()),
            text: None,
        };
        self.tell_watchers(&[], &event, step);
    }

    /// Tells watchers about a peer.
    pub(crate) fn tell_peer(
        &self,
        kind: EventKind,
        at: Timestamp,
        record: &PeerRecord,
        to: Option<String>,
        cause: Option<&str>,
        step: &mut Step,
    ) {
        let event = Event {
            kind,
            at,
            message: None,
            from: Some(record.name.clone()),
            to,
            thread: None,
            reply_to: None,
            intent: None,
            carrier: None,
            cause: cause.map(str::to_owned),
            text: None,
        };
        self.tell_watchers(&[record.id], &event, step);
    }

    /// Tells the person that a record of the store is damaged.
    pub(crate) fn tell_damaged(&self, at: Timestamp, what: &str, step: &mut Step) {
        let event = Event {
            kind: EventKind::Damaged,
            at,
            message: None,
            from: None,
            to: None,
            thread: None,
            reply_to: None,
            intent: None,
            carrier: None,
            cause: Some(what.to_owned()),
            text: None,
        };
        self.tell_watchers_who(&[], &event, Actor::is_person, step);
    }

    pub(crate) fn tell_watchers(&self, concerns: &[PeerId], event: &Event, step: &mut Step) {
        self.tell_watchers_who(concerns, event, |_| true, step);
    }

    /// Tells those watchers about it who may see it.
    pub(crate) fn tell_watchers_who(&self, concerns: &[PeerId], event: &Event, sees: impl Fn(Actor) -> bool, step: &mut Step) {
        self.push_event(concerns, event, sees, |_| false, step);
    }

    fn push_event(
        &self,
        concerns: &[PeerId],
        event: &Event,
        sees: impl Fn(Actor) -> bool,
        sees_text: impl Fn(Actor) -> bool,
        step: &mut Step,
    ) {
        for (connection, watch) in self.presence.watchers() {
            let is_concerned = watch.peer.is_none_or(|peer| concerns.contains(&peer));
            let Some(actor) = self.actor_on(connection).filter(|actor| is_concerned && sees(*actor)) else { continue };
            let mut event = event.clone();
            event.text = event.text.filter(|_| watch.bodies && sees_text(actor));
            step.push(connection, Push::Event(Box::new(event)));
        }
    }

    /// A brake refused something that is no message: whoever watches hears of it, as of a refused send.
    pub(crate) fn tell_refused(&mut self, now: Now, caller: Caller, refusal: &Refusal, step: &mut Step) {
        if !self.quota.count_refused(refusal.code) {
            return;
        }
        let Ok((sender, _)) = self.sender(caller) else { return };
        self.remember_refused(now.wall, &sender, ("", None, ""), refusal);
        let mut event = event(now, EventKind::Refused, None, None);
        event.from = Some(sender.name);
        event.cause = Some(refusal.code.as_str().to_owned());
        self.tell_watchers(&[sender.peer], &event, step);
    }

    /// Remembers, and tells watchers, that a brake or a policy refused a message, or refused it for one of its recipients.
    #[expect(clippy::too_many_arguments, reason = "one fact each")]
    pub(crate) fn tell_refused_send(
        &mut self,
        now: Now,
        sender: &Sender,
        send: &Send,
        channel: Option<&str>,
        to: String,
        refusal: &Refusal,
        step: &mut Step,
    ) {
        self.remember_refused(now.wall, sender, (&to, send.thread.as_deref(), &send.text), refusal);
        // Watchers learn of no private channel.
        let is_private = channel.is_some_and(|name| self.is_private(name));
        let event = Event {
            kind: EventKind::Refused,
            at: now.wall,
            message: None,
            from: Some(sender.name.clone()),
            to: (!is_private).then_some(to),
            thread: send.thread.clone(),
            reply_to: send.reply_to,
            intent: send.intent,
            carrier: None,
            cause: Some(refusal.code.as_str().to_owned()),
            text: None,
        };
        self.tell_watchers(&[sender.peer], &event, step);
    }
}

pub(crate) fn event(now: Now, kind: EventKind, to: Option<String>, thread: Option<String>) -> Event {
    Event {
        kind,
        at: now.wall,
        message: None,
        from: None,
        to,
        thread,
        reply_to: None,
        intent: None,
        carrier: None,
        cause: None,
        text: None,
    }
}
