//! Random values survive the way to bytes and back; random and damaged bytes give a value or an
//! error, never a panic.

use std::fmt::Debug;

use peer_proto::codec::{decode, encode};
use peer_proto::handshake::Preface;
use peer_proto::ids::{MessageId, PeerId, Timestamp, Token};
use peer_proto::link::Frame;
use peer_proto::message::*;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::*;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::links::frames as link_frames;
use crate::values::{pushes, replies, reply_frame, requests, shown};
use crate::vectors;

fn round_trips<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = encode(value).unwrap();
    assert_eq!(&decode::<T>(&bytes).unwrap(), value);
    assert!(bytes.is_empty() || decode::<T>(&bytes[..bytes.len() - 1]).is_err());
}

/// Whatever the bytes are, decoding ends with a value or an error; a value can be encoded and read
/// again.
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        round_trips(&value);
    }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[ -~]{1,40}",
        "\\PC{0,300}",
        any::<char>().prop_map(String::from)
    ]
}

fn any_id() -> impl Strategy<Value = MessageId> {
    prop_oneof![
        Just(MessageId::MIN),
        Just(MessageId::MAX),
        (any::<u64>(), any::<u32>()).prop_map(|(at, entropy)| MessageId::next(
            MessageId::MIN,
            Timestamp(at),
            entropy
        ))
    ]
}

fn any_of<T: Clone + Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = T> {
    prop::sample::select(values)
}

fn any_send() -> impl Strategy<Value = Request> {
    (
        prop::collection::vec(any_text(), 0..5),
        any_text(),
        prop::option::of(any_of(vec![Intent::Request, Intent::Inform])),
        prop::option::of(any_id()),
        prop::option::of(any_text()),
        prop::option::of(any::<u64>()),
        prop::collection::vec(any_text(), 0..5),
        prop::option::of(any_text()),
    )
        .prop_map(|(to, text, intent, reply_to, thread, ttl_ms, sources, idempotency_key)| {
            Request::Send(Send {
                to,
                text,
                intent,
                reply_to,
                thread,
                ttl_ms,
                sources,
                idempotency_key,
            })
        })
}

fn any_register() -> impl Strategy<Value = Request> {
    (
        prop::option::of(any_text()),
        prop::option::of(any_text()),
        any_text(),
        any::<u32>(),
        prop::option::of((any::<u64>(), any::<[u8; 32]>())),
    )
        .prop_map(|(name, key, text, client_pid, resume)| {
            Request::Register(Register {
                name,
                seat: key.map(|key| Seat { kind: SeatKind::Other, key }),
                client: text.clone(),
                client_version: text.clone(),
                client_pid,
                cwd: text.clone(),
                git_root: Some(text.clone()),
                repo: None,
                host: text,
                resume: resume
                    .map(|(peer, token)| Resume { peer: PeerId(peer), token: Token(token) }),
            })
        })
}

fn any_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        any_send(),
        any_register(),
        any_of(requests().into_iter().map(|(_, request)| request).collect()),
        (prop::collection::vec(any_id(), 0..300), any::<bool>()).prop_map(|(messages, last)| {
            Request::Offered { messages, carrier: Carrier::Hook, last }
        }),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    (
        any_id(),
        any_text(),
        prop::collection::vec(any_text(), 0..5),
        any::<u64>(),
        prop::option::of(any::<u64>()),
    )
        .prop_map(|(id, text, list, sent_at, expires_at)| Message {
            id,
            from: Sender {
                peer: PeerId(sent_at),
                name: text.clone(),
                client: text.clone(),
                cwd: text.clone(),
                via: Via::Shell,
            },
            to: list.clone(),
            intent: Intent::Inform,
            kind: Kind::Notice,
            thread: text.clone(),
            channel: None,
            reply_to: Some(id),
            sent_at: Timestamp(sent_at),
            expires_at: expires_at.map(Timestamp),
            sources: list,
            text,
        })
}

fn any_server_frame() -> impl Strategy<Value = ServerFrame> {
    let deliver = (any_message(), any::<u32>(), any::<bool>()).prop_map(
        |(message, attempts, shown_before)| {
            ServerFrame::Push(Push::Deliver(Box::new(Delivery { message, attempts, shown_before })))
        },
    );
    let refused = (
        any::<u64>(),
        any_text(),
        any_text(),
        prop::option::of(any::<u64>()),
        any_of(ErrorCode::ALL.to_vec()),
    )
        .prop_map(|(id, message, hint, retry_after_ms, code)| ServerFrame::Reply {
            id,
            result: Err(Refusal { code, message, hint, retry_after_ms }),
        });
    let history =
        (any::<u64>(), prop::collection::vec(any_message(), 0..4)).prop_map(|(id, messages)| {
            let messages = messages
                .into_iter()
                .map(|message| Shown { message, deliveries: shown().deliveries })
                .collect();
            ServerFrame::Reply { id, result: Ok(Reply::History { messages, next: None }) }
        });
    let known = any_of(replies()).prop_map(|(_, reply)| reply_frame(reply));
    prop_oneof![
        deliver,
        refused,
        history,
        known,
        any_of(pushes()).prop_map(|(_, push)| ServerFrame::Push(push))
    ]
}

proptest! {
    #[test]
    fn client_frames_round_trip(id in any::<u64>(), request in any_request()) {
        round_trips(&ClientFrame { id, request });
    }

    #[test]
    fn server_frames_round_trip(frame in any_server_frame()) {
        round_trips(&frame);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        survives::<ClientFrame>(&bytes);
        survives::<ServerFrame>(&bytes);
        survives::<Frame>(&bytes);
        if let Some(fixed) = bytes.first_chunk() {
            let _ = Preface::decode_fixed(fixed);
        }
    }

    #[test]
    fn damaged_frames_never_panic(
        place in any::<prop::sample::Index>(),
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let vectors = vectors();
        let mut bytes = vectors[which.index(vectors.len())].bytes.clone();
        let start = place.index(bytes.len());
        let end = bytes.len().min(start + damage.len());
        bytes.splice(start..end, damage);
        survives::<ClientFrame>(&bytes);
        survives::<ServerFrame>(&bytes);
    }

    /// A frame of another machine: parts of it replaced, repeated, or taken out.
    #[test]
    fn damaged_link_frames_never_panic_and_say_no_more_than_their_bytes(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..8usize, prop::collection::vec(any::<u8>(), 0..12)),
            1..4,
        ),
    ) {
        let frames = link_frames();
        let mut bytes = encode(&frames[which.index(frames.len())]).unwrap();
        for (place, gone, damage) in damages {
            let start = place.index(bytes.len() + 1);
            let end = bytes.len().min(start + gone);
            bytes.splice(start..end, damage);
        }
        survives::<Frame>(&bytes);
        if let Ok(frame) = decode::<Frame>(&bytes) {
            // Numbers may take more bytes than they need, and nothing takes fewer.
            prop_assert!(encode(&frame).unwrap().len() <= bytes.len());
        }
    }
}

/// Wherever a length stands in a frame of another machine, a claim of more bytes than there are
/// gives an error: nothing is reserved for it.
#[test]
fn a_link_frame_that_claims_much_costs_nothing() {
    for frame in link_frames() {
        let bytes = encode(&frame).unwrap();
        for place in 1..bytes.len() {
            for claim in [&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10][..], &[0xfc, 0xff, 0xff, 0xff, 0x7f]] {
                let mut hostile = bytes.clone();
                hostile.splice(place..=place, claim.iter().copied());
                if let Ok(frame) = decode::<Frame>(&hostile) {
                    assert!(encode(&frame).unwrap().len() <= hostile.len(), "{frame:?} at {place}");
                }
            }
        }
    }
}
