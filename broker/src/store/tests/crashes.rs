//! Power cuts and disk failures at every operation of a short life. A commit that returned is
//! there. A commit that did not return is there whole, or not at all.

use super::super::{Snapshot, StoreError, open_database};
use super::crash_disk::{CrashDisk, Draw, Fault};
use super::{Contents, ENOSPC, contents, id, life, live, new_store, reopen, send};

const EIO: i32 = 5;

/// Returns the contents before the life and after each of its acts, and its number of disk
/// operations.
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

/// Lives on a disk with this fault, until the first error. Returns the disk after the fault, how
/// many acts returned, and the error.
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
        assert!(matches!(store.checkpoint(None), Err(StoreError::Failed)));
        assert!(matches!(store.snapshot().and_then(Snapshot::image), Err(StoreError::Failed)));
    }
    drop(store);
    (disk, returned, failure)
}

/// Checks that returned acts are there, that others are there whole or not at all, and that the
/// store continues.
fn assert_whole(history: &[Contents], returned: usize, disk: CrashDisk, what: &str) {
    let (mut store, _) = reopen(disk);
    let found = contents(&store);
    let may_be = &history[returned..(returned + 2).min(history.len())];
    assert!(may_be.contains(&found), "{what}: {found:#?}");
    store.commit(&send(9, &[3])).unwrap();
    assert_eq!(
        store.snapshot().unwrap().stored(id(9)).unwrap().unwrap().deliveries.len(),
        1,
        "{what}"
    );
    store.current.take();
    assert!(
        std::sync::Arc::get_mut(&mut store.snapshots.database).unwrap().check_integrity().unwrap(),
        "{what}"
    );
}

#[test]
fn a_power_cut_anywhere_leaves_each_commit_whole_or_absent() {
    let (history, operations) = undisturbed_life();
    for cut_at in 1..=operations {
        let (disk, returned, failure) = disturbed_life(Fault::PowerCutAt(cut_at));
        assert!(failure.is_some(), "operation {cut_at} was not reached");
        for seed in 0..2 {
            let what = format!("power cut at operation {cut_at}, seed {seed}");
            let survivor = disk.after_power_cut(seed);
            // And once more, during the repair.
            let mut draw = Draw(seed ^ cut_at as u64);
            survivor.fail(Fault::PowerCutAt(1 + draw.below(12)));
            if let Ok((database, _)) = open_database(survivor.clone()) {
                drop(database);
            }
            assert_whole(
                &history,
                returned,
                survivor.after_power_cut(draw.next()),
                &format!("{what}, cut twice"),
            );
            assert_whole(&history, returned, disk.after_power_cut(seed), &what);
        }
    }
}

#[test]
fn a_failed_write_or_sync_ends_the_store_and_loses_nothing() {
    let (history, operations) = undisturbed_life();
    for at in 1..=operations {
        for fault in [Fault::FailsOnceAt(at, EIO), Fault::FailsFrom(at, ENOSPC)] {
            let (disk, returned, failure) = disturbed_life(fault);
            let Some(error) = failure else { panic!("{fault:?} went unnoticed") };
            assert_eq!(
                error.is_no_space(),
                fault == Fault::FailsFrom(at, ENOSPC),
                "{fault:?}: {error:?}"
            );
            assert_whole(&history, returned, disk.after_kill(), &format!("{fault:?}, killed"));
            let seed = at as u64;
            assert_whole(
                &history,
                returned,
                disk.after_power_cut(seed),
                &format!("{fault:?}, power cut, seed {seed}"),
            );
        }
    }
}

#[test]
fn a_kill_after_a_checkpoint_needs_no_walk_through_the_file() {
    let disk = CrashDisk::new();
    let mut store = new_store(disk.clone());
    store.commit(&send(1, &[3])).unwrap();
    assert!(reopen(disk.after_kill()).1, "without a checkpoint it does");
    store.checkpoint(None).unwrap();
    assert!(!reopen(disk.after_kill()).1);
    let (operations, killed) = (disk.operations(), disk.after_kill());
    store.checkpoint(None).unwrap();
    store.commit(&[]).unwrap();
    assert_eq!(disk.operations(), operations, "nothing new, nothing written");
    drop(store);

    // If a process reopens a checkpointed file and is killed at once, the file is as quick to open.
    let (store, _) = reopen(killed.clone());
    let killed_again = killed.after_kill();
    drop(store);
    assert!(!reopen(killed_again).1);
}
