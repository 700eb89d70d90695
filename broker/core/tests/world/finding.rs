//! A search as the shell would carry it out, without words: a text is found where it stands in
//! another one.

use peer_core::record::{DeliveryRecord, MessageRecord};
use peer_core::shared::SharedRecord;
use peer_core::step::{Query, Search};
use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::Kind;

use super::World;

impl World {
    /// What is found, oldest first; then tasks, then notes.
    pub fn found_line(&self, search: &Search) -> String {
        let wanted = &search.query.text;
        let messages = self
            .disk
            .messages
            .values()
            .filter(|message| message.text.contains(wanted) && self.may_find(search, message));
        let mut found: Vec<String> = messages.map(|message| self.alias(message.head.id)).collect();
        // Filters on messages alone leave out what is none.
        let only_messages = search.query.channel.is_some()
            || search.query.thread.is_some()
            || search.query.peer.is_some();
        for shared in self.disk.shared.values().filter(|_| !only_messages) {
            match shared {
                SharedRecord::Task(task) if task.title.contains(wanted) => {
                    found.push(task.id.to_string())
                }
                SharedRecord::Note(note) if note.value.contains(wanted) => {
                    found.push(format!("the note {}", note.head.key))
                }
                _ => {}
            }
        }
        if found.is_empty() { "nothing".to_owned() } else { found.join(" ") }
    }

    /// What a history shows, oldest first.
    pub fn history_line(&self, query: &Query) -> String {
        let Query::History { peer, with, thread, channel, actor, .. } = query else {
            panic!("no history: {query:?}")
        };
        let shows = |message: &&MessageRecord| {
            let head = &message.head;
            let party = |ids: &[PeerId]| {
                ids.is_empty()
                    || ids.contains(&head.from.peer)
                    || head.to.iter().any(|(to, _)| ids.contains(to))
            };
            let said_in = |channel: &String| {
                head.kind != Kind::Notice && head.channel.as_ref() == Some(channel)
            };
            let deliveries: Vec<_> = self.deliveries_of(head.id).into_iter().cloned().collect();
            party(peer)
                && party(with)
                && thread.as_ref().is_none_or(|thread| head.thread == *thread)
                && channel.as_ref().is_none_or(said_in)
                && self.broker.may_concern(*actor, head)
                && self.broker.sees_message(*actor, head, &deliveries)
        };
        let shown: Vec<String> = self
            .disk
            .messages
            .values()
            .filter(shows)
            .map(|message| self.alias(message.head.id))
            .collect();
        if shown.is_empty() { "nothing".to_owned() } else { shown.join(" ") }
    }

    fn deliveries_of(&self, message: MessageId) -> Vec<&DeliveryRecord> {
        self.disk
            .deliveries
            .range((message, PeerId(0))..=(message, PeerId(u64::MAX)))
            .map(|(_, delivery)| delivery)
            .collect()
    }

    fn may_find(&self, search: &Search, message: &MessageRecord) -> bool {
        let head = &message.head;
        let one_of = |peers: &[PeerId], peer: PeerId| peers.contains(&peer);
        let deliveries = self.deliveries_of(head.id);
        let concerns = |peers: &[PeerId]| {
            one_of(peers, head.from.peer)
                || deliveries.iter().any(|delivery| one_of(peers, delivery.peer))
        };
        let channel = head.channel.as_deref().map(str::to_ascii_lowercase);
        let said_in = |channels: &[(String, Timestamp)]| {
            let said_in = |(name, began_at): &(String, Timestamp)| {
                channel.as_ref() == Some(name) && head.id >= MessageId::first_at(*began_at)
            };
            channels.iter().any(said_in)
        };
        let kept = deliveries.iter().filter(|delivery| delivery.is_kept_back()).count();
        let as_member = said_in(&search.channels) && (kept == 0 || kept < deliveries.len());
        let direct = search.direct
            && !head.private
            && channel.as_ref().is_none_or(|channel| channel.starts_with('@'));
        let as_anybody = (said_in(&search.open_channels) || direct) && kept == 0;
        let seen =
            search.seen_by.as_ref().is_none_or(|peers| concerns(peers) || as_member || as_anybody);
        let own = search.seen_by.as_deref().unwrap_or_default();
        let kept = !one_of(own, head.from.peer)
            && deliveries
                .iter()
                .any(|delivery| one_of(own, delivery.peer) && delivery.is_kept_back());
        let query = &search.query;
        seen && !kept
            && (query.peer.is_none() || concerns(&search.peers))
            && query.channel.as_ref().is_none_or(|wanted| channel.as_ref() == Some(wanted))
            && query.thread.as_ref().is_none_or(|wanted| head.thread == *wanted)
    }
}
