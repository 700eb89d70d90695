//! The person's decisions on links: which there are, and what holds for each.
//!
//! Does not know how a link is served. Invariant: only the person changes a link.

use peer_proto::ids::{BrokerId, PeerId};
use peer_proto::link::{LinkInfo, LinksRequest};
use peer_proto::message::{Cause, Stage};
use peer_proto::request::{Goodbye, Push, Reply};

use crate::broker::Broker;
use crate::record::{LinkRecord, PeerRecord};
use crate::rejection::{Act, Rejection};
use crate::state::presence::rename;
use crate::step::{Change, Effect};
use crate::turn::Turn;
use crate::who::Caller;

impl Broker {
    pub(crate) fn links(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: LinksRequest,
    ) -> Result<(), Rejection> {
        caller.check_operator()?;
        if request != LinksRequest::List {
            caller.check_person(Act::ChangeLinks)?;
        }
        match request {
            LinksRequest::List => self.list_links(turn, caller, None),
            LinksRequest::Identify { own } => {
                let brokers: Vec<BrokerId> = self.links.iter().map(|link| link.broker).collect();
                for broker in brokers {
                    self.remove_link(turn, broker);
                }
                self.put_identity(turn, own);
                self.list_links(turn, caller, None);
            }
            LinksRequest::Set { link, policy, wake, share } => {
                let record = self.find_link(&link)?;
                let (broker, shared) = (record.broker, record.share);
                let changed = LinkRecord {
                    policy: policy.unwrap_or(record.policy),
                    wake: wake.unwrap_or(record.wake),
                    share: share.unwrap_or(record.share),
                    ..record
                };
                let (policy, share) = (changed.policy, changed.share);
                self.put_link(turn, changed);
                if policy == peer_proto::policy::Policy::Refuse {
                    self.hang_up_link(turn, broker);
                } else if share != shared {
                    self.push_cards(turn, broker);
                    self.push_channels(turn, broker);
                }
                self.list_links(turn, caller, Some(broker));
            }
            LinksRequest::Rename { link, new_name } => {
                let record = self.find_link(&link)?;
                self.check_alias(&new_name)?;
                if self.links.find(&new_name).is_some_and(|other| other.broker != record.broker) {
                    return Err(Rejection::NameTaken { name: new_name });
                }
                let broker = record.broker;
                self.put_link(turn, LinkRecord { alias: new_name.clone(), ..record });
                self.rename_proxies(turn, broker, &new_name);
                self.list_links(turn, caller, Some(broker));
            }
            LinksRequest::Remove { link } => {
                let broker = self.find_link(&link)?.broker;
                self.remove_link(turn, broker);
                self.list_links(turn, caller, None);
            }
            LinksRequest::Hide { peer, hidden } => {
                let peer = self.presence.resolve(&peer, caller.peer())?;
                let record = self.presence.get(peer).cloned();
                if let Some(record) = record.filter(|record| record.hidden != hidden) {
                    self.update_peer(turn, PeerRecord { hidden, ..record });
                    self.share_peers(turn, &[peer]);
                }
                self.list_links(turn, caller, None);
            }
        }
        Ok(())
    }

    fn find_link(&self, text: &str) -> Result<LinkRecord, Rejection> {
        let unknown = || Rejection::UnknownLink { name: text.chars().take(64).collect() };
        self.links.find(text).cloned().ok_or_else(unknown)
    }

    /// Forgets a link and its peers. Mail that waits for them becomes dead letters.
    fn remove_link(&mut self, turn: &mut Turn<'_>, broker: BrokerId) {
        self.hang_up_link(turn, broker);
        for proxy in self.presence.proxies_of(broker).collect::<Vec<_>>() {
            for message in self.mailboxes.messages(proxy, |_| true) {
                self.dead_letter(turn, proxy, message, Cause::Unreachable);
            }
            self.forget_peer(turn, proxy);
        }
        self.links.remove(broker);
        turn.change(Change::RemoveLink(broker));
    }

    /// Ends the connection that serves a link, if there is one.
    fn hang_up_link(&mut self, turn: &mut Turn<'_>, broker: BrokerId) {
        if let Some(connection) = self.links.live(broker).map(|live| live.connection) {
            turn.push(connection, Push::Goodbye(Goodbye::Kicked));
            turn.effect(Effect::Close { connection });
            self.close_link(turn, connection);
        }
    }

    fn rename_proxies(&mut self, turn: &mut Turn<'_>, broker: BrokerId, alias: &str) {
        for proxy in self.presence.proxies_of(broker).collect::<Vec<_>>() {
            let Some(mut record) = self.presence.get(proxy).cloned() else { continue };
            let Some(there) = record.home.as_ref().map(|home| home.name.clone()) else { continue };
            let name = format!("{there}@{alias}");
            if self.presence.by_name(&name).is_none_or(|owner| owner == proxy) {
                let old = record.name.clone();
                rename(&mut record, name.clone());
                if record.is_channel() {
                    record.aliases.clear();
                    self.rename_channel(turn, &old, name);
                }
            }
            alias.clone_into(&mut record.host);
            self.update_peer(turn, record);
        }
    }

    /// Answers with all links by name, or with one.
    fn list_links(&self, turn: &mut Turn<'_>, caller: Caller, only: Option<BrokerId>) {
        let wanted = |record: &&LinkRecord| only.is_none_or(|broker| broker == record.broker);
        let mut links: Vec<LinkInfo> =
            self.links.iter().filter(wanted).map(|record| self.link_info(record)).collect();
        links.sort_by(|one, other| one.name.cmp(&other.name));
        turn.reply(caller, Reply::Links(links));
    }

    fn link_info(&self, record: &LinkRecord) -> LinkInfo {
        let broker = record.broker;
        let proxies: Vec<PeerId> = self.presence.proxies_of(broker).collect();
        let mailboxes = || proxies.iter().filter_map(|proxy| self.mailboxes.of(*proxy));
        let outgoing = self.mailboxes.outgoing(broker);
        let held = self.mailboxes.iter().flat_map(|(_, mailbox)| mailbox.iter()).filter(|entry| {
            entry.record.brief.origin == Some(broker) && entry.record.stage == Stage::Held
        });
        let live = self.links.live(broker).filter(|live| live.is_reached());
        let is_peer =
            |proxy: &&PeerId| self.presence.get(**proxy).is_some_and(|record| !record.is_channel());
        LinkInfo {
            name: record.alias.clone(),
            broker,
            up: live.is_some(),
            since: live.map(|live| live.since).or(record.last_heard),
            heard_at: record.last_heard,
            policy: record.policy,
            wake: record.wake,
            share: record.share,
            peers: proxies.iter().filter(is_peer).count() as u64,
            waiting: outgoing.map_or(0, |outgoing| outgoing.waiting() as u64),
            in_flight: outgoing.map_or(0, |outgoing| outgoing.window().0 as u64),
            relayed: mailboxes().map(|mailbox| mailbox.relayed() as u64).sum(),
            held: held.count() as u64,
        }
    }
}
