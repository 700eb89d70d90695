//! Channels and groups by name, and what each peer is a member of.
//!
//! Does not know rules, nor who may see a channel. Invariants: no channel is without members; a membership stands in both
//! indexes or in none.

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::ids::{MessageId, PeerId};

use crate::state::presence::Presence;
use crate::thing::ChannelRecord;

/// All channels and groups.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// By name in lower case: two names that differ in case alone would be a trap.
    by_name: BTreeMap<String, ChannelRecord>,
    /// What each peer is a member of, by those names.
    of_peer: BTreeMap<PeerId, BTreeSet<String>>,
}

impl Channels {
    pub(crate) fn load(records: Vec<ChannelRecord>) -> Self {
        let mut channels = Self::default();
        records.into_iter().for_each(|record| channels.put(record));
        channels
    }

    pub(crate) fn put(&mut self, record: ChannelRecord) {
        let key = record.name.to_ascii_lowercase();
        self.remove(&key);
        for member in &record.members {
            self.of_peer.entry(*member).or_default().insert(key.clone());
        }
        self.by_name.insert(key, record);
    }

    pub(crate) fn remove(&mut self, key: &str) {
        let Some(record) = self.by_name.remove(key) else { return };
        for member in record.members {
            if let Some(own) = self.of_peer.get_mut(&member) {
                own.remove(key);
                if own.is_empty() {
                    self.of_peer.remove(&member);
                }
            }
        }
    }

    /// The first id that a message of the newest channel can have. Ids go on from there also after a restart, though the
    /// clock may not have come that far.
    pub(crate) fn newest_from(&self) -> MessageId {
        let newest = self.by_name.values().map(|record| record.created_at).max();
        newest.map_or(MessageId::MIN, MessageId::first_at)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&ChannelRecord> {
        self.by_name.get(&name.to_ascii_lowercase())
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ChannelRecord> {
        self.by_name.values()
    }

    /// What a peer is a member of.
    pub(crate) fn of(&self, peer: PeerId) -> impl Iterator<Item = &ChannelRecord> {
        self.of_peer.get(&peer).into_iter().flatten().filter_map(|key| self.by_name.get(key))
    }

    pub(crate) fn assert_invariants(&self, presence: &Presence) {
        let mut indexed = 0;
        for (key, record) in &self.by_name {
            assert!(!record.members.is_empty(), "{key} is without members");
            assert_eq!(*key, record.name.to_ascii_lowercase());
            for member in &record.members {
                indexed += 1;
                assert!(presence.get(*member).is_some(), "{member} in {key} is not retained");
                assert!(self.of_peer[member].contains(key), "{member} is known to be in {key}");
            }
        }
        assert_eq!(indexed, self.of_peer.values().map(BTreeSet::len).sum::<usize>(), "no membership twice, none left over");
    }
}

/// Whether a name is that of a channel or a group, by its sign.
pub(crate) fn is_channel_name(name: &str) -> bool {
    name.starts_with(['#', '@'])
}

/// Whether a name is that of a group: a label, which hides nothing and may wake.
pub(crate) fn is_group(name: &str) -> bool {
    name.starts_with('@')
}

/// A message of an earlier channel of the same name is not this one's.
pub(crate) fn began_before(record: &ChannelRecord, message: MessageId) -> bool {
    message >= MessageId::first_at(record.created_at)
}
