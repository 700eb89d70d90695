//! Damages redb's own pages: the database opens, everything in it is right, and little is lost.

use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::LazyLock;

use peer_core::record::MessageRecord;
use peer_core::step::Change;
use peer_proto::ids::PeerId;
use peer_proto::message::Stage;
use redb::{Key, StorageBackend, TableDefinition, TableHandle, Value};

use super::super::damage::Damage;
use super::super::file::{HEAD_BYTES, StagedFile};
use super::super::migrate::STEPS;
use super::super::pages::format::{self, LEAF, PAGE_BYTES, Root, Shape, TABLES};
use super::super::pages::guard::GuardedFile;
use super::super::pages::survey;
use super::super::{
    CHECKED_AT_OPEN_BYTES_MAX, OpenError, Problem, RecordName, Snapshot, Store, Walk, schema,
    witness,
};
use super::crash_disk::Draw;
use super::{delivery, id, message, moved, note, peer, place, put, put_shared, send};
use peer_core::shared::SharedRecord;

/// Messages in the large database: short, so that much of it is layout.
const MESSAGES: u64 = 2_500;

/// A database of more bytes counts as a large one here, so that the test has time for many damages.
const CHECKED_MAX: u64 = 1024 * 1024;

fn open(database: &Path, backups: &Path) -> Result<Store, OpenError> {
    Store::open_with(database, backups, STEPS, CHECKED_MAX)
}

/// The number of pending ones. The rest is settled in one way or another.
const WAITING: u64 = 200;

fn large_message(n: u64) -> MessageRecord {
    let mut long = message(n, &[3]);
    long.text = format!("{n} ").repeat(40 + (n % 90) as usize);
    long.head.text_bytes = long.text.len() as u32;
    long
}

fn stage_of(n: u64) -> Stage {
    match n {
        _ if n + WAITING > MESSAGES => Stage::Stored,
        _ if n.is_multiple_of(97) => Stage::Dead,
        _ if n.is_multiple_of(89) => Stage::Expired,
        _ => Stage::Presented,
    }
}

fn fill(store: &mut Store) {
    let mut peers: Vec<Change> = (2..40).map(|n| Change::PutPeer(Box::new(peer(n)))).collect();
    peers.push(Change::PutNextPeer(PeerId(40)));
    peers.extend((0..300).map(|n| put_shared(SharedRecord::Note(note(&format!("note {n}"), 1)))));
    store.commit(&peers).unwrap();
    let all: Vec<u64> = (1..=MESSAGES).collect();
    for some in all.chunks(500) {
        let mut changes = Vec::new();
        for n in some {
            let [_, delivered, key] = <[Change; 3]>::try_from(send(*n, &[3])).unwrap();
            changes.extend([Change::PutMessage(Box::new(large_message(*n))), delivered, key]);
        }
        store.commit(&changes).unwrap();
        let settled = some.iter().filter(|n| stage_of(**n) != Stage::Stored);
        store
            .commit(&settled.map(|n| moved(*n, 3, Stage::Stored, stage_of(*n))).collect::<Vec<_>>())
            .unwrap();
    }
}

/// The file of a large database that was closed, and the file of its last commit.
static LARGE: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let (_dir, database, backups) = place();
    let mut store = open(&database, &backups).unwrap();
    fill(&mut store);
    drop(store);
    let bytes = std::fs::read(&database).unwrap();
    assert!(bytes.len() as u64 > CHECKED_MAX, "{}", bytes.len());
    (bytes, std::fs::read(witness::path_of(&database)).unwrap())
});

/// The kind of a page to damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Branch,
    Leaf,
    /// Names tables.
    Tables,
    /// redb's own.
    System,
}

/// Returns every page of the commit in force, and checks their checksums.
fn pages(file: &[u8]) -> Vec<(usize, usize, Kind)> {
    let head: [u8; HEAD_BYTES] = file[..HEAD_BYTES].try_into().unwrap();
    assert!(format::is_head(&head));
    let [slot, _] = format::slots(&head);
    assert!(slot.is_sound);
    let mut found = Vec::new();
    for (root, is_system) in [(slot.user, false), (slot.system, true)] {
        let mut tables = Vec::new();
        pages_of(file, root.unwrap(), &TABLES, &mut |at, bytes, page| {
            found.push((at, bytes, if is_system { Kind::System } else { Kind::Tables }));
            for (name, bytes) in format::rows(page, &TABLES).unwrap() {
                tables.push((name.to_vec(), format::definition(bytes).unwrap()));
            }
        });
        for (name, definition) in tables {
            let Some(root) = definition.root else { continue };
            let shape = Shape { key: definition.key, value: definition.value, ..TABLES };
            if !is_system {
                let (_, ours) =
                    schema::SHAPES.iter().find(|(ours, _)| ours.as_bytes() == name).unwrap();
                assert_eq!((ours.key, ours.value), (shape.key, shape.value));
            }
            pages_of(file, root, &shape, &mut |at, bytes, page| {
                let kind = if page[0] == LEAF { Kind::Leaf } else { Kind::Branch };
                found.push((at, bytes, if is_system { Kind::System } else { kind }));
            });
        }
    }
    found
}

fn pages_of(file: &[u8], root: Root, shape: &Shape, see: &mut impl FnMut(usize, usize, &[u8])) {
    let (at, bytes) = root.page.place().unwrap();
    let page = &file[at as usize..at as usize + bytes];
    assert_eq!(format::page_sum(page, shape), Some(root.sum), "the page at {at}");
    see(at as usize, bytes, page);
    if page[0] != LEAF {
        format::children(page, shape, None, None)
            .into_iter()
            .for_each(|child| pages_of(file, child.root, shape, see));
    } else {
        let rows = format::rows(page, shape).unwrap();
        let again = format::leaf(&rows, shape, bytes).unwrap();
        assert_eq!(
            again[2..format::used(page, shape).unwrap()],
            page[2..format::used(page, shape).unwrap()],
            "the page at {at}"
        );
    }
}

fn check<K: Key, V: Value>(table: TableDefinition<'_, K, V>) {
    let (_, shape) = schema::SHAPES.iter().find(|(name, _)| *name == table.name()).unwrap();
    assert_eq!((shape.key, shape.value), (K::fixed_width(), V::fixed_width()), "{}", table.name());
}

#[test]
fn shapes_are_those_of_the_tables() {
    check(schema::META);
    check(schema::PEERS);
    check(schema::MESSAGES);
    schema::DELIVERIES.into_iter().for_each(check);
    check(schema::CHANNELS);
    check(schema::QUESTIONS);
    check(schema::TASKS);
    check(schema::NOTES);
    check(schema::REINDEX);
    check(schema::IDEMPOTENCY);
}

#[test]
fn every_page_has_the_checksum_that_its_parent_states() {
    let (file, _) = &*LARGE;
    let pages = pages(file);
    let of = |kind: Kind| pages.iter().filter(|(_, _, is)| *is == kind).count();
    assert!(
        of(Kind::Branch) > 8
            && of(Kind::Leaf) > 300
            && of(Kind::Tables) > 0
            && of(Kind::System) > 1,
        "{}",
        of(Kind::Branch)
    );
    let read = |at: u64, out: &mut [u8]| {
        out.copy_from_slice(&file[at as usize..at as usize + out.len()]);
        Ok(())
    };
    let survey = survey::survey(&read, file.len() as u64).unwrap();
    assert_eq!(survey.faults, []);
    assert!(survey.pages < pages.len() as u64 / 10, "{} of {}", survey.pages, pages.len());
    for (at, bytes, _) in pages {
        let expected = survey.known.at(at as u64, bytes).unwrap();
        assert!(expected.is(&file[at..at + bytes]), "the page at {at}");
    }
}

fn put_file(database: &Path, file: &[u8], note: &[u8]) {
    std::fs::write(database, file).unwrap();
    std::fs::set_permissions(database, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(witness::path_of(database), note).unwrap();
}

/// Checks that every message that is found in any way is the one that was stored. Returns how many
/// are not found.
fn missing(store: &Store, what: &str) -> u64 {
    let mut found = vec![false; MESSAGES as usize + 1];
    let next =
        store.snapshot().unwrap().scan(super::super::Span::default(), usize::MAX, |stored| {
            let n = stored.head.sent_at.0 - super::NOW;
            if n <= MESSAGES {
                assert!(stored == large_message(n), "{what}: message {n}");
                found[n as usize] = true;
            }
            ControlFlow::Continue(())
        });
    assert_eq!(next.unwrap(), None);
    let mut missing = 0;
    for n in 1..=MESSAGES {
        let stored = store.snapshot().unwrap().message(id(n)).unwrap();
        assert!(
            stored.is_none() != found[n as usize],
            "{what}: message {n} is found in one way and not in the other"
        );
        missing += u64::from(stored.is_none());
        if n.is_multiple_of(7)
            && let Some(stored) = store.snapshot().unwrap().stored(id(n)).unwrap()
        {
            assert!(
                stored
                    .deliveries
                    .iter()
                    .all(|found| found.is_kept_back() || *found == delivery_of(n)),
                "{what}: {n}"
            );
        }
    }
    missing
}

fn delivery_of(n: u64) -> peer_core::record::DeliveryRecord {
    delivery(n, 3, stage_of(n))
}

/// Opens the damaged file, reads and writes everything, and opens it again. Returns how many
/// messages are lost.
fn outlive(damaged: &[u8], what: &str) -> u64 {
    let (_dir, database, backups) = place();
    put_file(&database, damaged, &LARGE.1);
    let mut store = open(&database, &backups).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let image = store.snapshot().and_then(Snapshot::image).unwrap();
    let lost = missing(&store, what);
    let mut walk = Walk::default();
    while store.read_on(&mut walk).unwrap() {}
    let damage = store.take_damage();
    assert!(lost == 0 || !damage.is_empty(), "{what}: {lost} are lost in silence");
    assert!(
        image.pending.len() as u64 + lost + damage.len() as u64 >= WAITING,
        "{what}: {} wait",
        image.pending.len()
    );
    // Writing goes through the same pages.
    let mut changes = Vec::new();
    for n in (1..MESSAGES - WAITING).step_by(11) {
        let stored = store.snapshot().unwrap().stored(id(n)).unwrap();
        if stored.is_some_and(|stored| stored.deliveries == [delivery_of(n)]) {
            changes.push(Change::RemoveMessage(id(n)));
        }
    }
    (1..40).for_each(|n| changes.extend(send(MESSAGES + n, &[3])));
    changes.push(put(delivery(MESSAGES + 90, 3, Stage::Held), None));
    store.commit(&changes).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    store.checkpoint(None).unwrap();
    assert_eq!(
        store.snapshot().unwrap().message(id(MESSAGES + 1)).unwrap(),
        Some(message(MESSAGES + 1, &[3])),
        "{what}"
    );
    drop(store);
    let store =
        open(&database, &backups).unwrap_or_else(|error| panic!("{what}, again: {error:?}"));
    assert_eq!(
        store.snapshot().unwrap().message(id(MESSAGES + 1)).unwrap(),
        Some(message(MESSAGES + 1, &[3])),
        "{what}, again"
    );
    store.snapshot().and_then(Snapshot::image).unwrap();
    lost
}

fn runs() -> u64 {
    std::env::var("PEERD_DAMAGES").ok().and_then(|runs| runs.parse().ok()).unwrap_or(4)
}

/// Damages some bytes as a disk may.
fn damage(bytes: &mut [u8], draw: &mut Draw) {
    let at = draw.below(bytes.len());
    let length = bytes.len() - at;
    match draw.below(5) {
        0 => bytes[at] ^= 1 << draw.below(8),
        1 => bytes[at] = 0xff,
        2 => bytes[at..at + length.min(1 + draw.below(64))].fill(0),
        3 => bytes[at..at + length.min(1 + draw.below(16))].fill(0xff),
        _ => bytes[at..at + length.min(1 + draw.below(512))]
            .iter_mut()
            .for_each(|byte| *byte = draw.next() as u8),
    }
}

fn aimed(kind: Kind, bytes_of_page: usize, lost_max: u64) {
    let (file, _) = &*LARGE;
    let targets: Vec<_> = pages(file).into_iter().filter(|(_, _, is)| *is == kind).collect();
    for seed in 0..runs() {
        let mut draw = Draw(seed);
        let (at, bytes, _) = targets[draw.below(targets.len())];
        let mut damaged = file.clone();
        damage(&mut damaged[at..at + bytes.min(bytes_of_page)], &mut draw);
        let what = format!("{kind:?} at {at}, seed {seed}");
        let lost = outlive(&damaged, &what);
        assert!(lost <= lost_max, "{what}: {lost} are lost");
    }
}

/// The rows of one leaf.
const ROWS_OF_A_LEAF: u64 = 16;

#[test]
fn a_damaged_branch_loses_nothing_that_stands_below_it() {
    aimed(Kind::Branch, usize::MAX, 0);
    aimed(Kind::Branch, 16, 0);
}

#[test]
fn a_damaged_leaf_loses_no_more_than_its_rows() {
    aimed(Kind::Leaf, usize::MAX, ROWS_OF_A_LEAF);
    aimed(Kind::Leaf, 4, 0);
    aimed(Kind::Leaf, 80, ROWS_OF_A_LEAF);
}

#[test]
fn where_the_tables_begin_is_found_again() {
    aimed(Kind::Tables, usize::MAX, 0);
}

#[test]
fn what_redb_keeps_for_itself_is_made_anew() {
    aimed(Kind::System, usize::MAX, 0);
}

#[test]
fn a_damaged_head_loses_nothing() {
    let (file, _) = &*LARGE;
    for seed in 0..4 * runs() {
        let mut draw = Draw(seed);
        let mut damaged = file.clone();
        damage(&mut damaged[..HEAD_BYTES], &mut draw);
        assert_eq!(outlive(&damaged, &format!("head, seed {seed}")), 0, "head, seed {seed}");
    }
}

/// No sound page counts as damaged: thousands of changes on a file larger than the cache, with many
/// ends.
#[test]
fn no_sound_page_is_taken_for_a_damaged_one() {
    let (_dir, database, backups) = place();
    put_file(&database, &LARGE.0, &LARGE.1);
    let mut draw = Draw(7);
    let mut next = MESSAGES + 1;
    for round in 0..runs() {
        let mut store = open(&database, &backups).unwrap();
        for _ in 0..30 {
            let mut changes = Vec::new();
            for _ in 0..1 + draw.below(40) {
                let mut sent = send(next, &[3, 4 + draw.next() % 30]);
                if let Change::PutMessage(message) = &mut sent[0] {
                    message.text = "y".repeat(draw.below(9_000));
                }
                if draw.below(50) == 0
                    && let Change::PutMessage(message) = &mut sent[0]
                {
                    message.text = "z".repeat(64 * 1024);
                }
                changes.extend(sent);
                changes.push(moved(next, 3, Stage::Stored, Stage::Presented));
                next += 1;
            }
            let purged = 1 + draw.next() % (MESSAGES - WAITING);
            if store.snapshot().unwrap().message(id(purged)).unwrap().is_some() {
                changes.push(Change::RemoveMessage(id(purged)));
            }
            store.commit(&changes).unwrap();
            if draw.below(4) == 0 {
                store.checkpoint(None).unwrap();
            }
            for _ in 0..20 {
                store.snapshot().unwrap().stored(id(1 + draw.next() % next)).unwrap();
            }
        }
        let mut walk = Walk::default();
        while store.read_on(&mut walk).unwrap() {}
        assert_eq!(store.take_damage(), Vec::<RecordName>::new(), "round {round}");
        if round.is_multiple_of(2) {
            // As after a kill.
            let killed = std::fs::read(&database).unwrap();
            let note = std::fs::read(witness::path_of(&database)).unwrap();
            drop(store);
            put_file(&database, &killed, &note);
        }
    }
    assert!(!backups.exists(), "nothing was salvaged");
}

/// The bytes that redb gets of a page if the disk changed after the start.
#[test]
fn a_page_that_changes_while_it_is_in_use_is_made_readable_or_not_read() {
    let (_dir, database, backups) = place();
    put_file(&database, &LARGE.0, &LARGE.1);
    let disk = std::fs::OpenOptions::new().read(true).write(true).open(&database).unwrap();
    let (staged, stage) = StagedFile::new(disk.try_clone().unwrap()).unwrap();
    stage.carry_out().unwrap();
    let read = |at: u64, out: &mut [u8]| disk.read_exact_at(out, at);
    let known = survey::survey(&read, LARGE.0.len() as u64).unwrap().known;
    let damage = Damage::default();
    let (guarded, _watch) = GuardedFile::new(staged, known, damage.clone());
    let shape = schema::SHAPES[2].1;
    // A leaf of messages in the middle, and the branch that names it.
    let leaves = |page: &[u8]| {
        page[0] == LEAF
            && format::rows(page, &shape)
                .is_some_and(|rows| rows.len() > 4 && rows[0].0.len() == 16)
    };
    let of = |kind: Kind| {
        pages(&LARGE.0)
            .into_iter()
            .filter(move |(_, bytes, is)| *is == kind && *bytes == PAGE_BYTES)
    };
    let is_message = |at: usize| {
        survey::locate(&read, LARGE.0.len() as u64, at as u64)
            .unwrap()
            .is_some_and(|found| found.shape == shape)
    };
    let (at, ..) = of(Kind::Leaf)
        .filter(|(at, bytes, _)| leaves(&LARGE.0[*at..at + bytes]))
        .find(|(at, ..)| is_message(*at))
        .unwrap();
    let sound = LARGE.0[at..at + PAGE_BYTES].to_vec();
    let seen = |change: &dyn Fn(&mut [u8])| {
        let mut page = sound.clone();
        change(&mut page);
        disk.write_all_at(&page, at as u64).unwrap();
        let mut out = vec![0; PAGE_BYTES];
        guarded.read(at as u64, &mut out).map(|()| out)
    };
    for written in [false, true] {
        assert_eq!(seen(&|_| {}).unwrap(), sound);
        assert_eq!(damage.has(&RecordName::Page(at as u64)), written);
        // One wrong word of the layout is corrected.
        assert_eq!(
            format::rows(&seen(&|page| page[2] ^= 1).unwrap(), &shape),
            format::rows(&sound, &shape)
        );
        assert_eq!(
            format::rows(&seen(&|page| page[0] = 7).unwrap(), &shape),
            format::rows(&sound, &shape)
        );
        assert_eq!(
            format::rows(&seen(&|page| page[9] ^= 2).unwrap(), &shape),
            format::rows(&sound, &shape)
        );
        // A key out of order hides no other row.
        let keys = format::leaf_keys(format::count(&sound), &shape);
        let seen_rows = seen(&|page| page[keys + 16..keys + 32].fill(0xff)).unwrap();
        let (mut left, seen_rows) =
            (format::rows(&sound, &shape).unwrap(), format::rows(&seen_rows, &shape).unwrap());
        left.remove(1);
        assert_eq!(seen_rows, left);
        // If nothing is left, the page has one row that is no record.
        let nothing = seen(&|page| page.fill(0)).unwrap();
        assert_eq!(format::rows(&nothing, &shape).map(|rows| rows.len()), Some(1));
        assert!(damage.has(&RecordName::Page(at as u64)));
        if !written {
            guarded.write(at as u64, &sound).unwrap();
        }
    }
    let (at, ..) = of(Kind::Branch).next().unwrap();
    disk.write_all_at(&[0xee; 64], at as u64 + 40).unwrap();
    let error = guarded.read(at as u64, &mut vec![0; PAGE_BYTES]).unwrap_err();
    assert!(error.to_string().contains(&format!("byte {at}")), "{error}");
    drop((guarded, backups));
}

/// With the limit that users have, and long texts.
#[test]
fn a_damaged_branch_is_told_before_the_start_and_the_damaged_file_is_kept() {
    let (_dir, database, backups) = place();
    let mut store = Store::open(&database, &backups).unwrap();
    store.commit(&[Change::PutPeer(Box::new(peer(3))), Change::PutNextPeer(PeerId(4))]).unwrap();
    for some in (1..=280).collect::<Vec<u64>>().chunks(40) {
        let long = |n: &u64| {
            let mut sent = send(*n, &[3]);
            if let Change::PutMessage(message) = &mut sent[0] {
                message.text = format!("{n} ").repeat(60 * 1024 / format!("{n} ").len());
            }
            sent
        };
        store.commit(&some.iter().flat_map(long).collect::<Vec<_>>()).unwrap();
    }
    drop(store);
    let mut damaged = std::fs::read(&database).unwrap();
    assert!(damaged.len() as u64 > CHECKED_AT_OPEN_BYTES_MAX, "{}", damaged.len());
    assert!(Store::verify(&database).unwrap().is_sound());
    let (branch, ..) = pages(&damaged).into_iter().find(|(_, _, is)| *is == Kind::Branch).unwrap();
    // The place of the first child: it is found by its checksum.
    let children = usize::from(u16::from_le_bytes([damaged[branch + 2], damaged[branch + 3]])) + 1;
    damaged[branch + 8 + 16 * children] ^= 1;
    std::fs::write(&database, &damaged).unwrap();

    let report = Store::verify(&database).unwrap();
    assert_eq!(
        (report.problems, report.messages, report.pending),
        (vec![Problem::Unreadable(RecordName::Page(branch as u64))], 280, 280)
    );
    assert!(std::fs::read(&database).unwrap() == damaged, "looking at it changes nothing");
    let error = Store::open_for_reading(&database).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");

    let store = Store::open(&database, &backups).unwrap();
    assert_eq!(store.take_damage(), [RecordName::Page(branch as u64)]);
    assert_eq!(store.snapshot().and_then(Snapshot::image).unwrap().pending.len(), 280);
    assert_eq!(
        store.snapshot().unwrap().message(id(280)).unwrap().map(|message| message.text.len()),
        Some(60 * 1024)
    );
    drop(store);
    assert!(Store::verify(&database).unwrap().is_sound());
    let kept: Vec<_> =
        std::fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(kept.len() == 1 && std::fs::read(&kept[0]).unwrap() == damaged, "{kept:?}");
    assert_eq!(std::fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o7777, 0o600);
}
