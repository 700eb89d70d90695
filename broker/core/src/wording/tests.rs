//! Every refusal and notice, for each of its readers.

use std::collections::BTreeSet;

use peer_proto::ids::BrokerId;
use peer_proto::task::TaskState;

use super::*;

const STANDINGS: [Obstacle; 9] = [
    Obstacle::Presented,
    Obstacle::Withdrawn,
    Obstacle::DeadLetter,
    Obstacle::Settled,
    Obstacle::Orphaned,
    Obstacle::There,
    Obstacle::NoDeadLetter,
    Obstacle::HeldForOthers,
    Obstacle::NotHeld,
];

const CROWDS: [Crowd; 9] = [
    Crowd::PausedThreads,
    Crowd::Channels,
    Crowd::Members,
    Crowd::OpenQuestions,
    Crowd::OpenTasks,
    Crowd::Notes,
    Crowd::Purges,
    Crowd::Links,
    Crowd::LinkPeers,
];

/// What only the person may run.
const PERSONS: [&str; 14] = [
    "peerctl rename",
    "peerctl kick",
    "peerctl policy",
    "peerctl release",
    "peerctl pause",
    "peerctl resume",
    "peerctl daemon stop",
    "peerctl daemon restart",
    "peerctl daemon reindex",
    "peerctl orphans requeue",
    "peerctl orphans reassign",
    "peerctl orphans drop",
    "peerctl purge",
    "peerctl restore",
];

const TOOLS: [&str; 12] = [
    "list_peers",
    "send_message",
    "check_messages",
    "ack_messages",
    "set_summary",
    "rename_peer",
    "ask_peer",
    "answer_question",
    "search(",
    "channels(",
    "tasks(",
    "memory(",
];

/// Every refusal there is, those with several texts several times.
fn every_rejection() -> Vec<Rejection> {
    let (id, task) = (MessageId::MIN, TaskId(1));
    let luna = || "luna".to_owned();
    let near = || vec!["lina".to_owned()];
    let mut all = vec![
        Rejection::NotRegistered,
        Rejection::AlreadyRegistered,
        Rejection::HelloTwice,
        Rejection::UnknownPeer { name: luna(), nearest: Vec::new() },
        Rejection::UnknownPeer { name: luna(), nearest: near() },
        Rejection::NoMailbox { name: luna(), why: NoMailbox::System },
        Rejection::UnknownMessage(id),
        Rejection::DamagedMessage(id),
        Rejection::EmptyText,
        Rejection::TextTooLarge { bytes: 2, bytes_max: 1 },
        Rejection::BadName { name: luna() },
        Rejection::ReservedName { name: luna() },
        Rejection::NameTaken { name: luna() },
        Rejection::OutOfBounds { what: "the title", bound: "at most 1".to_owned() },
        Rejection::RateLimited { who: luna(), to: String::new(), per_minute: 1, retry_after_ms: 1 },
        Rejection::MailboxFull { name: luna(), pending: 1 },
        Rejection::IdenticalText { name: luna(), ago_ms: 1, retry_after_ms: 1 },
        Rejection::ThreadPaused { thread: "t".to_owned(), turns: 1 },
        Rejection::Paused { what: luna(), is_thread: false },
        Rejection::Paused { what: "t".to_owned(), is_thread: true },
        Rejection::RefusedByPolicy { name: luna() },
        Rejection::NotPermitted { act: Act::Pause },
        Rejection::OnAnotherMachine { name: luna(), bar: RemoteBar::Rename },
        Rejection::OnAnotherMachine { name: luna(), bar: RemoteBar::TakeLabel },
        Rejection::OnAnotherMachine { name: "#a@b".to_owned(), bar: RemoteBar::ChangeChannel },
        Rejection::OnAnotherMachine { name: "#a@b".to_owned(), bar: RemoteBar::AskChannel },
        Rejection::NoSession { name: luna() },
        Rejection::HookGone,
        Rejection::NoSpace,
        Rejection::TooManyPeers { peers: 1 },
        Rejection::TooManyNewPeers { per_minute: 1, of_one: true, retry_after_ms: 1 },
        Rejection::TooManyWaits { waits: 1 },
        Rejection::BadToken,
        Rejection::NotLeased(id),
        Rejection::IdempotencyConflict { key: "k".to_owned(), message: id },
        Rejection::UnknownChannel { name: "#a".to_owned(), nearest: Vec::new() },
        Rejection::UnknownChannel { name: "#a".to_owned(), nearest: near() },
        Rejection::NotMember { name: "#a".to_owned() },
        Rejection::NeedsInvitation { name: "#a".to_owned() },
        Rejection::OlderThanChannel { name: "#a".to_owned() },
        Rejection::OutsideChannel { channel: "#a".to_owned(), name: luna() },
        Rejection::EmptyGroup { name: "@a".to_owned() },
        Rejection::BadChannelName { name: "a".to_owned() },
        Rejection::ChannelTaken { name: "#a".to_owned() },
        Rejection::BroadcastTooWide { online: 2, broadcast_max: 1 },
        Rejection::NobodyToAsk,
        Rejection::AskedOneself,
        Rejection::UnknownQuestion(id),
        Rejection::OwnQuestion(id),
        Rejection::QuestionClosed { question: id, ended: QuestionEnd::Expired },
        Rejection::QuestionClosed { question: id, ended: QuestionEnd::Answered(luna(), id) },
        Rejection::UnknownNote { key: "k".to_owned() },
        Rejection::VersionConflict { key: "k".to_owned(), version: 1, value: String::new() },
        Rejection::UnknownTask(task),
        Rejection::TaskHeld { task, holder: luna() },
        Rejection::BadTransition {
            task,
            state: TaskState::Open,
            why: TaskBar::WaitsFor(vec![TaskId(2)]),
        },
        Rejection::BadFrame { reason: "its frame is too large".to_owned() },
        Rejection::NoHello,
        Rejection::TooManyConnections { connections: 1, retry_after_ms: 1 },
        Rejection::NoPlace { retry_after_ms: 1 },
        Rejection::NothingStored,
        Rejection::AnswerTooLarge,
        Rejection::Stopping,
        Rejection::UnknownLink { name: "desk".to_owned() },
        Rejection::LinkRefused { alias: "desk".to_owned() },
        Rejection::LinkIsUp { alias: "desk".to_owned() },
        Rejection::LinkToItself,
        Rejection::OtherIdentity { known: BrokerId([1; 16]), own: BrokerId([2; 16]) },
        Rejection::NoIndex { reason: "it is damaged".to_owned() },
        Rejection::SearchDied { deaths: 2, last_words: "killed".to_owned(), retry_after_ms: 1 },
        Rejection::SearchGivenUp { after_ms: 1 },
    ];
    all.extend(STANDINGS.map(|obstacle| Rejection::TooLate { message: id, obstacle }));
    all.extend(CROWDS.map(|what| Rejection::TooMany { what, count: 1 }));
    all
}

/// The variants of an enum, as its source has them.
fn variants(of: &str) -> BTreeSet<String> {
    let source = include_str!("../rejection.rs");
    let (_, body) = source.split_once(&format!("pub enum {of} {{\n")).expect("the enum is there");
    let (body, _) = body.split_once("\n}").expect("it ends");
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    lines
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(name)
        .collect()
}

/// The word at the beginning: of a variant its name.
fn name(text: impl AsRef<str>) -> String {
    text.as_ref().chars().take_while(|char| char.is_ascii_alphanumeric()).collect()
}

#[test]
fn these_tests_know_every_refusal() {
    let known = |all: Vec<String>| all.iter().map(name).collect::<BTreeSet<String>>();
    assert_eq!(
        known(every_rejection().iter().map(|one| format!("{one:?}")).collect()),
        variants("Rejection")
    );
    assert_eq!(known(STANDINGS.map(|one| format!("{one:?}")).to_vec()), variants("Obstacle"));
    assert_eq!(known(CROWDS.map(|one| format!("{one:?}")).to_vec()), variants("Crowd"));
}

#[test]
fn a_model_is_told_tools_and_whoever_types_is_told_commands() {
    for rejection in every_rejection() {
        let [model, person, shell] = [Addressee::Model, Addressee::Person, Addressee::Shell]
            .map(|addressee| rejection.refusal(addressee));
        for text in [&model.message, &model.hint] {
            assert!(!text.contains("peerctl"), "{rejection:?} tells a model a command: {text}");
        }
        for text in [&person.message, &person.hint, &shell.message, &shell.hint] {
            let tool = TOOLS.iter().find(|tool| text.contains(**tool));
            assert_eq!(tool, None, "{rejection:?} tells whoever types a tool: {text}");
        }
        let forbidden = PERSONS.iter().find(|command| shell.hint.contains(**command));
        assert_eq!(
            forbidden, None,
            "{rejection:?} tells an agent's shell what it may not run: {}",
            shell.hint
        );
    }
}

#[test]
fn every_refusal_says_why_and_what_next_in_the_form_of_an_error() {
    for rejection in every_rejection() {
        for addressee in [Addressee::Model, Addressee::Person, Addressee::Shell] {
            let refusal = rejection.refusal(addressee);
            for text in [refusal.message, refusal.hint] {
                assert!(
                    !text.is_empty() && !text.ends_with('.') && text.trim() == text,
                    "{rejection:?}: {text:?}"
                );
                assert!(
                    !text.starts_with(|first: char| first.is_uppercase()),
                    "{rejection:?}: {text:?}"
                );
            }
        }
    }
}

#[test]
fn what_is_said_before_anybody_said_who_they_are_reads_the_same_for_all() {
    let early = ["BadFrame", "NoHello", "NoPlace", "TooManyConnections", "AnswerTooLarge"];
    for rejection in
        every_rejection().into_iter().filter(|one| early.contains(&&*name(format!("{one:?}"))))
    {
        assert_eq!(rejection.refusal(Addressee::Model), rejection.refusal(Addressee::Person));
        assert_eq!(rejection.refusal(Addressee::Model), rejection.refusal(Addressee::Shell));
    }
}

#[test]
fn a_notice_to_a_session_names_tools_and_one_to_the_person_commands() {
    let (id, luna) = (MessageId::MIN, PeerId::FIRST);
    let notices = |peer: PeerId| {
        let to = Addressee::of_mail_to(peer);
        [
            dead_letter(id, "orion", Cause::PeerForgotten, 1, to),
            invitation("orion", "#plan", "", to),
            asked_session_ended("orion", id, 0, to),
            claim_it(TaskId(1), to),
        ]
    };
    for text in notices(luna) {
        assert!(!text.contains("peerctl"), "{text}");
    }
    for text in
        notices(PeerId::HUMAN).into_iter().chain([used_up_thread("t", &["orion".to_owned()], 1)])
    {
        assert!(
            text.contains("`peerctl ") && !TOOLS.iter().any(|tool| text.contains(tool)),
            "{text}"
        );
    }
}
