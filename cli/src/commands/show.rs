//! `peerctl show`: prints one message with the trace of each delivery.
//!
//! Does not know the legal transitions: the broker records the trace.

use peer_client::Endpoint;
use peer_proto::ids::PeerId;
use peer_proto::message::{Carrier, Cause, Stage, TraceEntry};
use peer_proto::request::{Shown, ShownDelivery};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::json::{Id, Time};
use crate::operator::{Operator, message_id};
use crate::output::{Output, Tone, cell, clock, rfc3339};

const AFTER_HELP: &str = "\
Examples:
  peerctl show m-06FHK2RBXW3T9Q1C
  peerctl show m-06FHK2RBXW3T9Q1C --json | jq '.deliveries[].trace'

A waiting message to you is presented once it was printed.";

/// Show one message, and its delivery to each recipient
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The message's id
    id: String,
}

/// A message with its deliveries.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WholeMessage {
    id: Id,
    /// Its sender's name.
    from: String,
    from_id: String,
    /// How its sender sent it.
    via: &'static str,
    /// The names of its recipients, or the name of the channel.
    to: Vec<String>,
    /// `request` or `inform`: whether it may wake an idle recipient.
    intent: &'static str,
    kind: &'static str,
    thread: String,
    /// The message that it answers.
    reply_to: Option<Id>,
    at: Time,
    expires_at: Option<Time>,
    /// The sources of an answer.
    sources: Vec<String>,
    text: String,
    deliveries: Vec<WholeDelivery>,
}

/// The delivery of a message to one recipient.
#[derive(Debug, Serialize, JsonSchema)]
struct WholeDelivery {
    /// The recipient's name.
    to: String,
    to_id: String,
    /// `stored`, `leased`, `offered`, `presented`, `held`, `expired`, `cancelled`, `dead` or
    /// `dropped`.
    stage: &'static str,
    /// The sessions that ended after their model may have been asked with it.
    attempts: u32,
    trace: Vec<TraceRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acked_at: Option<Time>,
    /// The message that answered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_by: Option<Id>,
}

/// An event in a delivery's trace.
#[derive(Debug, Serialize, JsonSchema)]
struct TraceRow {
    /// A stage, or `acked` or `answered`.
    stage: &'static str,
    at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl From<&Shown> for WholeMessage {
    fn from(shown: &Shown) -> Self {
        let message = &shown.message;
        Self {
            id: Id(message.id),
            from: message.from.name.clone(),
            from_id: message.from.peer.to_string(),
            via: message.from.via.as_str(),
            to: message.to.clone(),
            intent: message.intent.as_str(),
            kind: message.kind.as_str(),
            thread: message.thread.clone(),
            reply_to: message.reply_to.map(Id),
            at: Time(message.sent_at),
            expires_at: message.expires_at.map(Time),
            sources: message.sources.clone(),
            text: message.text.clone(),
            deliveries: shown.deliveries.iter().map(WholeDelivery::from).collect(),
        }
    }
}

impl From<&ShownDelivery> for WholeDelivery {
    fn from(delivery: &ShownDelivery) -> Self {
        let step = |entry: &TraceEntry| TraceRow {
            stage: entry.event.as_str(),
            at: Time(entry.at),
            carrier: entry.carrier.map(Carrier::as_str),
            reason: entry.cause.map(Cause::as_str),
        };
        Self {
            to: delivery.name.clone(),
            to_id: delivery.peer.to_string(),
            stage: delivery.stage.as_str(),
            attempts: delivery.attempts,
            trace: delivery.trace.iter().map(step).collect(),
            acked_at: delivery.acked_at.map(Time),
            answered_by: delivery.answered_by.map(Id),
        }
    }
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let id = message_id(&args.id)?;
    let operator = Operator::connect(endpoint).await?;
    let shown = operator.show(id).await?;
    print(output, &shown)?;
    if shown
        .deliveries
        .iter()
        .any(|delivery| delivery.peer == PeerId::HUMAN && delivery.stage.is_pending())
    {
        operator.printed(vec![id]).await?;
    }
    Ok(())
}

fn print(output: &Output, shown: &Shown) -> Result<(), Failure> {
    if output.json {
        return output.json(&WholeMessage::from(shown));
    }
    let message = &shown.message;
    let to: Vec<_> = message.to.iter().map(|name| cell(name)).collect();
    output.line(&format!(
        "{} {} from {} to {}, {}",
        output.paint(Tone::Strong, &message.id.to_string()),
        message.intent.as_str(),
        output.paint(Tone::Strong, &cell(&message.from.name)),
        output.paint(Tone::Strong, &to.join(", ")),
        rfc3339(message.sent_at)
    ))?;
    let reply = message.reply_to.map(|id| format!(", in reply to {id}")).unwrap_or_default();
    output.line(&format!("thread {}{reply}", cell(&message.thread)))?;
    for source in &message.sources {
        output.line(&format!("source {}", cell(source)))?;
    }
    output.quoted(&message.text)?;
    for delivery in &shown.deliveries {
        output.line("")?;
        print_trace(output, "", delivery)?;
    }
    if shown.deliveries.iter().any(|delivery| delivery.stage == Stage::Held) {
        output.remark("held: `peerctl release ID` releases it, `peerctl cancel ID` withdraws it");
    }
    Ok(())
}

/// Prints the trace of one delivery after `lead`: each event with the time since the one before.
pub(crate) fn print_trace(
    output: &Output,
    lead: &str,
    delivery: &ShownDelivery,
) -> Result<(), Failure> {
    let attempts = if delivery.attempts == 0 {
        String::new()
    } else {
        format!(", attempt {}", delivery.attempts + 1)
    };
    output.line(&format!(
        "{lead}to {}: {}{attempts}",
        output.paint(Tone::Strong, &cell(&delivery.name)),
        output.paint(Tone::Good, delivery.stage.as_str())
    ))?;
    let mut before = None;
    for entry in &delivery.trace {
        let since =
            before.map_or_else(String::new, |before| format!("+{} ms", entry.at.ms_since(before)));
        let carrier =
            entry.carrier.map(|carrier| format!(" by {}", carrier.as_str())).unwrap_or_default();
        let cause = entry.cause.map(|cause| format!(" ({})", cause.as_str())).unwrap_or_default();
        output.line(&format!(
            "  {} {since:>10}  {}{carrier}{cause}",
            clock(entry.at),
            entry.event.as_str()
        ))?;
        before = Some(entry.at);
    }
    if let Some(reply) = delivery.answered_by {
        output.line(&format!("  answered by {reply}"))?;
    }
    Ok(())
}
