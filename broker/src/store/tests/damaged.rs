//! Damages one record after another: the damage is reported, and everything else is read.

use peer_core::record::{Image, PausesRecord, SettingsRecord};
use peer_core::shared::{SharedKey, SharedRecord};
use peer_core::step::Change;
use peer_proto::ids::{BrokerId, PeerId, TaskId};
use peer_proto::message::Stage;
use peer_proto::policy::Policy;
use redb::{Key, ReadableTable, TableDefinition};

use super::super::{Problem, RecordName, Snapshot, Store, Walk, schema};
use super::{
    channel, delivery, id, link, message, moved, named, note, pauses, peer, place, put_shared,
    question, send, settings, task,
};

fn everything() -> Vec<Change> {
    let mut changes = vec![Change::PutPeer(Box::new(peer(2))), Change::PutPeer(Box::new(peer(3)))];
    changes.extend([send(1, &[3]), send(2, &[3]), send(3, &[3]), send(4, &[3])].concat());
    changes.extend([
        moved(2, 3, Stage::Stored, Stage::Dead),
        moved(3, 3, Stage::Stored, Stage::Expired),
        moved(4, 3, Stage::Stored, Stage::Presented),
        Change::PutNextPeer(PeerId(9)),
        Change::PutNextTask(TaskId(9)),
        Change::PutSettings(settings(Policy::Refuse)),
        Change::PutPauses(Box::new(pauses())),
        put_shared(SharedRecord::Channel(channel())),
        put_shared(SharedRecord::Question(question(2))),
        put_shared(SharedRecord::Task(task(3))),
        put_shared(SharedRecord::Note(note("db/url", 1))),
        Change::PutBroker(BrokerId([1; 16])),
        Change::PutLink(Box::new(link(BrokerId([2; 16]), "desk"))),
    ]);
    changes
}

/// How a record's bytes are damaged.
type Way = fn(&mut Vec<u8>);

const WAYS: [Way; 5] = [
    |bytes| *bytes.last_mut().unwrap() ^= 1,
    |bytes| bytes[5..].fill(0xff),
    |bytes| bytes.truncate(3),
    |bytes| bytes[0] = 1,
    Vec::clear,
];

/// Reads everything with one record damaged in each way. Checks the reported damage, and the core's
/// data.
fn with_damaged<K: Key + 'static>(
    table: TableDefinition<'static, K, &'static [u8]>,
    key: impl Fn() -> K::SelfType<'static>,
    row: &RecordName,
    check: impl Fn(&Store, &Image),
) {
    let (_dir, database, backups) = place();
    let mut store = Store::open(&database, &backups).unwrap();
    store.commit(&everything()).unwrap();
    drop(store);
    let whole = std::fs::read(&database).unwrap();
    for damage in WAYS {
        std::fs::write(&database, &whole).unwrap();
        let open = redb::Database::open(&database).unwrap();
        let writing = open.begin_write().unwrap();
        {
            let mut table = writing.open_table(table).unwrap();
            let mut bytes = table.get(key()).unwrap().unwrap().value().to_vec();
            damage(&mut bytes);
            table.insert(key(), bytes.as_slice()).unwrap();
        }
        writing.commit().unwrap();
        drop(open);
        let report = Store::verify(&database).unwrap();
        assert_eq!(report.problems, [Problem::Unreadable(row.clone())]);
        let store = Store::open(&database, &backups).unwrap();
        let image = store.snapshot().and_then(Snapshot::image).unwrap();
        check(&store, &image);
        assert_eq!(store.take_damage(), std::slice::from_ref(row), "it is named once");
        assert_eq!((store.take_damage(), store.damaged()), (vec![], 1));
    }
}

fn undamaged() -> Image {
    let (_dir, database, backups) = place();
    let mut store = Store::open(&database, &backups).unwrap();
    store.commit(&everything()).unwrap();
    store.snapshot().and_then(Snapshot::image).unwrap()
}

#[test]
fn a_damaged_peer_setting_or_shared_thing_is_left_out_and_the_rest_is_read() {
    let whole = undamaged();
    let gone = |image: &Image, without: &dyn Fn(&mut Image)| {
        let mut expected = whole.clone();
        without(&mut expected);
        assert_eq!(*image, expected);
    };
    let shared = |key: SharedKey| RecordName::SharedRecord(key);
    with_damaged(
        schema::PEERS,
        || 3,
        &RecordName::Peer(PeerId(3)),
        |_, image| gone(image, &|image| drop(image.peers.pop())),
    );
    let row = shared(SharedKey::Channel("#ops".into()));
    with_damaged(
        schema::CHANNELS,
        || b"#ops".as_slice(),
        &row,
        |_, image| gone(image, &|image| image.shared.channels.clear()),
    );
    let row = shared(SharedKey::Question(id(2)));
    with_damaged(
        schema::QUESTIONS,
        || id(2).to_u128(),
        &row,
        |_, image| gone(image, &|image| image.shared.questions.clear()),
    );
    let row = shared(SharedKey::Task(TaskId(3)));
    with_damaged(
        schema::TASKS,
        || 3,
        &row,
        |_, image| gone(image, &|image| image.shared.tasks.clear()),
    );
    let row = shared(SharedKey::Note("db/url".into()));
    with_damaged(
        schema::NOTES,
        || b"db/url".as_slice(),
        &row,
        |store, image| {
            gone(image, &|image| image.shared.notes.clear());
            assert_eq!(store.snapshot().unwrap().note("db/url").unwrap(), None);
        },
    );
    with_damaged(
        schema::LINKS,
        || u128::from_be_bytes([2; 16]),
        &RecordName::Link(BrokerId([2; 16])),
        |_, image| gone(image, &|image| image.links.links.clear()),
    );
    with_damaged(
        schema::META,
        || schema::META_BROKER,
        &RecordName::Broker,
        |_, image| gone(image, &|image| image.links.own = None),
    );
    // Ids are never given again.
    with_damaged(
        schema::META,
        || schema::META_NEXT_PEER,
        &RecordName::NextPeer,
        |_, image| gone(image, &|image| image.next_peer = Some(PeerId(4))),
    );
    with_damaged(
        schema::META,
        || schema::META_NEXT_TASK,
        &RecordName::NextTask,
        |_, image| gone(image, &|image| image.next_task = Some(TaskId(4))),
    );
    // Mail that the person held stays held.
    with_damaged(
        schema::META,
        || schema::META_SETTINGS,
        &RecordName::Settings,
        |_, image| {
            let strict = SettingsRecord {
                default_policy: Some(Policy::Hold),
                inbox_socket_in_bypass: false,
            };
            gone(image, &|image| image.settings = strict)
        },
    );
    with_damaged(
        schema::META,
        || schema::META_PAUSES,
        &RecordName::Pauses,
        |_, image| {
            gone(image, &|image| {
                image.pauses = PausesRecord { all: true, ..PausesRecord::default() }
            })
        },
    );
}

#[test]
fn a_damaged_message_is_what_its_deliveries_still_say() {
    let whole = undamaged();
    with_damaged(
        schema::MESSAGES,
        || id(1).to_u128(),
        &RecordName::Message(id(1)),
        |store, image| {
            assert_eq!(image.pending, whole.pending);
            assert_eq!(store.snapshot().unwrap().message(id(1)).unwrap(), None);
            let stored = store.snapshot().unwrap().stored(id(1)).unwrap().unwrap();
            let said = message(1, &[3]).head;
            assert_eq!(
                (stored.head.from.peer, stored.head.sent_at, &*stored.head.thread),
                (said.from.peer, said.sent_at, "t-1")
            );
            assert_eq!(
                (stored.deliveries, stored.idempotency_key),
                (vec![delivery(1, 3, Stage::Stored)], None)
            );
            assert_eq!(
                store.snapshot().unwrap().stored_after(None, 10).unwrap().0.len(),
                4,
                "it goes with time as the others do"
            );
            assert_eq!(store.snapshot().unwrap().message(id(2)).unwrap(), Some(message(2, &[3])));
        },
    );
}

#[test]
fn a_damaged_delivery_is_withheld() {
    for (n, table, stage) in [
        (1, schema::PENDING, Stage::Held),
        (2, schema::DEAD, Stage::Dead),
        (3, schema::EXPIRED, Stage::Expired),
        (4, schema::SETTLED, Stage::Cancelled),
    ] {
        with_damaged(
            table,
            || (id(n).to_u128(), 3),
            &RecordName::Delivery(id(n), PeerId(3)),
            |store, _| {
                let stored = store.snapshot().unwrap().stored(id(n)).unwrap().unwrap();
                let [found] = stored.deliveries.as_slice() else { panic!("{stored:?}") };
                assert_eq!((found.stage, &found.brief), (stage, &delivery(n, 3, stage).brief));
                assert!(found.is_kept_back(), "{found:?}");
                let seen_by_search = store.snapshot().unwrap().deliveries(id(n)).unwrap();
                assert!(seen_by_search.iter().all(|delivery| delivery.is_kept_back()));
                assert_eq!(
                    store.snapshot().unwrap().message(id(n)).unwrap(),
                    Some(message(n, &[3]))
                );
            },
        );
    }
}

#[test]
fn a_damaged_message_goes_with_the_key_that_names_it() {
    let (_dir, database, backups) = place();
    let mut store = Store::open(&database, &backups).unwrap();
    store.commit(&everything()).unwrap();
    drop(store);
    super::rewrite_message(&database, id(4), |bytes| bytes[7] ^= 1);
    let mut store = Store::open(&database, &backups).unwrap();
    store.commit(&[Change::RemoveMessage(id(4))]).unwrap();
    assert_eq!(named(&store, 2, "key-4"), None);
    assert_eq!(named(&store, 2, "key-3"), Some(id(3)));
    drop(store);
    assert!(Store::verify(&database).unwrap().is_sound());
}

/// redb panics over a key of its text type that is no UTF-8.
#[test]
fn a_key_that_is_no_utf_8_is_a_damaged_record_too() {
    let (_dir, database, backups) = place();
    let mut store = Store::open(&database, &backups).unwrap();
    store.commit(&everything()).unwrap();
    let writing = store.snapshots.database.begin_write().unwrap();
    {
        let mut notes = writing.open_table(schema::NOTES).unwrap();
        let bytes = notes.get(b"db/url".as_slice()).unwrap().unwrap().value().to_vec();
        notes.insert(b"db/\xffrl".as_slice(), bytes.as_slice()).unwrap();
        let mut keys = writing.open_table(schema::IDEMPOTENCY).unwrap();
        keys.insert((2, b"key-\xff".as_slice()), id(1).to_u128()).unwrap();
        let mut reindex = writing.open_table(schema::REINDEX).unwrap();
        reindex.insert(900, (1, 0, b"\xff".as_slice())).unwrap();
    }
    writing.commit().unwrap();
    assert_eq!(store.snapshot().and_then(Snapshot::image).unwrap().shared.notes.len(), 1);
    assert_eq!(named(&store, 2, "key-1"), Some(id(1)));
    assert_eq!(store.snapshot().unwrap().reindex_after(899, 9).unwrap(), [(900, None)]);
    drop(store);
    assert_eq!(Store::verify(&database).unwrap().problems_total, 2);
}

#[test]
fn a_walk_reads_every_record_in_small_steps_and_names_what_is_damaged() {
    let (_dir, database, backups) = place();
    let mut store = Store::open(&database, &backups).unwrap();
    let mut changes = vec![Change::PutPeer(Box::new(peer(3)))];
    for n in 0..700 {
        changes.extend(send(n, &[3]));
        changes.push(moved(n, 3, Stage::Stored, Stage::Presented));
    }
    store.commit(&changes).unwrap();
    assert!(store.walk().is_none(), "a small file is checked when it is opened");
    drop(store);
    for n in [3, 256, 699] {
        super::rewrite_message(&database, id(n), |bytes| *bytes.last_mut().unwrap() ^= 1);
    }
    let store = Store::open(&database, &backups).unwrap();
    let (mut walk, mut steps) = (Walk::default(), 1);
    while store.read_on(&mut walk).unwrap() {
        steps += 1;
    }
    assert_eq!(walk.records(), 1_400);
    assert!(steps >= 6, "{steps} steps");
    assert_eq!(store.take_damage(), [3, 256, 699].map(|n| RecordName::Message(id(n))));
}
