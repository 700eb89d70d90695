//! Mail for other brokers: how a stored message looks on a link, and what tells a repeat of it from
//! another message.

use peer_core::record::MessageRecord;
use peer_core::step::RemoteRecipient;
use peer_proto::codec;
use peer_proto::ids::{BrokerId, PeerId};
use peer_proto::link::{Mail, RemoteSender};
use sha2::{Digest, Sha256};

/// Returns a message as it goes over a link to these recipients. `own` is this broker.
pub(crate) fn mail(
    record: MessageRecord,
    own: BrokerId,
    to: Vec<RemoteRecipient>,
    channel: Option<PeerId>,
) -> Mail {
    let MessageRecord { head, text, .. } = record;
    let to = to.into_iter().map(|to| to.as_sent(&head)).collect();
    Mail {
        id: head.id,
        origin: own,
        path: vec![own],
        from: RemoteSender {
            peer: head.from.peer,
            name: head.from.name,
            client: head.from.client,
            via: head.from.via,
        },
        to,
        channel,
        intent: head.intent,
        kind: head.kind,
        thread: head.thread,
        reply_to: head.reply_to,
        sent_at: head.sent_at,
        expires_at: head.expires_at,
        sources: head.sources,
        text,
    }
}

/// Returns the digest of what the sender said. It does not cover the recipients, because a repeat
/// may be for some of them only.
pub(crate) fn mail_digest(mail: &Mail) -> [u8; 32] {
    let said = (
        (mail.id, mail.origin, &mail.from),
        (mail.intent, mail.kind, &mail.thread, mail.reply_to),
        (mail.sent_at, mail.expires_at, &mail.sources, &mail.text),
    );
    // It came in a frame, so it can be encoded.
    Sha256::digest(codec::encode(&said).unwrap_or_default()).into()
}
