//! Proxies: the mailboxes here of peers on other brokers.
//!
//! Knows what a link tells of them. Does not know their mail. Invariants: a proxy's name has its
//! link's alias behind an `@`. A link changes the proxies of its own broker alone.

use std::collections::BTreeSet;

use peer_proto::ids::{BrokerId, PeerId, is_well_formed_name};
use peer_proto::limits::{LINK_PEERS_MAX, NAME_CHARS_MAX, PEERS_MAX, SUMMARY_BYTES_MAX};
use peer_proto::link::Card;

use crate::broker::Broker;
use crate::check::check_length;
use crate::input::Facts;
use crate::record::{Home, LinkRecord, PeerRecord};
use crate::rejection::{Crowd, Rejection, RemoteBar};
use crate::state::presence::rename;
use crate::step::Change;
use crate::turn::Turn;

impl Broker {
    /// Refuses what only a peer of this machine can undergo.
    pub(crate) fn check_is_here(&self, peer: PeerId, bar: RemoteBar) -> Result<(), Rejection> {
        if self.mailboxes.broker_of(peer).is_none() {
            return Ok(());
        }
        Err(Rejection::OnAnotherMachine { name: self.name_of(peer), bar })
    }

    pub(crate) fn put_proxies(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        full: bool,
        cards: &[Card],
        gone: &[PeerId],
        facts: &Facts,
    ) -> Result<(), Rejection> {
        if cards.len() > LINK_PEERS_MAX || gone.len() > LINK_PEERS_MAX {
            return Err(Rejection::TooMany { what: Crowd::LinkPeers, count: LINK_PEERS_MAX });
        }
        for card in cards {
            check_card(card)?;
        }
        let listed: BTreeSet<PeerId> = cards.iter().map(|card| card.peer).collect();
        for card in cards {
            let Ok(proxy) = self.put_proxy(turn, broker, card, facts) else { continue };
            self.links.set_online(proxy, card.online);
            self.presence.set_listed(proxy, true, turn.now.wall);
        }
        let absent = |home: PeerId| gone.contains(&home) || (full && !listed.contains(&home));
        for proxy in self.presence.proxies_of(broker).collect::<Vec<_>>() {
            let home = self.presence.get(proxy).and_then(|record| record.home.as_ref());
            if home.is_some_and(|home| !home.peer.is_channel() && absent(home.peer)) {
                self.links.set_online(proxy, false);
                self.presence.set_listed(proxy, false, turn.now.wall);
            }
        }
        Ok(())
    }

    /// Creates or updates the proxy of a peer, and returns it.
    pub(crate) fn put_proxy(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        card: &Card,
        facts: &Facts,
    ) -> Result<PeerId, Rejection> {
        let Some(link) = self.links.get(broker) else { return Err(Rejection::NotRegistered) };
        let name = format!("{}@{}", card.name, link.alias);
        let home = Home { broker, peer: card.peer, name: card.name.clone() };
        let known = self.presence.proxy_of(broker, card.peer);
        let before = known.and_then(|proxy| self.presence.get(proxy)).cloned();
        let mut record = match &before {
            Some(record) => record.clone(),
            None => {
                if self.presence.proxies_of(broker).count() >= LINK_PEERS_MAX {
                    let what = Crowd::LinkPeers;
                    return Err(Rejection::TooMany { what, count: LINK_PEERS_MAX });
                }
                if self.presence.len() >= PEERS_MAX {
                    return Err(Rejection::TooManyPeers { peers: self.presence.len() });
                }
                let id = self.new_proxy_id(turn, broker);
                PeerRecord::new(id, name.clone(), turn.now.wall)
            }
        };
        // A name that is given again there belongs to the latest peer of it.
        if let Some(other) = self.presence.by_name(&name).filter(|other| *other != record.id) {
            self.take_name_from(turn, other, &name, facts);
        }
        if record.name != name {
            rename(&mut record, name);
        }
        record.home = Some(home);
        record.client.clone_from(&card.client);
        record.host.clone_from(&link_alias(self.links.get(broker)));
        record.summary.clone_from(&card.summary);
        record.state.clone_from(&card.state);
        let id = record.id;
        if before.as_ref() != Some(&record) {
            self.update_peer(turn, record);
        }
        Ok(id)
    }

    pub(crate) fn new_proxy_id(&mut self, turn: &mut Turn<'_>, broker: BrokerId) -> PeerId {
        let id = self.next_peer;
        self.next_peer = PeerId(id.0 + 1);
        turn.change(Change::PutNextPeer(self.next_peer));
        self.mailboxes.set_proxy(id, broker);
        id
    }

    /// Gives a proxy that has another's name or alias a name of its own.
    pub(crate) fn take_name_from(
        &mut self,
        turn: &mut Turn<'_>,
        other: PeerId,
        name: &str,
        facts: &Facts,
    ) {
        let Some(mut record) = self.presence.get(other).cloned() else { return };
        record.aliases.retain(|alias| !alias.eq_ignore_ascii_case(name));
        if record.name.eq_ignore_ascii_case(name) {
            let alias =
                link_alias(record.home.as_ref().and_then(|home| self.links.get(home.broker)));
            let entropy = facts.entropy ^ other.0;
            record.name = format!("{}@{alias}", self.presence.friendly_name(entropy));
        }
        self.update_peer(turn, record);
    }
}

fn link_alias(record: Option<&LinkRecord>) -> String {
    record.map(|record| record.alias.clone()).unwrap_or_default()
}

fn check_card(card: &Card) -> Result<(), Rejection> {
    if !is_well_formed_name(&card.name) {
        return Err(Rejection::BadName { name: card.name.chars().take(64).collect() });
    }
    check_length("the client's name", &card.client, NAME_CHARS_MAX)?;
    check_length("the state", &card.state, SUMMARY_BYTES_MAX)?;
    check_length("the summary", &card.summary, SUMMARY_BYTES_MAX)
}
