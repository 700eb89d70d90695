//! Notices: what the broker itself tells a peer, as mail like any other.
//!
//! Knows how a notice becomes a message. Does not know why it is posted. Policies and send limits never stop one.

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
    /// `Held` where it repeats what somebody said whose mail to the reader would be held.
    pub(crate) stage: Stage,
    pub(crate) intent: Intent,
    pub(crate) thread: String,
    pub(crate) reply_to: Option<MessageId>,
    /// The channel that it is about. A peer that may not see the channel may not see the notice.
    pub(crate) channel: Option<String>,
    /// Whether it tells of what was said in private.
    pub(crate) private: bool,
    pub(crate) text: String,
}

impl Notice {
    /// A notice that wakes nobody, in this thread.
    pub(crate) fn new(to: PeerId, thread: String, text: String) -> Self {
        Self { to, stage: Stage::Stored, intent: Intent::Inform, thread, reply_to: None, channel: None, private: false, text }
    }
}

impl Broker {
    /// Posts a notice. A peer that is not retained any more gets none.
    pub(crate) fn post_notice(&mut self, turn: &mut Turn<'_>, notice: Notice) {
        let Some(to) = self.presence.current(notice.to) else { return };
        let id = MessageId::next(self.last_message, turn.now.wall, 0);
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
        };
        let brief = Brief::of(&head);
        let record = MessageRecord { head, idempotency_key: None, text: notice.text };
        self.store_message(turn, record, &[(to, notice.stage)], &brief);
    }

    /// Tells the sender of a message what became of it.
    pub(crate) fn notify_sender(&mut self, turn: &mut Turn<'_>, record: &DeliveryRecord, text: String) {
        let brief = &record.brief;
        // Who posts to a channel does not hear of each member that missed it.
        let in_channel = brief.channel.as_deref().is_some_and(|name| !is_group(name));
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
