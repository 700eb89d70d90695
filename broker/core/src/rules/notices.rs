//! Notices: messages that the broker itself sends, delivered like other mail.
//!
//! Knows how a notice becomes a message. Does not know why it is posted. Invariant: policies and
//! send limits never stop a notice.

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Intent, Kind, Sender, Stage, Via};

use crate::broker::Broker;
use crate::record::{Brief, DeliveryRecord, MessageHead, MessageRecord};
use crate::state::channels::is_group;
use crate::turn::Turn;

/// A notice, before it is posted.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) to: PeerId,
    /// `Held` if the notice quotes a peer whose mail to this recipient would be held.
    pub(crate) stage: Stage,
    pub(crate) intent: Intent,
    pub(crate) thread: String,
    pub(crate) reply_to: Option<MessageId>,
    /// The channel that the notice is about. A peer that may not see the channel may not see the
    /// notice.
    pub(crate) channel: Option<String>,
    /// Whether the notice is about a private message.
    pub(crate) private: bool,
    pub(crate) text: String,
}

impl Notice {
    /// A notice in this thread that does not wake its recipient.
    pub(crate) fn new(to: PeerId, thread: String, text: String) -> Self {
        Self {
            to,
            stage: Stage::Stored,
            intent: Intent::Inform,
            thread,
            reply_to: None,
            channel: None,
            private: false,
            text,
        }
    }
}

impl Broker {
    /// Posts a notice. A peer that is not retained gets none.
    pub(crate) fn post_notice(&mut self, turn: &mut Turn<'_>, notice: Notice) {
        // A peer of another broker learns of its mail by receipts.
        let to = self.presence.current(notice.to);
        let Some(to) = to.filter(|to| self.mailboxes.broker_of(*to).is_none()) else { return };
        let id = MessageId::next(self.last_message, turn.now.wall, self.draw());
        let head = MessageHead {
            id,
            from: Sender {
                peer: PeerId::SYSTEM,
                name: "system".to_owned(),
                client: String::new(),
                cwd: String::new(),
                via: Via::Broker,
            },
            to: vec![(to, self.name_of(to))],
            intent: notice.intent,
            kind: Kind::Notice,
            thread: notice.thread,
            channel: notice.channel,
            reply_to: notice.reply_to,
            sent_at: turn.now.wall,
            expires_at: None,
            sources: Vec::new(),
            text_bytes: notice.text.len() as u32,
            private: notice.private,
            origin: None,
        };
        let brief = Brief::of(&head);
        let record = MessageRecord { head, idempotency_key: None, text: notice.text };
        self.store_message(turn, record, &[(to, notice.stage)], &brief);
    }

    /// Tells the sender of a message the outcome of a delivery.
    pub(crate) fn notify_sender(
        &mut self,
        turn: &mut Turn<'_>,
        record: &DeliveryRecord,
        text: String,
    ) {
        let brief = &record.brief;
        // The sender of a post gets no notice about single members who missed it.
        // A post to a channel of another machine has one delivery here: to that channel.
        let is_member = |name: &str| !is_group(name) && !self.is_channel(record.peer);
        let in_channel = brief.channel.as_deref().is_some_and(is_member);
        if brief.kind == Kind::Notice || in_channel {
            return;
        }
        let notice = Notice {
            reply_to: Some(record.message),
            private: brief.private,
            ..Notice::new(brief.from, brief.thread.clone(), text)
        };
        self.post_notice(turn, notice);
    }
}
