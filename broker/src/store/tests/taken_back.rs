//! The last commit is in the file, or the start reports that it is not.

use std::path::Path;

use peer_core::step::Change;
use peer_proto::ids::PeerId;
use peer_proto::policy::Policy;

use super::super::{Problem, RecordName, Snapshot, Store, witness};
use super::crash_disk::Draw;
use super::{peer, place, send, settings};

/// Returns a database that was killed after its last commit, which set a policy, and the file
/// beside it.
fn killed(database: &Path, backups: &Path) -> (Vec<u8>, Vec<u8>) {
    let mut store = Store::open(database, backups).unwrap();
    store.commit(&[Change::PutPeer(Box::new(peer(3))), Change::PutNextPeer(PeerId(4))]).unwrap();
    store.commit(&send(1, &[3])).unwrap();
    store.checkpoint(None).unwrap();
    store.commit(&send(2, &[3])).unwrap();
    store.commit(&[Change::PutSettings(settings(Policy::Hold))]).unwrap();
    let image = std::fs::read(database).unwrap();
    let note = std::fs::read(witness::path_of(database)).unwrap();
    drop(store);
    (image, note)
}

fn put(database: &Path, image: &[u8], note: &[u8]) {
    std::fs::write(database, image).unwrap();
    std::fs::write(witness::path_of(database), note).unwrap();
}

#[test]
fn a_kill_and_a_clean_end_take_nothing_back() {
    let (_dir, database, backups) = place();
    let (image, note) = killed(&database, &backups);
    for _ in 0..2 {
        let mut store = Store::open(&database, &backups).unwrap();
        assert_eq!(store.take_damage(), []);
        store.commit(&[Change::PutSettings(settings(Policy::Refuse))]).unwrap();
        store.checkpoint(None).unwrap();
        drop(store);
        assert!(Store::verify(&database).unwrap().is_sound());
    }
    put(&database, &image, &note);
    assert!(Store::verify(&database).unwrap().is_sound());
    let store = Store::open(&database, &backups).unwrap();
    assert_eq!(
        (store.take_damage(), store.snapshot().and_then(Snapshot::image).unwrap().settings),
        (vec![], settings(Policy::Hold))
    );
}

/// The record is not synced: a power cut may leave one of an earlier commit, or none.
#[test]
fn a_note_that_is_older_or_lost_says_nothing() {
    let (_dir, database, backups) = place();
    drop(Store::open(&database, &backups).unwrap());
    let old = std::fs::read(witness::path_of(&database)).unwrap();
    let (image, note) = killed(&database, &backups);
    for note in [&old[..], b"", &note[..20], &[0; 44]] {
        put(&database, &image, note);
        assert!(Store::verify(&database).unwrap().is_sound());
        assert_eq!(Store::open(&database, &backups).unwrap().take_damage(), []);
    }
}

#[test]
fn a_wrong_bit_that_takes_the_last_commit_back_is_said_at_the_start() {
    let (_dir, database, backups) = place();
    let (image, note) = killed(&database, &backups);
    let slot = if image[9] & 1 == 0 { 64 } else { 192 };
    let (mut said, mut refused) = (0, 0);
    for bit in (0..128 * 8).step_by(5) {
        let mut damaged = image.clone();
        damaged[slot + bit / 8] ^= 1 << (bit % 8);
        put(&database, &damaged, &note);
        let report = Store::verify(&database);
        match Store::open(&database, &backups) {
            Ok(store) => {
                let lost = store.snapshot().and_then(Snapshot::image).unwrap().settings
                    != settings(Policy::Hold);
                assert_eq!(
                    store.take_damage() == [RecordName::LastCommit],
                    lost,
                    "bit {bit} of the slot"
                );
                let problems = report.unwrap().problems;
                assert_eq!(
                    problems == [Problem::TakenBack],
                    lost,
                    "bit {bit} of the slot: {problems:?}"
                );
                said += usize::from(lost);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(said > 20, "{said} were said, and {refused} refused");
}

/// Wrong bits anywhere in the file: a loss is reported, or nothing is lost.
#[test]
fn no_wrong_bit_anywhere_takes_the_last_commit_back_in_silence() {
    let (_dir, database, backups) = place();
    let (image, note) = killed(&database, &backups);
    for seed in 0..60 {
        let mut draw = Draw(seed);
        let mut damaged = image.clone();
        let at = draw.below(damaged.len());
        damaged[at] ^= 1 << draw.below(8);
        put(&database, &damaged, &note);
        let Ok(store) = Store::open(&database, &backups) else { continue };
        let lost =
            store.snapshot().and_then(Snapshot::image).unwrap().settings != settings(Policy::Hold);
        assert!(!lost || store.damaged() > 0, "seed {seed}");
    }
}
