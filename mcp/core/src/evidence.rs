//! Evidence: what is proved, which requests report it to the broker, and whether the model is at
//! work.
//!
//! Knows which event is evidence for which messages. Does not know where the event was read.
//! Invariant: the core forgets a message only after the broker's answer. That answer confirms that
//! the evidence is durable, or that the message no longer belongs to this session.

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
    /// Sends the broker evidence, and forgets the messages once it is durable.
    pub(crate) fn prove(&mut self, messages: Vec<MessageId>, proof: Proof) {
        let Proof { carrier, evidence } = proof;
        self.facts.prove(carrier);
        self.ask(messages.clone(), Request::Presented { messages, carrier, evidence });
    }

    /// Sends the broker all evidence that the inbox found. Without a connection the inbox keeps the
    /// evidence until the broker pushes the messages again.
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

    /// Handles the broker's answer to evidence. After a loss or a full disk, the broker pushes the
    /// messages again, and they are proved again.
    pub(crate) fn answered(&mut self, ticket: u64, done: bool) {
        let Some(messages) = self.asked.remove(&ticket).filter(|_| done) else { return };
        self.inbox.remove(&messages);
        self.search_carriers();
        self.actions.push(Action::News);
    }

    /// Removes messages that the recipient acknowledged or answered. If only one push carrier had
    /// such a message, that carrier is proved.
    pub(crate) fn settled(&mut self, messages: &[MessageId]) {
        for carrier in messages.iter().filter_map(|message| self.inbox.brought_by(*message)) {
            self.facts.prove(carrier);
        }
        self.inbox.remove(messages);
    }

    /// Reports that the client showed an event: if the session ends now, that counts as an attempt
    /// for the messages that it was given before. `among`: only for these. Without a connection the
    /// broker decides by what it has stored.
    pub(crate) fn tried(&mut self, among: Option<&[MessageId]>) {
        if !self.is_connected {
            return;
        }
        let tried = self.inbox.newly_tried(among, self.pushing.held_up());
        for messages in tried.chunks(MESSAGES_PER_REQUEST_MAX) {
            self.tell(Request::Tried { messages: messages.to_vec() });
        }
    }

    /// Applies what the client's record shows.
    pub(crate) fn recorded(
        &mut self,
        seen: &[Seen],
        withdrawn: &[(MessageId, Option<Carrier>)],
        speaks: bool,
    ) {
        self.inbox.trust_record(speaks);
        // The first part of a long message does not prove the message, but it proves the carrier.
        for carrier in self.inbox.arrived(seen) {
            self.facts.prove(carrier);
        }
        let proved = self.inbox.recorded(seen);
        self.prove_all(&proved);
        if self.inbox.withdraw(withdrawn) {
            self.search_carriers();
            self.actions.push(Action::News);
        }
    }

    /// Sets whether the model is at work.
    pub(crate) fn set_activity(&mut self, activity: Activity) {
        let before = self.facts.activity.replace(activity);
        if before != Some(activity) {
            if [before, Some(activity)].contains(&Some(Activity::Working)) {
                self.tried(None);
            }
            // Clients set titles of their own while they work.
            self.reassert_title();
            // Mail that had to wait may go now: mail for a running turn, or mail that may wake.
            self.search_carriers();
        }
    }

    /// Clears the activity that the client's host reported: from now on only hooks report it.
    pub(crate) fn host_is_silent(&mut self) {
        if !self.facts.hooks_come {
            self.facts.activity = None;
        }
    }
}
