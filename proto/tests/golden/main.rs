//! The wire's bytes, one vector per variant of every enum, kept in `proto/golden/v1.txt`.
//!
//! A vector that changes is a broken protocol: other builds are running. New variants belong to a
//! new protocol version, and until the first release to this one.
//! `PEERD_WRITE_GOLDEN=1 cargo test -p peer-proto --test golden` writes the file anew; look at its
//! difference before you commit it.

mod links;
mod random;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use peer_proto::channel::*;
use peer_proto::codec::{decode, encode};
use peer_proto::hook::*;
use peer_proto::ids::{BrokerId, MessageId, Token};
use peer_proto::link::*;
use peer_proto::message::*;
use peer_proto::note::*;
use peer_proto::policy::*;
use peer_proto::question::*;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::*;
use peer_proto::search::*;
use peer_proto::task::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use links::{
    frames as link_frames, link_pushes, link_replies, link_requests, links_requests, outcomes,
};
use values::{
    channel_requests, delivery_events, events, message_id, note_requests, pausings, pushes,
    refusal_frame, replies, reply_frame, requests, task_acts, task_requests,
};

/// A named value, its bytes, and a check that bytes say that value.
struct Vector {
    name: String,
    bytes: Vec<u8>,
    says: Says,
}

/// Whether bytes say the value that it stands for, or why they say none.
type Says = Box<dyn Fn(&[u8]) -> Result<bool, String>>;

fn vector<T: Serialize + DeserializeOwned + PartialEq + 'static>(
    name: impl Into<String>,
    value: T,
) -> Vector {
    let bytes = encode(&value).unwrap();
    let says = move |bytes: &[u8]| {
        decode::<T>(bytes).map(|decoded| decoded == value).map_err(|why| why.to_string())
    };
    Vector { name: name.into(), bytes, says: Box::new(says) }
}

/// The names of an enum's variants, and the name of a value's variant. The match has no wildcard: a
/// variant without a name does not compile, and a name without a vector fails
/// [`every_variant_has_a_vector`].
macro_rules! variants {
    ($names:ident, $name_of:ident, $of:ty, { $($pattern:pat => $name:literal,)+ }) => {
        const $names: &[&str] = &[$($name),+];
        fn $name_of(value: &$of) -> &'static str {
            match value { $($pattern => $name,)+ }
        }
    };
}

/// The same for an enum whose variants carry nothing: its values, all of them.
macro_rules! units {
    ($values:ident, $name_of:ident, $of:ident, { $($variant:ident => $name:literal,)+ }) => {
        const $values: &[$of] = &[$($of::$variant),+];
        fn $name_of(value: &$of) -> &'static str {
            match value { $($of::$variant => $name,)+ }
        }
    };
}

variants!(REQUESTS, request_name, Request, {
    Request::Hello(_) => "hello",
    Request::Register(_) => "register",
    Request::Bind(_) => "bind",
    Request::Describe { .. } => "describe",
    Request::Rename { .. } => "rename",
    Request::Peers(_) => "peers",
    Request::Send(_) => "send",
    Request::Receive { .. } => "receive",
    Request::StopWaiting(_) => "stop_waiting",
    Request::Offered { .. } => "offered",
    Request::Presented { .. } => "presented",
    Request::Ack { .. } => "ack",
    Request::Nack { .. } => "nack",
    Request::Read(_) => "read",
    Request::Inbox { .. } => "inbox",
    Request::Show(_) => "show",
    Request::History(_) => "history",
    Request::Orphans { .. } => "orphans",
    Request::Requeue(_) => "requeue",
    Request::Reassign { .. } => "reassign",
    Request::Drop(_) => "drop",
    Request::Cancel(_) => "cancel",
    Request::Watch { .. } => "watch",
    Request::Kick(_) => "kick",
    Request::Status => "status",
    Request::Shutdown => "shutdown",
    Request::Report(_) => "report",
    Request::Hook(_) => "hook",
    Request::HookAnswer { .. } => "hook_answer",
    Request::Policies => "policies",
    Request::SetPolicy { .. } => "set_policy",
    Request::SetConsent { .. } => "set_consent",
    Request::Release { .. } => "release",
    Request::Channel(_) => "channel",
    Request::Ask(_) => "ask",
    Request::Answer(_) => "answer",
    Request::Questions(_) => "questions",
    Request::Task(_) => "task",
    Request::Note(_) => "note",
    Request::Search(_) => "search",
    Request::Pause(_) => "pause",
    Request::Resume(_) => "resume",
    Request::Purge { .. } => "purge",
    Request::Refusals => "refusals",
    Request::Tried { .. } => "tried",
    Request::Link(_) => "link",
    Request::Links(_) => "links",
});

variants!(REPLIES, reply_name, Reply, {
    Reply::Welcome(_) => "welcome",
    Reply::Registered(_) => "registered",
    Reply::Done => "done",
    Reply::Renamed { .. } => "renamed",
    Reply::Peers { .. } => "peers",
    Reply::Sent(_) => "sent",
    Reply::Received(_) => "received",
    Reply::Acked { .. } => "acked",
    Reply::Text(_) => "text",
    Reply::Inbox { .. } => "inbox",
    Reply::Shown(_) => "shown",
    Reply::History { .. } => "history",
    Reply::Orphans { .. } => "orphans",
    Reply::Settled { .. } => "settled",
    Reply::Status(_) => "status",
    Reply::Hook { .. } => "hook",
    Reply::Policies(_) => "policies",
    Reply::Channels(_) => "channels",
    Reply::Questions { .. } => "questions",
    Reply::Tasks { .. } => "tasks",
    Reply::Note(_) => "note",
    Reply::Notes { .. } => "notes",
    Reply::Hits { .. } => "hits",
    Reply::Paused(_) => "paused",
    Reply::Purged { .. } => "purged",
    Reply::Refusals(_) => "refusals",
    Reply::Link(_) => "link",
    Reply::Links(_) => "links",
});

variants!(PUSHES, push_name, Push, {
    Push::Deliver(_) => "deliver",
    Push::Overdue { .. } => "overdue",
    Push::Withdrawn { .. } => "withdrawn",
    Push::Renamed { .. } => "renamed",
    Push::Notice(_) => "notice",
    Push::Event { .. } => "event",
    Push::Goodbye(_) => "goodbye",
    Push::Hook { .. } => "hook",
    Push::Consent { .. } => "consent",
    Push::Link(_) => "link",
});

variants!(FRAMES, frame_name, ServerFrame, {
    ServerFrame::Reply { result: Ok(_), .. } => "reply",
    ServerFrame::Reply { result: Err(_), .. } => "refusal",
    ServerFrame::Push(_) => "push",
});

units!(ROLES, role_name, Role, {
    Adapter => "adapter",
    Operator => "operator",
    Hook => "hook",
    Link => "link",
});

units!(SEAT_KINDS, seat_kind_name, SeatKind, {
    Name => "name",
    Claude => "claude",
    Codex => "codex",
    Other => "other",
});

variants!(AUTHORITIES, authority_name, Authority, {
    Authority::Person => "person",
    Authority::Shell(_) => "shell",
    Authority::Session => "session",
});

units!(GOODBYES, goodbye_name, Goodbye, {
    Stopping => "stopping",
    Kicked => "kicked",
    Replaced => "replaced",
    TooSlow => "too_slow",
});

variants!(EVENTS, event_name, WatchEvent, {
    WatchEvent::Delivery { .. } => "delivery",
    WatchEvent::Refused { .. } => "refused",
    WatchEvent::PeerOnline { .. } => "peer_online",
    WatchEvent::PeerOffline { .. } => "peer_offline",
    WatchEvent::PeerRenamed { .. } => "peer_renamed",
    WatchEvent::PeerForgotten { .. } => "peer_forgotten",
    WatchEvent::PeerChanged { .. } => "peer_changed",
    WatchEvent::TaskChanged { .. } => "task_changed",
    WatchEvent::Paused(_) => "paused",
    WatchEvent::Resumed(_) => "resumed",
    WatchEvent::Loop { .. } => "loop",
    WatchEvent::Damaged { .. } => "damaged",
});

variants!(DELIVERY_EVENTS, delivery_event_name, DeliveryEvent, {
    DeliveryEvent::Stored { .. } => "stored",
    DeliveryEvent::Leased => "leased",
    DeliveryEvent::Offered { .. } => "offered",
    DeliveryEvent::Returned { .. } => "returned",
    DeliveryEvent::Presented { .. } => "presented",
    DeliveryEvent::Acked => "acked",
    DeliveryEvent::Answered => "answered",
    DeliveryEvent::Held => "held",
    DeliveryEvent::Released => "released",
    DeliveryEvent::Expired => "expired",
    DeliveryEvent::Cancelled { .. } => "cancelled",
    DeliveryEvent::Dead { .. } => "dead",
    DeliveryEvent::Dropped => "dropped",
    DeliveryEvent::Relayed { .. } => "relayed",
    DeliveryEvent::Unrelayed => "unrelayed",
    DeliveryEvent::Recalled => "recalled",
    DeliveryEvent::Posted => "posted",
});

units!(QUESTION_STATES, question_state_name, QuestionState, {
    Open => "open",
    Answered => "answered",
    Expired => "expired",
    Cancelled => "cancelled",
});

units!(TASK_STATES, task_state_name, TaskState, {
    Open => "open",
    Claimed => "claimed",
    Started => "started",
    Blocked => "blocked",
    Completed => "completed",
    Failed => "failed",
    Cancelled => "cancelled",
});

units!(HIT_KINDS, hit_kind_name, HitKind, {
    Message => "message",
    Question => "question",
    Answer => "answer",
    Note => "note",
    Task => "task",
});

variants!(CHANNEL_REQUESTS, channel_request_name, ChannelRequest, {
    ChannelRequest::List => "list",
    ChannelRequest::Create { .. } => "create",
    ChannelRequest::Join(_) => "join",
    ChannelRequest::Leave(_) => "leave",
    ChannelRequest::Invite { .. } => "invite",
    ChannelRequest::SetTopic { .. } => "set_topic",
});

variants!(TASK_REQUESTS, task_request_name, TaskRequest, {
    TaskRequest::Create(_) => "create",
    TaskRequest::Change { .. } => "change",
    TaskRequest::List(_) => "list",
    TaskRequest::Show(_) => "show",
});

variants!(TASK_ACTS, task_act_name, TaskAct, {
    TaskAct::Assign(_) => "assign",
    TaskAct::Claim => "claim",
    TaskAct::Unclaim => "unclaim",
    TaskAct::Start => "start",
    TaskAct::Block(_) => "block",
    TaskAct::Complete(_) => "complete",
    TaskAct::Fail(_) => "fail",
    TaskAct::Cancel(_) => "cancel",
    TaskAct::Reopen => "reopen",
});

variants!(NOTE_REQUESTS, note_request_name, NoteRequest, {
    NoteRequest::Get(_) => "get",
    NoteRequest::Set(_) => "set",
    NoteRequest::Append { .. } => "append",
    NoteRequest::List { .. } => "list",
    NoteRequest::Delete { .. } => "delete",
});

variants!(PAUSINGS, pausing_name, Pausing, {
    Pausing::All => "all",
    Pausing::Peer(_) => "peer",
    Pausing::Thread(_) => "thread",
});

units!(HOOK_EVENTS, hook_event_name, HookEvent, {
    SessionStart => "session_start",
    UserPromptSubmit => "user_prompt_submit",
    PreToolUse => "pre_tool_use",
    PostToolUse => "post_tool_use",
    PostToolBatch => "post_tool_batch",
    Stop => "stop",
    SessionEnd => "session_end",
});

units!(MODES, mode_name, Mode, {
    Plan => "plan",
    Prompting => "prompting",
    AcceptEdits => "accept_edits",
    Bypass => "bypass",
});

units!(ACTIVITIES, activity_name, Activity, {
    Working => "working",
    Idle => "idle",
});

units!(POLICIES, policy_name, Policy, {
    Accept => "accept",
    Hold => "hold",
    Refuse => "refuse",
});

units!(INTENTS, intent_name, Intent, {
    Request => "request",
    Inform => "inform",
});

units!(KINDS, kind_name, Kind, {
    Message => "message",
    Question => "question",
    Answer => "answer",
    Notice => "notice",
    Join => "join",
    Leave => "leave",
});

units!(VIAS, via_name, Via, {
    Session => "session",
    Person => "person",
    Shell => "shell",
    Broker => "broker",
    Remote => "remote",
});

units!(CARRIERS, carrier_name, Carrier, {
    Channel => "channel",
    InboxSocket => "inbox_socket",
    AppServer => "app_server",
    Hook => "hook",
    ToolResult => "tool_result",
    Peerctl => "peerctl",
});

units!(EVIDENCES, evidence_name, Evidence, {
    Ack => "ack",
    Reply => "reply",
    NextCall => "next_call",
    NextTurn => "next_turn",
    Transcript => "transcript",
    Printed => "printed",
    Receipt => "receipt",
});

units!(STAGES, stage_name, Stage, {
    Stored => "stored",
    Leased => "leased",
    Offered => "offered",
    Presented => "presented",
    Held => "held",
    Expired => "expired",
    Cancelled => "cancelled",
    Dead => "dead",
    Dropped => "dropped",
    Relayed => "relayed",
    Posted => "posted",
});

units!(TRACES, trace_name, TraceEvent, {
    Stored => "stored",
    Leased => "leased",
    Offered => "offered",
    Returned => "returned",
    Presented => "presented",
    Acked => "acked",
    Answered => "answered",
    Held => "held",
    Released => "released",
    Expired => "expired",
    Cancelled => "cancelled",
    Dead => "dead",
    Requeued => "requeued",
    Reassigned => "reassigned",
    Dropped => "dropped",
    Relayed => "relayed",
    Unrelayed => "unrelayed",
    Recalled => "recalled",
    Posted => "posted",
});

variants!(CAUSES, cause_name, Cause, {
    Cause::Evidence(_) => "evidence",
    Cause::SessionEnded => "session_ended",
    Cause::Nack => "nack",
    Cause::AttemptsExceeded => "attempts_exceeded",
    Cause::PeerForgotten => "peer_forgotten",
    Cause::TtlEnded => "ttl_ended",
    Cause::Operator => "operator",
    Cause::Policy => "policy",
    Cause::Bound => "bound",
    Cause::Damaged => "damaged",
    Cause::RefusedThere => "refused_there",
    Cause::Unreachable => "unreachable",
});

units!(CODES, code_name, ErrorCode, {
    BadFrame => "bad_frame",
    OutOfOrder => "out_of_order",
    UnknownPeer => "unknown_peer",
    UnknownMessage => "unknown_message",
    EmptyText => "empty_text",
    TextTooLarge => "text_too_large",
    BadName => "bad_name",
    ReservedName => "reserved_name",
    NameTaken => "name_taken",
    OutOfBounds => "out_of_bounds",
    RateLimited => "rate_limited",
    MailboxFull => "mailbox_full",
    IdenticalText => "identical_text",
    ThreadPaused => "thread_paused",
    RefusedByPolicy => "refused_by_policy",
    NotPermitted => "not_permitted",
    TooLate => "too_late",
    NoSpace => "no_space",
    Overloaded => "overloaded",
    BadToken => "bad_token",
    NotLeased => "not_leased",
    IdempotencyConflict => "idempotency_conflict",
    Stopping => "stopping",
    UnknownChannel => "unknown_channel",
    UnknownTask => "unknown_task",
    UnknownNote => "unknown_note",
    QuestionClosed => "question_closed",
    TaskHeld => "task_held",
    BadTransition => "bad_transition",
    VersionConflict => "version_conflict",
    Paused => "paused",
    UnknownLink => "unknown_link",
    IdentityConflict => "identity_conflict",
});

variants!(LINK_REQUESTS, link_request_name, LinkRequest, {
    LinkRequest::Ready { .. } => "ready",
    LinkRequest::Open { .. } => "open",
    LinkRequest::Peers { .. } => "peers",
    LinkRequest::Take(_) => "take",
    LinkRequest::Relayed(_) => "relayed",
    LinkRequest::Receipts(_) => "receipts",
    LinkRequest::Told(_) => "told",
    LinkRequest::Due => "due",
    LinkRequest::States(_) => "states",
    LinkRequest::Stand(_) => "stand",
    LinkRequest::Unsettled { .. } => "unsettled",
    LinkRequest::Withdraw(_) => "withdraw",
    LinkRequest::Withdrawn(_) => "withdrawn",
    LinkRequest::Channels { .. } => "channels",
});

variants!(LINK_REPLIES, link_reply_name, LinkReply, {
    LinkReply::Ready { .. } => "ready",
    LinkReply::Opened { .. } => "opened",
    LinkReply::Taken(_) => "taken",
    LinkReply::Due(_) => "due",
    LinkReply::States(_) => "states",
    LinkReply::Unsettled { .. } => "unsettled",
    LinkReply::Withdrawn(_) => "withdrawn",
});

variants!(LINK_PUSHES, link_push_name, LinkPush, {
    LinkPush::Mail(_) => "mail",
    LinkPush::ReceiptsDue => "receipts_due",
    LinkPush::Cards { .. } => "cards",
    LinkPush::Withdraw(_) => "withdraw",
    LinkPush::Channels { .. } => "channels",
});

variants!(LINKS_REQUESTS, links_request_name, LinksRequest, {
    LinksRequest::List => "list",
    LinksRequest::Identify { .. } => "identify",
    LinksRequest::Set { .. } => "set",
    LinksRequest::Rename { .. } => "rename",
    LinksRequest::Remove { .. } => "remove",
    LinksRequest::Hide { .. } => "hide",
});

variants!(OUTCOMES, outcome_name, Outcome, {
    Outcome::Has(_) => "has",
    Outcome::Later { .. } => "later",
    Outcome::Refused { .. } => "refused",
});

variants!(LINK_FRAMES, link_frame_name, Frame, {
    Frame::Hello(_) => "hello",
    Frame::Peers { .. } => "peers",
    Frame::Mail(_) => "mail",
    Frame::Taken(_) => "taken",
    Frame::Receipts(_) => "receipts",
    Frame::Told(_) => "told",
    Frame::Withdraw(_) => "withdraw",
    Frame::Withdrawn(_) => "withdrawn",
    Frame::Ask(_) => "ask",
    Frame::States(_) => "states",
    Frame::Ping => "ping",
    Frame::Bye { .. } => "bye",
    Frame::Channels { .. } => "channels",
});

units!(SHARES, share_name, Share, {
    None => "none",
    Names => "names",
    Summaries => "summaries",
});

/// A vector per value, named by its variant.
fn each<T>(group: &str, name_of: fn(&T) -> &'static str, values: &[T]) -> Vec<Vector>
where
    T: Serialize + DeserializeOwned + Clone + PartialEq + 'static,
{
    values
        .iter()
        .map(|value| vector(format!("{group}.{}", name_of(value)), value.clone()))
        .collect()
}

fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for (suffix, request) in requests() {
        all.push(vector(
            format!("request.{}{suffix}", request_name(&request)),
            ClientFrame { id: 7, request },
        ));
    }
    for (suffix, reply) in replies() {
        all.push(vector(format!("reply.{}{suffix}", reply_name(&reply)), reply_frame(reply)));
    }
    for (suffix, push) in pushes() {
        all.push(vector(format!("push.{}{suffix}", push_name(&push)), ServerFrame::Push(push)));
    }
    for code in CODES {
        all.push(vector(format!("refusal.{}", code_name(code)), refusal_frame(*code)));
    }
    let frames = vec![
        reply_frame(Reply::Done),
        refusal_frame(ErrorCode::Stopping),
        ServerFrame::Push(pushes().remove(3).1),
    ];
    all.extend(each("frame", frame_name, &frames));
    all.extend(each("role", role_name, ROLES));
    all.extend(each("seat_kind", seat_kind_name, SEAT_KINDS));
    let authorities =
        [Authority::Person, Authority::Shell(Some("luna".into())), Authority::Session];
    all.extend(each("authority", authority_name, &authorities));
    all.extend(each("goodbye", goodbye_name, GOODBYES));
    for (suffix, event) in events() {
        all.push(vector(format!("event.{}{suffix}", event_name(&event)), event));
    }
    all.extend(each("delivery_event", delivery_event_name, &delivery_events()));
    all.extend(each("hook_event", hook_event_name, HOOK_EVENTS));
    all.extend(each("mode", mode_name, MODES));
    all.extend(each("activity", activity_name, ACTIVITIES));
    all.extend(each("policy", policy_name, POLICIES));
    all.extend(each("question_state", question_state_name, QUESTION_STATES));
    all.extend(each("task_state", task_state_name, TASK_STATES));
    all.extend(each("hit_kind", hit_kind_name, HIT_KINDS));
    all.extend(each("channel_request", channel_request_name, &channel_requests()));
    all.extend(each("task_request", task_request_name, &task_requests()));
    all.extend(each("task_act", task_act_name, &task_acts()));
    all.extend(each("note_request", note_request_name, &note_requests()));
    all.extend(each("pausing", pausing_name, &pausings()));
    all.extend(each("link_request", link_request_name, &link_requests()));
    all.extend(each("link_reply", link_reply_name, &link_replies()));
    all.extend(each("link_push", link_push_name, &link_pushes()));
    all.extend(each("links_request", links_request_name, &links_requests()));
    all.extend(each("outcome", outcome_name, &outcomes()));
    all.extend(each("share", share_name, SHARES));
    all.extend(each("intent", intent_name, INTENTS));
    all.extend(each("kind", kind_name, KINDS));
    all.extend(each("via", via_name, VIAS));
    all.extend(each("carrier", carrier_name, CARRIERS));
    all.extend(each("evidence", evidence_name, EVIDENCES));
    all.extend(each("stage", stage_name, STAGES));
    all.extend(each("trace", trace_name, TRACES));
    let causes = [
        Cause::Evidence(Evidence::Transcript),
        Cause::SessionEnded,
        Cause::Nack,
        Cause::AttemptsExceeded,
        Cause::PeerForgotten,
        Cause::TtlEnded,
        Cause::Operator,
        Cause::Policy,
        Cause::Bound,
        Cause::Damaged,
        Cause::RefusedThere,
        Cause::Unreachable,
    ];
    all.extend(each("cause", cause_name, &causes));
    all.push(vector("token", Token([0xa5; 32])));
    all.push(vector("message_id", message_id(0xdead_beef)));
    all.push(vector("broker_id", BrokerId([0x11; 16])));
    for number in [0, 250, 251, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
        all.push(vector(format!("integer.{number}"), number));
    }
    all
}

/// The frames between two link processes, which have a protocol of their own.
fn link_vectors() -> Vec<Vector> {
    each("frame", link_frame_name, &link_frames())
}

fn golden_path(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).join(file)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn golden(file: &str) -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(golden_path(file)).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap().to_owned();
        (name, words.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect())
    };
    lines.map(entry).collect()
}

#[test]
fn the_bytes_are_the_golden_bytes() {
    check_golden("v1.txt", "Protocol version 1", &vectors());
}

#[test]
fn the_bytes_between_links_are_the_golden_bytes() {
    check_golden("link-v1.txt", "Link protocol version 1", &link_vectors());
}

fn check_golden(file: &str, what: &str, vectors: &[Vector]) {
    if std::env::var_os("PEERD_WRITE_GOLDEN").is_some_and(|value| value == "1") {
        let mut text = format!(
            "# {what}: a name and the bytes of a frame's payload, or of one value within a payload.\n\
             # proto/tests/golden has the values. Written by PEERD_WRITE_GOLDEN=1 cargo test -p peer-proto --test golden\n\n",
        );
        for vector in vectors {
            writeln!(text, "{} {}", vector.name, hex(&vector.bytes)).unwrap();
        }
        std::fs::write(golden_path(file), text).unwrap();
    }
    let golden = golden(file);
    for vector in vectors {
        let expected = golden
            .get(&vector.name)
            .unwrap_or_else(|| panic!("{} has no golden bytes", vector.name));
        assert_eq!(hex(&vector.bytes), hex(expected), "{}", vector.name);
        assert_eq!((vector.says)(expected), Ok(true), "{}", vector.name);
    }
    assert_eq!(golden.len(), vectors.len(), "golden/{file} has vectors that no value has");
}

#[test]
fn a_payload_cut_anywhere_or_with_a_byte_too_many_is_an_error() {
    for vector in vectors().into_iter().chain(link_vectors()) {
        for length in 0..vector.bytes.len() {
            assert!(
                (vector.says)(&vector.bytes[..length]).is_err(),
                "{} cut to {length} bytes",
                vector.name
            );
        }
        for extra in [0, 1, 0xff] {
            let longer = [vector.bytes.as_slice(), &[extra]].concat();
            assert!((vector.says)(&longer).is_err(), "{} and a byte {extra:02x}", vector.name);
        }
    }
}

#[test]
fn every_variant_has_a_vector() {
    let vectors = vectors();
    let names: BTreeSet<&str> = vectors.iter().map(|vector| vector.name.as_str()).collect();
    assert_eq!(names.len(), vectors.len(), "two vectors have one name");
    let groups = [
        ("request", REQUESTS),
        ("reply", REPLIES),
        ("push", PUSHES),
        ("frame", FRAMES),
        ("authority", AUTHORITIES),
        ("event", EVENTS),
        ("delivery_event", DELIVERY_EVENTS),
        ("channel_request", CHANNEL_REQUESTS),
        ("task_request", TASK_REQUESTS),
        ("task_act", TASK_ACTS),
        ("note_request", NOTE_REQUESTS),
        ("pausing", PAUSINGS),
        ("link_request", LINK_REQUESTS),
        ("link_reply", LINK_REPLIES),
        ("link_push", LINK_PUSHES),
        ("links_request", LINKS_REQUESTS),
        ("outcome", OUTCOMES),
        ("cause", CAUSES),
    ];
    for (group, variants) in groups {
        for variant in variants {
            let name = format!("{group}.{variant}");
            assert!(names.contains(name.as_str()), "{name} has no vector");
        }
    }
    let frames: BTreeSet<String> = link_vectors().into_iter().map(|vector| vector.name).collect();
    for variant in LINK_FRAMES {
        assert!(frames.contains(&format!("frame.{variant}")), "frame.{variant} has no vector");
    }
    assert_eq!(CODES, ErrorCode::ALL, "ErrorCode::ALL is not in wire order");
}

/// Bytes that look like a value but name a variant that does not exist.
#[test]
fn an_unknown_variant_is_an_error() {
    for (count, bytes) in [(REQUESTS.len(), vec![7]), (PUSHES.len(), vec![1])] {
        let unknown = [bytes.as_slice(), &[u8::try_from(count).unwrap()]].concat();
        assert!(decode::<ClientFrame>(&unknown).is_err());
        assert!(decode::<ServerFrame>(&unknown).is_err());
    }
    assert!(decode::<Stage>(&[u8::try_from(STAGES.len()).unwrap()]).is_err());
    // A message id at or above 2^80 is a number but no message id.
    let mut huge = vec![0xfe];
    huge.extend_from_slice(&(1u128 << 80).to_le_bytes());
    assert!(decode::<MessageId>(&huge).is_err());
}
