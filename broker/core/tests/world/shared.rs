//! What the scripts say of tasks and notes, and how the core's answers about them read.

use std::collections::BTreeMap;

use peer_proto::ids::TaskId;
use peer_proto::note::{NoteDraft, NoteInfo, NoteRequest};
use peer_proto::request::Request;
use peer_proto::task::{TaskAct, TaskDraft, TaskInfo, TaskRequest, TaskState, TasksQuery};

use super::World;
use super::script::duration_ms;

type Options<'a> = BTreeMap<&'a str, &'a str>;

impl World {
    /// `NAME task create [for=PEER] [needs=T-1,T-2] [key=K]: TITLE`,
    /// `NAME task ACT T-1 [to=PEER][: WORDS]`.
    pub fn run_task(
        &mut self,
        name: &str,
        words: &[&str],
        options: &Options<'_>,
        text: Option<&str>,
    ) {
        let owned = |key: &str| options.get(key).map(|value| (*value).to_owned());
        let said = text.unwrap_or("").to_owned();
        let request = match *words {
            ["create"] => TaskRequest::Create(TaskDraft {
                title: said,
                description: owned("description").unwrap_or_default(),
                assignee: owned("for"),
                needs: options
                    .get("needs")
                    .map_or_else(Vec::new, |needs| needs.split(',').map(task_id).collect()),
                idempotency_key: owned("key"),
            }),
            ["show", task] => TaskRequest::Show(task_id(task)),
            [act, task] => {
                let act = match act {
                    "assign" => TaskAct::Assign(owned("to").expect("assign has to=")),
                    "claim" => TaskAct::Claim,
                    "unclaim" => TaskAct::Unclaim,
                    "start" => TaskAct::Start,
                    "block" => TaskAct::Block(said),
                    "complete" => TaskAct::Complete(said),
                    "fail" => TaskAct::Fail(said),
                    "cancel" => TaskAct::Cancel(said),
                    "reopen" => TaskAct::Reopen,
                    other => panic!("no such act on a task in a script: {other}"),
                };
                TaskRequest::Change { task: task_id(task), act }
            }
            _ => panic!("no such line about tasks in a script: {words:?}"),
        };
        self.ask(name, Request::Task(request));
    }

    /// `NAME tasks [state=S] [assignee=PEER] [creator=PEER] [before=T-9] [all][: TEXT]`.
    pub fn run_tasks(
        &mut self,
        name: &str,
        words: &[&str],
        options: &Options<'_>,
        text: Option<&str>,
    ) {
        let state = |name: &&str| name.parse::<TaskState>().expect("a state of a task");
        let query = TasksQuery {
            state: options.get("state").map(state),
            all: words == ["all"],
            assignee: options.get("assignee").map(|name| (*name).to_owned()),
            creator: options.get("creator").map(|name| (*name).to_owned()),
            text: text.map(str::to_owned),
            before: options.get("before").map(|id| task_id(id)),
        };
        self.ask(name, Request::Task(TaskRequest::List(query)));
    }

    /// `NAME note set|append KEY [tags=A,B] [ttl=5s] [if=1]: VALUE`, `NAME note get|delete KEY`.
    pub fn run_note(
        &mut self,
        name: &str,
        words: &[&str],
        options: &Options<'_>,
        text: Option<&str>,
    ) {
        let value = text.unwrap_or("").to_owned();
        let if_version = options.get("if").map(|version| version.parse().expect("a version"));
        let tags = options
            .get("tags")
            .map_or_else(Vec::new, |tags| tags.split(',').map(str::to_owned).collect());
        let request = match *words {
            ["get", key] => NoteRequest::Get(key.to_owned()),
            ["set", key] => {
                let ttl_ms = options.get("ttl").map(|ttl| duration_ms(ttl));
                NoteRequest::Set(NoteDraft { key: key.to_owned(), value, tags, ttl_ms, if_version })
            }
            ["append", key] => NoteRequest::Append { key: key.to_owned(), text: value },
            ["delete", key] => NoteRequest::Delete { key: key.to_owned(), if_version },
            _ => panic!("no such line about notes in a script: {words:?}"),
        };
        self.ask(name, Request::Note(request));
    }

    /// `NAME notes [PREFIX] [tag=T] [after=KEY]`.
    pub fn run_notes(&mut self, name: &str, words: &[&str], options: &Options<'_>) {
        let owned = |key: &str| options.get(key).map(|value| (*value).to_owned());
        let prefix = words.first().copied().unwrap_or("").to_owned();
        self.ask(
            name,
            Request::Note(NoteRequest::List { prefix, tag: owned("tag"), after: owned("after") }),
        );
    }
}

fn task_id(text: &str) -> TaskId {
    text.parse().expect("a task's id")
}

pub fn tasks_line(tasks: &[TaskInfo], next: Option<TaskId>) -> String {
    let line = |task: &TaskInfo| {
        let mut line = format!("{} {} by {}", task.id, task.state.as_str(), task.creator);
        if let Some(assignee) = &task.assignee {
            line += &format!(" for {assignee}");
        }
        for (what, ids) in [("needs", &task.needs), ("waits for", &task.waits_for)] {
            if !ids.is_empty() {
                line += &format!(
                    " {what} {}",
                    ids.iter().map(TaskId::to_string).collect::<Vec<_>>().join(",")
                );
            }
        }
        if !task.result.is_empty() {
            line += &format!(" ({})", task.result);
        }
        line
    };
    let more = next.map_or(String::new(), |next| format!("; more before {next}"));
    format!("tasks: {}{more}", tasks.iter().map(line).collect::<Vec<_>>().join("; "))
}

pub fn notes_line(notes: &[NoteInfo], next: Option<&str>) -> String {
    let more = next.map_or(String::new(), |next| format!("; more after {next}"));
    format!("notes: {}{more}", notes.iter().map(note_line).collect::<Vec<_>>().join("; "))
}

pub fn note_line(note: &NoteInfo) -> String {
    let tags =
        if note.tags.is_empty() { String::new() } else { format!(" [{}]", note.tags.join(" ")) };
    format!("{} version {} by {}{tags}, {} bytes", note.key, note.version, note.author, note.bytes)
}
