//! Links to other brokers: what the person decided of each, and the live connections that serve
//! them.
//!
//! Knows brokers, aliases, due receipts, and what others tell of their channels. Does not know mail, nor peers. Invariants: an alias
//! names one link. A broker is served by one connection at a time. A due receipt belongs to a known
//! link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp};
use peer_proto::limits::{LINK_MEMORY_MS, LINK_PER_MINUTE};
use peer_proto::link::ChannelCard;

use crate::input::ConnectionId;
use crate::record::{LinkRecord, LinksImage, ReceiptKey};

/// The window that the rate of a link counts in.
const MINUTE_MS: u64 = 60_000;

/// A connection that serves a link.
#[derive(Debug)]
pub(crate) struct LiveLink {
    pub(crate) connection: ConnectionId,
    /// The other broker's run. 0: it is not reached.
    pub(crate) boot: u64,
    pub(crate) since: Timestamp,
    /// Whether it was told that receipts are due, and has not asked for them since.
    pub(crate) told_due: bool,
    /// When its messages of the last minute came, on the monotonic clock.
    came: VecDeque<u64>,
}

impl LiveLink {
    pub(crate) fn new(connection: ConnectionId, boot: u64, since: Timestamp) -> Self {
        Self { connection, boot, since, told_due: false, came: VecDeque::new() }
    }

    /// Whether the other broker is reached. If not, the connection only carries letters.
    pub(crate) fn is_reached(&self) -> bool {
        self.boot != 0
    }

    /// Returns after how long the link may bring one more message. `None`: it may now.
    pub(crate) fn retry_after(&self, now_ms: u64) -> Option<u64> {
        let full = self.came.len() >= LINK_PER_MINUTE as usize;
        let oldest = self.came.front().filter(|_| full)?;
        let free_at = oldest.saturating_add(MINUTE_MS);
        (free_at > now_ms).then(|| free_at - now_ms)
    }

    /// Counts one message that the link brought.
    pub(crate) fn count(&mut self, now_ms: u64) {
        self.came.push_back(now_ms);
        while self.came.len() > LINK_PER_MINUTE as usize {
            self.came.pop_front();
        }
    }
}

/// The keys of one message's receipts.
fn receipts_of(broker: BrokerId, message: MessageId) -> RangeInclusive<ReceiptKey> {
    let key = |peer| ReceiptKey { broker, message, peer };
    key(PeerId(0))..=key(PeerId(u64::MAX))
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// This broker's identity.
    pub(crate) own: Option<BrokerId>,
    records: BTreeMap<BrokerId, LinkRecord>,
    live: BTreeMap<BrokerId, LiveLink>,
    /// Receipts that are due, each with its revision.
    due: BTreeMap<ReceiptKey, u32>,
    withdrawn: BTreeSet<(BrokerId, MessageId)>,
    /// Peers whose sessions are connected on other brokers, while their link is up.
    online: BTreeSet<PeerId>,
    /// What other brokers told last of their channels.
    channels: BTreeMap<(BrokerId, PeerId), ChannelCard>,
}

impl Links {
    pub(crate) fn load(image: LinksImage) -> Self {
        Self {
            own: image.own,
            records: image.links.into_iter().map(|record| (record.broker, record)).collect(),
            due: image.receipts.into_iter().collect(),
            withdrawn: image.withdrawn.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn get(&self, broker: BrokerId) -> Option<&LinkRecord> {
        self.records.get(&broker)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LinkRecord> {
        self.records.values()
    }

    pub(crate) fn put(&mut self, record: LinkRecord) {
        self.records.insert(record.broker, record);
    }

    pub(crate) fn remove(&mut self, broker: BrokerId) {
        self.records.remove(&broker);
        self.live.remove(&broker);
        self.due.retain(|key, _| key.broker != broker);
        self.withdrawn.retain(|(origin, _)| *origin != broker);
        self.channels.retain(|(at, _), _| *at != broker);
    }

    /// Finds a link by its alias, in any case, or by the other broker's identity.
    pub(crate) fn find(&self, text: &str) -> Option<&LinkRecord> {
        match text.parse::<BrokerId>() {
            Ok(broker) => self.get(broker),
            Err(_) => self.iter().find(|record| record.alias.eq_ignore_ascii_case(text)),
        }
    }

    // ---- live connections

    pub(crate) fn live(&self, broker: BrokerId) -> Option<&LiveLink> {
        self.live.get(&broker)
    }

    pub(crate) fn live_mut(&mut self, broker: BrokerId) -> Option<&mut LiveLink> {
        self.live.get_mut(&broker)
    }

    /// Returns the brokers that a connection serves now.
    pub(crate) fn all_live(&self) -> impl Iterator<Item = (BrokerId, &LiveLink)> {
        self.live.iter().map(|(broker, live)| (*broker, live))
    }

    pub(crate) fn open(&mut self, broker: BrokerId, live: LiveLink) {
        self.live.insert(broker, live);
    }

    pub(crate) fn close(&mut self, broker: BrokerId) {
        self.live.remove(&broker);
    }

    /// Records whether a proxy's session is connected on its broker.
    pub(crate) fn set_online(&mut self, proxy: PeerId, online: bool) {
        if online {
            self.online.insert(proxy);
        } else {
            self.online.remove(&proxy);
        }
    }

    pub(crate) fn is_online(&self, proxy: PeerId) -> bool {
        self.online.contains(&proxy)
    }

    // ---- channels of other brokers

    pub(crate) fn channel_cards(&self) -> impl Iterator<Item = (BrokerId, &ChannelCard)> {
        self.channels.iter().map(|((broker, _), card)| (*broker, card))
    }

    pub(crate) fn channel_card(&self, broker: BrokerId, channel: PeerId) -> Option<&ChannelCard> {
        self.channels.get(&(broker, channel))
    }

    /// Records what a broker tells of a channel, unless another of its channels has that name,
    /// or it was told otherwise of this one's name or privacy, which never change. Returns whether it is recorded.
    pub(crate) fn put_channel_card(&mut self, broker: BrokerId, card: ChannelCard) -> bool {
        let is_taken = |(at, other): (BrokerId, &ChannelCard)| {
            let same_name = other.name.eq_ignore_ascii_case(&card.name);
            let same = other.channel == card.channel;
            at == broker && (same_name != same || (same && other.private != card.private))
        };
        let free = !self.channel_cards().any(is_taken);
        if free {
            self.channels.insert((broker, card.channel), card);
        }
        free
    }

    /// Forgets the channels of a broker that it does not tell of any more.
    pub(crate) fn keep_channel_cards(&mut self, broker: BrokerId, all: &BTreeSet<PeerId>) {
        self.channels.retain(|(at, channel), _| *at != broker || all.contains(channel));
    }

    // ---- receipts and withdrawn messages

    pub(crate) fn put_due(&mut self, key: ReceiptKey, rev: u32) {
        self.due.insert(key, rev);
    }

    /// Removes a confirmed receipt. Returns whether it was due with this revision.
    pub(crate) fn remove_due(&mut self, key: ReceiptKey, rev: u32) -> bool {
        let confirmed = self.due.get(&key) == Some(&rev);
        if confirmed {
            self.due.remove(&key);
        }
        confirmed
    }

    /// Whether a receipt of this message is due to this broker.
    pub(crate) fn has_due(&self, broker: BrokerId, message: MessageId) -> bool {
        self.due.range(receipts_of(broker, message)).next().is_some()
    }

    /// Removes the receipts of a deleted message.
    pub(crate) fn forget_due(&mut self, broker: BrokerId, message: MessageId) -> Vec<ReceiptKey> {
        let range = receipts_of(broker, message);
        let keys: Vec<ReceiptKey> = self.due.range(range).map(|(key, _)| *key).collect();
        for key in &keys {
            self.due.remove(key);
        }
        keys
    }

    /// Returns the receipts that are due to this broker, by message.
    pub(crate) fn due(&self, broker: BrokerId) -> impl Iterator<Item = (ReceiptKey, u32)> + '_ {
        let first = ReceiptKey { broker, message: MessageId::MIN, peer: PeerId(0) };
        self.due
            .range(first..)
            .take_while(move |(key, _)| key.broker == broker)
            .map(|(key, rev)| (*key, *rev))
    }

    pub(crate) fn is_withdrawn(&self, broker: BrokerId, message: MessageId) -> bool {
        self.withdrawn.contains(&(broker, message))
    }

    pub(crate) fn put_withdrawn(&mut self, broker: BrokerId, message: MessageId) {
        self.withdrawn.insert((broker, message));
    }

    /// Returns how many withdrawn messages of a broker are remembered.
    pub(crate) fn withdrawn_of(&self, broker: BrokerId) -> usize {
        self.withdrawn.range((broker, MessageId::MIN)..=(broker, MessageId::MAX)).count()
    }

    /// Forgets the withdrawn messages that are too old to come, and returns them.
    pub(crate) fn forget_withdrawn(&mut self, broker: BrokerId, now: Timestamp) -> Vec<MessageId> {
        let outdated = |id: &MessageId| id.accepted_at().plus_ms(LINK_MEMORY_MS) < now;
        let range = (broker, MessageId::MIN)..=(broker, MessageId::MAX);
        let gone: Vec<MessageId> =
            self.withdrawn.range(range).map(|(_, id)| *id).take_while(outdated).collect();
        for id in &gone {
            self.withdrawn.remove(&(broker, *id));
        }
        gone
    }

    pub(crate) fn assert_invariants(&self) {
        let mut aliases = BTreeSet::new();
        for record in self.records.values() {
            assert!(
                aliases.insert(record.alias.to_ascii_lowercase()),
                "{} names two links",
                record.alias
            );
        }
        for key in self.due.keys() {
            assert!(self.records.contains_key(&key.broker), "{key:?} is due to an unknown link");
        }
        for broker in self.live.keys() {
            assert!(self.records.contains_key(broker), "{broker} is live and unknown");
        }
    }
}
