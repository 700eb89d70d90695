//! `peerctl tasks`: lists and changes the tasks that sessions share.
//!
//! Does not know the legal changes of a task: the broker decides.

use clap::Subcommand;
use peer_client::Endpoint;
use peer_proto::ids::TaskId;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{Reply, Request};
use peer_proto::task::{TaskAct, TaskDraft, TaskInfo, TaskRequest, TaskState, TasksQuery};
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::json::Time;
use crate::operator::{Operator, unexpected};
use crate::output::{Output, age, beginning, cell};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  peerctl tasks                            unfinished tasks, newest first
  peerctl tasks list --all --assignee backend
  peerctl tasks create --for backend -- \"fix the login\"
  peerctl tasks create --needs T-1,T-2 -- \"release\"
  peerctl tasks claim T-3
  peerctl tasks complete T-3 -- \"merged as 4f2a\"

If several sessions claim a task, one of them gets it. A claim ends with its
session. The creator and the assignee are told of every change. Assignees of
tasks that need this one are told when it ends. You may assign, unclaim, cancel
and reopen any task.";

/// Tasks that are listed if no number is given.
const LISTED: usize = 50;

/// Most characters of a title in the table.
const TITLE_CHARS_MAX: usize = 32;

/// List and change the tasks that sessions share
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<TasksCommand>,

    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only tasks in this state
    #[arg(long, value_parser = state, conflicts_with = "all")]
    state: Option<TaskState>,

    /// Also tasks that have ended
    #[arg(long)]
    all: bool,

    /// Only tasks that are assigned to this peer; `me` is you
    #[arg(long, value_name = "PEER")]
    assignee: Option<String>,

    /// Only tasks that this peer created
    #[arg(long, value_name = "PEER")]
    creator: Option<String>,

    /// Only tasks with this text in their title or description
    #[arg(long)]
    text: Option<String>,

    /// Print at most this many, the newest
    #[arg(short, default_value_t = LISTED, value_name = "N")]
    n: usize,
}

#[derive(Debug, Subcommand)]
enum TasksCommand {
    /// List tasks
    List(Filter),
    /// Show one task
    Show { task: String },
    /// Create a task
    Create {
        /// The peer that the task is assigned to
        #[arg(long = "for", value_name = "PEER")]
        assignee: Option<String>,
        /// The tasks that must be complete first, separated by commas
        #[arg(long, value_name = "TASKS")]
        needs: Option<String>,
        /// More about the task
        #[arg(long)]
        description: Option<String>,
        /// Your name for this act: a repeat creates no second task
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
        /// What is to be done, in one line
        #[arg(required = true)]
        title: Vec<String>,
    },
    /// Assign a task to a peer
    Assign { task: String, peer: String },
    /// Claim an open task for yourself
    Claim { task: String },
    /// Give up a claim, also that of another peer
    Unclaim { task: String },
    /// Start a claimed task, or continue a blocked one
    Start { task: String },
    /// Mark a task as blocked, with the reason
    Block {
        task: String,
        #[arg(required = true)]
        why: Vec<String>,
    },
    /// Mark a task as complete, with its result; - reads standard input
    Complete { task: String, result: Vec<String> },
    /// Mark a task as failed, with the reason
    Fail {
        task: String,
        #[arg(required = true)]
        why: Vec<String>,
    },
    /// Cancel a task that is no longer wanted, with the reason
    Cancel { task: String, why: Vec<String> },
    /// Reopen a task that has ended
    Reopen { task: String },
}

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TaskRow {
    id: String,
    title: String,
    description: String,
    state: &'static str,
    /// The name of the peer that created it.
    creator: String,
    /// The name of the peer that it is assigned to.
    assignee: Option<String>,
    /// The tasks that must be complete first.
    needs: Vec<String>,
    /// Those of them that are not complete yet.
    waits_for: Vec<String>,
    /// The result, or the reason why it cannot be done.
    result: String,
    created_at: Time,
    changed_at: Time,
}

impl From<&TaskInfo> for TaskRow {
    fn from(task: &TaskInfo) -> Self {
        let ids = |ids: &[TaskId]| ids.iter().map(TaskId::to_string).collect();
        Self {
            id: task.id.to_string(),
            title: task.title.clone(),
            description: task.description.clone(),
            state: task.state.as_str(),
            creator: task.creator.clone(),
            assignee: task.assignee.clone(),
            needs: ids(&task.needs),
            waits_for: ids(&task.waits_for),
            result: task.result.clone(),
            created_at: Time(task.created_at),
            changed_at: Time(task.changed_at),
        }
    }
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let change = |task: &str, act: TaskAct| {
        Ok::<_, Failure>(TaskRequest::Change { task: task_id(task)?, act })
    };
    let request = match args.command.unwrap_or(TasksCommand::List(args.filter)) {
        TasksCommand::List(filter) => {
            let wanted = filter.n;
            let tasks = read(&Operator::connect(endpoint).await?, filter.into(), wanted).await?;
            return list(output, &tasks);
        }
        TasksCommand::Show { task } => TaskRequest::Show(task_id(&task)?),
        TasksCommand::Create { assignee, needs, description, idempotency_key, title } => {
            TaskRequest::Create(TaskDraft {
                title: title.join(" "),
                description: description.unwrap_or_default(),
                assignee: assignee.map(parse::peer),
                needs: needs
                    .iter()
                    .flat_map(|ids| ids.split(','))
                    .map(|id| task_id(id.trim()))
                    .collect::<Result<_, _>>()?,
                idempotency_key: Some(idempotency_key.unwrap_or_else(parse::fresh_key)),
            })
        }
        TasksCommand::Assign { task, peer } => change(&task, TaskAct::Assign(parse::peer(peer)))?,
        TasksCommand::Claim { task } => change(&task, TaskAct::Claim)?,
        TasksCommand::Unclaim { task } => change(&task, TaskAct::Unclaim)?,
        TasksCommand::Start { task } => change(&task, TaskAct::Start)?,
        TasksCommand::Block { task, why } => change(&task, TaskAct::Block(words(&why)?))?,
        TasksCommand::Complete { task, result } => {
            change(&task, TaskAct::Complete(words(&result)?))?
        }
        TasksCommand::Fail { task, why } => change(&task, TaskAct::Fail(words(&why)?))?,
        TasksCommand::Cancel { task, why } => change(&task, TaskAct::Cancel(words(&why)?))?,
        TasksCommand::Reopen { task } => change(&task, TaskAct::Reopen)?,
    };
    let whole = matches!(request, TaskRequest::Show(_));
    let operator = Operator::connect(endpoint).await?;
    let Reply::Tasks { tasks, .. } = operator.ask(Request::Task(request)).await? else {
        return Err(unexpected());
    };
    let [task] = tasks.as_slice() else { return Err(unexpected()) };
    if output.json {
        return output.json(&TaskRow::from(task));
    }
    if whole {
        show(output, task)
    } else {
        output.line(&format!("{} is {}{}", task.id, task.state.as_str(), whose(task)))
    }
}

impl From<Filter> for TasksQuery {
    fn from(filter: Filter) -> Self {
        let Filter { state, all, assignee, creator, text, n: _ } = filter;
        Self {
            state,
            all,
            assignee: assignee.map(parse::peer),
            creator: creator.map(parse::peer),
            text,
            before: None,
        }
    }
}

/// Reads the newest tasks, over all pages.
async fn read(
    operator: &Operator,
    mut query: TasksQuery,
    wanted: usize,
) -> Result<Vec<TaskInfo>, Failure> {
    let mut all: Vec<TaskInfo> = Vec::new();
    while all.len() < wanted {
        let request = Request::Task(TaskRequest::List(query.clone()));
        let Reply::Tasks { tasks, next } = operator.ask(request).await? else {
            return Err(unexpected());
        };
        all.extend(tasks);
        match next {
            Some(_) => query.before = next,
            None => break,
        }
    }
    all.truncate(wanted);
    Ok(all)
}

fn list(output: &Output, tasks: &[TaskInfo]) -> Result<(), Failure> {
    if output.json {
        return output.json_rows(tasks.iter().map(TaskRow::from));
    }
    let rows: Vec<_> = tasks
        .iter()
        .map(|task| {
            vec![
                task.id.to_string(),
                task.state.as_str().to_owned(),
                task.assignee.as_deref().map_or_else(|| "-".to_owned(), cell),
                cell(&task.creator),
                age(task.changed_at),
                if task.waits_for.is_empty() { "-".to_owned() } else { ids(&task.waits_for) },
                beginning(&single_line(&task.title), TITLE_CHARS_MAX),
            ]
        })
        .collect();
    output.table(
        &["TASK", "STATE", "FOR", "BY", "AGE", "WAITS", "TITLE"],
        &rows,
        "no tasks; --all also lists tasks that have ended",
    )
}

fn show(output: &Output, task: &TaskInfo) -> Result<(), Failure> {
    let mut facts = vec![
        ("task", task.id.to_string()),
        ("state", task.state.as_str().to_owned()),
        ("made by", format!("{}, {} ago", cell(&task.creator), age(task.created_at))),
        (
            "for",
            task.assignee.as_deref().map_or_else(|| "any peer that claims it".to_owned(), cell),
        ),
        ("changed", format!("{} ago", age(task.changed_at))),
    ];
    if !task.needs.is_empty() {
        let left = if task.waits_for.is_empty() {
            "all complete".to_owned()
        } else {
            format!("waits for {}", ids(&task.waits_for))
        };
        facts.push(("needs", format!("{}: {left}", ids(&task.needs))));
    }
    output.facts(&facts)?;
    output.quoted(&task.title)?;
    if !task.description.is_empty() {
        output.quoted(&task.description)?;
    }
    if !task.result.is_empty() {
        output.line(if task.state == TaskState::Completed { "result" } else { "because" })?;
        output.quoted(&task.result)?;
    }
    Ok(())
}

fn whose(task: &TaskInfo) -> String {
    match &task.assignee {
        Some(name) if task.state == TaskState::Open => format!(", assigned to {}", cell(name)),
        Some(name) => format!(", held by {}", cell(name)),
        None => String::new(),
    }
}

fn ids(ids: &[TaskId]) -> String {
    ids.iter().map(TaskId::to_string).collect::<Vec<_>>().join(",")
}

/// The reason or result of a task; empty if none was given.
fn words(words: &[String]) -> Result<String, Failure> {
    if words.is_empty() { Ok(String::new()) } else { parse::text(words, None) }
}

fn task_id(given: &str) -> Result<TaskId, Failure> {
    given.parse().map_err(|_| {
        let message =
            format!("{:?} is not the id of a task, which is T- and a number", single_line(given));
        Failure::not_found(ErrorCode::UnknownTask.as_str(), message)
            .hint("`peerctl tasks` lists them")
    })
}

fn state(text: &str) -> Result<TaskState, String> {
    text.parse().map_err(|_| {
        let known: Vec<_> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
        format!("a task is {}", known.join(", "))
    })
}
