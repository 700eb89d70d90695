//! Scenarios of push carriers and hooks: which message goes when, which carrier follows which, and
//! which events are evidence.

use peer_proto::hook::Activity;
use peer_proto::message::Intent;

use super::push::PUSH_UNPROVED_MAX;
use super::tests::{caller, delivered, id};
use super::*;
use crate::inbox::Seen;
use crate::samples::request;

const SOCKET: Carrier = Carrier::InboxSocket;

fn post(inbox: &mut Inbox, carrier: Carrier, activity: Activity) -> Option<Vec<MessageId>> {
    inbox.post(carrier, Some(activity), false, "").map(|post| post.ids())
}

fn informed(inbox: &mut Inbox, number: u32, from: &str, reply_to: Option<MessageId>) {
    let message = Message { intent: Intent::Inform, reply_to, ..request(number, from, "x") };
    inbox.deliver(Delivery { message, attempts: 0, shown_before: false }, false);
}

fn hook(inbox: &mut Inbox, event: HookEvent) -> (Vec<(MessageId, Proof)>, Vec<MessageId>) {
    hook_in(inbox, event, None)
}

fn hook_in(
    inbox: &mut Inbox,
    event: HookEvent,
    turn: Option<&str>,
) -> (Vec<(MessageId, Proof)>, Vec<MessageId>) {
    let proved = inbox.event(event, turn);
    (proved, inbox.hook_block(event, BLOCK_CHARS_MAX, "").offered)
}

fn proofs(proved: &[(MessageId, Proof)]) -> Vec<MessageId> {
    proved.iter().map(|(message, _)| *message).collect()
}

#[test]
fn a_post_is_one_block_of_all_that_may_go_and_one_carrier_has_it_at_a_time() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "one");
    informed(&mut inbox, 2, "vega", None);
    let block = inbox.post(SOCKET, Some(Activity::Working), false, "").unwrap();
    assert_eq!(block.ids(), [id(1), id(2)]);
    assert!(
        block.text.starts_with("[PEER INBOX] 2 messages. ") && block.text.contains("| one\n"),
        "{}",
        block.text
    );
    for carrier in [SOCKET, Carrier::Channel] {
        assert_eq!(post(&mut inbox, carrier, Activity::Working), None, "the socket has its time");
    }
    assert_eq!(
        hook(&mut inbox, HookEvent::UserPromptSubmit).1,
        [],
        "and no hook shows it meanwhile"
    );
    inbox.overdue(id(1), SOCKET);
    let next = inbox.post(Carrier::Channel, Some(Activity::Working), true, "").unwrap();
    assert_eq!(next.ids(), [id(1)]);
    assert!(next.text.contains("(shown before)"), "{}", next.text);
}

#[test]
fn what_could_not_leave_goes_to_the_next_one_unmarked() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "one");
    assert_eq!(post(&mut inbox, SOCKET, Activity::Idle), Some(vec![id(1)]));
    inbox.take_back(&[id(1)], SOCKET);
    assert!(inbox.unproved().is_empty());
    let next = inbox.post(Carrier::Channel, None, true, "").unwrap();
    assert!(!next.text.contains("(shown before)"), "{}", next.text);
}

#[test]
fn rest_is_disturbed_for_requests_and_first_replies_only_and_then_everything_comes() {
    let mut inbox = Inbox::default();
    informed(&mut inbox, 1, "luna", None);
    assert_eq!(post(&mut inbox, SOCKET, Activity::Idle), None);
    assert_eq!(hook(&mut inbox, HookEvent::Stop).1, [], "a turn ends in peace");
    informed(&mut inbox, 2, "vega", Some(id(100)));
    assert_eq!(
        post(&mut inbox, SOCKET, Activity::Idle),
        Some(vec![id(1), id(2)]),
        "the first reply wakes, with all before it"
    );
    informed(&mut inbox, 3, "vega", Some(id(100)));
    assert_eq!(post(&mut inbox, SOCKET, Activity::Idle), None, "a later reply does not");
    assert_eq!(post(&mut inbox, SOCKET, Activity::Working), Some(vec![id(3)]));
}

#[test]
fn a_push_carrier_has_a_bounded_number_in_flight() {
    let mut inbox = Inbox::default();
    for number in 1..=100 {
        delivered(&mut inbox, number, "luna", "x");
    }
    let mut gone = 0;
    while let Some(ids) = post(&mut inbox, SOCKET, Activity::Working) {
        gone += ids.len();
    }
    assert_eq!(gone, PUSH_UNPROVED_MAX);
}

#[test]
fn a_push_has_a_whole_round_before_a_hook_between_tools_repeats_it() {
    let mut inbox = Inbox::default();
    hook(&mut inbox, HookEvent::PostToolBatch);
    delivered(&mut inbox, 1, "luna", "x");
    post(&mut inbox, SOCKET, Activity::Working);
    // A tool ran longer than the carrier's timeout: the client shows the post after it.
    inbox.overdue(id(1), SOCKET);
    assert_eq!(
        hook(&mut inbox, HookEvent::PostToolBatch).1,
        [],
        "the post is in the request that comes now"
    );
    assert_eq!(hook(&mut inbox, HookEvent::PostToolBatch).1, [id(1)], "it was not");
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    post(&mut inbox, SOCKET, Activity::Idle);
    inbox.overdue(id(1), SOCKET);
    assert_eq!(
        hook(&mut inbox, HookEvent::UserPromptSubmit).1,
        [],
        "the post may be that very prompt"
    );
    assert_eq!(
        hook(&mut inbox, HookEvent::PostToolBatch).1,
        [],
        "or what this request begins with"
    );
    assert_eq!(hook(&mut inbox, HookEvent::Stop).1, [id(1)]);
}

#[test]
fn a_prompt_between_two_tools_begins_no_turn() {
    use HookEvent::{PostToolBatch, Stop, UserPromptSubmit};
    let (mut inbox, turn) = (Inbox::default(), Some("t"));
    hook_in(&mut inbox, PostToolBatch, turn);
    delivered(&mut inbox, 1, "luna", "x");
    post(&mut inbox, SOCKET, Activity::Working);
    inbox.overdue(id(1), SOCKET);
    assert_eq!(hook_in(&mut inbox, PostToolBatch, turn).1, []);
    assert_eq!(
        hook_in(&mut inbox, UserPromptSubmit, turn).1,
        [],
        "it is the post, handed over now"
    );
    assert_eq!(hook_in(&mut inbox, PostToolBatch, turn).1, [id(1)]);
    // The same request, as far as anybody knows.
    assert_eq!(proofs(&inbox.event(UserPromptSubmit, turn)), []);
    assert_eq!(proofs(&inbox.event(Stop, turn)), [id(1)]);
}

/// Returns the first event that proves the output of a hook of the first event. Each event has its
/// turn, or none if the client names none.
fn first_proof(carried: (HookEvent, &str), later: &[(HookEvent, &str)]) -> Option<HookEvent> {
    let mut inbox = Inbox::default();
    let turn = |name: &'static str| (!name.is_empty()).then_some(name);
    let named =
        |name: &str| ["s", "t", "u"].into_iter().find(|known| *known == name).and_then(turn);
    hook_in(&mut inbox, HookEvent::PostToolBatch, turn("s"));
    hook_in(&mut inbox, HookEvent::Stop, turn("s"));
    delivered(&mut inbox, 1, "luna", "x");
    assert_eq!(hook_in(&mut inbox, carried.0, named(carried.1)).1, [id(1)], "{carried:?}");
    let mut events = later.iter();
    events
        .position(|(event, turn)| !inbox.event(*event, named(turn)).is_empty())
        .map(|place| later[place].0)
}

#[test]
fn which_event_proves_what_an_earlier_hook_carried() {
    use HookEvent::{
        PostToolBatch, PostToolUse, PreToolUse, SessionEnd, SessionStart, Stop, UserPromptSubmit,
    };
    let in_turn = |carried: HookEvent, later: &[HookEvent]| {
        let named = ["t", ""].map(|name| {
            let later: Vec<(HookEvent, &str)> = later.iter().map(|event| (*event, name)).collect();
            first_proof((carried, name), &later)
        });
        assert_eq!(named[0], named[1], "{carried:?} {later:?}");
        named[0]
    };
    assert_eq!(in_turn(SessionStart, &[UserPromptSubmit, PreToolUse]), Some(PreToolUse));
    assert_eq!(in_turn(UserPromptSubmit, &[SessionEnd, Stop]), Some(Stop));
    assert_eq!(in_turn(UserPromptSubmit, &[PreToolUse]), Some(PreToolUse));
    assert_eq!(in_turn(PostToolUse, &[PostToolUse, PreToolUse, PostToolBatch]), None);
    assert_eq!(in_turn(PostToolUse, &[PostToolBatch, PreToolUse]), Some(PreToolUse));
    assert_eq!(in_turn(PostToolUse, &[PostToolBatch, PostToolBatch]), Some(PostToolBatch));
    assert_eq!(in_turn(PostToolUse, &[Stop]), Some(Stop));
    assert_eq!(in_turn(PostToolBatch, &[SessionEnd, PostToolUse]), Some(PostToolUse));
    assert_eq!(in_turn(Stop, &[Stop]), Some(Stop));
}

/// The client may have dropped it with a prompt that was refused or taken back, or in a compaction.
#[test]
fn no_event_proves_what_a_hook_carried_once_the_conversation_may_have_lost_it() {
    use HookEvent::{PostToolBatch, SessionStart, Stop, UserPromptSubmit};
    for name in ["u", ""] {
        let next = [(UserPromptSubmit, name), (PostToolBatch, name), (Stop, name)];
        let carried = if name.is_empty() { "" } else { "t" };
        for event in [UserPromptSubmit, PostToolBatch, Stop] {
            assert_eq!(
                first_proof((event, carried), &next),
                None,
                "{event:?}: another prompt began"
            );
            let compacted = [(SessionStart, ""), (PostToolBatch, carried), (Stop, carried)];
            assert_eq!(
                first_proof((event, carried), &compacted),
                None,
                "{event:?}: it was compacted"
            );
        }
        let second = [(UserPromptSubmit, carried), (UserPromptSubmit, name), (Stop, name)];
        assert_eq!(
            first_proof((SessionStart, ""), &second),
            None,
            "the first prompt may have been refused"
        );
    }
    // Such a prompt may be refused, and the turn goes on.
    let mut inbox = Inbox::default();
    hook_in(&mut inbox, UserPromptSubmit, Some("t"));
    delivered(&mut inbox, 1, "luna", "x");
    assert_eq!(hook_in(&mut inbox, UserPromptSubmit, Some("t")).1, [id(1)]);
    assert_eq!(proofs(&inbox.event(PostToolBatch, Some("t"))), []);
    assert_eq!(proofs(&inbox.event(Stop, Some("t"))), []);
}

#[test]
fn what_rode_on_a_prompt_that_nothing_followed_comes_again_with_the_next_one() {
    use HookEvent::{Stop, UserPromptSubmit};
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    assert_eq!(hook_in(&mut inbox, UserPromptSubmit, Some("t")).1, [id(1)]);
    assert_eq!(proofs(&inbox.event(UserPromptSubmit, Some("u"))), []);
    let block = inbox.hook_block(UserPromptSubmit, BLOCK_CHARS_MAX, "");
    assert!(block.offered == [id(1)] && block.text.contains("(shown before)"), "{}", block.text);
    assert_eq!(proofs(&inbox.event(Stop, Some("u"))), [id(1)]);
}

#[test]
fn what_the_client_took_back_goes_all_its_ways_again() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    delivered(&mut inbox, 2, "luna", "y");
    assert!(
        !inbox.withdraw(&[(id(1), Some(Carrier::Hook)), (id(3), None)]),
        "it was given to nobody"
    );
    assert_eq!(hook(&mut inbox, HookEvent::UserPromptSubmit).1, [id(1), id(2)]);
    inbox.recorded(&[seen(2, Some(Carrier::Hook), "y")]);
    assert!(inbox.withdraw(&[(id(1), Some(Carrier::Hook)), (id(2), Some(Carrier::Hook))]));
    let post = inbox.post(SOCKET, Some(Activity::Idle), false, "").unwrap();
    assert!(post.ids() == [id(1)] && post.text.contains("(shown before)"), "{}", post.text);
    assert!(inbox.withdraw(&[(id(1), None)]));
    assert_eq!(inbox.hook_block(HookEvent::Stop, BLOCK_CHARS_MAX, "").offered, [id(1)]);
}

#[test]
fn where_the_record_tells_no_event_proves_anything() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    assert_eq!(hook_in(&mut inbox, HookEvent::UserPromptSubmit, Some("t")).1, [id(1)]);
    inbox.trust_record(true);
    assert_eq!(proofs(&inbox.event(HookEvent::PostToolBatch, Some("t"))), []);
    assert_eq!(proofs(&inbox.event(HookEvent::Stop, Some("t"))), []);
    inbox.trust_record(false);
    assert_eq!(proofs(&inbox.event(HookEvent::Stop, Some("t"))), [id(1)]);
}

#[test]
fn a_hooks_share_of_a_long_message_proves_nothing() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", &"x".repeat(9_000));
    assert_eq!(hook(&mut inbox, HookEvent::UserPromptSubmit).1, [id(1)]);
    assert_eq!(proofs(&inbox.event(HookEvent::Stop, None)), []);
}

#[test]
fn a_hook_shows_one_message_twice_and_no_more() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    for _ in 0..2 {
        assert_eq!(
            inbox.hook_block(HookEvent::UserPromptSubmit, BLOCK_CHARS_MAX, "").offered,
            [id(1)]
        );
        assert_eq!(inbox.hook_block(HookEvent::UserPromptSubmit, BLOCK_CHARS_MAX, "").offered, []);
        inbox.overdue(id(1), Carrier::Hook);
    }
    assert_eq!(inbox.hook_block(HookEvent::UserPromptSubmit, BLOCK_CHARS_MAX, "").offered, []);
}

#[test]
fn an_output_that_nobody_waited_for_was_never_there() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    let carried = inbox.hook_block(HookEvent::PostToolBatch, BLOCK_CHARS_MAX, "").offered;
    inbox.take_back_hook(&carried);
    assert_eq!(proofs(&inbox.event(HookEvent::Stop, None)), []);
    assert!(
        !inbox
            .hook_block(HookEvent::PostToolBatch, BLOCK_CHARS_MAX, "")
            .text
            .contains("(shown before)")
    );
}

#[test]
fn a_hooks_share_fits_its_budget() {
    let mut inbox = Inbox::default();
    for number in 1..=3 {
        delivered(&mut inbox, number, "luna", &"é".repeat(2_000));
    }
    let block = inbox.hook_block(HookEvent::UserPromptSubmit, 2_400, "");
    assert!(block.text.chars().count() < 2_400 + 200, "{}", block.text.chars().count());
    assert_eq!(block.offered, [id(1)]);
    assert!(block.text.contains("2 more wait: check_messages()"), "{}", block.text);
}

fn seen(number: u32, by: Option<Carrier>, piece: &str) -> Seen {
    Seen {
        message: id(number),
        by,
        in_result: by == Some(Carrier::ToolResult),
        piece: piece.to_owned(),
    }
}

#[test]
fn the_record_proves_what_it_shows_whole_of_what_a_carrier_was_given() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "whole\n\n");
    delivered(&mut inbox, 2, "luna", &"x".repeat(9_000));
    assert_eq!(post(&mut inbox, SOCKET, Activity::Working), Some(vec![id(1), id(2)]));
    let others = [
        seen(1, Some(SOCKET), "who"),
        seen(2, Some(SOCKET), &"x".repeat(2_000)),
        seen(3, None, "whole"),
    ];
    assert_eq!(proofs(&inbox.recorded(&others)), []);
    // No hook ever carried it.
    let proved = inbox.recorded(&[seen(1, Some(Carrier::Hook), "whole")]);
    assert_eq!(proved, [(id(1), Proof { carrier: SOCKET, evidence: Evidence::Transcript })]);
    assert_eq!(inbox.unproved(), [id(2)]);
}

#[test]
fn a_long_message_is_proved_by_its_parts_whoever_brought_them() {
    let mut inbox = Inbox::default();
    let text: String = (0..900).map(|number| format!("line {number}\n")).collect();
    delivered(&mut inbox, 1, "luna", &text);
    let pushed = inbox.post(SOCKET, Some(Activity::Working), false, "").unwrap().text;
    let quoted = |text: &str| {
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| ")).collect();
        lines.join("\n")
    };
    let rest = |text: &str| {
        text.split("offset=")
            .nth(1)
            .map(|rest| rest.trim_end_matches(")\n").parse::<usize>().unwrap())
    };
    assert_eq!(proofs(&inbox.recorded(&[seen(1, Some(SOCKET), &quoted(&pushed))])), []);
    let mut offset = rest(&pushed);
    while let Some(from) = offset {
        let call = caller(0);
        let part = inbox.part(id(1), from, false, "", &call).unwrap().0;
        inbox.result_queued(call.call, 100);
        offset = rest(&part);
        let proved = inbox.recorded(&[seen(1, Some(Carrier::ToolResult), &quoted(&part))]);
        assert_eq!(proved.is_empty(), offset.is_some(), "from {from}");
    }
}

#[test]
fn a_long_message_that_arrived_in_part_does_not_speak_against_its_carrier() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", &"x".repeat(9_000));
    delivered(&mut inbox, 2, "luna", &"y".repeat(9_000));
    assert_eq!(post(&mut inbox, SOCKET, Activity::Working), Some(vec![id(1), id(2)]));
    let beginnings =
        [seen(1, Some(SOCKET), "x"), seen(2, Some(Carrier::Hook), "y"), seen(3, None, "z")];
    assert_eq!(inbox.arrived(&beginnings), [SOCKET]);
    assert_eq!((inbox.overdue(id(1), SOCKET), inbox.overdue(id(2), SOCKET)), (false, true));
    assert_eq!(inbox.unproved(), [id(1), id(2)]);
}

#[test]
fn another_conversation_proves_nothing_of_the_last_one_and_is_shown_what_is_open() {
    let mut inbox = Inbox::default();
    for (number, text) in [(1, "by a hook"), (2, "by a push"), (3, "by nothing")] {
        delivered(&mut inbox, number, "luna", text);
        match number {
            1 => assert_eq!(hook(&mut inbox, HookEvent::UserPromptSubmit).1, [id(1)]),
            2 => assert_eq!(post(&mut inbox, SOCKET, Activity::Working), Some(vec![id(2)])),
            _ => {}
        }
    }
    inbox.leave_conversation();
    for event in [HookEvent::UserPromptSubmit, HookEvent::PostToolUse, HookEvent::Stop] {
        assert_eq!(proofs(&inbox.event(event, None)), []);
    }
    let Block { text, offered, .. } =
        inbox.hook_block(HookEvent::UserPromptSubmit, BLOCK_CHARS_MAX, "");
    assert_eq!(offered, [id(1), id(2), id(3)]);
    assert_eq!(text.matches("(shown before)").count(), 2, "{text}");
}

#[test]
fn of_a_hook_that_may_have_been_heard_nothing_is_known() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    assert_eq!(hook(&mut inbox, HookEvent::UserPromptSubmit).1, [id(1)]);
    inbox.doubt_hook(&[id(1)]);
    assert_eq!(proofs(&inbox.event(HookEvent::Stop, None)), []);
    let text = inbox.hook_block(HookEvent::UserPromptSubmit, BLOCK_CHARS_MAX, "").text;
    assert!(text.contains("(shown before)"), "{text}");
}

#[test]
fn the_users_next_turn_proves_what_a_result_showed_whole() {
    let mut inbox = Inbox::default();
    inbox.event(HookEvent::UserPromptSubmit, Some("t"));
    delivered(&mut inbox, 1, "luna", "whole");
    delivered(&mut inbox, 2, "luna", &"x".repeat(9_000));
    let call = caller(0);
    assert_eq!(inbox.block(&call, BlockRequest::DUE, 0).offered, [id(1), id(2)]);
    inbox.result_queued(call.call, 100);
    let turn = Some("t");
    assert_eq!(
        proofs(&inbox.event(HookEvent::PreToolUse, turn)),
        [],
        "a subagent may have been shown it"
    );
    assert_eq!(proofs(&inbox.event(HookEvent::UserPromptSubmit, turn)), [], "the turn goes on");
    assert_eq!(proofs(&inbox.event(HookEvent::Stop, turn)), []);
    assert_eq!(
        inbox.event(HookEvent::UserPromptSubmit, Some("u")),
        [(id(1), Proof { carrier: Carrier::ToolResult, evidence: Evidence::NextTurn })]
    );
}

#[test]
fn the_users_next_turn_proves_nothing_of_a_turn_that_was_broken_off_or_compacted() {
    use HookEvent::{SessionStart, Stop, UserPromptSubmit};
    for between in [
        [(UserPromptSubmit, Some("u")), (Stop, Some("u"))],
        [(SessionStart, None), (Stop, Some("t"))],
    ] {
        let mut inbox = Inbox::default();
        hook_in(&mut inbox, UserPromptSubmit, Some("t"));
        delivered(&mut inbox, 1, "luna", "whole");
        let call = caller(0);
        assert_eq!(inbox.block(&call, BlockRequest::DUE, 0).offered, [id(1)]);
        inbox.result_queued(call.call, 100);
        for (event, turn) in between {
            assert_eq!(proofs(&inbox.event(event, turn)), []);
        }
        assert_eq!(proofs(&inbox.event(UserPromptSubmit, Some("v"))), [], "{between:?}");
    }
}

#[test]
fn what_a_subagent_swallowed_comes_again_through_a_hook() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    let call = caller(0);
    inbox.block(&call, BlockRequest::DUE, 0);
    assert_eq!(hook(&mut inbox, HookEvent::PostToolBatch).1, [], "the result has its time");
    inbox.overdue(id(1), Carrier::ToolResult);
    let block = inbox.hook_block(HookEvent::PostToolBatch, BLOCK_CHARS_MAX, "");
    assert!(block.text.contains("(shown before)"), "{}", block.text);
}

#[test]
fn replies_are_remembered_up_to_a_bound() {
    let mut inbox = Inbox::default();
    for number in 0..2 * ANSWERED_MAX as u32 {
        informed(&mut inbox, number + 1, "luna", Some(id(number)));
    }
    assert_eq!(inbox.answered.len(), ANSWERED_MAX);
}

#[test]
fn a_carrier_on_trial_gets_one_message_and_the_next_hook_carries_it_marked() {
    let mut inbox = Inbox::default();
    for number in 1..=3 {
        delivered(&mut inbox, number, "luna", "x");
    }
    let post = inbox.trial(SOCKET, false, false, "").unwrap();
    assert_eq!(post.ids(), [id(1)]);
    assert!(
        post.text.contains("2 more wait: check_messages()")
            && !post.text.contains("(shown before)"),
        "{}",
        post.text
    );
    assert!(inbox.is_any_on_trial());
    inbox.event(HookEvent::PostToolBatch, None);
    let block = inbox.hook_block(HookEvent::PostToolBatch, BLOCK_CHARS_MAX, "");
    assert_eq!(block.offered, [id(1), id(2), id(3)], "at once, with the rest, in order");
    assert_eq!(block.text.matches("(shown before)").count(), 1, "{}", block.text);
    assert!(inbox.is_any_on_trial(), "until it is settled");
    let (proved, again) = hook(&mut inbox, HookEvent::PostToolBatch);
    assert_eq!(
        (proofs(&proved), again),
        (vec![id(1), id(2), id(3)], Vec::new()),
        "by another way, and once"
    );
    assert!(!inbox.is_any_on_trial());
}

#[test]
fn a_result_carries_what_is_on_trial_and_only_the_carrier_that_had_its_time_gives_it_to_the_next() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    assert!(inbox.trial(Carrier::Channel, false, true, "").is_some());
    assert_eq!(
        inbox.brought_by(id(1)),
        Some(Carrier::Channel),
        "whoever acknowledges it has seen it there"
    );
    assert_eq!(post(&mut inbox, SOCKET, Activity::Working), None, "one carrier has it at a time");
    assert!(inbox.trial(SOCKET, false, false, "").is_none());
    inbox.overdue(id(1), Carrier::Channel);
    assert!(!inbox.is_any_on_trial());
    assert_eq!(post(&mut inbox, SOCKET, Activity::Working), Some(vec![id(1)]));

    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "x");
    assert!(inbox.trial(SOCKET, false, false, "").is_some());
    let call = caller(0);
    assert!(inbox.is_any_due());
    let block = inbox.block(&call, BlockRequest::DUE, 0);
    assert_eq!(block.offered, [id(1)]);
    assert!(block.text.contains("(shown before)"), "{}", block.text);
    assert_eq!(inbox.brought_by(id(1)), None, "nobody knows which of both was seen");
}

#[test]
fn a_reader_that_rests_is_tried_with_what_may_wake_it_and_no_sender_is_overtaken() {
    let mut inbox = Inbox::default();
    informed(&mut inbox, 1, "luna", None);
    informed(&mut inbox, 2, "vega", None);
    assert!(inbox.trial(SOCKET, true, false, "").is_none(), "nothing wakes");
    delivered(&mut inbox, 3, "vega", "x");
    let tried = inbox.trial(SOCKET, true, false, "").unwrap().ids();

    assert_eq!(tried, [id(2)]);
}

#[test]
fn a_hook_carries_nothing_that_its_sender_wrote_after_a_message_in_flight() {
    let mut inbox = Inbox::default();
    delivered(&mut inbox, 1, "luna", "one");
    assert_eq!(post(&mut inbox, SOCKET, Activity::Working), Some(vec![id(1)]));
    delivered(&mut inbox, 2, "luna", "two");
    delivered(&mut inbox, 3, "vega", "three");
    assert_eq!(hook(&mut inbox, HookEvent::PostToolBatch).1, [id(3)]);
    inbox.recorded(&[seen(1, Some(SOCKET), "one")]);
    assert_eq!(hook(&mut inbox, HookEvent::PostToolBatch).1, [id(2)], "it has arrived");
}

#[test]
fn more_than_one_post_holds_is_a_backlog() {
    let mut inbox = Inbox::default();
    for number in 1..=2 {
        delivered(&mut inbox, number, "luna", &"x".repeat(2_500));
    }
    assert!(!inbox.is_backlog(SOCKET));
    delivered(&mut inbox, 3, "luna", &"x".repeat(2_500));
    assert!(inbox.is_backlog(SOCKET));
    assert_eq!(post(&mut inbox, SOCKET, Activity::Working), Some(vec![id(1), id(2)]));
    assert!(!inbox.is_backlog(SOCKET), "what a carrier has waits for none");
}

#[test]
fn a_result_is_under_way_until_the_model_was_asked_with_it() {
    let call = caller(0);
    for speaks in [true, false] {
        let mut inbox = Inbox::default();
        inbox.trust_record(speaks);
        inbox.event(HookEvent::UserPromptSubmit, Some("t"));
        delivered(&mut inbox, 1, "luna", "one");
        assert!(!inbox.is_result_under_way());
        assert_eq!(inbox.block(&call, BlockRequest::DUE, 0).offered, [id(1)]);
        inbox.event(HookEvent::PostToolUse, Some("t"));
        assert!(inbox.is_result_under_way(), "the hook of that call; the record speaks: {speaks}");
        inbox.event(HookEvent::PostToolUse, Some("t"));
        assert_eq!(
            inbox.is_result_under_way(),
            speaks,
            "the hook of a call around it, as far as is known"
        );
        inbox.recorded(&[Seen { in_result: true, ..seen(1, Some(Carrier::ToolResult), "one") }]);
        assert!(!inbox.is_result_under_way() || !speaks);
        inbox.event(HookEvent::UserPromptSubmit, Some("u"));
        assert!(!inbox.is_result_under_way(), "another turn");
    }
}

#[test]
fn what_another_adapter_of_the_client_gave_goes_by_calls_until_it_had_its_time_or_was_taken_away() {
    let repeats = |here: bool| {
        let mut inbox = Inbox::default();
        inbox.mark_repeats(here);
        inbox.deliver(
            Delivery { message: request(1, "luna", "one"), attempts: 0, shown_before: true },
            false,
        );
        delivered(&mut inbox, 2, "luna", "two");
        inbox
    };
    let trial = |inbox: &mut Inbox| inbox.trial(SOCKET, true, false, "").map(|post| post.ids());
    assert_eq!(trial(&mut repeats(false)), Some(vec![id(1)]), "it was shown in another client");

    let mut inbox = repeats(true);
    assert_eq!(trial(&mut inbox), Some(vec![id(2)]), "the trial is for what is new");
    let shown = hook(&mut inbox, HookEvent::UserPromptSubmit).1;
    assert_eq!(shown, [id(1), id(2)], "and the next hook has both, in order");

    let mut inbox = repeats(true);
    assert_eq!(
        post(&mut inbox, SOCKET, Activity::Working),
        Some(vec![id(2)]),
        "also where the carrier is proved"
    );
    assert!(!inbox.overdue(id(1), SOCKET), "this adapter's carrier did not have it");
    let post = inbox.post(SOCKET, Some(Activity::Idle), false, "").unwrap();
    assert_eq!(post.ids(), [id(1)], "nothing else can wake");
    assert!(post.text.contains("(shown before)"), "{}", post.text);

    let mut inbox = repeats(true);
    inbox.leave_conversation();
    assert_eq!(trial(&mut inbox), Some(vec![id(1)]), "the new conversation was not shown it");

    let mut inbox = repeats(true);
    assert!(
        inbox.withdraw(&[(id(1), Some(SOCKET))]),
        "the client took back what the other adapter had brought"
    );
    assert_eq!(trial(&mut inbox), Some(vec![id(1)]));
}
