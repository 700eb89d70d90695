//! What is proved, what the broker is told of it, and what is known of the model's work.
//!
//! Knows which event is evidence for which messages. Does not know where the event was read. Invariant: a message is
//! forgotten only when the broker has said that the evidence is durable, or that the message is no longer this session's.

use std::collections::BTreeMap;

use peer_proto::hook::Activity;
use peer_proto::ids::MessageId;
use peer_proto::limits::MESSAGES_PER_REQUEST_MAX;
use peer_proto::message::{Carrier, Evidence};
use peer_proto::request::Request;

use crate::adapter::Adapter;
use crate::event::Action;
use crate::inbox::{Proof, Seen};

impl Adapter {
    /// Tells the broker of evidence, and forgets the messages once it is durable.
    pub(crate) fn prove(&mut self, messages: Vec<MessageId>, proof: Proof) {
        let Proof { carrier, evidence } = proof;
        self.facts.prove(carrier);
        self.ask(messages.clone(), Request::Presented { messages, carrier, evidence });
    }

    /// Tells the broker of everything that the inbox has found proved. Without a connection the inbox keeps the proofs, and
    /// tells them when the broker pushes the messages again.
    pub(crate) fn prove_all(&mut self, proved: &[(MessageId, Proof)]) {
        if !self.is_connected {
            return;
        }
        let mut alike: BTreeMap<(Carrier, Evidence), Vec<MessageId>> = BTreeMap::new();
        for (message, Proof { carrier, evidence }) in proved {
            alike.entry((*carrier, *evidence)).or_default().push(*message);
        }
        for ((carrier, evidence), messages) in alike {
            for messages in messages.chunks(MESSAGES_PER_REQUEST_MAX) {
                self.prove(messages.to_vec(), Proof { carrier, evidence });
            }
        }
    }

    /// The broker answered. Lost, or cut off by a full disk: it pushes the messages again, and they are proved again.
    pub(crate) fn answered(&mut self, ticket: u64, done: bool) {
        let Some(messages) = self.asked.remove(&ticket).filter(|_| done) else { return };
        self.inbox.remove(&messages);
        self.look();
        self.actions.push(Action::News);
    }

    /// The reader acknowledged or answered these: a push carrier that alone was given one has brought it.
    pub(crate) fn settled(&mut self, messages: &[MessageId]) {
        for carrier in messages.iter().filter_map(|message| self.inbox.brought_by(*message)) {
            self.facts.prove(carrier);
        }
        self.inbox.remove(messages);
    }

    /// The client showed an event, after which the end of this session counts as an attempt for what it was given before.
    /// `among`: only for these. Without a connection the broker counts the end of this session by what it has stored.
    pub(crate) fn tried(&mut self, among: Option<&[MessageId]>) {
        if !self.is_connected {
            return;
        }
        let tried = self.inbox.newly_tried(among, self.pushing.held_up());
        for messages in tried.chunks(MESSAGES_PER_REQUEST_MAX) {
            self.tell(Request::Tried { messages: messages.to_vec() });
        }
    }

    /// The client's own record was read.
    pub(crate) fn recorded(&mut self, seen: &[Seen], withdrawn: &[(MessageId, Option<Carrier>)], speaks: bool) {
        self.inbox.note_record(speaks);
        // Seeing the first part of a long message does not prove the message, but it proves the carrier.
        for carrier in self.inbox.arrived(seen) {
            self.facts.prove(carrier);
        }
        let proved = self.inbox.recorded(seen);
        self.prove_all(&proved);
        if self.inbox.withdraw(withdrawn) {
            self.look();
            self.actions.push(Action::News);
        }
    }

    /// The model is at work, or rests.
    pub(crate) fn set_activity(&mut self, activity: Activity) {
        let before = self.facts.activity.replace(activity);
        if before != Some(activity) {
            if [before, Some(activity)].contains(&Some(Activity::Working)) {
                self.tried(None);
            }
            // Clients show in their titles that they work, and then something else again.
            self.reassert_title();
            // What could not go before may now: mail that rides along, or mail that may wake.
            self.look();
        }
    }

    /// The client's host tells nothing any more: nobody but hooks knows whether the model works.
    pub(crate) fn host_is_silent(&mut self) {
        if !self.facts.hooks_come {
            self.facts.activity = None;
        }
    }
}
