//! What others may see: listings from memory, and permission to read the store.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::{PAGE_ENTRIES_MAX, SUMMARY_BYTES_MAX, THREAD_BYTES_MAX};
use peer_proto::message::Stage;
use peer_proto::policy::Policy;
use peer_proto::request::{HistoryQuery, InboxEntry, PeerInfo, PeersQuery, Position, Reply};

use crate::broker::{Actor, Broker, Caller};
use crate::input::{Facts, Now, StoredMessage};
use crate::mailbox::Entry;
use crate::presence::Operator;
use crate::record::PeerRecord;
use crate::rejection::Rejection;
use crate::sessions::{check_length, is_listed};
use crate::step::{Query, Step};

impl Broker {
    pub(crate) fn list_peers(&mut self, now: Now, caller: Caller, query: &PeersQuery, step: &mut Step) -> Result<(), Rejection> {
        self.actor(caller)?;
        check_length("the text to look for", query.text.as_deref().unwrap_or(""), SUMMARY_BYTES_MAX)?;
        let text = query.text.as_ref().map(|text| text.to_lowercase());
        let matches = |record: &PeerRecord| {
            let pending = self.mailbox(record.id).is_some();
            let listed = query.all || pending || self.presence.is_online(record.id) || is_listed(now.wall, record.last_seen);
            let fields = [&record.name, &record.summary, &record.task, &record.client, &record.cwd, &record.state];
            let found = text.as_ref().is_none_or(|text| fields.iter().any(|field| field.to_lowercase().contains(text)));
            record.id != PeerId::HUMAN
                && listed
                && found
                && query.cwd.as_ref().is_none_or(|cwd| *cwd == record.cwd)
                && query.repo.as_ref().is_none_or(|repo| record.repo.as_ref() == Some(repo))
        };
        let mut peers: Vec<PeerInfo> = Vec::new();
        let mut next = None;
        let full = self.presence.after(query.after).filter(|record| matches(record)).try_for_each(|record| {
            if peers.len() == PAGE_ENTRIES_MAX {
                return ControlFlow::Break(());
            }
            peers.push(self.peer_info(now, record));
            ControlFlow::Continue(())
        });
        if full.is_break() {
            next = peers.last().map(|peer| peer.id);
        }
        step.reply(caller.connection, caller.id, Reply::Peers { peers, next });
        Ok(())
    }

    fn peer_info(&self, now: Now, record: &PeerRecord) -> PeerInfo {
        let online = self.presence.is_online(record.id);
        let session = self.presence.reader(record.id).and_then(|reader| self.presence.session(reader));
        let mailbox = self.mailbox(record.id);
        PeerInfo {
            id: record.id,
            name: record.name.clone(),
            aliases: record.aliases.clone(),
            client: record.client.clone(),
            client_version: record.client_version.clone(),
            client_pid: session.map(|session| session.client_pid),
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
            carriers: self.carriers(record.id),
            activity: session.and_then(|session| session.activity),
            mode: session.and_then(|session| session.mode),
            policy: Policy::Accept,
        }
    }

    pub(crate) fn list_inbox(
        &mut self,
        caller: Caller,
        peer: Option<String>,
        held: bool,
        after: Option<Position>,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let me = self.sending_peer(caller.connection);
        let actor = self.actor(caller)?;
        let of = match (actor, peer.as_deref()) {
            (Actor::Session(mine), None) => Some(mine),
            (Actor::Session(mine), Some(name)) if self.presence.resolve(name, me)? == mine => Some(mine),
            (Actor::Session(_), Some(_)) => return Err(Rejection::NotPermitted { act: "reading another's inbox" }),
            (Actor::Operator(_), Some("*")) => None,
            (Actor::Operator(_), Some(name)) => Some(self.presence.resolve(name, me)?),
            (Actor::Operator(_), None) => me,
        };
        let wanted = |entry: &&Entry| !held || entry.record.stage == Stage::Held;
        let mailboxes = match of {
            Some(peer) => self.mailboxes.range(peer..=peer),
            None => self.mailboxes.range(..),
        };
        // One more than a page tells that there are more.
        let mut page: BTreeSet<Position> = BTreeSet::new();
        for (peer, mailbox) in mailboxes {
            let from = after.map(|after| {
                // Within one message the mailboxes come in the order of their peers.
                if *peer > after.peer { predecessor(after.message) } else { Some(after.message) }
            });
            for entry in mailbox.after(from.flatten()).filter(wanted).take(PAGE_ENTRIES_MAX + 1) {
                page.insert(Position { message: entry.record.message, peer: *peer });
                if page.len() > PAGE_ENTRIES_MAX + 1 {
                    page.pop_last();
                }
            }
        }
        let more = page.len() > PAGE_ENTRIES_MAX && page.pop_last().is_some();
        let next = page.last().copied().filter(|_| more);
        let entry = |at: Position| Some(self.inbox_entry(at.peer, self.mailbox(at.peer)?.get(at.message)?));
        let entries = page.into_iter().filter_map(entry).collect();
        step.reply(caller.connection, caller.id, Reply::Inbox { entries, next });
        Ok(())
    }

    fn inbox_entry(&self, peer: PeerId, entry: &Entry) -> InboxEntry {
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

    pub(crate) fn list_history(&mut self, caller: Caller, query: HistoryQuery, step: &mut Step) -> Result<(), Rejection> {
        let me = self.sending_peer(caller.connection);
        check_length("the thread", query.thread.as_deref().unwrap_or(""), THREAD_BYTES_MAX)?;
        let resolve = |name: Option<String>| name.map(|name| self.presence.resolve(&name, me)).transpose();
        let (mut peer, mut with) = (resolve(query.peer)?, resolve(query.with)?);
        // A session reads what it said and heard itself, and nothing else.
        if let Actor::Session(mine) = self.actor(caller)? {
            match (peer, with) {
                (Some(other), Some(me)) if me == mine => with = Some(other),
                (Some(other), None) if other != mine => with = Some(other),
                (Some(other), Some(_)) if other != mine => {
                    return Err(Rejection::NotPermitted { act: "reading what others said to each other" });
                }
                _ => {}
            }
            peer = Some(mine);
        }
        let limit = (query.limit as usize).clamp(1, PAGE_ENTRIES_MAX);
        let query = Query::History { peer, with, thread: query.thread, since: query.since, before: query.before, limit };
        step.query(caller.connection, caller.id, query);
        Ok(())
    }

    /// Lets the caller read a message that concerns it.
    pub(crate) fn reading(
        &mut self,
        caller: Caller,
        message: MessageId,
        facts: &Facts,
        query: Query,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        self.actor(caller)?;
        let stored = facts.stored.get(&message).ok_or(Rejection::UnknownMessage(message))?;
        self.may_read(caller, stored)?;
        step.query(caller.connection, caller.id, query);
        Ok(())
    }

    /// A session reads what it sent or was sent. To anybody else a message does not exist.
    pub(crate) fn may_read(&self, caller: Caller, stored: &StoredMessage) -> Result<(), Rejection> {
        match self.actor(caller)? {
            Actor::Operator(Operator::Person | Operator::Shell(_)) => Ok(()),
            Actor::Session(peer) => {
                let concerns = stored.head.from.peer == peer || stored.deliveries.iter().any(|delivery| delivery.peer == peer);
                if concerns { Ok(()) } else { Err(Rejection::UnknownMessage(stored.head.id)) }
            }
        }
    }
}

fn predecessor(message: MessageId) -> Option<MessageId> {
    message.to_u128().checked_sub(1).and_then(|number| MessageId::try_from(number).ok())
}
