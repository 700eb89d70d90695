//! Serves links: the connections that carry mail between this broker and others.
//!
//! Knows proxies, leases and what another broker tells. Does not know a transport, nor how a message
//! of another broker is taken (`take`). Invariants: a delivery to a proxy stays here until its
//! reader's broker has committed it. Only that broker says that it was presented. A link acts for
//! its own broker alone.

use std::collections::BTreeSet;

use peer_proto::ids::{BrokerId, is_well_formed_name};
use peer_proto::limits::{LINKS_MAX, MESSAGES_PER_REQUEST_MAX, NAME_CHARS_MAX};
use peer_proto::link::{DeliveryName, LinkReply, LinkRequest, Receipt};
use peer_proto::policy::Policy;
use peer_proto::request::{Goodbye, Push, Reply, Role};

use crate::broker::Broker;
use crate::delivery::Transition;
use crate::input::{ConnectionId, Facts};
use crate::record::LinkRecord;
use crate::rejection::{Act, Crowd, Rejection};
use crate::rules::relay::News;
use crate::state::links::LiveLink;
use crate::state::presence::Ancestry;
use crate::step::{Change, Effect};
use crate::turn::Turn;
use crate::who::Caller;

impl Broker {
    pub(crate) fn link(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: LinkRequest,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let open = self.presence.connections.get(&caller.connection);
        if open.is_none_or(|open| open.role != Role::Link) {
            return Err(Rejection::NotPermitted { act: Act::ServeLink });
        }
        if let LinkRequest::Open { own, remote, alias, boot, policy } = request {
            return self.open_link(turn, caller, (own, remote), (alias, policy), boot);
        }
        if let LinkRequest::Ready { own } = request {
            self.check_may_link(caller.connection)?;
            self.check_identity(own)?;
            self.put_identity(turn, own);
            let boot = *self.boot.get_or_insert(facts.entropy | 1);
            turn.reply(caller, Reply::Link(LinkReply::Ready { boot }));
            return Ok(());
        }
        let broker = self.link_of(caller.connection).ok_or(Rejection::NotRegistered)?;
        let boot = self.links.live(broker).map_or(0, |live| live.boot);
        self.heard_of(turn, broker);
        match request {
            LinkRequest::Ready { .. } | LinkRequest::Open { .. } => {}
            LinkRequest::Take(mails) => return self.take(turn, caller, broker, mails, facts),
            LinkRequest::Peers { full, cards, gone } => {
                self.put_proxies(turn, broker, full, &cards, &gone, facts)?;
                turn.reply(caller, Reply::Done);
            }
            LinkRequest::Channels { all, cards } => {
                self.put_channels(turn, broker, &all, cards)?;
                turn.reply(caller, Reply::Done);
            }
            LinkRequest::Relayed(taken) => {
                check_list(taken.iter().map(|taken| taken.outcomes.len().max(1)).sum())?;
                for_each_once(
                    taken.iter().flat_map(Self::outcomes_of),
                    |(name, _)| *name,
                    |(name, outcome)| self.relayed(turn, (broker, boot), name, outcome, facts),
                );
                turn.reply(caller, Reply::Done);
                self.fill_link(turn, broker);
            }
            LinkRequest::Receipts(receipts) => {
                check_list(receipts.len())?;
                let news = News { broker, boot, is_answer: false };
                for_each_once(
                    receipts.iter(),
                    |receipt| DeliveryName { message: receipt.message, peer: receipt.peer },
                    |receipt| self.stands(turn, news, receipt, facts),
                );
                turn.reply(caller, Reply::Done);
                self.fill_link(turn, broker);
            }
            LinkRequest::Stand(answers) => {
                check_list(answers.len())?;
                let news = News { broker, boot, is_answer: true };
                for_each_once(
                    answers.iter(),
                    |(name, _)| *name,
                    |(name, there)| match there {
                        Some(there) => {
                            let DeliveryName { message, peer } = *name;
                            let receipt = Receipt { message, peer, there: *there };
                            self.stands(turn, news, &receipt, facts);
                        }
                        None => self.is_unknown_there(turn, broker, *name),
                    },
                );
                turn.reply(caller, Reply::Done);
                self.fill_link(turn, broker);
            }
            LinkRequest::Told(told) => {
                check_list(told.len())?;
                self.told(turn, broker, &told);
                turn.reply(caller, Reply::Done);
            }
            LinkRequest::Due => {
                if let Some(live) = self.links.live_mut(broker) {
                    live.told_due = false;
                }
                let receipts = self.due_receipts(broker, facts);
                turn.reply(caller, Reply::Link(LinkReply::Due(receipts)));
            }
            LinkRequest::States(names) => {
                check_list(names.len())?;
                let states = names.iter().map(|name| self.state_here(broker, *name, facts));
                let states = LinkReply::States(states.collect());
                turn.reply(caller, Reply::Link(states));
            }
            LinkRequest::Unsettled { after } => {
                let (deliveries, next) = self.unsettled(broker, after);
                turn.reply(caller, Reply::Link(LinkReply::Unsettled { deliveries, next }));
            }
            LinkRequest::Withdraw(messages) => {
                check_list(messages.len())?;
                let unknown = self.withdraw_remote(turn, broker, &messages, facts);
                turn.reply(caller, Reply::Link(LinkReply::Withdrawn(unknown)));
            }
            LinkRequest::Withdrawn(messages) => {
                check_list(messages.len())?;
                self.withdrawn_there(turn, broker, &messages);
                turn.reply(caller, Reply::Done);
                self.fill_link(turn, broker);
            }
        }
        Ok(())
    }

    // ---- the connection

    fn open_link(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        (own, remote): (BrokerId, BrokerId),
        (alias, policy): (String, Policy),
        boot: u64,
    ) -> Result<(), Rejection> {
        self.check_may_link(caller.connection)?;
        self.check_identity(own)?;
        if remote == own {
            return Err(Rejection::LinkToItself);
        }
        if let Some(record) = self.links.get(remote) {
            if record.policy == Policy::Refuse {
                return Err(Rejection::LinkRefused { alias: record.alias.clone() });
            }
            // What reaches the other broker is worth more than what does not.
            if boot == 0 && self.links.live(remote).is_some_and(LiveLink::is_reached) {
                return Err(Rejection::LinkIsUp { alias: record.alias.clone() });
            }
        } else {
            self.check_alias(&alias)?;
            self.check_links()?;
        }
        self.put_identity(turn, own);
        if self.links.get(remote).is_none() {
            let alias = self.free_alias(&alias);
            self.put_link(turn, new_link(remote, alias, policy, turn.now.wall));
        }
        // The same link on a new connection: the old one ends, and its leases with it.
        if let Some(live) = self.links.live(remote) {
            let old = live.connection;
            turn.push(old, Push::Goodbye(Goodbye::Replaced));
            turn.effect(Effect::Close { connection: old });
            self.close_link(turn, old);
        }
        if let Some(open) = self.presence.connections.get_mut(&caller.connection) {
            open.link = Some(remote);
        }
        self.links.open(remote, LiveLink::new(caller.connection, boot, turn.now.wall));
        self.heard_of(turn, remote);
        let Some(record) = self.links.get(remote) else { return Ok(()) };
        let opened = LinkReply::Opened { alias: record.alias.clone(), policy: record.policy };
        turn.reply(caller, Reply::Link(opened));
        self.push_cards(turn, remote);
        self.push_channels(turn, remote);
        self.push_recalled(turn, remote);
        self.announce_due(turn, remote);
        self.fill_link(turn, remote);
        Ok(())
    }

    /// Refuses a link process that runs below an agent, unless the configuration trusts agents.
    fn check_may_link(&self, connection: ConnectionId) -> Result<(), Rejection> {
        let by_agent = self.presence.ancestry(connection) != Ancestry::Person;
        if by_agent && !self.config.allow_operator_from_agents {
            return Err(Rejection::NotPermitted { act: Act::ServeLink });
        }
        Ok(())
    }

    /// Refuses an identity other than the one that this broker has.
    fn check_identity(&self, own: BrokerId) -> Result<(), Rejection> {
        match self.links.own {
            Some(known) if known != own => Err(Rejection::OtherIdentity { known, own }),
            _ => Ok(()),
        }
    }

    pub(crate) fn put_identity(&mut self, turn: &mut Turn<'_>, own: BrokerId) {
        if self.links.own != Some(own) {
            self.links.own = Some(own);
            turn.change(Change::PutBroker(own));
        }
    }

    fn check_links(&self) -> Result<(), Rejection> {
        if self.links.len() >= LINKS_MAX {
            return Err(Rejection::TooMany { what: Crowd::Links, count: LINKS_MAX });
        }
        Ok(())
    }

    pub(crate) fn check_alias(&self, alias: &str) -> Result<(), Rejection> {
        if alias.len() <= NAME_CHARS_MAX && is_well_formed_name(alias) {
            return Ok(());
        }
        Err(Rejection::BadName { name: alias.chars().take(64).collect() })
    }

    /// Returns this alias, or with a number behind it if another link has it.
    fn free_alias(&self, alias: &str) -> String {
        let taken =
            |alias: &str| self.links.iter().any(|record| record.alias.eq_ignore_ascii_case(alias));
        let numbered = (2u32..).map(|number| {
            let suffix = format!("-{number}");
            let room = NAME_CHARS_MAX - suffix.len();
            format!("{}{suffix}", &alias[..alias.len().min(room)])
        });
        std::iter::once(alias.to_owned())
            .chain(numbered)
            .find(|alias| !taken(alias))
            .unwrap_or_default()
    }

    pub(crate) fn put_link(&mut self, turn: &mut Turn<'_>, record: LinkRecord) {
        turn.change(Change::PutLink(Box::new(record.clone())));
        self.links.put(record);
    }

    /// Returns the broker whose link this connection serves.
    pub(crate) fn link_of(&self, connection: ConnectionId) -> Option<BrokerId> {
        self.presence.connections.get(&connection)?.link
    }

    /// Ends a connection's service of a link. What it held is ready again. Its proxies are
    /// unreachable.
    pub(crate) fn close_link(&mut self, turn: &mut Turn<'_>, connection: ConnectionId) {
        let Some(open) = self.presence.connections.get_mut(&connection) else { return };
        let Some(broker) = open.link.take() else { return };
        if self.links.live(broker).is_none_or(|live| live.connection != connection) {
            return;
        }
        let is_reached = self.links.live(broker).is_some_and(LiveLink::is_reached);
        self.links.close(broker);
        for proxy in self.presence.proxies_of(broker).collect::<Vec<_>>() {
            self.links.set_online(proxy, false);
            self.presence.set_listed(proxy, false, turn.now.wall);
            for message in self.mailboxes.messages(proxy, |entry| entry.lease.is_some()) {
                self.advance(turn, proxy, message, &[Transition::Unlease], None);
            }
        }
        if let Some(record) = self.links.get(broker).cloned().filter(|_| is_reached) {
            self.put_link(turn, LinkRecord { last_heard: Some(turn.now.wall), ..record });
        }
    }

    /// Records in memory that the other broker was heard of. The store gets it when the link ends.
    /// A letter may be days old, and tells nothing of its broker now.
    fn heard_of(&mut self, turn: &Turn<'_>, broker: BrokerId) {
        if !self.links.live(broker).is_some_and(LiveLink::is_reached) {
            return;
        }
        if let Some(mut record) = self.links.get(broker).cloned() {
            record.last_heard = Some(turn.now.wall);
            self.links.put(record);
        }
    }
}

/// A link of which nothing is known but what was said when it was made.
fn new_link(
    broker: BrokerId,
    alias: String,
    policy: Policy,
    now: peer_proto::ids::Timestamp,
) -> LinkRecord {
    LinkRecord {
        broker,
        alias,
        policy,
        wake: true,
        share: peer_proto::link::Share::default(),
        first_seen: now,
        last_heard: None,
    }
}

/// Calls `act` for the first entry of each name.
fn for_each_once<T, K: Ord>(
    entries: impl Iterator<Item = T>,
    name: impl Fn(&T) -> K,
    mut act: impl FnMut(T),
) {
    let mut seen = BTreeSet::new();
    for entry in entries {
        if seen.insert(name(&entry)) {
            act(entry);
        }
    }
}

fn check_list(entries: usize) -> Result<(), Rejection> {
    if (1..=MESSAGES_PER_REQUEST_MAX).contains(&entries) {
        return Ok(());
    }
    Err(Rejection::OutOfBounds {
        what: "the list",
        bound: format!("1 to {MESSAGES_PER_REQUEST_MAX}"),
    })
}
