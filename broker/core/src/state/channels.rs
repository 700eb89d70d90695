//! Channels and groups by name, and the memberships of each peer.
//!
//! Does not know rules, nor who may see a channel. Invariants: every channel has a member. A
//! membership is in both indexes or in neither.

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::ids::{MessageId, PeerId};

use crate::record::PeerRecord;
use crate::shared::ChannelRecord;
use crate::state::presence::Presence;

/// All channels and groups.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// By name in lower case: two names that differ only in case would be confused.
    by_name: BTreeMap<String, ChannelRecord>,
    /// The channels and groups of each peer, by those names.
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

    /// Returns the lowest id that a message of the newest channel can have. Ids continue from there
    /// after a restart, even if the clock is still behind.
    pub(crate) fn newest_from(&self) -> MessageId {
        let newest = self.by_name.values().map(|record| record.created_at).max();
        newest.map_or(MessageId::MIN, MessageId::first_at)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&ChannelRecord> {
        self.by_name.get(&name.to_ascii_lowercase())
    }

    /// Returns the channel of this broker that others address so.
    pub(crate) fn addressed(&self, address: PeerId) -> Option<&ChannelRecord> {
        if !address.is_channel() {
            return None;
        }
        self.iter().find(|record| is_of_this_broker(&record.name) && record.address() == address)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ChannelRecord> {
        self.by_name.values()
    }

    /// Returns the channels and groups of a peer.
    pub(crate) fn of(&self, peer: PeerId) -> impl Iterator<Item = &ChannelRecord> {
        self.of_peer.get(&peer).into_iter().flatten().filter_map(|key| self.by_name.get(key))
    }

    pub(crate) fn assert_invariants(&self, presence: &Presence) {
        let mut indexed = 0;
        for (key, record) in &self.by_name {
            assert!(!record.members.is_empty(), "{key} is without members");
            assert_eq!(*key, record.name.to_ascii_lowercase());
            let proxy = presence.by_name(key).and_then(|proxy| presence.get(proxy));
            assert_eq!(
                is_elsewhere(key),
                proxy.is_some_and(PeerRecord::is_channel),
                "{key} has a proxy exactly if it is on another broker"
            );
            for member in &record.members {
                indexed += 1;
                assert!(presence.get(*member).is_some(), "{member} in {key} is not retained");
                assert!(self.of_peer[member].contains(key), "{member} is known to be in {key}");
            }
        }
        assert_eq!(
            indexed,
            self.of_peer.values().map(BTreeSet::len).sum::<usize>(),
            "no membership twice, none left over"
        );
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

/// Whether a name is that of a channel of another broker: `#name@link`.
pub(crate) fn is_elsewhere(name: &str) -> bool {
    name.strip_prefix('#').is_some_and(|rest| rest.contains('@'))
}

/// Whether a name is that of a channel of this broker, which others may have members in.
pub(crate) fn is_of_this_broker(name: &str) -> bool {
    name.starts_with('#') && !is_elsewhere(name)
}

/// Whether a message belongs to an earlier channel of the same name.
pub(crate) fn began_before(record: &ChannelRecord, message: MessageId) -> bool {
    message >= MessageId::first_at(record.created_at)
}
