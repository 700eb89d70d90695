//! The file on the disk: its owner, the files that are refused and stay unchanged, and migrations.

use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use peer_core::shared::SharedKey;
use peer_core::step::Change;
use peer_proto::ids::{PeerId, TaskId};
use peer_proto::message::Stage;
use redb::{Database, ReadableTable, StorageBackend, WriteTransaction};

use super::super::error::{Doing, WRITE};
use super::super::migrate::{Migration, STEPS};
use super::super::{
    CACHE_BYTES, CHECKED_AT_OPEN_BYTES_MAX, OpenError, Problem, RecordName, SCHEMA_VERSION,
    Snapshot, Span, Store, StoreError, VerifyReport, record, schema,
};
use super::crash_disk::{CrashDisk, Draw};
use super::{
    channel, contents, delivery, filled, id, new_store, open_error, peer, place, put, send, task,
};

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
    let mut names: Vec<_> = std::fs::read_dir(database.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["peers.redb", "peers.redb.last"], "nothing else is left");
}

/// It holds more than the cache, because cached data can be read even from a closed database.
/// redb's own checks in a build for tests fill the cache.
#[test]
fn a_snapshot_reads_on_where_nothing_else_holds_the_database() {
    let (_dir, database, backups) = place();
    let mut store = Store::open(&database, &backups).unwrap();
    let long = "x".repeat(64 * 1024);
    let count = 2 * CACHE_BYTES as u64 / long.len() as u64;
    for n in 1..=count {
        let mut sent = send(n, &[3]);
        for change in &mut sent {
            if let Change::PutMessage(message) = change {
                message.text.clone_from(&long);
            }
        }
        store.commit(&sent).unwrap();
    }
    drop(store);
    let snapshot = Store::open_for_reading(&database).unwrap().take().unwrap();
    let mut seen = 0;
    let mut span = Span { oldest_first: true, ..Span::default() };
    loop {
        let next = snapshot.scan(span, usize::MAX, |message| {
            seen += u64::from(message.text == long);
            ControlFlow::Continue(())
        });
        span.after = next.unwrap();
        if span.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, count);
}

#[test]
fn a_creation_that_was_killed_does_not_matter() {
    let (_dir, database, backups) = place();
    std::fs::write(database.with_extension("redb.new"), b"half a database").unwrap();
    Store::open(&database, &backups).unwrap().commit(&send(1, &[3])).unwrap();
    assert_eq!(
        Store::open(&database, &backups)
            .unwrap()
            .snapshot()
            .and_then(Snapshot::image)
            .unwrap()
            .messages,
        1
    );
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
    assert!(error.hint().contains("chmod 600"), "{error}");
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

#[test]
fn a_damaged_file_is_refused_by_name_and_left_as_it_is() {
    let (_dir, database, backups) = place();
    filled(&database, &backups);
    let sound = std::fs::read(&database).unwrap();
    let refused = |damaged: &[u8], what: &str| {
        std::fs::write(&database, damaged).unwrap();
        let error = open_error(Store::open(&database, &backups));
        assert!(
            matches!(
                error,
                OpenError::Damaged { .. } | OpenError::NoDatabase { .. } | OpenError::Empty { .. }
            ),
            "{what}: {error:?}"
        );
        assert!(error.to_string().contains("peers.redb"), "{what}: {error}");
        assert!(error.hint().contains("in its place"), "{what}: {error}");
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

    // If a record's text is changed anywhere, the checksum of its page shows it.
    let text = b"text 42";
    let mut damaged = sound.clone();
    // Pages of earlier commits may still hold it too, and nobody reads those.
    for (at, _) in sound.windows(text.len()).enumerate().filter(|(_, window)| *window == text) {
        damaged[at + 5] ^= 1;
    }
    refused(&damaged, "one bit of a text");

    // The newest commit alone: going back to the one before would silently lose it.
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
            Ok(store) => {
                assert_eq!(contents(&store), before, "seed {seed}: a free page, or nothing at all")
            }
            Err(error) => {
                assert!(
                    matches!(error, OpenError::Damaged { .. } | OpenError::NoDatabase { .. }),
                    "seed {seed}: {error:?}"
                );
                assert_eq!(
                    std::fs::read(&database).unwrap(),
                    damaged,
                    "seed {seed}: the file was changed"
                );
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

/// Returns the existing steps, and these.
fn steps(more: &[Migration]) -> Vec<Migration> {
    [STEPS, more].concat()
}

fn failing_step(writing: &WriteTransaction) -> Result<(), StoreError> {
    noting_step(writing)?;
    Err(StoreError::Failed)
}

fn runs(store: &Store) -> u8 {
    let meta = store.snapshot().unwrap().reading().open_table(schema::META).unwrap();
    meta.get("runs").unwrap().map_or(0, |bytes| bytes.value()[0])
}

fn backups_in(backups: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        std::fs::read_dir(backups).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn an_older_schema_is_migrated_after_a_copy_was_made_and_checked() {
    let (_dir, database, backups) = place();
    filled(&database, &backups);
    let (old, before) =
        (std::fs::read(&database).unwrap(), contents(&Store::open(&database, &backups).unwrap()));
    std::fs::write(&database, &old).unwrap();

    let store = Store::open_with(
        &database,
        &backups,
        &steps(&[noting_step, noting_step]),
        CHECKED_AT_OPEN_BYTES_MAX,
    )
    .unwrap();
    assert_eq!((runs(&store), contents(&store)), (2, before));
    drop(store);
    let copies = backups_in(&backups);
    assert_eq!(copies.len(), 1);
    assert!(
        copies[0]
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(&format!("peers-v{SCHEMA_VERSION}-"))
    );
    assert_eq!(std::fs::metadata(&copies[0]).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read(&copies[0]).unwrap(), old, "the copy is the file from before");

    // The next step alone, from the file's current version. Then none.
    assert_eq!(
        runs(
            &Store::open_with(
                &database,
                &backups,
                &steps(&[noting_step, noting_step, noting_step]),
                CHECKED_AT_OPEN_BYTES_MAX
            )
            .unwrap()
        ),
        3
    );
    assert_eq!(
        runs(
            &Store::open_with(
                &database,
                &backups,
                &steps(&[noting_step, noting_step, noting_step]),
                CHECKED_AT_OPEN_BYTES_MAX
            )
            .unwrap()
        ),
        3
    );
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
    let mut bytes = vec![0; killed.len().unwrap() as usize];
    killed.read(0, &mut bytes).unwrap();
    std::fs::write(&database, &bytes).unwrap();
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o600)).unwrap();

    let report = Store::verify(&database).unwrap();
    assert!(report.is_sound() && !report.closed_cleanly && report.messages == 1, "{report:?}");
    assert_eq!(std::fs::read(&database).unwrap(), bytes, "looking at it repairs nothing");
    assert_eq!(
        runs(
            &Store::open_with(
                &database,
                &backups,
                &steps(&[noting_step]),
                CHECKED_AT_OPEN_BYTES_MAX
            )
            .unwrap()
        ),
        1
    );
    assert_eq!(std::fs::read(&backups_in(&backups)[0]).unwrap(), bytes);
}

#[test]
fn a_failed_migration_leaves_the_schema_where_it_was() {
    let (_dir, database, backups) = place();
    filled(&database, &backups);
    let error = open_error(Store::open_with(
        &database,
        &backups,
        &steps(&[noting_step, failing_step]),
        CHECKED_AT_OPEN_BYTES_MAX,
    ));
    assert!(
        matches!(error, OpenError::Migration { from, .. } if from == SCHEMA_VERSION + 1),
        "{error:?}"
    );
    assert_eq!(
        runs(
            &Store::open_with(
                &database,
                &backups,
                &steps(&[noting_step]),
                CHECKED_AT_OPEN_BYTES_MAX
            )
            .unwrap()
        ),
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
    assert!(matches!(
        open_error(Store::open_with(
            &database,
            &backups,
            &steps(&[noting_step]),
            CHECKED_AT_OPEN_BYTES_MAX
        )),
        OpenError::Backup { .. }
    ));
    assert_eq!(std::fs::read(&database).unwrap(), before);
}

#[test]
fn a_newer_schema_is_refused_with_both_versions_and_left_as_it_is() {
    let (_dir, database, backups) = place();
    drop(
        Store::open_with(&database, &backups, &steps(&[noting_step]), CHECKED_AT_OPEN_BYTES_MAX)
            .unwrap(),
    );
    let before = std::fs::read(&database).unwrap();
    let error = open_error(Store::open(&database, &backups));
    let OpenError::Newer { found, known, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*found, *known), (SCHEMA_VERSION + 1, SCHEMA_VERSION));
    let text = format!("{error}; {}", error.hint());
    let executable = std::env::current_exe().unwrap();
    let (newer, known) =
        (format!("schema {}", SCHEMA_VERSION + 1), format!("up to {SCHEMA_VERSION}"));
    for part in [&newer, &known, env!("CARGO_PKG_VERSION"), "install", executable.to_str().unwrap()]
    {
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
        messages: 53,
        pending: 51,
        dead: 1,
        expired: 1,
        settled: 1,
        idempotency_keys: 53,
        channels: 1,
        questions: 1,
        tasks: 1,
        notes: 1,
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
    store.commit(&send(2, &[1, 8])).unwrap();
    store
        .commit(&[Change::PutIdempotencyKey { sender: PeerId(3), key: "k".into(), message: id(7) }])
        .unwrap();
    let writing = store.snapshots.database.begin_write().unwrap();
    writing
        .open_table(schema::SETTLED)
        .unwrap()
        .insert((id(2).to_u128(), 3), [9u8].as_slice())
        .unwrap();
    let misplaced =
        record::encode(&RecordName::Delivery(id(2), PeerId(4)), &delivery(2, 4, Stage::Dead))
            .unwrap();
    writing
        .open_table(schema::EXPIRED)
        .unwrap()
        .insert((id(2).to_u128(), 4), misplaced.as_slice())
        .unwrap();
    writing
        .open_table(schema::META)
        .unwrap()
        .insert(schema::META_SETTINGS, [9u8].as_slice())
        .unwrap();
    writing
        .open_table(schema::META)
        .unwrap()
        .insert(schema::META_PAUSES, [9u8].as_slice())
        .unwrap();
    let task =
        record::encode(&RecordName::SharedRecord(SharedKey::Task(TaskId(4))), &task(4)).unwrap();
    writing.open_table(schema::TASKS).unwrap().insert(4, task.as_slice()).unwrap();
    writing.open_table(schema::TASKS).unwrap().insert(5, task.as_slice()).unwrap();
    writing
        .open_table(schema::META)
        .unwrap()
        .insert(
            schema::META_NEXT_TASK,
            record::encode(&RecordName::NextTask, &5u64).unwrap().as_slice(),
        )
        .unwrap();
    writing
        .open_table(schema::NOTES)
        .unwrap()
        .insert(b"lost".as_slice(), [9u8].as_slice())
        .unwrap();
    let channel =
        record::encode(&RecordName::SharedRecord(SharedKey::Channel("#ops".into())), &channel())
            .unwrap();
    writing
        .open_table(schema::CHANNELS)
        .unwrap()
        .insert(b"#ops".as_slice(), channel.as_slice())
        .unwrap();
    writing
        .open_table(schema::CHANNELS)
        .unwrap()
        .insert(b"#Ops".as_slice(), channel.as_slice())
        .unwrap();
    writing
        .open_table(schema::QUESTIONS)
        .unwrap()
        .insert(id(9).to_u128(), [9u8].as_slice())
        .unwrap();
    writing.commit().unwrap();
    drop(store);
    let report = Store::verify(&database).unwrap();
    let expected = [
        Problem::PeerIdNotReserved(PeerId(3)),
        Problem::NoMessage(RecordName::Delivery(id(1), PeerId(3))),
        Problem::NoPeer(RecordName::Delivery(id(2), PeerId(8))),
        Problem::Misplaced(RecordName::Delivery(id(2), PeerId(4))),
        Problem::Unreadable(RecordName::Delivery(id(2), PeerId(3))),
        Problem::KeyWithoutMessage(PeerId(3), id(7)),
        Problem::Unreadable(RecordName::Settings),
        Problem::Unreadable(RecordName::Pauses),
        Problem::Misplaced(RecordName::SharedRecord(SharedKey::Channel("#Ops".into()))),
        Problem::Unreadable(RecordName::SharedRecord(SharedKey::Question(id(9)))),
        Problem::Unreadable(RecordName::SharedRecord(SharedKey::Task(TaskId(5)))),
        Problem::Unreadable(RecordName::SharedRecord(SharedKey::Note("lost".into()))),
        Problem::TaskIdNotReserved(TaskId(5)),
    ];
    assert_eq!(report.problems, expected);
    assert!(!report.is_sound());
}
