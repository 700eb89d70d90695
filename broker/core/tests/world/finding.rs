//! A search as the shell would carry it out, without words: a text is found where it stands in another one.

use peer_core::record::MessageRecord;
use peer_core::step::Search;
use peer_core::thing::Thing;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::Kind;

use super::World;

impl World {
    /// What is found, oldest first; then tasks, then notes.
    pub fn found_line(&self, search: &Search) -> String {
        let wanted = &search.query.text;
        let messages =
            self.disk.messages.values().filter(|message| message.text.contains(wanted) && self.may_find(search, message));
        let mut found: Vec<String> = messages.map(|message| self.alias(message.head.id)).collect();
        // Filters on messages alone leave out what is none.
        let only_messages = search.query.channel.is_some() || search.query.thread.is_some() || search.query.peer.is_some();
        for thing in self.disk.things.values().filter(|_| !only_messages) {
            match thing {
                Thing::Task(task) if task.title.contains(wanted) => found.push(task.id.to_string()),
                Thing::Note(note) if note.value.contains(wanted) => found.push(format!("the note {}", note.head.key)),
                _ => {}
            }
        }
        if found.is_empty() { "nothing".to_owned() } else { found.join(" ") }
    }

    fn may_find(&self, search: &Search, message: &MessageRecord) -> bool {
        let head = &message.head;
        let one_of = |peers: &[PeerId], peer: PeerId| peers.contains(&peer);
        let deliveries =
            self.disk.deliveries.range((head.id, PeerId(0))..=(head.id, PeerId(u64::MAX))).map(|(_, delivery)| delivery);
        let deliveries: Vec<_> = deliveries.collect();
        let concerns =
            |peers: &[PeerId]| one_of(peers, head.from.peer) || deliveries.iter().any(|delivery| one_of(peers, delivery.peer));
        let channel = head.channel.as_deref().map(str::to_ascii_lowercase);
        let said_in = search
            .channels
            .iter()
            .any(|(name, began_at)| channel.as_ref() == Some(name) && head.id >= MessageId::first_at(*began_at));
        let answers = head.kind == Kind::Answer;
        let direct = search.direct && !answers && channel.as_ref().is_none_or(|channel| channel.starts_with('@'));
        let seen = search.seen_by.as_ref().is_none_or(|peers| concerns(peers) || said_in || direct);
        let kept = !one_of(&search.kept_from, head.from.peer)
            && deliveries.iter().any(|delivery| one_of(&search.kept_from, delivery.peer) && delivery.is_kept_back());
        let query = &search.query;
        seen && !kept
            && (query.peer.is_none() || concerns(&search.peers))
            && query.channel.as_ref().is_none_or(|wanted| channel.as_ref() == Some(wanted))
            && query.thread.as_ref().is_none_or(|wanted| head.thread == *wanted)
    }
}
