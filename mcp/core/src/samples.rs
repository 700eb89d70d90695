//! Sample messages for the tests of this crate and of the adapter.

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::{Intent, Kind, Message, Sender, Via};

pub(crate) fn request(number: u32, from: &str, text: &str) -> Message {
    Message {
        id: MessageId::try_from(u128::from(number)).unwrap(),
        from: Sender {
            // Each name stands for a different peer.
            peer: PeerId(from.bytes().map(u64::from).sum()),
            name: from.into(),
            client: "claude".into(),
            cwd: "/home/u/api".into(),
            via: Via::Session,
        },
        to: vec!["orion".into()],
        intent: Intent::Request,
        kind: Kind::Message,
        thread: "t-9f2".into(),
        channel: None,
        reply_to: None,
        sent_at: Timestamp(1_795_000_000_000),
        expires_at: None,
        sources: Vec::new(),
        text: text.into(),
    }
}
