//! Scenarios of the inbox: which message is shown when, and which events are evidence.

use std::sync::atomic::{AtomicU64, Ordering};

use super::push::PUSH_UNPROVED_MAX;
use super::*;
use crate::samples::request;

/// A client's conversation, and the byte stream of its calls and results.
struct Client {
    conversation: Option<&'static str>,
    written: u64,
}

impl Client {
    fn codex() -> Self {
        Self { conversation: Some("thread-1"), written: 0 }
    }

    fn claude() -> Self {
        Self { conversation: None, written: 0 }
    }

    fn calls(&self) -> CallOrigin {
        CallOrigin { conversation: self.conversation.map(str::to_owned), ..caller(self.written) }
    }

    fn gets_result_of(&mut self, inbox: &mut Inbox, caller: &CallOrigin) {
        self.written += 100;
        inbox.result_queued(caller.call, self.written);
    }
}

/// Returns a call that was read when the client had been sent so many bytes.
pub(super) fn caller(written_before: u64) -> CallOrigin {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    CallOrigin {
        call: CallId(CALLS.fetch_add(1, Ordering::Relaxed)),
        written_before,
        ..CallOrigin::default()
    }
}

pub(super) fn id(number: u32) -> MessageId {
    MessageId::try_from(u128::from(number)).unwrap()
}

pub(super) fn delivered(inbox: &mut Inbox, number: u32, from: &str, text: &str) -> Known {
    inbox.deliver(
        Delivery { message: request(number, from, text), attempts: 0, shown_before: false },
        false,
    )
}

/// Returns the next push for the channel.
fn channel(inbox: &mut Inbox) -> Option<Post> {
    inbox.post(Carrier::Channel, None, true, "")
}

fn due(inbox: &mut Inbox, caller: &CallOrigin) -> Block {
    inbox.block(caller, BlockRequest::DUE, 0)
}

#[test]
fn the_next_call_of_the_same_conversation_proves_what_a_result_showed() {
    let (mut inbox, mut client) = (Inbox::default(), Client::codex());
    delivered(&mut inbox, 1, "luna", "hello");
    let first = client.calls();
    assert_eq!(inbox.proved_by(&first), []);
    let block = due(&mut inbox, &first);
    assert_eq!(block.offered, [id(1)]);
    assert!(block.text.starts_with("[PEER INBOX] 1 message. Quoted text"), "{}", block.text);
    assert!(block.text.contains("| hello\n"));
    client.gets_result_of(&mut inbox, &first);

    let second = client.calls();
    assert_eq!(inbox.proved_by(&second), [id(1)]);
    assert_eq!(due(&mut inbox, &second), Block::default(), "what is proved is not shown again");
    assert_eq!(
        delivered(&mut inbox, 1, "luna", "hello"),
        Known::Proved(Proof { carrier: Carrier::ToolResult, evidence: Evidence::NextCall }),
        "also where the broker did not hear of it"
    );
}

#[test]
fn overlapping_calls_other_conversations_and_unknown_callers_prove_nothing() {
    let (mut inbox, mut client) = (Inbox::default(), Client::codex());
    delivered(&mut inbox, 1, "luna", "hello");
    let (first, overlapping) = (client.calls(), client.calls());
    due(&mut inbox, &first);
    client.gets_result_of(&mut inbox, &first);
    assert_eq!(inbox.proved_by(&overlapping), []);
    client.conversation = Some("thread-2");
    assert_eq!(inbox.proved_by(&client.calls()), []);
    client.conversation = None;
    assert_eq!(inbox.proved_by(&client.calls()), []);
    client.conversation = Some("thread-1");
    assert_eq!(inbox.proved_by(&client.calls()), [id(1)]);
}

#[test]
fn an_unconfirmed_message_is_reminded_of_and_not_shown_again() {
    let (mut inbox, mut client) = (Inbox::default(), Client::claude());
    delivered(&mut inbox, 1, "luna", "hello");
    let first = client.calls();
    assert!(
        !due(&mut inbox, &first).text.contains("not confirmed"),
        "not in the result that shows it"
    );
    client.gets_result_of(&mut inbox, &first);
    let block = due(&mut inbox, &client.calls());
    assert_eq!(
        block.text,
        "1 message shown before is not confirmed; when dealt with: ack_messages(\"m-0000000000000001\")\n"
    );
    assert_eq!((block.shown, block.offered), (0, Vec::new()));
    inbox.remove(&[id(1)]);
    assert_eq!(due(&mut inbox, &client.calls()), Block::default());
}

#[test]
fn a_result_that_the_client_cancelled_showed_nothing() {
    let (mut inbox, client) = (Inbox::default(), Client::codex());
    delivered(&mut inbox, 1, "luna", "hello");
    let cancelled = client.calls();
    due(&mut inbox, &cancelled);
    inbox.call_dropped(cancelled.call);
    let block = due(&mut inbox, &client.calls());
    assert!(block.text.contains("| hello\n"), "{}", block.text);
}

#[test]
fn a_long_message_is_proved_once_its_last_part_was_shown() {
    let (mut inbox, mut client) = (Inbox::default(), Client::codex());
    delivered(&mut inbox, 1, "luna", &"x".repeat(9_000));
    let first = client.calls();
    let block = due(&mut inbox, &first);
    assert!(block.text.contains("7,000 more characters"), "{}", block.text);
    client.gets_result_of(&mut inbox, &first);

    let second = client.calls();
    assert_eq!(inbox.proved_by(&second), [], "a part is not the whole");
    let (text, first_time) = inbox.part(id(1), 2_000, false, "", &second).unwrap();
    assert!(text.contains("offset=") && !first_time, "{text}");
    let reminder = due(&mut inbox, &second).text;
    client.gets_result_of(&mut inbox, &second);
    assert_eq!(reminder, "", "the call that reads on is not reminded of it");

    let third = client.calls();
    assert_eq!(inbox.proved_by(&third), []);
    let offset = text.rsplit_once("offset=").unwrap().1.trim_end_matches(")\n").parse().unwrap();
    inbox.part(id(1), offset, false, "", &third).unwrap();
    client.gets_result_of(&mut inbox, &third);
    assert_eq!(inbox.proved_by(&client.calls()), [id(1)]);
}

#[test]
fn a_gap_between_parts_is_no_proof() {
    let (mut inbox, mut client) = (Inbox::default(), Client::codex());
    delivered(&mut inbox, 1, "luna", &"x".repeat(9_000));
    let first = client.calls();
    due(&mut inbox, &first);
    inbox.part(id(1), 4_000, false, "", &first).unwrap();
    client.gets_result_of(&mut inbox, &first);
    assert_eq!(inbox.proved_by(&client.calls()), []);
    let block = due(&mut inbox, &client.calls());
    assert_eq!(
        block.text,
        "1 message shown before in part: check_messages(message_id=\"m-0000000000000001\", offset=2000)\n"
    );
}

#[test]
fn a_block_is_bounded_in_order_and_says_how_many_wait() {
    let (mut inbox, mut client) = (Inbox::default(), Client::codex());
    for number in 1..=100 {
        delivered(&mut inbox, number, "luna", &"'".repeat(61_440));
    }
    let (mut next, mut rounds) = (1, 0);
    while next <= 100 {
        let caller = client.calls();
        inbox.proved_by(&caller);
        let block = due(&mut inbox, &caller);
        client.gets_result_of(&mut inbox, &caller);
        assert!(
            block.text.chars().count() < BLOCK_CHARS_MAX + 700,
            "{}",
            block.text.chars().count()
        );
        for shown in &block.offered {
            assert_eq!(*shown, id(next));
            next += 1;
        }
        let wait = 100 - (next - 1);
        assert_eq!(block.text.contains(&format!("\n{wait} more wait")), wait > 1, "{}", block.text);
        rounds += 1;
    }
    assert_eq!(rounds, 50, "two excerpts fit into each block");
}

#[test]
fn many_small_messages_do_not_make_a_large_block() {
    let (mut inbox, client) = (Inbox::default(), Client::claude());
    for number in 1..=10_000 {
        delivered(&mut inbox, number, "luna", "x");
    }
    let block = due(&mut inbox, &client.calls());
    assert!(block.text.chars().count() < BLOCK_CHARS_MAX + 200);
    assert_eq!(block.offered, (1..=block.shown as u32).map(id).collect::<Vec<_>>());
    assert!(block.text.contains(&format!("{} more wait: check_messages()", 10_000 - block.shown)));
}

#[test]
fn what_the_broker_still_holds_back_is_counted() {
    let (mut inbox, client) = (Inbox::default(), Client::claude());
    delivered(&mut inbox, 1, "luna", "x");
    let block = inbox.block(&client.calls(), BlockRequest::DUE, 64);
    assert!(block.text.contains("63 more wait"), "{}", block.text);
}

#[test]
fn the_channel_goes_in_order_and_its_offer_is_named_not_repeated() {
    let (mut inbox, client) = (Inbox::default(), Client::claude());
    delivered(&mut inbox, 1, "luna", "one");
    delivered(&mut inbox, 2, "luna", "two");
    let Post { messages, text: content } = channel(&mut inbox).unwrap();
    assert_eq!(messages[0].id, id(1));
    assert!(
        content.starts_with("[m-0000000000000001 request] from luna")
            && content.ends_with("· 3 chars\n| one\n"),
        "{content}"
    );
    assert_eq!(channel(&mut inbox).unwrap().messages[0].id, id(2));
    assert!(channel(&mut inbox).is_none());

    let block = due(&mut inbox, &client.calls());
    assert_eq!(
        block.text,
        "2 messages came through the channel: m-0000000000000001,m-0000000000000002; check_messages() shows them here\n"
    );
    inbox.overdue(id(1), Carrier::Channel);
    let block = due(&mut inbox, &client.calls());
    assert!(block.text.contains("· 3 chars (shown before)\n| one\n"), "{}", block.text);
    assert!(
        block.text.contains("1 message came through the channel: m-0000000000000002"),
        "{}",
        block.text
    );
    assert_eq!(block.offered, [id(1)]);
}

#[test]
fn a_message_waits_for_those_of_its_sender_that_are_in_flight() {
    let (mut inbox, mut client) = (Inbox::default(), Client::claude());
    delivered(&mut inbox, 1, "luna", "one");
    channel(&mut inbox);
    delivered(&mut inbox, 2, "luna", "two");
    delivered(&mut inbox, 3, "vega", "three");
    let call = client.calls();
    assert_eq!(due(&mut inbox, &call).offered, [id(3)], "another sender's waits for nobody");
    client.gets_result_of(&mut inbox, &call);
    assert!(!inbox.is_any_due());
    inbox.overdue(id(1), Carrier::Channel);
    assert_eq!(
        due(&mut inbox, &client.calls()).offered,
        [id(1), id(2)],
        "what was lost comes first"
    );
}

#[test]
fn an_explicit_question_shows_what_only_the_channel_had() {
    let (mut inbox, client) = (Inbox::default(), Client::claude());
    delivered(&mut inbox, 1, "luna", "one");
    channel(&mut inbox).unwrap();
    let ask = BlockRequest { among: Some(&[id(1)]), ..BlockRequest::DUE };
    let block = inbox.block(&client.calls(), ask, 1);
    assert!(block.text.contains("(shown before)\n| one\n"), "{}", block.text);
}

#[test]
fn a_filter_shows_and_offers_nothing_else() {
    let (mut inbox, client) = (Inbox::default(), Client::claude());
    delivered(&mut inbox, 1, "vega", "old");
    delivered(&mut inbox, 2, "luna", "new");
    let ask = BlockRequest { among: Some(&[id(2)]), ..BlockRequest::DUE };
    let block = inbox.block(&client.calls(), ask, 2);
    assert_eq!(block.offered, [id(2)]);
    assert!(!block.text.contains("old") && block.text.contains("1 more waits"), "{}", block.text);
    assert!(due(&mut inbox, &client.calls()).text.contains("| old"));
}

#[test]
fn a_peek_leaves_everything_as_it_was() {
    let (mut inbox, client) = (Inbox::default(), Client::claude());
    delivered(&mut inbox, 1, "luna", "hello");
    let ask = BlockRequest { among: Some(&[id(1)]), peek: true, ..BlockRequest::DUE };
    let block = inbox.block(&client.calls(), ask, 1);
    assert!(block.text.contains("| hello") && block.offered.is_empty());
    assert_eq!(due(&mut inbox, &client.calls()).offered, [id(1)]);
}

#[test]
fn a_message_that_is_asked_for_is_shown_whatever_became_of_it() {
    let (mut inbox, mut client) = (Inbox::default(), Client::claude());
    delivered(&mut inbox, 1, "luna", "the reply");
    let first = client.calls();
    due(&mut inbox, &first);
    client.gets_result_of(&mut inbox, &first);
    let block =
        inbox.block(&client.calls(), BlockRequest { also: Some(id(1)), ..BlockRequest::DUE }, 1);
    assert!(block.text.contains("(shown before)\n| the reply\n"), "{}", block.text);
}

#[test]
fn the_channel_has_a_bounded_number_in_flight() {
    let mut inbox = Inbox::default();
    for number in 1..=100 {
        delivered(&mut inbox, number, "luna", "x");
    }
    let offered = std::iter::from_fn(|| channel(&mut inbox)).count();
    assert_eq!(offered, PUSH_UNPROVED_MAX);
    inbox.remove(&[id(1)]);
    assert_eq!(channel(&mut inbox).unwrap().messages[0].id, id(PUSH_UNPROVED_MAX as u32 + 1));
}

#[test]
fn after_a_new_connection_only_what_is_pushed_again_is_held() {
    let (mut inbox, mut client) = (Inbox::default(), Client::claude());
    delivered(&mut inbox, 1, "luna", "shown");
    let first = client.calls();
    due(&mut inbox, &first);
    client.gets_result_of(&mut inbox, &first);
    delivered(&mut inbox, 2, "luna", "pushed");
    channel(&mut inbox).unwrap();
    delivered(&mut inbox, 3, "vega", "waiting");

    inbox.begin_session();
    assert_eq!(due(&mut inbox, &client.calls()), Block::default(), "nothing is leased");
    assert_eq!(
        delivered(&mut inbox, 1, "luna", "shown"),
        Known::Offered { carrier: Carrier::ToolResult, last: true, tried: false }
    );
    assert_eq!(
        delivered(&mut inbox, 2, "luna", "pushed"),
        Known::Offered { carrier: Carrier::Channel, last: false, tried: false }
    );
    assert_eq!(delivered(&mut inbox, 3, "vega", "waiting"), Known::New);
    let block = due(&mut inbox, &client.calls());
    assert_eq!(block.offered, [id(3)], "{}", block.text);

    inbox.begin_session();
    inbox.begin_session();
    assert_eq!(
        delivered(&mut inbox, 1, "luna", "shown"),
        Known::Offered { carrier: Carrier::ToolResult, last: true, tried: false },
        "a connection that was lost at once says nothing of what is held"
    );
    inbox.begin_session();
    inbox.mark_all_held();
    inbox.begin_session();
    assert_eq!(
        delivered(&mut inbox, 1, "luna", "shown"),
        Known::New,
        "it went elsewhere meanwhile"
    );
}

#[test]
fn a_repeat_from_an_earlier_session_says_so() {
    let (mut inbox, client) = (Inbox::default(), Client::codex());
    inbox.deliver(
        Delivery { message: request(1, "luna", "hello"), attempts: 1, shown_before: true },
        false,
    );
    assert!(due(&mut inbox, &client.calls()).text.contains("· 5 chars (shown before)\n"));
}

#[test]
fn a_wait_sees_new_requests_only() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "old");
    let start = inbox.arrivals();
    assert!(inbox.request_since(start).is_none());
    delivered(&mut inbox, 2, "vega", "new");
    assert_eq!(inbox.request_since(start).map(|message| message.id), Some(id(2)));
    assert!(inbox.any_unseen(&[id(1)]) && !inbox.any_unseen(&[id(9)]));
}

#[test]
fn overlapping_calls_never_follow_each_other() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "hello");
    let in_thread =
        |written| CallOrigin { conversation: Some("thread-1".into()), ..caller(written) };
    let first = in_thread(0);
    due(&mut inbox, &first);
    assert_eq!(inbox.proved_by(&in_thread(1_000)), [], "no result yet");
    inbox.result_queued(first.call, 100);
    assert_eq!(inbox.proved_by(&in_thread(0)), []);
    assert_eq!(inbox.proved_by(&in_thread(99)), [], "its last byte had not left");
    assert_eq!(inbox.proved_by(&in_thread(100)), [id(1)]);
}
