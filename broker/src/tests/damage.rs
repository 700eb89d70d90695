//! Records of the database that are not what was written there: they are left out and said, and the rest goes on.

use peer_proto::message::Cause;
use peer_proto::request::{Orphan, ShownDelivery};

use super::*;
use crate::store::tests::rewrite_message;

/// Starts a broker in which luna has sent orion three messages, and orion has seen none; the record of the second is changed
/// while no broker runs.
fn started_with_a_damaged_message(change: impl FnOnce(&mut Vec<u8>)) -> (Running, Registered, [MessageId; 3]) {
    let broker = Running::start();
    let (mut luna, registered) = broker.session("luna");
    let (orion, _) = broker.session("orion");
    drop(orion);
    let ids = ["first", "second", "third"].map(|text| message_sent(luna.ask(send_to("orion", text))));
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

/// What is pushed until `count` messages came.
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
    assert_eq!((letters[0].message, &*letters[0].cause, &*letters[0].from), (ids[1], "damaged", "luna"));
    assert_eq!(person.status().damaged, 1);
    let refusal = luna.ask(Request::Read(ids[1])).unwrap_err();
    assert!(refusal.code == ErrorCode::UnknownMessage && refusal.message.contains("damaged"), "{refusal}");
    match luna.ask(Request::Read(ids[2])) {
        Ok(Reply::Text(message)) => assert_eq!(message.text, "third"),
        other => panic!("no text: {other:?}"),
    }
    let log = fs::read_to_string(broker.location.log()).unwrap();
    assert!(log.contains(&format!("message {}", ids[1])) && log.contains("damaged in the database"), "{log}");

    // A second try ends as the first, and does not stay with its reader.
    assert!(matches!(person.ask(Request::Requeue(ids[1])), Ok(Reply::Settled { .. })));
    assert_eq!(orphans(&mut person).len(), 1);
    assert!(matches!(person.ask(Request::Drop(ids[1])), Ok(Reply::Settled { .. })));
    assert!(orphans(&mut person).is_empty());

    // Its sender says it again.
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
            assert_eq!(messages.iter().map(|shown| shown.message.id).collect::<Vec<_>>(), [ids[2], ids[0]]);
            let waits = |delivery: &ShownDelivery| delivery.trace.iter().all(|entry| entry.cause != Some(Cause::Damaged));
            assert!(messages.iter().all(|shown| shown.deliveries.iter().all(waits)));
        }
        other => panic!("no history: {other:?}"),
    }
}
