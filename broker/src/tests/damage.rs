//! Damaged records of the database: they are left out and reported, and everything else works.

use peer_proto::message::Cause;
use peer_proto::request::{Orphan, ShownDelivery};

use super::*;
use crate::store::tests::rewrite_message;

/// Starts a broker in which luna has sent orion three messages, and orion has seen none; the record
/// of the second is changed while no broker runs.
fn started_with_a_damaged_message(
    change: impl FnOnce(&mut Vec<u8>),
) -> (Running, Registered, [MessageId; 3]) {
    let broker = Running::start();
    let (mut luna, registered) = broker.session("luna");
    let (orion, _) = broker.session("orion");
    drop(orion);
    let ids =
        ["first", "second", "third"].map(|text| message_sent(luna.ask(send_to("orion", text))));
    drop(luna);
    let database = broker.location.database();
    let root = broker.end();
    rewrite_message(&database, ids[1], change);
    (Running::start_in(root, PATIENCE), registered, ids)
}

fn orphans(wire: &mut Wire) -> Vec<Orphan> {
    match wire.ask(Request::Orphans { after: None }) {
        Ok(Reply::Orphans { entries, .. }) => entries,
        other => panic!("no orphans: {other:?}"),
    }
}

/// Returns the texts that are pushed until `count` messages came.
fn delivered(wire: &mut Wire, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        if let Push::Deliver(delivery) = wire.pushed() {
            texts.push(delivery.message.text.clone());
        }
    }
    texts
}

fn assert_the_rest_goes_on(change: impl FnOnce(&mut Vec<u8>)) {
    let (broker, registered, ids) = started_with_a_damaged_message(change);
    let mut person = broker.connect(Role::Operator);
    let (mut orion, _) = broker.session("orion");
    assert_eq!(delivered(&mut orion, 2), ["first", "third"]);

    let (mut luna, _) = broker.resumed("luna", &registered);
    let notice = delivered(&mut luna, 1).remove(0);
    assert!(notice.contains(&ids[1].to_string()) && notice.contains("damaged"), "{notice}");

    let letters = orphans(&mut person);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (letters[0].message, &*letters[0].cause, &*letters[0].from),
        (ids[1], "damaged", "luna")
    );
    assert_eq!(person.status().damaged, 1);
    let refusal = luna.ask(Request::Read(ids[1])).unwrap_err();
    assert!(
        refusal.code == ErrorCode::UnknownMessage && refusal.message.contains("damaged"),
        "{refusal}"
    );
    match luna.ask(Request::Read(ids[2])) {
        Ok(Reply::Text(message)) => assert_eq!(message.text, "third"),
        other => panic!("no text: {other:?}"),
    }
    let log = fs::read_to_string(broker.location.log()).unwrap();
    assert!(
        log.contains(&format!("message {}", ids[1])) && log.contains("damaged in the database"),
        "{log}"
    );

    // A second try ends like the first, and does not stay with its recipient.
    assert!(matches!(person.ask(Request::Requeue(ids[1])), Ok(Reply::Settled { .. })));
    assert_eq!(orphans(&mut person).len(), 1);
    assert!(matches!(person.ask(Request::Drop(ids[1])), Ok(Reply::Settled { .. })));
    assert!(orphans(&mut person).is_empty());

    // Its sender sends it again.
    message_sent(luna.ask(send_to("orion", "second, again")));
    assert_eq!(delivered(&mut orion, 1), ["second, again"]);
}

#[test]
fn a_wrong_byte_in_a_text_makes_it_a_dead_letter_and_its_sender_hears() {
    assert_the_rest_goes_on(|bytes| *bytes.last_mut().unwrap() ^= 1);
}

#[test]
fn a_text_that_is_no_utf_8_any_more_ends_nobodys_connection() {
    assert_the_rest_goes_on(|bytes| *bytes.last_mut().unwrap() = 0xff);
}

#[test]
fn a_message_that_is_cut_or_emptied_is_a_dead_letter() {
    assert_the_rest_goes_on(|bytes| bytes.truncate(20));
    assert_the_rest_goes_on(|bytes| bytes.clear());
}

#[test]
fn a_damaged_message_is_passed_over_in_history() {
    let (broker, _, ids) = started_with_a_damaged_message(|bytes| bytes[9] ^= 0x40);
    let mut person = broker.connect(Role::Operator);
    match person.ask(Request::History(HistoryQuery { limit: 10, ..HistoryQuery::default() })) {
        Ok(Reply::History { messages, next: None }) => {
            assert_eq!(
                messages.iter().map(|shown| shown.message.id).collect::<Vec<_>>(),
                [ids[2], ids[0]]
            );
            let waits = |delivery: &ShownDelivery| {
                delivery.trace.iter().all(|entry| entry.cause != Some(Cause::Damaged))
            };
            assert!(messages.iter().all(|shown| shown.deliveries.iter().all(waits)));
        }
        other => panic!("no history: {other:?}"),
    }
}

/// Bytes of the texts in the test below: the database is then larger than what a start checks.
const LARGE_BYTES: usize = 18 * 1024 * 1024;

/// The text that carries this number: long, and like no other at any byte.
fn numbered_text(number: usize) -> String {
    let mut text = format!("text {number}:");
    let mut state = number as u64 + 1;
    while text.len() < 55_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!("{:08x}", state >> 32));
    }
    text
}

/// Damages one place of a file as a disk may.
fn damage_one_place(bytes: &mut [u8], seed: u64) {
    let mut draw = crate::store::tests::Draw(seed);
    let at = 8_192 + draw.below(bytes.len() - 16_384);
    match seed % 4 {
        0 => bytes[at] ^= 1 << draw.below(8),
        1 => bytes[at] = 0xff,
        2 => bytes[at..at + 1 + draw.below(64)].fill(0),
        _ => (0..1 + draw.below(512)).for_each(|offset| bytes[at + offset] = draw.next() as u8),
    }
}

/// A file that is too large to be checked at the start, with damage in one place each time. No
/// recipient gets a text that was not sent, and the broker answers.
#[test]
fn a_large_database_with_a_damage_gives_out_no_wrong_text_and_answers() {
    let root = tempfile::tempdir().unwrap();
    configure(root.path(), "[limits]\nsender_per_minute = 1000000\npair_per_minute = 1000000\n");
    let broker = Running::start_in(root, PATIENCE);
    drop(broker.session("orion"));
    let mut person = broker.connect(Role::Operator);
    let texts: Vec<String> = (0..LARGE_BYTES / 55_000).map(numbered_text).collect();
    let ids: Vec<MessageId> =
        texts.iter().map(|text| message_sent(person.ask(send_to("orion", text)))).collect();
    drop(person);
    let database = broker.location.database();
    let mut root = broker.end();
    let whole = fs::read(&database).unwrap();
    assert!(whole.len() > 16 * 1024 * 1024, "{}", whole.len());
    let runs = std::env::var("PEERD_DAMAGES").ok().and_then(|runs| runs.parse().ok()).unwrap_or(16);
    let mut lost_in_all = 0;
    for seed in 0..runs {
        let mut damaged = whole.clone();
        damage_one_place(&mut damaged, seed);
        fs::write(&database, &damaged).unwrap();
        let broker = Running::start_in(root, PATIENCE);
        let mut person = broker.connect(Role::Operator);
        let mut lost = 0;
        for (id, text) in ids.iter().zip(&texts) {
            match person.try_ask(Request::Read(*id)) {
                Some(Ok(Reply::Text(message))) => {
                    assert!(message.text == *text, "seed {seed}: a text that nobody sent")
                }
                Some(Err(refusal)) if refusal.message.contains("damaged") => lost += 1,
                other => {
                    let log = fs::read_to_string(broker.location.log()).unwrap_or_default();
                    panic!(
                        "seed {seed}: {other:?}; the log ends with {:?}",
                        log.lines().rev().take(3).collect::<Vec<_>>()
                    );
                }
            }
        }
        assert!(lost <= 2, "seed {seed}: {lost} were lost by damage in one place");
        assert!(
            person.status().damaged >= lost,
            "seed {seed}: other records may be damaged too, and none less"
        );
        lost_in_all += lost;
        drop(person);
        root = broker.end();
    }
    // If a place is not in use, nothing is lost.
    assert!(lost_in_all >= runs / 8, "{lost_in_all} records were damaged in {runs} runs");
}
