//! `peerctl ask`: sends a request and waits for its first reply.
//!
//! Knows the events that bring a reply. Does not know how a message is delivered. Invariant: the
//! question is stored once, also if the broker dies while the command waits.

use std::time::Duration;

use peer_client::{Endpoint, RequestError};
use peer_proto::ids::MessageId;
use peer_proto::message::{Intent, Message, Stage};
use peer_proto::reach::Reach;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{DeliveryEvent, Push, Request, Send, Sent, SentDelivery, WatchEvent};
use schemars::JsonSchema;
use serde::Serialize;

use super::send;
use crate::error::{Failure, Kind};
use crate::json::{Id, Time};
use crate::operator::Operator;
use crate::output::{Output, Tone, cell};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  peerctl ask backend -- \"which port does the dev server use?\"
  peerctl ask backend --wait 30s --json -- \"is it green?\" | jq -r .reply.text

If no reply comes in time, the exit code is 5. The question stays with its
recipient, and `peerctl inbox me` will have the answer.";

/// Send a request and print the first reply
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Names or ids, separated by commas; the first reply counts
    to: String,

    /// The question; - reads standard input
    #[arg(required = true)]
    text: Vec<String>,

    /// How long to wait
    #[arg(long, default_value = "5m", value_parser = parse::duration, value_name = "SPAN")]
    wait: Duration,
}

/// A question, and its first reply.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Asked {
    /// The question.
    id: Id,
    /// Its thread; absent if no reply came in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<String>,
    /// Null if no reply came in time.
    reply: Option<Replied>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Replied {
    id: Id,
    /// Its sender's name.
    from: String,
    text: String,
    at: Time,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let question = Send {
        to: parse::recipients(&args.to)?,
        text: parse::text(&args.text, None)?,
        intent: Some(Intent::Request),
        reply_to: None,
        thread: None,
        ttl_ms: None,
        sources: Vec::new(),
        idempotency_key: Some(parse::fresh_key()),
    };
    let mut asked = None;
    match tokio::time::timeout(args.wait, answer(output, endpoint, question, args.wait, &mut asked))
        .await
    {
        Ok(outcome) => outcome,
        Err(_) => Err(timed_out(asked, args.wait)),
    }
}

fn timed_out(asked: Option<MessageId>, wait: Duration) -> Failure {
    let wait = humantime::format_duration(wait);
    let Some(id) = asked else {
        return Failure::timed_out(format!("the broker did not accept the question within {wait}"))
            .hint("`peerctl status` shows the broker's state");
    };
    let step = format!(
        "the question stays open: `peerctl show {id}` shows its delivery, and `peerctl inbox me` will have the answer"
    );
    let failure = Failure::timed_out(format!("no reply to {id} within {wait}"));
    failure.hint(step).with(Asked { id: Id(id), thread: None, reply: None })
}

/// Asks and waits. If the broker dies meanwhile, it connects again and sends the question with the
/// same idempotency key. A reply that came in between is named in the question's delivery.
async fn answer(
    output: &Output,
    endpoint: &Endpoint,
    question: Send,
    wait: Duration,
    asked: &mut Option<MessageId>,
) -> Result<(), Failure> {
    loop {
        let mut operator = Operator::connect(endpoint).await?;
        match ask(output, &mut operator, question.clone(), wait, asked).await {
            Err(Failure { kind: Kind::Lost, .. }) => {}
            Err(failure) => {
                return Err(send::with_recipients(endpoint, &question.to, failure).await);
            }
            Ok((sent, Some(reply))) => return print(output, &operator, &sent, reply).await,
            // Every recipient refused the question.
            Ok((sent, None)) => return send::print(output, &sent),
        }
    }
}

async fn ask(
    output: &Output,
    operator: &mut Operator,
    question: Send,
    wait: Duration,
    asked: &mut Option<MessageId>,
) -> Result<(Sent, Option<Message>), Failure> {
    // Watches before it sends, so that no reply can come in between.
    operator.ask_done(Request::Watch { peer: None, bodies: false }).await?;
    let sent = operator.send(question).await?;
    if sent.deliveries.iter().all(|delivery| delivery.refusal.is_some()) {
        return Ok((sent, None));
    }
    let again = asked.replace(sent.message).is_some();
    if !again && !output.json {
        output.remark(&format!(
            "asked {}; waiting up to {} (Ctrl-C stops waiting, the question stays open)",
            whom(&sent),
            wait_told(wait)
        ));
    }
    if sent.deduplicated {
        let answered = operator
            .show(sent.message)
            .await?
            .deliveries
            .into_iter()
            .find_map(|delivery| delivery.answered_by);
        let reply = match answered {
            Some(answered) => reply(output, operator, answered).await?,
            None => None,
        };
        if reply.is_some() {
            return Ok((sent, reply));
        }
    }
    loop {
        match operator.pushes.next().await {
            Some(Push::Event { event, .. }) => {
                let Some(message) = brought_reply(&event, sent.message) else { continue };
                if let Some(reply) = reply(output, operator, message).await? {
                    return Ok((sent, Some(reply)));
                }
            }
            Some(_) => {}
            None => return Err(RequestError::Lost.into()),
        }
    }
}

/// The recipients, with the time at which each one sees the question.
fn whom(sent: &Sent) -> String {
    let taken = sent.deliveries.iter().filter(|delivery| delivery.refusal.is_none());
    let one = |delivery: &SentDelivery| {
        let name = cell(&delivery.name);
        match (delivery.stage, delivery.online) {
            (Some(Stage::Held), _) => format!("{name} (held until you release it)"),
            (_, true) => {
                format!("{name} (online, {})", Reach::of(&delivery.carriers, delivery.activity))
            }
            (_, false) => format!("{name} (offline: the question waits in its mailbox)"),
        }
    };
    taken.map(one).collect::<Vec<_>>().join(", ")
}

fn wait_told(wait: Duration) -> String {
    humantime::format_duration(wait).to_string()
}

/// The reply to this question that an event announces.
fn brought_reply(event: &WatchEvent, question: MessageId) -> Option<MessageId> {
    match event {
        WatchEvent::Delivery {
            delivery,
            what: DeliveryEvent::Stored { .. } | DeliveryEvent::Released,
        } => (delivery.reply_to == Some(question)).then_some(delivery.message),
        _ => None,
    }
}

/// Reads a reply. `None`: the reply is held for the asker. An agent's shell may not read it before
/// the person has.
async fn reply(
    output: &Output,
    operator: &Operator,
    id: MessageId,
) -> Result<Option<Message>, Failure> {
    match operator.read(id).await {
        Ok(message) => Ok(Some(message)),
        Err(failure) if failure.is_refused(ErrorCode::UnknownMessage) => {
            output.remark(&format!("the reply {id} is held until the person releases it"));
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

async fn print(
    output: &Output,
    operator: &Operator,
    sent: &Sent,
    reply: Message,
) -> Result<(), Failure> {
    if output.json {
        let replied = Replied {
            id: Id(reply.id),
            from: reply.from.name.clone(),
            text: reply.text.clone(),
            at: Time(reply.sent_at),
        };
        output.json(&Asked {
            id: Id(sent.message),
            thread: Some(sent.thread.clone()),
            reply: Some(replied),
        })?;
    } else {
        let from = output.paint(Tone::Strong, &cell(&reply.from.name));
        output.remark(&format!("{} from {from}, in reply to {}", reply.id, sent.message));
        output.quoted(&reply.text)?;
    }
    if reply.to.iter().any(|name| name == "human") {
        operator.printed(vec![reply.id]).await?;
    }
    Ok(())
}
