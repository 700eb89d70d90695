//! Applies the person's policies: another session's mail is accepted, held or refused.
//!
//! Knows policies, modes and the settings for all peers. Does not know how accepted mail travels.
//! Invariants: the person's mail and the broker's notices are never held or refused, nor is mail to
//! the person or to oneself. A policy applies to mail that is sent while it is in force. Only the
//! person releases held mail.

use peer_proto::hook::Mode;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Intent, Kind, Sender, Stage, Via};
use peer_proto::policy::{Policies, Policy};
use peer_proto::request::{Push, Reply};

use crate::broker::Broker;
use crate::delivery::Transition;
use crate::input::{Facts, StoredMessage};
use crate::record::SettingsRecord;
use crate::rejection::{Act, Obstacle, Rejection};
use crate::step::Change;
use crate::turn::Turn;
use crate::who::Caller;

impl Broker {
    // ---- rulings

    /// The policy for mail to this peer.
    pub(crate) fn policy_of(&self, peer: PeerId) -> Policy {
        let own = self.presence.get(peer).and_then(|record| record.policy);
        own.or(self.settings.default_policy).unwrap_or(self.config.default_policy)
    }

    /// Decides whether one recipient accepts, holds or refuses a message. `original` is the message
    /// that it answers.
    pub(crate) fn rule_on(
        &self,
        sender: &Sender,
        recipient: PeerId,
        original: Option<&StoredMessage>,
    ) -> Policy {
        let free = matches!(sender.via, Via::Person | Via::Broker);
        // A proxy's own broker decides what becomes of mail to it, unless the person set something
        // for it here.
        let own = self.presence.get(recipient).and_then(|record| record.policy);
        if self.mailboxes.broker_of(recipient).is_some() {
            return if free { Policy::Accept } else { own.unwrap_or(Policy::Accept) };
        }
        if free || recipient == PeerId::HUMAN || recipient == sender.peer {
            return Policy::Accept;
        }
        let asked_for =
            original.is_some_and(|original| self.has_asked(recipient, sender.peer, original));
        let policy = if asked_for { Policy::Accept } else { self.policy_of(recipient) };
        if self.escalates(sender.peer, recipient) { policy.max(Policy::Hold) } else { policy }
    }

    /// Whether another's mail to a provisional peer is held when that peer is merged into this one.
    /// Mail that this peer would not accept must not reach it that way. Mail that it would refuse
    /// is held as well, because it was already accepted.
    pub(crate) fn holds_moved(&self, from: PeerId, via: Via, recipient: PeerId) -> bool {
        let free = matches!(via, Via::Person | Via::Broker);
        !free && (self.policy_of(recipient) != Policy::Accept || self.escalates(from, recipient))
    }

    /// Whether `original` is a request of this recipient that this sender has not answered yet: the
    /// recipient asked for the reply.
    pub(crate) fn has_asked(
        &self,
        reader: PeerId,
        sender: PeerId,
        original: &StoredMessage,
    ) -> bool {
        let wants = original.head.intent == Intent::Request || original.head.kind == Kind::Question;
        let asked = wants && self.is_same(reader, original.head.from.peer);
        // The shell of an unknown agent does not answer questions to the person on the person's
        // behalf.
        let by_agent = sender != PeerId::HUMAN;
        asked
            && by_agent
            && self
                .delivery_of(&original.deliveries, sender)
                .is_some_and(|delivery| delivery.answered_by.is_none())
    }

    /// Whether the sender's session may do less without asking than the recipient's. A sender
    /// without a known mode counts as one that asks. A recipient that is offline counts with its
    /// last known mode.
    fn escalates(&self, sender: PeerId, reader: PeerId) -> bool {
        let reported = |peer: PeerId| {
            self.presence.reader(peer).and_then(|reader| self.presence.session(reader))?.mode
        };
        let last_known =
            || self.presence.get(reader).and_then(|record| record.mode).unwrap_or(Mode::Prompting);
        let of_sender = reported(sender).unwrap_or(Mode::Prompting);
        let of_reader = reported(reader).unwrap_or_else(|| last_known().max(Mode::Prompting));
        self.config.hold_escalation && of_sender < of_reader
    }

    /// Stores the mode that a session reported. Mail to an offline recipient is ruled by it.
    pub(crate) fn record_mode(&mut self, turn: &mut Turn<'_>, peer: PeerId, mode: Mode) {
        if let Some(mut record) =
            self.presence.get(peer).filter(|record| record.mode != Some(mode)).cloned()
        {
            record.mode = Some(mode);
            self.update_peer(turn, record);
        }
    }

    // ---- the person's decisions

    pub(crate) fn list_policies(
        &self,
        turn: &mut Turn<'_>,
        caller: Caller,
    ) -> Result<(), Rejection> {
        caller.check_operator()?;
        let own =
            self.presence.iter().filter_map(|record| Some((record.name.clone(), record.policy?)));
        let mut peers: Vec<(String, Policy)> = own.collect();
        peers.sort();
        let policies = Policies {
            default: self.settings.default_policy.unwrap_or(self.config.default_policy),
            escalation: self.config.hold_escalation.then_some(Policy::Hold),
            inbox_socket_in_bypass: self.settings.inbox_socket_in_bypass,
            peers,
        };
        turn.reply(caller, Reply::Policies(policies));
        Ok(())
    }

    pub(crate) fn set_policy(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        peer: Option<String>,
        policy: Option<Policy>,
    ) -> Result<(), Rejection> {
        caller.check_person(Act::SetPolicy)?;
        if let Some(name) = peer {
            let peer = self.presence.resolve(&name, caller.peer())?;
            if peer == PeerId::HUMAN {
                let bound = "any peer but the person".to_owned();
                return Err(Rejection::OutOfBounds { what: "the peer of a policy", bound });
            }
            if let Some(mut record) =
                self.presence.get(peer).filter(|record| record.policy != policy).cloned()
            {
                record.policy = policy;
                self.update_peer(turn, record);
            }
        } else {
            self.put_settings(turn, SettingsRecord { default_policy: policy, ..self.settings });
        }
        self.list_policies(turn, caller)
    }

    pub(crate) fn set_consent(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        inbox_socket_in_bypass: bool,
    ) -> Result<(), Rejection> {
        caller.check_person(Act::ConsentToInboxSockets)?;
        if self.put_settings(turn, SettingsRecord { inbox_socket_in_bypass, ..self.settings }) {
            for connection in self.presence.all_sessions() {
                turn.push(connection, Push::Consent { inbox_socket_in_bypass });
            }
        }
        self.list_policies(turn, caller)
    }

    /// Stores the settings. Returns whether they changed.
    fn put_settings(&mut self, turn: &mut Turn<'_>, settings: SettingsRecord) -> bool {
        let is_news = settings != self.settings;
        if is_news {
            self.settings = settings;
            turn.change(Change::PutSettings(settings));
        }
        is_news
    }

    /// Releases a held message to one or all of the recipients for whom it is held.
    pub(crate) fn release_held(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        message: MessageId,
        to: Option<String>,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        caller.check_person(Act::ReleaseHeld)?;
        let stored = facts.stored.get(&message).ok_or(Rejection::UnknownMessage(message))?;
        let to = to.map(|name| self.presence.resolve(&name, caller.peer())).transpose()?;
        let waits = |stage: Stage| stored.deliveries.iter().any(|delivery| delivery.stage == stage);
        let held = stored
            .deliveries
            .iter()
            .filter(|delivery| delivery.stage == Stage::Held)
            .map(|delivery| delivery.peer);
        let held: Vec<PeerId> = held.filter(|peer| to.is_none_or(|to| to == *peer)).collect();
        if held.is_empty() {
            let obstacle = if waits(Stage::Held) {
                Obstacle::HeldForOthers
            } else if waits(Stage::Stored) || waits(Stage::Offered) {
                Obstacle::NotHeld
            } else {
                stored.obstacle()
            };
            return Err(Rejection::TooLate { message, obstacle });
        }
        let mut deliveries = Vec::new();
        for peer in held {
            let Some(brief) =
                self.mailboxes.get(peer, message).map(|entry| entry.record.brief.clone())
            else {
                continue;
            };
            self.advance(turn, peer, message, &[Transition::Release], None);
            deliveries.push((self.name_of(peer), Stage::Stored));
            self.fill_window(turn, peer);
            self.wake_waits(turn, peer, &brief);
        }
        turn.reply(caller, Reply::Settled { deliveries });
        Ok(())
    }
}
