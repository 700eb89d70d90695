//! Stores of earlier schemas, as the programs of their time wrote them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use peer_core::record::PeerRecord;
use peer_proto::ids::PeerId;
use redb::{Database, ReadableTable};

use super::super::{RecordName, SCHEMA_VERSION, Store, record, schema};
use super::crash_disk::CrashDisk;
use super::{contents, life, live, new_store, open_error, peer, place, send};
use crate::store::OpenError;

/// A store of schema 1, closed, after [`life`] and one more send: each kind of record is in it.
const VERSION_1: &[u8] = include_bytes!("version_1.redb");

fn write_version_1(database: &Path) {
    std::fs::write(database, VERSION_1).unwrap();
    std::fs::set_permissions(database, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_store_of_schema_1_with_every_kind_of_record_reads_the_same_after_its_migration() {
    let mut fresh = new_store(CrashDisk::new());
    for act in life() {
        live(&mut fresh, &act).unwrap();
    }
    fresh.commit(&send(10, &[3])).unwrap();

    let (_dir, database, backups) = place();
    write_version_1(&database);
    let mut store = Store::open(&database, &backups).unwrap();
    assert_eq!(contents(&store), contents(&fresh));
    let rows = |store: &Store| store.snapshot().unwrap().reindex_after(0, 100).unwrap();
    assert_eq!(rows(&store), rows(&fresh));
    let copies: Vec<_> =
        std::fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(copies.len(), 1);
    assert_eq!(std::fs::read(&copies[0]).unwrap(), VERSION_1, "the copy is the file from before");

    store.commit(&send(11, &[3])).unwrap();
    drop(store);
    let report = Store::verify(&database).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.schema, SCHEMA_VERSION);
    drop(Store::open(&database, &backups).unwrap());
    assert_eq!(std::fs::read_dir(&backups).unwrap().count(), 1, "it is migrated once");
}

/// A store of schema 2, closed: as [`VERSION_1`], and messages in a private channel (20), a public
/// one (24), a group (23) and one that is gone (22), with replies to the first (21, and 26 to that)
/// and the second (25).
const VERSION_2: &[u8] = include_bytes!("version_2.redb");

#[test]
fn a_store_of_schema_2_reads_the_same_after_its_migration_and_knows_what_is_private() {
    let (_dir, database, backups) = place();
    std::fs::write(&database, VERSION_2).unwrap();
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o600)).unwrap();
    let store = Store::open(&database, &backups).unwrap();
    let mut fresh = new_store(CrashDisk::new());
    for act in life() {
        live(&mut fresh, &act).unwrap();
    }
    fresh.commit(&send(10, &[3])).unwrap();

    let (found, expected) = (contents(&store), contents(&fresh));
    // The newest come first.
    let (said, messages) = found.messages.split_at(found.messages.len() - expected.messages.len());
    assert_eq!(messages, expected.messages);
    assert_eq!(found.orphans, expected.orphans);
    assert_eq!(found.notes, expected.notes);
    let (found_image, image) = (found.image, expected.image);
    assert_eq!(
        (found_image.peers, found_image.settings, found_image.pauses, found_image.shared.tasks),
        (image.peers, image.settings, image.pauses, image.shared.tasks)
    );
    let private: Vec<(u64, bool)> =
        said.iter().rev().zip(20..).map(|(message, n)| (n, message.head.private)).collect();
    assert_eq!(
        private,
        [(20, true), (21, true), (22, true), (23, false), (24, false), (25, false), (26, true)]
    );
    for stored in &found.stored {
        assert!(
            stored.deliveries.iter().all(|delivery| delivery.brief.private == stored.head.private),
            "{stored:?}"
        );
    }
    drop(store);
    let report = Store::verify(&database).unwrap();
    assert!(report.is_sound() && report.schema == SCHEMA_VERSION, "{report:?}");
    assert_eq!(
        std::fs::read(std::fs::read_dir(&backups).unwrap().next().unwrap().unwrap().path())
            .unwrap(),
        VERSION_2
    );
}

/// A store of schema 3, closed: as [`VERSION_2`], brought to schema 3.
const VERSION_3: &[u8] = include_bytes!("version_3.redb");

#[test]
fn a_store_of_schema_3_reads_the_same_after_its_migration_and_has_no_links() {
    let read = |bytes: &[u8]| {
        let (_dir, database, backups) = place();
        std::fs::write(&database, bytes).unwrap();
        std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o600)).unwrap();
        let store = Store::open(&database, &backups).unwrap();
        let found = contents(&store);
        drop(store);
        let report = Store::verify(&database).unwrap();
        assert!(report.is_sound() && report.schema == SCHEMA_VERSION, "{report:?}");
        let copy = std::fs::read_dir(&backups).unwrap().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read(copy).unwrap(), bytes, "the copy is the file from before");
        found
    };
    let found = read(VERSION_3);
    assert_eq!(found, read(VERSION_2));
    assert_eq!(found.image.links, peer_core::record::LinksImage::default());
    assert!(found.image.peers.iter().all(|peer| peer.home.is_none() && !peer.hidden));
    assert!(found.messages.iter().all(|message| message.head.origin.is_none()));
    assert!(!found.image.pending.is_empty());
}

/// Its last two fields were added while schema 1 was in use.
#[test]
fn a_peer_of_schema_1_without_the_last_fields_is_migrated_too() {
    let (_dir, database, backups) = place();
    write_version_1(&database);
    let old = Database::open(&database).unwrap();
    let writing = old.begin_write().unwrap();
    {
        let mut peers = writing.open_table(schema::PEERS).unwrap();
        let whole = peers.get(3).unwrap().unwrap().value().to_vec();
        // A process of four bytes behind its mark, and none.
        peers.insert(3, &whole[..whole.len() - 6]).unwrap();
        peers.insert(4, [1, 9, 9].as_slice()).unwrap();
    }
    writing.commit().unwrap();
    drop(old);
    let store = Store::open(&database, &backups).unwrap();
    let reading = store.snapshot().unwrap();
    assert_eq!(reading.peer_name(PeerId(3)).unwrap(), Some("calm-fox-3".into()));
    assert_eq!(reading.peer_name(PeerId(4)).unwrap(), None);
    assert_eq!(
        store.take_damage(),
        [RecordName::Peer(PeerId(4))],
        "what could not be read cannot be read now"
    );
    let bytes = store
        .snapshot()
        .unwrap()
        .reading()
        .open_table(schema::PEERS)
        .unwrap()
        .get(3)
        .unwrap()
        .unwrap()
        .value()
        .to_vec();
    let read: PeerRecord = record::decode(&RecordName::Peer(PeerId(3)), &bytes).unwrap();
    assert_eq!(read, PeerRecord { client_process: None, ..peer(3) });
}

#[test]
fn a_damaged_store_of_schema_1_is_refused_and_not_migrated() {
    let (_dir, database, backups) = place();
    let mut damaged = VERSION_1.to_vec();
    let text = b"value 2";
    for (at, _) in VERSION_1.windows(text.len()).enumerate().filter(|(_, window)| *window == text) {
        damaged[at] ^= 1;
    }
    std::fs::write(&database, &damaged).unwrap();
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(open_error(Store::open(&database, &backups)), OpenError::Damaged { .. }));
    assert_eq!(std::fs::read(&database).unwrap(), damaged);
    assert!(!backups.exists());
}

#[test]
fn verify_says_of_a_store_of_schema_1_what_its_migration_makes_of_it() {
    let (dir, database, backups) = place();
    write_version_1(&database);
    let report = Store::verify(&database).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.schema, 1);
    assert_eq!(std::fs::read(&database).unwrap(), VERSION_1, "it changes nothing");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "it leaves nothing");
    let reading = Store::open_for_reading(&database).unwrap().take().unwrap();
    assert_eq!(reading.peer_name(PeerId(3)).unwrap(), Some("calm-fox-3".into()));
    drop(reading);
    drop(Store::open(&database, &backups).unwrap());
    let migrated = Store::verify(&database).unwrap();
    assert!(migrated.is_sound() && migrated.schema == SCHEMA_VERSION, "{migrated:?}");
    assert_eq!((migrated.messages, migrated.pending), (report.messages, report.pending));
}
