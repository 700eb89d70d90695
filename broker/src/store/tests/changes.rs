//! Stored records are found again in the right tables, at a cost that does not grow with history.

use std::ops::ControlFlow;

use peer_core::record::{Image, KeptRecord, LinksImage, ReceiptKey};
use peer_core::step::Change;
use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp};
use peer_proto::limits::TEXT_BYTES_MAX;
use peer_proto::message::Stage;
use peer_proto::policy::Policy;
use peer_proto::request::Position;

use super::super::{Snapshot, Span, Store, StoreError};
use super::crash_disk::CrashDisk;
use super::{
    NOW, contents, delivery, id, link, message, moved, named, new_store, peer, put, reopen, send,
    settings,
};

#[test]
fn links_receipts_and_withdrawn_messages_are_found_again_and_go_with_their_link() {
    let [desk, attic] = [BrokerId([2; 16]), BrokerId([3; 16])];
    let key = |broker, n, peer| ReceiptKey { broker, message: id(n), peer: PeerId(peer) };
    let mut store = new_store(CrashDisk::new());
    store
        .commit(&[
            Change::PutBroker(BrokerId([1; 16])),
            Change::PutLink(Box::new(link(desk, "desk"))),
            Change::PutLink(Box::new(link(attic, "attic"))),
            Change::PutReceipt { key: key(desk, 1, 3), rev: 1 },
            Change::PutReceipt { key: key(desk, 1, 3), rev: 2 },
            Change::PutReceipt { key: key(desk, 2, 3), rev: 1 },
            Change::PutReceipt { key: key(attic, 2, 4), rev: 1 },
            Change::PutWithdrawn { broker: desk, message: id(8) },
            Change::PutWithdrawn { broker: attic, message: id(8) },
            Change::PutWithdrawn { broker: attic, message: id(9) },
        ])
        .unwrap();
    store
        .commit(&[
            Change::RemoveReceipt(key(desk, 2, 3)),
            Change::RemoveWithdrawn { broker: attic, message: id(9) },
        ])
        .unwrap();
    let found = store.snapshot().and_then(Snapshot::image).unwrap().links;
    let expected = LinksImage {
        own: Some(BrokerId([1; 16])),
        links: vec![link(desk, "desk"), link(attic, "attic")],
        receipts: vec![(key(desk, 1, 3), 2), (key(attic, 2, 4), 1)],
        withdrawn: vec![(desk, id(8)), (attic, id(8))],
    };
    assert_eq!(found, expected);
    store.commit(&[Change::RemoveLink(desk)]).unwrap();
    let left = store.snapshot().and_then(Snapshot::image).unwrap().links;
    let expected = LinksImage {
        links: vec![link(attic, "attic")],
        receipts: vec![(key(attic, 2, 4), 1)],
        withdrawn: vec![(attic, id(8))],
        ..expected
    };
    assert_eq!(left, expected);
}

#[test]
fn every_change_is_found_again() {
    let mut store = new_store(CrashDisk::new());
    assert_eq!(store.snapshot().and_then(Snapshot::image).unwrap(), Image::default());

    store
        .commit(&[Change::PutPeer(Box::new(peer(2))), Change::PutPeer(Box::new(peer(3)))])
        .unwrap();
    store.commit(&[Change::PutNextPeer(PeerId(4)), Change::RemovePeer(PeerId(2))]).unwrap();
    store.commit(&send(1, &[3, 2])).unwrap();
    store.commit(&send(2, &[3])).unwrap();
    store
        .commit(&[
            Change::PutSettings(settings(Policy::Hold)),
            Change::PutSettings(settings(Policy::Refuse)),
        ])
        .unwrap();

    let image = store.snapshot().and_then(Snapshot::image).unwrap();
    assert_eq!(image.peers, [peer(3)]);
    assert_eq!(image.next_peer, Some(PeerId(4)));
    assert_eq!(image.last_message, Some(id(2)));
    assert_eq!((image.messages, image.dead), (2, 0));
    assert_eq!(image.settings, settings(Policy::Refuse));
    let expected = [(1, 2), (1, 3), (2, 3)].map(|(n, peer)| delivery(n, peer, Stage::Stored));
    assert_eq!(image.pending, expected, "by message, then recipient");

    assert_eq!(store.snapshot().unwrap().message(id(1)).unwrap(), Some(message(1, &[3, 2])));
    assert_eq!(store.snapshot().unwrap().message(id(9)).unwrap(), None);
    assert_eq!(named(&store, 2, "key-2"), Some(id(2)));
    assert_eq!(named(&store, 3, "key-2"), None, "keys are the sender's own");

    store
        .commit(&[Change::RemoveDelivery { message: id(1), peer: PeerId(2), was: Stage::Stored }])
        .unwrap();
    store.commit(&[put(delivery(1, 7, Stage::Stored), None)]).unwrap();
    let stored = store.snapshot().unwrap().stored(id(1)).unwrap().unwrap();
    assert_eq!(stored.head, message(1, &[3, 2]).head);
    assert_eq!(stored.idempotency_key.as_deref(), Some("key-1"));
    assert_eq!(
        stored.deliveries,
        [3, 7].map(|peer| delivery(1, peer, Stage::Stored)),
        "also where it was moved to"
    );
    assert_eq!(store.snapshot().unwrap().stored(id(9)).unwrap(), None);
}

#[test]
fn a_delivery_stands_in_one_table_whatever_its_stages() {
    use Stage::{Cancelled, Dead, Dropped, Expired, Held, Offered, Presented, Stored};
    let stages = [Stored, Offered, Held, Presented, Expired, Cancelled, Dead, Dropped];
    let mut store = new_store(CrashDisk::new());
    store.commit(&send(1, &[3])).unwrap();
    let mut was = Stored;
    // From each stage to each other one and back, whether or not the rules ever do that.
    for to in
        stages.iter().flat_map(|first| stages.iter().flat_map(move |second| [*first, *second]))
    {
        store.commit(&[moved(1, 3, was, to)]).unwrap();
        was = to;
        let image = store.snapshot().and_then(Snapshot::image).unwrap();
        assert_eq!(
            store.snapshot().unwrap().stored(id(1)).unwrap().unwrap().deliveries,
            [delivery(1, 3, to)]
        );
        assert_eq!(image.pending.len(), usize::from(to.is_pending()), "{to:?}");
        assert_eq!(image.dead, u64::from(to == Dead), "{to:?}");
        let orphans = store.snapshot().unwrap().orphans(None, 9).unwrap();
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
        (
            "removed from nowhere",
            Change::RemoveDelivery { message: id(1), peer: PeerId(4), was: Stage::Stored },
        ),
        (
            "removed from a lease",
            Change::RemoveDelivery { message: id(1), peer: PeerId(3), was: Stage::Leased },
        ),
        ("a second message", Change::PutMessage(Box::new(message(1, &[3])))),
    ];
    for (what, contradiction) in contradictions {
        let disk = CrashDisk::new();
        let mut store = new_store(disk.clone());
        store.commit(&send(1, &[3])).unwrap();
        let before = contents(&store);
        let error = store.commit(&[Change::PutPeer(Box::new(peer(9))), contradiction]).unwrap_err();
        assert!(
            matches!(error, StoreError::Contradiction { .. } | StoreError::MessageExists { .. }),
            "{what}: {error:?}"
        );
        assert!(
            matches!(store.snapshot().and_then(Snapshot::image), Err(StoreError::Failed)),
            "{what}"
        );
        let after = disk.after_kill();
        drop(store);
        assert_eq!(contents(&reopen(after).0), before, "{what}");
    }
}

#[test]
fn all_reads_between_two_commits_are_of_one_snapshot() {
    let mut store = new_store(CrashDisk::new());
    store.commit(&send(1, &[3])).unwrap();
    let beside = store.snapshots().take().unwrap();
    let first: *const Snapshot = store.snapshot().unwrap();
    assert!(store.snapshot().unwrap().message(id(1)).unwrap().is_some());
    assert!(std::ptr::eq(first, store.snapshot().unwrap()) && store.current.get().is_some());
    store.commit(&[moved(1, 3, Stage::Stored, Stage::Presented)]).unwrap();
    assert!(store.current.get().is_none(), "a commit could not reuse the pages that it keeps");
    assert_eq!(
        store.snapshot().unwrap().deliveries(id(1)).unwrap(),
        [delivery(1, 3, Stage::Presented)]
    );
    assert_eq!(
        beside.deliveries(id(1)).unwrap(),
        [delivery(1, 3, Stage::Stored)],
        "another one is of its own time"
    );
    store.checkpoint(None).unwrap();
    assert!(store.current.get().is_none());
}

#[test]
fn history_is_read_backwards_in_pages() {
    let mut store = new_store(CrashDisk::new());
    for n in 1..=9 {
        store.commit(&send(n, &[3])).unwrap();
    }
    let page = |store: &Store, before, since, rows_max, break_at: Option<u64>| {
        let mut seen = Vec::new();
        let next = store.snapshot().unwrap().scan(
            Span { before, since, ..Span::default() },
            rows_max,
            |message| {
                seen.push(message.head.sent_at.0 - NOW);
                if break_at == seen.last().copied() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        );
        (seen, next.unwrap())
    };
    assert_eq!(page(&store, None, None, 4, None), (vec![9, 8, 7, 6], Some(id(6))));
    assert_eq!(page(&store, Some(id(6)), None, 100, None), (vec![5, 4, 3, 2, 1], None));
    assert_eq!(page(&store, None, None, 100, Some(8)), (vec![9, 8], Some(id(8))));
    assert_eq!(page(&store, None, Some(Timestamp(NOW + 7)), 100, None), (vec![9, 8, 7], None));
    assert_eq!(page(&store, Some(id(3)), Some(Timestamp(NOW + 7)), 100, None), (vec![], None));
    assert_eq!(page(&store, Some(id(1)), None, 100, None), (vec![], None));
    assert_eq!(page(&store, Some(MessageId::MIN), None, 100, None), (vec![], None));

    let onwards = |after, before, break_at: Option<u64>| {
        let mut seen = Vec::new();
        let next = store.snapshot().unwrap().scan(
            Span { after, before, oldest_first: true, ..Span::default() },
            100,
            |message| {
                seen.push(message.head.sent_at.0 - NOW);
                if break_at == seen.last().copied() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        );
        (seen, next.unwrap())
    };
    assert_eq!(onwards(Some(MessageId::MIN), None, Some(3)), (vec![1, 2, 3], Some(id(3))));
    assert_eq!(onwards(Some(id(3)), Some(id(6)), None), (vec![4, 5], None));
    assert_eq!(onwards(Some(id(9)), None, None), (vec![], None));
    assert_eq!(onwards(Some(MessageId::MAX), None, None), (vec![], None));

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
        let next =
            store.snapshot().unwrap().scan(Span { before, ..Span::default() }, 5_000, |_| {
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
        store
            .commit(&[
                moved(n, 3, Stage::Stored, stage),
                moved(n, 4, Stage::Stored, Stage::Expired),
            ])
            .unwrap();
    }
    assert_eq!(store.snapshot().and_then(Snapshot::image).unwrap().dead, 3);
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.snapshot().unwrap().orphans(after, 5).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Position { message: last.message, peer: last.peer });
        all.extend(page.iter().map(|orphan| (orphan.message, orphan.peer.0)));
    }
    let expected: Vec<_> = (1..=6).flat_map(|n| [(id(n), 3), (id(n), 4)]).collect();
    assert_eq!(all, expected);
}

#[test]
fn what_was_settled_costs_no_start() {
    let reads_of_load = |settled: u64| {
        let disk = CrashDisk::new();
        let mut store = new_store(disk.clone());
        for batch in 0..settled / 500 {
            let of_batch = batch * 500..(batch + 1) * 500;
            store
                .commit(&of_batch.clone().flat_map(|n| send(n, &[3])).collect::<Vec<_>>())
                .unwrap();
            let presented = of_batch.map(|n| moved(n, 3, Stage::Stored, Stage::Presented));
            store.commit(&presented.collect::<Vec<_>>()).unwrap();
        }
        store.commit(&send(settled, &[3])).unwrap();
        drop(store);
        let disk = disk.after_kill();
        let (store, repaired) = reopen(disk.clone());
        assert!(!repaired, "it was closed cleanly");
        let before = disk.reads();
        let image = store.snapshot().and_then(Snapshot::image).unwrap();
        assert_eq!((image.pending.len(), image.messages), (1, settled + 1));
        disk.reads() - before
    };
    let (few, many) = (reads_of_load(500), reads_of_load(10_000));
    assert!(
        many <= few + 4,
        "{many} reads with 10,000 settled messages, {few} with 500: only a tree's depth may differ"
    );
}

#[test]
fn how_much_is_kept_is_counted_from_where_it_was_written_down() {
    let mut store = new_store(CrashDisk::new());
    for n in 1..=4 {
        store.commit(&send(n, &[3])).unwrap();
    }
    let each = u64::from(message(1, &[3]).head.text_bytes);
    assert_eq!(
        store.snapshot().and_then(Snapshot::image).unwrap().text_bytes,
        4 * each,
        "nothing is written down: all is counted"
    );
    assert_eq!(store.snapshot().and_then(Snapshot::image).unwrap().first_message, Some(id(1)));
    store.checkpoint(Some(&KeptRecord { through: id(3), text_bytes: 1_000 })).unwrap();
    assert_eq!(
        store.snapshot().and_then(Snapshot::image).unwrap().text_bytes,
        1_000 + each,
        "it is believed, and only what came since is counted"
    );
    store
        .commit(&[moved(1, 3, Stage::Stored, Stage::Presented), Change::RemoveMessage(id(1))])
        .unwrap();
    store.commit(&[Change::PutKept(KeptRecord { through: id(4), text_bytes: 3 * each })]).unwrap();
    let image = store.snapshot().and_then(Snapshot::image).unwrap();
    assert_eq!((image.text_bytes, image.messages, image.first_message), (3 * each, 3, Some(id(2))));
}

#[test]
fn the_oldest_are_read_some_at_a_time_and_what_waits_is_not_taken_out() {
    let mut store = new_store(CrashDisk::new());
    for n in 1..=5 {
        store.commit(&send(n, &[3, 7])).unwrap();
    }
    let (rows, next) = store.snapshot().unwrap().stored_after(None, 2).unwrap();
    assert_eq!(rows, [1, 2].map(|n| store.snapshot().unwrap().stored(id(n)).unwrap().unwrap()));
    assert_eq!(next, Some(id(2)));
    let (rows, next) = store.snapshot().unwrap().stored_after(next, 3).unwrap();
    assert_eq!((rows.len(), next), (3, None), "there are no more");
    assert_eq!(store.snapshot().unwrap().stored_after(Some(id(5)), 3).unwrap(), (Vec::new(), None));

    store.commit(&[moved(1, 3, Stage::Stored, Stage::Presented)]).unwrap();
    let refused = store.commit(&[Change::RemoveMessage(id(1))]);
    assert!(
        matches!(refused, Err(StoreError::Contradiction { .. })),
        "one of its readers has not seen it"
    );
}
