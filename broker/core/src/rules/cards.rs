//! Tells other brokers of this broker's peers, as far as the person shares them.
//!
//! Knows what a card may say. Does not know why a peer changed. Invariants: a card has no directory,
//! repository or process. A peer that is hidden, or of another broker, has no card.

use peer_proto::ids::{BrokerId, PeerId};
use peer_proto::limits::LINK_PEERS_MAX;
use peer_proto::link::{Card, LinkPush, Share};
use peer_proto::request::Push;

use crate::broker::Broker;
use crate::record::PeerRecord;
use crate::turn::Turn;

impl Broker {
    /// Tells a link all peers that it may know of.
    pub(crate) fn push_cards(&self, turn: &mut Turn<'_>, broker: BrokerId) {
        let Some(live) = self.links.live(broker) else { return };
        let share = self.links.get(broker).map_or(Share::None, |record| record.share);
        let cards = self.presence.iter().filter_map(|record| self.card_of(record, share));
        let cards = cards.take(LINK_PEERS_MAX).collect();
        let push = LinkPush::Cards { full: true, cards, gone: Vec::new() };
        turn.push(live.connection, Push::Link(push));
    }

    /// Tells all links of peers that changed.
    pub(crate) fn share_peers(&self, turn: &mut Turn<'_>, peers: &[PeerId]) {
        for (broker, live) in self.links.all_live() {
            let share = self.links.get(broker).map_or(Share::None, |record| record.share);
            if share == Share::None {
                continue;
            }
            let (mut cards, mut gone) = (Vec::new(), Vec::new());
            for peer in peers {
                let record = self.presence.get(*peer);
                if record.is_some_and(|record| record.home.is_some()) {
                    continue;
                }
                match record.and_then(|record| self.card_of(record, share)) {
                    Some(card) => cards.push(card),
                    None => gone.push(*peer),
                }
            }
            if !cards.is_empty() || !gone.is_empty() {
                let push = LinkPush::Cards { full: false, cards, gone };
                turn.push(live.connection, Push::Link(push));
            }
        }
    }

    fn card_of(&self, record: &PeerRecord, share: Share) -> Option<Card> {
        if record.hidden || record.home.is_some() || share == Share::None {
            return None;
        }
        let tells = share == Share::Summaries;
        let session =
            self.presence.reader(record.id).and_then(|reader| self.presence.session(reader));
        let said = |text: &String| if tells { text.clone() } else { String::new() };
        Some(Card {
            peer: record.id,
            name: record.name.clone(),
            client: record.client.clone(),
            online: record.id == PeerId::HUMAN || session.is_some(),
            state: said(&record.state),
            summary: said(&record.summary),
            activity: session.and_then(|session| session.activity).filter(|_| tells),
        })
    }
}
