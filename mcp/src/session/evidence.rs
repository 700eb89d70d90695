//! What is proved goes to the broker, and what is known of the session with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use peer_client::{Connection, RequestError};
use peer_proto::hook::{Activity, Report};
use peer_proto::ids::MessageId;
use peer_proto::limits::MESSAGES_PER_REQUEST_MAX;
use peer_proto::message::{Carrier, Evidence};
use peer_proto::refusal::ErrorCode;
use peer_proto::request::Request;

use super::Session;
use crate::carriers;
use crate::inbox::Proof;

impl Session {
    /// Submits evidence now, and forgets the messages once it is durable.
    pub(crate) fn prove(self: &Arc<Self>, connection: &Connection, messages: Vec<MessageId>, proof: Proof) {
        let Proof { carrier, evidence } = proof;
        self.state().facts.prove(carrier);
        let answer = connection.submit(Request::Presented { messages: messages.clone(), carrier, evidence });
        let session = Arc::clone(self);
        tokio::spawn(async move {
            // Lost, or cut off by a full disk: the broker pushes them again, and they are proved again. Refused: no longer ours.
            let is_undone = match answer.await {
                Err(RequestError::Lost) => true,
                Err(RequestError::Refused(refusal)) => refusal.code == ErrorCode::NoSpace,
                _ => false,
            };
            if !is_undone {
                session.state().inbox.remove(&messages);
                session.offer();
                session.inbox_changed();
            }
        });
    }

    /// The reader acknowledged or answered these: a push carrier that alone was given one has brought it.
    pub(crate) fn settled(&self, messages: &[MessageId]) {
        let state = &mut *self.state();
        for carrier in messages.iter().filter_map(|message| state.inbox.brought_by(*message)) {
            state.facts.prove(carrier);
        }
        state.inbox.remove(messages);
    }

    /// Submits what the inbox has found proved. Without a connection the inbox keeps the proofs, and tells them when the
    /// broker pushes the messages again.
    pub(crate) fn prove_all(self: &Arc<Self>, proved: &[(MessageId, Proof)]) {
        let Some(connection) = self.connected().filter(|_| !proved.is_empty()) else { return };
        let mut alike: BTreeMap<(Carrier, Evidence), Vec<MessageId>> = BTreeMap::new();
        for (message, Proof { carrier, evidence }) in proved {
            alike.entry((*carrier, *evidence)).or_default().push(*message);
        }
        for ((carrier, evidence), messages) in alike {
            for messages in messages.chunks(MESSAGES_PER_REQUEST_MAX) {
                self.prove(&connection, messages.to_vec(), Proof { carrier, evidence });
            }
        }
    }

    /// The client showed an event, after which the end of this session counts as an attempt for what it was given before.
    /// `among`: only for these.
    pub(crate) fn tried(&self, among: Option<&[MessageId]>) {
        // Without a connection the end of this session is counted by what is stored.
        let Some(connection) = self.connected() else { return };
        let tried = self.state().inbox.newly_tried(among);
        for messages in tried.chunks(MESSAGES_PER_REQUEST_MAX) {
            drop(connection.submit(Request::Tried { messages: messages.to_vec() }));
        }
    }

    /// Looks for proof in the client's own record of the session.
    pub(crate) fn look_into_transcript(self: &Arc<Self>) {
        let client = self.client().kind;
        let (proved, goes_again) = {
            let state = &mut *self.state();
            let (open, wanted) = (state.inbox.unsettled(), !state.inbox.unproved().is_empty());
            let Some(path) = state.facts.transcript.clone() else { return };
            let looked = state.transcript.look(client, &path, &open, wanted);
            state.inbox.note_record(state.transcript.speaks());
            // A long message proves nothing of itself by its beginning, and yet that its carrier works.
            for carrier in state.inbox.arrived(&looked.seen) {
                state.facts.prove(carrier);
            }
            let proved = state.inbox.recorded(&looked.seen);
            (proved, state.inbox.withdraw(&looked.withdrawn))
        };
        self.prove_all(&proved);
        if goes_again {
            self.offer();
            self.inbox_changed();
        }
    }

    /// The model is at work, or rests.
    pub(crate) fn set_activity(&self, activity: Activity) {
        let before = self.state().facts.activity.replace(activity);
        if before != Some(activity) {
            if [before, Some(activity)].contains(&Some(Activity::Working)) {
                self.tried(None);
            }
            self.report();
            // Clients show in their titles that they work, and then something else again.
            self.reassert_title();
            // What could not go before may now: mail that rides along, or mail that may wake.
            self.offer();
        }
    }

    /// Tells the broker what it does not know yet of this session.
    pub(crate) fn report(&self) {
        let Some(connection) = self.connected() else { return };
        let carriers = carriers::present(self);
        let mut state = self.state();
        let report = Report { mode: state.facts.mode, activity: state.facts.activity, carriers: Some(carriers) };
        if state.facts.reported.as_ref() != Some(&report) {
            state.facts.reported = Some(report.clone());
            drop(state);
            // Nothing rests on it: a refusal or a loss changes nothing for the mail.
            drop(connection.submit(Request::Report(report)));
        }
    }
}
