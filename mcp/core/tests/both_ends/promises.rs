//! Whether the promises hold, looked at wherever something is shown or stored.

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Cause, Evidence, Stage, TraceEvent};

use crate::client::{Piece, is_marked, pieces};
use crate::ends::{Ends, of};

/// How often a client without a record forgot a text and told nobody, and an event then proved it:
/// no adapter can know (`docs/known-issues.md`).
const UNTOLD: &str = "outcome: presented by a later event, after a hook was lost without a record";

/// How often the offer of a text was lost with its adapter: the next showing has no mark.
const UNMARKED: &str = "outcome: shown again without a mark, the broker never heard of the offer";

impl Ends {
    /// A message became `presented`. The model of the client whose adapter told the evidence has
    /// seen all of it, unless the reader says so itself.
    pub fn stored_as_presented(&mut self, message: MessageId, peer: PeerId, cause: Option<Cause>) {
        let Some(Cause::Evidence(evidence)) = cause else { return };
        if evidence == Evidence::Ack {
            return;
        }
        *self.counts.entry("presented by evidence").or_default() += 1;
        if !self.bodies.contains_key(&message) {
            return;
        }
        let client = self.asking.map(|at| &self.clients[of(at)]);
        let is_reader = client.is_some_and(|client| client.peers.contains(&peer));
        if is_reader && client.is_some_and(|client| client.has_seen(message)) {
            return;
        }
        // A client without a record that loses a hook, or what a hook printed, tells nobody. Only
        // its later events can be taken for evidence then, and never the words of a record.
        let is_untold =
            client.is_some_and(|client| !client.records && client.untold.contains(&message));
        let is_event = matches!(evidence, Evidence::NextCall | Evidence::NextTurn);
        assert!(
            is_reader && is_untold && is_event,
            "{}",
            self.story(&format!(
                "{message} to {peer} is presented by {cause:?}, told by {}, whose model \
                 has not seen all of it as that peer",
                client.map_or("nobody", |client| &client.name)
            ))
        );
        self.count(UNTOLD);
    }

    /// Whether the broker has stored an offer of this message to the peer of this adapter.
    pub fn was_offered(&self, at: usize, message: MessageId) -> bool {
        let peer = self.sessions[at].peer();
        let stored = peer.and_then(|peer| self.world.disk.deliveries.get(&(message, peer)));
        stored.is_some_and(|stored| {
            stored.trace.iter().any(|entry| entry.event == TraceEvent::Offered)
        })
    }

    /// The client's model has answered a request that had these.
    pub fn note_seen(&mut self, client: usize, asked: &[Piece]) {
        for (piece, (message, _)) in asked
            .iter()
            .flat_map(|piece| pieces(&piece.text).into_iter().map(move |it| (piece, it)))
        {
            if self.clients[client].seen_up_to(message) == 0 {
                continue;
            }
            self.seen_from.insert((piece.from, message));
            for at in self.adapters(client) {
                self.seen_as.extend(self.sessions[at].peer().map(|peer| (peer, message)));
            }
        }
    }

    /// A text goes to a client unasked. Nothing in it was proved before. What its model has seen is
    /// marked, if this adapter gave it, or if the broker knew of the offer.
    pub fn shown(&mut self, at: usize, text: &str, how: &str) {
        for (message, _) in pieces(text) {
            *self.counts.entry("showings").or_default() += 1;
            let broken =
                |what: &str| self.story(&format!("{message} is {how} in {} {what}", self.who(at)));
            let session = &self.sessions[at];
            assert!(!session.proved.contains(&message), "{}", broken("after proof"));
            let peer = session.peer();
            let stored = peer.and_then(|peer| self.world.disk.deliveries.get(&(message, peer)));
            let is_over = stored.is_some_and(|delivery| delivery.stage == Stage::Presented);
            // What the broker has stored may be on its way to this adapter.
            let is_known = session.down.is_empty() && is_over;
            assert!(!is_known, "{}", broken("though stored as presented"));
            if is_marked(text, message) {
                continue;
            }
            let is_own = self.seen_from.contains(&(session.serial, message));
            assert!(!is_own, "{}", broken("once more by the same adapter, without a mark"));
            let is_seen = peer.is_some_and(|peer| self.seen_as.contains(&(peer, message)));
            let is_told = session.came_offered.contains(&message);
            assert!(!(is_seen && is_told), "{}", broken("once more, without a mark"));
            if is_seen {
                *self.counts.entry(UNMARKED).or_default() += 1;
            }
        }
    }

    /// The adapter's name in what is printed.
    pub fn who(&self, at: usize) -> String {
        format!("{}/{at}", self.clients[of(at)].name)
    }

    /// What happened, for whoever reads why a promise is broken.
    pub fn story(&self, what: &str) -> String {
        let from = self.log.len().saturating_sub(120);
        let clients = self.clients.iter().map(|client| client.what());
        let alive = (0..self.sessions.len()).filter(|at| self.sessions[*at].is_alive);
        let adapters = alive.map(|at| {
            let peer = self.sessions[at].adapter.identity();
            let peer = peer.map(|it| (it.peer, it.name.clone(), it.takes_mail));
            format!("{} is {peer:?}", self.who(at))
        });
        let who = clients.chain(adapters).collect::<Vec<_>>().join("\n");
        format!("{what}\n{who}\nwhat was done last:\n  {}", self.log[from..].join("\n  "))
    }
}
