//! What one program costs the others: it begins frames and does not end them, or asks faster than anybody could answer.

use super::*;

#[test]
fn a_frame_that_was_begun_ends_its_connection_if_it_does_not_arrive_and_no_other() {
    let broker = Running::start_in(tempfile::tempdir().unwrap(), Duration::from_secs(2));
    let mut witness = broker.connect(Role::Operator);
    let status = codec::encode(&ClientFrame { id: 7, request: Request::Status }).unwrap();
    let whole = [&(status.len() as u32).to_le_bytes()[..], &status].concat();
    let large = [&(FRAME_BYTES_MAX as u32).to_le_bytes()[..], &[0; 70_000]].concat();
    for begun in [&whole[..1], &whole[..4], &whole[..5], &large] {
        let mut wire = broker.connect(Role::Adapter);
        wire.stream.write_all(begun).unwrap();
        wire.assert_refused(0, ErrorCode::BadFrame);
    }
    // It was silent all the time, and between frames there is no hurry.
    witness.status();
}

#[test]
fn what_was_asked_before_a_frame_that_says_nothing_is_answered_and_what_follows_is_not_heard() {
    let broker = Running::start();
    let mut wire = broker.connect(Role::Operator);
    let asked = wire.send(Request::Status);
    wire.send_payload(&[7, 250]);
    let last = wire.send(Request::Status);
    assert!(wire.answer(asked).is_ok());
    match wire.next() {
        Some(ServerFrame::Reply { id: 0, result: Err(refusal) }) => assert_eq!(refusal.code, ErrorCode::BadFrame),
        other => panic!("a refusal was expected, and no answer to {last}: {other:?}"),
    }
    wire.assert_ended();
}

#[test]
fn a_request_larger_than_any_that_is_allowed_is_refused_in_words_and_costs_no_connection() {
    let broker = Running::start();
    let (mut luna, _) = broker.session("luna");
    for text_bytes in [61_441, 200_000, FRAME_BYTES_MAX - 200] {
        let refusal = luna.ask(send_to("luna", &"x".repeat(text_bytes))).unwrap_err();
        assert!(refusal.message.contains("61440") || refusal.message.contains("61,440"), "{refusal}");
    }
}
