//! Scenarios of a record: which lines are evidence, and which are not.

use super::*;
use crate::render::{self, BLOCK_CHARS_MAX, Body, EXCERPT_CHARS_MAX, Showing};
use crate::samples::request;

const HOOK: Option<Carrier> = Some(Carrier::Hook);

fn id(number: u32) -> MessageId {
    MessageId::try_from(u128::from(number)).unwrap()
}

fn text_of(number: u32) -> Text {
    let body = Body::new("ping");
    let showing = Showing {
        shown_before: false,
        home: "",
        offset: 0,
        chars_max: EXCERPT_CHARS_MAX,
        budget: BLOCK_CHARS_MAX,
    };
    Text {
        call: None,
        text: render::message(&request(number, "luna", "ping"), &body, showing).quoted,
    }
}

fn prompt(name: &str, after: &str) -> Vec<RecordLine> {
    vec![
        RecordLine::Entry(name.to_owned()),
        RecordLine::Prompt { after: (!after.is_empty()).then(|| after.to_owned()) },
    ]
}

fn shown(name: &str, number: u32) -> Vec<RecordLine> {
    vec![
        RecordLine::Entry(name.to_owned()),
        RecordLine::Shown { by: HOOK, texts: vec![text_of(number)] },
    ]
}

fn message(name: &str, extends: Option<&str>, number: u32) -> Vec<RecordLine> {
    let texts = if number > 0 { vec![text_of(number)] } else { Vec::new() };
    vec![RecordLine::Message { name: name.to_owned(), extends: extends.map(str::to_owned), texts }]
}

fn asked(name: &str, base: Option<(&str, usize)>, tail: &[&str]) -> Vec<RecordLine> {
    let base = base.map(|(base, keep)| (base.to_owned(), keep));
    vec![RecordLine::Request {
        name: name.to_owned(),
        base,
        tail: tail.iter().map(|name| (*name).to_owned()).collect(),
    }]
}

fn answered(name: &str, request: Basis) -> Vec<RecordLine> {
    vec![
        RecordLine::Entry(format!("answer {name}")),
        RecordLine::Answered { name: name.to_owned(), request, is_sure: true },
    ]
}

fn told(name: &str, request: &str) -> Vec<RecordLine> {
    answered(name, Basis::Request(request.to_owned()))
}

fn said(name: &str) -> Vec<RecordLine> {
    vec![RecordLine::Answered { name: name.to_owned(), request: Basis::Untold, is_sure: false }]
}

/// Returns the seen and the withdrawn messages, by number, after all these lines.
fn read(
    scan: &mut Scan,
    lines: impl IntoIterator<Item = Vec<RecordLine>>,
) -> (Vec<MessageId>, Vec<MessageId>) {
    let mut looked = RecordNews::default();
    for line in lines {
        scan.take(line, &[id(1), id(2)], &mut looked);
    }
    let seen = looked.seen.iter().map(|seen| seen.message).collect();
    (seen, looked.withdrawn.iter().map(|(message, _)| *message).collect())
}

fn verdict(lines: impl IntoIterator<Item = Vec<RecordLine>>) -> (Vec<MessageId>, Vec<MessageId>) {
    read(&mut Scan::default(), lines)
}

#[test]
fn an_answer_proves_what_its_own_request_had() {
    let before = || {
        [
            prompt("p1", "e0"),
            shown("t1", 1),
            message("b1", None, 1),
            asked("r1", None, &["a0", "b1"]),
        ]
    };
    assert_eq!(verdict(before().into_iter().chain([told("m1", "r1")])), (vec![id(1)], vec![]));
    // The prompt was removed, and the next request lacks the mail that came with it.
    let taken_back = [prompt("p2", "e0"), asked("r2", Some(("r1", 1)), &["b2"]), told("m2", "r2")];
    assert_eq!(verdict(before().into_iter().chain(taken_back)), (vec![], vec![id(1)]));
    // Interrupted later, the conversation kept it.
    let kept = [prompt("p2", "t1"), asked("r2", Some(("r1", 2)), &["b2"]), told("m2", "r2")];
    assert_eq!(verdict(before().into_iter().chain(kept)), (vec![id(1)], vec![]));
    // The chain of parents does not matter.
    let kept = [prompt("p2", "e0"), asked("r2", Some(("r1", 2)), &["b2"]), told("m2", "r2")];
    assert_eq!(verdict(before().into_iter().chain(kept)), (vec![id(1)], vec![]));
}

#[test]
fn a_message_of_a_request_may_be_entries_in_a_row() {
    let row = [
        message("a", None, 0),
        message("b", Some("a"), 1),
        message("c", Some("b"), 2),
        message("d", Some("c"), 0),
    ];
    let ask = |name: &str| {
        verdict(row.iter().cloned().chain([asked("r", None, &[name]), told("m", "r")])).0
    };
    assert_eq!((ask("a"), ask("b"), ask("d")), (vec![], vec![id(1)], vec![id(1), id(2)]));
}

#[test]
fn an_answer_proves_nothing_where_its_request_is_not_known_in_a_record_that_names_requests() {
    let mut scan = Scan::default();
    let lines =
        [asked("r0", None, &["a0"]), shown("t1", 1), message("b1", None, 1), told("m1", "r1")];
    assert_eq!(read(&mut scan, lines), (vec![], vec![]));
    let late = read(&mut scan, [asked("r1", Some(("r0", 1)), &["b1"])]);
    assert_eq!(late, (vec![id(1)], vec![]), "it was written down later");
    // The first requests of a record, one of them removed, are recorded after the first answer.
    let mut scan = Scan::default();
    let first = [
        shown("t1", 1),
        message("b1", None, 1),
        shown("t2", 2),
        message("b2", None, 2),
        told("m2", "r2"),
    ];
    assert_eq!(read(&mut scan, first), (vec![], vec![]));
    let late = read(&mut scan, [asked("r1", None, &["b1"]), asked("r2", Some(("r1", 0)), &["b2"])]);
    assert_eq!(late, (vec![id(2)], vec![id(1)]));
    let changed = [
        asked("r0", None, &["a0"]),
        shown("t1", 1),
        message("b1", None, 1),
        answered("m1", Basis::Changed),
    ];
    assert_eq!(verdict(changed), (vec![], vec![]), "nobody knows what was asked");
}

#[test]
fn without_requests_an_unanswered_prompt_is_taken_back_with_all_that_came_since() {
    let before = || [answered("m0", Basis::Untold), prompt("p1", "answer m0"), shown("t1", 1)];
    let answer = || answered("m1", Basis::Untold);
    assert_eq!(verdict(before().into_iter().chain([answer()])), (vec![id(1)], vec![]));
    for after in ["answer m0", "t1"] {
        assert_eq!(
            verdict(before().into_iter().chain([prompt("p2", after), answer()])),
            (vec![], vec![id(1)]),
            "{after}"
        );
    }
    // A post wakes the session in between.
    let other = [prompt("p2", "answer m0"), shown("t2", 2), answer()];
    assert_eq!(verdict(before().into_iter().chain(other)), (vec![id(2)], vec![id(1)]));
}

#[test]
fn without_requests_what_stands_behind_the_entry_that_a_prompt_follows_is_taken_back() {
    let turn = || [prompt("p1", ""), answered("m1", Basis::Untold), shown("t1", 1)];
    let answer = || answered("m2", Basis::Untold);
    let on = |after: &str| verdict(turn().into_iter().chain([prompt("p2", after), answer()]));
    assert_eq!(on("t1"), (vec![id(1)], vec![]), "the turn was broken off, and its results stay");
    for rewound in ["answer m1", "p1", "", "elsewhere"] {
        assert_eq!(on(rewound), (vec![], vec![id(1)]), "{rewound}");
    }
}

#[test]
fn a_summarisers_answer_proves_nothing() {
    let compacted = |texts: Vec<Text>| vec![RecordLine::Compacted(texts)];
    let went_on = || vec![RecordLine::WentOn];
    assert_eq!(verdict([shown("t1", 1), said("1")]), (vec![], vec![]), "it may be a summary");
    assert_eq!(verdict([shown("t1", 1), said("1"), went_on()]), (vec![id(1)], vec![]));
    assert_eq!(
        verdict([shown("t1", 1), said("1"), answered("1", Basis::Untold)]),
        (vec![id(1)], vec![]),
        "it calls a tool"
    );
    let summed_up = [shown("t1", 1), said("1"), compacted(vec![]), said("2"), went_on()];
    assert_eq!(verdict(summed_up), (vec![], vec![id(1)]));
    let kept = [shown("t1", 1), said("1"), compacted(vec![text_of(1)]), said("2")];
    let mut scan = Scan::default();
    assert_eq!(read(&mut scan, kept).0, [], "the summariser's answer is none");
    assert_eq!(read(&mut scan, [went_on()]).0, [id(1)], "the next one is, where the text survived");
    let aborted = [shown("t1", 1), said("1"), vec![RecordLine::Aborted], went_on()];
    assert_eq!(verdict(aborted), (vec![], vec![]));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut scan = Scan::default();
    let mut lines = vec![shown("t1", 1)];
    for number in 0..3_000 {
        let name = number.to_string();
        lines.push(message(&name, None, 1));
        lines.push(asked(&name, None, &[&name]));
        lines.push(vec![RecordLine::Entry(name.clone())]);
        lines.push(told(&name, "elsewhere"));
    }
    read(&mut scan, lines);
    assert_eq!(
        (scan.requests.len(), scan.messages.len(), scan.names.len()),
        (REQUESTS_MAX, MESSAGES_MAX, MESSAGES_MAX)
    );
    assert_eq!(
        (scan.entries.len(), scan.answers.len(), scan.awaited.len()),
        (ENTRIES_MAX, ANSWERS_MAX, ANSWERS_MAX)
    );
}
