//! What the store promises: round trips, durability on a disk that loses what was not synced, refusals that leave the
//! file as it is, migrations, and bytes that do not change by accident.

use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use peer_core::input::StoredMessage;
use peer_core::record::{Brief, DeliveryRecord, Image, MessageHead, MessageRecord, PeerRecord, TokenDigest};
use peer_core::step::Change;
use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::{
    IDEMPOTENCY_KEY_BYTES_MAX, NAME_CHARS_MAX, PATH_BYTES_MAX, RECIPIENTS_MAX, SOURCE_BYTES_MAX, SOURCES_MAX, TEXT_BYTES_MAX,
    THREAD_BYTES_MAX,
};
use peer_proto::message::{Carrier, Cause, Evidence, Intent, Kind, Sender, Stage, TraceEntry, TraceEvent, Via};
use peer_proto::request::{Position, Seat, SeatKind};
use redb::{Database, ReadableTable, WriteTransaction};
use tempfile::TempDir;

use super::crash_disk::{CrashDisk, Draw, Fault};
use super::{
    Doing, OpenError, Problem, RECORD_BYTES_MAX, Row, SCHEMA_VERSION, Store, StoreError, VerifyReport, WRITE, open_database,
    record, schema,
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Milliseconds since the epoch at which the tests play.
const NOW: u64 = 1_795_000_000_000;

fn id(n: u64) -> MessageId {
    MessageId::first_at(Timestamp(NOW + n))
}

fn peer(n: u64) -> PeerRecord {
    PeerRecord {
        id: PeerId(n),
        name: format!("calm-fox-{n}"),
        aliases: vec!["old".into()],
        seats: vec![Seat { kind: SeatKind::Claude, key: "7f".into() }],
        provisional: false,
        client: "claude".into(),
        client_version: "2.1".into(),
        cwd: "/w".into(),
        git_root: Some("/w".into()),
        repo: None,
        host: "h".into(),
        summary: "s".into(),
        state: String::new(),
        task: String::new(),
        token: Some(TokenDigest([7; 32])),
        last_seen: Timestamp(NOW),
    }
}

fn message(n: u64, to: &[u64]) -> MessageRecord {
    let text = format!("text {n}");
    MessageRecord {
        head: MessageHead {
            id: id(n),
            from: Sender {
                peer: PeerId(2),
                name: "calm-fox-2".into(),
                client: "claude".into(),
                cwd: "/w".into(),
                via: Via::Session,
            },
            to: to.iter().map(|n| (PeerId(*n), format!("calm-fox-{n}"))).collect(),
            intent: Intent::Request,
            kind: Kind::Message,
            thread: "t-1".into(),
            reply_to: None,
            sent_at: Timestamp(NOW + n),
            expires_at: Some(Timestamp(NOW + n + 1_000)),
            sources: vec!["a.rs:1".into()],
            text_bytes: text.len() as u32,
        },
        idempotency_key: Some(format!("key-{n}")),
        text,
    }
}

fn delivery(n: u64, peer: u64, stage: Stage) -> DeliveryRecord {
    let stored = TraceEntry { event: TraceEvent::Stored, at: Timestamp(NOW + n), carrier: None, cause: None };
    DeliveryRecord {
        message: id(n),
        peer: PeerId(peer),
        stage,
        attempts: 0,
        acked_at: None,
        answered_by: None,
        trace: vec![stored],
        brief: Brief::of(&message(n, &[peer]).head),
    }
}

fn put(record: DeliveryRecord, was: Option<Stage>) -> Change {
    Change::PutDelivery { record: Box::new(record), was }
}

fn moved(n: u64, peer: u64, was: Stage, stage: Stage) -> Change {
    put(delivery(n, peer, stage), Some(was))
}

/// What a send stores.
fn send(n: u64, to: &[u64]) -> Vec<Change> {
    let mut changes = vec![Change::PutMessage(Box::new(message(n, to)))];
    changes.extend(to.iter().map(|peer| put(delivery(n, *peer, Stage::Stored), None)));
    changes.push(Change::PutIdempotencyKey { sender: PeerId(2), key: format!("key-{n}"), message: id(n) });
    changes
}

fn new_store(disk: CrashDisk) -> Store {
    let (database, _) = open_database(disk).unwrap();
    Store::create_in(database, &[]).unwrap()
}

/// Reopens what a disk holds; says whether all of it had to be walked through.
fn reopen(disk: CrashDisk) -> (Store, bool) {
    let (database, repaired) = open_database(disk).unwrap();
    (Store { database, needs_checkpoint: repaired, failed: false }, repaired)
}

/// All that a store holds.
#[derive(Debug, PartialEq)]
struct Contents {
    image: Image,
    messages: Vec<MessageRecord>,
    stored: Vec<StoredMessage>,
    orphans: Vec<DeliveryRecord>,
    keys: Vec<MessageId>,
}

fn contents(store: &Store) -> Contents {
    let mut messages = Vec::new();
    let next = store.scan_back(None, None, usize::MAX, |message| {
        messages.push(message);
        ControlFlow::Continue(())
    });
    assert_eq!(next.unwrap(), None);
    let stored: Vec<_> = messages.iter().map(|message| store.stored(message.head.id).unwrap().unwrap()).collect();
    let keys = messages.iter().filter_map(|message| message.idempotency_key.as_deref());
    let keys = keys.filter_map(|key| store.idempotency(PeerId(2), key).unwrap()).collect();
    let orphans = store.orphans(None, usize::MAX).unwrap();
    Contents { image: store.load().unwrap(), messages, stored, orphans, keys }
}

/// A directory with a database path and a backups directory.
fn place() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (database, backups) = (dir.path().join("peers.redb"), dir.path().join("backups"));
    (dir, database, backups)
}

fn open_error(result: Result<Store, OpenError>) -> OpenError {
    match result {
        Ok(_) => panic!("the database was opened"),
        Err(error) => error,
    }
}

#[test]
fn every_change_is_found_again() {
    let mut store = new_store(CrashDisk::new());
    assert_eq!(store.load().unwrap(), Image::default());

    store.commit(&[Change::PutPeer(Box::new(peer(2))), Change::PutPeer(Box::new(peer(3)))]).unwrap();
    store.commit(&[Change::PutNextPeer(PeerId(4)), Change::RemovePeer(PeerId(2))]).unwrap();
    store.commit(&send(1, &[3, 2])).unwrap();
    store.commit(&send(2, &[3])).unwrap();

    let image = store.load().unwrap();
    assert_eq!(image.peers, [peer(3)]);
    assert_eq!(image.next_peer, Some(PeerId(4)));
    assert_eq!(image.last_message, Some(id(2)));
    assert_eq!((image.messages, image.dead), (2, 0));
    let expected = [(1, 2), (1, 3), (2, 3)].map(|(n, peer)| delivery(n, peer, Stage::Stored));
    assert_eq!(image.pending, expected, "by message, then recipient");

    assert_eq!(store.message(id(1)).unwrap(), Some(message(1, &[3, 2])));
    assert_eq!(store.message(id(9)).unwrap(), None);
    assert_eq!(store.idempotency(PeerId(2), "key-2").unwrap(), Some(id(2)));
    assert_eq!(store.idempotency(PeerId(3), "key-2").unwrap(), None, "keys are the sender's own");

    store.commit(&[Change::RemoveDelivery { message: id(1), peer: PeerId(2), was: Stage::Stored }]).unwrap();
    store.commit(&[put(delivery(1, 7, Stage::Stored), None)]).unwrap();
    let stored = store.stored(id(1)).unwrap().unwrap();
    assert_eq!(stored.head, message(1, &[3, 2]).head);
    assert_eq!(stored.idempotency_key.as_deref(), Some("key-1"));
    assert_eq!(stored.deliveries, [3, 7].map(|peer| delivery(1, peer, Stage::Stored)), "also where it was moved to");
    assert_eq!(store.stored(id(9)).unwrap(), None);
}

#[test]
fn a_delivery_stands_in_one_table_whatever_its_stages() {
    use Stage::{Cancelled, Dead, Dropped, Expired, Held, Offered, Presented, Stored};
    let stages = [Stored, Offered, Held, Presented, Expired, Cancelled, Dead, Dropped];
    let mut store = new_store(CrashDisk::new());
    store.commit(&send(1, &[3])).unwrap();
    let mut was = Stored;
    // Each stage to each other one and back, whether or not the rules ever do that.
    for to in stages.iter().flat_map(|first| stages.iter().flat_map(move |second| [*first, *second])) {
        store.commit(&[moved(1, 3, was, to)]).unwrap();
        was = to;
        let image = store.load().unwrap();
        assert_eq!(store.stored(id(1)).unwrap().unwrap().deliveries, [delivery(1, 3, to)]);
        assert_eq!(image.pending.len(), usize::from(to.is_pending()), "{to:?}");
        assert_eq!(image.dead, u64::from(to == Dead), "{to:?}");
        let orphans = store.orphans(None, 9).unwrap();
        assert_eq!(orphans.len(), usize::from(matches!(to, Dead | Expired)), "{to:?}");
    }
}

#[test]
fn a_change_that_contradicts_what_is_stored_is_refused_whole() {
    let contradictions = [
        ("a second delivery", put(delivery(1, 3, Stage::Stored), None)),
        ("from nowhere in another table", moved(1, 4, Stage::Stored, Stage::Presented)),
        ("from nowhere in the same table", moved(1, 4, Stage::Stored, Stage::Offered)),
        ("from the wrong table", moved(1, 3, Stage::Dead, Stage::Presented)),
        ("a lease", moved(1, 3, Stage::Stored, Stage::Leased)),
        ("from a lease", moved(1, 3, Stage::Leased, Stage::Presented)),
        ("removed from nowhere", Change::RemoveDelivery { message: id(1), peer: PeerId(4), was: Stage::Stored }),
        ("removed from a lease", Change::RemoveDelivery { message: id(1), peer: PeerId(3), was: Stage::Leased }),
        ("a second message", Change::PutMessage(Box::new(message(1, &[3])))),
    ];
    for (what, contradiction) in contradictions {
        let disk = CrashDisk::new();
        let mut store = new_store(disk.clone());
        store.commit(&send(1, &[3])).unwrap();
        let before = contents(&store);
        let error = store.commit(&[Change::PutPeer(Box::new(peer(9))), contradiction]).unwrap_err();
        assert!(matches!(error, StoreError::Contradiction { .. } | StoreError::MessageExists { .. }), "{what}: {error:?}");
        assert!(matches!(store.load(), Err(StoreError::Failed)), "{what}");
        let after = disk.after_kill();
        drop(store);
        assert_eq!(contents(&reopen(after).0), before, "{what}");
    }
}

#[test]
fn history_is_read_backwards_in_pages() {
    let mut store = new_store(CrashDisk::new());
    for n in 1..=9 {
        store.commit(&send(n, &[3])).unwrap();
    }
    let page = |store: &Store, before, since, rows_max, break_at: Option<u64>| {
        let mut seen = Vec::new();
        let next = store.scan_back(before, since, rows_max, |message| {
            seen.push(message.head.sent_at.0 - NOW);
            if break_at == seen.last().copied() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (seen, next.unwrap())
    };
    assert_eq!(page(&store, None, None, 4, None), (vec![9, 8, 7, 6], Some(id(6))));
    assert_eq!(page(&store, Some(id(6)), None, 100, None), (vec![5, 4, 3, 2, 1], None));
    assert_eq!(page(&store, None, None, 100, Some(8)), (vec![9, 8], Some(id(8))));
    assert_eq!(page(&store, None, Some(Timestamp(NOW + 7)), 100, None), (vec![9, 8, 7], None));
    assert_eq!(page(&store, Some(id(3)), Some(Timestamp(NOW + 7)), 100, None), (vec![], None));
    assert_eq!(page(&store, Some(id(1)), None, 100, None), (vec![], None));
    assert_eq!(page(&store, Some(MessageId::MIN), None, 100, None), (vec![], None));

    // The clock went back: the id stays ahead of the time at which it was sent.
    let mut late = message(20, &[3]);
    late.head.sent_at = Timestamp(NOW + 2);
    store.commit(&[Change::PutMessage(Box::new(late))]).unwrap();
    assert_eq!(page(&store, None, Some(Timestamp(NOW + 8)), 100, None), (vec![9, 8], None));
}

#[test]
fn a_page_of_long_texts_ends_early() {
    let mut store = new_store(CrashDisk::new());
    for batch in 0..3u64 {
        let long = (0..100).map(|n| {
            let mut message = message(batch * 100 + n, &[3]);
            message.text = "x".repeat(TEXT_BYTES_MAX);
            Change::PutMessage(Box::new(message))
        });
        store.commit(&long.collect::<Vec<_>>()).unwrap();
    }
    let (mut seen, mut pages, mut before) = (0, 0, None);
    loop {
        let next = store.scan_back(before, None, 5_000, |_| {
            seen += 1;
            ControlFlow::Continue(())
        });
        pages += 1;
        before = next.unwrap();
        if before.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (300, 2));
}

#[test]
fn orphans_come_in_order_from_both_tables() {
    let mut store = new_store(CrashDisk::new());
    for n in 1..=6 {
        let stage = if n % 2 == 0 { Stage::Dead } else { Stage::Expired };
        store.commit(&send(n, &[3, 4])).unwrap();
        store.commit(&[moved(n, 3, Stage::Stored, stage), moved(n, 4, Stage::Stored, Stage::Expired)]).unwrap();
    }
    assert_eq!(store.load().unwrap().dead, 3);
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.orphans(after, 5).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Position { message: last.message, peer: last.peer });
        all.extend(page.iter().map(|orphan| (orphan.message, orphan.peer.0)));
    }
    let expected: Vec<_> = (1..=6).flat_map(|n| [(id(n), 3), (id(n), 4)]).collect();
    assert_eq!(all, expected);
}

/// What the crash tests do: a short life of everything that the store can do.
enum Act {
    Commit(Vec<Change>),
    Checkpoint,
}

fn life() -> Vec<Act> {
    let mut long = message(4, &[3]);
    long.text = "long ".repeat(10_000);
    vec![
        Act::Commit(vec![Change::PutPeer(Box::new(peer(2))), Change::PutPeer(Box::new(peer(3))), Change::PutNextPeer(PeerId(4))]),
        Act::Commit(send(1, &[2, 3])),
        Act::Commit(send(2, &[3])),
        Act::Checkpoint,
        Act::Commit(vec![moved(1, 3, Stage::Stored, Stage::Offered)]),
        Act::Commit([send(3, &[3]), vec![moved(1, 3, Stage::Offered, Stage::Presented)]].concat()),
        Act::Commit(vec![Change::PutMessage(Box::new(long)), put(delivery(4, 3, Stage::Held), None)]),
        Act::Checkpoint,
        Act::Commit(vec![moved(1, 2, Stage::Stored, Stage::Dead), Change::RemovePeer(PeerId(2))]),
        Act::Commit(vec![moved(4, 3, Stage::Held, Stage::Cancelled), moved(2, 3, Stage::Stored, Stage::Expired)]),
    ]
}

fn live(store: &mut Store, act: &Act) -> Result<(), StoreError> {
    match act {
        Act::Commit(changes) => store.commit(changes),
        Act::Checkpoint => store.checkpoint(),
    }
}

/// The contents before the life, and after each of its acts; and how many disk operations it takes.
fn undisturbed_life() -> (Vec<Contents>, usize) {
    let disk = CrashDisk::new();
    let mut store = new_store(disk.clone());
    let operations_before = disk.operations();
    let mut history = vec![contents(&store)];
    for act in life() {
        live(&mut store, &act).unwrap();
        history.push(contents(&store));
    }
    (history, disk.operations() - operations_before)
}

/// Lives on a disk with this fault, until the first error. Returns the disk as the fault left it, how many acts returned,
/// and the error.
fn disturbed_life(fault: Fault) -> (CrashDisk, usize, Option<StoreError>) {
    let disk = CrashDisk::new();
    let mut store = new_store(disk.clone());
    disk.fail(fault);
    let mut returned = 0;
    let mut failure = None;
    for act in life() {
        match live(&mut store, &act) {
            Ok(()) => returned += 1,
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    if failure.is_some() {
        assert!(matches!(store.commit(&send(9, &[3])), Err(StoreError::Failed)));
        assert!(matches!(store.checkpoint(), Err(StoreError::Failed)));
        assert!(matches!(store.load(), Err(StoreError::Failed)));
        assert!(matches!(store.message(id(1)), Err(StoreError::Failed)));
    }
    drop(store);
    (disk, returned, failure)
}

/// What was returned is there, and of what was not, all or nothing; and it goes on from there.
fn assert_whole(history: &[Contents], returned: usize, disk: CrashDisk, what: &str) {
    let (mut store, _) = reopen(disk);
    let found = contents(&store);
    let may_be = &history[returned..(returned + 2).min(history.len())];
    assert!(may_be.contains(&found), "{what}: {found:#?}");
    store.commit(&send(9, &[3])).unwrap();
    assert_eq!(store.stored(id(9)).unwrap().unwrap().deliveries.len(), 1, "{what}");
    assert!(store.database.check_integrity().unwrap(), "{what}");
}

#[test]
fn a_power_cut_anywhere_leaves_each_commit_whole_or_absent() {
    let (history, operations) = undisturbed_life();
    for cut_at in 1..=operations {
        let (disk, returned, failure) = disturbed_life(Fault::PowerCutAt(cut_at));
        assert!(failure.is_some(), "operation {cut_at} was not reached");
        for seed in 0..3 {
            let what = format!("power cut at operation {cut_at}, seed {seed}");
            let survivor = disk.after_power_cut(seed);
            // And once more, while it is being repaired.
            let mut draw = Draw(seed ^ cut_at as u64);
            survivor.fail(Fault::PowerCutAt(1 + draw.below(12)));
            if let Ok((database, _)) = open_database(survivor.clone()) {
                drop(database);
            }
            assert_whole(&history, returned, survivor.after_power_cut(draw.next()), &format!("{what}, cut twice"));
            assert_whole(&history, returned, disk.after_power_cut(seed), &what);
        }
    }
}

#[test]
fn a_failed_write_or_sync_ends_the_store_and_loses_nothing() {
    let (history, operations) = undisturbed_life();
    for at in 1..=operations {
        for fault in [Fault::FailsOnceAt(at, EIO), Fault::FailsFrom(at, EIO), Fault::FailsFrom(at, ENOSPC)] {
            let (disk, returned, failure) = disturbed_life(fault);
            let Some(error) = failure else { panic!("{fault:?} went unnoticed") };
            assert_eq!(error.is_no_space(), fault == Fault::FailsFrom(at, ENOSPC), "{fault:?}: {error:?}");
            assert_whole(&history, returned, disk.after_kill(), &format!("{fault:?}, killed"));
            let seed = at as u64;
            assert_whole(&history, returned, disk.after_power_cut(seed), &format!("{fault:?}, power cut, seed {seed}"));
        }
    }
}

#[test]
fn a_kill_after_a_checkpoint_needs_no_walk_through_the_file() {
    let disk = CrashDisk::new();
    let mut store = new_store(disk.clone());
    store.commit(&send(1, &[3])).unwrap();
    assert!(reopen(disk.after_kill()).1, "without a checkpoint it does");
    store.checkpoint().unwrap();
    assert!(!reopen(disk.after_kill()).1);
    let (operations, killed) = (disk.operations(), disk.after_kill());
    store.checkpoint().unwrap();
    store.commit(&[]).unwrap();
    assert_eq!(disk.operations(), operations, "nothing new, nothing written");
    drop(store);

    // Who reopens a checkpointed file and is killed at once leaves it as quick to open.
    let (store, _) = reopen(killed.clone());
    let killed_again = killed.after_kill();
    drop(store);
    assert!(!reopen(killed_again).1);
}

#[test]
fn what_was_settled_costs_no_start() {
    let reads_of_load = |settled: u64| {
        let disk = CrashDisk::new();
        let mut store = new_store(disk.clone());
        for batch in 0..settled / 500 {
            let of_batch = batch * 500..(batch + 1) * 500;
            store.commit(&of_batch.clone().flat_map(|n| send(n, &[3])).collect::<Vec<_>>()).unwrap();
            let presented = of_batch.map(|n| moved(n, 3, Stage::Stored, Stage::Presented));
            store.commit(&presented.collect::<Vec<_>>()).unwrap();
        }
        store.commit(&send(settled, &[3])).unwrap();
        drop(store);
        let disk = disk.after_kill();
        let (store, repaired) = reopen(disk.clone());
        assert!(!repaired, "it was closed cleanly");
        let before = disk.reads();
        let image = store.load().unwrap();
        assert_eq!((image.pending.len(), image.messages), (1, settled + 1));
        disk.reads() - before
    };
    let (few, many) = (reads_of_load(500), reads_of_load(10_000));
    assert!(many <= few + 4, "{many} reads with 10,000 settled messages, {few} with 500: only a tree's depth may differ");
}

#[test]
fn a_file_is_created_for_its_user_alone_and_found_again() {
    let (_dir, database, backups) = place();
    let mut store = Store::open(&database, &backups).unwrap();
    assert_eq!(std::fs::metadata(&database).unwrap().permissions().mode() & 0o7777, 0o600);
    store.commit(&send(1, &[3])).unwrap();
    let before = contents(&store);
    assert!(matches!(open_error(Store::open(&database, &backups)), OpenError::AlreadyOpen { .. }));
    assert!(matches!(Store::verify(&database), Err(OpenError::AlreadyOpen { .. })));
    drop(store);
    assert_eq!(contents(&Store::open(&database, &backups).unwrap()), before);
    let names: Vec<_> = std::fs::read_dir(database.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["peers.redb"], "nothing else is left");
}

#[test]
fn a_creation_that_was_killed_does_not_matter() {
    let (_dir, database, backups) = place();
    std::fs::write(database.with_extension("redb.new"), b"half a database").unwrap();
    Store::open(&database, &backups).unwrap().commit(&send(1, &[3])).unwrap();
    assert_eq!(Store::open(&database, &backups).unwrap().load().unwrap().messages, 1);
    assert!(!database.with_extension("redb.new").exists());
}

#[test]
fn what_is_no_file_of_ours_is_refused_by_name() {
    let (dir, database, backups) = place();
    let refusal = || open_error(Store::open(&database, &backups));

    std::fs::create_dir(&database).unwrap();
    assert!(matches!(refusal(), OpenError::NotAFile { .. }));
    std::fs::remove_dir(&database).unwrap();

    nix::unistd::mkfifo(&database, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(refusal(), OpenError::NotAFile { .. }));
    std::fs::remove_file(&database).unwrap();

    let elsewhere = dir.path().join("elsewhere");
    drop(Store::open(&elsewhere, &backups).unwrap());
    symlink(&elsewhere, &database).unwrap();
    assert!(matches!(refusal(), OpenError::Symlink { .. }));
    assert!(matches!(Store::verify(&database), Err(OpenError::Symlink { .. })));
    std::fs::remove_file(&database).unwrap();
    symlink(dir.path().join("nowhere"), &database).unwrap();
    assert!(matches!(refusal(), OpenError::Symlink { .. }));
    assert!(!dir.path().join("nowhere").exists());
    std::fs::remove_file(&database).unwrap();

    std::fs::rename(&elsewhere, &database).unwrap();
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = refusal();
    assert!(matches!(error, OpenError::Mode { mode: 0o640, .. }));
    assert!(error.to_string().contains("chmod 600"), "{error}");
    std::fs::remove_file(&database).unwrap();

    assert!(matches!(Store::verify(&database), Err(OpenError::Missing { .. })));

    let other = Database::create(&database).unwrap();
    let writing = other.begin_write().unwrap();
    writing.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).unwrap();
    writing.commit().unwrap();
    drop(other);
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o600)).unwrap();
    let before = std::fs::read(&database).unwrap();
    assert!(matches!(refusal(), OpenError::Foreign { .. }));
    assert_eq!(std::fs::read(&database).unwrap(), before);
}

/// A database with something in it, as a clean stop leaves it.
fn filled(database: &std::path::Path, backups: &std::path::Path) {
    let mut store = Store::open(database, backups).unwrap();
    for act in life() {
        live(&mut store, &act).unwrap();
    }
    for n in 10..60 {
        store.commit(&send(n, &[3])).unwrap();
    }
}

#[test]
fn a_damaged_file_is_refused_by_name_and_left_as_it_is() {
    let (_dir, database, backups) = place();
    filled(&database, &backups);
    let sound = std::fs::read(&database).unwrap();
    let refused = |damaged: &[u8], what: &str| {
        std::fs::write(&database, damaged).unwrap();
        let error = open_error(Store::open(&database, &backups));
        assert!(matches!(error, OpenError::Damaged { .. } | OpenError::Empty { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains("peers.redb"), "{what}: {error}");
        assert!(error.to_string().contains("backups directory"), "{what}: {error}");
        assert!(Store::verify(&database).is_err(), "{what}");
        assert_eq!(std::fs::read(&database).unwrap(), damaged, "{what}: the file was changed");
    };

    refused(b"", "cut to nothing");
    refused(b"not a database at all", "another file");
    refused(&vec![0; sound.len()], "zeros");
    refused(&sound[..sound.len() / 2], "cut in half");
    refused(&sound[..100], "cut within its head");
    refused(&sound[..sound.len() - 1], "cut by one byte");
    let mut damaged = sound.clone();
    damaged[..512].fill(0xff);
    refused(&damaged, "head overwritten");

    // Wherever a record's text is changed, the checksum of its page tells.
    let text = b"text 42";
    let at = sound.windows(text.len()).position(|window| window == text).unwrap();
    let mut damaged = sound.clone();
    damaged[at + 5] ^= 1;
    refused(&damaged, "one bit of a text");

    // The newest commit alone: going back to the one before would lose it without a word.
    let slot = if sound[9] & 1 == 0 { 64 } else { 192 };
    let mut damaged = sound.clone();
    damaged[slot + 8] ^= 1;
    refused(&damaged, "one bit of the newest commit's root");

    std::fs::write(&database, &sound).unwrap();
    drop(Store::open(&database, &backups).unwrap());
}

#[test]
fn bytes_flipped_anywhere_are_refused_or_do_no_harm() {
    let (_dir, database, backups) = place();
    filled(&database, &backups);
    let sound = std::fs::read(&database).unwrap();
    let before = contents(&Store::open(&database, &backups).unwrap());
    let mut refused = 0;
    for seed in 0..150 {
        let mut draw = Draw(seed);
        let mut damaged = sound.clone();
        for _ in 0..1 + draw.below(3) {
            let at = draw.below(damaged.len() / 64) * 64;
            for offset in 0..1 + draw.below(64) {
                damaged[at + offset] = draw.next() as u8;
            }
        }
        std::fs::write(&database, &damaged).unwrap();
        match Store::open(&database, &backups) {
            Ok(store) => assert_eq!(contents(&store), before, "seed {seed}: a free page, or nothing at all"),
            Err(error) => {
                assert!(matches!(error, OpenError::Damaged { .. }), "seed {seed}: {error:?}");
                assert_eq!(std::fs::read(&database).unwrap(), damaged, "seed {seed}: the file was changed");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

/// A step for the tests: counts its runs in `meta`.
fn noting_step(writing: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = writing.open_table(schema::META).doing(WRITE)?;
    let runs = meta.get("runs").doing(WRITE)?.map_or(0, |bytes| bytes.value()[0]);
    meta.insert("runs", [runs + 1].as_slice()).doing(WRITE)?;
    Ok(())
}

fn failing_step(writing: &WriteTransaction) -> Result<(), StoreError> {
    noting_step(writing)?;
    Err(StoreError::Failed)
}

fn runs(store: &Store) -> u8 {
    let meta = store.read().unwrap().open_table(schema::META).unwrap();
    meta.get("runs").unwrap().map_or(0, |bytes| bytes.value()[0])
}

fn backups_in(backups: &std::path::Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(backups).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn an_older_schema_is_migrated_after_a_copy_was_made_and_checked() {
    let (_dir, database, backups) = place();
    filled(&database, &backups);
    let (old, before) = (std::fs::read(&database).unwrap(), contents(&Store::open(&database, &backups).unwrap()));
    std::fs::write(&database, &old).unwrap();

    let store = Store::open_with(&database, &backups, &[noting_step, noting_step]).unwrap();
    assert_eq!((runs(&store), contents(&store)), (2, before));
    drop(store);
    let copies = backups_in(&backups);
    assert_eq!(copies.len(), 1);
    assert!(copies[0].file_name().unwrap().to_str().unwrap().starts_with("peers-v1-"));
    assert_eq!(std::fs::metadata(&copies[0]).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read(&copies[0]).unwrap(), old, "the copy is the file from before");

    // The next step alone, from where the file stands now; then none.
    assert_eq!(runs(&Store::open_with(&database, &backups, &[noting_step, noting_step, noting_step]).unwrap()), 3);
    assert_eq!(runs(&Store::open_with(&database, &backups, &[noting_step, noting_step, noting_step]).unwrap()), 3);
    assert_eq!(backups_in(&backups).len(), 2);
}

#[test]
fn a_file_that_was_not_closed_cleanly_is_copied_as_well() {
    let (_dir, database, backups) = place();
    let disk = CrashDisk::new();
    let mut store = new_store(disk.clone());
    store.commit(&[Change::PutPeer(Box::new(peer(3))), Change::PutNextPeer(PeerId(4))]).unwrap();
    store.commit(&send(1, &[3])).unwrap();
    let killed = disk.after_kill();
    drop(store);
    let mut bytes = vec![0; redb::StorageBackend::len(&killed).unwrap() as usize];
    redb::StorageBackend::read(&killed, 0, &mut bytes).unwrap();
    std::fs::write(&database, &bytes).unwrap();
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o600)).unwrap();

    let report = Store::verify(&database).unwrap();
    assert!(report.is_sound() && !report.closed_cleanly && report.messages == 1, "{report:?}");
    assert_eq!(std::fs::read(&database).unwrap(), bytes, "looking at it repairs nothing");
    assert_eq!(runs(&Store::open_with(&database, &backups, &[noting_step]).unwrap()), 1);
    assert_eq!(std::fs::read(&backups_in(&backups)[0]).unwrap(), bytes);
}

#[test]
fn a_failed_migration_leaves_the_schema_where_it_was() {
    let (_dir, database, backups) = place();
    filled(&database, &backups);
    let error = open_error(Store::open_with(&database, &backups, &[noting_step, failing_step]));
    assert!(matches!(error, OpenError::Migration { from: 2, .. }), "{error:?}");
    assert_eq!(
        runs(&Store::open_with(&database, &backups, &[noting_step]).unwrap()),
        1,
        "the first step holds, the second left nothing"
    );
}

#[test]
fn without_a_copy_there_is_no_migration() {
    let (dir, database, _) = place();
    let backups = dir.path().join("not-a-directory");
    filled(&database, &backups);
    std::fs::write(&backups, b"").unwrap();
    let before = std::fs::read(&database).unwrap();
    assert!(matches!(open_error(Store::open_with(&database, &backups, &[noting_step])), OpenError::Backup { .. }));
    assert_eq!(std::fs::read(&database).unwrap(), before);
}

#[test]
fn a_newer_schema_is_refused_with_both_versions_and_left_as_it_is() {
    let (_dir, database, backups) = place();
    drop(Store::open_with(&database, &backups, &[noting_step]).unwrap());
    let before = std::fs::read(&database).unwrap();
    let error = open_error(Store::open(&database, &backups));
    let OpenError::Newer { found, known, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*found, *known), (2, SCHEMA_VERSION));
    let text = error.to_string();
    let executable = std::env::current_exe().unwrap();
    for part in ["schema 2", "up to 1", env!("CARGO_PKG_VERSION"), "install", executable.to_str().unwrap()] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(matches!(Store::verify(&database), Err(OpenError::Newer { .. })));
    assert_eq!(std::fs::read(&database).unwrap(), before);
    assert!(!backups.exists());
}

#[test]
fn verify_counts_what_is_there_and_changes_nothing() {
    let (_dir, database, backups) = place();
    filled(&database, &backups);
    let before = std::fs::read(&database).unwrap();
    let report = Store::verify(&database).unwrap();
    assert_eq!(std::fs::read(&database).unwrap(), before);
    let expected = VerifyReport {
        schema: SCHEMA_VERSION,
        file_bytes: before.len() as u64,
        closed_cleanly: true,
        peers: 1,
        messages: 54,
        pending: 51,
        dead: 1,
        expired: 1,
        settled: 2,
        idempotency_keys: 53,
        problems: vec![],
        problems_total: 0,
    };
    assert_eq!(report, expected);
}

#[test]
fn verify_names_what_does_not_fit_together() {
    let (_dir, database, backups) = place();
    let mut store = Store::open(&database, &backups).unwrap();
    store.commit(&[Change::PutPeer(Box::new(peer(3))), Change::PutNextPeer(PeerId(3))]).unwrap();
    store.commit(&[put(delivery(1, 3, Stage::Stored), None)]).unwrap();
    store.commit(&send(2, &[8])).unwrap();
    store.commit(&[Change::PutIdempotencyKey { sender: PeerId(3), key: "k".into(), message: id(7) }]).unwrap();
    let writing = store.database.begin_write().unwrap();
    writing.open_table(schema::SETTLED).unwrap().insert((id(2).to_u128(), 3), [9u8].as_slice()).unwrap();
    let misplaced = record::encode(&delivery(2, 4, Stage::Dead)).unwrap();
    writing.open_table(schema::EXPIRED).unwrap().insert((id(2).to_u128(), 4), misplaced.as_slice()).unwrap();
    writing.commit().unwrap();
    drop(store);
    let report = Store::verify(&database).unwrap();
    let expected = [
        Problem::PeerIdNotReserved(PeerId(3)),
        Problem::NoMessage(Row::Delivery(id(1), PeerId(3))),
        Problem::NoPeer(Row::Delivery(id(2), PeerId(8))),
        Problem::Misplaced(Row::Delivery(id(2), PeerId(4))),
        Problem::Unreadable(Row::Delivery(id(2), PeerId(3))),
        Problem::KeyWithoutMessage(PeerId(3), id(7)),
    ];
    assert_eq!(report.problems, expected);
    assert!(!report.is_sound());
}

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
    let bytes = record::encode(&large).unwrap().len();
    assert!(bytes < 65_536 - 64, "{bytes}");

    large.head.to = (0..RECIPIENTS_MAX as u64).map(|n| (PeerId(u64::MAX - n), "n".repeat(NAME_CHARS_MAX))).collect();
    large.head.sources = vec!["s".repeat(SOURCE_BYTES_MAX); SOURCES_MAX];
    large.head.from.client = "c".repeat(PATH_BYTES_MAX);
    let bytes = record::encode(&large).unwrap().len();
    assert!((65_536..RECORD_BYTES_MAX).contains(&bytes), "{bytes}");

    let mut store = new_store(CrashDisk::new());
    store.commit(&[Change::PutMessage(Box::new(large.clone()))]).unwrap();
    assert_eq!(store.message(large.head.id).unwrap(), Some(large));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whoever changes these has changed the format: see `record`'s header for what that takes.
#[test]
fn the_records_are_these_bytes() {
    let mut message = message(1, &[3]);
    message.head.reply_to = Some(MessageId::MIN);
    let bytes = record::encode(&message).unwrap();
    assert_eq!(
        hex(&bytes),
        "01fe00000000015e56eea101000000000000020a63616c6d2d666f782d3206636c61756465022f770001030a63616c6d2d66\
         6f782d33000003742d310100fd015e56eea101000001fde96156eea10100000106612e72733a310601056b65792d31067465\
         78742031"
    );
    assert_eq!(record::decode_message(&bytes).unwrap(), message);
    let (head, key) = record::decode_head(&bytes).unwrap();
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
    let bytes = record::encode(&delivery).unwrap();
    assert_eq!(
        hex(&bytes),
        "01fe00000000015e56eea10100000000000003030201fd055e56eea101000001fe00000000025e56eea10100000000000002\
         00fd015e56eea1010000000004fd045e56eea10100000104010002020a63616c6d2d666f782d3200000003742d3100fd015e\
         56eea101000001fde96156eea101000006"
    );
    assert_eq!(record::decode::<DeliveryRecord>(&bytes).unwrap(), delivery);

    let bytes = record::encode(&peer(2)).unwrap();
    assert_eq!(
        hex(&bytes),
        "01020a63616c6d2d666f782d3201036f6c6401010237660006636c6175646503322e31022f7701022f770001680173000001\
         0707070707070707070707070707070707070707070707070707070707070707fd005e56eea1010000"
    );
    assert_eq!(record::decode::<PeerRecord>(&bytes).unwrap(), peer(2));

    assert_eq!(hex(&record::encode(&300u64).unwrap()), "01fb2c01");
    assert_eq!(hex(&record::encode(&"0.1.0").unwrap()), "0105302e312e30");
}

/// The names inside the records: a variant that moves would read old rows as something else.
#[test]
fn the_variants_keep_their_numbers() {
    let numbered = |bytes: Vec<u8>| bytes[1..].to_vec();
    use Stage::{Cancelled, Dead, Dropped, Expired, Held, Leased, Offered, Presented, Stored};
    for (number, stage) in [Stored, Leased, Offered, Presented, Held, Expired, Cancelled, Dead, Dropped].iter().enumerate() {
        assert_eq!(numbered(record::encode(stage).unwrap()), [number as u8], "{stage:?}");
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
    ];
    for (number, event) in events.iter().enumerate() {
        assert_eq!(numbered(record::encode(event).unwrap()), [number as u8], "{event:?}");
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
    ];
    for (number, cause) in causes.iter().enumerate() {
        assert_eq!(numbered(record::encode(cause).unwrap()), [number as u8 + 1], "{cause:?}");
    }
    let evidence =
        [Evidence::Ack, Evidence::Reply, Evidence::NextCall, Evidence::NextTurn, Evidence::Transcript, Evidence::Printed];
    for (number, evidence) in evidence.iter().enumerate() {
        assert_eq!(numbered(record::encode(&Cause::Evidence(*evidence)).unwrap()), [0, number as u8], "{evidence:?}");
    }
    let carriers =
        [Carrier::Channel, Carrier::InboxSocket, Carrier::AppServer, Carrier::Hook, Carrier::ToolResult, Carrier::Peerctl];
    for (number, carrier) in carriers.iter().enumerate() {
        assert_eq!(numbered(record::encode(carrier).unwrap()), [number as u8], "{carrier:?}");
    }
    for (number, via) in [Via::Session, Via::Person, Via::Shell, Via::Broker].iter().enumerate() {
        assert_eq!(numbered(record::encode(via).unwrap()), [number as u8], "{via:?}");
    }
    for (number, kind) in [Kind::Message, Kind::Question, Kind::Answer, Kind::Notice].iter().enumerate() {
        assert_eq!(numbered(record::encode(kind).unwrap()), [number as u8], "{kind:?}");
    }
    for (number, intent) in [Intent::Request, Intent::Inform].iter().enumerate() {
        assert_eq!(numbered(record::encode(intent).unwrap()), [number as u8], "{intent:?}");
    }
    for (number, kind) in [SeatKind::Name, SeatKind::Claude, SeatKind::Codex, SeatKind::Other].iter().enumerate() {
        assert_eq!(numbered(record::encode(kind).unwrap()), [number as u8], "{kind:?}");
    }
}

#[test]
fn a_cut_an_extended_and_a_strange_record_are_refused() {
    let bytes = record::encode(&message(1, &[3])).unwrap();
    for length in 0..bytes.len() {
        assert!(record::decode_message(&bytes[..length]).is_err(), "cut to {length}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(record::decode_message(&longer), Err(record::RecordError::TrailingBytes { bytes: 1 })));
    let mut newer = bytes;
    newer[0] = 2;
    assert!(matches!(record::decode_message(&newer), Err(record::RecordError::Version { found: 2 })));
    let hostile = [1, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10];
    assert!(matches!(record::decode::<&str>(&hostile), Err(record::RecordError::Decode(_))));
    assert!(matches!(record::encode(&"x".repeat(RECORD_BYTES_MAX)), Err(record::RecordError::TooLarge { .. })));
}
