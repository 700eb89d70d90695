//! Sends events to watchers.
//!
//! Knows who watches, and asks the rules of visibility what a watcher may see. Does not decide that
//! something happens. Invariants: an event reaches only watchers that may see its subject. A text
//! reaches only watchers that may read it.

use peer_proto::ids::PeerId;
use peer_proto::message::Sender;
use peer_proto::refusal::Refusal;
use peer_proto::request::{DeliveryEvent, Push, Reply, Send, WatchEvent, WatchedDelivery};

use crate::broker::Broker;
use crate::input::ConnectionId;
use crate::record::DeliveryRecord;
use crate::rejection::Rejection;
use crate::state::presence::WatchFilter;
use crate::turn::Turn;
use crate::who::{Actor, Caller};

/// A send that was refused, as a whole or for one of its recipients.
#[derive(Clone, Copy)]
pub(crate) struct RefusedAttempt<'a> {
    pub(crate) sender: &'a Sender,
    pub(crate) send: &'a Send,
    pub(crate) channel: Option<&'a str>,
}

impl Broker {
    pub(crate) fn watch(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        peer: Option<String>,
        bodies: bool,
    ) -> Result<(), Rejection> {
        caller.check_operator()?;
        let peer = peer.map(|name| self.presence.resolve(&name, caller.peer())).transpose()?;
        self.presence.watch(caller.connection, WatchFilter { peer, bodies });
        turn.reply(caller, Reply::Done);
        Ok(())
    }

    /// Sends watchers an event about one delivery.
    pub(crate) fn emit_delivery(
        &self,
        turn: &mut Turn<'_>,
        what: DeliveryEvent,
        record: &DeliveryRecord,
    ) {
        if !self.presence.is_watched() {
            return;
        }
        let delivery = WatchedDelivery {
            message: record.message,
            from: record.brief.from_name.clone(),
            to: self
                .presence
                .name(record.peer)
                .map_or_else(|| record.peer.to_string(), str::to_owned),
            thread: record.brief.thread.clone(),
            reply_to: record.brief.reply_to,
            intent: record.brief.intent,
        };
        let without_text = match &what {
            DeliveryEvent::Stored { cause, text: Some(_) } => {
                let what = DeliveryEvent::Stored { cause: *cause, text: None };
                Some(WatchEvent::Delivery { delivery: delivery.clone(), what })
            }
            _ => None,
        };
        let event = WatchEvent::Delivery { delivery, what };
        let present = |peer: PeerId| self.presence.current(peer).unwrap_or(peer);
        let parties = [present(record.brief.from), present(record.peer)];
        let watchers = self.watchers_who(&parties, |actor| self.sees_delivery(actor, record));
        for (connection, actor, bodies) in watchers {
            let reads = bodies && self.sees_text_of(actor, record);
            let event = without_text.as_ref().filter(|_| !reads).unwrap_or(&event);
            turn.push(
                connection,
                Push::Event { at: turn.now.wall, event: Box::new(event.clone()) },
            );
        }
    }

    /// Tells the person that a record of the store is damaged.
    pub(crate) fn emit_damaged(&self, turn: &mut Turn<'_>, what: &str) {
        self.emit_where(
            turn,
            &[],
            &WatchEvent::Damaged { what: what.to_owned() },
            Actor::is_person,
        );
    }

    /// Sends an event to watchers. `concerns`: the peers that the event is about.
    pub(crate) fn emit(&self, turn: &mut Turn<'_>, concerns: &[PeerId], event: &WatchEvent) {
        self.emit_where(turn, concerns, event, |_| true);
        let is_of_peer = matches!(
            event,
            WatchEvent::PeerOnline { .. }
                | WatchEvent::PeerOffline { .. }
                | WatchEvent::PeerRenamed { .. }
                | WatchEvent::PeerForgotten { .. }
                | WatchEvent::PeerChanged { .. }
        );
        if is_of_peer {
            self.share_peers(turn, concerns);
        }
    }

    /// Sends an event to those watchers that may see it.
    pub(crate) fn emit_where(
        &self,
        turn: &mut Turn<'_>,
        concerns: &[PeerId],
        event: &WatchEvent,
        sees: impl Fn(Actor) -> bool,
    ) {
        for (connection, ..) in self.watchers_who(concerns, sees) {
            turn.push(
                connection,
                Push::Event { at: turn.now.wall, event: Box::new(event.clone()) },
            );
        }
    }

    /// Returns the watchers that follow one of these peers, or all, and that may see the event.
    /// Also returns whether each wants texts.
    fn watchers_who(
        &self,
        concerns: &[PeerId],
        sees: impl Fn(Actor) -> bool,
    ) -> impl Iterator<Item = (ConnectionId, Actor, bool)> {
        self.presence.watchers().filter_map(move |(connection, watch)| {
            let is_concerned = watch.peer.is_none_or(|peer| concerns.contains(&peer));
            let actor = self.actor_on(connection).filter(|actor| is_concerned && sees(*actor))?;
            Some((connection, actor, watch.bodies))
        })
    }

    /// Reports a send limit that refused a request other than a send. Watchers get the same event
    /// as for a refused send.
    pub(crate) fn emit_refusal(&mut self, turn: &mut Turn<'_>, caller: Caller, refusal: &Refusal) {
        if !self.send_limits.count_refused(refusal.code) {
            return;
        }
        let Ok((sender, _)) = self.sender(caller) else { return };
        self.remember_refused(turn.now.wall, &sender, ("", None, ""), refusal);
        let (to, thread, reply_to, intent) = (None, None, None, None);
        let event = WatchEvent::Refused {
            from: sender.name,
            to,
            thread,
            reply_to,
            intent,
            code: refusal.code,
        };
        self.emit(turn, &[sender.peer], &event);
    }

    /// Records that a send limit or a policy refused a message, for all or one of its recipients.
    /// Tells watchers.
    pub(crate) fn emit_refused_send(
        &mut self,
        turn: &mut Turn<'_>,
        refused: &RefusedAttempt<'_>,
        to: String,
        refusal: &Refusal,
    ) {
        let RefusedAttempt { sender, send, channel } = *refused;
        self.remember_refused(
            turn.now.wall,
            sender,
            (&to, send.thread.as_deref(), &send.text),
            refusal,
        );
        // Watchers never see the name of a private channel.
        let is_private = channel.is_some_and(|name| self.is_private(name));
        let event = WatchEvent::Refused {
            from: sender.name.clone(),
            to: (!is_private).then_some(to),
            thread: send.thread.clone(),
            reply_to: send.reply_to,
            intent: send.intent,
            code: refusal.code,
        };
        self.emit(turn, &[sender.peer], &event);
    }
}
