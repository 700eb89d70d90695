//! The cost of one program for the others: it leaves frames incomplete, or sends requests faster
//! than any broker could answer.

use std::time::Instant;

use peer_proto::search::SearchQuery;

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
    // It was idle all the time, and between frames there is no deadline.
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
        Some(ServerFrame::Reply { id: 0, result: Err(refusal) }) => {
            assert_eq!(refusal.code, ErrorCode::BadFrame)
        }
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
        assert!(
            refusal.message.contains("61440") || refusal.message.contains("61,440"),
            "{refusal}"
        );
    }
}

/// A broker that stores that many messages of that size, and a session that sent them.
fn with_history(messages: u64, text_bytes: usize) -> (Running, Wire) {
    let root = tempfile::tempdir().unwrap();
    let limits = ["sender_per_minute", "pair_per_minute", "pending_per_peer"]
        .map(|key| format!("{key} = 1000000\n"));
    configure(root.path(), &format!("[limits]\n{}", limits.concat()));
    let broker = Running::start_in(root, PATIENCE);
    let _ = broker.session("luna");
    let mut operator = broker.connect(Role::Operator);
    for number in 0..messages {
        operator.send(send_to("luna", &format!("{number} {}", "x".repeat(text_bytes))));
        if number % 10 == 9 {
            let last = operator.last_id;
            for id in last - 9..=last {
                message_sent(operator.answer(id));
            }
        }
    }
    (broker, operator)
}

fn page() -> Request {
    Request::History(HistoryQuery { limit: 200, ..HistoryQuery::default() })
}

#[test]
fn whoever_asks_one_thing_does_not_wait_for_all_the_histories_that_another_asked_for() {
    let (broker, mut greedy) = with_history(1_000, 100);
    let mut modest = broker.connect(Role::Operator);
    let mut reading =
        Wire { stream: greedy.stream.try_clone().unwrap(), last_id: 0, pushes: Vec::new() };
    let first = greedy.last_id + 1;
    for _ in 0..200 {
        greedy.send(page());
    }
    let (answered, is_answered) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for id in first..first + 200 {
            assert!(
                matches!(reading.answer(id), Ok(Reply::History { messages, .. }) if messages.len() == 200)
            );
            answered.send(()).unwrap();
        }
    });
    is_answered.recv_timeout(PATIENCE).unwrap();
    modest.status();
    let before = 1 + is_answered.try_iter().count();
    assert!(before < 100, "{before} histories were answered first");
    reader.join().unwrap();
}

#[test]
fn many_pages_that_were_asked_for_at_once_come_as_fast_as_they_are_read() {
    let (broker, mut wire) = with_history(10, 60_000);
    let mut witness = broker.connect(Role::Operator);
    let first = wire.last_id + 1;
    for _ in 0..60 {
        wire.send(page());
    }
    // Nobody reads yet. The whole answer is much more than may wait for a connection.
    witness.status();
    for id in first..first + 60 {
        assert!(matches!(wire.answer(id), Ok(Reply::History { .. })));
    }
}

#[test]
fn whoever_searches_once_does_not_wait_for_all_the_searches_of_another() {
    let (broker, mut greedy) = with_history(1_000, 100);
    let mut modest = broker.connect(Role::Operator);
    let search = || {
        let text = "xxx* 1*".to_owned();
        Request::Search(SearchQuery { text, limit: 100, ..SearchQuery::default() })
    };
    let deadline = Instant::now() + PATIENCE;
    while !matches!(modest.ask(search()), Ok(Reply::Hits { total: 1.., behind: 0, .. })) {
        assert!(Instant::now() < deadline, "everything is indexed at last");
    }
    let mut reading =
        Wire { stream: greedy.stream.try_clone().unwrap(), last_id: 0, pushes: Vec::new() };
    let first = greedy.last_id + 1;
    for _ in 0..200 {
        greedy.send(search());
    }
    let (answered, is_answered) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for id in first..first + 200 {
            // Late ones are refused, or answered with nothing.
            assert!(matches!(reading.answer(id), Ok(Reply::Hits { .. }) | Err(_)));
            answered.send(()).unwrap();
        }
    });
    is_answered.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(modest.ask(search()), Ok(Reply::Hits { total: 1.., .. })));
    let before = 1 + is_answered.try_iter().count();
    assert!(before < 100, "{before} searches were answered first");
    reader.join().unwrap();
}
