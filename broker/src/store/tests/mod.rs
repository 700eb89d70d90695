//! The guarantees of the store, and helpers of its tests: samples of every record, a short life of
//! all operations, and a way to read all contents.

mod bytes;
mod changes;
mod crash_disk;
mod crashes;
mod damaged;
mod files;
mod older;
mod pages;
mod taken_back;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use peer_core::input::StoredMessage;
use peer_core::record::{
    Brief, DeliveryRecord, Image, KeptRecord, LinkRecord, MessageHead, MessageRecord, PausesRecord,
    PeerRecord, Process, SettingsRecord, TokenDigest,
};
use peer_core::shared::{
    ChannelRecord, NoteHead, NoteRecord, QuestionRecord, SharedKey, SharedRecord, TaskRecord,
};
use peer_core::step::Change;
use peer_proto::hook::Mode;
use peer_proto::ids::{BrokerId, MessageId, PeerId, TaskId, Timestamp};
use peer_proto::link::Share;
use peer_proto::message::{Intent, Kind, Sender, Stage, TraceEntry, TraceEvent, Via};
use peer_proto::policy::Policy;
use peer_proto::question::QuestionState;
use peer_proto::request::{Seat, SeatKind};
use peer_proto::task::TaskState;
use redb::ReadableTable;
use tempfile::TempDir;

use super::migrate::STEPS;
use super::{OpenError, Snapshot, Store, StoreError, open_database};
pub(crate) use crash_disk::Draw;
use crash_disk::{CrashDisk, Fault};

/// No space left on the device.
const ENOSPC: i32 = 28;

/// The time of the tests, in milliseconds since the epoch.
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
        client_pid: None,
        last_seen: Timestamp(NOW),
        policy: Some(Policy::Hold),
        mode: Some(Mode::AcceptEdits),
        merged_ids: vec![PeerId(9)],
        client_process: Some(Process { pid: 7, started: 300 }),
        adapter_process: None,
        home: None,
        hidden: false,
    }
}

fn kept(through: u64, text_bytes: u64) -> KeptRecord {
    KeptRecord { through: id(through), text_bytes }
}

fn pauses() -> PausesRecord {
    PausesRecord {
        all: true,
        peers: BTreeSet::from([PeerId(2), PeerId(3)]),
        threads: BTreeSet::from(["lab".into(), "t-1".into()]),
    }
}

fn settings(default_policy: Policy) -> SettingsRecord {
    SettingsRecord { default_policy: Some(default_policy), inbox_socket_in_bypass: true }
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
            channel: None,
            reply_to: None,
            sent_at: Timestamp(NOW + n),
            expires_at: Some(Timestamp(NOW + n + 1_000)),
            sources: vec!["a.rs:1".into()],
            text_bytes: text.len() as u32,
            private: false,
            origin: None,
        },
        idempotency_key: Some(format!("key-{n}")),
        text,
    }
}

fn delivery(n: u64, peer: u64, stage: Stage) -> DeliveryRecord {
    let stored = TraceEntry {
        event: TraceEvent::Stored,
        at: Timestamp(NOW + n),
        carrier: None,
        cause: None,
    };
    DeliveryRecord {
        message: id(n),
        peer: PeerId(peer),
        stage,
        attempts: 0,
        acked_at: None,
        answered_by: None,
        trace: vec![stored],
        brief: Brief::of(&message(n, &[peer]).head),
        rev: 0,
        relay: None,
    }
}

fn put(record: DeliveryRecord, was: Option<Stage>) -> Change {
    Change::PutDelivery { record: Box::new(record), was }
}

fn moved(n: u64, peer: u64, was: Stage, stage: Stage) -> Change {
    put(delivery(n, peer, stage), Some(was))
}

fn link(broker: BrokerId, alias: &str) -> LinkRecord {
    LinkRecord {
        broker,
        alias: alias.into(),
        policy: Policy::Hold,
        wake: false,
        share: Share::Names,
        first_seen: Timestamp(NOW),
        last_heard: None,
    }
}

fn channel() -> ChannelRecord {
    ChannelRecord {
        name: "#Ops".into(),
        topic: "plans".into(),
        private: true,
        members: vec![PeerId(2), PeerId(300)],
        created_by: "luna".into(),
        created_at: Timestamp(NOW),
    }
}

fn question(n: u64) -> QuestionRecord {
    QuestionRecord {
        question: id(n),
        asker: PeerId(2),
        to: vec![PeerId(3)],
        channel: Some("#Ops".into()),
        state: QuestionState::Open,
        asked_at: Timestamp(NOW + n),
        expires_at: Timestamp(NOW + n + 1_000),
        answered: Some((PeerId(3), id(n + 1))),
    }
}

fn task(n: u64) -> TaskRecord {
    TaskRecord {
        id: TaskId(n),
        title: "mend the login".into(),
        description: "see auth.rs".into(),
        state: TaskState::Blocked,
        creator: PeerId(2),
        assignee: Some(PeerId(3)),
        needs: vec![TaskId(1), TaskId(300)],
        result: "no database".into(),
        created_at: Timestamp(NOW),
        changed_at: Timestamp(NOW + n),
        idempotency_key: Some("k".into()),
    }
}

fn note(key: &str, version: u64) -> NoteRecord {
    let value = format!("value {version}");
    NoteRecord {
        head: NoteHead {
            key: key.into(),
            tags: vec!["db".into(), "ops".into()],
            version,
            author: "luna".into(),
            changed_at: Timestamp(NOW + version),
            expires_at: Some(Timestamp(NOW + 1_000)),
            bytes: value.len() as u32,
        },
        value,
    }
}

fn put_shared(shared: SharedRecord) -> Change {
    Change::PutShared(Box::new(shared))
}

/// Returns the changes of a send.
fn send(n: u64, to: &[u64]) -> Vec<Change> {
    let mut changes = vec![Change::PutMessage(Box::new(message(n, to)))];
    changes.extend(to.iter().map(|peer| put(delivery(n, *peer, Stage::Stored), None)));
    changes.push(Change::PutIdempotencyKey {
        sender: PeerId(2),
        key: format!("key-{n}"),
        message: id(n),
    });
    changes
}

fn new_store(disk: CrashDisk) -> Store {
    let (database, _) = open_database(disk).unwrap();
    Store::create_in(database, STEPS).unwrap()
}

/// Returns a new store, and a function that fills its disk to the last page.
pub(crate) fn store_on_a_disk_that_fills() -> (Store, impl FnOnce()) {
    let disk = CrashDisk::new();
    (new_store(disk.clone()), move || disk.fail(Fault::FailsFrom(1, ENOSPC)))
}

/// Returns a new store in memory.
pub(crate) fn store_on_a_disk_that_lasts() -> Store {
    new_store(CrashDisk::new())
}

/// Reopens the store of a disk. Returns whether the whole file had to be read.
fn reopen(disk: CrashDisk) -> (Store, bool) {
    let (database, repaired) = open_database(disk).unwrap();
    (Store::over(database, repaired), repaired)
}

/// The contents of a store.
#[derive(Debug, PartialEq)]
struct Contents {
    image: Image,
    messages: Vec<MessageRecord>,
    stored: Vec<StoredMessage>,
    orphans: Vec<DeliveryRecord>,
    keys: Vec<MessageId>,
    notes: Vec<NoteRecord>,
}

fn contents(store: &Store) -> Contents {
    let mut messages = Vec::new();
    let next = store.snapshot().unwrap().scan(super::Span::default(), usize::MAX, |message| {
        messages.push(message);
        ControlFlow::Continue(())
    });
    assert_eq!(next.unwrap(), None);
    let stored: Vec<_> = messages
        .iter()
        .map(|message| store.snapshot().unwrap().stored(message.head.id).unwrap().unwrap())
        .collect();
    let keys = messages.iter().filter_map(|message| message.idempotency_key.as_deref());
    let keys = keys.filter_map(|key| named(store, 2, key)).collect();
    let orphans = store.snapshot().unwrap().orphans(None, usize::MAX).unwrap();
    let image = store.snapshot().and_then(Snapshot::image).unwrap();
    let notes = image
        .shared
        .notes
        .iter()
        .map(|head| store.snapshot().unwrap().note(&head.key).unwrap().unwrap())
        .collect();
    Contents { image, messages, stored, orphans, keys, notes }
}

/// Returns the message that an idempotency key names.
fn named(store: &Store, sender: u64, key: &str) -> Option<MessageId> {
    let sent = store.snapshot().unwrap().sent_under(PeerId(sender), key).unwrap();
    sent.map(|(stored, _)| stored.head.id)
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

/// The acts of the crash tests: a short life of all operations of the store.
enum Act {
    Commit(Vec<Change>),
    Checkpoint,
}

fn life() -> Vec<Act> {
    let mut long = message(4, &[3]);
    long.text = "long ".repeat(10_000);
    vec![
        Act::Commit(vec![
            Change::PutPeer(Box::new(peer(2))),
            Change::PutPeer(Box::new(peer(3))),
            Change::PutNextPeer(PeerId(4)),
        ]),
        Act::Commit(send(1, &[2, 3])),
        Act::Commit(send(2, &[3])),
        Act::Checkpoint,
        Act::Commit(vec![moved(1, 3, Stage::Stored, Stage::Offered)]),
        Act::Commit([send(3, &[3]), vec![moved(1, 3, Stage::Offered, Stage::Presented)]].concat()),
        Act::Commit(vec![
            Change::PutMessage(Box::new(long)),
            put(delivery(4, 3, Stage::Held), None),
        ]),
        Act::Checkpoint,
        Act::Commit(vec![moved(1, 2, Stage::Stored, Stage::Dead), Change::RemovePeer(PeerId(2))]),
        Act::Commit(vec![
            moved(4, 3, Stage::Held, Stage::Cancelled),
            moved(2, 3, Stage::Stored, Stage::Expired),
        ]),
        Act::Commit(vec![
            Change::PutSettings(settings(Policy::Hold)),
            Change::PutPauses(Box::new(pauses())),
        ]),
        Act::Commit(vec![
            put_shared(SharedRecord::Channel(channel())),
            put_shared(SharedRecord::Question(question(2))),
            Change::PutNextTask(TaskId(4)),
            put_shared(SharedRecord::Task(task(3))),
            put_shared(SharedRecord::Note(note("db/url", 1))),
            put_shared(SharedRecord::Note(note("old", 1))),
        ]),
        Act::Commit(vec![
            put_shared(SharedRecord::Note(note("db/url", 2))),
            Change::RemoveShared(SharedKey::Note("old".into())),
            put_shared(SharedRecord::Task(TaskRecord { state: TaskState::Completed, ..task(3) })),
        ]),
        Act::Commit(vec![Change::RemoveMessage(id(4)), Change::PutKept(kept(3, 18))]),
    ]
}

fn live(store: &mut Store, act: &Act) -> Result<(), StoreError> {
    match act {
        Act::Commit(changes) => store.commit(changes),
        Act::Checkpoint => store.checkpoint(None),
    }
}

/// Creates a database with contents, as a clean stop leaves it.
fn filled(database: &Path, backups: &Path) {
    let mut store = Store::open(database, backups).unwrap();
    for act in life() {
        live(&mut store, &act).unwrap();
    }
    for n in 10..60 {
        store.commit(&send(n, &[3])).unwrap();
    }
}

/// Changes only the record of a message in a closed database. Its page has a right checksum.
pub(crate) fn rewrite_message(database: &Path, id: MessageId, change: impl FnOnce(&mut Vec<u8>)) {
    let database = redb::Database::open(database).unwrap();
    let writing = database.begin_write().unwrap();
    {
        let mut messages = writing.open_table(super::schema::MESSAGES).unwrap();
        let mut bytes = messages.get(id.to_u128()).unwrap().unwrap().value().to_vec();
        change(&mut bytes);
        messages.insert(id.to_u128(), bytes.as_slice()).unwrap();
    }
    writing.commit().unwrap();
}
