//! `peerctl questions`: lists questions, asks and answers.
//!
//! Does not know when a question closes: the broker decides.

use std::time::Duration;

use clap::Subcommand;
use peer_client::Endpoint;
use peer_proto::question::{Answer, Ask, QuestionInfo, QuestionsQuery};
use peer_proto::request::{Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;

use super::send;
use crate::error::Failure;
use crate::json::{Id, Time};
use crate::operator::{Operator, message_id, unexpected};
use crate::output::{Output, age, cell};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  peerctl questions                             all questions, newest first
  peerctl questions --open --peer backend
  peerctl questions ask --to backend -- \"which port does the dev server use?\"
  peerctl questions answer m-06FHK2RBXW3T9Q1C --source README.md:12 -- \"8080\"

The first answer closes a question. A question without an answer expires, after
a day by default, and its asker is told. `peerctl show ID` prints its text,
`peerctl cancel ID` withdraws it, and `peerctl ask` waits for the answer.";

/// Questions that are listed if no number is given.
const LISTED: usize = 50;

/// List questions, ask and answer
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<QuestionsCommand>,

    /// Only questions that wait for an answer
    #[arg(long)]
    open: bool,

    /// Only questions that this peer asked or was asked; `me` is you
    #[arg(long)]
    peer: Option<String>,

    /// Print at most this many, the newest
    #[arg(short, default_value_t = LISTED, value_name = "N")]
    n: usize,
}

#[derive(Debug, Subcommand)]
enum QuestionsCommand {
    /// Ask a question
    Ask {
        /// Names, ids, #channel or @group, separated by commas
        #[arg(long)]
        to: String,
        /// Where to look for the answer, or why you ask
        #[arg(long)]
        hint: Option<String>,
        /// The question expires if nobody answered it after this long
        #[arg(long, value_parser = parse::duration, value_name = "SPAN")]
        ttl: Option<Duration>,
        /// The question; - reads standard input
        #[arg(required = true)]
        text: Vec<String>,
    },
    /// Answer an open question
    Answer {
        /// The question's id
        question: String,
        /// A source of the answer; may be repeated
        #[arg(long, value_name = "SOURCE")]
        source: Vec<String>,
        /// The answer; - reads standard input
        #[arg(required = true)]
        text: Vec<String>,
    },
}

/// A question.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QuestionRow {
    id: Id,
    /// The name of the peer that asked.
    from: String,
    /// The names of the peers that were asked.
    to: Vec<String>,
    state: &'static str,
    asked_at: Time,
    expires_at: Time,
    /// The answer that closed it.
    answered: Option<AnsweredBy>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct AnsweredBy {
    by: String,
    /// The id of the answer.
    id: Id,
}

impl From<&QuestionInfo> for QuestionRow {
    fn from(question: &QuestionInfo) -> Self {
        Self {
            id: Id(question.question),
            from: question.from.clone(),
            to: question.to.clone(),
            state: question.state.as_str(),
            asked_at: Time(question.asked_at),
            expires_at: Time(question.expires_at),
            answered: question
                .answered
                .as_ref()
                .map(|(by, id)| AnsweredBy { by: by.clone(), id: Id(*id) }),
        }
    }
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let request = match args.command {
        None => {
            let peer = args.peer.map(parse::peer);
            let query = QuestionsQuery { open: args.open, peer, before: None };
            let questions = read(&Operator::connect(endpoint).await?, query, args.n).await?;
            return print(output, &questions);
        }
        Some(QuestionsCommand::Ask { to, hint, ttl, text }) => Request::Ask(Ask {
            to: parse::recipients(&to)?,
            question: parse::text(&text, None)?,
            context_hint: hint,
            ttl_ms: ttl.map(parse::millis),
            idempotency_key: Some(parse::fresh_key()),
        }),
        Some(QuestionsCommand::Answer { question, source, text }) => Request::Answer(Answer {
            question: message_id(&question)?,
            answer: parse::text(&text, None)?,
            sources: source,
            idempotency_key: Some(parse::fresh_key()),
        }),
    };
    match Operator::connect(endpoint).await?.ask(request).await? {
        Reply::Sent(sent) => send::print(output, &sent),
        _ => Err(unexpected()),
    }
}

/// Reads the newest questions, over all pages.
async fn read(
    operator: &Operator,
    mut query: QuestionsQuery,
    wanted: usize,
) -> Result<Vec<QuestionInfo>, Failure> {
    let mut all: Vec<QuestionInfo> = Vec::new();
    while all.len() < wanted {
        let Reply::Questions { questions, next } =
            operator.ask(Request::Questions(query.clone())).await?
        else {
            return Err(unexpected());
        };
        all.extend(questions);
        match next {
            Some(_) => query.before = next,
            None => break,
        }
    }
    all.truncate(wanted);
    Ok(all)
}

fn print(output: &Output, questions: &[QuestionInfo]) -> Result<(), Failure> {
    if output.json {
        return output.json_rows(questions.iter().map(QuestionRow::from));
    }
    let answered = |question: &QuestionInfo| match &question.answered {
        Some((by, answer)) => format!("{} {answer}", cell(by)),
        None => String::new(),
    };
    let row = |question: &QuestionInfo| {
        let to: Vec<_> = question.to.iter().map(|name| cell(name)).collect();
        vec![
            question.question.to_string(),
            cell(&question.from),
            to.join(", "),
            question.state.as_str().to_owned(),
            age(question.asked_at),
            answered(question),
        ]
    };
    let rows: Vec<_> = questions.iter().map(row).collect();
    output.table(&["ID", "FROM", "TO", "STATE", "AGE", "ANSWERED BY"], &rows, "no questions")
}
