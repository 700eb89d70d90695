//! `peerctl search`: searches messages, questions, answers, notes and tasks by their words.
//!
//! Knows the pages of results and the shell's quoting. Does not know the index or the ranking.

use clap::ValueEnum;
use peer_client::Endpoint;
use peer_proto::ids::Timestamp;
use peer_proto::limits::{PAGE_ENTRIES_MAX, SEARCH_BEGINNINGS_MAX, SEARCH_OFFSET_MAX};
use peer_proto::search::{Hit, HitKind, SearchQuery};
use schemars::JsonSchema;
use serde::Serialize;

use super::history::{self, MessageMore, MessageRow};
use crate::error::Failure;
use crate::json::{Id, Time};
use crate::operator::{Operator, message_id};
use crate::output::{Output, Tone, cell, rfc3339};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  peerctl search deploy staging              both words, best match first
  peerctl search \"'blue green' migr*\"        a phrase and a beginning
  peerctl search parser::new --peer backend --since 2d
  peerctl search url --kind note --newest
  peerctl search m-01JDK3V7QX8Z2M4T          this message and its mentions

Case and accents do not matter. A word of code such as foo::bar or snake_case
matches whole or by its parts. Single quotation marks count as double ones.";

/// Search messages, questions, answers, notes and tasks by their words
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Words, all of which must match; "a phrase", begin*
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,

    /// Only results of this kind; may be repeated
    #[arg(long)]
    kind: Vec<Kind>,

    /// Only messages that this peer sent or got; `me` is you
    #[arg(long)]
    peer: Option<String>,

    /// Only messages in this channel
    #[arg(long)]
    channel: Option<String>,

    /// Only messages of this thread
    #[arg(long)]
    thread: Option<String>,

    /// Only results since then: a day or time (UTC) such as 2026-11-20T08:00:00Z, or an age such as
    /// 2h
    #[arg(long, value_parser = parse::moment, value_name = "WHEN")]
    since: Option<Timestamp>,

    /// Newest first, instead of best match first
    #[arg(long)]
    newest: bool,

    /// Print at most this many
    #[arg(short, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SEARCH_OFFSET_MAX)))]
    n: u32,
}

/// Number of hits below which the command also counts the hits for the beginning of the last word.
const FEW_HITS: u64 = 5;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Message,
    Question,
    Answer,
    Note,
    Task,
}

impl Kind {
    fn word(self) -> HitKind {
        match self {
            Self::Message => HitKind::Message,
            Self::Question => HitKind::Question,
            Self::Answer => HitKind::Answer,
            Self::Note => HitKind::Note,
            Self::Task => HitKind::Task,
        }
    }
}

/// A search result: a message as `history` prints it, or a note or task.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FoundRow {
    /// A message's or task's id, or a note's key.
    id: String,
    /// The name of the peer that wrote it.
    from: String,
    to: Vec<String>,
    /// Null unless it is a message; the same holds for the next three fields.
    text: Option<String>,
    intent: Option<&'static str>,
    thread: Option<String>,
    reply_to: Option<Id>,
    at: Time,
    /// Null unless it is a message.
    stage: Option<&'static str>,
    /// `message`, `question`, `answer`, `note` or `task`.
    kind: &'static str,
    /// The part of its text that matches best, in one line.
    snippet: String,
    /// The byte ranges of the snippet that match.
    matches: Vec<(u32, u32)>,
    /// The further fields of a message; absent for other kinds.
    #[serde(flatten)]
    more: Option<MessageMore>,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let operator = Operator::connect(endpoint).await?;
    let query = SearchQuery {
        text: text(&args.query),
        kinds: args.kind.into_iter().map(Kind::word).collect(),
        peer: args.peer.map(parse::peer),
        channel: args.channel.map(parse::channel),
        thread: args.thread,
        since: args.since,
        newest: args.newest,
        limit: args.n,
        offset: 0,
    };
    let channel = query.channel.clone();
    let asked = query.clone();
    let (hits, total, behind) = read(&operator, query).await?;
    if let Some(name) = channel.filter(|_| hits.is_empty()) {
        history::must_be_known(&operator, &name).await?;
    }
    if output.json {
        let mut rows = Vec::with_capacity(hits.len());
        for hit in &hits {
            rows.push(row(&operator, hit).await?);
        }
        return output.json(&rows);
    }
    for hit in &hits {
        print(output, hit)?;
    }
    match hits.len() as u64 {
        0 => output.remark("nothing has all of these words"),
        shown if shown < total => output.remark(&format!("{shown} of {total}; -n shows more")),
        _ => {}
    }
    if behind > 0 {
        output.remark(&format!(
            "changes that are not indexed yet: {behind}; search again in a moment"
        ));
    } else if total < FEW_HITS
        && let Some(longer) = with_star(&asked.text)
    {
        let (_, with_star, _) =
            operator.search(&SearchQuery { text: longer.clone(), limit: 1, ..asked }).await?;
        if with_star > total {
            output.remark(&format!("{} more for {longer}", with_star - total));
        }
    }
    Ok(())
}

/// The query with its last word as a beginning; `None` if it does not end with a whole word.
fn with_star(text: &str) -> Option<String> {
    let text = text.trim_end();
    let can_go_on =
        text.ends_with(char::is_alphanumeric) && text.matches('"').count().is_multiple_of(2);
    (can_go_on && text.matches('*').count() < SEARCH_BEGINNINGS_MAX).then(|| format!("{text}*"))
}

/// The query as the broker reads it. Words that the shell had in quotation marks are single words:
/// a phrase needs quotation marks inside the query.
fn text(words: &[String]) -> String {
    words.join(" ").split(' ').map(quotation_marks).collect::<Vec<_>>().join(" ")
}

/// Replaces single quotation marks at the edges of a word by double ones. An apostrophe stays.
fn quotation_marks(word: &str) -> String {
    let opened = match word.strip_prefix('\'') {
        Some(rest) => format!("\"{rest}"),
        None => word.to_owned(),
    };
    match opened.strip_suffix('\'') {
        Some(rest) => format!("{rest}\""),
        None => opened,
    }
}

/// Reads as many hits as the query's limit, over all pages. Also returns the total number of hits,
/// and the number of changes that are not indexed.
async fn read(
    operator: &Operator,
    mut query: SearchQuery,
) -> Result<(Vec<Hit>, u64, u64), Failure> {
    let wanted = query.limit as usize;
    let mut all: Vec<Hit> = Vec::new();
    loop {
        query.limit = u32::try_from((wanted - all.len()).min(PAGE_ENTRIES_MAX)).unwrap_or(u32::MAX);
        let (hits, total, behind) = operator.search(&query).await?;
        let page = hits.len();
        all.extend(hits);
        if page == 0 || all.len() >= wanted || all.len() as u64 >= total {
            return Ok((all, total, behind));
        }
        query.offset += query.limit;
    }
}

fn print(output: &Output, hit: &Hit) -> Result<(), Failure> {
    let to: Vec<_> = hit.to.iter().map(|name| cell(name)).collect();
    let to = if to.is_empty() {
        String::new()
    } else {
        format!(" -> {}", output.paint(Tone::Strong, &to.join(", ")))
    };
    output.line(&format!(
        "{}  {}{to}  {} {}",
        output.paint(Tone::Faint, &rfc3339(hit.at)),
        output.paint(Tone::Strong, &cell(&hit.from)),
        hit.kind.as_str(),
        cell(&hit.id),
    ))?;
    output.quoted(&hit.snippet)
}

/// The row of a hit. A hit that is not a message has no intent, reply or stage.
async fn row(operator: &Operator, hit: &Hit) -> Result<FoundRow, Failure> {
    let message = match hit.kind {
        HitKind::Message | HitKind::Question | HitKind::Answer => {
            Some(MessageRow::from(&operator.show(message_id(&hit.id)?).await?))
        }
        HitKind::Note | HitKind::Task => None,
    };
    let (kind, snippet, matches) = (hit.kind.as_str(), hit.snippet.clone(), hit.matches.clone());
    Ok(match message {
        Some(MessageRow {
            id: _,
            from,
            to,
            text,
            intent,
            thread,
            reply_to,
            at,
            stage,
            kind: _,
            more,
        }) => FoundRow {
            id: hit.id.clone(),
            from,
            to,
            text: Some(text),
            intent: Some(intent),
            thread: Some(thread),
            reply_to,
            at,
            stage,
            kind,
            snippet,
            matches,
            more: Some(more),
        },
        None => FoundRow {
            id: hit.id.clone(),
            from: hit.from.clone(),
            to: hit.to.clone(),
            text: None,
            intent: None,
            thread: None,
            reply_to: None,
            at: Time(hit.at),
            stage: None,
            kind,
            snippet,
            matches,
            more: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_last_word_can_go_on() {
        assert_eq!(with_star("the passkey ").as_deref(), Some("the passkey*"));
        for text in
            ["passk*", "\"blue green\"", "\"not closed", "what?", "a* b* c* d* e* f* g* h* i"]
        {
            assert_eq!(with_star(text), None, "{text}");
        }
    }

    #[test]
    fn single_quotation_marks_are_double_ones_and_apostrophes_are_not() {
        let text =
            |words: &[&str]| text(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(text(&["'blue green' migr*"]), "\"blue green\" migr*");
        assert_eq!(text(&["don't", "'stop'"]), "don't \"stop\"");
        assert_eq!(text(&["two", "words here"]), "two words here");
    }
}
