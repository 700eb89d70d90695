//! The bytes of records: they do not change by accident, and are within their bounds.

use std::fmt::Debug;

use peer_core::record::{KeptRecord, LinkRecord, MessageRecord, SettingsRecord};
use peer_core::shared::SharedKey;
use peer_core::step::Change;
use peer_proto::hook::Mode;
use peer_proto::ids::{BrokerId, MessageId, PeerId, TaskId, Timestamp};
use peer_proto::limits::{
    IDEMPOTENCY_KEY_BYTES_MAX, NAME_CHARS_MAX, PATH_BYTES_MAX, RECIPIENTS_MAX, SOURCE_BYTES_MAX,
    SOURCES_MAX, TEXT_BYTES_MAX, THREAD_BYTES_MAX,
};
use peer_proto::link::Share;
use peer_proto::message::{
    Carrier, Cause, Evidence, Intent, Kind, Stage, TraceEntry, TraceEvent, Via,
};
use peer_proto::policy::Policy;
use peer_proto::question::QuestionState;
use peer_proto::request::SeatKind;
use peer_proto::task::TaskState;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::{RECORD_BYTES_MAX, RecordError, RecordName, StoreError, record};
use super::crash_disk::CrashDisk;
use super::{NOW, channel, delivery, id, message, new_store, note, pauses, peer, question, task};

#[test]
fn the_largest_message_fits_its_page_and_one_at_all_limits_fits_two() {
    let mut large = message(1, &[3]);
    large.text = "\"".repeat(TEXT_BYTES_MAX);
    large.head.text_bytes = TEXT_BYTES_MAX as u32;
    large.head.from.cwd = "c".repeat(PATH_BYTES_MAX);
    large.head.thread = "t".repeat(THREAD_BYTES_MAX);
    large.idempotency_key = Some("k".repeat(IDEMPOTENCY_KEY_BYTES_MAX));
    large.head.to = (0..10).map(|n| (PeerId(u64::MAX - n), "n".repeat(NAME_CHARS_MAX))).collect();
    large.head.sources = vec!["s".repeat(100); SOURCES_MAX];
    let bytes = encoded(&large).len();
    assert!(bytes < 65_536 - 64, "{bytes}");

    large.head.to = (0..RECIPIENTS_MAX as u64)
        .map(|n| (PeerId(u64::MAX - n), "n".repeat(NAME_CHARS_MAX)))
        .collect();
    large.head.sources = vec!["s".repeat(SOURCE_BYTES_MAX); SOURCES_MAX];
    large.head.from.client = "c".repeat(PATH_BYTES_MAX);
    let bytes = encoded(&large).len();
    assert!((65_536..RECORD_BYTES_MAX).contains(&bytes), "{bytes}");

    let mut store = new_store(CrashDisk::new());
    store.commit(&[Change::PutMessage(Box::new(large.clone()))]).unwrap();
    assert_eq!(store.snapshot().unwrap().message(large.head.id).unwrap(), Some(large));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Encodes a record without its prefix, in no particular row.
fn encoded<T: Serialize>(record: &T) -> Vec<u8> {
    record::encode(&RecordName::Settings, record).unwrap()
}

fn assert_bytes<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    row: &RecordName,
    record: &T,
    checksum: &str,
    body: &str,
) {
    let bytes = record::encode(row, record).unwrap();
    assert_eq!(hex(&bytes), format!("04{checksum}{body}"), "{row}");
    assert_eq!(record::decode::<T>(row, &bytes).unwrap(), *record);
}

/// A change of these bytes changes the format: see the header of `record` for what that needs.
#[test]
fn the_records_are_these_bytes() {
    let mut message = message(1, &[3]);
    message.head.reply_to = Some(MessageId::MIN);
    let row = RecordName::Message(id(1));
    assert_bytes(
        &row,
        &message,
        "4d4bb16f",
        "fe00000000015e56eea101000000000000020a63616c6d2d666f782d3206636c61756465022f770001030a6361\
         6c6d2d666f782d33000003742d31000100fd015e56eea101000001fde96156eea10100000106612e72733a3106\
         000001056b65792d3106746578742031",
    );
    let bytes = record::encode(&row, &message).unwrap();
    let (head, key) = record::decode_head(&row, &bytes).unwrap();
    assert_eq!((head, key), (message.head, message.idempotency_key));

    let mut delivery = delivery(1, 3, Stage::Presented);
    delivery.attempts = 2;
    delivery.acked_at = Some(Timestamp(NOW + 5));
    delivery.answered_by = Some(id(2));
    delivery.trace.push(TraceEntry {
        event: TraceEvent::Presented,
        at: Timestamp(NOW + 4),
        carrier: Some(Carrier::ToolResult),
        cause: Some(Cause::Evidence(Evidence::NextCall)),
    });
    assert_bytes(
        &RecordName::Delivery(id(1), PeerId(3)),
        &delivery,
        "57b63b85",
        "fe00000000015e56eea10100000000000003030201fd055e56eea101000001fe00000000025e56eea101000000\
         0000000200fd015e56eea1010000000004fd045e56eea10100000104010002020a63616c6d2d666f782d320000\
         0003742d310000fd015e56eea101000001fde96156eea10100000600000000",
    );

    assert_bytes(
        &RecordName::Peer(PeerId(2)),
        &peer(2),
        "d24020e1",
        "020a63616c6d2d666f782d3201036f6c6401010237660006636c6175646503322e31022f7701022f7700016801\
         73000001070707070707070707070707070707070707070707070707070707070707070700fd005e56eea10100\
         000101010201090107fb2c01000000",
    );

    let settings =
        SettingsRecord { default_policy: Some(Policy::Refuse), inbox_socket_in_bypass: true };
    assert_bytes(&RecordName::Settings, &settings, "89bc6784", "010201");
    let kept = KeptRecord { through: id(1), text_bytes: 300 };
    assert_bytes(&RecordName::Kept, &kept, "ce643774", "fe00000000015e56eea101000000000000fb2c01");
    assert_bytes(&RecordName::Pauses, &pauses(), "43df2655", "0102020302036c616203742d31");
    assert_bytes(&RecordName::NextPeer, &300u64, "3decf08c", "fb2c01");
    assert_bytes(&RecordName::NextTask, &300u64, "0ff09f21", "fb2c01");

    let row = RecordName::SharedRecord(SharedKey::Channel("#ops".into()));
    assert_bytes(
        &row,
        &channel(),
        "06c02bce",
        "04234f707305706c616e73010202fb2c01046c756e61fd005e56eea1010000",
    );
    let row = RecordName::SharedRecord(SharedKey::Question(id(2)));
    assert_bytes(
        &row,
        &question(2),
        "7b368fde",
        "fe00000000025e56eea1010000000000000201030104234f707300fd025e56eea1010000fdea6156eea1010000\
         0103fe00000000035e56eea101000000000000",
    );
    let row = RecordName::SharedRecord(SharedKey::Task(TaskId(3)));
    assert_bytes(
        &row,
        &task(3),
        "0a7c961f",
        "030e6d656e6420746865206c6f67696e0b73656520617574682e7273030201030201fb2c010b6e6f206461746162\
         617365fd005e56eea1010000fd035e56eea101000001016b",
    );
    let row = RecordName::SharedRecord(SharedKey::Note("db/url".into()));
    assert_bytes(
        &row,
        &note("db/url", 2),
        "13344153",
        "0664622f75726c02026462036f707302046c756e61fd025e56eea101000001fde86156eea101000007\
         0776616c75652032",
    );

    let link = LinkRecord {
        broker: BrokerId([0x22; 16]),
        alias: "desk".into(),
        policy: Policy::Hold,
        wake: true,
        share: Share::Summaries,
        first_seen: Timestamp(NOW),
        last_heard: Some(Timestamp(NOW + 9)),
    };
    assert_bytes(
        &RecordName::Link(link.broker),
        &link,
        "a96a15f6",
        "22222222222222222222222222222222046465736b010102fd005e56eea101000001fd095e56eea1010000",
    );
    assert_bytes(
        &RecordName::Broker,
        &BrokerId([0x11; 16]),
        "feb88aad",
        "11111111111111111111111111111111",
    );

    assert_eq!(hex(&record::encode_number(300)), "2c01000000000000");
    assert_eq!(record::decode_number(&record::encode_number(u64::MAX)).unwrap(), u64::MAX);
    assert!(matches!(record::decode_number(&[1]), Err(RecordError::Number { bytes: 1 })));
}

/// The variants inside the records: if one moved, old rows would be read as something else.
#[test]
fn the_variants_keep_their_numbers() {
    let numbered = |bytes: Vec<u8>| bytes[record::HEAD_BYTES..].to_vec();
    use Stage::{
        Cancelled, Dead, Dropped, Expired, Held, Leased, Offered, Presented, Relayed, Stored,
    };
    for (number, stage) in
        [Stored, Leased, Offered, Presented, Held, Expired, Cancelled, Dead, Dropped, Relayed]
            .iter()
            .enumerate()
    {
        assert_eq!(numbered(encoded(stage)), [number as u8], "{stage:?}");
    }
    let events = [
        TraceEvent::Stored,
        TraceEvent::Leased,
        TraceEvent::Offered,
        TraceEvent::Returned,
        TraceEvent::Presented,
        TraceEvent::Acked,
        TraceEvent::Answered,
        TraceEvent::Held,
        TraceEvent::Released,
        TraceEvent::Expired,
        TraceEvent::Cancelled,
        TraceEvent::Dead,
        TraceEvent::Requeued,
        TraceEvent::Reassigned,
        TraceEvent::Dropped,
        TraceEvent::Relayed,
        TraceEvent::Unrelayed,
        TraceEvent::Recalled,
    ];
    for (number, event) in events.iter().enumerate() {
        assert_eq!(numbered(encoded(event)), [number as u8], "{event:?}");
    }
    use TaskState::{Blocked, Claimed, Completed, Failed, Open, Started};
    let states = [Open, Claimed, Started, Blocked, Completed, Failed, TaskState::Cancelled];
    for (number, state) in states.iter().enumerate() {
        assert_eq!(numbered(encoded(state)), [number as u8], "{state:?}");
    }
    let states = [
        QuestionState::Open,
        QuestionState::Answered,
        QuestionState::Expired,
        QuestionState::Cancelled,
    ];
    for (number, state) in states.iter().enumerate() {
        assert_eq!(numbered(encoded(state)), [number as u8], "{state:?}");
    }
    let causes = [
        Cause::SessionEnded,
        Cause::Nack,
        Cause::AttemptsExceeded,
        Cause::PeerForgotten,
        Cause::TtlEnded,
        Cause::Operator,
        Cause::Policy,
        Cause::Bound,
        Cause::Damaged,
        Cause::RefusedThere,
        Cause::Unreachable,
    ];
    for (number, cause) in causes.iter().enumerate() {
        assert_eq!(numbered(encoded(cause)), [number as u8 + 1], "{cause:?}");
    }
    let evidence = [
        Evidence::Ack,
        Evidence::Reply,
        Evidence::NextCall,
        Evidence::NextTurn,
        Evidence::Transcript,
        Evidence::Printed,
        Evidence::Receipt,
    ];
    for (number, evidence) in evidence.iter().enumerate() {
        assert_eq!(
            numbered(encoded(&Cause::Evidence(*evidence))),
            [0, number as u8],
            "{evidence:?}"
        );
    }
    let carriers = [
        Carrier::Channel,
        Carrier::InboxSocket,
        Carrier::AppServer,
        Carrier::Hook,
        Carrier::ToolResult,
        Carrier::Peerctl,
    ];
    for (number, carrier) in carriers.iter().enumerate() {
        assert_eq!(numbered(encoded(carrier)), [number as u8], "{carrier:?}");
    }
    for (number, via) in
        [Via::Session, Via::Person, Via::Shell, Via::Broker, Via::Remote].iter().enumerate()
    {
        assert_eq!(numbered(encoded(via)), [number as u8], "{via:?}");
    }
    for (number, kind) in
        [Kind::Message, Kind::Question, Kind::Answer, Kind::Notice].iter().enumerate()
    {
        assert_eq!(numbered(encoded(kind)), [number as u8], "{kind:?}");
    }
    for (number, intent) in [Intent::Request, Intent::Inform].iter().enumerate() {
        assert_eq!(numbered(encoded(intent)), [number as u8], "{intent:?}");
    }
    for (number, kind) in
        [SeatKind::Name, SeatKind::Claude, SeatKind::Codex, SeatKind::Other].iter().enumerate()
    {
        assert_eq!(numbered(encoded(kind)), [number as u8], "{kind:?}");
    }
    for (number, policy) in [Policy::Accept, Policy::Hold, Policy::Refuse].iter().enumerate() {
        assert_eq!(numbered(encoded(policy)), [number as u8], "{policy:?}");
    }
    for (number, mode) in
        [Mode::Plan, Mode::Prompting, Mode::AcceptEdits, Mode::Bypass].iter().enumerate()
    {
        assert_eq!(numbered(encoded(mode)), [number as u8], "{mode:?}");
    }
}

#[test]
fn a_record_that_is_not_what_was_written_there_is_refused() {
    fn refusal<T: Debug>(result: Result<T, StoreError>) -> RecordError {
        match result.unwrap_err() {
            StoreError::Unreadable { source, .. } | StoreError::Unwritable { source, .. } => source,
            error => panic!("{error}"),
        }
    }
    let row = RecordName::Message(id(1));
    let bytes = record::encode(&row, &message(1, &[3])).unwrap();
    for length in 0..bytes.len() {
        assert!(
            record::decode::<MessageRecord>(&row, &bytes[..length]).is_err(),
            "cut to {length}"
        );
    }
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        assert!(record::decode::<MessageRecord>(&row, &damaged).is_err(), "bit {bit} of byte {at}");
    }
    // Whole, and in another row.
    for other in
        [RecordName::Message(id(2)), RecordName::Delivery(id(1), PeerId(0)), RecordName::Settings]
    {
        assert!(
            matches!(
                refusal(record::decode::<MessageRecord>(&other, &bytes)),
                RecordError::Checksum
            ),
            "{other}"
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(
        refusal(record::decode::<MessageRecord>(&row, &longer)),
        RecordError::Checksum
    ));
    let mut newer = bytes.clone();
    newer[0] = 5;
    assert!(matches!(
        refusal(record::decode::<MessageRecord>(&row, &newer)),
        RecordError::Version { found: 5 }
    ));
    // With a right checksum, as a defect of a writer would leave it.
    let mut longer = bytes[record::HEAD_BYTES..].to_vec();
    longer.push(0);
    let longer = record::seal(&row, &longer);
    assert!(matches!(
        refusal(record::decode::<MessageRecord>(&row, &longer)),
        RecordError::TrailingBytes { bytes: 1 }
    ));
    let hostile = record::seal(&row, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10]);
    assert!(matches!(refusal(record::decode::<&str>(&row, &hostile)), RecordError::Decode(_)));
    let large = "x".repeat(RECORD_BYTES_MAX);
    assert!(matches!(refusal(record::encode(&row, &large)), RecordError::TooLarge { .. }));
}
