//! Relays mail to proxies: from the lease to a link until the recipient's broker has settled it.
//!
//! Knows leases and what the recipient's broker tells. Does not know how a link is served.
//! Invariants: a delivery stays here until the recipient's broker has committed it. Only that broker
//! says that it was presented, and what it said so of is never taken back.

use std::collections::BTreeSet;

use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp};
use peer_proto::limits::{
    LINK_WINDOW_BYTES, LINK_WINDOW_MESSAGES, MESSAGES_PER_REQUEST_MAX, PAGE_ENTRIES_MAX,
    SUMMARY_BYTES_MAX,
};
use peer_proto::link::{DeliveryName, LinkPush, Outcome, Receipt, Taken, There};
use peer_proto::message::{Cause, Kind, Stage};
use peer_proto::refusal::ErrorCode;
use peer_proto::request::Push;

use crate::broker::Broker;
use crate::delivery::Transition;
use crate::input::Facts;
use crate::record::DeliveryRecord;
use crate::shared::ChannelRecord;
use crate::state::channels::{began_before, is_of_this_broker};
use crate::state::mailbox::{Lease, MailboxEntry};
use crate::step::{Effect, RemoteRecipient};
use crate::turn::Turn;
use crate::wording::{self, Addressee};

/// What the other broker tells of one delivery.
#[derive(Clone, Copy)]
pub(crate) struct News {
    pub(crate) broker: BrokerId,
    /// The run of that broker.
    pub(crate) boot: u64,
    /// Whether it counts for a pending delivery even if it seems older than what is known: an answer
    /// to a question.
    pub(crate) is_answer: bool,
}

impl Broker {
    /// Leases mail for a broker's proxies to its link until the window is full.
    pub(crate) fn fill_link(&mut self, turn: &mut Turn<'_>, broker: BrokerId) {
        let (Some(own), Some(live)) = (self.links.own, self.links.live(broker)) else { return };
        let connection = live.connection;
        while let Some(outgoing) = self.mailboxes.outgoing(broker) {
            let (messages, bytes) = outgoing.window();
            if messages >= LINK_WINDOW_MESSAGES || bytes >= LINK_WINDOW_BYTES {
                return;
            }
            let Some((message, proxies)) = outgoing.next() else { return };
            let home = |proxy: &PeerId| {
                let home = self.presence.get(*proxy)?.home.as_ref()?;
                Some(RemoteRecipient { proxy: *proxy, peer: home.peer, name: home.name.clone() })
            };
            let to = proxies.iter().filter_map(home).collect();
            let channel = proxies.first().and_then(|proxy| self.posted_in(*proxy, message));
            turn.effect(Effect::Forward { connection, message, to, own, channel });
            let at = turn.now.wall;
            let lease = Lease { holder: connection, at, offered: None, overdue_at_ms: None };
            for proxy in proxies {
                self.advance(turn, proxy, message, &[Transition::Lease(lease)], None);
            }
        }
    }

    /// Returns the channel of this broker that a message to a proxy was posted in. A channel that is
    /// gone has members nowhere.
    fn posted_in(&self, proxy: PeerId, message: MessageId) -> Option<PeerId> {
        let entry = self.mailboxes.get(proxy, message)?;
        let name = entry.record.brief.channel.as_deref().filter(|name| is_of_this_broker(name))?;
        let same = self.channels.get(name).filter(|record| began_before(record, message));
        Some(same.map_or(PeerId::of_channel(Timestamp(0)), ChannelRecord::address))
    }

    pub(crate) fn outcomes_of(taken: &Taken) -> impl Iterator<Item = (DeliveryName, &Outcome)> {
        taken
            .outcomes
            .iter()
            .map(|(peer, outcome)| (DeliveryName { message: taken.message, peer: *peer }, outcome))
    }

    /// Applies what the other broker did with a message for one recipient.
    pub(crate) fn relayed(
        &mut self,
        turn: &mut Turn<'_>,
        (broker, boot): (BrokerId, u64),
        name: DeliveryName,
        outcome: &Outcome,
        facts: &Facts,
    ) {
        let DeliveryName { message, peer } = name;
        let Some(proxy) = self.presence.proxy_of(broker, peer) else { return };
        match outcome {
            Outcome::Has(there) => {
                let news = News { broker, boot, is_answer: false };
                self.stands(turn, news, &Receipt { message, peer, there: *there }, facts);
            }
            Outcome::Later { .. } => {
                if self.mailboxes.get(proxy, message).is_some_and(|entry| entry.lease.is_some()) {
                    self.advance(turn, proxy, message, &[Transition::Unlease], None);
                }
            }
            Outcome::Refused { code, text } => {
                self.is_refused_there(turn, proxy, message, (*code, text));
            }
        }
    }

    /// The other broker will never take a message. What only a member gets, and what only asks that
    /// broker, is of no use to an operator; the rest is a dead letter.
    pub(crate) fn is_refused_there(
        &mut self,
        turn: &mut Turn<'_>,
        proxy: PeerId,
        message: MessageId,
        (code, text): (ErrorCode, &str),
    ) {
        let entry = self.mailboxes.get(proxy, message);
        let Some(entry) = entry.filter(|entry| entry.record.stage == Stage::Stored) else { return };
        let brief = entry.record.brief.clone();
        let is_nobody = matches!(code, ErrorCode::UnknownPeer | ErrorCode::UnknownChannel);
        let channel = brief.channel.filter(|name| is_nobody && is_of_this_broker(name));
        let is_wish = matches!(brief.kind, Kind::Join | Kind::Leave);
        let transition = match channel.is_some() || is_wish {
            true => Transition::Cancel(Some(Cause::RefusedThere)),
            false => Transition::DeadLetter(Cause::RefusedThere),
        };
        let Some(record) = self.end(turn, proxy, message, transition) else { return };
        if let Some(channel) = channel {
            return self.end_membership(turn, &channel, proxy);
        }
        let reason: String = text.chars().take(SUMMARY_BYTES_MAX).collect();
        let name = self.name_of(proxy);
        let sender = Addressee::of_mail_to(record.brief.from);
        match record.brief.kind {
            Kind::Join => self.notify_sender(turn, &record, wording::join_refused(&name, &reason)),
            Kind::Leave => {}
            _ => {
                let text = wording::refused_there(message, &name, &reason, sender);
                self.notify_sender(turn, &record, text);
            }
        }
    }

    /// Applies where a delivery stands on its recipient's broker.
    pub(crate) fn stands(
        &mut self,
        turn: &mut Turn<'_>,
        news: News,
        receipt: &Receipt,
        facts: &Facts,
    ) {
        let Receipt { message, peer, there } = *receipt;
        let Some(proxy) = self.presence.proxy_of(news.broker, peer) else { return };
        let pending = self.mailboxes.get(proxy, message).map(|entry| entry.record.clone());
        let stored = || {
            let stored = facts.stored.get(&message)?;
            self.delivery_of(&stored.deliveries, proxy).cloned()
        };
        let Some(record) = pending.clone().or_else(stored) else { return };
        let known = record.relay.and_then(|relay| Some((relay.boot, relay.there?)));
        let is_old = known.is_some_and(|(boot, known)| {
            let counts = news.is_answer && record.stage.is_pending();
            boot == news.boot && there.rev <= known.rev && !counts
        });
        // What was presented is never taken back.
        if is_old || record.stage == Stage::Presented && record.acked_at.is_some() {
            return;
        }
        let transitions = transitions_to(&record, peer.is_channel(), there, news.boot);
        if transitions.is_empty() {
            return;
        }
        let was = record.stage;
        let told_before = known.map(|(_, known)| known.stage);
        let record = if pending.is_some() {
            self.advance(turn, proxy, message, &transitions, None);
            match self.mailboxes.get(proxy, message) {
                Some(entry) => entry.record.clone(),
                None => record,
            }
        } else {
            let mut record = record;
            for transition in transitions {
                self.apply(turn, &mut record, transition);
            }
            self.put_delivery(turn, &record, Some(was));
            if record.stage.is_pending() {
                self.mailboxes.insert(MailboxEntry::new(record.clone()));
            }
            record
        };
        let is_news = told_before != Some(there.stage) && was != there.stage;
        if is_news && matches!(there.stage, Stage::Held | Stage::Dead | Stage::Expired) {
            let sender = Addressee::of_mail_to(record.brief.from);
            let text = wording::stands_there(message, &self.name_of(proxy), there.stage, sender);
            self.notify_sender(turn, &record, text);
        }
    }

    /// The other broker does not have a delivery that it once had: it is sent again.
    pub(crate) fn is_unknown_there(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        name: DeliveryName,
    ) {
        let Some(proxy) = self.presence.proxy_of(broker, name.peer) else { return };
        let is_relayed = |entry: &MailboxEntry| entry.record.stage == Stage::Relayed;
        if self.mailboxes.get(proxy, name.message).is_some_and(is_relayed) {
            self.advance(turn, proxy, name.message, &[Transition::Unrelay], None);
        }
    }

    /// Returns a page of the relayed deliveries to a broker.
    pub(crate) fn unsettled(
        &self,
        broker: BrokerId,
        after: Option<DeliveryName>,
    ) -> (Vec<DeliveryName>, Option<DeliveryName>) {
        let mut found = BTreeSet::new();
        for proxy in self.presence.proxies_of(broker) {
            let home = self.presence.get(proxy).and_then(|record| record.home.as_ref());
            let Some(peer) = home.map(|home| home.peer) else { continue };
            let relayed = |entry: &MailboxEntry| entry.record.stage == Stage::Relayed;
            let messages = self.mailboxes.messages(proxy, relayed);
            found.extend(messages.into_iter().map(|message| DeliveryName { message, peer }));
        }
        let mut rest = found.into_iter().filter(|name| after.is_none_or(|after| *name > after));
        let page: Vec<DeliveryName> = rest.by_ref().take(PAGE_ENTRIES_MAX).collect();
        let next = rest.next().and_then(|_| page.last().copied());
        (page, next)
    }

    /// Asks the recipient's broker to withdraw a delivery: a copy may be on its way.
    pub(crate) fn recall(&mut self, turn: &mut Turn<'_>, proxy: PeerId, message: MessageId) {
        self.advance(turn, proxy, message, &[Transition::Recall], None);
        let live = self.mailboxes.broker_of(proxy).and_then(|broker| self.links.live(broker));
        if let Some(live) = live {
            turn.push(live.connection, Push::Link(LinkPush::Withdraw(vec![message])));
        }
    }

    /// Tells a new link which messages are to be withdrawn.
    pub(crate) fn push_recalled(&self, turn: &mut Turn<'_>, broker: BrokerId) {
        let Some(live) = self.links.live(broker) else { return };
        let mut recalled = BTreeSet::new();
        for proxy in self.presence.proxies_of(broker) {
            recalled.extend(self.mailboxes.messages(proxy, |entry| entry.record.is_recalled()));
        }
        let recalled: Vec<MessageId> = recalled.into_iter().collect();
        for page in recalled.chunks(MESSAGES_PER_REQUEST_MAX) {
            turn.push(live.connection, Push::Link(LinkPush::Withdraw(page.to_vec())));
        }
    }

    /// The other broker never got these, and will not take them any more.
    pub(crate) fn withdrawn_there(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        messages: &[MessageId],
    ) {
        for proxy in self.presence.proxies_of(broker).collect::<Vec<_>>() {
            for message in messages {
                let recalled = |entry: &MailboxEntry| entry.record.is_recalled();
                if self.mailboxes.get(proxy, *message).is_some_and(recalled) {
                    self.end(turn, proxy, *message, Transition::Cancel(None));
                }
            }
        }
    }
}

/// Returns the transitions that bring a delivery to where it stands on its recipient's broker. Only
/// ends are copied: elsewhere that broker may still move it.
fn transitions_to(
    record: &DeliveryRecord,
    is_channel: bool,
    there: There,
    boot: u64,
) -> Vec<Transition> {
    let acked = there.acked_at.is_some() && record.acked_at.is_none();
    // The revision is recorded with the end, so that older news does not undo it. The recipient's
    // broker decides, also if this one had given up.
    let ended = |transition: Transition| match record.stage {
        Stage::Stored | Stage::Relayed | Stage::Dead | Stage::Expired => {
            vec![Transition::Relay { there, boot }, transition]
        }
        Stage::Held if transition != Transition::Drop => vec![transition],
        _ => Vec::new(),
    };
    let mut transitions = match there.stage {
        _ if record.stage == Stage::Posted => return Vec::new(),
        // A channel takes what is for it, and does not do anything else with it.
        Stage::Posted if is_channel && record.stage != Stage::Dropped => vec![Transition::Post],
        // It was withdrawn before it came.
        Stage::Cancelled if is_channel => ended(Transition::Cancel(None)),
        _ if is_channel => return Vec::new(),
        Stage::Posted => return Vec::new(),
        Stage::Presented if record.stage == Stage::Presented => Vec::new(),
        Stage::Presented if record.stage == Stage::Dropped => Vec::new(),
        Stage::Presented => vec![Transition::PresentThere { there, boot }],
        _ if record.stage == Stage::Presented => return Vec::new(),
        Stage::Expired => ended(Transition::Expire),
        Stage::Cancelled => ended(Transition::Cancel(None)),
        Stage::Dropped => ended(Transition::Drop),
        _ if matches!(record.stage, Stage::Cancelled | Stage::Dropped) => Vec::new(),
        _ => vec![Transition::Relay { there, boot }],
    };
    if acked && (there.stage == Stage::Presented) {
        transitions.push(Transition::Ack);
    }
    transitions
}
