//! The mail that waits to be sent to one other broker, in the order in which it may be sent.
//!
//! Knows messages, senders and proxies. Does not know links, nor what happens to a message.
//! Invariants: of each pair of sender and proxy at most one message is under way, the oldest. A
//! message to several proxies waits until it is the oldest of all its pairs. So neither loss nor
//! repeats on the way can change the order.

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::ids::{MessageId, PeerId};

/// A sender and a proxy.
type Pair = (PeerId, PeerId);

/// The deliveries to the proxies of one broker that are not relayed, held or settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outgoing {
    messages: BTreeMap<MessageId, Waiting>,
    queues: BTreeMap<Pair, BTreeSet<MessageId>>,
    /// Messages that are the oldest of one of their pairs, and not under way.
    heads: BTreeSet<MessageId>,
    under_way: usize,
    bytes_under_way: usize,
    deliveries: usize,
}

/// A message with its proxies on one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Waiting {
    /// Absent until the first delivery is added.
    sender: Option<PeerId>,
    /// The proxies, each with whether the delivery is leased.
    proxies: BTreeMap<PeerId, bool>,
    text_bytes: usize,
}

impl Outgoing {
    /// Adds a delivery, leased or not.
    pub(crate) fn add(
        &mut self,
        message: MessageId,
        (sender, proxy): Pair,
        text_bytes: usize,
        leased: bool,
    ) {
        let waiting = self.messages.entry(message).or_default();
        waiting.sender = Some(sender);
        waiting.text_bytes = text_bytes;
        waiting.proxies.insert(proxy, leased);
        let queue = self.queues.entry((sender, proxy)).or_default();
        let was_first = queue.first().copied();
        queue.insert(message);
        self.deliveries += 1;
        if leased {
            self.under_way += 1;
            self.bytes_under_way += text_bytes;
        }
        if let Some(was_first) = was_first {
            self.review(was_first);
        }
        self.review(message);
    }

    /// Removes a delivery: it is relayed, held or settled.
    pub(crate) fn remove(&mut self, message: MessageId, (sender, proxy): Pair) {
        let Some(waiting) = self.messages.get_mut(&message) else { return };
        let Some(leased) = waiting.proxies.remove(&proxy) else { return };
        self.deliveries -= 1;
        if leased {
            self.under_way -= 1;
            self.bytes_under_way -= waiting.text_bytes;
        }
        if waiting.proxies.is_empty() {
            self.messages.remove(&message);
        }
        let mut next = None;
        if let Some(queue) = self.queues.get_mut(&(sender, proxy)) {
            queue.remove(&message);
            next = queue.first().copied();
            if queue.is_empty() {
                self.queues.remove(&(sender, proxy));
            }
        }
        self.review(message);
        if let Some(next) = next {
            self.review(next);
        }
    }

    /// Returns the oldest message that may be sent now, with its proxies.
    pub(crate) fn next(&self) -> Option<(MessageId, Vec<PeerId>)> {
        self.heads.iter().find_map(|message| {
            let waiting = self.messages.get(message)?;
            let sender = waiting.sender?;
            let free = |proxy: &PeerId| {
                self.queues.get(&(sender, *proxy)).and_then(BTreeSet::first) == Some(message)
            };
            waiting
                .proxies
                .keys()
                .all(free)
                .then(|| (*message, waiting.proxies.keys().copied().collect()))
        })
    }

    /// The number of deliveries that are under way, and the bytes of their texts.
    pub(crate) fn window(&self) -> (usize, usize) {
        (self.under_way, self.bytes_under_way)
    }

    /// The number of deliveries that are not under way.
    pub(crate) fn waiting(&self) -> usize {
        self.deliveries - self.under_way
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Updates whether a message is among the heads.
    fn review(&mut self, message: MessageId) {
        let is_head = self.messages.get(&message).is_some_and(|waiting| {
            waiting.sender.is_some_and(|sender| {
                waiting.proxies.iter().any(|(proxy, leased)| {
                    !leased
                        && self.queues.get(&(sender, *proxy)).and_then(BTreeSet::first)
                            == Some(&message)
                }) && waiting.proxies.values().all(|leased| !leased)
            })
        });
        if is_head {
            self.heads.insert(message);
        } else {
            self.heads.remove(&message);
        }
    }
}

#[cfg(test)]
mod tests {
    use peer_proto::ids::Timestamp;

    use super::*;

    const A: PeerId = PeerId(2);
    const X: PeerId = PeerId(10);
    const Y: PeerId = PeerId(11);

    fn id(number: u64) -> MessageId {
        MessageId::first_at(Timestamp(number))
    }

    #[test]
    fn one_message_of_a_pair_is_under_way_at_a_time() {
        let mut outgoing = Outgoing::default();
        outgoing.add(id(1), (A, X), 5, false);
        outgoing.add(id(2), (A, X), 5, false);
        outgoing.add(id(3), (A, Y), 5, false);
        assert_eq!(outgoing.next(), Some((id(1), vec![X])));
        outgoing.remove(id(1), (A, X));
        outgoing.add(id(1), (A, X), 5, true);
        assert_eq!(outgoing.next(), Some((id(3), vec![Y])), "another pair does not wait");
        outgoing.remove(id(3), (A, Y));
        assert_eq!(outgoing.next(), None);
        assert_eq!((outgoing.window(), outgoing.waiting()), ((1, 5), 1));
        outgoing.remove(id(1), (A, X));
        assert_eq!(outgoing.next(), Some((id(2), vec![X])));
        outgoing.remove(id(2), (A, X));
        assert_eq!(outgoing, Outgoing::default());
    }

    #[test]
    fn a_message_to_several_waits_until_all_its_pairs_are_free() {
        let mut outgoing = Outgoing::default();
        outgoing.add(id(1), (A, X), 5, true);
        for proxy in [X, Y] {
            outgoing.add(id(2), (A, proxy), 5, false);
        }
        outgoing.add(id(3), (A, Y), 5, false);
        assert_eq!(outgoing.next(), None, "the third may not overtake the second at Y");
        outgoing.remove(id(1), (A, X));
        assert_eq!(outgoing.next(), Some((id(2), vec![X, Y])));
    }
}
