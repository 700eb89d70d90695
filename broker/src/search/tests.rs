//! The index over a real store: its hits, the effect of a change, and its state after a kill.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use peer_core::record::{Brief, DeliveryRecord, MessageHead, MessageRecord};
use peer_core::shared::{NoteHead, NoteRecord, SharedKey, SharedRecord, TaskRecord};
use peer_core::step::Change;
use peer_proto::ids::{MessageId, PeerId, TaskId, Timestamp};
use peer_proto::message::{Intent, Kind, Sender, Stage, TraceEntry, TraceEvent, Via};
use peer_proto::search::SearchQuery;
use peer_proto::task::TaskState;

use peer_proto::search::HitKind;

use super::*;
use crate::store::Store;

const LUNA: PeerId = PeerId(3);
const ORION: PeerId = PeerId(4);

/// A store, and the directory of its index.
struct Place {
    room: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let room = tempfile::tempdir().unwrap();
        let store =
            Store::open(&room.path().join("peers.redb"), &room.path().join("backups")).unwrap();
        Self { room, store }
    }

    fn dir(&self) -> PathBuf {
        self.room.path().join("search")
    }

    fn commit(&mut self, changes: &[Change]) {
        self.store.commit(changes).unwrap();
    }

    fn send(&mut self, number: u64, text: &str) -> MessageId {
        let [put, delivery] = sent(number, text, Stage::Stored);
        self.commit(&[put, delivery]);
        id(number)
    }

    /// Opens the index as the thread does.
    fn open(&self) -> LocalIndex {
        LocalIndex::open(&self.dir(), self.store.snapshot().unwrap()).unwrap()
    }

    /// Indexes everything that is missing and searches. No other process has the index open.
    fn finds(&self, search: &Search) -> Vec<String> {
        let mut index = self.open();
        self.finds_with(&mut index, search)
    }

    fn finds_with(&self, index: &mut LocalIndex, search: &Search) -> Vec<String> {
        let snapshots = self.store.snapshots();
        assert_eq!(index.catch_up(&snapshots, || false).unwrap(), CaughtUp::Whole);
        let (hits, total) = index.find(&snapshots.take().unwrap(), search, Timestamp(1)).unwrap();
        assert_eq!(
            hits.len() as u64,
            total.saturating_sub(u64::from(search.query.offset)).min(u64::from(search.query.limit))
        );
        hits.into_iter().map(|hit| hit.id).collect()
    }
}

fn id(number: u64) -> MessageId {
    MessageId::first_at(Timestamp(1_000 * number))
}

fn ids(numbers: &[u64]) -> Vec<String> {
    numbers.iter().map(|number| id(*number).to_string()).collect()
}

/// A message from orion to luna.
fn sent(number: u64, text: &str, stage: Stage) -> [Change; 2] {
    let at = Timestamp(1_000 * number);
    let head = MessageHead {
        id: id(number),
        from: Sender {
            peer: ORION,
            name: "orion".into(),
            client: "codex".into(),
            cwd: "/w".into(),
            via: Via::Session,
        },
        to: vec![(LUNA, "luna".into())],
        intent: Intent::Request,
        kind: Kind::Message,
        thread: "t".into(),
        channel: None,
        reply_to: None,
        sent_at: at,
        expires_at: None,
        sources: Vec::new(),
        text_bytes: text.len() as u32,
        private: false,
        origin: None,
    };
    let delivery = delivery(&head, stage);
    let message = MessageRecord { head, idempotency_key: None, text: text.into() };
    [
        Change::PutMessage(Box::new(message)),
        Change::PutDelivery { record: Box::new(delivery), was: None },
    ]
}

fn delivery(head: &MessageHead, stage: Stage) -> DeliveryRecord {
    let entry = |event| TraceEntry { event, at: head.sent_at, carrier: None, cause: None };
    let mut trace = vec![entry(TraceEvent::Stored)];
    trace.extend((stage == Stage::Held).then(|| entry(TraceEvent::Held)));
    DeliveryRecord {
        message: head.id,
        peer: LUNA,
        stage,
        attempts: 0,
        acked_at: None,
        answered_by: None,
        trace,
        brief: Brief::of(head),
        rev: 0,
        relay: None,
    }
}

fn note(key: &str, value: &str) -> Change {
    let head = NoteHead {
        key: key.into(),
        tags: vec!["ops".into()],
        version: 1,
        author: "luna".into(),
        changed_at: Timestamp(5),
        expires_at: None,
        bytes: value.len() as u32,
    };
    Change::PutShared(Box::new(SharedRecord::Note(NoteRecord { head, value: value.into() })))
}

fn task(number: u64, title: &str) -> Change {
    let task = TaskRecord {
        id: TaskId(number),
        title: title.into(),
        description: "as agreed".into(),
        state: TaskState::Open,
        creator: PeerId::HUMAN,
        assignee: None,
        needs: Vec::new(),
        result: String::new(),
        created_at: Timestamp(5),
        changed_at: Timestamp(5),
        idempotency_key: None,
    };
    Change::PutShared(Box::new(SharedRecord::Task(task)))
}

/// A search by the person, newest first, so that the order is determined.
fn search(text: &str) -> Search {
    let query =
        SearchQuery { text: text.into(), newest: true, limit: 50, ..SearchQuery::default() };
    Search {
        query,
        seen_by: None,
        direct: true,
        channels: Vec::new(),
        open_channels: Vec::new(),
        peers: Vec::new(),
    }
}

fn search_of(peer: PeerId, text: &str) -> Search {
    Search { seen_by: Some(vec![peer]), direct: false, ..search(text) }
}

#[test]
fn words_phrases_beginnings_code_and_ids_are_found() {
    let mut place = Place::new();
    place.send(1, "Deploy the Parser::new fix to staging");
    place.send(2, "the staging deploy failed in src/store/mod.rs, see snake_case_name");
    place.send(3, "Größe und ΛΌΓΟΣ: 部署完成 café");
    place.commit(&[note("db/url", "postgres on 5433"), task(12, "Deploy on Friday")]);
    let found = |text: &str| place.finds(&search(text));
    assert_eq!(found("deploy staging"), ids(&[2, 1]));
    assert_eq!(found("\"deploy failed\""), ids(&[2]));
    assert_eq!(found("\"staging deploy\" fail*"), ids(&[2]));
    assert_eq!(found("parser::new"), ids(&[1]));
    assert_eq!(found("parser::n*"), ids(&[1]));
    assert_eq!(found("store/mod.rs snake_case_name"), ids(&[2]));
    assert_eq!(found("case"), ids(&[2]));
    assert_eq!(found("GRÖSSE λόγος cafe 完成"), ids(&[3]));
    assert_eq!(found(&id(2).to_string()), ids(&[2]));
    assert_eq!(found("t-12"), ["T-12"]);
    assert_eq!(found("db/url"), ["db/url"]);
    assert_eq!(found("ops postg*"), ["db/url"]);
    assert_eq!(found("frid*"), ["T-12"]);
    assert_eq!(found("stag*").len(), 2);
    assert!(found("deploy nowhere").is_empty() && found("\u{0} ((\" * ^").is_empty());
}

#[test]
fn filters_narrow_down_and_pages_go_on() {
    let mut place = Place::new();
    for number in 1..=9 {
        place.send(number, "blue");
    }
    place.commit(&[note("door", "blue"), task(1, "blue")]);
    let query = |change: fn(&mut Search)| {
        let mut search = search("blue");
        change(&mut search);
        place.finds(&search)
    };
    assert_eq!(query(|_| ()).len(), 11);
    assert_eq!(query(|search| search.query.kinds = vec![HitKind::Note]), ["door"]);
    assert_eq!(query(|search| search.query.kinds = vec![HitKind::Task, HitKind::Note]).len(), 2);
    assert_eq!(query(|search| search.query.since = Some(Timestamp(8_000))), ids(&[9, 8]));
    assert_eq!(query(|search| search.query.thread = Some("t".into())).len(), 9);
    assert!(query(|search| search.query.thread = Some("u".into())).is_empty());
    assert!(query(|search| search.query.channel = Some("#ops".into())).is_empty());
    assert_eq!(query(|search| (search.query.limit, search.query.offset) = (2, 3)), ids(&[6, 5]));
    let of = |peer: u64| {
        let mut search = search("blue");
        (search.query.peer, search.peers) = (Some("named".into()), vec![PeerId(peer)]);
        place.finds(&search).len()
    };
    assert_eq!((of(3), of(4), of(9), of(1)), (9, 9, 0, 1));
}

#[test]
fn a_session_finds_its_own_and_what_is_everybodys() {
    let mut place = Place::new();
    place.send(1, "blue");
    place.commit(&[note("door", "blue"), task(1, "blue")]);
    assert_eq!(place.finds(&search_of(LUNA, "blue")).len(), 3);
    assert_eq!(place.finds(&search_of(ORION, "blue")).len(), 3);
    assert_eq!(place.finds(&search_of(PeerId(9), "blue")).len(), 2);
}

#[test]
fn what_is_held_is_hidden_until_it_is_let_go() {
    let mut place = Place::new();
    let [put, put_delivery] = sent(1, "blue", Stage::Held);
    place.commit(&[put.clone(), put_delivery]);
    let mut index = place.open();
    let mut told =
        |place: &Place, peer| place.finds_with(&mut index, &search_of(peer, "blue")).len();
    assert_eq!((told(&place, LUNA), told(&place, ORION)), (0, 1));
    let Change::PutMessage(message) = put else { unreachable!() };
    let mut record = delivery(&message.head, Stage::Held);
    record.stage = Stage::Stored;
    record.trace.push(TraceEntry {
        event: TraceEvent::Released,
        at: Timestamp(9),
        carrier: None,
        cause: None,
    });
    place.commit(&[Change::PutDelivery { record: Box::new(record), was: Some(Stage::Held) }]);
    assert_eq!((told(&place, LUNA), told(&place, ORION)), (1, 1));
}

#[test]
fn a_shell_finds_what_was_said_directly_and_not_in_private() {
    let mut place = Place::new();
    place.send(1, "blue");
    let [mut put, mut put_delivery] = sent(2, "blue", Stage::Stored);
    if let (Change::PutMessage(message), Change::PutDelivery { record, .. }) =
        (&mut put, &mut put_delivery)
    {
        (message.head.private, record.brief.private) = (true, true);
    }
    place.commit(&[put, put_delivery]);
    let shell_of = |peer| Search { direct: true, ..search_of(peer, "blue") };
    assert_eq!(place.finds(&shell_of(PeerId(9))), ids(&[1]));
    // Its sender and recipient find it, and so does the person.
    assert_eq!(place.finds(&shell_of(LUNA)), ids(&[2, 1]));
    assert_eq!(place.finds(&search("blue")), ids(&[2, 1]));
}

#[test]
fn what_changes_and_goes_is_found_as_it_is() {
    let mut place = Place::new();
    place.commit(&[note("door", "blue"), task(1, "blue")]);
    let [put, delivery] = sent(1, "blue", Stage::Presented);
    place.commit(&[put, delivery]);
    let mut index = place.open();
    assert_eq!(place.finds_with(&mut index, &search("blue")).len(), 3);
    place.commit(&[note("door", "red"), task(1, "red"), Change::RemoveMessage(id(1))]);
    assert!(place.finds_with(&mut index, &search("blue")).is_empty());
    assert_eq!(place.finds_with(&mut index, &search("red")).len(), 2);
    place.commit(&[
        Change::RemoveShared(SharedKey::Note("door".into())),
        Change::RemoveShared(SharedKey::Task(TaskId(1))),
    ]);
    assert!(place.finds_with(&mut index, &search("red")).is_empty());
    assert!(index.check(place.store.snapshot().unwrap()).unwrap().is_sound());
}

#[test]
fn a_killed_index_goes_on_where_its_last_commit_was() {
    let mut place = Place::new();
    place.send(1, "blue");
    place.commit(&[note("door", "blue")]);
    let mut index = place.open();
    assert_eq!(place.finds_with(&mut index, &search("blue")).len(), 2);
    place.send(2, "blue");
    place.commit(&[note("door", "red")]);
    // As after a kill: no clean end is recorded.
    drop(index);
    assert_eq!(place.finds(&search("blue")), ids(&[2, 1]));
}

#[test]
fn an_index_that_is_gone_or_of_another_store_is_made_anew() {
    let mut place = Place::new();
    for number in 1..=3 {
        place.send(number, "blue");
    }
    assert_eq!(place.finds(&search("blue")).len(), 3);
    // Thrown away.
    fs::remove_dir_all(place.dir()).unwrap();
    assert_eq!(place.finds(&search("blue")).len(), 3);
    // No index at all.
    fs::write(place.dir().join("meta.json"), "{").unwrap();
    assert_eq!(place.finds(&search("blue")).len(), 3);
    // Another store, such as a copy from before.
    let mut other = Place::new();
    other.send(7, "blue too");
    fs::remove_dir_all(place.dir()).unwrap();
    fs::create_dir(place.dir()).unwrap();
    assert_eq!(other.finds(&search("blue")), ids(&[7]));
    for entry in fs::read_dir(other.dir()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.dir().join(entry.file_name())).unwrap();
    }
    assert_eq!(place.finds(&search("blue")), ids(&[3, 2, 1]));
}

/// An index with entries of every kind, in several segments, and with deleted entries.
fn grown() -> Place {
    let mut place = Place::new();
    for numbers in [1..3, 3..4] {
        place.commit(
            &numbers
                .clone()
                .flat_map(|number| sent(number, "blue", Stage::Presented))
                .collect::<Vec<_>>(),
        );
        assert_eq!(place.finds(&search("blue")).len() as u64, numbers.end - 1);
    }
    place.commit(&[note("door", "blue"), task(1, "green"), Change::RemoveMessage(id(2))]);
    assert_eq!(
        place.finds(&search("blue")),
        [id(3).to_string(), id(1).to_string(), "door".to_owned()]
    );
    place
}

/// The files of an index, and what is in them.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    files.sort();
    files
}

fn put_back(dir: &Path, files: &[(PathBuf, Vec<u8>)]) {
    fs::remove_dir_all(dir).unwrap();
    fs::create_dir(dir).unwrap();
    files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
}

/// The library itself ends the process on each of them, or finds too little.
#[test]
fn a_wrong_byte_or_a_cut_in_any_file_of_the_index_costs_no_hit() {
    let place = grown();
    let whole = files(&place.dir());
    let ends: BTreeSet<_> =
        whole.iter().filter_map(|(path, _)| Some(path.extension()?.to_str()?.to_owned())).collect();
    for end in ["del", "fast", "fieldnorm", "idx", "json", "pos", "store", "term"] {
        assert!(ends.contains(end), "{ends:?}");
    }
    for (path, bytes) in whole.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let spread = (0..5).map(|step| step * (bytes.len() - 1) / 4).collect::<BTreeSet<_>>();
        let damaged = spread.iter().map(|at| {
            let mut wrong = bytes.clone();
            wrong[*at] ^= 0x41;
            wrong
        });
        let cut = [0, bytes.len() / 2].map(|length| bytes[..length].to_vec());
        for wrong in damaged.chain(cut) {
            put_back(&place.dir(), &whole);
            fs::write(path, &wrong).unwrap();
            let found = place.finds(&search("blue"));
            assert_eq!(found.len(), 3, "{} bytes of {}: {found:?}", wrong.len(), path.display());
        }
    }
}

/// This happened on a disk whose files could not be mapped for a while. The library left the
/// entries out, and its commit reported no error.
#[test]
fn entries_that_the_index_lost_in_silence_are_missed() {
    let place = grown();
    let meta = place.dir().join("meta.json");
    let text = fs::read_to_string(&meta).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let segments = value["segments"].as_array_mut().unwrap();
    assert!(segments.len() > 1, "{text}");
    segments.pop();
    fs::write(&meta, value.to_string()).unwrap();
    let store = place.store.snapshot().unwrap();
    assert!(matches!(LocalIndex::open_in(&place.dir(), store), Ok(LocalLooked::Damaged(1))));
    assert_eq!(place.finds(&search("blue")).len(), 3);
}

#[test]
fn entries_are_counted_whatever_happens_to_a_thing_between_two_commits() {
    let mut place = Place::new();
    let [put, presented] = sent(1, "blue", Stage::Presented);
    place.commit(&[put, presented, note("a", "blue"), note("b", "blue")]);
    // Indexed twice and more within one commit: changed, deleted, created again, and never there.
    let mut index = place.open();
    assert_eq!(place.finds_with(&mut index, &search("blue")).len(), 3);
    let gone = |key: &str| Change::RemoveShared(SharedKey::Note(key.into()));
    place.commit(&[
        note("a", "blue"),
        gone("a"),
        note("a", "blue"),
        gone("b"),
        note("c", "blue"),
        gone("c"),
        gone("d"),
    ]);
    let changes: Vec<Change> =
        (2..1_500).flat_map(|number| sent(number, "blue", Stage::Presented)).collect();
    place.commit(&changes);
    place.commit(&[Change::RemoveMessage(id(1)), Change::RemoveMessage(id(1_400))]);
    assert_eq!(place.finds_with(&mut index, &search("blue")).len(), 50);
    let report = index.check(place.store.snapshot().unwrap()).unwrap();
    assert!(report.is_sound() && report.entries == 1_498, "{report:?}");
    assert_eq!(place.open().entries(), 1_498);
}

#[test]
fn what_the_index_has_seen_is_forgotten_and_a_gap_is_noticed() {
    let mut place = Place::new();
    place.commit(&[note("a", "blue")]);
    let mut index = place.open();
    place.finds_with(&mut index, &search("blue"));
    for key in ["b", "c", "d"] {
        place.commit(&[note(key, "blue")]);
    }
    assert_eq!(place.finds_with(&mut index, &search("blue")).len(), 4);
    assert_eq!(index.seen_row(), 4);
    place.store.trim_reindex(index.seen_row()).unwrap();
    assert_eq!(place.store.snapshot().unwrap().reindex_bounds().unwrap(), Some((4, 4)));
    drop(index);
    // The recorded changes are gone before this index has read them.
    place.commit(&[
        note("e", "blue"),
        note("f", "blue"),
        Change::RemoveShared(SharedKey::Note("a".into())),
    ]);
    place.store.trim_reindex(6).unwrap();
    assert_eq!(place.finds(&search("blue")).len(), 5);
}

#[test]
fn indexing_stops_when_it_is_told_to_and_goes_on_later() {
    let mut place = Place::new();
    for batch in 0..3 {
        let changes: Vec<Change> = (1..=1_000)
            .flat_map(|number| sent(batch * 1_000 + number, "blue", Stage::Stored))
            .collect();
        place.commit(&changes);
    }
    let mut index = place.open();
    let snapshots = place.store.snapshots();
    assert_eq!(index.catch_up(&snapshots, || true).unwrap(), CaughtUp::Part);
    let before = index.entries();
    assert!(before <= 2_000, "{before}");
    drop(index);
    let mut index = place.open();
    assert_eq!(index.catch_up(&snapshots, || false).unwrap(), CaughtUp::Whole);
    assert_eq!(index.entries(), 3_000);
    let report = index.check(&snapshots.take().unwrap()).unwrap();
    assert!(report.is_sound() && report.entries == 3_000, "{report:?}");
}
