//! Answers listings from memory, and prepares the queries that read the store.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::{PAGE_ENTRIES_MAX, SUMMARY_BYTES_MAX, THREAD_BYTES_MAX};
use peer_proto::message::Stage;
use peer_proto::request::{
    HistoryQuery, InboxEntry, PeerInfo, PeerLink, PeersQuery, Position, Reply,
};

use crate::broker::Broker;
use crate::check::check_length;
use crate::counts::Counts;
use crate::input::{Facts, Now};
use crate::record::{DeliveryRecord, Home, PeerRecord};
use crate::rejection::{Act, Rejection};
use crate::state::links::LiveLink;
use crate::state::mailbox::MailboxEntry;
use crate::state::presence::is_same_place;
use crate::step::Query;
use crate::turn::Turn;
use crate::who::{Actor, Caller};

impl Broker {
    /// The current name of a retained peer, or of a channel that other brokers address.
    #[must_use]
    pub fn peer_name(&self, peer: PeerId) -> Option<&str> {
        let channel = || self.channels.addressed(peer).map(|record| record.name.as_str());
        self.presence.name(peer).or_else(channel)
    }

    /// A pending delivery with its lease. If it is leased, its stage is `Leased`, and so is the end
    /// of its trace.
    #[must_use]
    pub fn pending_delivery(&self, message: MessageId, peer: PeerId) -> Option<DeliveryRecord> {
        Some(self.mailboxes.get(peer, message)?.with_lease())
    }

    /// Counts the current state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let total = |each: fn(&crate::state::mailbox::Mailbox) -> usize| {
            self.mailboxes.iter().map(|(_, mailbox)| each(mailbox)).sum::<usize>() as u64
        };
        let online =
            self.presence.iter().filter(|record| self.presence.is_online(record.id)).count();
        let oldest = self.mailboxes.iter().filter_map(|(_, mailbox)| mailbox.iter().next());
        Counts {
            peers_online: online as u64,
            peers_offline: self.presence.offline().count() as u64,
            stored: total(|mailbox| mailbox.len() - mailbox.held() - mailbox.leased()),
            leased: total(|mailbox| mailbox.leased()),
            held: total(|mailbox| mailbox.held()),
            dead: self.mailboxes.dead(),
            messages: self.messages,
            oldest_at: oldest.map(|entry| entry.record.brief.sent_at).min(),
            paused: self.paused(),
            refused: self.send_limits.refused(),
            used_up: self.used_up_threads(),
        }
    }

    pub(crate) fn list_peers(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        query: &PeersQuery,
    ) -> Result<(), Rejection> {
        caller.actor()?;
        check_length("the search text", query.text.as_deref().unwrap_or(""), SUMMARY_BYTES_MAX)?;
        for (what, text) in [("the state", &query.state), ("the client's name", &query.client)] {
            check_length(what, text.as_deref().unwrap_or(""), SUMMARY_BYTES_MAX)?;
        }
        let text = query.text.as_ref().map(|text| text.to_lowercase());
        let matches = |record: &PeerRecord| {
            let pending = self.mailboxes.of(record.id).is_some();
            let listed = query.all
                || pending
                || self.presence.is_online(record.id)
                || self.presence.is_listed(record.id)
                || is_listed(turn.now.wall, record.last_seen);
            let fields = [
                &record.name,
                &record.summary,
                &record.task,
                &record.client,
                &record.cwd,
                &record.state,
            ];
            let found = text
                .as_ref()
                .is_none_or(|text| fields.iter().any(|field| field.to_lowercase().contains(text)));
            record.id != PeerId::HUMAN
                && !record.is_channel()
                && (query.remote || record.home.is_none())
                && listed
                && found
                && query
                    .state
                    .as_ref()
                    .is_none_or(|state| self.state_of(record).eq_ignore_ascii_case(state.trim()))
                && query
                    .client
                    .as_ref()
                    .is_none_or(|client| record.client.eq_ignore_ascii_case(client.trim()))
                && query.cwd.as_ref().is_none_or(|cwd| is_same_place(cwd, &record.cwd))
                && query.repo.as_ref().is_none_or(|repo| {
                    record.repo.as_ref().is_some_and(|theirs| is_same_place(repo, theirs))
                })
        };
        let mut peers: Vec<PeerInfo> = Vec::new();
        let mut next = None;
        let full = self.presence.after(query.after).filter(|record| matches(record)).try_for_each(
            |record| {
                if peers.len() == PAGE_ENTRIES_MAX {
                    return ControlFlow::Break(());
                }
                peers.push(self.peer_info(turn.now, record));
                ControlFlow::Continue(())
            },
        );
        if full.is_break() {
            next = peers.last().map(|peer| peer.id);
        }
        turn.reply(caller, Reply::Peers { peers, next });
        Ok(())
    }

    /// Returns the state that a peer reported, or else the state that its client showed. Empty if
    /// neither is known. Also empty for a peer that is offline, because an old state is not
    /// current.
    fn state_of<'a>(&self, record: &'a PeerRecord) -> &'a str {
        if !self.presence.is_online(record.id) {
            return "";
        }
        if !record.state.is_empty() {
            return &record.state;
        }
        let session =
            self.presence.reader(record.id).and_then(|reader| self.presence.session(reader));
        session.and_then(|session| session.activity).map_or("", |activity| activity.as_str())
    }

    pub(crate) fn peer_link(&self, home: &Home) -> PeerLink {
        let record = self.links.get(home.broker);
        PeerLink {
            name: record.map(|record| record.alias.clone()).unwrap_or_default(),
            up: self.links.live(home.broker).is_some_and(LiveLink::is_reached),
            heard_at: record.and_then(|record| record.last_heard),
        }
    }

    fn peer_info(&self, now: Now, record: &PeerRecord) -> PeerInfo {
        let online = self.presence.is_online(record.id) || self.links.is_online(record.id);
        let session =
            self.presence.reader(record.id).and_then(|reader| self.presence.session(reader));
        let mailbox = self.mailboxes.of(record.id);
        PeerInfo {
            id: record.id,
            name: record.name.clone(),
            aliases: record.aliases.clone(),
            client: record.client.clone(),
            client_version: record.client_version.clone(),
            client_pid: session.map(|session| session.host.client_pid),
            online,
            cwd: record.cwd.clone(),
            git_root: record.git_root.clone(),
            repo: record.repo.clone(),
            host: record.host.clone(),
            summary: record.summary.clone(),
            state: record.state.clone(),
            task: record.task.clone(),
            pending: mailbox.map_or(0, |mailbox| mailbox.len() as u64),
            leased: mailbox.map_or(0, |mailbox| mailbox.leased() as u64),
            last_seen: if online { now.wall } else { record.last_seen },
            carriers: self.presence.carriers(record.id),
            activity: session.and_then(|session| session.activity),
            mode: session.and_then(|session| session.mode),
            policy: self.policy_of(record.id),
            groups: self.groups_of(record.id),
            held: mailbox.map_or(0, |mailbox| mailbox.held() as u64),
            offered: mailbox.map_or(0, |mailbox| mailbox.offered() as u64),
            full: mailbox
                .is_some_and(|mailbox| mailbox.len() as u32 >= self.config.limits.pending_per_peer),
            paused: self.pauses.peers.iter().any(|paused| self.is_same(record.id, *paused)),
            link: record.home.as_ref().map(|home| self.peer_link(home)),
            hidden: record.hidden,
        }
    }

    pub(crate) fn list_inbox(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        peer: Option<String>,
        held: bool,
        after: Option<Position>,
    ) -> Result<(), Rejection> {
        let (actor, me) = (caller.actor()?, caller.peer());
        let of = match (actor, peer.as_deref()) {
            (Actor::Session(mine), None) => Some(mine),
            (Actor::Session(mine), Some(name)) if self.presence.resolve(name, me)? == mine => {
                Some(mine)
            }
            (Actor::Session(_), Some(_)) => {
                return Err(Rejection::NotPermitted { act: Act::ReadOthersInbox });
            }
            (_, Some("*")) => None,
            (_, Some(name)) => Some(self.presence.resolve(name, me)?),
            (_, None) => me,
        };
        // A session gets held mail in a listing only if it asks for it.
        let all = !matches!(actor, Actor::Session(_));
        let wanted = |entry: &&MailboxEntry| {
            let asked_for = match entry.record.stage {
                Stage::Held => held || all,
                _ => !held,
            };
            asked_for && self.sees_delivery(actor, &entry.record)
        };
        let readers = of.map_or((Bound::Unbounded, Bound::Unbounded), |peer| {
            (Bound::Included(peer), Bound::Included(peer))
        });
        // One entry more than a page tells whether there is a next page.
        let mut page: BTreeSet<Position> = BTreeSet::new();
        for (peer, mailbox) in self.mailboxes.range(readers) {
            let from = after.map(|after| {
                // Within one message, the order of mailboxes is that of their peers.
                if peer > after.peer { predecessor(after.message) } else { Some(after.message) }
            });
            for entry in mailbox.after(from.flatten()).filter(wanted).take(PAGE_ENTRIES_MAX + 1) {
                page.insert(Position { message: entry.record.message, peer });
                if page.len() > PAGE_ENTRIES_MAX + 1 {
                    page.pop_last();
                }
            }
        }
        let more = page.len() > PAGE_ENTRIES_MAX && page.pop_last().is_some();
        let next = page.last().copied().filter(|_| more);
        let entry = |at: Position| {
            Some(self.inbox_entry(at.peer, self.mailboxes.get(at.peer, at.message)?))
        };
        let entries = page.into_iter().filter_map(entry).collect();
        turn.reply(caller, Reply::Inbox { entries, next });
        Ok(())
    }

    fn inbox_entry(&self, peer: PeerId, entry: &MailboxEntry) -> InboxEntry {
        let brief = &entry.record.brief;
        InboxEntry {
            message: entry.record.message,
            from: brief.from_name.clone(),
            via: brief.via,
            peer,
            to: self.name_of(peer),
            intent: brief.intent,
            stage: entry.stage(),
            sent_at: brief.sent_at,
            attempts: entry.record.attempts,
            text_bytes: brief.text_bytes,
        }
    }

    pub(crate) fn list_history(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        query: HistoryQuery,
    ) -> Result<(), Rejection> {
        let (actor, me) = (caller.actor()?, caller.peer());
        check_length("the thread", query.thread.as_deref().unwrap_or(""), THREAD_BYTES_MAX)?;
        let resolve =
            |name: Option<String>| name.map(|name| self.presence.resolve(&name, me)).transpose();
        let (mut peer, mut with) = (resolve(query.peer)?, resolve(query.with)?);
        let channel = match (query.channel, actor) {
            (None, _) => None,
            (Some(name), Actor::Session(_)) => {
                Some(self.member_channel(actor, &name)?.name.clone())
            }
            // The person can still read the posts of a deleted channel.
            (Some(name), _) => {
                Some(self.find_channel(actor, &name).map_or(name, |found| found.name.clone()))
            }
        };
        // A session may read the messages that it sent or received, and the posts in its channels.
        if let (Actor::Session(mine), None) = (actor, &channel) {
            match (peer, with) {
                (Some(other), Some(me)) if me == mine => with = Some(other),
                (Some(other), None) if other != mine => with = Some(other),
                (Some(other), Some(_)) if other != mine => {
                    return Err(Rejection::NotPermitted { act: Act::ReadOthersMail });
                }
                _ => {}
            }
            peer = Some(mine);
        }
        let limit = (query.limit as usize).clamp(1, PAGE_ENTRIES_MAX);
        let ids =
            |peer: Option<PeerId>| peer.map(|peer| self.presence.ids_of(peer)).unwrap_or_default();
        let (peer, with) = (ids(peer), ids(with));
        let HistoryQuery { thread, since, before, after, .. } = query;
        let query =
            Query::History { peer, with, thread, channel, since, before, after, limit, actor };
        turn.query(caller, query);
        Ok(())
    }

    /// Checks that the caller may read a message, and returns the query for it.
    pub(crate) fn reading(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        message: MessageId,
        facts: &Facts,
        query: Query,
    ) -> Result<(), Rejection> {
        caller.actor()?;
        let stored = facts.stored.get(&message).ok_or(Rejection::UnknownMessage(message))?;
        self.check_sees(caller, stored)?;
        turn.query(caller, query);
        Ok(())
    }
}

/// When a peer that went offline at `last_seen` leaves the default listing.
fn is_listed(now: Timestamp, last_seen: Timestamp) -> bool {
    now.ms_since(last_seen) < peer_proto::limits::LISTED_OFFLINE_MS
}

fn predecessor(message: MessageId) -> Option<MessageId> {
    message.to_u128().checked_sub(1).and_then(|number| MessageId::try_from(number).ok())
}
