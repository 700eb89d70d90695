//! One value per variant: with every optional part present, and, named `.bare`, with none.

use crate::links::{link_infos, link_pushes, link_replies, link_requests, links_requests, there};
use peer_proto::brake::*;
use peer_proto::channel::*;
use peer_proto::hook::*;
use peer_proto::ids::{MessageId, PeerId, TaskId, Timestamp, Token};
use peer_proto::message::*;
use peer_proto::note::*;
use peer_proto::policy::*;
use peer_proto::question::*;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::*;
use peer_proto::search::*;
use peer_proto::task::*;

pub(crate) const AT: Timestamp = Timestamp(1_795_000_000_123);

pub(crate) fn message_id(entropy: u32) -> MessageId {
    MessageId::next(MessageId::MIN, AT, entropy)
}

pub(crate) fn seat() -> Seat {
    Seat { kind: SeatKind::Claude, key: "s-1".into() }
}

pub(crate) fn message() -> Message {
    Message {
        id: message_id(1),
        from: Sender {
            peer: PeerId(2),
            name: "luna".into(),
            client: "claude".into(),
            cwd: "/api".into(),
            via: Via::Session,
        },
        to: vec!["orion".into()],
        intent: Intent::Request,
        kind: Kind::Message,
        thread: "t-9f2".into(),
        channel: Some("#ops".into()),
        reply_to: Some(message_id(0)),
        sent_at: AT,
        expires_at: Some(AT.plus_ms(60_000)),
        sources: vec!["package.json".into()],
        text: "bcrypt version?".into(),
    }
}

pub(crate) fn refusal(code: ErrorCode) -> Refusal {
    Refusal {
        code,
        message: "no peer is called oriom".into(),
        hint: "did you mean orion".into(),
        retry_after_ms: Some(250),
    }
}

pub(crate) fn trace() -> TraceEntry {
    TraceEntry {
        event: TraceEvent::Presented,
        at: AT,
        carrier: Some(Carrier::ToolResult),
        cause: Some(Cause::Evidence(Evidence::NextCall)),
    }
}

pub(crate) fn shown() -> Shown {
    let delivery = ShownDelivery {
        peer: PeerId(3),
        name: "orion".into(),
        stage: Stage::Presented,
        attempts: 1,
        acked_at: Some(AT),
        answered_by: Some(message_id(2)),
        trace: vec![
            TraceEntry { event: TraceEvent::Stored, at: AT, carrier: None, cause: None },
            trace(),
        ],
        there: Some(there()),
    };
    Shown { message: message(), deliveries: vec![delivery] }
}

pub(crate) fn position() -> Position {
    Position { message: message_id(1), peer: PeerId(3) }
}

pub(crate) fn proof() -> CarrierProof {
    CarrierProof { carrier: Carrier::Channel, proven_at: Some(AT) }
}

pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let hello = |seat| Hello {
        role: Role::Adapter,
        version: "0.1.0".into(),
        executable: "/bin/peerctl".into(),
        seat,
    };
    let register = Register {
        name: Some("luna".into()),
        seat: Some(seat()),
        client: "claude".into(),
        client_version: "2.1.0".into(),
        client_pid: 4_242,
        cwd: "/api".into(),
        git_root: Some("/api".into()),
        repo: Some("/api/.git".into()),
        host: "box".into(),
        resume: Some(Resume { peer: PeerId(2), token: Token([0xa5; 32]) }),
    };
    let send = Send {
        to: vec!["orion".into(), "p-7".into()],
        text: "bcrypt version?".into(),
        intent: Some(Intent::Request),
        reply_to: Some(message_id(0)),
        thread: Some("t-9f2".into()),
        ttl_ms: Some(60_000),
        sources: vec!["package.json".into()],
        idempotency_key: Some("k-1".into()),
    };
    let ids = vec![message_id(1), message_id(2)];
    vec![
        ("", Request::Hello(hello(Some(seat())))),
        (".bare", Request::Hello(hello(None))),
        ("", Request::Register(register.clone())),
        (
            ".bare",
            Request::Register(Register {
                name: None,
                seat: None,
                git_root: None,
                repo: None,
                resume: None,
                ..register
            }),
        ),
        ("", Request::Bind(seat())),
        (
            "",
            Request::Describe {
                summary: Some("porting the tests".into()),
                state: Some("working".into()),
                task: Some("T-3".into()),
            },
        ),
        (".bare", Request::Describe { summary: None, state: None, task: None }),
        ("", Request::Rename { peer: Some("p-2".into()), new_name: "nova".into() }),
        (".bare", Request::Rename { peer: None, new_name: "nova".into() }),
        (
            "",
            Request::Peers(PeersQuery {
                cwd: Some("/api".into()),
                repo: Some("/api/.git".into()),
                text: Some("lu".into()),
                state: Some("idle".into()),
                client: Some("codex".into()),
                all: true,
                remote: true,
                after: Some(PeerId(2)),
            }),
        ),
        (".bare", Request::Peers(PeersQuery::default())),
        ("", Request::Send(send.clone())),
        (
            ".bare",
            Request::Send(Send {
                to: Vec::new(),
                intent: None,
                reply_to: None,
                thread: None,
                ttl_ms: None,
                sources: Vec::new(),
                idempotency_key: None,
                ..send
            }),
        ),
        (
            "",
            Request::Receive {
                filter: Filter {
                    from: Some("luna".into()),
                    thread: Some("t-9f2".into()),
                    kind: Some(Kind::Answer),
                    reply_to: Some(message_id(0)),
                },
                wait: true,
            },
        ),
        (".bare", Request::Receive { filter: Filter::default(), wait: false }),
        ("", Request::StopWaiting(300)),
        ("", Request::Offered { messages: ids.clone(), carrier: Carrier::Channel, last: false }),
        (
            "",
            Request::Presented {
                messages: ids.clone(),
                carrier: Carrier::ToolResult,
                evidence: Evidence::NextCall,
            },
        ),
        ("", Request::Ack { messages: ids.clone() }),
        ("", Request::Nack { messages: ids.clone() }),
        ("", Request::Read(message_id(1))),
        ("", Request::Inbox { peer: Some("*".into()), held: true, after: Some(position()) }),
        (".bare", Request::Inbox { peer: None, held: false, after: None }),
        ("", Request::Show(message_id(1))),
        (
            "",
            Request::History(HistoryQuery {
                peer: Some("luna".into()),
                with: Some("orion".into()),
                thread: Some("t-9f2".into()),
                channel: Some("#ops".into()),
                since: Some(AT),
                after: Some(message_id(1)),
                before: Some(message_id(2)),
                limit: 50,
            }),
        ),
        (".bare", Request::History(HistoryQuery::default())),
        ("", Request::Orphans { after: Some(position()) }),
        (".bare", Request::Orphans { after: None }),
        ("", Request::Requeue(message_id(1))),
        ("", Request::Reassign { message: message_id(1), to: "nova".into() }),
        ("", Request::Drop(message_id(1))),
        ("", Request::Cancel(message_id(1))),
        ("", Request::Watch { peer: Some("luna".into()), bodies: true }),
        (".bare", Request::Watch { peer: None, bodies: false }),
        ("", Request::Kick("luna".into())),
        ("", Request::Status),
        ("", Request::Shutdown),
        (
            "",
            Request::Report(Report {
                mode: Some(Mode::AcceptEdits),
                activity: Some(Activity::Working),
                carriers: Some(vec![Carrier::InboxSocket, Carrier::ToolResult]),
            }),
        ),
        (".bare", Request::Report(Report::default())),
        ("", Request::Hook(hook())),
        (
            ".bare",
            Request::Hook(HookCall {
                transcript: None,
                mode: None,
                agent: None,
                turn: None,
                tool_use: None,
                source: None,
                name: None,
                prolonged: false,
                ..hook()
            }),
        ),
        ("", Request::HookAnswer { call: 9, output: "{}".into(), asks_with: vec![message_id(1)] }),
        ("", Request::Policies),
        ("", Request::SetPolicy { peer: Some("luna".into()), policy: Some(Policy::Hold) }),
        (".bare", Request::SetPolicy { peer: None, policy: None }),
        ("", Request::SetConsent { inbox_socket_in_bypass: true }),
        ("", Request::Release { message: message_id(1), to: Some("luna".into()) }),
        (".bare", Request::Release { message: message_id(1), to: None }),
        ("", Request::Channel(ChannelRequest::List)),
        (
            "",
            Request::Ask(Ask {
                to: vec!["#ops".into()],
                question: "which port?".into(),
                context_hint: Some("config.toml".into()),
                ttl_ms: Some(60_000),
                idempotency_key: Some("k-2".into()),
            }),
        ),
        (
            ".bare",
            Request::Ask(Ask {
                to: Vec::new(),
                question: "which port?".into(),
                context_hint: None,
                ttl_ms: None,
                idempotency_key: None,
            }),
        ),
        (
            "",
            Request::Answer(Answer {
                question: message_id(1),
                answer: "8080".into(),
                sources: vec!["config.toml".into()],
                idempotency_key: Some("k-3".into()),
            }),
        ),
        (
            "",
            Request::Questions(QuestionsQuery {
                open: true,
                peer: Some("luna".into()),
                before: Some(message_id(2)),
            }),
        ),
        ("", Request::Task(TaskRequest::Show(TaskId(12)))),
        ("", Request::Note(NoteRequest::Get("api/port".into()))),
        (
            "",
            Request::Search(SearchQuery {
                text: "\"port is\" 80*".into(),
                kinds: vec![HitKind::Message, HitKind::Note],
                peer: Some("luna".into()),
                channel: Some("#ops".into()),
                thread: Some("t-9f2".into()),
                since: Some(AT),
                newest: true,
                limit: 20,
                offset: 40,
            }),
        ),
        (".bare", Request::Search(SearchQuery::default())),
        ("", Request::Pause(Pausing::Peer("luna".into()))),
        ("", Request::Resume(Pausing::All)),
        ("", Request::Purge { dry_run: true }),
        ("", Request::Refusals),
        ("", Request::Tried { messages: ids }),
        ("", Request::Link(link_requests().remove(0))),
        ("", Request::Links(links_requests().remove(0))),
    ]
}

pub(crate) fn channel_requests() -> Vec<ChannelRequest> {
    vec![
        ChannelRequest::List,
        ChannelRequest::Create { name: "#ops".into(), topic: "releases".into(), private: true },
        ChannelRequest::Join("@backend".into()),
        ChannelRequest::Leave("#ops".into()),
        ChannelRequest::Invite { name: "#ops".into(), peer: "luna".into() },
        ChannelRequest::SetTopic { name: "#ops".into(), topic: String::new() },
    ]
}

pub(crate) fn task_requests() -> Vec<TaskRequest> {
    vec![
        TaskRequest::Create(TaskDraft {
            title: "port the tests".into(),
            description: "all of them".into(),
            assignee: Some("luna".into()),
            needs: vec![TaskId(11)],
            idempotency_key: Some("k-4".into()),
        }),
        TaskRequest::Change { task: TaskId(12), act: TaskAct::Claim },
        TaskRequest::List(TasksQuery {
            state: Some(TaskState::Blocked),
            all: true,
            assignee: Some("luna".into()),
            creator: Some("orion".into()),
            text: Some("tests".into()),
            before: Some(TaskId(99)),
        }),
        TaskRequest::Show(TaskId(12)),
    ]
}

pub(crate) fn task_acts() -> Vec<TaskAct> {
    vec![
        TaskAct::Assign("luna".into()),
        TaskAct::Claim,
        TaskAct::Unclaim,
        TaskAct::Start,
        TaskAct::Block("no access".into()),
        TaskAct::Complete("merged".into()),
        TaskAct::Fail("no such test".into()),
        TaskAct::Cancel("not needed".into()),
        TaskAct::Reopen,
    ]
}

pub(crate) fn note_requests() -> Vec<NoteRequest> {
    vec![
        NoteRequest::Get("api/port".into()),
        NoteRequest::Set(NoteDraft {
            key: "api/port".into(),
            value: "8080".into(),
            tags: vec!["api".into()],
            ttl_ms: Some(60_000),
            if_version: Some(3),
        }),
        NoteRequest::Append { key: "log".into(), text: "done".into() },
        NoteRequest::List {
            prefix: "api/".into(),
            tag: Some("api".into()),
            after: Some("api/a".into()),
        },
        NoteRequest::Delete { key: "api/port".into(), if_version: Some(4) },
    ]
}

pub(crate) fn pausings() -> Vec<Pausing> {
    vec![Pausing::All, Pausing::Peer("luna".into()), Pausing::Thread("t-9f2".into())]
}

pub(crate) fn hook() -> HookCall {
    HookCall {
        event: HookEvent::PostToolBatch,
        seat: seat(),
        cwd: "/api".into(),
        transcript: Some("/home/luna/s-1.jsonl".into()),
        mode: Some(Mode::Bypass),
        agent: Some("a-1".into()),
        turn: Some("u-1".into()),
        tool_use: Some("toolu-1".into()),
        source: Some("clear".into()),
        name: Some("luna".into()),
        prolonged: true,
    }
}

pub(crate) fn replies() -> Vec<(&'static str, Reply)> {
    let registered = Registered {
        peer: PeerId(2),
        name: "luna-2".into(),
        token: Token([0xa5; 32]),
        takes_mail: true,
        notice: Some("luna was taken".into()),
        waiting: 3,
        inbox_socket_in_bypass: true,
    };
    let peer = PeerInfo {
        id: PeerId(2),
        name: "luna".into(),
        aliases: vec!["calm-fox".into()],
        client: "claude".into(),
        client_version: "2.1.0".into(),
        client_pid: Some(4_242),
        online: true,
        cwd: "/api".into(),
        git_root: Some("/api".into()),
        repo: Some("/api/.git".into()),
        host: "box".into(),
        summary: "porting the tests".into(),
        state: "working".into(),
        task: "T-3".into(),
        pending: 2,
        leased: 1,
        last_seen: AT,
        carriers: vec![proof(), CarrierProof { carrier: Carrier::ToolResult, proven_at: None }],
        activity: Some(Activity::Working),
        mode: Some(Mode::Prompting),
        policy: Policy::Hold,
        groups: vec!["@backend".into()],
        held: 1,
        offered: 1,
        full: false,
        paused: true,
        link: Some(PeerLink { name: "desk".into(), up: true, heard_at: Some(AT) }),
        hidden: true,
    };
    let accepted = SentDelivery {
        peer: PeerId(3),
        name: "orion".into(),
        stage: Some(Stage::Leased),
        online: true,
        carriers: vec![proof()],
        activity: Some(Activity::Idle),
        refusal: None,
    };
    let refused = SentDelivery {
        peer: PeerId(4),
        name: "nova".into(),
        stage: None,
        online: false,
        carriers: Vec::new(),
        activity: None,
        refusal: Some(refusal(ErrorCode::MailboxFull)),
    };
    let inbox = InboxEntry {
        message: message_id(1),
        from: "luna".into(),
        via: Via::Session,
        peer: PeerId(3),
        to: "orion".into(),
        intent: Intent::Request,
        stage: Stage::Offered,
        sent_at: AT,
        attempts: 1,
        text_bytes: 61_440,
    };
    let orphan = Orphan {
        message: message_id(1),
        from: "luna".into(),
        peer: PeerId(3),
        to: "p-3".into(),
        stage: Stage::Dead,
        cause: "peer_forgotten".into(),
        at: AT,
        text_bytes: 15,
    };
    let status = Status {
        version: "0.1.0".into(),
        protocol: 1,
        pid: 77,
        uptime_ms: 65_536,
        socket: "/d/broker.sock".into(),
        dir: "/d".into(),
        executable: "/bin/peerctl".into(),
        sandbox: true,
        peers_online: 2,
        peers_offline: 1,
        stored: 250,
        leased: 251,
        held: 0,
        dead: 1,
        messages_total: 4_294_967_296,
        oldest_at: Some(AT),
        commit_us_p50: 180,
        commit_us_max: 700,
        disk_free_bytes: 1 << 40,
        paused: vec![Pausing::All],
        refused: vec![("rate_limited".into(), 7)],
        used_up: vec![UsedUpThread {
            thread: "t-9f2".into(),
            turns: 12,
            speakers: vec!["luna".into(), "orion".into()],
            since: AT,
        }],
        config: vec![("limits.sender_per_minute".into(), "60".into())],
        config_fault: Some("line 1".into()),
        damaged: 3,
    };
    let channel = ChannelInfo {
        name: "#ops".into(),
        topic: "releases".into(),
        private: true,
        members: vec!["luna".into(), "orion".into()],
        joined: true,
        created_by: "luna".into(),
        created_at: AT,
        link: Some(PeerLink { name: "desk".into(), up: true, heard_at: Some(AT) }),
        asked: true,
    };
    let question = QuestionInfo {
        question: message_id(1),
        from: "luna".into(),
        to: vec!["#ops".into()],
        state: QuestionState::Answered,
        asked_at: AT,
        expires_at: AT.plus_ms(60_000),
        answered: Some(("orion".into(), message_id(2))),
    };
    let task = TaskInfo {
        id: TaskId(12),
        title: "port the tests".into(),
        description: "all of them".into(),
        state: TaskState::Started,
        creator: "orion".into(),
        assignee: Some("luna".into()),
        needs: vec![TaskId(11)],
        waits_for: vec![TaskId(11)],
        result: "half".into(),
        created_at: AT,
        changed_at: AT.plus_ms(1),
    };
    let note = NoteInfo {
        key: "api/port".into(),
        value: Some("8080".into()),
        tags: vec!["api".into()],
        version: 3,
        author: "luna".into(),
        changed_at: AT,
        expires_at: Some(AT.plus_ms(60_000)),
        bytes: 4,
    };
    let hit = Hit {
        kind: HitKind::Message,
        id: message_id(1).to_string(),
        from: "luna".into(),
        to: vec!["#ops".into()],
        at: AT,
        snippet: "the port is 8080".into(),
        matches: vec![(4, 8)],
    };
    let welcome = |authority| Welcome {
        version: "0.1.0".into(),
        executable: "/bin/peerctl".into(),
        pid: 77,
        authority,
    };
    vec![
        ("", Reply::Welcome(welcome(Authority::Session))),
        ("", Reply::Registered(registered.clone())),
        (".bare", Reply::Registered(Registered { notice: None, ..registered })),
        ("", Reply::Done),
        ("", Reply::Renamed { peer: PeerId(2), name: "nova".into() }),
        ("", Reply::Peers { peers: vec![peer], next: Some(PeerId(2)) }),
        (".bare", Reply::Peers { peers: Vec::new(), next: None }),
        (
            "",
            Reply::Sent(Sent {
                message: message_id(1),
                thread: "t-9f2".into(),
                deduplicated: false,
                deliveries: vec![accepted, refused],
            }),
        ),
        ("", Reply::Received(Received { messages: vec![message_id(1)], waiting: 7 })),
        ("", Reply::Acked { acked: vec![message_id(1)], unknown: vec![message_id(2)] }),
        ("", Reply::Text(Box::new(message()))),
        ("", Reply::Inbox { entries: vec![inbox], next: Some(position()) }),
        ("", Reply::Shown(Box::new(shown()))),
        ("", Reply::History { messages: vec![shown()], next: Some(message_id(1)) }),
        ("", Reply::Orphans { entries: vec![orphan], next: Some(position()) }),
        ("", Reply::Settled { deliveries: vec![("orion".into(), Stage::Cancelled)] }),
        ("", Reply::Status(Box::new(status))),
        ("", Reply::Hook { output: "{}".into() }),
        (
            "",
            Reply::Policies(Policies {
                default: Policy::Accept,
                escalation: Some(Policy::Hold),
                inbox_socket_in_bypass: true,
                peers: vec![("luna".into(), Policy::Refuse)],
            }),
        ),
        ("", Reply::Channels(vec![channel])),
        ("", Reply::Questions { questions: vec![question], next: Some(message_id(1)) }),
        ("", Reply::Tasks { tasks: vec![task], next: Some(TaskId(12)) }),
        ("", Reply::Note(note.clone())),
        (
            "",
            Reply::Notes {
                notes: vec![NoteInfo { value: None, expires_at: None, ..note }],
                next: Some("api/port".into()),
            },
        ),
        ("", Reply::Hits { hits: vec![hit], total: 1, behind: 12 }),
        ("", Reply::Paused(pausings())),
        ("", Reply::Purged { counts: vec![("messages".into(), 251)], text_bytes: 65_536 }),
        (
            "",
            Reply::Refusals(vec![RefusedSend {
                at: AT,
                from: "luna".into(),
                to: "orion".into(),
                thread: Some("t-9f2".into()),
                code: ErrorCode::ThreadPaused,
                message: "thread t-9f2 is paused".into(),
                beginning: "and one more thing".into(),
            }]),
        ),
        ("", Reply::Link(link_replies().remove(0))),
        ("", Reply::Links(link_infos())),
    ]
}

fn watched_delivery(reply_to: Option<MessageId>) -> WatchedDelivery {
    WatchedDelivery {
        message: message_id(1),
        from: "luna".into(),
        to: "orion".into(),
        thread: "t-9f2".into(),
        reply_to,
        intent: Intent::Request,
    }
}

pub(crate) fn events() -> Vec<(&'static str, WatchEvent)> {
    let stored = DeliveryEvent::Stored {
        cause: Some(Cause::Operator),
        text: Some("bcrypt version?".into()),
    };
    let bare = DeliveryEvent::Stored { cause: None, text: None };
    vec![
        (
            "",
            WatchEvent::Delivery { delivery: watched_delivery(Some(message_id(0))), what: stored },
        ),
        (".bare", WatchEvent::Delivery { delivery: watched_delivery(None), what: bare }),
        (
            "",
            WatchEvent::Refused {
                from: "luna".into(),
                to: Some("orion".into()),
                thread: Some("t-9f2".into()),
                reply_to: Some(message_id(0)),
                intent: Some(Intent::Inform),
                code: ErrorCode::ThreadPaused,
            },
        ),
        (
            ".bare",
            WatchEvent::Refused {
                from: "luna".into(),
                to: None,
                thread: None,
                reply_to: None,
                intent: None,
                code: ErrorCode::RateLimited,
            },
        ),
        ("", WatchEvent::PeerOnline { peer: "luna".into() }),
        ("", WatchEvent::PeerOffline { peer: "luna".into() }),
        ("", WatchEvent::PeerRenamed { peer: "luna".into(), new_name: "nova".into() }),
        ("", WatchEvent::PeerForgotten { peer: "luna".into() }),
        ("", WatchEvent::PeerChanged { peer: "luna".into(), news: "activity: busy".into() }),
        (
            "",
            WatchEvent::TaskChanged {
                task: TaskId(3),
                assignee: Some("orion".into()),
                state: TaskState::Claimed,
            },
        ),
        (
            ".bare",
            WatchEvent::TaskChanged { task: TaskId(3), assignee: None, state: TaskState::Open },
        ),
        ("", WatchEvent::Paused(Pausing::Peer("luna".into()))),
        ("", WatchEvent::Resumed(Pausing::All)),
        ("", WatchEvent::Loop { thread: "t-9f2".into(), turns: 24 }),
        ("", WatchEvent::Damaged { what: "a message".into() }),
    ]
}

pub(crate) fn delivery_events() -> Vec<DeliveryEvent> {
    vec![
        DeliveryEvent::Stored { cause: None, text: None },
        DeliveryEvent::Leased,
        DeliveryEvent::Offered { carrier: Carrier::Hook },
        DeliveryEvent::Returned { cause: Some(Cause::Nack) },
        DeliveryEvent::Presented { carrier: Some(Carrier::Hook), evidence: Evidence::Transcript },
        DeliveryEvent::Acked,
        DeliveryEvent::Answered,
        DeliveryEvent::Held,
        DeliveryEvent::Released,
        DeliveryEvent::Expired,
        DeliveryEvent::Cancelled { cause: Some(Cause::Operator) },
        DeliveryEvent::Dead { cause: Cause::AttemptsExceeded },
        DeliveryEvent::Dropped,
        DeliveryEvent::Relayed { stage: Stage::Offered },
        DeliveryEvent::Unrelayed,
        DeliveryEvent::Recalled,
        DeliveryEvent::Posted,
    ]
}

pub(crate) fn pushes() -> Vec<(&'static str, Push)> {
    vec![
        (
            "",
            Push::Deliver(Box::new(Delivery {
                message: message(),
                attempts: 1,
                shown_before: true,
            })),
        ),
        ("", Push::Overdue { message: message_id(1), carrier: Carrier::Channel }),
        ("", Push::Withdrawn { message: message_id(1), stage: Stage::Expired }),
        ("", Push::Renamed { name: "nova".into() }),
        ("", Push::Notice("your client was kicked".into())),
        (
            "",
            Push::Event { at: AT, event: Box::new(WatchEvent::PeerOnline { peer: "luna".into() }) },
        ),
        ("", Push::Goodbye(Goodbye::Stopping)),
        ("", Push::Hook { call: 9, hook: Box::new(hook()) }),
        ("", Push::Consent { inbox_socket_in_bypass: true }),
        ("", Push::Link(link_pushes().remove(0))),
    ]
}

pub(crate) fn reply_frame(reply: Reply) -> ServerFrame {
    ServerFrame::Reply { id: 7, result: Ok(reply) }
}

pub(crate) fn refusal_frame(code: ErrorCode) -> ServerFrame {
    ServerFrame::Reply { id: 7, result: Err(refusal(code)) }
}
