//! `peerctl inbox`: lists waiting mail.
//!
//! Does not know the rules of delivery. Invariant: it leases and settles nothing, except with
//! `--ack`.

use peer_client::Endpoint;
use peer_proto::ids::PeerId;
use peer_proto::message::{Message, Stage};
use peer_proto::request::{InboxEntry, Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::{pause, status};
use crate::error::Failure;
use crate::json::{Id, Time};
use crate::operator::{Operator, person, unexpected};
use crate::output::{Output, Tone, age, cell, now, size};

const AFTER_HELP: &str = "\
Examples:
  peerctl inbox                  waiting mail of all peers
  peerctl inbox backend          waiting mail of one peer
  peerctl inbox --held           mail that waits for your decision
  peerctl inbox me               mail to you, with the texts
  peerctl inbox me --ack         the same, and acknowledge it

Listing mail settles nothing. Only --ack, `peerctl show` and a reply settle
your own mail.";

/// Most messages in one acknowledgement.
const ACK_CHUNK: usize = peer_proto::limits::MESSAGES_PER_REQUEST_MAX;

/// List waiting mail: for whom, and for how long
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A name or id; `me` for your own mail, with texts. By default, all peers
    peer: Option<String>,

    /// Only mail that a policy holds
    #[arg(long)]
    held: bool,

    /// Acknowledge the printed mail; only for `me`
    #[arg(long)]
    ack: bool,
}

/// A message that waits for its recipient.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InboxRow {
    id: Id,
    /// Its sender's name.
    from: String,
    /// How its sender sent it.
    via: &'static str,
    /// The recipient's name.
    to: String,
    to_id: String,
    /// `request` or `inform`: whether it may wake an idle recipient.
    intent: &'static str,
    stage: &'static str,
    at: Time,
    age_ms: u64,
    /// The sessions that ended after their model may have been asked with it.
    attempts: u32,
    /// The size of its text.
    bytes: u32,
}

impl From<&InboxEntry> for InboxRow {
    fn from(entry: &InboxEntry) -> Self {
        Self {
            id: Id(entry.message),
            from: entry.from.clone(),
            via: entry.via.as_str(),
            to: entry.to.clone(),
            to_id: entry.peer.to_string(),
            intent: entry.intent.as_str(),
            stage: entry.stage.as_str(),
            at: Time(entry.sent_at),
            age_ms: now().ms_since(entry.sent_at),
            attempts: entry.attempts,
            bytes: entry.text_bytes,
        }
    }
}

/// A message that waits for you, with its text.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InboxMessage {
    #[serde(flatten)]
    row: InboxRow,
    text: String,
    thread: String,
    /// The message that it answers.
    reply_to: Option<Id>,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let mine = args.peer.as_deref().and_then(person).is_some();
    if args.ack && !mine {
        return Err(Failure::usage("--ack works only for your own mail")
            .hint("run `peerctl inbox me --ack`"));
    }
    let operator = Operator::connect(endpoint).await?;
    let whose =
        if mine { PeerId::HUMAN.to_string() } else { args.peer.unwrap_or_else(|| "*".to_owned()) };
    let entries = operator.inbox(Some(whose), args.held).await?;
    if !mine {
        return print(output, &entries, if args.held { "no held mail" } else { "no waiting mail" });
    }
    print_mine(output, &operator, &entries).await?;
    let held = operator.inbox(Some("*".to_owned()), true).await?.len();
    if held > 0 {
        output.remark(&format!(
            "held messages to sessions: {held}; `peerctl inbox --held` lists them"
        ));
    }
    let status = status::ask(&operator).await?;
    if !status.used_up.is_empty() {
        let threads = pause::told_with(&[], &status.used_up);
        output.remark(&format!("paused: {threads}; `peerctl resume --thread T` ends a pause"));
    }
    if args.ack {
        for chunk in entries.chunks(ACK_CHUNK) {
            let messages = chunk.iter().map(|entry| entry.message).collect();
            let Reply::Acked { .. } = operator.ask(Request::Ack { messages }).await? else {
                return Err(unexpected());
            };
        }
    }
    Ok(())
}

fn print(output: &Output, entries: &[InboxEntry], empty: &str) -> Result<(), Failure> {
    if output.json {
        return output.json_rows(entries.iter().map(InboxRow::from));
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            vec![
                entry.message.to_string(),
                cell(&entry.from),
                cell(&entry.to),
                entry.intent.as_str().to_owned(),
                entry.stage.as_str().to_owned(),
                age(entry.sent_at),
                entry.attempts.to_string(),
                size(u64::from(entry.text_bytes)),
            ]
        })
        .collect();
    output.table(
        &["ID", "FROM", "TO", "INTENT", "STAGE", "AGE", "ATTEMPTS", "SIZE"],
        &rows,
        empty,
    )?;
    if entries.iter().any(|entry| entry.stage == Stage::Held) {
        output.remark("held mail: `peerctl show ID` prints one, `peerctl release ID` releases it, `peerctl cancel ID` withdraws it");
    }
    Ok(())
}

async fn print_mine(
    output: &Output,
    operator: &Operator,
    entries: &[InboxEntry],
) -> Result<(), Failure> {
    let mut all = Vec::new();
    for entry in entries {
        let message = operator.read(entry.message).await?;
        if output.json {
            let (text, thread, reply_to) = (message.text, message.thread, message.reply_to.map(Id));
            all.push(InboxMessage { row: entry.into(), text, thread, reply_to });
        } else {
            print_letter(output, entry, &message)?;
        }
    }
    if output.json {
        return output.json(&all);
    }
    output.remark(match entries.is_empty() {
        true => "no mail for you",
        false => "answer with `peerctl send FROM --reply-to ID -- TEXT`; `peerctl inbox me --ack` acknowledges all",
    });
    Ok(())
}

fn print_letter(output: &Output, entry: &InboxEntry, message: &Message) -> Result<(), Failure> {
    let from = output.paint(Tone::Strong, &cell(&entry.from));
    let reply = message.reply_to.map(|id| format!(" in reply to {id}")).unwrap_or_default();
    output.line(&format!(
        "{} {} from {from}{reply}, {} ago",
        entry.message,
        entry.intent.as_str(),
        age(entry.sent_at)
    ))?;
    output.quoted(&message.text)?;
    output.line("")
}
