//! `peerctl history`: prints past messages, and refused sends.
//!
//! Knows the pages of the history. Does not know which messages the caller may see: the broker
//! decides.

use std::collections::BTreeMap;

use peer_client::Endpoint;
use peer_proto::brake::RefusedSend;
use peer_proto::channel::ChannelRequest;
use peer_proto::ids::Timestamp;
use peer_proto::message::{Kind, Stage};
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{HistoryQuery, Reply, Request, Shown};
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::json::{Id, Time};
use crate::operator::{Operator, message_id, person, unexpected};
use crate::output::{Output, Tone, cell, rfc3339};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  peerctl history                            the last 100 messages, oldest first
  peerctl history --peer backend -n 5
  peerctl history --peer backend --with me
  peerctl history --channel '#ops'
  peerctl history --since 2h
  peerctl history --refused                  what limits and policies refused
  peerctl history --after m-06FHK2RBXW3T9Q1C --json    read on from there
  peerctl history --since 2026-11-20T08:00:00Z --json | jq -r '.[].text'";

/// Print messages, oldest first
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only messages that this peer sent or got; `me` is you
    #[arg(long)]
    peer: Option<String>,

    /// Only messages between --peer (or anybody) and this peer
    #[arg(long)]
    with: Option<String>,

    /// Only messages in this channel or group
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,

    /// Only messages of this thread
    #[arg(long)]
    thread: Option<String>,

    /// Only messages after this one, the oldest N of them: a script that remembers the last id it
    /// saw reads on without a gap or a repeat
    #[arg(long, value_name = "ID")]
    after: Option<String>,

    /// Only messages since then: a day or time (UTC) such as 2026-11-20T08:00:00Z, or an age such
    /// as 2h
    #[arg(long, value_parser = parse::moment, value_name = "WHEN")]
    since: Option<Timestamp>,

    /// Print the sends that limits and policies refused lately, and why; they were not stored
    #[arg(long, conflicts_with_all = ["with", "channel", "after"])]
    refused: bool,

    /// Print at most this many, the newest (with --after the oldest)
    #[arg(short, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    n: u32,
}

/// A message.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MessageRow {
    pub(crate) id: Id,
    /// Its sender's name.
    pub(crate) from: String,
    /// The names of its recipients, or the name of the channel.
    pub(crate) to: Vec<String>,
    pub(crate) text: String,
    /// `request` or `inform`: whether it may wake an idle recipient.
    pub(crate) intent: &'static str,
    pub(crate) thread: String,
    /// The message that it answers.
    pub(crate) reply_to: Option<Id>,
    pub(crate) at: Time,
    /// With several deliveries, the stage of one that still waits or went wrong. Null without a
    /// delivery.
    pub(crate) stage: Option<&'static str>,
    pub(crate) kind: &'static str,
    #[serde(flatten)]
    pub(crate) more: MessageMore,
}

/// The fields that only a message has, and no other search result.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MessageMore {
    /// How its sender sent it.
    via: &'static str,
    /// The channel or group that it was sent to.
    channel: Option<String>,
    /// The sources of an answer.
    sources: Vec<String>,
    /// The stage of each delivery, by the name of the recipient.
    stages: BTreeMap<String, &'static str>,
}

impl From<&Shown> for MessageRow {
    fn from(shown: &Shown) -> Self {
        let message = &shown.message;
        let stage = shown.deliveries.iter().map(|delivery| delivery.stage).reduce(least_settled);
        Self {
            id: Id(message.id),
            from: message.from.name.clone(),
            to: message.to.clone(),
            text: message.text.clone(),
            intent: message.intent.as_str(),
            thread: message.thread.clone(),
            reply_to: message.reply_to.map(Id),
            at: Time(message.sent_at),
            stage: stage.map(Stage::as_str),
            kind: message.kind.as_str(),
            more: MessageMore {
                via: message.from.via.as_str(),
                channel: message.channel.clone(),
                sources: message.sources.clone(),
                stages: shown
                    .deliveries
                    .iter()
                    .map(|delivery| (delivery.name.clone(), delivery.stage.as_str()))
                    .collect(),
            },
        }
    }
}

/// A send that a limit or a policy refused. It was not stored.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RefusedRow {
    at: Time,
    /// Its sender's name.
    from: String,
    /// The recipients, as the sender gave them.
    to: String,
    thread: Option<String>,
    code: &'static str,
    reason: String,
    /// The beginning of its text.
    beginning: String,
}

impl From<&RefusedSend> for RefusedRow {
    fn from(refused: &RefusedSend) -> Self {
        Self {
            at: Time(refused.at),
            from: refused.from.clone(),
            to: refused.to.clone(),
            thread: refused.thread.clone(),
            code: refused.code.as_str(),
            reason: refused.message.clone(),
            beginning: refused.beginning.clone(),
        }
    }
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let operator = Operator::connect(endpoint).await?;
    if args.refused {
        return refused(&args, output, &operator).await;
    }
    let query = HistoryQuery {
        peer: args.peer.map(parse::peer),
        with: args.with.map(parse::peer),
        thread: args.thread,
        channel: args.channel.map(parse::channel),
        after: args.after.as_deref().map(message_id).transpose()?,
        since: args.since,
        before: None,
        limit: args.n,
    };
    show(output, &operator, query).await
}

/// Prints the sends that limits and policies refused, oldest first.
async fn refused(args: &Args, output: &Output, operator: &Operator) -> Result<(), Failure> {
    let Reply::Refusals(mut refusals) = operator.ask(Request::Refusals).await? else {
        return Err(unexpected());
    };
    let peer = match args.peer.as_deref() {
        None => None,
        Some(name) if person(name).is_some() => person(name).map(str::to_owned),
        Some(name) => Some(operator.peer(name).await?.name),
    };
    refusals.retain(|refused| {
        let names = refused.to.split(',').chain([refused.from.as_str()]);
        peer.as_ref()
            .is_none_or(|peer| names.into_iter().any(|name| name.trim().eq_ignore_ascii_case(peer)))
            && args.since.is_none_or(|since| refused.at >= since)
            && args.thread.as_ref().is_none_or(|thread| refused.thread.as_ref() == Some(thread))
    });
    refusals.truncate(args.n as usize);
    refusals.reverse();
    if output.json {
        return output.json_rows(refusals.iter().map(RefusedRow::from));
    }
    if refusals.is_empty() {
        output.remark("the broker remembers no refused send since its start");
    }
    for refused in &refusals {
        let to = if refused.to.is_empty() {
            String::new()
        } else {
            format!(" -> {}", cell(&refused.to))
        };
        let (at, from) = (rfc3339(refused.at), output.paint(Tone::Strong, &cell(&refused.from)));
        output.line(&format!(
            "{at}  {from}{to}  {}: {}",
            refused.code.as_str(),
            single_line(&refused.message)
        ))?;
        output.quoted(&refused.beginning)?;
    }
    Ok(())
}

/// Reads the messages of a query and prints them.
pub(crate) async fn show(
    output: &Output,
    operator: &Operator,
    query: HistoryQuery,
) -> Result<(), Failure> {
    let channel = query.channel.clone();
    let elsewhere =
        channel.as_ref().is_some_and(|name| name.starts_with('#') && name.contains('@'));
    let messages = read(operator, query).await?;
    if let Some(name) = channel.filter(|_| messages.is_empty()) {
        must_be_known(operator, &name).await?;
    }
    if output.json {
        return output.json_rows(messages.iter().map(MessageRow::from));
    }
    if elsewhere {
        output.remark("the other machine has all posts; these came since this one has a member");
    }
    print(output, &messages)
}

/// Fails if the channel does not exist, or if the caller may not see it. An empty history alone
/// does not tell the two apart.
pub(crate) async fn must_be_known(operator: &Operator, name: &str) -> Result<(), Failure> {
    let Reply::Channels(channels) = operator.ask(Request::Channel(ChannelRequest::List)).await?
    else {
        return Err(unexpected());
    };
    if channels.iter().any(|channel| channel.name.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let message = format!("there is no channel {:?}", single_line(name));
    Err(Failure::not_found(ErrorCode::UnknownChannel.as_str(), message)
        .hint("`peerctl channels` lists them"))
}

/// Reads as many messages as the query's limit, over all pages. Returns the oldest first.
pub(crate) async fn read(
    operator: &Operator,
    mut query: HistoryQuery,
) -> Result<Vec<Shown>, Failure> {
    let (wanted, onwards) = (query.limit as usize, query.after.is_some());
    let mut all: Vec<Shown> = Vec::new();
    while all.len() < wanted {
        query.limit = u32::try_from(wanted - all.len()).unwrap_or(u32::MAX);
        let Reply::History { messages, next } =
            operator.ask(Request::History(query.clone())).await?
        else {
            return Err(unexpected());
        };
        all.extend(messages);
        match next {
            Some(_) if onwards => query.after = next,
            Some(_) => query.before = next,
            None => break,
        }
    }
    all.truncate(wanted);
    if !onwards {
        all.reverse();
    }
    Ok(all)
}

pub(crate) fn print(output: &Output, messages: &[Shown]) -> Result<(), Failure> {
    if messages.is_empty() {
        output.remark("no messages");
    }
    for shown in messages {
        let message = &shown.message;
        // A notice about a channel goes to one member only.
        let to: Vec<_> = match &message.channel {
            Some(channel) if message.kind != Kind::Notice => vec![cell(channel)],
            _ => message.to.iter().map(|name| cell(name)).collect(),
        };
        let reply = message.reply_to.map(|id| format!(" in reply to {id}")).unwrap_or_default();
        output.line(&format!(
            "{}  {} -> {}  {}{reply}  {}",
            output.paint(Tone::Faint, &rfc3339(message.sent_at)),
            output.paint(Tone::Strong, &cell(&message.from.name)),
            output.paint(Tone::Strong, &to.join(", ")),
            message.id,
            output.paint(Tone::Faint, &stages(shown)),
        ))?;
        output.quoted(&message.text)?;
    }
    Ok(())
}

/// Each distinct stage once, in the order of the recipients.
fn stages(shown: &Shown) -> String {
    let mut names: Vec<&str> = Vec::new();
    for delivery in &shown.deliveries {
        if !names.contains(&delivery.stage.as_str()) {
            names.push(delivery.stage.as_str());
        }
    }
    names.join(", ")
}

/// With several deliveries, the one that still waits or went wrong has the most important stage.
fn least_settled(one: Stage, other: Stage) -> Stage {
    let rank = |stage: Stage| match stage {
        Stage::Dead => 0,
        Stage::Held => 1,
        Stage::Stored => 2,
        Stage::Leased => 3,
        Stage::Offered => 4,
        Stage::Relayed => 5,
        Stage::Expired => 6,
        Stage::Dropped => 7,
        Stage::Cancelled => 8,
        Stage::Posted => 9,
        Stage::Presented => 10,
    };
    if rank(other) < rank(one) { other } else { one }
}
